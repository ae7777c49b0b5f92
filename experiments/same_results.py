"""Do two versions of the code give the same results? For changes that should move no number.

    python -m experiments.same_results    HEAD~1 and the files as they are
    python -m experiments.same_results --before=v1 --after=v2    two commits
    python -m experiments.same_results --folders=../old/out/demo,out/demo

Runs every stage in both versions on a tiny scale, half a minute, in fp32, on one thread of the CPU
and without torch.compile: so the same code gives the same bits. Compares exercises and shards, the
loss, learning rate and gradient norm of every step, validation losses, the weights of the three
checkpoints, what the model wrote and whether it passed. Exit code 1 if anything differs.
"""

import needs  # noqa: F401

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

import configurator
from configurator import ROOT, UserError
from corpus.parallel import submitted
from evaluation.problems import read_lines
from experiments.common import print_table, run_stage
from ranges import Count


@dataclass
class Settings:
    """What to compare."""

    # -- versions: anything that names a commit; empty = the files as they are
    before: str = "HEAD~1"  # the version whose results are right
    after: str = ""  # the version whose results are compared with them
    # -- instead: two folders of results, such as a recipe leaves
    folders: list[str] = field(default_factory=list)  # the right ones, and those that are compared with them
    # -- size
    steps: Count = 8  # optimizer steps of each of the three training stages


TRAINING = ("pretrain", "anneal", "sft")
NOT_COMPARED = ("step", "tokens_per_second", "mfu")  # of metrics.jsonl: the last two depend on the clock


def main(settings):
    """Compare two folders of results, or run the pipeline in both versions and compare what it leaves."""
    if settings.folders:
        if len(settings.folders) != 2:
            raise UserError("--folders=BEFORE,AFTER compares two folders")
        before, after = (results(Path(folder)) for folder in settings.folders)
    else:
        before, after = run_versions(settings)
    rows = compare(before, after)
    print_table(["", "compared", "result"], rows, "<><")
    if any(verdict != "equal" for _, _, verdict in rows):
        sys.exit(1)


def run_versions(settings):
    """The results() of both versions, which run side by side."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        commits, outs = (settings.before, settings.after), (Path(folder, "before"), Path(folder, "after"))
        checkouts = [check_out(commit, f"{out}-code") for commit, out in zip(commits, outs)]
        pairs = list(zip(checkouts, outs))
        ended = dict(submitted(pool, lambda pair: run_pipeline(*pair, steps=settings.steps), pairs))
        return [ended[pair].result() for pair in pairs]


def check_out(commit, folder):
    """Write the files of a commit into a folder and return its path, or return ROOT, the files as they are, if the
    commit is "". Raises UserError if there is no such commit."""
    if not commit:
        return ROOT
    command = ["git", "archive", "--format=zip", f"--output={folder}.zip", commit]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"git has no commit {commit!r}: {result.stderr.strip()}")
    shutil.unpack_archive(f"{folder}.zip", folder)
    return Path(folder)


def run_pipeline(checkout, out, steps):
    """Run every stage of a checkout, which write into the folder out, and return the results() of that folder."""
    library = sysconfig.get_paths()["stdlib"]
    corpus = f"{library}/asyncio,{library}/email,{library}/xml"  # about 1 MB
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
    """Write the problems' own solutions as samples, every third made wrong: no answer of so small a model passes."""
    with open(path, "w", encoding="utf-8") as f:
        for number, problem in enumerate(read_lines(problems)):
            completion = problem["canonical_solution"] if number % 3 else "    return None\n"
            f.write(json.dumps({"task_id": problem["task_id"], "completion": completion}) + "\n")
    return path


def results(out):
    """{what: {item: its fingerprint()}} of a run, in the order of the pipeline."""
    found = {}

    def add(what, item, value):
        """Note a value by its fingerprint."""
        found.setdefault(what, {})[item] = fingerprint(value)

    for name, pattern in (("exercises", "*.jsonl"), ("code", "*.bin"), ("pages", "*.bin"), ("chats", "*.bin")):
        for path in sorted((out / name).glob(pattern)):
            add(f"{name}: files", path.name, path.read_bytes())
    for stage in TRAINING:
        for record in read_lines(out / stage / "metrics.jsonl"):
            for folder, scores in record.pop("sources", {}).items():
                add(f"{stage}: sources", f"step {record['step']}, {Path(folder).name}", scores)
            for key in record:
                if key not in NOT_COMPARED:
                    add(f"{stage}: {key}", f"step {record['step']}", record[key])
        newest = max((out / stage).glob("step_*"))
        for name, tensor in torch.load(newest / "model.pt", map_location="cpu", weights_only=True).items():
            add(f"{stage}: weights", name, tensor)
    for folder in sorted(out.glob("eval-*")):
        for record in read_lines(folder / "results.jsonl"):
            for key in ("completion", "passed"):
                add(f"{folder.name}: {key}", record["task_id"], record[key])
    return found


def fingerprint(value):
    """A value as text that differs if one bit of the value does: of tensors and bytes a hash, else all of the value."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}, {list(value.shape)}, {fingerprint(value.numpy().tobytes())}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes, sha256 {hashlib.sha256(value).hexdigest()[:16]}"
    return repr(value)


def compare(before, after):
    """Rows of the table from two results(): what, how many items, "equal" or the first of those that differ."""
    rows = []
    for what in dict.fromkeys([*before, *after]):
        old, new = before.get(what, {}), after.get(what, {})
        items = list(dict.fromkeys([*old, *new]))
        different = [item for item in items if old.get(item) != new.get(item)]
        verdict = "equal"
        if different:
            first = different[0]
            change = f"{old.get(first, 'missing')[:80]} -> {new.get(first, 'missing')[:80]}"
            verdict = f"{len(different)} differ, {first}: {change}"
        rows.append([what, str(len(items)), verdict])
    return rows


if __name__ == "__main__":
    configurator.run(main, Settings)
