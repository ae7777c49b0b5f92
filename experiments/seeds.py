"""What differs from seed to seed: the ladder of several runs of a recipe, as means with their spread.

    python recipe.py configs/demo.toml --seed=2
    python -m experiments.seeds --recipes=out/demo,out/demo-seed2,out/demo-seed3

For every set of problems and every model: the mean of pass@1 over the runs, the standard deviation between runs (other
weights at the start, another order of the data), and the standard error over problems of a single run. And
what each stage adds to the one before it, with the standard error of that difference over the runs.
"""

import needs  # noqa: F401

import json
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import configurator
from configurator import UserError
from ranges import Place


@dataclass
class Settings:
    """Which runs."""

    recipes: str = "out/demo,out/demo-seed2,out/demo-seed3"  # their folders
    out: Place = "out/seeds.json"  # the same as JSON


def main(settings):
    """Print the two tables, and write them as JSON."""
    ladders = read_ladders(settings.recipes.split(","))
    table = spreads(ladders)
    models = list(dict.fromkeys(model for row in table.values() for model in row))
    print(f"{len(ladders)} runs: mean of pass@1 +- standard deviation between runs (standard error over problems)")
    print(f"{'pass@1':<18}" + "".join(f"{model:>24}" for model in models))
    for name, row in table.items():
        cells = {m: f"{cell['pass@1']:.1%} +- {cell['sd']:.1%} ({cell['stderr']:.1%})" for m, cell in row.items()}
        print(f"{name:<18}" + "".join(f"{cells.get(model, ''):>24}" for model in models))
    print("\nwhat each stage adds, +- standard error of the mean over the runs")
    print(f"{'':<18}" + "".join(f"{model:>24}" for model in models[1:]))
    for name, row in table.items():
        cells = {m: f"{cell['gain']:+.1%} +- {cell['gain_stderr']:.1%}" for m, cell in list(row.items())[1:]}
        print(f"{name:<18}" + "".join(f"{cells.get(model, ''):>24}" for model in models[1:]))
    about = {"settings": asdict(settings), "made_by": configurator.made_by()}
    configurator.write_json(Path(settings.out), {"ladder": table, **about})


def read_ladders(folders):
    """The ladders of recipes' folders. Raises UserError for those that are not runs of one recipe."""
    places = {Path(folder).resolve(): Path(folder) for folder in folders}
    if len(places) < len(folders):
        raise UserError("--recipes names a folder twice: a run does not differ from itself")
    if len(places) < 2:
        raise UserError("a spread needs two runs or more: --recipes=out/demo,out/demo-seed2")
    ladders = [read_ladder(folder) for folder in places.values()]
    common = set(ladders[0]).intersection(*ladders)
    if not common:
        raise UserError(f"no set of problems was scored in all of {', '.join(folders)}")
    for name in sorted(common):
        for folder, ladder in zip(folders, ladders):
            if scored(ladder[name]) != scored(ladders[0][name]):
                theirs, others = scored(ladder[name]), scored(ladders[0][name])
                raise UserError(f"{folder} has scored {theirs} on {name}, and {folders[0]} {others}")
    return ladders


def scored(row):
    """Which models were scored, on how many problems: base (100), tuned (100)."""
    return ", ".join(f"{model} ({score['n']})" for model, score in row.items())


def read_ladder(folder):
    """{set of problems: {model: score}} of a recipe's summary.json."""
    try:
        ladder = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["ladder"]
        for row in ladder.values():
            if not all({"pass@1", "stderr", "n"} <= score.keys() for score in row.values()):
                raise KeyError
        return ladder
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder} holds no summary.json of a recipe with a ladder") from None


def spreads(ladders):
    """{set of problems: spread()} of all sets that every run was scored on."""
    return {name: spread(name, ladders) for name in ladders[0] if all(name in ladder for ladder in ladders)}


def spread(name, ladders):
    """{model: {"pass@1", "sd", "stderr", "gain", "gain_stderr"}} of one set of problems; the first model gains
    nothing."""
    row, before = {}, None
    for model in ladders[0][name]:
        scores = [ladder[name][model] for ladder in ladders]
        values = [score["pass@1"] for score in scores]
        gains = [value - other for value, other in zip(values, before or values)]
        row[model] = {
            "pass@1": statistics.mean(values),
            "sd": statistics.stdev(values),
            "stderr": statistics.mean(score["stderr"] for score in scores),
            "gain": statistics.mean(gains),
            "gain_stderr": statistics.stdev(gains) / math.sqrt(len(gains)),
        }
        before = values
    return row


if __name__ == "__main__":
    configurator.run(main, Settings)
