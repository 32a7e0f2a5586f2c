//! Shapes the rewards of a step before they become advantages.

use cadwright_rewards::RewardSource;
use cadwright_rewards::stats::mean;
use cadwright_rollout::Score;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::rollouts::{Rollout, is_scored};

/// Sets the rewards that are trained on: those of the scores minus the penalty for length and, if
/// configured, in units of the running standard deviation. A rollout that could not be scored has
/// none and does not enter `scale`.
///
/// The reward of an episode is that of its last turn. Earlier turns have the share
/// `ppo.turn_reward_share` of it: that much of the mean of their rewards takes the place of as much
/// of the last one's.
pub fn shape_rewards(rollouts: &mut [Rollout], config: &Config, scale: &mut RunningScale) {
    let ppo = &config.ppo;
    let shaped = |rollout: &Rollout| {
        let length = rollout.tokens().len() as f64 / config.generate.max_new_tokens as f64;
        Some(reward_of(rollout, ppo.turn_reward_share, config.reward.source)? - ppo.length_penalty * length)
    };
    let rewards: Vec<Option<f64>> = rollouts.iter().map(shaped).collect();
    scale.add(rewards.iter().flatten().copied());
    let unit = if ppo.reward_normalisation { scale.deviation() } else { 1.0 };
    for (rollout, reward) in rollouts.iter_mut().zip(rewards) {
        rollout.reward = reward.map(|reward| (reward / unit) as f32);
    }
}

/// The reward of an episode before it is shaped; `None` if a program whose reward counts could not
/// be scored.
fn reward_of(rollout: &Rollout, share_of_earlier: f64, source: RewardSource) -> Option<f64> {
    let reward = |score: Option<&Score>| score.filter(|score| is_known(score, source)).map(|score| score.reward);
    let last = reward(rollout.score.as_ref())?;
    if rollout.earlier.is_empty() || share_of_earlier == 0.0 {
        return Some(last);
    }
    let earlier = rollout.earlier.iter().map(|turn| reward(turn.score.as_ref())).collect::<Option<Vec<f64>>>()?;
    Some((1.0 - share_of_earlier) * last + share_of_earlier * mean(&earlier))
}

/// Whether a score has a reward. One from the picture needs no ground truth.
pub(super) fn is_known(score: &Score, source: RewardSource) -> bool {
    match source {
        RewardSource::Shape => is_scored(score),
        RewardSource::Image => score.verdict.class().is_some(),
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
    use cadwright_rewards::OutcomeClass;
    use cadwright_rollout::{Engine, Verdict};

    use super::*;
    use crate::conversation::Reply;
    use crate::turns::EarlierTurn;

    fn score(reward: f64, verdict: Verdict) -> Option<Score> {
        Some(Score { reward, ..Score::of(verdict, Engine::Native) })
    }

    #[test]
    fn earlier_turns_have_their_share_of_the_reward() {
        let solid = Verdict::Known(OutcomeClass::Solid);
        let episode = |first: Option<Score>| {
            let reply = Reply { ids: Vec::new(), picture: None };
            let (program, truncated, image) = (String::new(), false, None);
            let earlier = vec![EarlierTurn { end: 0, program, truncated, score: first, reply, image }];
            Rollout { earlier, score: score(0.75, solid), ..Rollout::default() }
        };
        let reward_of = |rollout: &Rollout, share: f64| reward_of(rollout, share, RewardSource::Shape);
        let alone = Rollout { score: score(0.75, solid), ..Rollout::default() };
        assert_eq!(reward_of(&alone, 0.0), Some(0.75));
        let better = episode(score(0.25, solid));
        assert_eq!(reward_of(&better, 0.0), Some(0.75));
        assert_eq!(reward_of(&better, 0.5), Some(0.5));
        assert_eq!(reward_of(&better, 1.0), Some(0.25));
        // A program that our own code failed on counts only if its reward does.
        let unknown = episode(score(0.0, Verdict::Panicked));
        assert_eq!((reward_of(&unknown, 0.0), reward_of(&unknown, 0.5)), (Some(0.75), None));
        assert_eq!(reward_of(&episode(None), 0.5), None);
    }

    #[test]
    fn without_a_ground_truth_only_the_picture_gives_a_reward() {
        let solid = Verdict::Known(OutcomeClass::Solid);
        let broken = Score { ground_truth_error: Some("no solid".into()), ..score(0.75, solid).unwrap() };
        let rollout = Rollout { score: Some(broken), ..Rollout::default() };
        assert_eq!(reward_of(&rollout, 0.0, RewardSource::Shape), None);
        assert_eq!(reward_of(&rollout, 0.0, RewardSource::Image), Some(0.75));
        let unknown = Rollout { score: score(0.0, Verdict::Panicked), ..Rollout::default() };
        assert_eq!(reward_of(&unknown, 0.0, RewardSource::Image), None);
    }

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
