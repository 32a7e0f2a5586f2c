//! The reward command (`reward.command`): a program of the user's own that rates completions.
//!
//! A process reads requests as JSON lines and answers each with a line before it gets the next; see
//! docs/rl.md. Covered: a process that dies, hangs, writes something else, a line without end or too
//! many lines. It is killed and started again; the completion has no answer if a fresh process fails
//! on it too. Not covered: the command is trusted, so it has the user's environment and files.

mod pool;
mod process;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cadwright_rewards::RewardConfig;
use cadwright_rollout::{Score, Scorer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Stage;
use super::metrics::StepNumbers;
use super::shaping::is_known;
use crate::config::Config;
use crate::data::{Dataset, Example};
use crate::distributed::World;
use crate::rollouts::Rollout;
use pool::{Pool, Request};
use process::StderrLog;

/// What there is to log of a step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Counts {
    asked: usize,
    sum: f64,
    failures: usize,
    restarts: usize,
    seconds: f64,
    /// The last failure.
    failure: Option<String>,
}

/// The processes of this rank. They end when this is dropped.
pub struct RewardCommand {
    /// Where pictures are written.
    directory: PathBuf,
    state: RefCell<State>,
}

/// What changes from step to step.
struct State {
    pool: Pool,
    /// Since the last call of [`RewardCommand::numbers`].
    counts: Counts,
}

impl RewardCommand {
    /// Starts the command of the stage on this rank, if there is one, and asks it about a cube and
    /// about a program that fails.
    ///
    /// # Errors
    /// The command of some rank does not answer, or `<run>/reward_command` cannot be written.
    pub fn start(stage: &Stage) -> Result<Option<Self>> {
        let Stage { config, world, .. } = stage;
        if config.reward.command.is_empty() {
            return Ok(None);
        }
        let directory = stage.run_dir.join("reward_command");
        let started = Self::new(&config.reward, &directory, world.rank(), stage.train.get(0));
        let refusal = started.as_ref().err().map(|error| format!("{error:#}"));
        // All ranks end alike.
        let refusals = world.gather("the reward command", refusal)?;
        match refusals.into_iter().flatten().next() {
            Some(refusal) => bail!("{refusal}"),
            None => started.map(Some),
        }
    }

    /// Starts the processes of rank `rank`, whose files go to `directory`, and asks one of them about
    /// two programs for the picture of `example`.
    ///
    /// # Errors
    /// No usable answer, or a directory that cannot be written.
    pub fn new(config: &RewardConfig, directory: &Path, rank: usize, example: Option<&Example>) -> Result<Self> {
        let cannot = || format!("cannot write {}", directory.display());
        let stderr = directory.join(format!("stderr-{rank}.log"));
        let pictures = directory.join(format!("pictures-{rank}"));
        // Pictures of a run that was killed.
        let _ = std::fs::remove_dir_all(&pictures);
        std::fs::create_dir_all(&pictures).with_context(cannot)?;
        let pictures = pictures.canonicalize().with_context(cannot)?;
        let log = StderrLog::open(&stderr).with_context(cannot)?;
        let said_before = std::fs::metadata(&stderr).map_or(0, |metadata| metadata.len());
        let check_image = example.map(|example| write_picture(&pictures, "check", example)).transpose()?;
        let check_image = check_image.unwrap_or_default();
        let pool = Pool::start(config, log, check_image);
        let pool = pool.map_err(|reason| refusal(config, &reason, &stderr, said_before))?;
        Ok(Self { directory: pictures, state: RefCell::new(State { pool, counts: Counts::default() }) })
    }

    /// Asks about the programs of `rollouts`, those of this rank, and adds `reward.command_weight`
    /// times the answer to the reward of each. Without an answer nothing is added. Programs of
    /// earlier turns are asked about if their rewards count.
    ///
    /// # Errors
    /// A picture that cannot be written.
    pub fn rate(&self, rollouts: &mut [Rollout], dataset: &Dataset, config: &Config, scorer: &Scorer) -> Result<()> {
        let counts_earlier = config.ppo.turn_reward_share > 0.0;
        let mut images: Vec<(usize, PathBuf)> = Vec::new();
        for part in rollouts.chunk_by(|a, b| a.index == b.index) {
            let index = part[0].index;
            let example = &dataset.examples()[index];
            let name = &blake3::hash(&example.image).to_hex()[..16];
            images.push((index, write_picture(&self.directory, name, example)?));
        }
        let image_of = |index: usize| images.iter().find(|(known, _)| *known == index).map(|(_, path)| path.clone());
        let mut asked = Vec::new();
        for (place, rollout) in rollouts.iter().enumerate() {
            let (part, image) = (&dataset.examples()[rollout.index].id, image_of(rollout.index).unwrap_or_default());
            let earlier = rollout.earlier.iter().filter(|_| counts_earlier);
            let earlier = earlier.enumerate().map(|(turn, written)| (Some(turn), &written.program, &written.score));
            for (turn, program, score) in earlier.chain([(None, &rollout.program, &rollout.score)]) {
                let score = score.as_ref().filter(|score| is_known(score, config.reward.source));
                if let Some(score) = score {
                    asked.push((place, turn, part.as_str(), image.clone(), program.as_str(), score));
                }
            }
        }
        let requests: Vec<Request> = scorer.install(|| {
            let of = asked
                .par_iter()
                .map(|(_, _, part, image, program, score)| described(part, image.clone(), program, score, config));
            of.collect()
        });
        let places: Vec<(usize, Option<usize>)> = asked.iter().map(|asked| (asked.0, asked.1)).collect();
        for ((place, turn), answer) in places.into_iter().zip(self.ask(requests)) {
            let rollout = &mut rollouts[place];
            let score = match turn {
                Some(turn) => &mut rollout.earlier[turn].score,
                None => &mut rollout.score,
            };
            if let (Some(score), Some(answer)) = (score, answer) {
                score.reward += config.reward.command_weight * answer;
            }
            if turn.is_none() {
                rollout.command_reward = answer;
            }
        }
        for (_, path) in images {
            // Two parts may have the same picture.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// The answers to requests, in their order.
    fn ask(&self, requests: Vec<Request>) -> Vec<Option<f64>> {
        let started = Instant::now();
        let State { pool, counts } = &mut *self.state.borrow_mut();
        let (answers, restarts) = pool.ask(requests);
        counts.restarts += restarts;
        counts.asked += answers.len();
        counts.sum += answers.iter().flatten().sum::<f64>();
        counts.failures += answers.iter().filter(|answer| answer.is_err()).count();
        counts.failure = answers.iter().rev().find_map(|answer| answer.clone().err());
        counts.seconds += started.elapsed().as_secs_f64();
        answers.into_iter().map(Result::ok).collect()
    }

    /// The numbers of all ranks since the last call, and a warning if completions had no answer.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn numbers(&self, world: &World) -> Result<StepNumbers> {
        let own = std::mem::take(&mut self.state.borrow_mut().counts);
        let all = world.gather("the reward command", own)?;
        let total = |of: fn(&Counts) -> usize| all.iter().map(of).sum::<usize>();
        let (asked, failures) = (total(|counts| counts.asked), total(|counts| counts.failures));
        if let Some(failure) = all.iter().find_map(|counts| counts.failure.as_ref()) {
            world.say(&format!(
                "ppo: warning: reward.command gave no answer for {failures} of {asked} programs; one of them: {failure}"
            ));
        }
        let mut numbers = StepNumbers::default();
        numbers.extend([
            ("reward_command/mean", all.iter().map(|counts| counts.sum).sum::<f64>() / asked.max(1) as f64),
            ("reward_command/failures", failures as f64),
            ("reward_command/restarts", total(|counts| counts.restarts) as f64),
            ("reward_command/seconds", all.iter().map(|counts| counts.seconds).fold(0.0, f64::max)),
        ]);
        Ok(numbers)
    }
}

/// The message of a command that does not answer at the start. It has said what is in the file
/// `stderr` after the first `said_before` bytes.
fn refusal(config: &RewardConfig, reason: &str, stderr: &Path, said_before: u64) -> anyhow::Error {
    let text = std::fs::read(stderr).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(said_before as usize..).unwrap_or_default());
    let said = match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("; its last line on stderr ({}): {}", stderr.display(), line.trim()),
        None => String::new(),
    };
    anyhow::anyhow!("reward.command = {:?} failed on the first requests: {reason}{said}", config.command)
}

fn described(part: &str, image: PathBuf, program: &str, score: &Score, config: &Config) -> Request {
    // A panic of our own geometry must not end the run.
    let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let solid = score.solid.as_ref()?;
        let bounds = solid.bounds();
        Some((solid.mass().volume, [bounds.min, bounds.max]))
    }));
    let measured = measured.ok().flatten();
    let has_truth = score.ground_truth_error.is_none();
    Request {
        id: 0,
        part: part.to_owned(),
        image,
        program: program.to_owned(),
        outcome: score.verdict.name(),
        volume: measured.map(|(volume, _)| volume),
        bounds: measured.map(|(_, bounds)| bounds),
        iou: has_truth.then(|| score.iou_in(config.reward_frame())),
    }
}

/// Writes the picture of a part to a file `name` with the extension of its format.
fn write_picture(directory: &Path, name: &str, example: &Example) -> Result<PathBuf> {
    let format = image::guess_format(&example.image).ok();
    let extension = format.and_then(|format| format.extensions_str().first()).unwrap_or(&"image");
    let path = directory.join(format!("{name}.{extension}"));
    std::fs::write(&path, &example.image).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
