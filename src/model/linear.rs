//! A linear layer, with a low-rank adapter if its weights contain one.

use tch::{Kind, Tensor};

use super::weights::Weights;

/// `y = x W^T + b`, plus `scale * dropout(x) A^T B^T` with an adapter (Hu et al. 2021,
/// arXiv:2106.09685, section 4.1).
///
/// The product runs at the dtype of `x`; weights of another dtype (fp32 masters, adapters) are cast
/// to it.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    lora: Option<Lora>,
}

struct Lora {
    a: Tensor,
    b: Tensor,
    scale: f64,
    dropout: f64,
}

/// Scale and dropout that all adapters of a model share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraScale {
    /// `alpha / r`.
    pub scale: f64,
    /// Probability of zeroing an input of `A` in training.
    pub dropout: f64,
}

impl Linear {
    /// The layer `name`: `name.weight [out, in]`, `name.bias [out]`, `name.lora_A.weight [r, in]`,
    /// `name.lora_B.weight [out, r]`; all but the first optional.
    pub fn new(weights: &Weights, name: &str, lora: Option<LoraScale>) -> Self {
        let adapter = || {
            let LoraScale { scale, dropout } = lora?;
            let a = weights.find(&format!("{name}.lora_A.weight"))?;
            let b = weights.find(&format!("{name}.lora_B.weight"))?;
            Some(Lora { a, b, scale, dropout })
        };
        Self {
            weight: weights.get(&format!("{name}.weight")),
            bias: weights.find(&format!("{name}.bias")),
            lora: adapter(),
        }
    }

    /// `x [.., in] -> [.., out]`, at the dtype of `x`. `train` enables the adapter's dropout.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        let y = x.linear(&self.weight.to_kind(kind), bias.as_ref());
        let Some(Lora { a, b, scale, dropout }) = &self.lora else { return y };
        let x = if train && *dropout > 0.0 { x.dropout(*dropout, true) } else { x.shallow_clone() };
        y + x.linear(&a.to_kind(kind), None::<Tensor>).linear(&b.to_kind(kind), None::<Tensor>) * *scale
    }
}

/// `x / rms(x) * weight` over the last axis (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).
/// Computes in fp32 for every dtype of `x` and returns the dtype `kind`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, kind: Kind) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let inverse = (x.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt();
    (x * inverse * weight.to_kind(Kind::Float)).to_kind(kind)
}
