//! Writes a data set in another form: parquet, JSONL with files beside it, or a folder of files.

mod table;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use cadwright_rollout::ShapeFormat;
use cadwright_rollout::files::write_whole;
use clap::ValueEnum;
use rayon::prelude::*;
use serde_json::{Map, Value};
use thiserror::Error;

use super::parquet::ParquetError;
use super::{Dataset, Example, Split};

/// A form in which a data set is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// `<split>-00000-of-00001.parquet` with GenCAD-Code's columns
    Parquet,
    /// `<split>.jsonl`, with pictures and shapes as files in `<split>/`
    Jsonl,
    /// `<split>/<id>.png`, `.py`, `.stl`, `.step`
    Folder,
}

/// The reason why a data set cannot be written.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// The directory holds something.
    #[error("{0} is not empty: choose an empty directory, or one that does not exist")]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A parquet file cannot be written.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// An id that cannot be the name of a file.
    #[error("{split}: the id {id:?} cannot be the name of a file; --form parquet keeps any id")]
    Id {
        /// The split.
        split: Split,
        /// The id.
        id: String,
    },
    /// Two rows of one split would have files of one name.
    #[error("{split}: two rows have the id {id:?}, so that their files would have one name; --form parquet keeps both")]
    Twice {
        /// The split.
        split: Split,
        /// The id.
        id: String,
    },
}

/// Writes splits in another form. Ids, programs, and the bytes of pictures and shapes stay as they
/// are. `views` names the pictures of a part, as `data.views`; it is empty if each part has one.
/// `directory` must be empty or absent.
///
/// # Errors
/// See [`ConvertError`]. What was written before stays.
pub fn convert(
    splits: &[(Split, Dataset)],
    views: &[String],
    form: Form,
    directory: &Path,
) -> Result<(), ConvertError> {
    let io = |source| ConvertError::Io { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(io)?;
    if fs::read_dir(directory).map_err(io)?.next().is_some() {
        return Err(ConvertError::NotEmpty(directory.to_owned()));
    }
    for (split, dataset) in splits {
        match form {
            Form::Parquet => table::write(dataset, views, *split, directory)?,
            Form::Folder => files(dataset, views, *split, directory, true)?,
            Form::Jsonl => {
                files(dataset, views, *split, directory, false)?;
                let path = directory.join(format!("{split}.jsonl"));
                write(&path, rows(dataset, views, *split).as_bytes())?;
            }
        }
    }
    Ok(())
}

/// What a form has no place for, and the number of rows that lose it.
pub fn lost(splits: &[(Split, Dataset)], form: Form) -> Vec<(&'static str, usize)> {
    let examples = || splits.iter().flat_map(|(_, dataset)| dataset.examples());
    let count = |has: fn(&Example) -> bool| examples().filter(|example| has(example)).count();
    let lost = match form {
        Form::Parquet | Form::Jsonl => vec![],
        Form::Folder => {
            vec![("label", count(|e| e.label.is_some())), ("hundred_subset", count(|e| e.hundred_subset))]
        }
    };
    lost.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Writes pictures and shapes of a split, and if `programs`, programs, below `<directory>/<split>`.
fn files(
    dataset: &Dataset,
    views: &[String],
    split: Split,
    directory: &Path,
    programs: bool,
) -> Result<(), ConvertError> {
    let mut known = HashSet::new();
    for example in dataset.examples() {
        if !is_file_name(&example.id) {
            return Err(ConvertError::Id { split, id: example.id.clone() });
        }
        if !known.insert(&example.id) {
            return Err(ConvertError::Twice { split, id: example.id.clone() });
        }
    }
    dataset.examples().par_iter().try_for_each(|example| {
        let path = |ending: &str| directory.join(split.name()).join(format!("{}{ending}", example.id));
        for (place, bytes) in example.pictures().enumerate() {
            write(&path(&picture_ending(views.get(place), bytes)), bytes)?;
        }
        if let Some(shape) = example.ground_truth.shape() {
            write(&path(shape_ending(shape.format())), shape.bytes())?;
        }
        match example.program.as_ref().filter(|_| programs) {
            Some(program) => write(&path(".py"), program.as_bytes()),
            None => Ok(()),
        }
    })
}

/// The rows of a split as JSONL.
fn rows(dataset: &Dataset, views: &[String], split: Split) -> String {
    let row = |example: &Example| {
        let path = |ending: &str| Value::from(format!("{split}/{}{ending}", example.id));
        let mut row = Map::new();
        row.insert("id".into(), example.id.clone().into());
        for (place, bytes) in example.pictures().enumerate() {
            let view = views.get(place);
            row.insert(picture_column(view), path(&picture_ending(view, bytes)));
        }
        if let Some(program) = &example.program {
            row.insert("program".into(), program.clone().into());
        }
        if let Some(shape) = example.ground_truth.shape() {
            row.insert("shape".into(), path(shape_ending(shape.format())));
        }
        if let Some(label) = &example.label {
            row.insert("label".into(), label.clone().into());
        }
        if example.hundred_subset {
            row.insert("hundred_subset".into(), true.into());
        }
        Value::Object(row).to_string() + "\n"
    };
    dataset.examples().iter().map(row).collect()
}

/// Whether an id, which may have slashes, names a file below a directory.
fn is_file_name(id: &str) -> bool {
    let parts: Vec<Component> = Path::new(id).components().collect();
    let is_plain = |part: &Component| matches!(part, Component::Normal(name) if name.to_str().is_some_and(|n| !n.starts_with('.') && n.len() < 200));
    !parts.is_empty() && parts.iter().all(is_plain) && !id.contains('\0') && !id.ends_with('/') && !id.contains("//")
}

/// `.png`, or `_front.png` for the view `front`.
fn picture_ending(view: Option<&String>, bytes: &[u8]) -> String {
    let ending = match bytes {
        [0xff, 0xd8, ..] => "jpg",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        _ => "png",
    };
    view.map_or_else(|| format!(".{ending}"), |view| format!("_{view}.{ending}"))
}

/// `image`, or `image_front` for the view `front`.
fn picture_column(view: Option<&String>) -> String {
    view.map_or_else(|| "image".to_owned(), |view| format!("image_{view}"))
}

fn shape_ending(format: ShapeFormat) -> &'static str {
    match format {
        ShapeFormat::Step => ".step",
        ShapeFormat::Stl | ShapeFormat::Unknown => ".stl",
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    let io = |source| ConvertError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    write_whole(path, bytes).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names_of_files_or_are_refused() {
        for (id, is_name) in [
            ("part", true),
            ("0035/00351234", true),
            ("a.b", true),
            ("train-00000-of-00001.parquet:7", true),
            ("", false),
            ("../part", false),
            ("/part", false),
            ("a/../b", false),
            (".hidden", false),
            ("a/", false),
            ("a//b", false),
            ("a\0", false),
        ] {
            assert_eq!(is_file_name(id), is_name, "{id:?}");
        }
    }
}
