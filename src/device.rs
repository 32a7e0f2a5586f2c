//! The device that a configuration names.

use anyhow::{Result, bail, ensure};
use tch::{Cuda, Device};

/// `auto`, `cpu`, `cuda`, `cuda:1`.
///
/// # Errors
/// A device that does not exist here.
pub fn device(name: &str) -> Result<Device> {
    let device = match name {
        "auto" => Device::cuda_if_available(),
        "cpu" => Device::Cpu,
        "cuda" => Device::Cuda(0),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Device::Cuda(index),
            None => bail!("run.device = {other:?}: expected auto, cpu, cuda or cuda:<index>"),
        },
    };
    if let Device::Cuda(index) = device {
        let count = Cuda::device_count();
        ensure!(
            (index as i64) < count,
            "run.device = {name:?}: there are {count} CUDA devices; see `cadwright doctor`"
        );
    }
    Ok(device)
}
