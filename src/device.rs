//! The device that a configuration names.

use anyhow::{Result, bail};
use tch::Device;

use crate::cuda::cuda;

/// `auto`, `cpu`, `cuda`, `cuda:1`.
///
/// # Errors
/// A device that does not exist here.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "auto" => Ok(cuda().first_or_cpu()),
        "cpu" => Ok(Device::Cpu),
        "cuda" => cuda().device(0),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => cuda().device(index),
            None => bail!("run.device = {other:?}: expected auto, cpu, cuda or cuda:<index>"),
        },
    }
}
