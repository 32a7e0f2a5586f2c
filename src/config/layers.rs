//! A file and overrides, merged over the defaults key by key. Every key is checked by itself, so
//! that one wrong value does not hide another.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ConfigError};

/// The defaults, with the values that were laid over them so far.
pub(super) struct Layers {
    merged: Table,
    problems: Vec<String>,
    /// By key that is not the default's: the file or flag that set it last.
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// The defaults.
    pub fn new() -> Result<Self, ConfigError> {
        let merged = Table::try_from(Config::default()).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { merged, problems: Vec::new(), origins: BTreeMap::new() })
    }

    /// The defaults, a file and overrides, in this order.
    pub fn of(path: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut layers = Self::new()?;
        if let Some(path) = path {
            layers.add(&read_file(path)?, &path.display().to_string());
        }
        for text in overrides {
            layers.add(&parse_override(text)?, &format!("--set {text}"));
        }
        Ok(layers)
    }

    /// Lays the values of `table` over the earlier ones. `origin` names their file or flag in
    /// messages. Values that cannot be used are left out and reported by [`Self::merged`].
    pub fn add(&mut self, table: &Table, origin: &str) {
        let mut notes = Notes { origin, origins: &mut self.origins, problems: &mut self.problems };
        merge(&mut self.merged, table, &mut Vec::new(), &mut notes);
    }

    /// The file or flag that set each key, other than the defaults.
    pub fn origins(&self) -> &BTreeMap<String, String> {
        &self.origins
    }

    /// The configuration, and a line for each value that could not be used.
    ///
    /// # Errors
    /// Values that are right each by itself, but make no configuration together.
    pub fn merged(self) -> Result<(Config, Vec<String>), ConfigError> {
        let config = Config::deserialize(self.merged).map_err(|error| invalid(error.message().to_owned()))?;
        Ok((config, self.problems))
    }
}

fn invalid(problem: String) -> ConfigError {
    ConfigError::Invalid(vec![problem])
}

/// Reads the TOML file at `path`.
pub(super) fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        origin: path.display().to_string(),
        reason: match error.span() {
            Some(span) => {
                let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                format!("line {line}: {}", error.message())
            }
            None => error.message().to_owned(),
        },
    })
}

/// Parses `section.key=value`. A bare word is a string, so that `--set model.preset=nano` needs no
/// quotes.
pub(super) fn parse_override(text: &str) -> Result<Table, ConfigError> {
    let invalid = |reason: String| ConfigError::Syntax { origin: format!("--set {text}"), reason };
    let (key, value) =
        text.split_once('=').ok_or_else(|| invalid("expected section.key=value, for example ppo.steps=50".into()))?;
    let parsed = format!("{key} = {value}")
        .parse::<Table>()
        .or_else(|_| format!("{key} = {}", Value::String(value.into())).parse::<Table>());
    parsed.map_err(|error| invalid(error.message().to_owned()))
}

/// Where values come from, and what is wrong with them.
struct Notes<'a> {
    origin: &'a str,
    origins: &'a mut BTreeMap<String, String>,
    problems: &'a mut Vec<String>,
}

/// Lays `new` over `known`, whose keys and types decide what is allowed. `path` holds the names of
/// the sections around.
fn merge<'a>(known: &mut Table, new: &'a Table, path: &mut Vec<&'a str>, notes: &mut Notes) {
    let origin = notes.origin;
    for (key, value) in new {
        path.push(key);
        let name = path.join(".");
        match (nearest(known, key), known.get_mut(key), value) {
            (nearest, None, _) => {
                let hint = nearest.map_or(String::new(), |nearest| {
                    let sections = &path[..path.len() - 1];
                    let suggestion = [sections, &[nearest.as_str()]].concat().join(".");
                    format!("; did you mean `{suggestion}`?")
                });
                notes.problems.push(format!("{origin}: unknown key `{name}`{hint}"));
            }
            (_, Some(Value::Table(current)), Value::Table(value)) => merge(current, value, path, notes),
            (_, Some(current), value) => match checked(current, value, path) {
                Ok(value) => {
                    *current = value;
                    notes.origins.insert(name, origin.to_owned());
                }
                Err(problem) => notes.problems.push(format!("{origin}: {problem}")),
            },
        }
        path.pop();
    }
}

/// The key of `known` that is most like `key`.
fn nearest(known: &Table, key: &str) -> Option<String> {
    known.keys().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key))).cloned()
}

/// The value for the key at `path`, whose value is `current` so far.
///
/// # Errors
/// A message that says why the value cannot be used.
fn checked(current: &Value, value: &Value, path: &[&str]) -> Result<Value, String> {
    let value = match (current, value) {
        (Value::Float(_), Value::Integer(whole)) => Value::Float(*whole as f64),
        (current, value) if current.same_type(value) => value.clone(),
        (current, value) => {
            let (expected, found) = (type_name(current), type_name(value));
            return Err(format!("`{}` expects {expected}, got {found} {value}", path.join(".")));
        }
    };
    // All other keys have their defaults, so anything that serde refuses is this value.
    let mut alone = value.clone();
    for key in path.iter().rev() {
        alone = Value::Table(Table::from_iter([((*key).to_owned(), alone)]));
    }
    match Config::deserialize(alone) {
        Ok(_) => Ok(value),
        Err(error) => Err(format!("{} = {value}: {}", path.join("."), error.message())),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}
