"""The end of a run that is stopped: signals that come twice, what must be on the disk, and what a resumed run makes up."""

import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from bad_data import bad_data
from test_resume import RUN, metrics, train, weights

import pretrain
from configurator import Stopped, UserError
from tests.faults.common import forked
from training import checkpoint, resume
from training.machine import StopRequested
from training.optim import Schedule


def sent_twice(number, by_torchrun):
    """What a process says behind two signals."""
    read_end, write_end = os.pipe()

    def work():
        """In a fork, whose handlers are those of a program that begins."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_DFL)
        os.environ |= {"TORCHELASTIC_RUN_ID": "run"} if by_torchrun else {}
        with StopRequested() as stop:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            os.write(write_end, f"saved {int(stop.signal)}".encode())
        return 0

    os.waitpid(forked(work), 0)
    os.close(write_end)
    with open(read_end) as said:
        return said.read()


def test_a_signal_that_a_launcher_passes_on_once_more_leaves_time_to_save():
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert sent_twice(number, False) == sent_twice(number, True) == f"saved {int(number)}"
    assert sent_twice(signal.SIGINT, False) == "", "a person's second Ctrl-C ends at once"
    assert sent_twice(signal.SIGINT, True) == f"saved {int(signal.SIGINT)}"


def test_a_run_that_ends_where_it_was_stopped_is_evaluated(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(workdir)
    train(pretrain, *RUN, f"--out_dir={tmp_path}/run", "--save_every=2", "--eval_every=0", "--keep=9")
    for folder in checkpoint.saved(tmp_path / "run"):
        if folder.name > "step_00000002":
            shutil.rmtree(folder)
    train(pretrain, *RUN, f"--out_dir={tmp_path}/run", "--resume", "--max_steps=2", "--eval_every=0")
    assert [line["step"] for line in metrics(tmp_path / "run") if "sources" in line] == [2]


def train_with_bad_steps(bad, *arguments, then=lambda step: None):
    """Train where the data of these steps have a loss that is not a number; then(step) is called behind such a step."""
    with bad_data(bad, then=then):
        train(pretrain, *RUN, *arguments)


def test_a_stop_among_bad_steps_saves_none_of_them(workdir, tmp_path, monkeypatch):
    """Else the run would go back to them. It ends as it would have without the stop."""
    monkeypatch.chdir(workdir)
    whole, stopped = f"--out_dir={tmp_path}/whole", f"--out_dir={tmp_path}/stopped"
    train_with_bad_steps({4, 5, 6}, whole)
    with pytest.raises(Stopped, match="after step 6, --resume goes on from step 4"):
        stop = lambda step: step == 5 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        train_with_bad_steps({4, 5, 6}, stopped, then=stop)
    train_with_bad_steps({4, 5, 6}, stopped, "--resume")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_run_with_another_optimizer_can_go_back(workdir, tmp_path, monkeypatch):
    """To a checkpoint that holds nothing of the new optimizer, which begins anew as it did there."""
    monkeypatch.chdir(workdir)
    out = f"--out_dir={tmp_path}/run"
    train(pretrain, *RUN, out, "--max_steps=4")
    changed = ["--optimizer=adamw", "--changed=optimizer,max_steps", "--save_every=0"]
    train_with_bad_steps({4, 5, 6}, out, "--resume", *changed)
    events = [line["event"] for line in metrics(tmp_path / "run") if "event" in line]
    assert "back to" in events[-1] and "past the data of 3 steps" in events[-1]


def test_a_longer_cosine_is_not_let_through_by_another_change():
    """lr falls along a cosine over the whole run: at each step it is another one if the run is longer."""
    before, after = (
        pretrain.Settings(schedule="cosine", max_steps=n, grad_clip=clip, changed=changed, warmup_steps=0)
        for n, clip, changed in ((1000, 1.0, []), (2000, 0.5, ["grad_clip"]))
    )
    plans = [Schedule(6e-3, settings.max_steps, 0, settings.max_steps, "cosine", 0.0) for settings in (before, after)]
    meta = {"settings": vars(before), "schedule": vars(plans[0]), "step": 500, "data": []}
    data = SimpleNamespace(identity=lambda: [])
    with pytest.raises(UserError, match="max_steps=1000, not max_steps=2000"):
        resume.compare(after, "run", meta, data, plans[1])
    after.changed = ["grad_clip", "max_steps"]
    assert "grad_clip=0.5" in resume.compare(after, "run", meta, data, plans[1])
    after.changed, after.max_steps, after.lr = ["grad_clip", "lr"], 1000, 1e-3
    assert "lr=0.001" in resume.compare(after, "run", meta, data, replace(plans[0], lr=1e-3)), "as it was told"


def test_all_that_a_checkpoint_vouches_for_is_on_the_disk(workdir, monkeypatch):
    """After a power cut a file that was not synced may be empty, and the checkpoint would be refused. A text is synced
    under the name of a new file beside it."""
    monkeypatch.chdir(workdir)
    synced, real = set(), os.fsync

    def fsync(handle):
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    train(pretrain, *RUN, "--max_steps=2", "--out_dir=synced")
    folder, _ = checkpoint.newest("synced")
    vouched = json.loads((folder / "sha256.json").read_text())
    assert "metrics.jsonl" in vouched
    assert not [name for name in vouched if not any(f"{folder}.tmp/{name}" in other for other in synced)]
