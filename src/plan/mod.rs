//! What a step costs on many GPUs: a model of this code's data-parallel steps, without running
//! them. docs/scaling.md explains it.
//!
//! Every rank holds the whole model. An SFT step shares out its examples. A step of reinforcement
//! learning shares out its pictures: a rank generates and scores all completions of its own;
//! tokens, log-probabilities and scores are gathered; then each minibatch is shared out. One
//! all-reduce of the fp32 gradients follows each minibatch, after the backward pass and not beside
//! it. A step ends with its slowest rank.

mod device;
mod parts;

use serde::Serialize;

use crate::config::{Algorithm, Config, Dtype, OptimizerKind, Tune};
use crate::model::{InternVlConfig, Ranks, Sequence, Trained, Usage};

pub use device::{Assumptions, CPU_CORE, Device, UnknownDevice, scores_per_second};
pub use parts::{Decoding, Lengths, all_gather_seconds, all_reduce_seconds, ring_bandwidth};

/// Bytes of a completion that ranks exchange: a token (i64) and its log-probability (f32).
const BYTES_PER_TOKEN: f64 = 12.0;
/// Bytes of a completion's score.
const BYTES_PER_SCORE: f64 = 100.0;
/// The reference scores every eighth completion if the KL divergence is only logged.
const LOGGED_KL: u64 = 8;

/// Wall time of a step's parts on its slowest rank, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Embedding pictures, running prompts, and decoding.
    pub generate: f64,
    /// Waiting for scores after the last token.
    pub score_wait: f64,
    /// Gathering tokens, log-probabilities and scores.
    pub gather: f64,
    /// Log-probabilities under the reference.
    pub reference: f64,
    /// Forward and backward passes.
    pub update: f64,
    /// All-reduces of gradients.
    pub all_reduce: f64,
    /// The optimiser.
    pub optimizer: f64,
}

impl Seconds {
    /// The whole step.
    pub fn total(&self) -> f64 {
        let Self { generate, score_wait, gather, reference, update, all_reduce, optimizer } = *self;
        generate + score_wait + gather + reference + update + all_reduce + optimizer
    }
}

/// A reason why more GPUs do not make a step as much shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Scoring takes longer than generation, beside which it runs.
    ScoringCores,
    /// A batch is decoded for as long as its longest completion, however few completions it has; a
    /// minibatch waits for the rank that has the longest.
    SlowestCompletion,
    /// Gradients, tokens and scores travel between ranks.
    AllReduce,
    /// Some ranks have nothing to do.
    LessThanOneExample,
    /// Some ranks have an example more than others.
    UnevenShares,
    /// Every rank updates all weights.
    Optimizer,
}

impl Limit {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScoringCores => "scoring cores",
            Self::SlowestCompletion => "slowest completion",
            Self::AllReduce => "all-reduce",
            Self::LessThanOneExample => "a rank has less than one example",
            Self::UnevenShares => "shares of ranks are uneven",
            Self::Optimizer => "optimiser",
        }
    }
}

/// A step on `world` GPUs.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// GPUs.
    pub world: u64,
    /// Wall time by part.
    pub seconds: Seconds,
    /// Wall time of the step.
    pub seconds_total: f64,
    /// Time that the average rank waits for the slowest in generation and update.
    pub seconds_idle: f64,
    /// Time that a rank's share of cores needs for its programs, beside generation.
    pub seconds_scoring: f64,
    /// Examples (SFT) or completions in a second, of all ranks.
    pub per_second: f64,
    /// How many times as fast as one GPU.
    pub speed_up: f64,
    /// Speed-up divided by GPUs.
    pub efficiency: f64,
    /// Bytes of gradients that each GPU reduces in a step.
    pub bytes_reduced: f64,
    /// Operations of the step on all GPUs.
    pub flops: f64,
    /// Estimated memory of each GPU, in GiB.
    pub memory_gib: f64,
    /// The same with `distributed.shard_optimizer`.
    pub memory_sharded_gib: f64,
    /// Seconds that are lost against an equal share of the step on one GPU, by reason.
    pub lost: Vec<(Limit, f64)>,
}

/// The steps of one stage on 1, 2, 4, .. GPUs.
#[derive(Debug, Clone, Serialize)]
pub struct StagePlan {
    /// `sft`, or the name of the algorithm.
    pub stage: String,
    /// What a step processes: examples or completions, in number.
    pub per_step: u64,
    /// One step for each number of GPUs, ascending.
    pub steps: Vec<Step>,
    /// The number of GPUs at which a loss first takes half of the step, and the greatest loss
    /// there.
    pub limit: Option<(u64, Limit)>,
}

/// The plan of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The processor.
    pub device: Device,
    /// What is assumed.
    pub assumptions: Assumptions,
    /// Parameters of the model.
    pub parameters: u64,
    /// Parameters that training changes.
    pub trained_parameters: u64,
    /// Supervised fine-tuning.
    pub sft: StagePlan,
    /// Reinforcement learning.
    pub rl: StagePlan,
}

/// The shapes from which a plan is made.
pub struct Planner<'a> {
    /// The architecture.
    pub model: &'a InternVlConfig,
    /// The recipe.
    pub config: &'a Config,
    /// The processor.
    pub device: Device,
    /// What is assumed.
    pub assumptions: Assumptions,
}

/// The largest of `world` shares of `count`.
fn share(count: u64, world: u64) -> u64 {
    count.div_ceil(world)
}

impl Assumptions {
    /// The defaults for a recipe. `cores_per_gpu` and `gpus_per_node` describe the node.
    pub fn of(config: &Config, cores_per_gpu: f64, gpus_per_node: u64) -> Self {
        let longest_tokens = config.generate.max_new_tokens as f64;
        let characters = config.prompt.system.len() + config.prompt.user.len();
        Self {
            mean_tokens: 0.22 * longest_tokens,
            longest_tokens,
            prompt_tokens: 12.0 + characters as f64 / 4.0,
            scores_per_second: scores_per_second(1250.0, 25.0, 0.04),
            truncated: 0.005,
            shortest_share: 0.35,
            link_share: 0.8,
            optimizer_bytes: 64.0,
            cores_per_gpu,
            gpus_per_node,
        }
    }
}

impl Planner<'_> {
    /// The plan for 1, 2, 4, .. and `gpus` GPUs.
    pub fn plan(&self, gpus: u64) -> Plan {
        let config = self.config;
        let ppo = &config.ppo;
        let examples = (config.sft.batch_size * config.sft.gradient_accumulation) as u64;
        let completions = (ppo.images_per_step * ppo.samples_per_image) as u64;
        let name = match ppo.algorithm {
            Algorithm::Ppo => "ppo",
            Algorithm::Rloo => "rloo",
            Algorithm::Grpo => "grpo",
            Algorithm::DrGrpo => "dr_grpo",
        };
        Plan {
            device: self.device,
            assumptions: self.assumptions,
            parameters: self.model.parameter_count(),
            trained_parameters: self.model.trained_count(self.trained(false), self.rank()),
            sft: stage_plan("sft", examples, gpus, |world| self.sft_step(world)),
            rl: stage_plan(name, completions, gpus, |world| self.rl_step(world)),
        }
    }

    /// A step of SFT. Speed-up and efficiency are those of one GPU.
    fn sft_step(&self, world: u64) -> Step {
        let sft = &self.config.sft;
        let examples = (sft.batch_size * sft.gradient_accumulation) as u64;
        let trained = self.trained(false);
        let example = self.update_flops(trained, self.assumptions.mean_tokens) + self.picture_flops(trained);
        let own = share(examples, world);
        let update = own as f64 * example / self.flops();
        let even = examples as f64 * example / self.flops() / world as f64;
        let seconds = Seconds {
            update,
            all_reduce: self.all_reduce(self.gradient_bytes(trained), world),
            optimizer: self.optimizer_seconds(trained, sft.optimizer),
            ..Seconds::default()
        };
        let uneven = if world > examples { Limit::LessThanOneExample } else { Limit::UnevenShares };
        let usage = self.usage((sft.batch_size as u64).min(own), self.prompt() + self.assumptions.longest_tokens);
        let usage = Usage { length: usage.length.min(sft.max_length as u64), ..usage };
        let memory = |shards| self.model.sft_memory_per_rank(&usage, trained, ranks(world, shards)).total();
        Step {
            world,
            seconds,
            seconds_total: seconds.total(),
            seconds_idle: update - even,
            seconds_scoring: 0.0,
            per_second: examples as f64 / seconds.total(),
            speed_up: 1.0,
            efficiency: 1.0,
            bytes_reduced: if world > 1 { self.gradient_bytes(trained) } else { 0.0 },
            flops: examples as f64 * example,
            memory_gib: gib(memory(false)),
            memory_sharded_gib: gib(memory(true)),
            lost: vec![
                (uneven, update - even),
                (Limit::AllReduce, seconds.all_reduce),
                (Limit::Optimizer, seconds.optimizer * (1.0 - 1.0 / world as f64)),
            ],
        }
    }

    /// A step of reinforcement learning. Speed-up and efficiency are those of one GPU.
    fn rl_step(&self, world: u64) -> Step {
        let (config, assumptions) = (self.config, &self.assumptions);
        let ppo = &config.ppo;
        let trained = self.trained(true);
        let (pictures, samples) = (ppo.images_per_step as u64, ppo.samples_per_image as u64);
        let completions = pictures * samples;

        let generation = self.generation(world);
        let programs = (share(pictures, world) * samples) as f64;
        let program_s = 1.0 / assumptions.scores_per_second;
        let scoring = programs * program_s / assumptions.cores_per_gpu;
        let wait =
            if self.device.scores_itself { scoring } else { (scoring - generation.slowest).max(0.0) + program_s };

        let update = self.update(world, trained);
        let minibatches = update.minibatches as f64;
        let gathered = completions as f64 * (assumptions.mean_tokens * BYTES_PER_TOKEN + BYTES_PER_SCORE);
        let latency = self.device.collective_s;
        let gradients = self.gradient_bytes(trained);
        let critic = if ppo.algorithm == Algorithm::Ppo {
            let hidden = self.model.llm_config.hidden_size as f64;
            let updates = (ppo.value_epochs as u64 * completions.div_ceil(ppo.minibatch_size as u64)) as f64;
            (4.0 * (hidden * hidden + 2.0 * hidden + 1.0), updates)
        } else {
            (0.0, 0.0)
        };
        let seconds = Seconds {
            generate: generation.slowest,
            score_wait: wait,
            gather: all_gather_seconds(gathered, world, self.bandwidth(world), latency),
            reference: update.reference,
            update: update.slowest,
            all_reduce: minibatches * self.all_reduce(gradients, world) + critic.1 * self.all_reduce(critic.0, world),
            optimizer: minibatches * self.optimizer_seconds(trained, ppo.optimizer),
        };
        let even = 1.0 / world as f64;
        let one = |whole: f64| whole * even;
        let alone = if world == 1 { None } else { Some((self.generation(1), self.update(1, trained))) };
        let (alone_generation, alone_update) = alone.unwrap_or((generation, update));
        // Idle ranks and larger shares, then what remains.
        let generate_uneven = generation.slowest * (1.0 - pictures as f64 * even / share(pictures, world) as f64);
        let generate_lost = generation.slowest - one(alone_generation.slowest);
        let update_uneven = update.typical - one(alone_update.typical) + update.reference - one(alone_update.reference);
        let update_slow = (update.slowest - update.typical) - one(alone_update.slowest - alone_update.typical);
        let smallest = pictures.min(update.minibatch);
        let uneven = if world > smallest { Limit::LessThanOneExample } else { Limit::UnevenShares };

        let batch = share(update.minibatch, world);
        let batch = if ppo.micro_batch_size == 0 { batch } else { batch.min(ppo.micro_batch_size as u64) };
        let usage = self.usage(batch, self.prompt() + assumptions.longest_tokens);
        let rows = generation.rows;
        let memory = |shards| {
            let is_ppo = ppo.algorithm == Algorithm::Ppo;
            self.model.rl_memory_per_rank(&usage, trained, ranks(world, shards), rows, is_ppo).total()
        };
        Step {
            world,
            seconds,
            seconds_total: seconds.total(),
            seconds_idle: generation.slowest - generation.typical + update.slowest - update.even,
            seconds_scoring: scoring,
            per_second: completions as f64 / seconds.total(),
            speed_up: 1.0,
            efficiency: 1.0,
            bytes_reduced: if world > 1 { minibatches * gradients + critic.0 * critic.1 } else { 0.0 },
            flops: alone_generation.flops + alone_update.flops,
            memory_gib: gib(memory(false)),
            memory_sharded_gib: gib(memory(true)),
            lost: vec![
                (uneven, generate_uneven.min(generate_lost) + update_uneven),
                (Limit::SlowestCompletion, (generate_lost - generate_uneven).max(0.0) + update_slow),
                (Limit::ScoringCores, if self.device.scores_itself { 0.0 } else { wait }),
                (Limit::AllReduce, seconds.all_reduce + seconds.gather),
                (Limit::Optimizer, seconds.optimizer * (1.0 - even)),
            ],
        }
    }

    /// The generation of a step's completions.
    ///
    /// A rank decodes its batches one after another, each until its longest completion ends. The
    /// slowest rank is one whose last batch has the longest completion of all ranks, and whose
    /// other batches are like everyone's.
    fn generation(&self, world: u64) -> Generation {
        let (config, model) = (self.config, self.model);
        let (pictures, samples) = (config.ppo.images_per_step as u64, config.ppo.samples_per_image as u64);
        let batch_size = config.generate.batch_size as u64;
        let own = share(pictures, world);
        let busy = world.min(pictures);
        // As `generate` cuts them: whole groups in a batch, or one group in several batches.
        let (rows, batches, prompts) = if samples > batch_size {
            (batch_size, own * samples.div_ceil(batch_size), own * samples.div_ceil(batch_size))
        } else {
            let groups = (batch_size / samples).max(1).min(own);
            (groups * samples, own.div_ceil(groups), own)
        };
        let prompt = self.prompt();
        let sequence = Sequence { tokens: prompt, targets: 1.0 };
        let rank = self.rank();
        let prefill_flops = prompts as f64 * model.forward_flops(sequence, rank)
            + own as f64 * self.tiles() as f64 * model.tile_flops();
        let width = self.width();
        let row_flops = model.linear_flops() + model.adapter_flops(rank) + model.head_flops();
        let decoding = Decoding {
            weight_bytes: model.decoding_weight_bytes(width, rank),
            cache_bytes: model.cache_bytes_per_token(width),
            row_flops,
            position_flops: model.attention_flops(1.0, 1.0) - model.attention_flops(1.0, 0.0),
            bandwidth: self.device.memory_bandwidth * self.device.bandwidth_share,
            flops: self.flops(),
            least_s: model.llm_config.num_hidden_layers as f64 * self.device.layer_s,
        };
        let lengths = self.lengths();
        let seconds = |longest_of: u64| decoding.seconds(rows, prompt, lengths.longest_of(longest_of), &lengths);
        let usual = seconds(rows);
        let prefill = prefill_flops / self.flops();
        let mean = self.assumptions.mean_tokens;
        let decoded = (own * samples) as f64 * (mean * row_flops + model.attention_flops(mean, prompt));
        let typical = prefill + batches as f64 * usual;
        Generation {
            rows,
            slowest: typical + (seconds(busy * rows) - usual).max(0.0),
            typical: typical * pictures as f64 / (world * own) as f64,
            flops: prefill_flops + decoded,
        }
    }

    /// The passes of a step's updates, and of the reference.
    fn update(&self, world: u64, trained: Trained) -> Update {
        let (ppo, model) = (&self.config.ppo, self.model);
        let keep = |kept: usize, all: usize| if kept == 0 { all } else { kept.min(all) } as u64;
        let pictures = keep(ppo.keep_images, ppo.images_per_step);
        let samples = keep(ppo.keep_per_image, ppo.samples_per_image);
        let selected = pictures * samples;
        let minibatch = (ppo.minibatch_size as u64).min(selected);
        let demonstrations = if ppo.ce_weight > 0.0 { ppo.ce_batch_size as u64 } else { 0 };
        let minibatches = ppo.epochs as u64 * selected.div_ceil(minibatch);
        let mean = self.assumptions.mean_tokens;

        let per_sequence = self.update_flops(trained, mean);
        let embedding = self.picture_flops(trained);
        let trains_vision = trained == Trained::Model { vision: true };
        // A rank knows the embeddings of pictures that it generated for, which all are on one GPU.
        let embeds = |own: f64| if trains_vision || world > 1 { own.min(pictures as f64) } else { 0.0 };
        let minibatch_flops = |own: f64, demonstrations: f64| {
            own * per_sequence + embeds(own) * embedding + demonstrations * (per_sequence + embedding)
        };
        // The last minibatch of an epoch may be smaller.
        let (full, rest) = (selected / minibatch, selected % minibatch);
        let of_rank = |share: &dyn Fn(u64) -> f64| {
            let one = |count: u64| minibatch_flops(share(count), share(demonstrations));
            ppo.epochs as f64 * (full as f64 * one(minibatch) + if rest > 0 { one(rest) } else { 0.0 })
        };
        let typical = of_rank(&|count| share(count, world) as f64);
        let even = of_rank(&|count| count as f64 / world as f64);
        // In each minibatch the slowest rank has the longest completion of all instead of one of
        // average length.
        let excess = if world > 1 {
            let busy = world.min(minibatch);
            let longer = self.lengths().longest_of(busy);
            (self.update_flops(trained, longer.max(mean)) - per_sequence) * minibatches as f64
        } else {
            0.0
        };
        let scored = if ppo.kl_coef > 0.0 || ppo.kl_target > 0.0 { selected } else { selected.div_ceil(LOGGED_KL) };
        let sequence = Sequence { tokens: self.prompt() + mean, targets: mean };
        let reference = model.forward_flops(sequence, self.rank());
        Update {
            minibatch,
            minibatches,
            slowest: (typical + excess) / self.flops(),
            typical: typical / self.flops(),
            even: even / self.flops(),
            reference: share(scored, world) as f64 * reference / self.flops(),
            flops: even * world as f64 + scored as f64 * reference,
        }
    }

    /// Operations of both passes over one sequence with `response` tokens after the prompt.
    fn update_flops(&self, trained: Trained, response: f64) -> f64 {
        let sequence = Sequence { tokens: self.prompt() + response, targets: response };
        self.model.training_flops(sequence, trained, self.rank(), self.config.model.gradient_checkpointing)
    }

    /// Operations of embedding one picture, and of its backward pass if the tower is trained.
    fn picture_flops(&self, trained: Trained) -> f64 {
        let passes = if trained == (Trained::Model { vision: true }) { 3.0 } else { 1.0 };
        passes * self.tiles() as f64 * self.model.tile_flops()
    }

    fn trained(&self, is_rl: bool) -> Trained {
        let config = self.config;
        match config.model.tune {
            Tune::Lora => Trained::Adapter,
            Tune::Full => Trained::Model { vision: !(config.model.freeze_vision || is_rl && config.ppo.freeze_vision) },
        }
    }

    /// Rank of the adapter; 0 without one.
    fn rank(&self) -> u64 {
        if self.config.model.tune == Tune::Lora { self.config.lora.rank as u64 } else { 0 }
    }

    /// Bytes of a number in a product.
    fn width(&self) -> u64 {
        match self.config.model.dtype {
            Dtype::F32 => 4,
            Dtype::Auto if self.device.scores_itself => 4,
            Dtype::Auto | Dtype::Bf16 => 2,
        }
    }

    /// Operations a second that are reached.
    fn flops(&self) -> f64 {
        self.device.peak_flops(self.width()) * self.device.mfu
    }

    fn lengths(&self) -> Lengths {
        let Assumptions { mean_tokens, longest_tokens, truncated, shortest_share, .. } = self.assumptions;
        let mean = mean_tokens.min(longest_tokens);
        Lengths { shortest: shortest_share * mean, mean, longest: longest_tokens, truncated }
    }

    /// Tiles of a part's pictures, the thumbnails included.
    fn tiles(&self) -> u64 {
        let tiles = self.config.model.max_tiles.min(self.model.max_dynamic_patch) as u64;
        let pictures = self.config.data.views.len().max(1) as u64;
        pictures * (tiles + u64::from(tiles > 1 && self.model.use_thumbnail))
    }

    /// Tokens of the prompt with its pictures.
    fn prompt(&self) -> f64 {
        self.tiles() as f64 * self.model.tokens_per_tile() as f64 + self.assumptions.prompt_tokens
    }

    fn gradient_bytes(&self, trained: Trained) -> f64 {
        4.0 * self.model.trained_count(trained, self.rank()) as f64
    }

    fn bandwidth(&self, world: u64) -> f64 {
        ring_bandwidth(&self.device, world, self.assumptions.gpus_per_node, self.assumptions.link_share)
    }

    fn all_reduce(&self, bytes: f64, world: u64) -> f64 {
        all_reduce_seconds(bytes, world, self.bandwidth(world), self.device.collective_s)
    }

    /// Seconds in which every rank updates all trained weights.
    fn optimizer_seconds(&self, trained: Trained, kind: OptimizerKind) -> f64 {
        let count = self.model.trained_count(trained, self.rank()) as f64;
        let moved = count * self.assumptions.optimizer_bytes / self.device.memory_bandwidth;
        match kind {
            OptimizerKind::Adamw => moved,
            OptimizerKind::Muon => moved + self.model.muon_flops(trained, self.rank()) / self.flops(),
        }
    }

    fn usage(&self, batch: u64, length: f64) -> Usage {
        Usage {
            batch,
            length: length.ceil() as u64,
            tiles: self.tiles(),
            rank: self.rank(),
            width: self.width(),
            is_checkpointed: self.config.model.gradient_checkpointing,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Generation {
    /// Completions in a batch.
    rows: u64,
    /// Seconds on the slowest rank.
    slowest: f64,
    /// Seconds on the average rank.
    typical: f64,
    /// Operations on the rank with the most pictures.
    flops: f64,
}

#[derive(Debug, Clone, Copy)]
struct Update {
    /// Completions in a minibatch.
    minibatch: u64,
    /// Minibatches in a step.
    minibatches: u64,
    /// Seconds on the slowest rank of each minibatch.
    slowest: f64,
    /// Seconds on a rank with the largest share, of average lengths.
    typical: f64,
    /// Seconds if all ranks had the same work.
    even: f64,
    /// Seconds of the reference's passes.
    reference: f64,
    /// Operations, with those of the reference.
    flops: f64,
}

fn ranks(world: u64, shards_optimizer: bool) -> Ranks {
    Ranks { world, shards_optimizer }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// 1, 2, 4, .. and `gpus`.
fn worlds(gpus: u64) -> Vec<u64> {
    let mut worlds: Vec<u64> =
        std::iter::successors(Some(1u64), |world| world.checked_mul(2)).take_while(|&world| world < gpus).collect();
    worlds.push(gpus.max(1));
    worlds
}

fn stage_plan(stage: &str, per_step: u64, gpus: u64, step: impl Fn(u64) -> Step) -> StagePlan {
    let mut steps: Vec<Step> = worlds(gpus).into_iter().map(step).collect();
    let alone = steps[0].seconds_total;
    for step in &mut steps {
        step.speed_up = alone / step.seconds_total;
        step.efficiency = step.speed_up / step.world as f64;
    }
    let limit = steps.iter().find_map(|step| {
        let lost: f64 = step.lost.iter().map(|(_, seconds)| seconds).sum();
        (lost > step.seconds_total / 2.0).then_some((step.world, greatest_loss(step)))
    });
    StagePlan { stage: stage.into(), per_step, steps, limit }
}

/// The reason for which a step loses the most time.
pub fn greatest_loss(step: &Step) -> Limit {
    let greatest = step.lost.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    greatest.map_or(Limit::AllReduce, |(limit, _)| *limit)
}

#[cfg(test)]
mod tests;
