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
rng = np.random.default_rng(20240520)  # fixed: hashes are compared across runs and machines
VALUE = rng.integers(1, 2**64, 256, dtype=np.uint64)  # one random number per byte
VALUE[ord("A") : ord("Z") + 1] = VALUE[ord("a") : ord("z") + 1]
VALUE[KIND == SPACE] = 0
POWERS = np.cumprod(np.full(4096, 0x9E3779B97F4A7C15, np.uint64))  # of an odd number modulo 2^64, by place in a token
ORDER = rng.integers(0, 2**63, 32, dtype=np.uint64) * np.uint64(2) + np.uint64(1)  # by place in an n-gram


def mix(x):
    """The finaliser of splitmix64 (Steele et al., 2014): every bit of x decides over every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tokens(data: bytes):
    """(hashes uint64, starts: index of the first byte, lengths in bytes, kinds: OTHER, WORD or LEAD) of UTF-8 text's tokens."""
    array = np.frombuffer(data, np.uint8)
    kinds = KIND[array]
    first = (kinds == OTHER) | (kinds == LEAD)
    word = kinds == WORD
    first[:1] |= word[:1]
    first[1:] |= word[1:] & ~word[:-1]
    starts = np.flatnonzero(first)
    if not len(starts):
        return np.zeros(0, np.uint64), starts, starts, kinds[starts]
    place = np.arange(starts[0], len(array)) - np.repeat(starts, np.diff(starts, append=len(array)))
    values = VALUE[array[starts[0] :]] * POWERS[place & 4095]  # white space after a token adds nothing: its VALUE is 0
    filled = np.cumsum(kinds != SPACE, dtype=np.int32)
    lengths = np.diff(filled[starts], append=filled[-1] + 1).astype(np.int64)
    return mix(np.add.reduceat(values, starts - starts[0])), starts, lengths, kinds[starts]


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
        self.seen = np.zeros(1 << 22, bool)
        self.seen[self.hashes >> np.uint64(42)] = True

    def places(self, hashes):
        """Which of the hashes any item owns: their places."""
        places = np.flatnonzero(self.seen[hashes >> np.uint64(42)])
        return places[contains(self.hashes, hashes[places])]

    def find(self, hashes):
        """(item, place in hashes) of every one that an item owns, two arrays."""
        places = self.places(hashes)
        first, last = (np.searchsorted(self.hashes, hashes[places], side=side) for side in ("left", "right"))
        n = last - first
        which = np.repeat(np.arange(len(n)), n)
        within = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
        return self.items[first[which] + within], places[which]
