//! A whole run: data, model, SFT, PPO, evaluation; each part is skipped where its result is already there.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use cadwright_rewards::frames::Frame;
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use serde_json::{Map, Value, json};
use tch::{Cuda, Device, Kind};

use super::checkpoint::replace_directory;
use super::compare::Comparison;
use super::evaluate::{EvalOptions, Prediction, Questions, Report, evaluate};
use super::pictures::Pictures;
use super::{Stage, ppo, sft};
use crate::config::{Config, Sft, Source, Template, Tune};
use crate::data::synth::{self, SynthConfig};
use crate::data::{DataSource, Dataset, Selection, Split};
use crate::generate::Sampling;
use crate::hub::{is_hub_id, resolve_checkpoint};
use crate::model::{InternVl, InternVlConfig, Layout, LoraConfig, Prompt, Tokenizer, Weights, is_language, lora};
use crate::telemetry::{Telemetry, duration, write_whole};

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

    /// The split, made or downloaded where needed.
    fn dataset(&self, split: Split) -> Result<Dataset> {
        let train_limit = self.config.data.train_limit;
        let limit = (split == Split::Train && train_limit > 0).then_some(train_limit);
        let mut dataset = open_dataset(&self.data_source()?, Selection { limit, ..Selection::all(split) })?;
        if split == Split::Train && self.config.data.programs_limit > 0 {
            dataset.keep_programs(self.config.data.programs_limit);
        }
        Ok(dataset)
    }

    fn data_source(&self) -> Result<DataSource> {
        let data = &self.config.data;
        Ok(match data.source {
            Source::Synth => {
                let directory = self.dir.join("data");
                if !directory.exists() {
                    // Aside first: where the run is killed meanwhile, the next one makes them anew.
                    replace_directory(&directory, |aside| {
                        let options = synth_options(&self.config, aside);
                        eprintln!("data: making {} synthetic parts", options.count);
                        synth::generate(&options)?;
                        Ok(())
                    })?;
                }
                DataSource::Path(directory)
            }
            Source::Parquet => DataSource::Path(PathBuf::from(&data.path)),
            Source::Hub => DataSource::Hub { repo: data.repo.clone(), revision: data.revision.clone() },
        })
    }

    /// A random model in the run directory, where the configuration names none.
    fn prepare_model(&self, train: &Dataset) -> Result<()> {
        let directory = self.dir.join("model");
        if !self.config.model.path.is_empty() || directory.exists() {
            return Ok(());
        }
        // A model that is made has no template of its own.
        let prompt = configured_prompt(&self.config, None)?;
        replace_directory(&directory, |aside| {
            let preset = InternVlConfig::preset(&self.config.model.preset, 0)?;
            // The prompt is in every example: its words deserve tokens as much as the programs' do.
            let prompt = prompt.text(preset.tokens_per_tile());
            let programs: Vec<&str> =
                train.examples().iter().filter_map(|example| example.program.as_deref()).collect();
            ensure!(
                !programs.is_empty(),
                "no training row has a program: a new model's tokenizer is made from programs"
            );
            let texts = (0..programs.len()).flat_map(|i| [prompt.as_str(), programs[i]]);
            let tokenizer = Tokenizer::train(texts, self.config.model.vocab_size)?;
            let config = InternVlConfig::preset(&self.config.model.preset, tokenizer.vocab_size() as i64)?;
            let weights = Weights::random(&config, i64::from(self.config.run.seed), Kind::Float, Device::Cpu);
            let parameters: usize = weights.iter().map(|(_, tensor)| tensor.numel()).sum();
            eprintln!(
                "model: {} of {:.1} M parameters, {} tokens",
                self.config.model.preset,
                parameters as f64 / 1e6,
                tokenizer.vocab_size()
            );
            tokenizer.save(aside)?;
            Ok(InternVl::new(config, weights, None, Kind::Float).save(aside, Layout::Original)?)
        })
    }

    fn model_dir(&self) -> Result<PathBuf> {
        if let Some(directory) = self.model_dir.get() {
            return Ok(directory.clone());
        }
        let directory = match self.config.model.path.as_str() {
            "" => self.dir.join("model"),
            path => resolve_checkpoint(path, &self.config.model.revision)?,
        };
        Ok(self.model_dir.get_or_init(|| directory).clone())
    }

    fn base_model(&self) -> Result<InternVl> {
        let store = match self.config.model.tune {
            Tune::Full => Kind::Float,
            Tune::Lora => self.compute(),
        };
        Ok(InternVl::load(&self.model_dir()?, store, self.compute(), self.device)?)
    }

    /// Dtype of the products.
    fn compute(&self) -> Kind {
        self.config.model.dtype.kind_on(self.device)
    }

    fn lora(&self, dropout: f64) -> LoraConfig {
        let lora = &self.config.lora;
        LoraConfig {
            r: lora.rank as i64,
            lora_alpha: lora.alpha,
            lora_dropout: dropout,
            target_modules: lora.target_modules.clone(),
            use_rslora: lora.rslora,
            modules_to_save: None,
        }
    }

    /// What the policy of a stage was trained with; where there is none yet, what the configuration says.
    fn prompt(&self, stage: &str) -> Result<Prompt> {
        match Prompt::of(&self.dir.join(stage).join("best"))? {
            Some(prompt) => Ok(prompt),
            None => configured_prompt(&self.config, Some(&self.model_dir()?)),
        }
    }

    fn scorer(&self, grid: usize, frames: &[Frame]) -> Result<Scorer> {
        scorer(&self.config, &self.config.rollout.engine, grid, frames, Some(self.cache_dir()))
    }

    fn cache_dir(&self) -> PathBuf {
        match self.config.rollout.cache_dir.as_str() {
            "" => self.dir.join("cache"),
            path => PathBuf::from(path),
        }
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

    /// Writes `summary.json` and prints the table: the plateau, the control where there is one, and PPO.
    fn summarise(&self) -> Result<()> {
        let mut summary = Map::new();
        let mut seconds = Map::new();
        let predictions = |stage: &str| read_json(&self.dir.join("eval").join(stage).join("predictions.json"));
        let head = ["VSR [95 %]", "IoU over all [95 %]", "IoU less SFT's [95 %]"];
        println!("\n{:<8} {:>6}  {:<21}  {:<21}  {}", "", "parts", head[0], head[1], head[2]);
        for stage in ["sft", "control", "ppo"] {
            let Some(report) = read_json(&self.dir.join("eval").join(stage).join("summary.json")) else { continue };
            let number = |key: &str| report[key].as_f64().unwrap_or_default();
            let interval = |key: &str| {
                let ends = [0, 1].map(|end| report[key][end].as_f64().unwrap_or_default());
                format!("[{:.3}, {:.3}]", ends[0], ends[1])
            };
            let parts = report["n"].as_u64().unwrap_or_default();
            let vsr = format!("{:.3} {}", number("vsr"), interval("vsr_ci95"));
            let iou = format!("{:.3} {}", number("iou"), interval("iou_ci95"));
            let less_sft = match (stage, predictions("sft"), predictions(stage)) {
                ("sft", ..) | (_, None, _) | (.., None) => String::new(),
                (_, Some(a), Some(b)) => {
                    let comparison = Comparison::new(&a, &b, false).map_err(|problem| anyhow!("eval: {problem}"))?;
                    let iou = &comparison.differences[0];
                    format!("{:+.3} [{:+.3}, {:+.3}]", iou.b - iou.a, iou.ci95[0], iou.ci95[1])
                }
            };
            let name = if stage == "control" { "control".to_owned() } else { stage.to_uppercase() };
            println!("{name:<8} {parts:>6}  {vsr:<21}  {iou:<21}  {less_sft}");
            if let Some(result) = read_json(&self.dir.join(stage).join("result.json")) {
                seconds.insert(stage.into(), result["seconds"].clone());
            }
            seconds.insert(format!("eval_{stage}"), report["seconds"].clone());
            summary.insert(stage.into(), report);
        }
        if summary.contains_key("control") {
            println!("\ncontrol: SFT from the same checkpoint, for as long as PPO took");
        }
        // The sum: this process may have found some of it done.
        let total: f64 = seconds.values().filter_map(Value::as_f64).sum();
        seconds.insert("total".into(), json!(total));
        summary.insert("seconds".into(), Value::Object(seconds));
        write_whole(&self.dir.join("summary.json"), &format!("{:#}\n", Value::Object(summary)))?;
        println!(
            "\n{}; IoU is solid IoU in the {} frame, failures count 0, executed by CadQuery.\nCurves: .venv/bin/tensorboard --logdir {}",
            duration(self.started.elapsed().as_secs_f64()),
            self.config.eval.frames[0],
            self.dir.join("tensorboard").display()
        );
        Ok(())
    }
}

/// More than any time suffices for.
const CONTROL_STEPS: usize = 1_000_000;

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// An evaluated policy.
pub struct Evaluation {
    /// Predictions in the order of the rows.
    pub predictions: Vec<Prediction>,
    /// Counts and means over them.
    pub report: Report,
    /// The frame of tables: the first of `eval.frames`.
    pub frame: Frame,
    engine: String,
    seconds: f64,
}

impl Evaluation {
    /// Evaluates `model` on the first `eval.num_samples` rows, with real CadQuery.
    ///
    /// # Errors
    /// The scorer cannot start or go on.
    pub fn run(
        config: &Config,
        model: &InternVl,
        tokenizer: &Tokenizer,
        dataset: &Dataset,
        prompt: &Prompt,
        cache_dir: Option<PathBuf>,
    ) -> Result<Self> {
        tokenizer.check_fits(model.config.llm_config.vocab_size)?;
        ensure_positions(config, &model.config)?;
        let started = Instant::now();
        let eval = &config.eval;
        let frames = config.eval_frames();
        let scorer = scorer(config, &eval.engine, eval.grid, &frames, cache_dir)?;
        let n = if eval.num_samples == 0 { dataset.len() } else { eval.num_samples.min(dataset.len()) };
        let indices: Vec<usize> = (0..n).collect();
        scorer.ready()?;
        scorer.prefetch(dataset.examples()[..n].iter().map(|example| example.ground_truth.clone()));
        let pictures = Pictures::new(dataset, config.model.max_tiles, 0);
        let questions = Questions { dataset, pictures: &pictures, prompt, tokenizer };
        let sampling = Sampling {
            temperature: eval.temperature,
            top_p: eval.top_p,
            max_new_tokens: config.generate.max_new_tokens,
        };
        let options = EvalOptions {
            sampling,
            samples: eval.samples_per_image,
            batch_size: config.generate.batch_size,
            seed: u64::from(config.run.seed),
        };
        let predictions = evaluate(&model.frozen_copy(), &questions, &indices, &scorer, options, |done| {
            eprintln!("eval {done}/{n}");
        })?;
        let report = Report::new(&predictions, eval.samples_per_image, &frames, &eval.thresholds);
        let (engine, seconds) = (eval.engine.clone(), started.elapsed().as_secs_f64());
        Ok(Self { predictions, report, frame: frames[0], engine, seconds })
    }

    /// `{"sample_<i>": {"predicted_code", "ground_truth_code", "outcome", "iou", ..}}`, `iou` in the first frame. With several
    /// samples of a part these are the first one's, and `samples` lists `{"predicted_code", "outcome", "iou"}` of all. Where the
    /// ground truth is a file, `ground_truth_code` is null and `ground_truth_mesh` the hash of its content.
    pub fn predictions_json(&self, dataset: &Dataset) -> String {
        let row = |(i, samples): (usize, &[Prediction])| {
            let prediction = &samples[0];
            let score = &prediction.score;
            let ground_truth = &dataset.examples()[prediction.index].ground_truth;
            let mut row = json!({
                "id": prediction.id,
                "predicted_code": prediction.program,
                "ground_truth_code": ground_truth.program(),
                "outcome": score.verdict.name(),
                "error": score.error,
                "malformed": score.malformed,
                "truncated": prediction.truncated,
                "iou": score.iou_in(self.frame),
                "ious": score.iou,
                "ground_truth_error": score.ground_truth_error,
            });
            if let Some(shape) = ground_truth.shape() {
                row["ground_truth_mesh"] = json!(format!("blake3:{}", shape.digest()));
            }
            if samples.len() > 1 {
                let sample = |p: &Prediction| {
                    let (outcome, iou) = (p.score.verdict.name(), p.score.iou_in(self.frame));
                    json!({"predicted_code": p.program, "outcome": outcome, "iou": iou})
                };
                row["samples"] = samples.iter().map(sample).collect();
            }
            (format!("sample_{i}"), row)
        };
        let parts = self.predictions.chunks(self.report.samples);
        format!("{:#}\n", Value::Object(parts.enumerate().map(row).collect()))
    }

    /// The report as JSON with the time it took.
    pub fn to_json(&self) -> Value {
        let mut json = self.report.to_json(self.frame);
        json["engine"] = json!(self.engine);
        json["seconds"] = json!(self.seconds);
        json
    }

    /// The report in one line.
    pub fn line(&self) -> String {
        let frame = self.frame.name();
        let (iou, [low, high], valid) = self.report.iou.get(&self.frame).copied().unwrap_or_default();
        let mut text = format!(
            "{} parts: VSR {:.3}, IoU ({frame}) over all {iou:.3} [{low:.3}, {high:.3}], over valid {valid:.3}, in {}",
            self.report.n,
            self.report.vsr,
            duration(self.seconds)
        );
        for at in &self.report.at_k {
            let (best, [low, high]) = at.best;
            text += &format!("\n  k = {:<3} best IoU {best:.3} [{low:.3}, {high:.3}]  pass", at.k);
            for (threshold, mean, _) in &at.pass {
                text += &format!("  {mean:.3} (IoU >= {threshold})");
            }
        }
        text
    }
}

/// Room for keys and values is made for all of `generate.max_new_tokens`.
fn ensure_positions(config: &Config, model: &InternVlConfig) -> Result<()> {
    let (tokens, positions) = (config.generate.max_new_tokens, model.llm_config.max_position_embeddings);
    ensure!(
        tokens <= positions.max(0) as usize,
        "generate.max_new_tokens = {tokens} is more than max_position_embeddings = {positions} of the model's config.json"
    );
    Ok(())
}

/// A scorer with the configuration's limits.
///
/// # Errors
/// CadQuery cannot be started.
pub fn scorer(
    config: &Config,
    engine: &str,
    grid: usize,
    frames: &[Frame],
    cache_dir: Option<PathBuf>,
) -> Result<Scorer> {
    let rollout = &config.rollout;
    Ok(Scorer::new(ScorerConfig {
        engine: engine.parse::<Engine>()?,
        jobs: rollout.workers,
        timeout_s: rollout.timeout_s,
        memory_mib: rollout.memory_mib,
        grid,
        frames: frames.to_vec(),
        reward: config.reward.clone(),
        cache_dir,
        ..ScorerConfig::default()
    })?)
}

/// `auto`, `cpu`, `cuda`, `cuda:1`.
///
/// # Errors
/// A device that does not exist here.
pub fn device(name: &str) -> Result<Device> {
    let device = match name {
        "auto" => Device::cuda_if_available(),
        "cpu" => Device::Cpu,
        "cuda" => Device::Cuda(0),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Device::Cuda(index),
            None => bail!("run.device = {other:?}: expected auto, cpu, cuda or cuda:<index>"),
        },
    };
    if let Device::Cuda(index) = device {
        let count = Cuda::device_count();
        ensure!(
            (index as i64) < count,
            "run.device = {name:?}: there are {count} CUDA devices; see `cadwright doctor`"
        );
    }
    Ok(device)
}

/// Each key that decides what comes out, with both values where they differ, in sections that `is_bound`.
fn differing_keys(before: &str, now: &str, is_bound: impl Fn(&str) -> bool) -> Vec<String> {
    // Where programs run and how many at once does not change what comes out.
    const HARMLESS: [&str; 5] =
        ["run.output_dir", "run.threads", "run.control", "rollout.workers", "rollout.cache_dir"];
    fn walk(before: &toml::Table, now: &toml::Table, prefix: &str, differing: &mut Vec<String>) {
        for (key, value) in now {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match (before.get(key), value) {
                (Some(toml::Value::Table(before)), toml::Value::Table(now)) => walk(before, now, &path, differing),
                (Some(before), now) if before == now || HARMLESS.contains(&path.as_str()) => {}
                (Some(before), now) => differing.push(format!("{path} = {before} there, {now} now")),
                (None, now) => differing.push(format!("{path} not there, {now} now")),
            }
        }
    }
    let parse = |text: &str| {
        let mut table = text.parse::<toml::Table>().unwrap_or_default();
        table.retain(|section, _| is_bound(section));
        table
    };
    let mut differing = Vec::new();
    walk(&parse(before), &parse(now), "", &mut differing);
    differing
}

fn synth_options(config: &Config, directory: &Path) -> SynthConfig {
    let synth = &config.data.synth;
    SynthConfig {
        count: synth.train + synth.validation + synth.test,
        seed: u64::from(config.run.seed),
        output: directory.into(),
        grid: synth.grid,
        numbers: synth.numbers,
        image_size: synth.image_size,
        validation_count: Some(synth.validation),
        test_count: Some(synth.test),
        ..SynthConfig::default()
    }
}

/// Opens what is selected and says which rows are skipped.
///
/// # Errors
/// See [`Dataset::open_selection`].
pub fn open_dataset(source: &DataSource, selection: Selection) -> Result<Dataset> {
    let dataset = Dataset::open_selection(source, selection)?;
    if let Some(first) = dataset.skipped.first() {
        let count = dataset.skipped.len();
        eprintln!("data: {count} rows of the {} split are unusable and skipped; the first: {first}", selection.split);
    }
    Ok(dataset)
}

/// The prompt that the configuration asks for, of a model in the directory `checkpoint`.
///
/// # Errors
/// See [`Prompt::new`].
pub fn configured_prompt(config: &Config, checkpoint: Option<&Path>) -> Result<Prompt> {
    let prompt = &config.prompt;
    let checkpoint = checkpoint.filter(|_| prompt.template == Template::Auto);
    Ok(Prompt::new(checkpoint, &prompt.system, &prompt.user)?)
}
