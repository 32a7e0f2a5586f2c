//! Exact plane sections of a solid by a sweep of parallel planes.
//!
//! In a plane, the outlines of all leaves end, or cross each other, at certain positions across.
//! Between two neighbouring positions the section consists of *cells*, stacked on each other, each
//! between a bottom and a top curve of known form. One line in the middle of the strip finds these
//! cells ([`LineCaster`]). Areas, moments and extents of cells have closed forms.

use super::cast::crossings_of_line;
use super::region::within_turn;
use super::{CONTACT, CsgSolid, Edge, Extrusion, LineCaster, Polyhedron, Primitive, Revolution, Vec2, Vec3};

/// Directions whose dot product is below this are perpendicular. Directions whose dot product
/// differs from 1 by less than this are parallel.
const ALIGNED: f64 = 1e-9;

/// A part of a section, bounded by two positions across and two curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Index of its strip.
    pub strip: usize,
    /// Range of positions across.
    pub x: [f64; 2],
    /// Bottom curve.
    pub bottom: Curve,
    /// Top curve.
    pub top: Curve,
}

/// A curve with one height per position across.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Curve {
    /// `y = at + slope * x`.
    Line {
        /// Height at 0.
        at: f64,
        /// Slope.
        slope: f64,
    },
    /// The upper or the lower half of a circle.
    Arc {
        /// Its centre.
        center: Vec2,
        /// Its radius.
        radius: f64,
        /// 1 for the upper half, -1 for the lower.
        side: f64,
    },
}

impl Curve {
    /// The part of `edge` that contains `point`, a point on it.
    fn of(edge: &Edge, point: Vec2) -> Self {
        match *edge {
            Edge::Line { from, to } => {
                let slope = (to.y - from.y) / (to.x - from.x);
                Self::Line { at: from.y - slope * from.x, slope }
            }
            Edge::Arc { center, radius, .. } | Edge::Circle { center, radius } => {
                Self::Arc { center, radius, side: if point.y >= center.y { 1.0 } else { -1.0 } }
            }
        }
    }

    /// Height at `x`.
    pub fn y(&self, x: f64) -> f64 {
        match *self {
            Self::Line { at, slope } => at + slope * x,
            Self::Arc { center, radius, side } => {
                center.y + side * (radius * radius - (x - center.x).powi(2)).max(0.0).sqrt()
            }
        }
    }

    /// The largest `direction . p` over the curve between two positions across.
    pub fn support(&self, x: [f64; 2], direction: Vec2) -> f64 {
        let ends = x.map(|x| direction.x * x + direction.y * self.y(x));
        let most = ends[0].max(ends[1]);
        let Self::Arc { center, radius, side } = *self else { return most };
        let norm = direction.norm();
        let touch = center.x + radius * direction.x / norm;
        if direction.y * side > 0.0 && (x[0]..=x[1]).contains(&touch) {
            direction.dot(&center) + radius * norm
        } else {
            most
        }
    }

    /// Calls `add(x, y, weight)` for the nodes of a quadrature rule along the curve over `x`, for
    /// polynomials in x and y of total degree 3. The rule is exact on a line. On an arc the
    /// integrands are trigonometric polynomials in the angle, and the rule is exact up to rounding.
    fn integrate(&self, x: [f64; 2], mut add: impl FnMut(f64, f64, f64)) {
        match *self {
            Self::Line { .. } => {
                let (middle, half) = ((x[0] + x[1]) / 2.0, (x[1] - x[0]) / 2.0);
                for (node, weight) in GAUSS_3 {
                    let at = middle + half * node;
                    add(at, self.y(at), weight * half);
                }
            }
            Self::Arc { center, radius, side } => {
                // x = c + r sin(angle).
                let angle = x.map(|x| ((x - center.x) / radius).clamp(-1.0, 1.0).asin());
                let (middle, half) = ((angle[0] + angle[1]) / 2.0, (angle[1] - angle[0]) / 2.0);
                for (node, weight) in GAUSS_10.into_iter().flat_map(|(node, weight)| [(node, weight), (-node, weight)])
                {
                    let (sin, cos) = (middle + half * node).sin_cos();
                    add(center.x + radius * sin, center.y + side * radius * cos, weight * half * radius * cos);
                }
            }
        }
    }
}

/// Gauss-Legendre nodes and weights on [-1, 1] (Abramowitz and Stegun, table 25.4), n = 3.
const GAUSS_3: [(f64, f64); 3] = [
    (-0.774_596_669_241_483_4, 0.555_555_555_555_555_6),
    (0.0, 0.888_888_888_888_889),
    (0.774_596_669_241_483_4, 0.555_555_555_555_555_6),
];

/// The same for n = 10: positive nodes.
const GAUSS_10: [(f64, f64); 5] = [
    (0.148_874_338_981_631_2, 0.295_524_224_714_752_87),
    (0.433_395_394_129_247_2, 0.269_266_719_309_996_35),
    (0.679_409_568_299_024_4, 0.219_086_362_515_982_04),
    (0.865_063_366_688_984_5, 0.149_451_349_150_580_6),
    (0.973_906_528_517_171_7, 0.066_671_344_308_688_14),
];

/// Integrals over a section: of 1, of `(x, y)`, and of `x^2`, `x y`, `y^2`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flat {
    /// Area.
    pub area: f64,
    /// First moments.
    pub first: [f64; 2],
    /// `x^2`, `x y`, `y^2`.
    pub second: [f64; 3],
}

impl Cell {
    /// Heights of both curves at the middle of the cell.
    pub fn middle(&self) -> [f64; 2] {
        self.heights((self.x[0] + self.x[1]) / 2.0)
    }

    /// Heights of both curves at `x`.
    pub fn heights(&self, x: f64) -> [f64; 2] {
        [self.bottom.y(x), self.top.y(x)]
    }

    /// The largest `direction . p` over the cell.
    pub fn support(&self, direction: Vec2) -> f64 {
        self.bottom.support(self.x, direction).max(self.top.support(self.x, direction))
    }
}

impl Flat {
    /// Integrals over cells, by Green's theorem along their curves.
    pub fn of(cells: &[Cell]) -> Self {
        let mut flat = Self::default();
        for cell in cells {
            for (curve, sign) in [(cell.top, 1.0), (cell.bottom, -1.0)] {
                curve.integrate(cell.x, |x, y, weight| {
                    let weight = sign * weight;
                    flat.area += weight * y;
                    flat.first[0] += weight * x * y;
                    flat.first[1] += weight * y * y / 2.0;
                    flat.second[0] += weight * x * x * y;
                    flat.second[1] += weight * x * y * y / 2.0;
                    flat.second[2] += weight * y * y * y / 3.0;
                });
            }
        }
        flat
    }
}

/// A family of parallel planes across a solid in which the section of each leaf consists of lines
/// and arcs.
pub struct Sweep<'a> {
    /// `u` goes across, `v` upward in the planes, `w` along the sweep.
    pub axes: [Vec3; 3],
    caster: LineCaster<'a>,
    leaves: Vec<Leaf<'a>>,
    /// Positions across at which upright leaves end, turn back or cross each other.
    upright: Vec<f64>,
    /// Origin of positions: near the solid, so that no digits are lost.
    origin: Vec3,
}

/// Orientation of a leaf relative to the planes.
enum Leaf<'a> {
    /// Extruded along the sweep: the same outline in all planes between two heights.
    Upright {
        edges: Vec<Edge>,
        range: [f64; 2],
    },
    /// Extruded across the sweep: its sections are strips.
    Lying(&'a Extrusion),
    /// Extruded obliquely, from straight lines only.
    Slanted(&'a Extrusion),
    /// A centre and a radius.
    Ball {
        center: Vec3,
        radius: f64,
    },
    /// Turned about an axis along the sweep: its sections are rings, with two lines from the axis
    /// if the turn is not a full one.
    Turned(&'a Revolution),
    Polyhedron(&'a Polyhedron),
}

impl<'a> Sweep<'a> {
    /// The planes across `direction`, a unit vector. `None` if a leaf has section curves other than
    /// lines and arcs.
    pub fn new(solid: &'a CsgSolid, direction: Vec3) -> Option<Self> {
        let bounds = solid.bounds()?;
        let aside = solid
            .primitives()
            .into_iter()
            .find_map(|leaf| match leaf {
                Primitive::Extrusion(prism) => {
                    [prism.plane.x, prism.plane.z].into_iter().find(|axis| axis.dot(&direction).abs() < ALIGNED)
                }
                _ => None,
            })
            .unwrap_or_else(|| if direction.x.abs() < 0.6 { Vec3::x() } else { Vec3::y() });
        let u = (aside - direction * aside.dot(&direction)).normalize();
        let axes = [u, direction.cross(&u), direction];
        let origin = bounds.center();
        let leaves =
            solid.primitives().into_iter().map(|leaf| Leaf::of(leaf, &axes, origin)).collect::<Option<Vec<_>>>()?;
        let outlines: Vec<&[Edge]> = leaves
            .iter()
            .map(|leaf| if let Leaf::Upright { edges, .. } = leaf { edges.as_slice() } else { &[] })
            .collect();
        let mut upright = Vec::new();
        positions(&outlines, 0, &mut upright);
        Some(Self { axes, caster: solid.caster(axes[1]), leaves, upright, origin })
    }

    /// Whether the section changes only at [`Sweep::heights`].
    pub fn is_layered(&self) -> bool {
        self.leaves.iter().all(|leaf| matches!(leaf, Leaf::Upright { .. }))
    }

    /// The origin of the sweep's own coordinates.
    pub fn origin(&self) -> Vec3 {
        self.origin
    }

    /// Heights, in the sweep's own coordinates, at which a leaf begins, ends or turns back, and at
    /// which outlines of leaves along one axis cross.
    pub fn heights(&self, solid: &CsgSolid) -> Vec<f64> {
        let base = self.axes[2].dot(&self.origin);
        let mut found: Vec<f64> = solid.breaks(self.axes[2]).into_iter().map(|at| at - base).collect();
        let lying: Vec<&Extrusion> = self
            .leaves
            .iter()
            .filter_map(|leaf| if let Leaf::Lying(prism) = leaf { Some(*prism) } else { None })
            .collect();
        for (index, a) in lying.iter().enumerate() {
            let [axis, up] = [a.plane.z, self.axes[2]];
            let aside = axis.cross(&up);
            let flat = |prism: &Extrusion| -> Vec<Edge> {
                prism.region.edges().map(|edge| placed(edge, prism, &[aside, up], self.origin)).collect()
            };
            let mine = flat(a);
            for b in lying[..index].iter().filter(|b| b.plane.z.dot(&axis).abs() > 1.0 - ALIGNED) {
                for edge in flat(b) {
                    found.extend(mine.iter().flat_map(|other| other.crossings(&edge)).map(|point| point.y));
                }
            }
        }
        sorted(found)
    }

    /// The cells of the section at a height in the sweep's own coordinates. The height must not be
    /// that of a face across the sweep. Strips are numbered from low to high positions across;
    /// those of a layered solid are the same at all heights.
    pub fn section(&mut self, height: f64) -> Vec<Cell> {
        let mut outlines: Vec<Vec<Edge>> = Vec::with_capacity(self.leaves.len());
        let mut meets_itself = Vec::new();
        for (index, leaf) in self.leaves.iter().enumerate() {
            outlines.push(leaf.outline(height, &self.axes, self.origin));
            if matches!(leaf, Leaf::Slanted(_)) || matches!(leaf, Leaf::Turned(turned) if !turned.is_whole()) {
                meets_itself.push(index);
            }
        }
        let breaks = if self.is_layered() {
            self.upright.clone()
        } else {
            let mut found = Vec::new();
            let edges: Vec<&[Edge]> = outlines.iter().map(Vec::as_slice).collect();
            positions(&edges, 0, &mut found);
            for index in meets_itself {
                for (at, edge) in outlines[index].iter().enumerate() {
                    for other in &outlines[index][..at] {
                        found.extend(edge.crossings(other).iter().map(|point| point.x));
                    }
                }
            }
            found
        };
        let mut cells = Vec::new();
        let base = self.origin + self.axes[2] * height;
        for (strip, pair) in sorted(breaks).windows(2).enumerate() {
            let x = (pair[0] + pair[1]) / 2.0;
            for span in self.caster.spans(base + self.axes[0] * x) {
                let ends = [span.enter.at, span.leave.at].map(|at| Vec2::new(x, at));
                if let [Some(bottom), Some(top)] = ends.map(|end| curve_at(&outlines, end)) {
                    cells.push(Cell { strip, x: [pair[0], pair[1]], bottom, top });
                }
            }
        }
        cells
    }
}

/// The curve through a point of a section.
fn curve_at(outlines: &[Vec<Edge>], point: Vec2) -> Option<Curve> {
    let mut best: Option<(f64, Curve)> = None;
    for edge in outlines.iter().flatten() {
        let [low, high] = extent_across(edge);
        if point.x < low || point.x > high {
            continue;
        }
        // An arc may have two heights here; only one of them counts.
        let is_there = |curve: &Curve| match (edge, curve) {
            (Edge::Arc { from, to, center, counter_clockwise, .. }, _) => {
                let (a, b) =
                    if *counter_clockwise { (from - center, to - center) } else { (to - center, from - center) };
                within_turn(a, b, Vec2::new(point.x, curve.y(point.x)) - center)
            }
            _ => true,
        };
        let curve = Curve::of(edge, point);
        let away = (curve.y(point.x) - point.y).abs();
        if best.is_none_or(|(least, _)| away < least) && is_there(&curve) {
            best = Some((away, curve));
        }
    }
    best.filter(|(away, _)| *away < 1e-6).map(|(_, curve)| curve)
}

/// Range of positions across of an edge.
fn extent_across(edge: &Edge) -> [f64; 2] {
    [-edge.support(-Vec2::x()), edge.support(Vec2::x())]
}

/// Positions at which edges end, turn back, or cross edges of other leaves, starting with leaf
/// `first`.
fn positions(leaves: &[&[Edge]], first: usize, found: &mut Vec<f64>) {
    let boxes: Vec<Vec<[f64; 4]>> = leaves
        .iter()
        .map(|edges| {
            edges
                .iter()
                .map(|edge| {
                    let [left, right] = extent_across(edge);
                    [left, right, -edge.support(-Vec2::y()), edge.support(Vec2::y())]
                })
                .collect()
        })
        .collect();
    for (index, edges) in leaves.iter().enumerate().skip(first) {
        for (edge, reach) in edges.iter().zip(&boxes[index]) {
            found.extend([reach[0], reach[1]]);
            found.extend(edge.ends().into_iter().flat_map(|(from, to)| [from.x, to.x]));
            for (others, reaches) in leaves[..index].iter().zip(&boxes) {
                for (other, far) in others.iter().zip(reaches) {
                    let apart = reach[0] > far[1] || far[0] > reach[1] || reach[2] > far[3] || far[2] > reach[3];
                    if !apart {
                        found.extend(edge.crossings(other).iter().map(|point| point.x));
                    }
                }
            }
        }
    }
}

/// An edge of a prism's sketch in the coordinates of two axes in its plane.
fn placed(edge: &Edge, prism: &Extrusion, axes: &[Vec3; 2], origin: Vec3) -> Edge {
    let plane = &prism.plane;
    let at = |point: Vec2| {
        let there = plane.to_space(point, 0.0) - origin;
        Vec2::new(axes[0].dot(&there), axes[1].dot(&there))
    };
    let is_turned = axes[0].cross(&axes[1]).dot(&plane.z) < 0.0;
    match *edge {
        Edge::Line { from, to } => Edge::Line { from: at(from), to: at(to) },
        Edge::Circle { center, radius } => Edge::Circle { center: at(center), radius },
        Edge::Arc { from, to, center, radius, counter_clockwise } => Edge::Arc {
            from: at(from),
            to: at(to),
            center: at(center),
            radius,
            counter_clockwise: counter_clockwise != is_turned,
        },
    }
}

impl<'a> Leaf<'a> {
    fn of(leaf: Primitive<'a>, axes: &[Vec3; 3], origin: Vec3) -> Option<Self> {
        let along = axes[2];
        match leaf {
            Primitive::Polyhedron(polyhedron) => Some(Self::Polyhedron(polyhedron)),
            Primitive::Ball(ball) => Some(Self::Ball { center: ball.center, radius: ball.radius }),
            Primitive::Revolution(turned) => {
                (turned.plane.z.dot(&along).abs() > 1.0 - ALIGNED).then_some(Self::Turned(turned))
            }
            Primitive::Extrusion(prism) => {
                let tilt = prism.plane.z.dot(&along);
                if tilt.abs() > 1.0 - ALIGNED {
                    let edges =
                        prism.region.edges().map(|edge| placed(edge, prism, &[axes[0], axes[1]], origin)).collect();
                    let base = along.dot(&(prism.plane.origin - origin));
                    let ends = [prism.low, prism.high].map(|height| base + tilt.signum() * height);
                    Some(Self::Upright { edges, range: [ends[0].min(ends[1]), ends[0].max(ends[1])] })
                } else if tilt.abs() < ALIGNED {
                    Some(Self::Lying(prism))
                } else {
                    let is_straight = prism.region.edges().all(|edge| matches!(edge, Edge::Line { .. }));
                    is_straight.then_some(Self::Slanted(prism))
                }
            }
        }
    }

    /// Edges of the section at a height. Extra edges only divide the section: the sides of an
    /// oblique leaf are not cut off at its caps.
    fn outline(&self, height: f64, axes: &[Vec3; 3], origin: Vec3) -> Vec<Edge> {
        let flat = |point: Vec3| Vec2::new(axes[0].dot(&(point - origin)), axes[1].dot(&(point - origin)));
        let rising = axes[2].dot(&origin) + height;
        match self {
            Self::Upright { edges, range } if (range[0]..range[1]).contains(&height) => edges.clone(),
            Self::Upright { .. } => Vec::new(),
            Self::Polyhedron(polyhedron) => polyhedron.outline(axes[2], rising, flat),
            Self::Ball { center, radius } => {
                let aside = axes[2].dot(center) - rising;
                let around = radius * radius - aside * aside;
                if around > CONTACT * CONTACT {
                    vec![Edge::Circle { center: flat(*center), radius: around.sqrt() }]
                } else {
                    Vec::new()
                }
            }
            Self::Turned(turned) => {
                let tilt = turned.plane.z.dot(&axes[2]).signum();
                let level = tilt * (rising - axes[2].dot(&turned.plane.origin));
                let center = flat(turned.plane.origin);
                let ring = |[a, b]: &[Vec2; 2]| {
                    let share = (level - a.y) / (b.y - a.y);
                    let radius = a.x + share * (b.x - a.x);
                    ((0.0..=1.0).contains(&share) && radius > CONTACT).then_some(Edge::Circle { center, radius })
                };
                let mut edges: Vec<Edge> = turned.sides.iter().filter_map(ring).collect();
                if !turned.is_whole() && !edges.is_empty() {
                    let reach = turned.sides.iter().flatten().map(|end| end.x).fold(0.0, f64::max);
                    let at = |end: Vec2| flat(turned.plane.to_space(end * reach, 0.0));
                    edges.extend(turned.ends().map(|end| Edge::Line { from: center, to: at(end) }));
                }
                edges
            }
            Self::Lying(prism) => {
                // The section's plane cuts the sketch plane in a line.
                let plane = &prism.plane;
                let local = plane.direction_to_local(axes[2]).xy();
                let scan = Vec2::new(-local.y, local.x);
                let start = local * (rising - axes[2].dot(&plane.origin));
                let mut hits = Vec::new();
                crossings_of_line(prism, start, scan, |at| hits.push(at));
                hits.sort_by(f64::total_cmp);
                let corner = |at: f64, height: f64| flat(plane.to_space(start + scan * at, height));
                let mut edges = Vec::with_capacity(2 * hits.len());
                for pair in hits.chunks_exact(2).filter(|pair| pair[1] - pair[0] > CONTACT) {
                    for (from, to) in [
                        ((pair[0], prism.low), (pair[0], prism.high)),
                        ((pair[1], prism.low), (pair[1], prism.high)),
                        ((pair[0], prism.low), (pair[1], prism.low)),
                        ((pair[0], prism.high), (pair[1], prism.high)),
                    ] {
                        edges.push(Edge::Line { from: corner(from.0, from.1), to: corner(to.0, to.1) });
                    }
                }
                edges
            }
            Self::Slanted(prism) => {
                let plane = &prism.plane;
                let local = plane.direction_to_local(axes[2]);
                let level = rising - axes[2].dot(&plane.origin);
                let over = |point: Vec2| flat(plane.to_space(point, (level - local.xy().dot(&point)) / local.z));
                let mut edges: Vec<Edge> = prism
                    .region
                    .edges()
                    .filter_map(Edge::ends)
                    .map(|(from, to)| Edge::Line { from: over(from), to: over(to) })
                    .collect();
                let rise = local.xy().norm();
                let (toward, scan) = (local.xy() / rise, Vec2::new(-local.y, local.x) / rise);
                for cap in [prism.low, prism.high] {
                    let start = toward * ((level - local.z * cap) / rise);
                    let mut hits = Vec::new();
                    crossings_of_line(prism, start, scan, |at| hits.push(at));
                    hits.sort_by(f64::total_cmp);
                    for pair in hits.chunks_exact(2) {
                        let [from, to] = [pair[0], pair[1]].map(|at| flat(plane.to_space(start + scan * at, cap)));
                        edges.push(Edge::Line { from, to });
                    }
                }
                edges
            }
        }
    }
}

impl CsgSolid {
    /// Positions along `direction` at which a leaf begins, ends or turns back, sorted.
    pub(crate) fn breaks(&self, direction: Vec3) -> Vec<f64> {
        let mut found = Vec::new();
        for leaf in self.primitives() {
            let extrusion = match leaf {
                Primitive::Extrusion(extrusion) => extrusion,
                Primitive::Ball(_) => {
                    found.extend([-leaf.support(-direction), leaf.support(direction)]);
                    continue;
                }
                Primitive::Revolution(revolution) => {
                    revolution.breaks(direction, &mut found);
                    continue;
                }
                Primitive::Polyhedron(polyhedron) => {
                    found.extend(polyhedron.corners.iter().map(|corner| direction.dot(corner)));
                    continue;
                }
            };
            let local = extrusion.plane.direction_to_local(direction);
            let base = direction.dot(&extrusion.plane.origin);
            let caps = [base + local.z * extrusion.low, base + local.z * extrusion.high];
            if local.xy().norm() < 1e-9 {
                found.extend(caps);
                continue;
            }
            for edge in extrusion.region.edges() {
                let (low, high) = (-edge.support(-local.xy()), edge.support(local.xy()));
                let ends = edge.ends().map_or([low, high], |(from, to)| [local.xy().dot(&from), local.xy().dot(&to)]);
                for at in [low, high].into_iter().chain(ends) {
                    found.extend(caps.map(|cap| cap + at));
                }
            }
        }
        sorted(found)
    }
}

/// Sorts and removes duplicates.
fn sorted(mut breaks: Vec<f64>) -> Vec<f64> {
    breaks.sort_by(f64::total_cmp);
    let tiny = 1e-9 * breaks.last().zip(breaks.first()).map_or(0.0, |(high, low)| high - low);
    breaks.dedup_by(|b, a| *b - *a <= tiny);
    breaks
}
