"""Python exercises without end: functions composed from small typed operations, each with docstring, solution, tests.

    python corpus/exercises.py --out_dir=data/exercises          documents.jsonl, chats.jsonl, problems.jsonl

The idea is phi-1's (arXiv:2306.11644), the generator is ours and needs no other model: a program is a chain of
operations, each of which knows several ways to be said and to be written (corpus/operations.py, joined by
corpus/programs.py). What the docstring promises is what the code does, for the examples and tests come from running the
code. A *composition* is the sequence of operations without names, constants and wording; every composition belongs to
training or to the test problems by its hash, so a test problem can be solved by composing, never by remembering.
"""

import collections
import hashlib
import json
import os
import random
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

import configurator
from configurator import UserError
from exercises.operations import VERBS
from exercises.programs import FAMILIES, random_input
from tokenizer import complete_request, fenced


@dataclass
class Settings:
    out_dir: str = "data/exercises"  # documents.jsonl, chats.jsonl, problems.jsonl
    documents: int = 40_000  # exercises as textbook pages
    chats: int = 6_000  # exercises as conversations
    problems: int = 300  # exercises as test problems, the same number from every family
    num_workers: int = 0  # processes; 0 = one per core; the files do not depend on it
    seed: int = 1337  # another seed, other exercises; the split by composition stays


TEST_SHARE = 0.1  # of the compositions
N_TESTS = 12  # assertions per problem
LARGEST = 9999  # numbers beyond it do not occur in examples


@dataclass
class Exercise:
    family: str
    composition: str  # family and operations: what the split is made by
    level: int  # how many operations
    signature: str  # def name(argument):
    entry_point: str
    summary: str  # what the function does
    bodies: list[str]  # of functions that do the same, the plainest first
    examples: list[tuple]  # (argument, result); the first shows something, the others test
    trace: list  # the first example's value after each operation, where operations follow each other


def is_test(composition):
    return int.from_bytes(hashlib.sha256(composition.encode()).digest()[:8]) < TEST_SHARE * 2**64


def exercise(family, index, seed, test=False):
    """The index-th exercise of a family, from the compositions of the training or of the test side."""
    for attempt in range(10_000):
        key = f"{family}|{index}|{seed}|{test}|{attempt}"
        rng = random.Random(int.from_bytes(hashlib.blake2b(key.encode()).digest()[:8]))
        draft = FAMILIES[family](rng)
        composition = f"{family}:" + ">".join(draft.operations)
        if is_test(composition) != test:
            continue
        name = f"{rng.choice(VERBS)}_{draft.argument}"
        examples = worked_examples(draft, name, rng, N_TESTS + 1 if test else 2)
        if examples is None or (test and not every_step_matters(draft, name, examples)):
            continue
        return Exercise(
            family,
            composition,
            len(draft.operations),
            f"def {name}({draft.argument}):",
            name,
            draft.summary,
            [body.replace("FUNCTION", name) for body in draft.styles],
            examples,
            [load(stage, name, draft.argument)(examples[0][0]) for stage in draft.stages],
        )
    raise UserError(f"no exercise of family {family} found: are all its compositions on one side of the split?")


def load(body, name, argument):
    """The function that a body makes. Only text that corpus/programs.py wrote is executed here."""
    scope = {}
    exec(f"def {name}({argument}):\n" + body.replace("FUNCTION", name), scope)
    return scope[name]


def worked_examples(draft, name, rng, count):
    """[(argument, result)], or None where the bodies disagree, most results are alike, or too few are fit to be shown."""
    functions = [load(body, name, draft.argument) for body in dict.fromkeys(draft.styles)]
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
    return sorted(examples.values(), key=lambda example: not example[1])  # one that shows something comes first


def unsuitable(value):
    """Whether a value is too large for an example, or holds a list as benchmarks are full of them: three evenly spaced
    numbers, four digits in a row, three at the end, or only two; single letters."""
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
        try:
            if all(repr(load(body, name, draft.argument)(value)) == repr(result) for value, result in examples):
                return False
        except (TypeError, AttributeError, ValueError):  # without the step the next one has the wrong type
            continue
    return True


# -- the three views


def docstring(e):
    """The lines of a docstring, with one example, indented as the body of a function."""
    argument, result = e.examples[0]
    lines = [*e.summary.split("\n"), f">>> {e.entry_point}({literal(argument)})", literal(result)]
    return "".join(f"    {line}\n" for line in ['"""' + lines[0], *lines[1:], '"""'])


def literal(value):
    """repr with double quotes, as the programs are written."""
    return re.sub(r"'([^'\"]*)'", r'"\1"', repr(value))  # no string here holds a quote


def document(e, rng):
    """A textbook page: the function, and in a quarter of the cases an explanation before and a worked example behind it."""
    function = f"{e.signature}\n{docstring(e)}{rng.choice(e.bodies)}"
    if rng.random() < 0.75:
        return function
    argument, result = e.examples[0]
    shown = [argument, *e.trace] if e.trace and not any(map(unsuitable, e.trace)) else [argument, result]
    steps = " -> ".join(map(literal, shown))
    explanation = f"# {EXPLANATIONS[e.family]}\n\n"
    return f"{explanation}{function}\n# {e.entry_point}({literal(argument)}): {steps}\n"


EXPLANATIONS = {
    "lists": "A list goes through one step after the other.",
    "strings": "A text goes through one step after the other.",
    "dicts": "A dict is built anew from the entries of another.",
    "numbers": "A number goes through one step after the other.",
    "recursion": "The function calls itself on a smaller part and joins the results.",
    "states": "A loop carries a state from one value to the next.",
}


def chat(e, rng):
    """A conversation: a request in one of several forms, the function, and sometimes a second turn."""
    task, argument = e.summary, e.signature[4:-1]
    prompt = f"{e.signature}\n{docstring(e)}"
    request = rng.choice(
        [complete_request(prompt)] * 3
        + [
            f"Write a Python function `{argument}`.\n{task}",
            f"Implement `{argument}` in Python:\n{task}",
            f"{task}\nName the function `{e.entry_point}`, its argument `{argument.split('(')[1][:-1]}`.",
        ]
    )
    plain, *others = dict.fromkeys(e.bodies)
    messages = [("user", request), ("assistant", fenced(f"{e.signature}\n{plain}", "python"))]
    turn = rng.random()
    if turn < 0.1 and others:
        messages += [
            ("user", "Write it with plain loops."),
            ("assistant", fenced(f"{e.signature}\n{others[0]}", "python")),
        ]
    elif turn < 0.2:
        value, result = e.examples[1]
        messages += [
            ("user", "Show a call."),
            ("assistant", f"`{e.entry_point}({literal(value)})` returns `{literal(result)}`."),
        ]
    return [{"role": role, "content": content} for role, content in messages]


def problem(e, number):
    """The exercise in HumanEval's shape."""
    tests = "".join(
        f"    assert candidate({literal(value)}) == {literal(result)}\n" for value, result in e.examples[1:]
    )
    return {
        "task_id": f"{e.family}/{number}",
        "prompt": f"{e.signature}\n{docstring(e)}",
        "entry_point": e.entry_point,
        "canonical_solution": e.bodies[0],
        "test": f"def check(candidate):\n{tests}",
        "family": e.family,
        "level": e.level,
        "composition": e.composition,
    }


def record(view, seed, i):
    """The i-th line of a view: exercises of all families in turn."""
    family = list(FAMILIES)[i % len(FAMILIES)]
    e = exercise(family, f"{view}{i // len(FAMILIES)}", seed, test=view == "problems")
    rng = random.Random(f"{view}|{i}|{seed}")
    if view == "documents":
        return {"id": f"documents/{i}", "text": document(e, rng)}
    if view == "chats":
        return {"id": f"chats/{i}", "messages": chat(e, rng)}
    return problem(e, i // len(FAMILIES))


def main(s):
    if min(s.documents, s.chats, s.problems, s.num_workers) < 0:
        raise UserError("documents, chats, problems and num_workers must not be negative")
    out = Path(s.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(s.num_workers or os.cpu_count()) as pool:
        for view in ("documents", "chats", "problems"):
            count, path = getattr(s, view), out / f"{view}.jsonl"
            records = pool.map(partial(record, view, s.seed), range(count), chunksize=200)
            with open(path.with_suffix(".tmp"), "w", encoding="utf-8") as f:
                for line in tqdm(records, total=count, desc=view, unit="exercise"):
                    f.write(json.dumps(line, ensure_ascii=False) + "\n")
            os.replace(path.with_suffix(".tmp"), path)
    configurator.write_json(out / "made_by.json", {"settings": asdict(s), "made_by": configurator.made_by()})
    print(f"{s.documents:,} documents, {s.chats:,} chats, {s.problems:,} problems -> {out}")


if __name__ == "__main__":
    configurator.run(main, Settings)
