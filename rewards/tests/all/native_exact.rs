//! Bounds, volumes, numbers of solids and IoU of the native engine, for shapes on which sampling on
//! rasters and quadrature had errors. The expected numbers come from CadQuery (volume, bounding
//! box, booleans) or from the arithmetic beside them.

use std::sync::Arc;

use cadwright_rewards::native::execute;
use cadwright_rewards::{Frame, Solid, frame_iou};

fn solid(program: &str) -> Arc<Solid> {
    let outcome = execute(program).unwrap_or_else(|decline| panic!("{decline}\n{program}"));
    outcome.solid().unwrap_or_else(|| panic!("{:?}\n{program}", outcome.error())).clone()
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} instead of {expected}");
}

const PLATE: &str = "result = cq.Workplane('XY').box(100, 100, 4)\
    .cut(cq.Workplane('XY').circle(5).extrude(9, both=True))\n";

#[test]
fn thin_walls_count_for_the_bounds() {
    let walled = format!("{PLATE}result = result.union(cq.Workplane('XY').rect(100, 100).rect(99, 99).extrude(50))\n");
    let (walled, plate) = (solid(&walled), solid(PLATE));
    assert_eq!((walled.bounds().min, walled.bounds().max), ([-50.0, -50.0, -2.0], [50.0, 50.0, 50.0]));
    // The plate: 10^4 x 4 - 25 pi x 4. The walls above it: (10^4 - 99^2) x 48.
    let plate_volume = 4.0 * (1e4 - 25.0 * std::f64::consts::PI);
    close(plate.mass().volume, plate_volume, 1e-6);
    close(walled.mass().volume, plate_volume + 199.0 * 48.0, 1e-6);
    let iou = frame_iou(Frame::Canonical, 96, &plate, &walled);
    close(iou, plate_volume / (plate_volume + 199.0 * 48.0), 0.015);
}

#[test]
fn a_thin_pin_ends_the_part() {
    let program = "r = cq.Workplane('XY').box(100, 60, 5).faces('>Z').workplane()\n\
        r = r.pushPoints([(40, 20), (-40, -20)]).hole(4)\n\
        r = r.faces('>Z').workplane().circle(0.75).extrude(30)\n\
        result = r.faces('>Z').workplane().circle(10).extrude(8)\n";
    // The boss stands on the pin: 2.5 + 30 + 8.
    close(solid(program).bounds().max[2], 40.5, 1e-9);
}

#[test]
fn rims_of_turned_cylinders_count_for_the_bounds() {
    let program = "result = cq.Workplane('XY').cylinder(20, 10).faces('>Z').workplane().hole(4)\
        .rotate((0, 0, 0), (1, 0, 0), 30)\n";
    let bounds = *solid(program).bounds();
    // Half the height and the radius, tilted by 30 degrees.
    let (sin, cos) = 30f64.to_radians().sin_cos();
    for (found, expected) in bounds.max.into_iter().zip([10.0, 10.0 * cos + 10.0 * sin, 10.0 * cos + 10.0 * sin]) {
        close(found, expected, 1e-9);
    }
}

#[test]
fn cut_thru_all_reaches_as_far_as_the_body_is_long() {
    let box_and_cut = |offset: f64| {
        solid(&format!(
            "result = cq.Workplane().box(10, 10, 40).faces('>Z').workplane(offset={offset}).rect(3, 3).cutThruAll()\n"
        ))
    };
    // 40 down from 5 above: 35 deep.
    close(box_and_cut(5.0).mass().volume, 4000.0 - 9.0 * 35.0, 1e-4);
    close(box_and_cut(41.0).mass().volume, 4000.0, 1e-9);
    close(box_and_cut(0.0).mass().volume, 4000.0 - 9.0 * 40.0, 1e-9);
}

#[test]
fn two_triangles_share_what_clipping_says() {
    let program = "result = cq.Workplane('XY').moveTo(0.553, -0.499).lineTo(0.016, 0.771).lineTo(-0.932, -0.453).close()\
        .extrude(1).intersect(cq.Workplane('XY').moveTo(-0.359, -0.592).lineTo(-0.165, -1.098).lineTo(0.341, -0.4)\
        .close().extrude(1))\n";
    let mass = *solid(program).mass();
    let (area, centroid) = clipped(
        &[[0.553, -0.499], [0.016, 0.771], [-0.932, -0.453]],
        &[[-0.359, -0.592], [-0.165, -1.098], [0.341, -0.4]],
    );
    close(mass.volume, area, 1e-12);
    close(mass.centroid[0], centroid[0], 1e-10);
    close(mass.centroid[1], centroid[1], 1e-10);
}

/// Area and centroid of the intersection of two counter-clockwise convex polygons (Sutherland and
/// Hodgman 1974, shoelace formula).
fn clipped(subject: &[[f64; 2]], clip: &[[f64; 2]]) -> (f64, [f64; 2]) {
    let side = |a: [f64; 2], b: [f64; 2], p: [f64; 2]| (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]);
    let mut polygon = subject.to_vec();
    for k in 0..clip.len() {
        let (a, b) = (clip[k], clip[(k + 1) % clip.len()]);
        let input = std::mem::take(&mut polygon);
        for i in 0..input.len() {
            let (p, q) = (input[i], input[(i + 1) % input.len()]);
            let (s, t) = (side(a, b, p), side(a, b, q));
            if s >= 0.0 {
                polygon.push(p);
            }
            if (s >= 0.0) != (t >= 0.0) {
                let share = s / (s - t);
                polygon.push([p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])]);
            }
        }
    }
    let (mut area, mut moment) = (0.0, [0.0; 2]);
    for i in 0..polygon.len() {
        let (p, q) = (polygon[i], polygon[(i + 1) % polygon.len()]);
        let cross = p[0] * q[1] - q[0] * p[1];
        area += cross / 2.0;
        moment[0] += (p[0] + q[0]) * cross / 6.0;
        moment[1] += (p[1] + q[1]) * cross / 6.0;
    }
    (area, [moment[0] / area, moment[1] / area])
}

#[test]
fn necks_join_and_gaps_part() {
    // Two blocks joined by a neck of 0.001; the same with a gap of 0.001, tilted.
    let joined = "result = cq.Workplane().box(1, 1, 1).union(cq.Workplane().box(2, 0.001, 1).translate((1, 0, 0)))\
        .union(cq.Workplane().box(1, 1, 1).translate((2, 0, 0)))\n";
    assert_eq!(solid(joined).solids(), Some(1));
    let parted = "result = cq.Workplane().box(4, 1, 1)\
        .cut(cq.Workplane().box(0.001, 9, 9).rotate((0, 0, 0), (0, 0, 1), 40))\n";
    assert_eq!(solid(parted).solids(), Some(2));
    // Blocks that touch along an edge count as two.
    let touching = "result = cq.Workplane().rect(1, 1).extrude(1)\
        .union(cq.Workplane().center(1, 1).rect(1, 1).extrude(1))\n";
    assert_eq!(solid(touching).solids(), Some(2));
    // For leaves along several axes the engine returns no count.
    let drilled = "result = cq.Workplane().box(1, 1, 1).cut(cq.Workplane('YZ').circle(0.2).extrude(5, both=True))\n";
    assert_eq!(solid(drilled).solids(), None);
}

#[test]
fn drilled_along_three_axes() {
    // Cylinders of radius 1 along z, 0.9 along x and 0.5 along y, cut out of a cube of edge 4. The
    // volume comes from CadQuery.
    let program = "result = cq.Workplane().box(4, 4, 4)\n\
        result = result.cut(cq.Workplane('XY').circle(1.0).extrude(5, both=True))\n\
        result = result.cut(cq.Workplane('YZ').circle(0.9).extrude(5, both=True))\n\
        result = result.cut(cq.Workplane('XZ').circle(0.5).extrude(5, both=True))\n";
    let part = solid(program);
    assert!(part.is_mass_certain());
    close(part.mass().volume, DRILLED, 1e-3 * DRILLED);
    assert_eq!((part.bounds().min, part.bounds().max), ([-2.0; 3], [2.0; 3]));
}

/// CadQuery 2.8's `val().Volume()` of the program above.
const DRILLED: f64 = 44.133_981_6;

#[test]
fn a_far_sliver_counts_in_full() {
    // A unit cube, and the same cube with a wedge that extends to 10,000.
    let cube = "result = cq.Workplane().box(1, 1, 1)\n";
    let wedge = "result = cq.Workplane().box(1, 1, 1).union(cq.Workplane('XY').moveTo(0, 0).lineTo(10000, 0)\
        .lineTo(0, 0.4).close().extrude(3e-4))\n";
    let (cube, wedge) = (solid(cube), solid(wedge));
    let exact = 1.0 / wedge.mass().volume;
    close(frame_iou(Frame::Canonical, 64, &wedge, &cube), exact, 0.01);
    close(frame_iou(Frame::Canonical, 64, &cube, &wedge), exact, 0.01);
    // The wedge: 10^4 x 0.4 / 2 x 3e-4 = 0.6. The cube contains the part below x = 0.5.
    let within = (0.5 * 0.4 - 0.5 * 0.5 * 0.5 * 0.4 / 1e4) * 3e-4;
    close(wedge.mass().volume, 1.6 - within, 1e-9);
}

#[test]
fn a_name_bound_in_the_iterable_of_a_comprehension_is_handed_on() {
    // CPython refuses it at compile time, anywhere in the iterable.
    for program in ["x = [a for a in (b := [1])]\n", "x = [a for a in [c for c in [(b := 1)]]]\n"] {
        assert!(execute(program).is_err(), "{program}");
    }
}
