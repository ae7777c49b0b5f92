"""The sandbox: right programs pass, and no program gets a point, or does harm, in another way."""

import ast
import errno
import os
import platform
import socket
import tempfile
import threading
import time

import pytest
from conftest import ROOT

from evaluation import confine
from evaluation.sandbox import Limits, run, run_all

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


# Those that return the right answer behind a forbidden act would pass if it were allowed. Signal 0 harms nobody.
HOSTILE = {
    "infinite loop": "def f(x):\n    while True: pass",
    "infinite loop at the top": "while True: pass",
    "sleep": "import time\ndef f(x):\n    time.sleep(100)",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "subprocess": ("import subprocess\ndef f(x):\n    return eval(subprocess.check_output(['echo', '[2, 3]']))"),
    "10 GB": "def f(x):\n    return [0] * 10**10",
    "10 GB slowly": "def f(x):\n    y = []\n    while True: y.append(' ' * 10**7)",
    "endless output": "def f(x):\n    while True: print('x' * 10**6)",
    "endless answer": "def f(x):\n    return 'x' * 10**8",
    "os._exit": "import os\nos._exit(0)",
    "os._exit when called": "import os\ndef f(x):\n    os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "def f(x):\n    raise SystemExit(0)",
    "always equal": (
        "class E(list):\n    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\ndef f(x):\n    return E()"
    ),
    "equal to anything": "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return E()",
    "a class in disguise": (
        "class E:\n    __class__ = list\n    def __eq__(self, other): return True\ndef f(x):\n    return E()"
    ),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = type('A', (), {})\nbuiltins.check = lambda f: None\ndef f(x): pass"
    ),
    "frames": (
        "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n"
        "        if 'SECRET' in g.f_globals: return [2, 3]\n        for c in g.f_code.co_consts:\n"
        "            if c == [2, 3] or c == (2, 3): return list(c)\n        g = g.f_back"
    ),
    "heap": (
        "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'SECRET' in o: return [2, 3]"
    ),
    "the judge's files": (
        "import os\ndef f(x):\n    for fd in range(3, 60):\n        try:\n"
        "            data = os.read(fd, 4096)\n            if b'[2, 3]' in data: return [2, 3]\n"
        "        except OSError: pass"
    ),
    "the judge's memory": (
        "import os\ndef f(x):\n    for fd in os.listdir(f'/proc/{os.getppid()}/fd'): pass\n"
        "    m = open(f'/proc/{os.getppid()}/mem', 'rb')\n    return [i + 1 for i in x]"
    ),
    "a forged verdict": (
        "import os\nfor fd in range(0, 60):\n"
        '    try: os.write(fd, b\'{"passed": true, "result": "passed", "active": []}\')\n'
        "    except OSError: pass\nos._exit(0)"
    ),
    "killing": "import os\ndef f(x):\n    os.kill(os.getppid(), 0)\n    return [i + 1 for i in x]",
    "killing all": "import os\ndef f(x):\n    os.kill(-1, 0)\n    return [i + 1 for i in x]",
    "network": (
        "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', PORT), 1)\n    return [i + 1 for i in x]"
    ),
    "writing elsewhere": "def f(x):\n    open('OUTSIDE', 'w').write('x')\n    return [i + 1 for i in x]",
    "reading elsewhere": "def f(x):\n    open('OUTSIDE').read()\n    return [i + 1 for i in x]",
    "deleting its folder": (
        "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chdir('/')\ndef f(x): pass"
    ),
    "deleting elsewhere": "import os\ndef f(x):\n    os.remove('OUTSIDE')\n    return [i + 1 for i in x]",
    "taking rights away": "import os\ndef f(x):\n    os.chmod('OUTSIDE', 0)\n    return [i + 1 for i in x]",
    "exec": "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "a new session": "import os\ndef f(x):\n    os.setsid()\n    return [i + 1 for i in x]",
    "deep recursion": "def f(x):\n    return f(x)",
    "crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "huge number": "def f(x):\n    return 10 ** 10 ** 8",
}


@pytest.fixture(scope="module")
def confined():
    """Skips where the kernel offers less than this sandbox can use: Linux from 5.13 on, with Landlock and seccomp."""
    active = set(verdict("").active) if platform.system() == "Linux" else set()
    if missing := {"landlock", "seccomp"} - active:
        pytest.skip(f"this system offers no {' and '.join(missing)}")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_score_nothing_and_do_no_harm(name, tmp_path, confined, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    with socket.create_server(("127.0.0.1", 0)) as server:  # somebody listens: only the sandbox forbids to connect
        program = HOSTILE[name].replace("OUTSIDE", str(outside)).replace("PORT", str(server.getsockname()[1]))
        start = time.time()
        assert not verdict(program).passed
    assert time.time() - start < 8 and outside.read_text() == "precious" and outside.stat().st_mode & 0o200
    assert not list(folders.iterdir()), "a sandbox leaves no folder behind"


def test_nothing_of_the_environment_is_inherited(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    names = answer("import os", "sorted(os.environ)")
    assert not {"TOKEN", "HOME", "PYTHONPATH"} & set(names), names


@pytest.mark.parametrize("module", ["evaluation", "evaluation.judge", "evaluation.sandbox", "configurator", "judge"])
def test_nothing_of_the_repository_can_be_imported(module):
    result = verdict(f"import {module}").result
    assert result.startswith("failed: ModuleNotFoundError"), result


def test_nothing_of_the_repository_can_be_read(confined):
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


def test_memory_and_time_are_for_each_program_and_many_run_at_once():
    jobs = [
        (i, "def f(x):\n    return [i + 1 for i in x]" if i % 2 else "def f(x):\n    return 1", TEST) for i in range(12)
    ]
    for num_workers in (1, 3):
        verdicts = dict(run_all(jobs, num_workers, FAST))
        assert [verdicts[i].passed for i in range(12)] == [bool(i % 2) for i in range(12)]
    assert threading.active_count() < 20


# -- limits of time


def cpu_seconds(program, timeout, test=TEST):
    """(the verdict, the CPU seconds that the judge took, and the candidate if it has ended by itself)."""
    before = os.times()
    result = verdict(program, test, Limits(timeout=timeout, memory_mb=512))
    after = os.times()
    taken = after.children_user + after.children_system - before.children_user - before.children_system
    return result, taken


def busy(seconds):
    """A program that solves TEST after so much CPU time."""
    loop = f"import time\nwhile time.process_time() < {seconds}: pass\n"
    return loop + "def f(x):\n    return [i + 1 for i in x]"


def test_a_timeout_holds_to_a_fraction_of_a_second():
    result, seconds = cpu_seconds("while True: pass", timeout=0.3)
    assert result.result == "timed out" and 0.29 < seconds < 0.8  # differences of clocks are rounded
    assert verdict(busy(1.2), limits=Limits(timeout=1.4, memory_mb=512)).result == "passed"


def test_a_program_cannot_take_its_limit_of_time_back():
    """It can stop the exact timer; what then holds is the limit in whole seconds, rounded up."""
    stop_timer = (
        "import resource, signal\nsignal.setitimer(signal.ITIMER_PROF, 0)\n"
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "try: resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\nexcept (OSError, ValueError): pass\n"
    )
    result, seconds = cpu_seconds(stop_timer + "while True: pass", timeout=0.3)
    assert result.result == "timed out" and 0.4 < seconds < 1.5  # 0.3 is stopped, 1 holds; less only on a busy machine


def test_a_test_that_takes_too_long_is_timed_out_as_well():
    result, seconds = cpu_seconds("", timeout=0.3, test={"helpers": "", "code": "while True: pass", "entry_points": []})
    assert result.result == "timed out" and seconds < 0.8


# -- the filter of system calls

# Read off the kernel's tables once more: what must not be called, by number.
FORBIDDEN = {
    "x86_64": [
        *(
            29,
            41,
            42,
            43,
            44,
            49,
            50,
            53,
            57,
            58,
            59,
            62,
            64,
            68,
            90,
            91,
            92,
            93,
            94,
            101,
            109,
            112,
            129,
            132,
            133,
            141,
        ),
        *(155, 160, 161, 164, 165, 166, 169, 170, 171, 175, 176, 188, 189, 190, 200, 203, 227, 234, 235, 248, 249, 250),
        *(259, 260, 261, 268, 272, 280, 297, 298, 302, 308, 310, 311, 313, 321, 322, 424, 425, 434, 438, 452),
    ],
    "aarch64": [
        *(5, 6, 7, 33, 39, 40, 41, 51, 52, 53, 54, 55, 88, 97, 105, 106, 112, 117, 122, 129, 130, 131, 138, 140, 142),
        *(154, 157, 161, 162, 164, 170, 186, 190, 194, 198, 199, 200, 201, 202, 203, 206, 217, 218, 219, 221, 240, 241),
        *(261, 268, 270, 271, 273, 280, 281, 424, 425, 434, 438, 452),
    ],
}
AUDIT_ARCH, CLONE, CLONE3 = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}, {"x86_64": 56, "aarch64": 220}, 435
THREAD_FLAGS, FORK_FLAGS = 0x3D0F00, 0x1200011  # what glibc's pthread_create and fork give to clone
ALLOWED, NOT_PERMITTED, NO_SUCH_CALL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def answer_of_the_filter(program, architecture, number, flags=0):
    """Run a program of classic BPF as the kernel does: its return value for one system call."""
    seccomp_data = {0: number, 4: architecture, 16: flags}
    register, line = None, 0
    while True:
        instruction, if_true, if_false, operand = program[line]
        line += 1
        if instruction == 0x06:  # return
            return operand
        if instruction == 0x20:  # load
            register = seccomp_data[operand]
        else:
            holds = {0x15: register == operand, 0x35: register >= operand, 0x45: bool(register & operand)}[instruction]
            line += if_true if holds else if_false


@pytest.mark.parametrize("processor", FORBIDDEN)
def test_the_filter_forbids_these_calls_and_no_other(processor):
    program, architecture, clone = confine.call_filter(processor), AUDIT_ARCH[processor], CLONE[processor]
    expected = dict.fromkeys(range(600), ALLOWED) | dict.fromkeys(FORBIDDEN[processor], NOT_PERMITTED)
    expected |= {CLONE3: NO_SUCH_CALL, clone: NOT_PERMITTED}
    for number, verdict in expected.items():
        assert answer_of_the_filter(program, architecture, number, FORK_FLAGS) == verdict, number
        assert answer_of_the_filter(program, architecture ^ 1, number, FORK_FLAGS) == NOT_PERMITTED
        assert answer_of_the_filter(program, architecture, number + 0x40000000) == NOT_PERMITTED, "x32"
    assert answer_of_the_filter(program, architecture, clone, THREAD_FLAGS) == ALLOWED


def test_every_forbidden_call_has_a_name_and_a_number():
    for column, processor in enumerate(confine.PROCESSORS):
        numbers = [numbers[column] for numbers in confine.FORBIDDEN.values() if numbers[column] is not None]
        assert sorted(numbers) == sorted(FORBIDDEN[processor])
    assert all(len(numbers) == 2 and numbers[0] is not None for numbers in confine.FORBIDDEN.values())
    assert confine.call_filter("riscv64") is None
