"""Measures how speed grows with the number of ranks on one machine: tokens a second of SFT and
completions a second of RLOO, with the nano model of the quickstart: by its recipe (all weights,
Muon), with the optimiser sharded, with an adapter (rank 32, AdamW), and with more examples a step.

    .venv/bin/python benches/distributed.py [--ranks 1,2,4] [--rounds 3] [--program PROGRAM]

Each rank has one thread. The numbers of ranks take turns, so that a busy machine slows down all of
them. A number is the median over the steps of all rounds, without the first two of each run, in
which libtorch compiles kernels; the highest is in brackets. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2
SFT_STEPS, PPO_STEPS, PICTURES, SAMPLES, UPDATED = 14, 5, 256, 2, 48
SETTINGS = [
    "run.threads=1", "data.synth.train=800", "data.synth.validation=16",
    "data.synth.test=16", f"sft.max_steps={SFT_STEPS}", "sft.max_seconds=0", "sft.validate_every=0",
    "sft.validation_samples=8", "sft.checkpoint_every=0", f"ppo.steps={PPO_STEPS}", "ppo.max_seconds=0",
    f"ppo.images_per_step={PICTURES}", f"ppo.samples_per_image={SAMPLES}", f"ppo.keep_images={UPDATED}",
    "ppo.validate_every=0", "ppo.validation_samples=8", "ppo.ceiling_samples=0", "ppo.checkpoint_every=0",
]  # fmt: skip
LORA = ["model.tune=lora", "model.freeze_vision=true", "lora.rank=32", "sft.optimizer=adamw", "sft.learning_rate=1e-3"]
SHARDED = ["distributed.shard_optimizer=true"]
LARGE = ["sft.gradient_accumulation=4", "sft.max_steps=6"]
VARIANTS = [
    ("recipe", []), ("sharded optimiser", SHARDED), ("adapter", LORA), ("128 examples a step", LARGE),
    ("256 examples an adapter's step", [*LORA, "sft.gradient_accumulation=8", "sft.max_steps=5"]),
]  # fmt: skip


def cadwright(program: Path, ranks: int, command: str, run: Path, *more: str) -> None:
    """Runs a command on so many ranks."""
    launch = [] if ranks == 1 else ["launch", "--processes", str(ranks)]
    workers = f"rollout.workers={ranks}"
    settings = [word for setting in [*SETTINGS, workers, *more] for word in ("--set", setting)]
    arguments = [program, *launch, command, "--config", ROOT / "configs/quickstart.toml", "--output-dir", run]
    subprocess.run([*arguments, *settings], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def steps(run: Path, stage: str, key: str) -> list[dict]:
    """The rows of the steps of a stage."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage and f"{stage}/{key}" in row]


def measure(program: Path, ranks: int, prepared: Path, place: Path) -> dict[str, list[float]]:
    """Trains in copies of the prepared directory; returns the numbers of the steps by name."""
    found: dict[str, list[float]] = {}
    for name, more in VARIANTS:
        run = place / name.split()[0]
        shutil.copytree(prepared, run)
        cadwright(program, ranks, "sft", run, *more)
        rates = [row["sft/tokens_per_second"] for row in steps(run, "sft", "loss")[WARM_UP:]]
        found[f"SFT, {name}: tokens a second"] = rates
    # The policy of so few steps writes to the limit of tokens, so all completions have one length.
    cadwright(program, ranks, "ppo", place / "recipe")
    rows = steps(place / "recipe", "ppo", "reward_mean")[WARM_UP - 1:]
    number = PICTURES * SAMPLES
    waits = ("seconds_score_wait", "seconds_idle")
    generated = [row["ppo/seconds_generate"] + sum(row[f"ppo/{wait}"] for wait in waits) for row in rows]
    found["RLOO: completions a second, generated and scored"] = [number / seconds for seconds in generated]
    found["RLOO: completions a second of the update"] = [UPDATED * SAMPLES / row["ppo/seconds_update"] for row in rows]
    found["RLOO: completions a second of the whole step"] = [
        number / (seconds + row["ppo/seconds_update"]) for seconds, row in zip(generated, rows)]
    found["RLOO: share of a step that a rank is idle"] = [
        row["ppo/seconds_idle"] / (seconds + row["ppo/seconds_update"]) for seconds, row in zip(generated, rows)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/cadwright")
    options = parser.parse_args()
    all_ranks = [int(ranks) for ranks in options.ranks.split(",")]
    numbers: dict[int, dict[str, list[float]]] = {ranks: {} for ranks in all_ranks}
    with tempfile.TemporaryDirectory() as directory:
        prepared = Path(directory) / "prepared"
        cadwright(options.program, 1, "sft", prepared, "sft.max_steps=1")
        for leftover in ("sft", "metrics.jsonl", "tensorboard", "config.toml"):
            path = prepared / leftover
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for turn in range(options.rounds):
            for ranks in all_ranks:
                found = measure(options.program, ranks, prepared, Path(directory) / f"{turn}-{ranks}")
                for name, values in found.items():
                    numbers[ranks].setdefault(name, []).extend(values)
    head = [f"{ranks} ranks" if ranks > 1 else "1 rank" for ranks in all_ranks]
    print("| | " + " | ".join(head) + " | " + " | ".join(f"ratio {text}" for text in head[1:]) + " |")
    print("|" + "---|" * (2 * len(all_ranks)))
    for name in numbers[all_ranks[0]]:
        medians = [statistics.median(numbers[ranks][name]) for ranks in all_ranks]
        ratios = [f"{median / medians[0]:.2f}" if medians[0] > 1e-3 else "" for median in medians[1:]]
        highest = [max(numbers[ranks][name]) for ranks in all_ranks]
        cells = [f"{median:.3g} ({best:.3g})" for median, best in zip(medians, highest)]
        print(f"| {name} | " + " | ".join(cells) + " | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main()
