"""Input that nobody would write: settings, TOML, records, archives, shards, manifests, checkpoints, texts, by the million.

Everything here is called in this process. An input must be taken or refused by the error that is meant for it, within
seconds; what is taken must be what was given. Another exception, a hang, or a neighbour that is lost is a fault.
"""

import contextlib
import gzip
import importlib
import json
import os
import signal
import tempfile
from functools import cache, partial
from pathlib import Path

import configurator
import shards
from cleaning import licences, pii
from configurator import UserError
from corpus import chats, documents
from corpus.documents import Document, Problem
from evaluation import problems, replies
from tests.faults.common import Group, Lost
from tests.faults.world import COMMANDS
from tokenizer import Tokenizer
from training import checkpoint

BATCH = 1000  # inputs of a case
LIMIT = 20  # seconds after which an input counts as hanging
ODD = ["", "0", "-1", "nan", "inf", "1e309", "1_0", "9" * 5000, "true", "auto", "None", "a,b", ",", ":", "=", "\0", "é",
       "\udce9", "\ud800", " ", "\n", "--", "1.5", "2e4", "[", "{", "'", '"', "../..", "x" * 300, "data:nan", "a:1,b:-1",
       "١", "²", "0x10", "cuda:99", "stdlib", "configs/demo.toml", "configs/demo.toml:pages", "/dev/null", "/", "."]  # fmt: skip
ODD_VALUES = [None, True, 0, -1, 1e308, float("nan"), 10**400, "", " ", "\0", "\ud800", "é", "a" * 5000, [], {}, [[]],
              [None], {"": None}, "user", "assistant", 0.0, ["a", "b"], [{"role": "user"}], "\ufeff", "<|endoftext|>"]  # fmt: skip
ODD_BYTES = [b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b"[" * 50, b"{", b"}", b'"', b",", b"NaN", b"1e999", b"=",
             b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b"null", b"9" * 5000, b"[[", b"]", b"#", b"-", b"'''"]  # fmt: skip
RECORDS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"messages": None, "prompt": "a", "response": "b", "system": "s"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
    {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]},
    {"query": "a", "response": "b"},
    {"message": "m", "old_contents": "a", "new_contents": "b", "lang": "Python"},
    {"chat": {"turn_1": {"Human": "<|Human|>: a<eoh>", "MOSS": "<|MOSS|>: b<eom>"}}, "meta_instruction": "s"},
    {"type": "t", "input": "a", "output": "b", "weight": 0},
    {"content": "x = 1", "max_stars_count": 3, "path": "a.py", "lang": "Python", "id": 1},
    {"text": "words", "url": "u", "date": "2020-01-01", "license": ["mit"]},
]
PIECES = ["x@layer.it", "name@mail.com ", "10.0.0.1", "203.0.113.77", "version 1.2.130.4", 'password = "Zk3J9x0Lm2Qp7VtB4nRs"',
          "# Copyright 2020 X\n", "// SPDX-License-Identifier: MIT\n", "/* (c) */\n", "#include <stdio.h>\n", "#!/bin/sh\n",
          "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20, "def f(x):\n",
          "2001:db8::1", "a" * 200, "\n" * 50, " ", "'", '"', "中文", "é", "\r\n", "<br>", "[[File:x]]", "{{t|", "}}", "==h=="]  # fmt: skip


def mutated_bytes(data, rng):
    """Bytes with one to four random changes."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 0, 1, 4, 30)))
        flipped = bytes([data[start] ^ 1 << rng.randrange(8)]) if start < len(data) else b""
        new = rng.choice((b"", flipped, rng.choice(ODD_BYTES), data[start:end] * 2))
        data = data[:start] + new + data[end:] if rng.random() < 0.9 else data[:start]
    return data


def mutated_value(value, rng):
    """A value of JSON in which one place is another."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        how = rng.random()
        if how < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if how < 0.2:
            return {**value, rng.choice(list(rng.choice(RECORDS))): rng.choice(ODD_VALUES)}
        return {**value, key: mutated_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        new = [mutated_value(value[at], rng)] if rng.random() < 0.8 else []
        return value[:at] + new + value[at + (rng.random() < 0.9) :]
    return rng.choice(ODD_VALUES)


class Late(BaseException):
    """An input takes too long. No Exception, so that nothing that is tried here can catch it."""


def late(*_):
    """What the alarm calls."""
    raise Late


def batch(draw, attempt, n_inputs, world, rng):
    """Draw n_inputs inputs and try each: attempt(input) returns whether it was taken, or raises UserError."""
    counts, given = {"taken": 0, "refused": 0}, None
    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        try:
            for _ in range(n_inputs):
                given = draw(rng)
                signal.setitimer(signal.ITIMER_REAL, LIMIT)
                counts["taken" if taken(attempt, given, Path(folder)) else "refused"] += 1
        except Late:
            raise Lost(f"hangs for {LIMIT} seconds on {given!r}"[:1500]) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return counts


def taken(attempt, given, folder):
    """Whether an input is taken. Raises Lost where it ends in anything but an error that is meant for it."""
    try:
        return attempt(given, folder)
    except UserError as error:
        if not str(error):
            raise Lost(f"an error without a word on {given!r}"[:1500]) from None
        return False
    except Lost:
        raise
    except Exception as error:
        raise Lost(f"{type(error).__name__}: {error}, on {given!r}"[:1500]) from error


# -- settings


@cache
def doors():
    """{stage: its settings class} of every command that takes settings."""
    modules = dict.fromkeys(command.split()[0] for command in COMMANDS.values())
    modules |= dict.fromkeys("sample cleaning.classifier cleaning.cluster evaluation.score experiments.plot".split())
    return {name.removesuffix(".__main__"): importlib.import_module(name).Settings for name in modules}


def drawn_arguments(rng):
    """(stage, argument list): settings and files with odd values."""
    stage = rng.choice(list(doors()))
    names, arguments = list(configurator.settings_of(doors()[stage])), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(names) if rng.random() < 0.95 else rng.choice(ODD)
        value = rng.choice(ODD) if rng.random() < 0.8 else str(rng.choice((rng.random() * 2, rng.randrange(5000))))
        arguments.append(f"--{name}={value}" if rng.random() < 0.95 else rng.choice((f"--{name}", value, f"-{name}")))
    return stage, [argument for argument in arguments if argument not in ("--help", "-h")]


def load_arguments(given, _):
    """Settings that are taken come back the same when they are written out and read again."""
    stage, arguments = given
    try:
        settings = configurator.load(doors()[stage], arguments, stage)
    except OSError as error:  # configurator.run() shows it as it shows a UserError
        raise UserError(error) from None
    shown = [f"--{name}={configurator.value_text(value)}" for name, value in configurator.flat(settings).items()]
    again = configurator.load(doors()[stage], shown, stage)
    if repr(again) != repr(settings):
        raise Lost(f"{arguments}: {settings} became {again}")
    return True


@cache
def recipes():
    """The bytes of the recipes that the project brings."""
    return [path.read_bytes() for path in sorted((configurator.ROOT / "configs").glob("*.toml"))]


def drawn_toml(rng):
    """(stage, bytes of a recipe with mistakes)."""
    return rng.choice(list(doors())), mutated_bytes(rng.choice(recipes()), rng)


def load_toml(given, path):
    """Read a recipe, with every run of the stage that it names."""
    stage, data = given
    (path / "x.toml").write_bytes(data)
    run = configurator.parse_toml(f"{path}/x.toml").get(stage, {})
    runs = [name for name, value in run.items() if isinstance(value, dict)] if isinstance(run, dict) else []
    for name in runs[:1] or [""]:
        configurator.load(doors()[stage], [f"{path}/x.toml:{name}" if name else f"{path}/x.toml"], stage)
    return True


# -- records and texts


def drawn_record(rng):
    """A record of a known shape with mistakes."""
    record = rng.choice(RECORDS)
    for _ in range(rng.choice((1, 1, 2, 3))):
        record = mutated_value(record, rng)
    return record


def parse_record(parse, record, _):
    """A record becomes a Document whose text can be written, or a Problem that says why not."""
    found = parse(record, "here")
    if isinstance(found, Problem):
        f"{found.rule}{found.detail}".encode()
        if not found.rule:
            raise Lost("a Problem without a rule")
        return False
    text = found.text.encode()
    if parse is chats.from_record:
        roles = [message["role"] for message in json.loads(text)["messages"]]
        if "assistant" not in roles or roles[roles[0] == "system" :: 2].count("user") < roles.count("assistant"):
            raise Lost(f"roles {roles}")
    return True


def drawn_file(rng):
    """(name, bytes, lines): a file of 20 records, of which the bytes of one line are changed; lines: the others."""
    lines = [json.dumps({"text": f"text {i}", "stars": i}).encode() for i in range(20)]
    changed = rng.randrange(20)
    new = mutated_bytes(lines[changed], rng).replace(b"\n", b"").replace(b"\r", b"")
    suffix = rng.choice((".jsonl", ".jsonl.gz", ".JSONL"))
    data = b"\n".join([*lines[:changed], new, *lines[changed + 1 :], b""])
    whole = {f"text {i}" for i in range(20) if i != changed}
    return f"x{suffix}", gzip.compress(data, 1) if suffix.endswith("gz") else data, whole


def read_records(given, path):
    """One bad line costs itself alone, and is named."""
    name, data, whole = given
    (path / name).write_bytes(data)
    found = list(documents.read(str(path / name)))
    texts = {item.text for item in found if isinstance(item, Document)}
    if whole - texts:
        raise Lost(f"lost {sorted(whole - texts)[:3]}")
    return all(isinstance(item, Document) for item in found)


@cache
def archives():
    """[(name, bytes)] of files that hold documents."""
    lines = b"".join(json.dumps({"text": f"text {i}"}).encode() + b"\n" for i in range(50))
    page = "<page><title>T</title><ns>0</ns><revision><text>'''T''' is a [[text]].</text></revision></page>"
    wiki = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{page * 3}</mediawiki>'.encode()
    found = [
        ("x.jsonl.gz", gzip.compress(lines)),
        ("wiki.xml", wiki),
        ("x.json", b"[" + lines.replace(b"\n", b",")[:-1] + b"]"),
    ]
    with contextlib.suppress(ImportError):
        found.append(("x.jsonl.zst", importlib.import_module("zstandard").ZstdCompressor().compress(lines)))
    with contextlib.suppress(ImportError):
        pyarrow = importlib.import_module("pyarrow.parquet")
        table = importlib.import_module("pyarrow").table({"text": [f"text {i}" for i in range(50)]})
        sink = importlib.import_module("io").BytesIO()
        pyarrow.write_table(table, sink)
        found.append(("x.parquet", sink.getvalue()))
    return found


def drawn_archive(rng):
    """(name, bytes) of a damaged archive."""
    name, data = rng.choice(archives())
    return name, mutated_bytes(data, rng)


def read_archive(given, path):
    """A damaged archive gives documents and Problems, at least one of the two."""
    name, data = given
    (path / name).write_bytes(data)
    found = list(documents.read(str(path / name)))
    if not found:
        raise Lost("neither a document nor a word")
    return not any(isinstance(item, Problem) for item in found)


def drawn_text(rng):
    """A text of odd pieces."""
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(12)))


def clean_text(text, _):
    """Replacements made twice are those made once."""
    kind = "python" if len(text) % 2 else "prose"
    once, _ = pii.replaced(text, kind)
    if pii.replaced(once, kind)[0] != once:
        raise Lost(f"{once!r} changes again")
    licences.without_license(text)
    replies.code_in(text)
    return True


@cache
def tokenizer(folder):
    """The tokenizer of the World."""
    return Tokenizer.load(folder / "in/tokenizer.json")


def encode_text(text, path):
    """Text, or any bytes, comes back."""
    one = tokenizer(path.parent)
    data = text.encode() if len(text) % 3 else text.encode("utf-16")
    if one.decode_bytes(one.encode(data)) != data or max(one.encode(data), default=0) >= one.vocab_size:
        raise Lost("another text came back")
    return True


# -- files of the project


@cache
def file_bytes(path):
    """The content of a file, read once."""
    return path.read_bytes()


def read_changed(name, read, world, rng):
    """Cases of a file of the World with changed bytes. read(folder): what reads it."""
    source = rng.choice(sorted((world.folder / "in").glob(name)))
    data = file_bytes(source)

    def attempt(changed, path):
        """Read the changed file, which has the neighbours that it had."""
        for neighbour in source.parent.iterdir() if not any(path.iterdir()) else ():
            if neighbour != source:
                os.symlink(neighbour, path / neighbour.name)
        (path / source.name).write_bytes(changed)
        read(path)
        return True

    return batch(lambda rng: mutated_bytes(data, rng), attempt, BATCH // 10, world, rng)


def read_shards(path):
    """Open and verify the shards of a folder."""
    for split in ("train", "val"):
        shards.Shards(path, split).verify()


def read_problems(path):
    """The problems of a benchmark."""
    problems.read_problems(path / "problems.jsonl", "11-510")


def groups():
    """The Groups of this file."""
    inputs = {
        "argument lists": (drawn_arguments, load_arguments, BATCH, 320_000),
        "TOML": (drawn_toml, load_toml, BATCH // 4, 30_000),
        "records": (drawn_record, partial(parse_record, documents.from_record), BATCH, 350_000),
        "conversations": (drawn_record, partial(parse_record, chats.from_record), BATCH, 400_000),
        "files of records": (drawn_file, read_records, BATCH // 4, 20_000),
        "archives": (drawn_archive, read_archive, BATCH // 4, 20_000),
        "texts that are cleaned": (drawn_text, clean_text, BATCH, 60_000),
        "texts that are tokenized": (drawn_text, encode_text, BATCH, 40_000),
    }
    files = {
        "shards": ("docs/*.bin", read_shards, 10_000),
        "manifests": ("docs/manifest.json", shards.read_manifest, 3_000),
        "checkpoints' meta": ("pretrain/step_*/meta.json", checkpoint.checked_meta, 5_000),
        "tokenizers": ("tokenizer.json", lambda path: Tokenizer.load(path / "tokenizer.json"), 5_000),
        "problems": ("problems.jsonl", read_problems, 10_000),
    }
    found = []
    for name, (draw, attempt, n_inputs, target) in inputs.items():
        found.append(Group(f"fuzzed: {name}", partial(batch, draw, attempt, n_inputs), target, share=2))
    for name, (pattern, read, target) in files.items():
        found.append(Group(f"fuzzed: {name}", partial(read_changed, pattern, read), target))
    return found
