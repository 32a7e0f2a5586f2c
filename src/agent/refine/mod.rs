//! Refinement: numbers and structure of a program are changed step by step, each candidate is built
//! by the native engine and judged, and what is better is kept. This is inverse rendering whose
//! result is a program.
//!
//! The search is a stochastic hill climb with momentum from several starts. The budget is divided
//! by successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943): each rung gives the starts
//! that are left the same number of evaluations, and the better half goes on.

mod climb;
mod form;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};

use cadwright_rewards::{Outcome, OutcomeClass, Solid};
use cadwright_rollout::execute_natively;
use rayon::prelude::*;

use super::draft::Draft;
use super::prior::Prior;
use crate::seeds::seed;
use climb::Climber;
pub use form::{Form, Knob, Literals};

/// Judges a solid: 1 is what is wanted, 0 is nothing of it.
pub type Judge<'a> = dyn Fn(&Solid) -> f64 + Sync + 'a;

/// What is searched for, and within which limits.
pub struct Search<'a> {
    /// The score of a solid, in [0, 1].
    pub judge: &'a Judge<'a>,
    /// What programs are like.
    pub prior: &'a Prior,
    /// Programs of which edits take bodies, outlines and planes: the most similar ones first.
    pub material: &'a [Draft],
    /// What a nat of the prior's plausibility is worth in units of the score.
    pub prior_weight: f64,
    /// Candidates that are built and judged, over all starts.
    pub budget: usize,
    /// The seed of all draws.
    pub seed: u64,
    /// Ends the search as soon as it is true.
    pub stop: &'a AtomicBool,
    /// The variable that holds a program's result, before those of the published rule.
    pub result_name: Option<&'a str>,
}

/// A program with what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The program.
    pub program: String,
    /// The judge's score.
    pub score: f64,
    /// The score, plus the prior's plausibility times its weight: what the search climbs on.
    pub value: f64,
}

/// A candidate that was built, whatever came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Which start it comes from.
    pub start: usize,
    /// What was changed.
    pub change: &'static str,
    /// The program.
    pub program: String,
    /// The class of its outcome; `None` if the native engine declined it.
    pub outcome: Option<OutcomeClass>,
    /// The judge's score; 0 without a solid.
    pub score: f64,
    /// See [`Candidate::value`]; minus infinity without a solid.
    pub value: f64,
    /// Wall time in microseconds.
    pub micros: u64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refined {
    /// The best program of each start that the native engine builds, best first, and the start's
    /// position.
    pub found: Vec<(usize, Candidate)>,
    /// Every candidate, in the order of starts and of time.
    pub attempts: Vec<Attempt>,
}

impl Search<'_> {
    /// Searches from these programs. Programs that the native engine declines or that build no
    /// solid are left out. No result is worth less than its start, nor is its score lower. The
    /// result depends on nothing but the arguments, unless the search is stopped.
    pub fn refine(&self, starts: &[&str]) -> Refined {
        let climber =
            |(index, program): (usize, &&str)| Climber::new(self, index, program, seed(&[self.seed, index as u64]));
        let mut climbers: Vec<Climber> = starts.par_iter().enumerate().filter_map(climber).collect();
        let mut left = self.budget.saturating_sub(climbers.len());
        let mut done = Vec::new();
        let rungs = (climbers.len().max(2) as f64).log2().ceil() as usize;
        for rung in 0..rungs {
            rank(&mut climbers);
            if rung > 0 {
                done.extend(climbers.split_off(climbers.len().div_ceil(2)));
            }
            let share = left / (rungs - rung) / climbers.len().max(1);
            left -= share * climbers.len();
            climbers.par_iter_mut().for_each(|climber| climber.climb(self, share));
        }
        climbers.extend(done);
        rank(&mut climbers);
        let mut refined = Refined::default();
        for climber in climbers {
            refined.found.push((climber.start, climber.best.clone()));
            refined.attempts.extend(climber.attempts);
        }
        refined.attempts.sort_by_key(|attempt| attempt.start);
        refined
    }

    /// Builds and judges a program.
    fn evaluate(&self, form: &Form, program: &str) -> (Option<OutcomeClass>, f64, f64) {
        match execute_natively(program, self.result_name) {
            Ok(Outcome::Solid(solid)) => {
                let score = if solid.malformed { 0.0 } else { (self.judge)(&solid) };
                let prior = form
                    .draft()
                    .map_or_else(|| self.prior.plausibility_of(program), |draft| self.prior.plausibility(draft));
                (Some(OutcomeClass::Solid), score, score + self.prior_weight * prior)
            }
            Ok(Outcome::Failure(failure)) => (Some(failure.class), 0.0, f64::NEG_INFINITY),
            Err(_) => (None, 0.0, f64::NEG_INFINITY),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Best first; the earlier start among equals.
fn rank(climbers: &mut [Climber]) {
    climbers.sort_by(|a, b| b.best.value.total_cmp(&a.best.value).then(a.start.cmp(&b.start)));
}
