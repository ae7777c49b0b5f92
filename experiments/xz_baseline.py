"""What a general compressor reaches on the validation text: python experiments/xz_baseline.py --data=data/stdlib

Bits per byte of xz on the validation split alone, and after it has read the training split (the growth of the archive).
A language model that has learnt something beyond repeated strings must be below the second figure.
"""

import lzma
import sys
from dataclasses import dataclass
from pathlib import Path

import configurator
from configurator import UserError
from shards import Shards, load_tokenizer

MAX_BYTES = 1 << 28  # xz needs about ten times the text in memory


@dataclass
class Settings:
    data: str = "data/stdlib"  # the shard folder


def main(s):
    tokenizer = load_tokenizer([s.data])
    train, val = (Shards(s.data, split) for split in ("train", "val"))
    if 4 * len(train) > MAX_BYTES:
        raise UserError(f"{s.data} is too large for this: use a folder of at most {MAX_BYTES // 4:,} tokens")
    train, val = (
        tokenizer.decode_bytes(t for t in split.tokens(0, len(split)) if t != tokenizer.eot) for split in (train, val)
    )
    before = compressed(train)
    print(f"xz on {len(val):,} bytes of validation text: {8 * compressed(val) / len(val):.3f} bits per byte, ", end="")
    print(f"{8 * (compressed(train + val) - before) / len(val):.3f} after {len(train):,} bytes of training text")


def compressed(data):
    """Size in bytes, with a dictionary that holds all of it."""
    return len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(len(data), 4096)}]))


if __name__ == "__main__":
    configurator.run(main, Settings)
