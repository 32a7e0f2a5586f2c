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
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        assert_eq!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 1));
        assert_ne!(bootstrap_ci95(&values, 200, 1), bootstrap_ci95(&values, 200, 2));
    }
}
