//! When the kernel's boolean is certain to be the set operation, and what is left of it.

use std::f64::consts::TAU;

use super::Decline;
use super::wires::CLEAR;
use crate::csg::{CsgSolid, Edge, Extrusion, LineCaster, Operation, Primitive, Surface, Vec3, faces_of};

/// A full turn, but for rounding.
const WHOLE: f64 = TAU - 1e-6;
/// Two directions or distances closer than this are one.
const SAME: f64 = 1e-9;
/// Pairs of surfaces that one boolean may cost.
const MOST_PAIRS: usize = 1_000_000;
/// Angles (as sines) between [`SAME`] and this are neither parallel nor clearly apart.
const NEARLY_PARALLEL: f64 = 1e-5;

/// The surface under a face, and how far around its axis a round face goes.
struct Sheet {
    surface: Surface,
    sweep: f64,
}

fn sheets(leaf: Primitive<'_>) -> Vec<Sheet> {
    let edges: Vec<&Edge> = match leaf {
        Primitive::Extrusion(extrusion) => extrusion.region.edges().collect(),
        Primitive::Ball(_) | Primitive::Revolution(_) => Vec::new(),
    };
    // The caps of an extrusion come first.
    let sweeps = [0.0; 2].into_iter().chain(edges.into_iter().map(Edge::sweep)).chain(std::iter::repeat(TAU));
    faces_of(leaf).into_iter().zip(sweeps).map(|(surface, sweep)| Sheet { surface, sweep }).collect()
}

/// Whether a boolean between two solids is the set operation for certain. Where surfaces coincide or are clearly apart,
/// the kernel's answer is; between its tolerance and [`CLEAR`] it is not.
pub fn check_boolean(a: &CsgSolid, b: &CsgSolid) -> Result<(), Decline> {
    let sheets_of = |solid: &CsgSolid| -> Vec<Sheet> { solid.primitives().into_iter().flat_map(sheets).collect() };
    let (left, right) = (sheets_of(a), sheets_of(b));
    if left.len().saturating_mul(right.len()) > MOST_PAIRS {
        return Err(Decline::new("too many faces", ""));
    }
    let turned = |solid: &CsgSolid| solid.primitives().iter().any(|leaf| matches!(leaf, Primitive::Revolution(_)));
    if turned(a) || turned(b) {
        // Not compared with the kernel's yet.
        return Err(Decline::new("boolean with a solid of revolution", ""));
    }
    for s in &left {
        for t in &right {
            if let Some(problem) = nearly_touching(s, t) {
                return Err(Decline::new("surfaces nearly coincide", problem));
            }
        }
    }
    Ok(())
}

fn doubtful(distance: f64) -> bool {
    (SAME..CLEAR).contains(&distance.abs())
}

fn nearly_touching(s: &Sheet, t: &Sheet) -> Option<String> {
    match (&s.surface, &t.surface) {
        (Surface::Plane { normal: n, offset: p }, Surface::Plane { normal: m, offset: q }) => {
            let sine = n.cross(m).norm();
            if sine < SAME {
                let apart = if n.dot(m) > 0.0 { p - q } else { p + q };
                doubtful(apart).then(|| format!("planes {apart:e} apart"))
            } else {
                (sine < NEARLY_PARALLEL).then(|| format!("planes at an angle of {sine:e}"))
            }
        }
        (Surface::Plane { normal, offset }, Surface::Cylinder { center, axis, radius, .. })
        | (Surface::Cylinder { center, axis, radius, .. }, Surface::Plane { normal, offset }) => {
            let slope = normal.dot(axis).abs();
            if slope > NEARLY_PARALLEL {
                return None;
            }
            if slope > SAME {
                return Some(format!("a plane at an angle of {slope:e} to a cylinder"));
            }
            let apart = (normal.dot(center) - offset).abs() - radius;
            doubtful(apart).then(|| format!("a plane {apart:e} from a cylinder"))
        }
        (
            Surface::Cylinder { center: c, axis: a, radius: r, .. },
            Surface::Cylinder { center: d, axis: b, radius: q, .. },
        ) => {
            let sine = a.cross(b).norm();
            if sine > NEARLY_PARALLEL {
                // Equal cylinders whose axes cross touch at two points, where their curves of intersection cross: the
                // kernel often fails there.
                let apart = (d - c).dot(&a.cross(b)).abs() / sine;
                return ((r - q).abs() < CLEAR && apart < CLEAR).then(|| "equal cylinders cross".to_owned());
            }
            if sine > SAME {
                return Some(format!("cylinders at an angle of {sine:e}"));
            }
            let apart = (d - c).cross(a).norm();
            if apart < SAME && (r - q).abs() < SAME && s.sweep < WHOLE && t.sweep < WHOLE && s.sweep + t.sweep > WHOLE {
                // Two arcs that make a whole cylinder: joining their faces may go wrong.
                return Some("arcs that close a cylinder".to_owned());
            }
            if apart < SAME {
                return doubtful(r - q).then(|| format!("cylinders of radii {:e} apart", r - q));
            }
            if apart < CLEAR {
                return Some(format!("axes {apart:e} apart"));
            }
            let (outside, inside) = (apart - (r + q), apart - (r - q).abs());
            (doubtful(outside) || doubtful(inside))
                .then(|| format!("cylinders nearly tangent ({outside:e}, {inside:e})"))
        }
        (Surface::Sphere { center, radius }, other) | (other, Surface::Sphere { center, radius }) => {
            let touching = match other {
                Surface::Cone { .. } => Vec::new(),
                Surface::Plane { normal, offset } => vec![(normal.dot(center) - offset).abs() - radius],
                Surface::Cylinder { center: c, axis, radius: r, .. } => {
                    let apart = (center - c).cross(axis).norm();
                    vec![apart - (r + radius), apart - (r - radius).abs()]
                }
                Surface::Sphere { center: c, radius: r } => {
                    let apart = (center - c).norm();
                    vec![apart - (r + radius), apart - (r - radius).abs()]
                }
            };
            // Spheres that touch in a point or along a circle are beyond what is known of the kernel.
            touching.iter().find(|gap| gap.abs() < CLEAR).map(|gap| format!("a sphere {gap:e} from a surface"))
        }
        // Only solids of revolution have cones.
        (Surface::Cone { .. }, _) | (_, Surface::Cone { .. }) => None,
    }
}

/// Whether nothing is left of a solid. Looks along all three axes between the breaks of all sketches, so that whatever
/// is bounded by planes along the axes is found however thin, and on an even raster for the rest.
pub fn is_empty(solid: &CsgSolid) -> bool {
    let Some(bounds) = solid.bounds() else { return true };
    if bounds.size().min() < SAME {
        // Bodies that touch at a face, but for rounding.
        return true;
    }
    (0..3).all(|axis| {
        let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
        let lines = [u, v].map(|axis| probes(solid, axis, bounds.min[axis], bounds.max[axis]));
        let mut caster = solid.caster(Vec3::ith(axis, 1.0));
        lines[0].iter().all(|&a| lines[1].iter().all(|&b| caster.spans(Vec3::ith(u, a) + Vec3::ith(v, b)).is_empty()))
    })
}

/// Positions on the raster that is laid over every solid.
const RASTER: usize = 24;

/// Positions along an axis: the middles between neighbouring breaks, and an even raster.
pub fn probes(solid: &CsgSolid, axis: usize, low: f64, high: f64) -> Vec<f64> {
    const MOST: usize = 160;
    let breaks = solid.breaks(Vec3::ith(axis, 1.0));
    let mut found: Vec<f64> = breaks.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).take(MOST).collect();
    // Off the middle, so that symmetric parts are not looked at along their planes of symmetry alone.
    found.extend((0..RASTER).map(|k| low + (high - low) * (k as f64 + 0.4567) / RASTER as f64));
    // A line in the plane of a face is inside or outside by rounding alone.
    let beside = |at: f64| {
        let next = breaks.partition_point(|b| *b < at);
        breaks[next.saturating_sub(1)..breaks.len().min(next + 1)].iter().all(|b| (b - at).abs() > SAME)
    };
    found.retain(|&at| (low..=high).contains(&at) && beside(at));
    found
}

/// How many separate solids there are: stretches of neighbouring lines that overlap belong together. Stretches that only
/// touch do not. Where more than one is found, lines are added between those whose stretches miss each other, as they
/// do where a thin wall runs aslant.
pub fn components(solid: &CsgSolid) -> u32 {
    let count = Parts::of(solid, 0);
    if count <= 1 { count } else { count.min(Parts::of(solid, Parts::DEPTH)) }
}

/// Stretches of lines along x, joined where they belong together.
struct Parts<'a> {
    caster: LineCaster<'a>,
    parents: Vec<usize>,
    lines_left: usize,
}

/// A line at `(y, z)` and its stretches: from, to, number.
#[derive(Clone)]
struct Row {
    at: [f64; 2],
    spans: Vec<(f64, f64, usize)>,
}

impl<'a> Parts<'a> {
    /// How often the space between two lines is halved.
    const DEPTH: usize = 6;
    /// Lines in all.
    const LINES: usize = 60_000;

    fn of(solid: &'a CsgSolid, depth: usize) -> u32 {
        let Some(bounds) = solid.bounds() else { return 0 };
        let [ys, zs] = [1, 2].map(|axis| {
            let mut found = probes(solid, axis, bounds.min[axis], bounds.max[axis]);
            found.sort_by(f64::total_cmp);
            found
        });
        let mut parts = Self { caster: solid.caster(Vec3::x()), parents: Vec::new(), lines_left: Self::LINES };
        let mut before: Vec<Row> = Vec::new();
        for &y in &ys {
            let column: Vec<Row> = zs.iter().map(|&z| parts.cast([y, z])).collect();
            for pair in column.windows(2) {
                parts.connect(&pair[0], &pair[1], depth);
            }
            for (row, neighbour) in before.iter().zip(&column) {
                parts.connect(row, neighbour, depth);
            }
            before = column;
        }
        (0..parts.parents.len()).filter(|&number| parts.parents[number] == number).count() as u32
    }

    fn cast(&mut self, at: [f64; 2]) -> Row {
        let mut spans = Vec::new();
        for span in self.caster.spans(Vec3::new(0.0, at[0], at[1])) {
            spans.push((span.enter.at, span.leave.at, self.parents.len()));
            self.parents.push(self.parents.len());
        }
        Row { at, spans }
    }

    fn connect(&mut self, a: &Row, b: &Row, depth: usize) {
        let mut met = [vec![false; a.spans.len()], vec![false; b.spans.len()]];
        for (i, &(from, to, number)) in a.spans.iter().enumerate() {
            for (j, &(low, high, other)) in b.spans.iter().enumerate() {
                if from.max(low) + 1e-9 < to.min(high) {
                    join(&mut self.parents, number, other);
                    (met[0][i], met[1][j]) = (true, true);
                }
            }
        }
        if depth > 0 && self.lines_left > 0 && met.iter().flatten().any(|met| !met) {
            self.lines_left -= 1;
            let middle = self.cast([(a.at[0] + b.at[0]) / 2.0, (a.at[1] + b.at[1]) / 2.0]);
            self.connect(a, &middle, depth - 1);
            self.connect(&middle, b, depth - 1);
        }
    }
}

fn root(parents: &mut [usize], mut number: usize) -> usize {
    while parents[number] != number {
        parents[number] = parents[parents[number]];
        number = parents[number];
    }
    number
}

fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}

/// Where a solid ends along `normal`, if it ends in a plane face across it.
pub fn plane_end(solid: &CsgSolid, normal: Vec3) -> Option<f64> {
    let axis = normal.iamax();
    let (_, end) = solid.extent(normal);
    let bounds = solid.bounds()?;
    let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
    let lines = [u, v].map(|axis| probes(solid, axis, bounds.min[axis], bounds.max[axis]));
    let mut caster = solid.caster(normal);
    let hits = lines[0].iter().any(|&a| {
        lines[1].iter().any(|&b| {
            let origin = Vec3::ith(u, a) + Vec3::ith(v, b);
            let Some(leave) = caster.spans(origin).last().map(|span| span.leave) else { return false };
            (leave.at - end).abs() < 1e-9
                && caster.is_flat(&leave)
                && caster.normal(origin, &leave, false).dot(&normal) > 1.0 - 1e-12
        })
    });
    hits.then_some(end)
}

/// Whether the kernel's centre of mass of several separate prisms is theirs.
///
/// It adds up the faces' shares as seen from the mean of all vertices, and forgets the moments whenever the volume so
/// far is exactly zero (experiment `rectangles in an array`). Face by face, in the order of the outlines, this tells
/// whether that happens.
pub fn check_centre(solid: &CsgSolid) -> Result<(), Decline> {
    let mut prisms = Vec::new();
    if !separate_prisms(solid, &mut prisms) || prisms.len() < 2 {
        return Ok(());
    }
    let corners = prisms.iter().flat_map(|prism| {
        prism
            .region
            .edges()
            .filter_map(Edge::ends)
            .flat_map(|(from, _)| [prism.low, prism.high].map(|height| prism.plane.to_space(from, height)))
    });
    let (sum, count) = corners.fold((Vec3::zeros(), 0.0), |(sum, count), corner| (sum + corner, count + 1.0));
    let mean = if count > 0.0 { sum / count } else { return Ok(()) };
    let mut total = 0.0f64;
    for prism in prisms {
        let local = prism.plane.to_local(mean);
        let height = prism.high - prism.low;
        let outer = prism.region.outer();
        let sign = outer.signed_area().signum();
        let sides = outer.edges().iter().map(|edge| sign * edge.signed_area_about(local.xy()) * 2.0 * height / 3.0);
        let area = prism.region.area();
        let caps = [area * (local.z - prism.low) / 3.0, area * (prism.high - local.z) / 3.0];
        for share in sides.chain(caps) {
            let before = total;
            total += share;
            if before != 0.0 && total.abs() < 1e-9 * prism.volume() {
                return Err(Decline::new("centre of mass not certain", "shares of faces cancel"));
            }
        }
    }
    Ok(())
}

/// Collects the leaves of a union of prisms whose boxes are apart; false for any other solid.
fn separate_prisms<'a>(solid: &'a CsgSolid, found: &mut Vec<&'a Extrusion>) -> bool {
    match solid {
        CsgSolid::Extrusion(extrusion) => {
            let bounds = |e: &Extrusion| CsgSolid::from(e.clone()).bounds();
            let apart = |other: &&Extrusion| bounds(extrusion).zip(bounds(other)).is_some_and(|(a, b)| !a.overlaps(&b));
            let all_apart = found.iter().all(apart);
            found.push(extrusion);
            all_apart
        }
        CsgSolid::Boolean(Operation::Union, left, right) => {
            separate_prisms(left, found) && separate_prisms(right, found)
        }
        _ => false,
    }
}
