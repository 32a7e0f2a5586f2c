# Programs that try to change the outcomes of the programs after them. Any outcome of their own will
# do.

#: the methods of a sketch in place = any
t = cq.Sketch.segment
t |= {k: lambda self, *a, **kw: self for k in t.keys()}

#: the methods of a sketch through an object = any
t = cq.Sketch().arc
t |= {}

#: the methods of a sketch through a list = any
for t in [cq.Sketch.segment, cq.Sketch.arc]:
    t.clear()

#: the methods of a sketch by an update = any
cq.Sketch.segment.update({k: None for k in cq.Sketch.segment})

#: a function that keeps a list = any
def f(n, kept=[]):
    kept.append(n)
    return kept
solid = cq.Workplane().box(len(f(1) + f(2)), 1, 1)

#: a method of a class = any
cq.Workplane.box = lambda self, *a, **k: self
cq.Workplane.extrude = None

#: the table of a class = any
for name, value in list(cq.Workplane.__dict__.items()):
    if callable(value):
        setattr(cq.Workplane, name, lambda self, *a, **k: self)

#: the defaults of a method = any
cq.Workplane.extrude.__defaults__ = (False, False, None, 20.0)
cq.Workplane.box.__defaults__ = ((False, False, False), True, False)

#: the code of a method = any
cq.Workplane.rect.__code__ = cq.Workplane.circle.__code__

#: names of a module = any
import math
math.pi = 3.0
math.sin = math.cos
np.pi = 3.0
cq.Workplane = cq.Sketch

#: names of all modules = any
import sys
for module in list(sys.modules.values()):
    for name in ("is_tame", "perform", "perform_tame", "build", "pick", "tessellate"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)

#: the builtins = any
import builtins
builtins.len = lambda x: 3
builtins.float = int
builtins.isinstance = lambda *a: True

#: an attribute of an inner object = any
w = cq.Workplane().box(1, 1, 1)
w.ctx.tags["all"] = w
w.plane.zDir = cq.Vector(1, 0, 0)
cq.occ_impl.geom.Plane.named = lambda *a, **k: cq.Plane((5, 5, 5))

#: the errors of NumPy = any
np.seterr(all="raise")

#: the random numbers = any
import random
np.random.seed(0)
random.seed(0)

#: how numbers are printed = any
np.set_printoptions(precision=1)
import locale
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass

#: warnings as errors = any
import warnings
warnings.simplefilter("error")

#: the depth of recursion = any
import sys
sys.setrecursionlimit(60)

#: a trace of every call = any
import sys, threading
def trace(*_):
    raise RuntimeError("traced")
threading.settrace(trace)
sys.setprofile(trace)

#: an alarm for later = any
import signal
signal.setitimer(signal.ITIMER_REAL, 0.7)
solid = cq.Workplane().box(1, 1, 1)

#: a thread for later = any
import threading, time
def spoil():
    time.sleep(0.2)
    cq.Workplane.extrude = None
    cq.Sketch.segment.clear()
threading.Thread(target=spoil).start()
solid = cq.Workplane().box(1, 1, 1)

#: the directory and the umask = any
import os
os.umask(0o777)
os.chdir("/")
os.environ.clear()

#: no collector = any
import gc
gc.disable()
gc.freeze()

#: the precision of OCC = any
from OCP.BRepBuilderAPI import BRepBuilderAPI
from OCP.BRepLib import BRepLib
BRepBuilderAPI.Precision_s(0.5)
BRepLib.Precision_s(0.5)

#: the unit of OCC = any
from OCP.Interface import Interface_Static
Interface_Static.SetCVal_s("xstep.cascade.unit", "INCH")
Interface_Static.SetCVal_s("write.step.unit", "INCH")
Interface_Static.SetIVal_s("write.precision.mode", 2)

#: the threads of OCC = any
from OCP.OSD import OSD_ThreadPool
OSD_ThreadPool.DefaultPool_s().Init(0)

#: booleans in parallel = any
from OCP.BOPAlgo import BOPAlgo_Options
BOPAlgo_Options.SetParallelMode_s(True)

#: the mesher of OCC = any
from OCP.BRepMesh import BRepMesh_DiscretFactory
try:
    BRepMesh_DiscretFactory.Get_s().SetFunctionName(None)
    BRepMesh_DiscretFactory.Get_s().SetDefaultName("nothing")
except Exception:
    pass

#: memory that is full = any
x = [0]
for i in range(28):
    x += x

#: memory that is half full = any
x = [[] for _ in range(3000000)]
solid = cq.Workplane().box(1, 1, 1)

#: recursion without end = any
def f(n):
    return f(n + 1)
solid = f(1)

#: descriptors that are closed = any
import os
os.closerange(0, 256)

#: death = any
import os
os._exit(1)
