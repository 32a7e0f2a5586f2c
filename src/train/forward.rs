//! One forward pass over prompts and responses, and its backward pass.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::generate::Piece;
use crate::model::{DropoutRow, InternVl, Positions, Tape, Tokenizer};

/// Sequences of pieces, padded on the right.
pub struct TokenBatch {
    /// `[b, t]` i64.
    ids: Tensor,
    /// `[b, t]` bool: the places of pictures.
    is_picture: Tensor,
    /// `[n]` i64: positions, in the flattened batch, whose next token belongs to a response.
    rows: Tensor,
    /// `[n]` i64: those next tokens.
    pub targets: Tensor,
    /// `b` numbers: the tokens of each row without padding.
    lengths: Vec<i64>,
    /// Number of tokens without padding: `b * t` minus the padding.
    pub tokens: usize,
}

impl TokenBatch {
    /// A batch of `(prompt, response)`.
    pub fn new<'a>(
        sequences: impl Iterator<Item = (&'a [i64], &'a [i64])>,
        tokenizer: &Tokenizer,
        device: Device,
    ) -> Self {
        let pieces = |(prompt, response)| vec![Piece::Given(prompt), Piece::Response(response)];
        Self::of_pieces(&sequences.map(pieces).collect::<Vec<_>>(), tokenizer, device)
    }

    /// A batch of sequences, each of which begins with a piece that is not a response.
    pub fn of_pieces(sequences: &[Vec<Piece>], tokenizer: &Tokenizer, device: Device) -> Self {
        // The CPU compiles kernels for each shape, and the GPU's kernels have tiles of eight. So
        // lengths are rounded up, which also keeps the number of different lengths small.
        const MULTIPLE: usize = 8;
        let length = |pieces: &Vec<Piece>| pieces.iter().map(|piece| piece.ids().len()).sum::<usize>();
        let longest = sequences.iter().map(length).max().unwrap_or(0).next_multiple_of(MULTIPLE);
        let (mut ids, mut is_picture) = (Vec::new(), Vec::new());
        let (mut rows, mut targets, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (row, pieces) in sequences.iter().enumerate() {
            for piece in pieces {
                let is_given = matches!(piece, Piece::Given(_));
                if let Piece::Response(response) = piece {
                    let start = ids.len() as i64 - 1;
                    rows.extend(start..start + response.len() as i64);
                    targets.extend(*response);
                }
                ids.extend(piece.ids());
                is_picture.extend(piece.ids().iter().map(|&id| is_given && id == tokenizer.image_token));
            }
            ids.resize((row + 1) * longest, tokenizer.end_of_text);
            is_picture.resize((row + 1) * longest, false);
            lengths.push(length(pieces) as i64);
        }
        let tokens = lengths.iter().sum::<i64>() as usize;
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let shape = [-1, longest as i64];
        Self {
            ids: tensor(&ids).view(shape),
            is_picture: Tensor::from_slice(&is_picture).to_device(device).view(shape),
            rows: tensor(&rows),
            targets: tensor(&targets),
            lengths,
            tokens,
        }
    }

    /// The rows as dropout sees them, with a seed for each.
    fn dropout_rows(&self, seeds: &[u64]) -> Vec<DropoutRow> {
        assert_eq!(seeds.len(), self.lengths.len(), "one dropout seed for each row");
        seeds.iter().zip(&self.lengths).map(|(&seed, &tokens)| DropoutRow { seed, tokens }).collect()
    }
}

/// The result of a forward pass, and the data that its backward pass needs.
pub struct Pass<'a> {
    model: &'a InternVl,
    /// `[n, hidden]` in the compute dtype: the normed state from which each target is predicted.
    pub hidden: Tensor,
    /// The blocks' output and the tape for its backward pass, if activations were not kept.
    tape: Option<(Tensor, Tape<'a>)>,
}

/// Options of a forward pass.
#[derive(Debug, Clone, Default)]
pub struct PassMode {
    /// Computes activations again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Switches adapter dropout on: the seed of each row's masks. They do not depend on the other
    /// rows of the batch.
    pub dropout_seeds: Option<Vec<u64>>,
}

impl<'a> Pass<'a> {
    /// Runs `batch` with the embeddings `image [image tokens, hidden]` of its pictures, row by row,
    /// through the model.
    /// Logits are computed later, only for the targets and piece by piece.
    ///
    /// # Panics
    /// `mode` has not as many dropout seeds as the batch has rows.
    pub fn new(model: &'a InternVl, batch: &TokenBatch, image: &Tensor, mode: PassMode) -> Self {
        let decoder = model.decoder();
        let embeds = model.embed(&batch.ids, &batch.is_picture, image);
        let (_, t) = batch.ids.size2().expect("ids: [b, t]");
        let positions = Positions::causal(decoder.config(), t, batch.ids.device());
        let dropout = mode.dropout_seeds.map(|seeds| batch.dropout_rows(&seeds));
        let (states, tape) = if mode.gradient_checkpointing {
            let (states, tape) = decoder.blocks_with_tape(embeds, positions, dropout);
            (states.shallow_clone(), Some((states, tape)))
        } else {
            (decoder.blocks(embeds, &positions, None, dropout.as_deref()), None)
        };
        let hidden = decoder.last_norm(&states.flatten(0, 1).index_select(0, &batch.rows));
        Self { model, hidden, tape }
    }

    /// Adds the gradients of `weight` times the mean over targets of a loss to the trainable
    /// tensors, and returns that mean.
    ///
    /// `loss(logits, rows, share)` gets the logits `[m, vocab]` f32 of the targets `rows`, which
    /// are `share` of all, and gives the mean over them. Only one such piece exists at a time: for
    /// a batch of long programs and a vocabulary of 151,674 the whole would be tens of gigabytes.
    pub fn backward(self, weight: f64, loss: impl FnMut(&Tensor, Range<i64>, f64) -> Tensor) -> f64 {
        let rows_at_a_time = rows_at_a_time(self.model.config.llm_config.vocab_size);
        self.backward_in_pieces(weight, rows_at_a_time, loss)
    }

    fn backward_in_pieces(
        self,
        weight: f64,
        rows_at_a_time: i64,
        mut loss: impl FnMut(&Tensor, Range<i64>, f64) -> Tensor,
    ) -> f64 {
        let leaf = self.hidden.detach().set_requires_grad(true);
        let n = leaf.size()[0];
        let mut mean = 0.0;
        for rows in pieces(n, rows_at_a_time) {
            let share = (rows.end - rows.start) as f64 / n as f64;
            let logits = self.model.decoder().logits(&leaf.narrow(0, rows.start, rows.end - rows.start));
            let piece = loss(&logits, rows, share) * share;
            mean += piece.double_value(&[]);
            (piece * weight).backward();
        }
        // The gradient of sum(hidden * g) with respect to hidden is g.
        (&self.hidden * leaf.grad()).sum(Kind::Float).backward();
        if let Some((states, tape)) = self.tape {
            tape.backward(&states.grad());
        }
        mean
    }

    /// Log-probabilities of `targets [n]` at `temperature`: `[n]` f32. Without gradients.
    pub fn logprobs(&self, targets: &Tensor, temperature: f64) -> Tensor {
        tch::no_grad(|| {
            let n = self.hidden.size()[0];
            let piece = |rows: Range<i64>| {
                let m = rows.end - rows.start;
                let logits = self.model.decoder().logits(&self.hidden.narrow(0, rows.start, m));
                token_logprobs(&logits, &targets.narrow(0, rows.start, m), temperature).0
            };
            let pieces: Vec<Tensor> =
                pieces(n, rows_at_a_time(self.model.config.llm_config.vocab_size)).map(piece).collect();
            Tensor::cat(&pieces, 0)
        })
    }
}

/// Most logits that exist at a time: 512 MB of f32.
const LOGITS_AT_A_TIME: i64 = 128 << 20;

fn rows_at_a_time(vocab_size: i64) -> i64 {
    (LOGITS_AT_A_TIME / vocab_size).max(1)
}

/// `0..n` in ranges of `rows` or, at the end, fewer.
fn pieces(n: i64, rows: i64) -> impl Iterator<Item = Range<i64>> {
    (0..n).step_by(rows as usize).map(move |start| start..(start + rows).min(n))
}

/// The elements `rows` of `tensor [n]`.
pub fn narrowed(tensor: &Tensor, rows: &Range<i64>) -> Tensor {
    tensor.narrow(0, rows.start, rows.end - rows.start)
}

/// Log-probabilities of `targets [n]` under `logits [n, vocab] / temperature`: `[n]` f32; and the
/// whole `[n, vocab]` log-softmax.
pub fn token_logprobs(logits: &Tensor, targets: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let log_softmax = (logits / temperature).log_softmax(-1, Kind::Float);
    (log_softmax.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1), log_softmax)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InternVlConfig, Preset, Weights};

    #[test]
    fn pieces_cover_all_rows_once() {
        assert_eq!(rows_at_a_time(151_674), 884);
        assert_eq!(pieces(2000, 884).collect::<Vec<_>>(), [0..884, 884..1768, 1768..2000]);
        assert_eq!(pieces(10, 512).collect::<Vec<_>>(), vec![0..10; 1]);
        assert_eq!(pieces(0, 512).count(), 0);
    }

    #[test]
    fn pieces_give_the_gradients_of_the_whole() {
        let tokenizer = Tokenizer::train(["solid=solid0\n"; 2].into_iter(), 300).unwrap();
        let mut config = InternVlConfig::preset(Preset::Nano, tokenizer.vocab_size() as i64);
        config.llm_config.num_hidden_layers = 1;
        config.vision_config.num_hidden_layers = 1;
        let weights = Weights::random(&config, 0, Kind::Float, Device::Cpu);
        let mut model = InternVl::new(config, weights, None, Kind::Float);
        model.weights_mut().set_trainable(|name| name.starts_with("language_model."));
        let prompt = [tokenizer.image_token, 20, 30];
        let responses = [vec![40i64, 41, 42, 43], vec![44, 45, 46]];
        let image = Tensor::ones([2, 192], (Kind::Float, Device::Cpu));
        let gradients = |rows_at_a_time: i64, gradient_checkpointing: bool| {
            let batch = TokenBatch::new(responses.iter().map(|r| (&prompt[..], r.as_slice())), &tokenizer, Device::Cpu);
            let mode = PassMode { gradient_checkpointing, ..PassMode::default() };
            let pass = Pass::new(&model, &batch, &image, mode);
            let loss = |logits: &Tensor, rows: Range<i64>, _| {
                logits.cross_entropy_for_logits(&narrowed(&batch.targets, &rows))
            };
            let mean = pass.backward_in_pieces(0.5, rows_at_a_time, loss);
            let all: Vec<Tensor> =
                model.weights().trainable().map(|(_, tensor)| tensor.grad().flatten(0, -1)).collect();
            let all = Tensor::cat(&all, 0);
            model.weights().trainable().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
            (mean, all)
        };
        let (mean, whole) = gradients(100, false);
        assert!(whole.abs().max().double_value(&[]) > 1e-3);
        for (rows, gradient_checkpointing) in [(3, false), (1, false), (3, true)] {
            let (other_mean, other) = gradients(rows, gradient_checkpointing);
            assert!((mean - other_mean).abs() < 1e-5);
            assert!((&whole - other).abs().max().double_value(&[]) < 1e-5, "{rows} rows at a time");
        }
    }

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
