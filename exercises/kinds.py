"""What an argument can be: for each kind a function that draws a value, and its type hint."""

import re
import string

NAMES = "Ann Bob Cleo Dan Eva Finn Gina Hugo Ida Jonas Karla Leo Maria Nils Olga Pia Quinn Rosa Sam Tom Uma Vera".split()
WORDS = (
    "apple harbor tree river stone tiger comet seven window lantern bridge ocean king snow maple velvet level noon civic "
    "radar banana letter summer coffee kitten pepper balloon garden sun moon star cat dog bird fish cloud rain fire "
    "table chair paper pencil school teacher doctor orange yellow purple silver hello world kayak rotor stats wow eye "
    "listen silent night thing earth heart python code data list loop test area idea union onion"
).split()
MARKS = ["", "", "", ".", "!", "?", ","]


def whole(rng, constants=(), low=-99, high=99):
    """A whole number from low to high, often small, often next to a constant of the program, where errors show."""
    near = [c + d for c in constants for d in (-1, 0, 1) if low <= c + d <= high]
    if near and rng.random() < 0.4:
        return rng.choice(near)
    if rng.random() < 0.7:
        low, high = max(low, -9 if rng.random() < 0.3 else 0), min(high, 20)
    return rng.randint(low, max(low, high))


def decimal(rng, constants=()):
    """A number with one or two decimals, or half of one."""
    return rng.choice([round(rng.uniform(-5, 60), 1), round(rng.uniform(0, 20), 2), rng.randint(0, 40) / 2])


def word(rng, constants=()):
    """A word, in a fifth of the cases with a capital or a digit."""
    chosen = rng.choice(WORDS)
    return rng.choice([chosen.capitalize(), chosen.upper(), chosen + str(rng.randint(1, 99))]) if rng.random() < 0.2 else chosen


def text(rng, constants=()):
    """A line of words, numbers and marks."""
    parts = [rng.choice([word(rng), word(rng), word(rng), str(rng.randint(0, 120))]) + rng.choice(MARKS) for _ in range(length(rng) or 1)]
    return " ".join(parts)[: rng.choice([60, 60, 12])].strip()


def length(rng, least=0):
    """How long a list is: seldom empty."""
    return rng.choice([least, max(least, 1), 2, 3, 3, 4, 4, 5, 6])


def listed(draw, least=0):
    """A function that draws a list of what draw() draws; a fifth of the values are repeated."""

    def values(rng, constants=()):
        found = [draw(rng, constants) for _ in range(length(rng, least))]
        return [rng.choice(found) if rng.random() < 0.2 else value for value in found]

    return values


def made(kind, build):
    """A function that draws a value of another kind and builds one from it."""
    return lambda rng, constants=(): build(KINDS[kind][1](rng, constants))


def natural(rng, constants=()):
    return whole(rng, constants, 0, 999)


def positive(rng, constants=()):
    return whole(rng, constants, 1, 999)


def small(rng, constants=()):
    return rng.randint(0, 12)


def table(rng, draw, least=0):
    """A dict from names or words to what draw() draws."""
    keys = rng.sample(rng.choice([NAMES, WORDS]), length(rng, least))
    return {key: draw(rng) for key in keys}


def counts(rng, constants=()):
    return table(rng, lambda rng: whole(rng, constants))


def counts1(rng, constants=()):
    return table(rng, lambda rng: whole(rng, constants), 1)


def groups(rng, constants=()):
    return table(rng, lambda rng: KINDS["ints"][1](rng, constants)[:4], 1)


def translations(rng, constants=()):
    return table(rng, lambda rng: rng.choice(WORDS))


def records(rng, constants=()):
    return [{"name": rng.choice(NAMES), "age": rng.randint(8, 80), "city": rng.choice(CITIES)} for _ in range(length(rng, 1))]


def pairs(rng, constants=()):
    return [(rng.choice(WORDS + NAMES), whole(rng, constants)) for _ in range(length(rng))]


def points(rng, constants=()):
    return [(whole(rng), whole(rng)) for _ in range(length(rng, 1))]


def spans(rng, constants=()):
    starts = [rng.randint(0, 30) for _ in range(length(rng, 1))]
    return [(start, start + rng.randint(1, 12)) for start in starts]


def matrix(rng, constants=(), rows=None, columns=None):
    rows, columns = rows or rng.randint(1, 4), columns or rng.randint(1, 4)
    return [[whole(rng, constants) for _ in range(columns)] for _ in range(rows)]


def square(rng, constants=()):
    n = rng.randint(2, 4)
    return matrix(rng, constants, n, n)


def nested(rng, constants=()):
    """A list of numbers and of lists of numbers, two levels deep."""
    values = KINDS["ints"][1](rng, constants)
    return [[value, [value + 1]] if n % 3 == 1 else [value] if n % 3 == 2 else value for n, value in enumerate(values)]


def some_missing(rng, constants=()):
    return [None if rng.random() < 0.3 else value for value in KINDS["ints"][1](rng, constants)]


def brackets(rng, constants=()):
    """A text of brackets, half of the time balanced."""
    made = ""
    for _ in range(rng.randint(1, 4)):
        pair = rng.choice(["()", "[]", "{}", "()"])
        made = rng.choice([made + pair, pair[0] + made + pair[1]])
    return made if rng.random() < 0.5 else "".join(rng.sample(made, len(made)))[: rng.randint(1, 8)]


def date(rng, constants=()):
    return f"{rng.randint(1950, 2040)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def clock(rng, constants=()):
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


def characters(alphabet, low=1, high=8):
    """A function that draws a text of these characters."""
    return lambda rng, constants=(): "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


CITIES = "Paris Rome Oslo Lima Cairo Delhi Kyoto Quito".split()
KINDS = {  # name: (type hint, function that draws a value)
    "int": ("int", whole),
    "nat": ("int", natural),
    "pos": ("int", positive),
    "small": ("int", small),
    "float": ("float", decimal),
    "bool": ("bool", lambda rng, constants=(): rng.random() < 0.5),
    "text": ("str", text),
    "word": ("str", word),
    "char": ("str", characters(string.ascii_lowercase, 1, 1)),
    "digits": ("str", characters(string.digits)),
    "binary": ("str", characters("01")),
    "brackets": ("str", brackets),
    "date": ("str", date),
    "clock": ("str", clock),
    "ints": ("list[int]", listed(whole)),
    "ints1": ("list[int]", listed(whole, 1)),
    "nats": ("list[int]", listed(natural)),
    "sorted": ("list[int]", made("ints", sorted)),
    "floats": ("list[float]", listed(decimal)),
    "floats1": ("list[float]", listed(decimal, 1)),
    "bools": ("list[bool]", listed(lambda rng, constants=(): rng.random() < 0.5)),
    "words": ("list[str]", listed(word)),
    "words1": ("list[str]", listed(word, 1)),
    "chars": ("list[str]", listed(characters(string.ascii_letters + "0123456789 .,", 1, 1))),
    "texts": ("list[str]", listed(text)),
    "missing": ("list", some_missing),  # numbers, some of them None
    "tuple": ("tuple[int, ...]", made("ints1", tuple)),
    "set": ("set[int]", made("ints", set)),
    "word_set": ("set[str]", made("words", set)),
    "pair": ("tuple[int, int]", lambda rng, constants=(): (whole(rng), whole(rng))),
    "pairs": ("list[tuple[str, int]]", pairs),
    "points": ("list[tuple[int, int]]", points),
    "spans": ("list[tuple[int, int]]", spans),  # start and end
    "counts": ("dict[str, int]", counts),
    "counts1": ("dict[str, int]", counts1),
    "groups": ("dict[str, list[int]]", groups),
    "translations": ("dict[str, str]", translations),
    "records": ("list[dict]", records),  # of name, age and city
    "matrix": ("list[list[int]]", matrix),
    "square": ("list[list[int]]", square),  # as many rows as columns
    "nested": ("list", nested),
    "any": ("object", None),  # only for results
}
# Kinds of further arguments, which depend on the first one.
RELATED = ("member", "index", "size", "same")


def draw(rng, operation, constants=()):
    """Arguments for an operation, a value for each of its parameters."""
    arguments = []
    for name, kind in operation.parameters.items():
        first = arguments[0] if arguments else None
        arguments.append(draw_one(rng, kind, operation.values.get(name), constants, first, operation))
    return arguments


def draw_one(rng, kind, values, constants, first, operation):
    """A value of one parameter; first is that of the first parameter."""
    if values:
        return rng.choice(values)
    if isinstance(kind, tuple):
        return whole(rng, constants, *kind)
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
TYPES = {"int": int, "float": int | float, "bool": bool, "str": str, "list": list, "tuple": tuple, "set": set, "dict": dict}


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
