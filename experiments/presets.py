"""The README's table of sizes, computed from configs/.

    python -m experiments.presets

Days by the usual formula: FLOPs per token x tokens / (cards x FLOP/s of one x mfu), by default of
six RTX 3090, whose dense bf16 rate is 71 TFLOP/s.
"""

from dataclasses import dataclass

import torch

import configurator
from experiments.common import ROOT
from model import ModelConfig, Transformer
from pretrain import Settings as Pretrain
from pretrain import model_config
from tokenizer_train import Settings as TokenizerTrain
from training.dataloader import batch_shape
from training.machine import PEAK_FLOPS, memory_estimate

PRESETS = ("demo", "124m", "350m", "0.5b", "1b")


@dataclass
class Settings:
    """What the days are counted for."""

    # -- machine
    cards: int = 6  # GPUs
    card: str = "3090"  # their name in training/machine.py's table of speeds
    mfu: float = 0.4  # share of their stated speed that is reached


@dataclass
class Preset:
    """What follows from a preset's settings."""

    config: ModelConfig
    n_params: int
    tokens: int
    memory: float  # bytes per device
    flops: float
    days: float


def read_preset(name, settings):
    """The Preset of configs/NAME.toml on the settings' cards."""
    path = str(ROOT / "configs" / f"{name}.toml")
    training = configurator.load(Pretrain, [path], "pretrain")
    tokenizer = configurator.load(TokenizerTrain, [path], "tokenizer_train")  # has a vocab_size, which is all it takes
    config = model_config(training, tokenizer)
    with torch.device("meta"):  # shapes without memory
        model = Transformer(config)
    cards, bytes_per_value = (1, 4) if name == "demo" else (settings.cards, 2)  # the demo runs on a CPU in fp32
    _, micro_batch = batch_shape(training, config.block_size, cards)
    memory = memory_estimate(config, model.n_params(), micro_batch, training.optimizer, bytes_per_value)
    tokens = training.max_steps * training.batch_tokens
    flops = tokens * model.flops_per_token()
    days = flops / (settings.cards * PEAK_FLOPS[settings.card] * settings.mfu) / 86400
    return Preset(config, model.n_params(), tokens, memory, flops, days)


def main(settings):
    """Print the table."""
    head = ["preset", "layers x width", "context", "vocabulary", "parameters", "tokens", "memory per device", "FLOPs"]
    print_line([*head, f"days on {settings.cards} x {settings.card}"])
    print("|---|---|---|---|---|---|---|---|---|")
    for name in PRESETS:
        preset = read_preset(name, settings)
        cells = [name, f"{preset.config.n_layer} x {preset.config.n_embd}", f"{preset.config.block_size:,}"]
        cells += [f"{preset.config.vocab_size:,}", f"{preset.n_params / 1e6:,.1f} M", f"{preset.tokens / 1e9:.2g} B"]
        cells += [f"{preset.memory / 2**30:.1f} GiB", f"{preset.flops:.1e}"]
        print_line([*cells, "two CPU cores: minutes" if name == "demo" else f"{preset.days:.1f}"])


def print_line(cells):
    """Print a line of a table in Markdown."""
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    configurator.run(main, Settings)
