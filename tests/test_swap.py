"""A folder holds its old shards until the new ones are whole, wherever a run dies; what is begun is brought to its end."""

import contextlib
import io
import itertools
import json
import os
import shutil

import pytest
from conftest import program

import prepare_data
from cleaning import to_shards
from cleaning.rules import Thresholds
from cleaning.settings import Settings
from configurator import UserError
from shards import Shards, load_tokenizer
from tokenizer import PATTERN, Tokenizer

BYTES = [bytes([byte]) for byte in range(256)]
CHANGES = ("replace", "link", "unlink", "rmdir", "mkdir")  # the calls of os by which names come and go


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    for i in range(6):
        (tmp_path / f"source/{i}.py").write_text(program(i))
    Tokenizer.from_bpe(PATTERN, BYTES).save(tmp_path / "old.json")
    Tokenizer.from_bpe(PATTERN, [*BYTES, b"na", b"me"]).save(tmp_path / "new.json")
    return tmp_path / "source"


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
    return load_tokenizer([folder]).fingerprint, [shards.tokens(0, 1 << 40).tolist() for shards in both]


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


@pytest.mark.parametrize("before, step", [("old", 11), (None, 29)])
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
