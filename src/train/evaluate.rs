//! Generates programs for a set of pictures and scores them: the same way in validation, final evaluation and PPO.

use std::collections::BTreeMap;

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rewards::program::extract_program;
use cadwright_rewards::stats::{best_at_k, bootstrap_ci95, mean, pass_at_k};
use cadwright_rollout::{Batch, GroundTruth, Score, ScoreRequest, Scorer};
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::pictures::Pictures;
use super::schedule::seed;
use crate::data::Dataset;
use crate::generate::{Completion, PromptInput, Sampling, generate, generate_with_states};
use crate::model::{InternVl, Prompt, Tokenizer};

/// A program that the model wrote, and what it is worth.
pub struct Prediction {
    /// The dataset's id of the part.
    pub id: String,
    /// Index in the dataset.
    pub index: usize,
    /// The program, taken out of the completion.
    pub program: String,
    /// Whether the completion was cut off.
    pub truncated: bool,
    /// Outcome, IoU and reward.
    pub score: Score,
}

/// Pictures with their programs, and how a model is asked about them.
pub struct Questions<'a> {
    /// The parts.
    pub dataset: &'a Dataset,
    /// Their pictures.
    pub pictures: &'a Pictures<'a>,
    /// What is asked.
    pub prompt: &'a Prompt,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl Questions<'_> {
    /// The token ids before the completion, for the picture at `index`.
    pub fn prompt_ids(&self, model: &InternVl, index: usize) -> Vec<i64> {
        self.tokenizer.encode(&self.prompt.text(self.pictures.image_tokens(model, index)))
    }

    /// What the part at `index` is.
    pub fn ground_truth(&self, index: usize) -> &GroundTruth {
        &self.dataset.examples()[index].ground_truth
    }

    /// Prompts with embedded pictures, without gradients.
    pub fn inputs(&self, model: &InternVl, indices: &[usize]) -> Vec<PromptInput> {
        let images = self.pictures.embed(model, indices);
        let input = |(&index, image)| PromptInput { ids: self.prompt_ids(model, index), image };
        indices.iter().zip(images).map(input).collect()
    }
}

/// What a policy wrote, while it is being scored.
pub struct Written<'a> {
    /// One for each picture.
    pub prompts: Vec<PromptInput>,
    /// Those of a picture one after another.
    pub completions: Vec<Completion>,
    /// What each token of each completion was chosen from, if asked for.
    pub states: Vec<Tensor>,
    /// Their scores to come, in the same order.
    pub batch: Batch<'a>,
}

/// How programs are written.
#[derive(Debug, Clone, Copy)]
pub struct Writing {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Completions written at the same time.
    pub batch_size: usize,
    /// Keep the states, for a critic.
    pub keeps_states: bool,
}

/// Completes each prompt `seeds.len() / indices.len()` times and scores each completion the moment it ends.
pub fn write_and_score<'a>(
    model: &InternVl,
    questions: &Questions,
    indices: &[usize],
    seeds: &[u64],
    writing: Writing,
    scorer: &'a Scorer,
) -> Written<'a> {
    let samples = seeds.len() / indices.len().max(1);
    let prompts = questions.inputs(model, indices);
    let mut batch = scorer.batch();
    let on_done = |i: usize, completion: &Completion| {
        batch.submit(
            i,
            ScoreRequest {
                prediction: extract_program(&questions.tokenizer.decode(&completion.tokens)),
                ground_truth: questions.ground_truth(indices[i / samples]).clone(),
                truncated: completion.truncated,
            },
        );
    };
    let Writing { sampling, batch_size, keeps_states } = writing;
    let (completions, states) = match keeps_states {
        true => generate_with_states(model, questions.tokenizer, &prompts, seeds, sampling, batch_size, on_done),
        false => (generate(model, questions.tokenizer, &prompts, seeds, sampling, batch_size, on_done), Vec::new()),
    };
    Written { prompts, completions, states, batch }
}

/// How a model is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Completions written for each part.
    pub samples: usize,
    /// Completions written at the same time.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
}

/// `options.samples` completions for each part in `indices`, scored, in their order.
///
/// # Errors
/// The scorer cannot go on.
pub fn evaluate(
    model: &InternVl,
    questions: &Questions,
    indices: &[usize],
    scorer: &Scorer,
    options: EvalOptions,
    mut on_progress: impl FnMut(usize),
) -> Result<Vec<Prediction>> {
    let samples = options.samples.max(1);
    let mut predictions = Vec::with_capacity(indices.len() * samples);
    let seed_of = |index: usize, sample: usize| match sample {
        0 => seed(&[options.seed, EVAL_STREAM, index as u64]),
        _ => seed(&[options.seed, EVAL_STREAM, index as u64, sample as u64]),
    };
    for chunk in indices.chunks((options.batch_size / samples).max(1)) {
        let seeds: Vec<u64> =
            chunk.iter().flat_map(|&index| (0..samples).map(move |sample| seed_of(index, sample))).collect();
        let writing = Writing { sampling: options.sampling, batch_size: options.batch_size, keeps_states: false };
        let Written { completions, batch, .. } = write_and_score(model, questions, chunk, &seeds, writing, scorer);
        let written = chunk.iter().flat_map(|index| std::iter::repeat_n(index, samples)).zip(completions);
        for ((&index, completion), score) in written.zip(batch.finish()?) {
            let program = extract_program(&questions.tokenizer.decode(&completion.tokens));
            let id = questions.dataset.examples()[index].id.clone();
            predictions.push(Prediction { id, index, program, truncated: completion.truncated, score });
        }
        on_progress(predictions.len() / samples);
    }
    Ok(predictions)
}

/// Sets the seeds of evaluation apart from those of training.
const EVAL_STREAM: u64 = 0xe7a1;

/// What the best of several samples of a part is worth, in the first frame. Estimates are unbiased; intervals are over parts.
#[derive(Debug, Clone)]
pub struct AtK {
    /// Samples.
    pub k: usize,
    /// Expected best IoU of `k` samples, and its 95 % interval.
    pub best: (f64, [f64; 2]),
    /// By threshold: the chance that one of `k` samples has an IoU of at least that, and its 95 % interval.
    pub pass: Vec<(f64, f64, [f64; 2])>,
}

/// Counts and means over predictions.
#[derive(Debug, Clone)]
pub struct Report {
    /// Parts.
    pub n: usize,
    /// Predictions for each part. Means are over all of them, intervals over parts.
    pub samples: usize,
    /// For k = 1, 2, 4, ... samples, where there are several.
    pub at_k: Vec<AtK>,
    /// Valid syntax rate: the share whose outcome is a solid.
    pub vsr: f64,
    /// 95 % bootstrap interval of it.
    pub vsr_ci95: [f64; 2],
    /// By frame: mean IoU over all predictions, failures counted as 0; its 95 % interval; mean over the valid ones.
    pub iou: BTreeMap<Frame, (f64, [f64; 2], f64)>,
    /// Mean reward.
    pub reward: f64,
    /// Predictions of each outcome class.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Completions that were cut off.
    pub truncated: usize,
}

const RESAMPLES: usize = 2000;

fn at_k(predictions: &[Prediction], samples: usize, frame: Frame, thresholds: &[f64]) -> Vec<AtK> {
    let parts: Vec<Vec<f64>> =
        predictions.chunks(samples).map(|part| part.iter().map(|p| p.score.iou_in(frame)).collect()).collect();
    let over_parts = |of: &dyn Fn(&[f64]) -> f64| {
        let values: Vec<f64> = parts.iter().map(|part| of(part)).collect();
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
    /// The report of these predictions, `samples` for each part one after another, with each of `frames` by name.
    pub fn new(predictions: &[Prediction], samples: usize, frames: &[Frame], thresholds: &[f64]) -> Self {
        // A part's samples are no independent observations: intervals are over the means of parts.
        let by_part = |of: &dyn Fn(&Prediction) -> f64| -> Vec<f64> {
            predictions.chunks(samples).map(|part| part.iter().map(of).sum::<f64>() / part.len() as f64).collect()
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
        let of = |at: &AtK| {
            let pass: Map<String, Value> = at
                .pass
                .iter()
                .map(|(threshold, mean, ci95)| (threshold.to_string(), json!({"mean": mean, "ci95": ci95})))
                .collect();
            (at.k.to_string(), json!({"best_iou": at.best.0, "best_iou_ci95": at.best.1, "pass": pass}))
        };
        Value::Object(self.at_k.iter().map(of).collect())
    }

    /// Mean IoU over all predictions in `frame`.
    pub fn iou_in(&self, frame: Frame) -> f64 {
        self.iou.get(&frame).map_or(0.0, |(mean, ..)| *mean)
    }

    /// As in `summary.json`: `vsr`, `iou` and `iou_ci95` in `frame`, and the rest.
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
