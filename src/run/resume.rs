//! Decides which keys may differ between a run and its continuation.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Device;
use toml::{Table, Value};

use crate::config::{Config, Dtype, Sft};

/// Keys that change the speed or memory of a run, but not its results, apart from rounding.
///
/// `generate.batch_size` is one of them because every completion draws from a generator of its own.
const HARMLESS: [&str; 25] = [
    "run.output_dir",
    "run.device",
    "run.threads",
    "run.control",
    "run.allow",
    "run.truncation_limit",
    "run.alarms",
    "run.keep_last",
    "run.keep_best",
    "run.report_parts",
    "model.gradient_checkpointing",
    "model.vision_cache_mib",
    "generate.batch_size",
    "rollout.workers",
    "rollout.cache_dir",
    "reward.command_processes",
    "reward.command_timeout_s",
    "reward.command_start_s",
    "sft.checkpoint_every",
    "ppo.checkpoint_every",
    "ppo.micro_batch_size",
    "ppo.samples_log_every",
    "ppo.samples_log_mib",
    "distributed.timeout_s",
    "distributed.shard_optimizer",
];

/// These two may change if their product, SFT's examples in one optimiser step, stays the same.
const STEP_OF_SFT: [&str; 2] = ["sft.batch_size", "sft.gradient_accumulation"];

/// The configuration with which the run in `dir` starts or continues: `config` with `model.dtype`
/// resolved for `device`.
///
/// If the directory holds a run already:
/// - keys that change only speed or memory may differ;
/// - sections of stages that have not begun may differ;
/// - if SFT is done, its section and the adapter's keep the values with which it was done, whatever
///   `config` says;
/// - `model.dtype = "auto"` is the dtype with which the run began, even on another device.
///
/// # Errors
/// A run of another version, or keys that differ and may not: all of them, with both values.
pub(super) fn continued(mut config: Config, dir: &Path, device: Device) -> Result<Config> {
    let path = dir.join("config.toml");
    if !path.exists() {
        config.model.dtype = config.model.dtype.on(device);
        return Ok(config);
    }
    let before = Config::load(Some(&path), &[])
        .with_context(|| format!("{} is not of this version; choose another --set run.output_dir=..", dir.display()))?;
    if dir.join("sft/result.json").exists() {
        let sft = done_sft(&before.sft, &config.sft);
        if (&config.sft, &config.lora) != (&sft, &before.lora) {
            eprintln!("sft: done before, with other values of [sft] or [lora]: those in {} stand", path.display());
        }
        config.sft = sft;
        config.lora = before.lora.clone();
    }
    if config.model.dtype == Dtype::Auto {
        config.model.dtype = before.model.dtype;
    }
    config.model.dtype = config.model.dtype.on(device);
    let is_bound = |section: &str| match section {
        "ppo" | "reward" => dir.join("ppo").exists(),
        "eval" => dir.join("eval").exists(),
        _ => true,
    };
    let differing = differing_keys(&Table::try_from(&before)?, &Table::try_from(&config)?, is_bound);
    ensure!(
        differing.is_empty(),
        "{} holds a run with other values: {}; choose another --set run.output_dir=.. or delete it",
        dir.display(),
        differing.join(", ")
    );
    Ok(config)
}

/// The settings with which SFT was done, except that more SFT may use other micro-batches or write
/// checkpoints at other steps.
fn done_sft(before: &Sft, now: &Sft) -> Sft {
    let per_step = |sft: &Sft| sft.batch_size.checked_mul(sft.gradient_accumulation);
    let mut sft = Sft { checkpoint_every: now.checkpoint_every, ..before.clone() };
    if per_step(before) == per_step(now) {
        (sft.batch_size, sft.gradient_accumulation) = (now.batch_size, now.gradient_accumulation);
    }
    sft
}

/// Each key that differs and affects the results, with both values, in the sections for which
/// `is_bound` is true.
fn differing_keys(before: &Table, now: &Table, is_bound: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (section, now) in now.iter().filter(|(section, _)| is_bound(section)) {
        walk(before.get(section), now, section, &mut found);
    }
    let per_step = |table: &Table| {
        let [batch, accumulation] =
            ["batch_size", "gradient_accumulation"].map(|key| table.get("sft")?.get(key)?.as_integer());
        batch?.checked_mul(accumulation?)
    };
    let is_same_step = per_step(before) == per_step(now);
    let is_harmless = |key: &str| HARMLESS.contains(&key) || is_same_step && STEP_OF_SFT.contains(&key);
    found.retain(|(key, _)| !is_harmless(key));
    found.into_iter().map(|(_, difference)| difference).collect()
}

/// Adds every key at or below `path` whose value differs, with the difference in words.
fn walk(before: Option<&Value>, now: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match (before, now) {
        (Some(Value::Table(before)), Value::Table(now)) => {
            for (key, value) in now {
                walk(before.get(key), value, &format!("{path}.{key}"), found);
            }
        }
        (Some(before), now) if before == now => {}
        (Some(before), now) => found.push((path.to_owned(), format!("{path} = {before} there, {now} now"))),
        (None, now) => found.push((path.to_owned(), format!("{path} not there, {now} now"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(overrides: &[&str]) -> Table {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Table::try_from(Config::load(None, &overrides).unwrap()).unwrap()
    }

    fn differing(before: &[&str], now: &[&str]) -> Vec<String> {
        differing_keys(&config(before), &config(now), |_| true)
    }

    #[test]
    fn every_key_named_here_exists() {
        let config = config(&[]);
        for key in HARMLESS.iter().chain(&STEP_OF_SFT) {
            let (section, name) = key.split_once('.').unwrap();
            assert!(config[section].get(name).is_some(), "{key}");
        }
    }

    #[test]
    fn keys_of_speed_and_memory_may_change() {
        let changes = [
            "run.device=cpu",
            "run.threads=3",
            "model.gradient_checkpointing=true",
            "model.vision_cache_mib=0",
            "generate.batch_size=2",
            "rollout.workers=7",
            "sft.checkpoint_every=3",
            "ppo.checkpoint_every=3",
            "ppo.micro_batch_size=1",
            "sft.batch_size=1",
            "sft.gradient_accumulation=32",
        ];
        assert_eq!(differing(&[], &changes), [""; 0]);
    }

    #[test]
    fn keys_that_change_the_result_may_not() {
        for change in ["sft.batch_size=2", "sft.gradient_accumulation=2", "ppo.minibatch_size=8", "run.seed=1"] {
            let found = differing(&[], &[change]);
            let (key, value) = change.split_once('=').unwrap();
            assert!(
                found.len() == 1 && found[0].starts_with(key) && found[0].ends_with(&format!("{value} now")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_reward_may_change_until_reinforcement_learning_begins() {
        let directory = tempfile::tempdir().unwrap();
        let config = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            Config::load(None, &overrides).unwrap()
        };
        let before = config(&["model.dtype=f32"]).to_toml().unwrap();
        std::fs::write(directory.path().join("config.toml"), before).unwrap();
        let other = || config(&["model.dtype=f32", "reward.syntax_bonus=0.3"]);
        assert_eq!(continued(other(), directory.path(), Device::Cpu).unwrap(), other());
        std::fs::create_dir(directory.path().join("ppo")).unwrap();
        let error = continued(other(), directory.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("reward.syntax_bonus"), "{error}");
    }

    #[test]
    fn a_run_on_another_device_keeps_the_dtype_that_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let config = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            Config::load(None, &overrides).unwrap()
        };
        for dtype in ["bf16", "f32"] {
            let before = config(&[&format!("model.dtype={dtype}"), "run.device=cuda"]);
            std::fs::write(directory.path().join("config.toml"), before.to_toml().unwrap()).unwrap();
            let now = continued(config(&["run.device=cpu"]), directory.path(), Device::Cpu).unwrap();
            assert_eq!(now.model.dtype, before.model.dtype);
        }
        let error = continued(config(&["model.dtype=bf16"]), directory.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("model.dtype = \"f32\" there, \"bf16\" now"), "{error}");
    }

    #[test]
    fn micro_batches_of_a_done_sft_may_change_for_more_sft() {
        let before = Sft { batch_size: 8, gradient_accumulation: 2, ..Sft::default() };
        let smaller = Sft { batch_size: 4, gradient_accumulation: 4, learning_rate: 1.0, ..Sft::default() };
        assert_eq!(done_sft(&before, &smaller), Sft { batch_size: 4, gradient_accumulation: 4, ..before.clone() });
        let other = Sft { batch_size: 4, gradient_accumulation: 8, ..Sft::default() };
        assert_eq!(done_sft(&before, &other), before);
    }
}
