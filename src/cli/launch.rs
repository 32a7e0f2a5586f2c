//! `cadwright launch`: the ranks of one machine, without Python.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cadwright::terminal::is_quiet;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};

/// How long a rank may take to end after SIGTERM. Then it gets SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// A second request to end, sooner than this after the first, is the same request: `timeout` and
/// SLURM signal a process and then its group.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Prefixes of the variables of torchrun, which the ranks do not get. With them a rank would expect
/// that torchrun's agent has opened the store.
const FOREIGN: [&str; 2] = ["TORCHELASTIC_", "GROUP_"];

/// Start N processes of a command on this machine, as the ranks of one data-parallel run
#[derive(Args)]
pub struct LaunchArgs {
    /// Number of processes: one for each GPU, or for each share of the CPU's cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    processes: u32,
    /// Seconds that the other ranks have to end by themselves after one failed; then they get
    /// SIGTERM, and after 5 more seconds SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u32,
    /// A command of cadwright and its arguments, for example: run --config configs/smoke.toml
    // Without `allow_hyphen_values` a misspelled flag of `launch` is an error, not the command.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs it. Gives the exit code of the first rank that failed; 128 + n if signal n killed that
/// rank.
///
/// # Errors
/// A launcher is at work already, or a process cannot be started. Those that were started get
/// SIGKILL.
pub fn run(args: &LaunchArgs) -> Result<ExitCode> {
    if args.command.is_empty() {
        let message = "launch needs a command of cadwright, for example: \
                       cadwright launch --processes 2 run --config configs/smoke.toml";
        super::Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    for name in ["RANK", "WORLD_SIZE"] {
        if let Some(value) = std::env::var_os(name) {
            bail!(
                "{name} is set (to {value:?}): a launcher is already at work. Start the command without \
                 `launch`, or unset {name}"
            );
        }
    }
    let signals = Signals::block();
    let mut ranks = Ranks::start(args, &signals).context("launch")?;
    ranks.wait(Duration::from_secs(args.grace.into()), &signals).context("launch")
}

/// The processes, in the order of their ranks.
struct Ranks {
    running: Vec<(u32, Child)>,
}

impl Ranks {
    /// Starts all ranks. The calling thread must be the main thread: when the thread that started a
    /// process ends, the kernel takes it for the parent's death.
    fn start(args: &LaunchArgs, signals: &Signals) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let port = free_port().context("no free port on 127.0.0.1")?;
        let mut ranks = Self { running: Vec::new() };
        for rank in 0..args.processes {
            let child = command(args, &program, rank, port, signals).spawn();
            let child = child.with_context(|| format!("rank {rank} cannot be started from {}", program.display()))?;
            ranks.running.push((rank, child));
        }
        Ok(ranks)
    }

    /// Waits until all ranks have ended. If one fails, the others have the time `grace` to find out
    /// and to say so themselves.
    fn wait(&mut self, grace: Duration, signals: &Signals) -> Result<ExitCode> {
        let mut failed: Option<ExitStatus> = None;
        // What the ranks get if they have not ended at that time.
        let mut next: Option<(Instant, libc::c_int)> = None;
        let mut requested: Option<Instant> = None;
        loop {
            for (rank, status) in self.reap()? {
                if status.success() || failed.is_some() {
                    continue;
                }
                failed = Some(status);
                next = Some((Instant::now() + grace, libc::SIGTERM));
                let others = match self.running.len() {
                    0 => String::new(),
                    _ => format!("; the others have {} s to end", grace.as_secs()),
                };
                eprintln!("launch: rank {rank} {}{others}", ending(status));
            }
            if self.running.is_empty() {
                return Ok(failed.map_or(ExitCode::SUCCESS, |status| ExitCode::from(code(status))));
            }
            if let Some((time, signal)) = next.filter(|(time, _)| *time <= Instant::now()) {
                self.send(signal);
                let ranks: Vec<String> = self.running.iter().map(|(rank, _)| rank.to_string()).collect();
                let name = if signal == libc::SIGTERM { "SIGTERM" } else { "SIGKILL" };
                eprintln!("launch: still running, now sent {name}: rank {}", ranks.join(", "));
                next = (signal == libc::SIGTERM).then(|| (time.max(Instant::now()) + PATIENCE, libc::SIGKILL));
            }
            let Some(request) = signals.wait(next.map(|(time, _)| time)) else { continue };
            match requested {
                None => {
                    requested = Some(Instant::now());
                    if !request.reached_the_ranks {
                        self.send(request.signal);
                    }
                }
                Some(first) if first.elapsed() < SAME_REQUEST => {}
                Some(_) => self.send(libc::SIGKILL),
            }
        }
    }

    /// Takes those that have ended out of `running`.
    fn reap(&mut self) -> io::Result<Vec<(u32, ExitStatus)>> {
        let mut ended = Vec::new();
        for (rank, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                ended.push((*rank, status));
            }
        }
        self.running.retain(|(rank, _)| ended.iter().all(|(other, _)| other != rank));
        Ok(ended)
    }

    /// Sends a signal to those that run.
    fn send(&self, signal: libc::c_int) {
        for (_, child) in &self.running {
            // SAFETY: no memory is touched. The process has not been waited for, so the number is
            // still its own.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        }
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.send(libc::SIGKILL);
        for (_, child) in &mut self.running {
            let _ = child.wait();
        }
    }
}

/// The command of one rank. Its output is the launcher's; it has no input.
fn command(args: &LaunchArgs, program: &Path, rank: u32, port: u16, signals: &Signals) -> Command {
    let mut command = Command::new(program);
    command.args(is_quiet().then_some("--quiet")).args(&args.command).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if FOREIGN.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    for (name, value) in [
        ("RANK", rank),
        ("WORLD_SIZE", args.processes),
        ("LOCAL_RANK", rank),
        ("LOCAL_WORLD_SIZE", args.processes),
        ("MASTER_PORT", port.into()),
    ] {
        command.env(name, value.to_string());
    }
    command.env("MASTER_ADDR", Ipv4Addr::LOCALHOST.to_string());
    let (launcher, mask) = (std::process::id() as libc::pid_t, signals.before);
    let prepare = move || {
        // SAFETY: prctl, getppid and sigprocmask touch nothing but `mask`, and may be called
        // between fork and exec.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
                || libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) != 0
            {
                return Err(io::Error::last_os_error());
            }
            // The launcher may have died before prctl. Then there is no signal.
            if libc::getppid() != launcher {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    command
}

/// A port that nothing listens on.
///
/// Between this and the moment when rank 0 listens, another process may take the port. Then rank 0
/// ends with an error that names it, the launcher ends the others, and the command has to be
/// started again. The kernel gives out such ports in turn or at random, so two launchers at the
/// same time hardly get the same one.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// How a rank ended, for a message.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// The exit code of a rank as shells give it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The signals that the launcher waits for: SIGCHLD, SIGINT, SIGTERM. They are blocked, and taken
/// one at a time.
struct Signals {
    waited_for: libc::sigset_t,
    /// The mask before, which the ranks get.
    before: libc::sigset_t,
}

/// Somebody asked the launcher to end.
struct Request {
    signal: libc::c_int,
    /// Whether the ranks have received the signal themselves.
    reached_the_ranks: bool,
}

impl Signals {
    /// Blocks them. One that is ignored stays ignored: a shell without job control starts what runs
    /// in the background so.
    fn block() -> Self {
        // SAFETY: all pointers are to variables of this function, and sigset_t is plain data.
        unsafe {
            // Where SIGCHLD is ignored, the kernel forgets how children ended.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            let mut waited_for = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigemptyset(&raw mut waited_for);
            for signal in [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM] {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut action);
                if action.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&raw mut waited_for, signal);
                }
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const waited_for, &raw mut before);
            Self { waited_for, before }
        }
    }

    /// Waits for a signal, at most until `deadline`. None: the deadline has come, or a rank has
    /// ended or stopped.
    fn wait(&self, deadline: Option<Instant>) -> Option<Request> {
        let limit = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the set, the limit and the result outlive the call; siginfo_t is plain data.
        let (signal, sender) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::sigtimedwait(&raw const self.waited_for, &raw mut info, limit), info.si_code)
        };
        // The terminal's Ctrl-C (its sender is the kernel) has gone to all processes of the
        // foreground, so to the ranks. Sent again, it would be their second.
        let reached_the_ranks = signal == libc::SIGINT && sender > 0;
        [libc::SIGINT, libc::SIGTERM].contains(&signal).then_some(Request { signal, reached_the_ranks })
    }
}
