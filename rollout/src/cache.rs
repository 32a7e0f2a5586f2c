//! CadQuery's outcomes of ground truths on disk. They cost the most time and are used in every run.

use std::fs;
use std::path::{Path, PathBuf};

use cadwright_rewards::Outcome;

use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::python::SCRIPTS;
use crate::store::{Key, key};
use crate::wire;

/// The first bytes of a file on disk. They change with its format.
const MAGIC: &[u8; 8] = b"cadwrt02";

/// Changes if older outcomes become wrong for a reason that does not show in the worker's scripts.
/// Version 2: meshes are compared with the volume of their solids.
const VERSION: &str = "2";

/// A directory of outcomes, or none.
pub struct Cache {
    directory: Option<PathBuf>,
}

impl Cache {
    /// Makes the directory and checks that it can be written.
    ///
    /// # Errors
    /// A directory that cannot be made or written.
    pub fn open(directory: Option<&Path>) -> Result<Self> {
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(|e| Error::file(directory, "create", &e))?;
            tempfile::tempfile_in(directory).map_err(|e| Error::file(directory, "write in", &e))?;
        }
        Ok(Self { directory: directory.map(Path::to_owned) })
    }

    /// Whether there is a directory.
    pub fn is_open(&self) -> bool {
        self.directory.is_some()
    }

    /// The outcome of `program`, from disk or else from `run`. The key has the name of the worker's
    /// task, its version of CadQuery, and its scripts, which hold the verdict and the tolerances.
    pub fn get(
        &self,
        task: &str,
        cadquery: &str,
        program: &str,
        run: impl FnOnce() -> Result<Outcome>,
    ) -> Result<Outcome> {
        let Some(directory) = &self.directory else { return run() };
        let parts: Vec<&str> =
            SCRIPTS.iter().map(|(_, text)| *text).chain([VERSION, task, cadquery, program]).collect();
        let path = path_of(directory, &key(&parts));
        if let Some(outcome) = read(&path) {
            return Ok(outcome);
        }
        let outcome = run()?;
        if outcome.class().is_repeatable() {
            // A full disk costs time in the next run. This run has its outcome.
            let _ = write(&path, &outcome);
        }
        Ok(outcome)
    }
}

fn path_of(directory: &Path, key: &Key) -> PathBuf {
    let name = blake3::Hash::from_bytes(*key).to_hex();
    directory.join(&name[..2]).join(&name[2..])
}

/// The outcome in a file; `None` if there is no file, or a damaged one.
pub fn read(path: &Path) -> Option<Outcome> {
    let bytes = fs::read(path).ok()?;
    let (checksum, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if blake3::hash(payload).as_bytes() != checksum {
        return None;
    }
    wire::decode(payload).ok()
}

fn write(path: &Path, outcome: &Outcome) -> std::io::Result<()> {
    let Some(payload) = wire::encode(outcome) else { return Ok(()) };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    write_whole(path, &encoded(&payload))
}

/// The content of a file with the outcome that [`wire::encode`] wrote to `payload`.
pub fn encoded(payload: &[u8]) -> Vec<u8> {
    [MAGIC, &blake3::hash(payload).as_bytes()[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::{Failure, OutcomeClass};

    use super::*;

    fn failure(class: OutcomeClass, error: &str) -> Outcome {
        Outcome::Failure(Failure { class, error: error.to_owned() })
    }

    fn never() -> Result<Outcome> {
        panic!("already known")
    }

    /// Every file below `directory`.
    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn what_is_on_disk_is_found_by_another_cache_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let expected = failure(OutcomeClass::NoSolid, "none");
        let run = || Ok(expected.clone());
        let get = |run: &dyn Fn() -> Result<Outcome>| {
            Cache::open(Some(directory.path())).unwrap().get("mesh", "2", "x = 1", run)
        };
        assert_eq!(get(&run).unwrap(), expected);
        assert_eq!(get(&never).unwrap(), expected);
        let path = &files(directory.path())[0];
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        for damaged in [&bytes[..], &bytes[..10]] {
            fs::write(path, damaged).unwrap();
            let other = failure(OutcomeClass::NoSolid, "other");
            assert_eq!(get(&|| Ok(other.clone())).unwrap(), other);
        }
    }

    #[test]
    fn what_was_asked_and_of_whom_is_part_of_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        for (task, cadquery, program) in
            [("mesh", "2", "x"), ("shell", "2", "x"), ("mesh", "3", "x"), ("mesh", "2", "y")]
        {
            let outcome = failure(OutcomeClass::Empty, &format!("{task} {cadquery} {program}"));
            assert_eq!(cache.get(task, cadquery, program, || Ok(outcome.clone())).unwrap(), outcome);
        }
    }

    #[test]
    fn a_timeout_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        cache.get("mesh", "2", "x", || Ok(failure(OutcomeClass::Timeout, "slow"))).unwrap();
        assert!(files(directory.path()).is_empty());
    }
}
