//! InternVL3: pictures and text in, logits out.

mod config;
mod cost;
mod error;
pub mod files;
pub mod language;
mod layout;
mod linear;
pub mod lora;
mod memory;
mod messages;
mod preset;
mod prompt;
mod strategy;
pub mod template;
mod tokenizer;
mod tokenizer_files;
mod value;
mod vision;
pub mod weights;

use std::path::Path;

use tch::{Device, Kind, Tensor};

pub use config::{InternVlConfig, LanguageConfig, VisionConfig};
pub use cost::Sequence;
pub use error::ModelError;
pub use language::{Decoder, KvCache, Positions, Tape};
pub use layout::Layout;
pub use linear::{DropoutRow, LoraScale};
pub use lora::{LoraConfig, TargetModules};
pub use memory::{BUCKET_BYTES, Memory, Ranks, Trained, Usage};
pub use preset::Preset;
pub use prompt::Prompt;
pub use strategy::Strategy;
pub use tokenizer::Tokenizer;
pub use value::ValueHead;
pub use weights::Weights;

use crate::data::image::normalise;
use vision::Vision;

/// A vision-language model with its weights and its adapter, if it has one.
pub struct InternVl {
    /// The architecture.
    pub config: InternVlConfig,
    /// Dtype of the products.
    pub compute_dtype: Kind,
    lora: Option<LoraConfig>,
    weights: Weights,
    vision: Vision,
    decoder: Decoder,
}

impl InternVl {
    /// A model over these weights. `compute_dtype` is the dtype of the products.
    pub fn new(config: InternVlConfig, weights: Weights, lora: Option<LoraConfig>, compute_dtype: Kind) -> Self {
        let scale = lora.as_ref().map(LoraConfig::scale);
        let vision = Vision::new(&weights, &config, scale, compute_dtype);
        let decoder = Decoder::new(&weights, "language_model", &config.llm_config, scale, compute_dtype);
        Self { config, compute_dtype, lora, weights, vision, decoder }
    }

    /// Reads a checkpoint directory in either layout, with its weights at dtype `weights_dtype`.
    ///
    /// # Errors
    /// See [`InternVlConfig::read`] and [`Weights::load`].
    pub fn load(
        directory: &Path,
        weights_dtype: Kind,
        compute_dtype: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        let config = InternVlConfig::read(directory)?;
        let weights = Weights::load(directory, &config, weights_dtype, device)?;
        Ok(Self::new(config, weights, None, compute_dtype))
    }

    /// Writes `config.json` and the weights into an existing directory, without the adapter.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path, layout: Layout) -> Result<(), ModelError> {
        let path = config::file(directory, "config.json");
        let dtype = match self.weights.iter().next().map(|(_, tensor)| tensor.kind()) {
            Some(Kind::BFloat16) => "bfloat16",
            Some(Kind::Half) => "float16",
            _ => "float32",
        };
        let config = InternVlConfig { layout, ..self.config.clone() };
        let text = format!("{:#}\n", config.to_json(dtype));
        std::fs::write(&path, text).map_err(|source| ModelError::Write { path, source })?;
        let mut tensors = self.weights.in_layout(&self.config, layout);
        tensors.retain(|(name, _)| !lora::is_adapter(name));
        files::write_checkpoint(directory, &tensors, files::SHARD_BYTES)
    }

    /// This model with its adapter added to its weights.
    #[must_use]
    pub fn merged(self) -> Self {
        let Self { config, compute_dtype, mut weights, lora, .. } = self;
        if let Some(lora) = lora {
            lora.merge_into(&mut weights);
        }
        Self::new(config, weights, None, compute_dtype)
    }

    /// This model with a new adapter beside the layers that `lora.target_modules` names: `A`
    /// random, `B` zero, so that the model's output does not change. Adapters are fp32.
    ///
    /// # Errors
    /// A target names no linear layer.
    pub fn with_new_adapter(self, lora: LoraConfig, seed: i64) -> Result<Self, ModelError> {
        let Self { config, compute_dtype, mut weights, .. } = self;
        lora.add_to(&mut weights, config.layout, seed)?;
        Ok(Self::new(config, weights, Some(lora), compute_dtype))
    }

    /// This model with an adapter in PEFT's format.
    ///
    /// # Errors
    /// A file is missing or malformed, or adapters match no layer; the error names them.
    pub fn with_adapter(self, directory: &Path) -> Result<Self, ModelError> {
        let Self { config, compute_dtype, mut weights, .. } = self;
        let lora = LoraConfig::load_into(&mut weights, directory)?;
        Ok(Self::new(config, weights, Some(lora), compute_dtype))
    }

    /// Writes the adapter in PEFT's format into an existing directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save_adapter(&self, directory: &Path, base_model: &str) -> Result<(), ModelError> {
        match &self.lora {
            Some(lora) => lora.save(&self.weights, self.config.layout, directory, base_model),
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

    /// The tensors by name, to change values in place or the set of trainable tensors.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// A copy of the model as it is now, for generation or as a reference: later training steps do
    /// not change the copy. Frozen weights are shared, trainable ones copied, and its output equals
    /// this model's.
    pub fn frozen_copy(&self) -> Self {
        Self::new(
            self.config.clone(),
            self.weights.frozen_copy(self.compute_dtype),
            self.lora.clone(),
            self.compute_dtype,
        )
    }

    /// Whether the vision tower or the projector is trained.
    pub fn trains_vision(&self) -> bool {
        self.weights.trainable().any(|(name, _)| !is_language(name))
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.weights.iter().next().map_or(Device::Cpu, |(_, tensor)| tensor.device())
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Embeds tiles of 8-bit pixels: `[tiles, 3, size, size] u8` to `[tiles, tokens, hidden] f32`
    /// in the decoder's space.
    pub fn embed_tiles(&self, tiles: &Tensor) -> Tensor {
        self.embed_pixels(&normalise(&tiles.to_device(self.device())))
    }

    /// Embeds normalised pixels: `[tiles, 3, size, size] f32` to `[tiles, tokens, hidden] f32` in
    /// the decoder's space.
    pub fn embed_pixels(&self, pixels: &Tensor) -> Tensor {
        self.vision.forward(pixels)
    }

    /// Embeds tokens: `ids [b, t] i64` to `[b, t, hidden] f32`. The n-th true position of
    /// `is_picture [b, t] bool`, row by row, gets the n-th row of `image [.., hidden]`.
    ///
    /// # Panics
    /// The number of such positions is not the number of rows.
    pub fn embed(&self, ids: &Tensor, is_picture: &Tensor, image: &Tensor) -> Tensor {
        let (tokens, rows) = (is_picture.sum(Kind::Int64).int64_value(&[]), image.numel() as i64 / self.hidden());
        assert_eq!(tokens, rows, "{tokens} image tokens for {rows} rows of picture embeddings");
        self.decoder.embed(ids).masked_scatter(&is_picture.unsqueeze(-1), image)
    }

    /// Logits of every position, `[b, t, vocab] f32`, of `ids [b, t] i64` with normalised
    /// `pixels [tiles, 3, size, size] f32`, of which the n-th row of embeddings takes the place of
    /// the n-th image token, row by row. `mask [b, t]` is 0 for padding. If `image_token`
    /// is `None`, the image token is the one that occurs as often as there are rows.
    ///
    /// # Errors
    /// A tensor has the wrong rank, an id is beyond the vocabulary, or the number of image tokens
    /// differs from the number of rows.
    pub fn logits(
        &self,
        ids: &Tensor,
        pixels: Option<&Tensor>,
        mask: Option<&Tensor>,
        image_token: Option<i64>,
    ) -> Result<Tensor, ModelError> {
        let device = self.device();
        let invalid = |reason: String| ModelError::Input { reason };
        let [b, t] = ids.size()[..] else {
            return Err(invalid(format!("input_ids: expected [b, t], got {:?}", ids.size())));
        };
        let vocab = self.config.llm_config.vocab_size;
        let (least, most) = (ids.min().int64_value(&[]), ids.max().int64_value(&[]));
        if least < 0 || most >= vocab {
            return Err(invalid(format!("input_ids: {least}..={most}, but the vocabulary has {vocab} tokens")));
        }
        let ids = ids.to_device(device).to_kind(Kind::Int64);
        let embeds = match pixels {
            None => self.decoder.embed(&ids),
            Some(pixels) => {
                let size = self.config.force_image_size;
                if pixels.dim() != 4 || pixels.size()[1..] != [3, size, size] {
                    let found = pixels.size();
                    return Err(invalid(format!("pixel_values: expected [tiles, 3, {size}, {size}], got {found:?}")));
                }
                let image = self.embed_pixels(&pixels.to_device(device).to_kind(Kind::Float));
                let rows = image.numel() as i64 / self.hidden();
                let is_token = |id: i64| ids.eq(id);
                let count = |id: i64| is_token(id).sum(Kind::Int64).int64_value(&[]);
                let often = || ids.flatten(0, -1).bincount(None::<Tensor>, 0).eq(rows).nonzero();
                let token = image_token.or_else(|| Vec::<i64>::try_from(often().flatten(0, -1)).ok()?.first().copied());
                let found = token.map_or(0, count);
                let Some(token) = token.filter(|_| found == rows) else {
                    return Err(invalid(format!(
                        "input_ids: {found} image tokens for {rows} rows of picture embeddings"
                    )));
                };
                self.embed(&ids, &is_token(token), &image)
            }
        };
        let is_token = match mask {
            Some(mask) if mask.size() != [b, t] => {
                return Err(invalid(format!("attention_mask: expected [{b}, {t}], got {:?}", mask.size())));
            }
            Some(mask) => mask.to_device(device).to_kind(Kind::Bool),
            None => Tensor::ones([b, t], (Kind::Bool, device)),
        };
        let positions = Positions::left_padded(self.decoder.config(), &is_token);
        let hidden = self.decoder.blocks(embeds, &positions, None, None);
        Ok(self.decoder.logits(&self.decoder.last_norm(&hidden)))
    }

    fn hidden(&self) -> i64 {
        self.config.llm_config.hidden_size
    }
}

/// Whether the tensor of this name belongs to the language model.
pub fn is_language(name: &str) -> bool {
    name.starts_with("language_model.")
}
