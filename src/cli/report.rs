//! `cadwright report`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::files::{prepare_parent, write_whole};
use cadwright::report::{MOST_PARTS, ReportOptions, report};
use clap::Args;
use clap::builder::RangedU64ValueParser;

/// Write the report of runs: one HTML file, with curves, tables and parts that can be turned
#[derive(Args)]
pub struct ReportArgs {
    /// Run directories (run.output_dir); several are shown over each other
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The file
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Largest number of parts in the gallery; they are chosen evenly over the IoU of the last policy
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(0..=MOST_PARTS as u64))]
    parts: usize,
    /// Leaves the solids out, for which CadQuery executes the programs again
    #[arg(long)]
    no_solids: bool,
}

/// Runs it.
pub fn run(args: &ReportArgs) -> Result<()> {
    prepare_parent(&args.output)?;
    let page = report(&args.runs, &ReportOptions { parts: args.parts, solids: !args.no_solids })?;
    write_whole(&args.output, &page)?;
    println!("{}: {:.1} MB", args.output.display(), page.len() as f64 / 1e6);
    Ok(())
}
