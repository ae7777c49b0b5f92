"""The comparison of ways to learn behind tuning: equal attempts, and differences to the model that each began with."""

import pytest
from conftest import write_records

from configurator import UserError
from experiments import after_tuning
from experiments.after_tuning import Settings
from experiments.common import print_spread


def test_all_ways_have_equally_many_attempts_or_none(tmp_path):
    practice = write_records(tmp_path / "practice.jsonl", [{"task_id": str(n)} for n in range(60)])
    settings = Settings(practice=str(practice), steps=15, n_problems=4)
    after_tuning.check(settings)
    stages = after_tuning.stages(settings, tmp_path, "out/sft", 3)
    for arm in ("grpo", "ppo"):
        script, *arguments = stages[arm]
        given = dict(argument.split("=") for argument in arguments if "=" in argument)
        assert int(given["--max_steps"]) * int(given["--n_problems"]) == 60 and given["--seed"] == "3"
        assert given["--replay"] == settings.library
        assert script == "grpo.py" and ("--critic" in arguments) == (arm == "ppo")
        learns = given["--optimizer"], float(given["--lr"])
        assert learns == {"grpo": ("muon", 1e-3), "ppo": ("adamw", 3e-4)}[arm], "as in experiments/README.md"
    without = after_tuning.stages(Settings(replay_weight=0), tmp_path, "out/sft", 3)
    assert not any(argument.startswith("--replay") for stage in without.values() for argument in stage)
    with pytest.raises(UserError, match="has 60 problems, and 16 steps ask 64"):
        after_tuning.check(Settings(practice=str(practice), steps=16, n_problems=4))


def test_changes_are_to_the_model_that_each_began_with(capsys):
    """By hand: +0.1 and +0.3 are +0.2, with a standard error of 0.1; both cost 0.5 bits per byte."""
    before = [{"pass@1": 0.1, "pass@16": 0.5, "bpb": 2.0}, {"pass@1": 0.5, "pass@16": 0.6, "bpb": 3.0}]
    after = [{"pass@1": 0.2, "pass@16": 0.5, "bpb": 2.5}, {"pass@1": 0.8, "pass@16": 0.6, "bpb": 3.5}]
    print_spread({"tuned": before, "grpo": after}, after_tuning.COLUMNS)
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split() == "grpo 0.200 +- 0.100 0.000 +- 0.000 0.500 +- 0.000".split()
