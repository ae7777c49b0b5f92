"""How a record becomes text: shapes.toml, its templates, and conditions on fields. No value is ever executed."""

import ast
import functools
import itertools
import math
import operator
import re
import tomllib
from pathlib import Path

from configurator import UserError

SHAPES = tomllib.loads(Path(__file__).with_name("shapes.toml").read_text(encoding="utf-8"))
SLOT = re.compile(r"{([\w.|-]+)}")
COMPARED = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le}
COMPARED |= {">": operator.gt, ">=": operator.ge, "in": lambda value, values: value in values}
CONDITION = re.compile(r"(?:(not\s+)?([\w.-]+)|([\w.-]+)\s*(==|!=|<=|>=|<|>|\sin\s)\s*(.+))")
AS_JSON = {"true": True, "false": False, "null": None}


def is_blank(value):
    """Whether a field says nothing: null, blank text, an empty list or object, or NaN, pandas' null."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | dict):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


# -- templates


def value_at(value, names):
    """What stands at the end of a path of field names; None where there is nothing. Of a list, "first" is its first
    element, and "all" a list of them all."""
    if not names:
        return value
    name, *rest = names
    if isinstance(value, list):
        if name == "all":
            return [value_at(item, rest) for item in value]
        return value_at(value[0], rest if name == "first" else names) if value else None
    return value_at(value.get(name), rest) if isinstance(value, dict) else None


@functools.cache
def lines_of(template):
    """[(line ends in front, texts between its slots, its slots)] of each line of a template; a slot is a list of paths,
    a path a list of names. Raises UserError for one that cannot be filled."""
    left = SLOT.sub("", template)
    if "{" in left or "}" in left or not SLOT.search(template):
        raise UserError(
            f"{template!r} is no template: it puts fields into a text, as {{instruction}} or {{meta.title}}"
        )
    parts = ["", *re.split(r"(\n+)", template)]
    found = []
    for ends, line in zip(parts[0::2], parts[1::2]):
        cut = SLOT.split(line)
        slots = [[path.split(".") for path in slot.split("|")] for slot in cut[1::2]]
        found.append((ends, cut[0::2], slots))
    return found


@functools.cache
def fields_of(template):
    """The names of the fields that a template uses, without what stands behind a dot."""
    paths = "|".join(SLOT.findall(template)).split("|")
    return {path.split(".")[0] for path in paths}


@functools.cache
def only_field(template):
    """The name of the field with which a template begins, where nothing but the field stands there; None elsewhere."""
    found = re.match(r"{(\w+)}", template)
    return found and found[1]


def filled(template, record, text_of):
    """The text of a template with a record's fields. text_of(value, path): makes a text of a value, or raises."""
    texts = []
    for ends, between, slots in lines_of(template):
        line, says = between[0], not slots
        for slot, behind in zip(slots, between[1:]):
            value = slot_text(slot, record, text_of)
            says = says or not value.isspace() and value != ""
            line += value + behind
        if says:
            texts.append(ends + line if texts else line)
    return "".join(texts)


def slot_text(paths, record, text_of):
    """The text of the first of these paths that says something."""
    for names in paths:
        value = record.get(names[0]) if len(names) == 1 else value_at(record, names)
        if isinstance(value, list) and "all" in names:
            value = "\n".join(filter(None, (text_of(item, ".".join(names)) for item in value)))
        if not is_blank(value):
            return text_of(value, ".".join(names))
    return ""


# -- shapes


def one_by_one(entries):
    """The shapes of a view, with one for each pair of names of an any_of."""
    found = []
    for entry in entries:
        if "any_of" not in entry:
            found.append(entry)
            continue
        for pair in itertools.product(*entry["any_of"]):
            names = {f"{{{number}}}": f"{{{name}}}" for number, name in enumerate(pair)}
            texts = {role: re.sub(r"{\d}", lambda slot: names[slot[0]], entry[role]) for role in ("user", "assistant")}
            found.append({"fields": list(pair), **texts})
    return found


SHAPES["chats"] = one_by_one(SHAPES["chats"])


@functools.lru_cache(10_000)
def possible(view, names):
    """The shapes of a view, "documents" or "chats", whose fields all are among these names, a tuple."""
    return [shape for shape in SHAPES[view] if set(names).issuperset(shape["fields"])]


def lowered(record):
    """A record with the names of its fields in small letters too."""
    if are_lower(tuple(record)):
        return record
    return {**{name.lower(): value for name, value in record.items()}, **record}


@functools.lru_cache(10_000)
def are_lower(names):
    """Whether names are in small letters."""
    return all(name == name.lower() for name in names)


# -- conditions


def says_yes(value):
    """Whether a field says anything but false, 0 and nothing."""
    return bool(value) and not is_blank(value)


def field_of(text):
    """The field that a condition asks for, without what stands behind a dot."""
    return next(filter(None, CONDITION.fullmatch(text.strip()).group(2, 3))).split(".")[0]


def condition(text):
    """A function of a record: whether it meets a condition on one of its fields.

        not toxic            toxic is false, 0, empty or missing
        redacted             it is none of these
        language == "en"     equal, as Python's numbers, texts, lists, True, False and None are written
        score >= 3           and !=, <, <=, >
        license in ["mit", "apache-2.0"]

    A field that is missing is None; one of another kind is not equal, and neither larger nor smaller. Raises UserError
    for anything else.
    """
    match = CONDITION.fullmatch(text.strip())
    if not match:
        raise UserError(f"{text!r} is no condition on a field, such as 'not toxic' or 'language == \"en\"'")
    negated, name, compared, sign, literal = match.groups()
    if name:
        return lambda record: says_yes(value_at(record, name.split("."))) != bool(negated)
    try:
        wanted = AS_JSON[literal] if literal in AS_JSON else ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{text!r}: {literal!r} is no number, text in quotes, list, True, False or None") from None
    meets = COMPARED[sign.strip()]

    def met(record):
        """Whether the field compares so."""
        try:
            return bool(meets(value_at(record, compared.split(".")), wanted))
        except TypeError:
            return False

    return met
