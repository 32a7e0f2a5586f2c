//! `cadwright compare`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use cadwright::eval::compare::Comparison;
use cadwright::files::{prepare_parent, write_whole};
use clap::Args;
use serde_json::Value;

/// Compare two evaluations of the same parts
#[derive(Args)]
pub struct CompareArgs {
    /// predictions.json of an evaluation, or a directory that holds it
    a: PathBuf,
    /// predictions.json of the other evaluation, or its directory
    b: PathBuf,
    /// Leave out parts that only one of them has
    #[arg(long)]
    common: bool,
    /// File for the comparison as JSON
    #[arg(long, value_name = "FILE")]
    output_json: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: &CompareArgs) -> Result<()> {
    if let Some(path) = &args.output_json {
        prepare_parent(path)?;
    }
    let comparison = Comparison::new(&read(&args.a)?, &read(&args.b)?, args.common)
        .map_err(|problem| anyhow!("A = {}, B = {}: {problem}", args.a.display(), args.b.display()))?;
    print!("{}", comparison.table());
    for (id, a, b) in &comparison.largest {
        println!("  {a:.3} -> {b:.3}  {id}");
    }
    if let Some(path) = &args.output_json {
        write_whole(path, &format!("{:#}\n", comparison.to_json()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let file = if path.is_dir() { path.join("predictions.json") } else { path.to_owned() };
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not JSON", file.display()))
}
