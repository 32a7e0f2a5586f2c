//! The programs that PPO's cross-entropy imitates: ground truths, and the policy's own best
//! programs for rows that have none (self-imitation; Oh et al. 2018, arXiv:1806.05635), some of
//! them refined (`teachers.rs`).

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::examples::TokenizedExample;
use super::proxy::quality;
use crate::config::Config;
use crate::data::Dataset;
use crate::model::InternVl;
use crate::rollouts::{PromptedDataset, Rollout};

/// For each row without a program, the best program that the policy has written for it so far, or
/// that a search has made of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OwnPrograms {
    best: BTreeMap<usize, OwnProgram>,
}

/// A program with its end of turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnProgram {
    /// Its IoU, or its image score if the reward comes from pictures.
    score: f64,
    tokens: Vec<i64>,
    /// The weight of each token in the cross-entropy; empty: 1 each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weights: Vec<f32>,
}

impl OwnPrograms {
    /// Keeps the programs of `rollouts` that are solids of at least `ppo.ce_own_iou` ([`quality`]), for rows of
    /// `dataset` without a program, if they are better than the ones before.
    pub fn observe_rollouts(&mut self, rollouts: &[Rollout], dataset: &Dataset, config: &Config) {
        for rollout in rollouts {
            let score = quality(rollout, config);
            let is_good = rollout.is_valid() && !rollout.completion.truncated && score >= config.ppo.ce_own_iou;
            if is_good && dataset.examples()[rollout.index].program.is_none() {
                self.observe(rollout.index, score, rollout.last_tokens(), Vec::new());
            }
        }
    }

    /// Keeps a program of `row`, with a weight for each token or none, if it is the best so far.
    pub(super) fn observe(&mut self, row: usize, score: f64, tokens: &[i64], weights: Vec<f32>) {
        if self.best.get(&row).is_none_or(|own| own.score < score) {
            self.best.insert(row, OwnProgram { score, tokens: tokens.to_vec(), weights });
        }
    }

    /// Number of rows that have a program.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    /// Draws at most `count` different rows and returns them with their programs.
    pub fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, &OwnProgram)> {
        let rows: Vec<(usize, &OwnProgram)> = self.best.iter().map(|(&row, own)| (row, own)).collect();
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
    let example = |(row, own): (usize, &OwnProgram)| TokenizedExample {
        weights: own.weights.clone(),
        ..TokenizedExample::new(prompted, policy, row, own.tokens.clone())
    };
    let mut drawn: Vec<TokenizedExample> = own.map(example).collect();
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
        own.observe(7, 0.8, &[1], Vec::new());
        own.observe(7, 0.9, &[2, 5], vec![0.25, 1.0]);
        own.observe(7, 0.85, &[3], Vec::new());
        own.observe(2, 0.7, &[4], Vec::new());
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut drawn = own.draw(5, &mut rng);
        drawn.sort_unstable_by_key(|(row, _)| *row);
        let program = |score: f64, tokens: &[i64], weights: &[f32]| OwnProgram {
            score,
            tokens: tokens.to_vec(),
            weights: weights.to_vec(),
        };
        assert_eq!(drawn, [(2, &program(0.7, &[4], &[])), (7, &program(0.9, &[2, 5], &[0.25, 1.0]))]);
        assert_eq!(own.draw(1, &mut rng).len(), 1);
        assert_eq!(own.len(), 2);
    }
}
