"""Rotary positions (arXiv:2104.09864), and how to stretch them over a longer context than the model has learnt.

A head is head_dim / 2 pairs of numbers. At position p, pair i is turned by the angle p x frequency i. A query turned by
angle p and a key turned by angle q have a product that depends on p - q alone: on the distance. The first pairs turn
fast and tell neighbours apart, the last ones turn slowly and tell far from near:

    frequency i = rope_base^(-2i / head_dim)      radians per token; i = 0 .. head_dim/2 - 1

Beyond the length that was trained, slow pairs reach angles which the model has never seen. rope_scaling makes them turn
more slowly, so that a context rope_factor = s times as long holds no new angles, and little training gets a model used
to it:

    linear   all frequencies / s, as if s tokens stood in the place of one (position interpolation, arXiv:2306.15595):
             simple, but neighbours are then harder to tell apart
    ntk      a larger rope_base: the slowest pair turns s times as slowly, the fastest as before (NTK-aware scaling)
    yarn     pairs that turn often within the trained length stay as they are, those that turn less than once are
             divided by s, with a ramp between them (arXiv:2309.00071)
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ranges import Range

Scaling = Literal["none", "linear", "ntk", "yarn"]
Factor = Annotated[float, Range(1, 10**4)]
FAST, SLOW = 32, 1  # YaRN: with more turns in the trained length a pair stays, with fewer it is divided by s


def rope_tables(positions: Tensor, config) -> tuple[Tensor, Tensor]:
    """What rotate() multiplies with: cos and sin of the angles of all pairs, once for the first numbers of the pairs,
    where sin is negative, and once for the second. Each positions.shape + (head_dim,). config: a ModelConfig."""
    angles, size = positions.float()[..., None] * frequencies(config, positions.device), attention_factor(config)
    cos, sin = angles.cos() * size, angles.sin() * size
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pair (i, i + head_dim/2) of x (B, n_head, T, head_dim) by its angle: (a, b) becomes
    (a cos - b sin, b cos + a sin)."""
    other = x.roll(x.shape[-1] // 2, -1)  # b, a
    return (x * cos + other * sin).to(x.dtype)


def frequencies(config, device: torch.device) -> Tensor:
    """Radians per token of each pair, (head_dim / 2,)."""
    learnt = rope_base(config) ** (-torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim)
    if config.rope_scaling == "linear":
        return learnt / config.rope_factor
    if config.rope_scaling == "yarn":
        first, last = yarn_ramp(config)
        pairs = torch.arange(config.head_dim // 2, device=device)
        divided = ((pairs - first) / (last - first)).clamp(0, 1)  # 0: stays, 1: divided by s
        return learnt * (1 - divided) + learnt / config.rope_factor * divided
    return learnt


def rope_base(config) -> float:
    """The base of the frequencies. With ntk the slowest one, base^(-(d - 2)/d), becomes s times smaller."""
    if config.rope_scaling != "ntk":
        return config.rope_base
    return config.rope_base * config.rope_factor ** (config.head_dim / (config.head_dim - 2))


def yarn_ramp(config) -> tuple[float, float]:
    """The first and the last pair of YaRN's ramp: up to the first frequencies stay, from the last on they are / s."""

    def pair(turns):
        """The pair that turns so often in the trained length: rope_trained x frequency i = 2 pi turns, solved for i."""
        ratio = config.rope_trained / (2 * math.pi * turns)
        return config.head_dim * math.log(ratio) / (2 * math.log(config.rope_base))

    first = max(0, math.floor(pair(FAST)))
    last = min(config.head_dim - 1, math.ceil(pair(SLOW)))
    return first, max(last, first + 0.001)


def attention_factor(config) -> float:
    """YaRN multiplies cos and sin by this, and so queries and keys: over more keys a softmax is flatter, which larger
    products make up for. The formula was fitted to experiments (section 3.4 of the paper)."""
    return 0.1 * math.log(config.rope_factor) + 1 if config.rope_scaling == "yarn" else 1.0
