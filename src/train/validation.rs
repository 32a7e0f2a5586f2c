//! Validation while a stage trains: generates greedy programs for held-out parts, executes them,
//! and keeps the policy with the best IoU.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use cadwright_rewards::RewardSource;
use cadwright_rewards::stats::mean;
use cadwright_rollout::{Report, Stratum};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::Stage;
use super::proxy::validation_image_score;
use super::training_loop::LoopConfig;
use crate::config::{Ppo, Turns};
use crate::data::Dataset;
use crate::data::render::{render_solid, side_by_side};
use crate::distributed::World;
use crate::eval::predict::{EvalOptions, Prediction, evaluate, report};
use crate::files::replace_directory;
use crate::model::InternVl;
use crate::pictures::{Pictures, decoded};
use crate::policy::VALIDATION;
use crate::telemetry::Telemetry;

/// The best validation so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Best {
    /// Its IoU; `None` before the first validation.
    pub iou: Option<f64>,
    /// Its image score, if that chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_score: Option<f64>,
    /// Its VSR.
    pub vsr: f64,
    /// Steps that were taken before it.
    pub step: usize,
}

impl Best {
    /// What is compared: IoU or image score, then VSR.
    fn rank(&self) -> (Option<f64>, f64) {
        (self.image_score.or(self.iou), self.vsr)
    }

    /// The validation of the policy in `directory`, if it is better than this one. A run that was
    /// killed after its last checkpoint has left it there: the run that goes on must know of it.
    pub fn or_stored(self, directory: &Path) -> Self {
        let text = std::fs::read_to_string(directory.join(VALIDATION));
        let stored = text.ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        stored.filter(|stored| (stored.rank(), stored.step) > (self.rank(), self.step)).unwrap_or(self)
    }
}

/// Stores the best policy so far in `directory` on rank 0, with its validation. Earlier ones are
/// kept as `run.keep_best` says. Returns, on every rank, whether the disk took it: if not, the
/// policy before it stays, and a line says so.
fn keep_best(stage: &Stage, model: &InternVl, directory: &Path, best: &Best, telemetry: &Telemetry) -> Result<bool> {
    let validation = serde_json::to_value(best)?;
    let store = || {
        keep_earlier(directory, stage.config.run.keep_best)?;
        stage.save_policy(model, directory, Some(&validation))
    };
    let failure = if stage.world.is_main() { store().err() } else { None };
    if let Some(error) = &failure {
        telemetry.warn(&format!("warning: the best policy, after step {}, could not be stored: {error:#}", best.step));
    }
    stage.world.barrier("the best policy")?;
    stage.world.from_main("the best policy's fate", || Ok(failure.is_none()))
}

/// Keeps the policy in `directory` as `<directory>-<step>`, and of such policies the newest
/// `keep_best - 1`: each was the best when it was stored.
fn keep_earlier(directory: &Path, keep_best: usize) -> Result<()> {
    let Some(parent) = directory.parent().filter(|_| keep_best > 1) else { return Ok(()) };
    let stored = std::fs::read_to_string(directory.join(VALIDATION));
    let Some(before) = stored.ok().and_then(|text| serde_json::from_str::<Best>(&text).ok()) else { return Ok(()) };
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    replace_directory(&parent.join(format!("{name}-{}", before.step)), |aside| {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            // The files of a stored policy never change, so both may have them.
            std::fs::hard_link(&path, aside.join(path.file_name().unwrap_or_default()))?;
        }
        Ok(())
    })?;
    let step = |entry: std::fs::DirEntry| {
        let step = entry.file_name().to_string_lossy().strip_prefix(&format!("{name}-"))?.parse::<usize>().ok()?;
        Some((step, entry.path()))
    };
    let mut earlier: Vec<_> = std::fs::read_dir(parent)?.flatten().filter_map(step).collect();
    earlier.sort_unstable_by(|a, b| b.cmp(a));
    earlier.into_iter().skip(keep_best - 1).try_for_each(|(_, path)| Ok(std::fs::remove_dir_all(path)?))
}

/// A validation.
pub struct Validation {
    /// The report on the last program of each part.
    pub report: Report,
    /// The mean IoU of each turn, the last one's last; a single number for one turn.
    pub turn_ious: Vec<f64>,
    /// The mean image score, if the reward comes from pictures.
    pub image_score: Option<f64>,
}

impl Validation {
    /// The numbers that are logged besides VSR and IoU: the IoU of each of several turns, and the
    /// image score.
    pub fn further_numbers(&self) -> Vec<(String, f64)> {
        let turns = self.turn_ious.iter().enumerate().filter(|_| self.turn_ious.len() > 1);
        let turns = turns.map(|(turn, iou)| (format!("val_turn{}_iou", turn + 1), *iou));
        turns.chain(self.image_score.map(|score| ("val_image_score".to_owned(), score))).collect()
    }
}

/// Validates `model` after `step` steps on the first validation parts with episodes of which the
/// last program counts, and logs pictures of some of them. Rank 0 writes the model to `directory` if
/// it is the best so far: by IoU or, if rewards come from pictures, by image score.
///
/// # Errors
/// The scorer cannot go on.
pub fn validate(
    stage: &Stage,
    model: &InternVl,
    loop_config: &LoopConfig,
    step: usize,
    best: &mut Best,
    directory: &Path,
    telemetry: &mut Telemetry,
) -> Result<Validation> {
    let Stage { config, world, validation, scorer, .. } = stage;
    let pictures = Pictures::new(validation, config.model.max_tiles, 0);
    let prompted = stage.prompted(validation, &pictures);
    let indices: Vec<usize> = (0..validation.len().min(loop_config.validation_samples)).collect();
    let turns = config.turns(loop_config.turns);
    let options = EvalOptions {
        samples: 1,
        turns,
        sampling: stage.sampling(0.0, 1.0),
        batch_size: config.generate.batch_size,
        seed: u64::from(config.run.seed),
    };
    let started = Instant::now();
    let predictions = evaluate(world, &model.frozen_copy(), &prompted, &indices, scorer, options, |_| {})?;
    if let Some([input, built]) = strips(world, validation, &predictions)? {
        // Steps count from 0, as in the metrics.
        let step = step.saturating_sub(1);
        telemetry.picture(step, "validation/input", &input)?;
        telemetry.picture(step, "validation/built", &built)?;
    }
    let report = report(&predictions, scorer, 1, &[], started.elapsed().as_secs_f64(), |_| Stratum::default());
    let iou = report.iou;
    let image_score = match loop_config.source {
        RewardSource::Shape => None,
        RewardSource::Image => Some(validation_image_score(stage, &predictions)?),
    };
    let new = Best { iou: Some(iou), image_score, vsr: report.vsr, step };
    // Compares by IoU or image score, then by VSR. Among equals, the policy that was trained for
    // longer wins.
    if new.rank() >= best.rank() && keep_best(stage, model, directory, &new, telemetry)? {
        *best = new;
    }
    let iou_of = |turn: usize| {
        let iou = |prediction: &Prediction| prediction.earlier[turn].score.iou_in(config.reward_frame());
        mean(&predictions.iter().map(iou).collect::<Vec<f64>>())
    };
    let turn_ious = (0..turns.count - 1).map(iou_of).chain([iou]).collect();
    Ok(Validation { report, turn_ious, image_score })
}

/// Pictures shown in TensorBoard.
const PICTURES_SHOWN: usize = 4;

/// Two strips of the first predictions that built a solid, in the same order: the input pictures
/// and the predicted solids. Each rank draws the solids that it has.
fn strips(world: &World, dataset: &Dataset, predictions: &[Prediction]) -> Result<Option<[RgbImage; 2]>> {
    let own: Vec<(usize, Vec<u8>)> = predictions
        .iter()
        .filter_map(|prediction| Some((prediction.index, prediction.score.solid.as_ref()?)))
        .take(PICTURES_SHOWN)
        .filter_map(|(index, solid)| {
            let side = decoded(&dataset.examples()[index]).width();
            Some((index, render_solid(solid, side)?.into_raw()))
        })
        .collect();
    let mut all = world.gather("the pictures of a validation", own)?.concat();
    all.sort_by_key(|(index, _)| *index);
    all.truncate(PICTURES_SHOWN);
    let mut inputs = Vec::new();
    let mut built = Vec::new();
    for (index, pixels) in all {
        let input = decoded(&dataset.examples()[index]);
        let side = input.width();
        built.push(RgbImage::from_raw(side, side, pixels).context("a rank sent a picture of another size")?);
        inputs.push(input);
    }
    Ok((!inputs.is_empty()).then(|| [side_by_side(&inputs), side_by_side(&built)]))
}

/// Number of programs of each part of which the ceiling takes the best. It is the number of
/// rollouts of a picture, but at least 8: the best of fewer says little about the policy.
pub fn ceiling_k(ppo: &Ppo) -> usize {
    ppo.samples_per_image.max(8)
}

/// Samples [`ceiling_k`] programs at PPO's temperature for each of the first validation parts.
/// Returns their mean IoU, and the mean of the best IoU of each part. A policy that only chooses
/// among these programs cannot exceed the latter. `None` if `ppo.ceiling_samples` is 0.
///
/// # Errors
/// The scorer cannot go on.
pub fn ceiling(stage: &Stage, policy: &InternVl) -> Result<Option<(f64, f64)>> {
    let Stage { config, world, validation, scorer, .. } = stage;
    let (ppo, frame) = (&config.ppo, config.reward_frame());
    if ppo.ceiling_samples == 0 {
        return Ok(None);
    }
    let pictures = Pictures::new(validation, config.model.max_tiles, 0);
    let prompted = stage.prompted(validation, &pictures);
    let indices: Vec<usize> = (0..validation.len().min(ppo.ceiling_samples)).collect();
    let options = EvalOptions {
        sampling: stage.sampling(ppo.temperature, 1.0),
        samples: ceiling_k(ppo),
        turns: Turns::ONE,
        batch_size: config.generate.batch_size,
        seed: u64::from(config.run.seed),
    };
    let predictions = evaluate(world, &policy.frozen_copy(), &prompted, &indices, scorer, options, |_| {})?;
    let ious: Vec<f64> = predictions.iter().map(|prediction| prediction.score.iou_in(frame)).collect();
    let best = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let bests: Vec<f64> = ious.chunks(ceiling_k(ppo)).map(best).collect();
    Ok(Some((mean(&ious), mean(&bests))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path, step: usize, iou: f64) -> Best {
        let best = Best { iou: Some(iou), image_score: None, vsr: 1.0, step };
        replace_directory(directory, |aside| {
            std::fs::write(aside.join("model"), step.to_string())?;
            Ok(std::fs::write(aside.join(VALIDATION), serde_json::to_string(&best)?)?)
        })
        .unwrap();
        best
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_best_policies_are_kept_under_their_steps() {
        for (keep_best, expected) in
            [(1, vec!["best"]), (2, vec!["best", "best-9"]), (3, vec!["best", "best-2", "best-9"])]
        {
            let root = tempfile::tempdir().unwrap();
            let best = root.path().join("best");
            for step in [0, 2, 9, 10] {
                keep_earlier(&best, keep_best).unwrap();
                store(&best, step, 0.1 * step as f64);
            }
            assert_eq!(names(root.path()), expected);
            for (name, step) in [("best", "10"), ("best-9", "9"), ("best-2", "2")] {
                let found = std::fs::read_to_string(root.path().join(name).join("model"));
                assert!(found.map_or(!expected.contains(&name), |text| text == step), "{name}");
            }
        }
    }

    #[test]
    fn a_stored_policy_that_the_state_does_not_know_is_learnt() {
        let root = tempfile::tempdir().unwrap();
        let best = root.path().join("best");
        let step_of = |best: Best| (best.iou, best.step);
        assert_eq!(step_of(Best::default().or_stored(&best)), (None, 0), "nothing is stored");
        let older = Best { iou: Some(0.3), image_score: None, vsr: 1.0, step: 4 };
        store(&best, 6, 0.5);
        assert_eq!(step_of(older.clone().or_stored(&best)), (Some(0.5), 6));
        assert_eq!(step_of(Best::default().or_stored(&best)), (Some(0.5), 6));
        store(&best, 2, 0.2);
        assert_eq!(step_of(older.clone().or_stored(&best)), (Some(0.3), 4), "the state's is better");
        store(&best, 5, 0.3);
        assert_eq!(step_of(older.or_stored(&best)), (Some(0.3), 5), "among equals, the later one is stored");
    }
}
