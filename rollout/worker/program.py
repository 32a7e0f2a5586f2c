"""Executes one program and packs what it left behind. Little endian throughout.

Reply: one byte of class, then for a solid
    f64 volume, 3 f64 centroid, 9 f64 inertia about the centroid, 6 f64 bounds (low, high),
    u32 solids, u8 malformed, u32 vertices, u32 triangles,
    3 f64 a vertex, 3 u32 a triangle, u32 face index a triangle;
for a failure the message in UTF-8.
"""

from __future__ import annotations

import math
import struct
import textwrap
from array import array
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BRep import BRep_Tool
from OCP.BRepGProp import BRepGProp
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.GProp import GProp_GProps
from OCP.IMeshTools import IMeshTools_Parameters
from OCP.Standard import Standard_OutOfMemory
from OCP.TopAbs import TopAbs_Orientation, TopAbs_ShapeEnum
from OCP.TopExp import TopExp_Explorer
from OCP.TopLoc import TopLoc_Location
from OCP.TopoDS import TopoDS

SOLID, SYNTAX, EXCEPTION, NO_SOLID, EMPTY, TIMEOUT, MEMORY, CRASH = range(8)

# Where a program may leave its result, in this order; otherwise the first object counts.
RESULT_NAMES = ("solid", "result", "shape", "part", "object", "obj", "res")

# Distance of the mesh from the surface, as a share of the part's diagonal, and the largest angle
# between neighbouring normals. Chosen so that IoU changes by less than 0.002 against a fine mesh.
LINEAR_DEFLECTION = 5e-4
ANGULAR_DEFLECTION = 0.2

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


def execute(text: str) -> bytes:
    """The whole verdict: never raises."""
    try:
        code = compile(textwrap.dedent(text).strip(), "<program>", "exec", dont_inherit=True)
    except MemoryError as error:
        return failure(MEMORY, describe(error))
    except BaseException as error:
        return failure(SYNTAX, describe(error))
    names: dict[str, Any] = {"cq": cq, "cadquery": cq, "np": np, "numpy": np}
    try:
        exec(code, names)
        shape, solids, error = pick(names)
        return error if shape is None else pack(shape, solids)
    except (MemoryError, Standard_OutOfMemory) as error:
        names.clear()
        return failure(MEMORY, describe(error))
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too
        return failure(EXCEPTION, describe(error))


def pick(names: dict[str, Any]) -> tuple[Any, list[Any], bytes]:
    """The object that counts and the solids in it, or the failure."""
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


def volume_properties(shape: Any) -> GProp_GProps:
    properties = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape.wrapped, properties)
    return properties


def pack(shape: Any, solids: list[Any]) -> bytes:
    properties = volume_properties(shape)
    centre, matrix = properties.CentreOfMass(), properties.MatrixOfInertia()
    box = shape.BoundingBox()
    numbers = [
        properties.Mass(), centre.X(), centre.Y(), centre.Z(),
        *(matrix.Value(row, column) for row in (1, 2, 3) for column in (1, 2, 3)),
        box.xmin, box.ymin, box.zmin, box.xmax, box.ymax, box.zmax,
    ]
    malformed = not shape.isValid()
    vertices, triangles, faces = tessellate(shape, solids, box.DiagonalLength)
    if not all(map(math.isfinite, numbers)):
        malformed = True
        numbers = [number if math.isfinite(number) else 0.0 for number in numbers]
    return b"".join((
        struct.pack("<B19dIBII", SOLID, *numbers, len(solids), malformed,
                    len(vertices) // 3, len(triangles) // 3),
        vertices.tobytes(), triangles.tobytes(), faces.tobytes(),
    ))


def tessellate(shape: Any, solids: list[Any], size: float) -> tuple[array, array, array]:
    """Flat coordinates, flat vertex indices turning counter-clockwise from outside, face indices."""
    vertices, triangles, faces = array("d"), array("I"), array("I")
    try:
        parameters = IMeshTools_Parameters()
        parameters.Deflection = max(LINEAR_DEFLECTION * size, 1e-7)
        parameters.Angle = ANGULAR_DEFLECTION
        parameters.InParallel = False
        parameters.InternalVerticesMode = False
        parameters.ControlSurfaceDeflection = False
        BRepMesh_IncrementalMesh(shape.wrapped, parameters)
    except MemoryError:
        raise
    except Exception:  # malformed beyond meshing: valid by the rule, but it occupies nothing
        return vertices, triangles, faces
    face_index = 0
    for solid in solids:
        inside_out = volume_properties(solid).Mass() < 0.0
        explorer = TopExp_Explorer(solid.wrapped, TopAbs_ShapeEnum.TopAbs_FACE)
        while explorer.More():
            face = TopoDS.Face_s(explorer.Current())
            if append_face(face, inside_out, face_index, vertices, triangles, faces):
                face_index += 1
            explorer.Next()
    if not all(map(math.isfinite, vertices)):
        return array("d"), array("I"), array("I")
    return vertices, triangles, faces


def append_face(
    face: Any, inside_out: bool, index: int, vertices: array, triangles: array, faces: array
) -> bool:
    orientation = face.Orientation()
    if orientation not in (TopAbs_Orientation.TopAbs_FORWARD, TopAbs_Orientation.TopAbs_REVERSED):
        return False
    location = TopLoc_Location()
    mesh = BRep_Tool.Triangulation_s(face, location)
    if mesh is None:
        return False
    moved = not location.IsIdentity()
    motion = location.Transformation() if moved else None
    base = len(vertices) // 3 - 1  # OCC counts from 1
    for i in range(1, mesh.NbNodes() + 1):
        point = mesh.Node(i)
        if moved:
            point = point.Transformed(motion)
        vertices.extend((point.X(), point.Y(), point.Z()))
    turned = (orientation == TopAbs_Orientation.TopAbs_REVERSED) != inside_out
    if moved and motion.IsNegative():
        turned = not turned
    for i in range(1, mesh.NbTriangles() + 1):
        a, b, c = mesh.Triangle(i).Get()
        triangles.extend((base + a, base + c, base + b) if turned else (base + a, base + b, base + c))
    faces.extend([index] * mesh.NbTriangles())
    return True
