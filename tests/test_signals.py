"""Signals during training: what they prevent is made up when the run goes on."""

import contextlib
import os
import signal

import pytest
from test_processes import in_processes
from test_resume import RUN, metrics, steps, train

import pretrain
import recipe
from configurator import Stopped
from evaluation import generate
from training import validation

SAMPLE = ["--sample=def"]  # at every evaluation


@pytest.fixture(scope="module")
def trained(workdir):
    """A run of eight steps that no signal reached."""
    with contextlib.chdir(workdir):
        train(pretrain, *RUN, *SAMPLE, "--out_dir=undisturbed")
    return workdir / "undisturbed"


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_evaluation_that_a_signal_prevented_is_made_up(trained, here, tmp_path, monkeypatch, number):
    """The signal comes at the end of step 4, after which an evaluation is due."""
    step_of_4 = iter([None, None, None, number])
    real = pretrain.train_step

    def interrupted(*arguments):
        result = real(*arguments)
        if (now := next(step_of_4)) is not None:
            os.kill(os.getpid(), now)
        return result

    monkeypatch.setattr(pretrain, "train_step", interrupted)
    with pytest.raises(Stopped) as stopped:
        train(pretrain, *RUN, *SAMPLE, f"--out_dir={tmp_path}/run")
    monkeypatch.setattr(pretrain, "train_step", real)
    assert stopped.value.signal_number == number and steps(tmp_path / "run")[-1] == 4
    assert all("val_loss" not in line for line in metrics(tmp_path / "run"))
    train(pretrain, *RUN, *SAMPLE, f"--out_dir={tmp_path}/run", "--resume")
    assert metrics(tmp_path / "run") == metrics(trained)


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("module, name", [(validation, "make_batch"), (generate, "go_on")])
def test_an_evaluation_is_given_up_at_a_signal_and_made_up(trained, here, tmp_path, monkeypatch, module, name, step):
    """It comes in the midst of the validation, or of a sample. The evaluation of step 8 is the last: there is nothing
    else left to do, and it comes to its end."""
    trains, calls, real_step, real_call = [], [], pretrain.train_step, getattr(module, name)

    def counted(*arguments):
        trains.append(step)
        return real_step(*arguments)

    def interrupted(*arguments, **named):
        if len(trains) == step:
            calls.append(arguments)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return real_call(*arguments, **named)

    monkeypatch.setattr(pretrain, "train_step", counted)
    monkeypatch.setattr(module, name, interrupted)
    with contextlib.nullcontext() if step == 8 else pytest.raises(Stopped):
        train(pretrain, *RUN, *SAMPLE, f"--out_dir={tmp_path}/run")
    assert steps(tmp_path / "run")[-1] == step and (len(calls) == 1) == (step == 4)
    if step == 4:
        assert all("val_loss" not in line for line in metrics(tmp_path / "run"))
        train(pretrain, *RUN, *SAMPLE, f"--out_dir={tmp_path}/run", "--resume")
    assert metrics(tmp_path / "run") == metrics(trained)


def interrupted_in_a_sample(*arguments):
    """Pretrain; a signal comes to the process that writes, which is the main one, and to no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "go_on", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        train(pretrain, *RUN, *SAMPLE, *arguments)


def test_what_the_main_process_gives_up_is_given_up_in_all(here, tmp_path):
    whole, parts = f"--out_dir={tmp_path}/whole", f"--out_dir={tmp_path}/parts"
    assert in_processes(2, train, pretrain, *RUN, *SAMPLE, whole) == [None, None]
    assert [type(end) for end in in_processes(2, interrupted_in_a_sample, parts)] == [Stopped, Stopped]
    assert steps(tmp_path / "parts")[-1] == 4
    assert in_processes(2, train, pretrain, *RUN, *SAMPLE, parts, "--resume") == [None, None]
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_what_nohup_ignores_stays_ignored():
    hang_up = ["-c", "import os, signal; os.kill(os.getppid(), signal.SIGHUP)"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pretrain.machines.StopRequested() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == 0
        recipe.run(hang_up)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, lambda *_: None)
        with pytest.raises(Stopped):
            recipe.run(hang_up)
    finally:
        signal.signal(signal.SIGHUP, before)
