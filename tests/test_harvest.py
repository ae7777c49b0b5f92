"""What is harvested of samples: each program once, what passed as chats, and pairs of one that passed with one that
failed."""

import json

import pytest
from conftest import assert_one_line_error, stage, write_records
from test_evaluation import problem_file

from corpus import chats
from evaluation import harvest
from evaluation.replies import code_in


def samples(counts):
    """Records of results.jsonl: for each problem so many different programs that passed, and that failed."""
    records = []
    for task_id, n_passed, n_failed in counts:
        for passed, n in ((True, n_passed), (False, n_failed)):
            records += [{"task_id": task_id, "completion": f"x = {i}{passed}\n", "passed": passed} for i in range(n)]
    return records


@pytest.fixture
def harvested(tmp_path):
    path, problems = problem_file(tmp_path, count=4)
    records = samples([("t/0", 5, 2), ("t/1", 0, 3), ("t/2", 3, 0), ("t/3", 1, 4)])
    records += records[:3]  # drawn again
    write_records(tmp_path / "results.jsonl", records)
    places = {"results": str(tmp_path / "results.jsonl"), "problems": str(path), "out_dir": str(tmp_path / "out")}
    harvest.main(harvest.Settings(**places, per_problem=4))
    found = {}
    for name in ("passed", "pairs"):
        found[name] = [json.loads(line) for line in (tmp_path / f"out/{name}.jsonl").read_text().splitlines()]
    return problems, records, found


def test_chats_hold_programs_that_passed_each_once_and_no_problem_has_too_many(harvested):
    problems, records, found = harvested
    passed = {(record["task_id"], record["completion"].strip()) for record in records if record["passed"]}
    by_prompt = {}
    for chat in found["passed"]:
        user, assistant = chat["messages"]
        (problem,) = [problem for problem in problems if problem["prompt"].strip() in user["content"]]
        by_prompt.setdefault(problem["task_id"], []).append(code_in(assistant["content"]).strip())
        assert "messages" in json.loads(chats.from_record(chat, "here").text), "prepare_data.py reads it"
    assert {name: len(set(codes)) for name, codes in by_prompt.items()} == {"t/0": 4, "t/2": 3, "t/3": 1}
    assert all((name, code) in passed for name, codes in by_prompt.items() for code in codes)


def test_pairs_put_what_passed_before_what_failed(harvested):
    problems, _, found = harvested
    assert len(found["pairs"]) == 4 + 4, "t/0 and t/3 have both kinds"
    for pair in found["pairs"]:
        assert "True" in pair["chosen"] and "False" in pair["rejected"]
    three = [pair for pair in found["pairs"] if problems[3]["prompt"].strip() in pair["prompt"]]
    assert len({pair["rejected"] for pair in three}) == 4, "all that failed, before any is taken twice"


def test_mistakes_are_told_in_a_line(tmp_path):
    path, _ = problem_file(tmp_path, count=2)
    for records, words in (
        (samples([("t/0", 0, 2)]), ["nothing to learn from"]),
        (samples([("t/7", 1, 1)]), ["t/7"]),
        ([{"task_id": "t/0", "completion": "x"}], ["no verdicts", "eval_humaneval.py"]),
    ):
        write_records(tmp_path / "r.jsonl", records)
        found = stage(
            "evaluation.harvest", "--results=r.jsonl", f"--problems={path}", "--out_dir=out", cwd=tmp_path, check=False
        )
        assert_one_line_error(found, *words)
        assert not (tmp_path / "out").exists()
