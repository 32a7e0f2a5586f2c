//! What a configuration consists of, for people: each key, its value, and who set it.

use std::path::Path;

use cadwright_rewards::RewardConfig;
use cadwright_rewards::reward::RewardMetrics;
use toml::{Table, Value};

use super::layers::Layers;
use super::*;
use crate::data::{Columns, Folder, SplitNames};

/// A key of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownKey {
    /// `section.key`.
    pub key: String,
    /// Its value in TOML.
    pub value: String,
    /// The file or the flag that set it; `default` if none did.
    pub origin: String,
    /// Its documentation.
    pub doc: String,
}

/// Every key of the configuration that [`Config::load`] makes of the same arguments.
///
/// # Errors
/// See [`Config::load`].
pub fn shown(path: Option<&Path>, overrides: &[String]) -> Result<Vec<ShownKey>, ConfigError> {
    let origins = Layers::of(path, overrides)?.origins().clone();
    let config = Config::load(path, overrides)?;
    let table = Table::try_from(&config).map_err(|error| ConfigError::Invalid(vec![error.to_string()]))?;
    let mut keys = Vec::new();
    flatten(&table, "", &mut keys);
    let shown = |(key, value): (String, String)| {
        let origin = origins.get(&key).cloned().unwrap_or_else(|| "default".to_owned());
        let doc = doc(&key).unwrap_or_default();
        ShownKey { key, value, origin, doc }
    };
    Ok(keys.into_iter().map(shown).collect())
}

fn flatten(table: &Table, prefix: &str, keys: &mut Vec<(String, String)>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => flatten(inner, &format!("{prefix}{key}."), keys),
            value => keys.push((format!("{prefix}{key}"), value.to_string())),
        }
    }
}

/// The documentation of `section.key`.
fn doc(key: &str) -> Option<String> {
    let (section, name) = key.rsplit_once('.')?;
    let documented = match section {
        "run" => Run::DOCUMENTED,
        "model" => Model::DOCUMENTED,
        "lora" => Lora::DOCUMENTED,
        "prompt" => PromptText::DOCUMENTED,
        "data" => Data::DOCUMENTED,
        "data.columns" => Columns::DOCUMENTED,
        "data.splits" => SplitNames::DOCUMENTED,
        "data.folder" => Folder::DOCUMENTED,
        "data.synth" => Synth::DOCUMENTED,
        "generate" => Generate::DOCUMENTED,
        "rollout" => Rollout::DOCUMENTED,
        "reward" => RewardConfig::DOCUMENTED,
        "reward.metrics" => RewardMetrics::DOCUMENTED,
        "sft" => Sft::DOCUMENTED,
        "ppo" => Ppo::DOCUMENTED,
        "eval" => Eval::DOCUMENTED,
        "agent" => Agent::DOCUMENTED,
        "distributed" => Distributed::DOCUMENTED,
        _ => return None,
    };
    let (_, text) = documented.iter().find(|(known, _)| *known == name)?;
    Some(text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_has_an_origin() {
        let keys = shown(None, &["ppo.steps=7".to_owned()]).unwrap();
        assert!(keys.len() > 150, "{}", keys.len());
        for key in &keys {
            assert!(!key.doc.is_empty(), "{} has no documentation", key.key);
            let is_set = key.key == "ppo.steps";
            assert_eq!(key.origin == "default", !is_set, "{key:?}");
        }
        let steps = keys.iter().find(|key| key.key == "ppo.steps").unwrap();
        assert_eq!((steps.value.as_str(), steps.origin.as_str()), ("7", "--set ppo.steps=7"));
        assert!(steps.doc.starts_with("Number of steps."), "{}", steps.doc);
    }
}
