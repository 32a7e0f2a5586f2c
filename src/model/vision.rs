//! InternViT, pixel shuffle and the projector into the decoder's embedding space.

use tch::{Kind, Tensor};

use super::config::InternVlConfig;
use super::language::{Seen, attend};
use super::linear::{Linear, LoraScale};
use super::weights::Weights;

/// The picture side of the model.
pub struct Vision {
    patch_weight: Tensor,
    patch_bias: Tensor,
    class_embedding: Tensor,
    position_embedding: Tensor,
    blocks: Vec<VisionBlock>,
    projector_norm: (Tensor, Tensor),
    projector_in: Linear,
    projector_out: Linear,
    patch_size: i64,
    compute: Kind,
}

impl Vision {
    /// The modules `vision_model` and `mlp1` of a checkpoint.
    pub fn new(weights: &Weights, config: &InternVlConfig, lora: Option<LoraScale>, compute: Kind) -> Self {
        let vision = &config.vision_config;
        let block = |layer| VisionBlock {
            norm1: norm(weights, &format!("vision_model.encoder.layers.{layer}.norm1")),
            norm2: norm(weights, &format!("vision_model.encoder.layers.{layer}.norm2")),
            scale1: weights.get(&format!("vision_model.encoder.layers.{layer}.ls1")),
            scale2: weights.get(&format!("vision_model.encoder.layers.{layer}.ls2")),
            qkv: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.attn.qkv"), lora),
            proj: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.attn.proj"), lora),
            fc1: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.mlp.fc1"), lora),
            fc2: Linear::new(weights, &format!("vision_model.encoder.layers.{layer}.mlp.fc2"), lora),
            heads: vision.num_attention_heads,
            eps: vision.layer_norm_eps,
        };
        Self {
            patch_weight: weights.get("vision_model.embeddings.patch_embedding.weight"),
            patch_bias: weights.get("vision_model.embeddings.patch_embedding.bias"),
            class_embedding: weights.get("vision_model.embeddings.class_embedding"),
            position_embedding: weights.get("vision_model.embeddings.position_embedding"),
            blocks: (0..vision.num_hidden_layers).map(block).collect(),
            projector_norm: norm(weights, "mlp1.0"),
            projector_in: Linear::new(weights, "mlp1.1", lora),
            projector_out: Linear::new(weights, "mlp1.3", lora),
            patch_size: vision.patch_size,
            compute,
        }
    }

    /// `pixels [tiles, 3, size, size] f32, normalised -> [tiles, tokens, hidden] f32` in the decoder's space.
    pub fn forward(&self, pixels: &Tensor, train: bool) -> Tensor {
        let (weight, bias) = (self.patch_weight.to_kind(self.compute), self.patch_bias.to_kind(self.compute));
        let stride = [self.patch_size; 2];
        let patches = pixels.to_kind(self.compute).conv2d(&weight, Some(&bias), stride, [0, 0], [1, 1], 1);
        let (tiles, width, rows, columns) = patches.size4().expect("patches: [tiles, width, rows, columns]");
        let patches = patches.flatten(2, 3).transpose(1, 2).to_kind(Kind::Float);
        let class = self.class_embedding.to_kind(Kind::Float).expand([tiles, 1, width], false);
        let mut x = Tensor::cat(&[class, patches], 1) + self.position_embedding.to_kind(Kind::Float);
        for block in &self.blocks {
            x = block.forward(&x, self.compute, train);
        }
        // The class token goes; 2 x 2 neighbours become the channels of one token, columns before rows.
        let x = x.narrow(1, 1, rows * columns).view([tiles, rows, columns / 2, 2 * width]);
        let x = x.permute([0, 2, 1, 3]).reshape([tiles, columns / 2, rows / 2, 4 * width]);
        let x = x.permute([0, 2, 1, 3]).reshape([tiles, rows * columns / 4, 4 * width]);
        // nn.LayerNorm's default epsilon: the projector does not follow the encoder's.
        let x = layer_norm(&x, &self.projector_norm, 1e-5, self.compute);
        let x = self.projector_in.forward(&x, train).gelu("none");
        self.projector_out.forward(&x, train).to_kind(Kind::Float)
    }
}

struct VisionBlock {
    norm1: (Tensor, Tensor),
    norm2: (Tensor, Tensor),
    scale1: Tensor,
    scale2: Tensor,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    eps: f64,
}

impl VisionBlock {
    fn forward(&self, x: &Tensor, compute: Kind, train: bool) -> Tensor {
        let (b, t, width) = x.size3().expect("x: [tiles, tokens, width]");
        let normed = layer_norm(x, &self.norm1, self.eps, compute);
        let qkv = self.qkv.forward(&normed, train).view([b, t, 3, self.heads, -1]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let mixed = attend(&q, &k, &v, &Seen::All, self.heads).transpose(1, 2).reshape([b, t, width]);
        let x = x + self.proj.forward(&mixed, train) * self.scale1.to_kind(Kind::Float);
        let normed = layer_norm(&x, &self.norm2, self.eps, compute);
        let inner = self.fc1.forward(&normed, train).gelu("none");
        &x + self.fc2.forward(&inner, train) * self.scale2.to_kind(Kind::Float)
    }
}

fn norm(weights: &Weights, name: &str) -> (Tensor, Tensor) {
    (weights.get(&format!("{name}.weight")), weights.get(&format!("{name}.bias")))
}

fn layer_norm(x: &Tensor, (weight, bias): &(Tensor, Tensor), eps: f64, kind: Kind) -> Tensor {
    let (weight, bias) = (weight.to_kind(Kind::Float), bias.to_kind(Kind::Float));
    let width = weight.size();
    x.to_kind(Kind::Float).layer_norm(&width, Some(&weight), Some(&bias), eps, false).to_kind(kind)
}
