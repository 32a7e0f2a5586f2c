//! The reward of one rollout.

use serde::{Deserialize, Serialize};

use crate::outcome::OutcomeClass;

/// What a solid is compared with for its reward in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardSource {
    /// The ground truth's shape, by IoU.
    #[default]
    Shape,
    /// The input picture, by the likeness of the solid's render. This crate has no pictures: who
    /// has them passes the likeness to [`reward`] in place of the IoU.
    Image,
}

crate::section! {
    /// `[reward.metrics]`: further measures of likeness as terms of the reward, each with its weight.
    /// A weight above 0 makes scoring compute the measure, for solids of both engines.
    RewardMetrics {
        /// Multiplies `exp(-cd / chamfer_scale)`, where `cd` is the chamfer distance of the protocol
        /// `cadrille` (docs/metrics.md): 1 for the same surface, wherever and however large.
        chamfer: f64 = 0.0,
        /// The chamfer distance that earns 1 / e. The squared distances of `cd` are in units of the
        /// longest side: 0.01 is about 0.07 of it, one way.
        chamfer_scale: f64 = 0.01,
        /// Multiplies the surface IoU of the protocol `cadbench`: the share of points of both surfaces
        /// that are near the other.
        siou: f64 = 0.0,
        /// Multiplies the IoU in the frame `aligned`.
        aligned: f64 = 0.0,
    }
}

/// What `[reward.metrics]` measures of a solid, each in [0, 1] and greater for a better one; 0 if it
/// is undefined for one of the solids. `None`: its weight is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricValues {
    /// `exp(-cd / chamfer_scale)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chamfer: Option<f64>,
    /// Surface IoU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siou: Option<f64>,
    /// IoU in the frame `aligned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aligned: Option<f64>,
}

impl MetricValues {
    /// The values with their names.
    pub fn named(&self) -> [(&'static str, Option<f64>); 3] {
        [("chamfer", self.chamfer), ("siou", self.siou), ("aligned", self.aligned)]
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RewardMetrics {
    /// Whether some term is used.
    pub fn is_used(&self) -> bool {
        self.chamfer > 0.0 || self.siou > 0.0 || self.aligned > 0.0
    }

    /// The value of a chamfer distance of the protocol `cadrille`, in [0, 1].
    pub fn of_chamfer(&self, cd: Option<f64>) -> f64 {
        cd.map_or(0.0, |cd| (-cd / self.chamfer_scale).exp())
    }

    /// The terms of a solid: the sum of weights times values.
    pub fn terms(&self, values: &MetricValues) -> f64 {
        let weights = [self.chamfer, self.siou, self.aligned];
        weights.iter().zip(values.named()).map(|(weight, (_, value))| weight * value.unwrap_or(0.0)).sum()
    }
}

crate::section! {
    /// Terms of the reward; see [`reward`] for the formula. Every key is optional.
    RewardConfig {
        /// `shape` (the IoU with the ground truth) or `image` (the likeness of the solid's render to
        /// the input picture, in place of the IoU). Only reinforcement learning reads it.
        source: RewardSource = RewardSource::Shape,
        /// Added for any solid, whatever its IoU.
        syntax_bonus: f64 = 0.1,
        /// Multiplies the IoU, which is in [0, 1].
        iou_weight: f64 = 1.0,
        /// Exponent of the IoU. Above 1, the last tenth is worth more than the first.
        iou_power: f64 = 1.0,
        /// IoU thresholds, each of which earns one bonus when reached.
        iou_thresholds: Vec<f64> = Vec::new(),
        /// Bonus for each threshold reached.
        threshold_bonus: f64 = 0.0,
        /// Multiplies the IoU of a solid that OCC calls invalid. 1 treats it like any other solid; 0
        /// leaves it only the syntax bonus.
        malformed_iou_factor: f64 = 1.0,
        /// Subtracted for text that does not compile.
        penalty_syntax: f64 = 0.0,
        /// Subtracted for an exception.
        penalty_exception: f64 = 0.0,
        /// Subtracted if there is no usable object.
        penalty_no_solid: f64 = 0.0,
        /// Subtracted if a boolean removed everything.
        penalty_empty: f64 = 0.0,
        /// Subtracted for missing the deadline.
        penalty_timeout: f64 = 0.0,
        /// Subtracted for reaching the memory limit.
        penalty_memory: f64 = 0.0,
        /// Subtracted if the program killed its process.
        penalty_crash: f64 = 0.0,
        /// Subtracted if the completion was cut at the token limit. A truncated completion that also
        /// fails gets this penalty instead of its class's penalty, because the model made no syntax
        /// error.
        penalty_truncated: f64 = 0.0,
        /// A program of your own that rates completions, as a shell command: `command_weight` times
        /// its answer is added to the reward (docs/rl.md, Rewards). Empty: none. Only reinforcement
        /// learning reads it.
        command: String = "",
        /// Multiplies the answer of `command`.
        command_weight: f64 = 1.0,
        /// Number of processes of `command` on each rank. Each gets one completion at a time. May
        /// change when a run is continued.
        command_processes: usize = 1usize,
        /// Deadline of an answer of `command`, in seconds. Then the process is killed and started
        /// again. May change when a run is continued.
        command_timeout_s: f64 = 10.0,
        /// Further seconds for the first answer of a process of `command`, which may have a model to
        /// load. May change when a run is continued.
        command_start_s: f64 = 60.0,
        /// Further measures of likeness.
        metrics: RewardMetrics = RewardMetrics::default(),
    }
}

impl RewardConfig {
    /// The penalty of a class; 0 for a solid.
    pub fn penalty(&self, class: OutcomeClass) -> f64 {
        match class {
            OutcomeClass::Solid => 0.0,
            OutcomeClass::Syntax => self.penalty_syntax,
            OutcomeClass::Exception => self.penalty_exception,
            OutcomeClass::NoSolid => self.penalty_no_solid,
            OutcomeClass::Empty => self.penalty_empty,
            OutcomeClass::Timeout => self.penalty_timeout,
            OutcomeClass::Memory => self.penalty_memory,
            OutcomeClass::Crash => self.penalty_crash,
        }
    }

    /// One message for every term that is not finite, or is negative although it must not be.
    pub fn problems(&self) -> Vec<String> {
        let terms = [
            ("syntax_bonus", self.syntax_bonus),
            ("iou_weight", self.iou_weight),
            ("iou_power", self.iou_power),
            ("threshold_bonus", self.threshold_bonus),
            ("malformed_iou_factor", self.malformed_iou_factor),
            ("penalty_syntax", self.penalty_syntax),
            ("penalty_exception", self.penalty_exception),
            ("penalty_no_solid", self.penalty_no_solid),
            ("penalty_empty", self.penalty_empty),
            ("penalty_timeout", self.penalty_timeout),
            ("penalty_memory", self.penalty_memory),
            ("penalty_crash", self.penalty_crash),
            ("penalty_truncated", self.penalty_truncated),
            ("metrics.chamfer", self.metrics.chamfer),
            ("metrics.siou", self.metrics.siou),
            ("metrics.aligned", self.metrics.aligned),
            ("command_start_s", self.command_start_s),
        ];
        let negative = terms
            .into_iter()
            .filter(|(_, value)| !value.is_finite() || *value < 0.0)
            .map(|(key, value)| format!("{key} = {value}: expected a finite number >= 0 (penalties are subtracted)"));
        let outside = self
            .iou_thresholds
            .iter()
            .filter(|threshold| !(0.0..=1.0).contains(*threshold))
            .map(|threshold| format!("iou_thresholds has {threshold}: an IoU is between 0 and 1"));
        negative.chain(outside).chain(self.problems_of_command()).chain(self.problems_of_metrics()).collect()
    }

    fn problems_of_command(&self) -> Vec<String> {
        const MOST_SECONDS: f64 = 86_400.0;
        const MOST_PROCESSES: usize = 1024;
        let mut problems = Vec::new();
        if !self.command_weight.is_finite() {
            problems.push(format!("command_weight = {}: expected a finite number", self.command_weight));
        }
        if !(0.01..=MOST_SECONDS).contains(&self.command_timeout_s) || self.command_start_s > MOST_SECONDS {
            problems.push(format!(
                "command_timeout_s = {} and command_start_s = {}: expected 0.01 and 0 seconds at least, {MOST_SECONDS} \
                 at most",
                self.command_timeout_s, self.command_start_s
            ));
        }
        if !(1..=MOST_PROCESSES).contains(&self.command_processes) {
            let expected = format!("expected 1 to {MOST_PROCESSES}");
            problems.push(format!("command_processes = {}: {expected}", self.command_processes));
        }
        problems
    }

    fn problems_of_metrics(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let scale = self.metrics.chamfer_scale;
        if !(scale.is_finite() && scale > 0.0) {
            problems.push(format!("metrics.chamfer_scale = {scale}: expected a finite number above 0"));
        }
        if self.source == RewardSource::Image && self.metrics.is_used() {
            problems.push(
                "metrics compare with the ground truth's shape, but source = \"image\" must not know it".to_owned(),
            );
        }
        problems
    }
}

/// The reward of one rollout.
///
/// ```text
/// solid:    syntax_bonus + iou_weight * j^iou_power
///           + threshold_bonus * #{t in iou_thresholds: j >= t}
///           - (truncated ? penalty_truncated : 0),
///           j = iou * (malformed ? malformed_iou_factor : 1)
/// failure:  - (truncated ? penalty_truncated : penalty_<class>)
/// ```
///
/// `iou` is in [0, 1] and ignored for failures.
pub fn reward(config: &RewardConfig, class: OutcomeClass, malformed: bool, iou: f64, truncated: bool) -> f64 {
    if class.is_valid() {
        let iou = iou * if malformed { config.malformed_iou_factor } else { 1.0 };
        let reached = config.iou_thresholds.iter().filter(|threshold| iou >= **threshold).count();
        let cut = if truncated { config.penalty_truncated } else { 0.0 };
        config.syntax_bonus + config.iou_weight * iou.powf(config.iou_power) + config.threshold_bonus * reached as f64
            - cut
    } else if truncated {
        0.0 - config.penalty_truncated
    } else {
        0.0 - config.penalty(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RewardConfig = RewardConfig {
        source: RewardSource::Shape,
        syntax_bonus: 0.25,
        iou_weight: 2.0,
        iou_power: 1.0,
        iou_thresholds: Vec::new(),
        threshold_bonus: 0.0,
        malformed_iou_factor: 0.5,
        penalty_syntax: 1.0,
        penalty_exception: 2.0,
        penalty_no_solid: 3.0,
        penalty_empty: 4.0,
        penalty_timeout: 5.0,
        penalty_memory: 6.0,
        penalty_crash: 7.0,
        penalty_truncated: 0.125,
        command: String::new(),
        command_weight: 1.0,
        command_processes: 1,
        command_timeout_s: 10.0,
        command_start_s: 60.0,
        metrics: RewardMetrics { chamfer: 0.0, chamfer_scale: 0.01, siou: 0.0, aligned: 0.0 },
    };

    #[test]
    fn a_solid_earns_the_bonus_and_its_iou() {
        // 0.25 + 2 * 0.5
        assert_eq!(reward(&CONFIG, OutcomeClass::Solid, false, 0.5, false), 1.25);
        // 0.25 + 2 * 0.5 * 0.5
        assert_eq!(reward(&CONFIG, OutcomeClass::Solid, true, 0.5, false), 0.75);
        // 0.25 + 2 * 0.5 - 0.125
        assert_eq!(reward(&CONFIG, OutcomeClass::Solid, false, 0.5, true), 1.125);
    }

    #[test]
    fn the_iou_counts_to_its_power_and_thresholds_earn_their_bonus() {
        let config =
            RewardConfig { iou_power: 2.0, iou_thresholds: vec![0.5, 0.75, 0.9], threshold_bonus: 0.25, ..CONFIG };
        // 0.25 + 2 * 0.8^2 + 2 * 0.25
        assert!((reward(&config, OutcomeClass::Solid, false, 0.8, false) - 2.03).abs() < 1e-12);
        // A malformed solid's IoU is 0.4: 0.25 + 2 * 0.4^2.
        assert!((reward(&config, OutcomeClass::Solid, true, 0.8, false) - 0.57).abs() < 1e-12);
        assert_eq!(reward(&config, OutcomeClass::Solid, false, 0.75, false), 0.25 + 2.0 * 0.5625 + 0.5);
        let problems = RewardConfig { iou_thresholds: vec![0.5, 1.5], ..config }.problems();
        assert!(problems.len() == 1 && problems[0].contains("1.5"), "{problems:?}");
    }

    #[test]
    fn each_failure_has_its_own_penalty() {
        for (index, class) in OutcomeClass::ALL.into_iter().enumerate().skip(1) {
            assert_eq!(reward(&CONFIG, class, false, 0.9, false), -(index as f64), "{class}");
        }
    }

    #[test]
    fn truncation_replaces_the_penalty_of_a_failure() {
        assert_eq!(reward(&CONFIG, OutcomeClass::Syntax, false, 0.0, true), -0.125);
    }

    #[test]
    fn a_failure_without_penalty_is_plain_zero() {
        let value = reward(&RewardConfig::default(), OutcomeClass::Crash, false, 0.0, true);
        assert!(value == 0.0 && value.is_sign_positive());
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_default() {
        let config: RewardConfig = serde_json::from_str(r#"{"iou_weight": 3.0}"#).unwrap();
        assert_eq!(config, RewardConfig { iou_weight: 3.0, ..RewardConfig::default() });
        let error = serde_json::from_str::<RewardConfig>(r#"{"iou_wieght": 3.0}"#).unwrap_err();
        assert!(error.to_string().contains("iou_wieght"), "{error}");
    }

    #[test]
    fn a_metric_is_worth_its_weight() {
        let metrics = RewardMetrics { chamfer: 0.5, chamfer_scale: 0.02, siou: 0.25, aligned: 2.0 };
        assert_eq!((metrics.of_chamfer(Some(0.0)), metrics.of_chamfer(None)), (1.0, 0.0));
        // exp(-0.02 ln 2 / 0.02)
        let chamfer = metrics.of_chamfer(Some(0.02 * 2f64.ln()));
        assert!((chamfer - 0.5).abs() < 1e-12, "{chamfer}");
        let values = MetricValues { chamfer: Some(0.5), siou: Some(0.8), aligned: Some(0.1) };
        // 0.5 * 0.5 + 0.25 * 0.8 + 2 * 0.1
        assert!((metrics.terms(&values) - 0.65).abs() < 1e-12);
        assert_eq!(metrics.terms(&MetricValues::default()), 0.0);
        assert!(metrics.is_used() && !RewardMetrics::default().is_used());
    }

    #[test]
    fn commands_and_metrics_have_limits() {
        let problems = |config: RewardConfig| config.problems().join("; ");
        let command = RewardConfig {
            command_weight: f64::INFINITY,
            command_processes: 0,
            command_timeout_s: 0.0,
            ..RewardConfig::default()
        };
        for text in ["command_weight = inf", "command_processes = 0", "command_timeout_s = 0"] {
            assert!(problems(command.clone()).contains(text), "{}", problems(command));
        }
        // A weight may be negative: the answer is then a cost.
        assert_eq!(problems(RewardConfig { command_weight: -1.0, ..RewardConfig::default() }), "");
        let metrics = RewardMetrics { siou: -1.0, chamfer_scale: 0.0, ..RewardMetrics::default() };
        let found = problems(RewardConfig { metrics, ..RewardConfig::default() });
        assert!(found.contains("metrics.siou = -1") && found.contains("metrics.chamfer_scale = 0"), "{found}");
        let metrics = RewardMetrics { siou: 1.0, ..RewardMetrics::default() };
        let found = problems(RewardConfig { source: RewardSource::Image, metrics, ..RewardConfig::default() });
        assert!(found.contains("metrics") && found.contains("\"image\""), "{found}");
    }

    #[test]
    fn problems_name_the_key_and_the_value() {
        let config = RewardConfig { penalty_empty: -1.0, iou_weight: f64::NAN, ..CONFIG };
        let problems = config.problems();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("iou_weight = NaN"), "{problems:?}");
        assert!(problems[1].starts_with("penalty_empty = -1"), "{problems:?}");
    }
}
