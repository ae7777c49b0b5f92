"""Settings: defaults <- TOML <- command line, types from annotations, errors in one line."""

import importlib
from dataclasses import dataclass, field, fields

import pytest
from conftest import ROOT, assert_one_line_error, stage

import configurator
from configurator import UserError


@dataclass
class Base:
    lr: float = 1e-3  # how fast
    steps: int = 10  # how long


@dataclass
class Settings(Base):
    name: str = "a#b"  # what it is called
    sources: list[str] = field(default_factory=lambda: ["x"])  # where from
    compile: bool | None = None  # whether to compile
    verify: bool = True  # whether to look


@pytest.mark.parametrize(
    "argument, key, value",
    [
        ("--lr=1", "lr", 1.0),
        ("--steps=2e3", "steps", 2000),
        ("--steps=2_000", "steps", 2000),
        ("--steps=-1", "steps", -1),
        ("--compile", "compile", True),
        ("--compile=false", "compile", False),
        ("--compile=auto", "compile", None),
        ("--verify=0", "verify", False),
        ("--name=x=y", "name", "x=y"),
        ("--sources=a,b", "sources", ["a", "b"]),
        ("--name=", "name", ""),
    ],
)
def test_types_come_from_annotations(argument, key, value):
    got = getattr(configurator.load(Settings, [argument]), key)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--stepps=1", "did you mean 'steps'"),
        ("--steps=many", "whole number"),
        ("--steps=1.5", "whole number"),
        ("--lr", "--lr=..."),
        ("--verify=maybe", "true or false"),
        ("nothing.toml", "no settings file"),
        ("--steps=inf", "whole number"),
    ],
)
def test_mistakes_are_named(argument, words):
    with pytest.raises(UserError, match=words):
        configurator.load(Settings, [argument])


def test_toml_then_command_line(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text("steps = 3\nlr = 1\n[pretrain]\nn_layer = 99\n")
    second.write_text('steps = 4\nsources = ["p", "q"]\nverify = false\n')
    s = configurator.load(Settings, [str(first), "--lr=0.5", str(second)])
    assert (s.steps, s.lr, s.sources, s.verify) == (4, 0.5, ["p", "q"], False)


@pytest.mark.parametrize(
    "text, words",
    [
        ("steppes = 3", "did you mean 'steps'"),
        ("steps = 'x'", "whole number"),
        ("[pretrian]\nlr = 1", "did you mean .pretrain."),
        ("steps = = 3", "not valid TOML"),
        ("steps = true", "whole number"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, words):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        configurator.load(Settings, [str(path)])


def test_help_shows_every_setting_with_its_comment():
    text = configurator.help_text(Settings)
    for part in ("--lr", "0.001", "how fast", "--name", "a#b", "what it is called", "auto", "where from"):
        assert part in text


DOORS = [
    "tokenizer_train",
    "prepare_data",
    "pretrain",
    "anneal",
    "sft",
    "eval_humaneval",
    "exercises.__main__",
    "cleaning.classifier",
    "cleaning.cluster",
    "evaluation.score",
    "sample",
    "recipe",
    "experiments.clean_or_raw",
    "experiments.code_rules",
    "experiments.dedup_speed",
    "experiments.speed",
    "experiments.report",
    "experiments.plot",
    "experiments.presets",
    "experiments.xz_baseline",
]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_explains_every_setting(door):
    module = importlib.import_module(door)
    lines = [line for line in configurator.help_text(module.Settings).splitlines() if line.startswith("--")]
    assert len(lines) == len(fields(module.Settings)) and all(len(line.split(None, 3)) == 4 for line in lines), (
        "a setting without a comment"
    )


def test_help_and_mistakes_at_the_terminal(tmp_path):
    assert "--vocab_size" in stage("tokenizer_train.py", "--help", cwd=tmp_path).stdout
    assert_one_line_error(
        stage("tokenizer_train.py", "--vocab_sise=1", cwd=tmp_path, check=False),
        "unknown setting 'vocab_sise'",
        "did you mean 'vocab_size'",
    )


def test_recipes_load_in_every_stage():
    for path in sorted((ROOT / "configs").glob("*.toml")):
        for stage_name in ("tokenizer_train", "prepare_data", "pretrain"):
            configurator.load(importlib.import_module(stage_name).Settings, [str(path)])


def test_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "x.json"
    configurator.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        configurator.write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}' and list(tmp_path.iterdir()) == [path]
