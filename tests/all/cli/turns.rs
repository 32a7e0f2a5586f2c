//! Episodes of several turns in the real loops: what is logged, and that a killed run goes on.

use std::path::Path;

use serde_json::Value;

use super::run::{assert_same_run, smoke_run, tiny_command, tiny_run};
use crate::harness::{Place, checkpoint, copy_directory, json, metrics};

/// The rows of a stage that have the number `name`, all of whose numbers are finite.
#[track_caller]
fn rows(run: &Path, name: &str) -> Vec<Value> {
    let rows: Vec<Value> = metrics(run).into_iter().filter(|row| row.get(name).is_some()).collect();
    for row in &rows {
        let numbers = row.as_object().unwrap().iter().filter(|(key, _)| key.contains('/'));
        for (key, value) in numbers {
            // A number that is not finite is null in JSON.
            assert!(value.as_f64().is_some_and(f64::is_finite), "{key}: {row:#}");
        }
    }
    rows
}

/// The vision tower is trained, so that the update embeds the renders anew.
#[test]
fn rl_of_two_turns_runs_with_and_without_a_critic_and_goes_on_after_a_kill() {
    let place = Place::new();
    for algorithm in ["ppo", "rloo"] {
        let [whole, killed] = ["whole", "killed"].map(|name| format!("{algorithm}-{name}"));
        let algorithm = format!("ppo.algorithm={algorithm}");
        let choices =
            ["ppo.turns=2", "ppo.freeze_vision=false", "ppo.turn_reward_share=0.25", "ppo.steps=2", &algorithm];
        for name in [&whole, &killed] {
            copy_directory(&tiny_run().join("sft"), &place.path(name).join("sft"));
        }
        place.cadwright(tiny_command("ppo", &whole, &choices)).succeeds();
        let steps = rows(&place.path(&whole), "ppo/reward_mean");
        assert_eq!(steps.len(), 2);
        for step in &steps {
            let number =
                |name: &str| step[format!("ppo/{name}")].as_f64().unwrap_or_else(|| panic!("{name}: {step:#}"));
            assert_eq!(number("turn2_iou"), number("iou_mean"), "{step:#}");
            assert!((number("turn_gain") - (number("turn2_iou") - number("turn1_iou"))).abs() < 1e-12, "{step:#}");
            assert!((0.0..=1.0).contains(&number("turn_changed")), "{step:#}");
            assert!(number("policy_loss").abs() < 10.0 && number("grad_norm") > 0.0, "{step:#}");
            // Before the first update of a step, both turns have the probabilities of the rollout.
            assert!((number("ratio_mean") - 1.0).abs() < 0.05, "{step:#}");
        }
        for validated in rows(&place.path(&whole), "ppo/val_iou") {
            assert_eq!(validated["ppo/val_turn2_iou"], validated["ppo/val_iou"], "{validated:#}");
            assert!(validated["ppo/val_turn1_iou"].is_number(), "{validated:#}");
        }
        if algorithm.ends_with("rloo") {
            let run = place.path(&killed);
            place.cadwright(tiny_command("ppo", &killed, &choices)).kill_when(|| checkpoint(&run, "ppo").is_some());
            let finished = place.cadwright(tiny_command("ppo", &killed, &choices)).succeeds();
            assert!(finished.stderr().contains("ppo: goes on at step"), "{finished}");
            assert_same_run(&place.path(&whole), &place.path(&killed), &["ppo"], &finished);
        }
    }
}

#[test]
fn sft_of_two_turns_corrects_its_own_drafts_and_goes_on_after_a_kill() {
    let place = Place::new();
    let choices = ["sft.turns=2", "eval.turns=2"];
    let run = |name: &str| place.cadwright(tiny_command("sft", name, &choices));
    let finished = run("whole").succeeds();
    assert!(finished.stderr().contains("sft: 20 drafts to correct"), "{finished}");
    assert_eq!(rows(&place.path("whole"), "sft/loss").len(), 6, "{finished}");
    assert_eq!(rows(&place.path("whole"), "sft/val_turn1_iou").len(), 2, "{finished}");
    // The drafts are those of the policy that the stage began with, whatever it has learned since.
    run("killed").kill_when(|| checkpoint(&place.path("killed"), "sft").is_some());
    let finished = run("killed").succeeds();
    assert!(finished.stderr().contains("sft: goes on at step"), "{finished}");
    assert_same_run(&place.path("whole"), &place.path("killed"), &["sft"], &finished);
    // The corrections alone are other examples.
    let only = [&choices[..], &["sft.first_turn=false"]].concat();
    place.cadwright(tiny_command("sft", "only", &only)).succeeds();
    let losses = |name: &str| -> Vec<f64> {
        rows(&place.path(name), "sft/loss").iter().map(|row| row["sft/loss"].as_f64().unwrap()).collect()
    };
    assert_ne!(losses("whole"), losses("only"));
}

#[test]
fn an_evaluation_of_two_turns_has_the_earlier_programs_beside_the_last() {
    let place = Place::new();
    let model = smoke_run().join("sft/best").display().to_string();
    let data = smoke_run().join("data").display().to_string();
    let command = |output: &str, more: &[&str]| {
        let arguments =
            ["eval", "--model-path", &model, "--dataset", &data, "--split", "test", "--output-json", output];
        let settings = ["eval.num_samples=3", "eval.engine=auto", "eval.grid=16", "generate.max_new_tokens=96"];
        let settings = settings.iter().chain(more).flat_map(|text| ["--set", text]);
        arguments.into_iter().chain(settings).map(str::to_owned).collect::<Vec<String>>()
    };
    place.cadwright(command("one.json", &[])).succeeds();
    let finished = place.cadwright(command("two.json", &["eval.turns=2"])).succeeds();
    assert!(finished.stdout().contains("IoU of the turns before"), "{finished}");
    let (one, two) = (json(place.path("one.json")), json(place.path("two.json")));
    for i in 0..3 {
        let [one, two] = [&one, &two].map(|predictions| &predictions[format!("sample_{i}")]);
        // Greedy first turns do not depend on what follows.
        let first = &two["earlier_turns"][0];
        for field in ["predicted_code", "outcome", "iou"] {
            assert_eq!(first[field], one[field], "{two:#}");
        }
        assert_eq!(two["earlier_turns"].as_array().map(Vec::len), Some(1));
        assert!(one.get("earlier_turns").is_none(), "{one:#}");
    }
}
