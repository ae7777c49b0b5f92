"""What do gaps in the training data bring, and what do they cost? Five arms, equal tokens each.

    python -m experiments.gaps    the results go to out/fim
    python -m experiments.gaps --arms='no gaps,half'    two of the arms
    python -m experiments.gaps --max_steps=20 --documents=2000    a try

The data are the standard library and exercises. All models are scored by the gaps of exercises that
none has seen, and by their bits per byte on held-out text as it stands, from left to right. A run
that was stopped goes on where it was.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import configurator
from configurator import UserError
from corpus.records import read_lines
from exercises.views import GAPS
from experiments.common import begin, has_begun, pretrain, print_spread, run_arms, run_stage
from ranges import Count, Place, Range

# {arm: what makes gaps of its exercises}. The library stays whole: its files are longer than a context, so that the
# parts of a gap would stand in different rows.
HALF = ("--fim_rate=0.5", "--fim_line_rate=1")
ARMS = {
    "no gaps": (),
    "half": HALF,
    "prefix first": (*HALF, "--fim_spm_rate=0"),
    "any character": ("--fim_rate=0.5",),
    "nine tenths": ("--fim_rate=0.9", "--fim_line_rate=1"),
}
# {measure: the head of its column}
COLUMNS = {
    "bpb_library": "bits per byte: library",
    "bpb_exercises": "exercises",
    "one_line": "gaps of one line",
    "several_lines": "of several",
}


@dataclass
class Settings:
    """The data and the models."""

    # -- data
    documents: Count = 32_000  # exercises to learn from
    problems: Count = 50  # exercises on each rung that gaps are cut into, one line and several
    # -- models
    arms: list[str] = field(default_factory=lambda: list(ARMS))  # which; the others are compared with the first
    seeds: Annotated[int, Range(1, 100)] = 3  # models per arm
    max_steps: Count = 600  # of 4,096 tokens each
    # -- results
    out_dir: Place = "out/fim"  # exercises, shards, checkpoints, summary.json


def main(settings):
    """Make the data, train and score the models, print and write what came out."""
    if not settings.arms or set(settings.arms) - set(ARMS):
        raise UserError(f"arms are some of {', '.join(ARMS)}")
    out = Path(settings.out_dir).resolve()
    prepare(out, settings)
    print_spread(run_arms(out, settings, settings.arms, partial(train_and_score, out, settings)), COLUMNS)


def prepare(out, settings):
    """Make the exercises, the tokenizer and the shards of the arms, as far as they are not there. Raises UserError if
    the folder holds those of other settings."""
    if not has_begun(out, settings):
        many = (f"--documents={settings.documents}", f"--problems={settings.problems}", "--chats=0")
        run_stage("exercises", *many, f"--out_dir={out}/exercises")
        sources = f"--sources=stdlib,{out}/exercises/documents.jsonl"
        run_stage("tokenizer_train.py", sources, f"--out={out}/tokenizer.json")
        begin(out, settings)
    common = f"--tokenizer={out}/tokenizer.json"
    run_stage("prepare_data.py", "--sources=stdlib", common, f"--out_dir={out}/library")
    pages = (f"--sources={out}/exercises/documents.jsonl", "--filters=false", "--near_dedup=false", common)
    for arm in settings.arms:
        run_stage("prepare_data.py", *pages, *ARMS[arm], f"--out_dir={out}/pages-{named(arm)}")


def named(arm):
    """An arm as a part of a folder's name."""
    return arm.replace(" ", "-")


def train_and_score(out, settings, seed, arm):
    """Train a model of an arm and let it fill gaps, as far as that has not been done; its measures."""
    run, library, pages = out / f"{named(arm)}-{seed}", f"{out}/library", f"{out}/pages-{named(arm)}"
    # One part library and five parts exercises, as in the demo. A gap that a row's end cuts could not be filled.
    data = (f"--data={library}:1,{pages}:5", "--best_fit", "--eval_tokens=0")
    pretrain(run, settings.max_steps, *data, f"--seed={seed}")
    *_, last = (line for line in read_lines(run / "metrics.jsonl") if "sources" in line)
    measures = {"bpb_library": last["sources"][library]["val_bpb"], "bpb_exercises": last["sources"][pages]["val_bpb"]}
    problems = (f"--problems={out}/exercises/gaps.jsonl", "--max_new_tokens=100", "--num_workers=1", "--smooth=false")
    run_stage("eval_humaneval.py", f"--checkpoint={run}", *problems, f"--out_dir={run}/eval")
    families = json.loads((run / "eval" / "summary.json").read_text(encoding="utf-8"))["families"]
    return measures | {kind: families[kind]["pass@1"] for kind in GAPS}


if __name__ == "__main__":
    configurator.run(main, Settings)
