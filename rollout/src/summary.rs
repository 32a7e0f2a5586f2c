//! Many scores in one table: what is quoted of an evaluation.

use std::collections::BTreeMap;

use cadwright_rewards::stats::{RESAMPLES, bootstrap_ci95, mean};
use cadwright_rewards::{Frame, OutcomeClass};
use serde::Serialize;

use crate::config::{Engine, ScorerConfig};
use crate::scorer::Score;

/// Seed of the bootstrap: the same scores give the same intervals.
const SEED: u64 = 0;

/// A mean and its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanCi {
    /// Arithmetic mean; 0 for no values.
    pub mean: f64,
    /// Percentile interval `[low, high]` of the mean, 1000 resamples.
    pub ci95: [f64; 2],
}

impl MeanCi {
    /// Of some values.
    pub fn of(values: &[f64]) -> Self {
        Self { mean: mean(values), ci95: bootstrap_ci95(values, RESAMPLES, SEED) }
    }
}

/// The summary of a set of scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreSummary {
    /// Number of pairs.
    pub n: usize,
    /// Valid syntax rate: share of predictions that left a solid.
    pub vsr: f64,
    /// 95 % bootstrap interval of `vsr`.
    pub vsr_ci95: [f64; 2],
    /// IoU over all pairs, failures counting 0, per frame. The one to quote.
    pub iou_all: BTreeMap<Frame, MeanCi>,
    /// IoU over the pairs whose prediction left a solid. Flatters a model that often fails.
    pub iou_valid: BTreeMap<Frame, MeanCi>,
    /// Mean reward.
    pub reward: f64,
    /// Predictions per outcome; every class is there.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Predictions per engine that answered.
    pub engines: BTreeMap<Engine, usize>,
    /// Valid predictions that OCC calls invalid.
    pub malformed: usize,
    /// Pairs whose ground truth left no solid: their IoU counts 0 in `iou_all` and not in
    /// `iou_valid`. Anything but 0 means a mistake in the data.
    pub ground_truth_failures: usize,
    /// Cells along each axis of the grids.
    pub grid: usize,
    /// Wall time from the first pair to the last, workers already started.
    pub seconds: f64,
    /// `n / seconds`.
    pub pairs_per_second: f64,
}

/// Collects scores for a [`ScoreSummary`].
#[derive(Debug, Clone)]
pub struct Tally {
    grid: usize,
    valid: Vec<f64>,
    iou_all: BTreeMap<Frame, Vec<f64>>,
    iou_valid: BTreeMap<Frame, Vec<f64>>,
    reward: f64,
    outcomes: BTreeMap<OutcomeClass, usize>,
    engines: BTreeMap<Engine, usize>,
    malformed: usize,
    ground_truth_failures: usize,
}

impl Tally {
    /// For scores of a scorer with this configuration.
    pub fn new(config: &ScorerConfig) -> Self {
        let per_frame: BTreeMap<_, _> = config.frames.iter().map(|&f| (f, Vec::new())).collect();
        Self {
            grid: config.grid,
            valid: Vec::new(),
            iou_all: per_frame.clone(),
            iou_valid: per_frame,
            reward: 0.0,
            outcomes: OutcomeClass::ALL.map(|class| (class, 0)).into(),
            engines: BTreeMap::new(),
            malformed: 0,
            ground_truth_failures: 0,
        }
    }

    /// Counts one score in.
    pub fn add(&mut self, score: &Score) {
        self.valid.push(if score.class.is_valid() { 1.0 } else { 0.0 });
        for (&frame, &iou) in &score.iou {
            self.iou_all.entry(frame).or_default().push(iou.unwrap_or(0.0));
            if let Some(iou) = iou.filter(|_| score.class.is_valid()) {
                self.iou_valid.entry(frame).or_default().push(iou);
            }
        }
        self.reward += score.reward;
        *self.outcomes.entry(score.class).or_default() += 1;
        *self.engines.entry(score.engine).or_default() += 1;
        self.malformed += usize::from(score.malformed);
        self.ground_truth_failures += usize::from(score.ground_truth_error.is_some());
    }

    /// The summary; `seconds` is the wall time the scores took.
    pub fn finish(self, seconds: f64) -> ScoreSummary {
        let n = self.valid.len();
        let vsr = MeanCi::of(&self.valid);
        let table = |values: BTreeMap<Frame, Vec<f64>>| {
            values.into_iter().map(|(frame, values)| (frame, MeanCi::of(&values))).collect()
        };
        ScoreSummary {
            n,
            vsr: vsr.mean,
            vsr_ci95: vsr.ci95,
            iou_all: table(self.iou_all),
            iou_valid: table(self.iou_valid),
            reward: if n == 0 { 0.0 } else { self.reward / n as f64 },
            outcomes: self.outcomes,
            engines: self.engines,
            malformed: self.malformed,
            ground_truth_failures: self.ground_truth_failures,
            grid: self.grid,
            seconds,
            pairs_per_second: if seconds > 0.0 { n as f64 / seconds } else { 0.0 },
        }
    }
}
