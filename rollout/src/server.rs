//! One CadQuery fork server process and the messages to and from it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cadwright_rewards::{Failure, OutcomeClass};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Deserialize;

use crate::config::Sandbox;
use crate::error::{Error, Result};
use crate::filter::write_filters;
use crate::python;
use crate::remove::remove_directory;

/// The longest time for the import of CadQuery, on a busy machine with a cold disk.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The time after a program's deadline at which the server itself counts as stuck.
const GRACE: Duration = Duration::from_secs(3);

/// The longest message of the server. Results are in files.
const MESSAGE_LIMIT: usize = 1 << 16;

/// The longest result, which the worker's limit on files grants.
const RESULT_LIMIT: u64 = 64 << 20;

/// The facts that a server reports about itself when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WorkerInfo {
    /// Version of CadQuery.
    pub cadquery: String,
    /// Version of Python.
    pub python: String,
    /// The layers of the sandbox by name; see `rollout/README.md`.
    pub layers: BTreeMap<String, Layer>,
}

/// A layer of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Layer {
    /// Whether it is in force.
    pub holds: bool,
    /// Its form, or why it is not in force.
    pub detail: String,
}

impl WorkerInfo {
    /// The layers that are not in force: their names, and why.
    pub fn missing_layers(&self) -> Vec<String> {
        let missing = self.layers.iter().filter(|(_, layer)| !layer.holds);
        missing.map(|(name, layer)| format!("{name} ({})", layer.detail)).collect()
    }

    /// The layers that are in force, and those that are not.
    pub fn sandbox_line(&self) -> String {
        let holding = self.layers.iter().filter(|(_, layer)| layer.holds).map(|(name, _)| name.as_str());
        let holding = holding.collect::<Vec<_>>().join(", ");
        match self.missing_layers() {
            missing if missing.is_empty() => format!("sandbox: {holding}"),
            missing => format!("sandbox: {holding}; NOT IN FORCE: {}", missing.join(", ")),
        }
    }
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The interpreter; see [`python::find`].
    pub python: Option<PathBuf>,
    /// Deadline of a program.
    pub timeout: Duration,
    /// Bytes of memory that a program may ask for, in addition to the server's own.
    pub memory_bytes: u64,
    /// What to do about layers of the sandbox that do not hold.
    pub sandbox: Sandbox,
    /// The variable that holds a program's result, before those of the published rule.
    pub result_name: Option<String>,
}

/// A task for a worker, numbered as in `worker/measure.py`.
#[derive(Debug, Clone, Copy)]
pub enum Task<'a> {
    /// The outcome of a program.
    Mesh(&'a str),
    /// The same, with the triangles of CadQuery's STL export as the mesh.
    Shell(&'a str),
    /// The IoU of two programs by booleans, once for each pose of the second program. A pose has
    /// the three rows `[rotation and scale | translation]` of a matrix.
    Exact(&'a str, &'a str, &'a [[f64; 12]]),
    /// The solid in a STEP file.
    Step(&'a [u8]),
    /// The files of the solid that a program builds.
    Export(&'a str),
}

impl Task<'_> {
    fn number(self) -> u8 {
        match self {
            Self::Mesh(_) => 0,
            Self::Shell(_) => 1,
            Self::Exact(..) => 2,
            Self::Step(_) => 3,
            Self::Export(_) => 4,
        }
    }
}

impl<'a> Task<'a> {
    /// The payload, as in `worker/measure.py`.
    fn payload(self) -> Cow<'a, [u8]> {
        match self {
            Self::Mesh(program) | Self::Shell(program) | Self::Export(program) => program.as_bytes().into(),
            Self::Step(file) => file.into(),
            Self::Exact(first, second, poses) => {
                let mut payload = (poses.len() as u32).to_le_bytes().to_vec();
                payload.extend(poses.iter().flatten().flat_map(|number| number.to_le_bytes()));
                payload.extend_from_slice(&(first.len() as u32).to_le_bytes());
                payload.extend_from_slice(first.as_bytes());
                payload.extend_from_slice(second.as_bytes());
                payload.into()
            }
        }
    }
}

/// The result of a request.
pub enum Reply {
    /// The worker's result, which is still to be decoded.
    Result(Vec<u8>),
    /// The child died or was killed without a result.
    Failed(Failure),
    /// The server died before it answered. This program or one beside it may be the cause.
    Died,
    /// The server did not answer in time and was killed.
    Stuck,
}

/// The server could not start the program, for example because `fork` or `mkdir` failed. Says why.
pub struct Refusal(pub String);

/// The files of a request: `.in` with its payload, `.out` with its result, `.said0` and `.said1` with
/// what its programs' processes have handed over, and the directory of its program. Dropping this
/// removes them.
struct RequestFiles<'a> {
    root: &'a Path,
    request: u64,
}

impl RequestFiles<'_> {
    fn path(&self, ending: &str) -> PathBuf {
        self.root.join(format!("{}{ending}", self.request))
    }

    /// The result, which is data about a program that may do anything, but written by a process that
    /// has not run it.
    fn result(&self) -> Reply {
        let mut result = Vec::new();
        let read = File::open(self.path(".out")).and_then(|file| file.take(RESULT_LIMIT + 1).read_to_end(&mut result));
        let failed = |error: String| Reply::Failed(Failure { class: OutcomeClass::Crash, error });
        match read {
            Ok(_) if result.len() as u64 <= RESULT_LIMIT => Reply::Result(result),
            Ok(_) => failed(format!("its result has more than {RESULT_LIMIT} bytes")),
            Err(error) => failed(format!("its result cannot be read: {error}")),
        }
    }
}

impl Drop for RequestFiles<'_> {
    fn drop(&mut self) {
        // What cannot be removed now, for example because a program filled its directory and still
        // writes, is removed with the server.
        for ending in [".in", ".out", ".said0", ".said1"] {
            let _ = fs::remove_file(self.path(ending));
        }
        let _ = remove_directory(&self.path(""));
    }
}

/// A message from the server: kind and payload.
type Message = (u8, Vec<u8>);

/// The state of a server, shared with the thread that supervises it.
struct State {
    python: PathBuf,
    /// Set once: the server is ready, or why it is not.
    start: Mutex<Option<Result<WorkerInfo>>>,
    started: Condvar,
    /// The receivers of the replies by request; `None` once the server is dead.
    pending: Mutex<Option<HashMap<u64, Sender<Message>>>>,
    /// The server asks to be replaced.
    is_old: AtomicBool,
}

/// One server process. Dropping it kills the process and all its children.
pub struct Server {
    state: Arc<State>,
    stdin: Mutex<Option<OwnedFd>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    pid: i32,
    root: PathBuf,
    timeout: Duration,
    next_request: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Starts the process; it becomes ready in the background.
    pub fn start(config: &ServerConfig) -> Result<Self> {
        // This process holds ground truths: no process of the same user may read its memory.
        // SAFETY: sets a flag of this process.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        let python = python::find(config.python.as_deref())?;
        let state = Arc::new(State {
            python: python.clone(),
            start: Mutex::new(None),
            started: Condvar::new(),
            pending: Mutex::new(Some(HashMap::new())),
            is_old: AtomicBool::new(false),
        });
        // The supervising thread starts the process and lives as long as the process. Linux sends
        // the death signal that the server asks for when the *thread* that started it ends.
        let (sender, receiver) = bounded(1);
        let (thread_state, thread_config) = (Arc::clone(&state), config.clone());
        let supervisor = thread::Builder::new()
            .name("cadquery-server".to_owned())
            .spawn(move || supervise(&thread_state, &thread_config, &sender))
            .map_err(|e| Error::Thread { what: "the CadQuery supervisor", detail: e.to_string() })?;
        let started = receiver.recv().unwrap_or_else(|_| {
            let detail = "the thread that supervises it ended".to_owned();
            Err(Error::Server { python, detail })
        });
        let (pid, stdin, root) = started?;
        Ok(Self {
            state,
            stdin: Mutex::new(Some(stdin)),
            supervisor: Mutex::new(Some(supervisor)),
            pid,
            root,
            timeout: config.timeout,
            next_request: AtomicU64::new(1),
        })
    }

    /// Waits until CadQuery is imported.
    pub fn ready(&self) -> Result<WorkerInfo> {
        let guard = lock(&self.state.start);
        let (guard, wait) = self
            .state
            .started
            .wait_timeout_while(guard, START_LIMIT, |start| start.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            self.kill();
        }
        guard.clone().unwrap_or_else(|| {
            let detail = format!("not ready after {} s", START_LIMIT.as_secs());
            Err(Error::Server { python: self.state.python.clone(), detail })
        })
    }

    /// The interpreter that runs it.
    pub fn python(&self) -> &Path {
        &self.state.python
    }

    /// Whether the process still runs, as far as is known.
    pub fn is_alive(&self) -> bool {
        lock(&self.state.pending).is_some()
    }

    /// Whether it asks to be replaced, because it has grown.
    pub fn is_old(&self) -> bool {
        self.state.is_old.load(Ordering::Relaxed)
    }

    /// Process id, for tests and diagnosis.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Performs one task in a child. Blocks until it ends, or until shortly after its deadline.
    pub fn perform(&self, task: Task) -> Result<std::result::Result<Reply, Refusal>> {
        self.ready()?;
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let files = RequestFiles { root: &self.root, request };
        if let Err(error) = fs::write(files.path(".in"), task.payload()) {
            return Ok(Err(Refusal(format!("cannot write a program to {}: {error}", files.path(".in").display()))));
        }
        let (sender, receiver) = bounded(1);
        match lock(&self.state.pending).as_mut() {
            Some(pending) => pending.insert(request, sender),
            None => return Ok(Ok(Reply::Died)),
        };
        let limit = Instant::now() + self.timeout + GRACE;
        let mut message = 9u32.to_le_bytes().to_vec();
        message.extend_from_slice(&request.to_le_bytes());
        message.push(task.number());
        if self.send(&message, limit) {
            return Ok(self.receive(&receiver, limit, &files));
        }
        self.kill();
        Ok(Ok(if Instant::now() < limit { Reply::Died } else { Reply::Stuck }))
    }

    fn receive(
        &self,
        receiver: &Receiver<Message>,
        limit: Instant,
        files: &RequestFiles,
    ) -> std::result::Result<Reply, Refusal> {
        let (kind, payload) = match receiver.recv_deadline(limit) {
            Ok(message) => message,
            Err(RecvTimeoutError::Disconnected) => return Ok(Reply::Died),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                return Ok(Reply::Stuck);
            }
        };
        let text = || String::from_utf8_lossy(&payload).into_owned();
        let class = match kind {
            b'D' => {
                return Ok(match files.result() {
                    // The result went with the server's directory.
                    Reply::Failed(_) if !self.is_alive() => Reply::Died,
                    reply => reply,
                });
            }
            b'T' => OutcomeClass::Timeout,
            b'M' => OutcomeClass::Memory,
            b'C' => OutcomeClass::Crash,
            _ => return Err(Refusal(text())),
        };
        Ok(Reply::Failed(Failure { class, error: text() }))
    }

    /// Writes a request; false if the server is dead or reads nothing until `limit`.
    fn send(&self, message: &[u8], limit: Instant) -> bool {
        let stdin = lock(&self.stdin);
        let Some(stdin) = stdin.as_ref() else {
            return false;
        };
        let mut rest = message;
        while !rest.is_empty() {
            let wait = limit.saturating_duration_since(Instant::now()).as_millis() as i32;
            let mut poll = libc::pollfd { fd: stdin.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
            // SAFETY: one pollfd, one descriptor that we own.
            let ready = unsafe { libc::poll(&mut poll, 1, wait) };
            if ready == 0 {
                return false;
            }
            // SAFETY: the pointer and length are those of `rest`; the descriptor does not block.
            let written = unsafe { libc::write(stdin.as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written) {
                Ok(written) => rest = &rest[written..],
                Err(_) => match std::io::Error::last_os_error().kind() {
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
        true
    }

    /// Kills the server. Its children get their death signals.
    pub fn kill(&self) {
        if self.is_alive() {
            // SAFETY: the process is not reaped before `pending` is cleared, so the id is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }

    /// Ends the server and waits until its process and its directory are gone.
    pub fn shut_down(&self) {
        lock(&self.stdin).take();
        self.kill();
        if let Some(supervisor) = lock(&self.supervisor).take() {
            // If the supervisor panicked there is nothing left to wait for.
            let _ = supervisor.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Starts the process, passes its messages on, and reaps it.
fn supervise(state: &State, config: &ServerConfig, sender: &Sender<Result<(i32, OwnedFd, PathBuf)>>) {
    let python = &state.python;
    let failed = |detail: String| Error::Server { python: python.clone(), detail };
    let spawned = (|| {
        let root = tempfile::Builder::new()
            .prefix("cadwright-")
            .tempdir()
            .map_err(|e| Error::file(&std::env::temp_dir(), "create a directory in", &e))?;
        let mut process = spawn(python, config, root.path())?;
        let stdin = process.stdin.take().map(OwnedFd::from);
        let stdin = stdin.ok_or_else(|| failed("no pipe to it".to_owned()))?;
        // SAFETY: sets a flag on a descriptor that we own.
        unsafe { libc::fcntl(stdin.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Ok((root, process, stdin))
    })();
    let (root, mut process, stdin) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    let _ = sender.send(Ok((process.id() as i32, stdin, root.path().to_owned())));
    let refused = process.stdout.take().and_then(|mut stdout| relay(state, &mut stdout));
    let _ = process.kill();
    lock(&state.pending).take();
    let status = process.wait();
    let mut start = lock(&state.start);
    if start.is_none() {
        *start = Some(Err(match refused {
            Some(detail) if detail.starts_with("a layer of the sandbox") => Error::Sandbox(detail),
            Some(detail) => Error::NoCadquery { python: python.clone(), detail },
            None => failed(last_words(root.path(), status)),
        }));
    }
    drop(start);
    state.started.notify_all();
    // What is left of programs, before `root` removes itself by std's function.
    let _ = remove_directory(root.path());
}

/// Starts the process with only those variables of our environment that it needs.
fn spawn(python: &Path, config: &ServerConfig, root: &Path) -> Result<Child> {
    let script = python::write_scripts(root)?;
    write_filters(root)?;
    let errors = root.join("stderr");
    let stderr = File::create(&errors).map_err(|e| Error::file(&errors, "create", &e))?;
    let mut command = Command::new(python);
    command.args(["-s", "-B"]).arg(script).arg(root);
    command.arg(config.timeout.as_secs_f64().to_string()).arg(config.memory_bytes.to_string());
    command.arg(config.sandbox.name()).arg(config.result_name.as_deref().unwrap_or(""));
    command.env_clear().current_dir(root).process_group(0);
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("LANG", "C.UTF-8").env("HOME", root).env("TMPDIR", root);
    // Every run has the same order of sets, and no thread exists before the fork.
    command.env("PYTHONHASHSEED", "0").env("OPENBLAS_NUM_THREADS", "1").env("OMP_NUM_THREADS", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    command
        .spawn()
        .map_err(|error| Error::Server { python: python.to_owned(), detail: format!("cannot start: {error}") })
}

/// Passes messages on until the server's output ends. Returns the reason if it refused to start.
fn relay(state: &State, stdout: &mut impl Read) -> Option<String> {
    loop {
        let mut header = [0; 13];
        stdout.read_exact(&mut header).ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let mut request = [0; 8];
        request.copy_from_slice(&header[4..12]);
        let payload_length = length.checked_sub(9).filter(|&length| length <= MESSAGE_LIMIT)?;
        let mut payload = vec![0; payload_length];
        stdout.read_exact(&mut payload).ok()?;
        match (u64::from_le_bytes(request), header[12]) {
            (0, b'R') => {
                let info: WorkerInfo = serde_json::from_slice(&payload).ok()?;
                warn_of_missing_layers(&info);
                *lock(&state.start) = Some(Ok(info));
                state.started.notify_all();
            }
            (0, b'O') => state.is_old.store(true, Ordering::Relaxed),
            (0, _) => return Some(String::from_utf8_lossy(&payload).into_owned()),
            (request, kind) => {
                let waiting = lock(&state.pending).as_mut()?.remove(&request);
                if let Some(waiting) = waiting {
                    // Nobody listens if the request met its limit meanwhile.
                    let _ = waiting.send((kind, payload));
                }
            }
        }
    }
}

/// Says once on stderr which layers of the sandbox are not in force.
fn warn_of_missing_layers(info: &WorkerInfo) {
    static ONCE: Once = Once::new();
    let missing = info.missing_layers();
    if !missing.is_empty() {
        ONCE.call_once(|| {
            eprintln!("warning: programs run without these layers of the sandbox: {}", missing.join(", "))
        });
    }
}

/// The last line on stderr, or else the exit status.
fn last_words(root: &Path, status: std::io::Result<std::process::ExitStatus>) -> String {
    let stderr = fs::read(root.join("stderr")).unwrap_or_default();
    let text = String::from_utf8_lossy(&stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    match (line, status) {
        (Some(line), _) => line.trim().to_owned(),
        (None, Ok(status)) => status.to_string(),
        (None, Err(error)) => error.to_string(),
    }
}
