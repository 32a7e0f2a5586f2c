//! The policy's own best programs as labels for rows whose programs nobody wrote (self-imitation; Oh et al. 2018,
//! arXiv:1806.05635).

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// For each row, the best program that the policy has written for it so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OwnPrograms {
    best: BTreeMap<usize, Own>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Own {
    iou: f64,
    tokens: Vec<i64>,
}

impl OwnPrograms {
    /// Keeps a program of `row` if it is the best so far.
    pub fn observe(&mut self, row: usize, iou: f64, tokens: &[i64]) {
        if self.best.get(&row).is_none_or(|own| own.iou < iou) {
            self.best.insert(row, Own { iou, tokens: tokens.to_vec() });
        }
    }

    /// Rows that have a program.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    /// At most `count` different rows, each with its program.
    pub fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, &[i64])> {
        let rows: Vec<(usize, &[i64])> = self.best.iter().map(|(&row, own)| (row, own.tokens.as_slice())).collect();
        rand::seq::index::sample(rng, rows.len(), count.min(rows.len())).iter().map(|i| rows[i]).collect()
    }
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
