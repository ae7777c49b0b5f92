"""What to type next: the commands that make a file or folder that is missing.

The recipes in configs/ say which stage reads what and writes what. The table below says it for the stages' defaults.
"""

import itertools
import os
from pathlib import Path
from typing import NamedTuple

import configurator
from configurator import ROOT, UserError


class Maker(NamedTuple):
    """A command, the file or folder that it makes, and what it needs for that."""

    command: str
    output: str
    inputs: tuple


PAGES, CHATS, PRACTICE = (f"data/exercises/{name}.jsonl" for name in ("documents", "chats", "practice"))
TOKENIZER = "data/tokenizer.json"
# The stages with their defaults, as the README runs them one after another.
STAGES = (
    Maker("python tokenizer_train.py", TOKENIZER, ()),
    Maker("python prepare_data.py", "data/stdlib", (TOKENIZER,)),
    Maker("python pretrain.py", "out/pretrain", ("data/stdlib",)),
    Maker("python -m exercises --practice=6000", PRACTICE, ()),
    Maker("python -m exercises", "data/exercises", ()),
    Maker(
        f"python prepare_data.py --sources={PAGES} --out_dir=data/exercise-pages",
        "data/exercise-pages",
        (TOKENIZER, PAGES),
    ),
    Maker(
        f"python prepare_data.py --sources={CHATS} --chats --out_dir=data/exercise-chats",
        "data/exercise-chats",
        (TOKENIZER, CHATS),
    ),
    Maker(
        "python anneal.py --best_fit",
        "out/anneal",
        ("out/pretrain", "data/stdlib", "data/exercise-pages", "data/exercise-chats"),
    ),
    Maker("python sft.py", "out/sft", ("out/anneal", "data/exercise-chats")),
    Maker("python prepare_data.py --pairs --sources=YOUR_PAIRS --out_dir=data/pairs", "data/pairs", (TOKENIZER,)),
    Maker("python dpo.py", "out/dpo", ("out/sft", "data/pairs")),
    Maker("python reward.py", "out/reward", ("out/sft", "data/pairs")),
    Maker("python grpo.py", "out/grpo", ("out/sft", PRACTICE)),
)


def how_to_make(path, otherwise=""):
    """The end of a message that says that a path is missing: ": run `python -m exercises`, then `python ...`", with the
    commands whose results are not there yet. otherwise: the command for a path that no recipe and no default names;
    without one the end is empty for it."""
    commands = commands_for(path, [*STAGES, *recipes()]) or [otherwise]
    return ": run " + ", then ".join(f"`{command}`" for command in commands) if any(commands) else ""


def commands_for(path, makers):
    """The commands that make a path, in the order in which to run them; none if no maker makes it."""
    path = name_of(path)
    for maker in makers:
        if Path(path).is_relative_to(maker.output):
            others = [other for other in makers if other is not maker]
            missing = [needed for needed in maker.inputs if not is_there(needed)]
            before = itertools.chain.from_iterable(commands_for(needed, others) for needed in missing)
            return [*dict.fromkeys(before), maker.command]
    return []


def name_of(path):
    """A path as recipes write it: relative where it lies below the folder that this process was started in."""
    path = os.path.normpath(path)
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def is_there(path):
    """Whether a file, a shard folder or a folder of checkpoints is there."""
    return Path(path).is_file() or (Path(path) / "manifest.json").exists() or any(Path(path).glob("step_*"))


def recipes():
    """A Maker for each run of each stage in configs/*.toml."""
    makers = []
    for path in sorted((ROOT / "configs").glob("*.toml")):
        try:
            tables = configurator.parse_toml(str(path))
        except UserError:
            continue  # a person's own draft
        for stage in configurator.STAGES:
            table = tables.get(stage, {})
            for run in configurator.runs_of(table, ("rules",)) or [""]:
                argument = f"configs/{path.name}" + (f":{run}" if run else "")
                makers += maker_of(stage, argument, {**table, **table.get(run, {})})
    return makers


def maker_of(stage, argument, table):
    """[the Maker of one run] from its table, or [] if the table names no output. What the run needs may stand in any
    of its other settings, "a", "a:2,b:1" or ["a", "b"]: what nobody makes does no harm there."""
    key = "out" if "out" in table else "out_dir"
    if not isinstance(table.get(key), str):
        return []
    texts = []
    for name, value in table.items():
        if name != key:
            texts += value if isinstance(value, list) else str(value).split(",")
    inputs = [str(text).rpartition(":")[0] or str(text) for text in texts]
    return [Maker(f"python {configurator.command(stage)} {argument}", os.path.normpath(table[key]), tuple(inputs))]
