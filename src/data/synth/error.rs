//! Errors of the generator.

use std::path::PathBuf;

use cadwright_rewards::csg::{EdgeError, PlaneError, WireError};
use thiserror::Error;

use crate::data::parquet::ParquetError;

/// The reason why generating failed.
#[derive(Debug, Error)]
pub enum SynthError {
    /// An option has an unusable value.
    #[error("data synth: {field} is {found}, but must be {expected}")]
    Config {
        /// The option.
        field: &'static str,
        /// The value given.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// There are not enough different parts.
    #[error(
        "data synth: only {found} different parts in {draws} draws, {expected} wanted; use a finer grid than {grid}"
    )]
    Exhausted {
        /// Parts found.
        found: usize,
        /// Parts wanted.
        expected: usize,
        /// Draws made.
        draws: u64,
        /// The grid in use.
        grid: u32,
    },
    /// A drawn plane is impossible: a bug of this program.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// A drawn edge is impossible: a bug of this program.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// A drawn wire is impossible: a bug of this program.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A picture could not be encoded.
    #[error("data synth: part {id}: cannot encode the picture")]
    Encode {
        /// The part.
        id: String,
        /// The encoder's error.
        source: image::ImageError,
    },
    /// The files could not be written.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// `parts.jsonl` could not be written.
    #[error("data synth: cannot write {path}; is the directory writable and is there space left?")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The thread pool could not be started.
    #[error("data synth: cannot start {jobs} threads")]
    Threads {
        /// Threads wanted.
        jobs: usize,
        /// The pool's error.
        source: rayon::ThreadPoolBuildError,
    },
}
