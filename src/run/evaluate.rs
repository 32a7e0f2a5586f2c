//! The evaluation of a stage's policy.

use anyhow::{Context, Result};

use super::{Run, StageName};
use crate::data::Dataset;
use crate::eval::Evaluation;
use crate::files::write_whole;
use crate::policy::{Policy, Purpose};
use crate::telemetry::Telemetry;
use crate::terminal::status;

impl Run<'_> {
    /// Evaluates a stage's best policy on `eval.split`, unless that is done:
    /// `eval/<stage>/predictions.json` and `summary.json`, and `eval/<stage>/vsr` and `iou` in the
    /// metrics, at the step at which the stage ended.
    ///
    /// # Errors
    /// Data, policy or scorer cannot be loaded, or a file cannot be written.
    pub fn evaluate(&self, stage: StageName) -> Result<()> {
        let directory = self.dir.join("eval").join(stage.name());
        if self.world.from_main("which evaluations are done", || Ok(directory.join("summary.json").exists()))? {
            self.world.say(&format!("eval: {stage} done before"));
            return Ok(());
        }
        // As `cadwright eval` loads it, so that both find the same.
        let path = self.trained_path(stage)?;
        let policy = Policy::load(&self.config, &path, None, Purpose::Inference, self.device)?;
        let dataset = self.opened(self.config.eval_selection())?;
        let evaluation = Evaluation::run(&self.config, self.world, &policy, &dataset, Some(self.cache_dir()))?;
        if self.world.is_main() {
            self.write(stage, &evaluation, &dataset)?;
        }
        self.world.barrier("the end of an evaluation")
    }

    fn write(&self, stage: StageName, evaluation: &Evaluation, dataset: &Dataset) -> Result<()> {
        let directory = self.dir.join("eval").join(stage.name());
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let steps = self.result(stage).and_then(|result| result["steps"].as_u64()).unwrap_or_default();
        self.record(stage, steps as usize, evaluation)?;
        write_whole(&directory.join("predictions.json"), &evaluation.predictions_json(dataset))?;
        // Last: its presence says that the evaluation is done.
        write_whole(&directory.join("summary.json"), &evaluation.summary_json()?)?;
        status(format_args!("eval: {stage}  {}", evaluation.line()));
        Ok(())
    }

    /// Writes the evaluation to the metrics, under the policy's own name: every policy keeps its
    /// row, and an evaluation that was killed before it was done is replaced.
    fn record(&self, stage: StageName, step: usize, evaluation: &Evaluation) -> Result<()> {
        let name = match stage {
            StageName::Sft => "eval/sft",
            StageName::Ppo => "eval/ppo",
            StageName::MoreSft => "eval/control",
        };
        let mut telemetry = Telemetry::open(&self.dir, name, step, step + 1)?;
        let [vsr, iou] = evaluation.report.quoted();
        telemetry.record(step, &[("vsr", vsr.mean), ("iou", iou.mean)])
    }
}
