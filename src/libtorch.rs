//! How the process is set up for libtorch.

use std::os::unix::process::CommandExt;
use std::process::Command;

use tch::Device;

/// Starts the program again with `OMP_WAIT_POLICY=passive`, unless that variable is set.
///
/// libtorch's OpenMP threads spin while they wait for each other. If CadQuery workers run on the
/// same cores, spinning costs much: with two threads on two busy cores, a training step took ten
/// times as long. OpenMP reads the variable when it is loaded, which is before `main`. If the
/// restart fails, the program goes on as it is.
pub fn wait_passively() {
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_none() {
        let _ = Command::new("/proc/self/exe")
            .arg0(std::env::args_os().next().unwrap_or_default())
            .args(std::env::args_os().skip(1))
            .env(POLICY, "passive")
            .exec();
    }
}

/// Makes the allocator keep the memory that libtorch frees.
///
/// Each training step allocates the same large blocks. By default the system provides each of them
/// anew, one page fault at a time, which took a fifth of a step (docs/log.md).
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: sets two numbers of glibc's allocator. Some versions refuse the second; then
        // nothing changes.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}

/// Whether `device` has instructions for bf16 products. Without them libtorch computes bf16
/// products many times slower than f32 products.
pub fn multiplies_bf16(device: Device) -> bool {
    #[cfg(target_arch = "x86_64")]
    let cpu = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let cpu = std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let cpu = false;
    device.is_cuda() || device == Device::Cpu && cpu
}
