//! The command line: one file for each subcommand, which parses flags and calls the library.

pub mod agent;
pub mod audit;
pub mod compare;
pub mod completions;
pub mod config;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod examples;
pub mod exec;
pub mod generate;
pub mod launch;
pub mod model;
pub mod plan;
pub mod report;
pub mod score;
pub mod stage;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use cadwright::config::{Config, ConfigError};

/// Teaches a vision-language model to write the CadQuery program of the part in a picture.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    /// Only warnings and errors on standard error; results still go to standard output
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// All stages in order: data, model, SFT, PPO, evaluation; stages that are done are skipped
    Run(stage::RunArgs),
    /// Supervised fine-tuning on ground-truth programs
    Sft(stage::SftArgs),
    /// PPO on the IoU reward, from the SFT policy of the same run or from a model of your own
    Ppo(stage::PpoArgs),
    /// Evaluate a checkpoint on a dataset with the metrics of the reward
    Eval(Box<eval::EvalArgs>),
    /// Compare two evaluations part by part, with intervals and a test
    Compare(compare::CompareArgs),
    /// Write the report of runs: one HTML file, with curves, tables and parts that can be turned
    Report(report::ReportArgs),
    /// Write the program of the part in a picture
    Generate(generate::GenerateArgs),
    /// Write the program of the part in a picture, build it, look at it, and correct it
    Agent(agent::AgentArgs),
    /// Start N processes of a command on this machine, as the ranks of one data-parallel run
    Launch(launch::LaunchArgs),
    /// Execute programs: JSONL in, outcomes and mass properties out
    Exec(exec::ExecArgs),
    /// Score predictions against ground truths: JSONL in, IoU and reward out
    Score(score::ScoreArgs),
    /// Compare the native engine with CadQuery and with exact booleans
    Audit(audit::AuditArgs),
    /// Make and inspect data
    Data(data::DataArgs),
    /// Make and inspect models
    Model(model::ModelArgs),
    /// Estimate what a step costs on many GPUs, and what stops scaling
    Plan(plan::PlanArgs),
    /// Show what a configuration consists of
    Config(config::ConfigCommand),
    /// Print a script that completes commands and flags in bash, zsh or fish
    Completions(completions::CompletionsArgs),
    /// Report what this machine has, what is missing, and how to repair it
    Doctor(doctor::DoctorArgs),
}

/// The sources of a configuration.
#[derive(Args)]
pub struct ConfigArgs {
    /// A recipe, for example configs/quickstart.toml; without one, the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Overrides a key of the configuration, for example --set ppo.steps=50; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

impl ConfigArgs {
    /// The configuration. `flags` are the overrides of other flags; `--set` takes precedence over
    /// them.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load(&self, flags: Vec<String>) -> Result<Config, ConfigError> {
        let overrides: Vec<String> = flags.into_iter().chain(self.overrides.iter().cloned()).collect();
        Config::load(self.config.as_deref(), &overrides)
    }
}

/// `key=value` with the value as a TOML string.
pub fn text_override(key: &str, value: &str) -> String {
    format!("{key}={}", toml::Value::String(value.into()))
}

/// The arguments with flags such as `--batch_size`, which users of Python scripts write, spelled
/// `--batch-size`.
pub fn hyphenated(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments
        .map(|argument| match argument.to_str() {
            Some(text) if text.starts_with("--") => {
                let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
                format!("{}{value}", name.replace('_', "-")).into()
            }
            _ => argument,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_do_not_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn underscores_in_flags_become_hyphens_and_values_stay() {
        let arguments = ["cadwright", "--lora_rank=8", "--output_dir", "my_dir", "--set", "ppo.kl_coef=0"];
        let expected = ["cadwright", "--lora-rank=8", "--output-dir", "my_dir", "--set", "ppo.kl_coef=0"];
        assert_eq!(hyphenated(arguments.iter().map(OsString::from)), expected.map(OsString::from));
    }
}
