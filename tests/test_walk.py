"""What a folder holds besides plain files: links, pipes, hidden names, names that are not Unicode."""

import itertools
import json
import os
import re
import socket
import sys

import pytest
from conftest import door_error, prepare, program

import prepare_data
import tokenizer_train
from cleaning import classifier
from corpus.documents import Document, Problem, read

NOT_UNICODE = os.fsdecode(b"caf\xe9")


def found(source, share=(0, 1)):
    """({where: text}, {where: (rule, detail)}) of a source, each place once."""
    items = list(read(str(source), share=share))
    assert len({item.where for item in items}) == len(items)
    documents = {item.where: item.text for item in items if isinstance(item, Document)}
    return documents, {item.where: (item.rule, item.detail) for item in items if isinstance(item, Problem)}


@pytest.fixture
def folder(tmp_path):
    """A source with two files of its own, and a folder beside it with two others."""
    for name in ("source/own.py", "source/z/deep.py", "outside/far.py", "outside/sub/farther.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"name = '{name}'\n")
    return tmp_path / "source"


OWN = {"own.py": "name = 'source/own.py'\n", "z/deep.py": "name = 'source/z/deep.py'\n"}


@pytest.mark.parametrize(
    "link, target", [("a", "z"), ("z/up", ".."), ("a.py", "own.py"), ("me", "../source"), ("0.py", "z/deep.py")]
)
def test_a_link_to_what_is_read_anyway_changes_nothing(folder, link, target):
    os.symlink(target, folder / link)
    assert found(folder) == (OWN, {})


def test_a_link_to_the_outside_is_followed_and_everything_is_read_once(folder):
    os.symlink("../outside", folder / "a")
    os.symlink("../outside/sub", folder / "b")
    os.symlink("../outside/far.py", folder / "c.py")
    os.symlink(folder, folder.parent / "outside/back")
    documents, problems = found(folder)
    assert problems == {} and sorted(documents.values()) == sorted(
        f"name = '{name}'\n"
        for name in ("source/own.py", "source/z/deep.py", "outside/far.py", "outside/sub/farther.py")
    )
    for name in ("one.py", "two.py"):
        os.symlink("/etc/hostname", folder / name)
    assert len([where for where in found(folder)[0] if where in ("one.py", "two.py")]) == 1


def test_links_that_lead_nowhere_are_named(folder):
    os.symlink("nothing.py", folder / "broken.py")
    os.symlink("loop.py", folder / "loop.py")
    documents, problems = found(folder)
    assert documents == OWN
    assert problems["broken.py"] == ("unreadable", "No such file or directory")
    assert problems["loop.py"][0] == "unreadable"


def test_pipes_sockets_and_devices_are_named_and_never_opened(folder):
    """Opening a pipe that nobody writes to would block for ever."""
    names = ["pipe.py", "pipe.jsonl", "pipe.json.gz", "pipe.parquet", "pipe-wiki.xml", "socket.py", "zero.txt"]
    for name in names[:5]:
        os.mkfifo(folder / name)
    listener = socket.socket(socket.AF_UNIX)
    before = os.getcwd()
    os.chdir(folder)  # the path of a socket must be short
    listener.bind("socket.py")
    os.chdir(before)
    os.symlink("/dev/zero", folder / "zero.txt")
    documents, problems = found(folder)
    assert documents == OWN and problems == dict.fromkeys(names, ("unreadable", "not a regular file"))
    assert found(folder / "pipe.py")[1] == {"pipe.py": ("unreadable", "not a regular file")}
    listener.close()


def test_folders_and_files_that_cannot_be_read_are_named_once(folder, monkeypatch):
    def refuse(function):
        def refusing(path, *arguments, **options):
            if str(path).endswith(("/z", "own.py")):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return refusing

    (folder / "z/more.py").write_text("x = 1\n")
    monkeypatch.setattr(os, "scandir", refuse(os.scandir))  # root, who may run the tests, is refused nothing
    monkeypatch.setattr("builtins.open", refuse(open))
    denied = ("unreadable", "Permission denied")
    assert found(folder) == ({}, {"z": denied, "own.py": denied})


def test_hidden_names_are_counted_in_one_problem(folder):
    (folder / ".git/objects").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    for name in (".git/config.py", ".git/objects/x.py", ".env", "z/.secret.py", "__pycache__/own.pyc"):
        (folder / name).write_text("hidden = 1\n")
    documents, problems = found(folder)
    assert documents == OWN
    assert problems == {".": ("hidden", "3 names that begin with a dot: .env, .git, z/.secret.py")}
    os.symlink(".env", folder / "settings.py")
    assert found(folder)[0] == {**OWN, "settings.py": "hidden = 1\n"}, "a visible name makes it visible"


def test_the_order_is_that_of_bytes_and_shares_make_up_the_whole(folder):
    names = [b"B.py", b"a.py", b"a\xff.py", "é.py".encode(), "中.py".encode(), "\U0001f600.py".encode(), b"caf\xe9.py"]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write("x = 1\n")
    wheres = [os.fsencode(where) for where in found(folder)[0]]
    assert wheres == [*sorted([*names, b"own.py"]), b"z/deep.py"]
    os.mkfifo(folder / "pipe")
    (folder / ".hidden").write_text("")
    whole = [item.where for item in read(str(folder))]
    parts = [[item.where for item in read(str(folder), share=(i, 3))] for i in range(3)]
    assert [where for where in itertools.chain(*itertools.zip_longest(*parts)) if where] == whole


def test_a_folder_of_more_levels_than_python_recurses_is_read(folder):
    deepest = folder / ("d/" * 400)
    deepest.mkdir(parents=True)
    (deepest / "bottom.py").write_text("bottom = 1\n")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(350)
    try:
        documents, problems = found(folder)
    finally:
        sys.setrecursionlimit(limit)
    assert documents == {**OWN, "d/" * 400 + "bottom.py": "bottom = 1\n"} and problems == {}


# -- names that are not Unicode, through the stages


@pytest.fixture
def odd_names(tmp_path):
    """A source whose folder, files, keys and values hold bytes or halves of characters that are not Unicode."""
    folder = tmp_path / f"{NOT_UNICODE}-source"
    folder.mkdir()
    (folder / f"{NOT_UNICODE}.py").write_text(program(1))
    (folder / f"{NOT_UNICODE}-copy.py").write_text(program(1))
    (folder / f"{NOT_UNICODE}-bad.py").write_bytes(b"\xff")
    record = '{"\\ud800": 1, "content": %s, "path": "\\udce9.py", "id": "\\ud83d", "repo": "\\udfff", "license": ["\\ud800"]}'
    lines = [record % json.dumps(program(2)), record % '"\\ud800"', '{"path": "caf\udce9.py"}']
    (folder / f"{NOT_UNICODE}.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return folder


def test_names_that_are_not_unicode_are_read_and_escaped_in_what_is_written(workdir, odd_names, tmp_path):
    result = prepare(workdir, odd_names, tmp_path / "out", "--val_fraction=0", "--num_workers=2")
    drops = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    rules = {drop["id"]: drop["rule"] for drop in drops}
    assert rules == {
        f"{NOT_UNICODE}-bad.py": "bad_utf8",
        f"{NOT_UNICODE}.py": "exact_duplicate",
        f"{NOT_UNICODE}.jsonl:2": "bad_utf8",
        f"{NOT_UNICODE}.jsonl:3": "bad_utf8",
    }
    assert {drop["source"] for drop in drops} == {str(odd_names)}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["splits"]["train"]["documents"] == 2 and str(odd_names) in manifest["sources"]
    for path in (tmp_path / "out").glob("report.*"):
        assert re.search(r"caf\\+udce9", path.read_text(encoding="utf-8")), path
    assert "2" in result.stdout
    again = prepare(workdir, odd_names, tmp_path / "out", "--val_fraction=0", "--num_workers=2")
    assert "holds just that already" in again.stdout


def test_names_that_are_not_unicode_pass_the_other_stages(odd_names, tmp_path):
    error = door_error(
        tokenizer_train, f"--sources={odd_names}", f"--out={tmp_path / NOT_UNICODE}.json", "--vocab_size=9999"
    )
    assert "only" in error and "merges" in error
    for i, label in enumerate("01" * 8):
        line = f'{{"text": {json.dumps(program(i))}, "label": {label}, "\\ud800": "\\udfff"}}\n'
        with open(odd_names / "labels.jsonl", "a") as file:
            file.write(line)
    labelled, out = odd_names / "labels.jsonl", tmp_path / f"{NOT_UNICODE}.npz"
    classifier.main(classifier.Settings(labelled=[str(labelled)], held_out=0.5, out=str(out)))
    assert classifier.Classifier.load(out).threshold
    error = door_error(prepare_data, f"--sources={tmp_path / NOT_UNICODE}", f"--tokenizer={NOT_UNICODE}.json")
    assert "caf" in error
