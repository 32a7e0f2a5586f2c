//! Ground truths in STL and STEP files instead of programs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::{config, scorer};
use cadwright_rewards::Frame;
use cadwright_rollout::jsonl::{ScoreOptions, score};
use cadwright_rollout::{Engine, GroundTruth, Score, ScoreRequest, Scorer, ScorerConfig, Shape};
use serde_json::{Value, json};

/// A round part, off centre, with a hole: errors of facets or placement would show.
const FLANGE: &str = "solid = cq.Workplane().circle(1).extrude(0.5).faces('>Z').workplane().circle(0.4).cutThruAll().translate((3, 2, 1))";
const DISC: &str = "solid = cq.Workplane().circle(1).extrude(0.5).translate((3, 2, 1))";

/// Writes the solid of `program` to `name` in `directory`, and reads it back.
fn exported(directory: &Path, name: &str, program: &str) -> Shape {
    let path = directory.join(name);
    let files = scorer().export(program).unwrap().unwrap();
    fs::write(&path, if name.ends_with(".step") { files.step } else { files.stl }).unwrap();
    Shape::read(&path).unwrap()
}

fn scored(scorer: &Scorer, prediction: &str, ground_truth: GroundTruth) -> Score {
    scorer.score(&ScoreRequest { prediction: prediction.to_owned(), ground_truth, truncated: false }).unwrap()
}

#[test]
fn a_file_scores_like_the_program_that_wrote_it() {
    let directory = tempfile::tempdir().unwrap();
    let shapes = ["flange.stl", "flange.step"].map(|name| Arc::new(exported(directory.path(), name, FLANGE)));
    let frames = vec![Frame::Canonical, Frame::Normalised, Frame::Aligned, Frame::Shell, Frame::Exact];
    for engine in [Engine::Cadquery, Engine::Auto] {
        let scorer = Scorer::new(ScorerConfig { engine, frames: frames.clone(), ..config(2) }).unwrap();
        for prediction in [FLANGE, DISC] {
            let by_program = scored(&scorer, prediction, FLANGE.into());
            for shape in &shapes {
                let by_file = scored(&scorer, prediction, GroundTruth::Shape(Arc::clone(shape)));
                assert_eq!(by_file.ground_truth_error, None);
                for frame in [Frame::Canonical, Frame::Normalised, Frame::Aligned] {
                    // CadQuery's STL export is coarse: chords of 0.1 rad.
                    let (file, program) = (by_file.iou_in(frame), by_program.iou_in(frame));
                    assert!((file - program).abs() < 0.03, "{engine:?} {shape:?} {frame:?}: {file}, not {program}");
                }
                assert!(by_file.iou[&Frame::Shell].is_some());
                assert_eq!(by_file.iou[&Frame::Exact], None, "there is no program to intersect");
            }
        }
    }
}

#[test]
fn files_without_a_solid_say_why_and_step_needs_cadquery() {
    let scorer = Scorer::new(config(2)).unwrap();
    let why = |bytes: &[u8]| {
        let shape = GroundTruth::Shape(Arc::new(Shape::new(bytes.to_vec())));
        let score = scored(&scorer, FLANGE, shape);
        assert!(score.verdict.is_valid() && score.iou[&Frame::Canonical].is_none());
        score.ground_truth_error.unwrap()
    };
    assert!(why(b"glTF").starts_with("no_solid: the file of 4 bytes is neither STL nor STEP"));
    assert!(why(b"solid x\nendsolid x\n").starts_with("no_solid: the STL mesh encloses no volume"));
    assert!(why(b"ISO-10303-21;\nnothing").contains("STEP"));
    let native = Scorer::new(ScorerConfig { engine: Engine::Native, ..config(2) }).unwrap();
    let step = GroundTruth::Shape(Arc::new(Shape::new(b"ISO-10303-21;".to_vec())));
    assert!(scored(&native, FLANGE, step).ground_truth_error.unwrap().starts_with("declined: STEP file"));
}

#[test]
fn score_takes_files_beside_the_rows() {
    let directory = tempfile::tempdir().unwrap();
    exported(directory.path(), "flange.step", FLANGE);
    let input = directory.path().join("in.jsonl");
    let run = |rows: &[Value]| {
        fs::write(&input, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        score(&ScoreOptions {
            input: input.clone(),
            output: directory.path().join("out.jsonl"),
            summary: None,
            extract: false,
            scorer: config(2),
        })
    };
    let good = json!({"id": 1, "ground_truth_mesh": "flange.step", "prediction": FLANGE});
    let summary = run(&[good.clone(), json!({"id": 2, "ground_truth": FLANGE, "prediction": DISC})]).unwrap();
    assert_eq!((summary.n, summary.ground_truth_failures), (2, 0));
    let written = fs::read_to_string(directory.path().join("out.jsonl")).unwrap();
    let first: Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    assert!(first["iou"]["canonical"].as_f64().unwrap() > 0.99, "{first:#}");
    for (bad, expected) in [
        (json!({"id": 2, "prediction": DISC}), "is missing"),
        (json!({"id": 2, "ground_truth_mesh": "none.stl", "prediction": DISC}), "there is no file none.stl"),
        (json!({"id": 2, "ground_truth": DISC, "ground_truth_mesh": "flange.step", "prediction": DISC}), "keep one"),
    ] {
        let error = run(&[good.clone(), bad]).unwrap_err().to_string();
        assert!(error.contains("in.jsonl:2: ") && error.contains(expected), "{error}");
    }
}
