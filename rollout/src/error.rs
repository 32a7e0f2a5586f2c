//! Faults of our own or of the machine. A program that fails is not an error: it has an
//! [`Outcome`](cadwright_rewards::Outcome).

use std::path::PathBuf;

use cadwright_rewards::FrameError;

/// Why something cannot be executed or scored at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no interpreter to start.
    #[error(
        "no Python to run CadQuery with: {tried}; run scripts/setup, or set CADWRIGHT_PYTHON to a \
         Python that has CadQuery"
    )]
    NoPython {
        /// The names and places that were tried.
        tried: String,
    },
    /// The interpreter has no CadQuery, or one that does not work.
    #[error(
        "{python}: cannot import CadQuery ({detail}); run scripts/setup, or set CADWRIGHT_PYTHON \
         to a Python that has it", python = python.display()
    )]
    NoCadquery {
        /// The interpreter.
        python: PathBuf,
        /// Python's message.
        detail: String,
    },
    /// The CadQuery server does not start, dies, or refuses programs for longer than is tolerable.
    #[error("{python}: the CadQuery server failed: {detail}", python = python.display())]
    Server {
        /// The interpreter.
        python: PathBuf,
        /// The last message of the server or of the system.
        detail: String,
    },
    /// The filter for system calls cannot be made: a fault of ours.
    #[error("cannot make the filter for system calls: {0}")]
    Filter(String),
    /// A layer of the sandbox that the kernel offers does not hold.
    #[error(
        "{0}; set rollout.sandbox = \"best_effort\" (`score --sandbox best_effort`) to execute \
         programs without it, on a machine with nothing to lose"
    )]
    Sandbox(String),
    /// The scorer was dropped while the request waited.
    #[error("the scorer is shutting down")]
    Closed,
    /// There is no engine of this name.
    #[error("unknown engine \"{0}\"; use auto, native or cadquery")]
    UnknownEngine(String),
    /// A setting is out of its range.
    #[error("{key}: expected {expected}, got {found}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// The accepted values.
        expected: String,
        /// The given value.
        found: String,
    },
    /// There is no frame of this name, or no frame at all.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A file or directory that cannot be read or written.
    #[error("{}: cannot {action}: {detail}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The attempted action, for example "read".
        action: &'static str,
        /// The system's message.
        detail: String,
    },
    /// A line of a JSONL file is malformed.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The name of the field, and what was expected.
        problem: String,
    },
    /// A summary of an evaluation is malformed or lacks a key.
    #[error("{}: not a complete summary of an evaluation: {problem}", path.display())]
    Summary {
        /// Path of the file.
        path: PathBuf,
        /// The name of the key, and what is wrong with it.
        problem: String,
    },
    /// Our own code panicked on a row.
    #[error("row {row}: cadwright panicked: {message}")]
    Panic {
        /// Number of the row, from 1, without blank lines.
        row: usize,
        /// The message of the panic.
        message: String,
    },
    /// A thread could not be started.
    #[error("cannot start {what}: {detail}")]
    Thread {
        /// The purpose of the thread.
        what: &'static str,
        /// The system's message.
        detail: String,
    },
}

impl Error {
    /// A [`Error::File`] from an I/O error.
    pub(crate) fn file(path: &std::path::Path, action: &'static str, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), action, detail: error.to_string() }
    }

    /// Whether another attempt may succeed because the machine is short of something.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::File { .. } | Self::Thread { .. })
    }
}

/// The result of the functions in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
