"""Runs of prepare_data.py that die: the folder holds its old shards until the new ones are whole, what is begun is brought
to its end, and what was damaged on the way is made again."""

import contextlib
import io
import itertools
import json
import os
import shutil

import pytest
from conftest import door_error, program

import prepare_data
import shards
from cleaning import to_shards
from cleaning.rules import Thresholds
from cleaning.settings import Settings
from configurator import UserError
from shards import Shards, exclusive, load_tokenizer
from tokenizer import PATTERN, Tokenizer

BYTES = [bytes([byte]) for byte in range(256)]
CHANGES = ("replace", "link", "unlink", "rmdir", "mkdir")  # the calls of os by which names come and go


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of six programs, and two tokenizers beside it."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "source").mkdir()
    for i in range(6):
        (folder / f"source/{i}.py").write_text(program(i))
    Tokenizer.from_bpe(PATTERN, BYTES).save(folder / "old.json")
    Tokenizer.from_bpe(PATTERN, [*BYTES, b"na", b"me"]).save(folder / "new.json")
    return folder / "source"


def prepare(source, out, name, **more):
    """Fill a folder with tokenizer old.json, or with new.json, which makes more and other shards."""
    common = dict(sources=[str(source)], out_dir=str(out), tokenizer=str(source.parent / f"{name}.json"), num_workers=1)
    common["near_dedup"] = False  # it takes half of the time
    how = dict(val_fraction=0.0) if name == "old" else dict(val_fraction=0.4, shard_bytes=4000)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
        prepare_data.main(Settings(**{**common, **how, **more}))
    return printed.getvalue()


def tokens(folder):
    """All tokens of a folder, verified, with the fingerprint of the tokenizer that reads them."""
    both = [Shards(folder, split) for split in ("train", "val")]
    both[0].verify()
    return load_tokenizer([folder]).fingerprint, [split.tokens(0, 1 << 40).tolist() for split in both]


def dies(n, work):
    """Whether work(), in a process of its own, dies as by kill -9 before the nth change of a name in the file system."""
    child = os.fork()
    if child == 0:
        try:
            calls = itertools.count(1)
            for name in CHANGES:
                setattr(os, name, dying(getattr(os, name), calls, n))
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def dying(function, calls, n):
    def call(*arguments, **options):
        if next(calls) == n:
            os._exit(9)
        return function(*arguments, **options)

    return call


def contents(folder):
    """{name: bytes} of all files below a folder that do not depend on the clock."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if name not in ("manifest.json", "report.json", "report.md", "report.html")
    }


@pytest.mark.parametrize("before, step", [("old", 23), (None, 59)])
def test_wherever_a_run_dies_the_folder_is_the_old_one_or_the_new_one(source, tmp_path, monkeypatch, before, step):
    """Every step-th change of a name in the file system; with a step of 1 it holds too, and takes 30 seconds."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power fails here
    old, new, x = tmp_path / "old", tmp_path / "new", tmp_path / "x"
    prepare(source, old, "old")
    prepare(source, new, "new")
    for n in itertools.count(1, step):
        shutil.rmtree(x, ignore_errors=True)
        if before:
            shutil.copytree(old, x)
        has_died = dies(n, lambda: prepare(source, x, "new"))
        if before or (x / "manifest.json").exists():
            assert tokens(x) in (tokens(old), tokens(new)), n
        prepare(source, x, "new")
        assert contents(x) == contents(new), n
        assert sorted(os.listdir(x)) == sorted(os.listdir(new))
        if not has_died:
            break
    assert n > 40, "chunks, shards and reports each change names"


def test_an_end_that_dies_is_brought_to_its_end(source, tmp_path, monkeypatch):
    """Also where the next run has other settings: the half-moved shards are whole before it begins."""
    prepare(source, tmp_path / "x", "old")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(to_shards, "put", interrupt)
        prepare(source, tmp_path / "x", "new")
    names = [entry["name"] for entry in json.loads((tmp_path / "x/manifest.json").read_text())["files"]]
    assert all(name.startswith("chunks/shards/") for name in names)
    assert "holds just that already" in prepare(source, tmp_path / "x", "new")
    assert sorted(path.name for path in (tmp_path / "x").glob("*.bin")) == sorted(name.split("/")[-1] for name in names)
    assert not (tmp_path / "x/chunks").exists()


def test_a_reader_never_finds_a_mixture(source, tmp_path):
    """A process puts old and new shards into a folder in turn while this one reads it."""
    prepare(source, tmp_path / "old", "old")
    prepare(source, tmp_path / "new", "new")
    prepare(source, tmp_path / "x", "old")
    whole = [Shards(tmp_path / name, "train").tokens(0, 1 << 40).tolist() for name in ("old", "new")]
    child = os.fork()
    if child == 0:
        try:
            for name in ("new", "old") * 2:
                prepare(source, tmp_path / "x", name)
        finally:
            os._exit(0)
    seen = []
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        seen.append(whole.index(Shards(tmp_path / "x", "train").tokens(0, 1 << 40).tolist()))
    assert set(seen) == {0, 1}


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_without_links_the_files_are_copied(source, tmp_path, monkeypatch):
    def no_links(*arguments):
        raise OSError(95, "Operation not supported")

    prepare(source, tmp_path / "x", "new")
    monkeypatch.setattr(os, "link", no_links)
    prepare(source, tmp_path / "y", "new")
    assert contents(tmp_path / "x") == contents(tmp_path / "y")


@pytest.mark.parametrize("trouble", ["nothing left", "full disk"])
def test_a_run_that_fails_leaves_the_folder_as_it_was(source, tmp_path, monkeypatch, trouble):
    prepare(source, tmp_path / "x", "old")
    before, manifest = contents(tmp_path / "x"), (tmp_path / "x/manifest.json").read_bytes()
    if trouble == "nothing left":
        with pytest.raises(UserError, match="no documents for training in .*: 6 too_large dropped"):
            prepare(source, tmp_path / "x", "new", rules=Thresholds(max_bytes=10))
    else:
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/x/chunks/000000"):
            prepare(source, tmp_path / "x", "new")
    after = {name: data for name, data in contents(tmp_path / "x").items() if not name.startswith("chunks/")}
    assert after == before and (tmp_path / "x/manifest.json").read_bytes() == manifest
    assert not list((tmp_path / "x").rglob("*.tmp"))


def full_disk(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("damage", ["flipped bit", "no tokenizer", "no shard"])
def test_a_damaged_folder_is_made_again(source, tmp_path, damage):
    """The message about it says so, and "holds just that already" would be no help."""
    prepare(source, tmp_path / "x", "new")
    whole = contents(tmp_path / "x")
    if damage == "flipped bit":
        shard = tmp_path / "x/train_000000.bin"
        shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    elif damage == "no tokenizer":
        (tmp_path / "x/tokenizer.json").unlink()
    else:
        (tmp_path / "x/train_000000.bin").unlink()
    assert "already" not in prepare(source, tmp_path / "x", "new")
    assert contents(tmp_path / "x") == whole
    assert "already" in prepare(source, tmp_path / "x", "new")


# -- what an interrupted run leaves


@pytest.fixture(scope="module")
def begun(source):
    """A folder whose chunks are all there and whose shards are not, and what an unbroken run makes."""
    out = source.parent
    prepare(source, out / "whole", "new")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_data, "write_shards", interrupt)
        prepare(source, out / "x", "new")
    return out / "x", contents(out / "whole")


@pytest.fixture
def interrupted(begun, tmp_path):
    """The chunks of a copy of it, to be damaged, and what an unbroken run makes."""
    return shutil.copytree(begun[0], tmp_path / "x") / "chunks", begun[1]


def finished(chunks, source):
    prepare(source, chunks.parent, "new")
    return contents(chunks.parent)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "[" * 100_000, "\xff", "{}", '{"chunks": [], "ingredients": {}, "sha256": 3}'],
    ids=lambda text: text[:9] or "empty",
)
def test_progress_that_is_none_is_begun_anew(interrupted, source, text):
    chunks, whole = interrupted
    (chunks / "progress.json").write_bytes(text.encode("latin-1"))
    assert finished(chunks, source) == whole


@pytest.mark.parametrize("key", ["name", "sha256", "documents", "bands", "counts", "documents_sha256"])
@pytest.mark.parametrize("value", [None, -1, "../../x", [], {"tokens": 5}])
def test_progress_with_odd_entries_is_begun_anew(interrupted, source, key, value):
    """With the sha256 of the file as a whole, and, as another program may write it, without."""
    chunks, whole = interrupted
    progress = json.loads((chunks / "progress.json").read_text())
    progress["chunks"][0][key] = value
    (chunks / "progress.json").write_text(json.dumps(progress))
    assert finished(chunks, source) == whole


@pytest.mark.parametrize("stream", ["tokens", "shingles", "bands", "documents", "meta", "dropped"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_chunk_is_made_again(interrupted, source, stream, damage):
    chunks, whole = interrupted
    path = chunks / f"000000.{stream}"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-1] if data else b"x")
    else:
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if data else b"\0")
    assert finished(chunks, source) == whole


def test_chunks_in_the_way(interrupted, source):
    chunks, whole = interrupted
    shutil.rmtree(chunks)
    chunks.write_text("a file where the folder should be")
    arguments = [f"--sources={source}", f"--out_dir={chunks.parent}", f"--tokenizer={source.parent / 'new.json'}"]
    assert str(chunks) in door_error(prepare_data, *arguments, "--num_workers=1")


def test_two_runs_into_one_folder_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PATIENCE", 0)
    arguments = [f"--sources={source}", f"--out_dir={tmp_path / 'x'}", f"--tokenizer={source.parent / 'new.json'}"]
    with exclusive(tmp_path / "x"):
        assert f"another run is writing to {tmp_path / 'x'}" in door_error(prepare_data, *arguments)
