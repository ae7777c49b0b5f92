"""Run a program that nobody has read, and its test: in a fresh interpreter, confined, and killed when it takes long.

What confines it, and why it cannot cheat, is in evaluation/jail.py. Here is the outside: one interpreter per sample in
its own process group and an empty folder, with no inherited environment, judged by its CPU time, with three times that
on the clock as a backstop for one that sleeps.
"""

import ast
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROTECTIONS = {"rlimits", "landlock", "seccomp"}
JAIL = Path(__file__).with_name("jail.py")


@cache
def compiled_jail():
    """jail.py as bytecode, beside the other modules' where that can be written: parsing it takes a quarter of a run."""
    try:
        return py_compile.compile(str(JAIL))
    except OSError:
        return str(JAIL)


@dataclass
class Limits:
    timeout: float = 3.0  # seconds of CPU time
    memory_mb: int = 1024  # address space of each of the two processes
    file_mb: int = 16  # the largest file that can be written


@dataclass
class Verdict:
    passed: bool
    result: str  # passed, timed out, or failed: and why
    seconds: float  # on the clock
    active: list  # which of PROTECTIONS held


def run(program, test, limits=Limits()) -> Verdict:
    """program: Python text. test: {"helpers", "code", "entry_points"}: helpers and code are run on the test's side, where
    the names of the entry points, and any name that nobody else defines, stand for those of the program."""
    start = time.perf_counter()
    folder = tempfile.mkdtemp(prefix="sandbox_")
    settings = {
        "folder": folder,
        "memory": limits.memory_mb << 20,
        "cpu_seconds": max(1, round(limits.timeout)),
        "file_size": limits.file_mb << 20,
    }
    blocks = [text.encode("utf-8", "replace") for text in (repr(settings), program, repr(test))]
    process = subprocess.Popen(
        [sys.executable, "-S", "-s", "-P", compiled_jail()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        start_new_session=True,
    )
    output, timed_out = b"", False
    try:
        message = b"".join(len(block).to_bytes(8) + block for block in blocks)
        output, _ = process.communicate(message, timeout=3 * limits.timeout + 1)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    try:
        return Verdict(**ast.literal_eval(output.decode()), seconds=seconds)
    except (ValueError, TypeError, SyntaxError):
        return Verdict(False, "timed out" if timed_out else "failed: the sandbox ended without a verdict", seconds, [])


def run_all(jobs, num_workers, limits=Limits()):
    """Yield (key, Verdict) of jobs, (key, program, test), in the order in which they end."""
    with ThreadPoolExecutor(num_workers) as pool:
        running = {pool.submit(run, program, test, limits): key for key, program, test in jobs}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)
