"""Schedules at golden values; Muon against PyTorch's and against a singular value decomposition."""

from dataclasses import replace

import pytest
import torch

from configurator import UserError
from model import ModelConfig, Transformer
from pretrain import Settings, TrainSettings
from training import optim
from training.optim import Muon, lr_at, make_optimizers, orthogonalized, wsd_or_cosine

WSD = Settings(lr=1.0, max_steps=1000, warmup_steps=100, decay_steps=200, decay_shape="linear", schedule="wsd")


@pytest.mark.parametrize(
    "settings, golden",
    [
        (WSD, {0: 0.01, 99: 1.0, 100: 1.0, 799: 1.0, 800: 1.0, 900: 0.5, 999: 0.005}),
        (replace(WSD, decay_shape="1-sqrt"), {800: 1.0, 850: 0.5, 900: 1 - 0.5**0.5, 999: 1 - 0.995**0.5}),
        (replace(WSD, min_lr_fraction=0.1), {0: 0.01, 500: 1.0, 900: 0.55}),
        (replace(WSD, decay_shape="cosine"), {800: 1.0, 850: 0.5 * (1 + 0.5**0.5), 900: 0.5}),
        (replace(WSD, decay_shape="exponential", min_lr_fraction=0.1), {800: 1.0, 900: 0.1**0.5, 1000: 0.1}),
        (replace(WSD, decay_shape="inverse", min_lr_fraction=0.1), {800: 1.0, 900: 1 / 5.5, 1000: 0.1}),
        (replace(WSD, decay_steps=0), {0: 0.01, 99: 1.0, 999: 1.0}),
        (
            replace(WSD, schedule="cosine", decay_steps=0, decay_shape=None),
            {0: 0.01, 99: 1.0, 100: 1.0, 325: 0.5 * (1 + 0.5**0.5), 550: 0.5, 1000: 0.0},
        ),
        (replace(WSD, schedule="cosine", decay_steps=0, decay_shape=None, min_lr_fraction=0.2), {550: 0.6, 1000: 0.2}),
    ],
)
def test_golden_values(settings, golden):
    for step, value in golden.items():
        assert lr_at(step, wsd_or_cosine(settings)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    "shape, floor, area",
    [
        ("linear", 0, 1 / 2),
        ("cosine", 0, 1 / 2),
        ("1-sqrt", 0, 1 / 3),
        ("exponential", 0.1, 0.391),
        ("exponential", 0.01, 0.215),
        ("inverse", 0.1, 0.256),
    ],
)
def test_area_under_the_decay(shape, floor, area):
    schedule = wsd_or_cosine(replace(WSD, decay_shape=shape, min_lr_fraction=floor))
    assert sum(lr_at(step, schedule) for step in range(800, 1000)) / 200 == pytest.approx(area, abs=1 / 200)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine", "decay_shape": None},  # with a decay_steps that it would not use
        {"schedule": "cosine", "decay_steps": 0},  # with a decay_shape that it would not use
        {"warmup_steps": 900},
        {"decay_steps": -1},
        {"decay_shape": "exponential"},
        {"decay_shape": "inverse", "min_lr_fraction": 0.0},
        {"max_steps": 0, "warmup_steps": 0, "decay_steps": 0},
    ],
)
def test_bad_schedules_are_refused(changes):
    with pytest.raises(UserError):
        wsd_or_cosine(replace(WSD, **changes))


def test_a_trial_of_a_few_steps_needs_no_other_setting():
    wsd_or_cosine(Settings(max_steps=3))


def test_orthogonalized_is_the_svds_polar_factor_roughly():
    torch.manual_seed(0)
    stack = torch.randn(3, 24, 64)
    u, _, v = torch.linalg.svd(stack, full_matrices=False)
    got = orthogonalized(stack)
    s = torch.linalg.svdvals(got)
    assert 0.3 < s.min() and s.max() < 1.3
    assert torch.nn.functional.cosine_similarity(got.flatten(1), (u @ v).flatten(1)).min() > 0.97


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_is_pytorchs_muon(dtype):
    """The same steps as torch.optim.Muon up to bf16's rounding, and the same state, for matrices of several shapes."""
    torch.manual_seed(0)
    shapes = [(24, 48), (48, 24), (32, 32), (24, 48), (1, 7)]
    start, grads = (
        [torch.randn(shape) for shape in shapes],
        [[torch.randn(shape) for shape in shapes] for _ in range(4)],
    )
    moved, means = [], []
    for kind, how in ((torch.optim.Muon, {"adjust_lr_fn": "match_rms_adamw"}), (Muon, {"dtype": dtype})):
        parameters = [torch.nn.Parameter(value.clone()) for value in start]
        optimizer = kind(parameters, lr=0.01, weight_decay=0.1, momentum=0.9, **how)
        for step in grads:
            for p, grad in zip(parameters, step):
                p.grad = grad.clone()
            optimizer.step()
        moved.append([p.detach() - value for p, value in zip(parameters, start)])
        means.append([optimizer.state[p]["momentum_buffer"] for p in parameters])
    for theirs, mine, their_mean, my_mean in zip(*moved, *means):
        assert (mine - theirs).norm() / theirs.norm() < 0.02 and torch.allclose(their_mean, my_mean, atol=1e-6)


def test_muon_begins_where_a_checkpoint_holds_no_state_of_a_parameter():
    """One that was saved before the first step that was not skipped."""
    p = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([p], lr=0.1, weight_decay=0.0, momentum=0.9, dtype=torch.float32)
    optimizer.state[p], p.grad = {}, torch.ones(2, 3)
    optimizer.step()
    assert not torch.equal(p, torch.ones(2, 3))


def test_muon_works_on_few_matrices_at_a_time(monkeypatch):
    """Its memory is bounded, its result the same."""
    results = []
    for most in (2**25, 100):
        monkeypatch.setattr(optim, "STACK", most)
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(6, 8)) for _ in range(5)]
        optimizer = Muon(parameters, lr=0.1, weight_decay=0.0, momentum=0.9, dtype=torch.float32)
        for p in parameters:
            p.grad = torch.randn(6, 8)
        optimizer.step()
        results.append(torch.stack(parameters))
    assert torch.allclose(*results, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_weight_decay_is_on_hidden_matrices_only_and_every_parameter_is_optimized_once(optimizer):
    model = Transformer(
        ModelConfig(vocab_size=64, n_layer=2, n_embd=32, n_head=2, n_kv_head=1, qkv_bias=True, tie_embeddings=False)
    )
    optimizers = make_optimizers(model, TrainSettings(optimizer=optimizer, weight_decay=0.1), fast_bf16=False)
    decay = {id(p): group["weight_decay"] for o in optimizers for group in o.param_groups for p in group["params"]}
    assert (
        len(decay)
        == sum(len(group["params"]) for o in optimizers for group in o.param_groups)
        == len(list(model.parameters()))
    )
    for name, p in model.named_parameters():
        assert decay[id(p)] == (0.1 if "_proj.weight" in name else 0.0), name
