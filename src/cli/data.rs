//! `cadwright data`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::data::synth::{Numbers, SynthConfig, generate};
use clap::{Args, Subcommand};

/// Make and inspect data
#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Make random sketch-extrude parts with their pictures, as parquet in GenCAD-Code's schema
    Synth(SynthArgs),
}

#[derive(Args)]
struct SynthArgs {
    /// Parts over all splits
    #[arg(long, default_value_t = 20_000)]
    count: usize,
    /// Seed of all draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for train-*.parquet, validation-*.parquet and test-*.parquet
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Coordinates are multiples of 1 / GRID
    #[arg(long, default_value_t = 32)]
    grid: u32,
    /// short: 0.25; full: the data set's long floats
    #[arg(long, value_parser = ["short", "full"], default_value = "short")]
    numbers: String,
    /// Side of the pictures in pixels
    #[arg(long, default_value_t = 448)]
    image_size: u32,
    /// Parts of the validation split; without it, 5 % of the parts
    #[arg(long)]
    validation_count: Option<usize>,
    /// Parts of the test split; without it, 5 % of the parts
    #[arg(long)]
    test_count: Option<usize>,
    /// Threads; 0 for one a core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

/// Runs it.
pub fn run(args: &DataArgs) -> Result<()> {
    let DataCommand::Synth(args) = &args.command;
    let summary = generate(&SynthConfig {
        count: args.count,
        seed: args.seed,
        output: args.output.clone(),
        grid: args.grid,
        numbers: if args.numbers == "full" { Numbers::Full } else { Numbers::Short },
        image_size: args.image_size,
        validation_count: args.validation_count,
        test_count: args.test_count,
        jobs: args.jobs,
    })?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}
