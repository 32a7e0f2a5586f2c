//! What the process does for libtorch before anything else.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tch::Device;

/// Starts the program again with `OMP_WAIT_POLICY=passive`, unless that variable is set.
///
/// libtorch's OpenMP threads spin while they wait for each other. Beside CadQuery workers on the same cores that is ruinous:
/// with two threads on two busy cores a training step took ten times as long. OpenMP reads the variable when it is loaded,
/// which is before `main`. A failure leaves things as they are.
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

/// Has the allocator keep what libtorch frees. A training step asks for the same large blocks again and again; by default each is fresh
/// from the system, page fault by page fault, which took a fifth of a step (docs/log.md).
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: sets two numbers of glibc's allocator; what it refuses, as some versions do the second, changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
            libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        }
    }
}

/// Whether `device` has instructions for products of bf16. libtorch computes them elsewhere too, many times slower than those of f32.
pub fn multiplies_bf16(device: Device) -> bool {
    #[cfg(target_arch = "x86_64")]
    let cpu = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let cpu = std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let cpu = false;
    device.is_cuda() || device == Device::Cpu && cpu
}

/// Loads libtorch's CUDA half where it is installed and complete.
///
/// The linker drops `libtorch_cuda.so`, since no symbol of it is referred to, so that the binary starts where there is no
/// CUDA; libtorch finds the devices once the library is in the process. A failure leaves the CPU.
pub fn load_cuda() {
    let path = Path::new(env!("CADWRIGHT_LIBTORCH")).join("lib/libtorch_cuda.so");
    if !path.exists() || !Path::new("/dev/nvidiactl").exists() {
        return;
    }
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        // SAFETY: a NUL-terminated path; the library is libtorch's own and its initialisers expect just this.
        unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    }
}
