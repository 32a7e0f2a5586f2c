//! Proximal policy optimisation on the reward of executed programs (Schulman et al. 2017,
//! arXiv:1707.06347).
//!
//! Each step:
//! 1. *Collect*: the policy writes programs for a few pictures. Each is scored while others are
//!    still being written. With `turns`, it is told what came of each and writes the next.
//! 2. *Compare*: rewards become advantages, by a critic (PPO) or within a picture (RLOO, GRPO, Dr.
//!    GRPO; `advantages.rs`).
//! 3. *Update*: the clipped surrogate, KL to the reference, entropy, and cross-entropy on known
//!    programs with a weight that is annealed; the critic's clipped value loss.
//! 4. *Log*, and validate.
//!
//! Departures from the paper: the KL divergence to the frozen SFT model is a term of the loss (as
//! in GRPO), not of the reward; the critic is a head on the policy's last hidden state and sends no
//! gradient into it.

use std::time::Instant;

use anyhow::Result;
use cadwright_rewards::RewardSource;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::Stage;
use super::absurd;
use super::advantages::{assign_advantages, length_factor};
use super::examples::{TokenizedExample, cross_entropy_backward, response_tokens};
use super::forward::{Pass, narrowed, token_logprobs};
use super::gates;
use super::learner::Learner;
use super::losses::{PolicyLoss, entropy, kl_k3, policy_loss, value_loss};
use super::metrics::{Means, StepNumbers, rollout_numbers, vsr};
use super::minibatch::{
    embeddings_when_generated, images_of, per_token, sorted_by_length, to_vec, token_batch, token_count,
};
use super::proxy::reward_by_pictures;
use super::schedule::adapted_kl_coef;
use super::shaping::shape_rewards;
use super::training_loop::{LoopConfig, StepRates, TrainingLoop};
use crate::config::{Algorithm, Curriculum};
use crate::generate::GenerateOptions;
use crate::model::InternVl;
use crate::pictures::EmbeddedPictures;
use crate::rollouts::{Rollout, gathered};
use crate::turns::generate_episodes;

/// Trains `policy`, whose state at the start is the reference. Leaves the best checkpoint by
/// validation IoU in `<run>/ppo/best` and the last one in `<run>/ppo/last`. A killed stage goes on
/// from its last checkpoint.
///
/// # Errors
/// A directory cannot be written, a checkpoint is of another model, the scorer cannot go on, or
/// several gradients in a row are not finite.
pub fn train(stage: &Stage, policy: &mut InternVl) -> Result<()> {
    let pictures = stage.training_pictures(policy);
    let prompted = stage.prompted(stage.train, &pictures);
    let mut learner = Learner::new(stage, &prompted, policy)?;
    let mut training = TrainingLoop::new(stage, "ppo", LoopConfig::ppo(learner.config()), &learner.state.position)?;
    if learner.state.position.step == 0 {
        gates::before_training(stage, learner.policy, true)?;
        learner.measure_the_start(&mut training)?;
    }
    learner.prefetch();
    while let Some(rates) = training.begin_step(&learner.state.position) {
        let ce_weight = learner.ce_weight(&rates);
        let (mut rollouts, mut seconds) = learner.collect()?;
        if learner.state.position.step == 0 {
            learner.check_first_rollouts(&rollouts)?;
        }
        let (selected, compared) = learner.compare(&mut rollouts)?;
        let selected: Vec<&Rollout> = selected.into_iter().map(|i| &rollouts[i]).collect();
        let started = Instant::now();
        let means = learner.update(&rollouts, &selected, rates.learning_rate, ce_weight)?;
        seconds.update = started.elapsed().as_secs_f64();
        training.end_update(&mut learner.state.position)?;
        learner.adapt(&rollouts, &means, training.progress(&learner.state.position) - rates.progress);
        learner.log(&mut training, &rollouts, &means, &rates, ce_weight, &seconds, compared)?;
        let position = learner.state.position.clone();
        training.end_step(&position, || learner.save())?;
    }
    training.finish(&learner.state.position, learner.policy)
}

/// Wall time of a step's phases, in seconds.
#[derive(Debug, Default)]
struct Seconds {
    generate: f64,
    score_wait: f64,
    /// The time that each rank waited for the slowest one's rollouts.
    idle: Vec<f64>,
    update: f64,
}

impl Learner<'_> {
    /// (1) The policy writes programs. Each is scored while others are still being written. Each
    /// rank writes those of its share of the parts, and all get the rollouts of all.
    fn collect(&mut self) -> Result<(Vec<Rollout>, Seconds)> {
        let started = Instant::now();
        let (config, world, step) = (self.config(), self.stage.world, self.state.position.step);
        let ppo = &config.ppo;
        let samples = ppo.samples_per_image;
        let parts = std::mem::take(&mut self.state.next);
        let places = self.places(&parts);
        let own = &places[world.rank()];
        let own_parts: Vec<usize> = own.iter().map(|&place| parts[place]).collect();
        // A completion has its seed whichever rank generates it.
        let seeds_of = |turn: usize| -> Vec<u64> {
            let own = own.iter().flat_map(|place| (0..samples).map(move |sample| place * samples + sample));
            let seed = |i: usize| match turn {
                0 => self.seed(&[step as u64, i as u64]),
                _ => self.seed(&[step as u64, i as u64, turn as u64]),
            };
            own.map(seed).collect()
        };
        let options = GenerateOptions {
            sampling: self.stage.sampling(ppo.temperature, 1.0),
            batch_size: config.generate.batch_size,
            keeps_states: ppo.algorithm == Algorithm::Ppo,
        };
        let snapshot = self.policy.frozen_copy();
        let (turns, scorer) = (config.turns(ppo.turns), self.stage.scorer);
        let pending = generate_episodes(&snapshot, self.prompted, &own_parts, seeds_of, options, turns, scorer)?;
        let generate = started.elapsed().as_secs_f64();
        if step + 1 < ppo.steps {
            self.state.next = self.parts_of_step(step + 1);
            self.prefetch();
        }
        let waiting = Instant::now();
        let mut rollouts = pending.finish()?;
        if config.reward.source == RewardSource::Image {
            reward_by_pictures(&mut rollouts, self.stage.train, config, scorer)?;
        }
        if let Some(command) = &self.reward_command {
            command.rate(&mut rollouts, self.stage.train, config, scorer)?;
        }
        let score_wait = waiting.elapsed().as_secs_f64();
        let done = Instant::now();
        let rollouts = gathered(world, self.policy, self.prompted, &parts, &places, rollouts, samples)?;
        let idle = world.gather("the idle time", done.elapsed().as_secs_f64())?;
        Ok((rollouts, Seconds { generate, score_wait, idle, update: 0.0 }))
    }

    /// (2) Fills in rewards, values, advantages and the reference's log-probabilities. Returns the
    /// indices of the rollouts to update on, and what there is to log of it.
    fn compare(&mut self, rollouts: &mut [Rollout]) -> Result<(Vec<usize>, StepNumbers)> {
        let config = self.config();
        let ppo = &config.ppo;
        self.set_absurd_aside(rollouts)?;
        shape_rewards(rollouts, config, &mut self.state.reward_scale);
        if self.state.position.step == 0 {
            let rewards: Vec<f32> = rollouts.iter().filter_map(|rollout| rollout.reward).collect();
            self.value_head.start_at(f64::from(rewards.iter().sum::<f32>() / rewards.len().max(1) as f32));
        }
        let numbers = self.observe(rollouts)?;
        if ppo.algorithm == Algorithm::Ppo {
            self.estimate_values(rollouts)?;
        }
        let selected = assign_advantages(rollouts, ppo);
        if self.trains_on_kl() {
            let members: Vec<&Rollout> = selected.iter().map(|&i| &rollouts[i]).collect();
            let ref_logprobs = self.ref_logprobs(rollouts, &members)?;
            for (&i, ref_logprobs) in selected.iter().zip(ref_logprobs) {
                rollouts[i].ref_logprobs = ref_logprobs;
            }
        }
        Ok((selected, numbers))
    }

    /// Sets the critic's values. Each rank estimates those of its own rollouts, whose states it
    /// has.
    fn estimate_values(&self, rollouts: &mut [Rollout]) -> Result<()> {
        let estimate = |(i, rollout): (usize, &Rollout)| {
            let states = rollout.completion.states.as_ref()?;
            Some((i, to_vec(&self.value_head.forward(states))))
        };
        let own: Vec<(usize, Vec<f32>)> = rollouts.iter().enumerate().filter_map(estimate).collect();
        for (i, values) in self.stage.world.gather("the critic's values", own)?.into_iter().flatten() {
            rollouts[i].values = values;
        }
        Ok(())
    }

    /// (3) The critic's update, then the policy's: `epochs` passes over the rollouts `selected` in
    /// minibatches, each with some cross-entropy. Each rank computes the gradients of its share of
    /// a minibatch. Returns means over the minibatches whose update was applied.
    fn update(
        &mut self,
        rollouts: &[Rollout],
        selected: &[&Rollout],
        learning_rate: f64,
        ce_weight: f64,
    ) -> Result<Means> {
        let (ppo, world) = (self.ppo(), self.stage.world);
        let mut means = Means::default();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed(&[self.state.position.step as u64]));
        if ppo.algorithm == Algorithm::Ppo {
            self.fit_critic(rollouts, &mut rng, &mut means)?;
        }
        if !self.trains_on_kl() {
            means.add("kl", self.sampled_kl(rollouts, selected)?, 1.0);
        }
        let embeddings = embeddings_when_generated(rollouts);
        let mut is_first = true;
        'epochs: for _ in 0..ppo.epochs {
            let mut order = selected.to_vec();
            order.shuffle(&mut rng);
            for minibatch in order.chunks(ppo.minibatch_size) {
                let demonstrations = if ce_weight > 0.0 { self.draw_demonstrations(&mut rng) } else { Vec::new() };
                // Neighbours in length go to different ranks.
                let minibatch = sorted_by_length(minibatch);
                let own: Vec<&Rollout> = world.share(&minibatch).copied().collect();
                let own_demonstrations: Vec<TokenizedExample> = world.share(&demonstrations).cloned().collect();
                let shown = own.iter().flat_map(|rollout| rollout.pictures());
                let shown = shown.chain(own_demonstrations.iter().flat_map(TokenizedExample::pictures));
                let embedded = self.prompted.pictures.embed_for_update(self.policy, shown, &embeddings);
                let mut numbers = Means::default();
                self.rl_backward(&own, token_count(&minibatch), minibatch.len(), &embedded, &mut numbers);
                let ce_tokens = response_tokens(&demonstrations);
                self.ce_backward(&own_demonstrations, ce_tokens, ce_weight, &embedded, &mut numbers);
                embedded.backward();
                let mut numbers = numbers.over_all(world)?;
                let moved = numbers.take("moved");
                if std::mem::take(&mut is_first) {
                    // No update has moved the policy yet, so what differs is sampler and trainer.
                    let gap = moved.unwrap_or(0.0);
                    means.add("sampler_gap", gap, 1.0);
                    if !std::mem::replace(&mut self.state.has_passed_ratio, true) {
                        let finding = gates::ratio(gap, self.config().model.dtype);
                        gates::pass(world, vec![finding], &self.config().run.allow)?;
                    }
                }
                let grad_norm = self.applied(learning_rate, &numbers, &minibatch)?;
                if !self.state.skipped.count(grad_norm, "ppo.learning_rate", ppo.learning_rate)? {
                    continue;
                }
                means.absorb(&numbers);
                means.add("grad_norm", grad_norm, 1.0);
                if ppo.target_kl > 0.0 && numbers.total("approx_kl") > ppo.target_kl {
                    break 'epochs;
                }
            }
        }
        Ok(means)
    }

    /// Applies a minibatch's gradients and returns their norm. If the norm or one of `numbers` is
    /// absurd, nothing is applied, the minibatch is written down, and the norm is NaN.
    fn applied(&mut self, learning_rate: f64, numbers: &Means, minibatch: &[&Rollout]) -> Result<f64> {
        let grad_norm = match absurd::of_minibatch(numbers, 0.0) {
            None => self.optimizer.step(self.stage.world, learning_rate)?,
            Some(_) => {
                self.optimizer.discard();
                f64::NAN
            }
        };
        if let Some(reason) = absurd::of_minibatch(numbers, grad_norm) {
            let batch = minibatch.iter().map(|rollout| absurd::described(rollout)).collect();
            self.post_mortem(&reason, numbers.iter().chain([("grad_norm", grad_norm)]), batch);
            return Ok(f64::NAN);
        }
        Ok(grad_norm)
    }

    /// Fits the critic to the returns of all scored rollouts, several times: it costs next to
    /// nothing. Each rank computes the gradients of its own rollouts, whose states it has.
    fn fit_critic(&mut self, rollouts: &[Rollout], rng: &mut ChaCha8Rng, means: &mut Means) -> Result<()> {
        let (ppo, world) = (self.ppo(), self.stage.world);
        let mut scored: Vec<&Rollout> = rollouts.iter().filter(|rollout| rollout.reward.is_some()).collect();
        for _ in 0..ppo.value_epochs {
            scored.shuffle(rng);
            for minibatch in scored.chunks(ppo.minibatch_size) {
                let has_states = |rollout: &&Rollout| rollout.completion.states.is_some();
                let own: Vec<&Rollout> = minibatch.iter().copied().filter(has_states).collect();
                let states: Vec<&Tensor> = own.iter().filter_map(|r| r.completion.states.as_ref()).collect();
                let mut numbers = Means::default();
                if !own.is_empty() {
                    let states = Tensor::cat(&states, 0);
                    let old_values = per_token(&own, |rollout| &rollout.values, states.device());
                    let returns = per_token(&own, |rollout| &rollout.returns, states.device());
                    let values = self.value_head.forward(&states);
                    let loss = value_loss(&values, &old_values, &returns, ppo.value_clip_range);
                    let share = token_count(&own) / token_count(minibatch);
                    (&loss * share).backward();
                    numbers.add_mean("value_loss", &loss, share);
                }
                let grad_norm = self.value_optimizer.step(world, ppo.value_learning_rate)?;
                let skipped = &mut self.state.skipped_by_critic;
                if skipped.count(grad_norm, "ppo.value_learning_rate", ppo.value_learning_rate)? {
                    means.absorb(&numbers.over_all(world)?);
                }
            }
        }
        Ok(())
    }

    /// Adds the gradients of the surrogate, KL and entropy terms of `own`, this rank's share of a
    /// minibatch of `all_tokens` tokens in `completions` completions. Each term is the mean over
    /// the minibatch's tokens, however it is divided into shares and micro-batches.
    fn rl_backward(
        &self,
        own: &[&Rollout],
        all_tokens: f64,
        completions: usize,
        embedded: &EmbeddedPictures,
        means: &mut Means,
    ) {
        let (ppo, policy, tokenizer) = (self.ppo(), &*self.policy, self.prompted.tokenizer);
        let device = policy.device();
        let mean_length = all_tokens / completions as f64;
        for members in own.chunks(self.micro_batch_size()) {
            let weight = token_count(members) / all_tokens;
            let batch = token_batch(members, tokenizer, device);
            let images = images_of(members, embedded);
            let factors: Vec<f32> = members
                .iter()
                .map(|rollout| {
                    (rollout.tokens().len(), length_factor(ppo.algorithm, rollout.tokens().len(), mean_length as f32))
                })
                .flat_map(|(length, factor)| std::iter::repeat_n(factor, length))
                .collect();
            let advantages = per_token(members, |rollout| &rollout.advantages, device)
                * Tensor::from_slice(&factors).to_device(device);
            let ref_logprobs = per_token(members, |rollout| &rollout.ref_logprobs, device);
            let old_logprobs = per_token(members, |rollout| &rollout.completion.logprobs, device);
            let pass = Pass::new(policy, &batch, &images, self.update_mode());
            pass.backward(weight, |logits, rows, share| {
                let share = share * weight;
                let [targets, old_logprobs, advantages] =
                    [&batch.targets, &old_logprobs, &advantages].map(|tensor| narrowed(tensor, &rows));
                let (logprobs, log_softmax) = token_logprobs(logits, &targets, ppo.temperature);
                let PolicyLoss { loss: policy_loss, clip_fraction } =
                    policy_loss(&logprobs, &old_logprobs, &advantages, ppo.clip_range);
                let entropy =
                    if ppo.entropy_coef > 0.0 { entropy(&log_softmax) } else { entropy(&log_softmax.detach()) };
                let mut loss = &policy_loss - &entropy * ppo.entropy_coef;
                if self.trains_on_kl() {
                    let kl = kl_k3(&logprobs, &narrowed(&ref_logprobs, &rows)).mean(Kind::Float);
                    means.add_mean("kl", &kl, share);
                    loss += kl * self.state.kl_coef;
                }
                means.add_mean("policy_loss", &policy_loss, share);
                means.add_mean("clip_fraction", &clip_fraction, share);
                means.add_mean("entropy", &entropy, share);
                let moved = logprobs.detach() - &old_logprobs;
                means.add_mean("moved", &moved.abs(), share);
                means.add_mean("ratio_mean", &moved.exp(), share);
                // KL(old || new) by k3 from tokens of the old policy.
                means.add_mean("approx_kl", &(moved.exp() - 1.0 - &moved), share);
                loss
            });
        }
    }

    /// Adds `weight` times the gradients of the cross-entropy of `own`, this rank's share of the
    /// demonstrations, over whose `all_tokens` tokens it is the mean.
    fn ce_backward(
        &self,
        own: &[TokenizedExample],
        all_tokens: usize,
        weight: f64,
        embedded: &EmbeddedPictures,
        means: &mut Means,
    ) {
        for members in own.chunks(self.micro_batch_size()) {
            let share = response_tokens(members) as f64 / all_tokens as f64;
            let (policy, tokenizer) = (&*self.policy, self.prompted.tokenizer);
            let (loss, _) =
                cross_entropy_backward(policy, tokenizer, members.iter(), embedded, weight * share, self.update_mode());
            means.add("ce_loss", loss, share);
        }
    }

    /// Adapts the coefficients for the next step. `further` is the progress of the stage in this
    /// one.
    fn adapt(&mut self, rollouts: &[Rollout], means: &Means, further: f64) {
        let kl_target = self.ppo().kl_target;
        if let Some(kl) = means.get("kl").filter(|kl| kl.is_finite()) {
            self.state.kl_coef = adapted_kl_coef(self.state.kl_coef, kl, kl_target);
            self.state.ce_guard.advance(vsr(rollouts), kl, kl_target, further);
        }
    }

    /// (4) Logs the step, and validates the policy if that is due.
    fn log(
        &mut self,
        training: &mut TrainingLoop,
        rollouts: &[Rollout],
        means: &Means,
        rates: &StepRates,
        ce_weight: f64,
        seconds: &Seconds,
        compared: StepNumbers,
    ) -> Result<()> {
        let mut numbers = rollout_numbers(rollouts, self.stage.config);
        let alarms = self.watch(rollouts, means, &mut numbers);
        if let Some(command) = &self.reward_command {
            numbers.extend(command.numbers(self.stage.world)?.as_pairs());
        }
        self.write_samples(rollouts);
        self.write_histograms(training, rollouts);
        let (ppo, state) = (self.ppo(), &mut self.state);
        numbers.extend((ppo.ce_own_share > 0.0).then(|| ("own_programs", state.own_programs.len() as f64)));
        let is_spread_used = ppo.curriculum == Curriculum::Signal;
        numbers.extend(is_spread_used.then(|| ("parts_seen", state.reward_spread.seen() as f64)));
        numbers.extend(compared.as_pairs());
        numbers.extend(means.iter());
        numbers.extend([
            ("seconds", state.position.seconds),
            ("lr", rates.learning_rate),
            ("ce_weight", ce_weight),
            ("kl_coef", state.kl_coef),
            ("updates", means.weight("grad_norm")),
            ("absurd", state.absurd as f64),
            ("skipped_updates", (state.skipped.total + state.skipped_by_critic.total) as f64),
            ("seconds_generate", seconds.generate),
            ("seconds_score_wait", seconds.score_wait),
            ("seconds_idle", cadwright_rewards::stats::mean(&seconds.idle)),
            ("seconds_update", seconds.update),
        ]);
        if seconds.idle.len() > 1 {
            seconds
                .idle
                .iter()
                .enumerate()
                .for_each(|(rank, idle)| numbers.push(format!("seconds_idle/rank_{rank}"), *idle));
        }
        let line = format!(
            "reward {:.3}  IoU {:.3}  VSR {:.3}  KL {:.4}  CE weight {ce_weight:.2}  generate {:.1} wait {:.1} update {:.1} s",
            numbers.get("reward_mean"),
            numbers.get("iou_mean"),
            numbers.get("vsr"),
            numbers.get("kl"),
            seconds.generate,
            seconds.score_wait,
            seconds.update,
        );
        let validation = training.log_step(&mut state.position, self.policy, &line, numbers, None)?;
        if let Some(validation) = validation {
            state.health.validated(validation.report.iou);
        }
        training.raise(&state.position, &alarms, self.stage.config.run.alarms);
        Ok(())
    }
}
