"""Which documents are worth training on: one small function per rule.

A rule takes a document's View and the Thresholds and returns None to keep the document, or the reason why not. Code
and prose have rules of their own: code fails the rules for prose by design. Rules for prose and Chinese are in
prose.py.

The thresholds are settings of prepare_data.py, each with its source in brackets. `python -m experiments.code_rules`
counts how much well-kept code each rule drops: where the published value drops some, the default is looser and the
published value stands in brackets.

Sources: StarCoder (arXiv:2305.06161, bigcode-dataset/preprocessing/filtering.py), OpenCoder (arXiv:2411.04905,
opc_data_filtering/pipeline/code_filter_config.py), Gopher (arXiv:2112.11446, table A1).
"""

import re
import symtable
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cleaning import encoded, hashing
from cleaning.view import QUOTES
from ranges import Natural, NotNegative, Share


@dataclass
class Thresholds:
    """The bounds that the rules compare with: a document beyond any of them is dropped."""

    # -- all kinds
    max_bytes: Natural = 3_000_000  # of a document (OpenCoder)
    max_replacement: Share = 0.01  # share of characters that are U+FFFD, left by wrong decoding (OpenCoder)

    # -- code
    max_line_length: Natural = 1000  # characters of the longest line (StarCoder, OpenCoder)
    max_mean_line_length: NotNegative = 100.0  # characters of the mean line (StarCoder, OpenCoder)
    min_mean_line_length: NotNegative = 5.0  # characters of the mean line (OpenCoder)
    min_code_words: Natural = 5  # words of a document (OpenCoder: 30, which drops short modules)
    max_code_lines: Natural = 100_000  # lines (OpenCoder; its lower bound of 10 lines would drop teaching files)
    min_alphanumeric: Share = 0.25  # share of characters that are letters or digits (StarCoder)
    min_alphabetic: Share = 0.25  # letters, as a share of the characters other than white space (OpenCoder: .5)
    max_digits: Share = 0.5  # digits, as a share of the characters other than white space (OpenCoder: .2)
    max_whitespace: Share = 0.6  # share of characters that are white space (OpenCoder: .5)
    max_encoded_run: Natural = 1024  # characters of the longest stretch of base64, hex or escapes (OpenCoder)
    max_encoded: Share = 0.5  # share of characters in stretches of base64, hex or escapes (OpenCoder)
    max_string: Share = 0.6  # share of characters inside string literals other than docstrings (OpenCoder)
    max_long_words: Share = 0.4  # share of word characters in words of over 50 characters (OpenCoder)
    max_hex_words: Share = 0.4  # share of words that are hexadecimal numbers (OpenCoder)
    min_comments: Share = 0.0  # share of characters in comments (StarCoder: .01)
    max_comments: Share = 0.8  # share of characters in comments (StarCoder, OpenCoder)
    max_todo_lines: Share = 0.2  # share of lines with TODO or FIXME (OpenCoder: .01)
    max_duplicate_lines: Share = 0.7  # share of lines that occurred before (OpenCoder)
    max_top_bigram: Share = 0.3  # share of word characters in the commonest 2-gram of words (OpenCoder: .2)
    max_top_trigram: Share = 0.27  # the same for the commonest 3-gram (OpenCoder: .18)
    max_top_4gram: Share = 0.24  # the same for the commonest 4-gram (OpenCoder: .16)
    max_duplicate_ngrams: Share = 0.8  # share of 5-grams that occurred before (OpenCoder: .8 down to .6 for 10-grams)
    min_html_visible: Share = 0.2  # HTML: share of visible characters; 100 are always required (StarCoder)
    min_fertility: NotNegative = 0.12  # bytes per token / log2 of the vocabulary's size (StarCoder: 2.5 / 15.6 = .16)

    # -- Python
    max_def_lines: Share = 0.4  # share of lines that open a function (OpenCoder: .2)
    max_pass_lines: Share = 0.2  # share of lines that say pass (OpenCoder: .05)
    max_import_lines: Share = 0.9  # share of lines that import (OpenCoder: .3, which drops packages' __init__.py)
    max_return_lines: Share = 0.3  # share of lines that return a name or a constant (OpenCoder: .1)
    max_print_lines: Share = 0.4  # share of lines that print (OpenCoder)
    max_assert_lines: Share = 0.8  # share of lines that assert (OpenCoder: .4, which drops tests)
    max_data_lines: Share = 0.92  # share of lines that open with a literal or bracket (OpenCoder: .5)

    # -- prose
    min_words: Natural = 50  # words of a document (Gopher)
    max_words: Natural = 100_000  # words of a document (Gopher)
    min_mean_word: NotNegative = 3.0  # characters of the mean word (Gopher)
    max_mean_word: NotNegative = 10.0  # characters of the mean word (Gopher)
    max_symbols: NotNegative = 0.1  # number signs and ellipses per word (Gopher)
    max_bullets: Share = 0.9  # share of lines that open with a bullet (Gopher)
    max_ellipses: Share = 0.3  # share of lines that end in an ellipsis (Gopher)
    min_words_with_letter: Share = 0.8  # share of words that have a letter (Gopher)
    min_stop_words: Natural = 2  # how many of the, be, to, of, and, that, have, with must occur (Gopher)
    max_repetition: NotNegative = 1.0  # factor on Gopher's bounds for repeated lines, paragraphs and n-grams

    # -- Chinese
    min_chinese_words: Natural = 20  # words as jieba cuts them; half the characters where it is not installed
    max_contacts: Share = 0.1  # share of lines with a telephone, QQ or WeChat number
    max_url_lines: Share = 0.3  # share of lines with a URL
    max_boilerplate: Share = 0.3  # share of lines that are navigation, advertising or legal notices


def verdict(view, rules, thresholds):
    """(name of the first rule that drops a document, its reason), or None to keep the document."""
    for rule in rules:
        if reason := rule(view, thresholds):
            return rule.__name__, reason
    return None


def over(value, bound, what):
    """The reason to drop a document if value exceeds its upper bound, else None."""
    return f"{what} {value:.3g} > {bound:g}" if value > bound else None


def under(value, bound, what):
    """The reason to drop a document if value falls below its lower bound, else None."""
    return f"{what} {value:.3g} < {bound:g}" if value < bound else None


def outside(value, low, high, what):
    """The reason to drop a document if value lies below its lower or above its upper bound, else None."""
    return over(value, high, what) or under(value, low, what)


# -- all kinds


def too_large(view, thresholds):
    """Database dumps and data files (OpenCoder)."""
    return over(len(view.data), thresholds.max_bytes, "bytes")


def wrong_decoding(view, thresholds):
    """Text that somebody read with the wrong encoding: characters became U+FFFD (OpenCoder)."""
    if "\ufffd" in view.text:
        return over(view.text.count("\ufffd") / view.n_chars, thresholds.max_replacement, "share of U+FFFD")


# -- code of any language: its size


def too_short(view, thresholds):
    """Stubs of a few words (OpenCoder)."""
    return under(len(view.words[0]), thresholds.min_code_words, "words")


def too_many_lines(view, thresholds):
    """Tables and dumps with a source file's name (OpenCoder)."""
    return over(len(view.lines), thresholds.max_code_lines, "lines")


def long_line(view, thresholds):
    """Minified code, and data on one line (StarCoder, OpenCoder)."""
    return over(max(map(len, view.lines)), thresholds.max_line_length, "longest line")


def mean_line(view, thresholds):
    """Minified code, or columns of numbers and brackets; empty lines do not count (StarCoder, OpenCoder)."""
    mean = sum(map(len, view.full_lines)) / len(view.full_lines)
    return outside(mean, thresholds.min_mean_line_length, thresholds.max_mean_line_length, "mean line")


# -- code: its characters


def alphanumeric(view, thresholds):
    """Drawings, separators and other strings of punctuation (StarCoder)."""
    return under((view.n_letters + view.n_digits) / view.n_chars, thresholds.min_alphanumeric, "letters and digits")


def letters(view, thresholds):
    """Tables of numbers and symbols (OpenCoder)."""
    return under(view.n_letters / view.n_visible, thresholds.min_alphabetic, "letters")


def digits(view, thresholds):
    """Numeric data (OpenCoder)."""
    return over(view.n_digits / view.n_visible, thresholds.max_digits, "digits")


def whitespace(view, thresholds):
    """Tables and drawings set with spaces (OpenCoder)."""
    return over(view.n_space / view.n_chars, thresholds.max_whitespace, "white space")


# -- code: what it holds

GENERATED = re.compile(
    r"(?i)\b(?:auto[- ]?generated|automatically generated|generated automatically|generated by|do not edit"
    r"|(?:file|code|module) (?:is|was) generated)\b|@generated\b"
)
HEX_WORD = re.compile(r"\b(?:0x[0-9a-fA-F]+|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,})\b")
TODO = re.compile(r"\b(?:TODO|FIXME)\b")


def generated(view, thresholds):
    """Files that a program wrote and that say so in their first 200 characters (OpenCoder)."""
    if match := GENERATED.search(view.text[:200]):
        return f"says {match.group()!r}"


def encoded_data(view, thresholds):
    """Pictures and archives as base64, hex or escapes, but not lines of = or another single character (OpenCoder)."""
    runs = encoded.lengths(view)
    if runs:
        too_long = over(max(runs), thresholds.max_encoded_run, "encoded run")
        return too_long or over(sum(runs) / view.n_chars, thresholds.max_encoded, "encoded")


def string_share(view, thresholds):
    """Texts and tables in strings; those in three quotes, mostly docstrings, do not count (OpenCoder)."""
    starts, ends, is_string = view.literals
    spans = zip(starts[is_string].tolist(), ends[is_string].tolist())
    n_string = sum(end - start for start, end in spans if view.text[start : start + 3] not in QUOTES)
    return over(n_string / view.n_chars, thresholds.max_string, "in strings")


def long_words(view, thresholds):
    """Hashes, keys and sequences without a space (OpenCoder)."""
    _, lengths = view.words
    share = lengths[lengths > 50].sum() / max(1, lengths.sum())
    return over(share, thresholds.max_long_words, "in words of over 50")


def hex_words(view, thresholds):
    """Dumps of memory, lists of colours and check sums (OpenCoder)."""
    if view.n_digits > view.n_visible / 8:
        share = len(HEX_WORD.findall(view.text)) / max(1, len(view.words[0]))
        return over(share, thresholds.max_hex_words, "hexadecimal words")


def comments(view, thresholds):
    """Files that are nearly all comment, or have too few where min_comments asks for some (StarCoder, OpenCoder)."""
    starts, ends, is_string = view.literals
    n_comment = int((ends - starts)[~is_string].sum())
    return outside(n_comment / view.n_chars, thresholds.min_comments, thresholds.max_comments, "comments")


def todo_lines(view, thresholds):
    """Skeletons that wait to be written (OpenCoder)."""
    most = thresholds.max_todo_lines * len(view.lines)
    if view.text.count("TODO") + view.text.count("FIXME") > most:  # count() is faster than the exact search below
        return over(len(TODO.findall(view.text)) / len(view.lines), thresholds.max_todo_lines, "TODO lines")


def xml(view, thresholds):
    """XML under another kind's name (StarCoder)."""
    is_named_xml = view.where.lower().endswith((".xml", ".svg", ".html", ".xhtml"))
    if "<?xml version=" in view.text[:100] and not is_named_xml:
        return "opens with <?xml version="


def html(view, thresholds):
    """Web pages with little text outside of comments, scripts, styles and tags (StarCoder)."""
    if not re.match(r"\s*<(?:!doctype html|html)\b", view.text[:200], re.IGNORECASE):
        return None
    # Comments, then scripts and styles, then tags, each by a pattern that needs linear time.
    text = "".join(re.split(r"<!--|-->", view.text)[::2])
    text = "".join(re.split(r"</?(?:script|style)\b[^<>]*>", text, flags=re.IGNORECASE)[::2])
    n_visible = len(" ".join(re.sub(r"<[^<>]*>", " ", text).split()))
    too_small_a_share = under(n_visible / view.n_chars, thresholds.min_html_visible, "visible text")
    return too_small_a_share or under(n_visible, 100, "visible characters")


def fertility(view, thresholds):
    """Text that needs many tokens, unlike what the tokenizer learnt from: binary data, foreign scripts (StarCoder)."""
    # The bound grows with the vocabulary: a token out of 65,536 stands for more text than one out of 2,048.
    if view.n_tokens:
        return under(len(view.data) / view.n_tokens, thresholds.min_fertility * view.token_bits, "bytes per token")


# -- code: what it repeats


def duplicate_lines(view, thresholds):
    """The same lines over and over; those of up to 3 characters, such as brackets, do not count (OpenCoder)."""
    lines = [line for line in view.full_lines if len(line) > 3]
    if len(lines) > 10:
        return over(1 - len(set(lines)) / len(lines), thresholds.max_duplicate_lines, "lines that occurred before")


def top_ngrams(view, thresholds):
    """One phrase over and over: the share of word characters in the commonest 2-, 3- or 4-gram (OpenCoder)."""
    hashes, lengths = view.words
    if len(hashes) < 100:
        return None
    sums = np.append(0, np.cumsum(lengths))  # the characters of an n-gram are a difference of two sums
    n_chars, most = int(sums[-1]), len(hashes)
    for n, bound in ((2, thresholds.max_top_bigram), (3, thresholds.max_top_trigram), (4, thresholds.max_top_4gram)):
        sizes = sums[n:] - sums[:-n]
        # No 4-gram occurs more often than the commonest 3-gram, and no 3-gram more often than the commonest 2-gram,
        # which often rules longer ones out without counting.
        if most * int(sizes.max()) <= bound * n_chars:
            continue
        most, place = commonest(hashing.ngrams(hashes, n))
        share = int(sizes[place]) * most / n_chars
        if most > 2 and share > bound:
            return f"commonest {n}-gram takes {share:.3g} > {bound:g}"


def commonest(values):
    """(count, first index) of the value that occurs most often in an array."""
    ordered = np.sort(values)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(starts, append=len(ordered))
    top = counts.argmax()
    return int(counts[top]), int(np.argmax(values == ordered[starts[top]]))


def duplicate_ngrams(view, thresholds):
    """Passages over and over: the share of 5-grams of words that occurred before (OpenCoder)."""
    ngrams = view.fivegrams  # sorted: equal ones are neighbours
    if len(ngrams) >= 50:
        share = np.mean(ngrams[1:] == ngrams[:-1])
        return over(share, thresholds.max_duplicate_ngrams, "5-grams that occurred before")


# -- Python

SIMPLE_RETURN = re.compile(r"(?m)^[ \t]*return(?: (?:self\.)?\w+| \"\")?[ \t]*;?$")


def syntax(view, thresholds):
    """Text that Python cannot parse: Python 2, templates, files cut off."""
    return syntax_error(view.text)


@lru_cache(maxsize=4)  # the same text is asked for by Cleaner.replaced() and by the rule
def syntax_error(text):
    """The first syntax error of a Python text, or None. symtable parses without building a tree of Python objects."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(text.removeprefix("\ufeff"), "document", "exec")
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"


def python_lines(name, what, words, prefixes=()):
    """Make the rule that bounds the share of lines whose first word is one of words, or begins with a prefix.

    Strings and comments do not count. The bound is the threshold max_<name>, what is the reason to give. All of these
    rules are OpenCoder's."""

    def rule(view, thresholds):
        """Drop a program with too large a share of such lines."""
        n_lines = len(view.full_lines)
        if n_lines >= 8:
            found = sum(view.openings[word] for word in words)
            if prefixes:
                found += sum(count for word, count in view.openings.items() if word.startswith(prefixes))
            return over(found / n_lines, getattr(thresholds, f"max_{name}"), what)

    rule.__name__ = name
    return rule


def return_lines(view, thresholds):
    """Classes of getters: lines that return a name or a constant (OpenCoder)."""
    n_lines = len(view.full_lines)
    if n_lines >= 8 and view.openings["return"] > thresholds.max_return_lines * n_lines:
        found = len(SIMPLE_RETURN.findall(view.skeleton))
        return over(found / n_lines, thresholds.max_return_lines, "lines that only return")


ALL_RULES = [too_large, wrong_decoding]
SIZE_RULES = [too_short, too_many_lines, long_line, mean_line]
CHARACTER_RULES = [alphanumeric, letters, digits, whitespace]
CONTENT_RULES = [generated, encoded_data, string_share, long_words, hex_words, comments, todo_lines]
REPETITION_RULES = [duplicate_lines, top_ngrams, duplicate_ngrams]
CODE_RULES = ALL_RULES + SIZE_RULES + CHARACTER_RULES + CONTENT_RULES + REPETITION_RULES + [xml, html, fertility]
PYTHON_RULES = [
    *CODE_RULES,
    python_lines("def_lines", "lines that open a function", ["def", "async"]),  # stubs
    python_lines("pass_lines", "lines that say pass", ["pass", "..."]),  # interfaces without code
    python_lines("import_lines", "lines that import", ["import", "from"]),  # collections of names
    python_lines("print_lines", "lines that print", ["print"]),  # texts in print statements
    python_lines("assert_lines", "lines that assert", ["assert"], prefixes=("self.assert",)),  # lists of cases
    python_lines("data_lines", "lines of literals", list("0123456789([{]})\"'-,")),  # tables
    return_lines,
    syntax,
]
