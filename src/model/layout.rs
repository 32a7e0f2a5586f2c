//! The two layouts of InternVL3 checkpoints, and the tensor names in each.
//!
//! `Original` is the layout of `OpenGVLab/InternVL3-*` (`InternVLChatModel`). `Hf` is that of
//! `OpenGVLab/InternVL3-*-hf` (`InternVLForConditionalGeneration` of `transformers`). It has two
//! spellings: `language_model.model.layers...` in files, `model.language_model.layers...` in
//! memory. This crate uses the names of the original layout for every tensor, with one exception:
//! the `Hf` layout has separate queries, keys and values in the vision transformer,
//! `attn.{q,k,v}_proj` for `attn.qkv`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::config::InternVlConfig;

/// The layout of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `InternVLChatModel`.
    #[default]
    Original,
    /// `InternVLForConditionalGeneration`.
    Hf,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|layout| layout.name() == name);
        found.ok_or_else(|| format!("unknown layout {name:?}; known are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 2] = [Self::Original, Self::Hf];

    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Hf => "hf",
        }
    }

    /// The name, in files of this layout, of the tensor that this crate calls `name`.
    pub fn file_name(self, name: &str) -> String {
        match self {
            Self::Original => name.to_owned(),
            Self::Hf => renamed(name, |(original, hf)| (original, hf)),
        }
    }

    /// This crate's name of the tensor that files of this layout call `name`, in either spelling.
    pub fn own_name(self, name: &str) -> String {
        match self {
            Self::Original => name.to_owned(),
            Self::Hf => {
                let inner = match name.strip_prefix("model.") {
                    Some(inner) => match inner.strip_prefix("language_model.") {
                        Some(decoder) => format!("language_model.model.{decoder}"),
                        None => inner.to_owned(),
                    },
                    None if name.starts_with("lm_head.") => format!("language_model.{name}"),
                    None => name.to_owned(),
                };
                renamed(&inner, |(original, hf)| (hf, original))
            }
        }
    }

    /// PEFT's name of the module `name`. PEFT is taken to wrap only the language model (`Original`,
    /// as in InternVL's own fine-tuning), or the whole model (`Hf`).
    pub fn peft_name(self, name: &str) -> String {
        match (self, name.strip_prefix("language_model.")) {
            (Self::Original, inner) => inner.unwrap_or(name).to_owned(),
            (Self::Hf, Some(inner)) => match inner.strip_prefix("model.") {
                Some(decoder) => format!("model.language_model.{decoder}"),
                None => inner.to_owned(),
            },
            (Self::Hf, None) => format!("model.{}", self.file_name(name)),
        }
    }
}

/// Prefixes of names: the original's, and those of `transformers`.
const PREFIXES: [(&str, &str); 9] = [
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    ("vision_model.encoder.layers.", "vision_tower.encoder.layer."),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
    ("language_model.model.", "language_model.model."),
    ("language_model.lm_head.", "language_model.lm_head."),
];

/// The same for names within a block of the vision transformer.
const IN_VISION_BLOCKS: [(&str, &str); 11] = [
    (".attn.q_proj.", ".attention.q_proj."),
    (".attn.k_proj.", ".attention.k_proj."),
    (".attn.v_proj.", ".attention.v_proj."),
    (".attn.q_norm.", ".attention.q_norm."),
    (".attn.k_norm.", ".attention.k_norm."),
    (".attn.proj.", ".attention.projection_layer."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
    (".mlp.", ".mlp."),
];

/// Replaces a name's prefix by the tables; `direction` chooses the direction of the replacement.
/// Names that are in no table stay.
fn renamed(name: &str, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) -> String {
    let prefix = PREFIXES.into_iter().map(&direction).find_map(|(from, to)| Some((name.strip_prefix(from)?, to)));
    let Some((rest, to)) = prefix else { return name.to_owned() };
    let is_block = to.ends_with(".layers.") || to.ends_with(".layer.");
    let part = IN_VISION_BLOCKS.into_iter().map(direction).find(|(from, _)| is_block && rest.contains(from));
    match part {
        Some((from, new)) => format!("{to}{}", rest.replacen(from, new, 1)),
        None => format!("{to}{rest}"),
    }
}

/// Converts the `config.json` of an `Hf` checkpoint to the original layout.
pub fn original_json(hf: &Value) -> Value {
    // Sizes are pairs in this layout.
    let side = |value: &Value| value.get(0).unwrap_or(value).clone();
    let vision = &hf["vision_config"];
    let mut translated = json!({
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": hf["downsample_ratio"],
        "force_image_size": side(&vision["image_size"]),
        "image_token_id": hf["image_token_id"],
        "llm_config": hf["text_config"],
        "vision_config": vision,
        // In this layout the processor's file has this value; it is the same in all of InternVL3's.
        "max_dynamic_patch": 12,
        "use_thumbnail": true,
    });
    let target = &mut translated["vision_config"];
    if target.is_object() {
        target["image_size"] = side(&vision["image_size"]);
        target["patch_size"] = side(&vision["patch_size"]);
        target["qkv_bias"] = vision["attention_bias"].as_bool().unwrap_or(false).into();
        target["qk_normalization"] = vision["use_qk_norm"].as_bool().unwrap_or(false).into();
    }
    translated
}

/// The `config.json` of an `Hf` checkpoint.
pub fn hf_json(config: &InternVlConfig, dtype: &str) -> Value {
    let (vision, language) = (&config.vision_config, &config.llm_config);
    let mut text = serde_json::to_value(language).unwrap_or_default();
    text["model_type"] = json!("qwen2");
    text["architectures"] = json!(["Qwen2ForCausalLM"]);
    text["hidden_act"] = json!("silu");
    text["use_sliding_window"] = json!(false);
    let mut json = json!({
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "dtype": dtype,
        "downsample_ratio": config.downsample_ratio,
        "image_seq_length": config.tokens_per_tile(),
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": language.tie_word_embeddings,
        "text_config": text,
        "vision_config": {
            "model_type": "internvl_vision",
            "architectures": ["InternVLVisionModel"],
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_attention_heads": vision.num_attention_heads,
            "num_hidden_layers": vision.num_hidden_layers,
            "image_size": [vision.image_size, vision.image_size],
            "patch_size": [vision.patch_size, vision.patch_size],
            "layer_norm_eps": vision.layer_norm_eps,
            "norm_type": vision.norm_type,
            "attention_bias": vision.qkv_bias,
            "use_qk_norm": vision.qk_normalization,
            "hidden_act": "gelu",
            "use_absolute_position_embeddings": true,
            "use_mask_token": false,
            "use_mean_pooling": true,
        },
    });
    if let Some(id) = config.image_token_id {
        json["image_token_id"] = id.into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_of_memory_are_ours() {
        for (own, file, memory) in [
            (
                "vision_model.encoder.layers.3.attn.q_proj.weight",
                "vision_tower.encoder.layer.3.attention.q_proj.weight",
                "model.vision_tower.encoder.layer.3.attention.q_proj.weight",
            ),
            (
                "vision_model.encoder.layers.0.ls2",
                "vision_tower.encoder.layer.0.lambda_2",
                "model.vision_tower.encoder.layer.0.lambda_2",
            ),
            (
                "vision_model.encoder.layers.11.mlp.fc1.bias",
                "vision_tower.encoder.layer.11.mlp.fc1.bias",
                "model.vision_tower.encoder.layer.11.mlp.fc1.bias",
            ),
            (
                "vision_model.embeddings.class_embedding",
                "vision_tower.embeddings.cls_token",
                "model.vision_tower.embeddings.cls_token",
            ),
            (
                "vision_model.embeddings.patch_embedding.bias",
                "vision_tower.embeddings.patch_embeddings.projection.bias",
                "model.vision_tower.embeddings.patch_embeddings.projection.bias",
            ),
            ("mlp1.3.weight", "multi_modal_projector.linear_2.weight", "model.multi_modal_projector.linear_2.weight"),
            (
                "language_model.model.layers.7.mlp.up_proj.weight",
                "language_model.model.layers.7.mlp.up_proj.weight",
                "model.language_model.layers.7.mlp.up_proj.weight",
            ),
            ("language_model.lm_head.weight", "language_model.lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(Layout::Hf.file_name(own), file);
            assert_eq!(Layout::Hf.own_name(file), own);
            assert_eq!(Layout::Hf.own_name(memory), own);
            assert_eq!(Layout::Hf.peft_name(own), memory);
        }
        assert_eq!(Layout::Original.peft_name("language_model.model.norm.weight"), "model.norm.weight");
    }
}
