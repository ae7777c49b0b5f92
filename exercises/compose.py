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
from dataclasses import dataclass, field

from exercises import wording
from exercises.code import expression, indented, inlined, joined_bodies, local_names, renamed
from exercises.kinds import entry_of, first_kind, is_scalar, item_of
from exercises.tables import marked

HIGHER = ("condition", "change", "number")  # what a parameter of an operation in higher.txt can be


class Unfit(Exception):
    """What was drawn cannot be put together, or has no examples: something else is drawn."""


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
    stages: list = field(default_factory=list)  # of a chain: the Drafts of all its steps but the last, the first first
    test: str = ""  # of a choice: the condition that decides, as an expression

    @property
    def first(self):
        """The placeholder of the first parameter."""
        return next(iter(self.parameters))

    @property
    def item(self):
        """The kind of what the first argument holds, or None."""
        return item_of(first_kind(self))


class Maker:
    """Draws Drafts from operations; what is held out is drawn only when it is asked for."""

    def __init__(self, operations, conditions, held_out):
        """held_out: whether phrases are those that training never sees."""
        self.held_out, self.conditions = held_out, conditions
        known = operations + conditions if held_out else []
        self.not_said = {wording.core(*phrase) for o in known for phrase in wording.phrases_of(o)}
        self.operations = [o for o in operations if not is_higher(o)]
        self.higher = [o for o in operations if is_higher(o)]
        of_scalars = [o for o in self.operations if all(map(is_scalar, o.parameters.values()))]
        self.changes = [o for o in of_scalars if "list" in entry_of(o.result) and not o.values]

    def phrases_of(self, operation):
        """The phrases of an operation that are on the side of this Maker. One that is held out may be another
        operation's in training: "negative" of one kind of number and of another."""
        phrases = wording.phrases_of(operation, self.held_out)
        return [phrase for phrase in phrases if wording.core(*phrase) not in self.not_said]

    @functools.cache
    def asked_of(self, item):
        """The conditions on an item of this kind that this Maker has phrases for."""
        return [o for o in self.conditions if first_kind(o) == item and self.phrases_of(o)]

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
        fit = [o for o in self.changes if accepts(first_kind(o), item)]
        return fit if kind == "change" else [o for o in fit if entry_of(o.result)["hint"] in ("int", "float")]

    def draft(self, rng):
        """A Draft of any form. Raises Unfit."""
        form = rng.random()
        if form < 0.68:
            return self.single(rng, drawn_by_weight(rng, self.operations), 0)
        if form < 0.89:
            return self.with_higher(rng, drawn_by_weight(rng, self.higher), 0)
        if form < 0.92:
            return self.choice(rng)
        made = self.step(rng, drawn_by_weight(rng, self.higher if rng.random() < 0.3 else self.operations), 0)
        for number in (1, 2) if form > 0.99 else (1,):
            made = self.applied(rng, made, number)
        return made

    def step(self, rng, operation, number):
        """One operation, with its condition or change if it has one, as a part of something larger."""
        if is_higher(operation):
            return self.with_higher(rng, operation, number)
        return self.part(rng, operation, number)

    def single(self, rng, operation, number, mark=None):
        """An operation by itself; mark: that its phrase must have. Raises Unfit if it has no such phrase."""
        phrases = [phrase for phrase in self.phrases_of(operation) if mark is None or phrase[0] == mark]
        if not phrases:
            raise Unfit
        mark, phrase = rng.choice(phrases)
        numbered = {name: f"{name}_{number}" for name in [*operation.parameters, *local_names(tuple(operation.bodies))]}
        numbered[operation.name] = f"self_{number}"  # of a function that calls itself
        parameters = {numbered[name]: kind for name, kind in operation.parameters.items()}
        values = {numbered[name]: choices for name, choices in operation.values.items()}
        bodies = [renamed(body, numbered) for body in operation.bodies]
        phrase = re.sub(r"(?<={)\w+", lambda slot: numbered.get(slot[0], slot[0]), phrase)
        return Draft([operation.name], parameters, values, operation.result, mark, phrase, bodies)

    def part(self, rng, operation, number, mark=None):
        """The same as a part of something larger, in the ways that do not call themselves."""
        made = self.single(rng, operation, number, mark)
        made.bodies = without_recursion(made.bodies)
        return made

    def with_higher(self, rng, operation, number):
        """An operation that asks every element for a condition, or changes it."""
        made = self.part(rng, operation, number)
        name, kind = next((n, k) for n, k in made.parameters.items() if k in HIGHER)
        if kind == "condition":
            asked = self.part(rng, drawn_by_weight(rng, self.asked_of(made.item)), number + 5)
            made.phrase = with_condition(rng, made.phrase, asked)
        else:
            mark = "!" if f"{{{name}!}}" in made.phrase else ""
            asked = self.part(rng, drawn_by_weight(rng, self.changes_of(made.item, kind)), number + 5, mark)
            made.phrase = with_change(rng, made, name, asked)
            if made.result == "list":
                made.result = entry_of(asked.result)["list"]
            elif made.result == "int" and asked.result == "float":  # their sum or the largest of them
                made.result = "float"
        del made.parameters[name]
        made.parameters |= others(asked)
        made.values |= asked.values
        made.bodies = [inlined(body, name, asked) for body in made.bodies]
        made.parts += asked.parts
        return made

    def applied(self, rng, inner, number):
        """Another operation on the result of a Draft."""
        fit = self.fitting(resolved(inner), rng.random() < 0.3)
        if inner.mark == "?" or not fit:
            raise Unfit
        outer = self.step(rng, drawn_by_weight(rng, fit), number)
        kind = first_kind(outer)
        instead = {"member": outer.item, "index": (0, 2), "size": (1, 3), "same": kind}
        parameters = dict(inner.parameters)
        for key, wanted in others(outer).items():
            if outer.item is None or outer.item != inner.item:
                wanted = instead.get(wanted, wanted)  # it belonged to the first argument, which is of another kind now
            if wanted is None:
                raise Unfit
            parameters[key] = wanted
        mark, phrase = joined_phrases(rng, outer, inner)
        bodies = joined_bodies(rng, outer, inner, number)
        result = resolved(inner) if outer.result == "same" else outer.result
        parts, values = outer.parts + inner.parts, inner.values | outer.values
        return Draft(parts, parameters, values, result, mark, phrase, bodies, [*inner.stages, inner])

    def choice(self, rng):
        """One operation or another, as a condition on the first argument decides."""
        first = self.part(rng, drawn_by_weight(rng, self.operations), 0, "")
        kind = first_kind(first)
        if first.values or not self.asked_of(kind):
            raise Unfit
        second = self.part(rng, drawn_by_weight(rng, self.alike(kind, first.result)), 1, "")
        asked = self.part(rng, drawn_by_weight(rng, self.asked_of(kind)), 5)
        test = expression(asked.bodies[0])
        if second.parts == first.parts or test is None:
            raise Unfit
        subject = f"{{{first.first}}}"
        other = second.phrase.replace(f"{{{second.first}}}", subject)
        mark, form = marked(rng.choice(wording.SENTENCES["choice"]))
        phrase = form.format(first=first.phrase, second=other, clause=f"{subject} {predicate(asked)}")
        test = renamed(test, {asked.first: first.first})
        instead = [renamed(body, {second.first: first.first}) for body in second.bodies]
        bodies = [f"if {test}:\n{indented(one)}\n{two}" for one, two in zip(first.bodies, instead)]
        parameters = first.parameters | others(second) | others(asked)
        parts = ["if", *asked.parts, *first.parts, *second.parts]
        return Draft(parts, parameters, asked.values, first.result, mark, phrase, bodies, test=test)


def without_recursion(bodies):
    """The bodies that do not call themselves, which would call the whole of what is put together. Raises Unfit if none
    is left."""
    kept = [body for body in bodies if "self_" not in body]
    if not kept:
        raise Unfit
    return kept


def others(draft):
    """The parameters of a Draft but the first one: {placeholder: kind}."""
    return {key: kind for key, kind in draft.parameters.items() if key != draft.first}


def drawn_by_weight(rng, operations):
    """One of the operations, each as often as its weight says. Raises Unfit where there are none."""
    if not operations:
        raise Unfit
    while True:
        operation = rng.choice(operations)
        if rng.random() < operation.weight:
            return operation


def is_higher(operation):
    """Whether one of its parameters is a condition or a change of what the first one holds."""
    return any(kind in HIGHER for kind in operation.parameters.values())


def accepts(kind, result):
    """Whether an argument of a kind can be a result of another."""
    return kind == result or result in entry_of(kind)["accepts"]


def resolved(draft):
    """The kind of the result, where it is that of the first argument."""
    return first_kind(draft) if draft.result == "same" else draft.result


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


def with_change(rng, draft, name, asked):
    """A phrase whose slot {f} says a change of every element, "the square of each number of xs", or {f!} "square each
    number of xs". name: of the slot; asked: the Draft of the change."""
    every = rng.choice(["each {e1} of ", "every {e1} in ", "each {e1} in ", "every {e1} of "])
    said = asked.phrase.replace(f"{{{asked.first}}}", every + f"{{{draft.first}}}")
    return draft.phrase.replace(f"{{{name}!}}", said).replace(f"{{{name}}}", said)


def joined_phrases(rng, outer, inner):
    """(mark, phrase) of one operation on the result of another: nouns inside of each other, or steps."""
    slot, phrase = f"{{{outer.first}}}", outer.phrase
    if outer.item != inner.item:
        phrase = phrase.replace("{e}", "{values}").replace("{e1}", "{value}")
    if inner.mark == "":
        return outer.mark, phrase.replace(slot, inner.phrase)
    said = ["the result", "the result", "it"]
    if outer.item in ("int", "word", "float"):
        said = ["the result", "the result", "the resulting list", "the new list"]
    last = phrase.replace(slot, rng.choice(said))
    last = {"?": "return whether ", "": "return ", "!": ""}[outer.mark] + last
    return "!", inner.phrase + rng.choice([", then ", " and ", ", and then ", ", and ", " and then "]) + last
