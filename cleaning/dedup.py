"""Near-duplicates by MinHash-LSH, and exact ones: which documents to keep.

    1. A signature (see hashing.py) is cut into bands. Documents that agree in a whole band are candidates. Of the pairs
       with Jaccard similarity J, a share of 1 - (1 - J^rows)^bands becomes candidates.
    2. Candidates are compared by the true J of their sets of 5-grams. Pairs that reach the threshold are linked.
    3. Documents that are linked, directly or through others, form a cluster. One document of each cluster is kept: the
       one with most stars, then the newest, then the first by path.

             signature, 3 bands of 2 rows
    doc 0    17 42 | 8 95 | 61 3
    doc 1    17 42 | 8 11 | 29 3         doc 0 and doc 1 agree in the first band: a pair to verify.
    doc 2    50 42 | 7 95 | 61 9         doc 2 agrees with doc 0 in three rows, but in no whole band.

The result depends on the set of documents alone, not on their order or on the number of workers and chunks.
Deduplicating it again removes next to nothing: a pair at the threshold is missed once in a thousand times, and a bucket
of more than MAX_NEIGHBOURS documents is not searched in full.
"""

import math

import numpy as np

from cleaning import hashing

MIN_SHINGLES = 5  # a document with fewer says too little for similarity: only exact copies of it are found
# Documents of one bucket are compared with at most so many of the next larger ones. Larger buckets come from
# boilerplate that many documents share, not from copies.
MAX_NEIGHBOURS = 2000


def banding(threshold, recall=0.999):
    """(bands, rows): the most selective banding that finds at least this share of the pairs at the threshold.

    More rows make fewer false candidates, but need more bands to find the same pairs. A false candidate only costs the
    time to verify it; a pair that is missed leaves a copy in the training data."""
    for rows in range(len(hashing.ORDER), 0, -1):
        # (1 - threshold^rows)^bands = 1 - recall, solved for bands
        bands = math.ceil(math.log(1 - recall) / math.log1p(-(threshold**rows))) if threshold < 1 else 1
        if bands * rows <= len(hashing.MULTIPLIERS):
            return bands, rows


def jaccard(a, b):
    """The similarity |a and b| / |a or b| of two sets, sorted arrays without repetitions."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


class Clusters:
    """Union-find over n documents: parent[i] leads towards the root of i's cluster, the lowest number in it."""

    def __init__(self, n):
        self.parent = np.arange(n)

    def roots(self, items):
        """The root of each of the items, int (n,)."""
        while True:
            above = self.parent[items]
            if np.array_equal(above, items):
                return items
            self.parent[items] = self.parent[above]  # path halving: the next search has half as far to go
            items = above

    def union(self, pairs):
        """Make one cluster of the two clusters of each pair."""
        for a, b in pairs:
            low, high = sorted(self.roots(np.array([a, b])).tolist())
            self.parent[high] = low


def exact_clusters(digests, clusters):
    """Link the documents with the same digest and return clusters. digests: uint64 (n, 2)."""
    order = np.lexsort(digests.T)
    same = np.flatnonzero((digests[order[1:]] == digests[order[:-1]]).all(axis=1))
    clusters.union(zip(order[same], order[same + 1]))
    return clusters


def near_clusters(band, n_bands, sizes, digests, verify, threshold, clusters):
    """Link the documents that are similar.

    band(i): the keys of band i, uint64 (n,). One band is in memory at a time.
    sizes: shingles per document, int (n,). Documents with fewer than MIN_SHINGLES are left out.
    digests: as for exact_clusters(). Documents of one size are sorted by them, not by their order in the data.
    verify(pairs): whether each pair, int (m, 2), truly reaches the threshold, bool (m,).
    clusters: Clusters of n documents in which exact copies are linked; only the root of each cluster is compared."""
    numbers = np.arange(len(sizes))
    members = np.flatnonzero((clusters.roots(numbers) == numbers) & (sizes >= MIN_SHINGLES))
    rejected = np.zeros(0, np.uint64)  # pairs that an earlier band has verified in vain, sorted
    for i in range(n_bands):
        keys = band(i)[members]
        order = np.lexsort((digests[members, 0], sizes[members], keys))  # in a bucket by size, then by content
        new_rejected = [rejected]
        for pairs in pairs_in_buckets(keys[order], members[order], sizes, threshold):
            codes = (pairs[:, 0].astype(np.uint64) << np.uint64(32)) | pairs[:, 1].astype(np.uint64)
            is_linked = clusters.roots(pairs[:, 0]) == clusters.roots(pairs[:, 1])
            is_open = ~is_linked & ~hashing.contains(rejected, codes)
            if is_open.any():
                is_similar = verify(pairs[is_open])
                clusters.union(pairs[is_open][is_similar])
                new_rejected.append(codes[is_open][~is_similar])
        rejected = np.unique(np.concatenate(new_rejected))


def pairs_in_buckets(keys, documents, sizes, threshold):
    """Yield arrays of pairs of documents (m, 2) with the same key: first all neighbours, then all that are two places
    apart, and so on. keys: sorted. documents: the number of each key's document, of equal keys by rising size."""
    left = np.arange(len(keys) - 1)
    for distance in range(1, MAX_NEIGHBOURS):
        left = left[left + distance < len(keys)]
        left = left[keys[left] == keys[left + distance]]
        # J is at most the ratio of the sizes. A document too small for this neighbour is too small for larger ones.
        left = left[sizes[documents[left]] >= threshold * sizes[documents[left + distance]]]
        if not len(left):
            return
        yield np.sort(np.stack([documents[left], documents[left + distance]], axis=1), axis=1)


def priority(meta, content):
    """The sort key of a document among its copies; the smallest is kept: most stars, then the newest, then the first by
    path, by content, by name, by source. meta: stars, date, path, where and source, as far as known. content: numbers
    by which texts differ. The name comes after them: that of a record is its line, which depends on the order."""
    stars = meta.get("stars")
    stars = float(stars) if isinstance(stars, (int, float)) and abs(stars) < 1e300 else 0.0  # NaN is not below it
    # Characters of the date are mirrored, so that the newest date sorts first. No date sorts last.
    date = "".join(chr(0x10FFFF - ord(char)) for char in str(meta.get("date") or "")) + chr(0x10FFFF)
    names = str(meta.get("where")), str(meta.get("source"))
    return -stars, date, str(meta.get("path") or ""), tuple(int(part) for part in content), *names


def choose(clusters, key):
    """kept, int (n,): kept[i] is the index of the document that replaces i, or i itself if it stays. key(i): the
    priority() of document i, called only for documents that have copies."""
    roots = clusters.roots(np.arange(len(clusters.parent)))
    kept = np.arange(len(roots))
    order = np.argsort(roots, kind="stable")
    edges = np.flatnonzero(np.diff(roots[order], prepend=-1, append=-1))
    for start, end in zip(edges[:-1], edges[1:]):
        if end - start > 1:
            members = order[start:end]
            kept[members] = min(members, key=key)
    return kept
