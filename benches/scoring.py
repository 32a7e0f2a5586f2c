"""Measures pairs scored per second, side by side in one run: the native engine, our CadQuery
workers, CadQuery started for every program, and the published metric's recipe.

    .venv/bin/python -m pip install --no-deps --target /tmp/trimesh trimesh
    PYTHONPATH=/tmp/trimesh .venv/bin/python benches/scoring.py --input pairs.jsonl

`pairs.jsonl` has rows {"id", "ground_truth", "prediction"} in which both programs build a solid. The
slow methods get only a part of the pairs. All except the last use both cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/cadwright"


def ours(engine: str, pairs: list[dict], directory: Path) -> float:
    """Wall time of `cadwright score` as a whole process."""
    source = directory / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    start = time.monotonic()
    command = [BINARY, "score", "--engine", engine, "--input", source, "--output", directory / "scores.jsonl"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def spawned(pairs: list[dict], directory: Path) -> float:
    """Starts Python for each program, which imports CadQuery, executes, and measures; no scores."""
    def run(text: str) -> None:
        tail = "\nimport cadquery as cq\nshape = solid.val()\nshape.Volume(), shape.tessellate(0.01, 0.2)\n"
        subprocess.run([sys.executable, "-c", text + tail], cwd=directory, check=True)

    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, [pair[key] for pair in pairs for key in ("ground_truth", "prediction")]))
    return time.monotonic() - start


def published(pairs: list[dict], directory: Path) -> float:
    """The "best IoU": STL export, centroid and radius of gyration, four poses, surface voxels of 0.05."""
    import cadquery as cq
    import numpy as np
    import trimesh

    def mesh_of(text: str) -> trimesh.Trimesh:
        names: dict = {"cq": cq}
        exec(text, names)  # noqa: S102 the programs are ours
        shape = names["solid"].val()
        cq.exporters.export(cq.Workplane(obj=shape), str(directory / "part.stl"), tolerance=0.1, angularTolerance=0.1)
        mesh = trimesh.load(directory / "part.stl")
        mesh.apply_translation(-mesh.center_mass)
        mesh.apply_scale(1 / math.sqrt(np.trace(mesh.moment_inertia) / (2 * mesh.volume)))
        return mesh

    def cells(mesh: trimesh.Trimesh) -> set:
        return set(map(tuple, np.round(mesh.voxelized(pitch=0.05).points / 0.05).astype(int)))

    start = time.monotonic()
    for pair in pairs:
        truth, guess = mesh_of(pair["ground_truth"]), mesh_of(pair["prediction"])
        there, axes = cells(truth), [np.linalg.eigh(mesh.moment_inertia)[1] for mesh in (truth, guess)]
        best = 0.0
        for signs in ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)):
            turned = guess.copy()
            turn = np.eye(4)
            turn[:3, :3] = axes[0] @ (axes[1] @ np.diag(signs)).T
            turned.apply_transform(turn)
            here = cells(turned)
            best = max(best, len(here & there) / len(here | there))
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    pairs = [json.loads(line) for line in parser.parse_args().input.read_text().splitlines()]
    ways = {
        "native engine": (lambda *a: ours("native", *a), len(pairs)),
        "CadQuery workers": (lambda *a: ours("cadquery", *a), 300),
        "CadQuery anew for every program (execution only)": (spawned, 8),
        "published recipe": (published, 20),
    }
    print("| | pairs | seconds | pairs a second |\n|---|---|---|---|")
    for name, (way, count) in ways.items():
        part = pairs[:count]
        with tempfile.TemporaryDirectory() as directory:
            seconds = way(part, Path(directory))
        print(f"| {name} | {len(part)} | {seconds:.1f} | {len(part) / seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
