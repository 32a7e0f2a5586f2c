//! From the rewards of a step's completions to the advantages of their tokens: all that PPO, RLOO, GRPO and Dr. GRPO differ in.

use serde::{Deserialize, Serialize};

use super::losses::{gae, leave_one_out, whiten};
use crate::config::{Algorithm, Ppo};

/// One completion as the advantage functions see it.
#[derive(Debug, Clone, Copy)]
pub struct Rewarded<'a> {
    /// Its reward, whole at the last token.
    pub reward: f32,
    /// Its tokens.
    pub tokens: &'a [i64],
    /// The critic's value of each token; empty without a critic.
    pub values: &'a [f32],
    /// Whether it could be scored. One that could not has advantage 0 and says nothing of the others.
    pub is_scored: bool,
}

/// What the update needs of one completion: one number a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// Advantages, shifted and scaled as the algorithm has it.
    pub advantages: Vec<f32>,
    /// What the critic should have said; empty without a critic.
    pub returns: Vec<f32>,
}

/// Advantages of a step's completions, `samples_per_image` of each picture one after another, and which of them are updated on
/// (see [`kept`]).
///
/// - `ppo`: GAE, whitened over the tokens that are updated on.
/// - `rloo`: the reward less the mean of the others' of its picture, whitened likewise (the paper does not whiten; it makes the
///   learning rate mean the same as PPO's). With `prefix_baseline`, the others are those that share the tokens so far.
/// - `grpo`: the reward less its picture's mean, divided by its picture's standard deviation. The paper takes the mean over a
///   completion's tokens first and then over completions, while our loss is the mean over all tokens; the surrogate is linear
///   in the advantage, so each advantage is multiplied by mean length / own length, which makes the two the same.
/// - `dr_grpo`: the reward less its picture's mean. Every token counts alike; the paper's constant divisor of the sum over tokens
///   is the mean length here, so that the loss is the mean over tokens.
pub fn advantages(completions: &[Rewarded<'_>], ppo: &Ppo) -> (Vec<Advantages>, Vec<usize>) {
    let mut found: Vec<Advantages> = match ppo.algorithm {
        Algorithm::Ppo => {
            let of = |c: &Rewarded<'_>| gae(c.reward, c.values, ppo.gamma, ppo.gae_lambda);
            completions.iter().map(of).map(|(advantages, returns)| Advantages { advantages, returns }).collect()
        }
        grouped => {
            let scored: Vec<usize> = completions.iter().filter(|c| c.is_scored).map(|c| c.tokens.len()).collect();
            let mean_length = scored.iter().sum::<usize>() as f32 / scored.len().max(1) as f32;
            let groups = completions.chunks(ppo.samples_per_image);
            groups
                .flat_map(|group| match ppo.prefix_baseline {
                    true => prefix_advantages(group),
                    false => group_advantages(group, grouped, mean_length)
                        .into_iter()
                        .zip(group)
                        .map(|(advantage, c)| vec![advantage; c.tokens.len()])
                        .collect(),
                })
                .map(|advantages| Advantages { advantages, returns: Vec::new() })
                .collect()
        }
    };
    for (of, completion) in found.iter_mut().zip(completions) {
        if !completion.is_scored {
            of.advantages.fill(0.0);
        }
    }
    let chosen = kept(completions, ppo.samples_per_image, ppo.keep_per_image, ppo.keep_images);
    if matches!(ppo.algorithm, Algorithm::Ppo | Algorithm::Rloo) {
        let updated = found.iter_mut().enumerate().filter(|(i, _)| chosen.binary_search(i).is_ok());
        whiten(&mut updated.flat_map(|(_, of)| &mut of.advantages).collect::<Vec<_>>());
    }
    if ppo.advantage_clip > 0.0 {
        let limit = ppo.advantage_clip as f32;
        found.iter_mut().flat_map(|of| &mut of.advantages).for_each(|a| *a = a.clamp(-limit, limit));
    }
    (found, chosen)
}

/// The advantage of each completion of one picture.
fn group_advantages(group: &[Rewarded<'_>], algorithm: Algorithm, mean_length: f32) -> Vec<f32> {
    let rewards: Vec<f32> = group.iter().filter(|c| c.is_scored).map(|c| c.reward).collect();
    let n = rewards.len().max(1) as f32;
    let mean = rewards.iter().sum::<f32>() / n;
    let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f32>() / n).sqrt();
    let mut others = leave_one_out(&rewards).into_iter();
    let of = |c: &Rewarded<'_>| match algorithm {
        _ if !c.is_scored => 0.0,
        Algorithm::Rloo => others.next().unwrap_or_default(),
        Algorithm::Grpo => (c.reward - mean) / (deviation + 1e-4) * mean_length / c.tokens.len().max(1) as f32,
        Algorithm::DrGrpo | Algorithm::Ppo => c.reward - mean,
    };
    group.iter().map(of).collect()
}

/// For each token of each completion of one picture, the reward less the mean of the others' that begin with the same tokens up to
/// it; once no other does, of those that went along the longest. What a prefix decides is credited where it is decided, and is no
/// noise to what follows. The baseline knows nothing of the token itself, so the gradient stays unbiased (a tree of samples in
/// place of VinePPO's fresh ones; Kazemnejad et al. 2024, arXiv:2410.01679).
fn prefix_advantages(group: &[Rewarded<'_>]) -> Vec<Vec<f32>> {
    let of = |i: usize| {
        let own = &group[i];
        let common = |other: &Rewarded<'_>| own.tokens.iter().zip(other.tokens).take_while(|(a, b)| a == b).count();
        let is_other = |j: &usize| *j != i && group[*j].is_scored;
        let others: Vec<(usize, f32)> =
            (0..group.len()).filter(is_other).map(|j| (common(&group[j]), group[j].reward)).collect();
        let longest = others.iter().map(|(common, _)| *common).max().unwrap_or(0);
        let baseline = |t: usize| {
            let along = others.iter().filter(|(common, _)| *common >= t.min(longest)).map(|(_, reward)| *reward);
            along.clone().sum::<f32>() / along.count() as f32
        };
        let advantage = |t| if others.is_empty() { 0.0 } else { own.reward - baseline(t) };
        (0..own.tokens.len()).map(advantage).collect()
    };
    (0..group.len()).map(of).collect()
}

/// The completions that are updated on. Of each picture's scored ones the `keep` whose rewards vary most, which are some of the best
/// and some of the worst (max-variance down-sampling; Xu et al. 2025, arXiv:2504.13818); of the pictures the `images` whose kept
/// rewards vary most, for where rewards are alike there is little to learn. 0 keeps all.
pub fn kept(completions: &[Rewarded<'_>], samples_per_image: usize, keep: usize, images: usize) -> Vec<usize> {
    let spread = |chosen: &[usize]| {
        let mean = chosen.iter().map(|&i| completions[i].reward).sum::<f32>() / chosen.len() as f32;
        chosen.iter().map(|&i| (completions[i].reward - mean).powi(2)).sum::<f32>()
    };
    let scored: Vec<usize> = (0..completions.len()).filter(|&i| completions[i].is_scored).collect();
    let mut groups: Vec<Vec<usize>> =
        scored.chunk_by(|a, b| a / samples_per_image == b / samples_per_image).map(<[usize]>::to_vec).collect();
    for group in groups.iter_mut().filter(|group| keep > 0 && group.len() > keep) {
        group.sort_by(|&a, &b| completions[b].reward.total_cmp(&completions[a].reward).then(a.cmp(&b)));
        let n = group.len();
        let ends = |best: usize| [&group[..best], &group[n - (keep - best)..]].concat();
        // The subset of the greatest variance is always of this form (their lemma 3.1).
        let widest = (0..=keep).map(ends).max_by(|a, b| spread(a).total_cmp(&spread(b)));
        *group = widest.unwrap_or_default();
    }
    if images > 0 {
        // Stable: of equals, the first.
        groups.sort_by(|a, b| spread(b).total_cmp(&spread(a)));
        groups.truncate(images);
    }
    let mut found = groups.concat();
    found.sort_unstable();
    found
}

/// Mean and spread of all rewards so far (Welford 1962).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunningScale {
    count: f64,
    mean: f64,
    squares: f64,
}

impl RunningScale {
    /// Takes these into account.
    pub fn add(&mut self, rewards: impl Iterator<Item = f64>) {
        for reward in rewards {
            self.count += 1.0;
            let before = reward - self.mean;
            self.mean += before / self.count;
            self.squares += before * (reward - self.mean);
        }
    }

    /// The (population) standard deviation; 1 where there is none.
    pub fn deviation(&self) -> f64 {
        let deviation = (self.squares / self.count.max(1.0)).sqrt();
        if deviation > 1e-6 { deviation } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn ppo(algorithm: Algorithm) -> Ppo {
        Ppo { algorithm, samples_per_image: 2, gae_lambda: 1.0, ..Config::default().ppo }
    }

    /// Rewards 1 and 3 of the first picture, 2 and 2 of the second, with 1, 3, 2 and 2 tokens.
    fn completions(values: &[f32]) -> Vec<Rewarded<'_>> {
        [(1.0, 1), (3.0, 3), (2.0, 2), (2.0, 2)]
            .map(|(reward, length)| Rewarded {
                reward,
                tokens: &[0; 3][..length],
                values: &values[..length.min(values.len())],
                is_scored: true,
            })
            .to_vec()
    }

    fn of(algorithm: Algorithm) -> Vec<Vec<f32>> {
        advantages(&completions(&[]), &ppo(algorithm)).0.into_iter().map(|of| of.advantages).collect()
    }

    fn assert_close(found: &[Vec<f32>], expected: &[&[f32]]) {
        assert_eq!(
            found.iter().map(Vec::len).collect::<Vec<_>>(),
            expected.iter().map(|e| e.len()).collect::<Vec<_>>()
        );
        for (f, e) in found.iter().flatten().zip(expected.iter().copied().flatten()) {
            assert!((f - e).abs() < 3e-4, "expected {expected:?}, got {found:?}");
        }
    }

    #[test]
    fn dr_grpo_is_the_reward_less_the_mean() {
        assert_close(&of(Algorithm::DrGrpo), &[&[-1.0], &[1.0; 3], &[0.0; 2], &[0.0; 2]]);
    }

    #[test]
    fn grpo_divides_by_the_deviation_and_counts_completions_alike() {
        // The deviation of 1 and 3 is 1. The mean length is 2: factors 2 / 1 and 2 / 3.
        assert_close(&of(Algorithm::Grpo), &[&[-2.0], &[2.0 / 3.0; 3], &[0.0; 2], &[0.0; 2]]);
        // The mean over tokens of advantage x probability ratio is the mean over completions of the mean over their tokens.
        let found = of(Algorithm::Grpo);
        let over_tokens = found.iter().flatten().map(|a| a * 0.9).sum::<f32>() / 8.0;
        assert!((over_tokens - 0.9 * (-1.0 + 1.0 + 0.0 + 0.0) / 4.0).abs() < 1e-4);
    }

    #[test]
    fn rloo_compares_with_the_others_and_whitens() {
        // -2 once, 2 three times, 0 four times: mean 0.5, variance (6.25 + 3 x 2.25 + 4 x 0.25) / 8 = 1.75.
        let d = 1.75f32.sqrt();
        assert_close(&of(Algorithm::Rloo), &[&[-2.5 / d], &[1.5 / d; 3], &[-0.5 / d; 2], &[-0.5 / d; 2]]);
    }

    #[test]
    fn a_prefix_baseline_credits_the_token_that_decides() {
        let completion = |reward, tokens| Rewarded { reward, tokens, values: &[], is_scored: true };
        let group = [
            completion(6.0, &[1, 2, 3]),
            completion(3.0, &[1, 2, 4]),
            completion(0.0, &[1, 5]),
            Rewarded { is_scored: false, ..completion(100.0, &[1, 2, 3]) },
        ];
        let found = prefix_advantages(&group);
        // All share the beginning: 6 - (3 + 0) / 2, 3 - (6 + 0) / 2, 0 - (6 + 3) / 2. The second token is chosen where all still agree.
        // The third by two of them: 6 - 3 and 3 - 6.
        assert_close(&found[..3], &[&[4.5, 4.5, 3.0], &[0.0, 0.0, -3.0], &[-4.5, -4.5]]);
        // A completion that is alone has nothing to be compared with.
        assert_close(&prefix_advantages(&group[..1]), &[&[0.0; 3]]);
        let ppo = Ppo { samples_per_image: 4, prefix_baseline: true, ..ppo(Algorithm::Rloo) };
        let (found, chosen) = advantages(&group, &ppo);
        assert_eq!((chosen, found[3].advantages.as_slice()), (vec![0, 1, 2], &[0.0; 3][..]));
        // Whitened: the mean of the eight is (9 + 3 - 3 - 9) / 8 = 0, their variance (4 x 20.25 + 2 x 9) / 8 = 12.375.
        let d = 12.375f32.sqrt();
        assert!((found[0].advantages[2] - 3.0 / d).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn ppo_follows_the_critic() {
        let values = [2.0; 3];
        let (found, _) = advantages(&completions(&values), &ppo(Algorithm::Ppo));
        assert_eq!(found[1].returns, [3.0; 3]);
        // -1 once, 1 three times, 0 four times: mean 0.25, variance (1.5625 + 3 x 0.5625 + 4 x 0.0625) / 8 = 0.4375.
        let d = 0.4375f32.sqrt();
        let expected: [&[f32]; 4] = [&[-1.25 / d], &[0.75 / d; 3], &[-0.25 / d; 2], &[-0.25 / d; 2]];
        assert_close(&found.into_iter().map(|of| of.advantages).collect::<Vec<_>>(), &expected);
    }

    #[test]
    fn what_could_not_be_scored_says_nothing() {
        for algorithm in [Algorithm::Rloo, Algorithm::Grpo, Algorithm::DrGrpo] {
            let mut completions = completions(&[]);
            completions[0] = Rewarded { reward: -100.0, is_scored: false, ..completions[0] };
            let (found, chosen) = advantages(&completions, &ppo(algorithm));
            assert_eq!(found[0].advantages, [0.0]);
            assert!(
                found[1..].iter().flat_map(|of| &of.advantages).all(|a| a.abs() < 1e-3),
                "{algorithm:?}: {found:?}"
            );
            assert_eq!(chosen, [1, 2, 3]);
        }
    }

    #[test]
    fn advantages_are_clipped() {
        let (clipped, _) = advantages(&completions(&[]), &Ppo { advantage_clip: 0.75, ..ppo(Algorithm::DrGrpo) });
        assert_eq!((clipped[0].advantages[0], clipped[1].advantages[0]), (-0.75, 0.75));
    }

    #[test]
    fn the_most_various_completions_are_kept() {
        let of = |rewards: &[f32]| -> Vec<Rewarded<'_>> {
            rewards.iter().map(|&reward| Rewarded { reward, tokens: &[0], values: &[], is_scored: true }).collect()
        };
        let completions = of(&[0.5, 0.0, 1.0, 0.6, 0.1, 0.9]);
        assert_eq!(kept(&completions, 6, 2, 0), [1, 2]);
        assert_eq!(kept(&completions, 6, 4, 0), [1, 2, 4, 5]);
        assert_eq!(kept(&completions, 3, 2, 0), [1, 2, 4, 5]);
        assert_eq!(kept(&completions, 6, 0, 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(&completions, 6, 9, 0), [0, 1, 2, 3, 4, 5]);
        // The first three rewards spread over 1, the last three over 0.8.
        assert_eq!(kept(&completions, 3, 2, 1), [1, 2]);
        assert_eq!(kept(&completions, 3, 0, 1), [0, 1, 2]);
        // One good among bad ones: it and any of the bad.
        assert!(kept(&of(&[0.0, 0.0, 1.0, 0.0]), 4, 2, 0).contains(&2));
        // Whitening is over what is kept: the mean advantage of the update is 0.
        let (found, chosen) =
            advantages(&completions, &Ppo { samples_per_image: 6, keep_per_image: 2, ..ppo(Algorithm::Rloo) });
        let kept: Vec<f32> = chosen.iter().map(|&i| found[i].advantages[0]).collect();
        assert!((kept[0] + 1.0).abs() < 1e-4 && (kept[1] - 1.0).abs() < 1e-4, "{kept:?}");
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
