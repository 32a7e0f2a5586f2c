use std::sync::atomic::AtomicBool;

use cadwright_rewards::{Frame, Solid, frame_iou};
use cadwright_rollout::execute_natively;

use super::*;
use crate::agent::draft::PROGRAM;

static NEVER: AtomicBool = AtomicBool::new(false);

fn solid(program: &str) -> Solid {
    let outcome = execute_natively(program, None).unwrap();
    Solid::clone(outcome.solid().unwrap())
}

/// Searches for the part of [`PROGRAM`] by its true shape.
fn search(starts: &[&str], budget: usize, prior: &Prior) -> Refined {
    let truth = solid(PROGRAM);
    let judge = |solid: &Solid| frame_iou(Frame::Canonical, 32, solid, &truth);
    Search {
        judge: &judge,
        prior,
        material: prior.drafts(),
        prior_weight: 0.002,
        budget,
        seed: 7,
        stop: &NEVER,
        result_name: None,
    }
    .refine(starts)
}

/// The part with a thicker plate and a hole elsewhere.
fn wrong() -> String {
    PROGRAM
        .replace("extrude(0.25)", "extrude(0.5)")
        .replace("Vector(0.5, 0.25, 0.25)", "Vector(0.5, 0.25, 0.5)")
        .replace("moveTo(0.25, 0.25)", "moveTo(0.1875, 0.1875)")
}

#[test]
fn numbers_are_found_again() {
    let wrong = wrong();
    let refined = search(&[&wrong], 400, &Prior::default());
    let (_, best) = &refined.found[0];
    let before = refined.attempts[0].score;
    assert!(before < 0.6 && best.score > 0.93, "{before} to {}", best.score);
}

#[test]
fn no_result_is_worse_than_its_start_nor_invalid() {
    let wrong = wrong();
    let prior = Prior::learn([PROGRAM]);
    let starts = [wrong.as_str(), PROGRAM, "solid = cq.Workplane().box(0.7, 0.4, 0.2)"];
    for budget in [3, 40, 200] {
        let refined = search(&starts, budget, &prior);
        assert_eq!(refined.found.len(), starts.len());
        assert!(refined.attempts.len() <= budget.max(starts.len()), "{} of {budget}", refined.attempts.len());
        for (start, best) in &refined.found {
            let first = refined.attempts.iter().find(|attempt| attempt.program == starts[*start]).unwrap();
            assert!(best.score >= first.score && best.value >= first.value, "{start}");
            assert!(solid(&best.program).mass().volume > 0.0);
        }
        assert!(refined.found.windows(2).all(|pair| pair[0].1.value >= pair[1].1.value));
    }
}

#[test]
fn a_search_repeats_itself_with_its_seed() {
    let wrong = wrong();
    let outcome = |refined: Refined| {
        let attempts: Vec<_> =
            refined.attempts.into_iter().map(|a| (a.start, a.change, a.program, a.outcome)).collect();
        (refined.found, attempts)
    };
    let run = || outcome(search(&[&wrong, PROGRAM], 80, &Prior::learn([PROGRAM])));
    assert_eq!(run(), run());
}

#[test]
fn programs_that_cannot_be_built_are_left_out_and_hostile_ones_harm_nothing() {
    let deep = format!("solid = {}1{}", "(".repeat(3000), ")".repeat(3000));
    let starts = ["", "while True: pass", "solid = 1", "raise ValueError(3)", deep.as_str(), "import os\nos.abort()"];
    let refined = search(&starts, 20, &Prior::default());
    assert_eq!(refined.found, []);
    // Their changes may fail in any way: an outcome, never an error.
    let refined = search(
        &["r = 1\nsolid = cq.Workplane().box(1, 1, 3).faces('>Z').workplane().hole(r * 0.5)"],
        60,
        &Prior::default(),
    );
    assert!(
        refined.attempts.iter().all(|attempt| attempt.outcome == Some(OutcomeClass::Solid) || attempt.score == 0.0)
    );
}

#[test]
fn a_stopped_search_gives_what_it_has() {
    let stop = AtomicBool::new(true);
    let judge = |_: &Solid| 0.5;
    let prior = Prior::default();
    let search = Search {
        judge: &judge,
        prior: &prior,
        material: prior.drafts(),
        prior_weight: 0.0,
        budget: 1000,
        seed: 1,
        stop: &stop,
        result_name: None,
    };
    let refined = search.refine(&[PROGRAM]);
    assert_eq!((refined.found[0].1.program.as_str(), refined.attempts.len()), (PROGRAM, 1));
}

/// Of two programs whose pictures are the same, the one that is like the data set's is found.
#[test]
fn the_prior_decides_what_the_judge_does_not_see() {
    let prior = Prior::learn([PROGRAM]);
    let moved = PROGRAM.replace("Vector(0.0, 0.0, 0.0)", "Vector(0.0625, 0.0, 0.0)");
    let truth = solid(PROGRAM);
    let blind = |solid: &Solid| frame_iou(Frame::Normalised, 32, solid, &truth);
    let search = Search {
        judge: &blind,
        prior: &prior,
        material: prior.drafts(),
        prior_weight: 0.01,
        budget: 500,
        seed: 3,
        stop: &NEVER,
        result_name: None,
    };
    let (_, best) = search.refine(&[&moved]).found.remove(0);
    let iou = |program: &str| frame_iou(Frame::Canonical, 32, &solid(program), &truth);
    assert!(iou(&best.program) > iou(&moved) + 0.05, "{} to {}\n{}", iou(&moved), iou(&best.program), best.program);
}
