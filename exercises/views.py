"""From a Draft of programs.py to an Exercise with a name and examples, and from that to a textbook page, a conversation
or a test problem.

What the docstring of an exercise promises is what its code does, for its examples and tests come from running the code.

A *composition* is the family and the sequence of its operations, "lists:keep_above>sum", without names, constants and
wording. Every composition belongs either to training or to the test problems, by its hash. Splitting by exercise would
not do: the same chain of operations with other numbers would lie on both sides, and a model could remember it. Like
this, a test problem can only be solved by putting known operations together in a new way.
"""

import collections
import hashlib
import random
import re
from dataclasses import dataclass

from configurator import UserError
from exercises import operations
from exercises.programs import FAMILIES
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
    level: int  # how many operations
    signature: str  # def name(argument):
    entry_point: str  # name
    argument: str
    summary: str  # what the function does
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (argument, result); the first shows something, the others test
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
        first_input = examples[0][0]
        return Exercise(
            family=family,
            composition=composition,
            level=len(draft.operations),
            signature=f"def {name}({draft.argument}):",
            entry_point=name,
            argument=draft.argument,
            summary=draft.summary,
            bodies=[body.replace("FUNCTION", name) for body in draft.bodies],
            examples=examples,
            trace=[load(stage, name, draft.argument)(first_input) for stage in draft.stages],
        )
    raise UserError(f"no exercise of family {family} found: are all its compositions on one side of the split?")


def load(body, name, argument):
    """The function that a body makes. Only text that programs.py wrote is executed here."""
    scope = {}
    exec(f"def {name}({argument}):\n" + body.replace("FUNCTION", name), scope)
    return scope[name]


# -- examples


def random_number(rng, constants, top=20):
    """A small whole number, often next to a constant of the program: that is where an error shows."""
    if constants and rng.random() < 0.4:
        return rng.choice(constants) + rng.randint(-1, 1)
    return rng.randint(-9, top) if rng.random() < 0.3 else rng.randint(0, top)


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
        values = [random_number(rng, constants) for _ in range(n)]
        nested = list(values)  # a, b, c, d becomes a, [b, [c]], c, [d]
        if n > 1:
            nested[1] = [values[1], [values[-2]]]
        if n > 3:
            nested[3] = [values[3]]
        return nested
    if kind == "table":
        return {name: random_number(rng, constants) for name in rng.sample(operations.NAMES, n)}
    words = [rng.choice(operations.WORDS) for _ in range(rng.randint(2, 3) if short else n)]
    return rng.choice("#*").join(words) if kind == "marked" else " ".join(words)


def worked_examples(draft, name, rng, count):
    """count pairs (argument, result), the first of which shows something. None where the bodies disagree, most results
    are alike, or too few examples are fit to be shown."""
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
    return sorted(examples.values(), key=lambda example: not example[1])  # empty results and zeros go to the end


def unsuitable(value):
    """Whether a value is too large for an example, or holds a list such as benchmarks are full of, whose tests would
    then be in the training data: three evenly spaced numbers, four digits in a row, three at the end, or only two;
    single letters."""
    if isinstance(value, dict):
        return any(map(unsuitable, value.values()))
    if isinstance(value, list):
        numbers = value if all(type(x) is int for x in value) else []
        even = any(b - a == c - b for a, b, c in zip(numbers, numbers[1:], numbers[2:]))
        digits = "".join("d" if -10 < x < 10 else "-" for x in numbers)
        letters = len(value) > 2 and all(isinstance(x, str) and len(x) == 1 for x in value)
        common = even or "dddd" in digits or digits.endswith("ddd") or digits == "dd" or letters
        return common or len(value) > 12 or any(map(unsuitable, value))
    return len(value) > 60 if isinstance(value, str) else abs(value) > LARGEST


def every_step_matters(draft, name, examples):
    """Whether leaving out any step of a pipeline changes a result: sorting before a sum would not."""
    for body in draft.dropped:
        shortened = load(body, name, draft.argument)
        try:
            if all(repr(shortened(value)) == repr(result) for value, result in examples):
                return False
        except (TypeError, AttributeError, ValueError):  # without the step the next one has the wrong type
            continue
    return True


# -- the three views


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
    argument, result = exercise.examples[0]
    lines = ['"""' + exercise.summary, f">>> {exercise.entry_point}({literal(argument)})", literal(result), '"""']
    return f"{exercise.signature}\n" + "".join(f"    {line}\n" for line in "\n".join(lines).split("\n"))


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
    shown = [argument, result]
    if exercise.trace and not any(map(unsuitable, exercise.trace)):
        shown = [argument, *exercise.trace]
    steps = " -> ".join(map(literal, shown))
    explanation = EXPLANATIONS[exercise.family]
    return f"# {explanation}\n\n{function}\n# {exercise.entry_point}({literal(argument)}): {steps}\n"


def chat(exercise, rng):
    """A conversation: a request in one of several forms, the function, and sometimes a second turn."""
    summary, call = exercise.summary, f"{exercise.entry_point}({exercise.argument})"
    complete = complete_request(head(exercise))
    write, implement = f"Write a Python function `{call}`.\n{summary}", f"Implement `{call}` in Python:\n{summary}"
    name = f"{summary}\nName the function `{exercise.entry_point}`, its argument `{exercise.argument}`."
    request = rng.choice([complete, complete, complete, write, implement, name])

    answers = [fenced(f"{exercise.signature}\n{body}", "python") for body in dict.fromkeys(exercise.bodies)]
    turns = [request, answers[0]]
    second_turn = rng.random()
    if second_turn < 0.1 and len(answers) > 1:
        turns += ["Write it with plain loops.", answers[1]]
    elif second_turn < 0.2:
        value, result = exercise.examples[1]
        turns += ["Show a call.", f"`{exercise.entry_point}({literal(value)})` returns `{literal(result)}`."]
    roles = ("user", "assistant") * 2
    return [{"role": role, "content": content} for role, content in zip(roles, turns)]


def problem(exercise, number):
    """The exercise in HumanEval's shape."""
    asserts = [
        f"    assert candidate({literal(value)}) == {literal(result)}" for value, result in exercise.examples[1:]
    ]
    return {
        "task_id": f"{exercise.family}/{number}",
        "prompt": head(exercise),
        "entry_point": exercise.entry_point,
        "canonical_solution": exercise.bodies[0],
        "test": "\n".join(["def check(candidate):", *asserts]) + "\n",
        "family": exercise.family,
        "level": exercise.level,
        "composition": exercise.composition,
    }
