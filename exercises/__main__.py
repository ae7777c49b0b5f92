"""Python exercises without end: everyday operations, alone and put together, with docstrings and tests.

    python -m exercises --out_dir=data/exercises
    python -m exercises --documents=2e6 --seed=7

Leaves documents.jsonl (textbook pages), chats.jsonl (conversations), problems.jsonl (tests in
HumanEval's shape, on six rungs: each differs from what is trained on in one respect), gaps.jsonl
(such problems with a line, or with several, cut out of the solution) and, if asked, practice.jsonl
(tests of what is trained on: operations put together). Training on textbooks that are made up is
an idea of phi-1's authors (arXiv:2306.11644), who had a language model write them; here they come
from tables, exercises/operations/, that a person can extend.
"""

import needs  # noqa: F401

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

import configurator
from cores import n_cores
from corpus.parallel import mapped
from exercises import making, views
from ranges import Natural, Place, Seed, Workers
from shards import WholeFile, exclusive


@dataclass
class Settings:
    """How many exercises, and where to."""

    # -- results
    out_dir: Place = "data/exercises"  # documents.jsonl, chats.jsonl, problems.jsonl, gaps.jsonl
    documents: Natural = 40_000  # exercises as textbook pages
    chats: Natural = 16_000  # exercises as conversations
    problems: Natural = 100  # exercises as test problems, on each rung of the ladder; twice as many gaps
    practice: Natural = 0  # exercises with tests to learn from, for grpo.py: practice.jsonl
    # -- how they are made
    seed: Seed = 1337  # another seed, other exercises; which compositions are tested stays
    num_workers: Workers = 0  # processes; 0 = one per core; the files do not depend on it


PART = 200  # exercises that a worker makes at a time


def main(settings):
    """Write the files, and made_by.json."""
    out, n_problems = Path(settings.out_dir), settings.problems * len(making.LADDER)
    with exclusive(out):
        for name in ("documents", "chats"):
            write(out / f"{name}.jsonl", {name: getattr(settings, name)}, settings)
        write(out / "problems.jsonl", dict.fromkeys(making.LADDER, settings.problems), settings)
        write(out / "gaps.jsonl", dict.fromkeys(views.GAPS, n_problems), settings)
        if settings.practice:
            write(out / "practice.jsonl", {making.PRACTICE: settings.practice}, settings)
        configurator.write_json(out / "made_by.json", {"settings": asdict(settings), "made_by": configurator.made_by()})
    n_gaps = n_problems * len(views.GAPS)
    what = f"{settings.documents:,} documents, {settings.chats:,} chats, {n_problems:,} problems, {n_gaps:,} gaps"
    print(f"{what} -> {out}")


def write(path, counts, settings):
    """Write the exercises of one or more views as lines of JSON; the file has its name only when it is whole. counts:
    {view: number of exercises}."""
    num_workers = settings.num_workers or n_cores()
    file = WholeFile(path)
    try:
        with tqdm(total=sum(counts.values()), desc=path.stem, unit="exercise") as bar:
            for view, count in counts.items():
                parts = [range(count)[start : start + PART] for start in range(0, count, PART)]
                # A worker begins with partial(views.record, view, seed), which makes the exercise of a number.
                for lines in mapped(json_lines, parts, num_workers, partial, views.record, view, settings.seed):
                    file.write("".join(lines).encode())
                    bar.update(len(lines))
        file.close()
    except BaseException:
        file.abort()
        raise


def json_lines(record, numbers):
    """record(number) of each number, as a line of JSON."""
    return [json.dumps(record(number), ensure_ascii=False) + "\n" for number in numbers]


if __name__ == "__main__":
    configurator.run(main, Settings)
