"""Says what is wrong with a table of operations: python -m exercises.check exercises/operations/lists.txt"""

import ast
import random
import re
import sys
from pathlib import Path

from exercises.kinds import KINDS, RELATED, draw, fits
from exercises.tables import FOLDER, read_table

LEAST_PHRASES, LEAST_BODIES, TRIALS = 6, 2, 60
MODULES = {"math", "string", "re", "collections", "itertools", "functools", "datetime", "statistics", "bisect", "heapq"}


def load(operation, body):
    """The function that a body makes. Only text of the tables is executed here."""
    scope = {}
    lines = [f"def {operation.name}({', '.join(operation.parameters)}):", *("    " + line for line in body.split("\n"))]
    exec("\n".join(lines), scope)
    return scope[operation.name]


def faults_of(operation):
    """What is wrong with an operation: a list of texts."""
    kinds = [kind for kind in operation.parameters.values() if isinstance(kind, str)]
    unknown = [kind for kind in [*kinds, operation.result.rstrip("?")] if kind not in KINDS and kind not in RELATED]
    if unknown or not operation.parameters:
        return [f"unknown kind {', '.join(unknown)}"]
    faults = [*phrase_faults(operation)]
    if len(set(operation.bodies)) < LEAST_BODIES:
        faults.append(f"fewer than {LEAST_BODIES} ways to write it")
    for body in operation.bodies:
        faults += body_faults(operation, body)
    return faults or run_faults(operation)


def phrase_faults(operation):
    """Faults of the wording."""
    texts = [text for _, text in operation.phrases]
    if len(set(texts)) < LEAST_PHRASES:
        yield f"{len(set(texts))} phrases instead of {LEAST_PHRASES}"
    if len(texts) > len(set(texts)):
        yield "a phrase stands there twice"
    for text in texts:
        slots = set(re.findall(r"{(\w+)}", text))
        if lacking := set(operation.parameters) - slots:
            yield f"not mentioned: {', '.join(sorted(lacking))} in {text!r}"
        if strange := slots - set(operation.parameters) - {"e", "e1"}:
            yield f"no parameter: {', '.join(sorted(strange))} in {text!r}"
        if text.endswith((".", "?", "!")) or text[:1].isupper():
            yield f"a phrase is part of a sentence: {text!r}"
    if operation.result == "bool" and not any(mark == "?" for mark, _ in operation.phrases):
        yield "no phrase begins with ?, a clause that is true or false"


def body_faults(operation, body):
    """Faults of one way to write it."""
    try:
        tree = ast.parse("def f():\n" + "\n".join("    " + line for line in body.split("\n")))
    except SyntaxError as error:
        return [f"{error.msg}: {body}"]
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            faults.append("no f-strings: names inside of them are not seen")
        if isinstance(node, ast.keyword) and node.arg in operation.parameters:
            faults.append(f"a keyword is called like the parameter {node.arg}")
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            faults += [f"import of {name}" for name in named if name not in MODULES]
    if any(len(line) > 96 for line in body.split("\n")):
        faults.append("a line of code of more than 96 characters")
    return faults


def run_faults(operation):
    """Faults that running it shows: an error, ways that differ, always the same result, a result of another kind."""
    rng, functions = random.Random(operation.name), [load(operation, body) for body in operation.bodies]
    results, errors, last_error = [], 0, ""
    for _ in range(TRIALS):
        arguments = draw(rng, operation)
        try:
            found = [function(*copied(arguments)) for function in functions]
        except Exception as error:
            errors, last_error = errors + 1, f"{type(error).__name__}: {error}, for {arguments}"
            continue
        if any(literal(other) != literal(found[0]) for other in found):
            return [f"the ways differ for {arguments}: {found}"]
        results.append(found[0])
    if errors > TRIALS / 4:
        return [f"{errors} of {TRIALS} trials raise {last_error}"]
    shown = [literal(result) for result in results]
    commonest = max(map(shown.count, shown))
    if commonest > 0.8 * len(shown):
        return [f"{commonest} of {len(shown)} results are {max(shown, key=shown.count)}: better values by `with`"]
    return [f"{result!r} is not of kind {operation.result}" for result in results if not fits(result, operation.result)][:1]


def copied(value):
    """A deep copy of lists, dicts, tuples and sets."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, list | tuple | set) else value


def literal(value):
    """repr, but sets in order."""
    if isinstance(value, set):
        return "{" + ", ".join(sorted(map(literal, value))) + "}" if value else "set()"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)


def main(paths):
    """Print the faults of each file, and how many operations and phrases it holds."""
    failed = False
    for path in paths or sorted(FOLDER.glob("*.txt")):
        operations = read_table(Path(path))
        names = [operation.name for operation in operations]
        for operation in operations:
            for fault in faults_of(operation) + (["a name stands there twice"] if names.count(operation.name) > 1 else []):
                failed = True
                print(f"{path}:{operation.line} {operation.name}: {fault}")
        print(f"{path}: {len(operations)} operations, {sum(len(o.phrases) for o in operations)} phrases")
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1:])
