//! Gates: checks before the first step of a stage. Each says in one line what it found. A closed
//! one refuses to start unless `run.allow` names it. docs/gates.md lists them.

mod policy;
mod prompt;
mod resources;
mod truths;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::Stage;
use crate::config::Gate;
use crate::distributed::World;
use crate::model::InternVl;

pub use policy::{most_sampler_gap, picture, ratio, truncation};

/// What a gate has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The gate.
    pub gate: Gate,
    /// Whether the stage may start.
    pub is_open: bool,
    /// What was found, in words.
    pub found: String,
}

impl Finding {
    /// A finding.
    pub fn new(gate: Gate, is_open: bool, found: impl Into<String>) -> Self {
        Self { gate, is_open, found: found.into() }
    }
}

/// The gates that need no completions: those of every stage that trains.
///
/// # Errors
/// A gate is closed, or the scorer cannot go on.
pub fn before_training(stage: &Stage, model: &InternVl, is_rl: bool) -> Result<()> {
    let findings = vec![
        truths::truths(stage)?,
        truths::scorer(stage)?,
        prompt::prompt(stage)?,
        resources::memory(stage, model, is_rl),
        resources::disk(stage, model),
    ];
    pass(stage.world, findings, &stage.config.run.allow)
}

/// Prints a line for each gate. If a rank finds a gate closed, that finding counts.
///
/// # Errors
/// A gate is closed and not among `allowed`: the message has all of these.
pub fn pass(world: &World, own: Vec<Finding>, allowed: &[Gate]) -> Result<()> {
    let all = world.gather("the gates", own)?;
    let findings = (0..all[0].len()).map(|i| all.iter().map(|own| &own[i]).find(|f| !f.is_open).unwrap_or(&all[0][i]));
    let mut refused = Vec::new();
    for Finding { gate, is_open, found } in findings {
        let name = gate.name();
        let verdict = match (is_open, allowed.contains(gate)) {
            (true, _) => "passed",
            (false, true) => "closed, but allowed",
            (false, false) => "closed",
        };
        let line = format!("gate {name}: {verdict}: {found}");
        if *is_open {
            world.say(&line)
        } else {
            world.warn(&line)
        }
        if verdict == "closed" {
            refused.push((name, format!("{name} ({found})")));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let (names, reasons): (Vec<&str>, Vec<String>) = refused.into_iter().unzip();
    let flags: Vec<String> = names.iter().map(|name| format!("--allow {name}")).collect();
    bail!(
        "refused before the first step by the gate {}; to start anyway: {} (docs/gates.md)",
        reasons.join("; and by the gate "),
        flags.join(" ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_gates_refuse_together_and_allowed_ones_do_not() {
        let findings = || {
            vec![
                Finding::new(Gate::Truths, false, "3 of 64 fail"),
                Finding::new(Gate::Scorer, true, "7 known programs are right"),
                Finding::new(Gate::Disk, false, "1 GiB of 2 GiB"),
            ]
        };
        let world = World::single();
        let message = pass(&world, findings(), &[]).unwrap_err().to_string();
        for text in ["truths (3 of 64 fail)", "disk (1 GiB of 2 GiB)", "--allow truths --allow disk"] {
            assert!(message.contains(text), "{message}");
        }
        assert!(!message.contains("scorer"), "{message}");
        let message = pass(&world, findings(), &[Gate::Truths]).unwrap_err().to_string();
        assert!(message.contains("disk") && !message.contains("truths"), "{message}");
        pass(&world, findings(), &[Gate::Disk, Gate::Truths]).unwrap();
    }
}
