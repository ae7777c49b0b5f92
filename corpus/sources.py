"""Names of sources: one name for one place, each place once. A source is

    stdlib                              the standard library of the Python that runs this
    data/mine, more.jsonl.gz            a folder or a file
    dolly                               a set that sets.toml names, from the Hugging Face hub
    hf:owner/name, hf:owner/name:dir    any set on the hub, read as sets.toml says if it knows it; or a folder of it
    dolly@copies/dolly                  a set's copy on this machine, read as that set is

and may say behind a question mark how it is read, in any of the OPTIONS: `ultrachat?split=test_sft&documents=1e5`,
`mine.jsonl?user={title}\\n{body}&assistant={reply}&keep=score >= 3`. In a list a comma within is written %2C, and an
ampersand %26. What exists as a path is that path. Conditions of keep= come on top of those that a set has itself.
"""

import difflib
import os
import sysconfig
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import quote, unquote

from configurator import UserError
from corpus import shapes

STDLIB, HUB = "stdlib", "hf:"
SETS = tomllib.loads(Path(__file__).with_name("sets.toml").read_text(encoding="utf-8"))
# The settings of stages that name sources, and what their records hold; prepare_data.py reads its own as --chats or
# --pairs say.
SOURCE_SETTINGS = {"sources": "text", "chat_sources": "chats", "labelled": "label", "tested_on": "label"}


@dataclass
class Source:
    """A source, and how it is read."""

    name: str  # as manifests and score files have it
    path: Path | None  # of a file or folder; None on the hub
    known: str = ""  # the set's name, in sets.toml or as hf:owner/name
    # -- the options
    hub: str = ""  # owner/name
    config: str = ""  # the part of a set that load_dataset calls so
    data_dir: str = ""  # a folder of it
    files: str = ""  # a pattern of file names, where the set is loaded by its files: data/*.parquet
    split: str = ""  # empty = train of a set, and every file of a folder that is none
    text: str = ""  # the template of a document, see shapes.toml; empty = by the names of its fields
    user: str = ""  # the templates of a conversation; empty = by the names of its fields
    assistant: str = ""
    system: str = ""
    otherwise: str = ""  # what the assistant says where its template comes to nothing
    keep: list[str] = field(default_factory=list)  # conditions that a record must meet
    share: float = 1.0  # of the documents, by hash
    documents: float = 0.0  # how many at most; 0 = all
    tokens: float = 0.0  # how many at most, as far as the first million bytes tell; 0 = all
    label: str = ""  # of all its records, for cleaning.classifier
    contents: str = ""  # where the text of each blob_id lies; empty = Software Heritage's bucket
    cache: str = ""  # the file that keeps those texts; empty = data/blobs.sqlite

    @property
    def shape(self):
        """The templates as an entry of shapes.toml, {} where the fields of each record decide."""
        given = {name: getattr(self, name) for name in ("text", "user", "assistant", "system", "otherwise")}
        return {name: template for name, template in given.items() if template}


OPTIONS = {setting.name: setting.type for setting in fields(Source)[3:]}
# What else sets.toml says of a set, for people.
ABOUT = {"license": str, "gated": str, "about": str, "rows": int, "gb": (int, float)}


def parsed(source, must_exist=True):
    """The Source that a name stands for. Raises UserError where there is no such thing; must_exist: nor such a path."""
    if os.path.exists(source) and source != STDLIB:
        return Source(normal(source), Path(source))
    place, _, given = source.partition("?")
    options = read_options(given, source) if given else {}
    name_options = "?" * bool(options) + "&".join(f"{key}={written(value)}" for key, value in sorted(options.items()))
    known, at, path = place.partition("@")
    if known in SETS:
        about = entry_of(known)
    elif known.startswith(HUB) and known != HUB:
        hub, _, data_dir = known.removeprefix(HUB).partition(":")
        names = [name for name, entry in SETS.items() if entry.get("hub") == hub]
        about = {**(entry_of(names[0]) if len(names) == 1 and not data_dir else {}), "hub": hub}
        about |= {"data_dir": data_dir} if data_dir else {}
    else:
        known, about, at, path = "", {}, "@", place
    name = known.rstrip(":") + (f"@{normal(path)}" if at else "") if known else normal(path)
    options["keep"] = [*about.get("keep", []), *options.get("keep", [])]
    about |= options
    check(about, source)
    path = local_path(path, source, must_exist) if at else None
    if path is None and not about.get("hub"):
        raise UserError(f"{known} cannot be loaded from the hub: say where a copy of it lies, {known}@FOLDER")
    return Source(name + name_options, path, known, **about)


def entry_of(known):
    """What sets.toml says of how a set is read. Raises UserError for an entry that says it in other words."""
    entry = SETS[known]
    for key, value in entry.items():
        wanted = ABOUT.get(key) or {float: (int, float), str: str}.get(OPTIONS.get(key), list)
        if key not in (*OPTIONS, *ABOUT) or not isinstance(value, wanted):
            raise UserError(f"corpus/sets.toml, [{known}]: {key} = {value!r} is nothing that a set has")
    return {key: value for key, value in entry.items() if key not in ABOUT}


def read_options(given, source):
    """{option: value} of what stands behind the question mark. Raises UserError."""
    options = {}
    for part in given.split("&"):
        key, equals, value = part.partition("=")
        value = unquote(value).replace("\\n", "\n")
        if key not in OPTIONS or not equals:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(OPTIONS)}"
            raise UserError(f"source {source!r}: {part!r} is no option, such as split=test{hint}")
        if OPTIONS[key] is float:
            options[key] = number(key, value, source)
        elif key == "keep":
            options["keep"] = [*options.get("keep", []), value]
        else:
            options[key] = value
    return options


def number(key, value, source):
    """The value of an option that is a number above 0; a share is at most 1. Raises UserError."""
    try:
        found = float(value)
        if 0 < found <= (1 if key == "share" else 1e15):
            return found
    except ValueError:
        pass
    what = "share, above 0 and up to 1" if key == "share" else "count"
    raise UserError(f"source {source!r}: {key}={value} is no {what}")


def check(options, source):
    """Raise UserError for templates and conditions that cannot be used."""
    for name in ("text", "user", "assistant", "system"):
        if options.get(name):
            shapes.lines_of(options[name])
    if bool(options.get("user")) != bool(options.get("assistant")):
        raise UserError(f"source {source!r}: a conversation needs both templates, user= and assistant=")
    for text in options.get("keep", []):
        shapes.condition(text)


def written(value):
    """The value of an option as it stands in a source's name."""
    if isinstance(value, list):
        return "&keep=".join(map(written, value))
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.12g}"
    return quote(value.replace("\n", "\\n"), safe=" {}\\/:.!<>='\"[]()|+*")


def normal(path):
    """A path as manifests name it: dir for dir/, ./dir and dir//. One that looks like another source keeps ./ in
    front."""
    if path == STDLIB:
        return path
    found = str(Path(path))
    is_other = found == STDLIB or found.startswith(HUB) or found.partition("@")[0] in SETS
    return f"./{found}" if is_other else found


def local_path(path, source, must_exist):
    """The file or folder that a source names. Raises UserError where there is none."""
    root = Path(sysconfig.get_paths()["stdlib"] if path == STDLIB else path)
    if not must_exist or path and "\0" not in path and root.exists():
        return root
    if path != source.partition("?")[0]:
        raise UserError(f"no source {source!r}: there is no {path}")
    near = difflib.get_close_matches(path, SETS, 1)
    hint = f"; did you mean the set {near[0]}?" if near else ""
    what = "neither a preset (stdlib), a set of corpus/sets.toml nor a path that exists"
    raise UserError(f"no source {source!r}: it is {what}{hint}")


def is_stdlib(source):
    """Whether a source is the preset, with options or without."""
    return source.partition("?")[0] == STDLIB


def source_name(source):
    """A source as manifests and score files name it."""
    return parsed(source, must_exist=False).name


def short_name(source):
    """A source's name for tables and progress bars: without the place of a copy, and of blobs."""
    name, question, options = source_name(source).partition("?")
    kept = [part for part in options.split("&") if not part.startswith(("contents=", "cache="))]
    known, _, path = name.partition("@")
    name = known if path and (known in SETS or known.startswith(HUB)) else name
    return name + question * any(kept) + "&".join(kept)


def root_of(source):
    """The file or folder that a source names, or None for a data set on the hub."""
    return parsed(source).path


def place_of(source):
    """What all names of one source have in common: a preset or a data set as it is named, or a path without links."""
    try:
        found = parsed(source)
    except (UserError, ValueError):  # a score file can name what is no path, or is there no more
        return os.path.realpath(source) if "\0" not in source else source
    if is_stdlib(source) or not found.path:
        return found.name
    _, question, options = found.name.partition("?")
    return os.path.realpath(found.path) + question + options


def distinct(sources):
    """The names of sources that all exist, each place once, whether it is named twice, dir and dir/ or through a link.
    Raises UserError for one that does not exist."""
    names = {}
    for source in map(str, sources):
        root_of(source)
        # The preset is not the folder that it lies in: it leaves out most of it.
        names.setdefault(place_of(source), source_name(source))
    return list(names.values())


def spare(sources, out):
    """Raise UserError where the result, a file, would take the place of one of the sources."""
    paths = [os.path.realpath(root) for source in sources if (root := root_of(source))]
    if os.path.realpath(out) in paths:
        raise UserError(f"--out={out} is a source itself, which the result would overwrite: give it another name")


def others(source, sources, *more):
    """The paths of all sources but this one, and more paths. What lies below two sources belongs to the inner one."""
    roots = [root_of(other) for other in sources if other != source and not is_stdlib(other)]
    own = root_of(source)
    return [*(root for root in roots if root and root != own), *more]
