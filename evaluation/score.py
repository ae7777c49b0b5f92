"""A checkpoint's bits per byte for every document: a score file that prepare_data.py --scores filters by.

python score.py --checkpoint=out/pretrain --sources=my_code/ --out=data/scores.jsonl
python prepare_data.py --sources=my_code/ --scores=data/scores.jsonl --max_score=2.5 --out_dir=data/mine

A model of the wanted text gives low values to text like it and high ones to what is odd (CCNet, arXiv:1911.00359, cuts
by the perplexity of a model of Wikipedia). Very low values are repetition: give --min_score as well.
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


@dataclass
class Settings:
    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # as in prepare_data.py
    out: str = "data/scores.jsonl"  # {"id", "source", "score", "bytes"} a line; bytes: of the text that was scored
    windows: int = 4  # of the model's context length, from the start of a document: the rest is not looked at
    batch_size: int = 32  # windows at a time
    device: str = "cpu"  # cpu or cuda


def main(s):
    if s.windows < 1 or s.batch_size < 1:
        raise UserError("windows and batch_size must be at least 1")
    if s.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device={s.device}, but this PyTorch sees no GPU")
    model, tokenizer, _ = checkpoint.load_model(s.checkpoint, s.device)
    model.eval().to(torch.float32 if s.device == "cpu" else torch.bfloat16)
    out, values = Path(s.out), []
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".tmp")
    with open(beside, "w", encoding="utf-8") as file:
        for batch in batches(windows(s, tokenizer, model.config.block_size), s.batch_size):
            for key, bits, n_bytes in scored(model, tokenizer, batch, s.device):
                values.append(bits / n_bytes)
                record = {"id": key[1], "source": key[0], "score": round(bits / n_bytes, 4), "bytes": n_bytes}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not values:
        beside.unlink()
        raise UserError(f"no documents in {', '.join(s.sources)}")
    os.replace(beside, out)
    cuts = ", ".join(f"{share}%: {np.percentile(values, share):.3f}" for share in (5, 30, 60, 95))
    print(f"{len(values):,} documents, bits per byte at percentiles {cuts} -> {out}")


def windows(s, tokenizer, block_size):
    """(source, id), token windows of a document: each window predicts its tokens but the first."""
    for source in s.sources:
        for item in tqdm(read(source), desc=f"scoring {source}", unit="document"):
            if not isinstance(item, Problem):
                ids = [tokenizer.eot, *tokenizer.encode(item.text[: 16 * s.windows * block_size])]
                ids = ids[: s.windows * block_size + 1]
                yield (source, item.where), [ids[i : i + block_size + 1] for i in range(0, len(ids) - 1, block_size)]


def batches(documents, size):
    """Lists of documents with at least size windows in all, the last one apart."""
    batch, n = [], 0
    for key, parts in documents:
        batch.append((key, parts))
        n += len(parts)
        if n >= size:
            yield batch
            batch, n = [], 0
    if batch:
        yield batch


@torch.no_grad()
def scored(model, tokenizer, batch, device):
    """(key, bits, bytes) of each document of a batch."""
    rows = [part for _, parts in batch for part in parts]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest - 1), tokenizer.eot, device=device)
    targets = torch.full((len(rows), longest - 1), IGNORE, device=device)
    for i, row in enumerate(rows):
        ids[i, : len(row) - 1], targets[i, : len(row) - 1] = torch.tensor(row[:-1]), torch.tensor(row[1:])
    nats = model(ids, targets, reduction="none").double().view(len(rows), -1).sum(1).tolist()
    lengths = tokenizer.byte_lengths()
    place = 0
    for key, parts in batch:
        n_bytes = sum(int(lengths[part[1:]].sum()) for part in parts)
        yield key, sum(nats[place : place + len(parts)]) / math.log(2), max(1, n_bytes)
        place += len(parts)


if __name__ == "__main__":
    configurator.run(main, Settings)
