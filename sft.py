"""Stage 5: annealed checkpoint + chats -> a model that answers.

    python sft.py --data=data/exercise-chats --epochs=2
    python sample.py --checkpoint=out/sft --chat --prompt="Write a function."

Every conversation that fits is read whole (of a longer one what comes up to its last answer within
a row), packed with others that fill up its row and kept apart from them by the document mask. The
loss is on what the assistant says alone, averaged over all such tokens of the global batch. All
weights are trained, or with --lora_rank two narrow matrices beside each.
"""

import needs  # noqa: F401

from dataclasses import dataclass, field
from typing import Annotated

import torch

import configurator
from configurator import UserError
from later import TuningSettings
from pretrain import begin, train
from ranges import NotNegative, Place, Positive, Range
from shards import load_tokenizer
from training import resume
from training.dataloader import Mixture, batch_shape, parse_folders
from training.lora import FASTER, TARGETS, add_adapters


@dataclass
class Settings(TuningSettings):
    """The settings of instruction tuning."""

    # -- data and results
    data: str = "data/exercise-chats"  # folders of chat shards, a,b: each conversation is read once per epoch
    init: str = "out/anneal"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    out_dir: Place = "out/sft"  # checkpoints, metrics.jsonl, settings.json
    # -- LoRA
    lora_rank: Annotated[int, Range(0, 4096)] = 0  # of the adapters that are trained instead of the weights; 0 = none
    lora_alpha: Positive | None = None  # their change counts alpha / rank; auto = 2 * rank, or 16 with lora_by_root
    lora_by_root: bool = False  # alpha / sqrt(rank) instead (rsLoRA)
    lora_targets: list[str] = field(default_factory=lambda: list(TARGETS))  # the matrices that have adapters
    lora_embeddings: bool = False  # train embeddings and norms too, for a longer context (LongLoRA, arXiv:2309.12307)
    # -- learning rate and optimizer
    # peak learning rate; auto = a third of that of the checkpoint's run, for adapters as high as that
    lr: Positive | None = None
    # -- noise
    neftune: NotNegative = 0.0  # noise on the embeddings (arXiv:2310.05914): 5 is usual, 0 is none


def main(settings):
    """Tune a model on conversations."""
    check(settings)
    machine = begin(settings)
    if settings.lora_rank and settings.optimizer is None:
        settings.optimizer = "adamw"  # Muon would make all directions of a narrow matrix equally large
    start, meta, config = resume.starting_point(settings, machine)
    folders = parse_folders(settings.data, "data")
    val = parse_folders(settings.val, "val") if settings.val else folders
    tokenizer = load_tokenizer([folder for folder, _ in folders + val])
    batch_size, _ = batch_shape(settings, config.block_size, machine.world_size)
    by_rows = [(folder, None) for folder, _ in folders]  # each folder's share is its share of all rows
    data = Mixture(by_rows, config.block_size, batch_size, settings.seed, tokenizer.eot)
    for shards in data.shards:
        if not shards.has_mask:
            raise UserError(f"{shards.folder} holds documents, not chats: prepare it with --chats")
        if shards.has_pairs:
            machine.say(f"{shards.folder} holds pairs of answers: this stage reads the better ones alone")

    schedule = resume.tuning_schedule(settings, meta, data, slower=3 / FASTER if settings.lora_rank else 3)
    model = resume.trained_model(config, start, meta, tokenizer, machine)
    model.shifted = settings.shifted_attention
    if settings.neftune:
        add_noise(model, settings.neftune, tokenizer.eot)
    state = resume.optimizer_state(settings, start, meta)
    if settings.lora_rank:
        torch.manual_seed(settings.seed)
        alpha = settings.lora_alpha or (16 if settings.lora_by_root else 2 * settings.lora_rank)
        what = settings.lora_targets, settings.lora_embeddings, tokenizer.special.values()
        add_adapters(model, settings.lora_rank, alpha, settings.lora_by_root, *what)
        state = None  # it is of the matrices that are not trained now
    train(settings, machine, model, tokenizer, data, schedule, val, init=state, note={"chat": True})


def check(settings):
    """Raises UserError for settings of adapters where there are none, and where one would be changed on the way."""
    of_adapters, usual = ("lora_alpha", "lora_by_root", "lora_targets", "lora_embeddings"), Settings()
    given = [name for name in of_adapters if getattr(settings, name) != getattr(usual, name)]
    if given and not settings.lora_rank:
        raise UserError(f"{given[0]} is about adapters: give --lora_rank too")
    if stored := {"lora_rank", *of_adapters} & set(settings.changed):
        raise UserError(f"{min(stored)} cannot be changed on the way: choose another --out_dir")


def add_noise(model, alpha, eot):
    """NEFTune (arXiv:2310.05914): in training, uniform noise in +-alpha / sqrt(length x n_embd) on the embeddings.

    length is that of the token's own conversation. What is drawn depends on the seed, the step and the process alone.
    """

    def noisy(module, inputs, embedded):
        """Embeddings with noise on them, while the model trains."""
        if not module.training:
            return embedded
        doc_ids = (inputs[0] == eot).cumsum(1)
        same_document = doc_ids[:, :, None] == doc_ids[:, None, :]  # (B, T, T)
        lengths = same_document.sum(-1, keepdim=True)
        size = (lengths * embedded.shape[-1]) ** 0.5
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * alpha / size

    model.embed_tokens.register_forward_hook(noisy)


if __name__ == "__main__":
    configurator.run(main, Settings)
