"""No pattern and no function that reads a document takes quadratic time, whatever the document holds."""

import ast
import contextlib
import importlib
import re
import time
from functools import partial

import pytest
from test_house import FILES, TEXTS

from cleaning import licences, pii, prose, rules
from cleaning.languages import COMMENTS_OF, UNKNOWN
from cleaning.view import CODE, PROSE, PYTHON, View, kind_of
from evaluation import replies

READERS = ("cleaning/", "corpus/", "exercises/", "evaluation/", "tokenizer.py", "pages.py")
CALLS = [f"re.{name}" for name in "search match fullmatch sub subn split findall finditer".split()]
# What is repeated: what a pattern begins with, goes on with or nearly ends with.
UNITS = r"""a A 1 . - _ = @ # / \ " ' ` < > ( [ { } : ; , * % ! 中 （ a. a@ a@b. .com @a.com. a- a= 1. 1: a: :: 1.1.1.1
a1 aA1 ACGT 0x 0x00, \x00 \u0000 \" \' ``` /* */ // <!-- --> <a <script sk- eyJ- hf_ AKIA -----BEGIN )f( token= QQ
<| <eoh> [[ {{ -{ {- (* # /// @lang""".split()
UNITS += ["\n", " ", "\t", "\r", " \n", "\u3000", '"""', "'''", "def f", "return ", "A ", "# \n", "(c) 2020 "]
UNITS += ["ACGT" * 15 + "\n", "ab1+" * 16 + "\n", "// copyright\n", "# /// script\n", "# Copyright 2020 X\n\n"]
PREFIXES = ["", '"', "def f(", "/*", "QQ", "```", "@", "x = '", "0x00,", "# "]


def found_in(pattern, text):
    """All matches of a pattern."""
    for _ in pattern.finditer(text):
        pass


def used(pattern, name, text):
    """The function of a module's pattern that the module calls: match where it calls nothing else."""
    calls = set(re.findall(rf"\b{name}\.([a-z]+)\b", text))
    return pattern.match if calls and calls <= {"match", "fullmatch"} else partial(found_in, pattern)


def patterns():
    """{pattern: what searches a text} of all patterns of the project: those that a module keeps, and those in a call."""
    found = {}
    for name in (name for name in FILES if name.startswith(READERS)):
        with contextlib.suppress(ImportError):  # of an optional package
            module = importlib.import_module(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
            for key, value in vars(module).items():
                if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                    found[value.pattern, value.flags] = used(value, key, TEXTS[name])
        for node in ast.walk(ast.parse(TEXTS[name])):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in CALLS
                and isinstance(node.args[0], ast.Constant)
            ):
                if isinstance(node.args[0].value, bytes):
                    continue
                options = " ".join(ast.unparse(part) for part in (*node.args[1:], *node.keywords))
                flags = sum(getattr(re, flag) for flag in set(re.findall(r"\bre\.([A-Z]+)", options)))
                pattern = re.compile(node.args[0].value, flags)
                is_match = node.func.attr.endswith("match")
                found[pattern.pattern, pattern.flags] = pattern.match if is_match else partial(found_in, pattern)
    for comments in {*COMMENTS_OF.values(), UNKNOWN}:
        for pattern in licences.comment_starts(comments):
            found[pattern.pattern, pattern.flags] = pattern.match
    return {f"{i}: {pattern[:50]}": search for i, ((pattern, _), search) in enumerate(sorted(found.items(), key=str))}


PATTERNS = patterns()


def seconds(function, text):
    """The processor's time that a function takes for a text."""
    start = time.thread_time()
    function(text)
    return time.thread_time() - start


def assert_linear(function, text, what, floor=0.004):
    """Twice the text takes at most 2.5 times as long. What takes less than floor seconds is doubled first."""
    while seconds(function, text) < floor and len(text) < 400_000:
        text *= 2
    ratios = []
    for _ in range(6):  # a busy machine may slow one of them down
        ratios.append(seconds(function, text * 2) / max(seconds(function, text), floor))
        if ratios[-1] <= 2.5:
            return
    raise AssertionError(f"{what}: twice the text takes {min(ratios):.1f} times as long")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_takes_quadratic_time(pattern):
    search = PATTERNS[pattern]
    for unit in UNITS:
        usual = 0.0  # without a prefix, which is the first: others are looked at where they make the search take longer
        for prefix in PREFIXES:
            text = prefix + unit * (2000 // len(unit))
            passed = seconds(search, text)
            if passed > max(0.001, 1.2 * usual):
                assert_linear(search, text, f"{prefix!r} + {unit!r} * n")
            if not prefix:
                usual = min(passed, seconds(search, text), seconds(search, text))


def cleaned(kind):
    """What cleaning does with the text of a document, except for tokens and comparisons with others."""

    def function(text):
        text, _ = pii.replaced(text, kind)
        for comments in (UNKNOWN, COMMENTS_OF[".py"], COMMENTS_OF[".c"]):
            licences.without_license(text, comments)
        view = View(text, "a.py", kind)
        for rule in {PYTHON: rules.PYTHON_RULES, CODE: rules.CODE_RULES, PROSE: prose.PROSE_RULES}.get(kind, []):
            rule(view, rules.Thresholds())
        kind_of(text, {})
        replies.code_in(text)

    return function


@pytest.mark.parametrize("kind", [PYTHON, CODE, PROSE])
def test_cleaning_a_document_takes_linear_time(kind):
    clean = cleaned(kind)
    for prefix in ("", "x = '"):
        for unit in UNITS:
            text = prefix + unit * (4000 // len(unit))
            if seconds(clean, text) > 0.02:
                assert_linear(clean, text, f"{prefix!r} + {unit!r} * n", floor=0.02)


def test_sequences_and_blank_lines_take_milliseconds():
    """A docstring of 100 kB of ACGT took minutes, 40,000 blank lines took seconds."""
    sequence = '"""\n' + ("ACGT" * 15 + "\n") * 1700 + '"""\nx = 1\n'
    for text in (sequence, "\n" * 40_000 + "x = 1\n", "x = 1" + "\n" * 40_000 + "y"):
        for kind in (PYTHON, CODE, PROSE):
            assert seconds(cleaned(kind), text) < 1
