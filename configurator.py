"""Settings, the same way in every stage: dataclass defaults <- TOML files <- --key=value.

    python pretrain.py configs/124m.toml --lr=1e-3 --compile=false

A stage declares one dataclass. A field's annotation is its type and the comment behind it is its line in
--help, read from the source so that the two cannot drift. A TOML file holds one table per stage, named
like the script, so that one file is a whole recipe. Whatever a person got wrong ends in one line and
exit code 2.
"""

import ast
import difflib
import inspect
import json
import os
import platform
import sys
import tempfile
import tokenize
import tomllib
import types
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import NoReturn, get_args


class UserError(Exception):
    """Something the person at the terminal can mend; shown as one line, exit code 2."""


def run(main, settings_class):
    """The door of every stage: settings from the command line, then main(settings), errors as one line."""
    try:
        settings = load(settings_class, sys.argv[1:])
        show(settings)
        main(settings)
    except (UserError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted")


def fail(message) -> NoReturn:
    """Print one line on standard error and exit with code 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr, flush=True)
    sys.exit(2)


def load(settings_class, argv):
    """Settings from argv: TOML files in their order, then --key=value. Raises UserError, exits after --help."""
    if "--help" in argv or "-h" in argv:
        print(help_text(settings_class))
        sys.exit(0)
    values = {}
    known = {f.name: f for f in fields(settings_class)}
    for path in (a for a in argv if not a.startswith("-")):
        for key, value in read_toml(path, stage_name(settings_class)).items():
            values[key] = convert(known, key, toml_text(value), path)
    for arg in (a for a in argv if a.startswith("-")):
        key, equals, text = arg.lstrip("-").partition("=")
        values[key] = convert(known, key, text if equals else None, "command line")
    try:
        return settings_class(**values)
    except ValueError as error:  # a dataclass's own check of its values
        raise UserError(error) from None


def convert(known, key, text, where):
    """The text of a setting as its annotated type; text None is a bare --key, which means true."""
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        raise UserError(
            f"unknown setting {key!r} ({where})"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + "; --help lists them all"
        )
    kind = known[key].type
    if isinstance(kind, types.UnionType):  # X | None: the word "auto" is None
        if text is not None and text.lower() == "auto":
            return None
        kind = get_args(kind)[0]
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                (text or "true").lower()
            ]
        if text is None:
            raise ValueError
        if kind is int:
            number = float(text) if any(c in text for c in ".eE") else int(text)
            if number != int(number):
                raise ValueError
            return int(number)
        if kind is float:
            return float(text)
        return [part for part in text.split(",") if part] if kind == list[str] else text
    except (KeyError, ValueError, OverflowError):
        given = f"got {text!r}" if text is not None else f"got no value: write --{key}=..."
        raise UserError(f"setting {key!r} ({where}) needs {type_name(known[key].type)}, {given}") from None


def read_toml(path, stage):
    """The settings of one stage in a TOML file: its top level and the table named like the stage."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no settings file {path!r}; settings are written --key=value") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    root = Path(__file__).parent
    stages = [p.stem for p in (*root.glob("*.py"), *root.glob("*/*.py"))]
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for name in (key for key, value in table.items() if isinstance(value, dict)):
        if name not in stages:
            near = difflib.get_close_matches(name, stages, n=1)
            raise UserError(f"unknown table [{name}] in {path}" + (f"; did you mean [{near[0]}]?" if near else ""))
    return values | table.get(stage, {})


def toml_text(value):
    """A TOML value as it would be typed on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def stage_name(settings_class):
    return Path(inspect.getfile(settings_class)).stem


def show(settings):
    """Print what differs from the defaults on standard error, one setting a line."""
    changed = {key: value for key, value in asdict(settings).items() if value != default(type(settings), key)}
    print(f"{stage_name(type(settings))}:" + ("" if changed else " default settings"), file=sys.stderr, flush=True)
    for key, value in changed.items():
        print(f"  {key:<18} {value_text(value)}", file=sys.stderr, flush=True)


def default(settings_class, key):
    field = next(f for f in fields(settings_class) if f.name == key)
    return field.default if field.default is not MISSING else field.default_factory()


def value_text(value):
    return "auto" if value is None else toml_text(value).lower() if isinstance(value, bool) else toml_text(value)


def type_name(kind):
    if isinstance(kind, types.UnionType):
        return type_name(get_args(kind)[0]) + " or auto"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a,b,c")


def help_text(settings_class):
    """The module's first paragraph and a table of every setting: name, type, default, comment."""
    module = sys.modules[settings_class.__module__]
    lines = [
        (module.__doc__ or "").split("\n\n")[0].strip(),
        "",
        f"usage: python {stage_name(settings_class)}.py [recipe.toml ...] [--key=value ...]",
        "",
    ]
    comments = field_comments(settings_class)
    rows = [
        (f"--{f.name}", type_name(f.type), value_text(default(settings_class, f.name)), comments.get(f.name, ""))
        for f in fields(settings_class)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) + "  " + row[3] for row in rows]
    return "\n".join(lines)


def field_comments(settings_class):
    """{field: trailing comment} of a dataclass and the dataclasses it inherits from, from their source."""
    comments = {}
    for cls in filter(is_dataclass, reversed(settings_class.__mro__)):
        source = inspect.getsource(cls)
        on_line = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokenize.generate_tokens(iter(source.splitlines(True)).__next__)
            if token.type == tokenize.COMMENT
        }
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign):
                comments[node.target.id] = on_line.get(node.end_lineno, "")
    return comments


def made_by():
    """What made a result: command line, interpreter, library versions and processor, to save beside it."""
    versions = {
        name: getattr(sys.modules[name], "__version__", "?")
        for name in ("torch", "numpy", "tiktoken", "sentencepiece")
        if name in sys.modules
    }
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
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
