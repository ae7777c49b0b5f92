"""Documents -> shards: nothing lost, the same for any number of workers, safe to interrupt, damage refused."""

import hashlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, assert_one_line_error, stage

import prepare_data
import shards
from configurator import UserError
from shards import Shards


def prepare(cwd, *arguments, **options):
    return stage("prepare_data.py", "--tokenizer=data/tokenizer.json", *arguments, cwd=cwd, **options)


def all_tokens(folder):
    return {split: Shards(folder, split).tokens(0, 1 << 40) for split in ("train", "val")}


def documents_of(folder, tokenizer):
    """The texts in a shard folder, taken apart at <|endoftext|>."""
    tokens = np.concatenate(list(all_tokens(folder).values()))
    assert tokens[0] == tokenizer.eot and tokens[-1] != tokenizer.eot, "it opens every document and closes none"
    return sorted(tokenizer.decode(part[1:]) for part in np.split(tokens, np.flatnonzero(tokens == tokenizer.eot))[1:])


def test_tokens_in_equal_tokens_out(workdir, corpus, tokenizer):
    texts = sorted(path.read_text(encoding="utf-8") for path in corpus.iterdir())
    assert documents_of(workdir / "data/shards", tokenizer) == texts


def test_manifest_counts_are_those_of_the_files(workdir, corpus):
    manifest = shards.read_manifest(workdir / "data/shards")
    counts = manifest["sources"][str(corpus)]
    assert counts["train"]["documents"] + counts["val"]["documents"] == 60
    assert counts["train"]["bytes"] + counts["val"]["bytes"] == sum(f.stat().st_size for f in corpus.iterdir())
    for split, tokens in all_tokens(workdir / "data/shards").items():
        assert counts[split]["tokens"] == manifest["splits"][split]["tokens"] == len(tokens)
    for entry in manifest["files"]:
        data = (workdir / "data/shards" / entry["name"]).read_bytes()
        assert len(data) == entry["size"] and hashlib.sha256(data).hexdigest() == entry["sha256"]


def test_format_is_llm_cs(workdir):
    """Read with nothing but the published description: 256 int32, then uint16."""
    folder = workdir / "data/shards"
    data = (folder / "train_000000.bin").read_bytes()
    magic, version, n_tokens = struct.unpack("<3i", data[:12])
    assert (magic, version, len(data)) == (20240520, 1, 1024 + 2 * n_tokens)
    assert list(struct.unpack(f"<{n_tokens}H", data[1024:])) == all_tokens(folder)["train"].tolist()


def test_foreign_shards_are_adopted(workdir, tmp_path, tokenizer):
    tokens = np.array([tokenizer.eot, 5, 6, tokenizer.eot, 7], dtype=np.uint16)
    (tmp_path / "x").mkdir()
    for name in ("fineweb_train_000001.bin", "fineweb_val_000000.bin"):
        head = np.zeros(256, dtype=np.int32)
        head[:3] = 20240520, 1, len(tokens)
        (tmp_path / "x" / name).write_bytes(head.tobytes() + tokens.tobytes())
    shutil.copytree(workdir / "data", tmp_path / "data")
    prepare(tmp_path, "--adopt", "--out_dir=x")
    assert Shards(tmp_path / "x", "val").tokens(1, 2).tolist() == [5, 6]
    expected = {"documents": 2, "bytes": 3, "tokens": 5, "counted": 5, "gaps": 0}
    assert shards.read_manifest(tmp_path / "x")["splits"]["train"] == expected
    (tmp_path / "x/fineweb_train_000001.bin").unlink()
    assert_one_line_error(prepare(tmp_path, "--adopt", "--out_dir=x", check=False), "no .bin shards for training in x")


def test_any_number_of_workers_and_shards_gives_the_same_tokens(workdir, corpus):
    arguments = (f"--sources={corpus}", "--val_fraction=0.2", "--num_workers=2")
    prepare(workdir, *arguments, "--out_dir=data/two")
    prepare(workdir, *arguments, "--out_dir=data/small", "--shard_bytes=20000")
    one, two, small = (all_tokens(workdir / "data" / name) for name in ("shards", "two", "small"))
    assert len(Shards(workdir / "data/small", "train").parts) > 3
    for split in ("train", "val"):
        assert np.array_equal(one[split], two[split]) and np.array_equal(one[split], small[split])
    many = Shards(workdir / "data/small", "train")
    for start in range(0, len(many), 997):  # reads across the borders of files
        assert np.array_equal(many.tokens(start, 5000), small["train"][start : start + 5000])


def test_split_is_stable_when_documents_are_added(workdir, corpus, tmp_path, tokenizer):
    bigger = shutil.copytree(corpus, tmp_path / "bigger")
    for i in range(30):
        (bigger / f"a{i}.py").write_text(f"added = {i}\n")
    (bigger / "copy.py").write_bytes((corpus / "file_00.py").read_bytes())
    arguments = (f"--sources={corpus},{bigger}", "--val_fraction=0.2", "--filters=false")
    prepare(workdir, *arguments, f"--out_dir={tmp_path / 'x'}")

    def val_documents(folder):
        text = tokenizer.decode(all_tokens(folder)["val"])
        return set(text.split("<|endoftext|>"))

    before, after = val_documents(workdir / "data/shards"), val_documents(tmp_path / "x")
    assert before <= after and all("added" in text for text in after - before)
    dropped = [json.loads(line) for line in (tmp_path / "x/dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == 61 and {d["rule"] for d in dropped} == {"exact_duplicate"}
    detail = f"{bigger}/copy.py"  # the first by its path is kept
    assert {"id": "file_00.py", "source": str(corpus), "rule": "exact_duplicate", "detail": detail} in dropped


def test_every_document_is_accounted_for(workdir, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    files = {"a.py": b"a = 1", "b.py": b"a = 1", "c.py": b"\xff", "d.py": b"", "e.xyz": b"x"}
    files["f.jsonl"] = b'{"text": "y"}\n{'
    for name, data in files.items():
        (folder / name).write_bytes(data)
    prepare(workdir, f"--sources={folder}", f"--out_dir={tmp_path / 'x'}", "--val_fraction=0", "--filters=false")
    source = shards.read_manifest(tmp_path / "x")["sources"][str(folder)]
    assert source["train"]["documents"] == 2
    assert source["dropped"] == {"exact_duplicate": 1, "bad_utf8": 1, "empty": 1, "unknown_format": 1, "bad_json": 1}


def mark(folder):
    """Make all tokens of the first chunk 7, and have progress.json say that they are so."""
    chunk, path = folder / "000000.tokens", folder / "progress.json"
    chunk.write_bytes(b"\7\0" * (chunk.stat().st_size // 2))
    progress = json.loads(path.read_text())
    del progress["sha256"]
    progress["chunks"][0]["sha256"]["tokens"] = shards.sha256_file(chunk)
    path.write_text(json.dumps({**progress, "sha256": prepare_data.digest_of(progress)}))


def test_killed_and_run_again_equals_one_run(workdir, corpus, tmp_path):
    """Kill -9 as soon as a chunk is finished; the second run goes on after it and the result is the same."""
    arguments = [f"--sources={corpus}", f"--tokenizer={workdir / 'data/tokenizer.json'}"]
    arguments += ["--val_fraction=0.2", "--shard_bytes=16000", "--num_workers=1"]
    prepare(workdir, *arguments, f"--out_dir={tmp_path / 'whole'}")
    process = subprocess.Popen(
        [sys.executable, ROOT / "prepare_data.py", *arguments, f"--out_dir={tmp_path / 'x'}"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not (tmp_path / "x/chunks/progress.json").exists() and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(UserError, match="no shards"):
        Shards(tmp_path / "x", "train")
    shutil.copytree(tmp_path / "x", tmp_path / "marked")
    mark(tmp_path / "marked/chunks")
    for name in ("x", "marked"):
        prepare(workdir, *arguments, f"--out_dir={tmp_path / name}")
    assert shards.read_manifest(tmp_path / "x")["files"] == shards.read_manifest(tmp_path / "whole")["files"]
    assert (tmp_path / "x/dropped.jsonl").read_bytes() == (tmp_path / "whole/dropped.jsonl").read_bytes()
    marked = [set(all_tokens(tmp_path / "marked")[split][:20].tolist()) for split in ("train", "val")]
    assert {7} in marked, "finished work is used, not done again"
    assert not [f for f in os.listdir(tmp_path / "x") if f.endswith(".tmp") or f == "chunks"]


def test_changed_documents_are_noticed(workdir, corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "c")
    arguments = [f"--sources={folder}", f"--out_dir={tmp_path / 'x'}", "--shard_bytes=20000"]
    prepare(workdir, *arguments)
    (folder / "file_59.py").unlink()
    assert "starting over" in prepare(workdir, *arguments).stdout
    assert shards.read_manifest(tmp_path / "x")["sources"][str(folder)]["train"]["documents"] < 60
    shutil.rmtree(folder)
    shutil.copytree(corpus, folder)
    prepare(workdir, *arguments)
    assert sum(split["documents"] for split in shards.read_manifest(tmp_path / "x")["splits"].values()) == 60


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-2]), "damaged"),
        (lambda f: f.write_bytes(b"x" * 5000), "not a token shard"),
        (lambda f: f.unlink(), "missing"),
        (lambda f: f.write_bytes(b""), "not a token shard"),
    ],
)
def test_a_reader_refuses_damaged_shards(workdir, tmp_path, damage, words):
    folder = shutil.copytree(workdir / "data/shards", tmp_path / "x")
    damage(folder / "train_000000.bin")
    with pytest.raises(UserError, match=words):
        Shards(folder, "train")


def test_a_flipped_bit_is_found(workdir, tmp_path):
    folder = shutil.copytree(workdir / "data/shards", tmp_path / "x")
    data = bytearray((folder / "train_000000.bin").read_bytes())
    data[2000] ^= 1
    (folder / "train_000000.bin").write_bytes(data)
    with pytest.raises(UserError, match="sha256"):
        Shards(folder, "train").verify()


def test_shards_of_different_tokenizers_do_not_mix(workdir, corpus, tmp_path):
    stage("tokenizer_train.py", f"--sources={corpus}", "--vocab_size=300", f"--out={tmp_path / 't.json'}", cwd=tmp_path)
    prepare(workdir, f"--sources={corpus}", f"--tokenizer={tmp_path / 't.json'}", f"--out_dir={tmp_path / 'x'}")
    with pytest.raises(UserError, match="different tokenizers"):
        shards.load_tokenizer([workdir / "data/shards", tmp_path / "x"])
    shutil.copy(workdir / "data/tokenizer.json", tmp_path / "x/tokenizer.json")
    with pytest.raises(UserError, match="were made by tokenizer"):
        shards.load_tokenizer([tmp_path / "x"])


def test_bad_input(workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    for argument, words in (
        ("--sources=nowhere", "nowhere"),
        ("--val_fraction=2", "val_fraction"),
        ("--tokenizer=none.json", "none.json"),
        (f"--sources={tmp_path / 'empty'}", "no documents"),
    ):
        result = prepare(workdir, argument, f"--out_dir={tmp_path / 'x'}", check=False)
        assert_one_line_error(result, words)
    assert not list(tmp_path.glob("x/*.bin")) and not (tmp_path / "x/manifest.json").exists()


def test_no_space_left(workdir, corpus, tmp_path):
    """A limit on file size stands for a full disk: one line, and no half-written shard."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    arguments = (f"--sources={corpus}", f"--out_dir={tmp_path / 'x'}", "--num_workers=1")
    result = prepare(workdir, *arguments, check=False, preexec_fn=limit)
    assert_one_line_error(result, "File too large", f"'{tmp_path}/x/chunks/000000.")
    assert not list(tmp_path.glob("x/*.bin*")) and not list(tmp_path.glob("x/**/*.tmp"))
    assert not (tmp_path / "x/manifest.json").exists()
