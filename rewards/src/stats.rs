//! Means and their uncertainty.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Resamples drawn for an interval where the caller has no reason to ask for another number.
pub const RESAMPLES: usize = 1000;

/// Arithmetic mean; 0 for no values.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Bootstrap percentile interval of the mean at 95 %: `[low, high]`.
///
/// Draws `resamples` samples of `values.len()` values with replacement, and returns the 2.5 % and
/// 97.5 % quantiles (linearly interpolated) of their means. The same seed gives the same interval.
/// No values give `[0, 0]`; one value gives itself twice.
pub fn bootstrap_ci95(values: &[f64], resamples: usize, seed: u64) -> [f64; 2] {
    if values.is_empty() || resamples == 0 {
        return [mean(values); 2];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = values.len();
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| (0..count).map(|_| values[rng.random_range(0..count)]).sum::<f64>() / count as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [quantile(&means, 0.025), quantile(&means, 0.975)]
}

/// Unbiased estimate from `n` samples, `correct` of which pass, of the chance that one of `k` passes:
/// `1 - C(n - correct, k) / C(n, k)` (Chen et al. 2021, arXiv:2107.03374, eq. 1), as a product that cannot overflow.
///
/// # Panics
/// Where `k` is 0 or more than `n`, or `correct` more than `n`.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> f64 {
    assert!(1 <= k && k <= n && correct <= n, "pass@{k} of {correct} in {n}");
    if n - correct < k {
        return 1.0;
    }
    1.0 - (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Unbiased estimate of the expected maximum of `k` samples: the mean of the maxima of all subsets of `k` of the values. The i-th
/// smallest (from 1) is the maximum of `C(i - 1, k - 1)` of the `C(n, k)` subsets.
///
/// # Panics
/// Where `k` is 0 or more than the number of values.
pub fn best_at_k(values: &[f64], k: usize) -> f64 {
    let n = values.len();
    assert!(1 <= k && k <= n, "best@{k} of {n}");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // From the largest down: weight k / n first, then times (i - k) / (i - 1) for each step to the next smaller.
    let (mut weight, mut sum) = (k as f64 / n as f64, 0.0);
    for i in (k..=n).rev() {
        sum += weight * sorted[i - 1];
        if i > k {
            weight *= (i - k) as f64 / (i - 1) as f64;
        }
    }
    sum
}

/// Two-sided p-value of the hypothesis that paired differences are symmetric about 0: the share of `flips` random flips of their
/// signs whose mean is as far from 0 as theirs, they themselves included (Fisher's randomisation test).
pub fn sign_flip_p(differences: &[f64], flips: usize, seed: u64) -> f64 {
    let observed = differences.iter().sum::<f64>().abs();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut flipped = || differences.iter().map(|d| if rng.random::<bool>() { *d } else { -*d }).sum::<f64>().abs();
    // Sums of the same numbers in another order may differ in their last digits.
    let as_far = (0..flips).filter(|_| flipped() >= observed * (1.0 - 1e-12)).count();
    (as_far + 1) as f64 / (flips + 1) as f64
}

/// Linearly interpolated quantile of sorted, non-empty values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_one_value() {
        assert_eq!(mean(&[]), 0.0);
        assert_eq!(bootstrap_ci95(&[], 100, 0), [0.0, 0.0]);
        assert_eq!(bootstrap_ci95(&[0.5], 100, 0), [0.5, 0.5]);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.25), 1.0);
        assert_eq!(quantile(&[0.0, 1.0], 0.75), 0.75);
    }

    #[test]
    fn the_interval_has_the_width_that_theory_says() {
        // 400 coin flips: standard error 0.5 / sqrt(400) = 0.025, interval 0.5 +- 1.96 * 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let [low, high] = bootstrap_ci95(&values, 4000, 7);
        assert!((low - 0.451).abs() < 0.006 && (high - 0.549).abs() < 0.006, "{low} {high}");
    }

    /// All subsets of `k` of the values, by counting in binary.
    fn subsets(n: usize, k: usize) -> impl Iterator<Item = Vec<usize>> {
        let chosen = move |bits: u32| (0..n).filter(move |i| bits & (1 << i) != 0).collect::<Vec<_>>();
        (0..1u32 << n).filter(move |bits| bits.count_ones() as usize == k).map(chosen)
    }

    #[test]
    fn pass_and_best_at_k_are_means_over_all_subsets() {
        let values = [0.3, 0.9, 0.1, 0.9, 0.5, 0.0];
        for k in 1..=values.len() {
            let maxima: Vec<f64> =
                subsets(6, k).map(|chosen| chosen.iter().map(|&i| values[i]).fold(0.0, f64::max)).collect();
            assert!((best_at_k(&values, k) - mean(&maxima)).abs() < 1e-12, "best@{k}");
            for threshold in [0.0, 0.4, 0.9, 1.0] {
                let passes: Vec<f64> = maxima.iter().map(|max| f64::from(*max >= threshold)).collect();
                let correct = values.iter().filter(|value| **value >= threshold).count();
                assert!((pass_at_k(6, correct, k) - mean(&passes)).abs() < 1e-12, "pass@{k} at {threshold}");
            }
        }
        assert!(pass_at_k(1_000_000, 10, 1000) < 0.011, "no overflow");
    }

    #[test]
    fn sign_flips_give_the_p_value_that_counting_gives() {
        // Of the 2^3 signs of 1, 1, 1 two have a mean as far from 0.
        assert!((sign_flip_p(&[1.0; 3], 20_000, 0) - 0.25).abs() < 0.01);
        // Of the 2^4 signs of 3, 1, 1, 0 (sum 5): |sum| = 5 for both signs of the first three, twice: 4 / 16.
        assert!((sign_flip_p(&[3.0, 1.0, 1.0, 0.0], 20_000, 1) - 0.25).abs() < 0.01);
        assert_eq!(sign_flip_p(&[0.0; 4], 100, 0), 1.0);
    }

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        assert_eq!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 1));
        assert_ne!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 2));
    }
}
