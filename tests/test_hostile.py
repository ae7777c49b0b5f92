"""Hostile programs score nothing, change nothing outside, leave nothing behind, and take bounded time and memory.

tests/hostile.py runs them all at once, in a process of its own: as the user of the tests, and if that is root, as an
ordinary user as well."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hostile
import pytest
from conftest import ROOT

from endings import UserError
from evaluation import sandbox

PATIENCE = 15  # seconds on a busy machine; programs that sleep or loop would take 100 or more
NOBODY = 65534  # a user without rights on every Linux system
USERS = [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()]
NEW_MOUNTS, BIND, PRIVATE = 0x20000, 0x1000, 0x44000  # sched.h: CLONE_NEWNS; sys/mount.h: MS_BIND, MS_REC | MS_PRIVATE
LIBC = ctypes.CDLL(None, use_errno=True)


def become_nobody(python):
    """Give up root. Python may lie in root's own folder: for this process alone it is seen in the folder python too."""
    LIBC.unshare(NEW_MOUNTS)
    LIBC.mount(None, b"/", None, PRIVATE, None)
    LIBC.mount(os.fsencode(sys.base_prefix), os.fsencode(python), None, BIND, None)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def start(user, folder):
    """tests/hostile.py, started by a user; None if this user cannot run this Python or read this checkout."""
    files, interpreter, become = folder / "files", sys.executable, None
    files.mkdir()
    if user != os.geteuid():
        python = folder / "python"
        python.mkdir()
        shutil.chown(files, user, user)
        folder.chmod(0o755)
        interpreter = python / Path(os.path.realpath(sys.executable)).relative_to(os.path.realpath(sys.base_prefix))
        become = lambda: become_nobody(python)  # noqa: E731
    environment, pipe = {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    try:
        test = [interpreter, "-c", "import evaluation.sandbox"]
        subprocess.run(test, cwd="/", env=environment, preexec_fn=become, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        return None
    command = [interpreter, ROOT / "tests/hostile.py", files]
    return subprocess.Popen(
        command, cwd="/", env=environment, preexec_fn=become, stdout=pipe, stderr=pipe, text=True, errors="replace"
    )


def remove(folder):
    """Remove a folder, whatever the programs have left in it."""
    for command in (["chattr", "-R", "-f", "-i", folder], ["chmod", "-R", "u+rwx", folder], ["rm", "-rf", folder]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True)


@pytest.fixture(scope="module")
def all_outcomes():
    """{user: what tests/hostile.py prints}; None for a user who cannot run it."""
    try:
        sandbox.probe()
    except UserError as error:
        pytest.skip(str(error))
    folders = {user: Path(tempfile.mkdtemp(prefix="hostile_")) for user in USERS}  # not tmp_path, which is the owner's
    try:
        processes = {user: start(user, folder) for user, folder in folders.items()}
        outcomes = {}
        for user, process in processes.items():
            output, errors = process.communicate() if process else ("null", "")
            assert output, errors
            outcomes[user] = json.loads(output)
        return outcomes
    finally:
        for folder in folders.values():
            remove(folder)


@pytest.fixture(params=USERS)
def outcome(request, all_outcomes):
    """What tests/hostile.py prints as one of the users."""
    if all_outcomes[request.param] is None:
        pytest.skip("this user cannot run this Python or read this checkout")
    return all_outcomes[request.param]


@pytest.mark.parametrize("name", hostile.programs(outside="", port=0, other=0, key=0))
def test_hostile_programs_score_nothing_and_do_no_harm(name, outcome):
    came = outcome["programs"][name]
    assert came["may_pass"] or not came["passed"], came["result"]
    assert came["changed"] == [], "files outside"
    assert "without a verdict" not in came["result"] and not came["stopped"], "no program may end its judge"
    # A program that is timed out at once has ended its judge. Threads use time up faster than the clock goes.
    shortest = hostile.LIMITS["timeout"] / 3 if came["result"] == "timed out" else 0
    assert shortest < came["seconds"] < PATIENCE
    assert came["result"].encode(), "a file can hold it"


def test_hostile_programs_leave_nothing_behind(outcome):
    assert {what: left for what, left in outcome["left"].items() if left} == {}
    assert outcome["peak_mb"] < hostile.LIMITS["memory_mb"] + 64


def test_hostile_programs_fail_for_what_they_try_and_not_by_a_mistake(outcome):
    """A program that cannot even be run, or gives wrong arguments to the kernel, would show nothing."""
    mistakes = ["NameError", "SyntaxError", "AttributeError", *(f"[Errno {number}]" for number in (2, 9, 14, 15, 22))]
    results = {name: str(came["result"]) for name, came in outcome["programs"].items() if "strange" not in name}
    assert {name: text for name, text in results.items() if any(mistake in text for mistake in mistakes)} == {}
