"""From rewards to a loss: against closed forms, and numbers worked by hand."""

import math

import pytest
import torch

from training.policy import clipped_gain, divergence, gae, group_advantages


def test_advantages_of_a_group():
    assert group_advantages([1, 0, 0, 1], by_std=False) == [0.5, -0.5, -0.5, 0.5]
    rare = group_advantages([1, 0, 0, 0, 0, 0, 0, 0], by_std=False)
    assert rare[0] == 7 / 8 and abs(sum(rare)) < 1e-12
    assert group_advantages([1, 1, 1], False) == [0, 0, 0] == group_advantages([0, 0, 0], True)
    # One of eight: the mean is 1/8, the standard deviation sqrt(7)/8.
    assert group_advantages([1, 0, 0, 0, 0, 0, 0, 0], True)[0] == pytest.approx(math.sqrt(7), abs=2e-3)


def test_generalised_advantages_are_the_sum_that_the_paper_writes():
    reward, values, lam = 1.0, [0.2, 0.5, 0.1, 0.7], 0.9
    following = [*values[1:], reward]
    wrong = [after - before for before, after in zip(values, following)]
    by_hand = [sum(lam ** (k - t) * wrong[k] for k in range(t, 4)) for t in range(4)]
    advantages, returns = gae(reward, values, lam)
    assert advantages == pytest.approx(by_hand)
    assert returns == pytest.approx([a + v for a, v in zip(by_hand, values)])
    assert gae(reward, values, 1.0)[0] == pytest.approx([reward - value for value in values])
    assert gae(reward, values, 0.0)[0] == pytest.approx(wrong)


@pytest.mark.parametrize(
    "ratio, advantage, gain, slope",
    [  # slope: of the gain with the ratio, 0 beyond the clip
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.0),
        (1.5, 2.0, 2.56, 0.0),  # likelier than 1 + .28 already
        (0.5, 2.0, 1.0, 2.0),  # but what became less likely may come back
        (0.5, -2.0, -1.6, 0.0),  # less likely than 1 - .2 already
        (1.5, -2.0, -3.0, -2.0),
    ],
)
def test_the_gain_ends_at_the_clip(ratio, advantage, gain, slope):
    logprob = torch.tensor(math.log(ratio), requires_grad=True)
    found = clipped_gain(logprob, torch.tensor(0.0), torch.tensor(advantage), 0.2, 0.28)
    found.backward()
    assert found.item() == pytest.approx(gain)
    assert logprob.grad.item() == pytest.approx(slope * ratio, abs=1e-6)  # d ratio / d logprob = ratio


def test_the_divergence_is_never_negative_and_exact_on_average():
    assert divergence(torch.tensor(0.0), torch.tensor(math.log(2))).item() == pytest.approx(2 - math.log(2) - 1)
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    estimates = divergence(policy.log(), reference.log())
    assert (estimates >= 0).all() and estimates[1] == 0
    exact = (policy * (policy / reference).log()).sum()
    assert (policy * estimates).sum().item() == pytest.approx(exact.item())


def test_on_policy_gradient_of_a_bandit_is_the_analytic_one():
    """Two arms, all outcomes of a group of two weighted by their probabilities: the gradient of the expected reward,
    p (1 - p) (r1 - r0), times (G - 1) / G, since the mean that is subtracted holds the attempt itself."""
    theta, rewards = torch.tensor(0.3, requires_grad=True), [0.0, 1.0]
    p = torch.sigmoid(theta)
    logprobs = torch.stack([(1 - p).log(), p.log()])
    expected = torch.zeros(())
    for first in (0, 1):
        for second in (0, 1):
            advantages = torch.tensor(group_advantages([rewards[first], rewards[second]], by_std=False))
            drawn = logprobs[[first, second]]
            gains = clipped_gain(drawn, drawn.detach(), advantages, 0.2, 0.28)
            expected = expected + drawn.sum().exp().detach() * gains.mean()
    (gradient,) = torch.autograd.grad(expected, theta)
    p = p.item()
    assert gradient.item() == pytest.approx(p * (1 - p) * (2 - 1) / 2, rel=1e-5)
