//! The one scorer: training, evaluation and the command line all use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cadwright_rewards::{Failure, Frame, frame_iou};
use crossbeam::channel::{Receiver, Sender, unbounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::answer::{Answer, Exported};
use crate::cache::Cache;
use crate::config::{Engine, ScorerConfig};
use crate::engines::Engines;
use crate::error::{Error, Result};
pub(crate) use crate::scoring::Shared;
use crate::scoring::{Execution, GridIou, Score, ScoreRequest};
use crate::server::{ServerConfig, WorkerInfo};
use crate::store::Store;
use crate::truth::GroundTruth;
use crate::workers::Workers;

/// Bytes of answers that are kept in memory.
const MEMORY_LIMIT: usize = 512 << 20;

/// Stack of a scoring thread. The native engine recurses through nested expressions on it.
const STACK_BYTES: usize = 8 << 20;

/// Executes and scores programs on its own threads and worker processes. Dropping it ends both.
pub struct Scorer {
    shared: Arc<Shared>,
    pool: ThreadPool,
}

impl Scorer {
    /// Checks the settings. With [`Engine::Cadquery`] the workers start now and become ready in the
    /// background; otherwise they start with the first program that needs them. A fault of theirs
    /// shows in [`Scorer::ready`] or in the result of that program.
    ///
    /// # Errors
    /// A setting that is out of its range, no Python, or a cache that cannot be written.
    pub fn new(config: ScorerConfig) -> Result<Self> {
        Self::with_grid_iou(config, frame_iou)
    }

    fn with_grid_iou(config: ScorerConfig, grid_iou: GridIou) -> Result<Self> {
        config.check()?;
        let jobs = config.resolved_jobs();
        let server = ServerConfig {
            python: config.python.clone(),
            timeout: Duration::from_secs_f64(config.timeout_s),
            memory_bytes: config.memory_mib << 20,
            sandbox: config.sandbox,
            result_name: config.result_name.clone(),
        };
        let engines = Engines {
            engine: config.engine,
            result_name: config.result_name.clone(),
            needs_mass: needs_mass(&config),
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
            // The default is to abort the process. Tasks that somebody waits for report their
            // panics themselves.
            .panic_handler(|_| ())
            .build()
            .map_err(|e| Error::Thread { what: "the scoring threads", detail: e.to_string() })?;
        Ok(Self { shared: Arc::new(Shared { config, engines, grid_iou }), pool })
    }

    /// Waits until CadQuery's workers can execute programs, one to three seconds from their start,
    /// and starts them if need be, whatever the engine. A run asks early, so that a fault shows
    /// before work is done.
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

    /// Executes one program, even if its answer is known; blocks.
    pub fn execute(&self, program: &str) -> Result<Execution> {
        self.shared.execute(program)
    }

    /// Executes or reads a ground truth as scoring does, unless its answer is known; blocks.
    ///
    /// # Errors
    /// A fault of the workers or of the cache. A ground truth without a solid is no error: the
    /// answer says why.
    pub fn ground_truth(&self, ground_truth: &GroundTruth) -> Result<Answer> {
        self.shared.ground_truth(ground_truth)
    }

    /// The solid of a program as files, or the failure of the program; blocks.
    ///
    /// CadQuery executes the program in a sandboxed process of its own, whatever the engine, under
    /// the deadline and the memory limit of all programs. Files of more than 64 MiB are a failure.
    ///
    /// # Errors
    /// A fault of the workers.
    pub fn export(&self, program: &str) -> Result<std::result::Result<Exported, Failure>> {
        self.shared.engines.workers.export(program)
    }

    /// Runs `work` on the scorer's threads and waits for its result. Parallel iterators of rayon in
    /// `work` use these threads too.
    ///
    /// They have the stack that the native engine needs for nested programs: code that calls it
    /// directly must run here. `work` must not wait for a [`ScoreBatch`], because it would hold a
    /// thread that the batch needs. A panic of `work` is passed on to the caller.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// Scores one prediction; blocks.
    pub fn score(&self, request: &ScoreRequest) -> Result<Score> {
        self.shared.score(request)
    }

    /// A new batch of requests. Each is scored from the moment it is submitted, for example while
    /// other completions are still being generated.
    pub fn batch(&self) -> ScoreBatch<'_> {
        let (sender, receiver) = unbounded();
        ScoreBatch { scorer: self, sender, receiver, submitted: 0, abandoned: Arc::default() }
    }

    /// Executes or reads ground truths in the background, so that they are known when they are
    /// needed. A fault shows when a ground truth is used.
    pub fn prefetch(&self, ground_truths: impl IntoIterator<Item = GroundTruth>) {
        for ground_truth in ground_truths {
            self.spawn(move |shared| {
                let _ = shared.engines.truth(&ground_truth);
            });
        }
    }

    /// Runs a task on the scorer's threads, after those that were submitted before.
    pub(crate) fn spawn(&self, task: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.pool.spawn(move || task(&shared));
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // Tasks that still wait hold the workers too. They end at once when these are closed.
        self.shared.engines.workers.close();
    }
}

/// Whether mass properties must be certain: frames move solids by them, metrics and a reward command
/// use them.
fn needs_mass(config: &ScorerConfig) -> bool {
    let moves = |frame: &Frame| frame.is_of_grids() && *frame != Frame::Canonical;
    config.frames.iter().any(moves) || config.reward.metrics.is_used() || !config.reward.command.is_empty()
}

/// Requests that are being scored: [`ScoreBatch::submit`] starts, [`ScoreBatch::finish`] collects.
/// Dropping a batch abandons the requests that have not started.
pub struct ScoreBatch<'a> {
    scorer: &'a Scorer,
    sender: Sender<(usize, Result<Score>)>,
    receiver: Receiver<(usize, Result<Score>)>,
    submitted: usize,
    abandoned: Arc<AtomicBool>,
}

impl ScoreBatch<'_> {
    /// Scores `request` in the background; never blocks. `index` decides its place in the result
    /// and must be new in this batch.
    pub fn submit(&mut self, index: usize, request: ScoreRequest) {
        let sender = self.sender.clone();
        let abandoned = Arc::clone(&self.abandoned);
        self.submitted += 1;
        self.scorer.spawn(move |shared| {
            if !abandoned.load(Ordering::Relaxed) {
                // Nobody listens if the batch has been dropped meanwhile.
                let _ = sender.send((index, shared.score(&request)));
            }
        });
    }

    /// The number of submitted requests.
    pub fn len(&self) -> usize {
        self.submitted
    }

    /// Whether nothing was submitted.
    pub fn is_empty(&self) -> bool {
        self.submitted == 0
    }

    /// Waits for all scores and returns them by ascending index, or the error with the lowest one.
    pub fn finish(self) -> Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(self.submitted);
        for _ in 0..self.submitted {
            scores.push(self.receiver.recv().map_err(|_| Error::Closed)?);
        }
        scores.sort_by_key(|&(index, _)| index);
        scores.into_iter().map(|(_, score)| score).collect()
    }
}

impl Drop for ScoreBatch<'_> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::Solid;

    use super::*;
    use crate::answer::Verdict;
    use crate::jsonl::stream;
    use crate::summary::ReportBuilder;

    const CUBE: &str = "solid = cq.Workplane().box(1, 1, 1)";
    const LARGE: &str = "solid = cq.Workplane().box(2, 2, 2)";

    /// An IoU that panics on large solids, as a fault of ours would.
    fn faulty(frame: Frame, n: usize, prediction: &Solid, ground_truth: &Solid) -> f64 {
        assert!(prediction.mass().volume < 5.0, "too large to compare");
        frame_iou(frame, n, prediction, ground_truth)
    }

    fn scorer() -> Scorer {
        let config = ScorerConfig { engine: Engine::Native, jobs: 2, grid: 16, ..ScorerConfig::default() };
        Scorer::with_grid_iou(config, faulty).unwrap()
    }

    fn request(prediction: &str) -> ScoreRequest {
        ScoreRequest { prediction: prediction.to_owned(), ground_truth: CUBE.into(), truncated: false }
    }

    #[test]
    fn a_panic_is_counted_and_the_other_scores_are_as_ever() {
        let scorer = scorer();
        let mut batch = scorer.batch();
        for (index, program) in [CUBE, LARGE, CUBE, LARGE].into_iter().enumerate() {
            batch.submit(index, request(program));
        }
        let scores = batch.finish().unwrap();
        let mut report = ReportBuilder::new(scorer.config(), 1, &[]);
        for (index, score) in scores.iter().enumerate() {
            report.add(score, false);
            if index % 2 == 0 {
                assert_eq!((score.verdict.is_valid(), score.iou[&Frame::Canonical]), (true, Some(1.0)));
            } else {
                assert_eq!((score.verdict, score.iou[&Frame::Canonical]), (Verdict::Panicked, None));
                assert_eq!(score.reward, 0.0);
                assert_eq!(score.error.as_deref(), Some("cadwright panicked: too large to compare"));
            }
        }
        let report = report.finish(1.0);
        assert_eq!((report.n, report.panics, report.vsr, report.iou), (4, 2, 0.5, 0.5));
        assert_eq!(report.outcomes.values().sum::<usize>(), 2);
    }

    #[test]
    fn a_panic_in_the_work_on_rows_names_the_row() {
        let rows = (1..=20).map(Ok);
        let work = |_: &Shared, row: &i32| match row {
            7 => panic!("seven"),
            row => Ok(*row),
        };
        let error = stream(&scorer(), rows, work, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "row 7: cadwright panicked: seven");
    }

    #[test]
    fn a_panic_in_the_background_ends_nothing() {
        let scorer = scorer();
        scorer.spawn(|_| panic!("nobody waits for this"));
        let mut batch = scorer.batch();
        batch.submit(0, request(CUBE));
        assert!(batch.finish().unwrap()[0].verdict.is_valid());
    }
}
