//! The gates `memory` and `disk`: estimates before anything is spent.

use std::path::Path;

use tch::Device;

use super::Finding;
use crate::config::{Config, Gate, Tune};
use crate::machine;
use crate::model::InternVl;
use crate::plan::{Assumptions, CPU_CORE, Planner};
use crate::train::Stage;

const GIB: f64 = (1u64 << 30) as f64;

/// GiB of CadQuery's servers and their children while they execute ordinary programs: what all of
/// them hold in `benches/results/soak.md`. `rollout.memory_mib` limits what each takes besides.
const CADQUERY_GIB: f64 = 1.5;

/// Room for logs, the cache of ground truths and pictures of validations.
const LOGS: u64 = 64 << 20;

/// The memory of the stage, as `cadwright plan` estimates it, must be there: that of the GPU, or that
/// of the machine, CadQuery's processes included.
pub fn memory(stage: &Stage, model: &InternVl, is_rl: bool) -> Finding {
    let on_gpu = model.device().is_cuda();
    let needed = estimated_memory_gib(stage, model, is_rl) + if on_gpu { 0.0 } else { CADQUERY_GIB };
    // The weights are loaded already, and the estimate has them too.
    let (available, held) = match model.device() {
        Device::Cuda(_) => (machine::free_gpu_bytes(), weights_bytes(model)),
        _ => (machine::available_bytes(), machine::own_bytes().unwrap_or_default()),
    };
    // Ranks on a machine's CPU share its memory.
    let ranks = if on_gpu { 1 } else { stage.world.local_size() };
    let available = available.map(|free| free as f64 / ranks as f64 + held as f64);
    memory_finding(needed, available.map(|bytes| bytes / GIB))
}

fn memory_finding(needed: f64, available: Option<f64>) -> Finding {
    let Some(available) = available else {
        let found = format!("not checked: {needed:.1} GiB are estimated, what is free is not known");
        return Finding::new(Gate::Memory, true, found);
    };
    Finding::new(Gate::Memory, needed <= available, format!("{needed:.1} GiB are estimated, {available:.1} are there"))
}

/// GiB of the stage on this rank.
fn estimated_memory_gib(stage: &Stage, model: &InternVl, is_rl: bool) -> f64 {
    let mut config: Config = stage.config.clone();
    // The longest sequence has all turns.
    config.generate.max_new_tokens *= if is_rl { config.ppo.turns } else { config.sft.turns };
    let assumptions = Assumptions::of(&config, 1.0, 1);
    let plan = Planner { model: &model.config, config: &config, device: CPU_CORE, assumptions };
    let plan = plan.plan(stage.world.size() as u64);
    let steps = if is_rl { plan.rl.steps } else { plan.sft.steps };
    let step = steps.last();
    step.map_or(0.0, |step| if config.distributed.shard_optimizer { step.memory_sharded_gib } else { step.memory_gib })
}

fn weights_bytes(model: &InternVl) -> u64 {
    model.weights().iter().map(|(_, tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum()
}

/// The space for the stage's checkpoints and policies must be there.
pub fn disk(stage: &Stage, model: &InternVl) -> Finding {
    let count = |tensors: &mut dyn Iterator<Item = usize>| tensors.sum::<usize>() as u64;
    let trained = count(&mut model.weights().trainable().map(|(_, tensor)| tensor.numel()));
    let all = count(&mut model.weights().iter().map(|(_, tensor)| tensor.numel()));
    let policy = if stage.config.model.tune == Tune::Lora { trained } else { all };
    let needed = disk_bytes(trained, policy, stage.config.run.keep_last as u64, stage.config.run.keep_best as u64);
    disk_finding(needed, machine::free_disk_bytes(&stage.run_dir), &stage.run_dir)
}

/// Bytes that a stage needs at most, with `trained` trained numbers and `policy` numbers in a
/// stored policy, all in fp32. A checkpoint has AdamW's two moments besides; one more of each is
/// written before the oldest is removed, and `last` is a policy too.
fn disk_bytes(trained: u64, policy: u64, keep_last: u64, keep_best: u64) -> u64 {
    trained * 12 * (keep_last + 1) + policy * 4 * (keep_best + 2) + LOGS
}

fn disk_finding(needed: u64, free: Option<u64>, directory: &Path) -> Finding {
    let needed_gib = needed as f64 / GIB;
    let Some(free) = free else {
        let found = format!("not checked: {needed_gib:.2} GiB are needed, what is free is not known");
        return Finding::new(Gate::Disk, true, found);
    };
    let (free_gib, directory) = (free as f64 / GIB, directory.display());
    let found = format!("{needed_gib:.2} GiB are needed, {free_gib:.2} are free in {directory}");
    Finding::new(Gate::Disk, needed <= free, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_refused_and_what_is_not_known_is_said() {
        assert!(memory_finding(3.9, Some(4.0)).is_open && !memory_finding(4.1, Some(4.0)).is_open);
        let unknown = memory_finding(4.1, None);
        assert!(unknown.is_open && unknown.found.contains("not checked"), "{}", unknown.found);
        let directory = Path::new("run");
        assert!(disk_finding(10, Some(10), directory).is_open && !disk_finding(11, Some(10), directory).is_open);
        assert!(disk_finding(10, None, directory).found.contains("not checked"));
    }

    #[test]
    fn the_disk_holds_one_checkpoint_and_one_policy_more_than_are_kept() {
        // Checkpoints: 3 of 12 bytes a trained number; policies: best, last and one being written.
        assert_eq!(disk_bytes(1000, 4000, 2, 1), 3 * 12_000 + 3 * 16_000 + LOGS);
    }
}
