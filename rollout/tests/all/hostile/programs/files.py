# Programs that read or change what is not theirs. @OUTSIDE@ is a directory that the test made, with
# the files `secret` and `precious` and the empty directory `empty`. The test checks afterwards that
# it is as it was. @TRAINER@ is the process id of the test.

#: reads a file = cube
try:
    text = open("@OUTSIDE@/secret").read()
except OSError:
    text = ""
assert text == "", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through a symbolic link = cube
import os
text = ""
try:
    os.symlink("@OUTSIDE@/secret", "link")
    text = open("link").read()
except OSError:
    pass
assert text == "", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through a hard link = cube
import os
text = ""
try:
    os.link("@OUTSIDE@/secret", "link")
    text = open("link").read()
except OSError:
    pass
assert text == "", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through /proc/self = cube
text = ""
for way in ("/proc/self/root", "/proc/self/cwd/../../../../..", "/proc/thread-self/root", "/proc/1/root"):
    try:
        text += open(way + "@OUTSIDE@/secret").read()
    except OSError:
        pass
assert text == "", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through a descriptor of its path = cube
import os
text = b""
try:
    path = os.open("@OUTSIDE@/secret", os.O_PATH)
    text = os.read(os.open(f"/proc/self/fd/{path}", os.O_RDONLY), 100)
except OSError:
    pass
assert text == b"", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through the C library = cube
import ctypes
libc = ctypes.CDLL(None)
fd = libc.open(b"@OUTSIDE@/secret", 0)
assert fd == -1, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through NumPy = cube
try:
    got = len(np.fromfile("@OUTSIDE@/secret", np.uint8))
except OSError:
    got = 0
assert got == 0, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through the importer of DXF = cube|exception|crash
import cadquery.importers
text = ""
try:
    import ezdxf
    ezdxf.readfile("@OUTSIDE@/secret")
except OSError as error:
    text = str(error)
assert "not a DXF" not in text, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads a file through a stack trace = cube
import linecache
assert linecache.getline("@OUTSIDE@/secret", 1) == "", "got through"
solid = cq.Workplane().box(1, 1, 1)

#: lists a directory = cube
import os
try:
    names = os.listdir("@OUTSIDE@")
except OSError:
    names = []
assert names == [], "got through"
solid = cq.Workplane().box(1, 1, 1)

#: reads the account data of the machine = cube
got = []
for path in ("/etc/shadow", "/etc/passwd", "/root/.bashrc", "/root/.ssh", "/var/log/dpkg.log"):
    try:
        got.append(len(open(path, "rb").read(1)))
    except OSError:
        pass
assert got == [], "got through"
solid = cq.Workplane().box(1, 1, 1)

#: writes a file = cube
try:
    open("@OUTSIDE@/new", "w").write("x")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: appends to a file = cube
try:
    open("@OUTSIDE@/precious", "a").write("x")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: truncates a file by opening it = cube
try:
    open("@OUTSIDE@/precious", "w").close()
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: truncates a file by its path = cube
import os
try:
    os.truncate("@OUTSIDE@/precious", 1)
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: deletes a file = cube
import os
try:
    os.unlink("@OUTSIDE@/precious")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: deletes a directory = cube
import os, shutil
try:
    os.rmdir("@OUTSIDE@/empty")
except OSError:
    pass
shutil.rmtree("@OUTSIDE@", ignore_errors=True)
solid = cq.Workplane().box(1, 1, 1)

#: renames a file = cube
import os
try:
    os.rename("@OUTSIDE@/precious", "@OUTSIDE@/renamed")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: takes a file away = cube
import os
try:
    os.rename("@OUTSIDE@/precious", "mine")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: puts its own file in the place of another = cube
import os
open("mine", "w").write("x")
try:
    os.replace("mine", "@OUTSIDE@/precious")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: makes a directory = cube
import os
try:
    os.mkdir("@OUTSIDE@/new")
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: makes links and pipes elsewhere = cube
import os
for make in (lambda p: os.symlink("/", p), lambda p: os.mkfifo(p), lambda p: os.link("@OUTSIDE@/precious", p)):
    try:
        make("@OUTSIDE@/new")
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: makes a file that anybody may read = cube
import os
try:
    os.chmod("@OUTSIDE@/secret", 0o777)
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: changes the time of a file = cube
import os
try:
    os.utime("@OUTSIDE@/precious", (1, 1))
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: changes the attributes of a file = cube
import os
try:
    os.setxattr("@OUTSIDE@/precious", "user.test", b"x")
    got = True
except OSError:
    got = False
assert not got, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: exports into another directory = cube|exception
try:
    cq.exporters.export(cq.Workplane().box(1, 1, 1), "@OUTSIDE@/new.step")
except Exception:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: writes from a thread = cube
import threading
def write():
    try:
        open("@OUTSIDE@/new", "w").write("x")
    except OSError:
        pass
thread = threading.Thread(target=write)
thread.start()
thread.join()
solid = cq.Workplane().box(1, 1, 1)

#: writes after its result = cube
import threading, time
def write():
    for _ in range(30):
        time.sleep(0.05)
        try:
            open("@OUTSIDE@/new", "w").write("x")
        except OSError:
            pass
threading.Thread(target=write).start()
solid = cq.Workplane().box(1, 1, 1)

#: leaves its directory through the parent = cube
import os
got = []
try:
    got = os.listdir("..")
except OSError:
    pass
try:
    open("../marker", "w").close()
    got.append("written")
except OSError:
    pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: puts a link in the place of its directory = cube|exception|crash
import os
here = os.getcwd()
try:
    os.chdir("/")
    os.rmdir(here)
    os.symlink("@OUTSIDE@", here)
except OSError:
    pass
solid = cq.Workplane().box(1, 1, 1)

#: leaves links to other places behind = cube
import os
for number, place in enumerate(("@OUTSIDE@", "@OUTSIDE@/precious", "..", "/", "/proc/self/fd/0")):
    try:
        os.symlink(place, f"link{number}")
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: leaves odd names behind = cube
import os
for name in (b"\n", b"\xff\xfe", b"-rf", b" ", b"n" * 255, "\u202e".encode()):
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: leaves files behind that forbid their removal = cube
import os
os.makedirs("a/b")
open("a/b/file", "w").close()
for name in ("a/b/file", "a/b", "a"):
    try:
        os.chmod(name, 0)
    except OSError:
        pass
solid = cq.Workplane().box(1, 1, 1)

#: leaves ten thousand files behind = cube|exception|timeout
for i in range(10000):
    open(f"file{i}", "w").close()
solid = cq.Workplane().box(1, 1, 1)

#: opens ten thousand files = cube
kept = []
try:
    for i in range(10000):
        kept.append(open("file", "w"))
except OSError:
    pass
assert len(kept) < 1100, f"got through: {len(kept)}"
kept.clear()
solid = cq.Workplane().box(1, 1, 1)

#: makes a file of a terabyte = cube
import os
try:
    open("file", "wb").truncate(1 << 40)
except OSError:
    pass
assert os.path.getsize("file") < 1 << 30, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: writes to shared memory = cube
import os
name = "/dev/shm/cadwright-@TRAINER@"
got = False
try:
    open(name, "w").write("x")
    got = True
    os.unlink(name)
except OSError:
    pass
assert not got, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: makes a block of shared memory = cube
got = False
try:
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=4096)
    got = True
    memory.close()
    memory.unlink()
except (ImportError, OSError):
    pass
assert not got, "got through"
solid = cq.Workplane().box(1, 1, 1)

#: opens CadQuery for writing = cube
import math, os, OCP, sys
got = []
for module in (cq, np, OCP, os):
    try:
        got.append(os.open(module.__file__, os.O_WRONLY))
    except OSError:
        pass
assert got == [], "got through"
solid = cq.Workplane().box(1, 1, 1)

#: opens the scripts of its server for writing = cube
import os, sys
got = []
paths = [getattr(m, "__file__", None) for m in list(sys.modules.values())] + sys.argv + sys.path
for path in filter(None, paths):
    try:
        if os.path.isfile(path):
            got.append(os.close(os.open(path, os.O_WRONLY)))
    except OSError:
        pass
assert got == [], f"got through: {len(got)}"
solid = cq.Workplane().box(1, 1, 1)

#: opens devices = cube
import os
got = []
for path in ("/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda", "/dev/tty", "/dev/ptmx", "/dev/fuse", "/dev/kvm"):
    for how in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, how | os.O_NONBLOCK | os.O_NOCTTY))
            got.append(path)
        except OSError:
            pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: opens settings of the kernel = cube
import os
got = []
for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/self/oom_score_adj",
             "/proc/self/coredump_filter", "/proc/self/clear_refs", "/sys/kernel/mm/transparent_hugepage/enabled"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        got.append(path)
    except OSError:
        pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: reads the trainer = cube
import os
got = []
for pid in {@TRAINER@, os.getppid(), 1} - {os.getpid()}:
    for what in ("environ", "mem", "maps", "auxv", "stack", "pagemap", "io"):
        try:
            os.close(os.open(f"/proc/{pid}/{what}", os.O_RDONLY))
            got.append((pid, what))
        except OSError:
            pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: opens descriptors of others = cube
import os
got = []
try:
    pids = [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]
except OSError:
    pids = ["@TRAINER@", os.getppid()]
for pid in pids:
    try:
        got += os.listdir(f"/proc/{pid}/fd")
    except OSError:
        pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: opens the memory of others for writing = cube
import os
got = []
try:
    pids = [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]
except OSError:
    pids = ["@TRAINER@", os.getppid()]
for pid in pids:
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
        got.append(pid)
    except OSError:
        pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: visits the directories of others = cube
import glob, os
got = [p for p in glob.glob("/proc/[0-9]*/cwd/*") + glob.glob("/tmp/cadwright-*/*")
       if not os.path.realpath(p).startswith(os.getcwd()) and f"/proc/{os.getpid()}/" not in p]
assert got == [], f"got through: {got[:3]}"
solid = cq.Workplane().box(1, 1, 1)

#: finds descriptors that lead out = cube
import os, stat
got = []
for fd in range(3, 256):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    # Its own is the empty file in which its process will hand over geometry.
    is_own = fd == 3 and stat.S_ISREG(mode) and os.fstat(fd).st_size == 0
    if not is_own and (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and os.fstat(fd).st_nlink)):
        got.append((fd, oct(mode)))
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)

#: moves the limit of another process = cube
import os, resource
got = []
for pid in {@TRAINER@, os.getppid() or 1} - {os.getpid()}:
    try:
        # A soft limit above the hard one is an error, but only for whom it is allowed.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (2, 1))
    except ValueError:
        got.append(pid)
    except OSError:
        pass
assert got == [], "got through"
solid = cq.Workplane().box(1, 1, 1)

#: raises its own limits = cube
import os, resource
got = []
for what in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    hard = resource.getrlimit(what)[1]
    assert hard != resource.RLIM_INFINITY, "got through: no limit"
    try:
        resource.setrlimit(what, (hard + 1, hard + 1))
        got.append(what)
    except (OSError, ValueError):
        pass
assert got == [], f"got through: {got}"
solid = cq.Workplane().box(1, 1, 1)
