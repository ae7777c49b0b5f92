"""The operations that exercises are made of, read from exercises/operations. An entry is a header like that of a
Python function, the ways to say what it returns, and the ways to write it:

    count_vowels(text: text) -> nat
        the number of vowels in {text} | how many vowels {text} has | !count the vowels in {text}
        = sum(1 for char in text if char.lower() in "aeiou")
        =
            count = 0
            for char in text:
                if char.lower() in "aeiou":
                    count += 1
            return count

Kinds (int, text, ints, ...) are those of kinds.toml; 2..9 is a whole number from 2 to 9. A line `with text: "a-b", "c"`
gives values to choose from where a kind says too little. Phrases are separated by | and say what is returned: a noun
phrase; with "!" an imperative; with "?" a clause that is true or false. {text} stands for how the argument is
mentioned, {e} and {e1} for what the first argument holds: "numbers" and "number". The plainest way to write it comes
first. operations/first holds what people ask for most and is drawn most often, operations/next what they ask for now
and then; seldom come operations/common, and hardly ever operations/rare. conditions.txt and higher.txt say themselves
what is special.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from configurator import UserError

FOLDER = Path(__file__).parent / "operations"
WEIGHTS = {"first": 1.0, "next": 0.3, "common": 0.03, "rare": 0.003}  # how often an operation of a folder is drawn
HEADER = re.compile(r"(\w+)\((.*)\) -> (\w+\??)")


@dataclass
class Operation:
    """One entry of a table."""

    name: str
    parameters: dict[str, object]  # name: kind, or (lowest, highest) of a whole number
    result: str  # the kind of what it returns
    weight: float  # how often it is drawn, beside one of operations/first
    line: int  # of its header in the file
    values: dict[str, list] = field(default_factory=dict)  # parameter: values to choose from
    phrases: list[tuple[str, str]] = field(default_factory=list)  # (mark, text); mark: "" or one of !?*~
    bodies: list[str] = field(default_factory=list)  # of functions, not indented


def read_table(path):
    """The Operations of a file. Raises UserError that names the line which cannot be read, or the operation's."""
    operations, way = [], None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#") and way is None:
            continue
        try:
            if not line.startswith(" "):
                operations.append(read_header(text, path, number))
                way = None
            elif text.startswith("="):
                way = [] if text == "=" else [f"return {text[1:].strip()}"]
                operations[-1].bodies.append(way)
            elif way is not None:
                if line[:8].strip():  # code stands behind eight blanks
                    raise ValueError
                way.append(line[8:])
            elif match := re.fullmatch(r"with (\w+): (.*)", text):
                operations[-1].values[match[1]] = list(ast.literal_eval(f"[{match[2]}]"))
            else:
                operations[-1].phrases += [marked(phrase.strip()) for phrase in text.split(" | ")]
        except (IndexError, ValueError, SyntaxError, AttributeError):
            raise UserError(f"{path}:{number} cannot be read as part of an operation: {text}") from None
    for operation in operations:
        operation.bodies = ["\n".join(way) for way in operation.bodies]
        try:
            list(map(ast.parse, operation.bodies))
        except SyntaxError as error:
            raise UserError(f"{path}:{operation.line} {operation.name} is written in no Python: {error.text}") from None
    return operations


def read_header(text, path, number):
    """count(xs: ints, k: 2..9) -> nat as an Operation without phrases and bodies."""
    name, parameters, result = HEADER.fullmatch(text).groups()
    kinds = {}
    for parameter in parameters.split(","):
        key, kind = parameter.split(":")
        low_high = re.fullmatch(r"(\d+)\.\.(\d+)", kind.strip())
        kinds[key.strip()] = (int(low_high[1]), int(low_high[2])) if low_high else kind.strip()
    return Operation(name, kinds, result, WEIGHTS.get(path.parent.name, 1.0), number)


def marked(phrase):
    """(mark, text) of a phrase as it stands in a table."""
    mark = phrase[0] if phrase[0] in "!?*~" else ""
    return mark, phrase[len(mark) :]
