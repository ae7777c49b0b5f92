"""Stage 4: trunk checkpoint + a mixture of better data -> annealed checkpoint.

    python anneal.py --data=data/stdlib:1,data/exercise-pages:2,data/exercise-chats:1
    python anneal.py --decay_shape=cosine --out_dir=out/anneal-cosine       the same data down another curve

Goes on from the trunk's weights and optimizer state, at its learning rate, down to the floor: what was learnt at a high
rate settles, and what is read last counts most (MiniCPM, arXiv:2404.06395). Folders that the trunk has read are read on
from where it stopped. --block_size and --rope_base lengthen the context on the way.
"""

from dataclasses import dataclass

import configurator
from configurator import UserError
from shards import load_tokenizer
from training import stage
from training.dataloader import Mixture, parse_mixture
from training.trainer import LaterStageSettings, batch_shape


@dataclass
class Settings(LaterStageSettings):
    data: str = "data/stdlib:1,data/exercise-pages:2,data/exercise-chats:1"  # shard folders with weights
    decay_tokens: int = 1_600_000  # length of the stage; a tenth of pretraining suffices, a fifth is better
    lr: float | None = None  # learning rate to come down from; auto = the trunk's
    out_dir: str = "out/anneal"  # checkpoints, metrics.jsonl, settings.json


def main(s):
    machine, folder, meta, config = stage.begin_later(s)
    if s.schedule != "wsd":
        raise UserError("anneal.py is the decay of schedule=wsd; the curve is --decay_shape")
    mixture = parse_mixture(s.data)
    val = stage.val_shares(s.val, mixture)
    tokenizer = load_tokenizer([folder for folder, _ in mixture + val])
    batch_size, _ = batch_shape(s, s.block_size, machine.world_size)
    s.lr = s.lr or meta["settings"]["lr"]
    s.max_steps = s.max_steps or max(1, s.decay_tokens // s.batch_tokens)
    s.decay_steps = s.max_steps - s.warmup_steps
    same_rows = all(getattr(s, key) == meta["settings"].get(key) for key in ("block_size", "seed", "best_fit"))
    read_before = meta.get("rows_read", {}) if same_rows else {}
    data = Mixture(mixture, s.block_size, batch_size, s.seed, tokenizer.eot, s.best_fit, read_before)
    model = stage.load_weights(config, folder, machine, tokenizer, meta)
    stage.run(s, machine, model, tokenizer, data, val, warm_start=folder)


if __name__ == "__main__":
    configurator.run(main, Settings)
