//! Proximal policy optimisation on the reward of executed programs (Schulman et al. 2017, arXiv:1707.06347).
//!
//! Each step: (1) *collect*: the policy writes programs for a few pictures, and each is scored while others are still being
//! written; (2) *compute*: values, reference log-probs, advantages; (3) *update*: clipped policy and value losses, KL to the
//! reference, entropy, and cross-entropy on known programs with a weight that is annealed; (4) *log*.
//!
//! `ppo.algorithm` chooses what rewards are compared with (`advantages.rs`); without a critic the loop is that of RLOO, GRPO or
//! Dr. GRPO.
//!
//! Departures from the paper: the KL to the frozen SFT model is a term of the loss (as in GRPO), not of the reward; the
//! critic is a head over the policy's last hidden state that sends no gradient into it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use cadwright_rollout::Report;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::Stage;
use super::advantages::{Advantages, Rewarded, RunningScale, advantages};
use super::checkpoint::{self, CheckpointPart};
use super::curriculum::{Signal, by_epochs};
use super::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use super::imitation::OwnPrograms;
use super::losses::{PolicyLoss, cross_entropy, entropy, kl_k3, policy_loss, value_loss};
use super::optim::{Optimizer, OptimizerConfig};
use super::rollouts::{Experience, Means, Rollouts, flat, rollout_numbers, shaped_rewards};
use super::schedule::{CeGuard, LearningRate, adapted_kl_coef, ce_weight, progress};
use super::sft::{TokenizedExample, examples, finish};
use super::validation::{Best, ceiling, ceiling_k, validate};
use crate::config::{Algorithm, CeSchedule, Config, Curriculum, OptimizerKind, Ppo};
use crate::eval::predict::{GenerateOptions, Generated, PromptedDataset, generate_and_score};
use crate::model::{InternVl, ValueHead};
use crate::pictures::{EmbeddedPictures, Pictures};
use crate::seeds::seed;
use crate::telemetry::Telemetry;

/// Trains `policy`, which is also the reference, and leaves the best checkpoint by validation IoU in `<run>/ppo/best` and the last
/// one in `<run>/ppo/last`. A killed stage goes on from its last checkpoint.
///
/// # Errors
/// A directory that cannot be written, a checkpoint of another model, or a scorer that cannot go on.
pub fn train(stage: &Stage, policy: &mut InternVl) -> Result<()> {
    let Stage { config, train, .. } = stage;
    let ppo = &config.ppo;
    let cache_mib = if policy.trains_vision() { 0 } else { config.model.vision_cache_mib };
    let pictures = Pictures::new(train, config.model.max_tiles, cache_mib);
    let prompted = stage.prompted(train, &pictures);
    let mut learner = Learner::new(stage, &prompted, policy)?;
    let mut telemetry = Telemetry::open(&stage.run_dir, "ppo", learner.state.step, ppo.steps)?.within(ppo.max_seconds);
    if learner.state.step == 0 {
        learner.measure_the_start(&mut telemetry)?;
    }
    learner.prefetch();

    let (started, seconds_before) = (Instant::now(), learner.state.seconds);
    while learner.progress() < 1.0 {
        let rates = learner.rates();
        let rollouts = learner.collect()?;
        let (experience, chosen) = learner.compute(&rollouts);
        let means = learner.update(&rollouts, &experience, &chosen, &rates)?;
        learner.state.seconds = seconds_before + started.elapsed().as_secs_f64();
        learner.end_step(&rollouts, &means, &rates);
        learner.log(&rollouts, &experience, &means, &rates, &mut telemetry)?;
        if learner.state.step.is_multiple_of(ppo.checkpoint_every) && learner.progress() < 1.0 {
            learner.save()?;
        }
    }
    let PpoState { step, best, seconds, .. } = &learner.state;
    finish(
        stage,
        "ppo",
        learner.policy,
        &json!({"steps": step, "val_iou": best.iou, "best_step": best.step, "seconds": seconds}),
    )
}

/// Sets the seeds of PPO apart from those of other stages.
const PPO_STREAM: u64 = 0x990;

/// Policy, reference and critic, and where their training is.
struct Learner<'a> {
    stage: &'a Stage<'a>,
    prompted: &'a PromptedDataset<'a>,
    /// The rows that the cross-entropy may see.
    labelled: Vec<TokenizedExample>,
    policy: &'a mut InternVl,
    reference: InternVl,
    optimizer: Optimizer,
    value_head: ValueHead,
    value_optimizer: Optimizer,
    state: PpoState,
}

/// Everything besides tensors that a checkpoint keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PpoState {
    step: usize,
    kl_coef: f64,
    best: Best,
    seconds: f64,
    ce_guard: CeGuard,
    reward_scale: RunningScale,
    signal: Signal,
    own_programs: OwnPrograms,
    /// The parts of the next step: chosen one step ahead, so that their ground truths are executed in time.
    next: Vec<usize>,
}

/// What a step is made with.
struct Rates {
    /// Share of the stage that is over.
    progress: f64,
    learning_rate: f64,
    ce_weight: f64,
}

impl<'a> Learner<'a> {
    fn new(stage: &'a Stage<'a>, prompted: &'a PromptedDataset<'a>, policy: &'a mut InternVl) -> Result<Self> {
        let Stage { config, train, .. } = stage;
        let ppo = &config.ppo;
        let (labelled, _) = examples(prompted, policy, config.sft.max_length);
        ensure!(
            ppo.ce_weight == 0.0 || !labelled.is_empty(),
            "ppo.ce_weight = {}, but no training row has a program that fits sft.max_length = {}; set ppo.ce_weight=0",
            ppo.ce_weight,
            config.sft.max_length
        );
        let value_seed = seed(&[u64::from(config.run.seed), PPO_STREAM]) as i64;
        let value_head = ValueHead::new(policy.config.llm_config.hidden_size, value_seed, policy.device());
        let optimizer_config = |kind| OptimizerConfig {
            kind,
            weight_decay: ppo.weight_decay,
            betas: ppo.betas,
            max_grad_norm: ppo.max_grad_norm,
        };
        let state = PpoState {
            step: 0,
            kl_coef: ppo.kl_coef,
            best: Best::default(),
            seconds: 0.0,
            ce_guard: CeGuard::default(),
            reward_scale: RunningScale::default(),
            own_programs: OwnPrograms::default(),
            signal: Signal::new(if ppo.curriculum == Curriculum::Signal { train.len() } else { 0 }),
            next: Vec::new(),
        };
        let mut learner = Self {
            stage,
            prompted,
            labelled,
            reference: policy.frozen_copy(),
            optimizer: Optimizer::new(policy.weights(), optimizer_config(ppo.optimizer)),
            policy,
            value_optimizer: Optimizer::new(value_head.weights(), optimizer_config(OptimizerKind::Adamw)),
            value_head,
            state,
        };
        let directory = learner.checkpoint_dir();
        if let Some(saved) = checkpoint::load::<PpoState>(&directory, &mut learner.parts())? {
            learner.state = saved;
            eprintln!("ppo: goes on at step {}", learner.state.step);
        }
        Ok(learner)
    }

    /// The SFT policy is the first candidate: what PPO leaves is no worse on the validation parts.
    fn measure_the_start(&mut self, telemetry: &mut Telemetry) -> Result<()> {
        let config = self.config();
        let report = self.validate(telemetry)?;
        let mut numbers = vec![("seconds", 0.0), ("val_vsr", report.vsr), ("val_iou", report.iou)];
        if let Some((mean, best)) = ceiling(self.stage, self.policy)? {
            let k = ceiling_k(&config.ppo);
            telemetry
                .note(&format!("ppo: sampled IoU of the SFT policy {mean:.3}; best of {k} {best:.3}, the ceiling"));
            numbers.extend([("ceiling_mean", mean), ("ceiling_best", best)]);
        }
        telemetry.record(0, &numbers)?;
        self.state.next = self.pictures_of_step(0);
        Ok(())
    }

    fn rates(&self) -> Rates {
        let ppo = self.ppo();
        let progress = self.progress();
        let schedule = LearningRate {
            peak: ppo.learning_rate,
            warmup_steps: ppo.warmup_steps,
            hold: ppo.hold,
            final_lr: ppo.final_lr,
        };
        let annealed = if ppo.ce_schedule == CeSchedule::Guarded { self.state.ce_guard.progress } else { progress };
        Rates {
            progress,
            learning_rate: schedule.at(self.state.step, progress),
            ce_weight: ce_weight(ppo.ce_schedule, ppo.ce_weight, ppo.ce_anneal_until, annealed),
        }
    }

    /// (1) The policy writes programs, each of which is scored while others are being written.
    fn collect(&mut self) -> Result<Rollouts> {
        let started = Instant::now();
        let (config, step) = (self.config(), self.state.step);
        let ppo = &config.ppo;
        let indices = std::mem::take(&mut self.state.next);
        let snapshot = self.policy.frozen_copy();
        let seeds: Vec<u64> = (0..indices.len() * ppo.samples_per_image)
            .map(|i| seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64, i as u64]))
            .collect();
        let options = GenerateOptions {
            sampling: self.stage.sampling(ppo.temperature, 1.0),
            batch_size: config.generate.batch_size,
            keeps_states: ppo.algorithm == Algorithm::Ppo,
        };
        let Generated { prompts, completions, states, batch } =
            generate_and_score(&snapshot, self.prompted, &indices, &seeds, options, self.stage.scorer);
        let seconds_generate = started.elapsed().as_secs_f64();
        if step + 1 < ppo.steps {
            self.state.next = self.pictures_of_step(step + 1);
            self.prefetch();
        }
        let waiting = Instant::now();
        let scores = batch.finish()?;
        let seconds_score_wait = waiting.elapsed().as_secs_f64();
        Ok(Rollouts { indices, prompts, completions, scores, states, seconds_generate, seconds_score_wait })
    }

    /// (2) Values, advantages and reference log-probs; and the completions that are updated on.
    fn compute(&mut self, rollouts: &Rollouts) -> (Vec<Experience>, Vec<usize>) {
        let config = self.config();
        let ppo = &config.ppo;
        let rewards = shaped_rewards(rollouts, config, &mut self.state.reward_scale);
        if self.state.step == 0 {
            self.value_head.start_at(f64::from(rewards.iter().sum::<f32>() / rewards.len().max(1) as f32));
        }
        if ppo.ce_own_share > 0.0 {
            self.keep_own_programs(rollouts);
        }
        if ppo.curriculum == Curriculum::Signal {
            for (&part, rewards) in rollouts.indices.iter().zip(rewards.chunks(ppo.samples_per_image)) {
                self.state.signal.observe(part, rewards);
            }
        }
        let values: Vec<Vec<f32>> = match ppo.algorithm {
            Algorithm::Ppo => rollouts.states.iter().map(|states| to_vec(&self.value_head.forward(states))).collect(),
            _ => vec![Vec::new(); rewards.len()],
        };
        let rewarded: Vec<Rewarded<'_>> = (0..rewards.len())
            .map(|i| Rewarded {
                reward: rewards[i],
                tokens: &rollouts.completions[i].tokens,
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
        let mut experience: Vec<Experience> = values.into_iter().zip(found).map(of).collect();

        if self.trains_on_kl() {
            for (&i, ref_logprobs) in chosen.iter().zip(self.ref_logprobs(rollouts, &chosen)) {
                experience[i].ref_logprobs = ref_logprobs;
            }
        }
        (experience, chosen)
    }

    /// (3) The critic's update, then the policy's: `epochs` passes over the completions `chosen`, in minibatches, each with some
    /// cross-entropy beside it.
    fn update(
        &mut self,
        rollouts: &Rollouts,
        experience: &[Experience],
        chosen: &[usize],
        rates: &Rates,
    ) -> Result<Means> {
        let started = Instant::now();
        let (config, step) = (self.config(), self.state.step);
        let ppo = &config.ppo;
        let mut means = Means::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed(&[u64::from(config.run.seed), PPO_STREAM, step as u64]));
        if ppo.algorithm == Algorithm::Ppo {
            self.fit_critic(rollouts, experience, &mut rng, &mut means);
        }
        if !self.trains_on_kl() {
            means.add("kl", &Tensor::from(self.sampled_kl(rollouts, chosen)), 1.0);
        }
        let seen = rollouts.images();
        'epochs: for _ in 0..ppo.epochs {
            let mut order = chosen.to_vec();
            order.shuffle(&mut rng);
            for minibatch in order.chunks(ppo.minibatch_size) {
                let moved_before = means.total("approx_kl");
                let known = if rates.ce_weight > 0.0 { self.known_programs(&mut rng) } else { Vec::new() };
                let indices =
                    minibatch.iter().map(|&i| rollouts.picture(i)).chain(known.iter().map(|known| known.index));
                let embedded =
                    self.prompted.pictures.embed_for_update(self.policy, &indices.collect::<Vec<_>>(), &seen);
                self.ppo_backward(rollouts, experience, minibatch, &embedded, &mut means);
                self.ce_backward(&known, rates.ce_weight, &embedded, &mut means);
                embedded.backward();
                let grad_norm = self.optimizer.step(rates.learning_rate);
                means.add("grad_norm", &Tensor::from(grad_norm), 1.0);
                // Each minibatch adds its mean with weight 1.
                let moved = means.total("approx_kl") - moved_before;
                if ppo.target_kl > 0.0 && moved > ppo.target_kl {
                    break 'epochs;
                }
            }
        }
        let (kl, grad_norm) = (means.get("kl").unwrap_or_default(), means.get("grad_norm").unwrap_or_default());
        ensure!(
            kl.is_finite() && grad_norm.is_finite(),
            "ppo: the KL divergence is {kl} and the gradient's norm {grad_norm} at step {step}; lower ppo.learning_rate = {}",
            ppo.learning_rate
        );
        means.add("seconds_update", &Tensor::from(started.elapsed().as_secs_f64()), 1.0);
        Ok(means)
    }

    /// Fits the critic to the returns. It sees all completions, several times, for next to the policy's update that costs
    /// nothing.
    fn fit_critic(&mut self, rollouts: &Rollouts, experience: &[Experience], rng: &mut ChaCha8Rng, means: &mut Means) {
        let ppo = &self.stage.config.ppo;
        let mut scored: Vec<usize> = (0..experience.len()).filter(|&i| rollouts.is_scored(i)).collect();
        for _ in 0..ppo.value_epochs {
            scored.shuffle(rng);
            for chunk in scored.chunks(ppo.minibatch_size) {
                let states = Tensor::cat(&chunk.iter().map(|&i| &rollouts.states[i]).collect::<Vec<_>>(), 0);
                let flat = |of: fn(&Experience) -> &[f32]| flat(experience, chunk, of, states.device());
                let (old_values, returns) = (flat(|e| &e.values), flat(|e| &e.returns));
                let values = self.value_head.forward(&states);
                let loss = value_loss(&values, &old_values, &returns, ppo.value_clip_range);
                means.add("value_loss", &loss, 1.0);
                loss.backward();
                self.value_optimizer.step(ppo.value_learning_rate);
            }
        }
    }

    /// Adds the gradients of policy, KL and entropy terms over the completions `minibatch`: means over its tokens, however it is cut
    /// into micro-batches.
    fn ppo_backward(
        &self,
        rollouts: &Rollouts,
        experience: &[Experience],
        minibatch: &[usize],
        embedded: &EmbeddedPictures,
        means: &mut Means,
    ) {
        let (ppo, policy, prompted) = (self.ppo(), &*self.policy, self.prompted);
        let trains_on_kl = self.trains_on_kl();
        for chosen in rollouts.by_length(minibatch).chunks(self.micro_batch_size()) {
            let weight = rollouts.tokens(chosen) / rollouts.tokens(minibatch);
            let batch = rollouts.token_batch(chosen, prompted.tokenizer, policy.device());
            let images = embedded.concatenated(chosen.iter().map(|&i| rollouts.picture(i)));
            let advantages = flat(experience, chosen, |e| &e.advantages, policy.device());
            let ref_logprobs = flat(experience, chosen, |e| &e.ref_logprobs, policy.device());
            let old_logprobs = rollouts.old_logprobs(chosen, policy.device());
            let pass = Pass::new(policy, &batch, &images, prompted.tokenizer.image_token, self.update_mode());
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
                if trains_on_kl {
                    let kl = kl_k3(&logprobs, &narrowed(&ref_logprobs, &rows)).mean(Kind::Float);
                    means.add("kl", &kl, share);
                    loss += kl * self.state.kl_coef;
                }
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
    }

    /// Programs for the cross-entropy of one optimiser step: ground truths of random rows, and the policy's own for rows without one
    /// where `ppo.ce_own_share` asks for them. Those of like length are beside each other.
    fn known_programs(&self, rng: &mut ChaCha8Rng) -> Vec<TokenizedExample> {
        let (policy, prompted, ppo) = (&*self.policy, self.prompted, self.ppo());
        let own = (ppo.ce_own_share * ppo.ce_batch_size as f64).round() as usize;
        let own = self.state.own_programs.draw(own, rng);
        let mut known: Vec<TokenizedExample> = own
            .into_iter()
            .map(|(row, tokens)| TokenizedExample::new(prompted, policy, row, tokens.to_vec()))
            .collect();
        let labelled = (ppo.ce_batch_size - known.len()).min(self.labelled.len());
        let labelled = rand::seq::index::sample(rng, self.labelled.len(), labelled);
        known.extend(labelled.iter().map(|i| self.labelled[i].clone()));
        known.sort_by_key(TokenizedExample::len);
        known
    }

    /// Adds `weight` times the gradients of the mean cross-entropy over the tokens of `known` programs.
    fn ce_backward(&self, known: &[TokenizedExample], weight: f64, embedded: &EmbeddedPictures, means: &mut Means) {
        let (policy, prompted) = (&*self.policy, self.prompted);
        let tokens =
            |examples: &[TokenizedExample]| examples.iter().map(|example| example.response.len()).sum::<usize>() as f64;
        for chosen in known.chunks(self.micro_batch_size()) {
            let share = tokens(chosen) / tokens(known);
            let sequences = chosen.iter().map(|example| (&example.prompt[..], example.response.as_slice()));
            let batch = TokenBatch::new(sequences, prompted.tokenizer, policy.device());
            let images = embedded.concatenated(chosen.iter().map(|example| example.index));
            let pass = Pass::new(policy, &batch, &images, prompted.tokenizer.image_token, self.update_mode());
            let loss = pass
                .backward(weight * share, |logits, rows, _| cross_entropy(logits, &narrowed(&batch.targets, &rows)));
            means.add("ce_loss", &Tensor::from(loss), share);
        }
    }

    /// Of rows without a program, the policy's own one is a label if it is good enough.
    fn keep_own_programs(&mut self, rollouts: &Rollouts) {
        let Stage { config, train, .. } = self.stage;
        for (i, (score, completion)) in rollouts.scores.iter().zip(&rollouts.completions).enumerate() {
            let row = rollouts.indices[i / config.ppo.samples_per_image];
            let iou = score.iou_in(config.reward_frame());
            let is_label = score.verdict.is_valid() && !completion.truncated && iou >= config.ppo.ce_own_iou;
            if is_label && train.examples()[row].program.is_none() {
                self.state.own_programs.observe(row, iou, &completion.tokens);
            }
        }
    }

    /// What follows from a step for the next one.
    fn end_step(&mut self, rollouts: &Rollouts, means: &Means, rates: &Rates) {
        let kl = means.get("kl").unwrap_or_default();
        let kl_target = self.ppo().kl_target;
        self.state.kl_coef = adapted_kl_coef(self.state.kl_coef, kl, kl_target);
        self.state.step += 1;
        let further = self.progress() - rates.progress;
        self.state.ce_guard.advance(rollouts.vsr(), kl, kl_target, further);
    }

    /// (4) Numbers, the line on the terminal, and validation where it is due.
    fn log(
        &mut self,
        rollouts: &Rollouts,
        experience: &[Experience],
        means: &Means,
        rates: &Rates,
        telemetry: &mut Telemetry,
    ) -> Result<()> {
        let config = self.config();
        let ppo = &config.ppo;
        let (step, progress) = (self.state.step - 1, self.progress());
        let mut numbers = rollout_numbers(rollouts, experience, config);
        if ppo.ce_own_share > 0.0 {
            numbers.push(("own_programs".to_owned(), self.state.own_programs.len() as f64));
        }
        if ppo.curriculum == Curriculum::Signal {
            numbers.push(("parts_seen".to_owned(), self.state.signal.seen() as f64));
        }
        numbers.extend(FROM_UPDATE.iter().filter_map(|name| Some(((*name).to_owned(), means.get(name)?))));
        numbers.extend([
            ("seconds".to_owned(), self.state.seconds),
            ("lr".to_owned(), rates.learning_rate),
            ("ce_weight".to_owned(), rates.ce_weight),
            ("kl_coef".to_owned(), self.state.kl_coef),
            ("updates".to_owned(), means.count("grad_norm")),
            ("seconds_generate".to_owned(), rollouts.seconds_generate),
            ("seconds_score_wait".to_owned(), rollouts.seconds_score_wait),
        ]);
        let number = |wanted: &str| numbers.iter().find(|(name, _)| name == wanted).map_or(0.0, |(_, value)| *value);
        let line = format!(
            "reward {:.3}  IoU {:.3}  VSR {:.3}  KL {:.4}  CE weight {:.2}  generate {:.1} wait {:.1} update {:.1} s",
            number("reward_mean"),
            number("iou_mean"),
            number("vsr"),
            number("kl"),
            rates.ce_weight,
            rollouts.seconds_generate,
            rollouts.seconds_score_wait,
            number("seconds_update"),
        );
        telemetry.say(step, progress, &line);
        if progress == 1.0 || self.state.step.is_multiple_of(ppo.validate_every) {
            let report = self.validate(telemetry)?;
            let iou = report.iou;
            numbers.extend([("val_vsr".to_owned(), report.vsr), ("val_iou".to_owned(), iou)]);
            telemetry.note_step(step, progress, &format!("validation: VSR {:.3}  IoU {iou:.3}", report.vsr));
        }
        let numbers: Vec<(&str, f64)> = numbers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        telemetry.record(step, &numbers)
    }

    fn validate(&mut self, telemetry: &mut Telemetry) -> Result<Report> {
        let (samples, step) = (self.ppo().validation_samples, self.state.step);
        let directory = self.stage.run_dir.join("ppo/best");
        validate(self.stage, self.policy, samples, step, &mut self.state.best, &directory, telemetry)
    }

    /// Whether the loss has a KL term, or is to have one when its coefficient moves.
    fn trains_on_kl(&self) -> bool {
        self.state.kl_coef > 0.0 || self.ppo().kl_target > 0.0
    }

    /// KL(policy that sampled || reference), where it is only watched: estimated from every eighth of the completions.
    fn sampled_kl(&self, rollouts: &Rollouts, chosen: &[usize]) -> f64 {
        let asked: Vec<usize> = chosen.iter().copied().step_by(8).collect();
        if asked.is_empty() {
            return 0.0;
        }
        let ref_logprobs = Tensor::from_slice(&self.ref_logprobs(rollouts, &asked).concat());
        kl_k3(&rollouts.old_logprobs(&asked, Device::Cpu), &ref_logprobs).mean(Kind::Float).double_value(&[])
    }

    /// The reference's log-probabilities of the tokens of the completions `asked`, in that order.
    fn ref_logprobs(&self, rollouts: &Rollouts, asked: &[usize]) -> Vec<Vec<f32>> {
        let (reference, tokenizer) = (&self.reference, self.prompted.tokenizer);
        let indices: Vec<usize> = asked.iter().map(|&i| rollouts.picture(i)).collect();
        // A vision tower that is trained has moved away from the reference's: that one looks for itself.
        let seen = if self.policy.trains_vision() { BTreeMap::new() } else { rollouts.images() };
        let embedded = tch::no_grad(|| self.prompted.pictures.embed_for_update(reference, &indices, &seen));
        let mut found = BTreeMap::new();
        for chunk in rollouts.by_length(asked).chunks(self.micro_batch_size()) {
            let batch = rollouts.token_batch(chunk, tokenizer, reference.device());
            let images = embedded.concatenated(chunk.iter().map(|&i| rollouts.picture(i)));
            let pass =
                tch::no_grad(|| Pass::new(reference, &batch, &images, tokenizer.image_token, PassMode::default()));
            let logprobs = to_vec(&pass.logprobs(&batch.targets, self.ppo().temperature));
            let mut rest = logprobs.as_slice();
            for &i in chunk {
                let (own, others) = rest.split_at(rollouts.completions[i].tokens.len());
                found.insert(i, own.to_vec());
                rest = others;
            }
        }
        asked.iter().map(|i| found.remove(i).unwrap_or_default()).collect()
    }

    /// The parts of a step.
    fn pictures_of_step(&self, step: usize) -> Vec<usize> {
        let (ppo, run_seed) = (self.ppo(), u64::from(self.config().run.seed));
        let (parts, count) = (self.stage.train.len(), ppo.images_per_step);
        match ppo.curriculum {
            Curriculum::Uniform => {
                by_epochs(parts, count, step, |epoch| seed(&[run_seed, PPO_STREAM, u64::MAX, epoch]))
            }
            Curriculum::Signal => self.state.signal.draw(count, seed(&[run_seed, PPO_STREAM, u64::MAX, step as u64])),
        }
    }

    /// Has the ground truths of the next step executed in the background.
    fn prefetch(&self) {
        let Stage { scorer, train, .. } = self.stage;
        scorer.prefetch(self.state.next.iter().map(|&index| train.examples()[index].ground_truth.clone()));
    }

    fn save(&mut self) -> Result<()> {
        let (directory, state) = (self.checkpoint_dir(), self.state.clone());
        checkpoint::save(&directory, &self.parts(), &state)
    }

    fn parts(&mut self) -> [CheckpointPart<'_>; 2] {
        [
            CheckpointPart { name: "policy", weights: self.policy.weights_mut(), optimizer: &mut self.optimizer },
            CheckpointPart {
                name: "value_head",
                weights: self.value_head.weights_mut(),
                optimizer: &mut self.value_optimizer,
            },
        ]
    }

    fn checkpoint_dir(&self) -> PathBuf {
        self.stage.run_dir.join("ppo/checkpoint")
    }

    /// Share of the stage that is over.
    fn progress(&self) -> f64 {
        let ppo = self.ppo();
        progress(self.state.step, ppo.steps, self.state.seconds, ppo.max_seconds)
    }

    /// No dropout: the ratio compares this policy with the one that sampled.
    fn update_mode(&self) -> PassMode {
        let gradient_checkpointing = self.config().model.gradient_checkpointing;
        PassMode { gradient_checkpointing, ..PassMode::default() }
    }

    fn micro_batch_size(&self) -> usize {
        let ppo = self.ppo();
        if ppo.micro_batch_size == 0 { ppo.minibatch_size } else { ppo.micro_batch_size }
    }

    fn config(&self) -> &'a Config {
        self.stage.config
    }

    fn ppo(&self) -> &'a Ppo {
        &self.stage.config.ppo
    }
}

/// Means of the update that are logged by name.
const FROM_UPDATE: [&str; 10] = [
    "policy_loss",
    "value_loss",
    "kl",
    "approx_kl",
    "clip_fraction",
    "entropy",
    "ce_loss",
    "ratio_mean",
    "grad_norm",
    "seconds_update",
];

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous()).expect("a contiguous f32 tensor copies to a vector")
}
