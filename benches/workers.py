"""Measures the cost of isolation: workers that fork for each program, compared with CadQuery in one
process, on the same programs.

    .venv/bin/python benches/workers.py --input programs.jsonl [--rounds 3]

`programs.jsonl` has rows {"code": ...}; programs that build no solid are skipped. Both sides execute
every program, compute mass properties, bounds and validity, tessellate and pack, by the same code,
one program at a time; imports are not counted. The filter for system calls, which cadwright makes,
is not installed here. They take turns, so that a busy machine slows down
both. Prints milliseconds of processor time and of wall time for a program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKER = Path(__file__).resolve().parent.parent / "rollout" / "worker"
TIMEOUT_S, MEMORY_BYTES = 60, 4 << 30
MESH, SOLID = 0, 0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """The processor time of a process and of all below it, the finished ones too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(map(cpu_seconds, map(int, children)))


class Side:
    """A process that answers programs over pipes, as `server.py` does."""

    def __init__(self, arguments: list[str], root: str) -> None:
        self.root, self.requests = root, 0
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-B", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.receive()

    def receive(self) -> bytes:
        length = struct.unpack("<I", self.process.stdout.read(4))[0]
        return self.process.stdout.read(length)[8:]

    def perform(self, program: str) -> bytes:
        self.requests += 1
        path = os.path.join(self.root, str(self.requests))
        Path(f"{path}.in").write_text(program)
        self.process.stdin.write(struct.pack("<IQB", 9, self.requests, MESH))
        self.process.stdin.flush()
        reply = self.receive()
        result = Path(f"{path}.out").read_bytes() if reply == b"D" else b""
        with contextlib.suppress(OSError):  # the client also cleans up after the server
            os.remove(f"{path}.in")
            os.remove(f"{path}.out")
            os.rmdir(path)
        return result

    def time(self, programs: list[str]) -> tuple[float, float]:
        """Milliseconds of processor and of wall time a program."""
        cpu, wall = cpu_seconds(self.process.pid), time.perf_counter()
        for program in programs:
            self.perform(program)
        wall = time.perf_counter() - wall
        time.sleep(0.1)  # the last child is reaped after its answer
        cpu = cpu_seconds(self.process.pid) - cpu
        return 1e3 * cpu / len(programs), 1e3 * wall / len(programs)


def serve_in_process() -> None:
    """The other side: the same protocol without a fork."""
    sys.path.insert(0, str(WORKER))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import measure
    import program

    def reply(kind: bytes) -> None:
        replies.write(struct.pack("<IQ", 9, 1) + kind)
        replies.flush()

    reply(b"R")
    while request := sys.stdin.buffer.read(13):
        path = os.path.join(sys.argv[2], str(struct.unpack_from("<Q", request, 4)[0]))
        shape, solids, error = program.build(Path(f"{path}.in").read_text())
        Path(f"{path}.out").write_bytes(error if shape is None else measure.pack(shape, solids, MESH))
        reply(b"D")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", metavar="DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        serve_in_process()
        return
    if arguments.input is None:
        parser.error("--input is required")
    programs = [json.loads(line)["code"] for line in arguments.input.read_text().splitlines() if line.strip()]
    roots = [tempfile.mkdtemp(prefix="cadwright-bench-") for _ in range(2)]
    workers = Side([str(WORKER / "server.py"), roots[0], str(TIMEOUT_S), str(MEMORY_BYTES), "required"], roots[0])
    direct = Side([__file__, "--in-process", roots[1]], roots[1])
    # In a child first, because a program may kill its process.
    programs = [program for program in programs if workers.perform(program)[:1] == bytes([SOLID])]
    print(f"{len(programs)} programs, {arguments.rounds} rounds; ms a program: processor, wall")
    totals = {"in process": [0.0, 0.0], "workers": [0.0, 0.0]}
    for _ in range(arguments.rounds):
        for name, side in (("in process", direct), ("workers", workers)):
            cpu, wall = side.time(programs)
            totals[name][0] += cpu / arguments.rounds
            totals[name][1] += wall / arguments.rounds
            print(f"  {name:<12}{cpu:8.2f}{wall:8.2f}", flush=True)
    for name, (cpu, wall) in totals.items():
        print(f"{name:<14}{cpu:8.2f}{wall:8.2f}")
    (cpu, wall), (worker_cpu, worker_wall) = totals["in process"], totals["workers"]
    print(f"throughput of workers: {cpu / worker_cpu:.0%} by processor time, {wall / worker_wall:.0%} by wall time")
    for side in (workers, direct):
        side.process.stdin.close()
        side.process.wait()


if __name__ == "__main__":
    main()
