//! `cadwright data stats`

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use cadwright::config::Config;
use cadwright::data::stats::{
    Duplicates, Quantiles, SAME_IOU, SplitStats, Stats, TokenCounter, TokenLengths, contact_sheet, measure,
};
use cadwright::data::{DataError, DataSource, Dataset, Selection, Split, encode_png, open_dataset};
use cadwright::files::{prepare_parent, write_whole};
use cadwright::model::{InternVlConfig, Prompt, Tokenizer};
use cadwright::pictures::image_tokens;
use cadwright::policy::{PolicyPath, configured_prompt};
use cadwright::train::examples::response_ids;
use cadwright_rewards::Frame;
use cadwright_rollout::files::write_whole as write_bytes;
use cadwright_rollout::{Scorer, top_reasons};
use clap::Args;
use serde_json::json;

use super::super::{ConfigArgs, text_override};

#[derive(Args)]
pub struct StatsArgs {
    /// A directory or file of parquet or JSONL, a folder of files, or a dataset id on the hub. [data]
    /// of the configuration names its columns, splits and folders
    #[arg(value_name = "DATA")]
    data: String,
    /// Checkpoint directory or hub id whose tokenizer counts tokens (model.path). Without one,
    /// lengths are in characters
    #[arg(long, value_name = "MODEL")]
    model_path: Option<String>,
    /// File for a contact sheet, as PNG
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    /// Pictures of each split on the contact sheet
    #[arg(long, value_name = "N", default_value_t = 48)]
    contact_count: usize,
    /// File for all numbers, and the ids of all duplicates
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &StatsArgs) -> Result<()> {
    let flags = args.model_path.iter().map(|path| text_override("model.path", path)).collect();
    let config = args.config.load(flags)?;
    args.json.iter().chain(&args.contact_sheet).try_for_each(|path| prepare_parent(path))?;
    let splits = splits(&config.data.named_source(&args.data))?;
    let lengths = if config.model.path.is_empty() { None } else { Some(Lengths::of(&config)?) };
    let cache_dir = Some(config.rollout.cache_dir.clone()).filter(|path| !path.as_os_str().is_empty());
    let frames = [Frame::Canonical, Frame::Normalised];
    let scorer = Scorer::new(config.scorer(config.rollout.engine, config.rollout.grid, &frames, cache_dir))?;
    let count = |sizes: &[(u32, u32)], program: &str| {
        lengths.as_ref().map_or(TokenLengths { prompt: 0, response: None }, |lengths| lengths.count(sizes, program))
    };
    let (max_new_tokens, max_length) = (config.generate.max_new_tokens, config.sft.max_length);
    let counter = TokenCounter { count: &count, max_new_tokens, max_length };
    let stats = measure(&splits, &scorer, lengths.is_some().then_some(&counter))?;
    print(&stats);
    if let Some(path) = &args.json {
        write_json(path, &args.data, &config, &stats)?;
    }
    if let Some(path) = &args.contact_sheet {
        let sheet = contact_sheet(&splits, args.contact_count);
        write_bytes(path, &encode_png(&sheet)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The splits that the source has.
pub(super) fn splits(source: &DataSource) -> Result<Vec<(Split, Dataset)>> {
    let (mut found, mut missing) = (Vec::new(), None);
    for split in Split::ALL {
        match open_dataset(source, Selection::all(split)) {
            Ok(dataset) => found.push((split, dataset)),
            Err(error @ (DataError::MissingSplit { .. } | DataError::EmptySplit { .. })) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match missing {
        Some(error) if found.is_empty() => bail!(error),
        _ => Ok(found),
    }
}

/// What counts the tokens of a row.
struct Lengths {
    tokenizer: Tokenizer,
    prompt: Prompt,
    model: InternVlConfig,
    max_tiles: usize,
    /// Lengths of prompts by the numbers of embeddings of their pictures.
    prompts: Mutex<HashMap<Vec<usize>, usize>>,
}

impl Lengths {
    fn of(config: &Config) -> Result<Self> {
        let path = PolicyPath::resolve((&config.model.path, &config.model.revision), None)?;
        let checkpoint = &path.checkpoint;
        let prompt = match path.trained_prompt()? {
            Some(prompt) => prompt,
            None => configured_prompt(config, Some(checkpoint))?,
        };
        let (tokenizer, model) = (Tokenizer::load(checkpoint)?, InternVlConfig::read(checkpoint)?);
        let prompts = Mutex::default();
        Ok(Self { tokenizer, prompt, model, max_tiles: config.model.max_tiles, prompts })
    }

    /// Lengths of a row. Examples in the prompt count as pictures of the row's size without programs.
    fn count(&self, sizes: &[(u32, u32)], program: &str) -> TokenLengths {
        let examples = std::iter::repeat_n(&sizes[0], self.prompt.pictures() - 1);
        let tokens = |size: &(u32, u32)| image_tokens(&self.model, self.max_tiles, *size);
        let tokens: Vec<usize> = examples.chain(sizes).map(tokens).collect();
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        let length = |tokens: &Vec<usize>| self.tokenizer.encode(&self.prompt.text(tokens)).len();
        let prompt = *prompts.entry(tokens).or_insert_with_key(length);
        drop(prompts);
        let response = response_ids(&self.prompt, &self.tokenizer, program).map(|ids| ids.len());
        TokenLengths { prompt, response }
    }
}

fn write_json(path: &Path, data: &str, config: &Config, stats: &Stats) -> Result<()> {
    let json = json!({
        "data": data,
        "model": config.model.path,
        "same_iou": SAME_IOU,
        "splits": stats.splits,
        "duplicates": stats.duplicates,
    });
    write_whole(path, &format!("{json:#}\n"))
}

fn print(stats: &Stats) {
    for (split, numbers) in &stats.splits {
        print_split(*split, numbers);
    }
    for (frame, duplicates) in &stats.duplicates {
        print_duplicates(*frame, duplicates);
    }
}

fn print_split(split: Split, numbers: &SplitStats) {
    let SplitStats { parts, programs, shapes, .. } = numbers;
    println!("{split}: {parts} parts, {programs} with a program, {shapes} with a shape of their own");
    let row = |name: &str, text: String| println!("  {name:<12} {text}");
    let counts = |counts: Vec<(String, usize)>| {
        let texts: Vec<String> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        texts.join(", ")
    };
    let named = |map: &BTreeMap<&'static str, usize>| {
        counts(map.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    };
    if !numbers.skipped.is_empty() {
        row("unusable", counts(numbers.skipped.clone().into_iter().collect()));
    }
    row("pictures", top_reasons(&numbers.pictures));
    row("outcomes", format!("{} ({})", named(&numbers.outcomes), named(&numbers.engines)));
    if !numbers.declined.is_empty() {
        row("declined", top_reasons(&numbers.declined));
    }
    if numbers.malformed > 0 {
        row("malformed", format!("{} solids that OpenCASCADE calls invalid", numbers.malformed));
    }
    if let Some(failure) = numbers.failures.first() {
        row("no solid", format!("the first: {}: {}: {}", failure.id, failure.outcome, failure.error));
    }
    let lengths =
        [("characters", &numbers.characters), ("tokens", &numbers.tokens), ("with prompt", &numbers.sequence_tokens)];
    for (name, quantiles) in lengths {
        if let Some(quantiles) = quantiles {
            row(name, text_of(quantiles));
        }
    }
    if let Some(cut) = &numbers.cut {
        let (a, b) = (cut.over_max_new_tokens, cut.over_max_length);
        let limits = format!("{a} programs are longer than generate.max_new_tokens = {}", cut.max_new_tokens);
        row("cut", format!("{limits}, {b} rows than sft.max_length = {}", cut.max_length));
    }
    if numbers.without_plan > 0 {
        row("no plan", format!("{} programs have no plan, which the prompt expects", numbers.without_plan));
    }
}

fn text_of(quantiles: &Quantiles) -> String {
    let Quantiles { min, p5, median, p95, p99, max, mean, .. } = quantiles;
    format!("min {min}, 5 % {p5}, median {median}, 95 % {p95}, 99 % {p99}, max {max}, mean {mean:.1}")
}

fn print_duplicates(frame: Frame, duplicates: &Duplicates) {
    let place = match frame {
        Frame::Canonical => "in place (canonical)",
        _ => "wherever and of whatever size (normalised)",
    };
    println!("the same shape, {place}, IoU > {SAME_IOU}: {} shapes with several parts", duplicates.shapes);
    for (split, count) in &duplicates.within {
        println!("  within {split}: {count} parts repeat an earlier one");
    }
    for overlap in duplicates.across.iter().filter(|overlap| overlap.of > overlap.also_in) {
        println!("  {}: {} parts have a shape that is in {} too", overlap.of, overlap.parts, overlap.also_in);
    }
    if let Some(leak) = duplicates.leaks.first() {
        let texts: Vec<String> = leak.iter().map(|(split, ids)| format!("{split} {}", ids.join(" "))).collect();
        println!("  the first across splits: {}; --json FILE lists all", texts.join("; "));
    }
}
