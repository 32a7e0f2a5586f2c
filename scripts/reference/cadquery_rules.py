#!/usr/bin/env python3
"""Records what CadQuery really does: small programs, one question each, and CadQuery's answers.

The native engine's tests read the answers (`rewards/tests/cadquery_rules.json`). This script asks
the real CadQuery again:

    .venv/bin/python scripts/reference/cadquery_rules.py          # fails if an answer has changed
    .venv/bin/python scripts/reference/cadquery_rules.py --write  # writes the answers

Each program runs in its own process; `rollout/worker/program.py` decides the verdict.
"""

from __future__ import annotations

import json
import multiprocessing
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "rewards/tests/cadquery_rules.json"
sys.path.insert(0, str(ROOT / "rollout/worker"))

CLASSES = ("solid", "syntax", "exception", "no_solid", "empty", "timeout", "memory", "crash")

SQUARE = "moveTo(0, 0).lineTo(1, 0).lineTo(1, 1).lineTo(0, 1).close()"
# The line from the corner crosses the half circle again at 8e-4, 2.8e-7 deep.
SLIVER = ("moveTo(0, 0).lineTo(2, 0.0028070188).lineTo(2, 1).lineTo(0, 1).lineTo(0, 0.57)"
          ".threePointArc((0.285, 0.285), (0, 0)).close()")
PLANE = "cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1))"


def sketch(*loops: str, extrude: str = "1.0", after: str = "") -> str:
    """A program in GenCAD-Code's dialect: loops on one workplane, added and extruded."""
    lines = ["import cadquery as cq", f"wp_sketch0 = cq.Workplane({PLANE})"]
    lines += [f"loop{i}=wp_sketch0.{loop}" for i, loop in enumerate(loops)]
    adds = "".join(f".add(loop{i})" for i in range(len(loops)))
    lines += [f"solid0=wp_sketch0{adds}.extrude({extrude})", "solid=solid0"]
    return "\n".join(lines) + "\n" + after


def boxes(after: str) -> str:
    """Unit cubes: `a` at the origin, `b` half overlapping it, `c` far away, `d` touching `a` at a
    face; then the given statements."""
    cube = "cq.Workplane('XY').box(1, 1, 1)"
    return (f"a = {cube}\nb = {cube}.translate((0.5, 0.25, 0.125))\nc = {cube}.translate((5, 0, 0))\n"
            f"d = {cube}.translate((1, 0, 0))\n{after}\n")


BLOCK = "solid = cq.Workplane().box(20, 10, 4)"

# Free-form programs.
FREE_FORM: dict[str, str] = {
    # Indentation.
    "first line indented by a tab": f"\t{BLOCK}\n{BLOCK}\n",
    "second line indented by a tab": f"{BLOCK}\n\t{BLOCK}\n",
    "first by a tab, second by blanks": f"\t{BLOCK}\n        {BLOCK}\n",
    "block not indented": f"if True:\n{BLOCK}\n",
    "wrong unindent": f"if True:\n    x = 1\n  {BLOCK}\n",
    "indented before an open bracket": f"x = 1\n  y = (1,\n{BLOCK}\n",
    "indented before an open string": f"x = 1\n  y = 2\nz = 'a\n",
}

FAR_UNION = "solid=solid.union(cq.Workplane().box(0.5, 0.5, 3).translate((9, 0, 0)))\n"
OVERLAPPING = (SQUARE, "moveTo(0.4, 0.5).circle(0.2)", "moveTo(0.6, 0.5).circle(0.2)")
TRIANGLE = "moveTo(-0.3, -1).lineTo(0, -1).lineTo(0, 0).close()"

RULES: dict[str, str] = {
    # Loops, and the limits of `add`.
    "square": sketch(SQUARE),
    "square closed by hand": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 1).lineTo(0, 1).lineTo(0, 0).close()"),
    "square clockwise": sketch("moveTo(0, 0).lineTo(0, 1).lineTo(1, 1).lineTo(1, 0).close()"),
    "collinear points": sketch("moveTo(0, 0).lineTo(0.5, 0).lineTo(1, 0).lineTo(1, 1).lineTo(0, 1).close()"),
    "loop not added": sketch(SQUARE).replace(".add(loop0)", ""),
    "loop added twice": sketch(SQUARE).replace(".add(loop0)", ".add(loop0).add(loop0)"),
    "loop of another sketch added": f"w = cq.Workplane({PLANE})\nl = w.{SQUARE}\nv = cq.Workplane({PLANE})\n"
                                    "m = v.moveTo(5, 5).circle(1)\nsolid = v.add(l).extrude(1)\n",
    "extrude from a loop": f"w = cq.Workplane({PLANE})\nl = w.{SQUARE}\nm = w.moveTo(3, 3).circle(0.5)\n"
                           "solid = l.extrude(1)\n",
    "second extrude": sketch(SQUARE, after="solid=wp_sketch0.extrude(2.0)\n"),
    "loop after extrude": sketch(SQUARE, after="m=wp_sketch0.moveTo(5, 0).circle(1)\nsolid=wp_sketch0.extrude(2.0)\n"),
    "loop without moveTo": f"w = cq.Workplane({PLANE})\na = w.lineTo(1, 0).lineTo(1, 1).close()\nsolid = w.extrude(1)\n",
    "add of a number": sketch(SQUARE).replace(".add(loop0)", ".add(5)"),
    "two loops apart": sketch(SQUARE, "moveTo(3, 0).circle(0.5)"),
    "three loops apart": sketch(SQUARE, "moveTo(3, 0).circle(0.5)", "moveTo(0, 3).rect(1, 1)"),
    "hole": sketch(SQUARE, "moveTo(0.5, 0.5).circle(0.25)"),
    "hole first": sketch("moveTo(0.5, 0.5).circle(0.25)", SQUARE),
    "hole between": sketch(SQUARE, "moveTo(0.5, 0.5).circle(0.25)", "moveTo(3, 0).circle(0.5)"),
    "hole in the second outline": sketch(SQUARE, "moveTo(3, 0).circle(0.5)", "moveTo(3, 0).circle(0.25)"),
    "hole larger than the outline": sketch(SQUARE, "moveTo(0.5, 0.5).circle(2)"),
    "island": sketch("circle(3)", "circle(2)", "circle(1)"),
    "outlines touch at an edge": sketch(SQUARE, "moveTo(1, 0).lineTo(2, 0).lineTo(2, 1).lineTo(1, 1).close()"),
    "outlines touch at a corner": sketch(SQUARE, "moveTo(1, 1).lineTo(2, 1).lineTo(2, 2).lineTo(1, 2).close()"),
    "hole touches the outline": sketch(SQUARE, "moveTo(0.75, 0.5).circle(0.25)"),
    "hole crosses the outline": sketch(SQUARE, "moveTo(0.9, 0.5).circle(0.25)"),
    "holes overlap": sketch(SQUARE, "moveTo(0.4, 0.5).circle(0.2)", "moveTo(0.6, 0.5).circle(0.2)"),
    "hole equal to the outline": sketch(SQUARE, SQUARE),
    "circle equal to the outline": sketch("circle(1)", "circle(1)"),
    "bow tie beside a cut": sketch("moveTo(0, 0).lineTo(1, 1).lineTo(1, 0).lineTo(0, 1.5).close()", after=FAR_UNION.replace("union", "cut")),
    "edge across a seam": f"a = cq.Workplane(cq.Plane(cq.Vector(0, 0, 1), cq.Vector(0, -1, 0), cq.Vector(0, 0, 1))).moveTo(-1, -1).lineTo(0, -1).lineTo(0.1875, -0.5).close().extrude(1)\n"
                          "b = cq.Workplane(cq.Plane(cq.Vector(0, 0, 1), cq.Vector(0, 0, 1), cq.Vector(-1, 0, 0))).moveTo(0, -0.1875).circle(0.5).extrude(1)\n"
                          "solid = a.union(b)\n",
    "cylinders across each other touch": "solid = cq.Workplane('ZX').circle(10).extrude(15).cut(cq.Workplane().cylinder(25, 5).translate((5, 0, 0)))\n",
    "fillet beside an acute corner": "solid = cq.Workplane().polyline([(0, 0), (16, 0), (16, 46), (8, 23), (0, 46)]).close().extrude(11).edges('|Z').fillet(3)\n",
    "bow tie": sketch("moveTo(0, 0).lineTo(1, 1).lineTo(1, 0).lineTo(0, 1).close()"),
    "sliver at a corner": sketch(SLIVER),
    "sliver in a union": sketch(SLIVER, after="solid=solid.union(cq.Workplane().box(0.5, 0.5, 3).translate((1.5, 0.3, 0)))\n"),
    "sliver in a union apart": sketch(SLIVER, after="solid=solid.union(cq.Workplane().box(0.5, 0.5, 3).translate((9, 0, 0)))\n"),
    "sliver in a cut at the corner": sketch(SLIVER, after="solid=solid.cut(cq.Workplane().box(0.2, 0.2, 3))\n"),
    "spike": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(2, 0).lineTo(1, 0).lineTo(1, 1).lineTo(0, 1).close()"),
    "out and back": sketch("moveTo(0, 0).lineTo(1, 0).close()"),
    "out and back in a union apart": sketch("moveTo(0, 0).lineTo(1, 0).close()", after=FAR_UNION),
    "out and back to both sides": sketch("moveTo(0, 0).lineTo(1, 0).close()", extrude="1, both=True"),
    # What is malformed, beside a body that is not.
    "malformed beside a union": sketch(*OVERLAPPING, after=FAR_UNION),
    "malformed beside a cut": sketch(*OVERLAPPING, after=FAR_UNION.replace("union", "cut")),
    "malformed beside an intersection": sketch(*OVERLAPPING, after=FAR_UNION.replace("union", "intersect")),
    "union beside what is malformed": sketch(*OVERLAPPING, after="solid=cq.Workplane().box(0.5, 0.5, 3).translate((9, 0, 0)).union(solid)\n"),
    "union with what is malformed": sketch(*OVERLAPPING, after=FAR_UNION.replace("9", "1")),
    # The order of edges decides whether a triangle across the outline is a hole.
    "triangle across the outline": sketch(TRIANGLE, "moveTo(-0.05, -0.9).lineTo(-0.3, -0.4).lineTo(-0.3, -0.6).close()"),
    "triangle across the outline, turned": sketch(TRIANGLE, "moveTo(-0.05, -0.9).lineTo(-0.3, -0.6).lineTo(-0.3, -0.4).close()"),
    "triangle across the outline, from another corner": sketch(TRIANGLE, "moveTo(-0.3, -0.4).lineTo(-0.3, -0.6).lineTo(-0.05, -0.9).close()"),
    # Unclosed loops.
    "not closed": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 1)"),
    "not closed though back": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 1).lineTo(0, 0)"),
    "not closed then a circle": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 1)", "moveTo(3, 3).circle(0.5)"),
    "not closed then closed": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 1)", "moveTo(3, 3).lineTo(4, 3).lineTo(4, 4).close()"),
    "closed then not closed": sketch(SQUARE, "moveTo(3, 3).lineTo(4, 3)"),
    "close without edges": sketch("moveTo(0, 0).close()"),
    "close twice": sketch(SQUARE + ".close()"),
    "line after close": sketch(SQUARE + ".lineTo(3, 3)"),
    # Edges and arcs.
    "repeated point": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1, 0).lineTo(1, 1).close()"),
    "line to itself": sketch("moveTo(0, 0).lineTo(0, 0).close()"),
    "edge of 5e-8": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1.00000005, 0).lineTo(1, 1).close()"),
    "edge of 2e-7": sketch("moveTo(0, 0).lineTo(1, 0).lineTo(1.0000002, 0).lineTo(1, 1).close()"),
    "arc nearly on a line": sketch("moveTo(0, 0).threePointArc((0.5, 1e-7), (1, 0)).lineTo(1, -1).lineTo(0, -1).close()"),
    "text for a number": sketch("moveTo(0, 0).lineTo('1', 0).close()"),
    "half disc": sketch("moveTo(0, 0).threePointArc((1, 1), (2, 0)).close()"),
    "arc below": sketch("moveTo(0, 0).threePointArc((1, -0.5), (2, 0)).lineTo(2, 2).lineTo(0, 2).close()"),
    "arc on a line": sketch("moveTo(0, 0).threePointArc((0.5, 0), (1, 0)).lineTo(1, 1).close()"),
    "arc through its start": sketch("moveTo(0, 0).threePointArc((0, 0), (1, 0)).lineTo(1, 1).close()"),
    "arc through its end": sketch("moveTo(0, 0).threePointArc((1, 0), (1, 0)).lineTo(1, 1).close()"),
    "arc back to its start": sketch("moveTo(0, 0).threePointArc((1, 0), (0, 0)).close()"),
    "arc with flat arguments": sketch("moveTo(0, 0).threePointArc(0.5, 0.5, 1.0, 0.0).close()"),
    "sagitta arc": "solid = cq.Workplane().sagittaArc((2, 0), 0.5).lineTo(2, -1).lineTo(0, -1).close().extrude(1)\n",
    "radius arc": "solid = cq.Workplane().radiusArc((2, 0), -1.5).lineTo(2, 3).lineTo(0, 3).close().extrude(1)\n",
    "radius arc too small": "solid = cq.Workplane().radiusArc((2, 0), 0.5).close().extrude(1)\n",
    "negative radius": sketch("circle(-1)"),
    "no radius": sketch("circle(0)"),
    # Extrusions.
    "negative extrusion": sketch(SQUARE, extrude="-0.5"),
    "no extrusion": sketch(SQUARE, extrude="0"),
    "tiny extrusion": sketch(SQUARE, extrude="1e-8"),
    "extrusion to both sides": sketch(SQUARE, extrude="0.5, both=True"),
    "negative extrusion to both sides": sketch(SQUARE, extrude="-0.5, both=True"),
    "extrusion by True": sketch(SQUARE, extrude="True"),
    "extrusion by None": sketch(SQUARE, extrude="None"),
    "taper with a hole": sketch(SQUARE, "moveTo(0.5, 0.5).circle(0.25)", extrude="1, taper=5"),
    "nothing to extrude": "solid = cq.Workplane().extrude(1)\n",
    # Planes.
    "plane by keywords": f"solid = cq.Workplane(cq.Plane(origin=(1, 2, 3), xDir=(0, 1, 0), normal=(1, 0, 0))).{SQUARE}.extrude(1)\n",
    "plane by origin": f"solid = cq.Workplane(cq.Plane(cq.Vector(1, 2, 3))).{SQUARE}.extrude(1)\n",
    "skewed plane": f"solid = cq.Workplane(cq.Plane((0, 0, 0), (2, 0, 1), (0, 0, 3))).{SQUARE}.extrude(1)\n",
    "tilted plane": f"solid = cq.Workplane(cq.Plane((0, 0, 0), (1, 0, 0), (0, 1, 1))).{SQUARE}.extrude(1)\n",
    "null normal": f"solid = cq.Workplane(cq.Plane((0, 0, 0), (1, 0, 0), (0, 0, 0))).{SQUARE}.extrude(1)\n",
    "null xDir": f"solid = cq.Workplane(cq.Plane((0, 0, 0), (0, 0, 0), (0, 0, 1))).{SQUARE}.extrude(1)\n",
    "parallel xDir": f"solid = cq.Workplane(cq.Plane((0, 0, 0), (0, 0, 1), (0, 0, 1))).{SQUARE}.extrude(1)\n",
    "named planes": "\n".join(f"{name} = cq.Workplane('{name}', origin=(1, 2, 3)).moveTo(1, 2).rect(1, 2).extrude(3)"
                              for name in ("XY", "YZ", "ZX", "XZ", "YX", "ZY", "front", "back", "left", "right", "top", "bottom"))
                    + "\nsolid = XY.union(YZ).union(ZX).union(XZ).union(YX).union(ZY)\n"
                      "solid = solid.union(front).union(back).union(left).union(right).union(top).union(bottom)\n",
    "unknown plane": "solid = cq.Workplane('AB').box(1, 1, 1)\n",
    "workplane of a number": "solid = cq.Workplane(5).box(1, 1, 1)\n",
    "offset workplane": "solid = cq.Workplane().workplane(offset=2).rect(1, 2).extrude(1)\n",
    "wires in two planes": "solid = cq.Workplane().circle(1).workplane(offset=2).circle(1).extrude(1)\n",
    "center": "solid = cq.Workplane().center(1, 2).rect(1, 1).extrude(1)\n",
    "transformed": "solid = cq.Workplane().transformed(rotate=(0, 90, 30), offset=(1, 2, 3)).rect(1, 2).extrude(3)\n",
    # Shapes at points.
    "circles at points": "solid = cq.Workplane().pushPoints([(0, 0), (3, 0), (0, 3)]).circle(1).extrude(1)\n",
    "circle about a circle": "solid = cq.Workplane().moveTo(3, 3).circle(2).circle(1).extrude(1)\n",
    "rectangles in an array": "solid = cq.Workplane().rarray(3, 3, 2, 3).rect(1, 2).extrude(1)\n",
    "polygon": "solid = cq.Workplane().polygon(6, 2).extrude(1)\n",
    "slot": "solid = cq.Workplane().slot2D(3, 1, 30).extrude(1)\n",
    "polyline": "solid = cq.Workplane().polyline([(0, 0), (2, 0), (1, 1)]).close().extrude(1)\n",
    "lines by steps": "solid = cq.Workplane().hLine(2).vLine(1).hLineTo(1).vLineTo(3).polarLine(1, 180).close().extrude(1)\n",
    "holes at the corners of a construction rectangle": "solid = cq.Workplane().box(4, 4, 1).faces('>Z').workplane()"
        ".rect(3, 2, forConstruction=True).vertices().hole(0.5)\n",
    "sphere": "solid = cq.Workplane('XZ').moveTo(1, 2).sphere(1.5)\n",
    "ball in a box": "solid = cq.Workplane().box(2, 2, 2).cut(cq.Workplane().sphere(1.25))\n",
    "files": "solid = cq.Workplane().box(1, 1, 1)\ncq.exporters.export(solid, 'nowhere/part.stl')\n"
             "cq.exporters.export(solid, 'nowhere/part.step')\n",
    "ring": "solid = cq.Workplane('XZ').moveTo(3, 0).rect(1, 2).revolve(360, (0, 0, 0), (0, 1, 0))\n",
    "cone": "solid = cq.Workplane('YZ').polyline([(0, 0), (2, 0), (0, 3)]).close().revolve()\n",
    "oblique axis": "solid = cq.Workplane().moveTo(3, 0).rect(1, 1).moveTo(3, 0).rect(0.5, 0.5).revolve(360, (0, 1, 0), (1, 3, 0))\n",
    "axis on the left": "solid = cq.Workplane().moveTo(-3, 0).rect(2, 2).revolve(720, (0, 0, 0), (0, 1, 0)).mirror('XZ')\n",
    # Part of a turn.
    "quarter turn": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(90, (0, 0, 0), (0, 1, 0))\n",
    "half turn on the left": "solid = cq.Workplane().polyline([(-1, 0), (-3, 0), (-3, 4), (-1, 3)]).close().revolve(180, (0, 0, 0), (0, 1, 0))\n",
    "negative turn": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(-90, (0, 0, 0), (0, 1, 0))\n",
    "turn of 450": "solid = cq.Workplane('XZ').polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(450, (0, 0, 0), (0, 1, 0))\n",
    "turn about an axis downward": "solid = cq.Workplane().polyline([(0, 0), (3, 0), (0, 4)]).close().revolve(120, (0, 1, 0), (0, 0, 0))\n",
    "revolve default axis below": "solid = cq.Workplane(origin=(0, -2, 0)).polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(90)\n",
    "revolve axis with a start": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(90, (0.5, 0, 0))\n",
    "revolve axis with an end": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(90, axisEnd=(0, 1, 0))\n",
    "part of a turn drilled": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 4)]).close().revolve(200, (0, 0, 0), (0, 1, 0))"
                              ".cut(cq.Workplane('XZ').cylinder(20, 0.5).translate((0, 0, -2)))\n",
    "part of a turn mirrored": "solid = cq.Workplane().polyline([(1, 0), (3, 0), (3, 4), (1, 3)]).close().revolve(60, (0, 0, 0), (0, 1, 0)).mirror('YZ')\n",
    # Tapers.
    "taper": "solid = cq.Workplane().rect(2, 1).extrude(1, taper=10)\n",
    "taper downward": "solid = cq.Workplane('XZ').rect(2, 1).extrude(-1, taper=10)\n",
    "taper outward": "solid = cq.Workplane().rect(2, 1).extrude(1, taper=-10)\n",
    "taper to both sides": "solid = cq.Workplane().rect(2, 1).extrude(1, both=True, taper=10)\n",
    "taper of a circle": "solid = cq.Workplane('YZ').circle(1).extrude(-1, taper=10)\n",
    "taper of a circle outward": "solid = cq.Workplane().circle(1).extrude(1, taper=-20)\n",
    "taper of a polygon outward": "solid = cq.Workplane().polygon(6, 4).extrude(2, taper=-15)\n",
    "tapered pocket": "solid = cq.Workplane().box(10, 10, 10).faces('>Z').workplane().rect(4, 4).cutBlind(-3, taper=10)\n",
    "tapered boss": "solid = cq.Workplane().box(10, 10, 10).faces('>Z').workplane().polygon(5, 6).extrude(3, taper=8)\n",
    # Solids by themselves, and workplanes on them.
    "makeBox": "solid = cq.Solid.makeBox(1, 2, 3, cq.Vector(1, 1, 1))\n",
    "makeBox aside": "solid = cq.Workplane().add(cq.Solid.makeBox(1, 2, 3, cq.Vector(0, 0, 0), cq.Vector(1, 1, 0)))\n",
    "makeCylinder aside": "solid = cq.Workplane(cq.Solid.makeCylinder(2, 5, cq.Vector(1, 2, 3), cq.Vector(1, 0, 0)))\n",
    "makeCone": "solid = cq.Workplane().add(cq.Solid.makeCone(3, 1, 4)).union(cq.Solid.makeCone(3, 1, 4).translate((0, 0, 4)))\n",
    "makeCone to a tip": "solid = cq.Solid.makeCone(3, 0, 4)\n",
    "makeSphere whole": "solid = cq.Solid.makeSphere(2, (1, 1, 1), (0, 0, 1), -90, 90, 360)\n",
    "workplane on a solid": "solid = cq.Workplane().box(4, 4, 2).workplane(offset=3).circle(1).extrude(2)\n",
    "workplane on a solid aside": "solid = cq.Workplane('XZ').circle(2).extrude(3).translate((1, 2, 3)).workplane(offset=1).rect(1, 1).extrude(4)\n",
    "workplane on the centre of a solid": "solid = cq.Workplane().box(4, 4, 2, centered=False).workplane(centerOption='CenterOfMass').circle(1).extrude(5)\n",
    "centre of a solid": "b = cq.Workplane().polygon(3, 5).extrude(4)\nc = b.val().Center()\n"
                         "solid = b.union(cq.Workplane().box(1, 1, 9).translate(c.toTuple()))\n",
    "outline across the axis": "solid = cq.Workplane().rect(1, 2).revolve(360, (0, 0, 0), (0, 1, 0))\n",
    "box not centred": "solid = cq.Workplane().box(1, 2, 3, centered=(True, False, False))\n",
    "box without size": "solid = cq.Workplane().box(0, 1, 1)\n",
    "cylinder": "solid = cq.Workplane('YZ').cylinder(3, 1)\n",
    "hole in a box": "solid = cq.Workplane().box(4, 4, 1).faces('>Z').workplane().hole(1)\n",
    "blind hole": "solid = cq.Workplane().box(4, 4, 2).faces('<X').workplane().circle(0.5).cutBlind(-1)\n",
    "counterbores": "solid = cq.Workplane().box(4, 4, 2).faces('>Z').workplane().pushPoints([(1, 1), (-1, -1)]).cboreHole(0.3, 0.6, 0.5)\n",
    "workplane on a round face": "solid = cq.Workplane().cylinder(2, 1).faces('>X').workplane().hole(0.5)\n",
    "workplane on faces apart": "solid = cq.Workplane().polyline([(0, 0), (4, 0), (2, 1)]).close().extrude(3).faces('<X').workplane().hole(0.5)\n",
    "hole at the centre of a face": "solid = cq.Workplane().moveTo(3, 1).rect(4, 2).moveTo(4, 1).circle(0.25).extrude(2)"
        ".faces('>Z').workplane(centerOption='CenterOfMass').hole(0.5)\n",
    "hole in an oblique face": "solid = cq.Workplane().polyline([(0, 0), (4, 0), (0, 1)]).close().extrude(3).faces('>Y').workplane().hole(0.5)\n",
    "cut through all": "solid = cq.Workplane().box(4, 4, 1).faces('>Y').workplane().rect(1, 0.5).cutThruAll()\n",
    "boss on a face": "solid = cq.Workplane().box(4, 4, 1).faces('<Z').workplane().rect(1, 2).extrude(0.5)\n",
    # Booleans.
    "union": boxes("solid = a.union(b)"),
    "union apart": boxes("solid = a.union(c)"),
    "union at a face": boxes("solid = a.union(d)"),
    "union of a drawing": boxes("solid = a.union(cq.Workplane().rect(1, 1))"),
    "union with nothing": boxes("solid = a.union()"),
    "union with a number": boxes("solid = a.union(5)"),
    "union of a value": boxes("solid = a.union(b.val())"),
    "cut": boxes("solid = a.cut(b)"),
    "cut apart": boxes("solid = a.cut(c)"),
    "cut from nothing": boxes("solid = cq.Workplane().cut(a)"),
    "cut by a drawing": boxes("solid = a.cut(cq.Workplane().rect(1, 1))"),
    "cut by itself": boxes("solid = a.cut(a)"),
    "cut in two": boxes("solid = a.cut(cq.Workplane().box(0.2, 3, 3))"),
    "intersect": boxes("solid = a.intersect(b)"),
    "intersect apart": boxes("solid = a.intersect(c)"),
    "intersect at a face": boxes("solid = a.intersect(d)"),
    "emptied then united": boxes("solid = a.cut(a).union(c)"),
    "emptied then cut": boxes("solid = a.cut(a).cut(b)"),
    "emptied then intersected": boxes("solid = a.intersect(c).intersect(b)"),
    "union with an emptied one": boxes("solid = a.union(b.cut(b))"),
    "cut by an emptied one": boxes("solid = a.cut(b.cut(b))"),
    "intersect with an emptied one": boxes("solid = a.intersect(b.cut(b))"),
    "operators": boxes("solid = (a + b) - c"),
    "equal cylinders cross": "solid = cq.Workplane('XY').cylinder(4, 1).union(cq.Workplane('XZ').cylinder(4, 1))\n",
    # Motions.
    "translate": boxes("solid = a.translate((1, 2, 3))"),
    "rotate": boxes("solid = c.rotate((0, 0, 0), (0, 0, 1), 30)"),
    "rotate by a right angle": boxes("solid = d.union(d.rotate((0, 0, 0), (0, 0, 1), 90)).union(a)"),
    "mirror": boxes("solid = b.mirror('YZ')"),
    "mirror and union": boxes("solid = d.mirror('YZ', union=True)"),
    # Which object counts.
    "any name": "thing = cq.Workplane().box(1, 1, 1)\n",
    "first of two": "x = cq.Workplane().box(1, 1, 1)\ny = cq.Workplane().box(2, 2, 2)\n",
    "solid before result": "result = cq.Workplane().box(1, 1, 1)\nsolid = cq.Workplane().box(2, 2, 2)\n",
    "first made is a drawing": "w0 = cq.Workplane()\nr = w0.box(1, 1, 1)\n",
    "first made holds a wire": "w0 = cq.Workplane().rect(1, 1)\nr = w0.extrude(1)\n",
    "no object": "x = 5\n",
    "empty text": "\n",
    "rebound to a number": "solid = cq.Workplane().box(1, 1, 1)\nsolid = 5\n",
    "value": "solid = cq.Workplane().box(1, 1, 1).val()\n",
    "local of a function": "def make():\n    solid = cq.Workplane().box(1, 1, 1)\n    return solid\nmake()\n",
    "only a plane": "p = cq.Plane.XY()\n",
    # Text and language.
    "indented as a whole": "    x = 1\n    solid = cq.Workplane().box(x, x, x)\n",
    "prose before": "Here is the part:\nsolid = cq.Workplane().box(1, 1, 1)\n",
    "cut off": "solid = cq.Workplane().box(1, 1\n",
    "unknown name": "solid = cq.Workplane().box(size, 1, 1)\n",
    "unknown method": "solid = cq.Workplane().bax(1, 1, 1)\n",
    "unknown class": "solid = cq.Workplan().box(1, 1, 1)\n",
    "missing argument": "solid = cq.Workplane().lineTo(1)\n",
    "division by zero": "solid = cq.Workplane().box(1 / 0, 1, 1)\n",
    "loop and list": "solid = cq.Workplane().box(9, 9, 1)\nfor x, r in [(-2, 0.5), (0, 1.0), (2.5, 0.25)]:\n"
                     "    solid = solid.cut(cq.Workplane().center(x, 0).circle(r).extrude(2, both=True))\n",
    "exit": "solid = cq.Workplane().box(1, 1, 1)\nexit()\n",
    # Sketches.
    "sketch": "solid = cq.Workplane().sketch().rect(2, 2).circle(0.5, mode='s').finalize().extrude(1)\n",
    "sketch of segments": "solid = cq.Workplane('ZX', origin=(0, 5, 0)).sketch().segment((0, 0), (2, 0)).segment((2, 1)).arc((1, 2), (0, 1)).close().assemble().finalize().extrude(-3)\n",
    "sketch of overlapping faces": "solid = cq.Workplane().sketch().rect(2, 1).push([(1, 0.25)]).rect(2, 1).finalize().extrude(1)\n",
    "sketch with holes": "solid = cq.Workplane().sketch().rect(4, 2).push([(-1, 0), (1, 0)]).circle(0.5, mode='s').finalize().extrude(1)\n",
    "sketch of a sketch": "w = cq.Workplane()\nsolid = w.sketch().rect(4, 2).face(w.sketch().segment((0, 0), (1, 0)).segment((1, 0.5)).close().assemble(), mode='s').finalize().extrude(1)\n",
    "sketch that begins with a cut": "solid = cq.Workplane().sketch().circle(1, mode='s').finalize().extrude(1)\n",
    "sketch with a bad mode": "solid = cq.Workplane().sketch().circle(1, mode='z').finalize().extrude(1)\n",
    "empty sketch": "solid = cq.Workplane().sketch().finalize().extrude(1)\n",
    "sketch without faces": "solid = cq.Workplane().sketch().segment((0, 0), (1, 0)).segment((1, 1)).close().finalize().extrude(1)\n",
    "sketch closed twice": "solid = cq.Workplane().sketch().segment((0, 0), (1, 0)).segment((1, 1)).segment((0, 0)).close().assemble().finalize().extrude(1)\n",
    "sketch without a start": "solid = cq.Workplane().sketch().segment((1, 0)).close().assemble().finalize().extrude(1)\n",
    "sketch not finalised": "solid = cq.Workplane().sketch().circle(1).extrude(1)\n",
    "sketch at a point": "solid = cq.Workplane().moveTo(5, 5).sketch().circle(1).finalize().extrude(1)\n",
    "sketch boss": "solid = cq.Workplane().box(4, 4, 1).faces('>Z').workplane().sketch().circle(1).finalize().extrude(1)\n",
    "hole of a sketch over its edge": "solid = cq.Workplane().sketch().rect(2, 2).push([(1, 0)]).circle(0.5, mode='s').finalize().extrude(1)\n",
    "segment of lists": "solid = cq.Workplane().sketch().segment([0, 0], [2, 0]).segment([2, 2]).close().assemble()"
                        ".finalize().extrude(1)\n",
    "add of a sketch": "solid = cq.Workplane().add(cq.Sketch().rect(2, 3)).extrude(4)\n",
    "cut by joined faces": "solid = cq.Workplane().box(10, 10, 1).faces('>Z').workplane().sketch().rect(2, 2)"
                           ".push([(1, 0)]).rect(2, 2).finalize().cutBlind(-0.5)\n",
    # Surfaces that touch crosswise.
    "cap touches a cylinder": "solid = cq.Workplane('XY', origin=(0, 1, 3)).circle(2).extrude(-1)"
                              ".union(cq.Workplane('XZ', origin=(1, 2, 5)).circle(2).extrude(5))\n",
    "cap touched from side to side": "solid = cq.Workplane().box(4, 1, 4)"
                                     ".cut(cq.Workplane('XZ', origin=(1, 1, 0)).circle(1).extrude(3))\n",
    "edge rests on a cap": "solid = cq.Workplane('YZ', origin=(2, 2, 4)).circle(3).extrude(2)"
                           ".union(cq.Workplane('XY', origin=(2, 3, 0)).polyline([(0, 0), (5, 0), (5, 5)]).close()"
                           ".extrude(4))\n",
    "cylinders touch": "solid = cq.Workplane().circle(2).extrude(3)"
                       ".union(cq.Workplane().center(3, 0).circle(1).extrude(4))\n",
    "spheres cross": "solid = cq.Workplane().sphere(2).cut(cq.Workplane(origin=(-2, 0, 1)).sphere(3))\n",
    # Small remainders.
    "chips of a cut": "solid = cq.Workplane().box(10, 10, 4).cut(cq.Workplane().circle(7.05).extrude(20, both=True))\n",
    "chips of a turned cut": "solid = cq.Workplane().box(10, 10, 4).cut(cq.Workplane().rect(14, 14)"
                             ".extrude(20, both=True).rotate((0, 0, 0), (0, 0, 1), 45))\n",
    "segments of a disc": "solid = cq.Workplane().circle(5).extrude(3).cut(cq.Workplane().rect(9.9, 9.9).extrude(3))\n",
    "sliver of a turned block": "solid = cq.Workplane('XY', origin=(-1, 0, -1)).box(2, 2, 8)"
                                ".intersect(cq.Workplane('XY', origin=(-2, -2, 1)).box(8, 2, 6)"
                                ".rotate((0, 0, 0), (0, 1, 1), 10))\n",
    "bodies on both sides": "a = cq.Workplane().box(10, 10, 2)\nsolid = a.translate((0, 0, 1)).union(a.translate((0, 0, -1)))"
                            ".translate((10, 0, 0)).mirror('YZ', union=True)\n",
    # Odd arguments.
    "ring cutThruAll": "solid = cq.Workplane().box(20, 20, 4).faces('>Z').workplane().circle(3).circle(1).cutThruAll()\n",
    "intersect with a face": "solid = cq.Workplane().box(4, 4, 4).intersect(cq.Workplane().box(2, 2, 2).faces('>Z'))\n",
    "hole of text": "solid = cq.Workplane().hole('x')\n",
    "taper of text": "solid = cq.Workplane().rect(1, 1).extrude(5, taper='')\n",
    "revolve from 1e-16": "solid = cq.Workplane('XZ', origin=(0, 1e-16, 5)).moveTo(5, 0).rect(2, 2).revolve()\n",
    "vectors compared": "n = 3 if cq.Vector(1, 2, 3) == cq.Vector(1, 2, 3) else 2\nsolid = cq.Workplane().box(n, 1, 1)\n",
    "text of an error": "try:\n    cq.Workplane().box('a', 1, 1)\nexcept Exception as e:\n"
                        "    solid = cq.Workplane().box(3, 1, len(str(e)) + 1)\n",
    "flat loop and another": "w = cq.Workplane()\nw.moveTo(5, 5).lineTo(6, 5).lineTo(7, 5).close().rect(2, 2)\n"
                             "w.extrude(1)\nsolid = cq.Workplane().foo()\n",
    **FREE_FORM,
}


def ask(program: str, channel) -> None:
    import program as worker

    channel.send(worker.perform(worker.MESH, program.encode()))


def answer(program: str) -> dict:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=ask, args=(program, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        reply = ours.recv() if ours.poll(60) else bytes([5])
    except EOFError:
        reply = bytes([7])
    process.kill()
    outcome = CLASSES[reply[0]]
    if outcome == "crash":
        raise SystemExit(f"a program crashed CadQuery, or this script no longer fits the worker:\n{program}")
    if outcome != "solid":
        return {"outcome": outcome, "error": reply[1:].decode().split(":")[0] if outcome in ("exception", "syntax") else None}
    numbers = struct.unpack_from("<19dIB", reply, 1)
    return {"outcome": outcome, "volume": numbers[0], "centroid": numbers[1:4], "bounds": numbers[13:19],
            "solids": numbers[19], "malformed": bool(numbers[20])}


def same(old, new) -> bool:
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(same, old, new))
    if isinstance(old, float):
        return abs(old - new) <= 1e-6 * max(1.0, abs(old))
    return old == new


def main() -> None:
    import program as _  # CadQuery is imported once, before the forks

    answers = [{"rule": rule, "program": text, **answer(text)} for rule, text in RULES.items()]
    if "--write" in sys.argv:
        lines = ",\n".join(json.dumps(row) for row in answers)
        ANSWERS.write_text(f"[\n{lines}\n]\n")
        print(f"{len(answers)} answers written to {ANSWERS.relative_to(ROOT)}")
        return
    known = {row["rule"]: row for row in json.loads(ANSWERS.read_text())}
    changed = [row["rule"] for row in answers
               if row["rule"] not in known or any(not same(known[row["rule"]].get(key), row[key]) for key in row)]
    print(f"{len(answers)} rules, {len(changed)} changed: {', '.join(changed) or '-'}")
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
