//! `cadwright model`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cadwright::device::device;
use cadwright::files::replace_directory;
use cadwright::hub::{COMPANIONS, resolve_adapter, resolve_checkpoint};
use cadwright::model::{InternVl, InternVlConfig, Layout, Memory, Tokenizer, Usage, Weights, files};
use clap::{Args, Subcommand};
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
    /// Say what a checkpoint is and what memory it takes
    Inspect(InspectArgs),
    /// Compute logits: tensors in, tensors out, to compare with other implementations
    Logits(LogitsArgs),
    /// Add an adapter to its model's weights and write the sum as a checkpoint
    Merge(MergeArgs),
}

#[derive(Args)]
struct InitArgs {
    /// nano, internvl3-1b, internvl3-2b, internvl3-8b, internvl3-14b, internvl3-38b or internvl3-78b
    #[arg(long, required_unless_present = "config", conflicts_with = "config")]
    preset: Option<String>,
    /// A config.json of either layout instead of a preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Dtype of the weights
    #[arg(long, value_parser = ["bf16", "f32"], default_value = "bf16")]
    dtype: String,
    /// original (InternVLChatModel) or hf (InternVLForConditionalGeneration); by default that of --config, or original
    #[arg(long, value_parser = Layout::NAMES)]
    layout: Option<String>,
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
    #[arg(long, value_parser = ["bf16", "f32"], default_value = "bf16")]
    dtype: String,
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
    /// safetensors with input_ids [b, t] i64, and optionally pixel_values [tiles, 3, size, size] f32 (normalised; the n-th image token
    /// takes the n-th row of their embeddings) and attention_mask [b, t] (0 for padding)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// safetensors to write: logits [b, t, vocab] f32
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Dtype of weights and products
    #[arg(long, value_parser = ["bf16", "f32"], default_value = "f32")]
    dtype: String,
    /// auto, cpu, cuda or cuda:1
    #[arg(long, default_value = "auto")]
    device: String,
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
    #[arg(long, value_parser = Layout::NAMES, default_value = "hf")]
    layout: String,
    /// Dtype to write; by default the base's
    #[arg(long, value_parser = ["bf16", "f32"])]
    dtype: Option<String>,
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

fn kind(name: &str) -> Kind {
    if name == "f32" { Kind::Float } else { Kind::BFloat16 }
}

fn layout(name: &str) -> Result<Layout> {
    Layout::named(name).with_context(|| format!("unknown layout {name:?}; known are {}", Layout::NAMES.join(", ")))
}

fn init(args: &InitArgs) -> Result<()> {
    ensure!(!args.output.exists(), "{} exists; choose another --output", args.output.display());
    let mut config = match &args.config {
        Some(file) => InternVlConfig::read_file(file)?,
        None => InternVlConfig::preset(args.preset.as_deref().unwrap_or_default(), args.vocab_size)?,
    };
    if let Some(name) = &args.layout {
        config.layout = layout(name)?;
    }
    let tokenizer = Tokenizer::of_bytes()?;
    if tokenizer.vocab_size() as i64 <= config.llm_config.vocab_size {
        config.image_token_id = Some(tokenizer.image_token);
    }
    let weights = Weights::random(&config, args.seed, kind(&args.dtype), Device::Cpu);
    replace_directory(&args.output, |aside| {
        if config.image_token_id == Some(tokenizer.image_token) {
            tokenizer.save(aside)?;
        }
        let layout = config.layout;
        Ok(InternVl::new(config, weights, None, kind(&args.dtype)).save(aside, layout)?)
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
        width: if args.dtype == "f32" { 4 } else { 2 },
        is_checkpointed: false,
    };
    println!("memory, estimated, in {} at batch {} and length {}:", args.dtype, args.batch, args.length);
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
    println!("{:#}", config.to_json("bfloat16"));
    Ok(())
}

fn described(memory: &Memory) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let parts: Vec<String> = memory.parts.iter().map(|(what, bytes)| format!("{what} {:.2}", gib(*bytes))).collect();
    format!("{:.2} GiB ({})", gib(memory.total()), parts.join(", "))
}

fn logits(args: &LogitsArgs) -> Result<()> {
    let directory = resolve_checkpoint(&args.model_path, &args.revision)?;
    let (kind, device) = (kind(&args.dtype), device(&args.device)?);
    let mut model = InternVl::load(&directory, kind, kind, device)?;
    if let Some(lora) = &args.lora_path {
        model = model.with_adapter(&resolve_adapter(lora, "main")?)?;
    }
    let (mut ids, mut pixels, mut mask) = (None, None, None);
    files::read_safetensors(&args.input, |name, tensor| match name {
        "input_ids" => ids = Some(tensor),
        "pixel_values" => pixels = Some(tensor),
        "attention_mask" => mask = Some(tensor),
        _ => {}
    })?;
    let ids = ids.with_context(|| format!("{}: tensor input_ids [b, t] i64 is missing", args.input.display()))?;
    // The hf layout says it in its configuration, the original one in its tokenizer.
    let of_tokenizer = || Tokenizer::load(&directory).ok().map(|tokenizer| tokenizer.image_token);
    let image_token = model.config.image_token_id.or_else(of_tokenizer);
    let logits = tch::no_grad(|| model.logits(&ids, pixels.as_ref(), mask.as_ref(), image_token))
        .with_context(|| args.input.display().to_string())?;
    Ok(files::write_safetensors(&args.output, [("logits", &logits)].into_iter())?)
}

fn merge(args: &MergeArgs) -> Result<()> {
    ensure!(!args.output.exists(), "{} exists; choose another --output", args.output.display());
    let directory = resolve_checkpoint(&args.model_path, &args.revision)?;
    let kind = match &args.dtype {
        Some(name) => kind(name),
        None => files::stored_kind(&directory)?,
    };
    let adapter = resolve_adapter(&args.lora_path, "main")?;
    let mut model = InternVl::load(&directory, kind, kind, Device::Cpu)?.with_adapter(&adapter)?.merged();
    if let Ok(tokenizer) = Tokenizer::load(&directory) {
        model.config.image_token_id = Some(tokenizer.image_token);
    }
    let layout = layout(&args.layout)?;
    replace_directory(&args.output, |aside| {
        copy_companions(&directory, aside)?;
        Ok(model.save(aside, layout)?)
    })
}

/// Copies what belongs to a checkpoint besides its weights and configuration: tokenizer, templates, preprocessing.
fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let path = from.join(name);
        if path.is_file() {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
