//! Floating-point operations and bytes of a pass, from the model's shapes. A multiplication and the
//! addition that follows count as two operations. Norms, activations, rotary embedding and softmax
//! are left out: they are bound by memory and far below one per cent of the operations.

use super::config::{InternVlConfig, Parameter};
use super::memory::is_adapted;
use super::{Trained, is_language};

/// A pass over one sequence of the decoder.
#[derive(Debug, Clone, Copy)]
pub struct Sequence {
    /// Tokens of prompt, picture and response.
    pub tokens: f64,
    /// Tokens for which logits are computed.
    pub targets: f64,
}

impl InternVlConfig {
    /// Operations of the decoder's linear layers for one token: 2 for each weight of the blocks.
    pub fn linear_flops(&self) -> f64 {
        let llm = &self.llm_config;
        let [hidden, inner] = [llm.hidden_size, llm.intermediate_size].map(|number| number as f64);
        let (q, kv) = self.attention_widths();
        2.0 * llm.num_hidden_layers as f64 * (2.0 * hidden * q + 2.0 * hidden * kv + 3.0 * hidden * inner)
    }

    /// Operations of the decoder's attention for `tokens` new positions after `before` cached ones:
    /// scores and mixture, 2 operations each for every channel of every query and key that it sees.
    /// A query sees itself and all before it.
    pub fn attention_flops(&self, tokens: f64, before: f64) -> f64 {
        let pairs = tokens * before + tokens * (tokens + 1.0) / 2.0;
        4.0 * self.llm_config.num_hidden_layers as f64 * self.attention_widths().0 * pairs
    }

    /// Operations of the output head for one token.
    pub fn head_flops(&self) -> f64 {
        2.0 * (self.llm_config.hidden_size * self.llm_config.vocab_size) as f64
    }

    /// Operations of an adapter of this rank on all seven kinds of linear layers, for one token.
    pub fn adapter_flops(&self, rank: u64) -> f64 {
        2.0 * self.adapter_count(rank) as f64
    }

    /// Operations of Muon's orthogonalisation in one optimiser step: for each trained matrix of m x
    /// n, m <= n, that is not a table, five iterations of two products m x n x m and one m x m x m
    /// (`orthogonalised` in `train/optim.rs`). `rank` is that of an adapter.
    pub fn muon_flops(&self, trained: Trained, rank: u64) -> f64 {
        let of_matrix = |rows: f64, columns: f64| {
            let (m, n) = (rows.min(columns), rows.max(columns));
            5.0 * (4.0 * m * m * n + 2.0 * m * m * m)
        };
        let rank = rank as f64;
        let is_table = |name: &str| name.contains("embed") || name.contains("lm_head");
        let of_parameter = |parameter: &Parameter| {
            let [rows, columns] = *parameter.shape.as_slice() else { return 0.0 };
            let (rows, columns) = (rows as f64, columns as f64);
            match trained {
                Trained::Adapter if is_adapted(&parameter.name) => of_matrix(rank, columns) + of_matrix(rows, rank),
                Trained::Model { vision } if (vision || is_language(&parameter.name)) && !is_table(&parameter.name) => {
                    of_matrix(rows, columns)
                }
                _ => 0.0,
            }
        };
        self.parameters().iter().map(of_parameter).sum()
    }

    /// Operations of the vision transformer and the projector for one tile.
    pub fn tile_flops(&self) -> f64 {
        let vision = &self.vision_config;
        let [width, inner, layers] =
            [vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers].map(|number| number as f64);
        let patches = ((vision.image_size / vision.patch_size).pow(2)) as f64;
        // The class token is one more.
        let tokens = patches + 1.0;
        let embedding = 2.0 * patches * width * 3.0 * (vision.patch_size * vision.patch_size) as f64;
        let block = 2.0 * tokens * (4.0 * width * width + 2.0 * width * inner) + 4.0 * width * tokens * tokens;
        let hidden = self.llm_config.hidden_size as f64;
        let projector = 2.0 * self.tokens_per_tile() as f64 * (4.0 * width * hidden + hidden * hidden);
        embedding + layers * block + projector
    }

    /// Operations of a forward pass over one sequence. `rank` is that of the adapter, 0 without
    /// one.
    pub fn forward_flops(&self, sequence: Sequence, rank: u64) -> f64 {
        let Sequence { tokens, targets } = sequence;
        tokens * (self.linear_flops() + self.adapter_flops(rank))
            + self.attention_flops(tokens, 0.0)
            + targets * self.head_flops()
    }

    /// Operations of a forward and a backward pass over one sequence.
    ///
    /// The backward pass costs the forward pass once for the gradients of inputs, and once more for
    /// the gradients of weights that are trained. Frozen layers need only the former. Attention has
    /// two inputs to each product, and costs twice. With `is_checkpointed`, the blocks' forward
    /// pass is computed again.
    pub fn training_flops(&self, sequence: Sequence, trained: Trained, rank: u64, is_checkpointed: bool) -> f64 {
        let Sequence { tokens, targets } = sequence;
        let (adapter, frozen_passes) = match trained {
            Trained::Adapter => (self.adapter_flops(rank), 2.0),
            Trained::Model { .. } => (0.0, 3.0),
        };
        let (linear, attention) = (tokens * self.linear_flops(), self.attention_flops(tokens, 0.0));
        let again = if is_checkpointed { linear + attention + tokens * adapter } else { 0.0 };
        frozen_passes * (linear + targets * self.head_flops()) + 3.0 * (attention + tokens * adapter) + again
    }

    /// Bytes of weights that a decoding step reads, each once: blocks and head in `width` bytes,
    /// and the adapter. The embedding's rows are few.
    pub fn decoding_weight_bytes(&self, width: u64, rank: u64) -> f64 {
        let weights = (self.linear_flops() + self.head_flops()) / 2.0;
        (weights + self.adapter_count(rank) as f64) * width as f64
    }

    /// Bytes of keys and values of one position.
    pub fn cache_bytes_per_token(&self, width: u64) -> f64 {
        let kv = self.attention_widths().1;
        2.0 * self.llm_config.num_hidden_layers as f64 * kv * width as f64
    }

    /// Widths of the queries, and of the keys, of all heads.
    fn attention_widths(&self) -> (f64, f64) {
        let llm = &self.llm_config;
        let width = |heads: i64| (heads * llm.head_dim()) as f64;
        (width(llm.num_attention_heads), width(llm.num_key_value_heads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preset;

    fn preset(preset: Preset) -> InternVlConfig {
        InternVlConfig::preset(preset, 512)
    }

    fn parameters(config: &InternVlConfig, prefix: &str) -> f64 {
        let all = config.parameters().into_iter().filter(|parameter| parameter.name.starts_with(prefix));
        all.map(|parameter| parameter.shape.iter().product::<i64>() as f64).sum()
    }

    fn assert_close(found: f64, expected: f64, relative: f64) {
        assert!((found / expected - 1.0).abs() < relative, "{found:e} is not {expected:e}");
    }

    /// Five iterations of 4 m^2 n + 2 m^3 operations a matrix: 5 (4 n + 2) for a factor of rank 1.
    #[test]
    fn muon_costs_five_iterations_a_matrix() {
        let config = preset(Preset::Nano);
        let llm = &config.llm_config;
        let adapter = config.muon_flops(Trained::Adapter, 1);
        // 14 factors in a block.
        let sides: i64 = config.adapter_count(1) as i64;
        assert_eq!(adapter, 5.0 * (4 * sides + 2 * 14 * llm.num_hidden_layers) as f64);
        let language = config.muon_flops(Trained::Model { vision: false }, 0);
        let whole = config.muon_flops(Trained::Model { vision: true }, 0);
        // At least 5 * 4 m operations a weight.
        let weights = parameters(&config, "language_model.model.layers.");
        assert!(language > 20.0 * weights && whole > language, "{language:e} {whole:e}");
    }

    /// A forward pass without attention costs 2 operations for each weight and token (Kaplan et al.
    /// 2020, arXiv:2001.08361, table 1). Biases and norms, which are not counted, are below 0.2 %
    /// of the weights.
    #[test]
    fn a_token_costs_two_operations_a_weight_in_every_preset() {
        for name in Preset::ALL {
            let config = preset(name);
            assert_close(config.linear_flops(), 2.0 * parameters(&config, "language_model.model.layers."), 0.002);
            let vision = &config.vision_config;
            let tokens = ((vision.image_size / vision.patch_size).pow(2) + 1) as f64;
            let attention = 4.0 * (vision.hidden_size * vision.num_hidden_layers) as f64 * tokens * tokens;
            let weights = 2.0 * tokens * parameters(&config, "vision_model.encoder.")
                + 2.0 * (tokens - 1.0) * parameters(&config, "vision_model.embeddings.patch_embedding.")
                + 2.0 * config.tokens_per_tile() as f64 * parameters(&config, "mlp1.");
            assert_close(config.tile_flops(), weights + attention, 0.01);
        }
    }

    /// Two tokens of the nano model: 4 layers, queries of 3 x 64 channels. The first sees one key,
    /// the second two: 3 pairs x 192 channels x 4 operations x 4 layers.
    #[test]
    fn a_query_pays_for_the_keys_that_it_sees() {
        let config = preset(Preset::Nano);
        assert_eq!(config.attention_flops(2.0, 0.0), 3.0 * 192.0 * 4.0 * 4.0);
        // One by one, with a cache, is the same.
        assert_eq!(config.attention_flops(1.0, 0.0) + config.attention_flops(1.0, 1.0), 3.0 * 192.0 * 4.0 * 4.0);
    }

    /// Full tuning: 6 operations a weight and token. An adapter: 4 for the frozen weights and 6 for
    /// its own. Checkpointing: 2 more for all but the head.
    #[test]
    fn a_training_step_costs_three_forward_passes_or_two_if_the_weights_are_frozen() {
        let config = preset(Preset::InternVl3_8b);
        let sequence = Sequence { tokens: 1.0, targets: 1.0 };
        let (blocks, head) = (config.linear_flops() / 2.0, config.head_flops() / 2.0);
        let (adapter, attention) = (config.adapter_count(8) as f64, config.attention_flops(1.0, 0.0));
        let full = |again| config.training_flops(sequence, Trained::Model { vision: false }, 8, again);
        let lora = |again| config.training_flops(sequence, Trained::Adapter, 8, again);
        assert_close(full(false), 6.0 * (blocks + head) + 3.0 * attention, 1e-12);
        assert_close(full(true), 8.0 * blocks + 6.0 * head + 4.0 * attention, 1e-12);
        assert_close(lora(false), 4.0 * (blocks + head) + 6.0 * adapter + 3.0 * attention, 1e-12);
        assert_close(lora(true), 6.0 * blocks + 4.0 * head + 8.0 * adapter + 4.0 * attention, 1e-12);
        assert_close(config.forward_flops(sequence, 8), 2.0 * (blocks + head + adapter) + attention, 1e-12);
    }

    /// InternVL3-8B: 28 layers with 4 heads of 128 channels for keys and for values, 2 bytes each.
    /// Its blocks and head have 7.07e9 weights, by docs of Qwen2.5-7B: 7.61e9 minus an embedding of
    /// 0.54e9.
    #[test]
    fn decoding_reads_weights_and_cache() {
        let config = preset(Preset::InternVl3_8b);
        assert_eq!(config.cache_bytes_per_token(2), 2.0 * 28.0 * 4.0 * 128.0 * 2.0);
        assert_close(config.decoding_weight_bytes(2, 0), 2.0 * 7.07e9, 0.005);
    }
}
