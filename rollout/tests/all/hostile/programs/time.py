# Programs that do not end, or not soon. Without the deadline they end after some 20 seconds.

#: a loop = timeout
import time
end = time.time() + 20
while time.time() < end:
    pass

#: a loop of the kind that shares a process = timeout
for i in range(10**9):
    x = i

#: a loop inside of the interpreter = timeout
import itertools
sum(itertools.repeat(1, 2 * 10**9))

#: a regular expression that tries everything = timeout
import re
re.match("(a+)+$", "a" * 30 + "b")

#: a power of the kind that shares a process = timeout|memory
x = 3 ** 10 ** 8

#: a boolean of thousands of parts = timeout
plate = cq.Workplane().box(100, 100, 1)
solid = plate.cut(cq.Workplane().rarray(1, 1, 90, 90).circle(0.55).extrude(2))

#: booleans without end = timeout
import time
end = time.time() + 20
w = cq.Workplane().box(1, 1, 1)
while time.time() < end:
    w = w.union(cq.Workplane().sphere(0.6).translate((0.1, 0.2, 0.3)))

#: a mesh as fine as dust = timeout|memory|crash
from OCP.BRepMesh import BRepMesh_IncrementalMesh
solid = cq.Workplane().sphere(1)
BRepMesh_IncrementalMesh(solid.val().wrapped, 1e-6, False, 1e-5, False)

#: a lock that is held already = timeout
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire(timeout=20)

#: a wait for a signal that does not come = timeout|exception
import signal
signal.sigtimedwait([signal.SIGUSR1], 20)

#: signals without effect = timeout|exception
import signal, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
time.sleep(20)

#: exceptions without effect = timeout
import time
end = time.time() + 20
while time.time() < end:
    try:
        time.sleep(1)
    except BaseException:
        pass

#: a val that does not return = timeout
import time
class Slow(cq.Workplane):
    def val(self):
        time.sleep(20)
        return super().val()
solid = Slow().box(1, 1, 1)

#: a message that takes its time = timeout|exception
import time
class Slow(Exception):
    def __str__(self):
        time.sleep(20)
        return ""
raise Slow

#: a garbage collector that does not return = cube|timeout|crash
import time
class Slow:
    def __del__(self):
        time.sleep(20)
slow = Slow()
solid = cq.Workplane().box(1, 1, 1)

#: an exit handler that does not return = cube|timeout|crash
import atexit, time
atexit.register(time.sleep, 20)
solid = cq.Workplane().box(1, 1, 1)

#: a compound that doubles thirty times = timeout|memory|crash|exception
c = cq.Workplane().box(1, 1, 1).val()
for i in range(30):
    c = cq.Compound.makeCompound([c, c.moved(cq.Location(cq.Vector(2.0 ** i, 0, 0)))])
solid = c

#: a compound of ten thousand spheres = timeout|memory|crash|exception
sphere = cq.Workplane().sphere(1).val()
solid = cq.Compound.makeCompound([sphere.moved(cq.Location(cq.Vector(3 * i, 0, 0))) for i in range(10000)])

#: a pipe that nobody writes to = timeout|exception
import os
os.mkfifo("pipe")
open("pipe")
