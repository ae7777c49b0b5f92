"""The page at the end of a recipe: the scores of its models, loss, time, and what they wrote.

python -m experiments.report --recipe=out/demo          writes report.html and report.md there
"""

import json
from dataclasses import dataclass
from pathlib import Path

import configurator
import pages
from configurator import UserError
from evaluation.problems import read_lines, read_problems
from training.log import clock

# What there is to see in the loss of a stage.
LOSS = {
    "pretrain": "Pretraining keeps the learning rate high.",
    "anneal": "The anneal brings the learning rate down, and the loss drops with it.",
    "sft": "Then the model is tuned on conversations, in which only the answers count.",
}


@dataclass
class Settings:
    """The settings of the report."""

    # -- report
    recipe: str = "out/demo"  # the out_dir of a recipe that has run


def main(settings):
    """Write the report of a recipe's summary.json."""
    out = Path(settings.recipe)
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        answers = {name: first_answers(score["results"]) for name, score in summary["exercises"].items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out} does not hold the results of a recipe: {error}") from None
    pages.write(out / "report", contents(summary, answers, out / "loss.png"))
    print(f"report -> {out / 'report.html'}  {out / 'report.md'}")


def first_answers(folder):
    """{task_id: record of results.jsonl} of an evaluation's folder, the first sample of each problem."""
    records = list(read_lines(Path(folder, "results.jsonl")))
    return {record["task_id"]: record for record in reversed(records)}  # the first overwrites those behind it


def contents(summary, answers, image):
    """The report as blocks of pages.py. answers: {model: first_answers()}; image: the path of the loss curves."""
    scores, seconds = summary["exercises"], summary["total_seconds"]
    time = f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
    yield "title", "A small code model, from nothing"
    yield "text", f"Trained in {time} on a machine with {summary['cores']} CPU cores, with PyTorch {summary['torch']}."
    if scores:
        n_problems = next(iter(scores.values()))["n"]
        yield "heading", "pass@1 after each stage"
        yield "table", score_table(scores, summary["families"])
        yield "text", f"The share of {n_problems} problems whose first answer passes all tests, ± its standard error."
    if image.exists():
        yield "heading", "Loss through the stages"
        yield "image", image
        yield "text", " ".join(LOSS[name] for name in summary["stages"] if name in LOSS)
    rows = []
    for name, row in summary["stages"].items():
        tokens = f"{row['tokens']:,}" if row["tokens"] else ""
        bpb = f"{row['val_bpb']:.3f}" if row["val_bpb"] else ""
        rows.append([name, clock(row["seconds"]), tokens, bpb])
    measured = f"bits per byte of unseen text in {summary['bpb_of']}" if summary["bpb_of"] else "bits per byte"
    yield "heading", "Time and tokens"
    yield "table", (["stage", "time", "tokens", measured], rows)
    if scores:
        yield "heading", "What they wrote"
        yield from answer_blocks(scores, answers)


def score_table(scores, families):
    """A row per model: all problems, and each family of problems where the file names families."""
    rows = []
    for name, score in scores.items():
        found = [score["families"].get(family) for family in families]
        by_family = [f"{family['pass@1']:.0%}" if family else "" for family in found]
        rows.append([name, f"{score['pass@1']:.1%} ± {score['stderr']:.1%}", *by_family])
    return ["model", "all", *families], rows


def answer_blocks(scores, answers):
    """The first problem of each family, and the first that the last model failed, with every model's verdict."""
    last = list(scores)[-1]
    about = json.loads(Path(scores[last]["results"], "summary.json").read_text(encoding="utf-8"))["settings"]
    problems = read_problems(about["problems"] or "data/HumanEval.jsonl.gz", about["mbpp_ids"])
    shown = {}  # (family, "any" or "failed"): the first such problem
    for task, problem in problems.items():
        if task in answers[last]:
            shown.setdefault((problem.family, "any"), task)
            if not answers[last][task]["passed"]:
                shown.setdefault((problem.family, "failed"), task)
    yield "text", f"The first problem of each kind, and the first one that the {last} model failed, if there is one."
    for task in dict.fromkeys(shown.values()):
        found = {name: answers[name][task]["result"].rstrip(": ") for name in scores if task in answers[name]}
        verdicts = ", ".join(f"{name}: {result}" for name, result in found.items())
        yield "text", f"{task} - {verdicts}"
        completion = answers[last][task]["completion"].strip("\n")
        yield "code", f"{problems[task].prompt.rstrip()}\n\n# {last}:\n{completion}\n"


if __name__ == "__main__":
    configurator.run(main, Settings)
