//! The device that a configuration names.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::cuda::cuda;

/// The choice of the device on which libtorch computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// `auto`: the first CUDA device, or the CPU if there is none.
    #[default]
    Auto,
    /// `cpu`.
    Cpu,
    /// `cuda:<index>`, or `cuda` for the first one.
    Cuda(usize),
}

impl DeviceChoice {
    /// The device.
    ///
    /// # Errors
    /// A CUDA device that this machine does not have.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Auto => Ok(cuda().first_or_cpu()),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => cuda().device(index),
        }
    }
}

impl DeviceChoice {
    /// The device of one of `local_size` ranks on a machine: `auto` and `cuda` give each a CUDA
    /// device of its own.
    ///
    /// # Errors
    /// As for [`Self::open`], or fewer devices than ranks.
    pub fn open_for(self, local_rank: usize, local_size: usize) -> Result<Device> {
        let has_cuda = cuda().first_or_cpu() != Device::Cpu;
        match self {
            _ if local_size == 1 => self.open(),
            Self::Auto if has_cuda => cuda().device(local_rank),
            Self::Cuda(0) => cuda().device(local_rank),
            Self::Cuda(index) => {
                bail!("run.device = \"cuda:{index}\" is one device, but there are {local_size} ranks: use cuda or auto")
            }
            Self::Auto | Self::Cpu => self.open(),
        }
    }
}

/// Sets the number of threads that libtorch computes with; 0 leaves it at one per core.
pub fn set_threads(threads: usize) {
    if let Ok(threads @ 1..) = i32::try_from(threads) {
        tch::set_num_threads(threads);
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("unknown device {name:?}: expected auto, cpu, cuda or cuda:<index>")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(device: DeviceChoice) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for (name, expected) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(name.parse(), Ok(expected));
            assert_eq!(expected.to_string(), name);
        }
        for name in ["gpu", "cuda:", "cuda:-1", ""] {
            assert!(name.parse::<DeviceChoice>().unwrap_err().contains("auto, cpu, cuda or cuda:<index>"), "{name}");
        }
    }
}
