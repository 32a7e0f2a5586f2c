//! Outcomes already known: in memory, bounded, and on disk for ground truths.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cadwright_rewards::{Body, Outcome};

use crate::error::{Error, Result};
use crate::python::SCRIPTS;
use crate::wire;

/// Content hash of a program and of everything that decides its outcome.
pub type Key = [u8; 32];

/// First bytes of a file on disk; changes with its format.
const MAGIC: &[u8; 8] = b"cadwrt01";

/// Hashes a program together with the worker's scripts (they hold the verdict and the tolerances)
/// and CadQuery's version.
pub fn key(cadquery: &str, program: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    let scripts = SCRIPTS.iter().map(|(_, text)| *text);
    for part in scripts.chain([cadquery, program]) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Known outcomes. Only repeatable ones are kept: a timeout may be the machine's fault.
pub struct Store {
    directory: Option<PathBuf>,
    memory: Mutex<Memory>,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
}

/// Least recently used first, bounded by size.
struct Memory {
    limit: usize,
    size: usize,
    clock: u64,
    entries: HashMap<Key, (Outcome, u64)>,
    by_age: BTreeMap<u64, Key>,
}

/// An execution that others wait for.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<Option<Outcome>>>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// `limit`: bytes kept in memory. Makes the directory and checks that it can be written.
    pub fn open(directory: Option<&Path>, limit: usize) -> Result<Self> {
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(|e| Error::file(directory, "create", &e))?;
            tempfile::tempfile_in(directory).map_err(|e| Error::file(directory, "write in", &e))?;
        }
        let memory = Memory { limit, size: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() };
        Ok(Self {
            directory: directory.map(Path::to_owned),
            memory: Mutex::new(memory),
            flights: Mutex::new(HashMap::new()),
        })
    }

    /// The outcome of `key`: from memory, with `on_disk` from disk, else from `run`. Requests for
    /// one key at the same time run it once. The flag says whether this call ran it.
    pub fn get(&self, key: Key, on_disk: bool, run: impl FnOnce() -> Result<Outcome>) -> Result<(Outcome, bool)> {
        loop {
            if let Some(outcome) = lock(&self.memory).get(&key) {
                return Ok((outcome, false));
            }
            let (flight, leads) = {
                let mut flights = lock(&self.flights);
                let leads = !flights.contains_key(&key);
                (Arc::clone(flights.entry(key).or_default()), leads)
            };
            if leads {
                // The outcome may have come in between the two looks.
                let known = lock(&self.memory).get(&key).or_else(|| self.read(&key, on_disk));
                let executed = known.is_none();
                let result = known.map_or_else(run, Ok);
                if let Ok(outcome) = &result {
                    self.keep(&key, outcome, on_disk && executed);
                }
                lock(&self.flights).remove(&key);
                *lock(&flight.landed) = Some(result.as_ref().ok().cloned());
                flight.changed.notify_all();
                return result.map(|outcome| (outcome, executed));
            }
            let landed = flight
                .changed
                .wait_while(lock(&flight.landed), |landed| landed.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(outcome)) = landed.as_ref() {
                return Ok((outcome.clone(), false));
            }
            // The leader met a fault of ours; find out for ourselves.
        }
    }

    fn keep(&self, key: &Key, outcome: &Outcome, on_disk: bool) {
        if !outcome.class().is_repeatable() {
            return;
        }
        lock(&self.memory).insert(*key, outcome.clone());
        if on_disk && let Some(path) = self.path(key) {
            // A full disk costs time in the next run, not the outcome of this one.
            let _ = write_entry(&path, outcome);
        }
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        let name = blake3::Hash::from_bytes(*key).to_hex();
        self.directory.as_ref().map(|d| d.join(&name[..2]).join(&name[2..]))
    }

    fn read(&self, key: &Key, on_disk: bool) -> Option<Outcome> {
        let path = if on_disk {
            self.path(key)?
        } else {
            return None;
        };
        let bytes = fs::read(path).ok()?;
        let (checksum, payload) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        if blake3::hash(payload).as_bytes() != checksum {
            return None;
        }
        wire::decode(payload).ok()
    }
}

/// Written aside and renamed: an entry is complete or absent.
fn write_entry(path: &Path, outcome: &Outcome) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    let Some(payload) = wire::encode(outcome) else { return Ok(()) };
    file.write_all(MAGIC)?;
    file.write_all(blake3::hash(&payload).as_bytes())?;
    file.write_all(&payload)?;
    file.persist(path)?;
    Ok(())
}

/// Roughly what an outcome occupies.
fn size_of(outcome: &Outcome) -> usize {
    512 + match outcome {
        Outcome::Solid(solid) => match &solid.body {
            Body::Mesh(mesh) => mesh.vertices.len() * 24 + mesh.triangles.len() * 16,
            Body::Csg(csg) => csg.size_in_bytes(),
        },
        Outcome::Failure(failure) => failure.error.len(),
    }
}

impl Memory {
    fn get(&mut self, key: &Key) -> Option<Outcome> {
        self.clock += 1;
        let (outcome, age) = self.entries.get_mut(key)?;
        self.by_age.remove(age);
        self.by_age.insert(self.clock, *key);
        *age = self.clock;
        Some(outcome.clone())
    }

    fn insert(&mut self, key: Key, outcome: Outcome) {
        self.clock += 1;
        self.size += size_of(&outcome);
        if let Some((old, age)) = self.entries.insert(key, (outcome, self.clock)) {
            self.size -= size_of(&old);
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, key);
        while self.size > self.limit
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            if let Some((old, _)) = self.entries.remove(&oldest) {
                self.size -= size_of(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use cadwright_rewards::{Failure, OutcomeClass};

    use super::*;

    fn failure(class: OutcomeClass, error: &str) -> Outcome {
        Outcome::Failure(Failure { class, error: error.to_owned() })
    }

    fn never() -> Result<Outcome> {
        panic!("must be known")
    }

    #[test]
    fn the_key_depends_on_program_and_version() {
        assert_eq!(key("2.8", "a"), key("2.8", "a"));
        assert_ne!(key("2.8", "a"), key("2.8", "b"));
        assert_ne!(key("2.8", "a"), key("2.9", "a"));
    }

    #[test]
    fn concurrent_requests_run_once() {
        let store = Store::open(None, 1 << 20).unwrap();
        let runs = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let run = || {
                        runs.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(failure(OutcomeClass::Empty, "x"))
                    };
                    store.get([1; 32], false, run).unwrap();
                });
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_the_machine_may_be_to_blame_for_is_not_kept() {
        let store = Store::open(None, 1 << 20).unwrap();
        for class in [OutcomeClass::Timeout, OutcomeClass::Memory, OutcomeClass::Crash] {
            store.get([1; 32], false, || Ok(failure(class, "x"))).unwrap();
        }
        let (outcome, ran) = store.get([1; 32], false, || Ok(failure(OutcomeClass::Empty, "y"))).unwrap();
        assert!(ran && outcome.class() == OutcomeClass::Empty);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let store = Store::open(None, 3 * 513).unwrap();
        let run = || Ok(failure(OutcomeClass::Empty, "x"));
        for name in [1, 2, 3, 1, 4] {
            store.get([name; 32], false, run).unwrap();
        }
        store.get([1; 32], false, never).unwrap();
        store.get([3; 32], false, never).unwrap();
        assert!(store.get([2; 32], false, run).unwrap().1);
    }

    #[test]
    fn the_disk_remembers_and_a_damaged_entry_is_run_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(Some(directory.path()), 1 << 20).unwrap();
        let expected = failure(OutcomeClass::Exception, "ValueError: no");
        let run = || Ok(expected.clone());
        assert!(open().get([7; 32], true, run).unwrap().1);
        assert_eq!(open().get([7; 32], true, never).unwrap(), (expected.clone(), false));
        let store = open();
        let path = store.path(&[7; 32]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.get([7; 32], true, run).unwrap(), (expected.clone(), true));
        fs::write(&path, &bytes[..10]).unwrap();
        assert!(open().get([7; 32], true, run).unwrap().1);
        assert_eq!(open().get([7; 32], true, never).unwrap(), (expected, false));
    }

    #[test]
    fn predictions_stay_off_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(directory.path()), 1 << 20).unwrap();
        store.get([7; 32], false, || Ok(failure(OutcomeClass::Empty, "x"))).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
