//! A run that is killed with SIGKILL at any moment goes on, and ends as if nothing had happened.

use std::path::Path;

use crate::harness::{Place, copy_directory, metrics, text};
use crate::run::{assert_same_run, smoke_run, tiny_command, tiny_run};

/// Kills `cadwright <stage>` in `<place>/run` once it has a checkpoint, and runs it again to the end.
#[track_caller]
fn kill_and_go_on(place: &Place, stage: &str) {
    let run = place.path("run");
    let checkpoint = run.join(stage).join("checkpoint/state.json");
    place.cadwright(tiny_command(stage, "run", &[])).kill_when(|| checkpoint.exists());
    assert!(checkpoint.exists() && !run.join(stage).join("result.json").exists(), "{stage} came to its end too soon");
    let finished = place.cadwright(tiny_command(stage, "run", &[])).succeeds();
    assert!(finished.stderr().contains(&format!("{stage}: goes on at step")), "{finished}");
    assert_same_run(tiny_run(), &run, &[stage], &finished);
}

#[test]
fn sft_goes_on_to_the_same_end() {
    kill_and_go_on(&Place::new(), "sft");
}

#[test]
fn sft_that_ran_out_of_memory_goes_on_with_smaller_batches() {
    let place = Place::new();
    let run = place.path("run");
    let checkpoint = run.join("sft/checkpoint/state.json");
    place.cadwright(tiny_command("sft", "run", &[])).kill_when(|| checkpoint.exists());
    let fewer = tiny_command("sft", "run", &["sft.batch_size=4"]);
    place.cadwright(fewer).fails_with(&["sft.batch_size = 8 there, 4 now"]);
    // The same 8 examples in every optimiser step, half of them at a time.
    let smaller = [
        "sft.batch_size=4",
        "sft.gradient_accumulation=2",
        "sft.checkpoint_every=1",
        "generate.batch_size=2",
        "model.gradient_checkpointing=true",
        "model.vision_cache_mib=0",
        "run.threads=1",
    ];
    let finished = place.cadwright(tiny_command("sft", "run", &smaller)).succeeds();
    assert!(finished.stderr().contains("sft: goes on at step"), "{finished}");
    let losses = |run: &Path| -> Vec<f64> { metrics(run).iter().filter_map(|row| row["sft/loss"].as_f64()).collect() };
    let (expected, found) = (losses(tiny_run()), losses(&run));
    assert_eq!((expected.len(), found.len()), (6, 6), "{finished}");
    for (expected, found) in expected.iter().zip(&found) {
        assert!((expected - found).abs() < 1e-3, "{expected} without, {found} with the smaller batches\n{finished}");
    }
}

#[test]
fn ppo_that_ran_out_of_memory_goes_on_with_smaller_batches() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    let checkpoint = run.join("ppo/checkpoint/state.json");
    place.cadwright(tiny_command("ppo", "run", &[])).kill_when(|| checkpoint.exists());
    place
        .cadwright(tiny_command("ppo", "run", &["ppo.minibatch_size=2"]))
        .fails_with(&["ppo.minibatch_size = 4 there, 2 now"]);
    let smaller = ["ppo.micro_batch_size=1", "ppo.checkpoint_every=2", "generate.batch_size=2", "rollout.workers=1"];
    let finished = place.cadwright(tiny_command("ppo", "run", &smaller)).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step"), "{finished}");
    let steps = metrics(&run).iter().filter(|row| row.get("ppo/reward_mean").is_some()).count();
    assert_eq!(steps, 3, "{finished}");
}

#[test]
fn ppo_goes_on_to_the_same_end() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    kill_and_go_on(&place, "ppo");
}

#[test]
fn a_kill_while_the_data_is_made_leaves_no_half_of_it() {
    let place = Place::new();
    let model = format!("model.path={:?}", smoke_run().join("sft/best").display().to_string());
    let arguments = [
        "sft",
        "--config",
        &crate::harness::smoke_config(),
        "--output-dir",
        "run",
        "--set",
        &model,
        "--set",
        "sft.max_steps=1",
        "--set",
        "sft.validation_samples=1",
    ];
    let has_begun = |directory: &Path| std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    let (aside, data) = (place.path("run/.data.new"), place.path("run/data"));
    place.cadwright(arguments).kill_when(|| has_begun(&aside) || has_begun(&data));
    assert!(!data.exists(), "half of the data has the name of the whole");
    place.cadwright(arguments).succeeds();
    let files = |run: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(run.join("data")).expect("data").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&place.path("run")), files(smoke_run()));
}

#[test]
fn a_log_line_cut_short_is_dropped_and_made_again() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(tiny_run(), &run);
    // As a kill during PPO's first step leaves it: SFT is whole, PPO has a piece of a line and no result.
    std::fs::remove_dir_all(run.join("ppo")).expect("ppo/ is there");
    std::fs::remove_dir_all(run.join("eval/ppo")).expect("eval/ppo is there");
    let log = text(run.join("metrics.jsonl"));
    let whole: String = log.lines().filter(|line| !line.contains("\"ppo\"")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(run.join("metrics.jsonl"), whole + "{\"ppo/ce_loss\":0.4").expect("the log can be written");
    let finished = place.cadwright(tiny_command("run", "run", &[])).succeeds();
    assert_same_run(tiny_run(), &run, &["sft", "ppo"], &finished);
    assert_eq!(metrics(tiny_run()), metrics(&run), "{finished}");
}
