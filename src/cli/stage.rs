//! `cadwright run`, `sft`, `ppo`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::{ConfigArgs, text_override};
use cadwright::config::{Config, Gate};
use cadwright::distributed::World;
use cadwright::model::Preset;
use cadwright::run::{Run, StageName};

/// `cadwright run`
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Directory of everything that the run writes (run.output_dir)
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    gates: GateArgs,
}

/// Gates before the first step.
#[derive(Args)]
struct GateArgs {
    /// Starts although this gate is closed; may be repeated (run.allow; docs/gates.md)
    #[arg(long, value_name = "GATE", value_enum)]
    allow: Vec<Gate>,
}

impl GateArgs {
    /// The flag as an override: none without the flag, so that the file's value stands.
    fn flags(&self) -> Vec<String> {
        let names: Vec<String> = self.allow.iter().map(|gate| format!("{:?}", gate.name())).collect();
        if names.is_empty() { Vec::new() } else { vec![format!("run.allow=[{}]", names.join(", "))] }
    }
}

impl RunArgs {
    /// The configuration, with overrides of further flags.
    fn load(&self, more: Vec<String>) -> Result<Config> {
        Ok(self.config.load([output_dir(self.output_dir.as_deref()), self.gates.flags(), more].concat())?)
    }
}

/// `cadwright ppo`
#[derive(Args)]
pub struct PpoArgs {
    /// Starts from this checkpoint directory or hub id, without an SFT stage (model.path, ppo.start)
    #[arg(long, value_name = "MODEL")]
    model_path: Option<String>,
    /// With --model-path: goes on from this adapter, a directory or hub id in PEFT's format
    /// (ppo.lora_path)
    #[arg(long, value_name = "ADAPTER", requires = "model_path")]
    lora_path: Option<String>,
    #[command(flatten)]
    run: RunArgs,
}

impl PpoArgs {
    fn load(&self) -> Result<Config> {
        let model =
            self.model_path.iter().flat_map(|path| [text_override("model.path", path), "ppo.start=model".to_owned()]);
        let adapter = self.lora_path.iter().map(|path| text_override("ppo.lora_path", path));
        self.run.load(model.chain(adapter).collect())
    }
}

/// `cadwright sft`
#[derive(Args)]
pub struct SftArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A checkpoint directory, a hub id, or a preset such as nano (model.path, model.preset)
    #[arg(long, value_name = "MODEL")]
    model_name: Option<String>,
    /// Directory of everything that the run writes (run.output_dir)
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Passes over the training rows (sft.epochs)
    #[arg(long, value_name = "N")]
    num_epochs: Option<f64>,
    /// Examples in one forward pass (sft.batch_size)
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Peak learning rate (sft.learning_rate)
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Rank of the adapter (lora.rank)
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// The adapter is scaled by alpha / rank (lora.alpha)
    #[arg(long, value_name = "ALPHA")]
    lora_alpha: Option<f64>,
    #[command(flatten)]
    gates: GateArgs,
}

impl SftArgs {
    fn flags(&self) -> Vec<String> {
        let mut flags = [output_dir(self.output_dir.as_deref()), self.gates.flags()].concat();
        if let Some(name) = &self.model_name {
            let is_preset = name.parse::<Preset>().is_ok();
            // A preset is used only if there is no path: one in the config file would take
            // precedence.
            flags.push(text_override("model.path", if is_preset { "" } else { name }));
            if is_preset {
                flags.push(text_override("model.preset", name));
            }
        }
        let number = |key: &str, value: Option<String>| value.map(|value| format!("{key}={value}"));
        // Steps take precedence over epochs: those in the config file would hide the flag.
        flags.extend(self.num_epochs.map(|_| "sft.max_steps=0".to_owned()));
        flags.extend(number("sft.epochs", self.num_epochs.map(|n| n.to_string())));
        flags.extend(number("sft.batch_size", self.batch_size.map(|n| n.to_string())));
        flags.extend(number("sft.learning_rate", self.learning_rate.map(|rate| format!("{rate:e}"))));
        flags.extend(number("lora.rank", self.lora_rank.map(|r| r.to_string())));
        flags.extend(number("lora.alpha", self.lora_alpha.map(|alpha| alpha.to_string())));
        flags
    }
}

fn output_dir(directory: Option<&Path>) -> Vec<String> {
    directory.map(|directory| text_override("run.output_dir", &directory.to_string_lossy())).into_iter().collect()
}

/// All stages.
pub fn run(args: &RunArgs) -> Result<()> {
    on_all_ranks(args.load(Vec::new())?, |run| run.all())
}

/// The SFT stage.
pub fn sft(args: &SftArgs) -> Result<()> {
    on_all_ranks(args.config.load(args.flags())?, |run| run.train(StageName::Sft))
}

/// The PPO stage.
pub fn ppo(args: &PpoArgs) -> Result<()> {
    on_all_ranks(args.load()?, |run| run.train(StageName::Ppo))
}

/// Opens the run together with the other ranks, if there are any, and calls `work`.
fn on_all_ranks(config: Config, work: impl FnOnce(&Run) -> Result<()>) -> Result<()> {
    let (world, device) = World::join(&config)?;
    world.run(|| work(&Run::open(config, &world, device)?))
}
