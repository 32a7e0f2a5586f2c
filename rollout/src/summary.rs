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
    /// Predictions per outcome; every class is there. A prediction that was declined has none.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Predictions per engine that answered, or declined.
    pub engines: BTreeMap<Engine, usize>,
    /// How often the native engine handed on a prediction or a ground truth, per reason.
    pub declined: BTreeMap<&'static str, usize>,
    /// Valid predictions that OCC calls invalid.
    pub malformed: usize,
    /// Pairs whose ground truth left no solid: their IoU counts 0 in `iou_all` and not in
    /// `iou_valid`. Anything but 0 means a mistake in the data.
    pub ground_truth_failures: usize,
    /// Pairs whose IoU may be wrong: the triangles of a solid enclose another volume than the solid.
    pub iou_uncertain: usize,
    /// Pairs whose IoU in [`Frame::Shell`] depends on how equal moments were rounded.
    pub shell_undetermined: usize,
    /// Cells along each axis of the grids.
    pub grid: usize,
    /// Wall time from the first pair to the last. With engine cadquery the workers are up before the first pair; with
    /// auto the second or two in which they start are part of it, if they are needed at all.
    pub seconds: f64,
    /// `n / seconds`.
    pub pairs_per_second: f64,
}

/// `a 5, b 3, ...`: the most frequent reasons of [`ScoreSummary::declined`], for people.
pub fn top_reasons(declined: &BTreeMap<&'static str, usize>) -> String {
    let mut reasons: Vec<_> = declined.iter().map(|(reason, count)| (*count, *reason)).collect();
    reasons.sort_by_key(|&(count, reason)| (std::cmp::Reverse(count), reason));
    let shown: Vec<_> = reasons.iter().take(5).map(|(count, reason)| format!("{reason} {count}")).collect();
    let rest: usize = reasons.iter().skip(5).map(|(count, _)| count).sum();
    shown.join(", ") + &if rest > 0 { format!(", other reasons {rest}") } else { String::new() }
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
    declined: BTreeMap<&'static str, usize>,
    malformed: usize,
    ground_truth_failures: usize,
    iou_uncertain: usize,
    shell_undetermined: usize,
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
            declined: BTreeMap::new(),
            malformed: 0,
            ground_truth_failures: 0,
            iou_uncertain: 0,
            shell_undetermined: 0,
        }
    }

    /// Counts one score in.
    pub fn add(&mut self, score: &Score) {
        self.valid.push(if score.verdict.is_valid() { 1.0 } else { 0.0 });
        for (&frame, &iou) in &score.iou {
            self.iou_all.entry(frame).or_default().push(iou.unwrap_or(0.0));
            if let Some(iou) = iou.filter(|_| score.verdict.is_valid()) {
                self.iou_valid.entry(frame).or_default().push(iou);
            }
        }
        self.reward += score.reward;
        if let Some(class) = score.verdict.class() {
            *self.outcomes.entry(class).or_default() += 1;
        }
        for decline in &score.declined {
            *self.declined.entry(decline.reason).or_default() += 1;
        }
        *self.engines.entry(score.engine).or_default() += 1;
        self.malformed += usize::from(score.malformed);
        self.iou_uncertain += usize::from(score.iou_uncertain);
        self.shell_undetermined += usize::from(score.shell_undetermined);
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
            declined: self.declined,
            malformed: self.malformed,
            ground_truth_failures: self.ground_truth_failures,
            iou_uncertain: self.iou_uncertain,
            shell_undetermined: self.shell_undetermined,
            grid: self.grid,
            seconds,
            pairs_per_second: if seconds > 0.0 { n as f64 / seconds } else { 0.0 },
        }
    }
}
