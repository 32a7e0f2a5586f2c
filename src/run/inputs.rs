//! The inputs of a run: its data, its model and its scorer.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cadwright_rollout::Scorer;
use tch::{Device, Kind};

use super::Run;
use super::policies::training_prompt;
use crate::config::{Config, Source};
use crate::data::design::with_design;
use crate::data::synth::{self, SynthConfig};
use crate::data::{DataSource, Dataset, Selection, Split, open_dataset};
use crate::files::replace_directory;
use crate::hub::resolve_checkpoint;
use crate::model::{InternVl, InternVlConfig, Layout, Tokenizer, Weights};
use crate::terminal::status;

impl Run<'_> {
    /// The split. It is made or downloaded if necessary.
    pub(super) fn dataset(&self, split: Split) -> Result<Dataset> {
        let train_limit = self.config.data.train_limit;
        let limit = (split == Split::Train && train_limit > 0).then_some(train_limit);
        let mut dataset = self.opened(Selection { limit, ..Selection::all(split) })?;
        if split == Split::Train && self.config.data.programs_limit > 0 {
            dataset.keep_programs(self.config.data.programs_limit);
        }
        Ok(dataset)
    }

    /// The selected rows. One rank of each machine makes or downloads them before the others look.
    pub(super) fn opened(&self, selection: Selection) -> Result<Dataset> {
        self.world.main_first("the data", || Ok(open_dataset(&self.data_source()?, selection)?))
    }

    /// The location of the data. Synthetic data is made if the run has none yet.
    fn data_source(&self) -> Result<DataSource> {
        let directory = self.dir.join("data");
        if self.config.data.source == Source::Synth && !directory.exists() {
            // Under another name first: if the run is killed meanwhile, the next one starts again.
            replace_directory(&directory, |aside| {
                let options = synth_options(&self.config, aside);
                status(format_args!("data: making {} synthetic parts", options.count));
                synth::generate(&options)?;
                Ok(())
            })?;
        }
        Ok(stored_data(&self.config, &self.dir))
    }

    /// Makes a random model in the run directory, unless the configuration names a model or it
    /// exists already.
    pub(super) fn prepare_model(&self, train: &Dataset) -> Result<()> {
        self.world.main_first("the model", || {
            self.make_model(train)?;
            // Downloads it, if the configuration names one on the hub.
            self.model_dir()?;
            Ok(())
        })
    }

    fn make_model(&self, train: &Dataset) -> Result<()> {
        let directory = self.dir.join("model");
        if !self.config.model.path.is_empty() || directory.exists() {
            return Ok(());
        }
        // A random model has no chat template of its own.
        let prompt = training_prompt(&self.config, None)?;
        replace_directory(&directory, |aside| {
            let preset = InternVlConfig::preset(self.config.model.preset, 0);
            // As the labels of SFT: with their plans, if the policy is to write plans.
            let answer = |program: &str| match prompt.expects_plan() {
                true => with_design(program),
                false => Some(program.to_owned()),
            };
            let programs: Vec<String> =
                train.examples().iter().filter_map(|example| answer(example.program.as_deref()?)).collect();
            ensure!(
                !programs.is_empty(),
                "no training row has a program that can be learnt: a new model's tokenizer is made from programs"
            );
            // The prompt occurs in every example, so the tokenizer learns its words too.
            let prompt = prompt.text(&[preset.tokens_per_tile()]);
            let texts = programs.iter().flat_map(|program| [prompt.as_str(), program]);
            let tokenizer = Tokenizer::train(texts, self.config.model.vocab_size)?;
            let config = InternVlConfig::preset(self.config.model.preset, tokenizer.vocab_size() as i64);
            let weights = Weights::random(&config, i64::from(self.config.run.seed), Kind::Float, Device::Cpu);
            let parameters: usize = weights.iter().map(|(_, tensor)| tensor.numel()).sum();
            status(format_args!(
                "model: {} of {:.1} M parameters, {} tokens",
                self.config.model.preset,
                parameters as f64 / 1e6,
                tokenizer.vocab_size()
            ));
            tokenizer.save(aside)?;
            Ok(InternVl::new(config, weights, None, Kind::Float).save(aside, Layout::Original)?)
        })
    }

    /// The directory of the base model; downloaded if need be.
    pub(super) fn model_dir(&self) -> Result<PathBuf> {
        if let Some(directory) = self.model_dir.get() {
            return Ok(directory.clone());
        }
        let directory = match self.config.model.path.as_str() {
            "" => self.dir.join("model"),
            path => resolve_checkpoint(path, &self.config.model.revision)?,
        };
        Ok(self.model_dir.get_or_init(|| directory).clone())
    }

    /// The scorer of training and validation.
    pub(super) fn training_scorer(&self) -> Result<Scorer> {
        let rollout = &self.config.rollout;
        let config = self.config.scorer(rollout.engine, rollout.grid, &[rollout.frame], Some(self.cache_dir()));
        Ok(Scorer::new(self.world.own_share(config))?)
    }

    /// The directory of executed ground truths.
    pub(super) fn cache_dir(&self) -> PathBuf {
        match &self.config.rollout.cache_dir {
            unset if unset.as_os_str().is_empty() => self.dir.join("cache"),
            path => path.clone(),
        }
    }
}

/// The location of the data of a run in `dir`. Synthetic data may not have been made yet.
pub(crate) fn stored_data(config: &Config, dir: &Path) -> DataSource {
    config.data.configured_source().unwrap_or_else(|| DataSource::path(dir.join("data")))
}

/// The options of the synthetic data set that `[data.synth]` describes, written to `directory`.
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
