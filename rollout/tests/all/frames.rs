//! The frames that CadQuery computes, and the audit of pairs, which uses them.

use std::fs;

use crate::common::{CUBE, config};
use cadwright_rewards::Frame;
use cadwright_rollout::audit::{ALL, AuditOptions, audit};
use cadwright_rollout::{Engine, Score, ScoreRequest, Scorer, ScorerConfig};
use serde_json::{Value, json};

const BLOCK: &str = "solid = cq.Workplane().box(1, 2, 3)";

/// A part with three different moments of inertia and no plane of symmetry.
const BRACKET: &str = "solid = cq.Workplane().polyline([(0, 0), (4, 0), (4, 1), (1, 1), (1, 2.5), (0, 2)]).close().extrude(0.7)\n\
    solid = solid.cut(cq.Workplane().circle(0.2).extrude(1).translate((3, 0.4, 0.3)))";

fn with_frames(engine: Engine) -> Scorer {
    let frames = vec![Frame::Canonical, Frame::Shell, Frame::Exact];
    Scorer::new(ScorerConfig { engine, frames, ..config(2) }).unwrap()
}

fn score(scorer: &Scorer, prediction: &str, ground_truth: &str) -> Score {
    let request =
        ScoreRequest { prediction: prediction.to_owned(), ground_truth: ground_truth.into(), truncated: false };
    scorer.score(&request).unwrap()
}

#[test]
fn exact_is_the_iou_of_solids_in_their_own_coordinates() {
    let scorer = with_frames(Engine::Auto);
    let exact = |prediction: &str, ground_truth: &str| score(&scorer, prediction, ground_truth).iou[&Frame::Exact];
    let close = |found: Option<f64>, expected: f64| {
        assert!(found.is_some_and(|found| (found - expected).abs() < 1e-9), "{found:?} for {expected}");
    };
    close(exact(BLOCK, BLOCK), 1.0);
    // Half of each cube is in the other: 1/2 over 3/2.
    close(exact("solid = cq.Workplane().box(1, 1, 1).translate((0.5, 0, 0))", CUBE), 1.0 / 3.0);
    // A cylinder in its bounding cube: pi / 4.
    close(exact("solid = cq.Workplane().circle(0.5).extrude(0.5, both=True)", CUBE), std::f64::consts::PI / 4.0);
    close(exact("solid = cq.Workplane().box(1, 1, 1).translate((3, 0, 0))", CUBE), 0.0);
    close(exact("solid = None", CUBE), 0.0);
    assert_eq!(exact(CUBE, "solid = None"), None);
    let bow_tie = "solid = cq.Workplane().moveTo(0, 0).lineTo(1, 1).lineTo(1, 0).lineTo(0, 2).close().extrude(1)";
    assert_eq!(exact(bow_tie, CUBE), None);
}

#[test]
fn shell_ignores_pose_and_size_and_is_hard_on_small_differences() {
    let scorer = with_frames(Engine::Auto);
    let shell = |prediction: &str, ground_truth: &str| score(&scorer, prediction, ground_truth).iou[&Frame::Shell];
    assert_eq!(shell(BRACKET, BRACKET), Some(1.0));
    let moved = format!("{BRACKET}\nsolid = solid.translate((5, -3, 2))");
    assert!(shell(&moved, BRACKET).is_some_and(|iou| iou > 0.9));
    // A tenth too long: the IoU of the solids is 0.91.
    let long = "solid = cq.Workplane().box(1, 2, 3.3)";
    let score = score(&scorer, long, BLOCK);
    assert!(score.iou[&Frame::Canonical].is_some_and(|iou| (iou - 1.0 / 1.1).abs() < 0.02));
    assert!(score.iou[&Frame::Shell].is_some_and(|iou| iou < 0.5), "{:?}", score.iou);
    assert!(!score.shell_undetermined);
    assert_eq!(shell("solid = None", BLOCK), Some(0.0));
    assert_eq!(shell(BLOCK, "solid = None"), None);
}

#[test]
fn shell_says_where_equal_moments_leave_it_undetermined() {
    let scorer = with_frames(Engine::Cadquery);
    let rod = "solid = cq.Workplane().circle(1).extrude(5)";
    for (prediction, ground_truth, undetermined) in [(BLOCK, CUBE, true), (rod, BLOCK, true), (BLOCK, BRACKET, false)] {
        assert_eq!(score(&scorer, prediction, ground_truth).shell_undetermined, undetermined, "{prediction}");
    }
}

#[test]
fn a_program_that_hangs_in_the_exact_frame_meets_the_same_deadline() {
    let scorer = with_frames(Engine::Cadquery);
    let score = score(&scorer, "import time\ntime.sleep(20)", CUBE);
    assert_eq!((score.verdict.name(), score.iou[&Frame::Exact]), ("timeout", Some(0.0)));
}

#[test]
fn an_audit_compares_engines_and_booleans() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.jsonl"), directory.path().join("audit.json"));
    let odd = "import os\nsolid = cq.Workplane().box(1, 1, float(len(os.sep)))";
    let rows = [
        json!({"id": "same", "ground_truth": CUBE, "prediction": CUBE}),
        json!({"id": "odd", "ground_truth": CUBE, "prediction": odd}),
        json!({"id": "none", "style": "named", "ground_truth": BLOCK, "prediction": "x ="}),
    ];
    fs::write(&input, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let options = AuditOptions { input, sample: 0, seed: 0, output: Some(output.clone()), scorer: config(2) };
    let report = audit(&options).unwrap();
    // CUBE is counted once.
    assert_eq!((report.pairs, report.programs), (3, 4));
    let all = &report.styles[ALL];
    assert_eq!((all.programs, all.certified + all.declined.values().sum::<usize>()), (4, 4));
    assert!(all.declined.values().sum::<usize>() >= 1, "nobody can be sure of {odd}");
    assert!(report.disagreements.is_empty(), "{report}");
    for frame in [Frame::Canonical, Frame::Normalised, Frame::Aligned] {
        let errors = &all.iou_error[&Engine::Cadquery][&frame];
        assert_eq!((errors.n, errors.beyond), (2, 0), "{frame}");
        assert!(errors.max < 1e-6, "{frame}: {}", errors.max);
    }
    let written: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!((&written["pairs"], &written["grid"]), (&json!(3), &json!(32)));
    let text = report.to_string();
    assert!(text.starts_with("3 pairs, 4 programs") && text.contains("IoU error at 32"), "{text}");
    assert_eq!(report.styles["named"].programs, 2);

    let sampled = audit(&AuditOptions { sample: 2, output: None, ..options }).unwrap();
    assert_eq!(sampled.pairs, 2);
}
