//! `cadwright data stats`: what is in a data set, and what is in it twice.

use std::path::Path;

use cadwright::data::parquet::{Row, ShardWriter};
use cadwright::data::{Split, encode_png};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use super::smoke_run;
use crate::harness::{Place, json as json_of};

fn row(id: &str, program: &str) -> Row {
    let picture = RgbImage::from_pixel(8, 6, Rgb([id.len() as u8; 3]));
    Row {
        id: id.to_owned(),
        image: encode_png(&picture).unwrap(),
        image_path: format!("{id}.png"),
        program: program.to_owned(),
        token_count: 0,
        prompt: String::new(),
        hundred_subset: false,
    }
}

fn write(directory: &Path, split: Split, rows: &[Row]) {
    let mut writer = ShardWriter::create(directory, split).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap().publish().unwrap();
}

fn boxed(size: &str, moved: &str) -> String {
    format!("solid = cq.Workplane().box({size}).translate(({moved}))")
}

/// Three splits in which parts are the same in several ways.
fn data(place: &Place) {
    let directory = place.path("data");
    let train = [
        row("box", &boxed("1, 2, 3", "0, 0, 0")),
        // Another text, the same shape in place.
        row("box-again", "a, b = 1, 2\nsolid = cq.Workplane().rect(a, b).extrude(3).translate((0, 0, -1.5))"),
        row("moved", &boxed("2, 4, 6", "9, 0, 0")),
        row("long", &boxed("1, 2, 30", "0, 0, 0")),
        row("wrong", "solid = cq.Workplane().box(1, 2"),
    ];
    write(&directory, Split::Train, &train);
    // By CadQuery, since the native engine does not know how Python writes this.
    let foreign = "import functools\nsolid = functools.reduce(lambda a, b: a, [cq.Workplane().box(1, 2, 3)])";
    write(&directory, Split::Test, &[row("leak", foreign), row("new", &boxed("1, 2, 2.9", "0, 0, 0"))]);
}

#[test]
fn duplicates_by_geometry_are_found_within_and_across_splits() {
    let place = Place::new();
    data(&place);
    let arguments = ["data", "stats", "data", "--json", "stats.json", "--contact-sheet", "sheet.png"];
    let finished = place.cadwright(arguments).succeeds();
    let stats = json_of(place.path("stats.json"));
    let canonical = &stats["duplicates"]["canonical"];
    assert_eq!(canonical["leaks"], json!([{"test": ["leak"], "train": ["box", "box-again"]}]), "{stats:#}");
    assert_eq!(canonical["within"], json!({"train": 1}));
    let normalised = &stats["duplicates"]["normalised"];
    assert_eq!(normalised["leaks"], json!([{"test": ["leak"], "train": ["box", "box-again", "moved"]}]), "{stats:#}");
    assert_eq!(normalised["within"], json!({"train": 2}));
    let across = json!([
        {"of": "train", "also_in": "test", "parts": 3},
        {"of": "test", "also_in": "train", "parts": 1},
    ]);
    assert_eq!((&normalised["across"], &normalised["repeated"]), (&across, &json!([])));
    let stdout = finished.stdout();
    assert!(stdout.contains("test: 1 parts have a shape that is in train too"), "{finished}");

    let train = &stats["splits"]["train"];
    assert_eq!((&train["parts"], &train["programs"]), (&json!(5), &json!(5)));
    assert_eq!(train["outcomes"], json!({"solid": 4, "syntax": 1}));
    assert_eq!(train["failures"][0]["id"], "wrong");
    assert_eq!(train["pictures"], json!({"8 x 6": 5}));
    assert_eq!((&train["tokens"], &train["cut"]), (&Value::Null, &Value::Null), "no tokenizer was given");
    let longest = "a, b = 1, 2\nsolid = cq.Workplane().rect(a, b).extrude(3).translate((0, 0, -1.5))".len();
    assert_eq!(train["characters"]["max"], longest);
    // Two splits, a row of pictures each.
    let sheet = image::open(place.path("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 + 12 * 116, 4 + 2 * 116));
}

#[test]
fn lengths_are_those_of_the_tokenizer_and_limits_say_what_they_cut() {
    let place = Place::new();
    let data = smoke_run().join("data").display().to_string();
    let model = smoke_run().join("sft/best").display().to_string();
    let run = |more: &[&str]| {
        let arguments = ["data", "stats", &data, "--model-path", &model, "--json", "stats.json"];
        let finished = place.cadwright(arguments.iter().chain(more).map(ToString::to_string)).succeeds();
        (json_of(place.path("stats.json")), finished)
    };
    let (stats, _) = run(&[]);
    let train = &stats["splits"]["train"];
    let number = |name: &str, of: &str| train[name][of].as_u64().unwrap();
    let prompt = number("sequence_tokens", "min") - number("tokens", "min");
    assert!(prompt > 16, "the prompt has its picture's tokens\n{stats:#}");
    assert_eq!(number("sequence_tokens", "max") - number("tokens", "max"), prompt);
    assert!(number("tokens", "min") > 1 && number("tokens", "max") < number("characters", "max"), "{stats:#}");
    // A limit below the longest program, and one at the longest sequence.
    let limits = [
        format!("generate.max_new_tokens={}", number("tokens", "max") - 1),
        format!("sft.max_length={}", number("sequence_tokens", "max")),
    ];
    let (stats, finished) = run(&["--set", &limits[0], "--set", &limits[1]]);
    let cut = &stats["splits"]["train"]["cut"];
    assert!(cut["over_max_new_tokens"].as_u64().unwrap() >= 1, "{finished}");
    assert_eq!(cut["over_max_length"], 0);
    assert!(finished.stdout().contains("programs are longer than generate.max_new_tokens"), "{finished}");
}

#[test]
fn data_that_is_not_there_is_an_error() {
    let place = Place::new();
    place.cadwright(["data", "stats", "nowhere"]).fails_with(&["no data at nowhere"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    place.cadwright(["data", "stats", "empty"]).fails_with(&["empty has no"]);
}
