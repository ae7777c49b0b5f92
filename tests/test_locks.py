"""Two runs never write to one folder, and a lock leaves nothing behind."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, untrained_checkpoint, write_records

import configurator
import convert
import eval_choices
import eval_humaneval
import exercises.__main__
import shards
from configurator import UserError
from shards import exclusive

HOLD = (
    "import sys, time, shards\nwith shards.exclusive(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def holder(folder):
    """A process that holds a folder; it has it when this returns."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_trap(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "PATIENCE", 0)
    process = holder(tmp_path / "x")
    try:
        with pytest.raises(UserError, match="another run is writing to .*x"), exclusive(tmp_path / "x"):
            pass
        with exclusive(tmp_path / "y"):
            pass
        assert os.listdir(tmp_path / "x") == [], "nothing that a listing of the folder would show"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with exclusive(tmp_path / "x"):
        pass


@pytest.mark.parametrize(
    "door, arguments",
    [
        (exercises.__main__, ["--documents=9", "--chats=1", "--problems=1"]),
        (eval_humaneval, ["--problems=p.jsonl", "--samples=s.jsonl"]),
        (eval_choices, ["--questions=q.jsonl", "--checkpoint=run", "--device=cpu"]),
        (convert, ["--checkpoint=run"]),
        (convert, ["--hf=nowhere"]),
    ],
)
def test_stages_hold_the_folder_that_they_write_to(door, arguments, tmp_path, monkeypatch, tokenizer):
    """Two evaluations at once appended the same samples twice."""
    monkeypatch.setattr(shards, "PATIENCE", 0)
    monkeypatch.chdir(tmp_path)
    write_records(
        tmp_path / "p.jsonl", [{"task_id": "1", "prompt": "", "entry_point": "f", "canonical_solution": "", "test": ""}]
    )
    write_records(tmp_path / "s.jsonl", [{"task_id": "1", "completion": ""}])
    write_records(tmp_path / "q.jsonl", [{"question": "Is it?", "choices": ["no", "yes"], "answer": 1}])
    untrained_checkpoint(tmp_path / "run", tokenizer, 96)
    settings = configurator.load(door.Settings, [*arguments, "--out_dir=x"], "a stage")
    process = holder(tmp_path / "x")
    try:
        with pytest.raises(UserError, match="another run is writing to x"):
            door.main(settings)
    finally:
        process.kill()
        process.wait()
    assert os.listdir("x") == []


def test_the_lock_waits_for_the_workers_of_a_run_that_was_just_killed(tmp_path):
    """A forked worker has its parent's lock until it notices that the parent is gone."""
    ready, started = os.pipe()
    child = os.fork()
    if child == 0:
        with exclusive(tmp_path / "x"):
            if os.fork() == 0:
                time.sleep(0.3)
                os._exit(0)
            os.write(started, b"1")
            os.kill(os.getpid(), signal.SIGKILL)
    os.read(ready, 1)
    os.waitpid(child, 0)
    with exclusive(tmp_path / "x"):
        pass


def test_a_folder_that_stays_empty_goes_again_and_one_that_was_there_stays(tmp_path):
    with exclusive(tmp_path / "a"):
        pass
    with exclusive(tmp_path / "b"):
        (tmp_path / "b/file").touch()
    (tmp_path / "c").mkdir()
    with exclusive(tmp_path / "c"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL])
def test_a_file_system_without_locks_goes_without(tmp_path, monkeypatch, code):
    def no_locks(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with exclusive(tmp_path / "x"):
        (tmp_path / "x/file").touch()
    assert (tmp_path / "x/file").exists()
