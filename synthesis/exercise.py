"""A teacher's reply -> an exercise whose tests are known to mean something.

The teacher's word counts for nothing: its solution must pass its tests in the sandbox, and a function that does nothing
must fail them, as must most functions that are wrong in one place. What is left of an exercise is what execution has
shown (OpenCoder's rule, arXiv:2411.04905; the stub and the mutants are those of mutation testing).
"""

import ast
import itertools
import random
import re
from dataclasses import dataclass

from tqdm import tqdm

from evaluation import sandbox
from evaluation.formats import from_humaneval, parsed
from evaluation.mutants import is_docstring, mutants
from evaluation.replies import fenced_blocks
from evaluation.steps import names_bound
from evaluation.verdicts import modes
from tokenizer import fenced

HEADINGS = ("[Problem Description]", "[Solution]", "[Tests]")
# On a line of its own, as models write them: ### [Solution], **[Tests]**:
HEADING = re.compile("^[ #*_]*(" + "|".join(map(re.escape, HEADINGS)) + ")[ *_:]*$", re.MULTILINE)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|NotImplemented\w*|(?i:your code here))\b")
MOST_MUTANTS = 8  # of a solution that are tried, drawn at random
FEWEST_ASSERTS = 3
OF_TESTS = (ast.Assert, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)  # the statements that are kept of them
TAKEN = {"candidate", "check"}  # what HumanEval's tests call the function and themselves


class Unusable(Exception):
    """A reply holds no exercise; the message says why, in the words of a report."""


@dataclass
class Exercise:
    """What a reply holds."""

    task: str  # in words
    solution: str  # a module: imports, the function, and helpers of it
    tests: str  # assert statements, and what they need
    name: str  # of the function that the tests call

    def record(self, key):
        """The exercise as HumanEval has its problems, which eval_humaneval.py and prepare_data.py read."""
        prompt, solution = cut(self.solution, self.name)
        test = "def check(candidate):\n" + "".join(f"    {line}\n" for line in self.calls().splitlines())
        record = {"task_id": f"synthetic/{key}", "prompt": prompt, "canonical_solution": solution}
        return record | {"test": test, "entry_point": self.name, "description": self.task}

    def calls(self):
        """The tests with the function under the name that HumanEval's tests have for it."""
        tree = ast.parse(self.tests)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == self.name:
                node.id = "candidate"
        return ast.unparse(tree)

    def chat(self):
        """The exercise as a conversation."""
        answer = {"role": "assistant", "content": fenced(self.solution, "python")}
        return {"messages": [{"role": "user", "content": self.task}, answer]}

    def text(self):
        """All of it, as copies are looked for."""
        return f"{self.task}\n\n{self.solution}\n\n{self.tests}"


def exercise_in(reply):
    """The Exercise in a reply. Raises Unusable."""
    parts = HEADING.split(reply)
    if tuple(parts[1::2]) != HEADINGS:
        raise Unusable("headings missing or out of order")
    task, solution, tests = parts[2].strip(), *map(code_of, parts[4::2])
    if not task:
        raise Unusable("no description")
    if UNFINISHED.search(solution):
        raise Unusable("unfinished solution")
    functions = {node.name for node in tree_of(solution).body if isinstance(node, ast.FunctionDef)}
    if functions & TAKEN:
        raise Unusable("a function is called candidate or check")
    try:
        name, tests = read_tests(tests, functions)
    except RecursionError:
        raise Unusable("does not compile") from None
    return Exercise(task, solution.strip() + "\n", tests, name)


def read_tests(tests, functions):
    """(the function that the tests call most, the tests without what would hide one of these functions, such as the
    solution once more, and without repetitions)."""
    kept, asserts = {}, []
    for node in tree_of(tests).body:
        if isinstance(node, OF_TESTS) and not names_bound(node) & functions and ast.unparse(node) not in kept:
            kept[ast.unparse(node)] = node
            asserts += [node] if isinstance(node, ast.Assert) else []
    if len(asserts) < FEWEST_ASSERTS:
        raise Unusable("too few asserts")
    called = [node.id for node in ast.walk(ast.Module(asserts, [])) if isinstance(node, ast.Name)]
    names = [name for name in called if name in functions]
    if not names:
        raise Unusable("tests call no function of the solution")
    return max(sorted(set(names)), key=names.count), "\n".join(kept)


def code_of(part):
    """The one Python block of a part of a reply. Raises Unusable."""
    blocks = [code for label, code in fenced_blocks(part) if label.lower() in ("", "python", "py", "python3")]
    if len(blocks) != 1:
        raise Unusable("not one block of code per part")
    return blocks[0]


def tree_of(code):
    """The syntax tree of code. Raises Unusable."""
    if (tree := parsed(code)) is None:
        raise Unusable("does not compile")
    return tree


def function_of(code, name):
    """The node of a module's function."""
    return next(node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef) and node.name == name)


def cut(code, name):
    """(prompt, solution): a module up to its function's docstring, and the rest."""
    function = function_of(code, name)
    body = function.body
    first = body[1 if len(body) > 1 and is_docstring(body[0]) else 0]
    start = min([first.lineno, *(decorator.lineno for decorator in getattr(first, "decorator_list", ()))])
    if start <= function.lineno:  # def f(x): return x
        return cut(ast.unparse(ast.parse(code)) + "\n", name)
    lines = re.findall(r"[^\n]*\n|[^\n]+", code)  # splitlines() would cut at a form feed, which Python does not
    return "".join(lines[: start - 1]), "".join(lines[start - 1 :])


def stub(code, name):
    """The module with a function that does nothing in the place of its own."""
    tree = ast.parse(code)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(tree))


def judged(exercises, limits, num_workers, min_failing):
    """{key: why it is dropped, or None} of {key: Exercise}. min_failing: the share of a solution's mutants that its
    tests must tell apart. Raises UserError where programs cannot be confined."""
    problems, wrong, verdicts = {}, {}, dict.fromkeys(exercises, "solution fails its own tests")
    for key, exercise in exercises.items():
        try:
            # Shuffled: in their own order, the first would all be statements left out.
            others = itertools.islice(mutants(exercise.solution, random.Random(key)), MOST_MUTANTS)
            wrong[key] = [stub(exercise.solution, exercise.name), *others]
            problems[key] = from_humaneval(exercise.record(key))
        except (SyntaxError, ValueError, RecursionError):  # nested too deeply, say
            verdicts[key] = "does not compile"
    mode_of, broken = modes(problems, limits, num_workers)
    jobs = []
    for key in problems.keys() - set(broken):
        verdicts[key] = None
        jobs += [((key, n), program, problems[key].test, mode_of[key]) for n, program in enumerate(wrong[key])]
    failed = {key: {} for key in exercises}
    ended = sandbox.run_all(jobs, num_workers, limits)
    for (key, n), verdict in tqdm(ended, total=len(jobs), desc="wrong programs", unit="program"):
        failed[key][n] = not verdict.passed
    for key, found in failed.items():
        if verdicts[key] is None:
            of_mutants = [was for n, was in found.items() if n > 0]
            if not found[0]:
                verdicts[key] = "tests pass without a solution"
            elif sum(of_mutants) < min_failing * len(of_mutants):
                verdicts[key] = "tests miss errors"
    return verdicts
