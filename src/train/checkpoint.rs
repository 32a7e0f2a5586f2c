//! Checkpoints from which a killed run continues. Each is complete or absent.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::optim::Optimizer;
use crate::distributed::World;
use crate::files::replace_directory;
use crate::model::Weights;
use crate::model::files::{read_tensors, write_safetensors};

/// A set of trainable tensors with its optimiser.
pub struct CheckpointPart<'a> {
    /// The stem of its file names: `policy` or `value_head`.
    pub name: &'static str,
    /// The weights, of which the trainable ones are saved.
    pub weights: &'a mut Weights,
    /// The optimiser, whose moments are saved.
    pub optimizer: &'a mut Optimizer,
}

/// Writes the parts and `state` to `directory`, on rank 0. An older checkpoint there is replaced
/// atomically. What is written does not depend on the number of ranks.
///
/// # Errors
/// A directory that cannot be written, or ranks whose weights differ.
pub fn save(world: &World, directory: &Path, parts: &[CheckpointPart], state: &impl Serialize) -> Result<()> {
    for part in parts {
        check_agreement(world, part)?;
    }
    let moments = parts.iter().map(|part| part.optimizer.state(world)).collect::<Result<Vec<_>>>()?;
    if !world.is_main() {
        return world.barrier("a checkpoint");
    }
    replace_directory(directory, |aside| {
        for (part, moments) in parts.iter().zip(&moments) {
            write_safetensors(&aside.join(format!("{}.safetensors", part.name)), part.weights.trainable())?;
            let moments = moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
            write_safetensors(&aside.join(format!("{}.optimizer.safetensors", part.name)), moments)?;
        }
        let path = aside.join("state.json");
        std::fs::write(&path, serde_json::to_string_pretty(state)?)
            .with_context(|| format!("cannot write {}", path.display()))
    })?;
    world.barrier("a checkpoint")
}

/// Checks that all ranks have the same weights: they start alike and apply the same sums, so a
/// difference means a device that computes otherwise, or a fault.
fn check_agreement(world: &World, part: &CheckpointPart) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let sums = world.gather("the sum of the weights", part.weights.checksum())?;
    if let Some(rank) = sums.iter().position(|sum| *sum != sums[0]) {
        bail!(
            "the {} of rank {rank} differs from that of rank 0: the ranks must have equal devices and libraries; start again from the last checkpoint",
            part.name
        );
    }
    Ok(())
}

/// Restores the checkpoint in `directory`, if there is one, and returns its state.
///
/// # Errors
/// A checkpoint that is damaged or of another model. The message names every tensor that does not
/// fit.
pub fn load<S: DeserializeOwned>(directory: &Path, parts: &mut [CheckpointPart]) -> Result<Option<S>> {
    let path = directory.join("state.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let hint = || format!("cannot go on from {}; delete it to start the stage anew", directory.display());
    let state = serde_json::from_str(&text).with_context(|| path.display().to_string()).with_context(hint)?;
    for part in parts {
        let path = directory.join(format!("{}.safetensors", part.name));
        part.weights.restore_trainable(&path, &read_tensors(&path)?).with_context(hint)?;
        let path = directory.join(format!("{}.optimizer.safetensors", part.name));
        if let Err(problems) = part.optimizer.restore(&read_tensors(&path)?) {
            bail!("{}: {}:\n  {}", hint(), path.display(), problems.join("\n  "));
        }
    }
    Ok(Some(state))
}
