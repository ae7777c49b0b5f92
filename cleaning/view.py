"""What is told of a document before any rule sees it: its kind, and the counts that several rules ask for."""

import re
from collections import Counter
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from cleaning import hashing

PYTHON, CODE, PROSE, CHINESE = "python", "code", "prose", "chinese"
PYTHON_SUFFIXES = {".py", ".pyi"}
PROSE_SUFFIXES = {".txt", ".md", ".rst", ".tex"}
NATURAL = set("text markdown restructuredtext tex en english zh chinese de german fr french es spanish it pt nl pl ru ja ko ar hi".split())  # fmt: skip
CODE_LINE = re.compile(r"[;{}()\[\]:]$|^(?:def|class|import|from|return|#include|//|@|\}|public|func|fn)\b|^\w[\w.\[\]]* [-+*/|&]?= ")  # fmt: skip


def kind_of(text, meta, default=""):
    """PYTHON, CODE, PROSE or CHINESE: by the path, by the language that a record names, by default, by its look."""
    suffix = PurePosixPath(re.sub(r":\d+$", "", str(meta.get("path") or ""))).suffix.lower()
    language = str(meta.get("language") or "").lower()
    if suffix in PYTHON_SUFFIXES or language in ("python", "python3", "py"):
        return PYTHON
    if suffix and suffix not in PROSE_SUFFIXES:
        return CODE
    if language and language not in NATURAL:
        return CODE
    kind = default or (PROSE if suffix else CODE if looks_like_code(text) else PROSE)
    return CHINESE if kind == PROSE and chinese_share(text) > 0.3 else kind


def looks_like_code(text):
    """Whether a third of the lines end or begin as code does. For records that name neither path nor language."""
    lines = [line.strip() for line in text[:20_000].splitlines() if line.strip()]
    return sum(bool(CODE_LINE.search(line)) for line in lines) > len(lines) / 3


def chinese_share(text):
    sample = text[:5000]
    return sum("\u4e00" <= char <= "\u9fff" for char in sample) / max(1, len(sample))


# A string or a comment. The loops are unrolled (Friedl, Mastering Regular Expressions, ch. 6): twice as fast.
LITERALS = re.compile(
    r"""('''[^\\']*(?:(?:\\.|'(?!''))[^\\']*)*(?:'''|\Z)|\"\"\"[^\\"]*(?:(?:\\.|"(?!""))[^\\"]*)*(?:\"\"\"|\Z)|"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')|#[^\n]*""",
    re.DOTALL,
)
C_LITERALS = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|//[^\n]*|/\*.*?(?:\*/|\Z)|^\s*(?:#(?!\s*(?:include|define|if|endif|else|undef|pragma|elif)\b)|--)[^\n]*""", re.DOTALL | re.MULTILINE)  # fmt: skip
PYTHON_FUNCTION = re.compile(r"^[ \t]*(?:async )?def \w+\(.*\).*:", re.MULTILINE)
QUOTES = ('"""', "'''")
OPENING = re.compile(r"^[ \t]*([A-Za-z_][\w.]*|\.\.\.|[^\sA-Za-z_])", re.MULTILINE)
BASE64 = np.array([chr(byte).isalnum() or chr(byte) in "+/" for byte in range(128)] + [False] * 128)


class View:
    """A document and what several rules ask of it, each worked out once."""

    def __init__(self, text, where="", kind=PYTHON):
        self.text, self.where, self.kind = text, where, kind
        self.data = text.encode()
        self.n_tokens, self.token_bits = None, None  # by the tokenizer; set by whoever has one

    @cached_property
    def tokens(self):
        return hashing.tokens(self.data)

    @cached_property
    def counts(self):
        """How often each byte occurs; characters outside ASCII at their first byte."""
        return np.bincount(np.frombuffer(self.data, np.uint8), minlength=256)

    @cached_property
    def n_chars(self):
        return max(1, len(self.text))

    @cached_property
    def n_visible(self):
        return max(1, self.n_chars - self.n_space)

    @cached_property
    def n_space(self):
        return int(self.counts[[9, 10, 11, 12, 13, 32]].sum())

    @cached_property
    def n_digits(self):
        return int(self.counts[48:58].sum())

    @cached_property
    def n_letters(self):  # a character outside ASCII counts as a letter
        return int(self.counts[65:91].sum() + self.counts[97:123].sum() + self.counts[0xC0:].sum())

    @cached_property
    def lines(self):
        return self.text.splitlines() or [""]

    @cached_property
    def full_lines(self):
        """Lines that hold anything, without their indentation."""
        return [stripped for line in self.lines if (stripped := line.strip())] or [""]

    @cached_property
    def words(self):
        """(hashes, lengths in bytes) of the tokens that are words."""
        hashes, _, lengths, kinds = self.tokens
        return hashes[kinds != hashing.OTHER], lengths[kinds != hashing.OTHER]

    @cached_property
    def literals(self):
        """(first and last character of each comment and string, whether it is a string), arrays. By Python's rules, or by
        those of C and its kin for code without a Python function."""
        pattern = C_LITERALS if self.kind == CODE and not PYTHON_FUNCTION.search(self.text) else LITERALS
        spans = np.array([(*m.span(), bool(m.lastindex)) for m in pattern.finditer(self.text)], np.int64).reshape(-1, 3)
        return spans[:, 0], spans[:, 1], spans[:, 2] > 0

    @cached_property
    def skeleton(self):
        """The text without comments, and with nothing in its strings."""
        first, last, is_string = self.literals
        ends = [*first.tolist(), len(self.text)]
        parts = [self.text[a:b] for a, b in zip([0, *last.tolist()], ends)]
        return "".join(
            part + mark for part, mark in zip(parts, [*('""' if string else "" for string in is_string), ""])
        )

    @cached_property
    def n_comment(self):
        first, last, is_string = self.literals
        return int((last - first)[~is_string].sum())

    @cached_property
    def n_string(self):
        """Characters in strings; documentation, in three quotes, is none."""
        first, last, is_string = self.literals
        return sum(b - a for a, b in zip(first[is_string].tolist(), last[is_string].tolist()) if self.text[a : a + 3] not in QUOTES)  # fmt: skip

    @cached_property
    def code_tokens(self):
        """The tokens outside of comments and strings: (hashes, first byte of each, kinds)."""
        first, last, _ = self.literals
        hashes, starts, _, kinds = self.tokens
        if len(self.data) != len(self.text):  # characters -> bytes
            of_char = np.flatnonzero(hashing.KIND[np.frombuffer(self.data, np.uint8)] != hashing.INSIDE)
            first, last = of_char[first], np.append(of_char, len(self.data))[last]
        before = np.searchsorted(first, starts, side="right") - 1  # the last literal that begins before a token
        code = (before < 0) | (starts >= np.append(last, 0)[before])
        return hashes[code], starts[code], kinds[code]

    @cached_property
    def fivegrams(self):
        """The 5-grams of the document's words, uint64, sorted."""
        return np.sort(hashing.ngrams(self.words[0], 5))

    @cached_property
    def openings(self):
        """How often each word opens a line of the skeleton; other lines count under their first character."""
        return Counter(OPENING.findall(self.skeleton))

    @cached_property
    def longest_base64(self):
        """Length of the longest run of letters, digits, + and /."""
        edges = np.flatnonzero(~BASE64[np.frombuffer(self.data, np.uint8)])
        return int(np.diff(edges, prepend=-1, append=len(self.data)).max()) - 1
