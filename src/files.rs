//! Files and directories that are complete or absent: each is written under another name beside its
//! own and renamed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cadwright_rollout::files::WholeFile;

use crate::failpoint;

/// Makes the directory of a file that long work will write at its end, and checks that it can be
/// written.
///
/// # Errors
/// A directory that cannot be made or written, or `path` is a directory.
pub fn prepare_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .with_context(|| format!("{}: cannot create {}", path.display(), parent.display()))?;
    ensure!(is_writable(parent), "{}: no permission to write in {}", path.display(), parent.display());
    ensure!(!path.is_dir(), "{} is a directory; name a file", path.display());
    Ok(())
}

/// Writes `text` to `path` so that the file is complete or as it was, even if the power fails. Its
/// directory must exist.
///
/// # Errors
/// A directory that cannot be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = WholeFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync()?;
        file.finish()?;
        sync_parent(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Waits until the system has written the names in the directory of `path` to the disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Waits until the system has written a directory with all files below it to the disk.
fn sync_directory(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { sync_directory(&path)? } else { File::open(&path)?.sync_all()? }
    }
    File::open(directory)?.sync_all()
}

/// Calls `fill` with a new directory of another name, and then renames it to `directory`. It
/// replaces an older directory of that name. Everything is on the disk before it has its name.
///
/// # Errors
/// An error of `fill`, or a directory that cannot be written. The old directory then stays as it
/// was, and the new one is removed.
pub fn replace_directory(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let beside = |mark: &str| -> PathBuf {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        directory.with_file_name(format!(".{name}.{mark}"))
    };
    let (aside, old) = (beside("new"), beside("old"));
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    for leftover in [&aside, &old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).with_context(|| cannot(leftover))?;
        }
    }
    std::fs::create_dir_all(&aside).with_context(|| cannot(&aside))?;
    let filled = fill(&aside).and_then(|()| sync_directory(&aside).with_context(|| cannot(&aside)));
    if filled.is_err() {
        // It may be what fills the disk.
        let _ = std::fs::remove_dir_all(&aside);
    }
    filled?;
    failpoint::reached("directory-synced").with_context(|| cannot(directory))?;
    if !directory.exists() {
        std::fs::rename(&aside, directory).with_context(|| cannot(directory))?;
    } else if exchange(&aside, directory).is_err() {
        // The file system cannot exchange names: for an instant neither directory has the name.
        std::fs::rename(directory, &old).with_context(|| cannot(directory))?;
        std::fs::rename(&aside, directory).with_context(|| cannot(directory))?;
    }
    sync_parent(directory).with_context(|| cannot(directory))?;
    failpoint::reached("directory-renamed").with_context(|| cannot(directory))?;
    for leftover in [&aside, &old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).with_context(|| cannot(leftover))?;
        }
    }
    Ok(())
}

/// Exchanges the names of two directories atomically.
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both are NUL-terminated strings that outlive the call.
    let status =
        unsafe { libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE) };
    if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Whether a file can be made in `directory`.
pub fn is_writable(directory: &Path) -> bool {
    tempfile::Builder::new().prefix(".writable").tempfile_in(directory).is_ok()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_directory() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("best");
        let write = |text: &'static str| move |dir: &Path| Ok(std::fs::write(dir.join("file"), text)?);
        replace_directory(&target, write("one")).unwrap();
        replace_directory(&target, |_| bail!("out of luck")).unwrap_err();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "one");
        replace_directory(&target, write("two")).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "two");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
