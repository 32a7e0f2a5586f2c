//! Computes the embeddings of a data set's pictures that the decoder reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use image::{ImageResult, RgbImage};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::data::image::{ImageError, decode_rgb, tile_grid, tiles, to_tensor};
use crate::data::{Dataset, Example, encode_png};
use crate::model::{InternVl, InternVlConfig};

/// A picture in a prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Picture {
    /// Those of the part at this index of the data set: one, or several that follow each other.
    Part(usize),
    /// Another one. Its embeddings are not kept.
    File(PictureFile),
}

/// The content of a picture file that can be decoded: PNG, JPEG or WebP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PictureFile(Vec<u8>);

impl PictureFile {
    /// A file with this content.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ImageError> {
        decode_rgb(&bytes).map(|_| Self(bytes))
    }

    /// The picture of an example, the first if it has several.
    pub fn of_example(example: &Example) -> Self {
        Self(example.image.to_vec())
    }

    /// A picture as a PNG file.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn of(picture: &RgbImage) -> ImageResult<Self> {
        encode_png(picture).map(Self)
    }
}

/// The number of embeddings of a picture of this width and height in pixels, of which at most
/// `max_tiles` tiles are made, without the thumbnail.
pub fn image_tokens(config: &InternVlConfig, max_tiles: usize, (width, height): (u32, u32)) -> usize {
    let max_tiles = max_tiles.min(config.max_dynamic_patch) as u32;
    let (columns, rows) = tile_grid(width, height, config.force_image_size as u32, max_tiles);
    let tiles = (columns * rows) as usize;
    (tiles + usize::from(tiles > 1 && config.use_thumbnail)) * config.tokens_per_tile()
}

/// The decoded picture of an example, the first if it has several.
///
/// # Panics
/// The picture cannot be decoded, which never happens for a row of a [`Dataset`].
pub fn decoded(example: &Example) -> RgbImage {
    decode_rgb(&example.image).expect("a dataset holds only pictures that decode")
}

/// The decoded pictures of an example, in the order in which the model sees them.
///
/// # Panics
/// As [`decoded`].
pub fn all_decoded(example: &Example) -> Vec<RgbImage> {
    let decode = |bytes| decode_rgb(bytes).expect("a dataset holds only pictures that decode");
    example.pictures().map(decode).collect()
}

/// The embedded pictures of an update. They are embedded once for all passes of the update, whose
/// gradients reach the vision tower together.
pub struct EmbeddedPictures {
    /// The embeddings of each picture, `[image tokens, hidden]` f32.
    parts: BTreeMap<Picture, Tensor>,
    /// If the vision tower is trained: its output, and the leaf tensor that the passes use in its
    /// place.
    tower: Option<(Tensor, Tensor)>,
}

impl EmbeddedPictures {
    /// The embeddings of `pictures`, concatenated: `[image tokens, hidden]` f32.
    ///
    /// # Panics
    /// A picture that is not part of this update.
    pub fn concatenated(&self, pictures: impl IntoIterator<Item = Picture>) -> Tensor {
        let parts: Vec<&Tensor> = pictures.into_iter().map(|picture| &self.parts[&picture]).collect();
        Tensor::cat(&parts, 0)
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
    fn tiles(&self, model: &InternVl, pictures: &[Picture]) -> (Tensor, Vec<i64>) {
        let size = model.config.force_image_size as u32;
        let max_tiles = self.max_tiles.min(model.config.max_dynamic_patch) as u32;
        let use_thumbnail = model.config.use_thumbnail;
        let examples = self.dataset.examples();
        let tiles_of = |picture: RgbImage| tiles(&picture, size, max_tiles, use_thumbnail);
        let pictures: Vec<Vec<RgbImage>> = pictures
            .par_iter()
            .map(|picture| decoded_of(examples, picture).into_iter().flat_map(tiles_of).collect())
            .collect();
        let counts: Vec<i64> = pictures.iter().map(|tiles| tiles.len() as i64).collect();
        (to_tensor(&pictures.concat()), counts)
    }

    /// The number of embeddings of each picture, without embedding any: one number for a file, one or
    /// several for a part.
    pub fn image_tokens(&self, model: &InternVl, picture: &Picture) -> Vec<usize> {
        let examples = self.dataset.examples();
        if self.max_tiles.min(model.config.max_dynamic_patch) == 1 {
            let count = match picture {
                Picture::Part(index) => 1 + examples[*index].further.len(),
                Picture::File(_) => 1,
            };
            return vec![model.config.tokens_per_tile(); count];
        }
        let tokens = |picture: &RgbImage| image_tokens(&model.config, self.max_tiles, picture.dimensions());
        decoded_of(examples, picture).iter().map(tokens).collect()
    }

    /// Embeds the pictures for an update. If the vision tower is trained,
    /// [`EmbeddedPictures::backward`] leads back into it. If not, pictures whose embeddings are in
    /// `known` are not embedded again.
    pub fn embed_for_update(
        &self,
        model: &InternVl,
        pictures: impl IntoIterator<Item = Picture>,
        known: &BTreeMap<Picture, Tensor>,
    ) -> EmbeddedPictures {
        let distinct: Vec<Picture> = pictures.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        if !model.trains_vision() || distinct.is_empty() {
            let unknown: Vec<Picture> =
                distinct.iter().filter(|picture| !known.contains_key(picture)).cloned().collect();
            let embedded = self.embed(model, &unknown);
            let mut parts: BTreeMap<Picture, Tensor> = unknown.into_iter().zip(embedded).collect();
            for picture in distinct {
                if let Some(part) = known.get(&picture) {
                    parts.insert(picture, part.shallow_clone());
                }
            }
            return EmbeddedPictures { parts, tower: None };
        }
        let (tiles, counts) = self.tiles(model, &distinct);
        let embedded = model.embed_tiles(&tiles);
        // Rounds as kept embeddings are rounded, so that the update sees the same embeddings as the
        // rollouts. The gradient ignores the rounding.
        let leaf = embedded.detach().to_kind(Kind::BFloat16).to_kind(Kind::Float).set_requires_grad(true);
        let parts = leaf.split_with_sizes(&counts, 0).into_iter().map(|part| part.flatten(0, 1));
        EmbeddedPictures { parts: distinct.into_iter().zip(parts).collect(), tower: Some((embedded, leaf)) }
    }

    /// Embeds pictures without gradients: one tensor `[image tokens, hidden]` f32 per picture, on
    /// the model's device. They are rounded to bf16, as kept embeddings are, so that results do not
    /// depend on which ones were kept.
    pub fn embed(&self, model: &InternVl, pictures: &[Picture]) -> Vec<Tensor> {
        const PICTURES_AT_A_TIME: usize = 32;
        let mut fresh: BTreeMap<&Picture, Tensor> = BTreeMap::new();
        let is_kept =
            |picture: &&Picture| matches!(picture, Picture::Part(index) if self.cache.borrow().contains_key(index));
        let missing: BTreeSet<&Picture> = pictures.iter().filter(|picture| !is_kept(picture)).collect();
        let missing: Vec<&Picture> = missing.into_iter().collect();
        for chunk in missing.chunks(PICTURES_AT_A_TIME) {
            let (tiles, counts) = self.tiles(model, &chunk.iter().copied().cloned().collect::<Vec<_>>());
            let embedded = tch::no_grad(|| model.embed_tiles(&tiles));
            for (&picture, part) in chunk.iter().zip(embedded.split_with_sizes(&counts, 0)) {
                let part = part.flatten(0, 1);
                self.keep(picture, &part);
                fresh.insert(picture, part.to_kind(Kind::BFloat16).to_kind(Kind::Float));
            }
        }
        let cache = self.cache.borrow();
        let kept = |picture: &Picture| match picture {
            Picture::Part(index) => cache[index].to_device(model.device()).to_kind(Kind::Float),
            Picture::File(_) => unreachable!("embeddings of files are not kept"),
        };
        let found = |picture: &Picture| match fresh.get(picture) {
            Some(part) => part.shallow_clone(),
            None => kept(picture),
        };
        pictures.iter().map(found).collect()
    }

    /// Keeps the embeddings of a part's picture if there is room.
    fn keep(&self, picture: &Picture, part: &Tensor) {
        let Picture::Part(index) = picture else { return };
        let bytes = part.numel() * 2;
        if *self.cache_bytes.borrow() + bytes <= self.budget_bytes {
            *self.cache_bytes.borrow_mut() += bytes;
            let kept = part.to_device(Device::Cpu).to_kind(Kind::BFloat16);
            self.cache.borrow_mut().insert(*index, kept);
        }
    }
}

/// The decoded picture, or pictures of a part.
fn decoded_of(examples: &[Example], picture: &Picture) -> Vec<RgbImage> {
    match picture {
        Picture::Part(index) => all_decoded(&examples[*index]),
        Picture::File(file) => vec![decode_rgb(&file.0).expect("a picture that was decoded before")],
    }
}
