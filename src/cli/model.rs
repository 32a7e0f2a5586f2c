//! `cadwright model`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use cadwright::model::{InternVl, InternVlConfig, Weights};
use clap::{Args, Subcommand};
use tch::{Device, Kind};

/// Make and inspect models
#[derive(Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Subcommand)]
enum ModelCommand {
    /// Write a random model: config.json and model.safetensors
    Init(InitArgs),
    /// Say what a checkpoint directory holds
    Inspect {
        /// Checkpoint directory
        path: PathBuf,
    },
}

#[derive(Args)]
struct InitArgs {
    /// nano, internvl3-1b, internvl3-2b, internvl3-8b or internvl3-14b
    #[arg(long)]
    preset: String,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: i64,
    /// Dtype of the weights: bf16 or f32
    #[arg(long, value_parser = ["bf16", "f32"], default_value = "bf16")]
    dtype: String,
    /// Tokens of the nano model's vocabulary
    #[arg(long, default_value_t = 512)]
    vocab_size: i64,
    /// Directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// Runs it.
pub fn run(args: &ModelArgs) -> Result<()> {
    match &args.command {
        ModelCommand::Init(args) => init(args),
        ModelCommand::Inspect { path } => {
            let config = InternVlConfig::read(path)?;
            let parameters: i64 = config.parameters().iter().map(|p| p.shape.iter().product::<i64>()).sum();
            println!("InternVLChatModel, {:.1} M parameters", parameters as f64 / 1e6);
            println!("{} picture tokens a tile of {} pixels", config.tokens_per_tile(), config.force_image_size);
            println!("{:#}", config.to_json());
            Ok(())
        }
    }
}

fn init(args: &InitArgs) -> Result<()> {
    ensure!(!args.output.exists(), "{} exists; choose another --output", args.output.display());
    let config = InternVlConfig::preset(&args.preset, args.vocab_size)?;
    let kind = if args.dtype == "f32" { Kind::Float } else { Kind::BFloat16 };
    let weights = Weights::random(&config, args.seed, kind, Device::Cpu);
    cadwright::train::checkpoint::replace_directory(&args.output, |aside| {
        Ok(InternVl::new(config, weights, None, kind).save(aside)?)
    })
}
