//! Turns the outcome of a CadQuery program into a reward.
//!
//! A *program* is text. Executing it (see `cadwright-rollout`) gives an [`Outcome`]: a [`Solid`] or
//! a typed [`Failure`], which is data and never an error. Two solids are compared on occupancy
//! [`Grid`]s in a named [`Frame`]. The IoU, the outcome's class and the [`RewardConfig`] determine
//! the reward. [`stats`] computes means and confidence intervals.
//!
//! This crate starts no process, reads no file and uses no tensors.

pub mod common_grid;
pub mod csg;
mod eigh;
pub mod frames;
pub mod grid;
pub mod mesh;
pub mod native;
mod nearest;
pub mod outcome;
pub mod program;
pub mod protocol;
pub mod reward;
#[doc(hidden)]
pub mod samples;
mod section;
pub mod shell;
pub mod stats;
pub mod stl;
pub mod surface;
mod winding;

pub use common_grid::{CommonGrid, Occupied};
pub use frames::{Frame, FrameError, Placed, frame_iou, place};
pub use grid::{Grid, GridSpec, Pose, iou, rasterise, voxelise};
pub use mesh::{Bounds, MassProperties, Mesh, MeshError};
pub use outcome::{Failure, Geometry, Outcome, OutcomeClass, Solid};
pub use program::{PLAN_MARKS, extract_program, normalise_program, outside_of_plan};
pub use protocol::{Protocol, ProtocolScore};
pub use reward::{RewardConfig, RewardSource, reward};
pub use shell::{ShellIou, shell_iou};
pub use stl::{StlError, read_stl, write_stl};
