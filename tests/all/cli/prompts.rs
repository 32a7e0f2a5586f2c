//! Prompt strategies: the ablation, `generate`, training with plans, and refusals.

use serde_json::Value;

use super::run::{check_predictions, tiny_command};
use super::smoke_run;
use crate::harness::{Place, json, smoke_config};

/// `eval` of the smoke run's SFT policy on three parts, with its configuration.
fn eval(more: &[&str]) -> Vec<String> {
    let path = |name: &str| smoke_run().join(name).display().to_string();
    let (model, data) = (path("sft/best"), path("data"));
    let fixed = ["eval", "--config", &smoke_config(), "--model-path", &model, "--dataset", &data, "--num-samples", "3"];
    let settings = ["eval.engine=auto", "eval.grid=32"].map(|setting| ["--set", setting]);
    fixed.iter().chain(settings.iter().flatten()).chain(more).map(|text| (*text).to_owned()).collect()
}

#[test]
fn one_command_compares_prompts_and_the_plain_one_is_that_of_training() {
    let place = Place::new();
    let prompts = "plain,reference,plan,examples";
    let finished =
        place.cadwright(eval(&["--prompt", prompts, "--output-json", "out/p.json", "--summary", "s.json"])).succeeds();
    let tokens = |name: &str, key: &str| {
        check_predictions(&place.path("out").join(format!("p-{name}.json")), 3);
        let summary = json(place.path(&format!("s-{name}.json")));
        summary[key].as_f64().unwrap_or_else(|| panic!("{name}: {key} is not in {summary:#}"))
    };
    let prompt = |name| tokens(name, "prompt_tokens");
    let (plain, plan, reference) = (prompt("plain"), prompt("plan"), prompt("reference"));
    assert!(plain < plan && plan < reference, "{plain} {plan} {reference}");
    // Three more pictures, at least.
    assert!(prompt("examples") > 3.0 * plain, "{plain} {}", prompt("examples"));
    for name in prompts.split(',') {
        let (completion, plan) = (tokens(name, "completion_tokens"), tokens(name, "plan_tokens"));
        assert!(completion > 0.0 && plan <= completion, "{name}: {completion} {plan}");
    }
    let stdout = finished.stdout();
    let rows: Vec<&str> = stdout.lines().skip_while(|line| !line.starts_with("prompt ")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(names, ["prompt", "plain", "reference", "plan", "examples"], "{finished}");
    assert!(rows[1].contains(&format!("{plain:.1}")), "{finished}");

    // The files of a single one have the names that were asked for.
    place.cadwright(eval(&["--output-json", "own.json"])).succeeds();
    place.cadwright(eval(&["--prompt", "plain", "--output-json", "one.json"])).succeeds();
    let own = json(place.path("own.json"));
    for same in ["one.json", "out/p-plain.json"] {
        assert_eq!(own, json(place.path(same)), "{same}");
    }
    let total = own["sample_0"]["token_counts"]["prompt"].as_f64();
    assert_eq!(total, Some(plain), "every picture has as many tokens");
}

#[test]
fn generate_takes_a_prompt_and_examples_need_data() {
    let place = Place::new();
    let path = |name: &str| smoke_run().join(name).display().to_string();
    let picture = cadwright_picture(&place);
    let generate = |more: &[&str]| {
        let fixed = ["generate", "--model-path", &path("sft/best"), "--image", &picture].map(str::to_owned);
        let short = ["--set", "generate.max_new_tokens=8"];
        place.cadwright(fixed.into_iter().chain(short.iter().chain(more).map(|text| (*text).to_owned())))
    };
    generate(&["--prompt", "examples", "--dataset", &path("data")]).succeeds();
    generate(&["--prompt", "reference"]).succeeds();
    generate(&["--prompt", "examples"]).fails_with(&["examples", "--dataset"]);
    let few = ["--dataset", &path("data"), "--set", "data.programs_limit=2"];
    generate(&[&["--prompt", "examples"], &few[..]].concat()).fails_with(&["3 examples", "only 2"]);
}

/// The picture of a validation part, as a file.
fn cadwright_picture(place: &Place) -> String {
    use cadwright::data::{DataSource, Dataset, Split};
    let source = DataSource::path(smoke_run().join("data"));
    let dataset = Dataset::open(&source, Split::Validation, Some(1)).unwrap();
    let path = place.path("part.png");
    std::fs::write(&path, &dataset.examples()[0].image).unwrap();
    path.display().to_string()
}

#[test]
fn a_run_can_teach_plans() {
    let place = Place::new();
    let more = ["prompt.strategy=planned", "generate.max_new_tokens=200", "eval.engine=auto", "ppo.steps=1"];
    place.cadwright(tiny_command("run", "tiny", &more)).succeeds();
    let run = place.path("tiny");
    for stage in ["sft", "ppo"] {
        assert_eq!(json(run.join(stage).join("best/prompt.json"))["plan"], true, "{stage}");
        let summary = json(run.join("eval").join(stage).join("summary.json"));
        assert!(summary["plan_tokens"].is_number(), "{summary:#}");
        // A plan is not part of the program.
        let predictions = json(run.join("eval").join(stage).join("predictions.json"));
        for row in predictions.as_object().into_iter().flat_map(|rows| rows.values()) {
            let is_free = |key: &str| row[key].as_str().is_none_or(|text| !text.contains("<think>"));
            assert!(is_free("predicted_code"), "{row:#}");
            assert_eq!(row["plan"] != Value::Null, row["token_counts"]["plan"] != 0, "{row:#}");
        }
    }
}

#[test]
fn what_is_no_strategy_or_cannot_be_trained_is_refused() {
    let place = Place::new();
    place.cadwright(eval(&["--prompt", "plam"])).fails_with(&["plam", "plain, reference, plan"]);
    place.cadwright(eval(&["--prompt", "plan,plan"])).fails_with(&["plan twice"]);
    place.cadwright(eval(&["--set", "prompt.strategy=plam"])).fails_with(&["prompt.strategy", "plam"]);
    let refused = tiny_command("sft", "tiny", &["prompt.strategy=examples"]);
    place.cadwright(refused).fails_with(&["prompt.strategy = \"examples\"", "--prompt"]);
}
