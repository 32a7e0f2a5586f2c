"""Runs the smoke configuration, shortened, on two ranks under torchrun, and compares metrics.jsonl
with that of a run in one process. Then does so again while it kills rank 1 in SFT and rank 0 in RL:
torchrun must restart both ranks, and the run must go on from its checkpoint to the same numbers.

    .venv-reference/bin/python scripts/reference/torchrun.py target/release/cadwright

The interpreter's environment needs torch; torchrun is taken from beside it. The computation is on
the CPU, by Gloo.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
TOLERANCE = 1e-4
# A penalty for completions without an end gives so young a policy rewards that differ. Long runs of
# sampling differ sooner or later: sums over ranks round otherwise than those of one process.
OVERRIDES = [
    'run.device="cpu"', 'model.dtype="f32"', "data.synth.train=64", "data.synth.test=4",
    "sft.max_steps=8", "sft.batch_size=8", "sft.validate_every=4", "sft.checkpoint_every=1",
    "ppo.steps=3", "ppo.temperature=1.0", "ppo.learning_rate=1e-5", "reward.penalty_truncated=0.5",
    "eval.num_samples=4",
]  # fmt: skip
PATIENCE_S = 900


def command(program: Path, run: Path) -> list[str]:
    overrides = [part for override in OVERRIDES for part in ("--set", override)]
    return [str(program), "run", "--config", str(ROOT / "configs/smoke.toml"), "--output-dir", str(run), *overrides]


def torchrun(program: Path, run: Path, restarts: int) -> list[str]:
    options = ["--standalone", "--no-python", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return [str(TORCHRUN), *options, *command(program, run)]


def finish(process: subprocess.Popen, log: Path) -> str:
    """The output of a process that writes to `log`, at its end. Ends this script if it failed."""
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        code = f"none within {PATIENCE_S} s"
    text = log.read_text()
    if code != 0:
        sys.exit(f"{text}\n{' '.join(map(str, process.args))}\nexit code {code}")
    return text


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    with log.open("w") as output:
        return subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)


def kill_rank(launcher: int, rank: int) -> None:
    """Kills the child of `launcher` that is this rank."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            os.kill(int(child), signal.SIGKILL)
            return
    sys.exit(f"rank {rank} is not among the children of torchrun")


def kill_when(process: subprocess.Popen, rank: int, checkpoint: Path, log: Path) -> None:
    """Kills a rank as soon as there is a checkpoint."""
    deadline = time.monotonic() + PATIENCE_S
    while not checkpoint.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{log.read_text()}\nthere is no {checkpoint} to go on from")
        time.sleep(0.01)
    kill_rank(process.pid, rank)


def rows(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without timings, some of which only a run of several ranks has."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if "second" not in name} for row in lines]


def compare(expected: list[dict], found: list[dict], what: str) -> None:
    """Prints the largest relative difference of all numbers; fails above the tolerance."""
    if [row.keys() for row in expected] != [row.keys() for row in found]:
        sys.exit(f"{what}: {len(expected)} rows in one process, {len(found)} under torchrun, or other names")
    largest, where, count = 0.0, "none", 0
    for one, two in zip(expected, found):
        for name, value in one.items():
            if isinstance(value, float):
                difference = abs(two[name] - value) / max(1.0, abs(value))
            else:
                difference = 0.0 if two[name] == value else float("inf")
            count += 1
            if not difference <= largest:
                largest, where = difference, f"{name}, step {one['step']}: {value} and {two[name]}"
    print(f"{what}: {count} numbers, largest difference {largest:.1e} ({where})")
    if not largest <= TOLERANCE:
        sys.exit(f"above {TOLERANCE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the binary, for example target/release/cadwright")
    program = parser.parse_args().program.resolve()
    with tempfile.TemporaryDirectory() as directory:
        one, two, killed = (Path(directory) / name for name in ("one", "two", "killed"))
        finish(start(command(program, one), one.with_suffix(".log")), one.with_suffix(".log"))
        expected = rows(one)
        if len({row["ppo/reward_mean"] for row in expected if "ppo/reward_mean" in row}) < 2:
            sys.exit("all rewards are alike: the comparison would not see RL")

        text = finish(start(torchrun(program, two, 0), two.with_suffix(".log")), two.with_suffix(".log"))
        if "2 ranks" not in text:
            sys.exit(f"{text}\nthe ranks did not find each other")
        compare(expected, rows(two), "torchrun, two ranks")

        log = killed.with_suffix(".log")
        process = start(torchrun(program, killed, 2), log)
        kill_when(process, 1, killed / "sft/checkpoint/state.json", log)
        kill_when(process, 0, killed / "ppo/checkpoint/state.json", log)
        text = finish(process, log)
        for stage in ("sft", "ppo"):
            if f"{stage}: goes on at step" not in text:
                sys.exit(f"{text}\n{stage} did not go on from its checkpoint")
        compare(expected, rows(killed), "torchrun, two ranks, both killed once")


if __name__ == "__main__":
    main()
