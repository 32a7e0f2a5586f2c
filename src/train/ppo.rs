//! Proximal policy optimisation on the reward of executed programs (Schulman et al. 2017, arXiv:1707.06347).
//!
//! Each step: (1) *collect*: the policy writes programs for a few pictures, and each is scored while others are still being
//! written; (2) *compute*: values, reference log-probs, advantages; (3) *update*: clipped policy and value losses, KL to the
//! reference, entropy, and cross-entropy on ground-truth programs with a weight that is annealed; (4) *log*.
//!
//! Departures from the paper: the KL to the frozen SFT model is a term of the loss (as in GRPO), not of the reward; the
//! critic is a head over the policy's last hidden state that sends no gradient into it; the vision tower is frozen.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rollout::Score;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Kind, Tensor};

use super::Stage;
use super::checkpoint::{self, Part};
use super::evaluate::{Questions, write_and_score};
use super::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use super::losses::{
    PolicyLoss, cross_entropy, entropy, explained_variance, gae, kl_k3, leave_one_out, policy_loss, value_loss, whiten,
};
use super::optim::{Optimizer, OptimizerConfig};
use super::pictures::Pictures;
use super::schedule::{LearningRate, adapted_kl_coef, ce_weight, seed};
use super::sft::{Example, examples, finish};
use super::validation::{Best, validate};
use crate::config::{Baseline, Config, OptimizerKind, Ppo};
use crate::generate::{Completion, PromptInput};
use crate::model::{InternVl, ValueHead};
use crate::telemetry::Telemetry;

/// What a step collects: `images_per_step` prompts, `samples_per_image` completions of each.
struct Rollouts {
    prompts: Vec<PromptInput>,
    completions: Vec<Completion>,
    scores: Vec<Score>,
    seconds_generate: f64,
    seconds_score_wait: f64,
}

impl Rollouts {
    /// Whether completion `i` could be compared with its ground truth. One that could not says nothing of the policy.
    fn is_scored(&self, i: usize) -> bool {
        self.scores[i].ground_truth_error.is_none()
    }

    /// Response tokens of the completions `chosen`.
    fn tokens(&self, chosen: &[usize]) -> f64 {
        chosen.iter().map(|&i| self.completions[i].tokens.len()).sum::<usize>() as f64
    }
}

/// What is known of one completion when the update starts; each is one number a token.
struct Experience {
    ref_logprobs: Vec<f32>,
    values: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
}

/// The completions of one forward pass.
struct Collected<'a> {
    rollouts: &'a Rollouts,
    experience: &'a [Experience],
    chosen: &'a [usize],
}

/// Means over the update's minibatches, each of which may come in pieces of a certain weight.
#[derive(Default)]
struct Means {
    sums: BTreeMap<&'static str, (f64, f64)>,
}

impl Means {
    fn add(&mut self, name: &'static str, value: &Tensor, weight: f64) {
        let (sum, weights) = self.sums.entry(name).or_default();
        *sum += value.double_value(&[]) * weight;
        *weights += weight;
    }

    /// None where nothing was added.
    fn get(&self, name: &str) -> Option<f64> {
        self.sums.get(name).map(|(sum, weights)| sum / weights)
    }
}

/// Everything besides tensors that a checkpoint keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    step: usize,
    kl_coef: f64,
    best: Best,
    seconds: f64,
}

/// Trains `policy`, which is also the reference, and leaves the best checkpoint by validation IoU in `<run>/ppo/best`. A
/// killed stage goes on from its last checkpoint.
///
/// # Errors
/// A directory that cannot be written, a checkpoint of another model, or a scorer that cannot go on.
pub fn train(stage: &Stage, policy: &mut InternVl) -> Result<()> {
    let Stage { config, train, scorer, run_dir, .. } = stage;
    let ppo = &config.ppo;
    let pictures = Pictures::new(train, config.model.max_tiles, config.model.vision_cache_mib);
    let questions = stage.questions(train, &pictures);
    let reference = policy.frozen_copy();
    let (labelled, _) = examples(&questions, policy, config.sft.max_length);
    ensure!(!labelled.is_empty(), "no training example fits sft.max_length = {}", config.sft.max_length);
    let micro_batch_size = if ppo.micro_batch_size == 0 { ppo.minibatch_size } else { ppo.micro_batch_size };
    let value_seed = seed(&[u64::from(config.run.seed), PPO_STREAM]) as i64;
    let mut value_head = ValueHead::new(policy.config.llm_config.hidden_size, value_seed, policy.device());
    let optimizer_config = |kind| OptimizerConfig {
        kind,
        weight_decay: ppo.weight_decay,
        betas: ppo.betas,
        max_grad_norm: ppo.max_grad_norm,
    };
    let mut optimizer = Optimizer::new(policy.weights(), optimizer_config(ppo.optimizer));
    let mut value_optimizer = Optimizer::new(value_head.weights(), optimizer_config(OptimizerKind::Adamw));
    let schedule = LearningRate {
        peak: ppo.learning_rate,
        warmup_steps: ppo.warmup_steps,
        hold: 0.0,
        final_lr: ppo.final_lr,
        steps: ppo.steps,
    };

    let directory = run_dir.join("ppo");
    let mut state = State { step: 0, kl_coef: ppo.kl_coef, best: Best::default(), seconds: 0.0 };
    let checkpoint_dir = directory.join("checkpoint");
    let mut saved_parts = parts(policy, &mut optimizer, &mut value_head, &mut value_optimizer);
    if let Some(saved) = checkpoint::load::<State>(&checkpoint_dir, &mut saved_parts)? {
        state = saved;
        eprintln!("ppo: goes on at step {} of {}", state.step, ppo.steps);
    }
    let mut telemetry = Telemetry::open(run_dir, "ppo", state.step, ppo.steps)?;
    let (started, seconds_before) = (Instant::now(), state.seconds);
    let best_dir = directory.join("best");
    if state.step == 0 {
        // The SFT policy is the first candidate: what PPO leaves is no worse on the validation parts.
        validate(stage, policy, ppo.validation_samples, 0, &mut state.best, &best_dir, &mut telemetry)?;
    }
    prefetch(stage, state.step);

    while state.step < ppo.steps {
        let step_started = Instant::now();
        let step = state.step;
        let learning_rate = schedule.at(step);
        let ce_weight = ce_weight(ppo.ce_schedule, ppo.ce_weight, ppo.ce_anneal_until, step as f64 / ppo.steps as f64);

        // 1. Collect. While the last programs are being executed, values and reference log-probs are computed.
        let indices = pictures_of_step(config, train.len(), step);
        let snapshot = policy.frozen_copy();
        let seeds: Vec<u64> = (0..indices.len() * ppo.samples_per_image)
            .map(|i| seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64, i as u64]))
            .collect();
        let sampling = stage.sampling(ppo.temperature, 1.0);
        let (prompts, completions, batch) =
            write_and_score(&snapshot, &questions, &indices, &seeds, sampling, config.generate.batch_size, scorer);
        let seconds_generate = step_started.elapsed().as_secs_f64();
        prefetch(stage, step + 1);
        let mut critique = critique(&questions, &snapshot, &reference, &value_head, &prompts, &completions, ppo);
        let waiting = Instant::now();
        let scores = batch.finish()?;
        let seconds_score_wait = waiting.elapsed().as_secs_f64();
        let rollouts = Rollouts { prompts, completions, scores, seconds_generate, seconds_score_wait };

        // 2. Compute. The untrained critic starts at the mean reward.
        if step == 0 {
            let mean = rollouts.scores.iter().map(|score| score.reward).sum::<f64>() / rollouts.scores.len() as f64;
            value_head.start_at(mean);
            critique.iter_mut().for_each(|(values, _)| values.fill(mean as f32));
        }
        let experience = compute_advantages(&rollouts, critique, ppo);

        // 3. Update.
        let updating = Instant::now();
        let mut means = Means::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64]));
        for _ in 0..ppo.epochs {
            let mut order: Vec<usize> = (0..rollouts.completions.len()).filter(|&i| rollouts.is_scored(i)).collect();
            order.shuffle(&mut rng);
            for minibatch in order.chunks(ppo.minibatch_size) {
                let tokens = rollouts.tokens(minibatch);
                for micro_batch in minibatch.chunks(micro_batch_size) {
                    // A minibatch's loss is the mean over its tokens, however it is cut.
                    let weight = rollouts.tokens(micro_batch) / tokens;
                    let collected = Collected { rollouts: &rollouts, experience: &experience, chosen: micro_batch };
                    ppo_backward(
                        &questions,
                        policy,
                        &value_head,
                        &collected,
                        config,
                        state.kl_coef,
                        weight,
                        &mut means,
                    );
                }
                if ce_weight > 0.0 {
                    ce_backward(&questions, policy, &labelled, &mut rng, config, ce_weight, &mut means);
                }
                let grad_norm = optimizer.step(learning_rate);
                value_optimizer.step(ppo.value_learning_rate * learning_rate / ppo.learning_rate);
                means.add("grad_norm", &Tensor::from(grad_norm), 1.0);
            }
        }
        let kl = means.get("kl").unwrap_or_default();
        let grad_norm = means.get("grad_norm").unwrap_or_default();
        ensure!(
            kl.is_finite() && grad_norm.is_finite(),
            "ppo: the KL divergence is {kl} and the gradient's norm {grad_norm} at step {step}; lower ppo.learning_rate = {}",
            ppo.learning_rate
        );
        state.kl_coef = adapted_kl_coef(state.kl_coef, kl, ppo.kl_target);
        let seconds_update = updating.elapsed().as_secs_f64();

        // 4. Log.
        state.seconds = seconds_before + started.elapsed().as_secs_f64();
        state.step += 1;
        let is_last = state.step == ppo.steps;
        let mut numbers = rollout_numbers(&rollouts, &experience, config);
        let from_update =
            ["policy_loss", "value_loss", "kl", "clip_fraction", "entropy", "ce_loss", "ratio_mean", "grad_norm"];
        numbers.extend(from_update.iter().filter_map(|name| Some(((*name).to_owned(), means.get(name)?))));
        numbers.extend([
            ("lr".to_owned(), learning_rate),
            ("ce_weight".to_owned(), ce_weight),
            ("kl_coef".to_owned(), state.kl_coef),
            ("seconds_generate".to_owned(), rollouts.seconds_generate),
            ("seconds_score_wait".to_owned(), rollouts.seconds_score_wait),
            ("seconds_update".to_owned(), seconds_update),
        ]);
        let number = |wanted: &str| numbers.iter().find(|(name, _)| name == wanted).map_or(0.0, |(_, value)| *value);
        let line = format!(
            "reward {:.3}  IoU {:.3}  VSR {:.3}  KL {kl:.4}  CE weight {ce_weight:.2}  generate {:.1} wait {:.1} update {:.1} s",
            number("reward_mean"),
            number("iou_mean"),
            number("vsr"),
            rollouts.seconds_generate,
            rollouts.seconds_score_wait,
            seconds_update,
        );
        telemetry.say(step, &line);
        if is_last || state.step.is_multiple_of(ppo.validate_every) {
            let best = &mut state.best;
            let report = validate(stage, policy, ppo.validation_samples, state.step, best, &best_dir, &mut telemetry)?;
            let iou = report.iou_in(config.reward_frame());
            numbers.extend([("val_vsr".to_owned(), report.vsr), ("val_iou".to_owned(), iou)]);
            telemetry
                .note(&format!("ppo {}/{}  validation: VSR {:.3}  IoU {iou:.3}", state.step, ppo.steps, report.vsr));
        }
        let numbers: Vec<(&str, f64)> = numbers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        telemetry.record(step, &numbers)?;
        if state.step.is_multiple_of(ppo.checkpoint_every) && !is_last {
            let parts = parts(policy, &mut optimizer, &mut value_head, &mut value_optimizer);
            checkpoint::save(&checkpoint_dir, &parts, &state)?;
        }
    }
    finish(
        &directory,
        &json!({"steps": ppo.steps, "val_iou": state.best.iou, "best_step": state.best.step, "seconds": state.seconds}),
    )
}

fn parts<'a>(
    policy: &'a mut InternVl,
    optimizer: &'a mut Optimizer,
    value_head: &'a mut ValueHead,
    value_optimizer: &'a mut Optimizer,
) -> [Part<'a>; 2] {
    [
        Part { name: "policy", weights: policy.weights_mut(), optimizer },
        Part { name: "value_head", weights: value_head.weights_mut(), optimizer: value_optimizer },
    ]
}

/// Sets the seeds of PPO apart from those of other stages.
const PPO_STREAM: u64 = 0x990;

/// The pictures of a step: epochs over the training rows, each in an order of its own.
fn pictures_of_step(config: &Config, rows: usize, step: usize) -> Vec<usize> {
    let images = config.ppo.images_per_step.min(rows);
    let steps_per_epoch = (rows / images).max(1);
    let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed(&[
        u64::from(config.run.seed),
        PPO_STREAM,
        u64::MAX,
        epoch as u64,
    ])));
    order[position * images..(position + 1) * images].to_vec()
}

/// Has the ground truths of a step executed in the background.
fn prefetch(stage: &Stage, step: usize) {
    if step < stage.config.ppo.steps {
        let indices = pictures_of_step(stage.config, stage.train.len(), step);
        let programs: Vec<&str> = indices.iter().map(|&index| stage.train.examples()[index].program.as_str()).collect();
        stage.scorer.prefetch(&programs);
    }
}

/// For each completion, the values of its tokens and their log-probabilities under the reference.
fn critique(
    questions: &Questions,
    policy: &InternVl,
    reference: &InternVl,
    value_head: &ValueHead,
    prompts: &[PromptInput],
    completions: &[Completion],
    ppo: &Ppo,
) -> Vec<(Vec<f32>, Vec<f32>)> {
    let mut critique = Vec::with_capacity(completions.len());
    let all: Vec<usize> = (0..completions.len()).collect();
    for chunk in all.chunks(if ppo.micro_batch_size == 0 { ppo.minibatch_size } else { ppo.micro_batch_size }) {
        tch::no_grad(|| {
            let (batch, image) = sequences(questions, prompts, completions, chunk, policy);
            let image_token = questions.tokenizer.image_token;
            let values =
                value_head.forward(&Pass::new(policy, &batch, &image, image_token, PassMode::default()).hidden);
            let pass = Pass::new(reference, &batch, &image, image_token, PassMode::default());
            let ref_logprobs = pass.logprobs(&batch.targets, ppo.temperature);
            let (values, ref_logprobs) = (to_vec(&values), to_vec(&ref_logprobs));
            let mut start = 0;
            for &i in chunk {
                let end = start + completions[i].tokens.len();
                critique.push((values[start..end].to_vec(), ref_logprobs[start..end].to_vec()));
                start = end;
            }
        });
    }
    critique
}

/// Advantages from each completion's reward, by GAE with the critic or against its group, whitened over the step.
fn compute_advantages(rollouts: &Rollouts, critique: Vec<(Vec<f32>, Vec<f32>)>, ppo: &Ppo) -> Vec<Experience> {
    let rewards: Vec<f32> = rollouts.scores.iter().map(|score| score.reward as f32).collect();
    let against_group: Vec<f32> = rewards.chunks(ppo.samples_per_image).flat_map(leave_one_out).collect();
    let mut experience: Vec<Experience> = critique
        .into_iter()
        .enumerate()
        .map(|(i, (values, ref_logprobs))| {
            let (mut advantages, returns) = gae(rewards[i], &values, ppo.gamma, ppo.gae_lambda);
            if ppo.baseline == Baseline::Group {
                advantages.fill(against_group[i]);
            }
            Experience { ref_logprobs, values, advantages, returns }
        })
        .collect();
    let scored = |(i, _): &(usize, &mut Experience)| rollouts.is_scored(*i);
    let all = experience.iter_mut().enumerate().filter(scored).flat_map(|(_, e)| &mut e.advantages);
    whiten(&mut all.collect::<Vec<_>>());
    experience
}

/// No dropout: the ratio compares this policy with the one that sampled.
fn update_mode(config: &Config) -> PassMode {
    PassMode { gradient_checkpointing: config.model.gradient_checkpointing, ..PassMode::default() }
}

/// Adds `weight` times the gradients of policy, value, KL and entropy terms over some completions.
fn ppo_backward(
    questions: &Questions,
    policy: &InternVl,
    value_head: &ValueHead,
    collected: &Collected,
    config: &Config,
    kl_coef: f64,
    weight: f64,
    means: &mut Means,
) {
    let ppo = &config.ppo;
    let Collected { rollouts, experience, chosen } = collected;
    let (batch, image) = sequences(questions, &rollouts.prompts, &rollouts.completions, chosen, policy);
    let device = policy.device();
    let flat = |of: fn(&Experience) -> &[f32]| {
        let values: Vec<f32> = chosen.iter().flat_map(|&i| of(&experience[i])).copied().collect();
        Tensor::from_slice(&values).to_device(device)
    };
    let old_logprobs: Vec<f32> = chosen.iter().flat_map(|&i| &rollouts.completions[i].logprobs).copied().collect();
    let old_logprobs = Tensor::from_slice(&old_logprobs).to_device(device);
    let ref_logprobs = flat(|e| &e.ref_logprobs);
    let old_values = flat(|e| &e.values);
    let advantages = flat(|e| &e.advantages);
    let returns = flat(|e| &e.returns);

    let pass = Pass::new(policy, &batch, &image, questions.tokenizer.image_token, update_mode(config));
    let values = value_head.forward(&pass.hidden);
    let value_loss = value_loss(&values, &old_values, &returns, ppo.value_clip_range);
    means.add("value_loss", &value_loss, weight);
    (value_loss * weight).backward();
    pass.backward(weight, |logits, rows, share| {
        let share = share * weight;
        let [targets, old_logprobs, advantages, ref_logprobs] =
            [&batch.targets, &old_logprobs, &advantages, &ref_logprobs].map(|tensor| narrowed(tensor, &rows));
        let (logprobs, log_softmax) = token_logprobs(logits, &targets, ppo.temperature);
        let PolicyLoss { loss: policy_loss, clip_fraction } =
            policy_loss(&logprobs, &old_logprobs, &advantages, ppo.clip_range);
        let entropy = if ppo.entropy_coef > 0.0 { entropy(&log_softmax) } else { entropy(&log_softmax.detach()) };
        let kl = kl_k3(&logprobs, &ref_logprobs).mean(Kind::Float);
        let loss = &policy_loss + &kl * kl_coef - &entropy * ppo.entropy_coef;
        means.add("kl", &kl, share);
        means.add("policy_loss", &policy_loss, share);
        means.add("clip_fraction", &clip_fraction, share);
        means.add("entropy", &entropy, share);
        means.add("ratio_mean", &(logprobs.detach() - &old_logprobs).exp().mean(Kind::Float), share);
        loss
    });
}

/// Adds the gradients of the weighted cross-entropy on the ground-truth programs of random examples.
fn ce_backward(
    questions: &Questions,
    policy: &InternVl,
    labelled: &[Example],
    rng: &mut ChaCha8Rng,
    config: &Config,
    weight: f64,
    means: &mut Means,
) {
    let chosen = rand::seq::index::sample(rng, labelled.len(), config.ppo.ce_batch_size.min(labelled.len()));
    let chosen: Vec<&Example> = chosen.iter().map(|i| &labelled[i]).collect();
    let sequences = chosen.iter().map(|example| (&example.prompt[..], example.response.as_slice()));
    let batch = TokenBatch::new(sequences, questions.tokenizer, policy.device());
    let indices: Vec<usize> = chosen.iter().map(|example| example.index).collect();
    let image = Tensor::cat(&questions.pictures.embed(policy, &indices), 0);
    let pass = Pass::new(policy, &batch, &image, questions.tokenizer.image_token, update_mode(config));
    let loss = pass.backward(weight, |logits, rows, _| cross_entropy(logits, &narrowed(&batch.targets, &rows)));
    means.add("ce_loss", &Tensor::from(loss), 1.0);
}

/// The completions `chosen` after their prompts, with the embeddings of their pictures.
fn sequences(
    questions: &Questions,
    prompts: &[PromptInput],
    completions: &[Completion],
    chosen: &[usize],
    model: &InternVl,
) -> (TokenBatch, Tensor) {
    let samples = completions.len() / prompts.len();
    let sequences = chosen.iter().map(|&i| (prompts[i / samples].ids.as_slice(), completions[i].tokens.as_slice()));
    let batch = TokenBatch::new(sequences, questions.tokenizer, model.device());
    let image = Tensor::cat(&chosen.iter().map(|&i| &prompts[i / samples].image).collect::<Vec<_>>(), 0);
    (batch, image)
}

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous()).expect("a contiguous f32 tensor copies to a vector")
}

/// What a step's rollouts were like.
fn rollout_numbers(rollouts: &Rollouts, experience: &[Experience], config: &Config) -> Vec<(String, f64)> {
    let n = rollouts.scores.len() as f64;
    let frame = config.reward_frame();
    let mean = |of: &dyn Fn(usize) -> f64| (0..rollouts.scores.len()).map(of).sum::<f64>() / n;
    let flat =
        |of: fn(&Experience) -> &Vec<f32>| -> Vec<f32> { experience.iter().flat_map(|e| of(e).clone()).collect() };
    let mut numbers = vec![
        ("reward_mean".to_owned(), mean(&|i| rollouts.scores[i].reward)),
        ("iou_mean".to_owned(), mean(&|i| rollouts.scores[i].iou_in(frame))),
        ("vsr".to_owned(), mean(&|i| f64::from(rollouts.scores[i].verdict.is_valid()))),
        ("truncated".to_owned(), mean(&|i| f64::from(rollouts.completions[i].truncated))),
        ("response_length".to_owned(), mean(&|i| rollouts.completions[i].tokens.len() as f64)),
        ("ground_truth_failures".to_owned(), n * (1.0 - mean(&|i| f64::from(rollouts.is_scored(i))))),
        ("explained_variance".to_owned(), explained_variance(&flat(|e| &e.values), &flat(|e| &e.returns))),
    ];
    for class in OutcomeClass::ALL {
        let count = rollouts.scores.iter().filter(|score| score.verdict.class() == Some(class)).count();
        numbers.push((format!("outcome/{}", class.name()), count as f64));
    }
    numbers
}
