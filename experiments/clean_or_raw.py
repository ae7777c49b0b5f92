"""Does cleaning pay? Trains models on a raw corpus, and models on as many tokens of the cleaned one.

    python -m experiments.clean_or_raw    25 minutes: out/clean-or-raw

The raw corpus is the standard library and as many bytes of junk again, of the kinds that crawled
code is full of: near copies of its files, minified code, generated tables, base64. Every model is
scored on files that were held out before the junk was made.
"""

import ast
import base64
import hashlib
import random
import re
import shutil
import statistics
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import configurator
from cores import n_cores
from corpus.documents import Document, read
from evaluation.problems import read_lines
from experiments.common import begin, has_begun, run_stage, side_by_side
from ranges import Count, Place, Range, Seed


@dataclass
class Settings:
    """The corpus and the models."""

    # -- corpus
    junk: Annotated[float, Range(0, 100)] = 1.0  # bytes of junk per byte of the library
    seed: Seed = 1337  # of the junk
    # -- models
    seeds: Annotated[int, Range(1, 1000)] = 3  # models per corpus
    max_steps: Count = 600  # of 4,096 tokens each
    # -- results
    out_dir: Place = "out/clean-or-raw"  # corpora, shards, checkpoints, result.json


def main(settings):
    """Write the corpora, train and score the models, print and write what came out."""
    out = Path(settings.out_dir).resolve()
    if not has_begun(out, settings):
        begin(out, settings)
    shutil.rmtree(out / "raw", ignore_errors=True)
    sizes = write_corpora(out, settings)
    run_stage("tokenizer_train.py", f"--sources={out}/raw", f"--out={out}/tokenizer.json")
    common = (f"--sources={out}/raw", f"--tokenizer={out}/tokenizer.json", "--val_fraction=0.01")
    run_stage("prepare_data.py", *common, "--clean=false", f"--out_dir={out}/shards-raw")
    run_stage("prepare_data.py", *common, f"--out_dir={out}/shards-cleaned")
    models = list(product(("raw", "cleaned"), range(settings.seeds)))
    found = side_by_side(lambda model: train_and_score(settings, out, *model), models, n_cores(), "model")
    bpb = {"raw": found[: settings.seeds], "cleaned": found[settings.seeds :]}
    gains = [raw - cleaned for raw, cleaned in zip(*bpb.values())]
    stderr = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
    dropped = [record["id"].split("/")[0] for record in read_lines(out / "shards-cleaned/dropped.jsonl")]
    n_files = {kind: len(list(out.glob(f"raw/{kind}/**/*.py"))) for kind in sizes}
    result = {
        "bpb": bpb,
        "difference": {"mean": statistics.mean(gains), "stderr": stderr},
        "planted": sizes,
        "kept": {kind: 1 - dropped.count(kind) / max(1, n) for kind, n in n_files.items()},
        "settings": asdict(settings),
        "made_by": configurator.made_by(),
    }
    configurator.write_json(out / "result.json", result)
    print_result(result)


def train_and_score(settings, out, name, seed):
    """Train a model on the corpus of that name, raw or cleaned; its bits per byte on the held-out files."""
    checkpoint, scores, steps = f"{out}/{name}-{seed}", f"{out}/{name}-{seed}.jsonl", settings.max_steps
    schedule = (f"--max_steps={steps}", f"--decay_steps={steps // 5}", "--warmup_steps=30", f"--eval_every={steps}")
    rest = ("--batch_tokens=4096", "--eval_tokens=20000", "--save_every=0", "--resume=auto", f"--seed={seed}")
    run_stage("pretrain.py", *schedule, *rest, f"--data={out}/shards-{name}", f"--out_dir={checkpoint}")
    held_out = (f"--sources={out}/held-out", "--windows=16")
    run_stage("evaluation.score", f"--checkpoint={checkpoint}", *held_out, f"--out={scores}")
    records = list(read_lines(scores))
    return sum(r["score"] * r["bytes"] for r in records) / sum(r["bytes"] for r in records)


def print_result(result):
    """Print what cleaning kept of each kind, and the scores."""
    kept, difference = result["kept"], result["difference"]
    for kind, size in result["planted"].items():
        print(f"{kind:<14}{size / 1e6:>5.1f} MB, {kept[kind]:>6.1%} of the files kept by cleaning")
    print("\nbits per byte on held-out files")
    for name, values in result["bpb"].items():
        each = ", ".join(f"{value:.4f}" for value in values)
        print(f"{name:<14}{statistics.mean(values):.4f}, each model {each}")
    print(f"raw - cleaned {difference['mean']:.4f} +- {difference['stderr'] or 0:.4f} (standard error over seeds)")


def write_corpora(out, settings):
    """Write raw/, with a folder per kind, and held-out/; return the number of characters of each kind."""
    rng, base = random.Random(settings.seed), {}
    for item in read("stdlib"):
        if isinstance(item, Document):
            digest = hashlib.sha256(item.where.encode()).digest()
            # A tenth of the files, 26 of 256, and always the same; the two folders are full of tables.
            if digest[0] < 26 and not re.match("encodings|pydoc_data", item.where):
                configurator.write_text(out / "held-out" / item.where, item.text)
            else:
                base[item.where] = item.text
                configurator.write_text(out / "raw/library" / item.where, item.text)
    sizes = {"library": sum(map(len, base.values()))}
    total = settings.junk * sizes["library"]
    for kind, (share, make) in JUNK.items():
        size, number = 0, 0
        while size < share * total:
            text = make(rng.choice(sorted(base)), base, rng)
            configurator.write_text(out / "raw" / kind / f"file_{number}.py", text)
            size, number = size + len(text), number + 1
        sizes[kind] = size
    return sizes


def near_copy(where, base, rng):
    """A copy of a file with a line above it and one name changed everywhere, as in a fork."""
    text = base[where]
    names = sorted(set(re.findall(r"\b[a-z_]{6,}\b", text)))
    if names:
        text = re.sub(rf"\b{re.escape(rng.choice(names))}\b", f"renamed_{rng.randrange(1000)}", text)
    return f"# fork {rng.randrange(10**6)} of {where}\n{text}"


def minified(where, base, rng):
    """A file without comments and docstrings, indented by one space, its statements joined to very long lines."""
    try:
        tree = ast.parse(base[where])
    except (SyntaxError, RecursionError):
        return f"x={rng.randrange(10**6)}\n"
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [child for child in node.body if not is_text(child)] or [ast.Pass()]
    lines, last_depth, joinable = [], 0, False  # joinable: whether a statement may follow on the last line
    for line in ast.unparse(tree).splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        text = re.sub(r" ?([=+,:<>*/-]) ?", r"\1", line.strip())
        is_simple = not text.endswith(":") and not text.startswith("@")
        if joinable and is_simple and depth == last_depth:
            lines[-1] += ";" + text
        else:
            lines.append(" " * depth + text)
            joinable, last_depth = is_simple, depth
    return "".join(line + "\n" for line in lines)


def is_text(node):
    """Whether a statement is a constant alone, as docstrings are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def table(where, base, rng):
    """A table of 600 rows such as programs write."""
    name = Path(where).stem
    rows = "".join(f"    ({i}, 0x{rng.getrandbits(32):08x}, '{name}_{rng.randrange(10**5)}'),\n" for i in range(600))
    return f"# This file was automatically generated from {where}. Do not edit.\nTABLE = [\n{rows}]\n"


def encoded(where, base, rng):
    """A program that holds a picture as base64."""
    data = base64.b64encode(rng.randbytes(12_000)).decode()
    lines = "\n".join(data[i : i + 76] for i in range(0, len(data), 76))
    return f'"""A picture for {where}."""\nimport base64\n\nPICTURE = base64.b64decode("""\n{lines}\n""")\n'


# {kind of junk: (its share, the function that makes such a file from the file base[where] of the library)}
JUNK = {"copies": (0.4, near_copy), "minified": (0.2, minified), "generated": (0.2, table), "base64": (0.2, encoded)}


if __name__ == "__main__":
    configurator.run(main, Settings)
