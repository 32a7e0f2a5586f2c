# Programs that start processes or talk to the outside. On port @PORT@ of this machine and at the
# path @SOCKET@ the test listens; it expects that nobody calls.

#: a fork bomb = cube
import os
started = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            os._exit(0)
        started += 1
    except OSError:
        break
assert started == 0, f"got through: {started}"
solid = cq.Workplane().box(1, 1, 1)

#: another program = cube
import os
try:
    os.execv("/bin/true", ["true"])
except OSError as error:
    assert error.errno in (1, 2, 13, 38), "got through"
solid = cq.Workplane().box(1, 1, 1)

#: another program by posix_spawn = cube
import os
try:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: another program by subprocess = cube
import subprocess
try:
    subprocess.run(["true"])
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a shell = cube
import ctypes, os
assert ctypes.CDLL(None).system(b"true") != 0, "got through"
assert os.system("true") != 0, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: a process of multiprocessing = cube
import multiprocessing
try:
    process = multiprocessing.get_context("fork").Process(target=print)
    process.start()
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a terminal of its own = cube
import pty
try:
    pid, fd = pty.fork()
    if pid == 0:
        import os
        os._exit(0)
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a program out of memory = cube
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.memfd_create(b"x", 0)
nothing = (ctypes.c_char_p * 1)(None)
assert fd == -1 or libc.fexecve(fd, nothing, nothing) == -1 and ctypes.get_errno() in (1, 38), "got through"
solid = cq.Workplane().box(1, 1, 1)

#: a connection = cube
import socket
try:
    socket.create_connection(("127.0.0.1", @PORT@), timeout=1).send(b"x")
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a connection to a path = cube
import socket
try:
    s = socket.socket(socket.AF_UNIX)
    s.connect("@SOCKET@")
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: sockets of all families = cube
import socket
got = []
for family in range(46):
    for kind in (1, 2, 3):
        try:
            got.append(socket.socket(family, kind).family)
        except OSError as error:
            if error.errno not in (1, 13, 38, 97, 94, 93, 22, 92, 2):
                got.append((family, error.errno))
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: a pair of sockets = cube
import socket
try:
    socket.socketpair()
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a name to look up = cube
import socket
try:
    socket.getaddrinfo("localhost", 80, proto=socket.IPPROTO_TCP)
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a signal to its parent = cube
import os
try:
    if os.getppid():  # 0: the parent is in another world
        os.kill(os.getppid(), 0)
        raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a signal to the trainer = cube
import os
try:
    os.kill(@TRAINER@, 0)
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a signal to all = cube
import os
try:
    os.kill(-1, 0)
    raise SystemExit("got through")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: a signal to others by the owner of a descriptor = cube
import fcntl, os, signal
a, b = os.pipe()
got = False
try:
    other = os.getppid() or @TRAINER@
    fcntl.fcntl(a, 10, signal.SIGURG)
    fcntl.fcntl(a, fcntl.F_SETOWN, other)
    got = fcntl.fcntl(a, fcntl.F_GETOWN) == other
except OSError:
    pass
assert not got, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: variables of the trainer = cube
import os
extra = [name for name in os.environ if "SECRET" in name or "TOKEN" in name or "CARGO" in name or "RUST" in name]
assert extra == [], f"got through: {extra}"
solid = cq.Workplane().box(1, 1, 1)

#: a 32-bit system call = cube|crash
import ctypes, mmap, os
page = mmap.mmap(-1, 4096, prot=7)
page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
assert pid != os.getpid(), "got through"
solid = cq.Workplane().box(1, 1, 1)
