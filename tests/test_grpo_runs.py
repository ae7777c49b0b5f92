"""A run of grpo.py that stops, or has two processes, is the same run; what a resumed one refuses."""

import itertools
import math
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import test_grpo
from conftest import alone, door_error, write_records
from test_evaluation import problem_file
from test_grpo import PLAN, made, run
from test_processes import in_processes, metrics, tensors

import grpo
import pretrain
from configurator import Stopped, UserError
from evaluation import attempts, generate
from training import checkpoint

here, letters = test_grpo.here, test_grpo.letters  # fixtures


@pytest.mark.parametrize("arguments", [["--kl=0.1"], ["--critic", "--updates=3", "--replay=HERE/shards"]])
def test_a_run_that_stopped_between_two_steps_on_the_same_attempts_is_the_unbroken_one(
    here, letters, tmp_path, arguments
):
    run(here, *arguments, f"--out_dir={tmp_path}/whole", "--max_steps=6")
    run(here, *arguments, f"--out_dir={tmp_path}/parts", "--max_steps=6", "--save_every=2")
    for name in ("step_00000004", "step_00000006"):  # as a signal leaves it, after step 2
        shutil.rmtree(tmp_path / "parts" / name)
    run(here, *arguments, f"--out_dir={tmp_path}/parts", "--max_steps=6", "--resume")
    assert tensors(tmp_path / "whole/step_00000006") == tensors(tmp_path / "parts/step_00000006")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def stopped_while_writing(n_steps, *arguments):
    """Train; in the last process a signal comes before a token of the attempts behind n_steps. Returns how many of
    their tokens are computed from there on."""
    trains, calls, real_step, real_go_on = [], [], pretrain.train_step, generate.go_on

    def counted(*arguments):
        trains.append(arguments)
        return real_step(*arguments)

    def interrupted(*arguments):
        if len(trains) == n_steps and int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1:
            calls.append(arguments)
            os.kill(os.getpid(), signal.SIGTERM)
        real_go_on(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(pretrain, "train_step", counted)
        patch.setattr(generate, "go_on", interrupted)
        run(*arguments)
    return len(calls)


@pytest.mark.parametrize("n", [1, 2])
def test_attempts_are_given_up_at_a_signal_and_made_up(here, letters, tmp_path, n):
    """It comes to one process, at the first step, where there is nothing to be saved, and at the third."""
    whole, parts = f"--out_dir={tmp_path}/whole", f"--out_dir={tmp_path}/parts"
    assert in_processes(n, run, here, whole) == [None] * n
    assert in_processes(n, stopped_while_writing, 0, here, parts) == [0, 1][-n:]
    assert not list(tmp_path.glob("parts/step_*"))
    assert in_processes(n, stopped_while_writing, 2, here, parts) == [0, 1][-n:]
    assert [folder.name for folder in checkpoint.saved(tmp_path / "parts")] == ["step_00000002"]
    assert in_processes(n, run, here, parts, "--resume") == [None] * n
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert tensors(tmp_path / "parts/step_00000004") == tensors(tmp_path / "whole/step_00000004")


def test_what_was_drawn_in_vain_is_not_counted_twice(here, letters):
    """A signal comes between a step's attempts and its update: the checkpoint counts what was learnt from alone."""
    _, _, data = made(here)
    data.batch(0, alone(), PLAN)
    on_time = data.position(1)
    data.batch(1, alone(), PLAN)
    assert data.position(1) == on_time and data.position(2)["tokens"] > on_time["tokens"] > 0


def test_a_run_with_a_reward_model_saves_and_goes_on(here, tmp_path, monkeypatch):
    """Its problems are a folder of pairs, which the checkpoint knows by what is asked."""
    monkeypatch.setattr("training.log.peak_flops", lambda *_: (1e12, "not measured"))
    monkeypatch.setattr(grpo, "check", lambda *_: None)  # the base model stands in for a tuned one
    judge = SimpleNamespace(config=SimpleNamespace(block_size=96))
    monkeypatch.setattr(attempts, "load_model", lambda *_, **__: (judge, None, {}))
    monkeypatch.setattr(attempts, "rewards", lambda _, __, asked, ___: [float(len(m[-1]["content"])) for m in asked])
    (tmp_path / "asked").mkdir()
    pairs = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in "abcd"]
    write_records(tmp_path / "asked/pairs.jsonl", pairs[:3])
    how = [f"--problems={tmp_path}/asked", "--reward_model=out/reward", f"--out_dir={tmp_path}/run", "--save_every=2"]
    run(here, *how)
    shutil.rmtree(tmp_path / "run/step_00000004")
    run(here, *how, "--resume")
    assert checkpoint.newest(tmp_path / "run")[1]["step"] == 4
    shutil.rmtree(tmp_path / "run/step_00000004")
    write_records(tmp_path / "asked/pairs.jsonl", pairs)
    with pytest.raises(UserError, match="learnt from other problems"):
        run(here, *how, "--resume")
    judge.config.block_size = 8
    with pytest.raises(UserError, match="0 problems that leave 6 tokens of 8 for an answer"):
        run(here, *how, f"--out_dir={tmp_path}/short")


def test_no_process_is_without_a_row(here, letters, tmp_path):
    errors = in_processes(3, run, here, f"--out_dir={tmp_path}/three")
    assert all("3 processes for the 2 rows" in str(error) for error in errors)


@pytest.mark.parametrize("arguments", [[], ["--critic", "--updates=2", "--kl=0.1", "--replay=HERE/shards"]])
def test_two_processes_are_one(here, letters, tmp_path, arguments):
    assert in_processes(2, run, here, *arguments, f"--out_dir={tmp_path}/two") == [None, None]
    assert in_processes(1, run, here, *arguments, f"--out_dir={tmp_path}/one") == [None]
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for a, b in itertools.zip_longest(one, two):
        assert a.keys() == b.keys()
        for key in a:
            if key not in ("sources", "grad_norm", "loss"):
                assert a[key] == pytest.approx(b[key], abs=1e-4), key
            elif key != "sources":
                assert math.isclose(a[key], b[key], rel_tol=1e-3, abs_tol=1e-4), key


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--n_problems=9"], "5 problems"),
        (["--group_size=1"], "--critic"),
        (["--critic", "--by_std"], "groups"),
        (["--gae_lambda=0.5"], "give --critic"),
        (["--clip_low=0.1"], "do nothing with updates=1"),
        (["--replay_weight=2"], "give --replay"),
        (["--replay_weight=0"], "above 0"),
        (["--replay=nowhere"], "no shards in nowhere"),
        (["--reward_model=out/reward"], "a tuned model"),
        (["--max_new_tokens=96"], "leave 96 tokens"),
    ],
)
def test_mistakes_are_told_in_a_line(here, tmp_path, arguments, words):
    places = [f"--init={here}/base", f"--problems={here}/problems.jsonl", "--device=cpu", f"--out_dir={tmp_path}/out"]
    assert words in door_error(grpo, *places, "--max_new_tokens=6", *arguments)


def test_a_resumed_run_goes_on_with_the_same_problems(here, letters, tmp_path):
    run(here, f"--out_dir={tmp_path}/out", "--max_steps=2")
    other, _ = problem_file(tmp_path, count=6)
    with pytest.raises(UserError, match="other problems"):
        run(here, f"--out_dir={tmp_path}/out", "--max_steps=4", "--resume", f"--problems={other}")


def test_a_replay_may_be_moved_but_not_be_another(here, letters, tmp_path):
    run(here, f"--out_dir={tmp_path}/out", "--max_steps=2", "--replay=HERE/shards")
    shutil.copytree(here / "shards", tmp_path / "moved")
    again = [f"--out_dir={tmp_path}/out", "--max_steps=4", "--resume", "--changed=max_steps"]
    with pytest.raises(UserError, match="other text than --replay="):
        run(here, *again)
    run(here, *again, f"--replay={tmp_path}/moved")
    assert checkpoint.newest(tmp_path / "out")[1]["step"] == 4
