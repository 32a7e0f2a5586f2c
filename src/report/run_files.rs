//! The files of a run, as far as they are there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::curves::{Curve, curves};
use crate::config::Config;
use crate::run::StageName;

/// The stages in the order of tables.
pub const STAGES: [StageName; 3] = [StageName::Sft, StageName::MoreSft, StageName::Ppo];

/// What is in a run directory.
pub struct RunFiles {
    pub directory: PathBuf,
    /// `run.json`; null if it is missing.
    pub about: Value,
    /// The text of `config.toml`; empty if it is missing.
    pub config_text: String,
    /// `config.toml`, if it is of this version.
    pub config: Option<Config>,
    pub curves: Vec<Curve>,
    /// `<stage>/result.json` of each stage of [`STAGES`] that has ended.
    pub stage_results: Vec<(StageName, Value)>,
    /// `eval/<stage>/predictions.json`, by stage.
    pub predictions: Vec<(StageName, Value)>,
    /// A sentence for each thing that is missing or damaged.
    pub missing: Vec<String>,
}

impl RunFiles {
    /// Reads what is there.
    ///
    /// # Errors
    /// `directory` has neither `run.json` nor `config.toml`, so it is not of a run.
    pub fn read(directory: &Path) -> Result<Self> {
        ensure!(directory.exists(), "{}: no such run directory", directory.display());
        ensure!(directory.is_dir(), "{}: a file; name the directory of a run (run.output_dir)", directory.display());
        let is_run = ["run.json", "config.toml"].iter().any(|name| directory.join(name).exists());
        ensure!(
            is_run,
            "{}: not a run directory: it has neither run.json nor config.toml; name a directory that `cadwright run` \
             wrote (run.output_dir)",
            directory.display()
        );
        let mut run = Self {
            directory: directory.to_owned(),
            about: Value::Null,
            config_text: String::new(),
            config: None,
            curves: Vec::new(),
            stage_results: Vec::new(),
            predictions: Vec::new(),
            missing: Vec::new(),
        };
        run.about = run.json("run.json").unwrap_or_default();
        run.read_config();
        run.read_metrics();
        run.read_stages();
        Ok(run)
    }

    fn read_config(&mut self) {
        let path = self.directory.join("config.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => self.config_text = text,
            Err(error) => return self.missing.push(format!("config.toml cannot be read: {error}.")),
        }
        match Config::load(Some(&path), &[]) {
            Ok(config) => self.config = Some(config),
            Err(error) => {
                self.missing.push(format!("config.toml is not of this version, so its data is not opened: {error}."))
            }
        }
    }

    fn read_metrics(&mut self) {
        match std::fs::read(self.directory.join("metrics.jsonl")) {
            Ok(bytes) => {
                let (curves, damaged) = curves(&String::from_utf8_lossy(&bytes));
                self.curves = curves;
                if damaged > 0 {
                    self.missing.push(format!("{damaged} lines of metrics.jsonl are damaged and left out."));
                }
            }
            Err(error) => self.missing.push(format!("There are no curves: metrics.jsonl cannot be read: {error}.")),
        }
    }

    fn read_stages(&mut self) {
        for stage in STAGES {
            let has_begun = self.directory.join(stage.name()).exists() || self.has_curves(stage.name());
            match self.json(&format!("{stage}/result.json")) {
                Some(result) => self.stage_results.push((stage, result)),
                None if has_begun => self.missing.push(format!("Stage {stage} has begun and has not ended.")),
                None if self.is_expected(stage) => self.missing.push(format!("Stage {stage} has not begun.")),
                None => {}
            }
            let evaluation = format!("eval/{stage}");
            if let Some(predictions) = self.json(&format!("{evaluation}/predictions.json")) {
                self.predictions.push((stage, predictions));
            } else if has_begun && !self.directory.join(&evaluation).join("predictions.json").exists() {
                self.missing.push(format!(
                    "The policy of stage {stage} has no {evaluation}/predictions.json: it was not evaluated."
                ));
            }
        }
    }

    fn has_curves(&self, stage: &str) -> bool {
        self.curves.iter().any(|curve| curve.stage == stage)
    }

    /// Whether the configuration asks for a stage.
    fn is_expected(&self, stage: StageName) -> bool {
        self.config.as_ref().is_some_and(|config| match stage {
            StageName::Sft => config.ppo.start == crate::config::PpoStart::Sft,
            StageName::Ppo => config.ppo.steps > 0,
            StageName::MoreSft => config.run.control && config.ppo.steps > 0,
        })
    }

    /// The JSON in a file of the run; `None` if it is missing. A damaged one is reported.
    fn json(&mut self, name: &str) -> Option<Value> {
        let path = self.directory.join(name);
        if !path.exists() {
            if name == "run.json" {
                self.missing.push("run.json is missing.".to_owned());
            }
            return None;
        }
        let read = || -> Result<Value> {
            let text = std::fs::read_to_string(&path).context("cannot be read")?;
            serde_json::from_str(&text).context("is damaged")
        };
        match read() {
            Ok(value) => Some(value),
            Err(error) => {
                self.missing.push(format!("{name} {error:#}."));
                None
            }
        }
    }

    /// The stages that have begun: name, steps, seconds, the best step and its validation IoU.
    pub fn stages(&self) -> Vec<Value> {
        let stage = |stage: &StageName| {
            let result = self.stage_results.iter().find(|(name, _)| name == stage).map(|(_, result)| result.clone());
            let last =
                self.curves.iter().filter(|curve| curve.stage == stage.name()).filter_map(Curve::last_step).max();
            if result.is_none() && last.is_none() {
                return None;
            }
            let mut row = Map::from_iter([
                ("name".to_owned(), json!(stage.name())),
                ("ended".to_owned(), json!(result.is_some())),
            ]);
            if let Some(last) = last {
                row.insert("steps".to_owned(), json!(last + 1));
            }
            row.extend(result.as_ref().and_then(Value::as_object).cloned().unwrap_or_default());
            Some(Value::Object(row))
        };
        STAGES.iter().filter_map(stage).collect()
    }

    /// What was run, in a few rows.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let Some(config) = &self.config else { return Vec::new() };
        let model = match config.model.path.as_str() {
            "" => format!("{}, random weights", word(&config.model.preset)),
            path => path.to_owned(),
        };
        let data = match word(&config.data.source).as_str() {
            "synth" => format!("{} synthetic training parts", config.data.synth.train),
            "hub" => config.data.repo.clone(),
            source => format!("{source} {}", config.data.path.display()),
        };
        let mut facts = vec![
            ("Model", model),
            ("Trained weights", word(&config.model.tune)),
            ("Data", data),
            ("Evaluated split", config.eval.split.to_string()),
        ];
        if config.data.programs_limit > 0 {
            facts.push(("Parts with a program", config.data.programs_limit.to_string()));
        }
        if config.ppo.steps > 0 {
            facts.push(("RL algorithm", word(&config.ppo.algorithm)));
        }
        facts
    }
}

/// A value of a configuration as the file spells it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
