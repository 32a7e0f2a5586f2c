//! Tests each clause of the grid convention, and geometry in closed form.

use std::f64::consts::PI;

use crate::common::{ball, block, inside_out, moved, together, unit_cube};
use cadwright_rewards::grid::{offset_x, offset_y, offset_z};
use cadwright_rewards::{Bounds, Grid, GridSpec, Mesh, iou, voxelise};
use proptest::prelude::*;

/// A grid over the given bounds.
fn spec(n: usize, min: [f64; 3], max: [f64; 3]) -> GridSpec {
    let bounds = Bounds { min, max };
    GridSpec::spanning(n, &bounds, &bounds)
}

/// IoU over common bounds.
fn mesh_iou(n: usize, a: &Mesh, b: &Mesh) -> f64 {
    let spec = GridSpec::spanning(n, &a.bounds(), &b.bounds());
    iou(&voxelise(a, &spec), &voxelise(b, &spec))
}

/// Volume by counting cells, within bounds a little larger than the mesh.
fn volume(n: usize, mesh: &Mesh) -> f64 {
    let bounds = mesh.bounds();
    let spec = spec(n, bounds.min.map(|m| m - 0.1), bounds.max.map(|m| m + 0.1));
    voxelise(mesh, &spec).count() as f64 * spec.cell.iter().product::<f64>()
}

// Clause 1: extent.

#[test]
fn the_grid_spans_the_common_bounds_axis_by_axis() {
    let a = Bounds { min: [0.0, 0.0, 0.0], max: [1.0, 2.0, 3.0] };
    let b = Bounds { min: [-1.0, 0.5, 0.0], max: [0.0, 4.0, 1.0] };
    let spec = GridSpec::spanning(8, &a, &b);
    assert_eq!((spec.min, spec.cell), ([-1.0, 0.0, 0.0], [0.25, 0.5, 0.375]));
}

#[test]
fn scaling_one_axis_changes_nothing() {
    let a = ball([0.0; 3], 1.0, 12);
    let b = block([-0.3, -0.4, -0.5], [1.2, 0.8, 0.6]);
    let flat = |mesh: &Mesh| mesh.mapped(|[x, y, z]| [x, y, z / 256.0]);
    assert_eq!(mesh_iou(32, &a, &b), mesh_iou(32, &flat(&a), &flat(&b)));
}

#[test]
fn a_cube_fills_its_own_grid() {
    for n in [4, 31, 64, 65, 100, 128] {
        let grid = voxelise(&unit_cube(), &spec(n, [0.0; 3], [1.0; 3]));
        assert_eq!(grid.count(), n * n * n, "{n}");
    }
}

// Clause 2: samples.

#[test]
fn every_sample_lies_strictly_inside_of_its_cell() {
    for i in 0..512 {
        for offset in [offset_x(i), offset_y(i), offset_z(i, 511 - i)] {
            assert!(offset > 0.0 && offset < 1.0);
        }
    }
    let spec = spec(4, [1.0, 2.0, 3.0], [5.0, 6.0, 7.0]);
    let expected = [1.0 + 1.0 + offset_x(2), 2.0 + 2.0 + offset_y(1), 3.0 + 3.0 + offset_z(1, 2)];
    assert_eq!(spec.sample(1, 2, 3), expected);
}

#[test]
fn a_cell_is_inside_if_its_sample_is() {
    let n = 20;
    let spec = spec(n, [-1.1; 3], [1.1; 3]);
    let grid = voxelise(&ball([0.0; 3], 1.0, 64), &spec);
    for (i, j, k) in (0..n * n * n).map(|c| (c / n / n, c / n % n, c % n)) {
        let radius = spec.sample(i, j, k).iter().map(|c| c * c).sum::<f64>().sqrt();
        // The polyhedron lies between radius 0.998 and 1.
        if !(0.998..=1.0).contains(&radius) {
            assert_eq!(grid.get(i, j, k), radius < 1.0, "{i} {j} {k}: {radius}");
        }
    }
}

#[test]
fn a_wall_thinner_than_a_cell_counts_by_its_thickness() {
    let n = 64;
    for axis in 0..3 {
        for position in [0.1, 0.4321, 0.503, 0.77] {
            let thickness = 0.3 / n as f64;
            let (mut low, mut high) = ([0.0; 3], [1.0; 3]);
            (low[axis], high[axis]) = (position, position + thickness);
            let count = voxelise(&block(low, high), &spec(n, [0.0; 3], [1.0; 3])).count();
            let share = count as f64 / (n * n * n) as f64;
            assert!((share / thickness - 1.0).abs() < 0.1, "axis {axis} at {position}: {share}");
        }
    }
}

#[test]
fn parts_of_thin_walls_are_told_apart() {
    // Closed boxes with walls of 1 % and 1.5 % of the span: the IoU is the ratio of the volumes.
    let shell = |t: f64| together(unit_cube(), &inside_out(block([t; 3], [1.0 - t; 3])));
    let volume = |t: f64| 1.0 - (1.0 - 2.0 * t).powi(3);
    let expected = volume(0.01) / volume(0.015);
    let error = (mesh_iou(64, &shell(0.01), &shell(0.015)) - expected).abs();
    assert!(error < 0.01, "{error}");
    // Plates: the grid also has all of its cells across the thickness.
    let plate = |t: f64| block([0.0; 3], [1.0, 1.0, t]);
    let error = (mesh_iou(64, &plate(0.01), &plate(0.015)) - 2.0 / 3.0).abs();
    assert!(error < 0.002, "{error}");
}

// Clause 3: inside.

#[test]
fn an_entry_at_a_sample_is_inside_and_an_exit_is_outside() {
    let mut grid = Grid::empty(70);
    let offset = offset_z(3, 5);
    grid.fill_column(3, 5, 60.0 + offset, 66.0 + offset);
    let inside: Vec<usize> = (0..70).filter(|&k| grid.get(3, 5, k)).collect();
    assert_eq!(inside, [60, 61, 62, 63, 64, 65]);
    assert_eq!(grid.count(), 6);
}

#[test]
fn overlapping_solids_are_their_union() {
    let pair = together(unit_cube(), &block([0.5, 0.0, 0.0], [1.5, 1.0, 1.0]));
    let union = block([0.0; 3], [1.5, 1.0, 1.0]);
    assert_eq!(mesh_iou(32, &pair, &union), 1.0);
}

#[test]
fn a_hole_subtracted_twice_is_still_a_hole() {
    let hole = inside_out(block([0.25; 3], [0.75; 3]));
    let once = together(unit_cube(), &hole);
    let twice = together(once.clone(), &hole);
    assert_eq!(mesh_iou(32, &once, &twice), 1.0);
}

#[test]
fn columns_through_edges_and_corners_are_neither_lost_nor_doubled() {
    // The top of a block as a fan around a point exactly under a sample. Its spokes pass through
    // more samples of the same row and column.
    let n = 16;
    let spec = spec(n, [0.0; 3], [n as f64; 3]);
    for (i, j) in [(3, 4), (8, 8), (0, 15), (12, 1)] {
        let hub = spec.sample(i, j, 0);
        let mut mesh = block([0.0; 3], [n as f64, n as f64, 9.0]);
        mesh.triangles.truncate(10);
        mesh.faces.truncate(10);
        let first = mesh.vertices.len() as u32;
        mesh.vertices.push([hub[0], hub[1], 9.0]);
        let rim = [[0.0, 0.0], [hub[0], 0.0], [16.0, 0.0], [16.0, hub[1]]];
        let back = [[16.0, 16.0], [hub[0], 16.0], [0.0, 16.0], [0.0, hub[1]]];
        let ring: Vec<_> = rim.into_iter().chain(back).collect();
        mesh.vertices.extend(ring.iter().map(|&[x, y]| [x, y, 9.0]));
        for step in 0..8 {
            mesh.triangles.push([first, first + 1 + step, first + 1 + (step + 1) % 8]);
            mesh.faces.push(5);
        }
        mesh.check().unwrap();
        assert_eq!(voxelise(&mesh, &spec).count(), n * n * 9, "hub in column {i} {j}");
    }
}

// Clause 4: open meshes.

#[test]
fn an_open_box_is_still_a_box() {
    let n = 24;
    let spec = spec(n, [-0.25; 3], [1.25; 3]);
    let whole = voxelise(&unit_cube(), &spec);
    for missing in 0..6 {
        let mut open = unit_cube();
        open.triangles.drain(2 * missing..2 * missing + 2);
        open.faces.drain(2 * missing..2 * missing + 2);
        let similarity = iou(&voxelise(&open, &spec), &whole);
        assert!(similarity > 0.75, "without face {missing}: {similarity}");
    }
}

#[test]
fn a_gap_of_one_triangle_costs_next_to_nothing() {
    let whole = ball([0.0; 3], 1.0, 16);
    let spec = spec(32, [-1.0; 3], [1.0; 3]);
    for missing in (0..whole.triangles.len()).step_by(37) {
        let mut open = whole.clone();
        open.triangles.remove(missing);
        open.faces.remove(missing);
        let similarity = iou(&voxelise(&open, &spec), &voxelise(&whole, &spec));
        assert!(similarity > 0.99, "without {missing}: {similarity}");
    }
}

// Clause 5: IoU.

#[test]
fn two_empty_grids_have_iou_zero() {
    assert_eq!(iou(&Grid::empty(8), &Grid::empty(8)), 0.0);
    let nothing = Mesh::default();
    assert_eq!(mesh_iou(8, &nothing, &nothing), 0.0);
    assert_eq!(mesh_iou(8, &nothing, &unit_cube()), 0.0);
}

#[test]
fn a_sheet_without_thickness_is_empty() {
    for axis in 0..3 {
        let mut high = [1.0; 3];
        high[axis] = 0.0;
        let sheet = block([0.0; 3], high);
        assert_eq!(mesh_iou(16, &sheet, &sheet), 0.0, "axis {axis}");
        assert_eq!(mesh_iou(16, &sheet, &unit_cube()), 0.0, "axis {axis}");
    }
}

#[test]
fn thousands_of_stacked_plates_are_counted() {
    let plate = |index: usize| {
        let low = index as f64 * 4.0;
        block([0.0, 0.0, low], [1.0, 1.0, low + 2.0])
    };
    let count = 1500;
    let mut stack = Mesh::default();
    for index in 0..count {
        stack = together(stack, &plate(index));
    }
    let n = 64;
    let share = volume(n, &stack) / (count as f64 * 2.0);
    assert!((share - 1.0).abs() < 0.05, "{share}");
}

// Closed form.

#[test]
fn half_overlapping_boxes_have_a_third_within_a_shrinking_bound() {
    for shift in [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]] {
        let other = unit_cube().mapped(|v| std::array::from_fn(|axis| v[axis] + shift[axis]));
        for n in [8, 16, 32, 64, 128] {
            let error = (mesh_iou(n, &unit_cube(), &other) - 1.0 / 3.0).abs();
            assert!(error <= 0.3 / n as f64, "{shift:?} at {n}: {error}");
        }
    }
}

#[test]
fn volumes_agree_with_the_closed_form() {
    let hollow = together(unit_cube(), &inside_out(block([0.1; 3], [0.8; 3])));
    let turned = |mesh: &Mesh| moved(mesh, [1.0, 2.0, 3.0], 0.7, [5.0, -3.0, 0.1]);
    for (name, mesh, expected) in [
        ("cube", unit_cube(), 1.0),
        ("turned cube", turned(&unit_cube()), 1.0),
        // Each ring of n = 128 steps has (n / 2 pi) sin(2 pi / n) of its disc's area. The factor in
        // latitude is similar. Together they reduce the volume by 0.1 %.
        ("ball", ball([1.0, 2.0, 3.0], 0.5, 64), 4.0 / 3.0 * PI * 0.125),
        ("hollow cube", hollow.clone(), 1.0 - 0.343),
        ("turned hollow cube", turned(&hollow), 1.0 - 0.343),
    ] {
        let found = volume(64, &mesh);
        assert!((found / expected - 1.0).abs() < 0.004, "{name}: {found} for {expected}");
    }
}

/// A block with sides of at least 0.05 within the unit cube.
fn any_block() -> impl Strategy<Value = ([f64; 3], [f64; 3])> {
    let side = (0.0..0.95f64, 0.0..1.0f64);
    [side.clone(), side.clone(), side].prop_map(|sides| {
        let low = sides.map(|(low, _)| low);
        let high = sides.map(|(low, share)| low + 0.05 + share * (0.95 - low));
        (low, high)
    })
}

/// IoU of two axis-aligned blocks.
fn exact_iou(a: &([f64; 3], [f64; 3]), b: &([f64; 3], [f64; 3])) -> f64 {
    let volume =
        |low: [f64; 3], high: [f64; 3]| -> f64 { (0..3).map(|axis| (high[axis] - low[axis]).max(0.0)).product() };
    let low = std::array::from_fn(|axis| a.0[axis].max(b.0[axis]));
    let high = std::array::from_fn(|axis| a.1[axis].min(b.1[axis]));
    let both = volume(low, high);
    both / (volume(a.0, a.1) + volume(b.0, b.1) - both)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn iou_of_blocks_is_near_the_closed_form(a in any_block(), b in any_block()) {
        let found = mesh_iou(64, &block(a.0, a.1), &block(b.0, b.1));
        let expected = exact_iou(&a, &b);
        prop_assert!((found - expected).abs() < 0.01, "{} for {}", found, expected);
    }

    #[test]
    fn iou_is_symmetric_reflexive_and_bounded(a in any_block(), b in any_block(), angle in 0.0..3.0f64) {
        let a = moved(&block(a.0, a.1), [1.0, 1.0, 0.5], angle, [0.0; 3]);
        let b = block(b.0, b.1);
        let found = mesh_iou(24, &a, &b);
        prop_assert!((0.0..=1.0).contains(&found));
        prop_assert_eq!(found, mesh_iou(24, &b, &a));
        prop_assert_eq!(mesh_iou(24, &a, &a), 1.0);
    }

    #[test]
    fn disjoint_blocks_have_iou_zero(a in any_block(), b in any_block(), axis in 0usize..3) {
        let b = block(b.0, b.1).mapped(|mut v| { v[axis] += 1.0; v });
        prop_assert_eq!(mesh_iou(24, &block(a.0, a.1), &b), 0.0);
    }

    #[test]
    fn turned_blocks_keep_their_volume(a in any_block(), angle in 0.0..3.0f64, x in -1.0..1.0f64) {
        let expected: f64 = (0..3).map(|axis| a.1[axis] - a.0[axis]).product();
        let turned = moved(&block(a.0, a.1), [x, 1.0, 0.3], angle, [0.0; 3]);
        let bounds = turned.bounds();
        let spec = GridSpec::spanning(48, &bounds, &bounds);
        let found = voxelise(&turned, &spec).count() as f64 * spec.cell.iter().product::<f64>();
        prop_assert!((found / expected - 1.0).abs() < 0.1, "{} for {}", found, expected);
    }
}
