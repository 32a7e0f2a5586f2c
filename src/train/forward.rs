//! One forward pass over prompts and responses, and back.

use tch::{Device, Kind, Tensor};

use crate::model::{InternVl, Positions, Tape, Tokenizer};

/// Prompts with the responses that follow them, padded on the right.
pub struct TokenBatch {
    /// `[b, t]` i64.
    ids: Tensor,
    /// `[n]` i64: positions, in the flattened batch, whose next token belongs to a response.
    rows: Tensor,
    /// `[n]` i64: those next tokens.
    pub targets: Tensor,
    /// `b * t` less the padding.
    pub tokens: usize,
}

impl TokenBatch {
    /// A batch of `(prompt, response)`.
    pub fn new<'a>(sequences: impl Iterator<Item = (&'a [i64], &'a [i64])> + Clone, tokenizer: &Tokenizer, device: Device) -> Self {
        // Kernels are compiled for each shape on the CPU and tile by eights on the GPU: few lengths, and round ones.
        const MULTIPLE: usize = 8;
        let longest = sequences.clone().map(|(prompt, response)| prompt.len() + response.len()).max().unwrap_or(0);
        let longest = longest.next_multiple_of(MULTIPLE);
        let (mut ids, mut rows, mut targets, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (row, (prompt, response)) in sequences.enumerate() {
            let start = (row * longest + prompt.len()) as i64 - 1;
            rows.extend(start..start + response.len() as i64);
            targets.extend(response);
            ids.extend(prompt.iter().chain(response));
            ids.resize((row + 1) * longest, tokenizer.end_of_text);
            tokens += prompt.len() + response.len();
        }
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        Self { ids: tensor(&ids).view([-1, longest as i64]), rows: tensor(&rows), targets: tensor(&targets), tokens }
    }
}

/// What a forward pass gives, with what its backward pass needs.
pub struct Pass<'a> {
    model: &'a InternVl,
    /// `[n, hidden]` in the compute dtype: the normed state from which each target is predicted.
    pub hidden: Tensor,
    /// The blocks' output and the way back from it, where activations were not kept.
    tape: Option<(Tensor, Tape<'a>)>,
}

/// How a pass is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassMode {
    /// Switches adapter dropout on.
    pub train: bool,
    /// Computes activations again on the way back.
    pub gradient_checkpointing: bool,
    /// Seed of the dropout.
    pub seed: u64,
}

impl<'a> Pass<'a> {
    /// Runs `batch` with the picture embeddings `image [image tokens, hidden]` through the model. Logits are computed by
    /// [`Self::logits`], only for the targets.
    pub fn new(model: &'a InternVl, batch: &TokenBatch, image: &Tensor, image_token: i64, mode: PassMode) -> Self {
        let decoder = model.decoder();
        let embeds = model.embed_prompt(&batch.ids, image, image_token);
        let (_, t) = batch.ids.size2().expect("ids: [b, t]");
        let positions = Positions::causal(decoder.config(), t, batch.ids.device());
        // The generator is global to libtorch; seeding it makes dropout a function of the step alone.
        tch::manual_seed(mode.seed as i64);
        let (states, tape) = if mode.gradient_checkpointing {
            let (states, tape) = decoder.blocks_with_tape(embeds, positions, mode.train, mode.seed as i64);
            (states.shallow_clone(), Some((states, tape)))
        } else {
            (decoder.blocks(embeds, &positions, None, mode.train), None)
        };
        let hidden = decoder.last_norm(&states.flatten(0, 1).index_select(0, &batch.rows));
        Self { model, hidden, tape }
    }

    /// `[n, vocab]` f32.
    pub fn logits(&self) -> Tensor {
        self.model.decoder().logits(&self.hidden)
    }

    /// Adds the gradients of the scalar `loss` to the trainable tensors.
    pub fn backward(self, loss: &Tensor) {
        loss.backward();
        if let Some((states, tape)) = self.tape {
            tape.backward(&states.grad());
        }
    }
}

/// Log-probabilities of `targets [n]` under `logits [n, vocab] / temperature`: `[n]` f32; and the whole
/// `[n, vocab]` log-softmax.
pub fn token_logprobs(logits: &Tensor, targets: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let log_softmax = (logits / temperature).log_softmax(-1, Kind::Float);
    (log_softmax.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1), log_softmax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_tokens_after_their_rows() {
        let texts = ["solid=solid0\n", "solid=solid1\n"];
        let tokenizer = Tokenizer::train(texts.into_iter(), 300).unwrap();
        let (prompt, responses) = ([7i64, 8, 9], [vec![20i64, 21, 22], vec![30i64]]);
        let batch = TokenBatch::new(responses.iter().map(|r| (&prompt[..], r.as_slice())), &tokenizer, Device::Cpu);
        assert_eq!(batch.ids.size(), [2, 8]);
        assert_eq!(batch.tokens, 10);
        let ids = Vec::<i64>::try_from(batch.ids.flatten(0, 1)).unwrap();
        let rows = Vec::<i64>::try_from(&batch.rows).unwrap();
        let targets = Vec::<i64>::try_from(&batch.targets).unwrap();
        assert_eq!(targets, [20, 21, 22, 30]);
        assert_eq!(rows.iter().map(|&row| ids[row as usize + 1]).collect::<Vec<_>>(), targets);
        assert!(ids[6..8].iter().all(|&id| id == tokenizer.end_of_text));
    }
}
