"""Measures the geometry that a program has handed over (program.py), in a process that has run no
program, or after a tame program that has changed nothing. All numbers are little endian.

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

import io
import math
import struct
from typing import Any

import cadquery as cq
from OCP.BinTools import BinTools
from OCP.BRepAlgoAPI import BRepAlgoAPI_Common, BRepAlgoAPI_Fuse
from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
from OCP.BRepGProp import BRepGProp
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.BRepTools import BRepTools
from OCP.GProp import GProp_GProps
from OCP.gp import gp_Trsf
from OCP.IFSelect import IFSelect_ReturnStatus
from OCP.Interface import Interface_Static
from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer
from OCP.TopAbs import TopAbs_ShapeEnum
from OCP.TopExp import TopExp_Explorer
from OCP.TopoDS import TopoDS, TopoDS_Shape

from mesh import Mesh, append_face, tessellate, volume_properties
from program import (
    CRASH, EMPTY, EXCEPTION, MEMORY, MESSAGE_LIMIT, NO_SOLID, SOLID, SYNTAX,
    Result, build, failure, failure_of, geometry,
)

MESH, SHELL, EXACT, STEP, EXPORT = range(5)

# The defaults of CadQuery's STL export, which the published metric uses. The deflection is relative
# to the size of an edge.
STL_DEFLECTION = 0.1
STL_ANGLE = 0.1

# Maximum difference between the volumes of intersection plus union and those of the two parts, as a
# share of the latter.
BOOLEAN_TOLERANCE = 1e-3

# What a program's process may say about itself, and the bytes of its message that count. The other
# failures are ours to say.
OWN_FAILURES = (SYNTAX, EXCEPTION, NO_SOLID, EMPTY, MEMORY)
MESSAGE_BYTES = 4 * MESSAGE_LIMIT


def programs_in(task: int, payload: bytes) -> list[str]:
    """The programs of a task."""
    if task == STEP:
        return []
    if task != EXACT:
        return [payload.decode()]
    at = 4 + 96 * struct.unpack_from("<I", payload)[0]
    second = at + 4 + struct.unpack_from("<I", payload, at)[0]
    return [payload[at + 4:second].decode(), payload[second:].decode()]


def measure(task: int, payload: bytes, said: list[bytes]) -> bytes:
    """The reply to a task, from what its programs' processes have said. Never raises."""
    try:
        results = [read_step(payload)] if task == STEP else [received(message) for message in said]
        for _, _, error in results:
            if error:
                return error
        if task == EXACT:
            return compare(results[0][0], results[1][0], poses_in(payload))
        shape, solids, _ = results[0]
        return export(shape, solids) if task == EXPORT else pack(shape, solids, task)
    except BaseException as error:
        return failure_of(error)


def poses_in(payload: bytes) -> list[tuple[float, ...]]:
    count = struct.unpack_from("<I", payload)[0]
    numbers = struct.unpack_from(f"<{12 * count}d", payload, 4)
    return [numbers[12 * k:12 * (k + 1)] for k in range(count)]


def received(message: bytes) -> Result:
    """The shape that a program's process has handed over, and its solids, or the failure."""
    if not message:
        return None, [], failure(CRASH, "exited with status 0 and no result")
    if message[0] in OWN_FAILURES:
        return None, [], failure(message[0], message[1:1 + MESSAGE_BYTES].decode("utf-8", "replace"))
    if message[0] != SOLID:
        return None, [], failure(CRASH, "handed over neither a solid nor a failure")
    read = TopoDS_Shape()
    try:
        BinTools.Read_s(read, io.BytesIO(message[1:]))
        # Triangles may be of another body than the surfaces; bounds would follow them.
        BRepTools.Clean_s(read, True)
        shape = None if read.IsNull() else cq.Shape.cast(read)
    except Exception as error:  # the kernel's
        return None, [], failure(CRASH, f"handed over geometry that cannot be read: {error}")
    solids = [] if shape is None else shape.Solids()
    if not solids:
        return None, [], failure(CRASH, "handed over geometry without a solid")
    return (solids[0] if len(solids) == 1 else shape), solids, b""


def read_step(content: bytes) -> Result:
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

    It goes to memory: a file would have to be removed.
    """
    writer = STEPControl_Writer()
    # The defaults of `Shape.exportStep`.
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


def compare(first: Any, second: Any, poses: list[tuple[float, ...]]) -> bytes:
    """IoU of two solids by booleans, once for each pose of the second one.

    For audits of programs, not for rewards.
    """
    ious = [math.nan] * len(poses)
    if first.isValid() and second.isValid():
        ious = [exact_iou(first, moved(second, pose)) for pose in poses]
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


def warm_up() -> None:
    """Runs a small program before the fork, so that children need not initialise the kernel.

    It runs no boolean: see server.py.
    """
    plane = "cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1))"
    sketch = "moveTo(0, 0).lineTo(2, 0).threePointArc((2.5, 0.5), (2, 1)).close()"
    shape, solids, _ = build(f"solid = cq.Workplane({plane}).{sketch}.extrude(1)")
    pack(shape, solids, MESH)
    received(bytes([SOLID]) + geometry(shape))


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
