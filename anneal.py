"""Stage 4: trunk checkpoint + a mixture of better data -> annealed checkpoint.

    python anneal.py --data=data/stdlib:1,data/exercise-pages:2
    python anneal.py --decay_shape=cosine --out_dir=out/anneal-cosine

It goes on from the trunk's weights and optimizer state, at its learning rate, down to the floor:
what was learnt at a high rate settles, and what is read last counts most (MiniCPM,
arXiv:2404.06395). Folders that the trunk has read in rows of the same kind are read on from where
it stopped. --block_size and --rope_scaling lengthen the context.
"""

from dataclasses import dataclass

import configurator
from later import LaterSettings
from pretrain import begin, train
from ranges import Amount, Count, Natural, Place, Positive
from shards import load_tokenizer
from training import resume
from training.dataloader import Mixture, batch_shape, parse_folders, parse_mixture
from training.optim import warmup_then_decay


@dataclass
class Settings(LaterSettings):
    """The settings of annealing."""

    # -- data and results
    data: str = "data/stdlib:1,data/exercise-pages:2,data/exercise-chats:1"  # shard folders with weights
    best_fit: bool = False  # pack documents whole into rows instead of cutting the stream of tokens
    out_dir: Place = "out/anneal"  # checkpoints, metrics.jsonl, settings.json
    # -- learning rate and optimizer
    decay_tokens: Amount = 1_600_000  # length of the stage; a tenth of pretraining suffices, a fifth is better
    max_steps: Count | None = None  # length in optimizer steps; auto = decay_tokens / batch_tokens
    lr: Positive | None = None  # learning rate to come down from; auto = the trunk's
    warmup_steps: Natural = 0  # steps of linear warmup before the decay


def main(settings):
    """Anneal a trunk."""
    machine = begin(settings)
    start, meta, config = resume.starting_point(settings, machine)
    mixture = parse_mixture(settings.data)
    val = parse_folders(settings.val, "val") if settings.val else mixture
    tokenizer = load_tokenizer([folder for folder, _ in mixture + val])
    batch_size, _ = batch_shape(settings, config.block_size, machine.world_size)
    if settings.lr is None:
        settings.lr = resume.lr_before(meta)
    if settings.max_steps is None:
        settings.max_steps = max(1, settings.decay_tokens // settings.batch_tokens)

    # The trunk ended at a constant rate: with this decay the two are one run of warmup-stable-decay.
    schedule = warmup_then_decay(settings)

    read_before = resume.read_before(settings, meta)
    data = Mixture(mixture, config.block_size, batch_size, settings.seed, tokenizer.eot, settings.best_fit, read_before)
    model = resume.trained_model(config, start, meta, tokenizer, machine)
    model.shifted = settings.shifted_attention
    state = resume.optimizer_state(settings, start, meta)
    train(settings, machine, model, tokenizer, data, schedule, val, init=state)


if __name__ == "__main__":
    configurator.run(main, Settings)
