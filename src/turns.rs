//! Episodes of several turns: the policy is told what came of its program, and writes another one.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use cadwright_rewards::program::extract_program;
use cadwright_rollout::{Score, ScoreRequest, Scorer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::agent::feedback::{Built, feedback};
use crate::agent::look::{Look, LookOptions};
use crate::agent::verifier::{look_at, look_options};
use crate::config::Turns;
use crate::conversation::Reply;
use crate::data::render::render_solid;
use crate::generate::{Completion, GenerateOptions, generate};
use crate::model::InternVl;
use crate::pictures::{Picture, PictureFile, decoded};
use crate::rollouts::{PendingRollouts, PromptedDataset, Rollout, generate_and_score};

/// A turn of an episode before the last one, and the reply to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct EarlierTurn {
    /// Number of tokens that the policy had written in the episode when the turn ended.
    pub end: usize,
    /// The program of the turn.
    pub program: String,
    /// Whether its completion was cut off.
    pub truncated: bool,
    /// Its score.
    pub score: Option<Score>,
    /// What the policy was told.
    pub reply: Reply,
    /// The embeddings of the reply's picture that the policy saw, `[image tokens, hidden]` f32.
    /// `None` on the ranks that did not generate the episode.
    #[serde(skip)]
    pub image: Option<Rc<Tensor>>,
}

/// As [`generate_and_score`], with the further turns of `turns`. `seeds_of` gives the seeds of a
/// turn, counted from 0. A turn begins when all programs of the one before are scored.
///
/// # Errors
/// The scorer cannot go on, or the prompt's chat template has no further turns.
pub fn generate_episodes<'a>(
    model: &InternVl,
    prompted: &PromptedDataset,
    indices: &[usize],
    seeds_of: impl Fn(usize) -> Vec<u64>,
    options: GenerateOptions,
    turns: Turns,
    scorer: &'a Scorer,
) -> Result<PendingRollouts<'a>> {
    let mut pending = generate_and_score(model, prompted, indices, &seeds_of(0), options, scorer);
    for turn in 1..turns.count {
        let mut rollouts = pending.finish()?;
        end_turn(model, prompted, &mut rollouts, turns.shows_render)?;
        pending = generate_next_turn(model, prompted, rollouts, &seeds_of(turn), options, scorer)?;
    }
    Ok(pending)
}

/// Ends the turn of each rollout, whose program is scored, with the reply to it: what came of the
/// program, where its silhouette and the picture's differ and, if it built a solid and
/// `shows_render` is set, a render of that in the data set's view, as large as the part's picture.
///
/// # Errors
/// The prompt's chat template has no further turns.
pub fn end_turn(
    model: &InternVl,
    prompted: &PromptedDataset,
    rollouts: &mut [Rollout],
    shows_render: bool,
) -> Result<()> {
    let examples = prompted.dataset.examples();
    // One for each part, whose rollouts follow each other.
    let mut parts: Vec<usize> = rollouts.iter().map(|rollout| rollout.index).collect();
    parts.sort_unstable();
    parts.dedup();
    let options = LookOptions { fit: false, ..look_options(&[], &prompted.dataset.views)? };
    let look = |&part: &usize| (part, look_at(prompted.dataset, part, &options));
    let looks: BTreeMap<usize, Look> = parts.par_iter().map(look).collect();
    let told = |&(index, score, truncated): &(usize, Option<&Score>, bool)| -> Result<(String, Option<Picture>)> {
        let score = score.context("a turn ends with a score")?;
        let look = &looks[&index];
        let differences = score.solid.as_ref().map_or(Vec::new(), |solid| look.differences(solid));
        let text = feedback(&Built::of_score(score, truncated), &differences);
        let side = || decoded(&examples[index]).width();
        let render = score.solid.as_ref().filter(|_| shows_render).and_then(|solid| render_solid(solid, side()));
        let render = render.map(|render| PictureFile::of(&render)).transpose()?;
        Ok((text, render.map(Picture::File)))
    };
    let ended: Vec<(usize, Option<&Score>, bool)> =
        rollouts.iter().map(|r| (r.index, r.score.as_ref(), r.completion.truncated)).collect();
    let told = ended.par_iter().map(told).collect::<Result<Vec<(String, Option<Picture>)>>>()?;
    let renders: Vec<Picture> = told.iter().filter_map(|(_, picture)| picture.clone()).collect();
    let mut images = prompted.pictures.embed(model, &renders).into_iter();
    for (rollout, (text, picture)) in rollouts.iter_mut().zip(told) {
        let image = picture.as_ref().and_then(|_| images.next()).map(Rc::new);
        let reply = prompted.reply(model, rollout.last_tokens(), &text, picture)?;
        rollout.earlier.push(EarlierTurn {
            end: rollout.tokens().len(),
            program: std::mem::take(&mut rollout.program),
            truncated: rollout.completion.truncated,
            score: rollout.score.take(),
            reply,
            image,
        });
    }
    Ok(())
}

/// Completes the next turn of each rollout, which has a reply to its last one, and submits each
/// program to `scorer` the moment its completion ends.
fn generate_next_turn<'a>(
    model: &InternVl,
    prompted: &PromptedDataset,
    mut rollouts: Vec<Rollout>,
    seeds: &[u64],
    options: GenerateOptions,
    scorer: &'a Scorer,
) -> Result<PendingRollouts<'a>> {
    ensure!(seeds.len() == rollouts.len(), "{} seeds for {} episodes", seeds.len(), rollouts.len());
    let prompts = rollouts.iter().map(Rollout::input).collect::<Result<Vec<_>>>()?;
    let mut batch = scorer.batch();
    let mut programs = vec![String::new(); rollouts.len()];
    let on_done = |i: usize, completion: &Completion| {
        programs[i] = extract_program(&prompted.tokenizer.decode(&completion.tokens));
        let ground_truth = prompted.ground_truth(rollouts[i].index).clone();
        let request = ScoreRequest { prediction: programs[i].clone(), ground_truth, truncated: completion.truncated };
        batch.submit(i, request);
    };
    let completions = generate(model, prompted.tokenizer, &prompts, seeds, options, on_done);
    for ((rollout, completion), program) in rollouts.iter_mut().zip(completions).zip(programs) {
        rollout.completion.append(completion);
        rollout.program = program;
    }
    Ok(PendingRollouts { rollouts, batch })
}
