"""Bytes -> tokens -> n-grams -> signatures, all in numpy. Near-duplicates, copies of benchmark problems and the quality
classifier all work on these n-grams.

A token is a run of letters, digits and underscores, or one character of any other kind. White space, quotes and
backslashes, which formatters change, are left out. A letter outside ASCII is a token of its own, so that Chinese has
n-grams too. Case does not count.

Tokens and n-grams exist as 64-bit hashes only. In a million documents one collision between n-grams of the same
document is to be expected, and it does no harm. This runs at some 60 MB/s on a core; a loop over a regular expression
reaches 5.
"""

import hashlib

import numpy as np

# Kinds of bytes. A character outside ASCII is a LEAD byte and one or more INSIDE bytes.
SPACE, OTHER, WORD, LEAD, INSIDE = range(5)

KIND = np.full(256, OTHER, np.uint8)  # of each byte
KIND[list(b" \t\n\r\v\f\0\"'`\\")] = SPACE
KIND[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")] = WORD
KIND[0x80:0xC0], KIND[0xC0:] = INSIDE, LEAD
KINDS = KIND.tobytes()  # for bytes.translate, the fastest lookup there is
LOWER = (np.frombuffer(bytes(range(256)).lower(), np.uint8) * (KIND != SPACE)).tobytes()  # white space becomes 0
MAX_PIECE = 1 << 17  # bytes hashed at a time: the length of the tables below
BASE = 0x9E3779B97F4A7C15  # an odd number, which has an inverse modulo 2^64
POWERS = np.cumprod(np.full(MAX_PIECE, BASE, np.uint64))
INVERSES = np.cumprod(np.full(MAX_PIECE, pow(BASE, -1, 2**64), np.uint64))
# Fixed seeds: hashes are compared across runs and machines.
ORDER_RNG, PERMUTATION_RNG = np.random.default_rng(20240520), np.random.default_rng(19970611)
# An odd factor for each place in an n-gram.
ORDER = ORDER_RNG.integers(0, 2**63, 32, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
# The 256 permutations of signature(): h -> MULTIPLIERS[i] * h + OFFSETS[i]. The factors are odd.
MULTIPLIERS = PERMUTATION_RNG.integers(0, 2**31, 256, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
OFFSETS = PERMUTATION_RNG.integers(0, 2**32, 256, dtype=np.uint32)


def mix(x):
    """The last step of splitmix64 (Steele et al., 2014): every bit of x influences every bit of the result."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tokens(data: bytes):
    """(hashes, starts, lengths, kinds) of the tokens of UTF-8 text, arrays (n,): 64-bit hash, index of the first byte,
    number of bytes without the white space that follows, and OTHER, WORD or LEAD.

    The hash of a token of bytes b0 b1 b2 ... is made of the polynomial b0 + b1 B + b2 B^2 + ... modulo 2^64, with an
    odd base B. The sums of byte x power of B, counted from the beginning of the text, give it without a loop: a token's
    sum is its polynomial times the power at its start, and the inverse of that power takes that away."""
    if len(data) > MAX_PIECE:
        return tuple(map(np.concatenate, zip(*tokens_of_pieces(data))))
    kinds = np.frombuffer(data.translate(KINDS), np.uint8)
    is_word = kinds == WORD
    is_first = (kinds == OTHER) | (kinds == LEAD)
    is_first[:1] |= is_word[:1]
    is_first[1:] |= is_word[1:] & ~is_word[:-1]
    starts = np.flatnonzero(is_first)
    values = np.frombuffer(data.translate(LOWER), np.uint8) * POWERS[: len(data)]
    hashes = mix(np.add.reduceat(values, starts) * INVERSES[starts])  # sums up to the next start
    lengths = np.add.reduceat(kinds != SPACE, starts, dtype=np.int64)
    return hashes, starts, lengths, kinds[starts]


def tokens_of_pieces(data):
    """Yield what tokens() returns for pieces of a text: cut at a line's end, or within a line that is too long."""
    start = 0
    while start < len(data):
        end = start + MAX_PIECE
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        hashes, starts, lengths, kinds = tokens(data[start:end])
        yield hashes, starts + start, lengths, kinds
        start = end


def ngrams(hashes, n):
    """Hashes of the n-grams of a sequence of m hashes, uint64 (m - n + 1,), or (0,) if m < n."""
    n_places = max(0, len(hashes) - n + 1)
    total = np.zeros(n_places, np.uint64)
    for i in range(n):
        total += hashes[i : i + n_places] * ORDER[i]
    return mix(total)


def contains(table, hashes):
    """Which of the hashes are in table, a sorted array: bool for each."""
    if not len(table):
        return np.zeros(len(hashes), bool)
    return table[np.minimum(np.searchsorted(table, hashes), len(table) - 1)] == hashes


# -- signatures, by which near-duplicates are found


def exact_digest(text):
    """16 bytes of a text's sha256 as two uint64. Line ends and trailing white space do not count."""
    normal = text.strip()
    if any(end in normal for end in (" \n", "\t\n", "\r", "\f", "\v")):
        normal = "\n".join(line.rstrip() for line in normal.splitlines())
    return np.frombuffer(hashlib.sha256(normal.encode()).digest()[:16], np.uint64)


def shingles(ngram_hashes):
    """The set of a document's n-grams, uint32, sorted. ngram_hashes: sorted (View.fivegrams).

    5-grams of words as BigCode has them (santacoder, arXiv:2301.03988): with single words one removal in five was a
    false one."""
    short = (ngram_hashes >> np.uint64(32)).astype(np.uint32)
    return short[np.append(True, short[1:] != short[:-1])] if len(short) else short


def signature(shingle_set, n):
    """MinHash (Broder, 1997): the smallest value of each of n permutations of a document's shingles, uint32 (n,).

    Two sets A and B have the same smallest value with probability J = |A and B| / |A or B|, their Jaccard similarity.
    h -> a h + b modulo 2^32 with odd a permutes the 32-bit numbers, well enough for well-mixed hashes."""
    smallest = np.full(n, 2**32 - 1, np.uint32)
    space = np.empty((n, min(4096, len(shingle_set))), np.uint32)  # blocks that stay in the cache
    for start in range(0, len(shingle_set), 4096):
        block = shingle_set[start : start + 4096]
        values = np.multiply(MULTIPLIERS[:n, None], block, out=space[:, : len(block)])
        values += OFFSETS[:n, None]
        np.minimum(smallest, values.min(axis=1), out=smallest)
    return smallest


def band_keys(minhashes, bands, rows):
    """A signature cut into bands of some rows, uint32 (bands * rows,), as one 64-bit hash per band, uint64 (bands,)."""
    return mix(minhashes.reshape(bands, rows).astype(np.uint64) @ ORDER[:rows])


# -- what has an n-gram


class Index:
    """From a hash to the items that have it: two arrays side by side, hashes (sorted) and items. sizes: how many hashes
    each item has. seen: a table of the leading bits of all hashes; a hash whose bits are not in it is not searched.

    hashes_of: the hashes of each item. max_owners: hashes that more owners than this have are left out. owners: the
    number of each item's owner; None if each item is its own."""

    def __init__(self, hashes_of, max_owners=None, owners=None):
        n_items = len(hashes_of)
        owners = np.arange(n_items) if owners is None else np.asarray(owners)
        items = np.repeat(np.arange(n_items), [len(hashes) for hashes in hashes_of])
        hashes = np.concatenate([*hashes_of, np.zeros(0, np.uint64)])
        order = np.lexsort((items, hashes))
        hashes, items = hashes[order], items[order]
        is_new = np.append(True, (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1]))[: len(hashes)]
        hashes, items = hashes[is_new], items[is_new]  # each hash once per item
        if max_owners is not None and len(hashes):
            number = np.unique(hashes, return_inverse=True)[1]
            pairs = np.unique(np.stack([number, owners[items]]), axis=1)  # each owner once per hash
            is_rare = np.bincount(pairs[0])[number] <= max_owners
            hashes, items = hashes[is_rare], items[is_rare]
        self.hashes, self.items = hashes, items
        self.sizes = np.bincount(items, minlength=n_items)
        # At least 16 entries per hash: few are set, so a hash that is not in the index is hardly ever searched for.
        bits = max(10, len(hashes).bit_length() + 4)
        self.shift, self.seen = np.uint64(64 - bits), np.zeros(1 << bits, bool)
        self.seen[self.hashes >> self.shift] = True

    def places(self, hashes):
        """Where in an array of hashes there are hashes that are in the index: their places, rising."""
        candidates = np.flatnonzero(self.seen[hashes >> self.shift])
        return candidates[contains(self.hashes, hashes[candidates])]

    def find(self, hashes):
        """(items, places), two arrays: items[k] has the hash at places[k] of the given array."""
        places = self.places(hashes)
        first = np.searchsorted(self.hashes, hashes[places], side="left")
        n_items = np.searchsorted(self.hashes, hashes[places], side="right") - first
        which = np.repeat(np.arange(len(places)), n_items)  # hash 0 has 2 items, hash 1 has 3: 0 0 1 1 1
        within = np.arange(len(which)) - np.repeat(np.cumsum(n_items) - n_items, n_items)  # 0 1 0 1 2
        return self.items[first[which] + within], places[which]
