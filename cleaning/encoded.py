"""Where a text holds base64, hex or escapes in place of words: pictures, archives and keys."""

import re
import string

import numpy as np

# A part of base64, and what may stand between two parts: line ends, quotes and the b of b"...".
BASE64 = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{64,}")
BETWEEN = re.compile(r"\\?[nr]?[\"']?\s*[bB]?[\"']?")
IN_BASE64 = np.isin(np.arange(256), list(string.ascii_letters.encode() + string.digits.encode() + b"+/"))
ESCAPES = re.compile(r"\\(?:x[0-9a-fA-F]{2}\\){15,}|\\(?:u[0-9a-fA-F]{4}\\){10,}|0x(?:[0-9a-fA-F]{2},\s*0x){11,}")
HAS_DIGIT, HAS_LETTER = re.compile("[0-9]"), re.compile("[A-Za-z]")
MIXED_CASE = re.compile(r"\A[^A-Z]*[A-Z][^a-z]*[a-z][^A-Z]*[A-Z]")


def lengths(view):
    """The lengths, in characters, of a View's stretches of base64, hex and escapes."""
    _, of_words = view.words
    found = []
    # Base64 has a + or / at one character in 32, so that 64 characters of it hardly ever lack a word of 25.
    if len(of_words) and of_words.max() > 24 and longest_base64(view.data) >= 64:
        found += [len(run) for run in base64_runs(view.text) if is_encoding(run)]
    if any(view.text.count(mark) > 10 for mark in ("\\x", "\\u", "0x")):
        found += [len(match.group()) for match in ESCAPES.finditer(view.text)]
    return found


def longest_base64(data):
    """Length of the longest run of letters, digits, + and / in a text's bytes."""
    edges = np.flatnonzero(~IN_BASE64[np.frombuffer(data, np.uint8)])
    return int(np.diff(edges, prepend=-1, append=len(data)).max()) - 1


def base64_runs(text):
    """The stretches of base64 in a text. Lines and strings that follow each other are one."""
    spans = []
    for match in BASE64.finditer(text):
        start, end = match.span()
        if spans and BETWEEN.fullmatch(text, spans[-1][1], start):
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    return [text[start:end] for start, end in spans]


def is_encoding(run):
    """Whether a stretch of base64 has digits and letters, or capitals around a small one: a line of = has none."""
    return (HAS_DIGIT.search(run) and HAS_LETTER.search(run)) or MIXED_CASE.match(run)
