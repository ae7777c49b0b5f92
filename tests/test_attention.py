"""Attention by any kernel is that of each document alone; on a GPU the kernel is told where documents begin."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import attention as module
from attention import attention, attention_mask, document_bounds, document_form, kernel_name, shifted_masks
from loss import IGNORE
from model import ModelConfig, Transformer
from training.dataloader import make_batch

GPU, CPU, BF16 = torch.device("cuda"), torch.device("cpu"), torch.bfloat16
EOT = 63


def varlen_stand_in(q, k, v, bounds, bounds_k, max_q, max_k, *, window_size, enable_gqa=False):
    """torch.nn.attention.varlen.varlen_attn, which needs a GPU, written as it is defined."""
    assert bounds is bounds_k and window_size == (-1, 0) and bounds.dtype == torch.int32 and bounds[0] == 0
    assert q.shape[0] == bounds[-1] and bounds.diff().min() > 0 and bounds.diff().max() <= max_q == max_k
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    assert q.shape == k.shape == v.shape, "equally many heads"
    parts = []
    for start, end in zip(bounds.tolist(), bounds.tolist()[1:]):
        one = (x[start:end].transpose(0, 1) for x in (q, k, v))
        parts.append(F.scaled_dot_product_attention(*one, is_causal=True).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def varlen(monkeypatch):
    """Let the stand-in run, as in PyTorch 2.13."""
    monkeypatch.setattr(module, "varlen_attn", varlen_stand_in)
    monkeypatch.setattr(module, "VARLEN_OPTIONS", ("window_size", "enable_gqa"))


@pytest.fixture
def gpu(monkeypatch):
    """A capability that a test may change."""
    found = [(8, 6)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: found[0])
    return found


def row_of(*lengths):
    return torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])


DOCUMENTS = torch.stack([row_of(9, 1, 30), row_of(40), row_of(1, 1, 1, 37), row_of(2, 38)])


def test_bounds_are_where_the_number_or_the_row_changes():
    end_to_end = [(row, number) for row, numbers in enumerate(DOCUMENTS.tolist()) for number in numbers]
    expected = [i for i, what in enumerate(end_to_end) if i == 0 or what != end_to_end[i - 1]] + [160]
    bounds = document_bounds(DOCUMENTS)
    assert bounds.tolist() == expected == [0, 9, 10, 40, 80, 81, 82, 83, 120, 122, 160] and bounds.dtype == torch.int32


@pytest.mark.parametrize("options", [("window_size", "enable_gqa"), ("window_size",)])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_every_kernel_is_attention_within_documents(varlen, monkeypatch, n_kv_head, options):
    """Forward and backward: by bounds, by a mask of PyTorch's kernel and in blocks, against each document alone."""
    monkeypatch.setattr(module, "VARLEN_OPTIONS", options)
    monkeypatch.setattr(module, "BLOCK", 16)
    B, T = DOCUMENTS.shape
    torch.manual_seed(0)
    inputs = [torch.randn(B, heads, T, 8, dtype=torch.double) for heads in (4, n_kv_head, n_kv_head, 4)]

    def run(function):
        """The output and the gradients of q, k and v."""
        q, k, v = (x.clone().requires_grad_() for x in inputs[:3])
        y = function(q, k, v)
        y.backward(inputs[3])
        return y.detach(), q.grad, k.grad, v.grad

    def alone(q, k, v):
        """The definition, query by query."""
        k, v = (x.repeat_interleave(4 // n_kv_head, dim=1) for x in (k, v))
        y = []
        for row, documents in enumerate(DOCUMENTS.tolist()):
            for i, document in enumerate(documents):
                keys = [j for j in range(i + 1) if documents[j] == document]
                scores = torch.einsum("hd,hjd->hj", q[row, :, i], k[row, :, keys]) / 8**0.5
                y.append(torch.einsum("hj,hjd->hd", scores.softmax(-1), v[row, :, keys]))
        return torch.stack(y).view(B, T, 4, 8).transpose(1, 2)

    expected = run(alone)
    masks = {
        "bounds": attention_mask(document_bounds(DOCUMENTS), T, GPU),
        "bool": module.document_mask(DOCUMENTS),
        "blocks": attention_mask(DOCUMENTS, T, CPU),
    }
    for name, mask in masks.items():
        for got, want in zip(run(lambda q, k, v: attention(q, k, v, mask)), expected):
            assert torch.allclose(got, want, atol=1e-6), name


# -- shifted sparse attention: half of the heads look at groups of T / 4, the others at groups half a group later


def visible(T, documents=None):
    """(2, T, T) bool by the definition: whether query i of either half of the heads looks at key j."""
    size, seen = T // 4, torch.zeros(2, T, T, dtype=torch.bool)
    for half, first_end in enumerate((size, size // 2)):
        ends = range(first_end, T + size, size)  # of the groups
        for i in range(T):
            for j in range(i + 1):
                same_group = [i < end for end in ends] == [j < end for end in ends]
                seen[half, i, j] = same_group and (documents is None or documents[i] == documents[j])
    return seen


def test_shifted_masks_are_the_definition():
    for documents in (None, *DOCUMENTS):
        doc_ids = None if documents is None else documents[None]
        masks = [mask[0, 0] == 0 for mask in shifted_masks(doc_ids, 1, 40, CPU)]
        assert torch.equal(torch.stack(masks), visible(40, documents))
    assert visible(40).sum() == 4 * 55 + 3 * 55 + 2 * 15, "groups of 10, and of 5, 10, 10, 10, 5"


def test_shifted_attention_is_the_same_with_any_kernel(varlen):
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, heads, 40, 8, dtype=torch.double) for heads in (3, 1, 1))
    seen = torch.stack([visible(40, documents) for documents in DOCUMENTS])[:, [0, 1, 1]]  # of three heads, one and two
    expected = F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q), attn_mask=seen)
    by_numbers = shifted_masks(DOCUMENTS, 4, 40, CPU)
    masks = {
        "bounds": shifted_masks(document_bounds(DOCUMENTS), 4, 40, CPU),
        "bool": tuple(mask == 0 for mask in by_numbers),
        "blocks": by_numbers,
    }
    for name, pair in masks.items():
        assert torch.allclose(attention(q, k, v, pair), expected, atol=1e-6), name


def rolled(q, k, v):
    """Shifted sparse attention as LongLoRA's code does it: the tokens of half of the heads move round in a circle."""
    B, H, T, d = q.shape
    size, late = T // 4, slice(H // 2, H)
    q, k, v = (x.clone() for x in (q, k, v))
    for x in (q, k, v):
        x[:, late] = x[:, late].roll(-(size // 2), dims=2)
    groups = [x.reshape(B, H, 4, size, d) for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*groups, is_causal=True).reshape(B, H, T, d)
    y[:, late] = y[:, late].roll(size // 2, dims=2)
    return y


def test_no_token_sees_a_later_one_as_it_would_if_tokens_moved_round():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 40, 8) for _ in range(3))
    masks = shifted_masks(None, 1, 40, CPU)
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, -1] += 1

    def differs(function):
        """The positions at which another last token gives another result."""
        return (function(*changed) - function(q, k, v)).abs().amax((0, 1, 3)).gt(1e-6).nonzero()[:, 0].tolist()

    assert differs(lambda *qkv: attention(*qkv, masks)) == [39]
    assert differs(rolled) == [0, 1, 2, 3, 4, 39]
    ours, theirs = attention(q, k, v, masks), rolled(q, k, v)
    assert torch.allclose(ours[:, :, 5:], theirs[:, :, 5:], atol=1e-6), "the same but for what has moved round"
    assert torch.allclose(ours[:, :2], theirs[:, :2], atol=1e-6)


def test_a_model_is_shifted_in_training_alone():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=64, block_size=40, n_layer=3, n_head=3, n_kv_head=3, n_embd=48))
    ids = torch.randint(0, 64, (2, 40))
    edited = torch.cat([ids[:, :-1], (ids[:, -1:] + 1) % 64], dim=1)
    plain = model(ids)
    model.shifted = True
    shifted = model(ids)
    assert torch.equal(model(edited)[:, :-1], shifted[:, :-1]) and not torch.equal(model(edited), shifted)
    assert torch.equal(model.eval()(ids), plain) and torch.allclose(shifted[:, :5], plain[:, :5], atol=1e-6)
    assert (shifted - plain)[:, 10:].abs().max() > 1e-3
    model.train().recompute = True
    model(ids, ids, DOCUMENTS[:2]).backward()


def test_attention_in_bf16_is_as_exact_as_bf16():
    """Output and gradients against those in fp64 of the same numbers; bf16 keeps 8 bits, which is 0.4 %."""
    torch.manual_seed(0)
    mask, inputs = attention_mask(DOCUMENTS, 40, CPU), [torch.randn(4, 2, 40, 32, dtype=BF16) for _ in range(4)]
    inputs[0] *= 3  # few keys count
    results = []
    for dtype in (BF16, torch.double):
        q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in inputs[:3])
        y = attention(q, k, v, mask.to(dtype))
        y.backward(inputs[3].to(dtype))
        results.append([x.double() for x in (y.detach(), q.grad, k.grad, v.grad)])
    for rough, exact in zip(*results):
        assert (rough - exact).norm() / exact.norm() < 0.015


def test_a_model_that_is_told_the_bounds_learns_the_same(varlen):
    """The whole model on rows of which one is added: losses and gradients, micro-batch by micro-batch."""
    config = ModelConfig(vocab_size=64, block_size=40, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
    torch.manual_seed(0)
    model = Transformer(config)
    results = []
    for form in ("ids", "bounds"):
        model.zero_grad()
        losses = []
        for part in make_batch(*rows(), EOT, form, "cpu", n_rows=6).split(2):
            ids, targets, doc_ids = part.inputs()
            assert doc_ids.dim() == (2 if form == "ids" else 1)
            loss = model(ids, targets, doc_ids)
            loss.backward()
            losses.append(loss.item())
        results.append((losses, [p.grad.clone() for p in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) for a, b in zip(results[0][1], results[1][1]))


def rows():
    """Five rows of documents; the first ends in a filled part."""
    ids = np.random.default_rng(0).integers(0, 60, (5, 40))
    ids[:, [0, 7, 20]] = EOT
    ids[2, 21] = EOT  # a document without a word
    targets = np.roll(ids, -1, axis=1)
    ids[0, 30:], targets[0, 30:] = EOT, IGNORE
    return ids, targets


def test_each_micro_batch_has_its_own_bounds():
    """What fills a row up is one document."""
    batch = make_batch(*rows(), EOT, "bounds", "cpu", n_rows=6)
    found = [part.inputs()[2].tolist() for part in batch.split(2)]
    assert found == [[0, 7, 20, 30, 40, 47, 60, 80], [0, 7, 20, 21, 40, 47, 60, 80], [0, 7, 20, 40, 80]]
    numbers = make_batch(*rows(), EOT, "ids", "cpu", n_rows=6).inputs()[2]
    assert [int(row.max()) for row in numbers] == [4, 3, 4, 3, 3, 1]
    assert make_batch(*rows(), EOT, None, "cpu").inputs()[2] is None


def test_bounds_are_made_without_asking_the_gpu():
    """On the device "meta", as on a GPU, numbers can't be looked at."""
    part = next(make_batch(*rows(), EOT, "bounds", "meta").split(2))
    ids, _, bounds = part.inputs()
    assert ids.device.type == bounds.device.type == "meta" and bounds.shape == (8,)
    assert bounds.dtype == torch.int32 and part.count == 70


def test_the_form_of_documents_follows_the_kernel(varlen, gpu, monkeypatch):
    def form(device=GPU, dtype=BF16, head_dim=64, doc_mask=True):
        return document_form(doc_mask, device, dtype, head_dim)

    assert form() == "bounds" and form(doc_mask=False) is None
    assert form(CPU) == form(torch.device("mps")) == form(dtype=torch.float32) == "ids"
    assert form(head_dim=36) == form(head_dim=256) == "ids"
    gpu[0] = (7, 5)
    assert form() == "ids"
    gpu[0] = (9, 0)
    assert form() == "bounds"
    monkeypatch.setattr(module, "VARLEN_OPTIONS", ())
    assert form() == "ids", "PyTorch before 2.11"


def test_the_plan_names_the_kernel():
    assert kernel_name("bounds", 2048, GPU) == "flash, variable length"
    assert kernel_name("ids", 2048, GPU) == kernel_name("ids", 2048, CPU) == "PyTorch's, with a mask"
    assert kernel_name(None, 2048, GPU) == "PyTorch's"
    assert kernel_name("ids", 256, CPU) == kernel_name(None, 1024, CPU) == "two products and a softmax"
