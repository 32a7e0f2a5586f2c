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

/// Loads the backend; libtorch's CUDA half must be loaded before it.
///
/// # Errors
/// The binary was built without it, or the dynamic linker cannot load it.
pub fn load() -> Result<()> {
    function(CONNECT).map(|_| ())
}

/// The name of the function that connects the ranks.
pub(super) const CONNECT: &CStr = c"cadwright_c10d_nccl";

/// The address of a function of the library, which the first call loads. libtorch's CUDA half must
/// be loaded before it.
pub(super) fn function(name: &CStr) -> Result<*mut c_void> {
    static HANDLE: OnceLock<Result<usize>> = OnceLock::new();
    let handle = HANDLE.get_or_init(open).clone()?;
    // SAFETY: a handle that dlopen returned, and a NUL-terminated name.
    let address = unsafe { libc::dlsym(handle as *mut c_void, name.as_ptr()) };
    if address.is_null() { Err(format!("NCCL's backend has no function {name:?}")) } else { Ok(address) }
}

/// Opens the library from a file in memory.
fn open() -> Result<usize> {
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use tch::{Device, Kind, Tensor};

    use super::super::c10d::{Group, Store, StoreAddress};
    use super::*;
    use crate::cuda::{Cuda, cuda, load_anyway};

    /// In a build with `scripts/setup --full` this loads the library, with or without a GPU.
    #[test]
    fn the_library_is_loaded_if_the_binary_carries_it_and_else_the_message_says_how_to_get_it() {
        if !is_built_in() {
            let error = load().unwrap_err();
            assert!(error.contains("built without NCCL") && error.contains("scripts/setup --full"), "{error}");
            return;
        }
        load_anyway().expect("libtorch's CUDA half is beside the headers that the binary was built with");
        assert_eq!(load(), Ok(()));
        let error = function(c"cadwright_c10d_mccl").unwrap_err();
        assert!(error.contains("cadwright_c10d_mccl"), "{error}");
    }

    #[test]
    fn one_rank_sums_on_a_gpu_and_without_one_gets_a_message() {
        if !is_built_in() {
            return;
        }
        load_anyway().expect("libtorch's CUDA half is beside the headers that the binary was built with");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = StoreAddress { host: "127.0.0.1".into(), port, prefix: "test".into() };
        let timeout = Duration::from_secs(60);
        let store = Store::open(&address, true, 1, timeout).unwrap();
        let group = Group::nccl(&store, 0, 1, 0, timeout);
        if let Cuda::Usable(_) = cuda() {
            let tensor = Tensor::ones([4], (Kind::Float, Device::Cuda(0)));
            group.unwrap().all_reduce(&tensor).unwrap();
            assert_eq!(tensor.sum(Kind::Float).double_value(&[]), 4.0);
        } else {
            let error = group.err().expect("no GPU, no group");
            assert!(error.starts_with("CUDA error: "), "{error}");
        }
    }
}
