"""Settings: defaults <- TOML <- command line, types from annotations, errors in one line."""

import importlib
import re
from dataclasses import dataclass, field

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


@dataclass
class Bounds:
    # how many words
    # a text may have, at most
    max_words: int = 50


@dataclass
class Nested(Base):
    # -- what is read
    name: str = "x"  # what it is called
    bounds: Bounds = field(default_factory=Bounds)  # bounds of what is kept


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
    s = configurator.load(Settings, [str(first), "--lr=0.5", str(second)], "anneal")
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
    text = configurator.help_text(Settings, "pretrain")
    for part in ("--lr=0.001", "how fast", "--name=a#b", "what it is called", "--compile=auto", "where from"):
        assert part in text
    assert "usage: python pretrain.py" in text


def test_help_has_headings_and_comments_from_above_a_field():
    lines = configurator.help_text(Nested, "exercises").splitlines()
    assert "usage: python -m exercises" in lines[0]
    assert lines.index("what is read") < lines.index("bounds of what is kept") < lines.index("settings")
    assert "  --max_words=50                how many words a text may have, at most" in lines


@pytest.mark.parametrize("text", ["[prepare_data.bounds]\nmax_words = 7", "[prepare_data]\nname = 'y'\nmax_words = 7"])
def test_a_table_of_settings_within_a_stage(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    assert configurator.load(Nested, [str(path)], "prepare_data").bounds.max_words == 7
    for argument in ("--max_words=8", "--bounds.max_words=8"):
        assert configurator.load(Nested, [str(path), argument], "prepare_data").bounds.max_words == 8
    with pytest.raises(UserError, match="unknown setting 'other.max_words'"):
        configurator.load(Nested, ["--other.max_words=8"], "prepare_data")


def test_a_stage_that_runs_several_times_has_a_table_for_each_run(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[prepare_data]\nlr = 2\nsteps = 3\n[prepare_data.one]\nsteps = 4\n[prepare_data.two]\nname = 'x'")
    one = configurator.load(Settings, [f"{path}:one"], "prepare_data")
    two = configurator.load(Settings, [f"{path}:two", "--lr=5"], "prepare_data")
    assert (one.lr, one.steps, two.lr, two.steps, two.name) == (2.0, 4, 5.0, 3, "x")
    with pytest.raises(UserError, match="a.toml:one, .*a.toml:two"):
        configurator.load(Settings, [str(path)], "prepare_data")
    with pytest.raises(UserError, match="there is one, two"):
        configurator.load(Settings, [f"{path}:three"], "prepare_data")
    assert configurator.load(Settings, [str(path)], "pretrain") == Settings()


@pytest.mark.parametrize("run", ["", "a:b", "a\\u0000", ":"])
def test_a_run_has_a_name_that_can_be_typed(tmp_path, run):
    path = tmp_path / "a.toml"
    path.write_text(f'[prepare_data."{run}"]\nsteps = 4')
    with pytest.raises(UserError, match="no name of a run"):
        configurator.load(Settings, [f"{path}:"], "prepare_data")


def test_only_stages_have_tables(tmp_path):
    """A table named like any other file of the repository is a mistake, not to be ignored."""
    path = tmp_path / "a.toml"
    for name in ("model", "trainer", "conftest", "sample", "shards"):
        path.write_text(f"[{name}]\nlr = 1")
        with pytest.raises(UserError, match=f"unknown table .{name}."):
            configurator.load(Settings, [str(path)], "pretrain")


def test_only_one_of_several_processes_prints_the_settings(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--steps=3"])
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for rank, expected in (("0", "steps"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        configurator.run(lambda settings: None, Settings)
        assert (expected in capsys.readouterr().err) and bool(expected) == (rank == "0")


DOORS = [
    str(path.relative_to(ROOT)).removesuffix(".py").replace("/", ".")
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")])
    if re.search(r"^    configurator\.run\(main, Settings", path.read_text(encoding="utf-8"), re.MULTILINE)
]


def test_the_doors_are_found():
    assert {"pretrain", "recipe", "exercises.__main__", "cleaning.cluster", "experiments.same_results"} <= set(DOORS)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_explains_every_setting(door, monkeypatch):
    """Under headings, in the terminal's width, and none without a word: a comment that a formatter moved left four empty."""
    module = importlib.import_module(door)
    known = configurator.settings_of(module.Settings)
    assert len(known) == len(configurator.flat(module.Settings()))
    for setting in known.values():
        assert len(setting.text) > 3, f"--{setting.name} has no text"
        assert setting.heading != "settings" or len(known) < 8, f"--{setting.name} stands under no heading"
    stage, examples = door.removesuffix(".__main__"), []
    for line in module.__doc__.splitlines():
        if line.startswith("    "):
            examples.append(line)
    for columns in ("80", "90", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = configurator.help_text(module.Settings, stage, module.__doc__).splitlines()
        assert max(map(len, lines)) <= min(100, int(columns))
        assert set(examples) <= set(lines), "examples stay as they are"
    assert f"usage: python {configurator.command(stage)} " in "\n".join(lines)


def test_help_shows_the_command_as_it_was_typed(monkeypatch):
    for typed, shown in (
        ("../main/pretrain.py", "python ../main/pretrain.py ["),
        ("/x/pytest", "python pretrain.py ["),
    ):
        monkeypatch.setattr("sys.argv", [typed, "--help"])
        assert f"usage: {shown}" in configurator.help_text(Settings, "pretrain", "Text.")


def test_help_and_mistakes_at_the_terminal(tmp_path):
    assert "--vocab_size" in stage("tokenizer_train.py", "--help", cwd=tmp_path).stdout
    assert_one_line_error(
        stage("tokenizer_train.py", "--vocab_sise=1", cwd=tmp_path, check=False),
        "unknown setting 'vocab_sise'",
        "did you mean 'vocab_size'",
    )


def test_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "x.json"
    configurator.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        configurator.write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}' and list(tmp_path.iterdir()) == [path]
