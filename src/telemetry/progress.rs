//! Shows the progress of a stage on the terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::{is_quiet, status, warn};

/// Ticks of a full bar.
const TICKS: f64 = 1000.0;

/// The limits that end a stage.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Number of steps.
    pub steps: usize,
    /// Time in seconds; 0 is no limit.
    pub max_seconds: f64,
}

impl Limits {
    /// The position of a stage after its step `step`, counted from 0, which brought it to
    /// `progress` in [0, 1]: `12/72` if its steps will end it, `step 251, 84 % of 120 s` if its
    /// time will.
    pub fn position(&self, step: usize, progress: f64) -> String {
        let done = step + 1;
        if self.max_seconds > 0.0 && progress > done as f64 / self.steps.max(1) as f64 {
            format!("step {done}, {:.0} % of {:.0} s", progress * 100.0, self.max_seconds)
        } else {
            format!("{done}/{}", self.steps)
        }
    }
}

/// A bar if standard error is a terminal, lines if it is not.
pub struct Progress {
    stage: &'static str,
    bar: Option<ProgressBar>,
    /// When the first step was reported, and the progress at that time.
    first: Option<(Instant, f64)>,
    last_line: Option<Instant>,
}

impl Progress {
    pub fn new(stage: &'static str) -> Self {
        let bar = (std::io::stderr().is_terminal() && !is_quiet()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:24} {msg} ({elapsed})");
            let bar = ProgressBar::new(TICKS as u64).with_prefix(stage);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { stage, bar, first: None, last_line: None }
    }

    /// Shows the position of the stage, `line`, and the time left.
    pub fn say(&mut self, position: &str, progress: f64, line: &str) {
        let (since, before) = *self.first.get_or_insert_with(|| (Instant::now(), progress));
        let left = if progress > before {
            let seconds = since.elapsed().as_secs_f64() * (1.0 - progress) / (progress - before);
            format!("  {} left", duration(seconds))
        } else {
            String::new()
        };
        if let Some(bar) = &self.bar {
            bar.set_position((progress * TICKS) as u64);
            bar.set_message(format!("{position}  {line}{left}"));
            return;
        }
        // A log of thousands of steps is for machines; people get one line every two seconds.
        let is_due = self.last_line.is_none_or(|last| last.elapsed() > Duration::from_secs(2));
        if is_due || progress == 1.0 {
            self.last_line = Some(Instant::now());
            status(format_args!("{} {position}  {line}{left}", self.stage));
        }
    }

    /// Prints a line that stays.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => status(line),
        }
    }

    /// Prints a warning, which stays.
    pub fn warn(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => warn(line),
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
    fn a_stage_is_counted_by_what_will_end_it() {
        let by_steps = Limits { steps: 72, max_seconds: 0.0 };
        assert_eq!(by_steps.position(11, 12.0 / 72.0), "12/72");
        let control = Limits { steps: 1_000_000, max_seconds: 120.0 };
        assert_eq!(control.position(250, 0.84), "step 251, 84 % of 120 s");
        assert_eq!(control.position(300, 1.0), "step 301, 100 % of 120 s");
        let either = Limits { steps: 10, max_seconds: 100.0 };
        assert_eq!(either.position(4, 0.5), "5/10", "as far by steps as by time, or further");
        assert_eq!(either.position(9, 1.0), "10/10");
    }

    #[test]
    fn durations_read_as_clocks() {
        assert_eq!([duration(4.4), duration(75.0), duration(3_725.0)], ["0:04", "1:15", "1:02:05"]);
    }
}
