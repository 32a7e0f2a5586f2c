//! Turns the rewards of a step's rollouts into the advantages of their tokens. PPO, RLOO, GRPO and
//! Dr. GRPO differ here, and in [`length_factor`], and nowhere else.

use super::losses::{gae, is_constant, leave_one_out, whiten};
use crate::config::{Algorithm, Ppo};
use crate::rollouts::Rollout;

/// Sets the advantages of a step's rollouts, and with a critic their returns, from their rewards
/// and values. Returns the indices of the rollouts to update on, ascending; see
/// [`select_for_update`]. The `samples_per_image` rollouts of each picture follow each other.
///
/// - `ppo`: GAE, whitened over the tokens that are updated on.
/// - `rloo`: the reward minus the mean reward of the picture's other rollouts, whitened likewise.
///   (The paper does not whiten; with it, a learning rate means the same as in PPO.) With
///   `prefix_baseline`, the others are those that share the tokens so far.
/// - `grpo`: the reward minus its picture's mean, divided by its picture's standard deviation.
/// - `dr_grpo`: the reward minus its picture's mean. The loss is the mean over tokens; the paper
///   divides the sum over tokens by a constant.
///
/// The advantage is 0 for a rollout without a reward and, if rewards are compared within a picture,
/// for all rollouts of a picture whose rewards are equal up to rounding.
pub fn assign_advantages(rollouts: &mut [Rollout], ppo: &Ppo) -> Vec<usize> {
    let rewards: Vec<Option<f32>> = rollouts.iter().map(|rollout| rollout.reward).collect();
    for rollout in rollouts.iter_mut() {
        rollout.advantages = vec![0.0; rollout.tokens().len()];
    }
    match ppo.algorithm {
        Algorithm::Ppo => {
            for rollout in rollouts.iter_mut() {
                if let Some(reward) = rollout.reward {
                    (rollout.advantages, rollout.returns) = gae(reward, &rollout.values, ppo.gamma, ppo.gae_lambda);
                }
            }
        }
        _ => rollouts.chunks_mut(ppo.samples_per_image).for_each(|group| compare_within(group, ppo)),
    }
    let selected = select_for_update(&rewards, ppo.samples_per_image, ppo.keep_per_image, ppo.keep_images);
    if matches!(ppo.algorithm, Algorithm::Ppo | Algorithm::Rloo) {
        let is_selected = |i: &usize| selected.binary_search(i).is_ok();
        let updated = rollouts.iter_mut().enumerate().filter(|(i, _)| is_selected(i));
        whiten(&mut updated.flat_map(|(_, rollout)| &mut rollout.advantages).collect::<Vec<_>>());
    }
    if ppo.algorithm.is_grouped() {
        // Whitening has shifted the zeros of tied pictures. Equal advantages other than 0 would
        // train only the length of completions.
        for group in rollouts.chunks_mut(ppo.samples_per_image).filter(|group| is_tied(group)) {
            group.iter_mut().for_each(|rollout| rollout.advantages.fill(0.0));
        }
    }
    if ppo.advantage_clip > 0.0 {
        let limit = ppo.advantage_clip as f32;
        let advantages = rollouts.iter_mut().flat_map(|rollout| &mut rollout.advantages);
        advantages.for_each(|advantage| *advantage = advantage.clamp(-limit, limit));
    }
    selected
}

/// Sets the advantages of the rollouts of one picture.
fn compare_within(group: &mut [Rollout], ppo: &Ppo) {
    if is_tied(group) {
        return;
    }
    let rewards: Vec<Option<f32>> = group.iter().map(|rollout| rollout.reward).collect();
    if ppo.prefix_baseline {
        let tokens: Vec<&[i64]> = group.iter().map(Rollout::tokens).collect();
        let advantages = prefix_advantages(&tokens, &rewards);
        group.iter_mut().zip(advantages).for_each(|(rollout, advantages)| rollout.advantages = advantages);
    } else {
        let advantages = group_advantages(&rewards, ppo.algorithm);
        group.iter_mut().zip(advantages).for_each(|(rollout, advantage)| rollout.advantages.fill(advantage));
    }
}

/// Whether the rewards of the rollouts of one picture are equal up to rounding, so that comparing
/// them says nothing.
fn is_tied(group: &[Rollout]) -> bool {
    is_constant(group.iter().filter_map(|rollout| rollout.reward))
}

/// The advantage of each completion of one picture; 0 for those without a reward.
fn group_advantages(rewards: &[Option<f32>], algorithm: Algorithm) -> Vec<f32> {
    let known: Vec<f32> = rewards.iter().flatten().copied().collect();
    let n = known.len().max(1) as f32;
    let mean = known.iter().sum::<f32>() / n;
    let deviation = (known.iter().map(|r| (r - mean).powi(2)).sum::<f32>() / n).sqrt();
    let mut compared_with_others = leave_one_out(&known).into_iter();
    let advantage = |reward: &Option<f32>| match (reward, algorithm) {
        (None, _) => 0.0,
        (Some(_), Algorithm::Rloo) => compared_with_others.next().unwrap_or_default(),
        (Some(reward), Algorithm::Grpo) => (reward - mean) / (deviation + 1e-4),
        (Some(reward), Algorithm::DrGrpo | Algorithm::Ppo) => reward - mean,
    };
    rewards.iter().map(advantage).collect()
}

/// For each token of each completion of one picture, the reward minus the mean reward of the other
/// completions that begin with the same tokens up to it; if no other does, of those that shared the
/// most tokens. A token is thus credited with its own effect, and not with that of later tokens.
/// The baseline does not depend on the token itself, so the gradient stays unbiased. (A
/// tree of samples in place of VinePPO's additional ones; Kazemnejad et al. 2024,
/// arXiv:2410.01679.)
fn prefix_advantages(tokens: &[&[i64]], rewards: &[Option<f32>]) -> Vec<Vec<f32>> {
    let shared = |i: usize, j: usize| tokens[i].iter().zip(tokens[j]).take_while(|(a, b)| a == b).count();
    let advantages = |i: usize| {
        let others: Vec<(usize, f32)> =
            (0..tokens.len()).filter(|&j| j != i).filter_map(|j| Some((shared(i, j), rewards[j]?))).collect();
        let longest = others.iter().map(|(shared, _)| *shared).max().unwrap_or(0);
        let baseline = |t: usize| {
            let alike = others.iter().filter(|(shared, _)| *shared >= t.min(longest)).map(|(_, reward)| *reward);
            alike.clone().sum::<f32>() / alike.count() as f32
        };
        let advantage = |t| match rewards[i] {
            Some(reward) if !others.is_empty() => reward - baseline(t),
            _ => 0.0,
        };
        (0..tokens[i].len()).map(advantage).collect()
    };
    (0..tokens.len()).map(advantages).collect()
}

/// Factor of the advantages of a completion of `length` tokens in the loss of a minibatch, which is
/// a mean over all tokens of its completions; `mean_length` is their mean length. GRPO takes the
/// mean over a completion's tokens first and then the mean over completions. The surrogate is
/// linear in the advantage, so that the factor `mean_length / length` turns one mean into the
/// other, whichever completions a minibatch has. 1 for the others.
pub fn length_factor(algorithm: Algorithm, length: usize, mean_length: f32) -> f32 {
    if algorithm == Algorithm::Grpo { mean_length / length.max(1) as f32 } else { 1.0 }
}

/// Selects the completions to update on by their rewards; those without one never are. Of each
/// picture's completions, selects the `keep` whose rewards vary most, which are some of the best
/// and some of the worst (max-variance down-sampling; Xu et al. 2025, arXiv:2504.13818); of the
/// pictures, the `images` whose selected rewards vary most, since equal rewards teach little. 0
/// selects all.
pub fn select_for_update(rewards: &[Option<f32>], samples_per_image: usize, keep: usize, images: usize) -> Vec<usize> {
    let spread = |group: &[(usize, f32)]| {
        let mean = group.iter().map(|(_, reward)| *reward).sum::<f32>() / group.len() as f32;
        group.iter().map(|(_, reward)| (reward - mean).powi(2)).sum::<f32>()
    };
    let known: Vec<(usize, f32)> = rewards.iter().enumerate().filter_map(|(i, reward)| Some((i, (*reward)?))).collect();
    let is_same_picture = |a: &(usize, f32), b: &(usize, f32)| a.0 / samples_per_image == b.0 / samples_per_image;
    let mut groups: Vec<Vec<(usize, f32)>> = known.chunk_by(is_same_picture).map(<[_]>::to_vec).collect();
    for group in groups.iter_mut().filter(|group| keep > 0 && group.len() > keep) {
        group.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let n = group.len();
        let ends = |best: usize| [&group[..best], &group[n - (keep - best)..]].concat();
        // The subset of the greatest variance always has this form (their lemma 3.1).
        let widest = (0..=keep).map(ends).max_by(|a, b| spread(a).total_cmp(&spread(b)));
        *group = widest.unwrap_or_default();
    }
    if images > 0 {
        // The sort is stable: of equal spreads, the first wins.
        groups.sort_by(|a, b| spread(b).total_cmp(&spread(a)));
        groups.truncate(images);
    }
    let mut selected: Vec<usize> = groups.into_iter().flatten().map(|(i, _)| i).collect();
    selected.sort_unstable();
    selected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::generate::Completion;

    fn ppo(algorithm: Algorithm) -> Ppo {
        Ppo { algorithm, samples_per_image: 2, gae_lambda: 1.0, ..Config::default().ppo }
    }

    fn rollout(reward: impl Into<Option<f32>>, tokens: &[i64]) -> Rollout {
        let completion = Completion { tokens: tokens.to_vec(), ..Completion::default() };
        Rollout { reward: reward.into(), completion, ..Rollout::default() }
    }

    /// Rewards 1 and 3 of the first picture, 2 and 2 of the second, with 1, 3, 2 and 2 tokens.
    fn rollouts() -> Vec<Rollout> {
        [(1.0, 1), (3.0, 3), (2.0, 2), (2.0, 2)].map(|(reward, length)| rollout(reward, &[0; 3][..length])).into()
    }

    fn advantages_of(mut rollouts: Vec<Rollout>, ppo: &Ppo) -> Vec<Vec<f32>> {
        assign_advantages(&mut rollouts, ppo);
        rollouts.into_iter().map(|rollout| rollout.advantages).collect()
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
    fn dr_grpo_is_the_reward_minus_the_mean() {
        let found = advantages_of(rollouts(), &ppo(Algorithm::DrGrpo));
        assert_close(&found, &[&[-1.0], &[1.0; 3], &[0.0; 2], &[0.0; 2]]);
    }

    #[test]
    fn grpo_divides_by_the_deviation() {
        // The deviation of 1 and 3 is 1.
        let found = advantages_of(rollouts(), &ppo(Algorithm::Grpo));
        assert_close(&found, &[&[-1.0], &[1.0; 3], &[0.0; 2], &[0.0; 2]]);
    }

    #[test]
    fn grpo_counts_completions_alike_in_every_minibatch() {
        // Advantages of completions of 1, 3, 2 and 6 tokens. The policy loss of a minibatch is the
        // mean over its tokens of factor x advantage; GRPO asks for the mean over completions.
        let (lengths, advantages) = ([1usize, 3, 2, 6], [-1.0f32, 1.0, 0.5, 2.0]);
        for minibatch in [&[0usize, 1, 2, 3][..], &[0, 1], &[2, 3], &[0, 3], &[1]] {
            let tokens = minibatch.iter().map(|&i| lengths[i]).sum::<usize>() as f32;
            let mean_length = tokens / minibatch.len() as f32;
            let weighted = |&i: &usize| {
                let factor = length_factor(Algorithm::Grpo, lengths[i], mean_length);
                factor * advantages[i] * lengths[i] as f32
            };
            let over_tokens = minibatch.iter().map(weighted).sum::<f32>() / tokens;
            let over_completions = minibatch.iter().map(|&i| advantages[i]).sum::<f32>() / minibatch.len() as f32;
            assert!((over_tokens - over_completions).abs() < 1e-6, "{minibatch:?}: {over_tokens}");
        }
        assert_eq!(length_factor(Algorithm::DrGrpo, 3, 12.0), 1.0);
    }

    #[test]
    fn rloo_compares_with_the_others_and_whitens() {
        // -2 once, 2 three times, 0 four times: mean 0.5, variance (6.25 + 3 x 2.25 + 4 x 0.25) / 8
        // = 1.75. The second picture's rewards are equal.
        let d = 1.75f32.sqrt();
        let found = advantages_of(rollouts(), &ppo(Algorithm::Rloo));
        assert_close(&found, &[&[-2.5 / d], &[1.5 / d; 3], &[0.0; 2], &[0.0; 2]]);
    }

    #[test]
    fn rewards_equal_up_to_rounding_have_advantage_0() {
        // The rounding error of summing three f32 rewards in another order.
        let tied = |reward: f32| [reward, reward, reward.next_up(), reward.next_down()].map(|r| rollout(r, &[0; 2]));
        for algorithm in [Algorithm::Rloo, Algorithm::Grpo, Algorithm::DrGrpo] {
            for prefix_baseline in [false, algorithm == Algorithm::Rloo] {
                let ppo = Ppo { samples_per_image: 4, prefix_baseline, ..ppo(algorithm) };
                let all_tied = [tied(0.1), tied(1.1)].into_iter().flatten().collect();
                let found = advantages_of(all_tied, &ppo);
                assert!(found.iter().flatten().all(|a| *a == 0.0), "{algorithm:?}: {found:?}");
                let mixed = [0.0, 1.0, 0.5, 0.0].map(|reward| rollout(reward, &[0; 3]));
                let found = advantages_of(tied(0.1).into_iter().chain(mixed).collect(), &ppo);
                assert!(found[..4].iter().flatten().all(|a| *a == 0.0), "{algorithm:?}: {found:?}");
                assert!(found[5][0] > 0.3 && found[4][0] < -0.3, "{algorithm:?}: {found:?}");
            }
        }
        // A critic that is right to the last bit leaves rounding noise.
        let with_critic = |reward: f32| Rollout { values: vec![reward.next_up(), reward], ..rollout(reward, &[0; 2]) };
        let found = advantages_of(vec![with_critic(0.1), with_critic(0.2)], &ppo(Algorithm::Ppo));
        assert!(found.iter().flatten().all(|a| *a == 0.0), "{found:?}");
    }

    #[test]
    fn a_prefix_baseline_credits_the_token_that_decides() {
        let group = || {
            let unscored = rollout(None, &[1, 2, 3]);
            vec![rollout(6.0, &[1, 2, 3]), rollout(3.0, &[1, 2, 4]), rollout(0.0, &[1, 5]), unscored]
        };
        let rewards = [Some(6.0), Some(3.0), Some(0.0), None];
        let found = prefix_advantages(&[&[1, 2, 3], &[1, 2, 4], &[1, 5], &[1, 2, 3]], &rewards);
        // All share the beginning: 6 - (3 + 0) / 2, 3 - (6 + 0) / 2, 0 - (6 + 3) / 2. When the
        // second token is chosen, all still agree. When the third is chosen, two do: 6 - 3 and 3 -
        // 6.
        assert_close(&found, &[&[4.5, 4.5, 3.0], &[0.0, 0.0, -3.0], &[-4.5, -4.5], &[0.0; 3]]);
        // A single completion has nothing to be compared with.
        assert_close(&prefix_advantages(&[&[1, 2, 3]], &[Some(6.0)]), &[&[0.0; 3]]);
        let ppo = Ppo { samples_per_image: 4, prefix_baseline: true, ..ppo(Algorithm::Rloo) };
        let mut rollouts = group();
        assert_eq!(assign_advantages(&mut rollouts, &ppo), [0, 1, 2]);
        assert_eq!(rollouts[3].advantages, [0.0; 3]);
        // Whitened: the mean of the eight is (9 + 3 - 3 - 9) / 8 = 0, the variance (4 x 20.25 + 2 x
        // 9) / 8 = 12.375.
        let d = 12.375f32.sqrt();
        assert!((rollouts[0].advantages[2] - 3.0 / d).abs() < 1e-4, "{:?}", rollouts[0].advantages);
    }

    #[test]
    fn ppo_follows_the_critic() {
        let mut rollouts = rollouts();
        rollouts.iter_mut().for_each(|rollout| rollout.values = vec![2.0; rollout.tokens().len()]);
        assign_advantages(&mut rollouts, &ppo(Algorithm::Ppo));
        assert_eq!(rollouts[1].returns, [3.0; 3]);
        // -1 once, 1 three times, 0 four times: mean 0.25, variance (1.5625 + 3 x 0.5625 + 4 x
        // 0.0625) / 8 = 0.4375.
        let d = 0.4375f32.sqrt();
        let expected: [&[f32]; 4] = [&[-1.25 / d], &[0.75 / d; 3], &[-0.25 / d; 2], &[-0.25 / d; 2]];
        assert_close(&rollouts.into_iter().map(|rollout| rollout.advantages).collect::<Vec<_>>(), &expected);
    }

    #[test]
    fn a_completion_that_could_not_be_scored_says_nothing() {
        for algorithm in [Algorithm::Rloo, Algorithm::Grpo, Algorithm::DrGrpo] {
            let mut rollouts = rollouts();
            rollouts[0].reward = None;
            // One reward is left of the first picture, two equal ones of the second.
            assert_eq!(assign_advantages(&mut rollouts, &ppo(algorithm)), [1, 2, 3]);
            let mut advantages = rollouts.iter().flat_map(|rollout| &rollout.advantages);
            assert!(advantages.all(|a| *a == 0.0), "{algorithm:?}: {rollouts:?}");
            assert_eq!(rollouts[0].advantages, [0.0]);
        }
    }

    #[test]
    fn advantages_are_clipped() {
        let clipped = advantages_of(rollouts(), &Ppo { advantage_clip: 0.75, ..ppo(Algorithm::DrGrpo) });
        assert_eq!((clipped[0][0], clipped[1][0]), (-0.75, 0.75));
    }

    #[test]
    fn the_rewards_that_vary_most_are_selected() {
        let rewards = |rewards: &[f32]| -> Vec<Option<f32>> { rewards.iter().copied().map(Some).collect() };
        let six = rewards(&[0.5, 0.0, 1.0, 0.6, 0.1, 0.9]);
        assert_eq!(select_for_update(&six, 6, 2, 0), [1, 2]);
        assert_eq!(select_for_update(&six, 6, 4, 0), [1, 2, 4, 5]);
        assert_eq!(select_for_update(&six, 3, 2, 0), [1, 2, 4, 5]);
        assert_eq!(select_for_update(&six, 6, 0, 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(select_for_update(&six, 6, 9, 0), [0, 1, 2, 3, 4, 5]);
        // The first three rewards spread over 1, the last three over 0.8.
        assert_eq!(select_for_update(&six, 3, 2, 1), [1, 2]);
        assert_eq!(select_for_update(&six, 3, 0, 1), [0, 1, 2]);
        // One good completion among bad ones: it and any of the bad.
        assert!(select_for_update(&rewards(&[0.0, 0.0, 1.0, 0.0]), 4, 2, 0).contains(&2));
        // Whitening is over the selected ones: the mean advantage of the update is 0.
        let mut rollouts: Vec<Rollout> = six.iter().map(|&reward| rollout(reward, &[0])).collect();
        let ppo = Ppo { samples_per_image: 6, keep_per_image: 2, ..ppo(Algorithm::Rloo) };
        let selected = assign_advantages(&mut rollouts, &ppo);
        let found: Vec<f32> = selected.iter().map(|&i| rollouts[i].advantages[0]).collect();
        assert!((found[0] + 1.0).abs() < 1e-4 && (found[1] - 1.0).abs() < 1e-4, "{found:?}");
    }
}
