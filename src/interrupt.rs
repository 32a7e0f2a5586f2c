//! Ctrl-C and SIGTERM while a stage trains: the step in progress ends, a checkpoint is saved, and
//! the run stops. A second signal stops it at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

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
    REQUESTED.load(Ordering::SeqCst)
}

fn set_handlers(handler: libc::sighandler_t) {
    for signal in SIGNALS {
        // SAFETY: the handler calls only functions that are safe in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    const NOTE: &[u8] = b"interrupted: the step in progress ends and is saved; once more stops at once\n";
    // SAFETY: write and _exit are safe in a signal handler.
    unsafe {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            libc::_exit(128 + signal);
        }
        libc::write(libc::STDERR_FILENO, NOTE.as_ptr().cast(), NOTE.len());
    }
}
