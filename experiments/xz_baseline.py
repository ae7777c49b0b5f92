"""What a general compressor reaches on the validation text.

    python -m experiments.xz_baseline --data=data/stdlib

Prints bits per byte of xz on the validation split alone, and appended to the training split. A
language model that has learnt more than repeated strings must be below the second figure.
"""

import lzma
from dataclasses import dataclass

import configurator
from configurator import UserError
from shards import Shards, load_tokenizer

MAX_TOKENS = 1 << 26  # about 270 MB of text; xz needs ten times as much memory


@dataclass
class Settings:
    """What to compress."""

    # -- data
    data: str = "data/stdlib"  # the shard folder


def main(settings):
    """Print the two figures."""
    tokenizer, texts = load_tokenizer([settings.data]), []
    for split in ("train", "val"):
        shards = Shards(settings.data, split)
        if len(shards) > MAX_TOKENS:
            raise UserError(f"{settings.data} is too large: use a folder of at most {MAX_TOKENS:,} tokens")
        tokens = shards.tokens(0, len(shards))
        texts.append(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot]))
    train, val = texts
    after = 8 * (compressed(train + val) - compressed(train)) / len(val)
    print(f"xz on {len(val):,} bytes of validation text: {8 * compressed(val) / len(val):.3f} bits per byte")
    print(f"the same after {len(train):,} bytes of training text: {after:.3f} bits per byte")


def compressed(data):
    """Size of data in bytes when it is compressed, with a dictionary that holds all of it."""
    return len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(len(data), 4096)}]))


if __name__ == "__main__":
    configurator.run(main, Settings)
