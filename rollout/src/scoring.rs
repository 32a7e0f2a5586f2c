//! Scores one prediction: executes it, compares it with its ground truth, computes the reward.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use cadwright_rewards::native::Decline;
use cadwright_rewards::reward::MetricValues;
use cadwright_rewards::{
    Frame, Geometry, MassProperties, Mesh, Outcome, Protocol, ProtocolScore, ShellIou, Solid, reward, shell_iou,
};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Verdict};
use crate::config::{Engine, ScorerConfig};
use crate::engines::Engines;
use crate::error::Result;
use crate::truth::GroundTruth;

/// The pose that moves nothing.
const IN_PLACE: [f64; 12] = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];

/// A prediction to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// The predicted program as it is executed; see
    /// [`extract_program`](cadwright_rewards::extract_program).
    pub prediction: String,
    /// The part that it should build.
    pub ground_truth: GroundTruth,
    /// Whether the completion was cut at the token limit.
    pub truncated: bool,
}

/// The result of executing one program.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The outcome, and the engine that gave it.
    pub answer: Answer,
    /// Wall time in microseconds, including the wait for a free worker.
    pub micros: u64,
}

/// The score of one prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The class of the prediction's outcome, or why there is none.
    pub verdict: Verdict,
    /// Why the prediction is not a solid.
    pub error: Option<String>,
    /// The engine that answered about the prediction; the configured one if our code panicked.
    pub engine: Engine,
    /// Whether the prediction is a solid that OCC calls invalid.
    pub malformed: bool,
    /// IoU in each configured frame, in [0, 1]; 0 for a prediction that failed. `None` if the
    /// ground truth failed, because there is nothing to compare with; if an outcome is not known
    /// (see [`Verdict`]); and in [`Frame::Exact`] if OCC has no answer or the ground truth is a
    /// file.
    pub iou: BTreeMap<Frame, Option<f64>>,
    /// By configured protocol: its numbers, none for a prediction or a ground truth that failed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocols: BTreeMap<Protocol, ProtocolScore>,
    /// Of a solid, the values of the reward's metrics that have a weight.
    #[serde(default, skip_serializing_if = "MetricValues::is_empty")]
    pub metrics: MetricValues,
    /// The reward; see [`reward()`], and the terms of its metrics. It uses the IoU in the first
    /// configured frame, or 0 if the ground truth failed. 0 for a prediction whose outcome is not
    /// known.
    pub reward: f64,
    /// Wall time of this score in microseconds, including the wait for a free worker.
    pub micros: u64,
    /// The prediction's solid. It is not serialised.
    #[serde(skip)]
    pub solid: Option<Arc<Solid>>,
    /// Why the ground truth is not a solid.
    pub ground_truth_error: Option<String>,
    /// Whether the triangles of one of the solids enclose another volume than the solid, so that
    /// the IoU on grids may be wrong.
    pub iou_uncertain: bool,
    /// Whether the IoU in [`Frame::Shell`] depends on how equal moments were rounded.
    pub shell_undetermined: bool,
    /// Why the native engine handed on the prediction, the ground truth, or both.
    pub declined: Vec<Decline>,
}

impl Score {
    /// A score of which only the verdict and the engine are known: there is no IoU, and the reward
    /// is 0.
    pub fn of(verdict: Verdict, engine: Engine) -> Self {
        Self {
            verdict,
            error: None,
            engine,
            malformed: false,
            iou: BTreeMap::new(),
            protocols: BTreeMap::new(),
            metrics: MetricValues::default(),
            reward: 0.0,
            micros: 0,
            solid: None,
            ground_truth_error: None,
            iou_uncertain: false,
            shell_undetermined: false,
            declined: Vec::new(),
        }
    }

    /// IoU in `frame`; 0 if there is none.
    pub fn iou_in(&self, frame: Frame) -> f64 {
        self.iou.get(&frame).copied().flatten().unwrap_or(0.0)
    }
}

/// IoU in a frame [of grids](Frame::is_of_grids). It is
/// [`frame_iou`](cadwright_rewards::frame_iou), except in tests of panics.
pub type GridIou = fn(Frame, usize, &Solid, &Solid) -> f64;

/// The settings and engines that all tasks of a scorer share.
pub struct Shared {
    pub config: ScorerConfig,
    pub engines: Engines,
    pub grid_iou: GridIou,
}

impl Shared {
    /// Executes a program, even if its answer is known. A panic of our own code is an answer too.
    pub fn execute(&self, program: &str) -> Result<Execution> {
        let start = Instant::now();
        let answer = self.answered(("program", program), || {
            let answer = self.engines.execute(program)?;
            if let Some(solid) = answer.solid() {
                // Both are computed on first use. Rows need them, so a panic must happen here.
                solid.mass();
                solid.solids();
            }
            Ok(answer)
        })?;
        Ok(Execution { answer, micros: micros(start) })
    }

    /// The answer about a ground truth, known or not. A panic of our own code is an answer too.
    pub fn ground_truth(&self, ground_truth: &GroundTruth) -> Result<Answer> {
        let truth = ground_truth.program().unwrap_or("a file");
        self.answered(("ground truth", truth), || self.engines.truth(ground_truth))
    }

    /// The answer that `ask` finds about a program with a name, or its panic as an answer.
    fn answered(&self, program: (&str, &str), ask: impl FnOnce() -> Result<Answer>) -> Result<Answer> {
        caught(ask).unwrap_or_else(|message| {
            eprint!("{}", panic_report(&message, &[program]));
            let engine = self.config.engine;
            Ok(Answer { outcome: None, engine, declined: None, panic: Some(message) })
        })
    }

    /// Scores a prediction. A panic of our own code is a score without an outcome.
    pub fn score(&self, request: &ScoreRequest) -> Result<Score> {
        let start = Instant::now();
        caught(|| self.compared(request, start)).unwrap_or_else(|message| {
            let truth = request.ground_truth.program().unwrap_or("a file");
            let programs = [("prediction", request.prediction.as_str()), ("ground truth", truth)];
            eprint!("{}", panic_report(&message, &programs));
            Ok(Score {
                error: Some(format!("cadwright panicked: {message}")),
                iou: self.config.frames.iter().map(|&frame| (frame, None)).collect(),
                protocols: self.config.protocols.iter().map(|&protocol| (protocol, ProtocolScore::default())).collect(),
                micros: micros(start),
                ..Score::of(Verdict::Panicked, self.config.engine)
            })
        })
    }

    fn compared(&self, request: &ScoreRequest, start: Instant) -> Result<Score> {
        let prediction = self.engines.answer(&request.prediction, false)?;
        let ground_truth = self.engines.truth(&request.ground_truth)?;
        let mut shell_undetermined = false;
        let (compared, truth) = self.in_one_form(request, &prediction, &ground_truth)?;
        let mut compare = |frame: Frame| match (&compared, &truth) {
            (_, None | Some(Outcome::Failure(_))) | (None, _) => Ok(None),
            (Some(Outcome::Failure(_)), _) => Ok(Some(0.0)),
            (Some(Outcome::Solid(_)), Some(Outcome::Solid(_))) if frame == Frame::Shell => {
                let shell = self.shell_iou(request)?;
                shell_undetermined = shell.is_some_and(|shell| shell.undetermined);
                Ok(Some(shell.map_or(0.0, |shell| shell.iou)))
            }
            (Some(Outcome::Solid(a)), Some(Outcome::Solid(b))) if frame == Frame::Exact => {
                match request.ground_truth.program() {
                    Some(truth) if !a.malformed && !b.malformed => self.exact_iou(truth, &request.prediction),
                    _ => Ok(None),
                }
            }
            (Some(Outcome::Solid(a)), Some(Outcome::Solid(b))) => {
                Ok(Some((self.grid_iou)(frame, self.config.grid, a, b)))
            }
        };
        let iou: BTreeMap<_, _> =
            self.config.frames.iter().map(|&f| Ok((f, compare(f)?))).collect::<Result<BTreeMap<_, _>>>()?;
        let truth_is_file = request.ground_truth.program().is_none();
        let measure = |protocol: Protocol| match (&compared, &truth) {
            (Some(Outcome::Solid(a)), Some(Outcome::Solid(b))) => protocol.score(self.config.grid, a, b, truth_is_file),
            _ => ProtocolScore::default(),
        };
        let protocols: BTreeMap<_, _> =
            self.config.protocols.iter().map(|&protocol| (protocol, measure(protocol))).collect();
        let metrics = match (&compared, &truth) {
            (Some(Outcome::Solid(a)), Some(Outcome::Solid(b))) => {
                let known = |protocol| protocols.get(&protocol).copied().unwrap_or_else(|| measure(protocol));
                self.metrics(known, || (self.grid_iou)(Frame::Aligned, self.config.grid, a, b))
            }
            _ => MetricValues::default(),
        };
        let rewarded = self.config.frames.first().and_then(|frame| iou[frame]).unwrap_or(0.0);
        let solid = prediction.solid().cloned();
        let malformed = solid.as_ref().is_some_and(|solid| solid.malformed);
        let is_uncertain = |outcome: &Option<Outcome>| {
            outcome.as_ref().and_then(Outcome::solid).is_some_and(|solid| solid.iou_uncertain)
        };
        let iou_uncertain = is_uncertain(&compared) || is_uncertain(&truth);
        let verdict = prediction.verdict();
        let terms = &self.config.reward;
        let factor = if malformed { terms.malformed_iou_factor } else { 1.0 };
        let terms = factor * terms.metrics.terms(&metrics);
        let reward = verdict
            .class()
            .map_or(0.0, |class| terms + reward(&self.config.reward, class, malformed, rewarded, request.truncated));
        Ok(Score {
            verdict,
            error: prediction.error(),
            engine: prediction.engine,
            malformed,
            iou,
            protocols,
            metrics,
            reward,
            micros: micros(start),
            solid,
            ground_truth_error: ground_truth.error().map(|error| format!("{}: {error}", ground_truth.verdict().name())),
            iou_uncertain,
            shell_undetermined,
            declined: [prediction.declined, ground_truth.declined].into_iter().flatten().collect(),
        })
    }

    /// The values of the metrics that have a weight.
    fn metrics(&self, protocol: impl Fn(Protocol) -> ProtocolScore, aligned: impl Fn() -> f64) -> MetricValues {
        let metrics = &self.config.reward.metrics;
        MetricValues {
            chamfer: (metrics.chamfer > 0.0).then(|| metrics.of_chamfer(protocol(Protocol::Cadrille).cd)),
            siou: (metrics.siou > 0.0).then(|| protocol(Protocol::Cadbench).siou.unwrap_or(0.0)),
            aligned: (metrics.aligned > 0.0).then(aligned),
        }
    }

    /// The outcomes of the prediction and of the ground truth in one form, for comparison.
    ///
    /// A solid of the native engine is exact, and one of CadQuery is made of facets: between the
    /// two, a thin round wall would differ by its facets. So if CadQuery answered about one of two
    /// programs, its solid of the other one is used as well. A shape from a file has the facets
    /// that it has, and is compared with either form of the prediction.
    fn in_one_form(
        &self,
        request: &ScoreRequest,
        prediction: &Answer,
        ground_truth: &Answer,
    ) -> Result<(Option<Outcome>, Option<Outcome>)> {
        let mut outcomes = (prediction.outcome.clone(), ground_truth.outcome.clone());
        if let (Some(a), Some(b)) = (prediction.solid(), ground_truth.solid()) {
            match (&a.geometry, &b.geometry) {
                (Geometry::Csg(_), Geometry::Mesh(_)) if request.ground_truth.program().is_some() => {
                    outcomes.0 = self.engines.by_cadquery(&request.prediction, false)?
                }
                (Geometry::Mesh(_), Geometry::Csg(_)) => {
                    if let Some(truth) = request.ground_truth.program() {
                        outcomes.1 = self.engines.by_cadquery(truth, true)?;
                    }
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    /// CadQuery's outcome of a program, known or not; for scorers with that engine.
    pub fn cadquery(&self, program: &str, is_ground_truth: bool) -> Result<Outcome> {
        match self.engines.answer(program, is_ground_truth)?.outcome {
            Some(outcome) => Ok(outcome),
            None => self.engines.workers.execute(program),
        }
    }

    /// IoU of two programs by booleans; `None` if there is no answer.
    pub fn exact_iou(&self, ground_truth: &str, prediction: &str) -> Result<Option<f64>> {
        Ok(self.exact_ious(ground_truth, prediction, &[IN_PLACE])?[0])
    }

    /// The same, once for each pose of the prediction. A pose has three rows of a matrix.
    pub fn exact_ious(&self, truth: &str, prediction: &str, poses: &[[f64; 12]]) -> Result<Vec<Option<f64>>> {
        self.engines.workers.exact_ious(truth, prediction, poses)
    }

    /// The published metric, for a program and a ground truth that both have a solid; `None` if the
    /// published code fails. A shape from a file counts with the facets that it has.
    fn shell_iou(&self, request: &ScoreRequest) -> Result<Option<ShellIou>> {
        let prediction = self.engines.shell(&request.prediction, false)?;
        let ground_truth = match &request.ground_truth {
            GroundTruth::Program(program) => self.engines.shell(program, true)?,
            shape => self.engines.truth(shape)?.outcome,
        };
        Ok(match (prediction.as_ref().and_then(meshed), ground_truth.as_ref().and_then(meshed)) {
            (Some(prediction), Some(ground_truth)) => shell_iou(prediction, ground_truth),
            _ => None,
        })
    }
}

/// Mass properties and mesh of a solid that CadQuery built.
fn meshed(outcome: &Outcome) -> Option<(&MassProperties, &Mesh)> {
    let solid = outcome.solid()?;
    match &solid.geometry {
        Geometry::Mesh(mesh) => Some((solid.mass(), mesh)),
        Geometry::Csg(_) => None,
    }
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// The result of `work`, or the message of its panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| message_of(payload.as_ref()))
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Names the programs on which our code panicked, so that the fault can be found.
fn panic_report(message: &str, programs: &[(&str, &str)]) -> String {
    let programs: String = programs.iter().map(|(name, text)| format!("--- {name}\n{text}\n")).collect();
    format!("cadwright panicked: {message}. The run goes on; this program has no score.\n{programs}---\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_message_and_the_programs() {
        let message = caught(|| panic!("index {} out of range", 3)).unwrap_err();
        let report = panic_report(&message, &[("prediction", "x = 1"), ("ground truth", "y = 2")]);
        for text in ["index 3 out of range", "--- prediction\nx = 1\n", "--- ground truth\ny = 2\n"] {
            assert!(report.contains(text), "{report}");
        }
    }
}
