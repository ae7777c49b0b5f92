"""The README's table of sizes, computed from configs/.

    python -m experiments.presets

Days = FLOPs per token x tokens / (cards x FLOP/s of one card x mfu) / 86,400.
"""

import needs  # noqa: F401

from dataclasses import dataclass
from typing import Annotated

import torch

import configurator
import pretrain
import tokenizer_train
from model import Transformer
from ranges import Range, ShareAbove0
from training.dataloader import batch_shape
from training.machine import PEAK_FLOPS, memory_estimate

PRESETS = ("demo", "124m", "350m", "0.5b", "1b")


@dataclass
class Settings:
    """What the days are counted for."""

    # -- machine
    cards: Annotated[int, Range(1, 100_000)] = 6  # GPUs
    card: str = "3090"  # their name in training/machine.py's table of speeds
    mfu: ShareAbove0 = 0.4  # share of their stated speed that is reached


def read_preset(name, settings):
    """(model on the device "meta", tokens to train on, bytes of memory per device) of configs/NAME.toml."""
    path = str(configurator.ROOT / "configs" / f"{name}.toml")
    training = configurator.load(pretrain.Settings, [path], "pretrain")
    tokenizer = configurator.load(tokenizer_train.Settings, [path], "tokenizer_train")  # its vocab_size is what counts
    with torch.device("meta"):  # weights have shapes and take no memory
        model = Transformer(pretrain.model_config(training, tokenizer))
    cards, bytes_per_value = (1, 4) if name == "demo" else (settings.cards, 2)  # the demo runs on a CPU in fp32
    _, micro_batch = batch_shape(training, model.config.block_size, cards)
    memory = memory_estimate(model.config, model.n_params(), micro_batch, training.optimizer, bytes_per_value)
    return model, training.max_steps * training.batch_tokens, memory


def main(settings):
    """Print the table in Markdown."""
    print("| preset | layers x width | context | vocabulary | parameters | tokens | memory per device | FLOPs ", end="")
    print(f"| days on {settings.cards} x {settings.card} |\n|---|---|---|---|---|---|---|---|---|")
    for name in PRESETS:
        model, tokens, memory = read_preset(name, settings)
        config, flops = model.config, tokens * model.flops_per_token()
        days = flops / (settings.cards * PEAK_FLOPS[settings.card] * settings.mfu) / 86400
        cells = [name, f"{config.n_layer} x {config.n_embd}", f"{config.block_size:,}", f"{config.vocab_size:,}"]
        cells += [f"{model.n_params() / 1e6:,.1f} M", f"{tokens / 1e9:.2g} B", f"{memory / 2**30:.1f} GiB"]
        cells += [f"{flops:.1e}", "two CPU cores: minutes" if name == "demo" else f"{days:.1f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    configurator.run(main, Settings)
