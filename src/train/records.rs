//! What a step leaves behind of its completions: rows of `samples.jsonl.gz`, and histograms.

use super::learner::Learner;
use super::samples::{FILE, samples_of};
use super::training_loop::TrainingLoop;
use crate::rollouts::Rollout;

impl Learner<'_> {
    /// Writes the completions of the step that was counted last to `samples.jsonl.gz`. If the disk
    /// does not take them, or the file is full, a line says so and the run goes on.
    pub(super) fn write_samples(&self, rollouts: &[Rollout]) {
        let (ppo, step) = (self.ppo(), self.state.position.step - 1);
        let Some(log) = self.samples.as_ref().filter(|_| ppo.samples_log_every > 0) else { return };
        if !step.is_multiple_of(ppo.samples_log_every) {
            return;
        }
        let frame = self.config().reward_frame();
        let problem = match log.write(&samples_of(rollouts, step, ppo.samples_per_image, self.stage.train, frame)) {
            Ok(true) => return,
            Ok(false) => format!("it would exceed ppo.samples_log_mib = {}", ppo.samples_log_mib),
            Err(error) => format!("{error:#}"),
        };
        self.stage.world.say(&format!("ppo: warning: the completions of step {step} are not in {FILE}: {problem}"));
    }

    /// Shows the distributions of the step that was counted last in TensorBoard.
    pub(super) fn write_histograms(&self, training: &mut TrainingLoop, rollouts: &[Rollout]) {
        let (step, frame) = (self.state.position.step - 1, self.config().reward_frame());
        let rewards: Vec<f64> = rollouts.iter().filter_map(|rollout| rollout.reward).map(f64::from).collect();
        let ious: Vec<f64> = rollouts.iter().map(|rollout| rollout.iou_in(frame)).collect();
        let lengths: Vec<f64> = rollouts.iter().map(|rollout| rollout.tokens().len() as f64).collect();
        for (name, values) in [("reward", rewards), ("iou", ious), ("response_length", lengths)] {
            training.telemetry.histogram(step, name, &values);
        }
    }
}
