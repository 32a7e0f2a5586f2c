//! The model's tensors by name: read from safetensors, made at random, copied, written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use super::config::{Init, InternVlConfig, Parameter};
use super::error::ModelError;

/// Tensors by name. Modules hold shallow clones of these: an optimiser step in place is seen by both.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// No tensors.
    pub fn empty() -> Self {
        Self { tensors: BTreeMap::new() }
    }

    /// Parameters of a model that is to be trained from nothing, in `kind` on `device`. The same seed gives the same
    /// values on every device: they are drawn on the CPU in fp32.
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

    /// Reads a checkpoint directory (`model.safetensors`, or shards with `model.safetensors.index.json`) tensor by
    /// tensor from mapped memory.
    ///
    /// # Errors
    /// Every missing, unexpected or wrongly shaped tensor, by name and all at once.
    pub fn load(directory: &Path, config: &InternVlConfig, kind: Kind, device: Device) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for file in shards(directory)? {
            read_safetensors(&file, |name, tensor| {
                tensors.insert(name.to_owned(), tensor.to_device(device).to_kind(kind));
            })?;
        }
        let expected = config.parameters();
        let expected = expected.iter().map(|parameter| (parameter.name.as_str(), parameter.shape.as_slice()));
        let problems = mismatches(&tensors, expected);
        if problems.is_empty() {
            Ok(Self { tensors })
        } else {
            Err(ModelError::Weights { path: directory.into(), expected: "its config.json".into(), problems })
        }
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
    /// Where there is none: [`Weights::load`] and [`Weights::random`] have filled every name of the architecture.
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

    /// All tensors, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensors that training changes, in order of their names.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.iter().filter(|(_, tensor)| tensor.requires_grad())
    }

    /// Decides which tensors training changes.
    pub fn set_trainable(&mut self, is_trainable: impl Fn(&str) -> bool) {
        for (name, tensor) in &mut self.tensors {
            let _ = tensor.set_requires_grad(is_trainable(name));
        }
    }

    /// Copies that later steps do not change: trainable tensors are copied, frozen ones are shared. Matrices are copied
    /// in `kind`, the dtype of the products that they enter; norms, scales and embeddings enter the fp32 residual stream
    /// and keep their dtype.
    pub fn frozen_copy(&self, kind: Kind) -> Self {
        let copy = |name: &str, tensor: &Tensor| {
            let is_factor = tensor.dim() > 1 && !name.contains(".embed");
            match tensor.requires_grad() {
                true => tensor.detach().to_dtype(if is_factor { kind } else { tensor.kind() }, false, true),
                false => tensor.shallow_clone(),
            }
        };
        Self { tensors: self.tensors.iter().map(|(name, tensor)| (name.clone(), copy(name, tensor))).collect() }
    }

    /// Copies values into the trainable tensors, from tensors of the same names and shapes.
    ///
    /// # Errors
    /// Missing, unexpected or wrongly shaped names, all at once; then nothing is changed.
    pub fn restore_trainable(&mut self, path: &Path, saved: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
        let shapes: Vec<_> = self.trainable().map(|(name, tensor)| (name.to_owned(), tensor.size())).collect();
        let problems = mismatches(saved, shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())));
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

/// What keeps `found` from being exactly the tensors of `expected`: one line each.
pub fn mismatches<'a>(
    found: &BTreeMap<String, Tensor>,
    expected: impl Iterator<Item = (&'a str, &'a [i64])>,
) -> Vec<String> {
    let expected: BTreeMap<_, _> = expected.collect();
    let mut problems = Vec::new();
    for (name, shape) in &expected {
        match found.get(*name) {
            None => problems.push(format!("missing: {name} {shape:?}")),
            Some(tensor) if tensor.size() != *shape => {
                problems.push(format!("shape: {name} expected {shape:?}, got {:?}", tensor.size()));
            }
            Some(_) => {}
        }
    }
    let unexpected = found.keys().filter(|name| !expected.contains_key(name.as_str()));
    problems.extend(unexpected.map(|name| format!("unexpected: {name} {:?}", found[name].size())));
    problems
}

fn shards(directory: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let index = directory.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![directory.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index).map_err(|source| ModelError::Read { path: index.clone(), source })?;
    let invalid = |reason: String| ModelError::Config { path: index.clone(), reason };
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| invalid("field weight_map is missing".into()))?;
    let names: std::collections::BTreeSet<_> = map.values().filter_map(|value| value.as_str()).collect();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Calls `take` with each tensor of a safetensors file, on the CPU at the file's dtype.
///
/// # Errors
/// The file is missing, cut short, or holds a dtype that models do not use.
pub fn read_safetensors(path: &Path, mut take: impl FnMut(&str, Tensor)) -> Result<(), ModelError> {
    let unreadable = |source| ModelError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: as with every reader of mapped checkpoints, nobody may truncate the file while it is read.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
    let invalid = |reason: String| ModelError::Safetensors { path: path.into(), reason };
    let parsed = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
    for (name, view) in parsed.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            other => return Err(invalid(format!("tensor {name} is {other:?}; expected F32, F64, F16, BF16 or I64"))),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        take(name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok(())
}

/// Writes tensors to a safetensors file.
///
/// # Errors
/// The file cannot be written, or a tensor has a dtype that models do not use.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), ModelError> {
    let mut owned = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let (dtype, width) = match tensor.kind() {
            Kind::Float => (Dtype::F32, 4),
            Kind::Double => (Dtype::F64, 8),
            Kind::Half => (Dtype::F16, 2),
            Kind::BFloat16 => (Dtype::BF16, 2),
            Kind::Int64 => (Dtype::I64, 8),
            other => {
                let reason = format!("tensor {name} is {other:?}; expected Float, Double, Half, BFloat16 or Int64");
                return Err(ModelError::Safetensors { path: path.into(), reason });
            }
        };
        let mut bytes = vec![0u8; tensor.numel() * width];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let shape: Vec<usize> = tensor.size().iter().map(|&side| side as usize).collect();
        owned.push((name.to_owned(), dtype, shape, bytes));
    }
    let invalid =
        |error: safetensors::SafeTensorError| ModelError::Safetensors { path: path.into(), reason: error.to_string() };
    let mut views = Vec::with_capacity(owned.len());
    for (name, dtype, shape, bytes) in &owned {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).map_err(invalid)?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize_to_file(views, None, path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => ModelError::Write { path: path.into(), source },
        other => invalid(other),
    })
}
