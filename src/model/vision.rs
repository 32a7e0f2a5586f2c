//! InternViT, pixel shuffle and the projector into the decoder's embedding space.

use tch::{Kind, Tensor};

use super::config::InternVlConfig;
use super::language::{Seen, attend};
use super::layout::Layout;
use super::linear::{Linear, LoraScale, rms_norm};
use super::weights::Weights;

/// The picture side of the model.
pub struct Vision {
    patch_weight: Tensor,
    patch_bias: Tensor,
    class_embedding: Tensor,
    position_embedding: Tensor,
    blocks: Vec<VisionBlock>,
    projector_norm: Norm,
    projector_in: Linear,
    projector_out: Linear,
    patch_size: i64,
    compute: Kind,
}

impl Vision {
    /// The modules `vision_model` and `mlp1` of a checkpoint.
    pub fn new(weights: &Weights, config: &InternVlConfig, lora: Option<LoraScale>, compute: Kind) -> Self {
        let vision = &config.vision_config;
        let projections = |layer: i64| -> Vec<String> {
            let names: &[&str] = match config.layout {
                Layout::Original => &["qkv"],
                Layout::Hf => &["q_proj", "k_proj", "v_proj"],
            };
            names.iter().map(|name| format!("vision_model.encoder.layers.{layer}.attn.{name}")).collect()
        };
        let block = |layer| VisionBlock {
            norm1: Norm::new(weights, &format!("vision_model.encoder.layers.{layer}.norm1"), vision.layer_norm_eps),
            norm2: Norm::new(weights, &format!("vision_model.encoder.layers.{layer}.norm2"), vision.layer_norm_eps),
            scale1: weights.get(&format!("vision_model.encoder.layers.{layer}.ls1")),
            scale2: weights.get(&format!("vision_model.encoder.layers.{layer}.ls2")),
            qkv: projections(layer).iter().map(|name| Linear::new(weights, name, lora)).collect(),
            q_norm: weights.find(&format!("vision_model.encoder.layers.{layer}.attn.q_norm.weight")),
            k_norm: weights.find(&format!("vision_model.encoder.layers.{layer}.attn.k_norm.weight")),
            proj: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.attn.proj"), lora),
            fc1: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.mlp.fc1"), lora),
            fc2: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.mlp.fc2"), lora),
            heads: vision.num_attention_heads,
        };
        Self {
            patch_weight: weights.get("vision_model.embeddings.patch_embedding.weight"),
            patch_bias: weights.get("vision_model.embeddings.patch_embedding.bias"),
            class_embedding: weights.get("vision_model.embeddings.class_embedding"),
            position_embedding: weights.get("vision_model.embeddings.position_embedding"),
            blocks: (0..vision.num_hidden_layers).map(block).collect(),
            // nn.LayerNorm's default epsilon: the projector does not use the encoder's.
            projector_norm: Norm::new(weights, "mlp1.0", 1e-5),
            projector_in: Linear::new(weights, "mlp1.1", lora),
            projector_out: Linear::new(weights, "mlp1.3", lora),
            patch_size: vision.patch_size,
            compute,
        }
    }

    /// `pixels [tiles, 3, size, size] f32, normalised -> [tiles, tokens, hidden] f32` in the
    /// decoder's space. There is no dropout: training changes no adapter of this side.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        let (weight, bias) = (self.patch_weight.to_kind(self.compute), self.patch_bias.to_kind(self.compute));
        let stride = [self.patch_size; 2];
        let patches = pixels.to_kind(self.compute).conv2d(&weight, Some(&bias), stride, [0, 0], [1, 1], 1);
        let (tiles, width, rows, columns) = patches.size4().expect("patches: [tiles, width, rows, columns]");
        let patches = patches.flatten(2, 3).transpose(1, 2).to_kind(Kind::Float);
        let class = self.class_embedding.to_kind(Kind::Float).expand([tiles, 1, width], false);
        let mut x = Tensor::cat(&[class, patches], 1) + self.position_embedding.to_kind(Kind::Float);
        for block in &self.blocks {
            x = block.forward(&x, self.compute);
        }
        // Drops the class token. 2 x 2 neighbours become the channels of one token, columns before
        // rows.
        let x = x.narrow(1, 1, rows * columns).view([tiles, rows, columns / 2, 2 * width]);
        let x = x.permute([0, 2, 1, 3]).reshape([tiles, columns / 2, rows / 2, 4 * width]);
        let x = x.permute([0, 2, 1, 3]).reshape([tiles, rows * columns / 4, 4 * width]);
        let x = self.projector_norm.forward(&x, self.compute);
        let x = self.projector_in.forward(&x, None).gelu("none");
        self.projector_out.forward(&x, None).to_kind(Kind::Float)
    }
}

struct VisionBlock {
    norm1: Norm,
    norm2: Norm,
    scale1: Tensor,
    scale2: Tensor,
    /// One fused projection to queries, keys and values, or three projections.
    qkv: Vec<Linear>,
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
}

impl VisionBlock {
    fn forward(&self, x: &Tensor, compute: Kind) -> Tensor {
        let (b, t, width) = x.size3().expect("x: [tiles, tokens, width]");
        let normed = self.norm1.forward(x, compute);
        let projected: Vec<Tensor> = self.qkv.iter().map(|linear| linear.forward(&normed, None)).collect();
        let mut parts = Tensor::cat(&projected, -1).chunk(3, -1);
        for (part, norm) in parts.iter_mut().zip([&self.q_norm, &self.k_norm]) {
            if let Some(weight) = norm {
                *part = rms_norm(part, weight, QK_NORM_EPS, compute);
            }
        }
        let heads = |x: &Tensor| x.view([b, t, self.heads, -1]).transpose(1, 2);
        let (q, k, v) = (heads(&parts[0]), heads(&parts[1]), heads(&parts[2]));
        let mixed = attend(&q, &k, &v, &Seen::All, self.heads).transpose(1, 2).reshape([b, t, width]);
        let x = x + self.proj.forward(&mixed, None) * self.scale1.to_kind(Kind::Float);
        let normed = self.norm2.forward(&x, compute);
        let inner = self.fc1.forward(&normed, None).gelu("none");
        &x + self.fc2.forward(&inner, None) * self.scale2.to_kind(Kind::Float)
    }
}

/// Epsilon of the norms on queries and keys, in both published implementations.
const QK_NORM_EPS: f64 = 1e-6;

/// LayerNorm, or, if there is no bias, RMSNorm; computed in fp32.
struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    fn new(weights: &Weights, name: &str, eps: f64) -> Self {
        Self { weight: weights.get(&format!("{name}.weight")), bias: weights.find(&format!("{name}.bias")), eps }
    }

    /// Returns the dtype `kind`.
    fn forward(&self, x: &Tensor, kind: Kind) -> Tensor {
        let Some(bias) = &self.bias else { return rms_norm(x, &self.weight, self.eps, kind) };
        let (weight, bias) = (self.weight.to_kind(Kind::Float), bias.to_kind(Kind::Float));
        x.to_kind(Kind::Float).layer_norm(weight.size(), Some(&weight), Some(&bias), self.eps, false).to_kind(kind)
    }
}
