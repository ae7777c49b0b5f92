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

import needs  # noqa: F401

import ast
import difflib
import errno
import inspect
import json
import os
import platform
import shutil
import sys
import tempfile
import textwrap
import tokenize
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path

import ranges
from cores import n_cores
from endings import Stopped, UserError, rank, told_in_one_line  # noqa: F401

ROOT = Path(__file__).resolve().parent
# The stages in the order in which they run. These, and recipe itself, may have a table in a TOML file.
STAGES = ("exercises", "tokenizer_train", "classifier", "prepare_data", "pretrain", "anneal", "sft", "dpo", "reward")
STAGES += ("grpo", "eval_humaneval")
MODULES = {"exercises": "exercises.__main__", "classifier": "cleaning.classifier"}  # of stages that are no scripts
TABLES = (*STAGES, "recipe")
HELP_WIDTH, HELP_COLUMN = 100, 32


def run(main, settings_class, table=None):
    """What every stage ends with: settings from the command line, then main(settings).

    Errors that a person can mend become one line and exit code 2, see endings.py. table: the stage whose table of a
    TOML file is read, where that is another one.
    """
    stage = stage_name(main)
    with told_in_one_line():
        is_first = rank() == 0  # torchrun starts several processes: one speaks
        settings = load(settings_class, sys.argv[1:], table or stage, main)
        if is_first:
            show(settings, stage)
        main(settings)


def stage_name(main):
    """The name of the script or module that a main function is from: pretrain, cleaning.classifier."""
    spec = sys.modules[main.__module__].__spec__
    if spec is None:  # a script that was started by its path
        return Path(inspect.getfile(main)).stem
    return spec.name.removesuffix(".__main__")


def command(stage):
    """How a person starts a stage: "pretrain.py", or "-m exercises" where it is a module in a folder."""
    module = MODULES.get(stage, stage).removesuffix(".__main__")
    return f"{stage}.py" if (ROOT / f"{stage}.py").exists() else f"-m {module}"


# -- what settings there are


@dataclass
class Setting:
    """One setting of a stage: a field of its dataclass, and what the source says of it."""

    name: str
    kind: ranges.Kind  # what its annotation says
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
        if not field.init:  # what a stage computes by itself
            continue
        if is_dataclass(field.type):
            for inner in settings_of(field.type).values():
                part = "" if inner.heading == "settings" else f": {inner.heading}"
                found[inner.name] = replace(inner, heading=text + part, table=name)
        else:
            default = field.default if field.default is not MISSING else field.default_factory()
            found[name] = Setting(name, ranges.kind_of(field.type), default, text, heading or "settings")
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
        print(help_text(settings_class, stage_name(main), inspect.getmodule(main).__doc__), flush=True)
        sys.exit(0)
    known, values = settings_of(settings_class), {}
    tables = {setting.table for setting in known.values()} - {""}
    for path in argv:
        if not path.startswith("-"):
            for key, (value, where) in read_toml(path, stage, tables).items():
                values[key] = convert(known, key, value, where)
    for argument in argv:
        if argument.startswith("-"):
            key, equals, text = argument.lstrip("-").partition("=")
            table, _, name = key.rpartition(".")  # --rules.max_words=9 is --max_words=9
            if name in known and known[name].table == table:
                key = name
            given = text if equals else None
            if equals and key in known and known[key].kind.type is list:
                given = [part for part in text.split(",") if part]
            values[key] = convert(known, key, given, "command line")
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


def convert(known, key, given, where):
    """The value of a setting. given: the text behind --key=, None for a bare --key, or what a TOML file holds.

    Raises UserError for a key that there is not, and for a value that the setting's annotation does not allow.
    """
    if key not in known:
        raise UserError(f"unknown setting {shown(key)} ({where}){nearest(key, known)}; --help lists them all")
    kind = known[key].kind
    if given is None and kind.type is not bool:
        raise UserError(f"setting {key!r} ({where}) needs {kind}, got no value: write --{key}=...")
    try:
        return ranges.value_of(kind, "true" if given is None else given)
    except ValueError:
        is_name = isinstance(given, str) and isinstance(kind.allowed, ranges.Choice)
        hint = nearest(given, kind.allowed) if is_name else ""
        raise UserError(f"setting {key!r} ({where}) needs {kind}, got {shown(given)}{hint}") from None


def nearest(name, names):
    """The hint at the name that was meant, or "" where none is near."""
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value):
    """What a person gave, on one line and not longer than a message may be."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list 5,000 deep
        return "something very long"
    return text if len(text) <= 80 else text[:77] + "..."


# -- TOML


def read_toml(argument, stage, tables=()):
    """{key: (value, where it stands)} for one stage of a TOML file: the file's top level, the stage's table, and the
    table of one of its runs where the argument ends in :run, or none of them where it ends in a colon. tables: names of
    settings' own tables."""
    path, run = split_run(argument)
    whole = parse_toml(path)
    own = whole.get(stage, {})
    runs = runs_of(own, tables)
    if run and run not in runs:
        raise UserError(f"{path} has no table [{stage}.{run}]; there is {', '.join(runs) or 'none'}")
    if runs and not run and not argument.endswith(":"):
        raise UserError(f"{path} runs {stage} {len(runs)} times, say which: " + ", ".join(f"{path}:{r}" for r in runs))
    values, levels = {}, [(whole, ""), (own, stage)] + ([(own[run], f"{stage}.{run}")] if run else [])
    for table, name in levels:
        for key, value in table.items():
            if isinstance(value, dict) and key in tables and name:
                values |= {inner: (given, f"{path}: [{name}.{key}]") for inner, given in value.items()}
            elif not isinstance(value, dict) or "." in name:  # a run has no runs
                values[key] = value, f"{path}: [{name}]" if name else path
    return values


def split_run(argument):
    """(path, run) of configs/demo.toml:pages; run is empty where none is named."""
    path, colon, run = argument.rpartition(":")
    return (path, run) if colon and not os.path.exists(argument) else (argument, "")


def found(argument):
    """A settings file as an argument names it, here or in the repository: configs/demo.toml can be typed anywhere."""
    path, _ = split_run(str(argument))
    return str(ROOT / argument) if not os.path.exists(path) and os.path.exists(ROOT / path) else argument


def parse_toml(path):
    """The tables of a TOML file. Raises UserError for a table that is named like no stage."""
    try:
        whole = tomllib.loads(Path(found(path)).read_text(encoding="utf-8-sig"))  # some editors open a file with a BOM
    except FileNotFoundError:
        raise UserError(f"no settings file {shown(path)}; settings are written --key=value") from None
    except OSError as error:
        raise UserError(f"cannot read the settings file {shown(path)}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML: {str(error)[:200]}") from None
    for name, value in whole.items():
        if isinstance(value, dict) and name not in TABLES:
            hint = nearest(name, TABLES) or f"; the stages are {', '.join(STAGES)}"
            raise UserError(f"unknown table [{name[:80]}] in {path}{hint}")
        if not isinstance(value, dict) and name in TABLES:
            raise UserError(f"{path}: {name} is a stage, whose settings stand under a line [{name}]")
        for run in runs_of(value) if isinstance(value, dict) else ():
            if not run or {":", "\0"} & set(run):
                raise UserError(f"{path}: {run!r} in [{name}] is no name of a run, which is typed as FILE.toml:RUN")
    return whole


def runs_of(table, tables=()):
    """The names of a stage's runs: its sub-tables, apart from those that are settings' own."""
    return [name for name, value in table.items() if isinstance(value, dict) and name not in tables]


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
    values, computed = {}, {field.name for field in fields(settings) if not field.init}
    for key, value in asdict(settings).items():
        if key not in computed:
            values |= value if isinstance(value, dict) else {key: value}
    return values


def value_text(value):
    """A setting's value as it would be typed."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def help_text(settings_class, stage, doc=""):
    """The module's docstring and every setting with its default, its comment and its range, under headings."""
    width = min(HELP_WIDTH, shutil.get_terminal_size((80, 24)).columns)
    typed = sys.argv[0] if Path(sys.argv[0]).name == f"{stage}.py" else command(stage)
    if sys.orig_argv[1:3] == ["-m", stage]:  # Python has put the path of a module of the top folder there
        typed = f"-m {stage}"
    usage = f"usage: python {typed} [recipe.toml ...] [--key=value ...]"
    lines = [*wrapped(inspect.cleandoc(doc or ""), width), "", *textwrap.wrap(usage, width)]
    groups = {}
    for setting in settings_of(settings_class).values():
        groups.setdefault(setting.heading, []).append(setting)
    for heading, settings in groups.items():
        lines += ["", *textwrap.wrap(heading, width)]
        for setting in settings:
            first = f"  --{setting.name}={value_text(setting.default)}"
            text = f"{setting.text} ({setting.kind.allowed})" if setting.kind.allowed else setting.text
            if len(first) >= HELP_COLUMN:  # a long default has a line of its own
                lines.append(first)
                first = ""
            for line in textwrap.wrap(text, max(20, width - HELP_COLUMN)):
                lines.append(f"{first:<{HELP_COLUMN}}{line}")
                first = ""
    return "\n".join(lines).strip()


def wrapped(doc, width):
    """The lines of a docstring, its paragraphs wrapped anew. One with indented lines shows examples and stays."""
    lines = []
    for paragraph in doc.split("\n\n"):
        is_example = any(line.startswith(" ") for line in paragraph.splitlines())
        lines += ["", *(paragraph.splitlines() if is_example else textwrap.wrap(paragraph, width))]
    return lines[1:]


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
        "cores": n_cores(),
        "platform": platform.platform(),
    }


def write_json(path, value):
    """Write JSON as write_text does."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def not_special(path):
    """A path at which a file may be put. Raises OSError where a device or a pipe is: in its place a file would take
    /dev/null from the whole machine."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def write_text(path, text):
    """Write a file so that a reader sees the old one or the new one, never half of one.

    What is no Unicode, such as a byte of a file's name, becomes an escape, \\udce9, which JSON reads back. An OSError
    names the path, whatever went wrong.
    """
    path, beside = not_special(Path(path)), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(beside, 0o644)  # mkstemp's 0600 would hide results from a group
        os.replace(beside, path)
    except BaseException as error:
        if beside:
            Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
