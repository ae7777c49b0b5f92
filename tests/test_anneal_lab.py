"""The annealing laboratory: its arms against closed forms, its statistics and findings on made-up results, and a small
one that is interrupted and goes on."""

import importlib
import json
import math
import os
import random
import signal
import statistics
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY_MODEL, door_error, write_records
from test_processes import in_processes
from test_resume import train

import anneal
import configurator
import pretrain
from configurator import UserError
from experiments import anneal_lab, common, lab_arms, lab_report
from experiments.lab_arms import SHAPES, mixture, steps_of_equal_sum, sum_of_rates
from experiments.lab_compare import Difference, difference, pairs_of, pass_difference
from training import checkpoint
from training.dataloader import Quotas, parse_mixture

FLOOR = 0.1
# The areas under the ways down from 1 to the floor, by integration.
AREAS = {
    "no decay": 1.0,
    "linear": (1 + FLOOR) / 2,
    "cosine": (1 + FLOOR) / 2,
    "1-sqrt": FLOOR + (1 - FLOOR) / 3,
    "exponential": (1 - FLOOR) / math.log(1 / FLOOR),
    "inverse": FLOOR / (1 - FLOOR) * math.log(1 / FLOOR),
}


# -- arms


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_of_rates_is_the_area_and_other_lengths_make_it_equal(shape):
    steps = 400
    assert sum_of_rates(shape, steps, FLOOR) == pytest.approx(AREAS[shape] * steps, abs=1)
    other = steps_of_equal_sum(shape, steps, FLOOR)
    assert other == pytest.approx(steps * AREAS["linear"] / AREAS[shape], rel=0.01)
    assert sum_of_rates(shape, other, FLOOR) == pytest.approx(AREAS["linear"] * steps, abs=1)


def test_a_mixture_gives_a_share_to_what_is_added():
    assert mixture("a:2,b:1", [], 0.5) == "a:0.666667,b:0.333333"
    assert dict(parse_mixture(mixture("a:2,b:1", ["c"], 0.4))) == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    # What the trunk has read before gets more of it.
    assert dict(parse_mixture(mixture("a:3,b:1", ["b", "c"], 0.5))) == pytest.approx(
        {"a": 0.375, "b": 0.375, "c": 0.25}
    )


def test_no_order_is_the_trunk_s():
    assert lab_arms.orders(3, 1337) == [0, 1, 2] and lab_arms.orders(3, 1) == [0, 2, 3]


def test_a_longer_tuning_has_as_many_chats_as_the_anneal_had():
    """Counted in the rows of the anneal's batches."""
    kinds = ["pretraining", "chats", "both"]
    settings = anneal_lab.Settings(mixtures=kinds, seeds=1, share=0.5, sft_steps=10, documents="pages", chats="chats")
    lab = anneal_lab.Lab(*[None] * 3, False, 6e-3, 1337, 4096, 16, 48, "", "p.jsonl", ())
    lab.out, lab.trunk_data = Path("out"), "stdlib:2,pages:1"
    arms = lab_arms.anneals(settings, lab)
    tuned = {arm.shape: arm for arm in lab_arms.tunings(settings, lab, arms) if arm.mixture == "pretraining"}
    for kind in ("chats", "both"):
        (anneal,) = [arm for arm in arms if arm.mixture == kind and arm.shape == "linear"]
        (data,) = [argument for argument in anneal.arguments if argument.startswith("--data=")]
        folders, shares = zip(*parse_mixture(data.removeprefix("--data=")))
        read = sum(Quotas(shares, 16)(step)[1][folders.index("chats")] for step in range(48))
        more = tuned[lab_arms.longer(kind)].tokens - tuned["tuned"].tokens
        assert more == read * 256


def test_what_there_is_not_is_one_line():
    assert "shapes are no decay, linear" in door_error(anneal_lab, "--shapes=linear,square")
    assert "mixtures are pretraining" in door_error(anneal_lab, "--mixtures=chat")
    assert "shapes must have linear" in door_error(anneal_lab, "--shapes=cosine")


# -- statistics


def arm(shape, seed=0, mixture="pretraining", bpb=1.0, passed=(1, 0), group="decay", **more):
    """An entry of summary.json."""
    passed = {f"task/{n}": p for n, p in enumerate(passed)}
    rate = sum(passed.values()) / len(passed)
    point = {"tokens": 1000, "val_bpb": bpb, "pass@1": rate, "sources": {"data/a": bpb, "data/b": bpb}}
    about = {"group": group, "shape": shape, "mixture": mixture, "seed": seed, "rates": 10.0, "passed": passed}
    about["solutions_bpb"] = 2 * bpb
    return {**about, **point, "curve": [point, point | {"tokens": 2000}], "dynamics": [], **more}


def test_a_difference_is_over_pairs_and_its_error_that_of_pairs():
    ours = [arm("cosine", seed, bpb=value) for seed, value in enumerate((1.0, 1.3, 1.1))]
    theirs = [arm("linear", seed, bpb=value) for seed, value in enumerate((1.1, 1.5, 1.4))] + [arm("linear", 7)]
    found = difference(pairs_of(ours, theirs, ["mixture", "seed"]), lambda a: a["val_bpb"])
    each = [-0.1, -0.2, -0.3]
    assert found.value == pytest.approx(statistics.mean(each))
    assert found.over_orders == pytest.approx(statistics.stdev(each) / math.sqrt(3)) and found.orders == 3
    assert difference([*zip(ours, theirs)], lambda a: None) is None, "problems without solutions"
    assert difference([], len) is None and difference([(ours[0], theirs[0])], lambda a: 1).over_orders is None


def test_pairs_of_one_order_are_no_more_than_one():
    """Six shapes in the same three orders: what an order does to all of them is not seen six times."""
    luck = (0.3, -0.1, -0.2)
    ours = [arm(shape, seed, "both", bpb=1 + luck[seed]) for shape in SHAPES for seed in range(3)]
    theirs = [arm(shape, seed) for shape in SHAPES for seed in range(3)]
    found = difference(pairs_of(ours, theirs, ["shape", "seed"]), lambda a: a["val_bpb"])
    assert found.orders == 3 and found.value == pytest.approx(0)
    assert found.over_orders == pytest.approx(statistics.stdev(luck) / math.sqrt(3))


def test_problems_are_paired_too():
    """Two runs of four problems: the scores of a problem are means over the runs."""
    ours = [arm("cosine", 0, passed=(1, 1, 0, 1)), arm("cosine", 1, passed=(1, 1, 1, 1))]
    theirs = [arm("linear", 0, passed=(0, 1, 0, 0)), arm("linear", 1, passed=(1, 1, 0, 0))]
    found = pass_difference(pairs_of(ours, theirs, ["mixture", "seed"]))
    by_problem = [0.5, 0.0, 0.5, 1.0]
    assert found.value == pytest.approx(statistics.mean(by_problem))
    assert found.over_problems == pytest.approx(statistics.stdev(by_problem) / math.sqrt(4))
    assert found.over_orders == pytest.approx(0)


@pytest.mark.parametrize(
    "value, errors, sign, expected",
    [
        (-0.05, (0.01, None), -1, "holds"),
        (0.05, (0.01, None), -1, "the opposite"),
        (-0.04, (0.01, None), -1, "open"),  # less than 4.3 standard errors
        (-0.05, (0.01, 0.03), -1, "open"),  # two of the problems'
        (-9.0, (None, None), -1, "open"),
    ],
)
def test_a_finding_needs_zero_outside_of_the_interval(value, errors, sign, expected):
    assert Difference(value, 3, *errors).says(sign) == expected


def test_one_finding_in_twenty_is_chance():
    """Three or ten numbers of mean 0: what they say of it is wrong in a twentieth of all cases."""
    rng = random.Random(0)
    for n in (3, 10):
        wrong = 0
        for _ in range(4000):
            values = [rng.gauss(0, 1) for _ in range(n)]
            found = Difference(statistics.mean(values), n, statistics.stdev(values) / math.sqrt(n))
            wrong += found.says(1) != "open"
        assert 0.04 < wrong / 4000 < 0.06


# -- the report


def made_up_summary():
    """1-sqrt is better than linear by 0.02 +- 0.002; the average as good as linear; instructions in the anneal help."""
    noise = [0.0, 0.004, -0.004]
    arms = [arm("trunk", mixture="", bpb=1.5, group="averages", tokens=0)]
    for seed in range(3):
        arms += [arm("linear", seed, bpb=1.0 + 0.1 * seed), arm("no decay", seed, bpb=1.4 + 0.1 * seed)]
        arms.append(arm("1-sqrt", seed, bpb=0.98 + 0.1 * seed + noise[seed]))
        arms.append(arm("no decay, average", seed, bpb=1.0 + 0.1 * seed + noise[seed], group="averages"))
        arms.append(arm("linear", seed, "chats", bpb=0.9 + 0.1 * seed))
    for one in arms:
        one["chat"] = {"pass@1": 0.1}
    tuned = [arm("tuned", seed, "chats", passed=[1] * 38 + [0] * 2, group="tuned") for seed in range(3)]
    tuned += [arm("tuned", seed, passed=[1] * 20 + [0] * 20, group="tuned") for seed in range(3)]
    about = {"lr": 0.006, "trunk": "out/lab/trunk/step_00000900"}
    return {"arms": arms, "tuned": tuned, "settings": {"seeds": 3, "floor": 0.1, "share": 0.5}, **about}


def test_the_findings_are_computed(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "summary.json").write_text(json.dumps(made_up_summary()))
    lab_report.main(lab_report.Settings(lab=str(tmp_path)))
    markdown = (tmp_path / "report.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    found = {row[0]: (row[2], row[3]) for row in rows if len(row) == 4 and row[1] in ("bits per byte", "pass@1")}
    of_solutions = {
        row[0]: (row[2], row[3]) for row in rows if len(row) == 4 and row[1] == "bits per byte of solutions"
    }
    error = statistics.stdev([0.0, 0.004, -0.004]) / math.sqrt(3)
    assert found["1-sqrt is better than linear (arXiv:2405.18392)"] == (f"-0.0200 ± {error:.4f}", "holds")
    assert found["a decay is better than the average (average; arXiv:2405.18392)"][1] == "open"
    assert found["a decay is better than none (arXiv:2404.06395)"][1] == "holds"
    assert found["chats in the anneal are worth it (arXiv:2404.06395)"][1] == "open"  # they solve the same problems
    assert of_solutions["chats in the anneal are worth it (arXiv:2404.06395)"] == ("-0.2000 ± 0.0000", "holds")
    (tuning,) = [key for key in found if "tuning alone (" in key]
    assert found[tuning] == (f"+45.0% ± 0.0% / {100 * math.sqrt(18 * 22 / 40 / 39 / 40):.1f}%", "holds")
    assert not any("EMA" in key for key in found), "of what was not done nothing is said"
    assert (tmp_path / "report.html").exists() and "curves.png" in markdown
    summary = made_up_summary()
    for one in summary["arms"] + summary["tuned"]:
        one["solutions_bpb"] = None  # the file of problems has none
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    lab_report.main(lab_report.Settings(lab=str(tmp_path)))
    assert "| bits per byte of solutions |" not in (tmp_path / "report.md").read_text()


def test_a_folder_without_a_laboratory_is_one_line(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert "does not hold the results of a laboratory" in door_error(lab_report, f"--lab={tmp_path}")
    assert not (tmp_path / "report.html").exists()


# -- a small one as a whole


class Stages:
    """Runs stages in forks of this process. stop_at: {a part of an out_dir: the step after which its training gets a
    signal}."""

    def __init__(self):
        self.ran, self.stop_at, self.lock = [], {}, threading.Lock()

    def __call__(self, script, *arguments, threads=1):
        with self.lock:  # forks of a process with one thread
            out = arguments[-1].split("/")[-1]
            self.ran.append((script, out))
            stage = importlib.import_module(script.removesuffix(".py"))
            more = ["--compile=false"] if script in ("anneal.py", "sft.py") else []
            (result,) = in_processes(1, in_a_fork, stage, self.stop_at.pop(out, None), *arguments, *more)
            if result is not None:
                raise UserError(result)


def in_a_fork(stage, stop_after, *arguments):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if stop_after:
            step = pretrain.Log.step

            def stopping(log, done, *rest):
                step(log, done, *rest)
                if done == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)

            patch.setattr(pretrain.Log, "step", stopping)
        train(stage, *arguments)


@pytest.fixture
def stages(monkeypatch, workdir):
    found = Stages()
    for module in (anneal_lab, lab_arms):
        monkeypatch.setattr(module, "run_stage", found)
    # A fork could begin while a bar holds its lock.
    monkeypatch.setattr(common, "tqdm", partial(common.tqdm, disable=True))
    monkeypatch.setattr(anneal_lab, "ROOT", workdir)  # which paths are relative to
    return found


def test_the_trunk_is_the_recipe_s_and_data_are_made_where_they_are_missing(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(anneal_lab, "run_stage", lambda *words, **how: commands.append(words))
    (tmp_path / "data/demo/stdlib").mkdir(parents=True)
    (tmp_path / "data/demo/stdlib/manifest.json").touch()
    anneal_lab.train_trunk(anneal_lab.Settings(), tmp_path)
    *made, trunk = commands
    prepared = [("prepare_data.py", f"configs/demo.toml:exercise-{kind}") for kind in ("pages", "chats")]
    assert made == [("exercises", "configs/demo.toml"), ("tokenizer_train.py", "configs/demo.toml"), *prepared]
    settings = configurator.load(pretrain.Settings, trunk[1:], "pretrain")
    assert (settings.max_steps, settings.n_embd, settings.data) == (900, 192, anneal_lab.Settings().trunk_data)
    assert settings.save_every * settings.keep == 180 == anneal_lab.Settings().decay_tokens / settings.batch_tokens


def test_two_arms_are_interrupted_and_go_on(workdir, monkeypatch, stages):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(workdir)
    data = ["--data=data/shards", "--batch_tokens=256", "--compile=false"]
    train(pretrain, *TINY_MODEL, *data, "--max_steps=4", "--out_dir=lab-trunk")
    problem = {"prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n"}
    problem["test"] = "def check(f):\n    assert f(1) == 1\n"
    write_records(workdir / "problems.jsonl", [{"task_id": str(n), **problem} for n in range(4)])
    how = {"trunk": "lab-trunk", "shapes": ["linear", "no decay"], "mixtures": ["pretraining"], "seeds": 1}
    how |= {
        "decay_tokens": 6 * 256,
        "sft_steps": 0,
        "val": "data/shards",
        "problems": "problems.jsonl",
        "n_problems": 2,
    }
    settings = anneal_lab.Settings(**how, eval_tokens=500, dynamics_every=2, jobs=1, out_dir="lab")

    stages.stop_at = {"decay_no-decay_pretraining_0": 3}
    with pytest.raises(UserError):
        anneal_lab.main(settings)
    first = stages.ran
    assert ("anneal.py", "decay_linear_pretraining_0") in first and not (workdir / "lab/summary.json").exists()
    stages.ran = []
    anneal_lab.main(settings)
    assert ("anneal.py", "decay_linear_pretraining_0") not in stages.ran, "what is finished is passed over"

    summary = json.loads((workdir / "lab/summary.json").read_text())
    found = {entry["shape"]: entry for entry in summary["arms"]}
    assert list(found) == ["linear", "no decay", "trunk", "no decay, average", "no decay, EMA"]
    assert found["linear"].keys() >= {"shape", "mixture", "seed", "tokens", "val_bpb", "pass@1"}
    assert found["linear"]["tokens"] == 6 * 256 and found["trunk"]["tokens"] == 0
    assert [line["step"] for line in found["linear"]["dynamics"]] == [2, 4, 6]
    assert [point["tokens"] for point in found["linear"]["curve"]] == [512, 1024, 1536]
    # The arm that was stopped ends where one that was not does.
    flat = ["--init=lab-trunk", "--data=data/shards", "--min_lr_fraction=1", "--decay_shape=linear", "--seed=0"]
    train(
        anneal,
        *flat,
        "--max_steps=6",
        "--eval_tokens=500",
        "--compile=false",
        "--micro_batch=2",
        "--out_dir=lab-unbroken",
    )
    *_, last = map(json.loads, (workdir / "lab-unbroken/metrics.jsonl").read_text().splitlines())
    assert found["no decay"]["val_bpb"] == last["val_bpb"]
    steps = [path.name for path in checkpoint.saved("lab/arms/decay_no-decay_pretraining_0")]
    assert steps == [f"step_{step:08}" for step in range(1, 7)]

    stages.ran = []
    anneal_lab.main(settings)
    assert stages.ran == []
    write_records(
        workdir / "problems.jsonl", [{"task_id": str(n), **problem, "prompt": "def f(y):\n"} for n in range(4)]
    )
    with pytest.raises(UserError, match="or other problems"):
        anneal_lab.main(settings)
    write_records(workdir / "problems.jsonl", [{"task_id": str(n), **problem} for n in range(4)])
    settings.floor = 0.2
    with pytest.raises(UserError, match="made by other settings"):
        anneal_lab.main(settings)
