//! The end of every `--help`: examples and, for the whole program, exit codes.

use clap::{Command, CommandFactory};

use super::Cli;

/// What the whole program's `--help` says last. docs/cli.md says the same.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 something failed, and one message on standard error says what; 2 the \
                          command line itself is wrong. `launch` gives the code of the first rank that failed, and \
                          128 + N if signal N killed it.";

/// Subcommands by path, each with its examples.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["cadwright run --config configs/quickstart.toml", "cadwright report runs/quickstart"]),
    (
        "run",
        &[
            "cadwright run --config configs/quickstart.toml",
            "cadwright run --config configs/quickstart.toml --output-dir runs/short --set ppo.steps=20",
        ],
    ),
    ("sft", &["cadwright sft --config configs/internvl3-2b.toml --num-epochs 1 --lora-rank 64"]),
    (
        "ppo",
        &[
            "cadwright ppo --config configs/internvl3-2b.toml",
            "cadwright ppo --model-path OpenGVLab/InternVL3-2B --lora-path my/adapter --set model.tune=lora --output-dir runs/mine",
        ],
    ),
    (
        "eval",
        &[
            "cadwright eval --model-path runs/quickstart/ppo/best --dataset runs/quickstart/data",
            "cadwright eval --model-path MODEL --samples-per-image 8 --temperature 1 --summary summary.json",
        ],
    ),
    ("compare", &["cadwright compare runs/quickstart/eval/sft runs/quickstart/eval/ppo"]),
    (
        "report",
        &["cadwright report runs/quickstart", "cadwright report runs/a runs/b --output compared.html --parts 200"],
    ),
    (
        "generate",
        &[
            "cadwright generate --model-path runs/quickstart/ppo/best --image part.png --execute",
            "cadwright generate --model-path MODEL --image part.png --temperature 1 --count 8",
        ],
    ),
    ("agent", &["cadwright agent --model-path runs/quickstart/ppo/best --image part.png --output out"]),
    ("launch", &["cadwright launch --processes 2 run --config configs/smoke.toml"]),
    ("exec", &["cadwright exec --input programs.jsonl --output outcomes.jsonl"]),
    (
        "score",
        &[
            "cadwright score --input pairs.jsonl --output scores.jsonl --summary summary.json",
            "cadwright score --input pairs.jsonl --output scores.jsonl --protocol cadrille,cadbench",
        ],
    ),
    (
        "audit",
        &[
            "cadwright audit --input pairs.jsonl --sample 200",
            "cadwright audit --generate 1000 --pairs 100 --output findings.json",
        ],
    ),
    (
        "data",
        &[
            "cadwright data synth --count 1000 --output parts",
            "cadwright data render --input part.py --output part.png",
        ],
    ),
    ("data synth", &["cadwright data synth --count 1000 --output parts"]),
    ("data disturb", &["cadwright data disturb --input runs/quickstart/data --output disturbed"]),
    ("data render", &["cadwright data render --input part.py --output part.png"]),
    ("data convert", &["cadwright data convert --from runs/quickstart/data --form folder --to parts"]),
    ("data stats", &["cadwright data stats runs/quickstart/data --contact-sheet parts.png --json stats.json"]),
    ("data pixels", &["cadwright data pixels --image part.png --output pixels.safetensors"]),
    ("model", &["cadwright model inspect OpenGVLab/InternVL3-2B", "cadwright model init --preset nano --output model"]),
    ("model init", &["cadwright model init --preset nano --output model"]),
    ("model inspect", &["cadwright model inspect OpenGVLab/InternVL3-2B --batch 8 --length 2048"]),
    (
        "model logits",
        &["cadwright model logits --model-path MODEL --input inputs.safetensors --output logits.safetensors"],
    ),
    ("model merge", &["cadwright model merge --model-path MODEL --lora-path ADAPTER --output merged"]),
    ("plan", &["cadwright plan --config configs/plan.toml --gpus 64"]),
    ("config", &["cadwright config show --config configs/quickstart.toml"]),
    (
        "config show",
        &["cadwright config show --config configs/quickstart.toml", "cadwright config show --describe ppo.steps"],
    ),
    (
        "completions",
        &[
            "cadwright completions bash > ~/.local/share/bash-completion/completions/cadwright",
            "cadwright completions zsh > ~/.zfunc/_cadwright",
            "cadwright completions fish > ~/.config/fish/completions/cadwright.fish",
        ],
    ),
    ("doctor", &["cadwright doctor", "cadwright launch --processes 2 doctor"]),
];

/// The command line with the end of every help.
pub fn command() -> Command {
    with_examples(Cli::command(), "")
}

fn with_examples(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let inner = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |command| with_examples(command, &inner))
    });
    match EXAMPLES.iter().find(|(known, _)| *known == path) {
        Some((_, examples)) => {
            let codes = if path.is_empty() { format!("\n\n{EXIT_CODES}") } else { String::new() };
            command.after_help(format!("Examples:\n  {}{codes}", examples.join("\n  ")))
        }
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::cli::{Command as Subcommand, hyphenated};

    /// The paths of all commands at and below `command`.
    fn paths(command: &Command, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        for inner in command.get_subcommands() {
            paths(inner, format!("{path} {}", inner.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_help_ends_with_examples_and_every_entry_is_a_command() {
        let mut all = Vec::new();
        paths(&Cli::command(), "", &mut all);
        let mut known: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        known.sort_unstable();
        all.sort_unstable();
        assert_eq!(all, known);
        let mut command = command();
        let help = command.render_help().to_string();
        assert!(help.contains("Examples:\n  cadwright run") && help.trim_end().ends_with("killed it."), "{help}");
        let merge = command.find_subcommand_mut("model").unwrap().find_subcommand_mut("merge").unwrap();
        assert!(merge.render_help().to_string().trim_end().ends_with("--output merged"));
    }

    #[test]
    fn every_example_is_a_command_line_of_its_command() {
        for (path, examples) in EXAMPLES {
            for example in *examples {
                // Without what the shell does.
                let line = example.split(" > ").next().unwrap_or(example);
                let words: Vec<&str> = line.split_whitespace().collect();
                assert_eq!(words[0], "cadwright", "{example}");
                assert!(path.is_empty() || words[1..].join(" ").contains(path), "{path}: {example}");
                let parsed = Cli::try_parse_from(hyphenated(words.iter().map(OsString::from)));
                let parsed = parsed.unwrap_or_else(|error| panic!("{example}: {error}"));
                if matches!(parsed.command, Subcommand::Launch(_)) {
                    let inner = words.iter().position(|word| *word == "2").unwrap() + 1;
                    let inner = ["cadwright"].iter().chain(&words[inner..]).map(OsString::from);
                    assert!(Cli::try_parse_from(inner).is_ok(), "{example}");
                }
            }
        }
    }
}
