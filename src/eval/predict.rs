//! Generates programs for a set of pictures and scores them: the same way in validation and final
//! evaluation.

use anyhow::{Context, Result};
use cadwright_rollout::{Report, ReportBuilder, Score, Scorer, Stratum, TokenCounts};

use serde::{Deserialize, Serialize};

use super::choices::Hints;
use crate::config::Turns;
use crate::distributed::World;
use crate::generate::{GenerateOptions, Sampling};
use crate::model::InternVl;
use crate::rollouts::{PendingRollouts, PromptedDataset, plan_of};
use crate::seeds::seed;
use crate::turns::generate_episodes;

/// A program that the model wrote, with its score.
#[derive(Clone, Serialize, Deserialize)]
pub struct Prediction {
    /// The dataset's id of the part.
    pub id: String,
    /// Index in the dataset.
    pub index: usize,
    /// The program, extracted from the completion.
    pub program: String,
    /// The plan before the program, with its marks; empty if there is none.
    pub plan: String,
    /// The programs of the turns before; empty for an episode of one turn.
    pub earlier: Vec<EarlierProgram>,
    /// Whether the completion was cut off at `max_new_tokens`.
    pub truncated: bool,
    /// Its numbers of tokens.
    pub counts: TokenCounts,
    /// Log-probability of the completion under the distribution that it was sampled from: the sum
    /// over its tokens, in nats.
    pub logprob: f64,
    /// What the ways to choose one of several programs have found.
    pub hints: Hints,
    /// Outcome, IoU and reward. The solid is there only on the rank that generated the program.
    pub score: Score,
}

/// A program of an episode before the last one.
#[derive(Clone, Serialize, Deserialize)]
pub struct EarlierProgram {
    /// The program.
    pub program: String,
    /// Its score.
    pub score: Score,
}

/// How a model is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Episodes generated for each part.
    pub samples: usize,
    /// Programs of each episode; the last one is the prediction.
    pub turns: Turns,
    /// Completions generated at the same time.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
}

/// Generates `options.samples` completions for each part in `indices` and scores them. Returns them
/// in order, those of a part one after another, on every rank; each rank makes those of its share
/// of the parts. The programs of one batch are scored while the next batch is generated. Calls
/// `on_scored` with the predictions of one or several parts of this rank, which have their solids,
/// once their scores are known.
///
/// # Errors
/// The scorer cannot continue, or another rank is gone.
pub fn evaluate(
    world: &World,
    model: &InternVl,
    prompted: &PromptedDataset,
    indices: &[usize],
    scorer: &Scorer,
    options: EvalOptions,
    mut on_scored: impl FnMut(&mut [Prediction]),
) -> Result<Vec<Prediction>> {
    let samples = options.samples.max(1);
    let sample_seed = |index: usize, sample: usize, turn: usize| match (sample, turn) {
        (0, 0) => seed(&[options.seed, EVAL_STREAM, index as u64]),
        (_, 0) => seed(&[options.seed, EVAL_STREAM, index as u64, sample as u64]),
        _ => seed(&[options.seed, EVAL_STREAM, index as u64, sample as u64, turn as u64]),
    };
    let generate_options =
        GenerateOptions { sampling: options.sampling, batch_size: options.batch_size, keeps_states: false };
    let start = |indices: &[usize]| {
        let seeds_of = |turn: usize| -> Vec<u64> {
            let samples_of = |&index: &usize| (0..samples).map(move |sample| sample_seed(index, sample, turn));
            indices.iter().flat_map(samples_of).collect()
        };
        generate_episodes(model, prompted, indices, seeds_of, generate_options, options.turns, scorer)
    };
    let own: Vec<usize> = world.share(indices).copied().collect();
    let mut predictions = Vec::with_capacity(own.len() * samples);
    let finish = |pending: Result<PendingRollouts>| {
        let known = predictions.len();
        for rollout in pending?.finish()? {
            let (plan, plan_tokens) = plan_of(prompted.tokenizer, rollout.last_tokens());
            let counts =
                TokenCounts { prompt: rollout.prompt.len(), completion: rollout.tokens().len(), plan: plan_tokens };
            let earlier = rollout.earlier.into_iter();
            let earlier = earlier.filter_map(|turn| Some(EarlierProgram { program: turn.program, score: turn.score? }));
            let earlier = earlier.collect();
            predictions.extend(rollout.score.map(|score| Prediction {
                id: prompted.dataset.examples()[rollout.index].id.clone(),
                index: rollout.index,
                program: rollout.program,
                plan,
                earlier,
                truncated: rollout.completion.truncated,
                counts,
                logprob: rollout.completion.logprobs.iter().map(|&logprob| f64::from(logprob)).sum(),
                hints: Hints::default(),
                score,
            }));
        }
        on_scored(&mut predictions[known..]);
        Ok(())
    };
    overlapped(own.chunks((options.batch_size / samples).max(1)), start, finish)?;
    gathered(world, indices.len(), samples, predictions)
}

/// The predictions of all ranks, in the order of the parts, of which rank r has every one from the
/// r-th in steps of the number of ranks.
pub(super) fn gathered(world: &World, parts: usize, samples: usize, own: Vec<Prediction>) -> Result<Vec<Prediction>> {
    if world.size() == 1 {
        return Ok(own);
    }
    let mut shares = world.gather("the predictions", own.clone())?;
    shares[world.rank()] = own;
    let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
    let ranks = shares.len();
    let short = "a rank sent fewer predictions than its share";
    (0..parts * samples).map(|i| shares[i / samples % ranks].next().context(short)).collect()
}

/// The statistics of predictions that `scorer` scored, `samples` for each part one after another.
/// `thresholds` are IoUs for pass@k; `seconds` is the wall time; `stratum` places a prediction in the
/// tables of protocols.
pub fn report(
    predictions: &[Prediction],
    scorer: &Scorer,
    samples: usize,
    thresholds: &[f64],
    seconds: f64,
    stratum: impl Fn(&Prediction) -> Stratum,
) -> Report {
    let mut builder = ReportBuilder::new(scorer.config(), samples, thresholds);
    for prediction in predictions {
        builder.add(&prediction.score, prediction.truncated);
        builder.add_protocols(&prediction.score, stratum(prediction));
        // Programs of others have no tokens. A prompt of ours has some.
        if prediction.counts != TokenCounts::default() {
            builder.add_tokens(prediction.counts);
        }
    }
    builder.finish(seconds)
}

/// Calls `start` and then `finish` for each item, in order. Starts each item before it finishes the
/// previous one, so that background work of `start` can run during the next `start`.
fn overlapped<T, P>(
    items: impl Iterator<Item = T>,
    mut start: impl FnMut(T) -> P,
    mut finish: impl FnMut(P) -> Result<()>,
) -> Result<()> {
    let mut pending = None;
    for item in items {
        if let Some(previous) = pending.replace(start(item)) {
            finish(previous)?;
        }
    }
    pending.map_or(Ok(()), finish)
}

/// Separates the seeds of evaluation from those of training.
const EVAL_STREAM: u64 = 0xe7a1;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn an_item_is_started_before_the_one_before_it_is_finished() {
        let calls = RefCell::new(Vec::new());
        let start = |item: usize| {
            calls.borrow_mut().push(format!("start {item}"));
            item
        };
        let finish = |item: usize| {
            calls.borrow_mut().push(format!("finish {item}"));
            Ok(())
        };
        overlapped(0..0, start, finish).unwrap();
        overlapped(0..3, start, finish).unwrap();
        let expected = ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"];
        assert_eq!(calls.into_inner(), expected);
    }
}
