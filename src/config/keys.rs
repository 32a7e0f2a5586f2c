//! Every key of a configuration, by section, with its unit, default and effect.

use std::path::PathBuf;

use cadwright_rewards::reward::RewardConfig;
use cadwright_rewards::{Frame, Protocol, section};
use cadwright_rollout::{Engine, Sandbox};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::ppo::Ppo;
use crate::agent::choose::Select;
use crate::data::synth::Numbers;
use crate::data::{Columns, Folder, Split, SplitNames};
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
        /// The text of the prompt.
        prompt: PromptText = PromptText::default(),
        /// The pictures and programs.
        data: Data = Data::default(),
        /// Generation of completions, in every stage.
        generate: Generate = Generate::default(),
        /// Execution and comparison of programs.
        rollout: Rollout = Rollout::default(),
        /// The reward, computed from outcome and IoU.
        reward: RewardConfig = RewardConfig::default(),
        /// Supervised fine-tuning.
        sft: Sft = Sft::default(),
        /// Proximal policy optimisation.
        ppo: Ppo = Ppo::default(),
        /// The final evaluation.
        eval: Eval = Eval::default(),
        /// Search at inference, by the agent.
        agent: Agent = Agent::default(),
        /// Several ranks, if a launcher has started them.
        distributed: Distributed = Distributed::default(),
    }
}

/// A check before the first step of a stage: docs/gates.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Gate {
    /// Ground truths build solids that are equal to themselves
    Truths,
    /// Known programs get the outcome, IoU and order of rewards that they must have
    Scorer,
    /// Training uses the prompt that evaluation will use
    Prompt,
    /// The stage's estimated memory is there
    Memory,
    /// The space for the stage's checkpoints and policies is there
    Disk,
    /// Few of the first completions are cut off
    Truncation,
    /// Another picture gives a program another log-probability
    Picture,
    /// The trainer gives tokens the log-probabilities with which they were sampled
    Ratio,
}

impl Gate {
    /// The name in configurations, flags and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truths => "truths",
            Self::Scorer => "scorer",
            Self::Prompt => "prompt",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Truncation => "truncation",
            Self::Picture => "picture",
            Self::Ratio => "ratio",
        }
    }
}

/// What an alarm of reinforcement learning does: docs/gates.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmAction {
    /// Prints a line.
    Warn,
    /// Prints the line, writes a checkpoint and ends the run.
    Stop,
}

section! {
    /// `[run]`
    Run {
        /// The run directory, to which all files are written. Empty: `runs/<name of the config
        /// file>`.
        output_dir: PathBuf = "",
        /// The seed from which all other seeds derive.
        seed: u32 = 0u32,
        /// `auto` (the first CUDA device, or the CPU if there is none), `cpu`, `cuda` or `cuda:1`.
        /// With several ranks on a machine, `auto` and `cuda` give each a device of its own.
        device: DeviceChoice = DeviceChoice::Auto,
        /// Number of threads for libtorch. 0: one per core; with several ranks on a machine, each
        /// has its share of the cores.
        threads: usize = 0usize,
        /// After PPO, continues SFT from its best checkpoint for as long as PPO took, and evaluates
        /// the result. This control shows what the same time achieves without reinforcement
        /// learning.
        control: bool = false,
        /// Gates that need not be passed before a stage starts: names as in `--allow` and
        /// docs/gates.md. May change when a run is continued.
        allow: Vec<Gate> = [],
        /// Largest share of the first step's completions, in [0, 1], that may be cut off: the gate
        /// `truncation`. May change when a run is continued.
        truncation_limit: f64 = 0.5,
        /// `warn` (an alarm prints a line) or `stop` (it also writes a checkpoint and ends the run,
        /// which the same command continues). docs/gates.md has the alarms. May change when a run
        /// is continued.
        alarms: AlarmAction = AlarmAction::Warn,
        /// Number of checkpoints that a stage keeps while it trains. If the newest is damaged, the
        /// run goes on from the one before. May change when a run is continued.
        keep_last: usize = 2usize,
        /// Number of policies of a stage that are kept: `best`, and the best ones before it as
        /// `best-<step>`. May change when a run is continued.
        keep_best: usize = 1usize,
        /// Largest number of parts in the gallery of `report.html`, which `run` writes at its end
        /// (docs/report.md), at most 1000. 0: it writes none. May change when a run is continued.
        report_parts: usize = 100usize,
    }
}

/// The weights that training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tune {
    /// Those of a low-rank adapter. The base model is frozen.
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
        /// Branch, tag or commit of the model on the hub.
        revision: String = "main",
        /// Architecture of a random model: `nano`, `internvl3-1b`, `internvl3-2b`, `internvl3-8b`,
        /// `internvl3-14b`.
        preset: Preset = Preset::Nano,
        /// Vocabulary size of the tokenizer that is trained for `nano`, special tokens included.
        vocab_size: usize = 512usize,
        /// Dtype of matrix products: `bf16`, `f32` or `auto`. `auto` is bf16 on CUDA and on CPUs
        /// with instructions for it (such as avx512_bf16), otherwise f32. Other CPUs take many
        /// times as long for bf16. Trainable weights and the optimiser state are always fp32.
        dtype: Dtype = Dtype::Auto,
        /// The weights that training changes: `lora` (a low-rank adapter) or `full` (all).
        tune: Tune = Tune::Lora,
        /// Freezes the vision tower and the projector, so that picture embeddings are computed once
        /// and kept. `tune = "lora"` never trains them.
        freeze_vision: bool = true,
        /// Computes activations again in the backward pass. A step then takes a third more time and
        /// a fraction of the memory. May change when a run is continued.
        gradient_checkpointing: bool = false,
        /// Host memory for picture embeddings, in MiB. A 448-pixel tile of the 2B model takes 0.75
        /// MiB, and all of GenCAD-Code takes 110,000 MiB. Embeddings that do not fit are computed
        /// again. May change when a run is continued.
        vision_cache_mib: usize = 2048usize,
        /// Maximum number of tiles per picture, without the thumbnail. GenCAD-Code's pictures are
        /// one tile each.
        max_tiles: usize = 1usize,
    }
}

section! {
    /// `[lora]`
    Lora {
        /// Rank of the adapter.
        rank: usize = 128usize,
        /// Numerator of the adapter's scale, which is alpha / rank.
        alpha: f64 = 252.0,
        /// Dropout probability of the adapter's inputs. Applies to SFT only, because PPO must score
        /// tokens under the distribution that it sampled from. The zeroed inputs of an example are
        /// drawn for the example and the step, whatever else is in the forward pass.
        dropout: f64 = 0.05,
        /// Uses the scale alpha / sqrt(rank) instead (rsLoRA).
        rslora: bool = false,
        /// The adapted layers: a list of the last parts of their names, a regular expression for
        /// whole names, or `"all-linear"`.
        target_modules: TargetModules = TargetModules::Names(
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(String::from).to_vec()
        ),
    }
}

/// The source of the chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The checkpoint if it has a chat template, otherwise [`Self::Internvl`].
    Auto,
    /// InternVL's documentation.
    Internvl,
}

section! {
    /// `[prompt]`
    PromptText {
        /// What the request says and shows besides `system` and `user`: `plain` (nothing),
        /// `reference` (a compact reference of CadQuery), `plan` (asks for a plan between `<think>`
        /// marks before the program), `planned` (the same without asking, for a policy that is
        /// trained on plans), `examples` (the most similar training parts with their programs; for
        /// `eval` and `generate`), or a TOML file of your own as those in `configs/prompts/`. A
        /// completion with a plan needs a larger `generate.max_new_tokens`.
        strategy: String = "plain",
        /// Number of training rows, counted from the first, among which examples are sought; 0 for
        /// all.
        example_rows: usize = 20_000usize,
        /// Chat template: `auto` (the checkpoint's own, or `internvl` if it has none) or `internvl`
        /// (the one that InternVL documents).
        template: Template = Template::Auto,
        /// System message. Empty: no message, or the default of the checkpoint's template.
        system: String = "",
        /// The user's request. It follows the picture, or surrounds it if the text contains
        /// `<image>`. Empty: no text.
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
    /// A dataset of parquet files on the Hugging Face hub.
    Hub,
    /// JSONL files in `data.path`.
    Jsonl,
    /// Pictures, programs and shapes as files of their own, in `data.path` or `[data.folder]`.
    Folder,
}

section! {
    /// `[data]`
    Data {
        /// `synth` (parts made in the run directory), `parquet` or `jsonl` (the files in `path`),
        /// `folder` (pictures, programs and shapes below `path`) or `hub` (the dataset `repo`).
        /// docs/data.md shows each form.
        source: Source = Source::Synth,
        /// Directory with `<split>-*.parquet` or `<split>.jsonl`, one such file, or a folder.
        path: PathBuf = "",
        /// Dataset id on the hub, for `source = "hub"`.
        repo: String = "CADCODER/GenCAD-Code",
        /// Branch, tag or commit of the dataset on the hub.
        revision: String = "main",
        /// Maximum number of training rows; 0 for all.
        train_limit: usize = 0usize,
        /// Number of training rows, counted from the first, whose programs are used for learning; 0
        /// for all. PPO uses the pictures and shapes of the other rows, too.
        programs_limit: usize = 0usize,
        /// Names of the pictures of each part, all of which the model sees, in this order: for
        /// `["iso", "front"]`, the files `part_iso.png` and `part_front.png` of a folder, or the
        /// columns `image_iso` and `image_front` of a table. Empty: one picture, `part.png` or
        /// `image`. If the names are those of views, renders are compared with all of them, each in
        /// its view; else with the first one, unless `agent.views` says more.
        views: Vec<String> = [],
        /// Name of the variable that holds a program's result, such as `r` in CAD-Recode's
        /// programs. It comes before the published rule, which decides if a program has no such
        /// shape, and alone if this is empty: `solid`, `result`, `shape`, `part`, `object`, `obj`,
        /// `res`, or else the first shape.
        result_name: String = "",
        /// The columns of tables.
        columns: Columns = Columns::default(),
        /// What the data set calls its splits.
        splits: SplitNames = SplitNames::default(),
        /// The files of `source = "folder"`.
        folder: Folder = Folder::default(),
        /// The synthetic parts of `source = "synth"`.
        synth: Synth = Synth::default(),
    }
}

section! {
    /// `[data.synth]`
    Synth {
        /// Number of training parts.
        train: usize = 20_000usize,
        /// Number of validation parts.
        validation: usize = 256usize,
        /// Number of test parts.
        test: usize = 512usize,
        /// Cells per unit length. Coordinates are multiples of 1 / grid.
        grid: u32 = 32u32,
        /// Form of the numbers in programs: `short` (such as 0.25) or `full` (long floats, as in
        /// GenCAD-Code).
        numbers: Numbers = Numbers::Short,
        /// Side of the pictures, in pixels.
        image_size: u32 = 112u32,
    }
}

section! {
    /// `[generate]`
    Generate {
        /// Maximum number of tokens in a completion. A longer one is cut off and counted as
        /// `truncated`.
        max_new_tokens: usize = 1024usize,
        /// Number of completions generated at the same time. Each takes memory for its keys and
        /// values. May change when a run is continued.
        batch_size: usize = 64usize,
    }
}

section! {
    /// `[rollout]`
    Rollout {
        /// The engine that executes programs in training and validation: `auto` (the native engine,
        /// and CadQuery for programs that it declines) or `cadquery`.
        engine: Engine = Engine::Auto,
        /// Number of programs executed at the same time on a machine, by all of its ranks. 0: one
        /// per core.
        workers: usize = 0usize,
        /// Deadline of a program, in seconds. A program that runs longer is killed and counted as
        /// `timeout`.
        timeout_s: f64 = 10.0,
        /// Memory limit of a program, in MiB. A program that asks for more fails as `memory`.
        memory_mib: u64 = 2048u64,
        /// `required`: every layer of the sandbox that the kernel offers must hold, or nothing is
        /// executed. `best_effort`: programs run with the layers that hold; the others are named.
        sandbox: Sandbox = Sandbox::Required,
        /// Cells along each axis of the occupancy grid of the training reward and of validation.
        grid: usize = 64usize,
        /// Frame of the IoU in the reward: `canonical`, `normalised` or `aligned`.
        frame: Frame = Frame::Canonical,
        /// Directory that keeps the outcomes of ground truths. Empty: `cache` in the run directory;
        /// `cadwright eval` then keeps none.
        cache_dir: PathBuf = "",
    }
}

/// The optimiser of the matrices in the model. All other weights use AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    Adamw,
    /// Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), for matrices except
    /// embeddings.
    Muon,
}

section! {
    /// `[sft]`
    Sft {
        /// Number of passes over the training rows.
        epochs: f64 = 3.0,
        /// Number of optimiser steps. Unless it is 0, `epochs` is ignored.
        max_steps: usize = 0usize,
        /// Ends the stage after this many seconds of wall time, validations included. The learning
        /// rate then decays with the time. 0: no limit. A run with a limit is not repeatable bit by
        /// bit.
        max_seconds: f64 = 0.0,
        /// Examples in one forward pass. May change when a run is continued if its product with
        /// `gradient_accumulation`, the examples in one optimiser step, stays the same: a step does
        /// not depend on how its examples are divided, dropout included.
        batch_size: usize = 4usize,
        /// Forward passes in one optimiser step.
        gradient_accumulation: usize = 8usize,
        /// 2 also teaches to correct: before the first step, the model samples a draft for each row
        /// with a program, at `ppo.temperature`; after the draft and what came of it, the row's
        /// program is the answer that is learned. It needs a `model.path` that can write programs.
        /// 1 teaches only first answers.
        turns: usize = 1usize,
        /// With `turns = 2`, goes on to teach the first answers too. If it is false, only the
        /// second ones are learned.
        first_turn: bool = true,
        /// Optimiser of matrices: `adamw` or `muon`. All other weights use AdamW.
        optimizer: OptimizerKind = OptimizerKind::Adamw,
        /// Peak learning rate.
        learning_rate: f64 = 1e-4,
        /// Steps in which the learning rate rises linearly from 0.
        warmup_steps: usize = 100usize,
        /// Share of the stage, in [0, 1], after which the linear decay begins; 0 decays from the
        /// start.
        hold: f64 = 0.0,
        /// Learning rate at the end of the decay, as a share of the peak.
        final_lr: f64 = 0.0,
        /// Decoupled weight decay, on matrices only.
        weight_decay: f64 = 0.01,
        /// Decay rates of AdamW's moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Maximum norm of the gradients. A greater norm is scaled down to it.
        max_grad_norm: f64 = 1.0,
        /// Maximum length of an example (prompt and program), in tokens. Longer examples are left
        /// out and counted.
        max_length: usize = 4096usize,
        /// Steps between validations; 0 validates only at the end.
        validate_every: usize = 500usize,
        /// Number of validation parts for which programs are generated and scored.
        validation_samples: usize = 64usize,
        /// Steps between checkpoints from which a killed run continues; 0 writes none.
        checkpoint_every: usize = 500usize,
    }
}

section! {
    /// `[eval]`
    Eval {
        /// The split to evaluate: `train`, `validation` or `test`.
        split: Split = Split::Test,
        /// Evaluates only rows that GenCAD-Code marks as its public 100-sample test.
        hundred_subset: bool = false,
        /// Number of parts to evaluate; 0 for all.
        num_samples: usize = 100usize,
        /// Softmax temperature of the samples; 0 decodes greedily.
        temperature: f64 = 0.0,
        /// Number of programs generated for each part. More than one requires a temperature above
        /// 0, and gives mean@k, best@k and pass@k.
        samples_per_image: usize = 1usize,
        /// Programs that are written one after another for a sample, as in `ppo.turns`. The last
        /// one counts; the earlier ones stand beside it in `predictions.json`.
        turns: usize = 1usize,
        /// Ways to choose one of a part's programs, without executing any again: `image` (its render
        /// is the most like the picture), `consensus` (its solid is the most like those of the
        /// others), `logprob` (the highest mean log-probability of a token) and `truth` (the
        /// highest IoU: the oracle). All are reported, and the first one chooses the programs of
        /// predictions.json. Empty: nothing is chosen.
        select: Vec<Select> = [],
        /// With `select`: numbers of samples out of which one is chosen, besides
        /// `samples_per_image`. They cost nothing more.
        select_at: Vec<usize> = [],
        /// Evaluates the agent of `[agent]` in place of the policy's own programs. Its temperature is
        /// `agent.temperature`.
        agent: bool = false,
        /// IoU thresholds of pass@k.
        thresholds: Vec<f64> = [0.5, 0.75, 0.9, 0.95],
        /// Samples only among the likeliest tokens that together have this probability, but at
        /// least one; 1 samples among all.
        top_p: f64 = 1.0,
        /// The engine that executes programs in the final evaluation, as in `rollout.engine`. By
        /// default it is real CadQuery alone.
        engine: Engine = Engine::Cadquery,
        /// Cells along each axis of the occupancy grid.
        grid: usize = 128usize,
        /// Frames of the IoU. Each is reported by its name, and tables show the first. In addition
        /// to those of `rollout.frame`, there are `shell` (the published metric) and `exact`
        /// (booleans; slow).
        frames: Vec<Frame> = [Frame::Canonical],
        /// Metrics as others publish them, computed besides: `cadrille`, `cadbench`
        /// (docs/metrics.md).
        protocols: Vec<Protocol> = [],
    }
}

/// What an agent's candidates are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifierKind {
    /// The likeness of the candidate's picture to the input picture.
    Image,
    /// Whether it builds a solid.
    Execution,
    /// The IoU with the ground truth, in `rollout.frame`: the upper bound.
    Truth,
}

section! {
    /// `[agent]`: writes, builds, looks and corrects (docs/agent.md).
    Agent {
        /// Rounds in which the model writes. The first sees the pictures; each later one also the
        /// best program so far and what came of it, which helps a model that was trained with
        /// `ppo.turns = 2` and hardly another.
        rounds: usize = 1usize,
        /// Programs that the model writes in a round. The first of all is the greedy one.
        samples: usize = 8usize,
        /// Softmax temperature of the samples.
        temperature: f64 = 1.0,
        /// Changed programs that are built and judged for a part, after the last round; 0 refines
        /// nothing.
        refine: usize = 500usize,
        /// Number of the best programs from which refinement starts.
        starts: usize = 8usize,
        /// Number of labelled programs (those of the prior whose solids look most like the picture)
        /// from which refinement starts besides.
        neighbours: usize = 8usize,
        /// What candidates are judged by: `image` (their likeness to the picture), `execution`
        /// (whether they build a solid) or `truth` (IoU with the ground truth: the upper bound).
        verifier: VerifierKind = VerifierKind::Image,
        /// The views that pictures may show: `iso` (the data set's), `corners`, `axes`, or the names
        /// of single ones. Each picture is compared in the one that fits a candidate best. Empty: the
        /// views that `data.views` names, in that order; if it names none, `iso`, or for several
        /// `--image` of one part all `corners` and `axes`.
        views: Vec<String> = [],
        /// Data set (parquet or JSONL files, a folder, or a hub id) whose training programs teach
        /// the prior. Names of columns, splits and folders are those of `[data]`; pictures are not
        /// read. Empty: `prior.json` beside the adapter or checkpoint, which training writes;
        /// without that, no prior.
        prior: String = "",
        /// What a nat of the prior's plausibility is worth in units of the verifier's score.
        prior_weight: f64 = 0.01,
        /// Shows the model the render of its program in later rounds.
        shows_render: bool = true,
        /// Tokens that the model may write for a part before the last round; 0: no limit.
        max_tokens: usize = 0usize,
        /// Seconds for a part, on average over the parts of a batch; 0: no limit. What was found
        /// until then counts. A run with a limit is not repeatable.
        max_seconds: f64 = 0.0,
    }
}

section! {
    /// `[distributed]`: several processes, if a launcher has started them (docs/distributed.md).
    Distributed {
        /// Seconds that a rank waits for the others in one operation. A rank whose process is gone
        /// ends the others sooner. May change when a run is continued.
        timeout_s: f64 = 600.0,
        /// Divides the optimiser's moments among the ranks (ZeRO, stage 1; Rajbhandari et al. 2020,
        /// arXiv:1910.02054), for full tuning. Each rank updates its share of the weights and sends
        /// it to the others. May change when a run is continued.
        shard_optimizer: bool = false,
    }
}
