//! Tests in a process of their own, so that they can count all descriptors, processes and files of
//! it, and so that its death is not that of the other tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the ignored test of this name in a process with a directory for temporary files of its own.
/// Expects that it passes and leaves no file. Returns its output.
pub fn run(test: &str, variables: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).env("TMPDIR", directory.path());
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let left: Vec<PathBuf> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A removal by recursion may run out of stack; `rm` does not.
    let _ = Command::new("rm").arg("-rf").args(&left).status();
    assert!(output.status.success() && stdout.contains("1 passed"), "{test}: {}\n{stdout}\n{stderr}", output.status);
    assert!(left.is_empty(), "{test} left {left:?}");
    stdout
}

/// All processes below `pid`, zombies included.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name of the program, in parentheses, may contain anything.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(child);
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    found.split_off(1)
}

pub fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Waits for at most five seconds.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "not after 5 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The number of open descriptors of a process; `None` if the process keeps that to itself.
pub fn descriptors(pid: i32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Number and bytes of all files below a directory, without following links.
pub fn files(directory: &Path) -> (usize, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let facts = entry.metadata();
        let (below, size) = match &facts {
            Ok(facts) if facts.is_dir() => files(&entry.path()),
            Ok(facts) => (0, facts.len()),
            Err(_) => (0, 0),
        };
        (count, bytes) = (count + 1 + below, bytes + size);
    }
    (count, bytes)
}
