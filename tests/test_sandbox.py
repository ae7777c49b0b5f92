"""The sandbox: right programs pass, and no program gets a point, or does harm, in another way."""

import ast
import collections
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from configurator import UserError
from evaluation import sandbox, server
from evaluation.sandbox import Limits, NoVerdict, Verdict, run, run_all

FAST = Limits(timeout=1, memory_mb=512)
TEST = {
    "helpers": "SECRET = 41",
    "code": "def check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert candidate([]) == []\ncheck(f)",
    "entry_points": ["f"],
}


def verdict(program, test=TEST, limits=FAST):
    return run(program, test, limits)


def answer(setup, expression):
    """What an expression is inside the sandbox, after the statements of setup."""
    test = {"helpers": "", "code": "assert False, f()", "entry_points": ["f"]}
    result = run(f"{setup}\ndef f():\n    return {expression}", test, FAST).result
    return ast.literal_eval(result.removeprefix("failed: AssertionError: "))


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    return [i + 1 for i in x]",
        "f = lambda x: [i + 1 for i in x]",
        "print('noise' * 1000)\ndef f(x):\n    print(x)\n    return [i + 1 for i in x]",
        "import collections, math, random, re, dataclasses, typing\ndef f(x):\n    return [i + 1 for i in x]",
        "import threading\ndef f(x):\n    out = []\n"
        "    t = threading.Thread(target=lambda: out.extend(i + 1 for i in x))\n"
        "    t.start(); t.join()\n    return out",
        "def f(x):\n    open('scratch', 'w').write('x')\n    return [i + len(open('scratch').read()) for i in x]",
    ],
)
def test_right_programs_pass(program):
    assert verdict(program).result == "passed"


def test_wrong_programs_fail_with_their_reason():
    assert verdict("def f(x):\n    return x").result.startswith("failed: AssertionError")
    assert verdict("def f(x):\n    return y").result == "failed: NameError: name 'y' is not defined"
    assert "SyntaxError" in verdict("def f(x:").result
    assert not verdict("").passed


def test_nothing_of_the_environment_is_inherited(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    names = answer("import os", "sorted(os.environ)")
    assert not {"TOKEN", "HOME", "PYTHONPATH"} & set(names), names


@pytest.mark.parametrize("module", ["evaluation", "evaluation.judge", "evaluation.sandbox", "configurator", "judge"])
def test_nothing_of_the_repository_can_be_imported(module):
    result = verdict(f"import {module}").result
    assert result.startswith("failed: ModuleNotFoundError"), result


def test_nothing_of_the_repository_can_be_read():
    assert verdict(f"open({str(ROOT / 'configurator.py')!r})").result.startswith("failed: PermissionError")
    assert str(ROOT) not in answer("import sys", "sys.path")


def test_objects_that_cannot_be_copied_work_across_the_border():
    """A test may build the program's own classes (some of MBPP's do), pass them back, and walk over its iterators."""
    program = (
        "class Node:\n    number = 7\n    def __init__(self, value):\n        self.value, self.next = value, None\n"
        "def total(node):\n    return node.value + (total(node.next) if node.next else 0)\n"
        "def count_up(n):\n    yield from range(n)\n"
    )
    code = (
        "root = Node(1)\nroot.next = Node(2)\nassert total(root) == 3 and root.next.value == 2 and root.number == 7\n"
        "assert list(count_up(3)) == [0, 1, 2]\n"
        "try:\n    total(7)\nexcept AttributeError:\n    pass\nelse:\n    assert False"
    )
    assert verdict(program, {"helpers": "", "code": code, "entry_points": []}).result == "passed"


@pytest.mark.parametrize(
    "value",
    [
        "(1, 2)",
        "{1, 2}",
        "frozenset((1,))",
        "{(1, 'a'): [None]}",
        "1.5",
        "float('inf')",
        "1 + 2j",
        "b'\\xff'",
        "10**50",
        "'\\ud800'",
        "True",
    ],
)
def test_plain_values_cross_unchanged(value):
    test = {
        "helpers": "",
        "code": f"x = f({value})\nassert x == {value} and type(x) is type({value})",
        "entry_points": ["f"],
    }
    assert verdict("def f(x):\n    return x", test).result == "passed"


@pytest.mark.parametrize(
    "value", ["[1]", "(1,)", "{1}", "{1: 2}", "{1: 2}.keys()", "frozenset([1])", "range(3)", "'1'", "b'1'", "Own([1])"]
)
def test_in_is_answered_by_plain_data(value):
    item = {"'1'": "'1'", "b'1'": "b'1'"}.get(value, "1")
    test = {"helpers": "", "code": f"assert {item} in f() and {item * 2} not in f()", "entry_points": ["f"]}
    assert verdict(f"class Own(list): pass\ndef f(): return {value}", test).result == "passed"


@pytest.mark.parametrize("value", ["itertools.count()", "iter([1])", "Counting()", "Counting"])
def test_in_is_not_answered_by_the_program(value):
    program = "import itertools\nclass Meta(type):\n    def __iter__(self): return iter([1])\n"
    program += "class Counting(metaclass=Meta):\n    def __getitem__(self, i): return i\n"
    test = {"helpers": "", "code": "try: assert 1 in f()\nexcept BaseException: pass", "entry_points": ["f"]}
    assert "not plain data" in verdict(f"{program}def f(): return {value}", test).result


def test_memory_and_time_are_for_each_program_and_many_run_at_once():
    jobs = [
        (i, "def f(x):\n    return [i + 1 for i in x]" if i % 2 else "def f(x):\n    return 1", TEST, "sealed")
        for i in range(12)
    ]
    for num_workers in (1, 3):
        verdicts = dict(run_all(jobs, num_workers, FAST))
        assert [verdicts[i].passed for i in range(12)] == [bool(i % 2) for i in range(12)]
    assert threading.active_count() < 20


def test_a_failure_ends_the_programs_that_run_even_while_others_are_handed_out():
    def jobs():
        yield "endless", "while True: pass", TEST, "sealed"
        while not sandbox.busy:
            time.sleep(0.01)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        dict(run_all(jobs(), 1, Limits(timeout=60)))
    assert time.monotonic() - start < 30


# -- limits of time


def cpu_seconds(program, timeout, test=TEST):
    """(the verdict, the CPU seconds that judge and candidate took)."""
    with sandbox.a_server(()) as server:
        before = children_seconds(server.process.pid)
        result = server.run(program, test, Limits(timeout=timeout, memory_mb=512), "sealed")
        return result, children_seconds(server.process.pid) - before


def children_seconds(pid):
    """The CPU seconds of a process's children that have ended: fields 16 and 17 of /proc/<pid>/stat, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def busy(seconds):
    """A program that solves TEST after so much CPU time."""
    loop = f"import time\nwhile time.process_time() < {seconds}: pass\n"
    return loop + "def f(x):\n    return [i + 1 for i in x]"


def test_a_timeout_holds_to_a_fraction_of_a_second():
    result, seconds = cpu_seconds("while True: pass", timeout=0.3)
    assert result.result == "timed out" and 0.25 < seconds < 0.8  # in ticks of a hundredth, and what crosses is free
    assert verdict(busy(1.2), limits=Limits(timeout=1.4, memory_mb=512)).result == "passed"


def test_a_program_cannot_take_its_limit_of_time_back():
    """It can ignore the exact timer's signal; what then holds is the clock, and a limit in whole seconds."""
    ignore = (
        "import resource, signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "try: resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\nexcept (OSError, ValueError): pass\n"
    )
    result, seconds = cpu_seconds(ignore + "while True: pass", timeout=0.1)
    assert result.result == "timed out" and 0.2 < seconds < 3.2 and result.seconds < 4


def test_a_test_that_takes_too_long_is_timed_out_as_well():
    result, seconds = cpu_seconds("", timeout=0.3, test={"helpers": "", "code": "while True: pass", "entry_points": []})
    assert result.result == "timed out" and seconds < 0.8


# -- verdicts


def test_a_verdict_counts_only_with_the_secret(monkeypatch):
    forged = repr({"passed": True, "result": "passed", "protections": {}}).encode()
    for answer in (forged, bytes(16) + forged, b""):
        monkeypatch.setattr(sandbox, "exchange", lambda *_, answer=answer: answer)
        with pytest.raises(NoVerdict):
            verdict("def f(x):\n    return [i + 1 for i in x]")


def test_what_ended_without_a_verdict_is_tried_again_alone_and_then_stops_the_run(monkeypatch):
    """Else a machine that cannot fork scores 0 %, and the 0 % is kept."""
    calls = collections.Counter()

    def run(program, *_):
        calls[program] += 1
        if calls[program] <= failures:
            raise NoVerdict("status 256")
        return Verdict(True, "passed", 0.0)

    monkeypatch.setattr(sandbox, "run", run)
    jobs = [(key, key, TEST, "sealed") for key in "abc"]
    failures = 1
    assert {key for key, verdict in run_all(jobs, 2) if verdict.passed} == set("abc")
    failures, calls = 2, collections.Counter()
    with pytest.raises(UserError, match="twice without a verdict"):
        list(run_all(jobs, 2))


def test_a_program_that_waits_is_told_from_one_that_computes():
    """The one that computes and ignores the signal is in test_a_program_cannot_take_its_limit_of_time_back."""
    limits = Limits(timeout=0.1, memory_mb=512)
    assert verdict("import time\ntime.sleep(60)", limits=limits).result == "timed out on the clock"


def test_what_runs_out_of_the_clock_is_tried_again_alone(monkeypatch):
    """Many programs at once could have had the cores. What the second run comes to is its verdict."""
    calls = collections.Counter()

    def run(program, *_):
        calls[program] += 1
        results = {"late": "timed out on the clock", "once": "passed" if calls[program] > 1 else server.OUT_OF_CLOCK}
        result = results.get(program, "timed out")
        return Verdict(result == "passed", result, 0.0)

    monkeypatch.setattr(sandbox, "run", run)
    found = dict(run_all([(key, key, TEST, "sealed") for key in ("late", "once", "busy")], 2))
    results = {key: verdict.result for key, verdict in found.items()}
    assert results == {"late": "timed out on the clock", "once": "passed", "busy": "timed out"}
    assert calls == {"late": 2, "once": 2, "busy": 1}


def test_a_machine_that_cannot_confine_is_told_before_anything_runs():
    judge, mine = socket.socketpair()
    judge.sendall(sandbox.REFUSED + b"no Landlock here")
    judge.shutdown(socket.SHUT_WR)
    with pytest.raises(UserError, match="no Landlock here; --unconfined"):
        sandbox.exchange(mine, "", TEST, b"", clock_seconds=1)


# -- what a program leaves behind

NESTED = "import os\nfor i in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"
LEFT_BEHIND = {
    "nested folders": NESTED,
    "a folder without rights": "import os\nos.mkdir('d', 0o300)\nos.mkdir('d/e', 0)\nos.mkdir('f', 0)\n",
    "small files": "for i in range(5000): open(f'{i}', 'w').close()\n",
    "odd names": "for name in ('\\n', ' ', 'x' * 255, '\\udcff'): open(name, 'w').close()\n",
    "links in a circle": "import os\nos.symlink('a', 'b')\nos.symlink('b', 'a')\nos.symlink('/', 'root')\n",
    "a large file": "f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))\n",
    "large files": "for i in range(100): open(f'{i}', 'wb').write(bytes(10 << 20))\n",
}


def python_for_all():
    """A Python that every user can read: this one, if it does not lie in somebody's home, or the system's."""
    for path in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        folders = Path(path).parents
        if Path(path).exists() and all(folder.stat().st_mode & 0o001 for folder in folders):
            return path
    return None


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_a_folder_always_goes_and_costs_its_program_alone(kind, user):
    """As root, if the tests are, and as a user who is refused what has no rights."""
    if user == "nobody" and (os.getuid() or not python_for_all()):
        pytest.skip("only root becomes another user, who needs a Python that all can read")
    outer = Path(tempfile.mkdtemp())  # not tmp_path, which only its owner may enter
    outer.chmod(0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if user == "nobody":
                sandbox.SERVER[0] = python_for_all()
                os.setresuid(65534, 65534, 65534)
            tempfile.tempdir = str(outer)
            verdict(LEFT_BEHIND[kind] + "def f(x):\n    return [i + 1 for i in x]")
            second = verdict("def f(x):\n    return [i + 1 for i in x]")
            (folder,) = outer.glob("sandbox_*/folder")
            code = 0 if second.passed and not list(folder.iterdir()) else 2
            sandbox.close_all()
            code = code or (3 if list(outer.iterdir()) else 0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    outer.rmdir()


@pytest.mark.parametrize("seconds", [None, 0, 0.04, 0.08, 0.12])
def test_nothing_stays_when_the_evaluator_is_killed(seconds, tmp_path):
    """While a program sleeps, or so many seconds after it has been handed over: in between, its processes begin."""
    code = f"import tempfile; tempfile.tempdir = {str(tmp_path)!r}\nfrom evaluation import sandbox\nprint(flush=True)\n"
    program = "open('started', 'w').close()\nimport time\ntime.sleep(60)"
    code += f"sandbox.run({program!r}, {TEST!r}, sandbox.Limits(timeout=30))"
    evaluator = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    evaluator.stdout.readline()
    while seconds is None and not list(tmp_path.glob("sandbox_*/folder/started")):
        time.sleep(0.01)
    time.sleep(seconds or 0)
    evaluator.kill()
    evaluator.communicate()
    end = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not list(tmp_path.iterdir())
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            assert f"{tmp_path}/sandbox_" not in os.readlink(f"/proc/{process}/cwd")


def test_the_limit_of_threads_is_relative_to_what_runs(monkeypatch):
    """A user who runs 600 threads is no reason for 0 %: RLIMIT_NPROC counts them all."""
    before, leave = server.processes_of_user(), threading.Event()
    threads = [threading.Thread(target=leave.wait) for _ in range(600)]
    try:
        for thread in threads:
            thread.start()
        monkeypatch.setitem(server.counted, "until", 0.0)
        assert 550 < server.processes_of_user() - before
    finally:
        leave.set()


def test_the_sandbox_needs_no_package():
    """So that any user with Python can run it: its hostile programs are run as one who has no more."""
    command = [sys.executable, "-S", "-c", "import evaluation.sandbox"]  # without site-packages
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)
