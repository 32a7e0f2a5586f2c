//! `cadwright audit`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::terminal::status;
use cadwright_rollout::ScorerConfig;
use cadwright_rollout::audit::{AuditOptions, FuzzOptions, Progress, Style, audit, fuzz};
use clap::Args;

/// Programs or pairs between two lines of progress.
const REPORT_EVERY: usize = 200;

/// Compare the native engine with CadQuery and with exact booleans: verdicts, volumes, bounds, IoU,
/// and where they disagree
#[derive(Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["input", "generate"])))]
pub struct AuditArgs {
    /// JSONL file with "id", "ground_truth" and "prediction" in each row, and perhaps "style"
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Random programs to write and to compare instead of a file
    #[arg(long, value_name = "N")]
    generate: Option<usize>,
    /// Pairs to draw from a file; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "generate")]
    sample: usize,
    /// Pairs of random programs to compare
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "input")]
    pairs: usize,
    /// Styles of random programs
    #[arg(long, default_value = "gencad,mutants,freeform,sketch,python", conflicts_with = "input")]
    styles: String,
    /// Findings of each kind and style to reduce to a smaller program
    #[arg(long, value_name = "N", default_value_t = 8, conflicts_with = "input")]
    reduce: usize,
    /// Decides which pairs are drawn, and every random program
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// JSON file for all findings, with the programs of disagreements and of the worst cases
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Cells along an edge of the occupancy grid; by default 64 for a file and 96 for random
    /// programs
    #[arg(long)]
    grid: Option<usize>,
    /// Programs executed at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Deadline in seconds of one program, and of the booleans of one pair; by default 30 for a
    /// file and 10 for random programs
    #[arg(long)]
    timeout_s: Option<f64>,
}

/// Runs it.
pub fn run(args: &AuditArgs) -> Result<()> {
    let limits = |timeout_s, grid| ScorerConfig {
        jobs: args.jobs,
        timeout_s: args.timeout_s.unwrap_or(timeout_s),
        grid: args.grid.unwrap_or(grid),
        ..ScorerConfig::default()
    };
    let report = match &args.input {
        Some(input) => audit(&AuditOptions {
            input: input.clone(),
            sample: args.sample,
            seed: args.seed,
            output: args.output.clone(),
            scorer: limits(30.0, 64),
        })?,
        None => {
            let options = FuzzOptions {
                programs: args.generate.unwrap_or(0),
                pairs: args.pairs,
                styles: Style::parse_list(&args.styles)?,
                seed: args.seed,
                reduced: args.reduce,
                output: args.output.clone(),
                scorer: limits(10.0, 96),
            };
            fuzz(&options, &mut |progress| tell(&options, &progress))?
        }
    };
    println!("{report}");
    Ok(())
}

/// Prints progress and findings on stderr.
fn tell(options: &FuzzOptions, progress: &Progress) {
    match progress {
        Progress::Programs(n) if n % REPORT_EVERY == 0 => status(format_args!("{n} of {} programs", options.programs)),
        Progress::Pairs(n) if n % REPORT_EVERY == 0 => status(format_args!("{n} of {} pairs", options.pairs)),
        Progress::Programs(_) | Progress::Pairs(_) => {}
        Progress::Disagreement(case) => {
            let program = case.reduced.as_ref().unwrap_or(&case.program);
            for difference in &case.differences {
                let (kind, native, cadquery) = (difference.kind.name(), &difference.native, &difference.cadquery);
                eprintln!("{} {}: {kind}: native {native}; cadquery {cadquery}", case.style, case.id);
            }
            eprintln!("{program}");
        }
        Progress::Pair(pair) => {
            let [truth, prediction] =
                pair.reduced.as_ref().map_or([&pair.ground_truth, &pair.prediction], |[a, b]| [a, b]);
            eprintln!("{} pair {}: IoU off by {:.4}\n{truth}\nagainst\n{prediction}", pair.style, pair.id, pair.error);
        }
    }
}
