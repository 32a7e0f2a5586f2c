//! Compares the engines' answers about one program, and the IoU of one pair with exact booleans.

use std::collections::BTreeMap;

use cadwright_rewards::native::Decline;
use cadwright_rewards::{Frame, Outcome, OutcomeClass, Pose, Solid, place};
use serde::Serialize;

use crate::config::Engine;
use crate::engines::execute_natively;
use crate::error::Result;
use crate::scorer::Shared;

/// Maximum difference of volumes, as a share of CadQuery's volume.
pub const VOLUME_TOLERANCE: f64 = 1e-3;

/// Maximum difference of centroids and bounds, as a share of the diagonal of CadQuery's bounds, and
/// of moments, as a share of the trace of CadQuery's inertia tensor.
pub const TOLERANCE: f64 = 1e-3;

/// Maximum distance of an IoU from the exact one. An IoU beyond it is wrong, or should be marked
/// uncertain.
pub const IOU_TOLERANCE: f64 = 0.015;

/// The engines' answers about one program.
pub struct Opinion {
    /// The native engine's outcome, or why it declined.
    pub native: Result<Outcome, Decline>,
    /// CadQuery's outcome.
    pub cadquery: Outcome,
}

impl Opinion {
    /// Asks both engines.
    ///
    /// # Errors
    /// Workers that cannot go on.
    pub fn of(shared: &Shared, program: &str, is_ground_truth: bool) -> Result<Self> {
        Ok(Self { native: execute_natively(program, None), cadquery: shared.cadquery(program, is_ground_truth)? })
    }

    /// Whether CadQuery ran out of time or memory, so that there is nothing to compare with.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.cadquery.class(), OutcomeClass::Timeout | OutcomeClass::Memory)
    }

    /// The differences between the native engine's answer and CadQuery's; none if one of them has
    /// no answer.
    pub fn differences(&self) -> Vec<Difference> {
        match &self.native {
            Ok(native) if !self.is_unanswered() => differences(native, &self.cadquery),
            _ => Vec::new(),
        }
    }

    /// The native solid, if there is one.
    pub fn native_solid(&self) -> Option<&Solid> {
        self.native.as_ref().ok().and_then(Outcome::solid).map(AsRef::as_ref)
    }
}

/// A property in which two answers about one program may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The class of the outcome.
    Verdict,
    /// The name of the exception, syntax errors included.
    Exception,
    /// Whether the solid is malformed.
    Malformed,
    /// The volume, beyond [`VOLUME_TOLERANCE`].
    Volume,
    /// The centroid, beyond [`TOLERANCE`].
    Centroid,
    /// The bounds, beyond [`TOLERANCE`].
    Bounds,
    /// The inertia tensor, beyond [`TOLERANCE`].
    Inertia,
    /// The number of solids.
    Solids,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Exception => "exception",
            Self::Malformed => "malformed",
            Self::Volume => "volume",
            Self::Centroid => "centroid",
            Self::Bounds => "bounds",
            Self::Inertia => "inertia",
            Self::Solids => "solids",
        }
    }
}

/// A difference between the engines about one program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The property that differs.
    pub kind: Kind,
    /// The property by the native engine.
    pub native: String,
    /// The property by CadQuery.
    pub cadquery: String,
}

impl Difference {
    /// Whether `other` has the same kind and is between the same classes or exceptions.
    pub fn is_like(&self, other: &Self) -> bool {
        let head = |text: &str| text.split(':').take(2).map(first_word).collect::<Vec<_>>().join(":");
        let same = |a: &str, b: &str| match self.kind {
            Kind::Verdict | Kind::Exception => head(a) == head(b),
            _ => true,
        };
        self.kind == other.kind && same(&self.native, &other.native) && same(&self.cadquery, &other.cadquery)
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// One line about the outcome.
fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Solid(solid) if solid.malformed => "solid, malformed".to_owned(),
        Outcome::Solid(_) => "solid".to_owned(),
        Outcome::Failure(failure) => format!("{}: {}", failure.class, failure.error),
    }
}

/// Errors of the native engine's mass properties, as shares of CadQuery's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MassErrors {
    /// Error of the volume, as a share of the volume.
    pub volume: f64,
    /// Distance of the centroids, as a share of the diagonal of the bounds.
    pub centroid: f64,
    /// The largest error of a bound, as a share of the same diagonal.
    pub bounds: f64,
    /// The largest error of an entry of the inertia tensor, as a share of the trace.
    pub inertia: f64,
    /// Whether the native engine is certain of volume, centroid and inertia. It is always certain
    /// of the bounds.
    pub is_mass_certain: bool,
}

/// Compares the mass properties of two solids. `None` if CadQuery's solid is malformed or has no
/// volume, because its numbers then mean nothing.
pub fn mass_errors(native: &Solid, cadquery: &Solid) -> Option<MassErrors> {
    let (found, truth) = (native.mass(), cadquery.mass());
    let trace: f64 = (0..3).map(|k| truth.inertia[k][k]).sum();
    if cadquery.malformed || truth.volume <= f64::MIN_POSITIVE || trace <= f64::MIN_POSITIVE {
        return None;
    }
    let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt();
    let largest = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|k| (a[k] - b[k]).abs()).fold(0.0, f64::max);
    let diagonal = distance(&truth.bounds.min, &truth.bounds.max);
    let bounds = largest(&found.bounds.min, &truth.bounds.min).max(largest(&found.bounds.max, &truth.bounds.max));
    let inertia = (0..3).map(|row| largest(&found.inertia[row], &truth.inertia[row])).fold(0.0, f64::max);
    Some(MassErrors {
        volume: (found.volume - truth.volume).abs() / truth.volume,
        centroid: distance(&found.centroid, &truth.centroid) / diagonal,
        bounds: bounds / diagonal,
        inertia: inertia / trace,
        is_mass_certain: native.is_mass_certain(),
    })
}

/// All differences between an outcome of the native engine and CadQuery's.
pub fn differences(native: &Outcome, cadquery: &Outcome) -> Vec<Difference> {
    let by_words = |kind| vec![Difference { kind, native: described(native), cadquery: described(cadquery) }];
    if native.class() != cadquery.class() {
        return by_words(Kind::Verdict);
    }
    let (Some(found), Some(truth)) = (native.solid(), cadquery.solid()) else {
        let name = |outcome: &Outcome| outcome.error().and_then(|error| error.split(':').next()).map(str::to_owned);
        let has_name = matches!(native.class(), OutcomeClass::Exception | OutcomeClass::Syntax);
        return if has_name && name(native) != name(cadquery) { by_words(Kind::Exception) } else { Vec::new() };
    };
    if found.malformed != truth.malformed {
        return by_words(Kind::Malformed);
    }
    let mut differences = Vec::new();
    let mut note = |kind, native: String, cadquery: String| differences.push(Difference { kind, native, cadquery });
    if let Some(errors) = mass_errors(found, truth) {
        let (a, b) = (found.mass(), truth.mass());
        if errors.is_mass_certain && !within(errors.volume, VOLUME_TOLERANCE) {
            note(Kind::Volume, a.volume.to_string(), b.volume.to_string());
        }
        if errors.is_mass_certain && !within(errors.centroid, TOLERANCE) {
            note(Kind::Centroid, format!("{:?}", a.centroid), format!("{:?}", b.centroid));
        }
        if !within(errors.bounds, TOLERANCE) {
            let bounds =
                |mass: &cadwright_rewards::MassProperties| format!("{:?} {:?}", mass.bounds.min, mass.bounds.max);
            note(Kind::Bounds, bounds(a), bounds(b));
        }
        if errors.is_mass_certain && !within(errors.inertia, TOLERANCE) {
            note(Kind::Inertia, format!("{:?}", a.inertia), format!("{:?}", b.inertia));
        }
    }
    if !truth.malformed
        && let Some((a, b)) = found.solids().zip(truth.solids())
        && a != b
    {
        note(Kind::Solids, a.to_string(), b.to_string());
    }
    differences
}

/// Whether `error` is at most `tolerance`; false for NaN.
fn within(error: f64, tolerance: f64) -> bool {
    error <= tolerance
}

/// The IoU of one engine in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// The IoU on the grid, in [0, 1].
    pub iou: f64,
    /// The IoU by booleans of the solids in the same poses; `None` if booleans have no answer.
    pub exact: Option<f64>,
}

impl Measured {
    /// Distance from the exact IoU, if it is known.
    pub fn error(&self) -> Option<f64> {
        Some((self.iou - self.exact?).abs())
    }
}

/// The IoU by engine and frame, as far as the engine has one.
pub type PairMeasured = BTreeMap<(Engine, Frame), Measured>;

/// Measures a pair if both programs give a solid in CadQuery. Otherwise the result is empty.
///
/// The booleans place CadQuery's solids by CadQuery's mass properties. They rotate the prediction
/// as the measured engine rotated it: if principal axes are not unique, two engines may choose
/// different rotations, and both are right.
///
/// # Errors
/// Workers that cannot go on.
pub fn measure(
    shared: &Shared,
    frames: &[Frame],
    (ground_truth, truth): (&str, &Opinion),
    (prediction, predicted): (&str, &Opinion),
) -> Result<PairMeasured> {
    let mut measured = PairMeasured::new();
    let (Some(a), Some(b)) = (predicted.cadquery.solid(), truth.cadquery.solid()) else { return Ok(measured) };
    let mut poses: Vec<[f64; 12]> = Vec::new();
    let mut wanted = Vec::new();
    for &frame in frames.iter().filter(|frame| frame.is_of_grids()) {
        let Some(exact) = place(frame, shared.config.grid, a, b) else { continue };
        let by_native = match (predicted.native_solid(), truth.native_solid()) {
            (Some(a), Some(b)) if frame == Frame::Canonical || a.is_mass_certain() && b.is_mass_certain() => {
                place(frame, shared.config.grid, a, b)
            }
            _ => None,
        };
        for (engine, placed) in [(Engine::Cadquery, Some(&exact)), (Engine::Native, by_native.as_ref())] {
            let Some(placed) = placed else { continue };
            let turned = Pose { rotation: placed.prediction.rotation, ..exact.prediction };
            let pose = relative(&turned, &exact.ground_truth);
            let known = poses.iter().position(|known| known.iter().zip(&pose).all(|(a, b)| (a - b).abs() <= 1e-9));
            let index = known.unwrap_or_else(|| {
                poses.push(pose);
                poses.len() - 1
            });
            wanted.push((engine, frame, placed.iou, index));
        }
    }
    let exact = match a.malformed || b.malformed || poses.is_empty() {
        true => vec![None; poses.len()],
        false => shared.exact_ious(ground_truth, prediction, &poses)?,
    };
    for (engine, frame, iou, index) in wanted {
        measured.insert((engine, frame), Measured { iou, exact: exact[index] });
    }
    Ok(measured)
}

/// The pose that moves the prediction into the ground truth's own coordinates: the three rows
/// `[rotation and scale | translation]` of a matrix.
fn relative(prediction: &Pose, ground_truth: &Pose) -> [f64; 12] {
    let linear = ground_truth.rotation.transpose() * prediction.rotation * (prediction.scale / ground_truth.scale);
    let moved = ground_truth.center - linear * prediction.center;
    let mut rows = [0.0; 12];
    for row in 0..3 {
        for column in 0..3 {
            rows[4 * row + column] = linear[(row, column)];
        }
        rows[4 * row + 3] = moved[row];
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cadwright_rewards::{Failure, native};

    use super::*;

    fn solid(program: &str) -> Outcome {
        native::execute(program).unwrap()
    }

    fn failure(class: OutcomeClass, error: &str) -> Outcome {
        Outcome::Failure(Failure { class, error: error.to_owned() })
    }

    fn kinds(native: &Outcome, cadquery: &Outcome) -> Vec<Kind> {
        differences(native, cadquery).into_iter().map(|difference| difference.kind).collect()
    }

    #[test]
    fn differences_are_told_apart() {
        let cube = solid("solid = cq.Workplane().box(2, 2, 2)");
        let error = |name: &str| failure(OutcomeClass::Exception, &format!("{name}: words"));
        assert_eq!(kinds(&cube, &cube), []);
        assert_eq!(kinds(&cube, &error("ValueError")), [Kind::Verdict]);
        assert_eq!(kinds(&error("TypeError"), &error("ValueError")), [Kind::Exception]);
        assert_eq!(kinds(&error("ValueError"), &failure(OutcomeClass::Exception, "ValueError: others")), []);
        let Outcome::Solid(sound) = &cube else { unreachable!() };
        let mut malformed = Solid::clone(sound);
        malformed.malformed = true;
        let malformed = Outcome::Solid(Arc::new(malformed));
        assert_eq!(kinds(&cube, &malformed), [Kind::Malformed]);
        // The volume grows by 1.002^3, or 0.6 %. The moments grow by 1 %, and the bounds by 0.001
        // of a diagonal of 3.46.
        let larger = solid("solid = cq.Workplane().box(2.004, 2.004, 2.004)");
        assert_eq!(kinds(&larger, &cube), [Kind::Volume, Kind::Inertia]);
        // 0.01 of 3.46 is 0.3 %.
        let moved = solid("solid = cq.Workplane().box(2, 2, 2).translate((0.01, 0, 0))");
        assert_eq!(kinds(&moved, &cube), [Kind::Centroid, Kind::Bounds]);
        // Two bodies instead of one cube; their moments differ, too.
        let two = solid("solid = cq.Workplane().box(2, 2, 1).union(cq.Workplane().box(2, 2, 1).translate((0, 0, 2)))");
        assert!(kinds(&two, &cube).contains(&Kind::Solids));
    }

    #[test]
    fn verdicts_are_alike_with_the_same_classes() {
        let difference = |native: &str, cadquery: &str| Difference {
            kind: Kind::Verdict,
            native: native.to_owned(),
            cadquery: cadquery.to_owned(),
        };
        let one = difference("solid", "exception: ValueError: No pending wires present");
        assert!(one.is_like(&difference("solid", "exception: ValueError: other words")));
        assert!(!one.is_like(&difference("solid", "exception: TypeError: words")));
        assert!(!one.is_like(&difference("empty: nothing", "exception: ValueError: words")));
    }

    #[test]
    fn a_relative_pose_takes_one_body_to_the_other() {
        let cube = |size: f64, x: f64| {
            solid(&format!("solid = cq.Workplane().box({size}, {size}, {size}).translate(({x}, 0, 0))"))
        };
        let (small, large) = (cube(1.0, 5.0), cube(3.0, -2.0));
        let placed = place(Frame::Normalised, 16, small.solid().unwrap(), large.solid().unwrap()).unwrap();
        // The prediction becomes three times as large, and x = 5 moves to -2: x -> 3 x - 17.
        let rows = relative(&placed.prediction, &placed.ground_truth);
        let expected = [3.0, 0.0, 0.0, -17.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0];
        assert!(rows.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rows:?}");
    }
}
