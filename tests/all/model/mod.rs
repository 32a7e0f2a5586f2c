//! The model and the decoding engine against `transformers` and `peft`:
//! `scripts/reference/internvl.py` made the tiny random InternVL3 in `tests/fixtures/internvl` and
//! recorded what they compute with it.

mod dropout;
mod files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cadwright::generate::{Completion, GenerateOptions, PromptInput, Sampling, generate};
use cadwright::model::files::{read_tensors, write_safetensors};
use cadwright::model::{
    DropoutRow, InternVl, InternVlConfig, KvCache, Layout, LoraConfig, ModelError, Positions, TargetModules, Tokenizer,
    Weights,
};
use tch::{Device, Kind, Tensor};

use crate::harness::sole_user_of_the_generator;

const CPU: Device = Device::Cpu;

fn fixture() -> PathBuf {
    crate::harness::fixture("internvl")
}

fn load(compute: Kind) -> InternVl {
    InternVl::load(&fixture(), Kind::Float, compute, CPU).unwrap()
}

fn load_tuned(compute: Kind) -> InternVl {
    load(compute).with_adapter(&fixture().join("adapter")).unwrap()
}

/// Special tokens and the 256 bytes: the vocabulary that the fixture was made with.
fn byte_tokenizer() -> Tokenizer {
    let tokenizer = Tokenizer::train([""].into_iter(), 262).unwrap();
    assert_eq!((tokenizer.end_of_text, tokenizer.end_of_turn, tokenizer.image_token), (0, 2, 5));
    tokenizer
}

/// The inputs and outputs of the Python reference.
struct Reference {
    tensors: BTreeMap<String, Tensor>,
}

impl Reference {
    fn read() -> Self {
        let tensors = Tensor::read_safetensors(fixture().join("expected.safetensors")).unwrap();
        Self { tensors: tensors.into_iter().collect() }
    }

    fn get(&self, name: &str) -> Tensor {
        self.tensors[name].shallow_clone()
    }

    /// Rows of the batch without their padding, each with its own picture's embeddings.
    fn prompts(&self, model: &InternVl) -> Vec<PromptInput> {
        let image = tch::no_grad(|| model.embed_tiles(&self.get("tiles")));
        let ids = |row| ints(&self.get("ids").get(row).masked_select(&self.get("is_token").get(row)));
        let row = |row| PromptInput::new(ids(row), image.get(row));
        (0..2).map(row).collect()
    }

    /// Hidden states before the last norm, `[2, t, hidden]`.
    fn blocks(&self, model: &InternVl) -> Tensor {
        let (embeds, positions) = self.embedded(model);
        model.decoder().blocks(embeds, &positions, None, None)
    }

    fn embedded(&self, model: &InternVl) -> (Tensor, Positions) {
        let image = model.embed_tiles(&self.get("tiles"));
        let embeds = embed(model, &self.get("ids"), &image);
        (embeds, Positions::left_padded(model.decoder().config(), &self.get("is_token")))
    }

    /// `[2, t, vocab]`.
    fn logits(&self, model: &InternVl) -> Tensor {
        tch::no_grad(|| model.decoder().logits(&model.decoder().last_norm(&self.blocks(model))))
    }

    /// Mean cross-entropy of the response tokens of the batch.
    fn loss(&self, model: &InternVl, hidden: &Tensor) -> Tensor {
        let t = self.get("ids").size()[1];
        let later = |name: &str| self.get(name).narrow(1, 1, t - 1);
        let logits = model.decoder().logits(&model.decoder().last_norm(&hidden.narrow(1, 0, t - 1)));
        let logprobs =
            logits.log_softmax(-1, Kind::Float).gather(-1, &later("ids").unsqueeze(-1), false).squeeze_dim(-1);
        -logprobs.masked_select(&later("is_response")).mean(Kind::Float)
    }

    /// Entries of `[2, t, vocab]` at positions that hold a token.
    fn of_tokens(&self, logits: &Tensor) -> Tensor {
        logits.masked_select(&self.get("is_token").unsqueeze(-1))
    }
}

/// Embeds ids all of whose image tokens are places of pictures.
fn embed(model: &InternVl, ids: &Tensor, image: &Tensor) -> Tensor {
    model.embed(ids, &ids.eq(5), image)
}

/// Logits of every position of one sequence, `[t, vocab]`, without cache or padding.
fn full_forward(model: &InternVl, ids: &[i64], image: &Tensor) -> Tensor {
    let embeds = embed(model, &Tensor::from_slice(ids).unsqueeze(0), image);
    let positions = Positions::causal(model.decoder().config(), ids.len() as i64, CPU);
    let hidden = model.decoder().blocks(embeds, &positions, None, None);
    model.decoder().logits(&model.decoder().last_norm(&hidden)).get(0)
}

fn ints(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.contiguous()).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn max_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size(), "shapes");
    (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Largest absolute difference. NaN passes no tolerance.
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = max_error(found, expected);
    println!("{what}: max error {error:.2e}, tolerance {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: max error {error:.3e} is above {tolerance:.0e}");
}

/// Gradients of the same tensors: the error's norm relative to the norm.
fn assert_same_gradients(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>, tolerance: f64) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut worst = 0.0f64;
    for (name, expected) in expected {
        let error = ((&found[name] - expected).norm() / expected.norm()).double_value(&[]);
        assert!(error <= tolerance, "{name}: relative error {error:.3e} is above {tolerance:.0e}");
        worst = worst.max(error);
    }
    println!("gradients of {} tensors: max relative error {worst:.2e}, tolerance {tolerance:.0e}", expected.len());
}

fn gradients(model: &InternVl) -> BTreeMap<String, Tensor> {
    model.weights().trainable().map(|(name, tensor)| (name.to_owned(), tensor.grad())).collect()
}

fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

fn read(path: &Path) -> BTreeMap<String, Tensor> {
    read_tensors(path).unwrap()
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    write_safetensors(path, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
}

/// A copy of the fixture's directory `inner` with its tensors changed.
fn edited(inner: &str, file: &str, edit: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = if file == "model.safetensors" { "config.json" } else { "adapter_config.json" };
    std::fs::copy(fixture().join(inner).join(config), directory.path().join(config)).unwrap();
    let mut tensors = read(&fixture().join(inner).join(file));
    edit(&mut tensors);
    write(&directory.path().join(file), &tensors);
    directory
}

/// Changes a field of a JSON file.
fn set_field(path: &Path, field: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    *json.pointer_mut(field).unwrap() = value;
    std::fs::write(path, json.to_string()).unwrap();
}

fn greedy(max_new_tokens: usize) -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens }
}

// Forward and backward, against Python.

#[test]
fn picture_embeddings_equal_those_of_transformers() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let image = tch::no_grad(|| model.embed_tiles(&reference.get("tiles")));
    assert_close("picture embeddings", &image, &reference.get("image"), 1e-4);
}

#[test]
fn logits_equal_those_of_transformers() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let (found, expected) = (reference.logits(&model), reference.get("logits"));
    assert_close("logits", &reference.of_tokens(&found), &reference.of_tokens(&expected), 1e-4);
}

#[test]
fn logits_with_tied_embeddings_equal_those_of_transformers() {
    let directory = edited("", "model.safetensors", |tensors| {
        tensors.remove("language_model.lm_head.weight");
    });
    set_field(&directory.path().join("config.json"), "/llm_config/tie_word_embeddings", true.into());
    let model = InternVl::load(directory.path(), Kind::Float, Kind::Float, CPU).unwrap();
    let reference = Reference::read();
    let logits = reference.logits(&model).narrow(1, 12, 6);
    assert_close("tied logits", &logits, &reference.get("tied_logits"), 1e-4);
}

#[test]
fn bf16_logits_stay_within_the_rounding_that_transformers_has() {
    let (model, reference) = (load(Kind::BFloat16), Reference::read());
    let error = reference.of_tokens(&(reference.logits(&model) - reference.get("logits"))).abs();
    let (max, mean) = (error.max().double_value(&[]), error.mean(Kind::Float).double_value(&[]));
    println!("bf16 logits: max error {max:.3}, mean {mean:.4}");
    // transformers in bf16 is off by 0.133 at most and 0.0209 on average, on logits of standard
    // deviation 3.
    assert!(max < 0.133 && mean < 0.0209, "max {max}, mean {mean}");
}

#[test]
fn a_left_padded_batch_equals_its_rows_alone() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let batch = reference.logits(&model);
    for (row, prompt) in reference.prompts(&model).iter().enumerate() {
        let alone = tch::no_grad(|| full_forward(&model, &prompt.ids, &prompt.image));
        let padding = 18 - prompt.ids.len() as i64;
        assert_close("row", &batch.get(row as i64).narrow(0, padding, 18 - padding), &alone, 2e-5);
    }
}

#[test]
fn nobody_sees_padding_on_the_right() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompt = &reference.prompts(&model)[0];
    let padded: Vec<i64> = prompt.ids.iter().copied().chain([0, 77, 0]).collect();
    tch::no_grad(|| {
        let alone = full_forward(&model, &prompt.ids, &prompt.image);
        let padded = full_forward(&model, &padded, &prompt.image).narrow(0, 0, alone.size()[0]);
        assert_close("logits", &padded, &alone, 2e-5);
    });
}

#[test]
fn logits_with_an_adapter_equal_those_of_peft() {
    let (model, reference) = (load_tuned(Kind::Float), Reference::read());
    let (found, expected) = (reference.logits(&model), reference.get("lora_logits"));
    assert_close("logits", &reference.of_tokens(&found), &reference.of_tokens(&expected), 1e-4);
    assert!(max_error(&expected, &reference.get("logits")) > 1.0, "the adapter should matter");
}

#[test]
fn loss_and_adapter_gradients_equal_those_of_peft() {
    let (mut model, reference) = (load_tuned(Kind::Float), Reference::read());
    model.weights_mut().set_trainable(is_adapter);
    let loss = reference.loss(&model, &reference.blocks(&model));
    assert_close("loss", &loss, &reference.get("lora_loss"), 1e-5);
    loss.backward();
    let expected = |name: &String, gradient: &Tensor| {
        let name = name.strip_prefix("gradient.base_model.model.")?;
        Some((format!("language_model.{name}"), gradient.shallow_clone()))
    };
    let expected = reference.tensors.iter().filter_map(|(name, gradient)| expected(name, gradient)).collect();
    assert_same_gradients(&gradients(&model), &expected, 1e-3);
}

#[test]
fn checkpointing_gives_the_gradients_of_plain_backward() {
    let is_projector_or_decoder = |name: &str| !name.starts_with("vision_model.");
    for is_trained in [is_adapter as fn(&str) -> bool, is_projector_or_decoder, |_| true] {
        let (mut model, reference) = (load_tuned(Kind::Float), Reference::read());
        model.weights_mut().set_trainable(is_trained);
        reference.loss(&model, &reference.blocks(&model)).backward();
        let plain: BTreeMap<_, _> =
            gradients(&model).into_iter().map(|(name, gradient)| (name, gradient.copy())).collect();
        for (_, tensor) in model.weights().trainable() {
            let _ = tensor.grad().zero_();
        }
        let (embeds, positions) = reference.embedded(&model);
        let (hidden, tape) = model.decoder().blocks_with_tape(embeds, positions, None);
        reference.loss(&model, &hidden).backward();
        tape.backward(&hidden.grad());
        assert_same_gradients(&gradients(&model), &plain, 1e-5);
    }
}

/// If the second pass drew other dropout, the gradient would not be that of the loss.
#[test]
fn checkpointed_dropout_is_the_same_in_both_passes() {
    let _guard = sole_user_of_the_generator();
    let directory = edited("adapter", "adapter_model.safetensors", |_| {});
    set_field(&directory.path().join("adapter_config.json"), "/lora_dropout", 0.5.into());
    let mut model = load(Kind::Float).with_adapter(directory.path()).unwrap();
    model.weights_mut().set_trainable(|name| name.contains(".lora_A."));
    let reference = Reference::read();
    let forward = || {
        let (embeds, positions) = reference.embedded(&model);
        let rows = [7, 8].map(|seed| DropoutRow { seed, tokens: embeds.size()[1] });
        model.decoder().blocks_with_tape(embeds, positions, Some(rows.to_vec()))
    };
    let (hidden, tape) = forward();
    reference.loss(&model, &hidden).backward();
    tape.backward(&hidden.grad());
    let gradients = gradients(&model);
    let squares: f64 = gradients.values().map(|gradient| gradient.square().sum(Kind::Double).double_value(&[])).sum();
    // Along the gradient g, scaled to length 1, the loss climbs at the rate |g|.
    let loss_at = |step: f64| {
        tch::no_grad(|| {
            let moved = |by: f64| {
                for (name, tensor) in model.weights().trainable() {
                    let _ = tensor.shallow_clone().g_add_(&(&gradients[name] * (by / squares.sqrt())));
                }
            };
            moved(step);
            let loss = reference.loss(&model, &forward().0).double_value(&[]);
            moved(-step);
            loss
        })
    };
    let slope = (loss_at(3e-3) - loss_at(-3e-3)) / 6e-3;
    let error = slope / squares.sqrt() - 1.0;
    println!("slope along the gradient: relative error {error:.2e}, tolerance 1e-2");
    assert!(error.abs() < 1e-2, "slope {slope}, length of the gradient {}", squares.sqrt());
}

// Decoding.

/// Options of `generate` without states.
fn in_batches(sampling: Sampling, batch_size: usize) -> GenerateOptions {
    GenerateOptions { sampling, batch_size, keeps_states: false }
}

#[test]
fn greedy_tokens_equal_those_of_transformers() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let completions = generate(&model, &byte_tokenizer(), &prompts, &[0, 0], in_batches(greedy(12), 2), |_, _| {});
    for (row, completion) in completions.iter().enumerate() {
        // The reference pads after an end token.
        let mut tokens = completion.tokens.clone();
        tokens.resize(12, 0);
        assert_eq!(tokens, ints(&reference.get("greedy").get(row as i64)), "row {row}");
    }
    // One completion ends with an end token, the other at the limit.
    assert_eq!(completions[0].tokens.last(), Some(&2));
    assert_eq!(completions.iter().map(|completion| completion.truncated).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn decoding_with_the_cache_equals_the_full_forward() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let decoder = model.decoder();
    tch::no_grad(|| {
        let full = reference.logits(&model);
        let (embeds, _) = reference.embedded(&model);
        let is_token = reference.get("is_token");
        let mut cache = KvCache::new(decoder, 2, 18);
        let seen = |t| is_token.narrow(1, 0, t);
        let positions = Positions::left_padded(decoder.config(), &seen(12));
        let _ = decoder.blocks(embeds.narrow(1, 0, 12), &positions, Some(&mut cache), None);
        for t in 12..18 {
            let position = seen(t).sum_dim_intlist(1i64, false, Kind::Float);
            let positions = Positions::next(decoder.config(), &position, Some(&seen(t + 1)));
            let hidden = decoder.blocks(embeds.narrow(1, t, 1), &positions, Some(&mut cache), None);
            let logits = decoder.logits(&decoder.last_norm(&hidden)).select(1, 0);
            assert_close(&format!("logits at {t}"), &logits, &full.select(1, t), 2e-5);
        }
        assert_eq!(cache.len, 18);
    });
}

/// Probabilities of the tokens at `temperature`, renormalised over the nucleus of `top_p`, as
/// defined in section 3.1 of Holtzman et al. 2019, in f64.
fn nucleus(logits: &[f64], temperature: f64, top_p: f64) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| ((logit - highest) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut kept = vec![0.0; weights.len()];
    let mut sum = 0.0;
    for token in order {
        kept[token] = weights[token] / total;
        sum += kept[token];
        if sum >= top_p {
            break;
        }
    }
    kept.iter().map(|probability| probability / sum).collect()
}

#[test]
fn logprobs_are_those_of_the_distribution_that_was_sampled() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let seeds: Vec<u64> = (0..8).collect();
    let mut count = 0;
    for (temperature, top_p) in [(0.7, 1.0), (0.7, 0.8)] {
        let sampling = Sampling { temperature, top_p, max_new_tokens: 12 };
        let completions = generate(&model, &byte_tokenizer(), &prompts, &seeds, in_batches(sampling, 8), |_, _| {});
        for (index, Completion { tokens, logprobs, .. }) in completions.iter().enumerate() {
            let prompt = &prompts[index / 4];
            let ids: Vec<i64> = prompt.ids.iter().chain(tokens).copied().collect();
            let logits = tch::no_grad(|| full_forward(&model, &ids, &prompt.image));
            for (step, (&token, &logprob)) in tokens.iter().zip(logprobs).enumerate() {
                let logits = floats(&logits.get((prompt.ids.len() + step) as i64 - 1));
                let expected = nucleus(&logits, temperature, top_p)[token as usize].ln();
                let error = (f64::from(logprob) - expected).abs();
                assert!(error < 1e-4, "top_p {top_p}, completion {index}, step {step}: {logprob} for {expected}");
                count += 1;
            }
        }
    }
    assert!(count > 100, "only {count} tokens were sampled");
}

#[test]
fn the_states_kept_are_those_that_tokens_were_chosen_from() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let seeds: Vec<u64> = (0..8).collect();
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 12 };
    for batch_size in [8, 2] {
        let tokenizer = byte_tokenizer();
        let options = GenerateOptions { keeps_states: true, ..in_batches(sampling, batch_size) };
        let completions = generate(&model, &tokenizer, &prompts, &seeds, options, |_, _| {});
        assert_eq!(completions.len(), 8);
        for (index, Completion { tokens, logprobs, states, .. }) in completions.iter().enumerate() {
            let states = states.as_ref().expect("states were asked for");
            assert_eq!(states.size()[0], tokens.len() as i64);
            let logits = tch::no_grad(|| model.decoder().logits(states));
            for (step, (&token, &logprob)) in tokens.iter().zip(logprobs).enumerate() {
                let expected = nucleus(&floats(&logits.get(step as i64)), 1.0, 1.0)[token as usize].ln();
                let error = (f64::from(logprob) - expected).abs();
                assert!(error < 1e-4, "completion {index}, step {step}: {logprob} for {expected}");
            }
        }
        let lengths: Vec<usize> = completions.iter().map(|completion| completion.tokens.len()).collect();
        assert!(lengths.iter().any(|&length| length < 12), "none ends early: {lengths:?}");
    }
}

#[test]
fn samples_of_one_prompt_differ_by_seed_alone() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 12 };
    let seeds = [3, 4, 3, 5, 3, 4, 3, 5];
    let completions = generate(&model, &byte_tokenizer(), &prompts, &seeds, in_batches(sampling, 8), |_, _| {});
    assert_eq!(completions[0].tokens, completions[2].tokens);
    assert_ne!(completions[0].tokens, completions[1].tokens);
    assert_ne!(completions[0].tokens, completions[4].tokens, "other prompt");
}

#[test]
fn batch_size_changes_no_token() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let seeds: Vec<u64> = (100..108).collect();
    let sampling = Sampling { temperature: 0.9, top_p: 0.95, max_new_tokens: 16 };
    let run = |batch_size| {
        let mut done = Vec::new();
        let on_done = |index: usize, completion: &Completion| done.push((index, completion.tokens.clone()));
        let completions =
            generate(&model, &byte_tokenizer(), &prompts, &seeds, in_batches(sampling, batch_size), on_done);
        assert_eq!(done.len(), 8, "each completion is handed over once");
        assert!(done.iter().all(|(index, tokens)| completions[*index].tokens == *tokens));
        completions
    };
    let all = run(8);
    for batch_size in [1, 2, 3, 4] {
        for (found, expected) in run(batch_size).iter().zip(&all) {
            assert_eq!(found.tokens, expected.tokens, "batch size {batch_size}");
            let logprobs = |completion: &Completion| Tensor::from_slice(&completion.logprobs);
            assert_close("logprobs", &logprobs(found), &logprobs(expected), 1e-4);
        }
    }
}

/// The batch size limits memory, so it also applies to the samples of a single prompt.
#[test]
fn no_more_than_a_batch_is_written_at_a_time() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let prompts = reference.prompts(&model);
    let order = |batch_size| {
        let sampling = Sampling { temperature: 1.5, top_p: 1.0, max_new_tokens: 60 };
        let seeds: Vec<u64> = (0..6).collect();
        let mut order = Vec::new();
        let on_done = |index: usize, _: &Completion| order.push(index);
        let _ = generate(&model, &byte_tokenizer(), &prompts[..1], &seeds, in_batches(sampling, batch_size), on_done);
        order
    };
    assert_ne!(order(6), [0, 1, 2, 3, 4, 5], "together, the shortest is done first");
    assert_eq!(order(1), [0, 1, 2, 3, 4, 5], "one at a time, each is done before the next begins");
}

#[test]
#[should_panic(expected = "8 image tokens for 4 rows")]
fn pictures_that_do_not_fill_their_tokens_are_refused() {
    let (model, reference) = (load(Kind::Float), Reference::read());
    let _ = embed(&model, &reference.get("ids"), &reference.get("image").get(0));
}

#[test]
fn a_frozen_copy_computes_the_same_and_keeps_it() {
    for compute in [Kind::Float, Kind::BFloat16] {
        let (mut model, reference) = (load_tuned(compute), Reference::read());
        // Master weights that bf16 cannot represent, as after an optimiser step.
        model.weights_mut().set_trainable(|_| true);
        let nudge = |by: f64| {
            tch::no_grad(|| {
                for (_, tensor) in model.weights().trainable() {
                    let _ = tensor.shallow_clone().g_mul_scalar_(by);
                }
            });
        };
        nudge(1.0013);
        let before = reference.logits(&model);
        let copy = model.frozen_copy();
        assert_close("logits", &reference.logits(&copy), &before, 0.0);
        nudge(1.1);
        assert_close("logits after a step", &reference.logits(&copy), &before, 0.0);
        assert!(max_error(&reference.logits(&model), &before) > 0.1);
        assert_eq!(copy.weights().trainable().count(), 0);
    }
}
