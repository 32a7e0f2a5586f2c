//! Configurations, prompts, priors, predictions and logs.

use std::path::Path;

use cadwright::agent::prior::Prior;
use cadwright::config::Config;
use cadwright::eval::compare::Comparison;
use cadwright::model::{Prompt, Strategy};
use cadwright::telemetry::Telemetry;
use serde_json::{Value, json};

use super::{check_message, with_bad_file};
use crate::harness::{bytes, repository};

#[test]
fn a_damaged_configuration_is_refused_or_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.toml");
    let config = |name: &str| bytes(repository().join("configs").join(name));
    let samples = vec![config("smoke.toml"), config("quickstart.toml"), config("internvl3-1b.toml")];
    with_bad_file("configuration", 300, samples, directory.path(), "run.toml", || {
        match Config::load(Some(&path), &[]) {
            Ok(config) => assert!(config.to_toml().unwrap().contains("[ppo]")),
            Err(error) => check_message("", &error),
        }
    });
}

#[test]
fn a_damaged_override_is_refused() {
    let samples = ["ppo.steps=50", "run.device=cpu", "eval.frames=[\"canonical\"]", "ppo.betas=[0.9, 0.99]"];
    let samples = samples.map(|text| text.as_bytes().to_vec()).to_vec();
    crate::damage::read_bad_files("overrides", 300, samples, |bytes| {
        let _ = Config::load(None, &[String::from_utf8_lossy(bytes).into_owned()]);
    });
}

#[test]
fn a_damaged_strategy_is_refused_or_makes_a_prompt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strategy.toml");
    let sample = |name: &str| bytes(repository().join("configs/prompts").join(name));
    let samples = vec![sample("examples.toml"), sample("plain.toml"), sample("planned.toml")];
    with_bad_file("strategy", 500, samples, directory.path(), "strategy.toml", || {
        if let Err(error) = Strategy::named(path.to_str().unwrap()) {
            check_message("strategy.toml", &error);
        }
    });
}

/// Examples are shown as pictures, of which each costs hundreds of tokens.
#[test]
fn a_strategy_with_too_many_examples_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("strategy.toml");
    let examples = String::from_utf8(bytes(repository().join("configs/prompts/examples.toml"))).unwrap();
    let many: String =
        examples
            .lines()
            .map(|line| {
                if line.starts_with("examples") { "examples = 9000000000000\n".to_owned() } else { format!("{line}\n") }
            })
            .collect();
    std::fs::write(&path, many).unwrap();
    check_message("examples = 9000000000000", &Strategy::named(path.to_str().unwrap()).unwrap_err());
}

#[test]
fn a_damaged_prompt_is_refused_or_can_be_shown() {
    let directory = tempfile::tempdir().unwrap();
    Prompt::new(None, "You write CadQuery.", "Write the program.").unwrap().save(directory.path()).unwrap();
    let sample = bytes(directory.path().join("prompt.json"));
    let old = json!({"system": "You write CadQuery.", "user": "<image>\nWrite it."}).to_string();
    with_bad_file(
        "prompt",
        1000,
        vec![sample, old.into_bytes()],
        directory.path(),
        "prompt.json",
        || match Prompt::of(directory.path()) {
            Ok(Some(prompt)) if prompt.pictures() < 100 => {
                prompt.text(&vec![3; prompt.pictures()]);
                let _ = (prompt.further_turn("a <b>", Some(2)), prompt.further_turn("", None));
                assert_eq!(prompt.with_examples(["x = 1"]).pictures(), prompt.pictures());
            }
            Ok(prompt) => assert!(prompt.is_some()),
            Err(error) => check_message("", &error),
        },
    );
}

const PLATE: &str = "import cadquery as cq
# a plate
wp_sketch0 = cq.Workplane(cq.Plane(cq.Vector(0.0, 0.25, 0.0), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.0, 1.0)))
loop0=wp_sketch0.moveTo(0.5, 0.0).lineTo(0.5, 0.75).threePointArc((0.25, 1.0), (0.0, 0.75)).lineTo(0.0, 0.0).close()
loop1=wp_sketch0.moveTo(0.25, 0.5).circle(0.125)
solid0=wp_sketch0.add(loop0).add(loop1).extrude(0.125, both=True)
solid=solid0
";

#[test]
fn a_damaged_prior_is_refused_or_judges() {
    let directory = tempfile::tempdir().unwrap();
    let plates: Vec<String> = (1..5).map(|n| PLATE.replace("0.125", &format!("{}", f64::from(n) / 8.0))).collect();
    let prior = Prior::learn(plates.iter().map(String::as_str));
    assert!(!prior.is_empty() && prior.drafts().len() == 4);
    prior.save(directory.path()).unwrap();
    let sample = bytes(directory.path().join("prior.json"));
    with_bad_file("prior", 600, vec![sample], directory.path(), "prior.json", || match Prior::of(directory.path()) {
        Ok(prior) => {
            let prior = prior.expect("there is a file");
            for draft in prior.drafts() {
                assert!(!prior.plausibility(draft).is_nan());
                prior.surprises(draft, 3);
            }
            assert!(!prior.plausibility_of(PLATE).is_nan());
        }
        Err(error) => check_message("prior.json", &error),
    });
}

/// The sum of the counts does not fit in 32 bits.
#[test]
fn large_counts_of_a_prior_are_summed() {
    let directory = tempfile::tempdir().unwrap();
    let counts = json!({"bodies": {"1": u32::MAX, "2": u32::MAX}});
    let prior = json!({"counts": counts, "least": -1.0, "lattice": null, "programs": [PLATE]});
    std::fs::write(directory.path().join("prior.json"), prior.to_string()).unwrap();
    let prior = Prior::of(directory.path()).unwrap().unwrap();
    // Two symbols, each seen in half of the programs, so neither is unusual.
    assert!(prior.plausibility_of(PLATE).abs() < 1e-6);
}

#[test]
fn damaged_predictions_are_refused_or_compared() {
    let row = |id: &str, iou: f64| {
        json!({
            "id": id, "ground_truth_code": "x", "ground_truth_mesh": null, "outcome": "solid", "iou": iou,
            "samples": [{"outcome": "solid", "iou": iou}, {"outcome": "syntax", "iou": 0.0}], "chosen": null,
        })
    };
    let predictions = json!({"sample_0": row("a", 0.5), "sample_1": row("b", 1.0), "sample_2": row("b", 0.25)});
    crate::damage::read_bad_files("predictions", 800, vec![predictions.to_string().into_bytes()], |bytes| {
        let Ok(bad) = serde_json::from_slice::<Value>(bytes) else { return };
        for (a, b) in [(&bad, &predictions), (&predictions, &bad), (&bad, &bad)] {
            if let Ok(comparison) = Comparison::new(a, b, true) {
                comparison.table();
                comparison.to_json();
            }
        }
    });
}

#[test]
fn a_damaged_log_does_not_stop_a_run_that_goes_on() {
    let log = |run: &Path, from: usize| {
        let mut telemetry = Telemetry::open(run, "sft", from, 10).unwrap();
        (from..from + 3).for_each(|step| telemetry.record(step, &[("loss", 0.5)]).unwrap());
    };
    let directory = tempfile::tempdir().unwrap();
    log(directory.path(), 0);
    let sample = bytes(directory.path().join("metrics.jsonl"));
    with_bad_file("log", 60, vec![sample], directory.path(), "metrics.jsonl", || {
        log(directory.path(), 1);
        let text = String::from_utf8_lossy(&bytes(directory.path().join("metrics.jsonl"))).into_owned();
        let last = text.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert_eq!(last.map(|row| row["step"].clone()), Some(json!(3)));
    });
}
