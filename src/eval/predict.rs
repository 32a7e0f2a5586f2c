//! Generates programs for a set of pictures and scores them. Validation, final evaluation and PPO
//! share this code.

use anyhow::Result;
use cadwright_rewards::program::extract_program;
use cadwright_rollout::{GroundTruth, Report, ReportBuilder, Score, ScoreBatch, ScoreRequest, Scorer};
use tch::Tensor;

use crate::data::Dataset;
use crate::generate::{Completion, PromptInput, Sampling, generate, generate_with_states};
use crate::model::{InternVl, Prompt, Tokenizer};
use crate::pictures::Pictures;
use crate::seeds::seed;

/// A program that the model wrote, with its score.
pub struct Prediction {
    /// The dataset's id of the part.
    pub id: String,
    /// Index in the dataset.
    pub index: usize,
    /// The program, extracted from the completion.
    pub program: String,
    /// Whether the completion was cut off at `max_new_tokens`.
    pub truncated: bool,
    /// Outcome, IoU and reward.
    pub score: Score,
}

/// A data set with the prompt that a model is asked about each of its pictures.
pub struct PromptedDataset<'a> {
    /// The parts.
    pub dataset: &'a Dataset,
    /// Their pictures.
    pub pictures: &'a Pictures<'a>,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl PromptedDataset<'_> {
    /// The token ids before the completion, for the picture at `index`.
    pub fn prompt_ids(&self, model: &InternVl, index: usize) -> Vec<i64> {
        self.tokenizer.encode(&self.prompt.text(self.pictures.image_tokens(model, index)))
    }

    /// The ground truth of the part at `index`.
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

/// The completions that a policy wrote, while they are being scored.
pub struct Generated<'a> {
    /// One prompt for each picture.
    pub prompts: Vec<PromptInput>,
    /// The completions of the first picture, then those of the second, and so on.
    pub completions: Vec<Completion>,
    /// For each completion, the states `[tokens, hidden]` from which its tokens were chosen; empty
    /// unless [`GenerateOptions::keeps_states`] is set.
    pub states: Vec<Tensor>,
    /// The pending scores, in the order of the completions.
    pub batch: ScoreBatch<'a>,
}

/// How programs are generated.
#[derive(Debug, Clone, Copy)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Completions generated at the same time.
    pub batch_size: usize,
    /// Returns the states, which a critic needs.
    pub keeps_states: bool,
}

/// Completes each prompt `seeds.len() / indices.len()` times and submits each completion for
/// scoring as soon as it ends.
pub fn generate_and_score<'a>(
    model: &InternVl,
    prompted: &PromptedDataset,
    indices: &[usize],
    seeds: &[u64],
    options: GenerateOptions,
    scorer: &'a Scorer,
) -> Generated<'a> {
    let samples = seeds.len() / indices.len().max(1);
    let prompts = prompted.inputs(model, indices);
    let mut batch = scorer.batch();
    let on_done = |i: usize, completion: &Completion| {
        batch.submit(
            i,
            ScoreRequest {
                prediction: extract_program(&prompted.tokenizer.decode(&completion.tokens)),
                ground_truth: prompted.ground_truth(indices[i / samples]).clone(),
                truncated: completion.truncated,
            },
        );
    };
    let GenerateOptions { sampling, batch_size, keeps_states } = options;
    let (completions, states) = match keeps_states {
        true => generate_with_states(model, prompted.tokenizer, &prompts, seeds, sampling, batch_size, on_done),
        false => (generate(model, prompted.tokenizer, &prompts, seeds, sampling, batch_size, on_done), Vec::new()),
    };
    Generated { prompts, completions, states, batch }
}

/// How a model is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Completions generated for each part.
    pub samples: usize,
    /// Completions generated at the same time.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
}

/// Generates and scores `options.samples` completions for each part in `indices`. Predictions are
/// in the order of `indices`.
///
/// # Errors
/// The scorer cannot continue.
pub fn evaluate(
    model: &InternVl,
    prompted: &PromptedDataset,
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
        let options =
            GenerateOptions { sampling: options.sampling, batch_size: options.batch_size, keeps_states: false };
        let Generated { completions, batch, .. } = generate_and_score(model, prompted, chunk, &seeds, options, scorer);
        let written = chunk.iter().flat_map(|index| std::iter::repeat_n(index, samples)).zip(completions);
        for ((&index, completion), score) in written.zip(batch.finish()?) {
            let program = extract_program(&prompted.tokenizer.decode(&completion.tokens));
            let id = prompted.dataset.examples()[index].id.clone();
            predictions.push(Prediction { id, index, program, truncated: completion.truncated, score });
        }
        on_progress(predictions.len() / samples);
    }
    Ok(predictions)
}

/// The statistics of predictions that `scorer` scored, `samples` for each part one after another. `thresholds` are IoUs for
/// pass@k; `seconds` is the wall time.
pub fn report(predictions: &[Prediction], scorer: &Scorer, samples: usize, thresholds: &[f64], seconds: f64) -> Report {
    let mut builder = ReportBuilder::new(scorer.config(), samples, thresholds);
    predictions.iter().for_each(|prediction| builder.add(&prediction.score, prediction.truncated));
    builder.finish(seconds)
}

/// Keeps the seeds of evaluation distinct from those of training.
const EVAL_STREAM: u64 = 0xe7a1;
