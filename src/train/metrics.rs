//! The numbers that a step logs. `docs/metrics.md` defines every name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Result;
use cadwright_rewards::frames::Frame;
use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rewards::reward::MetricValues;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::losses::explained_variance;
use crate::config::{Algorithm, Config};
use crate::distributed::World;
use crate::rollouts::Rollout;

/// Named numbers of a step.
#[derive(Debug, Clone, Default)]
pub struct StepNumbers(Vec<(String, f64)>);

impl StepNumbers {
    /// Adds a number.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }

    /// Adds several numbers.
    pub fn extend<'a>(&mut self, numbers: impl IntoIterator<Item = (&'a str, f64)>) {
        numbers.into_iter().for_each(|(name, value)| self.push(name, value));
    }

    /// The number of that name; 0 if there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.iter().find(|(own, _)| own == name).map_or(0.0, |(_, value)| *value)
    }

    /// All numbers, in the order in which they were added.
    pub fn as_pairs(&self) -> Vec<(&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

/// Weighted means over the minibatches of an update.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Means {
    /// By name: the sum of weighted values, and the sum of weights.
    sums: BTreeMap<Cow<'static, str>, (f64, f64)>,
}

impl Means {
    /// Adds a value with a weight. The pieces of a minibatch have weights that add up to 1.
    pub(super) fn add(&mut self, name: &'static str, value: f64, weight: f64) {
        let (sum, weights) = self.sums.entry(Cow::Borrowed(name)).or_default();
        *sum += value * weight;
        *weights += weight;
    }

    /// Adds the mean of a tensor's elements with a weight.
    pub(super) fn add_mean(&mut self, name: &'static str, values: &Tensor, weight: f64) {
        self.add(name, values.detach().mean(Kind::Float).double_value(&[]), weight);
    }

    /// The weighted sum of all values of that name.
    pub(super) fn total(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(sum, _)| *sum)
    }

    /// The sum of all weights of that name.
    pub(super) fn weight(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(_, weights)| *weights)
    }

    /// The mean of that name; `None` if nothing was added.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.sums.get(name).map(|(sum, weights)| sum / weights)
    }

    /// As [`Self::get`], and forgets the name.
    pub(super) fn take(&mut self, name: &str) -> Option<f64> {
        self.sums.remove(name).map(|(sum, weights)| sum / weights)
    }

    /// Adds all values and weights of `other`.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (name, (sum, weights)) in &other.sums {
            let own = self.sums.entry(name.clone()).or_default();
            *own = (own.0 + sum, own.1 + weights);
        }
    }

    /// The means over the values of all ranks.
    ///
    /// # Errors
    /// Another rank is gone.
    pub(super) fn over_all(self, world: &World) -> Result<Self> {
        let mut all = Self::default();
        world.gather("the means of an update", self)?.iter().for_each(|part| all.absorb(part));
        Ok(all)
    }

    /// All means by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.sums.iter().map(|(name, (sum, weights))| (name.as_ref(), sum / weights))
    }
}

/// Describes a step's rollouts: rewards, outcomes, lengths.
pub(super) fn rollout_numbers(rollouts: &[Rollout], config: &Config) -> StepNumbers {
    let n = rollouts.len() as f64;
    let frame = config.reward_frame();
    let mean = |value: &dyn Fn(&Rollout) -> f64| rollouts.iter().map(value).sum::<f64>() / n;
    let mut numbers = StepNumbers::default();
    numbers.extend([
        ("reward_mean", mean(&|rollout| rollout.score.as_ref().map_or(0.0, |score| score.reward))),
        ("iou_mean", mean(&|rollout| rollout.iou_in(frame))),
        ("vsr", vsr(rollouts)),
        ("truncated", mean(&|rollout| f64::from(rollout.completion.truncated))),
        ("response_length", mean(&|rollout| rollout.tokens().len() as f64)),
        ("ground_truth_failures", n * (1.0 - mean(&|rollout| f64::from(rollout.is_scored())))),
    ]);
    if config.ppo.algorithm == Algorithm::Ppo {
        let scored = || rollouts.iter().filter(|rollout| rollout.reward.is_some());
        let values: Vec<f32> = scored().flat_map(|rollout| &rollout.values).copied().collect();
        let returns: Vec<f32> = scored().flat_map(|rollout| &rollout.returns).copied().collect();
        numbers.push("explained_variance", explained_variance(&values, &returns));
    }
    if config.ppo.turns > 1 {
        turn_numbers(rollouts, config.ppo.turns, frame).into_iter().for_each(|(name, value)| numbers.push(name, value));
    }
    let metrics = &config.reward.metrics;
    let measured = [metrics.chamfer, metrics.siou, metrics.aligned].into_iter().zip(MetricValues::default().named());
    for (i, (_, (name, _))) in measured.enumerate().filter(|(_, (weight, _))| *weight > 0.0) {
        let value =
            |rollout: &Rollout| rollout.score.as_ref().and_then(|score| score.metrics.named()[i].1).unwrap_or(0.0);
        numbers.push(format!("metric/{name}"), mean(&value));
    }
    for class in OutcomeClass::ALL {
        let is_outcome =
            |rollout: &&Rollout| rollout.score.as_ref().and_then(|score| score.verdict.class()) == Some(class);
        numbers.push(format!("outcome/{}", class.name()), rollouts.iter().filter(is_outcome).count() as f64);
    }
    numbers
}

/// The mean IoU of each turn, the gain of the last turn over the first, and the share of episodes
/// whose last program differs from the first.
fn turn_numbers(rollouts: &[Rollout], turns: usize, frame: Frame) -> Vec<(String, f64)> {
    let n = rollouts.len().max(1) as f64;
    let iou_of = |turn: usize| {
        let iou = |rollout: &Rollout| rollout.scores().nth(turn).flatten().map_or(0.0, |score| score.iou_in(frame));
        rollouts.iter().map(iou).sum::<f64>() / n
    };
    let ious: Vec<f64> = (0..turns).map(iou_of).collect();
    let is_changed = |rollout: &&Rollout| rollout.earlier.first().is_some_and(|first| first.program != rollout.program);
    let mut numbers: Vec<(String, f64)> =
        ious.iter().enumerate().map(|(turn, iou)| (format!("turn{}_iou", turn + 1), *iou)).collect();
    numbers.push(("turn_gain".into(), ious[turns - 1] - ious[0]));
    numbers.push(("turn_changed".into(), rollouts.iter().filter(is_changed).count() as f64 / n));
    numbers
}

/// Share of the rollouts whose program built a solid.
pub(super) fn vsr(rollouts: &[Rollout]) -> f64 {
    rollouts.iter().filter(|rollout| rollout.is_valid()).count() as f64 / rollouts.len().max(1) as f64
}
