"""A fork server: imports CadQuery once, then runs programs in its children.

A program that might do anything (see tame.py) runs in a child of its own, which hands over nothing
but geometry (program.py). Another child, which has run no program, measures it (measure.py). The
other programs take turns in a shared child, because a fork costs as much time as a program; it
measures them itself, after it has checked that the program changed nothing (state.py). Another one,
the gauge, measures geometry in turn, for the same reason. Both are replaced now and then. If a
program changes something in the shared child, or if memory runs out or a crash happens in either,
the work is done again in a child of its own, so that no program suffers from what others left.

Programs and results never pass through the server: its memory is what children begin with. They are
in files `REQUEST.in` and `REQUEST.out` of the directory that the server was given.

Requests on stdin:  u32 length of the rest, u64 id, u8 task; see measure.py.
Replies on stdout:  u32 length of the rest, u64 id, one byte of kind, payload.
A reply of kind DONE says that the result is in its file. BROKEN refuses the request: its child could
not be started or confined. It may be sent again. OLD, with id 0, asks for another server.
The server itself never runs a boolean, because OCC's thread pool does not survive a fork.
The end of stdin ends the server and every child, and removes the directory that it was given.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sandbox

READY, BROKEN, DONE, TIMEOUT, MEMORY, CRASH, OLD = b"R", b"X", b"D", b"T", b"M", b"C", b"O"
HUGE_PAGE, MADV_COLLAPSE = 2 << 20, 25
# A child for many programs is replaced after this number of them, or if it has grown by these bytes.
SHARED_PROGRAMS, SHARED_GROWTH = 200, 512 << 20
# A server that has grown by these bytes asks for another one, and one whose forks take this many
# times as long as its first ones, and these seconds.
SERVER_GROWTH = 256 << 20
SLOWER, SLOW_FORK_S = 8.0, 0.2
# The most bytes that are read of what a child for one program says about its steps.
STEPS_BYTES = 1 << 16
# What a child says about its result, besides 0: it is too long. Only a child for many programs: the
# program is not tame, or it has run but its result, and the child, cannot be trusted.
TOO_LONG, WILD, SPOILED = 98, 254, 255


@dataclass
class Job:
    request: int
    task: int
    deadline: float
    # Programs whose processes still run.
    running: int = 0
    has_directory: bool = False
    # What a child for one program says once it has handed over its result. It is random, so that a
    # program which writes to every descriptor does not say it.
    finished: bytes = field(default_factory=lambda: os.urandom(16))


@dataclass
class Child:
    job: Job | None  # None for a shared child without work
    # "author" runs a program, "measurer" measures; "shared" does both, and "gauge" measures, for many
    # programs in turn.
    role: str
    pid: int
    pidfd: int
    # The pipe in which the child speaks; None once that is over.
    words: int | None
    # Of a child for one program: it says that it is prepared, by one byte before the program runs, and
    # then that it has finished, so that nobody waits for its end. What it has said after that byte.
    is_prepared: bool = False
    said: bytes = b""
    # Of a child for many programs: the pipe for orders, each of which it answers in the other.
    orders: int | None = None
    performed: int = 0


# Replies go to a copy of stdout, so that no library can print between them.
replies = os.dup(1)
os.dup2(2, 1)


def reply(request: int, kind: bytes, payload: bytes = b"") -> None:
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


def tell(descriptor: int, result: bytes) -> int:
    """Writes a result; returns what to say about it."""
    view = memoryview(result)
    try:
        while view:
            view = view[os.write(descriptor, view):]
    except OSError as error:
        return TOO_LONG if error.errno == errno.EFBIG else 1
    return 0


def tell_last(descriptor: int, result: bytes, words: int, finished: bytes) -> int:
    """Writes a result of a child that ends then, and says so."""
    told = tell(descriptor, result)
    if told == 0:
        with contextlib.suppress(OSError):  # the program may have closed it; then our end tells
            os.write(words, finished)
    return told


class Server:
    def __init__(
        self, root: str, timeout_s: float, memory_bytes: int, layers: sandbox.Sandbox, result_name: str,
    ) -> None:
        self.root, self.timeout_s, self.memory_bytes, self.sandbox = root, timeout_s, memory_bytes, layers
        self.result_name = result_name
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        # By role: the child for many programs.
        self.lasting: dict[str, Child | None] = {"shared": None, "gauge": None}
        self.requests = bytearray()
        self.oom_kills = oom_kills()
        self.is_old = False
        # Seconds of a fork: the mean of the first ones, and of the last ones.
        self.forks, self.first_forks, self.last_forks = 0, 0.0, 0.0

    def run(self) -> None:
        import measure  # imports CadQuery; requests wait in the pipe meanwhile
        import program

        if self.result_name:
            program.RESULT_NAMES = (self.result_name, *program.RESULT_NAMES)
        self.measure, self.program = measure, program
        measure.warm_up()
        import state

        self.state = state.Snapshot()
        gc.collect()
        gc.freeze()
        use_huge_pages()
        self.mapped = mapped_bytes()
        self.resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.selector.register(0, selectors.EVENT_READ)
        version = getattr(program.cq, "__version__", "unknown")
        ready = {
            "cadquery": version, "python": sys.version.split()[0],
            "layers": {name: {"holds": ok, "detail": text} for name, (ok, text) in self.sandbox.layers.items()},
        }
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
                elif key.fd == key.data.words:
                    self.listen(key.data)
            now = time.monotonic()
            for job in {id(c.job): c.job for c in self.children.values() if c.job and c.job.deadline <= now}.values():
                self.answer(job, TIMEOUT, f"still running after {self.timeout_s:g} s".encode())

    def read_requests(self) -> bool:
        data = os.read(0, 1 << 16)
        self.requests += data
        while len(self.requests) >= 13:
            _, request, task = struct.unpack_from("<IQB", self.requests)
            del self.requests[:13]
            self.start(Job(request, task, time.monotonic() + self.timeout_s))
        return bool(data)

    def path(self, job: Job, ending: str = "") -> str:
        return os.path.join(self.root, f"{job.request}{ending}")

    def start(self, job: Job) -> None:
        if not self.give("shared", job):
            self.start_alone(job)

    def start_alone(self, job: Job) -> None:
        """Starts the processes that run the programs of a job, or the one that reads its file."""
        try:
            os.mkdir(self.path(job), 0o700)
            if self.sandbox.scratch:
                sandbox.mount_scratch(self.path(job))
            job.has_directory = True
        except (OSError, sandbox.LayerError) as error:
            self.refuse(job, f"cannot make a directory: {error}")
            return
        if job.task == self.measure.STEP:
            self.start_measurer(job)
            return
        for index in range(self.programs(job)):
            if not self.fork_single(job, "author", lambda words: self.run_program(job, index, words)):
                return
            job.running += 1

    def programs(self, job: Job) -> int:
        return {self.measure.EXACT: 2, self.measure.STEP: 0}.get(job.task, 1)

    def start_measurer(self, job: Job) -> None:
        with contextlib.suppress(OSError):  # a program may remove its directory where Landlock is missing
            os.mkdir(self.path(job), 0o700)
        self.fork_single(job, "measurer", lambda words: self.run_measurement(job, words))

    def fork_single(self, job: Job, role: str, life: Callable[[int], int]) -> bool:
        """Starts a child for one program. Refuses the job if that fails."""
        try:
            words, words_out = os.pipe()
        except OSError as error:
            self.refuse(job, f"cannot make a pipe: {error}")
            return False
        started = self.fork(Child(job, role, 0, 0, words), lambda: life(words_out))
        os.close(words_out)
        if not started:
            os.close(words)
        return started

    def fork(self, child: Child, life: Callable[[], int]) -> bool:
        """Starts a child that lives its life. Refuses its job if that fails."""
        pid, started = -1, time.monotonic()
        try:
            pid = os.fork()
            if pid > 0:
                self.note_fork(time.monotonic() - started)
                child.pidfd = os.pidfd_open(pid)
        except OSError as error:
            if pid > 0:  # a child that cannot be watched
                kill_group(pid)
                os.waitpid(pid, 0)
            if child.job:
                self.refuse(child.job, f"cannot start a process: {error}")
            return False
        if pid == 0:
            status = 1
            try:
                status = life()
            finally:
                os._exit(status)
        child.pid = pid
        self.children[pid] = child
        os.set_blocking(child.words, False)
        for descriptor in (child.pidfd, child.words):
            self.selector.register(descriptor, selectors.EVENT_READ, child)
        return True

    def note_fork(self, seconds: float) -> None:
        """Asks for another server if this one has grown or slowed down."""
        self.forks += 1
        if self.forks <= 32:
            self.first_forks += seconds / 32
            self.last_forks = self.first_forks
        self.last_forks += 0.05 * (seconds - self.last_forks)
        is_slow = self.forks > 64 and self.last_forks > max(SLOW_FORK_S, SLOWER * self.first_forks)
        has_grown = self.forks % 64 == 0 and resident_bytes(os.getpid()) > self.resident + SERVER_GROWTH
        if (is_slow or has_grown) and not self.is_old:
            self.is_old = True
            reply(0, OLD)

    def fork_lasting(self, role: str) -> Child | None:
        """A child for many programs."""
        opened: list[int] = []
        try:
            opened += os.pipe()
            opened += os.pipe()
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            return None
        orders_in, orders, words, words_out = opened
        child = Child(None, role, 0, 0, words, orders=orders)
        work = {"shared": self.share, "gauge": self.gauge}[role]
        started = self.fork(child, lambda: self.run_lasting(work, orders_in, words_out))
        os.close(orders_in)
        os.close(words_out)
        if not started:
            os.close(orders)
            os.close(words)
            return None
        return child

    def give(self, role: str, job: Job) -> bool:
        """Sends a job to a child for many programs, if that may do it and has nothing else to do."""
        if job.task not in (self.measure.MESH, self.measure.SHELL):
            return False
        child = self.lasting[role] = self.lasting[role] or self.fork_lasting(role)
        if child is None or child.job is not None:
            return False
        child.job = job
        with contextlib.suppress(OSError):  # if the child has died, its end is noticed soon
            os.write(child.orders, struct.pack("<QB", job.request, job.task))  # the pipe has room
        return True

    # What children do.

    def settle(self, keep: list[int], cpu_seconds: int) -> list[int]:
        """The first steps of every child. Returns the new numbers of the descriptors that it keeps."""
        sandbox.signal_when_parent_dies(signal.SIGKILL)
        os.setsid()
        high = [os.dup2(descriptor, 1000 + place) for place, descriptor in enumerate(keep)]
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        kept = [os.dup2(descriptor, 3 + place) for place, descriptor in enumerate(high)]
        os.closerange(3 + len(kept), 4096)
        sys.argv = ["program"]
        sandbox.limit(self.mapped + self.memory_bytes, cpu_seconds, self.sandbox.own_users)
        return kept

    def settle_alone(self, job: Job, kept: int, words: int) -> list[int]:
        """The first steps of a child for one program, up to the last layer. Returns the new numbers of
        the two descriptors.
        """
        cpu_seconds = math.ceil(self.timeout_s * (os.cpu_count() or 1)) + 2
        kept, words = self.settle([kept, words], cpu_seconds)
        os.chdir(self.path(job))
        os.environ["HOME"] = os.environ["TMPDIR"] = self.path(job)
        self.sandbox.confine(self.path(job))
        os.write(words, b"p")
        return [kept, words]

    def run_program(self, job: Job, index: int, words: int) -> int:
        """The life of a child that runs one program."""
        text = self.measure.programs_in(job.task, self.payload(job))[index]
        said, words = self.settle_alone(job, self.open_new(job, f".said{index}"), words)
        # A program may rebind names, but not these.
        hand_over, truncate, seek = self.program.hand_over, os.ftruncate, os.lseek
        message = hand_over(text)
        # It may have written there. Whatever it hands over, it can only spoil its own geometry.
        truncate(said, 0)
        seek(said, 0, os.SEEK_SET)
        return tell_last(said, message, words, job.finished)

    def run_measurement(self, job: Job, words: int) -> int:
        """The life of a child that measures once."""
        payload, said = self.payload(job), self.said(job)
        out, words = self.settle_alone(job, self.open_new(job, ".out"), words)
        return tell_last(out, self.measure.measure(job.task, payload, said), words, job.finished)

    def run_lasting(self, work: Callable[[Job], int], orders: int, words: int) -> int:
        """The life of a child for many programs."""
        # Only the deadline limits the processor time of each.
        orders, words = self.settle([orders, words], 10**7)
        os.chdir(self.root)
        self.sandbox.confine(self.root)
        while order := os.read(orders, 9):
            request, task = struct.unpack("<QB", order)
            os.write(words, struct.pack("<QB", request, work(Job(request, task, 0.0))))
        return 0

    def share(self, job: Job) -> int:
        """Runs and measures a tame program."""
        program, measure = self.program, self.measure
        text = self.payload(job).decode()
        if not program.is_tame(text):
            return WILD
        try:
            shape, solids, error = program.build(text)
        except BaseException as exception:
            shape, error = None, program.failure_of(exception)
        # From here on nothing runs that the program could have changed.
        if not self.state.is_intact():
            return SPOILED
        try:
            result = error if shape is None else measure.pack(shape, solids, job.task)
        except BaseException as exception:
            result = program.failure_of(exception)
        if result[0] == program.MEMORY:  # perhaps the fault of those before it
            return SPOILED
        return self.tell_result(job, result)

    def gauge(self, job: Job) -> int:
        """Measures what a program's process has handed over."""
        said = self.said(job)
        result = self.measure.measure(job.task, b"", said)
        if result[:1] == bytes([self.program.MEMORY]) and said[0][:1] == bytes([self.program.SOLID]):
            return SPOILED  # as in `share`
        return self.tell_result(job, result)

    def tell_result(self, job: Job, result: bytes) -> int:
        out = self.open_new(job, ".out")
        told = tell(out, result)
        os.close(out)
        return told

    def open_new(self, job: Job, ending: str) -> int:
        return os.open(self.path(job, ending), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)

    def said(self, job: Job) -> list[bytes]:
        """What the processes of a job's programs have handed over."""
        return [self.read(job, f".said{index}") for index in range(self.programs(job))]

    def payload(self, job: Job) -> bytes:
        return self.read(job, ".in")

    def read(self, job: Job, ending: str) -> bytes:
        with open(self.path(job, ending), "rb") as file:
            return file.read()

    # What the server learns of them.

    def listen(self, child: Child) -> None:
        """Takes what a child says."""
        size, hear = (STEPS_BYTES, self.hear_steps) if child.orders is None else (9, self.hear_answer)
        while child.words is not None:
            try:
                said = os.read(child.words, size)
            except BlockingIOError:
                return
            hear(child, said)

    def hear_answer(self, child: Child, said: bytes) -> None:
        """Takes what a child for many programs says about its job."""
        if len(said) < 9:  # the end of the child; see bury
            self.forget_words(child)
            return
        request, word = struct.unpack("<QB", said)
        job, child.job = child.job, None
        if job and job.request == request:
            if word in (WILD, SPOILED):
                self.do_again(job, child.role)
            else:
                self.conclude(job, word)
        child.performed += 1
        has_grown = resident_bytes(child.pid) > self.resident + SHARED_GROWTH
        if child.performed >= SHARED_PROGRAMS or has_grown or word == SPOILED:
            self.dismiss(child)

    def hear_steps(self, child: Child, said: bytes) -> None:
        """Takes what a child for one program says about its steps."""
        child.said += said if child.is_prepared else said[1:]
        child.is_prepared = child.is_prepared or bool(said)
        # A program that says so itself has handed over its own geometry too early, no more.
        has_finished = child.job is not None and child.said.endswith(child.job.finished)
        if not said or has_finished or len(child.said) > STEPS_BYTES:
            self.forget_words(child)
        if has_finished:
            job, child.job = child.job, None
            self.dismiss(child)
            self.go_on(job, child.role, 0)

    def conclude(self, job: Job, status: int) -> None:
        if status == 0:
            self.answer(job, DONE)
        elif status == TOO_LONG:
            self.answer(job, CRASH, f"its result has more than {sandbox.FILE_BYTES} bytes".encode())
        else:
            self.answer(job, CRASH, f"exited with status {status} and no result".encode())

    def refuse(self, job: Job, why: str) -> None:
        self.answer(job, BROKEN, why.encode())

    def answer(self, job: Job, kind: bytes, payload: bytes = b"") -> None:
        """Sends the one reply to a job and ends its processes."""
        for child in [child for child in self.children.values() if child.job is job]:
            child.job = None
            self.dismiss(child)
        if job.has_directory and self.sandbox.scratch:
            sandbox.unmount(self.path(job))
        reply(job.request, kind, payload)

    def dismiss(self, child: Child) -> None:
        """Kills a child and the processes that it started."""
        self.forget(child)
        kill_group(child.pid)

    def forget(self, child: Child) -> None:
        if self.lasting.get(child.role) is child:
            self.lasting[child.role] = None

    def bury(self, child: Child) -> None:
        """Reaps a dead child, and sees to its job: the next step, another child, or its end."""
        _, status, usage = os.wait4(child.pid, 0)
        self.listen(child)
        self.forget(child)
        self.selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if child.orders is not None:
            os.close(child.orders)
        self.forget_words(child)
        del self.children[child.pid]
        kill_group(child.pid)
        self.kill_orphans()
        job, child.job = child.job, None
        if job is None:
            return
        if child.role in self.lasting:
            self.do_again(job, child.role)
        elif not child.is_prepared:
            self.refuse(job, f"a process could not be prepared: it ended with {status:#x}")
        elif os.WIFSIGNALED(status):
            self.answer(job, *self.cause_of_death(os.WTERMSIG(status), usage.ru_maxrss * 1024))
        else:
            self.go_on(job, child.role, os.waitstatus_to_exitcode(status))

    def go_on(self, job: Job, role: str, status: int) -> None:
        """The next step of a job, or its end, after a child for one program has done its own."""
        if role == "measurer" or status != 0:
            self.conclude(job, status)
            return
        job.running -= 1
        if job.running == 0 and not self.give("gauge", job):
            self.start_measurer(job)

    def do_again(self, job: Job, role: str) -> None:
        """Gives the job of a child for many programs to a child of its own."""
        if role == "shared":
            self.start_alone(job)
        else:
            self.start_measurer(job)

    def forget_words(self, child: Child) -> None:
        if child.words is not None:
            self.selector.unregister(child.words)
            os.close(child.words)
            child.words = None

    def cause_of_death(self, number: int, resident: int) -> tuple[bytes, bytes]:
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


def kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


def first_of_namespace() -> None:
    """Continues in a child, the first process of a pid namespace. This process waits for its end."""
    pid = os.fork()
    if pid == 0:
        sandbox.signal_when_parent_dies(signal.SIGKILL)
        sandbox.mount_proc()
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    for descriptor in (0, 1, replies):
        os.close(descriptor)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)


def main() -> None:
    root, timeout_s, memory_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    is_required = sys.argv[4] == "required"
    result_name = sys.argv[5] if len(sys.argv) > 5 else ""
    # If the process that started us is killed, our input ends or, at the latest, this signal comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started us
    sandbox.signal_when_parent_dies(signal.SIGTERM)
    filters = [Path(name).read_bytes() for name in ("calls.bpf", "clone3.bpf") if os.path.exists(name)]
    namespaces, why_not, is_new = sandbox.enter_namespaces()
    if is_new:
        first_of_namespace()
    sandbox.adopt_orphans()
    layers = sandbox.Sandbox(filters, namespaces, why_not)
    if is_required and layers.broken:
        reply(0, BROKEN, f"a layer of the sandbox does not hold: {'; '.join(layers.broken)}".encode())
        return
    sandbox.hide_memory()
    server = Server(root, timeout_s, memory_bytes, layers, result_name)
    try:
        server.run()
    except ImportError as error:
        reply(0, BROKEN, f"{error}".encode())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in server.children.values():
            kill_group(child.pid)
        if layers.scratch:
            for entry in os.scandir(root):
                sandbox.unmount(entry.path)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
