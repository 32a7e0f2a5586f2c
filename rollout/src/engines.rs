//! Executes programs: the native engine answers if it is certain, and CadQuery answers the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cadwright_rewards::native::{self, Decline};
use cadwright_rewards::{Failure, Outcome, OutcomeClass, read_stl};

use crate::answer::Answer;
use crate::cache::Cache;
use crate::config::Engine;
use crate::error::Result;
use crate::server::WorkerInfo;
use crate::store::{self, Store};
use crate::truth::{GroundTruth, Shape, ShapeFormat};
use crate::workers::Workers;

/// The engines, and the answers that are known already.
pub struct Engines {
    /// The engine or engines that are asked.
    pub engine: Engine,
    /// The variable that holds a program's result, before those of the published rule.
    pub result_name: Option<String>,
    /// Whether volumes and centroids decide how solids are compared. If so, those of the native
    /// engine must be certain.
    pub needs_mass: bool,
    /// CadQuery, started when it is first needed.
    pub workers: Workers,
    /// Answers of this process.
    pub store: Store,
    /// CadQuery's outcomes of ground truths, on disk.
    pub cache: Cache,
}

impl Engines {
    /// Executes `program`, even if its answer is known. Mass properties of the answer are certain.
    pub fn execute(&self, program: &str) -> Result<Answer> {
        self.ask(program, true, || self.workers.execute(program))
    }

    /// The answer about a program: from memory or disk if it is known, or else by executing it.
    pub fn answer(&self, program: &str, is_ground_truth: bool) -> Result<Answer> {
        self.store.get(store::key(&[self.engine.name(), program]), || {
            self.ask(program, self.needs_mass, || match is_ground_truth {
                true => self.cached("mesh", program, || self.workers.execute(program)),
                false => self.workers.execute(program),
            })
        })
    }

    /// The answer about a ground truth, known or not; a shape is read from its file.
    pub fn truth(&self, ground_truth: &GroundTruth) -> Result<Answer> {
        let shape = match ground_truth {
            GroundTruth::Program(program) => return self.answer(program, true),
            GroundTruth::Shape(shape) => shape,
        };
        self.store.get(store::key(&["shape", shape.digest()]), || {
            let (outcome, engine) = match shape.format() {
                ShapeFormat::Stl => (stl_outcome(shape), Engine::Native),
                ShapeFormat::Step if self.engine == Engine::Native => {
                    return Ok(Answer::declined(Decline::new("STEP file", "CadQuery reads it; use auto")));
                }
                ShapeFormat::Unknown => {
                    let error = format!("the file of {} bytes is neither STL nor STEP", shape.bytes().len());
                    (Outcome::Failure(Failure { class: OutcomeClass::NoSolid, error }), Engine::Native)
                }
                ShapeFormat::Step => {
                    let read = || self.workers.read_step(shape.bytes());
                    (self.cached("step", shape.digest(), read)?, Engine::Cadquery)
                }
            };
            Ok(Answer::known(outcome, engine, None))
        })
    }

    /// CadQuery's outcome of a program, whatever the engine.
    pub fn by_cadquery(&self, program: &str, is_ground_truth: bool) -> Result<Option<Outcome>> {
        let answer = self.store.get(store::key(&[Engine::Cadquery.name(), program]), || {
            let run = || self.workers.execute(program);
            let outcome = if is_ground_truth { self.cached("mesh", program, run) } else { run() };
            Ok(Answer::known(outcome?, Engine::Cadquery, None))
        })?;
        Ok(answer.outcome)
    }

    /// CadQuery's outcome of a program with the triangles of its STL export, whatever the engine.
    pub fn shell(&self, program: &str, is_ground_truth: bool) -> Result<Option<Outcome>> {
        let answer = self.store.get(store::key(&["shell", program]), || {
            let run = || self.workers.shell(program);
            let outcome = if is_ground_truth { self.cached("shell", program, run) } else { run() };
            Ok(Answer::known(outcome?, Engine::Cadquery, None))
        })?;
        Ok(answer.outcome)
    }

    /// An outcome of CadQuery, from the cache on disk or else from `run`.
    fn cached(&self, task: &str, program: &str, run: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
        if !self.cache.is_open() {
            return run();
        }
        let WorkerInfo { cadquery, .. } = self.workers.ready()?;
        // Another variable of the same program is another solid.
        let task = self.result_name.as_ref().map_or_else(|| task.to_owned(), |name| format!("{task} {name}"));
        self.cache.get(&task, &cadquery, program, run)
    }

    /// Asks the native engine, then CadQuery, as far as [`Engines::engine`] allows.
    fn ask(&self, program: &str, needs_mass: bool, cadquery: impl FnOnce() -> Result<Outcome>) -> Result<Answer> {
        let measured = |outcome: Outcome| match outcome.solid() {
            Some(solid) if needs_mass && !solid.is_mass_certain() => {
                Err(Decline::new("volume not certain", "two ways to compute it disagree"))
            }
            _ => Ok(outcome),
        };
        let declined = match self.engine {
            Engine::Cadquery => None,
            Engine::Auto | Engine::Native => {
                match execute_natively(program, self.result_name.as_deref()).and_then(measured) {
                    Ok(outcome) => return Ok(Answer::known(outcome, Engine::Native, None)),
                    Err(declined) if self.engine == Engine::Native => return Ok(Answer::declined(declined)),
                    Err(declined) => Some(declined),
                }
            }
        };
        Ok(Answer::known(cadquery()?, Engine::Cadquery, declined))
    }
}

fn stl_outcome(shape: &Shape) -> Outcome {
    match read_stl(shape.bytes()) {
        Ok(solid) => Outcome::Solid(Arc::new(solid)),
        Err(error) => Outcome::Failure(Failure { class: OutcomeClass::NoSolid, error: error.to_string() }),
    }
}

/// The native engine's outcome. It declines a program on which its own code panics, so that
/// CadQuery can answer instead. `result_name` is as in [`native::execute_named`].
pub fn execute_natively(program: &str, result_name: Option<&str>) -> Result<Outcome, Decline> {
    catch_unwind(AssertUnwindSafe(|| native::execute_named(program, result_name)))
        .unwrap_or_else(|_| Err(Decline::new("fault of the native engine", "it panicked")))
}
