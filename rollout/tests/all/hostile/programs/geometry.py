# Geometry that is not finite, not there, or too much.

#: a size that is no number = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(float("nan"), 1, 1)

#: an infinite size = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(float("inf"), 1, 1)

#: a place that is no number = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(1, 1, 1).translate((float("nan"), 0, 0))

#: an infinite place = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(1, 1, 1).translate((float("inf"), 0, 0))

#: a wire through a point that is no number = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().polyline([(0, 0), (1, 0), (float("nan"), 1)]).close().extrude(1)

#: a height that is no number = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().circle(1).extrude(float("nan"))

#: a radius that is no number = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().sphere(float("nan"))

#: a size of 1e300 = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(1e300, 1e300, 1e300)

#: a size of 1e-300 = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().rect(1e-300, 1e-300).extrude(1e-300)

#: half of space = exception|no_solid|empty|crash|timeout|solid|memory
from OCP.BRepPrimAPI import BRepPrimAPI_MakeHalfSpace
from OCP.gp import gp_Pnt
face = cq.Face.makePlane(1, 1)
solid = cq.Solid(BRepPrimAPI_MakeHalfSpace(face.wrapped, gp_Pnt(0, 0, 1)).Solid())

#: a solid of an infinite plane = exception|no_solid|empty|crash|timeout|solid|memory
from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeFace
from OCP.BRepPrimAPI import BRepPrimAPI_MakePrism
from OCP.gp import gp_Pln, gp_Vec
face = BRepBuilderAPI_MakeFace(gp_Pln()).Face()
solid = cq.Solid(BRepPrimAPI_MakePrism(face, gp_Vec(0, 0, 1)).Shape())

#: a matrix without an inverse = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane(cq.Workplane().box(1, 1, 1).val().transformGeometry(cq.Matrix([[0, 0, 0, 0]] * 3)))

#: a matrix of huge numbers = exception|no_solid|empty|crash|timeout|solid
solid = cq.Workplane().box(1, 1, 1).val().transformGeometry(cq.Matrix([[1e200, 0, 0, 1e200], [0, 1, 0, 0], [0, 0, 1, 0]]))

#: a solid without faces = exception|no_solid|empty|crash|solid
from OCP.BRep import BRep_Builder
from OCP.TopoDS import TopoDS_Solid
shape = TopoDS_Solid()
BRep_Builder().MakeSolid(shape)
solid = cq.Solid(shape)

#: a face without a surface = exception|no_solid|empty|crash|solid|timeout
from OCP.BRep import BRep_Builder
from OCP.TopoDS import TopoDS_Face, TopoDS_Shell, TopoDS_Solid
b, face, shell, shape = BRep_Builder(), TopoDS_Face(), TopoDS_Shell(), TopoDS_Solid()
b.MakeFace(face)
b.MakeShell(shell)
b.Add(shell, face)
b.MakeSolid(shape)
b.Add(shape, shell)
solid = cq.Solid(shape)

#: compounds thirty thousand deep = cube|solid|exception|no_solid|empty|crash|timeout|memory
c = cq.Workplane().box(1, 1, 1).val().wrapped
from OCP.BRep import BRep_Builder
from OCP.TopoDS import TopoDS_Compound
b = BRep_Builder()
for i in range(30000):
    outer = TopoDS_Compound()
    b.MakeCompound(outer)
    b.Add(outer, c)
    c = outer
solid = cq.Compound(c)

#: a compound that holds itself = exception|no_solid|empty|crash|timeout|memory|solid
from OCP.BRep import BRep_Builder
from OCP.TopoDS import TopoDS_Compound
b, c = BRep_Builder(), TopoDS_Compound()
b.MakeCompound(c)
b.Add(c, cq.Workplane().box(1, 1, 1).val().wrapped)
b.Add(c, c)
solid = cq.Compound(c)

#: a circle of circles of radius zero = exception|no_solid|empty|crash|timeout|solid
w = cq.Workplane()
w.moveTo(0, 0).circle(0)
w.moveTo(0, 0).circle(1)
solid = w.extrude(1)

#: a hundred thousand edges = solid|exception|crash|timeout|memory
n = 100000
solid = cq.Workplane().polyline([(np.cos(6.28 * i / n), np.sin(6.28 * i / n)) for i in range(n)]).close().extrude(1)

#: a million edges = solid|exception|crash|timeout|memory
n = 1000000
solid = cq.Workplane().polyline([(float(i % 1000), float(i // 1000)) for i in range(n)]).close().extrude(1)

#: a curve through twenty thousand points = solid|exception|crash|timeout|memory
n = 20000
points = [(np.cos(6.28 * i / n), np.sin(6.28 * i / n)) for i in range(n)]
solid = cq.Workplane().spline(points, periodic=True).close().extrude(1)

#: a surface of a hundred thousand poles = solid|exception|crash|timeout|memory|no_solid
grid = [[cq.Vector(x, y, float(np.sin(x * y))) for y in range(300)] for x in range(300)]
solid = cq.Face.makeSplineApprox(grid).thicken(1)

#: triangles of dust = solid|exception|crash|timeout|memory
solid = cq.Workplane().rarray(0.001, 0.001, 200, 200).rect(0.0001, 0.0001).extrude(1)

#: a helix of ten thousand turns = solid|exception|crash|timeout|memory|no_solid
path = cq.Wire.makeHelix(0.1, 1000, 1)
solid = cq.Workplane(cq.Plane((1, 0, 0), (0, 0, 1), (0, 1, 0))).circle(0.04).sweep(cq.Workplane(path), isFrenet=True)

#: a round of the last edge = solid|exception|crash|timeout|memory
solid = cq.Workplane().box(1, 1, 1).edges().fillet(0.5)

#: a shell as thick as the body = solid|exception|crash|timeout|memory|empty|no_solid
solid = cq.Workplane().box(1, 1, 1).shell(-0.5)

#: a difference with itself = empty|no_solid|exception|solid
a = cq.Workplane().box(1, 1, 1)
solid = a.cut(a)
