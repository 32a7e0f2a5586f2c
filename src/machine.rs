//! What this machine has: memory and disk, as far as the system says.

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::{MaybeUninit, transmute};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of memory that new allocations may take: what the system calls available, or what the
/// control group leaves, if that is less.
pub fn available_bytes() -> Option<u64> {
    let available = kib_of("/proc/meminfo", "MemAvailable:")?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(limit.map_or(available, |(most, used)| available.min(most.saturating_sub(used))))
}

/// Bytes of memory that this process holds.
pub fn own_bytes() -> Option<u64> {
    kib_of("/proc/self/status", "VmRSS:")
}

/// The number after `name` in a file of lines such as `VmRSS:  123 kB`, in bytes.
fn kib_of(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Bytes that this user may write in `directory`.
pub fn free_disk_bytes(directory: &Path) -> Option<u64> {
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut status = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a NUL-terminated path, and a buffer that statvfs fills if it returns 0.
    let status = unsafe {
        if libc::statvfs(path.as_ptr(), status.as_mut_ptr()) != 0 {
            return None;
        }
        status.assume_init()
    };
    Some(status.f_bavail as u64 * status.f_frsize as u64)
}

/// Bytes that are free on the GPU whose context this thread uses, by the driver.
pub fn free_gpu_bytes() -> Option<u64> {
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    let find = |library: &CStr, symbol: &CStr| -> Option<*mut c_void> {
        // SAFETY: both are NUL-terminated; the driver is loaded already if a GPU is used.
        let found = unsafe {
            let library = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
            if library.is_null() { std::ptr::null_mut() } else { libc::dlsym(library, symbol.as_ptr()) }
        };
        (!found.is_null()).then_some(found)
    };
    let symbol = find(c"libcuda.so.1", c"cuMemGetInfo_v2")?;
    let (mut free, mut total) = (0, 0);
    // SAFETY: the driver's function of this name has this type, and fills two numbers.
    let status = unsafe { transmute::<*mut c_void, MemGetInfo>(symbol)(&raw mut free, &raw mut total) };
    (status == 0).then_some(free as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_there_is() {
        assert!(available_bytes().unwrap() > 1 << 20);
        assert!(own_bytes().unwrap() > 1 << 20);
        assert!(free_disk_bytes(Path::new("/")).is_some());
        assert_eq!(free_disk_bytes(Path::new("/nowhere")), None);
    }
}
