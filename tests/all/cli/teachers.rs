//! Refined programs as teachers, and rewards from pictures alone, in the real loop.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::run::{assert_same_run, tiny_command, tiny_run};
use crate::harness::{Place, bytes, checkpoint, copy_directory, metrics};

fn after_sft(place: &Place, name: &str) -> PathBuf {
    let run = place.path(name);
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    run
}

/// The rows of PPO's steps, all of whose numbers are finite.
#[track_caller]
fn steps(run: &Path) -> Vec<Value> {
    let rows = metrics(run).into_iter().filter(|row| row.get("ppo/reward_mean").is_some()).collect::<Vec<_>>();
    for (key, value) in rows.iter().flat_map(|row| row.as_object().unwrap()).filter(|(key, _)| key.contains('/')) {
        assert!(value.as_f64().is_some_and(f64::is_finite), "{key} is {value}");
    }
    rows
}

#[track_caller]
fn number(row: &Value, name: &str) -> f64 {
    row[format!("ppo/{name}")].as_f64().unwrap_or_else(|| panic!("no {name}: {row:#}"))
}

/// Every solid below an IoU of 0.3 is refined, and what reaches it is imitated.
const REFINED: [&str; 8] = [
    "data.programs_limit=4",
    "ppo.algorithm=rloo",
    "ppo.images_per_step=8",
    "ppo.ce_own_share=1",
    "ppo.ce_own_iou=0.3",
    "ppo.ce_own_source=refined",
    "ppo.refine_from=0",
    "ppo.refine_budget=20",
];

#[test]
fn refined_programs_are_better_cost_what_they_may_and_are_imitated_with_their_weight() {
    let place = Place::new();
    let run = after_sft(&place, "refined");
    let more = ["ppo.refine_programs=3", "ppo.ce_refined_nats=20"];
    let finished = place.cadwright(tiny_command("ppo", "refined", &[&REFINED[..], &more].concat())).succeeds();
    let found = steps(&run);
    assert_eq!(found.len(), 3, "{finished}");
    for step in &found {
        let [programs, evaluations] = ["refined/programs", "refined/evaluations"].map(|name| number(step, name));
        assert!(programs <= 3.0 && evaluations >= programs && evaluations <= 20.0 * programs, "{step:#}");
        assert!(number(step, "refined/score_after") >= number(step, "refined/score_before"), "{step:#}");
        assert!((0.0..=1.0).contains(&number(step, "refined/changed")), "{step:#}");
        assert!(number(step, "refined/labels") <= programs, "{step:#}");
    }
    let labels: f64 = found.iter().map(|step| number(step, "refined/labels")).sum();
    assert!(labels > 0.0, "nothing was improved: {found:#?}");
    assert!(found.iter().any(|step| number(step, "refined/nats") > 0.0), "{found:#?}");
    // The first step imitates the refined programs at once. Without the weight of the changed tokens
    // the loss is lower, and nothing else is different.
    let first = |name: &str, weight: &str| {
        let run = after_sft(&place, name);
        let more = ["ppo.steps=1", "ppo.refine_programs=8", weight];
        place.cadwright(tiny_command("ppo", name, &[&REFINED[..], &more].concat())).succeeds();
        steps(&run).swap_remove(0)
    };
    let (full, none) = (first("full", "ppo.ce_refined_weight=1"), first("none", "ppo.ce_refined_weight=0"));
    for name in ["refined/labels", "refined/score_after", "refined/changed", "own_programs", "iou_mean"] {
        assert_eq!(number(&full, name), number(&none, name), "{name}");
    }
    assert!(number(&full, "refined/labels") > 0.0 && number(&full, "refined/changed") > 0.0, "{full:#}");
    assert!(number(&full, "ce_loss") > number(&none, "ce_loss"), "{full:#}\n{none:#}");
}

#[test]
fn labels_that_the_policy_finds_unlikely_are_refused() {
    let place = Place::new();
    let run = after_sft(&place, "unlikely");
    let more = ["ppo.steps=1", "ppo.ce_refined_nats=1e-6"];
    place.cadwright(tiny_command("ppo", "unlikely", &[&REFINED[..], &more].concat())).succeeds();
    let step = &steps(&run)[0];
    assert!(number(step, "refined/nats") > 1e-6, "there was something to refuse: {step:#}");
    assert_eq!(number(step, "refined/labels"), 0.0, "{step:#}");
}

#[test]
fn refined_labels_survive_a_kill() {
    let place = Place::new();
    let more = ["reward.source=image", "ppo.steps=4"];
    let command = |name: &str| tiny_command("ppo", name, &[&REFINED[..], &more].concat());
    let whole = after_sft(&place, "whole");
    place.cadwright(command("whole")).succeeds();
    assert!(steps(&whole).iter().any(|step| number(step, "refined/labels") > 0.0));
    let killed = after_sft(&place, "killed");
    place.cadwright(command("killed")).kill_when(|| checkpoint(&killed, "ppo").is_some());
    let finished = place.cadwright(command("killed")).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step"), "{finished}");
    assert_same_run(&whole, &killed, &["ppo"], &finished);
}

/// The grid changes every IoU. If anything that trains used one, the policies would differ.
#[test]
fn rewards_from_pictures_are_image_scores_and_no_ious() {
    let place = Place::new();
    let run = |grid: &str| {
        let name = grid.replace('.', "-");
        let run = after_sft(&place, &name);
        let choices = [
            grid,
            "reward.source=image",
            "ppo.algorithm=rloo",
            "ppo.ce_weight=1",
            "ppo.ce_own_share=0.5",
            "ppo.ce_own_iou=0.3",
            "data.programs_limit=8",
            "ppo.learning_rate=1e-3",
            "reward.penalty_syntax=0",
            "reward.penalty_exception=0",
            "reward.penalty_truncated=0",
        ];
        let finished = place.cadwright(tiny_command("ppo", &name, &choices)).succeeds();
        (run, finished)
    };
    let ((coarse, finished), (fine, _)) = (run("rollout.grid=8"), run("rollout.grid=40"));
    for (a, b) in steps(&coarse).iter().zip(&steps(&fine)) {
        for name in ["image_score", "reward_mean", "vsr", "policy_loss", "own_programs"] {
            assert_eq!(number(a, name), number(b, name), "{name}\n{finished}");
        }
        // The bonus of a solid, and its image score in place of the IoU.
        let expected = 0.1 * number(a, "vsr") + number(a, "image_score");
        assert!((number(a, "reward_mean") - expected).abs() < 1e-9, "{a:#}");
        assert_eq!(number(a, "proxy_alarm"), 0.0, "{a:#}");
    }
    assert!(steps(&coarse).iter().any(|step| number(step, "image_score") > 0.05), "{finished}");
    let different =
        |name: &str| steps(&coarse).iter().zip(&steps(&fine)).any(|(a, b)| number(a, name) != number(b, name));
    assert!(different("iou_mean"), "the grids give the same IoUs, which shows nothing\n{finished}");
    for policy in ["best", "last"] {
        let weights = |run: &Path| bytes(run.join("ppo").join(policy).join("model.safetensors"));
        assert!(weights(&coarse) == weights(&fine), "ppo/{policy} depends on the IoU\n{finished}");
    }
    assert!(bytes(coarse.join("ppo/last/model.safetensors")) != bytes(tiny_run().join("sft/best/model.safetensors")));
    let validated = metrics(&coarse).into_iter().filter(|row| row.get("ppo/val_image_score").is_some()).count();
    assert_eq!(validated, 3, "the start, two steps and the end\n{finished}");
}
