"""What a model does with its context: the measures of experiments/order.py, for one checkpoint.

    python -m experiments.order_measures --held_out=my_code/

late_minus_early: the loss at late positions of a context minus that at early ones (Olsson et al.,
arXiv:2209.11895). gain_alike: bits per byte of a file alone, minus those behind similar files;
gain_random: behind random files, which tells what other files bring that have nothing to do with
it. gain_shots: the same of an exercise's solution behind 8 solved exercises of its kind, and
gain_shuffled behind their requests with answers to others. copying: how much lower the loss is
when random tokens come for the second time.
"""

import needs  # noqa: F401

import json
import math
import random
from collections import defaultdict
from dataclasses import asdict, dataclass

import numpy as np
import torch

import configurator
from cleaning import alike
from configurator import UserError
from corpus.documents import Document, read
from evaluation.likelihood import nats
from ranges import Natural, Place
from training import checkpoint
from training import machine as machines

SHOTS = (0, 1, 2, 4, 8)
N_BESIDE = 2  # files in the context of another
BATCH = 8  # rows at a time


@dataclass
class Settings:
    """Which model, and what it is asked."""

    checkpoint: str = "out/pretrain"  # a checkpoint or a folder of them, of which the newest is taken
    held_out: str = "data/held-out"  # a folder of files that it was not trained on, PACKAGE/path
    problems: str = "data/exercises/problems.jsonl"  # exercises, of which it has seen none
    repository: bool = False  # write files as those of a repository, as it has seen them in training
    examples: Natural = 60  # files, windows and exercises; the same for every model
    out: Place = "out/order.json"  # {"measures": {name: number}}


def main(settings):
    """Compute the measures and write them."""
    machine = machines.start(None, None)
    model, tokenizer, _ = checkpoint.load_model(settings.checkpoint, machine)
    files = [item for item in read(settings.held_out) if isinstance(item, Document)]
    measures = {"late_minus_early": late_minus_early(model, tokenizer, files, settings.examples)}
    measures |= context_gains(model, tokenizer, files, settings)
    measures |= shots(model, tokenizer, settings)
    measures["copying"] = copying(model, tokenizer)
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(settings.out, {"measures": measures, **about})
    for name, value in measures.items():
        print(f"{name:<20}{value:>8.3f}")


@torch.no_grad()
def token_losses(model, rows):
    """The loss in nats of each token but the first, float (rows, length - 1). rows: int (rows, length)."""
    found, device = [], model.embed_tokens.weight.device
    for start in range(0, len(rows), BATCH):
        ids = torch.tensor(rows[start : start + BATCH], device=device)
        losses = model(ids[:, :-1], ids[:, 1:], reduction="none")
        found.append(losses.cpu().double().view(len(ids), -1).numpy())
    return np.concatenate(found)


def bits_per_byte(model, tokenizer, rows):
    """Bits per byte of what stands behind the prompts, of all rows (ids, tokens of the prompt) together."""
    lengths = tokenizer.byte_lengths()
    n_bytes = sum(int(lengths[ids[n_prompt:]].sum()) for ids, n_prompt in rows)
    return sum(nats(model, tokenizer.eot, rows, BATCH)) / math.log(2) / n_bytes


# -- where in the context


def late_minus_early(model, tokenizer, files, n):
    """The mean loss of the last quarter of a context minus that of about the second eighth of it, in nats. The context
    is a window inside a long file, since a file's beginning is another kind of text than what follows."""
    size = model.config.block_size
    encoded = (tokenizer.encode(file.text) for file in files)
    windows = [ids[size : 2 * size + 1] for ids in encoded if len(ids) > 2 * size]
    if not windows:
        raise UserError(f"no file that is held out has more than {2 * size:,} tokens: train with a shorter context")
    losses = token_losses(model, random.Random(0).sample(windows, min(n, len(windows)))).mean(axis=0)
    # At 256 tokens these are 192 to 255 and 24 to 55.
    return losses[3 * size // 4 :].mean() - losses[3 * size // 32 : 7 * size // 32].mean()


# -- other files in the context


def context_gains(model, tokenizer, files, settings):
    """{"bpb": of files alone, "gain_alike", "gain_random": by how much fewer it becomes behind other files,
    "gain_in_context": the difference of the two}. All files are held out."""
    pairs, cosines = alike.similar_pairs(file.text for file in files)
    near = defaultdict(list)
    for (a, b), cosine in zip(pairs.tolist(), cosines):
        near[a].append((cosine, b))
        near[b].append((cosine, a))
    rng, rows = random.Random(0), {"alone": [], "alike": [], "random": []}
    candidates = [i for i in range(len(files)) if len(near[i]) >= N_BESIDE]
    if not candidates or len({package_of(file) for file in files}) < 2:
        raise UserError(f"{settings.held_out} needs two packages or more, with files that are similar")
    for i in rng.sample(candidates, min(settings.examples, len(candidates))):
        strangers = [file for file in files if package_of(file) != package_of(files[i])]
        beside = {
            "alone": [],
            "alike": [files[j] for _, j in sorted(near[i])[-N_BESIDE:]],  # the most similar one last
            "random": rng.sample(strangers, N_BESIDE),
        }
        for kind, others in beside.items():
            rows[kind].append(one_context(model, tokenizer, [*others, files[i]], settings.repository))
    bpb = {kind: bits_per_byte(model, tokenizer, rows[kind]) for kind in rows}
    gains = {f"gain_{kind}": bpb["alone"] - bpb[kind] for kind in ("alike", "random")}
    return {"bpb": bpb["alone"], **gains, "gain_in_context": gains["gain_alike"] - gains["gain_random"]}


def package_of(file):
    """The first folder of a Document's path, or the name of a module that is in none, as shards call a repository."""
    return file.where.split("/")[0].removesuffix(".py")


def one_context(model, tokenizer, files, is_repository):
    """(ids, tokens of the prompt) of some files as shards hold them. The last is what stands behind the prompt; each is
    cut to an equal part of the context, of which an eighth is for names."""
    limit = model.config.block_size * 7 // 8 // (N_BESIDE + 1)
    eot, ids = tokenizer.eot, []
    if is_repository:
        ids = [eot, tokenizer.token_id("<|repo_name|>"), *tokenizer.encode(package_of(files[-1]))]
    for file in files:
        ids += [tokenizer.token_id("<|file_sep|>"), *tokenizer.encode(f"{file.where}\n")] if is_repository else [eot]
        n_prompt = len(ids)
        ids += tokenizer.encode(file.text)[:limit]
    return ids, n_prompt


# -- solved exercises in the context


def shots(model, tokenizer, settings):
    """{"shots_8": bits per byte of solutions behind 8 solved exercises of the same kind, "shuffled_8": behind the same
    with answers to exercises of other kinds, ..., "gain_shots", "gain_shuffled": what 8 bring}."""
    with open(settings.problems, encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    kinds = defaultdict(list)
    for problem in problems:
        kinds[problem["composition"]].append(problem)
    large = [kind for kind, members in sorted(kinds.items()) if len(members) > max(SHOTS)]
    rng, rows = random.Random(0), defaultdict(list)
    for _ in range(20 * settings.examples if large else 0):  # most do not fit into the context
        kind = rng.choice(large)
        *solved, asked = rng.sample(kinds[kind], max(SHOTS) + 1)
        wrong = rng.sample([problem for problem in problems if problem["composition"] != kind], max(SHOTS))
        own = [problem["canonical_solution"] for problem in solved]
        others = [problem["canonical_solution"] for problem in wrong]
        found = {}
        for k in SHOTS:
            found[f"shots_{k}"] = few_shot(tokenizer, solved[:k], own, asked)
            found[f"shuffled_{k}"] = few_shot(tokenizer, solved[:k], others, asked)
        if max(len(ids) for ids, _ in found.values()) <= model.config.block_size + 1:
            for name, row in found.items():
                rows[name].append(row)
        if len(rows["shots_0"]) == settings.examples:
            break
    if not rows:
        raise UserError(f"no {max(SHOTS) + 1} exercises of one kind in {settings.problems} that fit into the context")
    bpb = {name: bits_per_byte(model, tokenizer, part) for name, part in rows.items()}
    gains = {f"gain_{name}": bpb["shots_0"] - bpb[f"{name}_{max(SHOTS)}"] for name in ("shots", "shuffled")}
    return bpb | gains


def few_shot(tokenizer, solved, answers, asked):
    """(ids, tokens of the prompt) of solved exercises with these answers, and one more, whose own solution is what
    stands behind the prompt."""
    text = ""
    for problem, answer in zip(solved, answers):
        text += f"{problem['prompt'].rstrip()}\n{answer.rstrip()}\n\n\n"
    prompt = [tokenizer.eot, *tokenizer.encode(text + asked["prompt"].rstrip())]
    return [*prompt, *tokenizer.encode("\n" + asked["canonical_solution"].rstrip())], len(prompt)


# -- copying


def copying(model, tokenizer):
    """By how many nats the loss of random tokens is lower when they come again, a mean over 32 rows. No text helps to
    guess them: what is found is found by looking back."""
    tokens = np.flatnonzero(tokenizer.byte_lengths())
    size = model.config.block_size // 4
    random_ids = np.random.default_rng(0).choice(tokens, (32, size))
    rows = np.concatenate([np.full((32, 1), tokenizer.eot), random_ids, random_ids], axis=1)
    losses = token_losses(model, rows)
    return losses[:, :size].mean() - losses[:, size:].mean()


if __name__ == "__main__":
    configurator.run(main, Settings)
