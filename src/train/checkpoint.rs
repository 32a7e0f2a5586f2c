//! A checkpoint from which a killed run goes on: complete, or absent.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use super::optim::Optimizer;
use crate::model::Weights;
use crate::model::files::{read_safetensors, write_safetensors};

/// One set of trainable tensors with its optimiser, by the name that its files bear.
pub struct Part<'a> {
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
pub fn save(directory: &Path, parts: &[Part], state: &impl Serialize) -> Result<()> {
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
pub fn load<S: DeserializeOwned>(directory: &Path, parts: &mut [Part]) -> Result<Option<S>> {
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

/// Fills a directory aside and puts it in the place of `directory`.
///
/// # Errors
/// What `fill` says, or a directory that cannot be written; then the old one is as it was.
pub fn replace_directory(directory: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let beside = |mark: &str| -> PathBuf {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        directory.with_file_name(format!(".{name}.{mark}"))
    };
    let (aside, old) = (beside("new"), beside("old"));
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    for leftover in [&aside, &old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).with_context(|| cannot(leftover))?;
        }
    }
    std::fs::create_dir_all(&aside).with_context(|| cannot(&aside))?;
    fill(&aside)?;
    if !directory.exists() {
        return std::fs::rename(&aside, directory).with_context(|| cannot(directory));
    }
    if exchange(&aside, directory).is_err() {
        // A file system that cannot exchange names; for an instant there is no checkpoint.
        std::fs::rename(directory, &old).with_context(|| cannot(directory))?;
        std::fs::rename(&aside, directory).with_context(|| cannot(directory))?;
    }
    for leftover in [&aside, &old] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover).with_context(|| cannot(leftover))?;
        }
    }
    Ok(())
}

/// Gives each of two directories the other's name, at once.
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both are NUL-terminated strings that outlive the call.
    let status =
        unsafe { libc::renameat2(libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE) };
    if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_directory() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("best");
        let write = |text: &'static str| move |dir: &Path| Ok(std::fs::write(dir.join("file"), text)?);
        replace_directory(&target, write("one")).unwrap();
        replace_directory(&target, |_| bail!("out of luck")).unwrap_err();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "one");
        replace_directory(&target, write("two")).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "two");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
