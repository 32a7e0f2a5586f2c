//! The decoding engine: writes many completions at once and hands each over the moment it ends,
//! with the log-probability of every token under the distribution that it was sampled from.

mod piece;

use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::model::{InternVl, KvCache, Positions, Tokenizer};

pub use piece::Piece;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f64,
    /// Samples only among the likeliest tokens that together have this probability, and always from
    /// at least one (nucleus; Holtzman et al. 2019, arXiv:1904.09751); 1 samples among all.
    pub top_p: f64,
    /// A completion of this many tokens without an end is cut off.
    pub max_new_tokens: usize,
}

/// How completions are generated.
#[derive(Debug, Clone, Copy)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Maximum number of completions that are generated at the same time.
    pub batch_size: usize,
    /// Keeps the hidden states in [`Completion::states`], for a critic.
    pub keeps_states: bool,
}

/// A prompt and its pictures.
#[derive(Debug)]
pub struct PromptInput {
    /// Token ids with one image token for each row of `image`, in order.
    pub ids: Vec<i64>,
    /// The embeddings of all pictures, one after another: `[image tokens, hidden]` f32.
    pub image: Tensor,
    /// The parts of `ids` that the model wrote in earlier turns. It may write any token, so image
    /// tokens there are text.
    pub written: Vec<Range<usize>>,
}

impl PromptInput {
    /// A prompt in which every image token belongs to a picture.
    pub fn new(ids: Vec<i64>, image: Tensor) -> Self {
        Self { ids, image, written: Vec::new() }
    }

    /// The prompt of the next turn: this one, the tokens of its `answer`, and the ids of the
    /// user's `reply`, whose image tokens are places of the rows of `image`, if any.
    pub fn followed_by(&self, answer: &[i64], reply: &[i64], image: Option<&Tensor>) -> Self {
        let mut written = self.written.clone();
        written.push(self.ids.len()..self.ids.len() + answer.len());
        let image = match image {
            Some(image) => Tensor::cat(&[&self.image, image], 0),
            None => self.image.shallow_clone(),
        };
        Self { ids: [&self.ids, answer, reply].concat(), image, written }
    }

    /// Which of `ids` are places of pictures.
    fn is_picture(&self, image_token: i64) -> Vec<bool> {
        let mut is_picture: Vec<bool> = self.ids.iter().map(|&id| id == image_token).collect();
        self.written.iter().for_each(|range| is_picture[range.clone()].fill(false));
        is_picture
    }
}

/// The completion of one prompt.
#[derive(Debug, Default, PartialEq)]
pub struct Completion {
    /// Generated tokens; the last one ends the turn, unless the completion was cut off.
    pub tokens: Vec<i64>,
    /// For each token, its log-probability under the distribution that it was sampled from
    /// (temperature and nucleus applied; at temperature 0, the log-softmax of the raw logits).
    pub logprobs: Vec<f32>,
    /// Whether it was cut off at `max_new_tokens`.
    pub truncated: bool,
    /// `[tokens, hidden]` in the compute dtype: for each token, the normed state that its logits
    /// were computed from. `None` unless [`GenerateOptions::keeps_states`], and until the batch has
    /// ended.
    pub states: Option<Tensor>,
}

impl Completion {
    /// Adds the completion of the next turn. `truncated` becomes that of this one.
    pub fn append(&mut self, next: Self) {
        self.tokens.extend(next.tokens);
        self.logprobs.extend(next.logprobs);
        self.truncated = next.truncated;
        self.states = match (self.states.take(), next.states) {
            (Some(states), Some(next)) => Some(Tensor::cat(&[states, next], 0)),
            _ => None,
        };
    }
}

/// Completes every prompt `seeds.len() / prompts.len()` times. Completion `i` belongs to prompt `i
/// / samples` and draws only from a generator seeded with `seeds[i]`. Calls `on_done(i,
/// completion)` as completions end; the result is in order.
///
/// In a batch, a prompt is run through the model once and its keys and values are shared by its
/// samples. A prompt with more samples than a batch holds is run once for each batch.
///
/// # Panics
/// If the number of seeds is not a multiple of the number of prompts.
pub fn generate(
    model: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    seeds: &[u64],
    options: GenerateOptions,
    mut on_done: impl FnMut(usize, &Completion),
) -> Vec<Completion> {
    let batch_size = options.batch_size.max(1);
    let samples = seeds.len() / prompts.len().max(1);
    assert_eq!(samples * prompts.len(), seeds.len(), "seeds: expected a multiple of the number of prompts");
    let prompts_per_batch = (batch_size / samples.max(1)).max(1);
    let mut completions = Vec::with_capacity(seeds.len());
    for (prompts, seeds) in prompts.chunks(prompts_per_batch).zip(seeds.chunks(prompts_per_batch * samples.max(1))) {
        for seeds in seeds.chunks(batch_size) {
            let first = completions.len();
            let on_done = |index: usize, completion: &Completion| on_done(first + index, completion);
            completions.extend(tch::no_grad(|| {
                let mut batch = Batch::prefill(model, tokenizer, prompts, seeds, options);
                batch.run(on_done);
                batch.completions()
            }));
        }
    }
    completions
}

/// The hidden states of all rows, one decoding step after another.
#[derive(Default)]
struct States {
    /// `[rows, hidden]` each.
    steps: Vec<Tensor>,
    /// The completion of each row of `steps`, one step after another.
    owners: Vec<usize>,
}

impl States {
    /// Adds `states [rows, hidden]`, from which the next token of the completions `owners` is
    /// chosen.
    fn add(&mut self, states: &Tensor, owners: &[usize]) {
        self.steps.push(states.shallow_clone());
        self.owners.extend(owners);
    }

    /// The states of each completion: `[tokens, hidden]` each. A row is computed for a few steps
    /// after its completion has ended; those states are left out.
    fn by_completion(&self, completions: &[Completion]) -> Vec<Tensor> {
        let mut rows: Vec<Vec<i64>> = vec![Vec::new(); completions.len()];
        for (row, &owner) in self.owners.iter().enumerate() {
            if rows[owner].len() < completions[owner].tokens.len() {
                rows[owner].push(row as i64);
            }
        }
        let all = Tensor::cat(&self.steps, 0);
        let lengths: Vec<i64> = rows.iter().map(|rows| rows.len() as i64).collect();
        let order = Tensor::from_slice(&rows.concat()).to_device(all.device());
        all.index_select(0, &order).split_with_sizes(&lengths, 0)
    }
}

/// Completions in progress. A row is a sequence in the KV cache; rows of completions that have
/// ended are dropped from time to time.
struct Batch<'a> {
    model: &'a InternVl,
    tokenizer: &'a Tokenizer,
    sampling: Sampling,
    cache: KvCache,
    /// `[rows, s] bool`: which cached positions hold a token; `None` if all prompts have the same
    /// length.
    is_token: Option<Tensor>,
    /// Position of each row's next token.
    next_position: Vec<i64>,
    /// The completion that each row belongs to.
    owner: Vec<usize>,
    generators: Vec<ChaCha8Rng>,
    completions: Vec<Completion>,
    /// `[rows, vocab] f32`: logits of each row's next token.
    logits: Tensor,
    states: Option<States>,
}

impl<'a> Batch<'a> {
    fn prefill(
        model: &'a InternVl,
        tokenizer: &'a Tokenizer,
        prompts: &[PromptInput],
        seeds: &[u64],
        options: GenerateOptions,
    ) -> Self {
        let sampling = options.sampling;
        let device = model.device();
        let decoder = model.decoder();
        let samples = seeds.len() / prompts.len();
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let is_padded = prompts.iter().any(|prompt| prompt.ids.len() < longest);
        let (mut ids, mut is_picture) = (Vec::with_capacity(prompts.len() * longest), Vec::new());
        for prompt in prompts {
            ids.extend(std::iter::repeat_n(tokenizer.end_of_text, longest - prompt.ids.len()));
            ids.extend(&prompt.ids);
            is_picture.extend(std::iter::repeat_n(false, longest - prompt.ids.len()));
            is_picture.extend(prompt.is_picture(tokenizer.image_token));
        }
        let shape = [prompts.len() as i64, longest as i64];
        let ids = Tensor::from_slice(&ids).view(shape).to_device(device);
        let is_picture = Tensor::from_slice(&is_picture).view(shape).to_device(device);
        let image = Tensor::cat(&prompts.iter().map(|prompt| &prompt.image).collect::<Vec<_>>(), 0).to_device(device);
        let embeds = model.embed(&ids, &is_picture, &image);
        let is_token = is_padded.then(|| {
            let starts: Vec<i64> = prompts.iter().map(|prompt| (longest - prompt.ids.len()) as i64).collect();
            let starts = Tensor::from_slice(&starts).to_device(device).unsqueeze(1);
            Tensor::arange(longest as i64, (Kind::Int64, device)).unsqueeze(0).ge_tensor(&starts)
        });
        let positions = match &is_token {
            Some(is_token) => Positions::left_padded(decoder.config(), is_token),
            None => Positions::causal(decoder.config(), longest as i64, device),
        };
        let mut cache = KvCache::new(decoder, prompts.len() as i64, (longest + sampling.max_new_tokens) as i64);
        let hidden = decoder.blocks(embeds, &positions, Some(&mut cache), None);
        let last = decoder.last_norm(&hidden.select(1, longest as i64 - 1));
        let rows = Tensor::arange(prompts.len() as i64, (Kind::Int64, device)).repeat_interleave_self_int(
            samples as i64,
            0,
            None,
        );
        if samples > 1 {
            cache.select(&rows);
        }
        let next_position =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.ids.len() as i64, samples)).collect();
        let (last, owner) = (last.index_select(0, &rows), (0..seeds.len()).collect::<Vec<usize>>());
        let mut states = options.keeps_states.then(States::default);
        if let Some(states) = &mut states {
            states.add(&last, &owner);
        }
        Self {
            model,
            tokenizer,
            sampling,
            cache,
            is_token: is_token.map(|is_token| is_token.index_select(0, &rows)),
            next_position,
            owner,
            generators: seeds.iter().map(|&seed| ChaCha8Rng::seed_from_u64(seed)).collect(),
            completions: seeds.iter().map(|_| Completion::default()).collect(),
            logits: decoder.logits(&last),
            states,
        }
    }

    /// Decodes until every completion has ended.
    fn run(&mut self, mut on_done: impl FnMut(usize, &Completion)) {
        let mut is_live = vec![true; self.owner.len()];
        loop {
            let (tokens, logprobs) = self.choose();
            for row in 0..self.owner.len() {
                if !is_live[row] {
                    continue;
                }
                let completion = &mut self.completions[self.owner[row]];
                completion.tokens.push(tokens[row]);
                completion.logprobs.push(logprobs[row]);
                let is_ended = self.tokenizer.is_stop(tokens[row]);
                completion.truncated = !is_ended && completion.tokens.len() >= self.sampling.max_new_tokens;
                if is_ended || completion.truncated {
                    is_live[row] = false;
                    on_done(self.owner[row], &self.completions[self.owner[row]]);
                }
            }
            let live: Vec<i64> = (0..is_live.len()).filter(|&row| is_live[row]).map(|row| row as i64).collect();
            if live.is_empty() {
                return;
            }
            let mut tokens = tokens;
            // Copying the cache costs about as much as one step, so drop rows only once a quarter
            // has ended.
            if live.len() * 4 <= is_live.len() * 3 {
                self.keep(&live);
                tokens = live.iter().map(|&row| tokens[row as usize]).collect();
                is_live = vec![true; live.len()];
            }
            self.step(&tokens);
        }
    }

    /// The completions with their states, if kept.
    fn completions(mut self) -> Vec<Completion> {
        if let Some(states) = &self.states {
            let states = states.by_completion(&self.completions);
            self.completions.iter_mut().zip(states).for_each(|(completion, states)| completion.states = Some(states));
        }
        self.completions
    }

    /// Chooses a token for each row and returns the tokens with their log-probabilities.
    fn choose(&mut self) -> (Vec<i64>, Vec<f32>) {
        let temperature = self.sampling.temperature;
        let (tokens, logprobs) = if temperature <= 0.0 {
            (self.logits.argmax(-1, true), self.logits.log_softmax(-1, Kind::Float))
        } else {
            let logprobs = nucleus(&(&self.logits / temperature).log_softmax(-1, Kind::Float), self.sampling.top_p);
            let draws: Vec<f64> = self.owner.iter().map(|&owner| self.generators[owner].random::<f64>()).collect();
            let draws = Tensor::from_slice(&draws).to_device(logprobs.device()).unsqueeze(1);
            (invert_cdf(&logprobs, &draws), logprobs)
        };
        let chosen = logprobs.gather(-1, &tokens, false).squeeze_dim(-1);
        let to_vec = "a contiguous tensor copies to a vector";
        (
            Vec::try_from(tokens.squeeze_dim(-1).contiguous()).expect(to_vec),
            Vec::try_from(chosen.contiguous()).expect(to_vec),
        )
    }

    /// Drops all rows but `live`.
    fn keep(&mut self, live: &[i64]) {
        let rows = Tensor::from_slice(live).to_device(self.model.device());
        self.cache.select(&rows);
        self.is_token = self.is_token.as_ref().map(|is_token| is_token.index_select(0, &rows));
        self.owner = live.iter().map(|&row| self.owner[row as usize]).collect();
        self.next_position = live.iter().map(|&row| self.next_position[row as usize]).collect();
    }

    /// Runs each row's chosen token through the model, which gives the logits of the next one.
    fn step(&mut self, tokens: &[i64]) {
        let device = self.model.device();
        let decoder = self.model.decoder();
        let rows = tokens.len() as i64;
        if let Some(is_token) = &self.is_token {
            let new = Tensor::ones([rows, 1], (Kind::Bool, device));
            self.is_token = Some(Tensor::cat(&[is_token, &new], 1));
        }
        let positions: Vec<f32> = self.next_position.iter().map(|&position| position as f32).collect();
        let positions = Tensor::from_slice(&positions).to_device(device);
        let positions = Positions::next(decoder.config(), &positions, self.is_token.as_ref());
        let embeds = decoder.embed(&Tensor::from_slice(tokens).to_device(device).unsqueeze(1));
        let hidden = decoder.blocks(embeds, &positions, Some(&mut self.cache), None);
        let normed = decoder.last_norm(&hidden.select(1, 0));
        if let Some(states) = &mut self.states {
            states.add(&normed, &self.owner);
        }
        self.logits = decoder.logits(&normed);
        self.next_position.iter_mut().for_each(|position| *position += 1);
    }
}

/// Restricts `logprobs [rows, vocab]` to the smallest set of likeliest tokens whose probability
/// reaches `top_p`, at least one, and normalises them; all others become -inf.
fn nucleus(logprobs: &Tensor, top_p: f64) -> Tensor {
    if top_p >= 1.0 {
        return logprobs.shallow_clone();
    }
    let (sorted, order) = logprobs.sort(-1, true);
    let probability = sorted.exp();
    // A token is out if those before it already reach top_p. The likeliest is in even at top_p = 0.
    let is_out = (probability.cumsum(-1, Kind::Float) - &probability).ge(top_p);
    let _ = is_out.narrow(-1, 0, 1).fill_(0);
    let kept = sorted.masked_fill(&is_out, f64::NEG_INFINITY);
    let kept = &kept - kept.logsumexp([-1i64], true);
    kept.empty_like().scatter(-1, &order, &kept)
}

/// Samples by inverting the cumulative distribution of `logprobs [rows, vocab]` at `draws [rows, 1]
/// f64` in [0, 1): `[rows, 1] i64`. One draw for each row makes its tokens independent of the rest
/// of the batch.
fn invert_cdf(logprobs: &Tensor, draws: &Tensor) -> Tensor {
    let cumulative = logprobs.to_kind(Kind::Double).exp().cumsum(-1, Kind::Double);
    let total = cumulative.narrow(-1, cumulative.size()[1] - 1, 1);
    cumulative.le_tensor(&(draws * total)).sum_dim_intlist(-1i64, true, Kind::Int64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nucleus_keeps_the_smallest_likely_set_and_normalises_it() {
        let logprobs = Tensor::from_slice(&[0.1f32, 0.5, 0.15, 0.25]).log().unsqueeze(0);
        let kept: Vec<f32> = Vec::try_from(nucleus(&logprobs, 0.7).exp().squeeze()).unwrap();
        // 0.5 + 0.25 passes 0.7: those two stay, divided by 0.75.
        for (found, expected) in kept.iter().zip([0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]) {
            assert!((found - expected).abs() < 1e-6, "{kept:?}");
        }
    }

    #[test]
    fn a_nucleus_of_no_probability_is_the_likeliest_token() {
        let logprobs = Tensor::from_slice(&[0.1f32, 0.5, 0.15, 0.25]).log().unsqueeze(0);
        for top_p in [0.0, 1e-9, 0.4] {
            let kept: Vec<f32> = Vec::try_from(nucleus(&logprobs, top_p).exp().squeeze()).unwrap();
            assert_eq!(kept, [0.0, 1.0, 0.0, 0.0], "top_p = {top_p}");
        }
    }

    #[test]
    fn inverted_cdf_never_picks_an_impossible_token() {
        let logprobs = Tensor::from_slice(&[0.0f32, 0.5, 0.0, 0.5, 0.0]).log().unsqueeze(0);
        for (draw, expected) in [(0.0, 1), (0.49, 1), (0.5, 3), (0.999_999, 3)] {
            let token = invert_cdf(&logprobs, &Tensor::from_slice(&[draw]).unsqueeze(0));
            assert_eq!(token.int64_value(&[0, 0]), expected, "draw {draw}");
        }
    }
}
