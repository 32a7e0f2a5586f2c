//! The state of reinforcement learning: policy, reference and critic, the content of a checkpoint,
//! and the functions that a step needs. `ppo.rs` has the step itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use cadwright_rewards::RewardSource;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::absurd;
use super::alarms::{Alarm, Health, History, Limits, failure_shares, one_program};
use super::checkpoint::{self, CheckpointPart};
use super::curriculum::{RewardSpread, by_epochs};
use super::examples::{TokenizedExample, tokenized_examples};
use super::forward::PassMode;
use super::gates;
use super::imitation::{OwnPrograms, draw_demonstrations};
use super::losses::kl_k3;
use super::metrics::{Means, StepNumbers};
use super::minibatch::{embeddings_when_generated, logprobs_under, per_token};
use super::optim::{Optimizer, OptimizerConfig, SkippedUpdates};
use super::proxy::ProxyWatch;
use super::reward_command::RewardCommand;
use super::samples::SamplesLog;
use super::schedule::{CeGuard, ce_weight};
use super::shaping::RunningScale;
use super::shards::Shard;
use super::training_loop::{LoopConfig, Position, StepRates, TrainingLoop};
use super::validation::{ceiling, ceiling_k};
use super::{Stage, stream};
use crate::config::{CeSchedule, Config, Curriculum, OptimizerKind, OwnSource, Ppo};
use crate::generate::Completion;
use crate::model::{InternVl, ValueHead};
use crate::pictures::Picture;
use crate::rollouts::{PromptedDataset, Rollout, divided, sent_turn};
use crate::seeds::seed;

/// Policy, reference and critic, with the state of their training.
pub(super) struct Learner<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) prompted: &'a PromptedDataset<'a>,
    /// The ground truths that the cross-entropy may use.
    pub(super) ground_truths: Vec<TokenizedExample>,
    pub(super) policy: &'a mut InternVl,
    pub(super) reference: InternVl,
    pub(super) optimizer: Optimizer,
    pub(super) value_head: ValueHead,
    pub(super) value_optimizer: Optimizer,
    pub(super) reward_command: Option<RewardCommand>,
    /// Where completions are written, on rank 0.
    pub(super) samples: Option<SamplesLog>,
    pub(super) state: PpoState,
}

/// The content of a checkpoint besides tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PpoState {
    #[serde(flatten)]
    pub(super) position: Position,
    pub(super) kl_coef: f64,
    pub(super) ce_guard: CeGuard,
    pub(super) reward_scale: RunningScale,
    pub(super) reward_spread: RewardSpread,
    pub(super) own_programs: OwnPrograms,
    #[serde(default)]
    pub(super) proxy: ProxyWatch,
    #[serde(default)]
    pub(super) health: History,
    /// Whether the gate `ratio` is behind the run: it needs an update.
    #[serde(default)]
    pub(super) has_passed_ratio: bool,
    /// Completions so far that could not be learned from.
    #[serde(default)]
    pub(super) absurd: usize,
    /// Batches so far that were written down.
    #[serde(default)]
    pub(super) post_mortems: usize,
    pub(super) skipped: SkippedUpdates,
    pub(super) skipped_by_critic: SkippedUpdates,
    /// The parts of the next step. They are chosen one step ahead, so that their ground truths are
    /// executed in time.
    pub(super) next: Vec<usize>,
}

impl<'a> Learner<'a> {
    /// A learner whose reference is `policy` as it is now, restored from its checkpoint if there is
    /// one.
    pub(super) fn new(
        stage: &'a Stage<'a>,
        prompted: &'a PromptedDataset<'a>,
        policy: &'a mut InternVl,
    ) -> Result<Self> {
        let Stage { config, train, .. } = stage;
        let ppo = &config.ppo;
        let ground_truths = tokenized_examples(prompted, policy, config.sft.max_length).examples;
        ensure!(
            ppo.ce_weight == 0.0 || ppo.ce_own_share == 1.0 || !ground_truths.is_empty(),
            "ppo.ce_weight = {}, but no training row has a program that fits sft.max_length = {}; set ppo.ce_weight=0, or ppo.ce_own_share=1 to imitate the policy's own programs only",
            ppo.ce_weight,
            config.sft.max_length
        );
        let value_seed = seed(&[u64::from(config.run.seed), stream("ppo")]) as i64;
        let value_head = ValueHead::new(policy.config.llm_config.hidden_size, value_seed, policy.device());
        let optimizer_config = LoopConfig::ppo(config).optimizer;
        let value_config = OptimizerConfig { kind: OptimizerKind::Adamw, ..optimizer_config };
        let shard = Shard::of(stage.world, config.distributed.shard_optimizer);
        let is_spread_used = ppo.curriculum == Curriculum::Signal;
        let state = PpoState {
            position: Position::default(),
            kl_coef: ppo.kl_coef,
            ce_guard: CeGuard::default(),
            reward_scale: RunningScale::default(),
            reward_spread: RewardSpread::new(if is_spread_used { train.len() } else { 0 }),
            own_programs: OwnPrograms::default(),
            proxy: ProxyWatch::default(),
            health: History::default(),
            has_passed_ratio: false,
            absurd: 0,
            post_mortems: 0,
            skipped: SkippedUpdates::default(),
            skipped_by_critic: SkippedUpdates::default(),
            next: Vec::new(),
        };
        let mut learner = Self {
            stage,
            prompted,
            ground_truths,
            reference: policy.frozen_copy(),
            optimizer: Optimizer::sharded(policy.weights(), optimizer_config, shard),
            policy,
            value_optimizer: Optimizer::new(value_head.weights(), value_config),
            value_head,
            reward_command: RewardCommand::start(stage)?,
            samples: None,
            state,
        };
        let directory = learner.checkpoint_dir();
        if let Some(saved) = checkpoint::load::<PpoState>(stage.world, &directory, &mut learner.parts())? {
            learner.state = saved;
            stage.world.say(&format!("ppo: goes on at step {} of {}", learner.state.position.step, ppo.steps));
        }
        if stage.world.is_main() {
            let (step, limit) = (learner.state.position.step, ppo.samples_log_mib);
            learner.samples = Some(SamplesLog::open(&stage.run_dir, step, limit)?);
        }
        let best = std::mem::take(&mut learner.state.position.best);
        learner.state.position.best = best.or_stored(&stage.run_dir.join("ppo/best"));
        Ok(learner)
    }

    /// The gates that need completions: those of the first step.
    pub(super) fn check_first_rollouts(&self, rollouts: &[Rollout]) -> Result<()> {
        let run = &self.config().run;
        let truncated = rollouts.iter().filter(|rollout| rollout.completion.truncated).count();
        let truncation = gates::truncation(truncated, rollouts.len(), run.truncation_limit);
        let picture = gates::picture(&self.changes_by_picture(rollouts)?);
        gates::pass(self.stage.world, vec![truncation, picture], &run.allow)
    }

    /// For one completion of each of some parts: how much the log-probability of a token changes, on
    /// average, if another part's picture takes the place of its own, in nats.
    fn changes_by_picture(&self, rollouts: &[Rollout]) -> Result<Vec<f64>> {
        const MOST: usize = 8;
        let parts = self.stage.train.len();
        let first_of_part = rollouts.iter().step_by(self.ppo().samples_per_image);
        let own: Vec<&Rollout> = first_of_part.filter(|rollout| !rollout.tokens().is_empty()).take(MOST).collect();
        let with_other = |rollout: &&Rollout| Rollout {
            index: (rollout.index + parts / 2) % parts,
            prompt: rollout.prompt.clone(),
            completion: Completion { tokens: rollout.completion.tokens.clone(), ..Completion::default() },
            earlier: rollout.earlier.iter().map(sent_turn).collect(),
            ..Rollout::default()
        };
        let others: Vec<Rollout> = own.iter().map(with_other).collect();
        let tokens =
            |rollout: &Rollout| self.prompted.pictures.image_tokens(self.policy, &Picture::Part(rollout.index));
        let is_pair = |(own, other): &(&Rollout, &Rollout)| own.index != other.index && tokens(own) == tokens(other);
        let (own, others): (Vec<&Rollout>, Vec<&Rollout>) = own.into_iter().zip(&others).filter(is_pair).unzip();
        let logprobs =
            |members: &[&Rollout]| self.logprobs_under(self.policy, &BTreeMap::new(), members, self.ppo().temperature);
        let (before, after) = (logprobs(&own)?, logprobs(&others)?);
        let change = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
        };
        Ok(before.iter().zip(&after).map(change).collect())
    }

    /// Validates the SFT policy, so that the best policy of PPO is at least as good on the
    /// validation parts.
    pub(super) fn measure_the_start(&mut self, training: &mut TrainingLoop) -> Result<()> {
        let validation = training.validate(&mut self.state.position, self.policy)?;
        let report = &validation.report;
        let mut numbers = vec![("seconds", 0.0), ("val_vsr", report.vsr), ("val_iou", report.iou)];
        let further = validation.further_numbers();
        numbers.extend(further.iter().map(|(name, value)| (name.as_str(), *value)));
        if let Some((mean, best)) = ceiling(self.stage, self.policy)? {
            let k = ceiling_k(self.ppo());
            let line = format!("ppo: sampled IoU of the SFT policy {mean:.3}; best of {k} {best:.3}, the ceiling");
            training.telemetry.note(&line);
            numbers.extend([("ceiling_mean", mean), ("ceiling_best", best)]);
        }
        training.telemetry.record(0, &numbers)?;
        self.state.next = self.parts_of_step(0);
        Ok(())
    }

    /// Leaves completions with absurd numbers out of the step and writes them down. If there are no
    /// others, the step counts as a skipped update: several in a row end the stage.
    pub(super) fn set_absurd_aside(&mut self, rollouts: &mut [Rollout]) -> Result<()> {
        let absurd = absurd::set_aside(rollouts);
        if absurd.is_empty() {
            return Ok(());
        }
        self.state.absurd += absurd.len();
        let is_all = absurd.len() == rollouts.len();
        let reason = format!("{} of {} completions have absurd numbers", absurd.len(), rollouts.len());
        self.post_mortem(&reason, std::iter::empty(), absurd);
        if is_all {
            self.state.skipped.count(f64::NAN, "ppo.learning_rate", self.ppo().learning_rate)?;
        }
        Ok(())
    }

    /// Writes down a batch of this step that is skipped.
    pub(super) fn post_mortem<'b>(
        &mut self,
        reason: &str,
        numbers: impl Iterator<Item = (&'b str, f64)>,
        batch: Vec<Value>,
    ) {
        self.state.post_mortems += 1;
        let which = ("ppo", self.state.position.step, self.state.post_mortems);
        absurd::dump(self.stage.world, &self.stage.run_dir, which, reason, numbers, batch);
    }

    /// Remembers what later steps need of a step's rollouts: own programs, some of them refined, the
    /// spread of rewards, and how well the image score does. Returns what there is to log of it.
    pub(super) fn observe(&mut self, rollouts: &[Rollout]) -> Result<StepNumbers> {
        let (config, ppo) = (self.config(), self.ppo());
        let mut numbers = StepNumbers::default();
        if ppo.ce_own_share > 0.0 {
            self.state.own_programs.observe_rollouts(rollouts, self.stage.train, config);
        }
        if ppo.ce_own_source == OwnSource::Refined {
            numbers = self.refine_own_programs(rollouts)?;
        }
        if ppo.curriculum == Curriculum::Signal {
            for group in rollouts.chunks(ppo.samples_per_image) {
                self.state.reward_spread.observe(group[0].index, group.iter().map(|rollout| rollout.reward));
            }
        }
        if config.reward.source == RewardSource::Image {
            let (watched, warning) = self.state.proxy.observe_rollouts(rollouts, config);
            numbers.extend(watched.as_pairs());
            warning.iter().for_each(|warning| self.stage.world.warn(warning));
        }
        Ok(numbers)
    }

    /// Looks for alarms in a step's numbers. Adds `alarm/<name>` for each to `numbers`, and returns a
    /// line for each that has just come on.
    pub(super) fn watch(&mut self, rollouts: &[Rollout], means: &Means, numbers: &mut StepNumbers) -> Vec<String> {
        let health = Health {
            entropy: means.get("entropy"),
            kl: means.get("kl"),
            one_program: one_program(rollouts),
            length: numbers.get("response_length"),
            failures: failure_shares(rollouts),
            reward: numbers.get("reward_mean"),
            sampler_gap: means.get("sampler_gap"),
        };
        numbers.push("one_program", health.one_program);
        let limits = Limits::new(self.ppo().kl_target, gates::most_sampler_gap(self.config().model.dtype));
        let (on, new) = self.state.health.observe(health, limits);
        for alarm in Alarm::ALL {
            let is_on = on.iter().any(|(other, _)| *other == alarm);
            numbers.push(format!("alarm/{}", alarm.name()), f64::from(u8::from(is_on)));
        }
        let new = on.into_iter().filter(|(alarm, _)| new.contains(alarm));
        new.map(|(alarm, reason)| format!("alarm {}: {reason}", alarm.name())).collect()
    }

    /// The weight of the cross-entropy in this step.
    pub(super) fn ce_weight(&self, rates: &StepRates) -> f64 {
        let ppo = self.ppo();
        let is_guarded = ppo.ce_schedule == CeSchedule::Guarded;
        let annealed = if is_guarded { self.state.ce_guard.progress } else { rates.progress };
        ce_weight(ppo.ce_schedule, ppo.ce_weight, ppo.ce_anneal_until, annealed)
    }

    /// The programs for the cross-entropy of one optimiser step.
    pub(super) fn draw_demonstrations(&self, rng: &mut ChaCha8Rng) -> Vec<TokenizedExample> {
        let Self { ground_truths, state, prompted, policy, .. } = self;
        draw_demonstrations(ground_truths, &state.own_programs, prompted, policy, self.config(), rng)
    }

    /// Whether the KL divergence is a term of the loss, or becomes one when its coefficient moves.
    pub(super) fn trains_on_kl(&self) -> bool {
        self.state.kl_coef > 0.0 || self.ppo().kl_target > 0.0
    }

    /// KL(policy that sampled || reference) per token, for the log only: estimated from every
    /// eighth rollout.
    pub(super) fn sampled_kl(&self, rollouts: &[Rollout], selected: &[&Rollout]) -> Result<f64> {
        let members: Vec<&Rollout> = selected.iter().copied().step_by(8).collect();
        if members.is_empty() {
            return Ok(0.0);
        }
        let ref_logprobs = Tensor::from_slice(&self.ref_logprobs(rollouts, &members)?.concat());
        let logprobs = per_token(&members, |rollout| &rollout.completion.logprobs, Device::Cpu);
        Ok(kl_k3(&logprobs, &ref_logprobs).mean(Kind::Float).double_value(&[]))
    }

    /// Log-probabilities of the tokens of `members` under the reference. Each rank computes its
    /// share.
    pub(super) fn ref_logprobs(&self, rollouts: &[Rollout], members: &[&Rollout]) -> Result<Vec<Vec<f32>>> {
        // If the policy's vision tower is trained, its embeddings differ from the reference's. The
        // reference then embeds the pictures itself.
        let known = if self.policy.trains_vision() { BTreeMap::new() } else { embeddings_when_generated(rollouts) };
        self.logprobs_under(&self.reference, &known, members, self.ppo().temperature)
    }

    /// Log-probabilities of the tokens of `members` under `model` at `temperature`; `known` are
    /// pictures that it need not embed. Each rank computes its share.
    pub(super) fn logprobs_under(
        &self,
        model: &InternVl,
        known: &BTreeMap<Picture, Tensor>,
        members: &[&Rollout],
        temperature: f64,
    ) -> Result<Vec<Vec<f32>>> {
        let world = self.stage.world;
        let own: Vec<&Rollout> = world.share(members).copied().collect();
        let shown = own.iter().flat_map(|rollout| rollout.pictures());
        let embedded = tch::no_grad(|| self.prompted.pictures.embed_for_update(model, shown, known));
        let own = logprobs_under(model, self.prompted, &own, &embedded, temperature, self.micro_batch_size());
        world.gather_shares("log-probabilities", own, members.len())
    }

    /// The parts of a step.
    pub(super) fn parts_of_step(&self, step: usize) -> Vec<usize> {
        let (ppo, parts) = (self.ppo(), self.stage.train.len());
        match ppo.curriculum {
            Curriculum::Uniform => by_epochs(parts, ppo.images_per_step, step, |epoch| self.seed(&[u64::MAX, epoch])),
            Curriculum::Signal => {
                self.state.reward_spread.draw(ppo.images_per_step, self.seed(&[u64::MAX, step as u64]))
            }
        }
    }

    /// The positions, among the parts of a step, of those whose completions each rank generates.
    pub(super) fn places(&self, parts: &[usize]) -> Vec<Vec<usize>> {
        // Where no program is known, the length of the mean one is expected.
        let known: Vec<Option<f64>> = parts
            .iter()
            .map(|part| {
                let found = self.ground_truths.binary_search_by_key(part, |example| example.index).ok()?;
                Some(self.ground_truths[found].response.len() as f64)
            })
            .collect();
        let mean = known.iter().flatten().sum::<f64>() / known.iter().flatten().count().max(1) as f64;
        let lengths: Vec<f64> = known.into_iter().map(|length| length.unwrap_or(mean)).collect();
        divided(&lengths, self.stage.world.size())
    }

    /// Executes the ground truths of this rank's parts of the next step in the background.
    pub(super) fn prefetch(&self) {
        let Stage { scorer, train, world, .. } = self.stage;
        let own = self.places(&self.state.next)[world.rank()].clone();
        let parts = own.into_iter().map(|place| self.state.next[place]);
        scorer.prefetch(parts.map(|index| train.examples()[index].ground_truth.clone()));
    }

    /// A seed of this stage for the draws that `parts` names.
    pub(super) fn seed(&self, parts: &[u64]) -> u64 {
        seed(&[&[u64::from(self.config().run.seed), stream("ppo")], parts].concat())
    }

    /// Writes a checkpoint; see [`checkpoint::save`].
    pub(super) fn save(&mut self) -> Result<Option<String>> {
        let (directory, state) = (self.checkpoint_dir(), self.state.clone());
        let (step, keep_last) = (state.position.step, self.config().run.keep_last);
        checkpoint::save(self.stage.world, &directory, step, keep_last, &self.parts(), &state)
    }

    fn parts(&mut self) -> [CheckpointPart<'_>; 2] {
        let (policy, value_head) = (self.policy.weights_mut(), self.value_head.weights_mut());
        [
            CheckpointPart { name: "policy", weights: policy, optimizer: &mut self.optimizer },
            CheckpointPart { name: "value_head", weights: value_head, optimizer: &mut self.value_optimizer },
        ]
    }

    fn checkpoint_dir(&self) -> PathBuf {
        self.stage.run_dir.join("ppo/checkpoint")
    }

    /// Without dropout: the ratio compares this policy with the one that sampled.
    pub(super) fn update_mode(&self) -> PassMode {
        let gradient_checkpointing = self.config().model.gradient_checkpointing;
        PassMode { gradient_checkpointing, ..PassMode::default() }
    }

    pub(super) fn micro_batch_size(&self) -> usize {
        let ppo = self.ppo();
        if ppo.micro_batch_size == 0 { ppo.minibatch_size } else { ppo.micro_batch_size }
    }

    pub(super) fn config(&self) -> &'a Config {
        self.stage.config
    }

    pub(super) fn ppo(&self) -> &'a Ppo {
        &self.stage.config.ppo
    }
}
