"""What does a model learn from the order of the data? Five orders of one corpus, equal tokens each.

    python -m experiments.order                 an hour: out/order
    python -m experiments.order --max_steps=20 --seeds=2 --max_files=40    a try

The corpus is the small files of the standard library and of the installed packages, so that a context
holds several. The packages that are held out for the measures, see experiments/order_measures.py,
are the same for all arms. A run that was stopped goes on where it was.
"""

import hashlib
import json
import shutil
import sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import configurator
from corpus.documents import Document, read
from experiments.common import (
    begin,
    has_begun,
    pretrain,
    print_differences,
    print_spread,
    print_table,
    run_arms,
    run_stage,
    spread,
)
from ranges import Amount, Count, Natural, Place, Range

# {arm: (the order of its shards, whether attention stays inside each document)}
ARMS = {
    "random": ("random", False),
    "random, masked": ("random", True),
    "alike": ("alike", False),
    "repository, random": ("repository_random", False),
    "repository": ("repository", False),
}
BLOCK_SIZE = 1024  # tokens: nine exercises and three files must fit into a context
# {measure of order_measures.py: the head of its column}
COLUMNS = {
    "bpb": "bits per byte",
    "late_minus_early": "late - early",
    "gain_alike": "gain: alike",
    "gain_random": "random",
    "gain_in_context": "difference",
    "gain_shots": "gain: 8 shots",
    "gain_shuffled": "shuffled",
    "copying": "copying",
}


@dataclass
class Settings:
    """The corpus and the models."""

    # -- corpus
    max_bytes: Amount = 6000  # larger files are left out
    max_files: Count = 400  # of one package
    problems: Count = 300  # exercises on each rung, of which the shots are taken
    # -- models
    seeds: Annotated[int, Range(1, 100)] = 3  # models per arm
    max_steps: Count = 600  # of 4,096 tokens each
    # -- results
    examples: Natural = 60  # files, windows and exercises that a model is measured by
    out_dir: Place = "out/order"  # corpus, shards, checkpoints, summary.json


def main(settings):
    """Write the corpus, train and measure the models, print and write what came out."""
    out = Path(settings.out_dir).resolve()
    prepare(out, settings)
    found = run_arms(out, settings, ARMS, partial(train_and_measure, out, settings))
    print_spread(found, COLUMNS)
    print_differences({arm: found[arm] for arm in ("repository, random", "repository")}, COLUMNS)
    print_shots(found)


# -- what the models are trained on


def prepare(out, settings):
    """Make the corpus, the exercises, the tokenizer and the shards of all orders, as far as they are not there. Raises
    UserError if the folder holds those of other settings."""
    if not has_begun(out, settings):
        write_corpus(out, settings)
        exercises = ("--documents=0", "--chats=0", f"--problems={settings.problems}")
        run_stage("exercises", *exercises, f"--out_dir={out}/exercises")
        run_stage("tokenizer_train.py", f"--sources={out}/corpus", f"--out={out}/tokenizer.json")
        begin(out, settings)
    common = (f"--sources={out}/corpus", f"--tokenizer={out}/tokenizer.json")
    for order in dict.fromkeys(order for order, _ in ARMS.values()):
        path_tokens = [f"--path_tokens={2 * BLOCK_SIZE}"] if order == "alike" else []
        run_stage("prepare_data.py", *common, *path_tokens, f"--order={order}", f"--out_dir={out}/shards-{order}")


def write_corpus(out, settings):
    """Write the Python files of the standard library and of the installed packages as PACKAGE/path: those of a tenth of
    the packages, chosen by the hash of their names, into held-out/, the small ones of the others into corpus/."""
    for folder in ("corpus", "held-out"):
        shutil.rmtree(out / folder, ignore_errors=True)
    n_files = Counter()
    for source in ("stdlib", sysconfig.get_paths()["purelib"]):
        for item in read(source):
            package, *inner = item.where.split("/")
            if (
                not isinstance(item, Document)
                or not item.where.endswith(".py")
                or {"test", "tests", "_vendor"} & set(inner)
            ):
                continue
            is_held_out = hashlib.sha256(package.encode()).digest()[0] < 26  # of 256
            fits = is_held_out or len(item.text) <= settings.max_bytes
            if fits and len(item.text) >= 200 and n_files[package] < settings.max_files:
                n_files[package] += 1
                configurator.write_text(out / ("held-out" if is_held_out else "corpus") / item.where, item.text)


# -- the models


def train_and_measure(out, settings, seed, arm):
    """Train a model of an arm, if that has not been done, and return what order_measures.py says of it."""
    order, doc_mask = ARMS[arm]
    name = f"{arm.replace(', ', '-')}-{seed}"
    measures = out / f"{name}.json"
    if not measures.exists():
        shape = (f"--block_size={BLOCK_SIZE}", f"--doc_mask={doc_mask}", "--eval_tokens=20000")
        pretrain(out / name, settings.max_steps, *shape, f"--data={out}/shards-{order}", f"--seed={seed}")
        held_out = (f"--held_out={out}/held-out", f"--problems={out}/exercises/problems.jsonl")
        how = (f"--examples={settings.examples}", f"--repository={order.startswith('repository')}")
        run_stage("experiments.order_measures", *held_out, *how, f"--checkpoint={out}/{name}", f"--out={measures}")
    return json.loads(measures.read_text(encoding="utf-8"))["measures"]


def print_shots(arms):
    """Print what an exercise costs behind so many others."""
    table = spread(arms)
    print("\nbits per byte of an exercise's solution, behind so many others (with the answers of other exercises)")
    shots = [key for key in next(iter(table.values())) if key.startswith("shots_")]
    rows = []
    for arm, row in table.items():
        means = [(row[key]["mean"], row[key.replace("shots", "shuffled")]["mean"]) for key in shots]
        rows.append([arm, *(f"{right:.3f} ({other:.3f})" for right, other in means)])
    print_table(["", *(key.removeprefix("shots_") for key in shots)], rows, "<" + ">" * len(shots))


if __name__ == "__main__":
    configurator.run(main, Settings)
