"""What several experiments need: running a stage as a person would, comparing arms, tables whose columns line up."""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import product

from tqdm import tqdm

import configurator
import pages
from configurator import ROOT, UserError
from cores import n_cores
from corpus.parallel import interrupts_held_back, submitted


def run_stage(script, *arguments, folder=ROOT, threads=1):
    """Run a stage in a process of its own and on one thread or more, say so, and return what it printed.

    script: "pretrain.py", or "exercises" for python -m exercises. folder: the checkout whose stage is run. Raises
    UserError with the last line of its standard error if it fails.
    """
    what = [script] if script.endswith(".py") else ["-m", script]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    result = subprocess.run(
        [sys.executable, *what, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{script} ended with exit code {result.returncode}: {last}")
    with tqdm.external_write_mode():  # above the bar, if there is one
        print(script, *arguments[-1:], flush=True)
    return result.stdout


def begin(folder, settings):
    """Write settings.json into an experiment's folder, a Path: what all of its models need is now there."""
    configurator.write_json(folder / "settings.json", asdict(settings))


def has_begun(folder, settings):
    """Whether begin() was called for this folder. Raises UserError if that was with other settings, of which only those
    that say which models are made, how many at a time, and the folder's name may change, and if something else lies
    there."""
    note, mine = folder / "settings.json", asdict(settings)
    if not note.exists():
        if folder.exists() and any(folder.iterdir()):
            what = "something else, or half of what the models need"
            raise UserError(f"{folder} holds {what}: choose another --out_dir, or delete it")
        return False
    before, free = json.loads(note.read_text(encoding="utf-8")), ("arms", "seeds", "jobs", "out_dir")
    if other := [name for name in mine if before.get(name) != mine[name] and name not in free]:
        raise UserError(f"{folder} was begun with {other[0]}={before.get(other[0])}: choose another --out_dir")
    return True


def pretrain(folder, steps, *arguments):
    """Train a model into a folder, in so many steps of 4,096 tokens: a twentieth of them warmup, the last quarter of
    them decay, validated at the end. A run that was stopped goes on, and one that is finished is left as it is."""
    schedule = (f"--max_steps={steps}", f"--decay_steps={steps // 4}", f"--warmup_steps={steps // 20}")
    saving = ("--resume=auto", "--save_every=100", "--keep=1", f"--eval_every={steps}")
    run_stage("pretrain.py", "--batch_tokens=4096", *schedule, *saving, *arguments, f"--out_dir={folder}")


def side_by_side(work, items, at_a_time, unit):
    """[work(item) for each item of a list], so many at a time, under a progress bar. When one fails, those that have
    not begun are left out, and its error is raised. unit: what the bar counts."""
    results = [None] * len(items)
    with ThreadPoolExecutor(at_a_time) as pool, tqdm(total=len(items), unit=unit, leave=False) as bar:
        try:
            for (number, _), done in submitted(pool, lambda pair: work(pair[1]), enumerate(items)):
                results[number] = done.result()
                with interrupts_held_back():  # run_stage() waits for the bar's lock
                    bar.update()
        except BaseException:  # a person's Ctrl-C too: it reaches the stages, which save and end
            pool.shutdown(cancel_futures=True)
            raise
    return results


def run_arms(folder, settings, arms, measures_of):
    """Make the models of all arms, as many at a time as there are cores; {arm: [measures of each seed]}. They go into
    the folder's summary.json, with what spread() says of them. settings: has seeds, models per arm; measures_of(seed,
    arm): makes one, {measure: number}."""
    jobs, found = list(product(range(settings.seeds), arms)), {arm: [] for arm in arms}
    results = side_by_side(lambda job: measures_of(*job), jobs, n_cores(), "model")
    for (_, arm), measures in zip(jobs, results):
        found[arm].append(measures)
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(folder / "summary.json", {"arms": found, "spread": spread(found), **about})
    return found


def spread(arms):
    """{arm: {measure: {"mean", "sd", "difference", "stderr"}}}. sd: between seeds. difference: to the first arm with
    the same seed, a mean with its standard error. What one seed cannot tell is None."""
    table, first = {}, next(iter(arms.values()))
    for arm, runs in arms.items():
        table[arm] = {}
        for key in runs[0]:
            values, before = [run[key] for run in runs], [run[key] for run in first]
            differences = [value - other for value, other in zip(values, before)]
            cell = {"mean": statistics.mean(values), "sd": None}
            cell |= {"difference": statistics.mean(differences), "stderr": None}
            if len(runs) > 1:
                cell["sd"] = statistics.stdev(values)
                cell["stderr"] = statistics.stdev(differences) / len(runs) ** 0.5
            table[arm][key] = cell
    return table


def print_table(head, rows, sides):
    """Print rows of strings under a head. sides: < or > for each column, the side on which its cells are aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)]
        print("  ".join(cells).rstrip())


def print_spread(arms, columns):
    """Print what spread() finds of the arms, then how each differs from the first. columns: {measure: the head of its
    column}."""
    print("\nmean +- standard deviation between seeds")
    print_cells(spread(arms), columns, "mean", "sd")
    print_differences(arms, columns)


def print_differences(arms, columns):
    """Print how each arm differs from the first."""
    first, *others = arms
    print(f"\nminus that of {first}, +- standard error over seeds")
    table = spread(arms)
    print_cells({arm: table[arm] for arm in others}, columns, "difference", "stderr")


def print_cells(table, columns, value, error):
    """Print a line for each arm of spread()'s table: one number of each cell, +- another."""
    rows = [[arm, *(with_error(row[key][value], row[key][error]) for key in columns)] for arm, row in table.items()]
    print_table(["", *columns.values()], rows, "<" + ">" * len(columns))


def with_error(value, error):
    """A number and what follows +-, which one seed alone does not tell."""
    return f"{value:.3f}" + ("" if error is None else f" +- {error:.3f}")


def write_report(folder, what, how, blocks_of):
    """Write report.html and report.md into a folder, a Path: what blocks_of(summary) makes of its summary.json.

    what: whose results belong there; how: the command that makes them. Raises UserError for any others."""
    try:
        blocks = list(blocks_of(json.loads((folder / "summary.json").read_text(encoding="utf-8"))))
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        hint = f"{how} makes such a folder"
        raise UserError(f"{folder} does not hold the results of {what} ({error!r}): {hint}") from None
    pages.write(folder / "report", blocks)
    print(f"report -> {folder / 'report.html'}  {folder / 'report.md'}")
