"""Near-duplicates by MinHash-LSH, and exact ones: which documents to keep.

    shingles     the set of a document's 5-grams of words, as 32-bit hashes (BigCode's choice of 5-grams: santacoder,
                 arXiv:2301.03988; with single words one removal in five was a false one)
    signature    for each of n permutations of the hashes the smallest value in the set: two sets have the same one with
                 probability J = |A and B| / |A or B| (Broder, 1997)
    bands        the signature cut into bands of rows; documents that share a whole band are candidates: pairs of
                 similarity J become one with probability 1 - (1 - J^rows)^bands
    verified     candidates are compared by their true J; what reaches the threshold is linked, links make clusters
    kept         of each cluster the document with most stars, then the newest, then the first by path

Every step is a pure function of the set of documents: their order, the number of workers and of chunks change nothing,
and what is kept has no near-duplicates among itself: deduplicating twice removes nothing more.
"""

import hashlib
import math

import numpy as np

from cleaning import hashing

MIN_SHINGLES = 5  # a document with fewer says too little: it is compared exactly or not at all
MAX_PERMUTATIONS, MAX_ROWS = 256, len(hashing.ORDER)
MAX_NEIGHBOURS = (
    2000  # in a bucket of more documents each is compared with as many of its own size: boilerplate, not copies
)

rng = np.random.default_rng(19970611)
MULTIPLIERS = rng.integers(0, 2**31, MAX_PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
OFFSETS = rng.integers(0, 2**32, MAX_PERMUTATIONS, dtype=np.uint32)


def exact_digest(text):
    """sha256 of a text whose line ends and trailing white space do not count, 16 bytes of it as two uint64."""
    normal = text.strip()
    if any(end in normal for end in (" \n", "\t\n", "\r", "\f", "\v")):
        normal = "\n".join(line.rstrip() for line in normal.splitlines())
    return np.frombuffer(hashlib.sha256(normal.encode()).digest()[:16], np.uint64)


def shingles(ngrams):
    """The set of a document's n-grams (sorted hashes, View.fivegrams) as uint32, sorted."""
    short = (ngrams >> np.uint64(32)).astype(np.uint32)
    return short[np.append(True, short[1:] != short[:-1])] if len(short) else short


def signature(shingles, n):
    """The smallest value of each of n permutations of the shingles, uint32 (n,). h -> a h + b modulo 2^32 with odd a is a
    permutation, exact in 32-bit arithmetic; the shingles' hashes are well mixed before it, which is what makes it a fair one."""
    smallest = np.full(n, 2**32 - 1, np.uint32)
    for start in range(0, len(shingles), 4096):  # blocks that stay in the cache
        values = MULTIPLIERS[:n, None] * shingles[None, start : start + 4096]
        values += OFFSETS[:n, None]
        np.minimum(smallest, values.min(axis=1), out=smallest)
    return smallest


def band_keys(signature, bands, rows):
    """One 64-bit hash per band, uint64 (bands,)."""
    return hashing.mix(signature.reshape(bands, rows).astype(np.uint64) @ hashing.ORDER[:rows])


def banding(threshold, recall=0.999):
    """(bands, rows): the most selective banding that misses at most 1 - recall of the pairs at the threshold. Candidates
    are verified, so a false one costs time and nothing else, and a missed one is a copy in the training data."""
    for rows in range(MAX_ROWS, 0, -1):
        bands = math.ceil(math.log(1 - recall) / math.log1p(-(threshold**rows))) if threshold < 1 else 1
        if bands * rows <= MAX_PERMUTATIONS:
            return bands, rows


def jaccard(a, b):
    """The similarity of two sorted sets."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


class Clusters:
    """Union-find over n documents, in arrays; the root of a cluster is its lowest number."""

    def __init__(self, n):
        self.parent = np.arange(n)

    def roots(self, items):
        while True:
            above = self.parent[items]
            if np.array_equal(above, items):
                return items
            self.parent[items] = self.parent[above]  # path halving
            items = above

    def union(self, pairs):
        for a, b in pairs:
            a, b = int(self.roots(np.array([a]))[0]), int(self.roots(np.array([b]))[0])
            self.parent[max(a, b)] = min(a, b)


def exact_clusters(digests, clusters):
    """Link the documents with the same digest, uint64 (n, 2)."""
    order = np.lexsort(digests.T)
    same = np.flatnonzero((digests[order[1:]] == digests[order[:-1]]).all(axis=1))
    clusters.union(zip(order[same], order[same + 1]))
    return clusters


def near_clusters(band, n_bands, sizes, digests, verify, threshold, clusters):
    """Link the documents that are similar.

    band(i): the keys of band i, uint64 (n,), one band in memory at a time. sizes: shingles per document; those of fewer
    than MIN_SHINGLES stay out. verify(pairs (m, 2)) -> bool (m,). clusters: where exact copies are linked already."""
    members = np.flatnonzero((clusters.roots(np.arange(len(sizes))) == np.arange(len(sizes))) & (sizes >= MIN_SHINGLES))
    rejected = np.zeros(0, np.uint64)
    for i in range(n_bands):
        keys = band(i)[members]
        order = np.lexsort((digests[members, 0], sizes[members], keys))  # in a bucket by size, then by content
        keys, docs = keys[order], members[order]
        here, failed = np.arange(len(keys) - 1), [rejected]
        for distance in range(1, MAX_NEIGHBOURS):  # the pairs of neighbours, of next neighbours, ...
            here = here[here + distance < len(keys)]
            here = here[keys[here] == keys[here + distance]]
            here = here[sizes[docs[here]] >= threshold * sizes[docs[here + distance]]]  # J <= the ratio of the sizes
            if not len(here):
                break
            pairs = np.sort(np.stack([docs[here], docs[here + distance]], axis=1), axis=1)
            codes = (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1].astype(np.uint64)
            open_ = (clusters.roots(pairs[:, 0]) != clusters.roots(pairs[:, 1])) & ~hashing.contains(rejected, codes)
            if open_.any():
                linked = verify(pairs[open_])
                clusters.union(pairs[open_][linked])
                failed.append(codes[open_][~linked])
        rejected = np.unique(np.concatenate(failed))  # that no later band verifies them again
    return clusters


def priority(meta, digest):
    """The sort key by which a copy is kept: most stars, newest, first by path; then by content, never by place."""
    stars = meta.get("stars")
    stars = float(stars) if isinstance(stars, (int, float)) and math.isfinite(stars) else 0.0
    date = "".join(chr(0x10FFFF - ord(char)) for char in str(meta.get("date") or "")) + chr(0x10FFFF)  # newest first
    return -stars, date, str(meta.get("path") or ""), tuple(int(d) for d in digest), str(meta.get("where"))


def choose(clusters, key):
    """For each document the one kept in its place, itself where it is kept. key(i) -> priority(...), called for members
    of clusters of two and more."""
    roots = clusters.roots(np.arange(len(clusters.parent)))
    kept = np.arange(len(roots))
    order = np.argsort(roots, kind="stable")
    edges = np.flatnonzero(np.diff(roots[order], prepend=-1, append=-1))
    for start, end in zip(edges[:-1], edges[1:]):
        if end - start > 1:
            members = order[start:end]
            kept[members] = min(members, key=key)
    return kept
