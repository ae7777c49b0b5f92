"""How far programs get that do not pass: what pass@1 does not show while it is near 0."""

import ast

from evaluation import sandbox

HOW_FAR = ("parses", "defines its function", "answers a test", "right type", "passes a test", "passes all")
# What stands for `assert CONDITION` while one of many tests is enough. {left} == {right} is the condition, if it is of
# that form; else {right} is True.
WEAKER = {
    "passes a test": "assert {condition}",
    "right type": "assert type({left}) == type({right}) or {condition}",
    "answers a test": "{left}",
}


def how_far(problems, mode_of, results, limits, num_workers):
    """{a step of HOW_FAR: the share of the programs that reach it, or a later one}. Only those count whose test is made
    of assert statements; "n" is their number. results: what run_samples() returned."""
    reached, jobs = {}, []
    for number, record in enumerate(results):
        problem = problems[record["task_id"]]
        tests = weaker_tests(problem.test)
        if not tests:
            continue
        program = problem.program(record["completion"])
        reached[number] = len(HOW_FAR) if record["passed"] else first_steps(program, problem.test["entry_points"])
        if reached[number] == 2:
            for step, test in tests.items():
                jobs.append(((number, HOW_FAR.index(step) + 1), program, test, mode_of[record["task_id"]]))
    for (number, step), verdict in sandbox.run_all(jobs, num_workers, limits):
        if verdict.passed:
            reached[number] = max(reached[number], step)
    if not reached:
        return {}
    shares = {}
    for number, step in enumerate(HOW_FAR, 1):
        shares[step] = sum(n_steps >= number for n_steps in reached.values()) / len(reached)
    return shares | {"n": len(reached)}


def first_steps(program, names):
    """How many of the first two steps a program reaches, told by its text."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    bound = set()
    for node in tree.body:
        bound |= {getattr(node, "name", "")} | {getattr(target, "id", "") for target in getattr(node, "targets", ())}
    return 2 if bound.issuperset(names) else 1


def weaker_tests(test):
    """{step: a test that passes where one assertion of this test is fulfilled in that sense}; {} where the test has no
    assert statements that a program could fulfil one by one."""
    if "code" not in test or "assert " not in test["code"]:
        return {}
    return {step: test | {"code": weakened(test["code"], form)} for step, form in WEAKER.items()}


def weakened(code, form):
    """The code of a test with another form of its assertions, of which one must hold."""
    tree = Weaken(form).visit(ast.parse(code))
    return f"reached = []\n{ast.unparse(ast.fix_missing_locations(tree))}\nassert reached\n"


class Weaken(ast.NodeTransformer):
    """Puts `try: FORM; reached.append(1)` in the place of every assertion."""

    def __init__(self, form):
        self.form = form

    def visit_Assert(self, node):
        """The statement that stands for an assertion."""
        condition, left, right = ast.unparse(node.test), ast.unparse(node.test), "True"
        if isinstance(node.test, ast.Compare) and len(node.test.ops) == 1 and isinstance(node.test.ops[0], ast.Eq):
            left, right = ast.unparse(node.test.left), ast.unparse(node.test.comparators[0])
        form = self.form.format(condition=f"({condition})", left=f"({left})", right=f"({right})")
        return ast.parse(f"try:\n    {form}\n    reached.append(1)\nexcept Exception:\n    pass").body[0]
