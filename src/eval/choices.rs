//! One of several programs of each part: what the ways to choose need to know is found where the
//! solids are, and the choices are made from the predictions of all ranks.

use std::collections::BTreeMap;
use std::time::Instant;

use cadwright_rewards::stats::mean;
use cadwright_rewards::{Frame, normalise_program};
use cadwright_rollout::{ChosenReport, ChosenRow, MeanCi};
use serde::{Deserialize, Serialize};

use super::predict::Prediction;
use crate::agent::choose::{Built, Candidate, Select, agreement, chosen, image_scores, mutual_ious};
use crate::agent::look::LookOptions;
use crate::agent::verifier::look_at;
use crate::config::Eval;
use crate::data::Dataset;

/// What the ways to choose have found out about one program. Log-probability and IoU are in the
/// prediction anyway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hints {
    /// How much the render of its solid is like the picture, in [0, 1]; 0 without a solid. `None`
    /// unless pictures are compared.
    pub image_score: Option<f64>,
    /// Its mean IoU with the programs of its group, itself included, by size of the groups. Empty
    /// unless programs are compared with each other.
    pub consensus: BTreeMap<usize, f64>,
}

/// Finds the [`Hints`] of predictions.
pub struct Chooser<'a> {
    eval: &'a Eval,
    dataset: &'a Dataset,
    look: LookOptions,
    /// By way to choose: wall time on this rank.
    pub seconds: BTreeMap<Select, f64>,
}

impl<'a> Chooser<'a> {
    /// For the ways to choose of `eval.select`, on `dataset`, whose pictures are compared as `look`
    /// says.
    pub fn new(eval: &'a Eval, dataset: &'a Dataset, look: LookOptions) -> Self {
        Self { eval, dataset, look, seconds: eval.select.iter().map(|&by| (by, 0.0)).collect() }
    }

    /// Fills in the hints of all samples of one part, which must have their solids.
    pub fn compare(&mut self, part: &mut [Prediction]) {
        for (&by, seconds) in &mut self.seconds {
            let started = Instant::now();
            match by {
                Select::Image => add_image_scores(self.dataset, &self.look, part),
                Select::Consensus => add_consensus(self.eval, part),
                Select::Logprob | Select::Truth => {}
            }
            *seconds += started.elapsed().as_secs_f64();
        }
    }
}

fn add_image_scores(dataset: &Dataset, options: &LookOptions, part: &mut [Prediction]) {
    let Some(first) = part.first() else { return };
    let scores = image_scores(&look_at(dataset, first.index, options), &built(part));
    for (prediction, score) in part.iter_mut().zip(scores) {
        prediction.hints.image_score = Some(score);
    }
}

fn add_consensus(eval: &Eval, part: &mut [Prediction]) {
    let ious = mutual_ious(&built(part));
    for k in group_sizes(eval) {
        for first in (0..part.len()).step_by(k) {
            let group = first..(first + k).min(part.len());
            for (prediction, value) in part[group.clone()].iter_mut().zip(agreement(&ious, group)) {
                prediction.hints.consensus.insert(k, value);
            }
        }
    }
}

fn built(part: &[Prediction]) -> Vec<Built<'_>> {
    part.iter().map(|p| Built { program: &p.program, solid: p.score.solid.as_deref() }).collect()
}

/// The numbers of samples out of which one is chosen, ascending; the last one is all of them.
fn group_sizes(eval: &Eval) -> Vec<usize> {
    let mut sizes: Vec<usize> = eval.select_at.iter().copied().chain([eval.samples_per_image]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The position of the program that `by` chooses among `group`, which is all samples of a part or a
/// group of them. `frame` is that of the IoU.
pub fn choice(group: &[Prediction], by: Select, frame: Frame) -> usize {
    let candidate = |prediction: &Prediction| {
        let logprob = prediction.logprob / prediction.counts.completion.max(1) as f64;
        let score = match by {
            Select::Image => prediction.hints.image_score.unwrap_or(0.0),
            Select::Consensus => prediction.hints.consensus.get(&group.len()).copied().unwrap_or(0.0),
            Select::Logprob => logprob,
            Select::Truth => prediction.score.iou_in(frame),
        };
        Candidate { is_valid: prediction.score.verdict.is_valid(), score, logprob }
    };
    chosen(&group.iter().map(candidate).collect::<Vec<_>>()).unwrap_or(0)
}

/// The statistics of all choices of `eval.select`, from all predictions with their hints; `None` if
/// nothing is chosen. `seconds` is the wall time of each way.
pub fn chosen_report(eval: &Eval, predictions: &[Prediction], seconds: &BTreeMap<Select, f64>) -> Option<ChosenReport> {
    let (&first, frame) = (eval.select.first()?, *eval.frames.first()?);
    let sizes = group_sizes(eval);
    let row = |by: Select, k: usize| {
        let parts: Vec<Vec<&[Prediction]>> =
            predictions.chunks(eval.samples_per_image).map(|part| part.chunks_exact(k).collect()).collect();
        let over_groups = |value: &dyn Fn(&Prediction) -> f64| {
            let of_group = |group: &&[Prediction]| value(&group[choice(group, by, frame)]);
            MeanCi::over_groups(&parts.iter().map(|groups| groups.iter().map(of_group).collect()).collect::<Vec<_>>())
        };
        let groups = parts.concat();
        let mean_of = |count: &dyn Fn(&[Prediction]) -> usize| {
            mean(&groups.iter().map(|group| count(group) as f64).collect::<Vec<_>>())
        };
        ChosenRow {
            by: by.name().into(),
            k,
            vsr: over_groups(&|prediction| f64::from(prediction.score.verdict.is_valid())),
            iou: eval.frames.iter().map(|&f| (f, over_groups(&|prediction| prediction.score.iou_in(f)))).collect(),
            programs: mean_of(&different_programs),
            tokens: mean_of(&|group| group.iter().map(|prediction| prediction.counts.completion).sum()),
        }
    };
    Some(ChosenReport {
        by: first.name().into(),
        table: eval
            .select
            .iter()
            .flat_map(|&by| sizes.iter().map(move |&k| (by, k)))
            .map(|(by, k)| row(by, k))
            .collect(),
        seconds: seconds.iter().map(|(by, seconds)| (by.name().into(), *seconds)).collect(),
    })
}

fn different_programs(group: &[Prediction]) -> usize {
    group.iter().map(|p| normalise_program(&p.program)).collect::<std::collections::BTreeSet<_>>().len()
}
