"""evaluation/score.py beyond the scores themselves, which test_evaluation.py compares with their definition."""

import json
import os

import pytest
from conftest import door_error, program
from test_evaluation import untrained  # noqa: F401

import evaluation.score
from cleaning.classifier import Scores

NOT_UNICODE = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd_source(tmp_path):
    """A folder whose names are not Unicode, with a file that cannot be read and a record with odd values."""
    folder = tmp_path / f"{NOT_UNICODE}-source"
    folder.mkdir()
    (folder / f"{NOT_UNICODE}.py").write_text(program(1))
    (folder / "bad.py").write_bytes(b"\xff")
    (folder / "x.jsonl").write_text(f'{{"\\ud800": 1, "content": {json.dumps(program(2))}, "id": "\\udfff"}}\n')
    os.symlink(".", folder / "again")
    return folder


def test_names_that_are_not_unicode_get_scores_and_what_has_none_is_counted(tmp_path, untrained, odd_source, capsys):  # noqa: F811
    out = tmp_path / "scores.jsonl"
    sources = [f"{odd_source}/", str(odd_source)]  # one place
    evaluation.score.main(evaluation.score.Settings(checkpoint=str(untrained), sources=sources, out=str(out)))
    lines = out.read_text(encoding="utf-8").splitlines()
    found = {record["id"]: (record["source"], record["score"]) for record in map(json.loads, lines)}
    assert len(lines) == 2 and found.keys() == {f"{NOT_UNICODE}.py", "x.jsonl:1"}
    scores = Scores(out, lowest=1e9)
    for where, (source, score) in found.items():
        assert source == str(odd_source)
        assert scores.objection(source, where) == f"score {score:.3f} < 1e+09"
    assert "without a score: 1 bad_utf8" in capsys.readouterr().out


def test_a_model_that_scores_nothing_is_named(tmp_path, untrained, odd_source, monkeypatch):  # noqa: F811
    def scored(model, tokenizer, batch, batch_size):
        yield from ((source, where, float("nan"), 1) for source, where, _ in batch)

    monkeypatch.setattr(evaluation.score, "scored", scored)
    arguments = (f"--checkpoint={untrained}", f"--sources={odd_source}", f"--out={tmp_path / 'scores.jsonl'}")
    assert "no finite score" in door_error(evaluation.score, *arguments)
    assert not (tmp_path / "scores.jsonl").exists()
