"""What a model's own samples teach: programs that passed, and pairs with one that failed.

    python -m evaluation.harvest --results=out/practice/results.jsonl

The results are those of eval_humaneval.py --problems=data/exercises/practice.jsonl --n_samples=16
--temperature=1 --top_p=1 --out_dir=out/practice.

Leaves passed.jsonl, for prepare_data.py --chats and sft.py (rejection sampling, as in STaR,
arXiv:2203.14465), and pairs.jsonl, for prepare_data.py --pairs and dpo.py.
"""

import needs  # noqa: F401

import random
from dataclasses import asdict, dataclass
from pathlib import Path

import configurator
from configurator import UserError
from corpus.records import json_lines, read_lines
from evaluation.problems import MBPP_TRAIN, read_sets
from ranges import Count, Ids, Place, Seed
from shards import exclusive
from tokenizer import fenced


@dataclass
class Settings:
    """The settings of the harvest."""

    # -- samples
    results: str = "out/eval/results.jsonl"  # what eval_humaneval.py has left of a chat model's samples
    problems: str = "data/exercises/practice.jsonl"  # the files of problems that it was given
    mbpp_ids: Ids = MBPP_TRAIN  # as it was given; 601-974 = MBPP's training split, the only one to learn from
    # -- results
    out_dir: Place = "data/harvest"  # passed.jsonl, pairs.jsonl
    per_problem: Count = 4  # at most so many chats, and pairs, of a problem: else the easy ones would be most of them
    seed: Seed = 1337  # of the choice


def main(settings):
    """Samples with verdicts -> chats and pairs."""
    problems, _ = read_sets(settings.problems, settings.mbpp_ids)
    answers = answers_by_problem(settings.results, problems)
    chats, pairs = [], []
    for task_id, (passed, failed) in answers.items():
        rng, request = random.Random(f"{settings.seed}|{task_id}"), problems[task_id].asked(chat=True)
        for answer in rng.sample(passed, min(len(passed), settings.per_problem)):
            chats.append({"messages": [said("user", request), said("assistant", answer)]})
        for chosen, rejected in drawn_pairs(rng, passed, failed, settings.per_problem):
            pairs.append({"prompt": request, "chosen": chosen, "rejected": rejected})
    if not chats:
        raise UserError(f"{settings.results}: no program has passed, and there is nothing to learn from")
    out = Path(settings.out_dir)
    with exclusive(out):
        configurator.write_text(out / "passed.jsonl", json_lines(chats))
        configurator.write_text(out / "pairs.jsonl", json_lines(pairs))
        configurator.write_json(out / "made_by.json", {"settings": asdict(settings), "made_by": configurator.made_by()})
    print(f"{len(answers):,} problems: {len(chats):,} programs that passed, {len(pairs):,} pairs -> {out}")


def answers_by_problem(path, problems):
    """{task_id: (answers that passed, answers that failed)}, each answer once, as a chat shows it: in a fence. Raises
    UserError for a sample of another problem, and for what is no file of results."""
    answers = {}
    for record in read_lines(Path(path)):
        task_id = record.get("task_id")
        if not isinstance(record.get("completion"), str) or not isinstance(record.get("passed"), bool):
            raise UserError(f"{path} holds no verdicts: give results.jsonl, which eval_humaneval.py leaves")
        if task_id not in problems:
            raise UserError(f"{path} has a sample of {task_id}, which is not among the problems")
        passed, failed = answers.setdefault(task_id, ([], []))
        answer, own = fenced(record["completion"], "python"), passed if record["passed"] else failed
        if record["completion"].strip() and answer not in own:
            own.append(answer)
    return answers


def drawn_pairs(rng, passed, failed, most):
    """Up to so many pairs (passed, failed). An answer is in several of them only where there are too few."""
    n = min(most, max(len(passed), len(failed))) if passed and failed else 0
    passed, failed = (rng.sample(answers, len(answers)) for answers in (passed, failed))
    return [(passed[i % len(passed)], failed[i % len(failed)]) for i in range(n)]


def said(role, content):
    """A message of a chat."""
    return {"role": role, "content": content}


if __name__ == "__main__":
    configurator.run(main, Settings)
