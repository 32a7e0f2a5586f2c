//! Statistics of a set of scores: the numbers that are quoted of an evaluation.
//!
//! `cadwright score`, `cadwright eval`, validation and the table of a run all use [`Report`], so
//! that the same scores give the same numbers everywhere.

use std::collections::BTreeMap;
use std::path::Path;

use cadwright_rewards::stats::{best_at_k, mean, pass_at_k};
use cadwright_rewards::{Frame, OutcomeClass, Protocol};
use serde::{Deserialize, Serialize};

pub use cadwright_rewards::stats::MeanCi;

use crate::answer::Verdict;
use crate::chosen::ChosenReport;
use crate::config::{Engine, ScorerConfig};
use crate::error::{Error, Result};
use crate::protocols::{ProtocolReports, ProtocolRows, Stratum, quartiles};
use crate::scoring::Score;

/// Statistics of predictions, as in `summary.json`.
///
/// A part has one prediction, or several samples. Means are over all predictions. Intervals are
/// 95 % bootstrap intervals over parts, because the samples of a part are not independent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Number of parts.
    pub n: usize,
    /// Predictions for each part.
    pub samples_per_image: usize,
    /// The engine that was asked to execute programs.
    pub engine: Engine,
    /// Cells along each axis of the occupancy grids.
    pub grid: usize,
    /// Valid syntax rate: share of predictions whose outcome is a solid.
    pub vsr: f64,
    /// Interval of `vsr`.
    pub vsr_ci95: [f64; 2],
    /// The first configured frame, which makes the reward.
    pub frame: Frame,
    /// Mean IoU over all predictions in `frame`; a failure counts 0. The number to quote.
    pub iou: f64,
    /// Interval of `iou`.
    pub iou_ci95: [f64; 2],
    /// IoU in each configured frame, `frame` included.
    pub frames: BTreeMap<Frame, FrameReport>,
    /// By number of samples k = 1, 2, 4, ...: the best of k samples of a part, in `frame`. Empty
    /// for one sample.
    pub at_k: BTreeMap<usize, AtK>,
    /// What the tables of other protocols print, if any was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<ProtocolReports>,
    /// Mean reward.
    pub reward: f64,
    /// Predictions by outcome class; every class is there. A prediction that was declined, or on
    /// which our code panicked, has none.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Predictions by the engine that answered or declined.
    pub engines: BTreeMap<Engine, usize>,
    /// How often the native engine handed on a prediction or a ground truth, by reason.
    pub declined: BTreeMap<String, usize>,
    /// Predictions whose completion was cut at the token limit.
    pub truncated: usize,
    /// Valid predictions that OCC calls invalid.
    pub malformed: usize,
    /// Predictions whose ground truth is not a solid. Their IoU counts 0 over all and is not among
    /// the valid ones. Anything but 0 means an error in the data.
    pub ground_truth_failures: usize,
    /// Predictions whose IoU may be wrong: the triangles of a solid enclose another volume than the
    /// solid.
    pub iou_uncertain: usize,
    /// Predictions whose IoU in [`Frame::Shell`] depends on how equal moments were rounded.
    pub shell_undetermined: usize,
    /// Predictions on which our own code panicked: faults of ours, counted as IoU 0.
    pub panics: usize,
    /// Mean numbers of tokens. Only `eval` knows them.
    #[serde(flatten)]
    pub tokens: Option<TokenMeans>,
    /// Wall time. `eval` includes the generation of programs. `score` counts from the first pair to
    /// the last; with engine auto this includes the second or two in which CadQuery starts, if it
    /// is needed at all.
    pub seconds: f64,
    /// One program of each part, chosen among its samples, if `eval` was asked to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<ChosenReport>,
}

/// Numbers of tokens of one prediction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Tokens of the prompt, those of its pictures included.
    pub prompt: usize,
    /// Tokens of the completion, its end included.
    pub completion: usize,
    /// Tokens of the completion that belong to a plan, and not to the program.
    pub plan: usize,
}

/// Means of [`TokenCounts`] over all predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenMeans {
    /// Tokens of the prompt.
    pub prompt_tokens: f64,
    /// Tokens of the completion.
    pub completion_tokens: f64,
    /// Tokens of the plan.
    pub plan_tokens: f64,
}

/// IoU in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameReport {
    /// Mean over all predictions; a failure counts 0.
    pub iou: f64,
    /// Interval of `iou`.
    pub iou_ci95: [f64; 2],
    /// Mean over the valid predictions. It flatters a model that often fails.
    pub iou_valid: f64,
    /// Interval of `iou_valid`.
    pub iou_valid_ci95: [f64; 2],
    /// Quartiles over all predictions; a failure counts 0.
    #[serde(default)]
    pub quartiles: [f64; 3],
    /// Quartiles over the valid predictions.
    #[serde(default)]
    pub quartiles_valid: [f64; 3],
}

/// The best of k samples of a part. Estimates are unbiased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtK {
    /// Expected best IoU of k samples.
    pub best_iou: f64,
    /// Interval of `best_iou`.
    pub best_iou_ci95: [f64; 2],
    /// By threshold, as text: the chance that at least one of k samples has an IoU of at least it.
    pub pass: BTreeMap<String, MeanCi>,
}

/// The summary of `cadwright score`: a report with the keys that only this command writes.
#[derive(Serialize)]
struct ScoreFile<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// By frame: over all pairs.
    iou_all: BTreeMap<Frame, MeanCi>,
    /// By frame: over the pairs whose prediction is valid.
    iou_valid: BTreeMap<Frame, MeanCi>,
    pairs_per_second: f64,
}

/// The summary of an evaluation: a report with the keys that only `cadwright eval` writes.
#[derive(Serialize)]
struct EvalFile<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// In the first frame.
    iou_valid: f64,
}

impl Report {
    /// Reads the summary that `cadwright score` or `cadwright eval` wrote.
    ///
    /// # Errors
    /// A file that cannot be read, or lacks a key; the error has the names of both.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::file(path, "read", &error))?;
        let wrong = |problem: String| Error::Summary { path: path.to_owned(), problem };
        let report: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        let missing = |field: &str| Err(wrong(format!("missing field `{}` in `{field}`", report.frame)));
        match report.chosen.as_ref().and_then(ChosenReport::quoted) {
            _ if !report.frames.contains_key(&report.frame) => missing("frames"),
            Some(row) if !row.iou.contains_key(&report.frame) => missing("chosen.table"),
            _ => Ok(report),
        }
    }

    /// Mean IoU over the valid predictions in the first frame.
    pub fn iou_valid(&self) -> f64 {
        self.frames[&self.frame].iou_valid
    }

    /// VSR and IoU in the first frame, those to quote: of the chosen programs if one of each part was
    /// chosen, else over all predictions.
    pub fn quoted(&self) -> [MeanCi; 2] {
        match self.chosen.as_ref().and_then(ChosenReport::quoted) {
            Some(row) => [row.vsr, row.iou[&self.frame]],
            None => [MeanCi { mean: self.vsr, ci95: self.vsr_ci95 }, MeanCi { mean: self.iou, ci95: self.iou_ci95 }],
        }
    }

    /// Predictions per second.
    pub fn pairs_per_second(&self) -> f64 {
        let pairs = self.n as f64 * self.samples_per_image as f64;
        if self.seconds > 0.0 { pairs / self.seconds } else { 0.0 }
    }

    /// The file that `cadwright score` writes. Besides the report it has `iou_all` and `iou_valid`,
    /// each by frame with `mean` and `ci95`, and `pairs_per_second`.
    pub fn score_summary(&self) -> impl Serialize + '_ {
        let all = |frame: &FrameReport| MeanCi { mean: frame.iou, ci95: frame.iou_ci95 };
        let valid = |frame: &FrameReport| MeanCi { mean: frame.iou_valid, ci95: frame.iou_valid_ci95 };
        ScoreFile {
            report: self,
            iou_all: self.frames.iter().map(|(&frame, report)| (frame, all(report))).collect(),
            iou_valid: self.frames.iter().map(|(&frame, report)| (frame, valid(report))).collect(),
            pairs_per_second: self.pairs_per_second(),
        }
    }

    /// The file that `cadwright eval` and a run write. Besides the report it has `iou_valid`, which
    /// is a number here: the one of the first frame.
    pub fn eval_summary(&self) -> impl Serialize + '_ {
        EvalFile { report: self, iou_valid: self.iou_valid() }
    }
}

/// Collects scores for a [`Report`].
#[derive(Debug, Clone)]
pub struct ReportBuilder {
    engine: Engine,
    grid: usize,
    frames: Vec<Frame>,
    samples: usize,
    thresholds: Vec<f64>,
    /// By prediction, as everything that follows: whether it is valid.
    valid: Vec<bool>,
    /// In each of `frames`.
    ious: Vec<Vec<Option<f64>>>,
    rewards: Vec<f64>,
    outcomes: BTreeMap<OutcomeClass, usize>,
    engines: BTreeMap<Engine, usize>,
    declined: BTreeMap<String, usize>,
    truncated: usize,
    malformed: usize,
    ground_truth_failures: usize,
    iou_uncertain: usize,
    shell_undetermined: usize,
    panics: usize,
    tokens: Vec<TokenCounts>,
    protocols: Vec<Protocol>,
    protocol_rows: ProtocolRows,
}

impl ReportBuilder {
    /// For the scores of a scorer with this configuration: `samples` for each part, which must be
    /// added one after another. `thresholds` are those of [`AtK::pass`].
    ///
    /// # Panics
    /// If the configuration has no frame, or if `samples` is 0.
    pub fn new(config: &ScorerConfig, samples: usize, thresholds: &[f64]) -> Self {
        assert!(!config.frames.is_empty() && samples > 0, "{} frames, {samples} samples", config.frames.len());
        Self {
            engine: config.engine,
            grid: config.grid,
            frames: config.frames.clone(),
            samples,
            thresholds: thresholds.to_vec(),
            valid: Vec::new(),
            ious: vec![Vec::new(); config.frames.len()],
            rewards: Vec::new(),
            outcomes: OutcomeClass::ALL.map(|class| (class, 0)).into(),
            engines: BTreeMap::new(),
            declined: BTreeMap::new(),
            truncated: 0,
            malformed: 0,
            ground_truth_failures: 0,
            iou_uncertain: 0,
            shell_undetermined: 0,
            panics: 0,
            tokens: Vec::new(),
            protocols: config.protocols.clone(),
            protocol_rows: ProtocolRows::default(),
        }
    }

    /// Adds one score; `truncated` says whether the completion was cut at the token limit.
    pub fn add(&mut self, score: &Score, truncated: bool) {
        self.valid.push(score.verdict.is_valid());
        for (frame, ious) in self.frames.iter().zip(&mut self.ious) {
            ious.push(score.iou.get(frame).copied().flatten());
        }
        self.rewards.push(score.reward);
        if let Some(class) = score.verdict.class() {
            *self.outcomes.entry(class).or_default() += 1;
        }
        for decline in &score.declined {
            *self.declined.entry(decline.reason.to_string()).or_default() += 1;
        }
        *self.engines.entry(score.engine).or_default() += 1;
        self.truncated += usize::from(truncated);
        self.malformed += usize::from(score.malformed);
        self.ground_truth_failures += usize::from(score.ground_truth_error.is_some());
        self.iou_uncertain += usize::from(score.iou_uncertain);
        self.shell_undetermined += usize::from(score.shell_undetermined);
        self.panics += usize::from(score.verdict == Verdict::Panicked);
    }

    /// Adds the numbers of the configured protocols about one prediction.
    pub fn add_protocols(&mut self, score: &Score, stratum: Stratum) {
        if !self.protocols.is_empty() {
            self.protocol_rows.add(score, stratum);
        }
    }

    /// Adds the numbers of tokens of one prediction.
    pub fn add_tokens(&mut self, tokens: TokenCounts) {
        self.tokens.push(tokens);
    }

    /// The report; `seconds` is the wall time.
    pub fn finish(self, seconds: f64) -> Report {
        let valid: Vec<f64> = self.valid.iter().map(|&is_valid| f64::from(is_valid)).collect();
        let vsr = MeanCi::over_groups(&self.by_part(&valid));
        let frames: BTreeMap<_, _> =
            self.frames.iter().zip(&self.ious).map(|(&frame, ious)| (frame, self.frame_report(ious))).collect();
        let FrameReport { iou, iou_ci95, .. } = frames[&self.frames[0]];
        let mean_of = |count: fn(&TokenCounts) -> usize| {
            self.tokens.iter().map(count).sum::<usize>() as f64 / self.tokens.len() as f64
        };
        let tokens = (!self.tokens.is_empty()).then(|| TokenMeans {
            prompt_tokens: mean_of(|tokens| tokens.prompt),
            completion_tokens: mean_of(|tokens| tokens.completion),
            plan_tokens: mean_of(|tokens| tokens.plan),
        });
        Report {
            n: self.valid.len().div_ceil(self.samples),
            samples_per_image: self.samples,
            engine: self.engine,
            grid: self.grid,
            vsr: vsr.mean,
            vsr_ci95: vsr.ci95,
            frame: self.frames[0],
            iou,
            iou_ci95,
            frames,
            at_k: if self.samples > 1 { self.at_k() } else { BTreeMap::new() },
            protocols: self.protocol_rows.report(&self.protocols, self.samples),
            reward: mean(&self.rewards),
            outcomes: self.outcomes,
            engines: self.engines,
            declined: self.declined,
            truncated: self.truncated,
            malformed: self.malformed,
            ground_truth_failures: self.ground_truth_failures,
            iou_uncertain: self.iou_uncertain,
            shell_undetermined: self.shell_undetermined,
            panics: self.panics,
            tokens,
            seconds,
            chosen: None,
        }
    }

    /// Values by prediction, divided into those of each part.
    fn by_part<T: Clone>(&self, values: &[T]) -> Vec<Vec<T>> {
        values.chunks(self.samples).map(<[T]>::to_vec).collect()
    }

    fn frame_report(&self, ious: &[Option<f64>]) -> FrameReport {
        let all: Vec<f64> = ious.iter().map(|iou| iou.unwrap_or(0.0)).collect();
        let quartiles_all = quartiles(&all).unwrap_or_default();
        let all = MeanCi::over_groups(&self.by_part(&all));
        let valid: Vec<Option<f64>> =
            ious.iter().zip(&self.valid).map(|(iou, is_valid)| iou.filter(|_| *is_valid)).collect();
        let valid: Vec<Vec<f64>> =
            self.by_part(&valid).into_iter().map(|part| part.into_iter().flatten().collect()).collect();
        let quartiles_valid = quartiles(&valid.concat()).unwrap_or_default();
        let valid = MeanCi::over_groups(&valid);
        FrameReport {
            iou: all.mean,
            iou_ci95: all.ci95,
            iou_valid: valid.mean,
            iou_valid_ci95: valid.ci95,
            quartiles: quartiles_all,
            quartiles_valid,
        }
    }

    fn at_k(&self) -> BTreeMap<usize, AtK> {
        let ious: Vec<f64> = self.ious[0].iter().map(|iou| iou.unwrap_or(0.0)).collect();
        let parts = self.by_part(&ious);
        let over_parts = |value: &dyn Fn(&[f64]) -> f64| {
            let values: Vec<f64> = parts.iter().map(|part| value(part)).collect();
            MeanCi::of(&values)
        };
        let passing = |ious: &[f64], threshold: f64| ious.iter().filter(|iou| **iou >= threshold).count();
        let pass = |k: usize, threshold: f64| {
            over_parts(&|ious| pass_at_k(ious.len(), passing(ious, threshold), k.min(ious.len())))
        };
        let ks = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|&k| k < self.samples);
        ks.chain([self.samples])
            .map(|k| {
                let best = over_parts(&|ious| best_at_k(ious, k.min(ious.len())));
                let pass = self.thresholds.iter().map(|&t| (t.to_string(), pass(k, t))).collect();
                (k, AtK { best_iou: best.mean, best_iou_ci95: best.ci95, pass })
            })
            .collect()
    }
}

/// `a 5, b 3, ...`: the most frequent reasons of [`Report::declined`], for people.
pub fn top_reasons<R: AsRef<str>>(declined: &BTreeMap<R, usize>) -> String {
    let mut reasons: Vec<_> = declined.iter().map(|(reason, count)| (*count, reason.as_ref())).collect();
    reasons.sort_by_key(|&(count, reason)| (std::cmp::Reverse(count), reason));
    let shown: Vec<_> = reasons.iter().take(5).map(|(count, reason)| format!("{reason} {count}")).collect();
    let rest: usize = reasons.iter().skip(5).map(|(count, _)| count).sum();
    shown.join(", ") + &if rest > 0 { format!(", other reasons {rest}") } else { String::new() }
}
