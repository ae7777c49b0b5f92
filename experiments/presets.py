"""The README's table of sizes, computed from configs/: python experiments/presets.py

Days by the usual formula: FLOPs per token x tokens / (6 cards x 71 TFLOP/s x 40 %), an RTX 3090's dense bf16 rate.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
import torch

import configurator
from model import Transformer
from pretrain import Settings as Pretrain
from pretrain import model_config
from tokenizer_train import Settings as TokenizerTrain
from training.machine import PEAK_FLOPS, memory_estimate
from training.trainer import batch_shape

PRESETS = ("demo", "124m", "350m", "0.5b", "1b")


@dataclass
class Settings:
    cards: int = 6  # GPUs
    card: str = "3090"  # their name in training/hardware.py's table
    mfu: float = 0.4  # share of their stated speed that is reached


@dataclass
class Vocabulary:
    vocab_size: int


def row(preset, s):
    """Parameters, tokens, bytes per device, FLOPs and days of a preset."""
    path = str(ROOT / "configs" / f"{preset}.toml")
    settings = configurator.load(Pretrain, [path])
    config = model_config(settings, Vocabulary(configurator.load(TokenizerTrain, [path]).vocab_size))
    with torch.device("meta"):  # shapes without memory
        model = Transformer(config)
    tokens = settings.max_steps * settings.batch_tokens
    _, micro_batch = batch_shape(settings, config.block_size, s.cards if preset != "demo" else 1)
    memory = memory_estimate(config, model.n_params(), micro_batch, settings.optimizer, 4 if preset == "demo" else 2)
    flops = tokens * model.flops_per_token()
    return config, model.n_params(), tokens, memory, flops, flops / (s.cards * PEAK_FLOPS[s.card] * s.mfu) / 86400


def main(s):
    print(
        f"| preset | layers x width | context | vocabulary | parameters | tokens | memory per device | FLOPs | days on {s.cards} x {s.card} |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for preset in PRESETS:
        config, n_params, tokens, memory, flops, days = row(preset, s)
        print(
            f"| {preset} | {config.n_layer} x {config.n_embd} | {config.block_size:,} | {config.vocab_size:,} | {n_params / 1e6:,.1f} M | "
            f"{tokens / 1e9:.2g} B | {memory / 2**30:.1f} GiB | {flops:.1e} | {'two CPU cores: minutes' if preset == 'demo' else f'{days:.1f}'} |"
        )


if __name__ == "__main__":
    configurator.run(main, Settings)
