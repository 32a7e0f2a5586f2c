//! A checkpoint from which a killed run goes on: complete, or absent.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use super::optim::Optimizer;
use crate::files::replace_directory;
use crate::model::Weights;
use crate::model::files::{read_safetensors, write_safetensors};

/// One set of trainable tensors with its optimiser, by the name that its files bear.
pub struct CheckpointPart<'a> {
    /// `policy`, `value_head`.
    pub name: &'static str,
    /// Whose trainable tensors are kept.
    pub weights: &'a mut Weights,
    /// Whose moments are kept.
    pub optimizer: &'a mut Optimizer,
}

/// Writes the parts and `state` to `directory`, replacing what is there at once: readers see the old one or the new one.
///
/// # Errors
/// A directory that cannot be written.
pub fn save(directory: &Path, parts: &[CheckpointPart], state: &impl Serialize) -> Result<()> {
    replace_directory(directory, |aside| {
        for part in parts {
            write_safetensors(&aside.join(format!("{}.safetensors", part.name)), part.weights.trainable())?;
            let moments = part.optimizer.state();
            let moments = moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
            write_safetensors(&aside.join(format!("{}.optimizer.safetensors", part.name)), moments)?;
        }
        let path = aside.join("state.json");
        std::fs::write(&path, serde_json::to_string_pretty(state)?)
            .with_context(|| format!("cannot write {}", path.display()))
    })
}

/// Takes up the checkpoint in `directory`, if there is one, and returns its state.
///
/// # Errors
/// A checkpoint that is damaged or of another model, naming every tensor that does not fit.
pub fn load<S: DeserializeOwned>(directory: &Path, parts: &mut [CheckpointPart]) -> Result<Option<S>> {
    let path = directory.join("state.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let hint = || format!("cannot go on from {}; delete it to start the stage anew", directory.display());
    let state = serde_json::from_str(&text).with_context(|| path.display().to_string()).with_context(hint)?;
    for part in parts {
        let path = directory.join(format!("{}.safetensors", part.name));
        part.weights.restore_trainable(&path, &read_all(&path)?).with_context(hint)?;
        let path = directory.join(format!("{}.optimizer.safetensors", part.name));
        if let Err(problems) = part.optimizer.restore(&read_all(&path)?) {
            bail!("{}: {}:\n  {}", hint(), path.display(), problems.join("\n  "));
        }
    }
    Ok(Some(state))
}

fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    read_safetensors(path, |name, tensor| {
        tensors.insert(name.to_owned(), tensor);
    })?;
    Ok(tensors)
}
