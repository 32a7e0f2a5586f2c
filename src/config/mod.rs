//! From TOML and flags to one checked [`Config`]. Nothing else reads config files or `--set`.

mod keys;
mod section;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cadwright_rewards::frames::Frame;
use cadwright_rollout::{Engine, GRID_RANGE};
use toml::{Table, Value};

use crate::data::{Selection, Split};

pub use keys::*;

/// A configuration that cannot be used: every reason at once.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not valid TOML: {reason}")]
    Syntax {
        /// The file or flag.
        origin: String,
        /// The parser's answer.
        reason: String,
    },
    /// Keys that do not exist, values of the wrong type, or values that contradict each other.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// Beyond any machine; libtorch aborts on more than it can have.
const MOST_THREADS: usize = 4096;

impl Config {
    /// Reads a TOML file (none: the defaults), lays `overrides` (`section.key=value`) over it and checks the result.
    ///
    /// # Errors
    /// Everything that is wrong, at once: unknown keys with the nearest known one, wrong types, contradictions.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut config = match path {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
                let origin = path.display().to_string();
                let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
                    origin: origin.clone(),
                    reason: match error.span() {
                        Some(span) => {
                            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                            format!("line {line}: {}", error.message())
                        }
                        None => error.message().to_owned(),
                    },
                })?;
                Self::default().with(&table, &origin)?
            }
            None => Self::default(),
        };
        if let (Some(path), "") = (path, config.run.output_dir.as_str()) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            config.run.output_dir = format!("runs/{name}");
        }
        for text in overrides {
            config = config.with(&parse_override(text)?, &format!("--set {text}"))?;
        }
        if config.run.output_dir.is_empty() {
            config.run.output_dir = "runs/default".into();
        }
        let problems = config.contradictions();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// This configuration with the values of `table`, which came from `origin`.
    fn with(&self, table: &Table, origin: &str) -> Result<Self, ConfigError> {
        let serialised = "a Config is plain data and always serialises";
        let mut merged = Table::try_from(self).expect(serialised);
        let mut problems = Vec::new();
        merge(&mut merged, table, "", origin, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        // What the walk cannot see (a name that an enum does not have) is left to serde.
        merged.try_into().map_err(|error: toml::de::Error| {
            ConfigError::Invalid(vec![format!("{origin}: {}", error.to_string().trim().replace('\n', " "))])
        })
    }

    /// The configuration as TOML, every key spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a Config is plain data and always serialises")
    }

    /// The run directory.
    pub fn output_dir(&self) -> PathBuf {
        PathBuf::from(&self.run.output_dir)
    }

    /// The frame of the reward.
    pub fn reward_frame(&self) -> Frame {
        Frame::from_str(&self.rollout.frame).expect("checked by contradictions()")
    }

    /// The frames of the final evaluation, the first of which is in tables.
    pub fn eval_frames(&self) -> Vec<Frame> {
        self.eval.frames.iter().map(|name| Frame::from_str(name).expect("checked by contradictions()")).collect()
    }

    /// The rows of the final evaluation.
    pub fn eval_selection(&self) -> Selection {
        Selection {
            split: Split::from_str(&self.eval.split).expect("checked by contradictions()"),
            limit: (self.eval.num_samples > 0).then_some(self.eval.num_samples),
            hundred_subset_only: self.eval.hundred_subset,
        }
    }

    /// What the values say against each other or against all sense, each with both names and both values.
    fn contradictions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |is_right: bool, problem: String| {
            if !is_right {
                problems.push(problem);
            }
        };
        let Self { run, model, lora, data, generate, rollout, sft, ppo, eval, .. } = self;
        require(run.threads <= MOST_THREADS, format!("run.threads = {}: must be at most {MOST_THREADS}", run.threads));
        for (key, value) in [
            ("lora.rank", lora.rank),
            ("generate.max_new_tokens", generate.max_new_tokens),
            ("generate.batch_size", generate.batch_size),
            ("sft.batch_size", sft.batch_size),
            ("sft.gradient_accumulation", sft.gradient_accumulation),
            ("ppo.images_per_step", ppo.images_per_step),
            ("ppo.samples_per_image", ppo.samples_per_image),
            ("ppo.epochs", ppo.epochs),
            ("ppo.value_epochs", ppo.value_epochs),
            ("ppo.minibatch_size", ppo.minibatch_size),
            ("model.max_tiles", model.max_tiles),
            ("sft.validation_samples", sft.validation_samples),
            ("ppo.validation_samples", ppo.validation_samples),
            ("data.synth.train", data.synth.train),
            ("data.synth.validation", data.synth.validation),
            ("data.synth.test", data.synth.test),
            ("eval.samples_per_image", eval.samples_per_image),
        ] {
            require(value >= 1, format!("{key} = {value}: must be at least 1"));
        }
        for (key, value) in [("rollout.grid", rollout.grid), ("eval.grid", eval.grid)] {
            let problem =
                format!("{key} = {value}: must be between {} and {} cells", GRID_RANGE.start(), GRID_RANGE.end());
            require(GRID_RANGE.contains(&value), problem);
        }
        for (key, [first, second]) in [("sft.betas", sft.betas), ("ppo.betas", ppo.betas)] {
            let is_right = (0.0..1.0).contains(&first) && (0.0..1.0).contains(&second);
            require(is_right, format!("{key} = [{first}, {second}]: each must be at least 0 and below 1"));
        }
        for (key, value) in [
            ("lora.dropout", lora.dropout),
            ("sft.hold", sft.hold),
            ("sft.final_lr", sft.final_lr),
            ("ppo.hold", ppo.hold),
            ("ppo.final_lr", ppo.final_lr),
            ("ppo.gamma", ppo.gamma),
            ("ppo.gae_lambda", ppo.gae_lambda),
            ("ppo.ce_anneal_until", ppo.ce_anneal_until),
            ("ppo.ce_own_share", ppo.ce_own_share),
            ("ppo.ce_own_iou", ppo.ce_own_iou),
            ("eval.top_p", eval.top_p),
        ] {
            require((0.0..=1.0).contains(&value), format!("{key} = {value}: must be between 0 and 1"));
        }
        for (key, value) in [
            ("sft.learning_rate", sft.learning_rate),
            ("ppo.learning_rate", ppo.learning_rate),
            ("ppo.value_learning_rate", ppo.value_learning_rate),
            ("ppo.temperature", ppo.temperature),
            ("ppo.clip_range", ppo.clip_range),
            ("ppo.value_clip_range", ppo.value_clip_range),
            ("sft.max_grad_norm", sft.max_grad_norm),
            ("ppo.max_grad_norm", ppo.max_grad_norm),
            ("rollout.timeout_s", rollout.timeout_s),
            ("lora.alpha", lora.alpha),
        ] {
            require(value > 0.0 && value.is_finite(), format!("{key} = {value}: must be above 0"));
        }
        for (key, value) in [
            ("sft.epochs", sft.epochs),
            ("sft.max_seconds", sft.max_seconds),
            ("ppo.max_seconds", ppo.max_seconds),
            ("sft.weight_decay", sft.weight_decay),
            ("ppo.weight_decay", ppo.weight_decay),
            ("ppo.kl_coef", ppo.kl_coef),
            ("ppo.kl_target", ppo.kl_target),
            ("ppo.target_kl", ppo.target_kl),
            ("ppo.length_penalty", ppo.length_penalty),
            ("ppo.advantage_clip", ppo.advantage_clip),
            ("ppo.entropy_coef", ppo.entropy_coef),
            ("ppo.ce_weight", ppo.ce_weight),
            ("eval.temperature", eval.temperature),
        ] {
            require(value >= 0.0 && value.is_finite(), format!("{key} = {value}: must not be negative"));
        }
        require(
            sft.max_steps > 0 || sft.epochs > 0.0,
            format!("sft.epochs = {} and sft.max_steps = {}: one of them must be above 0", sft.epochs, sft.max_steps),
        );
        require(
            eval.samples_per_image == 1 || eval.temperature > 0.0,
            format!(
                "eval.samples_per_image = {} at eval.temperature = {}: greedy programs are all alike; set a temperature",
                eval.samples_per_image, eval.temperature
            ),
        );
        for threshold in &eval.thresholds {
            let is_right = (0.0..=1.0).contains(threshold);
            require(is_right, format!("eval.thresholds has {threshold}: an IoU is between 0 and 1"));
        }
        let rollouts = ppo.images_per_step.saturating_mul(ppo.samples_per_image);
        require(
            ppo.minibatch_size <= rollouts,
            format!(
                "ppo.minibatch_size = {} is more than ppo.images_per_step * ppo.samples_per_image = {rollouts}",
                ppo.minibatch_size
            ),
        );
        require(
            !ppo.algorithm.is_grouped() || ppo.samples_per_image >= 2,
            format!(
                "ppo.algorithm = rloo, grpo and dr_grpo need ppo.samples_per_image = {} to be at least 2",
                ppo.samples_per_image
            ),
        );
        require(
            !ppo.prefix_baseline || ppo.algorithm == Algorithm::Rloo,
            format!(
                "ppo.prefix_baseline = true needs ppo.algorithm = \"rloo\", not {:?}: it replaces the mean of the picture's others",
                ppo.algorithm
            ),
        );
        require(
            ppo.kl_target == 0.0 || ppo.kl_coef > 0.0,
            format!(
                "ppo.kl_target = {} steers ppo.kl_coef = {}, which must then be above 0",
                ppo.kl_target, ppo.kl_coef
            ),
        );
        require(
            ppo.ce_weight == 0.0 || ppo.ce_batch_size > 0,
            format!(
                "ppo.ce_weight = {} needs ppo.ce_batch_size = {} to be at least 1",
                ppo.ce_weight, ppo.ce_batch_size
            ),
        );
        require(
            data.source != Source::Parquet || !data.path.is_empty(),
            "data.source = \"parquet\" needs data.path, which is empty".into(),
        );
        require(
            !model.path.is_empty() || model.preset == "nano",
            format!(
                "model.path is empty and model.preset = {:?}: only nano brings its own tokenizer; run `cadwright model init` and put a tokenizer (tokenizer.json, or vocab.json and merges.txt) beside it",
                model.preset
            ),
        );
        for (key, name) in std::iter::once(("rollout.frame", &rollout.frame))
            .chain(eval.frames.iter().map(|name| ("eval.frames", name)))
        {
            let parsed = Frame::from_str(name);
            require(
                parsed.is_ok(),
                format!("{key} = {name:?}: {}", parsed.err().map_or(String::new(), |e| e.to_string())),
            );
        }
        if let Ok(frame) = Frame::from_str(&rollout.frame) {
            require(
                frame.is_of_grids(),
                format!(
                    "rollout.frame = {:?} is for evaluation, not for rewards; use canonical, normalised or aligned",
                    rollout.frame
                ),
            );
        }
        let split = Split::from_str(&eval.split);
        require(split.is_ok(), format!("eval.split: {}", split.err().unwrap_or_default()));
        require(!eval.frames.is_empty(), "eval.frames is empty: name at least one frame".into());
        for (key, name) in [("rollout.engine", &rollout.engine), ("eval.engine", &eval.engine)] {
            let problem = match Engine::from_str(name) {
                Ok(Engine::Native) => "a program that it declines would have no score; use auto".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            require(false, format!("{key} = {name:?}: {problem}"));
        }
        problems.extend(self.reward.problems().into_iter().map(|problem| format!("[reward] {problem}")));
        problems
    }
}

fn parse_override(text: &str) -> Result<Table, ConfigError> {
    let invalid = |reason: String| ConfigError::Syntax { origin: format!("--set {text}"), reason };
    let (key, value) =
        text.split_once('=').ok_or_else(|| invalid("expected section.key=value, for example ppo.steps=50".into()))?;
    // A bare word is a string: --set model.preset=nano needs no quotes.
    let parsed = format!("{key} = {value}")
        .parse::<Table>()
        .or_else(|_| format!("{key} = {}", Value::String(value.into())).parse::<Table>());
    parsed.map_err(|error| invalid(error.message().to_owned()))
}

/// Lays `new` over `known`, whose keys and types decide what is allowed.
fn merge(known: &mut Table, new: &Table, prefix: &str, origin: &str, problems: &mut Vec<String>) {
    for (key, value) in new {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Some(current) = known.get_mut(key) else {
            let nearest =
                known.keys().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            let hint = nearest.map_or(String::new(), |nearest| match prefix {
                "" => format!("; did you mean `{nearest}`?"),
                _ => format!("; did you mean `{prefix}.{nearest}`?"),
            });
            problems.push(format!("{origin}: unknown key `{path}`{hint}"));
            continue;
        };
        match (current, value) {
            (Value::Table(current), Value::Table(value)) => merge(current, value, &path, origin, problems),
            (current @ Value::Float(_), Value::Integer(value)) => *current = Value::Float(*value as f64),
            (current @ Value::Array(_), Value::Array(value)) => *current = Value::Array(value.clone()),
            (current, value) if current.same_type(value) => *current = value.clone(),
            (current, value) => problems.push(format!(
                "{origin}: `{path}` expects {}, got {} {value}",
                type_name(current),
                type_name(value)
            )),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Config::load(None, &overrides).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let message = refusal(&["ppo.stepz=5"]);
        assert!(message.contains("unknown key `ppo.stepz`; did you mean `ppo.steps`?"), "{message}");
        let message = refusal(&["pppo.steps=5"]);
        assert!(message.contains("did you mean `ppo`?"), "{message}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_both_types() {
        let message = refusal(&["ppo.steps=\"many\""]);
        assert!(message.contains("`ppo.steps` expects an integer, got a string"), "{message}");
    }

    #[test]
    fn contradictions_name_both_keys_and_come_all_at_once() {
        let message = refusal(&["ppo.images_per_step=1", "ppo.samples_per_image=2", "eval.frames=[\"sideways\"]"]);
        assert!(message.contains("ppo.minibatch_size = 64") && message.contains("= 2"), "{message}");
        assert!(message.contains("sideways"), "{message}");
        let message = refusal(&["ppo.prefix_baseline=true", "ppo.algorithm=grpo"]);
        assert!(message.contains("ppo.prefix_baseline") && message.contains("Grpo"), "{message}");
    }

    #[test]
    fn the_public_test_is_what_is_evaluated_where_the_config_says_so() {
        let config = Config::load(None, &["eval.hundred_subset=true".into(), "eval.num_samples=0".into()]).unwrap();
        let expected = Selection { split: Split::Test, limit: None, hundred_subset_only: true };
        assert_eq!(config.eval_selection(), expected);
    }

    #[test]
    fn bare_words_are_strings_and_integers_fit_numbers() {
        let config = Config::load(None, &["model.tune=full".into(), "ppo.temperature=1".into()]).unwrap();
        assert_eq!((config.model.tune, config.ppo.temperature), (Tune::Full, 1.0));
    }

    #[test]
    fn the_resolved_config_reads_back_as_itself() {
        let config = Config::load(None, &["sft.learning_rate=3e-4".into()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_toml()).unwrap();
        assert_eq!(Config::load(Some(file.path()), &[]).unwrap(), config);
    }
}
