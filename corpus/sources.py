"""Names of sources: one name for one place, each place once."""

import os
import sysconfig
from pathlib import Path

from configurator import UserError

STDLIB, HUB = "stdlib", "hf:"


def source_name(source):
    """A source as manifests and score files name it: dir for dir/, ./dir and dir//. A path that looks like a preset
    keeps its ./ in front."""
    if source == STDLIB or source.startswith(HUB):
        return source.rstrip(":")  # hf:owner/name: is a data set without a data_dir
    path = str(Path(source))
    return f"./{path}" if path == STDLIB or path.startswith(HUB) else path


def root_of(source):
    """The file or folder that a source names, or None for a data set on the hub. Raises UserError where there is no
    such path."""
    if source.startswith(HUB) and source != HUB:
        return None
    root = Path(sysconfig.get_paths()["stdlib"] if source == STDLIB else source)
    if not source or "\0" in source or not root.exists():
        raise UserError(f"no source {source!r}: it is neither a preset (stdlib) nor a path that exists")
    return root


def place_of(source):
    """What all names of one source have in common: a preset or a data set as it is named, or a path without links."""
    is_path = source != STDLIB and (source == HUB or not source.startswith(HUB))
    try:
        return os.path.realpath(source) if is_path else source_name(source)
    except ValueError:  # NUL and the like: a score file can name what is no path
        return source


def distinct(sources):
    """The names of sources that all exist, each place once, whether it is named twice, dir and dir/ or through a link.
    Raises UserError for one that does not exist."""
    names = {}
    for source in sources:
        root_of(source)
        # The preset is not the folder that it lies in: it leaves out most of it.
        names.setdefault(place_of(source), source_name(source))
    return list(names.values())


def spare(sources, out):
    """Raise UserError where the result, a file, would take the place of one of the sources."""
    if place_of(out) in map(place_of, sources):
        raise UserError(f"--out={out} is a source itself, which the result would overwrite: give it another name")


def others(source, sources, *more):
    """The paths of all sources but this one, and more paths. What lies below two sources belongs to the inner one."""
    return [*(root for other in sources if other not in (source, STDLIB) and (root := root_of(other))), *more]
