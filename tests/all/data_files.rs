//! Data sets in files: rows that are read, rows that are skipped, and files that are refused.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use cadwright::data::dataset::SkipReason;
use cadwright::data::parquet::{Row, ShardWriter};
use cadwright::data::source::files;
use cadwright::data::{DataError, DataSource, Dataset, Selection, Split, encode_png};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

fn png(grey: u8) -> Vec<u8> {
    encode_png(&image::RgbImage::from_pixel(3, 2, image::Rgb([grey; 3]))).unwrap()
}

fn row(id: &str, program: &str, image: Vec<u8>) -> Row {
    Row {
        id: id.to_owned(),
        image,
        image_path: format!("{id}.png"),
        program: program.to_owned(),
        token_count: 7,
        prompt: "Write it.".to_owned(),
        hundred_subset: id.ends_with('h'),
    }
}

fn write(directory: &Path, split: Split, rows: &[Row]) -> std::path::PathBuf {
    let mut writer = ShardWriter::create(directory, split).unwrap();
    for group in rows.chunks(3) {
        writer.write(group).unwrap();
    }
    writer.close().unwrap().publish().unwrap()
}

fn open(path: &Path, split: Split) -> Result<Dataset, DataError> {
    Dataset::open(&DataSource::path(path.to_owned()), split, None)
}

#[test]
fn rows_come_back_as_written_and_bad_ones_are_skipped_with_their_id() {
    let directory = tempfile::tempdir().unwrap();
    let rows = [
        row("a", "one", png(1)),
        row("b", "  \n", png(2)),
        row("c", "three", b"not a picture".to_vec()),
        row("d-h", "four", png(4)),
        row("e", "five", png(5)[..40].to_vec()),
    ];
    write(directory.path(), Split::Train, &rows);
    let dataset = open(directory.path(), Split::Train).unwrap();
    let found: Vec<(&str, &str)> =
        dataset.examples().iter().map(|example| (example.id.as_str(), example.program.as_deref().unwrap())).collect();
    assert_eq!(found, [("a", "one"), ("d-h", "four")]);
    assert_eq!(dataset.get(1).unwrap().image.as_ref(), &png(4)[..]);
    assert!(dataset.get(2).is_none());
    let skipped: Vec<(&str, usize)> = dataset.skipped.iter().map(|row| (row.id.as_str(), row.row)).collect();
    assert_eq!(skipped, [("b", 1), ("c", 2), ("e", 4)]);
    assert_eq!(dataset.skipped[0].reason, SkipReason::EmptyProgram);
    assert!(matches!(dataset.skipped[1].reason, SkipReason::BadImage(_)));
    assert!(dataset.skipped[1].to_string().starts_with("c (row 2 of "), "{}", dataset.skipped[1]);
}

#[test]
fn a_limit_counts_usable_rows_and_the_hundred_subset_is_a_filter() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..10)
        .map(|i| row(&format!("{i}{}", if i % 2 == 1 { "h" } else { "" }), if i == 0 { "" } else { "x" }, png(i)))
        .collect();
    write(directory.path(), Split::Test, &rows);
    let source = DataSource::path(directory.path().to_owned());
    let ids = |selection| {
        let dataset = Dataset::open_selection(&source, selection).unwrap();
        dataset.examples().iter().map(|example| example.id.clone()).collect::<Vec<_>>()
    };
    let all = Selection::all(Split::Test);
    assert_eq!(ids(Selection { limit: Some(3), ..all }), ["1h", "2", "3h"]);
    assert_eq!(ids(Selection { hundred_subset_only: true, ..all }), ["1h", "3h", "5h", "7h", "9h"]);
    assert_eq!(ids(Selection { hundred_subset_only: true, limit: Some(2), ..all }), ["1h", "3h"]);
    assert_eq!(ids(Selection { limit: Some(0), ..all }), [""; 0]);
}

#[test]
fn other_writers_files_are_read_whatever_their_order_types_and_nulls() {
    // Another order of columns, an extra column, text not marked as text, nulls at every level,
    // dictionaries, zstd.
    let schema = "message other {
        optional binary cadquery;
        optional double score;
        optional boolean hundred_subset;
        optional group image { optional binary path (STRING); optional binary bytes; }
        required binary deepcad_id (STRING);
    }";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("validation-00000-of-00001.parquet");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(true)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let text = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    let pictures = [ByteArray::from(png(1)), ByteArray::from(png(2))];
    // Row 0 is complete; row 1 lacks the program, row 2 the picture's bytes, row 3 the picture.
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&text(&["p", "p", "p"]), Some(&[1, 0, 1, 1]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&[0.5], Some(&[1, 0, 0, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<BoolType>().write_batch(&[true], Some(&[1, 0, 0, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&text(&["x.png"; 3]), Some(&[2, 2, 2, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&pictures, Some(&[2, 2, 1, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&text(&["0", "1", "2", "3"]), None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let dataset = open(directory.path(), Split::Validation).unwrap();
    assert_eq!(dataset.len(), 1);
    let example = dataset.get(0).unwrap();
    assert_eq!((example.id.as_str(), example.program.as_deref(), example.hundred_subset), ("0", Some("p"), true));
    let reasons: Vec<&SkipReason> = dataset.skipped.iter().map(|row| &row.reason).collect();
    assert_eq!(reasons, [&SkipReason::NoProgram, &SkipReason::NoImage, &SkipReason::NoImage]);
}

#[test]
fn a_truncated_or_damaged_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..9).map(|i| row(&i.to_string(), &format!("program {i}"), png(i))).collect();
    let path = write(directory.path(), Split::Train, &rows);
    let whole = std::fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = open(directory.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("train-00000-of-00001.parquet") && error.contains("again"), "{error}");
    };
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        damaged(&whole[..length]);
    }
    // The first pages become zeros; the footer stays intact.
    let mut holed = whole.clone();
    holed[4..whole.len() / 3].fill(0);
    damaged(&holed);
}

#[test]
fn a_missing_split_lists_those_there_are() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), Split::Train, &[row("a", "x", png(1))]);
    write(directory.path(), Split::Test, &[row("b", "x", png(1))]);
    let error = open(directory.path(), Split::Validation).unwrap_err().to_string();
    assert!(error.contains("no validation split") && error.contains("found test, train"), "{error}");
    let error = open(&directory.path().join("nowhere"), Split::Train).unwrap_err().to_string();
    assert!(error.starts_with("no data at"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = open(empty.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("found none"), "{error}");
}

#[test]
fn another_parquet_file_or_one_without_usable_rows_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train-00000-of-00001.parquet");
    let schema = Arc::new(parse_message_type("message other { required binary text (STRING); }").unwrap());
    SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::default()).unwrap().close().unwrap();
    let error = open(directory.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("no column \"image\"") && error.contains("found text"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), Split::Train, &[row("gone", "", png(1))]);
    let error = open(directory.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("no usable row: 1 skipped, the first: gone"), "{error}");
}

#[test]
fn a_file_a_pattern_and_a_data_directory_serve_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory.path().join("data"), Split::Train, &[row("a", "x", png(1))]);
    for source in [directory.path().to_owned(), path.clone(), directory.path().join("data/tr*-of-*.parquet")] {
        assert_eq!(
            files(&DataSource::path(source.clone()), Split::Train).unwrap(),
            std::slice::from_ref(&path),
            "{source:?}"
        );
    }
    // A file whose name names a split serves that split only; any other file serves every split.
    let plain = directory.path().join("my parts.parquet");
    std::fs::copy(&path, &plain).unwrap();
    assert_eq!(open(&plain, Split::Test).unwrap().len(), 1);
    assert!(matches!(open(&path, Split::Test), Err(DataError::MissingSplit { .. })));
}

#[test]
fn a_shape_may_come_in_a_file_instead_of_a_program_or_beside_it() {
    let stl = b"solid x\nendsolid x\n";
    for (column, is_path) in [
        ("optional binary ground_truth_mesh;", false),
        ("optional binary ground_truth_mesh (STRING);", true),
        ("optional group ground_truth_mesh { optional binary bytes; }", false),
        ("optional group ground_truth_mesh { optional binary path (STRING); }", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("meshes")).unwrap();
        std::fs::write(directory.path().join("meshes/a.stl"), stl).unwrap();
        let schema = format!(
            "message other {{ required binary image; required binary deepcad_id (STRING); {column} optional binary cadquery (STRING); }}"
        );
        let path = directory.path().join("train-00000-of-00001.parquet");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let picture = png(1);
        let mesh: &[u8] = if is_path { b"meshes/a.stl" } else { stl };
        let level = if column.contains("group") { 2 } else { 1 };
        // Row 0 has a mesh, row 1 mesh and program, row 2 a program, row 3 neither, row 4 a path
        // that leads nowhere.
        let last: &[u8] = if is_path { b"meshes/none.stl" } else { stl };
        type Column<'a> = (Vec<&'a [u8]>, Option<Vec<i16>>);
        let columns: [Column; 4] = [
            (vec![picture.as_slice(); 5], None),
            (["0", "1", "2", "3", "4"].map(str::as_bytes).to_vec(), None),
            (vec![mesh, mesh, last], Some(vec![level, level, 0, 0, level])),
            (vec![b"p", b"p"], Some(vec![0, 1, 1, 0, 0])),
        ];
        for (values, levels) in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = values.into_iter().map(|bytes| ByteArray::from(bytes.to_vec())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let mut dataset = open(directory.path(), Split::Train).unwrap();
        let of = |dataset: &Dataset| -> Vec<(String, Option<String>, bool)> {
            let of = |e: &cadwright::data::Example| (e.id.clone(), e.program.clone(), e.ground_truth.shape().is_some());
            dataset.examples().iter().map(of).collect()
        };
        let row = |id: &str, program: Option<&str>, has_shape| (id.to_owned(), program.map(str::to_owned), has_shape);
        let mut expected = vec![row("0", None, true), row("1", Some("p"), true), row("2", Some("p"), false)];
        if !is_path {
            expected.push(row("4", None, true));
        }
        assert_eq!(of(&dataset), expected, "{column}");
        assert_eq!(dataset.get(0).unwrap().ground_truth.shape().unwrap().bytes(), stl);
        assert_eq!(dataset.skipped[0].reason, SkipReason::NoProgram);
        assert!(!is_path || dataset.skipped[1].to_string().contains("meshes/none.stl"), "{:?}", dataset.skipped);
        // Programs beyond the limit are hidden, but their shapes remain.
        dataset.keep_programs(2);
        assert_eq!(of(&dataset)[2], row("2", None, false));
        assert_eq!(dataset.get(2).unwrap().ground_truth.program(), Some("p"));
    }
}
