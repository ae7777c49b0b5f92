"""What a learnt classifier and a score file drop, and the numbers by which a threshold is chosen."""

import os
import re

import numpy as np
import pytest
from conftest import door_error, dropped, prepare, program, rules_of, stage, write_records

import prepare_data
from cleaning import classifier
from cleaning.view import View
from configurator import UserError


def labelled(tmp_path, n=300):
    """Programs against prose of the same words: n-grams of punctuation tell them apart, single words do not."""
    records = [{"text": program(seed, lines=6), "label": 1} for seed in range(n)]
    records += [{"text": " ".join(re.findall(r"\w+", program(seed + 1000, lines=6))), "label": 0} for seed in range(n)]
    return write_records(tmp_path / "labelled.jsonl", records)


def test_a_classifier_is_learnt_and_documents_are_dropped_by_it(workdir, tmp_path):
    learn = ("cleaning.classifier", f"--labelled={labelled(tmp_path)}")
    result = stage(*learn, f"--out={tmp_path / 'q.npz'}", cwd=tmp_path)
    assert float(re.search(r"AUC ([\d.]+)", result.stdout)[1]) > 0.95 and "chosen" in result.stdout
    learnt = classifier.Classifier.load(tmp_path / "q.npz")
    prose = " ".join(re.findall(r"\w+", program(5000, lines=6)))
    scores = [learnt.score(View(text)) for text in (program(5001, lines=6), prose)]
    assert scores[0] > learnt.threshold > scores[1]
    mixed = write_records(tmp_path / "mixed.jsonl", [{"text": prose}, {"text": program(5002, lines=6)}])
    arguments = (f"--quality={tmp_path / 'q.npz'}", "--filters=false", "--val_fraction=0")
    prepare(workdir, mixed, tmp_path / "x", *arguments)
    assert rules_of(tmp_path / "x") == {"mixed.jsonl:1": "low_quality"}
    again = stage(*learn, f"--out={tmp_path / 'r.npz'}", cwd=tmp_path, forks=False)  # with another hash seed
    tables = [run.stdout.split("classifier")[0] for run in (result, again)]
    assert tables[0] == tables[1], "the same seed, the same classifier"


def test_a_set_of_one_label_needs_none_in_its_records_and_other_sets_are_the_test(tmp_path, capsys):
    """Precision and recall of what is kept of the other sets, counted by hand."""
    code = write_records(tmp_path / "code.jsonl", [{"question": "q?", "answer": program(n)} for n in range(80)])
    prose = [" ".join(re.findall(r"\w+", program(n + 500))) for n in range(80)]
    talk = write_records(tmp_path / "talk.jsonl", [{"question": "q?", "answer": text} for text in prose])
    # Half of what is called talk here is code: the classifier keeps it, and its precision is 2 in 3.
    mixed = [program(n + 900) for n in range(20)] + [" ".join(re.findall(r"\w+", program(n + 1500))) for n in range(20)]
    other = write_records(tmp_path / "other.jsonl", [{"instruction": text, "output": "a"} for text in mixed])
    more = write_records(
        tmp_path / "more.jsonl", [{"instruction": program(n + 2000), "output": "a"} for n in range(40)]
    )
    settings = classifier.Settings(out=str(tmp_path / "q.npz"))
    settings.labelled = [f"{code}?label=1", f"{talk}?label=0&documents=70"]
    settings.tested_on = [f"{more}?label=1", f"{other}?label=0"]
    classifier.main(settings)
    printed = capsys.readouterr().out
    train, held_out = map(int, re.search(r"(\d+) documents for training, (\d+) held out", printed).groups())
    assert train + held_out == 150, "the budget of a source holds here too"
    assert "precision 66.7%, recall 100.0%" in printed
    assert re.search(r"other.jsonl\?label=0 +0 +40 +50.0%", printed)


def test_auc_and_thresholds_are_those_of_counting():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.round(rng.random(200) + 0.3 * labels, 2)  # with ties
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert classifier.auc(scores, labels) == pytest.approx(np.mean(pairs))
    for threshold, share, precision, recall, f in classifier.thresholds(scores, labels, beta=2.0)[::7]:
        kept = scores >= threshold
        assert share == pytest.approx(kept.mean()) and precision == pytest.approx(labels[kept].mean())
        assert recall == pytest.approx(labels[kept].sum() / labels.sum())
        assert f == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_mistakes_in_labels_are_named(tmp_path):
    assert "labelled" in door_error(classifier)
    (tmp_path / "l.jsonl").write_text('{"text": "x"}')
    assert "no label" in door_error(classifier, f"--labelled={tmp_path / 'l.jsonl'}")
    for text in ('"\udcff"', '"\\ud800"'):  # a byte that is not UTF-8, half of a surrogate pair
        line = f'{{"text": {text}, "label": 1}}'
        (tmp_path / "l.jsonl").write_bytes(line.encode("utf-8", "surrogateescape"))
        assert "one label only (0" in door_error(classifier, f"--labelled={tmp_path / 'l.jsonl'}")
    write_records(tmp_path / "l.jsonl", [{"text": program(i), "label": "good"} for i in range(30)])
    error = door_error(classifier, f"--labelled={tmp_path / 'l.jsonl'}")
    assert "one label only" in error and "--held_out=0.2" in error and "--positive=1" in error
    once, twice = ([tmp_path / "l.jsonl"], [tmp_path / "l.jsonl", f"{tmp_path}/./l.jsonl"])
    for sources in (once, twice):
        assert len(list(classifier.labelled_documents(list(map(str, sources)), "good"))) == 30, "each file counts once"


def test_a_classifier_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        classifier.Classifier(np.zeros(2**classifier.BUCKETS_LOG2, np.float32), 0.0, 0.5).save(tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_documents_are_dropped_by_a_score_file(workdir, tmp_path):
    for i in range(4):
        (tmp_path / f"f{i}.py").write_text(program(i))
    scores = [{"id": f"f{i}.py", "score": float(i)} for i in range(3)]
    (tmp_path / "s").mkdir()
    scores = write_records(tmp_path / "s/scores.jsonl", scores)
    arguments = (f"--scores={scores}", "--min_score=0.5", "--max_score=1.5", "--val_fraction=0")
    prepare(workdir, tmp_path, tmp_path / "s/x", *arguments)
    drops = {name: detail for name, (rule, detail) in dropped(tmp_path / "s/x").items() if rule == "score"}
    assert set(drops) == {"f0.py", "f2.py", "f3.py"} and drops["f3.py"] == "no score"


BAD_SCORES = [
    b'{"id": "a"}',
    b'{"id": "\xff", "score": 1}',
    b'{"id": "a", "score": 1' + b"0" * 400 + b"}",
    b'{"id": "a", "score": 1' + b"0" * 5000 + b"}",
    b'{"id": "a", "score": NaN}',
    b'{"id": "a", "score": null}',
    b'{"id": "a", "score": [1]}',
    b'{"id": 1, "score": 1}',
    b'{"id": ["a"], "score": 1}',
    b'{"id": "a", "source": {}, "score": 1}',
    b'{"id": "x", "score": 2}',  # x has another score above
    b'["a", 1]',
    b"[" * 100_000,
    b'{"id": "a", "score": 1} and more',
    b"\0" * 99,
]


@pytest.mark.parametrize("line", BAD_SCORES)
def test_a_bad_score_file_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b'{"id": "x", "score": 1}\n{"id": "x", "score": 1}\n' + line)
    with pytest.raises(UserError, match=r"scores.jsonl.*\bline 3\b") as error:
        classifier.Scores(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_bad_score_file_stops_the_stage_before_anything_is_written(workdir, tmp_path):
    (tmp_path / "scores.jsonl").write_bytes(b"")
    arguments = (f"--tokenizer={workdir / 'data/tokenizer.json'}", f"--out_dir={tmp_path / 'x'}")
    error = door_error(prepare_data, f"--scores={tmp_path / 'scores.jsonl'}", *arguments)
    assert "no scores in" in error and not (tmp_path / "x").exists()


BUCKETS = {"used": np.arange(3), "weights": np.ones(3, np.float32), "bias": 0.0, "threshold": 0.5}
BAD_ARRAYS = {
    "nan": {"weights": np.array([1, np.nan, 1])},
    "objects": {"weights": np.array([{}, 1, 2], object)},  # loading these would run a pickle
    "complex": {"weights": np.ones(3) * 1j},
    "fewer": {"weights": np.ones(2)},
    "negative": {"used": np.array([-1, 0, 1])},
    "too high": {"used": np.array([0, 1, 2**30])},
    "fractions": {"used": np.array([0.0, 1.5, 2.0])},
    "no number": {"bias": "x"},
    "several": {"bias": np.ones(2)},
    "nan threshold": {"threshold": np.nan},
}


@pytest.mark.parametrize("arrays", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_are_no_classifier_are_named(tmp_path, arrays):
    np.savez_compressed(tmp_path / "q.npz", **BUCKETS)
    assert classifier.Classifier.load(tmp_path / "q.npz").threshold == 0.5
    np.savez_compressed(tmp_path / "q.npz", **{**BUCKETS, **arrays})
    with pytest.raises(UserError, match="no classifier"):
        classifier.Classifier.load(tmp_path / "q.npz")


def test_a_classifier_that_is_cut_off_or_lacks_a_part_is_named(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", **BUCKETS)
    np.savez_compressed(tmp_path / "q.npz", used=np.arange(3), bias=0.0, threshold=0.5)
    whole = (tmp_path / "whole.npz").read_bytes()
    for data in [(tmp_path / "q.npz").read_bytes(), *(whole[:n] for n in range(0, len(whole), 50))]:
        (tmp_path / "q.npz").write_bytes(data)
        with pytest.raises(UserError, match="no classifier"):
            classifier.Classifier.load(tmp_path / "q.npz")


@pytest.mark.parametrize("data", [b"x" * 99, b"PK\3\4" + b"x" * 99, b"\x93NUMPY\1\0"])
def test_a_file_that_is_no_classifier_is_named(tmp_path, data):
    (tmp_path / "q.npz").write_bytes(data)
    with pytest.raises(UserError, match="no classifier"):
        classifier.Classifier.load(tmp_path / "q.npz")


def test_a_classifier_takes_no_device_s_place(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file: .*pipe"):
        classifier.Classifier(np.zeros(1 << classifier.BUCKETS_LOG2, np.float32), 0.0, 0.4).save(tmp_path / "pipe")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"] and (tmp_path / "pipe").is_fifo()
