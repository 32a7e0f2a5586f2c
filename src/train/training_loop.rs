//! The part that the loops of SFT and PPO share: the end of a stage, its rates, its validations and
//! its log.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cadwright_rewards::RewardSource;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Stage;
use super::metrics::StepNumbers;
use super::optim::OptimizerConfig;
use super::schedule::{LearningRate, progress};
use super::validation::{Best, Validation, validate};
use crate::config::{AlarmAction, Config, Sft};
use crate::files::write_whole;
use crate::interrupt;
use crate::model::InternVl;
use crate::telemetry::Telemetry;

/// The settings that `[sft]` and `[ppo]` have in common.
#[derive(Debug, Clone, Copy)]
pub struct LoopConfig {
    /// Steps after which the stage ends.
    pub steps: usize,
    /// Seconds after which the stage ends; 0 for no limit.
    pub max_seconds: f64,
    /// The optimiser of the policy.
    pub optimizer: OptimizerConfig,
    /// The learning rate of the policy.
    pub learning_rate: LearningRate,
    /// Steps between validations; 0 validates only at the end.
    pub validate_every: usize,
    /// Number of parts in a validation.
    pub validation_samples: usize,
    /// Programs of an episode in a validation.
    pub turns: usize,
    /// What chooses the best policy.
    pub source: RewardSource,
    /// Steps between checkpoints; 0 writes none.
    pub checkpoint_every: usize,
}

impl LoopConfig {
    /// The settings of `[sft]`, for a stage of `steps` steps.
    pub fn sft(sft: &Sft, steps: usize) -> Self {
        Self {
            steps,
            max_seconds: sft.max_seconds,
            optimizer: OptimizerConfig {
                kind: sft.optimizer,
                weight_decay: sft.weight_decay,
                betas: sft.betas,
                max_grad_norm: sft.max_grad_norm,
            },
            learning_rate: LearningRate {
                peak: sft.learning_rate,
                warmup_steps: sft.warmup_steps,
                hold: sft.hold,
                final_lr: sft.final_lr,
            },
            validate_every: sft.validate_every,
            validation_samples: sft.validation_samples,
            turns: sft.turns,
            source: RewardSource::Shape,
            checkpoint_every: sft.checkpoint_every,
        }
    }

    /// The settings of `[ppo]`.
    pub fn ppo(config: &Config) -> Self {
        let ppo = &config.ppo;
        Self {
            steps: ppo.steps,
            max_seconds: ppo.max_seconds,
            optimizer: OptimizerConfig {
                kind: ppo.optimizer,
                weight_decay: ppo.weight_decay,
                betas: ppo.betas,
                max_grad_norm: ppo.max_grad_norm,
            },
            learning_rate: LearningRate {
                peak: ppo.learning_rate,
                warmup_steps: ppo.warmup_steps,
                hold: ppo.hold,
                final_lr: ppo.final_lr,
            },
            validate_every: ppo.validate_every,
            validation_samples: ppo.validation_samples,
            turns: ppo.turns,
            source: config.reward.source,
            checkpoint_every: ppo.checkpoint_every,
        }
    }
}

/// The position of a stage, which the checkpoints of every stage keep besides tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Position {
    /// Steps taken.
    pub step: usize,
    /// The best validation so far.
    pub best: Best,
    /// Wall time of the steps, validations included.
    pub seconds: f64,
}

/// Progress and learning rate of one step.
#[derive(Debug, Clone, Copy)]
pub struct StepRates {
    /// Progress of the stage before the step, in [0, 1].
    pub progress: f64,
    /// Learning rate of the policy.
    pub learning_rate: f64,
}

/// Runs the work around the steps of a stage: rates, validations, log. The stage owns its
/// [`Position`], which goes into its checkpoints.
pub struct TrainingLoop<'a> {
    /// The log.
    pub telemetry: Telemetry,
    stage: &'a Stage<'a>,
    name: &'static str,
    config: LoopConfig,
    /// When the first step of this process began, and the stage's seconds before it.
    clock: Option<(Instant, f64)>,
    /// Why the run ends after this step, if it does.
    stop: Option<String>,
}

impl<'a> TrainingLoop<'a> {
    /// The loop of the stage `name`, which starts or goes on at `position`.
    ///
    /// # Errors
    /// A log that cannot be written, or ranks that start at different steps.
    pub fn new(stage: &'a Stage<'a>, name: &'static str, config: LoopConfig, position: &Position) -> Result<Self> {
        let steps = stage.world.gather("the steps taken", position.step)?;
        ensure!(
            steps.iter().all(|step| *step == position.step),
            "the ranks start at the steps {steps:?}: all must see the same run.output_dir = {}",
            stage.run_dir.display()
        );
        let telemetry = match stage.world.is_main() {
            true => Telemetry::open(&stage.run_dir, name, position.step, config.steps)?.within(config.max_seconds),
            false => Telemetry::silent(name),
        };
        interrupt::listen(c"interrupted: the step in progress ends and is saved; once more stops at once\n");
        Ok(Self { telemetry, stage, name, config, clock: None, stop: None })
    }

    /// The directory of the stage.
    pub fn directory(&self) -> PathBuf {
        self.stage.run_dir.join(self.name)
    }

    /// Progress of the stage in [0, 1].
    pub fn progress(&self, position: &Position) -> f64 {
        progress(position.step, self.config.steps, position.seconds, self.config.max_seconds)
    }

    /// The rates of the next step; `None` if the stage is over. The stage's time runs from the
    /// first call on.
    pub fn begin_step(&mut self, position: &Position) -> Option<StepRates> {
        self.clock.get_or_insert_with(|| (Instant::now(), position.seconds));
        let progress = self.progress(position);
        let learning_rate = self.config.learning_rate.at(position.step, progress);
        (progress < 1.0).then_some(StepRates { progress, learning_rate })
    }

    /// Counts a step whose update has just ended. The clock is that of rank 0; an interruption of
    /// any rank interrupts all.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn end_update(&mut self, position: &mut Position) -> Result<()> {
        let world = self.stage.world;
        let seconds = self.clock.map_or(0.0, |(started, before)| before + started.elapsed().as_secs_f64());
        let seconds = if world.is_main() { seconds } else { 0.0 };
        let interruptions = f64::from(u8::from(interrupt::is_requested()));
        let [seconds, interruptions] = world.sum("the end of a step", [seconds, interruptions])?;
        position.seconds = seconds;
        position.step += 1;
        self.stop = (interruptions > 0.0).then(|| "was interrupted".to_owned());
        Ok(())
    }

    /// Logs the step that was counted last: `line` on the terminal, `numbers` in the metrics. If a
    /// validation is due, adds its numbers, among them the cross-entropy that `validation_loss`
    /// computes, and returns it.
    ///
    /// # Errors
    /// The scorer cannot go on, or a file cannot be written.
    pub fn log_step(
        &mut self,
        position: &mut Position,
        policy: &InternVl,
        line: &str,
        mut numbers: StepNumbers,
        validation_loss: Option<&dyn Fn() -> Result<f64>>,
    ) -> Result<Option<Validation>> {
        let step = position.step - 1;
        self.telemetry.say(step, self.progress(position), line);
        let is_due = self.is_over(position) || position.step.is_multiple_of(self.config.validate_every);
        let validation = if is_due {
            let loss = validation_loss.map(|compute| compute()).transpose()?;
            let validation = self.validate(position, policy)?;
            let (vsr, iou) = (validation.report.vsr, validation.report.iou);
            numbers.extend(loss.map(|loss| ("val_loss", loss)));
            numbers.extend([("val_vsr", vsr), ("val_iou", iou)]);
            let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.3}  "));
            let mut line = format!("validation: {loss}VSR {vsr:.3}  IoU {iou:.3}");
            for (name, value) in validation.further_numbers() {
                line += &format!("  {} {value:.3}", name.trim_start_matches("val_").replace('_', " "));
                numbers.push(name, value);
            }
            self.telemetry.note_step(step, self.progress(position), &line);
            Some(validation)
        } else {
            None
        };
        self.telemetry.record(step, &numbers.as_pairs())?;
        Ok(validation)
    }

    /// Prints alarms that the step that was counted last has set off. With `AlarmAction::Stop` the
    /// run ends after this step.
    pub fn raise(&mut self, position: &Position, alarms: &[String], action: AlarmAction) {
        for alarm in alarms {
            self.telemetry.warn_step(position.step - 1, self.progress(position), alarm);
        }
        if action == AlarmAction::Stop && !alarms.is_empty() {
            let reason = format!("was stopped by an alarm (run.alarms = \"stop\"): {}", alarms.join("; "));
            self.stop.get_or_insert(reason);
        }
    }

    /// Validates the policy, and keeps it in `<stage>/best` if it is the best so far.
    ///
    /// # Errors
    /// The scorer cannot go on, or the directory cannot be written.
    pub fn validate(&mut self, position: &mut Position, policy: &InternVl) -> Result<Validation> {
        let best_directory = self.directory().join("best");
        let (step, best) = (position.step, &mut position.best);
        validate(self.stage, policy, &self.config, step, best, &best_directory, &mut self.telemetry)
    }

    /// Calls `save` if a checkpoint is due after the step that was counted last, and ends the run
    /// if someone has asked for it. `save` gives the reason if the disk did not take the checkpoint:
    /// the run then goes on, and so does the checkpoint before.
    ///
    /// # Errors
    /// Those of `save`, or the interruption.
    pub fn end_step(&mut self, position: &Position, save: impl FnOnce() -> Result<Option<String>>) -> Result<()> {
        let is_due = position.step.is_multiple_of(self.config.checkpoint_every) || self.stop.is_some();
        if self.is_over(position) || !is_due {
            return Ok(());
        }
        self.telemetry.sync()?;
        let (name, step) = (self.name, position.step);
        let failure = save()?;
        if let Some(why) = &failure {
            let line = format!("warning: {name}: no checkpoint after step {step}: {why}; the one before it stays");
            self.telemetry.warn(&line);
        }
        match (&self.stop, failure) {
            (None, _) => Ok(()),
            (Some(reason), None) => bail!(
                "{name} {reason} after step {step}; its checkpoint is saved, and the same command goes on from there"
            ),
            (Some(reason), Some(why)) => bail!(
                "{name} {reason} after step {step}; its checkpoint could not be saved ({why}), and the same command \
                 goes on from the one before"
            ),
        }
    }

    fn is_over(&self, position: &Position) -> bool {
        self.progress(position) == 1.0
    }

    /// Writes the policy to `<stage>/last`, marks the stage as done, and removes its checkpoint, on
    /// rank 0.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn finish(self, position: &Position, policy: &InternVl) -> Result<()> {
        interrupt::ignore();
        if self.stage.world.is_main() {
            self.write_result(position, policy)?;
        }
        self.stage.world.barrier("the end of a stage")
    }

    fn write_result(&self, position: &Position, policy: &InternVl) -> Result<()> {
        let directory = self.directory();
        self.stage.save_policy(policy, &directory.join("last"), None)?;
        let Position { step, best, seconds } = position;
        let result = json!({"steps": step, "val_iou": best.iou, "best_step": best.step, "seconds": seconds});
        write_whole(&directory.join("result.json"), &format!("{result:#}\n"))?;
        let checkpoint = directory.join("checkpoint");
        if checkpoint.exists() {
            std::fs::remove_dir_all(&checkpoint).with_context(|| format!("cannot remove {}", checkpoint.display()))?;
        }
        Ok(())
    }
}
