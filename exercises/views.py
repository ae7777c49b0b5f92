"""An Exercise as a textbook page, as a conversation, as a test problem, or as a gap to fill."""

import random
import re
import textwrap

from configurator import UserError
from exercises import wording
from exercises.code import expression, indented, opposite
from exercises.examples import literal
from exercises.making import LADDER, is_seen, make_exercise
from exercises.unseen import is_in_benchmark
from tokenizer import complete_request, fenced

BLANKS = {", ": ",", " == ": "==", "(": "( "}  # in a test: what most people write, and what some do
# A text in quotes, which may be left open, or one of BLANKS between values.
TYPED = re.compile(r"""(["'])((?:\\.|(?!\1)[^\\])*)(\1?)|, | == """)
GAPS = ("one_line", "several_lines")  # what is cut out of a solution, as in HumanEval infilling (arXiv:2207.14255)


def record(view, seed, i):
    """The i-th line of a view's file; a rung of the ladder is a view too, and so is each of GAPS."""
    return made(view, seed, i)[1]


def made(view, seed, i):
    """(Exercise, record) of the i-th line of a view's file; the Exercise is None for small talk. What is like a
    benchmark, or too short for a gap, is drawn anew. Raises UserError after 1,000 such ones."""
    for attempt in range(1000):
        number = f"{i}.{attempt}"
        rng = random.Random(f"{view}|{number}|{seed}")
        if view == "chats":
            exercise, texts = chat(rng, seed, number)
            turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
            found = {"id": f"chats/{i}", "messages": turns}
        elif view == "documents":
            exercise = make_exercise(view, number, seed)
            texts = [document(exercise, rng)]
            found = {"id": f"documents/{i}", "text": texts[0], "composition": ">".join(exercise.parts)}
        elif view in GAPS:  # of the test problems, rung by rung
            place, rung = divmod(i, len(LADDER))
            exercise = make_exercise(LADDER[rung], f"{place}.{attempt}", seed)
            found = gap(exercise, view, i, rng)
            if not found:
                continue
            texts = [found["prompt"] + found["canonical_solution"] + found["suffix"]]
        else:
            exercise = make_exercise(view, number, seed)
            found = problem(exercise, view, i, rng)
            texts = [found["prompt"] + found["canonical_solution"]]
        if not any(map(is_in_benchmark, texts)):
            return exercise, found
    raise UserError(f"no exercise for {view} found that is not like one of a benchmark")


def signature_of(exercise, with_hints=False):
    """def name(xs: list[int], k: int) -> int:"""
    if not with_hints:
        return f"def {exercise.name}({', '.join(exercise.parameters)}):"
    *hints, result = exercise.hints
    parameters = [name if kind == "object" else f"{name}: {kind}" for name, kind in zip(exercise.parameters, hints)]
    return f"def {exercise.name}({', '.join(parameters)})" + (":" if result == "object" else f" -> {result}:")


def with_typing(signature):
    """A signature with the names of the module typing, as older programs have them, behind their import."""
    used = [name for name in ("list", "dict", "tuple", "set") if f"{name}[" in signature]
    for name in used:
        signature = signature.replace(f"{name}[", f"{name.capitalize()}[")
    imports = f"from typing import {', '.join(map(str.capitalize, used))}\n\n\n" if used else ""
    return imports + signature


def call(name, arguments):
    """name(1, 2)"""
    return f"{name}({', '.join(map(literal, arguments))})"


def assertion(name, arguments, result):
    """assert name(1, 2) == 3"""
    return f"assert {call(name, arguments)} == {literal(result)}"


def as_typed(exercise, rng):
    """The examples as tests, all in one form of frames.txt and with the same blanks and quotes; a text that holds a
    quote or a backslash keeps its own."""
    result_type = exercise.hints[-1].partition("[")[0]  # list of list[int]
    form = rng.choice(wording.SENTENCES["test"] + wording.SENTENCES.get(f"test of {result_type}", []))
    quote = rng.choice(['"', "'"])
    blanks = {usual: rng.choice([usual, usual, other]) for usual, other in BLANKS.items()}

    def typed(match):
        """One of BLANKS as it was drawn, or a text in the quotes that were."""
        _, text, end = match.groups()
        if text is None:
            return blanks[match[0]]
        return f"{quote}{text}{quote}" if end and not re.search(r"""["'\\]""", text) else match[0]

    tests = []
    for arguments, result in exercise.examples:
        called = call(exercise.name, arguments).replace("(", blanks["("], 1)
        tests.append(TYPED.sub(typed, form.format(call=called, result=literal(result))))
    return tests


def head(exercise, rng, least=0):
    """The signature and a docstring, in one of many layouts: what comes before the body. least: examples that it must
    show."""
    signature = signature_of(exercise, rng.random() < 0.35)
    if rng.random() < 0.6:
        signature = with_typing(signature)
    n_examples = max(least, rng.choice([0, 0, 0, 0, 0, 1, 1, 1, 1, 2]))
    lines = [exercise.sentence]
    if rng.random() < 0.5:
        width = rng.randint(50, 100)
        lines = textwrap.wrap(exercise.sentence, width, break_on_hyphens=False)
    form = rng.choice(wording.SENTENCES["example"])
    shown = []
    for n, (arguments, result) in enumerate(exercise.examples[:n_examples]):
        text = form.format(call=call(exercise.name, arguments), result=literal(result)).split(" / ")
        shown += text if n == 0 else [line for line in text if not line.endswith(":")]
    if shown and rng.random() < 0.35:
        lines.append("")
    lines += shown
    quotes = "'" * 3 if rng.random() < 0.1 and "'''" not in exercise.sentence else '"' * 3
    layout = rng.random()
    text = quotes + ("" if layout < 0.5 else " " if layout < 0.7 else "\n") + "\n".join(lines)
    is_closed = "\n" not in text and rng.random() < 0.5 and not text.endswith(quotes[0])
    text += quotes if is_closed else f"\n{quotes}"
    return f"{signature}\n{indented(text)}\n"


def definition(exercise, body, with_hints=False):
    """The function without a docstring."""
    return f"{signature_of(exercise, with_hints)}\n{indented(body)}"


def document(exercise, rng):
    """A textbook page: a function with a docstring, with a comment or with a text and a test in front."""
    body = exercise.bodies[0] if rng.random() < 0.92 else rng.choice(exercise.bodies)
    form = rng.random()
    if form < 0.2:
        test = as_typed(exercise, rng)[0]
        return f'"""\n{exercise.sentence}\n{test}\n"""\n{definition(exercise, body)}\n'
    if form < 0.28:
        return f"# {exercise.sentence}\n{definition(exercise, body, rng.random() < 0.3)}\n"
    return head(exercise, rng) + indented(body) + "\n"


def chat(rng, seed, i):
    """(Exercise, turns): a request and its function, in a quarter of the conversations beside small talk or behind
    another request, with which it has nothing to do; or (None, small talk)."""
    chance = rng.random()
    if chance < 0.02:
        return None, small_talk(rng, "before", "anywhere", "end")
    exercise, turns = answered(rng, seed, i)
    if chance < 0.05:
        return exercise, small_talk(rng, "before", "anywhere") + turns
    if chance < 0.08:
        return exercise, turns + small_talk(rng, "behind", "anywhere", "end")
    if chance < 0.25:
        earlier = answered(rng, seed, f"{i}.before")[1]
        return exercise, earlier + (small_talk(rng, "behind", "anywhere") if chance < 0.11 else []) + turns
    return exercise, turns


def small_talk(rng, *places):
    """What a person says who asks for no function, at one of some places in a conversation, and the answer."""
    lines = sum((wording.SENTENCES[place] for place in places), [])
    asked, answer = rng.choice(lines).split(" => ")
    return [rng.choice(asked.split(" | ")), answer]


def answered(rng, seed, i):
    """(Exercise, turns): a request in one of many forms and the function, sometimes more."""
    form = rng.choice(wording.SENTENCES["request"]) if rng.random() < 0.65 else ""
    natural = bool(form) and "{" not in form.replace("{sentence}", "")
    exercise = make_exercise("chats", i, seed, natural=natural)
    signature = signature_of(exercise)
    if form:
        tests = as_typed(exercise, rng)
        sentence = mistyped(exercise, rng) if rng.random() < 0.1 else exercise.sentence
        request = form.replace("\\n", "\n").format(
            sentence=wording.ended(form, sentence),
            name=exercise.name,
            arguments=", ".join(exercise.parameters),
            signature=signature,
            test=tests[0],
            tests="\n".join(tests),
        )
    else:
        start = head(exercise, rng)
        request = complete_request(start)
        signature = re.match(r"(from .*\n\n\n)?def .*", start)[0]
    # Always the plainest way: which one is wanted cannot be known, so that chance would be noise.
    turns = [request, function(signature, exercise.bodies[0])]
    return exercise, turns + second_turn(exercise, signature, rng)


def function(signature, body):
    """The answer to a request."""
    return fenced(f"{signature}\n{indented(body)}", "python")


def second_turn(exercise, signature, rng):
    """Behind a fifth of the functions something more is asked of them. signature: that of the answer."""
    body, *others = exercise.bodies
    name, (old, new, changed) = wording.random_name(rng), exercise.changed or (None, None, None)
    same, other = [], []  # (what is asked, signature and body of the answer) for the same function or another one
    if others:
        same.append(("another way", signature, others[0]))
    if not re.search(rf"\b({exercise.name}|{name})\b", f"{body} {exercise.parameters}"):
        same.append(("another name", signature.replace(f"def {exercise.name}(", f"def {name}("), body))
    if signature == signature_of(exercise) and "object" not in exercise.hints:
        same.append(("type hints", signature_of(exercise, with_hints=True), body))
    if changed:
        other.append(("another constant", signature, changed))
    # Of one operation alone: the opposite of several may be a composition that is held out.
    is_boolean = exercise.hints[-1] == "bool" and len(exercise.parts) == 1 and is_seen(["negate", *exercise.parts])
    if is_boolean and (code := expression(body)) and not code.startswith("not "):
        other.append(("the opposite", signature, f"return {opposite(code)}"))
    if other and rng.random() < 0.4:  # they are seldom possible
        kind, signature, body = rng.choice(other)
    elif same and rng.random() < 0.15:
        kind, signature, body = rng.choice(same)
    else:
        return []
    request = rng.choice(wording.SENTENCES[kind]).format(name=name, old=old, new=new)
    return [request, function(signature, body)]


def mistyped(exercise, rng):
    """The sentence of an exercise with a slip in one of its longer words, but in no name or constant."""
    words = exercise.sentence.split(" ")
    names = (*exercise.parameters, "True", "False", "None")
    long = [n for n, word in enumerate(words) if word.isalpha() and len(word) > 4 and word not in names]
    if long:
        n = rng.choice(long)
        k = rng.randrange(1, len(words[n]) - 1)
        before, letter, after = words[n][:k], words[n][k], words[n][k + 1 :]
        lacking, doubled = before + after, before + letter + letter + after
        swapped = before[:-1] + letter + before[-1] + after
        words[n] = rng.choice([lacking, doubled, swapped])
    return " ".join(words)


def problem(exercise, rung, number, rng):
    """The exercise in HumanEval's shape."""
    tests = [assertion("candidate", *example) for example in exercise.examples[1:]]
    return {
        "task_id": f"{rung}/{number}",
        "prompt": head(exercise, rng, least=1),
        "entry_point": exercise.name,
        "canonical_solution": indented(exercise.bodies[0]) + "\n",
        "test": "def check(candidate):\n" + indented("\n".join(tests)) + "\n",
        "family": rung,
        "composition": ">".join(exercise.parts),
    }


def gap(exercise, kind, number, rng):
    """The exercise in the shape of HumanEval infilling: prompt + canonical_solution + suffix is a right program.

    It is the longest way to write it; None if that has less than three lines. One line, or several, are the gap; never
    the last, so that something follows."""
    longest = max(exercise.bodies, key=lambda body: body.count("\n"))
    lines = [f"{line}\n" for line in indented(longest).split("\n")]
    if len(lines) < 3:
        return None
    n_lines = 1 if kind == "one_line" else rng.randint(2, len(lines) - 1)
    starts = range(len(lines) - n_lines)
    start = rng.choice([place for place in starts if lines[place].strip()])  # nobody misses an empty line
    found = problem(exercise, kind, number, rng)
    return found | {
        "prompt": found["prompt"] + "".join(lines[:start]),
        "canonical_solution": "".join(lines[start : start + n_lines]),
        "suffix": "".join(lines[start + n_lines :]),
    }
