"""Differences between arms of experiments.anneal_lab, with their standard errors.

Two arms are compared in pairs that differ in nothing else: the same mixture in the same order, the same problems. What
all of them share, a lucky order or a hard problem, then drops out of the difference (arXiv:2411.00640).
"""

import math
import operator
from dataclasses import dataclass, replace

# Half the 95 % confidence interval of a mean of n numbers, in standard errors: Student's t for n = 2, 3, ... 10.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


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
    orders: int  # how many orders of the data the pairs are of
    over_orders: float | None  # sd of the orders' means / sqrt(orders)
    over_problems: float | None = None  # sd of the problems' differences / sqrt(problems)

    def says(self, sign):
        """Whether it bears out that the difference has this sign, 1 or -1: open where 0 lies within a 95 % confidence
        interval, of the orders or of the problems."""
        margins = [] if self.over_problems is None else [2 * self.over_problems]
        if self.over_orders is not None:
            margins.append(STUDENT[min(self.orders - 2, len(STUDENT) - 1)] * self.over_orders)
        if not margins or abs(self.value) <= max(margins):
            return "open"
        return "holds" if self.value * sign > 0 else "the opposite"


def pairs_of(ours, theirs, keys):
    """[(arm, arm)] of those of two lists that agree in these keys."""
    place = operator.itemgetter(*keys)
    others = {place(arm): arm for arm in theirs}
    own = {place(arm): arm for arm in ours}
    return [(arm, others[key]) for key, arm in own.items() if key in others]


def difference(pairs, value):
    """The Difference of value(arm) over pairs of arms; None without any, and where the value of an arm is not known.
    Pairs with the same order of the data have much in common, so that its mean counts as one number."""
    by_order = {}
    for arm, other in pairs:
        ours, theirs = value(arm), value(other)
        if ours is None or theirs is None:
            return None
        by_order.setdefault(arm["seed"], []).append(ours - theirs)
    means = list(map(mean, by_order.values()))
    return Difference(mean(means), len(means), standard_error(means)) if means else None


def pass_difference(pairs):
    """The Difference of pass@1 over pairs of arms; None without any."""
    found = difference(pairs, lambda arm: arm["pass@1"])
    if found is None:
        return None
    by_problem = []
    for task in pairs[0][0]["passed"]:
        by_problem.append(mean(arm["passed"][task] - other["passed"][task] for arm, other in pairs))
    return replace(found, over_problems=standard_error(by_problem))
