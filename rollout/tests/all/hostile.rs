//! One hostile behaviour a test. Every program is harmless if its guard is missing: it stops by
//! itself, and writes only to its own directory or to the canary file of the test.

//!
//! The modules hold tables of programs: see `cases`.

mod cases;
mod neighbours;
mod own_process;
mod payloads;
mod programs;
mod soak;
mod supervision;
mod syscalls;
mod texts;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{CUBE, TIMEOUT_S, config, directory_of, execute, expect, expect_cube, scorer};
use cadwright_rewards::OutcomeClass::{Crash, Exception, Memory, Timeout};
use cadwright_rollout::{ScoreRequest, Scorer};

/// Executes a program that must end by the deadline.
fn expect_timeout(program: &str) {
    scorer().ready().unwrap();
    let start = Instant::now();
    let execution = execute(program);
    let wall = start.elapsed().as_secs_f64();
    assert_eq!(execution.answer.verdict().class(), Some(Timeout), "{:?}", execution.answer.error());
    // The wall time includes waiting for a worker behind other tests of this kind.
    assert!(wall >= TIMEOUT_S - 0.1, "{wall}");
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    expect_timeout("import time\nend = time.time() + 20\nwhile time.time() < end: pass");
}

#[test]
fn the_deadline_is_kept_within_a_second() {
    let scorer = Scorer::new(config(1)).unwrap();
    scorer.ready().unwrap();
    let start = Instant::now();
    let execution = scorer.execute("import time\ntime.sleep(20)").unwrap();
    assert_eq!(execution.answer.verdict().class(), Some(Timeout));
    let wall = start.elapsed().as_secs_f64();
    assert!((TIMEOUT_S - 0.1..TIMEOUT_S + 1.0).contains(&wall), "{wall}");
}

#[test]
fn a_hang_inside_of_the_kernel_ends_at_the_deadline() {
    expect_timeout("solid = cq.Workplane().circle(1).extrude(float('nan'))");
}

#[test]
fn swallowing_every_exception_does_not_help() {
    expect_timeout(
        "import time\nend = time.time() + 20\n\
         while time.time() < end:\n try: time.sleep(1)\n except BaseException: pass",
    );
}

#[test]
fn stopping_itself_ends_at_the_deadline() {
    expect_timeout("import signal\nsignal.raise_signal(signal.SIGSTOP)");
}

#[test]
fn a_segmentation_fault_is_a_crash() {
    let error = expect(Crash, "import ctypes\nctypes.string_at(0)");
    assert!(error.contains("SIGSEGV"), "{error}");
}

#[test]
fn a_segmentation_fault_inside_of_the_kernel_is_a_crash() {
    let program = "w = cq.Workplane()\nw.moveTo(0, 0).circle(0)\nw.moveTo(0, 0).circle(1)\n\
                   solid = w.extrude(1)";
    expect(Crash, program);
}

#[test]
fn endless_recursion_is_an_exception_and_deeper_a_crash() {
    let error = expect(Exception, "def f(): f()\nf()");
    assert!(error.starts_with("RecursionError"), "{error}");
    let program = "import sys\nsys.setrecursionlimit(10**8)\n\
                   class A:\n  def __repr__(self): return repr(self)\nrepr(A())";
    expect(Crash, program);
}

#[test]
fn one_huge_allocation_is_a_memory_failure() {
    expect(Memory, "x = bytearray(3 << 30)");
    expect(Memory, "x = np.ones(3 << 27)");
}

#[test]
fn many_small_allocations_are_a_memory_failure() {
    expect(Memory, "x = [bytearray(1 << 20) for _ in range(2000)]");
}

#[test]
fn leaving_without_a_result_is_a_crash() {
    let error = expect(Crash, "import os\nos._exit(0)");
    assert!(error.contains("status 0"), "{error}");
}

/// The worker's own exit statuses too: a program cannot say that its process was not prepared, which
/// would be tried again and at last end the run.
#[test]
fn no_exit_status_is_anything_but_a_crash() {
    for status in [1, 96, 97, 98, 99, 254, 255] {
        expect(Crash, &format!("import os\nos._exit({status})"));
    }
}

#[test]
fn exits_and_interrupts_are_exceptions() {
    for (program, name) in [
        ("import sys\nsys.exit()", "SystemExit"),
        ("exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class E(BaseException):\n  def __str__(self): raise self\nraise E", "E"),
    ] {
        let error = expect(Exception, &format!("{CUBE}\n{program}"));
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn new_processes_are_refused() {
    // Without the guard: three children that end at once.
    let program = "import os\nfor _ in range(3):\n  if os.fork() == 0: os._exit(0)";
    let error = expect(Exception, program);
    assert!(error.starts_with("PermissionError"), "{error}");
    let error = expect(Exception, "import os\nos.execv('/bin/true', ['true'])");
    assert!(error.starts_with("PermissionError"), "{error}");
}

#[test]
fn a_process_that_escapes_does_not_outlive_its_program() {
    let directory = tempfile::tempdir().unwrap();
    let canary = directory.path().join("canary");
    // A double fork into a new session that would write the canary after two seconds.
    let program = format!(
        "import os, time\ntry:\n  pid = os.fork()\nexcept OSError:\n  pid = 1\n\
         if pid == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(2)\n    \
         open({:?}, 'w').close()\n  os._exit(0)\n{CUBE}",
        canary.to_str().unwrap()
    );
    expect_cube(&program);
    thread::sleep(Duration::from_millis(2500));
    assert!(!canary.exists());
}

#[test]
fn signals_to_others_are_refused() {
    // Signal 0 only asks whether it would be allowed.
    let error = expect(Exception, "import os\nos.kill(os.getppid(), 0)");
    assert!(error.starts_with("PermissionError"), "{error}");
}

#[test]
fn the_network_is_out_of_reach() {
    let error = expect(Exception, "import socket\nsocket.socket()");
    assert!(error.starts_with("PermissionError"), "{error}");
}

#[test]
fn a_flood_of_output_is_swallowed() {
    expect_cube(&format!(
        "import sys, os\nfor _ in range(50): print('x' * 1000000)\n\
         for _ in range(50): os.write(2, b'y' * 1000000)\n{CUBE}"
    ));
}

#[test]
fn input_is_empty() {
    expect_cube(&format!("import sys\nassert sys.stdin.read() == ''\n{CUBE}"));
    expect(Exception, "input()");
}

#[test]
fn deleting_the_working_directory_is_its_own_affair() {
    expect_cube(&format!("import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\n{CUBE}"));
}

#[test]
fn the_working_directory_is_private_empty_and_removed() {
    let program = "import os\nassert os.listdir() == []\nopen('trace', 'w').write('x')\n\
                   raise ValueError(os.getcwd())";
    let error = expect(Exception, program);
    let directory = error.strip_prefix("ValueError: ").unwrap();
    assert!(directory.starts_with('/') && !Path::new(directory).exists(), "{directory}");
}

#[test]
fn garbage_in_every_descriptor_is_ignored() {
    // Some, and more than the server reads.
    for bytes in [4096, 1 << 20] {
        expect_cube(&format!(
            "import os\nfor fd in range(256):\n  try: os.write(fd, bytes({bytes}))\n  except OSError: pass\n{CUBE}"
        ));
    }
}

#[test]
fn a_result_cannot_be_had_by_writing_it() {
    // The header of a solid, in every descriptor, then death.
    let program = "import os, struct\n\
                   fake = struct.pack('<B19dIBII', 0, *([1.0] * 19), 1, 0, 0, 0)\n\
                   for fd in range(256):\n  try: os.write(fd, struct.pack('<Q', len(fake)) + fake)\n  \
                   except OSError: pass\nos._exit(0)";
    expect(Crash, program);
}

#[test]
fn closing_every_descriptor_loses_the_result() {
    expect(Crash, &format!("import os\nos.closerange(0, 256)\n{CUBE}"));
}

#[test]
fn closing_the_pipe_does_not_stop_the_clock() {
    expect_timeout("import os, time\nos.closerange(0, 256)\ntime.sleep(20)");
}

#[test]
fn threads_left_behind_end_with_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let canary = directory.path().join("canary");
    let program = format!(
        "import threading, time\ndef sing():\n  time.sleep(1.5)\n  open({:?}, 'w').close()\n\
         threading.Thread(target=sing).start()\n{CUBE}",
        canary.to_str().unwrap()
    );
    expect_cube(&program);
    thread::sleep(Duration::from_secs(2));
    assert!(!canary.exists());
}

#[test]
fn one_program_leaves_nothing_to_the_next() {
    expect_cube(&format!("{CUBE}\ncq.Workplane.box = None\ncq.leak = 1\nimport builtins\nbuiltins.leak = 1"));
    expect_cube(&format!("assert not hasattr(cq, 'leak')\n{CUBE}"));
    expect(Exception, "leak");
    assert!(expect(cadwright_rewards::OutcomeClass::NoSolid, "x = 1").contains("no Workplane"));
}

#[test]
fn the_environment_is_scrubbed() {
    expect_cube(&format!(
        "import os\nallowed = {{'PATH', 'LD_LIBRARY_PATH', 'LANG', 'HOME', 'TMPDIR', \
         'PYTHONHASHSEED', 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS', 'LC_CTYPE'}}\n\
         extra = {{k for k in os.environ if not k.startswith('CASADI')}} - allowed\n\
         assert not extra, extra\n{CUBE}"
    ));
}

#[test]
fn huge_files_are_refused() {
    // Without the guard: 65 MiB, removed with the directory.
    let program = "f = open('big', 'wb', 0)\nfor _ in range(65): f.write(bytes(1 << 20))\n\
                   assert f.tell() < 65 << 20, 'unlimited'";
    let error = expect(Exception, program);
    assert!(error.starts_with("OSError") || error.starts_with("AssertionError: un"), "{error}");
    assert!(!error.contains("unlimited"), "{error}");
}

#[test]
fn neighbours_do_not_notice() {
    let request = |index: usize, text: String| ScoreRequest {
        prediction: format!("{text}\n# {index}"),
        ground_truth: CUBE.into(),
        truncated: false,
    };
    let hostile = [
        "import ctypes\nctypes.string_at(0)",
        "import os\nos._exit(0)",
        "x = bytearray(3 << 30)",
        "import time\ntime.sleep(20)",
        "import os\nos.closerange(0, 256)",
        "import os\nos.killpg(0, 9)",
    ];
    let mut batch = scorer().batch();
    for (index, text) in hostile.iter().enumerate() {
        batch.submit(2 * index, request(index, (*text).to_owned()));
        let good = format!("solid = cq.Workplane().box(1, 1, {})", 1.0 / (index + 1) as f64);
        batch.submit(2 * index + 1, request(index, good));
    }
    for (index, score) in batch.finish().unwrap().iter().enumerate() {
        let iou = score.iou_in(cadwright_rewards::Frame::Canonical);
        if index % 2 == 0 {
            assert!(!score.verdict.is_valid() && iou == 0.0, "{index}: {}", score.verdict.name());
        } else {
            let expected = 1.0 / (index / 2 + 1) as f64;
            assert!((iou - expected).abs() < 0.01, "{index}: {iou} for {expected}");
        }
    }
}

fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn wait_until_gone(pid: i32) {
    let start = Instant::now();
    while is_running(pid) {
        assert!(start.elapsed() < Duration::from_secs(5), "{pid} still runs");
        thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_killed_server_is_replaced_and_running_programs_are_repeated() {
    let scorer = Scorer::new(config(2)).unwrap();
    scorer.ready().unwrap();
    let pid = scorer.server_pid().unwrap();
    let slow = format!("import time\ntime.sleep(1)\n{CUBE}");
    thread::scope(|scope| {
        let running = scope.spawn(|| scorer.execute(&slow).unwrap());
        thread::sleep(Duration::from_millis(300));
        kill(pid);
        assert!(running.join().unwrap().answer.verdict().is_valid());
    });
    wait_until_gone(pid);
    assert!(scorer.execute(CUBE).unwrap().answer.verdict().is_valid());
    assert_ne!(scorer.server_pid().unwrap(), pid);
}

/// The processes that this one has started.
fn own_children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Once the workers have something to do, a second server waits for the death of the first one.
#[test]
fn a_dead_server_has_a_successor_already() {
    let scorer = Scorer::new(config(2)).unwrap();
    for index in 0..40 {
        scorer.execute(&format!("{CUBE}\n# {index}")).unwrap();
    }
    let pid = scorer.server_pid().unwrap();
    let before = own_children();
    kill(pid);
    wait_until_gone(pid);
    assert!(scorer.execute(&format!("{CUBE}\n# after")).unwrap().answer.verdict().is_valid());
    let successor = scorer.server_pid().unwrap();
    assert!(successor != pid && before.contains(&successor), "{pid}, then {successor}, of {before:?}");
}

#[test]
fn a_dropped_scorer_leaves_no_process() {
    let scorer = Scorer::new(config(1)).unwrap();
    scorer.ready().unwrap();
    let pid = scorer.server_pid().unwrap();
    let directory = directory_of(pid);
    let mut batch = scorer.batch();
    let prediction = "import time\ntime.sleep(20)".to_owned();
    batch.submit(0, ScoreRequest { prediction, ground_truth: CUBE.into(), truncated: false });
    thread::sleep(Duration::from_millis(300));
    drop(batch);
    drop(scorer);
    assert!(!is_running(pid) && !directory.exists());
}

/// The process that the next test kills; not a test of its own.
#[test]
#[ignore = "helper of the test below"]
fn helper_that_runs_a_program_for_ever() {
    let scorer = Scorer::new(config(1)).unwrap();
    scorer.ready().unwrap();
    println!("\nserver {}", scorer.server_pid().unwrap());
    let _ = scorer.execute("import time\ntime.sleep(20)");
}

#[test]
fn a_killed_trainer_leaves_no_process() {
    use std::io::{BufRead, BufReader};
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "hostile::helper_that_runs_a_program_for_ever"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines().map_while(Result::ok);
    let server = lines.filter_map(|line| line.strip_prefix("server ")?.parse().ok()).next();
    let server: i32 = server.expect("the helper names its server");
    thread::sleep(Duration::from_millis(300));
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    let directory = directory_of(server);
    helper.kill().unwrap();
    helper.wait().unwrap();
    wait_until_gone(server);
    for child in children.split_whitespace() {
        wait_until_gone(child.parse().unwrap());
    }
    assert!(!directory.exists());
}

/// The tables hold at least the 80 programs that the sandbox is judged by, each with its own name.
#[test]
fn there_are_many_hostile_programs_and_each_has_a_name() {
    let elsewhere = Path::new("/nowhere");
    let tables = [
        programs::times(),
        programs::memories(),
        programs::exits(),
        programs::geometries(),
        programs::forgeries(),
        programs::files(elsewhere),
        programs::processes(9, elsewhere),
        syscalls::all(),
        texts::all(),
        neighbours::spoilers(),
    ];
    let names: std::collections::BTreeSet<String> = tables.iter().flatten().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), tables.iter().map(Vec::len).sum::<usize>(), "names are used twice");
    assert!(names.len() >= 80, "{}", names.len());
}
