//! The mathematics of PPO as pure functions. Every tensor is `[n]` f32 over the response tokens of
//! a minibatch: it has no padding and no prompts, so there is nothing to mask. Means are over
//! tokens.
//!
//! Reference: Schulman et al. 2017 (arXiv:1707.06347), with the implementation details of Huang et
//! al. 2022, "The 37 implementation details of PPO". Departures: the KL divergence to the reference
//! is a term of the loss (Shao et al. 2024, arXiv:2402.03300, eq. 3-4), not of the reward; the
//! whole reward is given at the last token.

use tch::{Kind, Tensor};

/// Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16) for one
/// completion, whose `reward` is given at its last token: `delta_t = r_t + gamma v_{t+1} - v_t`,
/// `A_t = delta_t + gamma lambda A_{t+1}`, and `v` and `A` are 0 after the last token. Returns the
/// advantages and the returns `A_t + v_t`.
pub fn gae(reward: f32, values: &[f32], gamma: f64, lambda: f64) -> (Vec<f32>, Vec<f32>) {
    let mut advantages = vec![0.0f32; values.len()];
    let (mut next_value, mut next_advantage) = (0.0f64, 0.0f64);
    for t in (0..values.len()).rev() {
        let reward = if t + 1 == values.len() { f64::from(reward) } else { 0.0 };
        let delta = reward + gamma * next_value - f64::from(values[t]);
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = f64::from(values[t]);
        advantages[t] = next_advantage as f32;
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// For each completion of one prompt, its reward minus the mean reward of the others (RLOO;
/// Ahmadian et al. 2024, arXiv:2402.14740, eq. 8). A single completion has advantage 0.
pub fn leave_one_out(rewards: &[f32]) -> Vec<f32> {
    let (sum, others) = (rewards.iter().sum::<f32>(), rewards.len().saturating_sub(1).max(1) as f32);
    let advantage = |&reward: &f32| if rewards.len() > 1 { reward - (sum - reward) / others } else { 0.0 };
    rewards.iter().map(advantage).collect()
}

/// Whether numbers are equal up to the rounding of f32 arithmetic on numbers of about 1: a few
/// steps of 1.2e-7 each.
pub fn is_constant(numbers: impl Iterator<Item = f32>) -> bool {
    const ROUNDING: f32 = 1e-6;
    let (low, high) = numbers.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    // No numbers at all: high - low is -inf.
    high - low <= ROUNDING * low.abs().max(high.abs()).clamp(1.0, f32::MAX)
}

/// Shifts and scales all advantages of a step to mean 0 and (population) standard deviation 1. If
/// they are equal up to rounding, sets them to 0: scaling would blow rounding errors up to 1.
pub fn whiten(advantages: &mut [&mut f32]) {
    if is_constant(advantages.iter().map(|a| **a)) {
        advantages.iter_mut().for_each(|a| **a = 0.0);
        return;
    }
    let n = advantages.len().max(1) as f64;
    let mean = advantages.iter().map(|a| f64::from(**a)).sum::<f64>() / n;
    let variance = advantages.iter().map(|a| (f64::from(**a) - mean).powi(2)).sum::<f64>() / n;
    let deviation = variance.sqrt() + 1e-8;
    advantages.iter_mut().for_each(|a| **a = ((f64::from(**a) - mean) / deviation) as f32);
}

/// The clipped surrogate objective and how often it was clipped.
pub struct PolicyLoss {
    /// `-mean(min(ratio A, clip(ratio, 1 - c, 1 + c) A))`: scalar.
    pub loss: Tensor,
    /// Share of tokens whose ratio is outside of the clip range: scalar.
    pub clip_fraction: Tensor,
}

/// The clipped surrogate objective, negated (PPO, eq. 7), with `ratio = exp(logprobs -
/// old_logprobs)`.
pub fn policy_loss(logprobs: &Tensor, old_logprobs: &Tensor, advantages: &Tensor, clip_range: f64) -> PolicyLoss {
    let ratio = (logprobs - old_logprobs).exp();
    let clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range);
    let loss = -(&ratio * advantages).minimum(&(clipped * advantages)).mean(Kind::Float);
    let clip_fraction = (ratio.detach() - 1.0).abs().gt(clip_range).to_kind(Kind::Float).mean(Kind::Float);
    PolicyLoss { loss, clip_fraction }
}

/// `0.5 mean(max((v - R)^2, (v_old + clip(v - v_old, -c, c) - R)^2))`: a value gains nothing from
/// moving beyond the clip range (detail 9 of Huang et al. 2022).
pub fn value_loss(values: &Tensor, old_values: &Tensor, returns: &Tensor, clip_range: f64) -> Tensor {
    let clipped = old_values + (values - old_values).clamp(-clip_range, clip_range);
    let loss = (values - returns).square().maximum(&(clipped - returns).square());
    loss.mean(Kind::Float) * 0.5
}

/// Estimates KL(policy || reference) from tokens that the policy sampled: `[n]`, `exp(d) - d - 1`
/// with `d = ref - logprob` (k3 of Schulman 2020, "Approximating KL divergence"). Unbiased and
/// never negative.
pub fn kl_k3(logprobs: &Tensor, ref_logprobs: &Tensor) -> Tensor {
    let difference = ref_logprobs - logprobs;
    difference.exp() - difference - 1.0
}

/// Mean entropy of the distributions `log_softmax [n, vocab]`, over the whole vocabulary, in nats:
/// scalar.
pub fn entropy(log_softmax: &Tensor) -> Tensor {
    -(log_softmax.exp() * log_softmax).sum_dim_intlist(-1i64, false, Kind::Float).mean(Kind::Float)
}

/// Mean cross-entropy of `targets [n] i64` under `logits [n, vocab]`, in nats: scalar.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.cross_entropy_for_logits(targets)
}

/// As [`cross_entropy`], with the token's weight `weights [n]` as a factor of each term. The mean is
/// over the number of tokens: a small weight is a small gradient.
pub fn weighted_cross_entropy(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> Tensor {
    let logprobs = logits.log_softmax(-1, Kind::Float).gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1);
    -(logprobs * weights).mean(Kind::Float)
}

/// `1 - var(returns - values) / var(returns)`: 1 for a perfect critic, 0 for one that always says
/// the mean, negative for a worse one. 0 if the returns do not vary.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    let variance = |numbers: &mut dyn Iterator<Item = f64>| {
        let numbers: Vec<f64> = numbers.collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len().max(1) as f64
    };
    let total = variance(&mut returns.iter().map(|&r| f64::from(r)));
    let residual = variance(&mut returns.iter().zip(values).map(|(&r, &v)| f64::from(r) - f64::from(v)));
    if total > 1e-12 { 1.0 - residual / total } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() < 1e-5, "expected {expected:?}, got {found:?}");
        }
    }

    #[test]
    fn gae_by_hand() {
        // gamma 0.9, lambda 0.5, values 1 2 3, reward 10 at the end.
        // delta_2 = 10 - 3 = 7; delta_1 = 0.9 * 3 - 2 = 0.7; delta_0 = 0.9 * 2 - 1 = 0.8.
        // A_2 = 7; A_1 = 0.7 + 0.45 * 7 = 3.85; A_0 = 0.8 + 0.45 * 3.85 = 2.5325.
        let (advantages, returns) = gae(10.0, &[1.0, 2.0, 3.0], 0.9, 0.5);
        assert_close(&advantages, &[2.5325, 3.85, 7.0]);
        assert_close(&returns, &[3.5325, 5.85, 10.0]);
    }

    #[test]
    fn gae_with_lambda_one_is_the_return_minus_the_value() {
        let (advantages, returns) = gae(2.0, &[0.5, -1.0, 4.0], 1.0, 1.0);
        assert_close(&advantages, &[1.5, 3.0, -2.0]);
        assert_close(&returns, &[2.0, 2.0, 2.0]);
    }

    #[test]
    fn leave_one_out_by_hand() {
        // 1 - (2 + 6) / 2 = -3; 2 - (1 + 6) / 2 = -1.5; 6 - (1 + 2) / 2 = 4.5.
        assert_close(&leave_one_out(&[1.0, 2.0, 6.0]), &[-3.0, -1.5, 4.5]);
        assert_close(&leave_one_out(&[5.0]), &[0.0]);
    }

    #[test]
    fn whitening_by_hand() {
        let mut advantages = [1.0, 3.0, 5.0, 7.0];
        whiten(&mut advantages.iter_mut().collect::<Vec<_>>());
        // Mean 4, variance (9 + 1 + 1 + 9) / 4 = 5.
        let d = 5f64.sqrt();
        assert_close(&advantages, &[-3.0 / d, -1.0 / d, 1.0 / d, 3.0 / d]);
    }

    #[test]
    fn policy_loss_by_hand_and_its_gradient_stops_where_it_is_clipped() {
        // Ratios 1.5, 0.5, 1.5, 0.5, 1.1 with advantages 1, 1, -1, -1, 2 and range 0.2: min(1.5,
        // 1.2) = 1.2; min(0.5, 0.8) = 0.5; min(-1.5, -1.2) = -1.5; min(-0.5, -0.8) = -0.8; 2.2.
        let logprobs = Tensor::from_slice(&[1.5f32, 0.5, 1.5, 0.5, 1.1]).log().set_requires_grad(true);
        let advantages = Tensor::from_slice(&[1.0f32, 1.0, -1.0, -1.0, 2.0]);
        let PolicyLoss { loss, clip_fraction } =
            policy_loss(&logprobs, &Tensor::zeros_like(&advantages), &advantages, 0.2);
        assert!((loss.double_value(&[]) + (1.2 + 0.5 - 1.5 - 0.8 + 2.2) / 5.0).abs() < 1e-6);
        assert!((clip_fraction.double_value(&[]) - 0.8).abs() < 1e-6);
        loss.backward();
        // d(-ratio A / 5) / d logprob = -ratio A / 5 if the unclipped term is the smaller, else 0.
        let gradient: Vec<f32> = Vec::try_from(logprobs.grad()).unwrap();
        assert_close(&gradient, &[0.0, -0.1, 0.3, 0.0, -0.44]);
    }

    #[test]
    fn value_loss_by_hand() {
        // v 1, old 0, R 2, range 0.2: max((1-2)^2, (0.2-2)^2) = 3.24. v 0.1, old 0, R 0: max(0.01,
        // 0.01) = 0.01.
        let tensor = |values: [f32; 2]| Tensor::from_slice(&values);
        let loss = value_loss(&tensor([1.0, 0.1]), &tensor([0.0, 0.0]), &tensor([2.0, 0.0]), 0.2);
        assert!((loss.double_value(&[]) - 0.5 * (3.24 + 0.01) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn k3_is_zero_at_equality_and_averages_to_the_divergence() {
        // Policy (0.5, 0.5), reference (0.25, 0.75): KL = 0.5 ln 2 + 0.5 ln (2/3) = 0.143841.
        let logprobs = Tensor::from_slice(&[0.5f32, 0.5]).log();
        let reference = Tensor::from_slice(&[0.25f32, 0.75]).log();
        assert!((kl_k3(&logprobs, &reference).mean(Kind::Float).double_value(&[]) - 0.143_841).abs() < 1e-5);
        assert_eq!(kl_k3(&logprobs, &logprobs).sum(Kind::Float).double_value(&[]), 0.0);
    }

    #[test]
    fn entropy_of_a_uniform_distribution_is_the_log_of_its_size() {
        let log_softmax = Tensor::zeros([3, 8], tch::kind::FLOAT_CPU).log_softmax(-1, Kind::Float);
        assert!((entropy(&log_softmax).double_value(&[]) - 8f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_weight_scales_the_term_and_the_gradient_of_its_token_alone() {
        // Two tokens of an alphabet of two: p = (1/4, 3/4) and (1/2, 1/2).
        let logits = || Tensor::from_slice(&[0.25f32, 0.75, 0.5, 0.5]).log().view([2, 2]).set_requires_grad(true);
        let targets = Tensor::from_slice(&[0i64, 1]);
        let gradient = |weights: [f32; 2]| -> (f64, Vec<f32>) {
            let logits = logits();
            let loss = weighted_cross_entropy(&logits, &targets, &Tensor::from_slice(&weights));
            loss.backward();
            (loss.double_value(&[]), Vec::try_from(logits.grad().flatten(0, -1)).unwrap())
        };
        // -(w0 ln 1/4 + w1 ln 1/2) / 2; its gradient is w (p - target) / 2.
        let (loss, found) = gradient([1.0, 1.0]);
        assert!(
            (loss - 1.5 * 2f64.ln()).abs() < 1e-6
                && (loss - cross_entropy(&logits(), &targets).double_value(&[])).abs() < 1e-6
        );
        assert_close(&found, &[-0.375, 0.375, 0.25, -0.25]);
        let (loss, found) = gradient([0.5, 0.0]);
        assert!((loss - 0.5 * 2f64.ln()).abs() < 1e-6);
        assert_close(&found, &[-0.1875, 0.1875, 0.0, 0.0]);
    }

    #[test]
    fn explained_variance_of_perfect_mean_and_inverted_critics() {
        let returns = [1.0, 2.0, 3.0];
        assert!((explained_variance(&returns, &returns) - 1.0).abs() < 1e-9);
        assert!(explained_variance(&[2.0; 3], &returns).abs() < 1e-9);
        assert!((explained_variance(&[3.0, 2.0, 1.0], &returns) + 3.0).abs() < 1e-9);
        assert_eq!(explained_variance(&[0.0, 1.0], &[2.0, 2.0]), 0.0);
    }
}
