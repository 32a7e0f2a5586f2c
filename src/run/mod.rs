//! A whole run: data, model, SFT, PPO, evaluation; each part is skipped where its result is already there.

mod inputs;
mod resume;
mod table;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::config::{Config, Sft, Tune};
use crate::data::Split;
use crate::device::device;
use crate::eval::{Evaluation, ensure_positions};
use crate::files::write_whole;
use crate::hub::is_hub_id;
use crate::model::{InternVl, InternVlConfig, Tokenizer, is_language, lora};
use crate::telemetry::Telemetry;
use crate::train::{Stage, ppo, sft};
pub use inputs::{configured_prompt, open_dataset};
use resume::differing_keys;

/// A run directory with its configuration.
pub struct Run {
    config: Config,
    dir: PathBuf,
    device: Device,
    started: Instant,
    /// The checkpoint that training starts from: asked for once, so that all stages have the same.
    model_dir: OnceLock<PathBuf>,
}

/// A trained policy: the directory of a checkpoint and, with LoRA, that of its adapter.
#[derive(Debug, Clone)]
pub struct PolicyPath {
    /// Checkpoint directory.
    pub model: PathBuf,
    /// Adapter directory.
    pub lora: Option<PathBuf>,
}

impl Run {
    /// Makes the run directory and writes down what is run: `config.toml` and `run.json`.
    ///
    /// Where SFT is done, `[sft]` and `[lora]` are what it was done with, whatever `config` says. Sections whose stage has
    /// not begun may still change; all others must be as they were.
    ///
    /// # Errors
    /// A directory that cannot be written, or one that holds a run of another configuration.
    pub fn open(mut config: Config) -> Result<Self> {
        let dir = config.output_dir();
        let path = dir.join("config.toml");
        let before = path.exists().then(|| Config::load(Some(&path), &[])).transpose();
        let before = before.with_context(|| {
            format!("{} is not of this version; choose another --set run.output_dir=..", dir.display())
        })?;
        if let (Some(before), true) = (&before, dir.join("sft/result.json").exists()) {
            if (&config.sft, &config.lora) != (&before.sft, &before.lora) {
                eprintln!("sft: done before, with other values of [sft] or [lora]: those in {} stand", path.display());
            }
            config.sft = before.sft.clone();
            config.lora = before.lora.clone();
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create run.output_dir = {}", dir.display()))?;
        let device = device(&config.run.device)?;
        config.model.dtype = config.model.dtype.on(device);
        let resolved = config.to_toml();
        if let Some(before) = before {
            let has_begun = |section: &str| !matches!(section, "ppo" | "eval") || dir.join(section).exists();
            let differing: Vec<String> = differing_keys(&before.to_toml(), &resolved, has_begun);
            ensure!(
                differing.is_empty(),
                "{} holds a run with other values: {}; choose another --set run.output_dir=.. or delete it",
                dir.display(),
                differing.join(", ")
            );
        }
        write_whole(&path, &resolved)?;
        if config.run.threads > 0 {
            tch::set_num_threads(config.run.threads as i32);
        }
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("CADWRIGHT_COMMIT"),
            "seed": config.run.seed,
            "device": format!("{device:?}"),
            "threads": tch::get_num_threads(),
            "command": std::env::args().collect::<Vec<_>>(),
        });
        write_whole(&dir.join("run.json"), &format!("{about:#}\n"))?;
        Ok(Self { config, dir, device, started: Instant::now(), model_dir: OnceLock::new() })
    }

    /// Every stage, then the table.
    ///
    /// # Errors
    /// What a stage says.
    pub fn all(&self) -> Result<()> {
        self.sft()?;
        if self.config.ppo.steps > 0 {
            // SFT's score stands before PPO starts, whatever becomes of PPO.
            self.evaluate_stage("sft")?;
            self.ppo()?;
            self.evaluate_stage("ppo")?;
            if self.config.run.control {
                self.control()?;
                self.evaluate_stage("control")?;
            }
        } else {
            self.evaluate_stage("sft")?;
        }
        self.summarise()
    }

    /// Supervised fine-tuning, unless it is done.
    ///
    /// # Errors
    /// Data, model or scorer cannot be had, or the stage fails.
    pub fn sft(&self) -> Result<()> {
        self.stage("sft", |stage| {
            let mut model = self.base_model()?;
            if self.config.model.tune == Tune::Lora {
                model = model.with_new_adapter(self.lora(self.config.lora.dropout), i64::from(self.config.run.seed))?;
            }
            self.set_trainable(&mut model, false);
            let outside = model.weights().trainable().map(|(name, _)| name).find(|name| !is_language(name));
            if let (Tune::Lora, Some(name)) = (self.config.model.tune, outside) {
                bail!(
                    "lora.target_modules = {:?} names {name}: adapters are trained in the language model only",
                    self.config.lora.target_modules
                );
            }
            sft::train(stage, "sft", &self.config.sft, &mut model)
        })
    }

    /// More supervised fine-tuning, from the SFT policy and for as long as PPO took, unless it is done.
    ///
    /// # Errors
    /// As [`Self::ppo`]; also where PPO is not done.
    pub fn control(&self) -> Result<()> {
        self.stage("control", |stage| {
            let seconds = self.dir.join("ppo/result.json");
            let seconds = read_json(&seconds).and_then(|result| result["seconds"].as_f64());
            let max_seconds = seconds.context("run.control: PPO is not done, so its time is not known")?;
            let mut model = self.load_policy(&self.policy_path("sft")?, Kind::Float)?;
            self.set_trainable(&mut model, false);
            let sft = Sft { max_steps: CONTROL_STEPS, max_seconds, ..self.config.sft.clone() };
            sft::train(stage, "control", &sft, &mut model)
        })
    }

    /// PPO may leave the vision tower alone where SFT does not.
    fn set_trainable(&self, model: &mut InternVl, is_ppo: bool) {
        match self.config.model.tune {
            Tune::Full => {
                let is_frozen = self.config.model.freeze_vision || is_ppo && self.config.ppo.freeze_vision;
                model.weights_mut().set_trainable(|name| !is_frozen || is_language(name));
            }
            Tune::Lora => model.weights_mut().set_trainable(lora::is_adapter),
        }
    }

    /// PPO from the SFT policy, unless it is done.
    ///
    /// # Errors
    /// As [`Self::sft`]; also where there is no SFT policy.
    pub fn ppo(&self) -> Result<()> {
        self.stage("ppo", |stage| {
            let mut model = self.load_policy(&self.policy_path("sft")?, Kind::Float)?;
            self.set_trainable(&mut model, true);
            ppo::train(stage, &mut model)
        })
    }

    fn stage(&self, name: &'static str, train: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
        if self.dir.join(name).join("result.json").exists() {
            eprintln!("{name}: done before");
            return Ok(());
        }
        // CadQuery starts while the data is read. Training may be long before it first scores; better to fail now.
        let scorer = self.scorer(self.config.rollout.grid, &[self.config.reward_frame()])?;
        let training = self.dataset(Split::Train)?;
        let validation = self.dataset(Split::Validation)?;
        self.prepare_model(&training)?;
        let tokenizer = Tokenizer::load(&self.model_dir()?)?;
        let model = InternVlConfig::read(&self.model_dir()?)?;
        tokenizer.check_fits(model.llm_config.vocab_size)?;
        ensure_positions(&self.config, &model)?;
        scorer.ready()?;
        let stage = Stage {
            config: &self.config,
            train: &training,
            validation: &validation,
            tokenizer: &tokenizer,
            prompt: self.prompt("sft")?,
            scorer: &scorer,
            run_dir: self.dir.clone(),
            base_model: match self.config.model.path.as_str() {
                path if is_hub_id(path) && !Path::new(path).exists() => path.to_owned(),
                _ => self.model_dir()?.display().to_string(),
            },
        };
        eprintln!(
            "{name}: {} training parts, {} validation parts, {:?}",
            training.len(),
            validation.len(),
            self.device
        );
        train(&stage)
    }

    /// Where the best policy of a stage lies.
    ///
    /// # Errors
    /// The checkpoint under an adapter cannot be had.
    pub fn policy_path(&self, stage: &str) -> Result<PolicyPath> {
        let best = self.dir.join(stage).join("best");
        Ok(match self.config.model.tune {
            Tune::Full => PolicyPath { model: best, lora: None },
            Tune::Lora => PolicyPath { model: self.model_dir()?, lora: Some(best) },
        })
    }

    /// A policy whose weights, where all were tuned, are kept at dtype `store`.
    fn load_policy(&self, path: &PolicyPath, store: Kind) -> Result<InternVl> {
        let required = path.lora.as_ref().unwrap_or(&path.model);
        if !required.exists() {
            bail!("{}: no policy to start from; run `cadwright sft` with this config first", required.display());
        }
        let model = match self.config.model.tune {
            Tune::Full => InternVl::load(&path.model, store, self.compute(), self.device)?,
            Tune::Lora => self.base_model()?,
        };
        match &path.lora {
            Some(lora) => Ok(model.with_adapter(lora)?),
            None => Ok(model),
        }
    }

    /// Evaluates a stage's best policy on `eval.split` with real CadQuery, unless that is done.
    ///
    /// # Errors
    /// As [`Self::sft`].
    pub fn evaluate_stage(&self, name: &str) -> Result<()> {
        let directory = self.dir.join("eval").join(name);
        if directory.join("summary.json").exists() {
            eprintln!("eval: {name} done before");
            return Ok(());
        }
        // As `cadwright eval` loads it, so that both say the same.
        let model = self.load_policy(&self.policy_path(name)?, self.compute())?;
        let tokenizer = Tokenizer::load(&self.model_dir()?)?;
        let prompt = self.prompt(name)?;
        let dataset = open_dataset(&self.data_source()?, self.config.eval_selection())?;
        let evaluation = Evaluation::run(&self.config, &model, &tokenizer, &dataset, &prompt, Some(self.cache_dir()))?;
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let step = if name == "ppo" { self.config.ppo.steps } else { 0 };
        let mut telemetry = Telemetry::open(&self.dir, "eval", step, step + 1)?;
        let frame = evaluation.frame;
        telemetry.record(step, &[("vsr", evaluation.report.vsr), ("iou", evaluation.report.iou_in(frame))])?;
        write_whole(&directory.join("predictions.json"), &evaluation.predictions_json(&dataset))?;
        write_whole(&directory.join("summary.json"), &format!("{:#}\n", evaluation.to_json()))?;
        eprintln!("eval: {name}  {}", evaluation.line());
        Ok(())
    }
}

/// More than any time suffices for.
const CONTROL_STEPS: usize = 1_000_000;

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
