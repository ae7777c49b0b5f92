"""Copies of data sets as the hub lays them out, OWNER/NAME/data/train-00000-of-00001.jsonl, filled with records in the
published shapes: what a rehearsal of a recipe reads instead of the hub."""

import hashlib
import json
import random
import re
from pathlib import Path
from pydoc_data.topics import topics

from conftest import ROOT

from corpus.sources import SETS

PUBLISHED = [json.loads(line) for line in (ROOT / "tests/published.jsonl").read_text(encoding="utf-8").splitlines()]
WORDS = "river stone lamp winter garden engine copper letter morning harbour ticket basket window ladder music".split()
REFERENCE = "\n".join(topics.values())  # English prose, which every Python has
CODE = '''"""{title}."""


def {name}({a}, {b}):
    """Return the {what} of {a} and {b}."""
    result = {a}
    for {c} in range({n}):
        result = result {op} {b} + {c}
    return result


print({name}({n}, {m}))
'''


def program(rng):
    """A program like no other."""
    a, b, c, what, title = rng.sample(WORDS, 5)
    numbers = {"n": rng.randrange(1000), "m": rng.randrange(1000), "op": rng.choice("+-*")}
    return CODE.format(
        title=title.title(), name=f"{a}_{what}_{rng.randrange(10**6)}", a=a, b=b, c=c, what=what, **numbers
    )


def prose(rng):
    """Some sentences of the language's reference."""
    start = rng.randrange(len(REFERENCE) - 2000)
    text = " ".join(re.findall(r"[A-Za-z][\w', -]+\.", REFERENCE[start : start + 2000])[:12])
    return f"{text} {rng.choice(WORDS)} {rng.randrange(10**6)}."


def varied(value, rng):
    """A value in which every longer text is like no other."""
    if isinstance(value, dict):
        return {key: varied(part, rng) for key, part in value.items()}
    if isinstance(value, list):
        return [varied(part, rng) for part in value]
    if isinstance(value, str) and value.startswith(("def ", "import ")):
        return program(rng)
    is_text = isinstance(value, str) and len(value) > 8 and (" " in value or not value.isascii())
    if is_text and not value.startswith("["):
        return f"{value} {prose(rng)}"
    return value


def make_hub(folder, names, count):
    """Copies of these named sets, count records each. Returns {blob_id: text} of those that hold no texts."""
    blobs = {}
    for name in names:
        about, rng = SETS[name], random.Random(name)
        records = []
        for number in range(count):
            if "contents" in about:
                text = program(rng)
                blob_id = hashlib.sha1(text.encode()).hexdigest()
                blobs[blob_id] = text
                row = {"blob_id": blob_id, "path": f"/src/{number}.py", "repo_name": f"ada/r{number // 9}"}
                row |= {"length_bytes": len(text), "score": 4.1, "int_score": 4, "src_encoding": "UTF-8"}
                records.append(row)
            else:
                line = rng.choice([line for line in PUBLISHED if line["set"] == name])
                records.append(varied(line["record"], rng))
        split, config = about.get("split", "train"), about.get("config", "data")
        place = about.get("files", f"{about.get('data_dir', config)}/{split}-00000-of-00001.jsonl").replace("*", "0")
        path = Path(folder) / about["hub"] / place.replace(".parquet", ".jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return blobs
