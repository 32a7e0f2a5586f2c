//! `cadwright eval`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use cadwright::config::Config;
use cadwright::data::nearest::{Examples, Library};
use cadwright::data::{DataSource, open_dataset};
use cadwright::distributed::World;
use cadwright::eval::{Evaluation, prompts_table};
use cadwright::files::{prepare_parent, write_whole};
use cadwright::model::Strategy;
use cadwright::policy::{Policy, PolicyPath, Purpose, configured_prompt};
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

    /// The policy's directories.
    ///
    /// # Errors
    /// A name that is neither a directory nor a hub id, or a download that fails.
    pub fn path(&self, config: &Config) -> Result<PolicyPath> {
        let adapter = self.lora_path.as_deref().map(|path| (path, self.lora_revision.as_str()));
        Ok(PolicyPath::resolve((&self.model_path, &config.model.revision), adapter)?)
    }

    /// The policy, with the prompt that it was trained with; if none is stored, with the configured
    /// one.
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not fit each other.
    pub fn load(&self, config: &Config, device: Device) -> Result<Policy> {
        Policy::load(config, &self.path(config)?, None, Purpose::Inference, device)
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
    /// Metrics as others publish them, separated by commas: cadrille, cadbench (eval.protocols, by
    /// default none)
    #[arg(long)]
    protocol: Option<String>,
    /// Prompt strategies, separated by commas, in place of the policy's own prompt: plain,
    /// reference, plan, planned, examples, or TOML files (prompt.strategy). If there are several,
    /// each has its own files: predictions-plain.json, ..
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    prompt: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl EvalArgs {
    /// The given flags, as overrides of the configuration.
    fn flags(&self) -> Vec<String> {
        let list = |key: &str, list: &String| {
            let names: Vec<&str> = list.split(',').map(str::trim).collect();
            format!("{key}={names:?}")
        };
        let flags = [
            self.num_samples.map(|n| format!("eval.num_samples={n}")),
            self.batch_size.map(|n| format!("generate.batch_size={n}")),
            self.temperature.map(|temperature| format!("eval.temperature={temperature:?}")),
            self.samples_per_image.map(|k| format!("eval.samples_per_image={k}")),
            self.split.as_ref().map(|split| text_override("eval.split", split)),
            self.select.as_ref().map(|ways| format!("eval.select={ways:?}")),
            self.select_at.as_ref().map(|numbers| format!("eval.select_at={numbers:?}")),
            self.frames.as_ref().map(|names| list("eval.frames", names)),
            self.protocol.as_ref().map(|names| list("eval.protocols", names)),
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
    let strategies = strategies(&args.prompt)?;
    let paths = |strategy: &Option<&str>| {
        let name = strategy.filter(|_| strategies.len() > 1);
        let path = |path: &PathBuf| name.map_or_else(|| path.clone(), |name| named_path(path, name));
        (path(&args.output_json), args.summary.as_ref().map(path))
    };
    if world.is_main() {
        for (predictions, summary) in strategies.iter().map(paths) {
            std::iter::once(predictions).chain(summary).try_for_each(|path| prepare_parent(&path))?;
        }
    }
    let source = DataSource::named(&args.dataset, &config.data.revision);
    let (mut policy, mut dataset) = world.main_first("model and data", || {
        Ok((args.policy.load(config, device)?, open_dataset(&source, config.eval_selection())?))
    })?;
    let own_prompt = policy.prompt.clone();
    let checkpoint = args.policy.path(config)?.checkpoint;
    let prompt = |strategy: &Option<&str>| match strategy {
        Some(name) => Ok(configured_prompt(&config.with_strategy(name)?, Some(&checkpoint))?),
        None => Ok(own_prompt.clone()),
    };
    let prompts = strategies.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    // There is no run directory: executed ground truths are kept only if the configuration names a
    // place.
    let cache_dir = Some(config.rollout.cache_dir.clone()).filter(|path| !path.as_os_str().is_empty());
    let library = match prompts.iter().any(|prompt| prompt.pictures() > 1) {
        true => Some(Arc::new(world.main_first("the examples", || example_library(config, &source))?)),
        false => None,
    };
    let mut reports = Vec::new();
    for (strategy, prompt) in strategies.iter().zip(prompts) {
        let examples = prompt.pictures() - 1;
        let shown = library.as_ref().map(|library| Examples::of(&dataset, Arc::clone(library), examples));
        dataset.shown = shown.transpose()?;
        policy.prompt = prompt;
        let evaluation = Evaluation::run(config, world, &policy, &dataset, cache_dir.clone())?;
        if !world.is_main() {
            continue;
        }
        let (predictions, summary) = paths(strategy);
        write_whole(&predictions, &evaluation.predictions_json(&dataset))?;
        if let Some(path) = summary {
            write_whole(&path, &evaluation.summary_json()?)?;
        }
        match strategy {
            Some(name) => println!("{}: {}", Strategy::short_name(name), evaluation.line()),
            None => println!("{}", evaluation.line()),
        }
        reports.push((strategy.map_or_else(String::new, Strategy::short_name), evaluation.report));
    }
    if reports.len() > 1 {
        println!("\n{}", prompts_table(&reports));
    }
    Ok(())
}

/// The parts among which examples for prompts are sought.
///
/// # Errors
/// The data cannot be read or has no training rows.
pub fn example_library(config: &Config, source: &DataSource) -> Result<Library> {
    Ok(Library::open(source, config.prompt.example_rows, config.data.programs_limit)?)
}

/// The strategies to evaluate; `None` stands for the policy's own prompt.
fn strategies(names: &[String]) -> Result<Vec<Option<&str>>> {
    if names.is_empty() {
        return Ok(vec![None]);
    }
    for name in names {
        Strategy::named(name)?;
    }
    let mut short: Vec<String> = names.iter().map(|name| Strategy::short_name(name)).collect();
    short.sort_unstable();
    if let Some(twice) = short.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("--prompt names {} twice: their files would have one name", twice[0]);
    }
    Ok(names.iter().map(|name| Some(name.as_str())).collect())
}

/// `predictions.json` of the strategy `plan`: `predictions-plan.json`.
fn named_path(path: &Path, strategy: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{extension}", Strategy::short_name(strategy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_strategies_has_its_own_files() {
        assert_eq!(named_path(Path::new("out/p.json"), "plan"), Path::new("out/p-plan.json"));
        assert_eq!(named_path(Path::new("p"), "my/own.toml"), Path::new("p-own"));
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        assert!(strategies(&names(&["plan", "plan"])).is_err());
        assert_eq!(strategies(&names(&["plan", "plain"])).unwrap(), [Some("plan"), Some("plain")]);
        assert_eq!(strategies(&[]).unwrap(), [None]);
    }
}
