//! Tapered extrusions of circles and convex polygons.
//!
//! A positive taper narrows the outline along the extrusion, in either direction. A negative taper
//! widens it and rounds its corners with part of a cone at each.

use std::f64::consts::TAU;
use std::rc::Rc;

use super::shapes::Body;
use crate::csg::{CsgSolid, Edge, Operation, Plane, Polyhedron, Region, Revolution, Vec2, Vec3, Wire};
use crate::native::python::Stop;

fn uncertain(detail: &str) -> Stop {
    Stop::decline("taper", detail)
}

/// Builds the body over a region at a height above its plane, by `distance` to one side or to both
/// sides.
pub fn tapered(
    plane: &Plane,
    (region, height): &(Region, f64),
    distance: f64,
    both: bool,
    degrees: f64,
) -> Result<Rc<Body>, Stop> {
    if !(0.05..=60.0).contains(&degrees.abs()) {
        return Err(uncertain("angle"));
    }
    let base = Plane { origin: plane.to_space(Vec2::zeros(), *height), ..plane.clone() };
    let one = one_way(&base, region.outer(), distance, degrees)?;
    // A boolean joins both sides, and it heals the body.
    let tangled = !both && matches!(one, CsgSolid::Polyhedron(_)) && !is_centred_rectangle(&base, region.outer());
    let tree =
        if both { one.combine(Operation::Union, one_way(&base, region.outer(), -distance, degrees)?) } else { one };
    Ok(Rc::new(Body { tree: Some(tree), doubt: None, known: None, tangled }))
}

/// Returns whether an outline is a rectangle about the origin of space. The kernel may call a
/// narrowing body over any other outline invalid (one in fifteen over rectangles elsewhere, and
/// some that were moved). The corners of such a body lie off its edges by more than the kernel's
/// tolerance.
fn is_centred_rectangle(plane: &Plane, outline: &Wire) -> bool {
    let corners: Vec<Vec2> = outline.edges().iter().filter_map(Edge::ends).map(|(from, _)| from).collect();
    let [a, b, c, d] = *corners.as_slice() else { return false };
    plane.origin.norm() < 1e-12
        && [a + c, b + d].iter().all(|sum| sum.norm() < 1e-12)
        && (a.norm() - b.norm()).abs() < 1e-12
        && [plane.x, plane.y].iter().all(|axis| axis.amax() > 1.0 - 1e-12)
        && [a.x.abs() - b.x.abs(), a.y.abs() - b.y.abs()].iter().all(|off| off.abs() < 1e-12)
}

fn one_way(plane: &Plane, outline: &Wire, distance: f64, degrees: f64) -> Result<CsgSolid, Stop> {
    let inset = distance.abs() * degrees.to_radians().tan();
    if let [Edge::Circle { center, radius }] = outline.edges() {
        let top = radius - inset;
        if top < 1e-3 * radius {
            return Err(uncertain("closes to nothing"));
        }
        let corners = [(0.0, 0.0), (*radius, 0.0), (top, distance), (0.0, distance)].map(|(x, y)| Vec2::new(x, y));
        let sides = corners.windows(2).map(|pair| [pair[0], pair[1]]).collect();
        let plane = Plane { origin: plane.to_space(*center, 0.0), ..plane.clone() };
        return Ok(Revolution::whole(plane, sides).into());
    }
    let corners = convex_corners(outline)?;
    if inset > 0.0 { narrowing(plane, &corners, distance, inset) } else { widening(plane, &corners, distance, -inset) }
}

/// Returns the corners of a convex polygon, counter-clockwise.
fn convex_corners(outline: &Wire) -> Result<Vec<Vec2>, Stop> {
    let mut corners = Vec::new();
    for edge in outline.edges() {
        let Edge::Line { from, .. } = edge else { return Err(uncertain("arcs")) };
        corners.push(*from);
    }
    if outline.signed_area() < 0.0 {
        corners.reverse();
    }
    let count = corners.len();
    let mut turned = 0.0;
    for k in 0..count {
        let (before, after) =
            (corners[(k + 1) % count] - corners[k], corners[(k + 2) % count] - corners[(k + 1) % count]);
        let angle = before.perp(&after).atan2(before.dot(&after));
        if angle < 0.02 {
            return Err(uncertain("outline not convex"));
        }
        turned += angle;
    }
    if (turned - TAU).abs() > 1e-6 { Err(uncertain("outline not convex")) } else { Ok(corners) }
}

/// Returns the outward normal of the edge that starts at corner `k`.
fn outward(corners: &[Vec2], k: usize) -> Vec2 {
    let along = (corners[(k + 1) % corners.len()] - corners[k]).normalize();
    Vec2::new(along.y, -along.x)
}

fn narrowing(plane: &Plane, corners: &[Vec2], distance: f64, inset: f64) -> Result<CsgSolid, Stop> {
    let count = corners.len();
    // Each corner moves so that both adjacent edges move inward by the same distance.
    let moved = |k: usize| {
        let (a, b) = (outward(corners, (k + count - 1) % count), outward(corners, k));
        corners[k] - (a + b) * (inset / (1.0 + a.dot(&b)))
    };
    let top: Vec<Vec2> = (0..count).map(moved).collect();
    for k in 0..count {
        let (edge, left) = (corners[(k + 1) % count] - corners[k], top[(k + 1) % count] - top[k]);
        if left.dot(&edge) < 1e-2 * edge.norm_squared() {
            return Err(uncertain("closes to nothing"));
        }
    }
    let ring = |flat: &[Vec2], height: f64| flat.iter().map(|at| plane.to_space(*at, height)).collect::<Vec<Vec3>>();
    let mut faces: Vec<Vec<usize>> = vec![(0..count).collect(), (count..2 * count).collect()];
    faces.extend((0..count).map(|k| vec![k, (k + 1) % count, count + (k + 1) % count, count + k]));
    Ok(Polyhedron::new([ring(corners, 0.0), ring(&top, distance)].concat(), faces).into())
}

/// Builds a widening body: a flat side over each edge, and between two sides a cone whose tip is
/// the corner.
fn widening(plane: &Plane, corners: &[Vec2], distance: f64, outset: f64) -> Result<CsgSolid, Stop> {
    let count = corners.len();
    let mut points: Vec<Vec3> = corners.iter().map(|at| plane.to_space(*at, 0.0)).collect();
    for k in 0..count {
        let shift = outward(corners, k) * outset;
        points.extend([corners[k], corners[(k + 1) % count]].map(|at| plane.to_space(at + shift, distance)));
    }
    // Above edge `k` lie the points `count + 2 k` and `count + 2 k + 1`.
    let above = |k: usize| count + 2 * (k % count);
    let mut faces: Vec<Vec<usize>> = vec![(0..count).collect(), (count..3 * count).collect()];
    faces.extend((0..count).map(|k| vec![k, (k + 1) % count, above(k) + 1, above(k)]));
    faces.extend((0..count).map(|k| vec![(k + 1) % count, above(k) + 1, above(k + 1)]));
    let mut made = CsgSolid::from(Polyhedron::new(points, faces));
    for corner in corners {
        let [tip, rim, top] = [(0.0, 0.0), (outset, distance), (0.0, distance)].map(|(x, y)| Vec2::new(x, y));
        let plane = Plane { origin: plane.to_space(*corner, 0.0), ..plane.clone() };
        made = made.combine(Operation::Union, Revolution::whole(plane, vec![[tip, rim], [rim, top]]));
    }
    Ok(made)
}
