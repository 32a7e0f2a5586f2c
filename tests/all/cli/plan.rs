//! `cadwright plan`: what a step costs on many GPUs.

use serde_json::Value;

use crate::harness::{Place, repository};

fn plan(arguments: &[&str]) -> Value {
    let shown = Place::new().cadwright([&["plan", "--json"], arguments].concat()).succeeds();
    serde_json::from_str(&shown.stdout()).expect("JSON on standard output")
}

fn numbers(stage: &Value, key: &str) -> Vec<f64> {
    let steps = stage["steps"].as_array().expect("steps");
    steps.iter().map(|step| step[key].as_f64().unwrap_or_else(|| panic!("{key} in {step:#}"))).collect()
}

#[test]
fn a_plan_says_what_every_number_of_gpus_gains() {
    let plan = plan(&["--preset", "internvl3-8b", "--gpus", "64"]);
    assert_eq!(plan["device"]["name"], "h100");
    for name in ["sft", "rl"] {
        let stage = &plan[name];
        assert_eq!(numbers(stage, "world"), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        let efficiency = numbers(stage, "efficiency");
        assert_eq!(efficiency[0], 1.0);
        assert!(efficiency.windows(2).all(|pair| pair[1] <= pair[0]), "{efficiency:?}");
        let speed_up = numbers(stage, "speed_up");
        assert!(speed_up[6] > speed_up[0], "{speed_up:?}");
        let (whole, sharded) = (numbers(stage, "memory_gib"), numbers(stage, "memory_sharded_gib"));
        assert_eq!(whole[0], sharded[0]);
        assert!(whole.iter().zip(&sharded).skip(1).all(|(whole, sharded)| sharded < whole), "{whole:?} {sharded:?}");
        // The parts of a step are the step.
        for step in stage["steps"].as_array().unwrap() {
            let parts: f64 = step["seconds"].as_object().unwrap().values().map(|part| part.as_f64().unwrap()).sum();
            assert!((parts / step["seconds_total"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{step:#}");
        }
        assert!(!stage["limit"].is_null(), "64 GPUs for so small a step lose nothing?");
    }
}

#[test]
fn the_recipe_and_the_flags_change_the_plan() {
    let config = repository().join("configs/internvl3-8b.toml").display().to_string();
    let recipe = ["--preset", "internvl3-8b", "--config", &config];
    let second = |more: &[&str]| {
        let plan = plan(&[&recipe, more].concat());
        let rl = &plan["rl"]["steps"][0];
        (plan["sft"]["steps"][0]["seconds_total"].as_f64().unwrap(), rl["seconds"]["generate"].as_f64().unwrap())
    };
    let (sft, generate) = second(&[]);
    assert!(second(&["--mfu", "0.2"]).0 > 1.9 * sft);
    assert!(second(&["--set", "sft.gradient_accumulation=32"]).0 > 1.9 * sft);
    assert!(second(&["--longest-tokens", "600"]).1 < generate / 2.0);
    assert!(second(&["--gpu", "a100-80g"]).0 > 2.0 * sft);
    let text = Place::new().cadwright([&["plan"], recipe.as_slice()].concat()).succeeds();
    for word in ["sft: 32 examples a step", "rloo: 256 completions a step", "speed-up", "sharded", "half of a step"] {
        assert!(text.stdout().contains(word), "{word:?} is not in\n{}", text.stdout());
    }
}

#[test]
fn what_a_plan_cannot_use_is_one_line() {
    let place = Place::new();
    let plan = |more: &[&str]| place.cadwright([&["plan"], more].concat());
    let known = ["unknown GPU `b200`", "known are a100-80g, h100, h200, cpu-core"];
    plan(&["--preset", "internvl3-8b", "--gpu", "b200"]).fails_with(&known);
    plan(&["--preset", "internvl4"]).fails_with(&["internvl4"]);
    plan(&["--set", "model.path=who/knows"]).fails_with(&["who/knows", "--preset"]);
    plan(&["--mean-tokens", "5000"]).fails_with(&["5000", "1024", "--longest-tokens"]);
}
