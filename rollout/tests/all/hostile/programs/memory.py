# Programs that ask for too much memory. Without the limit they would get at most some 3 GiB.

#: one array of bytes = memory
x = bytearray(3 << 30)

#: many small arrays = memory|timeout
x = [bytearray(1 << 20) for _ in range(2000)]

#: an array of numbers = memory
x = np.ones(3 << 27)

#: an array beyond all memory = memory
x = np.zeros((10**6, 10**6))

#: a list of the kind that shares a process = memory|timeout
x = [0]
for i in range(28):
    x += x

#: a text of the kind that shares a process = memory
x = "a" * 3 * 10**9

#: a number of the kind that shares a process = memory|exception|timeout
x = 1 * 2 ** (2 * 10**10)

#: a width of the kind that shares a process = memory|exception
x = f"{1:>3000000000}"

#: an array of OCC = memory|exception|crash
from OCP.TColgp import TColgp_Array1OfPnt
x = TColgp_Array1OfPnt(1, 10**8)

#: solids that are kept = memory|timeout|crash
x = [cq.Workplane().box(1, 1, 1) for _ in range(10**6)]

#: pages of its own = memory|exception
import mmap
x = mmap.mmap(-1, 3 << 30)

#: a message of 300 MB = memory|exception
raise ValueError("x" * (300 << 20))

#: a thousand threads = cube|memory|exception|crash
import threading, time
def sleep():
    time.sleep(5)
for _ in range(1000):
    threading.Thread(target=sleep, daemon=True).start()
solid = cq.Workplane().box(1, 1, 1)

#: pipes full of bytes = cube|exception
import fcntl, os
kept = []
try:
    for _ in range(200):
        kept.append(os.pipe())
        fcntl.fcntl(kept[-1][1], fcntl.F_SETFL, os.O_NONBLOCK)
        fcntl.fcntl(kept[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(kept[-1][1], bytes(1 << 20))
except OSError:
    pass
assert len(kept) < 200, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: a gigabyte in files without a name = cube|memory|crash
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
written, chunk = 0, bytes(32 << 20)
for _ in range(32):
    fd = libc.memfd_create(b"x", 0)
    try:
        written += os.write(fd, chunk)
    except OSError:
        break
assert written < 1 << 29, f"got through: {written >> 20} MiB"
solid = cq.Workplane().box(1, 1, 1)

#: a gigabyte in files of its directory = cube|memory|crash|timeout
import os
written, chunk = 0, bytes(32 << 20)
for i in range(32):
    try:
        fd = os.open(f"file{i}", os.O_CREAT | os.O_WRONLY)
        written += os.write(fd, chunk)
    except OSError:
        break
assert written < 1 << 29, f"got through: {written >> 20} MiB"
solid = cq.Workplane().box(1, 1, 1)

#: tuples a million deep = cube|exception|crash|memory|timeout
x = ()
for i in range(10**6):
    x = (x,)
hash(x)
solid = cq.Workplane().box(1, 1, 1)
