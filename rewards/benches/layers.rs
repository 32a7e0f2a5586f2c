//! Measures the cost of each layer of the native engine: `cargo bench -p cadwright-rewards`.
//!
//! The parts differ in their numbers of operations and edges, the grids in their number of cells.

use std::hint::black_box;

use cadwright_rewards::native::{execute, python};
use cadwright_rewards::{Frame, Geometry, Grid, GridSpec, Pose, Solid, frame_iou, iou, rasterise};
use divan::Bencher;

fn main() {
    divan::main();
}

/// Programs in GenCAD-Code's dialect, named by their content.
const PARTS: [&str; 4] =
    ["1 operation, 4 edges", "3 operations, 10 edges", "8 operations, 32 edges", "1 operation, 64 edges"];
const CELLS: [usize; 3] = [32, 64, 128];

/// Sketch number `index` at `(x, y, z)`, extruded and combined with the existing solid.
fn sketch(index: usize, x: f64, y: f64, z: f64, loops: &[String], height: f64, combine: &str) -> String {
    let mut text = format!(
        "# Generating a workplane for sketch {index}\nwp_sketch{index} = cq.Workplane(cq.Plane(cq.Vector({x:?}, {y:?}, {z:?}), \
         cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.0, 1.0)))\n"
    );
    let mut adds = String::new();
    for (number, outline) in loops.iter().enumerate() {
        text += &format!("loop{index}_{number}=wp_sketch{index}{outline}\n");
        adds += &format!(".add(loop{index}_{number})");
    }
    text + &format!("solid{index}=wp_sketch{index}{adds}.extrude({height:?})\nsolid={combine}\n")
}

fn rectangle(width: f64, height: f64) -> String {
    format!(".moveTo({width:?}, 0.0).lineTo({width:?}, {height:?}).lineTo(0.0, {height:?}).lineTo(0.0, 0.0).close()")
}

fn circle(x: f64, y: f64, radius: f64) -> String {
    format!(".moveTo({x:?}, {y:?}).circle({radius:?})")
}

fn program(part: &str) -> String {
    let head = "import cadquery as cq\n".to_owned();
    let base = |loops: &[String]| sketch(0, -0.75, -0.5, 0.0, loops, 0.25, "solid0");
    match part {
        "1 operation, 4 edges" => head + &base(&[rectangle(1.5, 1.0)]),
        "3 operations, 10 edges" => {
            let plate = base(&[rectangle(1.5, 1.0), circle(0.25, 0.25, 0.125)]);
            let boss = sketch(1, 0.0, 0.0, 0.25, &[circle(0.0, 0.0, 0.25)], 0.5, "solid.union(solid1)");
            head + &plate + &boss + &sketch(2, -0.5, -0.25, -0.125, &[rectangle(0.25, 0.125)], 1.0, "solid.cut(solid2)")
        }
        "8 operations, 32 edges" => (1..8usize).fold(head + &base(&[rectangle(1.5, 1.0)]), |text, k| {
            let x = -0.75 + 0.1875 * k as f64;
            let combine =
                if k.is_multiple_of(2) { format!("solid.cut(solid{k})") } else { format!("solid.union(solid{k})") };
            text + &sketch(k, x, -0.3, 0.125, &[rectangle(0.11, 0.57)], 0.375, &combine)
        }),
        _ => {
            let corner = |k: usize| {
                let (angle, radius) =
                    (k as f64 * std::f64::consts::TAU / 64.0, if k.is_multiple_of(2) { 0.7 } else { 0.6 });
                format!("{:?}, {:?}", radius * angle.cos(), radius * angle.sin())
            };
            let lines: String = (1..64).map(|k| format!(".lineTo({})", corner(k))).collect();
            head + &base(&[format!(".moveTo({}){lines}.close()", corner(0))])
        }
    }
}

fn solid(part: &str) -> Solid {
    let outcome = execute(&program(part)).unwrap_or_else(|decline| panic!("{part}: {decline}"));
    let solid = outcome.solid().unwrap_or_else(|| panic!("{part}: {:?}", outcome.error()));
    (**solid).clone()
}

fn raster(solid: &Solid, cells: usize) -> Grid {
    let bounds = *solid.bounds();
    let Geometry::Csg(tree) = &solid.geometry else { unreachable!("the native engine makes trees") };
    rasterise(tree, &Pose::identity(), &GridSpec::spanning(cells, &bounds, &bounds))
}

#[divan::bench(args = PARTS)]
fn parse(bencher: Bencher, part: &str) {
    let text = program(part);
    bencher.bench(|| python::compiles(black_box(&text)).is_ok());
}

#[divan::bench(args = PARTS)]
fn parse_and_interpret(bencher: Bencher, part: &str) {
    let text = program(part);
    bencher.bench(|| execute(black_box(&text)).is_ok());
}

#[divan::bench(args = PARTS, consts = CELLS)]
fn rasterise_one<const N: usize>(bencher: Bencher, part: &str) {
    let solid = solid(part);
    bencher.bench(|| raster(black_box(&solid), N));
}

#[divan::bench(consts = CELLS)]
fn iou_of_grids<const N: usize>(bencher: Bencher) {
    let [a, b] = [PARTS[1], PARTS[2]].map(|part| raster(&solid(part), N));
    bencher.bench(|| iou(black_box(&a), black_box(&b)));
}

#[divan::bench(consts = CELLS)]
fn frame_iou_canonical<const N: usize>(bencher: Bencher) {
    let [a, b] = [PARTS[1], PARTS[2]].map(solid);
    bencher.bench(|| frame_iou(Frame::Canonical, N, black_box(&a), black_box(&b)));
}

#[divan::bench]
fn frame_iou_aligned_64(bencher: Bencher) {
    let [a, b] = [PARTS[1], PARTS[2]].map(solid);
    bencher.bench(|| frame_iou(Frame::Aligned, 64, black_box(&a), black_box(&b)));
}

#[divan::bench(args = PARTS)]
fn mass_properties(bencher: Bencher, part: &str) {
    let solid = solid(part);
    let Geometry::Csg(tree) = &solid.geometry else { unreachable!("the native engine makes trees") };
    bencher.bench(|| *Solid::native(black_box(tree).clone(), false).mass());
}
