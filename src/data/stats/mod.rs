//! What is in a data set: counts, lengths, the outcome of every program, duplicates by geometry.

mod duplicates;
mod sheet;

use std::collections::BTreeMap;

use cadwright_rewards::Frame;
use cadwright_rollout::{Answer, Scorer};
use rayon::prelude::*;
use serde::Serialize;

use super::image::decode_rgb;
use super::{Dataset, Example, Split};
use duplicates::{Part, Signature};

pub use duplicates::{Duplicates, SAME_IOU};
pub use sheet::contact_sheet;

/// What is known of a data set.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// By split.
    pub splits: BTreeMap<Split, SplitStats>,
    /// Parts of the same geometry, by the frame in which they are equal: in the programs' own
    /// coordinates, and whatever their place and size.
    pub duplicates: BTreeMap<Frame, Duplicates>,
}

/// What is known of a split.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SplitStats {
    /// Usable rows.
    pub parts: usize,
    /// Rows that cannot be used, by reason.
    pub skipped: BTreeMap<String, usize>,
    /// Rows with a program.
    pub programs: usize,
    /// Rows with a shape of their own, which is their ground truth.
    pub shapes: usize,
    /// Pictures by size, `width x height` in pixels.
    pub pictures: BTreeMap<String, usize>,
    /// Length of the programs in characters.
    pub characters: Option<Quantiles>,
    /// Length of the programs in tokens, the end of the turn included. `None` without a tokenizer.
    pub tokens: Option<Quantiles>,
    /// Length of prompt and program in tokens. `None` without a tokenizer.
    pub sequence_tokens: Option<Quantiles>,
    /// What limits cut. `None` without a tokenizer.
    pub cut: Option<Cut>,
    /// Programs without a plan, although the prompt expects one: they are not learned from.
    pub without_plan: usize,
    /// Ground truths by outcome.
    pub outcomes: BTreeMap<&'static str, usize>,
    /// Ground truths by the engine that answered.
    pub engines: BTreeMap<&'static str, usize>,
    /// Why the native engine handed programs on.
    pub declined: BTreeMap<String, usize>,
    /// Solids that OpenCASCADE calls invalid.
    pub malformed: usize,
    /// Ground truths without a solid: the first ones.
    pub failures: Vec<Failure>,
}

/// Programs that do not fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// `generate.max_new_tokens`.
    pub max_new_tokens: usize,
    /// Programs of more tokens, which no completion can write to its end.
    pub over_max_new_tokens: usize,
    /// `sft.max_length`.
    pub max_length: usize,
    /// Rows of more tokens, which SFT leaves out.
    pub over_max_length: usize,
}

/// A ground truth without a solid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Id of the part.
    pub id: String,
    /// Class of the outcome.
    pub outcome: &'static str,
    /// Why there is no solid.
    pub error: String,
}

/// The number of failures that are named.
const NAMED: usize = 50;

/// Smallest and largest of some numbers, mean, and percentiles: of `n` sorted numbers, that of `p` %
/// is number `ceil(p n / 100)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Quantiles {
    pub min: usize,
    pub p5: usize,
    pub p25: usize,
    pub median: usize,
    pub p75: usize,
    pub p95: usize,
    pub p99: usize,
    pub max: usize,
    pub mean: f64,
}

impl Quantiles {
    /// Those of `numbers`; `None` if there are none.
    pub fn of(mut numbers: Vec<usize>) -> Option<Self> {
        numbers.sort_unstable();
        let (first, last) = (*numbers.first()?, *numbers.last()?);
        let at = |percent: usize| numbers[(percent * numbers.len()).div_ceil(100).max(1) - 1];
        let mean = numbers.iter().sum::<usize>() as f64 / numbers.len() as f64;
        let (p5, p25, median, p75, p95, p99) = (at(5), at(25), at(50), at(75), at(95), at(99));
        Some(Self { min: first, p5, p25, median, p75, p95, p99, max: last, mean })
    }
}

/// Lengths of a row in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLengths {
    /// Those of the prompt, with its picture.
    pub prompt: usize,
    /// Those of the answer that is learned. `None` if the prompt expects a plan and the program has
    /// none.
    pub response: Option<usize>,
}

/// The lengths of a row with pictures of these widths and heights, and with this program.
pub type CountTokens<'a> = dyn Fn(&[(u32, u32)], &str) -> TokenLengths + Sync + 'a;

/// Counts the tokens of a row with a program.
pub struct TokenCounter<'a> {
    /// Counts them.
    pub count: &'a CountTokens<'a>,
    /// `generate.max_new_tokens`.
    pub max_new_tokens: usize,
    /// `sft.max_length`.
    pub max_length: usize,
}

/// Measures the splits of a data set on the threads of `scorer`, which executes every ground truth.
///
/// # Errors
/// The scorer cannot go on.
pub fn measure(
    splits: &[(Split, Dataset)],
    scorer: &Scorer,
    tokens: Option<&TokenCounter>,
) -> cadwright_rollout::Result<Stats> {
    let mut stats = Stats { splits: BTreeMap::new(), duplicates: BTreeMap::new() };
    let mut parts = Vec::new();
    for (split, dataset) in splits {
        let rows = scorer.install(|| {
            let row = |example: &Example| Row::of(example, scorer, tokens);
            dataset.examples().par_iter().map(row).collect::<cadwright_rollout::Result<Vec<_>>>()
        })?;
        stats.splits.insert(*split, summary(dataset, &rows, tokens));
        let signed = dataset.examples().iter().zip(rows);
        parts.extend(signed.map(|(example, row)| Part { split: *split, example, signature: row.signature }));
    }
    for frame in [Frame::Canonical, Frame::Normalised] {
        let found = scorer.install(|| duplicates::find(&parts, frame, scorer))?;
        stats.duplicates.insert(frame, found);
    }
    Ok(stats)
}

/// What is known of a row.
struct Row {
    pictures: Vec<(u32, u32)>,
    tokens: Option<TokenLengths>,
    signature: Option<Signature>,
    malformed: bool,
    outcome: &'static str,
    engine: &'static str,
    declined: Option<String>,
    error: Option<String>,
}

impl Row {
    fn of(example: &Example, scorer: &Scorer, counter: Option<&TokenCounter>) -> cadwright_rollout::Result<Self> {
        let size = |bytes: &[u8]| decode_rgb(bytes).map_or((0, 0), |picture| picture.dimensions());
        let pictures: Vec<(u32, u32)> = example.pictures().map(size).collect();
        let program = example.program.as_deref();
        let tokens = counter.zip(program).map(|(counter, program)| (counter.count)(&pictures, program));
        let answer: Answer = scorer.ground_truth(&example.ground_truth)?;
        Ok(Self {
            pictures,
            tokens,
            signature: answer.solid().and_then(|solid| Signature::of(solid)),
            malformed: answer.solid().is_some_and(|solid| solid.malformed),
            outcome: answer.verdict().name(),
            engine: answer.engine.name(),
            error: answer.solid().is_none().then(|| answer.error().unwrap_or_default()),
            declined: answer.declined.map(|declined| declined.to_string()),
        })
    }
}

fn summary(dataset: &Dataset, rows: &[Row], counter: Option<&TokenCounter>) -> SplitStats {
    let mut stats = SplitStats { parts: dataset.len(), ..SplitStats::default() };
    for skipped in &dataset.skipped {
        let reason = skipped.reason.to_string();
        // Without what differs from row to row.
        let kind = reason.split([':', '=']).next().unwrap_or_default().trim().to_owned();
        *stats.skipped.entry(kind).or_default() += 1;
    }
    let (mut characters, mut tokens, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
    for (example, row) in dataset.examples().iter().zip(rows) {
        stats.shapes += usize::from(example.ground_truth.shape().is_some());
        stats.malformed += usize::from(row.malformed);
        for (width, height) in &row.pictures {
            *stats.pictures.entry(format!("{width} x {height}")).or_default() += 1;
        }
        *stats.outcomes.entry(row.outcome).or_default() += 1;
        *stats.engines.entry(row.engine).or_default() += 1;
        if let Some(declined) = &row.declined {
            *stats.declined.entry(declined.clone()).or_default() += 1;
        }
        if let Some(error) = row.error.as_ref().filter(|_| stats.failures.len() < NAMED) {
            let (id, error) = (example.id.clone(), error.clone());
            stats.failures.push(Failure { id, outcome: row.outcome, error });
        }
        if let Some(program) = &example.program {
            stats.programs += 1;
            characters.push(program.chars().count());
        }
        match row.tokens {
            Some(TokenLengths { prompt, response: Some(response) }) => {
                tokens.push(response);
                sequences.push(prompt + response);
            }
            Some(TokenLengths { response: None, .. }) => stats.without_plan += 1,
            None => {}
        }
    }
    stats.cut = counter.map(|counter| Cut {
        max_new_tokens: counter.max_new_tokens,
        over_max_new_tokens: tokens.iter().filter(|&&count| count > counter.max_new_tokens).count(),
        max_length: counter.max_length,
        over_max_length: sequences.iter().filter(|&&count| count > counter.max_length).count(),
    });
    stats.characters = Quantiles::of(characters);
    stats.tokens = Quantiles::of(tokens);
    stats.sequence_tokens = Quantiles::of(sequences);
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let of = Quantiles::of((1..=200).rev().collect()).unwrap();
        assert_eq!(
            (of.min, of.p5, of.p25, of.median, of.p75, of.p95, of.p99, of.max),
            (1, 10, 50, 100, 150, 190, 198, 200)
        );
        assert!((of.mean - 100.5).abs() < 1e-12);
        let one = Quantiles::of(vec![7]).unwrap();
        assert_eq!((one.min, one.p5, one.p99, one.max), (7, 7, 7, 7));
        assert_eq!(Quantiles::of(vec![]), None);
    }
}
