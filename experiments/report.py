"""The demo's results as one page: python experiments/report.py --demo=out/demo writes report.html and report.md."""

import base64
import html
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import configurator
from configurator import UserError
from training.trainer import clock


@dataclass
class Settings:
    demo: str = "out/demo"  # what demo.py left there
    problems: str = "data/demo/exercises/problems.jsonl"  # the problems that were tested on


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{background:#f5f5f5;padding:.8rem;overflow-x:auto}"""


def main(s):
    out = Path(s.demo)
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        problems = {p["task_id"]: p for p in map(json.loads, Path(s.problems).read_text(encoding="utf-8").splitlines())}
        results = {name: read_results(out / f"eval-{name}" / "results.jsonl") for name in summary["exercises"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out} does not hold the results of a demo: {error}") from None
    blocks = list(contents(summary, problems, results))
    image = base64.b64encode((out / "loss.png").read_bytes()).decode()
    write(out / "report.md", "".join(markdown(*block) for block in blocks))
    body = "".join(page(*block, image=image) for block in blocks)
    write(
        out / "report.html",
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>WizardLearner demo</title><style>{STYLE}</style>{body}</html>\n',
    )
    print(f"report -> {out / 'report.html'}  {out / 'report.md'}")


def read_results(path):
    return {r["task_id"]: r for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def write(path, text):
    path.with_suffix(path.suffix + ".tmp").write_text(text, encoding="utf-8")
    path.with_suffix(path.suffix + ".tmp").replace(path)


def contents(summary, problems, results):
    """The report as blocks: ("title" | "heading" | "text" | "table" | "code" | "image", content)."""
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
    yield "image", "loss.png"
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


def markdown(kind, content):
    if kind == "table":
        head, rows = content
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines) + "\n"
    return {"title": f"# {content}\n\n", "heading": f"## {content}\n\n", "code": f"```python\n{content}```\n\n",
            "image": f"![loss]({content})\n\n", "text": f"{content}\n\n"}[kind]  # fmt: skip


def page(kind, content, image):
    if kind == "table":
        head, rows = content
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><tr>{cells}</tr>{lines}</table>\n"
    if kind == "image":
        return f'<img alt="loss, bits per byte and learning rate over tokens" src="data:image/png;base64,{image}">\n'
    tag = {"title": "h1", "heading": "h2", "text": "p", "code": "pre"}[kind]
    return f"<{tag}>{html.escape(content)}</{tag}>\n"


if __name__ == "__main__":
    configurator.run(main, Settings)
