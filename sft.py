"""Stage 5: annealed checkpoint + chats -> a model that answers.

    python sft.py --data=data/exercise-chats --epochs=2
    python sample.py --checkpoint=out/sft --chat --prompt="Write a Python function that doubles each value."

Every conversation is read whole, packed with others that fill up its row and kept apart from them by the mask; the loss
is on what the assistant says alone, averaged over all such tokens of the global batch. All weights are trained.
"""

import math
from dataclasses import dataclass

import torch

import configurator
from configurator import UserError
from shards import load_tokenizer
from training import stage
from training.dataloader import Mixture
from training.trainer import LaterStageSettings, batch_shape


@dataclass
class Settings(LaterStageSettings):
    data: str = "data/exercise-chats"  # folders of chat shards, a,b: each conversation is read once per epoch
    init: str = "out/anneal"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    epochs: float = 1.0  # how often to read all conversations
    lr: float | None = None  # peak learning rate; auto = a third of that of the checkpoint's run
    decay_shape: str = "linear"  # linear, cosine, exponential, 1-sqrt or inverse, over all steps after the warmup
    warmup_steps: int = 20  # steps of linear warmup
    neftune: float = 0.0  # noise on the embeddings (arXiv:2310.05914): 5 is usual, 0 is none
    out_dir: str = "out/sft"  # checkpoints, metrics.jsonl, settings.json


def main(s):
    machine, folder, meta, config = stage.begin_later(s)
    folders = [folder for folder in s.data.split(",") if folder]
    val = stage.val_shares(s.val, [(folder, 1 / len(folders)) for folder in folders])
    tokenizer = load_tokenizer(folders + [folder for folder, _ in val])
    batch_size, _ = batch_shape(s, s.block_size, machine.world_size)
    data = Mixture([(folder, None) for folder in folders], s.block_size, batch_size, s.seed, tokenizer.eot)
    for shards in data.shards:
        if not shards.has_mask:
            raise UserError(f"{shards.folder} holds documents, not chats: prepare it with --chats")
    s.lr = s.lr or meta["settings"]["lr"] / 3
    s.max_steps = s.max_steps or math.ceil(s.epochs * data.n_rows.sum() / batch_size)
    s.warmup_steps = min(s.warmup_steps, s.max_steps // 10)
    s.decay_steps = s.max_steps - s.warmup_steps
    model = stage.load_weights(config, folder, machine, tokenizer, meta)
    if s.neftune:
        add_noise(model, s.neftune, tokenizer.eot)
    stage.run(s, machine, model, tokenizer, data, val, warm_start=folder, note={"chat": True})


def add_noise(model, alpha, eot):
    """NEFTune: in training, uniform noise of alpha / sqrt(length x width) on the embeddings, length being that of the
    token's own conversation. What is drawn depends on seed and step alone."""

    def noisy(module, inputs, embedded):
        if not module.training:
            return embedded
        documents = (inputs[0] == eot).cumsum(1)
        lengths = (documents[:, :, None] == documents[:, None, :]).sum(-1, keepdim=True)
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * alpha / (lengths * embedded.shape[-1]) ** 0.5

    model.embed_tokens.register_forward_hook(noisy)


if __name__ == "__main__":
    configurator.run(main, Settings)
