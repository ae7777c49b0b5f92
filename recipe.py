"""make demo: every stage in its order on one recipe, the same test after each of the last three, and a report.

It runs the same commands that you would type; each is printed before it starts.
"""

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import configurator
from configurator import UserError
from training.trainer import clock


@dataclass
class Settings:
    recipe: str = "configs/demo.toml"  # the settings of every stage
    out_dir: str = "out/demo"  # the results
    data_dir: str = "data/demo"  # tokenizer, exercises and shards
    processes: int | None = None  # that train together; auto = 2, or 1 where there is one core or a GPU
    started: float = 0.0  # Unix time at which the person started, so that installing counts; 0 = now


LADDER = {"base": "pretrain", "annealed": "anneal", "tuned": "sft"}  # what the test is run on, and the stage it is from


def main(s):
    start = s.started or time.time()
    out, data = Path(s.out_dir), Path(s.data_dir)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    exercises, tokenizer = data / "exercises", data / "tokenizer.json"
    code, pages, chats = data / "stdlib", data / "exercise-pages", data / "exercise-chats"
    stages = {"install": {"seconds": time.time() - start}}

    def stage(name, script, *arguments, processes=1):
        seconds = run(script, s.recipe, *map(str, arguments), processes=processes)
        stages.setdefault(name, {"seconds": 0.0})["seconds"] += seconds

    def train(name, *arguments):
        processes = s.processes or (1 if torch.cuda.is_available() else min(2, os.cpu_count()))
        stage(name, f"{name}.py", *arguments, f"--out_dir={out / name}", processes=processes)
        last = read_lines(out / name / "metrics.jsonl")[-1]
        stages[name] |= {"tokens": last["tokens"], "val_bpb": last["sources"].get(str(code), {}).get("val_bpb")}

    stage("exercises", "exercises", f"--out_dir={exercises}")
    documents = exercises / "documents.jsonl"
    stage("tokenizer_train", "tokenizer_train.py", f"--sources=stdlib,{documents}", f"--out={tokenizer}")
    made_up = ("--filters=false", "--near_dedup=false")  # exercises are short, and like each other by design
    for source, folder, *more in (("stdlib", code), (documents, pages, *made_up), (exercises / "chats.jsonl", chats, "--chats")):  # fmt: skip
        stage(
            "prepare_data",
            "prepare_data.py",
            f"--sources={source}",
            f"--tokenizer={tokenizer}",
            f"--out_dir={folder}",
            *more,
        )
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (code, pages, chats)]
    stages["prepare_data"]["tokens"] = sum(m["splits"][split]["tokens"] for m in manifests for split in m["splits"])
    train("pretrain", f"--data={code}:1,{pages}:2")
    train(
        "anneal", f"--init={out / 'pretrain'}", f"--data={code}:2,{pages}:3,{chats}:2", f"--val={code},{pages},{chats}"
    )
    train("sft", f"--init={out / 'anneal'}", f"--data={chats}", f"--val={code},{pages},{chats}")

    scores = {}
    for name, trained in LADDER.items():
        folder = out / f"eval-{name}"
        problems = exercises / "problems.jsonl"
        stage(
            "evaluation",
            "eval_humaneval.py",
            f"--problems={problems}",
            f"--checkpoint={out / trained}",
            f"--out_dir={folder}",
        )
        result = json.loads((folder / "summary.json").read_text())
        scores[name] = {key: result[key] for key in ("pass@1", "stderr", "families")} | {"n": result["n_problems"]}

    summary = {
        "stages": {
            name: {"seconds": round(v["seconds"], 1), "tokens": v.get("tokens"), "val_bpb": v.get("val_bpb")}
            for name, v in stages.items()
        },
        "exercises": scores,
        "total_seconds": round(time.time() - start, 1),
        "torch": importlib.metadata.version("torch"),
        "cores": os.cpu_count(),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(out / "summary.json", summary)
    run(
        "experiments.plot",
        f"--runs={','.join(str(out / name) for name in LADDER.values())}",
        "--follow",
        f"--out={out / 'loss.png'}",
    )
    run("experiments.report", f"--demo={out}", f"--problems={exercises / 'problems.jsonl'}")
    print_summary(summary, out)


def run(script, *arguments, processes=1):
    """Run a script of this repository as a person would; seconds taken. Its error line is already on the screen."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    shown = ["torchrun", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    print("\n$ " + shlex.join([*shown, script, *arguments]), flush=True)
    start = time.time()
    threads = {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // processes))}
    code = subprocess.run(
        [sys.executable, *launcher, script, *arguments], cwd=Path(__file__).parent, env={**threads, **os.environ}
    ).returncode
    if code:
        raise UserError(f"{script} ended with exit code {code}")
    return time.time() - start


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def print_summary(summary, out):
    print(f"\n{'stage':<18}{'time':>8}{'tokens':>14}{'stdlib bpb':>12}")
    for name, row in summary["stages"].items():
        tokens = f"{row['tokens']:,}" if row["tokens"] else ""
        bpb = f"{row['val_bpb']:.3f}" if row["val_bpb"] else ""
        print(f"{name:<18}{clock(row['seconds']):>8}{tokens:>14}{bpb:>12}")
    print(f"{'total':<18}{clock(summary['total_seconds']):>8}\n")
    families = list(summary["exercises"]["base"]["families"])
    print(f"{'pass@1':<18}{'all':>16}" + "".join(f"{family:>11}" for family in families))
    for name, score in summary["exercises"].items():
        cells = "".join(f"{score['families'][family]['pass@1']:>11.0%}" for family in families)
        print(f"{name:<18}{score['pass@1']:>8.1%} +- {score['stderr']:.1%}{cells}")
    n = summary["exercises"]["base"]["n"]
    print(f"on {n} exercises whose compositions were in no training data\n")
    print(f"""results      {out}/report.html  {out}/report.md  {out}/summary.json  {out}/loss.png
checkpoints  {out}/pretrain  {out}/anneal  {out}/sft

try next     .venv/bin/python sample.py --checkpoint={out}/sft --chat --temperature=0 --prompt="Write a Python function \\`select_prices(prices)\\`.
Keep the prices that are above 7, then add 3 to each price, and return the sum."
             README.md, for models of 124 M to 1 B parameters""")


if __name__ == "__main__":
    configurator.run(main, Settings)
