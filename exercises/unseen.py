"""Keeps out of the exercises what HumanEval and MBPP hold: ten code tokens in a row, or ten words in a row.

    python -m exercises.unseen \\
        --benchmarks=HumanEval.jsonl.gz,mbpp.jsonl,sanitized-mbpp.json

The exercises are everyday operations, and so are many problems of these benchmarks: what is written in the same way
there is drawn anew here, with other names or in another form. benchmarks.bin holds hashes of their sequences, since the
exercises must be the same with and without the benchmarks' files.
"""

import needs  # noqa: F401

import functools
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import configurator
from configurator import UserError
from corpus.records import read_lines
from ranges import Place
from shards import WholeFile

HASHES = Path(__file__).parent / "benchmarks.bin"
LENGTH = 10
TOKEN = re.compile(
    r"\"{3}[\s\S]*?(?:\"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)|\"(?:\\.|[^\"\\\n])*\"?|'(?:\\.|[^'\\\n])*'?|#.*"
    r"|\w+(?:\.\d+)?|\*\*=|//=|->|[-+*/%=<>!&|^]=|\*\*|//|<<|>>|[^\s\w]"
)


@dataclass
class Settings:
    """Where the benchmarks are."""

    benchmarks: list[str] = field(default_factory=list)  # their files
    out: Place = str(HASHES)  # the sorted hashes


def sequences(text):
    """The hashes of all sequences of ten code tokens, a docstring counting as one, and of ten words."""
    code = [token[:3] if token[:3] in ('"""', "'''") else token for token in TOKEN.findall(text) if token[0] != "#"]
    words = re.findall(r"[a-z0-9_]+", text.lower())
    found = set()
    for kind, items in (("code", code), ("words", words)):
        for start in range(len(items) - LENGTH + 1):
            found.add(zlib.crc32(f"{kind} {' '.join(items[start : start + LENGTH])}".encode()))
    return found


def is_in_benchmark(text):
    """Whether a text shares a sequence with a benchmark; of other texts one in 200 is refused too, as two sequences
    may have the same hash of 32 bits."""
    return not hashes().isdisjoint(sequences(text))


@functools.cache
def hashes():
    """What benchmarks.bin holds, as a set."""
    return frozenset(np.fromfile(HASHES, "<u4").tolist())


def main(settings):
    """Write the hashes of the texts of all problems: prompts, solutions, tests."""
    found, n_problems = set(), 0
    for path in settings.benchmarks:
        for record in read_lines(Path(path)):
            n_problems += 1
            tests = record.get("test_list", []) + record.get("challenge_test_list", [])
            texts = [record.get("prompt", "") + record.get("canonical_solution", ""), record.get("test", "")]
            texts += [record.get("text", ""), record.get("code", ""), *tests]
            found = found.union(*map(sequences, texts))
    if not n_problems:
        raise UserError("no problems: --benchmarks=HumanEval.jsonl.gz,mbpp.jsonl")
    file = WholeFile(settings.out)
    file.write(np.array(sorted(found), "<u4").tobytes())
    file.close()
    print(f"{n_problems:,} problems, {len(found):,} sequences -> {settings.out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
