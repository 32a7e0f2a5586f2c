//! Chooses one of several programs that a policy wrote for the same picture.
//!
//! A way to choose gives each program a score, and the highest score wins. A program without a solid
//! is only chosen if no program has one. Ties go to the program with the higher log-probability,
//! then to the one that was written earlier.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cadwright_rewards::{CommonGrid, Solid, normalise_program};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::look::Look;

/// A way to choose one of several programs. Only `Truth` needs the ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The solid whose render is the most like the picture; see [`Look`].
    Image,
    /// The solid that is the most like those of the other programs: the medoid under IoU.
    Consensus,
    /// The completion with the highest mean log-probability of a token.
    Logprob,
    /// The highest IoU with the ground truth. This is the oracle: the best that a choice can be.
    Truth,
}

impl Select {
    /// The name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Consensus => "consensus",
            Self::Logprob => "logprob",
            Self::Truth => "truth",
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a choice knows of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Whether the program builds a solid.
    pub is_valid: bool,
    /// Its score by the way to choose. Only the order matters.
    pub score: f64,
    /// Mean log-probability of a token of its completion, in nats.
    pub logprob: f64,
}

/// The index of the best candidate, by the rules of the [module](self); `None` if there is none.
pub fn chosen(candidates: &[Candidate]) -> Option<usize> {
    let by_rank = |a: &Candidate, b: &Candidate| {
        a.is_valid.cmp(&b.is_valid).then(a.score.total_cmp(&b.score)).then(a.logprob.total_cmp(&b.logprob))
    };
    // Of several maxima, `max_by` takes the last one.
    (0..candidates.len()).rev().max_by(|&a, &b| by_rank(&candidates[a], &candidates[b]))
}

/// A program, and the solid that it builds.
#[derive(Debug, Clone, Copy)]
pub struct Built<'a> {
    /// The program.
    pub program: &'a str,
    /// Its solid; `None` if it builds none.
    pub solid: Option<&'a Solid>,
}

/// How much the solid of each program looks like the picture, in [0, 1]; 0 for a program without a
/// solid.
pub fn image_scores(look: &Look, programs: &[Built]) -> Vec<f64> {
    let (solids, classes) = distinct(programs);
    let scores = for_each(&solids, |solid| look.score(solid).score);
    classes.into_iter().map(|class| class.and_then(|class| scores[class]).unwrap_or(0.0)).collect()
}

/// Cells along each axis of the grid on which programs are compared with each other.
const CELLS: usize = 64;

/// IoU of the solid of each program with that of each other one, all in the programs' own
/// coordinates: a symmetric matrix. A program without a solid has 0 with all, itself included.
/// Equal programs have 1.
pub fn mutual_ious(programs: &[Built]) -> Vec<Vec<f64>> {
    let (solids, classes) = distinct(programs);
    let bounds: Vec<_> = solids.iter().map(|solid| *solid.bounds()).collect();
    let grid = CommonGrid::new(CELLS, &bounds);
    let occupied = for_each(&solids, |solid| grid.occupied(solid));
    let iou = |a: usize, b: usize| match (&occupied[a], &occupied[b]) {
        _ if a == b => 1.0,
        (Some(a), Some(b)) => a.iou(b),
        _ => 0.0,
    };
    let of_solids: Vec<Vec<f64>> =
        (0..solids.len()).into_par_iter().map(|a| (0..solids.len()).map(|b| iou(a, b)).collect()).collect();
    let of_classes = |a: Option<usize>, b: Option<usize>| a.zip(b).map_or(0.0, |(a, b)| of_solids[a][b]);
    classes.iter().map(|&a| classes.iter().map(|&b| of_classes(a, b)).collect()).collect()
}

/// The mean IoU of each program of `among` with all of them, itself included. A program that was
/// written several times weighs as often. The highest value is that of the medoid.
///
/// # Panics
/// If `ious`, which [`mutual_ious`] gives, has fewer rows or columns.
pub fn agreement(ious: &[Vec<f64>], among: Range<usize>) -> Vec<f64> {
    let count = among.len() as f64;
    ious[among.clone()].iter().map(|row| row[among.clone()].iter().sum::<f64>() / count).collect()
}

/// The solids of different programs, and for each program the position of its solid among them;
/// `None` if it has none.
fn distinct<'a>(programs: &[Built<'a>]) -> (Vec<&'a Solid>, Vec<Option<usize>>) {
    let mut solids = Vec::new();
    let mut known = HashMap::new();
    let mut class = |built: &Built<'a>| {
        let solid = built.solid?;
        Some(*known.entry(normalise_program(built.program)).or_insert_with(|| {
            solids.push(solid);
            solids.len() - 1
        }))
    };
    let classes = programs.iter().map(&mut class).collect();
    (solids, classes)
}

/// `work` on each solid, on all cores. `None` if our own code panicked: then the panic is printed,
/// and the others go on.
fn for_each<T: Send>(solids: &[&Solid], work: impl Fn(&Solid) -> T + Sync) -> Vec<Option<T>> {
    solids.par_iter().map(|solid| catch_unwind(AssertUnwindSafe(|| work(solid))).ok()).collect()
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::samples::{block_mass, block_mesh};

    use super::*;

    fn candidate(is_valid: bool, score: f64, logprob: f64) -> Candidate {
        Candidate { is_valid, score, logprob }
    }

    /// The block from 0 to `size`.
    fn block(size: [f64; 3]) -> Solid {
        Solid::meshed(block_mass([0.0; 3], size), block_mesh([0.0; 3], size), 1, false)
    }

    #[test]
    fn the_highest_score_is_chosen_and_a_program_without_a_solid_never_beats_one_with() {
        let low = candidate(true, 0.0, -9.0);
        assert_eq!(chosen(&[low, candidate(true, 0.5, -9.0), candidate(true, 0.4, -1.0)]), Some(1));
        assert_eq!(chosen(&[candidate(false, 1.0, 0.0), low]), Some(1));
        assert_eq!(chosen(&[candidate(false, 0.0, -2.0), candidate(false, 0.0, -1.0)]), Some(1));
    }

    #[test]
    fn ties_go_to_the_likelier_then_to_the_earlier() {
        let tied = candidate(true, 0.5, -1.0);
        assert_eq!(chosen(&[tied, candidate(true, 0.5, -0.5), tied]), Some(1));
        assert_eq!(chosen(&[candidate(true, 0.1, 0.0), tied, tied]), Some(1));
        assert_eq!(chosen(&[]), None);
    }

    /// Bars of height 2, 3, 4 and 8 on the same base: IoUs are ratios of heights. A failure stands
    /// among them.
    #[test]
    fn the_medoid_is_the_program_that_is_most_like_all_others() {
        let solids = [2.0, 3.0, 4.0, 8.0].map(|height| block([1.0, 1.0, height]));
        let mut programs: Vec<Built> = solids
            .iter()
            .zip(["2", "3", "4", "8"])
            .map(|(solid, program)| Built { program, solid: Some(solid) })
            .collect();
        programs.insert(1, Built { program: "x", solid: None });
        let ious = mutual_ious(&programs);
        let found = agreement(&ious, 0..5);
        // 2: 1 + 2/3 + 2/4 + 2/8; 3: 2/3 + 1 + 3/4 + 3/8; 4: 2/4 + 3/4 + 1 + 4/8; 8: 2/8 + 3/8 + 4/8 + 1.
        let expected = [29.0 / 12.0, 0.0, 67.0 / 24.0, 11.0 / 4.0, 17.0 / 8.0].map(|sum| sum / 5.0);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.005, "{found} is not {expected}");
        }
        // Without the first two: 3: 1 + 3/4 + 3/8; 4: 3/4 + 1 + 4/8; 8: 3/8 + 4/8 + 1.
        let found = agreement(&ious, 2..5);
        for (found, expected) in found.iter().zip([17.0 / 24.0, 18.0 / 24.0, 15.0 / 24.0]) {
            assert!((found - expected).abs() < 0.005, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_program_weighs_as_often_as_it_was_written_and_white_space_makes_no_other() {
        let [small, large] = [1.0, 4.0].map(|height| block([1.0, 1.0, height]));
        let of = |program: &'static str, solid| Built { program, solid: Some(solid) };
        let programs = [of("small", &small), of("large", &large), of(" large\n", &large), of("large", &large)];
        let (solids, classes) = distinct(&programs);
        assert_eq!((solids.len(), classes), (2, vec![Some(0), Some(1), Some(1), Some(1)]));
        let found = agreement(&mutual_ious(&programs), 0..4);
        for (found, expected) in found.iter().zip([1.75 / 4.0, 3.25 / 4.0, 3.25 / 4.0, 3.25 / 4.0]) {
            assert!((found - expected).abs() < 0.005, "{found} is not {expected}");
        }
    }

    #[test]
    fn nothing_and_only_failures_agree_on_nothing() {
        assert_eq!(mutual_ious(&[]), Vec::<Vec<f64>>::new());
        assert_eq!(agreement(&[], 0..0), Vec::<f64>::new());
        let failed = Built { program: "x", solid: None };
        assert_eq!(agreement(&mutual_ious(&[failed; 2]), 0..2), [0.0, 0.0]);
    }

    #[test]
    fn a_panic_on_one_program_leaves_the_others() {
        let [small, large] = [1.0, 4.0].map(|height| block([1.0, 1.0, height]));
        let height = |solid: &Solid| match solid.bounds().max[2] {
            4.0 => panic!("too large"),
            height => height,
        };
        assert_eq!(for_each(&[&small, &large], height), [Some(1.0), None]);
    }
}
