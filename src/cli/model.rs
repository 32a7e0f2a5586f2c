//! `cadwright model`

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cadwright::config::Tune;
use cadwright::device::DeviceChoice;
use cadwright::files::replace_directory;
use cadwright::hub::resolve_checkpoint;
use cadwright::model::{
    InternVl, InternVlConfig, Layout, Memory, Preset, Ranks, Tokenizer, Trained, Usage, Weights, files,
};
use cadwright::policy::{self, PolicyPath};
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use tch::{Device, Kind};

/// Make, inspect and convert models
#[derive(Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Subcommand)]
enum ModelCommand {
    /// Write a random model, with a tokenizer of bytes to try it out
    Init(InitArgs),
    /// Describe a checkpoint and the memory that it takes
    Inspect(InspectArgs),
    /// Compute logits: tensors in, tensors out, to compare with other implementations
    Logits(LogitsArgs),
    /// Add an adapter to its model's weights and write the sum as a checkpoint
    Merge(MergeArgs),
}

/// Dtype of weights or products.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileDtype {
    /// bfloat16.
    Bf16,
    /// float32.
    F32,
}

impl FileDtype {
    fn kind(self) -> Kind {
        match self {
            Self::Bf16 => Kind::BFloat16,
            Self::F32 => Kind::Float,
        }
    }

    /// Bytes per number.
    fn width(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Parses the name of a layout.
fn layouts() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(Layout::ALL.map(Layout::name)).try_map(|name| name.parse())
}

#[derive(Args)]
struct InitArgs {
    /// nano, internvl3-1b, internvl3-2b, internvl3-8b, internvl3-14b, internvl3-38b or
    /// internvl3-78b
    #[arg(long, required_unless_present = "config", conflicts_with = "config")]
    preset: Option<String>,
    /// A config.json of either layout instead of a preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Dtype of the weights
    #[arg(long, value_enum, default_value_t = FileDtype::Bf16)]
    dtype: FileDtype,
    /// original (InternVLChatModel) or hf (InternVLForConditionalGeneration); by default that of
    /// --config, or original
    #[arg(long, value_parser = layouts())]
    layout: Option<Layout>,
    /// Tokens of the nano model's vocabulary
    #[arg(long, default_value_t = 512)]
    vocab_size: i64,
    /// Directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Args)]
struct InspectArgs {
    /// Checkpoint directory or hub id
    path: String,
    /// Branch, tag or commit of the model on the hub
    #[arg(long, default_value = "main")]
    revision: String,
    /// Sequences in one forward pass
    #[arg(long, default_value_t = 4)]
    batch: u64,
    /// Tokens in a sequence, those of the picture included
    #[arg(long, default_value_t = 1024)]
    length: u64,
    /// Tiles of a picture
    #[arg(long, default_value_t = 1)]
    tiles: u64,
    /// Rank of the adapter
    #[arg(long, default_value_t = 128)]
    rank: u64,
    /// Dtype of weights and products
    #[arg(long, value_enum, default_value_t = FileDtype::Bf16)]
    dtype: FileDtype,
    /// Also print the memory of each of this many GPUs that train together, with and without a
    /// sharded optimiser
    #[arg(long, value_name = "GPUS", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    world: Option<u64>,
    /// What those GPUs train: lora or full (model.tune)
    #[arg(long, value_parser = tunes(), default_value = "lora", requires = "world")]
    tune: Tune,
}

/// Parses `model.tune`.
fn tunes() -> impl TypedValueParser<Value = Tune> {
    PossibleValuesParser::new(["lora", "full"]).map(|name| if name == "full" { Tune::Full } else { Tune::Lora })
}

#[derive(Args)]
struct LogitsArgs {
    /// Checkpoint directory or hub id
    #[arg(long, value_name = "MODEL")]
    model_path: String,
    /// Branch, tag or commit of the model on the hub
    #[arg(long, default_value = "main")]
    revision: String,
    /// Directory or hub id of an adapter in PEFT's format
    #[arg(long, value_name = "ADAPTER")]
    lora_path: Option<String>,
    /// safetensors with input_ids [b, t] i64, and optionally pixel_values [tiles, 3, size, size]
    /// f32 (normalised; the n-th image token takes the n-th row of their embeddings) and
    /// attention_mask [b, t] (0 for padding)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// safetensors to write: logits [b, t, vocab] f32
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Dtype of weights and products
    #[arg(long, value_enum, default_value_t = FileDtype::F32)]
    dtype: FileDtype,
    /// auto, cpu, cuda or cuda:1
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
}

#[derive(Args)]
struct MergeArgs {
    /// Checkpoint directory or hub id of the base model
    #[arg(long, value_name = "MODEL")]
    model_path: String,
    /// Branch, tag or commit of the model on the hub
    #[arg(long, default_value = "main")]
    revision: String,
    /// Directory or hub id of an adapter in PEFT's format
    #[arg(long, value_name = "ADAPTER")]
    lora_path: String,
    /// Directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// hf (InternVLForConditionalGeneration, which transformers loads) or original
    #[arg(long, value_parser = layouts(), default_value = "hf")]
    layout: Layout,
    /// Dtype to write; by default the base's
    #[arg(long, value_enum)]
    dtype: Option<FileDtype>,
}

/// Runs it.
pub fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        ModelCommand::Init(args) => init(args),
        ModelCommand::Inspect(args) => inspect(args),
        ModelCommand::Logits(args) => logits(args),
        ModelCommand::Merge(args) => merge(args),
    }
}

fn init(args: &InitArgs) -> Result<()> {
    ensure!(!args.output.exists(), "{} exists; choose another --output", args.output.display());
    let mut config = match &args.config {
        Some(file) => InternVlConfig::read_file(file)?,
        None => InternVlConfig::preset(args.preset.as_deref().unwrap_or_default().parse::<Preset>()?, args.vocab_size),
    };
    if let Some(layout) = args.layout {
        config.layout = layout;
    }
    let tokenizer = Tokenizer::of_bytes()?;
    if tokenizer.vocab_size() as i64 <= config.llm_config.vocab_size {
        config.image_token_id = Some(tokenizer.image_token);
    }
    let weights = Weights::random(&config, args.seed, args.dtype.kind(), Device::Cpu);
    replace_directory(&args.output, |aside| {
        if config.image_token_id == Some(tokenizer.image_token) {
            tokenizer.save(aside)?;
        }
        let layout = config.layout;
        Ok(InternVl::new(config, weights, None, args.dtype.kind()).save(aside, layout)?)
    })
}

fn inspect(args: &InspectArgs) -> Result<()> {
    let directory = resolve_checkpoint(&args.path, &args.revision)?;
    let config = InternVlConfig::read(&directory)?;
    let (vision, language) = (&config.vision_config, &config.llm_config);
    let name = match config.layout {
        Layout::Original => "InternVLChatModel (original layout)",
        Layout::Hf => "InternVLForConditionalGeneration (hf layout)",
    };
    println!("{name}, {:.1} M parameters", config.parameter_count() as f64 / 1e6);
    println!(
        "vision: {} layers of width {}, {} heads, {}, {} pixels in patches of {}",
        vision.num_hidden_layers,
        vision.hidden_size,
        vision.num_attention_heads,
        if vision.qk_normalization { "RMS norms on queries and keys" } else { "no norms on queries and keys" },
        vision.image_size,
        vision.patch_size
    );
    println!(
        "language: Qwen2.5, {} layers of width {}, {} query and {} key heads of {}, {} tokens{}",
        language.num_hidden_layers,
        language.hidden_size,
        language.num_attention_heads,
        language.num_key_value_heads,
        language.head_dim(),
        language.vocab_size,
        if language.tie_word_embeddings { ", tied head" } else { "" }
    );
    println!("{} picture tokens a tile", config.tokens_per_tile());
    let usage = Usage {
        batch: args.batch,
        length: args.length,
        tiles: args.tiles,
        rank: args.rank,
        width: args.dtype.width(),
        is_checkpointed: false,
    };
    let dtype = match args.dtype {
        FileDtype::Bf16 => "bf16",
        FileDtype::F32 => "f32",
    };
    println!("memory, estimated, in {dtype} at batch {} and length {}:", args.batch, args.length);
    let checkpointed = Usage { is_checkpointed: true, ..usage };
    for (what, memory) in [
        ("inference", config.inference_memory(&usage)),
        ("LoRA SFT", config.sft_memory(&usage)),
        ("LoRA SFT, gradient checkpointing", config.sft_memory(&checkpointed)),
        ("PPO", config.ppo_memory(&usage)),
        ("PPO, gradient checkpointing", config.ppo_memory(&checkpointed)),
    ] {
        println!("  {what}: {}", described(&memory));
    }
    if let Some(world) = args.world {
        print_ranks(&config, &checkpointed, world, args.tune);
    }
    println!("{:#}", config.to_json("bfloat16"));
    Ok(())
}

/// Prints the memory of each of `world` GPUs, with gradient checkpointing.
fn print_ranks(config: &InternVlConfig, usage: &Usage, world: u64, tune: Tune) {
    let (what, trained) = match tune {
        Tune::Lora => ("LoRA", Trained::Adapter),
        Tune::Full => ("full", Trained::Model { vision: true }),
    };
    println!("memory of each of {world} GPUs, {what} tuning with gradient checkpointing:");
    for (optimizer, shards_optimizer) in [("whole optimiser", false), ("sharded optimiser", true)] {
        let ranks = Ranks { world, shards_optimizer };
        println!("  SFT, {optimizer}: {}", described(&config.sft_memory_per_rank(usage, trained, ranks)));
        let memory = config.rl_memory_per_rank(usage, trained, ranks, usage.batch, true);
        println!("  PPO, {optimizer}: {}", described(&memory));
    }
}

fn described(memory: &Memory) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let parts: Vec<String> = memory.parts.iter().map(|(what, bytes)| format!("{what} {:.2}", gib(*bytes))).collect();
    format!("{:.2} GiB ({})", gib(memory.total()), parts.join(", "))
}

fn logits(args: &LogitsArgs) -> Result<()> {
    let path = policy_path(&args.model_path, &args.revision, args.lora_path.as_deref())?;
    let kind = args.dtype.kind();
    let model = path.load_model(kind, kind, args.device.open()?)?;
    let mut inputs = files::read_tensors(&args.input)?;
    let (pixels, mask) = (inputs.remove("pixel_values"), inputs.remove("attention_mask"));
    let ids = inputs.remove("input_ids");
    let ids = ids.with_context(|| format!("{}: tensor input_ids [b, t] i64 is missing", args.input.display()))?;
    // The id of the image token is in config.json of the hf layout, and in the tokenizer of the
    // original one.
    let of_tokenizer = || Tokenizer::load(&path.checkpoint).ok().map(|tokenizer| tokenizer.image_token);
    let image_token = model.config.image_token_id.or_else(of_tokenizer);
    let logits = tch::no_grad(|| model.logits(&ids, pixels.as_ref(), mask.as_ref(), image_token))
        .with_context(|| args.input.display().to_string())?;
    Ok(files::write_safetensors(&args.output, [("logits", &logits)].into_iter())?)
}

fn merge(args: &MergeArgs) -> Result<()> {
    ensure!(!args.output.exists(), "{} exists; choose another --output", args.output.display());
    let path = policy_path(&args.model_path, &args.revision, Some(&args.lora_path))?;
    policy::merge(&path, args.dtype.map(FileDtype::kind), args.layout, &args.output)
}

/// The local directories of a model, at `revision` of the hub, and of an adapter.
fn policy_path(model: &str, revision: &str, adapter: Option<&str>) -> Result<PolicyPath> {
    Ok(PolicyPath::resolve((model, revision), adapter.map(|adapter| (adapter, "main")))?)
}
