//! InternVL3: pictures and text in, logits out.

mod config;
mod error;
pub mod language;
mod linear;
pub mod lora;
mod prompt;
pub mod template;
mod tokenizer;
mod tokenizer_files;
mod value;
mod vision;
pub mod weights;

use std::path::Path;

use tch::{Device, Kind, Tensor};

pub use config::{InternVlConfig, LanguageConfig, VisionConfig};
pub use error::ModelError;
pub use language::{Decoder, KvCache, Positions, Tape};
pub use linear::LoraScale;
pub use lora::LoraConfig;
pub use prompt::Prompt;
pub use tokenizer::Tokenizer;
pub use value::ValueHead;
pub use weights::Weights;

use vision::Vision;

/// A vision-language model with its weights and, if any, its adapter.
pub struct InternVl {
    /// The architecture.
    pub config: InternVlConfig,
    /// Dtype of the products.
    pub compute: Kind,
    lora: Option<LoraConfig>,
    weights: Weights,
    vision: Vision,
    decoder: Decoder,
}

impl InternVl {
    /// A model over these weights. `compute` is the dtype of the products.
    pub fn new(config: InternVlConfig, weights: Weights, lora: Option<LoraConfig>, compute: Kind) -> Self {
        let scale = lora.as_ref().map(LoraConfig::scale);
        let vision = Vision::new(&weights, &config, scale, compute);
        let decoder = Decoder::new(&weights, "language_model", &config.llm_config, scale, compute);
        Self { config, compute, lora, weights, vision, decoder }
    }

    /// Reads a checkpoint directory in the original InternVL layout, with its weights at dtype `store`.
    ///
    /// # Errors
    /// See [`InternVlConfig::read`] and [`Weights::load`].
    pub fn load(directory: &Path, store: Kind, compute: Kind, device: Device) -> Result<Self, ModelError> {
        let config = InternVlConfig::read(directory)?;
        let weights = Weights::load(directory, &config, store, device)?;
        Ok(Self::new(config, weights, None, compute))
    }

    /// Writes `config.json` and `model.safetensors` into an existing directory, without the adapter.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = config::file(directory, "config.json");
        let text = format!("{:#}\n", self.config.to_json());
        std::fs::write(&path, text).map_err(|source| ModelError::Write { path, source })?;
        let base = self.weights.iter().filter(|(name, _)| !lora::is_adapter(name));
        weights::write_safetensors(&directory.join("model.safetensors"), base)
    }

    /// This model with a new adapter beside the layers that `lora.target_modules` names: `A` random, `B` zero, so that
    /// the model computes what it did. Adapters are fp32.
    ///
    /// # Errors
    /// A target that names no linear layer.
    pub fn with_new_adapter(self, lora: LoraConfig, seed: i64) -> Result<Self, ModelError> {
        let Self { config, compute, mut weights, .. } = self;
        lora.add_to(&mut weights, seed)?;
        Ok(Self::new(config, weights, Some(lora), compute))
    }

    /// This model with an adapter in PEFT's format.
    ///
    /// # Errors
    /// A file that is missing or malformed, or adapters that match no layer, by name.
    pub fn with_adapter(self, directory: &Path) -> Result<Self, ModelError> {
        let Self { config, compute, mut weights, .. } = self;
        let lora = LoraConfig::load_into(&mut weights, directory)?;
        Ok(Self::new(config, weights, Some(lora), compute))
    }

    /// Writes the adapter in PEFT's format into an existing directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save_adapter(&self, directory: &Path, base_model: &str) -> Result<(), ModelError> {
        match &self.lora {
            Some(lora) => lora.save(&self.weights, directory, base_model),
            None => Ok(()),
        }
    }

    /// The adapter's settings, if the model has one.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// The tensors by name.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tensors by name, to change values in place or what is trainable.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// The model as it is now, for generation or as a reference: later training steps do not change it. Frozen weights
    /// are shared, trainable ones copied, so that it computes what this one does.
    pub fn frozen_copy(&self) -> Self {
        Self::new(self.config.clone(), self.weights.frozen_copy(self.compute), self.lora.clone(), self.compute)
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.weights.iter().next().map_or(Device::Cpu, |(_, tensor)| tensor.device())
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Tiles as 8-bit pixels `[tiles, 3, size, size] u8` to `[tiles, tokens, hidden] f32` in the decoder's space.
    pub fn embed_tiles(&self, tiles: &Tensor, train: bool) -> Tensor {
        let options = (Kind::Float, self.device());
        let constant = |values: [f32; 3]| Tensor::from_slice(&values).to_device(options.1).view([1, 3, 1, 1]);
        let pixels = tiles.to_device(options.1).to_kind(options.0) / 255.0;
        let pixels = (pixels - constant(IMAGENET_MEAN)) / constant(IMAGENET_STD);
        self.vision.forward(&pixels, train)
    }

    /// `ids [b, t] i64` to `[b, t, hidden] f32`, where the n-th image token of the batch's prompts, row by row, takes
    /// the n-th row of `image [.., hidden]`. A row's prompt has one run of image tokens; later ones were written by the
    /// model, which may sample any token, and are embedded as text.
    ///
    /// # Panics
    /// Where the prompts have another number of image tokens than `image` has rows.
    pub fn embed_prompt(&self, ids: &Tensor, image: &Tensor, image_token: i64) -> Tensor {
        let (_, t) = ids.size2().expect("ids: [b, t]");
        let is_image = ids.eq(image_token);
        // In the first run, the n-th image token is the n-th position counted from the first image token.
        let first = is_image.to_kind(Kind::Int64).argmax(1, true);
        let offset = Tensor::arange(t, (Kind::Int64, ids.device())).unsqueeze(0) - first;
        let is_picture = is_image.logical_and(&(offset + 1).eq_tensor(&is_image.cumsum(1, Kind::Int64)));
        let (tokens, rows) = (is_picture.sum(Kind::Int64).int64_value(&[]), image.numel() as i64 / self.hidden());
        assert_eq!(tokens, rows, "{tokens} image tokens for {rows} rows of picture embeddings");
        self.decoder.embed(ids).masked_scatter(&is_picture.unsqueeze(-1), image)
    }

    fn hidden(&self) -> i64 {
        self.config.llm_config.hidden_size
    }
}

/// Mean of the pictures that InternViT was trained on, RGB in [0, 1].
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the same.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
