//! The one scorer: training, evaluation and the command line all use it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cadwright_rewards::{Frame, Outcome, OutcomeClass, Solid, frame_iou, reward};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::Batch;
use crate::config::{Engine, ScorerConfig};
use crate::error::{Error, Result};
use crate::python;
use crate::server::{ServerConfig, WorkerInfo};
use crate::store::{self, Store};
use crate::workers::Workers;

/// Bytes of outcomes kept in memory.
const MEMORY_LIMIT: usize = 512 << 20;

/// A prediction to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// The predicted program, as it is executed (see
    /// [`extract_program`](cadwright_rewards::extract_program)).
    pub prediction: String,
    /// The program it is compared with.
    pub ground_truth: Arc<str>,
    /// The completion was cut at the token limit.
    pub truncated: bool,
}

/// What executing one program gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// A solid or a failure.
    pub outcome: Outcome,
    /// Who answered; never [`Engine::Auto`].
    pub engine: Engine,
    /// Wall time, waiting for a free worker included.
    pub micros: u64,
}

/// The score of one prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The prediction's outcome.
    pub class: OutcomeClass,
    /// Why the prediction is no solid.
    pub error: Option<String>,
    /// Who answered for the prediction.
    pub engine: Engine,
    /// The prediction is a solid that OCC calls invalid.
    pub malformed: bool,
    /// IoU in each configured frame, in [0, 1]; 0 for a prediction that failed. `None` if the
    /// ground truth failed: there is nothing to compare with.
    pub iou: BTreeMap<Frame, Option<f64>>,
    /// See [`reward()`]. It uses the first configured frame, and IoU 0 if the ground truth failed.
    pub reward: f64,
    /// Wall time of this score, waiting for a free worker included.
    pub micros: u64,
    /// The prediction's solid.
    pub solid: Option<Arc<Solid>>,
    /// Why the ground truth is no solid; `None` where all is well.
    pub ground_truth_error: Option<String>,
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
    workers: Workers,
    store: Store,
}

impl Scorer {
    /// Checks the settings, finds Python and starts the workers, which become ready in the
    /// background. A Python without CadQuery shows in [`Scorer::ready`] or in the first result.
    pub fn new(config: ScorerConfig) -> Result<Self> {
        config.check()?;
        let jobs = config.resolved_jobs();
        let server = ServerConfig {
            python: python::find(config.python.as_deref())?,
            timeout: Duration::from_secs_f64(config.timeout_s),
            memory_bytes: config.memory_mib << 20,
        };
        let store = Store::open(config.cache_dir.as_deref(), MEMORY_LIMIT)?;
        // One thread more than places: while it voxelises, the workers stay busy.
        let pool = ThreadPoolBuilder::new()
            .num_threads(jobs + 1)
            .thread_name(|index| format!("score-{index}"))
            .build()
            .map_err(|e| Error::Thread { what: "the scoring threads", detail: e.to_string() })?;
        let workers = Workers::start(server, jobs)?;
        Ok(Self { shared: Arc::new(Shared { config, workers, store }), pool })
    }

    /// Waits until the workers can execute programs (one to three seconds after [`Scorer::new`]).
    pub fn ready(&self) -> Result<WorkerInfo> {
        self.shared.workers.ready()
    }

    /// The settings.
    pub fn config(&self) -> &ScorerConfig {
        &self.shared.config
    }

    /// Process id of the CadQuery server, for tests and diagnosis.
    pub fn server_pid(&self) -> Option<i32> {
        self.shared.workers.server_pid()
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

    /// Executes ground truths in the background, so that scores against them find them ready.
    /// Faults show when the ground truths are used.
    pub fn prefetch<S: AsRef<str>>(&self, ground_truths: &[S]) {
        for program in ground_truths {
            let program: Arc<str> = Arc::from(program.as_ref());
            self.spawn(move |shared| {
                let _ = shared.known(&program, true);
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
        self.shared.workers.close();
    }
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

impl Shared {
    pub fn execute(&self, program: &str) -> Result<Execution> {
        let start = Instant::now();
        let outcome = self.workers.execute(program)?;
        Ok(Execution { outcome, engine: Engine::Cadquery, micros: micros(start) })
    }

    /// The outcome of a program that may have been executed before.
    fn known(&self, program: &str, on_disk: bool) -> Result<Outcome> {
        let key = store::key(&self.workers.ready()?.cadquery, program);
        self.store.get(key, on_disk, || self.workers.execute(program)).map(|(outcome, _)| outcome)
    }

    pub fn score(&self, request: &ScoreRequest) -> Result<Score> {
        let start = Instant::now();
        let prediction = self.known(&request.prediction, false)?;
        let ground_truth = self.known(&request.ground_truth, true)?;
        let compare = |frame: Frame| match (&prediction, &ground_truth) {
            (_, Outcome::Failure(_)) => None,
            (Outcome::Failure(_), _) => Some(0.0),
            (Outcome::Solid(a), Outcome::Solid(b)) => Some(frame_iou(frame, self.config.grid, a, b)),
        };
        let iou: BTreeMap<_, _> = self.config.frames.iter().map(|&f| (f, compare(f))).collect();
        let rewarded = self.config.frames.first().and_then(|frame| iou[frame]).unwrap_or(0.0);
        let solid = prediction.solid().cloned();
        let malformed = solid.as_ref().is_some_and(|solid| solid.malformed);
        let class = prediction.class();
        Ok(Score {
            class,
            error: prediction.error().map(str::to_owned),
            engine: Engine::Cadquery,
            malformed,
            iou,
            reward: reward(&self.config.reward, class, malformed, rewarded, request.truncated),
            micros: micros(start),
            solid,
            ground_truth_error: match &ground_truth {
                Outcome::Solid(_) => None,
                Outcome::Failure(failure) => Some(format!("{}: {}", failure.class, failure.error)),
            },
        })
    }
}
