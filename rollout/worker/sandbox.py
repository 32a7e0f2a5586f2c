"""Limits what a program may do, and how much of each resource it may use.

Covered: memory, processor time, file size, open files, core dumps, new processes, other programs,
signals to other processes, network. Not covered: reading files, and writing where the user may
write. If the kernel refuses a measure, the others and the deadline still hold.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
SECCOMP_MODE_FILTER = 2
EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x0001_0000

# BPF: load a word of seccomp_data, compare it, test bits, return.
LOAD, EQUAL, BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16
ALLOW, ERRNO = 0x7FFF_0000, 0x0005_0000

# By architecture: its audit number, and the numbers of its system calls.
ARCHITECTURES: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (0xC000_003E, {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "clone": 56, "clone3": 435,
        "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297,
        "pidfd_open": 434, "pidfd_send_signal": 424, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "setsid": 112, "setpgid": 109, "prlimit64": 302, "socket": 41,
        "io_uring_setup": 425, "unshare": 272, "setns": 308, "mount": 165, "chroot": 161,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248,
    }),
    "aarch64": (0xC000_00B7, {
        "execve": 221, "execveat": 281, "clone": 220, "clone3": 435,
        "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240,
        "pidfd_open": 434, "pidfd_send_signal": 424, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "setsid": 157, "setpgid": 154, "prlimit64": 261, "socket": 198,
        "io_uring_setup": 425, "unshare": 97, "setns": 268, "mount": 40, "chroot": 51,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219, "add_key": 217,
    }),
}

libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that it can kill them."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_when_parent_dies(number: int) -> None:
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def limit(memory_bytes: int, cpu_seconds: int) -> None:
    """`memory_bytes` counts address space, including everything that is mapped already."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 64 << 20),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


def forbid_system_calls() -> bool:
    """No new process, no other program, no signal to others, no socket. True if in force."""
    if platform.machine() not in ARCHITECTURES:
        return False
    audit, numbers = ARCHITECTURES[platform.machine()]
    deny, allow = (RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)
    # A jump skips the given number of instructions.
    code = [(LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, audit), deny, (LOAD, 0, 0, NUMBER_AT)]
    for name, number in numbers.items():
        if name == "clone":  # threads only
            code += [(EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT),
                     (BITS, 0, 1, CLONE_THREAD), allow, deny]
        elif name == "clone3":  # a filter cannot read its flags; libc falls back to clone
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | ENOSYS)]
        elif name == "tgkill":  # abort() sends a signal to its own process
            code += [(EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT),
                     (EQUAL, 0, 1, os.getpid()), allow, deny]
        else:
            code += [(EQUAL, 0, 1, number), deny]
    code.append(allow)
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(packed)
    program = FilterProgram(len(code), ctypes.cast(buffer, ctypes.c_void_p))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0
