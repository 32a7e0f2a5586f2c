//! Counts, means and intervals over predictions.

use std::collections::BTreeMap;

use cadwright_rewards::frames::Frame;
use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rewards::stats::{best_at_k, bootstrap_ci95, mean, pass_at_k};
use serde_json::{Map, Value, json};

use super::predict::Prediction;

/// Statistics of the best of `k` samples of a part, in the first frame. Estimates are unbiased;
/// intervals are over parts.
#[derive(Debug, Clone)]
pub struct AtK {
    /// Number of samples.
    pub k: usize,
    /// Expected best IoU of `k` samples, and its 95 % interval.
    pub best: (f64, [f64; 2]),
    /// For each threshold: the probability that at least one of `k` samples reaches it, with its 95
    /// % interval.
    pub pass: Vec<(f64, f64, [f64; 2])>,
}

/// Counts and means over predictions.
#[derive(Debug, Clone)]
pub struct Report {
    /// Parts.
    pub n: usize,
    /// Predictions for each part. Means are over all of them, intervals over parts.
    pub samples: usize,
    /// For k = 1, 2, 4, ... `samples`; empty for a single sample.
    pub at_k: Vec<AtK>,
    /// Valid syntax rate: the share whose outcome is a solid.
    pub vsr: f64,
    /// 95 % bootstrap interval of `vsr`.
    pub vsr_ci95: [f64; 2],
    /// By frame: mean IoU over all predictions, failures counted as 0; its 95 % interval; mean over
    /// the valid ones.
    pub iou: BTreeMap<Frame, (f64, [f64; 2], f64)>,
    /// Mean reward.
    pub reward: f64,
    /// Number of predictions of each outcome class.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Number of completions that were cut off.
    pub truncated: usize,
}

const RESAMPLES: usize = 2000;

fn at_k(predictions: &[Prediction], samples: usize, frame: Frame, thresholds: &[f64]) -> Vec<AtK> {
    let parts: Vec<Vec<f64>> =
        predictions.chunks(samples).map(|part| part.iter().map(|p| p.score.iou_in(frame)).collect()).collect();
    let over_parts = |statistic: &dyn Fn(&[f64]) -> f64| {
        let values: Vec<f64> = parts.iter().map(|part| statistic(part)).collect();
        (mean(&values), bootstrap_ci95(&values, RESAMPLES, 0))
    };
    let passing = |ious: &[f64], threshold: f64| ious.iter().filter(|iou| **iou >= threshold).count();
    let ks = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|&k| k < samples).chain([samples]);
    ks.map(|k| AtK {
        k,
        best: over_parts(&|ious| best_at_k(ious, k)),
        pass: thresholds
            .iter()
            .map(|&threshold| {
                let (mean, ci95) = over_parts(&|ious| pass_at_k(ious.len(), passing(ious, threshold), k));
                (threshold, mean, ci95)
            })
            .collect(),
    })
    .collect()
}

impl Report {
    /// The report of `predictions`, which hold `samples` for each part, part after part. IoU is
    /// reported in each of `frames`.
    pub fn new(predictions: &[Prediction], samples: usize, frames: &[Frame], thresholds: &[f64]) -> Self {
        // The samples of one part are not independent: intervals are over the means of parts.
        let by_part = |number: &dyn Fn(&Prediction) -> f64| -> Vec<f64> {
            predictions.chunks(samples).map(|part| part.iter().map(number).sum::<f64>() / part.len() as f64).collect()
        };
        let is_valid = by_part(&|p| f64::from(p.score.verdict.is_valid()));
        let frame = |&frame: &Frame| {
            let all = by_part(&|p| p.score.iou_in(frame));
            let valid: Vec<f64> =
                predictions.iter().filter(|p| p.score.verdict.is_valid()).map(|p| p.score.iou_in(frame)).collect();
            (frame, (mean(&all), bootstrap_ci95(&all, RESAMPLES, 0), mean(&valid)))
        };
        let rewards: Vec<f64> = predictions.iter().map(|p| p.score.reward).collect();
        let mut outcomes = BTreeMap::new();
        for prediction in predictions {
            if let Some(class) = prediction.score.verdict.class() {
                *outcomes.entry(class).or_insert(0) += 1;
            }
        }
        Self {
            n: is_valid.len(),
            samples,
            at_k: if samples > 1 { at_k(predictions, samples, frames[0], thresholds) } else { Vec::new() },
            vsr: mean(&is_valid),
            vsr_ci95: bootstrap_ci95(&is_valid, RESAMPLES, 0),
            iou: frames.iter().map(frame).collect(),
            reward: mean(&rewards),
            outcomes,
            truncated: predictions.iter().filter(|p| p.truncated).count(),
        }
    }

    fn at_k_json(&self) -> Value {
        let entry = |at: &AtK| {
            let pass: Map<String, Value> = at
                .pass
                .iter()
                .map(|(threshold, mean, ci95)| (threshold.to_string(), json!({"mean": mean, "ci95": ci95})))
                .collect();
            (at.k.to_string(), json!({"best_iou": at.best.0, "best_iou_ci95": at.best.1, "pass": pass}))
        };
        Value::Object(self.at_k.iter().map(entry).collect())
    }

    /// Mean IoU over all predictions in `frame`.
    pub fn iou_in(&self, frame: Frame) -> f64 {
        self.iou.get(&frame).map_or(0.0, |(mean, ..)| *mean)
    }

    /// The content of `summary.json`: `vsr`, `iou` and `iou_ci95` in `frame`, and all other
    /// numbers.
    pub fn to_json(&self, frame: Frame) -> Value {
        let (iou, iou_ci95, iou_valid) = self.iou.get(&frame).copied().unwrap_or_default();
        let frames: Map<String, Value> = self
            .iou
            .iter()
            .map(|(frame, (all, ci95, valid))| {
                (frame.name().to_owned(), json!({"iou": all, "iou_ci95": ci95, "iou_valid": valid}))
            })
            .collect();
        let outcomes: BTreeMap<_, _> = self.outcomes.iter().map(|(class, count)| (class.name(), count)).collect();
        json!({
            "n": self.n, "vsr": self.vsr, "vsr_ci95": self.vsr_ci95, "frame": frame.name(), "iou": iou, "iou_ci95": iou_ci95,
            "iou_valid": iou_valid, "samples_per_image": self.samples, "at_k": self.at_k_json(), "frames": frames, "reward": self.reward, "outcomes": outcomes,
            "truncated": self.truncated,
        })
    }
}
