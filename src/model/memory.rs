//! Estimates a model's memory from its shapes.

use super::config::InternVlConfig;

/// The use of a model whose memory is estimated.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Sequences in one forward pass.
    pub batch: u64,
    /// Tokens in a sequence, those of the picture included.
    pub length: u64,
    /// Tiles of a picture.
    pub tiles: u64,
    /// Rank of an adapter on all seven kinds of linear layers of the language model.
    pub rank: u64,
    /// Bytes of a weight and of a number in a product: 2 for bf16, 4 for fp32.
    pub width: u64,
    /// Whether the backward pass computes activations again (gradient checkpointing).
    pub is_checkpointed: bool,
}

/// Bytes of memory, by purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Parts and their bytes.
    pub parts: Vec<(&'static str, u64)>,
}

impl Memory {
    /// The sum of all parts, in bytes.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl InternVlConfig {
    /// The number of parameters.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|parameter| parameter.shape.iter().product::<i64>() as u64).sum()
    }

    /// The number of parameters of an adapter of this rank.
    pub fn adapter_count(&self, rank: u64) -> u64 {
        let is_adapted =
            |name: &str| name.starts_with("language_model.model.layers.") && name.ends_with("_proj.weight");
        let sides = |shape: &[i64]| shape.iter().sum::<i64>() as u64;
        self.parameters().iter().filter(|p| is_adapted(&p.name)).map(|p| rank * sides(&p.shape)).sum()
    }

    /// Generation: weights, keys and values, and one picture at a time in the vision transformer.
    pub fn inference_memory(&self, usage: &Usage) -> Memory {
        Memory {
            parts: vec![
                ("weights", self.parameter_count() * usage.width),
                ("keys and values", self.cache_bytes(usage)),
                ("vision transformer", self.vision_bytes(usage)),
                ("logits", usage.batch * self.vocab() * 4 * 3),
            ],
        }
    }

    /// LoRA fine-tuning: fp32 adapters with gradient and two moments, and the activations that the
    /// backward pass needs.
    pub fn sft_memory(&self, usage: &Usage) -> Memory {
        Memory {
            parts: vec![
                ("weights", self.parameter_count() * usage.width),
                ("adapter, gradient, moments", self.adapter_count(usage.rank) * 16),
                ("activations", self.activation_bytes(usage)),
                ("vision transformer", self.vision_bytes(usage)),
                ("logits", usage.batch * self.response(usage) * self.vocab() * 4 * 3),
            ],
        }
    }

    /// PPO: as fine-tuning, with the adapters of the reference and of the rollouts, and keys and
    /// values.
    pub fn ppo_memory(&self, usage: &Usage) -> Memory {
        let mut memory = self.sft_memory(usage);
        let adapters = self.adapter_count(usage.rank) * (4 + usage.width);
        let hidden = self.llm_config.hidden_size as u64;
        memory.parts.extend([
            ("reference, rollout adapter", adapters),
            ("value head", hidden * hidden * 16),
            ("keys and values", self.cache_bytes(usage)),
        ]);
        memory
    }

    fn vocab(&self) -> u64 {
        self.llm_config.vocab_size as u64
    }

    /// Tokens with a loss: those after the picture.
    fn response(&self, usage: &Usage) -> u64 {
        usage.length.saturating_sub(usage.tiles * self.tokens_per_tile() as u64)
    }

    fn cache_bytes(&self, usage: &Usage) -> u64 {
        let llm = &self.llm_config;
        let per_token = 2 * llm.num_hidden_layers * llm.num_key_value_heads * llm.head_dim();
        usage.batch * usage.length * per_token as u64 * usage.width
    }

    /// Activations kept for the backward pass, in bytes. Each decoder block keeps two fp32
    /// residuals, two normed inputs, queries, keys, values and their mixture, three inner vectors
    /// of the SwiGLU, and the attention scores in fp32 and rounded. With checkpointing: one
    /// residual for each block and the activations of one block.
    fn activation_bytes(&self, usage: &Usage) -> u64 {
        let llm = &self.llm_config;
        let [hidden, inner, heads, kv_heads, head_dim] =
            [llm.hidden_size, llm.intermediate_size, llm.num_attention_heads, llm.num_key_value_heads, llm.head_dim()]
                .map(|number| number as u64);
        let tokens = usage.batch * usage.length;
        let in_products = 2 * hidden + 2 * heads * head_dim + 2 * kv_heads * head_dim + 4 * inner;
        let scores = heads * usage.length * (2 * 4 + usage.width);
        let block = tokens * (2 * 4 * hidden + usage.width * in_products + scores);
        let layers = llm.num_hidden_layers as u64;
        if usage.is_checkpointed { block + layers * tokens * 4 * hidden } else { layers * block }
    }

    /// One picture's tiles in one block of the vision transformer, in bytes: no activations are
    /// kept.
    fn vision_bytes(&self, usage: &Usage) -> u64 {
        let vision = &self.vision_config;
        let tokens = ((vision.image_size / vision.patch_size).pow(2) + 1) as u64;
        let [width, inner, heads] =
            [vision.hidden_size, vision.intermediate_size, vision.num_attention_heads].map(|number| number as u64);
        let per_token = 3 * 4 * width + usage.width * (5 * width + 2 * inner) + heads * tokens * (2 * 4 + usage.width);
        usage.tiles * tokens * per_token
    }
}
