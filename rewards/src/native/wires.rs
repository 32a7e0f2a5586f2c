//! From edges in space to the faces that CadQuery makes of them.

mod malformed;
mod outlines;
mod sorting;

use std::rc::Rc;

pub use malformed::Known;
pub use outlines::regions;
use sorting::Sorted;
pub use sorting::edge_order;

use super::Decline;
use super::python::Stop;
use crate::csg::{Edge, Extrusion, Plane, Region, Vec2, Vec3, Wire};

/// Below this the modelling kernel takes two points for one.
pub const CONFUSION: f64 = 1e-7;
/// Distances between the kernel's tolerance and this are too close to it to be sure of what it does.
pub const CLEARANCE: f64 = 2e-6;
/// Coordinates beyond it leave the kernel's absolute tolerance too few digits.
const LARGEST: f64 = 1e5;

/// Why it is not certain what plane wires enclose.
const TOUCHING: &str = "wires touch or cross";
const NESTED: &str = "wires nested three deep";
const TANGLED: &str = "wire touches or crosses itself";
const FLAT: &str = "wire of no area";
const SPIKED: &str = "wire turns back on itself";

/// Whether the kernel makes a solid for certain, of a shape that is not.
pub fn is_about_shape(decline: &Decline) -> bool {
    [TOUCHING, NESTED, TANGLED, FLAT].contains(&decline.reason)
}

/// An edge in space.
#[derive(Debug, Clone, PartialEq)]
pub enum SpaceEdge {
    Line {
        from: Vec3,
        to: Vec3,
    },
    /// From the first point through the second to the third.
    Arc {
        from: Vec3,
        through: Vec3,
        to: Vec3,
    },
    Circle {
        center: Vec3,
        normal: Vec3,
        radius: f64,
    },
}

/// A chain of edges in space.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceWire {
    pub edges: Vec<SpaceEdge>,
    pub for_construction: bool,
    /// Made by `Wire.assembleEdges`, which has the edges in another order than drawn: see [`sorting`].
    pub is_assembled: bool,
}

/// A coordinate that the kernel can work with.
pub fn check_point(point: Vec3) -> Result<Vec3, Stop> {
    if point.iter().all(|c| c.abs() <= LARGEST) {
        Ok(point)
    } else {
        Err(Stop::decline("coordinate out of range", format!("{point:?}")))
    }
}

impl SpaceEdge {
    /// `Edge.makeLine`: two points that are one raise (experiment `repeated point`); an edge shorter than the kernel's
    /// tolerance has no geometry, which shows as soon as somebody asks for its ends (`edge of 5e-8`).
    pub fn line(from: Vec3, to: Vec3) -> Result<Self, Stop> {
        check_point(to)?;
        let length = (to - from).norm();
        if length == 0.0 {
            Err(Stop::raise("StdFail_NotDone", "BRep_API: command not done"))
        } else if (1e-13..0.9 * CONFUSION).contains(&length) {
            Err(Stop::raise("Standard_NullObject", "BRepAdaptor_Curve::No geometry"))
        } else if length < 1.2 * CONFUSION {
            Err(Stop::decline("edge length at the kernel's tolerance", format!("{length:e}")))
        } else {
            Ok(Self::Line { from, to })
        }
    }

    /// `Edge.makeThreePointArc`: points on one line, or two that are one, raise (experiments `arc ..`). On one line means
    /// to about 1e-9 of the chord.
    pub fn arc(from: Vec3, through: Vec3, to: Vec3) -> Result<Self, Stop> {
        check_point(through)?;
        check_point(to)?;
        let (a, b, c) = (through - from, to - through, to - from);
        let shortest = a.norm().min(b.norm()).min(c.norm());
        // How far the middle point is from the chord, as a share of the longest side.
        let longest = a.norm().max(b.norm()).max(c.norm());
        let sine = a.cross(&c).norm() / (longest * longest).max(f64::MIN_POSITIVE);
        if shortest < 1e-12 || (shortest > CLEARANCE && sine < 1e-9) {
            return Err(Stop::raise("StdFail_NotDone", "GC_MakeArcOfCircle::Value() - no result"));
        }
        if shortest < CLEARANCE || sine < 3e-8 {
            return Err(Stop::decline("arc nearly degenerate", format!("{from:?} {through:?} {to:?}")));
        }
        Ok(Self::Arc { from, through, to })
    }

    /// Start and end, where it has them.
    pub fn ends(&self) -> Option<(Vec3, Vec3)> {
        match self {
            Self::Line { from, to } | Self::Arc { from, to, .. } => Some((*from, *to)),
            Self::Circle { .. } => None,
        }
    }

    /// The same edge elsewhere.
    pub fn mapped(&self, point: &impl Fn(Vec3) -> Vec3, direction: &impl Fn(Vec3) -> Vec3) -> Self {
        match *self {
            Self::Line { from, to } => Self::Line { from: point(from), to: point(to) },
            Self::Arc { from, through, to } => Self::Arc { from: point(from), through: point(through), to: point(to) },
            Self::Circle { center, normal, radius } => {
                Self::Circle { center: point(center), normal: direction(normal), radius }
            }
        }
    }

    /// Length and the integral of position along it, for centres of mass.
    fn moment(&self) -> Option<(f64, Vec3)> {
        match *self {
            Self::Line { from, to } => {
                let length = (to - from).norm();
                Some((length, (from + to) / 2.0 * length))
            }
            Self::Circle { center, radius, .. } => {
                let length = std::f64::consts::TAU * radius;
                Some((length, center * length))
            }
            Self::Arc { from, through, to } => {
                let normal = (through - from).cross(&(to - from)).normalize();
                let plane = Plane {
                    origin: from,
                    x: (to - from).normalize(),
                    y: normal.cross(&(to - from).normalize()),
                    z: normal,
                };
                let flat = |point: Vec3| plane.to_local(point).xy();
                let edge = Edge::three_point_arc(flat(from), flat(through), flat(to)).ok()?;
                let Edge::Arc { center, radius, .. } = edge else { return None };
                let sweep = edge.sweep();
                let length = radius * sweep;
                // The centroid of an arc lies on its axis of symmetry, at r sin(s/2) / (s/2).
                let middle = flat(through) - center;
                let chord_middle = (flat(from) + flat(to)) / 2.0 - center;
                let axis = if chord_middle.norm() > 1e-9 * radius {
                    if sweep <= std::f64::consts::PI { chord_middle.normalize() } else { -chord_middle.normalize() }
                } else {
                    // A half circle: the side on which the middle point lies, across the chord.
                    let across = Vec2::new(-(flat(to) - flat(from)).y, (flat(to) - flat(from)).x).normalize();
                    if across.dot(&middle) > 0.0 { across } else { -across }
                };
                let centroid = center + axis * (radius * (sweep / 2.0).sin() / (sweep / 2.0));
                Some((length, plane.to_space(centroid, 0.0) * length))
            }
        }
    }
}

impl SpaceWire {
    /// `Wire.assembleEdges`, for edges that follow one another and end where they began. Others are joined, turned, or
    /// left out by the kernel in ways that depend on its tolerances.
    pub fn closed(edges: Vec<SpaceEdge>) -> Result<Self, Stop> {
        let circle = edges.len() == 1 && edges[0].ends().is_none();
        if !circle {
            let mut last = edges.last().and_then(SpaceEdge::ends).map(|(_, to)| to);
            for edge in &edges {
                let Some(((from, to), before)) = edge.ends().zip(last) else {
                    return Err(Stop::decline("wire of mixed edges", ""));
                };
                if (from - before).norm() > 1e-9 {
                    return Err(Stop::decline("edges do not follow one another", format!("{before:?} {from:?}")));
                }
                last = Some(to);
            }
            if edges.is_empty() {
                return Err(Stop::decline("empty wire", ""));
            }
        }
        Ok(Self { edges, for_construction: false, is_assembled: true })
    }

    /// A polygon through the corners, closed.
    pub fn polygon(corners: &[Vec3]) -> Result<Self, Stop> {
        let next = corners.iter().cycle().skip(1);
        let edges = corners.iter().zip(next).map(|(a, b)| match SpaceEdge::line(*a, *b) {
            // `makePolygon` skips points that repeat.
            Err(Stop::Raise(_)) => Err(Stop::decline("polygon with repeated corners", "")),
            other => other,
        });
        Self::closed(edges.collect::<Result<_, _>>()?)
    }

    /// Centre of mass of the curve.
    pub fn center(&self) -> Result<Vec3, Stop> {
        let mut sum = (0.0, Vec3::zeros());
        for edge in &self.edges {
            let (length, moment) = edge.moment().ok_or_else(|| Stop::decline("centre of an odd edge", ""))?;
            sum = (sum.0 + length, sum.1 + moment);
        }
        Ok(sum.1 / sum.0)
    }

    /// The same wire elsewhere.
    pub fn mapped(&self, point: &impl Fn(Vec3) -> Vec3, direction: &impl Fn(Vec3) -> Vec3) -> Self {
        Self {
            edges: self.edges.iter().map(|edge| edge.mapped(point, direction)).collect(),
            for_construction: self.for_construction,
            is_assembled: self.is_assembled,
        }
    }

    /// The wire in the sketch coordinates of `plane`, and its height above it; `None` where it does not lie in a
    /// parallel plane.
    pub fn flat(&self, plane: &Plane) -> Result<Option<(Wire, f64)>, Stop> {
        let mut heights: Vec<f64> = Vec::new();
        let mut flat = |point: Vec3| {
            let local = plane.to_local(point);
            heights.push(local.z);
            local.xy()
        };
        let mut edges: Vec<Edge> = Vec::with_capacity(self.edges.len());
        let mut first: Option<Vec2> = None;
        let mut last: Option<Vec2> = None;
        let count = self.edges.len();
        for (index, edge) in self.edges.iter().enumerate() {
            // An edge begins exactly where the one before ended, the last ends exactly where the first began.
            let made = match *edge {
                SpaceEdge::Circle { center, normal, radius } => {
                    if normal.cross(&plane.z).norm() > 1e-9 {
                        return Ok(None);
                    }
                    Edge::circle(flat(center), radius)
                }
                SpaceEdge::Line { from, to } => {
                    let (from, to) = (last.unwrap_or_else(|| flat(from)), flat(to));
                    first.get_or_insert(from);
                    let to = if index + 1 == count { first.unwrap_or(to) } else { to };
                    last = Some(to);
                    Edge::line(from, to)
                }
                SpaceEdge::Arc { from, through, to } => {
                    let (from, through, to) = (last.unwrap_or_else(|| flat(from)), flat(through), flat(to));
                    first.get_or_insert(from);
                    let to = if index + 1 == count { first.unwrap_or(to) } else { to };
                    last = Some(to);
                    Edge::three_point_arc(from, through, to)
                }
            };
            edges.push(made.map_err(|error| Stop::decline("edge degenerate in its plane", error.to_string()))?);
        }
        let height = heights.first().copied().unwrap_or(0.0);
        let spread = heights.iter().fold(0.0f64, |most, h| most.max((h - height).abs()));
        if spread > 1e-4 {
            return Ok(None);
        }
        if spread > 1e-9 {
            return Err(Stop::decline("wire nearly in the plane", format!("{spread:e}")));
        }
        let wire = Wire::new(edges).map_err(|error| Stop::decline("odd wire", error.to_string()))?;
        Ok(Some((wire, height)))
    }
}

/// Wires in the coordinates of `plane`, and their height above it.
fn flattened(wires: &[Rc<SpaceWire>], plane: &Plane) -> Result<(Vec<Wire>, f64), Stop> {
    let mut flat: Vec<(Wire, f64)> = Vec::with_capacity(wires.len());
    for wire in wires {
        match wire.flat(plane)? {
            Some(found) => flat.push(found),
            None => return Err(Stop::decline("wire not in its workplane", "")),
        }
    }
    let height = flat.first().map_or(0.0, |(_, height)| *height);
    let spread = flat.iter().fold(0.0f64, |most, (_, h)| most.max((h - height).abs()));
    if spread > 1e-4 {
        // Experiment `workplane from wire`.
        return Err(Stop::raise("ValueError", "Cannot build face(s): wires not planar"));
    }
    if spread > 1e-9 {
        return Err(Stop::decline("wires nearly in one plane", format!("{spread:e}")));
    }
    Ok((flat.into_iter().map(|(wire, _)| wire).collect(), height))
}

/// `wiresToFaces`: what the pending wires enclose, as regions of `plane` with their height above it.
///
/// The kernel sorts wires into outlines and holes by testing points, and its answer is what one expects where no wire
/// crosses, touches or nearly touches itself or another, and no hole lies within a hole. Where wires touch or cross,
/// [`sorting`] follows it; what is malformed is declined here, see [`known_prism`].
pub fn faces(wires: &[Rc<SpaceWire>], plane: &Plane) -> Result<SketchFaces, Stop> {
    let is_assembled: Vec<bool> = wires.iter().map(|wire| wire.is_assembled).collect();
    let (wires, height) = flattened(wires, plane)?;
    match regions(wires.clone()) {
        Ok((regions, tangled)) => {
            let regions = regions.into_iter().map(|region| (region, height)).collect();
            Ok(SketchFaces { regions, tangled, touch: false })
        }
        Err(doubt) if doubt.reason == TOUCHING => {
            check_pairs(&wires)?;
            let Sorted::Faces(faces) = sorting::sort(&wires, &is_assembled)? else { return Err(doubt.into()) };
            let region = |(outer, holes): (usize, Vec<usize>)| {
                let holes = holes.into_iter().map(|hole| wires[hole].clone()).collect();
                (Region::new(wires[outer].clone(), holes), height)
            };
            Ok(SketchFaces { regions: faces.into_iter().map(region).collect(), tangled: false, touch: true })
        }
        Err(doubt) => Err(doubt.into()),
    }
}

/// Wires that do not cross themselves, and touch each other clearly or not at all.
fn check_pairs(wires: &[Wire]) -> Result<(), Decline> {
    for (index, wire) in wires.iter().enumerate() {
        if outlines::check_simple(wire)? {
            return Err(Decline::new(TANGLED, "at a corner"));
        }
        for other in &wires[..index] {
            sorting::check_gap(wire, other)?;
        }
    }
    Ok(())
}

/// The solid that the kernel makes of wires that [`faces`] declines: mostly malformed.
pub fn known_prism(wires: &[Rc<SpaceWire>], plane: &Plane, low: f64, high: f64) -> Result<Known, Stop> {
    let is_assembled: Vec<bool> = wires.iter().map(|wire| wire.is_assembled).collect();
    let (wires, height) = flattened(wires, plane)?;
    if let [wire] = wires.as_slice()
        && let [Edge::Line { .. }, Edge::Line { .. }] = wire.edges()
    {
        return Ok(malformed::sheet(plane, wire.clone(), height + low, height + high));
    }
    if wires.len() > 1 {
        check_pairs(&wires)?;
    }
    Ok(malformed::prism(plane, &malformed::wires(wires, &is_assembled)?, height + low, height + high)?)
}

/// What wires enclose.
pub struct SketchFaces {
    /// Regions with their height above the plane.
    pub regions: Vec<(Region, f64)>,
    /// A wire crosses itself next to a corner, so little that any boolean heals it.
    pub tangled: bool,
    /// The regions touch or overlap each other.
    pub touch: bool,
}

/// The prisms over `faces`, along the plane's normal.
pub fn prisms(plane: &Plane, faces: Vec<(Region, f64)>, low: f64, high: f64) -> Vec<Extrusion> {
    faces
        .into_iter()
        .map(|(region, height)| Extrusion { plane: plane.clone(), region, low: height + low, high: height + high })
        .collect()
}
