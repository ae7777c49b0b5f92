"""Benchmarks as they are shipped: a small record of every shape, its reference solution and a wrong one."""

import base64
import gzip
import json
import pickle
import subprocess
import sys
import zlib

import pytest
from conftest import DATA, write_records

from configurator import UserError
from evaluation import formats, sandbox
from evaluation.formats import problem_of
from evaluation.generate import prompt_ids
from evaluation.problems import read_problems

DOUBLE = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    return x / 2\n\n\ndef double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8 and half(candidate(3)) == 3\n",
}
BARE = {**DOUBLE, "prompt": "def double(x):\n", "test": "def check(candidate):\n    assert candidate(4) == 8\n"}
GAP = {
    **BARE,
    "task_id": "SingleLineInfilling/HumanEval/0/L1",
    "prompt": "def third(x):\n    return x / 3\n\n\ndef double(x):\n    if x",
    "canonical_solution": " == 4:\n        return 8",
    "suffix": "\n    return 6\n",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to add 1.",
    "code": "def add(x):\r\n\treturn plus(x, 1)\r\ndef plus(x, y):\r\n\treturn x + y",
    "test_setup_code": "zero = 0",
    "test_list": ["assert add(zero) == 1", "assert add(1) == 2"],
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "x.ipynb",
    "task_id": 12,
    "prompt": "Write a function to add 1.",
    "code": "def add(x):\n    return x + 1",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(add(0.5), 1.5)"],
}
PLUS = {  # as a data set: test_list and test
    **SANITIZED,
    "test_list": ["assert add(0) == 1"],
    "test": "def assertion(out, exp, atol):\n    assert out == exp\n\n\ninputs = [[0], [5]]\nresults = [1, 6]\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(add(*inp), exp, 0)\n",
}
EVALPLUS = {
    "task_id": "HumanEval/0",
    "prompt": 'def halves(x):\n    """Halves."""\n',
    "entry_point": "halves",
    "canonical_solution": "    x.sort()\n    return [y / 2 for y in x]\n",
    "contract": "    assert x\n",
    "base_input": [[[2, 1]]],
    "plus_input": [[[7, float("inf"), 3]]],
    "atol": 0,
}
EVALPLUS_MBPP = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nWrite a function to find the shared elements.\nassert similar_elements((1, 2), (2, 3)) == (2,)\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "def similar_elements(a, b):\n    assert type(a) is tuple\n    return tuple(set(a) & set(b))\n",
    "contract": "",
    "assertion": "assert similar_elements((1, 2), (2, 3)) == (2,)",
    "base_input": [[[1, 2], [2, 3]]],
    "plus_input": [[[1, 2, 3], [3, 2]]],
    "atol": 0,
}
LEETCODE = {
    "task_id": "two-sum",
    "prompt": "from typing import *\nfrom math import *\n",
    "completion": "class Solution:\n    def add(self, numbers: List[int]) -> int:\n        return sum(numbers)\n",
    "entry_point": "Solution().add",
    "test": "def check(candidate):\n    assert candidate(numbers = [1,2]) == 3\n    assert candidate(numbers = []) == 0\n",
    "query": "Add them.\n```python\nclass Solution:\n    def add(self, numbers: List[int]) -> int:\n```",
    "response": "",
    "input_output": [{"input": "numbers = [1,2]", "output": "3"}],
    "meta": {},
}
BIGCODEBENCH = {
    "task_id": "BigCodeBench/0",
    "complete_prompt": 'import json\n\n\ndef task_func(x):\n    """As JSON."""\n',
    "instruct_prompt": "Write JSON.\nYou should write self-contained code starting with:\n```\nimport json\n```",
    "canonical_solution": "    return json.dumps(x)",
    "code_prompt": "import json\n\n\ndef task_func(x):\n",
    "test": "import unittest\n\n\nclass TestCases(unittest.TestCase):\n    def setUp(self):\n        self.x = [1]\n\n"
    "    def test_one(self):\n        self.assertEqual(task_func(self.x), '[1]')\n\n"
    "    def test_two(self):\n        with self.assertRaises(TypeError):\n            task_func({1})\n",
    "entry_point": "task_func",
    "doc_struct": "{}",
    "libs": "['json']",
}
CALLS = {"inputs": [[[3, 4]], [{"1": 5}]], "outputs": [[[3, 7]], [[1, 6]]], "fn_name": "pair"}
APPS = {
    "problem_id": 0,
    "question": "Add 1.",
    "solutions": json.dumps(["print(int(input()) + 1)", "x"]),
    "input_output": json.dumps({"inputs": ["1\n", ["2", ""]], "outputs": ["2\n", ["3"]]}),
    "difficulty": "introductory",
    "url": "",
    "starter_code": "",
}
APPS_CALLS = {
    **APPS,
    "problem_id": 1,
    "input_output": json.dumps(CALLS),
    "starter_code": "def pair(x):\n",
    "solutions": json.dumps(["def pair(x):\n    return (min(x), sum(x) if type(x) is list else x[1] + 1)"]),
}
STDIN_CASES = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
LIVECODEBENCH = {
    "question_title": "Add",
    "question_content": "Add 1.",
    "platform": "atcoder",
    "question_id": "abc1_a",
    "contest_id": "abc1",
    "contest_date": "2023-08-01T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps(STDIN_CASES),
    "private_test_cases": json.dumps([{"input": "5", "output": "6", "testtype": "stdin"}]),
    "metadata": "{}",
}
CALL_CASES = [{"input": '[1, 2]\n"x"', "output": '["x", 3]', "testtype": "functional"}]
LIVECODEBENCH_CALLS = {
    **LIVECODEBENCH,
    "question_id": "1",
    "starter_code": "class Solution:\n    def f(self, a: List[int], b: str) -> list:\n        ",
    "public_test_cases": json.dumps(CALL_CASES),
    "private_test_cases": "[]",
    "metadata": json.dumps({"func_name": "f"}),
}
LIVECODEBENCH_RIGHT = "class Solution:\n    def f(self, a: List[int], b: str):\n        return b, sum(a)\n"

JUDGED = [  # (record, a right completion or None for its own solution, a wrong completion)
    (DOUBLE, None, "    return x * x / 2\n"),
    (BARE, None, "    return x\n"),
    ({**DOUBLE, "canonical_solution": None}, "    return x + x\n", "    return x\n"),
    (GAP, None, " == 3:\n        return 8"),
    (MBPP, None, "def add(x):\n    return 1"),
    ({**MBPP, "code": None}, "def add(x):\n    return x + 1", "def add(x):\n    return 1"),
    (SANITIZED, None, "def add(x):\n    return 1"),
    (PLUS, None, "def add(x):\n    return 1"),
    (EVALPLUS, "    return [y / 2 + 1e-9 for y in sorted(x)]\n", "    return [y / 2 + 1e-5 for y in sorted(x)]\n"),
    (EVALPLUS, None, "    return tuple(y / 2 for y in sorted(x))\n"),
    (EVALPLUS_MBPP, "def similar_elements(a, b):\n    return [x for x in b if x in a]", "similar_elements = min"),
    (EVALPLUS_MBPP, None, "def similar_elements(a, b):\n    return (2,)"),
    (LEETCODE, None, "class Solution:\n    def add(self, numbers):\n        return 3\n"),
    (
        {("src" if key == "query" else key): value for key, value in LEETCODE.items()},
        None,
        "class Solution:\n    add = min",
    ),
    (BIGCODEBENCH, None, "    return '[1]'"),
    (APPS_CALLS, None, "def pair(x):\n    return min(x), 7"),
    (APPS_CALLS, "class Solution:\n    def pair(self, x):\n        return [min(x), 7 if 3 in x else 6]", "pair = max"),
    (LIVECODEBENCH_CALLS, LIVECODEBENCH_RIGHT, LIVECODEBENCH_RIGHT.replace("sum(a)", "4")),
]


def plain(problem, completion):
    """The verdict of a plain harness: program and test one after the other, in one namespace."""
    namespace = {"__name__": "plain"}
    try:
        exec(problem.program(completion), namespace)
        exec(problem.test["code"], namespace)
        return True
    except Exception:
        return False


@pytest.mark.parametrize("record, right, wrong", JUDGED)
def test_a_benchmark_is_decided_by_its_own_test(record, right, wrong):
    problem = problem_of(record)
    right = problem.solution if right is None else right
    for completion, is_right in ((right, True), (wrong, False)):
        assert plain(problem, completion) is is_right, completion
        verdict = sandbox.run(problem.program(completion), problem.test)
        assert verdict.passed is is_right, verdict


@pytest.mark.parametrize(
    "record, right, wrong",
    [
        (APPS, None, "print(2)"),
        (LIVECODEBENCH, "x = int(input())\nprint(x + 1)", "print(2)"),
        (LIVECODEBENCH, "lines = sys.stdin.read().split()\nprint(pow(int(lines[0]), 1, 10**9) + 1)", "print(input())"),
    ],
)
def test_programs_that_read_standard_input(record, right, wrong):
    """Their outputs against those of a plain interpreter."""
    problem = problem_of(record)
    right = problem.solution if right is None else right

    def passes(completion):
        """Whether the program prints what it should for every input."""
        for given, wanted in zip(problem.test["inputs"], problem.test["outputs"], strict=True):
            command = [sys.executable, "-c", problem.program(completion)]
            printed = subprocess.run(command, input=given, text=True, capture_output=True).stdout
            if printed.split() != wanted.split():
                return False
        return True

    assert len(problem.test["inputs"]) == 2 and set(problem.test) == {"inputs", "outputs"}
    assert passes(right) and not passes(wrong)


# -- what a model is asked, and what its answer becomes


def test_a_reply_that_defines_the_function_anew_is_a_program():
    whole = "import math\n\ndef double(x):\n    return 2 * x\n"
    for prompt in ("def double(x):\n", "def double(x):", DOUBLE["prompt"]):
        problem = problem_of({**BARE, "prompt": prompt})
        assert plain(problem, whole) and plain(problem, "\n    return 2 * x")
    instructed = problem_of(BIGCODEBENCH)
    assert plain(instructed, "import json\ndef task_func(x):\n    return json.dumps(x)")


@pytest.mark.parametrize(
    "begins",
    [
        "from __future__ import annotations\n",
        "# a program\n'''It doubles.'''\nfrom __future__ import annotations, division; import math\n",
        "from __future__ import (\n    annotations,\n)\nfrom __future__ import division\n",
        "'é'; from __future__ import annotations; n = 1\n",
        "'\\\r'\nfrom __future__ import annotations\r\n",
    ],
)
def test_a_reply_may_begin_with_imports_from_the_future(begins):
    """Behind a prompt they would be a SyntaxError; they hold for the whole program, so that the front is their place."""
    whole = f"{begins}import math\n\ndef double(x: Nowhere):\n    return 2 * x\n"
    for prompt in ("def double(x):\n", "def double(x):", DOUBLE["prompt"]):
        assert plain(problem_of({**BARE, "prompt": prompt}), whole)
    code = "def double(x):\n    return 'from __future__ import annotations'\n"
    assert formats.future_first(code) == ("", code), "a text that only speaks of it stays as it is"


def test_what_models_are_asked():
    asked = {record.get("task_id", record.get("question")): problem_of(record) for record, _, _ in JUDGED}
    leetcode, apps = asked["two-sum"], problem_of(APPS)
    assert leetcode.asked(chat=True) == LEETCODE["query"] and "Add them." in leetcode.asked(chat=False)
    assert leetcode.asked(chat=False).endswith("from math import *")
    assert asked["BigCodeBench/0"].asked(chat=True) == BIGCODEBENCH["instruct_prompt"]
    assert asked["BigCodeBench/0"].asked(chat=False) == BIGCODEBENCH["complete_prompt"].strip()
    assert apps.asked(chat=False) == "QUESTION:\nAdd 1.\n\nUse Standard Input format\nANSWER:"
    assert "reads standard input" in apps.asked(chat=True) and "Call-Based" in problem_of(APPS_CALLS).prompt
    assert LIVECODEBENCH_CALLS["starter_code"].strip() in problem_of(LIVECODEBENCH_CALLS).asked(chat=True)
    assert asked["Mbpp/2"].asked(chat=True).startswith("Write a function") and '"""' not in asked["Mbpp/2"].request
    for record in (MBPP, SANITIZED, PLUS):
        problem = problem_of(record)
        assert record["test_list"][0] in problem.request and record["test_list"][0] in problem.prompt


def test_a_gap_is_asked_as_one_and_not_in_a_chat(tokenizer):
    problem = problem_of(GAP)
    with pytest.raises(UserError, match="--chat=False"):
        problem.asked(chat=True)
    assert problem.asked(chat=False) == GAP["prompt"] and problem.stop == ()
    gap = tokenizer.render_gap(GAP["prompt"], GAP["suffix"])
    assert prompt_ids(tokenizer, problem.asked(False), False, problem.suffix) == [tokenizer.eot, *gap]


# -- packages


def test_packages_are_named_wherever_they_are_imported():
    test = "import numpy as np\nfrom math import inf\n" + PLUS["test"]
    assert problem_of({**PLUS, "test": test}).packages == ("numpy",)
    assert problem_of({**DOUBLE, "test": f"import os.path, numpy.linalg\n{DOUBLE['test']}"}).packages == ("numpy",)
    inside = "    try:\n        from scipy.stats import norm\n    except ImportError:\n        import yaml as y\n    return x"
    assert problem_of({**DOUBLE, "canonical_solution": inside}).packages == ("scipy", "yaml")
    comment = '    """\n    import this_is_no_import\n    """\n    from . import x\n    return x'
    assert problem_of({**DOUBLE, "canonical_solution": comment}).packages == ()
    assert problem_of({**BIGCODEBENCH, "complete_prompt": "import pandas\n\n\ndef task_func(x):\n"}).packages == (
        "pandas",
    )
    assert problem_of({**APPS, "solutions": '["print 1", "import numpy"]'}).packages == ()


# -- files


def test_records_of_several_kinds_and_what_is_left_out(tmp_path, capsys):
    plus = {**PLUS, "task_id": 700}
    untested = {**APPS, "problem_id": 9, "input_output": ""}
    records = [DOUBLE, GAP, MBPP, plus, EVALPLUS_MBPP, LEETCODE, BIGCODEBENCH, APPS, untested, LIVECODEBENCH, DOUBLE]
    path = write_records(tmp_path / "all.jsonl", records)
    problems = read_problems(path, "11-510")
    names = "HumanEval/0 SingleLineInfilling/HumanEval/0/L1 11 two-sum BigCodeBench/0 0 abc1_a"
    assert list(problems) == names.split()
    printed = capsys.readouterr().out
    assert f"2 of 11 problems of {path} are left out: their ids are not in mbpp_ids=11-510\n" in printed
    assert "1 of 11" in printed and "no tests" in printed and "same id" in printed and printed.count("\n") == 3
    assert list(read_problems(write_records(path, [EVALPLUS_MBPP, plus]), "2-700")) == ["Mbpp/2", "700"]
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="no problems in .*11-510"):
        read_problems(path, "11-510")


@pytest.mark.parametrize(
    "record, words",
    [
        ({"task_id": "x", "question": "?", "answer": "!"}, "task_id, question, answer"),
        ({}, "no fields"),
        ({**DOUBLE, "prompt": 5}, "prompt is no text"),
        ({**DOUBLE, "task_id": None}, "task_id"),
        ({**DOUBLE, "entry_point": "def"}, "SyntaxError"),
        ({**EVALPLUS, "base_input": 5}, "usable"),
        ({**EVALPLUS_MBPP, "task_id": "Mbpp/x"}, "usable"),
        ({**APPS, "input_output": '{"inputs": ["1"], "outputs": []}'}, "as many outputs"),
        ({**APPS, "input_output": "[" * 100_000}, "usable"),
        ({**LIVECODEBENCH, "private_test_cases": "%%"}, "neither JSON nor compressed"),
    ],
)
def test_a_record_that_no_benchmark_has_is_named(tmp_path, record, words):
    path = write_records(tmp_path / "odd.jsonl", [record])
    with pytest.raises(UserError, match="no usable fields") as error:
        read_problems(path, "1-974")
    message = str(error.value)
    assert words in message and "\n" not in message and len(message) < 600


class Loaded:
    """A class whose pickle runs a program when it is loaded."""

    def __reduce__(self):
        return exec, ("open('loaded', 'w').close()",)


def test_compressed_tests_are_read_and_no_pickle_is_loaded(tmp_path):
    def packed(content):
        """As LiveCodeBench ships its private tests."""
        return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()

    for extra in ("", "é" * 300, "x" * 70_000):
        cases = [{"input": f"5{extra}", "output": "6", "testtype": "stdin"}]
        problem = problem_of({**LIVECODEBENCH, "private_test_cases": packed(json.dumps(cases))})
        assert problem.test == {"inputs": ["1\n", f"5{extra}"], "outputs": ["2\n", "6"]}
    for content in (Loaded(), ["[]"], 5):
        with pytest.raises(ValueError, match="not loaded"):
            problem_of({**LIVECODEBENCH, "private_test_cases": packed(content)})
    assert list(tmp_path.iterdir()) == []


needs_files = pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
FILES = {  # file: (problems, those that need packages)
    "humaneval/HumanEval.jsonl.gz": (164, 0),
    "mbpp/mbpp.jsonl.gz": (974, 0),
    "mbpp/mbpp_sanitized.jsonl.gz": (427, 0),
    "humaneval-infilling/HumanEval-RandomSpanInfilling.jsonl.gz": (1640, 0),
    "leetcode-dataset/LeetCodeDataset-v0.2.0-train.jsonl.gz": (1890, 13),
}


@needs_files
@pytest.mark.parametrize("file", FILES)
def test_real_files(file):
    problems = read_problems(DATA / file, "1-974", say=pytest.fail).values()
    assert (len(problems), sum(bool(problem.packages) for problem in problems)) == FILES[file]
    for problem in problems:
        assert formats.parsed(problem.program(problem.solution)), problem.task_id
        assert formats.parsed(problem.test["helpers"]) and formats.parsed(problem.test["code"]), problem.task_id
        assert problem.test["entry_points"], problem.task_id


@needs_files
def test_gaps_are_filled(tmp_path):
    """Every twentieth of the single-line sample: the reference passes, an empty line does not compile or is wrong."""
    lines = gzip.decompress((DATA / "humaneval-infilling/HumanEval-SingleLineInfilling.jsonl.gz").read_bytes())
    problems = [problem_of(json.loads(line)) for line in lines.splitlines()[::20]]
    jobs = [(problem.task_id, problem.program(problem.solution), problem.test, "sealed") for problem in problems]
    verdicts = dict(sandbox.run_all(jobs, 4, sandbox.Limits(timeout=20)))
    assert [name for name, verdict in verdicts.items() if not verdict.passed] == [] and len(verdicts) == 52
