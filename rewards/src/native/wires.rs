//! Turns edges in space into the faces that CadQuery makes of them.

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

/// The modelling kernel treats two points closer than this as one point.
pub const CONFUSION: f64 = 1e-7;
/// Distances between the kernel's tolerance and this are too close to the tolerance to predict what
/// the kernel does.
pub const CLEARANCE: f64 = 2e-6;
/// The largest coordinate that leaves enough digits for the kernel's absolute tolerance.
const LARGEST: f64 = 1e5;

/// Reasons why it is uncertain what plane wires enclose.
const TOUCHING: &str = "wires touch or cross";
const NESTED: &str = "wires nested three deep";
const TANGLED: &str = "wire touches or crosses itself";
const FLAT: &str = "wire of no area";
const SPIKED: &str = "wire turns back on itself";

/// Returns whether the kernel certainly makes a solid although the solid's shape is uncertain.
pub fn is_about_shape(decline: &Decline) -> bool {
    [TOUCHING, NESTED, TANGLED, FLAT].contains(&&*decline.reason)
}

/// Whether the doubt is about a wire that touches or crosses itself.
pub fn is_about_one_wire(decline: &Decline) -> bool {
    decline.reason == TANGLED
}

/// An edge in space.
#[derive(Debug, Clone, PartialEq)]
pub enum SpaceEdge {
    Line {
        from: Vec3,
        to: Vec3,
    },
    /// An arc from the first point through the second to the third.
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
    /// Whether `Wire.assembleEdges` made the wire. It stores the edges in another order than they
    /// were drawn: see [`sorting`].
    pub is_assembled: bool,
}

/// Returns the point if the kernel can work with its coordinates. Declines it otherwise.
pub fn check_point(point: Vec3) -> Result<Vec3, Stop> {
    if point.iter().all(|c| c.abs() <= LARGEST) {
        Ok(point)
    } else {
        Err(Stop::decline("coordinate out of range", format!("{point:?}")))
    }
}

impl SpaceEdge {
    /// `Edge.makeLine`. Two equal points raise (experiment `repeated point`). An edge shorter than
    /// the kernel's tolerance has no geometry. CadQuery raises as soon as it asks for the ends of
    /// such an edge (`edge of 5e-8`).
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

    /// `Edge.makeThreePointArc`. Collinear points and equal points raise (experiments `arc ..`).
    /// Points are collinear if they lie on one line to within about 1e-9 of the chord.
    pub fn arc(from: Vec3, through: Vec3, to: Vec3) -> Result<Self, Stop> {
        check_point(through)?;
        check_point(to)?;
        let (a, b, c) = (through - from, to - through, to - from);
        let shortest = a.norm().min(b.norm()).min(c.norm());
        // The distance of the middle point from the chord, as a share of the longest side.
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

    /// Returns start and end, or `None` for a circle.
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

    /// Returns the length and the integral of position over it, from which centres of mass follow.
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
                    // For a half circle the axis runs across the chord, toward the middle point.
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
    /// `Wire.assembleEdges`, for edges that follow one another and form a closed chain. Declines
    /// other edges: whether the kernel joins, reverses or drops them depends on its tolerances.
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

    /// Builds the closed polygon through the corners.
    pub fn polygon(corners: &[Vec3]) -> Result<Self, Stop> {
        let next = corners.iter().cycle().skip(1);
        let edges = corners.iter().zip(next).map(|(a, b)| match SpaceEdge::line(*a, *b) {
            // `makePolygon` skips points that repeat.
            Err(Stop::Raise(_)) => Err(Stop::decline("polygon with repeated corners", "")),
            other => other,
        });
        Self::closed(edges.collect::<Result<_, _>>()?)
    }

    /// Returns the centre of mass of the curve.
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

    /// Returns the wire in the sketch coordinates of `plane` and its height above that plane, or
    /// `None` if the wire does not lie in a parallel plane.
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
            // Each edge begins exactly at the end of the edge before it. The last edge ends exactly
            // at the start of the first.
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

/// Returns the wires in the coordinates of `plane` and their common height above it.
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

/// `wiresToFaces`: returns what the pending wires enclose, as regions of `plane` with their height
/// above it.
///
/// The kernel sorts wires into outlines and holes by testing points. Its answer is the expected one
/// if no wire crosses, touches or nearly touches itself or another, and no hole lies within a hole.
/// If wires touch or cross, [`sorting`] reproduces what the kernel does. This function declines a
/// malformed face; [`known_prism`] handles it.
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

/// Checks that no wire crosses itself and that any two wires either clearly touch or are clearly
/// apart.
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

/// Returns the solid that the kernel makes of wires that [`faces`] declines. It is malformed in
/// most cases.
pub fn known_prism(wires: &[Rc<SpaceWire>], plane: &Plane, low: f64, high: f64) -> Result<Known, Stop> {
    let is_assembled: Vec<bool> = wires.iter().map(|wire| wire.is_assembled).collect();
    let (wires, height) = flattened(wires, plane)?;
    if let [wire] = wires.as_slice()
        && let [Edge::Line { .. }, Edge::Line { .. }] = wire.edges()
    {
        return Ok(malformed::sheet(plane, wire.clone(), height + low, height + high)?);
    }
    if wires.len() > 1 {
        check_pairs(&wires)?;
    }
    Ok(malformed::prism(plane, &malformed::wires(wires, &is_assembled)?, height + low, height + high)?)
}

/// The faces that wires enclose.
pub struct SketchFaces {
    /// Each region with its height above the plane.
    pub regions: Vec<(Region, f64)>,
    /// Whether a wire crosses itself next to a corner, by so little that any boolean heals it.
    pub tangled: bool,
    /// Whether the regions touch or overlap each other.
    pub touch: bool,
}

/// Builds the prisms over `faces`, along the plane's normal, from `low` to `high` above each face.
pub fn prisms(plane: &Plane, faces: Vec<(Region, f64)>, low: f64, high: f64) -> Vec<Extrusion> {
    faces
        .into_iter()
        .map(|(region, height)| Extrusion { plane: plane.clone(), region, low: height + low, high: height + high })
        .collect()
}
