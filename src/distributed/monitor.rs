//! Watches the other ranks from a thread of its own, so that none of them waits for a dead one.
//!
//! Gloo notices at once that a peer's process is gone, but only within an operation, and NCCL
//! notices nothing before its timeout. So each rank counts up a number in the store. A rank whose
//! number stands still, or that has said that it failed, ends all others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::c10d::{Result, Store, StoreAddress};
use super::environment::seconds;

/// How long a rank may be silent until it counts as dead.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Number of ranks that each rank watches.
const WATCHED: usize = 2;

/// Time between two looks at the others.
const INTERVAL: Duration = Duration::from_millis(500);

/// The key under which a rank says why it ends.
const FAILURE: &str = "failure";

/// The threads that watch.
pub(super) struct Monitor {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
struct State {
    rank: usize,
    is_over: AtomicBool,
    /// When the store last answered.
    last_answer: Mutex<Instant>,
}

impl Monitor {
    /// Watches the ranks of the store at `address`, where `rank` is this one.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub fn start(address: &StoreAddress, rank: usize, size: usize, timeout: Duration) -> Result<Self> {
        // A connection of its own: an operation of the main thread may hold the other one.
        let store = Store::open(address, false, 0, timeout)?;
        let last_answer = Mutex::new(Instant::now());
        let state = Arc::new(State { rank, is_over: AtomicBool::new(false), last_answer });
        // Two others watch each rank. Who finds one dead tells all.
        let watched = (1..=WATCHED).map(|distance| (rank + distance) % size).filter(|&other| other != rank);
        let peers = watched.map(|rank| Peer { rank, count: 0, since: Instant::now() }).collect();
        let watch = Watch { store, peers, state: Arc::clone(&state) };
        let clock = Arc::clone(&state);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(|error| format!("cannot start a thread: {error}"))
        };
        let threads = vec![
            spawn("monitor", Box::new(move || watch.run()))?,
            spawn("monitor's clock", Box::new(move || clock.run()))?,
        ];
        Ok(Self { state, threads })
    }

    /// From now on, nothing that happens to another rank ends this one.
    pub fn stop_watching(&self) {
        self.state.is_over.store(true, Ordering::SeqCst);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop_watching();
        for thread in self.threads.drain(..) {
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

impl State {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Ends the process, unless the run is over.
    fn end(&self, reason: &str) {
        if self.is_over() {
            return;
        }
        if super::is_first_to_report() {
            eprintln!("error: rank {} stops: {reason}", self.rank);
        }
        // The main thread may be in an operation that does not end, and what static destructors do
        // then is not known.
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) }
    }

    /// Ends the process if the store stops answering: a question to a machine that has lost its
    /// power waits for ever.
    fn run(&self) {
        while !self.is_over() {
            std::thread::sleep(INTERVAL);
            let silent = self.last_answer.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if silent > SILENCE {
                self.end(&format!("the store of rank 0 has not answered for {}", seconds(silent)));
            }
        }
    }
}

/// Another rank, and its number in the store.
struct Peer {
    rank: usize,
    count: i64,
    /// When the number last changed.
    since: Instant,
}

/// What the thread that asks the store knows.
struct Watch {
    store: Store,
    peers: Vec<Peer>,
    state: Arc<State>,
}

impl Watch {
    fn run(mut self) {
        while !self.state.is_over() {
            match self.look() {
                Ok(None) => {
                    *self.state.last_answer.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    std::thread::sleep(INTERVAL);
                }
                Ok(Some(reason)) => self.state.end(&reason),
                Err(reason) => {
                    // The host of the store is gone: either it failed, or all ranks are done and
                    // this one is about to be told so.
                    std::thread::sleep(4 * INTERVAL);
                    self.state.end(&format!("the store of rank 0 does not answer ({reason})"));
                }
            }
        }
    }

    /// Why this rank must end, if it must.
    fn look(&mut self) -> Result<Option<String>> {
        self.store.add(&alive(self.state.rank), 1)?;
        if let Some(reason) = self.store.find(FAILURE)? {
            return Ok(Some(reason));
        }
        for peer in &mut self.peers {
            let count = self.store.add(&alive(peer.rank), 0)?;
            if count != peer.count {
                (peer.count, peer.since) = (count, Instant::now());
            } else if peer.since.elapsed() > SILENCE {
                let reason =
                    format!("rank {} has given no sign of life for {}", peer.rank, seconds(peer.since.elapsed()));
                announce(&self.store, self.state.rank, &reason);
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }
}

/// The key of a rank's number.
fn alive(rank: usize) -> String {
    format!("alive/{rank}")
}
