//! Where a data set is: local files, a folder, or the Hugging Face hub.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Split;
use super::error::DataError;
use super::folder::Folder;
use super::listing::has_parts;
use super::names::{Columns, SplitNames};
use crate::hub::{Hub, HubError, RepoKind, base_name, is_hub_id};

/// The source of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSource {
    /// Where it is, and in what form.
    pub place: Place,
    /// What it calls its columns; for tables.
    pub columns: Columns,
    /// What it calls its splits.
    pub splits: SplitNames,
    /// The names of the pictures of a part; empty if each has one. In tables, each view is a column
    /// such as `image_front`; in a folder, a file such as `part_front.png`.
    pub views: Vec<String>,
    /// Whether rows without a picture are skipped. If not, pictures are not read at all, and those
    /// of the examples are empty.
    pub needs_pictures: bool,
}

/// The place and form of a data set.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// A directory of parquet files, one file, or a pattern with `*` and `?` in the file name.
    Parquet(PathBuf),
    /// Parquet files on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// A directory of JSONL files, one file, or a pattern.
    Jsonl(PathBuf),
    /// Pictures, programs and shapes as files of their own, below this directory.
    Folder(PathBuf, Folder),
}

impl DataSource {
    /// A source with the usual names.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            columns: Columns::default(),
            splits: SplitNames::default(),
            views: Vec::new(),
            needs_pictures: true,
        }
    }

    /// Parquet files at a path.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::Parquet(path.into()))
    }

    /// The source that `name` stands for: a path that exists, in the form that its content has, else
    /// a hub id (at `revision`), else a path, which may be a pattern. A directory with parquet files
    /// is a data set of these; then come JSONL files, then a folder of pictures, programs or shapes.
    pub fn named(name: &str, revision: &str) -> Self {
        let path = Path::new(name);
        if is_hub_id(name) && !path.exists() {
            return Self::new(Place::Hub { repo: name.to_owned(), revision: revision.to_owned() });
        }
        let has = |ending: &str| local_files(path, ending).is_ok_and(|files| !files.is_empty());
        let is_jsonl = if path.is_dir() { !has("parquet") && has("jsonl") } else { name.ends_with(".jsonl") };
        Self::new(if is_jsonl {
            Place::Jsonl(path.to_owned())
        } else if path.is_dir() && !has("parquet") && has_parts(path) {
            Place::Folder(path.to_owned(), Folder::default())
        } else {
            Place::Parquet(path.to_owned())
        })
    }

    /// The same source for scoring alone: its rows need no pictures.
    #[must_use]
    pub fn without_pictures(self) -> Self {
        Self { needs_pictures: false, ..self }
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Parquet(path) | Place::Jsonl(path) => path.display().fmt(f),
            Place::Hub { repo, revision } => write!(f, "{repo}@{revision} on the hub"),
            Place::Folder(path, folder) => folder.describe(path).fmt(f),
        }
    }
}

/// The files of a split, by name.
///
/// # Errors
/// There are none, or the hub cannot be reached. A folder has no such files.
pub fn files(source: &DataSource, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let (path, ending) = match &source.place {
        Place::Hub { repo, revision } => {
            return split_files(&Hub::from_env()?, repo, revision, (split, &source.splits));
        }
        Place::Parquet(path) => (path, "parquet"),
        Place::Jsonl(path) => (path, "jsonl"),
        Place::Folder(..) => return Ok(Vec::new()),
    };
    let candidates = local_files(path, ending)?;
    let names: Vec<String> =
        candidates.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
    let chosen: Vec<PathBuf> = candidates
        .iter()
        .zip(&names)
        .filter(|(_, name)| match split_of(name, ending, &source.splits) {
            Some(named) if !path.is_file() || source.splits.all().contains(&named) => named == source.splits.of(split),
            // A file that is given by name, and not by that of a split, is used for any split.
            _ => path.is_file(),
        })
        .map(|(file, _)| file.clone())
        .collect();
    if chosen.is_empty() {
        let splits: BTreeSet<&str> = names.iter().filter_map(|name| split_of(name, ending, &source.splits)).collect();
        let found = if splits.is_empty() { names } else { splits.into_iter().map(str::to_owned).collect() };
        let name = source.splits.of(split).to_owned();
        return Err(DataError::MissingSplit { origin: source.to_string(), split, name, ending, found });
    }
    Ok(chosen)
}

/// The split that a file name begins with: `train` for `train-00000-of-00002.parquet` and
/// `train.parquet`. It is one of `known`, or any word.
fn split_of<'a>(name: &'a str, ending: &str, known: &SplitNames) -> Option<&'a str> {
    let stem = name.strip_suffix(ending)?.strip_suffix('.')?;
    let is_shard = |length: usize| {
        let rest = &stem[length..];
        rest.is_empty() || rest.starts_with(['-', '.']) && rest[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    let named = known.all().into_iter().filter(|name| stem.starts_with(*name) && is_shard(name.len()));
    if let Some(longest) = named.map(str::len).max().filter(|length| *length > 0) {
        return Some(&stem[..longest]);
    }
    let word = stem.split(['-', '.']).next()?;
    (is_shard(word.len()) && !word.is_empty()).then_some(word).filter(|word| {
        // Other data sets have splits of other names; any alphabetic word may be one.
        word.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
    })
}

/// The files of a kind at a path, sorted by name: those in a directory (or in its `data`
/// directory), a single file, or all files that match a pattern.
fn local_files(path: &Path, ending: &str) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if path.is_dir() {
        let pattern = format!("*.{ending}");
        let files = matching_files(path, &pattern)?;
        // Clones of hub repositories keep their files one level deeper.
        return if files.is_empty() && path.join("data").is_dir() {
            matching_files(&path.join("data"), &pattern)
        } else {
            Ok(files)
        };
    }
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !pattern.contains(['*', '?']) || !parent.is_dir() {
        return Err(DataError::NotFound { path: path.to_owned() });
    }
    let files = matching_files(parent, &pattern)?;
    if files.is_empty() { Err(DataError::NotFound { path: path.to_owned() }) } else { Ok(files) }
}

fn matching_files(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
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
pub fn split_files(
    hub: &Hub,
    repo: &str,
    revision: &str,
    (split, names): (Split, &SplitNames),
) -> Result<Vec<PathBuf>, DataError> {
    let wanted = names.of(split);
    let is_of_split = |name: &str| split_of(base_name(name), "parquet", names) == Some(wanted);
    let files = hub.files(RepoKind::Dataset, repo, revision, is_of_split)?;
    if files.is_empty() {
        let found = hub.cached(RepoKind::Dataset, repo, revision).unwrap_or_default();
        let missing = HubError::Missing {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            wanted: format!("{split} split ({wanted}-*.parquet)"),
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
            assert_eq!(split_of(name, "parquet", &SplitNames::default()), split, "{name}");
        }
        let names =
            SplitNames { test: "bench1A".to_owned(), validation: "test-iid".to_owned(), ..SplitNames::default() };
        for (name, split) in [
            ("bench1A-00000-of-00030.parquet", Some("bench1A")),
            ("bench1B-00000-of-00030.parquet", None),
            ("test-iid.parquet", Some("test-iid")),
            ("test-iid-0.parquet", Some("test-iid")),
            ("test-0.parquet", Some("test")),
        ] {
            assert_eq!(split_of(name, "parquet", &names), split, "{name}");
        }
        assert_eq!(split_of("train.jsonl", "jsonl", &names), Some("train"));
        assert_eq!(split_of("train.jsonl", "parquet", &names), None);
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
