//! Teaches to correct: episodes of two turns, whose first program is a draft that the policy
//! sampled, and whose second one is the ground truth.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::examples::TokenizedExample;
use super::{Stage, stream};
use crate::conversation::Reply;
use crate::generate::GenerateOptions;
use crate::model::InternVl;
use crate::rollouts::{PromptedDataset, generate_and_score};
use crate::seeds::seed;
use crate::turns::end_turn;

/// A first turn that the policy wrote, and the reply to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Draft {
    /// The tokens of the completion.
    pub tokens: Vec<i64>,
    /// What the policy is told.
    pub reply: Reply,
}

/// Each of `examples` as the second turn after a draft that `model` samples for it at
/// `ppo.temperature`. Each rank samples its share; all get the drafts of all.
///
/// # Errors
/// The scorer cannot go on, the prompt's chat template has no further turns, or another rank is
/// gone.
pub(super) fn with_drafts(
    stage: &Stage,
    prompted: &PromptedDataset,
    model: &InternVl,
    examples: &[TokenizedExample],
) -> Result<Vec<TokenizedExample>> {
    let (config, world) = (stage.config, stage.world);
    let options = GenerateOptions {
        sampling: stage.sampling(config.ppo.temperature, 1.0),
        batch_size: config.generate.batch_size,
        keeps_states: false,
    };
    let model = model.frozen_copy();
    let own: Vec<usize> = world.share(examples).map(|example| example.index).collect();
    let mut drafts: Vec<(usize, Draft)> = Vec::with_capacity(own.len());
    // In pieces, because rollouts hold the embeddings of their pictures.
    for rows in own.chunks(options.batch_size) {
        let row_seed = |&row: &usize| seed(&[u64::from(config.run.seed), stream("drafts"), row as u64]);
        let seeds: Vec<u64> = rows.iter().map(row_seed).collect();
        let mut rollouts = generate_and_score(&model, prompted, rows, &seeds, options, stage.scorer).finish()?;
        end_turn(&model, prompted, &mut rollouts, config.ppo.turn_render)?;
        for rollout in rollouts {
            let reply = rollout.earlier.into_iter().next_back().map(|turn| turn.reply);
            drafts.extend(reply.map(|reply| (rollout.index, Draft { tokens: rollout.completion.tokens, reply })));
        }
    }
    let mut drafts: BTreeMap<usize, Draft> = world.gather("the drafts", drafts)?.into_iter().flatten().collect();
    let drafted = |example: &TokenizedExample| {
        let draft = drafts.remove(&example.index)?;
        Some(TokenizedExample { draft: Some(draft), ..example.clone() })
    };
    Ok(examples.iter().filter_map(drafted).collect())
}
