//! `cadwright eval`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::data::{DataSource, Selection};
use cadwright::model::{InternVl, Prompt, Tokenizer};
use cadwright::telemetry::{prepare_parent, write_whole};
use cadwright::train::run::{Evaluation, device, model_directory, open_dataset};
use clap::Args;

use super::{ConfigArgs, text_override};

/// Which policy to use.
#[derive(Args)]
pub struct PolicyArgs {
    /// Checkpoint directory or hub id
    #[arg(long, value_name = "MODEL")]
    model_path: String,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR")]
    lora_path: Option<PathBuf>,
}

impl PolicyArgs {
    /// The model with its adapter, its tokenizer, and the prompt that it was trained with, or else the configured one.
    ///
    /// # Errors
    /// Files that are missing, malformed, or do not fit each other.
    pub fn load(&self, config: &cadwright::config::Config) -> Result<(InternVl, Tokenizer, Prompt)> {
        let directory = model_directory(&self.model_path, &config.model.revision)?;
        let dtype = config.model.dtype.into();
        let mut model = InternVl::load(&directory, dtype, dtype, device(&config.run.device)?)?;
        let mut prompt = Prompt::of(&directory);
        if let Some(lora) = &self.lora_path {
            model = model.with_adapter(lora)?;
            prompt = Prompt::of(lora).or(prompt);
        }
        let configured = Prompt { system: config.prompt.system.clone(), user: config.prompt.user.clone() };
        Ok((model, Tokenizer::load(&directory)?, prompt.unwrap_or(configured)))
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
    /// Parts to evaluate; 0 for all
    #[arg(long, default_value_t = 100)]
    num_samples: usize,
    /// Completions written at the same time
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// File for programs, outcomes and IoU of every sample
    #[arg(long, value_name = "FILE", default_value = "predictions.json")]
    output_json: PathBuf,
    /// File for means, intervals and counts
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// train, validation or test
    #[arg(long, default_value = "test")]
    split: String,
    /// 0 decodes greedily
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Frames of the IoU, separated by commas: canonical, normalised, aligned
    #[arg(long, default_value = "canonical")]
    frames: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs it.
pub fn run(args: &EvalArgs) -> Result<()> {
    let frames: Vec<String> = args.frames.split(',').map(|name| format!("{:?}", name.trim())).collect();
    let config = args.config.load(vec![
        format!("eval.num_samples={}", args.num_samples),
        format!("generate.batch_size={}", args.batch_size),
        format!("eval.temperature={:?}", args.temperature),
        text_override("eval.split", &args.split),
        format!("eval.frames=[{}]", frames.join(",")),
    ])?;
    for path in std::iter::once(&args.output_json).chain(&args.summary) {
        prepare_parent(path)?;
    }
    if config.run.threads > 0 {
        tch::set_num_threads(config.run.threads as i32);
    }
    let (model, tokenizer, prompt) = args.policy.load(&config)?;
    let source = match PathBuf::from(&args.dataset) {
        path if path.exists() => DataSource::Path(path),
        _ if args.dataset.split('/').count() == 2 && !args.dataset.starts_with(['.', '/']) => {
            DataSource::Hub { repo: args.dataset.clone(), revision: config.data.revision.clone() }
        }
        path => DataSource::Path(path),
    };
    let limit = (config.eval.num_samples > 0).then_some(config.eval.num_samples);
    let selection = Selection { split: config.eval_split(), limit, hundred_subset_only: config.eval.hundred_subset };
    let dataset = open_dataset(&source, selection)?;
    let evaluation = Evaluation::run(&config, &model, &tokenizer, &dataset, &prompt, None)?;
    write_whole(&args.output_json, &evaluation.predictions_json(&dataset))?;
    if let Some(path) = &args.summary {
        write_whole(path, &format!("{:#}\n", evaluation.to_json()))?;
    }
    println!("{}", evaluation.line());
    Ok(())
}
