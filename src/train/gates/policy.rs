//! The gates of the first step of reinforcement learning, from its own completions.

use super::Finding;
use crate::config::{Dtype, Gate};

/// Mean difference of a token's log-probability, in nats, that another picture must make at least.
pub const LEAST_PICTURE_EFFECT: f64 = 1e-4;

/// Mean difference, in nats a token, between sampler and trainer before any update. In fp32 only
/// rounding is left; in bf16 sums are rounded in another order.
pub fn most_sampler_gap(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { 5e-3 } else { 5e-2 }
}

/// The share of completions that were cut off must be at most `limit`.
pub fn truncation(truncated: usize, completions: usize, limit: f64) -> Finding {
    let is_open = truncated as f64 <= limit * completions as f64;
    let found = format!("{truncated} of {completions} completions are cut off; run.truncation_limit = {limit}");
    Finding::new(Gate::Truncation, is_open, found)
}

/// Log-probabilities of tokens must change if the picture is another part's. `changes` are the mean
/// absolute differences of some completions, in nats a token.
pub fn picture(changes: &[f64]) -> Finding {
    if changes.is_empty() {
        return Finding::new(Gate::Picture, true, "not checked: no two pictures have equally many tokens");
    }
    let mean = changes.iter().sum::<f64>() / changes.len() as f64;
    let found = format!(
        "another part's picture changes log-probabilities by {mean:.2e} nats a token in {} completions; at least \
         {LEAST_PICTURE_EFFECT:e}",
        changes.len()
    );
    Finding::new(Gate::Picture, mean >= LEAST_PICTURE_EFFECT, found)
}

/// Before the first update the ratio must be 1. `gap` is the mean over tokens of the absolute
/// logarithm of the ratio.
pub fn ratio(gap: f64, dtype: Dtype) -> Finding {
    let most = most_sampler_gap(dtype);
    let found =
        format!("trainer and sampler differ by {gap:.2e} nats a token before the first update; at most {most:e}");
    Finding::new(Gate::Ratio, gap <= most, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_opens_on_its_side_of_the_limit() {
        assert!(truncation(5, 10, 0.5).is_open && !truncation(6, 10, 0.5).is_open);
        assert!(truncation(10, 10, 1.0).is_open);
        assert!(picture(&[0.1, 0.0]).is_open && !picture(&[0.0, 0.0]).is_open && !picture(&[f64::NAN]).is_open);
        assert!(picture(&[]).is_open);
        assert!(ratio(0.002, Dtype::F32).is_open && !ratio(0.02, Dtype::F32).is_open);
        assert!(ratio(0.02, Dtype::Bf16).is_open && !ratio(0.2, Dtype::Bf16).is_open);
        assert!(!ratio(f64::NAN, Dtype::Bf16).is_open);
    }
}
