//! Solid geometry of extruded sketches, balls, polyhedra and solids of revolution, and boolean
//! trees of them.
//!
//! The module builds no boundary representation. A solid answers one question exactly: *on which
//! intervals of a straight line is the line inside?* ([`LineCaster`]). Rows of an occupancy grid,
//! volumes and pictures all follow from that.
//!
//! Conventions: `f64` throughout, lengths in model units. A boundary along a line is given by its
//! distance from the line's origin. Sketch coordinates are the plane's own `(x, y)`; `z` is the
//! height above the plane along its normal.

mod cast;
mod extent;
mod gap;
mod layers;
mod mass;
mod plane;
mod polyhedron;
mod region;
mod revolution;
mod section;
mod solid;
mod surface;

pub(crate) use cast::crossings_ahead;
pub use cast::{Boundary, LineCaster, Span};
pub use extent::Aabb;
pub use layers::Layers;
pub use plane::{Plane, PlaneError};
pub use polyhedron::{Facet, Polyhedron};
pub use region::{Edge, EdgeError, Region, Wire, WireError};
pub use revolution::Revolution;
pub use solid::{Ball, CsgSolid, Extrusion, FaceId, Operation, Primitive};
pub(crate) use surface::faces_of;
pub use surface::{Surface, SurfaceTable, seam_direction};

/// A point or direction in the sketch plane.
pub type Vec2 = nalgebra::Vector2<f64>;
/// A point or direction in space.
pub type Vec3 = nalgebra::Vector3<f64>;

/// Boundaries along a line that are closer than this are merged: touching faces fuse, slivers
/// vanish.
///
/// In model units, for parts of about size one. It is far above the rounding of a boundary's
/// position (about 1e-15) and far below the modelling kernel's own tolerance (1e-7), so the engine
/// and the kernel agree on which bodies touch.
pub const CONTACT: f64 = 1e-9;
