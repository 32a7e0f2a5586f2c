//! Ctrl-C and SIGTERM while work is done that can end early: a stage that trains ends its step and
//! saves a checkpoint, the agent writes what it has found. A second signal stops at once.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// When the first signal came, in milliseconds of the system's monotonic clock; 0 before it.
static REQUESTED_AT: AtomicI64 = AtomicI64::new(0);

/// What the first signal prints.
static NOTE: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

/// A signal that follows the first so closely is the same request: launchers signal a process and
/// then its whole group.
const SAME_REQUEST_MS: i64 = 1000;

const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// From now on, the first signal only prints `note` and makes [`is_requested`] true.
pub fn listen(note: &'static CStr) {
    NOTE.store(note.as_ptr().cast_mut(), Ordering::SeqCst);
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
    let note = NOTE.load(Ordering::SeqCst);
    let first = REQUESTED_AT.load(Ordering::SeqCst);
    let now = now_ms();
    // SAFETY: strlen, write and _exit are safe in a signal handler; the note is a static C string,
    // stored before the handler was set.
    unsafe {
        if first == 0 {
            REQUESTED_AT.store(now, Ordering::SeqCst);
            libc::write(libc::STDERR_FILENO, note.cast(), libc::strlen(note));
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
