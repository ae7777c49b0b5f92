"""The page at the end of a recipe: the scores of its models, loss, time, and what they wrote.

python -m experiments.report --recipe=out/demo          writes report.html and report.md there
"""

import collections
import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import configurator
from configurator import ROOT, UserError
from evaluation.problems import read_lines, read_sets
from experiments import seeds
from experiments.common import write_report
from recipe import TRAINING
from training.log import clock

# What there is to see in the loss of a stage.
LOSS = {
    "pretrain": "Pretraining keeps the learning rate high.",
    "anneal": "The anneal brings the learning rate down: here the loss should drop.",
    "sft": "Then the model is tuned on conversations, in which only the answers count.",
    "dpo": "The loss of preferences is of another kind: it begins at ln 2.",
    "reward": "So does that of a reward model.",
}


@dataclass
class Settings:
    """The settings of the report."""

    # -- report
    recipe: str = "out/demo"  # the out_dir of a recipe that has run


def main(settings):
    """Write the report of a recipe's summary.json."""
    out = Path(settings.recipe)

    def blocks_of(summary):
        """The report, with the models' answers."""
        answers = {name: first_answers(score["results"]) for name, score in summary["exercises"].items()}
        return contents(summary, answers, out)

    write_report(out, "a recipe", "python recipe.py configs/demo.toml", blocks_of)


def first_answers(folder):
    """{task_id: record of results.jsonl} of an evaluation's folder, the first sample of each problem."""
    records = list(read_lines(ROOT / folder / "results.jsonl"))
    return {record["task_id"]: record for record in reversed(records)}  # the first overwrites those behind it


def evaluations(scores):
    """{model: summary.json of its evaluation}."""
    read = {}
    for name, score in scores.items():
        read[name] = json.loads((ROOT / score["results"] / "summary.json").read_text(encoding="utf-8"))
    return read


def contents(summary, answers, out):
    """The report as blocks of pages.py. answers: {model: first_answers()}; out: the recipe's folder."""
    scores, seconds = summary["exercises"], summary["total_seconds"]
    time = f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
    yield "title", "A small code model, from nothing"
    yield "text", f"Made in {time} on a machine with {summary['cores']} CPU cores, with PyTorch {summary['torch']}."
    if scores:
        about = evaluations(scores)
        yield "heading", "pass@1 after each stage"
        yield "table", score_table(summary["ladder"], list(scores))
        yield "text", "The share of the problems whose first answer passes all tests, ± its standard error."
        yield from seed_blocks(out, list(scores))
        yield "heading", "What came of the programs"
        yield "table", failure_table(about)
    if (out / "loss.png").exists():
        yield "heading", "Loss through the stages"
        yield "image", out / "loss.png"
        yield "text", " ".join(LOSS[kind] for kind in dict.fromkeys(map(kind_of, summary["stages"])) if kind in LOSS)
    yield "heading", "Time and tokens"
    yield "table", stage_table(summary["stages"], seconds)
    if trained := sum(row["tokens"] for name, row in summary["stages"].items() if kind_of(name) in TRAINING):
        yield "text", f"The model was trained on {trained:,} tokens in all."
    if any(row["val_bpb"] for row in summary["stages"].values()):
        yield "text", f"Bits per byte are those of unseen text in {summary['bpb_of'] or 'all validation sets'}."
    if scores:
        yield "heading", "What they wrote"
        yield from answer_blocks(about, answers)


def kind_of(name):
    """The stage of a row: sft of sft.code, where that has several runs."""
    return name.partition(".")[0]


def score_table(ladder, models):
    """A row per set of problems, a column per model. ladder: {set: {model: {"pass@1", "stderr", "n"}}}."""
    rows = []
    for name, scores in ladder.items():
        n = max(score["n"] for score in scores.values())
        rows.append([name, f"{n:,}", *with_errors(scores, models, "stderr")])
    return ["problems", "how many", *models], rows


def with_errors(scores, models, error):
    """pass@1 ± an error of each model, "" where it was not scored."""
    return [f"{s['pass@1']:.1%} ± {s[error]:.1%}" if (s := scores.get(model)) else "" for model in models]


def seed_blocks(out, models):
    """The same scores over all runs of the recipe that recipe.py --seed has put beside each other."""
    name = re.sub(r"-seed\d+$", "", out.resolve().name)
    folders = [path.parent for path in out.resolve().parent.glob("*/summary.json")]
    runs = [folder for folder in folders if re.fullmatch(rf"{re.escape(name)}(-seed\d+)?", folder.name)]
    runs.sort(key=lambda run: (len(run.name), run.name))
    if len(runs) < 2:
        yield "text", "How much of this is chance, one run does not tell: `--seed=2` makes another one beside it."
        return
    yield "heading", f"pass@1 over {len(runs)} seeds"
    try:
        ladder = seeds.spreads(seeds.read_ladders(list(map(str, runs))))
    except UserError as error:
        yield "text", f"The runs cannot be compared: {error}."
        return
    rows = [[name, *with_errors(row, models, "sd")] for name, row in ladder.items()]
    yield "table", (["problems", *models], rows)
    names = ", ".join(run.name for run in runs)
    yield "text", f"The mean over the runs in {names}, ± the standard deviation between them."
    yield "heading", "What each stage adds"
    rows = []
    for name, row in ladder.items():
        gains = list(row.items())[1:]  # the first model that was scored has none before it
        cells = {model: f"{cell['gain']:+.1%} ± {cell['gain_stderr']:.1%}" for model, cell in gains}
        rows.append([name, *(cells.get(model, "") for model in models[1:])])
    yield "table", (["problems", *models[1:]], rows)
    yield "text", "The mean difference to the stage before, ± its standard error over the runs."


def failure_table(about):
    """A row per reason, a column per model, and the number of programs: what came of all of them, and how many were cut
    off before their end, whatever came of them."""
    columns, reasons = {}, collections.Counter()
    for name, evaluation in about.items():
        columns[name] = {"passed": evaluation["n_passed"], **evaluation["failures"]}
        columns[name] |= {"all": evaluation["n_samples"], "of all, cut off": sum(evaluation["cut_off"].values())}
        reasons.update(evaluation["failures"])
    order = ["passed", *(reason for reason, _ in reasons.most_common()), "all", "of all, cut off"]
    rows = [[row, *(f"{columns[name].get(row, 0):,}" for name in about)] for row in order]
    return ["", *about], rows


def stage_table(stages, total_seconds):
    """A row per stage that ran, and the sum of them."""
    rows = []
    for name, row in stages.items():
        if row["seconds"]:  # installing takes none where it was done before
            tokens = f"{row['tokens']:,}" if row["tokens"] else ""
            rows.append([name, clock(row["seconds"]), tokens, f"{row['val_bpb']:.3f}" if row["val_bpb"] else ""])
    rows.append(["all", clock(total_seconds), "", ""])
    return ["stage", "time", "tokens", "bits per byte"], rows


def answer_blocks(about, answers):
    """The first problem of each family, and the first that the last model failed: what every model wrote, side by side,
    each with its verdict. about: evaluations()."""
    last = list(about)[-1]
    settings = about[last]["settings"]
    with contextlib.chdir(ROOT):
        problems, _ = read_sets(settings["problems"], settings["mbpp_ids"])
    shown = {}  # (family, "any" or "failed"): the first such problem
    for task, problem in problems.items():
        if task in answers[last]:
            # All requests of the chat: how a model answers people can only be judged by reading it.
            shown.setdefault((problem.family, task if problem.family == "requests" else "any"), task)
            if not answers[last][task]["passed"]:
                shown.setdefault((problem.family, "failed"), task)
    yield "text", f"The first problem of each kind, and the first one that the {last} model failed, if there is one."
    if any(problem.family == "requests" for problem in problems.values()):
        yield "text", "Requests are shown as typed: an untuned model sees a docstring and the word def instead."
    for task in dict.fromkeys(shown.values()):
        yield "text", f"{task}:"
        problem = problems[task]
        yield "code", problem.request if problem.family == "requests" else problem.prompt.rstrip()
        yield "texts", [answer(name, answers[name][task]) for name in about if task in answers[name]]


def answer(name, record):
    """(caption, text) of what one model wrote: its name and the verdict over the program."""
    result = record["result"].rstrip(": ")  # "failed: AssertionError: " where an assertion says no more
    return f"{name} - {result}", record["completion"].strip("\n") or "(nothing)"


if __name__ == "__main__":
    configurator.run(main, Settings)
