//! Writes predictions in the layouts that others take.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Evaluation;
use crate::files::write_whole;

/// The inputs that CADBench has tables for.
pub const MODALITIES: [&str; 5] = ["singleview", "multiview", "pbr", "mesh", "noisy_mesh"];

/// Checks what [`Evaluation::export_cadbench`] will need, before the work of an evaluation.
///
/// # Errors
/// A subset that is none of CADBench's, or an unknown modality.
pub fn check_cadbench(modality: &str, subset: &str) -> Result<()> {
    ensure!(MODALITIES.contains(&modality), "--export-modality {modality}: CADBench has {}", MODALITIES.join(", "));
    ensure!(
        subset.starts_with("bench"),
        "CADBench's files are named by its subsets (benchB, benchF, ..), and this split is called {subset:?}: name the subset with --set data.splits.test=benchB"
    );
    Ok(())
}

impl Evaluation {
    /// Writes the programs as CADBench's leaderboard takes them: `<modality>/r<i>/<subset>.jsonl`
    /// below `directory`, a row `{"file_id", "generated"}` for each part, a file for each sample: the
    /// i-th run. The layout is in the README of <https://github.com/anniedoris/CADBench>, step 2,
    /// at 6a256fe. Returns the files.
    ///
    /// # Errors
    /// See [`check_cadbench`]; or a file cannot be written.
    pub fn export_cadbench(&self, directory: &Path, modality: &str, subset: &str) -> Result<Vec<PathBuf>> {
        check_cadbench(modality, subset)?;
        let samples = self.report.samples_per_image;
        let write = |sample: usize| {
            let row = |part: &[super::predict::Prediction]| {
                format!("{}\n", json!({"file_id": part[sample].id, "generated": part[sample].program}))
            };
            let rows: String = self.predictions.chunks(samples).map(row).collect();
            let run = directory.join(modality).join(format!("r{}", sample + 1));
            std::fs::create_dir_all(&run).with_context(|| format!("cannot create {}", run.display()))?;
            let path = run.join(format!("{subset}.jsonl"));
            write_whole(&path, &rows)?;
            Ok(path)
        };
        (0..samples).map(write).collect()
    }
}
