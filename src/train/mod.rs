//! Learning: fine-tuning and PPO.

pub mod advantages;
pub mod checkpoint;
pub mod curriculum;
pub mod forward;
mod imitation;
pub mod losses;
pub mod optim;
pub mod ppo;
mod rollouts;
pub mod schedule;
pub mod sft;
pub mod validation;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cadwright_rollout::Scorer;

use crate::config::Config;
use crate::data::Dataset;
use crate::eval::predict::PromptedDataset;
use crate::generate::Sampling;
use crate::model::{InternVl, Prompt, Tokenizer};
use crate::pictures::Pictures;
use crate::policy;

/// What the stages of a run share.
pub struct Stage<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// Training rows.
    pub train: &'a Dataset,
    /// Held-out rows that choose the checkpoint.
    pub validation: &'a Dataset,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What is asked about each picture.
    pub prompt: Prompt,
    /// The one scorer.
    pub scorer: &'a Scorer,
    /// The run directory.
    pub run_dir: PathBuf,
    /// What adapters are for: a path or hub id.
    pub base_model: String,
}

impl Stage<'_> {
    /// A dataset's pictures with this run's prompt.
    pub fn prompted<'b>(&'b self, dataset: &'b Dataset, pictures: &'b Pictures<'b>) -> PromptedDataset<'b> {
        PromptedDataset { dataset, pictures, prompt: &self.prompt, tokenizer: self.tokenizer }
    }

    /// Sampling within this run's limits.
    pub fn sampling(&self, temperature: f64, top_p: f64) -> Sampling {
        Sampling { temperature, top_p, max_new_tokens: self.config.generate.max_new_tokens }
    }

    /// Writes what training changes: the adapter, or a whole checkpoint with its tokenizer; complete or not at all.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn save_policy(&self, model: &InternVl, directory: &Path) -> Result<()> {
        policy::save(directory, model, self.tokenizer, &self.prompt, &self.base_model)
    }
}
