"""Batches as a pure function of (mixture, seed, step): there is no iterator and so no state to save.

A mixture names shard folders with weights, "data/code:3,data/math:1". Every batch holds each source in its exact
proportion; fractions of a sequence are carried to the next batch. A source is cut into windows of block_size
tokens and read in a shuffled order, each window once per epoch, with a new order and a new cut every epoch.
Any number of processes thus sees the same global batches, and resuming needs nothing but the step.
"""

from functools import lru_cache

import numpy as np

from configurator import UserError
from model import IGNORE
from shards import Shards


def parse_mixture(text):
    """[(folder, share)] with shares that sum to 1, from "folder[:weight],..."."""
    sources = []
    for part in filter(None, text.split(",")):
        folder, colon, weight = part.rpartition(":")
        try:
            sources.append((folder, float(weight)) if colon else (part, 1.0))
        except ValueError:
            raise UserError(
                f"the weight in {part!r} is not a number; a mixture is written folder:weight,folder:weight"
            ) from None
    if not sources or min(weight for _, weight in sources) <= 0:
        raise UserError(f"the mixture {text!r} needs at least one folder, and weights above 0")
    total = sum(weight for _, weight in sources)
    return [(folder, weight / total) for folder, weight in sources]


class Quotas:
    """How many sequences of each source a batch gets: the largest remainder, carried from batch to batch."""

    def __init__(self, shares, batch_size):
        self.shares, self.batch_size = np.array(shares), batch_size
        self.before = [np.zeros(len(shares), dtype=np.int64)]  # sequences of each source before step 0, 1, ...

    def __call__(self, step):
        """(given before this step, given in this step), each (n_sources,) int64; the second sums to batch_size."""
        while len(self.before) <= step + 1:
            given = self.before[-1]
            owed = self.shares * len(self.before) * self.batch_size - given
            counts = np.maximum(np.floor(owed), 0).astype(np.int64)
            while counts.sum() < self.batch_size:
                counts[np.argmax(owed - counts)] += 1
            while counts.sum() > self.batch_size:
                counts[np.argmin(np.where(counts > 0, owed - counts, np.inf))] -= 1
            self.before.append(given + counts)
        return self.before[step], self.before[step + 1] - self.before[step]


class Mixture:
    """batch(step) over training shards. batch_size is in sequences, over all processes."""

    def __init__(self, mixture, block_size, batch_size, seed):
        self.block_size, self.seed = block_size, seed
        self.sources = [Shards(folder, "train") for folder, _ in mixture]
        self.quotas = Quotas([share for _, share in mixture], batch_size)
        for source in self.sources:
            if len(source) < 2 * block_size + 1:
                raise UserError(
                    f"{source.folder} holds {len(source):,} training tokens: too few for block_size={block_size}"
                )
        # a cut of up to one window at the start leaves this many whole windows (and a target for the last) for certain
        self.n_windows = [(len(source) - 1) // block_size - 1 for source in self.sources]
        self.order = lru_cache(maxsize=2 * len(self.sources))(self._order)

    def _order(self, source, epoch):
        """The cut (first token) and the order of the windows of a source in an epoch."""
        random = np.random.default_rng((self.seed, source, epoch))
        return int(random.integers(self.block_size)), random.permutation(self.n_windows[source])

    def rows(self, step):
        """[(source, first token)] of the sequences in the global batch of a step."""
        before, counts = self.quotas(step)
        rows = []
        for source, (first, count) in enumerate(zip(before, counts)):
            for n in range(first, first + count):
                epoch, place = divmod(int(n), self.n_windows[source])
                cut, order = self.order(source, epoch)
                rows.append((source, cut + int(order[place]) * self.block_size))
        return rows

    def batch(self, step, rank=0, world_size=1):
        """This process's rows of the batch: ids and targets, int64 (batch_size / world_size, block_size)."""
        rows = self.rows(step)
        share = len(rows) // world_size
        windows = np.stack(
            [
                self.sources[source].tokens(start, self.block_size + 1)
                for source, start in rows[rank * share : (rank + 1) * share]
            ]
        )
        return windows[:, :-1], windows[:, 1:]

    def epochs(self, step):
        """How often each source has been read before a step."""
        return self.quotas(step)[0] / np.array(self.n_windows)


def validation_rows(shards, block_size, max_tokens):
    """The val split as consecutive windows: ids and targets (n, block_size), the last one filled up with IGNORE.
    max_tokens > 0 keeps only the first so many targets."""
    tokens = shards.tokens(0, min(len(shards), max_tokens + 1) if max_tokens else len(shards))
    n_rows = -(-(len(tokens) - 1) // block_size)
    if n_rows < 1:
        raise UserError(f"{shards.folder} holds no validation tokens: prepare it with a larger --val_fraction")
    ids = np.zeros(n_rows * block_size, dtype=np.int64)
    targets = np.full(n_rows * block_size, IGNORE, dtype=np.int64)
    ids[: len(tokens) - 1], targets[: len(tokens) - 1] = tokens[:-1], tokens[1:]
    return ids.reshape(n_rows, -1), targets.reshape(n_rows, -1)
