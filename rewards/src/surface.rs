//! Points on the surface of a solid, uniform by area.

use std::f64::consts::{PI, TAU};

use nalgebra::{Rotation3, Unit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::csg::{CsgSolid, LineCaster, Operation, Vec3};
use crate::mesh::Mesh;
use crate::outcome::{Geometry, Solid};

/// Directions of the lines that sample an exact solid, in a round. A face's share of the points
/// depends on the mean of the cosine between its normal and the directions, which is off by less
/// than 1 % for this many.
const DIRECTIONS: usize = 192;

/// Rounds after which no more lines are cast. A solid whose surface is that of its bounds needs one.
const ROUNDS: usize = 12;

/// `n` points on the surface of a solid, uniform by area, the same for the same `seed`. `None` if
/// it has no surface.
///
/// A mesh has the points on its triangles. On an exact solid they are where random lines meet it:
/// lines that are uniform in direction and place meet every part of a surface in proportion to its
/// area (the Cauchy-Crofton formula). Of bodies far from each other, lines meet each one's bounds. If
/// a solid has less than a tenth of its bounds' surface even so, some of its points repeat.
pub fn points(solid: &Solid, n: usize, seed: u64) -> Option<Vec<[f64; 3]>> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    match &solid.geometry {
        Geometry::Mesh(mesh) => on_triangles(mesh, n, &mut dice),
        Geometry::Csg(csg) => on_lines(csg, solid, n, &mut dice),
    }
}

fn on_triangles(mesh: &Mesh, n: usize, dice: &mut ChaCha8Rng) -> Option<Vec<[f64; 3]>> {
    let corner = |index: u32| Vec3::from(mesh.vertices[index as usize]);
    let mut sums = Vec::with_capacity(mesh.triangles.len());
    let mut area = 0.0;
    for [a, b, c] in mesh.triangles.iter().map(|triangle| triangle.map(corner)) {
        area += (b - a).cross(&(c - a)).norm() / 2.0;
        sums.push(area);
    }
    if !(area.is_finite() && area > 0.0) {
        return None;
    }
    let point = |_| {
        let at = dice.random::<f64>() * area;
        let index = sums.partition_point(|&sum| sum <= at).min(sums.len() - 1);
        let [a, b, c] = mesh.triangles[index].map(corner);
        let (mut u, mut v) = (dice.random::<f64>(), dice.random::<f64>());
        if u + v > 1.0 {
            (u, v) = (1.0 - u, 1.0 - v);
        }
        (a + (b - a) * u + (c - a) * v).into()
    };
    Some((0..n).map(point).collect())
}

fn on_lines(csg: &CsgSolid, solid: &Solid, n: usize, dice: &mut ChaCha8Rng) -> Option<Vec<[f64; 3]>> {
    let boxes = boxes(csg, solid);
    let surface: f64 = boxes.iter().map(Part::surface).sum();
    if !(surface.is_finite() && surface > 0.0) {
        return None;
    }
    // If the surface were that of the boxes, one round would give a quarter more than `n` points:
    // on average over all directions, a surface is met half as often as it is large.
    let lines_per_area = 2.5 * n as f64 / (surface * DIRECTIONS as f64);
    let mut points = Vec::with_capacity(2 * n);
    for _ in 0..ROUNDS {
        for direction in directions(dice) {
            let mut caster = csg.caster(direction);
            for number in 0..boxes.len() {
                cast(&mut caster, &boxes[..=number], lines_per_area, dice, &mut points);
            }
        }
        if points.len() >= n {
            break;
        }
    }
    let found = points.len();
    if found == 0 {
        return None;
    }
    points.extend((found..n).map(|_| dice.random_range(0..found)).map(|place| points[place]).collect::<Vec<_>>());
    // The points are in the order of directions, and the list must not lack the last ones.
    for place in 0..n {
        let other = dice.random_range(place..points.len());
        points.swap(place, other);
    }
    points.truncate(n);
    Some(points)
}

/// Evenly spread directions of a half sphere (a Fibonacci lattice), turned at random.
fn directions(dice: &mut ChaCha8Rng) -> Vec<Vec3> {
    let turn = random_rotation(dice);
    let golden = PI * (3.0 - 5f64.sqrt());
    let direction = |k: usize| {
        let z = (k as f64 + 0.5) / DIRECTIONS as f64;
        let (radius, angle) = ((1.0 - z * z).sqrt(), golden * k as f64);
        turn * Vec3::new(radius * angle.cos(), radius * angle.sin(), z)
    };
    (0..DIRECTIONS).map(direction).collect()
}

fn random_rotation(dice: &mut ChaCha8Rng) -> Rotation3<f64> {
    let axis = loop {
        let axis = Vec3::from_fn(|_, _| dice.random_range(-1.0..1.0));
        if (0.01..1.0).contains(&axis.norm()) {
            break Unit::new_normalize(axis);
        }
    };
    Rotation3::from_axis_angle(&axis, dice.random_range(0.0..TAU))
}

/// A box through which lines are cast.
#[derive(Debug, Clone, Copy)]
struct Part {
    center: Vec3,
    /// Half of each side.
    half: Vec3,
}

/// The boxes that hold the surface: the solid's bounds, or the bounds of its bodies if these have less
/// than half of the surface.
fn boxes(csg: &CsgSolid, solid: &Solid) -> Vec<Part> {
    let bounds = solid.bounds();
    let whole = Part::of(bounds.min.into(), bounds.max.into());
    let mut parts = Vec::new();
    add_bodies(csg, &mut parts);
    let is_sparse = 2.0 * parts.iter().map(Part::surface).sum::<f64>() < whole.surface();
    if is_sparse { parts } else { vec![whole] }
}

/// Adds the bounds of the bodies that `csg` unites. What is cut away adds none.
fn add_bodies(csg: &CsgSolid, parts: &mut Vec<Part>) {
    match csg {
        CsgSolid::Boolean(Operation::Union, left, right) => {
            add_bodies(left, parts);
            add_bodies(right, parts);
        }
        CsgSolid::Boolean(Operation::Cut | Operation::Intersect, left, _) => add_bodies(left, parts),
        body => parts.extend(body.bounds().map(|bounds| Part::of(bounds.min, bounds.max))),
    }
}

/// Adds the points where random lines of the caster's direction meet the solid within the last of
/// `boxes`, and not within one before it, whose lines find them: as many lines per area of the box's
/// shadow for every direction.
fn cast(
    caster: &mut LineCaster,
    boxes: &[Part],
    lines_per_area: f64,
    dice: &mut ChaCha8Rng,
    points: &mut Vec<[f64; 3]>,
) {
    let Some((Part { center, half }, before)) = boxes.split_last() else { return };
    let direction = caster.direction();
    let least = (0..3).min_by(|&a, &b| direction[a].abs().total_cmp(&direction[b].abs())).unwrap_or(0);
    let across = Vec3::ith(least, 1.0).cross(&direction).normalize();
    let along = direction.cross(&across);
    let (width, depth) = (across.abs().dot(half), along.abs().dot(half));
    let lines = 4.0 * width * depth * lines_per_area + dice.random::<f64>();
    for _ in 0..lines as usize {
        let origin =
            center + across * (width * dice.random_range(-1.0..1.0)) + along * (depth * dice.random_range(-1.0..1.0));
        for span in caster.spans(origin) {
            for at in [span.enter.at, span.leave.at] {
                let point = origin + direction * at;
                if boxes[boxes.len() - 1].holds(point) && !before.iter().any(|part| part.holds(point)) {
                    points.push(point.into());
                }
            }
        }
    }
}

impl Part {
    fn of(low: Vec3, high: Vec3) -> Self {
        Self { center: (low + high) / 2.0, half: (high - low) / 2.0 }
    }

    fn surface(&self) -> f64 {
        let half = self.half;
        8.0 * (half.x * half.y + half.y * half.z + half.z * half.x)
    }

    /// Whether it holds a point, those on its faces included.
    fn holds(&self, point: Vec3) -> bool {
        let slack = 1e-9 * (1.0 + self.half.max() + self.center.abs().max());
        (0..3).all(|axis| (point[axis] - self.center[axis]).abs() <= self.half[axis] + slack)
    }
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::csg::Ball;
    use crate::samples::{block, block_mass, block_mesh};

    const N: usize = 40_000;

    /// Shares of the faces of a block among its points, against their areas.
    fn assert_uniform_on_block(points: &[[f64; 3]]) {
        let size = [1.0, 2.0, 4.0];
        let total = 2.0 * (2.0 + 4.0 + 8.0);
        for axis in 0..3 {
            for end in [0.0, size[axis]] {
                let on = points.iter().filter(|point| (point[axis] - end).abs() < 1e-9).count() as f64;
                let share = 8.0 / size[axis] / total;
                assert!((on / points.len() as f64 - share).abs() < 0.012, "{axis} {end}: {on} for {share}");
            }
            let middle = points.iter().map(|point| point[axis]).sum::<f64>() / points.len() as f64;
            assert!((middle / size[axis] - 0.5).abs() < 0.01, "{axis}: {middle}");
        }
    }

    #[test]
    fn exact_solids_and_meshes_are_covered_by_area() {
        let exact = Solid::native(block(Vec3::zeros(), Vec3::new(1.0, 2.0, 4.0)), false);
        assert_uniform_on_block(&points(&exact, N, 1).unwrap());
        let (low, high) = ([0.0; 3], [1.0, 2.0, 4.0]);
        let mesh = Solid::meshed(block_mass(low, high), block_mesh(low, high), 1, false);
        assert_uniform_on_block(&points(&mesh, N, 1).unwrap());
    }

    #[test]
    fn a_ball_is_covered_evenly() {
        let ball = Solid::native(CsgSolid::from(Ball { center: Vec3::new(1.0, 2.0, 3.0), radius: 2.0 }), false);
        let found = points(&ball, N, 2).unwrap();
        // By Archimedes, a share of the height has that share of the area.
        for axis in 0..3 {
            let above = found.iter().filter(|point| point[axis] > [1.0, 2.0, 3.0][axis] + 1.0).count();
            assert!((above as f64 / N as f64 - 0.25).abs() < 0.01, "{axis}: {above}");
        }
    }

    /// Two small blocks 3,000 apart.
    #[test]
    fn bodies_far_from_each_other_are_both_covered() {
        let at = |x: f64| block(Vec3::new(x, 0.0, 0.0), Vec3::new(1.0, 1.0, 1.0));
        let pair = at(0.0).combine(Operation::Union, at(3000.0));
        let found = points(&Solid::native(pair, false), 20_000, 3).unwrap();
        assert_eq!(found.len(), 20_000);
        let near = found.iter().filter(|point| point[0] < 2.0).count();
        assert!((9_700..10_300).contains(&near), "{near}");
        let distinct: BTreeSet<_> = found.iter().map(|point| point.map(f64::to_bits)).collect();
        assert_eq!(distinct.len(), found.len());
    }

    /// A block far from two that overlap, one of which is cut: every face has its share.
    #[test]
    fn bodies_that_overlap_are_covered_once() {
        let at = |x: f64, size: f64| block(Vec3::new(x, 0.0, 0.0), Vec3::repeat(size));
        let pair = at(0.0, 2.0).combine(Operation::Union, at(1.0, 2.0)).combine(Operation::Cut, at(0.5, 1.0));
        let all = Solid::native(pair.combine(Operation::Union, at(900.0, 2.0)), false);
        let found = points(&all, N, 3).unwrap();
        // The pair is 3 x 2 x 2 with a notch in an edge, which adds its two ends.
        let (pair, single) = (32.0 + 2.0, 24.0);
        let share = |is_on: &dyn Fn(&[f64; 3]) -> bool| found.iter().filter(|p| is_on(p)).count() as f64 / N as f64;
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 0.012, "{value} {expected}");
        near(share(&|p| p[0] > 800.0), single / (pair + single));
        near(share(&|p| p[0].abs() < 1e-9), 4.0 / (pair + single));
        near(share(&|p| p[0] < 800.0 && (p[2] - 2.0).abs() < 1e-9), 6.0 / (pair + single));
    }

    #[test]
    fn the_seed_decides_and_nothing_has_no_points() {
        let exact = Solid::native(block(Vec3::zeros(), Vec3::new(1.0, 2.0, 4.0)), false);
        assert_eq!(points(&exact, 100, 7), points(&exact, 100, 7));
        assert_ne!(points(&exact, 100, 7), points(&exact, 100, 8));
        let empty = Solid::meshed(block_mass([0.0; 3], [1.0; 3]), Mesh::default(), 1, false);
        assert_eq!(points(&empty, 10, 0), None);
    }
}
