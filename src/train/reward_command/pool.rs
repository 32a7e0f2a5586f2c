//! The processes of a reward command: each has a thread, and gets one request at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cadwright_rewards::RewardConfig;
use crossbeam::channel::{Receiver, Sender, unbounded};
use serde::Serialize;

use super::process::{Process, StderrLog};

/// Failures in a row after which the rest of a step's completions get no answer: a command that
/// always hangs must not hold the run for ever.
pub const MOST_FAILURES: usize = 8;

/// Requests with which a process begins.
const CHECKS: u64 = 2;

/// What the command is told about a completion.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// Number of the request, which the answer repeats.
    pub id: u64,
    /// The row's id.
    pub part: String,
    /// The input picture; the file is there until the answer.
    pub image: PathBuf,
    /// The program, as it was executed.
    pub program: String,
    /// Class of its outcome.
    pub outcome: &'static str,
    /// Volume of its solid; `None` without one.
    pub volume: Option<f64>,
    /// Smallest and largest coordinates of its solid; `None` without one.
    pub bounds: Option<[[f64; 3]; 2]>,
    /// IoU in the frame of the reward; `None` without a ground truth.
    pub iou: Option<f64>,
}

impl Request {
    /// The request as a line of JSON, without its end.
    pub fn line(&self) -> String {
        // Only a map with keys that are no text cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What the processes share.
struct Shared {
    config: RewardConfig,
    log: StderrLog,
    /// The picture of the first requests.
    check_image: PathBuf,
    /// Since the last call of [`Pool::ask`].
    restarts: AtomicUsize,
    failures_in_a_row: AtomicUsize,
}

/// The place of a process.
struct Slot {
    process: Option<Process>,
    /// Whether a process was started here before.
    has_started: bool,
    /// Whether the process has answered nothing but the first requests.
    is_fresh: bool,
}

/// A request for any process, and where its answer goes.
struct Job {
    id: u64,
    place: usize,
    request: String,
    answer: Sender<(usize, Result<f64, String>)>,
}

/// The processes. They end when this is dropped.
pub struct Pool {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    next_id: u64,
}

impl Pool {
    /// Starts one process, which must answer; the others start with their first request. The picture
    /// `check_image` is for their first requests.
    ///
    /// # Errors
    /// Why there is no usable answer.
    pub fn start(config: &RewardConfig, log: StderrLog, check_image: PathBuf) -> Result<Self, String> {
        let (restarts, failures_in_a_row) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { config: config.clone(), log, check_image, restarts, failures_in_a_row });
        let mut first = Some(shared.started()?);
        let (jobs, queue) = unbounded();
        let serve = |_| {
            let (shared, queue, first) = (Arc::clone(&shared), queue.clone(), first.take());
            thread::spawn(move || shared.serve(&queue, first))
        };
        let threads = (0..config.command_processes).map(serve).collect();
        Ok(Self { shared, jobs: Some(jobs), threads, next_id: CHECKS })
    }

    /// The answers to requests, in their order, or why there are none; and how many processes were
    /// started again. The ids are set here.
    pub fn ask(&mut self, requests: Vec<Request>) -> (Vec<Result<f64, String>>, usize) {
        let (sender, receiver) = unbounded();
        self.shared.failures_in_a_row.store(0, Ordering::Relaxed);
        let mut answers = vec![Err("there is no process".to_owned()); requests.len()];
        for (place, request) in requests.into_iter().enumerate() {
            let request = Request { id: self.next_id, ..request };
            let job = Job { id: request.id, place, request: request.line(), answer: sender.clone() };
            self.next_id += 1;
            // The threads end only when this is dropped.
            let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
        }
        drop(sender);
        for (place, answer) in receiver {
            answers[place] = answer;
        }
        (answers, self.shared.restarts.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs.take();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A new process that has answered two requests: about a cube, and about a program that fails.
    /// The second one shows whether it writes one line for each.
    fn started(&self) -> Result<Process, String> {
        let solid = Request {
            id: 0,
            part: "check".to_owned(),
            image: self.check_image.clone(),
            program: "solid = cq.Workplane().box(2, 2, 2)".to_owned(),
            outcome: "solid",
            volume: Some(8.0),
            bounds: Some([[-1.0; 3], [1.0; 3]]),
            iou: Some(1.0),
        };
        let failure = Request {
            id: 1,
            program: "solid = cq.Workplane(.box(2".to_owned(),
            outcome: "syntax",
            volume: None,
            bounds: None,
            iou: Some(0.0),
            ..solid.clone()
        };
        let started = Process::start(&self.config.command, &self.log);
        let mut process = started.map_err(|error| format!("it cannot be started: {error}"))?;
        let limit = self.limit();
        process.ask(0, solid.line(), limit + Duration::from_secs_f64(self.config.command_start_s))?;
        process.ask(1, failure.line(), limit)?;
        Ok(process)
    }

    /// The time that a process has for an answer.
    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.config.command_timeout_s)
    }

    /// Answers requests until there are no more.
    fn serve(&self, jobs: &Receiver<Job>, process: Option<Process>) {
        let mut slot = Slot { has_started: process.is_some(), process, is_fresh: true };
        for Job { id, place, request, answer } in jobs {
            let result = if self.failures_in_a_row.load(Ordering::Relaxed) >= MOST_FAILURES {
                Err(format!("it was not asked after {MOST_FAILURES} failures in a row"))
            } else {
                self.answer(&mut slot, id, &request)
            };
            match &result {
                Ok(_) => self.failures_in_a_row.store(0, Ordering::Relaxed),
                Err(_) => _ = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed),
            }
            // Nobody waits for it if the run ends.
            let _ = answer.send((place, result));
        }
    }

    /// The answer of the slot's process, or of a new one if it fails and had answered before: then
    /// the fault may be of an earlier request.
    fn answer(&self, slot: &mut Slot, id: u64, request: &str) -> Result<f64, String> {
        loop {
            let mut running = match slot.process.take() {
                Some(running) => running,
                None => {
                    let is_restart = std::mem::replace(&mut slot.has_started, true);
                    self.restarts.fetch_add(usize::from(is_restart), Ordering::Relaxed);
                    slot.is_fresh = true;
                    self.started()?
                }
            };
            let is_fresh = std::mem::replace(&mut slot.is_fresh, false);
            match running.ask(id, request.to_owned(), self.limit()) {
                Ok(reward) => {
                    slot.process = Some(running);
                    return Ok(reward);
                }
                Err(reason) if is_fresh => return Err(reason),
                Err(_) => {}
            }
        }
    }
}
