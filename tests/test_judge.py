"""The judge: what crosses between its processes, open and script problems, and what it says when something ends."""

import math
import random
import string
import subprocess
import sys
import time
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from conftest import ROOT
from warm import judge_one

from evaluation import scripts
from evaluation.transport import Border, Malformed

ADD_ONE = "def f(x):\n    return [i + 1 for i in x]"


class Data(Border):
    """A border that only data crosses."""

    def __init__(self, first_number=0):
        super().__init__(first_number)

    def named(self, thing):
        return None

    def describe(self, thing):
        raise TypeError(type(thing).__name__)


def sent(value):
    """A value as it comes out on the other side."""
    [received] = Data(1).decode(Data().encode(value))
    return received


def alike(a, b):
    """Whether two values are equal, in their types and order too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return alike(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, set | frozenset):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    return repr(a) == repr(b) if isinstance(a, float | complex) else a == b


def random_value(rng, depth=0):
    """Data of all kinds."""
    text = "".join(rng.choices(string.printable + "é中\U0001f600\ud800\0", k=rng.randrange(6)))
    zone = timezone(timedelta(hours=rng.randrange(-9, 9)))
    simple = [
        *(None, True, rng.randrange(-9, 9), rng.randrange(10**50), -(7**6000), rng.random(), rng.expovariate(1e-300)),
        *(math.inf, -math.inf, -0.0, 5e-324, text, text.encode("utf-8", "replace"), complex(-0.0, rng.random())),
        *(range(rng.randrange(9)), slice(1, None), Decimal(rng.randrange(99)) / 7, Fraction(rng.randrange(99), 7)),
        *(datetime(2024, 1, rng.randrange(1, 28), tzinfo=zone), timedelta(rng.random()), ..., frozenset(text)),
    ]
    if depth == 4 or rng.random() < 0.3:
        return rng.choice(simple)
    values = [random_value(rng, depth + 1) for _ in range(rng.randrange(5))]
    keys = rng.sample(simple, len(values))
    pairs = [(key, value) for key, value in zip(keys, values) if not isinstance(key, slice)]
    mapping = rng.choice(
        [dict, OrderedDict, lambda pairs: defaultdict(None, pairs), lambda pairs: Counter(dict(pairs))]
    )
    kinds = [
        list,
        tuple,
        lambda values: deque(values, 3),
        lambda _: set(text),
        lambda _: bytearray(text.encode("utf-7")),
    ]
    return rng.choice([*kinds, lambda _: mapping(pairs), lambda _: mapping(pairs)])(values)


def test_data_crosses_unchanged():
    rng = random.Random(0)
    for _ in range(500):
        value = random_value(rng)
        assert alike(sent(value), value), value


def test_shared_and_cyclic_lists_keep_their_shape():
    inner, ring = [], []
    ring.append((ring, {"self": ring}))
    a, b, c = sent([inner, inner, ring])
    assert a is b and c[0][0] is c and c[0][1]["self"] is c


@pytest.mark.parametrize(
    "make",
    [
        lambda n: list(range(n)),
        lambda n: [i * 1.1 for i in range(n)],
        lambda n: [f"s{i}" for i in range(n)],
        lambda n: [(i, i * 0.5, str(i), None)[i % 4] for i in range(n)],
        lambda n: 7 ** (n * 100 // 85),  # so many digits
    ],
    ids=["ints", "floats", "texts", "mixed", "digits"],
)
def test_a_million_items_cross_in_linear_time(make):
    """As fast as Python's own repr and eval of them at least, which the judge once had to beat by nothing."""
    small, large = make(10**5), make(10**6)
    seconds = []
    for value in (small, large):
        start = time.process_time()
        received = sent(value)
        seconds.append(time.process_time() - start)
        assert received == value
    assert seconds[1] < 40 * max(seconds[0], 1e-3)  # 10 times, if the machine were quiet
    if isinstance(small, list):
        start = time.process_time()
        eval(repr(small))
        assert seconds[1] / 10 < time.process_time() - start


def test_what_is_nested_too_deeply_is_said():
    value = ()
    for _ in range(200):
        value = (value,)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        Data().encode(value)
    data = Data()
    with pytest.raises(ValueError):
        data.encode([1], value)
    assert data.objects == {}, "the other side has not heard of the list"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b"\xff",
        b"[[[1],[]],[7]]",
        b"[[[[0]],[]],[]]",
        b'[[[["exec","1"]],[]],[]]',
        b'[[[["name","os","system"]],[]],[]]',
        b'[[[["int","zz"]],[]],[]]',
        b'[[[["list",1]],[]],[]]',
        b'[[[[0]],[[0,"set",null,[[1]]],[1,"list",null,[]]]],[]]',
        b'[[[[0]],[[0,"dict",null,[1,2,3]]]],[]]',
        b'[[[[0]],[[0,"object",[0]]]],[]]',
        b"[[[" + b"[" * 10**5,
        b'[[[["Decimal",[5]]],[]],[]]',
    ],
)
def test_a_message_that_was_not_written_by_the_other_side_is_refused(message):
    with pytest.raises(Malformed):
        Data().decode(message)


def test_changes_cross_with_the_next_message_and_what_nobody_holds_is_dropped():
    here, there = Data(0), Data(1)
    a, b = [1, [2]], {"k": {3}}
    copy_a, copy_b = there.decode(here.encode(a, b))
    copy_a[1].append(5)
    copy_a[0] = copy_b
    copy_b["k"].clear()
    assert here.decode(there.encode("done")) == ["done"]
    assert a == [b, [2, 5]] and a[0] is b and b == {"k": set()}
    b["new"] = a
    there.decode(here.encode())
    assert copy_b["new"] is copy_a


# -- what crosses between two processes


@pytest.mark.parametrize("program", ["return x", "x.reverse()\n    return x", "return list(x)"])
def test_large_lists_cross_in_a_program(program):
    code = "x = list(range(10**6))\ny = f(x)\nassert sorted(y) == list(range(10**6))"
    assert judge_one("sealed", f"def f(x):\n    {program}", code, timeout=4) == "passed"


def test_what_crosses_is_not_charged_to_the_program():
    program = (
        "import time\nstart = time.process_time()\ndef f(x): return x\ndef g(): return time.process_time() - start"
    )
    code = "x = list(range(10**5))\nfor i in range(40):\n    x.append(i)\n    f(x)\nassert g() > 0.3"
    assert judge_one("sealed", program, code, timeout=0.3) == "passed"


def test_an_answer_that_is_too_large_is_said_with_its_size():
    result = judge_one("sealed", "def f(): return 'x' * 10**8", "f()", timeout=4)
    assert result.startswith("failed: an answer of 1000000") and "at most 64000000" in result


def test_a_test_that_takes_too_long_is_timed_out():
    assert judge_one("sealed", ADD_ONE, "assert f([1]) == [2]\nwhile True: pass", timeout=0.3) == "timed out"


@pytest.mark.parametrize("mode", ["sealed", "open"])
def test_a_program_that_takes_too_long_is_timed_out(mode):
    swallow = "try: f()\nexcept BaseException: pass"
    assert judge_one(mode, "def f():\n    while True: pass", swallow, timeout=0.3) == "timed out"
    assert judge_one(mode, "while True: pass", "", timeout=0.3) == "timed out"


@pytest.mark.parametrize("end", ["import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"])
def test_no_test_swallows_the_end_of_a_program(end):
    program = f"def f():\n    {end}"
    for code in ("try: f()\nexcept {}: pass", "import contextlib\nwith contextlib.suppress({}): f()"):
        for what in ("Exception", "BaseException"):
            assert judge_one("sealed", program, code.format(what)).startswith("failed: the program")
            assert judge_one("open", program, code.format(what)).startswith("failed: the program")


def test_what_the_program_says_is_equal_or_true_decides_nothing_whatever_the_test_catches():
    program = (
        "class E(list):\n    def __eq__(self, other): return True\n    __ne__ = __lt__ = __contains__ = __eq__\n"
        "    def __bool__(self): return True\nclass F:\n    __eq__ = __bool__ = lambda *_: True\n    __hash__ = None\n"
        "def f(): return E()\ndef g(): return F()"
    )
    for test in ("f() == [1]", "f() != []", "f()", "1 in f()", "f() < []", "[1] in [f()]"):
        assert judge_one("sealed", program, f"assert {test}").startswith("failed: ")
    for test in ("g() == 1", "g()", "not g()", "[g()] == [1]", "1 in [g()]", "{g(): 1}"):
        result = judge_one("sealed", program, f"try: bool({test})\nexcept TypeError: pass")
        assert "not plain data" in result


def test_a_program_cannot_ask_the_judge_for_its_test():
    """A function of the test that the program is given leads to the test's globals, but for the judge."""
    code = "EXPECTED = 41\ndef g(): return 1\ndef h():\n    yield 1\nassert f(g, h()) == EXPECTED"
    for expression in ("g.__globals__['EXPECTED']", "h.gi_frame.f_globals['EXPECTED']", "g.__code__.co_consts[0]"):
        program = f"def f(g, h):\n    return {expression}"
        assert judge_one("sealed", program, code).startswith("failed: "), expression
        assert judge_one("open", "def f(g, h): return g.__globals__['EXPECTED']", code) == "passed"


# -- prompts, open problems and scripts


@pytest.mark.parametrize("mode", ["sealed", "open"])
@pytest.mark.parametrize("helpers", ["def f(x):\n", "import numpyy\n", "def f(x)", "def helper(:", "x = 'open\n"])
def test_a_prompt_need_not_be_a_program(mode, helpers):
    assert judge_one(mode, ADD_ONE, "assert f([1]) == [2]", helpers) == "passed"
    assert judge_one(mode, ADD_ONE, "assert f([1]) == [1]", helpers).startswith("failed: AssertionError")


@pytest.mark.parametrize("mode", ["sealed", "open"])
def test_a_test_may_use_helpers(mode):
    helpers = "class Node:\n    def __init__(self, v): self.v = v\ndef node(v): return Node(v)"
    code = "assert f(node(3)).v == 4 and type(f(node(3))) is Node"
    program = "def f(n):\n    n.v += 1\n    return n"
    assert mode == "sealed" or judge_one(mode, program, code, helpers) == "passed"
    assert judge_one(mode, f"{helpers}\n{program}", code, helpers) == "passed"


NODES = {
    "slots": "class Node:\n    __slots__ = 'v', 'next'\n    def __init__(self, v): self.v, self.next = v, None",
    "a dataclass with slots": "from dataclasses import dataclass\n@dataclass(slots=True, eq=False)\n"
    "class Node:\n    v: int\n    next: 'Node' = None",
    "generic": "from typing import Generic, TypeVar\nclass Node(Generic[TypeVar('T')]):\n"
    "    def __init__(self, v): self.v, self.next = v, None",
}


@pytest.mark.parametrize("name", NODES)
def test_a_program_may_write_its_own_class_of_the_helpers(name):
    helpers = "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next"
    program = f"{NODES[name]}\ndef f(n):\n    n.v += 1\n    m = Node(n.v)\n    m.next = n\n    return m"
    code = "n = Node(3)\nm = f(n)\nassert m.v == n.v == 4 and m.next is n and n.next is None and type(m) is Node"
    assert judge_one("sealed", program, code, helpers) == "passed"
    assert judge_one("sealed", program, code.replace("== 4", "== 3"), helpers).startswith("failed: AssertionError")


@pytest.mark.parametrize(
    "answer",
    [
        "SimpleNamespace(startswith=yes)",
        "SimpleNamespace(startswith=SimpleNamespace(startswith=Yes()).startswith)",
        "UserString(Yes())",
        "UserDict({}, startswith=yes)",
        "odd",
    ],
)
def test_what_is_copied_brings_no_functions(answer):
    """Or the program would decide what the test calls."""
    program = f"""from types import SimpleNamespace
from collections import UserDict, UserString
def yes(*_): return True
class Yes:
    __call__ = startswith = yes
odd = UserDict()
odd.startswith = yes
def f(): return {answer}"""
    assert judge_one("sealed", program, "assert f().startswith('a')").startswith("failed: ")


def test_an_open_verdict_is_signed():
    """A program cannot know the secret before it has ended: what it writes earlier is no verdict."""
    forged = (
        'import json, os\nfor fd in range(3, 20):\n    for text in (\'""\', \'["", ""]\', \'["0", ""]\'):\n'
        "        data = text.encode()\n        try: os.write(fd, len(data).to_bytes(8) + data)\n"
        "        except OSError: pass\nos._exit(0)"
    )
    result = judge_one("open", forged, "assert f() == 1")
    assert result in ("failed: a verdict that is not signed", "failed: the program ended itself")
    assert judge_one("open", "raise SystemExit(0)", "") == "failed: SystemExit: 0"
    assert judge_one("open", "def f(): return 1", "assert f() == 2, 'two'") == "failed: AssertionError: two"


SCRIPTS = {
    "input": "a, b = map(int, input().split())\nprint(a + b)",
    "sys.stdin": "import sys\na, b = [int(x) for x in sys.stdin.read().split()]\nsys.stdout.write(str(a + b))",
    "readline and a buffer": "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())), '  ')\nprint()",
    "open(0)": "import os\nos.write(1, str(sum(map(int, open(0).read().split()))).encode())",
    "main": "def main(): print(sum(map(int, input().split())))\nif __name__ == '__main__': main()",
    "exit": "print(sum(map(int, input().split())))\nexit(0)",
    "a float": "print(float(sum(map(int, input().split()))))",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(name):
    test = {"inputs": ["1 2\n", "20 5"], "outputs": ["3\n", "25\n"]}
    assert judge_one("script", SCRIPTS[name], test) == "passed"
    assert judge_one("script", SCRIPTS[name], test | {"outputs": ["3", "26"]}).startswith("failed: input 2: another")


@pytest.mark.parametrize(
    "program, result",
    [
        ("print(3)", "failed: input 2: another output is expected"),
        ("x = 1", "failed: input 1: another output is expected"),
        ("print(int(input().split()[5]))", "failed: input 1: IndexError: list index out of range"),
        ("print(", "failed: input 1: SyntaxError: "),
        ("while True: pass", "timed out"),
        ("import time\nprint(3 if not __import__('os').path.exists('a') else 25)\nopen('a', 'w')", "passed"),
        ("while True: print('x' * 10**6)", "failed: input 1: OSError: "),
        ("n = 3\nclass A: pass\nimport os\nos.kill(os.getppid(), 9)", "failed: input 1: PermissionError"),
    ],
)
def test_scripts_that_go_another_way(program, result):
    test = {"inputs": ["1 2\n", "20 5"], "outputs": ["3\n", "25\n"]}
    assert judge_one("script", program, test, timeout=0.5).startswith(result)


def test_a_script_never_sees_an_output_that_is_expected():
    search = (
        "import gc\ntext = repr([o for o in gc.get_objects() if isinstance(o, (str, list, dict))])\n"
        "word = 'QYZZYX'\nword = word[::-1]\nprint(word if word in text else 'not found')"
    )
    result = judge_one("script", search, {"inputs": ["1"], "outputs": ["XYZZYQ"]})
    assert result == "failed: input 1: another output is expected"


@pytest.mark.parametrize(
    "printed, expected, same",
    [
        ("1 2\n", "1 2", True),
        ("1 2  \n3\n\n", "1 2\n3", True),
        (" 1", "1", True),
        ("1\n2", "1 2", True),
        ("0.3333333", "0.33333333333", True),
        ("0.3333", "0.33333333333", False),
        ("1e9", "1000000000.0", True),
        ("1000000000.5", "1000000000.0", True),
        ("1000000001", "1000000000", False),
        ("3.0", "3", True),
        (str(2**60 + 1), str(2**60), False),
        ("1e99999999999999999999", "3", False),
        ("3.0000001", "3", False),
        ("inf", "1.5", False),
        ("nan", "nan", True),
        ("1_0", "10", False),
        ("YES", "yes", False),
        ("1 2", "1 2 3", False),
        ("", "", True),
        ("9" * 5000, "9" * 4999 + "8", False),
    ],
)
def test_outputs_are_compared_as_contests_do(printed, expected, same):
    assert scripts.same_output(printed, expected) is same


def test_no_module_that_takes_long_is_imported_for_the_judge():
    code = "import sys; import evaluation.judge; print(*sys.modules)"
    command = [sys.executable, "-S", "-s", "-c", code]
    loaded = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert not {"decimal", "fractions", "datetime", "uuid", "typing", "ast", "signal"} & set(loaded.stdout.split())


@pytest.mark.parametrize("mode", ["sealed", "open"])
def test_what_a_program_replaces_in_the_library_is_its_own(mode):
    program = "import json\njson.dumps = json.loads = None\ndef f(): return 1"
    assert judge_one(mode, program, "assert f() == 1") == "passed"
