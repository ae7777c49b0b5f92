"""What --dynamics_every logs, against closed forms on quadratics and against brute force; and that it only looks."""

import contextlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL, alone
from test_processes import in_processes
from test_resume import metrics, train, weights

import pretrain
from model import ModelConfig, Transformer
from training import dynamics
from training.dataloader import make_batch
from training.dynamics import Dynamics, Walk, gradient_noise_scale, kind_of, signal_and_noise
from training.memory import memory_parts
from training.optim import make_optimizers
from training.plan import Plan
from training.validation import ValidationSet

RUN = [
    *TINY_MODEL,
    "--data=data/shards",
    "--batch_tokens=256",
    "--micro_batch=2",
    "--warmup_steps=2",
    "--compile=false",
]
RUN += ["--log_every=1", "--max_steps=8", "--eval_every=4", "--eval_tokens=500", "--save_every=4", "--keep=9"]


# -- closed forms


def descent(curvatures, lr, n):
    """The Walk of n steps of gradient descent on sum(h x^2) / 2 from (1, 1, ...): each x shrinks by 1 - lr h a step."""
    h, x = torch.tensor(curvatures, dtype=torch.float64), torch.ones(len(curvatures), dtype=torch.float64)
    walk = Walk(x)
    for _ in range(n):
        x = x - lr * h * x
        walk.add(x)
    return walk.summary()


def test_descent_across_a_valley_bounces_and_along_it_runs_straight():
    across, along = descent([1.9], 1.0, 10), descent([0.1], 1.0, 10)
    assert across["cosine"] == pytest.approx(-1) and along["cosine"] == pytest.approx(1)
    r, n = 0.9, 10  # the part of |x| that a step leaves, with the other sign across the valley
    assert along["net_over_path"] == pytest.approx(1)
    path = 1.9 * (1 - r**n) / (1 - r)  # the steps are 1.9, 1.9 r, 1.9 r^2, ... long
    assert across["net_over_path"] == pytest.approx((1 - r**n) / path)
    assert [along["weight_norm"], across["weight_norm"]] == pytest.approx([r**n, r**n])
    assert along["update_rms"] == pytest.approx(math.sqrt(sum((0.1 * r**i) ** 2 for i in range(n)) / n))


def test_a_random_walk_gets_as_far_as_the_root_of_its_steps():
    random = torch.Generator().manual_seed(0)
    walk, at = Walk(torch.zeros(10_000)), torch.zeros(10_000)
    for _ in range(16):
        at = at + torch.randn(10_000, generator=random)
        walk.add(at)
    summary = walk.summary()
    assert summary["net_over_path"] == pytest.approx(1 / 4, rel=0.02) and abs(summary["cosine"]) < 0.02
    assert summary["update_rms"] == pytest.approx(1, rel=0.02)


def test_without_steps_or_movement_nothing_is_made_up():
    still = Walk(torch.ones(4))
    still.add(torch.ones(4))
    assert still.summary() == {"weight_norm": 2, "update_rms": 0, "cosine": None, "net_over_path": None}


def test_the_noise_scale_of_a_known_gradient_is_found():
    """Gradients of tokens are G plus normal noise of variance 4 in each of 50 dimensions: |G|^2 = 9, tr S = 200."""
    random = np.random.default_rng(0)
    G, found = np.full(50, 3 / math.sqrt(50)), []
    for _ in range(400):
        parts = random.normal(G, 2 / math.sqrt(25), (4, 50))  # means of 25 tokens each
        large = np.sum(parts.mean(axis=0) ** 2)
        pairs = [signal_and_noise(np.sum(part**2), 25, large, 100) for part in parts]
        signal, noise = np.mean(pairs, axis=0)
        found.append({"signal": signal, "noise": noise})
    assert np.mean([line["signal"] for line in found]) == pytest.approx(9, rel=0.03)
    assert np.mean([line["noise"] for line in found]) == pytest.approx(200, rel=0.03)
    assert gradient_noise_scale([*found, {"steps": 10}]) == pytest.approx(200 / 9, rel=0.05)
    assert gradient_noise_scale([{"steps": 10}]) is None


def test_every_parameter_has_a_kind():
    model = Transformer(ModelConfig(vocab_size=320, n_layer=1, n_embd=32, n_head=2, n_kv_head=1, tie_embeddings=False))
    kinds = {name: kind_of(name) for name, _ in model.named_parameters()}
    assert kinds["embed_tokens.weight"] == kinds["lm_head.weight"] == "embeddings"
    assert kinds["layers.0.self_attn.q_proj.weight"] == "attention" and kinds["layers.0.mlp.up_proj.weight"] == "mlp"
    one_dimensional = {name for name, p in model.named_parameters() if p.dim() == 1}
    assert {name for name, kind in kinds.items() if kind == "norms"} == one_dimensional


# -- one step of a real model, against brute force


class Lines:
    """A Log that keeps what is written."""

    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(record)

    def start_clock(self, step):
        pass


class Bytes:
    """A tokenizer of single bytes."""

    eot = 312

    def byte_lengths(self):
        return np.ones(320, dtype=np.int64)


def gradient(model, batch):
    """The gradient of the mean loss per counted token, as one vector."""
    model.zero_grad()
    loss, count = pretrain.next_token_loss(model, batch)
    (loss / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double()


def test_a_logged_step_is_what_brute_force_finds(monkeypatch):
    monkeypatch.setattr(dynamics, "REACH", 1e-3)
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=320, block_size=32, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))
    tokens = np.random.default_rng(0).integers(0, 312, (8, 33))
    batch = make_batch(tokens[:, :-1], tokens[:, 1:].copy(), 312, "ids", "cpu")
    settings, plan = pretrain.TrainSettings(dynamics_every=1, optimizer="adamw"), Plan(2, "ids", False, False)
    held_out, lines = ValidationSet("probe", 1.0, tokens[:, :-1], tokens[:, 1:]), Lines()

    small = [gradient(model, part).square().sum().item() for part in batch.split(2)]
    large = gradient(model, batch).square().sum().item()
    pairs = [signal_and_noise(square, 2 * 32, large, 8 * 32) for square in small]
    model.zero_grad()
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()

    watch = Dynamics(settings, alone(), model, plan, [held_out], Bytes(), lines)
    watch.before(0, batch)
    _, norm = pretrain.train_step(settings, alone(), model, make_optimizers(model, settings, False), batch, 2)
    after = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    watch.after(1, norm)
    found = lines.records[0]["dynamics"]
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), after), "looking moves nothing"

    assert (found["signal"], found["noise"]) == pytest.approx(tuple(np.mean(pairs, axis=0)), rel=1e-3)
    squares = [found[kind]["weight_norm"] ** 2 for kind in ("embeddings", "attention", "mlp", "norms")]
    assert sum(squares) == pytest.approx(after.square().sum().item(), rel=1e-5)
    u = (after - before) / (after - before).norm()
    slopes = []  # u H u is how the slope along u changes
    for shift in (-1e-2, 1e-2):
        torch.nn.utils.vector_to_parameters(after + shift * u, model.parameters())
        slopes.append(gradient(model, batch) @ u.double())
    assert found["curvature"]["probe"] == pytest.approx(((slopes[1] - slopes[0]) / 2e-2).item(), rel=0.05)


@pytest.mark.parametrize("optimizer, cosine", [("muon", 0.7), ("adamw", 0.9)])
def test_noise_alone_looks_like_a_way_straight_ahead_because_of_momentum(optimizer, cosine):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=64, block_size=16, n_layer=1, n_head=2, n_kv_head=2, n_embd=32))
    settings = pretrain.TrainSettings(optimizer=optimizer, lr=1e-4)
    optimizers = make_optimizers(model, settings, False)
    hidden = [p for name, p in model.named_parameters() if "mlp" in name]
    for step in range(130):
        if step == 100:  # momentum has filled up
            walk = Walk(torch.nn.utils.parameters_to_vector(hidden).detach())
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        for one in optimizers:
            one.step()
        if step >= 100:
            walk.add(torch.nn.utils.parameters_to_vector(hidden).detach())
    found = walk.summary()
    assert (found["cosine"], found["net_over_path"]) == pytest.approx((cosine, 0.7), abs=0.1)


def test_the_memory_estimate_has_room_for_all_that_is_remembered():
    """Counted: what is held between steps, and of a step's end the new weights and the new update beside it."""
    model = Transformer(ModelConfig(vocab_size=320, block_size=32, n_layer=2, n_head=2, n_kv_head=1, n_embd=32))
    tokens = np.random.default_rng(0).integers(0, 312, (8, 33))
    batch = make_batch(tokens[:, :-1], tokens[:, 1:].copy(), 312, "ids", "cpu")
    settings = pretrain.TrainSettings(dynamics_every=9, optimizer="adamw", max_steps=2)
    plan, optimizers = Plan(2, "ids", False, False), make_optimizers(model, settings, False)
    watch = Dynamics(settings, alone(), model, plan, [], Bytes(), Lines())
    for step in range(2):
        watch.before(step, batch)
        _, norm = pretrain.train_step(settings, alone(), model, optimizers, batch, 2)
        held = [t for walk in watch.walks.values() for t in (walk.start, walk.at, walk.update) if t is not None]
        held += watch.gradients.before.values() if watch.gradients else []
        if step == 0:
            watch.after(1, norm)
    n_held = sum({t.data_ptr(): t.nbytes for t in held}.values())
    n_new = 2 * sum(p.nbytes for p in model.parameters())
    without = memory_parts(model, replace(settings, dynamics_every=0), alone(), plan)
    assert "dynamics" not in without
    assert n_held + n_new == pytest.approx(memory_parts(model, settings, alone(), plan)["dynamics"], rel=0.01)


# -- whole runs


@pytest.fixture(scope="module")
def watched(workdir):
    """A run of eight steps with a line after every fourth."""
    with contextlib.chdir(workdir):
        train(pretrain, *RUN, "--out_dir=watched", "--dynamics_every=4")
    return workdir / "watched"


def of_dynamics(folder):
    """{step: what it says of the dynamics}."""
    return {line["step"]: line["dynamics"] for line in metrics(folder) if "dynamics" in line}


def test_a_run_that_is_watched_learns_the_same(watched, workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    train(pretrain, *RUN, "--out_dir=unwatched")
    others = [line for line in metrics(watched) if "dynamics" not in line]
    assert others == metrics(workdir / "unwatched") and weights(watched) == weights(workdir / "unwatched")
    found = of_dynamics(watched)
    assert list(found) == [4, 8] and all(line["steps"] == 4 for line in found.values())
    assert json.dumps(found).count("NaN") == 0 and all(line["noise"] and line["curvature"] for line in found.values())
    assert "sources" in metrics(watched)[-1], "the last line of all is the evaluation"


@pytest.mark.parametrize("every", [4, 3])
def test_a_resumed_run_logs_the_same_and_may_be_watched_at_other_steps(watched, tmp_path, workdir, monkeypatch, every):
    monkeypatch.chdir(workdir)
    shutil.copytree(watched, tmp_path / "half")
    shutil.rmtree(tmp_path / "half/step_00000008")
    train(pretrain, *RUN, f"--dynamics_every={every}", f"--out_dir={tmp_path}/half", "--resume")
    assert weights(tmp_path / "half") == weights(watched)
    if every == 4:
        assert metrics(tmp_path / "half") == metrics(watched)
    else:
        assert {step: line["steps"] for step, line in of_dynamics(tmp_path / "half").items()} == {4: 4, 6: 2, 8: 2}


def test_two_processes_find_what_one_finds(watched, workdir, monkeypatch):
    """The micro-batches are the same, of two rows each."""
    monkeypatch.chdir(workdir)
    assert in_processes(2, train, pretrain, *RUN, "--dynamics_every=4", "--out_dir=watched-by-two") == [None] * 2
    one, two = of_dynamics(watched)[4], of_dynamics(workdir / "watched-by-two")[4]
    assert (one["signal"], one["noise"]) == pytest.approx((two["signal"], two["noise"]), rel=1e-3)
    assert one["mlp"] == pytest.approx(two["mlp"], rel=1e-3)
