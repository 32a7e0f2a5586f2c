//! `cadwright eval`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cadwright::config::Config;
use cadwright::data::nearest::{Examples, Library};
use cadwright::data::{DataSource, Dataset, open_dataset};
use cadwright::distributed::World;
use cadwright::eval::export::check_cadbench;
use cadwright::eval::foreign::Programs;
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
    #[command(flatten)]
    around: AroundModel,
}

/// What belongs to a checkpoint.
#[derive(Args)]
struct AroundModel {
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
        self.around.flags()
    }

    /// The policy's directories.
    ///
    /// # Errors
    /// A name that is neither a directory nor a hub id, or a download that fails.
    pub fn path(&self, config: &Config) -> Result<PolicyPath> {
        self.around.path(&self.model_path, config)
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

impl AroundModel {
    fn flags(&self) -> Vec<String> {
        self.revision.iter().map(|revision| text_override("model.revision", revision)).collect()
    }

    fn path(&self, model: &str, config: &Config) -> Result<PolicyPath> {
        let adapter = self.lora_path.as_deref().map(|path| (path, self.lora_revision.as_str()));
        Ok(PolicyPath::resolve((model, &config.model.revision), adapter)?)
    }
}

/// Evaluate a checkpoint on a dataset with the metrics of the reward
#[derive(Args)]
pub struct EvalArgs {
    /// Checkpoint directory or hub id (owner/name)
    #[arg(long, value_name = "MODEL", required_unless_present = "predictions")]
    model_path: Option<String>,
    #[command(flatten)]
    around: AroundModel,
    /// Scores the programs in a file that another model wrote, and loads no model: JSONL with
    /// "file_id" and "generated", or a predictions.json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model_path", "agent", "prompt", "select", "samples_per_image"])]
    predictions: Option<PathBuf>,
    /// With --predictions: the field with the part's id (file_id, id, deepcad_id or name)
    #[arg(long, value_name = "FIELD", requires = "predictions")]
    id_field: Option<String>,
    /// With --predictions: the field with the program (generated, predicted_code, prediction,
    /// program, code or cadquery)
    #[arg(long, value_name = "FIELD", requires = "predictions")]
    program_field: Option<String>,
    /// A directory or file of parquet or JSONL, a folder of pictures with programs or shapes, or a
    /// dataset id on the hub; by default the data of --config, or else CADCODER/GenCAD-Code
    #[arg(long, value_name = "DATA")]
    dataset: Option<String>,
    /// Also writes the programs in the layout of a leaderboard below a directory: cadbench
    #[arg(long, num_args = 2, value_names = ["LAYOUT", "DIR"])]
    export: Option<Vec<String>>,
    /// With --export cadbench: what the model saw of a part, singleview, multiview, pbr, mesh or
    /// noisy_mesh
    #[arg(long, value_name = "NAME", default_value = "singleview", requires = "export")]
    export_modality: String,
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
    /// Variable that holds a program's result, such as r (data.result_name)
    #[arg(long, value_name = "NAME")]
    result_name: Option<String>,
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
            self.result_name.as_ref().map(|name| text_override("data.result_name", name)),
        ];
        flags.into_iter().flatten().chain(self.around.flags()).collect()
    }

    /// The data that is evaluated.
    fn source(&self, config: &Config) -> DataSource {
        match (&self.dataset, config.data.configured_source()) {
            (Some(name), _) => config.data.named_source(name),
            (None, Some(source)) => source,
            // The synthetic data of a run is in its directory, which nobody has named.
            (None, None) => config.data.named_source(&config.data.repo),
        }
    }

    /// Writes what was found.
    fn write(
        &self,
        config: &Config,
        dataset: &Dataset,
        found: &Evaluation,
        paths: (PathBuf, Option<PathBuf>),
    ) -> Result<()> {
        let (predictions, summary) = paths;
        write_whole(&predictions, &found.predictions_json(dataset))?;
        if let Some(path) = summary {
            write_whole(&path, &found.summary_json()?)?;
        }
        if let Some((directory, subset)) = self.cadbench(config)? {
            for path in found.export_cadbench(directory, &self.export_modality, subset)? {
                eprintln!("eval: {} holds what CADBench takes", path.display());
            }
        }
        Ok(())
    }

    /// Where to write for CADBench's leaderboard, and the subset's name.
    fn cadbench<'a>(&'a self, config: &'a Config) -> Result<Option<(&'a Path, &'a str)>> {
        match self.export.as_deref() {
            None => Ok(None),
            Some([layout, directory]) if layout == "cadbench" => {
                let subset = config.data.splits.of(config.eval.split);
                check_cadbench(&self.export_modality, subset)?;
                Ok(Some((Path::new(directory), subset)))
            }
            Some(other) => bail!("--export {}: the layouts are cadbench", other.join(" ")),
        }
    }

    /// Scores the programs of another model.
    fn score_predictions(&self, config: &Config, path: &Path) -> Result<()> {
        self.cadbench(config)?;
        let programs = Programs::read(path, self.id_field.as_deref(), self.program_field.as_deref())?;
        prepare_parent(&self.output_json)?;
        self.summary.iter().try_for_each(|path| prepare_parent(path))?;
        let dataset = open_dataset(&self.source(config).without_pictures(), config.eval_selection())?;
        let evaluation = Evaluation::of_programs(config, &dataset, &programs, named_cache(config))?;
        self.write(config, &dataset, &evaluation, (self.output_json.clone(), self.summary.clone()))?;
        println!("{}", evaluation.line());
        Ok(())
    }
}

/// The directory of executed ground truths, if the configuration names one: there is no run
/// directory.
fn named_cache(config: &Config) -> Option<PathBuf> {
    Some(config.rollout.cache_dir.clone()).filter(|path| !path.as_os_str().is_empty())
}

/// Runs it.
pub fn run(args: &EvalArgs) -> Result<()> {
    let config = args.config.load(args.flags())?;
    if let Some(path) = &args.predictions {
        return args.score_predictions(&config, path);
    }
    let (world, device) = World::join(&config)?;
    world.run(|| evaluate(args, &config, &world, device))
}

fn evaluate(args: &EvalArgs, config: &Config, world: &World, device: Device) -> Result<()> {
    let strategies = strategies(&args.prompt)?;
    args.cadbench(config)?;
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
    let source = args.source(config);
    let model = args.model_path.as_deref().context("--model-path is missing")?;
    let (mut policy, mut dataset) = world.main_first("model and data", || {
        let path = args.around.path(model, config)?;
        let policy = Policy::load(config, &path, None, Purpose::Inference, device)?;
        Ok((policy, open_dataset(&source, config.eval_selection())?))
    })?;
    let own_prompt = policy.prompt.clone();
    let checkpoint = args.around.path(model, config)?.checkpoint;
    let prompt = |strategy: &Option<&str>| match strategy {
        Some(name) => Ok(configured_prompt(&config.with_strategy(name)?, Some(&checkpoint))?),
        None => Ok(own_prompt.clone()),
    };
    let prompts = strategies.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    let cache_dir = named_cache(config);
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
        args.write(config, &dataset, &evaluation, paths(strategy))?;
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
