//! Every key of a configuration by section, with its unit, default and effect.

use std::path::PathBuf;

use cadwright_rewards::frames::Frame;
use cadwright_rewards::reward::RewardConfig;
use cadwright_rollout::Engine;
use serde::{Deserialize, Serialize};

use super::section::section;
use crate::data::Split;
use crate::data::synth::Numbers;
use crate::device::DeviceChoice;
use crate::model::{Preset, TargetModules};

section! {
    /// A whole configuration, as the files in `configs/` write it.
    Config {
        /// The run as a whole.
        run: Run = Run::default(),
        /// The model that is trained or evaluated.
        model: Model = Model::default(),
        /// The adapter of `model.tune = "lora"`.
        lora: Lora = Lora::default(),
        /// The prompt.
        prompt: PromptText = PromptText::default(),
        /// Pictures and programs.
        data: Data = Data::default(),
        /// How completions are decoded, in every stage.
        generate: Generate = Generate::default(),
        /// How programs are executed and compared.
        rollout: Rollout = Rollout::default(),
        /// How outcome and IoU make the reward.
        reward: RewardConfig = RewardConfig::default(),
        /// Supervised fine-tuning.
        sft: Sft = Sft::default(),
        /// Proximal policy optimisation.
        ppo: Ppo = Ppo::default(),
        /// The final evaluation.
        eval: Eval = Eval::default(),
    }
}

section! {
    /// `[run]`
    Run {
        /// Directory of everything that the run writes. Empty: `runs/<name of the config file>`.
        output_dir: PathBuf = "",
        /// Every seed derives from this one.
        seed: u32 = 0u32,
        /// `auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:1`.
        device: DeviceChoice = DeviceChoice::Auto,
        /// Threads that torch computes with. 0: one a core.
        threads: usize = 0usize,
        /// After PPO, SFT continues from its best checkpoint for as long as PPO took, and is
        /// evaluated too: it shows what the same time achieves without reinforcement learning.
        control: bool = false,
    }
}

/// Which weights training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tune {
    /// A low-rank adapter; the base is frozen.
    Lora,
    /// Every weight (of the vision tower too, unless `freeze_vision`).
    Full,
}

/// Dtype of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// bfloat16 if the hardware multiplies it, else float32.
    Auto,
    /// bfloat16.
    Bf16,
    /// float32.
    F32,
}

impl Dtype {
    /// The dtype on `device`: never `Auto`.
    #[must_use]
    pub fn on(self, device: tch::Device) -> Self {
        match self {
            Self::Auto if crate::libtorch::multiplies_bf16(device) => Self::Bf16,
            Self::Auto => Self::F32,
            known => known,
        }
    }

    /// The torch kind of the dtype on `device`.
    pub fn kind_on(self, device: tch::Device) -> tch::Kind {
        match self.on(device) {
            Self::Bf16 => tch::Kind::BFloat16,
            _ => tch::Kind::Float,
        }
    }
}

section! {
    /// `[model]`
    Model {
        /// A checkpoint directory or a hub id (`owner/name`). Empty: a random model of `preset`,
        /// made in the run directory.
        path: String = "",
        /// Branch, tag or commit on the hub.
        revision: String = "main",
        /// Architecture of a random model: `nano`, `internvl3-1b`, `internvl3-2b`, `internvl3-8b`,
        /// `internvl3-14b`.
        preset: Preset = Preset::Nano,
        /// Tokens of the tokenizer that is trained for `nano`, special ones included.
        vocab_size: usize = 512usize,
        /// Dtype of the products: `bf16`, `f32`, or `auto`: bf16 on CUDA and on CPUs with
        /// instructions for it (such as avx512_bf16), else f32. Other CPUs take many times as long
        /// for bf16. Trainable weights and the optimiser are always fp32.
        dtype: Dtype = Dtype::Auto,
        /// `lora` or `full`.
        tune: Tune = Tune::Lora,
        /// Does not train the vision tower and the projector, so that picture embeddings are
        /// computed once and kept. `tune = "lora"` never trains them.
        freeze_vision: bool = true,
        /// Computes activations again in the backward pass: a step takes a third more time and a
        /// fraction of the memory. May change when a run is continued.
        gradient_checkpointing: bool = false,
        /// Host memory for kept picture embeddings, in MiB. A 448-pixel tile of the 2B model takes
        /// 0.75 MiB, all of GenCAD-Code 110,000 MiB. Embeddings that do not fit are computed again.
        /// May change when a run is continued.
        vision_cache_mib: usize = 2048usize,
        /// Maximum number of tiles per image, without the thumbnail. GenCAD-Code's images are one
        /// tile.
        max_tiles: usize = 1usize,
    }
}

section! {
    /// `[lora]`
    Lora {
        /// Rank r.
        rank: usize = 128usize,
        /// The adapter is scaled by alpha / rank.
        alpha: f64 = 252.0,
        /// Dropout probability of the inputs of A, in SFT only: PPO must score under the
        /// distribution that it sampled from.
        dropout: f64 = 0.05,
        /// Scales by alpha / sqrt(rank) instead.
        rslora: bool = false,
        /// Adapted layers: a list of last parts of their names, a regular expression for whole
        /// names, or `"all-linear"`.
        target_modules: TargetModules = TargetModules::Names(
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(String::from).to_vec()
        ),
    }
}

/// The source of the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The checkpoint, if it has a chat template; else as [`Self::Internvl`].
    Auto,
    /// InternVL's documentation.
    Internvl,
}

section! {
    /// `[prompt]`
    PromptText {
        /// Chat template: `auto` (the checkpoint's own if it has one) or `internvl` (the one that
        /// InternVL documents).
        template: Template = Template::Auto,
        /// System message. Empty: none, or the default of the checkpoint's template.
        system: String = "",
        /// The request after the picture, or around it if the text contains `<image>`. Empty: none.
        user: String = "Generate the CADQuery code needed to create the CAD for the provided image.",
    }
}

/// The source of pictures and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Made by `cadwright data synth` with `[data.synth]`, in the run directory.
    Synth,
    /// Parquet files in `data.path`.
    Parquet,
    /// A dataset on the Hugging Face hub.
    Hub,
}

section! {
    /// `[data]`
    Data {
        /// `synth`, `parquet` or `hub`.
        source: Source = Source::Synth,
        /// Directory with `<split>-*.parquet`, for `parquet`.
        path: PathBuf = "",
        /// Dataset id, for `hub`.
        repo: String = "CADCODER/GenCAD-Code",
        /// Revision on the hub.
        revision: String = "main",
        /// Maximum number of training rows; 0 for all.
        train_limit: usize = 0usize,
        /// Number of training rows, the first ones, whose programs are used for learning; 0 for
        /// all. PPO uses picture and shape of the other rows too.
        programs_limit: usize = 0usize,
        /// Synthetic parts.
        synth: Synth = Synth::default(),
    }
}

section! {
    /// `[data.synth]`
    Synth {
        /// Training parts.
        train: usize = 20_000usize,
        /// Validation parts.
        validation: usize = 256usize,
        /// Test parts.
        test: usize = 512usize,
        /// Coordinates are multiples of 1 / grid.
        grid: u32 = 32u32,
        /// `short` (0.25) or `full` (the data set's long floats).
        numbers: Numbers = Numbers::Short,
        /// Side of the pictures in pixels.
        image_size: u32 = 112u32,
    }
}

section! {
    /// `[generate]`
    Generate {
        /// A completion that has not ended after this many tokens is cut off and counted as
        /// `truncated`.
        max_new_tokens: usize = 1024usize,
        /// Completions generated at the same time. Each takes memory for its keys and values. May
        /// change when a run is continued.
        batch_size: usize = 64usize,
    }
}

section! {
    /// `[rollout]`
    Rollout {
        /// The engine that executes programs in training and validation: `auto` (the native engine,
        /// and CadQuery for programs that it declines) or `cadquery`.
        engine: Engine = Engine::Auto,
        /// Programs executed at the same time. 0: one a core.
        workers: usize = 0usize,
        /// A program that runs longer is killed and counted as `timeout`.
        timeout_s: f64 = 10.0,
        /// A program that asks for more memory fails as `memory`, in MiB.
        memory_mib: u64 = 2048u64,
        /// Cells along an edge of the occupancy grid that the training reward and validation use.
        grid: usize = 64usize,
        /// Frame of the IoU in the reward: `canonical`, `normalised` or `aligned`.
        frame: Frame = Frame::Canonical,
        /// Directory of executed ground truths. Empty: `cache` in the run directory;
        /// `cadwright eval` then keeps none.
        cache_dir: PathBuf = "",
    }
}

/// The optimiser of the matrices in the model; everything else is AdamW's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// Loshchilov & Hutter 2019.
    Adamw,
    /// Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), for matrices except
    /// embeddings.
    Muon,
}

section! {
    /// `[sft]`
    Sft {
        /// Passes over the training rows.
        epochs: f64 = 3.0,
        /// Optimiser steps; unless 0, `epochs` is ignored.
        max_steps: usize = 0usize,
        /// Ends the stage after this many seconds of wall time, validations included; the learning
        /// rate then falls with the time. 0: no limit. A run with a limit is not repeatable bit by
        /// bit.
        max_seconds: f64 = 0.0,
        /// Examples in one forward pass. May change when a run is continued, if its product with
        /// `gradient_accumulation`, the examples in one optimiser step, stays the same.
        batch_size: usize = 4usize,
        /// Forward passes in one optimiser step.
        gradient_accumulation: usize = 8usize,
        /// `adamw` or `muon`.
        optimizer: OptimizerKind = OptimizerKind::Adamw,
        /// Peak learning rate.
        learning_rate: f64 = 1e-4,
        /// Steps in which the learning rate climbs from 0.
        warmup_steps: usize = 100usize,
        /// Share of the stage before the linear decay begins; 0 decays from the start.
        hold: f64 = 0.0,
        /// The decay ends at this share of the peak.
        final_lr: f64 = 0.0,
        /// Decoupled weight decay, on matrices only.
        weight_decay: f64 = 0.01,
        /// Decay rates of AdamW's moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Gradients with a greater norm are scaled down to this norm.
        max_grad_norm: f64 = 1.0,
        /// Longer examples (prompt and program, in tokens) are left out and counted.
        max_length: usize = 4096usize,
        /// Steps between validations; 0 for none but the last.
        validate_every: usize = 500usize,
        /// Validation parts that are generated and scored.
        validation_samples: usize = 64usize,
        /// Steps between checkpoints from which a killed run continues; 0 for none.
        checkpoint_every: usize = 500usize,
    }
}

/// How the cross-entropy weight falls over PPO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeSchedule {
    /// Linearly to 0 at `ce_anneal_until`.
    Linear,
    /// As half a cosine to 0 at `ce_anneal_until`.
    Cosine,
    /// Not at all.
    Constant,
    /// As `linear`, but it does not fall while the rollouts' VSR is below that of the SFT policy or
    /// the KL is above its target.
    Guarded,
}

/// The baseline of a completion's reward, and how advantages are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The estimate of a value head, by GAE (Schulman et al. 2017, arXiv:1707.06347).
    Ppo,
    /// The mean reward of the picture's other completions (Ahmadian et al. 2024, arXiv:2402.14740).
    Rloo,
    /// The mean reward of the picture's completions; differences are divided by their standard
    /// deviation, and every completion has the same weight, whatever its length (Shao et al. 2024,
    /// arXiv:2402.03300).
    Grpo,
    /// The mean reward of the picture's completions, without any normalisation (Liu et al. 2025,
    /// arXiv:2503.20783).
    DrGrpo,
}

impl Algorithm {
    /// Whether rewards are compared within a picture's completions, so that no value head is
    /// needed.
    pub fn is_grouped(self) -> bool {
        self != Self::Ppo
    }
}

/// How the pictures of a step are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// All, epoch by epoch.
    Uniform,
    /// Pictures whose completions were neither all right nor all wrong when last seen are drawn
    /// more often.
    Signal,
}

section! {
    /// `[ppo]`
    Ppo {
        /// Rounds of collecting and updating; 0 skips the stage.
        steps: usize = 500usize,
        /// Ends the stage after this many seconds of wall time from the first step on, validations
        /// included; schedules then follow the time. 0: no limit. A run with a limit is not
        /// repeatable bit by bit.
        max_seconds: f64 = 0.0,
        /// Pictures in a step.
        images_per_step: usize = 32usize,
        /// Programs generated for each picture.
        samples_per_image: usize = 8usize,
        /// Softmax temperature of the rollouts. The update scores under the same temperature.
        temperature: f64 = 1.0,
        /// Passes over a step's rollouts.
        epochs: usize = 1usize,
        /// Completions in one optimiser step.
        minibatch_size: usize = 64usize,
        /// Completions in one forward pass, which limits memory; 0 for the whole minibatch. May
        /// change when a run is continued.
        micro_batch_size: usize = 0usize,
        /// `adamw` or `muon`.
        optimizer: OptimizerKind = OptimizerKind::Adamw,
        /// Peak learning rate of the policy.
        learning_rate: f64 = 1e-5,
        /// Share of the stage before the linear decay begins; 0 decays from the start.
        hold: f64 = 0.0,
        /// The decay ends at this share of the peak.
        final_lr: f64 = 0.0,
        /// Steps in which the learning rate climbs from 0.
        warmup_steps: usize = 5usize,
        /// Learning rate of the value head.
        value_learning_rate: f64 = 1e-3,
        /// Passes of the value head over a step's rollouts.
        value_epochs: usize = 2usize,
        /// `rloo`, `grpo` or `dr_grpo` (the baseline is the mean of a picture's completions,
        /// without a critic), or `ppo` (a critic, by GAE). The group shows whether a picture was
        /// read correctly, which a critic does not know: see docs/log.md.
        algorithm: Algorithm = Algorithm::Rloo,
        /// With `rloo`: the baseline of a token is the mean over the picture's completions that
        /// share all tokens before it.
        prefix_baseline: bool = false,
        /// `uniform` (epochs over the training parts) or `signal` (parts whose rewards differed
        /// when last seen are drawn more often).
        curriculum: Curriculum = Curriculum::Uniform,
        /// Completions of each picture that the update uses, some of the best and some of the
        /// worst; 0 for all.
        keep_per_image: usize = 0usize,
        /// Pictures of a step that the update uses, those whose kept rewards vary most; 0 for all.
        keep_images: usize = 0usize,
        /// Subtracted from the reward of a completion of `generate.max_new_tokens` tokens;
        /// proportionally less from shorter ones.
        length_penalty: f64 = 0.0,
        /// Divides rewards by their running standard deviation.
        reward_normalisation: bool = false,
        /// Advantages are clipped to plus and minus this; 0 for no limit.
        advantage_clip: f64 = 0.0,
        /// Discount of rewards, per token.
        gamma: f64 = 1.0,
        /// Lambda of GAE: 1 uses the return only, 0 the critic only. The whole reward is at the
        /// last token: below 1, it reaches early tokens mainly through the critic.
        gae_lambda: f64 = 1.0,
        /// The policy's ratio is clipped to 1 minus and 1 plus this.
        clip_range: f64 = 0.2,
        /// A value is clipped to this distance from its old value.
        value_clip_range: f64 = 0.2,
        /// A step's updates end as soon as a minibatch has a mean KL per token above this to the
        /// policy that sampled; 0: never.
        target_kl: f64 = 0.0,
        /// Does not train the vision tower and the projector, even if `model.freeze_vision` is
        /// false. Picture embeddings are then computed once a step.
        freeze_vision: bool = true,
        /// Weight of the KL divergence to the SFT model.
        kl_coef: f64 = 0.01,
        /// `kl_coef` is adapted so that the mean KL per token comes near this; 0 keeps it fixed.
        kl_target: f64 = 0.0,
        /// Weight of the entropy bonus.
        entropy_coef: f64 = 0.0,
        /// Weight of the cross-entropy on ground-truth programs at the first step.
        ce_weight: f64 = 0.3,
        /// `linear`, `cosine`, `constant` or `guarded` (linear, but it waits while the rollouts'
        /// VSR is more than 0.02 below the SFT policy's or the KL is above `kl_target`).
        ce_schedule: CeSchedule = CeSchedule::Linear,
        /// Share of the steps at which the weight reaches 0.
        ce_anneal_until: f64 = 1.0,
        /// Ground-truth programs in the cross-entropy of one optimiser step.
        ce_batch_size: usize = 16usize,
        /// Share of the cross-entropy's programs that are the policy's own: its best ones so far
        /// for rows without a program (self-imitation).
        ce_own_share: f64 = 0.0,
        /// Minimum IoU of the policy's own programs in the cross-entropy.
        ce_own_iou: f64 = 0.8,
        /// Decoupled weight decay, on matrices only.
        weight_decay: f64 = 0.0,
        /// Decay rates of AdamW's moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Gradients with a greater norm are scaled down to this norm.
        max_grad_norm: f64 = 1.0,
        /// Steps between validations; 0 for none but the last.
        validate_every: usize = 50usize,
        /// Validation parts that are generated and scored.
        validation_samples: usize = 64usize,
        /// Validation parts for which the SFT policy generates `samples_per_image` programs, but at
        /// least eight, before the first step. The mean of the best ones is the ceiling for a
        /// policy that only chooses among what SFT generates. 0: none.
        ceiling_samples: usize = 64usize,
        /// Steps between checkpoints from which a killed run continues; 0 for none.
        checkpoint_every: usize = 50usize,
    }
}

section! {
    /// `[eval]`
    Eval {
        /// Split that is evaluated.
        split: Split = Split::Test,
        /// Only rows that GenCAD-Code marks as its public 100-sample test.
        hundred_subset: bool = false,
        /// Parts evaluated; 0 for all.
        num_samples: usize = 100usize,
        /// 0 decodes greedily.
        temperature: f64 = 0.0,
        /// Programs generated for each part. More than one need a temperature, and give mean@k,
        /// best@k and pass@k.
        samples_per_image: usize = 1usize,
        /// IoU thresholds of pass@k.
        thresholds: Vec<f64> = [0.5, 0.75, 0.9, 0.95],
        /// Samples only among the likeliest tokens that together have this probability; 1 samples
        /// among all.
        top_p: f64 = 1.0,
        /// The engine that executes programs in the final evaluation, as `rollout.engine`; by
        /// default real CadQuery alone.
        engine: Engine = Engine::Cadquery,
        /// Cells along an edge of the occupancy grid.
        grid: usize = 128usize,
        /// Frames of the IoU, each reported by its name; tables show the first. Besides those of
        /// `rollout.frame` there are `shell` (the published metric) and `exact` (booleans; slow).
        frames: Vec<Frame> = [Frame::Canonical],
    }
}
