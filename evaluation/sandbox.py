"""Run a program that nobody has read, and its test: in a fresh interpreter, confined, and killed when it takes long.

evaluation/judge.py says why a program cannot cheat, evaluation/confine.py what confines it. This file is the outside:
it gives every program an interpreter, a process group and an empty folder of its own, and no environment variables of
ours. It kills what takes long on the clock too, since a program that sleeps takes no CPU time.
"""

import ast
import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from evaluation.judge import TIME_IS_UP

PROTECTIONS = {"rlimits", "landlock", "seccomp"}
# -S, -s, -P: neither site-packages nor the current folder is on the import path.
JUDGE = [sys.executable, "-S", "-s", "-P", "-c", "from evaluation.judge import main; main()"]
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


@dataclass
class Limits:
    """What a program may use. The limits hold for the judge and for the candidate, each by itself."""

    timeout: float = 3.0  # seconds of CPU time
    memory_mb: int = 1024  # address space
    file_mb: int = 16  # the largest file that can be written


@dataclass
class Verdict:
    """What came of a program."""

    passed: bool
    result: str  # passed, timed out, or failed: and why
    seconds: float  # on the clock
    active: list  # which of PROTECTIONS held


def run(program, test, limits=Limits()) -> Verdict:
    """The Verdict on a program, a text of Python. test: {"helpers", "code", "entry_points"}, the last being the names
    of functions and classes of the program. helpers and code are run apart from the program; see judge.judge."""
    start = time.perf_counter()
    folder = tempfile.mkdtemp(prefix="sandbox_")
    settings = {"folder": folder, "memory": limits.memory_mb << 20, "file_size": limits.file_mb << 20}
    settings |= {"timeout": limits.timeout, "cpu_seconds": math.ceil(limits.timeout)}
    message = b""
    for text in (repr(settings), program, repr(test)):
        block = text.encode("utf-8", "replace")
        message += len(block).to_bytes(8) + block
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        JUDGE, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=folder, env=ENVIRONMENT, start_new_session=True
    )
    output, timed_out = b"", False
    try:
        output, _ = process.communicate(message, timeout=3 * limits.timeout + 1)
        timed_out = -process.returncode in TIME_IS_UP  # the judge itself was ended: the test takes too long
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
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
