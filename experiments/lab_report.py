"""The report of experiments.anneal_lab: curves, tables, and which published findings its figures bear out.

python -m experiments.lab_report --lab=out/lab      writes report.html and report.md from summary.json
"""

from dataclasses import dataclass
from pathlib import Path

import configurator
from experiments.common import write_report
from experiments.lab_arms import BASELINE, longer
from experiments.lab_compare import deviation, difference, mean, pairs_of, pass_difference
from experiments.lab_picture import draw
from training.dynamics import gradient_noise_scale

RULE = (
    "A finding holds, or its opposite does, where 0 lies outside of the 95 % confidence intervals: of n orders of the "
    "data it is Student's t times their standard error, 4.3 of them with three orders; of problems, two of theirs."
)


@dataclass
class Settings:
    """The settings of the report."""

    # -- report
    lab: str = "out/lab"  # the out_dir of a laboratory that has run


def main(settings):
    """Write the report of a laboratory's summary.json."""
    image = Path(settings.lab, "curves.png")

    def blocks_of(summary):
        """The report, with its picture."""
        draw(summary["arms"], image)
        return contents(summary, image)

    write_report(Path(settings.lab), "a laboratory", "python -m experiments.anneal_lab", blocks_of)


def contents(summary, image):
    """The report as blocks of pages.py."""
    arms, tuned = summary["arms"], summary["tuned"]
    decays, averaged = group(arms, "decay"), group(arms, "averages")
    linear = of(decays, shape=BASELINE)
    yield "title", "Ways down from one trunk"
    yield "text", introduction(summary, decays)
    yield "heading", "What the figures bear out"
    yield "table", findings_table(arms, tuned)
    yield "text", RULE
    yield "heading", "On the way"
    yield "image", image
    yield "text", "Means over the orders of the data; the band is from the lowest to the highest."
    yield "heading", "At the end"
    yield "table", end_table(decays)
    yield "text", "The mean over the orders ± the standard deviation between them. Rates: their sum over all steps."
    yield "heading", f"Difference to {BASELINE}"
    yield "table", difference_table(decays, decays, "shape", BASELINE, ["mixture", "seed"])
    yield "text", "Pairs have the same mixture in the same order. ± standard error over orders / over problems."
    yield "heading", "Difference to the trunk's own mixture"
    yield "table", difference_table(decays, decays, "mixture", "pretraining", ["shape", "seed"])
    if same_tokens := [arm for arm in averaged if arm["mixture"]]:
        yield "heading", f"Averages of checkpoints instead of a decay: difference to {BASELINE}"
        yield "table", difference_table(same_tokens, linear, "shape", "", ["mixture", "seed"])
        yield "text", "They are of the arms without decay, which have read as many tokens."
    yield "heading", "Without another token"
    yield "table", end_table([arm for arm in averaged if not arm["mixture"]])
    if equal := group(arms, "equal sum"):
        yield "heading", f"Equal sums of rates: difference to {BASELINE}"
        yield "table", difference_table(equal, linear, "shape", "", ["mixture", "seed"])
        yield "table", end_table(equal)
    if tuned:
        yield "heading", "Instructions in the anneal, in tuning, or in both"
        yield "table", tuned_table(decays, tuned)
        yield "text", "Asked in a chat. In the last column the anneal had no chats, and tuning had as many more."
        yield "text", "Where the tuned models ended, and what difference the mixture of the anneal makes to them:"
        yield "table", end_table(tuned)
        same_steps = of(tuned, shape="tuned")
        yield "table", difference_table(same_steps, same_steps, "mixture", "pretraining", ["seed"])
    if any(arm["dynamics"] for arm in decays):
        yield "heading", "How the weights moved"
        yield "table", dynamics_table(of(decays, mixture=decays[0]["mixture"]))
        yield "text", "Hidden matrices at the last logged step, means over the orders; the noise is of all such steps."
        yield "text", "`training/dynamics.py` says what the columns are."


def introduction(summary, decays):
    """What was done, in a paragraph."""
    settings = summary["settings"]
    return " ".join(
        [
            f"{len(decays)} anneals of {decays[0]['tokens']:,} tokens, all from `{summary['trunk']}`,",
            f"{settings['seeds']} orders of the data, from a rate of {summary['lr']:g} to {settings['floor']:g} of it.",
            f"A mixture gives a share of {settings['share']:g} to documents, to chats, or to both, and the rest to the",
            "trunk's own. Bits per byte are of held-out text, the same for all; pass@1 is the share of",
            f"{len(decays[0]['passed'])} problems that are solved at the first try, and the bits per byte of their own",
            "solutions tell models apart that solve next to none.",
        ]
    )


def group(arms, name):
    """The arms of one group."""
    return [arm for arm in arms if arm["group"] == name]


def of(arms, **what):
    """The arms with these values, shape="linear"."""
    return [arm for arm in arms if what.items() <= arm.items()]


def named(arms, key):
    """{value of a key: the arms that have it}, in the order of the arms."""
    found = {}
    for arm in arms:
        found.setdefault(arm[key], []).append(arm)
    return found


# -- tables


def end_table(arms):
    """A row per shape and mixture: where it ended."""
    folders = list(arms[0]["sources"])
    head = ["shape", "mixture", "tokens", "rates", *(f"bpb {Path(folder).name}" for folder in folders)]
    head += ["bpb solutions", "pass@1"]
    rows = []
    for shape, same_shape in named(arms, "shape").items():
        for kind, own in named(same_shape, "mixture").items():
            cells = [f"{own[0]['tokens']:,}", f"{own[0]['rates']:.1f}"]
            for folder in folders:
                cells.append(spread([arm["sources"][folder] for arm in own], ".4f"))
            rows.append([shape, kind, *cells, spread(list(map(solutions, own)), ".4f"), passes(own)])
    return head, rows


def difference_table(arms, others, key, baseline, keys):
    """A row per value of a key: its difference to those of the others that agree in `keys`. baseline: the value that
    the others must have, and that gets no row; "" = any."""
    folders = list(arms[0]["sources"]) if arms else []
    theirs = of(others, **{key: baseline}) if baseline else others
    head = ["", "pairs", *(f"bpb {Path(folder).name}" for folder in folders), "bpb, mean", "bpb solutions", "pass@1"]
    rows = []
    for value, own in named(arms, key).items():
        pairs = pairs_of(own, theirs, keys)
        if value != baseline and pairs:
            cells = [shown(difference(pairs, lambda arm, f=folder: arm["sources"][f]), ".4f") for folder in folders]
            cells += [shown(difference(pairs, bpb), ".4f"), shown(difference(pairs, solutions), ".4f")]
            cells.append(shown(pass_difference(pairs), ".1%"))
            rows.append([value, str(len(pairs)), *cells])
    return head, rows


def tuned_table(decays, tuned):
    """A row per mixture of the anneal: what it answers in a chat before and after tuning."""
    rows = []
    for kind, annealed in named(of(decays, shape=BASELINE), "mixture").items():
        after = of(tuned, mixture=kind, shape="tuned"), of(tuned, shape=longer(kind))
        rows.append([kind, passes([arm["chat"] for arm in annealed]), *map(passes, after)])
    return ["mixture of the anneal", "annealed", "then tuned", "tuned longer instead"], rows


def dynamics_table(arms):
    """A row per shape: the last line of the dynamics, and the noise scale of all lines."""
    folders = list(arms[0]["sources"])
    head = ["shape", "update rms", "cosine", "net / path", *(f"curvature {Path(folder).name}" for folder in folders)]
    head.append("noise scale, tokens")
    rows = []
    for shape, own in named(arms, "shape").items():
        last = [arm["dynamics"][-1] for arm in own if arm["dynamics"]]
        hidden = [line["attention"] for line in last] + [line["mlp"] for line in last]
        cells = []
        for key, form in (("update_rms", ".2e"), ("cosine", ".3f"), ("net_over_path", ".3f")):
            cells.append(average([kind[key] for kind in hidden], form))
        cells += [average([line["curvature"].get(folder) for line in last], ".2e") for folder in folders]
        scale = gradient_noise_scale([line for arm in own for line in arm["dynamics"]])
        rows.append([shape, *cells, "" if scale is None else f"{scale:,.0f}"])
    return head, rows


# -- findings


def findings_table(arms, tuned):
    """A row per published finding: what was found here, and whether it bears it out."""
    decays = group(arms, "decay")
    by_shape = named(decays + group(arms, "averages"), "shape")
    linear, same_data = by_shape.get(BASELINE, []), ["mixture", "seed"]
    rows = []

    def compare(claim, ours, theirs, keys, of_problems=False):
        """Say whether our arms are better than theirs, if there are both: in bits per byte of held-out text, or if
        of_problems, in how many are solved and in the bits per byte of their solutions."""
        pairs = pairs_of(ours, theirs, keys)
        if pairs and not of_problems:
            add(claim, "bits per byte", difference(pairs, bpb), ".4f", -1)
        if pairs and of_problems:
            add(claim, "pass@1", pass_difference(pairs), ".1%", 1)
            add(claim, "bits per byte of solutions", difference(pairs, solutions), ".4f", -1)

    def add(claim, measure, found, form, sign):
        """Add a row for a Difference, if it is known. sign: of the difference that the claim expects."""
        if found:
            rows.append([claim, measure, shown(found, form), found.says(sign)])

    flat = by_shape.get("no decay", [])
    compare("a decay is better than none (arXiv:2404.06395)", linear, flat, same_data)
    compare("1-sqrt is better than linear (arXiv:2405.18392)", by_shape.get("1-sqrt", []), linear, same_data)
    for way in ("average", "EMA"):
        own = by_shape.get(f"no decay, {way}", [])
        compare(f"an average ({way}) is better than its last checkpoint (arXiv:2209.14981)", own, flat, same_data)
        compare(f"a decay is better than the average ({way}; arXiv:2405.18392)", linear, own, same_data)
    for kind in ("documents", "chats", "both"):
        own, base = of(decays, mixture=kind), of(decays, mixture="pretraining")
        compare(f"{kind} in the anneal are worth it (arXiv:2404.06395)", own, base, ["shape", "seed"], True)
    alone = of(tuned, mixture="pretraining", shape="tuned")
    for kind in ("chats", "both"):
        own, claim = of(tuned, mixture=kind, shape="tuned"), f"{kind} in the anneal and tuning are better than tuning"
        compare(f"{claim} alone (arXiv:2404.06395)", own, alone, ["seed"], True)
        compare(f"{claim} alone on as many chats", own, of(tuned, shape=longer(kind)), ["seed"], True)
    return ["finding", "measure", "difference ± over orders / over problems", "here"], rows


def bpb(arm):
    """The measure of an arm that most comparisons are of."""
    return arm["val_bpb"]


def solutions(arm):
    """Bits per byte of the problems' own solutions, which tell models apart that solve next to none of them; None where
    the problems have no solutions."""
    return arm["solutions_bpb"]


# -- numbers as text


def spread(values, form):
    """The mean ± the standard deviation of numbers; the mean of a single one; "" where one is not known."""
    if not values or None in values:
        return ""
    sd = deviation(values)
    return format(mean(values), form) + (f" ± {sd:{form}}" if sd is not None else "")


def passes(arms):
    """pass@1 of arms, ± the standard deviation."""
    return spread([arm["pass@1"] for arm in arms], ".1%")


def shown(found, form):
    """A Difference ± its standard errors, over orders / over problems; "" where it is not known."""
    if not found:
        return ""
    errors = [format(error, form) for error in (found.over_orders, found.over_problems) if error is not None]
    return f"{found.value:+{form}}" + (" ± " + " / ".join(errors) if errors else "")


def average(values, form):
    """The mean of those of the values that are known."""
    known = [value for value in values if value is not None]
    return format(mean(known), form) if known else ""


if __name__ == "__main__":
    configurator.run(main, Settings)
