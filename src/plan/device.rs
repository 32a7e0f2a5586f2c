//! What a processor can do, and what is assumed about how much of it is reached.

use std::str::FromStr;

use serde::Serialize;

/// A processor, as its public data sheet describes it. Rates are a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Device {
    /// The name in `--gpu`.
    pub name: &'static str,
    /// Peak operations on bf16 matrices, without sparsity.
    pub bf16_flops: f64,
    /// Peak operations on fp32 matrices.
    pub f32_flops: f64,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Bytes that memory delivers.
    pub memory_bandwidth: f64,
    /// Bytes in one direction to the processors of the same node.
    pub link_bandwidth: f64,
    /// Bytes in one direction to other nodes, for each processor.
    pub network_bandwidth: f64,
    /// Latency of a collective between two ranks, in seconds.
    pub collective_s: f64,
    /// Time that the host takes to issue the kernels of one decoder layer, in seconds.
    pub layer_s: f64,
    /// Share of the peak operations that training reaches, padding included.
    pub mfu: f64,
    /// Share of the memory bandwidth that decoding reaches.
    pub bandwidth_share: f64,
    /// Whether programs are executed on the core that trains, one after the other.
    pub scores_itself: bool,
}

/// NVIDIA A100 80GB SXM. Data sheet of June 2021: 312 TFLOP/s bf16, 19.5 fp32, 2,039 GB/s, NVLink
/// 600 GB/s in both directions; a DGX A100 has one HDR InfiniBand port of 200 Gb/s for each GPU.
/// Memory as the driver reports it. Latencies and shares are those of [`H100`].
const A100_80G: Device = Device {
    name: "a100-80g",
    bf16_flops: 312e12,
    f32_flops: 19.5e12,
    memory_gib: 79.0,
    memory_bandwidth: 2.039e12,
    link_bandwidth: 300e9,
    network_bandwidth: 25e9,
    ..H100
};

/// NVIDIA H100 SXM. Data sheet: 1,979 TFLOP/s bf16 with sparsity, half without, 67 fp32, 3.35 TB/s,
/// NVLink 900 GB/s in both directions; a DGX H100 has one NDR InfiniBand port of 400 Gb/s for each
/// GPU. Memory as the driver reports it.
///
/// Assumed, never measured by us: 40 % of the peak in training, half of the memory bandwidth in
/// decoding, 30 us for a collective of NCCL, 200 us for the some 40 kernels of a layer.
const H100: Device = Device {
    name: "h100",
    bf16_flops: 989e12,
    f32_flops: 67e12,
    memory_gib: 79.0,
    memory_bandwidth: 3.35e12,
    link_bandwidth: 450e9,
    network_bandwidth: 50e9,
    collective_s: 30e-6,
    layer_s: 200e-6,
    mfu: 0.4,
    bandwidth_share: 0.5,
    scores_itself: false,
};

/// NVIDIA H200 SXM. Data sheet: as the H100, with 141 GB of memory at 4.8 TB/s. Memory as the
/// driver reports it.
const H200: Device = Device { name: "h200", memory_gib: 140.0, memory_bandwidth: 4.8e12, ..H100 };

/// One core of an AMD EPYC (Zen 3, AVX2) that computes in fp32, to check the model on a small
/// machine: one rank a core, one thread a rank.
///
/// Measured on a machine of two such cores and 24 GB: 0.09 TFLOP/s (the best of `cadwright doctor`
/// with one thread), and the share of it that training reaches with the nano model
/// (docs/scaling.md). Memory bandwidth: half of the 22 GB/s that products of one row reached on
/// both cores. It has no bf16: libtorch emulates it, many times slower, which is not modelled.
/// Gloo over the loopback device: 1.0 GB/s and 335 us, fitted by `cadwright doctor` on two ranks.
pub const CPU_CORE: Device = Device {
    name: "cpu-core",
    bf16_flops: 0.09e12,
    f32_flops: 0.09e12,
    memory_gib: 12.0,
    memory_bandwidth: 11e9,
    link_bandwidth: 1e9,
    network_bandwidth: 0.125e9,
    collective_s: 335e-6,
    layer_s: 300e-6,
    mfu: 0.64,
    bandwidth_share: 1.0,
    scores_itself: true,
};

impl Device {
    /// Every known processor.
    pub const ALL: [Self; 4] = [A100_80G, H100, H200, CPU_CORE];

    /// Peak operations on matrices whose numbers have `width` bytes.
    pub fn peak_flops(&self, width: u64) -> f64 {
        if width == 2 { self.bf16_flops } else { self.f32_flops }
    }
}

/// A name that is none of [`Device::ALL`].
#[derive(Debug, thiserror::Error)]
#[error("unknown GPU `{name}`; known are {}", Device::ALL.map(|device| device.name).join(", "))]
pub struct UnknownDevice {
    name: String,
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let found = Self::ALL.into_iter().find(|device| device.name == name);
        found.ok_or_else(|| UnknownDevice { name: name.to_owned() })
    }
}

/// What the model of a step assumes besides the processor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumptions {
    /// Mean length of a completion that ends by itself, in tokens. By default 0.22 of
    /// `generate.max_new_tokens`: 40 programs of GenCAD-Code have 883 characters on average
    /// (measured), and `configs/internvl3-8b.toml` allows for about 4,000.
    pub mean_tokens: f64,
    /// Tokens of the longest completion, at which others are cut off. By default
    /// `generate.max_new_tokens`.
    pub longest_tokens: f64,
    /// Tokens of the prompt without the picture. By default one for every four characters of
    /// `[prompt]`, and 12 for the template (assumed).
    pub prompt_tokens: f64,
    /// Programs that one core scores in a second. By default the native engine's 1,250 (measured:
    /// 2,594 on two cores, benches/results/scoring.md) for 96 % and CadQuery's 25 (measured: 48.7
    /// on two cores, there) for the 4 % that the native engine declines (assumed; 1 % of synthetic
    /// parts).
    pub scores_per_second: f64,
    /// Share of completions that do not end by themselves. Measured: 0 to 0.008 in steps of the
    /// quickstart.
    pub truncated: f64,
    /// Length of the shortest completion as a share of the mean. Measured: 0.35 for 40 programs of
    /// GenCAD-Code, whose standard deviation of 0.70 of the mean this gives too (0.65).
    pub shortest_share: f64,
    /// Share of the links' bandwidth that an all-reduce reaches (assumed).
    pub link_share: f64,
    /// Bytes that the optimiser reads and writes for each trained parameter: about 16 numbers in
    /// operations that are not fused (counted in `train/optim.rs`, not measured).
    pub optimizer_bytes: f64,
    /// Cores of a node for each GPU, which score programs.
    pub cores_per_gpu: f64,
    /// GPUs of a node.
    pub gpus_per_node: u64,
}

/// Programs that a core scores in a second if the native engine declines the share `declined`.
pub fn scores_per_second(native: f64, cadquery: f64, declined: f64) -> f64 {
    1.0 / ((1.0 - declined) / native + declined / cadquery)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.96 / 1250 + 0.04 / 25 = 0.000768 + 0.0016 = 0.002368 s a program.
    #[test]
    fn few_declined_programs_cost_more_than_all_others() {
        let rate = scores_per_second(1250.0, 25.0, 0.04);
        assert!((rate - 1.0 / 0.002368).abs() < 1e-9, "{rate}");
        assert_eq!(scores_per_second(1250.0, 25.0, 0.0), 1250.0);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = "b200".parse::<Device>().unwrap_err().to_string();
        assert_eq!(message, "unknown GPU `b200`; known are a100-80g, h100, h200, cpu-core");
        for device in Device::ALL {
            assert_eq!(device.name.parse::<Device>().unwrap(), device);
        }
    }
}
