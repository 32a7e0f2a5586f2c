//! Runs on several ranks against the same run on one: processes of this machine, connected by Gloo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::run::{smoke_run, tiny_command, tiny_run};
use crate::harness::{Finished, Place, checkpoint, copy_directory, json, metrics, python, repository};
use cadwright::model::files::read_tensors;
use tch::Kind;

/// `launch --processes <ranks>` in front of a command.
fn on_ranks(ranks: usize, command: Vec<String>) -> Vec<String> {
    let launch = ["launch", "--processes", &ranks.to_string()].map(str::to_owned);
    if ranks == 1 { command } else { launch.into_iter().chain(command).collect() }
}

/// Checks that two runs logged the same numbers for `stage`, up to `tolerance` relative to numbers
/// of about 1 or more, and the same counts exactly.
#[track_caller]
fn assert_close(expected: &Path, found: &Path, stage: &str, tolerance: f64, finished: &Finished) {
    let rows = |run: &Path| -> Vec<Value> { metrics(run).into_iter().filter(|row| row["stage"] == stage).collect() };
    let (expected, found) = (rows(expected), rows(found));
    assert_eq!(expected.len(), found.len(), "rows of {stage}\n{finished}");
    assert!(!expected.is_empty(), "no rows of {stage}\n{finished}");
    for (expected, found) in expected.iter().zip(&found) {
        let (expected, found) = (expected.as_object().expect("a row"), found.as_object().expect("a row"));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{finished}");
        for (name, value) in expected {
            let Some(value) = value.as_f64() else { continue };
            let other = found[name].as_f64().expect("a number");
            let error = (value - other).abs() / value.abs().max(1.0);
            assert!(error <= tolerance, "{name}: {value} on one rank, {other} on several\n{expected:#?}\n{finished}");
        }
    }
}

/// Checks that two policies have the same weights up to `tolerance` relative to their norm.
#[track_caller]
fn assert_same_weights(expected: &Path, found: &Path, file: &str, tolerance: f64, finished: &Finished) {
    let [expected, found] = [expected, found].map(|run| read_tensors(&run.join(file)).expect("weights"));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    let (mut difference, mut norm) = (0.0, 0.0);
    for (name, tensor) in &expected {
        let square = |tensor: tch::Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
        difference += square(tensor - &found[name]);
        norm += square(tensor.shallow_clone());
    }
    let error = (difference / norm).sqrt();
    assert!(error <= tolerance, "{file} differs by {error:e}\n{finished}");
}

/// 20 steps of LoRA with dropout on 19 examples: steps of 8, 8 and 3, so that on 4 ranks one has
/// nothing to do in every third step.
const SFT: [&str; 10] = [
    "model.dtype=f32",
    "model.tune=lora",
    "lora.rank=4",
    "lora.alpha=8",
    "lora.dropout=0.2",
    "sft.optimizer=adamw",
    "data.train_limit=19",
    "sft.max_steps=20",
    "sft.validate_every=10",
    "sft.checkpoint_every=5",
];

#[test]
fn sft_on_several_ranks_equals_one_rank() {
    let place = Place::new();
    let command = |name: &str, more: &[&str]| tiny_command("sft", name, &[&SFT[..], more].concat());
    let one = place.cadwright(command("one", &[])).succeeds();
    assert!(one.stderr().contains("19 training parts"), "{one}");
    for (ranks, more) in [(2, ["sft.batch_size=4", "sft.gradient_accumulation=2"].as_slice()), (4, &[])] {
        let name = format!("ranks-{ranks}");
        let finished = place.cadwright(on_ranks(ranks, command(&name, more))).succeeds();
        assert!(finished.stderr().contains(&format!(", {ranks} ranks")), "{finished}");
        assert_close(&place.path("one"), &place.path(&name), "sft", 1e-5, &finished);
        let weights = "sft/last/adapter_model.safetensors";
        assert_same_weights(&place.path("one"), &place.path(&name), weights, 1e-5, &finished);
        assert_eq!(json(place.path(&name).join("run.json"))["ranks"], ranks);
        assert_eq!(finished.stderr().matches("validation: ").count(), 2, "only rank 0 speaks\n{finished}");
    }
}

/// The whole model, vision tower included, by AdamW, whose moments are divided among the ranks.
#[test]
fn full_tuning_with_a_sharded_optimizer_equals_one_rank() {
    let place = Place::new();
    let more =
        ["model.dtype=f32", "sft.optimizer=adamw", "sft.learning_rate=1e-4", "sft.max_steps=4", "data.train_limit=19"];
    let command = |name: &str, more: &[&str]| tiny_command("sft", name, more);
    place.cadwright(command("one", &more)).succeeds();
    for (name, extra) in
        [("plain", "distributed.shard_optimizer=false"), ("sharded", "distributed.shard_optimizer=true")]
    {
        let finished = place.cadwright(on_ranks(2, command(name, &[&more[..], &[extra]].concat()))).succeeds();
        assert_close(&place.path("one"), &place.path(name), "sft", 1e-4, &finished);
        assert_same_weights(&place.path("one"), &place.path(name), "sft/last/model.safetensors", 1e-5, &finished);
    }
}

/// 5 pictures of 3 completions: neither divides by 2 or 4.
#[test]
fn rl_on_several_ranks_equals_one_rank() {
    let place = Place::new();
    let common = [
        "model.dtype=f32",
        "ppo.steps=3",
        "ppo.images_per_step=5",
        "ppo.samples_per_image=3",
        "ppo.minibatch_size=7",
        "ppo.learning_rate=1e-5",
        "ppo.optimizer=adamw",
        "ppo.validation_samples=3",
        "data.programs_limit=12",
        "ppo.ce_own_share=0.5",
        "ppo.ce_own_iou=0.0",
    ];
    // Of 15 completions, the last minibatch of 7 has one: on 4 ranks, the last has neither that nor
    // a program of the cross-entropy.
    let ppo = ["ppo.algorithm=ppo", "ppo.epochs=2", "ppo.freeze_vision=false", "ppo.ce_batch_size=2"];
    let rloo = [
        "ppo.algorithm=rloo",
        "ppo.curriculum=signal",
        "ppo.keep_images=3",
        "ppo.target_kl=0.5",
        "ppo.ce_own_iou=0.3",
        "ppo.ce_own_source=refined",
        "ppo.refine_from=0",
        "ppo.refine_budget=10",
        "ppo.ce_refined_nats=9",
    ];
    for (algorithm, options, all_ranks) in [("ppo", ppo.as_slice(), [2, 4].as_slice()), ("rloo", rloo.as_slice(), &[2])]
    {
        let run = |ranks: usize| -> (PathBuf, Finished) {
            let name = format!("{algorithm}-{ranks}");
            copy_directory(&tiny_run().join("sft"), &place.path(&name).join("sft"));
            let command = tiny_command("ppo", &name, &[&common[..], options].concat());
            (place.path(&name), place.cadwright(on_ranks(ranks, command)).succeeds())
        };
        let (one, finished) = run(1);
        let rows = metrics(&one);
        let sampled: Vec<&Value> = rows.iter().filter(|row| row.get("ppo/vsr").is_some()).collect();
        assert_eq!(sampled.len(), 3, "{finished}");
        assert!(sampled.iter().any(|row| row["ppo/vsr"].as_f64() > Some(0.0)), "no completion is a solid\n{finished}");
        for &ranks in all_ranks {
            let (several, finished) = run(ranks);
            assert_close(&one, &several, "ppo", 1e-5, &finished);
            for row in metrics(&several).iter().zip(&rows).filter(|(row, _)| row.get("ppo/vsr").is_some()) {
                for name in ["reward_mean", "iou_mean", "vsr", "response_length", "truncated", "updates"] {
                    let name = format!("ppo/{name}");
                    assert_eq!(row.0[&name], row.1[&name], "{name}\n{finished}");
                }
            }
            assert_same_weights(&one, &several, "ppo/last/model.safetensors", 1e-5, &finished);
        }
    }
}

/// 7 parts with 3 programs each, of which one is chosen.
#[test]
fn an_evaluation_on_two_ranks_is_that_on_one() {
    let place = Place::new();
    let [model, data] = ["sft/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let evaluate = |ranks: usize| -> (Value, Vec<f64>, Value) {
        let output = format!("{ranks}.json");
        let mut command = vec!["eval", "--model-path", &model, "--dataset", &data, "--num-samples", "7"];
        command.extend(["--samples-per-image", "3", "--temperature", "0.6", "--output-json", &output]);
        let summary = format!("{ranks}-summary.json");
        command.extend(["--select", "consensus,image,logprob", "--select-at", "2", "--summary", &summary]);
        for setting in ["eval.engine=auto", "eval.grid=32", "model.dtype=f32", "generate.max_new_tokens=96"] {
            command.extend(["--set", setting]);
        }
        let command = command.into_iter().map(str::to_owned).collect();
        let finished = place.cadwright(on_ranks(ranks, command)).succeeds();
        assert_eq!(finished.stdout().matches("7 parts: VSR").count(), 1, "{finished}");
        let mut rows = json(place.path(&output));
        let parts = rows.as_object_mut().unwrap().values_mut();
        let samples = parts.flat_map(|row| row["samples"].as_array_mut().unwrap());
        // The rounding of log-probabilities depends on how many completions are in a batch.
        let logprobs: Vec<f64> = samples.map(|sample| sample["logprob"].take().as_f64().unwrap()).collect();
        (rows, logprobs, json(place.path(&summary))["chosen"]["table"].take())
    };
    let (one, two) = (evaluate(1), evaluate(2));
    assert_eq!(one.0.as_object().map(serde_json::Map::len), Some(7));
    assert_eq!((&one.0, &one.2), (&two.0, &two.2));
    assert!(one.2.as_array().is_some_and(|rows| rows.len() == 6), "{:#}", one.2);
    assert!(one.1.len() == 21 && one.1.iter().zip(&two.1).all(|(a, b)| (a - b).abs() < 1e-3), "{one:?}\n{two:?}");
}

/// One of two ranks is killed. The other ends with one line, nothing is half-written, and the run
/// goes on from its checkpoint on 1 and on 4 ranks, to the end that it would have had.
#[test]
fn a_killed_rank_ends_the_others_and_the_run_goes_on_with_any_number_of_ranks() {
    let place = Place::new();
    let command = |name: &str, more: &[&str]| tiny_command("sft", name, &[&SFT[..], more].concat());
    place.cadwright(command("one", &[])).succeeds();
    let killed = place.path("killed");
    let sharded = command("killed", &["distributed.shard_optimizer=true"]);
    let launcher = place.cadwright(on_ranks(2, sharded)).start();
    wait_until("a checkpoint", || checkpoint(&killed, "sft").is_some());
    let victim = rank_of(launcher.id(), 1);
    assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().is_ok_and(|status| status.success()));
    let since = Instant::now();
    let output = launcher.wait_with_output().expect("the launcher ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}\n{stderr}", since.elapsed());
    assert_eq!(output.status.code(), Some(128 + 9), "{stderr}");
    assert_eq!(stderr.matches("error: rank 0 of 2: ").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    assert!(stderr.contains(" failed after ") && stderr.contains(" by peer"), "{stderr}");
    assert!(stderr.contains("launch: rank 1 was killed by signal 9"), "{stderr}");
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    };
    let leftover = |path: &Path| names(path).into_iter().find(|name| name.ends_with(".new") || name.ends_with(".old"));
    assert_eq!((leftover(&killed), leftover(&killed.join("sft"))), (None, None));
    for ranks in [1, 4] {
        let name = format!("goes-on-{ranks}");
        copy_directory(&killed, &place.path(&name));
        let finished = place.cadwright(on_ranks(ranks, command(&name, &[]))).succeeds();
        assert!(finished.stderr().contains("sft: goes on at step"), "{finished}");
        assert_close(&place.path("one"), &place.path(&name), "sft", 1e-5, &finished);
        let weights = "sft/last/adapter_model.safetensors";
        assert_same_weights(&place.path("one"), &place.path(&name), weights, 1e-5, &finished);
    }
}

/// Rank 0 serves the store by which the ranks know of each other.
#[test]
fn if_rank_0_is_killed_or_another_hangs_the_others_end() {
    let place = Place::new();
    for (signal, victim, limit, says) in [("-KILL", 0, 30, " failed after "), ("-STOP", 1, 60, "no sign of life")] {
        let name = format!("run{signal}");
        let more = [&SFT[..], &["sft.max_steps=400", "sft.validate_every=0"]].concat();
        let launcher = place.cadwright(on_ranks(2, tiny_command("sft", &name, &more))).start();
        let metrics = place.path(&name).join("metrics.jsonl");
        wait_until("two steps", || std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 1));
        let [victim, other] = [victim, 1 - victim].map(|rank| rank_of(launcher.id(), rank).to_string());
        let since = Instant::now();
        assert!(Command::new("kill").args([signal, &victim]).status().is_ok_and(|status| status.success()));
        wait_until("end of the other rank", || {
            !Path::new("/proc").join(&other).join("environ").exists() || is_zombie(&other)
        });
        assert!(since.elapsed() < Duration::from_secs(limit), "{signal}: {:?}", since.elapsed());
        // The launcher would give a stopped rank its time of grace.
        let _ = Command::new("kill").args(["-KILL", &victim]).status();
        let output = launcher.wait_with_output().expect("the launcher ends");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.matches("error: rank ").count() == 1 && stderr.contains(says), "{signal}: {stderr}");
    }
}

/// Whether a process has ended and has not been waited for.
fn is_zombie(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}

/// Ctrl-C of one rank ends all after the step, with a checkpoint.
#[test]
fn an_interrupted_rank_stops_all_after_the_step_and_the_run_goes_on() {
    let place = Place::new();
    let more = [&SFT[..], &["sft.checkpoint_every=0", "sft.max_steps=40"]].concat();
    let command = tiny_command("sft", "run", &more);
    let run = place.path("run");
    let launcher = place.cadwright(on_ranks(2, command.clone())).start();
    wait_until("three steps", || {
        std::fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 2)
    });
    let interrupted = rank_of(launcher.id(), 1);
    assert!(
        Command::new("kill").args(["-INT", &interrupted.to_string()]).status().is_ok_and(|status| status.success())
    );
    let output = launcher.wait_with_output().expect("the launcher ends");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("sft was interrupted after step").count(), 1, "{stderr}");
    let step =
        json(checkpoint(&run, "sft").expect("a checkpoint").join("state.json"))["step"].as_u64().expect("a step");
    let finished = place.cadwright(command).succeeds();
    assert!(finished.stderr().contains(&format!("sft: goes on at step {step}")), "{finished}");
}

#[test]
fn scripts_run_starts_the_whole_smoke_run_on_two_ranks() {
    let place = Place::new();
    let data = format!("data.path={:?}", smoke_run().join("data").display().to_string());
    let output = Command::new(repository().join("scripts/run"))
        .args([
            "--processes",
            "2",
            "configs/smoke.toml",
            "sft.max_steps=8",
            "sft.validate_every=4",
            "data.source=parquet",
        ])
        .args([data.as_str(), &format!("run.output_dir={:?}", place.path("run").display().to_string())])
        .current_dir(repository())
        .env("CADWRIGHT_BINARY", env!("CARGO_BIN_EXE_cadwright"))
        .env("CADWRIGHT_PYTHON", python())
        .output()
        .expect("scripts/run starts");
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stdout.matches("IoU over all").count(), 1, "one table\n{stdout}");
    for stage in ["sft", "ppo"] {
        assert_eq!(json(place.path("run").join("eval").join(stage).join("summary.json"))["n"], 12, "{stage}");
    }
}

#[test]
fn contradictory_variables_are_one_line() {
    let place = Place::new();
    let command = || tiny_command("sft", "run", &[]);
    place.cadwright(command()).env("RANK", "0").fails_with(&["WORLD_SIZE is not set", "cadwright launch"]);
    place.cadwright(command()).env("RANK", "2").env("WORLD_SIZE", "2").fails_with(&["RANK = 2", "WORLD_SIZE = 2"]);
}

#[track_caller]
fn wait_until(what: &str, is_there: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_there() {
        assert!(started.elapsed() < Duration::from_secs(300), "still no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The process of a rank of a launcher.
#[track_caller]
fn rank_of(launcher: u32, rank: usize) -> u32 {
    let is_rank = |process: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        let is_child = status.lines().any(|line| line == format!("PPid:\t{launcher}"));
        is_child && read("environ").split(|byte| *byte == 0).any(|text| text == format!("RANK={rank}").as_bytes())
    };
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(is_rank).expect("a process of that rank")
}
