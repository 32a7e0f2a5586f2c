//! The files in directories: what they hold, and which of them bear one name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::DataError;

/// The most directories within each other that are searched.
const DEEPEST: usize = 16;
/// The most names in a message.
const NAMED: usize = 3;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Program,
    Shape,
}

impl Kind {
    /// The kind that a file name ends with; `None` for other files.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "png" | "jpg" | "jpeg" | "webp" => Some(Self::Image),
            "py" => Some(Self::Program),
            "stl" | "step" | "stp" => Some(Self::Shape),
            _ => None,
        }
    }
}

/// By name of the part.
pub(super) type Files = BTreeMap<String, PathBuf>;

/// The number of names and the first of them.
pub(super) fn few(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count <= NAMED => names.join(", "),
        count => format!("{count} ({}, ..)", names[..NAMED].join(", ")),
    }
}

/// Adds a file to those of its kind.
pub(super) fn insert(files: &mut Files, name: String, file: &Path) -> Result<(), DataError> {
    let Some(known) = files.get(&name) else {
        files.insert(name, file.to_owned());
        return Ok(());
    };
    let is_step = |file: &Path| {
        Kind::of(file) == Some(Kind::Shape) && !file.extension().is_some_and(|e| e.eq_ignore_ascii_case("stl"))
    };
    if known.parent() == file.parent() && is_step(known) != is_step(file) && Kind::of(file) == Some(Kind::Shape) {
        if is_step(file) {
            files.insert(name, file.to_owned());
        }
        return Ok(());
    }
    Err(DataError::Ambiguous { first: known.clone(), second: file.to_owned() })
}

/// Whether a directory holds a picture, a program or a shape at some depth.
pub(super) fn has_parts(directory: &Path) -> bool {
    let is_part = |file: &PathBuf| Kind::of(file).is_some();
    below(directory).is_ok_and(|files| files.iter().any(is_part))
}

/// All files below a directory, sorted. Hidden ones are left out.
pub(super) fn below(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !root.is_dir() {
        return Err(DataError::NotFound { path: root.to_owned() });
    }
    let mut files = Vec::new();
    let mut directories = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        let io = |source| DataError::Io { path: directory.clone(), source };
        for entry in std::fs::read_dir(&directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if path.is_file() {
                files.push(path);
            } else if path.is_dir() && depth < DEEPEST {
                directories.push((path, depth + 1));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
