//! What executing a program gave: a solid, or a typed failure.
//!
//! The verdict follows the published "valid syntax rate". The program, dedented and stripped, runs
//! with `cq`, `cadquery`, `np` and `numpy` predefined and must leave a `Workplane`, a `Solid` or a
//! `Compound` behind. With several, the first found under the names `solid result shape part object
//! obj res` counts, else the first defined. A `Workplane` stands for its `val()`. The object picked
//! must contain at least one solid: with one it is that solid, with several their compound.
//!
//! | what happened | class |
//! |---|---|
//! | at least one solid, even of volume zero, even one that OCC calls invalid | [`OutcomeClass::Solid`] |
//! | the text does not compile | [`OutcomeClass::Syntax`] |
//! | the program raised, `SystemExit` and `KeyboardInterrupt` included | [`OutcomeClass::Exception`] |
//! | nothing to pick, or what was picked is a point, an edge, a wire, a face, ... | [`OutcomeClass::NoSolid`] |
//! | what was picked is a compound without a solid: a boolean left nothing | [`OutcomeClass::Empty`] |
//! | still running at the deadline | [`OutcomeClass::Timeout`] |
//! | asked for more memory than allowed | [`OutcomeClass::Memory`] |
//! | the process died: a signal, or an exit that left no result | [`OutcomeClass::Crash`] |
//!
//! The published rule calls everything but the first row invalid; the classes only say why.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::csg::{CsgSolid, Layers, Vec3};

/// The kind of an [`Outcome`]. Serialised in snake case: `solid`, `no_solid`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeClass {
    /// At least one solid: valid by the published rule.
    Solid,
    /// The text does not compile.
    Syntax,
    /// The program raised an exception.
    Exception,
    /// Nothing was left to pick, or what was picked is no solid.
    NoSolid,
    /// A compound with no solid in it: a boolean removed everything.
    Empty,
    /// Still running at the deadline.
    Timeout,
    /// The memory limit was reached.
    Memory,
    /// The process died without a result.
    Crash,
}

impl OutcomeClass {
    /// Every class, in the order used for counts and logs.
    pub const ALL: [Self; 8] = [
        Self::Solid,
        Self::Syntax,
        Self::Exception,
        Self::NoSolid,
        Self::Empty,
        Self::Timeout,
        Self::Memory,
        Self::Crash,
    ];

    /// The name in rows, logs and config keys (`penalty_<name>`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Solid => "solid",
            Self::Syntax => "syntax",
            Self::Exception => "exception",
            Self::NoSolid => "no_solid",
            Self::Empty => "empty",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Crash => "crash",
        }
    }

    /// Whether the published rule counts the program as valid.
    pub fn is_valid(self) -> bool {
        self == Self::Solid
    }

    /// Whether the same program gives the same class wherever and whenever it runs. A timeout,
    /// a memory failure or a crash may have to do with the machine, so it is not worth keeping.
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::Timeout | Self::Memory | Self::Crash)
    }
}

impl fmt::Display for OutcomeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What executing a program gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Valid by the published rule.
    Solid(Arc<Solid>),
    /// Invalid; says why.
    Failure(Failure),
}

impl Outcome {
    /// The class, for counts and rewards.
    pub fn class(&self) -> OutcomeClass {
        match self {
            Self::Solid(_) => OutcomeClass::Solid,
            Self::Failure(failure) => failure.class,
        }
    }

    /// The solid, if there is one.
    pub fn solid(&self) -> Option<&Arc<Solid>> {
        match self {
            Self::Solid(solid) => Some(solid),
            Self::Failure(_) => None,
        }
    }

    /// The failure's message, if it is one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Solid(_) => None,
            Self::Failure(failure) => Some(&failure.error),
        }
    }
}

/// Why a program gave no solid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Never [`OutcomeClass::Solid`].
    pub class: OutcomeClass,
    /// One line for people, e.g. `ValueError: No pending wires present`.
    pub error: String,
}

/// One or several solids, in the program's own units and coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct Solid {
    /// What they occupy.
    pub body: Body,
    /// OCC's own check calls the shape invalid: its volume may be meaningless.
    pub malformed: bool,
    /// The triangles enclose another volume than the solid, whatever was tried: an IoU may be wrong.
    pub iou_uncertain: bool,
    /// Known from the start for what CadQuery made, computed when first asked for otherwise; and whether it is certain.
    mass: OnceLock<(MassProperties, bool)>,
    /// Like `mass`.
    solids: OnceLock<Option<u32>>,
    /// Bounds of what is occupied.
    bounds: OnceLock<Bounds>,
    /// The layers of a boolean tree that has some.
    layers: OnceLock<Option<Layers>>,
}

/// The form in which a solid is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Triangles, from CadQuery.
    Mesh(Mesh),
    /// A boolean tree, from the native engine.
    Csg(CsgSolid),
}

impl Solid {
    /// What CadQuery made: mass properties from the boundary representation, and its tessellation.
    pub fn meshed(mass: MassProperties, mesh: Mesh, solids: u32, malformed: bool) -> Self {
        Self {
            mass: OnceLock::from((mass, true)),
            solids: OnceLock::from(Some(solids)),
            ..Self::of(Body::Mesh(mesh), malformed)
        }
    }

    /// What the native engine made.
    pub fn native(csg: CsgSolid, malformed: bool) -> Self {
        Self::of(Body::Csg(csg), malformed)
    }

    /// What the native engine made where the shape does not tell what the kernel says of it: malformed solids.
    pub fn known(csg: CsgSolid, mass: MassProperties, solids: u32, malformed: bool) -> Self {
        Self {
            mass: OnceLock::from((mass, true)),
            solids: OnceLock::from(Some(solids)),
            ..Self::of(Body::Csg(csg), malformed)
        }
    }

    fn of(body: Body, malformed: bool) -> Self {
        let (mass, solids) = (OnceLock::new(), OnceLock::new());
        let (bounds, layers) = (OnceLock::new(), OnceLock::new());
        Self { body, malformed, iou_uncertain: false, mass, solids, bounds, layers }
    }

    /// How many solids; more than one means a compound. `None` if the native engine cannot tell: leaves lie along several
    /// axes, or bodies touch within the kernel's tolerance.
    pub fn solids(&self) -> Option<u32> {
        *self.solids.get_or_init(|| match &self.body {
            Body::Csg(CsgSolid::Ball(_) | CsgSolid::Revolution(_) | CsgSolid::Polyhedron(_)) => Some(1),
            Body::Csg(_) => self.layers()?.bodies(),
            Body::Mesh(_) => None,
        })
    }

    /// Axis-aligned bounds of what is occupied.
    pub fn bounds(&self) -> &Bounds {
        self.bounds.get_or_init(|| match &self.body {
            Body::Mesh(mesh) => mesh.bounds(),
            Body::Csg(csg) => csg.tight_bounds(self.layers()).unwrap_or(MassProperties::NOTHING.bounds),
        })
    }

    /// Mass properties. A solid of the native engine computes them once, in a few milliseconds.
    pub fn mass(&self) -> &MassProperties {
        &self.measured().0
    }

    /// Whether mass properties are known to be right: see [`CsgSolid::mass_properties`].
    pub fn is_mass_certain(&self) -> bool {
        self.measured().1
    }

    fn measured(&self) -> &(MassProperties, bool) {
        self.mass.get_or_init(|| match &self.body {
            Body::Csg(csg) => csg.mass_properties(self.layers(), *self.bounds()),
            // Never so: `meshed` is the only way to a mesh. What occupies nothing has no mass.
            Body::Mesh(mesh) => (MassProperties { bounds: mesh.bounds(), ..MassProperties::NOTHING }, false),
        })
    }

    /// The largest `direction . p` that no part of a boolean tree exceeds; see [`CsgSolid::reach`].
    pub(crate) fn reach(&self, csg: &CsgSolid, direction: Vec3) -> f64 {
        csg.reach(self.layers(), self.bounds(), direction)
    }

    fn layers(&self) -> Option<&Layers> {
        let layers = || if let Body::Csg(csg) = &self.body { Layers::of(csg) } else { None };
        self.layers.get_or_init(layers).as_ref()
    }
}

/// Mass properties at unit density.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MassProperties {
    /// Volume in units^3. Zero or negative only for degenerate or malformed solids.
    pub volume: f64,
    /// Centre of mass `[x, y, z]`.
    pub centroid: [f64; 3],
    /// Inertia tensor about the centroid, in units^5, row by row.
    pub inertia: [[f64; 3]; 3],
    /// Axis-aligned bounding box.
    pub bounds: Bounds,
}

impl MassProperties {
    /// Of what occupies nothing.
    pub const NOTHING: Self = Self {
        volume: 0.0,
        centroid: [0.0; 3],
        inertia: [[0.0; 3]; 3],
        bounds: Bounds { min: [0.0; 3], max: [0.0; 3] },
    };

    /// Radius of gyration `sqrt(trace(inertia) / (2 volume))`: the scale of the normalised frame.
    /// `None` where it has no meaning (volume or trace not positive and finite).
    pub fn radius_of_gyration(&self) -> Option<f64> {
        let trace = self.inertia[0][0] + self.inertia[1][1] + self.inertia[2][2];
        let radius = (trace / (2.0 * self.volume)).sqrt();
        (radius.is_finite() && radius > 0.0 && self.volume > 0.0).then_some(radius)
    }
}

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Lowest corner.
    pub min: [f64; 3],
    /// Highest corner.
    pub max: [f64; 3],
}

impl Bounds {
    /// The box that holds nothing: the neutral element of [`Bounds::union`].
    pub const EMPTY: Self = Self { min: [f64::INFINITY; 3], max: [f64::NEG_INFINITY; 3] };

    /// The smallest box around `points`; [`Bounds::EMPTY`] without any.
    pub fn of<'a>(points: impl IntoIterator<Item = &'a [f64; 3]>) -> Self {
        points.into_iter().fold(Self::EMPTY, |mut bounds, point| {
            for axis in 0..3 {
                bounds.min[axis] = bounds.min[axis].min(point[axis]);
                bounds.max[axis] = bounds.max[axis].max(point[axis]);
            }
            bounds
        })
    }

    /// The smallest box around both.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            min: std::array::from_fn(|axis| self.min[axis].min(other.min[axis])),
            max: std::array::from_fn(|axis| self.max[axis].max(other.max[axis])),
        }
    }

    /// What both boxes hold; empty, with `max` below `min`, if they are apart.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            min: std::array::from_fn(|axis| self.min[axis].max(other.min[axis])),
            max: std::array::from_fn(|axis| self.max[axis].min(other.max[axis])),
        }
    }
}

/// A triangulated boundary. Triangles turn counter-clockwise when seen from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mesh {
    /// Points in the program's units. Those of neighbouring faces are not merged.
    pub vertices: Vec<[f64; 3]>,
    /// Indices into `vertices`.
    pub triangles: Vec<[u32; 3]>,
    /// `faces[i]`: index of the B-rep face that triangle `i` belongs to; a renderer draws an edge
    /// where it changes. Same length as `triangles`.
    pub faces: Vec<u32>,
}

/// A mesh that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// One face index per triangle is required.
    #[error("mesh: expected one face index per triangle ({triangles}), got {faces}")]
    Faces {
        /// Number of triangles.
        triangles: usize,
        /// Number of face indices.
        faces: usize,
    },
    /// A triangle names a vertex that does not exist.
    #[error("mesh: triangle {triangle} names vertex {vertex}, but there are only {vertices}")]
    Vertex {
        /// Index of the triangle.
        triangle: usize,
        /// The vertex it names.
        vertex: u32,
        /// Number of vertices.
        vertices: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("mesh: vertex {vertex} has a coordinate that is not finite")]
    NotFinite {
        /// Index of the vertex.
        vertex: usize,
    },
}

impl Mesh {
    /// Checks that indices are in range, lengths agree and coordinates are finite.
    pub fn check(&self) -> Result<(), MeshError> {
        if self.faces.len() != self.triangles.len() {
            return Err(MeshError::Faces { triangles: self.triangles.len(), faces: self.faces.len() });
        }
        let vertices = self.vertices.len();
        for (triangle, corners) in self.triangles.iter().enumerate() {
            if let Some(&vertex) = corners.iter().find(|&&v| v as usize >= vertices) {
                return Err(MeshError::Vertex { triangle, vertex, vertices });
            }
        }
        match self.vertices.iter().position(|v| v.iter().any(|c| !c.is_finite())) {
            Some(vertex) => Err(MeshError::NotFinite { vertex }),
            None => Ok(()),
        }
    }

    /// The same mesh with every vertex moved by `map`, which must keep orientation.
    pub fn mapped(&self, map: impl Fn([f64; 3]) -> [f64; 3]) -> Self {
        Self {
            vertices: self.vertices.iter().map(|&v| map(v)).collect(),
            triangles: self.triangles.clone(),
            faces: self.faces.clone(),
        }
    }

    /// Bounds of the vertices.
    pub fn bounds(&self) -> Bounds {
        Bounds::of(&self.vertices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_the_serialised_ones() {
        for class in OutcomeClass::ALL {
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{}\"", class.name()));
            assert_eq!(serde_json::from_str::<OutcomeClass>(&json).unwrap(), class);
        }
    }

    #[test]
    fn only_a_solid_is_valid() {
        let valid: Vec<_> = OutcomeClass::ALL.into_iter().filter(|c| c.is_valid()).collect();
        assert_eq!(valid, [OutcomeClass::Solid]);
    }

    #[test]
    fn a_mesh_that_contradicts_itself_is_refused() {
        let mesh = Mesh { vertices: vec![[0.0; 3]; 3], triangles: vec![[0, 1, 3]], faces: vec![0] };
        assert_eq!(mesh.check(), Err(MeshError::Vertex { triangle: 0, vertex: 3, vertices: 3 }));
        let mesh = Mesh { faces: vec![], triangles: vec![[0, 1, 2]], ..mesh };
        assert_eq!(mesh.check(), Err(MeshError::Faces { triangles: 1, faces: 0 }));
        let mesh = Mesh { vertices: vec![[0.0, f64::NAN, 0.0]; 3], triangles: vec![], faces: vec![] };
        assert_eq!(mesh.check(), Err(MeshError::NotFinite { vertex: 0 }));
    }
}
