"""A whole recipe: every stage that a TOML file names, in the file's order, and a report at the end.

    python recipe.py configs/demo.toml
    python recipe.py configs/demo.toml mine.toml    mine.toml comes on top
    python recipe.py configs/demo.toml --seed=2    once more, on the same data
    python recipe.py configs/0.5b.toml --check     print what it needs
    python recipe.py configs/0.5b.toml --share=0.001    a rehearsal, in minutes

Each stage is started by the command that a person would type, which is printed first. A stage with
several runs, such as [prepare_data.pages] and [prepare_data.chats], is started once for each. A run
that was interrupted goes on where it stopped when the same command is given again: what is finished
is passed over, and a training stage resumes from its newest checkpoint. Paths in a recipe are
relative to the repository.
"""

import needs  # noqa: F401

import importlib
import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import configurator
import rehearsal
from configurator import ROOT, Stopped, UserError
from cores import n_cores
from evaluation.problems import read_lines
from ranges import Natural, Place, Range, ShareAbove0, SmallCount
from recipe_check import check
from shards import sha256_file
from training import checkpoint
from training.dataloader import parse_folders, parse_mixture
from training.log import clock
from training.machine import heeded_signals

TRAINING = ("pretrain", "anneal", "sft", "dpo", "reward", "grpo")  # with several processes these run under torchrun


@dataclass
class Settings:
    """What concerns the recipe as a whole: its table [recipe]."""

    # -- recipe
    out_dir: Place = "out/recipe"  # summary.json, report.html, report.md, loss.png, progress.json
    processes: SmallCount = 1  # that train together: one for each GPU
    seed: Natural = 0  # train with this seed, and put models and scores into OUT_DIR-seed2; 0 = the stages' own seeds
    check: bool = False  # read one record of every source, say what the recipe needs and takes, and stop
    # of the budget of every source; below 1 this is a rehearsal, with the tiny model of rehearsal.toml
    share: ShareAbove0 = 1.0
    into: Place = "rehearsal"  # the folder of a rehearsal's results
    hub: str = ""  # a folder with copies of the hub's data sets, OWNER/NAME, which are read instead
    contents: str = ""  # the address that blobs of The Stack v2 are read from; empty = Software Heritage's
    bpb_of: str = ""  # the shard folder whose bits per byte the summary shows; empty = the mean of all
    try_next: str = ""  # a command to show at the end
    # Unix time at which the person started, so that installing counts; 0 = now
    started: Annotated[float, Range(0, 10**12)] = 0.0


@dataclass
class Step:
    """One run of a stage."""

    stage: str  # pretrain
    run: str  # the name of its table where the stage runs several times: [eval_humaneval.tuned]
    files: list[str]  # configs/demo.toml:tuned
    settings: object  # the stage's Settings, resolved

    @property
    def name(self):
        """eval_humaneval.tuned, or the stage's own name."""
        return f"{self.stage}.{self.run}" if self.run else self.stage

    @property
    def result(self):
        """The file or folder that the step leaves."""
        return Path(self.settings.out if hasattr(self.settings, "out") else self.settings.out_dir)


def main(settings):
    """Run what is not finished, then summarize all of it."""
    installing = time.time() - settings.started if settings.started else 0.0
    named = [configurator.found(path) for path in sys.argv[1:] if not path.startswith("-")]
    files = [os.path.relpath(path, ROOT) for path in named]
    os.chdir(ROOT)
    if settings.share == 1 and settings.into != Settings.into:
        raise UserError("--into is the folder of a rehearsal: give --share too")
    steps = possible(read_steps(files, [rehearsal.OVERLAY] if settings.share < 1 else []))
    if settings.bpb_of and settings.bpb_of not in (known := validated(steps)):
        raise UserError(f"no stage validates on bpb_of={settings.bpb_of}: choose one of {', '.join(sorted(known))}")
    out = before = Path(settings.out_dir)
    if settings.share < 1:
        settings.bpb_of = rehearsal.moved(settings.bpb_of, steps, settings.into)
        out = before = Path(settings.into) / out
    if settings.share < 1 or settings.hub or settings.contents:
        rehearsal.refuse_what_is_not_read(steps, settings)
        steps = [with_arguments(step, rehearsal.arguments(step, steps, settings)) for step in steps]
    if settings.check:
        check(steps, settings.processes)
        return
    if settings.seed:
        out = Path(f"{before}-seed{settings.seed}")
        steps = [with_seed(step, before, out, settings.seed) for step in steps]
        settings.bpb_of = in_folder(settings.bpb_of, before, out)
    seconds = run_steps(steps, out / "progress.json", settings.processes)
    summary = summarize(settings, steps, seconds, installing)
    configurator.write_json(out / "summary.json", summary)
    trained = ",".join(str(step.result) for step in steps if step.stage in TRAINING)
    if trained:
        run(["-m", "experiments.plot", f"--runs={trained}", "--follow", f"--out={out / 'loss.png'}"])
    run(["-m", "experiments.report", f"--recipe={out}"])
    print_summary(summary, out, settings.try_next.replace(f"={settings.out_dir}/", f"={out}/"))


# -- from TOML files to steps


def read_steps(files, overlay=()):
    """The Steps that TOML files name, in their order, every setting checked before the first one starts. overlay: files
    that come on top, and name no stages of their own."""
    tables = {path: configurator.parse_toml(path) for path in [*files, *overlay]}
    stages = {}  # stage -> its runs
    for path in files:
        table = tables[path]
        for stage in table:
            if stage in configurator.STAGES:
                runs = stages.setdefault(stage, [])
                runs += [run for run in runs_of(stage, table) if run not in runs]
    if not stages:
        where = f" in {', '.join(files)}" if files else ""
        raise UserError(f"no stages to run{where}: name a recipe, python recipe.py configs/demo.toml")
    steps = []
    for stage, runs in stages.items():
        steps += [read_step(stage, run, tables) for run in runs or [""]]
    return steps


def runs_of(stage, table):
    """The names of a stage's runs in one file."""
    known = configurator.settings_of(settings_class(stage))
    return configurator.runs_of(table.get(stage, {}), {setting.table for setting in known.values()} - {""})


def read_step(stage, run, tables):
    """The Step of one run. A file that does not have the run's own table gives its general settings."""
    files = []
    for path, table in tables.items():
        runs = runs_of(stage, table)
        files.append(f"{path}:{run}" if run in runs else f"{path}:" if runs else path)
    return Step(stage, run, files, configurator.load(settings_class(stage), files, stage))


def with_seed(step, before, out, seed):
    """The step with another seed where it trains. What lies in the folder `before` goes to `out`, wherever a setting
    names it, as in a:2,b:1; other data stay where they are, and are the same."""
    arguments = [f"--seed={seed}"] if step.stage in TRAINING else []
    for name, value in asdict(step.settings).items():
        text = ",".join(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
        if isinstance(text, str) and (elsewhere := in_folder(text, before, out)) != text:
            arguments.append(f"--{name}={elsewhere}")
    return with_arguments(step, arguments)


def in_folder(text, before, out):
    """A setting in which what lies below one folder lies below another."""
    return re.sub(rf"(?<![^,])(?:\./)?{re.escape(str(before))}(?=[/:,]|$)", str(out), text)


def with_arguments(step, arguments):
    """The step with more arguments behind its files."""
    given = [*step.files, *arguments]
    return Step(step.stage, step.run, given, configurator.load(settings_class(step.stage), given, step.stage))


def settings_class(stage):
    """The Settings of a stage's script or module."""
    return importlib.import_module(configurator.MODULES.get(stage, stage)).Settings


def possible(steps):
    """The Steps that this system can run: elsewhere than on Linux, hours of training would end in an evaluation that
    fails, so the evaluations are left out."""
    can_run = [step for step in steps if step.stage != "eval_humaneval" or sys.platform == "linux"]
    if len(can_run) < len(steps):
        print("what confines the models' programs is part of Linux: the evaluations are left out here")
    return can_run


def validated(steps):
    """The shard folders that training steps validate on."""
    shares = []
    for settings in (step.settings for step in steps if step.stage in TRAINING):
        if data := getattr(settings, "data", ""):  # grpo.py has none
            shares += parse_mixture(data)
        if val := getattr(settings, "val", ""):
            shares += parse_folders(val, "val")
    return {folder for folder, _ in shares}


# -- running them


def run_steps(steps, path, processes):
    """Run the steps that are not finished; the seconds that each one took, now and in earlier runs.

    path: progress.json, an entry {"step", "settings", "seconds", "spent", "left"} for each step that was begun. It is
    finished if its entry and all before it have the settings of now, and if what it left is still there, and not what
    another recipe has made in its place. Otherwise seconds is None, and spent is how many it ran before it was
    interrupted; left are traces() of its result. Raises UserError, before anything is run, where a model is in the way.
    """
    entries = read_progress(path)
    wanted = [{"step": step.name, "settings": json.loads(json.dumps(asdict(step.settings)))} for step in steps]
    # The first steps whose settings are those of now: what they left is of use, or can be made again as it was.
    n_same = len(list(takewhile(lambda pair: pair[0] == {**pair[0], **pair[1]}, zip(entries, wanted))))
    for step in steps[n_same:]:
        if step.stage in TRAINING and checkpoint.saved(step.result):
            raise UserError(
                f"{step.result} holds a model, and {path} does not say that it was trained with the settings that "
                f"[{step.name}] and what comes before it have now: give those, delete it, or choose other out_dirs"
            )
    if n_same < len(steps):
        del entries[n_same:]
    for number, step in enumerate(steps):
        if number == len(entries):
            entries.append({**wanted[number], "seconds": None, "spent": 0.0, "left": ""})
        entry = entries[number]
        if entry["seconds"] is not None and step.result.exists() and entry["left"] in ("", traces(step.result)):
            print(f"{step.name}: finished before, in {clock(entry['seconds'])}")
            continue
        start, entry["seconds"] = time.time(), None
        configurator.write_json(path, entries)
        try:
            run_step(step, processes)
        except BaseException:  # Ctrl-C, say
            entry["spent"] += time.time() - start
            configurator.write_json(path, entries)
            raise
        entry["seconds"], entry["spent"] = entry["spent"] + time.time() - start, 0.0
        entry["left"] = traces(step.result)
        configurator.write_json(path, entries)
    return [entry["seconds"] for entry in entries[: len(steps)]]


def traces(result):
    """What tells a step's result from another's in its place: a hash of the file, or of what a folder says it holds.
    "" for the models and scores of training and evaluation, which no other recipe replaces unasked."""
    files = [result] if result.is_file() else [result / "manifest.json", result / "made_by.json"]
    return next((sha256_file(file) for file in files if file.is_file()), "")


def read_progress(path):
    """The entries of progress.json; none where there is no such file yet."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        told = [{key: entry[key] for key in ("step", "settings", "seconds")} for entry in entries]
        return [{"spent": 0.0, "left": "", **entry, **new} for new, entry in zip(told, entries)]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: delete it and the models, to run the recipe from its start") from None


def run_step(step, processes):
    """Run one step, from its newest checkpoint where it has any."""
    trains = step.stage in TRAINING
    resume = trains and bool(checkpoint.saved(step.result))
    if not (resume and is_trained(step)):
        run(command_of(step, processes, resume), processes if trains else 1)
    if trains and not is_trained(step):
        raise UserError(f"{step.name} was stopped before its last step: the same command goes on from there")


def command_of(step, processes, resume):
    """The arguments behind `python` that start a step."""
    arguments = [*configurator.command(step.stage).split(), *step.files, *(["--resume"] if resume else [])]
    if step.stage in TRAINING and processes > 1:
        return ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *arguments]
    return arguments


def run(arguments, processes=1):
    """Run python with these arguments, shown as a person would type them. Raises UserError where it fails; its own
    error line is then on the screen already."""
    shown = shlex.join(["python", *arguments]).replace("python -m torch.distributed.run", "torchrun")
    print(f"\n$ {shown}", flush=True)
    usual = {"OMP_NUM_THREADS": str(max(1, n_cores() // processes))}
    usual["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "600"  # seconds to end in: the last evaluation and a save take their time
    stage = subprocess.Popen([sys.executable, *arguments], env={**usual, **os.environ})

    def pass_on(number, frame):
        """Let the stage save and end."""
        stopped_by.append(number)
        if number == signal.SIGTERM:  # Ctrl-C and a closed terminal reach every process by themselves
            stage.send_signal(number)

    stopped_by = []
    before = {number: signal.signal(number, pass_on) for number in heeded_signals()}
    code = stage.wait()  # a stage that trains ends with a checkpoint
    for number, handler in before.items():
        signal.signal(number, handler)
    if stopped_by:
        raise Stopped(stopped_by[0], "the same command goes on from here")
    if code in (2, -signal.SIGUSR1):  # a mistake of a person's, which the stage has told; see endings.py
        sys.exit(2)
    if code:
        raise UserError(f"the command exited with code {code}")


def is_trained(step):
    """Whether the newest checkpoint of a training step is that of its last step."""
    if not checkpoint.saved(step.result):
        return False
    _, meta = checkpoint.newest(step.result)
    return meta["step"] >= meta["settings"]["max_steps"]


# -- what came out


def summarize(settings, steps, seconds, installing):
    """summary.json: seconds, tokens and bits per byte of each stage, and the scores of each evaluation."""
    stages = {"install": {"seconds": installing, "tokens": None, "val_bpb": None}}
    scores, ladder = {}, {}  # ladder: {set of problems: {model: its score}}
    for step, seconds_of_step in zip(steps, seconds):
        name = step.name if step.stage in TRAINING else step.stage.replace("eval_humaneval", "evaluation")
        row = stages.setdefault(name, {"seconds": 0.0, "tokens": None, "val_bpb": None})
        row["seconds"] += seconds_of_step
        if step.stage in TRAINING:
            *_, last = read_lines(step.result / "metrics.jsonl")
            row["tokens"] = last["tokens"]
            row["val_bpb"] = last["sources"].get(settings.bpb_of, {} if settings.bpb_of else last).get("val_bpb")
        if step.stage == "prepare_data":
            splits = json.loads((step.result / "manifest.json").read_text(encoding="utf-8"))["splits"]
            row["tokens"] = (row["tokens"] or 0) + sum(split["tokens"] for split in splits.values())
        if step.stage == "eval_humaneval":
            found = json.loads((step.result / "summary.json").read_text(encoding="utf-8"))
            run = step.run or step.name
            for name, rates in (found["families"] or {"problems": found}).items():
                score = {"pass@1": rates["pass@1"], "stderr": rates["stderr"], "n": rates["n_problems"]}
                ladder.setdefault(name, {})[run] = score
            unseen = ladder.get("compositions", {}).get(run)
            whole = {"pass@1": found["pass@1"], "stderr": found["stderr"], "n": found["n_problems"]}
            scores[run] = {**(unseen or whole), "results": str(step.result)}
    for row in stages.values():
        row["seconds"] = round(row["seconds"], 1)
    return {
        "stages": stages,
        "exercises": scores,
        "ladder": ladder,
        "total_seconds": round(sum(row["seconds"] for row in stages.values()), 1),
        "torch": importlib.metadata.version("torch"),
        "cores": n_cores(),
        "bpb_of": settings.bpb_of,
        "settings": asdict(settings),
        "made_by": configurator.made_by(),
    }


def print_summary(summary, out, try_next):
    """The same for a person at a terminal."""
    print(f"\n{'stage':<18}{'time':>8}{'tokens':>16}{'val bpb':>9}")
    for name, row in summary["stages"].items():
        if not row["seconds"]:
            continue  # installing, where that was done before
        tokens = f"{row['tokens']:,}" if row["tokens"] else ""
        bpb = f"{row['val_bpb']:.3f}" if row["val_bpb"] else ""
        print(f"{name:<18}{clock(row['seconds']):>8}{tokens:>16}{bpb:>9}".rstrip())
    print(f"{'total':<18}{clock(summary['total_seconds']):>8}\n")
    models = list(summary["exercises"])
    if models:
        print(f"{'pass@1':<18}{'problems':>8}" + "".join(f"{model:>18}" for model in models))
    for name, scores in summary["ladder"].items():
        cells = [f"{s['pass@1']:.1%} +- {s['stderr']:.1%}" if (s := scores.get(model)) else "" for model in models]
        n = max(score["n"] for score in scores.values())
        print(f"{name:<18}{n:>8,}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"\nresults    {out}/report.html  {out}/report.md  {out}/summary.json")
    if try_next:
        print(f"try next   {try_next}")
    print("way out    serve.py, an endpoint and a chat page; convert.py, for other tools: docs/out.md")


if __name__ == "__main__":
    configurator.run(main, Settings)
