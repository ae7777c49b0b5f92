"""How far back does a model look? Rows of 1, 2, 4 and 8 times the length that it was trained on.

    python -m experiments.long_context --checkpoints=out/demo/anneal
    python -m experiments.long_context --checkpoints=out/anneal,out/longer

A checkpoint of shorter rows is asked as it is, and untuned with each rope_scaling on top; one that
was trained on long rows or with a rope_scaling as it is. Attention is full, also where it was
shifted in training. Two measures:

bits per byte of held-out files, the same tokens at every length: what stands before the row cannot
be seen. More of a file makes its rest easier to predict, if the model can use it.

numbers found: in the first quarter of a row of code stands a function that returns "7241" or so,
and at its end the same function once more. The share of digits that the model finds likeliest, the
ones before given. Nothing but what stands far above tells them: a guess is right once in ten times.
"""

import needs  # noqa: F401

import random
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import configurator
from configurator import UserError
from experiments.common import print_table
from ranges import Context, Device, Place, Precision, Seed, SmallCount
from shards import Shards, load_tokenizer
from training import checkpoint
from training import machine as machines
from training.dataloader import PASS_TOKENS
from training.plan import Plan
from training.validation import ValidationSet, evaluate

TIMES = (1, 2, 4, 8)  # the trained length
WORDS = "amber copper falcon harbor lantern meadow orchid pebble quartz river saddle timber velvet willow".split()
HIDDEN = 'def {name}():\n    return "{number}'


@dataclass
class Settings:
    """Who is asked, and what."""

    # -- what is measured
    checkpoints: list[str] = field(default_factory=lambda: ["out/demo/anneal"])  # checkpoints, or folders of them
    data: str = "data/demo/stdlib"  # shard folder, whose validation files are read; long ones are needed
    trained: Context = 256  # the length that counts as 1: the block_size of the trunk
    n_numbers: SmallCount = 100  # how many to hide at each length
    seed: Seed = 0  # of where they are hidden
    out: Place = "out/long_context.json"  # the same as JSON
    # -- machine
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it


def main(settings):
    """Print two tables, and write them as JSON."""
    machine = machines.start(settings.device, settings.dtype)
    tokenizer = load_tokenizer([settings.data])
    lengths = [times * settings.trained for times in TIMES]
    files = long_files(settings.data, lengths[-1], tokenizer.eot)
    results = []
    for path in settings.checkpoints:
        model, own_tokenizer, _ = checkpoint.load_model(path, machine)
        if own_tokenizer.fingerprint != tokenizer.fingerprint:
            raise UserError(f"{path} was trained with another tokenizer than that of {settings.data}")
        config = model.config
        is_short = config.rope_scaling == "none" and config.block_size < lengths[-1]
        for scaling in ("none", "linear", "ntk", "yarn") if is_short else ("as trained",):
            for length in tqdm(lengths, desc=f"{path}, {scaling}", leave=False):
                model.config = reading(config, scaling, length)
                bpb = bits_per_byte(model, files, length, lengths[-1], machine, tokenizer)
                found = share_found(model, tokenizer, files, length, settings)
                about = {"checkpoint": path, "positions": scaling, "length": length}
                results.append({**about, "bits per byte": bpb, "numbers found": found})
    show(results, lengths)
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(Path(settings.out), {"results": results, **about})


def reading(config, scaling, length):
    """The ModelConfig with which a model reads rows of `length` tokens: its own, or, where it was trained on shorter
    ones, with positions stretched by this scaling."""
    trained = config.block_size
    if length <= trained or scaling in ("none", "as trained"):
        return config
    return replace(config, rope_scaling=scaling, rope_factor=length / trained, rope_trained=trained)


def long_files(folder, longest, eot):
    """The tokens of every validation file that fills a row of the longest length, without its <|endoftext|>. Raises
    UserError where there is none."""
    shards = Shards(folder, "val")
    files = []
    for start, length in zip(*shards.documents(eot)):
        if length > longest + 1:
            files.append(shards.tokens(int(start) + 1, int(length) - 1))
    if not files:
        raise UserError(f"{folder}: no validation file has more than {longest:,} tokens, 8 times the trained length")
    return files


def bits_per_byte(model, files, length, longest, machine, tokenizer):
    """Bits per byte of the files' tokens, as many of each as make whole rows of the longest length, in rows of this."""
    ids, targets = [], []
    for tokens in files:
        n = (len(tokens) - 1) // longest * longest
        ids.append(tokens[:n].reshape(-1, length))
        targets.append(tokens[1 : n + 1].reshape(-1, length))
    part = ValidationSet("", 1.0, np.concatenate(ids).astype(np.int64), np.concatenate(targets).astype(np.int64))
    plan = Plan(max(1, PASS_TOKENS // length), None, compiles=False, recompute=False)
    return evaluate(model, part, plan, machine, tokenizer)["val_bpb"]


@torch.no_grad()
def share_found(model, tokenizer, files, length, settings):
    """The share of the hidden numbers' tokens that are the likeliest of all."""
    draw, right = random.Random(settings.seed), []
    for _ in range(settings.n_numbers):
        ids, n = hide_number(draw, tokenizer, files, length)
        ids = torch.tensor(ids, device=model.embed_tokens.weight.device)
        likeliest = model(ids[None])[0].argmax(-1)
        right += (likeliest[-n - 1 : -1] == ids[-n:]).tolist()  # what is predicted at a token is the next one
    return sum(right) / len(right)


def hide_number(draw, tokenizer, files, length):
    """(ids, n): at most `length` tokens of code, with a number in the first quarter and again as the last n tokens."""
    name, number = "_".join(draw.sample(WORDS, 2)), f"{draw.randrange(10**4):04}"
    asked = HIDDEN.format(name=name, number="")
    hidden = f'{asked}{number}"\n'
    room = length - len(tokenizer.encode(f"\n{hidden}\n{asked}{number}")) - 1
    if room < length // 4:
        raise UserError(f"rows of {length} tokens are too short to hide anything in: give a larger --trained")
    tokens = draw.choice(files)
    start = draw.randrange(len(tokens) - room)
    text = tokenizer.decode(tokens[start : start + room])
    line = text.find("\n", draw.randrange(len(text) // 4)) + 1  # where one begins
    ids = tokenizer.encode(f"{text[:line]}{hidden}{text[line:]}\n{asked}{number}")
    return [tokenizer.eot, *ids][-length:], len(tokenizer.encode(number))  # cut into tokens anew, it may be longer


def show(results, lengths):
    """Print a table for each measure: a checkpoint and its positions in a row, a length in a column."""
    for measure, form in (("bits per byte", ".3f"), ("numbers found", ".0%")):
        rows = {}
        for one in results:
            rows.setdefault((one["checkpoint"], one["positions"]), []).append(format(one[measure], form))
        table = [[*row, *cells] for row, cells in rows.items()]
        print()
        print_table([measure, "positions", *map(str, lengths)], table, "<<" + ">" * len(lengths))


if __name__ == "__main__":
    configurator.run(main, Settings)
