//! What the terminal is told while work is done: status lines, which `--quiet` leaves out, and
//! warnings.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves status lines out from now on, for the whole process: `--quiet`.
pub fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Whether status lines are left out.
pub fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Prints a line about the progress of work on standard error, unless the process is quiet.
pub fn status(line: impl Display) {
    if !is_quiet() {
        eprintln!("{line}");
    }
}

/// Prints a line about something that may be wrong on standard error.
pub fn warn(line: impl Display) {
    eprintln!("{line}");
}
