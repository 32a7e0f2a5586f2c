//! Proximal policy optimisation on the reward of executed programs (Schulman et al. 2017, arXiv:1707.06347).
//!
//! Each step: (1) *collect*: the policy writes programs for a few pictures, and each is scored while others are still being
//! written; (2) *compute*: values, reference log-probs, advantages; (3) *update*: clipped policy and value losses, KL to the
//! reference, entropy, and cross-entropy on ground-truth programs with a weight that is annealed; (4) *log*.
//!
//! `ppo.algorithm` chooses what rewards are compared with (`advantages.rs`); without a critic the loop is that of RLOO, GRPO or
//! Dr. GRPO.
//!
//! Departures from the paper: the KL to the frozen SFT model is a term of the loss (as in GRPO), not of the reward; the
//! critic is a head over the policy's last hidden state that sends no gradient into it.

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
use tch::{Device, Kind, Tensor};

use super::Stage;
use super::advantages::{Advantages, Rewarded, RunningScale, advantages};
use super::checkpoint::{self, Part};
use super::curriculum::{Signal, by_epochs};
use super::evaluate::{Questions, write_and_score};
use super::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use super::losses::{PolicyLoss, cross_entropy, entropy, explained_variance, kl_k3, policy_loss, value_loss};
use super::optim::{Optimizer, OptimizerConfig};
use super::pictures::Pictures;
use super::schedule::{CeGuard, LearningRate, adapted_kl_coef, ce_weight, progress, seed};
use super::sft::{Example, examples, finish};
use super::validation::{Best, ceiling, validate};
use crate::config::{Algorithm, CeSchedule, Config, Curriculum, OptimizerKind, Ppo};
use crate::generate::{Completion, PromptInput};
use crate::model::{InternVl, ValueHead};
use crate::telemetry::Telemetry;

/// What a step collects: `images_per_step` prompts, `samples_per_image` completions of each.
struct Rollouts {
    /// The pictures, in the dataset.
    indices: Vec<usize>,
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

/// What is known of one completion when the update starts; each is one number a token. Values and returns are a critic's,
/// `ref_logprobs` only there for completions that are updated on.
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

    /// All that was added, each times its weight.
    fn total(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(sum, _)| *sum)
    }

    /// The weights of all that was added.
    fn count(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(_, weights)| *weights)
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
    ce_guard: CeGuard,
    reward_scale: RunningScale,
    signal: Signal,
    /// The parts of the next step: chosen one step ahead, so that their ground truths are executed in time.
    next: Vec<usize>,
}

/// Trains `policy`, which is also the reference, and leaves the best checkpoint by validation IoU in `<run>/ppo/best`. A
/// killed stage goes on from its last checkpoint.
///
/// # Errors
/// A directory that cannot be written, a checkpoint of another model, or a scorer that cannot go on.
pub fn train(stage: &Stage, policy: &mut InternVl) -> Result<()> {
    let Stage { config, train, scorer, run_dir, .. } = stage;
    let ppo = &config.ppo;
    let cache_mib = if policy.trains_vision() { 0 } else { config.model.vision_cache_mib };
    let pictures = Pictures::new(train, config.model.max_tiles, cache_mib);
    let questions = stage.questions(train, &pictures);
    let reference = policy.frozen_copy();
    let (labelled, _) = examples(&questions, policy, config.sft.max_length);
    ensure!(
        ppo.ce_weight == 0.0 || !labelled.is_empty(),
        "ppo.ce_weight = {}, but no training row has a program that fits sft.max_length = {}; set ppo.ce_weight=0",
        ppo.ce_weight,
        config.sft.max_length
    );
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
    let schedule =
        LearningRate { peak: ppo.learning_rate, warmup_steps: ppo.warmup_steps, hold: 0.0, final_lr: ppo.final_lr };

    let directory = run_dir.join("ppo");
    let mut state = State {
        step: 0,
        kl_coef: ppo.kl_coef,
        best: Best::default(),
        seconds: 0.0,
        ce_guard: CeGuard::default(),
        reward_scale: RunningScale::default(),
        signal: Signal::new(if ppo.curriculum == Curriculum::Signal { train.len() } else { 0 }),
        next: Vec::new(),
    };
    let checkpoint_dir = directory.join("checkpoint");
    let mut saved_parts = parts(policy, &mut optimizer, &mut value_head, &mut value_optimizer);
    if let Some(saved) = checkpoint::load::<State>(&checkpoint_dir, &mut saved_parts)? {
        state = saved;
        eprintln!("ppo: goes on at step {} of {}", state.step, ppo.steps);
    }
    let mut telemetry = Telemetry::open(run_dir, "ppo", state.step, ppo.steps)?;
    let best_dir = directory.join("best");
    if state.step == 0 {
        // The SFT policy is the first candidate: what PPO leaves is no worse on the validation parts.
        let report = validate(stage, policy, ppo.validation_samples, 0, &mut state.best, &best_dir, &mut telemetry)?;
        let mut numbers =
            vec![("seconds", 0.0), ("val_vsr", report.vsr), ("val_iou", report.iou_in(config.reward_frame()))];
        if let Some((mean, best)) = ceiling(stage, policy)? {
            let k = ppo.samples_per_image;
            telemetry
                .note(&format!("ppo: sampled IoU of the SFT policy {mean:.3}; best of {k} {best:.3}, the ceiling"));
            numbers.extend([("ceiling_mean", mean), ("ceiling_best", best)]);
        }
        telemetry.record(0, &numbers)?;
        state.next = pictures_of_step(config, train.len(), &state.signal, 0);
    }
    prefetch(stage, &state.next);

    let (started, seconds_before) = (Instant::now(), state.seconds);
    while state.step < ppo.steps {
        let step_started = Instant::now();
        let step = state.step;
        let progress_before = progress(step, ppo.steps, state.seconds, ppo.max_seconds);
        let learning_rate = schedule.at(step, progress_before);
        let annealed = match ppo.ce_schedule {
            CeSchedule::Guarded => state.ce_guard.progress,
            _ => progress_before,
        };
        let ce_weight = ce_weight(ppo.ce_schedule, ppo.ce_weight, ppo.ce_anneal_until, annealed);

        // 1. Collect. While the last programs are being executed, the critic's states are computed.
        let indices = std::mem::take(&mut state.next);
        let snapshot = policy.frozen_copy();
        let seeds: Vec<u64> = (0..indices.len() * ppo.samples_per_image)
            .map(|i| seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64, i as u64]))
            .collect();
        let sampling = stage.sampling(ppo.temperature, 1.0);
        let (prompts, completions, batch) =
            write_and_score(&snapshot, &questions, &indices, &seeds, sampling, config.generate.batch_size, scorer);
        let seconds_generate = step_started.elapsed().as_secs_f64();
        if step + 1 < ppo.steps {
            state.next = pictures_of_step(config, train.len(), &state.signal, step + 1);
            prefetch(stage, &state.next);
        }
        let all: Vec<usize> = (0..completions.len()).collect();
        let hidden = match ppo.algorithm {
            Algorithm::Ppo => {
                per_token(&questions, &snapshot, &prompts, &completions, &all, ppo, |pass, _| pass.hidden)
            }
            _ => Vec::new(),
        };
        let waiting = Instant::now();
        let scores = batch.finish()?;
        let seconds_score_wait = waiting.elapsed().as_secs_f64();
        let rollouts = Rollouts { indices, prompts, completions, scores, seconds_generate, seconds_score_wait };

        // 2. Compute. The untrained critic starts at the mean reward.
        let rewards = shaped_rewards(&rollouts, config, &mut state.reward_scale);
        if step == 0 {
            value_head.start_at(f64::from(rewards.iter().sum::<f32>() / rewards.len().max(1) as f32));
        }
        let values: Vec<Vec<f32>> = match ppo.algorithm {
            Algorithm::Ppo => hidden.iter().map(|hidden| to_vec(&value_head.forward(hidden))).collect(),
            _ => vec![Vec::new(); rewards.len()],
        };
        if ppo.curriculum == Curriculum::Signal {
            for (&part, rewards) in rollouts.indices.iter().zip(rewards.chunks(ppo.samples_per_image)) {
                state.signal.observe(part, rewards);
            }
        }
        let (mut experience, chosen) = compute_advantages(&rollouts, &rewards, values, ppo);
        let Rollouts { prompts, completions, .. } = &rollouts;
        let prompts = match policy.trains_vision() {
            true => &questions.inputs(&reference, &rollouts.indices),
            false => prompts,
        };
        let ref_logprobs = per_token(&questions, &reference, prompts, completions, &chosen, ppo, |pass, targets| {
            pass.logprobs(targets, ppo.temperature)
        });
        for (&i, ref_logprobs) in chosen.iter().zip(ref_logprobs) {
            experience[i].ref_logprobs = to_vec(&ref_logprobs);
        }

        // 3. Update.
        let updating = Instant::now();
        let mut means = Means::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64]));
        if ppo.algorithm == Algorithm::Ppo {
            let scored: Vec<usize> = (0..experience.len()).filter(|&i| rollouts.is_scored(i)).collect();
            fit_critic(&value_head, &mut value_optimizer, &hidden, &experience, scored, ppo, &mut rng, &mut means);
        }
        'epochs: for _ in 0..ppo.epochs {
            let mut order = chosen.clone();
            order.shuffle(&mut rng);
            for minibatch in order.chunks(ppo.minibatch_size) {
                let tokens = rollouts.tokens(minibatch);
                let moved_before = means.total("approx_kl");
                for micro_batch in minibatch.chunks(micro_batch_size) {
                    // A minibatch's loss is the mean over its tokens, however it is cut.
                    let weight = rollouts.tokens(micro_batch) / tokens;
                    let collected = Collected { rollouts: &rollouts, experience: &experience, chosen: micro_batch };
                    ppo_backward(&questions, policy, &collected, config, state.kl_coef, weight, &mut means);
                }
                if ce_weight > 0.0 {
                    ce_backward(&questions, policy, &labelled, &mut rng, config, ce_weight, &mut means);
                }
                let grad_norm = optimizer.step(learning_rate);
                means.add("grad_norm", &Tensor::from(grad_norm), 1.0);
                // Each minibatch adds its mean with weight 1.
                let moved = means.total("approx_kl") - moved_before;
                if ppo.target_kl > 0.0 && moved > ppo.target_kl {
                    break 'epochs;
                }
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
        let vsr = rollouts.scores.iter().filter(|score| score.verdict.is_valid()).count() as f64
            / rollouts.scores.len().max(1) as f64;
        let seconds_update = updating.elapsed().as_secs_f64();

        // 4. Log.
        state.seconds = seconds_before + started.elapsed().as_secs_f64();
        state.step += 1;
        let progress_after = progress(state.step, ppo.steps, state.seconds, ppo.max_seconds);
        let is_last = progress_after == 1.0;
        state.ce_guard.advance(vsr, kl, ppo.kl_target, progress_after - progress_before);
        let mut numbers = rollout_numbers(&rollouts, &experience, config);
        if ppo.curriculum == Curriculum::Signal {
            numbers.push(("parts_seen".to_owned(), state.signal.seen() as f64));
        }
        let from_update = [
            "policy_loss",
            "value_loss",
            "kl",
            "approx_kl",
            "clip_fraction",
            "entropy",
            "ce_loss",
            "ratio_mean",
            "grad_norm",
        ];
        numbers.extend(from_update.iter().filter_map(|name| Some(((*name).to_owned(), means.get(name)?))));
        numbers.extend([
            ("seconds".to_owned(), state.seconds),
            ("lr".to_owned(), learning_rate),
            ("ce_weight".to_owned(), ce_weight),
            ("kl_coef".to_owned(), state.kl_coef),
            ("updates".to_owned(), means.count("grad_norm")),
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
        telemetry.say(step, progress_after, &line);
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
        if is_last {
            break;
        }
    }
    finish(
        &directory,
        &json!({"steps": state.step, "val_iou": state.best.iou, "best_step": state.best.step, "seconds": state.seconds}),
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

/// The parts of a step.
fn pictures_of_step(config: &Config, parts: usize, signal: &Signal, step: usize) -> Vec<usize> {
    let run_seed = u64::from(config.run.seed);
    match config.ppo.curriculum {
        Curriculum::Uniform => {
            by_epochs(parts, config.ppo.images_per_step, step, |epoch| seed(&[run_seed, PPO_STREAM, u64::MAX, epoch]))
        }
        Curriculum::Signal => {
            signal.draw(config.ppo.images_per_step, seed(&[run_seed, PPO_STREAM, u64::MAX, step as u64]))
        }
    }
}

/// Has the ground truths of a step executed in the background.
fn prefetch(stage: &Stage, indices: &[usize]) {
    stage.scorer.prefetch(indices.iter().map(|&index| stage.train.examples()[index].ground_truth.clone()));
}

/// What `of` (pass, targets) says of each token of the completions `chosen`: a tensor `[tokens, ..]` for each completion.
fn per_token(
    questions: &Questions,
    model: &InternVl,
    prompts: &[PromptInput],
    completions: &[Completion],
    chosen: &[usize],
    ppo: &Ppo,
    of: impl Fn(Pass, &Tensor) -> Tensor,
) -> Vec<Tensor> {
    let mut found = Vec::with_capacity(chosen.len());
    for chunk in chosen.chunks(if ppo.micro_batch_size == 0 { ppo.minibatch_size } else { ppo.micro_batch_size }) {
        tch::no_grad(|| {
            let (batch, samples) = sequences(questions, prompts, completions, chunk, model);
            let image: Vec<&Tensor> = chunk.iter().map(|&i| &prompts[i / samples].image).collect();
            let image = Tensor::cat(&image, 0);
            let pass = Pass::new(model, &batch, &image, questions.tokenizer.image_token, PassMode::default());
            let lengths: Vec<i64> = chunk.iter().map(|&i| completions[i].tokens.len() as i64).collect();
            found.extend(of(pass, &batch.targets).split_with_sizes(&lengths, 0));
        });
    }
    found
}

/// Fits the critic to the returns of the completions `scored`, of whose tokens `hidden` are the states. It sees all of them,
/// several times, for next to the policy's update that costs nothing.
fn fit_critic(
    value_head: &ValueHead,
    value_optimizer: &mut Optimizer,
    hidden: &[Tensor],
    experience: &[Experience],
    mut scored: Vec<usize>,
    ppo: &Ppo,
    rng: &mut ChaCha8Rng,
    means: &mut Means,
) {
    for _ in 0..ppo.value_epochs {
        scored.shuffle(rng);
        for chunk in scored.chunks(ppo.minibatch_size) {
            let states = Tensor::cat(&chunk.iter().map(|&i| &hidden[i]).collect::<Vec<_>>(), 0);
            let flat = |of: fn(&Experience) -> &[f32]| flat(experience, chunk, of, states.device());
            let (old_values, returns) = (flat(|e| &e.values), flat(|e| &e.returns));
            let loss = value_loss(&value_head.forward(&states), &old_values, &returns, ppo.value_clip_range);
            means.add("value_loss", &loss, 1.0);
            loss.backward();
            value_optimizer.step(ppo.value_learning_rate);
        }
    }
}

/// Numbers of the tokens of the completions `chosen`, one after another.
fn flat(experience: &[Experience], chosen: &[usize], of: fn(&Experience) -> &[f32], device: Device) -> Tensor {
    let numbers: Vec<f32> = chosen.iter().flat_map(|&i| of(&experience[i])).copied().collect();
    Tensor::from_slice(&numbers).to_device(device)
}

/// The rewards that are trained on: less the penalty for length, in units of their running standard deviation if so wished.
fn shaped_rewards(rollouts: &Rollouts, config: &Config, scale: &mut RunningScale) -> Vec<f32> {
    let ppo = &config.ppo;
    let of = |(score, completion): (&Score, &Completion)| {
        let length = completion.tokens.len() as f64 / config.generate.max_new_tokens as f64;
        score.reward - ppo.length_penalty * length
    };
    let rewards: Vec<f64> = rollouts.scores.iter().zip(&rollouts.completions).map(of).collect();
    scale.add((0..rewards.len()).filter(|&i| rollouts.is_scored(i)).map(|i| rewards[i]));
    let unit = if ppo.reward_normalisation { scale.deviation() } else { 1.0 };
    rewards.into_iter().map(|reward| (reward / unit) as f32).collect()
}

/// Advantages from each completion's reward, and the completions that are updated on.
fn compute_advantages(
    rollouts: &Rollouts,
    rewards: &[f32],
    values: Vec<Vec<f32>>,
    ppo: &Ppo,
) -> (Vec<Experience>, Vec<usize>) {
    let rewarded: Vec<Rewarded<'_>> = (0..rewards.len())
        .map(|i| Rewarded {
            reward: rewards[i],
            length: rollouts.completions[i].tokens.len(),
            values: &values[i],
            is_scored: rollouts.is_scored(i),
        })
        .collect();
    let (found, chosen) = advantages(&rewarded, ppo);
    let of = |(values, of): (Vec<f32>, Advantages)| Experience {
        ref_logprobs: Vec::new(),
        values,
        advantages: of.advantages,
        returns: of.returns,
    };
    (values.into_iter().zip(found).map(of).collect(), chosen)
}

/// No dropout: the ratio compares this policy with the one that sampled.
fn update_mode(config: &Config) -> PassMode {
    PassMode { gradient_checkpointing: config.model.gradient_checkpointing, ..PassMode::default() }
}

/// Adds `weight` times the gradients of policy, KL and entropy terms over some completions.
fn ppo_backward(
    questions: &Questions,
    policy: &InternVl,
    collected: &Collected,
    config: &Config,
    kl_coef: f64,
    weight: f64,
    means: &mut Means,
) {
    let ppo = &config.ppo;
    let Collected { rollouts, experience, chosen } = collected;
    let (batch, samples) = sequences(questions, &rollouts.prompts, &rollouts.completions, chosen, policy);
    let images: Vec<Tensor> = match policy.trains_vision() {
        true => {
            let indices: Vec<usize> = chosen.iter().map(|&i| rollouts.indices[i / samples]).collect();
            questions.pictures.embed_trainable(policy, &indices)
        }
        false => chosen.iter().map(|&i| rollouts.prompts[i / samples].image.shallow_clone()).collect(),
    };
    let image = Tensor::cat(&images, 0);
    let device = policy.device();
    let flat = |of: fn(&Experience) -> &[f32]| flat(experience, chosen, of, device);
    let old_logprobs: Vec<f32> = chosen.iter().flat_map(|&i| &rollouts.completions[i].logprobs).copied().collect();
    let old_logprobs = Tensor::from_slice(&old_logprobs).to_device(device);
    let ref_logprobs = flat(|e| &e.ref_logprobs);
    let advantages = flat(|e| &e.advantages);

    let pass = Pass::new(policy, &batch, &image, questions.tokenizer.image_token, update_mode(config));
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
        let moved = logprobs.detach() - &old_logprobs;
        means.add("ratio_mean", &moved.exp().mean(Kind::Float), share);
        // KL(old || new) by k3 from tokens of the old policy.
        means.add("approx_kl", &(moved.exp() - 1.0 - &moved).mean(Kind::Float), share);
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
    let image = Tensor::cat(&questions.embed_for_update(policy, &indices), 0);
    let pass = Pass::new(policy, &batch, &image, questions.tokenizer.image_token, update_mode(config));
    let loss = pass.backward(weight, |logits, rows, _| cross_entropy(logits, &narrowed(&batch.targets, &rows)));
    means.add("ce_loss", &Tensor::from(loss), 1.0);
}

/// The completions `chosen` after their prompts, and how many completions each prompt has.
fn sequences(
    questions: &Questions,
    prompts: &[PromptInput],
    completions: &[Completion],
    chosen: &[usize],
    model: &InternVl,
) -> (TokenBatch, usize) {
    let samples = completions.len() / prompts.len();
    let sequences = chosen.iter().map(|&i| (prompts[i / samples].ids.as_slice(), completions[i].tokens.as_slice()));
    (TokenBatch::new(sequences, questions.tokenizer, model.device()), samples)
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
    ];
    if config.ppo.algorithm == Algorithm::Ppo {
        let explained = explained_variance(&flat(|e| &e.values), &flat(|e| &e.returns));
        numbers.push(("explained_variance".to_owned(), explained));
    }
    for class in OutcomeClass::ALL {
        let count = rollouts.scores.iter().filter(|score| score.verdict.class() == Some(class)).count();
        numbers.push((format!("outcome/{}", class.name()), count as f64));
    }
    numbers
}
