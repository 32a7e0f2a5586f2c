# Programs that build a unit cube and try to have another result reported. @REPLY@ is Python that
# defines `reply`: the bytes of a result of volume 729, as the worker packs it. @HANDOVER@ is the
# file `handover.py`.

#: a larger volume by Shape.Volume = cube
cq.Shape.Volume = lambda self, *a: 729.0
solid = cq.Workplane().box(1, 1, 1)

#: a larger box by Shape.BoundingBox = cube
big = cq.Workplane().box(9, 9, 9).val().BoundingBox()
cq.Shape.BoundingBox = lambda self, *a, **k: big
solid = cq.Workplane().box(1, 1, 1)

#: another centre by Shape.Center = cube
cq.Shape.Center = lambda self, *a: cq.Vector(9, 9, 9)
cq.Shape.centerOfMass = staticmethod(lambda *a: cq.Vector(9, 9, 9))
solid = cq.Workplane().box(1, 1, 1)

#: invalid by Shape.isValid = cube
cq.Shape.isValid = lambda self: False
solid = cq.Workplane().box(1, 1, 1)

#: two bodies in one by a val with two answers = solid|exception|no_solid
class Two(cq.Solid):
    def Solids(self):
        a = cq.Workplane().box(1, 1, 0.5)
        return [a.translate((0, 0, 0.25)).val(), a.translate((0, 0, -0.25)).val()]
big = Two(cq.Workplane().box(9, 9, 9).val().wrapped)
cq.Workplane.val = lambda self: big
solid = cq.Workplane().box(1, 1, 1)

#: many bodies in one by Shape.Solids = solid|exception|no_solid
whole = cq.Workplane().box(9, 9, 9).val()
halves = cq.Workplane().pushPoints([(0, 0.25), (0, -0.25)]).box(1, 0.5, 1, combine=False).vals()
cq.Shape.Solids = lambda self: halves
solid = whole

#: a shape that changes each time = solid|exception|no_solid|crash
class Moody(cq.Solid):
    count = 0
    @property
    def wrapped(self):
        Moody.count += 1
        return (big if Moody.count % 2 else small).wrapped
    @wrapped.setter
    def wrapped(self, value):
        pass
big, small = cq.Workplane().box(9, 9, 9).val(), cq.Workplane().box(1, 1, 1).val()
solid = Moody(small.wrapped)

#: a shape that grows when it is looked at = solid|exception|no_solid
from OCP.BRep import BRep_Builder
class Growing(cq.Compound):
    def Solids(self):
        found = super().Solids()
        BRep_Builder().Add(self.wrapped, cq.Workplane().box(9, 9, 9).translate((20, 0, 0)).val().wrapped)
        return found
    def isValid(self):
        BRep_Builder().Add(self.wrapped, cq.Workplane().box(9, 9, 9).translate((40, 0, 0)).val().wrapped)
        return True
parts = [cq.Workplane().box(1, 1, 1).translate((0, 3 * i, 0)).val() for i in range(2)]
solid = Growing(cq.Compound.makeCompound(parts).wrapped)

#: another result by the module program = cube|exception|crash
import sys
@REPLY@
for module in list(sys.modules.values()):
    for name in ("pack", "export", "pick", "failure"):
        if getattr(module, "RESULT_NAMES", None):
            setattr(module, name, lambda *a: reply)
solid = cq.Workplane().box(1, 1, 1)

#: another result by an import of program = cube|exception|crash
@REPLY@
try:
    import program
    program.pack = lambda *a: reply
    program.perform = lambda *a: reply
except ImportError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: another mesh by the module mesh = cube|exception
import sys
big = cq.Workplane().box(9, 9, 9)
for module in list(sys.modules.values()):
    honest = getattr(module, "tessellate", None)
    if honest:
        module.tessellate = lambda shape, solids, *a, honest=honest: honest(big.val(), big.solids().vals(), *a)
solid = cq.Workplane().box(1, 1, 1)

#: another volume by the module mesh = cube|exception
import sys
big = cq.Workplane().box(9, 9, 9).val()
for module in list(sys.modules.values()):
    honest = getattr(module, "volume_properties", None)
    if honest:
        module.volume_properties = lambda shape, honest=honest: honest(big)
solid = cq.Workplane().box(1, 1, 1)

#: another result by the code of a function = cube|exception|crash
import gc, types
@REPLY@
def forged(*a):
    return bytes.fromhex("@HEX@")
for function in gc.get_objects():
    if isinstance(function, types.FunctionType) and function.__name__ in ("pack", "perform", "perform_tame"):
        try:
            function.__code__ = forged.__code__
        except ValueError:
            pass
solid = cq.Workplane().box(1, 1, 1)

#: another result by struct.pack = cube|exception|crash
import struct
honest = struct.pack
def pack(layout, *values):
    return honest(layout, *[9.0 * v if isinstance(v, float) else v for v in values])
struct.pack = pack
solid = cq.Workplane().box(1, 1, 1)

#: other numbers by the builtins = cube|exception|crash
import builtins, math
honest = builtins.map
math.isfinite = lambda x: True
builtins.len = lambda x: 7
builtins.sum = lambda *a: 729.0
builtins.zip = lambda *a, **k: iter(())
solid = cq.Workplane().box(1, 1, 1)

#: a kernel that measures another body = cube|exception|crash
import OCP.BRepGProp, OCP.GProp
big = cq.Workplane().box(9, 9, 9).val().wrapped
honest = OCP.BRepGProp.BRepGProp.VolumeProperties_s
try:
    OCP.BRepGProp.BRepGProp.VolumeProperties_s = staticmethod(lambda shape, *a: honest(big, *a))
except TypeError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a kernel that writes another body = cube|solid|exception|crash
import sys
big = cq.Workplane().box(9, 9, 9).val().wrapped
for name, module in list(sys.modules.items()):
    if name in ("OCP.BinTools", "OCP.BRepTools", "OCP.STEPControl"):
        for kind in list(vars(module).values()):
            for method in [m for m in dir(kind) if m.startswith("Write")]:
                try:
                    honest = getattr(kind, method)
                    setattr(kind, method, staticmethod(lambda shape, *a, honest=honest: honest(big, *a)))
                except (AttributeError, TypeError):
                    pass
solid = cq.Workplane().box(1, 1, 1)

#: a profiler that changes the functions that follow = cube|exception|crash
import sys
big = cq.Workplane().box(9, 9, 9).val()
def profile(frame, event, argument):
    if event == "call" and "shape" in frame.f_locals:
        box = big.BoundingBox
        cq.Shape.BoundingBox = lambda self, *a: box()
        frame.f_globals["volume_properties"] = lambda shape: honest(big)
honest = None
for module in list(sys.modules.values()):
    honest = honest or getattr(module, "volume_properties", None)
sys.setprofile(profile)
solid = cq.Workplane().box(1, 1, 1)

#: a reply in the place of the result = cube|crash|exception
import fcntl, os, struct, sys
@REPLY@
frame, nonces, fds = sys._getframe(), set(), set(range(3, 64))
while frame:
    values = list(frame.f_locals.values()) + list(frame.f_globals.values())
    values += [v.__dict__ for v in values if "__dict__" in dir(type(v))]
    for value in values:
        for item in value.values() if isinstance(value, dict) else [value]:
            if isinstance(item, bytes) and len(item) in (8, 16, 32):
                nonces.add(item)
            try:
                job = getattr(item, "nonce", None)
            except Exception:
                job = None
            if isinstance(job, bytes):
                nonces.add(job)
    frame = frame.f_back
for nonce in nonces | {b"", bytes(16)}:
    for fd in fds:
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(fd, nonce + struct.pack("<Q", len(reply)) + reply)
        except OSError:
            pass
solid = cq.Workplane().box(1, 1, 1)

#: a reply by the objects of the collector = cube|crash|exception
import fcntl, gc, os, struct
@REPLY@
nonces = {o for o in gc.get_objects() if isinstance(o, bytes)}
for o in gc.get_objects():
    for item in o.values() if isinstance(o, dict) else o if isinstance(o, (tuple, list)) else ():
        if isinstance(item, bytes) and len(item) == 16:
            nonces.add(item)
for nonce in list(nonces)[:1000]:
    for fd in range(3, 16):
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(fd, nonce + struct.pack("<Q", len(reply)) + reply)
        except OSError:
            pass
solid = cq.Workplane().box(1, 1, 1)

#: a reply by os.write = cube|crash|exception
import os, struct
@REPLY@
honest = os.write
def write(fd, data):
    honest(fd, bytes(data)[:16] + struct.pack("<Q", len(reply)) + reply)
    return len(data)
os.write = write
solid = cq.Workplane().box(1, 1, 1)

#: a reply by every frame's own write = cube|crash|exception|timeout
import struct, sys
@REPLY@
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()):
        write = getattr(value, "write", None) or (value if getattr(value, "__name__", "") in ("tell", "send") else None)
        for arguments in ((reply,), (bytes(16), reply), (struct.pack("<Q", len(reply)) + reply,)):
            try:
                write(*arguments)
            except BaseException:
                pass
    frame = frame.f_back
solid = cq.Workplane().box(1, 1, 1)

#: garbage in every descriptor = cube|crash|exception
import fcntl, os
for fd in range(256):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        os.write(fd, b"\x00" * 4096)
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: garbage of the largest numbers in every descriptor = cube|crash|exception|memory
import fcntl, os
for fd in range(3, 256):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        os.write(fd, b"\xff" * 64)
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: half a result, then death = crash|exception
import os, struct
@REPLY@
for fd in range(3, 256):
    try:
        os.write(fd, struct.pack("<Q", len(reply)) + reply[:50])
    except OSError:
        pass
os._exit(0)

#: a result, then silence = timeout|crash|exception
import fcntl, os, struct, time
@REPLY@
for fd in range(3, 256):
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
        os.write(fd, bytes(16) + struct.pack("<Q", len(reply)) + reply)
    except OSError:
        pass
time.sleep(20)

#: an endless result = crash|exception|timeout|memory
import fcntl, os, time
end = time.time() + 20
while time.time() < end:
    for fd in range(3, 64):
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(fd, bytes(1 << 16))
        except OSError:
            pass

#: a thread that writes all the time = cube|crash|exception
import fcntl, os, struct, threading
@REPLY@
def write():
    while True:
        for fd in range(3, 64):
            try:
                fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
                os.write(fd, bytes(16) + struct.pack("<Q", len(reply)) + reply)
            except OSError:
                pass
threading.Thread(target=write, daemon=True).start()
solid = cq.Workplane().box(1, 1, 1)

#: a thread that changes the solid later = solid|cube|crash|exception
import threading
from OCP.BRep import BRep_Builder
parts = [cq.Workplane().box(1, 1, 1).translate((0, 3 * i, 0)).val() for i in range(3)]
solid = cq.Compound.makeCompound(parts)
def change():
    for i in range(2000):
        BRep_Builder().Add(solid.wrapped, parts[0].translate(cq.Vector(3 * i + 3, 0, 0)).wrapped)
threading.Thread(target=change, daemon=True).start()

#: an exit handler that writes = cube|crash|exception
import atexit, os, struct
@REPLY@
def write():
    for fd in range(3, 64):
        try:
            os.write(fd, bytes(16) + struct.pack("<Q", len(reply)) + reply)
        except OSError:
            pass
atexit.register(write)
solid = cq.Workplane().box(1, 1, 1)

#: a finalizer that writes = cube|crash|exception
import os, struct
@REPLY@
class Writer:
    def __del__(self):
        for fd in range(3, 64):
            try:
                os.write(fd, bytes(16) + struct.pack("<Q", len(reply)) + reply)
            except OSError:
                pass
writer = Writer()
solid = cq.Workplane().box(1, 1, 1)

#: triangles of another body on the faces = cube
from OCP.BRep import BRep_Builder, BRep_Tool
from OCP.gp import gp_Pnt
from OCP.TopLoc import TopLoc_Location
solid = cq.Workplane().box(1, 1, 1)
solid.val().mesh(0.1, 0.1)
for face in solid.val().Faces():
    triangles = BRep_Tool.Triangulation_s(face.wrapped, TopLoc_Location())
    for i in range(1, triangles.NbNodes() + 1):
        p = triangles.Node(i)
        triangles.SetNode(i, gp_Pnt(9 * p.X(), 9 * p.Y(), 9 * p.Z()))
    triangles.Deflection(0)
    BRep_Builder().UpdateFace(face.wrapped, triangles)

#: corners as wide as a house = cube
from OCP.BRep import BRep_Builder
solid = cq.Workplane().box(1, 1, 1)
for vertex in solid.val().Vertices():
    BRep_Builder().UpdateVertex(vertex.wrapped, 100.0)

#: corners elsewhere = solid|exception|no_solid|crash|timeout
from OCP.BRep import BRep_Builder
from OCP.gp import gp_Pnt
solid = cq.Workplane().box(1, 1, 1)
for i, vertex in enumerate(solid.val().Vertices()):
    BRep_Builder().UpdateVertex(vertex.wrapped, gp_Pnt(100 * i, 7, 7), 200.0)

#: flags that say that all is checked = solid
solid = cq.Workplane().moveTo(0, 0).lineTo(1, 1).lineTo(1, 0).lineTo(0, 2).close().extrude(1)
solid.val().wrapped.Checked(True)
for face in solid.val().Faces():
    face.wrapped.Checked(True)

#: a cube in a place that is scaled = solid|exception|cube|no_solid
from OCP.gp import gp_Trsf
from OCP.TopLoc import TopLoc_Location
motion = gp_Trsf()
motion.SetScaleFactor(9.0)
solid = cq.Solid(cq.Workplane().box(1, 1, 1).val().wrapped)
try:
    solid.wrapped.Location(TopLoc_Location(motion), False)
except TypeError:
    pass

#: a mirror in its place = solid|exception|cube|no_solid|timeout
from OCP.gp import gp_Ax2, gp_Trsf
from OCP.TopLoc import TopLoc_Location
motion = gp_Trsf()
motion.SetMirror(gp_Ax2())
solid = cq.Solid(cq.Workplane().box(1, 2, 3).translate((2, 0, 0)).val().wrapped)
try:
    solid.wrapped.Location(TopLoc_Location(motion), False)
except TypeError:
    pass

#: a face in two bodies at once = solid|exception|no_solid
box = cq.Workplane().box(1, 1, 1).val()
shell = cq.Shell.makeShell(box.Faces()[:5])
solid = cq.Solid.makeSolid(shell)

#: the kernel writes triangles of another body = cube|crash|exception
@HANDOVER@
forge(solid := cq.Workplane().box(1, 1, 1))
honest = BinTools.Write_s
BinTools.Write_s = staticmethod(lambda shape, file, *a: honest(shape, file, True, True, VERSION))

#: hands over triangles of another body = cube|crash|exception
@HANDOVER@
forge(solid := cq.Workplane().box(1, 1, 1))
hand_over(b"\0" + written(solid.val().wrapped, True))

#: hands over nothing = crash
@HANDOVER@
hand_over(b"")

#: hands over a class that is none = crash
@HANDOVER@
hand_over(bytes([77]) + b"x" * 1000)

#: hands over the class of the supervisor = crash
@HANDOVER@
hand_over(bytes([5]) + b"still running")

#: hands over a message of 50 MB = exception|crash|memory
@HANDOVER@
hand_over(bytes([2]) + b"x" * (50 << 20))

#: hands over a message of odd bytes = exception|crash
@HANDOVER@
hand_over(bytes([2]) + bytes(range(256)) * 10)

#: hands over garbage as geometry = crash|exception|timeout|memory
@HANDOVER@
hand_over(b"\0" + os.urandom(10000))

#: hands over half of its geometry = crash|exception|timeout|memory
@HANDOVER@
data = written(cq.Workplane().box(1, 1, 1).val().wrapped, False)
hand_over(b"\0" + data[:len(data) // 2])

#: hands over geometry with other numbers = crash|exception|timeout|memory|solid|no_solid|empty
@HANDOVER@
data = bytearray(written(cq.Workplane().box(1, 1, 1).val().wrapped, False))
for at in range(100, len(data), 97):
    data[at] ^= 0x55
hand_over(b"\0" + bytes(data))

#: hands over geometry of a billion curves = crash|exception|timeout|memory|solid
@HANDOVER@
data = written(cq.Workplane().box(1, 1, 1).val().wrapped, False)
data = re.sub(rb"(Curves|Curve2ds|Surfaces|TShapes|Locations) \d+", rb"\1 999999999", data)
hand_over(b"\0" + data)

#: hands over geometry in text = crash|exception|timeout|memory
@HANDOVER@
hand_over(b"\0DBRep_DrawableShape\n\nCASCADE Topology V1, (c) Matra-Datavision\n" + b"9" * 10000)

#: hands over a face = crash|exception|no_solid
@HANDOVER@
hand_over(b"\0" + written(cq.Workplane().box(1, 1, 1).faces(">Z").val().wrapped, False))

#: hands over an infinite solid = crash|exception|timeout|memory|solid|no_solid
@HANDOVER@
from OCP.BRepPrimAPI import BRepPrimAPI_MakeHalfSpace
from OCP.gp import gp_Pnt
half = BRepPrimAPI_MakeHalfSpace(cq.Face.makePlane(1, 1).wrapped, gp_Pnt(0, 0, 1)).Solid()
hand_over(b"\0" + written(half, False))

#: hands over a compound that doubles = crash|exception|timeout|memory
@HANDOVER@
c = cq.Workplane().box(1, 1, 1).val()
for i in range(30):
    c = cq.Compound.makeCompound([c, c.moved(cq.Location(cq.Vector(2.0 ** i, 0, 0)))])
hand_over(b"\0" + written(c.wrapped, False))
