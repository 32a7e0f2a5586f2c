//! A split of a data set in memory, independent of its source.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cadwright_rollout::{GroundTruth, Shape, ShapeFormat};
use rayon::prelude::*;
use thiserror::Error;

use super::Split;
use super::content::is_picture;
use super::error::DataError;
use super::image::{ImageError, decode_rgb};
use super::jsonl::JsonlReader;
use super::names::ColumnNames;
use super::nearest::Examples;
use super::rows::{RawRow, RowReader};
use super::source::{DataSource, Place, files};

/// One picture with the program and shape of its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The part's id; if the row has none, file name and row number. In a folder, the name of the
    /// files.
    pub id: String,
    /// The encoded picture as it was stored, usually PNG; empty if the source
    /// [needs none](DataSource::needs_pictures).
    pub image: Arc<[u8]>,
    /// Further pictures of the part, such as other views, in the order in which the model sees them.
    pub further: Vec<Arc<[u8]>>,
    /// The ground-truth program, if the row has one that may be used for learning.
    pub program: Option<String>,
    /// The shape of the part: the row's STL or STEP file, or the solid that its program builds.
    pub ground_truth: GroundTruth,
    /// A class of the part, such as `easy`, if the row has one.
    pub label: Option<String>,
    /// Whether the row belongs to the public 100-sample test.
    pub hundred_subset: bool,
}

impl Example {
    /// The encoded pictures that the model sees, one or several.
    pub fn pictures(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.image).chain(&self.further).map(|picture| &**picture)
    }
}

/// A row that is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRow {
    /// The file.
    pub file: PathBuf,
    /// The row in it, from 0.
    pub row: usize,
    /// As in [`Example`].
    pub id: String,
    /// Why it is left out.
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
    /// The picture is missing.
    #[error("there is no picture")]
    NoImage,
    /// One of several pictures is missing: the view of this name.
    #[error("there is no picture of the view {0}")]
    NoView(String),
    /// The picture's file cannot be read.
    #[error("cannot read the picture: {0}")]
    UnreadImage(String),
    /// The picture cannot be decoded.
    #[error("the picture cannot be decoded: {0}")]
    BadImage(String),
    /// Program and shape are both missing.
    #[error("there is neither a program nor a shape")]
    NoProgram,
    /// The program is blank.
    #[error("the program is empty")]
    EmptyProgram,
    /// The program's file cannot be read.
    #[error("cannot read the program: {0}")]
    UnreadProgram(String),
    /// The shape's file cannot be read.
    #[error("cannot read the shape: {0}")]
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
    /// The names of each row's pictures (`data.views`); empty if they have none.
    pub views: Vec<String>,
    /// Skipped rows, in order of files and rows.
    pub skipped: Vec<SkippedRow>,
    /// The labelled parts that a prompt with examples shows for each row, once they are chosen.
    pub shown: Option<Examples>,
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
        let mut dataset = Self { views: source.views.clone(), ..Self::default() };
        let limit = selection.limit.unwrap_or(usize::MAX);
        'files: for (file, rows) in streams(source, selection.split)? {
            let mut rows = rows()?;
            while dataset.len() < limit {
                let batch = rows
                    .by_ref()
                    .filter(|row| !selection.hundred_subset_only || row.as_ref().map_or(true, |row| row.hundred_subset))
                    .take(BATCH.min(limit - dataset.len()))
                    .collect::<Result<Vec<_>, _>>()?;
                if batch.is_empty() {
                    continue 'files;
                }
                let check = |row| check(&file, row, source);
                let checked: Vec<_> = batch.into_par_iter().map(check).collect();
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
        for (example, picture) in examples.iter().flat_map(|part| part.pictures().map(move |bytes| (part, bytes))) {
            decode_rgb(picture).map_err(|source| DataError::Picture { path: example.id.clone().into(), source })?;
        }
        Ok(Self { examples, ..Self::default() })
    }

    /// Removes the programs of all rows but the first `count`. The shapes that they build stay as
    /// ground truths.
    pub fn keep_programs(&mut self, count: usize) {
        self.examples.iter_mut().skip(count).for_each(|example| example.program = None);
    }

    /// A digest of the rows' ids, pictures and programs, in their order.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for example in &self.examples {
            let texts = [example.id.as_bytes(), example.program.as_deref().unwrap_or("").as_bytes()];
            for part in [texts[0], &example.image, texts[1]].into_iter().chain(example.pictures().skip(1)) {
                hasher.update(&part.len().to_le_bytes()).update(part);
            }
        }
        hasher.finalize().to_hex()[..16].to_owned()
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

/// Rows in their order.
type Rows = Box<dyn Iterator<Item = Result<RawRow, DataError>>>;

/// Opens a stream of rows.
type Open<'a> = Box<dyn FnOnce() -> Result<Rows, DataError> + 'a>;

/// The files of a split, or its one folder, each with what opens its rows.
fn streams(source: &DataSource, split: Split) -> Result<Vec<(PathBuf, Open<'_>)>, DataError> {
    let needs_pictures = source.needs_pictures;
    if let Place::Folder(path, folder) = &source.place {
        let rows = folder.rows(path, (split, &source.splits), &source.views, needs_pictures)?;
        let open = move || -> Result<Rows, DataError> { Ok(Box::new(rows.into_iter().map(Ok))) };
        return Ok(vec![(path.clone(), Box::new(open))]);
    }
    let stream = |file: PathBuf| {
        let path = file.clone();
        let open: Open = match &source.place {
            Place::Jsonl(_) => Box::new(move || {
                let columns = ColumnNames::of_jsonl(&source.columns, &source.views);
                Ok(Box::new(JsonlReader::open(&path, columns, needs_pictures)?))
            }),
            _ => Box::new(move || {
                let columns = ColumnNames::of_parquet(&source.columns, &source.views);
                Ok(Box::new(RowReader::open(&path, columns, needs_pictures)?))
            }),
        };
        (file, open)
    };
    Ok(files(source, split)?.into_iter().map(stream).collect())
}

fn check(file: &Path, row: RawRow, source: &DataSource) -> Result<Example, SkippedRow> {
    let needs_pictures = source.needs_pictures;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let id = row.id.unwrap_or_else(|| format!("{name}:{}", row.row));
    let directory = file.parent().unwrap_or(Path::new(""));
    let usable = || -> Result<Example, SkipReason> {
        let image = match (row.image, needs_pictures) {
            (_, false) => Vec::new(),
            (None, true) => {
                return Err(source.views.first().map_or(SkipReason::NoImage, |view| SkipReason::NoView(view.clone())));
            }
            (Some(image), true) => image.bytes(directory, is_picture).map_err(SkipReason::UnreadImage)?,
        };
        let program = row.program.map(|program| program.text().map_err(SkipReason::UnreadProgram)).transpose()?;
        if program.as_ref().is_some_and(|program| program.trim().is_empty()) {
            return Err(SkipReason::EmptyProgram);
        }
        let is_shape = |bytes: &[u8]| Shape::new(bytes.to_vec()).format() != ShapeFormat::Unknown;
        let shape = row.shape.map(|shape| shape.bytes(directory, is_shape).map_err(SkipReason::NoShape)).transpose()?;
        let ground_truth = match (shape, &program) {
            (Some(shape), _) => GroundTruth::Shape(Arc::new(Shape::new(shape))),
            (None, Some(program)) => program.as_str().into(),
            (None, None) => return Err(SkipReason::NoProgram),
        };
        if needs_pictures {
            decode_rgb(&image).map_err(|ImageError::Decode { detail }| SkipReason::BadImage(detail))?;
        }
        let mut further = Vec::new();
        for (place, picture) in row.further.into_iter().enumerate().filter(|_| needs_pictures) {
            let picture = picture.ok_or_else(|| SkipReason::NoView(source.views[place + 1].clone()))?;
            let bytes = picture.bytes(directory, is_picture).map_err(SkipReason::UnreadImage)?;
            decode_rgb(&bytes).map_err(|ImageError::Decode { detail }| SkipReason::BadImage(detail))?;
            further.push(bytes.into());
        }
        let (label, hundred_subset) = (row.label, row.hundred_subset);
        Ok(Example { id: id.clone(), image: image.into(), further, program, ground_truth, label, hundred_subset })
    };
    usable().map_err(|reason| SkippedRow { file: file.to_owned(), row: row.row, id, reason })
}

/// Opens the selected rows, and reports on stderr how many rows are skipped.
///
/// # Errors
/// See [`Dataset::open_selection`].
pub fn open_dataset(source: &DataSource, selection: Selection) -> Result<Dataset, DataError> {
    let dataset = Dataset::open_selection(source, selection)?;
    if let Some(first) = dataset.skipped.first() {
        let count = dataset.skipped.len();
        eprintln!("data: {count} rows of the {} split are unusable and skipped; the first: {first}", selection.split);
    }
    Ok(dataset)
}
