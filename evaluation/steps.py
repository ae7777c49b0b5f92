"""How far programs get that do not pass: what pass@1 does not show while it is near 0."""

import ast
import re
from dataclasses import replace

from evaluation.formats import parsed
from evaluation.verdicts import run_samples

HOW_FAR = ("parses", "defines its function", "answers a test", "right type", "passes a test", "passes all")
# What stands for `assert CONDITION` while one of many tests is enough. {left} == {right} is the condition, if it is of
# that form; else {right} is True.
WEAKER = {
    "passes a test": "assert {condition}",
    "right type": "assert type({left}) == type({right}) or {condition}",
    "answers a test": "{left}",
}
# A test ends at the first assertion that is fulfilled: a program that hangs in a later one has got this far.
FRAME = """
class Reached(BaseException):
    pass
try:
    pass
except Reached:
    pass
else:
    assert False
"""
# Tests that this project writes for benchmarks which ship data or a class: their assertions are not the benchmark's.
NOT_ASSERTIONS = re.compile(r"^def check_(?:suite|evalplus|apps_calls|livecodebench_calls)\b", re.M)


def how_far(problems, mode_of, results, out, limits, num_workers):
    """{a step of HOW_FAR: the share of the programs that reach it, or a later one}. Only those count whose test is made
    of assert statements; "n" is their number. results: what run_samples() returned. out: a folder for the verdicts of
    the weaker tests, so that no program is run twice."""
    reached, asked, weaker, modes = {}, [], {}, {}
    for number, record in enumerate(results):
        problem, mode = problems[record["task_id"]], mode_of[record["task_id"]]
        tests = weaker_tests(problem.test)
        if not tests:
            continue
        reached[number] = len(HOW_FAR)
        if not record["passed"]:
            reached[number] = first_steps(problem.program(record["completion"]), problem.test)
        for step, test in tests.items() if reached[number] == 2 else ():
            task_id = f"{record['task_id']}, {step}"
            weaker[task_id], modes[task_id] = replace(problem, test=test), mode
            asked.append({"task_id": task_id, "completion": record["completion"], "number": number, "step": step})
    for record in run_samples(weaker, modes, asked, out, limits, num_workers):
        if record["passed"]:
            reached[record["number"]] = max(reached[record["number"]], HOW_FAR.index(record["step"]) + 1)
    if not reached:
        return {}
    shares = {}
    for number, step in enumerate(HOW_FAR, 1):
        shares[step] = sum(n_steps >= number for n_steps in reached.values()) / len(reached)
    return shares | {"n": len(reached)}


def first_steps(program, test):
    """How many of the first two steps a program reaches, told by its text: whether it defines the names that the test
    uses."""
    tree, bound = parsed(program), set()
    if tree is None:
        return 0
    for statement in tree.body:
        bound |= names_bound(statement)
    names = [name for name in test["entry_points"] if re.search(rf"\b{name}\b", test["code"])]
    return 2 if bound.issuperset(names) else 1


def names_bound(statement):
    """The names that a statement of a module gives a value."""
    names = {getattr(statement, "name", "")} | {getattr(node, "id", "") for node in getattr(statement, "targets", ())}
    return names | {alias.asname or alias.name for alias in getattr(statement, "names", ()) if hasattr(alias, "name")}


def weaker_tests(test):
    """{step: a test that passes where one assertion of this test is fulfilled in that sense}; {} where the test has no
    assert statements that a program could fulfil one by one."""
    code = test.get("code", "")
    if "assert " not in code or NOT_ASSERTIONS.search(code):
        return {}
    try:
        return {step: test | {"code": weakened(code, form)} for step, form in WEAKER.items()}
    except (SyntaxError, ValueError, RecursionError):
        return {}


def weakened(code, form):
    """The code of a test with another form of its assertions, which passes where one of them holds."""
    frame = ast.parse(FRAME)
    frame.body[1].body = Weaken(form).visit(ast.parse(code)).body
    return ast.unparse(ast.fix_missing_locations(frame))


class Weaken(ast.NodeTransformer):
    """Puts `try: FORM ... else: raise Reached` in the place of every assertion."""

    def __init__(self, form):
        self.form = form

    def visit_Assert(self, node):
        """The statement that stands for an assertion."""
        if not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node.test)):
            return ast.Pass()  # HumanEval has `assert True`, which no program has to do anything for
        condition, left, right = ast.unparse(node.test), ast.unparse(node.test), "True"
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1 and isinstance(node.test.ops[0], ast.Eq):
            left, right = ast.unparse(node.test.left), ast.unparse(node.test.comparators[0])
        form = self.form.format(condition=f"({condition})", left=f"({left})", right=f"({right})")
        return ast.parse(f"try:\n    {form}\nexcept Exception:\n    pass\nelse:\n    raise Reached").body[0]


def single_tests(test):
    """The test once for each of its assertions, without the others; none where it has no assert statements."""
    code = test.get("code", "")
    if NOT_ASSERTIONS.search(code):
        return []
    n_assertions = sum(isinstance(node, ast.Assert) for node in ast.walk(parsed(code) or ast.Module([], [])))
    return [{**test, "code": ast.unparse(KeepOne(n).visit(ast.parse(code)))} for n in range(n_assertions)]


class KeepOne(ast.NodeTransformer):
    """Leaves the n-th assertion of a test alone, and puts `pass` in the place of the others."""

    def __init__(self, n):
        self.n, self.seen = n, -1

    def visit_Assert(self, node):
        """The statement that stands for an assertion."""
        self.seen += 1
        return node if self.seen == self.n else ast.Pass()
