"""What several experiments need: running a stage as a person would, and tables whose columns line up."""

import json
import os
import subprocess
import sys

import pages
from configurator import ROOT, UserError


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
    print(script, *arguments[-1:], flush=True)
    return result.stdout


def print_table(head, rows, sides):
    """Print rows of strings under a head. sides: < or > for each column, the side on which its cells are aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)]
        print("  ".join(cells).rstrip())


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
