//! What `cadwright audit` does: both engines and exact booleans on the same pairs, and where they disagree.
//!
//! CadQuery is the truth about single programs, OCC's booleans about pairs. Every distinct program counts once, however
//! many pairs it is in.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Display};
use std::path::PathBuf;

use cadwright_rewards::native::Decline;
use cadwright_rewards::{Frame, Outcome, Solid, frame_iou};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Engine, ScorerConfig};
use crate::engines::execute_natively;
use crate::error::Result;
use crate::jsonl::{Output, Row, check_rows, rows, stream};
use crate::scorer::{Scorer, Shared};
use crate::store::key;
use crate::summary::top_reasons;

/// Pairs kept with their programs in [`AuditReport::worst`].
const WORST: usize = 10;

/// An IoU error below this is not worth a place among the worst.
const NOTABLE: f64 = 0.005;

/// What to audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditOptions {
    /// Rows `{"id", "ground_truth", "prediction"}`, both programs; other fields are ignored.
    pub input: PathBuf,
    /// Only so many of them, drawn by `seed`; 0 for all.
    pub sample: usize,
    /// Decides which are drawn.
    pub seed: u64,
    /// Where the [`AuditReport`] goes, as JSON.
    pub output: Option<PathBuf>,
    /// Limits and grid; engine and frames are the audit's own.
    pub scorer: ScorerConfig,
}

#[derive(Deserialize)]
struct PairIn {
    id: Value,
    ground_truth: String,
    prediction: String,
}

impl Row for PairIn {}

/// Mean and maximum of some errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Errors {
    /// How many.
    pub n: usize,
    /// Their mean; 0 for none.
    pub mean: f64,
    /// The largest; 0 for none.
    pub max: f64,
}

impl Errors {
    fn add(&mut self, error: f64) {
        self.n += 1;
        self.mean += (error - self.mean) / self.n as f64;
        self.max = self.max.max(error);
    }
}

/// A program about which the engines disagree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disagreement {
    /// Of the pair in which it was first seen.
    pub id: Value,
    /// `prediction` or `ground_truth`.
    pub role: &'static str,
    /// What the native engine says.
    pub native: String,
    /// What CadQuery says.
    pub cadquery: String,
    /// Its text.
    pub program: String,
}

/// A pair whose native IoU is far from the exact one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstPair {
    /// Of the pair.
    pub id: Value,
    /// On the grid, from the native solids.
    pub native_iou: f64,
    /// On the grid, from CadQuery's solids.
    pub cadquery_iou: f64,
    /// By booleans.
    pub exact_iou: f64,
    /// Its text.
    pub ground_truth: String,
    /// Its text.
    pub prediction: String,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AuditReport {
    /// Pairs looked at.
    pub pairs: usize,
    /// Distinct programs in them.
    pub programs: usize,
    /// Programs that the native engine answered.
    pub certified: usize,
    /// `certified / programs`.
    pub certified_share: f64,
    /// Programs that it declined, per reason.
    pub declined: BTreeMap<&'static str, usize>,
    /// Certified programs with CadQuery's outcome.
    pub verdicts_agree: usize,
    /// The others.
    pub verdicts_disagree: Vec<Disagreement>,
    /// Certified solids on whose malformedness both agree.
    pub malformed_agree: usize,
    /// The others.
    pub malformed_disagree: Vec<Disagreement>,
    /// `|V - V'| / |V'|` of certified solids that are not malformed and have a volume.
    pub volume_error: Errors,
    /// Distance of the centroids of the same solids, as a share of the diagonal of their bounds.
    pub centroid_error: Errors,
    /// Cells along each axis of the grids.
    pub grid: usize,
    /// Native IoU against the exact one, where both programs are certified and booleans have an answer.
    pub native_iou_error: Errors,
    /// IoU of CadQuery's meshes against the exact one, where booleans have an answer.
    pub cadquery_iou_error: Errors,
    /// Pairs of solids for which booleans have no answer: one is malformed, or OCC failed.
    pub without_exact: usize,
    /// The largest errors of the native IoU.
    pub worst: Vec<WorstPair>,
}

/// What the engines said about one program.
struct Opinion {
    native: Result<Outcome, Decline>,
    cadquery: Outcome,
}

/// What they said about a pair.
struct Findings {
    prediction: Opinion,
    ground_truth: Opinion,
    native_iou: Option<f64>,
    cadquery_iou: Option<f64>,
    exact_iou: Option<f64>,
}

/// Compares the engines on (a sample of) the pairs of a file.
pub fn audit(options: &AuditOptions) -> Result<AuditReport> {
    check_rows::<PairIn>(&options.input)?;
    let chosen = choose(rows::<PairIn>(&options.input)?.count(), options.sample, options.seed);
    let mut output = options.output.as_deref().map(Output::create).transpose()?;
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Cadquery, ..options.scorer.clone() })?;
    scorer.ready()?;
    let mut report = AuditReport { grid: options.scorer.grid, ..AuditReport::default() };
    let mut seen = HashSet::new();
    let rows = rows::<PairIn>(&options.input)?.enumerate();
    let rows = rows.filter(|(index, _)| chosen.contains(index)).map(|(_, row)| row);
    stream(&scorer, rows, examine, |row: &PairIn, findings| {
        report.pairs += 1;
        for (role, program, opinion) in [
            ("ground_truth", &row.ground_truth, &findings.ground_truth),
            ("prediction", &row.prediction, &findings.prediction),
        ] {
            if seen.insert(key(&[program])) {
                report.add_program(&row.id, role, program, opinion);
            }
        }
        report.add_pair(row, &findings);
        Ok(())
    })?;
    report.certified_share = report.certified as f64 / report.programs.max(1) as f64;
    if let Some(mut file) = output.take() {
        file.pretty(&report)?;
        file.finish()?;
    }
    Ok(report)
}

/// Which of `n` rows are drawn: all, or the same `sample` for the same `seed`.
fn choose(n: usize, sample: usize, seed: u64) -> HashSet<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if sample > 0 && sample < n {
        order.sort_by_cached_key(|index| key(&[&seed.to_string(), &index.to_string()]));
        order.truncate(sample);
    }
    order.into_iter().collect()
}

fn examine(shared: &Shared, row: &PairIn) -> Result<Findings> {
    let opinion = |program: &str, is_ground_truth| -> Result<Opinion> {
        Ok(Opinion { native: execute_natively(program), cadquery: shared.cadquery(program, is_ground_truth)? })
    };
    let (prediction, ground_truth) = (opinion(&row.prediction, false)?, opinion(&row.ground_truth, true)?);
    let grid_iou = |a: Option<&Solid>, b: Option<&Solid>| Some(frame_iou(Frame::Canonical, shared.config.grid, a?, b?));
    let (a, b) = (prediction.cadquery.solid(), ground_truth.cadquery.solid());
    let exact_iou = match (a, b) {
        (Some(a), Some(b)) if !a.malformed && !b.malformed => shared.exact_iou(&row.ground_truth, &row.prediction)?,
        _ => None,
    };
    Ok(Findings {
        native_iou: grid_iou(native_solid(&prediction), native_solid(&ground_truth)),
        cadquery_iou: grid_iou(a.map(AsRef::as_ref), b.map(AsRef::as_ref)),
        exact_iou,
        prediction,
        ground_truth,
    })
}

fn native_solid(opinion: &Opinion) -> Option<&Solid> {
    opinion.native.as_ref().ok().and_then(Outcome::solid).map(AsRef::as_ref)
}

/// The outcome in a line.
fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Solid(solid) if solid.malformed => "solid, malformed".to_owned(),
        Outcome::Solid(_) => "solid".to_owned(),
        Outcome::Failure(failure) => format!("{}: {}", failure.class, failure.error),
    }
}

impl AuditReport {
    fn add_program(&mut self, id: &Value, role: &'static str, program: &str, opinion: &Opinion) {
        self.programs += 1;
        let native = match &opinion.native {
            Ok(native) => native,
            Err(decline) => {
                *self.declined.entry(decline.reason).or_default() += 1;
                return;
            }
        };
        self.certified += 1;
        let disagreement = || Disagreement {
            id: id.clone(),
            role,
            native: described(native),
            cadquery: described(&opinion.cadquery),
            program: program.to_owned(),
        };
        if native.class() != opinion.cadquery.class() {
            self.verdicts_disagree.push(disagreement());
            return;
        }
        self.verdicts_agree += 1;
        let (Some(native), Some(truth)) = (native.solid(), opinion.cadquery.solid()) else { return };
        if native.malformed != truth.malformed {
            self.malformed_disagree.push(disagreement());
            return;
        }
        self.malformed_agree += 1;
        let (found, expected) = (native.mass(), truth.mass());
        if truth.malformed || expected.volume.abs() < f64::MIN_POSITIVE {
            return;
        }
        let distance = |a: [f64; 3], b: [f64; 3]| (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt();
        self.volume_error.add((found.volume - expected.volume).abs() / expected.volume.abs());
        let diagonal = distance(expected.bounds.min, expected.bounds.max);
        self.centroid_error.add(distance(found.centroid, expected.centroid) / diagonal);
    }

    fn add_pair(&mut self, row: &PairIn, findings: &Findings) {
        let Some(cadquery_iou) = findings.cadquery_iou else { return };
        let Some(exact_iou) = findings.exact_iou else {
            self.without_exact += 1;
            return;
        };
        self.cadquery_iou_error.add((cadquery_iou - exact_iou).abs());
        let Some(native_iou) = findings.native_iou else { return };
        let error = (native_iou - exact_iou).abs();
        self.native_iou_error.add(error);
        if error < NOTABLE {
            return;
        }
        self.worst.push(WorstPair {
            id: row.id.clone(),
            native_iou,
            cadquery_iou,
            exact_iou,
            ground_truth: row.ground_truth.clone(),
            prediction: row.prediction.clone(),
        });
        let error = |pair: &WorstPair| (pair.native_iou - pair.exact_iou).abs();
        self.worst.sort_by(|a, b| error(b).total_cmp(&error(a)));
        self.worst.truncate(WORST);
    }
}

impl Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n {
            0 => f.write_str("none to compare"),
            n => write!(f, "mean {:.2e}, max {:.2e} of {n}", self.mean, self.max),
        }
    }
}

impl Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.certified_share;
        writeln!(f, "{} pairs, {} programs, {} certified ({share:.1} %)", self.pairs, self.programs, self.certified)?;
        if !self.declined.is_empty() {
            writeln!(f, "declined            {}", top_reasons(&self.declined))?;
        }
        writeln!(f, "verdicts            {} agree, {} disagree", self.verdicts_agree, self.verdicts_disagree.len())?;
        writeln!(f, "malformed           {} agree, {} disagree", self.malformed_agree, self.malformed_disagree.len())?;
        for case in self.verdicts_disagree.iter().chain(&self.malformed_disagree).take(WORST) {
            writeln!(f, "  {} ({}): native {}; cadquery {}", case.id, case.role, case.native, case.cadquery)?;
        }
        writeln!(f, "volume error        {}", self.volume_error)?;
        writeln!(f, "centroid error      {}", self.centroid_error)?;
        let n = self.grid;
        writeln!(f, "IoU error at {n:<7}native {}; cadquery {}", self.native_iou_error, self.cadquery_iou_error)?;
        for pair in &self.worst {
            writeln!(
                f,
                "  {}: native {:.4}, cadquery {:.4}, exact {:.4}",
                pair.id, pair.native_iou, pair.cadquery_iou, pair.exact_iou
            )?;
        }
        write!(f, "no exact IoU        {} pairs of solids", self.without_exact)
    }
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

    #[test]
    fn errors_have_mean_and_maximum() {
        let mut errors = Errors::default();
        [1.0, 2.0, 6.0].into_iter().for_each(|error| errors.add(error));
        assert_eq!(errors, Errors { n: 3, mean: 3.0, max: 6.0 });
    }
}
