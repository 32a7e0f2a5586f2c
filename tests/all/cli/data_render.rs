//! `cadwright data render`: pictures of shapes.

use std::fs;
use std::path::Path;

use cadwright_rewards::samples::block_mesh;
use cadwright_rewards::write_stl;
use cadwright_rollout::{Scorer, ScorerConfig};
use image::RgbImage;
use serde_json::{Value, json};

use crate::harness::{Finished, Place, bytes, python};

/// A block of 4 x 2 x 1 as a program.
const BLOCK: &str = "import cadquery as cq\nsolid = cq.Workplane().box(4, 2, 1)\n";
/// A plate with a hole, as a program that only CadQuery executes: the native engine knows no threads
/// of Python.
const PLATE: &str =
    "import math\nimport functools\nsolid = cq.Workplane().box(4, 4, 1).faces('>Z').workplane().hole(2)\n";

/// A block that is centred at the origin, as text.
fn ascii_stl(low: [f64; 3], high: [f64; 3]) -> String {
    let mesh = block_mesh(low, high);
    let facet = |triangle: &[u32; 3]| {
        let vertex = |index: &u32| {
            let [x, y, z] = mesh.vertices[*index as usize];
            format!("vertex {x} {y} {z}\n")
        };
        format!(
            "facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n",
            triangle.iter().map(vertex).collect::<String>()
        )
    };
    format!("solid block\n{}endsolid block\n", mesh.triangles.iter().map(facet).collect::<String>())
}

/// A folder of shapes: the block in every form, and a file that is none.
fn shapes(place: &Place) {
    fs::create_dir_all(place.path("shapes/more")).unwrap();
    let (low, high) = ([-2.0, -1.0, -0.5], [2.0, 1.0, 0.5]);
    fs::write(place.path("shapes/binary.stl"), write_stl(&block_mesh(low, high))).unwrap();
    place.write("shapes/text.stl", &ascii_stl(low, high));
    place.write("shapes/program.py", BLOCK);
    place.write("shapes/more/broken.stl", "solid nothing\nendsolid\n");
    place.write("shapes/more/wrong.py", "solid = cq.Workplane().box(1, 1\n");
    place.write("shapes/notes.txt", "not a shape");
    let scorer = Scorer::new(ScorerConfig { python: Some(python()), ..ScorerConfig::default() }).unwrap();
    let exported = scorer.export(PLATE).unwrap().unwrap();
    fs::write(place.path("shapes/plate.step"), exported.step).unwrap();
}

fn render(place: &Place, more: &[&str]) -> Finished {
    let arguments = ["data", "render", "--input", "shapes"].iter().chain(more);
    place.cadwright(arguments.map(ToString::to_string)).succeeds()
}

fn summary(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout()).unwrap_or_else(|error| panic!("{error}\n{finished}"))
}

fn picture(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_rgb8()
}

/// Mean difference of two pictures, of 255.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.as_raw().len() as f64
}

/// The files below a directory, with their content.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content)));
        } else {
            found.push((name, bytes(&path)));
        }
    }
    found.sort();
    found
}

#[test]
fn shapes_of_every_form_are_drawn_and_bad_ones_are_counted_and_named() {
    let place = Place::new();
    shapes(&place);
    let finished = render(&place, &["--output", "out", "--views", "front,iso", "--size", "112"]);
    let summary = summary(&finished);
    assert_eq!((&summary["shapes"], &summary["pictures"]), (&json!(6), &json!(8)), "{finished}");
    let failed: Vec<&str> =
        summary["failures"].as_array().unwrap().iter().filter_map(|f| f["shape"].as_str()).collect();
    assert_eq!(failed, ["shapes/more/broken.stl", "shapes/more/wrong.py"]);
    assert_eq!(summary["failed"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(), 2);
    assert_eq!(summary["failed"]["syntax"], 1, "{finished}");
    let stderr = finished.stderr();
    assert!(stderr.contains("shapes/more/broken.stl: ") && stderr.contains("0 triangles"), "{finished}");
    let names: Vec<String> = files(&place.path("out")).into_iter().map(|(name, _)| name).collect();
    let expected =
        ["binary", "plate", "program", "text"].map(|stem| [format!("{stem}_front.png"), format!("{stem}_iso.png")]);
    assert_eq!(names, expected.concat());
    // The block looks the same in every form.
    for view in ["front", "iso"] {
        let of = |stem: &str| picture(&place.path(&format!("out/{stem}_{view}.png")));
        assert_eq!(of("binary"), of("text"));
        assert!(difference(&of("binary"), &of("program")) < 2.0, "{view}");
    }
    // Seen from the front, the plate hides its hole; the data set's view shows it.
    let dark = |stem: &str| picture(&place.path(stem)).pixels().filter(|pixel| pixel.0[0] < 110).count();
    assert!(dark("out/plate_iso.png") > dark("out/plate_front.png"));
    // No line runs between the triangles of a side: as many pixels are black.
    render(&place, &["--output", "large"]);
    let black = |stem: &str| picture(&place.path(stem)).pixels().filter(|pixel| pixel.0[0] < 60).count() as f64;
    let ratio = black("large/binary.png") / black("large/program.png");
    assert!((ratio - 1.0).abs() < 0.1, "{ratio} times the pixels of lines");

    // The same bytes on one thread.
    render(&place, &["--output", "again", "--views", "front,iso", "--size", "112", "--jobs", "1"]);
    assert!(files(&place.path("out")) == files(&place.path("again")), "pictures differ from run to run");
}

#[test]
fn cadrille_shows_four_framed_views_of_every_form() {
    let place = Place::new();
    shapes(&place);
    let finished = render(&place, &["--output", "out", "--style", "cadrille"]);
    assert_eq!(summary(&finished)["pictures"], 4, "{finished}");
    let of = |stem: &str| picture(&place.path(&format!("out/{stem}.png")));
    for stem in ["binary", "plate", "program", "text"] {
        let picture = of(stem);
        assert_eq!(picture.dimensions(), (268, 268));
        // Frames are black, a pixel in the middle of each view is yellow.
        assert_eq!((picture.get_pixel(1, 1).0, picture.get_pixel(133, 134).0), ([0; 3], [0; 3]), "{stem}");
    }
    // CadQuery's triangles of a block are those of the file, up to the diagonals of its sides.
    assert!(difference(&of("binary"), &of("program")) < 0.5);
}

#[test]
fn the_grid_is_one_picture_and_a_single_file_may_be_named() {
    let place = Place::new();
    shapes(&place);
    let arguments = ["data", "render", "--input", "shapes/binary.stl", "--output", "part.png"];
    place.cadwright(arguments).succeeds();
    assert_eq!(picture(&place.path("part.png")).dimensions(), (448, 448));
    place.cadwright([&arguments[..], &["--views", "grid2x2", "--size", "100"]].concat()).succeeds();
    let grid = picture(&place.path("part.png"));
    assert_eq!(grid.dimensions(), (100, 100));
    place.cadwright([&arguments[..], &["--views", "iso", "--size", "50"]].concat()).succeeds();
    let iso = picture(&place.path("part.png"));
    assert_eq!(image::imageops::crop_imm(&grid, 50, 50, 50, 50).to_image(), iso);
}

#[test]
fn what_cannot_be_drawn_is_refused_with_the_reason() {
    let place = Place::new();
    fs::create_dir(place.path("shapes")).unwrap();
    place.write("shapes/a.txt", "");
    let run = |more: &[&str]| {
        let arguments = ["data", "render", "--output", "out"].iter().chain(more);
        place.cadwright(arguments.map(ToString::to_string))
    };
    run(&["--input", "shapes"]).fails_with(&["shapes has no shapes", "found 1 others"]);
    run(&["--input", "nowhere.stl"]).fails_with(&["cannot read nowhere.stl"]);
    place.write("shapes/bad.stl", "solid\nvertex 1 2\n");
    let input = ["--input", "shapes/bad.stl"];
    let with = |more: &[&str]| run(&[&input[..], more].concat());
    with(&["--views", "sideways"]).fails_with(&["view \"sideways\" is unknown", "expected iso"]);
    with(&["--views", "top,top"]).fails_with(&["view top is named twice"]);
    with(&["--style", "cadrille", "--views", "iso"]).fails_with(&["--style cadrille", "grid2x2"]);
    with(&["--views", "grid2x2", "--size", "101"]).fails_with(&["--size 101", "must be even"]);
    let single = ["data", "render", "--input", "shapes/bad.stl", "--output", "a.png", "--views", "top,iso"];
    place.cadwright(single).fails_with(&["--output a.png is one file", "2 pictures", "give a directory"]);
    let finished = with(&[]).fails();
    assert!(finished.error().contains("none of 1 shapes could be drawn"), "{finished}");
    assert!(finished.stderr().contains("three numbers after"), "{finished}");
    assert!(!place.path("out").exists());
}
