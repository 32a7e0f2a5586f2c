//! The native engine: executes a CadQuery program without CadQuery, or declines.
//!
//! It *certifies or declines*. It answers only where its answer is known to equal CadQuery's: the verdict, the class of
//! an exception, the shape. Whatever else a program does is handed on, with a reason that is counted.

pub mod python;

use std::fmt;

use crate::outcome::Outcome;

/// Why a program is handed on to CadQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// One of few, to be counted: `unknown name`, `wires touch`, ...
    pub reason: &'static str,
    /// What exactly, for people.
    pub detail: String,
}

impl Decline {
    /// A reason with its detail.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { f.write_str(self.reason) } else { write!(f, "{}: {}", self.reason, self.detail) }
    }
}

/// The outcome of a program, exactly CadQuery's, or why it is not certain. Bounded in time and memory, and never panics,
/// whatever the program.
///
/// `program` is executed as it is, like a worker does: dedented and stripped.
pub fn execute(program: &str) -> Result<Outcome, Decline> {
    let _ = program;
    Err(Decline::new("not supported yet", ""))
}
