//! `launch`: its ranks, and what becomes of them when one fails or the launcher ends. The ranks
//! wait for a writer of the pipe that they read.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use crate::harness::{Invocation, Place};

const PATIENCE: Duration = Duration::from_secs(60);

type Environment = BTreeMap<String, String>;

#[test]
fn every_rank_gets_its_variables_and_none_of_another_launcher() {
    let launched = Launched::new(3, |launch| {
        let foreign = launch.env("TORCHELASTIC_USE_AGENT_STORE", "True").env("GROUP_RANK", "7");
        foreign.env("LOCAL_RANK", "5").env("MASTER_ADDR", "elsewhere").env("MASTER_PORT", "1").env("KEPT", "so")
    });
    let ports: Vec<&String> = launched.ranks.iter().map(|(_, environment)| &environment["MASTER_PORT"]).collect();
    // The kernel gives no port below 1024 to who asks for any.
    assert!(ports[0].parse::<u16>().is_ok_and(|port| port >= 1024), "{ports:?}");
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    for (rank, (_, environment)) in launched.ranks.iter().enumerate() {
        let rank = rank.to_string();
        for (name, expected) in [
            ("RANK", rank.as_str()),
            ("WORLD_SIZE", "3"),
            ("LOCAL_RANK", &rank),
            ("LOCAL_WORLD_SIZE", "3"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("KEPT", "so"),
        ] {
            assert_eq!(environment.get(name).map(String::as_str), Some(expected), "{name} of rank {rank}");
        }
        for name in ["TORCHELASTIC_USE_AGENT_STORE", "GROUP_RANK"] {
            assert!(!environment.contains_key(name), "{name} of rank {rank}");
        }
    }
}

#[test]
fn every_rank_runs_the_command_and_success_of_all_is_success() {
    let finished = Place::new().cadwright(["launch", "--processes", "3", "--", "--version"]).succeeds();
    let version = concat!("cadwright ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((finished.stdout(), finished.stderr()), (version.repeat(3), String::new()), "{finished}");
}

#[test]
fn the_exit_code_is_that_of_the_rank_that_failed() {
    let place = Place::new();
    let command = ["score", "--input", "x", "--output", "y", "--grid", "many"];
    // clap's code for a wrong command line.
    assert_eq!(place.cadwright(command).fails().code(), Some(2));
    let launched = ["launch", "--processes", "1"].into_iter().chain(command);
    let finished = place.cadwright(launched).fails();
    assert_eq!(finished.code(), Some(2), "{finished}");
    assert!(finished.stderr().ends_with("launch: rank 0 ended with exit code 2\n"), "{finished}");
}

#[test]
fn if_a_rank_is_killed_the_others_end_after_the_grace_period() {
    let mut launched = Launched::new(3, |launch| launch);
    launched.make_deaf(0);
    send(launched.rank(1), libc::SIGKILL);
    let (code, stderr) = launched.ended();
    let expected = [
        "launch: rank 1 was killed by signal 9; the others have 1 s to end",
        "launch: still running, now sent SIGTERM: rank 0, 2",
        "launch: still running, now sent SIGKILL: rank 0",
    ];
    assert_eq!((code, stderr.lines().collect::<Vec<_>>()), (Some(128 + 9), expected.to_vec()));
}

#[test]
fn signals_to_the_launcher_are_handed_on() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut launched = Launched::new(2, |launch| launch);
        send(launched.id(), signal);
        let (code, stderr) = launched.ended();
        assert_eq!(code, Some(128 + signal), "{stderr}");
        // Both ended by that signal, and not because one had failed.
        assert!(!stderr.contains("sent SIGTERM"), "{stderr}");
    }
}

#[test]
fn a_second_signal_kills() {
    let mut launched = Launched::new(2, |launch| launch);
    launched.make_deaf(0);
    launched.make_deaf(1);
    for _ in 0..2 {
        assert!(launched.launcher_runs());
        send(launched.id(), libc::SIGTERM);
        // Sooner, the second would be taken for the first.
        std::thread::sleep(Duration::from_millis(1500));
    }
    let (code, stderr) = launched.ended();
    assert_eq!(code, Some(128 + 9), "{stderr}");
}

#[test]
fn ranks_die_with_their_launcher() {
    let mut launched = Launched::new(2, |launch| launch);
    send(launched.id(), libc::SIGKILL);
    assert_eq!(launched.ended(), (None, String::new()));
}

#[test]
fn a_launcher_does_not_start_below_another() {
    let place = Place::new();
    for name in ["RANK", "WORLD_SIZE"] {
        let launch = place.cadwright(["launch", "--processes", "2", "--", "--version"]).env(name, "1");
        let finished = launch.fails_with(&[name, "(to \"1\")", "a launcher is already at work"]);
        assert_eq!(finished.stdout(), "", "{finished}");
    }
}

#[test]
fn launch_without_a_command_says_what_to_write() {
    let finished = Place::new().cadwright(["launch", "--processes", "2"]).fails();
    assert_eq!(finished.code(), Some(2), "{finished}");
    let example = "cadwright launch --processes 2 run --config configs/smoke.toml";
    assert!(finished.error().contains(example), "{finished}");
}

/// A launcher whose ranks wait.
struct Launched {
    launcher: Option<Child>,
    /// Process number and environment of each rank.
    ranks: Vec<(i32, Environment)>,
    _place: Place,
}

impl Launched {
    /// Starts `processes` ranks with a grace of 1 s and waits until all are there.
    #[track_caller]
    fn new(processes: usize, prepare: impl FnOnce(Invocation) -> Invocation) -> Self {
        let place = Place::new();
        let pipe = CString::new(place.path("in.jsonl").as_os_str().as_bytes()).expect("no NUL in a path");
        // SAFETY: a NUL-terminated path.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0, "{}", std::io::Error::last_os_error());
        let count = processes.to_string();
        let mut arguments = vec!["launch", "--processes", &count, "--grace", "1"];
        arguments.extend(["exec", "--input", "in.jsonl", "--output", "out.jsonl", "--engine", "native"]);
        let launcher = prepare(place.cadwright(arguments)).start();
        let mut launched = Self { launcher: Some(launcher), ranks: Vec::new(), _place: place };
        eventually("the ranks to start", || {
            launched.ranks =
                children(launched.id()).into_iter().filter_map(|id| Some((id, environment(id)?))).collect();
            // Before it executes the program, a child has the launcher's environment.
            launched.ranks.retain(|(_, environment)| environment.contains_key("RANK"));
            launched.ranks.len() == processes
        });
        launched.ranks.sort_by_key(|(_, environment)| environment["RANK"].parse::<usize>().expect("a number"));
        launched
    }

    fn id(&self) -> i32 {
        self.launcher.as_ref().map_or(0, |child| child.id() as i32)
    }

    fn launcher_runs(&mut self) -> bool {
        self.launcher.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// The process number of a rank.
    fn rank(&self, rank: usize) -> i32 {
        self.ranks[rank].0
    }

    /// Waits for the end of the launcher and of its ranks. Gives the launcher's exit code and what
    /// all wrote on stderr.
    #[track_caller]
    fn ended(&mut self) -> (Option<i32>, String) {
        let launcher = self.launcher.as_mut().expect("it is waited for once");
        eventually("the launcher to end", || launcher.try_wait().expect("a child can be waited for").is_some());
        eventually("the ranks to end", || self.ranks.iter().all(|(id, _)| !is_alive(*id)));
        let Output { status, stderr, .. } =
            self.launcher.take().expect("as above").wait_with_output().expect("its output can be read");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }

    /// Stops a rank: SIGTERM does not end it, SIGKILL does.
    #[track_caller]
    fn make_deaf(&self, rank: usize) {
        send(self.rank(rank), libc::SIGSTOP);
        eventually("a rank to stop", || state_and_parent(self.rank(rank)).is_some_and(|(state, _)| state == 'T'));
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(mut launcher) = self.launcher.take() {
            let _ = launcher.kill();
            let _ = launcher.wait();
        }
        for (id, started_with) in &self.ranks {
            // The number may be another process's by now.
            if environment(*id).as_ref() == Some(started_with) {
                send(*id, libc::SIGKILL);
            }
        }
    }
}

fn send(id: i32, signal: i32) {
    // SAFETY: no memory is touched.
    unsafe { libc::kill(id, signal) };
}

/// Waits until `holds`.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The third field of `/proc/<id>/stat` and the fourth: state and parent. None without such a
/// process.
fn state_and_parent(id: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether the process runs: a zombie does not.
fn is_alive(id: i32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| !['Z', 'X'].contains(&state))
}

fn children(id: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|child| state_and_parent(*child).is_some_and(|(_, parent)| parent == id)).collect()
}

/// The variables that a process was started with. None if there are none: it is gone, or about to
/// execute its program.
fn environment(id: i32) -> Option<Environment> {
    let bytes = std::fs::read(format!("/proc/{id}/environ")).ok()?;
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    Some(pairs.collect::<Environment>()).filter(|environment| !environment.is_empty())
}
