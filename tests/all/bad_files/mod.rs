//! Damaged files of every kind that the crate reads: a clear error, or something that can be used.

mod data;
mod model;
mod runs;
mod settings;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::damage::read_bad_files;

/// The bytes of a fixture.
fn fixture(name: &str) -> Vec<u8> {
    crate::harness::bytes(crate::harness::fixture(name))
}

/// A message names the file, if `name` is one, and is not as long as the file.
fn check_message(name: &str, error: &dyn Display) {
    let message = error.to_string();
    assert!(message.contains(name), "{name:?} is not in: {message:.400}");
    assert!(message.len() < 1_000_000, "{} characters: {message:.400}", message.len());
}

/// A directory with links to all files of another.
fn linked(from: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

/// Writes bad files to `name` in `directory`, one after another, and calls `read` after each.
fn with_bad_file(target: &str, cases: u32, samples: Vec<Vec<u8>>, directory: &Path, name: &str, read: impl Fn()) {
    let path: PathBuf = directory.join(name);
    read_bad_files(target, cases, samples, |bytes| {
        // Not over a link to a fixture.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        read();
    });
}
