"""Bytes -> tokens -> n-grams, all in numpy: what near-duplicates, benchmark copies and quality scores are told by.

A token is a run of letters, digits and underscores, or one character of any other kind but white space, quotes and
backslashes, which formatters change; a letter outside ASCII is a token of its own, so that Chinese has n-grams too. Case does not count. Tokens and n-grams exist
as 64-bit hashes alone: for a million documents one collision within a document is expected, and nothing hangs on it.
Some 60 MB/s on one core, where a regular expression and a Python loop reach 5.
"""

import numpy as np

SPACE, OTHER, WORD, LEAD, INSIDE = range(5)  # kinds of bytes; LEAD and INSIDE: of a character outside ASCII


def byte_kinds():
    kinds = np.full(256, OTHER, np.uint8)
    kinds[list(b" \t\n\r\v\f\0\"'`\\")] = SPACE
    kinds[[byte for byte in range(128) if chr(byte).isalnum() or byte == ord("_")]] = WORD
    kinds[0x80:0xC0], kinds[0xC0:] = INSIDE, LEAD
    return kinds


KIND = byte_kinds()
KINDS = KIND.tobytes()  # for bytes.translate, the fastest lookup there is
LOWER = bytes(0 if KIND[byte] == SPACE else ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256))
MAX_PIECE = 1 << 20  # bytes hashed at a time: the length of the tables below
POWERS = np.cumprod(np.full(MAX_PIECE, 0x9E3779B97F4A7C15, np.uint64))  # of an odd number modulo 2^64
INVERSES = np.cumprod(np.full(MAX_PIECE, pow(0x9E3779B97F4A7C15, -1, 2**64), np.uint64))  # their inverses
rng = np.random.default_rng(20240520)  # fixed: hashes are compared across runs and machines
ORDER = rng.integers(0, 2**63, 32, dtype=np.uint64) * np.uint64(2) + np.uint64(1)  # by place in an n-gram


def mix(x):
    """The finaliser of splitmix64 (Steele et al., 2014): every bit of x decides over every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tokens(data: bytes):
    """(hashes uint64, starts: index of the first byte, lengths in bytes, kinds: OTHER, WORD or LEAD) of UTF-8 text's tokens.

    A token's hash is the polynomial of its bytes, from sums of byte x power over the whole text: the difference of two
    sums is the token's polynomial times the power at its start, which the inverse takes away."""
    if len(data) > MAX_PIECE:
        cut = data.rfind(b"\n", 0, MAX_PIECE) + 1 or MAX_PIECE
        first, rest = tokens(data[:cut]), tokens(data[cut:])
        return tuple(np.concatenate([a, b + cut if i == 1 else b]) for i, (a, b) in enumerate(zip(first, rest)))
    kinds = np.frombuffer(data.translate(KINDS), np.uint8)
    word = kinds == WORD
    first = (kinds == OTHER) | (kinds == LEAD)
    first[:1] |= word[:1]
    first[1:] |= word[1:] & ~word[:-1]
    starts = np.flatnonzero(first)
    values = np.frombuffer(data.translate(LOWER), np.uint8) * POWERS[: len(data)]  # white space counts 0
    sums, filled = np.cumsum(values), np.cumsum(kinds != SPACE, dtype=np.int64)
    ends = np.append(starts[1:], len(data))[: len(starts)] - 1
    hashes = mix((sums[ends] - sums[starts] + values[starts]) * INVERSES[starts])
    return hashes, starts, filled[ends] - filled[starts] + 1, kinds[starts]


def ngrams(hashes, n):
    """Hashes of the n-grams of a sequence, uint64: one for each place at which one starts."""
    if len(hashes) < n:
        return np.zeros(0, np.uint64)
    total = np.zeros(len(hashes) - n + 1, np.uint64)
    for i in range(n):
        total += hashes[i : len(hashes) - n + 1 + i] * ORDER[i]
    return mix(total)


def contains(table, hashes):
    """Which of the hashes are in table, a sorted array: bool for each."""
    if not len(table):
        return np.zeros(len(hashes), bool)
    return table[np.minimum(np.searchsorted(table, hashes), len(table) - 1)] == hashes


class Index:
    """Hashes -> the items that own them, as two sorted arrays, with a table of leading bits that passes over most
    hashes at once."""

    def __init__(self, owned, most=None, owner=None):
        """owned: for each item its hashes. most: hashes that more items share are left out; where owner is given, the
        owner of each item, owners are counted instead."""
        lengths = np.array([len(hashes) for hashes in owned], np.int64)
        items = np.repeat(np.arange(len(owned)), lengths)
        hashes = np.concatenate([*owned, np.zeros(0, np.uint64)])
        order = np.lexsort((items, hashes))
        hashes, items = hashes[order], items[order]
        new = np.append(True, (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1]))[: len(hashes)]
        hashes, items = hashes[new], items[new]  # each hash once per item
        if most is not None and len(hashes):
            owners = items if owner is None else np.asarray(owner)[items]
            pairs = np.unique(np.stack([np.unique(hashes, return_inverse=True)[1], owners]), axis=1)
            common = np.bincount(pairs[0])[np.unique(hashes, return_inverse=True)[1]] > most
            hashes, items = hashes[~common], items[~common]
        self.hashes, self.items = hashes, items
        self.sizes = np.bincount(items, minlength=len(owned))
        bits = max(
            10, int(len(hashes)).bit_length() + 4
        )  # one entry in thirty is set, and no more of the cache is used
        self.shift, self.seen = np.uint64(64 - bits), np.zeros(1 << bits, bool)
        self.seen[self.hashes >> self.shift] = True

    def places(self, hashes):
        """Which of the hashes any item owns: their places."""
        places = np.flatnonzero(self.seen[hashes >> self.shift])
        return places[contains(self.hashes, hashes[places])]

    def find(self, hashes):
        """(item, place in hashes) of every one that an item owns, two arrays."""
        places = self.places(hashes)
        first, last = (np.searchsorted(self.hashes, hashes[places], side=side) for side in ("left", "right"))
        n = last - first
        which = np.repeat(np.arange(len(n)), n)
        within = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
        return self.items[first[which] + within], places[which]
