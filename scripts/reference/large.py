"""Checks a random checkpoint of InternVL3-1B's exact shape: loads it, compares it with
`transformers`, and trains one step of each stage.

    reference/bin/python scripts/reference/large.py target/release/cadwright [--preset internvl3-1b] [--keep DIR]

Takes 20 GB of memory (the reference also computes in fp32) and a few minutes. Fails if our bf16
logits differ from the fp32 ones by over a tenth more than the bf16 logits of `transformers` do, or
if a training step takes more than 12 GB.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLForConditionalGeneration

GB = 1e9
LIMIT_GB = 12.0


def run(*command: object) -> tuple[float, float, str]:
    """Runs a command. Returns seconds, peak memory in GB, and the output."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=printed, stderr=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    if status:
        sys.exit(f"{' '.join(map(str, command))}\n{text}")
    return seconds, usage.ru_maxrss * 1024 / GB, text


def load(program: str, model: Path, scratch: Path) -> bool:
    """Loading compared with reading the file into memory, both from the page cache; the fastest of
    three runs."""
    save_file({"input_ids": torch.tensor([[1, 2]])}, scratch / "two.safetensors")
    logits = ("model", "logits", "--model-path", model, "--dtype", "bf16", "--input", scratch / "two.safetensors",
              "--output", scratch / "two-out.safetensors")
    start_up = min(run(program, "model", "inspect", model)[0] for _ in range(3))
    loads = [run(program, *logits)[:2] for _ in range(3)]
    reads = []
    for _ in range(3):
        start = time.perf_counter()
        data = (model / "model.safetensors").read_bytes()
        reads.append(time.perf_counter() - start)
    seconds = min(seconds for seconds, _ in loads) - start_up
    print(f"{len(data) / GB:.2f} GB of weights: loaded, with a pass over two tokens, in {seconds:.2f} s, peak {loads[0][1]:.2f} GB; "
          f"read into memory in {min(reads):.2f} s")
    return seconds <= 1.5 * min(reads)


def compare(program: str, model: Path, scratch: Path) -> bool:
    generator = torch.Generator().manual_seed(0)
    theirs = InternVLForConditionalGeneration.from_pretrained(model, dtype=torch.bfloat16).eval()
    image = theirs.config.image_token_id
    text = torch.randint(300, 150_000, (2, 40), generator=generator)
    rows = [text[:, :3], torch.full((2, 256), image), text[:, 3:]]
    given = {
        "input_ids": torch.cat(rows, 1),
        "attention_mask": torch.ones((2, 296), dtype=torch.long),
        "pixel_values": torch.randn((2, 3, 448, 448), generator=generator).bfloat16().float(),
    }
    save_file(given, scratch / "in.safetensors")
    seconds, peak, _ = run(program, "model", "logits", "--model-path", model, "--dtype", "bf16", "--input",
                           scratch / "in.safetensors", "--output", scratch / "out.safetensors")
    ours = load_file(scratch / "out.safetensors")["logits"]
    with torch.no_grad():
        start = time.perf_counter()
        half = theirs(**{**given, "pixel_values": given["pixel_values"].bfloat16()}).logits.float()
        their_seconds = time.perf_counter() - start
        full = theirs.float()(**given).logits
    print(f"logits: whole process {seconds:.1f} s, peak {peak:.2f} GB; transformers' forward alone {their_seconds:.1f} s")
    print(f"logits in fp32: standard deviation {full.std():.3f}")
    errors = {}
    for name, a, b in (("ours, bf16 - fp32", ours, full), ("transformers, bf16 - fp32", half, full),
                       ("ours - transformers, both bf16", ours, half)):
        error = (a - b).abs()
        errors[name] = error.mean().item()
        print(f"{name}: mean {error.mean():.5f}, max {error.max():.4f}")
    is_close = errors["ours, bf16 - fp32"] <= 1.1 * errors["transformers, bf16 - fp32"]
    print("within the rounding of transformers" if is_close else "FAILED: farther from fp32 than transformers")
    return is_close


def train(program: str, model: Path, scratch: Path) -> bool:
    settings = {
        "model.path": f'"{model}"', "model.tune": '"lora"', "run.output_dir": f'"{scratch / "run"}"',
        "data.synth.train": 8, "data.synth.validation": 1, "data.synth.test": 1, "data.synth.image_size": 448,
        "sft.max_steps": 1, "sft.batch_size": 2, "sft.gradient_accumulation": 1, "sft.validation_samples": 1,
        "sft.checkpoint_every": 0, "ppo.steps": 1, "ppo.images_per_step": 1, "ppo.samples_per_image": 2,
        "ppo.minibatch_size": 2, "ppo.ce_batch_size": 1, "ppo.validation_samples": 1, "ppo.checkpoint_every": 0,
        "generate.max_new_tokens": 48, "generate.batch_size": 2, "rollout.engine": '"auto"',
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    fits = True
    for stage in ("sft", "ppo"):
        seconds, peak, printed = run(program, stage, *overrides)
        line = next((line for line in printed.splitlines() if re.match(rf"{stage} +\S*1/1", line)), "")
        fits &= peak <= LIMIT_GB
        print(f"{stage}: one step, whole process {seconds:.0f} s, peak {peak:.2f} GB (at most {LIMIT_GB:.0f}); {line}")
    return fits


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--preset", default="internvl3-1b")
    parser.add_argument("--keep", type=Path, help="directory for the checkpoint, used again if it is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.keep or Path(scratch) / "model"
        if not model.exists():
            seconds, peak, _ = run(arguments.program, "model", "init", "--preset", arguments.preset, "--layout", "hf",
                                   "--output", model)
            print(f"init: {seconds:.1f} s, peak {peak:.2f} GB")
        good = load(arguments.program, model, Path(scratch))
        good &= compare(arguments.program, model, Path(scratch))
        good &= train(arguments.program, model, Path(scratch))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
