//! Means and their uncertainty.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The number of bootstrap resamples behind every interval that this project reports.
pub const RESAMPLES: usize = 2000;

/// Seed of every bootstrap, so that the same values give the same interval.
const SEED: u64 = 0;

/// A mean and its 95 % bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanCi {
    /// Arithmetic mean; 0 for no values.
    pub mean: f64,
    /// Percentile interval `[low, high]` of the mean, from [`RESAMPLES`] resamples.
    pub ci95: [f64; 2],
}

impl MeanCi {
    /// The mean of independent values, for example one per part.
    pub fn of(values: &[f64]) -> Self {
        Self { mean: mean(values), ci95: bootstrap_ci95(values, RESAMPLES, SEED) }
    }

    /// The mean of all values of all groups. The bootstrap resamples whole groups, because values
    /// within a group are dependent (several samples for one picture).
    ///
    /// Groups of one value each give the same result as [`MeanCi::of`]. Empty groups do not count.
    pub fn over_groups(groups: &[Vec<f64>]) -> Self {
        let values: Vec<f64> = groups.iter().flatten().copied().collect();
        let sums: Vec<(f64, f64)> = groups
            .iter()
            .filter(|group| !group.is_empty())
            .map(|group| (group.iter().sum(), group.len() as f64))
            .collect();
        Self { mean: mean(&values), ci95: ratio_ci95(&sums, RESAMPLES, SEED) }
    }
}

/// Arithmetic mean; 0 for no values.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Bootstrap percentile interval of the mean at 95 %: `[low, high]`.
///
/// Draws `resamples` samples of `values.len()` values with replacement, and returns the 2.5 % and
/// 97.5 % quantiles (linearly interpolated) of their means. The same seed gives the same interval.
/// No values give `[0, 0]`; one value gives itself twice.
fn bootstrap_ci95(values: &[f64], resamples: usize, seed: u64) -> [f64; 2] {
    let sums: Vec<(f64, f64)> = values.iter().map(|&value| (value, 1.0)).collect();
    ratio_ci95(&sums, resamples, seed)
}

/// The same for the ratio `sum of a / sum of b` over pairs `(a, b)` with `b > 0`. If `a` is the sum
/// of a group and `b` the number of its values, this is the mean of all values.
fn ratio_ci95(pairs: &[(f64, f64)], resamples: usize, seed: u64) -> [f64; 2] {
    let count = pairs.len();
    if count == 0 {
        return [0.0; 2];
    }
    if resamples == 0 {
        return [ratio(pairs.iter().copied()); 2];
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> =
        (0..resamples).map(|_| ratio((0..count).map(|_| pairs[rng.random_range(0..count)]))).collect();
    means.sort_by(f64::total_cmp);
    [quantile(&means, 0.025), quantile(&means, 0.975)]
}

/// `sum of a / sum of b`.
fn ratio(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (a, b) = pairs.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    a / b
}

/// Unbiased estimate, from `n` samples of which `correct` pass, of the probability that at least
/// one of `k` samples passes: `1 - C(n - correct, k) / C(n, k)` (Chen et al. 2021,
/// arXiv:2107.03374, eq. 1), computed as a product that cannot overflow.
///
/// # Panics
/// If `k` is 0 or more than `n`, or if `correct` is more than `n`.
pub fn pass_at_k(n: usize, correct: usize, k: usize) -> f64 {
    assert!(1 <= k && k <= n && correct <= n, "pass@{k} of {correct} in {n}");
    if n - correct < k {
        return 1.0;
    }
    1.0 - (n - correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Unbiased estimate of the expected maximum of `k` samples: the mean of the maxima of all subsets
/// of `k` values. The i-th smallest value (from 1) is the maximum of `C(i - 1, k - 1)` of the
/// `C(n, k)` subsets.
///
/// # Panics
/// If `k` is 0 or more than the number of values.
pub fn best_at_k(values: &[f64], k: usize) -> f64 {
    let n = values.len();
    assert!(1 <= k && k <= n, "best@{k} of {n}");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Start at the largest value with weight k / n. Each step down multiplies the weight by
    // (i - k) / (i - 1).
    let (mut weight, mut sum) = (k as f64 / n as f64, 0.0);
    for i in (k..=n).rev() {
        sum += weight * sorted[i - 1];
        if i > k {
            weight *= (i - k) as f64 / (i - 1) as f64;
        }
    }
    sum
}

/// The number of random sign flips behind every p-value that this project reports.
pub const FLIPS: usize = 10_000;

/// Two-sided p-value of the hypothesis that paired differences are symmetric about 0 (Fisher's
/// randomisation test): the share of [`FLIPS`] random sign assignments whose mean is at least as
/// far from 0 as the observed mean. The observed assignment counts as one of them.
pub fn sign_flip_p(differences: &[f64]) -> f64 {
    flip_p(differences, FLIPS, SEED)
}

fn flip_p(differences: &[f64], flips: usize, seed: u64) -> f64 {
    let observed = differences.iter().sum::<f64>().abs();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut flipped = || differences.iter().map(|d| if rng.random::<bool>() { *d } else { -*d }).sum::<f64>().abs();
    // The order of summation changes the last digits, so equal sums may differ slightly.
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

    #[test]
    fn groups_of_one_are_independent_values() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i).sin().abs()).collect();
        let groups: Vec<Vec<f64>> = values.iter().map(|&value| vec![value]).collect();
        assert_eq!(MeanCi::over_groups(&groups), MeanCi::of(&values));
        let with_empty: Vec<Vec<f64>> = groups.iter().flat_map(|group| [group.clone(), Vec::new()]).collect();
        assert_eq!(MeanCi::over_groups(&with_empty), MeanCi::of(&values));
        assert_eq!(MeanCi::over_groups(&[vec![]]), MeanCi { mean: 0.0, ci95: [0.0; 2] });
    }

    #[test]
    fn copies_within_a_group_make_no_interval_narrower() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i % 2)).collect();
        let groups: Vec<Vec<f64>> = values.iter().map(|&value| vec![value; 8]).collect();
        assert_eq!(MeanCi::over_groups(&groups), MeanCi::of(&values));
    }

    #[test]
    fn a_group_weighs_as_much_as_it_has_values() {
        let groups = [vec![1.0], vec![0.0, 0.0, 0.0]];
        let found = MeanCi::over_groups(&groups);
        assert_eq!((found.mean, found.ci95), (0.25, [0.0, 1.0]));
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
        // Of the 2^3 sign assignments of 1, 1, 1, two have a mean as far from 0.
        assert!((flip_p(&[1.0; 3], 20_000, 0) - 0.25).abs() < 0.01);
        // The sum of 3, 1, 1, 0 is 5. Of its 2^4 sign assignments 4 have |sum| = 5: all plus or all
        // minus, with either sign of the 0.
        assert!((flip_p(&[3.0, 1.0, 1.0, 0.0], 20_000, 1) - 0.25).abs() < 0.01);
        assert_eq!(flip_p(&[0.0; 4], 100, 0), 1.0);
    }

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        assert_eq!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 1));
        assert_ne!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 2));
    }
}
