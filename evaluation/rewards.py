"""A reward model's score of every conversation: a score file that prepare_data.py filters by.

    python -m evaluation.rewards --checkpoint=out/reward --sources=c.jsonl
    python prepare_data.py --chats --sources=c.jsonl --scores=data/rewards.jsonl

The reward of a conversation is that of its last answer. 0 lies midway between the better and the
worse answers of the pairs that were learnt from. Other texts may lie elsewhere: choose --min_score
by the percentiles that are printed.
"""

import needs  # noqa: F401

import json
from collections import Counter
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

import configurator
from configurator import UserError
from corpus import chats
from corpus.documents import Problem, read
from corpus.records import escaped
from corpus.sources import distinct, spare
from evaluation.score import write_scores
from ranges import Device, Place, Precision, SmallCount
from training import checkpoint
from training import machine as machines

AT_ONCE = 16  # batches of conversations that are sorted by their lengths together


@dataclass
class Settings:
    """What to score, and how."""

    # -- what to score
    checkpoint: str = "out/reward"  # a checkpoint of reward.py or a folder of them, of which the newest is taken
    sources: list[str] = field(default_factory=list)  # conversations, as in prepare_data.py --chats
    # -- results
    out: Place = "data/rewards.jsonl"  # {"id", "source", "score"} a line
    # -- machine
    batch_size: SmallCount = 32  # conversations at a time
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Score every conversation of the sources; the file appears when it is whole."""
    settings.sources = distinct(settings.sources)
    if not settings.sources:
        raise UserError("nothing to score: --sources=FILE,FOLDER,...")
    spare(settings.sources, settings.out)
    machine = machines.start(settings.device, settings.dtype)
    model, tokenizer, _ = checkpoint.load_model(settings.checkpoint, machine, with_values=True)
    records, without = [], Counter()
    for batch in batches(settings, tokenizer, model.config.block_size, without):
        found = rewards_of(model, [ids for _, _, ids in batch], settings.batch_size)
        for (source, where, _), score in zip(batch, found):
            records.append({"id": where, "source": source, "score": score})
    write_scores(settings, records, without, "conversations", "rewards")


def batches(settings, tokenizer, block_size, without):
    """Yield lists of (source, where, ids_of() a conversation). without: a Counter of the reasons why others have no
    score, among them that they are longer than the model's context."""
    batch = []
    for source in settings.sources:
        for item in tqdm(read(source, chats.from_record), desc=f"scoring {escaped(source)}", unit="conversation"):
            ids = [] if isinstance(item, Problem) else ids_of(json.loads(item.text)["messages"], tokenizer)
            if not ids or len(ids) > block_size:
                without["too_long" if ids else item.rule] += 1
                continue
            batch.append((source, item.where, ids))
            if len(batch) == AT_ONCE * settings.batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def rewards(model, tokenizer, conversations, batch_size):
    """The rewards of conversations, [{"role": ..., "content": ...}, ...] each, for their last answers: floats.

    model: a reward model, as checkpoint.load_model(path, machine, with_values=True) gives it."""
    return rewards_of(model, [ids_of(messages, tokenizer) for messages in conversations], batch_size)


def ids_of(messages, tokenizer):
    """The ids of a conversation up to the <|im_end|> of its last answer."""
    while messages[-1]["role"] != "assistant":
        messages = messages[:-1]
    ids, _ = tokenizer.render(messages)
    return [tokenizer.eot, *ids[: -len(tokenizer.encode("\n"))]]


@torch.no_grad()
def rewards_of(model, texts, batch_size):
    """What the model's value head makes of the last token of each text, a list of ids: floats."""
    device, found = model.embed_tokens.weight.device, [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths in a batch: little padding
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        # What stands behind a text changes nothing in it: no token sees a later one.
        ids = torch.zeros((len(part), len(texts[part[-1]])), dtype=torch.int64)
        for place, i in enumerate(part):
            ids[place, : len(texts[i])] = torch.tensor(texts[i])
        values = model(ids.to(device), reduction="values")
        for place, i in enumerate(part):
            found[i] = values.view(ids.shape)[place, len(texts[i]) - 1].item()
    return found


if __name__ == "__main__":
    configurator.run(main, Settings)
