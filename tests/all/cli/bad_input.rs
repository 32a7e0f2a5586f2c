//! Bad input gives one clear line that names the cause and says what to do, a non-zero exit code,
//! and loses nothing.

use std::os::unix::fs::PermissionsExt;

use cadwright::train::checkpoint::write_manifest;

use super::run::{smoke_run, tiny, tiny_command};
use crate::harness::{Place, bytes, copy_directory, python, smoke_config, text};

#[test]
fn a_configuration_that_cannot_be_used_is_refused_by_name() {
    let place = Place::new();
    place.write("stepz.toml", "[ppo]\nstepz = 3\n");
    place.write("type.toml", "[ppo]\nsteps = \"many\"\n");
    place.write("broken.toml", "[ppo\nsteps = 3\n");
    let cases: [(&[&str], &[&str]); 28] = [
        (&["--set", "ppo.stepz=3"], &["ppo.stepz", "did you mean `ppo.steps`"]),
        (&["--config", "stepz.toml"], &["stepz.toml", "ppo.stepz", "did you mean `ppo.steps`"]),
        (&["--set", "modell.tune=lora"], &["modell", "did you mean `model`"]),
        (&["--set", "ppo.steps=many"], &["`ppo.steps`", "an integer", "many"]),
        (&["--config", "type.toml"], &["type.toml", "`ppo.steps`", "an integer"]),
        (&["--set", "ppo.steps=-1"], &["steps", "-1"]),
        (&["--set", "model.tune=banana"], &["tune", "banana", "lora", "full"]),
        (&["--config", "nowhere.toml"], &["nowhere.toml", "No such file"]),
        (&["--config", "broken.toml"], &["broken.toml", "line 1"]),
        (&["--set", "ppo.steps"], &["section.key=value"]),
        (
            &["--set", "ppo.minibatch_size=65", "--set", "ppo.images_per_step=2"],
            &["ppo.minibatch_size = 65", "ppo.images_per_step * ppo.samples_per_image = 16"],
        ),
        (&["--set", "ppo.kl_target=0.1", "--set", "ppo.kl_coef=0"], &["ppo.kl_target = 0.1", "ppo.kl_coef = 0"]),
        (&["--set", "data.source=parquet"], &["data.source = \"parquet\"", "data.path"]),
        (&["--set", "sft.max_steps=0", "--set", "sft.epochs=0"], &["sft.epochs = 0", "sft.max_steps = 0"]),
        (&["--set", "eval.grid=5000"], &["eval.grid = 5000", "512"]),
        (&["--set", "ppo.betas=[0.9, 1.0]"], &["ppo.betas", "below 1"]),
        (&["--set", "run.threads=100000000000"], &["run.threads = 100000000000", "at most"]),
        (&["--set", "run.report_parts=1001"], &["run.report_parts = 1001", "at most 1000"]),
        (&["--set", "data.synth.validation=0"], &["data.synth.validation = 0", "at least 1"]),
        (&["--set", "lora.alpha=nan"], &["lora.alpha = NaN", "above 0"]),
        (&["--set", "rollout.engine=quantum"], &["rollout.engine", "quantum", "cadquery"]),
        (&["--set", "rollout.engine=native"], &["rollout.engine = \"native\"", "use auto"]),
        (&["--set", "eval.engine=native"], &["eval.engine = \"native\"", "use auto"]),
        (&["--set", "rollout.frame=shell"], &["rollout.frame = \"shell\"", "canonical"]),
        (&["--set", "eval.frames=[\"sideways\"]"], &["eval.frames = [\"sideways\"]", "canonical", "shell"]),
        (&["--set", "eval.split=dev"], &["eval.split = \"dev\"", "train", "validation", "test"]),
        (&["--set", "run.device=gpu"], &["run.device = \"gpu\"", "auto", "cpu", "cuda:<index>"]),
        (&["--set", "model.preset=tiny"], &["model.preset = \"tiny\"", "nano", "internvl3-1b"]),
    ];
    for (arguments, says) in cases {
        place.cadwright([&["run", "--output-dir", "out"], arguments].concat()).fails_with(says);
        assert!(!place.path("out").exists(), "{arguments:?}: a run directory for nothing");
    }
}

#[test]
fn names_that_mean_nothing_are_refused_with_those_that_do() {
    let place = Place::new();
    place.write("in.jsonl", "");
    let exec = ["exec", "--input", "in.jsonl", "--output", "out.jsonl"];
    let score = ["score", "--input", "in.jsonl", "--output", "out.jsonl"];
    let cases: [(&[&str], &[&str], &[&str]); 5] = [
        (&exec, &["--engine", "quantum"], &["quantum", "cadquery"]),
        (&score, &["--engine", "quantum"], &["quantum", "cadquery"]),
        (&score, &["--frames", "sideways"], &["sideways", "canonical"]),
        (&score, &["--frames", ""], &["frame", "canonical"]),
        (&["model", "init", "--output", "m"], &["--preset", "tiny"], &["tiny", "nano", "internvl3-1b"]),
    ];
    for (command, arguments, says) in cases {
        place.cadwright([command, arguments].concat()).fails_with(says);
        assert!(!place.path("out.jsonl").exists() && !place.path("m").exists(), "{arguments:?}");
    }
}

#[test]
fn an_output_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    place.write("file", "");
    // Below a regular file even root cannot write.
    place
        .cadwright(["run", "--config", &smoke_config(), "--output-dir", "file/run"])
        .fails_with(&["file/run", "run.output_dir"]);
}

#[test]
fn eval_learns_that_it_cannot_write_before_it_works() {
    let place = Place::new();
    place.write("file", "");
    let [model, data] = ["sft/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let arguments = ["eval", "--model-path", &model, "--dataset", &data, "--output-json", "file/p.json"];
    let finished = place.cadwright(arguments).fails_with(&["file/p.json"]);
    assert!(!finished.stderr().contains("eval 4/"), "it evaluated first\n{finished}");
}

/// A copy of the smoke run's data, and the arguments of a run that reads it.
fn run_on_copied_data(place: &Place) -> Vec<String> {
    copy_directory(&smoke_run().join("data"), &place.path("data"));
    tiny_command("sft", "run", &["data.path=data"])
}

#[test]
fn a_truncated_parquet_file_is_named() {
    let place = Place::new();
    let arguments = run_on_copied_data(&place);
    let file = place.path("data/validation-00000-of-00001.parquet");
    let whole = bytes(&file);
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("a copy can be written");
    place.cadwright(arguments).fails_with(&["validation-00000-of-00001.parquet", "damaged or incomplete"]);
}

#[test]
fn a_corrupt_picture_is_skipped_and_counted() {
    let place = Place::new();
    let mut arguments = run_on_copied_data(&place);
    arguments.extend(["--set", "sft.max_steps=1", "--set", "sft.validation_samples=1"].map(str::to_owned));
    let file = place.path("data/train-00000-of-00001.parquet");
    let mut content = bytes(&file);
    // Pictures are stored uncompressed, so the first PNG signature belongs to the first row.
    let start = content.windows(4).position(|window| window == b"\x89PNG").expect("a picture in the file");
    content[start..start + 4].copy_from_slice(b"gone");
    std::fs::write(&file, content).expect("a copy can be written");
    let finished = place.cadwright(arguments).succeeds();
    assert!(finished.stderr().contains("data: 1 rows of the train split are unusable and skipped"), "{finished}");
}

#[test]
fn data_that_is_not_there_is_named() {
    let place = Place::new();
    place.cadwright(tiny_command("sft", "run", &["data.path=nowhere"])).fails_with(&["nowhere"]);
    let model = smoke_run().join("sft/best").display().to_string();
    place.cadwright(["eval", "--model-path", &model, "--dataset", "/nowhere/data"]).fails_with(&["/nowhere/data"]);
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let place = Place::new();
    place.cadwright(["eval", "--model-path", "/nowhere/model"]).fails_with(&["/nowhere/model", "no such directory"]);
    place
        .cadwright(tiny_command("sft", "run", &["model.path=/nowhere"]))
        .fails_with(&["/nowhere", "no such directory"]);
    let model = smoke_run().join("sft/best").display().to_string();
    let adapter = |path: &str| place.cadwright(["eval", "--model-path", &model, "--lora-path", path]);
    adapter("nowhere").fails_with(&["nowhere", "no such directory", "owner/name"]);
    std::fs::create_dir(place.path("empty")).expect("a directory");
    adapter("empty").fails_with(&["empty/adapter_config.json"]);
}

#[test]
fn ppo_without_an_sft_policy_says_what_to_run_first() {
    let place = Place::new();
    place.cadwright(tiny_command("ppo", "run", &[])).fails_with(&["run/sft/best", "cadwright sft"]);
}

#[test]
fn a_checkpoint_of_another_shape_is_refused_tensor_by_tensor() {
    let place = Place::new();
    copy_directory(&smoke_run().join("sft/best"), &place.path("model"));
    let config = place.path("model/config.json");
    let mut json = crate::harness::json(&config);
    json["llm_config"]["intermediate_size"] = 256.into();
    std::fs::write(&config, json.to_string()).expect("a copy can be written");
    let finished = place.cadwright(["eval", "--model-path", "model", "--dataset", "data"]).fails();
    let message = finished.error();
    for text in
        ["error: model: weights do not fit its config.json", "gate_proj.weight expected [256, 192], got [512, 192]"]
    {
        assert!(message.contains(text), "expected {text:?}\n{finished}");
    }
}

#[test]
fn a_checkpoint_cut_short_is_named() {
    let place = Place::new();
    copy_directory(&smoke_run().join("sft/best"), &place.path("model"));
    let file = place.path("model/model.safetensors");
    let whole = bytes(&file);
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("a copy can be written");
    place
        .cadwright(["eval", "--model-path", "model", "--dataset", "data"])
        .fails_with(&["model/model.safetensors", "again"]);
}

#[test]
fn a_run_does_not_go_on_from_a_checkpoint_of_another_shape() {
    let place = Place::new();
    let checkpoint = place.path("run/sft/checkpoint/step-000002");
    std::fs::create_dir_all(&checkpoint).expect("a directory can be made");
    std::fs::write(
        checkpoint.join("state.json"),
        r#"{"step": 2, "best": {"iou": null, "vsr": 0.0, "step": 0}, "seconds": 1.0}"#,
    )
    .expect("a file");
    std::fs::copy(smoke_run().join("model/model.safetensors"), checkpoint.join("policy.safetensors")).expect("a copy");
    write_manifest(&checkpoint).expect("a manifest");
    let lora = ["model.tune=lora", "lora.rank=4"];
    let finished = place.cadwright(tiny_command("sft", "run", &lora)).fails();
    for text in ["sft/checkpoint/step-000002; delete it", "missing: ", "lora_A.weight"] {
        assert!(finished.error().contains(text), "expected {text:?}\n{finished}");
    }
    assert!(checkpoint.join("state.json").exists(), "the checkpoint is gone\n{finished}");
}

#[test]
fn a_missing_cadquery_is_told_before_training() {
    let place = Place::new();
    // Python without site-packages.
    let bare = place.write("python", &format!("#!/bin/sh\nexec {} -S \"$@\"\n", python().display()));
    std::fs::set_permissions(&bare, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    // A program that the native engine hands on to CadQuery.
    place.write("in.jsonl", "{\"id\": 1, \"code\": \"import os\"}\n");
    place.write("out.jsonl", "old\n");
    let exec = ["exec", "--input", "in.jsonl", "--output", "out.jsonl"].map(str::to_owned).to_vec();
    let sft = [vec!["sft".to_owned()], tiny("run")].concat();
    for (python, says) in
        [(bare.as_path(), "cannot import CadQuery"), (std::path::Path::new("/nowhere/python"), "does not exist")]
    {
        for arguments in [&exec, &sft] {
            let name = python.display().to_string();
            let invocation = place.cadwright(arguments.clone()).env("CADWRIGHT_PYTHON", python);
            let finished = invocation.fails_with(&[says, &name, "scripts/setup"]);
            assert!(!finished.stderr().contains("sft 1/"), "it trained first\n{finished}");
        }
        assert_eq!(text(place.path("out.jsonl")), "old\n", "the old output is lost");
    }
}

#[test]
fn a_bad_line_of_jsonl_is_named_and_the_old_output_stays() {
    let place = Place::new();
    let good = r#"{"id": 1, "code": "x = 1", "ground_truth": "x = 1", "prediction": "x = 1"}"#;
    let cases = [
        ("{\"id\": 2, \"code\"", "not JSON"),
        ("[1, 2]", "object"),
        (r#"{"code": "x", "ground_truth": "x", "prediction": "x"}"#, "\"id\""),
        (r#"{"id": 2, "code": 3, "ground_truth": "x", "prediction": 4}"#, "expected text"),
        (r#"{"id": 2, "ground_truth": "x"}"#, "missing"),
    ];
    for (line, says) in cases {
        place.write("in.jsonl", &format!("{good}\n{line}\n"));
        place.write("out.jsonl", "old\n");
        for command in ["exec", "score"] {
            let arguments = [command, "--input", "in.jsonl", "--output", "out.jsonl"];
            let finished = place.cadwright(arguments).fails_with(&["in.jsonl:2", says]);
            assert_eq!(text(place.path("out.jsonl")), "old\n", "{finished}");
        }
    }
    let arguments = ["exec", "--input", "nowhere.jsonl", "--output", "out.jsonl"];
    place.cadwright(arguments).fails_with(&["nowhere.jsonl", "cannot read"]);
    assert_eq!(text(place.path("out.jsonl")), "old\n");
}

#[test]
fn a_picture_that_is_none_is_named() {
    let place = Place::new();
    place.write("part.png", "no picture");
    let model = smoke_run().join("sft/best").display().to_string();
    for (image, says) in [("part.png", "cannot decode"), ("nowhere.png", "cannot read")] {
        let arguments = ["generate", "--model-path", &model, "--image", image];
        place.cadwright(arguments).fails_with(&[image, says]);
    }
}

#[test]
fn completions_longer_than_the_model_takes_are_refused() {
    let place = Place::new();
    let says = ["generate.max_new_tokens = 9000000", "max_position_embeddings = 2048"];
    place.cadwright(tiny_command("sft", "run", &["generate.max_new_tokens=9000000"])).fails_with(&says);
}
