"""Cluster runs that end early or come again (with datatrove)."""

import json
import os
import shutil

import pytest
from conftest import assert_one_line_error, prepare, program

from shards import Shards, read_manifest

pytest.importorskip("datatrove")
HOW = ("--tasks=2", "--num_workers=1", "--val_fraction=0")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.py").write_text("x")
    return tmp_path / "source"


def test_a_run_that_keeps_nothing_says_so_and_the_next_one_begins_anew(workdir, source, tmp_path):
    out = tmp_path / "x"
    result = prepare(workdir, source, out, *HOW, script="cleaning.cluster", check=False)
    assert_one_line_error(result, "no documents for training", "1 too_short dropped", "dropped.jsonl")
    assert json.loads((out / "chunks/dropped.jsonl").read_text())["id"] == "a.py"
    for i in range(3):
        (source / f"{i}.py").write_text(program(i))
    prepare(workdir, source, out, *HOW, script="cleaning.cluster")
    assert read_manifest(out)["splits"]["train"]["documents"] == 3
    prepare(workdir, source, tmp_path / "local", "--val_fraction=0", "--shard_bytes=1")
    assert read_manifest(out)["sources"] == read_manifest(tmp_path / "local")["sources"]


def test_a_second_run_into_a_folder_keeps_its_shards_until_it_is_whole(workdir, source, tmp_path):
    out = tmp_path / "x"
    for i in range(3):
        (source / f"{i}.py").write_text(program(i))
    prepare(workdir, source, out, *HOW, script="cleaning.cluster")
    before = read_manifest(out)
    (source / "3.py").write_text(program(3))
    shutil.rmtree(out / "chunks", ignore_errors=True)  # notes of the run before
    (out / "chunks/000001.tokens.tmp").mkdir(parents=True)  # in the way of a task
    again = (*HOW, "--max_bytes=100_000")
    assert prepare(workdir, source, out, *again, script="cleaning.cluster", check=False).returncode
    assert read_manifest(out) == before
    Shards(out, "train").verify()
    os.rmdir(out / "chunks/000001.tokens.tmp")
    prepare(workdir, source, out, *again, script="cleaning.cluster")
    assert read_manifest(out)["splits"]["train"]["documents"] == 4
    Shards(out, "train").verify()


def test_a_file_that_is_added_while_a_run_rests_makes_its_tasks_begin_anew(workdir, source, tmp_path):
    """Every file has another number then, and is another task's: one would be read twice, or by none."""
    out = tmp_path / "x"
    for name in "bdf":
        (source / f"{name}.py").write_text(program(ord(name)))
    (out / "chunks/000001.tokens.tmp").mkdir(parents=True)  # in the way of the second task
    assert prepare(workdir, source, out, *HOW, script="cleaning.cluster", check=False).returncode
    os.rmdir(out / "chunks/000001.tokens.tmp")
    (source / "c.py").write_text(program(ord("c")))
    prepare(workdir, source, out, *HOW, script="cleaning.cluster")
    prepare(workdir, source, tmp_path / "local", "--val_fraction=0", "--shard_bytes=1")
    assert read_manifest(out)["sources"] == read_manifest(tmp_path / "local")["sources"]
    assert read_manifest(out)["splits"]["train"]["documents"] == 4
