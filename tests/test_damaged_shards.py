"""Damaged and foreign files of a shard folder: one line that names the file and says what to do, never a traceback."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import door_error

import prepare_data
from configurator import UserError
from shards import Shards, header, load_tokenizer, read_manifest
from tokenizer import Tokenizer


@pytest.fixture
def folder(workdir, tmp_path):
    return shutil.copytree(workdir / "data/shards", tmp_path / "x")


def change(folder, key, value):
    """Set manifest["a"][0]["b"], written "a.0.b", to a value, or delete it for a value of ...."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    *above, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place = manifest
    for part in above:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "key", ["files", "tokenizer", "files.0.name", "files.0.split", "files.0.tokens", "files.0.size", "files.0.sha256"]
)
@pytest.mark.parametrize("value", [..., None, 3.5, -1, True, "no", {}, [[]], 10**30, "a\0b", "\ud800"], ids=repr)
def test_a_manifest_of_another_shape_is_named(folder, key, value):
    change(folder, key, value)
    with pytest.raises(UserError) as error:
        Shards(folder, "train"), load_tokenizer([folder])
        Shards(folder, "train").verify()
    assert str(folder) in str(error.value) and ": run `python " in str(error.value)


@pytest.mark.parametrize("name", ["../x/train_000000.bin", "/etc/passwd", "a/../../b", "..", ".", "", "/", "a\0"])
def test_no_file_outside_the_folder_is_read(folder, name):
    change(folder, "files.0.name", name)
    with pytest.raises(UserError, match="manifest.json is damaged .* is no name of a file in the folder"):
        Shards(folder, "train")


@pytest.mark.parametrize(
    "key, value", [("splits.train.tokens", -5), ("splits.val.bytes", "many"), ("splits.val", None), ("splits", [])]
)
def test_counts_are_numbers(folder, key, value):
    change(folder, key, value)
    with pytest.raises(UserError, match="manifest.json is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[1, 2]",
        "null",
        '"text"',
        "{}",
        "[" * 100_000,
        '{"files": [], "tokenizer": 3}',
        "\ud800",
        "9" * 5000,
    ]
    + ['{"files": ["train_000000.bin"], "tokenizer": "a"}', '{"files": {"a": 1}, "tokenizer": "a"}'],
    ids=lambda text: text[:40] or "empty",
)
def test_a_manifest_that_is_none_is_named(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"manifest.json is damaged \(.*: run `python prepare_data.py "):
        Shards(folder, "train")


def test_a_file_counts_once(folder):
    files = read_manifest(folder)["files"]
    for name in (files[0]["name"], f"./{files[0]['name']}"):
        change(folder, "files", [*files, {**files[0], "name": name}])
        with pytest.raises(UserError, match="names a file twice"):
            Shards(folder, "train")


def test_the_command_that_made_a_folder_is_what_makes_it_again(folder):
    """But only a plain one: what a stranger's manifest says is not for typing."""
    (folder / "train_000000.bin").write_bytes(b"12345")
    for made_with, again in (
        (
            "prepare_data.py --sources=a/b,c.jsonl --out_dir=x",
            "python prepare_data.py --sources=a/b,c.jsonl --out_dir=x",
        ),
        ("prepare_data.py configs/demo.toml:exercise-pages", "python prepare_data.py configs/demo.toml:exercise-pages"),
        ("prepare_data.py --sources=my code", f"python prepare_data.py --sources=YOUR_TEXT --out_dir={folder}"),
        ("prepare_data.py --out_dir=x; rm -rf .", f"python prepare_data.py --sources=YOUR_TEXT --out_dir={folder}"),
        (None, f"python prepare_data.py --sources=YOUR_TEXT --out_dir={folder}"),
    ):
        change(folder, "made_by", {"command": made_with})
        change(folder, "settings.out_dir", str(folder))
        with pytest.raises(UserError, match=re.escape(f": run `{again}`")):
            Shards(folder, "train")
    change(folder, "made_by", {"command": "prepare_data.py --out_dir=elsewhere"})
    change(folder, "settings.out_dir", "elsewhere")  # a copy: the command would make the original
    with pytest.raises(UserError, match="--sources=YOUR_TEXT"):
        Shards(folder, "train")


def test_an_empty_shard_is_an_empty_shard(folder):
    (folder / "train_000000.bin").write_bytes(header(0))
    change(folder, "files.0.tokens", 0)
    change(folder, "files.0.size", len(header(0)))
    assert len(Shards(folder, "train")) == 0


def test_verify_looks_at_the_other_split_too(folder):
    """--val folders are checked as folders of training are: one flipped bit is found."""
    path = folder / "val_000000.bin"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="val_000000.bin is damaged: its sha256"):
        Shards(folder, "val").verify()


def masked(folder, n):
    """Give the first shard a mask of n bytes, and say so in the manifest."""
    entry = read_manifest(folder)["files"][0]
    (folder / "train_000000.mask.bin").write_bytes(b"\1" * n)
    change(folder, "files.0.mask", {"name": "train_000000.mask.bin", "size": n, "sha256": "0" * 64})
    return entry["tokens"]


def test_a_mask_of_another_length_or_name(folder):
    n = masked(folder, 7)
    with pytest.raises(UserError, match="train_000000.mask.bin does not fit its shard: run"):
        Shards(folder, "train")
    masked(folder, n)
    assert len(Shards(folder, "train").mask(0, n + 5)) == n
    change(folder, "files.0.mask.name", "val_000000.bin")
    with pytest.raises(UserError, match="no mask of train_000000.bin"):
        Shards(folder, "train")


def test_a_folder_without_its_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer .*: run `python prepare_data.py "):
        load_tokenizer([folder])


# -- shards of other programs


@pytest.mark.parametrize(
    "data, words",
    [
        (b"12345", "not a token shard"),
        (b"", "not a token shard"),
        (header(0)[:1000], "not a token shard"),
        (header(7), "is damaged: 1,024 bytes where its header promises 1,038"),
        (header(-1), "is damaged"),
        (np.full(600, 7, "<i4").tobytes(), "not a token shard"),
        (header(1) + b"\xff\xff", "holds token 65535"),
        (header(0), None),
    ],
)
def test_adopting_odd_files(workdir, tmp_path, data, words):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a_train_0.bin").write_bytes(data)
    arguments = ["--adopt", f"--out_dir={tmp_path / 'x'}", f"--tokenizer={workdir / 'data/tokenizer.json'}"]
    if words:
        assert words in door_error(prepare_data, *arguments)
        assert [path.name for path in (tmp_path / "x").iterdir()] == ["a_train_0.bin"]
    else:
        assert "no tokens" in door_error(prepare_data, *arguments)


# -- tokenizer.json


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [],
        lambda content: None,
        lambda content: {},
        lambda content: {**content, "kind": 3},
        lambda content: {**content, "kind": "sentencepiece"},
        lambda content: {**content, "kind": "sentencepiece", "model": "AAAA"},
        lambda content: {**content, "kind": "sentencepiece", "model": 5},
        lambda content: {**content, "pattern": None},
        lambda content: {**content, "pattern": "(("},
        lambda content: {**content, "ranks": 7},
        lambda content: {**content, "ranks": None},
        lambda content: {**content, "ranks": []},
        lambda content: {**content, "ranks": content["ranks"][:100]},
        lambda content: {**content, "ranks": content["ranks"] + ["é"]},
        lambda content: {**content, "ranks": content["ranks"] + [3]},
        lambda content: {**content, "ranks": content["ranks"] * 2},
        lambda content: {**content, "ranks": "AA=="},
        lambda content: {**content, "special_tokens": 3},
        lambda content: {**content, "special_tokens": None},
        lambda content: {**content, "special_tokens": "<|endoftext|>"},
        lambda content: {**content, "special_tokens": ["<|endoftext|>"] * 2},
        lambda content: {**content, "special_tokens": [["a"]]},
        lambda content: {**content, "special_tokens": []},
        lambda content: {**content, "fingerprint": 3},
        lambda content: {key: value for key, value in content.items() if key != "ranks"},
        lambda content: {key: value for key, value in content.items() if key != "special_tokens"},
        lambda content: {key: value for key, value in content.items() if key != "fingerprint"},
    ],
)
def test_a_damaged_tokenizer_is_one_line(folder, damage):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match="tokenizer.json is .*: run `python tokenizer_train.py"):
        Tokenizer.load(path)
    with pytest.raises(UserError, match="tokenizer.json is .*: run `python prepare_data.py"):
        load_tokenizer([folder])  # another tokenizer beside the shards would not be theirs


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"kind": ' + b"9" * 5000 + b"}", b"\0"])
def test_a_tokenizer_that_is_no_json_is_one_line(folder, data):
    (folder / "tokenizer.json").write_bytes(data)
    with pytest.raises(UserError, match="tokenizer.json is not a tokenizer of this project"):
        Tokenizer.load(folder / "tokenizer.json")
