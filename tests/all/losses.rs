//! The losses of reinforcement learning: against an independent implementation with padded batches
//! and masks (`scripts/reference/rl.py`), and their gradients against finite differences.

use cadwright::train::forward::token_logprobs;
use cadwright::train::losses::{PolicyLoss, cross_entropy, entropy, gae, kl_k3, policy_loss, value_loss, whiten};
use serde_json::Value;
use tch::{Kind, Tensor};

struct Reference(Value);

impl Reference {
    fn read() -> Self {
        Self(serde_json::from_str(include_str!("../fixtures/rl.json")).expect("the fixture"))
    }

    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap()
    }

    fn tensor(&self, name: &str) -> Tensor {
        tensor(&self.0[name])
    }

    fn targets(&self) -> Tensor {
        let targets: Vec<i64> = self.0["targets"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap()).collect();
        Tensor::from_slice(&targets)
    }
}

/// Numbers, or rows of them, as f32.
fn tensor(value: &Value) -> Tensor {
    let rows = value.as_array().unwrap();
    match rows[0].is_array() {
        true => Tensor::stack(&rows.iter().map(tensor).collect::<Vec<_>>(), 0),
        false => Tensor::from_slice(&rows.iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<_>>()),
    }
}

fn close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    let error = (found - expected).abs().max().double_value(&[]);
    assert!(error < tolerance, "{what}: off by {error}");
}

/// A loss as a function of the logits `[n, vocab]`.
type Loss = Box<dyn Fn(&Tensor) -> Tensor>;

/// Each term of the policy's loss by name.
fn terms(reference: &Reference) -> Vec<(&'static str, Loss)> {
    let (targets, temperature) = (reference.targets(), reference.number("temperature"));
    let (old, advantages) = (reference.tensor("old_logprobs"), reference.tensor("policy_advantages"));
    let (reference_logprobs, clip_range) = (reference.tensor("ref_logprobs"), reference.number("clip_range"));
    let logprobs = move |logits: &Tensor, targets: &Tensor| token_logprobs(logits, targets, temperature).0;
    let [t1, t2, t3] = [(); 3].map(|()| targets.shallow_clone());
    vec![
        ("policy", Box::new(move |l: &Tensor| policy_loss(&logprobs(l, &t1), &old, &advantages, clip_range).loss) as _),
        ("kl", Box::new(move |l: &Tensor| kl_k3(&logprobs(l, &t2), &reference_logprobs).mean(Kind::Float)) as _),
        ("entropy", Box::new(move |l: &Tensor| entropy(&token_logprobs(l, &t3, temperature).1)) as _),
        ("ce", Box::new(move |l: &Tensor| cross_entropy(l, &targets)) as _),
    ]
}

#[test]
fn losses_and_gradients_are_those_of_the_reference() {
    let reference = Reference::read();
    for (name, loss) in terms(&reference) {
        let logits = reference.tensor("logits").set_requires_grad(true);
        let found = loss(&logits);
        let expected = reference.0[name]["loss"].as_f64().unwrap();
        assert!((found.double_value(&[]) - expected).abs() < 1e-6, "{name}: {found:?}, not {expected}");
        found.backward();
        close(&logits.grad(), &tensor(&reference.0[name]["gradient"]), 1e-6, name);
    }
    let values = reference.tensor("values").set_requires_grad(true);
    let (old, returns) = (reference.tensor("old_values"), reference.tensor("value_returns"));
    let found = value_loss(&values, &old, &returns, reference.number("value_clip_range"));
    assert!((found.double_value(&[]) - reference.0["value"]["loss"].as_f64().unwrap()).abs() < 1e-6);
    found.backward();
    close(&values.grad(), &tensor(&reference.0["value"]["gradient"]), 1e-6, "value");
    let logprobs = token_logprobs(&reference.tensor("logits"), &reference.targets(), reference.number("temperature")).0;
    let (old, advantages) = (reference.tensor("old_logprobs"), reference.tensor("policy_advantages"));
    let PolicyLoss { clip_fraction, .. } = policy_loss(&logprobs, &old, &advantages, reference.number("clip_range"));
    assert!((clip_fraction.double_value(&[]) - reference.number("clip_fraction")).abs() < 1e-6);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-2;
    let reference = Reference::read();
    for (name, loss) in terms(&reference) {
        let logits = reference.tensor("logits").set_requires_grad(true);
        loss(&logits).backward();
        let gradient = logits.grad().flatten(0, -1);
        let at = |index: i64, step: f64| {
            let moved = reference.tensor("logits");
            let _ = moved.flatten(0, -1).get(index).g_add_scalar_(step);
            loss(&moved).double_value(&[])
        };
        let mut checked = 0;
        for index in 0..gradient.numel() as i64 {
            let (left, right) = (at(index, -STEP), at(index, STEP));
            let middle = loss(&reference.tensor("logits")).double_value(&[]);
            // The clip is a corner: if one lies within the step, there is no derivative to compare
            // with.
            if ((right - middle) - (middle - left)).abs() > 2e-5 {
                continue;
            }
            let expected = (right - left) / (2.0 * STEP);
            let found = gradient.double_value(&[index]);
            assert!((found - expected).abs() < 2e-4, "{name}[{index}]: {found}, by differences {expected}");
            checked += 1;
        }
        assert!(checked * 10 >= gradient.numel() * 9, "{name}: only {checked} of {} checked", gradient.numel());
    }
    let (old, returns) = (reference.tensor("old_values"), reference.tensor("value_returns"));
    let loss = |values: &Tensor| value_loss(values, &old, &returns, reference.number("value_clip_range"));
    let values = reference.tensor("values").set_requires_grad(true);
    loss(&values).backward();
    for index in 0..values.size()[0] {
        let at = |step: f64| {
            let moved = reference.tensor("values");
            let _ = moved.get(index).g_add_scalar_(step);
            loss(&moved).double_value(&[])
        };
        let (found, expected) = (values.grad().double_value(&[index]), (at(1e-3) - at(-1e-3)) / 2e-3);
        assert!((found - expected).abs() < 1e-3, "value[{index}]: {found}, by differences {expected}");
    }
}

#[test]
fn advantages_need_no_mask_where_there_is_no_padding() {
    let reference = Reference::read();
    let lengths: Vec<usize> =
        reference.0["lengths"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as usize).collect();
    let all: Vec<f32> = Vec::try_from(reference.tensor("old_values")).unwrap();
    let rewards: Vec<f32> = Vec::try_from(reference.tensor("rewards")).unwrap();
    assert_eq!(reference.0["truncated"][2], true, "one completion was cut off");
    for case in reference.0["gae"].as_array().unwrap() {
        let (gamma, lambda) = (case["gamma"].as_f64().unwrap(), case["lambda"].as_f64().unwrap());
        let (mut advantages, mut returns, mut start) = (Vec::new(), Vec::new(), 0);
        for (&length, &reward) in lengths.iter().zip(&rewards) {
            let of = gae(reward, &all[start..start + length], gamma, lambda);
            advantages.extend(of.0);
            returns.extend(of.1);
            start += length;
        }
        close(&Tensor::from_slice(&advantages), &tensor(&case["advantages"]), 1e-5, "advantages");
        close(&Tensor::from_slice(&returns), &tensor(&case["returns"]), 1e-5, "returns");
        whiten(&mut advantages.iter_mut().collect::<Vec<_>>());
        close(&Tensor::from_slice(&advantages), &tensor(&case["whitened"]), 1e-5, "whitened");
    }
}
