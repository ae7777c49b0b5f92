"""Changes that must change nothing: order, names, workers, chunks, line ends, the form of a file, the micro-batch."""

import bz2
import gzip
import json
import lzma
from collections import Counter

import shards
from corpus.documents import Document, read
from tests.conftest import program
from tests.faults.common import Group, Lost, Run, case_folder
from tests.faults.world import begin
from tokenizer import Tokenizer

PREPARE = "prepare_data --tokenizer=in/tokenizer.json --val_fraction=0.2"
LETTERS = "abcxyz_ 0é中Ω"


def kept(folder, name, sources, settings=""):
    """The documents, with how often each is there, that prepare_data makes shards of."""
    Run(f"{PREPARE} --sources={sources} --out_dir={name} {settings}", folder).wait().check(0)
    tokenizer, found = Tokenizer.load(folder / name / "tokenizer.json"), Counter()
    for split in ("train", "val"):
        part = shards.Shards(folder / name, split)
        for start, length in zip(*part.documents(tokenizer.eot)):
            found[split, tokenizer.decode(part.tokens(int(start) + 1, int(length) - 1))] += 1
    return found


def same(found, expected, what):
    """Raises Lost where they differ."""
    if found != expected:
        raise Lost(f"{what}: {len(found - expected)} documents more, {len(expected - found)} fewer")
    return {"the same": 1}


def texts(rng):
    """Some programs, of which a few are there twice."""
    numbers = [rng.randrange(1000) for _ in range(rng.randrange(8, 20))]
    return [program(number, lines=10 + number % 30) for number in numbers + numbers[:2]]


def write(folder, contents, rng):
    """Write texts under random names, in random folders."""
    for number, text in enumerate(contents):
        name = "".join(rng.choice(LETTERS) for _ in range(6)).strip() + f"{number}.py"
        path = folder / rng.choice(("", "a", "b/c", "é")) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def order_and_names(world, rng):
    """The same texts in another order, under other names."""
    contents = texts(rng)
    with case_folder(world, "order") as folder:
        for name in ("one", "two"):
            write(folder / name, contents, rng)
            rng.shuffle(contents)
        first = kept(folder, "out1", "one", "--num_workers=1")
        return same(kept(folder, "out2", "two", "--num_workers=1"), first, "other names")


def workers_and_chunks(world, rng):
    """The same sources with other numbers of processes, other sizes of chunks, another order of sources."""
    with case_folder(world, "workers") as folder:
        for name in ("one", "two"):
            write(folder / name, texts(rng), rng)
        first = kept(folder, "out1", "one,two", "--num_workers=1")
        settings = f"--num_workers={rng.choice((1, 2, 3))} --shard_bytes={rng.choice((1, 3000, 20_000, 10**9))}"
        return same(kept(folder, "out2", "two,one", settings), first, settings)


def line_ends(world, rng):
    """Copies that differ in their line ends: which one comes first decides nothing."""
    contents = texts(rng)
    both = contents + [text.replace("\n", "\r\n") for text in contents]
    with case_folder(world, "lines") as folder:
        for name, ordered in (("one", both), ("two", both[::-1])):
            (folder / name).mkdir()
            for number, text in enumerate(ordered):
                (folder / name / f"{number:03}.py").write_bytes(text.encode())
        first = kept(folder, "out1", "one", "--num_workers=1")
        if sum(first.values()) > len(set(contents)):
            raise Lost("copies with other line ends were kept beside each other")
        return same(kept(folder, "out2", "two", "--num_workers=1"), first, "line ends")


def forms(world, rng):
    """The same records as lines, as an array, compressed, with a byte order mark, under names of any case."""
    records = [{"text": text, "stars": rng.randrange(9)} for text in texts(rng)]
    lines = "".join(json.dumps(record, ensure_ascii=rng.random() < 0.5) + "\n" for record in records).encode()
    array = json.dumps(records, indent=rng.choice((None, 2))).encode()
    files = {"a.jsonl": lines, "A.JSONL": lines, "b.json": array, "c.jsonl.gz": gzip.compress(lines)}
    files |= {"d.JSON.GZ": gzip.compress(array), "e.jsonl": b"\xef\xbb\xbf" + lines, "f.json": b"\n\n" + array}
    files |= {"g.jsonl": lines.replace(b"\n", b"\r\n"), "h.jsonl": b"\n" + lines[:-1]}
    files |= {"i.jsonl.gz": gzip.compress(lines[:100]) + gzip.compress(lines[100:])}
    files |= {"j.jsonl.xz": lzma.compress(lines), "k.jsonl.bz2": bz2.compress(lines)}
    expected = [(record["text"], record["stars"]) for record in records]
    with case_folder(world, "forms") as folder:
        name = rng.choice(list(files))
        (folder / name).write_bytes(files[name])
        items = list(read(str(folder / name)))
        found = [(item.text, item.meta["stars"]) for item in items if isinstance(item, Document)]
        if found != expected or len(items) != len(records):
            raise Lost(f"{name}: {len(found)} of {len(records)} records are the same")
    return {"the same": 1}


def cleaned_twice(world, rng):
    """What was cleaned stays as it is when it is cleaned again."""
    with case_folder(world, "twice") as folder:
        contents = texts(rng)
        header = rng.choice(
            ("", "# Copyright 2020 Somebody\n# SPDX-License-Identifier: MIT\n\n", "#!/usr/bin/env python\n")
        )
        secret = rng.choice(("", "\n# somebody@mail.com, 203.0.113.77\nPASSWORD = 'Zk3J9x0Lm2Qp7VtB4nRs'\n"))
        write(folder / "one", [header + text + secret for text in contents], rng)
        first = kept(folder, "out1", "one", "--num_workers=1")
        write(folder / "two", [text for _, text in first.elements()], rng)
        return same(kept(folder, "out2", "two", "--num_workers=1"), first, "cleaned again")


def micro_batch(world, rng):
    """A step in other parts has the same loss, but for rounding."""
    losses = []
    with case_folder(world, "micro") as folder:
        for number in (4, rng.choice((1, 2, 3, 8))):
            out = f"out{number}"
            begin("pretrain", folder, extra=f"--micro_batch={number} --out_dir={out}").wait().check(0)
            lines = map(json.loads, (folder / out / "metrics.jsonl").read_text().splitlines())
            losses.append([line["loss"] for line in lines if "loss" in line])
    if max(abs(a - b) for a, b in zip(*losses)) > 1e-3:
        raise Lost(f"losses {losses}")
    return {"the same": 1}


def samples_order(world, rng):
    """Samples in another order have the same verdicts."""
    with case_folder(world, "samples") as folder:
        lines = (folder / "in/samples.jsonl").read_text().splitlines()
        rng.shuffle(lines)
        (folder / "mixed.jsonl").write_text("\n".join(lines))
        begin("eval_humaneval, samples", folder, extra="--samples=mixed.jsonl").wait().check(0)
        found = [json.loads(line) for line in (folder / "out/results.jsonl").read_text().splitlines()]
    verdicts = {record["task_id"]: record["passed"] for record in found}
    if verdicts != {f"T/{i}": bool(i % 2) or i == 0 for i in range(6)}:
        raise Lost(f"verdicts {verdicts}")
    return {"the same": 1}


def groups():
    """The Groups of this file."""
    changes = {
        "order and names of files": order_and_names,
        "workers, chunks, order of sources": workers_and_chunks,
        "line ends": line_ends,
        "the form of a file": forms,
        "cleaning twice": cleaned_twice,
        "the micro-batch": micro_batch,
        "the order of samples": samples_order,
    }
    return [Group(f"must change nothing: {name}", case, target=60) for name, case in changes.items()]
