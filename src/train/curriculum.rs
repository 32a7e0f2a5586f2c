//! Chooses the parts of a step of reinforcement learning.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How much the rewards of each training part's completions varied when it was last seen. A part
/// whose completions are all right or all wrong teaches nothing to an algorithm that compares them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RewardSpread {
    /// For each part, a running mean of the standard deviation of its completions' rewards;
    /// negative before the part is seen.
    spreads: Vec<f32>,
    /// For each part, a running mean of the mean reward.
    means: Vec<f32>,
}

/// Lowest chance of a part to be drawn, as a share of the highest.
const LOWEST_CHANCE: f32 = 0.1;

impl RewardSpread {
    /// The state of `parts` parts before any of them is seen.
    pub fn new(parts: usize) -> Self {
        Self { spreads: vec![-1.0; parts], means: vec![0.0; parts] }
    }

    /// Takes the rewards of one part's completions into account. `None` is a completion that could
    /// not be scored and does not count. Fewer than two rewards have no spread and change nothing.
    pub fn observe(&mut self, part: usize, rewards: impl Iterator<Item = Option<f32>>) {
        let rewards: Vec<f32> = rewards.flatten().collect();
        if rewards.len() < 2 {
            return;
        }
        let n = rewards.len() as f32;
        let mean = rewards.iter().sum::<f32>() / n;
        let spread = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f32>() / n).sqrt();
        let is_new = self.spreads[part] < 0.0;
        let blend = |old: f32, new: f32| if is_new { new } else { 0.5 * old + 0.5 * new };
        self.means[part] = blend(self.means[part], mean);
        self.spreads[part] = blend(self.spreads[part], spread);
    }

    /// Number of parts that have been seen.
    pub fn seen(&self) -> usize {
        self.spreads.iter().filter(|spread| **spread >= 0.0).count()
    }

    /// Draws `count` different parts with chances in proportion to their spreads, but at least a
    /// tenth of the highest. Parts not seen yet have the mean spread of those that were.
    pub fn draw(&self, count: usize, seed: u64) -> Vec<usize> {
        let known: Vec<f32> = self.spreads.iter().copied().filter(|spread| *spread >= 0.0).collect();
        let mean = known.iter().sum::<f32>() / known.len().max(1) as f32;
        let highest = known.iter().copied().fold(1e-6, f32::max);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The largest of u^(1 / w) are a weighted sample without replacement (Efraimidis & Spirakis
        // 2006).
        let mut keys: Vec<(f32, usize)> = self
            .spreads
            .iter()
            .enumerate()
            .map(|(part, &spread)| {
                let weight = (if spread < 0.0 { mean } else { spread }).max(LOWEST_CHANCE * highest);
                (rng.random_range(f32::MIN_POSITIVE..1.0f32).ln() / weight, part)
            })
            .collect();
        keys.sort_by(|a, b| b.0.total_cmp(&a.0));
        keys.truncate(count);
        keys.into_iter().map(|(_, part)| part).collect()
    }
}

/// The `count` parts of step `step` if epochs follow each other. Each epoch goes through all parts
/// in an order of its own, drawn with the seed `seed_of(epoch)`.
pub fn by_epochs(parts: usize, count: usize, step: usize, seed_of: impl Fn(u64) -> u64) -> Vec<usize> {
    let count = count.min(parts);
    let steps_per_epoch = (parts / count).max(1);
    let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
    let mut order: Vec<usize> = (0..parts).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed_of(epoch as u64)));
    order[position * count..(position + 1) * count].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observes completions that were all scored.
    fn observe(spread: &mut RewardSpread, part: usize, rewards: &[f32]) {
        spread.observe(part, rewards.iter().copied().map(Some));
    }

    #[test]
    fn an_epoch_takes_every_part_once() {
        let taken: Vec<usize> = (0..3).flat_map(|step| by_epochs(6, 2, step, |epoch| epoch)).collect();
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
        assert_ne!(taken, (3..6).flat_map(|step| by_epochs(6, 2, step, |epoch| epoch)).collect::<Vec<_>>());
    }

    #[test]
    fn parts_with_spread_rewards_come_ten_times_as_often_as_others() {
        let mut spread = RewardSpread::new(100);
        for part in 0..100 {
            // Half are always right, half are right every other time.
            observe(&mut spread, part, if part < 50 { &[1.0, 1.0] } else { &[0.0, 1.0] });
        }
        let drawn: Vec<usize> = (0..2000).flat_map(|seed| spread.draw(1, seed)).collect();
        let dull = drawn.iter().filter(|part| **part < 50).count() as f64 / drawn.len() as f64;
        assert!((dull - 1.0 / 11.0).abs() < 0.02, "{dull}");
        assert_eq!(spread.seen(), 100);
    }

    #[test]
    fn parts_differ_and_unseen_ones_are_drawn_like_the_mean() {
        let mut spread = RewardSpread::new(4);
        let mut first = spread.draw(4, 7);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3]);
        observe(&mut spread, 0, &[0.0, 2.0]);
        observe(&mut spread, 1, &[1.0, 1.0]);
        // Spreads 1, 0, and unseen twice: weights 1, 0.1, 0.5, 0.5.
        let drawn: Vec<usize> = (0..4000).flat_map(|seed| spread.draw(1, seed)).collect();
        let share = |part: usize| drawn.iter().filter(|found| **found == part).count() as f64 / 4000.0;
        for (part, expected) in [1.0, 0.1, 0.5, 0.5].into_iter().enumerate() {
            assert!((share(part) - expected / 2.1).abs() < 0.03, "part {part}: {}", share(part));
        }
    }

    #[test]
    fn an_observation_fades_when_others_follow() {
        let mut spread = RewardSpread::new(1);
        observe(&mut spread, 0, &[0.0, 2.0]);
        observe(&mut spread, 0, &[1.0, 1.0]);
        assert_eq!((spread.spreads[0], spread.means[0]), (0.5, 1.0));
    }

    #[test]
    fn completions_that_could_not_be_scored_do_not_count() {
        let mut spread = RewardSpread::new(2);
        spread.observe(0, [None, Some(1.0), Some(3.0), None].into_iter());
        // Of 1 and 3: mean 2, standard deviation 1.
        assert_eq!((spread.spreads[0], spread.means[0], spread.seen()), (1.0, 2.0, 1));
        for rewards in [[None, None], [Some(0.5), None]] {
            spread.observe(0, rewards.into_iter());
            spread.observe(1, rewards.into_iter());
        }
        assert_eq!((spread.spreads[0], spread.means[0], spread.seen()), (1.0, 2.0, 1));
    }
}
