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
from exercises.code import compares_constants, local_names, renamed, shape
from exercises.compose import Maker, Unfit, others, without_recursion
from exercises.examples import LARGEST, copied, literal, load, worked_examples

N_TESTS = 12  # assertions per problem
PRACTICE = "practice"  # the view of problems like those of training, with tests: for grpo.py to learn from
LADDER = ("compositions", "function_names", "parameter_names", "nouns", "wordings", "constants")
IMPORTED = "math string re collections itertools functools datetime statistics bisect heapq".split()
RESERVED = {*keyword.kwlist, *dir(builtins), *IMPORTED}  # no parameter may be called like these


@dataclass
class Exercise:
    """A function in words and in code, and what it returns for some arguments."""

    parts: list[str]  # its operations, the outermost first
    name: str
    parameters: list[str]
    hints: list[str]  # their types, and at the end that of the result
    sentence: str
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (arguments, result)
    changed: tuple | None = None  # for a chat: (a constant of the first body, another number, that body with it)


OPERATIONS, CONDITIONS = [], []
for path in sorted(tables.FOLDER.rglob("*.txt")):
    (CONDITIONS if path.stem == "conditions" else OPERATIONS).extend(tables.read_table(path))
MAKERS = {held_out: Maker(OPERATIONS, CONDITIONS, held_out) for held_out in (False, True)}


def kin_of(operations):
    """{name of an operation: one name for all that are written alike}, so that chains with `zero` and those with
    `equal_to` are on one side."""
    alike, names = {}, {operation.name: operation.name for operation in operations}
    for operation in operations:
        alike.setdefault(shape(operation.bodies[0], *operation.parameters), set()).add(operation.name)
    for group in alike.values():
        merged = {names[name] for name in group}
        names |= {name: min(merged) for name in names if names[name] in merged}
    return names


KIN = kin_of(OPERATIONS + CONDITIONS)
JOINED = {name.replace("_", "") for name in KIN}
ALONE = {shape(body, *operation.parameters) for operation in OPERATIONS for body in operation.bodies}


def chain_is_held_out(parts):
    """Whether this chain of two or more operations is for tests."""
    return len(parts) > 1 and wording.is_held_out(">".join(KIN.get(part, part) for part in parts))


def is_test(draft):
    """Whether a Draft may be a test of an unseen composition: its chain is held out, and no operation by itself is
    written like it."""
    shapes = (shape(body, *draft.parameters) for body in draft.bodies)
    return chain_is_held_out(draft.parts) and ALONE.isdisjoint(shapes)


def is_seen(parts):
    """Whether a chain of operations may be in training: neither it nor a part of it is held out."""
    starts = range(len(parts))
    return not any(chain_is_held_out(parts[a:b]) for a in starts for b in range(a + 2, len(starts) + 1))


def make_exercise(view, index, seed, natural=False):
    """The index-th exercise of a view, which may be a rung of the ladder. natural: with names that people would choose.

    Drafts are drawn until one has fit examples. Raises UserError after 10,000 of them.
    """
    for attempt in range(10_000):
        key = f"{view}|{index}|{seed}|{attempt}"
        rng = random.Random(int.from_bytes(hashlib.blake2b(key.encode()).digest()[:8]))
        try:
            draft = MAKERS[view == "wordings"].draft(rng)
            too_easy = view == PRACTICE and len(draft.parts) < 2  # tuning has taught these
            fits = is_test(draft) if view == "compositions" else is_seen(draft.parts)
            if fits and not too_easy:
                return named(rng, draft, view, natural)
        except Unfit:
            continue
    raise UserError(f"no exercise for {view} found: are the tables in exercises/operations too small?")


def named(rng, draft, view, natural):
    """An Exercise from a Draft: constants, names, sentence and examples. Raises Unfit where no examples are fit, or
    where it has not what the rung asks for."""
    constants = chosen_constants(rng, draft, natural, view == "constants")
    if constants:
        draft.bodies = without_recursion(draft.bodies)  # a call of itself would pass them on
    if view == "constants" and not any(type(value) is int and value > LARGEST for value in constants.values()):
        raise Unfit
    noun = chosen_noun(rng, draft, view == "nouns")
    names = parameter_names(rng, draft, constants, noun, natural, view == "parameter_names")
    name = function_name(rng, draft, natural, view == "function_names")
    sentence = said(rng, draft, names, constants, noun, natural)
    lacks_noun = view == "nouns" and not (noun and (noun in sentence or wording.plural(noun) in sentence))
    # A phrase such as "x + y == {k} for some x and y" has letters of its own, which no parameter may be called.
    letters = re.findall(r"\b[b-z]\b", re.sub(r"{\w+}", "", draft.phrase))
    if name in names.values() or lacks_noun or not set(letters).isdisjoint(names.values()):
        raise Unfit
    code_names = names | {placeholder: literal(value) for placeholder, value in constants.items()}
    all_names = [final_names(rng, body, code_names, name) for body in draft.bodies]
    bodies = dict.fromkeys(map(renamed, draft.bodies, all_names))
    if constants and any(map(compares_constants, bodies)):
        raise Unfit
    functions = [load(name, names.values(), body) for body in bodies]
    near = [int(number) for number in re.findall(r"\b\d+\b", next(iter(bodies)))]
    n_examples = 1 + N_TESTS if view in (*LADDER, PRACTICE) else 3
    examples = worked_examples(rng, draft, constants, functions, near, n_examples)
    hints = [hint(draft.parameters[placeholder]) for placeholder in names] + [hint(draft.result)]
    exercise = Exercise(draft.parts, name, list(names.values()), hints, sentence, list(bodies), examples)
    if view == "chats":
        exercise.changed = with_other_constant(rng, draft, constants, all_names[0], exercise)
    return exercise


def with_other_constant(rng, draft, constants, names, exercise):
    """(a constant of the first body, another number, that body with it), or None where that is no other function, or
    none that people would ask for. names: of all that the body names."""
    numbers = [key for key, value in constants.items() if type(value) is int and key not in draft.values]
    if not numbers or len(set(constants.values())) < len(constants):
        return None
    placeholder = rng.choice(numbers)
    other = kinds.draw_one(rng, draft.parameters[placeholder], None, (), None, draft)
    if other < 2 or other in constants.values():
        return None
    body = renamed(draft.bodies[0], names | {placeholder: literal(other)})
    function = load(exercise.name, exercise.parameters, body)
    try:
        is_other = any(function(*copied(arguments)) != result for arguments, result in exercise.examples)
    except Exception:  # an index beyond the end, say
        return None
    return (constants[placeholder], other, body) if is_other else None


def hint(kind):
    """The type hint of a kind; "object" where it says nothing."""
    if str(kind).endswith("?"):
        return f"{hint(kind[:-1])} | None"
    return kinds.entry_of(kind)["hint"]


def chosen_constants(rng, draft, natural, large):
    """{placeholder: value} of the parameters that are constants of the program: scalars, but never the first one. A
    natural request names no parameters: it says most scalars as constants."""
    left_open = 0.2 if large or natural else 0.4
    chosen, bound, code = {}, local_names(tuple(draft.bodies)), "\n".join(draft.bodies)
    for placeholder, kind in others(draft).items():
        decides = re.search(rf"\bif {placeholder}\b", code)  # "if '-' == '+':" would be no program that people write
        if not kinds.is_scalar(kind) or placeholder in bound or decides or rng.random() < left_open:
            continue
        if kind in ("int", "nat") and placeholder not in draft.values:
            (highest,) = rng.choices([20, 99, 999, LARGEST], cum_weights=[0.45, 0.65, 0.8, 1])
            chosen[placeholder] = rng.randint(10_001, 99_999) if large else rng.randint(0, highest)
        else:
            chosen[placeholder] = kinds.draw_one(rng, kind, draft.values.get(placeholder), (), None, draft)
    return chosen


# -- names


def chosen_noun(rng, draft, held_out):
    """What the first argument is a list of: prices, cities. None = numbers or words."""
    nouns = kinds.entry_of(draft.item).get("nouns")
    if not nouns or not (held_out or rng.random() < 0.3):
        return None
    return rng.choice(wording.WORDS[f"held_out_{nouns}" if held_out else nouns])


def parameter_names(rng, draft, constants, noun, natural, one_held_out):
    """{placeholder: name} of the parameters that are no constants, all different; one_held_out: whether the name of one
    of them, any, is held out."""
    free, names = [placeholder for placeholder in draft.parameters if placeholder not in constants], {}
    held_out = rng.choice(free) if one_held_out else None
    for placeholder in free:
        for trial in range(100):
            name = parameter_name(rng, draft, placeholder, noun, natural and not trial, placeholder == held_out)
            if name not in names.values() and name not in RESERVED:
                break
        else:
            raise Unfit
        names[placeholder] = name
    return names


def parameter_name(rng, draft, placeholder, noun, natural, held_out):
    """One name."""
    kind = draft.parameters[placeholder]
    if held_out:
        return held_out_name(rng)
    if noun and placeholder == draft.first and rng.random() < 0.7:
        return wording.plural(noun)
    chance = 0.0 if natural else rng.random()
    if chance < 0.25:
        return re.sub(r"_\d+$", "", placeholder)
    if chance < 0.85:
        return rng.choice(kinds.entry_of(kind)["names"].split())
    return rng.choice([wording.random_name(rng), rng.choice(wording.WORDS["invented"]) + rng.choice("aeiou")])


def function_name(rng, draft, natural, held_out):
    """A name that says what the function does, or any."""
    if not held_out and draft.parts[0] != "if" and (natural or rng.random() < 0.5):
        words = "_".join(part.removesuffix("_if").removesuffix("_each") for part in draft.parts[:2])
        return words if natural else wording.reshaped(rng, words)
    return held_out_name(rng) if held_out else wording.random_name(rng)


def held_out_name(rng):
    """A name that is held out and that no operation has, in any shape: training calls its functions so."""
    while True:
        name = wording.random_name(rng, True)
        if re.sub(r"_?\d+$", "", name).replace("_", "").lower() not in JOINED:
            return name


def final_names(rng, body, code_names, name):
    """{placeholder: name} of all that a body names. code_names: of its parameters; name: its own."""
    names, taken = dict(code_names), {*code_names.values(), name, *re.findall(r"(?<![\w.])[a-z]\w*", body)}
    for placeholder in dict.fromkeys(re.findall(r"(?<![\w.])[a-zA-Z_]\w*_\d\b", body)):
        if placeholder not in names:
            base = re.sub(r"_\d$", "", placeholder)
            names[placeholder] = name if base == "self" else local_name(rng, base, taken)
            taken.add(names[placeholder])
    return names


def local_name(rng, base, taken):
    """A name for a local variable that the tables call base: that, or where it is taken one that people use in its
    place. Which of them it is cannot be known from the request, so that any choice would only be noise to learn."""
    if base == "_":  # a value that nobody reads
        return base
    alike = next((group for group in wording.LOCALS if base in group), [base])
    for names in ([base], alike, [f"{base}{n}" for n in range(2, 30)]):
        if left := [option for option in names if option not in taken]:
            return rng.choice(left)
    raise Unfit


# -- sentences


STYLES = {"xs": 45, "`xs`": 15, "the list xs": 18, "the list": 22}  # how a text mentions an argument: how often


def said(rng, draft, names, constants, noun, natural):
    """What the function does, in a sentence that may have another beside it."""
    (style,) = ["the list"] if natural and rng.random() < 0.7 else rng.choices(list(STYLES), STYLES.values())
    hints = [hint(draft.parameters[placeholder]) for placeholder in names]
    mention = {placeholder: quoted(rng, value) for placeholder, value in constants.items()}
    given = []
    for placeholder, name in names.items():
        kind, is_first = draft.parameters[placeholder], placeholder == draft.first
        nouns, introductions = kinds.entry_of(kind)["mention"], kinds.entry_of(kind)["given"]
        if noun and is_first:
            collection = hint(kind).partition("[")[0]  # list, tuple or set
            nouns, introductions = [f"the {wording.plural(noun)}"], [f"a {collection} of {wording.plural(noun)}"]
        # Only what a phrase is about is called by a noun: "the first the number characters" would be none.
        has_noun = is_first and nouns and hints.count(hint(kind)) == 1
        shown = f"`{name}`" if style == "`xs`" else name
        is_named = not has_noun or style != "the list"
        mention[placeholder] = shown
        if has_noun and style.startswith("the"):
            mention[placeholder] = rng.choice(nouns) + (f" {shown}" if is_named else "")
        given.append(rng.choice(introductions) + (f" {shown}" if is_named else ""))
    elements = rng.choice(kinds.entry_of(draft.parameters[draft.first])["elements"]).split("/")
    if noun:
        elements = [wording.plural(noun), noun]
    mention |= {"e": elements[0], "e1": elements[1], "values": "values", "value": "value"}
    phrase = re.sub(r"{(\w+)}", lambda slot: mention[slot[1]], draft.phrase)
    phrase = re.sub(r"\b(\d+)-th\b", lambda number: ordinal(int(number[1])), phrase)
    frames = wording.FRAMES[draft.mark]
    if draft.phrase.startswith(tuple(f"{{{placeholder}}}" for placeholder in names)):
        frames = [frame for frame in frames if "{Phrase}" not in frame]  # a name has no capital letter
    if "return " in phrase:
        frames = [frame for frame in frames if "and return" not in frame]
    sentence = rng.choice(frames).format(phrase=phrase, Phrase=phrase[0].upper() + phrase[1:], given=listed(given))
    form = rng.choice(wording.SENTENCES["around"]) if rng.random() < 0.12 else "{sentence}"
    return form.format(sentence=wording.ended(form, sentence))


def ordinal(n):
    """2nd for 2."""
    last = n % 10 if n % 100 not in (11, 12, 13) else 0
    ending = {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
    return f"{n}{ending}"


def quoted(rng, value):
    """A constant in a sentence: 37, or 'a' in one of three kinds of quotes."""
    quote = rng.choice(["'{}'", '"{}"', "`{}`"])
    return quote.format(value) if isinstance(value, str) else str(value)


def listed(texts):
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
