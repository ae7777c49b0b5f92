"""Every setting of every door is tried with values that have gone wrong somewhere: refused in a line, or a sane value."""

import importlib
import math
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Literal

import pytest
from conftest import ROOT
from test_configurator import DOORS

import configurator
from configurator import UserError
from ranges import Count, Range, Share, ShareBetween, Text, kind_of, value_of

HUGE = "9" * 5000  # more digits than Python turns into a number
ODD = ["-1", "0", "nan", "-inf", "inf", "1e30", "1e400", "", "x", "auto", HUGE, "a\0b", "\udce9", "-0.0", "1_0", "٣"]
OF_TOML = [True, -1, 0, math.nan, math.inf, 10**5000, "x", "a\0b", [], ["a,b"], [["a"]], [1], {"a": 1}, None]


@dataclass
class Settings:
    steps: Count = 3  # how long
    share: Share | None = None  # how much
    tasks: Annotated[int, Range(2, 5)] = 2  # a range of its own
    way: Literal["fast", "slow"] = "fast"  # a choice
    prompt: Text = ""  # what is read
    folder: str = "x"  # any bytes
    sources: list[str] = field(default_factory=list)  # several


def is_sane(kind, value):
    """Whether a setting that was accepted is finite, within its range, and of its type."""
    if value is None:
        return kind.has_auto
    if kind.type is list:
        return all(isinstance(part, str) and "\0" not in part for part in value)
    if kind.type is str:
        return "\0" not in value and (kind.allowed is None or value in kind.allowed)
    return type(value) is kind.type and math.isfinite(value) and (kind.allowed is None or value in kind.allowed)


@pytest.mark.parametrize("door", DOORS)
def test_every_setting_refuses_what_makes_no_sense(door):
    known = configurator.settings_of(importlib.import_module(door).Settings)
    for name, setting in known.items():
        assert setting.kind.type in (bool, str, list) or setting.kind.allowed or name in ("min_score", "max_score")
        assert setting.default is None or is_sane(setting.kind, setting.default), f"{name} begins outside its range"
        for given in (*ODD, *OF_TOML):
            try:
                value = configurator.convert(known, name, given, "here")
            except UserError as error:
                assert name in str(error) and "here" in str(error) and len(str(error)) < 400
                assert str(setting.kind) in str(error), "the message says what is allowed"
            else:
                assert is_sane(setting.kind, value), f"{name} takes {given!r:.50}"


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--steps=0", "whole number .1 to 1e8., got '0'"),
        ("--steps=1e9", "1 to 1e8"),
        (f"--steps={HUGE}", r"got '999+\.\.\.$"),
        ("--share=nan", "number .0 to 1. or auto, got 'nan'"),
        ("--tasks=6", "2 to 5"),
        ("--way=fasst", "fast | slow, got 'fasst'; did you mean 'fast'"),
        ("--prompt=\udce9", "valid UTF-8"),
        ("--folder=a\0b", "needs text, got"),
        ("--sources=a\0b", "a,b,c"),
    ],
)
def test_a_message_names_the_setting_the_value_and_the_range(argument, words):
    with pytest.raises(UserError, match=words) as error:
        configurator.load(Settings, [argument])
    assert argument[2:].partition("=")[0] in str(error.value) and len(str(error.value)) < 250


def test_bounds_belong_to_a_range_or_do_not():
    for number, inside in ((0, True), (1, True), (-1e-9, False), (1.1, False), (math.nan, False)):
        assert (number in Range(0, 1)) == inside
    assert 0 not in Range(0, 1, without_low=True) and 1 not in Range(0, 1, without_high=True)
    assert str(kind_of(ShareBetween)) == "a number (above 0 to below 1)"
    assert value_of(kind_of(Count | None), "AUTO") is None and value_of(kind_of(Count), "1e8") == 10**8
    assert value_of(kind_of(str), "caf\udce9") == "caf\udce9", "the name of a file may be any bytes"


def test_help_shows_the_range():
    text = configurator.help_text(Settings, "pretrain")
    for part in ("how long (1 to 1e8)", "a choice (fast | slow)", "(2 to 5)", "what is read (valid UTF-8"):
        assert part in text


@pytest.mark.parametrize(
    "text, key, value",
    [
        ('sources = ["a,b", "c"]', "sources", ["a,b", "c"]),
        ("\ufeffsteps = 7", "steps", 7),
        ("steps = 2e3", "steps", 2000),
        ('steps = "5"', "steps", 5),
        ('share = "auto"', "share", None),
        ("folder = 3090", "folder", "3090"),
        ("[pretrain]\r\nsteps = 4\r\n", "steps", 4),
    ],
)
def test_values_of_a_file_stay_what_they_are(tmp_path, text, key, value):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    assert getattr(configurator.load(Settings, [str(tmp_path / "a.toml")], "pretrain"), key) == value


@pytest.mark.parametrize(
    "text, words",
    [
        ("pretrain = 3", "under a line .pretrain."),
        ("[[pretrain]]\nsteps = 3", "under a line .pretrain."),
        ("[[steps]]\na = 3", "steps.*whole number"),
        ('sources = [["a"]]', "sources"),
        ("sources = [1]", "sources"),
        ('sources = "a,b"', "sources"),
        ('folder = ["a", "b"]', "folder"),
        ("steps = [1]", "steps"),
        (f"steps = {HUGE}", "not valid TOML"),
        (f"steps = 0x{'f' * 5000}", "something very long"),
        ("folder = 2020-01-01", "folder"),
        ("steps = 12:30:00", "steps"),
        ("steps = nan", "steps"),
        ('folder = "a\\u0000b"', "folder"),
        ('folder = "\\ud800"', "not valid TOML"),
        (f"steps = {'[' * 20_000}", "not valid TOML"),
        (f"[pretrain]\nsteps{'.a' * 2000} = 1", "steps|runs pretrain"),
        ("steps = 1\nsteps = 2", "not valid TOML"),
        ("[pretrain]\nsteps = 0", r"a.toml: \[pretrain\]"),
        ("[pretrain]\nstepps = 1", r"a.toml: \[pretrain\].; did you mean 'steps'"),
        ("[pretrain.one]\nsteps.x = 1", r"one"),
        ("[pretain]\nsteps = 1", "did you mean 'pretrain'"),
    ],
)
def test_what_no_settings_file_should_hold_is_named(tmp_path, text, words):
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words) as error:
        configurator.load(Settings, [str(path)], "pretrain")
    assert "a.toml" in str(error.value) and len(str(error.value)) < 400


def test_a_settings_file_may_be_no_file(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'folder = "caf\xe9"')
    for path in (str(tmp_path), "a\0b", "x" * 5000, "", str(tmp_path / "latin.toml"), "no\udce9.toml"):
        with pytest.raises(UserError):
            configurator.load(Settings, [path], "pretrain")


PIECES = [
    "[",
    "]",
    "[[",
    '"',
    "'",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r",
    "\0",
    "\ufeff",
    "é",
    "steps",
    "sources = [",
    "share",
]
PIECES += [
    "pretrain",
    "prepare_data",
    "1",
    "-",
    "1e400",
    "nan",
    "true",
    "2020-01-01",
    "\\ud800",
    HUGE,
    "[" * 3000,
    "{a=1}",
]


def test_whatever_is_given_ends_in_settings_or_in_one_message(tmp_path):
    """Recipes with lines left out and odd pieces put in, and odd arguments."""
    random, path, accepted = Random(1), tmp_path / "a.toml", 0
    recipe = (ROOT / "configs/124m.toml").read_text(encoding="utf-8").splitlines()
    settings = importlib.import_module("prepare_data").Settings
    for _ in range(200):
        lines = list(recipe)
        for _ in range(random.randrange(3)):
            del lines[random.randrange(len(lines))]
            lines.insert(random.randrange(len(lines) + 1), "".join(random.choices(PIECES, k=random.randrange(1, 5))))
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        arguments = [f"{path}{random.choice(['', ':', ':code', ':math'])}"]
        for _ in range(random.choice([0, 0, 1, 2])):
            name = random.choice([*configurator.settings_of(settings), *PIECES])
            arguments.append(
                random.choice(["", "-", "--", "--rules."]) + name + random.choice(["", "=", "=="]) + random.choice(ODD)
            )
        try:
            configurator.load(settings, arguments, "prepare_data")
            accepted += 1
        except UserError:
            pass
    assert 10 < accepted < 190
