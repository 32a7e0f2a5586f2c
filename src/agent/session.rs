//! The agent's loop: write, build, look, reply, write again; then refine the best and choose.
//!
//! The parts of a batch are worked on together, since the model writes many programs in the time of
//! one. Nothing of one part reaches another. The best program so far is kept, so a later round can
//! only help.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use cadwright_rewards::{Solid, extract_program};
use cadwright_rollout::{Answer, Scorer};
use image::RgbImage;
use rayon::prelude::*;

use super::draft::Draft;
use super::feedback::{Built, feedback};
use super::neighbours::Neighbours;
use super::prior::Prior;
use super::refine::Search;
use super::trace::{Candidate, Trace};
use super::verifier::Verifier;
use crate::config::{Agent as Options, Config};
use crate::data::render::render_solid;
use crate::generate::{Completion, GenerateOptions, PromptInput, Sampling, generate};
use crate::model::InternVl;
use crate::pictures::{Picture, PictureFile};
use crate::rollouts::PromptedDataset;
use crate::seeds::seed;

/// Labelled programs that edits take from: those most like the picture.
const LIBRARY: usize = 32;

/// A part that the agent works on.
pub struct Part {
    /// The pictures that the model sees.
    pub pictures: Vec<Picture>,
    /// What candidates are judged by.
    pub verifier: Verifier,
    /// The first picture.
    pub picture: RgbImage,
    /// The seed of all draws.
    pub seed: u64,
}

/// Writes, builds, judges and corrects programs.
pub struct Agent<'a> {
    /// The model that writes.
    pub model: &'a InternVl,
    /// Its prompt and tokenizer, and the pictures.
    pub prompted: &'a PromptedDataset<'a>,
    /// How programs are written: the temperature is that of samples.
    pub generation: GenerateOptions,
    /// Builds, judges and refines what is written.
    pub workshop: Workshop<'a>,
    /// Is told what is being done.
    pub progress: &'a dyn Fn(&str),
}

/// Builds, judges and refines programs, on all threads of the scorer.
pub struct Workshop<'a> {
    /// How the agent works.
    pub options: &'a Options,
    /// Executes programs.
    pub scorer: &'a Scorer,
    /// What programs are like.
    pub prior: &'a Prior,
    /// What the programs of the prior look like.
    pub neighbours: &'a Neighbours,
    /// Ends the work as soon as it is true; what was found so far counts.
    pub stop: &'a AtomicBool,
}

/// How the agent's programs are written: samples at `agent.temperature`.
pub fn generation(config: &Config) -> GenerateOptions {
    let sampling = Sampling {
        temperature: config.agent.temperature,
        top_p: config.eval.top_p,
        max_new_tokens: config.generate.max_new_tokens,
    };
    GenerateOptions { sampling, batch_size: config.generate.batch_size, keeps_states: false }
}

/// A program that the model wrote, in the conversation that led to it.
struct Written {
    completion: Completion,
    answer: Answer,
    value: f64,
}

/// A part in work.
struct Work<'a> {
    part: &'a Part,
    request: PromptInput,
    trace: Trace,
    /// The best program that the model itself wrote.
    best: Option<Written>,
    /// By program: its place in the trace.
    known: HashMap<String, usize>,
}

impl Agent<'_> {
    /// Works on all parts at once and returns what was done for each.
    ///
    /// # Errors
    /// The scorer cannot go on, or the prompt's chat template has no further turns.
    pub fn run(&self, parts: &[Part]) -> Result<Vec<Trace>> {
        let started = Instant::now();
        let begin = |part| Work {
            part,
            request: self.prompted.input(self.model, &part.pictures),
            trace: Trace::default(),
            best: None,
            known: HashMap::new(),
        };
        let mut work: Vec<Work> = parts.iter().map(begin).collect();
        self.write_first(&mut work.iter_mut().collect::<Vec<_>>())?;
        for round in 1..self.workshop.options.rounds {
            if self.workshop.is_over(started, parts.len()) {
                break;
            }
            (self.progress)(&format!("round {round}: {}", best_line(&work)));
            self.reply(&mut work, round)?;
        }
        if self.workshop.options.refine > 0 && !self.workshop.is_over(started, parts.len()) {
            (self.progress)(&format!("refine: {}", best_line(&work)));
            self.workshop.refine(&mut work, started);
        }
        let seconds = started.elapsed().as_secs_f64() / parts.len().max(1) as f64;
        let done = |mut work: Work| {
            work.trace.cost.seconds = seconds;
            work.trace
        };
        Ok(work.into_iter().map(done).collect())
    }

    /// The greedy program of each part, and samples.
    fn write_first(&self, work: &mut [&mut Work]) -> Result<()> {
        let requests: Vec<PromptInput> = work.iter().map(|work| copy(&work.request)).collect();
        let greedy = Sampling { temperature: 0.0, ..self.generation.sampling };
        self.write(work, 0, "greedy", requests, 1, greedy)?;
        let samples = self.workshop.options.samples.saturating_sub(1);
        if samples > 0 && !self.workshop.stop.load(Ordering::Relaxed) {
            let requests: Vec<PromptInput> = work.iter().map(|work| copy(&work.request)).collect();
            self.write(work, 0, "sample", requests, samples, self.generation.sampling)?;
        }
        Ok(())
    }

    /// Shows each part's best program and what came of it to the model, which writes again.
    fn reply(&self, work: &mut [Work], round: usize) -> Result<()> {
        let (mut replied, requests): (Vec<&mut Work>, Vec<PromptInput>) = work
            .iter_mut()
            .filter(|work| self.workshop.has_tokens(&work.trace))
            .map(|work| self.next_request(work).map(|request| request.map(|request| (work, request))))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .unzip();
        let samples = self.workshop.options.samples;
        self.write(&mut replied, round, "reply", requests, samples, self.generation.sampling)
    }

    fn next_request(&self, work: &Work) -> Result<Option<PromptInput>> {
        let Some(best) = &work.best else { return Ok(None) };
        let built = Built::of_answer(&best.answer, best.completion.truncated);
        let solid: Option<&Solid> = best.answer.solid().map(AsRef::as_ref);
        let differences = solid.map(|solid| work.part.verifier.differences(solid)).unwrap_or_default();
        let render = solid
            .filter(|_| self.workshop.options.shows_render)
            .and_then(|solid| render_solid(solid, work.part.picture.width()));
        let picture = render.map(|render| PictureFile::of(&render)).transpose()?.map(Picture::File);
        let text = feedback(&built, &differences);
        let reply = self.prompted.reply(self.model, &best.completion.tokens, &text, picture)?;
        Ok(Some(self.prompted.next_input(self.model, &work.request, &best.completion, &reply)))
    }

    /// Writes `samples` programs to each request, builds and judges them.
    fn write(
        &self,
        work: &mut [&mut Work],
        round: usize,
        origin: &str,
        requests: Vec<PromptInput>,
        samples: usize,
        sampling: Sampling,
    ) -> Result<()> {
        let parts: Vec<&Part> = work.iter().map(|work| work.part).collect();
        let seeds_of = |part: &&Part| {
            let part = part.seed;
            (0..samples).map(move |sample| seed(&[part, round as u64, sample as u64]))
        };
        let seeds: Vec<u64> = parts.iter().flat_map(seeds_of).collect();
        let options = GenerateOptions { sampling, ..self.generation };
        let completions = generate(self.model, self.prompted.tokenizer, &requests, &seeds, options, |_, _| {});
        let programs: Vec<String> =
            completions.iter().map(|done| extract_program(&self.prompted.tokenizer.decode(&done.tokens))).collect();
        let workshop = &self.workshop;
        let judged = workshop.scorer.install(|| {
            let judge = |(i, program): (usize, &String)| workshop.judged(parts[i / samples], program);
            programs.par_iter().enumerate().map(judge).collect::<Result<Vec<_>>>()
        })?;
        for (i, ((completion, program), judged)) in completions.into_iter().zip(programs).zip(judged).enumerate() {
            work[i / samples].take(round, origin, completion, program, judged);
        }
        Ok(())
    }
}

impl Workshop<'_> {
    /// Executes and judges a program.
    fn judged(&self, part: &Part, program: &str) -> Result<Judged> {
        let started = Instant::now();
        let answer = self.scorer.execute(program)?.answer;
        let score = answer.solid().map_or(0.0, |solid| part.verifier.score(solid));
        let prior = self.options.prior_weight * self.prior.plausibility_of(program);
        let value = answer.solid().is_some().then_some(score + prior);
        Ok(Judged { answer, score, value, seconds: started.elapsed().as_secs_f64() })
    }

    /// Improves the best candidates of each part by search.
    fn refine(&self, work: &mut [Work], started: Instant) {
        let parts = work.len();
        let stop = AtomicBool::new(false);
        let watch = |solid: &Solid, verifier: &Verifier| {
            // The limits are looked at here, since every candidate passes.
            if self.is_over(started, parts) {
                stop.store(true, Ordering::Relaxed);
            }
            verifier.score(solid)
        };
        let improve = |work: &mut Work| {
            let library = self.neighbours.nearest(&work.part.picture, LIBRARY);
            let mut starts = work.starts(self.options.starts);
            starts.extend(library.iter().take(self.options.neighbours).map(Draft::program));
            let verifier = &work.part.verifier;
            let search = Search {
                judge: &|solid| watch(solid, verifier),
                prior: self.prior,
                material: &library,
                prior_weight: self.options.prior_weight,
                budget: self.options.refine,
                seed: work.part.seed,
                stop: &stop,
                result_name: self.scorer.config().result_name.as_deref(),
            };
            let refined = search.refine(&starts.iter().map(String::as_str).collect::<Vec<_>>());
            work.take_refined(self.options.rounds.saturating_sub(1), refined);
        };
        self.scorer.install(|| work.par_iter_mut().for_each(improve));
    }

    fn has_tokens(&self, trace: &Trace) -> bool {
        self.options.max_tokens == 0 || trace.cost.tokens < self.options.max_tokens
    }

    fn is_over(&self, started: Instant, parts: usize) -> bool {
        let limit = self.options.max_seconds * parts as f64;
        self.stop.load(Ordering::Relaxed) || limit > 0.0 && started.elapsed().as_secs_f64() > limit
    }
}

/// What came of a program, and what it is worth.
struct Judged {
    answer: Answer,
    score: f64,
    value: Option<f64>,
    seconds: f64,
}

impl Work<'_> {
    /// Takes a program that the model wrote. One that was written before counts its tokens only.
    fn take(&mut self, round: usize, origin: &str, completion: Completion, program: String, judged: Judged) {
        self.trace.cost.tokens += completion.tokens.len();
        let Judged { answer, score, value, seconds } = judged;
        if self.known.contains_key(&program) {
            return;
        }
        self.known.insert(program.clone(), self.trace.candidates.len());
        let sum: f64 = completion.logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
        self.trace.add(Candidate {
            round,
            origin: origin.to_owned(),
            program,
            outcome: answer.verdict().name().to_owned(),
            error: answer.error(),
            score,
            value,
            logprob: Some(sum / completion.tokens.len().max(1) as f64),
            seconds,
        });
        // A failure is shown to the model only if nothing better is there.
        let value = value.unwrap_or(f64::NEG_INFINITY);
        if self.best.as_ref().is_none_or(|best| best.value < value) {
            self.best = Some(Written { completion, answer, value });
        }
    }

    /// The programs that a search starts from, the best first.
    fn starts(&self, count: usize) -> Vec<String> {
        let mut valued: Vec<(f64, &str)> = self
            .trace
            .candidates
            .iter()
            .filter_map(|candidate| Some((candidate.value?, candidate.program.as_str())))
            .collect();
        valued.sort_by(|a, b| b.0.total_cmp(&a.0));
        valued.into_iter().take(count).map(|(_, program)| program.to_owned()).collect()
    }

    /// Takes what a search has built. Starts that were built before are in the trace already.
    fn take_refined(&mut self, round: usize, refined: super::refine::Refined) {
        for attempt in refined.attempts {
            if self.known.contains_key(&attempt.program) {
                continue;
            }
            self.trace.cost.refined += 1;
            self.trace.add(Candidate {
                round,
                origin: match attempt.change {
                    "start" => "labelled".to_owned(),
                    change => format!("refine: {change}"),
                },
                program: attempt.program,
                outcome: attempt.outcome.map_or("declined", |class| class.name()).to_owned(),
                error: None,
                score: attempt.score,
                value: attempt.value.is_finite().then_some(attempt.value),
                logprob: None,
                seconds: attempt.micros as f64 / 1e6,
            });
        }
    }
}

/// The mean score of the best candidates, for the progress line.
fn best_line(work: &[Work]) -> String {
    let score = |work: &Work| work.trace.best.map_or(0.0, |best| work.trace.candidates[best].score);
    let mean = work.iter().map(score).sum::<f64>() / work.len().max(1) as f64;
    let programs: usize = work.iter().map(|work| work.trace.cost.programs).sum();
    format!("best score so far {mean:.3}, {programs} programs built")
}

fn copy(input: &PromptInput) -> PromptInput {
    PromptInput { ids: input.ids.clone(), image: input.image.shallow_clone(), written: input.written.clone() }
}
