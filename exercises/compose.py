"""Operations put together. A Draft is a function in the making: what it returns, in words and in code, with
placeholders for everything that gets a name later. Each operation that takes part has a number of its own, and its
names carry it:

    sum(xs) of even(xs)      words   the sum of the even numbers of {xs_1}
                             code    found_0 = [x_1 for x_1 in xs_1 if x_1 % 2 == 0]
                                     return sum(found_0)

Ways to put operations together: one alone; one with a condition or with a change of every element; one on the result of
another, said as nested nouns or as steps; one or the other, as a condition decides.
"""

import functools
import re
from dataclasses import dataclass

from exercises import wording
from exercises.code import expression, indented, inlined, joined_bodies, local_names, renamed

SLOT = re.compile(r"{(\w+)([?!]?)}")
# What a kind of argument accepts besides its own kind.
ACCEPTED = {
    "int": {"nat", "pos", "small"},
    "nat": {"pos", "small"},
    "ints": {"ints1", "nats", "sorted"},
    "ints1": {"ints", "nats", "sorted"},
    "floats": {"floats1", "ints1", "nats"},
    "floats1": {"floats", "ints1", "nats"},
    "float": {"int", "nat", "pos", "small"},
    "words": {"words1"},
    "words1": {"words"},
    "counts": {"counts1"},
    "counts1": {"counts"},
    "matrix": {"square"},
    "text": {"word"},
}
ITEMS = {  # what a kind holds
    "int": ("ints", "ints1", "nats", "sorted", "tuple", "set"),
    "word": ("words", "words1", "word_set"),
    "char": ("text", "word"),
    "float": ("floats", "floats1"),
}
ITEM_OF = {kind: item for item, kinds in ITEMS.items() for kind in kinds}
LISTS = {
    "int": "ints",
    "nat": "nats",
    "pos": "nats",
    "small": "nats",
    "float": "floats",
    "word": "words",
    "text": "texts",
}
LISTS |= {"bool": "bools", "char": "chars"}
RARE = 0.08  # how often an operation of operations/rare is drawn, beside one of operations
SCALARS = ("int", "nat", "pos", "float", "char", "word")


@dataclass
class Draft:
    """A function without names."""

    parts: list[str]  # the names of its operations, the outermost first
    parameters: dict[str, object]  # placeholder: kind
    values: dict[str, list]  # placeholder: values to choose from
    result: str
    mark: str  # of the phrase
    phrase: str  # with slots {xs_1}
    bodies: list[str]  # the plainest first
    inner: object = None  # the Draft whose result the outer operation works on

    @property
    def first(self):
        """The placeholder of the first parameter."""
        return next(iter(self.parameters))


class Maker:
    """Draws Drafts from operations; what is held out is drawn only when it is asked for."""

    def __init__(self, operations, conditions, held_out):
        """conditions: {kind of an item: operations}; held_out: whether phrases are those that training never sees."""
        self.held_out = held_out
        self.operations = [o for o in operations if not is_higher(o)]
        self.higher = [o for o in operations if is_higher(o)]
        self.changes = [o for o in self.operations if o.result in LISTS and not o.values and has_scalars(o)]
        self.conditions = {item: list(filter(self.phrases_of, found)) for item, found in conditions.items()}

    def phrases_of(self, operation):
        """The phrases of an operation that this Maker uses."""
        return wording.phrases_of(operation, self.held_out)

    @functools.cache
    def fitting(self, kind, higher):
        """The operations, or those with a condition or a change, that work on a result of this kind."""
        pool = self.higher if higher else self.operations
        return [o for o in pool if accepts(first_kind(o), kind) and not o.values]

    @functools.cache
    def alike(self, kind, result):
        """The operations from one kind to another."""
        return [o for o in self.operations if first_kind(o) == kind and o.result == result and not o.values]

    @functools.cache
    def changes_of(self, item, kind):
        """The operations on single items, that give numbers if kind is "number"."""
        return [o for o in self.changes if accepts(first_kind(o), item) and (kind == "change" or numeric(o.result))]

    def draft(self, rng):
        """A Draft of any form."""
        form = rng.random()
        if form < 0.60:
            return self.single(rng, self.any_operation(rng), 0)
        if form < 0.78:
            return self.with_higher(rng, rng.choice(self.higher), 0)
        if form < 0.82:
            return self.choice(rng)
        made = self.any_step(rng, 0)
        for number in (1, 2) if form > 0.97 else (1,):
            made = self.applied(rng, made, number)
        return made

    def any_operation(self, rng):
        """An operation without a condition."""
        return drawn_by_weight(rng, self.operations)

    def any_step(self, rng, number):
        """One operation, with a condition or change in a third of the cases."""
        if rng.random() < 0.3:
            return self.with_higher(rng, rng.choice(self.higher), number)
        return self.single(rng, self.any_operation(rng), number)

    def single(self, rng, operation, number, mark=None):
        """An operation by itself; mark: that its phrase must have. None if it has no such phrase."""
        phrases = [phrase for phrase in self.phrases_of(operation) if mark is None or phrase[0] == mark]
        if not phrases:
            return None
        mark, phrase = rng.choice(phrases)
        numbered = {name: f"{name}_{number}" for name in [*operation.parameters, *local_names(tuple(operation.bodies))]}
        numbered[operation.name] = f"self_{number}"  # of a function that calls itself
        parameters = {numbered[name]: kind for name, kind in operation.parameters.items()}
        values = {numbered[name]: choices for name, choices in operation.values.items()}
        bodies = [renamed(body, numbered) for body in operation.bodies]
        phrase = SLOT.sub(lambda slot: f"{{{numbered.get(slot[1], slot[1])}{slot[2]}}}", phrase)
        return Draft([operation.name], parameters, values, operation.result, mark, phrase, bodies)

    def with_higher(self, rng, operation, number):
        """An operation that asks every element for a condition, or changes it."""
        made = self.single(rng, operation, number)
        if made is None:
            return None
        name, kind = next((n, k) for n, k in made.parameters.items() if k in ("condition", "change", "number"))
        del made.parameters[name]
        item = ITEM_OF[made.parameters[made.first]]
        if kind == "condition":
            asked = self.single(rng, rng.choice(self.conditions[item]), number + 5)
            if asked is None:
                return None
            made.phrase = with_condition(rng, made.phrase, asked)
        else:
            fit = self.changes_of(item, kind)
            mark = "!" if f"{{{name}!}}" in made.phrase else ""
            asked = self.single(rng, drawn_by_weight(rng, fit), number + 5, mark)
            if asked is None:
                return None
            every = rng.choice(["each {e1} of ", "every {e1} in ", "each {e1} in ", "every {e1} of "])
            said = asked.phrase.replace(f"{{{asked.first}}}", every + f"{{{made.first}}}")
            made.phrase = re.sub(r"{" + name + r"!?}", lambda _: said, made.phrase)
            if made.result == "list":
                made.result = LISTS[asked.result]
            elif made.result == "int" and asked.result == "float":
                made.result = "float"
        made.parameters |= {key: kind for key, kind in asked.parameters.items() if key != asked.first}
        made.values |= asked.values
        made.bodies = [inlined(body, name, asked) for body in made.bodies]
        made.parts += asked.parts
        return made

    def applied(self, rng, inner, number):
        """Another operation on the result of a Draft. None where none fits."""
        if not without_recursion(inner) or inner.mark == "?":
            return None
        result = resolved(inner)
        fit = self.fitting(result, rng.random() < 0.3)
        if not fit:
            return None
        operation = drawn_by_weight(rng, fit)
        outer = (self.with_higher if is_higher(operation) else self.single)(rng, operation, number)
        if not without_recursion(outer):
            return None
        kind = outer.parameters[outer.first]
        alike = ITEM_OF.get(kind) == ITEM_OF.get(inner.parameters[inner.first]) is not None
        instead = {"member": ITEM_OF.get(kind), "index": (0, 2), "size": (1, 3), "same": kind}
        parameters = dict(inner.parameters)
        for key, wanted in outer.parameters.items():  # what belongs to the first argument has none of its kind now
            if key != outer.first:
                parameters[key] = wanted if alike or wanted not in instead else instead[wanted]
        if None in parameters.values():
            return None
        mark, phrase = joined_phrases(rng, outer, inner)
        bodies = joined_bodies(rng, outer, inner, number)
        result = result if outer.result == "same" else outer.result
        return Draft(
            outer.parts + inner.parts, parameters, inner.values | outer.values, result, mark, phrase, bodies, inner
        )

    def choice(self, rng):
        """One operation or another, as a condition on the first argument decides."""
        first = self.single(rng, self.any_operation(rng), 0, "")
        if first is None or first.values:
            return None
        kind = first.parameters[first.first]
        if kind not in self.conditions:
            return None
        fit = self.alike(kind, first.result)
        second = self.single(rng, drawn_by_weight(rng, fit), 1, "")
        if not without_recursion(first) or not without_recursion(second) or second.parts == first.parts:
            return None
        asked = self.single(rng, rng.choice(self.conditions[kind]), 5)
        if asked is None:
            return None
        subject = f"{{{first.first}}}"
        clause = f"{subject} {predicate(asked)}".replace(f"{{{asked.first}}}", subject)
        other = second.phrase.replace(f"{{{second.first}}}", subject)
        mark, form = rng.choice(CHOICES)
        phrase = form.replace("CLAUSE", clause).replace("FIRST", first.phrase).replace("SECOND", other)
        test = expression(asked.bodies[0])
        if test is None:
            return None
        bodies = []
        for one, two in zip(first.bodies, second.bodies):
            code = f"if {renamed(test, {asked.first: first.first})}:\n{indented(one)}\n"
            bodies.append(code + renamed(two, {second.first: first.first}))
        parameters = dict(first.parameters)
        for made in (second, asked):
            parameters |= {key: kind for key, kind in made.parameters.items() if key != made.first}
        parts = ["if", *asked.parts, *first.parts, *second.parts]
        return Draft(parts, parameters, asked.values, first.result, mark, phrase, bodies)


def without_recursion(draft):
    """Keep the bodies that do not call themselves, which would call the whole of what is put together; whether any is
    left."""
    if draft is not None:
        draft.bodies = [body for body in draft.bodies if "self_" not in body]
    return draft is not None and bool(draft.bodies)


CHOICES = [
    ("", "FIRST if CLAUSE, otherwise SECOND"),
    ("", "FIRST if CLAUSE, else SECOND"),
    ("", "FIRST when CLAUSE, and SECOND when not"),
    ("!", "return FIRST if CLAUSE, and SECOND otherwise"),
    ("!", "if CLAUSE, return FIRST; otherwise, return SECOND"),
    ("!", "check whether CLAUSE: if so, give back FIRST, if not, SECOND"),
]


def drawn_by_weight(rng, operations):
    """One of the operations; a rare one is kept in RARE of the cases only."""
    while True:
        operation = rng.choice(operations)
        if not operation.is_rare or rng.random() < RARE:
            return operation


def is_higher(operation):
    """Whether one of its parameters is a condition or a change of what the first one holds."""
    return any(kind in ("condition", "change", "number") for kind in operation.parameters.values())


def has_scalars(operation):
    """Whether all of its arguments are scalars."""
    return all(isinstance(kind, tuple) or kind in SCALARS for kind in operation.parameters.values())


def accepts(kind, result):
    """Whether an argument of a kind can be a result of another."""
    return kind == result or result in ACCEPTED.get(kind, ()) if isinstance(kind, str) else False


def first_kind(operation):
    """The kind of its first parameter."""
    return next(iter(operation.parameters.values()))


def numeric(kind):
    """Whether values of a kind can be added up."""
    return kind in ("int", "nat", "pos", "small", "float")


def resolved(draft):
    """The kind of the result, where it is that of the first argument."""
    return draft.parameters[draft.first] if draft.result == "same" else draft.result


# -- words


def predicate(asked, plural=False):
    """A condition after its subject: is even, are even, contains "a", contain "a"."""
    if asked.mark == "~":
        many, one = asked.phrase.split(" / ")
        return many if plural else one
    return f"{'are' if plural else 'is'} {asked.phrase}"


def with_condition(rng, phrase, asked):
    """A phrase whose slots {e?}, {e1?}, {are?} and {is?} say a condition: "even numbers", "numbers above 7"."""
    that = rng.choice(["that", "which"]) if asked.mark == "~" or rng.random() < 0.5 else ""

    def said(slot):
        """What stands in one slot."""
        if slot[1] in ("are", "is"):
            return predicate(asked, slot[1] == "are")
        element = f"{{{slot[1]}}}"
        if asked.mark == "*":
            return f"{asked.phrase} {element}"
        if that:
            return f"{element} {that} {predicate(asked, slot[1] == 'e')}"
        return f"{element} {asked.phrase}"

    return re.sub(r"{(e|e1|are|is)\?}", said, phrase)


def joined_phrases(rng, outer, inner):
    """(mark, phrase) of one operation on the result of another: nouns inside of each other, or steps."""
    slot, phrase = f"{{{outer.first}}}", outer.phrase
    if ITEM_OF.get(outer.parameters[outer.first]) != ITEM_OF.get(inner.parameters[inner.first]):
        phrase = phrase.replace("{e}", "{values}").replace("{e1}", "{value}")
    if inner.mark == "":
        return outer.mark, phrase.replace(slot, inner.phrase)
    is_list = ITEM_OF.get(outer.parameters[outer.first]) in ("int", "word", "float")
    said = rng.choice(
        ["the result", "the result", "the resulting list", "the new list"] if is_list else ["the result", "it"]
    )
    if outer.mark == "?":
        last = f"return whether {phrase.replace(slot, said)}"
    else:
        last = ("return " if outer.mark == "" else "") + phrase.replace(slot, said)
    return "!", inner.phrase + rng.choice([", then ", " and ", ", and then ", ", and ", " and then "]) + last
