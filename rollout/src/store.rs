//! Answers that are known, in bounded memory. Of several requests for one answer at the same time,
//! the first one computes it and the others wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cadwright_rewards::{Geometry, Outcome};

use crate::answer::Answer;
use crate::error::Result;

/// Hash of a program and of everything else that decides its outcome.
pub type Key = [u8; 32];

/// Hashes some texts. The same characters divided otherwise give another hash.
pub fn key(parts: &[&str]) -> Key {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Known answers. Only repeatable ones are kept: a timeout may be the machine's fault.
pub struct Store {
    memory: Mutex<Memory>,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
}

/// Entries by use, bounded by size. The least recently used one goes first.
struct Memory {
    limit: usize,
    size: usize,
    clock: u64,
    entries: HashMap<Key, (Answer, u64)>,
    by_age: BTreeMap<u64, Key>,
}

/// An answer that one request computes and others wait for.
#[derive(Default)]
struct Flight {
    /// Set once: the answer, or `None` if the request failed or panicked.
    landed: Mutex<Option<Option<Answer>>>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// A store that keeps at most `limit` bytes of answers.
    pub fn new(limit: usize) -> Self {
        let memory = Memory { limit, size: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() };
        Self { memory: Mutex::new(memory), flights: Mutex::new(HashMap::new()) }
    }

    /// The answer for `key`: from memory, or else from `run`. Several requests for one key at the
    /// same time call `run` once.
    pub fn get(&self, key: Key, run: impl FnOnce() -> Result<Answer>) -> Result<Answer> {
        loop {
            if let Some(answer) = lock(&self.memory).get(&key) {
                return Ok(answer);
            }
            let (flight, leads) = {
                let mut flights = lock(&self.flights);
                let leads = !flights.contains_key(&key);
                (Arc::clone(flights.entry(key).or_default()), leads)
            };
            if leads {
                let mut landing = Landing { store: self, key, flight: &flight, answer: None };
                // The answer may have arrived between the two checks.
                let known = lock(&self.memory).get(&key);
                let result = known.map_or_else(run, Ok);
                if let Ok(answer) = &result
                    && answer.outcome.as_ref().is_none_or(|outcome| outcome.class().is_repeatable())
                {
                    lock(&self.memory).insert(key, answer.clone());
                }
                landing.answer = result.as_ref().ok().cloned();
                return result;
            }
            let landed = flight
                .changed
                .wait_while(lock(&flight.landed), |landed| landed.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(answer)) = landed.as_ref() {
                return Ok(answer.clone());
            }
            // The request that computed the answer failed or panicked. Try again.
        }
    }
}

/// Ends a flight when it is dropped, also by a panic, so that no request waits for ever.
struct Landing<'a> {
    store: &'a Store,
    key: Key,
    flight: &'a Flight,
    answer: Option<Answer>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        lock(&self.store.flights).remove(&self.key);
        *lock(&self.flight.landed) = Some(self.answer.take());
        self.flight.changed.notify_all();
    }
}

/// The approximate size of an answer in bytes.
fn size_of(answer: &Answer) -> usize {
    512 + match &answer.outcome {
        Some(Outcome::Solid(solid)) => match &solid.geometry {
            Geometry::Mesh(mesh) => mesh.vertices.len() * 24 + mesh.triangles.len() * 16,
            Geometry::Csg(csg) => csg.size_in_bytes(),
        },
        Some(Outcome::Failure(failure)) => failure.error.len(),
        None => 0,
    }
}

impl Memory {
    fn get(&mut self, key: &Key) -> Option<Answer> {
        self.clock += 1;
        let (answer, age) = self.entries.get_mut(key)?;
        self.by_age.remove(age);
        self.by_age.insert(self.clock, *key);
        *age = self.clock;
        Some(answer.clone())
    }

    fn insert(&mut self, key: Key, answer: Answer) {
        self.clock += 1;
        self.size += size_of(&answer);
        if let Some((old, age)) = self.entries.insert(key, (answer, self.clock)) {
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
    use crate::config::Engine;

    fn failure(class: OutcomeClass) -> Answer {
        let outcome = Outcome::Failure(Failure { class, error: "x".to_owned() });
        Answer::known(outcome, Engine::Cadquery, None)
    }

    fn never() -> Result<Answer> {
        panic!("must be known")
    }

    #[test]
    fn the_key_depends_on_every_part_and_on_where_it_ends() {
        assert_eq!(key(&["auto", "a"]), key(&["auto", "a"]));
        assert_ne!(key(&["auto", "a"]), key(&["auto", "b"]));
        assert_ne!(key(&["auto", "a"]), key(&["native", "a"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }

    #[test]
    fn concurrent_requests_run_once() {
        let store = Store::new(1 << 20);
        let runs = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let run = || {
                        runs.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(failure(OutcomeClass::Empty))
                    };
                    store.get([1; 32], run).unwrap();
                });
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_leaves_nobody_waiting() {
        let store = Store::new(1 << 20);
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let run = || {
                    std::thread::sleep(Duration::from_millis(50));
                    panic!("a fault of ours")
                };
                store.get([1; 32], run)
            });
            std::thread::sleep(Duration::from_millis(10));
            let answer = store.get([1; 32], || Ok(failure(OutcomeClass::Empty))).unwrap();
            assert_eq!(answer, failure(OutcomeClass::Empty));
            assert!(leader.join().is_err());
        });
    }

    #[test]
    fn what_the_machine_may_be_to_blame_for_is_not_kept() {
        let store = Store::new(1 << 20);
        for class in [OutcomeClass::Timeout, OutcomeClass::Memory, OutcomeClass::Crash] {
            store.get([1; 32], || Ok(failure(class))).unwrap();
        }
        let answer = store.get([1; 32], || Ok(failure(OutcomeClass::Empty))).unwrap();
        assert_eq!(answer, failure(OutcomeClass::Empty));
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let store = Store::new(3 * 513);
        let run = || Ok(failure(OutcomeClass::Empty));
        for name in [1, 2, 3, 1, 4] {
            store.get([name; 32], run).unwrap();
        }
        store.get([1; 32], never).unwrap();
        store.get([3; 32], never).unwrap();
        let other = failure(OutcomeClass::NoSolid);
        assert_eq!(store.get([2; 32], || Ok(other.clone())).unwrap(), other);
    }
}
