//! Reinforcement learning from a checkpoint or an adapter of one's own.

use super::run::{tiny_command, tiny_run};
use crate::harness::{Place, metrics};

/// `ppo` with further flags.
fn ppo(output_dir: &str, overrides: &[&str], flags: &[&str]) -> Vec<String> {
    let mut command = tiny_command("ppo", output_dir, overrides);
    command.extend(flags.iter().map(|flag| (*flag).to_owned()));
    command
}

#[test]
fn rl_starts_from_any_checkpoint_and_needs_no_sft() {
    let place = Place::new();
    let model = tiny_run().join("sft/best");
    place.cadwright(ppo("own", &[], &["--model-path", model.to_str().unwrap()])).succeeds();
    let run = place.path("own");
    assert!(run.join("ppo/best/model.safetensors").is_file() && !run.join("sft").exists());
    let steps = metrics(&run).into_iter().filter(|row| row.get("ppo/reward_mean").is_some()).count();
    assert_eq!(steps, 3);
}

#[test]
fn rl_goes_on_from_an_adapter() {
    let place = Place::new();
    let model = tiny_run().join("sft/best");
    let model = model.to_str().unwrap();
    let lora = ["model.tune=lora", "lora.rank=2"];
    let of_model = format!("model.path={model}");
    place.cadwright(tiny_command("sft", "adapter", &[&lora[..], &[of_model.as_str()]].concat())).succeeds();
    let adapter = place.path("adapter/sft/best");
    let flags = ["--model-path", model, "--lora-path", adapter.to_str().unwrap()];
    place.cadwright(ppo("goes-on", &lora, &flags)).succeeds();
    assert!(place.path("goes-on/ppo/best/adapter_model.safetensors").is_file());
    // An adapter that would be merged into all weights is no start.
    place.cadwright(ppo("full", &[], &flags)).fails_with(&["ppo.lora_path", "model.tune = \"lora\""]);
}

#[test]
fn a_start_that_does_not_fit_is_refused() {
    let place = Place::new();
    place.cadwright(tiny_command("ppo", "none", &["ppo.start=model", "model.path="])).fails_with(&["needs model.path"]);
    let model = format!("model.path={}", tiny_run().join("sft/best").display());
    let command = tiny_command("run", "whole", &["ppo.start=model", &model]);
    place.cadwright(command).fails_with(&["leaves SFT out", "cadwright ppo"]);
    place.cadwright(tiny_command("ppo", "missing", &[])).fails_with(&["--model-path MODEL"]);
}
