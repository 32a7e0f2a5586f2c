//! `cadwright eval`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::config::Config;
use cadwright::data::{DataSource, open_dataset};
use cadwright::distributed::World;
use cadwright::eval::Evaluation;
use cadwright::files::{prepare_parent, write_whole};
use cadwright::policy::{Policy, PolicyPath, Purpose};
use clap::Args;
use tch::Device;

use super::{ConfigArgs, text_override};

/// The policy to use.
#[derive(Args)]
pub struct PolicyArgs {
    /// Checkpoint directory or hub id (owner/name)
    #[arg(long, value_name = "MODEL")]
    model_path: String,
    /// Directory or hub id of an adapter in PEFT's format
    #[arg(long, value_name = "ADAPTER")]
    lora_path: Option<String>,
    /// Branch, tag or commit of the model on the hub (model.revision, by default main)
    #[arg(long)]
    revision: Option<String>,
    /// Branch, tag or commit of the adapter on the hub
    #[arg(long, default_value = "main")]
    lora_revision: String,
}

impl PolicyArgs {
    /// The given flags, as overrides of the configuration.
    pub fn flags(&self) -> Vec<String> {
        self.revision.iter().map(|revision| text_override("model.revision", revision)).collect()
    }

    /// The policy, with the prompt that it was trained with; if none is stored, with the configured
    /// one.
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not fit each other.
    pub fn load(&self, config: &Config, device: Device) -> Result<Policy> {
        let adapter = self.lora_path.as_deref().map(|path| (path, self.lora_revision.as_str()));
        let path = PolicyPath::resolve((&self.model_path, &config.model.revision), adapter)?;
        Policy::load(config, &path, None, Purpose::Inference, device)
    }
}

/// Evaluate a checkpoint on a dataset with the metrics of the reward
#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// A directory or file of parquet, or a dataset id on the hub
    #[arg(long, value_name = "DATA", default_value = "CADCODER/GenCAD-Code")]
    dataset: String,
    /// Parts to evaluate; 0 for all (eval.num_samples, by default 100)
    #[arg(long)]
    num_samples: Option<usize>,
    /// Completions written at the same time (generate.batch_size, by default 64)
    #[arg(long)]
    batch_size: Option<usize>,
    /// File for programs, outcomes and IoU of every sample
    #[arg(long, value_name = "FILE", default_value = "predictions.json")]
    output_json: PathBuf,
    /// File for means, intervals and counts
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// train, validation or test (eval.split, by default test)
    #[arg(long)]
    split: Option<String>,
    /// 0 decodes greedily (eval.temperature, by default 0)
    #[arg(long)]
    temperature: Option<f64>,
    /// Programs for each part; more than one needs a temperature and gives mean@k, best@k and
    /// pass@k (eval.samples_per_image, by default 1)
    #[arg(long)]
    samples_per_image: Option<usize>,
    /// Chooses one of the programs of each part by its picture (image), by agreement with the others
    /// (consensus), by its log-probability (logprob), or by its IoU as an oracle (truth). Of
    /// several ways, separated by commas, the first one chooses the programs that are written, and
    /// all are reported (eval.select)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    select: Option<Vec<String>>,
    /// With --select: also chooses out of these numbers of samples, for example 1,4,16
    /// (eval.select_at)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    select_at: Option<Vec<usize>>,
    /// Evaluates the agent of [agent]: it writes, builds, looks and corrects, and chooses one program
    /// for each part (eval.agent)
    #[arg(long, conflicts_with_all = ["select", "samples_per_image"])]
    agent: bool,
    /// Frames of the IoU, separated by commas: canonical, normalised, aligned, shell, exact
    /// (eval.frames, by default canonical)
    #[arg(long)]
    frames: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl EvalArgs {
    /// The given flags, as overrides of the configuration.
    fn flags(&self) -> Vec<String> {
        let frames = |list: &String| {
            let names: Vec<&str> = list.split(',').map(str::trim).collect();
            format!("eval.frames={names:?}")
        };
        let flags = [
            self.num_samples.map(|n| format!("eval.num_samples={n}")),
            self.batch_size.map(|n| format!("generate.batch_size={n}")),
            self.temperature.map(|temperature| format!("eval.temperature={temperature:?}")),
            self.samples_per_image.map(|k| format!("eval.samples_per_image={k}")),
            self.split.as_ref().map(|split| text_override("eval.split", split)),
            self.select.as_ref().map(|ways| format!("eval.select={ways:?}")),
            self.select_at.as_ref().map(|numbers| format!("eval.select_at={numbers:?}")),
            self.frames.as_ref().map(frames),
            self.agent.then(|| "eval.agent=true".to_owned()),
        ];
        flags.into_iter().flatten().chain(self.policy.flags()).collect()
    }
}

/// Runs it.
pub fn run(args: &EvalArgs) -> Result<()> {
    let config = args.config.load(args.flags())?;
    let (world, device) = World::join(&config)?;
    world.run(|| evaluate(args, &config, &world, device))
}

fn evaluate(args: &EvalArgs, config: &Config, world: &World, device: Device) -> Result<()> {
    if world.is_main() {
        for path in std::iter::once(&args.output_json).chain(&args.summary) {
            prepare_parent(path)?;
        }
    }
    let source = DataSource::named(&args.dataset, &config.data.revision);
    let (policy, dataset) = world.main_first("model and data", || {
        Ok((args.policy.load(config, device)?, open_dataset(&source, config.eval_selection())?))
    })?;
    // There is no run directory: executed ground truths are kept only if the configuration names a
    // place.
    let cache_dir = Some(config.rollout.cache_dir.clone()).filter(|path| !path.as_os_str().is_empty());
    let evaluation = Evaluation::run(config, world, &policy, &dataset, cache_dir)?;
    if !world.is_main() {
        return Ok(());
    }
    write_whole(&args.output_json, &evaluation.predictions_json(&dataset))?;
    if let Some(path) = &args.summary {
        write_whole(path, &evaluation.summary_json()?)?;
    }
    println!("{}", evaluation.line());
    Ok(())
}
