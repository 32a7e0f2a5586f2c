//! Sorts wires that keep clear of each other into outlines and holes.

use super::{CLEARANCE, CONFUSION, FLAT, NESTED, SPIKED, TANGLED, TOUCHING};
use crate::csg::{Edge, Region, Vec2, Wire};
use crate::native::Decline;

/// Two neighbouring edges may cross again next to their corner. The kernel's check calls such a
/// solid invalid from a depth of about 2e-7 on, but any boolean heals it (experiments
/// `sliver at a corner` and those that follow). This is the largest depth that counts as healed.
const HEALED: f64 = 2e-6;

/// Returns the outlines with their holes, and whether an outline is tangled; see [`super::faces`].
pub fn regions(wires: Vec<Wire>) -> Result<(Vec<Region>, bool), Decline> {
    /// The largest number of edges, because every pair of edges is checked.
    const MOST: usize = 1000;
    if wires.iter().map(|wire| wire.edges().len()).sum::<usize>() > MOST {
        return Err(Decline::new("too many edges", ""));
    }
    let mut tangled = false;
    for (index, wire) in wires.iter().enumerate() {
        tangled |= check_simple(wire)?;
        for other in &wires[..index] {
            for edge in wire.edges() {
                for neighbour in other.edges() {
                    let gap = edge.gap(neighbour);
                    if gap < CLEARANCE {
                        return Err(Decline::new(TOUCHING, format!("{gap:e}")));
                    }
                }
            }
        }
    }
    let point = |wire: &Wire| match &wire.edges()[0] {
        Edge::Circle { center, radius } => center + Vec2::new(*radius, 0.0),
        edge => edge.ends().map_or(Vec2::zeros(), |(from, _)| from),
    };
    let depth: Vec<usize> = wires
        .iter()
        .map(|wire| wires.iter().filter(|other| !std::ptr::eq(*other, wire) && other.contains(point(wire))).count())
        .collect();
    if depth.iter().any(|&depth| depth > 1) {
        return Err(Decline::new(NESTED, ""));
    }
    let outlines = wires.iter().zip(&depth).filter(|(_, depth)| **depth == 0);
    let regions = outlines
        .map(|(outline, _)| {
            let holes = wires.iter().zip(&depth).filter(|(_, depth)| **depth == 1).map(|(wire, _)| wire);
            let holes = holes.filter(|hole| outline.contains(point(hole))).cloned().collect();
            Region::new(outline.clone(), holes)
        })
        .collect();
    Ok((regions, tangled))
}

/// Checks that a wire does not cross itself, touch itself or turn back on itself. A crossing next
/// to a corner is allowed; the result is true if there is one.
pub(super) fn check_simple(wire: &Wire) -> Result<bool, Decline> {
    let mut tangled = false;
    let edges = wire.edges();
    let count = edges.len();
    let touches = |detail: String| Err(Decline::new(TANGLED, detail));
    if count == 2 && edges.iter().all(|edge| matches!(edge, Edge::Line { .. })) {
        return Err(Decline::new(FLAT, ""));
    }
    for i in 0..count {
        for j in i + 1..count {
            let adjacent = j == i + 1 || (i == 0 && j == count - 1);
            if !adjacent {
                let gap = edges[i].gap(&edges[j]);
                if gap < CLEARANCE {
                    return touches(format!("{gap:e}"));
                }
                continue;
            }
            let mut shared: Vec<Vec2> = Vec::new();
            if j == i + 1 {
                shared.extend(edges[i].ends().map(|(_, to)| to));
            }
            if i == 0 && j == count - 1 {
                shared.extend(edges[i].ends().map(|(from, _)| from));
            }
            for corner in &shared {
                check_corner(&edges[i], &edges[j], *corner)?;
            }
            // Curves that are nearly tangent at a corner cross again next to it. The kernel's check
            // takes both crossings for one point up to a depth of 1.2e-7.
            let bend = curvature(&edges[i]).max(curvature(&edges[j]));
            let depth = |point: &Vec2| {
                let apart = |corner: &Vec2| (corner - point).norm();
                let nearest = shared.iter().map(apart).fold(f64::INFINITY, f64::min);
                if nearest < 1e-5 { 0.0 } else { nearest.powi(2) * bend / 8.0 }
            };
            for point in edges[i].crossings(&edges[j]) {
                match depth(&point) {
                    deep if deep > HEALED || bend == 0.0 && deep > 0.0 => {
                        return touches(format!("neighbours at {point:?}"));
                    }
                    deep => tangled |= deep > CONFUSION,
                }
            }
            // The far end of each edge must keep clear of the neighbouring edge.
            for (edge, other) in [(&edges[i], &edges[j]), (&edges[j], &edges[i])] {
                let Some((from, to)) = edge.ends() else { continue };
                for end in [from, to] {
                    if !shared.contains(&end) && other.distance(end) < CLEARANCE {
                        return touches("an end on its neighbour".to_owned());
                    }
                }
            }
        }
    }
    if wire.signed_area().abs() < 1e-9 {
        return Err(Decline::new(FLAT, ""));
    }
    Ok(tangled)
}

/// Returns the curvature, one over the radius; 0 for a line.
fn curvature(edge: &Edge) -> f64 {
    match edge {
        Edge::Line { .. } => 0.0,
        Edge::Arc { radius, .. } | Edge::Circle { radius, .. } => 1.0 / radius,
    }
}

/// Declines a wire that turns back on itself at a corner.
fn check_corner(a: &Edge, b: &Edge, corner: Vec2) -> Result<(), Decline> {
    let away = |edge: &Edge| -> Option<Vec2> {
        let (from, to) = edge.ends()?;
        let at_start = from == corner;
        match *edge {
            Edge::Line { .. } => Some(if at_start { to - from } else { from - to }.normalize()),
            Edge::Arc { center, radius, counter_clockwise, .. } => {
                let out = (corner - center) / radius;
                let along = Vec2::new(-out.y, out.x);
                // At the start the tangent points along the arc, at the end against it.
                Some(if counter_clockwise == at_start { along } else { -along })
            }
            Edge::Circle { .. } => None,
        }
    };
    if let (Some(u), Some(v)) = (away(a), away(b))
        && u.dot(&v) > 0.0
        && (u.x * v.y - u.y * v.x).abs() < 1e-5
    {
        return Err(Decline::new(SPIKED, format!("{corner:?}")));
    }
    Ok(())
}
