//! Properties of the score. `cheats` says what one picture cannot tell.

mod cheats;
mod disturbed;

use std::sync::Arc;

use cadwright_rewards::samples::{block_mass, block_mesh};
use cadwright_rewards::{MassProperties, Mesh, Outcome, Solid, native};
use image::{Rgb, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::map::Map;
use super::*;

/// The solid of an expression for `solid`, built natively.
fn build(expression: &str) -> Arc<Solid> {
    let program = format!("import cadquery as cq\nsolid = {expression}\n");
    match native::execute(&program) {
        Ok(Outcome::Solid(solid)) => solid,
        other => panic!("{program}: {other:?}"),
    }
}

/// The picture of a solid in one view, as the data set draws it.
fn picture(solid: &Solid, view: View, size: u32) -> RgbImage {
    draw(solid, view, Placement::IDENTITY, size).to_picture(size)
}

/// A look at the picture of a solid in the data set's view.
fn look_at(solid: &Solid) -> Look {
    Look::new(&[picture(solid, View::isometric(), 112)], &LookOptions::default())
}

fn all_views() -> Vec<View> {
    View::corners().into_iter().chain(View::axes()).collect()
}

/// Parts without symmetries, of flat and of round faces.
const PARTS: [&str; 5] = [
    "cq.Workplane().box(4, 3, 1).cut(cq.Workplane().center(1, 0.5).circle(0.6).extrude(4, both=True))",
    "cq.Workplane().box(2, 1, 3).union(cq.Workplane().center(0.2, 0.1).circle(0.3).extrude(2.2))",
    "cq.Workplane().moveTo(0, 0).lineTo(3, 0).lineTo(3, 1).lineTo(1, 1).lineTo(1, 2.5).lineTo(0, 2.5).close().extrude(1.5)",
    "cq.Workplane().circle(1).extrude(2).union(cq.Workplane().box(3, 0.8, 0.5).translate((0.9, 0, 0)))",
    "cq.Workplane().box(3, 2, 1).union(cq.Workplane().box(1, 1.2, 1).translate((0.7, -0.3, 1)))\
     .cut(cq.Workplane().box(0.5, 4, 0.4).translate((-0.8, 0, 0.4)))",
];

#[test]
fn the_same_solid_scores_one_in_every_view_and_size() {
    for part in PARTS {
        let solid = build(part);
        for (index, view) in all_views().into_iter().enumerate() {
            let size = [112, 224, 448][index % 3];
            let options = LookOptions { views: vec![view], ..LookOptions::default() };
            let look = Look::new(&[picture(&solid, view, size)], &options);
            let found = look.score(&solid);
            // At other sizes the picture is rounded to 8 bits before it is averaged.
            let least = if size == 112 { 1.0 - 1e-9 } else { 0.999 };
            assert!(found.score >= least && found.score <= 1.0, "{part} {view:?} {size}: {found:?}");
            assert_eq!(look.render(&solid), picture(&solid, view, size), "{part} {view:?}");
            assert!(look.differences(&solid).is_empty());
        }
    }
}

#[test]
fn a_mesh_of_the_same_solid_scores_nearly_one() {
    let (low, high) = ([-1.0, -0.5, 0.0], [1.0, 0.5, 0.7]);
    let meshed = Solid::meshed(block_mass(low, high), block_mesh(low, high), 1, false);
    let solid = build("cq.Workplane().box(2, 1, 0.7).translate((0, 0, 0.35))");
    for view in all_views() {
        let options = LookOptions { views: vec![view], ..LookOptions::default() };
        for (a, b) in [(&*solid, &meshed), (&meshed, &*solid)] {
            let found = Look::new(&[picture(a, view, 112)], &options).score(b);
            println!("{}: {:.4} {:.4}", view.name(), found.score, found.edges);
            assert!(found.score > 0.97, "{view:?}: {found:?}");
        }
    }
}

#[test]
fn the_score_falls_as_an_error_grows() {
    // By name: the part, with a number to change, and the number's values from right to wrong.
    type Edit<'a> = (&'a str, &'a dyn Fn(f64) -> String, [f64; 5]);
    let edits: [Edit; 6] = [
        ("length", &|x| format!("cq.Workplane().box({x:?}, 2, 1)"), [4.0, 4.2, 4.6, 5.4, 7.0]),
        ("height", &|x| format!("cq.Workplane().box(4, 2, {x:?})"), [1.0, 0.95, 0.8, 0.6, 0.3]),
        (
            "radius of a hole",
            &|x| format!("cq.Workplane().box(4, 3, 1).cut(cq.Workplane().circle({x:?}).extrude(4, both=True))"),
            [0.6, 0.7, 0.8, 1.0, 1.3],
        ),
        (
            "place of a hole",
            &|x| {
                format!(
                    "cq.Workplane().box(4, 3, 1).cut(cq.Workplane().center({x:?}, 0).circle(0.4).extrude(4, both=True))"
                )
            },
            [0.0, 0.1, 0.25, 0.5, 0.8],
        ),
        (
            "height of a boss",
            &|x| format!("cq.Workplane().box(4, 3, 1).union(cq.Workplane().circle(0.8).extrude({x:?}))"),
            [1.5, 1.6, 1.9, 2.4, 4.0],
        ),
        (
            "depth of a step",
            &|x| format!("cq.Workplane().box(4, 3, 2).cut(cq.Workplane().box(2, 9, 2).translate((2, 0, 2 - {x:?})))"),
            [0.5, 0.6, 0.8, 1.2, 1.8],
        ),
    ];
    for (name, part, values) in edits {
        let look = look_at(&build(&part(values[0])));
        let scores = values.map(|value| look.score(&build(&part(value))).score);
        println!("{name}: {scores:.4?}");
        assert!((scores[0] - 1.0).abs() < 1e-9, "{name}: {scores:?}");
        assert!(scores[1] < 0.995, "{name}: {scores:?}");
        assert!(scores.windows(2).all(|pair| pair[0] > pair[1]), "{name}: {scores:?}");
    }
}

#[test]
fn the_view_is_found_among_candidates() {
    let solid = build(PARTS[4]);
    let options = LookOptions { views: all_views(), ..LookOptions::default() };
    for view in [View::isometric(), View::corners()[3], View::corners()[6], View::axes()[0], View::axes()[4]] {
        let found = Look::new(&[picture(&solid, view, 112)], &options).score(&solid);
        assert_eq!((found.pictures[0].view, found.score > 0.999), (view, true), "{found:?}");
    }
}

#[test]
fn differences_are_told() {
    let look = look_at(&build("cq.Workplane().box(2, 2, 4)"));
    let told = |part: &str| look.differences(&build(part)).iter().map(ToString::to_string).collect::<Vec<_>>();
    // Framed automatically, both are equally high: the wide one is too wide at both sides.
    let wide = told("cq.Workplane().box(3, 3, 4)");
    assert!(wide.iter().any(|text| text.starts_with("too wide at the left by")), "{wide:?}");
    assert!(wide.iter().any(|text| text.starts_with("too wide at the right by")), "{wide:?}");
    let narrow = told("cq.Workplane().box(1, 1, 4)");
    assert!(narrow.iter().any(|text| text.starts_with("too narrow at the left by")), "{narrow:?}");
}

#[test]
fn nothing_to_see_scores_zero_and_breaks_nothing() {
    let solid = build(PARTS[0]);
    let one = |picture: RgbImage| Look::new(&[picture], &LookOptions::default());
    for level in [0, 90, 255] {
        let look = one(RgbImage::from_pixel(112, 112, Rgb([level; 3])));
        assert_eq!(look.score(&solid).score, 0.0, "{level}");
        assert!(look.differences(&solid).is_empty());
    }
    for (width, height) in [(0, 0), (1, 1), (3, 200), (113, 57)] {
        let look = one(RgbImage::from_pixel(width, height, Rgb([255; 3])));
        assert_eq!(look.score(&solid).score, 0.0);
        assert_eq!(look.render(&solid).width(), width.max(height).max(1));
    }
    assert_eq!(Look::new(&[], &LookOptions::default()).score(&solid), ImageScore::default());

    let look = look_at(&solid);
    let nothing = Solid::meshed(MassProperties::NOTHING, Mesh::default(), 0, false);
    let (low, high) = ([0.0; 3], [1.0, 1.0, 0.0]);
    let sheet = Solid::meshed(block_mass(low, high), block_mesh(low, high), 1, false);
    let endless = block_mesh([0.0; 3], [1.0, 1.0, f64::INFINITY]);
    let endless = Solid::meshed(block_mass([0.0; 3], [1.0; 3]), endless, 1, false);
    // A cube whose kernel says that it holds nothing.
    let hollow = Solid::meshed(MassProperties::NOTHING, block_mesh([0.0; 3], [1.0; 3]), 1, false);
    for solid in [nothing, sheet, endless, hollow] {
        assert_eq!(look.score(&solid).score, 0.0, "{solid:?}");
        assert!(look.render(&solid).pixels().all(|pixel| pixel.0 == [255; 3]));
    }
}

#[test]
fn random_pictures_and_solids_give_scores() {
    let mut dice = ChaCha8Rng::seed_from_u64(7);
    for round in 0..40 {
        let (width, height) = (dice.random_range(1..300), dice.random_range(1..300));
        let picture = match round % 2 {
            0 => RgbImage::from_fn(width, height, |_, _| Rgb([dice.random(), dice.random(), dice.random()])),
            _ => {
                let (x, y, size) =
                    (dice.random_range(0..width), dice.random_range(0..height), dice.random_range(1..90));
                let dark = dice.random_range(0..200);
                RgbImage::from_fn(width, height, |u, v| {
                    Rgb([if u.abs_diff(x) < size && v.abs_diff(y) < size { dark } else { 230 }; 3])
                })
            }
        };
        let options =
            LookOptions { views: vec![all_views()[round % 14]], fit: round % 3 > 0, ..LookOptions::default() };
        let look = Look::new(&[picture], &options);
        let mut size = || dice.random_range(-3.0f64..3.0).exp();
        let solid = build(&format!(
            "cq.Workplane().box({:?}, {:?}, {:?}).union(cq.Workplane().circle({:?}).extrude({:?}))",
            size(),
            size(),
            size(),
            size(),
            size()
        ));
        let found = look.score(&solid);
        for part in [found.score, found.silhouette, found.edges, found.shading] {
            assert!((0.0..=1.0).contains(&part), "{found:?}");
        }
        assert_eq!(look.score(&solid), found, "the score is a pure function");
        look.differences(&solid);
        look.render(&solid);
    }
}

#[test]
fn the_score_is_of_the_solid_alone() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Look>();
    // Position and size are not in the picture.
    let look = look_at(&build(PARTS[1]));
    let moved = build(&format!("({}).translate((5, -3, 2))", PARTS[1]));
    assert!(look.score(&moved).score > 0.98);
    let solid = build(PARTS[1]);
    let again = Solid::clone(&solid);
    assert_eq!(look.score(&again), look.score(&solid));
}
