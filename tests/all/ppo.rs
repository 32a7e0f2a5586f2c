//! The condition that PPO depends on: the update scores tokens under the distribution that
//! generated them.

use cadwright::config::{Algorithm, Config, OptimizerKind, Ppo};
use cadwright::distributed::World;
use cadwright::generate::{Completion, GenerateOptions, PromptInput, Sampling, generate};
use cadwright::model::{InternVl, Tokenizer};
use cadwright::rollouts::Rollout;
use cadwright::train::advantages::{assign_advantages, length_factor};
use cadwright::train::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use cadwright::train::losses::{entropy, kl_k3, policy_loss};
use cadwright::train::optim::{Optimizer, OptimizerConfig};
use cadwright_rewards::{OutcomeClass, RewardConfig, reward};
use tch::{Device, Kind, Tensor};

use crate::harness::sole_user_of_the_generator;

const TEMPERATURE: f64 = 0.8;
const SAMPLES: usize = 3;

/// The tiny random InternVL3 of the model's tests with an adapter that has dropout, its tokenizer,
/// and two prompts of different length: padded on the left when they are completed, on the right
/// when they are scored.
fn policy() -> (InternVl, Tokenizer, Vec<PromptInput>) {
    policy_in(Kind::Float)
}

/// The same with products in `dtype`.
fn policy_in(dtype: Kind) -> (InternVl, Tokenizer, Vec<PromptInput>) {
    let fixture = crate::harness::fixture("internvl");
    let policy = InternVl::load(&fixture, Kind::Float, dtype, Device::Cpu).expect("the fixture");
    let mut policy = policy.with_adapter(&fixture.join("adapter")).expect("the fixture's adapter");
    policy.weights_mut().set_trainable(cadwright::model::lora::is_adapter);
    let tokenizer = Tokenizer::train([""].into_iter(), 262).expect("special tokens and bytes");
    let side = policy.config.force_image_size;
    let pixels = Tensor::arange(2 * 3 * side * side, (Kind::Int64, Device::Cpu)) * 37;
    let tiles = pixels.remainder(251).view([2, 3, side, side]).to_kind(Kind::Uint8);
    let images = tch::no_grad(|| policy.embed_tiles(&tiles));
    let prompt = |(picture, text): (i64, &str)| {
        let image = images.get(picture);
        let picture_tokens = vec![tokenizer.image_token; image.size()[0] as usize];
        PromptInput::new([picture_tokens, tokenizer.encode(text)].concat(), image)
    };
    let prompts = [(0, "a box"), (1, "a longer prompt")].into_iter().map(prompt).collect();
    (policy, tokenizer, prompts)
}

fn completions(policy: &InternVl, tokenizer: &Tokenizer, prompts: &[PromptInput]) -> Vec<Completion> {
    let seeds: Vec<u64> = (0..(prompts.len() * SAMPLES) as u64).collect();
    let sampling = Sampling { temperature: TEMPERATURE, top_p: 1.0, max_new_tokens: 12 };
    let options = GenerateOptions { sampling, batch_size: 64, keeps_states: false };
    generate(policy, tokenizer, prompts, &seeds, options, |_, _| {})
}

/// A forward pass over every completion after its prompt, as the update makes it, and the
/// completions' tokens.
fn score<'a>(
    policy: &'a InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    completions: &[Completion],
    mode: PassMode,
) -> (Pass<'a>, Tensor) {
    let prompt = |i: usize| &prompts[i / SAMPLES];
    let sequences = completions.iter().enumerate().map(|(i, c)| (prompt(i).ids.as_slice(), c.tokens.as_slice()));
    let batch = TokenBatch::new(sequences, tokenizer, policy.device());
    let images: Vec<&Tensor> = (0..completions.len()).map(|i| &prompt(i).image).collect();
    (Pass::new(policy, &batch, &Tensor::cat(&images, 0), mode), batch.targets)
}

fn logprobs_when_sampled(completions: &[Completion]) -> Tensor {
    Tensor::from_slice(&completions.iter().flat_map(|c| c.logprobs.iter().copied()).collect::<Vec<f32>>())
}

#[test]
fn the_ratio_is_one_before_the_first_step() {
    let _guard = sole_user_of_the_generator();
    let (policy, tokenizer, prompts) = policy();
    let completions = completions(&policy.frozen_copy(), &tokenizer, &prompts);
    let old = logprobs_when_sampled(&completions);
    assert!(old.numel() > 20 && old.min().double_value(&[]) < -0.1, "too little was sampled to say anything: {old}");
    for gradient_checkpointing in [false, true] {
        let mode = PassMode { gradient_checkpointing, ..PassMode::default() };
        let (pass, targets) = score(&policy, &tokenizer, &prompts, &completions, mode);
        let new = pass.logprobs(&targets, TEMPERATURE);
        let error = ((new - &old).exp() - 1.0).abs().max().double_value(&[]);
        assert!(error < 1e-4, "checkpointing {gradient_checkpointing}: the ratio is off by {error}");
    }
}

#[test]
fn the_kl_to_the_reference_is_zero_before_the_first_step_and_positive_after_it() {
    let _guard = sole_user_of_the_generator();
    let (policy, tokenizer, prompts) = policy();
    let reference = policy.frozen_copy();
    let completions = completions(&reference, &tokenizer, &prompts);
    let old = logprobs_when_sampled(&completions);
    let config =
        OptimizerConfig { kind: OptimizerKind::Adamw, weight_decay: 0.0, betas: [0.9, 0.999], max_grad_norm: 1.0 };
    let mut optimizer = Optimizer::new(policy.weights(), config);
    let kl_and_ratio = |policy: &InternVl| {
        tch::no_grad(|| {
            let logprobs_under = |model| {
                let (pass, targets) = score(model, &tokenizer, &prompts, &completions, PassMode::default());
                pass.logprobs(&targets, TEMPERATURE)
            };
            let new = logprobs_under(policy);
            let kl = kl_k3(&new, &logprobs_under(&reference)).mean(Kind::Float).double_value(&[]);
            (kl, ((new - &old).exp() - 1.0).abs().max().double_value(&[]))
        })
    };
    let (kl, _) = kl_and_ratio(&policy);
    assert!(kl.abs() < 1e-9, "KL {kl} of a policy from itself");

    let (pass, targets) = score(&policy, &tokenizer, &prompts, &completions, PassMode::default());
    let advantages = Tensor::arange(old.numel() as i64, (Kind::Float, Device::Cpu)).remainder(2) * 2 - 1;
    pass.backward(1.0, |logits, rows, _| {
        let [targets, old, advantages] = [&targets, &old, &advantages].map(|tensor| narrowed(tensor, &rows));
        policy_loss(&token_logprobs(logits, &targets, TEMPERATURE).0, &old, &advantages, 0.2).loss
    });
    optimizer.step(&World::single(), 1e-2).unwrap();
    let (kl, ratio_error) = kl_and_ratio(&policy);
    assert!(kl > 1e-6 && ratio_error > 1e-3, "a step changed nothing: KL {kl}, ratio off by {ratio_error}");
}

#[test]
fn in_bf16_the_ratio_before_the_first_step_is_one_to_rounding() {
    let _guard = sole_user_of_the_generator();
    let (policy, tokenizer, prompts) = policy_in(Kind::BFloat16);
    let completions = completions(&policy.frozen_copy(), &tokenizer, &prompts);
    let old = logprobs_when_sampled(&completions);
    let (pass, targets) = score(&policy, &tokenizer, &prompts, &completions, PassMode::default());
    let errors = ((pass.logprobs(&targets, TEMPERATURE) - &old).exp() - 1.0).abs();
    let (mean, most) = (errors.mean(Kind::Float).double_value(&[]), errors.max().double_value(&[]));
    // Sums of products are rounded in another order when all tokens are there at once.
    // docs/metrics.md states this bound.
    assert!(mean < 0.005 && most < 0.15, "the ratio is off by {mean} on average and {most} at most");
}

/// An evaluated policy has a frozen adapter in fp32. Its copy has it in the dtype of the products,
/// so that generation does not convert it at every token, and computes the same.
#[test]
fn a_frozen_copy_holds_adapters_in_the_dtype_of_products_and_computes_the_same() {
    let (mut policy, tokenizer, prompts) = policy_in(Kind::BFloat16);
    policy.weights_mut().set_trainable(|_| false);
    let copy = policy.frozen_copy();
    let adapters = || copy.weights().iter().filter(|(name, _)| cadwright::model::lora::is_adapter(name));
    assert!(adapters().count() > 0);
    assert!(adapters().all(|(_, tensor)| tensor.kind() == Kind::BFloat16), "each product converts the adapter again");
    let completions = completions(&policy, &tokenizer, &prompts);
    let logits = |policy: &InternVl| {
        let (pass, _) = score(policy, &tokenizer, &prompts, &completions, PassMode::default());
        tch::no_grad(|| policy.decoder().logits(&pass.hidden))
    };
    assert!(logits(&policy) == logits(&copy), "not the same to the bit");
}

/// Log-probability of each completion, summed over its tokens.
fn total_logprobs(
    policy: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    completions: &[Completion],
) -> Vec<f64> {
    let (pass, targets) = score(policy, tokenizer, prompts, completions, PassMode::default());
    let logprobs = Vec::<f32>::try_from(pass.logprobs(&targets, TEMPERATURE)).unwrap();
    let mut tokens = logprobs.into_iter().map(f64::from);
    completions.iter().map(|completion| tokens.by_ref().take(completion.tokens.len()).sum()).collect()
}

/// One optimiser step of the clipped surrogate with these advantages, a number for each token.
fn update(
    policy: &InternVl,
    tokenizer: &Tokenizer,
    prompts: &[PromptInput],
    completions: &[Completion],
    advantages: &[f32],
) {
    let config =
        OptimizerConfig { kind: OptimizerKind::Adamw, weight_decay: 0.0, betas: [0.9, 0.999], max_grad_norm: 1.0 };
    let mut optimizer = Optimizer::new(policy.weights(), config);
    let (old, advantages) = (logprobs_when_sampled(completions), Tensor::from_slice(advantages));
    let (pass, targets) = score(policy, tokenizer, prompts, completions, PassMode::default());
    pass.backward(1.0, |logits, rows, _| {
        let [targets, old, advantages] = [&targets, &old, &advantages].map(|tensor| narrowed(tensor, &rows));
        policy_loss(&token_logprobs(logits, &targets, TEMPERATURE).0, &old, &advantages, 0.2).loss
    });
    optimizer.step(&World::single(), 1e-4).unwrap();
}

#[test]
fn every_kind_of_failure_moves_the_policy_away_from_it_under_every_algorithm() {
    let _guard = sole_user_of_the_generator();
    let rewards = RewardConfig::default();
    let reward_of = |class, truncated| reward(&rewards, class, false, 0.0, truncated) as f32;
    let failures = OutcomeClass::ALL.into_iter().filter(|class| !class.is_valid());
    for (algorithm, class) in [Algorithm::Ppo, Algorithm::Rloo, Algorithm::Grpo, Algorithm::DrGrpo]
        .into_iter()
        .flat_map(|algorithm| failures.clone().map(move |class| (algorithm, class)))
    {
        let (policy, tokenizer, prompts) = policy();
        let completions = completions(&policy.frozen_copy(), &tokenizer, &prompts);
        // The second completion of each picture fails. The others build solids that do not overlap
        // with the part, which is better than to fail.
        let fails = |i: usize| i % SAMPLES == 1;
        let mut rollouts: Vec<Rollout> = completions
            .iter()
            .enumerate()
            .map(|(i, completion)| Rollout {
                reward: Some(reward_of(if fails(i) { class } else { OutcomeClass::Solid }, false)),
                values: vec![0.05; completion.tokens.len()],
                completion: Completion { tokens: completion.tokens.clone(), ..Completion::default() },
                ..Rollout::default()
            })
            .collect();
        let ppo = Ppo { algorithm, samples_per_image: SAMPLES, gae_lambda: 1.0, ..Config::default().ppo };
        assign_advantages(&mut rollouts, &ppo);
        let mean_length = rollouts.iter().map(|r| r.tokens().len()).sum::<usize>() as f32 / rollouts.len() as f32;
        let mut concatenated = Vec::new();
        for (i, rollout) in rollouts.iter().enumerate() {
            let advantages = &rollout.advantages;
            assert!(advantages.iter().all(|a| (*a < 0.0) == fails(i)), "{algorithm:?} {class}: {advantages:?}");
            let factor = length_factor(algorithm, advantages.len(), mean_length);
            concatenated.extend(advantages.iter().map(|a| a * factor));
        }
        let before = total_logprobs(&policy, &tokenizer, &prompts, &completions);
        update(&policy, &tokenizer, &prompts, &completions, &concatenated);
        let after = total_logprobs(&policy, &tokenizer, &prompts, &completions);
        let change =
            |is: bool| -> f64 { (0..before.len()).filter(|&i| fails(i) == is).map(|i| after[i] - before[i]).sum() };
        assert!(change(true) < 0.0 && change(false) > 0.0, "{algorithm:?} {class}: {} {}", change(true), change(false));
    }
}

#[test]
fn a_positive_advantage_raises_and_a_negative_one_lowers_each_completion_alone() {
    let _guard = sole_user_of_the_generator();
    for (sign, chosen) in [1.0, -1.0].into_iter().flat_map(|sign| (0..SAMPLES).map(move |chosen| (sign, chosen))) {
        let (policy, tokenizer, prompts) = policy();
        let completions = completions(&policy.frozen_copy(), &tokenizer, &prompts);
        let advantages: Vec<f32> = (0..completions.len())
            .flat_map(|i| vec![if i == chosen { sign } else { 0.0 }; completions[i].tokens.len()])
            .collect();
        let before = total_logprobs(&policy, &tokenizer, &prompts, &completions)[chosen];
        update(&policy, &tokenizer, &prompts, &completions, &advantages);
        let after = total_logprobs(&policy, &tokenizer, &prompts, &completions)[chosen];
        assert!((after - before) * f64::from(sign) > 0.0, "advantage {sign}: {before} to {after}");
    }
}

#[test]
fn the_entropy_bonus_raises_entropy() {
    let _guard = sole_user_of_the_generator();
    let (policy, tokenizer, prompts) = policy();
    let completions = completions(&policy.frozen_copy(), &tokenizer, &prompts);
    let config =
        OptimizerConfig { kind: OptimizerKind::Adamw, weight_decay: 0.0, betas: [0.9, 0.999], max_grad_norm: 1.0 };
    let mut optimizer = Optimizer::new(policy.weights(), config);
    let mut entropies = Vec::new();
    for _ in 0..5 {
        let (pass, targets) = score(&policy, &tokenizer, &prompts, &completions, PassMode::default());
        let loss = pass.backward(1.0, |logits, rows, _| {
            -entropy(&token_logprobs(logits, &narrowed(&targets, &rows), TEMPERATURE).1)
        });
        entropies.push(-loss);
        optimizer.step(&World::single(), 1e-3).unwrap();
    }
    assert!(entropies.windows(2).all(|pair| pair[1] > pair[0]), "{entropies:?}");
}
