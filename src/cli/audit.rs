//! `cadwright audit`

use std::path::PathBuf;

use anyhow::Result;
use cadwright_rollout::ScorerConfig;
use cadwright_rollout::audit::{AuditOptions, audit};
use clap::Args;

/// Compare the native engine with CadQuery and with exact booleans: verdicts, volumes, IoU, and where they disagree
#[derive(Args)]
pub struct AuditArgs {
    /// JSONL file with "id", "ground_truth" and "prediction" in each row
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Pairs to draw; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
    /// Decides which pairs are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// JSON file for everything that was found, with the programs of disagreements and of the worst cases
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Cells along an edge of the occupancy grid
    #[arg(long, default_value_t = 64)]
    grid: usize,
    /// Programs executed at the same time; 0 for one a core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Deadline of one program, and of one boolean, in seconds
    #[arg(long, default_value_t = 30.0)]
    timeout_s: f64,
}

/// Runs it.
pub fn run(args: &AuditArgs) -> Result<()> {
    let report = audit(&AuditOptions {
        input: args.input.clone(),
        sample: args.sample,
        seed: args.seed,
        output: args.output.clone(),
        scorer: ScorerConfig { jobs: args.jobs, timeout_s: args.timeout_s, grid: args.grid, ..ScorerConfig::default() },
    })?;
    println!("{report}");
    Ok(())
}
