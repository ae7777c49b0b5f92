"""Which documents are worth training on: one small function per rule, keep (None) or the reason.

Code has rules of its own and so has prose; rules for prose never see code, which fails them by design. The thresholds
are settings of prepare_data.py, each with its source behind it. Where well-kept code fell to the published value, as
`python experiments/code_rules.py` counts, the default is looser than the source, and the source's value is in brackets.

Sources: StarCoder (arXiv:2305.06161, bigcode-dataset/preprocessing/filtering.py), OpenCoder (arXiv:2411.04905,
opc_data_filtering/pipeline/code_filter_config.py), Gopher (arXiv:2112.11446, table A1). Rules for prose are in prose.py.
"""

import re
import symtable
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cleaning import hashing


@dataclass
class Thresholds:
    max_bytes: int = 3_000_000  # all kinds (OpenCoder)
    max_line_length: int = 1000  # code: characters of the longest line (StarCoder, OpenCoder)
    max_mean_line_length: float = 100.0  # code (StarCoder, OpenCoder)
    min_mean_line_length: float = 5.0  # code (OpenCoder)
    min_code_words: int = 5  # code (OpenCoder: 30, under which short modules fall)
    max_code_lines: int = 100_000  # code (OpenCoder; its lower bound of 10 lines would drop teaching files)
    min_alphanumeric: float = 0.25  # code: share of characters that are letters or digits (StarCoder)
    min_alphabetic: float = 0.25  # code: share of characters but white space that are letters (OpenCoder: .5)
    max_digits: float = 0.5  # code: share of characters but white space that are digits (OpenCoder: .2)
    max_whitespace: float = 0.6  # code: share of characters that are white space (OpenCoder: .5)
    max_replacement: float = 0.01  # all kinds: share of characters that are U+FFFD, from wrong decoding (OpenCoder)
    max_encoded_run: int = 1024  # code: the longest stretch of base64, hex or escapes, characters (OpenCoder)
    max_encoded: float = 0.5  # code: share of characters in stretches of over 64 (OpenCoder)
    max_string: float = 0.6  # code: share of characters inside string literals, docstrings apart (OpenCoder)
    max_long_words: float = 0.4  # code: share of characters in words of over 50 (OpenCoder)
    max_hex_words: float = 0.4  # code: share of words that are hexadecimal numbers (OpenCoder)
    min_comments: float = 0.0  # code: share of characters in comments (StarCoder: .01)
    max_comments: float = 0.8  # code (StarCoder, OpenCoder)
    max_todo_lines: float = 0.2  # code: share of lines with TODO or FIXME (OpenCoder: .01)
    max_duplicate_lines: float = 0.7  # code: share of lines that occurred before (OpenCoder)
    max_top_bigram: float = 0.3  # code: share of word characters in the commonest 2-gram (OpenCoder: .2)
    max_top_trigram: float = 0.27  # code (OpenCoder: .18)
    max_top_4gram: float = 0.24  # code (OpenCoder: .16)
    max_duplicate_ngrams: float = (
        0.8  # code: share of 5-grams that occurred before (OpenCoder: .8 down to .6 for 10-grams)
    )
    min_html_visible: float = 0.2  # HTML: share of characters that a reader sees, and at least 100 of them (StarCoder)
    min_fertility: float = (
        0.12  # code: bytes per token, for every bit of a token number (StarCoder: .16, 2.5 of 15.6 bits)
    )
    max_def_lines: float = 0.4  # Python: share of lines that open a function (OpenCoder: .2)
    max_pass_lines: float = 0.2  # Python: share of lines that say pass (OpenCoder: .05)
    max_import_lines: float = (
        0.9  # Python: share of lines that import (OpenCoder: .3, under which packages' __init__.py fall)
    )
    max_return_lines: float = 0.3  # Python: share of lines that return a name or a constant (OpenCoder: .1)
    max_print_lines: float = 0.4  # Python (OpenCoder)
    max_assert_lines: float = 0.8  # Python (OpenCoder: .4, under which tests fall)
    max_data_lines: float = (
        0.92  # Python: share of lines that open with a literal or a bracket (OpenCoder: .5 without logic)
    )
    min_words: int = 50  # prose (Gopher)
    max_words: int = 100_000  # prose (Gopher)
    min_mean_word: float = 3.0  # prose: characters (Gopher)
    max_mean_word: float = 10.0  # prose (Gopher)
    max_symbols: float = 0.1  # prose: # and ellipses per word (Gopher)
    max_bullets: float = 0.9  # prose: share of lines that open with a bullet (Gopher)
    max_ellipses: float = 0.3  # prose: share of lines that end in an ellipsis (Gopher)
    min_words_with_letter: float = 0.8  # prose (Gopher)
    min_stop_words: int = 2  # prose: of the, be, to, of, and, that, have, with (Gopher)
    max_repetition: float = 1.0  # prose: times Gopher's bounds on repeated lines, paragraphs and n-grams
    min_chinese_words: int = 20  # Chinese: words as jieba cuts them, or half the characters where it is not installed
    max_contacts: float = 0.1  # Chinese: share of lines with a telephone, QQ or WeChat number
    max_url_lines: float = 0.3  # Chinese: share of lines with a URL
    max_boilerplate: float = 0.3  # Chinese: share of lines that are navigation, advertising or legal notices


def over(value, bound, what):
    """The reason, where value lies over its bound."""
    return f"{what} {value:.3g} > {bound:g}" if value > bound else None


def under(value, bound, what):
    return f"{what} {value:.3g} < {bound:g}" if value < bound else None


# -- all kinds


def too_large(view, t):
    return over(len(view.data), t.max_bytes, "bytes")


def wrong_decoding(view, t):
    """Characters that an earlier reader could not decode."""
    if "\ufffd" in view.text:
        return over(view.text.count("\ufffd") / view.n_chars, t.max_replacement, "share of U+FFFD")


# -- code of any language


def too_short(view, t):
    return under(len(view.words[0]), t.min_code_words, "words")


def too_many_lines(view, t):
    return over(len(view.lines), t.max_code_lines, "lines")


def long_line(view, t):
    """Minified code and data on one line."""
    return over(max(map(len, view.lines)), t.max_line_length, "longest line")


def mean_line(view, t):
    mean = sum(map(len, view.full_lines)) / len(view.full_lines)
    return over(mean, t.max_mean_line_length, "mean line") or under(mean, t.min_mean_line_length, "mean line")


def alphanumeric(view, t):
    return under((view.n_letters + view.n_digits) / view.n_chars, t.min_alphanumeric, "letters and digits")


def letters(view, t):
    return under(view.n_letters / view.n_visible, t.min_alphabetic, "letters")


def digits(view, t):
    return over(view.n_digits / view.n_visible, t.max_digits, "digits")


def whitespace(view, t):
    return over(view.n_space / view.n_chars, t.max_whitespace, "white space")


GENERATED = re.compile(
    r"\b(?:auto[- ]?generated|automatically generated|generated automatically|generated by|do not edit"
    r"|(?:file|code|module) (?:is|was) generated)\b|@generated\b",
    re.IGNORECASE,
)


def generated(view, t):
    """What a program wrote, says so in the first 200 characters (OpenCoder), in whole words: not every generator is."""
    if match := GENERATED.search(view.text[:200]):
        return f"says {match.group()!r}"


BASE64 = re.compile(
    r"[A-Za-z0-9+/=]{64,}(?:\\?[nr]?[\"']?\s*[bB]?[\"']?[A-Za-z0-9+/=]{64,})*"
)  # over several lines too
ESCAPES = re.compile(r"\\(?:x[0-9a-fA-F]{2}\\){15,}|\\(?:u[0-9a-fA-F]{4}\\){10,}|0x(?:[0-9a-fA-F]{2},\s*0x){11,}")
REAL_ENCODING = re.compile(r"[0-9].*[A-Za-z]|[A-Za-z].*[0-9]|[A-Z].*[a-z].*[A-Z]", re.DOTALL)


def encoded_data(view, t):
    """base64, hex and escapes. A run of one character, such as a ruler of =, is none."""
    runs, lengths = [], view.words[1]
    if (
        len(lengths) and lengths.max() > 24 and view.longest_base64 >= 64
    ):  # base64 has words of any length, between + and /
        runs = [len(match.group()) for match in BASE64.finditer(view.text) if REAL_ENCODING.search(match.group())]
    if any(view.text.count(mark) > 10 for mark in ("\\x", "\\u", "0x")):
        runs += [len(match.group()) for match in ESCAPES.finditer(view.text)]
    if runs:
        return over(max(runs), t.max_encoded_run, "encoded run") or over(
            sum(runs) / view.n_chars, t.max_encoded, "encoded"
        )


def string_share(view, t):
    return over(view.n_string / view.n_chars, t.max_string, "in strings")


def long_words(view, t):
    lengths = view.words[1]
    return over(lengths[lengths > 50].sum() / max(1, lengths.sum()), t.max_long_words, "in words of over 50")


HEX_WORD = re.compile(r"\b(?:0x[0-9a-fA-F]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,})\b")


def hex_words(view, t):
    if view.n_digits > view.n_visible / 8:
        return over(len(HEX_WORD.findall(view.text)) / max(1, len(view.words[0])), t.max_hex_words, "hexadecimal words")


def comments(view, t):
    share = view.n_comment / view.n_chars
    return over(share, t.max_comments, "comments") or under(share, t.min_comments, "comments")


TODO = re.compile(r"\b(?:TODO|FIXME)\b")


def todo_lines(view, t):
    if view.text.count("TODO") + view.text.count("FIXME") > t.max_todo_lines * len(view.lines):
        return over(len(TODO.findall(view.text)) / len(view.lines), t.max_todo_lines, "TODO lines")


def duplicate_lines(view, t):
    lines = [line for line in view.full_lines if len(line) > 3]  # brackets and else: repeat everywhere
    if len(lines) > 10:
        return over(1 - len(set(lines)) / len(lines), t.max_duplicate_lines, "lines that occurred before")


def top_ngrams(view, t):
    """The share of a document's letters that its commonest 2-, 3- or 4-gram of words takes."""
    hashes, lengths = view.words
    if len(hashes) < 100:
        return None
    most, sums = None, np.append(0, np.cumsum(lengths))  # the letters of an n-gram are a difference of sums
    total = int(sums[-1])
    for n, bound in ((2, t.max_top_bigram), (3, t.max_top_trigram), (4, t.max_top_4gram)):
        longest = sums[n:] - sums[:-n]
        if most is not None and most * int(longest.max()) <= bound * total:
            continue  # no n-gram is commoner than the commonest 2-gram
        found = hashing.ngrams(hashes, n)
        ordered = np.sort(found)
        edges = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counts = np.diff(edges, append=len(ordered))
        top = counts.argmax()
        most = int(counts[top]) if n == 2 else most
        place = int(np.argmax(found == ordered[edges[top]]))
        share = int(longest[place]) * int(counts[top]) / total
        if counts[top] > 2 and share > bound:
            return f"commonest {n}-gram takes {share:.3g} > {bound:g}"


def duplicate_ngrams(view, t):
    if len(ngrams := view.fivegrams) >= 50:
        return over(np.mean(ngrams[1:] == ngrams[:-1]), t.max_duplicate_ngrams, "5-grams that occurred before")


def xml(view, t):
    """XML under another name (StarCoder)."""
    if "<?xml version=" in view.text[:100] and not view.where.lower().endswith((".xml", ".svg", ".html", ".xhtml")):
        return "opens with <?xml version="


def html(view, t):
    """HTML with little to read (StarCoder)."""
    if re.match(r"\s*<(?:!doctype html|html)\b", view.text[:200], re.IGNORECASE):
        outside = "".join(
            re.split(r"<!--|-->", view.text)[::2]
        )  # comments, then scripts, then tags, each in linear time
        outside = "".join(re.split(r"</?(?:script|style)\b[^<>]*>", outside, flags=re.IGNORECASE)[::2])
        n_visible = len(" ".join(re.sub(r"<[^<>]*>", " ", outside).split()))
        return under(n_visible / view.n_chars, t.min_html_visible, "visible text") or under(n_visible, 100, "visible characters")  # fmt: skip


def fertility(view, t):
    """Text that the tokenizer cuts into shreds is no text of its kind. What is few bytes per token depends on the
    vocabulary: a token number of 11 bits (2,048 tokens) stands for less text than one of 16."""
    if view.n_tokens:
        return under(len(view.data) / view.n_tokens, t.min_fertility * view.token_bits, "bytes per token")


# -- Python


def syntax(view, t):
    return syntax_error(view.text)


@lru_cache(maxsize=4)  # a rule asks again what was asked when personal data was replaced
def syntax_error(text):
    """The first error of a Python text, or None. By the parser proper, without the cost of ast.parse's tree."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(text.removeprefix("\ufeff"), "document", "exec")
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"


def python_lines(openings, setting, what):
    """The rule that bounds the share of lines that open with one of the words, outside of strings and comments: whole
    words, so that password is no pass and important no import. openings ends in * where any ending will do."""
    exact, begun = {o for o in openings if o[-1] != "*"}, tuple(o[:-1] for o in openings if o[-1] == "*")

    def rule(view, t):
        n = sum(k for word, k in view.openings.items() if word in exact or (begun and word.startswith(begun)))
        if len(view.full_lines) >= 8:
            return over(n / len(view.full_lines), getattr(t, setting), what)

    rule.__name__ = setting.removeprefix("max_")
    return rule


SIMPLE_RETURN = re.compile(r"^[ \t]*return(?: (?:self\.)?\w+| \"\")?[ \t]*;?$", re.MULTILINE)


def return_lines(view, t):
    """Classes of getters."""
    if len(view.full_lines) >= 8 and view.openings["return"] > t.max_return_lines * len(view.full_lines):
        n = len(SIMPLE_RETURN.findall(view.skeleton))
        return over(n / len(view.full_lines), t.max_return_lines, "lines that only return")


ALL_RULES = [too_large, wrong_decoding]
CODE_RULES = [
    *ALL_RULES, too_short, too_many_lines, long_line, mean_line, alphanumeric, letters, digits, whitespace, generated, encoded_data,
    string_share, long_words, hex_words, comments, todo_lines, duplicate_lines, top_ngrams, duplicate_ngrams, xml, html, fertility,
]  # fmt: skip
PYTHON_RULES = [
    *CODE_RULES,
    python_lines(["def", "async"], "max_def_lines", "lines that open a function"),
    python_lines(["pass", "..."], "max_pass_lines", "lines that say pass"),
    python_lines(["import", "from"], "max_import_lines", "lines that import"),
    python_lines(["print"], "max_print_lines", "lines that print"),
    python_lines(["assert", "self.assert*"], "max_assert_lines", "lines that assert"),
    python_lines(list("0123456789([{]})\"'-,"), "max_data_lines", "lines of literals"),
    return_lines,
    syntax,
]  # fmt: skip


def verdict(view, rules, thresholds):
    """(name of the first rule that drops the document, its reason), or None to keep it."""
    for rule in rules:
        if reason := rule(view, thresholds):
            return rule.__name__, reason
    return None
