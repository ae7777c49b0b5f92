"""Batches as a pure function of (mixture, seed, step): there is no iterator and so no state to save.

A mixture names shard folders with weights, "data/code:3,data/math:1". Every batch holds each source in its exact
proportion; fractions of a row are carried to the next batch. A source is either cut into windows of block_size tokens
(Windows), or its documents are packed whole into rows (Packed: short documents, and chats always). Each epoch reads
every row once, in a new order. Any number of processes thus sees the same global batches, and resuming needs nothing
but the step.
"""

import math
import os
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from attention import document_bounds
from configurator import UserError
from loss import IGNORE
from ranges import Positive, kind_of, value_of
from shards import Shards

PASS_TOKENS = 4096  # in a forward pass where nothing else says how many, as on a CPU: a few hundred MB


@dataclass
class Batch:
    """Rows of tokens: ids and targets, int64 tensors (rows, block_size). targets[i, t] is the token that follows
    ids[i, t], or IGNORE where it does not count. documents, of the same shape, number the documents in each row, or
    are None.

        ids        <eot>  a    b    c  <eot>  d    e       <eot> opens a document
        targets      a    b    c  <eot>  d    e    f       the end of a document is predicted too
        documents    1    1    1    1    2    2    2       attention stays where the numbers are equal
    """

    ids: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None
    # NumPy: how many targets of each row count in the loss. Asking a GPU for it would wait in every micro-batch.
    counts: np.ndarray
    as_bounds: bool = False  # documents are on the CPU, and the model is told where they begin
    # What else a loss needs of every token, by name: tensors (rows, block_size), such as what a text has earned.
    beside: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)  # figures for the log: what is special to this batch, {name: number}

    @property
    def count(self):
        """How many targets count in the loss."""
        return int(self.counts.sum())

    def inputs(self):
        """What the model takes: ids, targets and doc_ids, which are documents or their document_bounds()."""
        if not self.as_bounds:
            return self.ids, self.targets, self.documents
        bounds = document_bounds(self.documents).to(self.ids.device, non_blocking=True)
        # Every batch has another number of documents. Compiled code, which would be made for one, is told so: it only
        # hands them on, and one graph serves all. Filling up to fixed lengths would make a graph for each of these.
        torch._dynamo.maybe_mark_dynamic(bounds, 0)
        return self.ids, self.targets, bounds

    def split(self, n_rows):
        """This batch in parts of n_rows rows. Batches of several parts are made in such lengths that all are whole."""
        for start in range(0, len(self.ids), n_rows):
            rows = slice(start, start + n_rows)
            documents = None if self.documents is None else self.documents[rows]
            beside = {name: values[rows] for name, values in self.beside.items()}
            yield Batch(self.ids[rows], self.targets[rows], documents, self.counts[rows], self.as_bounds, beside)


def make_batch(ids, targets, eot, document_form, device, n_rows=0):
    """A Batch on a device from int64 arrays (rows, block_size). document_form: see attention.py. Rows in which nothing
    counts fill it up to n_rows: code is compiled once where the shape is always the same."""
    missing = max(0, n_rows - len(ids))
    ids = np.pad(ids, ((0, missing), (0, 0)), constant_values=eot)
    targets = np.pad(targets, ((0, missing), (0, 0)), constant_values=IGNORE)
    counts = (targets != IGNORE).sum(axis=1)
    documents = None
    if document_form:
        documents = torch.from_numpy(document_numbers(ids, targets, eot))
        documents = documents if document_form == "bounds" else documents.to(device)
    ids, targets = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (ids, targets))
    return Batch(ids, targets, documents, counts, document_form == "bounds")


def document_numbers(ids, targets, eot):
    """The number of each token's document in its row: one more at every <|endoftext|>. Those that fill the empty end of
    a row, or a whole row, are one document together, not hundreds of one token each."""
    opens = ids == eot
    fills = opens & (targets == IGNORE)
    opens[:, 1:] &= ~fills[:, :-1]
    return opens.cumsum(axis=1)


def batch_shape(settings, block_size, world_size, fitting=None):
    """(rows per step over all processes, rows per forward pass of one): the batch is stated in tokens.

    A process's share is cut into as few micro-batches as it takes, of equal size and up to settings.micro_batch rows.
    fitting: up to how many where that is auto; None is as many as make PASS_TOKENS. Raises UserError where the tokens
    make no whole rows, or fewer than there are processes.
    """
    if settings.batch_tokens % block_size or settings.batch_tokens < block_size:
        raise UserError(f"batch_tokens={settings.batch_tokens} is not a multiple of block_size={block_size}")
    batch_size = settings.batch_tokens // block_size
    if batch_size < world_size:
        raise UserError(
            f"batch_tokens={settings.batch_tokens} is {batch_size} sequences of {block_size}, fewer than the "
            f"{world_size} processes: try --batch_tokens={world_size * block_size}"
        )
    share = math.ceil(batch_size / world_size)
    most = settings.micro_batch or fitting or max(1, PASS_TOKENS // block_size)
    n_parts = math.ceil(share / most)
    return batch_size, math.ceil(share / n_parts)


def parse_mixture(text):
    """[(folder, share)] with shares that sum to 1, from "folder[:weight],...". Raises UserError where it is none."""
    folders, weights = [], []
    for part in filter(None, text.split(",")):
        folder, _, weight = part.rpartition(":") if ":" in part else (part, "", "1")
        try:
            weights.append(value_of(kind_of(Positive), weight))
        except ValueError:
            raise UserError(
                f"the weight in {part!r} must be a number above 0; a mixture is written folder:weight,folder:weight"
            ) from None
        folders.append(folder)
    return list(zip(once_each(folders, "data"), [weight / sum(weights) for weight in weights]))


def parse_folders(text, name):
    """[(folder, equal share)] from "folder,folder". Raises UserError, naming the setting, where it is none."""
    folders = once_each(list(filter(None, text.split(","))), name)
    for folder in folders:
        if not os.path.exists(folder) and os.path.exists(folder.rpartition(":")[0]):
            raise UserError(f"{folder} has a weight, and --{name} takes folders without: {folder.rpartition(':')[0]}")
    return [(folder, 1 / len(folders)) for folder in folders]


def once_each(folders, name):
    """Their names in one spelling: a/ and ./a are a. Raises UserError where there is none, or one stands twice."""
    if not folders or not all(folders):
        raise UserError(f"{name} needs at least one shard folder: --{name}=folder,folder")
    places = [os.path.realpath(folder) for folder in folders]
    for folder, place in zip(folders, places):
        if places.count(place) > 1:
            raise UserError(f"{folder} stands in --{name} twice: name it once, with all of its weight")
    return list(map(os.path.normpath, folders))


class Quotas:
    """How many rows of each source a batch gets: the largest remainder, carried from batch to batch.

    With shares .6, .4 and batches of 4 rows:  owed 2.4 1.6 -> given 2 2;  then owed 2.8 1.2 -> given 3 1;  ...
    """

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
    """A split as one stream of tokens, cut into rows of block_size wherever that falls."""

    n_left_out = 0

    def __init__(self, shards, block_size, seed):
        self.shards, self.block_size, self.seed = shards, block_size, seed
        # An epoch starts at a random token below block_size, so that the cuts fall elsewhere than in the last one.
        # Wherever that is, so many whole rows remain; up to two rows of tokens go unread in an epoch.
        self.n_rows = (len(shards) - 1) // block_size - 1
        self.order = lru_cache(maxsize=2)(self._order)  # a batch may hold rows of two epochs

    def _order(self, epoch):
        """The first token of an epoch's rows, and their order."""
        random = np.random.default_rng((*self.seed, epoch))
        return int(random.integers(self.block_size)), random.permutation(self.n_rows)

    def row(self, n):
        """ids and targets, int64 (block_size,), of the n-th row since the start of training."""
        epoch, place = divmod(n, self.n_rows)
        first, order = self.order(epoch)
        tokens = self.shards.tokens(first + int(order[place]) * self.block_size, self.block_size + 1)
        return tokens[:-1], tokens[1:]


class Packed:
    """A split as rows of whole documents, each beside those that fill its row best (arXiv:2404.10830).

    A text longer than a row becomes several pieces, and loses nothing. A chat longer than a row is cut behind the last
    turn of the assistant that fits; one of which none fits is left out and counted in n_left_out. Of a pair the better
    answer is read, as a chat. Targets that the mask does not count, and the empty end of a row, are IGNORE.
    """

    def __init__(self, shards, block_size, seed, eot):
        self.shards, self.block_size, self.seed, self.eot = shards, block_size, seed, eot
        self.n_left_out = 0
        self.starts, self.lengths, self.opens_row = self.pieces(*shards.documents(eot))
        self.arrange = lru_cache(maxsize=2)(self._arrange)
        # Every epoch has as many rows as epoch 0, since best_fit sees the same sequence of lengths each time: row n is
        # found without walking through the epochs before it.
        self.n_rows = len(self.arrange(0)) if len(self.starts) else 0

    def pieces(self, starts, lengths):
        """(starts, lengths, opens_row) of what is packed, of the documents with these starts and lengths."""
        if not self.shards.has_mask:
            return cut_into_pieces(starts, lengths, self.block_size)
        if self.shards.has_pairs:
            starts, lengths = starts[::2], lengths[::2]
        fitting = np.array([self.whole_turns(int(a), int(n)) for a, n in zip(starts, lengths)], dtype=np.int64)
        self.n_left_out = int((fitting == 0).sum())
        return starts[fitting > 0], fitting[fitting > 0], np.zeros((fitting > 0).sum(), dtype=bool)

    def whole_turns(self, start, length):
        """How much of a chat fits into a row: all, or up to the last counted token of an answer, or 0."""
        if length <= self.block_size:
            return length
        counts = self.shards.mask(start, self.block_size + 1)
        ends = np.flatnonzero((counts[:-1] == 1) & (counts[1:] == 0))
        return int(ends[-1]) + 1 if len(ends) else 0

    def _arrange(self, epoch):
        """The rows of an epoch as arrays of piece numbers. Packed first are the pieces that must open a row, then the
        others, each longest first; which of equally long ones comes first is random."""
        random = np.random.default_rng((*self.seed, epoch))
        shuffled = random.permutation(len(self.starts))
        longest_first, openers_first = -self.lengths[shuffled], ~self.opens_row[shuffled]
        order = shuffled[np.lexsort((longest_first, openers_first))]  # the last key counts most
        rows = best_fit(self.lengths[order].tolist(), self.opens_row[order].tolist(), self.block_size)
        return [order[rows[i]] for i in random.permutation(len(rows))]

    def row(self, n):
        """ids and targets, int64 (block_size,), of the n-th row since the start of training."""
        epoch, place = divmod(n, self.n_rows)
        ids = np.full(self.block_size, self.eot, dtype=np.int64)
        targets = np.full(self.block_size, IGNORE, dtype=np.int64)
        at = 0
        for piece in self.arrange(epoch)[place]:
            start, length = int(self.starts[piece]), int(self.lengths[piece])
            tokens, counts = self.shards.tokens(start, length + 1), self.shards.mask(start, length + 1)
            ids[at : at + length] = tokens[:length]
            # A document's last target is the <|endoftext|> that opens the next one, which is not there after the very
            # last document. It counts in a text, so that the model learns to stop, and not in a chat.
            end_counts = 0 if self.shards.has_mask else 1
            following = np.append(tokens[1:], self.eot)[:length]
            counted = np.append(counts[1:], end_counts)[:length]
            targets[at : at + length] = np.where(counted == 1, following, IGNORE)
            at += length
        return ids, targets


def cut_into_pieces(starts, lengths, block_size):
    """(starts, lengths, opens_row) of the pieces, at most block_size long, of all documents. A piece that continues a
    document must open its row: behind another document no <|endoftext|> would tell the two apart."""
    pieces = []
    for start, length in zip(starts, lengths):
        for at in range(start, start + length, block_size):
            pieces.append((at, min(block_size, start + length - at), at > start))
    starts, lengths, continues = np.array(pieces, dtype=np.int64).reshape(-1, 3).T
    return starts, lengths, continues > 0


def best_fit(lengths, opens_row, capacity):
    """Pack items, in their order, into rows: each into the one whose free space it fills best, or, where none has room
    or the item must open its row, into a new one. Returns lists of item numbers.

    It takes constant time per item: rows are kept by their free space, and bit n of the integer `spaces` is set
    where some row has n tokens free, so that the smallest sufficient space is the lowest bit from length on.
    """
    rows, by_space, spaces = [], [[] for _ in range(capacity + 1)], 0
    for item, (length, opens) in enumerate(zip(lengths, opens_row)):
        fitting = 0 if opens else spaces >> length
        if fitting:
            lowest_bit = (fitting & -fitting).bit_length() - 1
            space = length + lowest_bit
            row = by_space[space].pop()
            if not by_space[space]:
                spaces ^= 1 << space
            rows[row].append(item)
        else:
            row, space = len(rows), capacity
            rows.append([item])
        by_space[space - length].append(row)
        spaces |= 1 << (space - length)
    return rows


class Mixture:
    """The training data of a run. mixture: [(folder, share)], where a share of None is the folder's share of all rows;
    batch_size: rows per batch over all processes; best_fit: pack texts too; read_before: where in each folder to go on,
    as an earlier stage's rows_read() says."""

    def __init__(self, mixture, block_size, batch_size, seed, eot, best_fit=False, read_before=None):
        self.eot = eot
        self.shards = [Shards(folder, "train") for folder, _ in mixture]
        self.mixture, self.read_before = mixture, read_before or {}
        self.first = np.array([self.read_before.get(shards.key, 0) for shards in self.shards], dtype=np.int64)
        self.sources = []
        for shards in self.shards:
            own_seed = (seed, int(shards.key or "0", 16))  # the order of a folder does not depend on the others
            source = self.source_of(shards, block_size, own_seed, best_fit)
            if source.n_left_out and source.n_rows < 1:
                raise UserError(f"{shards.folder}: not one answer of its chats ends within {block_size=}")
            if source.n_rows < 1:
                raise UserError(f"{shards.folder} holds {len(shards):,} training tokens: too few for {block_size=}")
            self.sources.append(source)
        self.n_rows = np.array([source.n_rows for source in self.sources])
        by_rows = self.n_rows / self.n_rows.sum()
        shares = [by_rows[i] if share is None else share for i, (_, share) in enumerate(mixture)]
        self.quotas = Quotas(shares, batch_size)

    def source_of(self, shards, block_size, seed, best_fit):
        """The rows of one folder."""
        if best_fit or shards.has_mask:
            return Packed(shards, block_size, seed, self.eot)
        return Windows(shards, block_size, seed)

    def rows(self, step):
        """[(source, number of the row since the start of training)] in the global batch of a step. Each source is
        spread over the batch, so that every process and every micro-batch has about its share of it."""
        before, counts = self.quotas(step)
        rows = []
        for source, (first, count) in enumerate(zip(before + self.first, counts)):
            rows += [((k + 0.5) / count, source, int(first) + k) for k in range(count)]
        return [(source, n) for _, source, n in sorted(rows)]

    def own_rows(self, step, rank, world_size):
        """This process's part of them. Where the processes do not divide the batch, some get one row more."""
        rows = self.rows(step)
        return rows[rank * len(rows) // world_size : (rank + 1) * len(rows) // world_size]

    def arrays(self, step, rank=0, world_size=1):
        """This process's rows of a step: ids and targets, int64 (rows, block_size)."""
        ids, targets = zip(*(self.sources[source].row(n) for source, n in self.own_rows(step, rank, world_size)))
        return np.stack(ids), np.stack(targets)

    def batch(self, step, machine, plan):
        """The same as a Batch on this process's device, filled up so that every process has the same number of whole
        micro-batches: all exchange gradients equally often."""
        ids, targets = self.arrays(step, machine.rank, machine.world_size)
        most = math.ceil(self.quotas.batch_size / machine.world_size)  # rows of a process
        n_rows = math.ceil(most / plan.micro_batch) * plan.micro_batch
        return make_batch(ids, targets, self.eot, plan.document_form, machine.device, n_rows)

    def rows_read(self, step):
        """{Shards.key: how many of its rows have been read before a step}, in the stages before too, for a later stage
        to go on from."""
        read = self.quotas(step)[0] + self.first
        return self.read_before | {shards.key: int(n) for shards, n in zip(self.shards, read)}

    def identity(self):
        """What data this is, wherever its folders lie: [[sha256 of a folder's training files, its share], ...]."""
        return [[shards.sha256(), share] for shards, (_, share) in zip(self.shards, self.mixture)]

    def position(self, step):
        """What a checkpoint after so many steps says of the data, for a resumed run and for later stages."""
        return {"data": self.identity(), "rows_read": self.rows_read(step), "read_before": self.read_before}

    def epochs(self, step):
        """How often each source has been read before a step, counted from this stage's start."""
        return self.quotas(step)[0] / self.n_rows
