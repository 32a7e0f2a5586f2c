//! Workers that cannot start a process or make a directory for a program. A script that speaks the
//! worker's protocol plays the server, so that every refusal comes when the test wants it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{CUBE, config, directory_of};
use cadwright_rewards::OutcomeClass;
use cadwright_rollout::{Scorer, ScorerConfig, python};

/// Reads requests and refuses some of them. `PLAN` has the number of refusals of the first server,
/// of the second one, and so on; the last number holds for all that follow. Programs that contain
/// `unlucky` are refused `UNLUCKY` times, whoever is asked.
const SERVER: &str = r#"
import json, os, struct, sys

def reply(request, kind, payload):
    message = struct.pack("<IQ", 9 + len(payload), request) + kind + payload
    while message:
        message = message[os.write(1, message):]

def read(n):
    data = b""
    while len(data) < n:
        part = os.read(0, n - len(data))
        if not part:
            sys.exit()
        data += part
    return data

def count(name):
    path = os.path.join(PLACE, name)
    before = os.path.getsize(path) if os.path.exists(path) else 0
    with open(path, "a") as file:
        file.write("x")
    return before

server = count("servers")
refusals = PLAN[min(server, len(PLAN) - 1)]
reply(0, b"R", json.dumps({"cadquery": "2", "python": "3", "layers": {}}).encode())
while True:
    length = struct.unpack("<I", read(4))[0]
    request = struct.unpack_from("<Q", read(length))[0]
    root = sys.argv[4]
    with open(os.path.join(root, f"{request}.in"), "rb") as file:
        program = file.read()
    if b"unlucky" in program:
        refuse = count("unlucky") < UNLUCKY
    else:
        refuse = refusals > 0
        refusals -= refuse
    if refuse:
        reply(request, b"X", b"fork: Resource temporarily unavailable")
    else:
        with open(os.path.join(root, f"{request}.out"), "wb") as file:
            file.write(bytes([3]) + f"by server {server}".encode())
        reply(request, b"D", b"")
"#;

/// A directory with an interpreter that plays the server.
fn interpreter(plan: &[u32], unlucky: u32) -> (tempfile::TempDir, ScorerConfig) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("python");
    let python = python::find(None).unwrap();
    let place = directory.path().to_str().unwrap();
    let head = format!("#!{}\nPLACE, PLAN, UNLUCKY = {place:?}, {plan:?}, {unlucky}\n", python.display());
    fs::write(&path, head + SERVER).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let scorer = ScorerConfig { python: Some(path), ..config(2) };
    (directory, scorer)
}

/// More than any test asks for.
const ALWAYS: u32 = 1_000_000;

#[test]
fn a_refused_program_is_tried_again() {
    let (_directory, config) = interpreter(&[2], 0);
    let execution = Scorer::new(config).unwrap().execute(CUBE).unwrap();
    assert_eq!(execution.answer.verdict().class(), Some(OutcomeClass::NoSolid));
    assert_eq!(execution.answer.error().as_deref(), Some("by server 0"));
}

#[test]
fn a_server_that_refuses_everything_is_replaced() {
    let (_directory, config) = interpreter(&[ALWAYS, 0], 0);
    let execution = Scorer::new(config).unwrap().execute(CUBE).unwrap();
    assert_eq!(execution.answer.error().as_deref(), Some("by server 1"));
}

#[test]
fn servers_that_all_refuse_end_the_work_and_say_why() {
    let (_directory, config) = interpreter(&[ALWAYS], 0);
    let start = Instant::now();
    let error = Scorer::new(config).unwrap().execute(CUBE).unwrap_err().to_string();
    assert!(error.contains("fork: Resource temporarily unavailable"), "{error}");
    assert!(error.contains("refused a program 9 times"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn one_unlucky_program_does_not_end_the_work_of_others() {
    let (_directory, config) = interpreter(&[0], 12);
    let scorer = Scorer::new(config).unwrap();
    std::thread::scope(|scope| {
        let unlucky = scope.spawn(|| scorer.execute("# unlucky").unwrap());
        let mut n = 0;
        while !unlucky.is_finished() {
            scorer.execute(&format!("# {n}")).unwrap();
            n += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(unlucky.join().unwrap().answer.error().unwrap().starts_with("by server"));
    });
}

/// Directories where programs are written: nothing can be started in that server.
fn occupy(root: &Path, requests: std::ops::RangeInclusive<u32>) {
    for request in requests {
        fs::create_dir(root.join(format!("{request}.in"))).unwrap();
    }
}

#[test]
fn a_program_that_cannot_be_written_is_not_the_end() {
    let scorer = Scorer::new(config(1)).unwrap();
    scorer.ready().unwrap();
    let pid = scorer.server_pid().unwrap();
    occupy(&directory_of(pid), 1..=2);
    assert!(scorer.execute(CUBE).unwrap().answer.verdict().is_valid());
    assert_eq!(scorer.server_pid().unwrap(), pid);
    occupy(&directory_of(pid), 4..=100);
    assert!(scorer.execute(CUBE).unwrap().answer.verdict().is_valid());
    assert_ne!(scorer.server_pid().unwrap(), pid);
}
