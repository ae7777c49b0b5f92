"""What a model learns from when it learns from its own attempts: the data of grpo.py's training run.

problems of the step -> attempts -> rewards -> advantages -> rows of tokens with the numbers that the loss needs

Rows of ordinary text may follow, so that what is not practised is not forgotten.
"""

import contextlib
import copy
import math

import numpy as np
import torch

from configurator import UserError
from evaluation.attempts import Attempt, draw_attempts
from loss import IGNORE
from training.dataloader import best_fit, make_batch
from training.machine import SignalCame
from training.policy import divergence, gae, group_advantages


class Rollouts:
    """The data of a run: attempts at problems by the model as it is at each step. train() asks of it what it asks of a
    Mixture.

    task: what is asked and who judges, attempts.Tested or Rated. begun: meta.json of the run's own checkpoint, where it
    is resumed, else {}. replay: a Mixture of text that is learnt beside the attempts, or None.

    Which problems a step asks, and with which seeds, is a function of the seed and the step; what the model writes
    depends on its weights as well, so that a run that is resumed writes what the unbroken one would have. Attempts that
    several steps learn from (settings.updates) are a part of the checkpoints in between.
    """

    shards = sources = ()  # there are no folders that are read from end to end
    read_before = {}

    def __init__(self, settings, model, reference, tokenizer, task, begun, replay=None):
        self.settings, self.model, self.reference, self.tokenizer = settings, model, reference, tokenizer
        self.task, self.block_size = task, model.config.block_size
        self.replay, self.mixture = replay, replay.mixture if replay else ()
        longest = min(self.block_size, task.longest)
        room = longest - settings.max_new_tokens
        self.numbers = [n for n, prompt in enumerate(task.prompts) if len(prompt) <= room]  # of problems that fit
        if len(self.numbers) < settings.n_problems:
            raise UserError(
                f"{settings.problems} has {len(self.numbers)} problems that leave {settings.max_new_tokens} tokens of "
                f"{longest} for an answer, fewer than n_problems={settings.n_problems}"
            )
        if left_out := len(task.prompts) - len(self.numbers):
            task.say(f"{left_out} problems leave no room for an answer and are left out")
        self.first, self.attempts, self.beside, self.about = None, [], {}, {}
        self.n_drawn = self.n_before = begun.get("tokens", 0)  # tokens of all attempts so far, and before those at hand
        if rollout := begun.get("rollout"):  # of a checkpoint between two steps on the same attempts
            self.first, self.about = rollout["first"], rollout["about"]
            self.attempts = [Attempt(**record) for record in rollout["attempts"]]
            self.beside = {name: np.array(values, np.float32) for name, values in rollout["beside"].items()}

    # -- what train() asks for

    def batch(self, step, machine, plan):
        """This process's rows of the Batch of a step. Raises SignalCame if a signal comes while attempts are drawn."""
        first = step - step % self.settings.updates
        if self.first != first:
            self.collect(first, machine, plan)
        ids, targets, _ = self.packed()
        n_rows = self.rows_of_a_process(len(ids), machine, plan)
        own = slice(machine.rank * n_rows, (machine.rank + 1) * n_rows)
        batch = make_batch(ids[own], targets[own], self.tokenizer.eot, plan.document_form, machine.device, n_rows)
        for name, values in self.beside.items():
            padded = np.pad(values[own], ((0, n_rows - len(values[own])), (0, 0)))
            batch.beside[name] = torch.from_numpy(padded).to(machine.device)
        batch.about = self.about
        return batch

    def identity(self):
        """What data this is."""
        return [[self.task.key, 1.0], *(self.replay.identity() if self.replay else [])]

    def epochs(self, step):
        """Of no folder."""
        return []

    def position(self, step):
        """What a checkpoint says of the data."""
        said = {"data": self.identity(), "rows_read": {}, "read_before": {}, "tokens": self.n_drawn}
        if step == self.first:  # a signal came before anything was learnt from the attempts: they will be made again
            return said | {"tokens": self.n_before}
        if step % self.settings.updates == 0:
            return said
        beside = {name: values.tolist() for name, values in self.beside.items()}
        attempts = [vars(tried) for tried in self.attempts]
        return said | {"rollout": {"first": self.first, "about": self.about, "attempts": attempts, "beside": beside}}

    # -- attempts

    def collect(self, step, machine, plan):
        """Have the model attempt the problems of a step, and lay beside each token what the loss needs."""
        order = np.random.default_rng((self.settings.seed, step)).permutation(self.numbers).tolist()
        n, asked, groups, sampler = self.settings.n_problems, [], [], self.model_copy(machine)
        for start in range(0, (1 + self.settings.refills) * n, n):
            numbers = order[start : start + n]
            tried = self.attempts_at(numbers, step, sampler, machine)
            size = self.settings.group_size
            found = [tried[i : i + size] for i in range(0, len(tried), size)]
            asked += found
            groups += [group for group in found if has_signal(group)] if self.settings.refills else found
            if len(groups) >= n or len(numbers) < n:
                break
        self.n_before, self.n_drawn = self.n_drawn, self.n_drawn + n_tokens_of(asked)
        self.first, self.about = step, {"tokens": self.n_drawn, **figures(asked, self.task.has_tests)}
        groups = groups[:n]
        # Without a penalty or a critic, attempts whose advantage is 0 have no gradient: computing it would be in vain.
        learns_from_all = self.settings.kl or self.settings.critic
        self.attempts = sum(groups if learns_from_all else filter(has_signal, groups), [])
        # All groups may be without a signal: then nothing is divided by these numbers.
        n_tokens, n_attempts = max(1, n_tokens_of(groups)), max(1, len(sum(groups, [])))
        self.beside = self.numbers_beside(n_tokens, n_attempts, machine, plan)

    def model_copy(self, machine):
        """A copy of the model as it is now, laid out for writing."""
        return copy.deepcopy(self.model).ready(machine.dtype)

    def attempts_at(self, numbers, step, sampler, machine):
        """group_size Attempts at each of the problems with these numbers, judged. Each process has a part of the
        problems attempted, and all get to know everything."""
        machine.heed()
        settings, task, asked = self.settings, self.task, []
        for number in numbers[machine.rank :: machine.world_size]:
            for k in range(settings.group_size):
                asked.append((number, task.prompts[number], task.stops[number], (settings.seed, step, number, k)))
        tried, at_once = [], settings.sample_batch
        with contextlib.suppress(SignalCame):  # to this process: the others are told below
            tried = draw_attempts(sampler, self.tokenizer, asked, settings.max_new_tokens, at_once, machine.heed_alone)
        machine.heed()
        with machine.together():
            task.judge(tried)
        place = {number: n for n, number in enumerate(numbers)}
        return sorted(machine.gathered(tried), key=lambda one: place[one.problem])

    def packed(self):
        """(ids, targets, which attempt each target belongs to or -1), int64 (rows, block_size): prompts and attempts,
        as many as fit into a row, of which what the model drew counts; then the step's rows of the replay."""
        lengths = [len(tried.prompt) + len(tried.ids) - 1 for tried in self.attempts]
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])  # stable: equal lengths stay in their order
        rows = best_fit([lengths[i] for i in order], [False] * len(order), self.block_size)
        shape = len(rows), self.block_size
        ids, targets = np.full(shape, self.tokenizer.eot), np.full(shape, IGNORE)
        owner = np.full(shape, -1)
        for row, items in enumerate(rows):
            at = 0
            for number in (order[item] for item in items):
                tried = self.attempts[number]
                text, end = tried.prompt + tried.ids, at + lengths[number]
                drawn = slice(at + len(tried.prompt) - 1, end)
                ids[row, at:end], targets[row, drawn], owner[row, drawn] = text[:-1], tried.ids, number
                at = end
        if not self.replay:
            return ids, targets, owner
        more_ids, more_targets = self.replay.arrays(self.first // self.settings.updates)
        nobodys = np.full(more_ids.shape, -1)
        return np.append(ids, more_ids, 0), np.append(targets, more_targets, 0), np.append(owner, nobodys, 0)

    # -- what the loss needs of each token

    def numbers_beside(self, n_tokens, n_attempts, machine, plan):
        """{name: float32 (rows, block_size)}, 0 where no target counts. n_tokens, n_attempts: of all groups, with those
        that are left out of the batch."""
        ids, targets, owner = self.packed()
        counted = targets != IGNORE
        beside, scores = {}, {}
        if self.settings.updates > 1 or self.settings.critic:
            scores["old"], scores["value"] = self.scored(self.model, ids, targets, machine, plan)
        if self.settings.kl:
            beside["reference"], _ = self.scored(self.reference, ids, targets, machine, plan)
            self.about["divergence"] = self.divergence_of_drawn(beside["reference"], owner)
        if self.settings.updates > 1:
            beside["old"] = scores["old"]
        if self.settings.critic:
            beside["advantage"], beside["return"] = self.from_critic(scores["value"], owner)
        else:
            beside["advantage"] = spread(self.advantages_in_groups(), owner)
        lengths = [len(tried.ids) for tried in self.attempts]
        # train() divides by the number of counted targets in the batch; a weight makes something else of it.
        weights = {
            "tokens": [counted.sum() / n_tokens] * len(lengths),
            "answers": [counted.sum() / n_attempts / length for length in lengths],
            "constant": [counted.sum() / n_attempts / self.settings.max_new_tokens] * len(lengths),
        }
        beside["weight"] = spread(weights[self.settings.loss_over], owner)
        if self.replay:
            replayed = counted & (owner < 0)
            beside["replay"] = replayed * (self.settings.replay_weight * counted.sum() / replayed.sum())
        return {name: values.astype(np.float32) for name, values in beside.items()}

    def advantages_in_groups(self):
        """The advantage of each attempt among those at the same problem."""
        advantages, size = [], self.settings.group_size
        for start in range(0, len(self.attempts), size):
            rewards = [tried.reward for tried in self.attempts[start : start + size]]
            advantages += group_advantages(rewards, self.settings.by_std)
        return advantages

    def divergence_of_drawn(self, reference, owner):
        """How far the model has moved from the reference: the mean of divergence() over the tokens that were drawn."""
        logprobs = np.zeros(owner.shape)
        for number, tried in enumerate(self.attempts):
            logprobs[owner == number] = tried.logprobs
        return divergence(torch.from_numpy(logprobs), torch.from_numpy(reference))[owner >= 0].mean().item()

    def from_critic(self, values, owner):
        """(advantages, the critic's targets), of each token. Advantages are brought to mean 0 and standard deviation 1
        over the batch, so that the size of a step does not depend on that of the rewards."""
        advantages, returns = np.zeros(owner.shape), np.zeros(owner.shape)
        for number, tried in enumerate(self.attempts):
            place = owner == number
            advantages[place], returns[place] = gae(tried.reward, values[place].tolist(), self.settings.gae_lambda)
        found = advantages[owner >= 0]
        advantages[owner >= 0] = (found - found.mean()) / (found.std() + 1e-8)
        return advantages, returns

    @torch.no_grad()
    def scored(self, model, ids, targets, machine, plan):
        """(log-probabilities of the targets, what the critic says), float32 (rows, block_size), 0 where none counts.
        Each process computes a part, and all get to know everything."""
        n_rows = self.rows_of_a_process(len(ids), machine, plan)
        own = slice(machine.rank * n_rows, (machine.rank + 1) * n_rows)
        batch = make_batch(ids[own], targets[own], self.tokenizer.eot, plan.document_form, machine.device, n_rows)
        with_values = hasattr(model, "value_head")
        found = np.zeros((2, machine.world_size * n_rows, self.block_size), np.float32)
        first = machine.rank * n_rows
        for part in batch.split(plan.micro_batch):
            machine.heed()
            scores = model(*part.inputs(), reduction="both" if with_values else "none")
            for n, values in enumerate(scores if with_values else [scores]):
                found[n, first : first + len(part.ids)] = values.float().view(part.ids.shape).cpu().numpy()
            first += len(part.ids)
        found[0] *= -1
        if machine.world_size > 1:
            found = np.array(machine.sum(*found.ravel().tolist()), np.float32).reshape(found.shape)
        return found[:, : len(ids)] * (targets != IGNORE)

    def rows_of_a_process(self, n_rows, machine, plan):
        """How many rows each process computes, whole micro-batches, empty rows among them."""
        return max(1, math.ceil(n_rows / machine.world_size / plan.micro_batch)) * plan.micro_batch


def has_signal(group):
    """Whether the attempts at a problem have earned differently: else nothing can be learnt from comparing them."""
    return len({tried.reward for tried in group}) > 1


def n_tokens_of(groups):
    """How many tokens were drawn in groups of Attempts."""
    return sum(len(tried.ids) for tried in sum(groups, []))


def spread(numbers, owner):
    """One number per attempt -> an array of owner's shape with it at each token of the attempt, 0 elsewhere."""
    return np.append(np.array(numbers, dtype=np.float64), 0.0)[owner]


def figures(groups, has_tests):
    """What metrics.jsonl says of a step's attempts. has_tests: whether a reward of 1 says that all tests are passed."""
    attempts, n_tokens = sum(groups, []), n_tokens_of(groups)
    found = {"reward": sum(tried.reward for tried in attempts) / len(attempts)}
    if has_tests:
        found["pass@1"] = sum(tried.reward == 1 for tried in attempts) / len(attempts)
    found |= {
        # The mean of -log p over what was drawn from p is an estimate of the entropy per token, in nats.
        "entropy": -sum(sum(tried.logprobs) for tried in attempts) / n_tokens,
        "length": n_tokens / len(attempts),
        "truncated": sum(tried.cut_off for tried in attempts) / len(attempts),
        "groups_with_signal": sum(map(has_signal, groups)) / len(groups),
    }
    if has_tests:  # where this falls while pass@1 rises, a model only becomes surer of what it could do before
        found[f"pass@{len(groups[0])}"] = sum(any(one.reward == 1 for one in group) for group in groups) / len(groups)
    return found
