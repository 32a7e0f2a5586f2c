//! Many executions, ordinary and hostile, in one process: memory, processes, descriptors and files
//! do not grow. `scripts/soak` runs the long version.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cadwright_rollout::{Scorer, ScorerConfig};

use crate::common::config;
use crate::hostile::own_process::{descendants, descriptors, files, run};
use crate::hostile::{neighbours, programs, syscalls, texts};

/// The number of executions: an environment variable, and its default.
const EXECUTIONS: (&str, usize) = ("CADWRIGHT_SOAK", 100_000);

/// Growth that is no leak: of our own resident memory and the server's, and of all processes
/// together, of which the shared ones may keep memory until they are replaced.
const GROWTH_MIB: [u64; 3] = [48, 48, 700];

/// Programs by how often they come.
struct Mixture {
    ordinary: Vec<String>,
    hostile: Vec<String>,
    /// They hold a worker for the whole deadline, or all its memory.
    heavy: Vec<String>,
}

impl Mixture {
    fn new(outside: &Path) -> Self {
        let texts = |cases: Vec<super::cases::Case>| cases.into_iter().map(|case| case.program).collect::<Vec<_>>();
        let hostile = [
            programs::exits(),
            programs::forgeries(),
            programs::files(outside),
            programs::processes(9, &outside.join("socket")),
            syscalls::all(),
            neighbours::spoilers(),
            texts::all().into_iter().filter(|case| case.program.len() < 1 << 20).collect(),
        ];
        Self {
            ordinary: texts(neighbours::victims()),
            hostile: texts(hostile.concat()),
            heavy: texts([programs::times(), programs::memories(), programs::geometries()].concat()),
        }
    }

    /// Execution number `n`: 7 of 8 are ordinary, one of 200 is heavy.
    fn program(&self, n: usize) -> &str {
        let (programs, k) = match n {
            n if n % 200 == 199 => (&self.heavy, n / 200),
            n if n % 8 == 7 => (&self.hostile, n / 8),
            n => (&self.ordinary, n),
        };
        &programs[k % programs.len()]
    }
}

/// What a scorer that does nothing holds.
#[derive(Debug, Clone, Copy)]
struct Sample {
    done: usize,
    seconds: f64,
    server: i32,
    /// Resident memory of ours, of the largest process of the server, and of all processes below
    /// us.
    memory_mib: [u64; 3],
    processes: usize,
    /// Of ours and of the server.
    descriptors: [usize; 2],
    threads: usize,
    files: usize,
    file_bytes: u64,
}

fn resident_mib(pid: i32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pages * 4096) >> 20
}

impl Sample {
    fn take(scorer: &Scorer, done: usize, start: Instant) -> Self {
        // Children of programs die a little after their results.
        thread::sleep(Duration::from_millis(500));
        let ourselves = std::process::id() as i32;
        let server = scorer.server_pid().expect("a server");
        let below = descendants(ourselves);
        let tree: Vec<i32> = [server].into_iter().chain(descendants(server)).collect();
        let (files, file_bytes) = files(&std::env::temp_dir());
        Self {
            done,
            seconds: start.elapsed().as_secs_f64(),
            server,
            memory_mib: [
                resident_mib(ourselves),
                tree.iter().map(|&pid| resident_mib(pid)).max().unwrap_or(0),
                below.iter().map(|&pid| resident_mib(pid)).sum(),
            ],
            processes: below.len(),
            descriptors: [&[ourselves][..], &tree].map(|all| all.iter().filter_map(|&pid| descriptors(pid)).sum()),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            files,
            file_bytes,
        }
    }

    /// What has grown since the largest of `first`.
    fn growth(&self, first: &[Self]) -> Vec<String> {
        let mut grown = Vec::new();
        let mut compare = |what: &str, most: u64, now: u64| {
            if now > most {
                grown.push(format!("{what}: {now}, at first at most {most}"));
            }
        };
        let most = |value: &dyn Fn(&Self) -> u64| first.iter().map(value).max().unwrap_or(0);
        for (k, name) in ["our memory", "the server's memory", "the memory of all processes"].into_iter().enumerate() {
            let limit = most(&|sample| sample.memory_mib[k] + GROWTH_MIB[k]);
            compare(name, limit, self.memory_mib[k]);
        }
        compare("processes", most(&|sample| sample.processes as u64), self.processes as u64);
        compare("our descriptors", most(&|sample| sample.descriptors[0] as u64), self.descriptors[0] as u64);
        compare("the server's descriptors", most(&|sample| sample.descriptors[1] as u64), self.descriptors[1] as u64);
        compare("threads", most(&|sample| sample.threads as u64), self.threads as u64);
        compare("files", most(&|sample| sample.files as u64), self.files as u64);
        compare("bytes of files", most(&|sample| sample.file_bytes + (1 << 20)), self.file_bytes);
        grown
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, seconds, server, memory_mib: [ours, theirs, all], processes, .. } = self;
        let Self { descriptors: [our_descriptors, descriptors], threads, files, file_bytes, .. } = self;
        write!(
            f,
            "{done:>8} {seconds:>8.0} {server:>8} {ours:>9} {theirs:>9} {all:>9} {processes:>9} \
             {our_descriptors:>9} {descriptors:>9} {threads:>9} {files:>9} {file_bytes:>9}"
        )
    }
}

const HEADER: &str = "executed  seconds   server  ours MiB  srv. MiB   all MiB processes  our fds  srv. fds   threads     files     bytes";

#[test]
#[ignore = "scripts/soak; the test below runs a short version"]
fn soak() {
    let executions = std::env::var(EXECUTIONS.0).map_or(EXECUTIONS.1, |n| n.parse().expect("a number"));
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "precious").unwrap();
    let mixture = Mixture::new(outside.path());
    let settings = ScorerConfig { timeout_s: 1.5, ..config(2) };
    let scorer = Scorer::new(settings).unwrap();
    scorer.ready().unwrap();
    execute(&scorer, &mixture, 0, 40);
    wait_until_steady();
    let (start, step) = (Instant::now(), (executions / 50).max(50));
    let mut samples: Vec<Sample> = Vec::new();
    println!("\n{HEADER}");
    while samples.last().is_none_or(|sample| sample.done < executions) {
        let first = samples.last().map_or(0, |sample| sample.done);
        let end = executions.min(first + step);
        execute(&scorer, &mixture, first, end);
        samples.push(Sample::take(&scorer, end, start));
        println!("{}", samples[samples.len() - 1]);
    }
    let warm_up = (samples.len() / 5).max(2);
    let grown = samples[samples.len() - 1].growth(&samples[..warm_up]);
    assert!(grown.is_empty(), "grown: {grown:#?}");
    drop(scorer);
    assert_eq!(descendants(std::process::id() as i32), [0; 0]);
}

/// Waits until the second server, which starts after some executions, has made its files.
fn wait_until_steady() {
    let count = || (descendants(std::process::id() as i32).len(), files(&std::env::temp_dir()).0);
    let (mut last, mut same) = (count(), 0);
    for _ in 0..120 {
        thread::sleep(Duration::from_millis(500));
        let now = count();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == 12 {
            break;
        }
    }
}

/// Executes the programs from number `first` to before `end`, two at a time.
fn execute(scorer: &Scorer, mixture: &Mixture, first: usize, end: usize) {
    let next = AtomicUsize::new(first);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= end {
                        break;
                    }
                    let answer = scorer.execute(mixture.program(n)).expect("workers").answer;
                    assert!(answer.panic.is_none() && answer.outcome.is_some(), "{answer:?}");
                }
            });
        }
    });
}

#[test]
fn a_short_soak_leaks_nothing() {
    println!("{}", run("hostile::soak::soak", &[(EXECUTIONS.0, "300")]));
}
