//! Streams GenCAD-Code's rows from one parquet file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::FileReader;
use ::parquet::record::{Field, Row, reader::RowIter};
use ::parquet::schema::types::{Type, TypePtr};

use super::checked::{CheckedFile, caught};
use super::error::DataError;

/// The fields that are read of a row. Any field may be missing; the caller decides whether that is
/// an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawRow {
    /// Position in the file, from 0.
    pub row: usize,
    /// `deepcad_id`.
    pub id: Option<String>,
    /// `image.bytes`, or `image` if it is a binary column.
    pub image: Option<Vec<u8>>,
    /// `image.path`.
    pub image_path: Option<String>,
    /// `cadquery`.
    pub program: Option<String>,
    /// `ground_truth_mesh`: an STL or STEP file.
    pub shape: Option<ShapeSource>,
    /// `hundred_subset`; false if the column is missing or null.
    pub hundred_subset: bool,
}

/// The form in which a row gives its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeSource {
    /// The content of a file: a binary column, or one with `bytes` in it.
    Bytes(Vec<u8>),
    /// A path relative to the parquet file's directory: a text column, or one with `path` and no
    /// `bytes`.
    Path(String),
}

/// Streams the rows of a file, with one row group in memory at a time. Columns may come in any
/// order, among other columns, in any encoding and compression that the parquet crate reads.
pub struct RowReader {
    path: PathBuf,
    rows: RowIter<'static>,
    next: usize,
}

/// Required columns. Of the second group, one is enough.
const NEEDED: [&[&str]; 2] = [&["image"], &["cadquery", "ground_truth_mesh"]];
/// Optional columns.
const WANTED: [&str; 5] = ["image", "deepcad_id", "cadquery", "ground_truth_mesh", "hundred_subset"];

impl RowReader {
    /// Opens a file and checks that it has the needed columns.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, lacks a column, or has an unsupported compression.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let corrupt = |source| DataError::Corrupt { path: path.to_owned(), detail: detail(&source) };
        let reader = CheckedFile::open(file).map_err(corrupt)?;
        let schema = reader.metadata().file_metadata().schema_descr().root_schema_ptr();
        let projection = project(&schema, path)?;
        check_codecs(reader.metadata(), path)?;
        let rows = || RowIter::from_file_into(Box::new(reader)).project(Some(projection));
        let rows = caught(rows).map_err(corrupt)?;
        Ok(Self { path: path.to_owned(), rows, next: 0 })
    }
}

impl Iterator for RowReader {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next;
        self.next += 1;
        let found = caught(|| self.rows.next().transpose()).transpose()?;
        Some(found.map(|fields| raw_row(row, fields)).map_err(|source| DataError::CorruptRow {
            path: self.path.clone(),
            row,
            detail: detail(&source),
        }))
    }
}

/// The message of a parquet error, without the crate's prefix.
fn detail(source: &ParquetError) -> String {
    match source {
        ParquetError::General(text) | ParquetError::EOF(text) => text.clone(),
        other => other.to_string(),
    }
}

fn check_codecs(metadata: &ParquetMetaData, path: &Path) -> Result<(), DataError> {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    let wanted = columns.filter(|column| {
        let root = column.column_path().parts().first();
        root.is_some_and(|root| WANTED.contains(&root.as_str()))
    });
    for column in wanted {
        match column.compression() {
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_) => {}
            codec => {
                return Err(DataError::Codec { path: path.to_owned(), codec: codec.to_string() });
            }
        }
    }
    Ok(())
}

fn project(schema: &TypePtr, path: &Path) -> Result<Type, DataError> {
    let fields: Vec<TypePtr> =
        schema.get_fields().iter().filter(|field| WANTED.contains(&field.name())).map(Arc::clone).collect();
    let is_there = |column: &&str| fields.iter().any(|field| field.name() == *column);
    if let Some(group) = NEEDED.iter().find(|group| !group.iter().any(is_there)) {
        return Err(DataError::MissingColumn {
            path: path.to_owned(),
            column: group[0],
            found: schema.get_fields().iter().map(|field| field.name().to_owned()).collect(),
        });
    }
    Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
        .map_err(|source| DataError::Corrupt { path: path.to_owned(), detail: detail(&source) })
}

fn raw_row(row: usize, fields: Row) -> RawRow {
    let mut found = RawRow { row, ..RawRow::default() };
    for (name, field) in fields.into_columns() {
        match (name.as_str(), field) {
            ("image", Field::Group(image)) => (found.image, found.image_path) = file(image),
            ("image", field) => found.image = binary(field),
            ("deepcad_id", field) => found.id = text(field),
            ("cadquery", field) => found.program = text(field),
            ("ground_truth_mesh", Field::Group(shape)) => {
                let (bytes, path) = file(shape);
                found.shape = bytes.map(ShapeSource::Bytes).or(path.map(ShapeSource::Path));
            }
            ("ground_truth_mesh", Field::Str(path)) => found.shape = Some(ShapeSource::Path(path)),
            ("ground_truth_mesh", field) => found.shape = binary(field).map(ShapeSource::Bytes),
            ("hundred_subset", Field::Bool(mark)) => found.hundred_subset = mark,
            _ => {}
        }
    }
    found
}

/// The fields `bytes` and `path` of a struct column.
fn file(group: Row) -> (Option<Vec<u8>>, Option<String>) {
    let (mut bytes, mut path) = (None, None);
    for (name, field) in group.into_columns() {
        match name.as_str() {
            "bytes" => bytes = binary(field),
            "path" => path = text(field),
            _ => {}
        }
    }
    (bytes, path)
}

fn binary(field: Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        _ => None,
    }
}

/// A field as text; accepts binary columns that are not marked as text, and numeric ids.
fn text(field: Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text),
        Field::Bytes(bytes) => bytes.as_utf8().ok().map(str::to_owned),
        Field::Int(number) => Some(number.to_string()),
        Field::Long(number) => Some(number.to_string()),
        _ => None,
    }
}
