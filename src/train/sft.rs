//! Supervised fine-tuning: cross-entropy on the ground-truth programs, validated by what the programs build.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Kind, Tensor};

use super::Stage;
use super::checkpoint::{self, CheckpointPart};
use super::forward::{Pass, PassMode, TokenBatch, narrowed};
use super::losses::cross_entropy;
use super::optim::{Optimizer, OptimizerConfig};
use super::schedule::{LearningRate, progress};
use super::validation::{Best, validate};
use crate::config::Sft;
use crate::eval::predict::PromptedDataset;
use crate::files::write_whole;
use crate::model::{InternVl, Tokenizer};
use crate::pictures::Pictures;
use crate::seeds::seed;
use crate::telemetry::Telemetry;

/// A training example in tokens.
#[derive(Clone)]
pub(super) struct TokenizedExample {
    /// In the dataset.
    pub index: usize,
    pub prompt: Arc<[i64]>,
    pub response: Vec<i64>,
}

impl TokenizedExample {
    /// Row `index` of the dataset, with `response` as what should be said of it.
    pub fn new(prompted: &PromptedDataset, model: &InternVl, index: usize, response: Vec<i64>) -> Self {
        let image_tokens = prompted.pictures.image_tokens(model, index);
        let prompt = prompted.tokenizer.encode(&prompted.prompt.text(image_tokens)).into();
        Self { index, prompt, response }
    }

    /// Tokens of prompt and response.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }
}

/// Where a stage is: everything besides tensors that a checkpoint keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SftState {
    step: usize,
    best: Best,
    seconds: f64,
}

/// The response to `program`: its tokens and the end of the turn.
pub fn response_ids(tokenizer: &Tokenizer, program: &str) -> Vec<i64> {
    let mut ids = tokenizer.encode(program);
    ids.push(tokenizer.end_of_turn);
    ids
}

/// Trains `model` as `sft` has it and leaves the best checkpoint by validation IoU in `<run>/<name>/best` and the last one in
/// `<run>/<name>/last`. A killed stage goes on from its last checkpoint.
///
/// # Errors
/// A directory that cannot be written, a checkpoint of another model, or a scorer that cannot go on.
pub fn train(stage: &Stage, name: &'static str, sft: &Sft, model: &mut InternVl) -> Result<()> {
    let Stage { config, train, run_dir, .. } = stage;
    let cache_mib = if model.trains_vision() { 0 } else { config.model.vision_cache_mib };
    let pictures = Pictures::new(train, config.model.max_tiles, cache_mib);
    let prompted = stage.prompted(train, &pictures);

    let (examples, too_long) = examples(&prompted, model, sft.max_length);
    ensure!(!examples.is_empty(), "no training row has a program that fits sft.max_length = {}", sft.max_length);
    if too_long > 0 {
        eprintln!(
            "{name}: {too_long} examples are longer than sft.max_length = {} tokens and are left out",
            sft.max_length
        );
    }
    let per_step = sft.batch_size * sft.gradient_accumulation;
    let steps_per_epoch = examples.len().div_ceil(per_step);
    let steps = match sft.max_steps {
        0 => (sft.epochs * steps_per_epoch as f64).ceil() as usize,
        max_steps => max_steps,
    };
    let schedule = LearningRate {
        peak: sft.learning_rate,
        warmup_steps: sft.warmup_steps,
        hold: sft.hold,
        final_lr: sft.final_lr,
    };
    let optimizer_config = OptimizerConfig {
        kind: sft.optimizer,
        weight_decay: sft.weight_decay,
        betas: sft.betas,
        max_grad_norm: sft.max_grad_norm,
    };
    let mut optimizer = Optimizer::new(model.weights(), optimizer_config);

    let directory = run_dir.join(name);
    let checkpoint_dir = directory.join("checkpoint");
    let mut state = SftState { step: 0, best: Best::default(), seconds: 0.0 };
    if let Some(saved) = checkpoint::load::<SftState>(&checkpoint_dir, &mut parts(model, &mut optimizer))? {
        state = saved;
        eprintln!("{name}: goes on at step {}", state.step);
    }
    let mut telemetry = Telemetry::open(run_dir, name, state.step, steps)?.within(sft.max_seconds);
    let started = Instant::now();
    let seconds_before = state.seconds;
    let run_seed = u64::from(config.run.seed);

    let mut order = (usize::MAX, Vec::new());
    while state.step < steps {
        let progress_before = progress(state.step, steps, state.seconds, sft.max_seconds);
        let step_started = Instant::now();
        let (epoch, position) = (state.step / steps_per_epoch, state.step % steps_per_epoch);
        if order.0 != epoch {
            order = (
                epoch,
                bucketed_batches(&examples, per_step, sft.batch_size, seed(&[run_seed, SFT_STREAM, epoch as u64])),
            );
        }
        let micro_batches = &order.1[position];
        let targets: usize = micro_batches.iter().flatten().map(|&i| examples[i].response.len()).sum();
        let (mut loss_sum, mut tokens) = (0.0, 0);
        for (micro, indices) in micro_batches.iter().enumerate() {
            let mode = PassMode {
                train: true,
                gradient_checkpointing: config.model.gradient_checkpointing,
                seed: seed(&[run_seed, SFT_STREAM, state.step as u64, micro as u64]),
            };
            let sequences = indices.iter().map(|&i| (&examples[i].prompt[..], examples[i].response.as_slice()));
            let batch = TokenBatch::new(sequences, prompted.tokenizer, model.device());
            let rows: Vec<usize> = indices.iter().map(|&i| examples[i].index).collect();
            let embedded = pictures.embed_for_update(model, &rows, &BTreeMap::new());
            let image = embedded.concatenated(rows.iter().copied());
            let pass = Pass::new(model, &batch, &image, prompted.tokenizer.image_token, mode);
            // The mean over the step's response tokens, however they fall into micro-batches.
            let share = batch.targets.size1()? as f64 / targets as f64;
            let mean = pass.backward(share, |logits, rows, _| cross_entropy(logits, &narrowed(&batch.targets, &rows)));
            embedded.backward();
            loss_sum += mean * share;
            tokens += batch.tokens;
        }
        let learning_rate = schedule.at(state.step, progress_before);
        let grad_norm = optimizer.step(learning_rate);
        ensure!(
            loss_sum.is_finite(),
            "{name}: the loss is {loss_sum} at step {}; lower sft.learning_rate = {} or use model.dtype = \"f32\"",
            state.step,
            sft.learning_rate
        );
        let seconds = step_started.elapsed().as_secs_f64();
        state.seconds = seconds_before + started.elapsed().as_secs_f64();
        let mut numbers = vec![
            ("loss", loss_sum),
            ("lr", learning_rate),
            ("grad_norm", grad_norm),
            ("tokens_per_second", tokens as f64 / seconds),
            ("seconds", state.seconds),
        ];
        state.step += 1;
        let progress_after = progress(state.step, steps, state.seconds, sft.max_seconds);
        let is_last = progress_after == 1.0;
        let line = format!("loss {loss_sum:.3}  lr {learning_rate:.1e}  {:.0} tokens/s", tokens as f64 / seconds);
        telemetry.say(state.step - 1, progress_after, &line);
        if is_last || state.step.is_multiple_of(sft.validate_every) {
            let loss = validation_loss(stage, &model.frozen_copy());
            let best = &mut state.best;
            let best_dir = directory.join("best");
            let report = validate(stage, model, sft.validation_samples, state.step, best, &best_dir, &mut telemetry)?;
            let iou = report.iou;
            numbers.extend([("val_loss", loss), ("val_vsr", report.vsr), ("val_iou", iou)]);
            let line = format!("validation: loss {loss:.3}  VSR {:.3}  IoU {iou:.3}", report.vsr);
            telemetry.note_step(state.step - 1, progress_after, &line);
        }
        telemetry.record(state.step - 1, &numbers)?;
        if state.step.is_multiple_of(sft.checkpoint_every) && !is_last {
            checkpoint::save(&checkpoint_dir, &parts(model, &mut optimizer), &state)?;
        }
        if is_last {
            break;
        }
    }
    finish(
        stage,
        name,
        model,
        &json!({"steps": state.step, "val_iou": state.best.iou, "best_step": state.best.step, "seconds": state.seconds}),
    )
}

fn parts<'a>(model: &'a mut InternVl, optimizer: &'a mut Optimizer) -> [CheckpointPart<'a>; 1] {
    [CheckpointPart { name: "policy", weights: model.weights_mut(), optimizer }]
}

/// Keeps the policy as the stage leaves it, marks the stage as done, and drops what only an interrupted one needs.
pub(super) fn finish(stage: &Stage, name: &str, policy: &InternVl, result: &serde_json::Value) -> Result<()> {
    let directory = stage.run_dir.join(name);
    stage.save_policy(policy, &directory.join("last"))?;
    write_whole(&directory.join("result.json"), &format!("{result:#}\n"))?;
    let checkpoint = directory.join("checkpoint");
    if checkpoint.exists() {
        std::fs::remove_dir_all(&checkpoint).with_context(|| format!("cannot remove {}", checkpoint.display()))?;
    }
    Ok(())
}

/// Sets the seeds of SFT apart from those of other stages.
const SFT_STREAM: u64 = 0x5f7;

/// The rows with programs in tokens, and how many of them are longer than `max_length` and left out.
pub(super) fn examples(
    prompted: &PromptedDataset,
    model: &InternVl,
    max_length: usize,
) -> (Vec<TokenizedExample>, usize) {
    let tokenizer = prompted.tokenizer;
    let responses: Vec<(usize, Vec<i64>)> = prompted
        .dataset
        .examples()
        .par_iter()
        .enumerate()
        .filter_map(|(index, example)| Some((index, response_ids(tokenizer, example.program.as_deref()?))))
        .collect();
    // Pictures of as many tiles have the same prompt.
    let mut prompts: HashMap<usize, Arc<[i64]>> = HashMap::new();
    let mut examples = Vec::with_capacity(responses.len());
    for (index, response) in responses {
        let image_tokens = prompted.pictures.image_tokens(model, index);
        let prompt =
            prompts.entry(image_tokens).or_insert_with(|| tokenizer.encode(&prompted.prompt.text(image_tokens)).into());
        examples.push(TokenizedExample { index, prompt: prompt.clone(), response });
    }
    let all = examples.len();
    examples.retain(|example| example.len() <= max_length);
    let too_long = all - examples.len();
    (examples, too_long)
}

/// An epoch in random order, as steps of micro-batches. Neighbours in length share a micro-batch, so that little is
/// padding; which lengths come when stays random.
fn bucketed_batches(
    examples: &[TokenizedExample],
    per_step: usize,
    batch_size: usize,
    seed: u64,
) -> Vec<Vec<Vec<usize>>> {
    const STEPS_PER_BUCKET: usize = 16;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut rng);
    let mut steps: Vec<Vec<Vec<usize>>> = Vec::new();
    for bucket in order.chunks_mut(per_step * STEPS_PER_BUCKET) {
        bucket.sort_by_key(|&i| examples[i].len());
        steps.extend(bucket.chunks(per_step).map(|step| step.chunks(batch_size).map(<[usize]>::to_vec).collect()));
    }
    steps.shuffle(&mut rng);
    steps
}

/// Mean cross-entropy over the response tokens of the validation parts that have programs.
fn validation_loss(stage: &Stage, model: &InternVl) -> f64 {
    let sft = &stage.config.sft;
    let pictures = Pictures::new(stage.validation, stage.config.model.max_tiles, 0);
    let prompted = stage.prompted(stage.validation, &pictures);
    let program = |index: usize| stage.validation.examples()[index].program.as_deref();
    let parts = 0..stage.validation.len().min(sft.validation_samples);
    let indices: Vec<usize> = parts.filter(|&index| program(index).is_some()).collect();
    let (mut sum, mut count) = (0.0, 0);
    for chunk in indices.chunks(sft.batch_size) {
        tch::no_grad(|| {
            let inputs = prompted.inputs(model, chunk);
            let responses: Vec<Vec<i64>> =
                chunk.iter().map(|&index| response_ids(prompted.tokenizer, program(index).unwrap_or(""))).collect();
            let sequences =
                inputs.iter().zip(&responses).map(|(input, response)| (input.ids.as_slice(), response.as_slice()));
            let batch = TokenBatch::new(sequences, prompted.tokenizer, model.device());
            let image = Tensor::cat(&inputs.iter().map(|input| &input.image).collect::<Vec<_>>(), 0);
            let pass = Pass::new(model, &batch, &image, prompted.tokenizer.image_token, PassMode::default());
            sum -= pass.logprobs(&batch.targets, 1.0).sum(Kind::Double).double_value(&[]);
            count += batch.targets.numel();
        });
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_example_once_and_batches_of_like_length() {
        let example =
            |index| TokenizedExample { index, prompt: vec![0; 3].into(), response: vec![0; 1 + index * 7 % 40] };
        let examples: Vec<_> = (0..130).map(example).collect();
        let steps = bucketed_batches(&examples, 8, 4, 7);
        assert_eq!(steps.len(), 17);
        let mut seen: Vec<usize> = steps.iter().flatten().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..130).collect::<Vec<_>>());
        let padding: usize = steps
            .iter()
            .flatten()
            .map(|batch| {
                let longest = batch.iter().map(|&i| examples[i].len()).max().unwrap();
                batch.iter().map(|&i| longest - examples[i].len()).sum::<usize>()
            })
            .sum();
        assert!(padding < 130, "{padding} tokens of padding");
        assert_eq!(steps, bucketed_batches(&examples, 8, 4, 7));
        assert_ne!(steps, bucketed_batches(&examples, 8, 4, 8));
    }
}
