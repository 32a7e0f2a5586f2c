//! Writes parquet files in GenCAD-Code's schema.
//!
//! Columns: `image` (struct of PNG `bytes` and `path`), `deepcad_id`, `cadquery`, `token_count`
//! (int64), `prompt`, `hundred_subset` (bool). File names are the hub's:
//! `train-00000-of-00001.parquet`. A file is written under a temporary name and renamed when it is
//! complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::ColumnPath;
use cadwright_rollout::files::WholeFile;
use thiserror::Error;

use super::Split;

const SCHEMA: &str = "
message schema {
  optional group image {
    optional binary bytes;
    optional binary path (STRING);
  }
  optional binary deepcad_id (STRING);
  optional binary cadquery (STRING);
  optional int64 token_count;
  optional binary prompt (STRING);
  optional boolean hundred_subset;
}";

/// Tells Hugging Face's `datasets` that the struct is a picture.
const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"}, "deepcad_id": {"dtype": "string", "_type": "Value"}, "cadquery": {"dtype": "string", "_type": "Value"}, "token_count": {"dtype": "int64", "_type": "Value"}, "prompt": {"dtype": "string", "_type": "Value"}, "hundred_subset": {"dtype": "bool", "_type": "Value"}}}}"#;

/// The reason why a parquet file cannot be written.
#[derive(Debug, Error)]
pub enum ParquetError {
    /// The directory already has a file of this split.
    #[error("{directory} already holds {found}; choose an empty directory, or remove the data set there")]
    Exists {
        /// The directory.
        directory: PathBuf,
        /// The file found there.
        found: String,
    },
    /// The file system returned an error.
    #[error("cannot write to {path}; is the directory writable and is there space left?")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The encoder returned an error.
    #[error("cannot write {path}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's error.
        source: ::parquet::errors::ParquetError,
    },
}

/// A row of GenCAD-Code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `deepcad_id`.
    pub id: String,
    /// `image.bytes`: an encoded picture.
    pub image: Vec<u8>,
    /// `image.path`: its file name.
    pub image_path: String,
    /// `cadquery`.
    pub program: String,
    /// `token_count`.
    pub token_count: i64,
    /// `prompt`.
    pub prompt: String,
    /// `hundred_subset`.
    pub hundred_subset: bool,
}

/// The file name of a split that has one file.
pub fn file_name(split: Split) -> String {
    format!("{split}-00000-of-00001.parquet")
}

/// Writes one file.
pub struct ShardWriter {
    writer: SerializedFileWriter<WholeFile>,
    path: PathBuf,
}

/// A complete file that still has its temporary name.
#[derive(Debug)]
pub struct ClosedShard {
    file: WholeFile,
    path: PathBuf,
}

impl ShardWriter {
    /// Begins the file of a split. Creates the directory if it is missing; it must not hold a file
    /// of the split.
    ///
    /// # Errors
    /// The directory cannot be written, or already has a file of this split.
    pub fn create(directory: &Path, split: Split) -> Result<Self, ParquetError> {
        let io = |source| ParquetError::Io { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let found = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if found.starts_with(&format!("{split}-")) && found.ends_with(".parquet") {
                return Err(ParquetError::Exists { directory: directory.to_owned(), found });
            }
        }
        let path = directory.join(file_name(split));
        let file = WholeFile::create(&path).map_err(io)?;
        let encode = |source| ParquetError::Encode { path: path.clone(), source };
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(encode)?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // Programs are repetitive. Pictures are compressed already, and all differ.
            .set_column_compression(ColumnPath::from("cadquery"), Compression::ZSTD(ZstdLevel::default()))
            .set_column_compression(
                ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]),
                Compression::UNCOMPRESSED,
            )
            .set_column_dictionary_enabled(ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]), false)
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), FEATURES.to_owned())]))
            .build();
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(encode)?;
        Ok(Self { writer, path })
    }

    /// Appends rows as one row group.
    ///
    /// # Errors
    /// [`ParquetError::Encode`].
    pub fn write(&mut self, rows: &[Row]) -> Result<(), ParquetError> {
        write_group(&mut self.writer, rows).map_err(|source| ParquetError::Encode { path: self.path.clone(), source })
    }

    /// Completes the file under its temporary name.
    ///
    /// # Errors
    /// The encoder fails, or the file cannot be written.
    pub fn close(self) -> Result<ClosedShard, ParquetError> {
        let Self { writer, path } = self;
        let file = writer.into_inner().map_err(|source| ParquetError::Encode { path: path.clone(), source })?;
        file.sync().map_err(|source| ParquetError::Io { path: path.clone(), source })?;
        Ok(ClosedShard { file, path })
    }
}

impl ClosedShard {
    /// Renames the file to its final name.
    ///
    /// # Errors
    /// A file of this name exists, or the file cannot be renamed.
    pub fn publish(self) -> Result<PathBuf, ParquetError> {
        let Self { file, path } = self;
        match file.finish_new() {
            Ok(()) => Ok(path),
            Err(source) => Err(ParquetError::Io { path, source }),
        }
    }
}

fn write_group(writer: &mut SerializedFileWriter<WholeFile>, rows: &[Row]) -> ::parquet::errors::Result<()> {
    // Definition levels: the number of optional levels that are present down to the value, for a
    // field of `image` and for a plain column.
    const NESTED: i16 = 2;
    const FLAT: i16 = 1;
    let text = |field: fn(&Row) -> &str| rows.iter().map(|row| ByteArray::from(field(row))).collect::<Vec<_>>();
    let mut group = writer.next_row_group()?;
    let pictures: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.image.clone())).collect();
    write_column::<ByteArrayType>(&mut group, &pictures, NESTED)?;
    write_column::<ByteArrayType>(&mut group, &text(|row| &row.image_path), NESTED)?;
    write_column::<ByteArrayType>(&mut group, &text(|row| &row.id), FLAT)?;
    write_column::<ByteArrayType>(&mut group, &text(|row| &row.program), FLAT)?;
    let counts: Vec<i64> = rows.iter().map(|row| row.token_count).collect();
    write_column::<Int64Type>(&mut group, &counts, FLAT)?;
    write_column::<ByteArrayType>(&mut group, &text(|row| &row.prompt), FLAT)?;
    let marks: Vec<bool> = rows.iter().map(|row| row.hundred_subset).collect();
    write_column::<BoolType>(&mut group, &marks, FLAT)?;
    group.close()?;
    Ok(())
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, WholeFile>,
    values: &[T::T],
    level: i16,
) -> ::parquet::errors::Result<()> {
    let Some(mut column) = group.next_column()? else {
        return Err(::parquet::errors::ParquetError::General("the schema has fewer columns than a row".to_owned()));
    };
    column.typed::<T>().write_batch(values, Some(&vec![level; values.len()]), None)?;
    column.close()
}
