//! The summary of a run, and the table that it prints last.

use anyhow::{Result, anyhow};
use cadwright_rollout::{Engine, MeanCi, Report};
use serde_json::{Map, Value, json};

use super::{Run, StageName, read_json};
use crate::eval::compare::Comparison;
use crate::files::write_whole;
use crate::telemetry::duration;

impl Run<'_> {
    /// Writes `summary.json` and prints the table: SFT, more SFT if it was run, and PPO.
    pub(super) fn summarise(&self) -> Result<()> {
        let mut summary = Map::new();
        let mut seconds = Map::new();
        let predictions =
            |stage: StageName| read_json(&self.dir.join("eval").join(stage.name()).join("predictions.json"));
        let head = ["VSR [95 %]", "IoU over all [95 %]", "IoU minus SFT's [95 %]"];
        println!("\n{:<8} {:>6}  {:<21}  {:<21}  {}", "", "parts", head[0], head[1], head[2]);
        for stage in [StageName::Sft, StageName::MoreSft, StageName::Ppo] {
            let path = self.dir.join("eval").join(stage.name()).join("summary.json");
            if !path.exists() {
                continue;
            }
            let report = Report::read(&path)?;
            let parts = report.n;
            let [vsr, iou] =
                report.quoted().map(|MeanCi { mean, ci95: [low, high] }| format!("{mean:.3} [{low:.3}, {high:.3}]"));
            let minus_sft = match (stage, predictions(StageName::Sft), predictions(stage)) {
                (StageName::Sft, ..) | (_, None, _) | (.., None) => String::new(),
                (_, Some(a), Some(b)) => {
                    let comparison = Comparison::new(&a, &b, false).map_err(|problem| anyhow!("eval: {problem}"))?;
                    let iou = &comparison.differences[0];
                    format!("{:+.3} [{:+.3}, {:+.3}]", iou.b - iou.a, iou.ci95[0], iou.ci95[1])
                }
            };
            let name = match stage {
                StageName::Sft => "SFT",
                StageName::MoreSft => "more SFT",
                StageName::Ppo => "PPO",
            };
            println!("{name:<8} {parts:>6}  {vsr:<21}  {iou:<21}  {minus_sft}");
            if let Some(result) = self.result(stage) {
                seconds.insert(stage.name().into(), result["seconds"].clone());
            }
            seconds.insert(format!("eval_{stage}"), json!(report.seconds));
            summary.insert(stage.name().into(), json!(report.eval_summary()));
        }
        if summary.contains_key("control") {
            println!("\nmore SFT: from SFT's checkpoint, for as long as PPO took");
        }
        // The sum over stages: an earlier process may have run some of them.
        let total: f64 = seconds.values().filter_map(Value::as_f64).sum();
        seconds.insert("total".into(), json!(total));
        summary.insert("seconds".into(), Value::Object(seconds));
        write_whole(&self.dir.join("summary.json"), &format!("{:#}\n", Value::Object(summary)))?;
        println!(
            "\n{}; IoU is solid IoU in the {} frame, failures count 0, executed by {}.\nCurves: .venv/bin/tensorboard --logdir {}",
            duration(self.started.elapsed().as_secs_f64()),
            self.config.eval.frames[0],
            executed_by(self.config.eval.engine),
            self.dir.join("tensorboard").display()
        );
        Ok(())
    }
}

/// The engine that executed the programs, in words.
fn executed_by(engine: Engine) -> &'static str {
    match engine {
        Engine::Cadquery => "CadQuery",
        Engine::Native => "the native engine",
        Engine::Auto => "the native engine, and by CadQuery if that declines",
    }
}
