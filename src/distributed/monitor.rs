//! Watches the other ranks from a thread of its own, so that none of them waits for a dead one.
//!
//! Gloo notices at once that a peer's process is gone, but only within an operation, and NCCL
//! notices nothing before its timeout. So each rank counts up a number in the store. A rank whose
//! number stands still, or that has said that it failed, ends all others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::c10d::{Result, Store, StoreAddress};
use super::environment::seconds;

/// How long a rank may be silent until it counts as dead.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Time between two looks at the others.
const INTERVAL: Duration = Duration::from_millis(500);

/// The key under which a rank says why it ends.
const FAILURE: &str = "failure";

/// The thread that watches.
pub(super) struct Monitor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Watches the ranks of the store at `address`, where `rank` is this one.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub fn start(address: &StoreAddress, rank: usize, size: usize, timeout: Duration) -> Result<Self> {
        // A connection of its own: an operation of the main thread may hold the other one.
        let store = Store::open(address, false, 0, timeout)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let watch = Watch { store, rank, peers: vec![(0, Instant::now()); size], is_over: Arc::clone(&is_over) };
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(move || watch.run());
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { is_over, thread: Some(thread) })
    }

    /// From now on, nothing that happens to another rank ends this one.
    pub fn stop_watching(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop_watching();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked watches nothing; there is nothing more to end.
            let _ = thread.join();
        }
    }
}

/// Says to all other ranks that this one ends, and why. Returns whether no other has said so
/// before: the first is the cause, and what others say follows from it.
pub(super) fn announce(store: &Store, rank: usize, reason: &str) -> bool {
    let is_first = store.add("failures", 1).map_or(true, |count| count == 1);
    if is_first {
        // If the store is gone, the others see that instead.
        let _ = store.set(FAILURE, &format!("rank {rank} failed: {reason}"));
    }
    is_first
}

/// What the thread knows.
struct Watch {
    store: Store,
    rank: usize,
    /// For each rank, its number and when that last changed.
    peers: Vec<(i64, Instant)>,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    fn run(mut self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let reason = match self.look() {
                Ok(None) => {
                    std::thread::sleep(INTERVAL);
                    continue;
                }
                Ok(Some(reason)) => reason,
                Err(reason) => {
                    // The host of the store is gone: either it failed, or all ranks are done and
                    // this one is about to be told so.
                    std::thread::sleep(4 * INTERVAL);
                    format!("the store of rank 0 does not answer ({reason})")
                }
            };
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            if super::is_first_to_report() {
                eprintln!("error: rank {} stops: {reason}", self.rank);
            }
            // The main thread may be in an operation that does not end, and what static
            // destructors do then is not known.
            // SAFETY: ends the process.
            unsafe { libc::_exit(1) }
        }
    }

    /// Why this rank must end, if it must.
    fn look(&mut self) -> Result<Option<String>> {
        self.store.add(&alive(self.rank), 1)?;
        if let Some(reason) = self.store.find(FAILURE)? {
            return Ok(Some(reason));
        }
        for rank in (0..self.peers.len()).filter(|rank| *rank != self.rank) {
            let count = self.store.add(&alive(rank), 0)?;
            let (last, since) = &mut self.peers[rank];
            if count != *last {
                (*last, *since) = (count, Instant::now());
            } else if since.elapsed() > SILENCE {
                return Ok(Some(format!("rank {rank} has given no sign of life for {}", seconds(since.elapsed()))));
            }
        }
        Ok(None)
    }
}

/// The key of a rank's number.
fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}
