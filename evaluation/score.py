"""A checkpoint's bits per byte for every document: a score file that prepare_data.py filters by.

python -m evaluation.score --checkpoint=out/pretrain --sources=my_code/ --out=data/scores.jsonl
python prepare_data.py --sources=my_code/ --scores=data/scores.jsonl --max_score=2.5

A model of the wanted text gives low values to text like it and high ones to what is odd (CCNet,
arXiv:1911.00359, cuts by the perplexity of a model of Wikipedia). Very low values are repetition:
give --min_score as well.
"""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus.documents import Problem, read
from model import IGNORE
from training import checkpoint
from training import machine as machines


@dataclass
class Settings:
    """What to score, and how."""

    # -- what to score
    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # as in prepare_data.py
    windows: int = 4  # of the model's context length, from the start of a document: the rest is not looked at
    # -- results
    out: str = "data/scores.jsonl"  # {"id", "source", "score", "bytes"} a line; bytes: of the text that was scored
    # -- machine
    batch_size: int = 32  # windows at a time
    device: str | None = None  # cuda, cuda:1, mps or cpu; auto = the first of these that is there
    dtype: str | None = None  # bf16 or fp32 in matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Score every document of the sources; the file appears when it is whole."""
    if settings.windows < 1 or settings.batch_size < 1:
        raise UserError("windows and batch_size must be at least 1")
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, _ = checkpoint.load_model(settings.checkpoint, machine)
    documents = windows_of_documents(settings, tokenizer, model.config.block_size)
    out, scores = Path(settings.out), []
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".tmp")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            for batch in batches(documents, settings.batch_size):
                for (source, where), bits, n_bytes in scored(model, tokenizer, batch, machine.device):
                    scores.append(bits / n_bytes)
                    record = {"id": where, "source": source, "score": round(bits / n_bytes, 4), "bytes": n_bytes}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
        if not scores:
            raise UserError(f"no documents in {', '.join(settings.sources)}")
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    cuts = ", ".join(f"{share}%: {np.percentile(scores, share):.3f}" for share in (5, 30, 60, 95))
    print(f"{len(scores):,} documents, bits per byte at percentiles {cuts} -> {out}")


def windows_of_documents(settings, tokenizer, block_size):
    """Yield ((source, where), windows) of every document. A window is a list of at most block_size + 1 ids, which
    predicts all of them but the first; the next window begins with the last id of the one before."""
    most_characters = 16 * settings.windows * block_size  # four make a token, so that the rest is not needed
    for source in settings.sources:
        for item in tqdm(read(source), desc=f"scoring {source}", unit="document"):
            if isinstance(item, Problem):
                continue
            ids = [tokenizer.eot, *tokenizer.encode(item.text[:most_characters])]
            ids = ids[: settings.windows * block_size + 1]
            yield (source, item.where), [ids[i : i + block_size + 1] for i in range(0, len(ids) - 1, block_size)]


def batches(documents, size):
    """Yield lists of documents with at least size windows in all, the last one apart."""
    batch, n_windows = [], 0
    for key, windows in documents:
        batch.append((key, windows))
        n_windows += len(windows)
        if n_windows >= size:
            yield batch
            batch, n_windows = [], 0
    if batch:
        yield batch


@torch.no_grad()
def scored(model, tokenizer, batch, device):
    """Yield (key, bits, bytes of text) of each document of a batch."""
    rows = []
    for _, windows in batch:
        rows += windows
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest - 1), tokenizer.eot, device=device)
    targets = torch.full((len(rows), longest - 1), IGNORE, device=device)
    for i, row in enumerate(rows):
        ids[i, : len(row) - 1] = torch.tensor(row[:-1])
        targets[i, : len(row) - 1] = torch.tensor(row[1:])
    losses = model(ids, targets, reduction="none").cpu().double()  # one per token; Apple's GPUs have no float64
    nats = losses.view(len(rows), -1).sum(1).tolist()
    lengths = tokenizer.byte_lengths()
    first = 0
    for key, windows in batch:
        n_bytes = sum(int(lengths[window[1:]].sum()) for window in windows)
        yield key, sum(nats[first : first + len(windows)]) / math.log(2), max(1, n_bytes)
        first += len(windows)


if __name__ == "__main__":
    configurator.run(main, Settings)
