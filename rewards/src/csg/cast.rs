//! Intersects lines with solids: the intervals of a line inside a solid.

use super::region::{cross, within_turn};
use super::{
    Ball, CONTACT, CsgSolid, Edge, Extrusion, FaceId, Operation, Polyhedron, Primitive, Revolution, Vec2, Vec3,
};

/// A point where a line passes through the surface of a solid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boundary {
    /// Distance from the line's origin along its direction.
    pub at: f64,
    /// The face passed through.
    pub face: FaceId,
}

/// An interval of a line inside a solid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Entry of the line.
    pub enter: Boundary,
    /// Exit of the line.
    pub leave: Boundary,
}

/// Casts many lines of one direction. It computes everything that depends on the direction alone
/// once, and reuses its buffers from line to line.
#[derive(Debug)]
pub struct LineCaster<'a> {
    solid: &'a CsgSolid,
    direction: Vec3,
    primitives: Vec<PreparedLeaf<'a>>,
    spans: Vec<Span>,
    crossings: Vec<Boundary>,
}

/// A leaf seen along one direction.
#[derive(Debug)]
enum PreparedLeaf<'a> {
    Extrusion(Prepared<'a>),
    Ball(&'a Ball),
    Revolution(&'a Revolution),
    Polyhedron(&'a Polyhedron),
}

/// An extrusion seen along one direction.
#[derive(Debug)]
struct Prepared<'a> {
    extrusion: &'a Extrusion,
    /// The direction in the plane's frame.
    local: Vec3,
    /// True if the line runs along the normal. Then `scan` is an arbitrary direction, used to
    /// decide inside or outside.
    along_normal: bool,
    /// The line's direction in the sketch, of unit length.
    scan: Vec2,
    /// Factor from distance along the scan to distance along the line.
    stretch: f64,
    /// Offsets of the sketch from the line through the sketch origin. Lines outside of this range
    /// miss it.
    offset_range: (f64, f64),
    edges: Vec<PreparedEdge>,
}

/// An edge with the signed offsets of its ends (to the left of the scan). Offsets are bitwise equal
/// where edges meet, so the crossing parity is certain at corners.
#[derive(Debug)]
enum PreparedEdge {
    Line { from: End, to: End },
    Arc { from: End, to: End, center: End, radius: f64, counter_clockwise: bool, has_left: bool, has_right: bool },
    Circle { center: End, radius: f64 },
}

#[derive(Debug, Clone, Copy)]
struct End {
    offset: f64,
    along: f64,
}

impl<'a> LineCaster<'a> {
    pub(super) fn new(solid: &'a CsgSolid, direction: Vec3) -> Self {
        let direction = direction.normalize();
        let prepare = |leaf: Primitive<'a>| match leaf {
            Primitive::Extrusion(extrusion) => PreparedLeaf::Extrusion(Prepared::new(extrusion, direction)),
            Primitive::Ball(ball) => PreparedLeaf::Ball(ball),
            Primitive::Revolution(revolution) => PreparedLeaf::Revolution(revolution),
            Primitive::Polyhedron(polyhedron) => PreparedLeaf::Polyhedron(polyhedron),
        };
        let primitives = solid.primitives().into_iter().map(prepare).collect();
        Self { solid, direction, primitives, spans: Vec::new(), crossings: Vec::new() }
    }

    /// The lines' unit direction.
    pub fn direction(&self) -> Vec3 {
        self.direction
    }

    /// The intervals inside the solid of the line through `origin`, sorted and disjoint.
    pub fn spans(&mut self, origin: Vec3) -> &[Span] {
        self.spans.clear();
        let mut next = 0;
        self.evaluate(self.solid, origin, &mut next);
        &self.spans
    }

    /// Outward unit normal at `boundary` of the line through `origin`, entering or leaving.
    pub fn normal(&self, origin: Vec3, boundary: &Boundary, entering: bool) -> Vec3 {
        let at = origin + self.direction * boundary.at;
        let normal = match (&self.primitives[usize::from(boundary.face.primitive)], boundary.face.face) {
            (PreparedLeaf::Ball(ball), _) => (at - ball.center) / ball.radius,
            (PreparedLeaf::Revolution(revolution), side) => revolution.normal(at, side),
            (PreparedLeaf::Polyhedron(polyhedron), face) => polyhedron.faces[usize::from(face)].normal,
            (PreparedLeaf::Extrusion(leaf), FaceId::LOW_CAP | FaceId::HIGH_CAP) => leaf.extrusion.plane.z,
            (PreparedLeaf::Extrusion(Prepared { extrusion, .. }), side) => {
                let local = extrusion.plane.to_local(at).xy();
                let edge = extrusion.region.edges().nth(usize::from(side - FaceId::FIRST_SIDE));
                let flat = edge.map_or(Vec2::x(), |edge| edge.normal_at(local));
                extrusion.plane.x * flat.x + extrusion.plane.y * flat.y
            }
        };
        if (normal.dot(&self.direction) < 0.0) == entering { normal } else { -normal }
    }

    /// Whether a boundary lies on a plane face.
    pub fn is_flat(&self, boundary: &Boundary) -> bool {
        match (&self.primitives[usize::from(boundary.face.primitive)], boundary.face.face) {
            (PreparedLeaf::Ball(_), _) => false,
            (PreparedLeaf::Polyhedron(_), _) => true,
            (PreparedLeaf::Revolution(revolution), side) => {
                revolution.sides.get(usize::from(side)).is_none_or(|[a, b]| (b.y - a.y).abs() < 1e-12)
            }
            (PreparedLeaf::Extrusion(_), FaceId::LOW_CAP | FaceId::HIGH_CAP) => true,
            (PreparedLeaf::Extrusion(leaf), side) => {
                let edge = leaf.extrusion.region.edges().nth(usize::from(side - FaceId::FIRST_SIDE));
                matches!(edge, Some(Edge::Line { .. }))
            }
        }
    }

    /// Appends the spans of `solid` to `self.spans`; `next` numbers the primitives from left to
    /// right.
    fn evaluate(&mut self, solid: &CsgSolid, origin: Vec3, next: &mut usize) {
        match solid {
            CsgSolid::Extrusion(_) | CsgSolid::Ball(_) | CsgSolid::Revolution(_) | CsgSolid::Polyhedron(_) => {
                let number = *next as u16;
                match &self.primitives[*next] {
                    PreparedLeaf::Extrusion(leaf) => leaf.cast(origin, number, &mut self.crossings, &mut self.spans),
                    PreparedLeaf::Revolution(revolution) => {
                        self.crossings.clear();
                        revolution.crossings(origin, self.direction, number, &mut self.crossings);
                        self.crossings.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
                        let start = self.spans.len();
                        for pair in self.crossings.chunks_exact(2) {
                            push_if_long(&mut self.spans, Span { enter: pair[0], leave: pair[1] });
                        }
                        if !revolution.is_whole() && self.spans.len() > start {
                            let middle = self.spans.len();
                            self.spans.extend(revolution.between_ends(origin, self.direction, number));
                            intersect(&mut self.spans, start, middle);
                        }
                    }
                    PreparedLeaf::Polyhedron(body) => self.spans.extend(body.cast(origin, self.direction, number)),
                    PreparedLeaf::Ball(ball) => self.spans.extend(cast_ball(ball, origin, self.direction, number)),
                }
                *next += 1;
            }
            CsgSolid::Boolean(operation, left, right) => {
                let start = self.spans.len();
                self.evaluate(left, origin, next);
                let middle = self.spans.len();
                self.evaluate(right, origin, next);
                let end = self.spans.len();
                match operation {
                    Operation::Union if middle == end => {}
                    Operation::Union => unite(&mut self.spans, start, middle),
                    Operation::Cut if middle == end || start == middle => self.spans.truncate(middle),
                    Operation::Cut => subtract(&mut self.spans, start, middle),
                    Operation::Intersect if middle == end || start == middle => self.spans.truncate(start),
                    Operation::Intersect => intersect(&mut self.spans, start, middle),
                }
            }
        }
    }
}

/// Replaces `spans[start..]`, two sorted lists split at `middle`, by their union.
fn unite(spans: &mut Vec<Span>, start: usize, middle: usize) {
    let end = spans.len();
    let (mut a, mut b) = (start, middle);
    while a < middle || b < end {
        let take_left = b == end || (a < middle && spans[a].enter.at <= spans[b].enter.at + CONTACT);
        let next = if take_left { spans[a] } else { spans[b] };
        if take_left {
            a += 1;
        } else {
            b += 1;
        }
        match spans.last_mut().filter(|_| a + b > start + middle + 1) {
            Some(open) if next.enter.at <= open.leave.at + CONTACT => {
                if next.leave.at > open.leave.at + CONTACT {
                    open.leave = next.leave;
                }
            }
            _ => spans.push(next),
        }
    }
    keep_result(spans, start, end);
}

/// Replaces `spans[start..]`, two sorted lists split at `middle`, by the first minus the second.
fn subtract(spans: &mut Vec<Span>, start: usize, middle: usize) {
    let end = spans.len();
    for a in start..middle {
        let Span { mut enter, leave } = spans[a];
        for b in middle..end {
            let tool = spans[b];
            if tool.leave.at <= enter.at + CONTACT {
                continue;
            }
            if tool.enter.at >= leave.at - CONTACT {
                break;
            }
            push_if_long(spans, Span { enter, leave: tool.enter });
            enter = tool.leave;
        }
        push_if_long(spans, Span { enter, leave });
    }
    keep_result(spans, start, end);
}

/// Replaces `spans[start..]`, two sorted lists split at `middle`, by their intersection.
fn intersect(spans: &mut Vec<Span>, start: usize, middle: usize) {
    let end = spans.len();
    let (mut a, mut b) = (start, middle);
    while a < middle && b < end {
        let (left, right) = (spans[a], spans[b]);
        let enter = if left.enter.at >= right.enter.at - CONTACT { left.enter } else { right.enter };
        let leave = if left.leave.at <= right.leave.at + CONTACT { left.leave } else { right.leave };
        push_if_long(spans, Span { enter, leave });
        if left.leave.at < right.leave.at {
            a += 1;
        } else {
            b += 1;
        }
    }
    keep_result(spans, start, end);
}

fn push_if_long(spans: &mut Vec<Span>, span: Span) {
    if span.leave.at > span.enter.at + CONTACT {
        spans.push(span);
    }
}

/// Moves the result, which was appended after the operands, to the position of the operands.
fn keep_result(spans: &mut Vec<Span>, start: usize, end: usize) {
    let count = spans.len() - end;
    spans.copy_within(end.., start);
    spans.truncate(start + count);
}

impl<'a> Prepared<'a> {
    fn new(extrusion: &'a Extrusion, direction: Vec3) -> Self {
        let local = extrusion.plane.direction_to_local(direction);
        let flat = local.xy();
        let along_normal = flat.norm() < 1e-9;
        let (scan, stretch) = if along_normal { (Vec2::x(), 0.0) } else { (flat.normalize(), 1.0 / flat.norm()) };
        let left = Vec2::new(-scan.y, scan.x);
        let edges = extrusion.region.edges().map(|edge| PreparedEdge::new(edge, scan));
        let region = &extrusion.region;
        Self {
            extrusion,
            local,
            along_normal,
            scan,
            stretch,
            offset_range: (-region.support(-left), region.support(left)),
            edges: edges.collect(),
        }
    }

    /// Appends the spans of the line through `origin`.
    fn cast(&self, origin: Vec3, primitive: u16, crossings: &mut Vec<Boundary>, spans: &mut Vec<Span>) {
        let local = self.extrusion.plane.to_local(origin);
        let offset = cross(self.scan, local.xy());
        if offset < self.offset_range.0 || offset > self.offset_range.1 {
            return;
        }
        let Some(slab) = self.slab(local.z, primitive) else {
            return;
        };
        crossings.clear();
        let start = self.scan.dot(&local.xy());
        let face = |side: usize| FaceId { primitive, face: FaceId::FIRST_SIDE + side as u16 };
        for (side, edge) in self.edges.iter().enumerate() {
            edge.crossings(offset, |along| crossings.push(Boundary { at: along - start, face: face(side) }));
        }
        if self.along_normal {
            if crossings.iter().filter(|crossing| crossing.at > 0.0).count() % 2 == 1 {
                spans.push(slab);
            }
            return;
        }
        // There are few crossings, nearly sorted: insertion sort needs no allocation.
        for i in 1..crossings.len() {
            let mut j = i;
            while j > 0 && crossings[j].at < crossings[j - 1].at {
                crossings.swap(j, j - 1);
                j -= 1;
            }
        }
        for pair in crossings.chunks_exact(2) {
            let enter = Boundary { at: pair[0].at * self.stretch, ..pair[0] };
            let leave = Boundary { at: pair[1].at * self.stretch, ..pair[1] };
            let enter = if slab.enter.at > enter.at { slab.enter } else { enter };
            let leave = if slab.leave.at < leave.at { slab.leave } else { leave };
            push_if_long(spans, Span { enter, leave });
        }
    }

    /// The interval of the line between the caps; `None` if there is none.
    fn slab(&self, height: f64, primitive: u16) -> Option<Span> {
        let Extrusion { low, high, .. } = *self.extrusion;
        let cap = |at: f64, face: u16| Boundary { at, face: FaceId { primitive, face } };
        if self.local.z.abs() < 1e-12 {
            // Half open, so that exactly one of two stacked bodies holds a line in their common
            // plane.
            return (low <= height && height < high).then(|| Span {
                enter: cap(f64::NEG_INFINITY, FaceId::LOW_CAP),
                leave: cap(f64::INFINITY, FaceId::HIGH_CAP),
            });
        }
        let at_low = cap((low - height) / self.local.z, FaceId::LOW_CAP);
        let at_high = cap((high - height) / self.local.z, FaceId::HIGH_CAP);
        Some(if self.local.z > 0.0 {
            Span { enter: at_low, leave: at_high }
        } else {
            Span { enter: at_high, leave: at_low }
        })
    }
}

/// The interval of a line inside a ball.
fn cast_ball(ball: &Ball, origin: Vec3, direction: Vec3, primitive: u16) -> Option<Span> {
    let to_center = ball.center - origin;
    let middle = to_center.dot(&direction);
    let aside = to_center - direction * middle;
    let half = (ball.radius * ball.radius - aside.norm_squared()).max(0.0).sqrt();
    let face = FaceId { primitive, face: 0 };
    let span = Span { enter: Boundary { at: middle - half, face }, leave: Boundary { at: middle + half, face } };
    (half > CONTACT).then_some(span)
}

/// Calls `found` with each crossing of the line through `origin` along the unit vector `scan` with
/// the outline of an extrusion's region.
pub(super) fn crossings_of_line(extrusion: &Extrusion, origin: Vec2, scan: Vec2, mut found: impl FnMut(f64)) {
    let (offset, start) = (cross(scan, origin), scan.dot(&origin));
    for edge in extrusion.region.edges() {
        PreparedEdge::new(edge, scan).crossings(offset, |along| found(along - start));
    }
}

/// Number of crossings of the ray from `point` along x with the edges.
pub(crate) fn crossings_ahead(edges: &[Edge], point: Vec2) -> usize {
    let mut count = 0;
    for edge in edges {
        PreparedEdge::new(edge, Vec2::x()).crossings(point.y, |along| count += usize::from(along > point.x));
    }
    count
}

/// Whether an arc from `a` to `b` (seen from its centre) passes its extreme in direction `u`, not
/// counting its ends.
///
/// An extreme that coincides with an end up to rounding adds nothing to the outline but would spoil
/// the order of the pieces.
fn turns_through(a: Vec2, b: Vec2, u: Vec2) -> bool {
    let is_end = |end: Vec2| end.dot(&u) > 0.0 && cross(end, u).abs() <= 1e-6 * end.norm();
    within_turn(a, b, u) && !is_end(a) && !is_end(b)
}

impl PreparedEdge {
    fn new(edge: &Edge, scan: Vec2) -> Self {
        let end = |point: Vec2| End { offset: cross(scan, point), along: scan.dot(&point) };
        let left = Vec2::new(-scan.y, scan.x);
        match *edge {
            Edge::Line { from, to } => Self::Line { from: end(from), to: end(to) },
            Edge::Circle { center, radius } => Self::Circle { center: end(center), radius },
            Edge::Arc { from, to, center, radius, counter_clockwise } => {
                let (a, b) =
                    if counter_clockwise { (from - center, to - center) } else { (to - center, from - center) };
                Self::Arc {
                    from: end(from),
                    to: end(to),
                    center: end(center),
                    radius,
                    counter_clockwise,
                    has_left: turns_through(a, b, left),
                    has_right: turns_through(a, b, -left),
                }
            }
        }
    }

    /// Calls `found` with the position along the scan of each crossing with the line at `offset`.
    ///
    /// A point at exactly `offset` counts as lying to the right. Each monotone piece of an edge is
    /// crossed once if its ends lie on different sides, so the number of crossings of a closed wire
    /// is even whatever the rounding.
    fn crossings(&self, offset: f64, mut found: impl FnMut(f64)) {
        let is_left = |end: f64| end > offset;
        match *self {
            Self::Line { from, to } => {
                if is_left(from.offset) != is_left(to.offset) {
                    let share = (offset - from.offset) / (to.offset - from.offset);
                    found(from.along + share * (to.along - from.along));
                }
            }
            Self::Circle { center, radius } => {
                let height = offset - center.offset;
                // The highest point must lie to the left, the lowest to the right.
                if is_left(center.offset + radius) && !is_left(center.offset - radius) {
                    let half = (radius * radius - height * height).max(0.0).sqrt();
                    found(center.along - half);
                    found(center.along + half);
                }
            }
            Self::Arc { from, to, center, radius, counter_clockwise, has_left, has_right } => {
                let height = offset - center.offset;
                let half = (radius * radius - height * height).max(0.0).sqrt();
                // Counter-clockwise, offsets grow on the side to which the scan points and fall on
                // the other.
                let forward = if counter_clockwise { half } else { -half };
                let mut piece = |a: f64, b: f64| {
                    if is_left(a) != is_left(b) {
                        found(center.along + if b > a { forward } else { -forward });
                    }
                };
                let (top, bottom) = (center.offset + radius, center.offset - radius);
                match (has_left, has_right) {
                    (false, false) => piece(from.offset, to.offset),
                    (true, false) => {
                        piece(from.offset, top);
                        piece(top, to.offset);
                    }
                    (false, true) => {
                        piece(from.offset, bottom);
                        piece(bottom, to.offset);
                    }
                    (true, true) => {
                        // Order of the extremes: a counter-clockwise arc that begins on the growing
                        // side (ahead of the centre) meets the top first.
                        let top_first = (from.along > center.along) == counter_clockwise;
                        let (first, second) = if top_first { (top, bottom) } else { (bottom, top) };
                        piece(from.offset, first);
                        piece(first, second);
                        piece(second, to.offset);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
