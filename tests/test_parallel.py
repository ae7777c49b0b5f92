"""Worker processes: Ctrl-C, a death, and a program without a guard end in one line, and nothing hangs."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT, assert_one_line_error

from configurator import UserError
from corpus import parallel

PROGRAM = """
import multiprocessing, os, signal, sys, time
from multiprocessing.connection import Connection

from configurator import UserError
from corpus.parallel import mapped

def start():
    print("worker", os.getpid(), flush=True)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def send_half(pipe, message):
    os.write(pipe.fileno(), bytes(message)[:len(message) // 2])
    die()

def work(state, item):
    if item == "die":
        die()
    if item == "die within the result":
        Connection._send = send_half
    if item == "fail":
        raise ValueError("an item that fails")
    time.sleep(0.01)
    return item

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    print("begun", flush=True)
    try:
        print(len(list(mapped(work, sys.argv[2:] or range(10_000), 2, start))))
    except KeyboardInterrupt:
        print("stopped")
    except UserError as error:
        print("error:", error)
"""


# Ctrl-C at some hundred random moments of work that is handed out: each time all threads and processes must end.
INTERRUPTED = """
import multiprocessing, os, random, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from corpus.parallel import mapped, submitted

def work(state, item):
    return item

def in_processes():
    for _ in mapped(work, range(300), 2, int):
        pass

def in_threads():
    with ThreadPoolExecutor(8) as pool:
        try:
            for _, done in submitted(pool, time.sleep, [1e-5] * 200):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

use, times, longest = {"processes": (in_processes, 150, 0.04), "threads": (in_threads, 600, 0.005)}[sys.argv[1]]
random.seed(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
n_stopped = 0
for _ in range(times):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, longest))
        use()
        time.sleep(2 * longest)
    except KeyboardInterrupt:
        n_stopped += 1
    assert not multiprocessing.active_children()
assert n_stopped > 0.9 * times, n_stopped  # one that comes in a __del__ is lost
"""


@pytest.mark.parametrize("where", ["processes", "threads"])
def test_ctrl_c_never_leaves_a_thread_waiting(where):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", INTERRUPTED, where], env=environment, timeout=100, check=True)


def test_ctrl_c_reaches_what_a_thread_has_started():
    """A terminal sends it to every process; one that inherited a mask would never see it."""
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with ThreadPoolExecutor(1) as pool:
        for _, done in parallel.submitted(pool, subprocess.check_output, [[sys.executable, "-c", code]]):
            assert done.result() == b"False\n"


@pytest.fixture
def program_file(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def begin(program_file, *arguments):
    """The program in a process group of its own, with the pipe of its output."""
    return subprocess.Popen(
        [sys.executable, program_file, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("method, delay", [("fork", 0), ("fork", 0.05), ("spawn", 0.05), ("spawn", 0.3)])
def test_ctrl_c_prints_no_traceback_of_a_worker(program_file, method, delay):
    """A terminal sends it to every process, also to workers that are just being started."""
    process = begin(program_file, method)
    assert process.stdout.readline() == "begun\n"
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.endswith("stopped\n") and "Traceback" not in err, err


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("end", ["die", "die within the result"])
def test_a_worker_that_is_killed_is_one_line(program_file, method, end):
    """Also where it has written the first half of a result: nobody waits for the other."""
    process = begin(program_file, method, *"abcdefgh", end, *"abcdefgh")
    try:
        out, err = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "error: a worker process died" in out and "Traceback" not in err


def test_an_error_in_a_worker_is_the_callers_and_tells_where_it_arose(program_file):
    out, err = begin(program_file, "fork", *"abc", "fail", *"abc").communicate(timeout=60)
    assert "In a worker process" in err and 'raise ValueError("an item that fails")' in err
    assert err.rstrip().splitlines()[-1].endswith("ValueError: an item that fails")


def test_workers_end_when_their_parent_is_killed(program_file):
    process = begin(program_file, "fork")
    assert "worker" in "".join(process.stdout.readline() for _ in range(3))
    process.kill()
    process.communicate(timeout=60)  # the pipes close when the last process ends


def test_a_killed_worker_of_prepare_data_leaves_nothing_half_written(workdir, corpus, tmp_path):
    code = "import os, signal, prepare_data, cleaning.clean, configurator\n"
    code += "cleaning.clean.Cleaner.survey = lambda self, batch: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "prepare_data.__spec__ = None\nconfigurator.run(prepare_data.main, prepare_data.Settings)"
    arguments = [f"--sources={corpus}", f"--out_dir={tmp_path / 'x'}", "--tokenizer=data/tokenizer.json"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--num_workers=2"],
        cwd=workdir,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_one_line_error(result, "a worker process died")
    assert not list(tmp_path.glob("x/**/*.tmp"))


def test_no_room_for_processes_is_told_as_that(monkeypatch):
    """ "Too many open files" says nothing of processes by itself."""

    def no_room():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(multiprocessing, "Pipe", no_room)
    with pytest.raises(UserError, match="no room for a worker .*--num_workers=1 does without"):
        list(parallel.mapped(str, [1], 2, list))
