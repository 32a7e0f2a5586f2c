//! Answers already known, in memory and bounded. Requests for the same at the same time wait for one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cadwright_rewards::{Body, Outcome};

use crate::engines::Answer;
use crate::error::Result;

/// Content hash of a program and of everything that decides its outcome.
pub type Key = [u8; 32];

/// Hashes some texts; where one ends and the next begins counts.
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

/// Least recently used first, bounded by size.
struct Memory {
    limit: usize,
    size: usize,
    clock: u64,
    entries: HashMap<Key, (Answer, u64)>,
    by_age: BTreeMap<u64, Key>,
}

/// An execution that others wait for.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<Option<Answer>>>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// `limit`: bytes kept in memory.
    pub fn new(limit: usize) -> Self {
        let memory = Memory { limit, size: 0, clock: 0, entries: HashMap::new(), by_age: BTreeMap::new() };
        Self { memory: Mutex::new(memory), flights: Mutex::new(HashMap::new()) }
    }

    /// The answer for `key`: from memory, else from `run`. Requests for one key at the same time run it once.
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
                // The answer may have come in between the two looks.
                let known = lock(&self.memory).get(&key);
                let result = known.map_or_else(run, Ok);
                if let Ok(answer) = &result
                    && answer.outcome.as_ref().is_none_or(|outcome| outcome.class().is_repeatable())
                {
                    lock(&self.memory).insert(key, answer.clone());
                }
                lock(&self.flights).remove(&key);
                *lock(&flight.landed) = Some(result.as_ref().ok().cloned());
                flight.changed.notify_all();
                return result;
            }
            let landed = flight
                .changed
                .wait_while(lock(&flight.landed), |landed| landed.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(answer)) = landed.as_ref() {
                return Ok(answer.clone());
            }
            // The leader met a fault of ours; find out for ourselves.
        }
    }
}

/// Roughly what an answer occupies.
fn size_of(answer: &Answer) -> usize {
    512 + match &answer.outcome {
        Some(Outcome::Solid(solid)) => match &solid.body {
            Body::Mesh(mesh) => mesh.vertices.len() * 24 + mesh.triangles.len() * 16,
            Body::Csg(csg) => csg.size_in_bytes(),
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
        let outcome = Some(Outcome::Failure(Failure { class, error: "x".to_owned() }));
        Answer { outcome, engine: Engine::Cadquery, declined: None }
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
