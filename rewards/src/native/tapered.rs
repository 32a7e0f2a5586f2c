//! Decides whether a boolean with a tapered prism certainly equals the set operation.
//!
//! `certainty` checks the planes of a tapered prism as it does those of any prism. This module
//! checks the edges. No edge may lie in a face of the other body unless a face beside that edge is
//! flush with it, and no edge may touch a cylinder. The same holds for the edges of the other body.
//! Balls and solids of revolution must keep clear of a tapered prism.

use super::Decline;
use super::turned::{doubtful, reach_each_other};
use super::wires::CLEARANCE;
use crate::csg::{CsgSolid, Edge, Extrusion, Primitive, Surface, Vec3, faces_of};

/// Directions that differ by less than this (as a sine) are equal.
const COINCIDENT: f64 = 1e-9;

/// A straight edge with the normals of the flat faces beside it.
type StraightEdge = ([Vec3; 2], Vec<Vec3>);

fn uncertain(detail: &str) -> Decline {
    Decline::new("boolean with a tapered prism", detail)
}

/// Checks every pair of leaves that contains a polyhedron and whose boxes overlap. Declines an
/// uncertain pair.
pub fn check(a: &CsgSolid, b: &CsgSolid) -> Result<(), Decline> {
    let is_tapered = |leaf: &Primitive<'_>| matches!(leaf, Primitive::Polyhedron(_));
    let (left, right) = (a.primitives(), b.primitives());
    if !left.iter().chain(&right).any(is_tapered) {
        return Ok(());
    }
    for one in &left {
        for other in &right {
            if (is_tapered(one) || is_tapered(other)) && reach_each_other(*one, *other) {
                let (Some(edges), Some(others)) = (straight_edges(*one), straight_edges(*other)) else {
                    return Err(uncertain("a turned body"));
                };
                keep_clear(&edges, &faces_of(*other))?;
                keep_clear(&others, &faces_of(*one))?;
            }
        }
    }
    Ok(())
}

/// Returns the straight edges of a leaf, or `None` for a ball or a solid of revolution.
fn straight_edges(leaf: Primitive<'_>) -> Option<Vec<StraightEdge>> {
    match leaf {
        Primitive::Polyhedron(body) => Some(body.edges()),
        Primitive::Extrusion(prism) => Some(edges_of_prism(prism)),
        Primitive::Ball(_) | Primitive::Revolution(_) => None,
    }
}

fn edges_of_prism(prism: &Extrusion) -> Vec<StraightEdge> {
    let plane = &prism.plane;
    let side = |edge: &Edge| match edge {
        Edge::Line { from, to } => {
            let along = (to - from).normalize();
            Some(plane.x * along.y - plane.y * along.x)
        }
        _ => None,
    };
    let mut found = Vec::new();
    for wire in std::iter::once(prism.region.outer()).chain(prism.region.holes()) {
        let next = wire.edges().iter().cycle().skip(1);
        for (edge, after) in wire.edges().iter().zip(next) {
            let Some((from, to)) = edge.ends() else { continue };
            if let Some(side) = side(edge) {
                for height in [prism.low, prism.high] {
                    found.push(([from, to].map(|at| plane.to_space(at, height)), vec![side, plane.z]));
                }
            }
            let upright = [prism.low, prism.high].map(|height| plane.to_space(to, height));
            found.push((upright, [side(edge), side(after)].into_iter().flatten().collect()));
        }
    }
    found
}

fn keep_clear(edges: &[StraightEdge], surfaces: &[Surface]) -> Result<(), Decline> {
    for (ends, beside) in edges {
        for surface in surfaces {
            match surface {
                Surface::Plane { normal, offset } => {
                    let heights = ends.map(|end| normal.dot(&end) - offset);
                    let is_flush = beside.iter().any(|flush| flush.cross(normal).norm() < COINCIDENT);
                    let lies_in_it = heights.iter().all(|height| height.abs() < CLEARANCE);
                    if heights.iter().any(|height| doubtful(*height)) || lies_in_it && !is_flush {
                        return Err(uncertain("an edge lies on a plane"));
                    }
                }
                Surface::Cylinder { center, axis, radius, .. } => {
                    // The edge projected along the axis: its two ends and its point nearest to the
                    // axis.
                    let aside = |point: Vec3| point - center - axis * axis.dot(&(point - center));
                    let [from, to] = ends.map(aside);
                    let along = to - from;
                    let share = (-from.dot(&along) / along.norm_squared().max(1e-300)).clamp(0.0, 1.0);
                    let distances = [from, to, from + along * share].map(|point| point.norm() - radius);
                    if distances.iter().any(|distance| distance.abs() < CLEARANCE) {
                        return Err(uncertain("an edge touches a cylinder"));
                    }
                }
                Surface::Cone { .. } | Surface::Sphere { .. } => {}
            }
        }
    }
    Ok(())
}
