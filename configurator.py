"""Settings, the same way in every stage: defaults, then TOML files, then --key=value.

    python pretrain.py configs/124m.toml --lr=1e-3 --compile=false

A stage declares one dataclass. A field's annotation is its type. The comment behind a field, or the
comment lines above it, is its text in --help, and a comment that begins with "# --" is a heading
over the fields that follow: help is read from the source, so that the two cannot differ.

A TOML file holds one table per stage, so that one file is a whole recipe. A stage that runs several
times has a table for each run, [prepare_data.pages], whose settings come on top of [prepare_data]:
`python prepare_data.py configs/demo.toml:pages`.

Whatever a person got wrong ends in one line and exit code 2.
"""

import ast
import difflib
import inspect
import json
import os
import platform
import sys
import tempfile
import textwrap
import tokenize
import tomllib
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import NoReturn, get_args

ROOT = Path(__file__).resolve().parent
# The stages in the order in which they run: these, and recipe itself, may have a table in a TOML file.
STAGES = ("exercises", "tokenizer_train", "prepare_data", "pretrain", "anneal", "sft", "eval_humaneval")
HELP_WIDTH, HELP_COLUMN = 100, 32
YES_OR_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class UserError(Exception):
    """Something the person at the terminal can mend; shown as one line, exit code 2."""


def run(main, settings_class, table=None):
    """What every stage ends with: settings from the command line, then main(settings).

    Errors that a person can mend become one line and exit code 2. table: the stage whose table of a TOML file is read,
    where that is another one.
    """
    stage = stage_name(main)
    try:
        settings = load(settings_class, sys.argv[1:], table or stage, main)
        if int(os.environ.get("RANK", 0)) == 0:  # torchrun starts several processes: one speaks
            show(settings, stage)
        main(settings)
    except (UserError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted")


def fail(message) -> NoReturn:
    """Print one line on standard error and exit with code 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr, flush=True)
    sys.exit(2)


def stage_name(main):
    """The name of the script or module that a main function is from: pretrain, cleaning.classifier."""
    spec = sys.modules[main.__module__].__spec__
    if spec is None:  # a script that was started by its path
        return Path(inspect.getfile(main)).stem
    return spec.name.removesuffix(".__main__")


def command(stage):
    """How a person starts a stage: "pretrain.py", or "-m exercises" where it is a module in a folder."""
    return f"{stage}.py" if (ROOT / f"{stage}.py").exists() else f"-m {stage}"


# -- what settings there are


@dataclass
class Setting:
    """One setting of a stage: a field of its dataclass, and what the source says of it."""

    name: str
    kind: object  # its annotation: int, float | None, list[str], ...
    default: object
    text: str  # its comment
    heading: str
    table: str = ""  # the table of its own that it stands in: "rules" for [prepare_data.rules]


@cache
def settings_of(settings_class):
    """{name: Setting} of a dataclass in the order of --help: its own fields come before those that it inherits.

    A field that a class declares again keeps its heading and gets the newer comment. A field whose type is a dataclass
    is a table of further settings; its comment is their heading.
    """
    comments = {}
    for cls in filter(is_dataclass, settings_class.__mro__):
        for name, (text, heading) in comments_in(cls).items():
            newer_text, newer_heading = comments.pop(name, (text, heading))
            comments[name] = newer_text, newer_heading or heading
    declared, found = {field.name: field for field in fields(settings_class)}, {}
    for name, (text, heading) in comments.items():
        field = declared[name]
        if is_dataclass(field.type):
            for inner in settings_of(field.type).values():
                part = "" if inner.heading == "settings" else f": {inner.heading}"
                found[inner.name] = replace(inner, heading=text + part, table=name)
        else:
            default = field.default if field.default is not MISSING else field.default_factory()
            found[name] = Setting(name, field.type, default, text, heading or "settings")
    return found


def comments_in(cls):
    """{field: (comment, heading)} of the fields that a class declares itself, from its source."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines, comments = source.splitlines(), {}
    for token in tokenize.generate_tokens(iter(source.splitlines(True)).__next__):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("#").strip()
    found, heading, above = {}, "", []
    declared = {node.lineno: node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)}
    for number, line in enumerate(lines, 1):
        if number in declared:
            behind = comments.get(declared[number].end_lineno, "")
            found[declared[number].target.id] = " ".join([*above, behind]).strip(), heading
            above = []
        elif line.lstrip().startswith("# --"):
            heading = comments[number][2:].strip()
        elif line.lstrip().startswith("#"):
            above.append(comments[number])
    return found


# -- from text to settings


def load(settings_class, argv, stage="", main=None):
    """Settings from argv: TOML files in their order, then --key=value; exits after --help.

    stage: whose table of the TOML files to read. main: the function whose module --help describes.
    Raises UserError for an unknown key, a value of the wrong type, a file that is no TOML.
    """
    if main and ("--help" in argv or "-h" in argv):
        print(help_text(settings_class, stage_name(main), inspect.getmodule(main).__doc__))
        sys.exit(0)
    known, values = settings_of(settings_class), {}
    for path in argv:
        if not path.startswith("-"):
            for key, value in read_toml(path, stage, {setting.table for setting in known.values()}).items():
                values[key] = convert(known, key, toml_text(value), path)
    for argument in argv:
        if argument.startswith("-"):
            key, equals, text = argument.lstrip("-").partition("=")
            table, _, name = key.rpartition(".")  # --rules.max_words=9 is --max_words=9
            if name in known and known[name].table == table:
                key = name
            values[key] = convert(known, key, text if equals else None, "command line")
    return build(settings_class, values)


def build(settings_class, values):
    """An instance of the dataclass; values of its tables are handed down to them."""
    arguments = {}
    for field in fields(settings_class):
        if is_dataclass(field.type):
            arguments[field.name] = build(field.type, values)
        elif field.name in values:
            arguments[field.name] = values[field.name]
    try:
        return settings_class(**arguments)
    except ValueError as error:  # a dataclass's own check of its values
        raise UserError(error) from None


def convert(known, key, text, where):
    """The text of a setting as its annotated type; text None is a bare --key, which means true."""
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown setting {key!r} ({where}){hint}; --help lists them all")
    kind = known[key].kind
    if isinstance(kind, types.UnionType):  # X | None: the word "auto" is None
        if text is not None and text.lower() == "auto":
            return None
        kind = get_args(kind)[0]
    try:
        if kind is bool:
            return YES_OR_NO[(text or "true").lower()]
        if text is None:
            raise ValueError
        if kind is int:
            return whole_number(text)
        if kind is float:
            return float(text)
        return [part for part in text.split(",") if part] if kind == list[str] else text
    except (KeyError, ValueError, OverflowError):
        given = f"got {text!r}" if text is not None else f"got no value: write --{key}=..."
        raise UserError(f"setting {key!r} ({where}) needs {type_name(known[key].kind)}, {given}") from None


def whole_number(text):
    """20, 20_000 or 2e4 as an int; ValueError for 1.5."""
    if not any(char in text for char in ".eE"):
        return int(text)
    number = float(text)
    if number != int(number):
        raise ValueError
    return int(number)


def type_name(kind):
    """A type in words, for the message that says what a setting needs."""
    if isinstance(kind, types.UnionType):
        return type_name(get_args(kind)[0]) + " or auto"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a,b,c")


# -- TOML


def read_toml(argument, stage, tables=()):
    """{key: value} for one stage of a TOML file: the file's top level, the stage's table, and the
    table of one of its runs where the argument ends in :run, or none of them where it ends in a
    colon. tables: names of settings' own tables."""
    path, run = split_run(argument)
    whole = parse_toml(path)
    runs = runs_of(whole.get(stage, {}), tables)
    if run and run not in runs:
        raise UserError(f"{path} has no table [{stage}.{run}]; there is {', '.join(runs) or 'none'}")
    if runs and not run and not argument.endswith(":"):
        raise UserError(f"{path} runs {stage} {len(runs)} times, say which: " + ", ".join(f"{path}:{r}" for r in runs))
    values = {}
    for table in (whole, whole.get(stage, {}), *([whole[stage][run]] if run else [])):
        values |= {key: value for key, value in table.items() if not isinstance(value, dict)}
        for name in tables:
            if name and table is not whole:
                values |= table.get(name, {})
    return values


def split_run(argument):
    """(path, run) of configs/demo.toml:pages; run is empty where none is named."""
    path, colon, run = argument.rpartition(":")
    return (path, run) if colon and not Path(argument).exists() else (argument, "")


def parse_toml(path):
    """The tables of a TOML file. Raises UserError for a table that is named like no stage."""
    try:
        whole = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no settings file {path!r}; settings are written --key=value") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    for name, value in whole.items():
        if isinstance(value, dict) and name not in (*STAGES, "recipe"):
            near = difflib.get_close_matches(name, STAGES, n=1)
            hint = f"did you mean [{near[0]}]?" if near else f"the stages are {', '.join(STAGES)}"
            raise UserError(f"unknown table [{name}] in {path}; {hint}")
    return whole


def runs_of(table, tables=()):
    """The names of a stage's runs: its sub-tables, apart from those that are settings' own."""
    return [name for name, value in table.items() if isinstance(value, dict) and name not in tables]


def toml_text(value):
    """A TOML value as it would be typed on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# -- from settings to text


def show(settings, stage):
    """Print what differs from the defaults on standard error, one setting a line."""
    known = settings_of(type(settings))
    changed = {key: value for key, value in flat(settings).items() if value != known[key].default}
    print(f"{stage}:" + ("" if changed else " default settings"), file=sys.stderr, flush=True)
    for key, value in changed.items():
        print(f"  {key:<18} {value_text(value)}", file=sys.stderr, flush=True)


def flat(settings):
    """{name: value} of all settings, those in tables of their own too."""
    values = {}
    for key, value in asdict(settings).items():
        values |= value if isinstance(value, dict) else {key: value}
    return values


def value_text(value):
    """A setting's value as it would be typed."""
    if value is None:
        return "auto"
    return toml_text(value).lower() if isinstance(value, bool) else toml_text(value)


def help_text(settings_class, stage, doc=""):
    """The module's docstring and every setting with its default and its comment, under headings."""
    usage = f"usage: python {command(stage)} [recipe.toml ...] [--key=value ...]"
    lines = [inspect.cleandoc(doc or ""), "", usage]
    groups = {}
    for setting in settings_of(settings_class).values():
        groups.setdefault(setting.heading, []).append(setting)
    for heading, settings in groups.items():
        lines += ["", heading]
        for setting in settings:
            first = f"  --{setting.name}={value_text(setting.default)}"
            text = textwrap.wrap(setting.text, HELP_WIDTH - HELP_COLUMN)
            if len(first) >= HELP_COLUMN:  # a long default has a line of its own
                lines.append(first)
                first = ""
            for line in text:
                lines.append(f"{first:<{HELP_COLUMN}}{line}")
                first = ""
    return "\n".join(lines).strip()


# -- results


def made_by():
    """What made a result: command line, interpreter, library versions and processor, to save beside it."""
    versions = {}
    for name in ("torch", "numpy", "tiktoken", "sentencepiece"):
        if name in sys.modules:
            versions[name] = getattr(sys.modules[name], "__version__", "?")
    spec = sys.modules["__main__"].__spec__  # there is one when a module was started by python -m
    started = f"-m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
    return {
        "command": " ".join([started, *sys.argv[1:]]),
        "python": platform.python_version(),
        **versions,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }


def write_json(path, value):
    """Write JSON as write_text does."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_text(path, text):
    """Write a file so that a reader sees the old one or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(beside, 0o644)  # mkstemp's 0600 would hide results from a group
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
