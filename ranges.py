"""What a setting may be. Every field of a Settings class is annotated with a kind of number or text.

    lr: Positive = 0.006  # peak learning rate
    max_steps: Count | None = None  # length in optimizer steps; auto = what epochs comes to
    schedule: Literal["wsd", "cosine"] = "wsd"  # a choice
    tasks: Annotated[int, Range(1, 100_000)] = 16  # a range of its own

configurator.py shows the range in --help, and refuses any other value before a stage begins. Upper bounds are far away
on purpose: they catch the slip that would fill the memory or never end, and nobody's experiment.
"""

import math
import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args, get_origin

YES_OR_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Range:
    """The numbers from low to high. without_low, without_high: whether these two do not belong to it themselves."""

    low: float
    high: float
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, number):
        above = number > self.low if self.without_low else number >= self.low  # no comparison holds for NaN
        below = number < self.high if self.without_high else number <= self.high
        return above and below

    def __str__(self):
        low, high = in_few_digits(self.low), in_few_digits(self.high)
        return f"{'above ' * self.without_low}{low} to {'below ' * self.without_high}{high}"


def in_few_digits(number):
    """1e8 for a round number from a million on, and 65,536."""
    text = f"{number:.0e}".replace("e+0", "e").replace("e+", "e")
    return text if number >= 10**6 and float(text) == number else f"{number:,}"


@dataclass(frozen=True)
class Pattern:
    """The texts that a regular expression matches as a whole. in_words: what they are."""

    regex: str
    in_words: str

    def __contains__(self, text):
        return bool(re.fullmatch(self.regex, text))

    def __str__(self):
        return self.in_words


class Choice(tuple):
    """The texts of a Literal."""

    def __str__(self):
        return " | ".join(text or "empty" for text in self)


# Whole numbers
Count = Annotated[int, Range(1, 10**8)]
Natural = Annotated[int, Range(0, 10**9)]
SmallCount = Annotated[int, Range(1, 4096)]
Width = Annotated[int, Range(1, 2**14)]
Context = Annotated[int, Range(1, 2**20)]  # tokens in a row
Amount = Annotated[int, Range(1, 10**15)]  # of tokens or bytes
Workers = Annotated[int, Range(0, 1024)]
Seed = Annotated[int, Range(0, 10**18)]  # a step is added to it, and PyTorch takes 63 bits

# Numbers
Positive = Annotated[float, Range(0, 10**9, without_low=True)]
NotNegative = Annotated[float, Range(0, 10**9)]
Share = Annotated[float, Range(0, 1)]
ShareAbove0 = Annotated[float, Range(0, 1, without_low=True)]
ShareBelow1 = Annotated[float, Range(0, 1, without_high=True)]
ShareBetween = Annotated[float, Range(0, 1, without_low=True, without_high=True)]
RopeBase = Annotated[float, Range(1, 10**9)]

# Texts; a plain str may also be the name of a file, which may be any bytes but NUL
Place = Annotated[str, Pattern(r"[^\0]+", "a path")]  # where results go
Text = Annotated[str, Pattern(r"[^\0\ud800-\udfff]*", "valid UTF-8 without NUL")]
Device = Annotated[str, Pattern(r"cuda(:\d{1,3})?|mps|cpu", "cuda | cuda:N | mps | cpu")]
Ids = Annotated[str, Pattern(r"\d{1,9}(-\d{1,9})?", "one id or a range of them")]
Precision = Literal["bf16", "fp32"]

WITHOUT_NUL = Pattern(r"[^\0]*", "without NUL")
FINITE = Range(-math.inf, math.inf, without_low=True, without_high=True)
EVERYTHING_ELSE = {str: WITHOUT_NUL, list: WITHOUT_NUL, float: FINITE, int: FINITE, bool: (True, False)}
IN_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a,b,c"}


@dataclass
class Kind:
    """What an annotation says."""

    type: type  # bool, int, float, str, or list, of texts
    allowed: object = None  # the Range, Pattern or Choice that its values are in; None = all that make sense
    has_auto: bool = False  # whether the word "auto" stands for None

    def __str__(self):
        words = f"one of {self.allowed}" if isinstance(self.allowed, Choice) else IN_WORDS[self.type]
        if isinstance(self.allowed, Range | Pattern):
            words += f" ({self.allowed})"
        return words + " or auto" * self.has_auto


def kind_of(annotation):
    """The Kind of a field's annotation."""
    if type(None) in get_args(annotation):  # X | None
        inner = kind_of(get_args(annotation)[0])
        return Kind(inner.type, inner.allowed, has_auto=True)
    if get_origin(annotation) is Literal:
        return Kind(str, Choice(get_args(annotation)))
    if get_origin(annotation) is Annotated:
        return Kind(*get_args(annotation))
    return Kind(get_origin(annotation) or annotation)


def value_of(kind, given):
    """What a setting of a Kind becomes. given: the text behind --key=, or what a TOML file holds.

    Raises ValueError where it is not of that kind.
    """
    if kind.has_auto and (given is None or isinstance(given, str) and given.lower() == "auto"):
        return None
    try:
        value = READERS[kind.type](given)
    except (KeyError, OverflowError):
        raise ValueError from None
    allowed = kind.allowed or EVERYTHING_ELSE[kind.type]
    if not all(part in allowed for part in (value if kind.type is list else [value])):
        raise ValueError
    return value


def yes_or_no(given):
    """true, yes, 1 and their opposites."""
    return given if isinstance(given, bool) else YES_OR_NO[str(given).lower()]


def whole_number(given):
    """20, 20_000 or 2e4 as an int; ValueError for 1.5."""
    if isinstance(given, str) and not any(char in given for char in ".eE"):
        return int(given)
    number = given if isinstance(given, int) else real_number(given)
    if isinstance(given, bool) or number != int(number):
        raise ValueError
    return int(number)


def real_number(given):
    """1, 0.5 or 1e-3 as a float."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError
    return float(given)


def text(given):
    """Text as it is; a number, as TOML may hold one, as it is written."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError
    return str(given)


def texts(given):
    """Several texts: a list, or at a terminal a,b,c."""
    if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
        raise ValueError
    return given


READERS = {bool: yes_or_no, int: whole_number, float: real_number, str: text, list: texts}


def check_fields(instance, dataclass):
    """Raises ValueError where a field that this dataclass declares holds what its annotation does not allow."""
    for field in fields(dataclass):
        value, kind = getattr(instance, field.name), kind_of(field.type)
        try:
            value_of(kind, value)
        except ValueError:
            raise ValueError(f"{field.name} must be {kind}, not {value!r}") from None
