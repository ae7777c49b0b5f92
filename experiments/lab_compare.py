"""Differences between arms of experiments.anneal_lab, with their standard errors.

Two arms are compared in pairs that differ in nothing else: the same mixture in the same order, the same problems. What
all of them share, a lucky order or a hard problem, then drops out of the difference (arXiv:2411.00640).
"""

import math
import operator
from dataclasses import dataclass


def mean(values):
    """The mean of numbers."""
    values = list(values)
    return sum(values) / len(values)


def deviation(values):
    """The standard deviation of numbers, None for a single one."""
    if len(values) < 2:
        return None
    center = mean(values)
    return math.sqrt(sum((value - center) ** 2 for value in values) / (len(values) - 1))


def standard_error(values):
    """Of their mean: None for a single one."""
    sd = deviation(values)
    return None if sd is None else sd / math.sqrt(len(values))


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, and its standard errors, each None where there is nothing to know it from."""

    value: float
    n: int  # pairs of runs
    over_runs: float | None  # sd of the pairs' differences / sqrt(pairs)
    over_problems: float | None = None  # sd of the problems' differences / sqrt(problems)

    @property
    def error(self):
        """The larger of the standard errors that are known, or None."""
        return max((error for error in (self.over_runs, self.over_problems) if error is not None), default=None)

    def says(self, sign):
        """Whether it bears out that the difference has this sign, 1 or -1: a difference of up to two standard errors
        leaves it open."""
        if self.error is None or abs(self.value) <= 2 * self.error:
            return "open"
        return "holds" if self.value * sign > 0 else "the opposite"


def pairs_of(ours, theirs, keys):
    """[(arm, arm)] of those of two lists that agree in these keys."""
    place = operator.itemgetter(*keys)
    others = {place(arm): arm for arm in theirs}
    own = {place(arm): arm for arm in ours}
    return [(arm, others[key]) for key, arm in own.items() if key in others]


def difference(pairs, value):
    """The Difference of value(arm) over pairs of arms; None without any, and where the value of an arm is not known."""
    values = [(value(arm), value(other)) for arm, other in pairs]
    if not values or None in sum(values, ()):
        return None
    found = [ours - theirs for ours, theirs in values]
    return Difference(mean(found), len(found), standard_error(found))


def pass_difference(pairs):
    """The Difference of pass@1 over pairs of arms; None without any."""
    over_runs = difference(pairs, lambda arm: arm["pass@1"])
    if over_runs is None:
        return None
    by_problem = []
    for task in pairs[0][0]["passed"]:
        by_problem.append(mean(arm["passed"][task] - other["passed"][task] for arm, other in pairs))
    return Difference(over_runs.value, over_runs.n, over_runs.over_runs, standard_error(by_problem))
