"""From a Draft to a textbook page, a conversation or a test problem. The results in examples and tests come from running
the code.

What is tested is not in training, in one respect for each rung of the ladder: the chain of operations, the function's
name, a parameter's name, a noun, a wording, or the size of a constant. All else is drawn as it is for training.
"""

import ast
import builtins
import collections
import hashlib
import keyword
import random
import re
import textwrap
from dataclasses import dataclass

from configurator import UserError
from exercises import kinds, tables, wording
from exercises.unseen import is_in_benchmark
from exercises.compose import ITEM_OF, SCALARS, Maker, indented, renamed, resolved, without_recursion
from tokenizer import complete_request, fenced

LADDER = ("compositions", "function_names", "parameter_names", "nouns", "wordings", "constants")
N_TESTS = 12  # assertions per problem
LARGEST = 9999  # numbers beyond it do not occur in examples, but for the rung of large constants
RESERVED = {*keyword.kwlist, *dir(builtins), "math", "string", "re", "collections", "itertools", "functools", "datetime"}


@dataclass
class Exercise:
    """A function in words and in code, and what it returns for some arguments."""

    parts: list[str]  # its operations, the outermost first
    domain: str  # the table of its first operation
    name: str
    parameters: list[str]
    hints: list[str]  # their types, and at the end that of the result
    mark: str
    sentence: str
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (arguments, result)


def load_tables():
    """(Maker, domains): what draws Drafts, and the domain of each operation's name."""
    operations, conditions = [], {"int": [], "word": [], "char": [], "float": []}
    for path in sorted(tables.FOLDER.rglob("*.txt")):
        found = tables.read_table(path)
        if path.stem == "conditions":
            for operation in found:
                conditions[next(iter(operation.parameters.values()))].append(operation)
        else:
            operations += found
    domains = {operation.name: operation.domain for operation in operations}
    return operations, conditions, domains


OPERATIONS, CONDITIONS, DOMAINS = load_tables()
MAKERS = {held_out: Maker(OPERATIONS, CONDITIONS, lambda o, h=held_out: wording.phrases_of(o, h)) for held_out in (False, True)}
MAKERS[True].conditions = {item: [c for c in found if wording.phrases_of(c, True)] for item, found in CONDITIONS.items()}


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
    hints = [hint(draft.parameters[placeholder]) for placeholder in free] + [hint(draft.result)]
    domain = next(DOMAINS[part] for part in draft.parts if part in DOMAINS)
    return Exercise(draft.parts, domain, name, [names[p] for p in free], hints, draft.mark, sentence, bodies, examples)


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
        introduced = f"a list of {wording.plural(noun)}" if noun and placeholder == draft.first else rng.choice(words["given"])
        is_first = placeholder == draft.first  # "the first the number characters": only what a phrase is about
        if style > 0.78 and is_alone and is_first:
            mention[placeholder] = rng.choice(nouns)
            given.append(introduced)
        else:
            mention[placeholder] = f"{rng.choice(nouns)} {shown}" if style > 0.6 and is_alone and is_first and nouns else shown
            mention[placeholder] = mention[placeholder].replace("a list ", "the list ").replace("a string ", "the string ")
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


# -- examples


def load(name, parameters, body):
    """The function that a body makes. Only text of the tables is executed here."""
    scope = {}
    exec(f"def {name}({', '.join(parameters)}):\n{indented(body)}", scope)
    return scope[name]


def worked_examples(rng, draft, constants, name, parameters, bodies, count):
    """count pairs (arguments, result). None where the bodies disagree, raise, or give too few different results."""
    functions = [load(name, parameters, body) for body in bodies]
    stages, stage = [], draft.inner
    while stage:
        stages.insert(0, (stage.parameters, load("self", stage.parameters, stage.bodies[0]), resolved(stage)))
        stage = stage.inner
    numbers = [value for value in constants.values() if type(value) is int]
    largest = LARGEST if max(numbers, default=0) <= LARGEST else 10**6
    found, errors = {}, 0
    for _ in range(4 * count):
        given = drawn(rng, draft, constants, numbers)
        arguments = [value for placeholder, value in given.items() if placeholder not in constants]
        try:
            if not all(can_be_worked_on(given, *stage) for stage in stages):
                continue
            results = [function(*copied(arguments)) for function in functions]
        except Exception:
            errors += 1
            if errors > count:
                return None
            continue
        if len(set(map(literal, results))) > 1:
            return None
        if not any(map(unsuitable, arguments)) and not unsuitable(results[0], largest):
            found[literal(arguments)] = (arguments, results[0])
        if len(found) == count:
            break
    commonest = collections.Counter(literal(result) for _, result in found.values()).most_common(1)
    if len(found) < count or commonest[0][1] > max(2, 0.7 * count):
        return None
    return sorted(found.values(), key=lambda example: not example[1] or not all(example[0]))  # what shows little comes last


def can_be_worked_on(given, parameters, function, kind):
    """Whether the result of one step is of its kind, and small: the next one may take that many steps."""
    value = function(*[copied(given[placeholder]) for placeholder in parameters])
    return kinds.fits(value, kind) and not too_large(value, LARGEST // 10)


def drawn(rng, draft, constants, numbers):
    """{placeholder: value} for a call."""
    given, first = {}, None
    for placeholder, kind in draft.parameters.items():
        if placeholder in constants:
            given[placeholder] = constants[placeholder]
        else:
            given[placeholder] = kinds.draw_one(rng, kind, draft.values.get(placeholder), numbers, first, draft)
        if first is None:
            first = given[placeholder]
    return given


def copied(value):
    """A deep copy of lists, dicts, tuples and sets."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, list | tuple | set) else value


def literal(value):
    """repr with double quotes, as the programs are written, and sets in order."""
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(literal, value))) + "}" if value else "set()"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, str) and "'" not in value and '"' not in value:
        return '"' + repr(value)[1:-1] + '"'
    return repr(value)


def too_large(value, largest):
    """Whether a number in a value, or the value itself, is too large to work on."""
    if isinstance(value, dict):
        return too_large([*value, *value.values()], largest)
    if isinstance(value, list | tuple | set):
        return len(value) > 30 or any(too_large(item, largest) for item in value)
    return len(value) > 200 if isinstance(value, str) else value is not None and not abs(value) <= largest


def unsuitable(value, largest=LARGEST):
    """Whether a value is too large for an example, or holds a list that a benchmark's tests may hold too, which must
    not be trained on: one with three evenly spaced numbers, with four one-digit numbers in a row or three at the end;
    one of two one-digit numbers, or of single letters."""
    if isinstance(value, dict):
        return len(value) > 8 or any(unsuitable(item, largest) for item in [*value, *value.values()])
    if isinstance(value, list | tuple | set):
        value = list(value)
        numbers = value if all(type(x) is int for x in value) else []
        evenly_spaced = any(b - a == c - b for a, b, c in zip(numbers, numbers[1:], numbers[2:]))
        sizes = "".join("d" if -10 < x < 10 else "-" for x in numbers)  # d: one digit
        one_digit = "dddd" in sizes or sizes.endswith("ddd")
        single_letters = len(value) > 2 and all(isinstance(x, str) and len(x) == 1 for x in value)
        return evenly_spaced or one_digit or single_letters or len(value) > 12 or any(unsuitable(v, largest) for v in value)
    if isinstance(value, str):
        return len(value) > 70
    return value is not None and not abs(value) <= largest


# -- the views


def record(view, seed, i):
    """The i-th line of a view's file; a rung of the ladder is a view too."""
    for attempt in range(1000):
        number = f"{i}.{attempt}"
        rng = random.Random(f"{view}|{number}|{seed}")
        if view == "documents":
            exercise = make_exercise(view, number, seed)
            composition = ">".join(exercise.parts)
            made = {"id": f"documents/{i}", "text": document(exercise, rng), "composition": composition}
            texts = [made["text"]]
        elif view == "chats":
            made = {"id": f"chats/{i}", "messages": chat(rng, seed, number)}
            texts = [message["content"] for message in made["messages"]]
        else:
            made = problem(make_exercise(view, number, seed, rung=view), view, i, rng)
            texts = [made["prompt"] + made["canonical_solution"]]
        if not any(map(is_in_benchmark, texts)):
            return made
    raise UserError(f"no exercise for {view} found that is not like one of a benchmark")


def signature_of(exercise, with_hints):
    """def name(xs: list[int], k: int) -> int:"""
    if not with_hints:
        return f"def {exercise.name}({', '.join(exercise.parameters)}):"
    *hints, result = exercise.hints
    parameters = [name if kind == "object" else f"{name}: {kind}" for name, kind in zip(exercise.parameters, hints)]
    return f"def {exercise.name}({', '.join(parameters)})" + (":" if result == "object" else f" -> {result}:")


def typed(signature, rng):
    """(imports, signature), in half of the cases with the names of the module typing."""
    names = {"list": "List", "dict": "Dict", "tuple": "Tuple", "set": "Set"}
    used = [names[name] for name in names if re.search(rf"\b{name}\[", signature)]
    if not used or rng.random() < 0.4:
        return "", signature
    for name in names:
        signature = re.sub(rf"\b{name}\b(?=[\[,)\]]| ->|:)", names[name], signature) if names[name] in used else signature
    return f"from typing import {', '.join(used)}\n\n\n", signature


def call(exercise, arguments):
    """name(1, 2)"""
    return f"{exercise.name}({', '.join(map(literal, arguments))})"


def head(exercise, rng, least=0):
    """The signature and a docstring, in one of many layouts: what comes before the body. least: examples that it must
    show."""
    imports, signature = typed(signature_of(exercise, rng.random() < 0.35), rng)
    n_examples = max(least, rng.choice([0, 0, 0, 0, 1, 1, 1, 1, 2, 2]))
    lines = exercise.sentence.split("\n")
    if rng.random() < 0.5:
        width = rng.randint(50, 100)
        lines = [wrapped for line in lines for wrapped in textwrap.wrap(line, width, break_on_hyphens=False)]
    form = rng.choice(wording.EXAMPLES)
    shown = []
    for n, (arguments, result) in enumerate(exercise.examples[:n_examples]):
        text = form.format(call=call(exercise, arguments), result=literal(result)).split(" / ")
        shown += text if n == 0 else [line for line in text if not line.endswith(":")]
    if shown and rng.random() < 0.35:
        lines.append("")
    lines += shown
    quotes = "'" * 3 if rng.random() < 0.1 and "'''" not in exercise.sentence else '"' * 3
    layout = rng.random()
    if layout < 0.5:
        lines[0] = quotes + lines[0]
    elif layout < 0.7:
        lines[0] = f"{quotes} {lines[0]}"
    else:
        lines.insert(0, quotes)
    if len(lines) == 1 and rng.random() < 0.5 and not lines[0].endswith(quotes[0]):
        lines[0] += quotes
    else:
        lines.append(quotes)
    return f"{imports}{signature}\n{indented(chr(10).join(lines))}\n"


def document(exercise, rng):
    """A textbook page: a function with a docstring, with a comment or with a text and a test in front."""
    body = exercise.bodies[0] if rng.random() < 0.6 else rng.choice(exercise.bodies)
    form = rng.random()
    if form < 0.2:
        arguments, result = exercise.examples[0]
        test = f"assert {call(exercise, arguments)} == {literal(result)}"
        sentence = exercise.sentence
        return f'"""\n{sentence}\n{test}\n"""\n{signature_of(exercise, False)}\n{indented(body)}\n'
    if form < 0.28:
        return f"# {exercise.sentence}\n{signature_of(exercise, rng.random() < 0.3)}\n{indented(body)}\n"
    return head(exercise, rng) + indented(body) + "\n"


SMALL_TALK = [tuple(part.split(" | ") for part in line.split(" => ")) for line in wording.CHAT]


def chat(rng, seed, i):
    """A conversation: a request in one of many forms and the function; sometimes a second turn; or small talk."""
    if rng.random() < 0.04:
        asked, answers = rng.choice(SMALL_TALK)
        return messages([rng.choice(asked), rng.choice(answers)])
    form = rng.choice(wording.REQUESTS) if rng.random() < 0.65 else ""
    natural = bool(form) and "{" not in form.replace("{sentence}", "")
    exercise = make_exercise("chats", i, seed, natural=natural)
    body = exercise.bodies[0] if rng.random() < 0.7 else rng.choice(exercise.bodies)
    if form:
        tests = [f"assert {call(exercise, arguments)} == {literal(result)}" for arguments, result in exercise.examples]
        request = form.replace("\\n", "\n").format(
            sentence=exercise.sentence,
            name=exercise.name,
            arguments=", ".join(exercise.parameters),
            signature=signature_of(exercise, False),
            test=tests[0],
            tests="\n".join(tests),
        )
        request = mistyped(request, rng) if rng.random() < 0.1 else request
        code = f"{signature_of(exercise, False)}\n{indented(body)}"
    else:
        start = head(exercise, rng)
        request, imports = complete_request(start), re.match(r"(?:from .*\n\n\n)?", start)[0]
        code = imports + re.search(r"def .*", start)[0] + "\n" + indented(body)
    turns = [request, fenced(code, "python")]
    return messages(turns + second_turn(exercise, body, rng))


def second_turn(exercise, body, rng):
    """In a sixth of the conversations something more is asked."""
    chance, signature = rng.random(), signature_of(exercise, False)
    others = [other for other in exercise.bodies if other != body]
    if chance < 0.05 and others:
        asked = rng.choice(["Write it in another way.", "Can you do it differently?", "another way please", "Is there another way?"])
        return [asked, fenced(f"{signature}\n{indented(rng.choice(others))}", "python")]
    if chance < 0.10:
        arguments, result = exercise.examples[-1]
        asked = rng.choice(["Show a call.", "Give an example.", "How do I call it?", "Show me an example."])
        return [asked, f"`{call(exercise, arguments)}` returns `{literal(result)}`."]
    if chance < 0.14 and exercise.name not in body:
        new = wording.random_name(rng)
        asked = rng.choice([f"Call it {new}.", f"Rename it to {new}.", f"please rename the function to `{new}`"])
        return [asked, fenced(f"{signature.replace(exercise.name, new, 1)}\n{indented(body)}", "python")]
    if chance < 0.17:
        asked = rng.choice(["Add type hints.", "With type hints, please.", "add types"])
        return [asked, fenced(f"{signature_of(exercise, True)}\n{indented(body)}", "python")]
    return []


def messages(turns):
    """A conversation of these turns."""
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(turns)]


def mistyped(text, rng):
    """A text with a slip in one of its longer words, but not in code."""
    words = text.split(" ")
    long = [n for n, word in enumerate(words) if word.isalpha() and len(word) > 4]
    if long:
        n = rng.choice(long)
        k = rng.randrange(1, len(words[n]) - 1)
        word = words[n]
        slips = [word[:k] + word[k + 1 :], word[:k] + word[k] + word[k:], word[: k - 1] + word[k] + word[k - 1] + word[k + 1 :]]
        words[n] = rng.choice(slips)
    return " ".join(words)


def problem(exercise, rung, number, rng):
    """The exercise in HumanEval's shape."""
    test = "def check(candidate):\n"
    for arguments, result in exercise.examples[1:]:
        test += f"    assert candidate({', '.join(map(literal, arguments))}) == {literal(result)}\n"
    return {
        "task_id": f"{rung}/{number}",
        "prompt": head(exercise, rng, least=1),
        "entry_point": exercise.name,
        "canonical_solution": indented(exercise.bodies[0]) + "\n",
        "test": test,
        "family": rung,
        "domain": exercise.domain,
        "level": len(exercise.parts),
        "composition": ">".join(exercise.parts),
    }
