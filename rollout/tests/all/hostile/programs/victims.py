# Ordinary programs, one for each part of the library that a program before may have spoiled.

#: a box = cube
solid = cq.Workplane().box(1, 1, 1)

#: a sketch of segments = solid
s = cq.Workplane().sketch().segment((0, 0), (1, 0)).segment((1, 1)).segment((0, 1)).close().assemble()
result = s.finalize().extrude(1)

#: a sketch of an arc = solid
s = cq.Sketch().segment((0, 0), (2, 0)).arc((1, 1), (0, 0)).assemble()
solid = cq.Workplane().placeSketch(s).extrude(2)

#: a profile with an arc = solid
solid = cq.Workplane("XZ").moveTo(0, 0).lineTo(2, 0).threePointArc((2.5, 0.5), (2, 1)).lineTo(0, 1).close().extrude(0.7)

#: holes and rounds = solid
solid = cq.Workplane().rect(4, 3).extrude(1).faces(">Z").workplane().rarray(1.5, 1, 2, 2).hole(0.4).edges("|Z").fillet(0.3)

#: numbers = solid
import math
import numpy as np
points = [(math.cos(a) * 2, math.sin(a)) for a in np.linspace(0, 2 * math.pi, 13)[:-1]]
solid = cq.Workplane().polyline(points).close().extrude(len(points) * float("0.125"))

#: numbers that overflow = solid
import numpy as np
x = np.float64(1e300) * 1e300
solid = cq.Workplane().box(1, 1, 2 if x > 1 else 3)

#: a boolean = solid
solid = cq.Workplane().box(2, 2, 2).cut(cq.Workplane().box(1, 1, 3)).union(cq.Workplane().box(4, 0.5, 0.5))

#: a recursion of some depth = solid
def depth(n):
    return 0 if n == 0 else 1 + depth(n - 1)
solid = cq.Workplane().box(depth(200), 1, 1)

#: an error = exception
solid = cq.Workplane().extrude(1)

#: an error of a name = exception
solid = undefined.box(1, 1, 1)

#: a file = solid
import os
open("file", "w").write("12")
solid = cq.Workplane().box(1, 1, float(open("file").read()) + len(os.listdir()))

#: nothing = no_solid
x = 1

#: an error of syntax = syntax
solid = = 1

#: a surface of revolution = solid
solid = cq.Workplane("XZ").moveTo(1, 0).lineTo(2, 0).lineTo(2, 1).lineTo(1, 2).close().revolve(270, (0, 0), (0, 1))

#: another plane = solid
solid = cq.Workplane(cq.Plane((1, 2, 3), (0, 1, 0), (1, 0, 0))).circle(1).circle(0.5).extrude(-2)
