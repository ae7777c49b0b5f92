"""How problems are judged, which their own solutions decide, and what an evaluation says of it."""

import json

import pytest
from conftest import door_error, write_records

import eval_humaneval
from configurator import UserError
from evaluation import sandbox, verdicts
from evaluation.problems import read_problems

LIMITS = sandbox.Limits(timeout=1)


def problem(number, test, solution="    return x + 1\n"):
    prompt = "import random\ndef f(x):\n"
    check = f"def check(f):\n    {test}"
    return {
        "task_id": f"t/{number}",
        "prompt": prompt,
        "entry_point": "f",
        "canonical_solution": solution,
        "test": check,
    }


# What the second test replaces lies in the program's process; the third solution is wrong; the fourth set has none.
RECORDS = [
    problem(0, "assert f(1) == 2"),
    problem(1, "random.random = lambda: 1\n    assert f(1) == 2", "    return x + random.random()\n"),
    problem(2, "assert f(1) == 3"),
    problem(3, "assert f(1) == 2", ""),
]


@pytest.fixture
def problems(tmp_path):
    return read_problems(write_records(tmp_path / "problems.jsonl", RECORDS), "11-510")


def test_a_problem_is_judged_as_its_own_solution_passes(problems):
    mode_of, broken = verdicts.modes(problems, LIMITS, 2)
    assert mode_of == {"t/0": "sealed", "t/1": "open", "t/2": "open", "t/3": "open"} and broken == ["t/2"]


@pytest.mark.parametrize("result", ["timed out", "timed out on the clock"])
def test_a_solution_that_takes_too_long_stays_sealed_and_is_named(problems, monkeypatch, result):
    """Else the machine's load would decide how strictly a problem is judged."""

    def run_all(jobs, *_):
        for key, _, _, mode in jobs:
            passed = mode == "open" or key == "t/1"
            yield key, sandbox.Verdict(passed, "passed" if passed else result, 0.0)

    monkeypatch.setattr(sandbox, "run_all", run_all)
    mode_of, broken = verdicts.modes(problems, LIMITS, 1)
    assert mode_of == {"t/0": "sealed", "t/1": "sealed", "t/2": "sealed", "t/3": "open"} and broken == ["t/0", "t/2"]


def test_a_script_is_judged_by_what_it_prints(tmp_path):
    """A slow one has its time for each input."""
    cases = {"inputs": ["1\n", "2\n", "3\n", "4\n"], "outputs": ["2\n", "3\n", "4\n", "5\n"]}
    slow = "import time\ntime.sleep(1.2)\nprint(int(input()) + 1)"
    record = {"problem_id": 1, "question": "Add 1.", "input_output": json.dumps(cases), "solutions": json.dumps([slow])}
    problems = read_problems(write_records(tmp_path / "problems.jsonl", [record]), "11-510")
    mode_of, broken = verdicts.modes(problems, LIMITS, 1)
    samples = [{"task_id": "1", "completion_id": i, "completion": f"print(int(input()) + {i})"} for i in range(2)]
    results = verdicts.run_samples(problems, mode_of, samples, tmp_path / "out", LIMITS, 2)
    assert mode_of == {"1": "script"} and broken == []
    assert [record["passed"] for record in results] == [False, True]


@pytest.mark.parametrize(
    "program",
    [
        "print(input())",
        "import sys\nsys.stdout = open(1, 'w', closefd=False)\nprint(input())",
        "import atexit, io, os, sys\nsys.stdout = io.StringIO()\natexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))\n"
        "print(input())",
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.3), print(input()))).start()",
        "print(input())\nquit()",
        "import sys\nif len(sys.argv) > 1:\n    sys.stdin = open(sys.argv[1])\nprint(input())",
    ],
)
def test_a_script_runs_as_python_runs_it(program):
    job = ("key", program, {"inputs": ["3"], "outputs": ["3"]}, "script")
    assert dict(sandbox.run_all([job], 1, LIMITS))["key"].result == "passed"


def test_a_call_does_not_end_the_loop_of_a_test(tmp_path):
    """map() takes a StopIteration for the end, so that nothing would be asserted."""
    record = problem(0, "for got, want in zip(map(f, [1, 2]), [2, 3]): assert got == want")
    problems = read_problems(write_records(tmp_path / "problems.jsonl", [record]), "11-510")
    bodies = ("    return x + 1\n", "    return x\n", "    raise StopIteration\n")
    samples = [{"task_id": "t/0", "completion_id": i, "completion": body} for i, body in enumerate(bodies)]
    results = verdicts.run_samples(problems, {"t/0": "sealed"}, samples, tmp_path / "out", LIMITS, 2)
    assert [record["passed"] for record in results] == [True, False, False]


def test_the_program_has_no_say_in_how_it_is_judged(problems, tmp_path):
    """An open verdict is in reach of a program that looks for it; a sealed problem stays sealed."""
    forged = "    pass\nimport sys, json, os\nframe = sys._getframe()\nwhile 'connection' not in frame.f_locals: frame = frame.f_back\n"
    forged += "connection = frame.f_locals['connection']\nconnection.send(b'\"\"')\n"
    forged += "test, secret = json.loads(connection.receive())\nconnection.send(json.dumps([secret, '']).encode())\nos._exit(0)\n"
    samples = [{"task_id": task_id, "completion_id": 0, "completion": forged} for task_id in ("t/0", "t/1")]
    mode_of, _ = verdicts.modes(problems, LIMITS, 2)
    results = verdicts.run_samples(problems, mode_of, samples, tmp_path / "out", LIMITS, 2)
    assert [(record["mode"], record["passed"]) for record in results] == [("sealed", False), ("open", True)]


def test_an_evaluation_says_how_it_judged(problems, tmp_path, capsys):
    samples = [{"task_id": f"t/{i}", "completion": "    return x + 1\n"} for i in range(4)]
    write_records(tmp_path / "samples.jsonl", samples)
    paths = {"problems": str(tmp_path / "problems.jsonl"), "samples": str(tmp_path / "samples.jsonl")}
    eval_humaneval.main(eval_humaneval.Settings(**paths, out_dir=str(tmp_path / "out")))
    summary, said = json.loads((tmp_path / "out/summary.json").read_text()), capsys.readouterr().out
    assert summary["open"] == 3 and summary["own_solution_fails"] == ["t/2"] and summary["pass@1"] == 0.75
    assert summary["sandbox"].keys() == {"rlimits", "capabilities", "landlock", "seccomp"}
    assert "confined by rlimits, capabilities, landlock version" in said
    assert "3 of 4 problems are judged open" in said and "own solutions fail or take too long: t/2" in said


def test_problems_that_need_a_package_are_left_out_aloud(tmp_path, capsys):
    records = [RECORDS[0], problem(1, "import numpy\n    assert numpy.isclose(f(1), 2)")]
    path = write_records(tmp_path / "problems.jsonl", records)
    found = read_problems(path, "11-510")
    assert list(eval_humaneval.with_packages(found, [])) == ["t/0"]
    assert (
        "1 of 2 problems need other packages and are left out; to score them: --packages=numpy"
        in capsys.readouterr().out
    )
    assert list(eval_humaneval.with_packages(found, ["numpy"])) == ["t/0", "t/1"]
    mode_of, broken = verdicts.modes(found, sandbox.Limits(packages=("numpy",)), 1)
    assert mode_of["t/1"] == "sealed" and broken == []
    with pytest.raises(UserError, match="all problems need packages: --packages=numpy"):
        eval_humaneval.with_packages({"t/1": found["t/1"]}, [])


@pytest.mark.parametrize("mode", ["sealed", "open"])
def test_numbers_of_numpy_are_numbers(mode):
    program = (
        "import numpy as np\ndef f(x): return np.sum(x), np.mean(x), np.all(x), np.array(['ab'])[0], list(np.array(x))"
    )
    code = "assert f([1, 2]) == (3, 1.5, True, 'ab', [1, 2]) and f([1, 2])[2]"
    test = {"helpers": "", "code": code, "entry_points": ["f"], "classes": []}
    assert sandbox.run(program, test, sandbox.Limits(packages=("numpy",)), mode).result == "passed"


def test_a_package_that_is_not_installed_is_told(tmp_path):
    path = write_records(tmp_path / "problems.jsonl", RECORDS[:1])
    write_records(tmp_path / "samples.jsonl", [{"task_id": "t/0", "completion": ""}])
    arguments = [f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}", f"--out_dir={tmp_path / 'out'}"]
    assert "no package nump: pip install nump" in door_error(eval_humaneval, *arguments, "--packages=nump")
    for name in ("nosuch.part", "__main__", ".x"):
        assert f"no package {name}" in door_error(eval_humaneval, *arguments, f"--packages={name}")
