"""Verdicts are those of a plain harness: on kinds of programs and tests, and on solutions with one thing changed.

All 314 mutants of our own solutions and 2,000 of HumanEval's, where the tests take 250 and 80:

    PYTHONPATH=. python tests/test_semantics.py
"""

import ast
import gzip
import json
import random

import pytest
from conftest import DATA
from warm import code_test, judge_all, kinds

OTHER = "its own class says what is equal or true, which may not decide a sealed test"
APART = "the test changes what is around the program, which is in another process"
GIVEN = """a list that is changed while the test calls
an iterator as an argument
a generator as an argument
other iterables as arguments
a function as an argument
functions and types of Python as arguments
a key function
a function that raises in the program
an exception of the test that passes through the program
an object of the test as an argument
a file of the test as an argument
a decorator of the program
a context manager of a class
a linked list of the test
functions that are composed
calls that are counted
threads of the program""".split("\n")
NAMELESS = "the test asks for an attribute of an object whose class it does not name, which could say what it likes"
# Kinds whose solution passes in a plain harness and fails when sealed: their problems are judged open.
OPEN = {
    "an iterated cache": NAMELESS,
    "a namedtuple": NAMELESS,
    "a class derived from str": NAMELESS,
    "a generator that is sent values": NAMELESS,
    "a function that has a name": NAMELESS,
    "a linked list of the program": NAMELESS,
    "the signature of a function": NAMELESS,
    "a pattern and a match": NAMELESS,
    "a coroutine": NAMELESS,
    "objects that are equal": OTHER,
    "objects in order": OTHER,
    "a class derived from list that is equal to more": OTHER,
    "the truth of an object": OTHER,
    "dataclasses that are equal": OTHER,
    "type hints": OTHER,
    "the fields of a dataclass": "dataclasses.asdict compares objects of the library by identity",
    "arithmetic of objects": OTHER,
    **dict.fromkeys(
        GIVEN, "the test gives functions or objects of its own to the program, which asks the test nothing"
    ),
    "a class that the test derives": "its objects would be in both processes",
    "a deep copy of an object of the program": "the copy would have to be made in the other process",
    "coroutines that are gathered": "the event loop is the test's",
    "what is printed": APART,
    "input that the test patches": APART,
    "input that unittest.mock patches": APART,
    "standard input that the test sets": APART,
    "an attribute of a module that the test patches": APART,
    "a function of the program that the test replaces": APART,
    "random numbers that the test seeds": APART,
    "an environment variable": APART,
}
# Kinds whose verdict is another one, and why.
DIFFERENT = {
    "a name that the test takes": "the test's names are not the program's, so that it cannot break the program",
}


def test_kinds_of_semantics():
    """Open as in a plain harness, always; sealed as well, but for kinds whose solutions would make them open."""
    found = kinds()
    modes = ("plain", "sealed", "open")
    jobs = [(mode, program, code_test(program, code), 3) for program, code in found.values() for mode in modes]
    results = judge_all(jobs)
    wrong = {}
    for number, name in enumerate(found):
        verdicts = results[number * len(modes) : (number + 1) * len(modes)]
        plain, sealed, opened = [verdict == "passed" for verdict in verdicts]
        as_expected = sealed != plain if name in DIFFERENT else sealed == plain
        if name in OPEN:
            as_expected = plain and not sealed
        if opened != plain or not as_expected:
            wrong[name] = verdicts
    assert wrong == {} and len(found) > 200
    assert OPEN.keys() | DIFFERENT.keys() <= found.keys()


# -- mutants

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult}
SWAPS |= {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
SWAPS |= {ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot}
COPIES = ("list", "sorted", "dict", "set", "tuple")  # without them an argument may be changed, or an iterator returned


def changed(node):
    """What may stand for a node of a syntax tree in mutants."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return [ast.Constant(node.value + 1), ast.Constant(str(node.value))]
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bool):
        return [ast.Constant(not node.value if isinstance(node.value, bool) else node.value + "x")]
    if isinstance(node, ast.Return) and node.value:
        return [ast.Return(ast.Constant(None)), ast.Return(ast.Tuple([node.value], ast.Load())), ast.Expr(node.value)]
    if isinstance(node, ast.Call) and len(node.args) == 1 and getattr(node.func, "id", "") in COPIES:
        return [node.args[0]]
    if isinstance(node, ast.ListComp):
        return [ast.GeneratorExp(node.elt, node.generators), ast.SetComp(node.elt, node.generators)]
    if isinstance(node, ast.If):
        return [ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)]
    if isinstance(node, ast.Expr | ast.AugAssign | ast.Raise):
        return [ast.Pass()]
    return [SWAPS[type(node)]()] if type(node) in SWAPS else []


class Change(ast.NodeTransformer):
    """Makes one of the changes that are possible in a tree, the one with this number."""

    def __init__(self, number):
        self.number = number

    def visit(self, node):
        """The node, or what stands for it."""
        choices = changed(node)
        if 0 <= self.number < len(choices):
            node = choices[self.number]
        elif self.number >= 0:
            self.number -= len(choices)
            return self.generic_visit(node)
        self.number = -1
        return node


def mutants(program):
    """The programs that differ from this one by one change."""
    found, number = [], 0
    while True:
        change = Change(number)
        tree = ast.fix_missing_locations(change.visit(ast.parse(program)))
        if change.number >= 0:
            return list(dict.fromkeys(found))
        found.append(ast.unparse(tree))
        number += 1


def humaneval():
    """[(program, test)] of HumanEval's solutions, where its file is there."""
    path = DATA / "humaneval/HumanEval.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [(r["prompt"] + r["canonical_solution"], f"{r['test']}\ncheck({r['entry_point']})") for r in records]


def modes(solutions):
    """How the problem of each solution is judged: sealed, or open where the solution itself fails when sealed."""
    results = judge_all(("sealed", program, code_test(program, code), 2) for program, code in solutions)
    return ["sealed" if result == "passed" else "open" for result in results]


def differences(solutions, most):
    """(number of mutants, number of those that fail, [(mutant, plain, other) of those whose verdicts differ]) for at
    most so many mutants of these solutions, drawn at random."""
    drawn = []
    for (program, code), mode in zip(solutions, modes(solutions)):
        drawn += [(mode, mutant, code_test(mutant, code), 0.3) for mutant in mutants(program)]
    random.Random(0).shuffle(drawn)
    del drawn[most:]
    plain = judge_all(("plain", *job) for _, *job in drawn)
    verdicts = list(zip(plain, judge_all(drawn)))
    for number, both in enumerate(verdicts):
        if set(both) == {"passed", "timed out"}:  # a slow mutant, on a slow machine: again, with more time
            mode, *job, _ = drawn[number]
            verdicts[number] = tuple(judge_all([("plain", *job, 5), (mode, *job, 5)]))
    num_failed = sum(verdict != "passed" for verdict, _ in verdicts)
    different = [(job[1], *both) for job, both in zip(drawn, verdicts) if both.count("passed") == 1]
    return len(drawn), num_failed, different


def test_mutants_of_solutions_get_the_verdict_of_a_plain_harness():
    solutions = list(kinds("solutions").values())
    assert len(solutions) >= 30 and modes(solutions).count("open") == 2, "those of OPEN"
    number, num_failed, different = differences(solutions, most=250)
    assert different == [] and number == 250 and num_failed > 0.9 * number


def test_mutants_of_the_benchmarks_solutions():
    if not humaneval():
        pytest.skip("needs the benchmark itself")
    number, num_failed, different = differences(humaneval(), most=80)
    assert different == [] and number == 80 and 0.7 * number < num_failed < number


if __name__ == "__main__":
    for name, solutions in (("solutions", list(kinds("solutions").values())), ("HumanEval", humaneval())):
        number, num_failed, different = differences(solutions, most=2000)
        print(f"{name}: {number} mutants, {num_failed} fail, {len(different)} verdicts differ")
        for mutant, plain, other in different:
            print(f"--- plain {plain}, here {other}\n{mutant}")
