"""Go on looking for what breaks: kills, damaged files, full disks, fuzzed input; the long part of the tests.

    python -m tests.faults                                     everything, up to 50 minutes on two cores
    python -m tests.faults --minutes=0.3                       a slice of it, as the tests run it
    python -m tests.faults --only=killed:\\ sft --case=17       one case again, after it was lost

Prints a table, also by kinds, and leaves it in out/faults.md. Exit code 1 if anything was lost: the first lost cases of
a group are shown, each with the command that repeats it. What a case does is drawn from its name and number; only a kill
at a random moment, unlike one at an event, may strike elsewhere the second time.
"""

import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from random import Random

import configurator
from cores import n_cores
from corpus.parallel import live_with_parent
from ranges import Place
from tests.faults import damage, fuzz, kills, metamorphic
from tests.faults.common import Lost
from tests.faults.world import build

SHOWN = 5  # lost cases of a group that are printed; the others are mostly the same fault

SLICE = 3  # minutes below which slow cases are left out


@dataclass
class Settings:
    """How long, and what."""

    # -- the search
    minutes: float = 50.0  # at most so long; groups of cases share it
    only: str = ""  # only the groups whose names hold this
    case: int | None = None  # only the case of this number; auto = all
    num_workers: int = 2  # cases that run at a time
    seed: int = 1  # another seed, other cases
    out: Place = "out/faults.md"  # the table


@dataclass
class Tally:
    """What came of a group's cases."""

    name: str
    survived: Counter = field(default_factory=Counter)
    lost: list = field(default_factory=list)
    seconds: float = 0.0


def main(settings):
    """Run the groups of cases and print their table."""
    groups = [group for file in (kills, damage, fuzz, metamorphic) for group in file.groups()]
    groups = [
        group for group in groups if settings.only in group.name and (settings.minutes >= SLICE or not group.slow)
    ]
    if not groups:
        raise configurator.UserError(f"no group of cases has {settings.only!r} in its name")
    with tempfile.TemporaryDirectory(prefix="faults_", dir=fast_folder()) as folder:
        start = time.monotonic()
        world = build(folder)
        left = 60 * settings.minutes - (time.monotonic() - start)
        total = sum(group.share for group in groups)
        tallies = []
        for group in groups:
            tallies.append(run_group(group, world, settings, left * group.share / total))
            configurator.write_text(settings.out, f"{table(kinds(tallies))}\n{table(tallies)}")
    print(f"\n{table(tallies)}\n{table(kinds(tallies))}")
    sys.exit(1 if any(tally.lost for tally in tallies) else 0)


def fast_folder():
    """A folder in memory, where there is one with room; None stands for the usual one."""
    memory = "/dev/shm"
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30 else None


def run_group(group, world, settings, seconds):
    """The Tally of a group: cases 0, 1, ... until the target is reached or the time is over."""
    tally, start, running, number = Tally(group.name), time.monotonic(), {}, 0
    with ProcessPoolExecutor(settings.num_workers, initializer=begin, initargs=(world, group, settings.seed)) as pool:
        while True:
            while len(running) < settings.num_workers and goes_on(tally, group, number, settings, start + seconds):
                running[pool.submit(run_case, number if settings.case is None else settings.case)] = number
                number += 1
            if not running:
                break
            for case in wait(running, return_when=FIRST_COMPLETED).done:
                add(tally, settings, running.pop(case), *case.result())
    tally.seconds = time.monotonic() - start
    print(f"{group.name}: {tally.survived.total()} survived, {len(tally.lost)} lost, {tally.seconds:.0f} s", flush=True)
    return tally


def goes_on(tally, group, number, settings, end):
    """Whether another case, of this number, begins."""
    if number == 0 or settings.case is not None:
        return number == 0
    return tally.survived.total() + len(tally.lost) < group.target and time.monotonic() < end


def add(tally, settings, number, survived, lost):
    """Note what run_case() returned for the case of a number."""
    tally.survived += survived
    if lost:
        tally.lost.append(lost)
        case = number if settings.case is None else settings.case
        again = ["python", "-m", "tests.faults", f"--only={tally.name}", f"--case={case}", f"--seed={settings.seed}"]
        if len(tally.lost) <= SHOWN:
            print(f"\nLOST {shlex.join(again)}\n{lost}", flush=True)


def begin(*known):
    """In a process that runs cases: the world, the group and the seed, which run_case() needs."""
    global world_group_seed
    world_group_seed = known
    live_with_parent()


def run_case(number):
    """({what came of it: how many}, what was lost or "") of one case."""
    world, group, seed = world_group_seed
    try:
        return Counter(group.case(world, Random(f"{seed}/{group.name}/{number}"))), ""
    except Lost as lost:
        return Counter(), str(lost)
    except Exception:  # a fault of the search itself must not end it
        return Counter(), traceback.format_exc()


def kinds(tallies):
    """The Tallies added up by what stands before the colon in their names."""
    found = {}
    for tally in tallies:
        kind = tally.name.partition(":")[0]
        total = found.setdefault(kind, Tally(kind))
        total.survived += tally.survived
        total.lost += tally.lost
        total.seconds += tally.seconds
    return list(found.values())


def table(tallies):
    """The tallies as a table of Markdown."""
    lines = ["| what is done | tried | survived | lost | seconds | what came of it |", "|---|---|---|---|---|---|"]
    for tally in tallies:
        survived, lost = tally.survived.total(), len(tally.lost)
        came = ", ".join(f"{n:,} {what}" for what, n in tally.survived.most_common())
        lines.append(f"| {tally.name} | {survived + lost:,} | {survived:,} | {lost} | {tally.seconds:.0f} | {came} |")
    survived, lost = sum(t.survived.total() for t in tallies), sum(len(t.lost) for t in tallies)
    seconds = sum(tally.seconds for tally in tallies)
    lines.append(f"| all | {survived + lost:,} | {survived:,} | {lost} | {seconds:.0f} | {n_cores()} cores |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    configurator.run(main, Settings)
