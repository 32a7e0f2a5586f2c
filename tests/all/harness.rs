//! Shared parts of the tests: the repository's paths, libtorch's generator, and the binary in a
//! fresh directory, whose failures are reported with command, directory and output.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cadwright::train::checkpoint::newest;
use serde_json::Value;
use tempfile::TempDir;

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has CadQuery and TensorBoard.
pub fn python() -> PathBuf {
    repository().join(".venv/bin/python")
}

/// A file or directory of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// libtorch has one random generator in a process: a test that draws from it holds this guard.
pub fn sole_user_of_the_generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configuration of the smoke run.
pub fn smoke_config() -> String {
    repository().join("configs/smoke.toml").display().to_string()
}

/// A fresh directory.
pub struct Place {
    path: PathBuf,
    /// Removes the directory when it is dropped.
    _guard: Option<TempDir>,
}

impl Place {
    /// A directory that is removed after the test.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { path: directory.path().into(), _guard: Some(directory) }
    }

    /// A directory that tests share. Statics are not dropped when a process ends, so it stays until
    /// the next run empties it.
    pub fn shared(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("a directory of ours can be removed");
        }
        std::fs::create_dir_all(&path).expect("a directory below target/");
        Self { path, _guard: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file in a temporary directory");
        path
    }

    /// The binary with these arguments, in this directory.
    pub fn cadwright(&self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Invocation {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cadwright"));
        command.args(arguments.into_iter().map(Into::into)).current_dir(&self.path);
        // Cargo sets the policy for the tests. Without it, the binary starts as it does elsewhere.
        command.env("CADWRIGHT_PYTHON", python()).env_remove("OMP_WAIT_POLICY").stdin(Stdio::null());
        Invocation { command }
    }
}

/// A command that has not been started.
pub struct Invocation {
    command: Command,
}

impl Invocation {
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Runs it and expects success.
    #[track_caller]
    pub fn succeeds(self) -> Finished {
        let finished = self.finish();
        assert!(finished.output.status.success(), "expected success\n{finished}");
        finished
    }

    /// Runs it and expects a failure whose message is the last line: one line that contains every
    /// text of `says`, and its cause once.
    #[track_caller]
    pub fn fails_with(self, says: &[&str]) -> Finished {
        let finished = self.fails();
        let message = finished.error();
        assert_eq!(message.lines().count(), 1, "expected one line after `error:`\n{finished}");
        for text in says {
            assert!(message.contains(text), "expected {text:?} in the message\n{finished}");
        }
        assert!(message.matches("(os error ").count() <= 1, "the cause is told more than once\n{finished}");
        finished
    }

    /// Runs it and expects a failure with a message.
    #[track_caller]
    pub fn fails(self) -> Finished {
        let finished = self.finish();
        let code = finished.output.status.code();
        assert!(code.is_some_and(|code| code == 1 || code == 2), "expected exit code 1 or 2\n{finished}");
        assert!(finished.stderr().matches("error: ").count() == 1, "expected one `error: `\n{finished}");
        finished
    }

    /// Starts it. Its stderr is a pipe, what it prints is dropped.
    #[track_caller]
    pub fn start(mut self) -> Child {
        self.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    /// Starts it and kills it with SIGKILL as soon as `is_time`.
    #[track_caller]
    pub fn kill_when(mut self, is_time: impl Fn() -> bool) {
        const PATIENCE: Duration = Duration::from_secs(300);
        let described = format!("{:?}", self.command);
        let child = self.command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = Killed(child.expect("the binary starts"));
        let started = Instant::now();
        while !is_time() {
            let status = child.0.try_wait().expect("a child can be waited for");
            assert!(status.is_none(), "{described}: ended with {status:?} before it could be killed");
            assert!(started.elapsed() < PATIENCE, "{described}: still nothing to kill it for");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs it to its end, whatever that is.
    pub fn ends(self) -> Finished {
        self.finish()
    }

    fn finish(mut self) -> Finished {
        let described = format!("{:?}", self.command);
        let started = Instant::now();
        let output = self.command.output().expect("the binary starts");
        let directory = self.command.get_current_dir().map(Path::to_path_buf).unwrap_or_default();
        Finished { described, directory, output, seconds: started.elapsed().as_secs_f64() }
    }
}

/// Kills its child however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that has ended. As text it has everything that explains a failure.
pub struct Finished {
    described: String,
    directory: PathBuf,
    output: Output,
    seconds: f64,
}

impl Finished {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The exit code. None: a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Everything from `error: ` on.
    #[track_caller]
    pub fn error(&self) -> String {
        let stderr = self.stderr();
        let start = stderr.find("error: ").unwrap_or_else(|| panic!("no `error: ` on stderr\n{self}"));
        stderr[start..].trim_end().to_owned()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "command: {}", self.described)?;
        writeln!(f, "directory: {}", self.directory.display())?;
        writeln!(f, "exit: {} after {:.1} s", self.output.status, self.seconds)?;
        write!(f, "--- stdout\n{}--- stderr\n{}---", self.stdout(), self.stderr())
    }
}

/// The text of a file.
#[track_caller]
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of a file.
#[track_caller]
pub fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of JSON.
#[track_caller]
pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of JSON lines.
#[track_caller]
pub fn rows(path: impl AsRef<Path>) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text(path).lines().map(parse).collect()
}

/// The rows of `metrics.jsonl` without timings: the same seed must give them again.
#[track_caller]
pub fn metrics(run: &Path) -> Vec<Value> {
    let mut rows = rows(run.join("metrics.jsonl"));
    let is_timing =
        |name: &str| name.contains("seconds_") || name.ends_with("/seconds") || name.ends_with("tokens_per_second");
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.retain(|name, _| !is_timing(name));
    }
    rows
}

/// The newest checkpoint of a stage; `None` before the first one.
pub fn checkpoint(run: &Path, stage: &str) -> Option<PathBuf> {
    newest(&run.join(stage).join("checkpoint"))
}

/// The names of a JSON object's fields, sorted.
#[track_caller]
pub fn fields(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("expected an object, got {value}"));
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// A copy of a directory and all below it.
#[track_caller]
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("a directory can be read").path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_directory(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
