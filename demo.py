"""make demo: every stage in its order on one recipe, then a picture, samples and a summary.

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

import configurator
from configurator import UserError
from training.trainer import clock

PROMPTS = (
    "def read_file(path):\n    ",
    "class Stack:\n    ",
    "import os\nimport sys\n\ndef main(",
    "    for name in sorted(",
)


@dataclass
class Settings:
    recipe: str = "configs/demo.toml"  # the settings of every stage
    out_dir: str = "out/demo"  # the results
    data_dir: str = "data/demo"  # tokenizer and shards
    started: float = 0.0  # Unix time at which the person started, so that installing counts; 0 = now


def main(s):
    start = s.started or time.time()
    out, data = Path(s.out_dir), Path(s.data_dir)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tokenizer, shards, trunk = data / "tokenizer.json", data / "stdlib", out / "pretrain"
    stages = {"install": {"seconds": time.time() - start}}

    def stage(name, *arguments):
        stages[name] = {"seconds": run(f"{name}.py", s.recipe, *arguments)}

    stage("tokenizer_train", f"--out={tokenizer}")
    stage("prepare_data", f"--tokenizer={tokenizer}", f"--out_dir={shards}")
    stages["prepare_data"]["tokens"] = sum(
        split["tokens"] for split in read_json(shards / "manifest.json")["splits"].values()
    )
    stage("pretrain", f"--data={shards}", f"--out_dir={trunk}")
    metrics = [json.loads(line) for line in (trunk / "metrics.jsonl").read_text().splitlines()]
    stages["pretrain"] |= {"tokens": metrics[-1]["tokens"], "val_bpb": metrics[-1]["val_bpb"]}
    run("experiments/plot.py", f"--runs={trunk}", f"--out={out / 'loss.png'}")
    stages["sample"] = {"seconds": write_samples(trunk, out / "samples.txt")}

    summary = {
        "stages": {
            name: {"seconds": round(v["seconds"], 1), "tokens": v.get("tokens"), "val_bpb": v.get("val_bpb")}
            for name, v in stages.items()
        },
        "total_seconds": round(time.time() - start, 1),
        "torch": importlib.metadata.version("torch"),
        "cores": os.cpu_count(),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(out / "summary.json", summary)
    print_summary(summary, out, trunk)


def run(script, *arguments, **options):
    """Run a script of this repository as a person would; seconds taken. Its error line is already on the screen."""
    print("\n$ python " + shlex.join([script, *arguments]), flush=True)
    start = time.time()
    code = subprocess.run([sys.executable, script, *arguments], cwd=Path(__file__).parent, **options).returncode
    if code:
        raise UserError(f"{script} ended with exit code {code}")
    return time.time() - start


def write_samples(checkpoint, path):
    """What the model makes of each prompt, shown and kept in a file."""
    start = time.time()
    with open(path, "w", encoding="utf-8") as f:
        for prompt in PROMPTS:
            run(
                "sample.py",
                f"--checkpoint={checkpoint}",
                f"--prompt={prompt}",
                "--max_new_tokens=120",
                "--temperature=0.8",
                stdout=f,
                stderr=subprocess.DEVNULL,
            )
            f.write("-" * 80 + "\n")
            f.flush()  # the next process writes to the same file
    print(path.read_text(encoding="utf-8"))
    return time.time() - start


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def print_summary(summary, out, trunk):
    print(f"\n{'stage':<18}{'time':>8}{'tokens':>14}{'val bpb':>10}")
    for name, row in summary["stages"].items():
        tokens = f"{row['tokens']:,}" if row["tokens"] else ""
        print(
            f"{name:<18}{clock(row['seconds']):>8}{tokens:>14}{row['val_bpb'] and format(row['val_bpb'], '.3f') or '':>10}"
        )
    print(f"{'total':<18}{clock(summary['total_seconds']):>8}\n")
    print(f"""results      {out}/summary.json  {out}/loss.png  {out}/samples.txt
checkpoint   {trunk}

try next     .venv/bin/python sample.py --checkpoint={trunk} --prompt="def main():"
             .venv/bin/python pretrain.py configs/demo.toml --data=data/demo/stdlib --out_dir=out/longer --max_steps=2000
             README.md, for models of 124 M to 1 B parameters""")


if __name__ == "__main__":
    configurator.run(main, Settings)
