//! What an agent did for a part: every candidate, and what it cost.

use serde::Serialize;

/// A program that the agent built.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The round in which it was written, from 0; refined programs belong to the last one.
    pub round: usize,
    /// Where it comes from: `greedy`, `sample`, `reply`, `labelled`, or `refine: ` and what was
    /// changed.
    pub origin: String,
    /// The program.
    pub program: String,
    /// The name of its outcome; `declined` if the native engine, which refines, is not certain.
    pub outcome: String,
    /// Why there is no solid.
    pub error: Option<String>,
    /// The verifier's score, in [0, 1]; 0 without a solid.
    pub score: f64,
    /// The score, and the prior's plausibility times its weight: what decides. `None` without a
    /// solid.
    pub value: Option<f64>,
    /// Mean log-probability of a token, if the model wrote the program.
    pub logprob: Option<f64>,
    /// Seconds that it took to build and judge it.
    pub seconds: f64,
}

/// What was spent on a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Programs that were built and judged: written and refined ones.
    pub programs: usize,
    /// Of these, those that refinement built: labelled programs and changes.
    pub refined: usize,
    /// Tokens that the model wrote.
    pub tokens: usize,
    /// Wall time, shared evenly by the parts of a batch.
    pub seconds: f64,
}

/// Everything that an agent did for a part.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Trace {
    /// The candidates in the order of their making.
    pub candidates: Vec<Candidate>,
    /// The position of the chosen one; `None` if none builds a solid.
    pub best: Option<usize>,
    /// What it cost.
    pub cost: Cost,
}

impl Trace {
    /// The chosen program.
    pub fn program(&self) -> Option<&str> {
        self.best.map(|best| self.candidates[best].program.as_str())
    }

    /// Adds a candidate, and chooses it if it is better than the one before.
    pub fn add(&mut self, candidate: Candidate) {
        self.cost.programs += 1;
        let beats = |other: usize| candidate.value > self.candidates[other].value;
        if candidate.value.is_some() && self.best.is_none_or(beats) {
            self.best = Some(self.candidates.len());
        }
        self.candidates.push(candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(value: Option<f64>) -> Candidate {
        Candidate {
            round: 0,
            origin: "sample".into(),
            program: format!("{value:?}"),
            outcome: "solid".into(),
            error: None,
            score: 0.0,
            value,
            logprob: None,
            seconds: 0.0,
        }
    }

    #[test]
    fn the_best_so_far_is_kept_and_a_failure_is_never_chosen() {
        let mut trace = Trace::default();
        trace.add(candidate(None));
        assert_eq!(trace.program(), None);
        for (value, best) in [(-3.0, 1), (-4.0, 1), (0.5, 3), (0.5, 3)] {
            trace.add(candidate(Some(value)));
            assert_eq!(trace.best, Some(best));
        }
        assert_eq!((trace.cost.programs, trace.program()), (5, Some("Some(0.5)")));
    }
}
