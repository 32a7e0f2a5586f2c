//! The row of a program depends on nothing but its text: not on what ran before, not on what runs
//! beside, not on the order, not on the number of workers.

use std::time::Instant;

use cadwright_rewards::Geometry;
use cadwright_rollout::{Answer, Scorer, ScorerConfig};

use crate::common::config;
use crate::hostile::cases::{Case, answers, cases};
use crate::hostile::programs;

/// Ordinary programs; see `programs/victims.py`.
pub fn victims() -> Vec<Case> {
    cases(include_str!("programs/victims.py"), &[])
}

/// Programs that try to change those after them; see `programs/spoilers.py`.
pub fn spoilers() -> Vec<Case> {
    cases(include_str!("programs/spoilers.py"), &[])
}

fn started(settings: ScorerConfig) -> Scorer {
    let scorer = Scorer::new(settings).expect("Python with CadQuery: run scripts/setup");
    scorer.ready().expect("workers");
    scorer
}

/// All that a row says of an answer.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    verdict: &'static str,
    error: Option<String>,
    numbers: Vec<f64>,
}

impl Row {
    fn of(answer: &Answer) -> Self {
        let numbers = answer.solid().map_or_else(Vec::new, |solid| {
            let mass = solid.mass();
            let flags = [f64::from(u8::from(solid.malformed)), f64::from(solid.solids().unwrap_or(0))];
            let mesh = match &solid.geometry {
                Geometry::Mesh(mesh) => [mesh.vertices.len() as f64, mesh.triangles.len() as f64],
                Geometry::Csg(_) => [0.0; 2],
            };
            let mass = [mass.volume].into_iter().chain(mass.centroid).chain(mass.inertia.into_iter().flatten());
            let bounds = solid.mass().bounds;
            mass.chain(bounds.min).chain(bounds.max).chain(flags).chain(mesh).collect()
        });
        Self { verdict: answer.verdict().name(), error: answer.error(), numbers }
    }

    /// Equal in words, and in numbers up to 1e-9.
    fn agrees(&self, other: &Self) -> bool {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
        (self.verdict, &self.error, self.numbers.len()) == (other.verdict, &other.error, other.numbers.len())
            && self.numbers.iter().zip(&other.numbers).all(close)
    }
}

fn rows(scorer: &Scorer, programs: &[&str], threads: usize) -> Vec<Row> {
    answers(scorer, programs, threads).iter().map(Row::of).collect()
}

fn texts(cases: &[Case]) -> Vec<&str> {
    cases.iter().map(|case| case.program.as_str()).collect()
}

/// What differs between two lists of rows, by the names of the programs.
fn differences(cases: &[Case], expected: &[Row], found: &[Row]) -> Vec<String> {
    let differing = cases.iter().zip(expected).zip(found).filter(|((_, expected), found)| !found.agrees(expected));
    differing.map(|((case, expected), found)| format!("{}: {found:?}, not {expected:?}", case.name)).collect()
}

#[test]
fn the_ordinary_programs_are_what_their_names_say() {
    crate::hostile::cases::check(&victims());
}

/// After each program that tries to spoil its process, ordinary ones have the rows that they have
/// in a server that ran nothing else. One worker, so that all may share a process.
#[test]
fn no_program_changes_the_next_one() {
    let victims: Vec<Case> = victims().into_iter().take(10).collect();
    let fresh = rows(&started(config(1)), &texts(&victims), 1);
    let mut scorer = started(config(1));
    let mut changed = Vec::new();
    for spoiler in spoilers() {
        scorer.execute(&spoiler.program).unwrap();
        let found = rows(&scorer, &texts(&victims), 1);
        let differences = differences(&victims, &fresh, &found);
        changed.extend(differences.first().map(|first| format!("after {}: {first}", spoiler.name)));
        if !differences.is_empty() {
            // The next spoiler meets a process that nothing has changed.
            scorer = started(config(1));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// A process that measures what several programs hand over may have read hostile geometry.
#[test]
fn no_geometry_changes_how_the_next_is_measured() {
    // With an import that draws nothing, so that each program hands its geometry over.
    let wild = |case: &Case| Case { program: format!("import os\n{}", case.program), ..case.clone() };
    let victims: Vec<Case> = victims().iter().step_by(4).map(wild).collect();
    let fresh = rows(&started(config(1)), &texts(&victims), 1);
    let mut scorer = started(config(1));
    let mut changed = Vec::new();
    for hostile in
        programs::forgeries().into_iter().chain(programs::geometries()).filter(|case| !case.allowed.contains("timeout"))
    {
        scorer.execute(&hostile.program).unwrap();
        let differences = differences(&victims, &fresh, &rows(&scorer, &texts(&victims), 1));
        if let Some(first) = differences.first() {
            changed.push(format!("after {}: {first}", hostile.name));
            scorer = started(config(1));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// Numbers below `n`, shuffled by a linear congruential generator.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for last in (1..n).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

/// Hostile programs whose rows are the same each time, and ordinary ones.
fn mixed() -> Vec<Case> {
    // Their own outcome depends on when a signal, a thread or a limit comes.
    let by_chance = ["later", "memory", "descriptors"];
    let is_certain = |case: &Case| !by_chance.iter().any(|word| case.name.contains(word));
    let exits = programs::exits().into_iter().filter(|case| !case.allowed.contains('|')).step_by(4);
    let mut mixed: Vec<Case> =
        victims().into_iter().chain(spoilers().into_iter().filter(is_certain).step_by(2)).collect();
    mixed.extend(exits.take(8));
    mixed.push(Case::new("a loop", "timeout", "import time\ntime.sleep(20)"));
    mixed
}

#[test]
fn a_batch_has_the_same_rows_in_any_order_and_on_any_number_of_workers() {
    let mixed = mixed();
    assert!(mixed.len() >= 36, "{}", mixed.len());
    let scorers = [started(config(1)), started(config(2))];
    let first = rows(&scorers[0], &texts(&mixed), 1);
    let mut changed = Vec::new();
    for (scorer, workers) in scorers.iter().zip([1, 2]) {
        for seed in 1..4 {
            let cases: Vec<Case> = shuffled(mixed.len(), seed).into_iter().map(|n| mixed[n].clone()).collect();
            let expected: Vec<Row> = shuffled(mixed.len(), seed).into_iter().map(|n| first[n].clone()).collect();
            let found = rows(scorer, &texts(&cases), workers);
            let differences = differences(&cases, &expected, &found);
            changed.extend(differences.into_iter().map(|what| format!("{workers} workers, order {seed}: {what}")));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// The 16 hostile programs of a batch of 64: each kind of harm.
const HOSTILE: [&str; 16] = [
    "import ctypes\nctypes.string_at(0)",
    "import os\nos._exit(0)",
    "x = bytearray(3 << 30)",
    "import time\ntime.sleep(20)",
    "import os\nos.closerange(0, 256)",
    "import os\nos.killpg(0, 9)",
    "t = cq.Sketch.segment\nt |= {k: lambda self, *a, **kw: self for k in t.keys()}",
    "cq.Workplane.box = None",
    "for i in range(10**9):\n    x = i",
    "x = [0]\nfor i in range(28):\n    x += x",
    "def f(n):\n    return f(n + 1)\nf(1)",
    "import signal\nsignal.raise_signal(signal.SIGSTOP)",
    "import os\nfor fd in range(3, 256):\n    try: os.write(fd, b'\\xff' * 64)\n    except OSError: pass\nos._exit(0)",
    "import sys\nsys.setrecursionlimit(10**8)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
    "import threading, time\nfor _ in range(50):\n    threading.Thread(target=time.sleep, args=(20,)).start()\nraise ValueError",
    "solid = cq.Workplane().circle(1).extrude(float('nan'))",
];

/// The hostile programs that hold a worker until the deadline.
const HANGING: usize = 4;

#[test]
fn forty_eight_of_a_batch_have_the_rows_that_they_have_alone() {
    let jobs = 2;
    let settings = ScorerConfig { timeout_s: 2.0, ..config(jobs) };
    let scorer = started(settings.clone());
    let victims = victims();
    let ordinary: Vec<Case> = (0..48).map(|n| victims[n % victims.len()].clone()).collect();
    let start = Instant::now();
    let alone = rows(&scorer, &texts(&ordinary), jobs);
    let undisturbed = start.elapsed().as_secs_f64();
    let mut batch: Vec<&str> = texts(&ordinary);
    for (n, program) in HOSTILE.iter().enumerate() {
        batch.insert(4 * n, program);
    }
    let start = Instant::now();
    let found = rows(&scorer, &batch, jobs);
    let wall = start.elapsed().as_secs_f64();
    let found: Vec<Row> = (0..64).filter(|n| n % 4 != 0).map(|n| found[n].clone()).collect();
    assert_eq!(differences(&ordinary, &alone, &found), Vec::<String>::new());
    // Programs that hang take the deadline and at most a second more; those that end by themselves
    // are as quick as ordinary ones. On a machine that others use, the ordinary ones vary by half.
    let rounds = HANGING.div_ceil(jobs) as f64;
    let limit = rounds * (settings.timeout_s + 1.0) + 1.5 * undisturbed * 64.0 / 48.0 + 2.0;
    assert!(wall < limit, "{wall:.1} s, not {limit:.1} s; the ordinary ones alone take {undisturbed:.1} s");
}
