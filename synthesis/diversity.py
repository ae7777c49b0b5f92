"""How varied texts are: a teacher that says the same thing a thousand times has made one text. Every measure depends on
how much text there is and of how many pieces, so each is read beside that of as much real text, in as many."""

import ast
import collections
import gzip

import numpy as np

from cleaning import hashing
from cleaning.decontaminate import functions_of
from cleaning.dedup import MIN_SHINGLES, banding, jaccard
from cleaning.view import View

VENDI_TEXTS = 1000  # at most: the measure takes their number to the third power
FEATURES = 2**12  # of a text, into which its words are hashed


def measures(texts):
    """{measure: value} of texts, in the order in which a report shows them."""
    text = "\n".join(texts).encode()
    words = text.split()
    fourgrams = list(zip(*(words[i:] for i in range(4))))
    return {
        "texts": len(texts),
        "bytes": len(text),
        "gzip ratio": len(gzip.compress(text, mtime=0)) / max(1, len(text)),
        "distinct 4-grams": len(set(fourgrams)) / max(1, len(fourgrams)),
        "distinct trees": distinct_trees(texts),
        "Vendi score / texts": vendi(texts[:VENDI_TEXTS]) / max(1, len(texts[:VENDI_TEXTS])),
    }


def distinct_trees(texts):
    """The share of the functions in Python texts whose syntax tree, names and constants left out, no earlier one has.
    None where there are no functions."""
    trees = []
    for text in texts:
        for function in functions_of(text):
            trees.append(tuple(type(node).__name__ for node in ast.walk(function)))
    return len(set(trees)) / len(trees) if trees else None


def vendi(texts):
    """The Vendi score (arXiv:2210.02410): how many texts that have nothing in common would be as varied. It is 1 where
    all are alike, and their number where no two share a word. Similarity is the cosine of their counts of words."""
    if not texts:
        return 0.0
    counts = np.zeros((len(texts), FEATURES))
    for row, text in zip(counts, texts):
        hashes = hashing.tokens(text.encode())[0]
        np.add.at(row, (hashes % np.uint64(FEATURES)).astype(np.int64), 1)
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.linalg.eigvalsh(counts @ counts.T / len(texts))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class Seen:
    """The texts so far, among which those like a new one are found: by MinHash, verified by their true similarity."""

    def __init__(self, threshold):
        self.threshold, (self.n_bands, self.n_rows) = threshold, banding(threshold)
        self.exact, self.bands = set(), collections.defaultdict(list)  # (band, its values) -> sets of shingles

    def add(self, text):
        """Whether a text is new. If so, it is one of those seen from now on."""
        exact = tuple(hashing.exact_digest(text))
        shingles = hashing.shingles(View(text).fivegrams)
        if exact in self.exact:
            return False
        self.exact.add(exact)
        if len(shingles) < MIN_SHINGLES:
            return True
        signature = hashing.signature(shingles, self.n_bands * self.n_rows).reshape(self.n_bands, self.n_rows)
        keys = [(i, band.tobytes()) for i, band in enumerate(signature)]
        for key in keys:
            if any(jaccard(shingles, other) >= self.threshold for other in self.bands[key]):
                return False
        for key in keys:
            self.bands[key].append(shingles)
        return True
