//! The gates `truths` and `scorer`: whether rewards can mean anything.

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rewards::{OutcomeClass, RewardSource};
use cadwright_rollout::{GroundTruth, Score, ScoreRequest, Scorer};

use super::Finding;
use crate::config::Gate;
use crate::data::Dataset;
use crate::train::Stage;

/// Parts that are looked at, spread over the data set.
const TRAINING_PARTS: usize = 48;
const VALIDATION_PARTS: usize = 16;

/// Share of these that may be unusable: data sets have a few bad rows, which training leaves out.
const UNUSABLE_SHARE: f64 = 0.02;

/// How far from 1 the IoU of a ground truth with itself may be.
const SELF_IOU: f64 = 1e-6;

/// A program that the native engine builds, in place of a ground truth's own.
const CUBE: &str = "solid = cq.Workplane().box(2, 2, 2)";

/// Ground truths must build a solid, and one that is a program must be equal to itself.
pub fn truths(stage: &Stage) -> Result<Finding> {
    let of = |dataset: &Dataset, count: usize| -> Vec<(String, GroundTruth)> {
        let examples = dataset.examples();
        let part = |i: usize| &examples[i * examples.len() / count.min(examples.len())];
        let parts = (0..count.min(examples.len())).map(part);
        parts.map(|example| (example.id.clone(), example.ground_truth.clone())).collect()
    };
    let parts = [of(stage.train, TRAINING_PARTS), of(stage.validation, VALIDATION_PARTS)].concat();
    let own: Vec<&(String, GroundTruth)> = stage.world.share(&parts).collect();
    let requests = own.iter().map(|(_, truth)| (truth.program().unwrap_or(CUBE), truth.clone()));
    let scores = scored(stage.scorer, requests)?;
    let fault = |(id, truth): &(String, GroundTruth), score: &Score| -> Option<String> {
        if let Some(error) = &score.ground_truth_error {
            return Some(format!("{id} gives no solid: {}", first_line(error)));
        }
        let iou = score.iou_in(stage.config.reward_frame());
        let differs = truth.program().is_some() && (1.0 - iou).abs() > SELF_IOU;
        differs.then(|| format!("{id} has an IoU of {iou:.3} with itself"))
    };
    let faults = own.iter().zip(&scores).map(|(part, score)| fault(part, score)).collect();
    let faults = stage.world.gather_shares("the ground truths", faults, parts.len())?;
    Ok(truths_finding(&faults))
}

/// The finding for the faults of the parts that were looked at.
fn truths_finding(faults: &[Option<String>]) -> Finding {
    let (count, unusable) = (faults.len(), faults.iter().flatten().count());
    let first = faults.iter().flatten().next().map_or(String::new(), |fault| format!("; {fault}"));
    let found = format!("{} of {count} ground truths build a solid equal to itself{first}", count - unusable);
    Finding::new(Gate::Truths, unusable as f64 <= UNUSABLE_SHARE * count as f64, found)
}

/// A program with a ground truth, and what its score must be.
struct Known {
    what: &'static str,
    program: &'static str,
    class: OutcomeClass,
    /// IoU with [`CUBE`] by frame, as far as it is known in closed form.
    iou: fn(Frame) -> Option<f64>,
}

/// Only frames that move and scale solids differ in these.
fn canonical(iou: f64) -> impl Fn(Frame) -> Option<f64> {
    move |frame| (frame == Frame::Canonical).then_some(iou)
}

const KNOWN: [Known; 7] = [
    Known { what: "a cube", program: CUBE, class: OutcomeClass::Solid, iou: |_| Some(1.0) },
    Known {
        // Half of each is common: 4 / (8 + 8 - 4).
        what: "a cube moved by half",
        program: "solid = cq.Workplane().box(2, 2, 2).translate((1, 0, 0))",
        class: OutcomeClass::Solid,
        iou: |frame| canonical(1.0 / 3.0)(frame),
    },
    Known {
        // (8 - 1) / 8.
        what: "a cube with a hollow",
        program: "solid = cq.Workplane().box(2, 2, 2).cut(cq.Workplane().box(1, 1, 1))",
        class: OutcomeClass::Solid,
        iou: |frame| canonical(7.0 / 8.0)(frame),
    },
    Known {
        what: "a syntax error",
        program: "solid = cq.Workplane(.box(2",
        class: OutcomeClass::Syntax,
        iou: |_| Some(0.0),
    },
    Known {
        what: "an exception",
        program: "raise ValueError('known')",
        class: OutcomeClass::Exception,
        iou: |_| Some(0.0),
    },
    Known { what: "no solid", program: "x = 1", class: OutcomeClass::NoSolid, iou: |_| Some(0.0) },
    Known {
        what: "nothing left",
        program: "solid = cq.Workplane().box(1, 1, 1).cut(cq.Workplane().box(2, 2, 2))",
        class: OutcomeClass::Empty,
        iou: |_| Some(0.0),
    },
];

/// Known programs must get the outcome and IoU that they must have, and the right one the greatest
/// reward.
pub fn scorer(stage: &Stage) -> Result<Finding> {
    let scores = scored(stage.scorer, KNOWN.iter().map(|known| (known.program, CUBE.into())))?;
    let Stage { config, .. } = stage;
    let reward = &config.reward;
    // A reward command may be all that counts, and it is not asked here. Metrics alone may forgive
    // that a cube was moved.
    let is_by_iou = reward.source == RewardSource::Shape && (reward.iou_weight > 0.0 || !reward.metrics.is_used());
    let compares_rewards = is_by_iou && reward.command.is_empty();
    Ok(scorer_finding(&scores, config.reward_frame(), config.rollout.grid, compares_rewards))
}

/// The finding for the scores of [`KNOWN`] on a grid of `grid` cells.
fn scorer_finding(scores: &[Score], frame: Frame, grid: usize, compares_rewards: bool) -> Finding {
    // A face may lie anywhere within a cell.
    let tolerance = 1.5 / grid as f64;
    let fault = |(known, score): (&Known, &Score)| -> Option<String> {
        let Known { what, class, iou, .. } = known;
        if score.verdict.class() != Some(*class) {
            return Some(format!("{what} is {}, not {}", score.verdict.name(), class.name()));
        }
        let found = score.iou_in(frame);
        let expected = iou(frame)?;
        let is_exact = expected == 0.0 || expected == 1.0;
        let is_right = (found - expected).abs() <= if is_exact { SELF_IOU } else { tolerance };
        if !is_right {
            return Some(format!("{what} has an IoU of {found:.3}, not {expected:.3}"));
        }
        let best = scores[0].reward;
        let is_less = score.reward < best || expected == 1.0;
        let is_wrong = compares_rewards && !(is_less && score.reward.is_finite());
        is_wrong.then(|| format!("{what} gets a reward of {}, a right program {best}", score.reward))
    };
    let faults: Vec<String> = KNOWN.iter().zip(scores).filter_map(fault).collect();
    let is_open = faults.is_empty();
    let found = if is_open { format!("{} known programs are scored right", KNOWN.len()) } else { faults.join(", ") };
    Finding::new(Gate::Scorer, is_open, found)
}

/// The scores of programs against ground truths, in order.
fn scored<'a>(scorer: &Scorer, pairs: impl Iterator<Item = (&'a str, GroundTruth)>) -> Result<Vec<Score>> {
    let mut batch = scorer.batch();
    for (index, (program, ground_truth)) in pairs.enumerate() {
        batch.submit(index, ScoreRequest { prediction: program.to_owned(), ground_truth, truncated: false });
    }
    Ok(batch.finish()?)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use cadwright_rollout::{Engine, ScorerConfig};

    use super::*;

    #[test]
    fn one_bad_row_of_many_is_told_and_two_refuse() {
        let faults = |bad: usize| {
            let mut faults = vec![None; 64];
            faults[..bad].fill(Some("part_7 gives no solid: it raised".to_owned()));
            truths_finding(&faults)
        };
        assert_eq!((faults(0).is_open, faults(1).is_open, faults(2).is_open), (true, true, false));
        assert!(faults(0).found.starts_with("64 of 64"));
        assert!(faults(2).found.contains("62 of 64") && faults(2).found.contains("part_7"), "{}", faults(2).found);
    }

    /// The solids of the table, without Python; failures are made by hand.
    fn scores() -> Vec<Score> {
        let config = ScorerConfig { engine: Engine::Native, jobs: 1, grid: 16, ..ScorerConfig::default() };
        let scorer = Scorer::new(config).unwrap();
        let native = |known: &&Known| known.class == OutcomeClass::Solid;
        let solids = scored(&scorer, KNOWN.iter().filter(native).map(|known| (known.program, CUBE.into()))).unwrap();
        let failure = |known: &Known| {
            let (verdict, iou) =
                (cadwright_rollout::Verdict::Known(known.class), [(Frame::Canonical, Some(0.0))].into());
            Score { verdict, iou, reward: 0.0, ..solids[1].clone() }
        };
        let failures = KNOWN.iter().filter(|known| known.class != OutcomeClass::Solid).map(failure);
        solids.iter().cloned().chain(failures).collect()
    }

    #[test]
    fn a_scorer_that_is_wrong_in_one_way_is_refused() {
        let finding = |change: &dyn Fn(&mut Vec<Score>)| {
            let mut scores = scores();
            change(&mut scores);
            scorer_finding(&scores, Frame::Canonical, 16, true)
        };
        let right = finding(&|_| ());
        assert!(right.is_open, "{}", right.found);
        type Fault<'a> = (&'a dyn Fn(&mut Vec<Score>), &'a str);
        let wrong: [Fault; 4] = [
            (&|scores| scores[3].verdict = scores[4].verdict, "a syntax error is exception, not syntax"),
            (&|scores| scores[1].iou = [(Frame::Canonical, Some(0.6))].into(), "moved by half has an IoU of 0.600"),
            (&|scores| scores.iter_mut().for_each(|score| score.reward = 0.5), "gets a reward of 0.5"),
            (&|scores| scores[2].reward = f64::NAN, "a hollow gets a reward of NaN"),
        ];
        for (change, says) in wrong {
            let finding = finding(change);
            assert!(!finding.is_open && finding.found.contains(says), "{}", finding.found);
        }
    }
}
