"""Whether cleaning became slower: two checkouts clean the same files in turn.

python -m experiments.cleaning_speed --before=../old/WizardLearner     the median of the ratios of processor time

What is timed is everything between reading and deduplication but for tokens, signatures and benchmarks.
"""

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import configurator
from cleaning import pii, rules, view
from configurator import ROOT, UserError
from ranges import SmallCount

FILES = 150  # of the standard library, and as many of the installed packages


@dataclass
class Settings:
    """What is compared."""

    # -- comparison
    before: str = ""  # a checkout of the version before
    repeats: SmallCount = 7  # of each measurement
    measure: str = ""  # print the seconds for stdlib or purelib and do no more


def measured(name):
    """The processor time in which this checkout cleans the files of stdlib or purelib."""
    paths = sorted(Path(sysconfig.get_paths()[name]).glob("*.py" if name == "stdlib" else "*/*.py"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths[:FILES]]
    start = time.thread_time()
    for text in texts:
        if hasattr(view, "comments_of"):
            new = pii.without_license(pii.replaced(text, view.PYTHON)[0], view.comments_of(view.PYTHON, {}))
        else:  # a version that knows no languages
            new = pii.without_license(pii.replaced(text)[0])
        rules.verdict(view.View(new, "a.py", view.PYTHON), rules.PYTHON_RULES, rules.Thresholds())
    return time.thread_time() - start


def seconds(folder, name):
    """measured(name) of another checkout: this file, in a process that imports the modules of that folder."""
    command = [sys.executable, "-P", __file__, f"--measure={name}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main(settings):
    """Print the median ratio for the standard library and for the packages."""
    if settings.measure:
        print(measured(settings.measure))
        return
    if not (Path(settings.before) / "cleaning/pii.py").exists():
        raise UserError(f"no checkout in {settings.before!r}: --before=FOLDER, for example a git worktree")
    for name in ("stdlib", "purelib"):
        ratios = [seconds(ROOT, name) / seconds(settings.before, name) for _ in range(settings.repeats)]
        print(f"{name}: time after / before {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    configurator.run(main, Settings)
