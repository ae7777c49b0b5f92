"""Loss curves of one or more runs in one picture: python experiments/plot.py --runs=out/pretrain --out=loss.png"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import configurator
from configurator import UserError


@dataclass
class Settings:
    runs: list[str] = field(default_factory=lambda: ["out/pretrain"])  # folders that hold a metrics.jsonl
    out: str = "out/loss.png"  # the picture


def read_metrics(run):
    path = Path(run) / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"no metrics.jsonl in {run}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(s):
    try:
        import matplotlib
    except ImportError:
        raise UserError("plots need the package matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right, below) = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    for i, run in enumerate(s.runs):
        lines, color = read_metrics(run), f"C{i}"
        steps = [line for line in lines if "loss" in line]
        evaluations = [line for line in lines if "val_loss" in line]

        def curve(axis, records, key, **style):
            axis.plot([r["tokens"] / 1e6 for r in records], [r[key] for r in records], color=color, **style)

        curve(left, steps, "loss", label=f"{run}: training", alpha=0.5)
        curve(left, evaluations, "val_loss", label=f"{run}: validation", marker="o")
        curve(right, evaluations, "val_bpb", label=run, marker="o")
        curve(below, steps, "lr", label=run)
        if evaluations:
            last = evaluations[-1]
            right.annotate(
                f"{last['val_bpb']:.3f}",
                (last["tokens"] / 1e6, last["val_bpb"]),
                textcoords="offset points",
                xytext=(0, 8),
                ha="right",
            )
    for axis, title in ((left, "loss, nats per token"), (right, "validation, bits per byte"), (below, "learning rate")):
        axis.set(title=title, xlabel="million tokens")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    Path(s.out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(s.out, dpi=110)
    print(f"loss curve -> {s.out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
