"""Loss curves of one or more runs in one picture: python experiments/plot.py --runs=out/pretrain --out=loss.png"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import configurator
from configurator import UserError


@dataclass
class Settings:
    runs: list[str] = field(default_factory=lambda: ["out/pretrain"])  # folders that hold a metrics.jsonl
    follow: bool = False  # the runs are stages of one model: draw each behind the one before
    out: str = "out/loss.png"  # the picture


def read_metrics(run):
    path = Path(run) / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"no metrics.jsonl in {run}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def smoothed(values, window=9):
    """The mean of each value and its neighbours, fewer at the ends."""
    half = window // 2
    return [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - half) : i + half + 1])]


def main(s):
    try:
        import matplotlib
    except ImportError:
        raise UserError("plots need the package matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    offset, curves = 0, {}  # curves: {name: ([million tokens], [bits per byte])} of what was validated on
    for i, run in enumerate(s.runs):
        lines, color, name = read_metrics(run), f"C{i}", Path(run).name if s.follow else run
        steps = [line for line in lines if "loss" in line]
        tokens = [(line["tokens"] + offset) / 1e6 for line in steps]
        losses = [line["loss"] for line in steps]
        left.plot(tokens, losses, color=color, alpha=0.25)
        left.plot(tokens, smoothed(losses), color=color, label=name)
        right.plot(tokens, [line["lr"] for line in steps], color=color, label=name)
        for line in (line for line in lines if "val_bpb" in line):
            # stages validate on different mixtures: their folders compare, their means do not
            for key, m in line["sources"].items() if s.follow else [(run, line)]:
                x, y = curves.setdefault(Path(key).name if s.follow else key, ([], []))
                x.append((line["tokens"] + offset) / 1e6)
                y.append(m["val_bpb"])
        offset += lines[-1]["tokens"] if s.follow else 0
        if s.follow and run != s.runs[-1]:
            for axis in (left, middle, right):
                axis.axvline(offset / 1e6, color="gray", linestyle=":")
    for name, (x, y) in curves.items():
        middle.plot(x, y, "o-", label=name)
        middle.annotate(f"{y[-1]:.3f}", (x[-1], y[-1]), (0, 7), textcoords="offset points", ha="center")
    middle.margins(0.1, 0.15)
    for axis, title in (
        (left, "training loss, nats per token"),
        (middle, "validation, bits per byte"),
        (right, "learning rate"),
    ):
        axis.set(title=title, xlabel="million tokens")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    Path(s.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(s.out, dpi=110)
    print(f"loss curve -> {s.out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
