"""Run a program that nobody has read, and its test: in processes of its own, confined, and killed when it takes long.

evaluation/judge.py says why a program cannot cheat, evaluation/confine.py what confines it, evaluation/server.py where
its processes come from. This file is the outside: it hands out programs and tests, and takes verdicts that carry a
secret which the judge was told when the program's process had been split off.
"""

import ast
import atexit
import contextlib
import importlib.util
import json
import marshal
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corpus.parallel import submitted
from endings import UserError
from evaluation.judge import REFUSED, SECRET_BYTES
from evaluation.server import OUT_OF_CLOCK

# -S, -s, -P: neither site-packages nor the current folder is on the import path.
SERVER = [sys.executable, "-S", "-s", "-P", "-c", "from evaluation.server import main; main()"]
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
ENVIRONMENT |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # Python may need it
ENVIRONMENT |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # numpy's threads would not survive a fork
MAX_ANSWER = 1 << 20  # bytes of a verdict
TIMED_OUT = ("timed out", OUT_OF_CLOCK)  # results that say only that a program has taken too long
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


@dataclass(frozen=True)
class Limits:
    """What a program may use. timeout and memory_mb hold for the judge and for the candidate, each by itself. On the
    clock it has 3 * timeout + 1 seconds; a script has both times for each input."""

    timeout: float = 3.0  # seconds of CPU time
    memory_mb: int = 1024  # address space
    packages: tuple = ()  # what programs and tests may import beside the standard library
    unconfined: bool = False  # run programs even where the system offers less than evaluation/confine.py asks for
    file_mb: int = 16  # the largest file that can be written
    folder_mb: int = 64  # all files
    n_files: int = 1000
    depth: int = 50  # of folders in folders


@dataclass
class Verdict:
    """What came of a program."""

    passed: bool
    result: str  # passed, timed out, timed out on the clock, or failed: and why
    seconds: float  # on the clock


class NoVerdict(Exception):
    """The sandbox has ended in a way that says nothing about the program."""


def run(program, test, limits=Limits(), mode="sealed") -> Verdict:
    """The Verdict on a program, a text of Python; test: see judge.py. mode: "sealed"; "open", for a test that needs the
    program in its own process; or "script". Raises NoVerdict, and UserError where programs cannot be confined."""
    with a_server(limits.packages) as server:
        return server.run(program, test, limits, mode)


def run_all(jobs, num_workers, limits=Limits()):
    """Yield (key, Verdict) of jobs, (key, program, test, mode), in the order in which they end. A job that ends without
    a verdict, without the threads it asks for, or at the end of its time on the clock, is tried again when nothing else
    runs. Raises UserError if it still has no verdict."""
    again = []

    def judge(job):
        """The Verdict on a job."""
        _, program, test, mode = job
        return run(program, test, limits, mode)

    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for job, done in submitted(pool, judge, jobs):
                try:
                    verdict = done.result()
                except NoVerdict:
                    again.append(job)
                    continue
                # Others may have had all the threads, or the cores.
                if "can't start new thread" in verdict.result or verdict.result == OUT_OF_CLOCK:
                    again.append(job)
                else:
                    yield job[0], verdict
        except BaseException:  # Ctrl-C, or nobody wants the rest
            pool.shutdown(wait=False, cancel_futures=True)
            for server in tuple(busy):
                with contextlib.suppress(OSError):
                    server.control.shutdown(socket.SHUT_RDWR)
            raise
    for job in again:
        try:
            yield job[0], judge(job)
        except NoVerdict as error:
            raise UserError(f"a sandbox ended twice without a verdict ({error}): nothing is scored by that") from None


def probe(limits=Limits()):
    """{protection: version} of what confines programs here. Raises UserError where that is less than it should be."""
    with a_server(limits.packages) as server:
        try:
            verdict = server.run("", {"helpers": "", "code": "", "entry_points": []}, limits, "sealed")
        except NoVerdict as error:
            raise UserError(f"programs cannot be run here: a sandbox ended without a verdict ({error})") from None
        if not verdict.passed:
            raise UserError(f"programs cannot be run here: an empty one comes to {verdict.result!r}")
        return server.protections


# -- servers, which wait for the next program

idle = {}  # {packages: [Servers that wait]}
busy = []  # Servers that run a program
os.register_at_fork(after_in_child=idle.clear)  # they are the parent's


@contextlib.contextmanager
def a_server(packages):
    """A Server that nobody else uses: one that waits, or a new one. One that failed does not come back."""
    waiting = idle.setdefault(packages, [])
    try:
        server = waiting.pop()
    except IndexError:
        try:
            server = Server(packages)
        except OSError as error:  # no more processes or open files
            raise NoVerdict(str(error)) from None
    busy.append(server)
    try:
        yield server
    except BaseException:
        server.close()
        raise
    finally:
        busy.remove(server)
    waiting.append(server)


@atexit.register
def close_all():
    """End the servers that wait."""
    for servers in idle.values():
        while servers:
            servers.pop().close()


class Server:
    """The process of evaluation/server.py. packages: names of packages that programs may import."""

    def __init__(self, packages):
        self.protections, self.root = {}, f"{tempfile.gettempdir()}/sandbox_{secrets.token_hex(8)}"
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [*SERVER, str(theirs.fileno()), self.root, *places(packages)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # its last words
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server
        )
        theirs.close()

    def run(self, program, test, limits, mode):
        """The Verdict on a program. Raises NoVerdict and UserError as the function run() does."""
        start = time.perf_counter()
        settings = {"mode": mode, "memory": limits.memory_mb << 20, "file_size": limits.file_mb << 20}
        settings |= {"timeout": limits.timeout, "cpu_seconds": 2 * math.ceil(limits.timeout) + 1}
        settings |= {"folder_bytes": limits.folder_mb << 20, "n_files": limits.n_files, "depth": limits.depth}
        n_runs = len(test["inputs"]) if mode == "script" else 1
        settings |= {"clock_seconds": n_runs * (3 * limits.timeout + 1), "n_runs": n_runs}
        settings |= {"unconfined": limits.unconfined}
        mine, theirs = socket.socketpair()
        with mine:
            with theirs:
                self.send(settings, theirs)
            secret = secrets.token_bytes(SECRET_BYTES)
            answer = exchange(mine, program, test, secret, settings["clock_seconds"])
        status, cpu_seconds, why = self.ended()
        seconds = time.perf_counter() - start
        if answer.startswith(secret) and not why:
            verdict = ast.literal_eval(answer.removeprefix(secret).decode())
            self.protections = verdict.pop("protections")
            return Verdict(**verdict, seconds=seconds)
        crashed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if crashed and cpu_seconds > 0.9 * limits.timeout:
            why = "timed out"
        elif crashed in CRASHES:
            why = f"its test crashes with signal {crashed}"
        if not why:
            raise NoVerdict(f"status {status}")
        return Verdict(False, why if why in TIMED_OUT else f"failed: {why}", seconds)

    def send(self, settings, descriptor):
        """Start a job."""
        try:
            socket.send_fds(self.control, [marshal.dumps(settings)], [descriptor.fileno()])
        except OSError:
            raise NoVerdict(self.last_words()) from None

    def ended(self):
        """What server.job() returned. Raises NoVerdict."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            return marshal.loads(self.control.recv(1 << 16))
        raise NoVerdict(self.last_words())

    def last_words(self):
        """Why the process has ended."""
        self.control.close()
        self.process.wait()
        words = self.process.stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"its server has ended: {words}" if words else "its server has ended"

    def close(self):
        """End the process; it ends what it has started, and deletes its folder."""
        self.control.close()
        self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.root, ignore_errors=True)  # if it ended in another way


def exchange(connection, program, test, secret, clock_seconds):
    """Give a judge the program, then, when it has split off the program's process, the test; its answer, b"" if it ends
    before. Raises UserError if it cannot be confined."""
    connection.settimeout(clock_seconds + 30)  # the server ends the judge before
    answer = b""
    with contextlib.suppress(OSError):
        connection.sendall(block(program))
        first = connection.recv(1)
        if first == REFUSED:
            raise UserError(f"{connection.recv(1000).decode()}; --unconfined runs programs all the same")
        if first:  # it has split off
            connection.sendall(block(json.dumps(test)) + secret)
            while len(answer) < MAX_ANSWER and (part := connection.recv(1 << 16)):
                answer += part
    return answer


def block(text):
    """A text's bytes behind their number in eight bytes."""
    data = text.encode("utf-8", "replace")
    return len(data).to_bytes(8) + data


def places(packages):
    """Where packages are: folders or files. Raises UserError for one that is not installed."""
    found = []
    for name in packages:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # of nosuch.part, or of a name that is none
            spec = None
        if spec is None or not (spec.has_location or spec.submodule_search_locations):
            raise UserError(f"no package {name}: pip install {name}")
        place = Path(spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin)
        libraries = place.with_name(f"{name}.libs")  # shared libraries of its own
        found += [str(path) for path in (place, libraries) if path.exists()]
    return found
