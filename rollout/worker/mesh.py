"""Triangulates solids, and checks that the triangles enclose the same volume as the solids.

OpenCASCADE's mesher sometimes returns a closed surface that encloses another body, without a
warning. Therefore this module compares the volume of every mesh with that of the solids, which the
kernel integrates over the exact surfaces. If they differ, it tries other ways.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BRep import BRep_Tool
from OCP.BRepBuilderAPI import BRepBuilderAPI_Copy
from OCP.BRepClass3d import BRepClass3d_SolidClassifier
from OCP.BRepGProp import BRepGProp
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.BRepTools import BRepTools
from OCP.gp import gp_Dir, gp_Lin, gp_Pnt
from OCP.GProp import GProp_GProps
from OCP.IMeshTools import IMeshTools_MeshAlgoType, IMeshTools_Parameters
from OCP.IntCurvesFace import IntCurvesFace_ShapeIntersector
from OCP.IntCurveSurface import IntCurveSurface_TransitionOnCurve
from OCP.ShapeUpgrade import ShapeUpgrade_ShapeDivideAngle
from OCP.Standard import Standard_OutOfMemory
from OCP.TopAbs import TopAbs_Orientation, TopAbs_ShapeEnum, TopAbs_State
from OCP.TopExp import TopExp_Explorer
from OCP.TopLoc import TopLoc_Location
from OCP.TopoDS import TopoDS

# Distance of the mesh from the surface, as a share of the part's diagonal, and the largest angle
# between neighbouring normals. Chosen so that IoU changes by less than 0.002 against a fine mesh.
LINEAR_DEFLECTION = 5e-4
ANGULAR_DEFLECTION = 0.2

# Maximum difference between the mesh's volume and the solids', as a share of the solids' volume.
VOLUME_TOLERANCE = 2e-3

# Above this error the triangles are wrong, not just too coarse. Another mesh may then have the
# right volume and still be wrong, so it is checked at POINTS points. The points that are inside
# only one of mesh and solids may be at most POINT_TOLERANCE times those inside the solids.
FACETS_ERROR = 2e-2
POINTS = 600
POINT_TOLERANCE = 3e-2

# The volume's tolerance for columns. Their error includes the steps at the sides.
COLUMN_TOLERANCE = 1.5e-2

# A volume below this share of the diagonal's cube counts as zero.
NO_VOLUME = 1e-9

# A finer mesh has at most about FINE_TRIANGLES triangles and at least FINEST times the usual
# deflection.
FINE_TRIANGLES = 150_000
FINEST = 0.05

# Maximum number of columns along x and along y, and maximum number of lines times faces. One line
# and one face cost about 20 microseconds.
COLUMNS = 128
LINE_BUDGET = 120_000


@dataclass
class Mesh:
    """Triangles in flat arrays.

    `vertices` has x, y, z of each vertex, `triangles` three vertex indices of each triangle,
    counter-clockwise seen from outside, and `faces` the face index of each triangle.
    """

    vertices: array = field(default_factory=lambda: array("d"))
    triangles: array = field(default_factory=lambda: array("I"))
    faces: array = field(default_factory=lambda: array("I"))

    def volume(self, since: int, around: np.ndarray) -> float:
        """The volume that the triangles from flat index `since` on enclose.

        By the divergence theorem about the point `around`.
        """
        points = np.frombuffer(self.vertices).reshape(-1, 3) - around
        a, b, c = points[np.frombuffer(self.triangles, np.uint32)[since:].reshape(-1, 3).T]
        return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6.0


    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether each of `points` (n, 3) has a winding number of more than one half.

        Bools (n,), by equation 8 of van Oosterom and Strackee 1983.
        """
        corners = np.frombuffer(self.vertices).reshape(-1, 3)[np.frombuffer(self.triangles, np.uint32)].reshape(-1, 3, 3)
        inside = np.zeros(len(points), bool)
        for index, point in enumerate(points):
            a, b, c = (corners - point).transpose(1, 0, 2)
            la, lb, lc = (np.sqrt(np.einsum("ij,ij->i", side, side)) for side in (a, b, c))
            products = [np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a))]
            below = la * lb * lc + products[0] * lc + products[1] * la + products[2] * lb
            angle = np.arctan2(np.einsum("ij,ij->i", a, np.cross(b, c)), below).sum()
            inside[index] = angle > math.pi
        return inside


@dataclass
class Part:
    """A shape to be triangulated."""

    shape: Any
    solids: list[Any]
    # By the kernel, from the exact surfaces. Negative for a solid that is inside out.
    volumes: list[float]
    # Lowest corner of the bounding box, and length of its diagonal.
    low: np.ndarray
    size: float

    @classmethod
    def of(cls, shape: Any, solids: list[Any]) -> Part:
        box = shape.BoundingBox()
        volumes = [volume_properties(solid).Mass() for solid in solids]
        return cls(shape, solids, volumes, np.array((box.xmin, box.ymin, box.zmin)), box.DiagonalLength)

    def error(self, volumes: list[float]) -> float:
        """Error of other volumes of the solids, as a share of the whole volume.

        Sums absolute errors, so that no two of them cancel.
        """
        whole = max(sum(map(abs, self.volumes)), NO_VOLUME * self.size**3)
        if whole == 0.0:
            return 0.0
        error = sum(abs(volume - abs(expected)) for volume, expected in zip(volumes, self.volumes, strict=True)) / whole
        return error if math.isfinite(error) else math.inf


def volume_properties(shape: Any) -> GProp_GProps:
    properties = GProp_GProps()
    BRepGProp.VolumeProperties_s(shape.wrapped, properties)
    return properties


def tessellate(shape: Any, solids: list[Any], malformed: bool) -> tuple[Mesh, bool]:
    """A mesh, and whether its IoU is uncertain because it encloses another volume than the solids.

    If OCC calls the shape invalid, its volume may be meaningless. Its mesh is then returned without
    a check, even if it is empty.
    """
    part = Part.of(shape, solids)
    mesh, error = triangulated(part)
    if malformed or error <= VOLUME_TOLERANCE:
        return mesh, False
    # The error of facets is proportional to their deflection, that of wrong triangles is not.
    scale = max(0.8 * VOLUME_TOLERANCE / error, len(mesh.faces) / FINE_TRIANGLES, FINEST)
    scale = min(scale, 0.8)
    of_facets = error <= FACETS_ERROR
    for remedy, is_finer, tolerance in REMEDIES:
        other, other_error = attempt(remedy, part, scale if is_finer else 1.0)
        if other_error <= tolerance and ((of_facets and remedy is triangulated) or agrees(part, other)):
            return other, False
        if other_error < error:
            mesh, error = other, other_error
    return mesh, True


def attempt(remedy: Callable[[Part, float], tuple[Mesh, float]], part: Part, scale: float) -> tuple[Mesh, float]:
    try:
        return remedy(part, scale)
    except (MemoryError, Standard_OutOfMemory):
        raise
    except Exception:  # the kernel's
        return Mesh(), math.inf


def by_another_algorithm(part: Part, scale: float) -> tuple[Mesh, float]:
    return triangulated(part, scale, IMeshTools_MeshAlgoType.IMeshTools_MeshAlgoType_Delabella)


def divided(part: Part, scale: float) -> tuple[Mesh, float]:
    """Triangulates a copy whose faces are divided so that none turns by more than a right angle."""
    division = ShapeUpgrade_ShapeDivideAngle(math.pi / 2.0, BRepBuilderAPI_Copy(part.shape.wrapped).Shape())
    division.Perform()
    shape = cq.Shape.cast(division.Result())
    return triangulated(Part(shape, shape.Solids(), part.volumes, part.low, part.size), scale)


def agrees(part: Part, mesh: Mesh) -> bool:
    """Whether the kernel's classifier and the mesh's winding number find the same points inside."""
    box = part.shape.BoundingBox()
    lengths = np.array((box.xlen, box.ylen, box.zlen))
    points = part.low + lengths * np.random.default_rng(0).random((POINTS, 3))
    in_solids = np.zeros(POINTS, bool)
    for solid, volume in zip(part.solids, part.volumes, strict=True):
        classifier = BRepClass3d_SolidClassifier(solid.wrapped)
        for index, point in enumerate(points):
            classifier.Perform(gp_Pnt(*map(float, point)), 1e-7)
            in_solids[index] |= (classifier.State() == TopAbs_State.TopAbs_IN) != (volume < 0.0)
    inside = np.count_nonzero(in_solids)
    different = np.count_nonzero(in_solids != mesh.contains(points))
    return bool(inside > 0 and different <= POINT_TOLERANCE * inside)


def triangulated(
    part: Part, scale: float = 1.0, algorithm: Any = IMeshTools_MeshAlgoType.IMeshTools_MeshAlgoType_DEFAULT
) -> tuple[Mesh, float]:
    """A mesh of all solids, and its error. The mesh is empty if the kernel fails."""
    mesh, volumes, index = Mesh(), [], 0
    try:
        # Removes triangles that the program has made or attached.
        BRepTools.Clean_s(part.shape.wrapped)
        parameters = IMeshTools_Parameters()
        parameters.Deflection = max(LINEAR_DEFLECTION * scale * part.size, 1e-7)
        parameters.Angle = ANGULAR_DEFLECTION * math.sqrt(scale)
        parameters.InParallel = False
        parameters.InternalVerticesMode = True
        parameters.ControlSurfaceDeflection = True
        parameters.MeshAlgo = algorithm
        BRepMesh_IncrementalMesh(part.shape.wrapped, parameters)
    except (MemoryError, Standard_OutOfMemory):
        raise
    except Exception:  # too malformed to mesh: valid by the rule, but occupies nothing
        return mesh, math.inf
    around = part.low + part.size * np.array((0.31, 0.37, 0.43))  # in no plane of symmetry
    for solid, volume in zip(part.solids, part.volumes, strict=True):
        since = len(mesh.triangles)
        explorer = TopExp_Explorer(solid.wrapped, TopAbs_ShapeEnum.TopAbs_FACE)
        while explorer.More():
            index += append_face(TopoDS.Face_s(explorer.Current()), volume < 0.0, index, mesh)
            explorer.Next()
        volumes.append(mesh.volume(since, around))
    if not all(map(math.isfinite, mesh.vertices)):
        return Mesh(), math.inf
    return mesh, part.error(volumes)


def append_face(face: Any, inside_out: bool, index: int, mesh: Mesh) -> bool:
    """Adds the triangles of a face to `mesh`; false if it has none."""
    orientation = face.Orientation()
    if orientation not in (TopAbs_Orientation.TopAbs_FORWARD, TopAbs_Orientation.TopAbs_REVERSED):
        return False
    location = TopLoc_Location()
    triangulation = BRep_Tool.Triangulation_s(face, location)
    if triangulation is None:
        return False
    moved = not location.IsIdentity()
    motion = location.Transformation() if moved else None
    base = len(mesh.vertices) // 3 - 1  # OCC counts from 1
    for i in range(1, triangulation.NbNodes() + 1):
        point = triangulation.Node(i)
        if moved:
            point = point.Transformed(motion)
        mesh.vertices.extend((point.X(), point.Y(), point.Z()))
    turned = (orientation == TopAbs_Orientation.TopAbs_REVERSED) != inside_out
    if moved and motion.IsNegative():
        turned = not turned
    for i in range(1, triangulation.NbTriangles() + 1):
        a, b, c = triangulation.Triangle(i).Get()
        mesh.triangles.extend((base + a, base + c, base + b) if turned else (base + a, base + b, base + c))
    mesh.faces.extend([index] * triangulation.NbTriangles())
    return True


def sampled(part: Part, _scale: float) -> tuple[Mesh, float]:
    """A mesh of columns instead of a triangulated surface.

    The columns are boxes around lines along z, over the intervals in which the line is inside.
    Their error includes that of the steps at the sides, so that thin oblique walls are uncertain.
    """
    faces = max(1, sum(len(solid.Faces()) for solid in part.solids))
    n = max(1, min(COLUMNS, math.isqrt(LINE_BUDGET // faces)))
    box = part.shape.BoundingBox()
    width, depth = box.xlen / n, box.ylen / n
    mesh, volumes, steps = Mesh(), [], 0.0
    for index, solid in enumerate(part.solids):
        intersector = IntCurvesFace_ShapeIntersector()
        intersector.Load(solid.wrapped, 1e-7)
        classifier = BRepClass3d_SolidClassifier(solid.wrapped)
        # Row n and column n stay empty. They are the neighbours of the last ones and, by index -1,
        # of the first ones.
        columns: list[list[list[tuple[float, float]]]] = [[[] for _ in range(n + 1)] for _ in range(n + 1)]
        for i in range(n):
            for j in range(n):
                x, y = box.xmin + (i + 0.5) * width, box.ymin + (j + 0.5) * depth
                columns[i][j] = stretches(intersector, classifier, x, y, box.zmin - part.size, part.volumes[index] < 0.0)
                for low, high in columns[i][j]:
                    corner = (box.xmin + i * width, box.ymin + j * depth, low)
                    append_box(mesh, corner, (box.xmin + (i + 1) * width, box.ymin + (j + 1) * depth, high), index)
        volumes.append(width * depth * sum(high - low for row in columns for column in row for low, high in column))
        # If the true side is oblique, a step is off by a quarter of a cell on average.
        for i in range(-1, n):
            for j in range(-1, n):
                exposed = difference(columns[i][j], columns[i + 1][j]) + difference(columns[i][j], columns[i][j + 1])
                steps += exposed * width * depth / 4.0
    error = part.error(volumes)
    whole = sum(map(abs, part.volumes))
    return mesh, error + steps / whole if whole > 0.0 else error


def stretches(
    intersector: Any, classifier: Any, x: float, y: float, below: float, inside_out: bool
) -> list[tuple[float, float]]:
    """The intervals of z in which the line through (x, y) is inside the solid, ascending."""
    intersector.Perform(gp_Lin(gp_Pnt(x, y, below), gp_Dir(0.0, 0.0, 1.0)), 0.0, math.inf)
    intersector.SortResult()
    heights = [below + intersector.WParameter(i) for i in range(1, intersector.NbPnt() + 1)]
    enters, leaves = IntCurveSurface_TransitionOnCurve.IntCurveSurface_In, IntCurveSurface_TransitionOnCurve.IntCurveSurface_Out
    transitions = [intersector.Transition(i) for i in range(1, intersector.NbPnt() + 1)]
    expected = [leaves, enters] if inside_out else [enters, leaves]
    if len(heights) % 2 == 0 and transitions == expected * (len(heights) // 2):
        return list(zip(heights[::2], heights[1::2]))
    # The line touches the surface or passes through an edge: classify every interval by its middle.
    found = []
    for low, high in zip(heights, heights[1:]):
        classifier.Perform(gp_Pnt(x, y, 0.5 * (low + high)), 1e-7)
        if (classifier.State() == TopAbs_State.TopAbs_IN) != inside_out:
            found.append((low, high))
    return found


def difference(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """Total length that is in exactly one of two columns."""
    if a == b:
        return 0.0
    common = sum(max(0.0, min(p[1], q[1]) - max(p[0], q[0])) for p in a for q in b)
    return sum(high - low for low, high in a + b) - 2.0 * common


# Corner i of a box is at the high end of axis k if bit k of i is set.
BOX = (0, 2, 3, 0, 3, 1, 4, 5, 7, 4, 7, 6, 0, 1, 5, 0, 5, 4, 2, 6, 7, 2, 7, 3, 0, 4, 6, 0, 6, 2, 1, 3, 7, 1, 7, 5)


def append_box(mesh: Mesh, low: tuple[float, ...], high: tuple[float, ...], index: int) -> None:
    base = len(mesh.vertices) // 3
    for corner in range(8):
        mesh.vertices.extend((high if corner >> axis & 1 else low)[axis] for axis in range(3))
    mesh.triangles.extend(base + corner for corner in BOX)
    mesh.faces.extend([index] * 12)


# Remedies in the order in which they are tried: the function, whether its mesh is finer than usual,
# and its maximum error.
REMEDIES = (
    (triangulated, True, VOLUME_TOLERANCE),
    (by_another_algorithm, False, VOLUME_TOLERANCE),
    (by_another_algorithm, True, VOLUME_TOLERANCE),
    (divided, False, VOLUME_TOLERANCE),
    (divided, True, VOLUME_TOLERANCE),
    (sampled, True, COLUMN_TOLERANCE),
)
