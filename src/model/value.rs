//! The critic's head.

use tch::{Device, Kind, Tensor};

use super::weights::Weights;

/// Two layers over the decoder's normed last hidden state: `v = w2 tanh(w1 h + b1) + b2`, in fp32.
pub struct ValueHead {
    weights: Weights,
}

impl ValueHead {
    /// A head that returns 0 for every state until it is trained.
    pub fn new(hidden: i64, seed: i64, device: Device) -> Self {
        tch::manual_seed(seed);
        let fp32 = (Kind::Float, Device::Cpu);
        let mut weights = Weights::empty();
        for (name, tensor) in [
            ("value_head.fc1.weight", Tensor::randn([hidden, hidden], fp32) / (hidden as f64).sqrt()),
            ("value_head.fc1.bias", Tensor::zeros([hidden], fp32)),
            ("value_head.fc2.weight", Tensor::zeros([1, hidden], fp32)),
            ("value_head.fc2.bias", Tensor::zeros([1], fp32)),
        ] {
            weights.insert(name.into(), tensor.to_device(device));
        }
        weights.set_trainable(|_| true);
        Self { weights }
    }

    /// Makes an untrained head return `value` for every state. A critic that starts at the mean
    /// return does no harm before it is trained; one that starts above it teaches the policy to
    /// delay the end.
    pub fn start_at(&mut self, value: f64) {
        tch::no_grad(|| {
            let _ = self.weights.get("value_head.fc2.bias").fill_(value);
        });
    }

    /// `hidden [n, hidden] -> values [n] f32`. No gradient reaches `hidden`, so the critic does not
    /// change the policy.
    pub fn forward(&self, hidden: &Tensor) -> Tensor {
        let get = |name: &str| self.weights.get(name);
        let hidden = hidden.detach().to_kind(Kind::Float);
        let inner = hidden.linear(&get("value_head.fc1.weight"), Some(&get("value_head.fc1.bias"))).tanh();
        inner.linear(&get("value_head.fc2.weight"), Some(&get("value_head.fc2.bias"))).squeeze_dim(-1)
    }

    /// The tensors by name.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The tensors by name, to change values in place.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }
}
