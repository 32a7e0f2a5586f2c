//! Executes CadQuery programs in sandboxed workers and scores them.
//!
//! A [`Scorer`] owns a rayon pool. The pool executes programs by the native engine and compares the
//! solids. A fork server executes the programs that the native engine declines: it has CadQuery
//! imported once, and runs every program in a child process under a deadline and a memory limit.
//!
//! Whatever a program does (hang, crash, ask for all memory) is its own
//! [`Outcome`](cadwright_rewards::Outcome). An [`Error`] is a fault of our own or of the machine.
//! The same requests give the same scores with any number of jobs.

mod answer;
pub mod audit;
#[cfg(test)]
mod bad_files;
mod cache;
mod chosen;
mod config;
#[cfg(test)]
#[path = "../../rewards/tests/all/damage.rs"]
mod damage;
mod engines;
mod error;
pub mod files;
mod filter;
pub mod jsonl;
pub mod protocols;
pub mod python;
mod remove;
mod scorer;
mod scoring;
mod server;
mod store;
mod summary;
mod truth;
mod wire;
mod workers;

pub use answer::{Answer, Exported, Verdict};
pub use chosen::{ChosenReport, ChosenRow};
pub use config::{Engine, GRID_RANGE, Sandbox, ScorerConfig};
pub use engines::execute_natively;
pub use error::{Error, Result};
pub use protocols::{ProtocolReports, Stratum};
pub use scorer::{ScoreBatch, Scorer};
pub use scoring::{Execution, Score, ScoreRequest};
pub use server::{Layer, WorkerInfo};
pub use summary::{AtK, FrameReport, MeanCi, Report, ReportBuilder, TokenCounts, TokenMeans, top_reasons};
pub use truth::{GroundTruth, Shape, ShapeFormat};
