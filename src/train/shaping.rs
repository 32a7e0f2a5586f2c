//! Shapes the rewards of a step before they become advantages.

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::rollouts::Rollout;

/// Sets the rewards that are trained on: the score's minus the penalty for length and, if
/// configured, in units of the running standard deviation. A rollout that could not be scored has
/// none and does not enter `scale`.
pub fn shape_rewards(rollouts: &mut [Rollout], config: &Config, scale: &mut RunningScale) {
    let ppo = &config.ppo;
    let shaped = |rollout: &Rollout| {
        let length = rollout.tokens().len() as f64 / config.generate.max_new_tokens as f64;
        let score = rollout.score.as_ref().filter(|_| rollout.is_scored())?;
        Some(score.reward - ppo.length_penalty * length)
    };
    let rewards: Vec<Option<f64>> = rollouts.iter().map(shaped).collect();
    scale.add(rewards.iter().flatten().copied());
    let unit = if ppo.reward_normalisation { scale.deviation() } else { 1.0 };
    for (rollout, reward) in rollouts.iter_mut().zip(rewards) {
        rollout.reward = reward.map(|reward| (reward / unit) as f32);
    }
}

/// Mean and variance of all rewards so far (Welford 1962).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunningScale {
    count: f64,
    mean: f64,
    squares: f64,
}

impl RunningScale {
    /// Takes `rewards` into account.
    pub fn add(&mut self, rewards: impl Iterator<Item = f64>) {
        for reward in rewards {
            self.count += 1.0;
            let before = reward - self.mean;
            self.mean += before / self.count;
            self.squares += before * (reward - self.mean);
        }
    }

    /// The (population) standard deviation; 1 if rewards do not differ.
    pub fn deviation(&self) -> f64 {
        let deviation = (self.squares / self.count.max(1.0)).sqrt();
        if deviation > 1e-6 { deviation } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_scale_is_that_of_all_rewards() {
        let mut scale = RunningScale::default();
        assert_eq!(scale.deviation(), 1.0);
        scale.add([1.0, 3.0].into_iter());
        scale.add([5.0, 7.0].into_iter());
        // Mean 4, variance (9 + 1 + 1 + 9) / 4 = 5.
        assert!((scale.deviation() - 5f64.sqrt()).abs() < 1e-12);
    }
}
