//! Executes CadQuery programs in sandboxed workers and scores them.
//!
//! A [`Scorer`] owns a rayon pool that executes programs by the native engine, compares what they
//! built, and hands what that engine declines to a fork server: it has CadQuery imported once and
//! runs every program in a short-lived child of its own under a deadline and a memory limit. Whatever a program does (hang, crash, ask for all
//! memory) is its own [`Outcome`](cadwright_rewards::Outcome); an [`Error`] is a fault of ours or
//! of the machine. The same requests give the same scores with any number of jobs.

pub mod audit;
mod batch;
mod cache;
mod config;
mod engines;
mod error;
pub mod files;
pub mod jsonl;
pub mod python;
mod scorer;
mod server;
mod store;
mod summary;
mod truth;
mod wire;
mod workers;

pub use batch::Batch;
pub use config::{Engine, GRID_RANGE, ScorerConfig};
pub use engines::{Answer, Verdict};
pub use error::{Error, Result};
pub use scorer::{Execution, Score, ScoreRequest, Scorer};
pub use server::WorkerInfo;
pub use summary::{MeanCi, ScoreSummary, Tally, top_reasons};
pub use truth::{GroundTruth, Shape, ShapeFormat};
