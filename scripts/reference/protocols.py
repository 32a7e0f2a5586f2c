"""Compares `cadwright score --protocol cadrille,cadbench` with the published definitions.

The definitions are written here from the published code, on the libraries that it uses: CadQuery's
tessellation, trimesh, manifold3d's booleans, scipy's k-d trees. The sources are
cadrille's `evaluate.py` (github.com/col14m/cadrille) and CADBench's evaluator
(github.com/anniedoris/CADBench). CADBench wraps both meshes by `alpha_wrap` of pymeshlab first; with
--wrap, this script does so, too.

Usage: protocols.py PROGRAM PAIRS.jsonl [--limit 200] [--wrap] [--seed 0]
PROGRAM: the cadwright binary. PAIRS: rows {"id", "ground_truth", "prediction"}; their programs are
executed here without a sandbox.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cadquery as cq
import numpy as np
import trimesh
from scipy.spatial import cKDTree

NAMES = ("solid", "result", "shape", "part", "object", "obj", "res")
CADRILLE_POINTS, CADBENCH_POINTS, NEAR = 8192, 10_000, 0.02


def mesh_of(program: str) -> trimesh.Trimesh | None:
    """The mesh that cadrille's evaluation makes of a program; `None` without a solid."""
    names: dict = {"cq": cq, "cadquery": cq, "np": np}
    try:
        exec(compile(program, "<program>", "exec"), names)
        found = {k: v for k, v in names.items() if isinstance(v, (cq.Workplane, cq.Solid, cq.Compound))}
        value = found[next((name for name in NAMES if name in found), next(iter(found)))]
        shape = value.val() if isinstance(value, cq.Workplane) else value
        if not shape.Solids():
            return None
        vertices, faces = shape.tessellate(0.001, 0.1)
        return trimesh.Trimesh([v.toTuple() for v in vertices], faces)
    except Exception:
        return None


def volume_iou(a: trimesh.Trimesh, b: trimesh.Trimesh) -> float | None:
    try:
        common, union = a.intersection(b), a.union(b)
        return float(common.volume / union.volume)
    except Exception:
        return None


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]


def boxed(mesh: trimesh.Trimesh, side: float) -> trimesh.Trimesh:
    mesh = mesh.copy()
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(side / mesh.extents.max())
    return mesh


def counted_once(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with bodies that overlap united. The published code leaves them as they are."""
    bodies = mesh.split(only_watertight=False)
    return trimesh.boolean.union(bodies) if len(bodies) > 1 and all(body.is_volume for body in bodies) else mesh


def cadrille(prediction: trimesh.Trimesh, truth: trimesh.Trimesh, seed: int) -> dict:
    a, b = boxed(prediction, 1.0), boxed(truth, 1.0)
    clouds = [trimesh.sample.sample_surface(mesh, CADRILLE_POINTS, seed=seed + k)[0] for k, mesh in enumerate((a, b))]
    there, back = nearest(*clouds)
    return {"cd": float((there**2).mean() + (back**2).mean()), "iou": volume_iou(counted_once(a), counted_once(b))}


def wrapped(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    import pymeshlab

    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(vertex_matrix=mesh.vertices, face_matrix=mesh.faces))
    percentage = pymeshlab.PercentageValue
    meshes.generate_alpha_wrap(alpha=percentage(0.1), offset=percentage(0.01))
    made = meshes.current_mesh()
    return trimesh.Trimesh(made.vertex_matrix(), made.face_matrix(), process=False)


def axes(mesh: trimesh.Trimesh) -> np.ndarray:
    return trimesh.inertia.principal_axis(mesh.moment_inertia)[1].T[:, ::-1]


def cadbench(prediction: trimesh.Trimesh, truth: trimesh.Trimesh, seed: int) -> dict:
    truth = boxed(truth, 2.0)
    sizes = [np.sqrt(np.trace(mesh.moment_inertia) / mesh.mass) for mesh in (truth, prediction)]
    fixed, moved = truth.copy(), prediction.copy()
    for mesh, size in ((fixed, sizes[0]), (moved, sizes[1])):
        mesh.apply_translation(-mesh.center_mass)
        mesh.apply_scale(1.0 / size)
    best, turn = volume_iou(fixed, moved) or 0.0, np.eye(4)
    for flip in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
        matrix = np.eye(4)
        matrix[:3, :3] = axes(truth) @ (np.array(flip)[None, :] * axes(prediction)).T
        iou = volume_iou(fixed, moved.copy().apply_transform(matrix)) or 0.0
        if best < iou <= 1.0:
            best, turn = iou, matrix
    moved.apply_transform(turn)
    moved.apply_scale(sizes[0])
    moved.apply_translation(truth.center_mass)
    clouds = [trimesh.sample.sample_surface(mesh, CADBENCH_POINTS, seed=seed + k)[0] for k, mesh in enumerate((moved, truth))]
    there, back = nearest(*clouds)
    below = (there < NEAR).sum() + (back < NEAR).sum()
    return {"cd": float(there.mean() + back.mean()), "iou": float(best), "siou": float(below / (2 * CADBENCH_POINTS))}


def ours(program: str, rows: list[dict]) -> tuple[dict, dict, float]:
    with tempfile.TemporaryDirectory() as directory:
        pairs, scores, summary = (Path(directory, name) for name in ("pairs.jsonl", "scores.jsonl", "summary.json"))
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        started = time.perf_counter()
        subprocess.run([program, "score", "--input", pairs, "--output", scores, "--summary", summary,
                        "--protocol", "cadrille,cadbench", "--grid", "128"], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - started
        found = {row["id"]: row["protocols"] for row in map(json.loads, scores.read_text().splitlines())}
        return found, json.loads(summary.read_text())["protocols"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--wrap", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.pairs.read_text().splitlines() if line.strip()][:arguments.limit]
    found, summary, _ = ours(arguments.program, rows)
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    disagreements = 0
    for row in rows:
        meshes = [mesh_of(row[key]) for key in ("prediction", "ground_truth")]
        if any(mesh is None or not mesh.is_watertight for mesh in meshes):
            continue
        meshes_of_cadbench = [wrapped(mesh) for mesh in meshes] if arguments.wrap else meshes
        published = {"cadrille": cadrille(*meshes, arguments.seed), "cadbench": cadbench(*meshes_of_cadbench, arguments.seed)}
        for protocol, numbers in published.items():
            for metric, value in numbers.items():
                mine = found[row["id"]][protocol][metric]
                if value is None or mine is None:
                    disagreements += value is not None
                    continue
                pairs.setdefault((protocol, metric), []).append((mine, value))
    print("| protocol | metric | pairs | median ours / theirs | 95 % of differences within | largest | median, ours | median, theirs |")
    print("|---|---|---|---|---|---|---|---|")
    for (protocol, metric), values in pairs.items():
        differences = sorted(abs(mine - theirs) / (theirs if metric == "cd" else 1.0) for mine, theirs in values)
        ratio = statistics.median(mine / theirs for mine, theirs in values if theirs > 0)
        unit = " %" if metric == "cd" else ""
        scale = 100.0 if metric == "cd" else 1.0
        print(f"| {protocol} | {metric} | {len(values)} | {ratio:.4f} | {scale * differences[int(0.95 * len(values))]:.4f}{unit} "
              f"| {scale * differences[-1]:.4f}{unit} | {statistics.median(m for m, _ in values):.5f} "
              f"| {statistics.median(t for _, t in values):.5f} |")
    print(f"{disagreements} numbers that they have and we have not")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
