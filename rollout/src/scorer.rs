//! The one scorer: training, evaluation and the command line all use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cadwright_rewards::native::Decline;
use cadwright_rewards::{Body, Frame, MassProperties, Mesh, Outcome, ShellIou, Solid, frame_iou, reward, shell_iou};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::Batch;
use crate::cache::Cache;
use crate::config::{Engine, ScorerConfig};
use crate::engines::{Answer, Engines, Verdict};
use crate::error::{Error, Result};
use crate::server::{ServerConfig, WorkerInfo};
use crate::store::Store;
use crate::truth::GroundTruth;
use crate::workers::Workers;

/// Bytes of outcomes kept in memory.
const MEMORY_LIMIT: usize = 512 << 20;

/// Stack of a scoring thread. The native engine works through nested expressions on it.
const STACK_BYTES: usize = 8 << 20;

/// The pose that moves nothing.
const IN_PLACE: [f64; 12] = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];

/// A prediction to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// The predicted program, as it is executed (see
    /// [`extract_program`](cadwright_rewards::extract_program)).
    pub prediction: String,
    /// What it is compared with.
    pub ground_truth: GroundTruth,
    /// The completion was cut at the token limit.
    pub truncated: bool,
}

/// What executing one program gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The outcome and who it is from.
    pub answer: Answer,
    /// Wall time, waiting for a free worker included.
    pub micros: u64,
}

/// The score of one prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The prediction's outcome.
    pub verdict: Verdict,
    /// Why the prediction is no solid.
    pub error: Option<String>,
    /// Who answered for the prediction.
    pub engine: Engine,
    /// The prediction is a solid that OCC calls invalid.
    pub malformed: bool,
    /// IoU in each configured frame, in [0, 1]; 0 for a prediction that failed. `None` if the
    /// ground truth failed, for there is nothing to compare with, if the native engine, asked alone, declined either, and
    /// in [`Frame::Exact`] where OCC has no answer or the ground truth is a file.
    pub iou: BTreeMap<Frame, Option<f64>>,
    /// See [`reward()`]. It uses the first configured frame, and IoU 0 if the ground truth failed. 0 for a
    /// prediction that was declined.
    pub reward: f64,
    /// Wall time of this score, waiting for a free worker included.
    pub micros: u64,
    /// The prediction's solid.
    pub solid: Option<Arc<Solid>>,
    /// Why the ground truth is no solid; `None` where all is well.
    pub ground_truth_error: Option<String>,
    /// The triangles of one of both solids enclose another volume than the solid: the IoU on grids may be wrong.
    pub iou_uncertain: bool,
    /// The IoU in [`Frame::Shell`] depends on how equal moments were rounded.
    pub shell_undetermined: bool,
    /// Why the native engine handed on the prediction, the ground truth, or both.
    pub declined: Vec<Decline>,
}

impl Score {
    /// IoU in `frame`, counting 0 where there is none.
    pub fn iou_in(&self, frame: Frame) -> f64 {
        self.iou.get(&frame).copied().flatten().unwrap_or(0.0)
    }
}

/// Executes and scores programs on its own threads and worker processes. Dropping it ends both.
pub struct Scorer {
    shared: Arc<Shared>,
    pool: ThreadPool,
}

/// What the tasks of a scorer share.
pub(crate) struct Shared {
    pub config: ScorerConfig,
    engines: Engines,
}

impl Scorer {
    /// Checks the settings. With [`Engine::Cadquery`] the workers start now and become ready in the background, else
    /// with the first program that needs them. What is wrong with them shows in [`Scorer::ready`] or in that program's
    /// result.
    pub fn new(config: ScorerConfig) -> Result<Self> {
        config.check()?;
        let jobs = config.resolved_jobs();
        let server = ServerConfig {
            python: config.python.clone(),
            timeout: Duration::from_secs_f64(config.timeout_s),
            memory_bytes: config.memory_mib << 20,
        };
        let engines = Engines {
            engine: config.engine,
            needs_mass: config.frames.iter().any(|frame| frame.is_of_grids() && *frame != Frame::Canonical),
            workers: Workers::new(server, jobs),
            store: Store::new(MEMORY_LIMIT),
            cache: Cache::open(config.cache_dir.as_deref())?,
        };
        if config.engine == Engine::Cadquery {
            engines.workers.start()?;
        }
        // One thread more than places: while it voxelises, the workers stay busy.
        let pool = ThreadPoolBuilder::new()
            .num_threads(jobs + 1)
            .stack_size(STACK_BYTES)
            .thread_name(|index| format!("score-{index}"))
            .build()
            .map_err(|e| Error::Thread { what: "the scoring threads", detail: e.to_string() })?;
        Ok(Self { shared: Arc::new(Shared { config, engines }), pool })
    }

    /// Waits until CadQuery's workers can execute programs (one to three seconds from their start), and starts them if
    /// need be, whatever the engine: a run asks early, so that what is missing shows before work is done.
    pub fn ready(&self) -> Result<WorkerInfo> {
        self.shared.engines.workers.ready()
    }

    /// The settings.
    pub fn config(&self) -> &ScorerConfig {
        &self.shared.config
    }

    /// Process id of the CadQuery server, if one was needed so far, for tests and diagnosis.
    pub fn server_pid(&self) -> Option<i32> {
        self.shared.engines.workers.server_pid()
    }

    /// Executes one program; blocks. Always executes, even what is already known.
    pub fn execute(&self, program: &str) -> Result<Execution> {
        self.shared.execute(program)
    }

    /// Scores one prediction; blocks.
    pub fn score(&self, request: &ScoreRequest) -> Result<Score> {
        self.shared.score(request)
    }

    /// A new batch: requests are scored from the moment they are submitted.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Executes or reads ground truths in the background, so that scores against them find them ready.
    /// Faults show when the ground truths are used.
    pub fn prefetch(&self, ground_truths: impl IntoIterator<Item = GroundTruth>) {
        for ground_truth in ground_truths {
            self.spawn(move |shared| {
                let _ = shared.engines.truth(&ground_truth);
            });
        }
    }

    /// Runs a task on the scorer's threads, after those already submitted.
    pub(crate) fn spawn(&self, task: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.pool.spawn(move || task(&shared));
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // Tasks that still wait hold the workers too; they end at once when these are closed.
        self.shared.engines.workers.close();
    }
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

impl Shared {
    pub fn execute(&self, program: &str) -> Result<Execution> {
        let start = Instant::now();
        let answer = self.engines.execute(program)?;
        Ok(Execution { answer, micros: micros(start) })
    }

    pub fn score(&self, request: &ScoreRequest) -> Result<Score> {
        let start = Instant::now();
        let prediction = self.engines.known(&request.prediction, false)?;
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
            (Some(Outcome::Solid(a)), Some(Outcome::Solid(b))) => Ok(Some(frame_iou(frame, self.config.grid, a, b))),
        };
        let iou: BTreeMap<_, _> =
            self.config.frames.iter().map(|&f| Ok((f, compare(f)?))).collect::<Result<BTreeMap<_, _>>>()?;
        let rewarded = self.config.frames.first().and_then(|frame| iou[frame]).unwrap_or(0.0);
        let solid = prediction.solid().cloned();
        let malformed = solid.as_ref().is_some_and(|solid| solid.malformed);
        let is_uncertain = |outcome: &Option<Outcome>| {
            outcome.as_ref().and_then(Outcome::solid).is_some_and(|solid| solid.iou_uncertain)
        };
        let iou_uncertain = is_uncertain(&compared) || is_uncertain(&truth);
        let verdict = prediction.verdict();
        let reward = verdict
            .class()
            .map_or(0.0, |class| reward(&self.config.reward, class, malformed, rewarded, request.truncated));
        Ok(Score {
            verdict,
            error: prediction.error(),
            engine: prediction.engine,
            malformed,
            iou,
            reward,
            micros: micros(start),
            solid,
            ground_truth_error: ground_truth.error().map(|error| format!("{}: {error}", ground_truth.verdict().name())),
            iou_uncertain,
            shell_undetermined,
            declined: [prediction.declined, ground_truth.declined].into_iter().flatten().collect(),
        })
    }

    /// The two outcomes for comparison. A solid of the native engine is exact, one of CadQuery's is made of facets; between
    /// the two a thin round wall would differ by its facets. Where one program is answered by CadQuery, so is the other. A shape
    /// from a file has the facets that it has: it is compared with whatever form the prediction has.
    fn in_one_form(
        &self,
        request: &ScoreRequest,
        prediction: &Answer,
        ground_truth: &Answer,
    ) -> Result<(Option<Outcome>, Option<Outcome>)> {
        let mut outcomes = (prediction.outcome.clone(), ground_truth.outcome.clone());
        if let (Some(a), Some(b)) = (prediction.solid(), ground_truth.solid()) {
            match (&a.body, &b.body) {
                (Body::Csg(_), Body::Mesh(_)) if request.ground_truth.program().is_some() => {
                    outcomes.0 = self.engines.by_cadquery(&request.prediction, false)?
                }
                (Body::Mesh(_), Body::Csg(_)) => {
                    if let Some(truth) = request.ground_truth.program() {
                        outcomes.1 = self.engines.by_cadquery(truth, true)?;
                    }
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    /// CadQuery's outcome of a program that may have been executed before; for scorers with that engine.
    pub fn cadquery(&self, program: &str, is_ground_truth: bool) -> Result<Outcome> {
        match self.engines.known(program, is_ground_truth)?.outcome {
            Some(outcome) => Ok(outcome),
            None => self.engines.workers.execute(program),
        }
    }

    /// IoU of two programs by booleans; `None` where there is no answer.
    pub fn exact_iou(&self, ground_truth: &str, prediction: &str) -> Result<Option<f64>> {
        Ok(self.exact_ious(ground_truth, prediction, &[IN_PLACE])?[0])
    }

    /// The same with the prediction moved by each of some poses: three rows of a matrix.
    pub fn exact_ious(&self, truth: &str, prediction: &str, poses: &[[f64; 12]]) -> Result<Vec<Option<f64>>> {
        self.engines.workers.exact_ious(truth, prediction, poses)
    }

    /// The published metric for a program and a ground truth that both have a solid; `None` where the published code fails. A
    /// shape from a file counts with the facets that it has.
    fn shell_iou(&self, request: &ScoreRequest) -> Result<Option<ShellIou>> {
        let prediction = self.engines.exported(&request.prediction, false)?;
        let ground_truth = match &request.ground_truth {
            GroundTruth::Program(program) => self.engines.exported(program, true)?,
            shape => self.engines.truth(shape)?.outcome,
        };
        Ok(match (prediction.as_ref().and_then(parts), ground_truth.as_ref().and_then(parts)) {
            (Some(prediction), Some(ground_truth)) => shell_iou(prediction, ground_truth),
            _ => None,
        })
    }
}

/// What CadQuery says of a solid.
fn parts(outcome: &Outcome) -> Option<(&MassProperties, &Mesh)> {
    let solid = outcome.solid()?;
    match &solid.body {
        Body::Mesh(mesh) => Some((solid.mass(), mesh)),
        Body::Csg(_) => None,
    }
}
