//! The evaluated policies of runs, and their comparison.

use std::collections::BTreeMap;

use cadwright_rollout::{MeanCi, Report};
use serde::Serialize;
use serde_json::Value;

use super::run_files::RunFiles;
use super::short;
use crate::eval::compare::{Comparison, Difference};
use crate::run::StageName;

/// An evaluated policy as the page reads it.
#[derive(Debug, Serialize)]
pub struct ShownPolicy {
    /// Number of its run.
    pub run: usize,
    pub stage: &'static str,
    /// Its name in tables and legends.
    pub label: String,
    pub frame: String,
    /// The statistics in its `summary.json`, if that is there.
    pub summary: Option<ShownSummary>,
    /// Predictions by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// The IoU of every part; a failure counts 0.
    pub ious: Vec<f64>,
}

/// The part of a `summary.json` that tables show.
#[derive(Debug, Serialize)]
pub struct ShownSummary {
    n: usize,
    samples: usize,
    engine: String,
    grid: usize,
    vsr: MeanCi,
    iou: MeanCi,
    iou_valid: MeanCi,
    quartiles: [f64; 3],
    truncated: usize,
    malformed: usize,
    ground_truth_failures: usize,
    panics: usize,
    seconds: f64,
    protocols: Value,
}

impl ShownSummary {
    fn of(report: &Report) -> Self {
        let [vsr, iou] = report.quoted();
        let frame = &report.frames[&report.frame];
        Self {
            n: report.n,
            samples: report.samples_per_image,
            engine: report.engine.to_string(),
            grid: report.grid,
            vsr,
            iou,
            iou_valid: MeanCi { mean: frame.iou_valid, ci95: frame.iou_valid_ci95 },
            quartiles: frame.quartiles,
            truncated: report.truncated,
            malformed: report.malformed,
            ground_truth_failures: report.ground_truth_failures,
            panics: report.panics,
            seconds: report.seconds,
            protocols: serde_json::to_value(&report.protocols).unwrap_or_default(),
        }
    }
}

/// Two policies on the same parts: B minus A.
#[derive(Debug, Serialize)]
pub struct ComparedPolicies {
    /// Numbers of the policies.
    a: usize,
    b: usize,
    /// Number of parts.
    n: usize,
    iou: ShownDifference,
    vsr: ShownDifference,
}

/// The paired difference of one number.
#[derive(Debug, Serialize)]
struct ShownDifference {
    mean: f64,
    ci95: [f64; 2],
    p: f64,
    wins: usize,
    ties: usize,
    losses: usize,
}

impl From<&Difference> for ShownDifference {
    fn from(found: &Difference) -> Self {
        let [wins, ties, losses] = found.wins_ties_losses;
        Self { mean: found.b - found.a, ci95: found.ci95, p: found.p, wins, ties, losses }
    }
}

/// The policies of all runs, and the comparisons: each with the SFT policy of its run, and those of
/// a later run with the same stage of the first one.
pub fn results(
    runs: &[RunFiles],
    names: &[String],
    notes: &mut Vec<String>,
) -> (Vec<ShownPolicy>, Vec<ComparedPolicies>) {
    let mut policies = Vec::new();
    let mut rows: Vec<&Value> = Vec::new();
    for (number, (run, name)) in runs.iter().zip(names).enumerate() {
        for (stage, predictions) in &run.predictions {
            let label = if runs.len() > 1 { format!("{name} {}", title(*stage)) } else { title(*stage).to_owned() };
            policies.push(policy(run, number, *stage, label, predictions, notes));
            rows.push(predictions);
        }
    }
    let mut comparisons = Vec::new();
    for b in 0..policies.len() {
        let sft = policies.iter().position(|a| a.run == policies[b].run && a.stage == "sft");
        let first = policies.iter().position(|a| a.run == 0 && a.stage == policies[b].stage);
        let mut compared = Vec::new();
        for a in [sft, first].into_iter().flatten().filter(|&a| a != b) {
            if compared.contains(&a) {
                continue;
            }
            compared.push(a);
            match Comparison::new(rows[a], rows[b], false) {
                Ok(found) => comparisons.push(ComparedPolicies {
                    a,
                    b,
                    n: found.n,
                    iou: (&found.differences[0]).into(),
                    vsr: (&found.differences[1]).into(),
                }),
                Err(problem) => notes.push(format!(
                    "{} (A) and {} (B) are not compared: {problem}.",
                    policies[a].label, policies[b].label
                )),
            }
        }
    }
    (policies, comparisons)
}

fn title(stage: StageName) -> &'static str {
    match stage {
        StageName::Sft => "SFT",
        StageName::MoreSft => "more SFT",
        StageName::Ppo => "RL",
    }
}

fn policy(
    run: &RunFiles,
    number: usize,
    stage: StageName,
    label: String,
    predictions: &Value,
    notes: &mut Vec<String>,
) -> ShownPolicy {
    let path = run.directory.join("eval").join(stage.name()).join("summary.json");
    let report = match Report::read(&path) {
        Ok(report) => Some(report),
        Err(error) => {
            notes.push(format!("{label}: no intervals: {error}."));
            None
        }
    };
    let mut outcomes = BTreeMap::new();
    let rows = ordered(predictions);
    for (_, row) in &rows {
        *outcomes.entry(row["outcome"].as_str().unwrap_or("unknown").to_owned()).or_default() += 1;
    }
    ShownPolicy {
        run: number,
        stage: stage.name(),
        label,
        frame: report.as_ref().map_or_else(|| "unknown".to_owned(), |report| report.frame.to_string()),
        summary: report.as_ref().map(ShownSummary::of),
        outcomes,
        ious: rows.iter().map(|(_, row)| short(row["iou"].as_f64().unwrap_or(0.0))).collect(),
    }
}

/// The rows of a `predictions.json` with their numbers in the data set, ascending.
pub fn ordered(predictions: &Value) -> Vec<(usize, &Value)> {
    let number = |(key, row): (&String, _)| Some((key.strip_prefix("sample_")?.parse().ok()?, row));
    let rows = predictions.as_object().into_iter().flatten();
    let mut rows: Vec<(usize, &Value)> = rows.filter_map(|(key, row)| number((key, row))).collect();
    rows.sort_by_key(|(number, _)| *number);
    rows
}
