"""A context is lengthened: what positions become, from stage to stage, and that such a run goes on after a stop."""

import contextlib
import shutil

import pytest
from conftest import TINY_MODEL, door_error
from test_resume import metrics, train, weights

import anneal
import later
import pretrain
from model import ModelConfig
from training import checkpoint, resume

QUIET = ["--data=data/shards", "--compile=false", "--log_every=1", "--eval_tokens=500", "--save_every=0"]
LONGER = ["--block_size=128", "--rope_scaling=yarn", "--shifted_attention", "--max_steps=4"]


def lengthened(config, **settings):
    """(block_size, rope_scaling, rope_factor, rope_trained) of a later stage with these settings."""
    c = resume.lengthened(config, later.LaterSettings(**settings))
    return c.block_size, c.rope_scaling, c.rope_factor, c.rope_trained


def test_positions_are_stretched_from_the_length_that_was_trained():
    trunk = ModelConfig(block_size=256)
    assert lengthened(trunk) == (256, "none", 1, 0)
    assert lengthened(trunk, block_size=1024) == (1024, "none", 1, 0)
    assert lengthened(trunk, block_size=1024, rope_scaling="ntk") == (1024, "ntk", 4, 256)
    assert lengthened(trunk, block_size=1024, rope_scaling="yarn", rope_factor=8) == (1024, "yarn", 8, 256)
    longer = ModelConfig(block_size=1024, rope_scaling="yarn", rope_factor=4.0, rope_trained=256)
    assert lengthened(longer) == (1024, "yarn", 4, 256)
    assert lengthened(longer, block_size=256) == (256, "yarn", 4, 256), "short rows undo nothing"
    assert lengthened(longer, block_size=2048) == (2048, "yarn", 8, 256)
    assert lengthened(longer, rope_scaling="linear") == (1024, "linear", 4, 256)
    half = ModelConfig(block_size=1024, rope_scaling="yarn", rope_factor=2.0, rope_trained=256)
    assert lengthened(half) == lengthened(half, block_size=1024) == (1024, "yarn", 2, 256), "as it was chosen"
    assert lengthened(half, block_size=2048) == (2048, "yarn", 8, 256)
    assert lengthened(longer, rope_scaling="none") == (1024, "none", 1, 0)
    with pytest.raises(ValueError, match="needs a block_size longer"):
        lengthened(trunk, rope_scaling="yarn")
    with pytest.raises(ValueError, match="needs a block_size longer"):
        lengthened(trunk, rope_factor=4)


@pytest.fixture(scope="module")
def longer(workdir):
    """An anneal on rows four times as long as the trunk's."""
    with contextlib.chdir(workdir):
        trunk = [*TINY_MODEL, "--batch_tokens=256", "--warmup_steps=1", "--max_steps=2", "--out_dir=short"]
        train(pretrain, *QUIET, *trunk)
        train(anneal, *QUIET, *LONGER, "--init=short", "--save_every=2", "--out_dir=stretched")
    return workdir / "stretched"


def test_a_run_on_longer_rows_goes_on_as_if_never_stopped(longer, workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(workdir)
    shutil.copytree(longer, tmp_path / "half")
    shutil.rmtree(tmp_path / "half/step_00000004")
    for settings in (LONGER, [*LONGER, "--rope_scaling=auto", "--block_size=auto"]):
        shutil.copytree(tmp_path / "half", tmp_path / "again", dirs_exist_ok=True)
        train(anneal, *QUIET, *settings, "--save_every=2", f"--out_dir={tmp_path}/again", "--resume")
        assert weights(tmp_path / "again") == weights(longer)
        assert metrics(tmp_path / "again") == metrics(longer)
        shutil.rmtree(tmp_path / "again")
    settings = checkpoint.newest(longer)[1]["settings"]
    assert (settings["rope_scaling"], settings["rope_factor"], settings["block_size"]) == ("yarn", 4.0, 128)
    whole = [setting for setting in LONGER if setting != "--shifted_attention"]
    assert "shifted_attention=True, not shifted_attention=False" in door_error(
        anneal, *QUIET, *whole, f"--out_dir={tmp_path}/half", "--resume"
    )


def test_shifted_attention_changes_what_is_learnt(longer, workdir, tmp_path, monkeypatch):
    """From the first step on, whose loss is that of the trunk's weights for both."""
    monkeypatch.chdir(workdir)
    whole = [setting for setting in LONGER if setting != "--shifted_attention"]
    train(anneal, *QUIET, *whole, "--init=short", f"--out_dir={tmp_path}/whole")
    assert metrics(tmp_path / "whole")[0]["loss"] != metrics(longer)[0]["loss"]
    assert weights(tmp_path / "whole") != weights(longer)


def test_a_scaling_without_a_longer_context_is_one_line(longer, workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    error = door_error(anneal, *QUIET, "--init=short", "--rope_scaling=yarn", "--max_steps=1", "--out_dir=nothing")
    assert "needs a block_size longer" in error and not (workdir / "nothing").exists()
