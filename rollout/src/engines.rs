//! Who executes a program: the native engine where it is sure of its answer, CadQuery for the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cadwright_rewards::native::{self, Decline};
use cadwright_rewards::{Failure, Outcome, OutcomeClass, Solid, read_stl};
use serde::{Serialize, Serializer};
use std::sync::Arc;

use crate::cache::Cache;
use crate::config::Engine;
use crate::error::Result;
use crate::server::WorkerInfo;
use crate::store::{self, Store};
use crate::truth::{GroundTruth, Shape, ShapeFormat};
use crate::workers::Workers;

/// What the engines said about a program.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A solid or a failure. `None` only where the native engine declined and was asked alone.
    pub outcome: Option<Outcome>,
    /// Who answered, or declined; never [`Engine::Auto`].
    pub engine: Engine,
    /// Why the native engine, where it was asked, handed the program on.
    pub declined: Option<Decline>,
}

/// What a row calls the outcome of a program: its class, or `declined` where no engine that may be asked knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program has an outcome.
    Known(OutcomeClass),
    /// The native engine, asked alone, is not sure. Says nothing about the program.
    Declined,
}

impl Verdict {
    /// The name in rows.
    pub fn name(self) -> &'static str {
        self.class().map_or("declined", OutcomeClass::name)
    }

    /// The class of the outcome, if there is one.
    pub fn class(self) -> Option<OutcomeClass> {
        match self {
            Self::Known(class) => Some(class),
            Self::Declined => None,
        }
    }

    /// Whether the program is known to be valid by the published rule.
    pub fn is_valid(self) -> bool {
        self.class().is_some_and(OutcomeClass::is_valid)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Answer {
    /// The outcome's class, or that there is none.
    pub fn verdict(&self) -> Verdict {
        self.outcome.as_ref().map_or(Verdict::Declined, |outcome| Verdict::Known(outcome.class()))
    }

    /// The solid, if there is one.
    pub fn solid(&self) -> Option<&Arc<Solid>> {
        self.outcome.as_ref().and_then(Outcome::solid)
    }

    /// Why there is no solid.
    pub fn error(&self) -> Option<String> {
        match &self.outcome {
            Some(outcome) => outcome.error().map(str::to_owned),
            None => self.declined.as_ref().map(Decline::to_string),
        }
    }
}

/// The engines and what they already know.
pub struct Engines {
    /// Who is asked.
    pub engine: Engine,
    /// Whether volumes and centroids decide how solids are compared: native ones must be certain then.
    pub needs_mass: bool,
    /// CadQuery, started when it is first needed.
    pub workers: Workers,
    /// Answers of this process.
    pub store: Store,
    /// CadQuery's outcomes of ground truths.
    pub cache: Cache,
}

impl Engines {
    /// Executes `program`, even if it is already known. Mass properties of the answer are certain.
    pub fn execute(&self, program: &str) -> Result<Answer> {
        self.ask(program, true, || self.workers.execute(program))
    }

    /// The answer for a program that may have been executed before.
    pub fn known(&self, program: &str, is_ground_truth: bool) -> Result<Answer> {
        self.store.get(store::key(&[self.engine.name(), program]), || {
            self.ask(program, self.needs_mass, || match is_ground_truth {
                true => self.cached("mesh", program, || self.workers.execute(program)),
                false => self.workers.execute(program),
            })
        })
    }

    /// The answer for a ground truth that may have been executed or read before.
    pub fn truth(&self, ground_truth: &GroundTruth) -> Result<Answer> {
        let shape = match ground_truth {
            GroundTruth::Program(program) => return self.known(program, true),
            GroundTruth::Shape(shape) => shape,
        };
        self.store.get(store::key(&["shape", shape.digest()]), || {
            let (outcome, engine) = match shape.format() {
                ShapeFormat::Stl => (stl_outcome(shape), Engine::Native),
                ShapeFormat::Step if self.engine == Engine::Native => {
                    let declined = Some(Decline::new("STEP file", "CadQuery reads it; use auto"));
                    return Ok(Answer { outcome: None, engine: Engine::Native, declined });
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
            Ok(Answer { outcome: Some(outcome), engine, declined: None })
        })
    }

    /// CadQuery's outcome of a program, whatever the engine.
    pub fn by_cadquery(&self, program: &str, is_ground_truth: bool) -> Result<Option<Outcome>> {
        let answer = self.store.get(store::key(&[Engine::Cadquery.name(), program]), || {
            let run = || self.workers.execute(program);
            let outcome = if is_ground_truth { self.cached("mesh", program, run) } else { run() };
            Ok(Answer { outcome: Some(outcome?), engine: Engine::Cadquery, declined: None })
        })?;
        Ok(answer.outcome)
    }

    /// CadQuery's outcome of a program with the triangles of its STL export, whatever the engine.
    pub fn exported(&self, program: &str, is_ground_truth: bool) -> Result<Option<Outcome>> {
        let answer = self.store.get(store::key(&["shell", program]), || {
            let run = || self.workers.export(program);
            let outcome = if is_ground_truth { self.cached("shell", program, run) } else { run() };
            Ok(Answer { outcome: Some(outcome?), engine: Engine::Cadquery, declined: None })
        })?;
        Ok(answer.outcome)
    }

    /// An outcome of CadQuery, from the cache or else from `run`.
    fn cached(&self, task: &str, program: &str, run: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
        if !self.cache.is_open() {
            return run();
        }
        let WorkerInfo { cadquery, .. } = self.workers.ready()?;
        self.cache.get(task, &cadquery, program, run)
    }

    fn ask(&self, program: &str, needs_mass: bool, cadquery: impl FnOnce() -> Result<Outcome>) -> Result<Answer> {
        let measured = |outcome: Outcome| match outcome.solid() {
            Some(solid) if needs_mass && !solid.is_mass_certain() => {
                Err(Decline::new("volume not certain", "two ways to compute it disagree"))
            }
            _ => Ok(outcome),
        };
        let declined = match self.engine {
            Engine::Cadquery => None,
            Engine::Auto | Engine::Native => match execute_natively(program).and_then(measured) {
                Ok(outcome) => {
                    return Ok(Answer { outcome: Some(outcome), engine: Engine::Native, declined: None });
                }
                Err(declined) => Some(declined),
            },
        };
        match self.engine {
            Engine::Native => Ok(Answer { outcome: None, engine: Engine::Native, declined }),
            _ => Ok(Answer { outcome: Some(cadquery()?), engine: Engine::Cadquery, declined }),
        }
    }
}

fn stl_outcome(shape: &Shape) -> Outcome {
    match read_stl(shape.bytes()) {
        Ok(solid) => Outcome::Solid(Arc::new(solid)),
        Err(error) => Outcome::Failure(Failure { class: OutcomeClass::NoSolid, error: error.to_string() }),
    }
}

/// A panic of the native engine would be a fault of ours, but no program may end a run with it.
pub fn execute_natively(program: &str) -> Result<Outcome, Decline> {
    catch_unwind(AssertUnwindSafe(|| native::execute(program)))
        .unwrap_or_else(|_| Err(Decline::new("fault of the native engine", "it panicked")))
}
