"""What an argument can be. kinds.toml says it: its type hint, how a value is drawn, how people call it.

What draws a value is called with a random.Random and the constants of the program that the value is for: near a
constant is where a mistake shows.
"""

import re
import string
import tomllib

from exercises.wording import FOLDER, WORDS

ENTRIES = tomllib.loads((FOLDER / "kinds.toml").read_text(encoding="utf-8"))
KINDS = {  # kind: its entry, with what it does not say itself
    kind: ENTRIES["any"] | ENTRIES.get(entry.get("like"), {}) | entry for kind, entry in ENTRIES.items()
}
SCALARS = ("int", "nat", "pos", "float", "char", "word")


def entry_of(kind):
    """The entry of a kind, which may be (lowest, highest) of a whole number; [any] if there is none."""
    if isinstance(kind, tuple):
        return KINDS["nat"] | {"low": kind[0], "high": kind[1], "accepts": []}
    return KINDS.get(kind, KINDS["any"])


def first_kind(operation):
    """The kind of the first parameter of an Operation or a Draft."""
    return next(iter(operation.parameters.values()))


def item_of(kind):
    """The kind of what values of a kind hold, if conditions can be asked of it: int, word, char or float; or None."""
    return entry_of(kind).get("holds")


def is_scalar(kind):
    """Whether values of a kind are single numbers, characters or words."""
    return isinstance(kind, tuple) or kind in SCALARS


MARKS = ["", "", "", ".", "!", "?", ","]


def whole(rng, constants, low=-99, high=99, is_bounded=False):
    """A whole number from low to high, often small, often next to a constant, which may lie above high unless that is
    a bound."""
    near = []
    for constant in constants:
        around = (constant - 1, constant, constant + 1)
        near += [number for number in around if number >= low and (number <= high or not is_bounded)]
    if near and rng.random() < 0.4:
        return rng.choice(near)
    if rng.random() < 0.7:
        low, high = max(low, -9 if rng.random() < 0.3 else 0), min(high, 20)
    return rng.randint(low, max(low, high))


def decimal(rng, constants):
    """A number with one or two decimals, or half of one."""
    return rng.choice([round(rng.uniform(-5, 60), 1), round(rng.uniform(0, 20), 2), rng.randint(0, 40) / 2])


def truth(rng, constants):
    """True or False."""
    return rng.random() < 0.5


def word(rng, constants):
    """A word, in a fifth of the cases with a capital or a digit."""
    chosen = rng.choice(WORDS["contents"])
    odd = [chosen.capitalize(), chosen.upper(), chosen + str(rng.randint(1, 99))]
    return rng.choice(odd) if rng.random() < 0.2 else chosen


def length(rng, least=0):
    """How long a list is: seldom empty."""
    return rng.choice([least, max(least, 1), 2, 3, 3, 4, 4, 5, 6])


def text(rng, constants):
    """A line of words, numbers and marks."""
    parts = []
    for _ in range(length(rng) or 1):
        part = str(rng.randint(0, 120)) if rng.random() < 0.25 else word(rng, constants)
        parts.append(part + rng.choice(MARKS))
    return " ".join(parts)[: rng.choice([60, 60, 12])].strip()


def brackets(rng, constants):
    """A text of brackets, balanced in half of the cases."""
    made = ""
    for _ in range(rng.randint(1, 4)):
        pair = rng.choice(["()", "[]", "{}", "()"])
        made = rng.choice([made + pair, pair[0] + made + pair[1]])
    return made if rng.random() < 0.5 else "".join(rng.sample(made, len(made)))[: rng.randint(1, 8)]


def person(rng, constants):
    """A dict of name, age and city."""
    return {"name": rng.choice(WORDS["people"]), "age": rng.randint(8, 80), "city": rng.choice(WORDS["cities"])}


def span(rng, constants):
    """(start, end), with start before end."""
    start = rng.randint(0, 30)
    return start, start + rng.randint(1, 12)


def matrix(rng, constants, is_square=False):
    """Rows of equal length."""
    n_rows, n_columns = rng.randint(1, 4), rng.randint(1, 4)
    if is_square:
        n_rows = n_columns = rng.randint(2, 4)
    numbers = [whole(rng, constants) for _ in range(n_rows * n_columns)]
    return [numbers[start : start + n_columns] for start in range(0, len(numbers), n_columns)]


def square(rng, constants):
    """A matrix with as many rows as columns."""
    return matrix(rng, constants, is_square=True)


def nested(rng, constants):
    """A list of numbers and of lists of numbers, two levels deep: a, [b, [b + 1]], [c], d."""
    values = value_of(rng, "ints", constants)
    return [[value, [value + 1]] if n % 3 == 1 else [value] if n % 3 == 2 else value for n, value in enumerate(values)]


def maybe(rng, constants):
    """A number, or None."""
    return None if rng.random() < 0.3 else whole(rng, constants)


FUNCTIONS = (whole, decimal, truth, word, text, brackets, person, span, matrix, square, nested, maybe)
DRAWN_BY = {function.__name__: function for function in FUNCTIONS}
INTO = {"list": list, "tuple": tuple, "set": set, "sorted": sorted}


def value_of(rng, kind, constants):
    """A value of a kind, drawn as its entry says."""
    entry = entry_of(kind)
    if "low" in entry:
        return whole(rng, constants, entry["low"], entry["high"], is_bounded=True)
    if "letters" in entry:
        return "".join(rng.choice(entry["letters"]) for _ in range(rng.randint(*entry["length"])))
    if "form" in entry:
        return entry["form"].format(*(rng.randint(*ends) for ends in entry["numbers"]))
    if "tuple_of" in entry:
        return tuple(value_of(rng, item, constants) for item in entry["tuple_of"])
    if "dict_of" in entry:
        keys = rng.sample(WORDS[rng.choice(["people", "contents"])], length(rng, entry["least"]))
        return {key: value_of(rng, entry["dict_of"], constants) for key in keys}
    if "list_of" in entry:
        found = [value_of(rng, entry["list_of"], constants) for _ in range(length(rng, entry["least"]))]
        # A fifth of the values are repeated.
        return INTO[entry["into"]](rng.choice(found) if rng.random() < 0.2 else value for value in found)
    return DRAWN_BY[entry["drawn_by"]](rng, constants)


# Kinds of further arguments, which depend on the first one.
RELATED = ("member", "index", "size", "same")


def draw_one(rng, kind, values, constants, first, operation):
    """A value of one parameter; first is that of the first parameter."""
    if values:
        return rng.choice(values)
    if kind == "char" and isinstance(first, str | list) and rng.random() < 0.6:
        letters = [char for char in "".join(map(str, first)) if char in string.ascii_lowercase]
        if letters:  # one that does not occur would seldom make a difference
            return rng.choice(letters)
    if kind in RELATED:
        return related(rng, kind, first, first_kind(operation), constants)
    return value_of(rng, kind, constants)


def related(rng, kind, first, its_kind, constants):
    """A value that belongs to the first argument: one of its members, mostly; a place in it; a number of its members;
    or another of the same kind and length."""
    members = list(first)
    if kind == "index":
        return rng.randrange(len(members)) if members else 0
    if kind == "size":
        return rng.randint(1, max(1, len(members)))
    for _ in range(200):
        other = value_of(rng, its_kind, constants)
        if kind == "same" and len(other) == len(first):
            return other
        if kind == "member" and rng.random() < 0.3 and len(other):
            return rng.choice(list(other))
        if kind == "member" and members:
            return rng.choice(members)
    return first if kind == "same" else 0


TYPES = {kind.__name__: kind for kind in (int, bool, str, list, tuple, set, dict)} | {"float": int | float}


def fits(value, kind):
    """Whether a value is of a kind: its type, and that of what it holds."""
    if kind.endswith("?"):
        return value is None or fits(value, kind[:-1])
    outer, *inner = re.findall(r"\w+", KINDS[kind]["hint"])
    if outer == "object":
        return True
    if not isinstance(value, TYPES[outer]) or isinstance(value, bool) != (outer == "bool"):
        return False
    if outer in ("int", "float"):
        return value >= KINDS[kind].get("low", value)
    if outer == "dict":
        value = [*value.keys(), *value.values()]
    expected = tuple(TYPES[name] for name in inner)
    return not inner or all(isinstance(item, expected) for item in value)
