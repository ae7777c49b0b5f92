"""The tables of operations: every entry has enough wordings, all ways to write it agree, and its kinds are true; every
condition says all that it needs, and is true or false. (higher.txt is tested by what is made with it: test_exercises.)

A person who adds an entry runs this file: it names the line and says what is wrong.
"""

import ast
import random
import re

import pytest

from endings import UserError
from exercises.code import compares_constants
from exercises.compose import Unfit, drawn_by_weight
from exercises.examples import copied, drawn, literal, load
from exercises.kinds import KINDS, RELATED, fits
from exercises.making import ordinal
from exercises.tables import FOLDER, read_table

LEAST_PHRASES, LEAST_BODIES, TRIALS = 6, 2, 60
MODULES = {"math", "string", "re", "collections", "itertools", "functools", "datetime", "statistics", "bisect", "heapq"}
# What a mention may begin with, in front of a slot.
TWICE = re.compile(r"\bthe (?:list|dictionary|dict|text|string|sentence|matrix|grid)s? {(?!e1?})")


def faults_of(operation):
    """What is wrong with an operation: a list of texts."""
    kinds = [kind for kind in operation.parameters.values() if isinstance(kind, str)]
    unknown = [kind for kind in [*kinds, operation.result.rstrip("?")] if kind not in KINDS and kind not in RELATED]
    if unknown or not operation.parameters:
        return [f"unknown kind {', '.join(unknown)}"]
    faults = [*phrase_faults(operation)]
    if len(set(operation.bodies)) < LEAST_BODIES:
        faults.append(f"fewer than {LEAST_BODIES} ways to write it")
    for body in operation.bodies:
        faults += body_faults(operation, body)
    return faults or run_faults(operation)


def phrase_faults(operation):
    """Faults of the wording."""
    texts = [text for _, text in operation.phrases]
    if len(set(texts)) < LEAST_PHRASES:
        yield f"{len(set(texts))} phrases instead of {LEAST_PHRASES}"
    if len(texts) > len(set(texts)):
        yield "a phrase stands there twice"
    for text in texts:
        slots = set(re.findall(r"{(\w+)}", text))
        if lacking := set(operation.parameters) - slots:
            yield f"not mentioned: {', '.join(sorted(lacking))} in {text!r}"
        if strange := slots - set(operation.parameters) - {"e", "e1"}:
            yield f"no parameter: {', '.join(sorted(strange))} in {text!r}"
        if text.endswith((".", "?", "!")) or text[:1].isupper():
            yield f"a phrase is part of a sentence: {text!r}"
        if TWICE.search(text):
            yield f"{{xs}} may become 'the list xs', so that there is 'the list' twice: {text!r}"
        if re.search(r"}\w", text):
            yield f"a letter behind a slot would belong to what stands in it: {text!r}"
    if operation.result == "bool" and not any(mark == "?" for mark, _ in operation.phrases):
        yield "no phrase begins with ?, a clause that is true or false"


def body_faults(operation, body):
    """Faults of one way to write it."""
    faults = []
    for node in ast.walk(ast.parse(body)):
        if isinstance(node, ast.JoinedStr):
            faults.append("no f-strings: names inside of them are not seen")
        if isinstance(node, ast.keyword) and node.arg in operation.parameters:
            faults.append(f"a keyword is called like the parameter {node.arg}")
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            faults += [f"import of {name}" for name in named if name not in MODULES]
    if any(len(line) > 96 for line in body.split("\n")):
        faults.append("a line of code of more than 96 characters")
    return faults


def run_faults(operation):
    """Faults that running it shows: an error, ways that differ, always the same result, a result of another kind."""
    rng = random.Random(operation.name)
    functions = [load(operation.name, operation.parameters, body) for body in operation.bodies]
    results, errors, last_error = [], 0, ""
    for _ in range(TRIALS):
        arguments = list(drawn(rng, operation, {}, ()).values())
        try:
            found = [function(*copied(arguments)) for function in functions]
        except Exception as error:
            errors, last_error = errors + 1, f"{type(error).__name__}: {error}, for {arguments}"
            continue
        if any(literal(other) != literal(found[0]) for other in found):
            return [f"the ways differ for {arguments}: {found}"]
        results.append(found[0])
    if errors > TRIALS / 4:
        return [f"{errors} of {TRIALS} trials raise {last_error}"]
    shown = [literal(result) for result in results]
    commonest = max(map(shown.count, shown))
    if commonest > 0.92 * len(shown):
        return [f"{commonest} of {len(shown)} results are {max(shown, key=shown.count)}: better values by `with`"]
    return [
        f"{result!r} is not of kind {operation.result}" for result in results if not fits(result, operation.result)
    ][:1]


OPERATIONS = sorted(path for path in FOLDER.rglob("*.txt") if path.stem not in ("conditions", "higher"))


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_operation_has_wordings_and_ways_that_agree(path):
    operations = read_table(path)
    names = [operation.name for operation in operations]
    faults = [f"{name} stands there twice" for name in names if names.count(name) > 1]
    for operation in operations:
        faults += [f"{path}:{operation.line} {operation.name}: {fault}" for fault in faults_of(operation)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("conditions.txt")), ids=lambda path: path.parent.name)
def test_every_condition_says_what_it_needs_and_is_true_or_false(path):
    for condition in read_table(path):
        rng, (_, *others) = random.Random(condition.name), condition.parameters
        for mark, text in condition.phrases:
            assert set(re.findall(r"{(\w+)}", text)) == set(others), f"{condition.name}: {text}"
            assert (mark == "~") == (" / " in text), f"{condition.name}: a verb has two forms, {text}"
        for body in condition.bodies:
            assert body_faults(condition, body) == [], condition.name
            function = load(condition.name, condition.parameters, body)
            assert all(type(function(*drawn(rng, condition, {}, ()).values())) is bool for _ in range(TRIALS)), body


def test_there_are_hundreds_of_common_operations_each_said_in_many_ways():
    common = [operation for path in OPERATIONS if path.parent.name != "rare" for operation in read_table(path)]
    assert len({operation.name for operation in common}) >= 500
    assert sum(len(operation.phrases) for operation in common) / len(common) > 7


def test_a_fault_in_a_table_is_found(tmp_path):
    entry = """twice(n: int) -> int
    double {n} | !take {n} twice | {n} times two | two times {n} | {n} added to itself | !multiply {n} by two
    = n * 2
    = n + n
"""
    (tmp_path / "good.txt").write_text(entry)
    assert [faults_of(operation) for operation in read_table(tmp_path / "good.txt")] == [[]]
    for old, new, said in (
        ("= n + n", "= n + 1", "differ"),
        ("-> int", "-> nat", "not of kind"),
        ("two times {n}", "two times it", "not mentioned"),
        ("two times {n}", "two {n}s", "behind a slot"),
        ("two times {n}", "the text {n} twice", "'the list' twice"),
        (" | {n} added to itself", "", "5 phrases"),
        ("    = n + n\n", "", "ways to write it"),
        ("= n * 2", "= os.getpid()", "raise NameError"),
    ):
        (tmp_path / "bad.txt").write_text(entry.replace(old, new))
        (faults,) = [faults_of(operation) for operation in read_table(tmp_path / "bad.txt")]
        assert any(said in fault for fault in faults), faults


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("twice(n: int)", "twice n: int", "bad.txt:1 cannot be read"),
        ("    = n", "    =\n      return n", "bad.txt:4 cannot be read"),
        ("= n * 2", "= n *", "bad.txt:1 twice is written in no Python: return n *"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, old, new, said):
    (tmp_path / "bad.txt").write_text("twice(n: int) -> int\n    double {n}\n    = n * 2\n".replace(old, new))
    with pytest.raises(UserError, match=re.escape(said)):
        read_table(tmp_path / "bad.txt")


@pytest.mark.parametrize("code", ["if a == 3 == 4:\n    b = 1", "return [x for x in xs if 'a' in 'b']", "return 1 < 2"])
def test_what_compares_constants_is_known(code):
    assert compares_constants(code)
    assert not any(map(compares_constants, ["return a == 3", "return x % 2 == 0", "if 1 < x < 4:\n    b = 1"]))


def test_where_no_operation_fits_another_draft_is_made():
    with pytest.raises(Unfit):
        drawn_by_weight(random.Random(0), [])


def test_ordinals_are_those_of_english():
    given = [1, 2, 3, 4, 11, 12, 13, 21, 22, 103, 111, 1012]
    words = "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 103rd 111th 1012th"
    assert " ".join(map(ordinal, given)) == words
