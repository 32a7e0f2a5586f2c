//! Decides whether a boolean with a solid of revolution certainly equals the set operation.
//!
//! `certainty` checks planes and cylinders as it does for prisms. This module checks rims, cones,
//! and bodies about the same axis, whose faces meet in circles. A cone may meet only planes across
//! its axis and bodies turned about that axis; anything else is declined.

use std::f64::consts::TAU;

use super::Decline;
use super::wires::CLEARANCE;
use crate::csg::{CsgSolid, Edge, Extrusion, Primitive, Revolution, Surface, Vec2, Vec3, faces_of};

/// Directions and distances that differ by less than this are equal.
const COINCIDENT: f64 = 1e-9;

/// Returns whether a distance is neither zero nor clear of the kernel's tolerance.
pub fn doubtful(distance: f64) -> bool {
    (COINCIDENT..CLEARANCE).contains(&distance.abs())
}

fn uncertain(detail: &str) -> Decline {
    Decline::new("boolean with a solid of revolution", detail)
}

/// Checks every pair of leaves that contains a solid of revolution and whose boxes overlap.
/// Declines an uncertain pair.
pub fn check(a: &CsgSolid, b: &CsgSolid) -> Result<(), Decline> {
    for left in a.primitives() {
        for right in b.primitives() {
            match (left, right) {
                (Primitive::Revolution(one), Primitive::Revolution(other)) if reach_each_other(left, right) => {
                    if !one.is_whole() || !other.is_whole() {
                        return Err(uncertain("two turned bodies, one by part of a turn"));
                    }
                    both_turned(one, other)?;
                }
                (Primitive::Revolution(turned), Primitive::Extrusion(prism))
                | (Primitive::Extrusion(prism), Primitive::Revolution(turned))
                    if reach_each_other(left, right) =>
                {
                    with_prism(turned, prism)?;
                    if !turned.is_whole() {
                        ends_with_prism(turned, prism)?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Returns whether the boxes of two leaves meet, within [`CLEARANCE`].
pub fn reach_each_other(a: Primitive<'_>, b: Primitive<'_>) -> bool {
    let (a, b) = (a.bounds(), b.bounds());
    (0..3).all(|axis| a.min[axis] < b.max[axis] + CLEARANCE && b.min[axis] < a.max[axis] + CLEARANCE)
}

fn is_cone([a, b]: &[Vec2; 2]) -> bool {
    (b.y - a.y).abs() > COINCIDENT && (b.x - a.x).abs() > COINCIDENT
}

/// Checks two bodies about one axis by their profiles in the half plane through it. Each profile
/// must keep clear of the other's corners or meet them exactly, and no two sides may be nearly
/// collinear.
fn both_turned(a: &Revolution, b: &Revolution) -> Result<(), Decline> {
    let apart = (b.plane.origin - a.plane.origin).cross(&a.plane.z).norm();
    if apart > COINCIDENT || a.plane.z.cross(&b.plane.z).norm() > COINCIDENT {
        let has_cone = a.sides.iter().chain(&b.sides).any(is_cone);
        return if has_cone { Err(uncertain("a cone and another axis")) } else { Err(uncertain("two axes")) };
    }
    let local = |end: Vec2| Vec2::new(end.x, a.plane.to_local(b.plane.origin + b.plane.z * end.y).z);
    let others: Vec<[Vec2; 2]> = b.sides.iter().map(|side| side.map(local)).collect();
    profiles_are_clear(&a.sides, &others)
}

fn profiles_are_clear(a: &[[Vec2; 2]], b: &[[Vec2; 2]]) -> Result<(), Decline> {
    if b.iter().any(|wall| has_touching_corner(a, wall)) || a.iter().any(|wall| has_touching_corner(b, wall)) {
        return Err(uncertain("a rim touches a face"));
    }
    for s in a {
        for t in b {
            let line = |side: &[Vec2; 2]| Edge::Line { from: side[0], to: side[1] };
            let near = |ends: &[Vec2; 2], side: &[Vec2; 2]| ends.iter().any(|end| doubtful(line(side).distance(*end)));
            if near(s, t) || near(t, s) {
                return Err(uncertain("a rim close to a face"));
            }
            let (u, v) = ((s[1] - s[0]).normalize(), (t[1] - t[0]).normalize());
            let sine = u.perp(&v).abs();
            if (COINCIDENT..1e-4).contains(&sine) && line(s).gap(&line(t)) < CLEARANCE {
                return Err(uncertain("faces nearly in one"));
            }
        }
    }
    Ok(())
}

/// Returns whether a corner of a profile touches a side from one side only. It is then uncertain
/// whether the material on both sides of that rim stays connected.
fn has_touching_corner(profile: &[[Vec2; 2]], wall: &[Vec2; 2]) -> bool {
    let along = (wall[1] - wall[0]).normalize();
    let line = Edge::Line { from: wall[0], to: wall[1] };
    profile.iter().zip(profile.iter().cycle().skip(1)).any(|(before, after)| {
        let corner = before[1];
        let is_inside = line.distance(corner) < COINCIDENT && wall.iter().all(|end| (end - corner).norm() > COINCIDENT);
        let aside = |end: Vec2| along.perp(&(end - corner));
        is_inside && aside(before[0]) * aside(after[1]) > COINCIDENT * COINCIDENT
    })
}

fn with_prism(turned: &Revolution, prism: &Extrusion) -> Result<(), Decline> {
    let axis = turned.plane.z;
    if axis.cross(&prism.plane.z).norm() > COINCIDENT {
        return if turned.sides.iter().any(is_cone) {
            Err(uncertain("a cone and a prism across it"))
        } else {
            crosswise(turned, prism)
        };
    }
    // Heights above the plane of the solid of revolution. The prism's outlines run around its axis.
    let height = |h: f64| turned.plane.to_local(prism.plane.to_space(Vec2::zeros(), h)).z;
    let caps = [height(prism.low), height(prism.high)];
    if turned.sides.iter().flatten().any(|end| caps.iter().any(|cap| doubtful(end.y - cap))) {
        return Err(uncertain("a rim close to a cap"));
    }
    let (low, high) = (caps[0].min(caps[1]), caps[0].max(caps[1]));
    let foot = prism.plane.to_local(turned.plane.origin).xy();
    for edge in prism.region.edges() {
        let (nearest, farthest, is_about_axis) = reach(edge, foot);
        if is_about_axis {
            profiles_are_clear(&turned.sides, &[[Vec2::new(nearest, low), Vec2::new(nearest, high)]])?;
        }
        for side in &turned.sides {
            let [a, b] = side;
            if a.y.max(b.y) < low - CLEARANCE || a.y.min(b.y) > high + CLEARANCE {
                continue;
            }
            if is_about_axis {
                let is_on_it = [a, b].iter().all(|end| (end.x - nearest).abs() < COINCIDENT);
                if is_on_it && (edge.sweep() < TAU - 1e-6 || !turned.is_whole()) {
                    return Err(uncertain("arcs on a cylinder"));
                }
                continue;
            }
            if a.x.max(b.x) < nearest - CLEARANCE || a.x.min(b.x) > farthest + CLEARANCE {
                continue;
            }
            if is_cone(side) {
                return Err(uncertain("a cone and a wall aside"));
            }
            // Whether a wall touches a cylinder or a rim of this radius.
            let touches = |radius: f64| (nearest - radius).abs() < CLEARANCE || (farthest - radius).abs() < CLEARANCE;
            if [a.x, b.x].into_iter().any(|radius| radius > 0.0 && touches(radius)) {
                return Err(uncertain("a wall touches a rim"));
            }
        }
    }
    Ok(())
}

/// Checks a prism across the axis of a body without cones. The prism's walls and caps must not
/// touch a cylinder along a line. Its corners must keep clear of the planes of the rims.
fn crosswise(turned: &Revolution, prism: &Extrusion) -> Result<(), Decline> {
    let radii: Vec<f64> = turned.sides.iter().flatten().map(|end| end.x).filter(|x| *x > 0.0).collect();
    for surface in faces_of(Primitive::Extrusion(prism)) {
        match surface {
            Surface::Plane { normal, offset } if normal.dot(&turned.plane.z).abs() < 1e-5 => {
                let distance = (normal.dot(&turned.plane.origin) - offset).abs();
                if radii.iter().any(|radius| (distance - radius).abs() < CLEARANCE) {
                    return Err(uncertain("a plane touches a cylinder"));
                }
            }
            Surface::Cylinder { center, axis, radius, .. } => {
                let heights = turned.sides.iter().flatten().map(|end| turned.plane.origin + turned.plane.z * end.y);
                let across = axis.dot(&turned.plane.z).abs() < 1e-5;
                let touches = |point: Vec3| ((point - center).dot(&turned.plane.z).abs() - radius).abs() < CLEARANCE;
                if !across || heights.into_iter().any(touches) {
                    return Err(uncertain("a plane touches a cylinder"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the flat ends of a partial turn against a prism. No straight edge of either body may lie
/// on a cylinder of the other. None may lie in a flat face of the other unless a face beside that
/// edge is flush with it.
fn ends_with_prism(turned: &Revolution, prism: &Extrusion) -> Result<(), Decline> {
    let plane = &turned.plane;
    let (ends, normals) = (turned.ends(), turned.end_normals());
    let normals = normals.map(|flat| plane.x * flat.x + plane.y * flat.y);
    // Straight edges, each with the normals of the flat faces beside it: the edges around the flat
    // ends and the edge on the axis.
    let mut edges: Vec<([Vec3; 2], Vec<Vec3>)> = Vec::new();
    for [a, b] in &turned.sides {
        for (end, normal) in ends.iter().zip(normals) {
            let mut beside = vec![normal];
            if (b.y - a.y).abs() < COINCIDENT {
                beside.push(plane.z);
            }
            edges.push(([a, b].map(|at| plane.to_space(end * at.x, at.y)), beside));
        }
    }
    let on_axis = turned.sides.iter().flatten().filter(|end| end.x == 0.0).map(|end| end.y);
    let span = on_axis.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if span.0 < span.1 {
        edges.push(([span.0, span.1].map(|height| plane.to_space(Vec2::zeros(), height)), normals.to_vec()));
    }
    let near = |distance: f64| distance.abs() < CLEARANCE;
    for surface in faces_of(Primitive::Extrusion(prism)) {
        for (ends, beside) in &edges {
            match surface {
                Surface::Plane { normal, offset } => {
                    let lies_in_it = ends.iter().all(|end| near(normal.dot(end) - offset));
                    let is_doubtful = ends.iter().any(|end| doubtful(normal.dot(end) - offset));
                    if is_doubtful || lies_in_it && beside.iter().all(|flush| flush.cross(&normal).norm() > COINCIDENT)
                    {
                        return Err(uncertain("an edge of a flat end lies on a plane"));
                    }
                }
                Surface::Cylinder { center, axis, radius, .. } => {
                    let distance = |end: &Vec3| (end - center).cross(&axis).norm() - radius;
                    if ends.iter().any(|end| near(distance(end))) {
                        return Err(uncertain("an edge of a flat end touches a cylinder"));
                    }
                }
                _ => {}
            }
        }
    }
    // The edges around the prism's caps. `certainty` checks the edges over its corners.
    for edge in prism.region.edges() {
        let Edge::Line { from, to } = edge else { continue };
        let along = (to - from).normalize();
        let side = prism.plane.x * along.y - prism.plane.y * along.x;
        for height in [prism.low, prism.high] {
            let ends = [from, to].map(|at| prism.plane.to_space(*at, height) - plane.origin);
            for normal in &normals {
                let lies_in_it = ends.iter().all(|end| near(normal.dot(end)));
                let is_flush = [side, prism.plane.z].iter().any(|flush| flush.cross(normal).norm() < COINCIDENT);
                if lies_in_it && !is_flush {
                    return Err(uncertain("an edge lies on a flat end"));
                }
            }
        }
    }
    Ok(())
}

/// Returns the nearest and farthest distance of an edge from a point, and whether the edge is an
/// arc centred on that point.
fn reach(edge: &Edge, point: Vec2) -> (f64, f64, bool) {
    match edge {
        Edge::Line { from, to } => (edge.distance(point), (from - point).norm().max((to - point).norm()), false),
        Edge::Arc { center, radius, .. } | Edge::Circle { center, radius } => {
            let apart = (center - point).norm();
            if apart < COINCIDENT {
                (*radius, *radius, true)
            } else {
                // An arc counts as its whole circle.
                ((apart - radius).abs(), apart + radius, false)
            }
        }
    }
}
