//! System calls that no drawing program needs, by their numbers. Where a call is not refused, its
//! arguments make it fail or do nothing.

use crate::hostile::cases::{Case, check};

/// By name: number, arguments in Python.
const CALLS: [(&str, u32, &str); 73] = [
    ("fork", 57, ""),
    ("clone", 56, "17, 0, 0, 0, 0"),
    ("clone into a user namespace", 56, "0x10000011, 0, 0, 0, 0"),
    ("clone3", 435, "buffer, 88"),
    ("execve", 59, "b'/nowhere', None, None"),
    ("execveat", 322, "-1, b'', None, None, 0x1000"),
    ("memfd_create", 319, "b'x', 0"),
    ("memfd_secret", 447, "0"),
    ("ptrace", 101, "0, 0, 0, 0"),
    ("process_vm_readv", 310, "other, None, 0, None, 0, 0"),
    ("process_vm_writev", 311, "other, None, 0, None, 0, 0"),
    ("process_madvise", 440, "-1, None, 0, 0, 0"),
    ("process_mrelease", 448, "-1, 0"),
    ("pidfd_open", 434, "other, 0"),
    ("pidfd_getfd", 438, "-1, 0, 0"),
    ("pidfd_send_signal", 424, "-1, 0, None, 0"),
    ("kill", 62, "other, 0"),
    ("kill of all", 62, "-1, 0"),
    ("tkill", 200, "other, 0"),
    ("tgkill", 234, "other, other, 0"),
    ("prlimit64", 302, "other, 7, b'\\1' + bytes(15), None"),
    ("sched_setaffinity", 203, "other, 0, None"),
    ("sched_setscheduler", 144, "other, -1, None"),
    ("setpriority", 141, "99, other, 0"),
    ("move_pages", 279, "other, 0, None, None, None, 0"),
    ("kcmp", 312, "os.getpid(), other, 0, 0, 0"),
    ("prctl: dumpable", 157, "4, 1, 0, 0, 0"),
    ("prctl: no death signal", 157, "1, 0, 0, 0, 0"),
    ("prctl: subreaper", 157, "36, 1, 0, 0, 0"),
    ("prctl: tracer", 157, "0x59616d61, -1, 0, 0, 0"),
    ("personality", 135, "0x40000"),
    ("modify_ldt", 154, "0, buffer, 8"),
    ("iopl", 172, "0"),
    ("ioperm", 173, "0, 0, 0"),
    ("io_uring_setup", 425, "1, None"),
    ("io_setup", 206, "1, None"),
    ("userfaultfd", 323, "0"),
    ("mount", 165, "None, None, None, 0, None"),
    ("umount2", 166, "b'/nowhere', 0"),
    ("unshare", 272, "0"),
    ("unshare of users", 272, "0x10000000"),
    ("setns", 308, "-1, 0"),
    ("pivot_root", 155, "None, None"),
    ("chroot", 161, "None"),
    ("fsopen", 430, "None, 0"),
    ("open_tree", 428, "-1, None, 0"),
    ("mount_setattr", 442, "-1, None, 0, None, 0"),
    ("bpf", 321, "0, None, 0"),
    ("perf_event_open", 298, "None, 0, -1, -1, 0"),
    ("keyctl", 250, "0, -1, 0"),
    ("add_key", 248, "None, None, None, 0, 0"),
    ("request_key", 249, "None, None, None, 0"),
    ("socket", 41, "1, 1, 0"),
    ("socketpair", 53, "1, 1, 0, buffer"),
    ("shmget", 29, "0, 4096, 0o600"),
    ("semget", 64, "0, 1, 0o600"),
    ("msgget", 68, "0, 0o600"),
    ("mq_open", 240, "None, 0, 0, None"),
    ("fanotify_init", 300, "0, 0"),
    ("open_by_handle_at", 304, "-1, None, 0"),
    ("finit_module", 313, "-1, None, 0"),
    ("delete_module", 176, "None, 0"),
    ("reboot", 169, "0, 0, 0, None"),
    ("sethostname", 170, "None, 1"),
    ("clock_settime", 227, "0, None"),
    ("swapon", 167, "None, 0"),
    ("setuid", 105, "os.getuid()"),
    ("setgroups", 116, "0, None"),
    ("capset", 126, "None, None"),
    ("mknod of a device", 133, "b'node', 0o20600, 0x103"),
    ("getpid of x32", 0x4000_0027, ""),
    ("socket of x32", 0x4000_0029, "1, 1, 0"),
    ("execve of x32", 0x4000_0208, "None, None, None"),
];

/// Calls `{number}` and says if it was not refused. A process or an object that it made ends.
const PROGRAM: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
buffer = ctypes.create_string_buffer(4096)
itself = os.getpid()
other = os.getppid() or @TRAINER@  # 0: the parent is in another world
arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in [{arguments}]]
result = libc.syscall(ctypes.c_long({number}), *arguments)
error = ctypes.get_errno()
if os.getpid() != itself:
    os._exit(0)
for get, remove in ((29, (31, result, 0, 0)), (64, (66, result, 0, 0)), (68, (71, result, 0, 0))):
    if {number} == get and result >= 0:
        libc.syscall(*map(ctypes.c_long, remove))
assert result == -1 and error in (1, 3, 38), f"got through: {result}, errno {error}"
solid = cq.Workplane().box(1, 1, 1)
"#;

pub fn all() -> Vec<Case> {
    let trainer = std::process::id().to_string();
    let program = |number: u32, arguments: &str| {
        PROGRAM
            .replace("@TRAINER@", &trainer)
            .replace("{number}", &number.to_string())
            .replace("{arguments}", arguments)
    };
    let case = |&(name, number, arguments): &(&str, u32, &str)| {
        Case::new(format!("system call {name}"), "cube|sigsys", program(number, arguments))
    };
    CALLS.iter().map(case).collect()
}

/// Every call is refused with EPERM or ENOSYS, ends the program, or finds no such process.
#[test]
#[cfg(target_arch = "x86_64")]
fn system_calls_that_drawing_does_not_need_are_refused() {
    check(&all());
}
