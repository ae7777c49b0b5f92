"""A recipe with a share of its data, with copies of the hub's data sets, with results in a folder of its own: what
`python recipe.py RECIPE --share=0.001 --hub=FOLDER` puts behind each stage's command."""

import re
from dataclasses import asdict
from pathlib import Path

from configurator import UserError
from corpus.sources import SOURCE_SETTINGS, parsed, source_name

OVERLAY = "rehearsal.toml"  # the tiny model, which lies on top of a recipe of which a share is asked for
BUDGETS = ("documents", "tokens")


def refuse_what_is_not_read(steps, settings):
    """Raises UserError where another place is given for data sets that no step reads."""
    named = [source for step in steps for name in SOURCE_SETTINGS for source in getattr(step.settings, name, ())]
    found = [parsed(source, must_exist=False) for source in named]
    if settings.hub and all(source.path for source in found):
        raise UserError("--hub: this recipe reads no data set of the hub")
    if settings.contents and not any(source.contents for source in found):
        raise UserError("--contents: this recipe reads no blobs of The Stack v2")


def arguments(step, steps, settings):
    """The arguments that a step needs beside its files. settings: recipe.py's."""
    found = []
    for name, value in asdict(step.settings).items():
        before = value
        if name in SOURCE_SETTINGS:
            value = [source_elsewhere(source, settings) for source in value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value, before = ",".join(value), ",".join(before)
        if isinstance(value, str) and settings.share < 1:
            value = moved(value, steps, settings.into)
        if value != before:
            found.append(f"--{name}={value}")
    if settings.share < 1 and getattr(step.settings, "quality", ""):
        found.append("--min_quality=0")  # a classifier that has seen a few documents would drop all or none
    return found


def source_elsewhere(source, settings):
    """The name of a source with a share of its budget, or of its documents where it has none; a copy in place of a set
    on the hub; another address of blobs."""
    found = parsed(source, must_exist=False)
    place, _, options = found.name.partition("?")
    if settings.hub and found.path is None:
        place += f"@{Path(settings.hub) / found.hub}"
    kept = [part for part in options.split("&") if part]
    budgets = [name for name in BUDGETS if getattr(found, name)] or ["share"]
    if settings.share < 1:
        kept = [part for part in kept if part.partition("=")[0] not in budgets]
        kept += [f"{name}={getattr(found, name) * settings.share:g}" for name in budgets]
    if settings.contents and found.contents:
        kept.append(f"contents={settings.contents}")
    if settings.share < 1 and found.contents:
        kept.append(f"cache={settings.into}/blobs.sqlite")
    return source_name(place + "?" * bool(kept) + "&".join(kept))


def moved(text, steps, into):
    """A setting in which what the steps leave, such as data/code, lies below another folder: rehearsal/data/code."""
    for place in sorted({str(step.result) for step in steps}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./])(?:\./)?{re.escape(place)}(?![\w-])", f"{into}/{place}", text)
    return text
