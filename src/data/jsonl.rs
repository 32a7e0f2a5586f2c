//! Reads rows from JSONL files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::content::Content;
use super::error::DataError;
use super::names::ColumnNames;
use super::rows::{RawRow, SUBSET};

/// Streams the rows of a file: a JSON object a line. Blank lines are skipped.
pub struct JsonlReader {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    line: usize,
    row: usize,
    columns: ColumnNames,
}

impl JsonlReader {
    /// Opens a file and reads it once, to check every line and that the needed fields occur; see
    /// [`ColumnNames::check`].
    ///
    /// # Errors
    /// The file cannot be read, has a line that is no JSON object, or lacks a field.
    pub fn open(path: &Path, columns: ColumnNames, needs_pictures: bool) -> Result<Self, DataError> {
        let mut found = BTreeSet::new();
        let mut count = 0;
        for (line, text) in lines_of(path)?.enumerate() {
            let text = text.map_err(|source| io(path, source))?;
            if !text.trim().is_empty() {
                let fields: BTreeMap<String, IgnoredAny> =
                    serde_json::from_str(&text).map_err(|error| bad_line(path, line + 1, not_a_row(&error)))?;
                found.extend(fields.into_keys());
                count += 1;
            }
        }
        if count > 0 {
            columns.check(path, &found.into_iter().collect::<Vec<_>>(), needs_pictures)?;
        }
        Ok(Self { path: path.to_owned(), lines: lines_of(path)?, line: 0, row: 0, columns })
    }

    fn row(&self, text: &str) -> Result<RawRow, DataError> {
        let failed = |problem: String| bad_line(&self.path, self.line, problem);
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| failed(not_a_row(&error)))?;
        let mut row = RawRow { row: self.row, ..RawRow::default() };
        row.hundred_subset = fields.get(SUBSET).and_then(Value::as_bool).unwrap_or(false);
        for name in self.columns.further() {
            let value = fields.get(name).filter(|value| !value.is_null());
            let wrong = |value| failed(format!("field {name:?}: expected text, found {}", kind_of(value)));
            row.further.push(value.map(|value| file(value).ok_or_else(|| wrong(value))).transpose()?);
        }
        for (role, name) in self.columns.roles() {
            let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { continue };
            let wrong = || failed(format!("field {name:?}: expected text, found {}", kind_of(value)));
            match role {
                "image" => row.image = Some(file(value).ok_or_else(wrong)?),
                "shape" => row.shape = Some(file(value).ok_or_else(wrong)?),
                "program" => row.program = Some(Content::Text(value.as_str().ok_or_else(wrong)?.to_owned())),
                "id" => row.id = Some(name_in(value).ok_or_else(wrong)?),
                "label" => row.label = Some(name_in(value).ok_or_else(wrong)?),
                _ => {}
            }
        }
        Ok(row)
    }
}

impl Iterator for JsonlReader {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = self.lines.next()?;
            self.line += 1;
            match text.map_err(|source| io(&self.path, source)) {
                Ok(text) if text.trim().is_empty() => {}
                text => {
                    let row = text.and_then(|text| self.row(&text));
                    self.row += 1;
                    return Some(row);
                }
            }
        }
    }
}

fn lines_of(path: &Path) -> Result<Lines<BufReader<File>>, DataError> {
    Ok(BufReader::new(File::open(path).map_err(|source| io(path, source))?).lines())
}

fn io(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io { path: path.to_owned(), source }
}

fn bad_line(path: &Path, line: usize, problem: String) -> DataError {
    DataError::Line { path: path.to_owned(), line, problem }
}

fn not_a_row(error: &serde_json::Error) -> String {
    format!("expected a JSON object: {error}")
}

/// Text, or an object with `bytes` (base64) or `path`, as Hugging Face's `datasets` writes files.
fn file(value: &Value) -> Option<Content> {
    let text = match value {
        Value::Object(fields) => {
            let given = |name: &str| fields.get(name).and_then(Value::as_str);
            given("bytes").or_else(|| given("path"))
        }
        value => value.as_str(),
    };
    text.map(|text| Content::Text(text.to_owned()))
}

fn name_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
