//! Dropout's masks belong to the rows of a batch, so that the gradients do not depend on how the
//! examples are divided into forward passes.

use cadwright::train::forward::{Pass, PassMode, TokenBatch, narrowed};

use super::*;

/// A prompt with the response to it and its picture's embeddings.
struct Example {
    prompt: Vec<i64>,
    response: Vec<i64>,
    image: Tensor,
    seed: u64,
}

fn tuned_with_dropout(p: f64) -> InternVl {
    let directory = edited("adapter", "adapter_model.safetensors", |_| {});
    set_field(&directory.path().join("adapter_config.json"), "/lora_dropout", p.into());
    let mut model = load(Kind::Float).with_adapter(directory.path()).unwrap();
    model.weights_mut().set_trainable(is_adapter);
    model
}

/// Four examples of different lengths, also after rounding up as [`TokenBatch`] does.
fn examples(model: &InternVl) -> Vec<Example> {
    let tokenizer = byte_tokenizer();
    let images = tch::no_grad(|| model.embed_tiles(&Reference::read().get("tiles")));
    let example = |(picture, prompt, response, seed): (i64, &str, &str, u64)| {
        let image = images.get(picture);
        let picture_tokens = vec![tokenizer.image_token; image.size()[0] as usize];
        let prompt = [picture_tokens, tokenizer.encode(prompt)].concat();
        Example { prompt, response: tokenizer.encode(response), image, seed }
    };
    let texts =
        [(0, "a", "box", 1), (1, "a rod", "a cylinder", 2), (1, "plate", "a box that is thin", 3), (0, "two", "no", 4)];
    texts.map(example).into()
}

/// The gradients of the mean cross-entropy over all response tokens of `examples`, with one forward
/// pass for each of `passes`, which are indices of examples.
fn gradients_of(
    model: &InternVl,
    examples: &[Example],
    passes: &[&[usize]],
    gradient_checkpointing: bool,
) -> BTreeMap<String, Tensor> {
    let tokenizer = byte_tokenizer();
    let count = |indices: &[usize]| indices.iter().map(|&i| examples[i].response.len()).sum::<usize>() as f64;
    let all = count(&passes.concat());
    for indices in passes {
        let members = indices.iter().map(|&i| &examples[i]);
        let sequences = members.clone().map(|example| (example.prompt.as_slice(), example.response.as_slice()));
        let batch = TokenBatch::new(sequences, &tokenizer, CPU);
        let image = Tensor::cat(&members.clone().map(|example| &example.image).collect::<Vec<_>>(), 0);
        let dropout_seeds = Some(members.map(|example| example.seed).collect());
        let mode = PassMode { gradient_checkpointing, dropout_seeds };
        let pass = Pass::new(model, &batch, &image, mode);
        pass.backward(count(indices) / all, |logits, rows, _| {
            logits.cross_entropy_for_logits(&narrowed(&batch.targets, &rows))
        });
    }
    let copies = gradients(model).into_iter().map(|(name, gradient)| (name, gradient.copy())).collect();
    model.weights().trainable().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
    copies
}

/// The largest relative difference of a tensor's gradient.
fn difference(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) -> f64 {
    let relative = |(name, expected): (&String, &Tensor)| (&found[name] - expected).norm() / expected.norm();
    expected.iter().map(relative).map(|error| error.double_value(&[])).fold(0.0, f64::max)
}

#[test]
fn gradients_with_dropout_are_the_same_however_examples_share_passes() {
    let _guard = sole_user_of_the_generator();
    let model = tuned_with_dropout(0.3);
    let examples = examples(&model);
    let together = gradients_of(&model, &examples, &[&[0, 1, 2, 3]], false);
    let divisions: [&[&[usize]]; 4] =
        [&[&[0], &[1], &[2], &[3]], &[&[2, 0, 3, 1]], &[&[3, 1], &[0, 2]], &[&[0, 1, 2, 3]]];
    for passes in divisions {
        for gradient_checkpointing in [false, true] {
            let found = gradients_of(&model, &examples, passes, gradient_checkpointing);
            let error = difference(&found, &together);
            println!("{passes:?}, checkpointing {gradient_checkpointing}: relative error {error:.1e}, tolerance 1e-6");
            assert!(error < 1e-6, "{passes:?}, checkpointing {gradient_checkpointing}: relative error {error:.1e}");
        }
    }
}

#[test]
fn another_seed_of_a_row_gives_other_gradients_and_no_dropout_gives_none_of_them() {
    let _guard = sole_user_of_the_generator();
    let model = tuned_with_dropout(0.3);
    let mut examples = examples(&model);
    let one = gradients_of(&model, &examples, &[&[0, 1]], false);
    examples[1].seed = 5;
    let other = gradients_of(&model, &examples, &[&[0, 1]], false);
    assert!(difference(&other, &one) > 0.01, "relative difference {}", difference(&other, &one));
    // Without dropout the seeds have no effect.
    let model = tuned_with_dropout(0.0);
    let one = gradients_of(&model, &examples, &[&[0, 1]], false);
    examples[1].seed = 6;
    assert_eq!(difference(&gradients_of(&model, &examples, &[&[0, 1]], false), &one), 0.0);
}

/// A pass without dropout leaves libtorch's generator as it is.
#[test]
fn nothing_is_drawn_without_dropout() {
    let _guard = sole_user_of_the_generator();
    let next_draw = || Tensor::rand([4], (Kind::Float, CPU));
    for (p, seeds, draws) in [(0.3, None, false), (0.0, Some(vec![1]), false), (0.3, Some(vec![1]), true)] {
        let model = tuned_with_dropout(p);
        let example = &examples(&model)[0];
        let batch = TokenBatch::new(
            std::iter::once((example.prompt.as_slice(), example.response.as_slice())),
            &byte_tokenizer(),
            CPU,
        );
        tch::manual_seed(3);
        let expected = next_draw();
        tch::manual_seed(3);
        let mode = PassMode { dropout_seeds: seeds.clone(), ..PassMode::default() };
        let _ = Pass::new(&model, &batch, &example.image, mode);
        assert_eq!(next_draw() != expected, draws, "p = {p}, seeds {seeds:?}");
    }
}
