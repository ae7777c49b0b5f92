"""From a Draft to an Exercise: constants, names, a sentence, and examples that come from running the code.

What is tested is not in training, in one respect for each rung of the ladder: the chain of operations, the function's
name, a parameter's name, a noun, a wording, or the size of a constant. All else is drawn as it is for training.
"""

import builtins
import hashlib
import keyword
import random
import re
from dataclasses import dataclass

from configurator import UserError
from exercises import kinds, tables, wording
from exercises.code import renamed
from exercises.compose import ITEM_OF, SCALARS, Maker, without_recursion
from exercises.examples import LARGEST, literal, worked_examples

LADDER = ("compositions", "function_names", "parameter_names", "nouns", "wordings", "constants")
RESERVED = {
    *keyword.kwlist,
    *dir(builtins),
    "math",
    "string",
    "re",
    "collections",
    "itertools",
    "functools",
    "datetime",
}


@dataclass
class Exercise:
    """A function in words and in code, and what it returns for some arguments."""

    parts: list[str]  # its operations, the outermost first
    domain: str  # the table of its first operation
    name: str
    parameters: list[str]
    hints: list[str]  # their types, and at the end that of the result
    sentence: str
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (arguments, result)


def load_tables():
    """(operations, conditions by the kind of what they are asked of), from all tables."""
    operations, conditions = [], {"int": [], "word": [], "char": [], "float": []}
    for path in sorted(tables.FOLDER.rglob("*.txt")):
        found = tables.read_table(path)
        if path.stem != "conditions":
            operations += found
            continue
        for operation in found:
            conditions[next(iter(operation.parameters.values()))].append(operation)
    return operations, conditions


OPERATIONS, CONDITIONS = load_tables()
DOMAINS = {operation.name: operation.domain for operation in OPERATIONS}
MAKERS = {held_out: Maker(OPERATIONS, CONDITIONS, held_out) for held_out in (False, True)}


def is_test(parts):
    """Whether a chain of two or more operations belongs to the test problems."""
    return len(parts) > 1 and wording.is_held_out(">".join(parts))


def make_exercise(view, index, seed, rung=None, natural=False):
    """The index-th exercise of a view, or of a rung of the ladder. natural: with the names that people would choose.

    Drafts are drawn until one has fit examples. Raises UserError after 10,000 of them.
    """
    for attempt in range(10_000):
        key = f"{view}|{rung}|{index}|{seed}|{attempt}"
        rng = random.Random(int.from_bytes(hashlib.blake2b(key.encode()).digest()[:8]))
        draft = MAKERS[rung == "wordings"].draft(rng)
        if draft is None or is_test(draft.parts) != (rung == "compositions"):
            continue
        made = named(rng, draft, rung, natural)
        if made:
            return made
    raise UserError(f"no exercise for {rung or view} found: are the tables in exercises/operations too small?")


def named(rng, draft, rung, natural):
    """An Exercise from a Draft: constants, names, sentence and examples. None where it has none that are fit."""
    constants = chosen_constants(rng, draft, rung == "constants")
    if constants and not without_recursion(draft):  # a call of itself would pass them on
        return None
    if rung == "constants" and not any(type(value) is int and value > LARGEST for value in constants.values()):
        return None
    noun = chosen_noun(rng, draft, rung == "nouns")
    if rung == "nouns" and noun is None:
        return None
    free = [placeholder for placeholder in draft.parameters if placeholder not in constants]
    held_out = rng.randrange(len(free)) if rung == "parameter_names" else None
    names = parameter_names(rng, draft, free, noun, natural, held_out)
    name = function_name(rng, draft, natural, rung == "function_names")
    if name in names.values():
        return None
    code_names = names | {placeholder: literal(value) for placeholder, value in constants.items()}
    bodies = finished(rng, draft, code_names, name)
    examples = worked_examples(rng, draft, constants, name, [names[p] for p in free], bodies, 13 if rung else 3)
    if examples is None:
        return None
    sentence = said(rng, draft, names, constants, noun)
    if rung == "nouns" and noun not in sentence and wording.plural(noun) not in sentence:
        return None
    hints = [hint(draft.parameters[placeholder]) for placeholder in free] + [hint(draft.result)]
    domain = next(DOMAINS[part] for part in draft.parts if part in DOMAINS)
    return Exercise(draft.parts, domain, name, [names[p] for p in free], hints, sentence, bodies, examples)


def hint(kind):
    """The type hint of a kind; "object" where it says nothing."""
    if not isinstance(kind, str):
        return "int"
    return kinds.KINDS.get(kind.rstrip("?"), ("int" if kind in ("index", "size") else "object", None))[0]


def chosen_constants(rng, draft, large):
    """{placeholder: value} of the parameters that are constants of the program: scalars, but never the first one."""
    chosen, code = {}, "\n".join(draft.bodies)
    for placeholder, kind in list(draft.parameters.items())[1:]:
        is_scalar = isinstance(kind, tuple) or kind in SCALARS
        is_bound = re.search(rf"^[^=\n]*\b{placeholder}\b[^=\n]*[^=!<>\n]?=(?!=)", code, re.M)
        if not is_scalar or is_bound or rng.random() < (0.2 if large else 0.4):
            continue
        if placeholder in draft.values:
            chosen[placeholder] = rng.choice(draft.values[placeholder])
        elif kind in ("int", "nat"):
            size = rng.random()
            highest = 20 if size < 0.55 else 99 if size < 0.8 else 999 if size < 0.95 else LARGEST
            chosen[placeholder] = rng.randint(10_001, 99_999) if large else rng.randint(0, highest)
        else:
            chosen[placeholder] = kinds.draw_one(rng, kind, None, (), None, draft)
    return chosen


# -- names


def chosen_noun(rng, draft, held_out):
    """What the first argument is a list of: prices, cities. None = numbers or words."""
    nouns = wording.NOUNS.get((ITEM_OF.get(draft.parameters[draft.first]), held_out))
    if not nouns or "text" in draft.parameters[draft.first] or not (held_out or rng.random() < 0.3):
        return None
    return rng.choice(nouns)


def parameter_names(rng, draft, free, noun, natural, held_out):
    """{placeholder: name} of the free parameters, all different; held_out: the number of the one whose name is."""
    names = {}
    for number, placeholder in enumerate(free):
        for trial in range(100):
            name = parameter_name(rng, draft, placeholder, noun, natural and not trial, number == held_out)
            if name not in names.values() and name not in RESERVED:
                break
        else:
            raise AssertionError("too few names for parameters")
        names[placeholder] = name
    return names


def parameter_name(rng, draft, placeholder, noun, natural, held_out):
    """One name."""
    kind = draft.parameters[placeholder]
    if held_out:
        return wording.random_name(rng, True)
    if noun and placeholder == draft.first and rng.random() < 0.7:
        return wording.plural(noun)
    chance = 0.0 if natural else rng.random()
    if chance < 0.25:
        return re.sub(r"_\d+$", "", placeholder)
    if chance < 0.75:
        return rng.choice(called(kind)["names"].split())
    return rng.choice([wording.random_name(rng), rng.choice(wording.WORDS["invented"]) + rng.choice("aeiou")])


def called(kind):
    """How people call a kind of argument: an entry of kinds.toml."""
    if not isinstance(kind, str):
        return wording.KINDS["nat"]
    kind = wording.CALLED.get(kind, kind)
    return wording.KINDS.get(kind, {"names": "x value item target a", "mention": [], "given": ["a value"]})


def function_name(rng, draft, natural, held_out):
    """A name that says what the function does, or any."""
    if not held_out and draft.parts[0] != "if" and (natural or rng.random() < 0.5):
        words = "_".join(part.removesuffix("_if").removesuffix("_each") for part in draft.parts[:2])
        return wording.camel(words) if rng.random() < 0.05 else words
    return wording.random_name(rng, held_out)


def finished(rng, draft, code_names, name):
    """The bodies with their final names, without those that are equal."""
    bodies = []
    for body in draft.bodies:
        found = dict.fromkeys(re.findall(r"(?<![\w.])[a-zA-Z]\w*_\d\b", body))
        names, taken = dict(code_names), {*code_names.values(), name, *re.findall(r"(?<![\w.])[a-z]\w*", body)}
        for placeholder in found:
            if placeholder not in names:
                base = re.sub(r"_\d$", "", placeholder)
                if base == "self":
                    names[placeholder] = name
                    continue
                alike = next((group for group in wording.LOCALS if base in group), [base])
                options = [base] * 3 + alike if rng.random() < 0.5 else [base]
                options = [option for option in options if option not in taken] or [n for n in alike if n not in taken]
                options = options or [f"{base}{n}" for n in range(2, 30) if f"{base}{n}" not in taken]
                names[placeholder] = rng.choice(options)
                taken.add(names[placeholder])
        bodies.append(renamed(body, names))
    return list(dict.fromkeys(bodies))


# -- sentences


def said(rng, draft, names, constants, noun):
    """The sentence that says what the function does."""
    style = rng.random()
    hints = [hint(kind) for placeholder, kind in draft.parameters.items() if placeholder in names]
    mention, given = {}, []
    for placeholder, kind in draft.parameters.items():
        if placeholder in constants:
            value = constants[placeholder]
            quote = rng.choice(["'{}'", '"{}"', "`{}`"])
            mention[placeholder] = quote.format(value) if isinstance(value, str) else str(value)
            continue
        name, words = names[placeholder], called(kind)
        shown = f"`{name}`" if 0.45 < style < 0.6 else name
        is_alone = hints.count(hint(kind)) == 1 and words["mention"]
        nouns = [f"the {wording.plural(noun)}"] if noun and placeholder == draft.first else words["mention"]
        introduced = (
            f"a list of {wording.plural(noun)}" if noun and placeholder == draft.first else rng.choice(words["given"])
        )
        is_first = placeholder == draft.first  # "the first the number characters": only what a phrase is about
        if style > 0.78 and is_alone and is_first:
            mention[placeholder] = rng.choice(nouns)
            given.append(introduced)
        else:
            mention[placeholder] = (
                f"{rng.choice(nouns)} {shown}" if style > 0.6 and is_alone and is_first and nouns else shown
            )
            mention[placeholder] = (
                mention[placeholder].replace("a list ", "the list ").replace("a string ", "the string ")
            )
            given.append(f"{introduced} {shown}")
    elements = rng.choice(called(draft.parameters[draft.first]).get("elements", ["values/value"])).split("/")
    if noun:
        elements = [wording.plural(noun), noun]
    mention |= {"e": elements[0], "e1": elements[1], "values": "values", "value": "value"}
    phrase = re.sub(r"{(\w+)}", lambda slot: mention[slot[1]], draft.phrase)
    starts_with_name = draft.phrase.startswith("{") and not draft.phrase.startswith(("{e", "{v"))
    frames = [frame for frame in wording.FRAMES[draft.mark] if "{Phrase}" not in frame or not starts_with_name]
    frame = rng.choice(frames)
    return frame.format(phrase=phrase, Phrase=phrase[0].upper() + phrase[1:], given=listed(given))


def listed(texts):
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
