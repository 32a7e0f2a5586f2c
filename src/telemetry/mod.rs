//! The log of a run: TensorBoard, `metrics.jsonl`, and one line a step on the terminal.
//! `docs/metrics.md` defines every name.

mod events;
mod progress;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use serde_json::{Map, Value, json};

use crate::failpoint;
use crate::files::write_whole;
use events::EventFile;
pub use progress::duration;
use progress::{Limits, Progress};

/// The log of one stage of a run.
pub struct Telemetry {
    stage: &'static str,
    limits: Limits,
    /// Where it is written; nowhere on all ranks but one.
    sinks: Option<Sinks>,
}

struct Sinks {
    tensorboard: EventFile,
    jsonl: BufWriter<File>,
    progress: Progress,
}

impl Telemetry {
    /// Opens `<run>/metrics.jsonl` and `<run>/tensorboard/<stage>` for a stage of `steps` steps
    /// that starts, or goes on, at `step`.
    ///
    /// Lines and points of this stage from that step on come from a run that was killed before its
    /// next checkpoint. The lines are removed from the file, and TensorBoard drops the points.
    /// TensorBoard drops points of all tags in a directory, so each stage has its own.
    ///
    /// # Errors
    /// A directory cannot be written.
    pub fn open(run_dir: &Path, stage: &'static str, step: usize, steps: usize) -> Result<Self> {
        let path = run_dir.join("metrics.jsonl");
        keep_before(&path, stage, step)?;
        let jsonl = OpenOptions::new().create(true).append(true).open(&path);
        let jsonl = BufWriter::new(jsonl.with_context(|| format!("cannot write {}", path.display()))?);
        let tensorboard = EventFile::create(&run_dir.join("tensorboard").join(stage), step)?;
        let limits = Limits { steps, max_seconds: 0.0 };
        Ok(Self { stage, limits, sinks: Some(Sinks { tensorboard, jsonl, progress: Progress::new(stage) }) })
    }

    /// A log that writes nothing, for the ranks that another one speaks for.
    pub fn silent(stage: &'static str) -> Self {
        Self { stage, limits: Limits { steps: 0, max_seconds: 0.0 }, sinks: None }
    }

    /// Sets the time that ends the stage if its steps do not end it before; 0 is no limit.
    pub fn within(mut self, max_seconds: f64) -> Self {
        self.limits.max_seconds = max_seconds;
        self
    }

    /// Records the numbers of a step under `<stage>/<name>`.
    ///
    /// # Errors
    /// The disk is full.
    pub fn record(&mut self, step: usize, numbers: &[(&str, f64)]) -> Result<()> {
        let stage = self.stage;
        let Some(Sinks { tensorboard, jsonl, .. }) = &mut self.sinks else { return Ok(()) };
        let tagged: Vec<(String, f64)> =
            numbers.iter().map(|(name, number)| (format!("{stage}/{name}"), *number)).collect();
        tensorboard.scalars(step, tagged.iter().map(|(tag, number)| (tag.as_str(), *number as f32)));
        let mut row = Map::from_iter([("stage".to_owned(), json!(stage)), ("step".to_owned(), json!(step))]);
        row.extend(
            tagged
                .into_iter()
                .map(|(tag, number)| (tag, if number.is_finite() { json!(number) } else { json!(number.to_string()) })),
        );
        failpoint::reached("metrics-row").context("cannot write metrics.jsonl")?;
        writeln!(jsonl, "{}", Value::Object(row)).context("cannot write metrics.jsonl")?;
        jsonl.flush().context("cannot write metrics.jsonl")
    }

    /// Waits until the rows so far are on the disk. A checkpoint must not be newer than they are.
    ///
    /// # Errors
    /// A full or faulty disk.
    pub fn sync(&mut self) -> Result<()> {
        let Some(Sinks { jsonl, .. }) = &mut self.sinks else { return Ok(()) };
        jsonl.get_ref().sync_data().context("cannot write metrics.jsonl")
    }

    /// Shows a picture under `<stage>/<name>` in TensorBoard.
    ///
    /// # Errors
    /// The picture cannot be encoded.
    pub fn picture(&mut self, step: usize, name: &str, picture: &RgbImage) -> Result<()> {
        let Some(sinks) = &mut self.sinks else { return Ok(()) };
        sinks.tensorboard.picture(step, &format!("{}/{name}", self.stage), picture)
    }

    /// Shows how `values` are distributed under `<stage>/histogram/<name>` in TensorBoard. Values that
    /// are not finite are left out; without any other there is nothing to show.
    pub fn histogram(&mut self, step: usize, name: &str, values: &[f64]) {
        if let Some(sinks) = &mut self.sinks {
            sinks.tensorboard.histogram(step, &format!("{}/histogram/{name}", self.stage), values);
        }
    }

    /// Shows `line` about a step that has just ended and brought the stage to `progress` in [0, 1],
    /// with the time left.
    pub fn say(&mut self, step: usize, progress: f64, line: &str) {
        if let Some(sinks) = &mut self.sinks {
            sinks.progress.say(&self.limits.position(step, progress), progress, line);
        }
    }

    /// Prints a line that stays on the terminal.
    pub fn note(&self, line: &str) {
        if let Some(sinks) = &self.sinks {
            sinks.progress.note(line);
        }
    }

    /// Prints a warning that stays on the terminal.
    pub fn warn(&self, line: &str) {
        if let Some(sinks) = &self.sinks {
            sinks.progress.warn(line);
        }
    }

    /// Prints `line` about the step `step`, which has brought the stage to `progress`, so that it
    /// stays on the terminal.
    pub fn note_step(&self, step: usize, progress: f64, line: &str) {
        self.note(&self.about_step(step, progress, line));
    }

    /// As [`Self::note_step`], for a warning.
    pub fn warn_step(&self, step: usize, progress: f64, line: &str) {
        self.warn(&self.about_step(step, progress, line));
    }

    fn about_step(&self, step: usize, progress: f64, line: &str) -> String {
        format!("{} {}  {line}", self.stage, self.limits.position(step, progress))
    }
}

/// Removes the lines of `stage` whose step is `step` or later.
fn keep_before(path: &Path, stage: &str, step: usize) -> Result<()> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
    // A line that is not text does not keep the others from being read.
    let text = String::from_utf8_lossy(&bytes);
    let is_kept = |line: &&str| {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        row.is_object() && (row["stage"] != stage || row["step"].as_u64().is_some_and(|s| s < step as u64))
    };
    let kept: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    if kept.len() == text.len() { Ok(()) } else { write_whole(path, &kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_on_drops_the_steps_that_will_be_run_again() {
        let directory = tempfile::tempdir().unwrap();
        let log = |stage, from: usize, to| {
            let mut telemetry = Telemetry::open(directory.path(), stage, from, 10).unwrap();
            (from..to).for_each(|step| telemetry.record(step, &[("loss", step as f64)]).unwrap());
        };
        log("sft", 0, 3);
        log("ppo", 0, 2);
        log("ppo", 1, 3);
        let text = std::fs::read_to_string(directory.path().join("metrics.jsonl")).unwrap();
        let steps: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| format!("{}{}", row["stage"].as_str().unwrap(), row["step"]))
            .collect();
        assert_eq!(steps, ["sft0", "sft1", "sft2", "ppo0", "ppo1", "ppo2"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tensorboard"), "a file").unwrap();
        let error = Telemetry::open(directory.path(), "sft", 0, 1).err().unwrap();
        assert!(format!("{error:#}").contains("tensorboard/sft"), "{error:#}");
    }
}
