"""Runs that are stopped: killed, interrupted, out of disk space, doubled, or left by one of their processes.

Whatever struck a run, the same command must bring it to the very result of the unbroken one.
"""

import os
import resource
import signal
import socket
from functools import partial
from pathlib import Path

from tests.faults.common import Group, Lost, Strike, case_folder, compare, result
from tests.faults.world import COMMANDS, TRAINED, begin

# What a run may end with that a signal has reached: its own words, the shell's code for it, or the signal itself.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = (0, 2, -signal.SIGKILL, *(128 + number for number in SIGNALS), *(-number for number in SIGNALS))


def goes_on(world, stage, folder):
    """Give the same command once more; then its result must be that of the unbroken run."""
    begin(stage, folder).wait().check(0)
    compare(result(folder / "out"), world.unbroken[stage])


def killed(stage, world, rng):
    """Kill or interrupt a run one to three times, at an event or at a random moment, then let it end."""
    kills = 0
    with case_folder(world, "killed") as folder:
        for _ in range(rng.choice((1, 1, 2, 3))):
            number = rng.choice((signal.SIGKILL,) * 5 + SIGNALS)
            if rng.random() < 0.6:
                k = rng.randint(1, world.events[stage])
                strike = Strike(k, lambda number=number: os.kill(os.getpid(), number), behind=rng.random() < 0.5)
                run = begin(stage, folder, strike)
                # A recipe that is killed alone leaves its stage running: the machine that dies takes both.
            else:
                run = begin(stage, folder)
                if not run.ends_within(rng.uniform(0, 1.1 * world.seconds[stage])):
                    run.signal(number, everybody=number == signal.SIGINT or stage == "recipe")
            kills += run.wait().check(*STOPPED).code != 0
        goes_on(world, stage, folder)
    return {"killed, then equal": kills}


def disk_full(stage, world, rng):
    """From some event on no file can grow beyond a few bytes: one line that names the path, and nothing half-written."""
    with case_folder(world, "full") as folder:
        size = rng.choice((0, 1, 100, 5000, 50_000))
        limit = partial(limit_files, size)
        outcome = begin(stage, folder, Strike(rng.randint(1, world.events[stage]), limit)).wait().check(0, 2)
        if outcome.code == 2 and stage != "recipe" and "out" not in outcome.errors[0]:
            raise Lost(f"no path in {outcome.errors[0]}")
        leftovers = [path.name for path in folder.rglob("*.tmp")]
        if leftovers:
            raise Lost(f"left behind: {leftovers} after {outcome.errors}")
        goes_on(world, stage, folder)
    return {"one line, then equal": 1} if outcome.code else {"enough room": 1}


def limit_files(size):
    """In a process: no file may become larger than size bytes; a write beyond is an OSError, as on a full disk (Python
    ignores the signal that would come with it)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def doubled(stage, world, rng):
    """A second run in the folder of the first: refused in one line, or both end; the result is right."""
    with case_folder(world, "doubled") as folder:
        first = begin(stage, folder)
        first.ends_within(rng.uniform(0, 0.8 * world.seconds[stage]))
        second = begin(stage, folder)
        outcomes = [run.wait() for run in (first, second)]
        refused = [outcome.check(0, 2).code for outcome in outcomes]
        if stage in TRAINED and refused == [0, 0] and "resuming from" not in outcomes[0].output + outcomes[1].output:
            raise Lost(f"two runs trained in one folder from the beginning: {outcomes[1].output[-500:]}")
        goes_on(world, stage, folder)
    return {"refused": 1} if 2 in refused else {"one behind the other": 1}


def rank_dies(stage, world, rng):
    """Two processes train; one is killed. The launcher ends the other, and both go on to the unbroken result."""
    with case_folder(world, "rank") as folder:
        victim = rng.randrange(2)
        kill = Strike(rng.randint(1, world.events[stage]), lambda: os.kill(os.getpid(), signal.SIGKILL))
        runs = two_processes(stage, folder, kill if victim == 0 else None)
        if victim and not runs[1].ends_within(rng.uniform(0, 1.5 * world.seconds[stage])):
            runs[1].signal(signal.SIGKILL)
        runs[victim].wait()
        runs[1 - victim].ends_within(0.2)
        runs[1 - victim].signal(signal.SIGKILL)
        runs[1 - victim].wait()
        two_go_on(world, stage, folder)
    return {"equal": 1}


def restarted(stage, world, rng):
    """One command line starts two processes 20 times; every time one or both are killed or stopped at some moment."""
    with case_folder(world, "restarted") as folder:
        for _ in range(20):
            runs = two_processes(stage, folder, None)
            runs[0].ends_within(rng.uniform(0, world.seconds[stage]))
            number = rng.choice((signal.SIGKILL, *SIGNALS))
            for run in rng.choice((runs[:1], runs[1:], runs)):
                run.signal(number)
            runs[0].ends_within(0.2 if number == signal.SIGKILL else 5)
            for run in runs:
                run.signal(signal.SIGKILL)
                run.wait()
        two_go_on(world, stage, folder)
    return {"equal": 1}


def two_go_on(world, stage, folder):
    """Start two processes once more; then their result must be what two that nothing disturbs leave."""
    if (stage, "2 processes") not in world.unbroken:
        with case_folder(world, "two") as undisturbed:
            for run in two_processes(stage, undisturbed, None):
                run.wait().check(0)
            world.unbroken[stage, "2 processes"] = result(undisturbed / "out")
    for run in two_processes(stage, folder, None):
        run.wait().check(0)
    compare(result(folder / "out"), world.unbroken[stage, "2 processes"])


def worker_dies(stage, world, rng):
    """One of the processes that clean or make up text is killed: one line says so, and the work goes on from there."""
    with case_folder(world, "worker") as folder:
        run = begin(stage, folder)
        run.ends_within(rng.uniform(0, world.seconds[stage]))
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        for worker in workers[:1]:
            os.kill(int(worker), signal.SIGKILL)
        outcome = run.wait().check(0, 2)
        goes_on(world, stage, folder)
    return {"one line, then equal": 1} if outcome.code else {"no worker was left": 1}


def two_processes(stage, folder, prepare):
    """The Runs of two processes that train together, as torchrun starts them; prepare: for the first of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [
        begin(stage, folder, prepare if rank == 0 else None, environment=environment)
        for rank, environment in enumerate(environments)
    ]


def groups():
    """The Groups of this file."""
    found = []
    for stage in COMMANDS:
        found.append(Group(f"killed: {stage}", partial(killed, stage), target=100, share=3, slow=stage == "recipe"))
    for stage in COMMANDS:
        found.append(Group(f"full disk: {stage}", partial(disk_full, stage), target=20, slow=stage == "recipe"))
    for stage in COMMANDS:
        found.append(Group(f"two runs in one folder: {stage}", partial(doubled, stage), 8, 0.5, slow=stage == "recipe"))
    for stage in TRAINED:
        found.append(Group(f"a process of two dies: {stage}", partial(rank_dies, stage), target=15, share=1))
        found.append(Group(f"two processes restarted 20 times: {stage}", partial(restarted, stage), 3, slow=True))
    for stage in ("exercises", "prepare_data, 2 workers"):
        found.append(Group(f"a worker dies: {stage}", partial(worker_dies, stage), target=20, share=0.5))
    return found
