//! The programs that PPO's cross-entropy imitates: ground truths, and the policy's own best
//! programs for rows that have none (self-imitation; Oh et al. 2018, arXiv:1806.05635).

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::examples::TokenizedExample;
use crate::config::Config;
use crate::data::Dataset;
use crate::model::InternVl;
use crate::rollouts::{PromptedDataset, Rollout};

/// For each row without a program, the best program that the policy has written for it so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OwnPrograms {
    best: BTreeMap<usize, OwnProgram>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OwnProgram {
    iou: f64,
    tokens: Vec<i64>,
}

impl OwnPrograms {
    /// Keeps the programs of `rollouts` that are solids of at least `ppo.ce_own_iou`, for rows of
    /// `dataset` without a program, if they are better than the ones before.
    pub fn observe_rollouts(&mut self, rollouts: &[Rollout], dataset: &Dataset, config: &Config) {
        for rollout in rollouts {
            let iou = rollout.iou_in(config.reward_frame());
            let is_good = rollout.is_valid() && !rollout.completion.truncated && iou >= config.ppo.ce_own_iou;
            if is_good && dataset.examples()[rollout.index].program.is_none() {
                self.observe(rollout.index, iou, rollout.last_tokens());
            }
        }
    }

    /// Keeps a program of `row` if it is the best so far.
    fn observe(&mut self, row: usize, iou: f64, tokens: &[i64]) {
        if self.best.get(&row).is_none_or(|own| own.iou < iou) {
            self.best.insert(row, OwnProgram { iou, tokens: tokens.to_vec() });
        }
    }

    /// Number of rows that have a program.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    /// Draws at most `count` different rows and returns them with their programs.
    pub fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, &[i64])> {
        let rows: Vec<(usize, &[i64])> = self.best.iter().map(|(&row, own)| (row, own.tokens.as_slice())).collect();
        rand::seq::index::sample(rng, rows.len(), count.min(rows.len())).iter().map(|i| rows[i]).collect()
    }
}

/// Draws the programs for the cross-entropy of one optimiser step, sorted by length: the share
/// `ppo.ce_own_share` of the policy's own, as far as there are any, and ground truths of random
/// rows.
pub(super) fn draw_demonstrations(
    ground_truths: &[TokenizedExample],
    own_programs: &OwnPrograms,
    prompted: &PromptedDataset,
    policy: &InternVl,
    config: &Config,
    rng: &mut ChaCha8Rng,
) -> Vec<TokenizedExample> {
    let ppo = &config.ppo;
    let own = (ppo.ce_own_share * ppo.ce_batch_size as f64).round() as usize;
    let own = own_programs.draw(own, rng).into_iter();
    let mut drawn: Vec<TokenizedExample> =
        own.map(|(row, tokens)| TokenizedExample::new(prompted, policy, row, tokens.to_vec())).collect();
    let others = (ppo.ce_batch_size - drawn.len()).min(ground_truths.len());
    let others = rand::seq::index::sample(rng, ground_truths.len(), others);
    drawn.extend(others.iter().map(|i| ground_truths[i].clone()));
    drawn.sort_by_key(TokenizedExample::sequence_len);
    drawn
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_best_program_of_each_row_is_kept() {
        let mut own = OwnPrograms::default();
        own.observe(7, 0.8, &[1]);
        own.observe(7, 0.9, &[2]);
        own.observe(7, 0.85, &[3]);
        own.observe(2, 0.7, &[4]);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut drawn = own.draw(5, &mut rng);
        drawn.sort_unstable();
        assert_eq!(drawn, [(2, &[4][..]), (7, &[2][..])]);
        assert_eq!(own.draw(1, &mut rng).len(), 1);
        assert_eq!(own.len(), 2);
    }
}
