"""Repositories: their files lie in one document, in their order, with the special tokens that tell them apart."""

import json

import numpy as np
import pytest
from conftest import program
from test_copies import prepare, work  # noqa: F401, a fixture

from configurator import UserError
from corpus.documents import Document, read
from shards import Shards
from tokenizer import SPECIAL_TOKENS, Tokenizer

BAD = program(9) + "x = (\n"  # no program


def row(name, **files):
    """A record as the-stack-v2-train-*-ids has them, with the texts that their blobs hold."""
    entries = [{"path": path.replace("_", "/") + ".py", "content": text} for path, text in files.items()]
    return {"repo_name": name, "repo_url": "u", "star_events_count": 3, "files": entries}


@pytest.fixture
def repositories(work):  # noqa: F811
    """A file of three repositories of which one has a bad file, and one nothing else."""
    rows = [row("ada/a", x=program(1), y=BAD, lib_z=program(2)), row("ada/b", x=program(3)), row("ada/c", x=BAD)]
    (work / "r.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return work


def documents_in(folder, split):
    """The documents of a shard folder, decoded."""
    tokenizer, shards = Tokenizer.load(f"{folder}/tokenizer.json"), Shards(folder, split)
    return [tokenizer.decode(shards.tokens(start + 1, n - 1)) for start, n in zip(*shards.documents(tokenizer.eot))]


def test_files_stay_together(repositories):
    prepare(["r.jsonl"], filters=True, val_fraction=0.0, replace_pii=False)
    assert documents_in("out", "train") == [
        f"<|repo_name|>ada/a<|file_sep|>x.py\n{program(1)}<|file_sep|>lib/z.py\n{program(2)}",
        f"<|repo_name|>ada/b<|file_sep|>x.py\n{program(3)}",
    ]
    dropped = [json.loads(line) for line in open("out/dropped.jsonl")]
    assert {(line["id"], line["rule"]) for line in dropped} >= {
        ("r.jsonl:1:y.py", "syntax"),
        ("r.jsonl:3:x.py", "syntax"),
    }
    steps = {step["step"]: step for step in json.load(open("out/report.json"))["steps"]}
    assert steps["read"]["documents"] == 5, "three repositories, and two files that are dropped by themselves"
    assert steps["filters"]["rules"]["syntax"]["documents"] == 2 and steps["near_dedup"]["kept"]["documents"] == 2
    assert steps["filters"]["kept"]["bytes"] == steps["read"]["bytes"] - 2 * len(BAD.encode())


def test_marks_in_a_text_are_only_text(work):  # noqa: F811
    """No file makes a special token, whatever it says."""
    text = program(4) + "# <|file_sep|><|endoftext|>\n"
    (work / "r.jsonl").write_text(json.dumps(row("ada/<|repo_name|>", x=text)))
    prepare(["r.jsonl"], filters=False, val_fraction=0.0)
    shards = Shards("out", "train")
    ((start,), (length,)) = shards.documents(256)
    tokens = np.array(shards.tokens(start, length))
    names = [SPECIAL_TOKENS[i - 256] for i in tokens[tokens >= 256]]
    assert names == ["<|endoftext|>", "<|repo_name|>", "<|file_sep|>"]


def test_licences_and_addresses_go_from_every_file(work):  # noqa: F811
    header = "# Copyright 2020 Ada\n# Licensed under the MIT License\n\n"
    text = header + program(5) + "MAIL = 'ada.lovelace@analytical.org'\n"
    (work / "r.jsonl").write_text(json.dumps(row("ada/a", x=text, y=text.replace("MAIL", "POST"))))
    prepare(["r.jsonl"], filters=False, val_fraction=0.0)
    (found,) = documents_in("out", "train")
    assert "Copyright" not in found and "analytical" not in found and found.count("<|file_sep|>") == 2


def test_a_file_that_is_none_is_told_and_the_others_stay(tmp_path):
    record = row("ada/a", x="print(1)\n")
    record["files"] += [{"path": "n.py", "content": None}, 7, {"path": "e.py", "content": " "}]
    (tmp_path / "r.jsonl").write_text(json.dumps(record))
    *problems, last = read(str(tmp_path / "r.jsonl"))
    assert [(found.where, found.rule) for found in problems] == [
        ("r.jsonl:1:n.py", "no_text"),
        ("r.jsonl:1:2", "bad_json"),
        ("r.jsonl:1:e.py", "empty"),
    ]
    assert isinstance(last, Document) and last.files == [("x.py", "print(1)\n")] and last.meta["repo"] == "ada/a"


@pytest.mark.parametrize("chats, words", [(False, "'FILE?text={body}'"), (True, "?user={question}&assistant={reply}")])
def test_a_shape_that_nobody_knows_is_an_error_that_says_what_to_write(work, chats, words):  # noqa: F811
    (work / "odd.jsonl").write_text('{"headline": "x", "story": "y"}\n')
    with pytest.raises(UserError, match="fields: headline, story") as raised:
        prepare(["odd.jsonl"], chats=chats)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_left_out_first_does_not_decide_about_the_rest(tmp_path, monkeypatch):
    """A bad line or an unwanted row in front, and the texts of the rows behind it are fetched all the same."""
    from corpus import blobs

    def completed(items, *_, **__):
        for record, where in items:
            yield {**record, "content": f"text of {record['blob_id']}"}, where

    monkeypatch.setattr(blobs, "completed", completed)
    rows = ['{"bad', json.dumps({"blob_id": "a", "n": 1}), json.dumps({"blob_id": "b", "n": 2})]
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    *problems, found = read(f"{tmp_path}/r.jsonl?keep=n > 1")
    assert [problem.rule for problem in problems] == ["bad_json", "not_wanted"] and found.text == "text of b"


def test_a_condition_on_a_field_of_files_is_asked_of_each(tmp_path):
    """The licence of a file of The Stack v2 decides about that file alone."""
    record = row("ada/a", x="print(1)\n", y="print(2)\n")
    for entry, license_type in zip(record["files"], ("permissive", "no_license")):
        entry["license_type"] = license_type
    (tmp_path / "r.jsonl").write_text(json.dumps(record))
    problem, found = read(f"{tmp_path}/r.jsonl?keep=license_type != 'no_license'&keep=star_events_count >= 3")
    assert (problem.where, problem.rule) == ("r.jsonl:1:y.py", "not_wanted") and len(found.files) == 1
    (problem,) = read(f"{tmp_path}/r.jsonl?keep=star_events_count >= 4")
    assert (problem.where, problem.rule) == ("r.jsonl:1", "not_wanted")
