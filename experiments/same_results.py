"""Do two versions of the code give the same results? For people who expect no number to move.

    python -m experiments.same_results                         HEAD~1 and the files as they are
    python -m experiments.same_results --before=v1 --after=v2  two commits

Runs a tiny pipeline in both, half a minute: exercises, tokenizer, shards, pretraining, annealing,
tuning, evaluation; in fp32, on one thread of the CPU and without torch.compile, where the same code
gives the same bits. Compared are the exercises and shards, the loss, learning rate and gradient
norm of every step, the validation losses, the weights of the three checkpoints, and what the model
wrote and whether it passed. Exit code 1 where anything differs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import configurator
from configurator import ROOT, UserError
from corpus.documents import Document, read
from evaluation.problems import read_lines
from experiments.common import print_table, run_stage


@dataclass
class Settings:
    """What to compare."""

    # -- versions: anything that names a commit; empty = the files as they are
    before: str = "HEAD~1"  # the version whose results are right
    after: str = ""  # the version whose results are compared with them
    # -- size
    steps: int = 8  # optimizer steps of each of the three training stages


TRAINING = ("pretrain", "anneal", "sft")
NOT_COMPARED = ("step", "sources", "tokens_per_second", "mfu")  # in metrics.jsonl: the last two depend on the clock


def main(settings):
    """Run the pipeline in both versions and compare what it leaves."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        folder = Path(folder)
        write_corpus(folder / "corpus")
        runs = []
        for name, commit in (("before", settings.before), ("after", settings.after)):
            checkout = check_out(commit, folder / f"code-{name}") if commit else ROOT
            runs.append(pool.submit(run_pipeline, checkout, folder / "corpus", folder / name, settings.steps))
        before, after = [run.result() for run in runs]
    rows = compare(before, after)
    print_table(["", "compared", "result"], rows, "<><")
    if any(verdict != "equal" for _, _, verdict in rows):
        sys.exit(1)


def write_corpus(folder):
    """Write every sixth of the standard library's smaller files into a folder: about 1 MB."""
    folder.mkdir()
    library = [item for item in read("stdlib") if isinstance(item, Document) and len(item.text) < 30_000]
    for number, document in enumerate(library[::6]):
        (folder / f"{number:03}.py").write_text(document.text, encoding="utf-8")


def check_out(commit, folder):
    """Write the files of a commit into a folder, and return it. Raises UserError if there is no such commit."""
    command = ["git", "archive", "--format=zip", f"--output={folder}.zip", commit]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"git has no commit {commit!r}: {result.stderr.strip()}")
    shutil.unpack_archive(f"{folder}.zip", folder)
    return folder


def run_pipeline(checkout, corpus, out, steps):
    """Run every stage of a checkout on a small corpus, in the folder out; the results() that it left there."""
    run = partial(run_stage, folder=checkout)
    made, common = f"{out}/exercises", (f"--tokenizer={out}/tokenizer.json", "--val_fraction=0.1", "--num_workers=1")
    exercises = "exercises" if (checkout / "exercises").exists() else "corpus/exercises.py"  # as it was called once
    run(exercises, "--documents=200", "--chats=200", "--problems=24", "--num_workers=1", f"--out_dir={made}")
    run("tokenizer_train.py", f"--sources={corpus}", "--vocab_size=512", f"--out={out}/tokenizer.json")
    run("prepare_data.py", *common, f"--sources={corpus}", f"--out_dir={out}/code")
    run("prepare_data.py", *common, f"--sources={made}/documents.jsonl", "--clean=false", f"--out_dir={out}/pages")
    run("prepare_data.py", *common, f"--sources={made}/chats.jsonl", "--chats", f"--out_dir={out}/chats")

    loop = ["--device=cpu", "--dtype=fp32", "--compile=false", f"--max_steps={steps}", "--log_every=1"]
    loop += [f"--eval_every={max(1, steps // 2)}", "--save_every=0", "--micro_batch=4"]
    model = ("--n_layer=2", "--n_head=4", "--n_kv_head=2", "--n_embd=64", "--block_size=256", "--batch_tokens=2048")
    trunk = (*model, f"--decay_steps={steps // 2}", "--warmup_steps=2", "--best_fit")
    val = f"--val={out}/code,{out}/pages,{out}/chats"
    run("pretrain.py", *loop, *trunk, f"--data={out}/code:1,{out}/pages:2", f"--out_dir={out}/pretrain")
    mixture = f"--data={out}/code:2,{out}/pages:3,{out}/chats:2"
    run("anneal.py", *loop, f"--init={out}/pretrain", mixture, val, "--best_fit", f"--out_dir={out}/anneal")
    run("sft.py", *loop, f"--init={out}/anneal", f"--data={out}/chats", val, "--neftune=5", f"--out_dir={out}/sft")

    test = [f"--problems={made}/problems.jsonl", "--num_workers=2", "--device=cpu"]
    if "--dtype=" in run("eval_humaneval.py", "--help"):
        test.append("--dtype=fp32")  # where there is no such setting, it is fp32
    run("eval_humaneval.py", *test, f"--checkpoint={out}/sft", "--max_new_tokens=60", f"--out_dir={out}/eval-model")
    samples = write_solutions(f"{made}/problems.jsonl", f"{out}/solutions.jsonl")
    run("eval_humaneval.py", *test, f"--samples={samples}", f"--out_dir={out}/eval-solutions")
    return results(out)


def write_solutions(problems, path):
    """Write the problems' own solutions as samples, every third of them wrong: a model of this size passes nothing."""
    with open(path, "w", encoding="utf-8") as f:
        for number, problem in enumerate(read_lines(problems)):
            completion = problem["canonical_solution"] if number % 3 else "    return None\n"
            f.write(json.dumps({"task_id": problem["task_id"], "completion": completion}) + "\n")
    return path


def results(out):
    """{what: {item: value}} of a run, in the order of the pipeline. A value is bytes, a number, text or a tensor."""
    found = {"exercises": {path.name: path.read_bytes() for path in sorted(out.glob("exercises/*.jsonl"))}}
    for name in ("code", "pages", "chats"):
        found[f"shards of {name}"] = {path.name: path.read_bytes() for path in sorted(out.glob(f"{name}/*.bin"))}
    for stage in TRAINING:
        for record in read_lines(out / stage / "metrics.jsonl"):
            step = f"step {record['step']}"
            for key in record:
                if key not in NOT_COMPARED:
                    found.setdefault(f"{stage}: {key}", {})[step] = record[key]
            for folder, scores in record.get("sources", {}).items():
                found.setdefault(f"{stage}: sources", {})[f"{step}, {Path(folder).name}"] = scores
        newest = max((out / stage).glob("step_*"))
        found[f"{stage}: weights"] = torch.load(newest / "model.pt", map_location="cpu", weights_only=True)
    for name in ("eval-model", "eval-solutions"):
        for record in read_lines(out / name / "results.jsonl"):
            for key in ("completion", "passed"):
                found.setdefault(f"{name}: {key}", {})[record["task_id"]] = record[key]
    return found


def compare(before, after):
    """Rows of the table from two results(): what, how many items, "equal" or the first of those that differ."""
    rows = []
    for what in dict.fromkeys([*before, *after]):
        old, new = before.get(what, {}), after.get(what, {})
        items = list(dict.fromkeys([*old, *new]))
        different = [item for item in items if not equal(old.get(item), new.get(item))]
        verdict = "equal"
        if different:
            first = different[0]
            verdict = f"{len(different)} differ, {first}: {shown(old.get(first))} -> {shown(new.get(first))}"
        rows.append([what, str(len(items)), verdict])
    return rows


def equal(a, b):
    """Whether two values are the same to the last bit. A value that is missing, None, equals no other."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and a == b


def shown(value):
    """A value in a few characters, for the table."""
    if value is None:
        return "missing"
    if isinstance(value, torch.Tensor):
        return f"norm {value.double().norm().item():.17g}"
    return f"{len(value):,} bytes" if isinstance(value, bytes) else repr(value)[:80]


if __name__ == "__main__":
    configurator.run(main, Settings)
