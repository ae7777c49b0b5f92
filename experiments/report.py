"""The page at the end of a recipe: the scores of its models, loss, time, and what they wrote.

python -m experiments.report --recipe=out/demo          writes report.html and report.md there
"""

import json
from dataclasses import dataclass
from pathlib import Path

import configurator
import pages
from configurator import UserError
from evaluation.problems import read_problems
from training.log import clock


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
        answers = {name: read_answers(score["results"]) for name, score in summary["exercises"].items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out} does not hold the results of a recipe: {error}") from None
    pages.write(out / "report", contents(summary, answers, out / "loss.png"))
    print(f"report -> {out / 'report.html'}  {out / 'report.md'}")


def read_answers(folder):
    """{task_id: record of results.jsonl} of an evaluation's folder, the first sample of each problem."""
    answers = {}
    for line in Path(folder, "results.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        answers.setdefault(record["task_id"], record)
    return answers


def contents(summary, answers, image):
    """The report as blocks of pages.py."""
    scores = summary["exercises"]
    yield "title", "A small code model, from nothing"
    yield (
        "text",
        f"Trained in {clock(summary['total_seconds'])} (minutes, or hours) on a machine with {summary['cores']} CPU cores "
        f"and PyTorch {summary['torch']}.",
    )
    if scores:
        yield "heading", "The ladder: pass@1"
        yield "table", score_table(scores)
        n_problems = next(iter(scores.values()))["n"]
        yield (
            "text",
            f"The share of {n_problems} problems whose first answer passes all tests, with its standard error.",
        )
    if image.exists():
        yield "heading", "Loss through the stages"
        yield "image", image
        yield (
            "text",
            "Pretraining runs at a constant learning rate and ends undecayed; the anneal brings the rate down, and the "
            "loss drops with it; then the model is tuned on conversations, whose answers alone count.",
        )
    yield "heading", "Time and tokens"
    yield "table", stage_table(summary)
    if scores:
        yield "heading", "What they wrote"
        yield from answer_blocks(scores, answers)


def score_table(scores):
    """A row per model: all problems, and each family of problems where the file names families."""
    families = list(next(iter(scores.values()))["families"])
    rows = []
    for name, score in scores.items():
        by_family = [f"{score['families'][family]['pass@1']:.0%}" for family in families]
        rows.append([name, f"{score['pass@1']:.1%} ± {score['stderr']:.1%}", *by_family])
    return ["model", "all", *families], rows


def stage_table(summary):
    """A row per stage."""
    measured = f"bits per byte of unseen text in {summary['bpb_of']}" if summary["bpb_of"] else "bits per byte"
    rows = []
    for name, row in summary["stages"].items():
        tokens = f"{row['tokens']:,}" if row["tokens"] else ""
        bpb = f"{row['val_bpb']:.3f}" if row["val_bpb"] else ""
        rows.append([name, clock(row["seconds"]), tokens, bpb])
    return ["stage", "time", "tokens", measured], rows


def answer_blocks(scores, answers):
    """The first problem of each family, and the first that the last model failed."""
    last = list(scores)[-1]
    about = json.loads(Path(scores[last]["results"], "summary.json").read_text(encoding="utf-8"))["settings"]
    problems = read_problems(about["problems"] or "data/HumanEval.jsonl.gz", about["mbpp_ids"])
    shown, families, failed_families = [], set(), set()
    for task, problem in problems.items():
        if task not in answers[last]:
            continue
        is_first_failure = not answers[last][task]["passed"] and problem.family not in failed_families
        if problem.family not in families or is_first_failure:
            shown.append(task)
        families.add(problem.family)
        if is_first_failure:
            failed_families.add(problem.family)
    yield "text", f"The first problem of each kind, and the first that the {last} model failed, if it failed one."
    for task in shown:
        verdicts = ", ".join(f"{name}: {answers[name][task]['result']}" for name in scores)
        yield "text", f"{task} - {verdicts}"
        completion = answers[last][task]["completion"].strip("\n")
        yield "code", f"{problems[task].prompt.rstrip()}\n\n# {last}:\n{completion}\n"


if __name__ == "__main__":
    configurator.run(main, Settings)
