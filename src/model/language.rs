//! The Qwen2.5 decoder: grouped-query attention with rotary positions, SwiGLU, RMS norms, KV cache.
//!
//! Precision: products run in the compute dtype (bf16 or fp32). The residual stream, norms, rotary
//! embedding, softmax and logits are fp32. `transformers` keeps the residual stream in the compute
//! dtype, so in bf16 the two differ by its rounding.

use tch::{Device, Kind, Tensor};

use super::config::LanguageConfig;
use super::linear::{DropoutRow, Linear, LoraScale, rms_norm};
use super::weights::Weights;

/// The decoder.
pub struct Decoder {
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    config: LanguageConfig,
    compute: Kind,
}

/// Rotary tables and mask of a pass over `t` new positions that sees `s >= t` positions in all.
pub struct Positions {
    /// `[b or 1, 1, t, head_dim]` f32.
    cos: Tensor,
    /// `[b or 1, 1, t, head_dim]` f32.
    sin: Tensor,
    seen: Seen,
}

/// The keys that a query sees.
pub(super) enum Seen {
    /// All of them.
    All,
    /// Its own key and those before it; there are as many keys as queries.
    Causal,
    /// 0 at positions that are attended to, a large negative number at all others:
    /// `[b or 1, 1, t, s]` f32.
    Masked(Tensor),
}

/// The score of a masked key. It is finite, because a row of padding sees no key and must not
/// become NaN.
const UNSEEN: f64 = -1e9;

impl Positions {
    /// Positions `0..t`, each of which sees itself and those before it. Padding is on the right, so
    /// no token sees it.
    pub fn causal(config: &LanguageConfig, t: i64, device: Device) -> Self {
        let positions = Tensor::arange(t, (Kind::Float, device)).unsqueeze(0);
        Self::new(config, &positions, Seen::Causal)
    }

    /// Positions of the prompts of a batch padded on the left: `is_token: [b, t] bool`.
    pub fn left_padded(config: &LanguageConfig, is_token: &Tensor) -> Self {
        let (b, t) = is_token.size2().expect("is_token: [b, t]");
        let positions = (is_token.cumsum(1, Kind::Float) - 1.0).clamp_min(0.0);
        let causal = Tensor::ones([t, t], (Kind::Bool, is_token.device())).tril(0).view([1, 1, t, t]);
        let is_seen = causal.logical_and(&is_token.view([b, 1, 1, t]));
        let mask = is_seen.logical_not().to_kind(Kind::Float) * UNSEEN;
        Self::new(config, &positions, Seen::Masked(mask))
    }

    /// One more token for each sequence, at `positions [b] f32`. It sees the keys at which
    /// `is_token [b, s]` is true, or all keys.
    pub fn next(config: &LanguageConfig, positions: &Tensor, is_token: Option<&Tensor>) -> Self {
        let seen = is_token.map_or(Seen::All, |is_token| {
            Seen::Masked(is_token.logical_not().to_kind(Kind::Float).unsqueeze(1).unsqueeze(1) * UNSEEN)
        });
        Self::new(config, &positions.unsqueeze(1), seen)
    }

    fn new(config: &LanguageConfig, positions: &Tensor, seen: Seen) -> Self {
        let d = config.head_dim();
        let exponent = Tensor::arange_start_step(0, d, 2, (Kind::Float, positions.device()))
            * (-config.rope_theta.ln() / d as f64);
        let angles = positions.unsqueeze(-1) * exponent.exp();
        let angles = Tensor::cat(&[&angles, &angles], -1).unsqueeze(1);
        Self { cos: angles.cos(), sin: angles.sin(), seen }
    }

    /// Rotary embedding of `x: [b, heads, t, d]` (Su et al. 2021, arXiv:2104.09864, eq. 34), in the
    /// half-split order that Qwen2 uses.
    fn rotate(&self, x: &Tensor, kind: Kind) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let halves = x.chunk(2, -1);
        let turned = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
        (x * &self.cos + turned * &self.sin).to_kind(kind)
    }
}

/// Keys and values of the positions so far, with room for more.
pub struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// Positions filled.
    pub len: i64,
}

impl KvCache {
    /// An empty cache with room for `capacity` positions of `b` sequences.
    pub fn new(decoder: &Decoder, b: i64, capacity: i64) -> Self {
        let config = &decoder.config;
        let options = (decoder.compute, decoder.embedding.device());
        let make = || Tensor::empty([b, config.num_key_value_heads, capacity, config.head_dim()], options);
        let layers = config.num_hidden_layers;
        Self { keys: (0..layers).map(|_| make()).collect(), values: (0..layers).map(|_| make()).collect(), len: 0 }
    }

    /// Keeps the sequences `rows [n] i64`, in that order; a row may occur more than once.
    pub fn select(&mut self, rows: &Tensor) {
        for tensor in self.keys.iter_mut().chain(&mut self.values) {
            *tensor = tensor.index_select(0, rows);
        }
    }

    /// Appends keys and values `[b, kv_heads, t, d]` of one layer. Returns all of the layer's keys
    /// and values, as views.
    fn extend(&mut self, layer: usize, key: &Tensor, value: &Tensor) -> (Tensor, Tensor) {
        let t = key.size()[2];
        let append = |store: &Tensor, new: &Tensor| {
            store.narrow(2, self.len, t).copy_(new);
            store.narrow(2, 0, self.len + t)
        };
        (append(&self.keys[layer], key), append(&self.values[layer], value))
    }
}

impl Decoder {
    /// The decoder whose weights start with `prefix`.
    pub fn new(
        weights: &Weights,
        prefix: &str,
        config: &LanguageConfig,
        lora: Option<LoraScale>,
        compute: Kind,
    ) -> Self {
        let embedding = weights.get(&format!("{prefix}.model.embed_tokens.weight"));
        let head = match config.tie_word_embeddings {
            true => embedding.shallow_clone(),
            false => weights.get(&format!("{prefix}.lm_head.weight")),
        };
        let block = |layer| Block::new(weights, &format!("{prefix}.model.layers.{layer}"), config, lora);
        Self {
            blocks: (0..config.num_hidden_layers).map(block).collect(),
            norm: weights.get(&format!("{prefix}.model.norm.weight")),
            embedding,
            head,
            config: config.clone(),
            compute,
        }
    }

    /// The architecture.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// Embeds tokens: `ids [b, t] i64 -> [b, t, hidden] f32`.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding, ids, -1, false, false).to_kind(Kind::Float)
    }

    /// All blocks: `x [b, t, hidden] f32 -> [b, t, hidden] f32` before the last norm. With a cache,
    /// `x` follows the cached positions. `dropout` enables the adapters' dropout.
    pub fn blocks(
        &self,
        x: Tensor,
        positions: &Positions,
        mut cache: Option<&mut KvCache>,
        dropout: Option<&[DropoutRow]>,
    ) -> Tensor {
        let t = x.size()[1];
        let mut x = x;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, positions, cache.as_deref_mut().map(|cache| (layer, cache)), self.compute, dropout);
        }
        if let Some(cache) = cache {
            cache.len += t;
        }
        x
    }

    /// As [`Self::blocks`] without a cache, but keeps only each block's input: [`Tape::backward`]
    /// computes activations again (Chen et al. 2016, arXiv:1604.06174). The returned tensor is a
    /// leaf; pass its gradient to the tape.
    pub fn blocks_with_tape(
        &self,
        x: Tensor,
        positions: Positions,
        dropout: Option<Vec<DropoutRow>>,
    ) -> (Tensor, Tape<'_>) {
        let input = x;
        let mut inputs = Vec::with_capacity(self.blocks.len());
        let mut x = input.detach();
        tch::no_grad(|| {
            for block in &self.blocks {
                let next = block.forward(&x, &positions, None, self.compute, dropout.as_deref());
                inputs.push(std::mem::replace(&mut x, next));
            }
        });
        let output = x.detach().set_requires_grad(true);
        (output, Tape { decoder: self, positions, input, inputs, dropout })
    }

    /// The last norm: `x [.., hidden] f32 -> [.., hidden]` in the compute dtype.
    pub fn last_norm(&self, x: &Tensor) -> Tensor {
        rms_norm(x, &self.norm, self.config.rms_norm_eps, self.compute)
    }

    /// The output head: `normed [.., hidden] -> logits [.., vocab] f32`.
    pub fn logits(&self, normed: &Tensor) -> Tensor {
        normed.linear(&self.head.to_kind(normed.kind()), None::<Tensor>).to_kind(Kind::Float)
    }
}

/// The tensors that a checkpointed forward pass keeps.
pub struct Tape<'a> {
    decoder: &'a Decoder,
    positions: Positions,
    input: Tensor,
    inputs: Vec<Tensor>,
    dropout: Option<Vec<DropoutRow>>,
}

impl Tape<'_> {
    /// Propagates the gradient of the blocks' output, `[b, t, hidden]`, back to the weights and the
    /// input.
    pub fn backward(self, gradient: &Tensor) {
        let mut gradient = gradient.shallow_clone();
        for (layer, input) in self.inputs.into_iter().enumerate().rev() {
            let input = input.detach().set_requires_grad(true);
            let block = &self.decoder.blocks[layer];
            let output = block.forward(&input, &self.positions, None, self.decoder.compute, self.dropout.as_deref());
            // The gradient of sum(output * g) with respect to the output is g: the vector-Jacobian
            // product.
            (output * &gradient).sum(Kind::Float).backward();
            gradient = input.grad();
        }
        if self.input.requires_grad() {
            (&self.input * &gradient).sum(Kind::Float).backward();
        }
    }
}

struct Block {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_attention_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
    eps: f64,
    kv_heads: i64,
    head_dim: i64,
}

impl Block {
    fn new(weights: &Weights, prefix: &str, config: &LanguageConfig, lora: Option<LoraScale>) -> Self {
        let linear = |name: &str| Linear::new(weights, &format!("{prefix}.{name}"), lora);
        Self {
            input_norm: weights.get(&format!("{prefix}.input_layernorm.weight")),
            q: linear("self_attn.q_proj"),
            k: linear("self_attn.k_proj"),
            v: linear("self_attn.v_proj"),
            o: linear("self_attn.o_proj"),
            post_attention_norm: weights.get(&format!("{prefix}.post_attention_layernorm.weight")),
            gate: linear("mlp.gate_proj"),
            up: linear("mlp.up_proj"),
            down: linear("mlp.down_proj"),
            eps: config.rms_norm_eps,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim(),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        positions: &Positions,
        cache: Option<(usize, &mut KvCache)>,
        compute: Kind,
        dropout: Option<&[DropoutRow]>,
    ) -> Tensor {
        let normed = rms_norm(x, &self.input_norm, self.eps, compute);
        let x = x + self.attention(&normed, positions, cache, dropout);
        let normed = rms_norm(&x, &self.post_attention_norm, self.eps, compute);
        let inner = self.gate.forward(&normed, dropout).silu() * self.up.forward(&normed, dropout);
        &x + self.down.forward(&inner, dropout)
    }

    fn attention(
        &self,
        x: &Tensor,
        positions: &Positions,
        cache: Option<(usize, &mut KvCache)>,
        dropout: Option<&[DropoutRow]>,
    ) -> Tensor {
        let (b, t, _) = x.size3().expect("x: [b, t, hidden]");
        let kind = x.kind();
        let heads = |y: Tensor| y.view([b, t, -1, self.head_dim]).transpose(1, 2);
        let q = positions.rotate(&heads(self.q.forward(x, dropout)), kind);
        let k = positions.rotate(&heads(self.k.forward(x, dropout)), kind);
        let v = heads(self.v.forward(x, dropout));
        let (k, v) = match cache {
            Some((layer, cache)) => cache.extend(layer, &k, &v),
            None => (k, v),
        };
        let mixed = attend(&q, &k, &v, &positions.seen, self.kv_heads);
        self.o.forward(&mixed.transpose(1, 2).reshape([b, t, -1]), dropout)
    }
}

/// Grouped-query attention: `q [b, heads, t, d]`, `k, v [b, kv_heads, s, d]`; returns
/// `[b, heads, t, d]`.
///
/// On CUDA this is libtorch's fused kernel, which takes grouped heads only if there is no mask.
/// On the CPU the backward of the fused bf16 kernel is three times slower than two batched
/// products, and grouping the queries of one key head into rows spares the copies of keys and
/// values.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, seen: &Seen, kv_heads: i64) -> Tensor {
    let (b, heads, t, d) = q.size4().expect("q: [b, heads, t, d]");
    let groups = heads / kv_heads;
    if q.device().is_cuda() {
        let fused = |k: &Tensor, v: &Tensor, mask: Option<&Tensor>, is_causal: bool, is_grouped: bool| {
            Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal, None, is_grouped)
        };
        return match seen {
            Seen::All => fused(k, v, None, false, groups > 1),
            Seen::Causal => fused(k, v, None, true, groups > 1),
            Seen::Masked(mask) => {
                let repeated = |x: &Tensor| x.repeat_interleave_self_int(groups, 1, None);
                fused(&repeated(k), &repeated(v), Some(&mask.to_kind(q.kind())), false, false)
            }
        };
    }
    let s = k.size()[2];
    let rows = q.reshape([b, kv_heads, groups * t, d]) * (1.0 / (d as f64).sqrt());
    let scores = rows.matmul(&k.transpose(-1, -2)).to_kind(Kind::Float).view([b, kv_heads, groups, t, s]);
    let scores = match seen {
        Seen::All => scores,
        Seen::Causal => scores + Tensor::full([t, s], UNSEEN, (Kind::Float, q.device())).triu(1),
        Seen::Masked(mask) => scores + mask.unsqueeze(2),
    };
    let weights = scores.softmax(-1, Kind::Float).to_kind(q.kind());
    weights.view([b, kv_heads, groups * t, s]).matmul(v).view([b, heads, t, d])
}
