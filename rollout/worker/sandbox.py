"""The layers between a program and everything else. ../README.md says what each is for.

The server enters the namespaces when it starts. Its children take the other layers before they do
anything for a program. What the kernel offers is found out by trying, in processes that end.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2

# By name: the flag of unshare.
NAMESPACES = {"user": 0x1000_0000, "mount": 0x0002_0000, "ipc": 0x0800_0000, "net": 0x4000_0000, "pid": 0x2000_0000}
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x4_0000
MNT_DETACH = 2

# Landlock: system calls, which have the same numbers on every architecture, and rights.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
MAKE_DEVICES_AND_SOCKETS = 1 << 6 | 1 << 9 | 1 << 11
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
# By version of the interface: the number of rights to files that it knows.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NETWORK, SCOPES = 0b11, 0b11

# The bytes and the files that one program may write.
FILE_BYTES, FILES = 64 << 20, 4096

# Processes and threads of a server, all its children together.
THREADS = 4096

# The number in a filter that stands for the process itself (src/filter.rs).
OWN_PID = 0x7FED_CBA9

# The exit status of a process that could not take its layers.
UNCONFINED = 97


class LayerError(Exception):
    """A layer that does not hold, and why."""


def check(result: int, what: str) -> int:
    if result < 0:
        raise LayerError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that it can kill them."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_when_parent_dies(number: int) -> None:
    libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def hide_memory() -> None:
    """Lets no process of the same user read this one's memory or descriptors."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(memory_bytes: int, cpu_seconds: int, own_users: bool) -> None:
    """`memory_bytes` counts address space, including everything that is mapped already."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 128),
        (resource.RLIMIT_CORE, 0),
        # Threads count. In a user namespace only those within it do; root is not limited.
        (resource.RLIMIT_NPROC, THREADS if own_users else resource.RLIM_INFINITY),
    ):
        if most == resource.RLIM_INFINITY:
            continue
        hard = resource.getrlimit(what)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


def enter_namespaces() -> tuple[list[str], str, bool]:
    """Enters what the kernel grants; returns the names, why not all, and whether the next child of
    this process is the first process of a pid namespace. The process must have one thread.
    """
    reason = ""
    for names in (list(NAMESPACES), [name for name in NAMESPACES if name != "pid"]):
        try:
            attempt(lambda names=names: (unshare(names), attempt(lambda: try_mounts(names))))
        except LayerError as error:
            reason = reason or str(error)
            continue
        unshare(names)
        return names, reason, "pid" in names
    return [], reason, False


def unshare(names: list[str]) -> None:
    user, group = os.getuid(), os.getgid()
    check(libc.unshare(sum(NAMESPACES[name] for name in names)), f"unshare {' '.join(names)}")
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path("/proc/self", file).write_text(text)
        except OSError as error:
            raise LayerError(f"write /proc/self/{file}: {error.strerror}") from error
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")


def try_mounts(names: list[str]) -> None:
    if "pid" in names:
        mount_proc()
    mount_scratch("/")


def mount_proc() -> None:
    """The first process of a pid namespace sees its own processes only."""
    check(libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None), "mount /proc")


def mount_scratch(directory: str) -> None:
    """A file system in memory, of limited size."""
    options = f"size={FILE_BYTES},nr_inodes={FILES},mode=700".encode()
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.mount(b"tmpfs", directory.encode(), b"tmpfs", flags, options), "mount a scratch directory")


def unmount(directory: str) -> None:
    libc.umount2(directory.encode(), MNT_DETACH)


def attempt(action: Callable[[], None]) -> None:
    """Tries something in a child that ends. Raises what the child raised."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            os.write(write_end, str(error).encode()[:1000])
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    if os.waitpid(pid, 0)[1] != 0:
        raise LayerError(text or "ended without a word")


def readable_paths() -> list[str]:
    """Python, CadQuery, and what their libraries read: shared libraries, fonts, numbers of cores."""
    of_python = [*filter(None, sys.path[1:]), f"{sys.prefix}/lib", f"{sys.base_prefix}/lib"]
    of_libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    of_system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/fonts",
                 "/etc/fonts", "/usr/share/zoneinfo", "/etc/localtime", "/sys/devices/system/cpu", "/dev/urandom"]
    paths = [os.path.realpath(path) for path in [*of_python, *of_libraries, *of_system] if path.startswith("/")]
    return sorted({path for path in paths if os.path.exists(path)})


class Landlock:
    """Which files can be reached. The kernel lets no process take a rule back."""

    def __init__(self) -> None:
        self.version = libc.syscall(CREATE_RULESET, None, 0, 1)
        if self.version < 1:
            raise LayerError(f"landlock: {os.strerror(ctypes.get_errno())}")
        self.rights = (1 << FILE_RIGHTS[min(self.version, 5)]) - 1
        self.readable = readable_paths()

    def restrict(self, writable: str) -> None:
        """Allows to read `readable_paths()`, and to do anything usual in the directory `writable`."""
        network, scopes = (NETWORK if self.version >= 4 else 0), (SCOPES if self.version >= 6 else 0)
        attributes = struct.pack("<QQQ", self.rights, network, scopes)
        size = 8 if self.version < 4 else 16 if self.version < 6 else 24
        ruleset = check(libc.syscall(CREATE_RULESET, attributes, size, 0), "landlock: create a ruleset")
        for path in self.readable:
            self.allow(ruleset, path, READ)
        self.allow(ruleset, os.devnull, READ_FILE | WRITE_FILE)
        self.allow(ruleset, writable, self.rights & ~(EXECUTE | MAKE_DEVICES_AND_SOCKETS))
        check(libc.syscall(RESTRICT_SELF, ruleset, 0), "landlock: restrict")
        os.close(ruleset)

    def allow(self, ruleset: int, path: str, rights: int) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= OF_FILES
        rule = struct.pack("<Qi", rights & self.rights, descriptor)
        check(libc.syscall(ADD_RULE, ruleset, 1, rule, 0), f"landlock: a rule for {path}")
        os.close(descriptor)


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_filter(code: bytes) -> None:
    """Installs a seccomp filter, after putting this process's id where the filter asks for it."""
    code = code.replace(struct.pack("<I", OWN_PID), struct.pack("<I", os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = FilterProgram(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


def drop_capabilities() -> None:
    header, nothing = struct.pack("<Ii", 0x2008_0522, 0), bytes(24)
    check(libc.capset(header, nothing), "drop capabilities")


class Sandbox:
    """The layers that hold on this machine."""

    def __init__(self, filters: list[bytes], namespaces: list[str], no_namespaces: str) -> None:
        self.filters = filters
        self.landlock: Landlock | None = None
        self.scratch, self.own_users = "mount" in namespaces, "user" in namespaces
        # By layer: whether it holds, and in which form or why not.
        self.layers: dict[str, tuple[bool, str]] = {
            "limits": (True, "memory, processor time, files, descriptors"),
            "namespaces": (bool(namespaces), " ".join(namespaces) or no_namespaces),
            "scratch": (self.scratch, f"{FILE_BYTES >> 20} MiB" if self.scratch else "no mount namespace"),
        }
        # The layers that the kernel offers and that yet do not hold.
        self.broken: list[str] = []
        self.probe()

    def probe(self) -> None:
        try:
            self.landlock = Landlock()
        except LayerError as error:
            self.layers["landlock"] = (False, str(error))
        tries: list[tuple[str, str, Callable[[], None]]] = []
        tries.append(("privileges", "none, and no new ones", self.drop_privileges))
        if self.landlock:
            tries.append(("landlock", f"version {self.landlock.version}", lambda: self.restrict_files(os.getcwd())))
        if self.filters:
            tries.append(("seccomp", "a list of allowed system calls", self.restrict_calls))
        else:
            self.layers["seccomp"] = (False, f"no filter for {os.uname().machine}")
        for name, form, action in tries:
            try:
                attempt(lambda action=action: (self.drop_privileges(), action()))
                self.layers[name] = (True, form)
            except LayerError as error:
                self.layers[name] = (False, str(error))
                self.broken.append(f"{name}: {error}")
        if not self.layers["landlock"][0]:
            self.landlock = None
        if not self.layers["seccomp"][0]:
            self.filters = []

    def drop_privileges(self) -> None:
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        drop_capabilities()

    def restrict_files(self, writable: str) -> None:
        if self.landlock:
            self.landlock.restrict(writable)

    def restrict_calls(self) -> None:
        for code in self.filters:
            install_filter(code)

    def confine(self, writable: str) -> None:
        """Takes every layer that holds here. Ends the process if one does not hold now."""
        try:
            hide_memory()
            if self.layers["privileges"][0]:
                self.drop_privileges()
            self.restrict_files(writable)
            self.restrict_calls()
        except BaseException:
            os._exit(UNCONFINED)
