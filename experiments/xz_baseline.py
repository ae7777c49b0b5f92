"""What a general compressor reaches on the validation text.

    python -m experiments.xz_baseline --data=data/stdlib

Bits per byte of xz on the validation split alone, and after it has read the training split (how
much the archive grows). A language model that has learnt something beyond repeated strings must be
below the second figure.
"""

import lzma
from dataclasses import dataclass

import configurator
from configurator import UserError
from shards import Shards, load_tokenizer

MAX_BYTES = 1 << 28  # xz needs about ten times the text in memory


@dataclass
class Settings:
    """What to compress."""

    # -- data
    data: str = "data/stdlib"  # the shard folder


def main(settings):
    """Print the two figures."""
    tokenizer = load_tokenizer([settings.data])
    texts = []
    for split in ("train", "val"):
        shards = Shards(settings.data, split)
        if 4 * len(shards) > MAX_BYTES:
            raise UserError(f"{settings.data} is too large: use a folder of at most {MAX_BYTES // 4:,} tokens")
        tokens = shards.tokens(0, len(shards))
        texts.append(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot]))
    train, val = texts
    alone = 8 * compressed(val) / len(val)
    after = 8 * (compressed(train + val) - compressed(train)) / len(val)
    print(
        f"xz on {len(val):,} bytes of validation text: {alone:.3f} bits per byte, "
        f"{after:.3f} after {len(train):,} bytes of training text"
    )


def compressed(data):
    """Size of data in bytes when it is compressed, with a dictionary that holds all of it."""
    return len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": max(len(data), 4096)}]))


if __name__ == "__main__":
    configurator.run(main, Settings)
