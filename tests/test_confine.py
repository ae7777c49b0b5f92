"""What a confined process can and cannot do: each protection by itself, as root and as an ordinary user."""

import ast
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import platform
import resource
import shutil
import signal
import site
import struct
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import pytest

from evaluation import calls, confine

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="confinement is Linux's")
ROOT_AND_USER = pytest.mark.parametrize("user", [0, 65534] if os.geteuid() == 0 else [os.geteuid()])
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE, PTRACE_ATTACH = {"x86_64": 101, "aarch64": 117}.get(platform.machine()), 16


@pytest.fixture(scope="module", autouse=True)
def complete():
    """Skips where the kernel offers less than the sandbox can use."""
    if not confine.landlock_version() or platform.machine() not in calls.PROCESSORS:
        pytest.skip("this system offers no Landlock, or no filter for its processor")


@pytest.fixture
def settings():
    """Settings with a folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        limits = {"memory": 16 << 30, "file_size": 1 << 20, "timeout": 20.0, "cpu_seconds": 20, "max_processes": 4000}
        yield limits | {"folder": folder, "readable": [], "unconfined": False}


def inside(settings, function, user=None):
    """(what function returns when a candidate calls it, what holds there). An exception is given as its text."""
    confine.prepare(settings)  # an ordinary user may be unable to reach this interpreter's library
    result, other_end = os.pipe()
    judge = os.fork()
    if judge == 0:
        try:
            if user:
                os.setgid(user)
                os.setuid(user)
            held = confine.before_fork(settings)
            child = os.fork()
            if child == 0:
                os.chdir(settings["folder"])
                held |= confine.candidate(settings)
                os.write(other_end, repr((result_of(function), held)).encode() + b"\n")
                os._exit(0)
            confine.judge(settings)
            os._exit(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        except (OSError, confine.Missing) as error:
            os.write(other_end, repr((str(error), {})).encode() + b"\n")
        finally:
            os._exit(99)
    os.close(other_end)
    with os.fdopen(result) as stream:
        text = stream.read()
    _, status = os.waitpid(judge, 0)
    return (
        ast.literal_eval(text.splitlines()[0]) if text else (f"ended by {abs(os.waitstatus_to_exitcode(status))}", {})
    )


def result_of(function):
    """What a function returns, or the text of the exception that it raises."""
    try:
        return function()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def can_open(path):
    """Whether a file can be opened, to read or to write."""
    return 0 in (error_number(os.open, path, os.O_RDONLY), error_number(os.open, path, os.O_WRONLY))


def error_number(function, *arguments):
    """errno of the OSError that a function raises, 0 if it raises none."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def errno_of(number, *arguments):
    """The error number of a system call, 0 if it succeeds."""
    ctypes.set_errno(0)
    return ctypes.get_errno() if LIBC.syscall(number, *map(ctypes.c_long, arguments)) == -1 else 0


# -- every call, from inside

# The kernel lets uretprobe and uprobe (x86_64) past every filter; called by a program they end the process.
UPROBES = {335, 336}


@ROOT_AND_USER
def test_every_call_that_is_not_named_is_refused(settings, user):
    """Arguments are such that the kernel would say something else than EPERM, or succeed."""
    processor = platform.machine()
    on_a_list = {numbers[list(calls.PROCESSORS).index(processor)] for numbers in calls.TO_ITSELF.values()}
    on_a_list |= set(calls.decisions(processor, confine.landlock_version()))
    others = sorted(set(range(600)) - on_a_list - UPROBES)
    arguments = (-1, 0, 0, 0, 0, 0)
    errors, held = inside(settings, lambda: {number: errno_of(number, *arguments) for number in others}, user)
    assert {number: error for number, error in errors.items() if error != errno.EPERM} == {}
    assert len(others) > 400 and set(held) == {"rlimits", "capabilities", "landlock", "seccomp"}
    assert held["landlock"] == f"version {confine.landlock_version()}"


# -- what plain programs do goes on, and with the same result

PLAIN = {
    "copies": "import shutil\nopen('a', 'w').write('x')\nshutil.copy('a', 'b'); shutil.copy2('a', 'c')\n"
    "shutil.move('c', 'd')\nanswer = [open(n).read() for n in 'abd']",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.001); return 3\n"
    "async def g(): return await asyncio.gather(f(), f())\nanswer = asyncio.run(g())",
    "a thread beside asyncio": "import asyncio\nasync def f(): return await asyncio.to_thread(sum, [1, 2])\n"
    "answer = asyncio.run(f())",
    "threads": "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(3) as pool: answer = list(pool.map(abs, [-1, 2]))",
    "temporary files": "import tempfile, os\nwith tempfile.TemporaryDirectory(dir='.') as d:\n"
    "    with tempfile.NamedTemporaryFile('w+', dir=d) as f:\n        f.write('x'); f.seek(0); answer = f.read()",
    "time zones": "import zoneinfo, datetime\n"
    "answer = str(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Paris')))",
    "decimal": "from decimal import Decimal\nanswer = str(Decimal(1) / 7)",
    "sqlite": "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t (a)')\n"
    "c.execute('insert into t values (1)')\nc.commit()\nm = sqlite3.connect(':memory:')\n"
    "answer = c.execute('select * from t').fetchall() + m.execute('select 2').fetchall()",
    "random": "import os, random, secrets\nanswer = len(os.urandom(3) + secrets.token_bytes(2))",
    "alarms": "import signal, time\ndef f(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, f)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.01)\ntry: time.sleep(9)\nexcept TimeoutError: answer = 'late'",
    "rights": "import os\nopen('a', 'w').close()\nos.chmod('a', 0o600)\nos.utime('a')\nanswer = os.access('a', os.R_OK)",
    "a stack for deep recursion": "import resource, threading\nhard = resource.getrlimit(resource.RLIMIT_STACK)[1]\n"
    "resource.setrlimit(resource.RLIMIT_STACK, (1 << 23, hard))\nthreading.stack_size(1 << 26)\n"
    "t = threading.Thread(target=print)\nt.start(); t.join()\nanswer = 1",
    "pipes": "import os, select\nr, w = os.pipe()\nos.write(w, b'x')\nanswer = len(select.select([r], [], [], 1)[0])",
    "modules": "import hashlib, ssl, lzma, bz2, zlib, ctypes, uuid, xml.etree.ElementTree, unittest.mock, sysconfig\n"
    "answer = hashlib.sha256(b'').hexdigest(), len(sysconfig.get_config_vars()) > 5",
    "room on the disk": "import shutil\nanswer = shutil.disk_usage('.').total > 0",
    "mapped memory": "import mmap\nm = mmap.mmap(-1, 100)\nm[0] = 7\nanswer = m[0]",
    "its own signal": "import os, signal\ngot = []\nsignal.signal(signal.SIGUSR1, lambda *_: got.append(1))\n"
    "os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1)\nanswer = got",
}


def value_of(code):
    """What a text of Python leaves in answer."""
    namespace = {}
    exec(code, namespace)
    return namespace["answer"]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_programs_do_as_they_do_outside(name, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)}
    expected = value_of(PLAIN[name])
    for number, handler in handlers.items():
        signal.signal(number, handler)
    threading.stack_size(0)
    assert inside(settings, lambda: value_of(PLAIN[name]))[0] == expected


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nanswer = subprocess.run(['true']).returncode",
        "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=print)\np.start()\nanswer = 0",
        "from concurrent.futures import ProcessPoolExecutor as P\nanswer = P(1).submit(abs, 1).result()",
        "import os\nanswer = os.posix_spawn('/bin/true', ['true'], {})",
        "import socket\nanswer = str(socket.socket())",
        "import socket\nanswer = str(socket.socketpair(type=socket.SOCK_DGRAM))",
    ],
)
def test_no_process_and_no_connection_is_started(code, settings):
    answer, _ = inside(settings, lambda: value_of(code))
    assert str(answer).startswith("PermissionError"), answer


# -- the judge and the outside are out of reach


@ROOT_AND_USER
def test_no_descriptor_of_another_process_can_be_opened_again(settings, user):
    """Among them the pipe by which the judge would tell its verdict."""
    outside = os.getpid()

    def opened():
        names = ["mem", "environ", "maps", *(f"fd/{number}" for number in range(64))]
        paths = [f"/proc/{process}/{name}" for process in (os.getppid(), outside) for name in names]
        return [path for path in paths if can_open(path)]

    assert inside(settings, opened, user)[0] == []


@ROOT_AND_USER
def test_a_descriptor_cannot_be_made_to_signal_the_judge(settings, user):
    outside = os.getpid()

    def tried():
        end, _ = os.pipe()
        owner = struct.pack("ii", 1, os.getppid())
        commands = [(fcntl.F_SETOWN, os.getppid()), (15, owner), (fcntl.F_SETSIG, 9), (fcntl.F_SETFL, os.O_ASYNC)]
        commands += [(fcntl.F_NOTIFY, 1), (fcntl.F_SETLEASE, 0), (fcntl.F_SETPIPE_SZ, 1 << 20)]
        errors = [error_number(fcntl.fcntl, end, *command) for command in commands]
        errors += [error_number(fcntl.ioctl, end, request, owner) for request in (0x5452, 0x8901, 0x8902)]
        return errors + [error_number(os.kill, process, 0) for process in (os.getppid(), 0, -1, 1, outside)]

    assert set(inside(settings, tried, user)[0]) == {errno.EPERM}


@ROOT_AND_USER
def test_without_the_filter_the_judge_is_kept_apart_too(settings, user, monkeypatch):
    """By Landlock's second domain; and root has no capabilities."""
    if confine.landlock_version() < 6:
        pytest.skip("signals are Landlock's from version 6 on")
    monkeypatch.setattr(confine, "restrict_calls", lambda: True)

    def tried():
        was_dumpable = LIBC.prctl(3, 0, 0, 0, 0)
        LIBC.prctl(4, 1, 0, 0, 0)  # dumpable again
        found = [number for number in range(64) if can_open(f"/proc/{os.getppid()}/fd/{number}")]
        errors = [error_number(os.kill, os.getppid(), 0), errno_of(PTRACE, PTRACE_ATTACH, os.getppid())]
        capabilities = ctypes.create_string_buffer(24)
        LIBC.capget(struct.pack("=Ii", 0x20080522, 0), capabilities)
        return was_dumpable, found, errors, capabilities.raw

    assert inside(settings, tried, user)[0] == (0, [], [errno.EPERM, errno.EPERM], bytes(24))


def test_abort_still_ends_a_program(settings):
    assert inside(settings, os.abort)[0] == "ended by 6"


@ROOT_AND_USER
def test_a_candidate_dies_with_its_judge(settings, user):
    def orphaned():
        os.write(told, str(os.getppid()).encode())
        time.sleep(15)

    reader, told = os.pipe()
    start = time.time()
    killer = threading.Thread(target=lambda: os.kill(int(os.read(reader, 20)), signal.SIGKILL))
    killer.start()
    # inside returns when no process holds the candidate's end of its pipe open
    assert inside(settings, orphaned, user)[0] == "ended by 9" and time.time() - start < 5
    killer.join()
    os.close(reader), os.close(told)


def test_a_process_whose_parent_has_gone_already_ends():
    child = os.fork()
    if child == 0:
        confine.die_with(os.getpid())  # not the parent
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_limits_are_set(settings):
    settings |= {"memory": 4 << 30, "cpu_seconds": 7, "file_size": 1000, "max_processes": 300}
    names = ("AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING")
    got, _ = inside(settings, lambda: [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names])
    assert got == [(n, n) for n in (4 << 30, 7, 1000, 300, 64, 0, 0, 0, 1024)]


def test_the_exact_timer_is_never_early_and_cannot_be_stopped(settings):
    settings["timeout"] = 0.2
    seconds = mmap.mmap(-1, 8)  # shared with the candidate

    def run():
        signal.setitimer(signal.ITIMER_PROF, 0)
        while True:
            struct.pack_into("d", seconds, 0, time.process_time())

    assert inside(settings, run)[0] == f"ended by {signal.SIGPROF}"
    assert 0.19 < struct.unpack("d", seconds)[0] < 0.25


# -- files

LIBRARY = sysconfig.get_path("stdlib")


def outsiders():
    """Files that lie below or beside what may be read, and are neither the standard library nor shared libraries."""
    folders = [f"{LIBRARY}/site-packages", f"{LIBRARY}/test", f"{sys.base_prefix}/bin", *site.getsitepackages()]
    folders += ["/usr/share/doc", "/usr/share/common-licenses", "/usr/lib/python3/dist-packages", "/usr/bin", "/etc"]
    folders += ["/usr/include", "/usr/lib/" + (sysconfig.get_config_var("MULTIARCH") or "")]
    found = ["/proc/self/environ", "/proc/self/maps", __file__, confine.__file__]
    for folder in filter(os.path.isdir, folders):
        paths = [*Path(folder).glob("*"), *itertools.islice(Path(folder).glob("*/*"), 200)]
        found += [str(path) for path in paths if path.is_file() and not path.is_symlink() and ".so" not in path.name]
    return [path for path in found if path not in confine.DATA]


@ROOT_AND_USER
def test_only_the_standard_library_and_shared_libraries_can_be_read(settings, user):
    paths = outsiders()
    read = inside(settings, lambda: [path for path in paths if can_open(path)], user)[0]
    assert len(paths) > 100 and read == []


def test_a_named_package_can_be_read_and_nothing_beside_it(settings, tmp_path):
    (tmp_path / "packages" / "wanted").mkdir(parents=True)
    (tmp_path / "packages" / "wanted" / "__init__.py").write_text("x = 3")
    (tmp_path / "packages" / "problems.jsonl").write_text("answers")
    settings["readable"] = [f"{tmp_path}/packages/wanted"]

    def tried():
        sys.path.append(f"{tmp_path}/packages")
        return __import__("wanted").x, can_open(f"{tmp_path}/packages/problems.jsonl"), can_open(confine.__file__)

    assert inside(settings, tried)[0] == (3, False, False)
    settings["readable"] = []
    assert inside(settings, tried)[0].startswith("ModuleNotFoundError")


@ROOT_AND_USER
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
def test_nothing_outside_is_emptied_or_changed_on_any_version_of_landlock(settings, user, version, monkeypatch):
    """Its own file of the same user, in a folder that may be read."""
    if version > confine.landlock_version():
        pytest.skip("this kernel's Landlock is older")
    monkeypatch.setattr(confine, "landlock_version", lambda: version)
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder, "precious")
        outside.write_text("precious")
        os.chmod(outside, 0o666), os.chmod(folder, 0o777)
        if user:
            os.chown(outside, user, user)
        settings["readable"] = [folder]

        def tried():
            for flags in (os.O_TRUNC, os.O_TRUNC | 3, os.O_TRUNC | os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR):
                error_number(os.open, outside, flags)
            acts = [(os.truncate, outside, 0), (os.remove, outside), (os.rename, outside, "x"), (os.link, outside, "y")]
            acts += [(os.chmod, outside, 0), (os.utime, outside, (1, 1)), (os.setxattr, outside, "user.x", b"")]
            for act, *arguments in acts:
                error_number(act, *arguments)
            Path("own").write_text("12345")
            Path("own").write_text("123")
            os.truncate("own", 2) if version >= 3 else os.ftruncate(os.open("own", os.O_WRONLY), 2)
            return outside.read_text(), Path("own").read_text(), [error_number(os.kill, os.getppid(), 0)]

        def state():
            about = outside.stat()
            return outside.read_text(), about.st_mode, about.st_nlink, about.st_mtime_ns

        before = state()
        assert inside(settings, tried, user)[0] == ("precious", "12", [errno.EPERM])
        assert state() == before


def test_a_folder_made_again_under_its_name_can_be_written(settings):
    settings["folder"] += "/again"
    for _ in range(2):
        os.mkdir(settings["folder"])
        assert inside(settings, lambda: Path("new").write_text("12"))[0] == 2
        shutil.rmtree(settings["folder"])


# -- what is missing


@pytest.mark.parametrize(
    ("function", "without", "name"),
    [
        ("landlock_version", 0, "landlock"),
        ("restrict_calls", False, "seccomp"),
        ("drop_capabilities", False, "capabilities"),
    ],
)
def test_a_missing_protection_is_an_error_before_any_program_runs(settings, monkeypatch, function, without, name):
    monkeypatch.setattr(confine, function, lambda: without)
    answer, held = inside(settings, lambda: "has run")
    assert answer.startswith("programs can't be confined: this system offers no") and name in answer.lower()
    settings["unconfined"] = True
    answer, held = inside(settings, lambda: "has run")
    assert answer == "has run" and {name, *held} == {"rlimits", "capabilities", "landlock", "seccomp"}
