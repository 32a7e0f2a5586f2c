"""A fork server: imports CadQuery once, then runs programs in its children.

A program that might do anything (see tame.py) runs in a short-lived child of its own. The other
programs take turns in a shared child, because a fork costs as much time as a program. The shared
child is replaced now and then. If a program runs out of memory or crashes in it, the program runs
again in a child of its own, so that no program suffers from what others left behind.

Requests on stdin:  u32 length of the rest, u64 id, u8 task, payload; see program.py.
Replies on stdout:  u32 length of the rest, u64 id, one byte of kind, payload.
A reply of kind BROKEN refuses the request: its child could not be started. It may be sent again.
The server itself never runs a boolean, because OCC's thread pool does not survive a fork.
The end of stdin ends the server and every child, and removes the directory that it was given.
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
# A shared child is replaced after this number of programs, or if it has grown by these bytes.
SHARED_PROGRAMS, SHARED_GROWTH = 200, 512 << 20
# Programs of more bytes get a child of their own: a pipe takes this much at once.
SHARED_PAYLOAD = 60_000


@dataclass
class Job:
    request: int
    task: int
    payload: bytes
    deadline: float


@dataclass
class Child:
    job: Job | None  # None for a shared child without work
    pid: int
    nonce: bytes
    pidfd: int
    pipe: int
    orders: int | None  # the pipe for jobs of a shared child
    pipe_open: bool = True
    performed: int = 0
    result: bytearray = field(default_factory=bytearray)


# Replies go to a copy of stdout, so that no library can print between them.
replies = os.dup(1)
os.dup2(2, 1)


def reply(request: int, kind: bytes, payload: bytes) -> None:
    view = memoryview(struct.pack("<IQ", 9 + len(payload), request) + kind + payload)
    while view:
        view = view[os.write(replies, view):]


def oom_kills() -> int:
    """The number of processes that the kernel has killed for lack of memory since it started."""
    try:
        with open("/proc/vmstat") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0


def mapped_bytes() -> int:
    with open("/proc/self/statm") as line:
        return int(line.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Memory of a process, most of it shared with its parent; 0 if the process is gone."""
    try:
        with open(f"/proc/{pid}/statm") as line:
            return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def use_huge_pages() -> None:
    """Moves this process's memory to huge pages, so that a fork copies fewer page entries."""
    with open("/proc/self/maps") as lines:
        mappings = [line.split() for line in lines]
    for span, access, offset, _, _, *name in mappings:
        if access == "rw-p" and int(offset, 16) == 0 and (not name or name[0] == "[heap]"):
            start, end = (int(address, 16) for address in span.split("-"))
            start, end = -(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
            if start < end:  # Kernels before 6.1 refuse, which does no harm.
                address, length = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
                sandbox.libc.madvise(address, length, MADV_COLLAPSE)


class Server:
    def __init__(self, root: str, timeout_s: float, memory_bytes: int) -> None:
        self.root, self.timeout_s, self.memory_bytes = root, timeout_s, memory_bytes
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        self.shared: Child | None = None
        self.requests = bytearray()
        self.oom_kills = oom_kills()

    def run(self) -> None:
        import program  # imports CadQuery; requests wait in the pipe meanwhile

        self.perform, self.perform_tame = program.perform, program.perform_tame
        self.not_tame, self.out_of_memory = program.NOT_TAME, program.MEMORY
        self.shared_tasks = program.SHARED_TASKS
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
            waiting = [child.job.deadline for child in self.children.values() if child.job]
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
                if child.job and child.job.deadline <= now:
                    text = f"still running after {self.timeout_s:g} s"
                    self.answer(child, TIMEOUT, text.encode())
                    self.dismiss(child)

    def probe(self) -> bool:
        """Whether system calls can be forbidden on this machine, tried in a child."""
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
        try:
            os.mkdir(self.directory(request), 0o700)
        except OSError as error:
            reply(request, BROKEN, f"cannot make a directory: {error}".encode())
            return
        job = Job(request, task, payload, time.monotonic() + self.timeout_s)
        may_share = task in self.shared_tasks and len(payload) < SHARED_PAYLOAD
        if may_share and self.shared is None:
            self.shared = self.fork(job, shared=True)
        if may_share and self.shared and self.shared.job is None:
            self.give(self.shared, job)
        elif self.shared is None or self.shared.job is not job:
            self.fork(job, shared=False)

    def directory(self, request: int) -> str:
        return os.path.join(self.root, str(request))

    def fork(self, job: Job, shared: bool) -> Child | None:
        """A child for one job, or a shared child without a job. Refuses the job if none starts."""
        nonce = os.urandom(16)
        opened: list[int] = []
        pid = -1
        try:
            opened += os.pipe()
            if shared:
                opened += os.pipe()
            pid = os.fork()
            if pid > 0:
                pidfd = os.pidfd_open(pid)
        except OSError as error:
            for descriptor in opened:
                os.close(descriptor)
            if pid > 0:  # a child that cannot be watched
                kill_group(pid)
                os.waitpid(pid, 0)
            if not shared:
                reply(job.request, BROKEN, f"cannot start a process: {error}".encode())
            return None
        read_end, write_end, *ways = opened
        orders_in, orders = ways or (None, None)
        if pid == 0:
            try:
                self.child(write_end, orders_in, nonce, job)
            finally:
                os._exit(0)
        os.close(write_end)
        if orders_in is not None:
            os.close(orders_in)
        os.set_blocking(read_end, False)
        child = Child(None if shared else job, pid, nonce, pidfd, read_end, orders)
        self.children[pid] = child
        self.selector.register(read_end, selectors.EVENT_READ, child)
        self.selector.register(pidfd, selectors.EVENT_READ, child)
        return child

    def give(self, child: Child, job: Job) -> None:
        """Sends a job to a shared child. The pipe has room for the whole message."""
        child.job, child.nonce, child.result = job, os.urandom(16), bytearray()
        message = child.nonce + struct.pack("<QB", job.request, job.task) + job.payload
        with contextlib.suppress(OSError):  # if the child has died, its end is noticed soon
            os.write(child.orders, struct.pack("<I", len(message)) + message)

    def child(self, pipe: int, orders: int | None, nonce: bytes, job: Job) -> None:
        """The whole life of a child; the caller exits."""
        sandbox.signal_when_parent_dies(signal.SIGKILL)
        os.setsid()
        pipe, orders = os.dup2(pipe, 1000), None if orders is None else os.dup2(orders, 1001)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        pipe, orders = os.dup2(pipe, 3), None if orders is None else os.dup2(orders, 4)
        os.closerange(4 if orders is None else 5, 4096)
        sys.argv = ["program"]
        cores = os.cpu_count() or 1
        # Many programs share a process, so only the deadline limits the processor time of each.
        cpu_seconds = 10**7 if orders is not None else math.ceil(self.timeout_s * cores) + 2
        sandbox.limit(self.mapped + self.memory_bytes, cpu_seconds)
        if orders is None:
            os.chdir(self.directory(job.request))
        sandbox.forbid_system_calls()
        # A program may rebind names, but not these.
        write, pack, perform = os.write, struct.pack, self.perform

        def tell(nonce: bytes, result: bytes) -> None:
            view = memoryview(nonce + pack("<Q", len(result)) + result)
            while view:
                view = view[write(pipe, view):]

        if orders is None:
            tell(nonce, perform(job.task, job.payload))
            return
        with os.fdopen(orders, "rb") as messages:
            while header := messages.read(4):
                message = messages.read(struct.unpack("<I", header)[0])
                request, task = struct.unpack_from("<QB", message, 16)
                os.chdir(self.directory(request))
                result = self.perform_tame(task, message[25:])
                os.chdir(self.root)
                tell(message[:16], result)

    def read_result(self, child: Child) -> None:
        """Reads what the child has written so far."""
        while child.pipe_open:
            try:
                data = os.read(child.pipe, 1 << 20)
            except BlockingIOError:
                return
            if not data:  # closing the pipe does not end the child; its death does
                self.close_pipe(child)
                return
            if child.job is None:
                continue
            child.result += data
            if len(child.result) > RESULT_LIMIT:  # also if complete: nobody reads a longer reply
                self.answer(child, CRASH, f"wrote more than {RESULT_LIMIT} bytes".encode())
                self.dismiss(child)
            elif (result := complete_result(child)) is not None:
                self.finish(child, result)

    def finish(self, child: Child, result: bytes) -> None:
        """Answers with a result, unless the job of a shared child needs a child of its own."""
        if child.orders is None:
            self.answer(child, DONE, result)
            self.dismiss(child)
            return
        if result[0] in (self.not_tame, self.out_of_memory):
            self.fork_instead(child)
        else:
            self.answer(child, DONE, result)
        child.performed += 1
        has_grown = resident_bytes(child.pid) > self.resident + SHARED_GROWTH
        if child.performed >= SHARED_PROGRAMS or has_grown:
            self.dismiss(child)

    def fork_instead(self, child: Child) -> None:
        """Gives the job of a shared child to a child of its own, with the same deadline."""
        job, child.job = child.job, None
        self.fork(job, shared=False)

    def close_pipe(self, child: Child) -> None:
        if child.pipe_open:
            child.pipe_open = False
            self.selector.unregister(child.pipe)
            os.close(child.pipe)

    def answer(self, child: Child, kind: bytes, payload: bytes) -> None:
        """Sends the one reply to the job of a child."""
        job, child.job, child.result = child.job, None, bytearray()
        reply(job.request, kind, payload)

    def dismiss(self, child: Child) -> None:
        """Kills a child and the processes that it started."""
        if child is self.shared:
            self.shared = None
        kill_group(child.pid)

    def bury(self, child: Child) -> None:
        """Reaps a dead child.

        A job without an answer gets another child if the dead one was shared. Otherwise the answer
        is the cause of death.
        """
        _, status, usage = os.wait4(child.pid, 0)
        self.read_result(child)
        if child is self.shared:
            self.shared = None
        if child.job and child.orders is not None:
            self.fork_instead(child)
        elif child.job:
            self.answer(child, *self.cause_of_death(status, usage.ru_maxrss * 1024))
        self.close_pipe(child)
        self.selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if child.orders is not None:
            os.close(child.orders)
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
        """Kills processes that a program left behind, which the kernel has made our children."""
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
    """The result after the nonce. Whatever the program itself wrote before it is ignored."""
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
    # If the process that started us is killed, our input ends or, at the latest, this signal comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sandbox.signal_when_parent_dies(signal.SIGTERM)
    sandbox.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started us
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
