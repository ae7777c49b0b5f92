"""Stage 6: a model that answers + pairs of answers -> a model that prefers the better ones.

    python prepare_data.py --pairs --sources=pairs.jsonl --out_dir=data/pairs
    python dpo.py --init=out/sft --data=data/pairs

Direct preference optimization (arXiv:2305.18290): reinforcement learning from people's preferences
without a reward model and without sampling. How much likelier an answer has become since the stage
began is its reward, and of two answers to one prompt the better one shall have the higher reward.
pair_loss, accuracy and margin on held-out pairs are logged beside the usual val_bpb.
"""

import needs  # noqa: F401

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import configurator
from configurator import UserError
from evaluation.progress import Progress
from later import PairSettings, begin_on_pairs
from loss import IGNORE
from pretrain import train
from ranges import NotNegative, Place, Positive
from shards import exclusive
from training.pairs import pair_loss, scores_of, text_sums


@dataclass
class Settings(PairSettings):
    """The settings of preference optimization."""

    # -- data and results
    out_dir: Place = "out/dpo"  # checkpoints, metrics.jsonl, settings.json, reference.json
    # -- preference
    beta: Positive | None = None  # the larger, the nearer the model stays to the first one; auto = 0.1, length_norm: 5
    length_norm: bool = False  # divide each log-prob by the answer's length, so that long answers do not count more
    nll: NotNegative = 0.0  # how much the chosen answer's own loss counts beside the pair's: Llama 3 has 0.2
    # -- learning rate and optimizer
    lr: Positive | None = None  # peak learning rate; auto = a thirtieth of that of the checkpoint's run


def main(settings):
    """Optimize a chat model for the answers that are preferred."""
    machine, tokenizer, data, schedule, model, plan, val = begin_on_pairs(settings, slower=30)
    if settings.beta is None:
        settings.beta = 5.0 if settings.length_norm else 0.1
    if settings.resume:
        load_reference(data, settings.out_dir)
    else:
        make_reference(data, model, settings.out_dir, machine, plan)

    def score(model, batch):
        """The rewards of a PairBatch's answers."""
        return implicit_rewards(answer_log_probs(model, batch), batch, settings)

    def loss_fn(model, batch):
        """The summed loss of a PairBatch, and the number of its pairs."""
        return preference_loss(answer_log_probs(model, batch), batch, settings), batch.count

    measure = data.measure(Progress(settings.sample, settings.problems, tokenizer, chat=True), score, plan)
    # The optimizers begin with fresh state: what they remember are gradients of another size.
    note = {"chat": True}
    train(settings, machine, model, tokenizer, data, schedule, val, note=note, loss_fn=loss_fn, measure=measure)


# -- the loss


def answer_log_probs(model, batch):
    """The log-probs that a model gives the answers of a PairBatch, their <|im_end|> included: (pairs, 2) nats.

    They are sums over an answer's tokens, not means: the probability of a text is the product of its tokens'."""
    return -text_sums(model(*batch.inputs(), reduction="none"), batch)


def lengths(batch):
    """How many tokens each answer of a PairBatch has: (pairs, 2)."""
    return text_sums((batch.targets != IGNORE).float(), batch)


def implicit_rewards(log_probs, batch, settings):
    """The reward of each answer of a PairBatch, (pairs, 2): beta x log(its probability / that by the first model).

    A model that earns as much of some reward as it can, at a price beta for straying from the first model, is such that
    this is the reward, up to a number per prompt (arXiv:2305.18290, section 4): it needs no reward model beside it.
    length_norm: a mean over the answer's tokens (Tulu 3, arXiv:2411.15124)."""
    gains = log_probs - text_sums(batch.beside["reference"], batch)
    return settings.beta * (gains / lengths(batch) if settings.length_norm else gains)


def preference_loss(log_probs, batch, settings):
    """The summed loss of a PairBatch's pairs: ln 2 for each as long as the model is the first one.

    Only the difference of two rewards counts, so the chosen answer may become less likely as long as the rejected one
    falls faster. nll x the chosen answer's loss per token keeps it up (arXiv:2404.19733; Llama 3, arXiv:2407.21783)."""
    loss = pair_loss(implicit_rewards(log_probs, batch, settings))
    if settings.nll:
        loss = loss - settings.nll * (log_probs / lengths(batch))[:, 0].sum()
    return loss


# -- the reference: what the first model says of all pairs, asked once, so that no second model takes memory


def make_reference(data, model, out_dir, machine, plan):
    """Give all pairs the log-probs of their answers by the model as it is now, and keep them in reference.json."""
    kept = {}
    for source in [*data.sources, *data.val]:
        source.reference = scores_of(source, model, answer_log_probs, machine, plan, data.eot).astype(np.float32)
        kept[source.shards.sha256()] = source.reference.tolist()
    with machine.together():
        if machine.is_main:
            with exclusive(out_dir):
                configurator.write_json(Path(out_dir, "reference.json"), kept)


def load_reference(data, out_dir):
    """Give all pairs what make_reference() has kept. Raises UserError where that is of other pairs, or damaged."""
    path = Path(out_dir, "reference.json")
    for source in [*data.sources, *data.val]:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            found = np.array(kept[source.shards.sha256()], np.float32)
        except (ValueError, KeyError, TypeError, RecursionError):
            found = np.zeros(0)
        if found.shape != source.reference.shape:
            raise UserError(f"{path} is not of the pairs in {source.shards.folder}: go on with those of its run")
        source.reference = found


if __name__ == "__main__":
    configurator.run(main, Settings)
