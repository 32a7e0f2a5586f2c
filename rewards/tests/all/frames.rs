//! Tests which differences between solids each frame ignores and which it counts.

use crate::common::block_solid;
use cadwright_rewards::{Frame, Solid, frame_iou};
use proptest::prelude::*;

const X: [f64; 3] = [1.0, 0.0, 0.0];
const ORIGIN: [f64; 3] = [0.0; 3];

#[test]
fn canonical_counts_position_and_size() {
    let block = block_solid([1.0, 2.0, 3.0], X, 0.0, ORIGIN);
    let shifted = block_solid([1.0, 2.0, 3.0], X, 0.0, [0.5, 0.0, 0.0]);
    let larger = block_solid([2.0, 4.0, 6.0], X, 0.0, ORIGIN);
    assert_eq!(frame_iou(Frame::Canonical, 32, &block, &block), 1.0);
    assert!((frame_iou(Frame::Canonical, 32, &shifted, &block) - 1.0 / 3.0).abs() < 0.01);
    assert!((frame_iou(Frame::Canonical, 32, &larger, &block) - 1.0 / 8.0).abs() < 0.01);
}

#[test]
fn normalised_forgives_position_and_size_but_not_direction() {
    let block = block_solid([1.0, 2.0, 4.0], X, 0.0, ORIGIN);
    let moved = block_solid([3.0, 6.0, 12.0], X, 0.0, [7.0, -2.0, 0.3]);
    let turned = block_solid([1.0, 2.0, 4.0], X, 1.0, ORIGIN);
    assert!(frame_iou(Frame::Normalised, 32, &moved, &block) > 0.99);
    assert!(frame_iou(Frame::Normalised, 32, &turned, &block) < 0.7);
}

#[test]
fn aligned_forgives_direction_but_not_proportion() {
    let block = block_solid([1.0, 2.0, 4.0], X, 0.0, ORIGIN);
    let turned = block_solid([2.0, 4.0, 8.0], [1.0, 2.0, 3.0], 1.1, [7.0, -2.0, 0.3]);
    let other = block_solid([1.0, 1.0, 4.0], X, 0.0, ORIGIN);
    assert!(frame_iou(Frame::Aligned, 32, &turned, &block) > 0.99);
    assert!(frame_iou(Frame::Aligned, 32, &other, &block) < 0.7);
}

#[test]
fn a_solid_without_volume_has_no_scale() {
    let block = block_solid([1.0, 2.0, 4.0], X, 0.0, ORIGIN);
    let flat = block_solid([1.0, 2.0, 0.0], X, 0.0, ORIGIN);
    for frame in Frame::ALL {
        assert_eq!(frame_iou(frame, 16, &flat, &block), 0.0, "{frame}");
        assert_eq!(frame_iou(frame, 16, &flat, &flat), 0.0, "{frame}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn aligned_is_never_below_normalised(
        a in [0.2..2.0f64, 0.2..2.0, 0.2..2.0],
        b in [0.2..2.0f64, 0.2..2.0, 0.2..2.0],
        angle in 0.0..3.0f64,
    ) {
        let a = block_solid(a, [0.3, -1.0, 0.5], angle, [0.1, 0.2, 0.3]);
        let b = block_solid(b, X, 0.0, ORIGIN);
        let normalised = frame_iou(Frame::Normalised, 12, &a, &b);
        prop_assert!(frame_iou(Frame::Aligned, 12, &a, &b) >= normalised);
    }
}

/// A tube along a slanted line. The bounding box fits it badly, so its wall is a fraction of a
/// cell.
fn slanted_tube(wall: f64) -> Solid {
    let program = format!(
        "import cadquery as cq\nsolid = cq.Workplane(cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, -1, 0), cq.Vector(1, 1, 1)))\
         .circle(1).circle({}).extrude(8)\n",
        1.0 - wall
    );
    let outcome = cadwright_rewards::native::execute(&program).expect("a tube is certain");
    (**outcome.solid().expect("a tube is a solid")).clone()
}

#[test]
fn thin_walls_are_counted_on_a_finer_grid() {
    let (thin, thick) = (slanted_tube(0.004), slanted_tube(0.008));
    // Areas of the rings: 1 - 0.996^2 over 1 - 0.992^2.
    let expected = (1.0 - 0.996f64.powi(2)) / (1.0 - 0.992f64.powi(2));
    for n in [32, 48, 64] {
        let iou = frame_iou(Frame::Canonical, n, &thin, &thick);
        assert!((iou - expected).abs() < 0.015, "{n}: {iou} for {expected}");
    }
}
