//! Reads and writes tensors in safetensors files: one file, or several with an index.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::error::ModelError;

/// The maximum size of a checkpoint's file in bytes, as on the hub.
pub const SHARD_BYTES: usize = 5_000_000_000;

/// A tensor's header in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Shape.
    pub shape: Vec<i64>,
    /// Dtype, by safetensors' name.
    pub dtype: String,
}

/// The files of a checkpoint directory: `model.safetensors`, or those that
/// `model.safetensors.index.json` names.
///
/// # Errors
/// An index that cannot be read, or that names missing files: the message names all of them.
pub fn shards(directory: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let index = directory.join("model.safetensors.index.json");
    if !index.exists() {
        let single = directory.join("model.safetensors");
        if !single.exists() {
            let reason = "has neither model.safetensors nor model.safetensors.index.json".to_owned();
            return Err(ModelError::Config { path: directory.into(), reason });
        }
        return Ok(vec![single]);
    }
    let text = std::fs::read_to_string(&index).map_err(|source| ModelError::Read { path: index.clone(), source })?;
    let invalid = |reason: String| ModelError::Config { path: index.clone(), reason };
    let json: Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| invalid("field weight_map is missing".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    if let Some(outside) = names.iter().find(|name| name.contains('/') || [".", "..", ""].contains(name)) {
        return Err(invalid(format!("{outside:?} is not the name of a file beside it")));
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !directory.join(name).exists()).collect();
    if !missing.is_empty() {
        return Err(invalid(format!("names files that are not there: {}; download them again", missing.join(", "))));
    }
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

fn map(path: &Path) -> Result<Mmap, ModelError> {
    let unreadable = |source| ModelError::Read { path: path.into(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: nobody may truncate the file while it is read, as with every reader of mapped
    // checkpoints.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}

fn parse<'a>(path: &Path, bytes: &'a Mmap) -> Result<SafeTensors<'a>, ModelError> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Safetensors { path: path.into(), reason: error.to_string() })
}

/// The headers of the tensors in a safetensors file, by name.
///
/// # Errors
/// The file is missing or truncated.
pub fn headers(path: &Path) -> Result<BTreeMap<String, Header>, ModelError> {
    let bytes = map(path)?;
    let header = |view: safetensors::tensor::TensorView<'_>| Header {
        shape: view.shape().iter().map(|&side| side as i64).collect(),
        dtype: format!("{:?}", view.dtype()),
    };
    Ok(parse(path, &bytes)?.iter().map(|(name, view)| (name.to_owned(), header(view))).collect())
}

/// The dtype of a checkpoint's first tensor.
///
/// # Errors
/// Files that are missing or truncated.
pub fn stored_kind(directory: &Path) -> Result<Kind, ModelError> {
    let shards = shards(directory)?;
    let first = shards.first().map(|shard| headers(shard)).transpose()?;
    let dtype = first.and_then(|headers| headers.into_values().next()).map(|header| header.dtype);
    Ok(match dtype.as_deref() {
        Some("BF16") => Kind::BFloat16,
        Some("F16") => Kind::Half,
        _ => Kind::Float,
    })
}

/// Calls `take` with each tensor of a safetensors file, on the CPU at the file's dtype. Memory
/// that has been read is released, so that no more than one tensor is held at a time.
///
/// # Errors
/// The file is missing or truncated, or holds a dtype that models do not use.
pub fn read_safetensors(path: &Path, mut take: impl FnMut(&str, Tensor)) -> Result<(), ModelError> {
    let bytes = map(path)?;
    let parsed = parse(path, &bytes)?;
    let mut views: Vec<_> = parsed.iter().collect();
    // Reads in the order of the file.
    views.sort_by_key(|(_, view)| view.data().as_ptr());
    for (name, view) in views {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => {
                let reason = format!("tensor {name} is {other:?}; expected F32, F64, F16, BF16, I64, I32, U8 or BOOL");
                return Err(ModelError::Config { path: path.into(), reason });
            }
        };
        let shape: Option<Vec<i64>> = view.shape().iter().map(|&side| i64::try_from(side).ok()).collect();
        let is_possible =
            |shape: &Vec<i64>| shape.iter().try_fold(8, |bytes: i64, &side| bytes.checked_mul(side)).is_some();
        let Some(shape) = shape.filter(is_possible) else {
            let reason = format!("tensor {name} has the impossible shape {:?}", view.shape());
            return Err(ModelError::Config { path: path.into(), reason });
        };
        take(name, Tensor::f_from_data_size(view.data(), &shape, kind)?);
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        // SAFETY: the mapping is private and never written, so dropped pages are read from the file
        // again if they are needed. The system may refuse the advice; nothing depends on it.
        let _ = unsafe { bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, start, view.data().len()) };
    }
    Ok(())
}

/// All tensors of a safetensors file by name, on the CPU at the file's dtype.
///
/// # Errors
/// As [`read_safetensors`].
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, ModelError> {
    let mut tensors = BTreeMap::new();
    read_safetensors(path, |name, tensor| {
        tensors.insert(name.to_owned(), tensor);
    })?;
    Ok(tensors)
}

/// A tensor whose bytes are copied only when they are written.
struct Stored<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

impl<'a> Stored<'a> {
    fn new(path: &Path, name: &str, tensor: &'a Tensor) -> Result<Self, ModelError> {
        let (dtype, width) = match tensor.kind() {
            Kind::Float => (Dtype::F32, 4),
            Kind::Double => (Dtype::F64, 8),
            Kind::Half => (Dtype::F16, 2),
            Kind::BFloat16 => (Dtype::BF16, 2),
            Kind::Int64 => (Dtype::I64, 8),
            other => {
                let reason = format!("tensor {name} is {other:?}; expected Float, Double, Half, BFloat16 or Int64");
                return Err(ModelError::Config { path: path.into(), reason });
            }
        };
        let shape = tensor.size().iter().map(|&side| side as usize).collect();
        Ok(Self { tensor, dtype, shape, bytes: tensor.numel() * width })
    }
}

impl View for &Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0u8; self.bytes];
        self.tensor.detach().to_device(Device::Cpu).contiguous().copy_data_u8(&mut bytes, self.tensor.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes
    }
}

/// Writes tensors to a safetensors file, one after another.
///
/// # Errors
/// The file cannot be written, or a tensor has a dtype that models do not use.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), ModelError> {
    let stored = tensors
        .map(|(name, tensor)| Ok((name, Stored::new(path, name, tensor)?)))
        .collect::<Result<Vec<_>, ModelError>>()?;
    // `transformers` refuses files without this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = stored.iter().map(|(name, stored)| (*name, stored));
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => ModelError::Write { path: path.into(), source },
        other => ModelError::Safetensors { path: path.into(), reason: other.to_string() },
    })
}

/// Writes the tensors of a checkpoint into an existing directory: to `model.safetensors`, or, if
/// that would be larger than `shard_bytes`, to several files with an index.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_checkpoint(directory: &Path, tensors: &[(String, Tensor)], shard_bytes: usize) -> Result<(), ModelError> {
    let size = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut groups: Vec<Vec<&(String, Tensor)>> = vec![Vec::new()];
    let mut bytes = 0;
    for named in tensors {
        if bytes > 0 && bytes + size(&named.1) > shard_bytes {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size(&named.1);
        if let Some(group) = groups.last_mut() {
            group.push(named);
        }
    }
    let count = groups.len();
    let mut weight_map = serde_json::Map::new();
    for (index, group) in groups.iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        write_safetensors(&directory.join(&file), group.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
        weight_map.extend(group.iter().map(|(name, _)| (name.clone(), file.clone().into())));
    }
    if count > 1 {
        let total: usize = tensors.iter().map(|(_, tensor)| size(tensor)).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        let path = directory.join("model.safetensors.index.json");
        std::fs::write(&path, format!("{index:#}\n")).map_err(|source| ModelError::Write { path, source })?;
    }
    Ok(())
}
