//! Generates programs for a set of pictures and scores them: the same way in validation, final evaluation and PPO.

use std::collections::BTreeMap;

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rewards::program::extract_program;
use cadwright_rewards::stats::{bootstrap_ci95, mean};
use cadwright_rollout::{Batch, Score, ScoreRequest, Scorer};
use serde_json::{Map, Value, json};

use super::pictures::Pictures;
use super::schedule::seed;
use crate::data::Dataset;
use crate::generate::{Completion, PromptInput, Sampling, generate};
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

    /// The ground-truth program of the part at `index`.
    pub fn program(&self, index: usize) -> &str {
        &self.dataset.examples()[index].program
    }

    /// Prompts with embedded pictures. The vision tower is taken as frozen.
    pub fn inputs(&self, model: &InternVl, indices: &[usize]) -> Vec<PromptInput> {
        let images = self.pictures.embed(model, indices);
        let input = |(&index, image)| PromptInput { ids: self.prompt_ids(model, index), image };
        indices.iter().zip(images).map(input).collect()
    }
}

/// Completes each prompt `seeds.len() / indices.len()` times and scores each completion the moment it ends.
pub fn write_and_score<'a>(
    model: &InternVl,
    questions: &Questions,
    indices: &[usize],
    seeds: &[u64],
    sampling: Sampling,
    batch_size: usize,
    scorer: &'a Scorer,
) -> (Vec<PromptInput>, Vec<Completion>, Batch<'a>) {
    let samples = seeds.len() / indices.len().max(1);
    let inputs = questions.inputs(model, indices);
    let mut batch = scorer.batch();
    let completions = generate(model, questions.tokenizer, &inputs, seeds, sampling, batch_size, |i, completion| {
        batch.submit(
            i,
            ScoreRequest {
                prediction: extract_program(&questions.tokenizer.decode(&completion.tokens)),
                ground_truth: questions.program(indices[i / samples]).into(),
                truncated: completion.truncated,
            },
        );
    });
    (inputs, completions, batch)
}

/// How a model is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Completions written at the same time.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
}

/// One completion for each part in `indices`, scored, in their order.
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
    let mut predictions = Vec::with_capacity(indices.len());
    for chunk in indices.chunks(options.batch_size) {
        let seeds: Vec<u64> = chunk.iter().map(|&index| seed(&[options.seed, EVAL_STREAM, index as u64])).collect();
        let (_, completions, batch) =
            write_and_score(model, questions, chunk, &seeds, options.sampling, options.batch_size, scorer);
        for ((&index, completion), score) in chunk.iter().zip(completions).zip(batch.finish()?) {
            let program = extract_program(&questions.tokenizer.decode(&completion.tokens));
            let id = questions.dataset.examples()[index].id.clone();
            predictions.push(Prediction { id, index, program, truncated: completion.truncated, score });
        }
        on_progress(predictions.len());
    }
    Ok(predictions)
}

/// Sets the seeds of evaluation apart from those of training.
const EVAL_STREAM: u64 = 0xe7a1;

/// Counts and means over predictions.
#[derive(Debug, Clone)]
pub struct Report {
    /// Predictions.
    pub n: usize,
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

impl Report {
    /// The report of these predictions, with each of `frames` by name.
    pub fn new(predictions: &[Prediction], frames: &[Frame]) -> Self {
        let is_valid: Vec<f64> = predictions.iter().map(|p| f64::from(p.score.verdict.is_valid())).collect();
        let frame = |&frame: &Frame| {
            let all: Vec<f64> = predictions.iter().map(|p| p.score.iou_in(frame)).collect();
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
            n: predictions.len(),
            vsr: mean(&is_valid),
            vsr_ci95: bootstrap_ci95(&is_valid, RESAMPLES, 0),
            iou: frames.iter().map(frame).collect(),
            reward: mean(&rewards),
            outcomes,
            truncated: predictions.iter().filter(|p| p.truncated).count(),
        }
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
            "iou_valid": iou_valid, "frames": frames, "reward": self.reward, "outcomes": outcomes,
            "truncated": self.truncated,
        })
    }
}
