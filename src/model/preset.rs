//! The named architectures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config::{InternVlConfig, LanguageConfig, VisionConfig};
use super::{Layout, ModelError};

/// The architecture of a model that is made from random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Preset {
    /// A model of a few million parameters for CPUs and tests. It has a tokenizer of its own.
    Nano,
    /// InternVL3-1B.
    InternVl3_1b,
    /// InternVL3-2B.
    InternVl3_2b,
    /// InternVL3-8B.
    InternVl3_8b,
    /// InternVL3-14B.
    InternVl3_14b,
    /// InternVL3-38B.
    InternVl3_38b,
    /// InternVL3-78B.
    InternVl3_78b,
}

impl Preset {
    /// Every preset, the smallest first.
    pub const ALL: [Self; 7] = [
        Self::Nano,
        Self::InternVl3_1b,
        Self::InternVl3_2b,
        Self::InternVl3_8b,
        Self::InternVl3_14b,
        Self::InternVl3_38b,
        Self::InternVl3_78b,
    ];

    /// The name in configurations and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::InternVl3_1b => "internvl3-1b",
            Self::InternVl3_2b => "internvl3-2b",
            Self::InternVl3_8b => "internvl3-8b",
            Self::InternVl3_14b => "internvl3-14b",
            Self::InternVl3_38b => "internvl3-38b",
            Self::InternVl3_78b => "internvl3-78b",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| ModelError::Preset { name: name.to_owned() })
    }
}

impl TryFrom<String> for Preset {
    type Error = ModelError;

    fn try_from(name: String) -> Result<Self, ModelError> {
        name.parse()
    }
}

impl From<Preset> for String {
    fn from(preset: Preset) -> Self {
        preset.name().to_owned()
    }
}

impl InternVlConfig {
    /// The architecture of a preset. `vocab_size` is used only for `nano`, and comes from its
    /// tokenizer.
    pub fn preset(preset: Preset, vocab_size: i64) -> Self {
        let internvit_300m = VisionConfig {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_attention_heads: 16,
            num_hidden_layers: 24,
            patch_size: 14,
            image_size: 448,
            layer_norm_eps: 1e-6,
            norm_type: "layer_norm".into(),
            qk_normalization: false,
            qkv_bias: true,
        };
        let internvit_6b = VisionConfig {
            hidden_size: 3200,
            intermediate_size: 12_800,
            num_attention_heads: 25,
            num_hidden_layers: 45,
            norm_type: "rms_norm".into(),
            qk_normalization: true,
            qkv_bias: false,
            ..internvit_300m.clone()
        };
        let qwen = |hidden_size, intermediate_size, layers, heads, kv_heads| LanguageConfig {
            vocab_size: 151_674,
            hidden_size,
            intermediate_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: None,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            max_position_embeddings: 32_768,
            rope_scaling: None,
            tie_word_embeddings: false,
        };
        let (vision_config, llm_config) = match preset {
            Preset::Nano => (
                VisionConfig {
                    hidden_size: 128,
                    intermediate_size: 512,
                    num_attention_heads: 2,
                    num_hidden_layers: 3,
                    image_size: 112,
                    ..internvit_300m
                },
                LanguageConfig {
                    vocab_size,
                    head_dim: Some(64),
                    rope_theta: 1e4,
                    max_position_embeddings: 2048,
                    tie_word_embeddings: true,
                    ..qwen(192, 512, 4, 3, 1)
                },
            ),
            Preset::InternVl3_1b => (internvit_300m, qwen(896, 4864, 24, 14, 2)),
            Preset::InternVl3_2b => (internvit_300m, qwen(1536, 8960, 28, 12, 2)),
            Preset::InternVl3_8b => (internvit_300m, qwen(3584, 18_944, 28, 28, 4)),
            Preset::InternVl3_14b => (internvit_300m, qwen(5120, 13_824, 48, 40, 8)),
            Preset::InternVl3_38b => (internvit_6b, qwen(5120, 27_648, 64, 40, 8)),
            Preset::InternVl3_78b => (internvit_6b, qwen(8192, 29_568, 80, 64, 8)),
        };
        let force_image_size = vision_config.image_size;
        Self {
            vision_config,
            llm_config,
            downsample_ratio: 0.5,
            force_image_size,
            max_dynamic_patch: if preset == Preset::Nano { 1 } else { 12 },
            use_thumbnail: true,
            image_token_id: None,
            layout: Layout::Original,
        }
    }
}
