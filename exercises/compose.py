"""Operations put together. A Draft is a function in the making: what it returns, in words and in code, with placeholders
for everything that gets a name later. Each operation that takes part has a number of its own, and its names carry it:

    sum(xs) of even(xs)      words   the sum of the even numbers of {xs_1}
                             code    found_0 = [x_1 for x_1 in xs_1 if x_1 % 2 == 0]
                                     return sum(found_0)

Ways to put operations together: one alone; one with a condition or with a change of every element; one on the result of
another, said as nested nouns or as steps; one or the other, as a condition decides.
"""

import ast
import functools
import re
from dataclasses import dataclass

NAME = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*|(?<![\w.])[A-Za-z_]\w*")
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
LISTS = {"int": "ints", "nat": "nats", "pos": "nats", "small": "nats", "float": "floats", "word": "words", "text": "texts"}
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

    def __init__(self, operations, conditions, phrases_of):
        self.operations = [o for o in operations if not self.is_higher(o)]
        self.higher = [o for o in operations if self.is_higher(o)]
        self.conditions, self.phrases_of = conditions, phrases_of
        self.changes = [o for o in self.operations if o.result in LISTS and not o.values and self.scalar(o)]

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

    @staticmethod
    def is_higher(operation):
        """Whether one of its parameters is a condition or a change."""
        return any(kind in ("condition", "change", "number") for kind in operation.parameters.values())

    @staticmethod
    def scalar(operation):
        """Whether all of its arguments are scalars."""
        return all(isinstance(kind, tuple) or kind in SCALARS for kind in operation.parameters.values())

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
        outer = (self.with_higher if self.is_higher(operation) else self.single)(rng, operation, number)
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
        return Draft(outer.parts + inner.parts, parameters, inner.values | outer.values, result, mark, phrase, bodies, inner)

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
    said = rng.choice(["the result", "the result", "the resulting list", "the new list"] if is_list else ["the result", "it"])
    if outer.mark == "?":
        last = f"return whether {phrase.replace(slot, said)}"
    else:
        last = ("return " if outer.mark == "" else "") + phrase.replace(slot, said)
    return "!", inner.phrase + rng.choice([", then ", " and ", ", and then ", ", and ", " and then "]) + last


# -- code


def renamed(code, names):
    """Code with other names; texts, comments and what follows a dot stay."""
    return NAME.sub(lambda match: names.get(match[0], match[0]), code)


@functools.cache
def local_names(bodies):
    """The names that a tuple of bodies binds, but those of imports and of keyword arguments."""
    bound, kept = {}, set()
    for body in bodies:
        for node in ast.walk(ast.parse("def f():\n" + indented(body))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound[node.id] = True
            elif isinstance(node, ast.arg):
                bound[node.arg] = True
            elif isinstance(node, ast.FunctionDef) and node.name != "f":
                bound[node.name] = True
            elif isinstance(node, ast.keyword):
                kept.add(node.arg)
    return [name for name in bound if name not in kept]


def indented(text, by="    "):
    """Every line that is not empty, indented."""
    return "\n".join(by + line if line else line for line in text.split("\n"))


def expression(body):
    """What a body of a single return returns, as code; None for a longer one."""
    return body.removeprefix("return ") if body.startswith("return ") and "\n" not in body else None


def grouped(code):
    """An expression in brackets, if it needs them inside of a larger one."""
    node = ast.parse(code, mode="eval").body
    simple = ast.Call | ast.Name | ast.Subscript | ast.List | ast.ListComp | ast.Constant | ast.Attribute | ast.Dict
    return code if isinstance(node, simple) else f"({code})"


def inlined(body, name, asked):
    """A body in which name(x) is the code of a condition or a change, or calls a helper where that has several lines."""
    source = asked.bodies[0]
    code = expression(source)
    if code is None or "self_" in code:
        itself = {word: name for word in re.findall(r"\bself_\d\b", source)}
        return f"def {name}({asked.first}):\n{indented(renamed(source, itself))}\n\n{body}"
    call = re.compile(rf"\b{name}\((\w+)\)")
    alone = call.sub(lambda match: renamed(code, {asked.first: match[1]}), body)
    inside = call.sub(lambda match: f"({renamed(code, {asked.first: match[1]})})", body)
    # Brackets only where they change the meaning: the two texts are then different programs.
    return alone if same_tree(alone, inside) else inside


def same_tree(one, other):
    """Whether two bodies are the same program."""
    trees = [ast.dump(ast.parse("def f():\n" + indented(body))) for body in (one, other)]
    return trees[0] == trees[1]


def joined_bodies(rng, outer, inner, number):
    """The ways to write outer on the result of inner: each way of the one with one of the other."""
    bodies = []
    for n, body in enumerate(outer.bodies):
        source = inner.bodies[n] if n < len(inner.bodies) else rng.choice(inner.bodies)
        bodies.append(joined(body, outer.first, source, inner, number))
    return bodies


def joined(body, slot, source, inner, number):
    """A body whose parameter `slot` is what source returns: inside of the expression, as a line before, or by a helper."""
    outer_code, inner_code = expression(body), expression(source)
    if outer_code and inner_code and len(re.findall(rf"\b{slot}\b", outer_code)) == 1 and len(inner_code) < 50:
        if not re.search(rf"\b(for|if|lambda)\b.*\b{slot}\b", outer_code) or f"in {slot}" in outer_code:
            return f"return {renamed(outer_code, {slot: grouped(inner_code)})}"
    lines = source.split("\n")
    returns = re.findall(r"\breturn\b", source)
    imports = [line for line in body.split("\n") if re.match(r"(import|from) ", line)]
    rest = "\n".join(line for line in body.split("\n") if line not in imports)
    if len(returns) == 1 and lines[-1].startswith("return "):
        if re.search(rf"\b{slot} *[-+*/%]?=[^=]", body) is None:
            before = [*lines[:-1], f"{slot} = {lines[-1].removeprefix('return ')}"]
            return "\n".join([*imports, *before, rest])
    helper = f"{inner.parts[0]}_{number + 7}"
    lines = [f"def {helper}({inner.first}):", indented(source), "", f"{slot} = {helper}({inner.first})"]
    return "\n".join([*imports, *lines, rest])
