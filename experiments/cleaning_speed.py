"""Whether preparing data became slower: two checkouts clean the same files in turn, from files to shards.

    python -m experiments.cleaning_speed --before=../old    median ratios

What is compared is processor time, in one process.
"""

import needs  # noqa: F401

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import configurator
from configurator import ROOT, UserError
from ranges import SmallCount

PACKAGES = Path(sysconfig.get_paths()["purelib"])


@dataclass
class Settings:
    """What is compared."""

    # -- comparison
    before: str = ""  # a checkout of the version before
    packages: list[str] = field(default_factory=lambda: ["numpy", "sympy"])  # cleaned beside the standard library
    repeats: SmallCount = 5  # of each measurement


def main(settings):
    """Print the median ratio for each source."""
    if not (Path(settings.before) / "prepare_data.py").exists():
        raise UserError(f"no checkout in {settings.before!r}: --before=FOLDER, for example a git worktree")
    for name in settings.packages:
        if not (PACKAGES / name).exists():
            raise UserError(f"no package {name!r} in {PACKAGES}: --packages=NAME,... of those that are there")
    with tempfile.TemporaryDirectory() as work:
        train = ["tokenizer_train.py", "--max_bytes=1000000"]
        subprocess.run([sys.executable, ROOT / train[0], *train[1:]], cwd=work, capture_output=True, check=True)
        for source in ("stdlib", *(str(PACKAGES / name) for name in settings.packages)):
            ratios = []
            for _ in range(settings.repeats):
                ratios.append(seconds(ROOT, source, work) / seconds(settings.before, source, work))
            span = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{source}: time after / before {statistics.median(ratios):.3f} ({span})", flush=True)


def seconds(checkout, source, work):
    """The processor time in which a checkout makes shards of a source, in one process, its start included."""
    arguments = [f"--sources={source}", "--num_workers=1", "--out_dir=shards"]
    # Compiled modules are kept, as they are for whoever prepares data a second time.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = os.times()
    script = Path(checkout).resolve() / "prepare_data.py"
    subprocess.run([sys.executable, script, *arguments], cwd=work, env=env, capture_output=True, check=True)
    end = os.times()
    shutil.rmtree(Path(work) / "shards")
    return end.children_user + end.children_system - start.children_user - start.children_system


if __name__ == "__main__":
    configurator.run(main, Settings)
