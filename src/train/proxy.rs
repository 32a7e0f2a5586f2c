//! Rewards from pictures alone (`reward.source = "image"`): the likeness of a solid's render to the
//! input picture takes the place of the IoU. It is a proxy: what raises it need not be right. So
//! the IoU is watched, though nothing that trains uses it, and [`ProxyWatch`] warns if the two part.

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rewards::stats::mean;
use cadwright_rewards::{RewardSource, reward};
use cadwright_rollout::{Score, Scorer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Stage;
use super::metrics::{StepNumbers, vsr};
use crate::agent::choose::{Built, image_scores};
use crate::agent::look::LookOptions;
use crate::agent::verifier::{look_at, look_options};
use crate::config::Config;
use crate::data::Dataset;
use crate::eval::predict::Prediction;
use crate::rollouts::Rollout;

/// How the pictures of a data set's parts are compared in training: as they are framed. Data sets
/// frame pictures as renders are framed.
///
/// # Errors
/// `agent.views` names a view that does not exist.
pub fn training_look(config: &Config, dataset: &Dataset) -> Result<LookOptions> {
    Ok(LookOptions { fit: false, ..look_options(&config.agent.views, &dataset.views)? })
}

/// What a rollout's last program is worth: its IoU, or its image score if the reward comes from
/// pictures.
pub fn quality(rollout: &Rollout, config: &Config) -> f64 {
    match config.reward.source {
        RewardSource::Shape => rollout.iou_in(config.reward_frame()),
        RewardSource::Image => rollout.image_score.unwrap_or(0.0),
    }
}

/// Replaces the rewards of the rollouts' scores by those for the likeness to the picture, and sets
/// the image scores. The rollouts of a part follow each other; the solids are those of this rank.
///
/// # Errors
/// `agent.views` names a view that does not exist.
pub fn reward_by_pictures(rollouts: &mut [Rollout], dataset: &Dataset, config: &Config, scorer: &Scorer) -> Result<()> {
    let options = training_look(config, dataset)?;
    let of_part = |part: &[Rollout]| (part[0].index, part.len());
    let parts: Vec<(usize, usize)> = rollouts.chunk_by(|a, b| a.index == b.index).map(of_part).collect();
    let built: Vec<Vec<Built>> = rollouts.iter().map(|rollout| programs(rollout).collect()).collect();
    let mut start = 0;
    let parts: Vec<(usize, Vec<Built>)> = parts
        .into_iter()
        .map(|(index, count)| {
            start += count;
            (index, built[start - count..start].concat())
        })
        .collect();
    let of_part = |(index, built): &(usize, Vec<Built>)| image_scores(&look_at(dataset, *index, &options), built);
    let scores: Vec<Vec<f64>> = scorer.install(|| parts.par_iter().map(of_part).collect());
    let mut scores = scores.into_iter().flatten();
    let mut rewarded = |score: &mut Option<Score>, truncated: bool| {
        let image_score = scores.next().unwrap_or(0.0);
        if let Some(score) = score
            && let Some(class) = score.verdict.class()
        {
            score.reward = reward(&config.reward, class, score.malformed, image_score, truncated);
        }
        image_score
    };
    for rollout in rollouts {
        for turn in &mut rollout.earlier {
            rewarded(&mut turn.score, turn.truncated);
        }
        rollout.image_score = Some(rewarded(&mut rollout.score, rollout.completion.truncated));
    }
    Ok(())
}

/// The programs of all turns, with their solids.
fn programs(rollout: &Rollout) -> impl Iterator<Item = Built<'_>> {
    let programs = rollout.earlier.iter().map(|turn| turn.program.as_str()).chain([rollout.program.as_str()]);
    let built = programs.zip(rollout.scores());
    built.map(|(program, score)| Built { program, solid: score.and_then(|score| score.solid.as_deref()) })
}

/// The mean image score of a validation's predictions, those without a solid as 0. Each rank
/// compares the solids that it has.
///
/// # Errors
/// `agent.views` names a view that does not exist, or another rank is gone.
pub fn validation_image_score(stage: &Stage, predictions: &[Prediction]) -> Result<f64> {
    let Stage { config, world, validation, scorer, .. } = stage;
    let options = training_look(config, validation)?;
    let score_of = |prediction: &Prediction| {
        let solid = prediction.score.solid.as_deref();
        let built = Built { program: &prediction.program, solid };
        image_scores(&look_at(validation, prediction.index, &options), &[built])[0]
    };
    let scores: Vec<f64> = scorer.install(|| predictions.par_iter().map(score_of).collect());
    let [sum] = world.sum("the image scores of a validation", [scores.iter().sum()])?;
    Ok(sum / predictions.len().max(1) as f64)
}

/// Watches whether the image score still means what it should.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProxyWatch {
    /// Means of the blocks so far: image score, VSR, IoU.
    blocks: Vec<[f64; 3]>,
    /// The steps of the block in progress.
    steps: Vec<[f64; 3]>,
}

impl ProxyWatch {
    /// Steps of a block.
    const BLOCK: usize = 10;
    /// A change of a block's mean that counts.
    const CHANGE: f64 = 0.02;

    /// Takes a step's means of image score, VSR and IoU into account. At the end of a block of steps
    /// it names what has parted from the image score: what was higher by more than
    /// `CHANGE` in an earlier block, whose image score was lower by more than that.
    pub fn observe(&mut self, step: [f64; 3]) -> Vec<&'static str> {
        self.steps.push(step);
        if self.steps.len() < Self::BLOCK {
            return Vec::new();
        }
        let steps = std::mem::take(&mut self.steps);
        let now: [f64; 3] = std::array::from_fn(|i| mean(&steps.iter().map(|step| step[i]).collect::<Vec<f64>>()));
        let has_parted = |i: usize| {
            let is_better = |before: &[f64; 3]| before[0] < now[0] - Self::CHANGE && before[i] > now[i] + Self::CHANGE;
            self.blocks.iter().any(is_better)
        };
        let parted = [(1, "VSR"), (2, "IoU")].into_iter().filter(|(i, _)| has_parted(*i)).map(|(_, name)| name);
        let parted = parted.collect();
        self.blocks.push(now);
        parted
    }

    /// Takes a step's rollouts into account. Returns its numbers, and a warning if there is reason
    /// for one.
    pub fn observe_rollouts(&mut self, rollouts: &[Rollout], config: &Config) -> (StepNumbers, Option<String>) {
        let frame = config.reward_frame();
        let mean_of = |value: &dyn Fn(&Rollout) -> f64| mean(&rollouts.iter().map(value).collect::<Vec<f64>>());
        let image_score = mean_of(&|rollout| rollout.image_score.unwrap_or(0.0));
        let parted = self.observe([image_score, vsr(rollouts), mean_of(&|rollout| rollout.iou_in(frame))]);
        let mut numbers = StepNumbers::default();
        numbers.push("image_score", image_score);
        numbers.push("proxy_alarm", parted.len() as f64);
        numbers.extend(agreement(rollouts, frame).map(|agreement| ("proxy_agreement", agreement)));
        let warning = format!("ppo: warning: the image score has risen while {} fell", parted.join(" and "));
        (numbers, (!parted.is_empty()).then_some(warning))
    }
}

/// Share of the pairs of a picture's solids, of those with different IoUs, that the image score
/// puts in the same order; ties count half. `None` if there is no such pair.
fn agreement(rollouts: &[Rollout], frame: Frame) -> Option<f64> {
    let known = |rollout: &Rollout| {
        (rollout.is_scored() && rollout.is_valid()).then(|| Some((rollout.iou_in(frame), rollout.image_score?)))?
    };
    let (mut pairs, mut agreeing) = (0.0, 0.0);
    for part in rollouts.chunk_by(|a, b| a.index == b.index) {
        let known: Vec<(f64, f64)> = part.iter().filter_map(known).collect();
        for (i, a) in known.iter().enumerate() {
            for b in known[..i].iter().filter(|b| (b.0 - a.0).abs() > 1e-6) {
                pairs += 1.0;
                let order = (a.0 - b.0) * (a.1 - b.1);
                agreeing += if order > 0.0 { 1.0 } else { 0.5 * f64::from(u8::from(order == 0.0)) };
            }
        }
    }
    (pairs > 0.0).then(|| agreeing / pairs)
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::OutcomeClass;
    use cadwright_rollout::{Engine, Verdict};

    use super::*;

    fn rollout(index: usize, class: OutcomeClass, iou: f64, image_score: f64) -> Rollout {
        let score =
            Score { iou: [(Frame::Canonical, Some(iou))].into(), ..Score::of(Verdict::Known(class), Engine::Native) };
        Rollout { index, score: Some(score), image_score: Some(image_score), ..Rollout::default() }
    }

    #[test]
    fn an_alarm_names_what_fell_since_a_block_with_a_lower_image_score() {
        let mut watch = ProxyWatch::default();
        let mut block = |step: [f64; 3]| -> Vec<&'static str> {
            for _ in 1..ProxyWatch::BLOCK {
                assert!(watch.observe(step).is_empty(), "an alarm within a block");
            }
            watch.observe(step)
        };
        assert!(block([0.50, 0.90, 0.40]).is_empty());
        assert!(block([0.60, 0.90, 0.45]).is_empty(), "all rose");
        assert!(block([0.61, 0.85, 0.44]).contains(&"VSR"), "0.50 to 0.61, 0.90 to 0.85");
        assert_eq!(block([0.70, 0.95, 0.41]), ["IoU"], "0.45 in the second block");
        assert!(block([0.40, 0.10, 0.10]).is_empty(), "the image score fell too");
    }

    #[test]
    fn agreement_counts_pairs_of_solids_of_a_picture() {
        use OutcomeClass::{Solid, Syntax};
        let rollouts = [
            // IoU 0.2, 0.5, 0.8: the image score swaps the last two and ties none.
            rollout(3, Solid, 0.2, 0.1),
            rollout(3, Solid, 0.5, 0.9),
            rollout(3, Solid, 0.8, 0.7),
            // A failure takes no part.
            rollout(3, Syntax, 0.0, 0.0),
            // A tie in the image score, then one in the IoU, which is no pair.
            rollout(4, Solid, 0.1, 0.5),
            rollout(4, Solid, 0.3, 0.5),
            rollout(4, Solid, 0.3, 0.6),
        ];
        // Of part 3 two of three pairs; of part 4 a half and one of two pairs.
        assert_eq!(agreement(&rollouts, Frame::Canonical), Some(3.5 / 5.0));
        assert_eq!(agreement(&rollouts[..1], Frame::Canonical), None);
    }

    #[test]
    fn a_program_is_worth_what_its_reward_comes_from() {
        let rollout = rollout(0, OutcomeClass::Solid, 0.25, 0.75);
        let config = |source: &str| Config::load(None, &[format!("reward.source={source}")]).unwrap();
        assert_eq!(quality(&rollout, &config("shape")), 0.25);
        assert_eq!(quality(&rollout, &config("image")), 0.75);
    }
}
