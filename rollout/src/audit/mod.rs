//! The work of `cadwright audit`: compares both engines and exact booleans on the same programs and
//! pairs, and reports the disagreements.
//!
//! CadQuery is the truth about single programs, OCC's booleans about pairs. [`audit`] takes pairs
//! from a file. It counts every distinct program once, in however many pairs it occurs. [`fuzz`]
//! generates programs and reduces those that show a disagreement.

mod compare;
mod draw;
mod fuzz;
mod generate;
mod reduce;
mod report;
mod text;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use cadwright_rewards::Frame;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Engine, ScorerConfig};
use crate::error::Result;
use crate::jsonl::{Output, Row, check_rows, rows, stream};
use crate::scorer::{Scorer, Shared};
use crate::store::key;
use compare::{Opinion, PairMeasured, measure};
use report::Tally;

pub use compare::{Difference, IOU_TOLERANCE, Kind, Measured, TOLERANCE, VOLUME_TOLERANCE};
pub use fuzz::{FuzzOptions, Progress, fuzz};
pub use generate::{Style, program};
pub use report::{ALL, AuditReport, Disagreement, Errors, FrameIou, IouErrors, StyleReport, WorstPair};

/// The frames whose IoU the engines compute on grids.
const FRAMES: [Frame; 3] = [Frame::Canonical, Frame::Normalised, Frame::Aligned];

/// Settings of [`audit`].
#[derive(Debug, Clone, PartialEq)]
pub struct AuditOptions {
    /// JSONL file of rows `{"id", "ground_truth", "prediction"}`, optionally with `"style"`.
    /// `ground_truth` and `prediction` are programs. Other fields are ignored.
    pub input: PathBuf,
    /// Number of rows to draw; 0 for all.
    pub sample: usize,
    /// Decides which rows are drawn.
    pub seed: u64,
    /// The file for the [`AuditReport`], as JSON.
    pub output: Option<PathBuf>,
    /// Limits and grid. The audit ignores its engine and frames, and uses its own.
    pub scorer: ScorerConfig,
}

#[derive(Deserialize)]
struct PairIn {
    id: Value,
    ground_truth: String,
    prediction: String,
    #[serde(default)]
    style: Option<String>,
}

impl Row for PairIn {}

/// Compares the engines on the pairs of a file, or on a sample of them.
///
/// # Errors
/// Files that cannot be read or written, a malformed row, or workers that cannot go on.
pub fn audit(options: &AuditOptions) -> Result<AuditReport> {
    check_rows::<PairIn>(&options.input)?;
    let chosen = choose(rows::<PairIn>(&options.input)?.count(), options.sample, options.seed);
    let output = options.output.as_deref().map(Output::create).transpose()?;
    let scorer = ready_scorer(&options.scorer)?;
    let start = Instant::now();
    let mut tally = Tally::new(options.seed, options.scorer.grid);
    let mut seen = HashSet::new();
    let rows = rows::<PairIn>(&options.input)?.enumerate();
    let rows = rows.filter(|(index, _)| chosen.contains(index)).map(|(_, row)| row);
    stream(&scorer, rows, examine, |row: &PairIn, (truth, prediction, measured)| {
        let style = row.style.as_deref().unwrap_or(ALL);
        for (program, opinion) in [(&row.ground_truth, &truth), (&row.prediction, &prediction)] {
            if seen.insert(key(&[program])) {
                tally.add_program(&row.id, style, program, opinion);
            }
        }
        tally.add_pair(&row.id, style, [&row.ground_truth, &row.prediction], &measured);
        Ok(())
    })?;
    written(tally.finish(start.elapsed().as_secs_f64()), output)
}

/// A scorer whose CadQuery workers are ready.
fn ready_scorer(config: &ScorerConfig) -> Result<Scorer> {
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Cadquery, ..config.clone() })?;
    scorer.ready()?;
    Ok(scorer)
}

/// Writes the report to `output`, if there is one, and returns it.
fn written(report: AuditReport, output: Option<Output>) -> Result<AuditReport> {
    if let Some(mut file) = output {
        file.pretty(&report)?;
        file.finish()?;
    }
    Ok(report)
}

/// Indices of the drawn rows among `n`: all, or `sample` of them, the same ones for the same
/// `seed`.
fn choose(n: usize, sample: usize, seed: u64) -> HashSet<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if sample > 0 && sample < n {
        order.sort_by_cached_key(|index| key(&[&seed.to_string(), &index.to_string()]));
        order.truncate(sample);
    }
    order.into_iter().collect()
}

/// The opinions about the ground truth and the prediction of a pair, and its IoUs.
fn examine(shared: &Shared, row: &PairIn) -> Result<(Opinion, Opinion, PairMeasured)> {
    let truth = Opinion::of(shared, &row.ground_truth, true)?;
    let prediction = Opinion::of(shared, &row.prediction, false)?;
    let measured = measure(shared, &FRAMES, (&row.ground_truth, &truth), (&row.prediction, &prediction))?;
    Ok((truth, prediction, measured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_drawn_by_its_seed() {
        assert_eq!(choose(5, 0, 1).len(), 5);
        assert_eq!(choose(5, 9, 1).len(), 5);
        let drawn = choose(1000, 10, 1);
        assert_eq!((drawn.len(), &drawn), (10, &choose(1000, 10, 1)));
        assert_ne!(drawn, choose(1000, 10, 2));
    }
}
