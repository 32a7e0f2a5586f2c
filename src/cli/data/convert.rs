//! `cadwright data convert`

use std::path::PathBuf;

use anyhow::Result;
use cadwright::data::convert::{Form, convert, lost};
use clap::Args;

use super::super::ConfigArgs;
use super::stats::splits;

#[derive(Args)]
pub struct ConvertArgs {
    /// What is read: a directory or file of parquet or JSONL, a folder of files, or a dataset id on
    /// the hub. [data] of the configuration names its columns, splits and folders
    #[arg(long, value_name = "DATA")]
    from: String,
    /// Directory for the new data set; it must be empty or absent
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The form of the new data set
    #[arg(long, value_enum)]
    form: Form,
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &ConvertArgs) -> Result<()> {
    let config = args.config.load(Vec::new())?;
    let splits = splits(&config.data.named_source(&args.from))?;
    for (what, count) in lost(&splits, args.form) {
        eprintln!("data convert: a folder has no place for {what}: {count} rows lose it");
    }
    convert(&splits, &config.data.views, args.form, &args.to)?;
    for (split, dataset) in &splits {
        println!("{split}: {} parts", dataset.len());
    }
    let settings = match args.form {
        Form::Parquet => "data.source=parquet",
        Form::Jsonl => "data.source=jsonl",
        Form::Folder => "data.source=folder data.folder.split_by=directory data.folder.match_by=path",
    };
    let views = match config.data.views.as_slice() {
        [] => String::new(),
        views => format!(" data.views={views:?}"),
    };
    println!("to train on it: {settings}{views} data.path={}", args.to.display());
    Ok(())
}
