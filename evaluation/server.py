"""A warm process that starts sandboxes: forking it costs a fraction of what a new interpreter does.

evaluation/sandbox.py starts one for each program that runs at a time. For each job it sends, over the control socket,
settings and one end of a socket of the job's own. This process then

    forks the judge, in a session of its own and an empty folder, with that end of the job's socket
    watches the clock, and how many files of how many bytes lie how deep in the folder
    kills the session, waits for all that it has left behind, and empties the folder
    says how the job ended, and waits for the next

Program, test and verdict pass between sandbox.py and the judge alone: nothing of them is ever in this process, of
which the next job's processes are copies. When the process of sandbox.py ends, however it ends, the control socket
ends too: then the job's processes and the folder go, and this process with them.
"""

import contextlib
import gc
import itertools
import marshal
import os
import random
import select
import signal
import socket
import stat
import sys
import time

from evaluation import confine, judge

# What many programs and tests import is there before they do.
WARM = "bisect cmath collections copy dataclasses datetime decimal enum fractions functools hashlib heapq io itertools "
WARM += "json math operator re statistics string sys textwrap time typing unittest"
LOOK_EVERY = 0.05  # seconds between two looks at a job's folder
SPARE_PROCESSES = 256  # that the user's processes may be more than those that run
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
OUT_OF_CLOCK = "timed out on the clock"  # why a job was killed; with too much CPU time used it is "timed out"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
counted = {"until": 0.0, "n": 0}  # what processes_of_user() has found, and until when it holds


def main():
    """Do jobs until the control socket ends. Arguments: its file descriptor, a folder to make, and what programs may
    import beside the standard library: folders and files."""
    control, root, *packages = sys.argv[1:]
    control = socket.socket(fileno=int(control))
    folder, links = f"{root}/folder", f"{root}/packages"  # where programs write, what they import
    for path in (root, folder, links):
        os.mkdir(path, 0o700)
    for package in packages:
        os.symlink(package, f"{links}/{os.path.basename(package)}")
    warm_up(links)
    # A candidate whose judge has ended becomes this process's child, to wait for.
    confine.LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # of the control socket: nobody is there any more
        while is_empty(folder):
            message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
            if not message:
                break
            settings = {"folder": folder, "readable": [links, *packages] if packages else [], **marshal.loads(message)}
            control.sendall(marshal.dumps(job(settings, descriptors[0], control)))
    empty(root)
    os.rmdir(root)


def warm_up(links):
    """Import what is there from now on, and be a process that does not know the repository."""
    sys.dont_write_bytecode = True
    sys.path.append(links)
    for name in [*WARM.split(), *(name.partition(".")[0] for name in os.listdir(links) if not name.endswith(".libs"))]:
        __import__(name)
    sys.path.remove(os.environ.pop("PYTHONPATH"))  # which names the repository
    os.environ.pop("LD_LIBRARY_PATH", None)  # this process had need of it to start
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluation"]:
        del sys.modules[name]
    random.seed(0)  # each program begins with the same state, for the same verdict each time
    gc.collect()
    gc.freeze()  # what is here stays: looking through it would copy its pages into every fork


def is_empty(folder):
    """Whether nothing lies in a folder, after it has been emptied."""
    empty(folder)
    return not os.listdir(folder)


def job(settings, descriptor, control):
    """Run one judge to its end; (exit status as os.waitpid has it, CPU seconds, why it was killed or "")."""
    settings |= {"server": os.getpid(), "max_processes": processes_of_user() + SPARE_PROCESSES}
    confine.prepare(settings)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):  # without a verdict: sandbox.py will notice
            os.setsid()
            control.close()
            judge.main(settings, descriptor)
            os._exit(0)
        os._exit(1)
    os.close(descriptor)
    why = watched(child, settings, control)
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # it has not come to os.setsid(), and so has no child
        os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    seconds = [cpu_seconds(used)]
    with contextlib.suppress(ChildProcessError):
        while True:
            seconds.append(cpu_seconds(os.wait4(-1, 0)[2]))  # the candidate, which is this process's child now
    if why == OUT_OF_CLOCK and max(seconds) > settings["n_runs"] * settings["timeout"]:
        why = "timed out"  # it ignored the signal: no other load of the machine is to blame
    return status, seconds[0], why or too_much(settings)


def cpu_seconds(used):
    """The CPU seconds of a process that has ended, from what os.wait4 says of it."""
    return used.ru_utime + used.ru_stime


def processes_of_user():
    """How many threads the user's processes have, by the count of the second: RLIMIT_NPROC counts them all."""
    if time.monotonic() > counted["until"]:
        user, n = os.getuid(), 0
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended
                if os.stat(f"/proc/{name}").st_uid == user:
                    n += len(os.listdir(f"/proc/{name}/task"))
        counted.update(until=time.monotonic() + 1, n=n)
    return counted["n"]


def watched(child, settings, control):
    """Wait until the judge has ended or must end; why it must, or ""."""
    end = time.monotonic() + settings["clock_seconds"]
    handle = os.pidfd_open(child)
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return OUT_OF_CLOCK
            ended, _, _ = select.select([handle, control], [], [], min(left, LOOK_EVERY))
            if handle in ended:
                return ""
            if control in ended:
                return "nobody waits for it"  # nothing is sent during a job: the socket has ended
            if why := too_much(settings):
                return why
    finally:
        os.close(handle)


def too_much(settings):
    """What of a job's folder is beyond its limits, or ""."""
    found = {"files": 0, "bytes": 0}
    try:
        folder = os.open(settings["folder"], FOLDER)
        try:
            return beyond(folder, 1, found, settings)
        finally:
            os.close(folder)
    except Exception as error:  # whatever the program makes of its folder
        return f"files that cannot be looked at: {error}"


def beyond(folder, depth, found, settings):
    """What is beyond the limits in an open folder; what is found is added up. The program may be changing it all: no
    name is followed that has become a link."""
    for entry in os.scandir(folder):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it was there a moment ago
            continue
        found["files"] += 1
        found["bytes"] += 512 * status.st_blocks
        if found["files"] > settings["n_files"]:
            return f"more than {settings['n_files']} files"
        if found["bytes"] > settings["folder_bytes"]:
            return f"files of more than {settings['folder_bytes'] >> 20} MB"
        if not stat.S_ISDIR(status.st_mode):
            continue
        if depth == settings["depth"]:
            return f"folders deeper than {settings['depth']}"
        try:
            inner = os.open(entry.name, FOLDER, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):  # it was one a moment ago
            continue
        try:
            if why := beyond(inner, depth + 1, found, settings):
                return why
        finally:
            os.close(inner)
    return ""


def empty(folder):
    """Delete what lies in a folder of which no process makes use any more, whatever it is: folders without rights, and
    folders deeper than a path can be long."""
    here, names = os.open(folder, FOLDER), []  # the folder that is being emptied, and its name in the one above, ...
    while True:
        below = first_full_folder(here)
        if below is None and not names:
            break
        there = os.open(below or "..", FOLDER, dir_fd=here)
        os.close(here)
        here = there
        if below is None:
            os.rmdir(names.pop(), dir_fd=here)
        else:
            names.append(below)
    os.close(here)


def first_full_folder(here):
    """Delete what is in an open folder, up to the first folder that is not empty: its name, or None."""
    while entries := list(itertools.islice(os.scandir(here), 1000)):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=here)
                continue
            os.chmod(entry.name, 0o700, dir_fd=here)
            try:
                os.rmdir(entry.name, dir_fd=here)
            except OSError:
                return entry.name
    return None
