//! `cadwright config`

use std::io::Write;

use anyhow::{Result, bail};
use cadwright::config::{ShownKey, shown};
use clap::{Args, Subcommand};

use super::ConfigArgs;

/// Show what a configuration consists of
#[derive(Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print every key with its value, and the file or flag that set it
    Show(ShowArgs),
}

#[derive(Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the documentation of a key or of a section instead, for example ppo.steps or ppo; may
    /// be repeated
    #[arg(long, value_name = "KEY")]
    describe: Vec<String>,
}

/// Runs it.
pub fn run(command: &ConfigCommand) -> Result<()> {
    let Action::Show(args) = &command.action;
    let keys = shown(args.config.config.as_deref(), &args.config.overrides)?;
    let mut out = std::io::stdout().lock();
    if args.describe.is_empty() {
        let width = keys.iter().map(|key| key.key.len() + key.value.len()).max().unwrap_or(0).min(60);
        for ShownKey { key, value, origin, .. } in &keys {
            let line = format!("{key} = {value}");
            writeln!(out, "{line:<width$}  # {origin}")?;
        }
        return Ok(());
    }
    for name in &args.describe {
        let is_named = |key: &&ShownKey| key.key == *name || key.key.starts_with(&format!("{name}."));
        let found: Vec<&ShownKey> = keys.iter().filter(is_named).collect();
        if found.is_empty() {
            bail!("there is no key {name}{}; `cadwright config show` lists all", suggestion(name, &keys));
        }
        for ShownKey { key, value, origin, doc } in found {
            writeln!(out, "{key} = {value}  # {origin}\n    {doc}")?;
        }
    }
    Ok(())
}

fn suggestion(name: &str, keys: &[ShownKey]) -> String {
    let like = |key: &&ShownKey| strsim::jaro_winkler(&key.key, name);
    let nearest = keys.iter().max_by(|a, b| like(a).total_cmp(&like(b)));
    nearest.map_or(String::new(), |key| format!("; did you mean {}?", key.key))
}
