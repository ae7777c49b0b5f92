"""Loss curves of one or more runs in one picture.

python -m experiments.plot --runs=out/pretrain --out=loss.png
python -m experiments.plot --runs=out/pretrain,out/anneal,out/sft --follow     stages of one model
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path

import configurator
from configurator import UserError
from corpus.records import optional
from evaluation.problems import read_lines
from ranges import Place

PICTURES = (".png", ".svg", ".pdf")


@dataclass
class Settings:
    """What to draw."""

    # -- runs and picture
    runs: list[str] = field(default_factory=lambda: ["out/pretrain"])  # folders that hold a metrics.jsonl
    follow: bool = False  # the runs are stages of one model: draw each behind the one before
    out: Place = "out/loss.png"  # the picture, .png, .svg or .pdf


def main(settings):
    """Draw the training loss, the validation and the learning rate of every run."""
    out = Path(settings.out if Path(settings.out).suffix else f"{settings.out}.png")
    if out.suffix not in PICTURES:
        raise UserError(f"--out={settings.out} is no picture: its name ends in {', '.join(PICTURES)}")
    if not settings.runs:
        raise UserError("nothing to draw: --runs=out/pretrain,out/anneal")
    pyplot = optional("matplotlib.pyplot", "plots")
    pyplot.switch_backend("Agg")
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    training, validation, learning_rate = axes
    n_before = 0  # tokens of the stages before
    curves = {}  # {what was validated on: [(million tokens, bits per byte)]}
    for i, run in enumerate(settings.runs):
        lines, color = read_metrics(run), f"C{i}"
        name = Path(run).name if settings.follow else run
        steps = [line for line in lines if "loss" in line]
        tokens = [(n_before + line["tokens"]) / 1e6 for line in steps]
        losses = [line["loss"] for line in steps]
        training.plot(tokens, losses, color=color, alpha=0.25)
        training.plot(tokens, smoothed(losses), color=color, label=name)
        learning_rate.plot(tokens, [line["lr"] for line in steps], color=color, label=name)
        for line in lines:
            # Stages validate on different mixtures, whose means do not compare: each folder then has its own curve.
            validated = line.get("sources", {}) if settings.follow else {run: line}
            for folder, scores in validated.items():
                if "val_bpb" in scores:
                    points = curves.setdefault(folder, [])
                    points.append(((n_before + line["tokens"]) / 1e6, scores["val_bpb"]))
        if settings.follow and run != settings.runs[-1]:
            n_before += lines[-1]["tokens"]
            for axis in axes:
                axis.axvline(n_before / 1e6, color="gray", linestyle=":")
    for folder, points in curves.items():
        validation.plot(*zip(*points), "o-", label=Path(folder).name if settings.follow else folder)
        last = points[-1]
        validation.annotate(f"{last[1]:.3f}", last, (0, 7), textcoords="offset points", ha="center")
    validation.margins(0.1, 0.15)
    titles = ("training loss, nats per token", "validation, bits per byte", "learning rate")
    for axis, title in zip(axes, titles):
        axis.set(title=title, xlabel="million tokens")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(f"loss curve -> {out}")


def read_metrics(run):
    """The records of a run's metrics.jsonl. Raises UserError where the folder holds no training steps."""
    path = Path(run, "metrics.jsonl")
    lines = list(read_lines(path)) if path.exists() else []
    if not any("loss" in line for line in lines):
        raise UserError(f"{path} holds no training steps: --runs names the out_dirs of training stages")
    return lines


def smoothed(values):
    """The mean of each value and up to four neighbours on either side: as many on one side as on the other, so that the
    curve begins and ends where the values do."""
    smooth = []
    for i in range(len(values)):
        reach = min(4, i, len(values) - 1 - i)
        smooth.append(statistics.fmean(values[i - reach : i + reach + 1]))
    return smooth


if __name__ == "__main__":
    configurator.run(main, Settings)
