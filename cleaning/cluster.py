"""Stage 2 on many machines: prepare_data.py's work as datatrove tasks (pip install datatrove).

    python -m cleaning.cluster --sources=code/ --out_dir=data/code --tasks=64
    python -m cleaning.cluster --sources=code/ --tasks=512 --executor=slurm

The first runs on this machine, the second on a Slurm cluster. All machines must see the sources
and out_dir. A run that was interrupted goes on with the tasks that are not finished. What is kept
equals what prepare_data.py keeps on one machine, because no step depends on the order of documents.
Only a source with a budget (documents=, tokens=) is read otherwise: each task takes its part of it.
A task reads every n-th file, so have more files than tasks.
"""

import needs  # noqa: F401

import hashlib
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import cleaning.settings
import configurator
from cleaning import clean
from cleaning.to_shards import settle
from configurator import UserError
from cores import n_cores
from corpus.records import optional
from ranges import Range
from shards import exclusive


@dataclass
class Settings(cleaning.settings.Settings):
    """Those of prepare_data.py, and how its work is cut into tasks."""

    # -- tasks
    # pieces of work, each of which reads its share of the files and writes one shard
    tasks: Annotated[int, Range(1, 100_000)] = 16
    executor: Literal["local", "slurm", "ray"] = "local"  # what runs the tasks
    partition: str = "cpu"  # slurm: where the tasks run
    time: str = "24:00:00"  # slurm: the longest that a task may take

    def check(self):
        """Raises UserError for values that make no sense, or where datatrove is not installed."""
        if self.adopt or self.against or self.order != "as_read":
            raise UserError("--adopt, --against and --order are prepare_data.py's alone")
        optional("datatrove", "cluster runs")
        super().check()


def main(settings):
    """Start the four kinds of task, each after the one before is finished."""
    settings.check()
    settings.out_dir = str(Path(settings.out_dir).resolve())
    settings.tokenizer = str(Path(settings.tokenizer).resolve())
    tokenizer = clean.new_cleaner(settings).tokenizer  # raises UserError for damaged files before any task starts
    ingredients = settings.ingredients(tokenizer.fingerprint)
    folder = Path(settings.out_dir) / "chunks"
    with exclusive(settings.out_dir):
        settle(Path(settings.out_dir))
        run_tasks(settings, ingredients, folder)


def run_tasks(settings, ingredients, folder):
    """Run what is left to do of the four kinds of task. folder: where they leave their chunks. Raises UserError where
    nothing is left for training."""
    from cleaning import cluster_steps as steps  # here, because it imports datatrove

    # datatrove notes which tasks are finished, by their number alone. With other ingredients or files, with another
    # number of tasks, and after a finished run, which leaves the notes of its last step, the notes and the chunks mean
    # nothing.
    work = hashlib.sha256(repr((ingredients, settings.tasks)).encode())
    for path in settings.files():
        status = path.stat()
        work.update(repr((str(path), status.st_size, status.st_mtime_ns)).encode())
    same_work = work.hexdigest()[:8]
    logs, nothing_left = folder / f"logs-{same_work}", folder / steps.NOTHING_LEFT
    is_over = nothing_left.exists() or (logs.exists() and not (logs / "survey").exists())
    if is_over or set(folder.glob("logs-*")) - {logs}:
        shutil.rmtree(folder)
    plan = [
        ("survey", [partial(steps.read, settings), partial(steps.survey, settings)], settings.tasks),
        ("decide", [partial(steps.decide, settings)], 1),
        ("shards", [partial(steps.write_shards, settings)], settings.tasks),
        ("finish", [partial(steps.finish, settings, ingredients, time.time())], 1),
    ]
    before = None
    for name, pipeline, tasks in plan:
        before = executor(settings, name, pipeline, tasks, str(logs / name), before)
    before.run()
    if nothing_left.exists():
        raise UserError(nothing_left.read_text(encoding="utf-8"))


def executor(settings, name, pipeline, tasks, logs, before):
    """The datatrove executor of one kind of task. Its run() runs the executor before it first."""
    from datatrove import executor as executors

    common = {"pipeline": pipeline, "tasks": tasks, "logging_dir": logs, "depends": before}
    if settings.executor == "slurm":
        limits = {"time": settings.time, "partition": settings.partition}
        return executors.SlurmPipelineExecutor(**common, **limits, job_name=name)
    if settings.executor == "ray":
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor(**common)
    return executors.LocalPipelineExecutor(**common, workers=min(settings.num_workers or n_cores(), tasks))


if __name__ == "__main__":
    configurator.run(main, Settings, table="prepare_data")
