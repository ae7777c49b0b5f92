"""The command that compares two versions of the code sees differences, and tables line up."""

import json

import pytest
import torch
from conftest import door_error

from experiments import common, same_results


def a_run(out, loss=2.5, weight=1.0, passed=True):
    """A folder such as same_results.run_pipeline leaves, with one step and one tensor."""
    for folder in ("exercises", "code", "pages", "chats"):
        (out / folder).mkdir(parents=True)
    (out / "code" / "train_000000.bin").write_bytes(b"tokens")
    for stage in same_results.TRAINING:
        (out / stage / "step_00000001").mkdir(parents=True)
        step = {"step": 1, "loss": loss, "tokens_per_second": id(out)}
        validation = {"step": 1, "val_loss": 3.0, "sources": {f"{out}/code": {"val_loss": 3.0}}}
        (out / stage / "metrics.jsonl").write_text(json.dumps(step) + "\n" + json.dumps(validation) + "\n")
        torch.save({"norm.weight": torch.tensor([weight])}, out / stage / "step_00000001" / "model.pt")
    for name in ("eval-model", "eval-solutions"):
        (out / name).mkdir()
        record = {"task_id": "lists/0", "completion": "    return 1\n", "passed": passed, "seconds": id(out)}
        (out / name / "results.jsonl").write_text(json.dumps(record) + "\n")
    return same_results.results(out)


def differences(before, after):
    """{what: verdict} of the rows that are not equal."""
    return {what: verdict for what, _, verdict in same_results.compare(before, after) if verdict != "equal"}


def test_equal_runs_in_two_folders_and_at_two_speeds_are_equal(tmp_path):
    before, after = a_run(tmp_path / "before"), a_run(tmp_path / "after")
    assert differences(before, after) == {}
    assert {"pretrain: loss", "sft: weights", "code: files", "eval-model: passed"} <= before.keys()


@pytest.mark.parametrize(
    "change, what, words",
    [
        ({"loss": 2.5000000000000004}, "pretrain: loss", "1 differ, step 1: 2.5 -> 2.5000000000000004"),
        ({"weight": 1.0000001}, "anneal: weights", "norm.weight"),
        ({"passed": False}, "eval-solutions: passed", "lists/0: True -> False"),
    ],
)
def test_the_smallest_difference_is_named(tmp_path, change, what, words):
    found = differences(a_run(tmp_path / "before"), a_run(tmp_path / "after", **change))
    assert words in found[what]


def test_what_only_one_version_has_is_a_difference(tmp_path):
    before, after = a_run(tmp_path / "before"), a_run(tmp_path / "after")
    del after["code: files"]["train_000000.bin"]
    (what, verdict), *others = differences(before, after).items()
    assert what == "code: files" and not others
    assert verdict.startswith("1 differ, train_000000.bin: 6 bytes") and verdict.endswith(" -> missing")


def test_an_unknown_commit_is_one_line():
    assert "no commit 'nowhere'" in door_error(same_results, "--before=nowhere")


def test_a_table_lines_up(capsys):
    common.print_table(["", "files", "most by"], [["stdlib", "31", "long"], ["all", "1,031", "short"]], "<><")
    assert capsys.readouterr().out == "        files  most by\nstdlib     31  long\nall     1,031  short\n"
