//! CadQuery workers that survive the programs that they execute.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Duration;

use cadwright_rewards::{Failure, Outcome, OutcomeClass};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::answer::Exported;
use crate::error::{Error, Result};
use crate::server::{Refusal, Reply, Server, ServerConfig, Task, WorkerInfo};
use crate::wire;

/// How often a server that does not come up is started before this is an error.
const STARTS: u32 = 3;

/// How often in a row programs are refused, with no answer to any program in between, before this
/// is an error. The waits in between add up to 6.5 s.
const REFUSALS: u32 = 9;

/// The refusals in a row after which a new server replaces the present one.
const REFUSALS_OF_ONE_SERVER: u32 = 5;

/// The wait after the first refusal. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The replies after which a second server is kept ready: its start costs seconds, which a few
/// programs are not worth.
const REPLIES_BEFORE_SPARE: u64 = 32;

/// The wait after the first failed start of a server. It doubles, too.
const FIRST_START_WAIT: Duration = Duration::from_millis(250);

/// A supervised fork server and a number of places in it.
///
/// A program runs in a process of its own and usually dies alone. If it nevertheless takes the
/// server with it, every program that was running is run again, alone: only a program that kills
/// the server twice is to blame, and its neighbours get their true outcome.
///
/// A server may refuse a program because it cannot start a process or make a directory. This is the
/// machine's fault and often passes. The program is tried again after a wait, at last in a new
/// server. Only if no program at all gets an answer meanwhile, the refusal is an error.
pub struct Workers {
    config: ServerConfig,
    server: Mutex<Option<Arc<Server>>>,
    /// The server that takes the place of a dead or old one at once.
    spare: Mutex<Option<Arc<Server>>>,
    /// Servers that were replaced. They end with their last program.
    retired: Mutex<Vec<Weak<Server>>>,
    /// Locked for reading by programs that run beside others, for writing by one that runs alone.
    company: RwLock<()>,
    /// One token for each program that may run now.
    places: (Sender<()>, Receiver<()>),
    /// The number of replies so far, to any program.
    replies: AtomicU64,
    closed: AtomicBool,
}

impl Workers {
    /// Starts nothing: the first server starts with the first program, or with [`Workers::start`].
    pub fn new(config: ServerConfig, jobs: usize) -> Self {
        let places = bounded(jobs);
        for _ in 0..jobs {
            // Cannot fail: the channel has room for all tokens and we hold both ends.
            let _ = places.0.send(());
        }
        Self {
            config,
            server: Mutex::new(None),
            spare: Mutex::new(None),
            retired: Mutex::new(Vec::new()),
            company: RwLock::new(()),
            places,
            replies: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Starts a server unless there is one. It becomes ready in the background.
    pub fn start(&self) -> Result<()> {
        self.present_server().map(|_| ())
    }

    /// Waits until CadQuery is imported, and returns its version and other facts about the server.
    pub fn ready(&self) -> Result<WorkerInfo> {
        self.server()?.ready()
    }

    /// Process id of the present server, for tests and diagnosis.
    pub fn server_pid(&self) -> Option<i32> {
        self.slot().as_ref().map(|server| server.pid())
    }

    /// Executes one program; blocks until its outcome is known.
    pub fn execute(&self, program: &str) -> Result<Outcome> {
        self.outcome(Task::Mesh(program))
    }

    /// Executes one program. The mesh of its solid has the triangles of CadQuery's STL export.
    pub fn shell(&self, program: &str) -> Result<Outcome> {
        self.outcome(Task::Shell(program))
    }

    /// The solid in a STEP file; blocks until its outcome is known.
    pub fn read_step(&self, file: &[u8]) -> Result<Outcome> {
        self.outcome(Task::Step(file))
    }

    /// The files of the solid that a program builds; blocks until they or its failure are known.
    pub fn export(&self, program: &str) -> Result<std::result::Result<Exported, Failure>> {
        Ok(match self.perform(Task::Export(program))? {
            Ok(reply) => wire::decode_files(&reply).unwrap_or_else(|problem| Err(garbled(&problem))),
            Err(failure) => Err(failure),
        })
    }

    /// IoU of two programs by booleans, once for each pose of the second program. `None` if there
    /// is no answer.
    pub fn exact_ious(&self, a: &str, b: &str, poses: &[[f64; 12]]) -> Result<Vec<Option<f64>>> {
        let reply = self.perform(Task::Exact(a, b, poses))?;
        Ok(reply.map_or_else(|_| vec![None; poses.len()], |reply| wire::decode_ious(&reply, poses.len())))
    }

    fn outcome(&self, task: Task) -> Result<Outcome> {
        Ok(match self.perform(task)? {
            Ok(reply) => wire::decode(&reply).unwrap_or_else(|problem| Outcome::Failure(garbled(&problem))),
            Err(failure) => Outcome::Failure(failure),
        })
    }

    /// The reply to a task, or how the child that worked on it failed.
    fn perform(&self, task: Task) -> Result<std::result::Result<Vec<u8>, Failure>> {
        {
            let _beside_others = self.company.read().unwrap_or_else(PoisonError::into_inner);
            let _place = Place::take(&self.places);
            match self.persist(task)? {
                Reply::Result(reply) => return Ok(Ok(reply)),
                Reply::Failed(failure) => return Ok(Err(failure)),
                Reply::Died | Reply::Stuck => {}
            }
        }
        let _alone = self.company.write().unwrap_or_else(PoisonError::into_inner);
        let failed = |class, error: &str| Ok(Err(Failure { class, error: error.to_owned() }));
        match self.persist(task)? {
            Reply::Result(reply) => Ok(Ok(reply)),
            Reply::Failed(failure) => Ok(Err(failure)),
            Reply::Died if self.is_closed() => Err(Error::Closed),
            Reply::Died => failed(OutcomeClass::Crash, "killed its server, twice"),
            Reply::Stuck => failed(OutcomeClass::Timeout, "stopped its server, twice"),
        }
    }

    /// Has a server perform a task, again and again while servers refuse it.
    fn persist(&self, task: Task) -> Result<Reply> {
        let (mut refusals, mut wait) = (0, FIRST_WAIT);
        let mut replies = self.replies.load(Ordering::Relaxed);
        loop {
            let server = self.server()?;
            let Refusal(detail) = match server.perform(task)? {
                Err(refusal) => refusal,
                Ok(reply) => {
                    if matches!(reply, Reply::Result(_) | Reply::Failed(_)) {
                        let replies = self.replies.fetch_add(1, Ordering::Relaxed);
                        self.keep_spare(replies);
                    }
                    if server.is_old() {
                        self.retire(&server);
                    }
                    return Ok(reply);
                }
            };
            let replies_now = self.replies.load(Ordering::Relaxed);
            if replies_now != replies {
                // Other programs get their answers, so this refusal passes.
                (replies, refusals) = (replies_now, 0);
            }
            refusals += 1;
            if refusals == REFUSALS {
                let detail = format!("refused a program {refusals} times, the last time with: {detail}");
                return Err(Error::Server { python: server.python().to_owned(), detail });
            }
            if refusals == REFUSALS_OF_ONE_SERVER {
                self.retire(&server);
            }
            drop(server);
            thread::sleep(wait);
            wait = LONGEST_WAIT.min(2 * wait);
        }
    }

    /// Starts a spare server, which becomes ready in the background, if it is worth its start.
    fn keep_spare(&self, replies: u64) {
        if replies < REPLIES_BEFORE_SPARE || self.is_closed() {
            return;
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.as_ref().is_none_or(|spare| !spare.is_alive()) {
            // If it cannot be started, the next program that needs a server says why.
            *spare = Server::start(&self.config).ok().map(Arc::new);
        }
    }

    fn take_spare(&self) -> Option<Arc<Server>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|spare| spare.is_alive())
    }

    /// Lets a new server start for the next program.
    fn retire(&self, server: &Arc<Server>) {
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|present| Arc::ptr_eq(present, server)) {
            slot.take();
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|server| server.strong_count() > 0);
            retired.push(Arc::downgrade(server));
        }
    }

    /// Kills all servers; whatever runs or waits ends with [`Error::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let present = self.slot().take().into_iter().chain(self.take_spare());
        let retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        for server in present.chain(retired.iter().filter_map(Weak::upgrade)) {
            server.shut_down();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Server>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present server once it is ready, or a new one if it has died.
    fn server(&self) -> Result<Arc<Server>> {
        let (mut starts, mut wait) = (0, FIRST_START_WAIT);
        loop {
            let ready = self.present_server().and_then(|server| server.ready().map(|_| server));
            let error = match ready {
                Ok(server) => return Ok(server),
                Err(error) => error,
            };
            starts += 1;
            if starts == STARTS || !error.may_pass() {
                return Err(error);
            }
            thread::sleep(wait);
            wait *= 2;
        }
    }

    fn present_server(&self) -> Result<Arc<Server>> {
        let mut slot = self.slot();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        match slot.as_ref().filter(|server| server.is_alive()) {
            Some(server) => Ok(Arc::clone(server)),
            None => {
                let started = || Server::start(&self.config).map(Arc::new);
                let server = self.take_spare().map_or_else(started, Ok)?;
                *slot = Some(Arc::clone(&server));
                Ok(server)
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.close();
    }
}

/// The failure of a program whose process sent a result that cannot be decoded.
fn garbled(problem: &str) -> Failure {
    Failure { class: OutcomeClass::Crash, error: format!("sent a garbled result: {problem}") }
}

/// The place of a running program. Dropping it gives the place to the next one.
struct Place<'a>(&'a Sender<()>);

impl<'a> Place<'a> {
    fn take((sender, receiver): &'a (Sender<()>, Receiver<()>)) -> Self {
        // Cannot fail while we hold the sender.
        let _ = receiver.recv();
        Self(sender)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
