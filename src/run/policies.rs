//! The policies of a run: those from which stages start, and those that stages store.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Run, StageName};
use crate::config::{Config, PpoStart, Tune};
use crate::hub::is_hub_id;
use crate::model::{InternVl, LoraConfig, Prompt, is_language, lora};
use crate::policy::{Policy, PolicyPath, Purpose, configured_prompt};

impl Run<'_> {
    /// The path of the best policy of a stage.
    ///
    /// # Errors
    /// The checkpoint under an adapter cannot be resolved.
    pub fn policy_path(&self, stage: StageName) -> Result<PolicyPath> {
        let best = self.dir.join(stage.name()).join("best");
        Ok(match self.config.model.tune {
            Tune::Full => PolicyPath { checkpoint: best, adapter: None },
            Tune::Lora => PolicyPath { checkpoint: self.model_dir()?, adapter: Some(best) },
        })
    }

    /// The path of the policy that a stage starts from: the base model for SFT; for other stages the
    /// SFT policy, or what `ppo.start` says.
    pub(super) fn starting_path(&self, stage: StageName) -> Result<PolicyPath> {
        match stage {
            StageName::Ppo if self.config.ppo.start == PpoStart::Model => {
                let adapter = Some(self.config.ppo.lora_path.as_str()).filter(|path| !path.is_empty());
                let model = self.model_dir()?;
                Ok(PolicyPath::resolve((&model.to_string_lossy(), "main"), adapter.map(|path| (path, "main")))?)
            }
            StageName::Sft => Ok(PolicyPath { checkpoint: self.model_dir()?, adapter: None }),
            StageName::Ppo | StageName::MoreSft => self.trained_path(StageName::Sft),
        }
    }

    /// As [`Self::policy_path`], of a stage that is done.
    pub(super) fn trained_path(&self, stage: StageName) -> Result<PolicyPath> {
        let path = self.policy_path(stage)?;
        let required = path.adapter.as_ref().unwrap_or(&path.checkpoint);
        ensure!(
            required.exists(),
            "{}: no policy to start from; run `cadwright sft` with this config first, or start from a model of your \
             own with `cadwright ppo --model-path MODEL [--lora-path ADAPTER]`",
            required.display()
        );
        Ok(path)
    }

    /// The policy that a stage starts from. The weights that the stage trains are marked as
    /// trainable.
    pub(super) fn starting_policy(&self, stage: StageName, path: &PolicyPath) -> Result<Policy> {
        let prompt = match stage {
            // SFT teaches the configured prompt, whatever the base model was trained with. A
            // continued one teaches the prompt that it began with.
            StageName::Sft => match Prompt::of(&self.dir.join("sft/best"))? {
                Some(prompt) => Some(prompt),
                None => Some(training_prompt(&self.config, Some(&path.checkpoint))?),
            },
            StageName::Ppo | StageName::MoreSft => None,
        };
        let mut policy = Policy::load(&self.config, path, prompt, Purpose::Training, self.device)?;
        if self.config.model.tune == Tune::Lora && path.adapter.is_none() {
            let seed = i64::from(self.config.run.seed);
            policy.model = policy.model.with_new_adapter(adapter_config(&self.config), seed)?;
        }
        set_trainable(&mut policy.model, &self.config, stage);
        let outside = policy.model.weights().trainable().map(|(name, _)| name).find(|name| !is_language(name));
        ensure!(
            self.config.model.tune == Tune::Full || outside.is_none(),
            "lora.target_modules = {:?} names {}: adapters are trained in the language model only",
            self.config.lora.target_modules,
            outside.unwrap_or_default()
        );
        Ok(policy)
    }

    /// The base model as an adapter's configuration names it: the hub id, or else the local path.
    pub(super) fn base_model_name(&self) -> Result<String> {
        let path = &self.config.model.path;
        if is_hub_id(path) && !Path::new(path).exists() {
            return Ok(path.clone());
        }
        Ok(self.model_dir()?.display().to_string())
    }
}

/// The prompt that the configuration asks for.
///
/// # Errors
/// It shows examples, which training does not, or it cannot be rendered.
pub(super) fn training_prompt(config: &Config, checkpoint: Option<&Path>) -> Result<Prompt> {
    let prompt = configured_prompt(config, checkpoint)?;
    ensure!(
        prompt.pictures() == 1,
        "prompt.strategy = {:?} shows examples: it is for `eval --prompt` and `generate --prompt`, not for training",
        config.prompt.strategy
    );
    Ok(prompt)
}

/// Marks the weights that a stage trains. PPO may leave the vision tower alone even if SFT trains
/// it.
fn set_trainable(model: &mut InternVl, config: &Config, stage: StageName) {
    match config.model.tune {
        Tune::Full => {
            let is_frozen = config.model.freeze_vision || stage == StageName::Ppo && config.ppo.freeze_vision;
            model.weights_mut().set_trainable(|name| !is_frozen || is_language(name));
        }
        Tune::Lora => model.weights_mut().set_trainable(lora::is_adapter),
    }
}

/// The adapter that `[lora]` asks for.
fn adapter_config(config: &Config) -> LoraConfig {
    let lora = &config.lora;
    LoraConfig {
        r: lora.rank as i64,
        lora_alpha: lora.alpha,
        lora_dropout: lora.dropout,
        target_modules: lora.target_modules.clone(),
        use_rslora: lora.rslora,
        modules_to_save: None,
    }
}
