//! Errors of data sets.

use std::path::PathBuf;

use thiserror::Error;

use super::Split;
use super::dataset::SkippedRow;
use super::image::ImageError;
use crate::hub::HubError;

/// The reason why a data set cannot be read.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system reports an error.
    #[error("cannot read {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no such file or directory.
    #[error(
        "no data at {path}: give a directory of parquet or JSONL files, one file, a pattern such as 'data/train-*.parquet', or a folder of pictures with programs or shapes"
    )]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// The source does not have the split.
    #[error("{origin} has no {split} split: expected files named {name}-*.{ending}, found {}", list(found))]
    MissingSplit {
        /// The source.
        origin: String,
        /// The requested split.
        split: Split,
        /// Its name there.
        name: String,
        /// How the files' names end.
        ending: &'static str,
        /// The splits that it has; if none is recognised, its files.
        found: Vec<String>,
    },
    /// The file is not parquet, or it is incomplete.
    #[error("{path} is damaged or incomplete ({detail}); remove it and download or generate it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        detail: String,
    },
    /// A row cannot be decoded. The rows after it cannot be read either.
    #[error("{path} is damaged at row {row} ({detail}); remove it and download or generate it again")]
    CorruptRow {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: usize,
        /// The decoder's message.
        detail: String,
    },
    /// The file is compressed with a codec that this program does not support.
    #[error("{path} is compressed with {codec}: expected none, snappy, gzip or zstd; write it again with one of these")]
    Codec {
        /// The file.
        path: PathBuf,
        /// The codec of the file.
        codec: String,
    },
    /// A file without a required column.
    #[error(
        "{path} has no column {column:?}{}, which data.columns.{role} names: found {}",
        shape.as_ref().map_or_else(String::new, |shape| format!(", nor {shape:?} (data.columns.shape)")),
        list(found)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: String,
        /// What it would hold: the name below `data.columns`.
        role: &'static str,
        /// The column of shapes, which would do instead of programs.
        shape: Option<String>,
        /// The columns of the file.
        found: Vec<String>,
    },
    /// A line of a JSONL file that is no row.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder in which no picture has a program or shape of its name.
    #[error(
        "nothing in {origin} belongs together: {} of the same name are needed; pictures: {images}; programs: {programs}; shapes: {shapes}",
        if *needs_pictures { "a picture, and a program or a shape," } else { "programs or shapes" }
    )]
    Unmatched {
        /// The folders.
        origin: String,
        /// Whether pictures are needed.
        needs_pictures: bool,
        /// The pictures, by number and first names.
        images: String,
        /// The programs.
        programs: String,
        /// The shapes.
        shapes: String,
    },
    /// Two files of one kind and name.
    #[error(
        "{first} and {second} have the same name: which is meant? Set data.folder.match_by = \"path\" if directories tell parts apart, or name narrower folders (data.folder.images, programs, shapes)"
    )]
    Ambiguous {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A split of a folder without parts.
    #[error("the {split} split of {origin} is empty (data.folder.split_by = {split_by:?}): {found}")]
    EmptySplit {
        /// The folders.
        origin: String,
        /// The split.
        split: Split,
        /// The way to divide.
        split_by: &'static str,
        /// What is there.
        found: String,
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
    /// A single picture cannot be decoded.
    #[error("{}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        source: ImageError,
    },
    /// The cache has some files of a split, but not all.
    #[error(
        "the cache {cache} has {found} of {expected} files of the {split} split of {repo}@{revision}: download it completely \
         (hf download --repo-type dataset {repo} --revision {revision})"
    )]
    Incomplete {
        /// The split.
        split: Split,
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// Files in the cache.
        found: usize,
        /// Files expected.
        expected: usize,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// There are fewer labelled parts than a prompt shows.
    #[error(
        "the prompt shows {wanted} examples, but the training rows that are searched (prompt.example_rows, data.programs_limit) have only {found} parts with programs besides the part itself"
    )]
    Examples {
        /// Examples in the prompt.
        wanted: usize,
        /// Examples found for some part.
        found: usize,
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
