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

from dataclasses import dataclass

import configurator
from evaluation.progress import Progress
from later import PairSettings, begin_on_pairs
from loss import IGNORE
from pretrain import train
from ranges import NotNegative, Place
from training.pairs import pair_loss, text_sums


@dataclass
class Settings(PairSettings):
    """The settings of a reward model."""

    # -- data and results
    out_dir: Place = "out/reward"  # checkpoints, metrics.jsonl, settings.json
    # -- rewards
    center: NotNegative = 0.01  # weight of the squared sum of a pair's two rewards, which keeps them around 0


def main(settings):
    """Train a reward model."""
    machine, tokenizer, data, schedule, model, plan, val = begin_on_pairs(settings, slower=3)
    model.add_value_head()
    if not model.config.tie_embeddings:
        model.lm_head.requires_grad_(False)  # it has no part in a reward

    def loss_fn(model, batch):
        """The summed loss of a PairBatch, and the number of its pairs."""
        return reward_loss(end_values(model, batch), settings.center), batch.count

    measure = data.measure(Progress(settings.sample, settings.problems, tokenizer, chat=True), end_values, plan)
    note = {"chat": True, "reward": True}
    train(settings, machine, model, tokenizer, data, schedule, val, note=note, loss_fn=loss_fn, measure=measure)


def end_values(model, batch):
    """What the model's value head makes of the <|im_end|> of each answer of a PairBatch: (pairs, 2)."""
    values = model(*batch.inputs(), reduction="values")
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
