"""Batches as a pure function of (mixture, seed, step): there is no iterator and so no state to save.

A mixture names shard folders with weights, "data/code:3,data/math:1". Every batch holds each source in its exact
proportion; fractions of a row are carried to the next batch. A source is either cut into windows of block_size tokens
(Windows), or its documents are packed whole into rows (Packed: short documents, and chats always). Each epoch reads
every row once, in a new order and a new arrangement.
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
    """How many rows of each source a batch gets: the largest remainder, carried from batch to batch."""

    def __init__(self, shares, batch_size):
        self.shares, self.batch_size = np.array(shares), batch_size
        self.before = [np.zeros(len(shares), dtype=np.int64)]  # rows of each source before step 0, 1, ...

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


class Windows:
    """A split as a stream, cut into rows of block_size tokens wherever that falls."""

    n_left_out = 0

    def __init__(self, shards, block_size, seed):
        self.shards, self.block_size, self.seed = shards, block_size, seed
        # a cut of up to one row at the start leaves this many whole rows (and a target for the last) for certain
        self.n_rows = (len(shards) - 1) // block_size - 1
        self.order = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch):
        """The cut (first token) and the order of the rows in an epoch."""
        random = np.random.default_rng((*self.seed, epoch))
        return int(random.integers(self.block_size)), random.permutation(self.n_rows)

    def row(self, n):
        """ids and targets, int64 (block_size,), of the n-th row since the start of training."""
        epoch, place = divmod(n, self.n_rows)
        cut, order = self.order(epoch)
        tokens = self.shards.tokens(cut + int(order[place]) * self.block_size, self.block_size + 1)
        return tokens[:-1], tokens[1:]


class Packed:
    """A split as rows of whole documents, each beside those that fill its row best (arXiv:2404.10830).

    A text longer than a row becomes several pieces, and loses nothing. A chat longer than a row is cut behind the last
    turn of the assistant that fits; one of which none fits is left out and counted in n_left_out. Targets that the
    mask does not count, and the empty end of a row, are IGNORE.
    """

    def __init__(self, shards, block_size, seed, eot):
        self.shards, self.block_size, self.seed, self.eot = shards, block_size, seed, eot
        starts, lengths = shards.documents(eot)
        self.n_left_out = 0
        if shards.has_mask:
            lengths = np.array([self.whole_turns(int(a), int(n)) for a, n in zip(starts, lengths)], dtype=np.int64)
            self.n_left_out = int((lengths == 0).sum())
            self.starts, self.lengths = starts[lengths > 0], lengths[lengths > 0]
            self.openers = np.zeros(len(self.starts), dtype=bool)
        else:
            pieces = [(a, min(block_size, end - a), a > start) for start, end in zip(starts, starts + lengths)
                      for a in range(start, end, block_size)]  # fmt: skip
            self.starts, self.lengths, self.openers = (np.array(column) for column in zip(*pieces))
        self.arrange = lru_cache(maxsize=2)(self._arrange)
        self.n_rows = len(self.arrange(0)) if len(self.starts) else 0

    def whole_turns(self, start, length):
        """How much of a chat fits into a row: all, or up to a target that counts and is the last of its turn, or 0."""
        if length <= self.block_size:
            return length
        counts = self.shards.mask(start, self.block_size + 1)
        ends = np.flatnonzero((counts[:-1] == 1) & (counts[1:] == 0))
        return int(ends[-1]) + 1 if len(ends) else 0

    def _arrange(self, epoch):
        """Rows of an epoch: lists of pieces. What continues a text begins a row, so that no other document precedes it
        without an <|endoftext|> between."""
        random = np.random.default_rng((*self.seed, epoch))
        shuffled = random.permutation(len(self.starts))
        order = shuffled[np.lexsort((-self.lengths[shuffled], ~self.openers[shuffled]))]
        rows = best_fit(self.lengths[order].tolist(), self.openers[order].tolist(), self.block_size)
        return [order[rows[i]] for i in random.permutation(len(rows))]

    def row(self, n):
        epoch, place = divmod(n, self.n_rows)
        ids = np.full(self.block_size, self.eot, dtype=np.int64)
        targets = np.full(self.block_size, IGNORE, dtype=np.int64)
        at = 0
        for piece in self.arrange(epoch)[place]:
            start, length = int(self.starts[piece]), int(self.lengths[piece])
            tokens, counts = self.shards.tokens(start, length + 1), self.shards.mask(start, length + 1)
            ids[at : at + length] = tokens[:length]
            # the target of a text's last token is the <|endoftext|> that opens the next one
            following = np.append(tokens[1:], self.eot)[:length]
            counted = np.append(counts[1:], 1 - self.shards.has_mask)[:length]
            targets[at : at + length] = np.where(counted == 1, following, IGNORE)
            at += length
        return ids, targets


def best_fit(lengths, openers, capacity):
    """Pack items in their order: each into the row whose free space it fills best, or, where none has room or the item
    is an opener, into a new row. Lists of item numbers. O(1) per item: rows are kept by free space, and an integer's
    bits say which spaces occur."""
    rows, by_space, spaces = [], [[] for _ in range(capacity + 1)], 0
    for item, (length, opener) in enumerate(zip(lengths, openers)):
        fitting = 0 if opener else spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = by_space[space].pop()
            spaces ^= (not by_space[space]) << space
            rows[row].append(item)
        else:
            row, space = len(rows), capacity
            rows.append([item])
        by_space[space - length].append(row)
        spaces |= 1 << (space - length)
    return rows


class Mixture:
    """batch(step) over training shards. mixture: [(folder, share)]; a share of None is the folder's share of all rows.
    batch_size is in rows, over all processes; best_fit packs texts too. read_before, from an earlier stage's rows_read:
    where in each folder to go on."""

    def __init__(self, mixture, block_size, batch_size, seed, eot, best_fit=False, read_before={}):
        self.shards = [Shards(folder, "train") for folder, _ in mixture]
        self.first = np.array([read_before.get(shards.key, 0) for shards in self.shards], dtype=np.int64)
        self.sources = []
        for shards in self.shards:
            own_seed = (seed, int(shards.key or "0", 16))  # the order of a folder does not depend on the others
            packed = best_fit or shards.has_mask
            source = Packed(shards, block_size, own_seed, eot) if packed else Windows(shards, block_size, own_seed)
            if source.n_rows < 1:
                raise UserError(f"{shards.folder} holds {len(shards):,} training tokens: too few for {block_size=}")
            self.sources.append(source)
        self.n_rows = np.array([source.n_rows for source in self.sources])
        shares = [
            self.n_rows[i] / self.n_rows.sum() if share is None else share for i, (_, share) in enumerate(mixture)
        ]
        self.quotas = Quotas(shares, batch_size)

    def rows(self, step):
        """[(source, number of the row since the start of training)] in the global batch of a step."""
        before, counts = self.quotas(step)
        return [
            (source, int(n))
            for source, (first, count) in enumerate(zip(before + self.first, counts))
            for n in range(first, first + count)
        ]

    def batch(self, step, rank=0, world_size=1):
        """This process's rows of the batch: ids and targets, int64 (batch_size / world_size, block_size)."""
        rows = self.rows(step)
        share = len(rows) // world_size
        pairs = [self.sources[source].row(n) for source, n in rows[rank * share : (rank + 1) * share]]
        return np.stack([ids for ids, _ in pairs]), np.stack([targets for _, targets in pairs])

    def rows_read(self, step):
        """{Shards.key: how many of its rows have been read before a step}, for a later stage to go on from."""
        return {shards.key: int(n) for shards, n in zip(self.shards, self.quotas(step)[0] + self.first)}

    def epochs(self, step):
        """How often each source has been read before a step, counted from this stage's start."""
        return self.quotas(step)[0] / self.n_rows


def validation_rows(shards, block_size, max_tokens, eot):
    """The val split as ids and targets (n, block_size): a text as consecutive windows, chats packed; what is left of
    the last row is IGNORE. max_tokens > 0 keeps only about the first so many."""
    if len(shards) < 2:
        raise UserError(f"{shards.folder} holds no validation tokens: prepare it with a larger --val_fraction")
    if shards.has_mask:
        packed = Packed(shards, block_size, (0,), eot)
        pairs = [packed.row(n) for n in range(min(packed.n_rows, -(-max_tokens // block_size) or packed.n_rows))]
        return np.stack([ids for ids, _ in pairs]), np.stack([targets for _, targets in pairs])
    tokens = shards.tokens(0, min(len(shards), max_tokens + 1) if max_tokens else len(shards))
    n_rows = -(-(len(tokens) - 1) // block_size)
    ids = np.zeros(n_rows * block_size, dtype=np.int64)
    targets = np.full(n_rows * block_size, IGNORE, dtype=np.int64)
    ids[: len(tokens) - 1], targets[: len(tokens) - 1] = tokens[:-1], tokens[1:]
    return ids.reshape(n_rows, -1), targets.reshape(n_rows, -1)
