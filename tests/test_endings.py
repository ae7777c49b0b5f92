"""How a stage ends: one line, an exit code that scripts can rely on, and nothing left behind."""

import errno
import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import CppCompileError, InductorError

import configurator
from configurator import UserError
from endings import Stopped, rank, told_in_one_line
from shards import WholeFile


def ended(capsys, error):
    """(exit code, standard error) where an error is raised."""
    with pytest.raises(SystemExit) as exit, told_in_one_line():
        raise error
    return exit.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UserError("a\nmistake"), 2, "error: a mistake\n"),
        (PermissionError(13, "Permission denied", "out/x"), 2, "error: [Errno 13] Permission denied: 'out/x'\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (Stopped(signal.SIGTERM), 143, "stopped: the same command with --resume goes on from here\n"),
        (Stopped(signal.SIGHUP, "saved"), 129, "stopped: saved\n"),
        (MemoryError("Unable to allocate 3 GiB"), 2, "error: out of memory: Unable to allocate 3 GiB\n"),
        (RuntimeError("CUDA out of memory. Tried"), 2, "error: out of memory: CUDA out of memory. Tried\n"),
        (UserError("caf\udce9 中"), 2, "error: caf\\udce9 中\n"),
        (UserError("a\r\x1b[2J\0b" + "c" * 5000), 2, "error: a [2J b" + "c" * 986 + "\n"),
    ],
)
def test_one_line_and_an_exit_code(capsys, error, code, line):
    assert ended(capsys, error) == (code, line)


def test_what_a_killed_run_left_half_compiled_is_deleted(capsys, tmp_path):
    """PyTorch would find it at every start, and fail."""
    half = tmp_path / "kernel.main.so"
    half.touch()
    spec = importlib.util.spec_from_file_location("kernel", half)
    with pytest.raises(ImportError) as failed:
        importlib.util.module_from_spec(spec)
    code, line = ended(capsys, InductorError(failed.value, inspect.currentframe()))
    assert code == 2 and line.startswith(f"error: {half} was left half-compiled") and line.count("\n") == 1
    assert not half.exists()


@pytest.mark.parametrize(
    "said",
    ["cc1plus: error: while reading precompiled header: No such file", "fatal error: cannot read {path}: No such file"],
)
def test_so_is_a_half_written_header(capsys, tmp_path, said):
    half = tmp_path / "all.h.gch"
    half.write_bytes(b"gpch")
    command, output = ["g++", "x.cpp", "-include", str(tmp_path / "all.h")], said.format(path=half)
    code, line = ended(capsys, BackendCompilerFailed("inductor", CppCompileError(command, output), None))
    assert code == 2 and line.startswith(f"error: {half} was left half-compiled") and not half.exists()


def test_a_whole_library_that_cannot_be_loaded_stays(tmp_path):
    whole = tmp_path / "kernel.main.so"
    whole.touch()
    error = InductorError(ImportError(f"{whole}: undefined symbol: f"), inspect.currentframe())
    with pytest.raises(InductorError), told_in_one_line():
        raise error
    assert whole.exists()


def test_what_is_no_mistake_of_a_person_is_raised():
    with pytest.raises(RuntimeError, match="shapes"), told_in_one_line():
        raise RuntimeError("shapes do not match")


SCRIPT = """
import os, sys, time
from dataclasses import dataclass
sys.path.insert(0, {root!r})
import configurator
from configurator import UserError

@dataclass
class Settings:
    fails: str = ""  # the processes that fail: 0,1,2
    text: str = ""  # what to print

def main(settings):
    for i in range(10**5 if settings.text else 0):
        print(settings.text)
    if os.environ.get("RANK", "0") in settings.fails.split(","):
        raise UserError("a mistake of " + os.environ["RANK"])
    time.sleep(20 if settings.fails else 0)

configurator.run(main, Settings)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(root=str(ROOT)))
    return path


def shell(command, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run(command, shell=True, capture_output=True, env=environment, timeout=60, executable="/bin/bash")


def test_a_reader_that_leaves_is_no_mistake(script):
    result = shell(f"set -o pipefail; {sys.executable} {script} --text=x | head -1")
    assert (result.stdout, result.returncode) == (b"x\n", 128 + signal.SIGPIPE)
    assert result.stderr.decode().split() == ["script:", "text", "x"], "the settings, and nothing else"
    result = shell(f"{sys.executable} {script} --help > /dev/full")
    assert (result.stderr, result.returncode) == (b"error: [Errno 28] No space left on device\n", 2)


def test_a_terminal_of_few_characters(script):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # where arguments are bytes, not characters
    for environment, shown in (
        ({"PYTHONIOENCODING": "ascii"}, rb"\u4e2d\udce9"),
        (plain, rb"\udce4\udcb8\udcad\udce9"),
    ):
        result = shell(f"{sys.executable} {script} --text=$'中\\xe9' | head -1", **environment)
        assert result.stdout == shown + b"\n" and b"Traceback" not in result.stderr


def test_one_line_under_torchrun(script, monkeypatch):
    """Two of three processes meet a mistake: one tells it, none is started again, and the third does not wait for ever."""
    monkeypatch.setenv("TMPDIR", str(script.parent))  # where torchrun leaves folders for logs
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", "--max-restarts=2"]
    result = subprocess.run([*launcher, script, "--fails=0,1"], capture_output=True, text=True, timeout=60)
    lines = [line for line in result.stderr.splitlines() if "torch/distributed/run.py" not in line]  # about threads
    assert lines == ["script:", "  fails              0,1", "error: a mistake of 0"] and result.returncode != 0
    left = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, text=True).stdout
    assert left == "", "no process waits for the others for ever"


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"WORLD_SIZE": "2"}, "start with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "start with torchrun"),
        ({"RANK": "1"}, "start with torchrun"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "start with torchrun"),
        ({"RANK": "first"}, "RANK='first'"),
        ({"RANK": ""}, "no whole numbers"),
        ({"WORLD_SIZE": "9" * 5000}, "no whole numbers"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK='-1'"),
    ],
)
def test_processes_that_nobody_started(monkeypatch, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words) as error:
        rank()
    assert len(str(error.value)) < 400


def test_the_rank_is_torchruns(monkeypatch):
    assert rank() == 0
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert rank() == 3


# -- files


def test_what_is_no_unicode_is_escaped_and_read_back(tmp_path):
    value = {"caf\udce9.py": ["\ud800", "中", "\U0001f600", "\\udce9"]}
    configurator.write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value
    configurator.write_text(tmp_path / "x.txt", "caf\udce9 中")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "caf\\udce9 中"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_names_the_path_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "out" / "x.json"
    configurator.write_json(path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left") as error:
        configurator.write_json(path, 2)
    assert error.value.filename == str(path)
    assert path.read_text() == "1" and list(path.parent.iterdir()) == [path]


def test_a_device_is_no_place_for_a_file(tmp_path):
    """As root, --out=/dev/null put a file where the machine's /dev/null was."""
    os.mkfifo(tmp_path / "pipe")
    for write in (lambda path: configurator.write_text(path, "x"), WholeFile):
        with pytest.raises(OSError, match="not a regular file: .*pipe"):
            write(tmp_path / "pipe")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"] and (tmp_path / "pipe").is_fifo()


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.json", Path("/proc/nowhere/x.json"), tmp_path / ("x" * 300)):
        with pytest.raises(OSError) as error:
            configurator.write_json(path, 1)
        assert error.value.filename == str(path)
