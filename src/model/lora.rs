//! Low-rank adapters: which layers get one, and PEFT's files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::error::ModelError;
use super::linear::LoraScale;
use super::weights::{Weights, read_safetensors, write_safetensors};

/// A LoRA adapter's settings, by PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// Numerator of the scale `alpha / r`.
    pub lora_alpha: f64,
    /// Probability of zeroing an input of `A` in training.
    pub lora_dropout: f64,
    /// Last parts of the names of the layers that get an adapter: `q_proj`, `up_proj`, `attn.qkv`, ...
    pub target_modules: Vec<String>,
}

/// Whether this is the name of an adapter's tensor.
pub fn is_adapter(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}

/// Whether `target` is the name of this layer, or its last parts.
fn is_named(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Settings of PEFT that change what an adapter computes, with the one value that we compute.
fn unsupported(config: &Value) -> Vec<String> {
    [
        ("peft_type", json!("LORA")),
        ("use_rslora", json!(false)),
        ("use_dora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
    ]
    .into_iter()
    .filter(|(field, supported)| !config[field].is_null() && config[field] != *supported)
    .map(|(field, supported)| format!("{field} = {}: only {supported} is supported", config[field]))
    .collect()
}

impl LoraConfig {
    /// Scale and dropout of every adapter.
    pub fn scale(&self) -> LoraScale {
        LoraScale { scale: self.lora_alpha / self.r as f64, dropout: self.lora_dropout }
    }

    fn targets(&self, layer: &str) -> bool {
        self.target_modules.iter().any(|target| is_named(layer, target))
    }

    /// Adds a pair of fp32 tensors for every targeted layer: `A` uniform as PEFT draws it (Kaiming, a = sqrt 5), `B`
    /// zero.
    pub(super) fn add_to(&self, weights: &mut Weights, seed: i64) -> Result<(), ModelError> {
        tch::manual_seed(seed);
        let layers: Vec<(String, Vec<i64>, tch::Device)> = weights
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_suffix(".weight")?, tensor)))
            .filter(|(layer, tensor)| tensor.dim() == 2 && self.targets(layer))
            .map(|(layer, tensor)| (layer.to_owned(), tensor.size(), tensor.device()))
            .collect();
        let is_unused = |target: &&String| !layers.iter().any(|(layer, ..)| is_named(layer, target));
        let unused: Vec<String> = self
            .target_modules
            .iter()
            .filter(is_unused)
            .map(|name| format!("no linear layer is named {name}"))
            .collect();
        if !unused.is_empty() {
            let expected = "the adapter's target_modules".into();
            return Err(ModelError::Weights { path: "lora.target_modules".into(), expected, problems: unused });
        }
        for (layer, shape, device) in layers {
            let (rows, columns) = (shape[0], shape[1]);
            let bound = 1.0 / (columns as f64).sqrt();
            let a = (Tensor::rand([self.r, columns], (Kind::Float, tch::Device::Cpu)) * 2.0 - 1.0) * bound;
            weights.insert(format!("{layer}.lora_A.weight"), a.to_device(device));
            weights.insert(format!("{layer}.lora_B.weight"), Tensor::zeros([rows, self.r], (Kind::Float, device)));
        }
        Ok(())
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors`. A key is matched by what follows PEFT's prefix,
    /// whichever module was wrapped.
    pub(super) fn load_into(weights: &mut Weights, directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let invalid = |reason: String| ModelError::Config { path: path.clone(), reason };
        let json: Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        let reasons = unsupported(&json);
        if !reasons.is_empty() {
            return Err(invalid(reasons.join("; ")));
        }
        let config: Self = serde_json::from_value(json).map_err(|error| invalid(error.to_string()))?;
        let path = directory.join("adapter_model.safetensors");
        let mut saved = BTreeMap::new();
        read_safetensors(&path, |name, tensor| {
            saved.insert(name.to_owned(), tensor);
        })?;
        let mut problems = Vec::new();
        let mut matched = Vec::new();
        for (name, tensor) in saved {
            match own_name(weights, &name) {
                Some((own, layer)) => {
                    let (rows, columns) = layer.size2()?;
                    let expected = if own.ends_with("lora_A.weight") { [config.r, columns] } else { [rows, config.r] };
                    if tensor.size() != expected {
                        problems.push(format!("shape: {name} expected {expected:?}, got {:?}", tensor.size()));
                    }
                    matched.push((own, tensor.to_device(layer.device()).to_kind(Kind::Float)));
                }
                None => problems.push(format!("no layer for: {name} {:?}", tensor.size())),
            }
        }
        for (own, _) in &matched {
            let partner = match own.strip_suffix("lora_A.weight") {
                Some(layer) => format!("{layer}lora_B.weight"),
                None => own.replace("lora_B.weight", "lora_A.weight"),
            };
            if !matched.iter().any(|(name, _)| *name == partner) {
                problems.push(format!("missing: {partner}"));
            }
        }
        if matched.is_empty() && problems.is_empty() {
            problems.push("no adapter tensors in the file".into());
        }
        if !problems.is_empty() {
            return Err(ModelError::Weights { path, expected: "the base model".into(), problems });
        }
        for (own, tensor) in matched {
            weights.insert(own, tensor);
        }
        Ok(config)
    }

    /// Writes both files. Where only the language model has adapters, names are those of PEFT around the language model
    /// alone, as InternVL's own fine-tuning script writes them.
    pub(super) fn save(&self, weights: &Weights, directory: &Path, base_model: &str) -> Result<(), ModelError> {
        let adapters: Vec<_> = weights.iter().filter(|(name, _)| is_adapter(name)).collect();
        let is_language_only = adapters.iter().all(|(name, _)| name.starts_with("language_model."));
        let names: Vec<String> = adapters
            .iter()
            .map(|(name, _)| {
                let inner = if is_language_only { name.trim_start_matches("language_model.") } else { name };
                format!("base_model.model.{inner}")
            })
            .collect();
        let tensors = names.iter().map(String::as_str).zip(adapters.iter().map(|(_, tensor)| *tensor));
        write_safetensors(&directory.join("adapter_model.safetensors"), tensors)?;
        let json = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.r,
            "lora_alpha": self.lora_alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": self.target_modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        let path = directory.join("adapter_config.json");
        std::fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Write { path, source })
    }
}

/// Our name for a PEFT key, with the weight of the layer that it adapts.
fn own_name(weights: &Weights, key: &str) -> Option<(String, Tensor)> {
    let (layer, part) = [".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_B.default.weight"]
        .iter()
        .find_map(|suffix| Some((key.strip_suffix(suffix)?, suffix.replace(".default", ""))))?;
    let layer = layer.strip_prefix("base_model.model.")?;
    let bare = layer.strip_prefix("model.").unwrap_or(layer);
    let candidates = [
        layer.to_owned(),
        bare.to_owned(),
        format!("language_model.{layer}"),
        format!("language_model.model.{layer}"),
        bare.replacen("language_model.", "language_model.model.", 1),
    ];
    candidates.into_iter().find_map(|layer| {
        let weight = weights.find(&format!("{layer}.weight"))?;
        (weight.dim() == 2).then(|| (format!("{layer}{part}"), weight))
    })
}
