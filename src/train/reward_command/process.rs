//! One process of a reward command: lines in, lines out, and its end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use serde::Deserialize;

/// Bytes of the longest line that is read.
const LINE_LIMIT: usize = 64 << 10;

/// Bytes of standard error that are kept in the file.
const STDERR_LIMIT: u64 = 16 << 20;

/// Lines that are read ahead. A process that writes more than it is asked for waits.
const LINES_AHEAD: usize = 4;

/// The largest absolute reward.
pub const MOST_REWARD: f64 = 1e4;

/// The time that a process which has closed its output is given to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// The file with what the processes write to standard error, up to a limit.
#[derive(Clone)]
pub struct StderrLog(Arc<Mutex<(File, u64)>>);

impl StderrLog {
    /// Goes on with the file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let left = STDERR_LIMIT.saturating_sub(file.metadata()?.len());
        Ok(Self(Arc::new(Mutex::new((file, left)))))
    }

    /// Writes what still fits. The rest, and what a full disk does not take, is dropped.
    fn write(&self, bytes: &[u8]) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, left) = &mut *log;
        let fitting = &bytes[..bytes.len().min(*left as usize)];
        *left -= fitting.len() as u64;
        let _ = file.write_all(fitting);
    }
}

/// A line of standard output.
enum Line {
    Text(String),
    TooLong,
}

/// The answer to a request. Further fields are ignored.
#[derive(Deserialize)]
struct Answer {
    id: u64,
    reward: f64,
}

/// A running process, in a process group of its own that is killed when this is dropped.
pub struct Process {
    child: Child,
    requests: Sender<String>,
    lines: Receiver<Line>,
    stderr: JoinHandle<()>,
}

impl Process {
    /// Starts `command` by the shell. It dies with the thread that starts it.
    pub fn start(command: &str, log: &StderrLog) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: `prctl` is async-signal-safe and only sets the signal that the kernel sends.
        unsafe {
            shell.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let mut child = shell.spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let (requests, unwritten) = unbounded();
        let (unread, lines) = bounded(LINES_AHEAD);
        let log = log.clone();
        thread::spawn(move || write_lines(stdin, &unwritten));
        thread::spawn(move || read_lines(BufReader::new(stdout), &unread));
        let stderr = thread::spawn(move || keep_stderr(stderr, &log));
        Ok(Self { child, requests, lines, stderr })
    }

    /// Sends the request `id` and waits for its answer.
    ///
    /// # Errors
    /// Why there is no usable answer. The process must then be dropped: it may answer later.
    pub fn ask(&mut self, id: u64, request: String, limit: Duration) -> Result<f64, String> {
        // If the writer has ended, so has the process, and there is no line.
        let _ = self.requests.send(request);
        match self.lines.recv_timeout(limit) {
            Ok(Line::Text(text)) => parsed(id, &text),
            Ok(Line::TooLong) => Err(format!("it wrote a line of more than {} KiB", LINE_LIMIT >> 10)),
            Err(RecvTimeoutError::Timeout) => Err(format!("it gave no answer within {} s", limit.as_secs_f64())),
            Err(RecvTimeoutError::Disconnected) => Err(self.end()),
        }
    }

    /// How a process without output ended.
    fn end(&mut self) -> String {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return format!("it ended with {status}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        "it closed its output".to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the group is that of a child that has not been waited for, or is gone.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A process that left the group may keep the pipe open: what it says is not waited for.
        let since = Instant::now();
        while !self.stderr.is_finished() && since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The reward in the answer to the request `id`.
fn parsed(id: u64, text: &str) -> Result<f64, String> {
    const SHOWN: usize = 120;
    let shown: String = text.chars().take(SHOWN).collect();
    match serde_json::from_str::<Answer>(text) {
        Ok(answer) if answer.id == id && answer.reward.abs() <= MOST_REWARD => Ok(answer.reward),
        Ok(answer) if answer.id == id => Err(format!("its reward {} is beyond {MOST_REWARD}", answer.reward)),
        _ => Err(format!("it answered {shown:?}, not {{\"id\": {id}, \"reward\": NUMBER}}")),
    }
}

/// Writes requests until there are no more or nobody reads them.
fn write_lines(mut stdin: ChildStdin, requests: &Receiver<String>) {
    for request in requests {
        if stdin.write_all(request.as_bytes()).and_then(|()| stdin.write_all(b"\n")).is_err() {
            return;
        }
    }
}

/// Sends each line on until the output ends, a line is too long or nobody listens.
fn read_lines(mut stdout: impl BufRead, lines: &Sender<Line>) {
    loop {
        let mut line = Vec::new();
        let read = stdout.by_ref().take(LINE_LIMIT as u64 + 1).read_until(b'\n', &mut line);
        let is_over = !matches!(read, Ok(1..)) || !line.ends_with(b"\n");
        if line.len() > LINE_LIMIT {
            let _ = lines.send(Line::TooLong);
            return;
        }
        // Half a line at the end is none.
        if is_over || lines.send(Line::Text(String::from_utf8_lossy(&line).trim().to_owned())).is_err() {
            return;
        }
    }
}

fn keep_stderr(mut stderr: impl Read, log: &StderrLog) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut bytes) {
        log.write(&bytes[..count]);
    }
}
