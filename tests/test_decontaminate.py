"""Planted copies of benchmark problems are found, however they are dressed; code that is none of them is left alone."""

import ast
import gzip
import json
import re
import sysconfig
import time
from pathlib import Path

import pytest
from conftest import DATA, program

from cleaning import decontaminate
from cleaning.settings import Settings
from cleaning.view import CODE, PROSE, View
from configurator import UserError
from corpus.benchmarks import DOWNLOADS

PROBLEMS = [
    {
        "task_id": "Made/0",
        "prompt": 'def count_rising(values: list[int]) -> int:\n    """Count the places at which a list of numbers rises, and how steep it is there.\n    >>> count_rising([1, 5, 2, 7])\n    2\n    """\n',
        "entry_point": "count_rising",
        "canonical_solution": "    total = 0\n    previous = None\n    for value in values:\n        if previous is not None and value > previous:\n            total += 1\n        previous = value\n    return total\n",
        "test": "def check(candidate):\n    assert candidate([1, 5, 2, 7]) == 2\n    assert candidate([]) == 0\n    assert candidate([3, 2, 1]) == 0\n",
    },
    {
        "task_id": "Made/1",
        "prompt": 'def longest_common_ending(first: str, second: str) -> str:\n    """What do two strings end in alike? Give the longest such ending.\n    """\n',
        "entry_point": "longest_common_ending",
        "canonical_solution": '    for start in range(len(first)):\n        if second.endswith(first[start:]):\n            return first[start:]\n    return ""\n',
        "test": 'def check(candidate):\n    assert candidate("walking", "talking") == "alking"\n    assert candidate("", "") == ""\n',
    },
]  # fmt: skip
SURROUNDINGS = (program(7), program(8))


class Renamer(ast.NodeTransformer):
    def __init__(self):
        self.names = {}

    def new(self, name):
        return name if name in decontaminate.FIXED_NAMES else self.names.setdefault(name, f"thing_{len(self.names)}")

    def visit_Name(self, node):
        node.id = self.new(node.id)
        return node

    def visit_arg(self, node):
        node.arg = self.new(node.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.name = self.new(node.name)
        return self.generic_visit(node)


def renamed(text):
    """Every name but keywords, built-ins, methods and what is imported."""
    tree, renamer = ast.parse(text), Renamer()
    for node in ast.walk(tree):
        for name in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            renamer.names[(name.asname or name.name).split(".")[0]] = (name.asname or name.name).split(".")[0]
    return ast.unparse(renamer.visit(tree))


def without_docstrings(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def in_notebook(text):
    """A cell of its own, as Jupyter writes it: one string for each line, but the last without a line end."""
    cells = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "source": part.splitlines(keepends=True)}
        for part in ("%matplotlib inline", text.rstrip("\n"), 'print("that\'s all")')
    ]
    return json.dumps({"cells": cells, "nbformat": 4}, indent=1)


DRESSED = {
    "exact": lambda text: text,
    "reformatted": lambda text: ast.unparse(ast.parse(text)).replace("    ", "  "),
    "renamed": renamed,
    "docstring stripped": without_docstrings,
    "in a notebook": in_notebook,
    "renamed in a notebook": lambda text: in_notebook(renamed(text)),
    "in JSON": lambda text: json.dumps({"reply": text}),
}


def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def planted(text):
    return View(f"{SURROUNDINGS[0]}\n\n{text}\n\n{SURROUNDINGS[1]}")


def found(view, benchmarks):
    """The problem that a document holds a copy of, or None."""
    if copied := decontaminate.copied(view, benchmarks):
        return benchmarks.names[copied[0]]
    similar = decontaminate.closest(view, benchmarks)
    best = max(similar, key=similar.get, default=None)
    return benchmarks.names[best] if best is not None and similar[best] >= 0.9 else None


@pytest.mark.parametrize("dress", [*DRESSED, "renamed and stripped"])
def test_planted_copies_are_found(tmp_path, dress):
    benchmarks = decontaminate.load([write(tmp_path / "made.jsonl", PROBLEMS)])
    for problem in PROBLEMS:
        text = problem["prompt"] + problem["canonical_solution"]
        text = DRESSED[dress](text) if dress in DRESSED else without_docstrings(renamed(text))
        assert found(planted(text), benchmarks) == problem["task_id"]
    assert found(planted(""), benchmarks) is None


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmark's file")
@pytest.mark.parametrize("dress", DRESSED)
def test_every_problem_of_humaneval_is_found(dress):
    path = DATA / "humaneval/HumanEval.jsonl.gz"
    benchmarks = decontaminate.load([path])
    with gzip.open(path, "rt") as lines:
        problems = [json.loads(line) for line in lines]
    missed = [
        p["task_id"]
        for p in problems
        if found(planted(DRESSED[dress](p["prompt"] + p["canonical_solution"])), benchmarks) is None
    ]
    assert len(problems) == 164 and missed == []


@pytest.mark.skipif(not (DATA / "mbpp").exists(), reason="needs the benchmarks' files")
def test_the_standard_library_holds_no_problem():
    benchmarks = decontaminate.load([DATA / "humaneval/HumanEval.jsonl.gz", DATA / "mbpp/mbpp.jsonl.gz"])
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*/*.py")) + sorted(
        Path(sysconfig.get_paths()["stdlib"]).glob("*.py")
    )
    texts = [path.read_bytes().decode("utf-8", "ignore") for path in paths[::2]]
    hits = [found(View(text), benchmarks) for text in texts]
    assert len(texts) > 200 and not any(hits)


def test_a_prompt_or_tests_alone_are_found_in_prose_and_with_escapes(tmp_path):
    benchmarks = decontaminate.load([write(tmp_path / "made.jsonl", PROBLEMS)])
    question = (
        "Please write it for me. Count the places at which a list of numbers rises, and how steep it is there. Thanks!"
    )
    assert found(View(question, kind=PROSE), benchmarks) == "Made/0"
    assert found(View(PROBLEMS[1]["test"]), benchmarks) == "Made/1"
    assert found(View(question[:50], kind=PROSE), benchmarks) is None


@pytest.mark.parametrize("kind", [PROSE, CODE, ""])
def test_a_renamed_solution_is_found_in_a_conversation_too(tmp_path, kind):
    benchmarks = decontaminate.load([write(tmp_path / "made.jsonl", PROBLEMS)])
    solution = without_docstrings(renamed(PROBLEMS[0]["prompt"] + PROBLEMS[0]["canonical_solution"]))
    text = f"Can you count for me?\n\nHere's a function that doesn't need more:\n```python\n{solution}\n```\nIt's fast."
    assert found(View(text, kind=kind), benchmarks) == "Made/0"
    assert found(View(text.replace("+= 1", "-= 7").replace(">", "<="), kind=kind), benchmarks) is None


def test_boilerplate_is_no_evidence(tmp_path):
    """An n-gram that many problems share, or one of numbers, says nothing."""
    boilerplate = "import random\nimport functools\nimport collections\nimport string\nimport math\nimport datetime\n"
    problems = [{"task_id": i, "text": f"{boilerplate}\n{program(100 + i)}"} for i in range(6)]
    problems.append({"task_id": 9, "text": "x = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]"})
    benchmarks = decontaminate.load([write(tmp_path / "b.jsonl", problems)])
    assert found(planted(boilerplate + "y = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]"), benchmarks) is None
    assert found(planted(program(103)), benchmarks) == "b/3"


def test_variants_of_one_problem_are_no_boilerplate(tmp_path):
    """HumanEval+ and the infilling benchmarks repeat HumanEval's problems, some of them fifty times."""
    variants = [{**PROBLEMS[0], "task_id": f"Variant/{i}"} for i in range(20)]
    paths = [write(tmp_path / "made.jsonl", PROBLEMS), write(tmp_path / "variants.jsonl", variants)]
    text = PROBLEMS[0]["prompt"] + PROBLEMS[0]["canonical_solution"]
    assert found(planted(text), decontaminate.load(paths)) is not None


def test_each_solution_of_apps_is_found(tmp_path):
    """APPS has a list of them as JSON: here a script that is short beside the others, and a function."""
    script = "for line_number, line in enumerate(open(0)):\n    print(line_number, line.strip()[::-1].upper())\n"
    function = without_docstrings(PROBLEMS[0]["prompt"] + PROBLEMS[0]["canonical_solution"])
    others = [program(200 + i) for i in range(4)]
    record = {"id": 7, "question": "Turn all the lines.", "solutions": json.dumps([*others, script, function])}
    benchmarks = decontaminate.load([write(tmp_path / "apps.jsonl", [record])])
    assert found(planted(script), benchmarks) == found(planted(renamed(function)), benchmarks) == "apps/7"
    record["solutions"] = script
    assert found(planted(script), decontaminate.load([write(tmp_path / "one.jsonl", [record])])) == "one/7"


def test_problems_of_bigcodebench_are_told_apart_by_their_descriptions(tmp_path):
    """All functions are called task_func there, and the solution is a body for complete_prompt."""
    imports = "import random\nimport functools\nimport collections\nimport string\nimport datetime\nimport math\n"
    records = []
    for number in range(6):
        base = PROBLEMS[number % 2]
        prompt = re.sub(r"def \w+", "def task_func", base["prompt"]).replace('"""', f'"""Part {number}: ', 1)
        records.append({"task_id": f"BigCodeBench/{number}", "complete_prompt": f"{imports}\n{prompt}"})
        records[-1] |= {"canonical_solution": base["canonical_solution"], "entry_point": "task_func"}
    benchmarks = decontaminate.load([write(tmp_path / "big.jsonl", records)])
    solution = renamed(records[0]["complete_prompt"] + records[0]["canonical_solution"])
    assert found(planted(without_docstrings(solution)), benchmarks) is not None
    assert found(planted(imports), benchmarks) is None


def test_a_problem_without_entry_point_is_one_problem_in_many_files(tmp_path):
    text = "A train leaves the station at nine and drives for three hours at sixty miles an hour. How far does it come?"
    paths = [write(tmp_path / f"part{i}.jsonl", [{"task_id": i, "text": text}]) for i in range(6)]
    assert found(View(f"Here it is: {text}", kind=PROSE), decontaminate.load(paths)) is not None


def test_a_text_of_few_ngrams_needs_all_of_them(tmp_path):
    text = "Write a function to merge two sorted lists into one list."  # 12 tokens: 3 n-grams
    benchmarks = decontaminate.load([write(tmp_path / "b.jsonl", [{"task_id": 1, "text": text}])])
    assert found(View(f"Here it is: {text} Thanks!", kind=PROSE), benchmarks) == "b/1"
    assert found(View(text.replace("one list", "a tree"), kind=PROSE), benchmarks) is None
    assert found(View(text.removeprefix("Write a "), kind=PROSE), benchmarks) is None


@pytest.mark.skipif(not (DATA / "mbpp").exists(), reason="needs the benchmark's file")
def test_requests_of_mbpp_are_found_unless_they_are_shorter_than_an_ngram():
    path = DATA / "mbpp/mbpp.jsonl.gz"
    benchmarks = decontaminate.load([path])
    with gzip.open(path, "rt") as lines:
        texts = [problem["text"] for problem in map(json.loads, lines) if 11 <= problem["task_id"] <= 510]
    missed = [text for text in texts if not found(View(f"Here it is: {text} Thanks!", kind=PROSE), benchmarks)]
    assert len(texts) == 500 and len(missed) == 9 and max(len(text.split()) for text in missed) < decontaminate.N


def test_benchmarks_are_known_by_their_names(tmp_path, monkeypatch):
    path = write(tmp_path / "problems.jsonl", PROBLEMS)
    monkeypatch.setitem(DOWNLOADS, "humaneval", ("", str(path), ""))
    settings = Settings(decontaminate=["humaneval", "mine.jsonl"])
    settings.check()
    assert settings.decontaminate == [str(path), "mine.jsonl"]


def test_a_long_function_takes_no_longer_than_its_length(tmp_path):
    """Its shape is a solution's again and again; each time the whole was compared. 100 kB took minutes."""
    benchmarks = decontaminate.load([write(tmp_path / "made.jsonl", PROBLEMS)])
    loop = PROBLEMS[0]["canonical_solution"].partition("    return")[0]
    text = "def f(values):\n" + "".join(re.sub(r"(total|previous|value)", rf"\g<1>{n}", loop) for n in range(600))
    start = time.process_time()
    decontaminate.closest(View(text), benchmarks)
    assert len(text) > 100_000 and time.process_time() - start < 5


def test_any_file_of_records_is_a_benchmark(tmp_path):
    text = "A train leaves the station at nine and drives for three hours at sixty miles an hour. How far does it come?"
    array = tmp_path / "gsm.json"
    array.write_text(json.dumps([{"question": text, "answer": "180"}]))
    benchmarks = decontaminate.load([array, write(tmp_path / "made.jsonl", PROBLEMS)])
    assert found(View(f"Here is one: {text}", kind=PROSE), benchmarks).startswith("gsm/")
    assert found(planted(PROBLEMS[0]["prompt"]), benchmarks) == "Made/0"


@pytest.mark.parametrize("content, words", [(None, "no benchmark"), ("", "no problems"), ("{", "bad_json"), ("[[1]]", "not an object"), ('{"id": 1}', "no problems")])  # fmt: skip
def test_a_file_without_problems_is_refused(tmp_path, content, words):
    path = tmp_path / "b.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=re.escape(words)):
        decontaminate.load([path])
