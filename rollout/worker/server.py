"""A fork server: imports CadQuery once, then runs every program in a short-lived child.

Requests on stdin:  u32 length of what follows, u64 id, u8 task, payload; program.py says what these are.
Replies on stdout:  u32 length of what follows, u64 id, one byte of kind, payload.
The server itself never runs a boolean: OCC's thread pool does not survive a fork.
End of stdin ends the server and every child, and removes the directory it was given.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import selectors
import shutil
import signal
import struct
import sys
import time
from dataclasses import dataclass, field

import sandbox

READY, BROKEN, DONE, TIMEOUT, MEMORY, CRASH = b"R", b"X", b"D", b"T", b"M", b"C"
RESULT_LIMIT = 64 << 20
HUGE_PAGE, MADV_COLLAPSE = 2 << 20, 25


@dataclass
class Child:
    request: int
    pid: int
    nonce: bytes
    pidfd: int
    pipe: int
    deadline: float
    pipe_open: bool = True
    answered: bool = False
    result: bytearray = field(default_factory=bytearray)


# Replies leave by a copy of stdout, so that no library can print among them.
replies = os.dup(1)
os.dup2(2, 1)


def reply(request: int, kind: bytes, payload: bytes) -> None:
    view = memoryview(struct.pack("<IQ", 9 + len(payload), request) + kind + payload)
    while view:
        view = view[os.write(replies, view):]


def oom_kills() -> int:
    """How often the kernel has killed for lack of memory since it started."""
    try:
        with open("/proc/vmstat") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0


def mapped_bytes() -> int:
    with open("/proc/self/statm") as line:
        return int(line.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def use_huge_pages() -> None:
    """Gathers this process's memory in huge pages: a fork copies one entry for each instead of 512."""
    with open("/proc/self/maps") as lines:
        mappings = [line.split() for line in lines]
    for span, access, offset, _, _, *name in mappings:
        if access == "rw-p" and int(offset, 16) == 0 and (not name or name[0] == "[heap]"):
            start, end = (int(address, 16) for address in span.split("-"))
            start, end = -(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
            if start < end:  # Kernels before 6.1 refuse, and nothing is lost.
                sandbox.libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_COLLAPSE)


class Server:
    def __init__(self, root: str, timeout_s: float, memory_bytes: int) -> None:
        self.root, self.timeout_s, self.memory_bytes = root, timeout_s, memory_bytes
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        self.requests = bytearray()
        self.oom_kills = oom_kills()

    def run(self) -> None:
        import program  # CadQuery comes with it; requests queue up in the pipe meanwhile

        self.perform = program.perform
        program.warm_up()
        gc.collect()
        gc.freeze()
        use_huge_pages()
        self.mapped = mapped_bytes()
        self.resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.selector.register(0, selectors.EVENT_READ)
        version = getattr(program.cq, "__version__", "unknown")
        ready = {"cadquery": version, "python": sys.version.split()[0], "confined": self.probe()}
        reply(0, READY, json.dumps(ready).encode())
        while True:
            waiting = [child.deadline for child in self.children.values() if not child.answered]
            wait = max(0.0, min(waiting) - time.monotonic()) if waiting else None
            for key, _ in self.selector.select(wait):
                if key.fd == 0:
                    if not self.read_requests():
                        return
                elif key.fd == key.data.pidfd:
                    self.bury(key.data)
                elif key.data.pipe_open:
                    self.read_result(key.data)
            now = time.monotonic()
            for child in list(self.children.values()):
                if child.deadline <= now:
                    text = f"still running after {self.timeout_s:g} s"
                    self.answer(child, TIMEOUT, text.encode())

    def probe(self) -> bool:
        """Whether system calls can be forbidden here, tried out in a child."""
        pid = os.fork()
        if pid == 0:
            os._exit(0 if sandbox.forbid_system_calls() else 1)
        return os.waitpid(pid, 0)[1] == 0

    def read_requests(self) -> bool:
        data = os.read(0, 1 << 16)
        self.requests += data
        while len(self.requests) >= 4:
            length = struct.unpack_from("<I", self.requests)[0]
            if len(self.requests) < 4 + length:
                break
            request = struct.unpack_from("<Q", self.requests, 4)[0]
            task, payload = self.requests[12], bytes(self.requests[13:4 + length])
            del self.requests[:4 + length]
            self.start(request, task, payload)
        return bool(data)

    def start(self, request: int, task: int, payload: bytes) -> None:
        directory = os.path.join(self.root, str(request))
        nonce = os.urandom(16)
        try:
            os.mkdir(directory, 0o700)
            read_end, write_end = os.pipe()
        except OSError as error:
            reply(request, BROKEN, str(error).encode())
            return
        deadline = time.monotonic() + self.timeout_s
        try:
            pid = os.fork()
        except OSError as error:
            os.close(read_end)
            os.close(write_end)
            reply(request, BROKEN, f"fork: {error}".encode())
            return
        if pid == 0:
            try:
                self.child(directory, write_end, nonce, task, payload)
            finally:
                os._exit(0)
        os.close(write_end)
        os.set_blocking(read_end, False)
        pidfd = os.pidfd_open(pid)
        child = Child(request, pid, nonce, pidfd, read_end, deadline)
        self.children[pid] = child
        self.selector.register(read_end, selectors.EVENT_READ, child)
        self.selector.register(pidfd, selectors.EVENT_READ, child)

    def child(self, directory: str, pipe: int, nonce: bytes, task: int, payload: bytes) -> None:
        """The child's whole life; the caller exits."""
        sandbox.signal_when_parent_dies(signal.SIGKILL)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        pipe = os.dup2(pipe, 3)
        os.closerange(4, 4096)
        os.chdir(directory)
        sys.argv = ["program"]
        cores = os.cpu_count() or 1
        sandbox.limit(self.mapped + self.memory_bytes, math.ceil(self.timeout_s * cores) + 2)
        sandbox.forbid_system_calls()
        # What follows must not be taken away by a program that rebinds names.
        write, pack, perform = os.write, struct.pack, self.perform
        result = perform(task, payload)
        view = memoryview(nonce + pack("<Q", len(result)) + result)
        while view:
            view = view[write(pipe, view):]

    def read_result(self, child: Child) -> None:
        """Takes what the child has written so far."""
        while child.pipe_open:
            try:
                data = os.read(child.pipe, 1 << 20)
            except BlockingIOError:
                return
            if not data:  # only the child's death tells whether this is the end
                self.close_pipe(child)
                return
            if child.answered:
                continue
            child.result += data
            if (result := complete_result(child)) is not None:
                self.answer(child, DONE, result)
            elif len(child.result) > RESULT_LIMIT:
                self.answer(child, CRASH, f"wrote {RESULT_LIMIT} bytes and no result".encode())

    def close_pipe(self, child: Child) -> None:
        if child.pipe_open:
            child.pipe_open = False
            self.selector.unregister(child.pipe)
            os.close(child.pipe)

    def answer(self, child: Child, kind: bytes, payload: bytes) -> None:
        """Sends the one reply for a child and kills whatever still runs of it."""
        if not child.answered:
            child.answered = True
            child.deadline = math.inf
            child.result = bytearray()
            kill_group(child.pid)
            reply(child.request, kind, payload)

    def bury(self, child: Child) -> None:
        """Reaps a dead child; without an answer so far its end is the answer."""
        _, status, usage = os.wait4(child.pid, 0)
        self.read_result(child)
        if not child.answered:
            self.answer(child, *self.cause_of_death(status, usage.ru_maxrss * 1024))
        self.close_pipe(child)
        self.selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self.children[child.pid]
        kill_group(child.pid)
        self.kill_orphans()

    def cause_of_death(self, status: int, resident: int) -> tuple[bytes, bytes]:
        if not os.WIFSIGNALED(status):
            code = os.waitstatus_to_exitcode(status)
            return CRASH, f"exited with status {code} and no result".encode()
        number = os.WTERMSIG(status)
        name = f"killed by {signal.Signals(number).name}" if number < 32 else f"signal {number}"
        if number == signal.SIGXCPU:
            return TIMEOUT, b"used up its processor time"
        if number == signal.SIGKILL and (kills := oom_kills()) > self.oom_kills:
            self.oom_kills = kills
            return MEMORY, b"killed by the system for lack of memory"
        if resident > self.resident + 0.8 * self.memory_bytes:
            return MEMORY, f"{name} at its memory limit".encode()
        return CRASH, name.encode()

    def kill_orphans(self) -> None:
        """Kills processes that a program left behind; the kernel has made them our children."""
        path = f"/proc/self/task/{os.getpid()}/children"
        for _ in range(1000):
            try:
                with open(path) as line:
                    strangers = [int(p) for p in line.read().split() if int(p) not in self.children]
            except OSError:
                return
            if not strangers:
                return
            for pid in strangers:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def complete_result(child: Child) -> bytes | None:
    """What follows the nonce; anything the program itself wrote before it is ignored."""
    at = child.result.find(child.nonce)
    if at < 0 or len(child.result) < at + 24:
        return None
    length = struct.unpack_from("<Q", child.result, at + 16)[0]
    if len(child.result) < at + 24 + length:
        return None
    return bytes(child.result[at + 24:at + 24 + length])


def kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


def main() -> None:
    root, timeout_s, memory_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    # Whoever started us may be killed: then our input ends, or at the latest this signal comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sandbox.signal_when_parent_dies(signal.SIGTERM)
    sandbox.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    server = Server(root, timeout_s, memory_bytes)
    try:
        server.run()
    except ImportError as error:
        reply(0, BROKEN, f"{error}".encode())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in server.children.values():
            kill_group(child.pid)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
