"""Six families of programs, each a random chain or arrangement of the operations in exercises/operations.py.

A family is a function from a random generator to a Draft. Lists, strings, dicts and numbers are pipelines: steps and an
end. Recursion and states are fixed shapes with places for operations. For example, lists(random.Random(6994)) chooses
to call the values sizes, and one of them size; then it draws and makes:

    row        above | greater than {k} | above {k} | larger than {k} | {x} > {k}       of operations.CONDITIONS
    Operation  name "above", phrase "above 4", code "size > 4": {k} is 4 in both, {x} is size
    Operation  name "keep_above", phrase "keep the sizes that are above 4"; its code comes from KEEP:
               "{n} = [size for size in {v} if size > 4]", where {v} holds what there is so far and {n} takes the result
    row        sum | return the sum | return the total | sum({v})                       of operations.LIST_ENDS
    Draft      operations ["keep_above", "sum"], summary "Keep the sizes that are above 4, and return the total.", and
               two bodies that do the same, a plain one and one with loops and a new name for every result:

                   sizes = [size for size in sizes if size > 4]           found = []
                   return sum(sizes)                                      for size in sizes:
                                                                              if size > 4:
                                                                                  found.append(size)
                                                                          return sum(found)
"""

from dataclasses import dataclass, field

from exercises import operations


@dataclass
class Draft:
    """A program before it has a name: FUNCTION stands for its own name in the bodies."""

    operations: list[str]  # their names
    argument: str  # its name
    # number, small (0-40), ints, nested (lists in a list), table (a dict), text, or marked (words joined by # or *);
    # views.random_input makes an argument of each kind
    kind: str
    summary: str  # what the function does, in words
    bodies: list[str]  # of functions that do the same, the plainest first
    constants: list[int]  # numbers in the program
    stages: list[str] = field(default_factory=list)  # bodies that return what there is after each step
    dropped: list[str] = field(default_factory=list)  # bodies that lack one of the steps


@dataclass
class Operation:
    """An operation in words and in code, in which constants and names stand for all slots but {v} and {n}."""

    name: str  # as it stands in the composition: "above", or "above and odd"
    phrase: str  # "above 7"
    code: str  # an expression, "price > 7", or statements that set {n}
    loop: str = ""  # the same statements written as a loop, for those that have both


class Drawer:
    """Draws operations, fills the same constants into their words and their code, and keeps a list of the constants."""

    def __init__(self, rng):
        self.rng, self.constants = rng, []

    def draw(self, table, used=None, **words):
        """The Operation of a random row of a table. used: names of rows that are not drawn, a set to which the drawn
        one's name is added; words: what to fill into the slots that are not for constants."""
        used = set() if used is None else used
        name, phrases, code = self.rng.choice([row for row in table if row[0] not in used])
        used.add(name)
        k = self.rng.randint(2, 9) if self.rng.random() < 0.6 else self.rng.randint(10, 40)
        c, d = self.rng.sample("aeorstlnid", 2)
        s, separator = self.rng.choice(operations.SEPARATORS)
        values = dict(k=k, m=self.rng.randint(2, 5), c=c, d=d, s=s, separator=separator) | words
        phrase = self.rng.choice(phrases)
        for slot in ("k", "m"):
            if "{" + slot + "}" in phrase + code:
                self.constants.append(values[slot])
        return Operation(name, fill(phrase, **values), fill(code, **values))

    def condition(self, x, used=None):
        """A row of CONDITIONS about x, or, in a quarter of the cases, two of them joined by "and" or "or"."""
        used = set() if used is None else used
        first = self.draw(operations.CONDITIONS, used, x=x)
        if self.rng.random() < 0.75:
            return first
        second = self.draw(operations.CONDITIONS, used, x=x)
        joint = f" {self.rng.choice(('and', 'or'))} "
        name, phrase = first.name + joint + second.name, first.phrase + joint + second.phrase
        return Operation(name, phrase, first.code + joint + second.code)

    def change(self, one, used):
        """A row of CHANGES that is done to each value of a list; one is what a value is called."""
        return self.draw(operations.CHANGES, used, x=one, o=self.rng.choice((f"each {one}", f"every {one}")))


def fill(template, **values):
    """template with {key} replaced for the keys given; other braces stay, for a later filling or for Python."""
    for key, value in values.items():
        template = template.replace("{" + key + "}", str(value))
    return template


def indented(lines):
    """The text of a function's body."""
    return "".join(f"    {line}\n" for line in lines)


def capital(text):
    """text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def say(rng, phrases, opening=""):
    """One text that says all phrases in their order, in one of four manners: joined by "then", as sentences, as
    "First ...; finally ...", as a numbered list. opening comes before it."""
    manner = rng.randrange(4)
    if manner == 0:
        text = ", then ".join(phrases[:-1]) + (", and " if phrases[1:] else "") + phrases[-1]
        return opening + capital(text) + "."
    if manner == 1:
        return opening + " ".join(capital(phrase) + "." for phrase in phrases)
    if manner == 2:
        return opening + "First " + "; then ".join(phrases[:-1]) + "; finally " + phrases[-1] + "."
    return opening + "\n".join(f"{i}. {capital(phrase)}" for i, phrase in enumerate(phrases, 1))


# -- pipelines: lists, strings, dicts and numbers are chains of steps and an end


# How a list or a dict is filtered or changed, value by value: in one line, and as a loop. {code} is a test or a change.
KEEP = "{n} = [{x} for {x} in {v} if {code}]", "{n} = []\nfor {x} in {v}:\n    if {code}:\n        {n}.append({x})"
CHANGE = "{n} = [{code} for {x} in {v}]", "{n} = []\nfor {x} in {v}:\n    {n}.append({code})"
KEEP_ENTRY = (
    "{n} = {name: {x} for name, {x} in {v}.items() if {code}}",
    "{n} = {}\nfor name, {x} in {v}.items():\n    if {code}:\n        {n}[name] = {x}",
)
CHANGE_ENTRY = (
    "{n} = {name: {code} for name, {x} in {v}.items()}",
    "{n} = {}\nfor name, {x} in {v}.items():\n    {n}[name] = {code}",
)


def shaped(shape, operation, x):
    """The step that applies an operation to each value, called x, in one of these four shapes."""
    code, loop = [fill(template, x=x, code=operation.code) for template in shape]
    return Operation(operation.name, operation.phrase, code, loop)


def pipeline(rng, drawer, argument, kind, steps, end, opening=""):
    """The Draft of a chain of Operations. end: one whose code is returned; opening: said before the first step."""
    names = rng.sample(["kept", "chosen", "changed", "found", "output", "rows"], 6)
    parts = [*steps, end]
    summary = say(rng, [part.phrase for part in parts], opening)
    body = chained(argument, steps, end.code)
    stages = [chained(argument, steps[: i + 1], "{v}") for i in range(len(steps))] + [body]
    dropped = [chained(argument, steps[:i] + steps[i + 1 :], end.code) for i in range(len(steps))]
    bodies = [body, chained(argument, steps, end.code, names)]
    composition = [part.name for part in parts]
    return Draft(composition, argument, kind, summary, bodies, drawer.constants, stages, dropped)


def chained(argument, steps, end, names=None):
    """The body of a function that sends its argument through steps and returns end, an expression of {v}.

    Without names each result overwrites the argument; with them each gets a name of its own, and steps become loops.
    """
    so_far, lines = argument, []
    for i, step in enumerate(steps):
        result = names[i] if names else argument
        code = step.loop if names and step.loop else step.code
        code = code if "{n}" in code else "{n} = " + code
        lines += fill(code, v=so_far, n=result).split("\n")
        so_far = result
    return indented([*lines, "return " + fill(end, v=so_far)])


N_STEPS = (1, 2, 2, 3, 3, 4, 5)  # how many steps a list or dict program has is drawn from these: mostly 2 or 3


def list_steps(rng, drawer, one, many, count):
    """count steps from list to list, no operation twice. one, many: what a value and what the values are called."""
    steps, used = [], set()
    while len(steps) < count:
        kind = rng.choice(("keep", "drop", "change", "whole"))
        if kind == "whole":
            steps.append(drawer.draw(operations.LIST_STEPS, used, x=one, vs=many))
        elif kind == "change":
            steps.append(shaped(CHANGE, drawer.change(one, used), one))
        else:
            drawn = drawer.condition(one, used)
            said, code = ("keep the {vs} that are {p}", "keep only {vs} that are {p}"), drawn.code
            if kind == "drop":
                said = ("remove the {vs} that are {p}", "drop all {vs} that are {p}")
                is_joint = " " in drawn.name
                code = f"not ({code})" if is_joint else f"not {code}"
            phrase = fill(rng.choice(said), vs=many, p=drawn.phrase)
            steps.append(shaped(KEEP, Operation(f"{kind}_{drawn.name}", phrase, code), one))
    return steps


def lists(rng):
    """A list of numbers, called prices or the like, goes through steps."""
    many = rng.choice(operations.PLURALS)
    one, drawer = many[:-1], Drawer(rng)
    steps = list_steps(rng, drawer, one, many, rng.choice(N_STEPS))
    return pipeline(rng, drawer, many, "ints", steps, drawer.draw(operations.LIST_ENDS, x=one, vs=many))


def strings(rng):
    """A text goes through steps, some of them perhaps after it is split into words."""
    drawer, text = Drawer(rng), rng.choice(operations.TEXTS)
    n_text, n_word = rng.choice(((1, 0), (2, 0), (3, 0), (4, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (2, 2)))
    used = set()
    steps = [drawer.draw(operations.TEXT_STEPS, used) for _ in range(n_text)]
    if n_word:
        steps.append(Operation("split", rng.choice(("split it into words", "take its words")), "{v}.split()"))
        steps += [drawer.draw(operations.WORD_STEPS, used) for _ in range(n_word)]
    end = drawer.draw(operations.WORD_ENDS if n_word else operations.TEXT_ENDS)
    return pipeline(rng, drawer, text, "text", steps, end)


def dicts(rng):
    """A dict from names to numbers goes through steps."""
    many, table = rng.choice(operations.PLURALS), rng.choice(operations.TABLES)
    one, drawer, used, steps = many[:-1], Drawer(rng), set(), []
    for kind in rng.sample(("keep", "change") * 3 + ("names",) * 2, rng.choice(N_STEPS)):
        if kind == "keep":
            drawn = drawer.condition(one, used)
            said = rng.choice(("keep the entries whose {x} is {p}", "keep only entries where the {x} is {p}"))
            drawn.phrase = fill(said, x=one, p=drawn.phrase)
            steps.append(shaped(KEEP_ENTRY, drawn, one))
        elif kind == "change":
            steps.append(shaped(CHANGE_ENTRY, drawer.change(one, used), one))
        else:
            steps.append(shaped(KEEP_ENTRY, drawer.draw(operations.TABLE_STEPS, used), one))
    opening = rng.choice((f"The {table} maps names to {many}.\n", f"{capital(table)}: a dict from name to {one}.\n"))
    return pipeline(rng, drawer, table, "table", steps, drawer.draw(operations.TABLE_ENDS, x=one, vs=many), opening)


def numbers(rng):
    """A number goes through steps, or a list of those up to it does."""
    argument, drawer = rng.choice(operations.NUMBERS), Drawer(rng)
    if rng.random() < 0.3:
        return counted(rng, drawer, argument)
    used, steps = set(), []
    for _ in range(rng.choice((1, 2, 3, 3, 4))):
        kind = rng.choice(("change", "change", "digits", "if"))
        table = operations.DIGIT_STEPS if kind == "digits" else operations.CHANGES
        drawn = drawer.draw(table, used, x="{v}", o="it")
        if kind == "if":
            test = drawer.condition("{v}")
            other = drawer.draw(operations.CHANGES, used, x="{v}", o="it")
            phrase = f"if it is {test.phrase}, {drawn.phrase}, otherwise {other.phrase}"
            code = f"if {test.code}:\n    {{n}} = {drawn.code}\nelse:\n    {{n}} = {other.code}"
            drawn = Operation(f"{test.name}?{drawn.name}:{other.name}", phrase, code)
        steps.append(drawn)
    if rng.random() < 0.3:
        test = drawer.condition("{v}")
        end = Operation(test.name, f"return whether it is {test.phrase}", test.code)
    else:
        end = Operation("it", rng.choice(("return it", "return the result")), "{v}")
    opening = f"Begin with the {argument}.\n" if rng.random() < 0.5 else ""
    return pipeline(rng, drawer, argument, "number", steps, end, opening)


def counted(rng, drawer, argument):
    """A list of every second, third ... or sixth number up to the argument goes through steps."""
    first, step = rng.randint(1, 9), rng.randint(2, 6)
    drawer.constants += [first, step]
    said = rng.choice(("count", "take every whole number")) + f" from {first} to {argument} in steps of {step}"
    opening = Operation("range", said, f"list(range({first}, {{v}} + 1, {step}))")
    steps = list_steps(rng, drawer, "value", "values", rng.choice((1, 2, 3)))
    end = drawer.draw(operations.LIST_ENDS, x="value", vs="values")
    return pipeline(rng, drawer, argument, "small", [opening, *steps], end)


# -- recursion and states: one shape each, with places for operations


def recursion(rng):
    """A function that calls itself on the rest of a list, on the other digits of a number, or on lists within lists."""
    drawer, carrier = Drawer(rng), rng.choice(("list", "digits", "nested"))
    many = rng.choice(operations.PLURALS)
    one = "digit" if carrier == "digits" else many[:-1]
    argument = rng.choice(operations.NUMBERS) if carrier == "digits" else many
    test = drawer.condition(one)
    change = Operation("same", "", one) if rng.random() < 0.3 else drawer.draw(operations.CHANGES, x=one, o="each")
    usable = ("sum", "collect", "product") if carrier == "nested" else operations.EMPTY_FOLDS
    fold = drawer.draw([row for row in operations.FOLDS if row[0] in usable], here=change.code)
    empty = operations.EMPTY_FOLDS[fold.name]
    if carrier == "nested":
        kind, things = "nested", f"the {many}, which may be nested lists,"
        operator = "*=" if fold.name == "product" else "+="
        value = f"[{change.code}]" if fold.name == "collect" else change.code
        lines = [f"result = {empty}", f"for {one} in {many}:"]
        lines += [f"    if isinstance({one}, list):", f"        result {operator} FUNCTION({one})"]
        lines += [f"    elif {test.code}:", f"        result {operator} {value}", "return result"]
    else:
        if carrier == "list":
            kind, things, none_left = "ints", f"the {many}", f"{many} == []"
            split = [f"rest = FUNCTION({many}[1:])", f"{one} = {many}[0]"]
        else:
            kind, things, none_left = "number", f"the digits of the {argument}", f"{argument} == 0"
            split = [f"rest = FUNCTION({argument} // 10)", f"digit = {argument} % 10"]
        lines = [f"if {none_left}:", f"    return {empty}", *split]
        lines += [f"if {test.code}:", f"    return {fold.code}", "return rest"]
    phrases = [f"take those of {things} that are {test.phrase}", change.phrase, f"return {fold.phrase}"]
    opening = rng.choice(("Use recursion.\n", "Without a loop over everything: recursion.\n", "Recursively: "))
    summary = say(rng, [phrase for phrase in phrases if phrase], opening)
    names = [carrier, test.name, change.name, fold.name]
    return Draft(names, argument, kind, summary, [indented(lines)], drawer.constants)


def states(rng):
    """A loop that carries a state from one value to the next: a switch in a fifth of the cases, else a counter."""
    return switch(rng) if rng.random() < 0.2 else counter(rng)


def counter(rng):
    """A number that every value of a list moves one way or the other."""
    state, many = rng.choice(operations.STATES), rng.choice(operations.PLURALS)
    one, drawer = many[:-1], Drawer(rng)
    start = rng.randint(0, 9)
    stop = drawer.condition(one) if rng.random() < 0.4 else None
    test = drawer.condition(one, {stop.name} if stop else None)
    used = set()
    first = drawer.draw(operations.UPDATES, used, x=one, state=state)
    second = drawer.draw(operations.UPDATES, used, x=one, state=state)
    history = f"the list of all {state} values after each {one}"
    endings = {  # name: a line before the loop, one at the end of its body, what is returned, and that in words
        "last": ("", "", state, f"the {state}"),
        "highest": (f"best = {state}", f"    best = max(best, {state})", "best", f"the highest {state} reached"),
        "lowest": (f"worst = {state}", f"    worst = min(worst, {state})", "worst", f"the lowest {state} reached"),
        "history": ("history = []", f"    history.append({state})", "history", history),
    }
    ending = rng.choice(list(endings))
    before, after, returned, said = endings[ending]
    names = ["counter", test.name, first.name, second.name, ending]
    phrases = [f"start with a {state} of {start}", f"for each {one} that is {test.phrase}, {first.phrase}"]
    phrases += [f"for any other {one}, {second.phrase}", f"return {said}"]
    lines = [f"    if {test.code}:", f"        {first.code}", "    else:", f"        {second.code}"]
    if stop:
        names.insert(1, stop.name)
        phrases.insert(1, f"stop at the first {one} that is {stop.phrase}")
        lines = [f"    if {stop.code}:", "        break", *lines]
    lines = [f"{state} = {start}", before, f"for {one} in {many}:", *lines, after, f"return {returned}"]
    body = indented(line for line in lines if line)
    return Draft(names, many, "ints", say(rng, phrases), [body], drawer.constants)


def switch(rng):
    """A switch that a character flips; what becomes of the other characters depends on it."""
    text, drawer, used = rng.choice(operations.TEXTS), Drawer(rng), set()
    char, on = rng.choice("#*aeo"), rng.choice(("on", "off"))
    first = drawer.draw(operations.COPIES, used, n="result")
    second = drawer.draw(operations.COPIES, used, n="result")
    phrases = [f"start switched {on}", f'each "{char}" flips the switch and is left out']
    phrases += [f"while on, {first.phrase}", f"while off, {second.phrase}", "return the result"]
    lines = [f"on = {on == 'on'}", 'result = ""', f"for char in {text}:", f'    if char == "{char}":']
    lines += ["        on = not on", "    elif on:", f"        {first.code}", "    else:", f"        {second.code}"]
    body = indented([*lines, "return result"])
    kind, names = "marked" if char in "#*" else "text", ["switch", on, first.name, second.name]
    return Draft(names, text, kind, say(rng, phrases), [body], drawer.constants)


FAMILIES = {family.__name__: family for family in (lists, strings, dicts, numbers, recursion, states)}
