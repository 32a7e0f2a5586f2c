//! A policy: a model with its adapter, its tokenizer, its prompt and the prior of its programs.
//! Every command loads and saves
//! policies here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tch::{Device, Kind};

use crate::agent::learned::{prior_of, stored_prior};
use crate::agent::prior::Prior;
use crate::config::{Config, Template, Tune};
use crate::files::replace_directory;
use crate::hub::{COMPANIONS, HubError, resolve_adapter, resolve_checkpoint};
use crate::model::{InternVl, InternVlConfig, Layout, ModelError, Prompt, Strategy, Tokenizer, files};

/// The directories in which a policy is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPath {
    /// Directory of the checkpoint: weights, configuration and tokenizer.
    pub checkpoint: PathBuf,
    /// Directory of the adapter on it, in PEFT's format.
    pub adapter: Option<PathBuf>,
}

impl PolicyPath {
    /// The local directories of a checkpoint and, if any, of its adapter. Each name is a directory
    /// or a hub id, which is downloaded if necessary, at the revision that is given with it.
    ///
    /// # Errors
    /// A name that is neither a directory nor a hub id, or a download that fails.
    pub fn resolve(checkpoint: (&str, &str), adapter: Option<(&str, &str)>) -> Result<Self, HubError> {
        Ok(Self {
            checkpoint: resolve_checkpoint(checkpoint.0, checkpoint.1)?,
            adapter: adapter.map(|(name, revision)| resolve_adapter(name, revision)).transpose()?,
        })
    }

    /// The prompt that the policy was trained with: the adapter's, else the checkpoint's, if either
    /// is stored.
    ///
    /// # Errors
    /// A malformed `prompt.json`.
    pub fn trained_prompt(&self) -> Result<Option<Prompt>, ModelError> {
        for directory in self.adapter.iter().chain([&self.checkpoint]) {
            if let Some(prompt) = Prompt::of(directory)? {
                return Ok(Some(prompt));
            }
        }
        Ok(None)
    }

    /// The prompt that the policy was trained with; if none is stored, the configured one.
    ///
    /// # Errors
    /// A malformed `prompt.json`, or a prompt that cannot be rendered: see [`Prompt::new`].
    pub fn prompt(&self, config: &Config) -> Result<Prompt, ModelError> {
        match self.trained_prompt()? {
            Some(prompt) => Ok(prompt),
            None => configured_prompt(config, Some(&self.checkpoint)),
        }
    }

    /// The model with its adapter. Its weights have dtype `weights_dtype`, its products
    /// `compute_dtype`; adapters are fp32.
    ///
    /// # Errors
    /// Files that are missing or malformed, or that do not fit each other.
    pub fn load_model(&self, weights_dtype: Kind, compute_dtype: Kind, device: Device) -> Result<InternVl, ModelError> {
        let model = InternVl::load(&self.checkpoint, weights_dtype, compute_dtype, device)?;
        match &self.adapter {
            Some(adapter) => model.with_adapter(adapter),
            None => Ok(model),
        }
    }
}

/// The prompt that the configuration asks for with its strategy, rendered by the chat template of `checkpoint` if
/// `prompt.template` allows it.
///
/// # Errors
/// There is no strategy `prompt.strategy`; see also [`Prompt::new`].
pub fn configured_prompt(config: &Config, checkpoint: Option<&Path>) -> Result<Prompt, ModelError> {
    let prompt = &config.prompt;
    let checkpoint = checkpoint.filter(|_| prompt.template == Template::Auto);
    let strategy = Strategy::named(&prompt.strategy)?;
    let [system, user] = strategy.texts(&prompt.system, &prompt.user);
    let prompt = Prompt::with_pictures(checkpoint, &system, &user, strategy.examples + 1)?;
    Ok(prompt.answered_with_plan(strategy.plan))
}

/// The purpose for which a policy is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Weights that training changes are kept in fp32.
    Training,
    /// All weights have the dtype of the products.
    Inference,
}

/// A model with its adapter, if any, its tokenizer, its prompt, and the prior of its programs.
pub struct Policy {
    /// The model with its adapter.
    pub model: InternVl,
    /// The checkpoint's tokenizer.
    pub tokenizer: Tokenizer,
    /// The prompt for each picture.
    pub prompt: Prompt,
    /// What the labelled programs are like that it was trained on, for search; empty if that is not
    /// known.
    pub prior: Prior,
}

impl Policy {
    /// Loads the policy at `path` onto `device`, with the dtypes that follow from `model.dtype` and
    /// `purpose`. If `prompt` is `None`, the stored or configured prompt is used, as in
    /// [`PolicyPath::prompt`].
    ///
    /// # Errors
    /// Files that are missing or malformed, that do not fit each other, or a model whose positions
    /// do not suffice for `generate.max_new_tokens`.
    pub fn load(
        config: &Config,
        path: &PolicyPath,
        prompt: Option<Prompt>,
        purpose: Purpose,
        device: Device,
    ) -> Result<Self> {
        // Small files first: the weights can take minutes.
        let architecture = InternVlConfig::read(&path.checkpoint)?;
        let tokenizer = Tokenizer::load(&path.checkpoint)?;
        tokenizer.check_fits(architecture.llm_config.vocab_size)?;
        check_positions(config, &architecture)?;
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => path.prompt(config)?,
        };
        let compute_dtype = config.model.dtype.kind_on(device);
        let weights_dtype = match (purpose, config.model.tune) {
            (Purpose::Training, Tune::Full) => Kind::Float,
            (Purpose::Training, Tune::Lora) | (Purpose::Inference, _) => compute_dtype,
        };
        let model = path.load_model(weights_dtype, compute_dtype, device)?;
        Ok(Self { model, tokenizer, prompt, prior: prior_of(config, path)? })
    }
}

/// Checks that the model has room for completions of `generate.max_new_tokens`, one for each turn.
fn check_positions(config: &Config, architecture: &InternVlConfig) -> Result<()> {
    let (tokens, turns) = (config.generate.max_new_tokens, config.most_turns());
    let positions = architecture.llm_config.max_position_embeddings;
    let of_turns = if turns > 1 { format!(" in each of {turns} turns") } else { String::new() };
    ensure!(
        usize::try_from(positions).is_ok_and(|positions| tokens.saturating_mul(turns) <= positions),
        "generate.max_new_tokens = {tokens}{of_turns} is more than max_position_embeddings = {positions} of the model's config.json"
    );
    Ok(())
}

/// The file of a policy that says when it was validated, and with what result.
pub const VALIDATION: &str = "validation.json";

/// Writes the trained weights, the prompt and the prior, complete or not at all. The weights are the adapter
/// of `model`, or, if it has none, a whole checkpoint with its tokenizer. `base_model` is the path
/// or hub id that PEFT will look for the adapter's checkpoint at. `validation` is what is known of
/// the policy, for `validation.json`.
///
/// # Errors
/// A directory that cannot be written, or weights that are not finite.
pub fn save(
    directory: &Path,
    model: &InternVl,
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    prior: &Prior,
    base_model: &str,
    validation: Option<&Value>,
) -> Result<()> {
    if let Some(name) = model.weights().not_finite() {
        bail!("{name} is not finite: the policy is not saved in {}", directory.display());
    }
    replace_directory(directory, |aside| {
        if let Some(validation) = validation {
            std::fs::write(aside.join(VALIDATION), format!("{validation:#}\n"))?;
        }
        if model.lora().is_some() {
            model.save_adapter(aside, base_model)?;
        } else {
            model.save(aside, model.config.layout)?;
            tokenizer.save(aside)?;
        }
        prior.save(aside)?;
        Ok(prompt.save(aside)?)
    })
}

/// Adds the adapter at `path` to its checkpoint's weights and writes the sum as a checkpoint: in
/// `layout`, with weights of dtype `weights_dtype` (`None`: that of the checkpoint), the
/// checkpoint's other files, and the prompt that the policy was trained with.
///
/// # Errors
/// Files that are missing or malformed, that do not fit each other, or a directory that cannot be
/// written.
pub fn merge(path: &PolicyPath, weights_dtype: Option<Kind>, layout: Layout, output: &Path) -> Result<()> {
    let weights_dtype = match weights_dtype {
        Some(kind) => kind,
        None => files::stored_kind(&path.checkpoint)?,
    };
    let prompt = path.trained_prompt()?;
    let prior = stored_prior(path)?;
    let mut model = path.load_model(weights_dtype, weights_dtype, Device::Cpu)?.merged();
    // A checkpoint can be merged without a tokenizer; only the id of the image token is then
    // unknown.
    if let Ok(tokenizer) = Tokenizer::load(&path.checkpoint) {
        model.config.image_token_id = Some(tokenizer.image_token);
    }
    replace_directory(output, |aside| {
        copy_companions(&path.checkpoint, aside)?;
        if let Some(prompt) = &prompt {
            prompt.save(aside)?;
        }
        if let Some(prior) = &prior {
            prior.save(aside)?;
        }
        Ok(model.save(aside, layout)?)
    })
}

/// Copies the files of a checkpoint besides its weights and configuration: tokenizer, templates,
/// preprocessing.
fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let path = from.join(name);
        if path.is_file() {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
