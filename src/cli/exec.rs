//! `cadwright exec`

use std::path::PathBuf;

use anyhow::Result;
use cadwright_rollout::jsonl::{ExecOptions, exec};
use clap::Args;

use super::score::{EngineArgs, print_engines};

/// Execute programs: rows {"id", "code"} in; outcome, volume, centroid, bounding box, inertia out,
/// in input order
#[derive(Args)]
pub struct ExecArgs {
    /// JSONL file with "id" and "code" in each row
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// JSONL file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs it.
pub fn run(args: &ExecArgs) -> Result<()> {
    let summary = exec(&ExecOptions {
        input: args.input.clone(),
        output: args.output.clone(),
        extract: args.engine.extract,
        scorer: args.engine.scorer_config()?,
    })?;
    let per_second = summary.n as f64 / summary.seconds.max(1e-9);
    println!("{} programs, VSR {:.4}, {per_second:.1} programs/s", summary.n, summary.vsr);
    print_engines(&summary.engines, &summary.declined);
    Ok(())
}
