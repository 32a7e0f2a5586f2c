//! The outcome of executing a program: a solid, or a typed failure.
//!
//! The verdict follows the published "valid syntax rate". The program is dedented, stripped, and
//! run with `cq`, `cadquery`, `np` and `numpy` predefined. It must define a `Workplane`, a `Solid`
//! or a `Compound`. If there are several, the first one among the names
//! `solid result shape part object obj res` counts; if none has such a name, the first one defined.
//! A `Workplane` stands for its `val()`. The object must contain at least one solid. The result is
//! that solid, or the compound of several.
//!
//! | event | class |
//! |---|---|
//! | at least one solid, even of volume zero or invalid by OCC | [`OutcomeClass::Solid`] |
//! | the text does not compile | [`OutcomeClass::Syntax`] |
//! | the program raised (also `SystemExit`, `KeyboardInterrupt`) | [`OutcomeClass::Exception`] |
//! | no object to pick, or a point, an edge, a wire, a face, ... | [`OutcomeClass::NoSolid`] |
//! | a compound without a solid: a boolean left nothing | [`OutcomeClass::Empty`] |
//! | still running at the deadline | [`OutcomeClass::Timeout`] |
//! | asked for more memory than allowed | [`OutcomeClass::Memory`] |
//! | the process died: a signal, or an exit that left no result | [`OutcomeClass::Crash`] |
//!
//! The published rule calls everything but the first row invalid. The class gives the reason.

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
    /// may cause a timeout, a memory failure or a crash, so these outcomes are not cached.
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

    /// The failure's message, if the outcome is a failure.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Solid(_) => None,
            Self::Failure(failure) => Some(&failure.error),
        }
    }
}

/// The reason why a program built no solid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Never [`OutcomeClass::Solid`].
    pub class: OutcomeClass,
    /// One human-readable line, for example `ValueError: No pending wires present`.
    pub error: String,
}

/// One or several solids, in the program's own units and coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct Solid {
    /// The representation of the occupied space.
    pub geometry: Geometry,
    /// Whether OCC's own check calls the shape invalid. Its volume may then be meaningless.
    pub malformed: bool,
    /// Whether the triangles of every tessellation attempt enclose a different volume than the
    /// solid. An IoU may then be wrong.
    pub iou_uncertain: bool,
    /// Mass properties, and whether they are certain. Known from the start for a solid of CadQuery;
    /// computed on first use for a solid of the native engine.
    mass: OnceLock<(MassProperties, bool)>,
    /// Computed on first use, like `mass`.
    solids: OnceLock<Option<u32>>,
    /// Bounds of the occupied space.
    bounds: OnceLock<Bounds>,
    /// The layers of a boolean tree, if it has any. Computed on first use.
    layers: OnceLock<Option<Layers>>,
}

/// The representation of a solid.
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

    /// A solid of the native engine whose properties differ from what its shape implies: malformed
    /// solids, and sheets of zero volume. `solids` is `None` if their number is not certain.
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
    /// determine it, because leaves are extruded along several axes or bodies touch within the
    /// kernel's tolerance.
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

    /// The volume, if the mass properties have been computed already: always for a solid of CadQuery.
    pub fn known_volume(&self) -> Option<f64> {
        self.mass.get().map(|(mass, _)| mass.volume)
    }

    /// Whether the mass properties are known to be right: see [`CsgSolid::mass_properties`].
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

    /// An upper bound on `direction . p` over the boolean tree; see [`CsgSolid::reach`].
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
