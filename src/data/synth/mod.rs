//! Synthetic parts: random sketch-extrude programs in GenCAD-Code's statement forms, with their
//! pictures.
//!
//! Parts are drawn on an integer lattice. So texts are short, contacts are exact, and room for a
//! feature can be checked cell by cell. Arcs are half circles, flat arches and corners of 3-4-5
//! triangles: the three points of each lie on the lattice. The rules in `base` and `features` leave
//! one natural program for each picture.
//!
//! The draw of a part depends only on the seed and its index, so the data set is the same for any
//! number of threads.

mod base;
mod candidate;
mod cells;
mod error;
mod features;
mod numbers;
mod part;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use cadwright_rewards::csg::CsgSolid;
use cadwright_rollout::files::write_whole;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::parquet::{Row, ShardWriter};
use super::render::render_csg;
use super::{Split, encode_png};
use candidate::Candidate;
use numbers::{lexical_length, numbers_in};

pub use error::SynthError;
pub use numbers::Numbers;

type Dice = rand_chacha::ChaCha8Rng;

/// Rows in a row group; their pictures are in memory at the same time.
const GROUP: usize = 512;

/// The instruction that every row of GenCAD-Code carries.
pub const PROMPT: &str =
    "Generate the CADQuery code needed to create the CAD for the provided image. Just the code, no other words.";

/// Options of the generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SynthConfig {
    /// Number of parts over all splits.
    pub count: usize,
    /// Seed of all draws.
    pub seed: u64,
    /// Directory for the parquet files and `parts.jsonl`. It must not hold a data set yet.
    pub output: PathBuf,
    /// Cells per unit length; a multiple of 16, at least 32. Coordinates are multiples of
    /// `1 / grid`.
    pub grid: u32,
    /// The form of numbers in programs.
    pub numbers: Numbers,
    /// Side of the pictures in pixels.
    pub image_size: u32,
    /// Parts of the validation split; by default 5 % of `count`.
    pub validation_count: Option<usize>,
    /// Parts of the test split; by default 5 % of `count`.
    pub test_count: Option<usize>,
    /// Threads; 0 for one for each processor.
    pub jobs: usize,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            count: 20_000,
            seed: 0,
            output: PathBuf::from("data/synth"),
            grid: 32,
            numbers: Numbers::Short,
            image_size: 448,
            validation_count: None,
            test_count: None,
            jobs: 0,
        }
    }
}

/// A summary of the generated parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SynthSummary {
    /// Parts in each split.
    pub splits: BTreeMap<String, usize>,
    /// Parts by their first body.
    pub families: BTreeMap<String, usize>,
    /// Further bodies by kind.
    pub features: BTreeMap<String, usize>,
    /// Parts by number of bodies: `operations[n]` parts have `n`.
    pub operations: BTreeMap<usize, usize>,
    /// Mean number of numbers in a program.
    pub numbers_per_program: f64,
    /// Different numbers in all programs.
    pub distinct_numbers: usize,
    /// Draws that gave no part.
    pub rejected: usize,
    /// Draws that repeated an earlier shape, even if by another program.
    pub duplicates: usize,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// A part in memory.
#[derive(Debug, Clone)]
pub struct SynthPart {
    /// Its id in a data set.
    pub id: String,
    /// The program.
    pub program: String,
    /// The solid that the program builds.
    pub solid: CsgSolid,
    /// The first body.
    pub family: &'static str,
    /// Number of bodies.
    pub operations: usize,
}

/// Draws `config.count` different parts without writing anything. They are those that [`generate`]
/// would write, in the order test, validation, train.
///
/// # Errors
/// An option has an unusable value, or there are not enough different parts.
pub fn draw_parts(config: &SynthConfig) -> Result<Vec<SynthPart>, SynthError> {
    split_sizes(config)?;
    let candidates = thread_pool(config)?.install(|| draw_distinct(config, &mut SynthSummary::default()))?;
    candidates
        .into_iter()
        .map(|(index, candidate)| {
            Ok(SynthPart {
                id: part_id(config, index),
                solid: candidate.part.solid(&candidate.scale)?,
                program: candidate.program,
                family: candidate.family,
                operations: 1 + candidate.features.len(),
            })
        })
        .collect()
}

fn thread_pool(config: &SynthConfig) -> Result<rayon::ThreadPool, SynthError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(config.jobs)
        .build()
        .map_err(|source| SynthError::Threads { jobs: config.jobs, source })
}

/// A line of `parts.jsonl`, which describes a part for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// `deepcad_id` of the row.
    pub id: String,
    /// Split the part is in.
    pub split: String,
    /// The first body.
    pub family: String,
    /// The further bodies.
    pub features: Vec<String>,
    /// Number of bodies.
    pub operations: usize,
}

/// Generates a data set: `test-`, `validation-` and `train-00000-of-00001.parquet`, and
/// `parts.jsonl`.
///
/// The first parts drawn are the test split, the next ones the validation split. So with more parts
/// and the same seed these two splits stay the same. No program occurs twice.
///
/// # Errors
/// See [`SynthError`].
pub fn generate(config: &SynthConfig) -> Result<SynthSummary, SynthError> {
    let started = std::time::Instant::now();
    let [test, validation, train] = split_sizes(config)?;
    let pool = thread_pool(config)?;
    // The writers are made before the work, so that an unusable directory is found at once.
    let sizes = [(Split::Test, test), (Split::Validation, validation), (Split::Train, train)];
    let writers = sizes
        .into_iter()
        .filter(|(_, size)| *size > 0)
        .map(|(split, size)| Ok((split, size, ShardWriter::create(&config.output, split)?)))
        .collect::<Result<Vec<_>, SynthError>>()?;
    let mut summary = SynthSummary::default();
    let candidates = pool.install(|| draw_distinct(config, &mut summary))?;
    count_numbers(&candidates, &mut summary);
    let mut records = Vec::with_capacity(candidates.len());
    let mut rest = &candidates[..];
    let mut complete = Vec::new();
    for (split, size, mut writer) in writers {
        let (chosen, others) = rest.split_at(size);
        rest = others;
        for (group, numbered) in chosen.chunks(GROUP).enumerate() {
            let rows = pool.install(|| {
                numbered
                    .par_iter()
                    .enumerate()
                    .map(|(position, part)| row(config, split, group * GROUP + position, part))
                    .collect::<Result<Vec<_>, _>>()
            })?;
            writer.write(&rows)?;
        }
        summary.splits.insert(split.name().to_owned(), size);
        records.extend(chosen.iter().map(|part| record(config, split, part)));
        complete.push(writer.close()?);
    }
    // All files get their names at the end, once all are complete.
    write_records(&config.output, &records)?;
    for file in complete {
        file.publish()?;
    }
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

fn split_sizes(config: &SynthConfig) -> Result<[usize; 3], SynthError> {
    if config.grid < 32 || !config.grid.is_multiple_of(16) {
        return Err(SynthError::Config {
            field: "grid",
            found: config.grid.to_string(),
            expected: "a multiple of 16, at least 32".to_owned(),
        });
    }
    if !(16..=4096).contains(&config.image_size) {
        return Err(SynthError::Config {
            field: "image_size",
            found: config.image_size.to_string(),
            expected: "from 16 to 4096 pixels".to_owned(),
        });
    }
    let share = config.count / 20;
    let test = config.test_count.unwrap_or(share);
    let validation = config.validation_count.unwrap_or(share);
    let train = config.count.checked_sub(test + validation).ok_or_else(|| SynthError::Config {
        field: "count",
        found: config.count.to_string(),
        expected: format!("at least validation_count + test_count = {validation} + {test}"),
    })?;
    Ok([test, validation, train])
}

/// The first `count` parts of different shapes, with their indices. So no split holds a part of
/// another.
fn draw_distinct(config: &SynthConfig, summary: &mut SynthSummary) -> Result<Vec<(u64, Candidate)>, SynthError> {
    const BATCH: u64 = 4096;
    let mut found = Vec::with_capacity(config.count);
    let mut shapes: HashSet<[u8; 32]> = HashSet::with_capacity(config.count);
    let limit = 200 * config.count as u64 + 100_000;
    let mut next = 0;
    while found.len() < config.count {
        if next >= limit {
            return Err(SynthError::Exhausted {
                found: found.len(),
                expected: config.count,
                draws: next,
                grid: config.grid,
            });
        }
        let drawn = (next..next + BATCH)
            .into_par_iter()
            .map(|index| candidate::draw(config.seed, index, config.grid, config.numbers))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, candidate) in (next..).zip(drawn) {
            if found.len() == config.count {
                break;
            }
            match candidate {
                None => summary.rejected += 1,
                Some(candidate) if shapes.insert(candidate.shape) => {
                    *summary.families.entry(candidate.family.to_owned()).or_default() += 1;
                    *summary.operations.entry(1 + candidate.features.len()).or_default() += 1;
                    for feature in &candidate.features {
                        *summary.features.entry(feature.name().to_owned()).or_default() += 1;
                    }
                    found.push((index, candidate));
                }
                Some(_) => summary.duplicates += 1,
            }
        }
        next += BATCH;
    }
    Ok(found)
}

fn part_id(config: &SynthConfig, index: u64) -> String {
    format!("synth-{}-{index:07}", config.seed)
}

fn row(
    config: &SynthConfig,
    split: Split,
    position: usize,
    (index, candidate): &(u64, Candidate),
) -> Result<Row, SynthError> {
    let id = part_id(config, *index);
    let solid = candidate.part.solid(&candidate.scale)?;
    let picture = render_csg(&solid, config.image_size);
    let image = encode_png(&picture).map_err(|source| SynthError::Encode { id: id.clone(), source })?;
    Ok(Row {
        image,
        image_path: format!("{id}.png"),
        token_count: lexical_length(&candidate.program),
        program: candidate.program.clone(),
        prompt: PROMPT.to_owned(),
        // Marks the first hundred rows, as the data set marks its small public test.
        hundred_subset: split == Split::Test && position < 100,
        id,
    })
}

fn record(config: &SynthConfig, split: Split, (index, candidate): &(u64, Candidate)) -> PartRecord {
    PartRecord {
        id: part_id(config, *index),
        split: split.name().to_owned(),
        family: candidate.family.to_owned(),
        features: candidate.features.iter().map(|feature| feature.name().to_owned()).collect(),
        operations: 1 + candidate.features.len(),
    }
}

fn write_records(directory: &Path, records: &[PartRecord]) -> Result<(), SynthError> {
    let path = directory.join("parts.jsonl");
    let io = |source: std::io::Error| SynthError::Io { path: path.clone(), source };
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).map_err(|source| io(source.into()))?;
        text.push(b'\n');
    }
    write_whole(&path, &text).map_err(io)
}

fn count_numbers(candidates: &[(u64, Candidate)], summary: &mut SynthSummary) {
    let mut distinct = HashSet::new();
    let mut total = 0;
    for (_, candidate) in candidates {
        for number in numbers_in(&candidate.program) {
            total += 1;
            distinct.insert(number);
        }
    }
    summary.numbers_per_program = total as f64 / candidates.len().max(1) as f64;
    summary.distinct_numbers = distinct.len();
}
