//! Places where a test can end the process or fill the disk, to show that nothing is lost there.
//!
//! `CADWRIGHT_FAILPOINT=NAME` kills the process with SIGKILL when it first comes to the place NAME
//! of [`NAMES`]; `NAME:N` when it comes there for the N-th time. `NAME=full` or `NAME:N=full` makes
//! that one operation fail as on a full disk. Several are separated by commas. Without the variable
//! a place costs one comparison.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "CADWRIGHT_FAILPOINT";

/// Every place, in the order in which a step comes to them.
pub const NAMES: [&str; 10] = [
    "samples-step",
    "metrics-row",
    "checkpoint-begun",
    "checkpoint-weights",
    "checkpoint-optimizer",
    "checkpoint-state",
    "checkpoint-manifest",
    "directory-synced",
    "directory-renamed",
    "checkpoint-pruned",
];

/// What happens at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failpoint {
    name: String,
    /// At which visit, from 1.
    visit: usize,
    /// The operation fails; otherwise the process dies.
    is_full: bool,
}

impl Failpoint {
    fn parse(text: &str) -> Option<Self> {
        let (place, is_full) = match text.split_once('=') {
            None => (text, false),
            Some((place, "full")) => (place, true),
            Some(_) => return None,
        };
        let (name, visit) = place.split_once(':').unwrap_or((place, "1"));
        let visit = visit.parse().ok().filter(|visit| *visit > 0)?;
        NAMES.contains(&name).then(|| Self { name: name.to_owned(), visit, is_full })
    }

    fn act(&self) -> io::Result<()> {
        if self.is_full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        loop {
            // SAFETY: sends a signal to this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

/// Says that the process has come to the place `name`.
///
/// # Errors
/// A full disk, if the variable asks for it here.
///
/// # Panics
/// The variable cannot be read: a test that injects nothing must not pass.
pub fn reached(name: &str) -> io::Result<()> {
    static FAILPOINTS: OnceLock<Vec<(Failpoint, AtomicUsize)>> = OnceLock::new();
    debug_assert!(NAMES.contains(&name), "{name} is not in NAMES");
    let failpoints = FAILPOINTS.get_or_init(|| {
        let Ok(text) = std::env::var(VARIABLE) else { return Vec::new() };
        let parsed = |text: &str| match Failpoint::parse(text) {
            Some(failpoint) => (failpoint, AtomicUsize::new(0)),
            None => panic!("{VARIABLE}={text}: expected NAME[:N][=full], NAME one of {}", NAMES.join(", ")),
        };
        text.split(',').map(parsed).collect()
    });
    for (failpoint, visits) in failpoints.iter().filter(|(failpoint, _)| failpoint.name == name) {
        if visits.fetch_add(1, Ordering::SeqCst) + 1 == failpoint.visit {
            failpoint.act()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_place_visit_and_action() {
        let parsed = |text| Failpoint::parse(text).map(|point| (point.name, point.visit, point.is_full));
        assert_eq!(parsed("metrics-row"), Some(("metrics-row".into(), 1, false)));
        assert_eq!(parsed("checkpoint-state:3"), Some(("checkpoint-state".into(), 3, false)));
        assert_eq!(parsed("checkpoint-state:2=full"), Some(("checkpoint-state".into(), 2, true)));
        for wrong in ["", "nowhere", "metrics-row:0", "metrics-row:x", "metrics-row=half"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
