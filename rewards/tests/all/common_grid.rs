//! Many solids on one grid, against closed forms and against the IoU of pairs.

use std::sync::Arc;

use cadwright_rewards::{Bounds, CommonGrid, Frame, Solid, frame_iou};

use crate::common::block_solid;

const X: [f64; 3] = [1.0, 0.0, 0.0];

/// IoU of each pair on a common grid of `n^3` cells.
fn ious(n: usize, solids: &[Arc<Solid>]) -> Vec<Vec<f64>> {
    let bounds: Vec<Bounds> = solids.iter().map(|solid| *solid.bounds()).collect();
    let grid = CommonGrid::new(n, &bounds);
    let occupied: Vec<_> = solids.iter().map(|solid| grid.occupied(solid)).collect();
    occupied.iter().map(|a| occupied.iter().map(|b| a.iou(b)).collect()).collect()
}

fn built(program: &str) -> Arc<Solid> {
    let outcome = cadwright_rewards::native::execute(program).expect("boxes are certain");
    Arc::clone(outcome.solid().expect("boxes are solids"))
}

#[test]
fn blocks_have_the_iou_of_their_volumes() {
    let at = |x: f64| block_solid([1.0, 2.0, 3.0], X, 0.0, [x, 0.0, 0.0]);
    let large = block_solid([2.0, 4.0, 6.0], X, 0.0, [0.0; 3]);
    let found = ious(32, &[at(0.0), at(0.5), at(2.0), large]);
    // Half of each is shared: 1/2 of 3/2. The large block has 8 times the volume.
    let expected = [[1.0, 1.0 / 3.0, 0.0, 0.125], [1.0 / 3.0, 1.0, 0.0, 0.125], [0.0, 0.0, 1.0, 0.0]];
    for (found, expected) in found.iter().zip(expected) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{found} is not {expected}");
        }
    }
    assert!((0..4).all(|i| found[i][i] == 1.0 && (0..4).all(|j| found[i][j] == found[j][i])), "{found:?}");
}

#[test]
fn turned_blocks_have_the_iou_of_pairs() {
    let turned = |angle: f64| block_solid([1.0, 2.0, 0.7], [0.3, -1.0, 0.5], angle, [0.1, 0.0, 0.2]);
    let solids = [turned(0.0), turned(0.4), turned(0.8), turned(1.3)];
    let found = ious(64, &solids);
    for i in 0..4 {
        for j in 0..4 {
            let expected = frame_iou(Frame::Canonical, 64, &solids[i], &solids[j]);
            assert!((found[i][j] - expected).abs() < 0.01, "{i} {j}: {} is not {expected}", found[i][j]);
        }
    }
}

/// On a grid over all bounds, the three cubes would occupy one cell in 10^7.
#[test]
fn a_far_solid_leaves_the_others_their_cells() {
    let cube = |x: f64| block_solid([1.0; 3], X, 0.0, [x, 0.0, 0.0]);
    let far = block_solid([1.0; 3], X, 0.0, [0.0, 0.0, 1e4]);
    let found = ious(32, &[cube(0.0), cube(0.5), cube(0.75), far]);
    for (i, j, expected) in [(0, 1, 1.0 / 3.0), (0, 2, 1.0 / 7.0), (1, 2, 0.75 / 1.25), (0, 3, 0.0)] {
        assert!((found[i][j] - expected).abs() < 0.01, "{i} {j}: {} is not {expected}", found[i][j]);
    }
}

/// A cube; the same cube with a second one far away, so that half of the volume is shared; and with
/// another far one, half of which is the second one: 1 + 1/2 of 2 + 1/2.
#[test]
fn what_reaches_out_of_the_grid_counts_too() {
    let cube = built("solid = cq.Workplane().box(1, 1, 1)");
    let two = |x: f64| {
        let far = format!("cq.Workplane().box(1, 1, 1).translate(({x}, 0, 0))");
        built(&format!("solid = cq.Workplane().box(1, 1, 1).union({far})"))
    };
    let solids = [Arc::clone(&cube), Arc::clone(&cube), cube, two(20.0), two(20.5)];
    let found = ious(64, &solids);
    assert_eq!((found[0][1], found[3][3], found[4][4]), (1.0, 1.0, 1.0), "{found:?}");
    for (i, j, expected) in [(0, 3, 0.5), (2, 4, 0.5), (3, 4, 1.5 / 2.5)] {
        assert!((found[i][j] - expected).abs() < 0.03, "{i} {j}: {} is not {expected}", found[i][j]);
    }
}

#[test]
fn flat_solids_and_none_occupy_nothing() {
    let flat = block_solid([1.0, 2.0, 0.0], X, 0.0, [0.0; 3]);
    let block = block_solid([1.0, 2.0, 1.0], X, 0.0, [0.0; 3]);
    let found = ious(16, &[Arc::clone(&flat), block, Arc::clone(&flat), flat]);
    assert_eq!((found[0][0], found[0][1], found[0][2]), (0.0, 0.0, 0.0));
    assert!(ious(16, &[]).is_empty());
}
