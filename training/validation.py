"""How good a model is on text that it does not train on: nats per token, bits per byte."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from configurator import UserError
from loss import IGNORE
from shards import Shards
from training.dataloader import Packed, make_batch


@dataclass
class ValidationSet:
    """The val split of a shard folder as rows. share: the weight of its loss in the mean over all sets."""

    folder: str
    share: float
    ids: np.ndarray  # int64 (rows, block_size)
    targets: np.ndarray


def validation_sets(shares, settings, block_size, eot):
    """A ValidationSet for each (folder, share) in shares, of settings.eval_tokens tokens (0 = all)."""
    sets = []
    for folder, share in shares:
        rows = validation_rows(Shards(folder, "val"), block_size, settings.eval_tokens, eot)
        sets.append(ValidationSet(folder, share, *rows))
    return sets


def validation_rows(shards, block_size, max_tokens, eot):
    """The val split as ids and targets, int64 (rows, block_size): a text as consecutive windows, chats packed. The
    targets in what is left of the last row are IGNORE. max_tokens > 0 keeps about the first so many."""
    if len(shards) < 2:
        raise UserError(f"{shards.folder} holds no validation tokens: prepare it with a larger --val_fraction")
    if shards.has_mask:
        packed = Packed(shards, block_size, (0,), eot)
        if not packed.n_rows:
            raise UserError(f"{shards.folder}: not one answer of a validation chat ends within block_size={block_size}")
        wanted = math.ceil(max_tokens / block_size) if max_tokens else packed.n_rows
        ids, targets = zip(*(packed.row(n) for n in range(min(packed.n_rows, wanted))))
        return np.stack(ids), np.stack(targets)
    tokens = shards.tokens(0, min(len(shards), max_tokens + 1) if max_tokens else len(shards))
    n_rows = math.ceil((len(tokens) - 1) / block_size)
    ids = np.zeros(n_rows * block_size, dtype=np.int64)
    targets = np.full(n_rows * block_size, IGNORE, dtype=np.int64)
    ids[: len(tokens) - 1], targets[: len(tokens) - 1] = tokens[:-1], tokens[1:]
    return ids.reshape(n_rows, -1), targets.reshape(n_rows, -1)


def validate(model, sets, plan, machine, tokenizer):
    """{"val_loss", "val_bpb", "sources": {folder: the same}}: of each set, and their means weighted by its share.
    Raises SignalCame."""
    model.eval()
    try:
        sources = {part.folder: evaluate(model, part, plan, machine, tokenizer) for part in sets}
    finally:
        model.train()
    metrics = {}
    for key in ("val_loss", "val_bpb") if sets else ():
        metrics[key] = sum(part.share * sources[part.folder][key] for part in sets)
    return {**metrics, "sources": sources}


@torch.no_grad()
def evaluate(model, part, plan, machine, tokenizer):
    """The loss in nats per counted token, and the bits per byte, on one ValidationSet shared out over the processes.
    Raises SignalCame.

    bits per byte = nats / (ln 2 x bytes of the text that is predicted), with special tokens left out of both: unlike
    the loss, it can be compared across tokenizers.
    """
    byte_lengths = torch.from_numpy(tokenizer.byte_lengths())  # 0 for special tokens
    nats = counted = text_nats = text_bytes = 0.0
    n, form = plan.micro_batch, plan.document_form  # as in training: compiled code is made once
    for start in range(0, len(part.ids), machine.world_size * n):
        machine.heed()  # a long validation takes longer than a cluster waits for its end
        rows = slice(start + machine.rank * n, start + machine.rank * n + n)
        if rows.start >= len(part.ids):  # nothing of the last micro-batches is left for this process
            break
        batch = make_batch(part.ids[rows], part.targets[rows], tokenizer.eot, form, machine.device, n_rows=n)
        losses = model(*batch.inputs(), reduction="none").cpu().double()
        y = batch.targets.flatten().cpu()
        is_counted = y != IGNORE
        n_bytes = byte_lengths[y.clamp(min=0)] * is_counted
        nats += losses.sum().item()
        counted += is_counted.sum().item()
        text_nats += losses[n_bytes > 0].sum().item()
        text_bytes += n_bytes.sum().item()
    nats, counted, text_nats, text_bytes = machine.sum(nats, counted, text_nats, text_bytes)
    return {"val_loss": nats / counted, "val_bpb": text_nats / (math.log(2) * max(1.0, text_bytes))}
