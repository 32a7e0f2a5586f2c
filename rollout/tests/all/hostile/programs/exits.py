# Programs that end, or end others, in all ways. Each is harmless to anyone but itself.

#: an exit without a result = crash
import os
os._exit(3)

#: an exit with a cube = crash
import os
solid = cq.Workplane().box(1, 1, 1)
os._exit(0)

#: an abort = crash
import os
os.abort()

#: an exit that a finally replaces = exception
try:
    exit()
finally:
    1 / 0

#: an exit in a thread = cube
import threading
thread = threading.Thread(target=exit)
thread.start()
thread.join()
solid = cq.Workplane().box(1, 1, 1)

#: an exit in a finalizer = cube
import sys
class Leaver:
    def __del__(self):
        sys.exit(1)
Leaver()
solid = cq.Workplane().box(1, 1, 1)

#: an exit in a val = exception
import sys
class Leaver(cq.Workplane):
    def val(self):
        sys.exit(1)
solid = Leaver().box(1, 1, 1)

#: death in a val = crash
import os
class Leaver(cq.Workplane):
    def val(self):
        os._exit(0)
solid = Leaver().box(1, 1, 1)

#: death in a message = crash|exception
import os
class Leaver(Exception):
    def __str__(self):
        os._exit(0)
raise Leaver

#: an exit handler that exits = cube|crash
import atexit, os
atexit.register(os._exit, 1)
solid = cq.Workplane().box(1, 1, 1)

#: a trace function that raises = exception|crash
import sys
def trace(*_):
    raise SystemExit
sys.settrace(trace)
solid = cq.Workplane().box(1, 1, 1)

#: an interrupt of the main thread = cube|exception
import _thread
_thread.interrupt_main()
solid = cq.Workplane().box(1, 1, 1)

#: a quit signal = crash
import signal
signal.raise_signal(signal.SIGQUIT)

#: a termination signal = crash
import signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.raise_signal(signal.SIGTERM)

#: a kill signal = crash
import signal
signal.raise_signal(signal.SIGKILL)

#: the signal of the processor's limit = crash|timeout
import signal
signal.raise_signal(signal.SIGXCPU)

#: the signal of a forbidden call = crash
import signal
signal.raise_signal(signal.SIGSYS)

#: a real-time signal = crash
import signal
signal.raise_signal(40)

#: an alarm = crash|cube
import signal, time
signal.alarm(1)
time.sleep(1.5)
solid = cq.Workplane().box(1, 1, 1)

#: its own group killed = crash|exception
import os
os.killpg(0, 9)

#: a segmentation fault = crash
import ctypes
ctypes.string_at(0)

#: a segmentation fault that is handled by looping = crash|timeout
import ctypes, signal
signal.signal(signal.SIGSEGV, signal.SIG_IGN)
ctypes.string_at(0)

#: an illegal instruction = crash|exception
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b"\x0f\x0b")
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

#: a heap that was written over = cube|crash|exception|timeout
import ctypes
x = bytearray(100)
ctypes.memset(id(x), 255, 100000)
solid = cq.Workplane().box(1, 1, 1)

#: a class that was written over = crash|exception|timeout|memory
import ctypes
ctypes.memset(id(cq.Workplane) + 16, 255, 400)
solid = cq.Workplane().box(1, 1, 1)

#: a double free = crash
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
p = libc.malloc(100)
libc.free(p)
libc.free(p)
libc.abort()

#: endless recursion = exception
def f():
    f()
f()

#: endless recursion of the kind that shares a process = exception
def f(n):
    return f(n + 1)
solid = f(1)

#: recursion down to the end of the stack = crash
import sys
sys.setrecursionlimit(10**8)
class A:
    def __repr__(self):
        return repr(self)
repr(A())

#: no modules = cube|exception|crash
import sys
sys.modules.clear()
solid = cq.Workplane().box(1, 1, 1)

#: no builtins = cube|exception|crash
import builtins
solid = cq.Workplane().box(1, 1, 1)
builtins.__dict__.clear()

#: no variables = no_solid
solid = cq.Workplane().box(1, 1, 1)
globals().clear()

#: variables without names = cube|exception|crash
class Odd:
    def __hash__(self):
        return hash("solid")
    def __eq__(self, other):
        raise RuntimeError
solid = cq.Workplane().box(1, 1, 1)
globals()[7] = cq.Workplane().box(2, 2, 2)
globals()[None] = cq.Workplane().box(2, 2, 2)

#: descriptors closed and opened anew = crash|exception|timeout
import os
os.closerange(0, 256)
kept = [os.open("file", os.O_RDWR | os.O_CREAT) for _ in range(20)]
solid = cq.Workplane().box(1, 1, 1)

#: descriptors that lead into each other = cube|crash|exception|timeout
import os
a, b = os.pipe()
for fd in range(0, 30):
    os.dup2(b, fd)
solid = cq.Workplane().box(1, 1, 1)

#: descriptors that do not block = cube
import os
for fd in range(256):
    try:
        os.set_blocking(fd, False)
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: an error whose class has no name = exception|crash
class Nameless(type):
    @property
    def __name__(cls):
        raise RuntimeError
class E(Exception, metaclass=Nameless):
    pass
raise E

#: an error whose message is no text = exception
class E(Exception):
    def __str__(self):
        return 5
raise E

#: an error whose message raises = exception
class E(BaseException):
    def __str__(self):
        raise self
raise E

#: an error with half a character = exception
raise ValueError("\ud800 \udfff")

#: an error with every control character = exception
raise ValueError("".join(map(chr, range(32))) + "\x7f\u2028\u202e")

#: an object that claims to be a Workplane = no_solid|exception
class Liar:
    __class__ = cq.Workplane
    def val(self):
        return 5
solid = Liar()

#: an object that claims to be a solid = no_solid|exception|crash
class Liar:
    __class__ = cq.Solid
    def Solids(self):
        return [self]
    def isValid(self):
        return True
solid = Liar()

#: a solid without a shape = no_solid|empty|exception|crash
solid = cq.Solid.__new__(cq.Solid)

#: a solid with a null shape = no_solid|empty|exception|crash
from OCP.TopoDS import TopoDS_Solid
solid = cq.Solid(TopoDS_Solid())

#: a flood of output = cube
import os
for _ in range(50):
    print("x" * 1000000)
    os.write(2, b"y" * 1000000)
solid = cq.Workplane().box(1, 1, 1)

#: a flood of warnings = cube
import warnings
for i in range(300):
    warnings.warn("x" * 10000 + str(i))
solid = cq.Workplane().box(1, 1, 1)

#: standard streams that are closed = cube
import sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    stream.close()
solid = cq.Workplane().box(1, 1, 1)
