//! `cadwright data`: synthetic parts and pixels.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::harness::{Place, bytes, repository};

const FILES: [&str; 3] =
    ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"];

fn synth(output: &str) -> Vec<&str> {
    let count = ["--count", "20", "--validation-count", "3", "--test-count", "4", "--image-size", "56"];
    [vec!["data", "synth", "--seed", "5", "--output", output], count.to_vec()].concat()
}

#[test]
fn synthetic_parts_are_the_same_bytes_every_time() {
    let place = Place::new();
    place.cadwright(synth("a")).succeeds();
    place.cadwright([synth("b"), vec!["--jobs", "1"]].concat()).succeeds();
    for file in FILES {
        let [a, b] = ["a", "b"].map(|directory| bytes(place.path(directory).join(file)));
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn synthetic_parts_never_overwrite_a_data_set() {
    let place = Place::new();
    place.cadwright(synth("a")).succeeds();
    let before = FILES.map(|file| bytes(place.path("a").join(file)));
    let mut other_seed = synth("a");
    other_seed[3] = "6";
    let finished = place.cadwright(other_seed).fails_with(&["a already holds"]);
    assert!(before == FILES.map(|file| bytes(place.path("a").join(file))), "the data set changed\n{finished}");
}

/// Arguments of `data pixels` for a picture of the fixture, with tiles of side 14 unless `more`
/// sets another.
fn pixels(image: &str, more: &[&str]) -> Vec<String> {
    let image = repository().join("tests/fixtures/images").join(image).display().to_string();
    let arguments = ["data", "pixels", "--image", &image, "--output", "out.safetensors"];
    let size = if more.contains(&"--tile-size") { &[][..] } else { &["--tile-size", "14"] };
    arguments.iter().chain(size).chain(more).map(ToString::to_string).collect()
}

fn summary(arguments: Vec<String>, place: &Place) -> (Value, Vec<i64>) {
    let finished = place.cadwright(arguments).succeeds();
    let tensors = Tensor::read_safetensors(place.path("out.safetensors")).expect("a safetensors file");
    let [(name, values)] = &tensors[..] else { panic!("expected one tensor, got {tensors:?}\n{finished}") };
    assert_eq!((name.as_str(), values.kind()), ("pixel_values", Kind::Float), "{finished}");
    (serde_json::from_str(&finished.stdout()).expect("JSON on standard output"), values.size())
}

#[test]
fn pixels_are_the_normalised_tiles_that_the_reference_cuts() {
    let place = Place::new();
    let (summary, shape) = summary(pixels("wide.png", &[]), &place);
    let expected = image::open(repository().join("tests/fixtures/images/wide.png.tiles.png")).expect("PNG").into_rgb8();
    let count = i64::from(expected.height() / 14);
    // 70 x 15 in tiles of side 14: the ratio nearest to 4.67 is 5 x 1; the thumbnail is the sixth
    // tile.
    assert_eq!(summary, json!({"width": 70, "height": 15, "columns": 5, "rows": 1, "tiles": 6}));
    assert_eq!((count, shape), (6, vec![6, 3, 14, 14]));
    let found = &Tensor::read_safetensors(place.path("out.safetensors")).expect("safetensors")[0].1;
    // Undoing ImageNet's mean and deviation gives the bytes of the reference.
    let column = |values: [f64; 3]| Tensor::from_slice(&values).view([3, 1, 1]);
    let bytes = (found * column([0.229, 0.224, 0.225]) + column([0.485, 0.456, 0.406])) * 255.0;
    let expected = Tensor::from_slice(expected.as_raw()).view([count, 14, 14, 3]).permute([0, 3, 1, 2]);
    let worst = (bytes - expected).abs().max().double_value(&[]);
    assert!(worst < 1e-3, "{worst} of 255");
}

#[test]
fn pixels_follow_their_flags() {
    let place = Place::new();
    assert_eq!(summary(pixels("wide.png", &["--no-thumbnail"]), &place).1, [5, 3, 14, 14]);
    // 3 x 1 and the thumbnail.
    assert_eq!(summary(pixels("wide.png", &["--max-tiles", "3"]), &place).1, [4, 3, 14, 14]);
    assert_eq!(summary(pixels("wide.png", &["--max-tiles", "1"]), &place).1, [1, 3, 14, 14]);
    assert_eq!(summary(pixels("dot.png", &["--tile-size", "28"]), &place).1, [1, 3, 28, 28]);
}

#[test]
fn pixels_of_what_is_no_picture_are_refused_by_name() {
    let place = Place::new();
    place.write("part.gif", "GIF89a");
    let command = |image: &str| ["data", "pixels", "--output", "o", "--image", image].map(str::to_owned);
    place.cadwright(command("part.gif")).fails_with(&["part.gif", "it is Gif", "give PNG, JPEG or WebP"]);
    place.cadwright(command("nowhere.png")).fails_with(&["cannot read nowhere.png"]);
    let error = place.cadwright(pixels("dot.png", &["--max-tiles", "0"])).fails().error();
    assert!(error.contains("--max-tiles") && error.contains("1..=64"), "{error}");
    assert!(!place.path("o").exists() && !place.path("out.safetensors").exists());
}
