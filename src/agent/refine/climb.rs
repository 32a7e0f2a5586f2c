//! One climb.

use std::collections::HashSet;
use std::time::Instant;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Attempt, Candidate, Form, Knob, Search};

/// Steps by which a knob is turned at once, small ones more often.
const STEPS: [i32; 9] = [1, 1, 1, 2, 2, 3, 4, 6, 8];

/// An edited program may be worth this much less and is still given a chance.
const SLACK: f64 = 0.06;

/// The evaluations of that chance.
const CHANCE: usize = 14;

/// A program on its way up.
pub struct Climber {
    /// Position of the start.
    pub start: usize,
    /// The best program so far.
    pub best: Candidate,
    /// Everything that was built.
    pub attempts: Vec<Attempt>,
    form: Form,
    step: f64,
    /// The score of the start: the floor for everything that follows.
    floor: f64,
    momentum: Option<(Knob, i32)>,
    /// Evaluations since the last gain.
    idle: usize,
    tried: HashSet<String>,
    dice: ChaCha8Rng,
}

impl Climber {
    /// Begins at a program; `None` if the native engine does not build it.
    pub fn new(search: &Search, start: usize, program: &str, seed: u64) -> Option<Self> {
        let form = Form::of(program);
        let step = form.step(search.prior.lattice());
        let best = Candidate { program: program.to_owned(), score: 0.0, value: f64::NEG_INFINITY };
        let mut climber = Self {
            start,
            best,
            attempts: Vec::new(),
            form: form.clone(),
            step,
            floor: 0.0,
            momentum: None,
            idle: 0,
            tried: HashSet::new(),
            dice: ChaCha8Rng::seed_from_u64(seed),
        };
        // The text as it came: a draft is written in its own way.
        climber.best = climber.built(search, &form, program.to_owned(), "start")?;
        climber.floor = climber.best.score;
        Some(climber)
    }

    /// Climbs for a number of evaluations.
    pub fn climb(&mut self, search: &Search, evaluations: usize) {
        let end = self.attempts.len() + evaluations;
        // What has been tried is not built again. Small programs run out of changes.
        let mut draws = 8 * evaluations;
        while self.attempts.len() < end && draws > 0 && !search.is_stopped() {
            draws -= 1;
            let is_stuck = self.idle > self.form.knobs().len();
            if self.dice.random_bool(if is_stuck { 0.6 } else { 0.15 }) && self.momentum.is_none() {
                self.leap(search, end);
            } else {
                self.turn(search);
            }
        }
    }

    /// Turns one knob and keeps what is better.
    fn turn(&mut self, search: &Search) {
        let Some((knob, steps)) = self.momentum.take().or_else(|| self.drawn()) else { return };
        let Some((form, knob)) = self.form.turned(knob, steps, self.step) else { return };
        let program = form.program();
        match self.built(search, &form, program, name(knob)) {
            Some(candidate) if candidate.value > self.best.value && candidate.score >= self.floor => {
                (self.form, self.best) = (form, candidate);
                self.momentum = Some((knob, steps));
                self.idle = 0;
            }
            _ => self.idle += 1,
        }
    }

    fn drawn(&mut self) -> Option<(Knob, i32)> {
        let knob = *self.form.knobs().choose(&mut self.dice)?;
        let steps = *STEPS.choose(&mut self.dice)?;
        Some((knob, if self.dice.random() { steps } else { -steps }))
    }

    /// Edits the structure. What is nearly as good is climbed from for a while, and kept if that
    /// makes it better.
    fn leap(&mut self, search: &Search, end: usize) {
        let Some((form, change)) = self.form.edited(search.material, self.step, &mut self.dice) else { return };
        let program = form.program();
        let Some(candidate) = self.built(search, &form, program, change) else { return };
        let before = (self.form.clone(), self.best.clone(), self.idle + 1);
        if candidate.value <= self.best.value - SLACK {
            self.idle += 1;
            return;
        }
        let is_better = |now: &Candidate, floor: f64| now.value > before.1.value && now.score >= floor;
        (self.form, self.best, self.idle) = (form, candidate, 0);
        let chance = (self.attempts.len() + CHANCE).min(end);
        let mut draws = 4 * CHANCE;
        while !is_better(&self.best, self.floor) && self.attempts.len() < chance && draws > 0 {
            draws -= 1;
            let floor = std::mem::replace(&mut self.floor, 0.0);
            self.turn(search);
            self.floor = floor;
        }
        if !is_better(&self.best, self.floor) {
            (self.form, self.best, self.idle) = before;
            self.momentum = None;
        }
    }

    /// Builds and judges a program that was not tried before; `None` without a solid.
    fn built(&mut self, search: &Search, form: &Form, program: String, change: &'static str) -> Option<Candidate> {
        if !self.tried.insert(program.clone()) {
            return None;
        }
        let started = Instant::now();
        let (outcome, score, value) = search.evaluate(form, &program);
        let micros = started.elapsed().as_micros() as u64;
        let start = self.start;
        self.attempts.push(Attempt { start, change, program: program.clone(), outcome, score, value, micros });
        value.is_finite().then_some(Candidate { program, score, value })
    }
}

fn name(knob: Knob) -> &'static str {
    use crate::agent::draft::Handle;
    match knob {
        Knob::Literal(_) => "a number",
        Knob::Handle(handle) => match handle {
            Handle::Distance(_) => "distance",
            Handle::Near(_) => "near end",
            Handle::Place(..) => "place",
            Handle::Value { .. } => "coordinate",
            Handle::Low(..) => "low edge",
            Handle::Hole(..) => "place of a hole",
            Handle::Radius(..) => "radius",
            Handle::Stretch { .. } => "stretch",
            Handle::Widen(_) => "widen",
        },
    }
}
