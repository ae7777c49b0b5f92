"""What several experiments need: running a stage as a person would, reading JSONL, tables whose columns line up."""

import json
import os
import subprocess
import sys
from pathlib import Path

from configurator import UserError

ROOT = Path(__file__).resolve().parent.parent


def run_stage(script, *arguments, folder=ROOT):
    """Run a stage in a process of its own and on one thread, and return what it printed.

    script: "pretrain.py", or "exercises" for python -m exercises. folder: the checkout that it is of. Raises UserError
    with the last line of its standard error where it fails.
    """
    what = [script] if script.endswith(".py") else ["-m", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, *what, *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{script} ended with exit code {result.returncode}: {last}")
    return result.stdout


def read_lines(path):
    """The records of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def print_row(cells, widths, left=(0,)):
    """Print strings in columns. widths: characters per column; left: the columns that are not aligned to the right."""
    aligned = []
    for column, (cell, width) in enumerate(zip(cells, widths)):
        aligned.append(cell.ljust(width) if column in left else cell.rjust(width))
    print("  ".join(aligned).rstrip(), flush=True)


def print_table(head, rows, left=(0,)):
    """Print rows of strings under a head, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in (head, *rows):
        print_row(row, widths, left)
