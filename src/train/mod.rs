//! Learning: supervised fine-tuning and reinforcement learning.

pub mod absurd;
pub mod advantages;
pub mod alarms;
pub mod checkpoint;
pub mod curriculum;
pub mod drafts;
pub mod examples;
pub mod forward;
pub mod gates;
mod imitation;
mod learner;
pub mod losses;
pub mod metrics;
mod minibatch;
pub mod optim;
pub mod ppo;
pub mod proxy;
mod records;
pub mod reward_command;
pub mod samples;
pub mod schedule;
pub mod sft;
pub mod shaping;
pub mod shards;
mod teachers;
pub mod training_loop;
pub mod validation;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cadwright_rollout::Scorer;
use serde_json::Value;

use crate::agent::prior::Prior;
use crate::config::Config;
use crate::data::Dataset;
use crate::distributed::World;
use crate::generate::Sampling;
use crate::model::{InternVl, Prompt, Tokenizer};
use crate::pictures::Pictures;
use crate::policy;
use crate::rollouts::PromptedDataset;
use crate::seeds::number_of;

/// The inputs of a stage of a run.
pub struct Stage<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// The ranks that train together.
    pub world: &'a World,
    /// Training rows.
    pub train: &'a Dataset,
    /// Held-out rows that choose the checkpoint.
    pub validation: &'a Dataset,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The prompt for each picture.
    pub prompt: Prompt,
    /// The prompt that the configuration asks for, with which the gate `prompt` compares it.
    pub configured_prompt: Prompt,
    /// What the labelled programs are like; stored with each policy.
    pub prior: Prior,
    /// The scorer of training and validation.
    pub scorer: &'a Scorer,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The path or hub id of the base model, which an adapter's configuration names.
    pub base_model: String,
}

impl Stage<'_> {
    /// The training pictures. Their embeddings are kept unless the vision tower of `policy` is
    /// trained.
    pub fn training_pictures(&self, policy: &InternVl) -> Pictures<'_> {
        let model = &self.config.model;
        let cache_mib = if policy.trains_vision() { 0 } else { model.vision_cache_mib };
        Pictures::new(self.train, model.max_tiles, cache_mib)
    }

    /// A data set's pictures with this run's prompt.
    pub fn prompted<'b>(&'b self, dataset: &'b Dataset, pictures: &'b Pictures<'b>) -> PromptedDataset<'b> {
        PromptedDataset { dataset, pictures, prompt: &self.prompt, tokenizer: self.tokenizer }
    }

    /// Sampling within this run's limits.
    pub fn sampling(&self, temperature: f64, top_p: f64) -> Sampling {
        Sampling { temperature, top_p, max_new_tokens: self.config.generate.max_new_tokens }
    }

    /// Writes the policy, complete or not at all: see [`policy::save`].
    ///
    /// # Errors
    /// A directory that cannot be written, or weights that are not finite.
    pub fn save_policy(&self, model: &InternVl, directory: &Path, validation: Option<&Value>) -> Result<()> {
        let Self { tokenizer, prompt, prior, base_model, .. } = self;
        policy::save(directory, model, tokenizer, prompt, prior, base_model, validation)
    }
}

/// The part of a seed that separates the random draws of the stage `name` from those of all others.
pub fn stream(name: &str) -> u64 {
    match name {
        "sft" => 0x5f7,
        "ppo" => 0x990,
        other => number_of(other),
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{TokenizedExample, length_bucketed_batches};
    use super::*;

    #[test]
    fn more_sft_shuffles_otherwise_than_sft() {
        let example = |index| TokenizedExample {
            index,
            prompt: vec![0; 3].into(),
            draft: None,
            response: vec![0; index % 7],
            weights: Vec::new(),
        };
        let examples: Vec<_> = (0..64).map(example).collect();
        let epoch = |stage| length_bucketed_batches(&examples, 8, 8, sft::epoch_seed(stage, 0, 0));
        assert_ne!(epoch("control"), epoch("sft"));
        assert_eq!(epoch("control"), epoch("control"));
    }
}
