//! Loads NCCL's backend, which the binary carries as a library of its own (`nccl.cpp`).

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::OnceLock;

use super::c10d::Result;

/// The library; empty if the binary was built without the headers of CUDA and NCCL.
static LIBRARY: &[u8] = include_bytes!(env!("CADWRIGHT_NCCL"));

/// Whether the binary was built with NCCL's backend.
pub fn is_built_in() -> bool {
    !LIBRARY.is_empty()
}

/// The address of a function of the library, which the first call loads. libtorch's CUDA half must
/// be loaded before it.
pub(super) fn function(name: &CStr) -> Result<*mut c_void> {
    static HANDLE: OnceLock<Result<usize>> = OnceLock::new();
    let handle = HANDLE.get_or_init(load).clone()?;
    // SAFETY: a handle that dlopen returned, and a NUL-terminated name.
    let address = unsafe { libc::dlsym(handle as *mut c_void, name.as_ptr()) };
    if address.is_null() { Err(format!("NCCL's backend has no function {name:?}")) } else { Ok(address) }
}

/// Loads the library from a file in memory.
fn load() -> Result<usize> {
    if !is_built_in() {
        let hint = "run `scripts/setup --full`, build again, and check with `cadwright doctor`";
        return Err(format!("this binary was built without NCCL: {hint}"));
    }
    // SAFETY: a NUL-terminated name.
    let descriptor = unsafe { libc::memfd_create(c"libcadwright_nccl.so".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(format!("cannot make a file in memory: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: a new descriptor, which nothing else owns.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(LIBRARY).map_err(|error| format!("cannot write a file in memory: {error}"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = CString::new(path).map_err(|error| error.to_string())?;
    // SAFETY: a NUL-terminated path to a library of ours.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(format!("cannot load NCCL's backend: {}", crate::cuda::linker_message()));
    }
    Ok(handle as usize)
}
