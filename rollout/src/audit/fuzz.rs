//! Compares both engines on generated programs and pairs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::compare::{IOU_TOLERANCE, Opinion, PairMeasured, measure};
use super::draw::Draw;
use super::generate::{Style, perturbed, program};
use super::reduce::reduce;
use super::report::{AuditReport, Disagreement, Tally, WorstPair};
use super::{FRAMES, ready_scorer, written};
use crate::config::ScorerConfig;
use crate::error::Result;
use crate::jsonl::{Output, stream};
use crate::scorer::Shared;

/// Maximum number of executions to reduce one program or one pair.
const BUDGET: usize = 150;

/// Maximum number of changed copies of a program that are tried until one gives a solid.
const COPIES: usize = 4;

/// First of the random streams, one for each style, that draw pairs. Programs use the streams below
/// it.
const PAIR_STREAM: u64 = 128;

/// First of the random streams, one for each style, that change copies.
const COPY_STREAM: u64 = 192;

/// Settings of [`fuzz`].
#[derive(Debug, Clone, PartialEq)]
pub struct FuzzOptions {
    /// Number of programs. They take the styles in turn.
    pub programs: usize,
    /// Number of pairs. They take the styles in turn, and are drawn among the programs of the style
    /// that give a sound solid.
    pub pairs: usize,
    /// Styles of the programs.
    pub styles: Vec<Style>,
    /// Decides every program and pair.
    pub seed: u64,
    /// Maximum number of findings of each kind in each style that are reduced to a smaller program.
    /// The others are reported as they are.
    pub reduced: usize,
    /// The file for the [`AuditReport`], as JSON.
    pub output: Option<PathBuf>,
    /// Limits and grid. The audit ignores its engine and frames, and uses its own.
    pub scorer: ScorerConfig,
}

/// The progress of [`fuzz`].
#[derive(Debug)]
pub enum Progress<'a> {
    /// The number of programs compared so far.
    Programs(usize),
    /// The number of pairs compared so far.
    Pairs(usize),
    /// A disagreement, after its reduction if it is reduced.
    Disagreement(&'a Disagreement),
    /// A pair whose IoU error exceeds the tolerance, after its reduction if it is reduced.
    Pair(&'a WorstPair),
}

/// Compares the engines on random programs and pairs, and reduces those that show a disagreement.
/// Reports its progress to `hear`.
///
/// # Errors
/// A report that cannot be written, or workers that cannot go on.
pub fn fuzz(options: &FuzzOptions, hear: &mut dyn FnMut(Progress)) -> Result<AuditReport> {
    let output = options.output.as_deref().map(Output::create).transpose()?;
    let scorer = ready_scorer(&options.scorer)?;
    let start = Instant::now();
    let seed = options.seed;
    let mut tally = Tally::new(seed, options.scorer.grid);

    // 1. Programs.
    let styles = options.styles.clone();
    let (mut done, mut sound) = (0, BTreeMap::<Style, Vec<u64>>::new());
    let tasks = (0..options.programs).map(move |k| Ok((styles[k % styles.len()], (k / styles.len()) as u64)));
    let examine = move |shared: &Shared, &(style, index): &(Style, u64)| {
        let text = program(style, seed, index);
        Opinion::of(shared, &text, false).map(|opinion| (text, opinion))
    };
    stream(&scorer, tasks, examine, |&(style, index), (text, opinion)| {
        tally.add_program(&id(style, index), style.name(), &text, &opinion);
        let solid = opinion.cadquery.solid();
        if solid.is_some_and(|solid| !solid.malformed && solid.mass().volume > 0.0) {
            sound.entry(style).or_default().push(index);
        }
        done += 1;
        hear(Progress::Programs(done));
        Ok(())
    })?;

    // 2. Pairs.
    let styles: Vec<Style> = sound.keys().copied().collect();
    let pairs = if styles.is_empty() { 0 } else { options.pairs };
    let tasks = (0..pairs).map(|k| {
        let style = styles[k % styles.len()];
        let mut draw = Draw::new(seed, PAIR_STREAM + style as u64, k as u64);
        let (truth, other) = (draw.pick(&sound[&style]), draw.pick(&sound[&style]));
        Ok(PairTask { style, number: k as u64, truth, other })
    });
    let mut done = 0;
    let examine = move |shared: &Shared, task: &PairTask| task.examine(shared, seed);
    stream(&scorer, tasks, examine, |task, (truth, prediction, measured)| {
        tally.add_pair(&Value::from(task.number), task.style.name(), [&truth, &prediction], &measured);
        done += 1;
        hear(Progress::Pairs(done));
        Ok(())
    })?;

    // 3. Reductions of the findings.
    let mut report = tally.finish(start.elapsed().as_secs_f64());
    let mut counts = BTreeMap::new();
    let mut is_due = |kind: String| {
        let count: &mut usize = counts.entry(kind).or_default();
        *count += 1;
        *count <= options.reduced
    };
    let due: Vec<bool> = report
        .disagreements
        .iter()
        .map(|case| is_due(format!("{} {}", case.style, case.differences[0].kind.name())))
        .collect();
    let tasks = report.disagreements.clone().into_iter().zip(due).map(Ok);
    let mut cases = Vec::new();
    let smaller = |shared: &Shared, (case, is_due): &(Disagreement, bool)| match is_due {
        true => smaller_program(shared, case).map(Some),
        false => Ok(None),
    };
    stream(&scorer, tasks, smaller, |(case, _), reduced| {
        let case = Disagreement { reduced, ..case.clone() };
        hear(Progress::Disagreement(&case));
        cases.push(case);
        Ok(())
    })?;
    report.disagreements = cases;
    let due: Vec<bool> = report
        .worst
        .iter()
        .map(|pair| pair.error > IOU_TOLERANCE && is_due(format!("{} {}", pair.style, pair.ious[0].engine)))
        .collect();
    let tasks = report.worst.clone().into_iter().zip(due).map(Ok);
    let mut pairs = Vec::new();
    let smaller = |shared: &Shared, (pair, is_due): &(WorstPair, bool)| match is_due {
        true => smaller_pair(shared, pair).map(Some),
        false => Ok(None),
    };
    stream(&scorer, tasks, smaller, |(pair, _), reduced| {
        let pair = WorstPair { reduced, ..pair.clone() };
        if pair.error > IOU_TOLERANCE {
            hear(Progress::Pair(&pair));
        }
        pairs.push(pair);
        Ok(())
    })?;
    report.worst = pairs;
    written(report, output)
}

/// The id of a generated program in reports.
fn id(style: Style, index: u64) -> Value {
    json!(format!("{style}-{index}"))
}

/// A pair to be generated and measured. `truth` and `other` are indices of programs of `style`.
struct PairTask {
    style: Style,
    number: u64,
    truth: u64,
    other: u64,
}

impl PairTask {
    /// The ground truth, the prediction and their IoUs. The prediction is usually a changed copy of
    /// the ground truth, otherwise another program.
    fn examine(&self, shared: &Shared, seed: u64) -> Result<(String, String, PairMeasured)> {
        let truth = program(self.style, seed, self.truth);
        let truth_opinion = Opinion::of(shared, &truth, true)?;
        let mut draw = Draw::new(seed, COPY_STREAM + self.style as u64, self.number);
        let mut prediction = program(self.style, seed, self.other);
        if draw.chance(0.7) {
            for _ in 0..COPIES {
                let copy = perturbed(&mut draw, &truth);
                if shared.cadquery(&copy, false)?.solid().is_some_and(|solid| !solid.malformed) {
                    prediction = copy;
                    break;
                }
            }
        }
        let opinion = Opinion::of(shared, &prediction, false)?;
        let measured = measure(shared, &FRAMES, (&truth, &truth_opinion), (&prediction, &opinion))?;
        Ok((truth, prediction, measured))
    }
}

/// A smaller program with the first of the case's differences.
fn smaller_program(shared: &Shared, case: &Disagreement) -> Result<String> {
    let wanted = &case.differences[0];
    reduce(&case.program, BUDGET, &mut |text| {
        let differences = Opinion::of(shared, text, false)?.differences();
        Ok(differences.iter().any(|difference| difference.is_like(wanted)))
    })
}

/// A smaller pair, ground truth first, with a large error of the same engine in the same frame.
fn smaller_pair(shared: &Shared, pair: &WorstPair) -> Result<[String; 2]> {
    let (engine, frame) = (pair.ious[0].engine, pair.ious[0].frame);
    let is_far = |truth: &str, prediction: &str| -> Result<bool> {
        let (a, b) = (Opinion::of(shared, truth, true)?, Opinion::of(shared, prediction, false)?);
        let measured = measure(shared, &[frame], (truth, &a), (prediction, &b))?;
        let error = measured.get(&(engine, frame)).and_then(|measured| measured.error());
        Ok(error.is_some_and(|error| error > IOU_TOLERANCE))
    };
    let prediction = reduce(&pair.prediction, BUDGET / 2, &mut |text| is_far(&pair.ground_truth, text))?;
    let truth = reduce(&pair.ground_truth, BUDGET / 2, &mut |text| is_far(text, &prediction))?;
    Ok([truth, prediction])
}
