"""recipe.py: the whole demo on a tiny scale, going on after a kill, and recipes that lack nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_MODEL, assert_one_line_error, load_model, stage

import configurator
import recipe
from configurator import UserError
from corpus.benchmarks import DOWNLOADS
from corpus.sources import parsed

TINY = {
    "exercises": ["documents = 150", "chats = 60", "problems = 3"],
    "tokenizer_train": ["max_bytes = 300_000", "vocab_size = 512"],
    "prepare_data": ["val_fraction = 0.1"],
    "prepare_data.stdlib": ['sources = ["stdlib?documents=100"]'],
    "pretrain": ["n_layer = 1", "n_embd = 32", "n_head = 2", "n_kv_head = 2", "max_steps = 3", "warmup_steps = 1"],
    "anneal": ["decay_tokens = 2048"],
    "sft": ["max_steps = 2"],
    "eval_humaneval": ["max_new_tokens = 8"],
}
TRAINED = ["compile = false", "eval_tokens = 1000", "batch_tokens = 1024"]


def write_tables(path, tables):
    path.write_text("".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in tables.items()))
    return path


@pytest.fixture(scope="module")
def tiny_demo(tmp_path_factory):
    """The demo's recipe in a folder of its own, a file that makes it tiny, and what running both printed."""
    folder = tmp_path_factory.mktemp("demo")
    text = (ROOT / "configs/demo.toml").read_text()
    (folder / "demo.toml").write_text(text.replace("out/demo", f"{folder}/out").replace("data/demo", f"{folder}/data"))
    tables = {name: lines + TRAINED * (name in recipe.TRAINING) for name, lines in TINY.items()}
    problems = [f"{folder}/data/exercises/problems.jsonl"]
    for name in ("by_hand", "requests"):  # four of each: every one is asked of three models
        problems.append(f"{folder}/{name}.jsonl")
        lines = (ROOT / f"exercises/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        Path(problems[-1]).write_text("\n".join(lines[:4]), encoding="utf-8")
    tables["eval_humaneval"] = [*tables["eval_humaneval"], f'problems = "{",".join(problems)}"']
    write_tables(folder / "tiny.toml", tables)
    return folder, stage("recipe.py", folder / "demo.toml", folder / "tiny.toml", cwd=ROOT).stdout


def test_the_demo_runs_from_end_to_end(tiny_demo):
    """The real recipe on a tiny scale: all stages, the summary that other scripts read, and the report."""
    folder, printed = tiny_demo
    summary = json.loads((folder / "out/summary.json").read_text())
    assert list(summary["exercises"]) == ["base", "annealed", "tuned"]
    for score in summary["exercises"].values():
        assert score["n"] == 3 and 0 <= score["pass@1"] <= 1 and score["stderr"] >= 0
    rungs = "compositions function_names parameter_names nouns wordings constants by_hand requests"
    assert list(summary["ladder"])[:8] == rungs.split()
    for scores in summary["ladder"].values():
        assert list(scores) == ["base", "annealed", "tuned"] and all(score["n"] > 0 for score in scores.values())
    stages = "install exercises tokenizer_train prepare_data pretrain anneal sft evaluation".split()
    assert list(summary["stages"]) == stages
    assert summary["stages"]["sft"]["tokens"] == 2048 and summary["stages"]["sft"]["val_bpb"] > 1
    for name in ("pretrain", "anneal", "sft", "eval-base", "eval-tuned", "loss.png", "report.md"):
        assert (folder / "out" / name).exists()
    page = (folder / "out/report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page.replace("http-equiv", ""), "one file, no other"
    assert (
        "pass@1" in printed and "$ python pretrain.py" in printed and "try next   .venv/bin/python sample.py" in printed
    )


def test_what_is_finished_is_not_run_again(tiny_demo):
    folder, _ = tiny_demo
    first = json.loads((folder / "out/summary.json").read_text())
    changed = write_tables(folder / "longer.toml", {"eval_humaneval": ["max_new_tokens = 9"]})
    printed = stage("recipe.py", folder / "demo.toml", folder / "tiny.toml", changed, cwd=ROOT).stdout
    ran = [line.split()[2] for line in printed.splitlines() if line.startswith("$ ") and "-m" not in line]
    assert ran == ["eval_humaneval.py"] * 3 and "prepare_data.stdlib: finished before" in printed
    again = json.loads((folder / "out/summary.json").read_text())
    assert again["stages"]["pretrain"] == first["stages"]["pretrain"]


def test_a_model_of_other_settings_is_neither_deleted_nor_trained_on(tiny_demo):
    """The recipe stops before the stage whose settings have changed, and says what to do."""
    folder, _ = tiny_demo
    changed = write_tables(folder / "other.toml", {"sft": ["lr = 1e-4"]})
    weights = (folder / "out/sft/step_00000002/model.pt").read_bytes()
    progress = (folder / "out/progress.json").read_bytes()
    result = stage("recipe.py", folder / "demo.toml", folder / "tiny.toml", changed, cwd=ROOT, check=False)
    assert_one_line_error(result, "does not say that it was trained with the settings", "delete it")
    assert (folder / "out/progress.json").read_bytes() == progress, "with the old settings all is finished, as before"
    assert (folder / "out/sft/step_00000002/model.pt").read_bytes() == weights


@pytest.fixture
def four_steps(tmp_path, monkeypatch):
    """A finished recipe whose steps only leave a file; run(**settings) -> (names of the steps that ran, seconds)."""
    ran, clock, stops = [], [0.0], {}

    def run_step(step, processes):
        ran.append(step.name)
        clock[0] += 10
        if stops.pop(step.name, False):
            raise KeyboardInterrupt
        (step.result / "step_1").mkdir(parents=True, exist_ok=True)
        if step.name == "prepare_data":
            (step.result / "manifest.json").write_text("this recipe's shards")

    def run(stop="", **vocab):
        names = {"data": "prepare_data", "trunk": "pretrain", "annealed": "anneal", "score": "eval_humaneval"}
        steps = []
        for name, script in names.items():
            settings = recipe.settings_class(script)(out_dir=str(tmp_path / name))
            steps.append(recipe.Step(script, "", [], replace(settings, **vocab) if name == "data" else settings))
        ran.clear()
        stops[stop] = True
        seconds = recipe.run_steps(steps, tmp_path / "progress.json", 1)
        return list(ran), seconds

    monkeypatch.setattr(recipe, "run_step", run_step)
    monkeypatch.setattr(recipe.time, "time", lambda: clock[0])
    monkeypatch.setattr(recipe.checkpoint, "saved", lambda folder: list(folder.glob("step_*")))
    assert run() == (["prepare_data", "pretrain", "anneal", "eval_humaneval"], [10, 10, 10, 10])
    return tmp_path, run


def test_nothing_runs_and_nothing_is_noted_where_a_model_would_be_in_the_way(four_steps):
    folder, run = four_steps
    before = (folder / "progress.json").read_bytes()
    with pytest.raises(UserError, match=r"trunk holds a model"):
        run(val_fraction=0.25)
    assert (folder / "progress.json").read_bytes() == before and run() == ([], [10, 10, 10, 10])


def test_what_was_deleted_is_made_again_and_what_came_of_it_stays(four_steps):
    folder, run = four_steps
    shutil.rmtree(folder / "data")
    assert run() == (["prepare_data"], [10, 10, 10, 10])


def test_data_that_another_recipe_has_replaced_are_made_again(four_steps):
    folder, run = four_steps
    (folder / "data/manifest.json").write_text("another recipe's shards")
    assert run() == (["prepare_data"], [10, 10, 10, 10])
    assert (folder / "data/manifest.json").read_text() == "this recipe's shards" and run()[0] == []


def test_the_seconds_before_an_interruption_count(four_steps):
    folder, run = four_steps
    for name in ("annealed", "score"):
        shutil.rmtree(folder / name)
    with pytest.raises(KeyboardInterrupt):
        run(stop="anneal")
    assert run() == (["anneal", "eval_humaneval"], [10, 10, 20, 10])


def test_a_second_file_may_add_a_run(tmp_path):
    """What the other runs share holds for it too; the other runs do not take its settings."""
    first = write_tables(
        tmp_path / "a.toml", {"eval_humaneval": ["batch_size = 3"], "eval_humaneval.one": ["limit = 1"]}
    )
    second = write_tables(tmp_path / "b.toml", {"eval_humaneval.two": ["limit = 2"]})
    one, two = recipe.read_steps([str(first), str(second)])
    assert (one.name, one.settings.limit, one.settings.batch_size) == ("eval_humaneval.one", 1, 3)
    assert (two.name, two.settings.limit, two.settings.batch_size) == ("eval_humaneval.two", 2, 3)


@pytest.fixture(scope="module")
def two_stages(workdir, tmp_path_factory):
    """A recipe of pretraining and annealing on shards that are there; its paths begin with a name of one's own."""
    tmp_path = tmp_path_factory.mktemp("two_stages")

    def write(name):
        common = ["batch_tokens = 256", "micro_batch = 4", "compile = false", "eval_tokens = 500"]
        sizes = [argument.removeprefix("--").replace("=", " = ") for argument in TINY_MODEL]
        shards = f'data = "{workdir}/data/shards"'
        out = tmp_path / name
        tables = {
            "recipe": [f'out_dir = "{out}"'],
            "pretrain": [*common, *sizes, shards, f'out_dir = "{out}/trunk"', "max_steps = 12", "save_every = 3"],
            "anneal": [*common, shards, f'init = "{out}/trunk"', f'out_dir = "{out}/annealed"', "max_steps = 4"],
        }
        return write_tables(tmp_path / f"{name}.toml", tables), out

    return write


@pytest.fixture(scope="module")
def whole(two_stages):
    path, out = two_stages("whole")
    stage("recipe.py", path, cwd=ROOT)
    return out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_recipe_goes_on_where_it_stopped(two_stages, whole, number):
    path, broken = two_stages(f"broken-{number}")
    process = subprocess.Popen([sys.executable, "recipe.py", path], cwd=ROOT, env=os.environ, start_new_session=True)
    while not list(broken.glob("trunk/step_0000000[369]")) and process.poll() is None:
        time.sleep(0.01)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:  # the stage dies with it, or a terminal's Ctrl-C reaches it too
        os.killpg(process.pid, number)
    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    assert not (broken / "annealed").exists()
    assert "--resume" in stage("recipe.py", path, cwd=ROOT).stdout
    for name in ("trunk", "annealed"):
        one, two = (load_model(out / name)[0].state_dict() for out in (whole, broken))
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    "tables, words",
    [
        ({"model": ["n_layer = 1"]}, "unknown table [model]"),
        ({"conftest": ["x = 1"]}, "unknown table [conftest]"),
        ({"recipe": []}, "no stages to run"),
        ({"recipe": ['bpb_of = "x"'], "pretrain": ["max_steps = 1"]}, "bpb_of=x: choose one of data/stdlib"),
        ({"pretrain": ["max_steps = 1"], "sft": ["best_fit = true"]}, "unknown setting 'best_fit'"),
        ({"anneal": ["decay_steps = 3"]}, "unknown setting 'decay_steps'"),
    ],
)
def test_a_mistake_anywhere_in_a_recipe_is_found_before_it_starts(tmp_path, tables, words):
    path = write_tables(tmp_path / "x.toml", {"recipe": [f'out_dir = "{tmp_path}/out"'], **tables})
    assert_one_line_error(stage("recipe.py", path, cwd=ROOT, check=False), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_is_whole(path):
    """Whatever a stage reads comes from the hub, from Python's library, or from an earlier stage of the same file."""
    made = set()
    for step in recipe.read_steps([str(path)]):
        s = step.settings
        folders = [part.split(":")[0] for key in ("data", "val") for part in getattr(s, key, "").split(",")]
        files = [getattr(s, key, "") for key in ("init", "checkpoint")]
        if step.stage == "eval_humaneval":  # downloads, files of the repository, and what an earlier stage made
            files += [name for name in s.problems.split(",") if name not in DOWNLOADS and not Path(ROOT, name).exists()]
        files += [s.tokenizer] if step.stage == "prepare_data" else []
        given = [source for key in ("sources", "chat_sources", "labelled") for source in getattr(s, key, [])]
        sources = [source for source in given if source != "stdlib" and not parsed(source, must_exist=False).hub]
        files += [getattr(s, "quality", "")]
        for read in filter(None, folders + files + sources):
            assert {read, str(Path(read).parent)} & made, f"{step.name} reads {read}, which nothing has made"
        made.add(str(step.result))
    assert [step.run for step in recipe.read_steps([str(path)])[-3:]] == ["base", "annealed", "tuned"]


def test_a_recipe_of_the_repository_can_be_started_from_anywhere(tmp_path, monkeypatch):
    """The file is found, and the stages, which run in the repository, get its path from there."""
    monkeypatch.chdir(tmp_path)
    assert configurator.parse_toml("configs/demo.toml")["recipe"]["out_dir"] == "out/demo"
    assert configurator.found("configs/demo.toml:stdlib") == str(ROOT / "configs/demo.toml:stdlib")
    (tmp_path / "configs").mkdir()
    write_tables(tmp_path / "configs/demo.toml", {"recipe": ['out_dir = "mine"']})
    assert configurator.parse_toml("configs/demo.toml")["recipe"]["out_dir"] == "mine", "what lies here comes first"
    assert configurator.found("configs/demo.toml") == "configs/demo.toml"


def test_elsewhere_than_on_linux_the_evaluations_are_left_out(monkeypatch, capsys):
    steps = recipe.read_steps([str(ROOT / "configs/demo.toml")])
    assert recipe.possible(steps) == steps and capsys.readouterr().out == ""
    monkeypatch.setattr("sys.platform", "darwin")
    assert [step.stage for step in recipe.possible(steps)][-1] == "sft"
    assert "the evaluations are left out here" in capsys.readouterr().out
