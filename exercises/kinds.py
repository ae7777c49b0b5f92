"""What an argument can be: for each kind its type hint, and a function that draws a value.

These functions are called with a random.Random and the constants of the program that the value is for: near a constant
is where a mistake shows.
"""

import re
import string
from functools import partial

NAMES = (
    "Ann Bob Cleo Dan Eva Finn Gina Hugo Ida Jonas Karla Leo Maria Nils Olga Pia Quinn Rosa Sam Tom Uma Vera".split()
)
WORDS = (
    "apple harbor tree river stone tiger comet seven window lantern bridge ocean king snow maple velvet level "
    "noon civic radar banana letter summer coffee kitten pepper balloon garden sun moon star cat dog bird fish "
    "cloud rain fire table chair paper pencil school teacher doctor orange yellow purple silver hello world kayak "
    "rotor stats wow eye listen silent night thing earth heart python code data list loop test area idea union "
    "onion "
).split()
CITIES = "Paris Rome Oslo Lima Cairo Delhi Kyoto Quito".split()
MARKS = ["", "", "", ".", "!", "?", ","]


# -- single values


def whole(rng, constants=(), low=-99, high=99, is_bounded=False):
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


def decimal(rng, constants=()):
    """A number with one or two decimals, or half of one."""
    return rng.choice([round(rng.uniform(-5, 60), 1), round(rng.uniform(0, 20), 2), rng.randint(0, 40) / 2])


def truth(rng, constants=()):
    """True or False."""
    return rng.random() < 0.5


def word(rng, constants=()):
    """A word, in a fifth of the cases with a capital or a digit."""
    chosen = rng.choice(WORDS)
    odd = [chosen.capitalize(), chosen.upper(), chosen + str(rng.randint(1, 99))]
    return rng.choice(odd) if rng.random() < 0.2 else chosen


def text(rng, constants=()):
    """A line of words, numbers and marks."""
    parts = []
    for _ in range(length(rng) or 1):
        part = str(rng.randint(0, 120)) if rng.random() < 0.25 else word(rng)
        parts.append(part + rng.choice(MARKS))
    return " ".join(parts)[: rng.choice([60, 60, 12])].strip()


def characters(alphabet, low=1, high=8):
    """A function that draws a text of these characters."""
    return lambda rng, constants=(): "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def brackets(rng, constants=()):
    """A text of brackets, balanced in half of the cases."""
    made = ""
    for _ in range(rng.randint(1, 4)):
        pair = rng.choice(["()", "[]", "{}", "()"])
        made = rng.choice([made + pair, pair[0] + made + pair[1]])
    return made if rng.random() < 0.5 else "".join(rng.sample(made, len(made)))[: rng.randint(1, 8)]


def date(rng, constants=()):
    """2024-03-17"""
    return f"{rng.randint(1950, 2040)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def clock(rng, constants=()):
    """14:05"""
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


# -- values that hold others


def length(rng, least=0):
    """How long a list is: seldom empty."""
    return rng.choice([least, max(least, 1), 2, 3, 3, 4, 4, 5, 6])


def list_of(draw, least=0, kind=list):
    """A function that draws a list, tuple or set of what draw() draws; a fifth of the values are repeated."""

    def draw_list(rng, constants=()):
        """Draw one."""
        found = [draw(rng, constants) for _ in range(length(rng, least))]
        return kind(rng.choice(found) if rng.random() < 0.2 else value for value in found)

    return draw_list


def tuple_of(*draws):
    """A function that draws a tuple with a value of each of these."""
    return lambda rng, constants=(): tuple(draw(rng, constants) for draw in draws)


def dict_of(draw, least=0):
    """A function that draws a dict from names or words to what draw() draws."""

    def draw_dict(rng, constants=()):
        """Draw one."""
        keys = rng.sample(rng.choice([NAMES, WORDS]), length(rng, least))
        return {key: draw(rng, constants) for key in keys}

    return draw_dict


def person(rng, constants=()):
    """A dict of name, age and city."""
    return {"name": rng.choice(NAMES), "age": rng.randint(8, 80), "city": rng.choice(CITIES)}


def span(rng, constants=()):
    """(start, end), with start before end."""
    start = rng.randint(0, 30)
    return start, start + rng.randint(1, 12)


def matrix(rng, constants=(), is_square=False):
    """Rows of equal length."""
    n_rows, n_columns = rng.randint(1, 4), rng.randint(1, 4)
    if is_square:
        n_rows = n_columns = rng.randint(2, 4)
    numbers = [whole(rng, constants) for _ in range(n_rows * n_columns)]
    return [numbers[start : start + n_columns] for start in range(0, len(numbers), n_columns)]


def nested(rng, constants=()):
    """A list of numbers and of lists of numbers, two levels deep: a, [b, [b + 1]], [c], d."""
    values = list_of(whole)(rng, constants)
    return [[value, [value + 1]] if n % 3 == 1 else [value] if n % 3 == 2 else value for n, value in enumerate(values)]


def maybe(rng, constants=()):
    """A number, or None."""
    return None if rng.random() < 0.3 else whole(rng, constants)


bounded = partial(whole, is_bounded=True)
natural = partial(bounded, low=0, high=999)
KINDS = {  # name: (type hint, function that draws a value)
    "int": ("int", whole),
    "nat": ("int", natural),
    "pos": ("int", partial(bounded, low=1, high=999)),
    "small": ("int", partial(bounded, low=0, high=12)),
    "float": ("float", decimal),
    "bool": ("bool", truth),
    "text": ("str", text),
    "word": ("str", word),
    "char": ("str", characters(string.ascii_lowercase, 1, 1)),
    "digits": ("str", characters(string.digits)),
    "binary": ("str", characters("01")),
    "brackets": ("str", brackets),
    "date": ("str", date),
    "clock": ("str", clock),
    "ints": ("list[int]", list_of(whole)),
    "ints1": ("list[int]", list_of(whole, 1)),
    "nats": ("list[int]", list_of(natural)),
    "sorted": ("list[int]", list_of(whole, kind=sorted)),
    "floats": ("list[float]", list_of(decimal)),
    "floats1": ("list[float]", list_of(decimal, 1)),
    "bools": ("list[bool]", list_of(truth)),
    "words": ("list[str]", list_of(word)),
    "words1": ("list[str]", list_of(word, 1)),
    "chars": ("list[str]", list_of(characters(string.ascii_letters + "0123456789 .,", 1, 1))),
    "texts": ("list[str]", list_of(text)),
    "missing": ("list", list_of(maybe)),
    "tuple": ("tuple[int, ...]", list_of(whole, 1, tuple)),
    "set": ("set[int]", list_of(whole, kind=set)),
    "word_set": ("set[str]", list_of(word, kind=set)),
    "pair": ("tuple[int, int]", tuple_of(whole, whole)),
    "pairs": ("list[tuple[str, int]]", list_of(tuple_of(word, whole))),
    "points": ("list[tuple[int, int]]", list_of(tuple_of(whole, whole), 1)),
    "spans": ("list[tuple[int, int]]", list_of(span, 1)),
    "counts": ("dict[str, int]", dict_of(whole)),
    "counts1": ("dict[str, int]", dict_of(whole, 1)),
    "groups": ("dict[str, list[int]]", dict_of(list_of(whole), 1)),
    "translations": ("dict[str, str]", dict_of(word)),
    "records": ("list[dict]", list_of(person, 1)),
    "matrix": ("list[list[int]]", matrix),
    "square": ("list[list[int]]", partial(matrix, is_square=True)),
    "nested": ("list", nested),
    "any": ("object", None),  # only for results
}
# Kinds of further arguments, which depend on the first one.
RELATED = ("member", "index", "size", "same")


def draw_one(rng, kind, values, constants, first, operation):
    """A value of one parameter; first is that of the first parameter."""
    if values:
        return rng.choice(values)
    if isinstance(kind, tuple):
        return bounded(rng, constants, *kind)
    if kind == "char" and isinstance(first, str | list) and rng.random() < 0.6:
        letters = [char for char in "".join(map(str, first)) if char in string.ascii_lowercase]
        if letters:  # one that does not occur would seldom make a difference
            return rng.choice(letters)
    if kind in RELATED:
        return related(rng, kind, first, next(iter(operation.parameters.values())), constants)
    return KINDS[kind][1](rng, constants)


def related(rng, kind, first, first_kind, constants):
    """A value that belongs to the first argument: one of its members, mostly; a place in it; a number of its members;
    or another of the same kind and length."""
    members = list(first)
    if kind == "index":
        return rng.randrange(len(members)) if members else 0
    if kind == "size":
        return rng.randint(1, max(1, len(members)))
    for _ in range(200):
        other = KINDS[first_kind][1](rng, constants)
        if kind == "same" and len(other) == len(first):
            return other
        if kind == "member" and rng.random() < 0.3 and len(other):
            return rng.choice(list(other))
        if kind == "member" and members:
            return rng.choice(members)
    return first if kind == "same" else 0


LOWEST = {"nat": 0, "pos": 1, "small": 0}
TYPES = {kind.__name__: kind for kind in (int, bool, str, list, tuple, set, dict)} | {"float": int | float}


def fits(value, kind):
    """Whether a value is of a kind: its type, and that of what it holds."""
    if kind.endswith("?"):
        return value is None or fits(value, kind[:-1])
    outer, *inner = re.findall(r"\w+", KINDS[kind][0])
    if outer == "object":
        return True
    if not isinstance(value, TYPES[outer]) or isinstance(value, bool) != (outer == "bool"):
        return False
    if outer in ("int", "float"):
        return value >= LOWEST.get(kind, value)
    if outer == "dict":
        value = [*value.keys(), *value.values()]
    expected = tuple(TYPES[name] for name in inner)
    return outer == "str" or not inner or all(isinstance(item, expected) for item in value)
