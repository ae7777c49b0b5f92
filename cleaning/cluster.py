"""Stage 2 on many machines: prepare_data.py's work as datatrove tasks (pip install datatrove).

python python -m cleaning.cluster --sources=code/ --out_dir=data/code --tasks=64                      on this machine
python python -m cleaning.cluster --sources=code/ --out_dir=data/code --tasks=512 --executor=slurm --partition=cpu

All machines must see the sources and out_dir. A run that was interrupted goes on with the tasks that are not finished;
what is kept equals what prepare_data.py keeps on one machine. A task reads every n-th file, so have more files than tasks.
"""

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import configurator
import prepare_data
from configurator import UserError
from cleaning import clean
from corpus.documents import optional


@dataclass
class Cluster:
    tasks: int = 16  # pieces of work, each of which reads its share of the files and writes one shard
    executor: str = "local"  # local, slurm or ray
    partition: str = "cpu"  # slurm: where the tasks run
    time: str = "24:00:00"  # slurm: the longest that a task may take


@dataclass
class Settings(prepare_data.Settings, Cluster):
    pass


def main(s):
    if s.adopt or s.against or s.tasks < 1:
        raise UserError("needed: tasks >= 1; --adopt and --against are prepare_data.py's alone")
    if s.executor not in ("local", "slurm", "ray"):
        raise UserError(f"executor must be local, slurm or ray, not {s.executor!r}")
    optional("datatrove", "cluster runs")
    s.check()
    s.out_dir, s.tokenizer = str(Path(s.out_dir).resolve()), str(Path(s.tokenizer).resolve())
    tokenizer = clean.new_cleaner(s, s.tokenizer).tokenizer  # a mistake in what it reads is seen here
    recipe, folder = prepare_data.recipe(s, tokenizer), Path(s.out_dir) / "chunks"
    if (Path(s.out_dir) / "manifest.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # datatrove's marks of a finished run
    from cleaning import cluster_steps as steps

    plan = [
        ("survey", [steps.Read(s), steps.Survey(s)], s.tasks),
        ("decide", [steps.Decide(s)], 1),
        ("shards", [steps.WriteShards(s)], s.tasks),
        ("finish", [steps.Finish(s, recipe, time.time())], 1),
    ]
    logs, depends = folder / f"logs-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]}", None
    for name, pipeline, tasks in plan:
        depends = executor(s, name, pipeline, tasks, str(logs / name), depends)
    depends.run()


def executor(s, name, pipeline, tasks, logs, depends):
    if s.executor == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        return SlurmPipelineExecutor(pipeline=pipeline, tasks=tasks, time=s.time, partition=s.partition, job_name=name, logging_dir=logs, depends=depends)  # fmt: skip
    if s.executor == "ray":
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor(pipeline=pipeline, tasks=tasks, logging_dir=logs, depends=depends)
    from datatrove.executor import LocalPipelineExecutor

    workers = s.num_workers or os.cpu_count()
    return LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs, depends=depends)  # fmt: skip


if __name__ == "__main__":
    configurator.run(main, Settings)
