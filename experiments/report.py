"""The demo's results as one page: python experiments/report.py --demo=out/demo writes report.html and report.md."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import configurator
import pages
from configurator import UserError
from training.trainer import clock


@dataclass
class Settings:
    demo: str = "out/demo"  # what demo.py left there
    problems: str = "data/demo/exercises/problems.jsonl"  # the problems that were tested on


def main(s):
    out = Path(s.demo)
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        problems = {p["task_id"]: p for p in map(json.loads, Path(s.problems).read_text(encoding="utf-8").splitlines())}
        results = {name: read_results(out / f"eval-{name}" / "results.jsonl") for name in summary["exercises"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out} does not hold the results of a demo: {error}") from None
    pages.write(out / "report", contents(summary, problems, results, out / "loss.png"))
    print(f"report -> {out / 'report.html'}  {out / 'report.md'}")


def read_results(path):
    return {r["task_id"]: r for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def contents(summary, problems, results, image):
    """The report as blocks of pages.py."""
    scores = summary["exercises"]
    first = next(iter(scores.values()))
    families = list(first["families"])
    yield "title", "A small code model, from nothing"
    yield (
        "text",
        (
            f"Trained in {clock(summary['total_seconds'])} minutes on {summary['cores']} CPU cores, PyTorch {summary['torch']}. "
            f"Tested after each stage on {first['n']} exercises whose compositions of operations were in no training data: "
            "the share of first answers that pass the exercise's tests, with the standard error."
        ),
    )
    yield "heading", "The ladder: pass@1 on held-out exercises"
    rows = [[name, f"{v['pass@1']:.1%} ± {v['stderr']:.1%}", *(f"{v['families'][f]['pass@1']:.0%}" for f in families)] for name, v in scores.items()]  # fmt: skip
    yield "table", (["model", "all", *families], rows)
    yield "heading", "Loss through the stages"
    yield "image", image
    yield (
        "text",
        (
            "Pretraining runs at a constant learning rate and ends undecayed; the anneal brings the rate down, and the loss "
            "drops with it; then the model is tuned on conversations, whose answers alone count."
        ),
    )
    yield "heading", "Time and tokens"
    yield (
        "table",
        (
            ["stage", "time", "tokens", "bits per byte on unseen library files"],
            [
                [
                    name,
                    clock(v["seconds"]),
                    f"{v['tokens']:,}" if v["tokens"] else "",
                    f"{v['val_bpb']:.3f}" if v["val_bpb"] else "",
                ]
                for name, v in summary["stages"].items()
            ],
        ),
    )
    yield "heading", "What they wrote"
    shown, last = [], list(scores)[-1]
    for family in families:
        ids = [task for task in problems if problems[task]["family"] == family and task in results[last]]
        failed = [task for task in ids if not results[last][task]["passed"]]
        shown += ids[:1] + [task for task in failed[:1] if task != ids[0]]
    yield "text", f"The first exercise of each family, and the first that the {last} model failed, where it failed one."
    for task in shown:
        verdicts = ", ".join(f"{name}: {results[name][task]['result']}" for name in scores)
        yield "text", f"{task}, {problems[task]['level']} operations - {verdicts}"
        yield (
            "code",
            f"{problems[task]['prompt'].rstrip()}\n\n# {last}:\n{results[last][task]['completion'].strip(chr(10))}\n",
        )


if __name__ == "__main__":
    configurator.run(main, Settings)
