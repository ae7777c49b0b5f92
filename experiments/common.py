"""What several experiments need: running a stage as a person would, and tables whose columns line up."""

import os
import subprocess
import sys

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
