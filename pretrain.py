"""Stage 3: token shards -> a trunk checkpoint.

    python pretrain.py                                           the demo's scale, from data/stdlib
    python pretrain.py configs/124m.toml --lr=2e-3               a recipe, and a setting of your own
    torchrun --nproc_per_node=6 pretrain.py configs/0.5b.toml    six GPUs

By default the run ends in the stable phase of warmup-stable-decay: the trunk, which can be trained on or annealed.
--decay_steps=N decays to the floor instead, --schedule=cosine is a full cosine run.
"""

from dataclasses import dataclass, fields

import torch

import configurator
from configurator import UserError
from model import ModelConfig, Transformer
from shards import load_tokenizer
from training import stage
from training.dataloader import Mixture, parse_mixture
from training.trainer import TrainSettings, batch_shape


@dataclass
class Settings(TrainSettings, ModelConfig):
    data: str = "data/stdlib"  # shard folders with weights: data/code:3,data/math:1
    out_dir: str = "out/pretrain"  # checkpoints, metrics.jsonl, settings.json


def main(s):
    machine = stage.begin(s)
    mixture = parse_mixture(s.data)
    tokenizer = load_tokenizer([folder for folder, _ in mixture])
    batch_size, _ = batch_shape(s, s.block_size, machine.world_size)
    data = Mixture(mixture, s.block_size, batch_size, s.seed, tokenizer.eot, s.best_fit)
    torch.manual_seed(s.seed)
    model = Transformer(model_config(s, tokenizer)).to(machine.device)
    stage.run(s, machine, model, tokenizer, data, mixture)


def model_config(s, tokenizer):
    """The model's part of the settings, with the vocabulary filled in."""
    config = ModelConfig(**{f.name: getattr(s, f.name) for f in fields(ModelConfig)})
    config.vocab_size = config.vocab_size or -(-tokenizer.vocab_size // 64) * 64
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(f"vocab_size={config.vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size}")
    return config


if __name__ == "__main__":
    configurator.run(main, Settings)
