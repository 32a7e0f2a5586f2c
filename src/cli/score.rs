//! `cadwright score`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use cadwright_rewards::{Frame, Protocol};
use cadwright_rollout::jsonl::{ScoreOptions, score};
use cadwright_rollout::{Engine, FrameReport, ScorerConfig, top_reasons};
use clap::Args;

use super::ConfigArgs;

/// The engine that executes programs, and its limits.
#[derive(Args)]
pub struct EngineArgs {
    /// Engine that executes programs. native: the built-in engine, which needs no Python and
    /// declines a program if it is not certain of the answer; cadquery: real CadQuery in a sandbox;
    /// auto: native first, cadquery for the programs that it declines
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Programs executed at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Deadline of one program in seconds
    #[arg(long, default_value_t = 10.0)]
    timeout_s: f64,
    /// Memory that one program may ask for, in MiB
    #[arg(long, default_value_t = 2048)]
    memory_mib: u64,
    /// If layers of the sandbox do not hold: `required` executes nothing, `best_effort` names them
    #[arg(long, default_value = "required", value_name = "MODE")]
    sandbox: String,
    /// Variable that holds a program's result, such as r in CAD-Recode's programs; the published rule
    /// decides about programs without it, and alone without this flag
    #[arg(long, value_name = "NAME")]
    result_name: Option<String>,
    /// Take the program out of Markdown fences and prose first, as training and evaluation do
    #[arg(long)]
    pub extract: bool,
}

impl EngineArgs {
    /// These settings, with defaults for the rest.
    ///
    /// # Errors
    /// An unknown engine.
    pub fn scorer_config(&self) -> Result<ScorerConfig> {
        Ok(ScorerConfig {
            engine: self.engine.parse::<Engine>()?,
            jobs: self.jobs,
            timeout_s: self.timeout_s,
            memory_mib: self.memory_mib,
            sandbox: self.sandbox.parse()?,
            result_name: self.result_name.clone(),
            ..ScorerConfig::default()
        })
    }
}

/// Score predictions: rows {"id", "ground_truth", "prediction"} in; outcome, IoU and reward out, in
/// input order
#[derive(Args)]
pub struct ScoreArgs {
    /// JSONL file with "id", "ground_truth" and "prediction" in each row
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// JSONL file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// JSON file with means, intervals and counts
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Cells along an edge of the occupancy grid
    #[arg(long, default_value_t = 64)]
    grid: usize,
    /// Frames of the IoU, separated by commas: canonical, normalised, aligned, shell, exact. The
    /// first makes the reward
    #[arg(long, default_value = "canonical")]
    frames: String,
    /// Metrics as others publish them, separated by commas: cadrille, cadbench
    #[arg(long, default_value = "")]
    protocol: String,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Prints how many programs each engine executed, and why the native engine declined programs.
pub fn print_engines<R: AsRef<str>>(engines: &BTreeMap<Engine, usize>, declined: &BTreeMap<R, usize>, panics: usize) {
    let engines: Vec<String> = engines.iter().map(|(engine, count)| format!("{engine} {count}")).collect();
    println!("engines: {}", engines.join(", "));
    if !declined.is_empty() {
        println!("declined by the native engine: {}", top_reasons(declined));
    }
    if panics > 0 {
        println!("no result for {panics} programs: cadwright panicked on them");
    }
}

/// Runs it.
pub fn run(args: &ScoreArgs) -> Result<()> {
    let config = args.config.load(Vec::new())?;
    let scorer = args.engine.scorer_config()?;
    let report = score(&ScoreOptions {
        input: args.input.clone(),
        output: args.output.clone(),
        summary: args.summary.clone(),
        extract: args.engine.extract,
        scorer: ScorerConfig {
            grid: args.grid,
            frames: Frame::parse_list(&args.frames)?,
            protocols: Protocol::parse_list(&args.protocol)?,
            result_name: scorer.result_name.clone().or(config.data.result_name()),
            reward: config.reward,
            ..scorer
        },
    })?;
    println!("{} pairs, VSR {:.4}, {:.1} pairs/s", report.n, report.vsr, report.pairs_per_second());
    print_engines(&report.engines, &report.declined, report.panics);
    for (frame, FrameReport { iou, iou_ci95: [low, high], iou_valid, .. }) in &report.frames {
        println!("IoU {frame}: {iou:.4} over all [{low:.4}, {high:.4}], {iou_valid:.4} over valid");
    }
    if report.iou_uncertain > 0 {
        println!("IoU is uncertain for {} pairs: no mesh encloses the solid's volume", report.iou_uncertain);
    }
    if report.shell_undetermined > 0 {
        println!("IoU shell is undetermined for {} pairs: a part has equal moments", report.shell_undetermined);
    }
    Ok(())
}
