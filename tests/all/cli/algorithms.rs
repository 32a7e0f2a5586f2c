//! The options of reinforcement learning, each in the real loop: what is logged, and that a killed
//! run goes on.

use serde_json::Value;

use super::run::{assert_same_run, smoke_run, tiny_command, tiny_run};
use super::toy;
use crate::harness::{Place, bytes, checkpoint, copy_directory, json, metrics, smoke_config};

/// A run directory in which SFT is done.
fn after_sft(place: &Place, name: &str) -> std::path::PathBuf {
    let run = place.path(name);
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    run
}

/// The rows of PPO's steps.
fn steps(run: &std::path::Path) -> Vec<Value> {
    metrics(run).into_iter().filter(|row| row.get("ppo/reward_mean").is_some()).collect()
}

#[test]
fn every_algorithm_trains_and_those_of_groups_need_no_critic() {
    let place = Place::new();
    for (algorithm, more) in [
        ("ppo", ["ppo.epochs=4", "ppo.target_kl=1e-7", "model.dtype=f32"].as_slice()),
        ("rloo", &["ppo.curriculum=signal", "ppo.ce_schedule=guarded"]),
        ("rloo", &["ppo.prefix_baseline=true", "ppo.keep_images=2", "ppo.curriculum=signal"]),
        ("grpo", &["ppo.keep_per_image=1", "ppo.length_penalty=0.5"]),
        ("dr_grpo", &["ppo.reward_normalisation=true", "ppo.advantage_clip=0.5", "reward.iou_power=2"]),
    ] {
        let name = format!("{algorithm}-{}", more[0]);
        let run = after_sft(&place, &name);
        let choice = format!("ppo.algorithm={algorithm}");
        let overrides = [&[choice.as_str(), "ppo.steps=2"], more].concat();
        let finished = place.cadwright(tiny_command("ppo", &name, &overrides)).succeeds();
        let steps = steps(&run);
        assert_eq!(steps.len(), 2, "{finished}");
        for step in &steps {
            let has = |name: &str| step.get(format!("ppo/{name}")).is_some();
            assert_eq!(has("explained_variance"), algorithm == "ppo", "{step:#}");
            assert_eq!(has("value_loss"), algorithm == "ppo", "{step:#}");
            assert_eq!(has("parts_seen"), algorithm == "rloo", "{step:#}");
            assert!(has("approx_kl") && has("updates"), "{step:#}");
        }
        // The first update of a step starts from the policy that sampled. Every later one starts
        // from a policy that has moved.
        let updates = steps[0]["ppo/updates"].as_f64().unwrap();
        if algorithm == "ppo" {
            assert_eq!(updates, 2.0, "the limit is reached by the second of four epochs: {:#}", steps[0]);
        }
        assert!(run.join("ppo/best/model.safetensors").exists());
    }
}

/// At a learning rate that ruins the policy, `best` is the policy that PPO started from, and `last`
/// is the ruined one.
#[test]
fn the_last_policy_is_kept_beside_a_better_one_and_a_held_rate_does_not_fall() {
    let place = Place::new();
    let run = place.path("run");
    for part in ["model", "data", "sft"] {
        copy_directory(&smoke_run().join(part), &run.join(part));
    }
    let config = smoke_config();
    let mut arguments = vec!["ppo", "--config", config.as_str(), "--output-dir", "run"];
    for ruinous in ["ppo.steps=3", "ppo.learning_rate=0.03", "ppo.hold=1.0"] {
        arguments.extend(["--set", ruinous]);
    }
    let finished = place.cadwright(arguments).succeeds();
    let weights = |policy: &str| bytes(run.join(policy).join("model.safetensors"));
    assert!(weights("ppo/best") == weights("sft/best"), "{finished}");
    assert!(weights("ppo/last") != weights("ppo/best"), "{finished}");
    let rates: Vec<f64> = steps(&run).iter().filter_map(|step| step["ppo/lr"].as_f64()).collect();
    assert_eq!(rates, [0.03; 3], "{finished}");
}

#[test]
fn what_the_choices_remember_survives_a_kill() {
    let place = Place::new();
    let choices = [
        "ppo.algorithm=rloo",
        "ppo.curriculum=signal",
        "ppo.ce_schedule=guarded",
        "ppo.reward_normalisation=true",
        "data.programs_limit=8",
        "ppo.ce_own_share=0.5",
        "ppo.ce_own_iou=0.01",
        "ppo.steps=4",
    ];
    let whole = after_sft(&place, "whole");
    place.cadwright(tiny_command("ppo", "whole", &choices)).succeeds();
    let killed = after_sft(&place, "killed");
    place.cadwright(tiny_command("ppo", "killed", &choices)).kill_when(|| checkpoint(&killed, "ppo").is_some());
    let finished = place.cadwright(tiny_command("ppo", "killed", &choices)).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step"), "{finished}");
    assert_same_run(&whole, &killed, &["ppo"], &finished);
}

#[test]
fn without_a_reward_a_step_is_a_step_of_sft() {
    let place = Place::new();
    // The labelled rows are one batch, so that both stages see the same; the reward is 0 whatever
    // is written.
    let same = [
        "data.train_limit=8",
        "model.freeze_vision=true",
        "sft.max_steps=1",
        "sft.batch_size=8",
        "sft.warmup_steps=0",
        "ppo.steps=1",
        "ppo.images_per_step=4",
        "ppo.algorithm=rloo",
        "ppo.ce_weight=1",
        "ppo.ce_schedule=constant",
        "ppo.ce_batch_size=8",
        "ppo.kl_coef=0",
        "ppo.minibatch_size=8",
        "run.allow=[\"scorer\"]",
        "reward.syntax_bonus=0",
        "reward.iou_weight=0",
        "reward.penalty_syntax=0",
        "reward.penalty_exception=0",
        "reward.penalty_truncated=0",
    ];
    let policy = format!("model.path={:?}", tiny_run().join("sft/best").display().to_string());
    let more = [&same[..], &[policy.as_str()]].concat();
    let run = after_sft(&place, "ppo");
    place.cadwright(tiny_command("ppo", "ppo", &more)).succeeds();
    place.cadwright(tiny_command("sft", "sft", &more)).succeeds();
    let ppo = &steps(&run)[0];
    let sft = metrics(&place.path("sft")).into_iter().find(|row| row.get("sft/loss").is_some()).unwrap();
    for (of_ppo, of_sft) in [("ppo/ce_loss", "sft/loss"), ("ppo/grad_norm", "sft/grad_norm")] {
        let (a, b) = (ppo[of_ppo].as_f64().unwrap(), sft[of_sft].as_f64().unwrap());
        assert!((a - b).abs() < 2e-3 * b, "{of_ppo} {a}, {of_sft} {b}");
    }
    assert_eq!(ppo["ppo/policy_loss"].as_f64().map(f64::abs), Some(0.0), "{ppo:#}");
}

#[test]
fn a_minibatch_may_be_cut_into_micro_batches() {
    let place = Place::new();
    // The vision tower learns, too: the gradients of all micro-batches and of the cross-entropy
    // reach it at once.
    let same = ["model.dtype=f32", "ppo.freeze_vision=false", "ppo.steps=1", "ppo.epochs=2", "ppo.kl_coef=0.1"];
    let first = |micro_batch_size: usize| {
        let (name, size) = (format!("cut-{micro_batch_size}"), format!("ppo.micro_batch_size={micro_batch_size}"));
        let run = after_sft(&place, &name);
        place.cadwright(tiny_command("ppo", &name, &[&same[..], &[size.as_str()]].concat())).succeeds();
        steps(&run).swap_remove(0)
    };
    let (whole, cut) = (first(0), first(1));
    for name in ["policy_loss", "kl", "entropy", "ce_loss", "grad_norm", "approx_kl"] {
        let [a, b] = [&whole, &cut].map(|step| step[format!("ppo/{name}")].as_f64().unwrap());
        assert!((a - b).abs() < 1e-4 + 2e-3 * a.abs(), "{name}: {a} whole, {b} in pieces of one");
    }
    assert!(whole["ppo/kl"].as_f64().unwrap() > 0.0, "two epochs have moved the policy: {whole:#}");
}

#[test]
fn kl_is_watched_where_it_is_no_term_of_the_loss() {
    let place = Place::new();
    let run = after_sft(&place, "watched");
    let choices = ["model.dtype=f32", "ppo.kl_coef=0", "ppo.steps=3", "ppo.learning_rate=1e-3"];
    place.cadwright(tiny_command("ppo", "watched", &choices)).succeeds();
    let kl: Vec<f64> = steps(&run).iter().map(|step| step["ppo/kl"].as_f64().unwrap()).collect();
    assert!(kl[0].abs() < 1e-6, "the first step's policy is the reference: {kl:?}");
    assert!(kl[2] > kl[0] + 1e-6, "two steps have moved it: {kl:?}");
}

#[test]
fn shapes_alone_suffice_if_the_policy_imitates_its_own_programs_only() {
    let place = Place::new();
    for (split, rows) in [("train", 8), ("validation", 2)] {
        toy::write(&place.path("data"), split, rows, false);
    }
    let run = after_sft(&place, "own");
    let choices = |own_share: &'static str| {
        let same = ["data.path=data", "ppo.steps=1", "ppo.ce_weight=1", "ppo.ce_own_iou=0", own_share];
        tiny_command("ppo", "own", &same)
    };
    let refusal = ["no training row has a program", "ppo.ce_weight=0", "ppo.ce_own_share=1"];
    place.cadwright(choices("ppo.ce_own_share=0.5")).fails_with(&refusal);
    std::fs::remove_dir_all(run.join("ppo")).unwrap_or_default();
    place.cadwright(choices("ppo.ce_own_share=1")).succeeds();
    assert_eq!(steps(&run).len(), 1);
}

/// The first update ruins the weights, and no later gradient is finite. Such updates change nothing
/// and are counted, and several in a row end the stage, in SFT as in PPO.
#[test]
fn gradients_that_are_not_finite_are_skipped_counted_and_end_the_stage() {
    let place = Place::new();
    let skipped = |run: &std::path::Path, stage: &str| -> Vec<f64> {
        metrics(run).iter().filter_map(|row| row[format!("{stage}/skipped_updates")].as_f64()).collect()
    };
    let sft = ["sft.learning_rate=1e30", "sft.max_steps=20", "sft.validate_every=0", "sft.checkpoint_every=0"];
    let expected = ["8 updates in a row", "sft.learning_rate = 1", "model.dtype"];
    let finished = place.cadwright(tiny_command("sft", "sft", &sft)).fails_with(&expected);
    let post_mortem = json(place.path("sft/post_mortem/sft-step-000001-1.json"));
    assert_eq!(post_mortem["batch"].as_array().map(Vec::len), Some(8), "{post_mortem:#}");
    assert!(post_mortem["numbers"]["grad_norm"].is_string(), "{post_mortem:#}");
    // One update is applied, seven skipped ones are logged, the eighth is the error.
    assert_eq!(skipped(&place.path("sft"), "sft"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "{finished}");

    let run = after_sft(&place, "ppo");
    let ppo = [
        "ppo.algorithm=rloo",
        "ppo.learning_rate=1e30",
        "ppo.steps=20",
        "ppo.validate_every=0",
        "ppo.checkpoint_every=0",
        "ppo.kl_target=0.1",
    ];
    let expected = ["8 updates in a row", "ppo.learning_rate = 1", "model.dtype"];
    let finished = place.cadwright(tiny_command("ppo", "ppo", &ppo)).fails_with(&expected);
    let post_mortem = std::fs::read_dir(run.join("post_mortem")).expect("post-mortems").count();
    assert!(post_mortem >= 8, "{post_mortem}, not one for each skipped update\n{finished}");
    let counts = skipped(&run, "ppo");
    assert!(counts.is_sorted() && counts.last() >= Some(&6.0), "{counts:?}\n{finished}");
    let coefficients: Vec<f64> = steps(&run).iter().filter_map(|row| row["ppo/kl_coef"].as_f64()).collect();
    assert_eq!(coefficients.len(), counts.len(), "the coefficient became NaN: {coefficients:?}\n{finished}");
}
