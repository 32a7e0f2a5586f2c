//! `cadwright data`

mod convert;
mod render;
mod stats;

use std::path::PathBuf;

use anyhow::{Context, Result};
use cadwright::data::disturb::Disturbance;
use cadwright::data::image::{decode_rgb, normalise, tile_grid, tiles, to_tensor};
use cadwright::data::parquet::{Row, ShardWriter};
use cadwright::data::synth::{Numbers, SynthConfig, generate};
use cadwright::data::{DataError, DataSource, Example, Selection, Split, open_dataset};
use cadwright::model::files::write_safetensors;
use cadwright::seeds::seed;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use rayon::prelude::*;
use serde_json::json;

/// Make and inspect data
#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Make random sketch-extrude parts with their pictures, as parquet in GenCAD-Code's schema
    Synth(SynthArgs),
    /// Copy a split with disturbed pictures: other size, place, sharpness and tones, stored as JPEG
    Disturb(DisturbArgs),
    /// Write a data set in another form: parquet, JSONL, or a folder of files
    Convert(convert::ConvertArgs),
    /// Draw shapes: STL files, STEP files or programs, one or a folder of them
    Render(render::RenderArgs),
    /// Count and measure a data set: lengths, outcomes of its programs, duplicates within and across
    /// splits
    Stats(stats::StatsArgs),
    /// Write the pixel values that the model sees of a picture: InternVL's tiles, normalised, as
    /// safetensors
    Pixels(PixelsArgs),
}

/// Parses the name of a number format.
fn numbers() -> impl TypedValueParser<Value = Numbers> {
    PossibleValuesParser::new(["short", "full"]).map(|name| if name == "full" { Numbers::Full } else { Numbers::Short })
}

#[derive(Args)]
struct SynthArgs {
    /// Parts over all splits
    #[arg(long, default_value_t = 20_000)]
    count: usize,
    /// Seed of all draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for train-*.parquet, validation-*.parquet and test-*.parquet
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Coordinates are multiples of 1 / GRID
    #[arg(long, default_value_t = 32)]
    grid: u32,
    /// short: 0.25; full: the data set's long floats
    #[arg(long, value_parser = numbers(), default_value = "short")]
    numbers: Numbers,
    /// Side of the pictures in pixels
    #[arg(long, default_value_t = 448)]
    image_size: u32,
    /// Parts of the validation split; without it, 5 % of the parts
    #[arg(long)]
    validation_count: Option<usize>,
    /// Parts of the test split; without it, 5 % of the parts
    #[arg(long)]
    test_count: Option<usize>,
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

#[derive(Args)]
struct DisturbArgs {
    /// A directory or file of parquet, or a dataset id on the hub, whose rows have programs
    #[arg(long, value_name = "DATA")]
    input: String,
    /// train, validation or test
    #[arg(long, default_value = "test")]
    split: Split,
    /// Directory for the parquet file
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Seed of all draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct PixelsArgs {
    /// The picture: PNG, JPEG or WebP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// File for `pixel_values`, [tiles, 3, tile size, tile size] f32
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Largest number of tiles to cut the picture into, without the thumbnail
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=64))]
    max_tiles: u32,
    /// Side of a tile in pixels
    #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(1..=1024))]
    tile_size: u32,
    /// Leave out the small copy of the whole picture that follows several tiles
    #[arg(long)]
    no_thumbnail: bool,
}

/// Runs it.
pub fn run(args: &DataArgs) -> Result<()> {
    match &args.command {
        DataCommand::Synth(args) => synth(args),
        DataCommand::Disturb(args) => disturb(args),
        DataCommand::Convert(args) => convert::run(args),
        DataCommand::Render(args) => render::run(args),
        DataCommand::Stats(args) => stats::run(args),
        DataCommand::Pixels(args) => pixels(args),
    }
}

fn synth(args: &SynthArgs) -> Result<()> {
    let summary = generate(&SynthConfig {
        count: args.count,
        seed: args.seed,
        output: args.output.clone(),
        grid: args.grid,
        numbers: args.numbers,
        image_size: args.image_size,
        validation_count: args.validation_count,
        test_count: args.test_count,
        jobs: args.jobs,
    })?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}

fn disturb(args: &DisturbArgs) -> Result<()> {
    let selection = Selection { split: args.split, limit: None, hundred_subset_only: false };
    let dataset = open_dataset(&DataSource::named(&args.input, "main"), selection)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
    let row = |(index, example): (usize, &Example)| -> Result<Row> {
        let program = example.ground_truth.program().with_context(|| format!("{} has no program", example.id))?;
        Ok(Row {
            image: Disturbance::draw(seed(&[args.seed, index as u64])).apply(&decode_rgb(&example.image)?)?,
            image_path: format!("{}.jpg", example.id),
            token_count: 0,
            program: program.to_owned(),
            prompt: String::new(),
            hundred_subset: example.hundred_subset,
            id: example.id.clone(),
        })
    };
    let rows = dataset.examples().par_iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    let mut writer = ShardWriter::create(&args.output, args.split)?;
    writer.write(&rows)?;
    writer.close()?.publish()?;
    println!("{} pictures", rows.len());
    Ok(())
}

fn pixels(args: &PixelsArgs) -> Result<()> {
    let path = args.image.clone();
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let picture = decode_rgb(&bytes).map_err(|source| DataError::Picture { path, source })?;
    let (width, height) = picture.dimensions();
    let (columns, rows) = tile_grid(width, height, args.tile_size, args.max_tiles);
    let tiles = tiles(&picture, args.tile_size, args.max_tiles, !args.no_thumbnail);
    let pixel_values = normalise(&to_tensor(&tiles));
    write_safetensors(&args.output, [("pixel_values", &pixel_values)].into_iter())?;
    let summary = json!({
        "width": width, "height": height, "columns": columns, "rows": rows, "tiles": tiles.len(),
    });
    println!("{summary:#}");
    Ok(())
}
