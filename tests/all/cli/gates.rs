//! Gates before the first step: each refuses what it is for, and `--allow` opens it.

use cadwright::model::{InternVlConfig, Weights};
use tch::{Device, Kind};

use super::run::{tiny_command, tiny_run};
use super::toy;
use crate::harness::{Place, checkpoint, copy_directory, metrics};

/// The command with `--allow` for each gate.
fn allowing(mut command: Vec<String>, gates: &[&str]) -> Vec<String> {
    command.extend(gates.iter().flat_map(|gate| ["--allow".to_owned(), (*gate).to_owned()]));
    command
}

#[test]
fn a_healthy_stage_passes_every_gate_once_with_a_line_for_each() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let finished = place.cadwright(tiny_command("ppo", "run", &["ppo.steps=2", "ppo.checkpoint_every=0"])).succeeds();
    for gate in ["truths", "scorer", "prompt", "memory", "disk", "truncation", "picture", "ratio"] {
        let line = format!("gate {gate}: passed: ");
        assert_eq!(finished.stderr().matches(&line).count(), 1, "{line}\n{finished}");
    }
    for row in metrics(&place.path("run")).iter().filter(|row| row.get("ppo/reward_mean").is_some()) {
        for alarm in ["entropy", "kl", "one_program", "length", "failures", "reward_only", "sampler"] {
            assert_eq!(row[format!("ppo/alarm/{alarm}")], 0.0, "{alarm}: {row:#}");
        }
    }
}

#[test]
fn ground_truths_that_give_no_solid_are_refused() {
    let place = Place::new();
    // Every fourth file is a mesh without volume.
    let shape = |row: usize| if row.is_multiple_of(4) { "solid box\nendsolid box\n".into() } else { toy::stl(1) };
    toy::write_shapes(&place.path("data"), "train", 8, true, shape);
    toy::write(&place.path("data"), "validation", 2, true);
    let command = || tiny_command("sft", "run", &["data.path=data", "sft.max_steps=1"]);
    let refused =
        place.cadwright(command()).fails_with(&["truths (8 of 10 ground truths", "train-0", "--allow truths"]);
    assert!(!refused.stderr().contains("sft 1/1"), "it trained\n{refused}");
    let allowed = place.cadwright(allowing(command(), &["truths"])).succeeds();
    assert!(allowed.stderr().contains("gate truths: closed, but allowed: 8 of 10"), "{allowed}");
}

#[test]
fn a_reward_that_tells_nothing_apart_is_refused() {
    let place = Place::new();
    let constant = ["reward.syntax_bonus=0", "reward.iou_weight=0", "sft.max_steps=1"];
    let zero = ["reward.penalty_syntax=0", "reward.penalty_exception=0", "reward.penalty_truncated=0"];
    let command = || tiny_command("sft", "run", &[&constant[..], &zero].concat());
    place.cadwright(command()).fails_with(&["gate scorer", "gets a reward of 0", "--allow scorer"]);
    place.cadwright(allowing(command(), &["scorer"])).succeeds();
}

#[test]
fn more_memory_and_disk_than_there_are_is_refused_at_once() {
    let place = Place::new();
    let greedy = ["sft.batch_size=100000000", "run.keep_last=100000000", "sft.max_steps=1"];
    let says = ["gate memory (", "GiB are estimated", "gate disk (", "GiB are needed", "--allow memory --allow disk"];
    place.cadwright(tiny_command("sft", "run", &greedy)).fails_with(&says);
    place.cadwright(allowing(tiny_command("sft", "run", &greedy), &["memory", "disk"])).succeeds();
}

#[test]
fn a_policy_of_another_prompt_is_refused() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let other = ["prompt.user=Write it.", "ppo.steps=1"];
    place.cadwright(tiny_command("ppo", "run", &other)).fails_with(&["gate prompt (", "Write it.", "--allow prompt"]);
}

#[test]
fn too_many_cut_off_completions_are_refused() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let short = ["generate.max_new_tokens=4", "run.truncation_limit=0.9", "ppo.steps=1"];
    let says = ["gate truncation (8 of 8 completions are cut off", "--allow truncation"];
    let refused = place.cadwright(tiny_command("ppo", "run", &short)).fails_with(&says);
    assert!(!refused.stderr().contains("ppo 1/1"), "it trained\n{refused}");
}

#[test]
fn a_policy_that_does_not_see_the_picture_is_refused() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let blind = place.path("run/sft/best");
    let config = InternVlConfig::read(&blind).expect("a checkpoint");
    let weights = Weights::load(&blind, &config, Kind::Float, Device::Cpu).expect("its weights");
    // The last layer of the projector gives every picture the same embeddings.
    for (_, tensor) in weights.iter().filter(|(name, _)| name.starts_with("mlp1.3.")) {
        let _ = tensor.shallow_clone().zero_();
    }
    weights.save(&blind.join("model.safetensors")).expect("a copy can be written");
    let says = ["gate picture (another part's picture changes log-probabilities by 0", "--allow picture"];
    place.cadwright(tiny_command("ppo", "run", &["ppo.steps=1"])).fails_with(&says);
}

#[test]
fn a_gate_that_does_not_exist_is_named_with_those_that_do() {
    let place = Place::new();
    let finished = place.cadwright(allowing(tiny_command("sft", "run", &[]), &["gravity"])).fails();
    for text in ["gravity", "truths", "scorer", "ratio"] {
        assert!(finished.stderr().contains(text), "{text}\n{finished}");
    }
    place.cadwright(tiny_command("sft", "run", &["run.allow=[\"gravity\"]"])).fails_with(&["run.allow", "gravity"]);
}

/// Nearly greedy, the policy writes one program for all pictures.
#[test]
fn an_alarm_stops_a_run_that_wants_it_and_the_run_goes_on_when_it_is_started_again() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let greedy = ["run.alarms=stop", "ppo.temperature=0.001", "ppo.steps=8", "ppo.learning_rate=1e-9"];
    let run = || place.cadwright(allowing(tiny_command("ppo", "run", &greedy), &["picture"]));
    let stopped = run().fails_with(&["was stopped by an alarm (run.alarms = \"stop\")", "alarm one_program"]);
    assert!(!stopped.stderr().contains("ppo 8/8"), "{stopped}");
    assert!(checkpoint(&place.path("run"), "ppo").is_some(), "{stopped}");
    let finished = run().succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step 5"), "{finished}");
    assert!(place.path("run/ppo/result.json").exists());
}
