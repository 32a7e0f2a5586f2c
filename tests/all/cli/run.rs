//! Whole runs with real CadQuery: their files, and that they are repeatable.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cadwright::train::samples;
use serde_json::Value;

use crate::harness::{
    Finished, Place, bytes, copy_directory, fields, json, metrics, repository, rows, smoke_config, text,
};
use crate::telemetry::steps_in_tensorboard;

/// The one run of `configs/smoke.toml`. Tests read it or start from it; none changes it.
pub fn smoke_run() -> &'static Path {
    static RUN: OnceLock<(Place, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let place = Place::shared("smoke");
        place.cadwright(["run", "--config", &smoke_config(), "--output-dir", "run"]).succeeds();
        let path = place.path("run");
        (place, path)
    });
    path
}

/// Arguments of a run that starts from the smoke run's policy on its data, and takes seconds: 6
/// steps of SFT with a checkpoint before the first validation, 3 of PPO.
pub fn tiny(output_dir: &str) -> Vec<String> {
    let smoke = smoke_run();
    let path = |key: &str, part: &str| format!("{key}={:?}", smoke.join(part).display().to_string());
    let mut arguments: Vec<String> =
        ["--config", &smoke_config(), "--output-dir", output_dir].map(str::to_owned).to_vec();
    let overrides = [
        path("model.path", "sft/best").as_str(),
        path("data.path", "data").as_str(),
        "data.source=parquet",
        "data.train_limit=20",
        "rollout.grid=16",
        "sft.max_steps=6",
        "sft.batch_size=8",
        "sft.learning_rate=1e-3",
        "sft.validate_every=3",
        "sft.validation_samples=2",
        "sft.checkpoint_every=2",
        "ppo.steps=3",
        "ppo.validate_every=2",
        "ppo.validation_samples=2",
        "ppo.checkpoint_every=1",
        // Each kind of failure has its own reward, so that a score at the wrong completion shows.
        "reward.penalty_syntax=0.1",
        "reward.penalty_exception=0.2",
        "reward.penalty_truncated=0.3",
        "eval.num_samples=2",
        // For the solids of a report CadQuery would start once more.
        "run.report_parts=0",
    ]
    .map(|text| ["--set".to_owned(), text.to_owned()]);
    arguments.extend(overrides.into_iter().flatten());
    arguments
}

/// `cadwright <command>` on [`tiny`].
pub fn tiny_command(command: &str, output_dir: &str, more: &[&str]) -> Vec<String> {
    let more = more.iter().flat_map(|text| ["--set".to_owned(), (*text).to_owned()]);
    std::iter::once(command.to_owned()).chain(tiny(output_dir)).chain(more).collect()
}

/// An uninterrupted [`tiny`] run with one worker.
pub fn tiny_run() -> &'static Path {
    static RUN: OnceLock<(Place, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let place = Place::shared("tiny");
        place.cadwright(tiny_command("run", "tiny", &["rollout.workers=1"])).succeeds();
        let path = place.path("tiny");
        (place, path)
    });
    path
}

#[test]
fn a_run_directory_holds_what_the_readme_names() {
    let run = smoke_run();
    for name in ["config.toml", "run.json", "metrics.jsonl", "summary.json", "data", "model/tokenizer.json"] {
        assert!(run.join(name).exists(), "{name}");
    }
    for stage in ["sft", "ppo"] {
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            for policy in ["best", "last"] {
                assert!(run.join(stage).join(policy).join(name).exists(), "{stage}/{policy}/{name}");
            }
        }
        assert!(run.join("eval").join(stage).join("predictions.json").exists(), "{stage}");
        assert!(!run.join(stage).join("checkpoint").exists(), "{stage}: a finished stage needs no checkpoint");
    }
    let about = json(run.join("run.json"));
    assert_eq!(about["seed"], 0);
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_summary_has_both_stages_with_intervals_and_seconds() {
    let summary = json(smoke_run().join("summary.json"));
    for stage in ["sft", "ppo"] {
        let report = &summary[stage];
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{stage}: {report:#}"));
        assert_eq!(report["n"], 12);
        let (iou, low, high) = (number(&report["iou"]), number(&report["iou_ci95"][0]), number(&report["iou_ci95"][1]));
        assert!((0.0..=1.0).contains(&number(&report["vsr"])), "{report:#}");
        assert!(0.0 <= low && low <= iou && iou <= high && high <= 1.0, "{report:#}");
    }
    assert_eq!(fields(&summary["seconds"]), ["eval_ppo", "eval_sft", "ppo", "sft", "total"]);
}

#[test]
fn the_smoke_run_learns_to_write_programs_that_build_solids() {
    let summary = json(smoke_run().join("summary.json"));
    assert!(summary["sft"]["vsr"].as_f64() >= Some(0.5), "{summary:#}");
    assert!(summary["sft"]["iou"].as_f64() > Some(0.0), "{summary:#}");
}

#[test]
fn predictions_have_the_documented_shape() {
    for stage in ["sft", "ppo"] {
        check_predictions(&smoke_run().join("eval").join(stage).join("predictions.json"), 12);
    }
}

/// `predictions.json`: `sample_0` to `sample_<n - 1>`, each with the four documented fields at
/// least.
pub fn check_predictions(path: &Path, n: usize) {
    const OUTCOMES: [&str; 8] = ["solid", "syntax", "exception", "no_solid", "empty", "timeout", "memory", "crash"];
    let predictions = json(path);
    let mut names: Vec<String> = (0..n).map(|i| format!("sample_{i}")).collect();
    names.sort_unstable();
    assert_eq!(fields(&predictions), names);
    for name in names {
        let row = &predictions[&name];
        assert!(row["predicted_code"].is_string(), "{row:#}");
        assert!(row["ground_truth_code"].as_str().is_some_and(|code| code.contains("cq.")), "{row:#}");
        assert!(row["outcome"].as_str().is_some_and(|outcome| OUTCOMES.contains(&outcome)), "{row:#}");
        assert!(row["iou"].as_f64().is_some_and(|iou| (0.0..=1.0).contains(&iou)), "{row:#}");
        assert!(row["outcome"] == "solid" || row["iou"] == 0.0, "{row:#}");
    }
}

#[test]
fn a_second_run_trains_nothing() {
    // In a copy, because the smoke run must not change.
    let place = Place::new();
    crate::harness::copy_directory(smoke_run(), &place.path("run"));
    let finished = place.cadwright(["run", "--config", &smoke_config(), "--output-dir", "run"]).succeeds();
    for line in ["sft: done before", "ppo: done before", "eval: sft done before", "eval: ppo done before"] {
        assert!(finished.stderr().contains(line), "expected {line:?}\n{finished}");
    }
    for name in ["metrics.jsonl", "summary.json", "sft/best/model.safetensors", "ppo/best/model.safetensors"] {
        assert!(bytes(smoke_run().join(name)) == bytes(place.path("run").join(name)), "{name} changed\n{finished}");
    }
}

#[test]
fn a_run_directory_is_refused_to_other_values() {
    let run = smoke_run().display().to_string();
    let before = text(smoke_run().join("config.toml"));
    for (key, there, now) in [("ppo.learning_rate", "0.0001", "0.005"), ("data.synth.train", "300", "301")] {
        let set = format!("{key}={now}");
        let arguments = ["run", "--config", &smoke_config(), "--output-dir", &run, "--set", &set];
        let finished = Place::new().cadwright(arguments).fails_with(&[&run, key, there, now]);
        assert_eq!(text(smoke_run().join("config.toml")), before, "{finished}");
    }
}

/// After SFT, keys of PPO may still change; the keys that SFT was done with stay.
#[test]
fn ppo_may_be_configured_after_sft_is_done() {
    let place = Place::new();
    place.cadwright(tiny_command("sft", "run", &["ppo.steps=9"])).succeeds();
    let finished = place.cadwright(tiny_command("ppo", "run", &["ppo.steps=1", "sft.learning_rate=5e-3"])).succeeds();
    assert!(finished.stderr().contains("[sft]"), "{finished}");
    let config: toml::Table = text(place.path("run/config.toml")).parse().expect("TOML");
    assert_eq!(config["ppo"]["steps"].as_integer(), Some(1));
    assert_eq!(config["sft"]["learning_rate"].as_float(), Some(1e-3));
    assert_eq!(json(place.path("run/ppo/result.json"))["steps"], 1);
}

#[test]
fn tensorboard_reads_the_log_with_growing_steps() {
    let steps = steps_in_tensorboard(smoke_run());
    let scalars = [
        "sft/{loss,lr,tokens_per_second,val_loss,val_vsr,val_iou}",
        "ppo/{reward_mean,iou_mean,vsr,kl,clip_fraction,entropy,policy_loss,value_loss,explained_variance}",
        "ppo/{ce_loss,ce_weight,lr,response_length,truncated}",
        "ppo/outcome/{solid,syntax,exception,no_solid,empty,timeout,memory,crash}",
        "ppo/{seconds_generate,seconds_score_wait,seconds_update}",
        "eval/sft/{vsr,iou}",
        "eval/ppo/{vsr,iou}",
    ];
    for (stage, name) in scalars.iter().flat_map(|group| expand(group)) {
        let tag = format!("{stage}/{name}");
        let found = steps.get(&tag).unwrap_or_else(|| panic!("no {tag} among {:?}", steps.keys()));
        let is_growing = found.windows(2).all(|pair| pair[0].as_u64() < pair[1].as_u64());
        assert!(found.len() >= if name.starts_with("val_") { 2 } else { 1 } && is_growing, "{tag}: {found:?}");
    }
    let counts = [("sft/loss", 72), ("ppo/kl", 2), ("ppo/outcome/solid", 2), ("eval/sft/iou", 1), ("eval/ppo/iou", 1)];
    for (tag, expected) in counts {
        assert_eq!(steps[tag].len(), expected, "{tag}: {:?}", steps[tag]);
    }
}

#[test]
fn tensorboard_reads_the_histograms_of_each_step_of_rl() {
    let steps = steps_in_tensorboard(smoke_run());
    for name in ["reward", "iou", "response_length"] {
        let tag = format!("ppo/histogram/{name}");
        assert_eq!(steps.get(&tag), steps.get("ppo/kl"), "{tag} among {:?}", steps.keys());
    }
}

#[test]
fn tensorboard_reads_the_pictures() {
    let steps = steps_in_tensorboard(smoke_run());
    for tag in ["sft/validation/input", "sft/validation/built", "ppo/validation/input", "ppo/validation/built"] {
        assert!(steps.contains_key(tag), "no {tag} among {:?}", steps.keys());
    }
}

/// `"a/{b,c}"` is `[("a", "b"), ("a", "c")]`.
fn expand(group: &str) -> Vec<(String, String)> {
    let (stage, names) = group.split_once("/{").expect("stage/{names}");
    names.trim_end_matches('}').split(',').map(|name| (stage.to_owned(), name.to_owned())).collect()
}

#[test]
fn the_log_has_what_tensorboard_has() {
    let steps = steps_in_tensorboard(smoke_run());
    let rows = rows(smoke_run().join("metrics.jsonl"));
    for tag in steps.keys().filter(|tag| !tag.contains("/validation/") && !tag.contains("/histogram/")) {
        assert!(rows.iter().any(|row| row.get(tag).is_some()), "{tag} is not in metrics.jsonl");
    }
}

#[test]
fn every_metric_is_in_the_glossary() {
    let glossary = text(repository().join("docs/metrics.md"));
    for row in rows(smoke_run().join("metrics.jsonl")) {
        for tag in fields(&row).into_iter().filter(|tag| tag.contains('/')) {
            let name = tag.split_once('/').map_or(tag, |(_, name)| name);
            let is_there = match name.strip_prefix("outcome/") {
                Some(class) => glossary.contains(&format!("`{class}`")),
                None => glossary.contains(&format!("`{name}`")) || glossary.contains(&format!("`{tag}`")),
            };
            assert!(is_there, "{tag} is not in docs/metrics.md");
        }
    }
}

#[test]
fn one_and_four_workers_give_the_same_run() {
    let place = Place::new();
    let finished = place.cadwright(tiny_command("run", "run", &["rollout.workers=4"])).succeeds();
    assert_same_run(tiny_run(), &place.path("run"), &["sft", "ppo"], &finished);
    assert_eq!(metrics(tiny_run()), metrics(&place.path("run")), "{finished}");
}

#[test]
fn another_seed_gives_another_run() {
    let place = Place::new();
    place.cadwright(tiny_command("sft", "run", &["run.seed=1"])).succeeds();
    assert_ne!(metrics(tiny_run())[0], metrics(&place.path("run"))[0]);
}

/// Both runs logged the same, timings aside, and chose the same parameters in each of `stages`.
#[track_caller]
pub fn assert_same_run(expected: &Path, found: &Path, stages: &[&str], finished: &Finished) {
    let of_stages = |run: &Path| -> Vec<Value> {
        let is_of_stages = |row: &Value| row["stage"].as_str().is_some_and(|stage| stages.contains(&stage));
        metrics(run).into_iter().filter(is_of_stages).collect()
    };
    let (expected_rows, found_rows) = (of_stages(expected), of_stages(found));
    for (expected, found) in expected_rows.iter().zip(&found_rows) {
        assert_eq!(expected, found, "\n{finished}");
    }
    assert_eq!(expected_rows.len(), found_rows.len(), "lines in metrics.jsonl\n{finished}");
    if stages.contains(&"ppo") {
        let [expected, found] = [expected, found].map(|run| bytes(run.join(samples::FILE)));
        assert!(expected == found, "{} differs\n{finished}", samples::FILE);
    }
    for stage in stages {
        let [expected, found] = [expected, found].map(|run| bytes(run.join(stage).join("best/model.safetensors")));
        assert!(expected == found, "{stage}/best/model.safetensors differs\n{finished}");
    }
}

#[test]
fn a_run_with_adapters_leaves_them_in_pefts_format_and_eval_takes_them() {
    let place = Place::new();
    let base = smoke_run().join("model").display().to_string();
    let overrides = [
        format!("model.path={base:?}").as_str(),
        "model.tune=lora",
        "model.gradient_checkpointing=true",
        "lora.rank=4",
        "lora.alpha=8",
        "lora.dropout=0.1",
        "sft.max_steps=2",
        "ppo.steps=1",
        "generate.max_new_tokens=24",
    ]
    .map(str::to_owned);
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    place.cadwright(tiny_command("run", "run", &overrides)).succeeds();

    for stage in ["sft", "ppo"] {
        let best = place.path("run").join(stage).join("best");
        let config = json(best.join("adapter_config.json"));
        assert_eq!(
            (&config["peft_type"], &config["r"], &config["lora_dropout"]),
            (&"LORA".into(), &4.into(), &0.1.into())
        );
        assert_eq!(config["base_model_name_or_path"], base.as_str());
        let file = bytes(best.join("adapter_model.safetensors"));
        let adapter = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
        let mut names = adapter.names();
        names.sort_unstable();
        assert_eq!(names.len(), 4 * 7 * 2, "4 layers, 7 targets, A and B");
        assert_eq!(names[0], "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight");
        for name in names {
            let side = usize::from(name.ends_with(".lora_B.weight"));
            assert!(side == 1 || name.ends_with(".lora_A.weight"), "{name}");
            let tensor = adapter.tensor(name).expect("a tensor that is listed");
            assert_eq!(tensor.shape()[side], 4, "{name}: A is [r, in], B is [out, r]");
        }
    }

    let adapter = place.path("run/sft/best").display().to_string();
    let data = smoke_run().join("data").display().to_string();
    let arguments = [
        "eval",
        "--model_path",
        &base,
        "--lora_path",
        &adapter,
        "--dataset",
        &data,
        "--num_samples",
        "4",
        "--batch_size",
        "2",
        "--output_json",
        "p.json",
        "--set",
        "generate.max_new_tokens=24",
    ];
    place.cadwright(arguments).succeeds();
    check_predictions(&place.path("p.json"), 4);
}

/// Dropout's masks are those of the examples and the step, not of the forward pass.
#[test]
fn steps_of_sft_with_dropout_do_not_depend_on_micro_batches() {
    let place = Place::new();
    let base = format!("model.path={:?}", smoke_run().join("model").display().to_string());
    // Eight examples of different lengths are an epoch of one step. In bf16, padding would change
    // the rounding.
    let common = [
        base.as_str(),
        "model.tune=lora",
        "model.dtype=f32",
        "lora.rank=4",
        "lora.alpha=8",
        "lora.dropout=0.3",
        "data.train_limit=8",
        "sft.optimizer=adamw",
        "generate.max_new_tokens=24",
    ];
    let numbers = |output_dir: &str, more: &[&str]| -> Vec<[f64; 2]> {
        place.cadwright(tiny_command("sft", output_dir, &[&common[..], more].concat())).succeeds();
        let of_step = |row: Value| Some([row["sft/loss"].as_f64()?, row["sft/grad_norm"].as_f64()?]);
        metrics(&place.path(output_dir)).into_iter().filter_map(of_step).collect()
    };
    let whole = ["sft.max_steps=4", "sft.learning_rate=1e-2", "sft.batch_size=8", "sft.gradient_accumulation=1"];
    let parts = [whole[0], whole[1], "sft.batch_size=2", "sft.gradient_accumulation=4"];
    let (whole, parts) = (numbers("whole", &whole), numbers("parts", &parts));
    assert_eq!((whole.len(), parts.len()), (4, 4));
    for (step, (whole, parts)) in whole.iter().zip(&parts).enumerate() {
        for (name, whole, parts) in [("loss", whole[0], parts[0]), ("grad_norm", whole[1], parts[1])] {
            let error = (whole - parts).abs() / whole;
            println!("step {step}: {name} {whole} and {parts}, relative error {error:.1e}, tolerance 1e-4");
            assert!(error < 1e-4, "step {step}: {name} is {whole} in one pass and {parts} in four");
        }
    }
    assert!(whole[3][0] < whole[0][0] - 0.01, "too little was learned to say anything: {whole:?}");

    // A policy that does not move sees the same examples in each step, with other masks.
    let still = numbers("still", &["sft.max_steps=2", "sft.learning_rate=1e-12"]);
    let change = (still[0][1] / still[1][1] - 1.0).abs();
    assert!(change > 1e-3, "both steps have the masks of one: {still:?}");
}

#[test]
fn the_flags_of_sft_land_in_the_config() {
    for (dash, output) in [('-', "a"), ('_', "b")] {
        let place = Place::new();
        let flag = |name: &str| format!("--{}", name.replace('-', &dash.to_string()));
        let flags = [
            ("model-name", "nano"),
            ("output-dir", output),
            ("num-epochs", "2"),
            ("batch-size", "3"),
            ("learning-rate", "2e-4"),
            ("lora-rank", "8"),
            ("lora-alpha", "12"),
        ];
        let mut arguments = vec!["sft".to_owned()];
        arguments.extend(flags.iter().flat_map(|(name, value)| [flag(name), (*value).to_owned()]));
        let data = smoke_run().join("data").display().to_string();
        let path = format!("data.path={data:?}");
        for text in [
            "data.source=parquet",
            &path,
            "data.train_limit=3",
            "model.vocab_size=300",
            "sft.gradient_accumulation=1",
            "sft.validation_samples=1",
            "generate.max_new_tokens=8",
        ] {
            arguments.extend(["--set".to_owned(), text.to_owned()]);
        }
        let finished = place.cadwright(arguments).succeeds();
        let config: toml::Table = text(place.path(output).join("config.toml")).parse().expect("TOML");
        assert_eq!(config["model"]["preset"].as_str(), Some("nano"));
        assert_eq!(config["run"]["output_dir"].as_str(), Some(output));
        assert_eq!(config["sft"]["batch_size"].as_integer(), Some(3));
        let floats = [("sft", "epochs", 2.0), ("sft", "learning_rate", 2e-4), ("lora", "alpha", 12.0)];
        for (section, key, expected) in floats {
            assert_eq!(config[section][key].as_float(), Some(expected), "{section}.{key}");
        }
        assert_eq!(config["lora"]["rank"].as_integer(), Some(8));
        let adapter = json(place.path(output).join("sft/best/adapter_config.json"));
        assert_eq!(adapter["r"], 8);
        // 3 rows and 3 a step, so two epochs are two steps.
        assert_eq!(metrics(&place.path(output)).len(), 2, "{finished}");
    }
}

#[test]
fn epochs_and_preset_on_the_command_line_overrule_the_config() {
    let place = Place::new();
    let data = smoke_run().join("data").display().to_string();
    let config = format!(
        "[model]\npath = \"/nowhere\"\nvocab_size = 300\n[data]\nsource = \"parquet\"\npath = {data:?}\ntrain_limit = 2\n\
         [generate]\nmax_new_tokens = 8\n\
         [sft]\nmax_steps = 9\nbatch_size = 2\ngradient_accumulation = 1\nvalidation_samples = 1\n"
    );
    place.write("c.toml", &config);
    let arguments = ["sft", "--config", "c.toml", "--output-dir", "run", "--model-name", "nano", "--num-epochs", "1"];
    let finished = place.cadwright(arguments).succeeds();
    assert_eq!(metrics(&place.path("run")).len(), 1, "{finished}");
}

#[test]
fn more_sft_goes_on_for_as_long_as_ppo_took_and_every_policy_keeps_its_evaluation() {
    let place = Place::new();
    let run = place.path("tiny");
    copy_directory(&tiny_run().join("sft"), &run.join("sft"));
    // The control lasts as long as PPO did.
    let arguments = tiny_command("run", "tiny", &["run.control=true", "ppo.steps=2", "eval.engine=auto"]);
    let finished = place.cadwright(arguments.clone()).succeeds();
    let [ppo, control] = ["ppo", "control"].map(|stage| json(run.join(stage).join("result.json")));
    let seconds = |result: &Value| result["seconds"].as_f64().unwrap();
    assert!(seconds(&control) >= seconds(&ppo), "{control:#} {ppo:#}");
    assert!(control["steps"].as_u64() < Some(1000), "the time ends it: {control:#}");
    assert!(metrics(&run).iter().any(|row| row.get("control/loss").is_some()));
    // The terminal shows the time, which ends the stage, and not the limit of steps.
    let lines = finished.stderr();
    assert!(lines.contains("control step ") && lines.contains(", 100 % of "), "{finished}");
    assert!(!lines.contains("/1000000"), "{finished}");
    let stdout = finished.stdout();
    let table: Vec<&str> = stdout.lines().filter(|line| line.contains('[')).collect();
    let names: Vec<&str> = table.iter().skip(1).map(|line| line[..8].trim_end()).collect();
    assert_eq!(names, ["SFT", "more SFT", "PPO"], "{finished}");
    assert!(stdout.contains("executed by the native engine, and by CadQuery if that declines"), "{finished}");
    let summary = json(run.join("summary.json"));
    let evaluations = ["sft", "ppo", "control"].map(|stage| {
        let steps = json(run.join(stage).join("result.json"))["steps"].clone();
        assert_eq!(summary[stage]["engine"], "auto");
        (stage, steps, ["vsr", "iou"].map(|name| (format!("eval/{stage}/{name}"), summary[stage][name].clone())))
    });
    let check_log = |finished: &Finished| {
        for (stage, steps, numbers) in &evaluations {
            let of_stage = |row: &Value| row["stage"] == format!("eval/{stage}");
            let rows: Vec<Value> = metrics(&run).into_iter().filter(of_stage).collect();
            assert_eq!(rows.len(), 1, "eval/{stage}\n{finished}");
            assert_eq!(&rows[0]["step"], steps, "eval/{stage}\n{finished}");
            for (tag, expected) in numbers {
                assert_eq!(&rows[0][tag], expected, "{tag}\n{finished}");
            }
        }
    };
    check_log(&finished);
    let in_tensorboard = steps_in_tensorboard(&run);
    for (_, steps, numbers) in &evaluations {
        for (tag, _) in numbers {
            assert_eq!(in_tensorboard.get(tag), Some(&vec![steps.clone()]), "{tag}\n{finished}");
        }
    }
    // An evaluation that was killed after its row was written runs again, and replaces only its own
    // row.
    std::fs::remove_file(run.join("eval/ppo/summary.json")).expect("eval/ppo is done");
    let finished = place.cadwright(arguments).succeeds();
    assert!(finished.stderr().contains("eval: ppo  "), "{finished}");
    check_log(&finished);
}
