//! Solids for which the kernel's answers are known although booleans with them are not: prisms over
//! wires that touch or cross, whose volume is the integral over all wires, and prisms over wires
//! that enclose nothing.

use std::f64::consts::FRAC_PI_4;

use nalgebra::Matrix3;

use super::TANGLED;
use super::sorting::{self, Sorted};
use crate::csg::{CsgSolid, Edge, Extrusion, Operation, Plane, Region, Vec2, Vec3, Wire};
use crate::mesh::{Bounds, MassProperties};
use crate::native::Decline;

/// What the kernel reports for a body that no other operation has modified.
#[derive(Debug, Clone)]
pub struct Known {
    /// The space that it occupies: every point that the wires wind around at least once.
    pub shape: CsgSolid,
    /// The signed integrals over its surface.
    pub mass: MassProperties,
    /// The number of solids, if it is known.
    pub solids: Option<u32>,
    /// Whether the kernel calls the body invalid.
    pub malformed: bool,
}

impl Known {
    /// Combines two bodies that are clearly apart.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            shape: self.shape.combine(Operation::Union, other.shape),
            mass: self.mass.beside(&other.mass),
            solids: self.solids.zip(other.solids).map(|(a, b)| a + b),
            malformed: self.malformed || other.malformed,
        }
    }
}

/// Builds the prism over a line drawn out and back: a sheet without volume, which the kernel calls
/// valid (experiment `out and back`).
pub fn sheet(plane: &Plane, wire: Wire, low: f64, high: f64) -> Result<Known, Decline> {
    let prism = Extrusion { plane: plane.clone(), region: Region::new(wire, Vec::new()), low, high };
    let bounds = reach_of(std::slice::from_ref(&prism));
    // Across all axes the kernel's volume is a rounding error, of which it makes a centre of mass.
    if (0..3).all(|axis| bounds.max[axis] - bounds.min[axis] > 0.0) {
        return Err(Decline::new(TANGLED, "a slanted sheet"));
    }
    let mass = MassProperties { bounds, ..MassProperties::NOTHING };
    Ok(Known { shape: prism.into(), mass, solids: Some(1), malformed: false })
}

fn reach_of(prisms: &[Extrusion]) -> Bounds {
    let reach = |direction: Vec3| prisms.iter().map(|prism| prism.support(direction)).fold(f64::NEG_INFINITY, f64::max);
    let axes = [Vec3::x(), Vec3::y(), Vec3::z()];
    Bounds { min: axes.map(|axis| -reach(-axis)), max: axes.map(reach) }
}

/// Builds a malformed prism over wires that touch or cross. Each wire comes with the sign of its
/// winding. Declines if the areas cancel.
pub fn prism(plane: &Plane, wires: &[(Wire, f64)], low: f64, high: f64) -> Result<Known, Decline> {
    let swept =
        |wire: &Wire| Extrusion { plane: plane.clone(), region: Region::new(wire.clone(), Vec::new()), low, high };
    let mut moments = PlaneMoments::default();
    for (wire, sign) in wires {
        moments.add(wire, *sign);
    }
    let size = wires.iter().flat_map(|(wire, _)| wire.edges()).filter_map(Edge::ends).map(|(from, _)| from.norm());
    let size = size.fold(0.0, f64::max);
    if moments.area.abs() < 1e-6 * size * size || moments.area.abs() < 1e-9 {
        return Err(Decline::new(TANGLED, "areas cancel"));
    }
    let inside_out = moments.area.signum();
    let mut parts: [Vec<CsgSolid>; 2] = Default::default();
    for (wire, sign) in wires {
        for part in simple(wire)? {
            let is_hole = part.signed_area() * sign * inside_out < 0.0;
            parts[usize::from(is_hole)].push(swept(&part).into());
        }
    }
    let [outlines, holes] = parts;
    let mut outlines = outlines.into_iter();
    let Some(first) = outlines.next() else { return Err(Decline::new(TANGLED, "no outline")) };
    let filled = outlines.fold(first, |all, next| all.combine(Operation::Union, next));
    let shape = holes.into_iter().fold(filled, |all, next| all.combine(Operation::Cut, next));
    let prisms: Vec<Extrusion> = wires.iter().map(|(wire, _)| swept(wire)).collect();
    let bounds = reach_of(&prisms);
    Ok(Known { shape, mass: moments.swept(plane, low, high, bounds), solids: Some(1), malformed: true })
}

fn simple(wire: &Wire) -> Result<Vec<Wire>, Decline> {
    match wire.edges() {
        [Edge::Circle { .. }] => Ok(vec![wire.clone()]),
        _ => sorting::loops(wire),
    }
}

/// Integrals of 1, x, y, x^2, y^2 and xy over the area that the wires wind around, by Green's
/// theorem.
#[derive(Default)]
struct PlaneMoments {
    area: f64,
    first: Vec2,
    second: [f64; 3],
}

impl PlaneMoments {
    fn add(&mut self, wire: &Wire, sign: f64) {
        for edge in wire.edges() {
            // Gauss-Legendre quadrature with eight points is exact for lines, and accurate to
            // rounding for an eighth of a turn.
            let pieces = if edge.sweep() > 0.0 { (edge.sweep() / FRAC_PI_4).ceil() } else { 1.0 };
            for piece in 0..pieces as usize {
                for (node, weight) in GAUSS {
                    for node in [node, -node] {
                        let at = (piece as f64 + 0.5 * (1.0 + node)) / pieces;
                        let (p, tangent) = point(edge, at);
                        let along = tangent * (0.5 * weight / pieces * sign);
                        self.area += p.x * along.y;
                        self.first += Vec2::new(0.5 * p.x * p.x * along.y, -0.5 * p.y * p.y * along.x);
                        let second = [
                            p.x.powi(3) / 3.0 * along.y,
                            -p.y.powi(3) / 3.0 * along.x,
                            0.5 * p.x * p.x * p.y * along.y,
                        ];
                        for (sum, share) in self.second.iter_mut().zip(second) {
                            *sum += share;
                        }
                    }
                }
            }
        }
    }

    /// Returns the mass properties of the prism between two heights.
    fn swept(&self, plane: &Plane, low: f64, high: f64, bounds: Bounds) -> MassProperties {
        let height = high - low;
        let volume = self.area * height;
        let middle = (low + high) / 2.0;
        let center = Vec3::new(self.first.x / self.area, self.first.y / self.area, middle);
        // Second moments about the centroid, in the axes of the plane.
        let [xx, yy, xy] = self.second;
        let [xx, yy, xy] = [
            (xx - self.area * center.x * center.x) * height,
            (yy - self.area * center.y * center.y) * height,
            (xy - self.area * center.x * center.y) * height,
        ];
        let zz = volume * height * height / 12.0;
        let spread = Matrix3::new(xx, xy, 0.0, xy, yy, 0.0, 0.0, 0.0, zz);
        let axes = Matrix3::from_columns(&[plane.x, plane.y, plane.z]);
        let spread = axes * spread * axes.transpose();
        let inertia = Matrix3::identity() * spread.trace() - spread;
        let centroid = plane.to_space(center.xy(), middle);
        MassProperties {
            volume,
            centroid: centroid.into(),
            inertia: std::array::from_fn(|row| std::array::from_fn(|column| inertia[(row, column)])),
            bounds,
        }
    }
}

/// The positive half of the nodes on [-1, 1], with their weights.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_5),
    (0.960_289_856_497_536_2, 0.101_228_536_290_376_26),
];

/// Returns a point of an edge and the derivative there, for a parameter from 0 to 1.
fn point(edge: &Edge, at: f64) -> (Vec2, Vec2) {
    let turned = |center: Vec2, from: Vec2, sweep: f64| {
        let out = nalgebra::Rotation2::new(sweep * at) * (from - center);
        (center + out, Vec2::new(-out.y, out.x) * sweep)
    };
    match *edge {
        Edge::Line { from, to } => (from + (to - from) * at, to - from),
        Edge::Circle { center, radius } => turned(center, center + Vec2::new(radius, 0.0), edge.sweep()),
        Edge::Arc { from, center, counter_clockwise, .. } => {
            turned(center, from, if counter_clockwise { edge.sweep() } else { -edge.sweep() })
        }
    }
}

/// Returns the wires of a malformed face, each with the sign of its winding.
pub fn wires(wires: Vec<Wire>, is_assembled: &[bool]) -> Result<Vec<(Wire, f64)>, Decline> {
    if let [wire] = wires.as_slice() {
        let turn = wire.signed_area().signum();
        return Ok(vec![(wire.clone(), turn)]);
    }
    let signs = match sorting::sort(&wires, is_assembled)? {
        Sorted::Malformed(signs) => signs,
        Sorted::Faces(_) => return Err(Decline::new(TANGLED, "several faces")),
    };
    Ok(wires.into_iter().zip(signs).collect())
}
