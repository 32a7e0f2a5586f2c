//! Wires that touch or cross: how the kernel sorts them into outlines and holes.
//!
//! `Face.makeFromWires` makes one face of all wires and passes it to
//! `ShapeFix_Face::FixOrientation`. That function compares every pair of wires, whether they cross
//! or not: it tests the middles of the edges of one wire against the inside of the other. If it
//! finds several outlines, each becomes a face of its own. Otherwise all wires stay in one
//! malformed face.
//!
//! If a wire crosses another, its first edge decides, so the kernel's order of edges matters.
//! `MakeWire::Add` of a list starts with the first edge, adds both neighbours of it, and then adds
//! their neighbours: the first, the last, the second, the last but one, ... The first pass reverses
//! the edges of a wire that it turns. Before the second pass, `FixReorder` makes a chain that
//! begins at the same edge. The first wire is a chain from the start, and so are the wires of
//! `makePolygon`.

use super::{CLEARANCE, TANGLED, TOUCHING};
use crate::csg::{Edge, Vec2, Wire};
use crate::native::Decline;

/// Distances up to this count as contact.
const CONTACT: f64 = 1e-9;

/// What the kernel makes of a list of wires.
pub enum Sorted {
    /// One face for each outline: the position of the outline in the list of wires, and those of
    /// its holes. No two wires of a face touch.
    Faces(Vec<(usize, Vec<usize>)>),
    /// One face of all wires. Each wire has the sign of its winding.
    Malformed(Vec<f64>),
}

/// The role of a wire in relation to all others.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// All other wires are inside or far away.
    Around,
    /// Another wire is outside.
    Beside,
    /// Another wire begins inside and leaves: the orientation of this wire stays unchanged.
    Undecided,
}

/// `views[i][j]` holds one entry for each edge of `wires[j]`, in the order drawn: true if the
/// middle of the edge lies inside `wires[i]`, `None` if it lies on that wire. There is no view if
/// the boxes of the two wires do not meet.
type Views = Vec<Vec<Option<SideView>>>;
type SideView = Vec<Option<bool>>;

fn is_mixed(view: &SideView) -> bool {
    view.contains(&Some(true)) && view.contains(&Some(false))
}

/// The pass in which the kernel looks at a wire.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    First,
    Second { is_reversed: bool },
}

/// Returns the order in which the kernel stores the edges of a drawn wire, as positions in the
/// order drawn.
pub fn edge_order(count: usize, is_assembled: bool) -> Vec<usize> {
    let from_both_ends = (0..count).map(|k| if k % 2 == 0 { k / 2 } else { count - k.div_ceil(2) });
    // `0, count - 1, 1, count - 2, ..`: odd places count from the end.
    if is_assembled { from_both_ends.collect() } else { (0..count).collect() }
}

fn order(count: usize, is_assembled: bool, look: Look) -> Vec<usize> {
    let at_first = edge_order(count, is_assembled);
    match look {
        Look::First => at_first,
        Look::Second { is_reversed: false } => (0..count).collect(),
        Look::Second { is_reversed: true } => {
            let begin = at_first.last().copied().unwrap_or(0);
            (0..count).map(|k| (begin + count - k) % count).collect()
        }
    }
}

/// Sorts wires if some of them touch or cross. `is_assembled[i]` says which order the kernel uses
/// for the edges of `wires[i]`.
pub fn sort(wires: &[Wire], is_assembled: &[bool]) -> Result<Sorted, Decline> {
    /// The largest number of wires: each wire but the first doubles the work.
    const MOST: usize = 7;
    let views = wires.iter().map(|wire| wires.iter().map(|other| view(wire, other)).collect());
    let views: Views = views.collect::<Result<_, Decline>>()?;
    let is_mixed = views.iter().flatten().flatten().any(is_mixed);
    if is_mixed && wires.len() > MOST {
        return Err(Decline::new(TOUCHING, "many"));
    }
    // The first wire runs counter-clockwise with respect to the face. The sense of the others is
    // unknown, because the normal of the face may be that of the plane or its opposite.
    let ways = if is_mixed { 1u32 << (wires.len() - 1) } else { 1 };
    let mut found: Option<(Vec<Face>, Vec<f64>)> = None;
    for way in 0..ways {
        // Wires that are not mixed may be more than a number has bits.
        let turns = (0..wires.len()).map(|i| i == 0 || !is_mixed || way >> (i - 1) & 1 == 0).collect();
        let next = two_passes(&views, is_assembled, turns);
        if found.as_ref().is_some_and(|before| *before != next) {
            return Err(Decline::new(TOUCHING, "neither outline nor hole"));
        }
        found = Some(next);
    }
    let Some((faces, signs)) = found else { return Err(Decline::new(TOUCHING, "none")) };
    if faces.len() < 2 {
        check_malformed(wires, &views)?;
        let turned = |(wire, sign): (&Wire, f64)| sign * wire.signed_area().signum();
        return Ok(Sorted::Malformed(wires.iter().zip(signs).map(turned).collect()));
    }
    for (outer, holes) in &faces {
        let members: Vec<usize> = std::iter::once(*outer).chain(holes.iter().copied()).collect();
        for (index, &a) in members.iter().enumerate() {
            if members[..index].iter().any(|&b| gap(&wires[a], &wires[b]) < CLEARANCE) {
                return Err(Decline::new(TOUCHING, "one of several faces is malformed"));
            }
        }
    }
    Ok(Sorted::Faces(faces))
}

/// Checks that the volume of a malformed face is the sum over its wires: the wires cross clearly,
/// or two of them touch at a point.
fn check_malformed(wires: &[Wire], views: &Views) -> Result<(), Decline> {
    let overlap =
        |a: &Wire, b: &Wire| a.edges().iter().any(|edge| b.edges().iter().any(|other| run_along(edge, other)));
    // Of wires that are one and the same both areas count (experiment `hole equal to the outline`).
    let lies_on = |i: usize, j: usize| views[i][j].as_ref().is_some_and(|view| view.iter().all(Option::is_none));
    let is_pair_of_equals = wires.len() == 2 && lies_on(0, 1) && lies_on(1, 0);
    if !is_pair_of_equals && wires.iter().enumerate().any(|(i, a)| wires[..i].iter().any(|b| overlap(a, b))) {
        return Err(Decline::new(TOUCHING, "an edge runs along another wire"));
    }
    let is_on = |view: &SideView| view.contains(&None);
    if wires.len() > 2 && views.iter().flatten().flatten().any(is_on) {
        return Err(Decline::new(TOUCHING, "the middle of an edge lies on one of several wires"));
    }
    let touch = |a: &Wire, b: &Wire| {
        gap(a, b) < CONTACT
            && a.edges().iter().all(|edge| b.edges().iter().all(|other| edge.crossings(other).is_empty()))
    };
    let any_touch = || wires.iter().enumerate().any(|(i, a)| wires[..i].iter().any(|b| touch(a, b)));
    if wires.len() > 2 && any_touch() {
        return Err(Decline::new(TOUCHING, "one of several wires touches another"));
    }
    Ok(())
}

/// Returns whether two edges touch and lie on the same line or circle.
fn run_along(a: &Edge, b: &Edge) -> bool {
    let round = |edge: &Edge| match *edge {
        Edge::Line { .. } => None,
        Edge::Arc { center, radius, .. } | Edge::Circle { center, radius } => Some((center, radius)),
    };
    let is_one = match (a.ends(), b.ends(), round(a), round(b)) {
        (Some((a_from, a_to)), Some((b_from, b_to)), None, None) => {
            (a_to - a_from).normalize().perp(&(b_to - b_from).normalize()).abs() < 1e-6
        }
        (.., Some((a, a_radius)), Some((b, b_radius))) => {
            (a - b).norm() < CLEARANCE && (a_radius - b_radius).abs() < CLEARANCE
        }
        _ => false,
    };
    is_one && a.gap(b) < CONTACT
}

/// An outline and its holes, as positions in the list of wires.
type Face = (usize, Vec<usize>);

/// Runs `FixOrientation` twice, as CadQuery does by calling `FixOrientation` and `Perform`. The
/// first pass turns wires and thereby reverses the order of their edges. Returns the faces, if
/// there are several, and the sense of each wire (1 or -1).
///
/// `turns` says whether each wire initially runs counter-clockwise.
fn two_passes(views: &Views, is_assembled: &[bool], mut turns: Vec<bool>) -> (Vec<Face>, Vec<f64>) {
    let count = views.len();
    let mut is_reversed = vec![false; count];
    let mut faces = Vec::new();
    for pass in 0..2 {
        let mut inner: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut roles = vec![Role::Around; count];
        let mut is_contained = vec![false; count];
        for i in 0..count {
            for j in 0..count {
                let Some(view) = views[i][j].as_ref().filter(|_| i != j) else { continue };
                let look = if pass == 0 { Look::First } else { Look::Second { is_reversed: is_reversed[j] } };
                let first = order(view.len(), is_assembled[j] && j > 0, look).into_iter().find_map(|edge| view[edge]);
                // A wire that lies on the other counts as inside.
                let is_inside = first.unwrap_or(true);
                let is_mixed = is_mixed(view);
                if is_mixed {
                    roles[i] = Role::Undecided;
                }
                if is_inside {
                    inner[i].push(j);
                    is_contained[j] = true;
                } else {
                    roles[i] = Role::Beside;
                }
                if is_mixed {
                    break;
                }
            }
        }
        let is_outline = |i: usize| roles[i] == Role::Around || (roles[i] == Role::Beside && !is_contained[i]);
        for i in 0..count {
            if roles[i] != Role::Undecided && turns[i] != is_outline(i) {
                turns[i] = !turns[i];
                is_reversed[i] = !is_reversed[i];
            }
        }
        faces =
            (0..count).filter(|&i| is_outline(i)).map(|i| (i, std::mem::take(&mut inner[i]))).collect::<Vec<Face>>();
    }
    if faces.len() < 2 || faces.iter().map(|(_, holes)| 1 + holes.len()).sum::<usize>() != count {
        faces.clear();
    }
    (faces, turns.into_iter().map(|turn| if turn { 1.0 } else { -1.0 }).collect())
}

/// Returns the smallest distance between two wires.
pub fn gap(a: &Wire, b: &Wire) -> f64 {
    let gaps = a.edges().iter().flat_map(|edge| b.edges().iter().map(|other| edge.gap(other)));
    gaps.fold(f64::INFINITY, f64::min)
}

/// Returns the distance between two wires, which must touch or be clearly apart. Declines other
/// wires.
pub fn check_gap(a: &Wire, b: &Wire) -> Result<f64, Decline> {
    let gap = gap(a, b);
    if (CONTACT..CLEARANCE).contains(&gap) { Err(Decline::new(TOUCHING, format!("nearly: {gap:e}"))) } else { Ok(gap) }
}

fn boxes_meet(a: &Wire, b: &Wire) -> Result<bool, Decline> {
    let reach = |wire: &Wire, direction: Vec2| {
        wire.edges().iter().map(|edge| edge.support(direction)).fold(f64::NEG_INFINITY, f64::max)
    };
    let mut meet = true;
    for axis in [Vec2::x(), Vec2::y()] {
        for direction in [axis, -axis] {
            // The distance from the end of `a` to the beginning of `b`.
            let apart = -reach(b, -direction) - reach(a, direction);
            if (CONTACT..CLEARANCE).contains(&apart) {
                return Err(Decline::new(TOUCHING, format!("boxes nearly: {apart:e}")));
            }
            meet &= apart < CLEARANCE;
        }
    }
    Ok(meet)
}

fn view(wire: &Wire, other: &Wire) -> Result<Option<SideView>, Decline> {
    if std::ptr::eq(wire, other) || !boxes_meet(wire, other)? {
        return Ok(None);
    }
    let mut sides = Vec::new();
    for edge in other.edges() {
        let middle = middle(edge);
        let apart = wire.edges().iter().map(|edge| edge.distance(middle)).fold(f64::INFINITY, f64::min);
        if (CONTACT..1e-5).contains(&apart) {
            return Err(Decline::new(TOUCHING, format!("the middle of an edge, nearly: {apart:e}")));
        }
        sides.push((apart >= CONTACT).then(|| wire.contains(middle)));
    }
    Ok(Some(sides))
}

/// Returns the middle of an edge by its parameter. For a circle it is the point opposite to the
/// start.
fn middle(edge: &Edge) -> Vec2 {
    match *edge {
        Edge::Line { from, to } => (from + to) / 2.0,
        Edge::Circle { center, radius } => center - Vec2::new(radius, 0.0),
        Edge::Arc { from, center, counter_clockwise, .. } => {
            let half = edge.sweep() / 2.0;
            let turn = nalgebra::Rotation2::new(if counter_clockwise { half } else { -half });
            center + turn * (from - center)
        }
    }
}

/// Splits a wire that crosses itself into simple loops, whose orientation is the sign of their
/// winding. The wire is cut at every crossing, and a loop is removed each time the wire returns to
/// a point.
pub fn loops(wire: &Wire) -> Result<Vec<Wire>, Decline> {
    let edges = wire.edges();
    let count = edges.len();
    // The cuts of each edge, as (share of its length, number of the point).
    let mut cuts: Vec<Vec<(f64, usize)>> = vec![Vec::new(); count];
    let mut points = 0;
    for i in 0..count {
        for j in i + 1..count {
            let is_next = j == i + 1 || (i == 0 && j == count - 1);
            let crossings = edges[i].crossings(&edges[j]);
            if crossings.is_empty() && comes_near(&edges[i], &edges[j], is_next) {
                // Whether the kernel counts this as contact depends on its tolerances: experiment
                // `edge of 2e-7`.
                return Err(Decline::new(TANGLED, "touches itself"));
            }
            for point in crossings {
                let ends: Vec<Vec2> =
                    [&edges[i], &edges[j]].iter().filter_map(|edge| edge.ends()).flat_map(|(a, b)| [a, b]).collect();
                let nearest = ends.iter().map(|end| (end - point).norm()).fold(f64::INFINITY, f64::min);
                if is_next && nearest < CONTACT {
                    continue;
                }
                if nearest < 1e-5 {
                    return Err(Decline::new(TANGLED, "crosses next to a corner"));
                }
                for edge in [i, j] {
                    cuts[edge].push((share(&edges[edge], point), points));
                }
                points += 1;
            }
        }
    }
    // The wire as a chain of pieces between crossings.
    let mut stack: Vec<(Option<usize>, Edge)> = Vec::new();
    let mut found = Vec::new();
    for (edge, cuts) in edges.iter().zip(&mut cuts) {
        cuts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some((from, to)) = edge.ends() else { return Err(Decline::new(TANGLED, "circle")) };
        let mut at = from;
        let mut number = None;
        for &(share, point) in cuts.iter() {
            let place = place(edge, share);
            stack.push((number, piece(edge, at, place)));
            (at, number) = (place, Some(point));
            // The wire has returned to a point: the pieces since then form a loop.
            if let Some(start) = stack.iter().position(|(begin, _)| *begin == Some(point)) {
                let mut taken: Vec<Edge> = stack.drain(start..).map(|(_, edge)| edge).collect();
                close(&mut taken);
                found.push(Wire::new(taken).map_err(|error| Decline::new(TANGLED, error.to_string()))?);
            }
        }
        stack.push((number, piece(edge, at, to)));
    }
    let mut rest: Vec<Edge> = stack.into_iter().map(|(_, edge)| edge).collect();
    close(&mut rest);
    found.push(Wire::new(rest).map_err(|error| Decline::new(TANGLED, error.to_string()))?);
    Ok(found)
}

/// Returns whether two edges of a wire come within [`CLEARANCE`] of each other. For neighbours the
/// corner that they share does not count.
fn comes_near(a: &Edge, b: &Edge, is_next: bool) -> bool {
    if !is_next {
        return a.gap(b) < CLEARANCE;
    }
    let (Some((a_from, a_to)), Some((b_from, b_to))) = (a.ends(), b.ends()) else { return false };
    let is_near = |edge: &Edge, end: Vec2, other: [Vec2; 2]| !other.contains(&end) && edge.distance(end) < CLEARANCE;
    [a_from, a_to].into_iter().any(|end| is_near(b, end, [b_from, b_to]))
        || [b_from, b_to].into_iter().any(|end| is_near(a, end, [a_from, a_to]))
}

/// Makes the ends of neighbouring edges equal to the last bit.
fn close(edges: &mut [Edge]) {
    let mut last = edges.last().and_then(Edge::ends).map(|(_, to)| to);
    for edge in edges.iter_mut() {
        if let (Edge::Line { from, .. } | Edge::Arc { from, .. }, Some(before)) = (&mut *edge, last) {
            *from = before;
        }
        last = edge.ends().map(|(_, to)| to);
    }
}

/// Returns the position of a point along an edge, as a share from 0 to 1.
fn share(edge: &Edge, point: Vec2) -> f64 {
    match *edge {
        Edge::Line { from, to } => (point - from).dot(&(to - from)) / (to - from).norm_squared(),
        _ => piece(edge, edge.ends().map_or(point, |(from, _)| from), point).sweep() / edge.sweep(),
    }
}

fn place(edge: &Edge, share: f64) -> Vec2 {
    match *edge {
        Edge::Line { from, to } => from + (to - from) * share,
        Edge::Arc { from, center, counter_clockwise, .. } => {
            let angle = edge.sweep() * share;
            let turn = nalgebra::Rotation2::new(if counter_clockwise { angle } else { -angle });
            center + turn * (from - center)
        }
        Edge::Circle { center, .. } => center,
    }
}

/// Returns the part of an edge between two points on it.
fn piece(edge: &Edge, from: Vec2, to: Vec2) -> Edge {
    match *edge {
        Edge::Arc { center, radius, counter_clockwise, .. } => {
            Edge::Arc { from, to, center, radius, counter_clockwise }
        }
        _ => Edge::Line { from, to },
    }
}
