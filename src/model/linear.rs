//! A linear layer, with a low-rank adapter if its weights contain one.

use tch::{Device, Kind, Tensor};

use super::weights::Weights;
use crate::seeds::{number_of, seed};

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
    /// Separates the layer's dropout masks from those of all other layers. Made of its name.
    stream: u64,
}

/// Scale and dropout that all adapters of a model share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraScale {
    /// `alpha / r`.
    pub scale: f64,
    /// Probability of zeroing an input of `A` in training.
    pub dropout: f64,
}

/// A row of a training batch as dropout sees it.
///
/// The mask of a row in a layer is a function of this and of the layer's name. It does not depend
/// on the batch's other rows or on padding, so that an optimiser step does not depend on how its
/// examples are divided into forward passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutRow {
    /// Seed of the row's masks.
    pub seed: u64,
    /// Number of tokens, which come before the row's padding.
    pub tokens: i64,
}

/// The inputs `[b, t, width]` bool that dropout keeps, each with probability `1 - p`. Keeps none of
/// the padding.
fn kept(rows: &[DropoutRow], stream: u64, [b, t, width]: [i64; 3], p: f64, device: Device) -> Tensor {
    assert_eq!(rows.len() as i64, b, "rows of dropout for a batch of {b}");
    let kept = Tensor::zeros([b, t, width], (Kind::Bool, device));
    for (index, row) in (0..).zip(rows) {
        // libtorch has one generator for each device, and this seeds all of them.
        tch::manual_seed(seed(&[row.seed, stream]) as i64);
        // The draw has the row's own length: what a kernel draws may depend on the whole size.
        let _ = kept.get(index).narrow(0, 0, row.tokens).bernoulli_float_(1.0 - p);
    }
    kept
}

impl Linear {
    /// The layer `name`: `name.weight [out, in]`, `name.bias [out]`, `name.lora_A.weight [r, in]`,
    /// `name.lora_B.weight [out, r]`; all but the first optional.
    pub fn new(weights: &Weights, name: &str, lora: Option<LoraScale>) -> Self {
        let adapter = || {
            let LoraScale { scale, dropout } = lora?;
            let a = weights.find(&format!("{name}.lora_A.weight"))?;
            let b = weights.find(&format!("{name}.lora_B.weight"))?;
            Some(Lora { a, b, scale, dropout, stream: number_of(name) })
        };
        Self {
            weight: weights.get(&format!("{name}.weight")),
            bias: weights.find(&format!("{name}.bias")),
            lora: adapter(),
        }
    }

    /// `x [.., in] -> [.., out]`, at the dtype of `x`. `dropout` enables the adapter's dropout, for
    /// which `x` must be `[b, t, in]` with these `b` rows.
    pub fn forward(&self, x: &Tensor, dropout: Option<&[DropoutRow]>) -> Tensor {
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        let y = x.linear(&self.weight.to_kind(kind), bias.as_ref());
        let Some(Lora { a, b, scale, dropout: p, stream }) = &self.lora else { return y };
        let (x, scale) = match dropout {
            Some(rows) if *p > 0.0 => {
                let (batch, t, width) = x.size3().expect("x: [b, t, in]");
                // `scale` takes the factor 1 / (1 - p) of the inputs that are kept.
                let share = (1.0 - p).max(f64::EPSILON);
                (x * kept(rows, *stream, [batch, t, width], *p, x.device()), scale / share)
            }
            _ => (x.shallow_clone(), *scale),
        };
        y + x.linear(&a.to_kind(kind), None::<Tensor>).linear(&b.to_kind(kind), None::<Tensor>) * scale
    }
}

/// `x / rms(x) * weight` over the last axis (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).
/// Computes in fp32 for every dtype of `x` and returns the dtype `kind`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, kind: Kind) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let inverse = (x.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt();
    (x * inverse * weight.to_kind(Kind::Float)).to_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer that adds `2 * dropout(x)` to nothing.
    fn adapter_alone(width: i64, p: f64) -> Linear {
        let identity = || Tensor::eye(width, (Kind::Float, Device::Cpu));
        let weight = Tensor::zeros([width, width], (Kind::Float, Device::Cpu));
        Linear {
            weight,
            bias: None,
            lora: Some(Lora { a: identity(), b: identity(), scale: 2.0, dropout: p, stream: 1 }),
        }
    }

    #[test]
    fn dropout_zeroes_the_share_p_and_keeps_the_mean() {
        let rows = [DropoutRow { seed: 1, tokens: 300 }, DropoutRow { seed: 2, tokens: 200 }];
        for p in [0.05, 0.3, 1.0] {
            let x = Tensor::ones([2, 300, 100], (Kind::Float, Device::Cpu)) * 3.0;
            let y = adapter_alone(100, p).forward(&x, Some(&rows));
            assert_eq!(y.get(1).narrow(0, 200, 100).abs().max().double_value(&[]), 0.0, "padding is not drawn for");
            let drawn = Tensor::cat(&[y.get(0), y.get(1).narrow(0, 0, 200)], 0);
            let zeros = drawn.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            // Five standard deviations of a share of 50,000 draws.
            let tolerance = 5.0 * (p * (1.0 - p) / 50_000.0).sqrt();
            assert!((zeros - p).abs() <= tolerance, "p = {p}: {zeros} of the inputs are zeroed");
            // An input that is kept becomes 2 * 3 / (1 - p).
            let mean = drawn.mean(Kind::Double).double_value(&[]);
            let expected = if p < 1.0 { 6.0 } else { 0.0 };
            assert!((mean - expected).abs() <= 6.0 * tolerance / (1.0 - p).max(0.1) + 1e-6, "p = {p}: mean {mean}");
        }
    }

    #[test]
    fn masks_differ_by_row_and_by_layer() {
        let rows = [1, 2].map(|seed| DropoutRow { seed, tokens: 40 });
        let masks = |stream| kept(&rows, stream, [2, 40, 50], 0.3, Device::Cpu);
        let (one, other) = (masks(1), masks(2));
        // Two independent masks differ in the share 2 * 0.3 * 0.7 = 0.42 of 2,000 places, with a
        // standard deviation of 0.011.
        for (a, b) in [(one.get(0), one.get(1)), (one.get(0), other.get(0)), (one.get(1), other.get(1))] {
            let share = a.not_equal_tensor(&b).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            assert!((share - 0.42).abs() < 0.06, "{share} of the places differ");
        }
    }
}
