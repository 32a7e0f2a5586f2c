//! Supervised fine-tuning: cross-entropy on the ground-truth programs, as first answers or as
//! corrections of the policy's own drafts, validated by the solids that the policy's programs
//! build.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::absurd;
use super::checkpoint::{self, CheckpointPart};
use super::drafts::with_drafts;
use super::examples::{
    TokenizedExample, TokenizedRows, cross_entropy_backward, length_bucketed_batches, response_ids, response_tokens,
    tokenized_examples,
};
use super::forward::{Pass, PassMode, TokenBatch};
use super::gates;
use super::metrics::StepNumbers;
use super::optim::{Optimizer, SkippedUpdates};
use super::shards::Shard;
use super::training_loop::{LoopConfig, Position, TrainingLoop};
use super::{Stage, stream};
use crate::config::Sft;
use crate::distributed::World;
use crate::model::InternVl;
use crate::pictures::Pictures;
use crate::rollouts::PromptedDataset;
use crate::seeds::seed;

/// The content of a checkpoint besides tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SftState {
    #[serde(flatten)]
    position: Position,
    #[serde(default)]
    skipped: SkippedUpdates,
}

/// Trains `model` with the settings `sft`. Leaves the best checkpoint by validation IoU in
/// `<run>/<name>/best` and the last one in `<run>/<name>/last`. A killed stage goes on from its
/// last checkpoint.
///
/// # Errors
/// No row has a program, a directory cannot be written, a checkpoint is of another model, the
/// scorer cannot go on, or several gradients in a row are not finite.
pub fn train(stage: &Stage, name: &'static str, sft: &Sft, model: &mut InternVl) -> Result<()> {
    let Stage { config, world, train, run_dir, .. } = stage;
    let pictures = stage.training_pictures(model);
    let prompted = stage.prompted(train, &pictures);
    let examples = examples_that_fit(stage, name, sft, &prompted, model)?;
    let per_step = sft.batch_size * sft.gradient_accumulation;
    let steps_per_epoch = examples.len().div_ceil(per_step);
    let steps = match sft.max_steps {
        0 => (sft.epochs * steps_per_epoch as f64).ceil() as usize,
        max_steps => max_steps,
    };
    let loop_config = LoopConfig::sft(sft, steps);
    let shard = Shard::of(world, config.distributed.shard_optimizer);
    let mut optimizer = Optimizer::sharded(model.weights(), loop_config.optimizer, shard);
    let mut state = SftState::default();
    let checkpoint_dir = run_dir.join(name).join("checkpoint");
    if let Some(saved) = checkpoint::load(world, &checkpoint_dir, &mut parts(model, &mut optimizer))? {
        state = saved;
        world.say(&format!("{name}: goes on at step {}", state.position.step));
    }
    state.position.best = state.position.best.or_stored(&run_dir.join(name).join("best"));
    let mut training = TrainingLoop::new(stage, name, loop_config, &state.position)?;
    if state.position.step == 0 {
        gates::before_training(stage, model, false)?;
    }
    let run_seed = u64::from(config.run.seed);

    let mut order = (usize::MAX, Vec::new());
    while let Some(rates) = training.begin_step(&state.position) {
        let started = Instant::now();
        let step = state.position.step;
        let (epoch, batch) = (step / steps_per_epoch, step % steps_per_epoch);
        if order.0 != epoch {
            let seed = epoch_seed(name, run_seed, epoch);
            order = (epoch, length_bucketed_batches(&examples, per_step, sft.batch_size, seed));
        }
        let dropout_seed = |&i: &usize| seed(&[run_seed, stream(name), step as u64, examples[i].index as u64]);
        let mode = |indices: &[usize]| PassMode {
            gradient_checkpointing: config.model.gradient_checkpointing,
            dropout_seeds: Some(indices.iter().map(dropout_seed).collect()),
        };
        let own = share(world, &order.1[batch], sft.batch_size);
        let all_tokens = response_tokens(order.1[batch].iter().flatten().map(|&i| &examples[i]));
        let (loss, tokens) = backward(model, &prompted, &examples, &own, all_tokens, mode);
        let [loss, tokens] = world.sum("the loss", [loss, tokens as f64])?;
        let grad_norm = optimizer.step(world, rates.learning_rate)?;
        if !grad_norm.is_finite() {
            let which = (name, step, state.skipped.total + 1);
            let reason = format!("the gradient's norm is {grad_norm}");
            let batch = order.1[batch].iter().flatten().map(|&i| absurd::described_example(&examples[i])).collect();
            let numbers = [("loss", loss), ("grad_norm", grad_norm)].into_iter();
            absurd::dump(world, run_dir, which, &reason, numbers, batch);
        }
        state.skipped.count(grad_norm, "sft.learning_rate", sft.learning_rate)?;
        let tokens_per_second = tokens / started.elapsed().as_secs_f64();
        training.end_update(&mut state.position)?;

        let mut numbers = StepNumbers::default();
        numbers.extend([
            ("loss", loss),
            ("lr", rates.learning_rate),
            ("grad_norm", grad_norm),
            ("skipped_updates", state.skipped.total as f64),
            ("tokens_per_second", tokens_per_second),
            ("seconds", state.position.seconds),
        ]);
        let line = format!("loss {loss:.3}  lr {:.1e}  {tokens_per_second:.0} tokens/s", rates.learning_rate);
        let validation_loss = || validation_loss(stage, &model.frozen_copy());
        training.log_step(&mut state.position, model, &line, numbers, Some(&validation_loss))?;
        training.end_step(&state.position, || {
            let (step, parts) = (state.position.step, parts(model, &mut optimizer));
            checkpoint::save(world, &checkpoint_dir, step, config.run.keep_last, &parts, &state)
        })?;
    }
    training.finish(&state.position, model)
}

fn parts<'a>(model: &'a mut InternVl, optimizer: &'a mut Optimizer) -> [CheckpointPart<'a>; 1] {
    [CheckpointPart { name: "policy", weights: model.weights_mut(), optimizer }]
}

/// The rows with programs that fit `sft.max_length`, as first answers and, with `sft.turns = 2`, as
/// corrections of drafts that `model` samples; says how many are left out.
fn examples_that_fit(
    stage: &Stage,
    name: &str,
    sft: &Sft,
    prompted: &PromptedDataset,
    model: &InternVl,
) -> Result<Vec<TokenizedExample>> {
    let max_length = sft.max_length;
    let TokenizedRows { mut examples, mut too_long, without_plan } = tokenized_examples(prompted, model, max_length);
    if without_plan > 0 {
        stage.world.warn(&format!("{name}: {without_plan} programs have no plan and are left out"));
    }
    if sft.turns > 1 {
        let mut drafted = with_drafts(stage, prompted, model, &examples)?;
        let all = drafted.len();
        stage.world.say(&format!("{name}: {all} drafts to correct"));
        drafted.retain(|example| example.sequence_len() <= max_length);
        too_long += all - drafted.len();
        examples = if sft.first_turn { [examples, drafted].concat() } else { drafted };
    }
    let plan = if prompted.prompt.expects_plan() { "with a plan " } else { "" };
    ensure!(!examples.is_empty(), "no training row has a program {plan}that fits sft.max_length = {max_length}");
    if too_long > 0 {
        let line = "examples are longer than sft.max_length =";
        stage.world.warn(&format!("{name}: {too_long} {line} {max_length} tokens and are left out"));
    }
    Ok(examples)
}

/// Seed of the order of an epoch's examples.
pub(super) fn epoch_seed(stage: &str, run_seed: u64, epoch: usize) -> u64 {
    seed(&[run_seed, stream(stage), epoch as u64])
}

/// This rank's share of a step's examples, in micro-batches. The examples are sorted by length, so
/// that the shares are alike.
fn share(world: &World, micro_batches: &[Vec<usize>], batch_size: usize) -> Vec<Vec<usize>> {
    let own: Vec<usize> = world.share(&micro_batches.concat()).copied().collect();
    own.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Adds the gradients of this rank's part of a step's loss, which is the mean over the step's
/// `all_tokens` response tokens. Returns that part in nats, and the number of its tokens without
/// padding.
fn backward(
    model: &InternVl,
    prompted: &PromptedDataset,
    examples: &[TokenizedExample],
    micro_batches: &[Vec<usize>],
    all_tokens: usize,
    mode: impl Fn(&[usize]) -> PassMode,
) -> (f64, usize) {
    let (mut loss, mut tokens) = (0.0, 0);
    for indices in micro_batches {
        let members = indices.iter().map(|&i| &examples[i]);
        let shown = members.clone().flat_map(TokenizedExample::pictures);
        let embedded = prompted.pictures.embed_for_update(model, shown, &BTreeMap::new());
        let share = response_tokens(members.clone()) as f64 / all_tokens as f64;
        let (mean, count) = cross_entropy_backward(model, prompted.tokenizer, members, &embedded, share, mode(indices));
        embedded.backward();
        loss += mean * share;
        tokens += count;
    }
    (loss, tokens)
}

/// Mean cross-entropy over the response tokens of the validation parts that have programs, in nats.
fn validation_loss(stage: &Stage, model: &InternVl) -> Result<f64> {
    let sft = &stage.config.sft;
    let pictures = Pictures::new(stage.validation, stage.config.model.max_tiles, 0);
    let prompted = stage.prompted(stage.validation, &pictures);
    let answer = |index: usize| {
        let program = stage.validation.examples()[index].program.as_deref()?;
        response_ids(prompted.prompt, prompted.tokenizer, program)
    };
    let parts = 0..stage.validation.len().min(sft.validation_samples);
    let answered: Vec<(usize, Vec<i64>)> = parts.filter_map(|index| Some((index, answer(index)?))).collect();
    let (mut sum, mut count) = (0.0, 0);
    let own: Vec<&(usize, Vec<i64>)> = stage.world.share(&answered).collect();
    for chunk in own.chunks(sft.batch_size) {
        tch::no_grad(|| {
            let indices: Vec<usize> = chunk.iter().map(|(index, _)| *index).collect();
            let inputs = prompted.inputs(model, &indices);
            let sequences =
                inputs.iter().zip(chunk).map(|(input, (_, response))| (input.ids.as_slice(), response.as_slice()));
            let batch = TokenBatch::new(sequences, prompted.tokenizer, model.device());
            let image = Tensor::cat(&inputs.iter().map(|input| &input.image).collect::<Vec<_>>(), 0);
            let pass = Pass::new(model, &batch, &image, PassMode::default());
            sum -= pass.logprobs(&batch.targets, 1.0).sum(Kind::Double).double_value(&[]);
            count += batch.targets.numel();
        });
    }
    let [sum, count] = stage.world.sum("the validation loss", [sum, count as f64])?;
    Ok(sum / count.max(1.0))
}
