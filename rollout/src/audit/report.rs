//! The report of an audit, by style.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

use cadwright_rewards::Frame;
use serde::Serialize;
use serde_json::Value;

use super::compare::{Difference, IOU_TOLERANCE, Kind, MassErrors, Measured, Opinion, PairMeasured, mass_errors};
use crate::config::Engine;
use crate::summary::{MeanCi, top_reasons};

/// The name under which the report sums all styles. Rows without a style have it, too.
pub const ALL: &str = "all";

/// Maximum number of pairs in [`AuditReport::worst`].
const WORST: usize = 50;

/// Minimum IoU error of a pair in [`AuditReport::worst`].
const NOTABLE: f64 = 0.005;

/// Maximum number of disagreements, and of pairs, that the text for people shows.
const SHOWN: usize = 10;

/// Mean and maximum of some errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Errors {
    /// Number of errors.
    pub n: usize,
    /// Their mean; 0 if there are none.
    pub mean: f64,
    /// The largest error; 0 if there are none.
    pub max: f64,
}

impl Errors {
    fn add(&mut self, error: f64) {
        self.n += 1;
        self.mean += (error - self.mean) / self.n as f64;
        self.max = self.max.max(error);
    }
}

/// Errors of an engine's IoU against exact booleans.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IouErrors {
    /// Pairs compared.
    pub n: usize,
    /// Mean of the errors.
    pub mean: f64,
    /// 95 % bootstrap interval of the mean.
    pub ci95: [f64; 2],
    /// The largest error.
    pub max: f64,
    /// Pairs whose error exceeds [`IOU_TOLERANCE`].
    pub beyond: usize,
}

impl IouErrors {
    fn of(errors: &[f64]) -> Self {
        let MeanCi { mean, ci95 } = MeanCi::of(errors);
        let beyond = errors.iter().filter(|error| **error > IOU_TOLERANCE).count();
        Self { n: errors.len(), mean, ci95, max: errors.iter().copied().fold(0.0, f64::max), beyond }
    }
}

/// The report about one style.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StyleReport {
    /// Distinct programs.
    pub programs: usize,
    /// Programs that give a solid in CadQuery.
    pub valid: usize,
    /// Programs for which CadQuery ran out of time or memory.
    pub unanswered: usize,
    /// Programs that the native engine answered.
    pub certified: usize,
    /// `certified / programs`.
    pub certified_share: f64,
    /// 95 % Wilson interval of `certified_share`.
    pub certified_ci95: [f64; 2],
    /// Programs that the native engine declined, by reason.
    pub declined: BTreeMap<Cow<'static, str>, usize>,
    /// Certified programs about which the native engine's answer differs from CadQuery's.
    pub disagree: usize,
    /// 95 % Wilson interval of `disagree / certified`.
    pub disagree_ci95: [f64; 2],
    /// Programs by kind of difference; a program may have several.
    pub differences: BTreeMap<Kind, usize>,
    /// Certified solids of whose volume, centroid and inertia the native engine is not certain.
    /// These properties are not compared.
    pub without_mass: usize,
    /// `|V - V'| / V'` of certified solids that are not malformed and have a volume.
    pub volume_error: Errors,
    /// Distance of the centroids of the same solids, as a share of the diagonal of their bounds.
    pub centroid_error: Errors,
    /// The largest error of a bound, as a share of the same diagonal.
    pub bounds_error: Errors,
    /// The largest error of an entry of the inertia tensor, as a share of its trace.
    pub inertia_error: Errors,
    /// Number of pairs.
    pub pairs: usize,
    /// Pairs of solids for which booleans have no answer in [`Frame::Canonical`]: one solid is
    /// malformed, or OCC failed.
    pub without_exact: usize,
    /// Errors of the IoU on the grid, by engine and frame, over the pairs for which booleans have
    /// an answer.
    pub iou_error: BTreeMap<Engine, BTreeMap<Frame, IouErrors>>,
}

/// A program about which the engines disagree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disagreement {
    /// Id of the program, or of the first pair that contains it.
    pub id: Value,
    /// Style of the program.
    pub style: String,
    /// The differences; at least one.
    pub differences: Vec<Difference>,
    /// Text of the program.
    pub program: String,
    /// A smaller program with the first of the differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduced: Option<String>,
}

/// The IoU of an engine in a frame, of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FrameIou {
    /// The engine.
    pub engine: Engine,
    /// The frame.
    pub frame: Frame,
    /// The IoU of the engine, and the exact one.
    #[serde(flatten)]
    pub measured: Measured,
}

/// A pair with an IoU far from the exact one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstPair {
    /// Id of the pair.
    pub id: Value,
    /// Style of the pair.
    pub style: String,
    /// The largest error among `ious`.
    pub error: f64,
    /// The IoU of each engine in each frame, by descending error.
    pub ious: Vec<FrameIou>,
    /// Text of the ground truth.
    pub ground_truth: String,
    /// Text of the prediction.
    pub prediction: String,
    /// A smaller pair, ground truth first, with a large error of the same engine in the same frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduced: Option<[String; 2]>,
}

/// The report of an audit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AuditReport {
    /// The seed by which rows were drawn, or programs and pairs generated.
    pub seed: u64,
    /// Cells along each axis of the grids.
    pub grid: usize,
    /// Wall time, without that of the reductions.
    pub seconds: f64,
    /// Number of pairs.
    pub pairs: usize,
    /// Number of distinct programs.
    pub programs: usize,
    /// The report about each style, and about all together as [`ALL`].
    pub styles: BTreeMap<String, StyleReport>,
    /// Every program about which the engines disagree.
    pub disagreements: Vec<Disagreement>,
    /// The pairs with the largest errors, by descending error.
    pub worst: Vec<WorstPair>,
}

/// 95 % Wilson score interval of a share (Wilson 1927, JASA 22:209).
fn wilson_ci95(successes: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    const Z: f64 = 1.959_963_984_540_054;
    let (count, share) = (n as f64, successes as f64 / n as f64);
    let centre = share + Z * Z / (2.0 * count);
    let reach = Z * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt();
    let scale = 1.0 + Z * Z / count;
    [((centre - reach) / scale).max(0.0), ((centre + reach) / scale).min(1.0)]
}

/// Collects findings for an [`AuditReport`].
#[derive(Default)]
pub struct Tally {
    report: AuditReport,
    iou_errors: BTreeMap<(String, Engine, Frame), Vec<f64>>,
}

/// The reports in which a style counts: its own and [`ALL`].
fn places(style: &str) -> impl Iterator<Item = &str> {
    [style, ALL].into_iter().take(if style == ALL { 1 } else { 2 })
}

impl Tally {
    /// An empty tally for grids of `grid` cells along each axis.
    pub fn new(seed: u64, grid: usize) -> Self {
        let report = AuditReport { seed, grid, ..AuditReport::default() };
        Self { report, ..Self::default() }
    }

    /// Adds a program; true if the engines disagree about it.
    pub fn add_program(&mut self, id: &Value, style: &str, program: &str, opinion: &Opinion) -> bool {
        let differences = opinion.differences();
        let errors = opinion.native_solid().zip(opinion.cadquery.solid()).and_then(|(a, b)| mass_errors(a, b));
        self.report.programs += 1;
        for place in places(style) {
            self.report.styles.entry(place.to_owned()).or_default().add_program(opinion, &differences, errors);
        }
        let disagree = !differences.is_empty();
        if disagree {
            let (style, program) = (style.to_owned(), program.to_owned());
            self.report.disagreements.push(Disagreement { id: id.clone(), style, differences, program, reduced: None });
        }
        disagree
    }

    /// Adds a pair.
    pub fn add_pair(
        &mut self,
        id: &Value,
        style: &str,
        [ground_truth, prediction]: [&str; 2],
        measured: &PairMeasured,
    ) {
        self.report.pairs += 1;
        let canonical = measured.get(&(Engine::Cadquery, Frame::Canonical));
        for place in places(style) {
            let report = self.report.styles.entry(place.to_owned()).or_default();
            report.pairs += 1;
            report.without_exact += usize::from(canonical.is_some_and(|measured| measured.exact.is_none()));
            for (&(engine, frame), measured) in measured {
                if let Some(error) = measured.error() {
                    self.iou_errors.entry((place.to_owned(), engine, frame)).or_default().push(error);
                }
            }
        }
        let mut ious: Vec<FrameIou> =
            measured.iter().map(|(&(engine, frame), &measured)| FrameIou { engine, frame, measured }).collect();
        let size = |iou: &FrameIou| iou.measured.error().unwrap_or(0.0);
        ious.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let error = ious.first().map_or(0.0, size);
        if error < NOTABLE {
            return;
        }
        self.report.worst.push(WorstPair {
            id: id.clone(),
            style: style.to_owned(),
            error,
            ious,
            ground_truth: ground_truth.to_owned(),
            prediction: prediction.to_owned(),
            reduced: None,
        });
        self.report.worst.sort_by(|a, b| b.error.total_cmp(&a.error));
        self.report.worst.truncate(WORST);
    }

    /// The report; `seconds` is the wall time.
    pub fn finish(self, seconds: f64) -> AuditReport {
        let mut report = AuditReport { seconds, ..self.report };
        for style in report.styles.values_mut() {
            style.certified_share = style.certified as f64 / style.programs.max(1) as f64;
            style.certified_ci95 = wilson_ci95(style.certified, style.programs);
            style.disagree_ci95 = wilson_ci95(style.disagree, style.certified);
        }
        for ((place, engine, frame), errors) in &self.iou_errors {
            let style = report.styles.entry(place.clone()).or_default();
            style.iou_error.entry(*engine).or_default().insert(*frame, IouErrors::of(errors));
        }
        report
    }
}

impl StyleReport {
    fn add_program(&mut self, opinion: &Opinion, differences: &[Difference], errors: Option<MassErrors>) {
        self.programs += 1;
        self.valid += usize::from(opinion.cadquery.class().is_valid());
        self.unanswered += usize::from(opinion.is_unanswered());
        match &opinion.native {
            Ok(_) => self.certified += 1,
            Err(decline) => *self.declined.entry(decline.reason.clone()).or_default() += 1,
        }
        self.disagree += usize::from(!differences.is_empty());
        for difference in differences {
            *self.differences.entry(difference.kind).or_default() += 1;
        }
        let Some(errors) = errors else { return };
        self.bounds_error.add(errors.bounds);
        if errors.is_mass_certain {
            self.volume_error.add(errors.volume);
            self.centroid_error.add(errors.centroid);
            self.inertia_error.add(errors.inertia);
        } else {
            self.without_mass += 1;
        }
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

impl Display for IouErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.ci95;
        let Self { n, mean, max, beyond, .. } = self;
        write!(f, "mean {mean:.5} [{low:.5}, {high:.5}], max {max:.4}, {beyond} beyond {IOU_TOLERANCE} of {n}")
    }
}

impl Display for StyleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        writeln!(
            f,
            "  programs          {}, {} valid, {} certified: {:.1} % [{:.1}, {:.1}]",
            self.programs,
            self.valid,
            self.certified,
            percent(self.certified_share),
            percent(self.certified_ci95[0]),
            percent(self.certified_ci95[1])
        )?;
        if self.unanswered > 0 {
            writeln!(f, "  unanswered        {} by CadQuery: no time or no memory", self.unanswered)?;
        }
        if !self.declined.is_empty() {
            writeln!(f, "  declined          {}", top_reasons(&self.declined))?;
        }
        let mut kinds: Vec<_> = self.differences.iter().collect();
        kinds.sort_by_key(|(kind, count)| (Reverse(**count), **kind));
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
        let [low, high] = self.disagree_ci95.map(percent);
        writeln!(f, "  disagree          {} of {} certified [{low:.2}, {high:.2}] %", self.disagree, self.certified)?;
        if !kinds.is_empty() {
            writeln!(f, "  differences       {}", kinds.join(", "))?;
        }
        if self.without_mass > 0 {
            writeln!(f, "  mass not certain  {}", self.without_mass)?;
        }
        writeln!(f, "  volume error      {}", self.volume_error)?;
        writeln!(f, "  centroid error    {}", self.centroid_error)?;
        writeln!(f, "  bounds error      {}", self.bounds_error)?;
        writeln!(f, "  inertia error     {}", self.inertia_error)?;
        if self.pairs > 0 {
            writeln!(f, "  pairs             {}, {} of solids without exact booleans", self.pairs, self.without_exact)?;
        }
        for (engine, frames) in &self.iou_error {
            for (frame, errors) in frames {
                writeln!(f, "  {:<10}{frame:<12}{errors}", engine.name())?;
            }
        }
        Ok(())
    }
}

impl Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, programs, grid, .. } = self;
        write!(f, "{pairs} pairs, {programs} programs, IoU error at {grid} cells, {:.0} s", self.seconds)?;
        for (style, report) in &self.styles {
            if style != ALL || self.styles.len() != 2 {
                write!(f, "\n{style}\n{report}")?;
            }
        }
        for case in self.disagreements.iter().take(SHOWN) {
            let Some(Difference { kind, native, cadquery }) = case.differences.first() else { continue };
            write!(f, "\n{} {}: {}: native {native}; cadquery {cadquery}", case.style, case.id, kind.name())?;
        }
        if self.disagreements.len() > SHOWN {
            write!(f, "\n... and {} more disagreements", self.disagreements.len() - SHOWN)?;
        }
        for pair in self.worst.iter().take(SHOWN) {
            let Some(FrameIou { engine, frame, measured }) = pair.ious.first() else { continue };
            let exact = measured.exact.unwrap_or(f64::NAN);
            write!(f, "\n{} {}: {engine} {frame} IoU {:.4}, exact {exact:.4}", pair.style, pair.id, measured.iou)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::native;

    use super::*;

    #[test]
    fn errors_have_mean_and_maximum() {
        let mut errors = Errors::default();
        [1.0, 2.0, 6.0].into_iter().for_each(|error| errors.add(error));
        assert_eq!(errors, Errors { n: 3, mean: 3.0, max: 6.0 });
    }

    #[test]
    fn wilson_intervals_are_the_published_ones() {
        // 0 of 10: [0, z^2 / (n + z^2)] = [0, 0.27753]; 5 of 10: 0.5 -+ 0.26341. Both were computed
        // by hand from the formula.
        let close = |found: [f64; 2], expected: [f64; 2]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 5e-6), "{found:?}");
        };
        close(wilson_ci95(0, 10), [0.0, 0.277_533]);
        close(wilson_ci95(5, 10), [0.236_593, 0.763_407]);
        assert_eq!(wilson_ci95(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn findings_count_in_their_style_and_in_all() {
        let solid = |program: &str| native::execute(program).unwrap();
        let (cube, slab) = ("solid = cq.Workplane().box(1, 1, 1)", "solid = cq.Workplane().box(1, 1, 2)");
        let mut tally = Tally::new(3, 32);
        let same = Opinion { native: Ok(solid(cube)), cadquery: solid(cube) };
        let other = Opinion { native: Ok(solid(cube)), cadquery: solid(slab) };
        assert!(!tally.add_program(&Value::from(1), "sketch", cube, &same));
        assert!(tally.add_program(&Value::from(2), "gencad", cube, &other));
        let measured =
            |iou| PairMeasured::from([((Engine::Native, Frame::Canonical), Measured { iou, exact: Some(0.5) })]);
        tally.add_pair(&Value::from(3), "gencad", [cube, slab], &measured(0.52));
        tally.add_pair(&Value::from(4), "gencad", [cube, slab], &measured(0.5));
        let report = tally.finish(1.0);
        let counts =
            |style: &str| (report.styles[style].programs, report.styles[style].disagree, report.styles[style].pairs);
        assert_eq!([counts("sketch"), counts("gencad"), counts(ALL)], [(1, 0, 0), (1, 1, 2), (2, 1, 2)]);
        assert_eq!(report.styles["gencad"].differences[&Kind::Volume], 1);
        let errors = &report.styles["gencad"].iou_error[&Engine::Native][&Frame::Canonical];
        assert_eq!((errors.n, errors.beyond), (2, 1));
        assert!((errors.mean - 0.01).abs() < 1e-12 && (errors.max - 0.02).abs() < 1e-12);
        assert_eq!((report.worst.len(), report.disagreements.len()), (1, 1));
        assert!(report.to_string().contains("volume 1"), "{report}");
    }
}
