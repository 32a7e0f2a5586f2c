//! What PPO rests on: the update scores tokens under the very distribution that wrote them.

use std::path::Path;

use cadwright::config::OptimizerKind;
use cadwright::generate::{Completion, PromptInput, Sampling, generate};
use cadwright::model::{InternVl, Tokenizer};
use cadwright::train::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use cadwright::train::losses::{kl_k3, policy_loss};
use cadwright::train::optim::{Optimizer, OptimizerConfig};
use tch::{Device, Kind, Tensor};

const TEMPERATURE: f64 = 0.8;
const SAMPLES: usize = 3;

/// The tiny random InternVL3 of the model's tests, with an adapter that has dropout, its tokenizer, and two prompts of
/// unlike length: padded on the left when they are completed, on the right when they are scored.
fn policy() -> (InternVl, Tokenizer, Vec<PromptInput>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/internvl");
    let policy = InternVl::load(&fixture, Kind::Float, Kind::Float, Device::Cpu).expect("the fixture");
    let mut policy = policy.with_adapter(&fixture.join("adapter")).expect("the fixture's adapter");
    policy.weights_mut().set_trainable(cadwright::model::lora::is_adapter);
    let tokenizer = Tokenizer::train([""].into_iter(), 262).expect("special tokens and bytes");
    let side = policy.config.force_image_size;
    let pixels = Tensor::arange(2 * 3 * side * side, (Kind::Int64, Device::Cpu)) * 37;
    let tiles = pixels.remainder(251).view([2, 3, side, side]).to_kind(Kind::Uint8);
    let images = tch::no_grad(|| policy.embed_tiles(&tiles, false));
    let prompt = |(picture, text): (i64, &str)| {
        let image = images.get(picture);
        let picture_tokens = vec![tokenizer.image_token; image.size()[0] as usize];
        PromptInput { ids: [picture_tokens, tokenizer.encode(text)].concat(), image }
    };
    let prompts = [(0, "a box"), (1, "a longer prompt")].into_iter().map(prompt).collect();
    (policy, tokenizer, prompts)
}

fn completions(policy: &InternVl, tokenizer: &Tokenizer, prompts: &[PromptInput]) -> Vec<Completion> {
    let seeds: Vec<u64> = (0..(prompts.len() * SAMPLES) as u64).collect();
    let sampling = Sampling { temperature: TEMPERATURE, top_p: 1.0, max_new_tokens: 12 };
    generate(policy, tokenizer, prompts, &seeds, sampling, 64, |_, _| {})
}

/// A forward pass over every completion after its prompt, as the update makes it, and the completions' tokens.
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
    (Pass::new(policy, &batch, &Tensor::cat(&images, 0), tokenizer.image_token, mode), batch.targets)
}

fn logprobs_when_sampled(completions: &[Completion]) -> Tensor {
    Tensor::from_slice(&completions.iter().flat_map(|c| c.logprobs.iter().copied()).collect::<Vec<f32>>())
}

#[test]
fn the_ratio_is_one_before_the_first_step() {
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
    let (policy, tokenizer, prompts) = policy();
    let reference = policy.frozen_copy();
    let completions = completions(&reference, &tokenizer, &prompts);
    let old = logprobs_when_sampled(&completions);
    let config =
        OptimizerConfig { kind: OptimizerKind::Adamw, weight_decay: 0.0, betas: [0.9, 0.999], max_grad_norm: 1.0 };
    let mut optimizer = Optimizer::new(policy.weights(), config);
    let kl_and_ratio = |policy: &InternVl| {
        tch::no_grad(|| {
            let of = |model| {
                let (pass, targets) = score(model, &tokenizer, &prompts, &completions, PassMode::default());
                pass.logprobs(&targets, TEMPERATURE)
            };
            let new = of(policy);
            let kl = kl_k3(&new, &of(&reference)).mean(Kind::Float).double_value(&[]);
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
    optimizer.step(1e-2);
    let (kl, ratio_error) = kl_and_ratio(&policy);
    assert!(kl > 1e-6 && ratio_error > 1e-3, "a step changed nothing: KL {kl}, ratio off by {ratio_error}");
}
