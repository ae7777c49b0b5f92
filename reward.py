"""Beside stage 6: a model that answers + pairs of answers -> a model that says how good an answer is.

    python reward.py --init=out/sft --data=data/pairs
    python -m evaluation.rewards --checkpoint=out/reward --sources=c.jsonl
    python prepare_data.py --chats --sources=c.jsonl --scores=data/rewards.jsonl

The model gets a second head, which makes one number of each token: that of an answer's <|im_end|> is
the answer's reward (InstructGPT, arXiv:2203.02155). The loss is that of Bradley and Terry: of two
answers to one prompt the better one shall have the higher reward. accuracy in metrics.jsonl is how
often it has. With the rewards, conversations are filtered, or answers judged for which there are no
tests.
"""

import needs  # noqa: F401

from dataclasses import dataclass, field

import configurator
from evaluation.progress import Progress
from loss import IGNORE
from pretrain import DecayShape, LaterSettings, begin, train
from ranges import Count, Natural, NotNegative, Place, Positive
from shards import load_tokenizer
from training import resume
from training.dataloader import parse_folders
from training.pairs import Pairs, pair_loss, text_sums
from training.plan import make_plan


@dataclass
class Settings(LaterSettings):
    """The settings of a reward model."""

    # -- data and results
    data: str = "data/pairs"  # folders of pairs, a,b: each pair is read once per epoch
    init: str = "out/sft"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    out_dir: Place = "out/reward"  # checkpoints, metrics.jsonl, settings.json
    # -- rewards
    center: NotNegative = 0.01  # weight of the squared sum of a pair's two rewards, which keeps them around 0
    # -- batch
    doc_mask: bool = field(init=False, default=True)  # no setting: the texts of a pair share a row
    shifted_attention: bool = field(init=False, default=False)  # no setting: answers are judged with full attention
    # -- learning rate and optimizer
    epochs: Positive = 1.0  # how often to read all pairs
    max_steps: Count | None = None  # length in optimizer steps; auto = what epochs comes to
    lr: Positive | None = None  # peak learning rate; auto = a third of that of the checkpoint's run
    decay_shape: DecayShape = "linear"  # the way down, over all steps after the warmup
    warmup_steps: Natural | None = None  # steps of linear warmup; auto = 20, or a tenth of a short run


def main(settings):
    """Train a reward model."""
    machine = begin(settings)
    start, meta, config = resume.starting_point(settings, machine)
    folders = parse_folders(settings.data, "data")
    val = parse_folders(settings.val, "val") if settings.val else folders
    tokenizer = load_tokenizer([folder for folder, _ in folders + val])
    data = Pairs(folders, val, settings, config.block_size, machine, tokenizer.eot)
    schedule = resume.tuning_schedule(settings, meta, data, slower=3)

    model = resume.trained_model(config, start, meta, tokenizer, machine)
    model.add_value_head()
    if not config.tie_embeddings:
        model.lm_head.requires_grad_(False)  # it has no part in a reward
    plan = make_plan(model, settings, machine)

    def loss_fn(model, batch):
        """The summed loss of a PairBatch, and the number of its pairs."""
        return reward_loss(rewards(model, batch), settings.center), batch.count

    progress = Progress(settings.sample, settings.problems, tokenizer, chat=True)

    def measure(model, machine):
        """What to log of an evaluation: also how far the rewards tell the answers of held-out pairs apart."""
        return {**progress.of(model, machine), **data.compared(model, rewards, machine, plan)}

    note = {"chat": True, "reward": True}
    train(settings, machine, model, tokenizer, data, schedule, val, note=note, loss_fn=loss_fn, measure=measure)


def rewards(model, batch):
    """What the model's value head makes of the <|im_end|> of each answer of a PairBatch: (pairs, 2)."""
    _, values = model(*batch.inputs(), reduction="values")
    is_counted = batch.targets != IGNORE
    is_last = is_counted & ~is_counted.roll(-1, dims=1)  # the last token of an answer is the target here, ...
    is_end = is_last.roll(1, dims=1)  # ... and has been read one place further on
    return text_sums(values.view(is_end.shape) * is_end, batch)


def reward_loss(scores, center):
    """The summed loss of pairs with these rewards, (pairs, 2): ln 2 for each as long as all rewards are 0.

    A pair says nothing of where 0 is; center x (sum of its rewards)^2 puts it in the middle (arXiv:2312.09244)."""
    return pair_loss(scores) + center * scores.sum(1).square().sum()


if __name__ == "__main__":
    configurator.run(main, Settings)
