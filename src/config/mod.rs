//! Makes one checked [`Config`] from a TOML file and flags. No other module reads config files or
//! `--set`.

mod data;
mod keys;
mod layers;
mod ppo;
mod shown;

use std::path::{Path, PathBuf};

use cadwright_rewards::frames::Frame;
use cadwright_rollout::{Engine, GRID_RANGE, ScorerConfig};
use serde::Serialize;
use toml::Value;

use crate::data::Selection;
use crate::model::{ModelError, Preset, Strategy};
use crate::report::MOST_PARTS;

pub use keys::*;
use layers::Layers;
pub use ppo::*;
pub use shown::{ShownKey, shown};

/// The reasons why a configuration cannot be used, all at once.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read config {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not valid TOML: {reason}")]
    Syntax {
        /// The file or flag.
        origin: String,
        /// The parser's message.
        reason: String,
    },
    /// Keys that do not exist, values of the wrong type, or values that contradict each other.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// The turns of an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Number of programs that are written one after another for a part.
    pub count: usize,
    /// Whether a further turn shows the policy a render of its program.
    pub shows_render: bool,
}

impl Turns {
    /// One program.
    pub const ONE: Self = Self { count: 1, shows_render: false };
}

/// Maximum number of threads, more than any machine has. libtorch aborts if it cannot start as many
/// as configured.
const MOST_THREADS: usize = 4096;

/// Most turns of an episode. Each adds a program to the sequence.
const MOST_TURNS: usize = 4;

impl Config {
    /// Reads a TOML file (`None`: the defaults), applies `overrides` (`section.key=value`), and
    /// checks the result.
    ///
    /// # Errors
    /// A file or an override that cannot be parsed. Else all problems at once: unknown keys with
    /// the nearest known key, values of the wrong type or with an unknown name, and values that
    /// contradict each other.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let layers = Layers::of(path, overrides)?;
        let (mut config, mut problems) = layers.merged()?;
        if config.run.output_dir.as_os_str().is_empty() {
            let name = path.and_then(Path::file_stem).unwrap_or("default".as_ref());
            config.run.output_dir = Path::new("runs").join(name);
        }
        problems.extend(config.contradictions());
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The configuration as TOML, every key spelled out.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| ConfigError::Invalid(vec![error.to_string()]))
    }

    /// This configuration with another prompt strategy.
    ///
    /// # Errors
    /// There is no such strategy.
    pub fn with_strategy(&self, name: &str) -> Result<Self, ModelError> {
        Strategy::named(name)?;
        Ok(Self { prompt: PromptText { strategy: name.into(), ..self.prompt.clone() }, ..self.clone() })
    }

    /// The frame of the reward.
    pub fn reward_frame(&self) -> Frame {
        self.rollout.frame
    }

    /// The turns of episodes of `count` programs.
    pub fn turns(&self, count: usize) -> Turns {
        Turns { count, shows_render: self.ppo.turn_render }
    }

    /// The most turns of a stage.
    pub fn most_turns(&self) -> usize {
        self.sft.turns.max(self.ppo.turns).max(self.eval.turns)
    }

    /// The rows of the final evaluation.
    pub fn eval_selection(&self) -> Selection {
        Selection {
            split: self.eval.split,
            limit: (self.eval.num_samples > 0).then_some(self.eval.num_samples),
            hundred_subset_only: self.eval.hundred_subset,
        }
    }

    /// Settings of a scorer with this configuration's limits and reward.
    ///
    /// `cache_dir` is the directory of executed ground truths; `None` keeps them in memory only.
    pub fn scorer(&self, engine: Engine, grid: usize, frames: &[Frame], cache_dir: Option<PathBuf>) -> ScorerConfig {
        ScorerConfig {
            engine,
            jobs: self.rollout.workers,
            timeout_s: self.rollout.timeout_s,
            memory_mib: self.rollout.memory_mib,
            sandbox: self.rollout.sandbox,
            grid,
            frames: frames.to_vec(),
            reward: self.reward.clone(),
            result_name: self.data.result_name(),
            cache_dir,
            ..ScorerConfig::default()
        }
    }

    /// A line for each value that is out of range or contradicts another one, with the names and
    /// values of both.
    fn contradictions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |is_right: bool, problem: String| {
            if !is_right {
                problems.push(problem);
            }
        };
        let Self { run, model, lora, data, generate, rollout, sft, ppo, eval, .. } = self;
        require(run.threads <= MOST_THREADS, format!("run.threads = {}: must be at most {MOST_THREADS}", run.threads));
        require(
            run.report_parts <= MOST_PARTS,
            format!("run.report_parts = {}: must be at most {MOST_PARTS}", run.report_parts),
        );
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
            ("ppo.refine_programs", ppo.refine_programs),
            ("ppo.refine_budget", ppo.refine_budget),
            ("model.max_tiles", model.max_tiles),
            ("sft.validation_samples", sft.validation_samples),
            ("ppo.validation_samples", ppo.validation_samples),
            ("data.synth.train", data.synth.train),
            ("data.synth.validation", data.synth.validation),
            ("data.synth.test", data.synth.test),
            ("eval.samples_per_image", eval.samples_per_image),
            ("agent.rounds", self.agent.rounds),
            ("agent.samples", self.agent.samples),
            ("agent.starts", self.agent.starts),
            ("run.keep_last", run.keep_last),
            ("run.keep_best", run.keep_best),
        ] {
            require(value >= 1, format!("{key} = {value}: must be at least 1"));
        }
        for (key, value) in [("rollout.grid", rollout.grid), ("eval.grid", eval.grid)] {
            let problem =
                format!("{key} = {value}: must be between {} and {} cells", GRID_RANGE.start(), GRID_RANGE.end());
            require(GRID_RANGE.contains(&value), problem);
        }
        for (key, value, most) in
            [("sft.turns", sft.turns, 2), ("ppo.turns", ppo.turns, MOST_TURNS), ("eval.turns", eval.turns, MOST_TURNS)]
        {
            require((1..=most).contains(&value), format!("{key} = {value}: must be between 1 and {most}"));
        }
        require(
            ppo.turn_reward_share == 0.0 || ppo.turns > 1,
            format!(
                "ppo.turn_reward_share = {} is the share of earlier turns, but ppo.turns = {} has none",
                ppo.turn_reward_share, ppo.turns
            ),
        );
        require(
            sft.first_turn || sft.turns > 1,
            format!("sft.first_turn = false leaves nothing to learn with sft.turns = {}", sft.turns),
        );
        for (key, [first, second]) in [("sft.betas", sft.betas), ("ppo.betas", ppo.betas)] {
            let is_right = (0.0..1.0).contains(&first) && (0.0..1.0).contains(&second);
            require(is_right, format!("{key} = [{first}, {second}]: each must be at least 0 and below 1"));
        }
        for (key, value) in [
            ("run.truncation_limit", run.truncation_limit),
            ("lora.dropout", lora.dropout),
            ("sft.hold", sft.hold),
            ("sft.final_lr", sft.final_lr),
            ("ppo.hold", ppo.hold),
            ("ppo.final_lr", ppo.final_lr),
            ("ppo.gamma", ppo.gamma),
            ("ppo.turn_reward_share", ppo.turn_reward_share),
            ("ppo.gae_lambda", ppo.gae_lambda),
            ("ppo.ce_anneal_until", ppo.ce_anneal_until),
            ("ppo.ce_own_share", ppo.ce_own_share),
            ("ppo.ce_own_iou", ppo.ce_own_iou),
            ("ppo.refine_from", ppo.refine_from),
            ("ppo.ce_refined_weight", ppo.ce_refined_weight),
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
            ("distributed.timeout_s", self.distributed.timeout_s),
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
            ("ppo.ce_refined_nats", ppo.ce_refined_nats),
            ("eval.temperature", eval.temperature),
            ("agent.temperature", self.agent.temperature),
            ("agent.prior_weight", self.agent.prior_weight),
            ("agent.max_seconds", self.agent.max_seconds),
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
        require(
            !eval.agent || eval.samples_per_image == 1,
            format!(
                "eval.agent = true gives one program for each part, but eval.samples_per_image = {}; agent.samples says \
                 how many it writes",
                eval.samples_per_image
            ),
        );
        require(
            eval.select.is_empty() || eval.samples_per_image > 1,
            format!(
                "eval.select = {} has nothing to choose from: eval.samples_per_image = {}",
                spelling(&eval.select),
                eval.samples_per_image
            ),
        );
        require(
            eval.select_at.is_empty() || !eval.select.is_empty(),
            format!("eval.select_at = {:?} needs a way to choose, but eval.select is empty", eval.select_at),
        );
        for k in &eval.select_at {
            require(
                (1..=eval.samples_per_image).contains(k),
                format!(
                    "eval.select_at has {k}: must be between 1 and eval.samples_per_image = {}",
                    eval.samples_per_image
                ),
            );
        }
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
                "ppo.prefix_baseline = true needs ppo.algorithm = \"rloo\", not {}: it replaces the mean of the picture's \
                 other completions",
                spelling(&ppo.algorithm)
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
            ppo.ce_own_source == OwnSource::Sampled || ppo.ce_own_share > 0.0,
            format!(
                "ppo.ce_own_source = {} gives programs to imitate, but ppo.ce_own_share = {} imitates none",
                spelling(&ppo.ce_own_source),
                ppo.ce_own_share
            ),
        );
        require(
            ppo.ce_own_source == OwnSource::Sampled || ppo.refine_from < ppo.ce_own_iou,
            format!(
                "ppo.refine_from = {} leaves no program to refine: it must be below ppo.ce_own_iou = {}",
                ppo.refine_from, ppo.ce_own_iou
            ),
        );
        data.check(&mut require);
        require(
            !model.path.is_empty() || model.preset == Preset::Nano,
            format!(
                "model.path is empty and model.preset = \"{}\": only nano brings its own tokenizer; run `cadwright model init` and put a tokenizer (tokenizer.json, or vocab.json and merges.txt) beside it",
                model.preset
            ),
        );
        require(
            ppo.lora_path.is_empty() || (ppo.start == PpoStart::Model && model.tune == Tune::Lora),
            format!(
                "ppo.lora_path = {:?} needs ppo.start = \"model\" and model.tune = \"lora\": it is the adapter that goes on",
                ppo.lora_path
            ),
        );
        require(
            ppo.start == PpoStart::Sft || !model.path.is_empty(),
            "ppo.start = \"model\" needs model.path: the checkpoint to start from".into(),
        );
        require(
            rollout.frame.is_of_grids(),
            format!(
                "rollout.frame = \"{}\" is for evaluation, not for rewards; use canonical, normalised or aligned",
                rollout.frame
            ),
        );
        require(!eval.frames.is_empty(), "eval.frames is empty: name at least one frame".into());
        for (key, engine) in [("rollout.engine", rollout.engine), ("eval.engine", eval.engine)] {
            let problem = "a program that it declines would have no score; use auto";
            require(engine != Engine::Native, format!("{key} = \"{engine}\": {problem}"));
        }
        if let Err(error) = Strategy::named(&self.prompt.strategy) {
            problems.push(format!("prompt.strategy: {error}"));
        }
        problems.extend(self.reward.problems().into_iter().map(|problem| format!("[reward] {problem}")));
        problems
    }
}

/// The value as a configuration spells it.
fn spelling(value: &impl Serialize) -> String {
    Value::try_from(value).map_or_else(|error| error.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

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
        assert!(message.contains("ppo.prefix_baseline") && message.contains("\"grpo\""), "{message}");
    }

    #[test]
    fn turns_have_limits_and_shares_need_turns() {
        let message = refusal(&["sft.turns=3", "ppo.turns=0", "eval.turns=9", "sft.first_turn=false"]);
        for text in ["sft.turns = 3: must be between 1 and 2", "ppo.turns = 0", "eval.turns = 9"] {
            assert!(message.contains(text), "{message}");
        }
        let message = refusal(&["ppo.turn_reward_share=0.5"]);
        assert!(message.contains("ppo.turn_reward_share = 0.5") && message.contains("ppo.turns = 1"), "{message}");
        let message = refusal(&["ppo.turn_reward_share=1.5", "ppo.turns=2"]);
        assert!(message.contains("ppo.turn_reward_share = 1.5: must be between 0 and 1"), "{message}");
        let message = refusal(&["sft.first_turn=false"]);
        assert!(message.contains("sft.first_turn = false") && message.contains("sft.turns = 1"), "{message}");
    }

    #[test]
    fn refined_programs_have_limits_and_need_a_share() {
        let refined = "ppo.ce_own_source=refined";
        let message = refusal(&[refined, "ppo.refine_budget=0", "ppo.refine_from=1.5", "ppo.ce_refined_weight=-0.1"]);
        for text in [
            "ppo.ce_own_source = \"refined\" gives programs to imitate, but ppo.ce_own_share = 0",
            "ppo.refine_budget = 0: must be at least 1",
            "ppo.refine_from = 1.5",
            "ppo.ce_refined_weight = -0.1",
        ] {
            assert!(message.contains(text), "{message}");
        }
        let message = refusal(&[refined, "ppo.ce_own_share=1", "ppo.ce_own_iou=0.4"]);
        assert!(message.contains("ppo.refine_from = 0.4 leaves no program to refine"), "{message}");
        assert!(refusal(&["ppo.ce_refined_nats=-1"]).contains("ppo.ce_refined_nats = -1"));
        let message = refusal(&["reward.source=picture"]);
        assert!(message.contains("reward.source") && message.contains("picture"), "{message}");
        let config = Config::load(None, &[refined, "ppo.ce_own_share=0.5"].map(str::to_owned)).unwrap();
        assert_eq!(config.ppo.ce_own_source, OwnSource::Refined);
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
        std::fs::write(file.path(), config.to_toml().unwrap()).unwrap();
        assert_eq!(Config::load(Some(file.path()), &[]).unwrap(), config);
    }
}
