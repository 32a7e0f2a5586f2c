//! Solid geometry of extruded sketches, balls and solids of revolution, and boolean trees of them.
//!
//! No boundary representation is built. A solid answers one question, exactly: *where along a straight line is it
//! inside?* ([`LineCaster`]). Rows of an occupancy grid, volumes and pictures all follow from that.
//!
//! Conventions: `f64` throughout, lengths in model units, boundaries along a line are distances from the line's
//! origin. Sketch coordinates are the plane's own `(x, y)`; `z` is the height above the plane along its normal.

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

/// Boundaries closer than this along a line are one: faces that touch fuse, slivers vanish.
///
/// The figure is in model units, whose parts are of size one: far above the rounding of a boundary's position
/// (about 1e-15), far below the modelling kernel's own tolerance (1e-7), so that both agree on what touches.
pub const CONTACT: f64 = 1e-9;
