//! The functions of `c10d.cpp`, made safe.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::time::Duration;

use tch::Tensor;

#[repr(C)]
struct RawStore {
    _private: [u8; 0],
}

#[repr(C)]
struct RawGroup {
    _private: [u8; 0],
}

/// null, or a message on C's heap.
type Message = *mut c_char;

unsafe extern "C" {
    fn cadwright_c10d_free(message: Message);
    fn cadwright_c10d_quiet();
    fn cadwright_c10d_store(
        host: *const c_char,
        port: u16,
        is_server: bool,
        workers: usize,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut *mut RawStore,
    ) -> Message;
    fn cadwright_c10d_store_close(store: *mut RawStore);
    fn cadwright_c10d_store_add(store: *mut RawStore, key: *const c_char, amount: i64, sum: *mut i64) -> Message;
    fn cadwright_c10d_store_set(store: *mut RawStore, key: *const c_char, bytes: *const u8, length: usize) -> Message;
    fn cadwright_c10d_store_find(store: *mut RawStore, key: *const c_char, text: *mut Message) -> Message;
    fn cadwright_c10d_gloo(
        store: *mut RawStore,
        rank: c_int,
        size: c_int,
        interface: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut RawGroup,
    ) -> Message;
    fn cadwright_c10d_group_close(group: *mut RawGroup);
    fn cadwright_c10d_all_reduce(group: *mut RawGroup, tensor: *mut c_void) -> Message;
    fn cadwright_c10d_broadcast(group: *mut RawGroup, tensor: *mut c_void, root: c_int) -> Message;
    fn cadwright_c10d_all_gather(group: *mut RawGroup, all: *mut c_void, own: *mut c_void) -> Message;
    fn cadwright_c10d_reduce_scatter(group: *mut RawGroup, own: *mut c_void, all: *mut c_void) -> Message;
}

/// A failure of c10d, in its words.
pub(super) type Result<T> = std::result::Result<T, String>;

fn checked(message: Message) -> Result<()> {
    text(message).map_or(Ok(()), Err)
}

/// Takes a text from C's heap, in one line; `None` for null.
fn text(message: Message) -> Option<String> {
    if message.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string that c10d.cpp allocated for us.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        cadwright_c10d_free(message);
        text
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Some(essence(&lines.join("; ")).to_owned())
}

/// A message of Gloo without the place in its source and its advice.
fn essence(message: &str) -> &str {
    let is_place = |place: &&str| place.starts_with('[') && place.contains(".cc:");
    let message = message.split_once("] ").filter(|(place, _)| is_place(place)).map_or(message, |(_, rest)| rest);
    message.split_once(". This is typically caused").map_or(message, |(fact, _)| fact)
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| format!("{text:?}: {error}"))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Silences c10d's warnings, unless `TORCH_CPP_LOG_LEVEL` asks for them.
pub(super) fn be_quiet() {
    if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
        // SAFETY: sets a number, before any thread of c10d runs.
        unsafe { cadwright_c10d_quiet() }
    }
}

/// The address of a store.
#[derive(Debug, Clone)]
pub(super) struct StoreAddress {
    /// The host that serves it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What the names of all keys begin with.
    pub prefix: String,
}

/// A connection to the key-value store that all ranks share.
pub(super) struct Store(*mut RawStore);

// SAFETY: c10d's stores guard each call by a mutex.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects. If `is_server`, serves the store until this value is dropped. If `workers` is not
    /// 0, waits until as many processes have connected.
    pub fn open(address: &StoreAddress, is_server: bool, workers: usize, timeout: Duration) -> Result<Self> {
        let (host, prefix) = (c_string(&address.host)?, c_string(&address.prefix)?);
        let mut store = null_mut();
        // SAFETY: NUL-terminated strings and a place for the result, all of which outlive the call.
        checked(unsafe {
            cadwright_c10d_store(
                host.as_ptr(),
                address.port,
                is_server,
                workers,
                prefix.as_ptr(),
                milliseconds(timeout),
                &raw mut store,
            )
        })?;
        Ok(Self(store))
    }

    /// Adds `amount` to the number under `key`, which begins at 0, and returns the sum.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let (key, mut sum) = (c_string(key)?, 0);
        // SAFETY: an open store, a NUL-terminated string and a place for the result.
        checked(unsafe { cadwright_c10d_store_add(self.0, key.as_ptr(), amount, &raw mut sum) })?;
        Ok(sum)
    }

    /// Writes `text` under `key`.
    pub fn set(&self, key: &str, text: &str) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: an open store, a NUL-terminated string, and the bytes of `text`.
        checked(unsafe { cadwright_c10d_store_set(self.0, key.as_ptr(), text.as_ptr(), text.len()) })
    }

    /// The text under `key`, if there is one.
    pub fn find(&self, key: &str) -> Result<Option<String>> {
        let (key, mut found) = (c_string(key)?, null_mut());
        // SAFETY: an open store, a NUL-terminated string and a place for the result.
        checked(unsafe { cadwright_c10d_store_find(self.0, key.as_ptr(), &raw mut found) })?;
        Ok(text(found))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: an open store, which is not used again.
        unsafe { cadwright_c10d_store_close(self.0) }
    }
}

/// The ranks, connected by one backend.
pub(super) struct Group(*mut RawGroup);

impl Group {
    /// Connects the ranks by Gloo. It listens on the network `interface` if one is given, else at
    /// `address`, else where the name of this machine leads.
    pub fn gloo(
        store: &Store,
        rank: usize,
        size: usize,
        interface: Option<&str>,
        address: Option<&str>,
        timeout: Duration,
    ) -> Result<Self> {
        let (interface, address) = (c_string(interface.unwrap_or(""))?, c_string(address.unwrap_or(""))?);
        let mut group = null_mut();
        // SAFETY: an open store, NUL-terminated strings and a place for the result.
        checked(unsafe {
            cadwright_c10d_gloo(
                store.0,
                rank as c_int,
                size as c_int,
                interface.as_ptr(),
                address.as_ptr(),
                milliseconds(timeout),
                &raw mut group,
            )
        })?;
        Ok(Self(group))
    }

    /// Connects the ranks by NCCL; see [`super::nccl`]. `device` is this rank's GPU.
    pub fn nccl(store: &Store, rank: usize, size: usize, device: usize, timeout: Duration) -> Result<Self> {
        type Connect = unsafe extern "C" fn(*mut RawStore, c_int, c_int, c_int, i64, *mut *mut RawGroup) -> Message;
        let address = super::nccl::function(super::nccl::CONNECT)?;
        // SAFETY: the address of the function of nccl.cpp, which has this signature.
        let connect: Connect = unsafe { std::mem::transmute(address) };
        let mut group = null_mut();
        // SAFETY: an open store and a place for the result.
        checked(unsafe {
            let [rank, size, device] = [rank, size, device].map(|number| number as c_int);
            connect(store.0, rank, size, device, milliseconds(timeout), &raw mut group)
        })?;
        Ok(Self(group))
    }

    /// Replaces `tensor`, which must be contiguous, by its sum over the ranks.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<()> {
        // SAFETY: an open group and a tensor.
        checked(unsafe { cadwright_c10d_all_reduce(self.0, pointer(tensor)) })
    }

    /// Replaces `tensor`, which must be contiguous, by that of the rank `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        // SAFETY: an open group and a tensor.
        checked(unsafe { cadwright_c10d_broadcast(self.0, pointer(tensor), root as c_int) })
    }

    /// Writes the tensors `own [n]` of all ranks to `all [size * n]`.
    pub fn all_gather(&self, all: &Tensor, own: &Tensor) -> Result<()> {
        // SAFETY: an open group and two tensors.
        checked(unsafe { cadwright_c10d_all_gather(self.0, pointer(all), pointer(own)) })
    }

    /// Sums `all [size * n]` over the ranks and writes this rank's part to `own [n]`.
    pub fn reduce_scatter(&self, own: &Tensor, all: &Tensor) -> Result<()> {
        // SAFETY: an open group and two tensors.
        checked(unsafe { cadwright_c10d_reduce_scatter(self.0, pointer(own), pointer(all)) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: an open group, which is not used again.
        unsafe { cadwright_c10d_group_close(self.0) }
    }
}

/// The `at::Tensor` behind a tensor.
fn pointer(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_to_what_happened() {
        let gloo = "[/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:19175. \
                    This is typically caused by a remote worker crashing. Check the logs.";
        assert_eq!(essence(gloo), "Connection closed by peer [127.0.0.1]:19175");
        let other = "[c10d] The client socket has timed out after 600000ms";
        assert_eq!(essence(other), other);
    }
}
