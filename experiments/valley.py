"""Is there a river in a valley? The loss along the lines between checkpoints, as a picture and JSON.

    python -m experiments.valley --trunk=EARLY,LATE --annealed=EARLY,LATE

Each pair are two checkpoints of one run, and what anneal.py --init has made of them.

In the picture of arXiv:2410.05192 training at a high rate flows down a river and bounces between
the slopes of its valley; a decay comes to rest on the river. The loss should then fall along the
line from a trunk to its annealed model; have its minimum inside of the line between two places
of the trunk; and fall from the earlier annealed model to the later one. That no barrier lies in
between says less: that both are in one basin.
"""

import needs  # noqa: F401

from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

import configurator
from configurator import UserError
from corpus.records import optional
from experiments.averages import average
from experiments.common import print_table
from experiments.held_out import HeldOut, weights_of
from ranges import Natural, Place
from training import checkpoint
from training import machine as machines

ALPHAS = [n / 8 for n in range(-2, 11)]  # places on a line: 0 is its first checkpoint, 1 its second


@dataclass
class Settings:
    """Which checkpoints."""

    # -- checkpoints, or folders of them, of which the newest is taken
    trunk: list[str] = field(default_factory=lambda: ["out/demo/pretrain"])  # one, or an earlier and a later one
    annealed: list[str] = field(default_factory=lambda: ["out/demo/anneal"])  # what was annealed from each of them
    # -- held-out text
    val: str = "data/demo/stdlib,data/demo/exercise-pages,data/demo/exercise-chats"  # shard folders: a,b
    eval_tokens: Natural = 20_000  # validation tokens per folder; 0 = all
    # -- results
    out: Place = "out/valley.png"  # the picture; the figures go beside it, as valley.json


def main(settings):
    """Measure the lines, draw them, and say what holds."""
    optional("matplotlib.pyplot", "plots")  # told before the minutes of measuring
    if len(settings.trunk) != len(settings.annealed) or len(settings.trunk) not in (1, 2):
        raise UserError("give one trunk and one annealed model, or two of each, the earlier one first")
    ends = {}
    for name, paths in (("trunk", settings.trunk), ("annealed", settings.annealed)):
        for number, path in enumerate(paths):
            ends[name, number], _ = checkpoint.newest(path)
    if len({checkpoint.read_meta(folder)["tokenizer"] for folder in ends.values()}) > 1:
        raise UserError("the checkpoints have different tokenizers: no line leads from one to the other")
    held_out = HeldOut(ends["trunk", 0], machines.start(dtype="fp32"), settings.val, settings)
    last = len(settings.trunk) - 1
    pairs = {"trunk to annealed": (ends["trunk", last], ends["annealed", last])}
    if last:
        pairs["trunk, early to late"] = ends["trunk", 0], ends["trunk", 1]
        pairs["annealed, early to late"] = ends["annealed", 0], ends["annealed", 1]
    lines = {name: line(held_out, *pair) for name, pair in pairs.items()}
    found = predictions(lines)
    draw(lines, settings.out)
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    result = {"alphas": ALPHAS, "lines": lines, "predictions": found, **about}
    configurator.write_json(Path(settings.out).with_suffix(".json"), result)
    rows = [[row["prediction"], row["of"], row["shown"], "holds" if row["holds"] else "does not hold"] for row in found]
    print_table(["a river valley predicts", "on", "nats per token", ""], rows, "<<<<")
    print(f"picture -> {settings.out}")


def line(held_out, first, second):
    """{folder: its loss in nats per token at each of ALPHAS} between two checkpoint folders, and a bit beyond both."""
    first, second = weights_of(first), weights_of(second)
    losses = {}
    for alpha in tqdm(ALPHAS, desc="places on a line", leave=False):
        for folder, found in held_out.losses(average([first, second], [1 - alpha, alpha]))["sources"].items():
            losses.setdefault(folder, []).append(found["val_loss"])
    return losses


def predictions(lines):
    """[{"prediction", "of", "holds", "shown"}]: what a river valley predicts of each line, for each held-out set."""
    found = []
    zero, one = ALPHAS.index(0), ALPHAS.index(1)
    for name, losses in lines.items():
        for folder, values in losses.items():
            way = values[zero : one + 1]  # from the first checkpoint to the second
            start, end, lowest, highest = way[0], way[-1], min(way), max(way)
            falls = all(a > b for a, b in zip(way, way[1:]))
            predicted = {"it falls all the way": falls, "no barrier": highest <= max(start, end)}
            if name == "trunk, early to late":
                predicted = {"the minimum lies inside": lowest < min(start, end)}
            shown = f"{start:.4f} to {end:.4f}, between {lowest:.4f} and {highest:.4f}"
            for what, holds in predicted.items():
                found.append({"prediction": f"{name}: {what}", "of": folder, "holds": holds, "shown": shown})
    return found


def draw(lines, path):
    """A picture with a panel for each held-out set, and in it a curve for each line."""
    pyplot = optional("matplotlib.pyplot", "plots")
    pyplot.switch_backend("Agg")
    folders = list(next(iter(lines.values())))
    figure, axes = pyplot.subplots(1, len(folders), figsize=(5 * len(folders), 4.2), constrained_layout=True)
    for axis, folder in zip([axes] if len(folders) == 1 else axes, folders):
        for name, losses in lines.items():
            axis.plot(ALPHAS, losses[folder], "o-", markersize=3, label=name)
        for end in (0, 1):
            axis.axvline(end, color="gray", linestyle=":")
        axis.set(title=f"{Path(folder).name}, nats per token", xlabel="place on the line")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    configurator.run(main, Settings)
