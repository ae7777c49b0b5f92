"""Pairs of answers as batches, and what dpo.py and reward.py both do with them: tell the better answer from the worse.

Both stages give each text of a pair a score, and their loss is -log sigmoid(chosen score - rejected score), after the
model of Bradley and Terry (1952), in which that sigmoid is the probability that somebody prefers the chosen answer.

A row of a batch is twice as long as the model's context and holds whole pairs, so that none is cut by a micro-batch:

    ids   <eot> prompt chosen <eot> prompt rejected <eot> prompt chosen <eot> prompt rejected <eot> <eot> ...
    text    0     0      0      1     1       1       2     2      2      3     3       3       4     5   ...
            |-------------- pair 0 ---------------| |-------------- pair 1 ---------------|  the row's empty end

Attention stays inside each text, whose scores are those that it gets alone.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from configurator import UserError
from shards import Shards
from training.dataloader import Batch, Mixture, Packed, batch_shape, make_batch


class PairRows(Packed):
    """A split of pairs as rows of 2 x block_size tokens. Pairs of which a text is longer than block_size are left out.

    reference: float32 (pairs, 2), a number for the chosen and the rejected text of each pair, which a stage may set and
    finds in its batches again."""

    def __init__(self, shards, block_size, seed, eot):
        self.longest = block_size
        super().__init__(shards, 2 * block_size, seed, eot)
        if not self.n_rows:
            raise UserError(f"{shards.folder}: of its pairs, not one has both texts within {block_size=}")
        self.reference = np.zeros((len(self.starts), 2), np.float32)

    def pieces(self, starts, lengths):
        """As in Packed; a piece is a pair, the two texts of which are neighbours."""
        fitting = np.maximum(lengths[::2], lengths[1::2]) <= self.longest
        self.n_left_out = int((~fitting).sum())
        lengths = lengths[::2] + lengths[1::2]
        return starts[::2][fitting], lengths[fitting], np.zeros(fitting.sum(), dtype=bool)

    def pairs(self, n):
        """The numbers of the pairs in the n-th row, in their order."""
        epoch, place = divmod(n, self.n_rows)
        return self.arrange(epoch)[place]


class PairBatch(Batch):
    """A Batch whose counts are pairs. beside: of each token, the number of its text in the row ("text"), and of each
    <|endoftext|> that opens a text, that text's number in PairRows.reference ("reference")."""

    def split(self, n_rows):
        """As in Batch: a pass that has room for n_rows rows has it for half as many that are twice as long."""
        return super().split(rows_per_pass(n_rows))


def rows_per_pass(micro_batch):
    """How many rows of pairs are as long as micro_batch rows of text, but at least one."""
    return max(1, micro_batch // 2)


def pair_batch(rows, n_rows, plan, machine, eot):
    """The PairBatch of some rows, [(PairRows, number of the row)], filled up to n_rows."""
    ids, targets = zip(*(source.row(n) for source, n in rows))
    batch = make_batch(np.stack(ids), np.stack(targets), eot, plan.document_form, machine.device, n_rows)
    counts, reference = np.zeros(len(batch.ids), np.int64), torch.zeros(batch.ids.shape)
    for place, (source, n) in enumerate(rows):
        pairs = source.pairs(n)
        counts[place] = len(pairs)
        opens = np.flatnonzero(ids[place] == eot)[: 2 * len(pairs)]
        reference[place, opens] = torch.from_numpy(source.reference[pairs].ravel())
    beside = {"text": (batch.ids == eot).cumsum(1) - 1, "reference": reference.to(machine.device)}
    return PairBatch(batch.ids, batch.targets, batch.documents, counts, batch.as_bounds, beside)


class Pairs(Mixture):
    """The pairs that a stage trains on, and those it is measured on. folders: [(folder, share)], of which every pair is
    read once per epoch; val: the same, of which the pairs among them are compared, or where there are none, those in
    the folders' own val split. Raises UserError where a folder holds no pairs, or none that fits."""

    def __init__(self, folders, val, settings, block_size, machine, eot):
        if settings.batch_tokens % (2 * block_size):
            raise UserError(
                f"batch_tokens={settings.batch_tokens} is no multiple of 2 x block_size={2 * block_size}: "
                "a row holds both texts of a pair"
            )
        batch_size, _ = batch_shape(settings, 2 * block_size, machine.world_size)
        super().__init__([(folder, None) for folder, _ in folders], block_size, batch_size, settings.seed, eot)
        self.val, measured = [], [Shards(folder, "val") for folder, _ in val]
        for shards in [one for one in measured if one.has_pairs] or [Shards(folder, "val") for folder, _ in folders]:
            if not len(shards):
                raise UserError(f"{shards.folder} holds no validation pairs: prepare it with a larger --val_fraction")
            self.val.append(PairRows(shards, block_size, (0,), eot))

    def source_of(self, shards, block_size, seed, best_fit):
        """As in Mixture."""
        if not shards.has_pairs:
            raise UserError(f"{shards.folder} holds no pairs of answers: prepare it with --pairs")
        return PairRows(shards, block_size, seed, self.eot)

    def batch(self, step, machine, plan):
        """As in Mixture, a PairBatch."""
        rows = [(self.sources[i], n) for i, n in self.own_rows(step, machine.rank, machine.world_size)]
        most = math.ceil(self.quotas.batch_size / machine.world_size)
        at_once = rows_per_pass(plan.micro_batch)
        return pair_batch(rows, math.ceil(most / at_once) * at_once, plan, machine, self.eot)

    def measure(self, progress, score, plan):
        """The measure() that train() asks for: also how far a score tells the answers of held-out pairs apart.
        progress: the Progress that other stages ask alone."""

        def measured(model, machine):
            """What progress says, and the comparison."""
            with machine.together():  # the main process asks alone
                found = progress.of(model, machine)
            return {**found, **self.compared(model, score, machine, plan)}

        return measured

    def compared(self, model, score, machine, plan):
        """How well a score tells the answers of the validation pairs apart: for metrics.jsonl and the screen.

        pair_loss: the mean loss; accuracy: the share of pairs whose chosen answer scores higher, where a tie counts
        half; chosen, rejected, margin: the mean scores, and the mean difference of a pair's."""
        scores = np.concatenate([scores_of(source, model, score, machine, plan, self.eot) for source in self.val])
        margins = scores[:, 0] - scores[:, 1]
        found = {
            "pair_loss": np.logaddexp(0, -margins).mean(),
            "accuracy": (np.sign(margins) / 2 + 0.5).mean(),
            "margin": margins.mean(),
            "chosen": scores[:, 0].mean(),
            "rejected": scores[:, 1].mean(),
        }
        if machine.is_main:
            numbers = "  ".join(f"{name} {number:.4f}" for name, number in found.items())
            print(f"{numbers}  of {len(scores)} pairs", flush=True)
        return {name: float(number) for name, number in found.items()}


@torch.no_grad()
def scores_of(source, model, score, machine, plan, eot):
    """What score(model, PairBatch) says of all pairs of a PairRows: float64 (pairs, 2). Processes share the work.
    Raises SignalCame."""
    found, n = np.zeros((len(source.starts), 2)), rows_per_pass(plan.micro_batch)
    starts = range(0, source.n_rows, machine.world_size * n)
    for start in tqdm(starts, desc="scoring pairs", leave=False, delay=5, disable=not machine.is_main):
        machine.heed()
        own = start + machine.rank * n
        rows = [(source, place) for place in range(own, min(own + n, source.n_rows))]
        if not rows:  # nothing of the last ones is left for this process
            break
        numbers = np.concatenate([source.pairs(place) for _, place in rows])
        found[numbers] = score(model, pair_batch(rows, n, plan, machine, eot)).cpu()
    return np.array(machine.sum(*found.ravel())).reshape(-1, 2)


def text_sums(numbers, batch):
    """The sums of numbers, one per token, over the texts of a PairBatch: (pairs, 2), chosen and rejected.

    numbers: (rows x 2 block_size,) or the shape of batch.ids, 0 in the rows' empty ends."""
    n_texts = 2 * max(1, int(batch.counts.max()))
    text = batch.beside["text"].clamp(max=n_texts - 1)
    sums = numbers.new_zeros(len(text), n_texts).scatter_add(1, text, numbers.view(text.shape))
    is_pair = torch.arange(n_texts // 2) < torch.from_numpy(batch.counts)[:, None]  # (rows, pairs in a row)
    return sums.view(len(text), -1, 2)[is_pair.to(text.device)]


def pair_loss(scores):
    """The summed loss of pairs with these scores, (pairs, 2): -log of the probability that the chosen one is better."""
    return -F.logsigmoid(scores[:, 0] - scores[:, 1]).sum()
