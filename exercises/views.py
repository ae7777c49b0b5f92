"""From a Draft of programs.py to an Exercise with a name and examples, and from that to a textbook page, a conversation
or a test problem. The results in examples and tests come from running the code.

A *composition* is the family and the sequence of its operations, "lists:keep_above>sum", without names, constants and
wording. Its hash decides whether it belongs to training or to the test problems. Were single exercises divided instead,
the same chain of operations with other numbers would lie on both sides, and a model could remember it. This way, a test
problem can only be solved by putting known operations together in a new way.
"""

import collections
import hashlib
import random
import re
from dataclasses import dataclass

from configurator import UserError
from exercises import operations
from exercises.programs import FAMILIES, Draft, indented
from tokenizer import complete_request, fenced

TEST_SHARE = 0.1  # of the compositions
N_TESTS = 12  # assertions per problem
LARGEST = 9999  # numbers beyond it do not occur in examples
VIEWS = ("documents", "chats", "problems")


@dataclass
class Exercise:
    """A function in words and in code, and what it returns for some arguments."""

    family: str
    composition: str  # family and operations: what the split is made by
    draft: Draft  # the function without its name
    name: str
    signature: str  # def name(argument):
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (argument, result); the first is shown in the docstring, the others are for tests
    trace: list  # the first example's value after each operation, where operations follow each other


def is_test(composition):
    """Whether a composition belongs to the test problems."""
    return int.from_bytes(hashlib.sha256(composition.encode()).digest()[:8]) < TEST_SHARE * 2**64


def make_exercise(family, index, seed, test=False):
    """The index-th exercise of a family, from the compositions of the training or of the test side.

    Drafts are drawn until one is of the right side and has fit examples. Raises UserError after 10,000 of them.
    """
    for attempt in range(10_000):
        key = f"{family}|{index}|{seed}|{test}|{attempt}"
        rng = random.Random(int.from_bytes(hashlib.blake2b(key.encode()).digest()[:8]))
        draft = FAMILIES[family](rng)
        composition = f"{family}:" + ">".join(draft.operations)
        if is_test(composition) != test:
            continue
        name = f"{rng.choice(operations.VERBS)}_{draft.argument}"
        examples = worked_examples(draft, name, rng, N_TESTS + 1 if test else 2)
        if examples is None or (test and not every_step_matters(draft, name, examples)):
            continue
        bodies = [body.replace("FUNCTION", name) for body in draft.bodies]
        trace = [load(stage, name, draft.argument)(examples[0][0]) for stage in draft.stages]
        return Exercise(family, composition, draft, name, f"def {name}({draft.argument}):", bodies, examples, trace)
    raise UserError(f"no exercise of family {family} found: are all its compositions on one side of the split?")


def load(body, name, argument):
    """The function that a body makes. Only text that programs.py wrote is executed here."""
    scope = {}
    exec(f"def {name}({argument}):\n" + body.replace("FUNCTION", name), scope)
    return scope[name]


def random_number(rng, constants):
    """A small whole number, often next to a constant of the program: that is where an error shows."""
    if constants and rng.random() < 0.4:
        return rng.choice(constants) + rng.randint(-1, 1)
    return rng.randint(-9 if rng.random() < 0.3 else 0, 20)


def random_input(rng, kind, constants, short):
    """An argument of a Draft's kind to try a function on; short ones are for a docstring."""
    n = rng.randint(3, 4) if short else rng.choice((0, 1, 2, 4, 5, 6, 7))
    if kind == "number":
        return max(0, rng.randint(0, 400) if rng.random() < 0.6 else random_number(rng, constants))
    if kind == "small":
        return rng.randint(10, 25) if short else rng.randint(0, 40)
    if kind == "ints":
        return [random_number(rng, constants) for _ in range(n)]
    if kind == "nested":
        values = [random_number(rng, constants) for _ in range(n)]  # a, b, c, d becomes a, [b, [c]], c, [d]
        if n > 1:
            values[1] = [values[1], [values[-2]]]
        if n > 3:
            values[3] = [values[3]]
        return values
    if kind == "table":
        return {name: random_number(rng, constants) for name in rng.sample(operations.NAMES, n)}
    words = [rng.choice(operations.WORDS) for _ in range(rng.randint(2, 3) if short else n)]
    return rng.choice("#*").join(words) if kind == "marked" else " ".join(words)


def worked_examples(draft, name, rng, count):
    """count pairs (argument, result), those with an empty result or 0 at the end. None where the bodies disagree, more
    than half of the results are the same, or too few examples are suitable."""
    functions = [load(body, name, draft.argument) for body in dict.fromkeys(draft.bodies)]
    examples = {}
    for _ in range(5 * count):
        argument = random_input(rng, draft.kind, draft.constants, short=len(examples) < 2)
        results = [function(argument) for function in functions]
        if len({repr(result) for result in results}) > 1:
            return None
        if not unsuitable(argument) and not unsuitable(results[0]):
            examples[repr(argument)] = (argument, results[0])
        if len(examples) == count:
            break
    commonest = collections.Counter(repr(result) for _, result in examples.values()).most_common(1)
    if len(examples) < count or commonest[0][1] > (count + 1) // 2:
        return None
    return sorted(examples.values(), key=lambda example: not example[1])


def unsuitable(value):
    """Whether a value is too large for an example, or holds a list that a benchmark's tests may hold too, which must
    not be trained on: one with three evenly spaced numbers, with four one-digit numbers in a row or three at the end;
    one of two one-digit numbers, or of single letters."""
    if isinstance(value, dict):
        return any(map(unsuitable, value.values()))
    if isinstance(value, list):
        numbers = value if all(type(x) is int for x in value) else []
        evenly_spaced = any(b - a == c - b for a, b, c in zip(numbers, numbers[1:], numbers[2:]))
        sizes = "".join("d" if -10 < x < 10 else "-" for x in numbers)  # d: one digit
        one_digit = "dddd" in sizes or sizes.endswith("ddd") or sizes == "dd"
        single_letters = len(value) > 2 and all(isinstance(x, str) and len(x) == 1 for x in value)
        return evenly_spaced or one_digit or single_letters or len(value) > 12 or any(map(unsuitable, value))
    return len(value) > 60 if isinstance(value, str) else abs(value) > LARGEST


def every_step_matters(draft, name, examples):
    """Whether the examples show it if any one step of a pipeline is left out: sorting before a sum would not show."""
    for body in draft.dropped:
        shortened = load(body, name, draft.argument)
        try:
            if all(repr(shortened(value)) == repr(result) for value, result in examples):
                return False
        except (TypeError, AttributeError, ValueError):  # without the step the next one has the wrong type
            continue
    return True


def record(view, seed, i):
    """The i-th line of a view's file: exercises of all families in turn."""
    family = list(FAMILIES)[i % len(FAMILIES)]
    number = i // len(FAMILIES)
    made = make_exercise(family, f"{view}{number}", seed, test=view == "problems")
    rng = random.Random(f"{view}|{i}|{seed}")
    if view == "documents":
        return {"id": f"documents/{i}", "text": document(made, rng)}
    if view == "chats":
        return {"id": f"chats/{i}", "messages": chat(made, rng)}
    return problem(made, number)


def head(exercise):
    """The signature and a docstring with one example: what comes before the body."""
    argument, result = map(literal, exercise.examples[0])
    docstring = f'"""{exercise.draft.summary}\n>>> {exercise.name}({argument})\n{result}\n"""'
    return exercise.signature + "\n" + indented(docstring.split("\n"))


def literal(value):
    """repr with double quotes, as the programs are written."""
    return re.sub(r"'([^'\"]*)'", r'"\1"', repr(value))  # no string here holds a quote


EXPLANATIONS = {
    "lists": "A list goes through one step after the other.",
    "strings": "A text goes through one step after the other.",
    "dicts": "A dict is built anew from the entries of another.",
    "numbers": "A number goes through one step after the other.",
    "recursion": "The function calls itself on a smaller part and joins the results.",
    "states": "A loop carries a state from one value to the next.",
}


def document(exercise, rng):
    """A textbook page: the function, and in a quarter of them an explanation before and a worked example behind it."""
    function = head(exercise) + rng.choice(exercise.bodies)
    if rng.random() < 0.75:
        return function
    argument, result = exercise.examples[0]
    use_trace = exercise.trace and not any(map(unsuitable, exercise.trace))
    values = [argument, *exercise.trace] if use_trace else [argument, result]
    steps = " -> ".join(map(literal, values))
    explanation = EXPLANATIONS[exercise.family]
    return f"# {explanation}\n\n{function}\n# {exercise.name}({literal(argument)}): {steps}\n"


def chat(exercise, rng):
    """A conversation: a request in one of several forms, the function, and sometimes a second turn."""
    summary, name, argument = exercise.draft.summary, exercise.name, exercise.draft.argument
    complete = complete_request(head(exercise))
    write = f"Write a Python function `{name}({argument})`.\n{summary}"
    implement = f"Implement `{name}({argument})` in Python:\n{summary}"
    describe = f"{summary}\nName the function `{name}`, its argument `{argument}`."
    request = rng.choice([complete, complete, complete, write, implement, describe])

    answers = [fenced(f"{exercise.signature}\n{body}", "python") for body in dict.fromkeys(exercise.bodies)]
    turns = [request, answers[0]]
    second_turn = rng.random()
    if second_turn < 0.1 and len(answers) > 1:
        turns += ["Write it with plain loops.", answers[1]]
    elif second_turn < 0.2:
        value, result = map(literal, exercise.examples[1])
        turns += ["Show a call.", f"`{name}({value})` returns `{result}`."]
    return [{"role": role, "content": content} for role, content in zip(("user", "assistant") * 2, turns)]


def problem(exercise, number):
    """The exercise in HumanEval's shape."""
    test = "def check(candidate):\n"
    for argument, result in exercise.examples[1:]:
        test += f"    assert candidate({literal(argument)}) == {literal(result)}\n"
    return {
        "task_id": f"{exercise.family}/{number}",
        "prompt": head(exercise),
        "entry_point": exercise.name,
        "canonical_solution": exercise.bodies[0],
        "test": test,
        "family": exercise.family,
        "level": len(exercise.draft.operations),
        "composition": exercise.composition,
    }
