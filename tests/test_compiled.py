"""Compiled code is made once: for training, for evaluation, and for batches of any fill."""

from functools import partial

import pytest
import torch
import torch._dynamo.testing
from test_attention import EOT, rows, varlen_stand_in
from test_train import MACHINE, ThreeBytes

import attention
from model import ModelConfig, Transformer
from pretrain import TrainSettings, train_step
from training.dataloader import make_batch
from training.optim import make_optimizers
from training.plan import Plan
from training.validation import ValidationSet, evaluate


@pytest.fixture
def graphs(monkeypatch):
    """A counter in the compiler's place, which runs what it gets as it is."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    yield counter
    torch._dynamo.reset()


@torch.library.custom_op("tests::varlen", mutates_args={})
def varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, max_q: int, max_k: int
) -> torch.Tensor:
    """The stand-in as what PyTorch's function is: one operation, into which the compiler does not look."""
    return varlen_stand_in(q, k, v, bounds, bounds, max_q, max_k, window_size=(-1, 0))


varlen.register_fake(lambda q, *_: torch.empty_like(q))
varlen.register_autograd(lambda ctx, grad: (grad, grad, grad, None, None, None))  # of its shape alone


@pytest.mark.parametrize("form, recompute", [("ids", False), ("bounds", False), ("bounds", True)])
def test_one_graph_for_training_and_one_for_evaluation(graphs, form, recompute, monkeypatch):
    """Two blocks and two steps with two micro-batches each, of which the last is filled up, then a short evaluation.
    The loss has one graph more, which evaluation does not use; every micro-batch has other bounds."""
    monkeypatch.setattr(attention, "varlen_attn", lambda q, k, v, bounds, _, *T, **how: varlen(q, k, v, bounds, *T))
    model = Transformer(ModelConfig(vocab_size=64, block_size=40, n_layer=2, n_head=2, n_kv_head=2, n_embd=32))
    model.recompute = recompute
    model.compile()
    settings, plan = TrainSettings(), Plan(3, form, compiles=True, recompute=recompute)
    optimizers = make_optimizers(model, settings, False)
    found = []
    for _ in range(2):
        train_step(settings, MACHINE, model, optimizers, make_batch(*rows(), EOT, form, "cpu", n_rows=6), 3)
        found.append(graphs.frame_count)
    tokenizer = ThreeBytes()
    tokenizer.eot = EOT
    model.eval()
    ids, targets = rows()
    for n_rows in (5, 1):
        evaluate(model, ValidationSet("", 1.0, ids[:n_rows], targets[:n_rows]), plan, MACHINE, tokenizer)
        found.append(graphs.frame_count)
    assert found == [2, 2, 3, 3]
