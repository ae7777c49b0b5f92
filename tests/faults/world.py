"""What the stages read in all cases, the command line of each, and what each leaves when nothing happens to it."""

import importlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cleaning.classifier import BUCKETS_LOG2, Classifier
from tests.conftest import TINY_MODEL, program
from tests.faults.common import Run, Strike, case_folder, recipe_in_forks, result

TRAINING = " ".join(
    "--batch_tokens=256 --micro_batch=4 --max_steps=10 --warmup_steps=2 --log_every=1 --eval_every=4 --save_every=3 "
    "--eval_tokens=512 --compile=false --device=cpu --dtype=fp32 --out_dir=out --resume=auto".split()
)
DATA = "--tokenizer=in/tokenizer.json --val_fraction=0.2 --out_dir=out"
COMMANDS = {
    "exercises": "exercises.__main__ --documents=60 --chats=20 --problems=1 --num_workers=2 --out_dir=out",
    "tokenizer_train": "tokenizer_train --sources=in/src --vocab_size=320 --out=out/tokenizer.json",
    "prepare_data": f"prepare_data --sources=in/src --shard_bytes=20000 --num_workers=1 {DATA}",
    "prepare_data, 2 workers": f"prepare_data --sources=in/src --shard_bytes=30000 --num_workers=2 {DATA}",
    "prepare_data, chats": f"prepare_data --sources=in/chats.jsonl --chats --shard_bytes=4000 --num_workers=1 {DATA}",
    "pretrain": f"pretrain --data=in/docs {' '.join(TINY_MODEL)} {TRAINING}",
    "anneal": f"anneal --init=in/pretrain --data=in/docs:2,in/chats:1 --val=in/docs,in/chats {TRAINING}",
    "sft": f"sft --init=in/anneal --data=in/chats --val=in/docs,in/chats {TRAINING}",
    "eval_humaneval": "eval_humaneval --checkpoint=in/sft --problems=in/problems.jsonl --device=cpu --dtype=fp32 "
    "--max_new_tokens=12 --batch_size=3 --out_dir=out",
    "eval_humaneval, samples": "eval_humaneval --samples=in/samples.jsonl --problems=in/problems.jsonl --out_dir=out",
    "recipe": "recipe recipe.toml --out_dir=CASE/out --processes=1",
}
TRAINED = ("pretrain", "anneal", "sft")
RECIPE = """
[exercises]
documents = 100
chats = 40
problems = 4
num_workers = 1
out_dir = "CASE/out/exercises"
[tokenizer_train]
sources = ["CASE/in/src", "CASE/out/exercises/documents.jsonl"]
vocab_size = 320
out = "CASE/out/tokenizer.json"
[prepare_data]
tokenizer = "CASE/out/tokenizer.json"
val_fraction = 0.2
num_workers = 1
[prepare_data.docs]
sources = ["CASE/in/src"]
out_dir = "CASE/out/docs"
[prepare_data.chats]
sources = ["CASE/out/exercises/chats.jsonl"]
out_dir = "CASE/out/chats"
chats = true
[pretrain]
data = "CASE/out/docs"
n_layer = 1
n_head = 2
n_kv_head = 1
n_embd = 16
block_size = 1024
out_dir = "CASE/out/pretrain"
[sft]
init = "CASE/out/pretrain"
data = "CASE/out/chats"
out_dir = "CASE/out/sft"
[eval_humaneval]
checkpoint = "CASE/out/sft"
problems = "CASE/out/exercises/problems.jsonl"
max_new_tokens = 8
out_dir = "CASE/out/eval"
"""
RECIPE_TRAINING = 'batch_tokens = 1024\nmax_steps = 4\nwarmup_steps = 1\nsave_every = 2\neval_tokens = 1024\ncompile = false\ndevice = "cpu"\ndtype = "fp32"\n'


@dataclass
class World:
    """A folder whose `in` holds what the cases read. unbroken: {stage: its result()}; events: {stage: how many events of
    a Strike its run has}; seconds: {stage: how long it takes}."""

    folder: Path
    unbroken: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)


def build(folder):
    """The World: every stage is run once without being disturbed, on what the ones before it left."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    for command in (*COMMANDS.values(), "experiments.plot", "experiments.report", "torch._inductor"):
        importlib.import_module(command.split()[0])  # whatever a run would import is there before it is forked
    world = World(Path(folder))
    sources(world.folder / "in")
    for stage, where in (("tokenizer_train", ""), ("prepare_data", "docs"), ("prepare_data, chats", "chats")):
        undisturbed(world, stage, where)
    for stage in TRAINED:
        undisturbed(world, stage, stage)
    for stage in COMMANDS:
        if stage not in world.unbroken:
            undisturbed(world, stage)
        half(world, stage)
    return world


def sources(inputs):
    """Write what a person brings: programs, conversations, problems, samples, a recipe."""
    (inputs / "src").mkdir(parents=True)
    for i in range(50):
        (inputs / f"src/file_{i:02}.py").write_text(program(i, lines=10 + i), encoding="utf-8")
    (inputs / "src/copy.py").write_text(program(7, lines=17), encoding="utf-8")
    (inputs / "src/bytes.py").write_bytes(b"x = '\xff'\n")
    chats, problems, samples = [], [], []
    for i in range(80):
        turn = [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} {i}"}]
        chats.append({"messages": turn * (1 + i % 2)})
    for i in range(6):
        prompt = f'def f{i}(x):\n    """Add {i}."""\n'
        test = f"def check(candidate):\n    assert candidate(1) == {i + 1}"
        solution = f"    return x + {i}\n"
        problem = {"prompt": prompt, "entry_point": f"f{i}", "canonical_solution": solution, "test": test}
        problems.append({"task_id": f"T/{i}", **problem})
        samples.append({"task_id": f"T/{i}", "completion": solution if i % 2 else "    return x\n"})
    for name, records in (("chats", chats), ("problems", problems), ("samples", samples)):
        (inputs / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = RECIPE.replace('out_dir = "CASE/out/pretrain"\n', f'out_dir = "CASE/out/pretrain"\n{RECIPE_TRAINING}')
    text = text.replace('out_dir = "CASE/out/sft"\n', f'out_dir = "CASE/out/sft"\n{RECIPE_TRAINING}')
    (inputs / "recipe.toml").write_text(text)
    (inputs / "prompts").mkdir()
    (inputs / "prompts/say.pre.prompt").write_text("Please.\nAnswer this.\n")
    files = sorted(path.name for path in (inputs / "src").iterdir())
    scores = [{"id": name, "score": number / 10} for number, name in enumerate(files)]
    (inputs / "scores.jsonl").write_text("".join(json.dumps(score) + "\n" for score in scores))
    weights = np.zeros(1 << BUCKETS_LOG2, np.float32)
    weights[:1000] = 0.1
    Classifier(weights, 0.0, 0.4).save(inputs / "quality.npz")


def undisturbed(world, stage, where=""):
    """Run a stage and note what it leaves; where: the name under which later stages find that."""
    with case_folder(world, "undisturbed") as folder:
        start = time.perf_counter()
        begin(stage, folder, Strike(note=folder / "events")).wait().check(0)
        world.seconds[stage] = time.perf_counter() - start
        world.events[stage] = int((folder / "events").read_text())
        world.unbroken[stage] = result(folder / "out")
        if where:
            shutil.copytree(folder / "out", world.folder / "in" / where)
        elif stage == "tokenizer_train":
            shutil.copy(folder / "out/tokenizer.json", world.folder / "in")


def half(world, stage):
    """The folder of a run that was killed at two thirds of its way, with all that a later run could go on from."""
    kept = world.folder / "half" / stage.replace(" ", "")
    if not kept.exists():
        with case_folder(world, "half") as folder:
            kill = Strike(int(0.66 * world.events[stage]), lambda: os.kill(os.getpid(), signal.SIGKILL))
            begin(stage, folder, kill).wait()
            shutil.copytree(folder / "out", kept)
    return kept


def begin(stage, folder, prepare=None, extra="", environment=None):
    """Start a stage, or start it again where a run of it has left something: the command is the same."""
    command = COMMANDS[stage].replace("CASE", str(folder))
    if stage == "recipe" and (folder / "in/recipe.toml").exists():
        written = (folder / "in/recipe.toml").read_bytes()
        (folder / "recipe.toml").write_bytes(written.replace(b"CASE", os.fsencode(folder)))
    return Run(f"{command} {extra}", folder, partial(prepared, stage, prepare), environment)


def prepared(stage, prepare):
    """In a stage's process: have the recipe start its stages as forks too."""
    if stage == "recipe":
        recipe_in_forks()
    return prepare() if prepare else None
