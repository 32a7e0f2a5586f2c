//! A scorer that all tests share, and programs to execute.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cadwright_rewards::OutcomeClass;
use cadwright_rollout::{Engine, Execution, Scorer, ScorerConfig};

pub const TIMEOUT_S: f64 = 3.0;
pub const CUBE: &str = "solid = cq.Workplane().box(1, 1, 1)";

/// A scorer with real CadQuery, so that tests do not depend on what the native engine certifies.
pub fn config(jobs: usize) -> ScorerConfig {
    let engine = Engine::Cadquery;
    ScorerConfig { engine, jobs, timeout_s: TIMEOUT_S, memory_mib: 512, grid: 32, ..ScorerConfig::default() }
}

/// Starting a server takes seconds, so the tests share one.
pub fn scorer() -> &'static Scorer {
    static SCORER: OnceLock<Scorer> = OnceLock::new();
    SCORER.get_or_init(|| Scorer::new(config(2)).expect("Python with CadQuery: run scripts/setup"))
}

pub fn execute(program: &str) -> Execution {
    scorer().execute(program).expect("workers")
}

/// Executes `program` and expects `class`; returns the error.
pub fn expect(class: OutcomeClass, program: &str) -> String {
    let execution = execute(program);
    let error = execution.answer.error().unwrap_or_default().to_owned();
    assert_eq!(execution.answer.verdict().class(), Some(class), "{error}\n{program}");
    error
}

/// Executes `program` and expects a cube of volume 1.
pub fn expect_cube(program: &str) {
    let execution = execute(program);
    let Some(solid) = execution.answer.solid() else {
        panic!("{:?}\n{program}", execution.answer.error());
    };
    assert!((solid.mass().volume - 1.0).abs() < 1e-12, "{}", solid.mass().volume);
}

/// The directory of a server: the third argument of its process.
pub fn directory_of(server: i32) -> PathBuf {
    let line = fs::read_to_string(format!("/proc/{server}/cmdline")).unwrap();
    let directory = Path::new(line.split('\0').nth(4).unwrap()).to_owned();
    assert!(directory.join("server.py").is_file(), "{directory:?}");
    directory
}
