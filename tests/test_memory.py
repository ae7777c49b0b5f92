"""What training keeps in memory: the estimate against what autograd is seen to keep, and what follows from it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from model import ModelConfig, Transformer
from pretrain import TrainSettings
from training import memory
from training.machine import Machine
from training.memory import kept_for_backward, memory_estimate
from training.optim import make_optimizers
from training.plan import Plan, make_plan

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP32, BF16 = torch.float32, torch.bfloat16
SHAPE = dict(vocab_size=2048, block_size=256, n_layer=3, n_head=4, n_kv_head=4, n_embd=128)


def counted(config, n_rows, dtype, form, recompute=False):
    """Bytes of the tensors that a forward pass saves for the backward pass, counted by autograd's own hook."""
    model, kept = Transformer(config), {}
    model.dtype, model.recompute = dtype, recompute
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # which stays alive, so that no other comes to lie there
        return tensor

    ids = torch.randint(0, config.vocab_size, (n_rows, config.block_size))
    doc_ids = (ids < 40).cumsum(1) if form else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(ids, ids, doc_ids)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize(
    "n_rows, form, shape",
    [
        (4, "ids", {}),
        (2, None, {"n_kv_head": 1, "qk_norm": False}),
        (3, "ids", {"block_size": 100, "n_embd": 192, "n_kv_head": 2, "tie_embeddings": False}),
        (1, "ids", {"block_size": 1024}),
        (2, None, {"block_size": 600, "n_layer": 5, "mlp_dim": 512}),
    ],
)
def test_estimate_is_what_autograd_keeps(n_rows, form, shape, dtype):
    config, machine = ModelConfig(**{**SHAPE, **shape}), Machine(0, 1, CPU, dtype)
    kept = counted(config, n_rows, dtype, form)
    plan = Plan(n_rows, form, compiles=False, recompute=False)
    assert kept_for_backward(config, machine, plan) == pytest.approx(kept, rel=0.1)
    # Recomputing, the forward pass keeps little; behind it a block at a time is there as a whole.
    one_block = kept - counted(replace(config, n_layer=config.n_layer - 1), n_rows, dtype, form)
    recomputed = counted(config, n_rows, dtype, form, recompute=True)
    expected = recomputed + one_block
    assert kept_for_backward(config, machine, replace(plan, recompute=True)) == pytest.approx(expected, rel=0.1)
    assert expected < 0.75 * kept


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_optimizer_state_is_counted_where_it_is(optimizer, world_size, monkeypatch):
    """Without activations and what is there for a moment: weights, gradients, and the state of a step that was made."""
    monkeypatch.setattr(memory, "kept_for_backward", lambda *_: 0)
    monkeypatch.setattr(memory, "STACK", 1)
    config = ModelConfig(**SHAPE)
    sizes = []
    for rank in range(world_size):
        model, settings = Transformer(config), TrainSettings(optimizer=optimizer)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizers = make_optimizers(model, settings, False, rank, world_size)
        for one in optimizers:
            one.step()
        tensors = [*model.parameters(), *(p.grad for p in model.parameters())]
        for one in optimizers:
            tensors += [t for state in one.state.values() for t in state.values() if t.numel() > 1]
        sizes.append(sum(t.nbytes for t in tensors))
    plan = Plan(1, None, compiles=True, recompute=False)
    machine = Machine(0, world_size, CPU, FP32)
    estimate = memory_estimate(model, settings, machine, plan)
    logits = 256 * 2048 * 4
    assert estimate == max(sizes) + max(4 * 2048 * 128 + 2 * logits, 256 * 4 * (4 * 384 + 2 * 128))


def test_the_micro_batch_fills_a_gpu(monkeypatch):
    """The most rows that fit into 90 % of the smaller GPU, of two; at least one, and at most the share."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(vocab_size=50304, block_size=1024, n_layer=12, n_head=12, n_embd=768))
    machine = SimpleNamespace(device=GPU, dtype=BF16, rank=0, world_size=2)
    monkeypatch.setattr("training.plan.document_form", lambda *_: "bounds")
    monkeypatch.setattr("training.plan.should_compile", lambda *_: True)

    def rows(gigabytes, **changes):
        settings = TrainSettings(batch_tokens=2**18, **changes)
        total = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
        machine.sum = lambda mine, other: [float(mine), min(gigabytes, 24) * 2.0**30]
        return settings, make_plan(model, settings, machine).micro_batch

    settings, most = rows(80)
    assert rows(80) == rows(24) == (settings, most)
    plan = Plan(1, "bounds", compiles=True, recompute=False)
    bytes_of = [memory_estimate(model, settings, machine, replace(plan, micro_batch=n)) for n in range(1, 129)]
    fitting = sum(size <= 0.9 * 24 * 2**30 for size in bytes_of)
    assert bytes_of == sorted(bytes_of) and 43 <= fitting < 64 and most == 43, "128 rows in three parts"
    assert rows(12)[1] < most < rows(24, recompute=True)[1] == 128 and rows(1)[1] == 1
    assert rows(24, micro_batch=4)[1] == 4


@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_recomputed_gradients_are_the_same_bit_for_bit(dtype):
    torch.manual_seed(0)
    model, ids = Transformer(ModelConfig(**SHAPE)), torch.randint(0, 2048, (2, 256))
    model.dtype, grads = dtype, []
    for model.recompute in (False, True):
        model.zero_grad()
        model(ids, ids, (ids < 40).cumsum(1)).backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *grads))
