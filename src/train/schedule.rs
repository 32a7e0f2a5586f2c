//! Schedules of the numbers that change over a stage, as pure functions of its progress.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::config::CeSchedule;

/// Progress of a stage, in [0, 1]: the share of its steps or, if `max_seconds` is not 0 and it is
/// larger, the share of its time.
pub fn progress(step: usize, steps: usize, seconds: f64, max_seconds: f64) -> f64 {
    let by_time = if max_seconds > 0.0 { seconds / max_seconds } else { 0.0 };
    (step as f64 / steps.max(1) as f64).max(by_time).min(1.0)
}

/// A learning rate that rises linearly from 0 in `warmup_steps`, stays at `peak` until the share
/// `hold` of the stage is over, and falls linearly towards `final_lr * peak`, which the step after
/// the last would have.
#[derive(Debug, Clone, Copy)]
pub struct LearningRate {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps of the rise.
    pub warmup_steps: usize,
    /// Progress at which the fall begins.
    pub hold: f64,
    /// Share of the peak at the end.
    pub final_lr: f64,
}

impl LearningRate {
    /// The learning rate of `step`, counted from 0; `progress` is that of the stage before the
    /// step.
    pub fn at(&self, step: usize, progress: f64) -> f64 {
        let climbed = ((step + 1) as f64 / (self.warmup_steps + 1) as f64).min(1.0);
        let decayed = ((progress - self.hold) / (1.0 - self.hold).max(1e-9)).clamp(0.0, 1.0);
        self.peak * climbed * (1.0 - (1.0 - self.final_lr) * decayed)
    }
}

/// Weight of the cross-entropy at `progress` in [0, 1] of PPO: `initial` at the start and, unless
/// the schedule is constant, 0 from `until` on.
pub fn ce_weight(schedule: CeSchedule, initial: f64, until: f64, progress: f64) -> f64 {
    let annealed = if until > 0.0 { (progress / until).clamp(0.0, 1.0) } else { 1.0 };
    match schedule {
        CeSchedule::Linear | CeSchedule::Guarded => initial * (1.0 - annealed),
        CeSchedule::Cosine => initial * 0.5 * (1.0 + (PI * annealed).cos()),
        CeSchedule::Constant => initial,
    }
}

/// Progress of the decay of a guarded cross-entropy weight. The decay pauses while the policy
/// writes fewer valid programs than the SFT policy did, or has moved too far from it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct CeGuard {
    /// In [0, 1].
    pub progress: f64,
    /// VSR of the first step's rollouts, and a running mean over the steps.
    vsr: Option<(f64, f64)>,
}

impl CeGuard {
    /// Maximum fall of the VSR below that of the first step.
    const TOLERANCE: f64 = 0.02;

    /// Advances by the stage's progress in a step, `further`, if the step's VSR and KL allow it.
    /// `kl_target` 0 is no limit.
    pub fn advance(&mut self, vsr: f64, kl: f64, kl_target: f64, further: f64) {
        let (first, mean) = self.vsr.map_or((vsr, vsr), |(first, mean)| (first, 0.8 * mean + 0.2 * vsr));
        self.vsr = Some((first, mean));
        let is_safe = mean >= first - Self::TOLERANCE && (kl_target == 0.0 || kl <= kl_target);
        if is_safe {
            self.progress += further;
        }
    }
}

/// Steers a KL coefficient towards a target divergence (Ziegler et al. 2019, arXiv:1909.08593,
/// section 2.2): in proportion to the relative error, clipped to +-20 %, over a horizon of 10
/// steps. `target` 0 leaves the coefficient alone.
pub fn adapted_kl_coef(coef: f64, kl: f64, target: f64) -> f64 {
    if target <= 0.0 {
        return coef;
    }
    coef * (1.0 + (kl / target - 1.0).clamp(-0.2, 0.2) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_climbs_holds_and_falls() {
        let schedule = LearningRate { peak: 1.0, warmup_steps: 4, hold: 0.5, final_lr: 0.1 };
        let at = |step| schedule.at(step, progress(step, 20, 0.0, 0.0));
        assert!((at(0) - 0.2).abs() < 1e-12);
        assert_eq!(at(4), 1.0);
        assert_eq!(at(10), 1.0);
        // Half of the decay from 1 to 0.1.
        assert!((at(15) - 0.55).abs() < 1e-12);
        assert!((at(20) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn progress_is_by_steps_or_by_time_whichever_is_further() {
        assert_eq!(progress(3, 10, 100.0, 0.0), 0.3);
        assert_eq!(progress(3, 10, 100.0, 200.0), 0.5);
        assert_eq!(progress(6, 10, 100.0, 200.0), 0.6);
        assert_eq!(progress(6, 10, 300.0, 200.0), 1.0);
    }

    #[test]
    fn ce_weight_starts_full_and_ends_at_zero() {
        for schedule in [CeSchedule::Linear, CeSchedule::Cosine] {
            assert_eq!(ce_weight(schedule, 0.3, 0.5, 0.0), 0.3);
            assert!((ce_weight(schedule, 0.3, 0.5, 0.25) - 0.15).abs() < 1e-12);
            assert!(ce_weight(schedule, 0.3, 0.5, 0.5).abs() < 1e-12);
            assert!(ce_weight(schedule, 0.3, 0.5, 1.0).abs() < 1e-12);
        }
        assert_eq!(ce_weight(CeSchedule::Constant, 0.3, 0.5, 1.0), 0.3);
    }

    #[test]
    fn guarded_annealing_waits_while_vsr_is_low_or_the_kl_high() {
        let mut guard = CeGuard::default();
        let mut after = |vsr, kl| {
            guard.advance(vsr, kl, 0.1, 0.1);
            (guard.progress * 10.0).round()
        };
        assert_eq!(after(0.9, 0.05), 1.0);
        // The mean 0.8 x 0.9 + 0.2 x 0.75 = 0.87 is too low. In the next step the KL of 0.2 is too
        // high. In the last one both are right.
        assert_eq!(after(0.75, 0.05), 1.0);
        assert_eq!(after(1.0, 0.2), 1.0);
        assert_eq!(after(1.0, 0.05), 2.0);
        guard = CeGuard::default();
        guard.advance(0.9, 5.0, 0.0, 0.1);
        assert_eq!(guard.progress, 0.1);
    }

    #[test]
    fn kl_coef_follows_the_divergence() {
        assert_eq!(adapted_kl_coef(0.1, 5.0, 0.0), 0.1);
        assert!((adapted_kl_coef(0.1, 0.2, 0.1) - 0.102).abs() < 1e-12);
        assert!((adapted_kl_coef(0.1, 0.0, 0.1) - 0.098).abs() < 1e-12);
    }
}
