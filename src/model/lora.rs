//! Low-rank adapters: target layers, PEFT's files, and merging.

use std::path::Path;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::error::ModelError;
use super::files::{read_tensors, write_safetensors};
use super::layout::Layout;
use super::linear::LoraScale;
use super::weights::Weights;

/// A LoRA adapter's settings, by PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Probability of zeroing an input of `A` in training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The layers that get an adapter.
    pub target_modules: TargetModules,
    /// The scale is `alpha / sqrt(r)` (Kalajdzievski 2023, arXiv:2312.03732) instead of
    /// `alpha / r`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Modules that were trained whole and are saved with the adapter, by the last parts of their
    /// names.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
}

/// The layers that get an adapter, as in PEFT's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// A regular expression for a layer's whole name, or `all-linear`: every linear layer of the
    /// language model except its head.
    Pattern(String),
    /// Last parts of the names of layers: `q_proj`, `mlp.up_proj`, ...; of the language model's
    /// if it has such.
    Names(Vec<String>),
}

impl TargetModules {
    const ALL_LINEAR: &str = "all-linear";

    /// The layers among `layers` that the settings name, and the problems of the settings.
    fn among<'a>(&self, layers: &[&'a str], layout: Layout) -> (Vec<&'a str>, Vec<String>) {
        match self {
            Self::Pattern(all) if all == Self::ALL_LINEAR => {
                let is_inner = |layer: &&&str| layer.starts_with("language_model.model.layers.");
                (layers.iter().filter(is_inner).copied().collect(), Vec::new())
            }
            Self::Pattern(pattern) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => {
                    let found: Vec<&str> =
                        layers.iter().copied().filter(|layer| regex.is_match(&layout.peft_name(layer))).collect();
                    let problem = found.is_empty().then(|| format!("no linear layer's name matches {pattern}"));
                    (found, problem.into_iter().collect())
                }
                Err(error) => (Vec::new(), vec![format!("{pattern} is no regular expression: {error}")]),
            },
            Self::Names(targets) => {
                // A name that both transformers have means the language model's layers.
                let (language, others): (Vec<&str>, Vec<&str>) =
                    layers.iter().copied().partition(|layer| layer.starts_with("language_model."));
                let (mut found, mut problems) = (Vec::new(), Vec::new());
                for target in targets {
                    let named = |among: &[&'a str]| -> Vec<&'a str> {
                        among.iter().copied().filter(|layer| is_named(layer, target)).collect()
                    };
                    match (named(&language), named(&others)) {
                        (inner, _) if !inner.is_empty() => found.extend(inner),
                        (_, outer) if !outer.is_empty() => found.extend(outer),
                        _ => problems.push(format!("no linear layer is named {target}")),
                    }
                }
                found.sort_unstable();
                found.dedup();
                (found, problems)
            }
        }
    }
}

/// Targets for PEFT around the whole model that name the same layers: there the vision transformer
/// also has layers of these names.
fn of_language_model(targets: &TargetModules) -> TargetModules {
    let names = match targets {
        TargetModules::Pattern(all) if all == TargetModules::ALL_LINEAR => r"\w+_proj".to_owned(),
        TargetModules::Pattern(pattern) => return TargetModules::Pattern(pattern.clone()),
        TargetModules::Names(names) => names.iter().map(|name| regex::escape(name)).collect::<Vec<_>>().join("|"),
    };
    TargetModules::Pattern(format!(r"model\.language_model\.layers\..*\.({names})"))
}

/// Whether this is the name of an adapter's tensor.
pub fn is_adapter(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}

/// Whether `target` is the name of this layer, or its last parts.
fn is_named(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Errors for PEFT settings that change what an adapter computes and for which one value is
/// supported.
fn unsupported(config: &Value) -> Vec<String> {
    [
        ("peft_type", json!("LORA")),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("lora_bias", json!(false)),
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
        let r = self.r as f64;
        let divisor = if self.use_rslora { r.sqrt() } else { r };
        LoraScale { scale: self.lora_alpha / divisor, dropout: self.lora_dropout }
    }

    /// Adds a pair of fp32 tensors for every target layer: `A` uniform as in PEFT (Kaiming, a =
    /// sqrt 5), `B` zero.
    pub(super) fn add_to(&self, weights: &mut Weights, layout: Layout, seed: i64) -> Result<(), ModelError> {
        tch::manual_seed(seed);
        let is_linear = |name: &str, tensor: &Tensor| tensor.dim() == 2 && !name.ends_with(".embed_tokens.weight");
        let linear: Vec<&str> = weights
            .iter()
            .filter(|(name, tensor)| is_linear(name, tensor) && !is_adapter(name))
            .filter_map(|(name, _)| name.strip_suffix(".weight"))
            .collect();
        let (layers, problems) = self.target_modules.among(&linear, layout);
        if !problems.is_empty() {
            let expected = "the adapter's target_modules".into();
            return Err(ModelError::Weights { path: "lora.target_modules".into(), expected, problems });
        }
        let layers: Vec<String> = layers.into_iter().map(str::to_owned).collect();
        for layer in layers {
            let weight = weights.get(&format!("{layer}.weight"));
            let (rows, columns) = weight.size2()?;
            let bound = 1.0 / (columns as f64).sqrt();
            let a = (Tensor::rand([self.r, columns], (Kind::Float, tch::Device::Cpu)) * 2.0 - 1.0) * bound;
            let b = Tensor::zeros([rows, self.r], (Kind::Float, weight.device()));
            weights.insert(format!("{layer}.lora_A.weight"), a.to_device(weight.device()));
            weights.insert(format!("{layer}.lora_B.weight"), b);
        }
        Ok(())
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors`. Keys are matched by the part
    /// after PEFT's prefix, so it does not matter which module was wrapped. Modules that were saved
    /// whole replace those of the base.
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
        if config.r < 1 || !(0.0..=1.0).contains(&config.lora_dropout) {
            let (r, dropout) = (config.r, config.lora_dropout);
            return Err(invalid(format!("r = {r}, lora_dropout = {dropout}: expected at least 1, and 0 to 1")));
        }
        let path = directory.join("adapter_model.safetensors");
        let saved = read_tensors(&path)?;
        let mut problems = Vec::new();
        let mut matched = Vec::new();
        for (name, tensor) in saved {
            let Some((own, base)) = own_name(weights, &name).filter(|(own, _)| config.may_hold(own)) else {
                problems.push(format!("no layer for: {name} {:?}", tensor.size()));
                continue;
            };
            let expected = match base.size().as_slice() {
                [_, columns] if own.ends_with("lora_A.weight") => vec![config.r, *columns],
                [rows, _] if own.ends_with("lora_B.weight") => vec![*rows, config.r],
                whole => whole.to_vec(),
            };
            if tensor.size() != expected {
                problems.push(format!("shape: {name} expected {expected:?}, got {:?}", tensor.size()));
            }
            let kind = if is_adapter(&own) { Kind::Float } else { base.kind() };
            matched.push((own, tensor.to_device(base.device()).to_kind(kind)));
        }
        for (own, _) in matched.iter().filter(|(own, _)| is_adapter(own)) {
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

    /// Whether the file may hold this tensor: part of an adapter, or of a module that is saved
    /// whole.
    fn may_hold(&self, own: &str) -> bool {
        is_adapter(own) || self.is_saved_whole(own)
    }

    fn is_saved_whole(&self, own: &str) -> bool {
        let module = |name: &str| name.rsplit_once('.').map_or(name, |(module, _)| module).to_owned();
        let names = [module(own), module(&Layout::Hf.peft_name(own))];
        let saved = || self.modules_to_save.iter().flatten();
        names.iter().any(|module| saved().any(|name| is_named(module, name)))
    }

    /// Writes both files. If the layout is the original one and only the language model has
    /// adapters, the names are those of PEFT around the language model, as InternVL's own
    /// fine-tuning script writes them. Otherwise they are those of PEFT around the whole model.
    pub(super) fn save(
        &self,
        weights: &Weights,
        layout: Layout,
        directory: &Path,
        base_model: &str,
    ) -> Result<(), ModelError> {
        let held: Vec<_> = weights.iter().filter(|(name, _)| self.may_hold(name)).collect();
        let is_language_only = held.iter().all(|(name, _)| name.starts_with("language_model."));
        let key = |name: &str| match layout {
            Layout::Original if !is_language_only => format!("base_model.model.{name}"),
            _ => format!("base_model.model.{}", layout.peft_name(name)),
        };
        let target_modules = match layout {
            Layout::Hf if is_language_only => of_language_model(&self.target_modules),
            _ => self.target_modules.clone(),
        };
        let names: Vec<String> = held.iter().map(|(name, _)| key(name)).collect();
        let tensors = names.iter().map(String::as_str).zip(held.iter().map(|(_, tensor)| *tensor));
        write_safetensors(&directory.join("adapter_model.safetensors"), tensors)?;
        let json = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.r,
            "lora_alpha": self.lora_alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": target_modules,
            "use_rslora": self.use_rslora,
            "modules_to_save": self.modules_to_save,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        });
        let path = directory.join("adapter_config.json");
        std::fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Write { path, source })
    }

    /// Adds every adapter to the weights of its layer, `W + scale B A` in fp32, and removes it.
    pub(super) fn merge_into(&self, weights: &mut Weights) {
        let LoraScale { scale, .. } = self.scale();
        let adapted: Vec<String> =
            weights.iter().filter_map(|(name, _)| name.strip_suffix(".lora_A.weight")).map(str::to_owned).collect();
        tch::no_grad(|| {
            for layer in adapted {
                let [a, b] = ["lora_A", "lora_B"].map(|part| weights.remove(&format!("{layer}.{part}.weight")));
                let name = format!("{layer}.weight");
                let weight = weights.get(&name);
                if let (Some(a), Some(b)) = (a, b) {
                    let merged = weight.to_kind(Kind::Float) + b.matmul(&a) * scale;
                    weights.insert(name, merged.to_kind(weight.kind()));
                }
            }
        });
    }
}

/// This crate's name for a PEFT key, and the base's weight that it adapts or replaces.
fn own_name(weights: &Weights, key: &str) -> Option<(String, Tensor)> {
    let inner = key.strip_prefix("base_model.model.")?;
    let adapter = [".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_B.default.weight"]
        .iter()
        .find_map(|suffix| Some((inner.strip_suffix(suffix)?, suffix.replace(".default", ""))));
    // An adapter belongs to the weight of its layer; any other key is the name of a tensor.
    let (base, part) = match &adapter {
        Some((layer, part)) => (format!("{layer}.weight"), part.as_str()),
        None => (inner.to_owned(), ""),
    };
    let candidates = [
        base.clone(),
        // PEFT around a model of the `Hf` layout, around the language model, or around the bare
        // decoder.
        Layout::Hf.own_name(&base),
        format!("language_model.{base}"),
        format!("language_model.model.{base}"),
        base.replacen("language_model.", "language_model.model.", 1),
    ];
    candidates.into_iter().find_map(|name| {
        let weight = weights.find(&name)?;
        match name.strip_suffix(".weight") {
            Some(layer) if !part.is_empty() => (weight.dim() == 2).then(|| (format!("{layer}{part}"), weight)),
            _ => Some((name, weight)),
        }
    })
}
