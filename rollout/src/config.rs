//! Settings of a [`Scorer`](crate::Scorer).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use cadwright_rewards::{Frame, Protocol, RewardConfig};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The engine or engines that execute programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The native engine, and CadQuery for the programs that it declines.
    #[default]
    Auto,
    /// The native engine alone: a program that it declines has no outcome. Needs no Python.
    Native,
    /// Real CadQuery in sandboxed worker processes.
    Cadquery,
}

impl Engine {
    /// The name in flags, config keys and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Cadquery => "cadquery",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "cadquery" => Ok(Self::Cadquery),
            _ => Err(Error::UnknownEngine(name.to_owned())),
        }
    }
}

/// What to do about layers of the sandbox that do not hold (`rollout/README.md`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Every layer that the kernel offers must hold; else nothing is executed.
    #[default]
    Required,
    /// Programs are executed with those layers that hold.
    BestEffort,
}

impl Sandbox {
    /// The name in flags and config keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best_effort",
        }
    }
}

impl FromStr for Sandbox {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Required, Self::BestEffort].into_iter().find(|mode| mode.name() == name).ok_or_else(|| Error::Config {
            key: "sandbox",
            expected: "required or best_effort".to_owned(),
            found: name.to_owned(),
        })
    }
}

/// Settings of a [`Scorer`](crate::Scorer).
#[derive(Debug, Clone, PartialEq)]
pub struct ScorerConfig {
    /// The engine or engines that execute programs.
    pub engine: Engine,
    /// Programs executed at the same time; 0 means one per core.
    pub jobs: usize,
    /// Deadline of one program, in seconds from the start of its execution.
    pub timeout_s: f64,
    /// Memory that one program may ask for in addition to the worker's own, in MiB.
    pub memory_mib: u64,
    /// What to do about layers of the sandbox that do not hold.
    pub sandbox: Sandbox,
    /// Cells along each axis of the occupancy grids.
    pub grid: usize,
    /// Frames in which IoU is computed. The reward uses the first one.
    pub frames: Vec<Frame>,
    /// Protocols of others that are computed besides.
    pub protocols: Vec<Protocol>,
    /// Terms of the reward.
    pub reward: RewardConfig,
    /// The variable that holds a program's result. It comes before the published rule, which decides
    /// if a program has no such shape; see [`execute_named`](cadwright_rewards::native::execute_named).
    pub result_name: Option<String>,
    /// The directory that keeps the outcomes of ground truths between runs. `None`: memory only.
    pub cache_dir: Option<PathBuf>,
    /// Python with CadQuery. If `None`, it is `CADWRIGHT_PYTHON`, or else `.venv/bin/python` in a
    /// directory above the executable or the working directory, or else `python3`.
    pub python: Option<PathBuf>,
}

impl Default for ScorerConfig {
    fn default() -> Self {
        Self {
            engine: Engine::Auto,
            jobs: 0,
            timeout_s: 10.0,
            memory_mib: 2048,
            sandbox: Sandbox::Required,
            grid: 64,
            frames: vec![Frame::Canonical],
            protocols: Vec::new(),
            reward: RewardConfig::default(),
            result_name: None,
            cache_dir: None,
            python: None,
        }
    }
}

/// Bounds of [`ScorerConfig::grid`].
pub const GRID_RANGE: std::ops::RangeInclusive<usize> = 4..=512;

impl ScorerConfig {
    /// The number of programs executed at the same time, with 0 resolved.
    pub fn resolved_jobs(&self) -> usize {
        match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |key, expected: &str, found: String| Err(Error::Config { key, expected: expected.to_owned(), found });
        if self.jobs > 1024 {
            return wrong("jobs", "0 (one per core) to 1024", self.jobs.to_string());
        }
        if !(0.01..=86_400.0).contains(&self.timeout_s) {
            return wrong("timeout_s", "0.01 to 86400 seconds", self.timeout_s.to_string());
        }
        if !(64..=1 << 20).contains(&self.memory_mib) {
            return wrong("memory_mib", "64 to 1048576 MiB", self.memory_mib.to_string());
        }
        if !GRID_RANGE.contains(&self.grid) {
            return wrong("grid", "4 to 512 cells", self.grid.to_string());
        }
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_name =
            |name: &String| name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
        if let Some(name) = self.result_name.as_ref().filter(|name| !is_name(name)) {
            return wrong("result_name", "the name of a variable", format!("{name:?}"));
        }
        if self.frames.is_empty() {
            return Err(cadwright_rewards::FrameError::None.into());
        }
        match self.reward.problems().into_iter().next() {
            Some(problem) => Err(Error::Config { key: "reward", expected: "sensible terms".into(), found: problem }),
            None => Ok(()),
        }
    }
}
