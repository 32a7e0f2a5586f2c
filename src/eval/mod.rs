//! Evaluation: predictions, their scores, choices among them, the report, and the comparison of two
//! evaluations.

pub mod by_agent;
pub mod choices;
pub mod compare;
pub mod export;
pub mod foreign;
pub mod predict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use cadwright_rewards::stats::mean;
use cadwright_rollout::{Report, Scorer, ScorerConfig, Stratum, TokenCounts};
use serde_json::{Value, json};

use crate::agent::choose::Select;
use crate::agent::verifier::look_options;
use crate::config::Config;
use crate::data::Dataset;
use crate::distributed::World;
use crate::generate::Sampling;
use crate::pictures::Pictures;
use crate::policy::Policy;
use crate::rollouts::PromptedDataset;
use crate::telemetry::duration;
use by_agent::{PartCost, evaluate_agent};
use choices::{Chooser, choice, chosen_report};
use predict::{EarlierProgram, EvalOptions, Prediction, evaluate, report};

/// An evaluated policy.
pub struct Evaluation {
    /// Predictions in the order of the rows.
    pub predictions: Vec<Prediction>,
    /// Their statistics. Its `frame`, that of tables, is the first of `eval.frames`.
    pub report: Report,
    /// The way to choose the program of each part among its samples; `None`: it is the first one.
    pub select: Option<Select>,
    /// What the agent spent, if it wrote the programs.
    pub agent: Option<PartCost>,
}

impl Evaluation {
    /// Evaluates `policy` on the first `eval.num_samples` rows, executed by `eval.engine`. Executed
    /// ground truths are kept in `cache_dir`, if one is given. Every rank gets the result.
    ///
    /// # Errors
    /// The scorer cannot start or continue, or another rank is gone.
    pub fn run(
        config: &Config,
        world: &World,
        policy: &Policy,
        dataset: &Dataset,
        cache_dir: Option<PathBuf>,
    ) -> Result<Self> {
        let started = Instant::now();
        let eval = &config.eval;
        let scorer = config.scorer(eval.engine, eval.grid, &eval.frames, cache_dir);
        let scorer = Scorer::new(world.own_share(ScorerConfig { protocols: eval.protocols.clone(), ..scorer }))?;
        let n = if eval.num_samples == 0 { dataset.len() } else { eval.num_samples.min(dataset.len()) };
        let indices: Vec<usize> = (0..n).collect();
        scorer.ready()?;
        scorer.prefetch(world.share(&dataset.examples()[..n]).map(|example| example.ground_truth.clone()));
        let pictures = Pictures::new(dataset, config.model.max_tiles, 0);
        let prompted =
            PromptedDataset { dataset, pictures: &pictures, prompt: &policy.prompt, tokenizer: &policy.tokenizer };
        let sampling = Sampling {
            temperature: eval.temperature,
            top_p: eval.top_p,
            max_new_tokens: config.generate.max_new_tokens,
        };
        let options = EvalOptions {
            sampling,
            samples: eval.samples_per_image,
            turns: config.turns(eval.turns),
            batch_size: config.generate.batch_size,
            seed: u64::from(config.run.seed),
        };
        let model = policy.model.frozen_copy();
        let mut chooser = Chooser::new(eval, dataset, look_options(&config.agent.views, &dataset.views)?);
        let mut agent = None;
        let predictions = if eval.agent {
            let (predictions, cost) =
                evaluate_agent(config, world, &model, &prompted, &indices, &policy.prior, &scorer)?;
            agent = Some(cost);
            predictions
        } else {
            let mut done = 0;
            evaluate(world, &model, &prompted, &indices, &scorer, options, |scored| {
                for part in scored.chunks_mut(eval.samples_per_image) {
                    chooser.compare(part);
                    done += 1;
                }
                // The other ranks are about as far.
                world.say(&format!("eval {}/{n}", (done * world.size()).min(n)));
            })?
        };
        let choosing = world.gather("the time of choosing", chooser.seconds)?;
        let seconds = started.elapsed().as_secs_f64();
        let of = |prediction: &Prediction| stratum(config, dataset, prediction);
        let mut report = report(&predictions, &scorer, eval.samples_per_image, &eval.thresholds, seconds, of);
        report.chosen = chosen_report(eval, &predictions, &longest(choosing));
        Ok(Self { predictions, report, select: eval.select.first().copied(), agent })
    }

    /// The content of `predictions.json`:
    /// `{"sample_<i>": {"predicted_code", "ground_truth_code", "outcome", "iou", ..}}`, with `iou`
    /// in the first frame. If a part has several samples, these fields are the first sample's, and
    /// `samples` lists `{"predicted_code", "outcome", "iou"}` of all. If one of them was chosen, the
    /// fields are its own, `chosen_by` and `chosen` say how and which one (from 0), and `samples`
    /// has `logprob`, `tokens`, and `image_score` and `consensus` if they were needed. With
    /// `eval.turns` above 1, `earlier_turns` lists `{"predicted_code", "outcome", "iou"}` of the
    /// programs before the fields' one. If the ground truth is a file, `ground_truth_code` is null
    /// and `ground_truth_mesh` is the hash of its content. A completion with a
    /// plan has it in `plan`. The `token_counts` of a program of another model are null.
    pub fn predictions_json(&self, dataset: &Dataset) -> String {
        let row = |(i, samples): (usize, &[Prediction])| {
            let chosen = self.select.map(|by| (by, choice(samples, by, self.report.frame)));
            let prediction = &samples[chosen.map_or(0, |(_, chosen)| chosen)];
            let score = &prediction.score;
            let ground_truth = &dataset.examples()[prediction.index].ground_truth;
            let mut row = json!({
                "id": prediction.id,
                "predicted_code": prediction.program,
                "ground_truth_code": ground_truth.program(),
                "outcome": score.verdict.name(),
                "error": score.error,
                "malformed": score.malformed,
                "truncated": prediction.truncated,
                "token_counts": Some(prediction.counts).filter(|counts| *counts != TokenCounts::default()),
                "iou": score.iou_in(self.report.frame),
                "ious": score.iou,
                "ground_truth_error": score.ground_truth_error,
            });
            if !prediction.plan.is_empty() {
                row["plan"] = json!(prediction.plan);
            }
            if let Some(shape) = ground_truth.shape() {
                row["ground_truth_mesh"] = json!(format!("blake3:{}", shape.digest()));
            }
            if !prediction.earlier.is_empty() {
                let earlier = |p: &EarlierProgram| {
                    let (outcome, iou) = (p.score.verdict.name(), p.score.iou_in(self.report.frame));
                    json!({"predicted_code": p.program, "outcome": outcome, "iou": iou})
                };
                row["earlier_turns"] = prediction.earlier.iter().map(earlier).collect();
            }
            if samples.len() > 1 {
                let sample = |p: &Prediction| {
                    let (outcome, iou) = (p.score.verdict.name(), p.score.iou_in(self.report.frame));
                    let mut sample = json!({"predicted_code": p.program, "outcome": outcome, "iou": iou});
                    if chosen.is_some() {
                        (sample["logprob"], sample["tokens"]) = (json!(p.logprob), json!(p.counts.completion));
                        let of_all = p.hints.consensus.get(&samples.len());
                        for (name, value) in [("image_score", p.hints.image_score.as_ref()), ("consensus", of_all)] {
                            if let Some(value) = value {
                                sample[name] = json!(value);
                            }
                        }
                    }
                    sample
                };
                row["samples"] = samples.iter().map(sample).collect();
            }
            if let Some((by, chosen)) = chosen {
                (row["chosen_by"], row["chosen"]) = (json!(by), json!(chosen));
            }
            (format!("sample_{i}"), row)
        };
        let parts = self.predictions.chunks(self.report.samples_per_image);
        format!("{:#}\n", Value::Object(parts.enumerate().map(row).collect()))
    }

    /// The report as the text of `summary.json`; see [`Report::eval_summary`].
    ///
    /// # Errors
    /// None that can happen: every number of a report is finite.
    pub fn summary_json(&self) -> Result<String> {
        let mut summary = serde_json::to_value(self.report.eval_summary())?;
        if let Some(cost) = &self.agent {
            summary["agent"] = serde_json::to_value(cost)?;
        }
        Ok(serde_json::to_string_pretty(&summary)? + "\n")
    }

    /// The report in one line, followed by one for the turns, if there are several, one for each k
    /// of best@k, and the table of chosen programs.
    pub fn line(&self) -> String {
        let Report { n, vsr, frame, iou, iou_ci95: [low, high], seconds, .. } = &self.report;
        let (valid, seconds) = (self.report.iou_valid(), duration(*seconds));
        let mut text = format!(
            "{n} parts: VSR {vsr:.3}, IoU ({frame}) over all {iou:.3} [{low:.3}, {high:.3}], over valid {valid:.3}, in {seconds}"
        );
        if self.report.panics > 0 {
            text += &format!("\n  {} programs have no score: cadwright panicked on them", self.report.panics);
        }
        if let Some(cost) = &self.agent {
            text += &format!(
                "\n  a part: {:.0} programs built ({:.0} by refinement), {:.0} tokens, {:.2} s; score {:.3}, of the greedy program {:.3}",
                cost.programs, cost.refined, cost.tokens, cost.seconds, cost.score, cost.first_score
            );
        }
        let turns = self.predictions.first().map_or(0, |prediction| prediction.earlier.len());
        if turns > 0 {
            let iou_of = |turn: usize| {
                let iou = |p: &Prediction| p.earlier.get(turn).map_or(0.0, |earlier| earlier.score.iou_in(*frame));
                mean(&self.predictions.iter().map(iou).collect::<Vec<f64>>())
            };
            let ious: Vec<String> = (0..turns).map(|turn| format!("{:.3}", iou_of(turn))).collect();
            text += &format!("\n  IoU of the turns before {}, of the last {iou:.3}", ious.join(", "));
        }
        for (k, at) in &self.report.at_k {
            let (best, [low, high]) = (at.best_iou, at.best_iou_ci95);
            text += &format!("\n  k = {k:<3} best IoU {best:.3} [{low:.3}, {high:.3}]  pass");
            for (threshold, pass) in &at.pass {
                text += &format!("  {:.3} (IoU >= {threshold})", pass.mean);
            }
        }
        if let Some(chosen) = &self.report.chosen {
            let took: Vec<String> = chosen.seconds.iter().map(|(by, seconds)| format!("{by} {seconds:.1} s")).collect();
            text += &format!("\n\n{}Choosing took: {}\n", chosen.markdown(), took.join(", "));
        }
        text
    }
}

/// The cell of a part in CADBench's tables: its split there, such as `benchB`, and its label. None for
/// parts of other data sets.
fn stratum(config: &Config, dataset: &Dataset, prediction: &Prediction) -> Stratum {
    let split = config.data.splits.of(config.eval.split);
    Stratum {
        // Only programs of another model have no tokens: this part has no such program.
        is_empty: prediction.program.is_empty() && prediction.counts == TokenCounts::default(),
        family: Some(split.to_owned()).filter(|split| split.starts_with("bench")),
        label: dataset.examples()[prediction.index].label.clone(),
    }
}

/// A table of the same parts under several prompts, a line each: VSR and IoU with intervals, mean
/// tokens, and the wall time of a part.
pub fn prompts_table(reports: &[(String, Report)]) -> String {
    let width = reports.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("prompt".len());
    let mut text = format!(
        "{:<width$}  {:<21}  {:<21}  {:>13}  {:>17}  {:>11}  {:>8}",
        "prompt", "VSR [95 %]", "IoU over all [95 %]", "prompt tokens", "completion tokens", "plan tokens", "s a part"
    );
    for (name, report) in reports {
        let interval = |mean: f64, [low, high]: [f64; 2]| format!("{mean:.3} [{low:.3}, {high:.3}]");
        let [vsr, iou] = report.quoted().map(|quoted| interval(quoted.mean, quoted.ci95));
        let [prompt, completion, plan] = match report.tokens {
            Some(tokens) => [tokens.prompt_tokens, tokens.completion_tokens, tokens.plan_tokens],
            None => [0.0; 3],
        };
        let seconds = report.seconds / report.n.max(1) as f64;
        text += &format!(
            "\n{name:<width$}  {vsr:<21}  {iou:<21}  {prompt:>13.1}  {completion:>17.1}  {plan:>11.1}  {seconds:>8.3}"
        );
    }
    text
}

/// By way to choose: the time of the slowest rank.
fn longest(of_ranks: Vec<BTreeMap<Select, f64>>) -> BTreeMap<Select, f64> {
    let mut longest = BTreeMap::new();
    for (by, seconds) in of_ranks.into_iter().flatten() {
        let known: &mut f64 = longest.entry(by).or_default();
        *known = known.max(seconds);
    }
    longest
}
