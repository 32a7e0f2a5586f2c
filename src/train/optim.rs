//! AdamW and Muon over named tensors, with a state that can be saved and restored.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::config::{Dtype, OptimizerKind};
use crate::model::Weights;

/// Settings of an optimiser besides the learning rate.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerConfig {
    /// Optimiser of matrices; everything else uses AdamW.
    pub kind: OptimizerKind,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Decay rates of AdamW's moments.
    pub betas: [f64; 2],
    /// Gradients of a greater total norm are scaled down to it.
    pub max_grad_norm: f64,
}

/// Counts the updates that an optimiser skipped because their gradient was not finite. SFT and PPO
/// have the same rule: such an update changes nothing and is counted, and several in a row end the
/// stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedUpdates {
    /// Updates skipped since the stage began.
    pub total: usize,
    in_a_row: usize,
}

impl SkippedUpdates {
    /// A stage ends after this many skipped updates in a row. One unusual minibatch overflows once
    /// or twice; if this many different ones overflow, the weights are at fault, and since no
    /// update changes them, further ones are in vain.
    pub const LIMIT_IN_A_ROW: usize = 8;

    /// Counts an update by the norm of its gradient and returns whether it was applied. `key` is
    /// the configuration key of its learning rate, and `learning_rate` the key's value.
    ///
    /// # Errors
    /// [`Self::LIMIT_IN_A_ROW`] updates in a row were skipped.
    pub fn count(&mut self, grad_norm: f64, key: &str, learning_rate: f64) -> Result<bool> {
        if grad_norm.is_finite() {
            self.in_a_row = 0;
            return Ok(true);
        }
        self.total += 1;
        self.in_a_row += 1;
        ensure!(
            self.in_a_row < Self::LIMIT_IN_A_ROW,
            "the gradient was not finite in {} updates in a row, which were skipped; start again in another run.output_dir with a lower {key} = {learning_rate} or with model.dtype = \"f32\"",
            self.in_a_row
        );
        Ok(false)
    }
}

/// Updates the trainable tensors of a model in place.
///
/// AdamW: Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2. Muon: Jordan et al. 2024, with
/// the update scaled to the size of AdamW's as in Liu et al. 2025 (arXiv:2502.16982, eq. 4), so
/// that both share one learning rate.
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
    step: i64,
}

struct Slot {
    name: String,
    tensor: Tensor,
    is_muon: bool,
    /// First moment; Muon's momentum.
    first: Tensor,
    /// Second moment; empty for Muon.
    second: Tensor,
}

const EPSILON: f64 = 1e-8;
const MUON_MOMENTUM: f64 = 0.95;

impl Optimizer {
    /// An optimiser of the tensors of `weights` that are trainable now.
    pub fn new(weights: &Weights, config: OptimizerConfig) -> Self {
        let slot = |(name, tensor): (&str, &Tensor)| {
            // The rows of embeddings are independent: an orthogonal update would move them all
            // alike.
            let is_muon = config.kind == OptimizerKind::Muon && tensor.dim() == 2 && !is_table(name);
            let zeros = || tensor.detach().zeros_like();
            let second = if is_muon { Tensor::zeros([0], (Kind::Float, tensor.device())) } else { zeros() };
            Slot { name: name.into(), tensor: tensor.shallow_clone(), is_muon, first: zeros(), second }
        };
        Self { config, slots: weights.trainable().map(slot).collect(), step: 0 }
    }

    /// Applies the gradients, clears them and returns their total norm before clipping. Tensors
    /// without a gradient do not change. If the norm is not finite, neither tensors nor moments nor
    /// the number of steps change.
    pub fn step(&mut self, learning_rate: f64) -> f64 {
        let norm = self.grad_norm();
        tch::no_grad(|| {
            if norm.is_finite() {
                self.step += 1;
                let scale = (self.config.max_grad_norm / (norm + 1e-6)).min(1.0);
                self.update(scale, learning_rate);
            }
            for slot in &mut self.slots {
                slot.tensor.zero_grad();
            }
        });
        norm
    }

    fn update(&mut self, gradient_scale: f64, learning_rate: f64) {
        let Self { config, slots, step } = self;
        // Orthogonalise matrices of one shape together: a nano model has forty small ones.
        let mut by_shape: BTreeMap<Vec<i64>, (Vec<usize>, Vec<Tensor>)> = BTreeMap::new();
        for (i, slot) in slots.iter_mut().enumerate() {
            let gradient = slot.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let gradient = gradient * gradient_scale;
            if slot.is_muon {
                let (members, momenta) = by_shape.entry(slot.tensor.size()).or_default();
                members.push(i);
                momenta.push(slot.nesterov(&gradient));
            } else {
                let direction = slot.adamw(&gradient, *step, config.betas);
                slot.apply(&direction, learning_rate, config.weight_decay);
            }
        }
        for (shape, (members, momenta)) in by_shape {
            let size = 0.2 * (shape[0].max(shape[1]) as f64).sqrt();
            let directions = orthogonalised(&Tensor::stack(&momenta, 0)) * size;
            for (i, direction) in members.into_iter().zip(directions.unbind(0)) {
                slots[i].apply(&direction, learning_rate, config.weight_decay);
            }
        }
    }

    fn grad_norm(&self) -> f64 {
        tch::no_grad(|| {
            let gradients = self.slots.iter().map(|slot| slot.tensor.grad()).filter(Tensor::defined);
            let squares: Vec<Tensor> = gradients.map(|gradient| gradient.square().sum(Kind::Float)).collect();
            if squares.is_empty() { 0.0 } else { Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[]) }
        })
    }

    /// Moments by name (`<tensor>.first`, `<tensor>.second`) and the number of applied steps
    /// (`step`).
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let moments = self.slots.iter().flat_map(|slot| {
            [
                (format!("{}.first", slot.name), slot.first.shallow_clone()),
                (format!("{}.second", slot.name), slot.second.shallow_clone()),
            ]
        });
        moments.chain([("step".to_owned(), Tensor::from_slice(&[self.step]))]).collect()
    }

    /// Restores a state that [`Self::state`] returned.
    ///
    /// # Errors
    /// The names of moments that are missing, unexpected or of another shape, one line each.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Vec<String>> {
        let expected = self.state();
        let shapes: Vec<_> = expected.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let found = state.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let problems = crate::model::weights::mismatches(
            &found,
            shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())),
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        tch::no_grad(|| {
            for slot in &mut self.slots {
                slot.first.copy_(&state[&format!("{}.first", slot.name)]);
                slot.second.copy_(&state[&format!("{}.second", slot.name)]);
            }
        });
        self.step = state["step"].int64_value(&[0]);
        Ok(())
    }
}

/// Whether a matrix is a table of vectors and not a linear map.
fn is_table(name: &str) -> bool {
    name.contains("embed") || name.contains("lm_head") || name.starts_with("value_head.fc2")
}

impl Slot {
    fn apply(&mut self, direction: &Tensor, learning_rate: f64, weight_decay: f64) {
        if weight_decay > 0.0 && self.tensor.dim() >= 2 {
            let _ = self.tensor.g_mul_scalar_(1.0 - learning_rate * weight_decay);
        }
        let _ = self.tensor.g_sub_(&(direction * learning_rate));
    }

    fn adamw(&mut self, gradient: &Tensor, step: i64, [beta1, beta2]: [f64; 2]) -> Tensor {
        let _ = self.first.g_mul_scalar_(beta1).g_add_(&(gradient * (1.0 - beta1)));
        let _ = self.second.g_mul_scalar_(beta2).g_add_(&(gradient.square() * (1.0 - beta2)));
        let (bias1, bias2) = (1.0 - beta1.powi(step as i32), 1.0 - beta2.powi(step as i32));
        (&self.first / bias1) / ((&self.second / bias2).sqrt() + EPSILON)
    }

    fn nesterov(&mut self, gradient: &Tensor) -> Tensor {
        let _ = self.first.g_mul_scalar_(MUON_MOMENTUM).g_add_(&(gradient * (1.0 - MUON_MOMENTUM)));
        gradient * (1.0 - MUON_MOMENTUM) + &self.first * MUON_MOMENTUM
    }
}

/// For each matrix of `[n, rows, columns]`, the nearest one with singular values of about 1, by
/// five steps of the quintic Newton-Schulz iteration. Only the direction counts, so bf16 is enough
/// if the hardware multiplies it.
fn orthogonalised(matrices: &Tensor) -> Tensor {
    let (_, rows, columns) = matrices.size3().expect("matrices: [n, rows, columns]");
    let is_tall = rows > columns;
    let x = if is_tall { matrices.transpose(1, 2) } else { matrices.shallow_clone() };
    let norm = x.square().sum_dim_intlist([1i64, 2].as_slice(), true, Kind::Float).sqrt();
    let mut x = (&x / (norm + 1e-7)).to_kind(Dtype::Auto.kind_on(matrices.device()));
    for _ in 0..5 {
        let gram = x.matmul(&x.transpose(1, 2));
        let polynomial = &gram * -4.775 + gram.matmul(&gram) * 2.0315;
        x = &x * 3.4445 + polynomial.matmul(&x);
    }
    let x = x.to_kind(Kind::Float);
    if is_tall { x.transpose(1, 2) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(value: &[f32], shape: &[i64], kind: OptimizerKind) -> (Weights, Optimizer) {
        let mut weights = Weights::empty();
        weights.insert("w".into(), Tensor::from_slice(value).view(shape));
        weights.set_trainable(|_| true);
        let config = OptimizerConfig { kind, weight_decay: 0.1, betas: [0.9, 0.999], max_grad_norm: 1e9 };
        let optimizer = Optimizer::new(&weights, config);
        (weights, optimizer)
    }

    #[test]
    fn adamw_takes_the_step_worked_out_by_hand() {
        let (weights, mut optimizer) = single(&[1.0, -2.0], &[1, 2], OptimizerKind::Adamw);
        let w = weights.get("w");
        (&w * Tensor::from_slice(&[3.0f32, -0.5])).sum(Kind::Float).backward();
        optimizer.step(0.01);
        // First step: m/(1-b1) = g and sqrt(v/(1-b2)) = |g|, so w <- w (1 - 0.01 * 0.1) - 0.01
        // sign(g).
        for (index, expected) in [(0, 0.999 - 0.01), (1, -1.998 + 0.01)] {
            assert!((w.double_value(&[0, index]) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn muon_gives_every_direction_the_same_size() {
        let matrices = Tensor::from_slice(&[3.0f32, 0.0, 0.0, 0.1, 1.0, 2.0, 3.0, 5.0]).view([2, 2, 2]);
        let (_, singular, _) = orthogonalised(&matrices).svd(true, true);
        // The iteration brings singular values of this spread to about 0.7 to 1.2.
        assert!(singular.min().double_value(&[]) > 0.5 && singular.max().double_value(&[]) < 1.4, "{singular}");
    }

    #[test]
    fn a_restored_optimizer_takes_the_same_next_step() {
        let (weights, mut optimizer) = single(&[1.0, -2.0, 0.5, 0.25], &[2, 2], OptimizerKind::Adamw);
        let step = |weights: &Weights, optimizer: &mut Optimizer| {
            weights.get("w").square().sum(Kind::Float).backward();
            optimizer.step(0.05);
            Vec::<f32>::try_from(weights.get("w").detach().view([4])).unwrap()
        };
        step(&weights, &mut optimizer);
        let state: BTreeMap<_, _> = optimizer.state().into_iter().map(|(name, t)| (name, t.copy())).collect();
        let value: Vec<f32> = Vec::try_from(weights.get("w").detach().view([4])).unwrap();
        let expected = step(&weights, &mut optimizer);
        let (other, mut restored) = single(&value, &[2, 2], OptimizerKind::Adamw);
        restored.restore(&state).unwrap();
        assert_eq!(step(&other, &mut restored), expected);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
            let run = |bad: &[f32]| {
                let (weights, mut optimizer) = single(&[1.0, -2.0, 0.5, 0.25], &[2, 2], kind);
                let w = weights.get("w");
                let mut norms = Vec::new();
                for factor in [&[1.0][..], bad, &[2.0, 3.0]].concat() {
                    (w.square() * f64::from(factor)).sum(Kind::Float).backward();
                    norms.push(optimizer.step(0.05));
                }
                let state = optimizer.state().into_iter().map(|(_, tensor)| tensor).chain([w.detach()]);
                let bytes: Vec<Vec<f64>> =
                    state.map(|tensor| tensor.flatten(0, -1).to_kind(Kind::Double).try_into().unwrap()).collect();
                (bytes, norms.iter().filter(|norm| !norm.is_finite()).count())
            };
            let (expected, _) = run(&[]);
            let (found, skipped) = run(&[f32::NAN, f32::INFINITY]);
            assert_eq!(skipped, 2);
            assert_eq!(found, expected, "{kind:?}");
        }
    }

    #[test]
    fn skipped_updates_are_counted_and_many_in_a_row_are_an_error() {
        let mut skipped = SkippedUpdates::default();
        let count = |skipped: &mut SkippedUpdates, norm| skipped.count(norm, "sft.learning_rate", 1e30);
        for _ in 0..SkippedUpdates::LIMIT_IN_A_ROW - 1 {
            assert!(!count(&mut skipped, f64::NAN).unwrap());
        }
        assert!(count(&mut skipped, 1.0).unwrap());
        for _ in 0..SkippedUpdates::LIMIT_IN_A_ROW - 1 {
            assert!(!count(&mut skipped, f64::INFINITY).unwrap());
        }
        assert_eq!(skipped.total, 2 * (SkippedUpdates::LIMIT_IN_A_ROW - 1));
        let message = count(&mut skipped, f64::NAN).unwrap_err().to_string();
        assert!(message.contains("8 updates in a row") && message.contains("sft.learning_rate"), "{message}");
    }
}
