//! Refined programs as teachers (`ppo.ce_own_source = "refined"`): a search improves programs of a
//! step that are not good enough to be imitated, and the cross-entropy imitates what it finds.
//!
//! The policy is sure of what it writes, so a changed number is unlikely under it, and a label of
//! full weight costs validity (docs/log.md). Two means against that can be compared:
//! - `ce_refined_weight`: tokens that differ from the policy's own have a smaller weight;
//! - `ce_refined_nats`: programs that the policy finds too unlikely are no labels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use cadwright_rewards::RewardSource;
use cadwright_rewards::stats::mean;
use cadwright_rollout::Scorer;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::examples::response_ids;
use super::learner::Learner;
use super::metrics::StepNumbers;
use super::minibatch::embeddings_when_generated;
use super::proxy::{quality, training_look};
use crate::agent::prior::Prior;
use crate::agent::refine::Search;
use crate::agent::verifier::{Verifier, look_at};
use crate::config::Config;
use crate::data::Dataset;
use crate::generate::Completion;
use crate::rollouts::Rollout;
use crate::seeds::number_of;

/// A program from which a search starts.
struct Start<'a> {
    rollout: &'a Rollout,
    score: f64,
}

/// The result of a search.
#[derive(Serialize, Deserialize)]
struct Found {
    program: String,
    score: f64,
    evaluations: usize,
}

/// A refined program that may become a label.
struct Label<'a> {
    start: &'a Start<'a>,
    score: f64,
    tokens: Vec<i64>,
    is_kept: Vec<bool>,
}

impl Learner<'_> {
    /// Improves the programs of the step's pictures that `starts` chooses by search, and makes labels of those that
    /// are then good enough. Each rank searches for its share. Returns what it cost and gave.
    pub(super) fn refine_own_programs(&mut self, rollouts: &[Rollout]) -> Result<StepNumbers> {
        let started = Instant::now();
        let (config, world, step) = (self.config(), self.stage.world, self.state.position.step as u64);
        let starts = starts(rollouts, self.stage.train, config);
        let seeded: Vec<(u64, &Start)> = (0u64..).zip(&starts).collect();
        let jobs: Vec<(usize, &str, u64)> = world
            .share(&seeded)
            .map(|(place, Start { rollout, .. })| {
                (rollout.index, rollout.program.as_str(), self.seed(&[number_of("refine"), step, *place]))
            })
            .collect();
        let (scorer, prior, train) = (self.stage.scorer, &self.stage.prior, self.stage.train);
        let search = |&(index, program, seed): &(usize, &str, u64)| {
            searched(config, scorer, prior, (train, index), program, seed)
        };
        let own = scorer.install(|| jobs.par_iter().map(search).collect::<Result<Vec<Option<Found>>>>())?;
        let found = world.gather_shares("refined programs", own, starts.len())?;
        let found: Vec<(&Start, Found)> = starts.iter().zip(found).filter_map(|(s, found)| Some((s, found?))).collect();
        let mut numbers = StepNumbers::default();
        let mean_of = |value: fn(&(&Start, Found)) -> f64| mean(&found.iter().map(value).collect::<Vec<f64>>());
        numbers.extend([
            ("refined/programs", found.len() as f64),
            ("refined/evaluations", found.iter().map(|(_, found)| found.evaluations as f64).sum()),
            ("refined/score_before", mean_of(|(start, _)| start.score)),
            ("refined/score_after", mean_of(|(_, found)| found.score)),
        ]);
        let labels = found.into_iter().filter_map(|(start, found)| self.label(start, found)).collect();
        let labels = self.likely_enough(labels, rollouts, &mut numbers)?;
        let tokens = labels.iter().flat_map(|label| &label.is_kept);
        numbers.push("refined/labels", labels.len() as f64);
        numbers.push("refined/changed", mean(&tokens.map(|kept| f64::from(u8::from(!kept))).collect::<Vec<f64>>()));
        for Label { start, score, tokens, is_kept } in labels {
            let weights = weights(&is_kept, config.ppo.ce_refined_weight);
            self.state.own_programs.observe(start.rollout.index, score, &tokens, weights);
        }
        numbers.push("refined/seconds", started.elapsed().as_secs_f64());
        Ok(numbers)
    }

    /// The label of a program that is better than its start, good enough, and not longer than a
    /// completion.
    fn label<'s>(&self, start: &'s Start<'s>, found: Found) -> Option<Label<'s>> {
        let config = self.config();
        if found.score <= start.score || found.score < config.ppo.ce_own_iou {
            return None;
        }
        // A prompt that expects a plan gets none for a program that cannot be described.
        let ids = |program: &str| response_ids(self.prompted.prompt, self.prompted.tokenizer, program);
        let tokens = ids(&found.program)?;
        let is_kept = kept(&ids(&start.rollout.program)?, &tokens);
        let is_short = tokens.len() <= config.generate.max_new_tokens;
        is_short.then_some(Label { start, score: found.score, tokens, is_kept })
    }

    /// The labels whose mean cross-entropy under the policy is at most `ppo.ce_refined_nats`.
    fn likely_enough<'s>(
        &self,
        labels: Vec<Label<'s>>,
        rollouts: &[Rollout],
        numbers: &mut StepNumbers,
    ) -> Result<Vec<Label<'s>>> {
        let most = self.ppo().ce_refined_nats;
        if most == 0.0 {
            return Ok(labels);
        }
        let completed = |label: &Label| Rollout {
            index: label.start.rollout.index,
            prompt: Rc::clone(&label.start.rollout.prompt),
            completion: Completion { tokens: label.tokens.clone(), ..Completion::default() },
            ..Rollout::default()
        };
        let completed: Vec<Rollout> = labels.iter().map(completed).collect();
        let known = embeddings_when_generated(rollouts);
        let members: Vec<&Rollout> = completed.iter().collect();
        let logprobs = self.logprobs_under(&self.policy.frozen_copy(), &known, &members, 1.0)?;
        let nats = |logprobs: &Vec<f32>| -mean(&logprobs.iter().map(|&logprob| f64::from(logprob)).collect::<Vec<_>>());
        let nats: Vec<f64> = logprobs.iter().map(nats).collect();
        numbers.push("refined/nats", mean(&nats));
        Ok(labels.into_iter().zip(nats).filter(|(_, nats)| *nats <= most).map(|(label, _)| label).collect())
    }
}

/// The best program of each picture without a program of its own that is good enough to be refined,
/// and is no label as it is: from `ppo.refine_from` to `ppo.ce_own_iou`. The best ones come first:
/// at most `ppo.refine_programs`.
fn starts<'a>(rollouts: &'a [Rollout], dataset: &Dataset, config: &Config) -> Vec<Start<'a>> {
    let ppo = &config.ppo;
    let best = |part: &'a [Rollout]| {
        let is_whole = |rollout: &&Rollout| rollout.is_valid() && !rollout.completion.truncated;
        let starts = part.iter().filter(is_whole).map(|rollout| Start { rollout, score: quality(rollout, config) });
        starts.max_by(|a, b| a.score.total_cmp(&b.score))
    };
    let is_unlabelled = |part: &&[Rollout]| dataset.examples()[part[0].index].program.is_none();
    let mut starts: Vec<Start> =
        rollouts.chunks(ppo.samples_per_image).filter(is_unlabelled).filter_map(best).collect();
    starts.retain(|start| (ppo.refine_from..ppo.ce_own_iou).contains(&start.score));
    starts.sort_by(|a, b| b.score.total_cmp(&a.score));
    starts.truncate(ppo.refine_programs);
    starts
}

/// Searches from a program of the part at an index of a data set. `None` if the ground truth is no
/// solid, the native engine does not build the program, or our own code panics.
fn searched(
    config: &Config,
    scorer: &Scorer,
    prior: &Prior,
    (train, index): (&Dataset, usize),
    program: &str,
    seed: u64,
) -> Result<Option<Found>> {
    let verifier = match config.reward.source {
        RewardSource::Image => Verifier::Image(Box::new(look_at(train, index, &training_look(config, train)?))),
        RewardSource::Shape => {
            let answer = scorer.ground_truth(&train.examples()[index].ground_truth)?;
            let Some(solid) = answer.solid().cloned() else { return Ok(None) };
            Verifier::Truth { solid, frame: config.reward_frame(), cells: config.rollout.grid }
        }
    };
    let search = Search {
        judge: &|solid| verifier.score(solid),
        prior,
        material: prior.drafts(),
        prior_weight: config.agent.prior_weight,
        budget: config.ppo.refine_budget,
        seed,
        stop: &AtomicBool::new(false),
        result_name: scorer.config().result_name.as_deref(),
    };
    let refined = catch_unwind(AssertUnwindSafe(|| search.refine(&[program]))).unwrap_or_default();
    let evaluations = refined.attempts.len();
    let best = refined.found.into_iter().next();
    Ok(best.map(|(_, best)| Found { program: best.program, score: best.score, evaluations }))
}

/// For each token of `label` whether it belongs to a longest common subsequence with `written`.
fn kept(written: &[i64], label: &[i64]) -> Vec<bool> {
    let (rows, columns) = (written.len(), label.len());
    // The length for the ends of both from these places on.
    let mut longest = vec![vec![0u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = if written[row] == label[column] {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let (mut row, mut is_kept) = (0, vec![false; columns]);
    for column in 0..columns {
        // Tokens of `written` that the rest of `label` does not need are skipped.
        while row < rows && written[row] != label[column] && longest[row + 1][column] == longest[row][column] {
            row += 1;
        }
        if row < rows && written[row] == label[column] {
            is_kept[column] = true;
            row += 1;
        }
    }
    is_kept
}

/// The weights of a label's tokens: 1 for those that the policy wrote itself; empty if all are 1.
fn weights(is_kept: &[bool], of_changed: f64) -> Vec<f32> {
    if of_changed == 1.0 {
        return Vec::new();
    }
    is_kept.iter().map(|&is_kept| if is_kept { 1.0 } else { of_changed as f32 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_of(written: &str, label: &str) -> String {
        let ids = |text: &str| text.bytes().map(i64::from).collect::<Vec<_>>();
        let marks = kept(&ids(written), &ids(label)).into_iter();
        marks.map(|is_kept| if is_kept { '=' } else { '*' }).collect()
    }

    #[test]
    fn only_changed_tokens_are_marked() {
        for (written, label, expected) in [
            ("box(0.5, 2)", "box(0.5, 2)", "==========="),
            ("box(0.5, 2)", "box(0.7, 2)", "======*===="),
            ("box(0.5, 2)", "box(0.25, 12)", "======*===*=="),
            ("box(0.25, 12)", "box(0.5, 2)", "==========="),
            ("aXb", "ab", "=="),
            ("abc", "xyz", "***"),
            ("", "ab", "**"),
            ("ab", "", ""),
        ] {
            assert_eq!(kept_of(written, label), expected, "{written} to {label}");
        }
    }

    /// The marks are a longest common subsequence, by exhaustion over all subsequences.
    #[test]
    fn as_many_tokens_as_possible_are_kept() {
        let words = |code: usize| (0..5).map(|place| (code / 3usize.pow(place) % 3) as i64).collect::<Vec<_>>();
        let is_within = |part: &[i64], whole: &[i64]| {
            let mut rest = whole.iter();
            part.iter().all(|token| rest.any(|other| other == token))
        };
        let chosen = |label: &[i64], mask: usize| -> Vec<i64> {
            (0..5).filter(|place| mask >> place & 1 == 1).map(|place| label[place]).collect()
        };
        for (a, b) in (0..243).step_by(7).flat_map(|a| (0..243).step_by(5).map(move |b| (a, b))) {
            let (written, label) = (words(a), words(b));
            let is_kept = kept(&written, &label);
            let mask = (0..5).filter(|place| is_kept[*place]).map(|place| 1usize << place).sum();
            assert!(is_within(&chosen(&label, mask), &written), "{written:?} {label:?} {is_kept:?}");
            let most = (0..32).map(|mask| chosen(&label, mask)).filter(|part| is_within(part, &written));
            let most = most.map(|part| part.len()).max();
            assert_eq!(Some(mask.count_ones() as usize), most, "{written:?} {label:?} {is_kept:?}");
        }
    }

    #[test]
    fn changed_tokens_have_their_weight_and_full_weights_are_not_listed() {
        assert_eq!(weights(&[true, false, true], 0.25), [1.0, 0.25, 1.0]);
        assert!(weights(&[true, false], 1.0).is_empty());
    }
}
