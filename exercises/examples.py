"""Arguments for a function that is made, and what it returns for them: the examples of docstrings and tests."""

import collections

from exercises import kinds
from exercises.code import indented
from exercises.compose import Unfit, resolved

LARGEST = 9999  # numbers beyond it do not occur in examples, but for the rung of large constants


def load(name, parameters, body):
    """The function that a body makes. Only text of the tables is executed here."""
    scope = {}
    exec(f"def {name}({', '.join(parameters)}):\n{indented(body)}", scope)
    return scope[name]


def worked_examples(rng, draft, constants, functions, near, count):
    """count pairs (arguments, result), what shows little at the end.

    functions: the ways to write it, which must agree; constants: {placeholder: value} of what is no argument; near:
    numbers in whose neighbourhood arguments are drawn too. Raises Unfit where the ways disagree or raise, where too few
    results differ, where a step of a chain never changes anything, or a choice is nearly always decided alike.
    """
    steps = [load("step", stage.parameters, stage.bodies[0]) for stage in draft.stages]
    decision = load("decision", draft.parameters, f"return bool({draft.test})") if draft.test else None
    largest = LARGEST if max(near, default=0) <= LARGEST else 10**6
    found, decided, errors = {}, [], 0
    idle = set(range(len(steps)))  # the steps behind which nothing has ever changed
    for _ in range(4 * count):
        given = drawn(rng, draft, constants, near)
        arguments = [value for placeholder, value in given.items() if placeholder not in constants]
        try:
            values = step_values(given, draft.stages, steps)
            if values is None:
                continue
            results = [function(*copied(arguments)) for function in functions]
        except Exception:
            errors += 1
            if errors > count:
                raise Unfit from None
            continue
        if len(set(map(literal, results))) > 1:
            raise Unfit
        if not any(unsuitable(value, largest) for value in [*arguments, results[0]]):
            found[literal(arguments)] = (arguments, results[0])
            if decision:
                decided.append(decision(*copied(list(given.values()))))
            values.append(results[0])
            idle -= {n for n in idle if literal(values[n]) != literal(values[n + 1])}
        if len(found) == count:
            break
    is_one_sided = decision and min(map(decided.count, (False, True))) < count / 5
    if len(found) < count or idle or is_one_sided:
        raise Unfit
    commonest = collections.Counter(literal(result) for _, result in found.values()).most_common(1)
    if commonest[0][1] > max(2, 0.7 * count):
        raise Unfit
    return sorted(found.values(), key=lambda example: not example[1] or not all(example[0]))


def step_values(given, stages, steps):
    """What each step of a chain before the last returns; None where one is not of its kind, or so large that the next
    might take long."""
    values = []
    for stage, step in zip(stages, steps):
        value = step(*[copied(given[placeholder]) for placeholder in stage.parameters])
        if not kinds.fits(value, resolved(stage)) or too_large(value, LARGEST // 10):
            return None
        values.append(value)
    return values


def drawn(rng, draft, constants, near):
    """{placeholder: value} for a call of a Draft or an Operation."""
    given, first = {}, None
    for placeholder, kind in draft.parameters.items():
        if placeholder in constants:
            given[placeholder] = constants[placeholder]
        else:
            given[placeholder] = kinds.draw_one(rng, kind, draft.values.get(placeholder), near, first, draft)
        if first is None:
            first = given[placeholder]
    return given


def copied(value):
    """A deep copy of lists, dicts, tuples and sets; copy.deepcopy takes ten times as long."""
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


def unsuitable(value, largest):
    """Whether a value is too large for an example, or holds a list that a benchmark's tests may hold too, which must
    not be trained on: one with three evenly spaced numbers, with four one-digit numbers in a row or three at the end;
    one of single letters."""
    if isinstance(value, dict):
        return len(value) > 8 or any(unsuitable(item, largest) for item in [*value, *value.values()])
    if isinstance(value, list | tuple | set):
        value = list(value)
        numbers = value if all(type(x) is int for x in value) else []
        evenly_spaced = any(b - a == c - b for a, b, c in zip(numbers, numbers[1:], numbers[2:]))
        sizes = "".join("d" if -10 < x < 10 else "-" for x in numbers)  # d: one digit
        one_digit = "dddd" in sizes or sizes.endswith("ddd")
        single_letters = len(value) > 2 and all(isinstance(x, str) and len(x) == 1 for x in value)
        is_known = evenly_spaced or one_digit or single_letters
        return is_known or len(value) > 12 or any(unsuitable(item, largest) for item in value)
    if isinstance(value, str):
        return len(value) > 70
    return value is not None and not abs(value) <= largest
