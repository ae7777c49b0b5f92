"""A checkpoint's bits per byte for every document: a score file that prepare_data.py filters by.

    python -m evaluation.score --sources=m/
    python prepare_data.py --sources=m/ --scores=data/scores.jsonl --max_score=2

A model gives low values to text like the text that it was trained on, and high ones to other text
(CCNet, arXiv:1911.00359, filters by the perplexity of a model of Wikipedia). Text with very low
values repeats itself: give --min_score as well.
"""

import needs  # noqa: F401

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus.documents import Problem, read
from corpus.records import escaped, json_lines
from corpus.sources import distinct, spare
from evaluation.likelihood import nats
from ranges import Device, Place, Precision, SmallCount
from training import checkpoint
from training import machine as machines


@dataclass
class Settings:
    """What to score, and how."""

    # -- what to score
    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    sources: list[str] = field(default_factory=lambda: ["stdlib"])  # as in prepare_data.py
    windows: SmallCount = 4  # how many context lengths of a document are scored, from its start; the rest is ignored
    # -- results
    out: Place = "data/scores.jsonl"  # {"id", "source", "score", "bytes"} a line; bytes: length of the scored text
    # -- machine
    batch_size: SmallCount = 32  # windows at a time
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Score every document of the sources; the file appears when it is whole."""
    spare(settings.sources, settings.out)
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, _ = checkpoint.load_model(settings.checkpoint, machine)
    settings.sources = distinct(settings.sources)
    records, unreadable = [], Counter()
    for batch in batches(settings, tokenizer, model.config.block_size, unreadable):
        for source, where, bits, n_bytes in scored(model, tokenizer, batch, settings.batch_size):
            records.append({"id": where, "source": source, "score": bits / n_bytes, "bytes": n_bytes})
    write_scores(settings, records, unreadable, "documents", "bits per byte")


def write_scores(settings, records, unreadable, what, measure):
    """Write the file that prepare_data.py --scores reads, and say what is in it.

    records: {"id", "source", "score", ...} of documents or conversations, as `what` says; unreadable: a Counter of why
    others have no score. Raises UserError where there are none, or one is not finite."""
    if not records:
        raise UserError(f"no {what} in {', '.join(settings.sources)}")
    scores = [record["score"] for record in records]
    for record, score in zip(records, scores):
        if not math.isfinite(score):
            raise UserError(f"{settings.checkpoint} gives {record['id']!r} no finite score: are its weights damaged?")
        record["score"] = round(score, 4)
    configurator.write_text(settings.out, json_lines(records))
    if unreadable:
        print("without a score: " + ", ".join(f"{n:,} {rule}" for rule, n in unreadable.most_common()))
    cuts = ", ".join(f"{share}%: {np.percentile(scores, share):.3f}" for share in (5, 30, 60, 95))
    print(f"{len(scores):,} {what}, {measure} at percentiles {cuts} -> {settings.out}")


def batches(settings, tokenizer, block_size, unreadable):
    """Yield lists of (source, where, windows) of documents, with at least batch_size windows in all but the last list.
    unreadable: a Counter, to which the rules of Problems are added.

    A window is a list of at most block_size + 1 ids, which predicts all of them but the first; the next window begins
    with the last id of the one before.
    """
    most_characters = 16 * settings.windows * block_size  # about four make a token, so that the rest is not needed
    batch, n_windows = [], 0
    for source in settings.sources:
        for item in tqdm(read(source), desc=f"scoring {escaped(source)}", unit="document"):
            if isinstance(item, Problem):
                unreadable[item.rule] += 1
                continue
            ids = [tokenizer.eot, *tokenizer.encode(item.text[:most_characters])]
            ids = ids[: settings.windows * block_size + 1]
            windows = [ids[i : i + block_size + 1] for i in range(0, len(ids) - 1, block_size)]
            batch.append((source, item.where, windows))
            n_windows += len(windows)
            if n_windows >= settings.batch_size:
                yield batch
                batch, n_windows = [], 0
    if batch:
        yield batch


def scored(model, tokenizer, batch, batch_size):
    """Yield (source, where, bits, bytes of text) of each document of a batch."""
    rows = []
    for _, _, windows in batch:
        rows += [(window, 1) for window in windows]
    found = iter(nats(model, tokenizer.eot, rows, batch_size))
    lengths = tokenizer.byte_lengths()
    for source, where, windows in batch:
        n_bytes = sum(int(lengths[window[1:]].sum()) for window in windows)
        bits = sum(next(found) for _ in windows) / math.log(2)
        yield source, where, bits, max(1, n_bytes)


if __name__ == "__main__":
    configurator.run(main, Settings)
