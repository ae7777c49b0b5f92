"""The average of the checkpoints of a run: what a decay of the learning rate gives, without one?

    python pretrain.py --save_every=50 --keep=8
    python -m experiments.averages --checkpoints=out/pretrain

Checkpoint j of n consists of the updates up to it. In their mean, update i has the weight
(n - i + 1) / n, the share of the checkpoints that hold it: as if the learning rate had fallen
linearly (LAWA, arXiv:2209.14981), were it not that the gradients would have been others. --ema
weights newer checkpoints more: each one 1 / ema times as much as the one before it.
"""

import needs  # noqa: F401

from dataclasses import dataclass
from pathlib import Path

import configurator
from configurator import UserError
from corpus.records import json_line
from experiments.held_out import HeldOut, weights_of
from ranges import Count, Natural, Place, ShareBelow1
from training import checkpoint
from training import machine as machines
from training.dataloader import parse_mixture


@dataclass
class Settings:
    """What to average."""

    # -- checkpoints
    checkpoints: str = "out/pretrain"  # a run's checkpoint, or its out_dir, of which the newest is taken
    last: Count = 8  # average this one and those before it, so many in all; 1 = only validate it
    ema: ShareBelow1 = 0.0  # weight of a checkpoint relative to the next one; 0 = all weigh the same
    # -- results
    val: str = ""  # shard folders to validate on: a,b; empty = those that the run was trained on
    eval_tokens: Natural = 0  # validation tokens per folder; 0 = all
    out_dir: Place = "out/average"  # the average as a checkpoint, and metrics.jsonl


def main(settings):
    """Average, validate, save."""
    newest, meta = checkpoint.newest(settings.checkpoints)
    folders = checkpoint.whole_until(newest)[-settings.last :]
    if len(folders) < settings.last:
        found = f"{newest.parent} holds {len(folders)} checkpoints up to {newest.name}, not {settings.last}"
        raise UserError(f"{found}: give a smaller --last, or train with --keep={settings.last}")
    out = Path(settings.out_dir)
    if checkpoint.saved(out):
        raise UserError(f"{out} already holds checkpoints: choose another --out_dir")
    trained_on = ",".join(folder for folder, _ in parse_mixture(meta["settings"]["data"]))
    held_out = HeldOut(newest, machines.start(), settings.val or trained_on, settings)
    weights = average(map(weights_of, folders), shares(len(folders), settings.ema))
    metrics = {"step": meta["step"], **held_out.losses(weights)}
    configurator.write_text(out / "metrics.jsonl", json_line({**metrics, "tokens": meta["tokens"]}).decode())
    # It has no optimizer state: another stage that starts from it begins with fresh state.
    meta = {**meta, "metrics": metrics, "weights_only": True, "averaged": list(map(str, folders))}
    machine, tokenizer = held_out.machine, held_out.tokenizer
    checkpoint.save(out, meta["step"], held_out.model, [], tokenizer, meta, machine)
    print(f"val bpb {metrics['val_bpb']:.4f} of {len(folders)} checkpoints, the last {newest} -> {out}")


def shares(n, ema=0.0):
    """The weight of each of n checkpoints, the oldest first; they sum to 1. ema: see Settings."""
    weights = [ema ** (n - 1 - i) if ema else 1.0 for i in range(n)]
    return [weight / sum(weights) for weight in weights]


def average(states, coefficients):
    """The sum of coefficient x weights over {name: tensor} dicts, computed in fp64. states: as many as coefficients."""
    total = {}
    for state, coefficient in zip(states, coefficients, strict=True):
        for name, tensor in state.items():
            total[name] = total.get(name, 0) + coefficient * tensor.double()
    return {name: tensor.float() for name, tensor in total.items()}


if __name__ == "__main__":
    configurator.run(main, Settings)
