"""Benchmarks as they are shipped: a record of any of them -> a Problem, which is asked and judged like all others.

A record is recognised by its fields (SHAPES, below), and decided by the test of its own benchmark.
"""

import ast
import base64
import binascii
import builtins
import pickletools
import re
import sys
import warnings
import zlib
from dataclasses import dataclass

from configurator import UserError
from corpus.records import DECODER
from evaluation import checks
from evaluation.replies import behind_def, with_def
from tokenizer import complete_request, fenced

# Where a base model's completion is cut off: the lists of bigcode-evaluation-harness (its tasks humaneval, mbpp, apps),
# EvalPlus, BigCodeBench and LiveCodeBench.
HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
MBPP_STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
BIGCODEBENCH_STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(", "\n```")
PROGRAM_STOP = ("\nQUESTION", "\nANSWER", "\n---", "\n###", "\n```", "<file_sep>")
CLASS_STOP = ("\nassert", '\n"""', "\nprint", "\nif", "\n```", "<file_sep>")
REQUESTED = "requested"  # what a test calls a function whose name the request leaves open
# What the harnesses of APPS and LiveCodeBench let programs use unasked; builtins comes last, since math has a pow too.
STARS = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io json"
IMPORTS = "".join(f"from {name} import *\n" for name in f"{STARS} typing builtins".split())
IMPORTS += f"import {', '.join(f'{STARS} sys time'.split())}\nsys.setrecursionlimit(50_000)\n"


class Untested(Exception):
    """The record of a problem has no tests, as a few of APPS."""


@dataclass
class Problem:
    """One task of a benchmark."""

    task_id: str
    prompt: str  # what a base model continues
    stop: tuple[str, ...]  # a base model's completion ends before the first of these
    request: str  # what a chat model is asked; "" for a gap, which no chat has a form for
    test: dict  # for evaluation/sandbox.py
    solution: str  # the benchmark's own, as a completion; "" where it ships none
    family: str = ""  # the group in which the problem is scored as well, where the file names groups
    start: str | None = None  # of the program, in front of a completion; None = the prompt
    suffix: str = ""  # of the program, behind a completion, which then fills the gap between prompt and suffix
    packages: tuple[str, ...] = ()  # what the test or the solution imports that is not of the standard library

    @property
    def is_request(self):
        """Whether the prompt ends in the def of the function that is asked for, which may have any name."""
        return REQUESTED in self.test.get("entry_points", ())

    def asked(self, chat):
        """What a model is given: the request of a chat, or the beginning of a program. There is no white space around
        it: "\\n    " is one token to the model, which the end of a prompt must not cut. (A gap may begin anywhere.)"""
        if chat and not self.request:
            raise UserError(f"{self.task_id} is a gap to fill, which a chat has no form for: give --chat=False")
        if chat:
            return self.request
        return self.prompt if self.suffix else self.prompt.strip()

    def program(self, completion):
        """The text that is run. A completion may define its function anew, as replies in a chat do. Behind a prompt
        that ends in "def f(x):" it would not compile, so that f gets a body there, as in BigCodeBench's harness; nor
        would its imports from __future__ behind a prompt, which are moved to the front."""
        if self.is_request:
            completion = with_def(completion)
            defined = re.findall(r"^def +(\w+)", completion, re.M)
            return completion + (f"\n\n{REQUESTED} = {defined[-1]}\n" if defined else "")
        start = self.prompt if self.start is None else self.start
        names = "|".join(map(re.escape, self.test.get("entry_points", ())))
        is_whole = names and not self.suffix and re.search(rf"^(?:async def|def|class) (?:{names})\b", completion, re.M)
        if is_whole and not parsed(start) and parsed(f"{start}\n    pass\n"):
            start = f"{start}\n    pass\n"
        future = ""
        if "__future__" in completion and start.strip():
            future, completion = future_first(completion)
        return future + start + completion + self.suffix


def future_first(program):
    """(the imports from __future__ that a program begins with, the program with "pass" in their places)."""
    imports, tree = [], parsed(program)
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            imports.append(statement)
        elif not isinstance(statement, ast.Expr):  # a docstring may stand before them
            break
    if not imports:
        return "", program
    lines = program.encode().splitlines(keepends=True)  # the columns of a statement are bytes
    for statement in reversed(imports):
        before = lines[statement.lineno - 1][: statement.col_offset]
        behind = lines[statement.end_lineno - 1][statement.end_col_offset :]
        lines[statement.lineno - 1 : statement.end_lineno] = [before + b"pass" + behind]
    return "".join(f"{ast.unparse(statement)}\n" for statement in imports), b"".join(lines).decode()


def parsed(code):
    """The syntax tree of a text of a benchmark, or None where it is no Python as it stands."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\\d"
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def packages_of(*codes):
    """The sorted names of modules outside the standard library that texts of Python import."""
    names, nodes = set(), [tree for tree in map(parsed, codes) if tree]
    for node in nodes:  # statements, not the thousands of items of a test's lists
        inner = ast.iter_child_nodes(node)
        nodes += [child for child in inner if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)]
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return tuple(sorted(names - sys.stdlib_module_names))


def names_in(code):
    """The sorted names that a text of Python uses but does not bind itself, without those of Python."""
    names = {True: set(), False: set()}  # whether a name is read: those names
    for node in ast.walk(parsed(code) or ast.Module([], [])):
        if isinstance(node, ast.Name):
            names[isinstance(node.ctx, ast.Load)].add(node.id)
        elif isinstance(node, ast.arg):
            names[False].add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[False].add(node.name)
        elif isinstance(node, ast.alias):
            names[False].add((node.asname or node.name).split(".")[0])
    return sorted(names[True] - names[False] - set(dir(builtins)) - sys.stdlib_module_names)


def field(record, name, missing=None):
    """A field that is a text, "" if it is null. missing: the value if it is not there. Raises KeyError if it is not
    there all the same, TypeError for what is no text."""
    value = record[name] if missing is None else record.get(name, missing)
    if not isinstance(value, str | None):
        raise TypeError(f"{name} is no text")
    return value or ""


def id_of(record):
    """The name of a record's problem."""
    for name in ("task_id", "question_id", "problem_id", "id"):
        if record.get(name) is not None:
            return str(record[name])
    raise KeyError("task_id")


def mbpp_number(record):
    """The number of a problem of MBPP or MBPP+, 2 of "Mbpp/2"; None for other benchmarks."""
    is_mbpp = "test_list" in record or "base_input" in record and not id_of(record).startswith("HumanEval")
    return int(id_of(record).rpartition("/")[2]) if is_mbpp else None


def classes_in(code):
    """The classes that a text of Python defines: those of a reference solution have methods that a test may call."""
    return re.findall(r"^class\s+(\w+)", code, re.M)


def decided_by_code(prompt, solution, suffix, test, entry_point):
    """(test, packages) of a Problem: its test is a text that defines check(candidate) or classes of unittest.TestCase.
    entry_point: an expression, such as a function's name or Solution().add."""
    cases = re.findall(r"^class +(\w+)\([\w., ]*TestCase[\w., ]*\):", test, re.M)
    call = f"check({entry_point})"
    if cases:
        call = f"{checks.text_of(checks.check_suite)}\ncheck_suite({', '.join(cases)})"
    # The prompt is on the test's side too: some tests use a helper that is defined in it. Where it is no program by
    # itself, the reference solution completes it.
    program = prompt + solution + suffix
    helpers = next(filter(parsed, (program, prompt) if suffix else (prompt, program)), "")
    names = [node.id for node in ast.walk(ast.parse(entry_point)) if isinstance(node, ast.Name)]
    decided = {"helpers": helpers, "code": f"{test}\n{call}", "entry_points": names, "classes": classes_in(program)}
    return decided, packages_of(program, test)


# -- functions that are completed


def from_humaneval(record):
    """HumanEval, HumanEval+ as a data set of Hugging Face, and whatever has their shape. HumanEval infilling, if there
    is a suffix: the completion fills a gap, and ends where the model says so."""
    prompt, suffix = field(record, "prompt"), field(record, "suffix", "")
    solution = field(record, "canonical_solution", "")
    test, packages = decided_by_code(prompt, solution, suffix, field(record, "test"), field(record, "entry_point"))
    stop, request = (() if suffix else HUMANEVAL_STOP), ("" if suffix else complete_request(prompt))
    family = field(record, "family", "")
    return Problem(id_of(record), prompt, stop, request, test, solution, family, suffix=suffix, packages=packages)


def from_bigcodebench(record):
    """BigCodeBench: base models complete the function's text, chat models get the instruction."""
    prompt, solution = field(record, "complete_prompt"), field(record, "canonical_solution", "")
    test, packages = decided_by_code(prompt, solution, "", field(record, "test"), field(record, "entry_point"))
    request = field(record, "instruct_prompt")
    return Problem(id_of(record), prompt, BIGCODEBENCH_STOP, request, test, solution, packages=packages)


def from_leetcode(record):
    """LeetCodeDataset: the prompt is imports and helpers, the completion a class. A base model sees the question first,
    as a docstring. The question is in src in the first version."""
    start, solution = field(record, "prompt"), field(record, "completion")
    query = field(record, "query" if "query" in record else "src")
    test, packages = decided_by_code(start, solution, "", field(record, "test"), field(record, "entry_point"))
    prompt = f'"""\n{query}\n"""\n{start}'
    return Problem(id_of(record), prompt, CLASS_STOP, query, test, solution, start=start, packages=packages)


def from_request(record):
    """What a person asks in a chat, without the name of a function: the last one that the answer defines is tested. A
    base model sees the request as MBPP's questions are shown, and behind it the word that a function begins with: else
    it may go on with more sentences."""
    request, solution = field(record, "request"), behind_def(field(record, "canonical_solution", ""))
    code = f"{field(record, 'test')}\ncheck({REQUESTED})"
    test = {"helpers": "", "code": code, "entry_points": [REQUESTED], "classes": []}
    prompt, family = f'"""\n{request}\n"""\ndef', field(record, "family", "")
    return Problem(id_of(record), prompt, MBPP_STOP, request, test, solution, family, start="")


def from_mbpp(record):
    """MBPP, its sanitized half, and MBPP+ as a data set of Hugging Face, which has a test beside test_list: that one
    decides. A base model sees the question and the first of test_list, as in InCoder (arXiv:2204.05999) and
    bigcode-evaluation-harness."""
    question, tests = field(record, "text" if record.get("text") else "prompt"), record["test_list"]
    solution = field(record, "code", "")
    prompt = f'"""\n{question}\n{tests[0]}\n"""\n'
    request = f"{question}\nYour code should pass this test:\n{tests[0]}"
    code = "\n".join([*record.get("test_imports", []), record.get("test_setup_code", ""), *tests])
    if "test" in record:
        code = "\n".join([*record.get("test_imports", []), field(record, "test")])
    entry_points = re.findall(r"^(?:def|class)\s+(\w+)", solution, re.M) or names_in(code)
    test = {"helpers": "", "code": code, "entry_points": entry_points, "classes": classes_in(solution)}
    packages = packages_of(solution, code)
    return Problem(id_of(record), prompt, MBPP_STOP, request, test, solution, start="", packages=packages)


# -- EvalPlus' own files, which hold inputs: the answers are those of the reference solution


def from_evalplus(record):
    """HumanEval+ and MBPP+ as EvalPlus releases them."""
    prompt, solution, entry_point = map(field, [record] * 3, ("prompt", "canonical_solution", "entry_point"))
    number = mbpp_number(record)
    groups = [mbpp_inputs(number, record[name]) for name in ("base_input", "plus_input")]
    if not any(groups):
        raise Untested
    if number is None:
        stop, request = HUMANEVAL_STOP, complete_request(prompt)
    else:  # the prompt is a docstring, the question and a test
        stop, request = MBPP_STOP, prompt.strip().strip('"').strip()
    arguments = f"{prompt + solution!r}, {entry_point!r}, {groups!r}, {record['atol']!r}, {number is not None}"
    functions = checks.text_of(checks.check_evalplus, checks.evalplus_close, checks.evalplus_oracle)
    code = f"inf, nan = float('inf'), float('nan')\n{functions}\ncheck_evalplus({entry_point}, {arguments})"
    test = {"helpers": "", "code": code, "entry_points": [entry_point], "classes": classes_in(prompt + solution)}
    packages = packages_of(prompt + solution)
    return Problem(id_of(record), prompt, stop, request, test, solution, packages=packages)


def same(value):
    """An argument that JSON can hold."""
    return value


def tuples(items):
    """A list of tuples, of a list of lists."""
    return list(map(tuple, items))


def deep_tuple(value):
    """A tuple, of a list, and so on inside."""
    return tuple(map(deep_tuple, value)) if isinstance(value, list) else value


# What JSON has made lists and texts of in MBPP+ (evalplus/data/mbpp.py): numbers of problems -> what makes each
# argument what it was; the last one is for those that follow too.
MBPP_ARGUMENTS = {
    "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809": [tuple],
    "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780": [tuples],
    "75 413 444 753": [tuples, same],
    "106 750": [same, tuple],
    "115": [lambda items: [set(item) if isinstance(item, list) and item else {} for item in items]],
    "124": [float, complex],
    "250 307 405 446 617 720 763 808": [tuple, same],
    "252": [complex],
    "259 401 445": [lambda items: tuple(map(tuple, items))],
    "278": [lambda items: tuple(tuple(item) if isinstance(item, list) else item for item in items)],
    "580 615 791": [deep_tuple],
    "722": [lambda items: {key: tuple(item) for key, item in items.items()}, same],
}
MBPP_ARGUMENTS = {int(number): made for numbers, made in MBPP_ARGUMENTS.items() for number in numbers.split()}


def mbpp_inputs(number, inputs):
    """The lists of arguments of a problem, with the types that they had before they were JSON if it is of MBPP+."""
    made = MBPP_ARGUMENTS.get(number, [same])
    return [[made[min(i, len(made) - 1)](value) for i, value in enumerate(arguments)] for arguments in inputs]


# -- programs that read standard input, and functions that are named in the data


def asked_for_program(question, starter, reads_input):
    """(prompt, request) for a program that reads standard input, or for the function that starter code begins. The
    prompt is that of APPS' harness."""
    how = "Use Standard Input format" if reads_input else "Use Call-Based format"
    wanted = "reads standard input and prints the answer" if reads_input else "defines what is asked for"
    request = f"{question}\n\nWrite a Python program that {wanted}."
    if starter:
        request += f" Begin with this code:\n{fenced(starter, 'python')}"
    return f"\nQUESTION:\n{question}\n{starter}\n{how}\nANSWER:\n", request


def as_text(value):
    """The text of an input or output that may be a list of lines."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def from_apps(record):
    """APPS: a program that reads standard input, or the function fn_name, in a class Solution or not."""
    content, solutions = field(record, "input_output"), field(record, "solutions", "")
    data, solution = DECODER.decode(content or "{}"), next(iter(DECODER.decode(solutions or "[]")), "")
    if data == {} or not data["inputs"]:
        raise Untested
    if len(data["inputs"]) != len(data["outputs"]):
        raise ValueError("there are not as many outputs as inputs")
    if name := field(data, "fn_name", ""):
        code = f"try:\n    function = Solution().{name}\nexcept NameError:\n    function = {name}\n"
        code += f"{checks.text_of(checks.check_apps_calls)}\ncheck_apps_calls(function, {content!r})"
        test = {"helpers": "", "code": code, "entry_points": ["Solution", name], "classes": ["Solution"]}
    else:
        test = {side: [*map(as_text, data[side])] for side in ("inputs", "outputs")}
    prompt, request = asked_for_program(field(record, "question"), field(record, "starter_code", ""), not name)
    packages = packages_of(solution)
    return Problem(id_of(record), prompt, PROGRAM_STOP, request, test, solution, start=IMPORTS, packages=packages)


def from_livecodebench(record):
    """LiveCodeBench: public and private tests, of a program or of a method of Solution. It ships no solutions."""
    cases = [*DECODER.decode(field(record, "public_test_cases")), *private_tests(field(record, "private_test_cases"))]
    if not cases:
        raise Untested
    starter = field(record, "starter_code")
    test = {side + "s": [field(case, side) for case in cases] for side in ("input", "output")}
    if any(case["testtype"] == "functional" for case in cases):
        pairs = list(zip(test["inputs"], test["outputs"]))
        function = f"Solution().{DECODER.decode(field(record, 'metadata'))['func_name']}"
        code = f"{checks.text_of(checks.check_livecodebench_calls)}\ncheck_livecodebench_calls({function}, {pairs!r})"
        test = {"helpers": "", "code": code, "entry_points": ["Solution"], "classes": ["Solution"]}
    prompt, request = asked_for_program(field(record, "question_content"), starter, "inputs" in test)
    return Problem(id_of(record), prompt, PROGRAM_STOP, request, test, "", start=IMPORTS)


def private_tests(content):
    """The test cases in a text of JSON, or in one that was pickled, compressed and written as base64. A pickle can run
    any program when it is loaded: its parts are listed here, and it is taken only if it is a single text."""
    if content.lstrip()[:1] in ("[", ""):
        return DECODER.decode(content or "[]")
    try:
        parts = list(pickletools.genops(zlib.decompress(base64.b64decode(content))))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"private_test_cases are neither JSON nor compressed: {error}") from None
    values = [value for part, value, _ in parts if part.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")]
    others = {part.name for part, _, _ in parts} - {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "STOP"}
    if len(values) != 1 or not all("BINUNICODE" in name for name in others):
        raise ValueError("private_test_cases are a pickle of more than a text, which is not loaded")
    return DECODER.decode(values[0])


# The fields that tell a shape -> what reads it; the first whose fields a record all has.
SHAPES = {
    ("base_input", "plus_input", "canonical_solution"): from_evalplus,
    ("complete_prompt", "instruct_prompt", "test"): from_bigcodebench,
    ("question_content", "public_test_cases", "private_test_cases"): from_livecodebench,
    ("question", "input_output"): from_apps,
    ("prompt", "completion", "entry_point", "test"): from_leetcode,
    ("test_list",): from_mbpp,
    ("request", "test"): from_request,
    ("prompt", "entry_point", "test"): from_humaneval,
}


def problem_of(record):
    """The Problem of a record. Raises Untested for one without tests, ValueError for a record of no known shape, and
    LookupError, TypeError, ValueError, AttributeError, SyntaxError or RecursionError for odd values of fields."""
    for fields, function in SHAPES.items():
        if record.keys() >= set(fields):
            return function(record)
    raise ValueError(f"no benchmark has records of {', '.join(record)[:200] or 'no fields'}")
