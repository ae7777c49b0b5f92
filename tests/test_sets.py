"""Sets of problems: what is downloaded, several at once, and requests that leave the function's name open."""

import json

from conftest import door_error
from test_evaluation import evaluate, problem_file

import eval_humaneval
from corpus.benchmarks import DOWNLOADS


def test_the_download_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/HumanEval.jsonl.gz").write_bytes(b"not it")
    assert "sha256" in door_error(eval_humaneval, "--samples=x")
    (tmp_path / "data/HumanEval.jsonl.gz").unlink()
    source = tmp_path / "source"
    source.write_bytes(b"nor this")
    _, place, sha256 = DOWNLOADS["humaneval"]
    monkeypatch.setitem(DOWNLOADS, "humaneval", (source.as_uri(), place, sha256))
    assert "sha256" in door_error(eval_humaneval, "--samples=x") and not (tmp_path / "data/HumanEval.jsonl.gz").exists()
    monkeypatch.setitem(DOWNLOADS, "humaneval", ((tmp_path / "offline").as_uri(), place, sha256))
    error = door_error(eval_humaneval, "--samples=x")
    assert "curl -LO" in error and "copy it to data/HumanEval.jsonl.gz" in error


def test_several_sets_of_problems_are_scored_apart(tmp_path, monkeypatch, capsys):
    """Those that cannot be had are left out in one line; a problem without a family has its file's."""
    monkeypatch.chdir(tmp_path)
    for name in DOWNLOADS:
        monkeypatch.setitem(DOWNLOADS, name, ((tmp_path / "offline").as_uri(), f"data/{name}.jsonl", ""))
    path, lines = problem_file(tmp_path, count=3)
    other = {**lines[0], "task_id": "other/0", "family": "by_hand"}
    (tmp_path / "other.jsonl").write_text(json.dumps(other))
    answers = [{"task_id": line["task_id"], "completion": line["canonical_solution"]} for line in [*lines, other]]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, answers)))
    sets = f"humaneval,{path},mbpp,other.jsonl"
    eval_humaneval.main(eval_humaneval.Settings(problems=sets, samples="samples.jsonl", out_dir="out"))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert capsys.readouterr().out.count("left out: ") == 2
    assert {name: (score["n_problems"], score["pass@1"]) for name, score in summary["families"].items()} == {
        "by_hand": (1, 1.0),
        "problems": (3, 1.0),
    }
    assert "another file have problems of the same name" in door_error(
        eval_humaneval, f"--problems={path},{path}", "--samples=x"
    )


def test_a_request_leaves_the_name_open(tmp_path):
    """The last function that the answer defines is called, whatever its name."""
    test = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
    solution = "def add(a, b):\n    return a + b\n"
    record = {"task_id": "r/0", "request": "add two numbers pls", "canonical_solution": solution, "test": test}
    (tmp_path / "requests.jsonl").write_text(json.dumps(record))
    helper = "def helper(x):\n    return x\n\n\ndef plus(x, y):\n    return helper(x) + y\n"
    wrong = ["def plus(x, y):\n    return x\n", "I can't help with that.", ""]
    for completion, passes in [(helper, 1.0), *((text, 0.0) for text in wrong)]:
        (tmp_path / "samples.jsonl").write_text(json.dumps({"task_id": "r/0", "completion": completion}))
        arguments = f"--problems={tmp_path / 'requests.jsonl'}", f"--samples={tmp_path / 'samples.jsonl'}"
        assert evaluate(tmp_path / "out", *arguments)["pass@1"] == passes
