//! Tokenises pictures with known programs, on which SFT and PPO compute the cross-entropy.

use std::collections::HashMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::Tensor;

use super::drafts::Draft;
use super::forward::{Pass, PassMode, TokenBatch, narrowed};
use super::losses::{cross_entropy, weighted_cross_entropy};
use crate::data::design::with_design;
use crate::generate::Piece;
use crate::model::{InternVl, Prompt, Tokenizer};
use crate::pictures::{EmbeddedPictures, Picture};
use crate::rollouts::PromptedDataset;

/// A prompt and the response to it, as tokens; if there is a draft, the response to that.
#[derive(Debug, Clone)]
pub struct TokenizedExample {
    /// Index of the part in the dataset.
    pub index: usize,
    /// Prompt with image tokens.
    pub prompt: Arc<[i64]>,
    /// A first turn before the response, which is not trained on.
    pub draft: Option<Draft>,
    /// Plan, if any, program and end of turn.
    pub response: Vec<i64>,
    /// The weight of each token of the response in the loss, in [0, 1]; empty: 1 each.
    pub weights: Vec<f32>,
}

impl TokenizedExample {
    /// The part at `index` of the dataset with `response`.
    pub fn new(prompted: &PromptedDataset, model: &InternVl, index: usize, response: Vec<i64>) -> Self {
        Self { index, prompt: prompted.prompt_ids(model, index).into(), draft: None, response, weights: Vec::new() }
    }

    /// Tokens of the whole sequence.
    pub fn sequence_len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.ids().len()).sum()
    }

    /// The sequence.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = vec![Piece::Given(&self.prompt)];
        if let Some(draft) = &self.draft {
            pieces.extend([Piece::Draft(&draft.tokens), Piece::Given(&draft.reply.ids)]);
        }
        pieces.push(Piece::Response(&self.response));
        pieces
    }

    /// The pictures of the sequence, in order.
    pub fn pictures(&self) -> impl Iterator<Item = Picture> {
        let replied = self.draft.as_ref().and_then(|draft| draft.reply.picture.clone());
        std::iter::once(Picture::Part(self.index)).chain(replied)
    }
}

/// The tokens that answer `prompt` with `program`: a plan if the prompt expects one, the program,
/// and the end of the turn. `None` if it expects a plan and the program has no design.
pub fn response_ids(prompt: &Prompt, tokenizer: &Tokenizer, program: &str) -> Option<Vec<i64>> {
    let mut ids = match prompt.expects_plan() {
        true => tokenizer.encode(&with_design(program)?),
        false => tokenizer.encode(program),
    };
    ids.push(tokenizer.end_of_turn);
    Some(ids)
}

/// The rows with programs, and how many of them are left out.
pub struct TokenizedRows {
    /// The rows that are not left out.
    pub examples: Vec<TokenizedExample>,
    /// Rows of more tokens than allowed.
    pub too_long: usize,
    /// Rows whose program has no plan, although the prompt expects one.
    pub without_plan: usize,
}

/// Tokenizes the rows that have a program: those of at most `max_length` tokens, with a plan if the
/// prompt expects one.
pub fn tokenized_examples(prompted: &PromptedDataset, model: &InternVl, max_length: usize) -> TokenizedRows {
    let (prompt, tokenizer) = (prompted.prompt, prompted.tokenizer);
    let responses: Vec<(usize, Option<Vec<i64>>)> = prompted
        .dataset
        .examples()
        .par_iter()
        .enumerate()
        .filter_map(|(index, example)| Some((index, response_ids(prompt, tokenizer, example.program.as_deref()?))))
        .collect();
    let without_plan = responses.iter().filter(|(_, response)| response.is_none()).count();
    // Parts whose pictures have the same numbers of tiles have the same prompt.
    let mut prompts: HashMap<Vec<usize>, Arc<[i64]>> = HashMap::new();
    let mut examples = Vec::with_capacity(responses.len());
    for (index, response) in responses.into_iter().filter_map(|(index, response)| Some((index, response?))) {
        let image_tokens = prompted.pictures.image_tokens(model, &Picture::Part(index));
        let prompt =
            prompts.entry(image_tokens).or_insert_with_key(|tokens| tokenizer.encode(&prompt.text(tokens)).into());
        examples.push(TokenizedExample { index, prompt: prompt.clone(), draft: None, response, weights: Vec::new() });
    }
    let all = examples.len();
    examples.retain(|example| example.sequence_len() <= max_length);
    let too_long = all - examples.len();
    TokenizedRows { examples, too_long, without_plan }
}

/// An epoch in random order: steps, each a list of micro-batches of indices into `examples`.
/// Examples of similar length share a micro-batch, so that it needs little padding; the order of
/// lengths is random.
pub fn length_bucketed_batches(
    examples: &[TokenizedExample],
    per_step: usize,
    batch_size: usize,
    seed: u64,
) -> Vec<Vec<Vec<usize>>> {
    const STEPS_PER_BUCKET: usize = 16;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut rng);
    let mut steps: Vec<Vec<Vec<usize>>> = Vec::new();
    for bucket in order.chunks_mut(per_step * STEPS_PER_BUCKET) {
        bucket.sort_by_key(|&i| examples[i].sequence_len());
        steps.extend(bucket.chunks(per_step).map(|step| step.chunks(batch_size).map(<[usize]>::to_vec).collect()));
    }
    steps.shuffle(&mut rng);
    steps
}

/// Number of response tokens.
pub fn response_tokens<'a>(examples: impl IntoIterator<Item = &'a TokenizedExample>) -> usize {
    examples.into_iter().map(|example| example.response.len()).sum()
}

/// Adds `weight` times the gradients of the mean cross-entropy over the response tokens of
/// `examples`, each times its weight, to the trainable tensors. Returns that mean in nats, and the
/// number of tokens without padding.
pub fn cross_entropy_backward<'a>(
    model: &InternVl,
    tokenizer: &Tokenizer,
    examples: impl Iterator<Item = &'a TokenizedExample> + Clone,
    embedded: &EmbeddedPictures,
    weight: f64,
    mode: PassMode,
) -> (f64, usize) {
    let sequences: Vec<_> = examples.clone().map(TokenizedExample::pieces).collect();
    let batch = TokenBatch::of_pieces(&sequences, tokenizer, model.device());
    let images = embedded.concatenated(examples.clone().flat_map(TokenizedExample::pictures));
    let pass = Pass::new(model, &batch, &images, mode);
    let weights = token_weights(examples).map(|weights| Tensor::from_slice(&weights).to_device(model.device()));
    let mean = pass.backward(weight, |logits, rows, _| {
        let targets = narrowed(&batch.targets, &rows);
        match &weights {
            None => cross_entropy(logits, &targets),
            Some(weights) => weighted_cross_entropy(logits, &targets, &narrowed(weights, &rows)),
        }
    });
    (mean, batch.tokens)
}

/// The weights of all response tokens, in order; `None` if each is 1.
fn token_weights<'a>(examples: impl Iterator<Item = &'a TokenizedExample> + Clone) -> Option<Vec<f32>> {
    let weights_of = |example: &TokenizedExample| match example.weights.as_slice() {
        [] => vec![1.0; example.response.len()],
        weights => weights.to_vec(),
    };
    let is_weighted = examples.clone().any(|example| !example.weights.is_empty());
    is_weighted.then(|| examples.flat_map(weights_of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Reply;

    #[test]
    fn of_a_corrected_draft_only_the_response_is_learned() {
        let picture = Picture::Part(7);
        let draft = Draft { tokens: vec![3, 4], reply: Reply { ids: vec![5], picture: Some(picture.clone()) } };
        let (prompt, response) = (vec![1, 2].into(), vec![6]);
        let example = TokenizedExample { index: 2, prompt, draft: Some(draft), response, weights: Vec::new() };
        let expected = [Piece::Given(&[1, 2]), Piece::Draft(&[3, 4]), Piece::Given(&[5]), Piece::Response(&[6])];
        assert_eq!(example.pieces(), expected);
        assert_eq!((example.sequence_len(), response_tokens([&example])), (6, 1));
        assert_eq!(example.pictures().collect::<Vec<_>>(), [Picture::Part(2), picture]);
    }

    #[test]
    fn tokens_without_a_weight_count_in_full() {
        let example = |response: usize, weights: &[f32]| TokenizedExample {
            index: 0,
            prompt: vec![0].into(),
            draft: None,
            response: vec![0; response],
            weights: weights.to_vec(),
        };
        let (plain, weighted) = (example(2, &[]), example(3, &[1.0, 0.25, 0.0]));
        assert_eq!(token_weights([&plain, &plain].into_iter()), None);
        assert_eq!(token_weights([&plain, &weighted].into_iter()), Some(vec![1.0, 1.0, 1.0, 0.25, 0.0]));
    }

    #[test]
    fn an_epoch_has_every_example_once_and_batches_of_similar_length() {
        let example = |index| TokenizedExample {
            index,
            prompt: vec![0; 3].into(),
            draft: None,
            response: vec![0; 1 + index * 7 % 40],
            weights: Vec::new(),
        };
        let examples: Vec<_> = (0..130).map(example).collect();
        let steps = length_bucketed_batches(&examples, 8, 4, 7);
        assert_eq!(steps.len(), 17);
        let mut seen: Vec<usize> = steps.iter().flatten().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..130).collect::<Vec<_>>());
        let padding: usize = steps
            .iter()
            .flatten()
            .map(|batch| {
                let longest = batch.iter().map(|&i| examples[i].sequence_len()).max().unwrap();
                batch.iter().map(|&i| longest - examples[i].sequence_len()).sum::<usize>()
            })
            .sum();
        assert!(padding < 130, "{padding} tokens of padding");
        assert_eq!(steps, length_bucketed_batches(&examples, 8, 4, 7));
        assert_ne!(steps, length_bucketed_batches(&examples, 8, 4, 8));
    }
}
