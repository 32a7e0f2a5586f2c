//! CadQuery workers that survive what they execute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cadwright_rewards::{Failure, Outcome, OutcomeClass};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};
use crate::server::{Answer, Server, ServerConfig, Task, WorkerInfo};
use crate::wire;

/// Starts tried before a server that does not come up is an error.
const STARTS: usize = 3;

/// A supervised fork server and a number of places in it.
///
/// A program runs in a process of its own, so its death is its own. Should it nevertheless take the
/// server with it, every program that was running is run again, alone: only one that kills the
/// server twice is to blame, and neighbours get their true outcome.
pub struct Workers {
    config: ServerConfig,
    server: Mutex<Option<Arc<Server>>>,
    /// Held by reading while running beside others, by writing while running alone.
    company: RwLock<()>,
    /// One token per program that may run now.
    places: (Sender<()>, Receiver<()>),
    closed: AtomicBool,
}

impl Workers {
    /// Starts nothing yet: the first server comes with the first program, or with [`Workers::start`].
    pub fn new(config: ServerConfig, jobs: usize) -> Self {
        let places = bounded(jobs);
        for _ in 0..jobs {
            // Cannot fail: the channel has room for all of them and we hold both ends.
            let _ = places.0.send(());
        }
        Self { config, server: Mutex::new(None), company: RwLock::new(()), places, closed: AtomicBool::new(false) }
    }

    /// Starts a server, which becomes ready in the background, unless one is there.
    pub fn start(&self) -> Result<()> {
        self.present_server().map(|_| ())
    }

    /// Waits until CadQuery is imported and says what runs.
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

    /// Executes one program; a solid has the triangles of CadQuery's STL export for a mesh.
    pub fn export(&self, program: &str) -> Result<Outcome> {
        self.outcome(Task::Shell(program))
    }

    /// The solid in a STEP file; blocks until its outcome is known.
    pub fn read_step(&self, file: &[u8]) -> Result<Outcome> {
        self.outcome(Task::Step(file))
    }

    /// IoU of two programs by booleans, the second moved by each of some poses; `None` where there is no answer.
    pub fn exact_ious(&self, a: &str, b: &str, poses: &[[f64; 12]]) -> Result<Vec<Option<f64>>> {
        let reply = self.perform(Task::Exact(a, b, poses))?;
        Ok(reply.map_or_else(|_| vec![None; poses.len()], |reply| wire::decode_ious(&reply, poses.len())))
    }

    fn outcome(&self, task: Task) -> Result<Outcome> {
        let garbled =
            |problem| Failure { class: OutcomeClass::Crash, error: format!("sent a garbled result: {problem}") };
        Ok(match self.perform(task)? {
            Ok(reply) => wire::decode(&reply).unwrap_or_else(|problem| Outcome::Failure(garbled(problem))),
            Err(failure) => Outcome::Failure(failure),
        })
    }

    /// The reply to a task, or how the child that worked on it failed.
    fn perform(&self, task: Task) -> Result<std::result::Result<Vec<u8>, Failure>> {
        {
            let _beside_others = self.company.read().unwrap_or_else(PoisonError::into_inner);
            let token = self.places.1.recv();
            let answer = self.server().and_then(|server| server.perform(task));
            if token.is_ok() {
                let _ = self.places.0.send(());
            }
            match answer? {
                Answer::Reply(reply) => return Ok(Ok(reply)),
                Answer::Failed(failure) => return Ok(Err(failure)),
                Answer::Died | Answer::Stuck => {}
            }
        }
        let _alone = self.company.write().unwrap_or_else(PoisonError::into_inner);
        let failed = |class, error: &str| Ok(Err(Failure { class, error: error.to_owned() }));
        match self.server()?.perform(task)? {
            Answer::Reply(reply) => Ok(Ok(reply)),
            Answer::Failed(failure) => Ok(Err(failure)),
            Answer::Died if self.closed.load(Ordering::Relaxed) => Err(Error::Closed),
            Answer::Died => failed(OutcomeClass::Crash, "killed its server, twice"),
            Answer::Stuck => failed(OutcomeClass::Timeout, "stopped its server, twice"),
        }
    }

    /// Kills the server; whatever runs or waits ends with [`Error::Closed`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let server = self.slot().take();
        if let Some(server) = server {
            server.shut_down();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Server>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present server once it is ready, or a new one where it has died.
    fn server(&self) -> Result<Arc<Server>> {
        let mut failures = 0;
        loop {
            let server = self.present_server()?;
            match server.ready() {
                Ok(_) => return Ok(server),
                Err(error) => {
                    failures += 1;
                    if failures >= STARTS || matches!(error, Error::NoCadquery { .. }) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn present_server(&self) -> Result<Arc<Server>> {
        let mut slot = self.slot();
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        match slot.as_ref().filter(|server| server.is_alive()) {
            Some(server) => Ok(Arc::clone(server)),
            None => {
                let server = Arc::new(Server::start(&self.config)?);
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
