//! The report of runs: one HTML file that needs no network and no other file. docs/report.md shows
//! what is in it.
//!
//! What a run lacks, because it was killed or had no such stage, is named in the report. Programs
//! are hostile text: they are data in a JSON block, and the page shows them as text only.

mod curves;
mod page;
mod parts;
mod results;
mod run_files;
mod solids;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;

use curves::Curve;
use parts::ShownPart;
use results::{ComparedPolicies, ShownPolicy};
use run_files::RunFiles;

/// Largest number of parts in a gallery.
pub const MOST_PARTS: usize = 1000;

/// What a report contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportOptions {
    /// Largest number of parts in the gallery.
    pub parts: usize,
    /// Whether the gallery has solids, for which CadQuery executes the programs again.
    pub solids: bool,
}

/// A report as the page reads it.
#[derive(Serialize)]
struct Document {
    version: &'static str,
    commit: &'static str,
    runs: Vec<ShownRun>,
    /// Every evaluated policy, run by run.
    policies: Vec<ShownPolicy>,
    comparisons: Vec<ComparedPolicies>,
    /// The frame of every `iou`.
    frame: Option<String>,
    /// The gallery.
    parts: Vec<ShownPart>,
    /// Number of parts from which the gallery was chosen.
    parts_total: usize,
    /// What is missing, besides what each run says.
    notes: Vec<String>,
}

/// A run as the page reads it.
#[derive(Serialize)]
struct ShownRun {
    name: String,
    path: String,
    /// `run.json`.
    about: serde_json::Value,
    /// The text of `config.toml`.
    config: String,
    /// A few keys of the configuration, in words.
    facts: Vec<(&'static str, String)>,
    stages: Vec<serde_json::Value>,
    curves: Vec<Curve>,
    missing: Vec<String>,
}

/// Makes the report of the runs in `directories` and returns its HTML.
///
/// # Errors
/// A directory that is not one of a run. Whatever else is missing or damaged is named in the report.
pub fn report(directories: &[PathBuf], options: &ReportOptions) -> Result<String> {
    ensure!(!directories.is_empty(), "a report is about at least one run directory");
    let mut runs = Vec::new();
    for directory in directories {
        runs.push(RunFiles::read(directory)?);
    }
    let names = names(directories);
    let mut notes = Vec::new();
    let (policies, comparisons) = results::results(&runs, &names, &mut notes);
    let (parts, parts_total) = parts::gallery(&runs, &policies, options, &mut notes);
    let frame = policies.first().map(|policy| policy.frame.clone());
    if policies.iter().any(|policy| Some(&policy.frame) != frame.as_ref()) {
        notes.push("The evaluations are in different frames: their IoUs cannot be compared.".to_owned());
    }
    let shown = |(run, name): (RunFiles, &String)| ShownRun {
        name: name.clone(),
        path: run.directory.display().to_string(),
        facts: run.facts(),
        stages: run.stages(),
        about: run.about,
        config: run.config_text,
        curves: run.curves,
        missing: run.missing,
    };
    let document = Document {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("CADWRIGHT_COMMIT"),
        runs: runs.into_iter().zip(&names).map(shown).collect(),
        policies,
        comparisons,
        frame,
        parts,
        parts_total,
        notes,
    };
    page::html(&document)
}

/// A name for each run: that of its directory, or the whole path where two are alike.
fn names(directories: &[PathBuf]) -> Vec<String> {
    let short = |path: &Path| {
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        whole.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let names: Vec<String> = directories.iter().map(|path| short(path)).collect();
    let is_alone = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let unique =
        |(name, path): (&String, &PathBuf)| if is_alone(name) { name.clone() } else { path.display().to_string() };
    names.iter().zip(directories).map(unique).collect()
}

/// A number with six significant digits, as many as a page shows.
fn short(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() { number } else { format!("{number:.5e}").parse().unwrap_or(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_name_are_told_apart_by_their_paths() {
        let paths = ["a/run", "b/run", "c/other"].map(PathBuf::from);
        assert_eq!(names(&paths), ["a/run", "b/run", "other"]);
    }

    #[test]
    fn numbers_keep_six_digits() {
        assert_eq!([short(0.123_456_789), short(1_234_567.0), short(0.0)], [0.123_457, 1_234_570.0, 0.0]);
    }
}
