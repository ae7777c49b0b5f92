"""Does cleaning pay? The same model on the same number of tokens of a raw corpus and of what cleaning leaves of it.

    python experiments/clean_or_raw.py          table and out/clean-or-raw/result.json, some 25 minutes on two cores

The raw corpus is the standard library and as many bytes of junk again, of the kinds that crawled code is full of: near
copies of its files, minified code, generated tables, base64. Every model is scored on files that were held out before
the junk was made.
"""

import ast
import base64
import concurrent.futures
import hashlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import configurator
from configurator import UserError
from corpus.documents import Document, read

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Settings:
    out_dir: str = "out/clean-or-raw"  # corpora, shards, checkpoints, result.json
    seeds: int = 3  # models per corpus
    max_steps: int = 600  # of 4,096 tokens each
    junk: float = 1.0  # bytes of junk per byte of the library
    seed: int = 1337  # of the junk


SHARES = {"copies": 0.4, "minified": 0.2, "generated": 0.2, "base64": 0.2}  # of the junk


def main(s):
    out = Path(s.out_dir).resolve()
    shutil.rmtree(out, ignore_errors=True)
    sizes = write_corpora(out, s)
    run("tokenizer_train.py", f"--sources={out / 'raw'}", f"--out={out / 'tokenizer.json'}")
    common = (f"--sources={out / 'raw'}", f"--tokenizer={out / 'tokenizer.json'}", "--val_fraction=0.01")
    run("prepare_data.py", *common, f"--out_dir={out / 'shards-raw'}", "--clean=false")
    run("prepare_data.py", *common, f"--out_dir={out / 'shards-cleaned'}")
    jobs = [(name, seed) for seed in range(s.seeds) for name in ("raw", "cleaned")]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        scores = dict(zip(jobs, pool.map(lambda job: trained_and_scored(s, out, *job), jobs)))
    bpb = {name: [scores[name, seed] for seed in range(s.seeds)] for name in ("raw", "cleaned")}
    differences = [raw - cleaned for raw, cleaned in zip(bpb["raw"], bpb["cleaned"])]
    result = {
        "bpb": bpb,
        "difference": summary(differences),
        "planted": sizes,
        "kept": kept_of(out),
        "settings": asdict(s),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(out / "result.json", result)
    print_result(result)


def write_corpora(out, s):
    """raw/ with a folder per kind, held-out/; the bytes of each."""
    rng = random.Random(s.seed)
    library = {d.where: d.text for d in read("stdlib") if isinstance(d, Document)}
    held_out = {where for where in library if first_byte(where) < 26 and not re.match("encodings|pydoc_data", where)}
    base = {where: text for where, text in library.items() if where not in held_out}
    files = {f"library/{where}": text for where, text in base.items()}
    total = s.junk * sum(map(len, base.values()))
    for kind, share in SHARES.items():
        size, number = 0, 0
        while size < share * total:
            text = JUNK[kind](rng.choice(sorted(base)), base, rng)
            files[f"{kind}/file_{number}.py"] = text
            size, number = size + len(text), number + 1
    for where, text in files.items():
        write(out / "raw" / where, text)
    for where in held_out:
        write(out / "held-out" / where, library[where])
    return {kind: sum(len(t) for w, t in files.items() if w.startswith(f"{kind}/")) for kind in ("library", *SHARES)}


def first_byte(text):
    return hashlib.sha256(text.encode()).digest()[0]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def near_copy(where, base, rng):
    """A fork: another header, one name changed everywhere."""
    text = base[where]
    names = sorted({name for name in re.findall(r"\b[a-z_]{6,}\b", text)})
    if names:
        text = re.sub(rf"\b{re.escape(rng.choice(names))}\b", f"renamed_{rng.randrange(1000)}", text)
    return f"# fork {rng.randrange(10**6)} of {where}\n{text}"


def minified(where, base, rng):
    """No comments and docstrings, one space of indentation, simple statements joined to lines of thousands of characters."""
    try:
        tree = ast.parse(base[where])
    except (SyntaxError, RecursionError):
        return f"x={rng.randrange(10**6)}\n"
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))] or [ast.Pass()]  # fmt: skip
    lines = []
    for line in ast.unparse(tree).splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        text = re.sub(r" ?([=+,:<>*/-]) ?", r"\1", line.strip())
        simple = not text.endswith(":") and not text.startswith("@")
        if lines and simple and lines[-1][0] == depth and lines[-1][2]:
            lines[-1][1] += ";" + text
        else:
            lines.append([depth, text, simple])
    return "".join(" " * depth + text + "\n" for depth, text, _ in lines)


def generated(where, base, rng):
    name = Path(where).stem
    rows = "".join(f"    ({i}, 0x{rng.getrandbits(32):08x}, '{name}_{rng.randrange(10**5)}'),\n" for i in range(600))
    return f"# This file was automatically generated from {where}. Do not edit.\nTABLE = [\n{rows}]\n"


def encoded(where, base, rng):
    data = base64.b64encode(rng.randbytes(12_000)).decode()
    lines = "\n".join(data[i : i + 76] for i in range(0, len(data), 76))
    return f'"""A picture for {where}."""\nimport base64\n\nPICTURE = base64.b64decode("""\n{lines}\n""")\n'


JUNK = {"copies": near_copy, "minified": minified, "generated": generated, "base64": encoded}


def trained_and_scored(s, out, name, seed):
    """Bits per byte, over the held-out files, of a model trained on one of the corpora."""
    checkpoint = out / f"{name}-{seed}"
    steps = (
        f"--max_steps={s.max_steps}",
        f"--decay_steps={s.max_steps // 5}",
        "--warmup_steps=30",
        "--batch_tokens=4096",
    )
    more = ("--eval_tokens=20000", f"--eval_every={s.max_steps}", "--save_every=0", f"--seed={seed}")
    run("pretrain.py", f"--data={out / f'shards-{name}'}", f"--out_dir={checkpoint}", *steps, *more)
    scores = out / f"{name}-{seed}.jsonl"
    run("evaluation.score", f"--checkpoint={checkpoint}", f"--sources={out / 'held-out'}", f"--out={scores}", "--windows=16")
    records = [json.loads(line) for line in scores.read_text().splitlines()]
    return sum(r["score"] * r["bytes"] for r in records) / sum(r["bytes"] for r in records)


def run(script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    result = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if result.returncode:
        raise UserError(f"{script} ended with exit code {result.returncode}: {result.stderr.strip().splitlines()[-1]}")
    print(f"{script} {' '.join(arguments[-2:])}", flush=True)


def kept_of(out):
    """The share of files of each kind that cleaning kept."""
    dropped = [json.loads(line)["id"].split("/")[0] for line in open(out / "shards-cleaned/dropped.jsonl")]
    kinds = {path.name: sum(1 for _ in path.rglob("*.py")) for path in (out / "raw").iterdir()}
    return {kind: 1 - dropped.count(kind) / n for kind, n in kinds.items()}


def summary(values):
    return {"mean": statistics.mean(values), "stderr": statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None}  # fmt: skip


def print_result(result):
    print(f"\n{'planted':<12}{'MB':>8}{'files kept':>12}")
    for kind, size in result["planted"].items():
        print(f"{kind:<12}{size / 1e6:>8.1f}{result['kept'][kind]:>12.1%}")
    print(f"\n{'corpus':<12}{'bits per byte on held-out files':>32}")
    for name, values in result["bpb"].items():
        print(f"{name:<12}{statistics.mean(values):>8.4f}   ({', '.join(f'{v:.4f}' for v in values)})")
    difference = result["difference"]
    print(f"raw - cleaned {difference['mean']:.4f} +- {difference['stderr'] or 0:.4f} (standard error over seeds)")


if __name__ == "__main__":
    configurator.run(main, Settings)
