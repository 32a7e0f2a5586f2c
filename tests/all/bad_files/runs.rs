//! The files of a run: checkpoints, the best policy's validation, samples, and what a report reads.

use std::path::Path;

use cadwright::config::Config;
use cadwright::distributed::World;
use cadwright::report::{ReportOptions, report};
use cadwright::train::checkpoint;
use cadwright::train::samples::{self, SamplesLog};
use cadwright::train::validation::Best;
use serde_json::{Value, json};

use super::{check_message, with_bad_file};
use crate::harness::bytes;

/// Saves the checkpoints of the steps 2 and 4.
fn save_checkpoints(directory: &Path) {
    for step in [2, 4] {
        let failure = checkpoint::save(&World::single(), directory, step, 2, &[], &json!({"step": step})).unwrap();
        assert_eq!(failure, None);
    }
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let newest = directory.path().join("step-000004");
    for name in ["manifest.json", "state.json"] {
        save_checkpoints(directory.path());
        let whole = bytes(newest.join(name));
        crate::damage::read_bad_files(&format!("checkpoint-{name}"), 150, vec![whole.clone()], |damaged| {
            let _ = std::fs::remove_dir_all(directory.path());
            save_checkpoints(directory.path());
            std::fs::write(newest.join(name), damaged).unwrap();
            let state = checkpoint::load::<Value>(&World::single(), directory.path(), &mut []).unwrap().unwrap();
            // A manifest may be written in another way and say the same.
            let is_whole = damaged == whole || (name == "manifest.json" && newest.exists());
            assert_eq!(state["step"], if is_whole { 4 } else { 2 });
            assert_eq!(newest.with_extension("broken").exists(), !is_whole);
        });
    }
}

#[test]
fn a_damaged_validation_is_not_believed_or_has_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let sample = json!({"step": 4, "iou": 0.5, "vsr": 1.0, "image_score": null}).to_string().into_bytes();
    let read = |text: &str| serde_json::from_str::<Best>(text).unwrap();
    let before = || read(r#"{"step": 2, "iou": 0.25, "vsr": 1.0}"#);
    std::fs::write(directory.path().join("validation.json"), &sample).unwrap();
    assert_eq!(before().or_stored(directory.path()).step, 4);
    with_bad_file("validation", 1000, vec![sample], directory.path(), "validation.json", || {
        let best = before().or_stored(directory.path());
        assert!(best.iou.is_none_or(f64::is_finite) && best.vsr.is_finite(), "{best:?}");
    });
}

#[test]
fn damaged_samples_are_cut_off_and_the_log_goes_on() {
    let row = |step: usize| {
        let text = json!({
            "step": step, "part": "a", "sample": 0, "outcome": "solid", "iou": 0.5, "reward": 0.7, "advantage": 0.1,
            "logprob_sum": -1.5, "tokens": 4, "truncated": false, "program": "solid = 1",
        });
        serde_json::from_value::<samples::Sample>(text).unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let log = SamplesLog::open(directory.path(), 0, 1).unwrap();
    (0..4).for_each(|step| assert!(log.write(&[row(step), row(step)]).unwrap()));
    let path = directory.path().join("samples.jsonl.gz");
    let whole = bytes(&path);
    with_bad_file("samples", 300, vec![whole], directory.path(), "samples.jsonl.gz", || {
        if let Err(error) = samples::read(&path) {
            check_message("samples.jsonl.gz", &format!("{error:#}"));
        }
        let log = SamplesLog::open(directory.path(), 3, 1).unwrap();
        assert!(log.write(&[row(3)]).unwrap());
        let rows = samples::read(&path).unwrap();
        assert!(rows.len() <= 7 && rows.last().is_some_and(|row| row.step == 3), "{}", rows.len());
    });
}

/// Whatever is damaged in a run, its report says so and shows the rest.
#[test]
fn a_report_of_a_damaged_run_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let settings = ["data.source=parquet", "data.path=nowhere", "run.output_dir=here"].map(str::to_owned);
    let row = |part: usize, outcome: &str, iou: f64| {
        json!({
            "id": format!("part-{part}"), "predicted_code": "solid = 1", "ground_truth_code": "solid = 1",
            "ground_truth_mesh": null, "outcome": outcome, "error": null, "iou": iou, "ious": {"canonical": iou},
            "samples": [], "chosen": null,
        })
    };
    let evaluation = run.join("eval/ppo");
    std::fs::create_dir_all(&evaluation).unwrap();
    let files = [
        (run, "config.toml", Config::load(None, &settings).unwrap().to_toml().unwrap()),
        (run, "run.json", json!({"version": "0.1.0", "stages": {}}).to_string()),
        (
            run,
            "metrics.jsonl",
            (0..5).map(|step| format!("{}\n", json!({"stage": "ppo", "step": step, "reward/mean": 0.5}))).collect(),
        ),
        (
            &evaluation,
            "predictions.json",
            json!({"sample_0": row(0, "solid", 0.5), "sample_1": row(1, "crash", 0.0)}).to_string(),
        ),
        (
            &evaluation,
            "summary.json",
            json!({"frame": "canonical", "samples": 2, "vsr": 0.5, "iou": {"canonical": {"mean": 0.25}}}).to_string(),
        ),
    ];
    for (place, name, text) in &files {
        std::fs::write(place.join(name), text).unwrap();
    }
    let write = || report(&[run.to_owned()], &ReportOptions { parts: 2, solids: false });
    assert!(write().unwrap().contains("part-1"));
    for (place, name, text) in &files {
        let target = format!("report-{name}");
        with_bad_file(&target, 60, vec![text.clone().into_bytes()], place, name, || {
            let page = write().unwrap();
            assert!(page.ends_with("</html>\n") || page.ends_with("</html>"), "{}", page.len());
        });
        std::fs::write(place.join(name), text).unwrap();
    }
}
