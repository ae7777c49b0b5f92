"""The transformer against one written out in numpy, Hugging Face's Llama and Qwen classes, and hand-worked counts."""

import math

import numpy as np
import pytest
import torch

import attention
import loss
from loss import IGNORE
from model import KVCache, ModelConfig, Transformer


def small(**changes):
    torch.manual_seed(0)
    config = ModelConfig(
        **{**dict(vocab_size=64, block_size=32, n_layer=2, n_head=4, n_kv_head=2, n_embd=32), **changes}
    )
    model = Transformer(config)
    for p in model.parameters():  # away from the special values of the start
        torch.nn.init.normal_(p, std=0.2) if p.dim() == 2 else torch.nn.init.uniform_(p, 0.5, 1.5)
    return model.eval()


def tokens(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 64, shape))


def numpy_logits(model, ids):
    """The same network for one sequence, from the papers' formulas, one head and one position at a time."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    c = model.config
    half = c.head_dim // 2

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * w[name + ".weight"]

    def rope(x, position):
        pairs = x[:half] + 1j * x[half:]
        angles = position * c.rope_base ** (-2 * np.arange(half) / c.head_dim)
        pairs = pairs * np.exp(1j * angles)
        return np.concatenate([pairs.real, pairs.imag])

    x = w["embed_tokens.weight"][ids]
    for n in range(c.n_layer):
        a = f"layers.{n}.self_attn."
        h = norm(x, f"layers.{n}.input_layernorm")

        def project(kind, heads):
            y = (h @ w[a + kind + "_proj.weight"].T + w.get(a + kind + "_proj.bias", 0)).reshape(
                len(ids), heads, c.head_dim
            )
            return norm(y, a + kind + "_norm") if c.qk_norm and kind != "v" else y

        q, k, v = project("q", c.n_head), project("k", c.n_kv_head), project("v", c.n_kv_head)
        out = np.zeros((len(ids), c.n_head, c.head_dim))
        for i in range(len(ids)):
            for head in range(c.n_head):
                kv = head // (c.n_head // c.n_kv_head)
                scores = np.array([rope(q[i, head], i) @ rope(k[j, kv], j) for j in range(i + 1)]) / math.sqrt(
                    c.head_dim
                )
                p = np.exp(scores - scores.max())
                out[i, head] = (p / p.sum()) @ v[: i + 1, kv]
        x = x + out.reshape(len(ids), -1) @ w[a + "o_proj.weight"].T
        h = norm(x, f"layers.{n}.post_attention_layernorm")
        gate = h @ w[f"layers.{n}.mlp.gate_proj.weight"].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (h @ w[f"layers.{n}.mlp.up_proj.weight"].T))
            @ w[f"layers.{n}.mlp.down_proj.weight"].T
        )
    return norm(x, "norm") @ w.get("lm_head.weight", w["embed_tokens.weight"]).T


VARIANTS = [
    {},
    {"tie_embeddings": False},
    {"qkv_bias": True, "qk_norm": False},
    {"qk_norm": False},
    {"n_kv_head": 4},
    {"n_kv_head": 1, "rope_base": 500.0},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_equals_the_formulas(changes):
    model, ids = small(**changes), tokens(1, 12)
    assert np.abs(model(ids)[0].detach().numpy() - numpy_logits(model, ids[0].numpy())).max() < 2e-4


@pytest.mark.parametrize(
    "kind, changes", [("Llama", {"qk_norm": False}), ("Qwen2", {"qk_norm": False, "qkv_bias": True}), ("Qwen3", {})]
)
def test_equals_hugging_face(kind, changes):
    transformers = pytest.importorskip("transformers")
    model, c = small(tie_embeddings=False, **changes), small(**changes).config
    config = getattr(transformers, kind + "Config")(
        vocab_size=c.vocab_size,
        hidden_size=c.n_embd,
        intermediate_size=c.mlp_width,
        num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head,
        num_key_value_heads=c.n_kv_head,
        head_dim=c.head_dim,
        rms_norm_eps=c.norm_eps,
        rope_theta=c.rope_base,
        max_position_embeddings=c.block_size,
        tie_word_embeddings=False,
    )
    theirs = getattr(transformers, kind + "ForCausalLM")(config).eval()
    theirs.load_state_dict(
        {name if name.startswith("lm_head") else "model." + name: p for name, p in model.state_dict().items()}
    )
    ids = tokens(2, 20)
    assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4)


def test_counts_worked_by_hand():
    """The shape of experiments/speed.py: per layer 4 x 384^2 + 3 x 384 x 1024 weights and 2 norms."""
    model = Transformer(ModelConfig(vocab_size=8192, n_layer=6, n_head=6, n_kv_head=6, n_embd=384, qk_norm=False))
    assert model.n_params() == 8192 * 384 + 6 * (4 * 384**2 + 3 * 384 * 1024 + 2 * 384) + 384 == 13_767_552
    assert model.flops_per_token() == 6 * 13_767_552 + 12 * 6 * 384 * 256 == 89_683_200
    untied = Transformer(
        ModelConfig(vocab_size=8192, n_layer=6, n_head=6, n_kv_head=2, n_embd=384, tie_embeddings=False, qk_norm=False)
    )
    assert untied.n_params() == 13_767_552 + 8192 * 384 - 6 * 2 * 384 * 256
    assert untied.flops_per_token() == 6 * (untied.n_params() - 8192 * 384) + 12 * 6 * 384 * 256


def test_loss_is_summed_over_counted_targets():
    model, ids, targets = small(), tokens(2, 10), tokens(2, 10).roll(-1, 1).clone()
    targets[0, :4] = IGNORE
    each = model(ids, targets, reduction="none").view(2, 10)
    p = torch.log_softmax(model(ids).double(), -1)
    by_hand = -p.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets != IGNORE)
    assert torch.allclose(each.double(), by_hand, atol=1e-4) and torch.allclose(
        model(ids, targets).double(), by_hand.sum(), atol=1e-3
    )


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_loss_in_chunks_is_the_loss_of_all_logits(dtype, close, monkeypatch):
    """Loss and gradients, of tokens that are no whole number of chunks and with targets that do not count."""
    monkeypatch.setattr(loss, "CHUNK", 16)
    model, ids = small().train(), tokens(3, 14)
    model.dtype, targets = dtype, ids.roll(-1, 1).masked_fill(ids % 5 == 0, IGNORE)
    found = []
    for whole in (True, False):
        model.zero_grad()
        if whole:
            logits = model(ids).float().flatten(0, 1)
            total = torch.nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")
        else:
            total = model(ids, targets)
        (total / 7).backward()
        found.append((total.item(), [p.grad.clone() for p in model.parameters()]))
    (plain, plain_grads), (chunked, grads) = found
    assert chunked == pytest.approx(plain, rel=close)
    for a, b in zip(plain_grads, grads):
        assert (a - b).norm() <= close * a.norm()


@pytest.mark.parametrize("n_kv_head", [4, 2])
def test_attention_in_blocks_is_pytorchs(n_kv_head):
    q, k, v = torch.randn(2, 4, 300, 16), torch.randn(2, n_kv_head, 300, 16), torch.randn(2, n_kv_head, 300, 16)
    doc_ids = torch.randint(0, 40, (2, 300)).sort().values
    for ids, mask in ((None, attention.causal_mask(300, q.device)), (doc_ids, attention.document_mask(doc_ids))):
        mine = attention.attention(q, k, v, attention.attention_mask(ids, 300, q.device))
        theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_first_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model, ids = Transformer(ModelConfig(vocab_size=4096)), torch.randint(0, 4096, (4, 256))
    loss = model(ids, ids.roll(-1, 1)).item() / ids.numel()
    assert abs(loss / math.log(4096) - 1) < 0.02


def test_packed_documents_equal_the_documents_alone():
    """Logits and gradients of a row of three documents, with the mask, are those of each document by itself."""
    model, lengths = small(), (9, 3, 15)
    parts = [tokens(3, 27)[i, :n] for i, n in enumerate(lengths)]
    doc_ids = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None]
    row = torch.cat(parts)[None]
    targets = torch.cat([part.roll(-1) for part in parts])[None]
    logits = model(row, doc_ids=doc_ids)[0]
    for alone, packed in zip(parts, logits.split(lengths)):
        assert torch.allclose(model(alone[None])[0], packed, atol=2e-5)
    model(row, targets, doc_ids).backward()
    packed_grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(model(part[None], part.roll(-1)[None]) for part in parts).backward()
    for packed, p in zip(packed_grads, model.parameters()):
        assert torch.allclose(packed, p.grad, atol=1e-3, rtol=1e-4)


def test_nothing_leaks_from_another_document_or_from_the_future():
    model, row = small(), tokens(1, 24)
    doc_ids = (torch.arange(24) >= 10).long()[None]
    changed = row.clone()
    changed[0, :10] = (changed[0, :10] + 1) % 64
    assert torch.equal(model(row, doc_ids=doc_ids)[0, 10:], model(changed, doc_ids=doc_ids)[0, 10:])
    changed = row.clone()
    changed[0, 15:] = (changed[0, 15:] + 1) % 64
    assert torch.equal(model(row, doc_ids=doc_ids)[0, :15], model(changed, doc_ids=doc_ids)[0, :15])
    assert torch.allclose(model(row)[0, :15], model(changed)[0, :15], atol=1e-6)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_model_in_bf16_is_the_same_but_for_rounding(changes):
    model, ids = small(**changes), tokens(2, 20)
    wanted = model(ids)
    found = model.ready(torch.bfloat16)(ids)
    assert found.dtype == torch.bfloat16 and (found - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize(
    "dtype, in_blocks, error",
    [(torch.float32, True, 1e-4), (torch.float32, False, 1e-4), (torch.bfloat16, True, 0.05)],
    ids=["blocks", "plain", "bf16"],
)
@pytest.mark.parametrize("changes", VARIANTS)
def test_cache_equals_the_full_pass(changes, dtype, in_blocks, error, monkeypatch):
    """Texts of different lengths come in pieces, some rows at a time; a row is used again; the others are forgotten."""
    if not in_blocks:  # as on a GPU
        monkeypatch.setattr("model.multiplies_blocks", lambda weight: False)
    as_trained, model, texts = small(**changes), small(**changes).ready(dtype), tokens(4, 30)
    cache = KVCache(model, 3, 30)

    def extend(rows, texts, *pieces):
        """Hand over the pieces of these texts from where their rows are, and compare the logits behind each."""
        ends = [cache.lengths[row] + n for row, n in zip(rows, pieces)]
        ids = torch.zeros(len(rows), max(pieces), dtype=torch.long)
        for i, (row, text, end) in enumerate(zip(rows, texts, ends)):
            ids[i, : pieces[i]] = text[cache.lengths[row] : end]
        logits = model.extend(ids, cache, rows, pieces)
        for text, end, mine in zip(texts, ends, logits):
            wanted = as_trained(text[None, :end])[0, -1]
            assert (mine - wanted).norm() < error * wanted.norm()

    a, b, c, d = texts
    extend([0, 1, 2], [a, b, c], 15, 9, 3)
    for _ in range(3):
        extend([0, 1, 2], [a, b, c], 1, 1, 1)
    extend([0, 2], [a, c], 2, 7)
    cache.lengths[1] = 0
    extend([1], [d], 12)
    extend([0, 1, 2], [a, d, c], 1, 1, 1)
    cache.keep([0, 1])
    extend([0, 1], [a, d], 1, 1)


@pytest.mark.parametrize("bad", [{"n_embd": 30}, {"n_kv_head": 3}, {"n_layer": 0}, {"n_embd": 12, "n_head": 4}])
def test_impossible_shapes_are_refused(bad):
    with pytest.raises(ValueError):
        small(**bad)
