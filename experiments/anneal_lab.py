"""The annealing laboratory: from one trunk, every way down with every mixture.

    python -m experiments.anneal_lab --out_dir=out/lab
    python -m experiments.anneal_lab --shapes=linear,1-sqrt
    python -m experiments.anneal_lab --trunk=out/demo/pretrain

The trunk is the demo's, but for its mixture: the library and exercise pages, no chats, so that an
anneal can bring them. Each arm goes on from it: a shape of the decay x a mixture x a seed, which
is the order in which the arm reads its data, what the trunk has read among them. Averages of
checkpoints cost no training; then the linear arms are tuned on chats. The same command goes on
where an interrupted one stopped. Paths are relative to the repository. Leaves summary.json,
report.html and report.md.
"""

import needs  # noqa: F401

import os
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import configurator
from configurator import ROOT, UserError
from corpus.records import json_lines, read_lines
from experiments import lab_report
from experiments.common import run_stage, side_by_side
from experiments.lab_arms import ADDED, BASELINE, N_SAVED, SHAPES, anneals, averages, run, tunings
from ranges import Amount, Count, Natural, Place, ShareBetween, SmallCount
from recipe import read_steps
from shards import exclusive
from training import checkpoint

RECIPE = "configs/demo.toml"


@dataclass
class Settings:
    """The settings of the laboratory."""

    # -- arms
    shapes: list[str] = field(default_factory=lambda: list(SHAPES))  # of the decay; linear is always among them
    mixtures: list[str] = field(default_factory=lambda: list(ADDED))  # the trunk's own, and with what is added to it
    seeds: SmallCount = 3  # orders of the data
    decay_tokens: Amount = 737_280  # length of an anneal, in whole sixths of so many steps; a fifth of the trunk's
    # every decay ends at this share of the rate: the exponential and the inverse one need one, and all get the same
    floor: ShareBetween = 0.1
    equal_sums: bool = False  # with the first mixture, also as many steps as make the sum of the rates linear's
    sft_steps: Natural = 200  # of tuning the linear arms; 0 = none
    # -- data
    trunk: str = ""  # the out_dir of a trunk, or one of its checkpoints; empty = train one
    trunk_data: str = "data/demo/stdlib:2,data/demo/exercise-pages:1"  # what it is trained on, if it is trained here
    documents: str = "data/demo/exercise-pages"  # the high-quality documents that a mixture adds
    chats: str = "data/demo/exercise-chats"  # the instructions that a mixture adds, and that models are tuned on
    share: ShareBetween = 0.5  # of a mixture that is added
    # -- measuring
    val: str = "data/demo/stdlib,data/demo/exercise-pages,data/demo/exercise-chats"  # the same for all arms
    eval_tokens: Natural = 30_000  # validation tokens per folder and evaluation; 0 = all
    problems: str = "data/demo/exercises/problems.jsonl"  # a file of problems for pass@1
    n_problems: Count = 200  # so many of them, evenly spaced
    dynamics_every: Natural = 30  # steps between lines on how the weights move; 0 = none
    # -- running
    jobs: SmallCount = 2  # arms that are made side by side, each on one thread
    out_dir: Place = "out/lab"  # summary.json, report.html, report.md; arms/ and trunk/


@dataclass
class Lab:
    """What all arms have in common, with everything of the trunk that they must know."""

    out: Path
    trunk: Path  # the checkpoint that the arms go on from
    trunk_data: str
    best_fit: bool
    lr: float
    seed: int
    batch_tokens: int
    rows: int  # of a batch
    steps: int  # of an anneal
    val: str
    problems: Path
    common: tuple[str, ...]  # arguments of every training

    def folder(self, arm):
        """Where an Arm is made."""
        return self.out / "arms" / arm.name


def main(settings):
    """Make and test what is not there yet, then write the summary and the report."""
    os.chdir(ROOT)
    check(settings)
    with exclusive(settings.out_dir):
        lab = begin(settings)
        arms = anneals(settings, lab)
        results = side_by_side(partial(run, lab), arms, settings.jobs, "arm")
        later = averages(settings, lab, arms) + tunings(settings, lab, arms)
        results += side_by_side(partial(run, lab), later, settings.jobs, "arm")
        arms = [result for result in results if result["group"] != "tuned"]
        tuned = [result for result in results if result["group"] == "tuned"]
        about = {"lr": lab.lr, "steps": lab.steps, "batch_tokens": lab.batch_tokens, "trunk": str(lab.trunk)}
        about |= {"settings": asdict(settings), "made_by": configurator.made_by()}
        configurator.write_json(lab.out / "summary.json", {"arms": arms, "tuned": tuned, **about})
    lab_report.main(lab_report.Settings(lab=settings.out_dir))


def check(settings):
    """Raises UserError for a shape or a mixture that there is not, and where linear is not among the shapes."""
    for name, known in (("shapes", SHAPES), ("mixtures", tuple(ADDED))):
        if unknown := set(getattr(settings, name)) - set(known):
            raise UserError(f"{name} are {', '.join(known)}, not {', '.join(sorted(unknown))}")
    if BASELINE not in settings.shapes:
        raise UserError(f"shapes must have {BASELINE}, with which the others are compared")
    if not settings.mixtures:
        raise UserError(f"give at least one of the mixtures {', '.join(ADDED)}")


def begin(settings):
    """The Lab, with a trunk, which is trained unless it is there, and a file of problems."""
    out = Path(settings.out_dir)
    if not settings.trunk:
        train_trunk(settings, out)
    trunk, meta = checkpoint.newest(settings.trunk or out / "trunk")
    trained = meta["settings"]
    batch_tokens = trained["batch_tokens"]
    records = list(read_lines(settings.problems))
    n = min(settings.n_problems, len(records))
    chosen = [records[i * len(records) // n] for i in range(n)]
    problems = out / f"problems-{n}.jsonl"
    configurator.write_text(problems, json_lines(chosen))
    return Lab(
        out=out,
        trunk=trunk,
        trunk_data=trained["data"],
        best_fit=trained.get("best_fit", False),
        lr=trained["lr"],
        seed=trained["seed"],
        batch_tokens=batch_tokens,
        rows=batch_tokens // meta["model"]["block_size"],
        steps=max(1, settings.decay_tokens // batch_tokens // N_SAVED) * N_SAVED,
        val=settings.val,
        problems=problems,
        common=(f"--val={settings.val}", f"--eval_tokens={settings.eval_tokens}"),
    )


def train_trunk(settings, out):
    """Train the demo's model on settings.trunk_data, and make the demo's data before that if they are not there."""
    steps = read_steps([RECIPE])
    for step in steps:
        if step.stage in ("exercises", "tokenizer_train", "prepare_data"):
            files = [step.result / "manifest.json", step.result / "problems.jsonl"]  # what the stages leave
            if not step.result.is_file() and not any(path.exists() for path in files):
                run_stage(configurator.command(step.stage).removeprefix("-m "), *step.files)
    (batch_tokens,) = [step.settings.batch_tokens for step in steps if step.stage == "pretrain"]
    save_every = max(1, settings.decay_tokens // batch_tokens // N_SAVED)
    saving = [f"--save_every={save_every}", f"--keep={N_SAVED}", "--resume=auto"]
    run_stage("pretrain.py", RECIPE, f"--data={settings.trunk_data}", *saving, f"--out_dir={out}/trunk", threads=2)


if __name__ == "__main__":
    configurator.run(main, Settings)
