//! `shell` with walls inside of a prism, whose result consists of prisms.

use std::rc::Rc;

use super::blend::Block;
use super::shapes::Body;
use super::topology::Topology;
use crate::csg::{CsgSolid, Edge, Extrusion, Operation, Region, Vec2, Wire};
use crate::native::python::Stop;
use crate::native::wires::regions;

fn uncertain(detail: &str) -> Stop {
    Stop::decline("shell", detail)
}

/// Hollows a body that is a single prism inward and removes the faces `open`. Declines a result
/// that is uncertain.
pub fn shell(topology: &Topology, open: &[usize], thickness: f64) -> Result<Rc<Body>, Stop> {
    if thickness > -1e-4 {
        return Err(uncertain("outward"));
    }
    let wall = -thickness;
    let prism = &topology.prism;
    let cavity = match Block::of(prism) {
        Some(block) => {
            let mut inset = [[wall; 2]; 3];
            for face in open {
                let sides = block.sides(topology.faces[*face].center);
                let Some(axis) = sides.iter().position(|side| *side != 0.0) else { return Err(uncertain("odd face")) };
                inset[axis][usize::from(sides[axis] > 0.0)] = 0.0;
            }
            if open.len() > 4 || !block.has_room(inset) {
                return Err(uncertain("walls as thick as the body"));
            }
            block.along(2, inset)?
        }
        None => {
            if open.iter().any(|face| *face > 1) || !prism.region.holes().is_empty() {
                return Err(uncertain("a side removed, or holes"));
            }
            let inset = |face: usize| if open.contains(&face) { 0.0 } else { wall };
            let (low, high) = (prism.low + inset(0), prism.high - inset(1));
            if high - low < 1e-3 * (prism.high - prism.low) {
                return Err(uncertain("walls as thick as the body"));
            }
            Extrusion { region: Region::new(narrowed(prism.region.outer(), wall)?, vec![]), low, high, ..prism.clone() }
        }
    };
    Ok(Body::new(CsgSolid::from(prism.clone()).combine(Operation::Cut, cavity)))
}

/// Moves a convex outline inward by `wall`. Corners stay sharp, and arcs become smaller.
fn narrowed(wire: &Wire, wall: f64) -> Result<Wire, Stop> {
    let turn = wire.signed_area().signum();
    let edges = wire.edges();
    if let [Edge::Circle { center, radius }] = edges {
        if *radius < 1.001 * wall {
            return Err(uncertain("walls as thick as the body"));
        }
        let circle = Edge::Circle { center: *center, radius: radius - wall };
        return Wire::new(vec![circle]).map_err(|error| uncertain(&error.to_string()));
    }
    let count = edges.len();
    let tangents = |edge: &Edge| -> Option<(Vec2, Vec2)> {
        let (from, to) = edge.ends()?;
        Some(match *edge {
            Edge::Arc { center, counter_clockwise, .. } => {
                let sign = if counter_clockwise { 1.0 } else { -1.0 };
                let at = |end: Vec2| Vec2::new(center.y - end.y, end.x - center.x).normalize() * sign;
                (at(from), at(to))
            }
            _ => ((to - from).normalize(), (to - from).normalize()),
        })
    };
    // The end of each edge after the move.
    let mut corners = Vec::with_capacity(count);
    for index in 0..count {
        let (a, b) = (&edges[index], &edges[(index + 1) % count]);
        let (Some((_, at)), Some((_, before)), Some((after, _))) = (a.ends(), tangents(a), tangents(b)) else {
            return Err(uncertain("a circle among edges"));
        };
        let left = |along: Vec2| Vec2::new(-along.y, along.x) * turn * wall;
        let sine = before.perp(&after) * turn;
        if sine.abs() < 1e-6 && before.dot(&after) > 0.0 {
            corners.push(at + left(before));
        } else if sine > 1e-2 && matches!((a, b), (Edge::Line { .. }, Edge::Line { .. })) {
            let (p, q) = (at + left(before), at + left(after));
            corners.push(p + before * ((q - p).perp(&after) / before.perp(&after)));
        } else {
            return Err(uncertain("a corner that is not convex"));
        }
    }
    let mut made = Vec::with_capacity(count);
    for (index, edge) in edges.iter().enumerate() {
        let (from, to) = (corners[(index + count - 1) % count], corners[index]);
        made.push(match *edge {
            Edge::Arc { center, radius, counter_clockwise, .. } => {
                if counter_clockwise != (turn > 0.0) || radius < 1.001 * wall {
                    return Err(uncertain("an arc narrower than the wall"));
                }
                Edge::Arc { from, to, center, radius: radius - wall, counter_clockwise }
            }
            Edge::Line { from: start, to: end } => {
                if (to - from).dot(&(end - start).normalize()) < 1e-3 * (end - start).norm() {
                    return Err(uncertain("walls as thick as the body"));
                }
                Edge::Line { from, to }
            }
            Edge::Circle { .. } => return Err(uncertain("a circle among edges")),
        });
    }
    let made = Wire::new(made).map_err(|error| uncertain(&error.to_string()))?;
    match regions(vec![made.clone()])? {
        (_, false) => Ok(made),
        _ => Err(uncertain("an outline that crosses itself")),
    }
}
