//! Rollouts as the tensors of a forward pass.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::forward::{Pass, PassMode, TokenBatch};
use crate::model::{InternVl, Tokenizer};
use crate::pictures::{EmbeddedPictures, Picture};
use crate::rollouts::{PromptedDataset, Rollout};

/// The rollouts sorted by length, so that batches of neighbours need little padding.
pub(super) fn sorted_by_length<'a>(rollouts: &[&'a Rollout]) -> Vec<&'a Rollout> {
    let mut sorted = rollouts.to_vec();
    sorted.sort_by_key(|rollout| rollout.sequence_len());
    sorted
}

/// Number of generated tokens.
pub(super) fn token_count(rollouts: &[&Rollout]) -> f64 {
    rollouts.iter().map(|rollout| rollout.tokens().len()).sum::<usize>() as f64
}

/// The rollouts as sequences.
pub(super) fn token_batch(rollouts: &[&Rollout], tokenizer: &Tokenizer, device: Device) -> TokenBatch {
    let sequences: Vec<_> = rollouts.iter().map(|rollout| rollout.pieces()).collect();
    TokenBatch::of_pieces(&sequences, tokenizer, device)
}

/// The embeddings of the rollouts' pictures, in the order of [`token_batch`].
pub(super) fn images_of(rollouts: &[&Rollout], embedded: &EmbeddedPictures) -> Tensor {
    embedded.concatenated(rollouts.iter().flat_map(|rollout| rollout.pictures()))
}

/// Concatenates the numbers that `values` gives for the tokens of each rollout: `[tokens]` f32.
pub(super) fn per_token<'a>(
    rollouts: &[&'a Rollout],
    values: impl Fn(&'a Rollout) -> &'a [f32],
    device: Device,
) -> Tensor {
    let numbers: Vec<f32> = rollouts.iter().flat_map(|rollout| values(rollout)).copied().collect();
    Tensor::from_slice(&numbers).to_device(device)
}

/// The picture embeddings that the policy saw when it generated the rollouts, those of this rank.
pub(super) fn embeddings_when_generated(rollouts: &[Rollout]) -> BTreeMap<Picture, Tensor> {
    let known = rollouts.iter().flat_map(Rollout::known_images);
    known.map(|(picture, image)| (picture, image.shallow_clone())).collect()
}

/// Log-probabilities of the tokens of each rollout under `model` at `temperature`, without
/// gradients: one list for each rollout, in order.
pub(super) fn logprobs_under(
    model: &InternVl,
    prompted: &PromptedDataset,
    rollouts: &[&Rollout],
    embedded: &EmbeddedPictures,
    temperature: f64,
    micro_batch_size: usize,
) -> Vec<Vec<f32>> {
    let tokenizer = prompted.tokenizer;
    let mut order: Vec<usize> = (0..rollouts.len()).collect();
    order.sort_by_key(|&i| rollouts[i].sequence_len());
    let mut found = vec![Vec::new(); rollouts.len()];
    for chunk in order.chunks(micro_batch_size) {
        let members: Vec<&Rollout> = chunk.iter().map(|&i| rollouts[i]).collect();
        let batch = token_batch(&members, tokenizer, model.device());
        let images = images_of(&members, embedded);
        let pass = tch::no_grad(|| Pass::new(model, &batch, &images, PassMode::default()));
        let logprobs = to_vec(&pass.logprobs(&batch.targets, temperature));
        let mut rest = logprobs.as_slice();
        for (&i, rollout) in chunk.iter().zip(&members) {
            let (own, others) = rest.split_at(rollout.tokens().len());
            found[i] = own.to_vec();
            rest = others;
        }
    }
    found
}

/// The elements of a tensor as f32.
pub(super) fn to_vec(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous()).expect("a contiguous f32 tensor copies to a vector")
}
