"""Compares a random checkpoint of InternVL3's exact shape with `transformers` on one NVIDIA GPU: logits
and speed of generation; and measures steps of SFT and RL. Prints rows of a Markdown table.

    python3 scripts/reference/gpu.py PROGRAM [--preset internvl3-1b] [--keep DIR]

Needs torch with CUDA and transformers. Exits with 1 if our bf16 logits differ from fp32 by over a
tenth more than those of `transformers` do. `--keep DIR` uses the checkpoint in DIR again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLForConditionalGeneration

PICTURES, SAMPLES, TOKENS = 8, 8, 256  # completions of an RL step, and the length of each
SFT_BATCH = 16


def row(name: str, value: str) -> None:
    print(f"| {name} | {value} |", flush=True)


def run(*command: object) -> str:
    process = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{process.stdout}")
    return process.stdout


class PeakMemory:
    """The largest use of the GPU's memory while the block runs, in GiB, sampled by nvidia-smi."""

    def __enter__(self) -> PeakMemory:
        self.peak, self.stop = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self.stop.wait(0.3):
            used = subprocess.run(query, capture_output=True, text=True).stdout.split()
            self.peak = max(self.peak, *(float(number) / 1024 for number in used))

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def inputs(theirs: InternVLForConditionalGeneration, rows: int, text: int) -> dict[str, torch.Tensor]:
    """`rows` prompts of a picture and `text` random tokens, on the GPU."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(300, 150_000, (rows, text), generator=generator)
    image = torch.full((rows, 256), theirs.config.image_token_id)
    pixels = torch.randn((rows, 3, 448, 448), generator=generator)
    ids = torch.cat([tokens[:, :3], image, tokens[:, 3:]], 1)
    return {"input_ids": ids.cuda(), "attention_mask": torch.ones_like(ids).cuda(), "pixel_values": pixels.cuda()}


def compare_logits(program: str, model: Path, theirs: InternVLForConditionalGeneration, scratch: Path) -> bool:
    given = inputs(theirs, 2, 40)
    save_file({name: value.cpu().contiguous() for name, value in given.items()}, scratch / "in.safetensors")
    ours = {}
    for dtype in ("bf16", "f32"):
        run(program, "model", "logits", "--model-path", model, "--dtype", dtype, "--device", "cuda:0", "--input",
            scratch / "in.safetensors", "--output", scratch / "out.safetensors")
        ours[dtype] = load_file(scratch / "out.safetensors")["logits"].cuda()
    with torch.no_grad():
        half = theirs(**{**given, "pixel_values": given["pixel_values"].bfloat16()}).logits.float()
        full = InternVLForConditionalGeneration.from_pretrained(model, dtype=torch.float32).cuda().eval()
        full = full(**given).logits
    error = lambda a, b: (a - b).abs().mean().item()
    bf16, their_bf16 = error(ours["bf16"], full), error(half, full)
    row("logits in f32, ours minus transformers', mean and largest",
        f"{error(ours['f32'], full):.1e}, {(ours['f32'] - full).abs().max():.1e} (standard deviation {full.std():.2f})")
    row("logits in bf16 minus f32, mean: ours, transformers'", f"{bf16:.2e}, {their_bf16:.2e}")
    return bf16 <= 1.1 * their_bf16


def their_generation(theirs: InternVLForConditionalGeneration) -> float:
    """Completions a second of `generate` on as many prompts, samples and tokens as ours."""
    given = inputs(theirs, PICTURES, 40)
    given["pixel_values"] = given["pixel_values"].bfloat16()
    seconds = []
    for _ in range(2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        theirs.generate(**given, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=SAMPLES,
                        max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return PICTURES * SAMPLES / seconds[-1]


def train(program: str, model: Path, scratch: Path) -> dict[str, float]:
    """Steps of LoRA SFT and of RLOO: medians of metrics.jsonl without each stage's first step."""
    settings = {
        "model.path": f'"{model}"', "model.tune": '"lora"', "run.output_dir": f'"{scratch / "run"}"',
        "run.device": '"cuda:0"', "run.truncation_limit": 1.0, "data.synth.train": 64, "data.synth.validation": 1,
        "data.synth.test": 1, "data.synth.image_size": 448, "sft.max_steps": 6, "sft.batch_size": SFT_BATCH,
        "sft.gradient_accumulation": 1, "sft.validation_samples": 1, "sft.checkpoint_every": 0,
        "ppo.algorithm": '"rloo"', "ppo.steps": 4, "ppo.images_per_step": PICTURES, "ppo.samples_per_image": SAMPLES,
        "ppo.minibatch_size": 32, "ppo.micro_batch_size": 16, "ppo.ce_batch_size": 4, "ppo.validation_samples": 1,
        "ppo.checkpoint_every": 0, "generate.max_new_tokens": TOKENS, "generate.batch_size": PICTURES * SAMPLES,
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    found = {}
    for stage in ("sft", "ppo"):
        with PeakMemory() as memory:
            run(program, stage, *overrides)
        found[f"{stage} GiB"] = memory.peak
    rows = [json.loads(line) for line in (scratch / "run/metrics.jsonl").open()]
    names = ("sft/tokens_per_second", "ppo/seconds_generate", "ppo/seconds_update", "ppo/response_length")
    for name in names:
        values = [found_row[name] for found_row in rows if name in found_row]
        found[name] = statistics.median(values[1:])
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--preset", default="internvl3-1b")
    parser.add_argument("--keep", type=Path, help="directory for the checkpoint, used again if it is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        model = arguments.keep or scratch / "model"
        if not model.exists():
            run(arguments.program, "model", "init", "--preset", arguments.preset, "--layout", "hf", "--output", model)
        theirs = InternVLForConditionalGeneration.from_pretrained(model, dtype=torch.bfloat16).cuda().eval()
        is_close = compare_logits(arguments.program, model, theirs, scratch)
        their_rate = their_generation(theirs)
        del theirs
        torch.cuda.empty_cache()
        found = train(arguments.program, model, scratch)
        our_rate = PICTURES * SAMPLES / found["ppo/seconds_generate"]
        row(f"generation, {PICTURES} pictures, {SAMPLES} samples each, {TOKENS} tokens: completions/s, ours and transformers'",
            f"{our_rate:.1f} (mean length {found['ppo/response_length']:.0f}), {their_rate:.1f}: ratio {our_rate / their_rate:.2f}")
        row(f"SFT, LoRA, {SFT_BATCH} pictures a step", f"{found['sft/tokens_per_second']:.0f} tokens/s, {found['sft GiB']:.1f} GiB")
        row(f"RLOO, {PICTURES * SAMPLES} completions a step",
            f"generation {found['ppo/seconds_generate']:.2f} s, update {found['ppo/seconds_update']:.2f} s; "
            f"{found['ppo GiB']:.1f} GiB")
    if not is_close:
        print("FAILED: our bf16 logits are farther from f32 than those of transformers", file=sys.stderr)
    return int(not is_close)


if __name__ == "__main__":
    sys.exit(main())
