//! Estimates a model's memory from its shapes.

use super::config::InternVlConfig;
use super::is_language;

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

/// The weights that training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// Those of an adapter of rank [`Usage::rank`], in fp32. The base model has [`Usage::width`].
    Adapter,
    /// The model's own, in fp32. The frozen weights of such a model are fp32 too.
    Model {
        /// Whether vision tower and projector are among them.
        vision: bool,
    },
}

/// The processes of a data-parallel run. Each holds the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// Number of processes, at least 1.
    pub world: u64,
    /// Whether each process keeps only its share of AdamW's moments (ZeRO stage 1; Rajbhandari et
    /// al. 2020, arXiv:1910.02054, section 5.1).
    pub shards_optimizer: bool,
}

/// Largest flat bucket in which gradients travel between ranks, in bytes.
pub const BUCKET_BYTES: u64 = 256 << 20;

/// Most logits that exist at a time in training, as in `train/forward.rs`.
const LOGITS_AT_A_TIME: u64 = 128 << 20;

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

/// Whether the layer of this weight gets an adapter.
pub(super) fn is_adapted(name: &str) -> bool {
    name.starts_with("language_model.model.layers.") && name.ends_with("_proj.weight")
}

impl InternVlConfig {
    /// The number of parameters.
    pub fn parameter_count(&self) -> u64 {
        self.count(|_| true)
    }

    /// The number of parameters of an adapter of this rank.
    pub fn adapter_count(&self, rank: u64) -> u64 {
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
                ("logits", self.logits_bytes(usage)),
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

    /// The number of parameters that training changes; `rank` is that of the adapter.
    pub fn trained_count(&self, trained: Trained, rank: u64) -> u64 {
        match trained {
            Trained::Adapter => self.adapter_count(rank),
            Trained::Model { vision: true } => self.parameter_count(),
            Trained::Model { vision: false } => self.count(is_language),
        }
    }

    /// SFT on one GPU of a data-parallel run. AdamW is assumed: Muon has one moment for matrices
    /// instead of two.
    pub fn sft_memory_per_rank(&self, usage: &Usage, trained: Trained, ranks: Ranks) -> Memory {
        let count = self.trained_count(trained, usage.rank);
        let shards = if ranks.shards_optimizer { ranks.world.max(1) } else { 1 };
        let mut parts = match trained {
            Trained::Adapter => vec![("weights", self.parameter_count() * usage.width), ("adapter", count * 4)],
            Trained::Model { .. } => {
                vec![("weights", self.parameter_count() * 4), ("copies for products", self.copies_bytes(usage))]
            }
        };
        let vision = match trained {
            // The pictures of a batch are embedded together, and all blocks keep their activations.
            Trained::Model { vision: true } => {
                usage.batch * self.vision_config.num_hidden_layers as u64 * self.vision_bytes(usage)
            }
            _ => self.vision_bytes(usage),
        };
        parts.extend([
            ("gradients", count * 4),
            ("moments", (count * 8).div_ceil(shards)),
            ("bucket", if ranks.world > 1 { BUCKET_BYTES.min(count * 4) } else { 0 }),
            ("activations", self.activation_bytes(usage)),
            ("vision transformer", vision),
            ("logits", self.logits_bytes(usage)),
        ]);
        Memory { parts }
    }

    /// Reinforcement learning on one GPU of a data-parallel run: as SFT, with the trained weights
    /// of the reference and of the rollouts, and keys and values of `rows` completions. A critic
    /// comes with `has_critic`.
    pub fn rl_memory_per_rank(
        &self,
        usage: &Usage,
        trained: Trained,
        ranks: Ranks,
        rows: u64,
        has_critic: bool,
    ) -> Memory {
        let mut memory = self.sft_memory_per_rank(usage, trained, ranks);
        // Both are copies of the trained weights in the dtype of the products.
        let copies = 2 * self.trained_count(trained, usage.rank) * usage.width;
        let hidden = self.llm_config.hidden_size as u64;
        memory.parts.extend([
            ("reference, rollout policy", copies),
            ("value head", if has_critic { hidden * hidden * 16 } else { 0 }),
            ("keys and values", self.cache_bytes(&Usage { batch: rows, ..*usage })),
        ]);
        memory
    }

    /// The number of parameters whose name `is_counted`.
    fn count(&self, is_counted: impl Fn(&str) -> bool) -> u64 {
        let counted = self.parameters().into_iter().filter(|parameter| is_counted(&parameter.name));
        counted.map(|parameter| parameter.shape.iter().product::<i64>() as u64).sum()
    }

    /// Copies of fp32 weights in the dtype of the products, in bytes: of all blocks, because the
    /// backward pass needs them again; with checkpointing of one block. The head's is one more.
    fn copies_bytes(&self, usage: &Usage) -> u64 {
        if usage.width == 4 {
            return 0;
        }
        let llm = &self.llm_config;
        let blocks = self.count(|name| name.starts_with("language_model.model.layers."));
        let kept = if usage.is_checkpointed { blocks / llm.num_hidden_layers as u64 } else { blocks };
        (kept + self.vocab() * llm.hidden_size as u64) * usage.width
    }

    /// Logits with their log-softmax and gradient, in bytes. Training computes them in pieces.
    fn logits_bytes(&self, usage: &Usage) -> u64 {
        (usage.batch * self.response(usage) * self.vocab()).min(LOGITS_AT_A_TIME) * 4 * 3
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preset;

    const GIB: u64 = 1 << 30;

    fn eight_b() -> InternVlConfig {
        InternVlConfig::preset(Preset::InternVl3_8b, 0)
    }

    fn usage() -> Usage {
        Usage { batch: 2, length: 1024, tiles: 1, rank: 128, width: 2, is_checkpointed: true }
    }

    fn part(memory: &Memory, name: &str) -> u64 {
        memory.parts.iter().find(|(part, _)| *part == name).unwrap_or_else(|| panic!("{name} of {memory:?}")).1
    }

    fn ranks(world: u64, shards_optimizer: bool) -> Ranks {
        Ranks { world, shards_optimizer }
    }

    #[test]
    fn one_rank_with_an_adapter_needs_what_the_adapter_alone_needs() {
        let (config, usage) = (eight_b(), usage());
        let memory = config.sft_memory_per_rank(&usage, Trained::Adapter, ranks(1, false));
        assert_eq!(memory.total(), config.sft_memory(&usage).total());
    }

    /// By hand, with P parameters: fp32 weights and gradients take 4 P bytes each, both moments 8
    /// P, and on each of four ranks 2 P.
    #[test]
    fn full_tuning_takes_16_bytes_a_parameter_and_a_sharded_optimiser_divides_8_of_them() {
        let config = eight_b();
        let p = config.parameter_count();
        assert!((7.9e9..8.0e9).contains(&(p as f64)), "{p}");
        let all = Trained::Model { vision: true };
        let whole = config.sft_memory_per_rank(&usage(), all, ranks(4, false));
        let sharded = config.sft_memory_per_rank(&usage(), all, ranks(4, true));
        for memory in [&whole, &sharded] {
            assert_eq!((part(memory, "weights"), part(memory, "gradients")), (4 * p, 4 * p));
            assert_eq!(part(memory, "bucket"), GIB / 4);
        }
        assert_eq!((part(&whole, "moments"), part(&sharded, "moments")), (8 * p, 2 * p));
        assert_eq!(whole.total() - sharded.total(), 6 * p);
        // One rank has nobody to share with.
        let alone = config.sft_memory_per_rank(&usage(), all, ranks(1, true));
        assert_eq!((part(&alone, "moments"), part(&alone, "bucket")), (8 * p, 0));
    }

    #[test]
    fn a_frozen_tower_has_neither_gradient_nor_moments() {
        let config = eight_b();
        let memory = config.sft_memory_per_rank(&usage(), Trained::Model { vision: false }, ranks(1, false));
        let language = config.count(|name| name.starts_with("language_model."));
        assert_eq!(part(&memory, "gradients"), 4 * language);
        assert_eq!(part(&memory, "weights"), 4 * config.parameter_count());
    }

    /// A block of InternVL3-8B: q and o of 3584 x 3584, k and v of 512 x 3584, three matrices of
    /// 3584 x 18944, biases of 3584 + 2 * 512, two norms of 3584: 233,057,792 parameters. The head
    /// has 151,674 x 3584.
    #[test]
    fn bf16_products_of_fp32_weights_need_copies_of_one_block_or_of_all() {
        let (block, head) = (233_057_792, 151_674 * 3584);
        let copies = |usage: &Usage| {
            part(
                &eight_b().sft_memory_per_rank(usage, Trained::Model { vision: false }, ranks(1, false)),
                "copies for products",
            )
        };
        assert_eq!(copies(&usage()), 2 * (block + head));
        assert_eq!(copies(&Usage { is_checkpointed: false, ..usage() }), 2 * (28 * block + head));
        assert_eq!(copies(&Usage { width: 4, ..usage() }), 0);
    }

    #[test]
    fn reinforcement_learning_keeps_two_copies_of_what_it_trains_and_the_rows_that_it_generates() {
        let config = eight_b();
        let all = Trained::Model { vision: true };
        let memory = config.rl_memory_per_rank(&usage(), all, ranks(1, false), 64, false);
        assert_eq!(part(&memory, "reference, rollout policy"), 2 * 2 * config.parameter_count());
        // Keys and values: 2 x 28 layers x 4 heads x 128 numbers of 2 bytes for each of 1024
        // positions of 64 rows.
        assert_eq!(part(&memory, "keys and values"), 2 * 28 * 4 * 128 * 2 * 1024 * 64);
        assert_eq!(part(&memory, "value head"), 0);
    }
}
