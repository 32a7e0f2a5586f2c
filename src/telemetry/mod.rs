//! What a run says of itself: TensorBoard, `metrics.jsonl`, and one line a step on the terminal. `docs/metrics.md` defines
//! every name.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tensorboard_rs::summary_writer::SummaryWriter;

use crate::files::{is_writable, write_whole};

/// The log of one stage of a run.
pub struct Telemetry {
    stage: &'static str,
    tensorboard: SummaryWriter,
    jsonl: BufWriter<File>,
    progress: Progress,
}

impl Telemetry {
    /// Opens `<run>/metrics.jsonl` and `<run>/tensorboard` for a stage of `steps` steps that starts, or goes on, at `step`.
    /// Lines of this stage from that step on were written by a run that was killed before its next checkpoint, and go.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn open(run_dir: &Path, stage: &'static str, step: usize, steps: usize) -> Result<Self> {
        let path = run_dir.join("metrics.jsonl");
        keep_before(&path, stage, step)?;
        let jsonl = OpenOptions::new().create(true).append(true).open(&path);
        let jsonl = BufWriter::new(jsonl.with_context(|| format!("cannot write {}", path.display()))?);
        // The TensorBoard crate panics where it cannot write.
        let directory = run_dir.join("tensorboard");
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        ensure!(is_writable(&directory), "{}: no permission to write", directory.display());
        let tensorboard = new_event_file(&directory);
        Ok(Self { stage, tensorboard, jsonl, progress: Progress::new(stage, step, steps) })
    }

    /// Records the numbers of a step under `<stage>/<name>`.
    ///
    /// # Errors
    /// A full disk.
    pub fn record(&mut self, step: usize, numbers: &[(&str, f64)]) -> Result<()> {
        let stage = self.stage;
        let mut row = Map::from_iter([("stage".to_owned(), json!(stage)), ("step".to_owned(), json!(step))]);
        for (name, value) in numbers {
            let tag = format!("{stage}/{name}");
            self.tensorboard.add_scalar(&tag, *value as f32, step);
            row.insert(tag, if value.is_finite() { json!(value) } else { json!(value.to_string()) });
        }
        writeln!(self.jsonl, "{}", Value::Object(row)).context("cannot write metrics.jsonl")?;
        self.jsonl.flush().context("cannot write metrics.jsonl")?;
        self.tensorboard.flush();
        Ok(())
    }

    /// Shows a picture under `<stage>/<name>`.
    pub fn picture(&mut self, step: usize, name: &str, picture: &RgbImage) {
        // The crate takes rows of RGB pixels, and their shape as [channels, width, height].
        let shape = [3, picture.width() as usize, picture.height() as usize];
        self.tensorboard.add_image(&format!("{}/{name}", self.stage), picture.as_raw(), &shape, step);
        self.tensorboard.flush();
    }

    /// Says `line` of a step that has just ended and brought the stage to `progress` in [0, 1], with the time left.
    pub fn say(&mut self, step: usize, progress: f64, line: &str) {
        self.progress.say(step, progress, line);
    }

    /// Says something that is not a step's.
    pub fn note(&self, line: &str) {
        self.progress.note(line);
    }
}

/// The TensorBoard crate names a file by second and process, and empties one that is there: the log of a stage that began
/// in this very second.
fn new_event_file(directory: &Path) -> SummaryWriter {
    let is_taken = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let prefix = format!("events.out.tfevents.{now:010}.");
        let mut entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    };
    while is_taken() {
        std::thread::sleep(Duration::from_millis(20));
    }
    SummaryWriter::new(directory)
}

/// Drops the lines of `stage` whose step is `step` or later.
fn keep_before(path: &Path, stage: &str, step: usize) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let is_kept = |line: &&str| {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        row.is_object() && (row["stage"] != stage || row["step"].as_u64().is_some_and(|s| s < step as u64))
    };
    let kept: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    if kept.len() == text.len() { Ok(()) } else { write_whole(path, &kept) }
}

/// A bar where there is a terminal, lines where there is none.
struct Progress {
    stage: &'static str,
    bar: Option<ProgressBar>,
    steps: usize,
    /// When the first step was told, and the progress then.
    first: Option<(Instant, f64)>,
    last_line: Option<Instant>,
}

impl Progress {
    fn new(stage: &'static str, first_step: usize, steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg} ({elapsed})");
            let bar = ProgressBar::new(steps as u64).with_prefix(stage).with_position(first_step as u64);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { stage, bar, steps, first: None, last_line: None }
    }

    fn say(&mut self, step: usize, progress: f64, line: &str) {
        let (since, before) = *self.first.get_or_insert_with(|| (Instant::now(), progress));
        let left = match progress > before {
            true => {
                let seconds = since.elapsed().as_secs_f64() * (1.0 - progress) / (progress - before);
                format!("  {} left", duration(seconds))
            }
            false => String::new(),
        };
        if let Some(bar) = &self.bar {
            bar.set_position(step as u64 + 1);
            bar.set_message(format!("{line}{left}"));
            return;
        }
        // A log of thousands of steps is for machines; people get one line every two seconds.
        let is_due = self.last_line.is_none_or(|last| last.elapsed() > Duration::from_secs(2));
        if is_due || progress == 1.0 {
            self.last_line = Some(Instant::now());
            eprintln!("{} {}/{}  {line}{left}", self.stage, step + 1, self.steps);
        }
    }

    fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

/// `75 s -> "1:15"`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
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
    fn stages_that_begin_in_one_second_keep_their_events() {
        let directory = tempfile::tempdir().unwrap();
        for stage in ["sft", "eval", "ppo"] {
            Telemetry::open(directory.path(), stage, 0, 1).unwrap().record(0, &[("loss", 1.0)]).unwrap();
        }
        let events = std::fs::read_dir(directory.path().join("tensorboard")).unwrap();
        assert_eq!(events.count(), 3);
    }

    #[test]
    fn durations_read_as_clocks() {
        assert_eq!([duration(4.4), duration(75.0), duration(3_725.0)], ["0:04", "1:15", "1:02:05"]);
    }
}
