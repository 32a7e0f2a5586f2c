//! `cadwright eval --select`: what is chosen follows from the samples that are written.

use serde_json::Value;

use super::run::smoke_run;
use crate::harness::{Place, json};

const SAMPLES: usize = 6;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Mean IoU and VSR of the best sample of each whole group of `k` by `score`. A sample with a solid
/// goes before one without, then the higher score, then the higher mean log-probability, then the
/// earlier one.
fn best(parts: &[Vec<Value>], k: usize, score: impl Fn(&Value) -> f64) -> [f64; 2] {
    let logprob = |sample: &Value| number(&sample["logprob"]) / number(&sample["tokens"]);
    let rank = |sample: &Value| (sample["outcome"] == "solid", score(sample), logprob(sample));
    let best = |group: &[Value]| -> Value {
        group.iter().cloned().reduce(|best, sample| if rank(&sample) > rank(&best) { sample } else { best }).unwrap()
    };
    let chosen: Vec<Value> = parts.iter().flat_map(|part| part.chunks_exact(k).map(best)).collect();
    let iou = mean(chosen.iter().map(|sample| number(&sample["iou"])));
    [iou, mean(chosen.iter().map(|sample| f64::from(sample["outcome"] == "solid")))]
}

#[test]
fn one_of_several_samples_is_chosen_in_every_way() {
    let place = Place::new();
    let [model, data] = ["sft/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let mut command = vec!["eval", "--model-path", &model, "--dataset", &data, "--num-samples", "8"];
    let samples = SAMPLES.to_string();
    command.extend(["--samples-per-image", &samples, "--temperature", "0.6", "--summary", "s.json"]);
    command.extend(["--select", "consensus,image,logprob,truth", "--select-at", "1,4"]);
    for setting in ["eval.engine=auto", "eval.grid=32", "generate.max_new_tokens=96"] {
        command.extend(["--set", setting]);
    }
    let finished = place.cadwright(command).succeeds();
    let (rows, summary) = (json(place.path("predictions.json")), json(place.path("s.json")));
    let parts: Vec<Vec<Value>> =
        rows.as_object().unwrap().values().map(|row| row["samples"].as_array().unwrap().clone()).collect();
    assert!(parts.len() == 8 && parts.iter().all(|part| part.len() == SAMPLES), "{rows:#}");

    let table = summary["chosen"]["table"].as_array().expect("a table");
    let in_table = |by: &str, k: usize| -> [f64; 2] {
        let row = table.iter().find(|row| row["by"] == by && row["k"] == k);
        let row = row.unwrap_or_else(|| panic!("no {by} of {k}\n{summary:#}"));
        [number(&row["iou"]["canonical"]["mean"]), number(&row["vsr"]["mean"])]
    };
    #[track_caller]
    fn assert_equal(found: [f64; 2], expected: [f64; 2], what: &str) {
        let is_equal = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
        assert!(is_equal, "{what}: {found:?} is not {expected:?}");
    }
    let logprob = |sample: &Value| number(&sample["logprob"]) / number(&sample["tokens"]);
    for k in [1, 4, SAMPLES] {
        assert_equal(in_table("logprob", k), best(&parts, k, logprob), "logprob");
        assert_equal(in_table("image", k), best(&parts, k, |sample| number(&sample["image_score"])), "image");
        assert_equal(in_table("truth", k), best(&parts, k, |sample| number(&sample["iou"])), "truth");
    }
    // What is written of the consensus is about all samples.
    let consensus = |sample: &Value| number(&sample["consensus"]);
    assert_equal(in_table("consensus", SAMPLES), best(&parts, SAMPLES, consensus), "consensus");
    assert_equal(in_table("consensus", 1), [number(&summary["iou"]), number(&summary["vsr"])], "one sample");
    let [best_iou, _] = in_table("truth", SAMPLES);
    assert!((best_iou - number(&summary["at_k"]["6"]["best_iou"])).abs() < 1e-12, "{summary:#}");
    // Otherwise nothing here could fail.
    assert!(best_iou > number(&summary["iou"]) + 0.01 && number(&summary["vsr"]) < 1.0, "{summary:#}");

    for row in rows.as_object().unwrap().values() {
        let chosen = row["chosen"].as_u64().expect("a position") as usize;
        for field in ["predicted_code", "outcome", "iou"] {
            assert_eq!(row[field], row["samples"][chosen][field], "{row:#}");
        }
        assert_eq!(row["chosen_by"], "consensus");
        for sample in row["samples"].as_array().unwrap().iter().filter(|sample| sample["outcome"] != "solid") {
            assert_eq!((number(&sample["image_score"]), consensus(sample)), (0.0, 0.0), "{sample:#}");
        }
    }
    let of_rows = mean(rows.as_object().unwrap().values().map(|row| number(&row["iou"])));
    assert!((of_rows - in_table("consensus", SAMPLES)[0]).abs() < 1e-12, "{of_rows}\n{summary:#}");
    let cost = table.iter().find(|row| row["k"] == SAMPLES).expect("a row");
    let tokens = mean(parts.iter().map(|part| part.iter().map(|sample| number(&sample["tokens"])).sum()));
    assert!((number(&cost["tokens"]) - tokens).abs() < 1e-9, "{summary:#}");
    assert!((1.0..=SAMPLES as f64).contains(&number(&cost["programs"])), "{summary:#}");
    for text in ["| chosen by | of | IoU (canonical) [95 %]", "| one sample | 1 |", "| truth | 6 |", "Choosing took: "]
    {
        assert!(finished.stdout().contains(text), "{text}\n{finished}");
    }
}

#[test]
fn what_cannot_be_chosen_is_told() {
    let place = Place::new();
    let [model, data] = ["sft/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let command = ["eval", "--model-path", &model, "--dataset", &data];
    let several = ["--samples-per-image", "4", "--temperature", "1", "--select", "truth", "--select-at"];
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--select", "image"], &["eval.select = [\"image\"]", "eval.samples_per_image = 1"]),
        (&["--select-at", "1"], &["eval.select_at = [1]", "eval.select is empty"]),
        (&[&several[..], &["0"]].concat(), &["eval.select_at has 0", "eval.samples_per_image = 4"]),
        (&[&several[..], &["1,8"]].concat(), &["eval.select_at has 8", "eval.samples_per_image = 4"]),
        (&["--select", "beauty"], &["beauty", "`consensus`"]),
    ];
    for (flags, says) in cases {
        place.cadwright([&command[..], flags].concat()).fails_with(says);
    }
}
