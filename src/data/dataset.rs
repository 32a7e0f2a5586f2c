//! A split of a data set in memory, independent of its source.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cadwright_rollout::{GroundTruth, Shape};
use rayon::prelude::*;
use thiserror::Error;

use super::Split;
use super::image::{ImageError, decode_rgb};
use super::rows::{RawRow, RowReader, ShapeSource};
use crate::hub::{self, HubError};

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

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub { repo, revision } => write!(f, "{repo}@{revision} on the hub"),
        }
    }
}

/// The reason why a data set cannot be read.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system returned an error.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no such file or directory.
    #[error(
        "no data at {path}: give a directory of parquet files, one file, or a pattern such as 'data/train-*.parquet'"
    )]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// The source does not have the split.
    #[error("{origin} has no {split} split: expected files named {split}-*.parquet, found {}", list(found))]
    MissingSplit {
        /// The source.
        origin: String,
        /// The requested split.
        split: Split,
        /// What was found instead: splits, or file names if no split is recognised.
        found: Vec<String>,
    },
    /// The file is not parquet, or is incomplete.
    #[error("{path} is damaged or incomplete ({detail}); remove it and download or generate it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        detail: String,
    },
    /// A row cannot be decoded; the rows after it are lost too.
    #[error("{path} is damaged at row {row} ({detail}); remove it and download or generate it again")]
    CorruptRow {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: usize,
        /// The decoder's message.
        detail: String,
    },
    /// The file's compression is not built into this program.
    #[error("{path} is compressed with {codec}: expected none, snappy, gzip or zstd; write it again with one of these")]
    Codec {
        /// The file.
        path: PathBuf,
        /// The codec of the file.
        codec: String,
    },
    /// The parquet file lacks a needed column.
    #[error(
        "{path} has no column {column:?}: expected image, deepcad_id, cadquery (or ground_truth_mesh), found {}",
        list(found)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
        /// The columns of the file.
        found: Vec<String>,
    },
    /// No row is usable.
    #[error("the {split} split of {origin} has no usable row: {skipped} skipped{}", example(first))]
    Empty {
        /// The source.
        origin: String,
        /// The split.
        split: Split,
        /// Number of rows skipped.
        skipped: usize,
        /// The first skipped row.
        first: Option<Box<SkippedRow>>,
    },
    /// A picture outside a data set cannot be decoded.
    #[error("{}: {source}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        source: ImageError,
    },
    /// The hub cannot be reached.
    #[error(transparent)]
    Hub(#[from] HubError),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn example(first: &Option<Box<SkippedRow>>) -> String {
    first.as_ref().map_or_else(String::new, |row| format!(", the first: {row}"))
}

/// One picture and the part that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `deepcad_id`, or file name and row if there is none.
    pub id: String,
    /// The encoded picture as stored, usually PNG.
    pub image: Arc<[u8]>,
    /// The ground-truth program, if there is one that training may use.
    pub program: Option<String>,
    /// The true shape: the file in `ground_truth_mesh`, or the solid that `cadquery` builds.
    pub ground_truth: GroundTruth,
    /// Whether the row belongs to the public 100-sample test.
    pub hundred_subset: bool,
}

/// A row that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRow {
    /// The file.
    pub file: PathBuf,
    /// The row in it, from 0.
    pub row: usize,
    /// `deepcad_id`, or file name and row if there is none.
    pub id: String,
    /// The reason.
    pub reason: SkipReason,
}

impl fmt::Display for SkippedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (row {} of {}): {}", self.id, self.row, self.file.display(), self.reason)
    }
}

/// The reason why a row is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkipReason {
    /// `image` or its bytes are null.
    #[error("there is no picture")]
    NoImage,
    /// The picture cannot be decoded.
    #[error("the picture cannot be decoded: {0}")]
    BadImage(String),
    /// `cadquery` and `ground_truth_mesh` are both null.
    #[error("there is neither a program nor a shape")]
    NoProgram,
    /// `cadquery` is empty or blank.
    #[error("the program is empty")]
    EmptyProgram,
    /// `ground_truth_mesh` names a file that cannot be read.
    #[error("cannot read ground_truth_mesh = {0}")]
    NoShape(String),
}

/// The rows to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// The split.
    pub split: Split,
    /// The maximum number of usable rows, the first ones; `None` for all.
    pub limit: Option<usize>,
    /// Only rows marked `hundred_subset`.
    pub hundred_subset_only: bool,
}

impl Selection {
    /// All rows of a split.
    pub fn all(split: Split) -> Self {
        Self { split, limit: None, hundred_subset_only: false }
    }
}

/// A split in memory.
///
/// Pictures stay encoded: about 3 to 10 kB a row at 448 pixels, so GenCAD-Code's 147,289 training
/// rows take 1 to 2 GB with their programs. Opening decodes every picture once, to find the usable
/// rows.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    examples: Vec<Example>,
    /// Skipped rows, in order of files and rows.
    pub skipped: Vec<SkippedRow>,
}

impl Dataset {
    /// Opens at most `limit` rows of a split.
    ///
    /// # Errors
    /// See [`Self::open_selection`].
    pub fn open(source: &DataSource, split: Split, limit: Option<usize>) -> Result<Self, DataError> {
        Self::open_selection(source, Selection { limit, ..Selection::all(split) })
    }

    /// Opens the selected rows. Unusable rows go to `skipped`; a damaged file is an error.
    ///
    /// # Errors
    /// See [`DataError`]: files that are missing, damaged or lack columns, no such split, no usable
    /// row.
    pub fn open_selection(source: &DataSource, selection: Selection) -> Result<Self, DataError> {
        // Enough rows to keep all threads decoding, few enough to read little beyond a limit.
        const BATCH: usize = 256;
        let mut dataset = Self::default();
        let limit = selection.limit.unwrap_or(usize::MAX);
        'files: for file in files(source, selection.split)? {
            let mut rows = RowReader::open(&file)?;
            while dataset.len() < limit {
                let batch = rows
                    .by_ref()
                    .filter(|row| !selection.hundred_subset_only || row.as_ref().map_or(true, |row| row.hundred_subset))
                    .take(BATCH.min(limit - dataset.len()))
                    .collect::<Result<Vec<_>, _>>()?;
                if batch.is_empty() {
                    continue 'files;
                }
                let checked: Vec<_> = batch.into_par_iter().map(|row| check(&file, row)).collect();
                for row in checked {
                    match row {
                        Ok(example) => dataset.examples.push(example),
                        Err(skipped) => dataset.skipped.push(skipped),
                    }
                }
            }
            break;
        }
        if dataset.is_empty() && limit > 0 {
            return Err(DataError::Empty {
                origin: source.to_string(),
                split: selection.split,
                skipped: dataset.skipped.len(),
                first: dataset.skipped.first().cloned().map(Box::new),
            });
        }
        Ok(dataset)
    }

    /// Makes a data set of these examples. A picture that cannot be decoded is an error.
    ///
    /// # Errors
    /// [`DataError::Picture`].
    pub fn of_examples(examples: Vec<Example>) -> Result<Self, DataError> {
        for example in &examples {
            decode_rgb(&example.image)
                .map_err(|source| DataError::Picture { path: example.id.clone().into(), source })?;
        }
        Ok(Self { examples, skipped: Vec::new() })
    }

    /// Removes the programs of all rows after the first `count`; their ground-truth shapes stay.
    pub fn keep_programs(&mut self, count: usize) {
        self.examples.iter_mut().skip(count).for_each(|example| example.program = None);
    }

    /// Number of usable rows.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is no usable row.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The row at `index`, in file order.
    pub fn get(&self, index: usize) -> Option<&Example> {
        self.examples.get(index)
    }

    /// All rows, in file order.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }
}

fn check(file: &Path, row: RawRow) -> Result<Example, SkippedRow> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let id = row.id.unwrap_or_else(|| format!("{name}:{}", row.row));
    let usable = || -> Result<Example, SkipReason> {
        let image = row.image.ok_or(SkipReason::NoImage)?;
        if row.program.as_ref().is_some_and(|program| program.trim().is_empty()) {
            return Err(SkipReason::EmptyProgram);
        }
        let shape = match row.shape {
            None => None,
            Some(ShapeSource::Bytes(bytes)) => Some(Shape::new(bytes)),
            Some(ShapeSource::Path(path)) => {
                let path = file.parent().unwrap_or(Path::new("")).join(path);
                let problem = |error| SkipReason::NoShape(format!("{}: {error}", path.display()));
                Some(Shape::read(&path).map_err(problem)?)
            }
        };
        let ground_truth = match (shape, &row.program) {
            (Some(shape), _) => GroundTruth::Shape(Arc::new(shape)),
            (None, Some(program)) => program.as_str().into(),
            (None, None) => return Err(SkipReason::NoProgram),
        };
        decode_rgb(&image).map_err(|ImageError::Decode { detail }| SkipReason::BadImage(detail))?;
        let (image, program, hundred_subset) = (image.into(), row.program, row.hundred_subset);
        Ok(Example { id: id.clone(), image, program, ground_truth, hundred_subset })
    };
    usable().map_err(|reason| SkippedRow { file: file.to_owned(), row: row.row, id, reason })
}

/// The parquet files of a split, by name.
///
/// # Errors
/// There is no such path or split, a directory cannot be read, or the hub fails.
pub fn files(source: &DataSource, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let path = match source {
        DataSource::Hub { repo, revision } => return Ok(hub::split_files(repo, revision, split)?),
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
            // A file given by its name, without a split in the name, serves any split.
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

/// The split a file name begins with: `train` for `train-00000-of-00002.parquet` and
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
