"""From rewards to a loss: advantages, and the losses of GRPO (arXiv:2402.03300), DAPO (arXiv:2503.14476) and PPO
(arXiv:1707.06347). Plain functions of numbers and tensors.

An advantage says how much better an answer, or a token of it, was than what was to be expected. A policy gradient makes
what was better than expected more likely, and what was worse less:

    reward of four answers to one question   1  0  0  1      expected: their mean, .5
    advantages                             .5 -.5 -.5 .5     and they sum to 0
"""

import torch


def group_advantages(rewards, by_std):
    """rewards of one group, a list -> each minus their mean. by_std: over their standard deviation too, as in the first
    GRPO: groups that nearly all pass or fail then count more (arXiv:2503.20783 argues against it)."""
    mean = sum(rewards) / len(rewards)
    advantages = [reward - mean for reward in rewards]
    if by_std:
        std = (sum(a * a for a in advantages) / len(advantages)) ** 0.5
        advantages = [a / (std + 1e-4) for a in advantages]
    return advantages


def gae(reward, values, lam):
    """Generalised advantage estimation (arXiv:1506.02438) for a text that earns its reward with its last token, without
    discount. values[t] is the critic's expectation before token t is drawn. Returns (advantages, the critic's targets:
    advantage + value), a number per token.

        how wrong the critic was at t   d[t] = values[t + 1] - values[t], at the end reward - values[-1]
        advantage of token t            d[t] + lam d[t + 1] + lam^2 d[t + 2] + ...

    lam = 1: reward - values[t], exact and noisy; 0: d[t], which trusts the critic.
    """
    advantages, after, advantage = [0.0] * len(values), reward, 0.0
    for t in reversed(range(len(values))):
        advantage = (after - values[t]) + lam * advantage
        advantages[t], after = advantage, values[t]
    return advantages, [advantage + value for advantage, value in zip(advantages, values)]


def clipped_gain(logprobs, old_logprobs, advantages, clip_low, clip_high):
    """What each token adds to the objective, for tensors of one shape: ratio x advantage. The ratio is that of the
    token's probability now to that when it was drawn.

    Beyond 1 - clip_low and 1 + clip_high the gain grows no further, and there is no gradient: samples say little of a
    policy far from the one that drew them. A larger clip_high lets rare tokens become likely (DAPO)."""
    ratio = (logprobs - old_logprobs).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def divergence(logprobs, reference):
    """An estimate of KL(policy || reference) at each token that was drawn from the policy: never negative, and exact on
    average (http://joschu.net/blog/kl-approx.html, k3). As a loss its gradient is that of KL(reference || policy): for
    two models that are near each other, nearly the same."""
    difference = reference - logprobs
    return difference.exp() - difference - 1
