"""The README's tables of sizes and times, computed from configs/.

    python -m experiments.presets

Seconds = FLOPs per token x tokens / (cards x FLOP/s of one card x mfu).
"""

import needs  # noqa: F401

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

import configurator
import pretrain
import tokenizer_train
from model import Transformer
from ranges import Range, ShareAbove0
from training.dataloader import batch_shape
from training.machine import PEAK_FLOPS, Machine
from training.memory import memory_estimate
from training.plan import Plan

PRESETS = ("demo", "124m", "350m", "0.5b", "1b")
ALONE = ("3090", "4090", "A100")  # cards for whose times there is a column each, besides that of the settings


@dataclass
class Settings:
    """What the times are counted for."""

    # -- machine
    cards: Annotated[int, Range(1, 100_000)] = 6  # GPUs
    card: Literal[tuple(PEAK_FLOPS)] = "3090"  # their name in training/machine.py's table of speeds
    mfu: ShareAbove0 = 0.4  # share of their stated speed that is reached


def read_settings(name):
    """(the settings of pretraining, ModelConfig) of configs/NAME.toml."""
    path = str(configurator.ROOT / "configs" / f"{name}.toml")
    training = configurator.load(pretrain.Settings, [path], "pretrain")
    tokenizer = configurator.load(tokenizer_train.Settings, [path], "tokenizer_train")  # its vocab_size is what counts
    return training, pretrain.model_config(training, tokenizer)


def read_preset(name, settings):
    """(model on the device "meta", tokens to train on, bytes of memory per device) of configs/NAME.toml."""
    training, config = read_settings(name)
    with torch.device("meta"):  # weights have shapes and take no memory
        model = Transformer(config)
    machine, form = Machine(0, settings.cards, torch.device("cuda"), torch.bfloat16), "bounds"
    if name == "demo":
        machine, form = Machine(0, 1, torch.device("cpu"), torch.float32), "ids"
    _, micro_batch = batch_shape(training, model.config.block_size, machine.world_size)
    memory = memory_estimate(
        model, training, machine, Plan(micro_batch, form, compiles=True, recompute=training.recompute)
    )
    return model, training.max_steps * training.batch_tokens, memory


def main(settings):
    """Print both tables in Markdown."""
    presets = {name: read_preset(name, settings) for name in PRESETS}
    heads = ("layers x width", "context", "vocabulary", "parameters", "tokens", "memory per device", "FLOPs")
    print_row("preset", *heads)
    print_row(*["---"] * (1 + len(heads)))
    for name, (model, tokens, memory) in presets.items():
        config = model.config
        shape = f"{config.n_layer} x {config.n_embd}", f"{config.block_size:,}", f"{config.vocab_size:,}"
        sizes = f"{model.n_params() / 1e6:,.1f} M", f"{tokens / 1e9:.2g} B", f"{memory / 2**30:.1f} GiB"
        print_row(name, *shape, *sizes, f"{tokens * model.flops_per_token():.1e}")
    machines = [(1, card) for card in ALONE] + [(settings.cards, settings.card)]
    print()
    print_row("pretraining takes", *(f"{number} x {card}" for number, card in machines))
    print_row(*["---"] * (1 + len(machines)))
    for name in PRESETS[1:]:  # the demo takes minutes without any
        model, tokens, _ = presets[name]
        flops = tokens * model.flops_per_token()
        hours = [flops / (number * PEAK_FLOPS[card] * settings.mfu) / 3600 for number, card in machines]
        print_row(name, *map(duration, hours))


def print_row(*cells):
    """Print a row of a table in Markdown."""
    print("| " + " | ".join(cells) + " |")


def duration(hours):
    """Hours as 20 h or 7.7 days."""
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"


if __name__ == "__main__":
    configurator.run(main, Settings)
