//! The command line of cadwright: parse, then one match on the subcommand.
//!
//! Exit codes: 0 done; 1 something failed, in one message on standard error; 2 the command line
//! itself is wrong. `launch` gives that of the first process that failed. `--help` and docs/cli.md
//! say so too.

mod cli;

use std::process::ExitCode;

use cadwright::distributed::is_first_to_report;
use clap::FromArgMatches;

use cli::{Cli, Command};

fn main() -> ExitCode {
    cadwright::libtorch::wait_passively();
    cadwright::libtorch::keep_freed_memory();
    let matches = cli::examples::command().get_matches_from(cli::hyphenated(std::env::args_os()));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if cli.quiet {
        cadwright::terminal::be_quiet();
    }
    // The ranks that `launch` starts warn for themselves; asking costs it seconds.
    let is_launcher = matches!(cli.command, Command::Launch(_));
    if !is_launcher && let Some(warning) = cadwright::cuda::cuda().warning() {
        eprintln!("warning: {warning}");
    }
    let result = match &cli.command {
        Command::Run(args) => cli::stage::run(args),
        Command::Sft(args) => cli::stage::sft(args),
        Command::Ppo(args) => cli::stage::ppo(args),
        Command::Eval(args) => cli::eval::run(args),
        Command::Compare(args) => cli::compare::run(args),
        Command::Report(args) => cli::report::run(args),
        Command::Generate(args) => cli::generate::run(args),
        Command::Agent(args) => cli::agent::run(args),
        Command::Launch(args) => match cli::launch::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Exec(args) => cli::exec::run(args),
        Command::Score(args) => cli::score::run(args),
        Command::Audit(args) => cli::audit::run(args),
        Command::Data(args) => cli::data::run(args),
        Command::Model(args) => cli::model::run(args),
        Command::Plan(args) => cli::plan::run(args),
        Command::Config(args) => cli::config::run(args),
        Command::Completions(args) => cli::completions::run(args),
        Command::Doctor(args) => cli::doctor::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if is_first_to_report() {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
