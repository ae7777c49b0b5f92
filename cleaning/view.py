"""What is known of a document before the rules see it: its kind, and the counts that several rules need."""

import json
import re
from collections import Counter
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from cleaning import hashing, languages
from cleaning.languages import CHINESE, CODE, PROSE, PYTHON

CODE_LINE = re.compile(
    r"[;{}()\[\]:]$|^(?:def|class|import|from|return|#include|//|@|\}|public|func|fn)\b"
    r"|^\w[\w.\[\]]* [-+*/|&]?= "
)


def suffix_of(meta):
    """The suffix of the path in a document's meta, ".py", or "" where there is none."""
    path = re.sub(r":\d+$", "", str(meta.get("path") or ""))  # part of a long file: a/b.py:2000
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if re.fullmatch(r"\.[\w+-]+", suffix) else ""  # "Dr. Who" has none


def kind_of(text, meta, default=""):
    """PYTHON, CODE, PROSE or CHINESE: by the path in meta, else by the language in meta, else the default, else by the
    look of the text. Prose is CHINESE if its language is, or if more than 30 % of its characters are Chinese."""
    suffix = suffix_of(meta)
    spoken = languages.kind_of_language(str(meta.get("language") or ""))
    if suffix in languages.PYTHON_NAMES or spoken == PYTHON:
        return PYTHON
    if suffix in languages.COMMENTS_OF or spoken == CODE:
        return CODE
    kind = spoken or (PROSE if suffix in languages.MARKUP else "")
    if not kind:
        kind = CODE if suffix else default or (CODE if looks_like_code(text) else PROSE)
    if kind != PROSE:
        return kind
    sample = text[:5000]
    n_chinese = sum("\u4e00" <= char <= "\u9fff" for char in sample)
    return CHINESE if n_chinese / max(1, len(sample)) > 0.3 else PROSE


def comments_of(kind, meta):
    """The languages.Comments of a document: by its kind, by the language or the path in its meta, or UNKNOWN."""
    if kind == PYTHON:
        return languages.COMMENTS_OF[PYTHON]
    name, of = languages.normal(str(meta.get("language") or "")), languages.COMMENTS_OF.get
    return of(name) or of(suffix_of(meta)) or of(f".{name}") or languages.UNKNOWN


def looks_like_code(text):
    """Whether more than a third of the lines begin or end as lines of code do."""
    lines = [line.strip() for line in text[:20_000].splitlines() if line.strip()]
    return sum(bool(CODE_LINE.search(line)) for line in lines) > len(lines) / 3


# A string (group 1) or a comment. The loops are unrolled (Friedl, Mastering Regular Expressions, ch. 6): twice as fast.
# A quote behind a backslash opens none: after one that is never closed, each would be tried up to the end of the line.
# (The look behind comes after the quote, for patterns that begin with certain characters are searched faster.)
LITERALS = re.compile(
    r"('''[^\\']*(?:(?:\\.|'(?!''))[^\\']*)*(?:'''|\Z)"
    r'|"""[^\\"]*(?:(?:\\.|"(?!""))[^\\"]*)*(?:"""|\Z)'
    r'|"(?<!\\")[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'(?<!\\')[^'\\\n]*(?:\\.[^'\\\n]*)*')"
    r"|#[^\n]*",
    re.DOTALL,
)
# The same for C and its kin, for SQL (--) and for scripts (#), unless what follows is a directive of C's preprocessor,
# or a variable or a rule of CSS: `--color: red;`, `#top {`.
C_LITERALS = re.compile(
    r"""("(?<!\\")(?:\\.|[^"\\\n])*"|'(?<!\\')(?:\\.|[^'\\\n])*')"""
    r"|//[^\n]*|/\*.*?(?:\*/|\Z)"
    r"|^[ \t]*(?:#(?![ \t]*(?:include|define|if|endif|else|undef|pragma|elif)\b|[\w-]+[^\n{]*\{)"
    r"|--(?![\w-]+[ \t]*:))[^\n]*",
    re.DOTALL | re.MULTILINE,
)
JSON_STRING = re.compile(r'"(?<!\\")[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"')
PYTHON_FUNCTION = re.compile(r"^[ \t]*(?:async )?def \w+\([^)\n]*\)[^:\n]*:", re.MULTILINE)
QUOTES = ('"""', "'''")
OPENING = re.compile(r"^[ \t]*([A-Za-z_][\w.]*|\.\.\.|[^\sA-Za-z_])", re.MULTILINE)


class View:
    """A document and what several rules ask of it, each worked out at most once.

    text: the document. where: its name. kind: PYTHON, CODE, PROSE, CHINESE, or "" for a conversation."""

    def __init__(self, text, where="", kind=PYTHON):
        self.text, self.data, self.where, self.kind = text, text.encode(), where, kind
        # Set by whoever has a tokenizer: the document's tokens, and log2 of the size of the vocabulary.
        self.n_tokens, self.token_bits = None, None
        counts = np.bincount(np.frombuffer(self.data, np.uint8), minlength=256)  # how often each byte occurs
        self.n_space, self.n_digits = int(counts[list(b"\t\n\v\f\r ")].sum()), int(counts[48:58].sum())
        # Characters outside ASCII count as letters, once each, by their first byte, which is 0xC0 or above.
        self.n_letters = int(counts[65:91].sum() + counts[97:123].sum() + counts[0xC0:].sum())
        self.n_chars = max(1, len(text))  # at least 1, as n_visible is, so that one may divide by it
        self.n_visible = max(1, self.n_chars - self.n_space)

    # -- lines and words

    @cached_property
    def lines(self):
        """All lines, at least one."""
        return self.text.splitlines() or [""]

    @cached_property
    def full_lines(self):
        """The lines that hold more than white space, stripped; at least one."""
        stripped = map(str.strip, self.lines)
        return list(filter(None, stripped)) or [""]

    @cached_property
    def spaced_words(self):
        """The text split at white space: the words that the rules for prose count, as in Gopher."""
        return self.text.split()

    @cached_property
    def tokens(self):
        """(hashes, starts, lengths, kinds) of the text's tokens, as hashing.tokens() returns them."""
        return hashing.tokens(self.data)

    @cached_property
    def words(self):
        """(hashes, lengths in bytes) of the tokens that are words."""
        hashes, _, lengths, kinds = self.tokens
        is_word = kinds != hashing.OTHER
        return hashes[is_word], lengths[is_word]

    @cached_property
    def fivegrams(self):
        """The hashes of the document's 5-grams of words, uint64, sorted."""
        return np.sort(hashing.ngrams(self.words[0], 5))

    @cached_property
    def quoted(self):
        """A View of what stands in the strings of a text with escaped line ends, as programs do in the cells of a
        notebook, in JSON and in other programs; None for any other text."""
        if "\\n" not in self.text:
            return None
        parts = []
        for literal in JSON_STRING.findall(self.text):
            try:
                part = json.loads(literal, strict=False)
            except ValueError:  # a string of another language, with escapes that JSON lacks
                continue
            parts.append(part if part.endswith("\n") else part + "\n")  # cells have one string for each line
        return View("".join(parts).encode("utf-8", "replace").decode(), self.where)  # JSON may hold half surrogates

    # -- code apart from comments and strings

    @cached_property
    def literals(self):
        """The comments and strings, text[start:end], as three arrays (starts, ends, is_string). Found by the syntax of
        Python, or by that of C, SQL and scripts in code without a Python function."""
        pattern = C_LITERALS if self.kind == CODE and not PYTHON_FUNCTION.search(self.text) else LITERALS
        found = [(*match.span(), match.lastindex == 1) for match in pattern.finditer(self.text)]
        spans = np.array(found, np.int64).reshape(-1, 3)
        return spans[:, 0], spans[:, 1], spans[:, 2] > 0

    @cached_property
    def skeleton(self):
        """The text without comments, and with "" in place of each string."""
        parts, at = [], 0
        for start, end, is_string in zip(*(array.tolist() for array in self.literals)):
            parts += [self.text[at:start], '""' if is_string else ""]
            at = end
        return "".join(parts) + self.text[at:]

    @cached_property
    def code_tokens(self):
        """(hashes, starts, kinds) of the tokens outside of comments and strings."""
        first, last, _ = self.literals
        hashes, starts, _, kinds = self.tokens
        if len(self.data) != len(self.text):  # literals count characters, tokens count bytes
            byte_of_char = np.flatnonzero(hashing.KIND[np.frombuffer(self.data, np.uint8)] != hashing.INSIDE)
            first, last = byte_of_char[first], np.append(byte_of_char, len(self.data))[last]
        before = np.searchsorted(first, starts, side="right") - 1  # the last literal that begins before a token
        is_code = (before < 0) | (starts >= np.append(last, 0)[before])
        return hashes[is_code], starts[is_code], kinds[is_code]

    @cached_property
    def openings(self):
        """How often each word begins a line of the skeleton. A line that begins with no word counts under its first
        character."""
        return Counter(OPENING.findall(self.skeleton))
