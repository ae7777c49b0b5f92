"""Run programs that nobody should have to fear, and say what came of them and of what lies outside.

The programs stand in tests/hostile, a file for each kind. Every one goes behind START; one that defines no f gets a
right one, so that it would pass if its forbidden act were allowed. None does real harm even then: signals are number 0,
times and names are set to what they are, and what uses up time, memory or disk ends by itself.

A heading "#! name" begins a program that must not pass. After "#? name" the verdict is free: the act concerns only the
program itself, or the kernel lets it through without an effect, and the checks of what is outside decide.

    python tests/hostile.py FOLDER    as any user; prints what happened as JSON
"""

import ctypes
import json
import os
import re
import resource
import signal
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from evaluation.checks import check_suite, text_of
from evaluation.sandbox import Limits, close_all, run_all

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {"timeout": 0.2, "memory_mb": 256, "file_mb": 16}
WORKERS = 6  # many sleep
TEST = {
    "helpers": "SECRET = 41",
    "code": "import keyword\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3] and SECRET == 41\n"
    "    assert candidate([]) == []\ncheck(f)",
    "entry_points": ["f"],
}
ARITHMETIC = {"helpers": "", "code": "assert abs(f([1, 2]) - 1.5) < 1e-6", "entry_points": ["f"]}
METHODS = {"helpers": "", "code": "assert f([1, 2]).startswith('abc')", "entry_points": ["f"], "classes": []}
MEMBERSHIP = {"helpers": "", "code": "assert 2 in f([1, 2]) and 3 in f([1, 2])", "entry_points": ["f"], "classes": []}
SCRIPT = {"inputs": ["1 2\n", "5 6\n"], "outputs": ["3\n", "11\n"]}
SUITE = {
    "helpers": "",
    "code": f"""{text_of(check_suite)}
import unittest
class Suite(unittest.TestCase):
    def test_two(self): self.assertEqual(f([1, 2]), [2, 3])
    def test_none(self): self.assertEqual(f([]), [])
check_suite(Suite)""",
    "entry_points": ["f"],
}
# By kind; TEST and sealed for the others.
TESTS = {"arithmetic": ARITHMETIC, "methods": METHODS, "membership": MEMBERSHIP, "scripts": SCRIPT, "suites": SUITE}
MODES = {"open": "open", "scripts": "script"}
START = """import ctypes, os, sys
OUTSIDE, PORT, OTHER, KEY = {outside!r}, {port}, {other}, {key}
LIBC = ctypes.CDLL(None, use_errno=True)
VERDICT = b'{{"passed": True, "result": "passed", "active": []}}'
def must(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(x86_64, aarch64, *arguments):
    arguments = [ctypes.c_long(x) if isinstance(x, int) else x for x in arguments]
    return must(LIBC.syscall(x86_64 if os.uname().machine == "x86_64" else aarch64, *arguments))
def opened(path, flags):
    try: return os.open(path, flags)
    except OSError: return -1
def write_all(descriptors, *texts):
    for descriptor in descriptors:
        for text in texts:
            try: os.write(descriptor, text)
            except OSError: pass
def tell(text): write_all(range(3, 60), len(text).to_bytes(8, "big") + text)
def found(x): return [2, 3] if x else []
def side():
    at = sys._getframe()
    while at and "ask" not in dir(at.f_locals.get("self")): at = at.f_back
    return at.f_locals["self"] if at else must(-1)
def ask(*question): return side().ask(*question)
"""
RIGHT = "\ndef f(x): return [i + 1 for i in x]\n"
RIGHT_SCRIPT = "print(sum(map(int, sys.stdin.readline().split())))\n"
# Texts that no file holds, or only a long one.
STRANGE = {
    "! half a surrogate in an exception": "def f(x): raise ValueError('\\ud800')",
    "! half a surrogate in the name of an exception": "def f(x): raise type('\\ud800', (Exception,), {})",
    "! half a surrogate in a result": "def f(x): return '\\ud800'",
    "! half a surrogate in a key and an attribute": "def f(x): return {'\\udfff': sys.intern('\\ud800')}\nimport sys",
    "? half a surrogate": "x = '\ud800'" + RIGHT,
    "? half a surrogate as a name": "\udcff = 1" + RIGHT,
    "! NUL": "x = '\0'" + RIGHT,
    "! NUL in a result": "def f(x): return 'passed\\0\\n'",
    "! lines in an exception": "def f(x): raise ValueError('\\n{\"passed\": True}\\r\\n')",
    "! lines in the name of an exception": "def f(x): raise type('E\\n(\\'value\\', [2, 3])\\n', (Exception,), {})",
    "? 10 MB of source": "# " + "x" * 10_000_000 + RIGHT,
    "? 10 MB of names": "x = 1\n" * 1_000_000 + RIGHT,
    "! 10 MB of letters without a line": "x" * 10_000_000,
    "! nested brackets": "(" * 100_000 + RIGHT,
    "! nested lists": "x = " + "[" * 5000 + "]" * 5000 + RIGHT,
    "! signs in a row": "x = " + "-" * 1_000_000 + "1" + RIGHT,
    "! a sum without an end": "x = 1" + " + x" * 1_000_000 + RIGHT,
    "! nested blocks": "\n".join(" " * i + "if 1:" for i in range(200)) + RIGHT,
    "! a long number": "x = " + "9" * 1_000_000 + RIGHT,
    "! a text left open": "'''" + "x" * 1000,
    "! a mark of the byte order alone": "\ufeff",
    "! nothing": "",
    "! a return alone": "\r",
    "? an unknown encoding": "# -*- coding: nonsense -*-" + RIGHT,
    "? another encoding": "# -*- coding: utf-16 -*-" + RIGHT,
    "? other ends of lines": RIGHT.replace("\n", "\r") + "\f\v\x1c\u2028",
    "! an exception without a text": "class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E",
    "! an exception whose text is none": "class E(Exception):\n    __str__ = lambda self: 1\ndef f(x): raise E",
    "! an exception whose class has no name": (
        "class M(type):\n    __name__ = property(lambda self: [self])\n"
        "class E(Exception, metaclass=M): pass\ndef f(x): raise E"
    ),
    "! a group of exceptions": "def f(x): raise BaseExceptionGroup('e', [KeyboardInterrupt(), SystemExit(0)])",
}


def programs(**values):
    """{"kind: name": (program, whether it may pass)}. values: what START takes."""
    found = {}
    for path in sorted((Path(__file__).parent / "hostile").glob("*.txt")):
        for mark, name, body in re.findall(r"^#([!?]) (.*)\n((?:(?!#[!?] ).*\n)+)", path.read_text(), re.MULTILINE):
            kind = path.stem.replace("_", " ")
            if not re.search(r"^(def f\(|f = |class f\()", body, re.MULTILINE):
                body += RIGHT_SCRIPT if MODES.get(kind) == "script" else RIGHT
            found[f"{kind}: {name}"] = START.format(**values) + body, mark == "?"
    return found | {f"strange text: {name[2:]}": (text, name[0] == "?") for name, text in STRANGE.items()}


# -- what must stay as it is


def build(folder):
    """Files of a person: content, link, attribute, program and empty folder."""
    (folder / "empty").mkdir(parents=True)
    (folder / "file").write_text("precious")
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("file")
    (folder / "repository").symlink_to(ROOT)
    try:
        os.setxattr(folder / "file", "user.tag", b"precious")
    except OSError:
        pass  # not every file system has them


def seen(folder):
    """{path below folder: all that the system tells about it}. Its time of change shows every act, undone or not."""
    state = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        s = path.lstat()
        content = path.read_text() if stat.S_ISREG(s.st_mode) else ""
        tags = [] if path.is_symlink() else [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
        about = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns, content, tags)
        state[str(path.relative_to(folder))] = repr(about)
    return state


def own_state():
    """What others can change about this process and the machine."""
    me = os.getpid()
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    scheduling = sorted(os.sched_getaffinity(me)), os.getpriority(os.PRIO_PROCESS, me), os.sched_getscheduler(me)
    trace = re.search(r"TracerPid:.*", Path("/proc/self/status").read_text())[0]
    return repr((limits, scheduling, trace, os.uname(), os.getcwd(), Path("/proc/self/oom_score_adj").read_text()))


def descendants():
    """[pid and command line] of the processes that descend from this one and still run."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family - {os.getpid()})


def kept_by_the_kernel(key):
    """What stays in the kernel under our key when a process has gone: shared memory, queues and semaphores."""
    listed = [f"{what} of System V" for what in ("shm", "msg", "sem") if str(key) in fields(f"/proc/sysvipc/{what}")]
    names = [f"/dev/shm/{key}", f"/dev/shm/sem.{key}", f"/dev/mqueue/{key}"]
    return listed + [name for name in names if os.path.exists(name)]


def fields(path):
    """All words of a file."""
    return Path(path).read_text().split() if os.path.exists(path) else []


# -- running them


def run_each(jobs):
    """Yield (name, Verdict, or the exception that stopped the evaluation): all at once if nothing stops it."""
    waiting = {job[0]: job for job in jobs}
    try:
        for name, verdict in run_all(jobs, WORKERS, Limits(**LIMITS)):
            del waiting[name]
            yield name, verdict
    except Exception:
        for name, job in waiting.items():
            try:
                yield from run_all([job], 1, Limits(**LIMITS))
            except Exception as error:
                yield name, error
    close_all()


def main(folder):
    """Run all programs below a folder of ours; print {"programs": {name: ...}, "left": {what: list}} as JSON."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whatever outlives its parent becomes our child
    signals, key = [], 0x10000000 + os.getpid() * 4
    signal.signal(signal.SIGURG, lambda *_: signals.append("SIGURG"))
    tempfile.tempdir = str(folder / "temporary")
    os.mkdir(tempfile.tempdir)
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())
    there, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    os.mkdir(folder / "outside")
    there.bind(str(folder / "outside/socket"))
    abstract.bind(f"\0{key}")
    there.listen(), abstract.listen()
    libc = ctypes.CDLL(None)
    memory = libc.shmget(key + 1, 4096, 0o1600)

    values, result, before = {"port": tcp.getsockname()[1], "other": os.getpid(), "key": key}, {}, {}
    jobs, state = [], own_state()
    for number, name in enumerate(programs(outside="", **values)):
        outside = folder / f"outside/{number}"
        build(outside)
        program, may_pass = programs(outside=str(outside), **values)[name]
        before[name] = outside, seen(outside)
        result[name] = {"may_pass": may_pass}
        kind = name.partition(":")[0]
        jobs.append((name, program, TESTS.get(kind, TEST), MODES.get(kind, "sealed")))
    start = time.time()
    for name, verdict in run_each(jobs):
        stopped = isinstance(verdict, Exception)
        came = {"passed": False, "result": f"{verdict!r:.300}", "seconds": 1} if stopped else vars(verdict)
        result[name] |= came | {"stopped": stopped}
    seconds = time.time() - start
    patience = time.time() + 2
    while descendants() and time.time() < patience:
        time.sleep(0.02)
    for name, (outside, was) in before.items():
        result[name]["changed"] = sorted({path for path, _ in was.items() ^ seen(outside).items()})
    left = {
        "folders": [str(path) for path in Path(tempfile.tempdir).iterdir()],
        "processes": [f"{pid} {Path(f'/proc/{pid}/cmdline').read_text()[:80]!r}" for pid in descendants()],
        "kept by the kernel": kept_by_the_kernel(key),
        "signals": signals,
        "changed state of this process": [] if own_state() == state else [state, own_state()],
    }
    for pid in descendants():
        os.kill(pid, signal.SIGKILL)
    libc.shmctl(memory, 0, None)  # IPC_RMID
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"programs": result, "left": left, "peak_mb": peak, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
