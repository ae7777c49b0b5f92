"""Stage 6: chat model + problems with tests -> a model that solves more of them.

    python grpo.py --problems=data/exercises/practice.jsonl --max_steps=60
    python grpo.py --critic --out_dir=out/ppo

Every step asks the model some problems, each several times, runs what it writes, and makes what
passed its tests likelier and what failed less likely (GRPO, arXiv:2402.03300). With --critic a
second head says of every token what reward to expect, in place of the mean of the group (PPO).
"""

import needs  # noqa: F401

import collections
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import configurator
from configurator import UserError
from evaluation.attempts import Rated, Tested
from evaluation.progress import Progress
from evaluation.rollouts import Rollouts
from later import LaterSettings
from pretrain import DecayShape, Optimizer, begin, train
from ranges import Context, Count, Natural, NotNegative, Place, Positive, Share, SmallCount
from shards import load_tokenizer
from tokenizer import Tokenizer
from training import checkpoint, resume
from training.dataloader import Mixture, parse_folders, parse_mixture
from training.optim import warmup_then_decay
from training.policy import clipped_gain, divergence


@dataclass
class Settings(LaterSettings):
    """The settings of reinforcement learning."""

    # -- data and results
    init: str = "out/sft"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    problems: str = "data/exercises/practice.jsonl"  # problems with tests to learn from, not to be measured on
    test: str = ""  # a file of other problems, whose pass@1 is measured at every evaluation
    val: str = ""  # shard folders to validate on: a,b; empty = none
    # shard folders, a:2,b:1, of which batch_tokens are learnt beside each step's attempts, in every update from them,
    # so that less is forgotten (PPO-ptx, arXiv:2203.02155); empty = none
    replay: str = ""
    out_dir: Place = "out/grpo"  # checkpoints, metrics.jsonl, settings.json
    # -- samples
    n_problems: Count = 32  # problems that are asked at a time
    group_size: SmallCount = 16  # attempts at each of them
    max_new_tokens: Context = 160  # length of an attempt: what is cut off earns nothing
    sample_batch: SmallCount = 128  # attempts under way at a time
    # how often to ask as many problems again, in place of those at which all attempts pass, or none (DAPO's sampling)
    refills: Natural = 0
    # -- reward and advantage
    reward: Literal["all", "share"] = "all"  # 1 for passing all tests, or the share of assertions that hold
    # reward.py's checkpoint, whose rating is the reward; problems are then chats or pairs, whose prompts are asked
    reward_model: str = ""
    by_std: bool = False  # divide a group's advantages by their standard deviation, as the first GRPO did
    critic: bool = False  # PPO: advantages of tokens, from a value head, in place of those of a group
    gae_lambda: Share = 0.95  # how little the critic is trusted: 1 = each token's advantage is of the whole reward
    value_weight: NotNegative = 0.1  # of the critic's loss beside the policy's
    # -- loss
    # what counts alike: every token (DAPO), every answer (the first GRPO), or every token over a constant length
    # (Dr. GRPO, arXiv:2503.20783)
    loss_over: Literal["tokens", "answers", "constant"] = "tokens"
    updates: SmallCount = 1  # steps on the same attempts; 1 = the policy that drew them learns from them
    clip_low: Share = 0.2  # with updates above 1: a token's gain ends where it is so much less likely than when drawn
    clip_high: NotNegative = 0.28  # and where it is so much likelier
    # of the replay's mean loss beside that of the attempts, whose gradient is a hundred times smaller
    replay_weight: Positive = 0.002
    # weight of the divergence from the model that training began with; a reward_model, which can be fooled, needs 0.05
    kl: NotNegative = 0.0
    # -- learning rate and optimizer
    max_steps: Count = 100  # optimizer steps in all
    lr: Positive | None = None  # peak learning rate; auto = a sixth of that of the checkpoint's run
    optimizer: Optimizer | None = "muon"  # auto = as before
    decay_shape: DecayShape = "linear"  # the way down, over all steps after the warmup
    warmup_steps: Natural = 5  # steps of linear warmup
    log_every: Count = 1  # steps between progress lines
    eval_every: Natural = 20  # steps between evaluations; 0 = only after the last step
    save_every: Natural = 20  # steps between checkpoints; 0 = only after the last step
    # no setting: a step has the tokens that its attempts have; what is inherited bounds a forward pass
    batch_tokens: int | None = field(init=False, default=None)
    doc_mask: bool = field(init=False, default=True)  # no setting: attempts share rows
    shifted_attention: bool = field(init=False, default=False)  # no setting: attempts are written with full attention


def main(settings):
    """Let a model learn from what its own programs have earned."""
    machine = begin(settings)
    start, meta, config = resume.starting_point(settings, machine)
    n_rows = max(1, settings.batch_tokens // settings.block_size)
    settings.batch_tokens = n_rows * settings.block_size
    if n_rows < machine.world_size:
        raise UserError(f"{machine.world_size} processes for the {n_rows} rows of {start}'s batches: start fewer")
    tokenizer = Tokenizer.load(start / "tokenizer.json")
    chat = meta.get("chat", False)
    check(settings, chat)
    val = parse_folders(settings.val, "val") if settings.val else []
    mixture = parse_mixture(settings.replay) if settings.replay else []
    folders = [folder for folder, _ in val + mixture]
    if folders and load_tokenizer(folders).fingerprint != tokenizer.fingerprint:
        raise UserError(f"{folders[0]} was made with another tokenizer than {start}")
    if settings.lr is None:
        settings.lr = resume.lr_before(meta) / 6
    schedule = warmup_then_decay(settings)

    model = resume.trained_model(config, start, meta, tokenizer, machine)
    model.dtype, note, reference = machine.dtype, {"chat": True} if chat else {}, None
    if settings.kl:
        reference, note["reference"] = reference_of(settings, config, meta, machine)
    if settings.critic:
        model.add_value_head()
    if settings.reward_model:
        task = Rated(settings.problems, tokenizer, settings.reward_model, machine)
    else:
        task = Tested(settings.problems, tokenizer, chat, settings.reward == "share", machine.say)
    replay = Mixture(mixture, config.block_size, n_rows, settings.seed, tokenizer.eot) if mixture else None
    begun = meta if settings.resume else {}
    data = Rollouts(settings, model, reference, tokenizer, task, begun, replay)
    tests = Progress(settings.sample, settings.test, tokenizer, chat)
    before = answers_before(settings, tests, model, machine)

    def measure(model, machine):
        """What to log of an evaluation."""
        found = tests.of(model, machine)
        if "pass@1" in found:
            found["test_pass@1"] = found.pop("pass@1")  # greedy; the steps' own is of what was drawn
        return {**found, "tokens": data.n_drawn}

    # The optimizers begin with fresh state: what they remember are gradients of another size.
    train(settings, machine, model, tokenizer, data, schedule, val, None, note, make_loss(settings), measure)
    if before and tests.answers:
        compare(before, tests.answers, Path(settings.out_dir, "before_after.md"))


def check(settings, chat):
    """Raises UserError for settings of which one does nothing because of another."""
    if settings.reward_model and not chat:
        raise UserError("a reward model rates answers in a chat: --init must be a tuned model, such as out/sft")
    if not settings.replay and settings.replay_weight != Settings.replay_weight:
        raise UserError("replay_weight is the replay's: give --replay")
    if settings.group_size == 1 and not settings.critic:
        raise UserError("group_size=1: one attempt has none to be compared with; give more, or --critic")
    if not settings.critic and (
        settings.gae_lambda != Settings.gae_lambda or settings.value_weight != Settings.value_weight
    ):
        raise UserError("gae_lambda and value_weight are the critic's: give --critic")
    if settings.updates == 1 and (settings.clip_low != Settings.clip_low or settings.clip_high != Settings.clip_high):
        raise UserError("clip_low and clip_high do nothing with updates=1, when the policy is still that which drew")
    if settings.critic and (settings.by_std or settings.refills):
        raise UserError("by_std and refills are about groups, which --critic does without")
    if settings.reward_model and (settings.reward == "share" or settings.refills):
        raise UserError("reward and refills are about tests, which --reward_model does without")


def reference_of(settings, config, meta, machine):
    """(the model that the run began with, its sha256): what the divergence is from. Raises UserError where a resumed
    run's --init is another one by now."""
    model, _, found = checkpoint.load_model(settings.init, machine)
    model.config = config  # positions as this run has them
    if settings.resume and found["sha256"] != meta.get("reference"):
        raise UserError(f"{settings.init} is not the model that {settings.out_dir} began with, which --kl needs")
    return model, found["sha256"]


def answers_before(settings, tests, model, machine):
    """{task_id: [text, whether it passed]} of the test problems before any training, which a resumed run reads."""
    path = Path(settings.out_dir, "before.json")
    if not settings.test or not machine.is_main:
        return {}
    if not settings.resume:
        tests.of(model, machine)
        configurator.write_json(path, tests.answers)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def compare(before, after, path):
    """Say how many of the test problems were solved before and after, and write both answers into a file."""
    after = {task_id: answer for task_id, answer in after.items() if task_id in before}
    solved = collections.Counter((before[task_id][1], after[task_id][1]) for task_id in after)
    print(f"solved before and after {solved[True, True]}, only after {solved[False, True]}, ", end="")
    print(f"only before {solved[True, False]}, never {solved[False, False]}: {path}")
    parts = ["# The same problems before and after"]
    for task_id, texts in after.items():
        parts.append(f"## {task_id}")
        for when, (text, passed) in (("before", before[task_id]), ("after", texts)):
            parts.append(f"{when}, {'passed' if passed else 'failed'}:\n\n{textwrap.indent(text.strip(), '    ')}")
    configurator.write_text(path, "\n\n".join(parts) + "\n")


def make_loss(settings):
    """The loss_fn of train(): what GRPO, DAPO or PPO minimise, from the numbers that Rollouts lays beside a batch."""

    def loss_fn(model, batch):
        """(the summed loss of a Batch, the number of tokens that the attempts in it have)."""
        beside = {name: values.flatten() for name, values in batch.beside.items()}
        found = model(*batch.inputs(), reduction="both" if settings.critic else "none")
        losses, values = found if settings.critic else (found, None)
        logprobs = -losses
        # On-policy the ratio is 1, and its gradient that of the log-probability.
        old = beside.get("old", logprobs.detach())
        loss = -clipped_gain(logprobs, old, beside["advantage"], settings.clip_low, settings.clip_high)
        if settings.kl:
            loss = loss + settings.kl * divergence(logprobs, beside["reference"])
        if settings.critic:
            loss = loss + settings.value_weight * (values - beside["return"]) ** 2
        loss = (loss * beside["weight"]).sum()
        if settings.replay:
            loss = loss - (logprobs * beside["replay"]).sum()
        return loss, batch.count

    return loss_fn


if __name__ == "__main__":
    configurator.run(main, Settings)
