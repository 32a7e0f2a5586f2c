//! Computes the embeddings of a data set's pictures that the decoder reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::data::image::{decode_rgb, tile_grid, tiles, to_tensor};
use crate::data::{Dataset, Example};
use crate::model::InternVl;

/// The decoded picture of an example.
///
/// # Panics
/// The picture cannot be decoded, which never happens for a row of a [`Dataset`].
pub fn decoded(example: &Example) -> RgbImage {
    decode_rgb(&example.image).expect("a dataset holds only pictures that decode")
}

/// The embedded pictures of an update. They are embedded once for all passes of the update, whose
/// gradients reach the vision tower together.
pub struct EmbeddedPictures {
    /// Indices in the data set, ascending.
    indices: Vec<usize>,
    /// The embeddings of each picture, `[image tokens, hidden]` f32.
    parts: Vec<Tensor>,
    /// If the vision tower is trained: its output, and the leaf tensor that the passes use in its
    /// place.
    tower: Option<(Tensor, Tensor)>,
}

impl EmbeddedPictures {
    /// The embeddings of the pictures `indices`, concatenated: `[image tokens, hidden]` f32.
    ///
    /// # Panics
    /// A picture that is not part of this update.
    pub fn concatenated(&self, indices: impl Iterator<Item = usize>) -> Tensor {
        let part = |index: usize| &self.parts[self.indices.binary_search(&index).expect("a picture of this update")];
        Tensor::cat(&indices.map(part).collect::<Vec<_>>(), 0)
    }

    /// Backpropagates the gradients of all passes into the vision tower.
    pub fn backward(self) {
        if let Some((embedded, leaf)) = self.tower
            && leaf.grad().defined()
        {
            // The gradient of sum(embedded * g) with respect to `embedded` is g.
            (embedded * leaf.grad()).sum(Kind::Float).backward();
        }
    }
}

/// Decodes, tiles and embeds the pictures of one data set, and keeps the embeddings if the vision
/// tower is frozen.
pub struct Pictures<'a> {
    dataset: &'a Dataset,
    max_tiles: usize,
    cache: RefCell<HashMap<usize, Tensor>>,
    cache_bytes: RefCell<usize>,
    budget_bytes: usize,
}

impl<'a> Pictures<'a> {
    /// Embeddings are kept in up to `cache_mib` MiB of host memory. It must be 0 if the vision
    /// tower is trained.
    pub fn new(dataset: &'a Dataset, max_tiles: usize, cache_mib: usize) -> Self {
        let budget_bytes = cache_mib << 20;
        Self { dataset, max_tiles, cache: RefCell::default(), cache_bytes: RefCell::default(), budget_bytes }
    }

    /// The tiles of the pictures, concatenated: `[tiles, 3, size, size] u8`; and the number of
    /// tiles of each.
    pub fn tiles(&self, model: &InternVl, indices: &[usize]) -> (Tensor, Vec<i64>) {
        let size = model.config.force_image_size as u32;
        let max_tiles = self.max_tiles.min(model.config.max_dynamic_patch) as u32;
        let examples = self.dataset.examples();
        let use_thumbnail = model.config.use_thumbnail;
        let pictures: Vec<Vec<RgbImage>> = indices
            .par_iter()
            .map(|&index| tiles(&decoded(&examples[index]), size, max_tiles, use_thumbnail))
            .collect();
        let counts: Vec<i64> = pictures.iter().map(|tiles| tiles.len() as i64).collect();
        (to_tensor(&pictures.concat()), counts)
    }

    /// The number of embeddings of the picture at `index`, without embedding it.
    pub fn image_tokens(&self, model: &InternVl, index: usize) -> usize {
        let max_tiles = self.max_tiles.min(model.config.max_dynamic_patch);
        if max_tiles == 1 {
            return model.config.tokens_per_tile();
        }
        let (width, height) = decoded(&self.dataset.examples()[index]).dimensions();
        let (columns, rows) = tile_grid(width, height, model.config.force_image_size as u32, max_tiles as u32);
        let tiles = (columns * rows) as usize;
        (tiles + usize::from(tiles > 1 && model.config.use_thumbnail)) * model.config.tokens_per_tile()
    }

    /// Embeds the pictures for an update. If the vision tower is trained,
    /// [`EmbeddedPictures::backward`] leads back into it. If not, pictures whose embeddings are in
    /// `known` are not embedded again.
    pub fn embed_for_update(
        &self,
        model: &InternVl,
        indices: &[usize],
        known: &BTreeMap<usize, Tensor>,
    ) -> EmbeddedPictures {
        let mut distinct = indices.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if !model.trains_vision() || distinct.is_empty() {
            let unknown: Vec<usize> = distinct.iter().copied().filter(|index| !known.contains_key(index)).collect();
            let mut embedded = self.embed(model, &unknown).into_iter();
            let part = |index: &usize| known.get(index).map(Tensor::shallow_clone).or_else(|| embedded.next());
            return EmbeddedPictures {
                parts: distinct.iter().filter_map(part).collect(),
                indices: distinct,
                tower: None,
            };
        }
        let (tiles, counts) = self.tiles(model, &distinct);
        let embedded = model.embed_tiles(&tiles);
        // Rounds as kept embeddings are rounded, so that the update sees the same embeddings as the
        // rollouts. The gradient ignores the rounding.
        let leaf = embedded.detach().to_kind(Kind::BFloat16).to_kind(Kind::Float).set_requires_grad(true);
        let parts = leaf.split_with_sizes(&counts, 0).iter().map(|part| part.flatten(0, 1)).collect();
        EmbeddedPictures { indices: distinct, parts, tower: Some((embedded, leaf)) }
    }

    /// Embeds pictures without gradients: one tensor `[image tokens, hidden]` f32 per picture, on
    /// the model's device. They are rounded to bf16, as kept embeddings are, so that results do not
    /// depend on which ones were kept.
    pub fn embed(&self, model: &InternVl, indices: &[usize]) -> Vec<Tensor> {
        const PICTURES_AT_A_TIME: usize = 32;
        let mut fresh = HashMap::new();
        let mut missing: Vec<usize> =
            indices.iter().copied().filter(|index| !self.cache.borrow().contains_key(index)).collect();
        missing.sort_unstable();
        missing.dedup();
        for chunk in missing.chunks(PICTURES_AT_A_TIME) {
            let (tiles, counts) = self.tiles(model, chunk);
            let embedded = tch::no_grad(|| model.embed_tiles(&tiles));
            for (&index, part) in chunk.iter().zip(embedded.split_with_sizes(&counts, 0)) {
                let part = part.flatten(0, 1);
                let bytes = part.numel() * 2;
                if *self.cache_bytes.borrow() + bytes <= self.budget_bytes {
                    *self.cache_bytes.borrow_mut() += bytes;
                    let kept = part.to_device(Device::Cpu).to_kind(Kind::BFloat16);
                    self.cache.borrow_mut().insert(index, kept);
                }
                fresh.insert(index, part.to_kind(Kind::BFloat16).to_kind(Kind::Float));
            }
        }
        let cache = self.cache.borrow();
        let kept = |index: &usize| cache[index].to_device(model.device()).to_kind(Kind::Float);
        indices.iter().map(|index| fresh.get(index).map_or_else(|| kept(index), Tensor::shallow_clone)).collect()
    }
}
