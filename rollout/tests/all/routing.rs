//! Which engine executes a program: the native one, CadQuery, or none.

use std::fs;
use std::path::Path;

use crate::common::{CUBE, config};
use cadwright_rewards::{Frame, native};
use cadwright_rollout::jsonl::{ExecOptions, ScoreOptions, exec, score};
use cadwright_rollout::{Engine, ScoreRequest, Scorer, ScorerConfig, Verdict};
use serde_json::{Value, json};

/// A program in the style of GenCAD-Code, which the native engine executes.
const PLATE: &str = "import cadquery as cq\n\
    wp_sketch0 = cq.Workplane(cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1)))\n\
    loop0=wp_sketch0.moveTo(0, 0).lineTo(2, 0).lineTo(2, 1).lineTo(0, 1).close()\n\
    solid0=wp_sketch0.add(loop0).extrude(0.5)\n\
    solid=solid0";

/// A program that only Python itself can execute with certainty.
const ODD: &str = "import os\nsolid = cq.Workplane().box(1, 1, float(len(os.sep)))";

fn with(engine: Engine) -> ScorerConfig {
    ScorerConfig { engine, ..config(2) }
}

/// A path that does not exist, so that starting Python fails.
fn without_python(engine: Engine) -> ScorerConfig {
    ScorerConfig { python: Some("/nowhere/python".into()), ..with(engine) }
}

fn expected_engine(program: &str) -> Engine {
    if native::execute(program).is_ok() { Engine::Native } else { Engine::Cadquery }
}

#[test]
fn auto_hands_on_what_the_native_engine_declines_and_says_who_answered() {
    let scorer = Scorer::new(with(Engine::Auto)).unwrap();
    for program in [PLATE, CUBE, ODD, "x ="] {
        let answer = scorer.execute(program).unwrap().answer;
        assert_eq!(answer.engine, expected_engine(program), "{program}");
        assert_eq!(answer.declined, native::execute(program).err(), "{program}");
        assert!(answer.outcome.is_some());
    }
    let odd = scorer.execute(ODD).unwrap().answer;
    assert_eq!((odd.engine, odd.verdict().is_valid()), (Engine::Cadquery, true));
}

#[test]
fn workers_start_with_the_first_program_that_needs_them() {
    let scorer = Scorer::new(with(Engine::Auto)).unwrap();
    assert_eq!(scorer.server_pid(), None);
    if native::execute(PLATE).is_ok() {
        scorer.execute(PLATE).unwrap();
        assert_eq!(scorer.server_pid(), None);
    }
    scorer.execute(ODD).unwrap();
    assert!(scorer.server_pid().is_some());
}

#[test]
fn ready_finds_a_missing_python_before_work_is_done() {
    let scorer = Scorer::new(without_python(Engine::Auto)).unwrap();
    let error = scorer.ready().unwrap_err().to_string();
    assert!(error.contains("/nowhere/python"), "{error}");
    assert!(scorer.execute(ODD).is_err());
    assert!(Scorer::new(without_python(Engine::Cadquery)).is_err());
}

#[test]
fn the_native_engine_alone_needs_no_python_and_leaves_what_it_declines() {
    let scorer = Scorer::new(without_python(Engine::Native)).unwrap();
    let answer = scorer.execute(ODD).unwrap().answer;
    assert_eq!((answer.verdict(), answer.engine, answer.outcome), (Verdict::Declined, Engine::Native, None));
    let pair = |prediction: &str, ground_truth: &str| ScoreRequest {
        prediction: prediction.to_owned(),
        ground_truth: ground_truth.into(),
        truncated: false,
    };
    let score = scorer.score(&pair(ODD, PLATE)).unwrap();
    assert_eq!((score.verdict, score.iou[&Frame::Canonical], score.reward), (Verdict::Declined, None, 0.0));
    let score = scorer.score(&pair(PLATE, ODD)).unwrap();
    assert!(score.ground_truth_error.unwrap().starts_with("declined: "));
    assert_eq!(score.iou[&Frame::Canonical], None);
    assert!(!score.declined.is_empty());
    assert_eq!(scorer.server_pid(), None);
}

#[test]
fn both_engines_share_one_store_but_only_cadquery_is_kept_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let scorer = Scorer::new(ScorerConfig { cache_dir: Some(cache.clone()), ..with(Engine::Auto) }).unwrap();
    let pair = |ground_truth: &str| ScoreRequest {
        prediction: "x = 1".to_owned(),
        ground_truth: ground_truth.into(),
        truncated: false,
    };
    for ground_truth in [PLATE, ODD, PLATE, ODD] {
        scorer.score(&pair(ground_truth)).unwrap();
    }
    let entries = fs::read_dir(cache).unwrap();
    let files: usize = entries.map(|entry| fs::read_dir(entry.unwrap().path()).unwrap().count()).sum();
    let by_cadquery = [PLATE, ODD].iter().filter(|program| expected_engine(program) == Engine::Cadquery).count();
    assert_eq!(files, by_cadquery);
}

fn write(directory: &Path, rows: &[Value]) {
    fs::write(directory.join("in.jsonl"), rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

fn rows(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("out.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_of_declined_programs_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.jsonl"), directory.path().join("out.jsonl"));
    write(directory.path(), &[json!({"id": 1, "code": ODD})]);
    let scorer = without_python(Engine::Native);
    let summary =
        exec(&ExecOptions { input: input.clone(), output: output.clone(), extract: false, scorer: scorer.clone() })
            .unwrap();
    let row = &rows(directory.path())[0];
    let reason = native::execute(ODD).unwrap_err();
    assert_eq!((&row["valid"], &row["outcome"]), (&json!(false), &json!("declined")));
    assert_eq!((&row["error"], &row["engine"]), (&json!(reason.to_string()), &json!("native")));
    for number in ["volume", "centroid", "bounding_box", "inertia", "solids"] {
        assert_eq!(row[number], Value::Null, "{number}");
    }
    assert_eq!((summary.declined[&*reason.reason], summary.outcomes.values().sum::<usize>()), (1, 0));

    write(directory.path(), &[json!({"id": 1, "ground_truth": ODD, "prediction": ODD})]);
    let summary = score(&ScoreOptions { input, output, summary: None, extract: false, scorer }).unwrap();
    let row = &rows(directory.path())[0];
    assert_eq!((&row["outcome"], &row["iou"]), (&json!("declined"), &json!({"canonical": null})));
    assert_eq!(row["reward"], Value::Null);
    assert!(row["ground_truth_error"].as_str().unwrap().starts_with("declined: "));
    assert_eq!((summary.vsr, summary.declined[&*reason.reason], summary.ground_truth_failures), (0.0, 2, 1));
}

#[test]
fn two_solids_are_compared_in_one_form() {
    // A thin tube, and the same tube as a program that the native engine hands on: facets against
    // circles would differ by a tenth of the wall.
    let tube = "solid = cq.Workplane().circle(1).circle(0.98).extrude(1)";
    let odd = "import os\nsolid = cq.Workplane().circle(1).circle(0.98).extrude(float(len(os.sep)))";
    assert!(native::execute(tube).is_ok() && native::execute(odd).is_err());
    let scorer = Scorer::new(with(Engine::Auto)).unwrap();
    for (prediction, ground_truth) in [(tube, odd), (odd, tube)] {
        let request =
            ScoreRequest { prediction: prediction.into(), ground_truth: ground_truth.into(), truncated: false };
        let iou = scorer.score(&request).unwrap().iou_in(Frame::Canonical);
        assert!(iou > 0.999, "{iou}");
    }
}
