//! A run that is killed with SIGKILL at any moment goes on when it is started again, and ends with
//! the same results.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use cadwright::failpoint::{NAMES, VARIABLE};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::run::{assert_same_run, smoke_run, tiny_command, tiny_run};
use crate::harness::{Place, checkpoint, copy_directory, metrics, text};

/// Kills `cadwright <stage>` in `<place>/run` once it has a checkpoint, and runs it again to the
/// end.
#[track_caller]
fn kill_and_go_on(place: &Place, stage: &str) {
    let run = place.path("run");
    place.cadwright(tiny_command(stage, "run", &[])).kill_when(|| checkpoint(&run, stage).is_some());
    assert!(
        checkpoint(&run, stage).is_some() && !run.join(stage).join("result.json").exists(),
        "{stage} came to its end too soon"
    );
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
    place.cadwright(tiny_command("sft", "run", &[])).kill_when(|| checkpoint(&run, "sft").is_some());
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
    place.cadwright(tiny_command("ppo", "run", &[])).kill_when(|| checkpoint(&run, "ppo").is_some());
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

/// Every algorithm is killed at three random moments of its run, start and writes included, and ends
/// with the bytes of a run that was not.
#[test]
fn kills_at_random_moments_change_nothing_whatever_the_algorithm() {
    let place = Place::new();
    for (number, algorithm) in ["ppo", "rloo", "grpo", "dr_grpo"].into_iter().enumerate() {
        let choice = format!("ppo.algorithm={algorithm}");
        let run_of = |name: &str| {
            let name = format!("{algorithm}-{name}");
            let run = place.path(&name);
            copy_directory(&tiny_run().join("sft"), &run.join("sft"));
            (run, tiny_command("ppo", &name, &[&choice]))
        };
        let (whole, command) = run_of("whole");
        let started = Instant::now();
        place.cadwright(command).succeeds();
        let duration = started.elapsed();
        let (killed, command) = run_of("killed");
        let mut dice = ChaCha8Rng::seed_from_u64(number as u64);
        let mut kills = 0;
        for _ in 0..3 {
            let (started, moment) = (Instant::now(), duration.mul_f64(dice.random_range(0.2..0.95)));
            let mut child = place.cadwright(command.clone()).start();
            while started.elapsed() < moment && child.try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // It may have ended: a run that goes on has less to do.
            child.kill().expect("a child");
            kills += usize::from(!child.wait().expect("a child").success());
        }
        assert!(kills > 0, "{algorithm}: it was never killed");
        let finished = place.cadwright(command).succeeds();
        assert_same_run(&whole, &killed, &["ppo"], &finished);
        assert_eq!(metrics(&whole), metrics(&killed), "{algorithm}\n{finished}");
    }
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
    // The state after a kill in PPO's first step: SFT is complete, PPO has part of a line and no
    // result.
    std::fs::remove_dir_all(run.join("ppo")).expect("ppo/ is there");
    std::fs::remove_dir_all(run.join("eval/ppo")).expect("eval/ppo is there");
    let log = text(run.join("metrics.jsonl"));
    let whole: String = log.lines().filter(|line| !line.contains("\"ppo\"")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(run.join("metrics.jsonl"), whole + "{\"ppo/ce_loss\":0.4").expect("the log can be written");
    let finished = place.cadwright(tiny_command("run", "run", &[])).succeeds();
    assert_same_run(tiny_run(), &run, &["sft", "ppo"], &finished);
    assert_eq!(metrics(tiny_run()), metrics(&run), "{finished}");
}

/// A run is killed at one place after the other, inside every write of a step, and goes on each
/// time.
#[test]
fn kills_inside_every_write_lose_nothing() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    // The first directory that a start writes is that of the best policy, the second a checkpoint.
    // After the second place the run goes on from step 1, after the last one from step 2.
    let places = ["directory-synced:2", "directory-renamed:2"].into_iter().chain(NAMES);
    for name in places {
        let killed = place.cadwright(tiny_command("ppo", "run", &[])).env(VARIABLE, name).ends();
        assert_eq!(killed.code(), None, "not killed at {name}\n{killed}");
    }
    let finished = place.cadwright(tiny_command("ppo", "run", &[])).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step 2"), "{finished}");
    assert_same_run(tiny_run(), &run, &["ppo"], &finished);
    let ppo = |run: &Path| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(run.join("ppo"))
            .expect("ppo")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    };
    assert_eq!(ppo(&run), ["best", "last", "result.json"], "nothing half written is left\n{finished}");
}

/// The disk is full while the second checkpoint is written: the run goes on, and one that is killed
/// later goes on from the first checkpoint.
#[test]
fn a_full_disk_during_a_save_loses_neither_run_nor_checkpoint() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    // A checkpoint writes the optimisers of policy and value head. The fourth row of the log is that
    // of the third step.
    let faults = "checkpoint-optimizer:3=full,metrics-row:4";
    let killed = place.cadwright(tiny_command("ppo", "run", &[])).env(VARIABLE, faults).ends();
    assert_eq!(killed.code(), None, "{killed}");
    for says in ["warning: ppo: no checkpoint after step 2", "No space left on device", "the one before it stays"] {
        assert!(killed.stderr().contains(says), "{says}\n{killed}");
    }
    let finished = place.cadwright(tiny_command("ppo", "run", &[])).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step 1"), "{finished}");
    assert_same_run(tiny_run(), &run, &["ppo"], &finished);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    // Killed in the third step, after two checkpoints.
    let killed = place.cadwright(tiny_command("ppo", "run", &[])).env(VARIABLE, "metrics-row:4").ends();
    assert_eq!(killed.code(), None, "{killed}");
    let newest = checkpoint(&run, "ppo").expect("a checkpoint").join("policy.optimizer.safetensors");
    let mut bytes = std::fs::read(&newest).expect("a file");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&newest, bytes).expect("a file of ours");
    let finished = place.cadwright(tiny_command("ppo", "run", &[])).succeeds();
    for says in ["step-000002 is damaged: policy.optimizer.safetensors", "ppo: goes on at step 1"] {
        assert!(finished.stderr().contains(says), "{says}\n{finished}");
    }
    assert_same_run(tiny_run(), &run, &["ppo"], &finished);
}

#[test]
fn a_run_directory_in_use_is_refused_and_names_the_process() {
    let place = Place::new();
    let run = place.path("run");
    let long = ["sft.max_steps=200", "sft.validate_every=0"];
    place.cadwright(tiny_command("sft", "run", &long)).kill_when(|| {
        if checkpoint(&run, "sft").is_none() {
            return false;
        }
        let holder = text(run.join("lock"));
        place.cadwright(tiny_command("sft", "run", &long)).fails_with(&["run is in use by", holder.trim()]);
        true
    });
}

/// Starts PPO, waits for its first line in the log, which comes before its first step, and sends
/// SIGTERM.
fn terminated_ppo(place: &Place, more: &[&str]) -> std::process::Child {
    let log = place.path("run/metrics.jsonl");
    let child = place.cadwright(tiny_command("ppo", "run", more)).start();
    while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"ppo\"")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child);
    child
}

fn signal(child: &std::process::Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: sends a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

#[test]
fn sigterm_ends_the_step_saves_and_says_so() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    // Without the signal there would be no checkpoint.
    let child = terminated_ppo(&place, &["ppo.checkpoint_every=0"]);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ppo was interrupted after step 1; its checkpoint is saved"), "{stderr}");
    let finished = place.cadwright(tiny_command("ppo", "run", &[])).succeeds();
    assert!(finished.stderr().contains("ppo: goes on at step 1"), "{finished}");
    assert_same_run(tiny_run(), &run, &["ppo"], &finished);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    // A step of minutes, and no programs for the ceiling before it, which would be as many.
    let mut child = terminated_ppo(&place, &["ppo.samples_per_image=4000", "ppo.ceiling_samples=0"]);
    // A signal within a second of the first counts as the same request, and a busy machine may deliver
    // the first one late.
    let mut stderr = BufReader::new(child.stderr.take().expect("standard error is read")).lines();
    assert!(stderr.by_ref().map_while(Result::ok).any(|line| line.contains("interrupted: ")));
    std::thread::sleep(Duration::from_millis(1200));
    assert!(child.try_wait().expect("a child").is_none(), "the first signal ended it");
    signal(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(128 + libc::SIGTERM));
    assert_eq!(checkpoint(&place.path("run"), "ppo"), None);
}
