//! Parquet files with the columns that a data set needs.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType};
use ::parquet::errors::Result;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::ColumnPath;
use cadwright_rollout::files::WholeFile;
use serde_json::json;

use super::super::parquet::{ParquetError, file_name};
use super::super::{Dataset, Example, Split};
use super::{picture_column, picture_ending, shape_ending};

/// Rows in a row group.
const GROUP: usize = 512;

/// A column, or the two fields of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column<'a> {
    /// The picture at this place, and the name of its view.
    Picture(usize, Option<&'a String>),
    Id,
    Program,
    Shape,
    Label,
    HundredSubset,
}

impl<'a> Column<'a> {
    /// The columns of a data set: those in which some row has a value.
    fn of(dataset: &Dataset, views: &'a [String]) -> Vec<Self> {
        let any = |has: &dyn Fn(&Example) -> bool| dataset.examples().iter().any(has);
        let pictures = (0..views.len().max(1)).map(|place| Self::Picture(place, views.get(place)));
        let optional = [
            (Self::Program, any(&|example| example.program.is_some())),
            (Self::Shape, any(&|example| example.ground_truth.shape().is_some())),
            (Self::Label, any(&|example| example.label.is_some())),
            (Self::HundredSubset, any(&|example| example.hundred_subset)),
        ];
        let optional = optional.into_iter().filter(|(_, is_there)| *is_there).map(|(column, _)| column);
        pictures.chain([Self::Id]).chain(optional).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Picture(_, view) => picture_column(view),
            Self::Id => "deepcad_id".to_owned(),
            Self::Program => "cadquery".to_owned(),
            Self::Shape => "ground_truth_mesh".to_owned(),
            Self::Label => "label".to_owned(),
            Self::HundredSubset => "hundred_subset".to_owned(),
        }
    }

    fn is_file(self) -> bool {
        matches!(self, Self::Picture(..) | Self::Shape)
    }

    fn schema(self) -> String {
        let name = self.name();
        match self {
            Self::HundredSubset => format!("optional boolean {name};"),
            _ if self.is_file() => {
                format!("optional group {name} {{ optional binary bytes; optional binary path (STRING); }}")
            }
            _ => format!("optional binary {name} (STRING);"),
        }
    }

    /// What Hugging Face's `datasets` takes it for.
    fn feature(self) -> serde_json::Value {
        match self {
            Self::Picture(..) => json!({"_type": "Image"}),
            Self::Shape => json!({
                "bytes": {"dtype": "binary", "_type": "Value"}, "path": {"dtype": "string", "_type": "Value"},
            }),
            Self::HundredSubset => json!({"dtype": "bool", "_type": "Value"}),
            _ => json!({"dtype": "string", "_type": "Value"}),
        }
    }

    fn file(self, example: &Example) -> Option<(&[u8], String)> {
        match self {
            Self::Picture(place, view) => {
                let bytes = example.pictures().nth(place)?;
                Some((bytes, picture_ending(view, bytes)))
            }
            _ => {
                let shape = example.ground_truth.shape()?;
                Some((shape.bytes(), shape_ending(shape.format()).to_owned()))
            }
        }
    }

    fn text(self, example: &Example) -> Option<&str> {
        match self {
            Self::Id => Some(&example.id),
            Self::Program => example.program.as_deref(),
            _ => example.label.as_deref(),
        }
    }
}

/// Writes a split.
///
/// # Errors
/// A directory that cannot be written, or a failure of the encoder.
pub fn write(
    dataset: &Dataset,
    views: &[String],
    split: Split,
    directory: &Path,
) -> std::result::Result<(), ParquetError> {
    let path = directory.join(file_name(split));
    let io = |source| ParquetError::Io { path: path.clone(), source };
    let file = WholeFile::create(&path).map_err(io)?;
    let file = encode(dataset, views, file).map_err(|source| ParquetError::Encode { path: path.clone(), source })?;
    file.sync().and_then(|()| file.finish_new()).map_err(io)
}

fn encode<W: Write + Send>(dataset: &Dataset, views: &[String], file: W) -> Result<W> {
    let columns = Column::of(dataset, views);
    let fields: String = columns.iter().map(|column| column.schema()).collect();
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {fields} }}"))?);
    let features: serde_json::Map<_, _> = columns.iter().map(|column| (column.name(), column.feature())).collect();
    let features = json!({"info": {"features": features}}).to_string();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), features)]));
    for column in columns.iter().filter(|column| matches!(column, Column::Picture(..))) {
        // Pictures are compressed already, and all differ.
        let bytes = ColumnPath::from(vec![column.name(), "bytes".to_owned()]);
        properties = properties
            .set_column_compression(bytes.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(bytes, false);
    }
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build()))?;
    for rows in dataset.examples().chunks(GROUP) {
        let mut group = writer.next_row_group()?;
        for column in &columns {
            write_column(&mut group, *column, rows)?;
        }
        group.close()?;
    }
    writer.into_inner()
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<W>,
    column: Column,
    rows: &[Example],
) -> Result<()> {
    if column.is_file() {
        let files = || rows.iter().map(|row| column.file(row));
        let path =
            |row: &Example| column.file(row).map(|(_, ending)| ByteArray::from(format!("{}{ending}", row.id).as_str()));
        let bytes = files().map(|file| file.map(|(bytes, _)| ByteArray::from(bytes.to_vec())));
        write_values::<ByteArrayType, _>(group, bytes, 2)?;
        return write_values::<ByteArrayType, _>(group, rows.iter().map(path), 2);
    }
    if column == Column::HundredSubset {
        return write_values::<BoolType, _>(group, rows.iter().map(|row| Some(row.hundred_subset)), 1);
    }
    write_values::<ByteArrayType, _>(group, rows.iter().map(|row| column.text(row).map(ByteArray::from)), 1)
}

/// Writes the values of a column at the depth `level`: the number of its optional levels.
fn write_values<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<W>,
    values: impl Iterator<Item = Option<T::T>>,
    level: i16,
) -> Result<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|value| if value.is_some() { level } else { 0 }).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    let Some(mut column) = group.next_column()? else {
        return Err(::parquet::errors::ParquetError::General("the schema has fewer columns than a row".to_owned()));
    };
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}
