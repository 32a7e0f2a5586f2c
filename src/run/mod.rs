//! A whole run: data, model, SFT, PPO, evaluation. A part whose result exists already is skipped.

mod evaluate;
mod inputs;
mod lock;
mod policies;
mod resume;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tch::Device;

use crate::agent::learned::learned_from;
use crate::config::{Config, PpoStart, Sft};
use crate::data::{Dataset, Split};
use crate::distributed::World;
use crate::files::write_whole;
use crate::interrupt;
use crate::model::InternVl;
use crate::report::{ReportOptions, report};
use crate::train::{Stage, ppo, sft};
pub(crate) use inputs::stored_data;
use lock::RunLock;

/// A run directory with its configuration.
pub struct Run<'a> {
    config: Config,
    world: &'a World,
    dir: PathBuf,
    device: Device,
    started: Instant,
    /// The checkpoint that training starts from. It is resolved once, so that all stages have the
    /// same one.
    model_dir: OnceLock<PathBuf>,
    /// Held by rank 0.
    _lock: Option<RunLock>,
}

/// A stage that trains a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageName {
    /// Supervised fine-tuning.
    Sft,
    /// Reinforcement learning from the SFT policy.
    Ppo,
    /// The control of `run.control`: more SFT from the SFT policy, for as long as PPO took.
    MoreSft,
}

impl StageName {
    /// The name in directories, messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Ppo => "ppo",
            Self::MoreSft => "control",
        }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<'a> Run<'a> {
    /// Makes the run directory and writes `config.toml` and `run.json`, which describe the run.
    ///
    /// If the directory holds a run already, this one continues it. Keys that change only speed or
    /// memory may then differ, and so may the sections of stages that have not begun.
    ///
    /// Every rank of `world` calls this; rank 0 decides and writes.
    ///
    /// # Errors
    /// A directory that cannot be written, one that another process uses, or one that holds a run of
    /// another configuration.
    pub fn open(config: Config, world: &'a World, device: Device) -> Result<Self> {
        let mut lock = None;
        let config = world.from_main("the configuration", || {
            let dir = &config.run.output_dir;
            if dir.exists() {
                lock = Some(RunLock::take(dir)?);
            }
            let config = resume::continued(config.clone(), dir, device)?;
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create run.output_dir = {}", dir.display()))?;
            if lock.is_none() {
                lock = Some(RunLock::take(dir)?);
            }
            write_whole(&dir.join("config.toml"), &config.to_toml()?)?;
            let about = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "commit": env!("CADWRIGHT_COMMIT"),
                "seed": config.run.seed,
                "device": format!("{device:?}"),
                "threads": tch::get_num_threads(),
                "ranks": world.size(),
                "command": std::env::args().collect::<Vec<_>>(),
            });
            write_whole(&dir.join("run.json"), &format!("{about:#}\n"))?;
            Ok(config)
        })?;
        let dir = config.run.output_dir.clone();
        Ok(Self { config, world, dir, device, started: Instant::now(), model_dir: OnceLock::new(), _lock: lock })
    }

    /// Runs every stage, evaluates its policy, and prints the table.
    ///
    /// # Errors
    /// See [`Self::train`] and [`Self::evaluate`].
    pub fn all(&self) -> Result<()> {
        ensure!(
            self.config.ppo.start == PpoStart::Sft,
            "ppo.start = \"model\" leaves SFT out: use `cadwright ppo`, then `cadwright eval`"
        );
        let mut stages = vec![StageName::Sft];
        if self.config.ppo.steps > 0 {
            stages.push(StageName::Ppo);
            if self.config.run.control {
                stages.push(StageName::MoreSft);
            }
        }
        for stage in stages {
            // A policy's scores are written before the next stage starts, whatever becomes of that
            // one.
            self.train(stage)?;
            self.stop_if_interrupted(stage)?;
            self.evaluate(stage)?;
        }
        if self.world.is_main() {
            self.summarise()?;
            self.write_report();
        }
        Ok(())
    }

    /// Writes `report.html`, unless `run.report_parts` is 0. A failure is told and changes nothing:
    /// `cadwright report` can write it later.
    fn write_report(&self) {
        let parts = self.config.run.report_parts;
        if parts == 0 {
            return;
        }
        let path = self.dir.join("report.html");
        let written = report(std::slice::from_ref(&self.dir), &ReportOptions { parts, solids: true })
            .and_then(|page| write_whole(&path, &page));
        match written {
            Ok(()) => println!("Report: {}", path.display()),
            Err(error) => eprintln!("warning: no report: {error:#}"),
        }
    }

    /// Ends the run if a rank was interrupted in the last step of a stage.
    fn stop_if_interrupted(&self, stage: StageName) -> Result<()> {
        let [interruptions] = self.world.sum("interruptions", [f64::from(u8::from(interrupt::is_requested()))])?;
        ensure!(interruptions == 0.0, "interrupted after {stage}, which is done; the same command goes on from there");
        Ok(())
    }

    /// Trains the policy of a stage, unless that is done.
    ///
    /// # Errors
    /// Data, model or scorer cannot be loaded, the policy that the stage starts from is missing, or
    /// training fails.
    pub fn train(&self, name: StageName) -> Result<()> {
        if self.world.from_main("which stages are done", || Ok(self.result(name).is_some()))? {
            self.world.say(&format!("{name}: done before"));
            return Ok(());
        }
        match name {
            StageName::Sft => self.stage(name, |stage, model| sft::train(stage, name.name(), &self.config.sft, model)),
            StageName::Ppo => self.stage(name, ppo::train),
            StageName::MoreSft => {
                let max_seconds = self.world.from_main("the time of PPO", || {
                    let ppo = self.result(StageName::Ppo).and_then(|result| result["seconds"].as_f64());
                    ppo.context("run.control: PPO is not done, so its time is not known")
                })?;
                let sft = Sft { max_steps: MORE_SFT_STEPS, max_seconds, ..self.config.sft.clone() };
                self.stage(name, |stage, model| sft::train(stage, name.name(), &sft, model))
            }
        }
    }

    /// Loads the inputs of a stage and calls `train`.
    fn stage(&self, name: StageName, train: impl FnOnce(&Stage, &mut InternVl) -> Result<()>) -> Result<()> {
        // CadQuery starts while the data is read. It may be needed only after long training, and a
        // fault must show before that.
        let scorer = self.training_scorer()?;
        let training = self.dataset(Split::Train)?;
        let validation = self.dataset(Split::Validation)?;
        self.prepare_model(&training)?;
        let path = self.starting_path(name)?;
        let info = scorer.ready()?;
        self.world.say(&format!("{name}: {}", info.sandbox_line()));
        let ranks = if self.world.size() > 1 { format!(", {} ranks", self.world.size()) } else { String::new() };
        self.world.say(&format!(
            "{name}: {} training parts, {} validation parts, {:?}{ranks}",
            training.len(),
            validation.len(),
            self.device
        ));
        let mut policy = self.starting_policy(name, &path)?;
        self.check_alike(&[&training, &validation], &policy.model)?;
        let stage = Stage {
            config: &self.config,
            world: self.world,
            train: &training,
            validation: &validation,
            tokenizer: &policy.tokenizer,
            prompt: policy.prompt,
            configured_prompt: policies::training_prompt(&self.config, Some(&self.model_dir()?))?,
            prior: learned_from(&training),
            scorer: &scorer,
            run_dir: self.dir.clone(),
            base_model: self.base_model_name()?,
        };
        train(&stage, &mut policy.model)
    }

    /// Checks that all ranks start from the same rows and weights, of which each may have a copy of
    /// its own.
    fn check_alike(&self, datasets: &[&Dataset], model: &InternVl) -> Result<()> {
        if self.world.size() == 1 {
            return Ok(());
        }
        let rows: Vec<(usize, String)> = datasets.iter().map(|rows| (rows.len(), rows.digest())).collect();
        let all = self.world.gather("what the ranks start from", (rows, model.weights().checksum()))?;
        let (first_rows, first_weights) = &all[0];
        for (rank, (rows, weights)) in all.iter().enumerate() {
            ensure!(
                rows == first_rows,
                "rank {rank} has other rows of data than rank 0: training and validation {rows:?} there, {first_rows:?} on rank 0"
            );
            ensure!(
                weights == first_weights,
                "rank {rank} starts from other weights than rank 0: compare their copies"
            );
        }
        Ok(())
    }

    /// The content of `result.json`, which a stage writes when it is done.
    fn result(&self, stage: StageName) -> Option<Value> {
        read_json(&self.dir.join(stage.name()).join("result.json"))
    }
}

/// A limit of steps that more SFT never reaches, because its time ends it before.
const MORE_SFT_STEPS: usize = 1_000_000;

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
