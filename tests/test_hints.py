"""What a message tells a person to type next makes what is missing, with its sources."""

import importlib
import os
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, door_error

import anneal
import configurator
import hints
import pretrain
from configurator import UserError
from shards import Shards
from tokenizer import Tokenizer

MAKERS = [*hints.STAGES, *hints.recipes()]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")


def commands_in(message):
    return re.findall(r"`([^`]+)`", message)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.command)
def test_a_command_makes_what_it_is_said_to_make(maker):
    """Read as its stage reads it, it is valid and names that output and those inputs."""
    script, *arguments = shlex.split(maker.command.removeprefix("python ").removeprefix("-m "))
    name = script.removesuffix(".py").removeprefix("cleaning.")
    module = importlib.import_module(configurator.MODULES.get(name, name))
    settings = configurator.flat(configurator.load(module.Settings, arguments, name))
    assert Path(maker.output).is_relative_to(settings.get("out_dir", settings.get("out")))
    named = " ".join(str(value) for value in settings.values())
    inputs = (
        maker.inputs if maker in hints.STAGES else [path for path in maker.inputs if path.startswith(("data/", "out/"))]
    )
    for path in inputs:
        assert path in named


def test_all_that_is_missing_is_made_in_its_order():
    message = hints.how_to_make("data/demo/exercise-pages")
    assert commands_in(message) == [
        "python -m exercises configs/demo.toml",
        "python tokenizer_train.py configs/demo.toml",
        "python prepare_data.py configs/demo.toml:exercise-pages",
    ]
    assert commands_in(hints.how_to_make("out/sft"))[-2:] == ["python anneal.py --best_fit", "python sft.py"]


def test_what_was_made_before_is_not_made_again(tmp_path):
    for file in ("data/tokenizer.json", "data/exercises/documents.jsonl"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    pages = "python prepare_data.py --sources=data/exercises/documents.jsonl --out_dir=data/exercise-pages"
    assert commands_in(hints.how_to_make("data/exercise-pages")) == [pages]


@pytest.mark.parametrize("spelled", ["data/stdlib", "data/stdlib/", "./data//stdlib", "data/x/../stdlib", "absolute"])
def test_a_folder_is_known_however_it_is_spelled(tmp_path, spelled):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tokenizer.json").touch()
    path = tmp_path / "data/stdlib" if spelled == "absolute" else spelled
    assert commands_in(hints.how_to_make(path)) == ["python prepare_data.py"]


def test_a_folder_that_nobody_makes_needs_your_text():
    assert hints.how_to_make("data/mine") == ""
    with pytest.raises(UserError, match="no shards in data/mine: run `python prepare_data.py --sources=YOUR_TEXT "):
        Shards("data/mine", "train")
    with pytest.raises(UserError, match="`python tokenizer_train.py --sources=YOUR_TEXT --out=data/my.json`"):
        Tokenizer.load("data/my.json")
    with pytest.raises(
        UserError, match="no tokenizer data/tokenizer.json: run `python tokenizer_train.py`; a SentencePiece"
    ):
        Tokenizer.load("data/tokenizer.json")
    with pytest.raises(UserError, match="no tokenizer gtp2; a SentencePiece .model serves too, or one of gpt2,"):
        Tokenizer.load("gtp2")
    os.mkfifo("pipe.json")
    for place in ("pipe.json", "."):
        with pytest.raises(UserError, match=f"no tokenizer {place}"):
            Tokenizer.load(place)


def test_no_hint_makes_a_copy_of_the_library_under_another_name():
    """`prepare_data.py --out_dir=data/exercise-pages` did: annealing then learnt from the wrong text."""
    error = door_error(pretrain, "--data=data/exercise-pages", "--n_layer=2", "--compile=false")
    assert "--sources=data/exercises/documents.jsonl --out_dir=data/exercise-pages" in error
    assert anneal.Settings().data.count("data/exercise-") == 2, "which the hints must know"


def test_a_recipe_that_is_broken_gives_no_hints_and_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "mine/configs").mkdir(parents=True)
    (tmp_path / "mine/configs/a.toml").write_text("[")
    (tmp_path / "mine/configs/b.toml").write_text(
        '[prepare_data]\nout_dir = "c/d"\nsources = ["e"]\n[prepare_data.rules]\n'
    )
    monkeypatch.setattr(hints, "ROOT", tmp_path / "mine")
    assert commands_in(hints.how_to_make("c/d")) == ["python prepare_data.py configs/b.toml"]
