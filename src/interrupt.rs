//! Ctrl-C and SIGTERM while a stage trains: the step in progress ends, a checkpoint is saved, and
//! the run stops. A second signal stops it at once.

use std::sync::atomic::{AtomicI64, Ordering};

/// When the first signal came, in milliseconds of the system's monotonic clock; 0 before it.
static REQUESTED_AT: AtomicI64 = AtomicI64::new(0);

/// A signal that follows the first so closely is the same request: launchers signal a process and
/// then its whole group.
const SAME_REQUEST_MS: i64 = 1000;

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// From now on, the first signal only makes [`is_requested`] true.
pub fn listen() {
    set_handlers(on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t);
}

/// From now on, a signal ends the process again.
pub fn ignore() {
    set_handlers(libc::SIG_DFL);
}

/// Whether someone has asked this process to stop.
pub fn is_requested() -> bool {
    REQUESTED_AT.load(Ordering::SeqCst) > 0
}

fn set_handlers(handler: libc::sighandler_t) {
    for signal in SIGNALS {
        // SAFETY: the handler calls only functions that are safe in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    const NOTE: &[u8] = b"interrupted: the step in progress ends and is saved; once more stops at once\n";
    let first = REQUESTED_AT.load(Ordering::SeqCst);
    let now = now_ms();
    // SAFETY: write and _exit are safe in a signal handler.
    unsafe {
        if first == 0 {
            REQUESTED_AT.store(now, Ordering::SeqCst);
            libc::write(libc::STDERR_FILENO, NOTE.as_ptr().cast(), NOTE.len());
        } else if now - first > SAME_REQUEST_MS {
            libc::_exit(128 + signal);
        }
    }
}

fn now_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills a timespec of ours; safe in a signal handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000 + 1
}
