//! The files of a data set: local ones, or those on the Hugging Face hub.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Split;
use super::error::DataError;
use crate::hub::{Hub, HubError, RepoKind, base_name, is_hub_id};

/// The source of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A directory of parquet files, one file, or a pattern with `*` and `?` in the file name.
    Path(PathBuf),
    /// A data set on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
}

impl DataSource {
    /// The source that `name` stands for: a path that exists, else a hub id (at `revision`), else a
    /// path, which may be a pattern.
    pub fn named(name: &str, revision: &str) -> Self {
        if is_hub_id(name) && !Path::new(name).exists() {
            return Self::Hub { repo: name.to_owned(), revision: revision.to_owned() };
        }
        Self::Path(PathBuf::from(name))
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub { repo, revision } => write!(f, "{repo}@{revision} on the hub"),
        }
    }
}

/// The parquet files of a split, by name.
pub fn files(source: &DataSource, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let path = match source {
        DataSource::Hub { repo, revision } => return split_files(&Hub::from_env()?, repo, revision, split),
        DataSource::Path(path) => path,
    };
    let candidates = local_files(path)?;
    let names: Vec<String> =
        candidates.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
    let chosen: Vec<PathBuf> = candidates
        .iter()
        .zip(&names)
        .filter(|(_, name)| match split_of(name) {
            Some(named) => named == split.name(),
            // A file that is given by name, and whose name contains no split, is used for any
            // split.
            None => path.is_file(),
        })
        .map(|(file, _)| file.clone())
        .collect();
    if chosen.is_empty() {
        return Err(missing_split(source.to_string(), split, &names));
    }
    Ok(chosen)
}

/// The error of a source that has only the files `names`.
pub(super) fn missing_split(origin: String, split: Split, names: &[String]) -> DataError {
    let splits: BTreeSet<String> = names.iter().filter_map(|name| split_of(name)).map(str::to_owned).collect();
    let found = if splits.is_empty() { names.to_vec() } else { splits.into_iter().collect() };
    DataError::MissingSplit { origin, split, found }
}

/// The split that a file name begins with: `train` for `train-00000-of-00002.parquet` and
/// `train.parquet`.
pub(crate) fn split_of(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".parquet")?;
    let word = stem.split(['-', '.']).next()?;
    let is_shard = stem.len() == word.len() || stem[word.len() + 1..].starts_with(|c: char| c.is_ascii_digit());
    (is_shard && !word.is_empty()).then_some(word).filter(|word| {
        // Other data sets have splits of other names; any alphabetic word may be one.
        word.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
    })
}

/// Parquet files at a path, sorted by name: those in a directory (or in its `data` directory), a
/// single file, or all files that match a pattern.
fn local_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if path.is_dir() {
        let files = parquet_files(path, "*.parquet")?;
        // Clones of hub repositories keep their files one level deeper.
        return if files.is_empty() && path.join("data").is_dir() {
            parquet_files(&path.join("data"), "*.parquet")
        } else {
            Ok(files)
        };
    }
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !pattern.contains(['*', '?']) || !parent.is_dir() {
        return Err(DataError::NotFound { path: path.to_owned() });
    }
    let files = parquet_files(parent, &pattern)?;
    if files.is_empty() { Err(DataError::NotFound { path: path.to_owned() }) } else { Ok(files) }
}

fn parquet_files(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with('.') && matches_pattern(pattern.as_bytes(), name.as_bytes()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Matches `name` against a pattern: `*` stands for any text, `?` for one byte.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| matches_pattern(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, tail))) => matches_pattern(rest, tail),
        (Some((wanted, rest)), Some((found, tail))) => wanted == found && matches_pattern(rest, tail),
        _ => false,
    }
}

/// Local paths of the parquet files of a split, sorted by name; downloaded if need be.
///
/// # Errors
/// The repository cannot be reached or has no such split, or only some of its files are in the
/// cache.
pub fn split_files(hub: &Hub, repo: &str, revision: &str, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let is_of_split = |name: &str| split_of(base_name(name)) == Some(split.name());
    let files = hub.files(RepoKind::Dataset, repo, revision, is_of_split)?;
    if files.is_empty() {
        let found = hub.cached(RepoKind::Dataset, repo, revision).unwrap_or_default();
        let missing = HubError::Missing {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            wanted: format!("{split} split ({split}-*.parquet)"),
            found: found.into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".parquet")).collect(),
        };
        return Err(missing.into());
    }
    let names: Vec<String> = files.iter().map(|path| base_name(&path.to_string_lossy()).to_owned()).collect();
    match shard_count(&names) {
        Some(expected) if expected != files.len() => Err(DataError::Incomplete {
            split,
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            found: files.len(),
            expected,
            cache: hub.cache.clone(),
        }),
        _ => Ok(files),
    }
}

/// The number of files that a name such as `train-00000-of-00003.parquet` promises.
fn shard_count(names: &[String]) -> Option<usize> {
    names.iter().find_map(|name| name.strip_suffix(".parquet")?.rsplit_once("-of-")?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_from_file_names() {
        for (name, split) in [
            ("train-00000-of-00002.parquet", Some("train")),
            ("test.parquet", Some("test")),
            ("validation-00000-of-00001.parquet", Some("validation")),
            ("holdout-0.parquet", Some("holdout")),
            ("my-parts.parquet", None),
            ("0000.parquet", None),
            ("train.csv", None),
        ] {
            assert_eq!(split_of(name), split, "{name}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*.parquet", "a.parquet", true),
            ("train-*-of-*.parquet", "train-00000-of-00002.parquet", true),
            ("train-0000?-*", "train-00001-x", true),
            ("train-*", "test-0", false),
            ("*", "", true),
            ("a?", "a", false),
        ] {
            assert_eq!(matches_pattern(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
