//! Compares the IoU on the grid with the IoU of exact volumes, for solids of the native engine.

use cadwright_rewards::csg::{CsgSolid, Operation};
use cadwright_rewards::native::execute;
use cadwright_rewards::{Frame, Geometry, Solid, frame_iou};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn solid(program: &str) -> std::sync::Arc<Solid> {
    let outcome = execute(program).unwrap_or_else(|decline| panic!("{decline}\n{program}"));
    outcome.solid().unwrap_or_else(|| panic!("{:?}\n{program}", outcome.error())).clone()
}

fn tree(solid: &Solid) -> CsgSolid {
    match &solid.geometry {
        Geometry::Csg(tree) => tree.clone(),
        Geometry::Mesh(_) => panic!("the native engine makes no meshes"),
    }
}

/// `|A and B| / (|A| + |B| - |A and B|)` from volumes.
fn exact(a: &Solid, b: &Solid) -> f64 {
    let common = tree(a).combine(Operation::Intersect, tree(b)).volume();
    common / (a.mass().volume + b.mass().volume - common)
}

/// A drilled plate of a given thickness with a rounded boss, slightly different each time.
fn plate(rng: &mut ChaCha8Rng, thickness: f64, plane: &str) -> String {
    let mut near = |value: f64| value * rng.random_range(0.9..1.1);
    format!(
        "solid = cq.Workplane('{plane}').rect({}, {}).moveTo({}, {}).circle({}).extrude({})\n\
         solid = solid.union(cq.Workplane('{plane}').moveTo({}, {}).slot2D({}, {}, {}).extrude({}))\n",
        near(1.0),
        near(0.8),
        near(0.2),
        near(0.1),
        near(0.15),
        near(thickness),
        near(-0.2),
        near(-0.1),
        near(0.4),
        near(0.2),
        near(30.0),
        near(2.0 * thickness),
    )
}

/// Thin walls that span all three axes: an angle of two sheets, a tube, a tilted plate. Each is
/// slightly different.
fn wall(rng: &mut ChaCha8Rng, thickness: f64, kind: &str) -> String {
    let mut near = |value: f64| value * rng.random_range(0.98..1.02);
    let (width, height, wall) = (near(1.0), near(0.8), near(thickness));
    match kind {
        "XY" => format!(
            "solid = cq.Workplane().box({width}, {height}, {wall}, centered=False)\n\
             solid = solid.union(cq.Workplane().box({wall}, {height}, {width}, centered=False))\n"
        ),
        "YZ" => format!("solid = cq.Workplane('YZ').circle({width}).circle({}).extrude({height})\n", width - wall),
        _ => format!("solid = cq.Workplane().box({width}, {height}, {wall}).rotate((0, 0, 0), (1, 2, 0), 35)\n"),
    }
}

/// Mean and largest error of the IoU at `n` over pairs of parts.
fn errors(n: usize, thickness: f64, pairs: usize, part: fn(&mut ChaCha8Rng, f64, &str) -> String) -> (f64, f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut found = Vec::new();
    for pair in 0..pairs {
        let plane = ["XY", "YZ", "XZ"][pair % 3];
        let (a, b) = (solid(&part(&mut rng, thickness, plane)), solid(&part(&mut rng, thickness, plane)));
        found.push((frame_iou(Frame::Canonical, n, &a, &b) - exact(&a, &b)).abs());
    }
    (found.iter().sum::<f64>() / pairs as f64, found.iter().copied().fold(0.0, f64::max))
}

#[test]
fn the_grid_agrees_with_volumes_and_better_with_more_cells() {
    let errors = [16, 32, 64, 128].map(|n| errors(n, 0.3, 24, plate));
    for pair in errors.windows(2) {
        assert!(pair[1].0 < pair[0].0, "{errors:?}");
    }
    assert!(errors[2].0 <= 0.005 && errors[2].1 <= 0.03, "{errors:?}");
}

#[test]
fn thin_parts_hold_too() {
    for thickness in [0.05, 0.01] {
        for part in [plate, wall] {
            let (mean, most) = errors(64, thickness, 24, part);
            assert!(mean <= 0.005 && most <= 0.03, "{thickness}: {mean} {most}");
        }
    }
}

#[test]
fn a_solid_in_another_pose_is_itself_again_when_aligned() {
    let part = "solid = cq.Workplane().box(3, 2, 1).union(cq.Workplane().box(1, 1, 1).translate((1, 0.5, 1)))\n";
    let turned = format!("{part}solid = solid.rotate((0, 0, 0), (1, 2, 3), 50).translate((5, 6, 7))\n");
    let (a, b) = (solid(part), solid(&turned));
    assert_eq!(frame_iou(Frame::Canonical, 32, &a, &b), 0.0);
    let (normalised, aligned) = (frame_iou(Frame::Normalised, 32, &a, &b), frame_iou(Frame::Aligned, 32, &a, &b));
    assert!(normalised < 0.8 && aligned > 0.97, "{normalised} {aligned}");
}
