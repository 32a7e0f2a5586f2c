//! `cadwright completions`

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Cli;

/// Print a script that completes this program's commands and flags in a shell
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs it.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "cadwright", &mut script);
    // A reader that has seen enough, such as `head`, is no error.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Ok(())
}
