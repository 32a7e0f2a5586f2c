//! AdamW and Muon over named tensors, with a state that can be saved and restored.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::shards::{Rounds, Shard, flat, unflat};
use crate::config::{Dtype, OptimizerKind};
use crate::distributed::World;
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

    /// Counts an update by the norm of its gradient (NaN if its numbers were absurd) and returns
    /// whether it was applied. `key` is
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
            "the gradient or another number was not finite in {} updates in a row, which were skipped; start again in another run.output_dir with a lower {key} = {learning_rate} or with model.dtype = \"f32\"",
            self.in_a_row
        );
        Ok(false)
    }
}

/// Updates the trainable tensors of a model in place, on every rank alike.
///
/// AdamW: Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2. Muon: Jordan et al. 2024, with
/// the update scaled to the size of AdamW's as in Liu et al. 2025 (arXiv:2502.16982, eq. 4), so
/// that both share one learning rate.
///
/// The moments may be divided among the ranks (ZeRO, stage 1; Rajbhandari et al. 2020,
/// arXiv:1910.02054): then each rank has those of some tensors, sums only their gradients, updates
/// them, and sends them to the others.
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
    step: i64,
    /// How the tensors are divided among the ranks, if they are.
    rounds: Option<Rounds>,
}

struct Slot {
    name: String,
    tensor: Tensor,
    is_muon: bool,
    /// The rank that has the moments; `None` if every rank has them.
    owner: Option<usize>,
    /// First moment; Muon's momentum. Empty if another rank has it.
    first: Tensor,
    /// Second moment; empty for Muon.
    second: Tensor,
    /// The sum of the ranks' gradients, from its reduction to the end of the step.
    gradient: Option<Tensor>,
}

const EPSILON: f64 = 1e-8;
const MUON_MOMENTUM: f64 = 0.95;

impl Optimizer {
    /// An optimiser of the tensors of `weights` that are trainable now. Every rank has all moments.
    pub fn new(weights: &Weights, config: OptimizerConfig) -> Self {
        Self::sharded(weights, config, Shard::WHOLE)
    }

    /// As [`Self::new`], but this rank has the moments of its shard only.
    pub fn sharded(weights: &Weights, config: OptimizerConfig, shard: Shard) -> Self {
        let sizes: Vec<usize> = weights.trainable().map(|(_, tensor)| tensor.numel()).collect();
        let rounds = (shard.size > 1).then(|| Rounds::new(&sizes, shard));
        let slot = |(i, (name, tensor)): (usize, (&str, &Tensor))| {
            // The rows of embeddings are independent: an orthogonal update would move them all
            // alike.
            let is_muon = config.kind == OptimizerKind::Muon && tensor.dim() == 2 && !is_table(name);
            let owner = rounds.as_ref().map(|rounds| rounds.owner(i));
            let is_here = owner.is_none_or(|owner| owner == shard.rank);
            let zeros = |is_here: bool| match is_here {
                true => tensor.detach().zeros_like(),
                false => Tensor::zeros([0], (Kind::Float, tensor.device())),
            };
            let (first, second) = (zeros(is_here), zeros(is_here && !is_muon));
            Slot { name: name.into(), tensor: tensor.shallow_clone(), is_muon, owner, first, second, gradient: None }
        };
        Self { config, slots: weights.trainable().enumerate().map(slot).collect(), step: 0, rounds }
    }

    /// Sums the gradients over the ranks, applies and clears them, and returns the sum's norm
    /// before clipping. Tensors without a gradient on any rank do not change. If the norm is not
    /// finite, neither tensors nor moments nor the number of steps change.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn step(&mut self, world: &World, learning_rate: f64) -> Result<f64> {
        let norm = tch::no_grad(|| {
            self.reduce(world)?;
            let norm = self.grad_norm(world)?;
            if norm.is_finite() {
                self.step += 1;
                let scale = (self.config.max_grad_norm / (norm + 1e-6)).min(1.0);
                self.update(scale, learning_rate);
                self.send_updated(world)?;
            }
            anyhow::Ok(norm)
        })?;
        self.discard();
        Ok(norm)
    }

    /// Clears the gradients, so that they are not applied.
    pub fn discard(&mut self) {
        for slot in &mut self.slots {
            slot.gradient = None;
            slot.tensor.zero_grad();
        }
    }

    /// Sets the slots' gradients to the sums over the ranks.
    fn reduce(&mut self, world: &World) -> Result<()> {
        let mut gradients: Vec<Tensor> = self.slots.iter().map(|slot| slot.tensor.grad()).collect();
        let mut is_defined: Vec<bool> = gradients.iter().map(Tensor::defined).collect();
        if world.size() > 1 {
            // A rank whose share of the examples is empty has no gradients, but there is a sum.
            let counts: Vec<f32> = is_defined.iter().map(|&is_defined| f32::from(u8::from(is_defined))).collect();
            let counts = Tensor::from_slice(&counts);
            world.all_reduce("which gradients there are", &counts)?;
            is_defined = Vec::<f32>::try_from(&counts)?.into_iter().map(|count| count > 0.0).collect();
            for (gradient, slot) in gradients.iter_mut().zip(&self.slots) {
                if !gradient.defined() {
                    *gradient = slot.tensor.detach().zeros_like();
                }
            }
            match &self.rounds {
                None => sum_whole(world, &gradients)?,
                Some(rounds) => sum_shares(world, rounds, &gradients)?,
            }
        }
        for ((slot, gradient), is_defined) in self.slots.iter_mut().zip(gradients).zip(is_defined) {
            let is_here = slot.owner.is_none_or(|owner| owner == world.rank());
            slot.gradient = (is_defined && is_here).then_some(gradient);
        }
        Ok(())
    }

    /// Sends the tensors that this rank has updated to the others.
    fn send_updated(&mut self, world: &World) -> Result<()> {
        let Some(rounds) = &self.rounds else { return Ok(()) };
        for &i in rounds.alone() {
            for part in parts(&self.slots[i].tensor.detach()) {
                world.broadcast("an updated weight", &part, rounds.owner(i))?;
            }
        }
        for round in rounds.iter() {
            let tensors = |members: &Vec<usize>| -> Vec<Tensor> {
                members.iter().map(|&i| self.slots[i].tensor.detach()).collect()
            };
            let device = self.slots[0].tensor.device();
            let own = flat(&tensors(&round.members[world.rank()]), round.width, device);
            let all = world.all_gather("the updated weights", &own)?;
            for (rank, members) in round.members.iter().enumerate().filter(|(rank, _)| *rank != world.rank()) {
                copy_out(&round.segment(&all, rank), &tensors(members));
            }
        }
        Ok(())
    }

    fn update(&mut self, gradient_scale: f64, learning_rate: f64) {
        let Self { config, slots, step, .. } = self;
        // Orthogonalise matrices of one shape together: a nano model has forty small ones.
        let mut by_shape: BTreeMap<Vec<i64>, (Vec<usize>, Vec<Tensor>)> = BTreeMap::new();
        for (i, slot) in slots.iter_mut().enumerate() {
            let Some(gradient) = slot.gradient.take() else { continue };
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

    /// Norm of the summed gradients of all tensors.
    fn grad_norm(&self, world: &World) -> Result<f64> {
        let gradients = self.slots.iter().filter_map(|slot| slot.gradient.as_ref());
        let squares: Vec<Tensor> = gradients.map(|gradient| gradient.square().sum(Kind::Float)).collect();
        let square =
            if squares.is_empty() { 0.0 } else { Tensor::stack(&squares, 0).sum(Kind::Double).double_value(&[]) };
        let [square] = if self.rounds.is_some() { world.sum("the gradient's norm", [square])? } else { [square] };
        Ok(square.sqrt())
    }

    /// Moments by name (`<tensor>.first`, `<tensor>.second`) and the number of applied steps
    /// (`step`). If the ranks have different ones, only rank 0 gets them, on the CPU, and the
    /// others get nothing.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn state(&self, world: &World) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for slot in &self.slots {
            for (name, moment, size) in [
                (format!("{}.first", slot.name), &slot.first, slot.tensor.size()),
                (format!("{}.second", slot.name), &slot.second, slot.second_size()),
            ] {
                let Some(owner) = slot.owner.filter(|_| size.iter().all(|side| *side > 0)) else {
                    state.push((name, moment.shallow_clone()));
                    continue;
                };
                let sent = match owner == world.rank() {
                    true => moment.contiguous(),
                    false => Tensor::zeros(&size, (Kind::Float, slot.tensor.device())),
                };
                world.broadcast("the optimiser's state", &sent, owner)?;
                if world.is_main() {
                    state.push((name, sent.to_device(tch::Device::Cpu)));
                }
            }
        }
        state.push(("step".to_owned(), Tensor::from_slice(&[self.step])));
        Ok(state)
    }

    /// Restores a state that [`Self::state`] returned, of this or another number of ranks.
    ///
    /// # Errors
    /// The names of moments that are missing, unexpected or of another shape, one line each.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), Vec<String>> {
        let moments = self.slots.iter().flat_map(|slot| {
            [
                (format!("{}.first", slot.name), slot.tensor.size()),
                (format!("{}.second", slot.name), slot.second_size()),
            ]
        });
        let expected: Vec<(String, Vec<i64>)> = moments.chain([("step".to_owned(), vec![1])]).collect();
        let found = state.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let problems = crate::model::weights::mismatches(
            &found,
            expected.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())),
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        tch::no_grad(|| {
            for slot in &mut self.slots {
                for (moment, part) in [(&mut slot.first, "first"), (&mut slot.second, "second")] {
                    if moment.numel() > 0 {
                        moment.copy_(&state[&format!("{}.{part}", slot.name)]);
                    }
                }
            }
        });
        self.step = state["step"].int64_value(&[0]);
        Ok(())
    }
}

/// Replaces every gradient by its sum over the ranks.
fn sum_whole(world: &World, gradients: &[Tensor]) -> Result<()> {
    let sizes: Vec<usize> = gradients.iter().map(Tensor::numel).collect();
    for bucket in buckets(&sizes) {
        let members = &gradients[bucket];
        match members {
            // It may be larger than a bucket.
            [alone] if alone.is_contiguous() => {
                for part in parts(alone) {
                    world.all_reduce("the gradients", &part)?;
                }
            }
            _ => {
                let sum = flat(members, 0, members[0].device());
                world.all_reduce("the gradients", &sum)?;
                copy_out(&sum, members);
            }
        }
    }
    Ok(())
}

/// Replaces the gradients that this rank has the moments of by their sums over the ranks. What the
/// others become is not defined.
fn sum_shares(world: &World, rounds: &Rounds, gradients: &[Tensor]) -> Result<()> {
    for &i in rounds.alone() {
        let whole = gradients[i].contiguous();
        for part in parts(&whole) {
            world.all_reduce("a gradient", &part)?;
        }
        copy_out(&whole, std::slice::from_ref(&gradients[i]));
    }
    for round in rounds.iter() {
        let all = Tensor::zeros([(round.width * world.size()) as i64], (Kind::Float, gradients[0].device()));
        let of =
            |members: &Vec<usize>| -> Vec<Tensor> { members.iter().map(|&i| gradients[i].shallow_clone()).collect() };
        for (rank, members) in round.members.iter().enumerate() {
            let members = of(members);
            for (mut part, gradient) in unflat(&round.segment(&all, rank), &members).into_iter().zip(&members) {
                part.copy_(gradient);
            }
        }
        let sum = world.reduce_scatter("the gradients", &all)?;
        copy_out(&sum, &of(&round.members[world.rank()]));
    }
    Ok(())
}

/// Copies the elements of `flat`, in order, into `tensors`.
fn copy_out(flat: &Tensor, tensors: &[Tensor]) {
    for (part, tensor) in unflat(flat, tensors).into_iter().zip(tensors) {
        tensor.shallow_clone().copy_(&part);
    }
}

/// Views of a contiguous tensor's elements, each of at most [`BUCKET`].
fn parts(tensor: &Tensor) -> Vec<Tensor> {
    let elements = tensor.view(-1);
    let starts = (0..tensor.numel()).step_by(BUCKET);
    starts.map(|start| elements.narrow(0, start as i64, BUCKET.min(tensor.numel() - start) as i64)).collect()
}

/// Elements of a bucket of gradients, which are summed over the ranks in one operation: 256 MiB.
const BUCKET: usize = 64 << 20;

/// Divides tensors of these sizes, in order, into buckets of at most [`BUCKET`] elements, or one
/// tensor.
fn buckets(sizes: &[usize]) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut start, mut elements) = (Vec::new(), 0, 0);
    for (i, size) in sizes.iter().enumerate() {
        if i > start && elements + size > BUCKET {
            found.push(start..i);
            (start, elements) = (i, 0);
        }
        elements += size;
    }
    if start < sizes.len() {
        found.push(start..sizes.len());
    }
    found
}

/// Whether a matrix is a table of vectors and not a linear map.
fn is_table(name: &str) -> bool {
    name.contains("embed") || name.contains("lm_head") || name.starts_with("value_head.fc2")
}

impl Slot {
    /// Shape of the second moment, wherever it is.
    fn second_size(&self) -> Vec<i64> {
        if self.is_muon { vec![0] } else { self.tensor.size() }
    }

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
        optimizer.step(&World::single(), 0.01).unwrap();
        // First step: m/(1-b1) = g and sqrt(v/(1-b2)) = |g|, so w <- w (1 - 0.01 * 0.1) - 0.01
        // sign(g).
        for (index, expected) in [(0, 0.999 - 0.01), (1, -1.998 + 0.01)] {
            assert!((w.double_value(&[0, index]) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn buckets_hold_every_tensor_once() {
        assert!(buckets(&[]).is_empty());
        assert_eq!(buckets(&[1, 2, BUCKET, 3, BUCKET - 3, 1]), [0..2, 2..3, 3..5, 5..6]);
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
            optimizer.step(&World::single(), 0.05).unwrap();
            Vec::<f32>::try_from(weights.get("w").detach().view([4])).unwrap()
        };
        step(&weights, &mut optimizer);
        let state: BTreeMap<_, _> =
            optimizer.state(&World::single()).unwrap().into_iter().map(|(name, t)| (name, t.copy())).collect();
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
                    norms.push(optimizer.step(&World::single(), 0.05).unwrap());
                }
                let state = optimizer
                    .state(&World::single())
                    .unwrap()
                    .into_iter()
                    .map(|(_, tensor)| tensor)
                    .chain([w.detach()]);
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
