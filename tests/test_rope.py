"""Rotary positions: the figures that were published, transformers' tables, and what stretching them must and must not do."""

from dataclasses import asdict

import pytest
import torch
from test_model import small, tokens

from model import KVCache, ModelConfig, Shape
from rope import attention_factor, frequencies, rope_base, rope_tables, rotate, yarn_ramp

CPU = torch.device("cpu")


def config(scaling="none", factor=1.0, trained=0, **changes):
    """A model with heads of 64."""
    shape = {"n_embd": 64, "n_head": 1, "n_kv_head": 1, "block_size": 2048, **changes}
    return ModelConfig(rope_scaling=scaling, rope_factor=factor, rope_trained=trained, **shape)


def test_a_product_depends_on_distance_alone():
    q, k = torch.randn(1, 1, 1, 64), torch.randn(1, 1, 1, 64)
    for c in (config(), config("linear", 4, 512), config("ntk", 4, 512), config("yarn", 4, 512)):

        def score(i, j):
            turned = [rotate(x, *rope_tables(torch.tensor([at]), c)) for x, at in ((q, i), (k, j))]
            return (turned[0] * turned[1]).sum()

        assert torch.allclose(score(3, 1), score(103, 101), atol=1e-4)
        assert not torch.allclose(score(3, 1), score(3, 2), atol=1e-3)


def test_published_figures():
    """NTK-aware: base 1e4 and s = 8 make 85,550. YaRN at 2,048 trained tokens, s = 8: the ramp from pair 8 to 21, and
    a factor of 1.2079."""
    assert round(rope_base(config("ntk", 8, 2048))) == 85550
    assert yarn_ramp(config("yarn", 8, 2048)) == (8, 21)
    assert attention_factor(config("yarn", 8, 2048)) == pytest.approx(1.2079, abs=1e-4)
    assert attention_factor(config("linear", 8, 2048)) == attention_factor(config()) == 1


def test_what_each_scaling_does_to_the_fastest_and_the_slowest_pair():
    plain = frequencies(config(), CPU)
    assert torch.equal(frequencies(config("linear", 8, 2048), CPU), plain / 8)
    ntk, yarn = (frequencies(config(scaling, 8, 2048), CPU) for scaling in ("ntk", "yarn"))
    assert ntk[0] == plain[0] and ntk[-1] == pytest.approx(plain[-1].item() / 8)
    assert torch.equal(yarn[:9], plain[:9]) and torch.allclose(yarn[21:], plain[21:] / 8, rtol=1e-6)
    between = plain[9:21] / yarn[9:21]
    assert (between.diff() > 0).all() and 1 < between[0] < between[-1] < 8


def test_pairs_on_yarns_ramp_turn_as_often_as_the_paper_says():
    """Counted, not solved for: what stays turns at least 32 times in 2,048 tokens, what is divided at most once."""
    turns = frequencies(config(), CPU) * 2048 / (2 * torch.pi)
    first, last = yarn_ramp(config("yarn", 8, 2048))
    assert turns[first] >= 32 > turns[first + 1] and turns[last - 1] > 1 >= turns[last]


@pytest.mark.parametrize("scaling", ["none", "linear", "ntk", "yarn"])
@pytest.mark.parametrize("base, trained", [(10000.0, 256), (500.0, 40), (1e6, 4096)])
def test_transformers_has_the_same_tables(scaling, base, trained):
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    factor = 1.0 if scaling == "none" else 4.0
    ours = config(scaling, factor, trained * (factor > 1), rope_base=base)
    parameters = {"rope_type": "default", "rope_theta": rope_base(ours)}
    if scaling in ("linear", "yarn"):
        parameters |= {"rope_type": scaling, "factor": factor}
    if scaling == "yarn":
        parameters["original_max_position_embeddings"] = trained
    theirs = LlamaConfig(
        hidden_size=64, num_attention_heads=1, max_position_embeddings=4 * trained, rope_parameters=parameters
    )
    positions = torch.arange(4 * trained)
    tables = LlamaRotaryEmbedding(theirs)(torch.zeros(1, 1, 1), positions[None])
    cos, sin = rope_tables(positions, ours)
    sin[:, :32] *= -1  # theirs has no sign: it is in what they multiply with
    for mine, other in zip((cos, sin), tables):  # angles of up to 16,384, in fp32
        assert torch.allclose(mine, other[0], atol=2e-3)


def test_the_model_reads_with_stretched_positions_also_token_by_token():
    ids = tokens(1, 16)
    plain = small(block_size=16)(ids)
    for scaling in ("linear", "ntk", "yarn"):
        model = small(block_size=16, rope_scaling=scaling, rope_factor=4.0, rope_trained=8)
        whole, cache = model(ids), KVCache(model, 1, 16)
        one_by_one = [model.extend(ids[:, i : i + 1], cache, [0], [1]) for i in range(16)]
        assert torch.allclose(torch.stack(one_by_one, 1), whole, atol=1e-4)
        assert (whole - plain).abs().max() > 0.01


def test_a_checkpoint_from_before_there_was_scaling_is_not_scaled():
    old = asdict(Shape(block_size=64, rope_base=500.0))
    assert ModelConfig(**old) == ModelConfig(block_size=64, rope_base=500.0, rope_scaling="none", rope_factor=1.0)


@pytest.mark.parametrize(
    "changes, words",
    [
        (("yarn", 1, 256), "needs a block_size longer"),
        (("none", 4, 256), "needs a block_size longer"),
        (("linear", 4, 0), "needs a block_size longer"),
        (("dynamic", 4, 256), "rope_scaling must be one of none"),
        (("yarn", float("nan"), 256), "rope_factor must be"),
        (("ntk", 4, 256, {"n_head": 32}), "needs heads of over 2 numbers"),
        (("yarn", 4, 256, {"rope_base": 1.0}), "needs heads of over 2 numbers and a rope_base above 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, words):
    scaling, factor, trained, *shape = changes
    with pytest.raises(ValueError, match=words):
        config(scaling, factor, trained, **(shape[0] if shape else {}))


@pytest.mark.parametrize("trained, base", [(1, 1e4), (3, 2.0), (2**20, 1.5), (100, 1e9)])
def test_yarn_is_finite_at_the_ends(trained, base):
    turned = frequencies(config("yarn", 4, trained, rope_base=base), CPU)
    plain = frequencies(config(rope_base=base), CPU)
    assert (turned <= plain * 1.0001).all() and (turned >= plain / 4.0001).all()
