//! Evaluation: predictions, their scores, the report, and the comparison of two evaluations.

pub mod compare;
pub mod predict;
pub mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rollout::{Engine, Scorer};
use serde_json::{Value, json};

use crate::config::Config;
use crate::data::Dataset;
use crate::generate::Sampling;
use crate::pictures::Pictures;
use crate::policy::Policy;
use crate::rollouts::PromptedDataset;
use crate::telemetry::duration;
use predict::{EvalOptions, Prediction, evaluate};
use report::Report;

/// An evaluated policy.
pub struct Evaluation {
    /// Predictions in the order of the rows.
    pub predictions: Vec<Prediction>,
    /// Counts and means over them.
    pub report: Report,
    /// The frame of tables: the first of `eval.frames`.
    pub frame: Frame,
    engine: Engine,
    seconds: f64,
}

impl Evaluation {
    /// Evaluates `policy` on the first `eval.num_samples` rows, executed by `eval.engine`. Executed
    /// ground truths are kept in `cache_dir`, if one is given.
    ///
    /// # Errors
    /// The scorer cannot start or continue.
    pub fn run(config: &Config, policy: &Policy, dataset: &Dataset, cache_dir: Option<PathBuf>) -> Result<Self> {
        let started = Instant::now();
        let eval = &config.eval;
        let scorer = Scorer::new(config.scorer(eval.engine, eval.grid, &eval.frames, cache_dir))?;
        let n = if eval.num_samples == 0 { dataset.len() } else { eval.num_samples.min(dataset.len()) };
        let indices: Vec<usize> = (0..n).collect();
        scorer.ready()?;
        scorer.prefetch(dataset.examples()[..n].iter().map(|example| example.ground_truth.clone()));
        let pictures = Pictures::new(dataset, config.model.max_tiles, 0);
        let prompted =
            PromptedDataset { dataset, pictures: &pictures, prompt: &policy.prompt, tokenizer: &policy.tokenizer };
        let sampling = Sampling {
            temperature: eval.temperature,
            top_p: eval.top_p,
            max_new_tokens: config.generate.max_new_tokens,
        };
        let options = EvalOptions {
            sampling,
            samples: eval.samples_per_image,
            batch_size: config.generate.batch_size,
            seed: u64::from(config.run.seed),
        };
        let predictions = evaluate(&policy.model.frozen_copy(), &prompted, &indices, &scorer, options, |done| {
            eprintln!("eval {done}/{n}");
        })?;
        let report = Report::new(&predictions, eval.samples_per_image, &eval.frames, &eval.thresholds);
        let seconds = started.elapsed().as_secs_f64();
        Ok(Self { predictions, report, frame: eval.frames[0], engine: eval.engine, seconds })
    }

    /// The content of `predictions.json`:
    /// `{"sample_<i>": {"predicted_code", "ground_truth_code", "outcome", "iou", ..}}`, with `iou`
    /// in the first frame. If a part has several samples, these fields are the first sample's, and
    /// `samples` lists `{"predicted_code", "outcome", "iou"}` of all. If the ground truth is a
    /// file, `ground_truth_code` is null and `ground_truth_mesh` is the hash of its content.
    pub fn predictions_json(&self, dataset: &Dataset) -> String {
        let row = |(i, samples): (usize, &[Prediction])| {
            let prediction = &samples[0];
            let score = &prediction.score;
            let ground_truth = &dataset.examples()[prediction.index].ground_truth;
            let mut row = json!({
                "id": prediction.id,
                "predicted_code": prediction.program,
                "ground_truth_code": ground_truth.program(),
                "outcome": score.verdict.name(),
                "error": score.error,
                "malformed": score.malformed,
                "truncated": prediction.truncated,
                "iou": score.iou_in(self.frame),
                "ious": score.iou,
                "ground_truth_error": score.ground_truth_error,
            });
            if let Some(shape) = ground_truth.shape() {
                row["ground_truth_mesh"] = json!(format!("blake3:{}", shape.digest()));
            }
            if samples.len() > 1 {
                let sample = |p: &Prediction| {
                    let (outcome, iou) = (p.score.verdict.name(), p.score.iou_in(self.frame));
                    json!({"predicted_code": p.program, "outcome": outcome, "iou": iou})
                };
                row["samples"] = samples.iter().map(sample).collect();
            }
            (format!("sample_{i}"), row)
        };
        let parts = self.predictions.chunks(self.report.samples);
        format!("{:#}\n", Value::Object(parts.enumerate().map(row).collect()))
    }

    /// The content of `summary.json`: the report, the engine, and the duration in seconds.
    pub fn to_json(&self) -> Value {
        let mut json = self.report.to_json(self.frame);
        json["engine"] = json!(self.engine.name());
        json["seconds"] = json!(self.seconds);
        json
    }

    /// The report in one line, followed by one line for each k of best@k.
    pub fn line(&self) -> String {
        let frame = self.frame.name();
        let (iou, [low, high], valid) = self.report.iou.get(&self.frame).copied().unwrap_or_default();
        let mut text = format!(
            "{} parts: VSR {:.3}, IoU ({frame}) over all {iou:.3} [{low:.3}, {high:.3}], over valid {valid:.3}, in {}",
            self.report.n,
            self.report.vsr,
            duration(self.seconds)
        );
        for at in &self.report.at_k {
            let (best, [low, high]) = at.best;
            text += &format!("\n  k = {:<3} best IoU {best:.3} [{low:.3}, {high:.3}]  pass", at.k);
            for (threshold, mean, _) in &at.pass {
                text += &format!("  {mean:.3} (IoU >= {threshold})");
            }
        }
        text
    }
}
