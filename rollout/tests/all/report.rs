//! The statistics of scores, and the files that hold them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cadwright_rewards::{Frame, OutcomeClass};
use cadwright_rollout::jsonl::{ScoreOptions, score};
use cadwright_rollout::{Engine, Report, ReportBuilder, Score, ScoreRequest, Scorer, ScorerConfig, Verdict};
use serde_json::{Value, json};

fn config() -> ScorerConfig {
    let frames = vec![Frame::Canonical, Frame::Normalised];
    ScorerConfig { engine: Engine::Native, jobs: 2, grid: 16, frames, ..ScorerConfig::default() }
}

/// A score with this IoU in both frames; a negative one stands for a failure.
fn scored(iou: f64) -> Score {
    let class = if iou >= 0.0 { OutcomeClass::Solid } else { OutcomeClass::Exception };
    let iou = iou.max(0.0);
    Score {
        iou: BTreeMap::from([(Frame::Canonical, Some(iou)), (Frame::Normalised, Some(iou))]),
        reward: iou,
        ..Score::of(Verdict::Known(class), Engine::Native)
    }
}

fn report(ious: &[f64], samples: usize) -> Report {
    let mut builder = ReportBuilder::new(&config(), samples, &[0.5, 1.0]);
    ious.iter().for_each(|iou| builder.add(&scored(*iou), false));
    builder.finish(2.0)
}

fn value(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn score_and_eval_give_the_same_numbers_for_the_same_scores() {
    let directory = tempfile::tempdir().unwrap();
    let (input, summary) = (directory.path().join("in.jsonl"), directory.path().join("summary.json"));
    let truth = "solid = cq.Workplane().box(1, 1, 1)";
    let predictions: Vec<String> = (0..24)
        .map(|i| match i % 6 {
            5 => "solid = 1".to_owned(),
            _ => format!("solid = cq.Workplane().box(1, 1, {})", 0.25 + 0.05 * f64::from(i)),
        })
        .collect();
    let row = |(id, prediction): (usize, &String)| {
        format!("{}\n", json!({"id": id, "ground_truth": truth, "prediction": prediction}))
    };
    fs::write(&input, predictions.iter().enumerate().map(row).collect::<String>()).unwrap();
    let output = directory.path().join("out.jsonl");
    score(&ScoreOptions { input, output, summary: Some(summary.clone()), extract: false, scorer: config() }).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(&summary).unwrap()).unwrap();

    // As an evaluation does it.
    let scorer = Scorer::new(config()).unwrap();
    let mut batch = scorer.batch();
    for (index, prediction) in predictions.into_iter().enumerate() {
        batch.submit(index, ScoreRequest { prediction, ground_truth: truth.into(), truncated: false });
    }
    let mut builder = ReportBuilder::new(scorer.config(), 1, &[0.5]);
    batch.finish().unwrap().iter().for_each(|score| builder.add(score, false));
    let evaluated = value(builder.finish(0.0).eval_summary());

    let common: Vec<&str> =
        keys(&evaluated).into_iter().filter(|key| !["iou_valid", "seconds"].contains(key)).collect();
    for key in common {
        assert_eq!(written[key], evaluated[key], "{key}");
    }
    assert_eq!(written["iou_valid"]["canonical"]["mean"], evaluated["iou_valid"]);
    assert_eq!(written["iou_all"]["canonical"]["ci95"], evaluated["iou_ci95"]);
    let [low, high] = [0, 1].map(|end| evaluated["iou_ci95"][end].as_f64().unwrap());
    assert!(low < high, "{low} to {high}");
}

#[test]
fn the_files_have_their_documented_keys() {
    let report = report(&[0.5, -1.0, 1.0], 1);
    let (score, eval) = (value(report.score_summary()), value(report.eval_summary()));
    // The keys that each command wrote before both shared one report, and the keys of both.
    for key in ["iou_all", "iou_valid", "engines", "declined", "malformed", "ground_truth_failures", "iou_uncertain"] {
        assert!(!score[key].is_null(), "{key}");
    }
    for key in ["shell_undetermined", "grid", "pairs_per_second"] {
        assert!(score[key].is_number(), "{key}");
    }
    for key in ["iou", "iou_valid", "samples_per_image", "reward", "truncated", "seconds", "n", "vsr", "panics"] {
        assert!(eval[key].is_number(), "{key}");
    }
    assert_eq!((&eval["frame"], &eval["engine"]), (&json!("canonical"), &json!("native")));
    let of_frame = ["iou", "iou_ci95", "iou_valid", "iou_valid_ci95", "quartiles", "quartiles_valid"];
    assert_eq!(keys(&eval["frames"]["normalised"]), of_frame);
    assert_eq!(keys(&score["iou_all"]["canonical"]), ["ci95", "mean"]);
    assert_eq!((&eval["iou"], &eval["iou_valid"], &eval["vsr"]), (&json!(0.5), &json!(0.75), &json!(2.0 / 3.0)));
    assert_eq!((&eval["outcomes"]["exception"], &eval["outcomes"]["timeout"]), (&json!(1), &json!(0)));
    assert_eq!((&eval["at_k"], &score["pairs_per_second"]), (&json!({}), &json!(1.5)));
}

#[test]
fn several_samples_of_a_part_are_one_observation() {
    // Four parts of two samples each, both of which are equal: nothing is gained over one sample.
    let ious = [0.25, 0.75, -1.0, 1.0];
    let (one, two) = (report(&ious, 1), report(&ious.map(|iou| [iou; 2]).concat(), 2));
    assert_eq!((two.n, two.samples_per_image), (4, 2));
    // Quartiles are over predictions, and interpolate between them.
    let means = |report: &Report| -> Vec<_> {
        report.frames.values().map(|f| (f.iou, f.iou_ci95, f.iou_valid, f.iou_valid_ci95)).collect()
    };
    assert_eq!((two.vsr_ci95, two.iou_ci95, means(&two)), (one.vsr_ci95, one.iou_ci95, means(&one)));
    assert_eq!(two.at_k.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((two.at_k[&1].best_iou, two.at_k[&1].best_iou_ci95), (one.iou, one.iou_ci95));
    // Of the samples of the first part one passes, so the chance for one of two is 1.
    let mixed = report(&[0.25, 0.75, 0.0, 0.0], 2);
    let pass = |k: usize| mixed.at_k[&k].pass["0.5"].mean;
    assert_eq!((pass(1), pass(2), mixed.at_k[&2].best_iou), (0.25, 0.5, 0.375));
    assert_eq!(keys(&value(&mixed)["at_k"]["2"]["pass"]), ["0.5", "1"]);
}

#[test]
fn a_report_reads_back_from_both_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("summary.json");
    for report in [report(&[0.5, -1.0, 1.0, 0.125], 2), report(&[], 1)] {
        for text in [value(report.score_summary()), value(report.eval_summary())] {
            fs::write(&path, format!("{text:#}\n")).unwrap();
            assert_eq!(Report::read(&path).unwrap(), report);
        }
    }
}

#[test]
fn a_missing_key_is_an_error_that_names_file_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("summary.json");
    let complete = value(report(&[0.5, 1.0], 1).eval_summary());
    let read = |value: &Value| {
        fs::write(&path, value.to_string()).unwrap();
        Report::read(&path).unwrap_err().to_string()
    };
    let needed = keys(&complete).into_iter().filter(|key| *key != "iou_valid");
    for key in needed {
        let mut value = complete.clone();
        value.as_object_mut().unwrap().remove(key);
        let error = read(&value);
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains(&format!("`{key}`")), "{error}");
    }
    let mut value = complete.clone();
    value["frames"].as_object_mut().unwrap().remove("canonical");
    assert!(read(&value).contains("`canonical` in `frames`"));
    let missing = Report::read(Path::new("/nowhere/summary.json")).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/summary.json: cannot read"), "{missing}");
}
