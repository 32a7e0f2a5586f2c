"""Executes programs and packs their results. All numbers are little endian.

Tasks MESH and SHELL. They differ in the mesh. Payload: the program in UTF-8.
Reply: one byte of class, then for a solid
    f64 volume, 3 f64 centroid, 9 f64 inertia about the centroid, 6 f64 bounds (low, high),
    u32 solids, u8 malformed, u8 iou_uncertain (see mesh.py), u32 vertices, u32 triangles,
    3 f64 per vertex, 3 u32 per triangle, u32 face index per triangle;
for a failure the message in UTF-8.

Task EXACT. Payload: u32 poses, 12 f64 per pose (the three rows of a matrix), u32 bytes of the first
program, then both programs.
Reply: one byte of class, then per pose the f64 IoU of the first solid and the second one moved by
the pose, NaN if the kernel has no answer; for a failure the message in UTF-8.

Task STEP. Payload: a STEP file. Reply: as for MESH.

Task EXPORT. Payload: the program in UTF-8.
Reply: one byte of class, then for a solid u32 bytes of its STEP file, the file, and the reply to
MESH; for a failure the message in UTF-8.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import textwrap
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BRepAlgoAPI import BRepAlgoAPI_Common, BRepAlgoAPI_Fuse
from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
from OCP.BRepGProp import BRepGProp
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.GProp import GProp_GProps
from OCP.gp import gp_Trsf
from OCP.IFSelect import IFSelect_ReturnStatus
from OCP.Interface import Interface_Static
from OCP.Standard import Standard_OutOfMemory
from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer
from OCP.TopAbs import TopAbs_ShapeEnum
from OCP.TopExp import TopExp_Explorer
from OCP.TopoDS import TopoDS

import tame
from mesh import Mesh, append_face, tessellate, volume_properties

SOLID, SYNTAX, EXCEPTION, NO_SOLID, EMPTY, TIMEOUT, MEMORY, CRASH = range(8)

# The class byte with which a shared process refuses a program that needs a process of its own.
NOT_TAME = 255

MESH, SHELL, EXACT, STEP, EXPORT = range(5)

# The tasks of which a tame program may run in a shared process.
SHARED_TASKS = (MESH, SHELL)

# The names of a program's result, in order of precedence. Without them the first object counts.
RESULT_NAMES = ("solid", "result", "shape", "part", "object", "obj", "res")

# The defaults of CadQuery's STL export, which the published metric uses. The deflection is relative
# to the size of an edge.
STL_DEFLECTION = 0.1
STL_ANGLE = 0.1

# Maximum difference between the volumes of intersection plus union and those of the two parts, as a
# share of the latter.
BOOLEAN_TOLERANCE = 1e-3

MESSAGE_LIMIT = 500


def failure(kind: int, message: str) -> bytes:
    line = " ".join(message.split())[:MESSAGE_LIMIT]
    return bytes([kind]) + line.encode("utf-8", "replace")


def describe(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"


def perform(task: int, payload: bytes) -> bytes:
    """The reply to a task. Never raises."""
    try:
        if task == EXACT:
            poses = struct.unpack_from("<I", payload)[0]
            at = 4 + 96 * poses
            numbers = struct.unpack_from(f"<{12 * poses}d", payload, 4)
            second = at + 4 + struct.unpack_from("<I", payload, at)[0]
            matrices = [numbers[12 * k:12 * (k + 1)] for k in range(poses)]
            return compare(payload[at + 4:second].decode(), payload[second:].decode(), matrices)
        shape, solids, error = read_step(payload) if task == STEP else build(payload.decode())
        if shape is None:
            return error
        return export(shape, solids) if task == EXPORT else pack(shape, solids, task)
    except (MemoryError, Standard_OutOfMemory) as error:
        return failure(MEMORY, describe(error))
    except BaseException as error:  # includes SystemExit and KeyboardInterrupt
        return failure(EXCEPTION, describe(error))


def perform_tame(task: int, payload: bytes) -> bytes:
    """As `perform`, but refuses a program that might change this process."""
    if task in SHARED_TASKS:
        try:
            tree = ast.parse(textwrap.dedent(payload.decode()).strip(), "<program>")
        except BaseException:  # a process of its own finds the error again
            return bytes([NOT_TAME])
        if tame.is_tame(tree):
            return perform(task, payload)
    return bytes([NOT_TAME])


def build(text: str) -> tuple[Any, list[Any], bytes]:
    """The result object of a program and its solids, or the failure.

    Raises any exception that the program raises.
    """
    try:
        code = compile(textwrap.dedent(text).strip(), "<program>", "exec", dont_inherit=True)
    except MemoryError:
        raise
    except BaseException as error:
        return None, [], failure(SYNTAX, describe(error))
    names: dict[str, Any] = {"cq": cq, "cadquery": cq, "np": np, "numpy": np}
    try:
        exec(code, names)
    except (MemoryError, Standard_OutOfMemory):
        names.clear()  # makes room for the message
        raise
    return pick(names)


def read_step(content: bytes) -> tuple[Any, list[Any], bytes]:
    """The shape in a STEP file, in millimetres, and its solids, or the failure.

    The reader takes only file names, so the content is written to this process's directory.
    """
    with open("shape.step", "wb") as file:
        file.write(content)
    shape = cq.Compound.makeCompound(cq.importers.importStep("shape.step").vals())
    solids = shape.Solids()
    if not solids:
        return None, [], failure(NO_SOLID, "the STEP file holds no solid")
    return (solids[0] if len(solids) == 1 else cq.Compound.makeCompound(solids)), solids, b""


def export(shape: Any, solids: list[Any]) -> bytes:
    """The reply to EXPORT about a solid."""
    file = step_file(shape)  # before there are triangles
    return struct.pack("<BI", SOLID, len(file)) + file + pack(shape, solids, MESH)


def step_file(shape: Any) -> bytes:
    """The STEP file that CadQuery's exporter writes, in millimetres.

    It goes to memory: a program may have put anything in the place of a file.
    """
    writer = STEPControl_Writer()
    # The defaults of `Shape.exportStep`. The program may have changed them.
    Interface_Static.SetIVal_s("write.surfacecurve.mode", 1)
    Interface_Static.SetIVal_s("write.precision.mode", 0)
    Interface_Static.SetCVal_s("xstep.cascade.unit", "MM")
    Interface_Static.SetCVal_s("write.step.unit", "MM")
    file = io.BytesIO()
    done = IFSelect_ReturnStatus.IFSelect_RetDone
    for status in (
        writer.Transfer(shape.wrapped, STEPControl_StepModelType.STEPControl_AsIs),
        writer.WriteStream(file),
    ):
        if status != done:
            raise ValueError(f"the kernel cannot write the solid as STEP: {status.name}")
    return file.getvalue()


def compare(first: str, second: str, poses: list[tuple[float, ...]]) -> bytes:
    """IoU of two programs by booleans, once for each pose of the second one.

    Both programs run in this process. For audits of programs, not for rewards.
    """
    shapes = []
    for text in (first, second):
        shape, _, error = build(text)
        if shape is None:
            return error
        shapes.append(shape)
    ious = [math.nan] * len(poses)
    if all(shape.isValid() for shape in shapes):
        ious = [exact_iou(shapes[0], moved(shapes[1], pose)) for pose in poses]
    return struct.pack(f"<B{len(poses)}d", SOLID, *ious)


def moved(shape: Any, pose: tuple[float, ...]) -> Any:
    """The shape after a rotation, a uniform scale and a translation.

    These keep the type of its surfaces.
    """
    if pose == (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        return shape
    motion = gp_Trsf()
    motion.SetValues(*pose)
    return cq.Shape.cast(BRepBuilderAPI_Transform(shape.wrapped, motion, True).Shape())


def exact_iou(first: Any, second: Any) -> float:
    """IoU by booleans; NaN if the volumes do not add up."""
    parts = volume_properties(first).Mass() + volume_properties(second).Mass()
    common, union = (boolean(operation, first, second) for operation in (BRepAlgoAPI_Common, BRepAlgoAPI_Fuse))
    return common / union if union > 0.0 and abs(common + union - parts) <= BOOLEAN_TOLERANCE * parts else math.nan


def boolean(operation: Any, first: Any, second: Any) -> float:
    """Volume of the result of a boolean; NaN if it fails."""
    made = operation(first.wrapped, second.wrapped)
    if not made.IsDone():
        return math.nan
    properties = GProp_GProps()
    BRepGProp.VolumeProperties_s(made.Shape(), properties)
    return properties.Mass()


def pick(names: dict[str, Any]) -> tuple[Any, list[Any], bytes]:
    """The result object among a program's variables, and its solids, or the failure."""
    found = {
        name: value for name, value in names.items()
        if isinstance(value, (cq.Workplane, cq.Solid, cq.Compound))
    }
    if not found:
        return None, [], failure(NO_SOLID, "the program defines no Workplane, Solid or Compound")
    name = next((name for name in RESULT_NAMES if name in found), next(iter(found)))
    value = found[name]
    if isinstance(value, cq.Workplane):
        value = value.val()
    if not isinstance(value, cq.Shape):
        message = f"'{name}' holds a {type(value).__name__}, not a solid"
        return None, [], failure(NO_SOLID, message)
    solids = value.Solids()
    if not solids and isinstance(value, cq.Compound) and not value.Vertices():
        return None, [], failure(EMPTY, f"'{name}' is empty: nothing is left of it")
    if not solids:
        message = f"'{name}' holds a {type(value).__name__}, not a solid"
        return None, [], failure(NO_SOLID, message)
    return (solids[0] if len(solids) == 1 else value), solids, b""


def warm_up() -> None:
    """Runs a small program before the fork, so that children need not initialise the kernel.

    It runs no boolean: see server.py.
    """
    plane = cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1))
    sketch = cq.Workplane(plane).moveTo(0, 0).lineTo(2, 0).threePointArc((2.5, 0.5), (2, 1)).close()
    shape = sketch.extrude(1).val()
    pack(shape, shape.Solids(), MESH)


def pack(shape: Any, solids: list[Any], task: int) -> bytes:
    """The reply about a solid, as the module states it."""
    properties = volume_properties(shape)
    centre, matrix = properties.CentreOfMass(), properties.MatrixOfInertia()
    box = shape.BoundingBox()
    numbers = [
        properties.Mass(), centre.X(), centre.Y(), centre.Z(),
        *(matrix.Value(row, column) for row in (1, 2, 3) for column in (1, 2, 3)),
        box.xmin, box.ymin, box.zmin, box.xmax, box.ymax, box.zmax,
    ]
    malformed = not shape.isValid()
    mesh, iou_uncertain = (exported(shape), False) if task == SHELL else tessellate(shape, solids, malformed)
    if not all(map(math.isfinite, numbers)):
        malformed = True
        numbers = [number if math.isfinite(number) else 0.0 for number in numbers]
    return b"".join((
        struct.pack("<B19dIBBII", SOLID, *numbers, len(solids), malformed, iou_uncertain,
                    len(mesh.vertices) // 3, len(mesh.faces)),
        mesh.vertices.tobytes(), mesh.triangles.tobytes(), mesh.faces.tobytes(),
    ))


def exported(shape: Any) -> Mesh:
    """The triangles that CadQuery's STL export writes, before they are rounded to 32 bits."""
    mesh = Mesh()
    BRepMesh_IncrementalMesh(shape.wrapped, STL_DEFLECTION, True, STL_ANGLE, False)
    explorer = TopExp_Explorer(shape.wrapped, TopAbs_ShapeEnum.TopAbs_FACE)
    index = 0
    while explorer.More():
        append_face(TopoDS.Face_s(explorer.Current()), False, index, mesh)
        explorer.Next()
        index += 1
    return mesh
