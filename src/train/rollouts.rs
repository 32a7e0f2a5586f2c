//! What a step of reinforcement learning collects, and the numbers that come of it.

use std::collections::BTreeMap;

use cadwright_rewards::outcome::OutcomeClass;
use cadwright_rollout::Score;
use tch::{Device, Tensor};

use super::advantages::RunningScale;
use super::forward::TokenBatch;
use super::losses::explained_variance;
use crate::config::{Algorithm, Config};
use crate::generate::{Completion, PromptInput};
use crate::model::Tokenizer;

/// What a step collects: `images_per_step` prompts, `samples_per_image` completions of each.
pub(super) struct Rollouts {
    /// The pictures, in the dataset.
    pub(super) indices: Vec<usize>,
    pub(super) prompts: Vec<PromptInput>,
    pub(super) completions: Vec<Completion>,
    pub(super) scores: Vec<Score>,
    /// What the critic sees of each completion, `[tokens, hidden]`; nothing without a critic.
    pub(super) states: Vec<Tensor>,
    pub(super) seconds_generate: f64,
    pub(super) seconds_score_wait: f64,
}

impl Rollouts {
    /// Whether completion `i` could be compared with its ground truth. One that could not says nothing of the policy.
    pub(super) fn is_scored(&self, i: usize) -> bool {
        self.scores[i].ground_truth_error.is_none()
    }

    /// The picture of completion `i`, in the dataset.
    pub(super) fn picture(&self, i: usize) -> usize {
        self.indices[i / self.samples()]
    }

    /// The prompt of completion `i`.
    pub(super) fn prompt(&self, i: usize) -> &PromptInput {
        &self.prompts[i / self.samples()]
    }

    fn samples(&self) -> usize {
        self.completions.len() / self.indices.len()
    }

    /// The pictures as the policy that sampled saw them.
    pub(super) fn images(&self) -> BTreeMap<usize, Tensor> {
        self.indices.iter().copied().zip(self.prompts.iter().map(|prompt| prompt.image.shallow_clone())).collect()
    }

    /// The completions `chosen` after their prompts.
    pub(super) fn token_batch(&self, chosen: &[usize], tokenizer: &Tokenizer, device: Device) -> TokenBatch {
        let sequence = |&i: &usize| (self.prompt(i).ids.as_slice(), self.completions[i].tokens.as_slice());
        TokenBatch::new(chosen.iter().map(sequence), tokenizer, device)
    }

    /// Their log-probabilities when they were sampled, one after another: `[n]` f32.
    pub(super) fn old_logprobs(&self, chosen: &[usize], device: Device) -> Tensor {
        let logprobs: Vec<f32> = chosen.iter().flat_map(|&i| &self.completions[i].logprobs).copied().collect();
        Tensor::from_slice(&logprobs).to_device(device)
    }

    /// `chosen`, those of like length beside each other: cut in pieces, little of them is padding.
    pub(super) fn by_length(&self, chosen: &[usize]) -> Vec<usize> {
        let mut sorted = chosen.to_vec();
        sorted.sort_by_key(|&i| self.prompt(i).ids.len() + self.completions[i].tokens.len());
        sorted
    }

    /// Response tokens of the completions `chosen`.
    pub(super) fn tokens(&self, chosen: &[usize]) -> f64 {
        chosen.iter().map(|&i| self.completions[i].tokens.len()).sum::<usize>() as f64
    }

    pub(super) fn vsr(&self) -> f64 {
        self.scores.iter().filter(|score| score.verdict.is_valid()).count() as f64 / self.scores.len().max(1) as f64
    }
}

/// What is known of one completion when the update starts; each is one number a token. Values and returns are a critic's,
/// `ref_logprobs` only there for completions that are updated on with a KL term.
pub(super) struct Experience {
    pub(super) ref_logprobs: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) advantages: Vec<f32>,
    pub(super) returns: Vec<f32>,
}

/// Means over the update's minibatches, each of which may come in pieces of a certain weight.
#[derive(Default)]
pub(super) struct Means {
    sums: BTreeMap<&'static str, (f64, f64)>,
}

impl Means {
    pub(super) fn add(&mut self, name: &'static str, value: &Tensor, weight: f64) {
        let (sum, weights) = self.sums.entry(name).or_default();
        *sum += value.double_value(&[]) * weight;
        *weights += weight;
    }

    /// All that was added, each times its weight.
    pub(super) fn total(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(sum, _)| *sum)
    }

    /// The weights of all that was added.
    pub(super) fn count(&self, name: &str) -> f64 {
        self.sums.get(name).map_or(0.0, |(_, weights)| *weights)
    }

    /// None where nothing was added.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.sums.get(name).map(|(sum, weights)| sum / weights)
    }
}

/// Numbers of the tokens of the completions `chosen`, one after another.
pub(super) fn flat(
    experience: &[Experience],
    chosen: &[usize],
    of: fn(&Experience) -> &[f32],
    device: Device,
) -> Tensor {
    let numbers: Vec<f32> = chosen.iter().flat_map(|&i| of(&experience[i])).copied().collect();
    Tensor::from_slice(&numbers).to_device(device)
}

/// The rewards that are trained on: less the penalty for length, in units of their running standard deviation if so wished.
pub(super) fn shaped_rewards(rollouts: &Rollouts, config: &Config, scale: &mut RunningScale) -> Vec<f32> {
    let ppo = &config.ppo;
    let of = |(score, completion): (&Score, &Completion)| {
        let length = completion.tokens.len() as f64 / config.generate.max_new_tokens as f64;
        score.reward - ppo.length_penalty * length
    };
    let rewards: Vec<f64> = rollouts.scores.iter().zip(&rollouts.completions).map(of).collect();
    scale.add((0..rewards.len()).filter(|&i| rollouts.is_scored(i)).map(|i| rewards[i]));
    let unit = if ppo.reward_normalisation { scale.deviation() } else { 1.0 };
    rewards.into_iter().map(|reward| (reward / unit) as f32).collect()
}

/// What a step's rollouts were like.
pub(super) fn rollout_numbers(rollouts: &Rollouts, experience: &[Experience], config: &Config) -> Vec<(String, f64)> {
    let n = rollouts.scores.len() as f64;
    let frame = config.reward_frame();
    let mean = |of: &dyn Fn(usize) -> f64| (0..rollouts.scores.len()).map(of).sum::<f64>() / n;
    let flat =
        |of: fn(&Experience) -> &Vec<f32>| -> Vec<f32> { experience.iter().flat_map(|e| of(e).clone()).collect() };
    let mut numbers = vec![
        ("reward_mean".to_owned(), mean(&|i| rollouts.scores[i].reward)),
        ("iou_mean".to_owned(), mean(&|i| rollouts.scores[i].iou_in(frame))),
        ("vsr".to_owned(), mean(&|i| f64::from(rollouts.scores[i].verdict.is_valid()))),
        ("truncated".to_owned(), mean(&|i| f64::from(rollouts.completions[i].truncated))),
        ("response_length".to_owned(), mean(&|i| rollouts.completions[i].tokens.len() as f64)),
        ("ground_truth_failures".to_owned(), n * (1.0 - mean(&|i| f64::from(rollouts.is_scored(i))))),
    ];
    if config.ppo.algorithm == Algorithm::Ppo {
        let explained = explained_variance(&flat(|e| &e.values), &flat(|e| &e.returns));
        numbers.push(("explained_variance".to_owned(), explained));
    }
    for class in OutcomeClass::ALL {
        let count = rollouts.scores.iter().filter(|score| score.verdict.class() == Some(class)).count();
        numbers.push((format!("outcome/{}", class.name()), count as f64));
    }
    numbers
}
