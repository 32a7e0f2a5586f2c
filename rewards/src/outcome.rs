//! The outcome of executing a program: a solid, or a typed failure.
//!
//! The verdict follows the published "valid syntax rate". The program, dedented and stripped, runs
//! with `cq`, `cadquery`, `np` and `numpy` predefined and must define a `Workplane`, a `Solid` or a
//! `Compound`. If there are several, the first one among the names `solid result shape part object
//! obj res` counts, or else the first that was defined. A `Workplane` stands for its `val()`. The
//! object must contain at least one solid. The result is that solid, or the compound of several.
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
//! The published rule calls everything but the first row invalid. The classes say why.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::csg::{CsgSolid, Layers, Vec3};
use crate::mesh::{Bounds, MassProperties, Mesh};

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
    /// There is no object to pick, or the object that was picked is not a solid.
    NoSolid,
    /// A compound without a solid: a boolean removed everything.
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

    /// Whether the same program gives the same class on every machine and at any time. The machine
    /// may be the cause of a timeout, a memory failure or a crash, so these are not kept.
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::Timeout | Self::Memory | Self::Crash)
    }
}

impl fmt::Display for OutcomeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The outcome of executing a program.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Valid by the published rule.
    Solid(Arc<Solid>),
    /// Invalid, with the reason.
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

/// Why a program built no solid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Never [`OutcomeClass::Solid`].
    pub class: OutcomeClass,
    /// One line for people, for example `ValueError: No pending wires present`.
    pub error: String,
}

/// One or several solids, in the program's own units and coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct Solid {
    /// The space that they occupy.
    pub geometry: Geometry,
    /// Whether OCC's own check calls the shape invalid. Its volume may be meaningless then.
    pub malformed: bool,
    /// Whether the triangles of every attempt enclose another volume than the solid. An IoU may be
    /// wrong then.
    pub iou_uncertain: bool,
    /// Mass properties and whether they are certain. Known from the start for a solid of CadQuery;
    /// otherwise computed when first asked for.
    mass: OnceLock<(MassProperties, bool)>,
    /// Like `mass`.
    solids: OnceLock<Option<u32>>,
    /// Bounds of the occupied space.
    bounds: OnceLock<Bounds>,
    /// The layers of a boolean tree, if it has any.
    layers: OnceLock<Option<Layers>>,
}

/// The form in which a solid is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Geometry {
    /// Triangles, from CadQuery.
    Mesh(Mesh),
    /// A boolean tree, from the native engine.
    Csg(CsgSolid),
}

impl Solid {
    /// A solid of CadQuery: mass properties from the boundary representation, and its tessellation.
    pub fn meshed(mass: MassProperties, mesh: Mesh, solids: u32, malformed: bool) -> Self {
        Self {
            mass: OnceLock::from((mass, true)),
            solids: OnceLock::from(Some(solids)),
            ..Self::of(Geometry::Mesh(mesh), malformed)
        }
    }

    /// A solid of the native engine.
    pub fn native(csg: CsgSolid, malformed: bool) -> Self {
        Self::of(Geometry::Csg(csg), malformed)
    }

    /// What the native engine made if the shape does not tell what the kernel says of it: malformed solids, and sheets of
    /// no volume. `solids` is `None` if their number is not certain.
    pub fn known(csg: CsgSolid, mass: MassProperties, solids: Option<u32>, malformed: bool) -> Self {
        Self {
            mass: OnceLock::from((mass, true)),
            solids: OnceLock::from(solids),
            bounds: OnceLock::from(mass.bounds),
            ..Self::of(Geometry::Csg(csg), malformed)
        }
    }

    fn of(geometry: Geometry, malformed: bool) -> Self {
        let (mass, solids) = (OnceLock::new(), OnceLock::new());
        let (bounds, layers) = (OnceLock::new(), OnceLock::new());
        Self { geometry, malformed, iou_uncertain: false, mass, solids, bounds, layers }
    }

    /// The number of solids; more than one means a compound. `None` if the native engine cannot
    /// tell, because leaves lie along several axes or bodies touch within the kernel's tolerance.
    pub fn solids(&self) -> Option<u32> {
        *self.solids.get_or_init(|| match &self.geometry {
            Geometry::Csg(CsgSolid::Ball(_) | CsgSolid::Revolution(_) | CsgSolid::Polyhedron(_)) => Some(1),
            Geometry::Csg(_) => self.layers()?.bodies(),
            Geometry::Mesh(_) => None,
        })
    }

    /// Axis-aligned bounds of the occupied space.
    pub fn bounds(&self) -> &Bounds {
        self.bounds.get_or_init(|| match &self.geometry {
            Geometry::Mesh(mesh) => mesh.bounds(),
            Geometry::Csg(csg) => csg.tight_bounds(self.layers()).unwrap_or(MassProperties::NOTHING.bounds),
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
        self.mass.get_or_init(|| match &self.geometry {
            Geometry::Csg(csg) => csg.mass_properties(self.layers(), *self.bounds()),
            // Unreachable: `meshed`, the only constructor with a mesh, sets the mass.
            Geometry::Mesh(mesh) => (MassProperties { bounds: mesh.bounds(), ..MassProperties::NOTHING }, false),
        })
    }

    /// The largest `direction . p` that no part of a boolean tree exceeds; see [`CsgSolid::reach`].
    pub(crate) fn reach(&self, csg: &CsgSolid, direction: Vec3) -> f64 {
        csg.reach(self.layers(), self.bounds(), direction)
    }

    fn layers(&self) -> Option<&Layers> {
        let layers = || if let Geometry::Csg(csg) = &self.geometry { Layers::of(csg) } else { None };
        self.layers.get_or_init(layers).as_ref()
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
}
