//! Streams rows from one parquet file.

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
use super::content::Content;
use super::error::DataError;
use super::names::ColumnNames;

/// The fields that are read of a row, by their role. Any field may be missing; the caller decides
/// whether that is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawRow {
    /// Position in the file or folder, from 0.
    pub row: usize,
    /// What identifies the part.
    pub id: Option<String>,
    /// The picture.
    pub image: Option<Content>,
    /// Further pictures, one for each view after the first.
    pub further: Vec<Option<Content>>,
    /// The program.
    pub program: Option<Content>,
    /// An STL or STEP file.
    pub shape: Option<Content>,
    /// A class of the part.
    pub label: Option<String>,
    /// `hundred_subset`; false if the column is missing or null.
    pub hundred_subset: bool,
}

/// Streams the rows of a file, with one row group in memory at a time. Columns may come in any
/// order, among other columns, in any encoding and compression that the parquet crate reads.
pub struct RowReader {
    path: PathBuf,
    rows: RowIter<'static>,
    next: usize,
    columns: ColumnNames,
}

/// The column that marks GenCAD-Code's public test of 100 parts.
pub(super) const SUBSET: &str = "hundred_subset";

impl RowReader {
    /// Opens a file and checks that it has the needed columns; see [`ColumnNames::check`].
    ///
    /// # Errors
    /// The file cannot be read, is damaged, lacks a column, or has an unsupported compression.
    pub fn open(path: &Path, columns: ColumnNames, needs_pictures: bool) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let corrupt = |source| DataError::Corrupt { path: path.to_owned(), detail: detail(&source) };
        let reader = CheckedFile::open(file).map_err(corrupt)?;
        let schema = reader.metadata().file_metadata().schema_descr().root_schema_ptr();
        let found: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        columns.check(path, &found, needs_pictures)?;
        // Pictures that nobody needs are not decoded.
        let is_wanted = |column: &str| {
            column == SUBSET
                || columns.roles_of(column).any(|role| needs_pictures || role != "image")
                || needs_pictures && columns.further().iter().any(|name| name == column)
        };
        let projection = project(&schema, path, is_wanted)?;
        check_codecs(reader.metadata(), path, is_wanted)?;
        let rows = || RowIter::from_file_into(Box::new(reader)).project(Some(projection));
        let rows = caught(rows).map_err(corrupt)?;
        Ok(Self { path: path.to_owned(), rows, next: 0, columns })
    }
}

impl Iterator for RowReader {
    type Item = Result<RawRow, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next;
        self.next += 1;
        let found = caught(|| self.rows.next().transpose()).transpose()?;
        Some(found.map(|fields| raw_row(row, fields, &self.columns)).map_err(|source| DataError::CorruptRow {
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

fn check_codecs(metadata: &ParquetMetaData, path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(), DataError> {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    let wanted = columns.filter(|column| {
        let root = column.column_path().parts().first();
        root.is_some_and(|root| is_wanted(root))
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

fn project(schema: &TypePtr, path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Type, DataError> {
    let fields = schema.get_fields().iter().filter(|field| is_wanted(field.name())).map(Arc::clone).collect();
    Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
        .map_err(|source| DataError::Corrupt { path: path.to_owned(), detail: detail(&source) })
}

fn raw_row(row: usize, fields: Row, columns: &ColumnNames) -> RawRow {
    let mut found = RawRow { row, further: vec![None; columns.further().len()], ..RawRow::default() };
    for (name, field) in fields.into_columns() {
        if let (SUBSET, Field::Bool(mark)) = (name.as_str(), &field) {
            found.hundred_subset = *mark;
        }
        if let Some(place) = columns.further().iter().position(|further| *further == name) {
            found.further[place] = file(field.clone());
        }
        for role in columns.roles_of(&name) {
            let field = field.clone();
            match role {
                "image" => found.image = file(field),
                "shape" => found.shape = file(field),
                "program" => found.program = text(field).map(Content::Text),
                "id" => found.id = text(field),
                "label" => found.label = text(field),
                _ => {}
            }
        }
    }
    found
}

/// The file in a column of bytes, of text, or of structs with fields `bytes` and `path`.
fn file(field: Field) -> Option<Content> {
    let group = match field {
        Field::Str(text) => return Some(Content::Text(text)),
        Field::Group(group) => group,
        field => return binary(field).map(Content::Bytes),
    };
    let (mut bytes, mut path) = (None, None);
    for (name, field) in group.into_columns() {
        match name.as_str() {
            "bytes" => bytes = binary(field),
            "path" => path = text(field),
            _ => {}
        }
    }
    bytes.map(Content::Bytes).or(path.map(Content::Text))
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
