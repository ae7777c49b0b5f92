"""Copies and places: what is kept does not depend on the order of files and sources, and every place is read once."""

import contextlib
import io
import itertools
import json
import os
import random
from pathlib import Path

import pytest
from conftest import door_error, program

import prepare_data
import tokenizer_train
from cleaning import classifier
from cleaning.settings import Settings
from configurator import UserError
from corpus.sources import source_name
from evaluation import score
from shards import Shards, read_manifest
from tokenizer import PATTERN, Tokenizer


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder to work in, with a tokenizer of bytes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    Tokenizer.from_bpe(PATTERN, [bytes([byte]) for byte in range(256)]).save("bytes.json")
    return tmp_path


def prepare(sources, out="out", **more):
    """What prepare_data.py prints."""
    settings = {"tokenizer": "bytes.json", "num_workers": 1, "val_fraction": 0.3, "filters": False, **more}
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
        prepare_data.main(Settings(sources=list(map(str, sources)), out_dir=str(out), **settings))
    return printed.getvalue()


def texts(out="out"):
    """The documents of a shard folder, those of each split sorted."""
    found = {}
    for split in ("train", "val"):
        shards = Shards(out, split)
        data = [bytes(shards.tokens(start + 1, n - 1).tolist()) for start, n in zip(*shards.documents(256))]
        found[split] = sorted(data)
    return found


def write(path, *lines, end=b"\n"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"".join(line.encode() + end for line in lines))


# -- copies


TEXT = program(1).splitlines()
COPIES = {
    "LF": "\n".join(TEXT).encode(),
    "CRLF": "\r\n".join(TEXT).encode(),
    "CR": "\r".join(TEXT).encode(),
    "mixed": "\n".join(TEXT[:9]).encode() + b"\r\n" + "\r".join(TEXT[9:]).encode() + b"\r\n",
    "BOM": b"\xef\xbb\xbf" + "\r\n".join(TEXT).encode(),
    "blanks": "\n".join(line + "  " for line in TEXT).encode() + b"\n\n",
}


@pytest.mark.parametrize(
    "pair", [("LF", other) for other in COPIES if other != "LF"] + [("BOM", "blanks")], ids="-".join
)
def test_line_ends_do_not_decide_what_is_kept(work, pair):
    """Files of two sources in both orders, then renamed: the same bytes in the shards, whichever copy is met first."""
    seen = []
    for number, (first, second) in enumerate((pair, pair[::-1])):
        for name, copy in (("a", first), ("b", second)):
            os.makedirs(f"{number}/{name}")
            (work / f"{number}/{name}/x.py").write_bytes(COPIES[copy])
        for order in ("ab", "ba"):
            prepare([f"{number}/{name}" for name in order], f"out{number}{order}", val_fraction=0.0)
            seen += texts(f"out{number}{order}")["train"]
    assert len(seen) == 4 and len(set(seen)) == 1 and b"\r" not in seen[0]


def test_shuffled_records_make_the_same_shards(work):
    """Exact copies that differ in white space, near copies, and different texts; with stars and dates, and without."""
    rng = random.Random(5)
    records = []
    for i in range(12):
        text = program(i, lines=20)
        for change in ("", "\n", "  \n\n", "\r\n", "\n# the same, nearly\n"):
            about = {"stars": rng.choice([1, 1, 2, None]), "date": rng.choice(["2020", "2021", None])}
            records.append({"content": text.rstrip() + change, **(about if i % 2 else {})})
    seen = []
    for seed in range(4):
        random.Random(seed).shuffle(records)
        write("r.jsonl", *map(json.dumps, records))
        prepare(["r.jsonl"])
        seen.append(texts())
    assert seen[1:] == seen[:-1] and len(seen[0]["train"] + seen[0]["val"]) == 12


def test_conversations_that_differ_in_line_ends_are_one(work):
    records = [
        {"messages": [{"role": "user", "content": f"a{end}b"}, {"role": "assistant", "content": f"c{end}d"}]}
        for end in ("\n", "\r\n", "\r")
    ]
    write("c.jsonl", *map(json.dumps, records))
    prepare(["c.jsonl"], chats=True, val_fraction=0.0)
    assert read_manifest("out")["splits"]["train"]["documents"] == 1


def test_equal_copies_of_two_sources_count_for_the_same_one_in_any_order(work):
    for name in ("a", "b"):
        write(f"{name}/x.py", *TEXT)
        write(f"{name}/{name}.py", *program(name).splitlines())
    prepare(["a", "b"], "ab")
    prepare(["b", "a"], "ba")
    assert read_manifest("ab")["sources"] == read_manifest("ba")["sources"]


# -- places


def filled(name, first, n=3):
    """A folder of n different files, numbered from first on."""
    for i in range(first, first + n):
        write(f"{name}/{i}.py", *program(i).splitlines())


def counts(out="out"):
    """{source: documents}, all of them kept."""
    sources = read_manifest(out)["sources"]
    assert not any(source["dropped"] for source in sources.values()), sources
    return {name: source["train"]["documents"] + source["val"]["documents"] for name, source in sources.items()}


@pytest.mark.parametrize(
    "again", ["dir", "dir/", "./dir", "dir//", "./dir/.", "link", "link/", "dir/../dir", "absolute"]
)
def test_a_place_that_is_named_twice_is_read_once(work, again):
    filled("dir", 0)
    os.symlink("dir", "link")
    again = str(work / "dir") if again == "absolute" else again
    for clean, sources in ((True, ["dir", again]), (False, [again, "dir"])):
        prepare(sources, clean=clean)
        assert list(counts().values()) == [3]
        assert "holds just that already" in prepare(sources, clean=clean)


def test_a_file_and_a_preset_that_are_named_twice_are_read_once(work):
    filled("dir", 0)
    prepare(["dir/0.py", "./dir/0.py", "dir//0.py"], val_fraction=0.0)
    assert counts() == {"dir/0.py": 1}
    settings = Settings(sources=["stdlib", "stdlib"], num_workers=1)
    settings.check()
    assert settings.sources == ["stdlib"]


def test_a_name_does_not_depend_on_how_it_is_typed():
    assert {source_name(name) for name in ("a/b", "a/b/", "./a/b", "a//b", "./a/./b/")} == {"a/b"}
    assert source_name("hf:a/b:") == source_name("hf:a/b") == "hf:a/b" and source_name("hf:a/b:c") == "hf:a/b:c"
    assert source_name("./stdlib") == "./stdlib" and source_name("./hf:x") == "./hf:x", "these are paths, no presets"
    assert source_name("/") == "/" and source_name(".") == "."


@pytest.mark.parametrize("spelled", ["dir", "dir/", "./dir", "link", "dir/../dir", "absolute"])
def test_scores_are_found_however_the_source_is_spelled(work, spelled):
    filled("dir", 0)
    os.symlink("dir", "link")
    spelled = str(work / "dir") if spelled == "absolute" else spelled
    for named in ("dir", "dir/", "./dir", str(work / "dir")):
        write("scores.jsonl", *(json.dumps({"id": f"{i}.py", "source": named, "score": i}) for i in range(3)))
        prepare([spelled], scores="scores.jsonl", max_score=1.5, val_fraction=0.0)
        assert [counts["dropped"] for counts in read_manifest("out")["sources"].values()] == [{"score": 1}]


def test_what_lies_below_two_sources_belongs_to_the_inner_one(work):
    filled("dir", 0)
    filled("dir/inner", 3)
    filled("dir/inner/most", 6, n=1)
    write("dir/one.jsonl", json.dumps({"text": program(9)}))
    for sources in itertools.permutations(["dir", "dir/inner", "dir/one.jsonl"]):
        prepare(sources, clean=False)
        assert counts() == {"dir": 3, "dir/inner": 4, "dir/one.jsonl": 1}


@pytest.mark.parametrize("source, out", [("dir", "dir/out"), (".", "dir/a/b/out"), ("link", "./dir/out/")])
def test_own_output_is_never_read(work, source, out):
    filled("dir", 0)
    os.symlink("dir", "link")
    os.rename("bytes.json", work.parent / "bytes.json")  # or it would be read as a document of "."
    options = dict(tokenizer=str(work.parent / "bytes.json"), clean=False)
    prepare([source], out, **options)
    first = texts(out)
    assert sum(map(len, first.values())) == 3
    assert "holds just that already" in prepare([source], out, **options)
    prepare([source], out, **options, shard_bytes=1000)
    assert texts(out) == first


def test_out_dir_cannot_be_a_source(work):
    filled("dir", 0)
    for out in ("dir", "dir/", "./dir", str(work / "dir")):
        with pytest.raises(UserError, match="is a source itself"):
            prepare(["dir"], out)
    assert sorted(os.listdir("dir")) == ["0.py", "1.py", "2.py"]


@pytest.mark.parametrize("own", ["chunks", "chunks/dir", "dropped.jsonl", "report.md"])
def test_a_source_is_never_overwritten(work, own):
    """chunks is deleted when the shards are whole, and the files are replaced."""
    filled("dir", 0)
    os.makedirs(Path("out", own).parent, exist_ok=True)
    os.rename("dir" if "chunks" in own else "dir/0.py", f"out/{own}")
    before = sorted(Path("out").rglob("*"))
    with pytest.raises(UserError, match=f"would overwrite out/{own}"):
        prepare([f"out/{own}"])
    assert sorted(Path("out").rglob("*")) == before


@pytest.mark.parametrize("stage", [tokenizer_train, classifier, score])
def test_a_result_never_overwrites_what_it_is_made_of(work, stage):
    write("mine.json", json.dumps({"text": program(1), "label": 1}))
    before = Path("mine.json").read_bytes()
    sources = "labelled" if stage is classifier else "sources"
    assert "is a source itself" in door_error(stage, f"--{sources}=bytes.json,./mine.json", f"--out={work}/mine.json")
    assert Path("mine.json").read_bytes() == before


def test_a_missing_source_is_named_before_the_others_are_read(work):
    filled("dir", 0)
    for source in ("nowhere", "dir/nothing.py", "", "a\0b", "\0", "dir\0"):
        with pytest.raises(UserError, match="no source|nothing to read"):
            prepare(["dir", source])
    with pytest.raises(UserError, match="no source 'hf:'"):
        prepare(["dir", "hf:"])
    with pytest.raises(UserError, match="no shards in nowhere: run `python prepare_data.py "):
        prepare(["dir"], against=["nowhere"])
    with pytest.raises(UserError, match="nothing to read"):
        prepare([])
    assert not os.path.exists("out")


def test_a_comma_in_a_name_is_part_of_it(work):
    filled("a,b", 0)
    (work / "r.toml").write_text(
        '[prepare_data]\nsources = ["a,b"]\ntokenizer = "bytes.json"\nval_fraction = 0.3\nnum_workers = 1\n'
    )
    from configurator import load

    settings = load(Settings, ["r.toml"], "prepare_data")
    assert settings.sources == ["a,b"]
    prepare(settings.sources)
    assert counts() == {"a,b": 3}


# -- tiny corpora


def test_one_document_that_goes_to_validation(work):
    write("one.py", *TEXT)
    error = door_error(
        prepare_data,
        "--sources=one.py",
        "--out_dir=out",
        "--tokenizer=bytes.json",
        "--num_workers=1",
        "--val_fraction=0.9999999",
    )
    assert "no documents for training in one.py; by the hash of its text" in error and "--val_fraction=1" in error
    assert not os.path.exists("out/manifest.json")


def test_one_document_without_any_for_validation(work):
    write("one.py", *TEXT)
    assert "no document went to validation" in prepare(["one.py"], val_fraction=0.0001)
    assert "--val_fraction=0.0001" in prepare(["one.py"], "b", val_fraction=0.0001)
    assert "no document went to validation" not in prepare(["one.py"], val_fraction=0.0)
    assert len(Shards("out", "val")) == 0


def test_a_source_of_which_nothing_is_left_is_named_with_its_rules(work):
    filled("good", 0, n=9)
    write("bad/a.py", "")
    write("bad/b.py", "def f(:", "  x = = 2", "  y = ) 3", "  z = [ 3", "")
    os.makedirs("none")
    printed = prepare(["good", "bad", "none"], filters=True, val_fraction=0.0)
    assert "nothing is left of bad: 1 empty, 1 syntax\n" in printed
    assert "nothing is left of none: nothing was there\n" in printed


def test_nothing_at_all(work):
    os.makedirs("none")
    with pytest.raises(UserError, match="^no documents for training in none$"):
        prepare(["none"])
    assert not os.path.exists("out/manifest.json")
