"""The sandbox: right programs pass, and no program gets a point, or does harm, in another way."""

import gzip
import json
import platform
import socket
import tempfile
import threading
import time

import pytest
from conftest import DATA, assert_one_line_error, door_error, stage

import eval_humaneval
from evaluation.problems import code_in, pass_at_k, read_problems, score
from evaluation.sandbox import Limits, run, run_all

FAST = Limits(timeout=1, memory_mb=512)
TEST = {
    "helpers": "SECRET = 41",
    "code": "def check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert candidate([]) == []\ncheck(f)",
    "entry_points": ["f"],
}


def verdict(program, test=TEST, limits=FAST):
    return run(program, test, limits)


@pytest.mark.parametrize(
    "program",
    [
        "def f(x):\n    return [i + 1 for i in x]",
        "f = lambda x: [i + 1 for i in x]",
        "print('noise' * 1000)\ndef f(x):\n    print(x)\n    return [i + 1 for i in x]",
        "import collections, math, random, re, dataclasses, typing\ndef f(x):\n    return [i + 1 for i in x]",
        "def f(x):\n    import threading\n    out = []\n    t = threading.Thread(target=lambda: out.extend(i + 1 for i in x))\n"
        "    t.start(); t.join()\n    return out",
        "def f(x):\n    open('scratch', 'w').write('x')\n    return [i + len(open('scratch').read()) for i in x]",
    ],
)
def test_right_programs_pass(program):
    assert verdict(program).result == "passed"


def test_wrong_programs_fail_with_their_reason():
    assert verdict("def f(x):\n    return x").result.startswith("failed: AssertionError")
    assert verdict("def f(x):\n    return y").result == "failed: NameError: name 'y' is not defined"
    assert "SyntaxError" in verdict("def f(x:").result
    assert not verdict("").passed


# Those that return the right answer behind a forbidden act would pass if it were allowed; signal 0 asks and harms nobody.
HOSTILE = {
    "infinite loop": "def f(x):\n    while True: pass",
    "infinite loop at the top": "while True: pass",
    "sleep": "import time\ndef f(x):\n    time.sleep(100)",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "subprocess": "import subprocess\ndef f(x):\n    return eval(subprocess.check_output(['echo', '[2, 3]']))",
    "10 GB": "def f(x):\n    return [0] * 10**10",
    "10 GB slowly": "def f(x):\n    y = []\n    while True: y.append(' ' * 10**7)",
    "endless output": "def f(x):\n    while True: print('x' * 10**6)",
    "endless answer": "def f(x):\n    return 'x' * 10**8",
    "os._exit": "import os\nos._exit(0)",
    "os._exit when called": "import os\ndef f(x):\n    os._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "def f(x):\n    raise SystemExit(0)",
    "always equal": "class E(list):\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
    "def f(x):\n    return E()",
    "equal to anything": "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return E()",
    "a class in disguise": "class E:\n    __class__ = list\n    def __eq__(self, other): return True\ndef f(x):\n    return E()",
    "patched builtins": "import builtins\nbuiltins.AssertionError = type('A', (), {})\nbuiltins.check = lambda f: None\ndef f(x): pass",
    "frames": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        if 'SECRET' in g.f_globals: return [2, 3]\n"
    "        for c in g.f_code.co_consts:\n            if c == [2, 3] or c == (2, 3): return list(c)\n        g = g.f_back",
    "heap": "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'SECRET' in o: return [2, 3]",
    "the judge's files": "import os\ndef f(x):\n    for fd in range(3, 60):\n        try:\n            data = os.read(fd, 4096)\n"
    "            if b'[2, 3]' in data: return [2, 3]\n        except OSError: pass",
    "the judge's memory": "import os\ndef f(x):\n    for fd in os.listdir(f'/proc/{os.getppid()}/fd'): pass\n"
    "    m = open(f'/proc/{os.getppid()}/mem', 'rb')\n    return [i + 1 for i in x]",
    "a forged verdict": "import os\nfor fd in range(0, 60):\n    try: os.write(fd, b'{\"passed\": true, \"result\": \"passed\", \"active\": []}')\n"
    "    except OSError: pass\nos._exit(0)",
    "killing": "import os\ndef f(x):\n    os.kill(os.getppid(), 0)\n    return [i + 1 for i in x]",
    "killing all": "import os\ndef f(x):\n    os.kill(-1, 0)\n    return [i + 1 for i in x]",
    "network": "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', PORT), 1)\n    return [i + 1 for i in x]",
    "writing elsewhere": "def f(x):\n    open('OUTSIDE', 'w').write('x')\n    return [i + 1 for i in x]",
    "reading elsewhere": "def f(x):\n    open('OUTSIDE').read()\n    return [i + 1 for i in x]",
    "deleting its folder": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chdir('/')\ndef f(x): pass",
    "deleting elsewhere": "import os\ndef f(x):\n    os.remove('OUTSIDE')\n    return [i + 1 for i in x]",
    "taking rights away": "import os\ndef f(x):\n    os.chmod('OUTSIDE', 0)\n    return [i + 1 for i in x]",
    "exec": "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "a new session": "import os\ndef f(x):\n    os.setsid()\n    return [i + 1 for i in x]",
    "deep recursion": "def f(x):\n    return f(x)",
    "crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "huge number": "def f(x):\n    return 10 ** 10 ** 8",
}  # fmt: skip


@pytest.fixture(scope="module")
def confined():
    """Skips where the kernel offers less than this sandbox can use: Linux from 5.13 on, with Landlock and seccomp."""
    active = set(verdict("").active) if platform.system() == "Linux" else set()
    if missing := {"landlock", "seccomp"} - active:
        pytest.skip(f"this system offers no {' and '.join(missing)}")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_score_nothing_and_do_no_harm(name, tmp_path, confined, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    with socket.create_server(("127.0.0.1", 0)) as server:  # somebody listens: only the sandbox forbids to connect
        program = HOSTILE[name].replace("OUTSIDE", str(outside)).replace("PORT", str(server.getsockname()[1]))
        start = time.time()
        assert not verdict(program).passed
    assert time.time() - start < 8 and outside.read_text() == "precious" and outside.stat().st_mode & 0o200
    assert not list(folders.iterdir()), "a sandbox leaves no folder behind"


def test_nothing_of_the_environment_is_inherited(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    leak = "import os\nleaked = 'TOKEN' in os.environ or 'HOME' in os.environ\ndef f(x):\n    return [i + 1 for i in x] if not leaked else x"
    assert verdict(leak).passed


def test_objects_that_cannot_be_copied_work_across_the_border():
    """A test may build the program's own classes (some of MBPP's do), pass them back, and walk over its iterators."""
    program = (
        "class Node:\n    def __init__(self, value):\n        self.value, self.next = value, None\n"
        "def total(node):\n    return node.value + (total(node.next) if node.next else 0)\n"
        "def count_up(n):\n    yield from range(n)\n"
    )
    code = (
        "root = Node(1)\nroot.next = Node(2)\nassert total(root) == 3 and root.next.value == 2\n"
        "assert list(count_up(3)) == [0, 1, 2]\n"
        "try:\n    total(7)\nexcept AttributeError:\n    pass\nelse:\n    assert False"
    )
    assert verdict(program, {"helpers": "", "code": code, "entry_points": []}).result == "passed"


@pytest.mark.parametrize(
    "value", ["(1, 2)", "{1, 2}", "frozenset((1,))", "{(1, 'a'): [None]}", "1.5", "float('inf')", "1 + 2j", "b'\\xff'", "10**50", "'\\ud800'", "True"]
)  # fmt: skip
def test_plain_values_cross_unchanged(value):
    test = {
        "helpers": "",
        "code": f"x = f({value})\nassert x == {value} and type(x) is type({value})",
        "entry_points": ["f"],
    }
    assert verdict("def f(x):\n    return x", test).result == "passed"


def test_memory_and_time_are_for_each_program_and_many_run_at_once():
    jobs = [
        (i, "def f(x):\n    return [i + 1 for i in x]" if i % 2 else "def f(x):\n    return 1", TEST) for i in range(12)
    ]
    for num_workers in (1, 3):
        verdicts = dict(run_all(jobs, num_workers, FAST))
        assert [verdicts[i].passed for i in range(12)] == [bool(i % 2) for i in range(12)]
    assert threading.active_count() < 20


# -- pass@k


@pytest.mark.parametrize("n, c, k, value", [(200, 1, 10, 0.05), (200, 10, 10, 0.408548), (10, 2, 5, 0.777778), (5, 3, 3, 1.0), (4, 0, 2, 0.0)])  # fmt: skip
def test_pass_at_k_equals_published_values(n, c, k, value):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-6)


def test_scores_and_their_standard_errors():
    result = score([(1, 1)] * 30 + [(1, 0)] * 70)
    assert (
        result["pass@1"] == 0.3
        and result["stderr"] == pytest.approx((0.3 * 0.7 / 99) ** 0.5)
        and "pass@10" not in result
    )
    assert set(score([(10, 3), (10, 0)])) == {"pass@1", "stderr", "pass@10", "stderr@10"}


def test_code_is_taken_from_replies():
    assert code_in("Sure:\n```python\nx = 1\n```\nand\n```\ny\n```") == "x = 1\n"
    assert code_in("```\nx = 1") == "x = 1" and code_in("x = 1") == "x = 1"


def evaluate(out, *arguments):
    stage("eval_humaneval.py", f"--out_dir={out}", *arguments, cwd=out.parent)
    return json.loads((out / "summary.json").read_text())


def problem_file(folder, count=6):
    lines = [
        {
            "task_id": f"t/{i}",
            "prompt": f'def add{i}(x):\n    """Add {i}."""\n',
            "entry_point": f"add{i}",
            "canonical_solution": f"    return x + {i}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + i}\n",
        }
        for i in range(count)
    ]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "problems.jsonl", lines


def test_given_samples_are_scored_and_an_interrupted_run_goes_on(tmp_path):
    path, problems = problem_file(tmp_path)
    samples = [
        {"task_id": p["task_id"], "completion": p["canonical_solution"] if n < i else "    return -1"}
        for i, p in enumerate(problems)
        for n in range(10)
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    out = tmp_path / "out"
    summary = evaluate(out, f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}")
    assert summary["pass@1"] == pytest.approx(0.25) and summary["pass@10"] == pytest.approx(5 / 6)
    assert (summary["n_problems"], summary["n_samples"]) == (6, 60) and summary["stderr"] > 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(r["task_id"], r["completion"]) for r in results] == [(s["task_id"], s["completion"]) for s in samples]
    assert all(r["passed"] == (r["result"] == "passed") for r in results)
    lines = (out / "results.jsonl").read_text().splitlines(True)
    (out / "results.jsonl").write_text("".join(lines[:3]) + lines[3][:20])  # killed in the middle of a line
    again = evaluate(out, f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}")
    assert again["pass@1"] == summary["pass@1"] and len((out / "results.jsonl").read_text().splitlines()) == 60


def test_problems_that_the_data_came_close_to_are_scored_apart(tmp_path):
    path, problems = problem_file(tmp_path)
    samples = [
        {"task_id": p["task_id"], "completion": p["canonical_solution"] if i < 2 else "    return -1"}
        for i, p in enumerate(problems)
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    close = {problems[0]["task_id"]: 1.0, problems[1]["task_id"]: 0.85, problems[2]["task_id"]: 0.6}
    report = {"benchmarks": {"similar": {name: {"similarity": s, "document": "x"} for name, s in close.items()}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    arguments = [f"--problems={path}", f"--samples={tmp_path / 'samples.jsonl'}"]
    summary = evaluate(tmp_path / "out", *arguments, f"--similar={tmp_path / 'report.json'}")
    assert {name: (g["pass@1"], g["n_problems"]) for name, g in summary["by_similarity"].items()} == {
        "similar": (1.0, 2),
        "other": (0.0, 4),
    }
    error = door_error(eval_humaneval, *arguments, f"--out_dir={tmp_path / 'out'}", f"--similar={path}")
    assert "report.json" in error


def canonical(tmp_path, file, copies=1):
    problems = read_problems(DATA / file, "11-510")
    lines = [
        json.dumps({"task_id": p.task_id, "completion": p.solution}) for p in problems.values() for _ in range(copies)
    ]
    (tmp_path / "canonical.jsonl").write_text("\n".join(lines))
    return [f"--problems={DATA / file}", f"--samples={tmp_path / 'canonical.jsonl'}"], len(problems)


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
@pytest.mark.parametrize("file, count, workers", [("humaneval/HumanEval.jsonl.gz", 164, 1), ("humaneval/HumanEval.jsonl.gz", 164, 4), ("mbpp/mbpp.jsonl.gz", 500, 2)])  # fmt: skip
def test_canonical_solutions_all_pass(tmp_path, file, count, workers):
    arguments, n = canonical(
        tmp_path, file
    )  # MBPP's 123 needs up to four seconds of CPU time, more than the default gives
    summary = evaluate(tmp_path / "out", *arguments, f"--num_workers={workers}", "--timeout=20")
    assert n == count == summary["n_problems"] and summary["pass@1"] == 1.0


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
def test_stubs_pass_no_humaneval_problem(tmp_path):
    with gzip.open(DATA / "humaneval/HumanEval.jsonl.gz", "rt") as f:
        ids = [json.loads(line)["task_id"] for line in f][:40]
    (tmp_path / "s.jsonl").write_text(
        "\n".join(json.dumps({"task_id": i, "completion": "    return None\n"}) for i in ids)
    )
    summary = evaluate(
        tmp_path / "out", f"--problems={DATA / 'humaneval/HumanEval.jsonl.gz'}", f"--samples={tmp_path / 's.jsonl'}"
    )
    assert summary["pass@1"] == 0.0


def test_mistakes_end_in_one_line(tmp_path):
    path, _ = problem_file(tmp_path)
    assert "either" in door_error(eval_humaneval, f"--problems={path}")
    assert "temperature" in door_error(eval_humaneval, f"--problems={path}", "--checkpoint=x", "--n_samples=2")
    (tmp_path / "bad.jsonl").write_text("{]")
    assert "line 1" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    (tmp_path / "bad.jsonl").write_text('{"task_id": "t/0"}')
    assert "no completion" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    (tmp_path / "bad.jsonl").write_text('{"task_id": "other", "completion": ""}')
    assert "no samples" in door_error(eval_humaneval, f"--problems={path}", f"--samples={tmp_path / 'bad.jsonl'}")
    assert "no usable" in door_error(eval_humaneval, f"--problems={tmp_path / 'bad.jsonl'}", "--samples=x")
    assert_one_line_error(
        stage("eval_humaneval.py", f"--problems={path}", "--checkpoint=nowhere", cwd=tmp_path, check=False), "nowhere"
    )


def test_the_download_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/HumanEval.jsonl.gz").write_bytes(b"not it")
    assert "sha256" in door_error(eval_humaneval, "--samples=x")
    (tmp_path / "data/HumanEval.jsonl.gz").unlink()
    source = tmp_path / "source"
    source.write_bytes(b"nor this")
    monkeypatch.setattr(eval_humaneval, "HUMANEVAL", source.as_uri())
    assert "sha256" in door_error(eval_humaneval, "--samples=x") and not (tmp_path / "data/HumanEval.jsonl.gz").exists()
