//! The architecture of an InternVL3 checkpoint, as in its Hugging Face `config.json`, and named
//! presets.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ModelError;
use super::layout::{self, Layout};

/// InternVL3: a vision transformer, a projector and a Qwen2.5 decoder (Zhu et al. 2025,
/// arXiv:2504.10479).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InternVlConfig {
    /// The vision transformer.
    pub vision_config: VisionConfig,
    /// The decoder.
    pub llm_config: LanguageConfig,
    /// Pixel shuffle: 0.5 turns 2 x 2 patch embeddings into one token.
    pub downsample_ratio: f64,
    /// Side of a tile in pixels.
    pub force_image_size: i64,
    /// The maximum number of tiles of an image, without the thumbnail.
    #[serde(default = "default_max_tiles")]
    pub max_dynamic_patch: usize,
    /// Whether an image of several tiles gets a thumbnail of the whole image.
    #[serde(default)]
    pub use_thumbnail: bool,
    /// Id of `<IMG_CONTEXT>`, if the file has it. The tokenizer has it too, and is
    /// asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_token_id: Option<i64>,
    /// The layout of its files.
    #[serde(skip)]
    pub layout: Layout,
}

fn default_max_tiles() -> usize {
    12
}

/// InternViT: 300M (LayerNorm) in models of up to 14B, 6B (RMSNorm, norms on queries and keys) in
/// larger ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: i64,
    /// Width of the MLP's inner layer.
    pub intermediate_size: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Side of the image of the position embeddings, in pixels.
    pub image_size: i64,
    /// Epsilon of the norms.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// `layer_norm` or `rms_norm`.
    #[serde(default = "default_norm_type")]
    pub norm_type: String,
    /// Whether queries and keys have RMS norms, over all heads together.
    #[serde(default)]
    pub qk_normalization: bool,
    /// Whether the fused qkv projection has a bias.
    #[serde(default = "default_true")]
    pub qkv_bias: bool,
}

fn default_layer_norm_eps() -> f64 {
    1e-6
}

fn default_norm_type() -> String {
    "layer_norm".into()
}

fn default_true() -> bool {
    true
}

/// Qwen2.5 (Qwen team 2024, arXiv:2412.15115).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanguageConfig {
    /// Tokens in the embedding, special tokens included.
    pub vocab_size: i64,
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width of the SwiGLU's inner layer.
    pub intermediate_size: i64,
    /// Decoder blocks.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads (grouped-query attention).
    pub num_key_value_heads: i64,
    /// Width of a head; `hidden_size / num_attention_heads` if the file does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<i64>,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_position_embeddings: i64,
    /// InternVL3 has `dynamic`, which changes nothing up to `max_position_embeddings`. Other kinds
    /// are not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Value>,
    /// Whether the output head shares the weights of the input embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

impl LanguageConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> i64 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

impl InternVlConfig {
    /// Reads `config.json` of a checkpoint directory.
    ///
    /// # Errors
    /// A missing or malformed file, a missing field, or an architecture that is not supported, by
    /// name.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        Self::read_file(&directory.join("config.json"))
    }

    /// Reads a `config.json` of either layout.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_file(path: &Path) -> Result<Self, ModelError> {
        let path = path.to_owned();
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let invalid = |reason: String| ModelError::Config { path: path.clone(), reason };
        let value: Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        let of_model =
            value["architectures"][0].as_str().or(value["model_type"].as_str()).unwrap_or("(none)").to_owned();
        let (layout, decoder) = match of_model.as_str() {
            "InternVLChatModel" => (Layout::Original, &value["llm_config"]),
            "InternVLForConditionalGeneration" | "internvl" => (Layout::Hf, &value["text_config"]),
            _ => return Err(ModelError::Architecture { path, architecture: of_model }),
        };
        let decoder = decoder["architectures"][0].as_str().or(decoder["model_type"].as_str());
        if let Some(decoder) = decoder.filter(|name| !["Qwen2ForCausalLM", "qwen2"].contains(name)) {
            return Err(ModelError::Architecture { path, architecture: format!("{of_model} over {decoder}") });
        }
        let mut reasons = unsupported(&value);
        let value = if layout == Layout::Hf { layout::original_json(&value) } else { value };
        let config: Self = serde_json::from_value(value).map_err(|error| {
            // Errors name fields as in the original layout.
            let section = if layout == Layout::Hf { " (llm_config is text_config in this file)" } else { "" };
            invalid(format!("{error}{section}"))
        })?;
        let config = Self { layout, ..config };
        // The checks after that of the sizes divide by them.
        let sizes = config.impossible_sizes();
        reasons.extend(if sizes.is_empty() { config.contradictions() } else { sizes });
        if reasons.is_empty() { Ok(config) } else { Err(invalid(reasons.join("; "))) }
    }

    /// Errors for sizes that no model has, such as 0, or one that overflows when it is multiplied.
    fn impossible_sizes(&self) -> Vec<String> {
        let (vision, language) = (&self.vision_config, &self.llm_config);
        let (layers, width) = (1000, 1 << 24);
        let head_dim = language.head_dim.map(|size| ("llm_config.head_dim", size, width));
        [
            ("vision_config.hidden_size", vision.hidden_size, width),
            ("vision_config.intermediate_size", vision.intermediate_size, width),
            ("vision_config.num_attention_heads", vision.num_attention_heads, width),
            ("vision_config.num_hidden_layers", vision.num_hidden_layers, layers),
            ("vision_config.patch_size", vision.patch_size, width),
            ("vision_config.image_size", vision.image_size, width),
            ("llm_config.vocab_size", language.vocab_size, 1 << 32),
            ("llm_config.hidden_size", language.hidden_size, width),
            ("llm_config.intermediate_size", language.intermediate_size, width),
            ("llm_config.num_hidden_layers", language.num_hidden_layers, layers),
            ("llm_config.num_attention_heads", language.num_attention_heads, width),
            ("llm_config.num_key_value_heads", language.num_key_value_heads, width),
            ("llm_config.max_position_embeddings", language.max_position_embeddings, 1 << 32),
            ("max_dynamic_patch", i64::try_from(self.max_dynamic_patch).unwrap_or(i64::MAX), 1000),
        ]
        .into_iter()
        .chain(head_dim)
        .filter(|(_, size, most)| !(1..=*most).contains(size))
        .map(|(field, size, most)| format!("{field} = {size}: expected 1 to {most}"))
        .collect()
    }

    fn contradictions(&self) -> Vec<String> {
        let (vision, language) = (&self.vision_config, &self.llm_config);
        let mut reasons = Vec::new();
        if !["layer_norm", "rms_norm"].contains(&vision.norm_type.as_str()) {
            let norm = &vision.norm_type;
            reasons.push(format!("vision_config.norm_type = {norm:?}: supported are \"layer_norm\" and \"rms_norm\""));
        }
        if vision.hidden_size % vision.num_attention_heads != 0 {
            reasons.push(format!(
                "vision_config.hidden_size = {} is not a multiple of num_attention_heads = {}",
                vision.hidden_size, vision.num_attention_heads
            ));
        }
        if vision.image_size % vision.patch_size != 0 || (vision.image_size / vision.patch_size) % 2 != 0 {
            reasons.push(format!(
                "vision_config.image_size = {} must be an even number of patches of {} pixels",
                vision.image_size, vision.patch_size
            ));
        }
        if self.force_image_size != vision.image_size {
            reasons.push(format!(
                "force_image_size = {} differs from vision_config.image_size = {}",
                self.force_image_size, vision.image_size
            ));
        }
        if self.downsample_ratio != 0.5 {
            reasons.push(format!("downsample_ratio = {}: only 0.5 is supported", self.downsample_ratio));
        }
        if language.num_attention_heads % language.num_key_value_heads != 0 {
            reasons.push(format!(
                "llm_config.num_attention_heads = {} is not a multiple of num_key_value_heads = {}",
                language.num_attention_heads, language.num_key_value_heads
            ));
        }
        let heads = language.num_attention_heads;
        if language.head_dim.is_none() && language.hidden_size % heads != 0 {
            reasons.push(format!(
                "llm_config.hidden_size = {} is not a multiple of num_attention_heads = {heads}",
                language.hidden_size
            ));
        } else if language.head_dim() % 2 != 0 {
            // Rotary embeddings turn pairs.
            reasons.push(format!("llm_config: a head has {} numbers; expected an even number", language.head_dim()));
        }
        if let Some(scaling) = &language.rope_scaling {
            let kind = [&scaling["rope_type"], &scaling["type"]].into_iter().find_map(Value::as_str);
            if !matches!(kind, None | Some("default" | "dynamic")) {
                reasons.push(format!("llm_config.rope_scaling = {scaling}: only \"dynamic\" is supported"));
            }
        }
        reasons
    }

    /// Image tokens of one tile: 256 at 448 pixels, 16 at 112.
    pub fn tokens_per_tile(&self) -> usize {
        let side = self.vision_config.image_size / self.vision_config.patch_size / 2;
        (side * side) as usize
    }

    /// The content of `config.json` for weights of this dtype, in this model's layout.
    pub fn to_json(&self, dtype: &str) -> Value {
        if self.layout == Layout::Hf {
            return layout::hf_json(self, dtype);
        }
        let mut json = json!({
            "architectures": ["InternVLChatModel"],
            "model_type": "internvl_chat",
            "torch_dtype": dtype,
            "dynamic_image_size": true,
            "min_dynamic_patch": 1,
            "ps_version": "v2",
            "select_layer": -1,
            "template": "internvl2_5",
        });
        let fields = serde_json::to_value(self).unwrap_or(Value::Object(Map::new()));
        if let (Value::Object(all), Value::Object(fields)) = (&mut json, fields) {
            all.extend(fields);
        }
        json["llm_config"]["architectures"] = json!(["Qwen2ForCausalLM"]);
        json["llm_config"]["model_type"] = json!("qwen2");
        json["vision_config"]["model_type"] = json!("intern_vit_6b");
        json
    }

    /// Every parameter of the model, with the name that [`Layout`] gives it.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = Vec::new();
        let mut add = |name: String, shape: &[i64], init: Init| {
            list.push(Parameter { name, shape: shape.to_vec(), init });
        };
        let VisionConfig { hidden_size: width, intermediate_size: inner, num_hidden_layers, patch_size, .. } =
            self.vision_config;
        let patches = (self.vision_config.image_size / patch_size).pow(2);
        add("vision_model.embeddings.class_embedding".into(), &[1, 1, width], Init::Normal(0.02));
        add("vision_model.embeddings.position_embedding".into(), &[1, patches + 1, width], Init::Normal(0.02));
        add("vision_model.embeddings.patch_embedding.weight".into(), &[width, 3, patch_size, patch_size], Init::FanIn);
        add("vision_model.embeddings.patch_embedding.bias".into(), &[width], Init::Zeros);
        for layer in 0..num_hidden_layers {
            let p = format!("vision_model.encoder.layers.{layer}");
            let projections: &[(&str, i64)] = match self.layout {
                Layout::Original => &[("qkv", 3)],
                Layout::Hf => &[("q_proj", 1), ("k_proj", 1), ("v_proj", 1)],
            };
            for (name, parts) in projections {
                add(format!("{p}.attn.{name}.weight"), &[parts * width, width], Init::FanIn);
                if self.vision_config.qkv_bias {
                    add(format!("{p}.attn.{name}.bias"), &[parts * width], Init::Zeros);
                }
            }
            if self.vision_config.qk_normalization {
                add(format!("{p}.attn.q_norm.weight"), &[width], Init::Ones);
                add(format!("{p}.attn.k_norm.weight"), &[width], Init::Ones);
            }
            add(format!("{p}.attn.proj.weight"), &[width, width], Init::FanIn);
            add(format!("{p}.attn.proj.bias"), &[width], Init::Zeros);
            for norm in ["norm1", "norm2"] {
                add(format!("{p}.{norm}.weight"), &[width], Init::Ones);
                if self.vision_config.norm_type == "layer_norm" {
                    add(format!("{p}.{norm}.bias"), &[width], Init::Zeros);
                }
            }
            for scale in ["ls1", "ls2"] {
                add(format!("{p}.{scale}"), &[width], Init::LayerScale { layers: num_hidden_layers });
            }
            add(format!("{p}.mlp.fc1.weight"), &[inner, width], Init::FanIn);
            add(format!("{p}.mlp.fc1.bias"), &[inner], Init::Zeros);
            add(format!("{p}.mlp.fc2.weight"), &[width, inner], Init::FanIn);
            add(format!("{p}.mlp.fc2.bias"), &[width], Init::Zeros);
        }
        let language = &self.llm_config;
        let (hidden, inner, head_dim) = (language.hidden_size, language.intermediate_size, language.head_dim());
        add("mlp1.0.weight".into(), &[4 * width], Init::Ones);
        add("mlp1.0.bias".into(), &[4 * width], Init::Zeros);
        add("mlp1.1.weight".into(), &[hidden, 4 * width], Init::FanIn);
        add("mlp1.1.bias".into(), &[hidden], Init::Zeros);
        add("mlp1.3.weight".into(), &[hidden, hidden], Init::FanIn);
        add("mlp1.3.bias".into(), &[hidden], Init::Zeros);
        add("language_model.model.embed_tokens.weight".into(), &[language.vocab_size, hidden], Init::Normal(0.02));
        let residual = Init::FanInScaled { divisor: 2 * language.num_hidden_layers };
        for layer in 0..language.num_hidden_layers {
            let p = format!("language_model.model.layers.{layer}");
            let (q, kv) = (language.num_attention_heads * head_dim, language.num_key_value_heads * head_dim);
            for (name, rows) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                add(format!("{p}.self_attn.{name}.weight"), &[rows, hidden], Init::FanIn);
                add(format!("{p}.self_attn.{name}.bias"), &[rows], Init::Zeros);
            }
            add(format!("{p}.self_attn.o_proj.weight"), &[hidden, q], residual);
            add(format!("{p}.mlp.gate_proj.weight"), &[inner, hidden], Init::FanIn);
            add(format!("{p}.mlp.up_proj.weight"), &[inner, hidden], Init::FanIn);
            add(format!("{p}.mlp.down_proj.weight"), &[hidden, inner], residual);
            add(format!("{p}.input_layernorm.weight"), &[hidden], Init::Ones);
            add(format!("{p}.post_attention_layernorm.weight"), &[hidden], Init::Ones);
        }
        add("language_model.model.norm.weight".into(), &[hidden], Init::Ones);
        if !language.tie_word_embeddings {
            add("language_model.lm_head.weight".into(), &[language.vocab_size, hidden], Init::Normal(0.02));
        }
        list
    }
}

/// Errors for fields that change what a model computes and for which one value is supported. The
/// fields may be absent.
fn unsupported(config: &Value) -> Vec<String> {
    [
        ("/ps_version", json!("v2")),
        ("/select_layer", json!(-1)),
        ("/vision_config/hidden_act", json!("gelu")),
        ("/llm_config/hidden_act", json!("silu")),
        ("/llm_config/use_sliding_window", json!(false)),
        ("/text_config/hidden_act", json!("silu")),
        ("/text_config/use_sliding_window", json!(false)),
        ("/projector_hidden_act", json!("gelu")),
        ("/vision_feature_layer", json!(-1)),
        ("/vision_feature_select_strategy", json!("default")),
        ("/vision_config/use_mean_pooling", json!(true)),
        ("/vision_config/use_absolute_position_embeddings", json!(true)),
        ("/vision_config/use_mask_token", json!(false)),
    ]
    .into_iter()
    .filter_map(|(field, supported)| {
        let found = config.pointer(field).filter(|found| !found.is_null() && **found != supported)?;
        Some(format!("{} = {found}: only {supported} is supported", field[1..].replace('/', ".")))
    })
    .collect()
}

/// One parameter: its name, its shape and its initialisation in a random model.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name, as in [`Layout`].
    pub name: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// Initialisation for training from scratch.
    pub init: Init,
}

/// The initialisation of a parameter in a random model.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// A Gaussian of this standard deviation.
    Normal(f64),
    /// A Gaussian of deviation `1 / sqrt(fan_in)`.
    FanIn,
    /// [`Init::FanIn`] divided by `sqrt(divisor)`: for projections into the residual stream (GPT-2,
    /// section 2.3).
    FanInScaled {
        /// Number of residual branches.
        divisor: i64,
    },
    /// `1 / sqrt(2 layers)` in each channel. InternViT starts at 0.1, which is slow in training
    /// from scratch.
    LayerScale {
        /// Number of blocks.
        layers: i64,
    },
}

/// The path of a file in a checkpoint directory.
pub(super) fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}
