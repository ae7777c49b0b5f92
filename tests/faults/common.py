"""What all searches for faults share: stages in forked processes, ways to strike them down, and what a result is.

PyTorch is imported once. A stage is a fork that calls its main function as the command line would, so that a run takes
half a second, and hundreds of runs can be broken in a few minutes. Every case gets a folder of its own, in which `in`
leads to the inputs that all share and `out` is what the stage writes.
"""

import builtins
import contextlib
import fcntl
import hashlib
import importlib
import io
import json
import os
import re
import select
import shutil
import signal
import sys
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

import configurator

SPEED = {"tokens_per_second", "mfu", "seconds", "mb_per_second", "total_seconds"}  # differs from run to run
ABOUT = {"made_by", "started", "resume", "num_workers"}  # who made a result and how often it was begun
ABOUT |= {"ingredients", "digest"}  # of what a folder was made of, and of its manifest
ABOUT |= {"meta.json", "metrics.jsonl"}  # in a checkpoint's sha256.json: the digests of files that hold such things
NOT_COMPARED = (".html", ".md", ".png", ".tmp", ".lock")  # pages that show seconds; what a killed run leaves
TIME_LIMIT = 60  # seconds after which a run counts as hanging


class Lost(Exception):
    """What a case found: work that was lost, a traceback, a hang, or another result in silence."""


@dataclass
class Outcome:
    """How a run ended."""

    stage: str
    code: int  # as a shell shows it, but -9 for a process that signal 9 ended
    output: str  # standard output and standard error

    @property
    def errors(self):
        """The error lines; one may stand behind a progress bar."""
        return re.findall(r"(?<![\w.])error: .*", self.output)

    def check(self, *codes):
        """Itself. Raises Lost after a traceback, a hang, an exit code that is none of these, or an exit code of 2 without
        its one line; a recipe says one line more than its stage."""
        is_explained = len(self.errors) == 1 or (self.stage == "recipe" and self.errors)
        if "Traceback" in self.output or self.code not in codes or (self.code == 2 and not is_explained):
            raise Lost(f"exit code {self.code}: {self.output[-1500:]}")
        return self


def forked(work):
    """The pid of a fork of this process, which calls work() and ends with the exit code that it returns."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = int(work())
        sys.stdout.flush()
    finally:  # whatever a signal raises here: the fork must not go on as its parent
        os._exit(code)


def settle(folder, out, err):
    """In a fork: go to a folder, and write to these file descriptors, in a session that can be killed as a whole."""
    os.setsid()
    os.chdir(folder)
    for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(number, target)


def ends_within(pid, seconds):
    """Whether a process ends within so many seconds."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


class Run:
    """A stage in a process of its own. command: "pretrain --lr=1". prepare() is called in the process first; what it
    returns, if anything, is called last."""

    def __init__(self, command, folder, prepare=None, environment=None):
        self.stage, *arguments = command.split()
        self.read_end, write_end = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads before the process has ended

        def work():
            """In the fork: the stage in its folder."""
            os.environ.update(environment or {})
            settle(folder, write_end, write_end)
            return call_stage(self.stage, [self.stage, *arguments], prepare)

        self.pid = forked(work)
        os.close(write_end)

    def signal(self, number, everybody=False):
        """Send a signal to the process, or to all that it has started, as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if everybody else os.kill)(self.pid, number)

    def ends_within(self, seconds):
        """Whether the process ends within so many seconds."""
        return ends_within(self.pid, seconds)

    def wait(self, seconds=TIME_LIMIT):
        """The Outcome; what the process has started ends with it. Raises Lost if it hangs."""
        ended = self.ends_within(seconds)
        self.signal(signal.SIGKILL, everybody=True)
        _, status = os.waitpid(self.pid, 0)
        os.set_blocking(self.read_end, False)
        output = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.read_end, 1 << 20):
                output += part
        os.close(self.read_end)
        outcome = Outcome(self.stage, os.waitstatus_to_exitcode(status), output.decode("utf-8", "replace"))
        if not ended:
            raise Lost(f"hangs for {seconds} seconds: {outcome.output[-1500:]}")
        return outcome


def call_stage(stage, argv, prepare=None):
    """In a process of its own: what the command line does. argv: with the name of the script. Returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = argv
    code, at_the_end = 1, None
    try:
        module = importlib.import_module(stage)
        if "training.machine" in sys.modules:  # a run measures for half a second what it compares its speed with
            sys.modules["training.machine"].matmul_flops = lambda *_, **__: 1e11
        at_the_end = prepare() if prepare else None
        tables = {path: table for table, path in configurator.MODULES.items()}
        configurator.run(module.main, module.Settings, tables.get(stage))
        code = 0
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException:
        traceback.print_exc()
    if at_the_end:
        at_the_end()
    return code if isinstance(code, int) else 1


class Forked:
    """What the recipe needs of subprocess.Popen, as a fork of this process."""

    def __init__(self, arguments, env=None, **_):
        name, *rest = arguments[1:]
        if name == "-m":
            name, *rest = rest
        stage = name.removesuffix(".py")

        def work():
            """In the fork: the stage."""
            os.environ.update(env or {})
            return call_stage(configurator.MODULES.get(stage, stage), [name, *rest])

        self.returncode, self.pid = None, forked(work)

    def wait(self):
        """The exit code, negative for a signal."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number):
        """Send a signal."""
        os.kill(self.pid, number)


def recipe_in_forks():
    """Have recipe.py, in this process, start its stages as forks."""
    import recipe

    recipe.subprocess = types.SimpleNamespace(Popen=Forked)


# -- where a process is struck


class Strike:
    """Does something at the k-th event of a process, before it or behind it. An event is a file that is opened for
    writing, a name that appears, changes or goes, a sync: between two of them a kill finds the same files."""

    NAMES = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir", "truncate")

    def __init__(self, k=0, action=None, behind=False, note=None):
        self.k, self.action, self.behind, self.note = k, action, behind, note

    def __call__(self):
        """Count the events of this process from now on. Returns what writes their number to the file note, if any."""
        self.count, self.pid = 0, os.getpid()
        for name in self.NAMES:
            setattr(os, name, self.counted(getattr(os, name)))
        builtins.open = io.open = self.counted(io.open, opens_to_write)
        return self.write_note if self.note else None

    def write_note(self):
        """Leave the number of events for the parent process."""
        with os.fdopen(os.open(self.note, os.O_WRONLY | os.O_CREAT), "w") as file:
            file.write(str(self.count))

    def counted(self, function, is_event=None):
        """A function whose calls are events."""

        def counting(path, *arguments, **keywords):
            if os.getpid() != self.pid or (is_event and not is_event(path, *arguments, **keywords)):
                return function(path, *arguments, **keywords)
            self.count += 1
            if self.count == self.k and not self.behind:
                self.action()
            result = function(path, *arguments, **keywords)
            if self.count == self.k and self.behind:
                self.action()
            return result

        return counting


def opens_to_write(path, mode="r", *_, **__):
    """Whether the arguments of open() name a file to be written."""
    return not isinstance(path, int) and bool(set(mode) & set("wax+"))


# -- results


def result(folder):
    """{name: content} of the files that a stage left, without what differs from run to run, ready to be compared."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix not in NOT_COMPARED and "tfevents" not in name and "lock" not in path.name:
            found[name] = content(path, str(Path(folder).parent))
    return found


def content(path, case):
    """The content of a file; of JSON the values, of anything else the sha256. case: a path that stands for itself."""
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        with contextlib.suppress(ValueError):
            text = data.decode().replace(case, "CASE")
            texts = text.splitlines() if path.suffix == ".jsonl" else [text]
            values = [without_volatile(json.loads(text)) for text in texts]
            return sorted(values, key=str) if path.name == "samples.jsonl" else values  # written again: another place
    return hashlib.sha256(data).hexdigest()


def without_volatile(value):
    """A value of JSON without SPEED and ABOUT, and without a checkpoint's digest, which covers those too."""
    if isinstance(value, dict):
        kept = {key: v for key, v in value.items() if key not in SPEED | ABOUT}
        if isinstance(kept.get("model"), str):
            del kept["model"]
        return {key: without_volatile(v) for key, v in kept.items()}
    return [without_volatile(v) for v in value] if isinstance(value, list) else value


def compare(found, expected):
    """Raises Lost where two results differ. A checkpoint that was to be deleted when the run was killed may be left."""
    oldest = min((name for name in expected if name.startswith("step_")), default="")
    found = {name: v for name, v in found.items() if not name.startswith("step_") or name[:13] >= oldest[:13]}
    if found.keys() != expected.keys():
        raise Lost(f"files missing {sorted(expected.keys() - found)}, files too many {sorted(found.keys() - expected)}")
    for name in expected:
        if found[name] != expected[name]:
            raise Lost(f"{name} differs: {difference(expected[name], found[name])}")


def difference(expected, found, where=""):
    """The first place where two values of JSON differ, in words."""
    if type(expected) is type(found) and isinstance(expected, dict | list) and len(expected) == len(found):
        keys = expected if isinstance(expected, dict) else range(len(expected))
        for key in keys:
            inner = found.get(key) if isinstance(found, dict) else found[key]
            if inner != expected[key]:
                return difference(expected[key], inner, f"{where}.{key}")
    return f"{where} {str(expected)[:200]} became {str(found)[:200]}"


# -- cases


@contextlib.contextmanager
def case_folder(world, name):
    """A fresh folder for a case, in which `in` leads to what all cases read. It is gone afterwards."""
    folder = world.folder / "cases" / f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    os.symlink(world.folder / "in", folder / "in")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Group:
    """Cases of one kind. case(world, rng): tries one or more things, drawn from rng; {what came of them: how many}.
    Raises Lost. target: how many the long run tries; share: its share of the time; slow: only in the long run."""

    name: str
    case: object
    target: int
    share: float = 1.0
    slow: bool = False
