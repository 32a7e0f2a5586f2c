//! Checkpoints from which a killed run continues: `<stage>/checkpoint/step-<n>`, the newest ones. A
//! manifest with the hash of every file is written last, and checked before anything is loaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::optim::Optimizer;
use crate::distributed::World;
use crate::failpoint;
use crate::files::replace_directory;
use crate::model::Weights;
use crate::model::files::{read_tensors, write_safetensors};
use crate::model::weights::is_finite;

const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";

/// A set of trainable tensors with its optimiser.
pub struct CheckpointPart<'a> {
    /// The stem of its file names: `policy` or `value_head`.
    pub name: &'static str,
    /// The weights, of which the trainable ones are saved.
    pub weights: &'a mut Weights,
    /// The optimiser, whose moments are saved.
    pub optimizer: &'a mut Optimizer,
}

/// The files of a checkpoint, as they were when it was written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    blake3: String,
}

/// Writes the parts and `state` to `directory/step-<step>`, on rank 0, and removes all but the
/// newest `keep_last` checkpoints. What is written does not depend on the number of ranks.
///
/// Returns why the checkpoint could not be written, on every rank, if the disk did not take it. The
/// checkpoints before it are then as they were.
///
/// # Errors
/// Weights or moments that are not finite, or ranks whose weights differ.
pub fn save(
    world: &World,
    directory: &Path,
    step: usize,
    keep_last: usize,
    parts: &[CheckpointPart],
    state: &impl Serialize,
) -> Result<Option<String>> {
    for part in parts {
        check_agreement(world, part)?;
        check_finite(part.name, part.weights.trainable())?;
    }
    let moments = parts.iter().map(|part| part.optimizer.state(world)).collect::<Result<Vec<_>>>()?;
    for (part, moments) in parts.iter().zip(&moments) {
        check_finite(part.name, moments.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    }
    let state = serde_json::to_string_pretty(state)?;
    let failure = match world.is_main() {
        true => write(directory, step, keep_last, parts, &moments, &state).err().map(|error| format!("{error:#}")),
        false => None,
    };
    // However long rank 0 writes.
    world.barrier("a checkpoint")?;
    world.from_main("a checkpoint's fate", || Ok(failure))
}

/// Refuses tensors that are not finite: a run cannot go on from them.
fn check_finite<'a>(part: &str, mut tensors: impl Iterator<Item = (&'a str, &'a tch::Tensor)>) -> Result<()> {
    if let Some((name, _)) = tensors.find(|(_, tensor)| !is_finite(tensor)) {
        bail!("{name} of the {part} is not finite: it is not saved; start again from the last checkpoint");
    }
    Ok(())
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

fn write(
    directory: &Path,
    step: usize,
    keep_last: usize,
    parts: &[CheckpointPart],
    moments: &[Vec<(String, tch::Tensor)>],
    state: &str,
) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot write {}", directory.display()))?;
    failpoint::reached("checkpoint-begun")?;
    replace_directory(&directory.join(format!("{PREFIX}{step:06}")), |aside| {
        for (part, moments) in parts.iter().zip(moments) {
            write_safetensors(&aside.join(format!("{}.safetensors", part.name)), part.weights.trainable())?;
            failpoint::reached("checkpoint-weights")?;
            let moments = moments.iter().map(|(name, tensor)| (name.as_str(), tensor));
            write_safetensors(&aside.join(format!("{}.optimizer.safetensors", part.name)), moments)?;
            failpoint::reached("checkpoint-optimizer")?;
        }
        let path = aside.join(STATE);
        std::fs::write(&path, state).with_context(|| format!("cannot write {}", path.display()))?;
        failpoint::reached("checkpoint-state")?;
        write_manifest(aside)?;
        Ok(failpoint::reached("checkpoint-manifest")?)
    })?;
    // The new checkpoint is there, whatever becomes of the old ones.
    if let Err(error) = prune(directory, keep_last) {
        eprintln!("warning: an old checkpoint is still there: {error:#}");
    }
    Ok(failpoint::reached("checkpoint-pruned")?)
}

/// Removes all but the newest `keep_last` checkpoints, and what killed runs have left half written.
fn prune(directory: &Path, keep_last: usize) -> Result<()> {
    let leftovers = entries(directory)?.into_iter().filter(|(_, name)| name.starts_with('.'));
    let old = steps(directory)?.into_iter().skip(keep_last.max(1)).map(|(_, path)| path);
    for path in leftovers.map(|(path, _)| path).chain(old) {
        std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The paths and names in a directory.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, String)>> {
    let cannot = || format!("cannot read {}", directory.display());
    let entries = std::fs::read_dir(directory).with_context(cannot)?.collect::<std::io::Result<Vec<_>>>();
    let named = |entry: &std::fs::DirEntry| (entry.path(), entry.file_name().to_string_lossy().into_owned());
    Ok(entries.with_context(cannot)?.iter().map(named).collect())
}

/// The checkpoints in a directory by step, the newest first.
fn steps(directory: &Path) -> Result<Vec<(usize, PathBuf)>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let step = |(path, name): (PathBuf, String)| Some((name.strip_prefix(PREFIX)?.parse().ok()?, path));
    let mut found: Vec<(usize, PathBuf)> = entries(directory)?.into_iter().filter_map(step).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The newest checkpoint in a directory, whole or not; `None` without one.
pub fn newest(directory: &Path) -> Option<PathBuf> {
    steps(directory).ok()?.into_iter().next().map(|(_, path)| path)
}

/// Writes the manifest of a directory's files.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write_manifest(directory: &Path) -> Result<()> {
    let mut manifest = Manifest::default();
    for (path, name) in entries(directory)?.into_iter().filter(|(_, name)| name != MANIFEST) {
        manifest.files.insert(name, entry_of(&path)?);
    }
    let path = directory.join(MANIFEST);
    std::fs::write(&path, serde_json::to_string_pretty(&manifest)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn entry_of(path: &Path) -> Result<FileEntry> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let bytes = file.metadata().with_context(cannot)?.len();
    let blake3 = blake3::Hasher::new().update_reader(file).with_context(cannot)?.finalize().to_hex().to_string();
    Ok(FileEntry { bytes, blake3 })
}

/// Checks that a checkpoint has the files of its manifest, byte for byte.
///
/// # Errors
/// The first thing that is wrong with it.
fn verify(checkpoint: &Path) -> Result<()> {
    let path = checkpoint.join(MANIFEST);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{MANIFEST} cannot be read"))?;
    let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("{MANIFEST} is malformed"))?;
    ensure!(manifest.files.contains_key(STATE), "{MANIFEST} does not name {STATE}");
    for (name, expected) in &manifest.files {
        ensure!(
            Path::new(name).file_name() == Some(name.as_ref()),
            "{MANIFEST} names {name:?}, which is no file's name"
        );
        let found = entry_of(&checkpoint.join(name)).with_context(|| format!("{name} cannot be read"))?;
        ensure!(found.bytes == expected.bytes, "{name} has {} bytes, not {}", found.bytes, expected.bytes);
        ensure!(found.blake3 == expected.blake3, "{name} has other contents than were written");
    }
    Ok(())
}

/// Restores the newest whole checkpoint in `directory`, if there is one, and returns its state.
/// Damaged ones that are newer are named on standard error and set aside as `step-<n>.broken`.
///
/// # Errors
/// There are checkpoints and none is whole, or one is of another model. The message names every
/// tensor that does not fit.
pub fn load<S: DeserializeOwned>(world: &World, directory: &Path, parts: &mut [CheckpointPart]) -> Result<Option<S>> {
    ensure!(
        !directory.join(STATE).exists(),
        "{} is of an older version; delete it to start the stage anew",
        directory.display()
    );
    let mut broken = Vec::new();
    let mut loaded = None;
    for (_, path) in steps(directory)? {
        match verify(&path) {
            Ok(()) => {
                loaded = Some(restored(&path, parts)?);
                break;
            }
            Err(error) => broken.push((path, format!("{error:#}"))),
        }
    }
    if loaded.is_none() && !broken.is_empty() {
        let reasons: Vec<String> = broken.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
        bail!(
            "no checkpoint is whole ({}); delete {} to start the stage anew",
            reasons.join("; "),
            directory.display()
        );
    }
    // No rank still looks at a checkpoint that is set aside.
    world.barrier("the checkpoints")?;
    for (path, why) in broken.into_iter().filter(|_| world.is_main()) {
        let aside = path.with_extension("broken");
        eprintln!("warning: {} is damaged: {why}; it is set aside as {}", path.display(), aside.display());
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(&path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
    }
    Ok(loaded)
}

/// The state of a whole checkpoint, whose tensors are restored.
fn restored<S: DeserializeOwned>(checkpoint: &Path, parts: &mut [CheckpointPart]) -> Result<S> {
    let hint = || format!("cannot go on from {}; delete it to start the stage anew", checkpoint.display());
    let path = checkpoint.join(STATE);
    let text = std::fs::read_to_string(&path).with_context(hint)?;
    let state = serde_json::from_str(&text).with_context(|| path.display().to_string()).with_context(hint)?;
    for part in parts {
        let path = checkpoint.join(format!("{}.safetensors", part.name));
        part.weights.restore_trainable(&path, &read_tensors(&path)?).with_context(hint)?;
        let path = checkpoint.join(format!("{}.optimizer.safetensors", part.name));
        if let Err(problems) = part.optimizer.restore(&read_tensors(&path)?) {
            bail!("{}: {}:\n  {}", hint(), path.display(), problems.join("\n  "));
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(directory: &Path, step: usize) -> PathBuf {
        let path = directory.join(format!("{PREFIX}{step:06}"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(STATE), format!("{{\"step\": {step}}}")).unwrap();
        std::fs::write(path.join("policy.bin"), vec![7u8; 1000]).unwrap();
        write_manifest(&path).unwrap();
        path
    }

    fn loaded(directory: &Path) -> Result<Option<usize>> {
        let state = load::<serde_json::Value>(&World::single(), directory, &mut [])?;
        Ok(state.and_then(|state| state["step"].as_u64()).map(|step| step as usize))
    }

    #[test]
    fn the_newest_whole_checkpoint_is_used_whatever_is_wrong_with_newer_ones() {
        type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
        let damages: [Damage; 5] = [
            ("has 999 bytes", &|path| std::fs::write(path.join("policy.bin"), [7u8; 999]).unwrap()),
            ("other contents", &|path| std::fs::write(path.join("policy.bin"), [8u8; 1000]).unwrap()),
            ("policy.bin cannot be read", &|path| std::fs::remove_file(path.join("policy.bin")).unwrap()),
            ("manifest.json cannot be read", &|path| std::fs::remove_file(path.join(MANIFEST)).unwrap()),
            ("manifest.json is malformed", &|path| std::fs::write(path.join(MANIFEST), "{").unwrap()),
        ];
        for (says, damage) in damages {
            let root = tempfile::tempdir().unwrap();
            for step in [2, 4, 10] {
                checkpoint(root.path(), step);
            }
            assert_eq!(newest(root.path()), Some(root.path().join("step-000010")));
            damage(&root.path().join("step-000010"));
            let error = format!("{:#}", verify(&root.path().join("step-000010")).unwrap_err());
            assert!(error.contains(says), "{error}");
            assert_eq!(loaded(root.path()).unwrap(), Some(4), "{says}");
            assert!(root.path().join("step-000010.broken").exists() && !root.path().join("step-000010").exists());
        }
    }

    #[test]
    fn if_none_is_whole_the_message_names_each_and_nothing_is_moved() {
        let root = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            std::fs::write(checkpoint(root.path(), step).join("policy.bin"), "short").unwrap();
        }
        let message = format!("{:#}", loaded(root.path()).unwrap_err());
        for text in ["step-000001: policy.bin has 5 bytes, not 1000", "step-000002", "delete"] {
            assert!(message.contains(text), "{message}");
        }
        assert_eq!(steps(root.path()).unwrap().len(), 2);
        assert_eq!(loaded(&root.path().join("nowhere")).unwrap(), None);
    }

    #[test]
    fn the_newest_are_kept_and_half_written_ones_removed() {
        let root = tempfile::tempdir().unwrap();
        for step in [8, 9, 10, 11] {
            checkpoint(root.path(), step);
        }
        std::fs::create_dir(root.path().join(".step-000012.new")).unwrap();
        prune(root.path(), 2).unwrap();
        let mut names: Vec<String> = entries(root.path()).unwrap().into_iter().map(|(_, name)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["step-000010", "step-000011"]);
    }

    #[test]
    fn what_is_not_finite_is_found() {
        let finite = tch::Tensor::from_slice(&[1.0f32, -2.0]);
        assert!(is_finite(&finite) && is_finite(&tch::Tensor::from_slice(&[1i64])));
        assert!(!is_finite(&tch::Tensor::from_slice(&[1.0f32, f32::NAN])));
        assert!(!is_finite(&tch::Tensor::from_slice(&[1.0f32, f32::INFINITY])));
        assert!(check_finite("policy", [("a", &finite)].into_iter()).is_ok());
    }
}
