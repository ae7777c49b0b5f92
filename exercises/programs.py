"""Six families of programs, each a random chain or arrangement of the operations in corpus/operations.py.

Lists, strings, dicts and numbers are pipelines: steps and an end. Recursion and states are shapes with places for
operations. A family is a function from a random generator to a Draft.
"""

from dataclasses import dataclass, field

from exercises.operations import (
    CHANGES,
    CONDITIONS,
    COPIES,
    DIGIT_STEPS,
    FOLDS,
    LIST_ENDS,
    LIST_STEPS,
    NAMES,
    NUMBERS,
    PLURALS,
    SEPARATORS,
    STATES,
    TABLE_ENDS,
    TABLE_STEPS,
    TABLES,
    TEXT_ENDS,
    TEXT_STEPS,
    TEXTS,
    UPDATES,
    WORD_ENDS,
    WORD_STEPS,
    WORDS,
)  # fmt: skip


@dataclass
class Draft:
    """A program before it has a name: FUNCTION stands for its own name in the bodies."""

    operations: list[str]
    argument: str
    kind: str  # of the argument, for random_input
    summary: str
    styles: list[str]  # bodies
    constants: list[int]
    stages: list[str] = field(default_factory=list)  # bodies that return what there is after each step
    dropped: list[str] = field(default_factory=list)  # bodies without one of the steps


def fill(template, **values):
    """template with {key} replaced for the keys given; other braces stay, for a later filling or for Python."""
    for key, value in values.items():
        template = template.replace("{" + key + "}", str(value))
    return template


class Drawer:
    """Draws operations and fills the same constants into their words and their code."""

    def __init__(self, rng):
        self.rng, self.constants = rng, []

    def __call__(self, table, besides=(), **words):
        """(name, phrase, code, ...) of a random row whose name is not in besides."""
        name, phrases, *codes = self.rng.choice([row for row in table if row[0] not in besides])
        k = self.rng.randint(2, 9) if self.rng.random() < 0.6 else self.rng.randint(10, 40)
        c, d = self.rng.sample("aeorstlnid", 2)
        s, separator = self.rng.choice(SEPARATORS)
        values = dict(k=k, m=self.rng.randint(2, 5), c=c, d=d, s=s, separator=separator) | words
        parts = [self.rng.choice(phrases), *codes]
        self.constants += [values[key] for key in "km" if "{" + key + "}" in "".join(parts)]
        return name, *(fill(part, **values) for part in parts)

    def condition(self, x, besides=()):
        """A row of CONDITIONS, or, in a quarter of the cases, two of them joined by and, or."""
        first = self(CONDITIONS, besides, x=x)
        if self.rng.random() < 0.75:
            return first
        second, joint = self(CONDITIONS, [*besides, first[0]], x=x), self.rng.choice(("and", "or"))
        return tuple(f"{a} {joint} {b}" for a, b in zip(first, second))


# -- pipelines: lists, strings, dicts and numbers are chains of steps and an end


@dataclass
class Step:
    name: str
    phrase: str
    plain: str  # "{n} = ..." with {v}: one line
    loop: str = ""  # the same, written as a loop


def expression(row):
    """The step of a table's row: its code is one expression."""
    return Step(row[0], row[1], "{n} = " + row[2])


# how a list or a dict is filtered and changed: in one line, and as a loop
KEEP = (
    "{n} = [{x} for {x} in {v} if {if}]",
    "{n} = []\nfor {x} in {v}:\n    if {if}:\n        {n}.append({x})",
)
CHANGE = (
    "{n} = [{to} for {x} in {v}]",
    "{n} = []\nfor {x} in {v}:\n    {n}.append({to})",
)
KEEP_ENTRY = (
    "{n} = {name: {x} for name, {x} in {v}.items() if {if}}",
    "{n} = {}\nfor name, {x} in {v}.items():\n    if {if}:\n        {n}[name] = {x}",
)
CHANGE_ENTRY = (
    "{n} = {name: {to} for name, {x} in {v}.items()}",
    "{n} = {}\nfor name, {x} in {v}.items():\n    {n}[name] = {to}",
)


def shaped(shape, name, phrase, x, **code):
    """The step of one of these shapes, for values called x."""
    plain, loop = (fill(template, x=x, **code) for template in shape)
    return Step(name, phrase, plain, loop)


def pipeline(rng, draw, argument, kind, steps, end, opening=""):
    """The Draft of a chain; end is (name, phrase, expression of {v}); opening is said before the first step."""

    def body(style, steps=steps, end=end[2]):
        v, lines, fresh = argument, [], iter(names)
        for step in steps:
            n = argument if style == 0 else next(fresh)
            lines += fill(step.loop if style == 1 and step.loop else step.plain, v=v, n=n).split("\n")
            v = n
        return "".join(f"    {line}\n" for line in [*lines, "return " + fill(end, v=v)])

    names = rng.sample(["kept", "chosen", "changed", "found", "output", "rows"], 6)
    phrases = [step.phrase for step in steps] + [end[1]]
    return Draft(
        [step.name for step in steps] + [end[0]],
        argument,
        kind,
        say(rng, phrases, opening),
        [body(0), body(1)],
        draw.constants,
        [body(0, steps[:i], "{v}") for i in range(1, len(steps) + 1)] + [body(0)],
        [body(0, steps[:i] + steps[i + 1 :]) for i in range(len(steps))],
    )


def capital(text):
    return text[:1].upper() + text[1:]


def say(rng, phrases, opening=""):
    """One text of all phrases, in one of several manners."""
    manner = rng.randrange(4)
    if manner == 0:
        text = ", then ".join(phrases[:-1]) + (", and " if phrases[1:] else "") + phrases[-1]
        return opening + capital(text) + "."
    if manner == 1:
        return opening + " ".join(capital(phrase) + "." for phrase in phrases)
    if manner == 2:
        return opening + "First " + "; then ".join(phrases[:-1]) + "; finally " + phrases[-1] + "."
    return opening + "\n".join(f"{i}. {capital(phrase)}" for i, phrase in enumerate(phrases, 1))


def n_steps(rng):
    return rng.choice((1, 2, 2, 3, 3, 4, 5))


def list_steps(rng, draw, x, vs, count):
    """count steps from list to list, no operation twice."""
    steps, used = [], set()
    while len(steps) < count:
        kind = rng.choice(("keep", "drop", "change", "whole"))
        if kind == "whole":
            row = draw(LIST_STEPS, used, x=x, vs=vs)
            used.add(row[0])
            steps.append(expression(row))
        elif kind == "change":
            name, phrase, code = draw(CHANGES, used, x=x, o=rng.choice((f"each {x}", f"every {x}")))
            used |= set(name.split())
            steps.append(shaped(CHANGE, name, phrase, x, to=code))
        else:
            name, phrase, code = draw.condition(x, used)
            used |= set(name.split())
            if kind == "keep":
                said = rng.choice(("keep the {vs} that are {p}", "keep only {vs} that are {p}"))
            else:
                said, code = (
                    rng.choice(("remove the {vs} that are {p}", "drop all {vs} that are {p}")),
                    f"not ({code})" if " and " in code or " or " in code else f"not {code}",
                )
            steps.append(shaped(KEEP, kind + "_" + name, fill(said, vs=vs, p=phrase), x, **{"if": code}))
    return steps


def lists(rng):
    vs = rng.choice(PLURALS)
    x, draw = vs[:-1], Drawer(rng)
    steps = list_steps(rng, draw, x, vs, n_steps(rng))
    return pipeline(rng, draw, vs, "ints", steps, draw(LIST_ENDS, x=x, vs=vs))


def strings(rng):
    draw, text = Drawer(rng), rng.choice(TEXTS)
    n_text, n_word = rng.choice(((1, 0), (2, 0), (3, 0), (4, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (2, 2)))
    steps, used = [], set()
    for table, count in ((TEXT_STEPS, n_text), (WORD_STEPS, n_word)):
        if table is WORD_STEPS and n_word:
            steps.append(Step("split", rng.choice(("split it into words", "take its words")), "{n} = {v}.split()"))
        for _ in range(count):
            row = draw(table, used)
            used.add(row[0])
            steps.append(expression(row))
    return pipeline(rng, draw, text, "text", steps, draw(WORD_ENDS if n_word else TEXT_ENDS))


def dicts(rng):
    vs, table = rng.choice(PLURALS), rng.choice(TABLES)
    x, draw, used, steps = vs[:-1], Drawer(rng), set(), []
    for kind in rng.sample(("keep", "change") * 3 + ("names",) * 2, n_steps(rng)):
        if kind == "keep":
            name, phrase, code = draw.condition(x, used)
            said = rng.choice(("keep the entries whose {x} is {p}", "keep only entries where the {x} is {p}"))
            steps.append(shaped(KEEP_ENTRY, name, fill(said, x=x, p=phrase), x, **{"if": code}))
        elif kind == "change":
            name, phrase, code = draw(CHANGES, used, x=x, o=rng.choice((f"each {x}", f"every {x}")))
            steps.append(shaped(CHANGE_ENTRY, name, phrase, x, to=code))
        else:
            name, phrase, code = draw(TABLE_STEPS, used)
            steps.append(shaped(KEEP_ENTRY, name, phrase, x, **{"if": code}))
        used |= set(name.split())
    opening = rng.choice((f"The {table} maps names to {vs}.\n", f"{capital(table)}: a dict from name to {x}.\n"))
    return pipeline(rng, draw, table, "table", steps, draw(TABLE_ENDS, x=x, vs=vs), opening)


def numbers(rng):
    n, draw, used, steps = rng.choice(NUMBERS), Drawer(rng), set(), []
    if rng.random() < 0.3:  # a range and then a list
        first, step = rng.randint(1, 9), rng.randint(2, 6)
        draw.constants += [first, step]
        said = rng.choice(
            (
                f"count from {first} to {n} in steps of {step}",
                f"take every whole number from {first} to {n} in steps of {step}",
            )
        )
        opening = Step("range", said, f"{{n}} = list(range({first}, {{v}} + 1, {step}))")
        steps = list_steps(rng, draw, "value", "values", rng.choice((1, 2, 3)))
        return pipeline(rng, draw, n, "small", [opening, *steps], draw(LIST_ENDS, x="value", vs="values"))
    for _ in range(rng.choice((1, 2, 3, 3, 4))):
        kind = rng.choice(("change", "change", "digits", "if"))
        name, phrase, code = draw(DIGIT_STEPS if kind == "digits" else CHANGES, used, x="{v}", o="it")
        used |= set(name.split())
        if kind == "if":
            test, tested, condition = draw.condition("{v}")
            other, otherwise, alternative = draw(CHANGES, used, x="{v}", o="it")
            used.add(other)
            phrase = f"if it is {tested}, {phrase}, otherwise {otherwise}"
            name = f"{test}?{name}:{other}"
            loop = f"if {condition}:\n    {{n}} = {code}\nelse:\n    {{n}} = {alternative}"
            steps.append(Step(name, phrase, loop))
        else:
            steps.append(Step(name, phrase, "{n} = " + code))
    if rng.random() < 0.3:
        name, phrase, code = draw.condition("{v}")
        end = name, f"return whether it is {phrase}", code
    else:
        end = "it", rng.choice(("return it", "return the result")), "{v}"
    return pipeline(rng, draw, n, "number", steps, end, f"Begin with the {n}.\n" if rng.random() < 0.5 else "")


# -- recursion and states: one shape each, with places for operations


def recursion(rng):
    draw, carrier = Drawer(rng), rng.choice(("list", "digits", "nested"))
    vs = rng.choice(PLURALS)
    x = "digit" if carrier == "digits" else vs[:-1]
    argument = rng.choice(NUMBERS) if carrier == "digits" else vs
    things = {
        "list": f"the {vs}",
        "digits": f"the digits of the {argument}",
        "nested": f"the {vs}, which may be nested lists,",
    }
    test, tested, condition = draw.condition(x)
    change, changed, here = ("same", "", x) if rng.random() < 0.3 else draw(CHANGES, x=x, o="each")
    folds = [row for row in FOLDS if carrier != "nested" or row[0] in ("sum", "collect", "product")]
    fold, said, empty, combined = draw(folds, here=here)
    steps = [f"take those of {things[carrier]} that are {tested}", *([changed] if changed else []), f"return {said}"]
    heads = {
        "list": f"if {vs} == []:\n    return {empty}\nrest = FUNCTION({vs}[1:])\n{x} = {vs}[0]",
        "digits": f"if {argument} == 0:\n    return {empty}\nrest = FUNCTION({argument} // 10)\ndigit = {argument} % 10",
    }
    if carrier == "nested":
        operator = {"sum": "+=", "collect": "+=", "product": "*="}[fold]
        value = f"[{here}]" if fold == "collect" else here
        body = (
            f"result = {empty}\nfor {x} in {vs}:\n    if isinstance({x}, list):\n        result {operator} FUNCTION({x})\n"
            f"    elif {condition}:\n        result {operator} {value}\nreturn result"
        )
    else:
        body = f"{heads[carrier]}\nif {condition}:\n    return {combined}\nreturn rest"
    opening = rng.choice(("Use recursion.\n", "Without a loop over everything: recursion.\n", "Recursively: "))
    kind = {"list": "ints", "digits": "number", "nested": "nested"}[carrier]
    return single(draw, [carrier, test, change, fold], argument, kind, say(rng, steps, opening), body)


def states(rng):
    return switch(rng) if rng.random() < 0.2 else counter(rng)


def counter(rng):
    """A number that every value of a list moves one way or the other."""
    state, vs = rng.choice(STATES), rng.choice(PLURALS)
    x, draw = vs[:-1], Drawer(rng)
    start = rng.randint(0, 9)
    stop, stopped, ends = draw.condition(x) if rng.random() < 0.4 else ("", "", "")
    test, tested, condition = draw.condition(x, [stop])
    first, then, yes = draw(UPDATES, x=x, s=state)
    second, otherwise, no = draw(UPDATES, [first], x=x, s=state)
    result = rng.choice(("last", "highest", "lowest", "history"))
    phrases = [f"start with a {state} of {start}"] + [f"stop at the first {x} that is {stopped}"] * bool(stop)
    phrases += [f"for each {x} that is {tested}, {then}", f"for any other {x}, {otherwise}"]
    phrases += [{"last": f"return the {state}", "highest": f"return the highest {state} reached", "lowest": f"return the lowest {state} reached",
                 "history": f"return the list of all {state} values after each {x}"}[result]]  # fmt: skip
    before, after, value = {
        "last": ("", "", state),
        "highest": (f"best = {state}\n", f"    best = max(best, {state})\n", "best"),
        "lowest": (f"worst = {state}\n", f"    worst = min(worst, {state})\n", "worst"),
        "history": ("history = []\n", f"    history.append({state})\n", "history"),
    }[result]
    body = (
        f"{state} = {start}\n{before}for {x} in {vs}:\n"
        + (f"    if {ends}:\n        break\n" if stop else "")
        + f"    if {condition}:\n        {yes}\n    else:\n        {no}\n{after}return {value}"
    )
    return single(
        draw, ["counter", *([stop] if stop else []), test, first, second, result], vs, "ints", say(rng, phrases), body
    )


def switch(rng):
    """A switch that a character flips; what happens to the others depends on it."""
    text, draw = rng.choice(TEXTS), Drawer(rng)
    char, on = rng.choice("#*aeo"), rng.choice(("on", "off"))
    first, then, yes = draw(COPIES, n="result")
    second, otherwise, no = draw(COPIES, [first], n="result")
    phrases = [f"start switched {on}", f'each "{char}" flips the switch and is left out', f"while on, {then}", f"while off, {otherwise}", "return the result"]  # fmt: skip
    body = (
        f'on = {on == "on"}\nresult = ""\nfor char in {text}:\n    if char == "{char}":\n        on = not on\n'
        f"    elif on:\n        {yes}\n    else:\n        {no}\nreturn result"
    )
    return single(
        draw, ["switch", on, first, second], text, "marked" if char in "#*" else "text", say(rng, phrases), body
    )


def single(draw, operations, argument, kind, summary, body):
    return Draft(
        operations, argument, kind, summary, ["".join(f"    {line}\n" for line in body.split("\n"))], draw.constants
    )


FAMILIES = {f.__name__: f for f in (lists, strings, dicts, numbers, recursion, states)}


# -- arguments to try a function on


def number(rng, constants, top=20):
    """Often next to a constant of the program: that is where an error shows."""
    if constants and rng.random() < 0.4:
        return rng.choice(constants) + rng.randint(-1, 1)
    return rng.randint(-9, top) if rng.random() < 0.3 else rng.randint(0, top)


def random_input(rng, kind, constants, short):
    """An argument of a kind; short ones are for a docstring."""
    n = rng.randint(3, 4) if short else rng.choice((0, 1, 2, 4, 5, 6, 7))
    if kind == "number":
        return max(0, rng.randint(0, 400) if rng.random() < 0.6 else number(rng, constants))
    if kind == "small":
        return rng.randint(10, 25) if short else rng.randint(0, 40)
    if kind == "ints":
        return [number(rng, constants) for _ in range(n)]
    if kind == "nested":
        flat = [number(rng, constants) for _ in range(n)]
        return [[x, [y]] if i == 1 else [x] if i == 3 else x for i, (x, y) in enumerate(zip(flat, flat[::-1]))]
    if kind == "table":
        return {name: number(rng, constants) for name in rng.sample(NAMES, n)}
    words = [rng.choice(WORDS) for _ in range(rng.randint(2, 3) if short else n)]
    return rng.choice("#*").join(words) if kind == "marked" else " ".join(words)
