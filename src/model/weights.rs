//! The model's tensors by name: reads, initialises, copies and writes them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::config::{Init, InternVlConfig, Parameter};
use super::error::ModelError;
use super::files::{headers, read_safetensors, shards, write_safetensors};
use super::layout::Layout;
use super::lora::is_adapter;

/// Tensors by name. Modules hold shallow clones of them, so both see an optimiser's in-place step.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// No tensors.
    pub fn empty() -> Self {
        Self { tensors: BTreeMap::new() }
    }

    /// Random parameters of a new model, in `kind` on `device`. The same
    /// seed gives the same values on every device: they are drawn on the CPU in fp32.
    pub fn random(config: &InternVlConfig, seed: i64, kind: Kind, device: Device) -> Self {
        tch::manual_seed(seed);
        let draw = |parameter: &Parameter| {
            let shape = parameter.shape.as_slice();
            let fp32 = (Kind::Float, Device::Cpu);
            let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
            match parameter.init {
                Init::Zeros => Tensor::zeros(shape, fp32),
                Init::Ones => Tensor::ones(shape, fp32),
                Init::Normal(deviation) => Tensor::randn(shape, fp32) * deviation,
                Init::FanIn => Tensor::randn(shape, fp32) / fan_in.sqrt(),
                Init::FanInScaled { divisor } => Tensor::randn(shape, fp32) / (fan_in * divisor as f64).sqrt(),
                Init::LayerScale { layers } => Tensor::full(shape, 1.0 / (2.0 * layers as f64).sqrt(), fp32),
            }
        };
        let tensors = config
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), draw(parameter).to_device(device).to_kind(kind)))
            .collect();
        Self { tensors }
    }

    /// Reads a checkpoint directory (`model.safetensors`, or shards with
    /// `model.safetensors.index.json`) tensor by tensor from mapped memory. All headers are checked
    /// before any tensor is read.
    ///
    /// # Errors
    /// Tensors are missing, unexpected, of the wrong shape, or not floats. All are named at once,
    /// by their names in the files.
    pub fn load(directory: &Path, config: &InternVlConfig, kind: Kind, device: Device) -> Result<Self, ModelError> {
        let shards = shards(directory)?;
        let layout = config.layout;
        let mut found = BTreeMap::new();
        let mut problems = Vec::new();
        for shard in &shards {
            for (name, header) in headers(shard)? {
                if is_left_out(&layout.own_name(&name), config) {
                    continue;
                }
                if !header.dtype.contains('F') || header.dtype.starts_with("F8") {
                    problems.push(format!("dtype: {name} expected BF16, F16 or F32, got {}", header.dtype));
                }
                let again = found.insert(layout.file_name(&layout.own_name(&name)), header.shape);
                if again.is_some() {
                    problems.push(format!("twice: {name}"));
                }
            }
        }
        let expected = config.parameters();
        let expected: Vec<(String, &[i64])> =
            expected.iter().map(|p| (layout.file_name(&p.name), p.shape.as_slice())).collect();
        problems.extend(mismatches(&found, expected.iter().map(|(name, shape)| (name.as_str(), *shape))));
        if !problems.is_empty() {
            return Err(ModelError::Weights { path: directory.into(), expected: "its config.json".into(), problems });
        }
        let mut tensors = BTreeMap::new();
        for shard in &shards {
            read_safetensors(shard, |name, tensor| {
                let name = layout.own_name(name);
                if !is_left_out(&name, config) {
                    tensors.insert(name, tensor.to_device(device).to_kind(kind));
                }
            })?;
        }
        Ok(Self { tensors })
    }

    /// The tensors by their names in files of `layout`. The vision transformer's queries, keys and
    /// values are split or joined if `layout` stores them differently.
    pub fn in_layout(&self, config: &InternVlConfig, layout: Layout) -> Vec<(String, Tensor)> {
        let mut found = Vec::new();
        for (name, tensor) in self.iter() {
            let parts = ["q_proj", "k_proj", "v_proj"];
            match (config.layout, layout) {
                (Layout::Original, Layout::Hf) if name.contains(".attn.qkv.") => {
                    let split = parts.into_iter().zip(tensor.chunk(3, 0));
                    found.extend(split.map(|(part, tensor)| (name.replacen("qkv", part, 1), tensor)));
                }
                (Layout::Hf, Layout::Original)
                    if name.starts_with("vision_model.") && name.contains(".attn.q_proj.") =>
                {
                    let parts = parts.map(|part| self.get(&name.replacen("q_proj", part, 1)));
                    found.push((name.replacen("q_proj", "qkv", 1), Tensor::cat(&parts, 0)));
                }
                (Layout::Hf, Layout::Original)
                    if name.starts_with("vision_model.")
                        && [".attn.k_proj.", ".attn.v_proj."].iter().any(|part| name.contains(part)) => {}
                _ => found.push((name.to_owned(), tensor.shallow_clone())),
            }
        }
        found.into_iter().map(|(name, tensor)| (layout.file_name(&name), tensor)).collect()
    }

    /// Writes every tensor to one safetensors file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        write_safetensors(path, self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// There is none. [`Weights::load`] and [`Weights::random`] fill every name of the
    /// architecture.
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("no weight named {name}"))
    }

    /// The tensor of that name, if any.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: String, tensor: Tensor) {
        self.tensors.insert(name, tensor);
    }

    /// Removes a tensor and returns it.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name)
    }

    /// All tensors, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A sum over the bits of all tensors. It is exact, so that copies of the same weights have the
    /// same sum on every device.
    pub fn checksum(&self) -> i64 {
        let sum = |tensor: &Tensor| {
            let bits = match tensor.kind() {
                Kind::Float => Kind::Int,
                Kind::BFloat16 | Kind::Half => Kind::Int16,
                _ => Kind::Int64,
            };
            tensor.detach().contiguous().view_dtype(bits).sum(Kind::Int64).int64_value(&[])
        };
        self.tensors.values().map(sum).fold(0, |total, sum| total.wrapping_mul(31).wrapping_add(sum))
    }

    /// The tensors that training changes, in order of their names.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.iter().filter(|(_, tensor)| tensor.requires_grad())
    }

    /// The name of a trainable tensor with an element that is not finite, if there is one.
    pub fn not_finite(&self) -> Option<&str> {
        self.trainable().find(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name)
    }

    /// Sets which tensors training changes.
    pub fn set_trainable(&mut self, is_trainable: impl Fn(&str) -> bool) {
        for (name, tensor) in &mut self.tensors {
            let _ = tensor.set_requires_grad(is_trainable(name));
        }
    }

    /// Copies that later steps do not change: trainable tensors are copied, frozen ones are shared.
    /// Matrices are copied in `kind`, the dtype of the products that they enter, and frozen
    /// adapters of another dtype are converted to it, so that generation does not convert them at
    /// every token. Norms, scales and embeddings enter the fp32 residual stream and keep their
    /// dtype.
    pub fn frozen_copy(&self, kind: Kind) -> Self {
        let copy = |name: &str, tensor: &Tensor| {
            let is_factor = tensor.dim() > 1 && !name.contains(".embed");
            match tensor.requires_grad() {
                true => tensor.detach().to_dtype(if is_factor { kind } else { tensor.kind() }, false, true),
                false if is_adapter(name) => tensor.to_kind(kind),
                false => tensor.shallow_clone(),
            }
        };
        Self { tensors: self.tensors.iter().map(|(name, tensor)| (name.clone(), copy(name, tensor))).collect() }
    }

    /// Copies values into the trainable tensors from tensors of the same names and shapes.
    ///
    /// # Errors
    /// Tensors are missing, unexpected or of the wrong shape. All are named at once, and nothing is
    /// changed.
    pub fn restore_trainable(&mut self, path: &Path, saved: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
        let shapes: Vec<_> = self.trainable().map(|(name, tensor)| (name.to_owned(), tensor.size())).collect();
        let found = saved.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let problems = mismatches(&found, shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())));
        if !problems.is_empty() {
            return Err(ModelError::Weights {
                path: path.into(),
                expected: "the model being trained".into(),
                problems,
            });
        }
        tch::no_grad(|| {
            for (name, tensor) in &mut self.tensors {
                if tensor.requires_grad() {
                    tensor.copy_(&saved[name]);
                }
            }
        });
        Ok(())
    }
}

/// Whether every element is a finite number.
pub fn is_finite(tensor: &Tensor) -> bool {
    tensor.numel() == 0 || tensor.isfinite().all().int64_value(&[]) == 1
}

/// Whether a tensor is one that some writers add: the head if it is tied to the embedding, and
/// tables that follow from the configuration.
fn is_left_out(name: &str, config: &InternVlConfig) -> bool {
    (config.llm_config.tie_word_embeddings && name == "language_model.lm_head.weight")
        || name.ends_with(".rotary_emb.inv_freq")
        || name.ends_with(".position_ids")
}

/// The differences between the names and shapes in `found` and `expected`, one line each.
pub fn mismatches<'a>(
    found: &BTreeMap<String, Vec<i64>>,
    expected: impl Iterator<Item = (&'a str, &'a [i64])>,
) -> Vec<String> {
    let expected: BTreeMap<_, _> = expected.collect();
    let mut problems = Vec::new();
    for (name, shape) in &expected {
        match found.get(*name) {
            None => problems.push(format!("missing: {name} {shape:?}")),
            Some(found) if found != shape => problems.push(format!("shape: {name} expected {shape:?}, got {found:?}")),
            Some(_) => {}
        }
    }
    let unexpected = found.iter().filter(|(name, _)| !expected.contains_key(name.as_str()));
    problems.extend(unexpected.map(|(name, shape)| format!("unexpected: {name} {shape:?}")));
    problems
}
