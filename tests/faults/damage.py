"""Files that are cut off, have one wrong bit, hold garbage or nothing, or are gone.

The stage that reads such a file must name it in its one line of error, or come to the very result of the undamaged file.
Another result in silence is the fault that is sought here. What a person writes cannot be told from what was meant, but
must not end in a traceback either. (Half a recipe is a recipe of other folders: fuzz.py reads those, nothing runs them.)
"""

import os
import shutil
from functools import partial

from tests.faults.common import Group, Lost, case_folder, compare, result
from tests.faults.world import begin, half

# {kind of file: [(stage that reads it, where it lies, further settings)]}. "half/": what a run that was killed has left,
# "done/": a finished run; otherwise an input.
FILES = {
    "model.pt": [("pretrain", "half/step_*/model.pt"), ("anneal", "pretrain/step_*/model.pt"),
                 ("sft", "half/step_*/model.pt"), ("eval_humaneval", "sft/step_*/model.pt")],
    "optimizer-0.pt": [("pretrain", "half/step_*/optimizer-0.pt"), ("anneal", "pretrain/step_*/optimizer-0.pt")],
    "meta.json": [("pretrain", "half/step_*/meta.json"), ("anneal", "half/step_*/meta.json"),
                  ("anneal", "pretrain/step_*/meta.json"), ("sft", "anneal/step_*/meta.json"),
                  ("eval_humaneval", "sft/step_*/meta.json")],
    "a checkpoint's tokenizer.json": [("pretrain", "half/step_*/tokenizer.json"),
                                      ("eval_humaneval", "sft/step_*/tokenizer.json")],
    "metrics.jsonl": [("pretrain", "half/metrics.jsonl"), ("sft", "half/metrics.jsonl")],
    "settings.json": [("pretrain", "half/settings.json")],
    "shards": [("pretrain", "docs/*.bin"), ("anneal", "docs/*.bin"), ("sft", "chats/*0.bin"),
               ("prepare_data", "done/*.bin")],
    "loss masks": [("sft", "chats/*.mask.bin"), ("anneal", "chats/*.mask.bin")],
    "manifest.json": [("pretrain", "docs/manifest.json"), ("sft", "chats/manifest.json"),
                      ("prepare_data", "done/manifest.json"),
                      ("prepare_data", "docs/manifest.json", "--against=in/docs")],
    "tokenizer.json": [("prepare_data", "tokenizer.json"), ("pretrain", "docs/tokenizer.json")],
    "chunks of documents": [("prepare_data", "half/chunks/0*"), ("prepare_data, chats", "half/chunks/0*")],
    "chunks/progress.json": [("prepare_data", "half/chunks/progress.json")],
    "quality.npz": [("prepare_data", "quality.npz", "--quality=in/quality.npz")],
    "an evaluation's results": [("eval_humaneval", "half/*.json*"), ("eval_humaneval, samples", "half/*.json*")],
    "a recipe's progress.json": [("recipe", "half/progress.json")],
    "scores.jsonl (a person's)": [("prepare_data", "scores.jsonl", "--scores=in/scores.jsonl --min_score=1")],
    "prompt files (a person's)": [("prepare_data, chats", "prompts/*", "--prompts=in/prompts")],
    "problems (a person's)": [("eval_humaneval, samples", "problems.jsonl"),
                              ("prepare_data", "problems.jsonl", "--decontaminate=in/problems.jsonl")],
    "samples (a person's)": [("eval_humaneval, samples", "samples.jsonl")],
    "records (a person's)": [("prepare_data, chats", "chats.jsonl")],
}  # fmt: skip


def truncated(path, data, rng):
    """Cut a file off."""
    path.write_bytes(data[: rng.randrange(len(data))] if data else b"")


def flipped(path, data, rng):
    """Turn one bit of a file around."""
    position = rng.randrange(len(data)) if data else 0
    path.write_bytes(data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :])


def garbage(path, data, rng):
    """Put random bytes in the place of a file."""
    path.write_bytes(rng.randbytes(len(data)))


def emptied(path, data, rng):
    """Leave nothing in a file."""
    path.write_bytes(b"")


def deleted(path, data, rng):
    """Take a file away."""
    path.unlink()


def damaged(kind, world, rng):
    """Damage a file of a kind, run the stage that reads it, and see what comes of it."""
    stage, pattern, *extra = rng.choice(FILES[kind])
    extra = "".join(extra)
    expected = undamaged(world, stage, extra)
    with case_folder(world, "damaged") as folder:
        path = lay_out(world, stage, pattern, folder, rng)
        damage = rng.choice((truncated, truncated, flipped, flipped, flipped, garbage, emptied, deleted))
        data = path.read_bytes()
        if data or damage is not flipped:
            damage(path, data, rng)
        try:
            outcome = begin(stage, folder, extra=extra).wait().check(0, 2)
            is_named = path.name in outcome.output or str(path.relative_to(folder).parent) in outcome.output
            if outcome.code == 2:
                if not is_named and path.parent.name not in outcome.output:
                    raise Lost(f"not named: {outcome.errors[0]}")
                return {"named": 1}
            if "(a person's)" not in kind:
                found = result(folder / "out")
                if is_named and kind == "metrics.jsonl":  # nobody can bring back a line that is gone
                    found = {**found, path.name: expected[path.name]}
                if is_named and path.match("in/*/step_*/*"):
                    return {"named, the checkpoint before was used": 1}
                compare(found, expected)
                return {"named, then the right result" if is_named else "the right result": 1}
            return {"read as it is": 1}
        except Lost as lost:
            raise Lost(f"{stage}, {path.relative_to(folder)} {damage.__name__}: {lost}") from None


def lay_out(world, stage, pattern, folder, rng):
    """Put copies of what a case may damage into its folder; the path of one file that fits the pattern."""
    first, _, rest = pattern.partition("/")
    if first == "half":
        shutil.copytree(half(world, stage), folder / "out")
    elif first == "done":
        shutil.copytree(world.folder / "in/docs", folder / "out")
    else:
        os.unlink(folder / "in")
        (folder / "in").mkdir()
        for path in (world.folder / "in").iterdir():
            if path.name != first:
                os.symlink(path, folder / "in" / path.name)
            elif path.is_dir():
                shutil.copytree(path, folder / "in" / first)
            else:
                shutil.copy(path, folder / "in")
    root = folder / ("out" if first in ("half", "done") else f"in/{first}")
    return rng.choice(sorted(root.glob(rest))) if rest else root


def undamaged(world, stage, extra):
    """The result of a stage with further settings."""
    if extra and (stage, extra) not in world.unbroken:
        with case_folder(world, "undamaged") as folder:
            begin(stage, folder, extra=extra).wait().check(0)
            world.unbroken[stage, extra] = result(folder / "out")
    return world.unbroken[stage, extra] if extra else world.unbroken[stage]


def groups():
    """The Groups of this file."""
    return [Group(f"damaged: {kind}", partial(damaged, kind), target=40) for kind in FILES]
