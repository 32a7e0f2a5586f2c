//! `samples.jsonl.gz`: every sampled completion of reinforcement learning, for people and other
//! programs. docs/metrics.md defines the fields.
//!
//! Each step is a gzip member of its own, appended whole, so that the file can be cut after any step:
//! a run that goes on drops the steps that it will take again.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cadwright_rewards::frames::Frame;
use cadwright_rewards::reward::MetricValues;
use cadwright_rollout::Score;
use flate2::Compression;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::failpoint;
use crate::rollouts::Rollout;

/// The file's name in the run directory.
pub const FILE: &str = "samples.jsonl.gz";

/// A sampled completion. Numbers that are not known, or not finite, are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The step, from 0.
    pub step: usize,
    /// The row's id in the training data.
    pub part: String,
    /// Number of the completion among those of the part in this step, from 0.
    pub sample: usize,
    /// The class of the program's outcome, or why there is none; `None` if the completion was set
    /// aside because of a number that cannot be right.
    pub outcome: Option<String>,
    /// IoU in `rollout.frame`; `None` without a ground truth.
    pub iou: Option<f32>,
    /// The reward that was trained on; `None` if there was none.
    pub reward: Option<f32>,
    /// Mean advantage of its tokens.
    pub advantage: Option<f32>,
    /// Sum over its tokens of the log-probabilities with which they were sampled, in nats.
    pub logprob_sum: Option<f32>,
    /// Number of its tokens, of all turns.
    pub tokens: usize,
    /// Whether it was cut off.
    pub truncated: bool,
    /// The reward command's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_reward: Option<f32>,
    /// The likeness of its render to the picture, if rewards come from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_score: Option<f32>,
    /// The values of `[reward.metrics]`.
    #[serde(default, skip_serializing_if = "MetricValues::is_empty")]
    pub metrics: MetricValues,
    /// The program, of the last turn.
    pub program: String,
    /// The turns before the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierSample>,
}

/// The program of an earlier turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlierSample {
    /// The class of its outcome.
    pub outcome: Option<String>,
    /// Its IoU.
    pub iou: Option<f32>,
    /// The program.
    pub program: String,
}

/// The completions of a step. The `samples_per_image` of a part follow each other.
pub fn samples_of(
    rollouts: &[Rollout],
    step: usize,
    samples_per_image: usize,
    dataset: &Dataset,
    frame: Frame,
) -> Vec<Sample> {
    let sample = |(i, rollout): (usize, &Rollout)| {
        let (tokens, score) = (rollout.tokens().len(), rollout.score.as_ref());
        let logprobs = rollout.completion.logprobs.iter().map(|&logprob| f64::from(logprob));
        let advantages = rollout.advantages.iter().map(|&advantage| f64::from(advantage));
        Sample {
            step,
            part: dataset.examples()[rollout.index].id.clone(),
            sample: i % samples_per_image,
            outcome: outcome(score),
            iou: iou(score, frame),
            reward: rollout.reward.filter(|reward| reward.is_finite()),
            advantage: finite(advantages.sum::<f64>() / tokens.max(1) as f64),
            logprob_sum: finite(logprobs.sum()),
            tokens,
            truncated: rollout.completion.truncated,
            command_reward: rollout.command_reward.and_then(finite),
            image_score: rollout.image_score.and_then(finite),
            metrics: score.map(|score| score.metrics).unwrap_or_default(),
            program: rollout.program.clone(),
            earlier: rollout
                .earlier
                .iter()
                .map(|turn| EarlierSample {
                    outcome: outcome(turn.score.as_ref()),
                    iou: iou(turn.score.as_ref(), frame),
                    program: turn.program.clone(),
                })
                .collect(),
        }
    };
    rollouts.iter().enumerate().map(sample).collect()
}

fn outcome(score: Option<&Score>) -> Option<String> {
    score.map(|score| score.verdict.name().to_owned())
}

fn iou(score: Option<&Score>, frame: Frame) -> Option<f32> {
    score?.iou.get(&frame).copied().flatten().and_then(finite)
}

fn finite(value: f64) -> Option<f32> {
    value.is_finite().then_some(value as f32)
}

/// The file of a run.
pub struct SamplesLog {
    path: PathBuf,
    /// Bytes that it may have.
    limit: u64,
}

impl SamplesLog {
    /// The file of the run in `run_dir`, of at most `limit_mib` MiB. Steps from `step` on, and half
    /// of one that a kill has left, are removed from it.
    ///
    /// # Errors
    /// A file that cannot be read or cut.
    pub fn open(run_dir: &Path, step: usize, limit_mib: usize) -> Result<Self> {
        let path = run_dir.join(FILE);
        let log = Self { path, limit: (limit_mib as u64) << 20 };
        log.keep_before(step).with_context(|| format!("cannot write {}", log.path.display()))?;
        Ok(log)
    }

    fn keep_before(&self, step: usize) -> io::Result<()> {
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let kept = end_of_steps_before(&bytes, step);
        if kept == 0 {
            // An empty file is no gzip.
            return std::fs::remove_file(&self.path);
        }
        if kept < bytes.len() {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            file.set_len(kept as u64)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Appends a step. It is on the disk when this returns: a checkpoint must not be newer. Returns
    /// false, and writes nothing, if the file would become too large.
    ///
    /// # Errors
    /// A full or faulty disk. The file is then as it was.
    pub fn write(&self, samples: &[Sample]) -> Result<bool> {
        let append = || -> io::Result<bool> {
            let member = compressed(samples)?;
            let before = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
            if before + member.len() as u64 > self.limit {
                return Ok(false);
            }
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            let (first, second) = member.split_at(member.len() / 2);
            let written = file
                .write_all(first)
                .and_then(|()| failpoint::reached("samples-step"))
                .and_then(|()| file.write_all(second))
                .and_then(|()| file.sync_data());
            if written.is_err() {
                file.set_len(before)?;
            }
            written.map(|()| true)
        };
        append().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn compressed(samples: &[Sample]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for sample in samples {
        serde_json::to_writer(&mut encoder, sample)?;
        encoder.write_all(b"\n")?;
    }
    encoder.finish()
}

/// The length of the whole steps before `step` at the beginning of the file.
fn end_of_steps_before(bytes: &[u8], step: usize) -> usize {
    #[derive(Deserialize)]
    struct Row {
        step: usize,
    }
    let mut end = 0;
    while end < bytes.len() {
        let mut member = GzDecoder::new(&bytes[end..]);
        let mut text = Vec::new();
        let first = match member.read_to_end(&mut text) {
            Ok(_) => text.split(|&byte| byte == b'\n').next().unwrap_or_default(),
            Err(_) => break,
        };
        let is_before = serde_json::from_slice::<Row>(first).is_ok_and(|row| row.step < step);
        if !is_before {
            break;
        }
        end = bytes.len() - member.into_inner().len();
    }
    end
}

/// The completions in the file at `path`, in order of steps.
///
/// # Errors
/// A file that cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let read = || -> Result<Vec<Sample>> {
        let bytes = std::fs::read(path)?;
        let mut text = String::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?;
        Ok(text.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: usize, sample: usize) -> Sample {
        Sample {
            step,
            part: "part".into(),
            sample,
            outcome: Some("solid".into()),
            iou: Some(0.5),
            reward: None,
            advantage: Some(-0.25),
            logprob_sum: Some(-3.5),
            tokens: 7,
            truncated: false,
            command_reward: None,
            image_score: None,
            metrics: MetricValues::default(),
            program: "solid = cq.Workplane().box(1, 1, 1)\n".repeat(sample + 1),
            earlier: Vec::new(),
        }
    }

    fn steps(run: &Path) -> Vec<(usize, usize)> {
        read(&run.join(FILE)).unwrap().iter().map(|row| (row.step, row.sample)).collect()
    }

    fn log(run: &Path, from: usize, to: usize) {
        let log = SamplesLog::open(run, from, 1).unwrap();
        (from..to).for_each(|step| assert!(log.write(&[sample(step, 0), sample(step, 1)]).unwrap()));
    }

    #[test]
    fn going_on_cuts_the_steps_that_will_be_taken_again() {
        let [whole, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        log(whole.path(), 0, 5);
        log(killed.path(), 0, 4);
        // Killed while it wrote step 4: half of it is there.
        let bytes = std::fs::read(killed.path().join(FILE)).unwrap();
        let half = [&bytes[..], &bytes[..20]].concat();
        std::fs::write(killed.path().join(FILE), half).unwrap();
        log(killed.path(), 2, 5);
        assert_eq!(steps(killed.path()), (0..5).flat_map(|step| [(step, 0), (step, 1)]).collect::<Vec<_>>());
        let bytes = |run: &Path| std::fs::read(run.join(FILE)).unwrap();
        assert_eq!(bytes(whole.path()), bytes(killed.path()));
        assert_eq!(read(&whole.path().join(FILE)).unwrap()[9], sample(4, 1), "what was written is what is read");
        // A stage that starts anew keeps nothing.
        SamplesLog::open(whole.path(), 0, 1).unwrap();
        assert!(!whole.path().join(FILE).exists());
    }

    #[test]
    fn half_a_step_is_cut_even_if_every_step_before_it_is_kept() {
        let run = tempfile::tempdir().unwrap();
        log(run.path(), 0, 2);
        let path = run.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes[..], &bytes[..20]].concat()).unwrap();
        SamplesLog::open(run.path(), 9, 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_step_beyond_the_limit_is_left_out() {
        let run = tempfile::tempdir().unwrap();
        let log = SamplesLog { path: run.path().join(FILE), limit: 400 };
        assert!(log.write(&[sample(0, 0)]).unwrap());
        let noise: String =
            (0..2000u32).map(|i| char::from(b'!' + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90)).collect();
        assert!(!log.write(&[Sample { program: noise, ..sample(1, 0) }]).unwrap());
        assert!(log.write(&[sample(2, 0)]).unwrap());
        assert_eq!(steps(run.path()), [(0, 0), (2, 0)]);
    }

    #[test]
    fn gzip_reads_it() {
        let run = tempfile::tempdir().unwrap();
        log(run.path(), 0, 3);
        let output = std::process::Command::new("gzip").arg("-dc").arg(run.path().join(FILE)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 6);
    }
}
