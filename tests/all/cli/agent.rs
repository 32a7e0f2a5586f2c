//! `cadwright agent` and `cadwright eval --agent`, on the smoke run's policy.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use cadwright::data::{DataSource, Selection, Split, open_dataset};
use serde_json::Value;

use super::smoke_run;
use crate::harness::{Place, fields, json, text};

/// A picture of the smoke run's test split, and the program of its part as a file.
fn part(place: &Place) -> [String; 2] {
    let source = DataSource::named(&smoke_run().join("data").display().to_string(), "main");
    let selection = Selection { split: Split::Test, limit: Some(1), hundred_subset_only: false };
    let dataset = open_dataset(&source, selection).unwrap();
    let example = &dataset.examples()[0];
    std::fs::write(place.path("part.png"), &example.image).unwrap();
    place.write("truth.py", example.ground_truth.program().unwrap());
    ["part.png".into(), "truth.py".into()]
}

fn command(stage: &str, image: &str, output: &str, more: &[&str]) -> Vec<String> {
    let model = smoke_run().join(stage).join("best").display().to_string();
    let mut command =
        ["agent", "--model-path", &model, "--image", image, "--output", output].map(String::from).to_vec();
    command.extend(["--set", "generate.max_new_tokens=96"].map(String::from));
    command.extend(more.iter().map(|argument| (*argument).to_owned()));
    command
}

/// The best value of each round's candidates, from the first round on.
fn best(trace: &Value, rounds: impl Fn(u64) -> bool) -> f64 {
    let candidates = trace["candidates"].as_array().unwrap().iter();
    let of_round = candidates.filter(|candidate| rounds(candidate["round"].as_u64().unwrap()));
    of_round.filter_map(|candidate| candidate["value"].as_f64()).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn the_agent_keeps_the_best_of_what_it_wrote_and_refined() {
    let place = Place::new();
    let [image, _] = part(&place);
    let more = ["--rounds", "2", "--samples", "8", "--refine", "60"];
    let run = |output: &str| place.cadwright(command("ppo", &image, output, &more)).succeeds();
    let (first, second) = (run("a"), run("b"));
    let trace = json(place.path("a/trace.json"));
    assert_eq!(fields(&trace), ["best", "candidates", "cost"]);
    let candidates = trace["candidates"].as_array().unwrap();
    let expected = ["error", "logprob", "origin", "outcome", "program", "round", "score", "seconds", "value"];
    assert!(candidates.iter().all(|candidate| fields(candidate) == expected), "{trace:#}");
    assert_eq!(candidates[0]["origin"], "greedy");
    let origins =
        |prefix: &str| candidates.iter().filter(|c| c["origin"].as_str().unwrap().starts_with(prefix)).count();
    assert!(origins("sample") > 0 && origins("reply") > 0 && origins("refine: ") > 0, "{trace:#}");
    assert_eq!(trace["cost"]["refined"], origins("refine: ") + origins("labelled"));
    assert_eq!(trace["cost"]["programs"], candidates.len());
    // A later round can only help.
    let chosen = &candidates[trace["best"].as_u64().unwrap() as usize];
    assert_eq!(chosen["value"].as_f64().unwrap(), best(&trace, |_| true));
    assert!(best(&trace, |_| true) >= best(&trace, |round| round == 0));
    let program = text(place.path("a/program.py"));
    assert_eq!(program.trim_end(), chosen["program"].as_str().unwrap().trim_end());
    assert_eq!(first.stdout().trim_end(), program.trim_end());
    assert!(text(place.path("a/part.step")).starts_with("ISO-10303-21"));
    for (name, least) in [("part.stl", 84), ("strip.png", 100)] {
        assert!(std::fs::metadata(place.path("a").join(name)).unwrap().len() > least, "{name}");
    }
    // The same seed finds the same program.
    assert_eq!(second.stdout(), first.stdout());
}

#[test]
fn the_truth_is_the_upper_bound_and_needs_a_file() {
    let place = Place::new();
    let [image, truth] = part(&place);
    let more = ["--verifier", "truth", "--ground-truth", &truth, "--samples", "2", "--refine", "150"];
    place.cadwright(command("ppo", &image, "out", &more)).succeeds();
    let trace = json(place.path("out/trace.json"));
    let candidates = trace["candidates"].as_array().unwrap();
    let score = |at: usize| candidates[at]["score"].as_f64().unwrap();
    assert!(score(trace["best"].as_u64().unwrap() as usize) >= score(0));
    place
        .cadwright(command("ppo", &image, "out", &["--verifier", "truth"]))
        .fails_with(&["--verifier truth needs --ground-truth FILE"]);
    place
        .cadwright(command("ppo", &image, "out", &["--ground-truth", &truth]))
        .fails_with(&["--ground-truth is used by --verifier truth only"]);
}

#[test]
fn an_agent_without_a_single_valid_program_says_so() {
    let place = Place::new();
    let [image, _] = part(&place);
    let model = smoke_run().join("model").display().to_string();
    let mut arguments = command("ppo", &image, "out", &["--samples", "3", "--refine", "20"]);
    arguments[2] = model;
    place.cadwright(arguments).fails_with(&["programs builds a solid", "trace.json has their errors", "--samples"]);
    assert_eq!(json(place.path("out/trace.json"))["best"], Value::Null);
    assert!(!place.path("out/program.py").exists());
}

#[test]
fn ctrl_c_gives_the_best_so_far() {
    let place = Place::new();
    let [image, _] = part(&place);
    let more = ["--samples", "8", "--refine", "100000000"];
    let mut child = place.cadwright(command("ppo", &image, "out", &more)).start();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.any(|line| line.unwrap().contains("agent: refine")));
    std::thread::sleep(Duration::from_millis(200));
    // SAFETY: a signal to a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let rest: Vec<String> = stderr.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted: the best program so far")), "{rest:?}");
    assert!(place.path("out/program.py").exists());
}

#[test]
fn an_evaluation_of_the_agent_has_its_cost_beside_it() {
    let place = Place::new();
    let [model, data] = ["ppo/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let mut command = vec!["eval", "--agent", "--model-path", &model, "--dataset", &data, "--num-samples", "4"];
    command.extend(["--summary", "s.json"]);
    for setting in
        ["agent.samples=3", "agent.refine=30", "eval.engine=auto", "eval.grid=32", "generate.max_new_tokens=96"]
    {
        command.extend(["--set", setting]);
    }
    let finished = place.cadwright(command).succeeds();
    let (rows, summary) = (json(place.path("predictions.json")), json(place.path("s.json")));
    assert_eq!(rows.as_object().unwrap().len(), 4);
    let cost = &summary["agent"];
    assert_eq!(fields(cost), ["first_score", "programs", "refined", "score", "seconds", "tokens"]);
    assert!(cost["score"].as_f64() >= cost["first_score"].as_f64(), "{summary:#}");
    assert!(finished.stdout().contains("programs built"), "{}", finished.stdout());
}
