//! The lock on a run directory: two processes that write to it would ruin both runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The lock, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks an existing run directory by its file `lock`, which names the process that holds it.
    ///
    /// # Errors
    /// Another process holds it, or the directory cannot be written.
    pub fn take(directory: &Path) -> Result<Self> {
        let path = directory.join("lock");
        let cannot = || format!("cannot lock {}", path.display());
        // Not emptied: another process may hold it.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(cannot)?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                eprintln!("warning: {}: {error}; nothing keeps a second process from this run", path.display());
                return Ok(Self { _file: file });
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "another process" } else { holder.trim() };
            bail!("{} is in use by {holder}; wait for its end or stop it", directory.display());
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "process {} on {}", std::process::id(), host())?;
            file.sync_all()
        };
        write(&mut file).with_context(cannot)?;
        Ok(Self { _file: file })
    }
}

/// The name of this machine.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "an unnamed machine".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = RunLock::take(directory.path()).unwrap();
        let message = RunLock::take(directory.path()).unwrap_err().to_string();
        let holder = format!("in use by process {} on {}", std::process::id(), host());
        assert!(message.contains(&holder), "{message}");
        drop(first);
        RunLock::take(directory.path()).unwrap();
    }
}
