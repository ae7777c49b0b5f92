"""Averages of checkpoints against closed forms, and what stands on the line between two checkpoints."""

import json

import pytest
import torch
from conftest import door_error
from test_resume import train

import anneal
import pretrain
from experiments import averages, valley
from experiments.averages import average, shares
from experiments.held_out import weights_of
from training import checkpoint
from training import machine as machines
from training.optim import Schedule, lr_at

RUN = ["--n_layer=1", "--n_head=2", "--n_kv_head=1", "--n_embd=32", "--block_size=32", "--compile=false"]
RUN += ["--data=data/shards", "--batch_tokens=256", "--warmup_steps=2", "--log_every=1", "--keep=9"]


def descent(gradients, rates):
    """The weights after each step of plain SGD from zero, {"w": tensor} each. The gradients do not ask where it is."""
    at, states = torch.zeros(4, dtype=torch.float64), []
    for gradient, lr in zip(gradients, rates, strict=True):
        at = at - lr * gradient
        states.append({"w": at})
    return states


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_with_frozen_gradients_the_plain_average_is_a_linear_decay(floor):
    """With a floor, the last checkpoint has that share more."""
    n, lr = 12, 0.3
    gradients = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    linear = Schedule(lr, n, 0, n, "linear", floor)
    decayed = descent(gradients, [lr_at(step, linear) for step in range(n)])[-1]
    weights = [(1 - floor) * share for share in shares(n)]
    weights[-1] += floor
    averaged = average(descent(gradients, [lr] * n), weights)
    assert averaged["w"].numpy() == pytest.approx(decayed["w"].numpy(), abs=1e-6)


def test_an_ema_is_the_running_mean_of_the_same_rate():
    """m <- ema m + (1 - ema) x, from the first checkpoint on and corrected for its beginning as Adam's means are."""
    values, ema, running = [3.0, -1.0, 4.0, 1.5, -5.0], 0.7, 0.0
    for value in values:
        running = ema * running + (1 - ema) * value
    states = [{"w": torch.tensor([value])} for value in values]
    expected = running / (1 - ema ** len(values))
    assert average(states, shares(len(values), ema))["w"].item() == pytest.approx(expected)
    assert sum(shares(5)) == pytest.approx(1) == sum(shares(5, 0.7)) and shares(4) == [0.25] * 4


@pytest.fixture(scope="module")
def run(workdir):
    """A run of six steps with three checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workdir)
        train(pretrain, *RUN, "--out_dir=averaged", "--max_steps=6", "--save_every=2", "--eval_every=2")
    return workdir / "averaged"


def settings(**changes):
    return averages.Settings(checkpoints="averaged", **changes)


def test_an_average_is_a_checkpoint_that_can_be_gone_on_from(run, workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    averages.main(settings(last=3, out_dir="average"))
    folder, meta = checkpoint.newest("average")
    states = [weights_of(path) for path in checkpoint.saved("averaged")]
    for name, tensor in weights_of(folder).items():
        assert torch.allclose(tensor, sum(state[name] for state in states) / 3, atol=1e-6)
    assert meta["step"] == 6 and len(meta["averaged"]) == 3
    train(
        anneal, "--init=average", "--data=data/shards", "--max_steps=1", "--compile=false", "--out_dir=average-annealed"
    )
    assert checkpoint.newest("average-annealed")[1]["step"] == 1
    assert "already holds checkpoints" in door_error(
        averages, "--checkpoints=averaged", "--out_dir=average", "--last=1"
    )


def test_one_checkpoint_is_validated_as_its_run_did(run, workdir, monkeypatch):
    """Another machine format than the run's, or other text, would differ more."""
    monkeypatch.chdir(workdir)
    averages.main(averages.Settings(checkpoints="averaged/step_00000004", last=1, out_dir="fourth"))
    found = json.loads((workdir / "fourth/metrics.jsonl").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (expected,) = [line for line in lines if "sources" in line and line["step"] == 4]
    tolerance = (
        1e-5 if machines.start().dtype == torch.float32 else 1e-3
    )  # in bf16 other rows in a pass round otherwise
    assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=tolerance) and found["tokens"] == 4 * 256
    assert found["sources"].keys() == expected["sources"].keys()


def test_too_few_checkpoints_are_one_line(run, workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    assert "3 checkpoints up to step_00000006, not 4" in door_error(averages, "--checkpoints=averaged", "--last=4")
    where = "--checkpoints=averaged/step_00000002"
    assert "1 checkpoints up to step_00000002" in door_error(averages, where, "--last=2")


# -- the valley


class Bowl:
    """A held-out set whose loss is (x - 1)^2 + 100 y^2."""

    def losses(self, weights):
        x, y = weights["w"].tolist()
        return {"sources": {"set": {"val_loss": (x - 1) ** 2 + 100 * y**2}}}


def lines_between(monkeypatch, **points):
    """valley.line() between pairs of points; the checkpoint folders are the points."""
    monkeypatch.setattr(valley, "weights_of", lambda point: {"w": torch.tensor(point)})
    return {name.replace("_", " "): valley.line(Bowl(), *pair) for name, pair in points.items()}


def test_a_line_has_the_loss_of_every_place_on_it(monkeypatch):
    (losses,) = lines_between(monkeypatch, any=((0.0, 0.0), (2.0, 0.1)))["any"].values()
    expected = [(2 * alpha - 1) ** 2 + (0.1 * 10 * alpha) ** 2 for alpha in valley.ALPHAS]
    assert losses == pytest.approx(expected, rel=1e-5, abs=1e-6) and len(losses) == 13
    assert (valley.ALPHAS[0], valley.ALPHAS[-1]) == (-0.25, 1.25)


@pytest.mark.parametrize(
    "name, pair, holds",
    [
        ("trunk to annealed", ((0.0, 0.2), (0.0, 0.0)), [True, True]),  # down the slope
        ("trunk to annealed", ((0.0, 0.2), (0.0, -0.1)), [False, True]),  # and up the other one
        ("trunk, early to late", ((0.0, 0.2), (0.5, -0.2)), [True]),  # from slope to slope, across the river
        ("trunk, early to late", ((0.0, 0.2), (0.5, 0.2)), [False]),  # along one of them
        ("annealed, early to late", ((0.0, 0.0), (0.5, 0.0)), [True, True]),  # along the river
        ("annealed, early to late", ((0.0, 0.1), (0.5, -0.05)), [False, True]),  # across it, and up again
        ("annealed, early to late", ((0.5, 0.0), (0.0, 0.0)), [False, True]),  # up the river
        ("annealed, early to late", ((0.9, 0.0), (1.9, 0.0)), [False, True]),  # beyond its end
    ],
)
def test_what_a_river_valley_predicts_holds_in_one(monkeypatch, name, pair, holds):
    found = valley.predictions(lines_between(monkeypatch, **{name: pair}))
    assert [one["holds"] for one in found] == holds and {one["of"] for one in found} == {"set"}


def test_the_valley_of_two_trunks_is_drawn(run, workdir, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(workdir)
    trunk = "--trunk=averaged/step_00000002,averaged/step_00000004"
    arguments = [trunk, "--annealed=averaged/step_00000004,averaged", "--val=data/shards", "--eval_tokens=100"]
    train(valley, *arguments, "--out=picture/valley.png")
    found = json.loads((workdir / "picture/valley.json").read_text())
    assert len(found["lines"]) == 3 and len(found["predictions"]) == 5
    ends = found["lines"]["trunk, early to late"]["data/shards"]
    assert ends[found["alphas"].index(1)] == pytest.approx(
        found["lines"]["annealed, early to late"]["data/shards"][found["alphas"].index(0)], abs=1e-6
    )
    assert (workdir / "picture/valley.png").stat().st_size > 10_000
    assert "a river valley predicts" in capsys.readouterr().out
    assert "two of each" in door_error(valley, trunk, "--annealed=averaged")
