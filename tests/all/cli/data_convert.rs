//! `cadwright data convert`: forms of a data set, there and back.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use cadwright::data::parquet::{Row, ShardWriter};
use cadwright::data::{DataSource, Dataset, Split, encode_png};
use cadwright_rewards::samples::block_mesh;
use cadwright_rewards::write_stl;
use image::{ImageFormat, Rgb, RgbImage};

use crate::harness::{Finished, Place, bytes, rows, text};

/// How a folder that `data convert` wrote is read.
const AS_FOLDER: [&str; 4] = ["--set", "data.folder.split_by=directory", "--set", "data.folder.match_by=path"];

fn row(id: &str, program: &str, format: ImageFormat) -> Row {
    let picture = RgbImage::from_fn(9, 7, |x, y| Rgb([x as u8 * 20, y as u8 * 30, program.len() as u8]));
    let mut image = Cursor::new(Vec::new());
    picture.write_to(&mut image, format).unwrap();
    Row {
        id: id.to_owned(),
        image: image.into_inner(),
        image_path: String::new(),
        program: program.to_owned(),
        token_count: 0,
        prompt: String::new(),
        hundred_subset: id.ends_with("marked"),
    }
}

fn write(directory: &Path, split: Split, rows: &[Row]) {
    let mut writer = ShardWriter::create(directory, split).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap().publish().unwrap();
}

fn data(place: &Place) {
    let program = "solid = cq.Workplane().box(1, 2, 3)";
    let train = [
        row("0035/00351234", program, ImageFormat::Png),
        row("0035/b.c", "\n  # Umlaute: äöü\n  solid = 1\r\n\n", ImageFormat::WebP),
        row("a", "a = 2", ImageFormat::Png),
    ];
    write(&place.path("data"), Split::Train, &train);
    write(&place.path("data"), Split::Test, &[row("marked", program, ImageFormat::Png)]);
}

fn convert(place: &Place, from: &str, to: &str, form: &str, more: &[&str]) -> Finished {
    let arguments = ["data", "convert", "--from", from, "--to", to, "--form", form];
    place.cadwright(arguments.iter().chain(more).map(ToString::to_string)).succeeds()
}

/// By id: pictures, program, shape, and the mark of the public test.
type Parts = BTreeMap<String, (Vec<Vec<u8>>, Option<String>, Option<Vec<u8>>, bool)>;

fn parts(directory: &Path, split: Split) -> Parts {
    let dataset = Dataset::open(&DataSource::path(directory), split, None).unwrap();
    assert!(dataset.skipped.is_empty(), "{:?}", dataset.skipped);
    let part = |example: &cadwright::data::Example| {
        let pictures = example.pictures().map(<[u8]>::to_vec).collect();
        let shape = example.ground_truth.shape().map(|shape| shape.bytes().to_vec());
        (example.id.clone(), (pictures, example.program.clone(), shape, example.hundred_subset))
    };
    dataset.examples().iter().map(part).collect()
}

#[test]
fn a_folder_and_back_keeps_ids_programs_and_pictures() {
    let place = Place::new();
    data(&place);
    let finished = convert(&place, "data", "folder", "folder", &[]);
    assert!(finished.stderr().contains("no place for hundred_subset: 1 rows lose it"), "{finished}");
    let names =
        ["train/0035/00351234.png", "train/0035/b.c.webp", "train/0035/b.c.py", "train/a.py", "test/marked.png"];
    assert!(names.iter().all(|name| place.path("folder").join(name).is_file()), "{finished}");
    convert(&place, "folder", "again", "parquet", &AS_FOLDER);
    for split in [Split::Train, Split::Test] {
        let mut expected = parts(&place.path("data"), split);
        expected.values_mut().for_each(|(.., mark)| *mark = false);
        assert_eq!(parts(&place.path("again"), split), expected, "{split}");
    }
    assert!(!place.path("again/validation-00000-of-00001.parquet").exists());
}

#[test]
fn jsonl_and_back_keeps_marks_too() {
    let place = Place::new();
    data(&place);
    convert(&place, "data", "jsonl", "jsonl", &[]);
    let train = rows(place.path("jsonl/train.jsonl"));
    assert_eq!((train.len(), &train[0]["image"]), (3, &"train/0035/00351234.png".into()));
    assert!(!text(place.path("jsonl/train.jsonl")).contains("hundred_subset"));
    convert(&place, "jsonl", "again", "parquet", &[]);
    for split in [Split::Train, Split::Test] {
        assert_eq!(parts(&place.path("again"), split), parts(&place.path("data"), split), "{split}");
    }
    assert!(parts(&place.path("again"), Split::Test)["marked"].3);
}

/// A folder of two parts with two views each, without programs.
fn views(place: &Place) {
    std::fs::create_dir_all(place.path("views/train")).unwrap();
    for (side, part) in ["p", "q"].into_iter().enumerate() {
        let stl = write_stl(&block_mesh([0.0; 3], [1.0, 1.0, 1.0 + side as f64]));
        std::fs::write(place.path(&format!("views/train/{part}.stl")), stl).unwrap();
        for (tone, view) in ["iso", "front"].into_iter().enumerate() {
            let picture = RgbImage::from_pixel(8, 8, Rgb([tone as u8 * 90, side as u8, 7]));
            let path = place.path(&format!("views/train/{part}_{view}.png"));
            std::fs::write(path, encode_png(&picture).unwrap()).unwrap();
        }
    }
}

#[test]
fn shapes_and_views_survive_every_form() {
    let place = Place::new();
    views(&place);
    let of_views = ["--set", "data.views=[\"iso\",\"front\"]"];
    let with = |more: &[&'static str]| [&of_views[..], more].concat();
    convert(&place, "views", "parquet", "parquet", &with(&AS_FOLDER));
    convert(&place, "parquet", "jsonl", "jsonl", &of_views);
    convert(&place, "jsonl", "folder", "folder", &of_views);
    for name in ["p.stl", "p_iso.png", "p_front.png", "q_front.png"] {
        let [first, last] = ["views", "folder"].map(|form| bytes(place.path(form).join("train").join(name)));
        assert!(first == last, "{name}");
    }
    let error = place.cadwright(["data", "convert", "--from", "parquet", "--to", "one", "--form", "folder"]).fails();
    assert!(error.error().contains("\"image\""), "without data.views there is no such column\n{error}");
    // A part that lacks a view is left out, by name.
    std::fs::remove_file(place.path("folder/train/q_front.png")).unwrap();
    let finished = convert(&place, "folder", "fewer", "parquet", &with(&AS_FOLDER));
    assert!(finished.stdout().contains("train: 1 parts"), "{finished}");
    assert!(finished.stderr().contains("q ") && finished.stderr().contains("front"), "{finished}");
}

#[test]
fn what_cannot_be_written_is_refused_with_the_reason() {
    let place = Place::new();
    data(&place);
    write(&place.path("odd"), Split::Train, &[row("../a", "a = 1", ImageFormat::Png)]);
    write(&place.path("twice"), Split::Train, &["a", "a"].map(|id| row(id, "a = 1", ImageFormat::Png)));
    let run = |from: &str, to: &str, form: &str| {
        place.cadwright(["data", "convert", "--from", from, "--to", to, "--form", form])
    };
    run("odd", "out", "folder").fails_with(&["the id \"../a\" cannot be the name of a file", "--form parquet"]);
    assert!(!place.path("a.py").exists());
    run("odd", "out2", "parquet").succeeds();
    run("twice", "out3", "folder").fails_with(&["two rows have the id \"a\""]);
    run("twice", "data", "folder").fails_with(&["data is not empty"]);
}
