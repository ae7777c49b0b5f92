"""Readers: every format, every kind of damage, nothing lost silently."""

import gzip
import hashlib
import importlib
import json
import pickle
import sys
from types import SimpleNamespace

import pytest

from cleaning import prose
from configurator import UserError
from corpus import documents
from corpus.documents import Document, Problem, read


def texts(source):
    return [item.text for item in read(str(source)) if isinstance(item, Document)]


def problems(source):
    return [(item.where, item.rule) for item in read(str(source)) if isinstance(item, Problem)]


def test_stdlib_is_this_interpreters_library_without_its_tests():
    found = {item.where: item for item in read("stdlib") if isinstance(item, Document)}
    assert found["json/decoder.py"].text == open(json.decoder.__file__, encoding="utf-8").read()
    assert len(found) > 400 and all(where.endswith(".py") for where in found)
    assert not [where for where in found if {"test", "tests", "site-packages"} & set(where.split("/"))]


def test_a_folder_is_read_in_sorted_order_and_oddities_are_named(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    files = {
        "a.py": b"a = 1\n",
        "b/c.txt": "é\n".encode(),
        "b/d.md": b"# d\n",
        "bad.py": b"ok\n\xff\n",
        "nul.c": b"x\n\n\0",
        "empty.py": b"",
        "blank.py": b" \n",
        "picture.png": b"\x89PNG",
        ".git/config.py": b"no",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert texts(tmp_path) == ["a = 1\n", "é\n", "# d\n"]
    assert sorted(problems(tmp_path)) == [
        (".", "hidden"),
        ("bad.py", "bad_utf8"),
        ("blank.py", "empty"),
        ("empty.py", "empty"),
        ("nul.c", "nul_byte"),
        ("picture.png", "unknown_format"),
    ]
    assert {p.where: p.detail for p in read(str(tmp_path)) if isinstance(p, Problem)}["nul.c"] == "line 3"


RECORDS = [
    {
        "content": "stack",
        "max_stars_repo_path": "a.py",
        "max_stars_repo_name": "r",
        "max_stars_count": 7,
        "max_stars_repo_licenses": ["mit"],
    },
    {"text": "dolma", "id": "d1", "source": "x", "metadata": {}},
    {"text": "math", "url": "http://x"},
]


def write_jsonl(path, opener=open, lines=None):
    with opener(path, "wb") as f:
        f.write("\n".join(lines or map(json.dumps, RECORDS)).encode("utf-8", "surrogateescape") + b"\n")


def test_the_shapes_of_published_corpora(tmp_path):
    write_jsonl(tmp_path / "x.jsonl")
    items = list(read(str(tmp_path / "x.jsonl")))
    assert [d.text for d in items] == ["stack", "dolma", "math"] and [d.where for d in items] == [
        "x.jsonl:1",
        "x.jsonl:2",
        "x.jsonl:3",
    ]
    assert items[0].meta == {"path": "a.py", "repo": "r", "stars": 7, "license": ["mit"]} and items[2].meta == {
        "id": "http://x"
    }


def test_compressed_and_array_files_hold_the_same(tmp_path):
    write_jsonl(tmp_path / "x.jsonl.gz", gzip.open)
    (tmp_path / "y.json").write_text(json.dumps(RECORDS))
    assert texts(tmp_path / "x.jsonl.gz") == texts(tmp_path / "y.json") == ["stack", "dolma", "math"]


def test_every_broken_line_is_named_and_the_others_are_kept(tmp_path):
    write_jsonl(
        tmp_path / "x.jsonl",
        lines=[
            '{"text": "one"}',
            "{broken",
            "",
            '{"text": ""}',
            '{"title": "no text"}',
            "[1]",
            '{"text": "\\u0000"}',
            '{"text": "\\ud800"}',
            '{"text": "\udcff"}',
            '{"text": 5}',
            "[" * 100_000,
            '{"text": "last"}',
        ],
    )
    assert texts(tmp_path / "x.jsonl") == ["one", "last"]
    assert problems(tmp_path / "x.jsonl") == [
        ("x.jsonl:2", "bad_json"),
        ("x.jsonl:4", "empty"),
        ("x.jsonl:5", "no_text"),
        ("x.jsonl:6", "bad_json"),
        ("x.jsonl:7", "nul_byte"),
        ("x.jsonl:8", "bad_utf8"),
        ("x.jsonl:9", "bad_utf8"),
        ("x.jsonl:10", "no_text"),
        ("x.jsonl:11", "bad_json"),
    ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz"])
@pytest.mark.parametrize("line", [b'{"text": "\xff"}', b"\xff"])
def test_bytes_that_are_not_utf8_in_the_first_line_are_named(tmp_path, name, line):
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wb") as file:
        file.write(line + b'\n{"text": "last"}\n')
    assert problems(tmp_path / name) == [(f"{name}:1", "bad_utf8")]
    assert texts(tmp_path / name) == ["last"]


def test_bytes_that_are_not_utf8_in_an_array_are_named_as_such(tmp_path):
    (tmp_path / "x.json").write_bytes(b'[{"text": "one"},\n{"text": "\xff"}]')
    assert texts(tmp_path / "x.json") == ["one"] and problems(tmp_path / "x.json") == [("x.json:[1]", "bad_utf8")]


def test_a_problem_can_be_written_whatever_a_record_is_made_of(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", lines=['{"\\ud800": 1}'])
    (problem,) = read(str(tmp_path / "x.jsonl"))
    assert problem.rule == "no_text" and problem.detail.encode() == b"fields: \\ud800"


def test_nested_metadata_says_nothing(tmp_path):
    """Python reads lists 900 deep, but cannot send them to another process."""
    deep = "[" * 900 + "]" * 900
    fields = f'"license": {deep}, "date": {{"of": {deep}}}, "language": ["en", 1], "lang": "en", "stars": 2'
    write_jsonl(tmp_path / "a.jsonl", lines=[f'{{"text": "a", {fields}}}'])
    (item,) = read(str(tmp_path / "a.jsonl"))
    assert item.meta == {"language": "en", "stars": 2}
    pickle.dumps(item)


def test_a_json_file_of_another_shape_is_one_problem(tmp_path):
    (tmp_path / "package.json").write_text(json.dumps({"name": "x", "version": 1}, indent=2))
    assert problems(tmp_path / "package.json") == [("package.json:1", "no_text")]


def test_a_truncated_archive_gives_its_whole_lines_and_is_named(tmp_path):
    lines = [json.dumps({"text": f"line {i} " + hashlib.sha256(b"%d" % i).hexdigest()}) for i in range(5000)]
    write_jsonl(tmp_path / "x.jsonl.gz", gzip.open, lines)
    data = (tmp_path / "x.jsonl.gz").read_bytes()
    (tmp_path / "x.jsonl.gz").write_bytes(data[: len(data) // 2])
    found = texts(tmp_path / "x.jsonl.gz")
    assert 1000 < len(found) < 4000 and found == [json.loads(line)["text"] for line in lines[: len(found)]]
    assert problems(tmp_path / "x.jsonl.gz") == [(f"x.jsonl.gz:{len(found) + 1}", "truncated")]
    (tmp_path / "x.jsonl.gz").write_bytes(b"not gzip at all")
    assert problems(tmp_path / "x.jsonl.gz") == [("x.jsonl.gz:1", "bad_json")]
    (tmp_path / "x.jsonl.gz").write_bytes(b"nor" + bytes(99) + b"text")
    assert problems(tmp_path / "x.jsonl.gz") == [("x.jsonl.gz:1", "truncated")]


def test_zstandard_files(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    lines = [json.dumps({"text": f"line {i} é"}) for i in range(20_000)]
    data = ("\n".join(lines) + "\n").encode()
    frames = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:300_001], data[300_001:]))
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(frames)
    assert texts(path) == [json.loads(line)["text"] for line in lines]
    path.write_bytes(frames[:-50])
    assert problems(path)[-1][1] == "truncated" and 1000 < len(texts(path)) < 20_000
    path.write_bytes(zstandard.ZstdCompressor().compress(json.dumps(RECORDS, indent=1).encode()))
    assert texts(path) == ["stack", "dolma", "math"], "an array too"


def test_parquet_files(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    path = tmp_path / "x.parquet"
    parquet.write_table(
        pyarrow.table({"content": ["a", "", None, "b"], "max_stars_count": [1, 2, 3, None], "big": ["x"] * 4}), path
    )
    assert [(d.text, d.meta) for d in read(str(path)) if isinstance(d, Document)] == [("a", {"stars": 1}), ("b", {})]
    assert problems(path) == [("x.parquet:2", "empty"), ("x.parquet:3", "no_text")]
    path.write_bytes(path.read_bytes()[:-20])
    assert problems(path) == [("x.parquet:1", "truncated")]


def test_a_package_that_is_missing_or_broken_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        list(read("hf:owner/name"))
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.syspath_prepend(tmp_path)
    for error in (
        "AttributeError('module numpy has no attribute x')",
        "ImportError('libarrow.so')",
        "ImportError(name='y')",
        "ModuleNotFoundError(name='pkg_resources')",
    ):
        (tmp_path / "datasets.py").write_text(f"raise {error}")
        importlib.invalidate_caches()
        with pytest.raises(UserError, match="hub data sets need the package datasets, whose import fails"):
            list(read("hf:owner/name"))


def test_hub_data_sets_stream(monkeypatch):
    class Hub:
        @staticmethod
        def load_dataset(name, data_dir, split, streaming):
            assert (name, data_dir, split, streaming) == ("owner/name", "python", "train", True)
            return iter(RECORDS)

    monkeypatch.setitem(sys.modules, "datasets", Hub)
    assert texts("hf:owner/name:python") == ["stack", "dolma", "math"]


class CastError(Exception):
    """An error of a library that is neither an OSError nor a ValueError."""


@pytest.mark.parametrize(
    "error",
    [
        TypeError("Couldn't cast array of type string to null"),
        CastError("x"),
        KeyError("text"),
        OSError("no route"),
        ValueError("x"),
        RuntimeError("a\nb"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("rows", [0, 2])
def test_whatever_a_hub_data_set_raises_is_one_error(monkeypatch, error, rows):
    """Half of a data set must not pass for all of it: the run stops, and says how far it came."""

    def stream():
        yield from RECORDS[:rows]
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, **__: stream()))
    with pytest.raises(UserError, match=f"cannot read 'owner/name' from the hub: .*{type(error).__name__}") as raised:
        list(read("hf:owner/name"))
    assert ("after row 2" in str(raised.value)) == (rows == 2)

    def load_dataset(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match="cannot read 'owner/name' from the hub"):
        list(read("hf:owner/name"))


def test_a_long_text_file_is_cut_at_line_ends_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_TEXT", 1000)
    text = "".join(f"line {i} é\n" for i in range(1000))
    (tmp_path / "x.txt").write_text(text)
    parts = texts(tmp_path / "x.txt")
    assert len(parts) > 10 and "".join(parts) == text and all(part.endswith("\n") for part in parts)


def test_a_missing_source_is_an_error():
    with pytest.raises(UserError, match="neither a preset"):
        list(read("no/such/folder"))


def test_a_broken_package_that_counts_words_is_named_and_a_missing_one_is_not_needed(tmp_path, monkeypatch):
    prose.word_cutter.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    assert prose.word_cutter() is None
    monkeypatch.delitem(sys.modules, "jieba")
    (tmp_path / "jieba.py").write_text("import pkg_resources_of_yesterday")
    monkeypatch.syspath_prepend(tmp_path)
    prose.word_cutter.cache_clear()
    with pytest.raises(UserError, match="jieba, .* its import fails"):
        prose.word_cutter()
