//! The server is killed, stopped, or runs out of something: the pool is whole again, and nothing of
//! the old server is left.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cadwright_rewards::OutcomeClass;
use cadwright_rollout::{Scorer, ScorerConfig};

use crate::common::{CUBE, config};
use crate::hostile::own_process::{descendants, descriptors, files, is_running, run, wait_until};

fn ourselves() -> i32 {
    std::process::id() as i32
}

fn signal(name: &str, pids: &[i32]) {
    for pid in pids {
        // A process may have ended meanwhile.
        let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).output().unwrap();
    }
}

/// One program that may share a process and one that may not, so that both lasting children of a
/// server are there afterwards.
fn gives_a_cube(scorer: &Scorer) {
    for program in [CUBE, &format!("import os\n{CUBE}")] {
        let answer = scorer.execute(program).unwrap().answer;
        assert!(answer.verdict().is_valid(), "{:?}", answer.error());
    }
}

/// The state of a scorer that does nothing: processes, our descriptors, files.
fn state() -> (usize, usize, usize) {
    let now = || (descendants(ourselves()).len(), descriptors(ourselves()).unwrap(), files(&std::env::temp_dir()).0);
    // Children of programs die a little after their results.
    let mut last = now();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut last, now());
        if before == last {
            break;
        }
    }
    last
}

/// Waits until the state is the expected one: a second server may still start.
fn expect_state(what: &str, expected: (usize, usize, usize)) {
    let start = Instant::now();
    while state() != expected && start.elapsed() < Duration::from_secs(30) {}
    assert_eq!(state(), expected, "{what}: processes, descriptors, files");
}

/// Harms a server while programs run, and expects a whole pool afterwards.
fn harm(scorer: &Scorer, what: &str, act: impl FnOnce(i32)) {
    let (server, before) = (scorer.server_pid().unwrap(), state());
    let tree = tree(server);
    let mut busy = Vec::new();
    thread::scope(|scope| {
        let slow = format!("import time\ntime.sleep(0.6)\n{CUBE}");
        let running = scope.spawn(move || scorer.execute(&slow).unwrap());
        thread::sleep(Duration::from_millis(300));
        busy = descendants(server);
        act(server);
        assert!(running.join().unwrap().answer.verdict().class().is_some());
    });
    if what.contains("stopped") {
        // The next program may wait in a process that was stopped.
        scorer.execute(CUBE).unwrap();
    }
    let start = Instant::now();
    gives_a_cube(scorer);
    println!("{what}: the next program took {:.1} s", start.elapsed().as_secs_f64());
    if scorer.server_pid() != Some(server) {
        let gone = || tree.iter().chain(&busy).all(|&pid| !is_running(pid));
        wait_until(&format!("{what}: the old server and its children are gone"), gone);
    }
    expect_state(what, before);
}

/// A server and all processes below it.
fn tree(server: i32) -> Vec<i32> {
    [server].into_iter().chain(descendants(server)).collect()
}

#[test]
#[ignore = "helper of the test below"]
fn helper_that_harms_servers() {
    let nothing = state();
    {
        let scorer = Scorer::new(ScorerConfig { timeout_s: 1.5, ..config(2) }).unwrap();
        for _ in 0..40 {
            gives_a_cube(&scorer);
        }
        // A second server may have been started, and be ready.
        thread::sleep(Duration::from_secs(5));
        let first = scorer.server_pid();
        harm(&scorer, "children killed", |server| signal("KILL", &descendants(server)));
        harm(&scorer, "killed", |server| signal("KILL", &[server]));
        assert_ne!(scorer.server_pid(), first);
        harm(&scorer, "stopped", |server| signal("STOP", &tree(server)));
        harm(&scorer, "terminated", |server| signal("TERM", &[server]));
        harm(&scorer, "killed with its children", |server| signal("KILL", &tree(server)));
        harm(&scorer, "without descriptors", |server| {
            for pid in tree(server) {
                let _ = Command::new("prlimit").args(["--nofile=8", "--pid", &pid.to_string()]).status().unwrap();
            }
        });
    }
    expect_state("after the end", nothing);
}

#[test]
fn a_harmed_server_is_replaced_and_leaves_nothing() {
    println!("{}", run("hostile::supervision::helper_that_harms_servers", &[]));
}

/// A directory so deep that a removal by recursion runs out of stack or descriptors.
const DEEP: &str = "import os\nfor _ in range(30000):\n    os.mkdir('d')\n    os.chdir('d')\n";

#[test]
#[ignore = "helper of the test below"]
fn helper_that_digs() {
    let scorer = Scorer::new(config(1)).unwrap();
    gives_a_cube(&scorer);
    let before = state();
    let answer = scorer.execute(&format!("{DEEP}{CUBE}")).unwrap().answer;
    println!("{} {:?}", answer.verdict().name(), answer.error());
    gives_a_cube(&scorer);
    let after = thread::Builder::new().stack_size(256 << 20).spawn(state).unwrap().join().unwrap();
    assert_eq!(after, before);
}

#[test]
fn a_deep_directory_is_removed() {
    run("hostile::supervision::helper_that_digs", &[]);
}

/// Threads that programs start end with them.
#[test]
#[ignore = "helper of the test below"]
fn helper_that_leaves_threads() {
    let scorer = Scorer::new(config(1)).unwrap();
    gives_a_cube(&scorer);
    let before = state();
    let threads =
        "import threading, time\nfor _ in range(20):\n    threading.Thread(target=time.sleep, args=(30,)).start()\n";
    for end in [CUBE, "raise ValueError", "import os\nos._exit(0)", "import time\ntime.sleep(20)"] {
        let class = scorer.execute(&format!("{threads}{end}")).unwrap().answer.verdict().class();
        assert_ne!(class, Some(OutcomeClass::Syntax));
    }
    assert_eq!(state(), before);
}

#[test]
fn threads_do_not_outlive_their_programs() {
    run("hostile::supervision::helper_that_leaves_threads", &[]);
}
