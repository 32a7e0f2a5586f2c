//! The decoding engine: many completions at once, each handed over the moment it ends, with the log-probability of every
//! token under the very distribution that it was sampled from.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::model::{InternVl, KvCache, Positions, Tokenizer};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f64,
    /// Samples only among the likeliest tokens that together have this probability (nucleus; Holtzman et al. 2019,
    /// arXiv:1904.09751); 1 samples among all.
    pub top_p: f64,
    /// A completion of this many tokens without an end is cut off.
    pub max_new_tokens: usize,
}

/// One picture and its prompt.
pub struct PromptInput {
    /// Token ids with one image token for each row of `image`.
    pub ids: Vec<i64>,
    /// `[image tokens, hidden]` f32.
    pub image: Tensor,
}

/// What the model wrote.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// Generated tokens; the last one ends the turn, unless the completion was cut off.
    pub tokens: Vec<i64>,
    /// For each token, its log-probability under the distribution that it was sampled from (temperature and nucleus
    /// applied; at temperature 0, the log-softmax of the logits as they are).
    pub logprobs: Vec<f32>,
    /// Cut off at `max_new_tokens`.
    pub truncated: bool,
}

/// Completes every prompt `seeds.len() / prompts.len()` times, at most `batch_size` completions at a time. Completion
/// `i` belongs to prompt `i / samples` and draws only from a generator seeded with `seeds[i]`. `on_done(i, completion)`
/// is called as completions end; the result is in order.
///
/// In a batch, a prompt is run through the model once and its keys and values are shared out to its samples. A prompt
/// with more samples than a batch holds is run once for each batch.
pub fn generate(
    model: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    seeds: &[u64],
    sampling: Sampling,
    batch_size: usize,
    on_done: impl FnMut(usize, &Completion),
) -> Vec<Completion> {
    in_batches(model, tokenizer, prompts, seeds, sampling, batch_size, false, on_done).0
}

/// As [`generate`], and the states from which tokens were chosen: for each completion `[tokens, hidden]` in the compute dtype, after
/// the last norm.
pub fn generate_with_states(
    model: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    seeds: &[u64],
    sampling: Sampling,
    batch_size: usize,
    on_done: impl FnMut(usize, &Completion),
) -> (Vec<Completion>, Vec<Tensor>) {
    in_batches(model, tokenizer, prompts, seeds, sampling, batch_size, true, on_done)
}

#[expect(clippy::too_many_arguments, reason = "those of generate, and one more")]
fn in_batches(
    model: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    seeds: &[u64],
    sampling: Sampling,
    batch_size: usize,
    keeps_states: bool,
    mut on_done: impl FnMut(usize, &Completion),
) -> (Vec<Completion>, Vec<Tensor>) {
    let samples = seeds.len() / prompts.len().max(1);
    assert_eq!(samples * prompts.len(), seeds.len(), "seeds: expected a multiple of the number of prompts");
    let prompts_per_batch = (batch_size / samples.max(1)).max(1);
    let (mut completions, mut states) = (Vec::with_capacity(seeds.len()), Vec::new());
    for (prompts, seeds) in prompts.chunks(prompts_per_batch).zip(seeds.chunks(prompts_per_batch * samples.max(1))) {
        for seeds in seeds.chunks(batch_size.max(1)) {
            let first = completions.len();
            tch::no_grad(|| {
                let on_done = |index: usize, completion: &Completion| on_done(first + index, completion);
                let mut batch = Batch::prefill(model, tokenizer, prompts, seeds, sampling, keeps_states);
                batch.run(on_done);
                states.extend(batch.states.take().map(|states| states.of(&batch.completions)).unwrap_or_default());
                completions.extend(batch.completions);
            });
        }
    }
    (completions, states)
}

/// The states of all rows, step after step.
struct States {
    steps: Vec<Tensor>,
    /// The completion of each row of `steps`, one step after another.
    owners: Vec<usize>,
}

impl States {
    /// `states [rows, hidden]`, from which the next token of the completions `owners` is chosen.
    fn add(&mut self, states: &Tensor, owners: &[usize]) {
        self.steps.push(states.shallow_clone());
        self.owners.extend(owners);
    }

    /// Those of each completion. A row goes on for a while after its completion has ended; what it computes then is nobody's.
    fn of(&self, completions: &[Completion]) -> Vec<Tensor> {
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

/// Rows still being written, and what is known of each.
struct Batch<'a> {
    model: &'a InternVl,
    tokenizer: &'a Tokenizer,
    sampling: Sampling,
    cache: KvCache,
    /// `[rows, s] bool`: which cached positions hold a token; none where prompts were all of one length.
    is_token: Option<Tensor>,
    /// Position of each row's next token.
    next_position: Vec<i64>,
    /// The completion that each row belongs to.
    owner: Vec<usize>,
    generators: Vec<ChaCha8Rng>,
    completions: Vec<Completion>,
    /// `[rows, vocab] f32`: logits of each row's next token.
    logits: Tensor,
    /// Where somebody asked for them.
    states: Option<States>,
}

impl<'a> Batch<'a> {
    fn prefill(
        model: &'a InternVl,
        tokenizer: &'a Tokenizer,
        prompts: &[PromptInput],
        seeds: &[u64],
        sampling: Sampling,
        keeps_states: bool,
    ) -> Self {
        let device = model.device();
        let decoder = model.decoder();
        let samples = seeds.len() / prompts.len();
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let is_padded = prompts.iter().any(|prompt| prompt.ids.len() < longest);
        let mut ids = Vec::with_capacity(prompts.len() * longest);
        for prompt in prompts {
            ids.extend(std::iter::repeat_n(tokenizer.end_of_text, longest - prompt.ids.len()));
            ids.extend(&prompt.ids);
        }
        let ids = Tensor::from_slice(&ids).view([prompts.len() as i64, longest as i64]).to_device(device);
        let image = Tensor::cat(&prompts.iter().map(|prompt| &prompt.image).collect::<Vec<_>>(), 0).to_device(device);
        let embeds = model.embed_prompt(&ids, &image, tokenizer.image_token);
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
        let hidden = decoder.blocks(embeds, &positions, Some(&mut cache), false);
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
        let mut states = keeps_states.then(|| States { steps: Vec::new(), owners: Vec::new() });
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
            completions: vec![Completion::default(); seeds.len()],
            logits: decoder.logits(&last),
            states,
        }
    }

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
            // Copying the cache costs about as much as one step, so rows are dropped a quarter at a time.
            if live.len() * 4 <= is_live.len() * 3 {
                self.keep(&live);
                tokens = live.iter().map(|&row| tokens[row as usize]).collect();
                is_live = vec![true; live.len()];
            }
            self.step(&tokens);
        }
    }

    /// A token for each row, with its log-probability.
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

    fn keep(&mut self, live: &[i64]) {
        let rows = Tensor::from_slice(live).to_device(self.model.device());
        self.cache.select(&rows);
        self.is_token = self.is_token.as_ref().map(|is_token| is_token.index_select(0, &rows));
        self.owner = live.iter().map(|&row| self.owner[row as usize]).collect();
        self.next_position = live.iter().map(|&row| self.next_position[row as usize]).collect();
    }

    /// Runs the chosen tokens through the model.
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
        let hidden = decoder.blocks(embeds, &positions, Some(&mut self.cache), false);
        let normed = decoder.last_norm(&hidden.select(1, 0));
        if let Some(states) = &mut self.states {
            states.add(&normed, &self.owner);
        }
        self.logits = decoder.logits(&normed);
        self.next_position.iter_mut().for_each(|position| *position += 1);
    }
}

/// `logprobs [rows, vocab]` restricted to the smallest set of likeliest tokens whose probability reaches `top_p`,
/// normalised again; the rest is -inf.
fn nucleus(logprobs: &Tensor, top_p: f64) -> Tensor {
    if top_p >= 1.0 {
        return logprobs.shallow_clone();
    }
    let (sorted, order) = logprobs.sort(-1, true);
    let probability = sorted.exp();
    // A token is out if those before it already reach top_p; the likeliest is always in.
    let is_out = (probability.cumsum(-1, Kind::Float) - &probability).ge(top_p);
    let kept = sorted.masked_fill(&is_out, f64::NEG_INFINITY);
    let kept = &kept - kept.logsumexp([-1i64], true);
    kept.empty_like().scatter(-1, &order, &kept)
}

/// The token at which the cumulative probability passes `draws [rows, 1] f64` in [0, 1): `[rows, 1] i64`. One draw a
/// row makes a row's tokens independent of the rest of the batch.
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
    fn inverted_cdf_never_picks_an_impossible_token() {
        let logprobs = Tensor::from_slice(&[0.0f32, 0.5, 0.0, 0.5, 0.0]).log().unsqueeze(0);
        for (draw, expected) in [(0.0, 1), (0.49, 1), (0.5, 3), (0.999_999, 3)] {
            let token = invert_cdf(&logprobs, &Tensor::from_slice(&[draw]).unsqueeze(0));
            assert_eq!(token.int64_value(&[0, 0]), expected, "draw {draw}");
        }
    }
}
