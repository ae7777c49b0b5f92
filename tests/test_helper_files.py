"""Files that are read beside the sources, damaged in every way: benchmarks, prompts, labels. One line each."""

import gzip
import json
import os

import pytest
from conftest import door_error, program

from cleaning import classifier, decontaminate
from cleaning.view import View
from configurator import UserError
from corpus import records
from corpus.chats import Prompts
from evaluation.problems import read_problems

GOOD = json.dumps(
    {"task_id": "T/0", "prompt": program(1), "canonical_solution": "", "test": "", "entry_point": "f"}
).encode()
DAMAGED = {
    "not UTF-8": b'{"prompt": "\xff"}',
    "cut off": b'{"prompt": "a',
    "deep": b"[" * 100_000,
    "deep value": b'{"prompt": ' + b"[" * 100_000,
    "zeros": b"\0" * 999,
    "a list": b'["prompt"]',
    "a number": b"5",
    "more behind it": GOOD + b" b",
}


def one_line(error, *words):
    """The message of a UserError is one line, not a long one, and holds the words."""
    message = str(error.value)
    assert "\n" not in message and len(message) < 400 and all(word in message for word in words), message


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(
    "load",
    [
        lambda path: decontaminate.load([path]),
        lambda path: read_problems(path, "1"),
        lambda path: list(records.read_lines(path)),
    ],
)
def test_a_damaged_line_of_a_benchmark_is_named(tmp_path, load, compress, line):
    path = tmp_path / "bench.jsonl"
    path.write_bytes(compress(GOOD + b"\n\n" + line + b"\n"))
    with pytest.raises(UserError) as error:
        load(path)
    one_line(error, "bench.jsonl", "line 3")


@pytest.mark.parametrize("line", [b'{"prompt": ' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}"])
def test_a_benchmark_that_is_nested_too_deeply_is_named(tmp_path, line):
    (tmp_path / "bench.jsonl").write_bytes(line)
    with pytest.raises(UserError) as error:
        decontaminate.load([tmp_path / "bench.jsonl"])
    one_line(error, "line 1", "nested too deeply")


def test_a_benchmark_with_names_that_are_not_unicode_is_read(tmp_path):
    record = {"task_id": "\udce9/\ud800", "\udfff": "x", "entry_point": "\ud83d", "prompt": f"\ud800\n{program(3)}"}
    (tmp_path / "bench.jsonl").write_text(json.dumps(record))
    benchmarks = decontaminate.load([tmp_path / "bench.jsonl"])
    number, _ = decontaminate.copied(View(program(3)), benchmarks)
    assert benchmarks.names[number] == "\udce9/\ud800"


@pytest.mark.parametrize("data, words", [(b"\xff\xfeM\0", ""), (b"\xef\xbb\xbfMend:\n", None), ("Mend:".encode("utf-16"), None), (b"Mend\xe9:", "UTF-8"), ("Mend".encode("utf-16-le"), "UTF-8"), (b"", "no prompt"), (b" \n\t\n", "no prompt"), (b"\xef\xbb\xbf", "no prompt"), (b"\xff\xfeM", "cannot read"), (b"\x1f\x8b", "cannot read")])  # fmt: skip
def test_prompt_files_in_other_encodings_are_read_or_named(tmp_path, data, words):
    (tmp_path / "fix.pre.prompt").write_bytes(data)
    if not words:
        assert Prompts(tmp_path).by_type["fix"][0][1] in ("M", "Mend:")
        return
    with pytest.raises(UserError) as error:
        Prompts(tmp_path)
    one_line(error, "fix.pre.prompt", words)


def test_a_pipe_among_the_helper_files_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "fix.pre.prompt")
    os.mkfifo(tmp_path / "x.jsonl")
    for read in (
        lambda: Prompts(tmp_path),
        lambda: decontaminate.load([tmp_path / "x.jsonl"]),
        lambda: classifier.Scores(tmp_path / "x.jsonl"),
        lambda: classifier.Classifier.load(tmp_path / "x.jsonl"),
    ):
        with pytest.raises(UserError, match="not a regular file"):
            read()


def labelled(lines):
    """A file's bytes: lines, and 40 programs with both labels."""
    good = [json.dumps({"text": program(i, 5), "label": i % 2}).encode() for i in range(40)]
    return b"\n".join([*good[:20], *lines, *good[20:]])


def test_damaged_labels_are_counted_and_cost_themselves_alone(tmp_path, capsys):
    lines = [line for name, line in DAMAGED.items() if name not in ("a list", "a number", "more behind it")]
    lines += [b'{"text": "\\ud800", "label": 1}', b'{"text": "", "label": 1}', b'{"label": 1}']
    (tmp_path / "labels.jsonl").write_bytes(labelled(lines))
    settings = classifier.Settings(labelled=[str(tmp_path / "labels.jsonl")], held_out=0.5, out=str(tmp_path / "q.npz"))
    classifier.main(settings)
    printed = capsys.readouterr().out
    assert "skipped: " in printed and "4 bad_json" in printed and "2 bad_utf8" in printed


@pytest.mark.parametrize(
    "line", [b'{"text": "a"}', b'{"text": "a", "label": null}', b'["text"]', b"5", b'{"text": "a"} b']
)
def test_a_record_without_a_label_is_named(tmp_path, line):
    (tmp_path / "labels.jsonl").write_bytes(labelled([line]))
    error = door_error(classifier, f"--labelled={tmp_path / 'labels.jsonl'}", f"--out={tmp_path / 'q.npz'}")
    assert "labels.jsonl:21 has no label" in error
