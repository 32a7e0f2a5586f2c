//! Faults of ours or of the machine. A program that fails is no error: see
//! [`Outcome`](cadwright_rewards::Outcome).

use std::path::PathBuf;

use cadwright_rewards::FrameError;

/// Why something could not be executed or scored at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No interpreter to start.
    #[error(
        "no Python to run CadQuery with: {tried}; run scripts/setup, or set CADWRIGHT_PYTHON to a \
         Python that has CadQuery"
    )]
    NoPython {
        /// What was looked for, and where.
        tried: String,
    },
    /// The interpreter has no (working) CadQuery.
    #[error(
        "{python}: cannot import CadQuery ({detail}); run scripts/setup, or set CADWRIGHT_PYTHON \
         to a Python that has it", python = python.display()
    )]
    NoCadquery {
        /// The interpreter.
        python: PathBuf,
        /// What Python said.
        detail: String,
    },
    /// The CadQuery server did not start or did not live.
    #[error("{python}: the CadQuery server failed: {detail}", python = python.display())]
    Server {
        /// The interpreter.
        python: PathBuf,
        /// Its last words or the system's.
        detail: String,
    },
    /// The scorer was dropped while the request waited.
    #[error("the scorer is shutting down")]
    Closed,
    /// The engine's name means nothing.
    #[error("unknown engine \"{0}\"; use auto, native or cadquery")]
    UnknownEngine(String),
    /// A setting that makes no sense.
    #[error("{key}: expected {expected}, got {found}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A frame that cannot be used.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A file or directory that cannot be read or written.
    #[error("{}: cannot {action}: {detail}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried, e.g. "read".
        action: &'static str,
        /// What the system said.
        detail: String,
    },
    /// A line of a JSONL file that is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Names the field and says what was expected.
        problem: String,
    },
    /// A thread could not be started.
    #[error("cannot start {what}: {detail}")]
    Thread {
        /// What it was for.
        what: &'static str,
        /// What the system said.
        detail: String,
    },
}

impl Error {
    /// A [`Error::File`] from an I/O error.
    pub(crate) fn file(path: &std::path::Path, action: &'static str, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), action, detail: error.to_string() }
    }
}

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
