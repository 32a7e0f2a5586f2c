//! Decides whether a boolean of the kernel certainly equals the set operation, and whether anything
//! remains of a solid.

use std::f64::consts::TAU;

use super::wires::CLEARANCE;
use super::{Decline, tapered, turned, wires};
use crate::csg::{
    Aabb, CsgSolid, Edge, Extrusion, Layers, Operation, Primitive, Surface, Vec2, Vec3, crossings_ahead, faces_of,
};

/// A full turn in radians, minus a margin for rounding.
const WHOLE: f64 = TAU - 1e-6;
/// Two directions or distances that differ by less than this are equal.
const COINCIDENT: f64 = 1e-9;
/// The largest number of pairs of surfaces that one boolean may compare.
const MOST_PAIRS: usize = 1_000_000;
/// Angles (as sines) between [`COINCIDENT`] and this are neither parallel nor clearly apart.
const NEARLY_PARALLEL: f64 = 1e-5;

/// A face of a leaf.
struct LeafFace<'a> {
    surface: Surface,
    /// The angle that a round face covers around its axis, in radians.
    sweep: f64,
    /// The box around the leaf.
    bounds: Aabb,
    /// The prism that the face belongs to, and the edge of its outline that the face stands on, or
    /// `None` for a cap. `None` if the leaf is no prism.
    prism: Option<(&'a Extrusion, Option<&'a Edge>)>,
}

fn leaf_faces(solid: &CsgSolid) -> Vec<LeafFace<'_>> {
    solid.primitives().into_iter().flat_map(faces_of_leaf).collect()
}

fn faces_of_leaf(leaf: Primitive<'_>) -> Vec<LeafFace<'_>> {
    let surfaces = faces_of(leaf);
    let bounds = leaf.bounds();
    let Primitive::Extrusion(extrusion) = leaf else {
        let sweep = if let Primitive::Revolution(turned) = leaf { turned.turn } else { TAU };
        return surfaces.into_iter().map(|surface| LeafFace { surface, sweep, bounds, prism: None }).collect();
    };
    // The caps come first.
    let edges = [None; 2].into_iter().chain(extrusion.region.edges().map(Some));
    let mut found = Vec::with_capacity(surfaces.len());
    for (surface, edge) in surfaces.into_iter().zip(edges) {
        found.push(LeafFace { surface, sweep: edge.map_or(0.0, Edge::sweep), bounds, prism: Some((extrusion, edge)) });
    }
    found
}

impl LeafFace<'_> {
    /// Returns whether both faces belong to prisms with parallel axes. Their contact is then
    /// plane geometry.
    fn is_beside(&self, other: &Self) -> bool {
        self.prism.zip(other.prism).is_some_and(|((a, _), (b, _))| is_parallel(&a.plane.z, &b.plane.z))
    }

    /// Returns the ends of the straight line of a round face through `point`, or `None` if that
    /// line does not lie within the face. A plane that touches the cylinder at an end of the arc is
    /// flush with the next face or crosses it.
    fn generatrix(&self, point: Vec3) -> Option<[Vec3; 2]> {
        let (prism, edge) = self.prism?;
        let at = prism.plane.to_local(point).xy();
        let ends = edge?.ends().map_or(Vec::new(), |(from, to)| vec![from, to]);
        let is_on_it = edge?.distance(at) < CLEARANCE && ends.iter().all(|end| (at - end).norm() > CLEARANCE);
        is_on_it.then(|| [prism.low, prism.high].map(|height| prism.plane.to_space(at, height)))
    }

    /// Returns whether a segment in the plane of this flat face crosses the face from side to side
    /// or misses it. Neither end of the segment may lie on the face, and it must not meet a corner
    /// or be tangent to an arc.
    fn is_passed(&self, ends: [Vec3; 2]) -> bool {
        let Some((prism, edge)) = self.prism else { return false };
        let (outline, ends) = match edge {
            None => (prism.region.edges().cloned().collect(), ends.map(|end| prism.plane.to_local(end).xy())),
            Some(edge) => {
                // The side over an edge, unrolled: along the edge and upward.
                let Some((from, to)) = edge.ends() else { return false };
                let along = (to - from).normalize();
                let unrolled = ends.map(|end| {
                    let local = prism.plane.to_local(end);
                    Vec2::new((local.xy() - from).dot(&along), local.z)
                });
                let length = (to - from).norm();
                let corners = [(0.0, prism.low), (length, prism.low), (length, prism.high), (0.0, prism.high)];
                let corners = corners.map(|(x, y)| Vec2::new(x, y));
                let line = |i: usize| Edge::Line { from: corners[i], to: corners[(i + 1) % 4] };
                ((0..4).map(line).collect::<Vec<_>>(), unrolled)
            }
        };
        let segment = Edge::Line { from: ends[0], to: ends[1] };
        let outside = |end: Vec2| {
            crossings_ahead(&outline, end).is_multiple_of(2)
                && outline.iter().all(|edge| edge.distance(end) > CLEARANCE)
        };
        let is_crossed = |edge: &Edge| match edge {
            Edge::Line { from, to } => [from, to].into_iter().all(|end| segment.distance(*end) > CLEARANCE),
            Edge::Arc { center, radius, .. } | Edge::Circle { center, radius } => {
                let along = (ends[1] - ends[0]).normalize();
                let apart = (center - ends[0]).perp(&along).abs() - radius;
                apart.abs() > CLEARANCE && edge.ends().is_none_or(|(from, _)| segment.distance(from) > CLEARANCE)
            }
        };
        ends.into_iter().all(outside) && outline.iter().all(is_crossed)
    }

    /// Returns whether the boxes of both leaves reach a line at a common point.
    fn both_reach(&self, other: &Self, point: Vec3, direction: Vec3) -> bool {
        let (low, high) = (self.bounds.min.sup(&other.bounds.min), self.bounds.max.inf(&other.bounds.max));
        let mut span = (f64::NEG_INFINITY, f64::INFINITY);
        for axis in 0..3 {
            let (low, high) = (low[axis] - CLEARANCE - point[axis], high[axis] + CLEARANCE - point[axis]);
            if direction[axis].abs() < COINCIDENT {
                if low > 0.0 || high < 0.0 {
                    return false;
                }
            } else {
                let ends = [low / direction[axis], high / direction[axis]];
                span = (span.0.max(ends[0].min(ends[1])), span.1.min(ends[0].max(ends[1])));
            }
        }
        span.0 <= span.1
    }
}

/// Checks that a boolean between two solids certainly equals the set operation. The kernel's answer
/// is certain if surfaces coincide or are clearly apart. It is uncertain for distances between the
/// kernel's tolerance and [`CLEARANCE`]; these are declined.
pub fn check_boolean(a: &CsgSolid, b: &CsgSolid) -> Result<(), Decline> {
    let (left, right) = (leaf_faces(a), leaf_faces(b));
    if left.len().saturating_mul(right.len()) > MOST_PAIRS {
        return Err(Decline::new("too many faces", ""));
    }
    turned::check(a, b)?;
    tapered::check(a, b)?;
    for s in &left {
        for t in &right {
            if let Some(problem) = nearly_touching(s, t) {
                return Err(Decline::new("surfaces nearly coincide", problem));
            }
        }
    }
    if crosses_seam(a, &right) || crosses_seam(b, &left) {
        return Err(Decline::new("surfaces nearly coincide", "an edge crosses a cylinder's seam"));
    }
    if has_resting_edge(a, &right) || has_resting_edge(b, &left) {
        return Err(Decline::new("surfaces nearly coincide", "an edge lies on a plane"));
    }
    Ok(())
}

/// Returns whether an upright edge of a prism lies in a flat face of another body without passing
/// it from side to side. The case counts only if the axes of the two are not parallel and neither
/// side beside the edge is flush with the face. The kernel may fail there (two in 1,500 lattices of
/// random bodies).
fn has_resting_edge(solid: &CsgSolid, leaf_faces: &[LeafFace<'_>]) -> bool {
    let flat: Vec<(&LeafFace<'_>, Vec3, f64)> = leaf_faces
        .iter()
        .filter_map(|face| match face.surface {
            Surface::Plane { normal, offset } => Some((face, normal, offset)),
            _ => None,
        })
        .collect();
    solid.primitives().into_iter().any(|leaf| {
        let Primitive::Extrusion(prism) = leaf else { return false };
        let region = &prism.region;
        std::iter::once(region.outer()).chain(region.holes()).any(|wire| {
            let next = wire.edges().iter().cycle().skip(1);
            wire.edges().iter().zip(next).any(|(before, after)| {
                let Some((_, corner)) = before.ends() else { return false };
                let ends = [prism.low, prism.high].map(|height| prism.plane.to_space(corner, height));
                flat.iter().any(|(face, normal, offset)| {
                    let is_beside = face.prism.is_some_and(|(other, _)| is_parallel(&prism.plane.z, &other.plane.z));
                    let height = |point: Vec3| normal.dot(&point) - offset;
                    let is_flush = |edge: &Edge| match edge {
                        Edge::Line { from, to } => {
                            [from, to].iter().all(|at| height(prism.plane.to_space(**at, prism.low)).abs() < CLEARANCE)
                        }
                        _ => false,
                    };
                    !is_beside
                        && ends.iter().all(|end| height(*end).abs() < CLEARANCE)
                        && !is_flush(before)
                        && !is_flush(after)
                        && !face.is_passed(ends)
                })
            })
        })
    })
}

fn is_parallel(a: &Vec3, b: &Vec3) -> bool {
    a.cross(b).norm() < COINCIDENT
}

fn doubtful(distance: f64) -> bool {
    (COINCIDENT..CLEARANCE).contains(&distance.abs())
}

fn nearly_touching(s: &LeafFace<'_>, t: &LeafFace<'_>) -> Option<String> {
    match (&s.surface, &t.surface) {
        (Surface::Plane { normal: n, offset: p }, Surface::Plane { normal: m, offset: q }) => {
            let sine = n.cross(m).norm();
            if sine < COINCIDENT {
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
            if slope > COINCIDENT {
                return Some(format!("a plane at an angle of {slope:e} to a cylinder"));
            }
            let side = normal.dot(center) - offset;
            let apart = side.abs() - radius;
            if doubtful(apart) {
                return Some(format!("a plane {apart:e} from a cylinder"));
            }
            if s.is_beside(t) {
                return None;
            }
            // If the prisms are not parallel, the kernel may fail at a line of contact that ends on
            // the plane face.
            if apart.abs() < COINCIDENT {
                let touch = center - normal * (radius * side.signum());
                let (flat, round) = if let Surface::Plane { .. } = s.surface { (s, t) } else { (t, s) };
                if round.generatrix(touch).is_some_and(|ends| !flat.is_passed(ends)) {
                    return Some("a plane touches a cylinder".to_owned());
                }
            }
            None
        }
        (
            Surface::Cylinder { center: c, axis: a, radius: r, .. },
            Surface::Cylinder { center: d, axis: b, radius: q, .. },
        ) => {
            let sine = a.cross(b).norm();
            if sine > NEARLY_PARALLEL {
                // Equal cylinders whose axes cross touch at two points, at which their curves of
                // intersection cross. The kernel often fails at such points.
                let apart = (d - c).dot(&a.cross(b)).abs() / sine;
                if (r - q).abs() < CLEARANCE && apart < CLEARANCE {
                    return Some("equal cylinders cross".to_owned());
                }
                // One touches the other from inside or outside, at one point.
                let touch = [(r - q).abs(), r + q].into_iter().any(|sum| (apart - sum).abs() < CLEARANCE);
                return touch.then(|| "cylinders across each other touch".to_owned());
            }
            if sine > COINCIDENT {
                return Some(format!("cylinders at an angle of {sine:e}"));
            }
            let apart = (d - c).cross(a).norm();
            if apart < COINCIDENT
                && (r - q).abs() < COINCIDENT
                && s.sweep < WHOLE
                && t.sweep < WHOLE
                && s.sweep + t.sweep > WHOLE
            {
                // Two arcs make up a whole cylinder. The kernel may fail to join their faces.
                return Some("arcs that close a cylinder".to_owned());
            }
            if apart < COINCIDENT {
                return doubtful(r - q).then(|| format!("cylinders of radii {:e} apart", r - q));
            }
            if apart < CLEARANCE {
                return Some(format!("axes {apart:e} apart"));
            }
            let (outside, inside) = (apart - (r + q), apart - (r - q).abs());
            if doubtful(outside) || doubtful(inside) {
                return Some(format!("cylinders nearly tangent ({outside:e}, {inside:e})"));
            }
            let toward = (d - c - a * a.dot(&(d - c))) / apart;
            (outside.abs() < COINCIDENT && s.both_reach(t, c + toward * *r, *a)).then(|| "cylinders touch".to_owned())
        }
        // The kernel may fail if the seam or a pole of a sphere meets another surface: one in a
        // hundred solids is invalid, and one in seven if both are spheres.
        (Surface::Sphere { center, radius }, other) | (other, Surface::Sphere { center, radius }) => {
            let meets = match other {
                Surface::Plane { normal, offset } => (normal.dot(center) - offset).abs() < radius + CLEARANCE,
                Surface::Cylinder { center: c, axis, radius: r, .. } => {
                    ((center - c).cross(axis).norm() - r).abs() < radius + CLEARANCE
                }
                Surface::Sphere { center: c, radius: r } => {
                    let apart = (center - c).norm();
                    apart < r + radius + CLEARANCE && apart > (r - radius).abs() - CLEARANCE
                }
                Surface::Cone { .. } => true,
            };
            (meets && s.bounds.overlaps(&t.bounds)).then(|| "a sphere crosses a surface".to_owned())
        }
        // Only solids of revolution have cones; `turned` checks them.
        (Surface::Cone { .. }, _) | (_, Surface::Cone { .. }) => None,
    }
}

/// Returns whether nothing is left of a solid. The remainder is known exactly if the solid is
/// extruded along one axis. For any other solid, section planes decide that lie between the heights
/// at which its sections change. Declines if the remainder may be thinner than the kernel resolves.
pub fn is_empty(solid: &CsgSolid) -> Result<bool, Decline> {
    let Some(bounds) = solid.bounds() else { return Ok(true) };
    if bounds.size().min() < COINCIDENT {
        // Bodies that touch at a face leave nothing but rounding errors.
        return Ok(true);
    }
    match solid.thickness() {
        Some(0.0) => Ok(true),
        Some(thickness) if thickness > CLEARANCE => Ok(false),
        _ => Err(Decline::new("little or nothing is left", "")),
    }
}

/// Returns the corners of all prisms and polyhedra.
fn corners(solid: &CsgSolid) -> Vec<Vec3> {
    let mut found = Vec::new();
    for leaf in solid.primitives() {
        let prism = match leaf {
            Primitive::Extrusion(prism) => prism,
            Primitive::Polyhedron(body) => {
                found.extend(&body.corners);
                continue;
            }
            Primitive::Ball(_) | Primitive::Revolution(_) => continue,
        };
        for (corner, _) in prism.region.edges().filter_map(Edge::ends) {
            found.extend([prism.low, prism.high].map(|height| prism.plane.to_space(corner, height)));
        }
    }
    found
}

/// Whether a straight edge of a prism crosses the seam of a whole cylinder: the line over the point
/// at which its circle is drawn from, where the kernel's face begins and ends. The kernel may leave
/// a malformed solid.
fn crosses_seam(solid: &CsgSolid, leaf_faces: &[LeafFace<'_>]) -> bool {
    let seam = |face: &LeafFace<'_>| {
        let (prism, Edge::Circle { center, radius }) = (face.prism?.0, face.prism?.1?) else { return None };
        let start = center + Vec2::new(*radius, 0.0);
        Some([prism.low, prism.high].map(|height| prism.plane.to_space(start, height)))
    };
    let seams: Vec<[Vec3; 2]> = leaf_faces.iter().filter_map(seam).collect();
    if seams.is_empty() {
        return false;
    }
    solid.primitives().into_iter().any(|leaf| {
        let Primitive::Extrusion(prism) = leaf else { return false };
        prism.region.edges().any(|edge| {
            let Some((from, to)) = edge.ends() else { return false };
            let upright = [prism.low, prism.high].map(|height| prism.plane.to_space(from, height));
            let is_line = matches!(edge, Edge::Line { .. });
            let on_cap = |height: f64| is_line.then(|| [from, to].map(|end| prism.plane.to_space(end, height)));
            let edges = [Some(upright), on_cap(prism.low), on_cap(prism.high)];
            edges.iter().flatten().any(|edge| seams.iter().any(|seam| cross(edge, seam)))
        })
    })
}

/// Whether two segments that are not parallel meet within both.
fn cross(a: &[Vec3; 2], b: &[Vec3; 2]) -> bool {
    let (u, v, w) = (a[1] - a[0], b[1] - b[0], a[0] - b[0]);
    let normal = u.cross(&v);
    let square = normal.norm_squared();
    if square < (COINCIDENT * u.norm() * v.norm()).powi(2) || w.dot(&normal).powi(2) > square * CLEARANCE.powi(2) {
        return false;
    }
    let (s, t) = (v.cross(&w).dot(&normal) / square, u.cross(&w).dot(&normal) / square);
    let within = |share: f64, length: f64| (CLEARANCE..=length - CLEARANCE).contains(&(share * length));
    within(s, u.norm()) && within(t, v.norm())
}

/// The number of positions on the even raster along each axis.
const RASTER: usize = 24;

/// Returns positions along an axis: the middles between neighbouring breaks, and an even raster.
fn probes(solid: &CsgSolid, axis: usize, low: f64, high: f64) -> Vec<f64> {
    const MOST: usize = 160;
    let breaks = solid.breaks(Vec3::ith(axis, 1.0));
    let mut found: Vec<f64> = breaks.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).take(MOST).collect();
    // The raster is off-centre, so that a symmetric part is not sampled only along its planes of
    // symmetry.
    found.extend((0..RASTER).map(|k| low + (high - low) * (k as f64 + 0.4567) / RASTER as f64));
    // A line in the plane of a face is inside or outside only by rounding, so it is dropped.
    let beside = |at: f64| {
        let next = breaks.partition_point(|b| *b < at);
        breaks[next.saturating_sub(1)..breaks.len().min(next + 1)].iter().all(|b| (b - at).abs() > COINCIDENT)
    };
    found.retain(|&at| (low..=high).contains(&at) && beside(at));
    found
}

/// Returns the position along `normal` at which a solid ends, if it ends in a plane face across
/// `normal`.
pub fn plane_end(solid: &CsgSolid, normal: Vec3) -> Option<f64> {
    let axis = normal.iamax();
    let layers = Layers::of(solid);
    let (_, end) = solid.extent(layers.as_ref(), normal)?;
    // CadQuery counts face centres within 1e-4 of each other as equally far out.
    if solid.breaks(normal).iter().any(|at| (1e-9..1e-3).contains(&(end - at))) {
        return None;
    }
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

/// Checks that the kernel's centre of mass of several separate prisms is their true centre.
/// Declines if that is uncertain.
///
/// The kernel sums the shares of the faces, measured from the mean of all vertices. It drops the
/// moments whenever the running volume is exactly zero (experiment `rectangles in an array`). This
/// function repeats the sum face by face, in either order in which the kernel may store the edges
/// of the outlines.
pub fn check_centre(solid: &CsgSolid) -> Result<(), Decline> {
    let mut prisms = Vec::new();
    if !separate_prisms(solid, &mut prisms) {
        let corners = corners(solid);
        let mean = corners.iter().sum::<Vec3>() / corners.len().max(1) as f64;
        return match is_balanced(solid, mean) {
            true => {
                Err(Decline::new("centre of mass not certain", "bodies on both sides of the mean of their corners"))
            }
            false => Ok(()),
        };
    }
    if prisms.len() < 2 {
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
    /// The number of prisms whose orders vary independently. Later prisms share the order of the
    /// last of these.
    const TRIED: usize = 8;
    for orders in 0..1usize << prisms.len().min(TRIED) {
        let mut total = 0.0f64;
        for (index, prism) in prisms.iter().enumerate() {
            let is_assembled = orders >> index.min(TRIED - 1) & 1 == 1;
            let local = prism.plane.to_local(mean);
            let height = prism.high - prism.low;
            let outer = prism.region.outer();
            let sign = outer.signed_area().signum();
            let share = |edge: usize| sign * outer.edges()[edge].signed_area_about(local.xy()) * 2.0 * height / 3.0;
            let sides = wires::edge_order(outer.edges().len(), is_assembled).into_iter().map(share);
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
    }
    Ok(())
}

/// Returns whether separate bodies lie on both sides of a point at equal distances.
fn is_balanced(solid: &CsgSolid, middle: Vec3) -> bool {
    let CsgSolid::Boolean(operation, left, right) = solid else { return false };
    let is_balanced_here = *operation == Operation::Union
        && left.bounds().zip(right.bounds()).is_some_and(|(a, b)| {
            (0..3).any(|axis| {
                let gap = (a.min[axis].max(b.min[axis]), a.max[axis].min(b.max[axis]));
                gap.0 > gap.1 && (gap.0 + gap.1 - 2.0 * middle[axis]).abs() < 1e-6
            })
        });
    // A tool that is cut away is no body of the result.
    is_balanced_here || is_balanced(left, middle) || *operation != Operation::Cut && is_balanced(right, middle)
}

/// Collects the leaves of a union of prisms with separate boxes. Returns false for any other solid.
fn separate_prisms<'a>(solid: &'a CsgSolid, found: &mut Vec<&'a Extrusion>) -> bool {
    match solid {
        CsgSolid::Extrusion(extrusion) => {
            let bounds = |e: &Extrusion| CsgSolid::from(e.clone()).bounds();
            let apart = |other: &&Extrusion| {
                bounds(extrusion).zip(bounds(other)).is_some_and(|(a, b)| {
                    (0..3).any(|axis| a.min[axis] > b.max[axis] + CLEARANCE || b.min[axis] > a.max[axis] + CLEARANCE)
                })
            };
            let all_apart = found.iter().all(apart);
            found.push(extrusion);
            all_apart
        }
        CsgSolid::Boolean(Operation::Union, left, right) => {
            separate_prisms(left, found) && separate_prisms(right, found)
        }
        // A cut that is clear of the body leaves its faces unchanged.
        CsgSolid::Boolean(Operation::Cut, left, tool) => {
            let is_apart = left.bounds().zip(tool.bounds()).is_some_and(|(a, b)| {
                (0..3).any(|axis| a.min[axis] > b.max[axis] + CLEARANCE || b.min[axis] > a.max[axis] + CLEARANCE)
            });
            is_apart && separate_prisms(left, found)
        }
        _ => false,
    }
}
