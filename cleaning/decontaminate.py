"""Benchmark problems in training data: which documents hold one, told in two ways.

    words       ten code tokens in a row (DeepSeek-Coder's rule, arXiv:2401.14196) of a problem's prompt, solution or tests:
                finds copies, reformatted ones too. Boilerplate is no evidence: n-grams that are mostly punctuation and
                numbers, or that more than MAX_SHARED problems of the benchmark have in common
    structure   a function whose syntax tree, names and docstrings taken away, is nearly that of a solution (as phi-1's
                arXiv:2306.11644, section 3.1): finds renamed copies. Comparing trees is slow, so only functions
                of documents that share enough of the solution's skeleton, n-grams with all names alike, are compared

A benchmark is any file of records: what they hold as text is looked for, what looks like Python is also compared by
structure. It applies to documents, conversations and exercises alike, as text.
"""

import ast
import builtins
import difflib
import keyword
import re
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configurator import UserError
from cleaning import hashing
from corpus.documents import Problem, read_json
from cleaning.view import LITERALS, QUOTES, View

N = 10  # tokens in a row
MIN_NAMES = 3  # words, not numbers, in an n-gram that counts as evidence
MAX_SHARED = 3  # problems that may share an n-gram of words
MIN_COPIED = 0.5  # share of the n-grams of a prompt, a solution or a test in a document that holds a copy of it,
MIN_HITS, ENOUGH = 5, 16  # and at least so many; so many are enough whatever their share
SKELETON = 6  # tokens in a row of a skeleton
MAX_FUNCTIONS = 20  # solutions that may share an n-gram of a skeleton
MIN_SKELETON = 0.6  # share of a solution's skeleton, close together, where functions are compared with it
MIN_NODES = 20  # of a tree that is compared whatever its name: smaller functions are alike everywhere
MIN_NAMED = 18  # nodes and letters of the name together: of a function that is compared with those of the same name
SIMILAR = 0.5  # a problem that a function comes closer to than this is reported with it
NOT_TEXT = ("id", "task_id", "entry_point", "url", "source_file", "subject", "path")


@dataclass
class Benchmarks:
    names: list  # problem number -> file's stem and the problem's id
    texts: hashing.Index  # n-grams -> texts of problems
    text_problems: np.ndarray  # text -> problem number
    skeletons: hashing.Index  # skeletons' n-grams -> functions of solutions
    functions: list  # (problem number, tree as a sequence) of those in skeletons
    names_of_functions: hashing.Index  # "def name" -> functions


def load(paths):
    """Benchmarks of files of records: .jsonl, .json, .gz. Raises UserError for a file without a problem."""
    names, texts, functions, owners = [], [], [], []
    for path in paths:
        path = Path(path)
        if not path.exists():
            raise UserError(f"no benchmark file {path}")
        before = len(names)
        for item in read_json(path, path.name):
            if isinstance(item, Problem):
                raise UserError(f"{path}, {item.where}: {item.rule} {item.detail}")
            record, where = item
            if not isinstance(record, dict):
                raise UserError(f"{path}, {where}: not a record")
            fields = {key: text for key, value in record.items() if key not in NOT_TEXT and (text := as_text(value))}
            if fields:
                identity = next((str(record[key]) for key in ("task_id", "id", "index") if record.get(key) is not None), where)  # fmt: skip
                functions += [(len(names), *found) for found in solution_functions(fields)]
                texts += [(len(names), text) for text in versions(fields)]
                owners.append(str(record.get("entry_point") or f"{path.name}/{identity}"))
                names.append(identity if "/" in identity else f"{path.name.split('.')[0]}/{identity}")
        if len(names) == before:
            raise UserError(f"no problems in {path}")
    return index(names, texts, functions, owners)


def as_text(value):
    if isinstance(value, str):
        return value
    return "\n".join(filter(None, map(as_text, value))) if isinstance(value, list) else ""


def versions(fields):
    """The texts whose n-grams are evidence: every field; prompt and solution in one, with and without docstrings; what a
    docstring says before its first example."""
    whole = solution(fields)
    said = [
        match.group().strip("\"'").split(">>>")[0] for match in LITERALS.finditer(whole) if match.group()[:3] in QUOTES
    ]
    return [*fields.values(), whole, LITERALS.sub("", whole), *said]


def solution(fields):
    """Prompt and solution as one program: HumanEval has half a function in each; elsewhere the solution is whole."""
    for prompt, answer in (("prompt", "canonical_solution"), ("prompt", "completion"), ("", "code"), ("", "solution")):
        if answer in fields:
            whole = fields.get(prompt, "") + fields[answer]
            return whole if prompt and parsed(whole) else fields[answer]
    return ""


def index(names, texts, functions, owners):
    """owners: what problems with the same entry point have in common, variants of one problem, is no boilerplate."""
    numbers = np.array([number for number, _ in texts], np.int64)
    return Benchmarks(
        names,
        hashing.Index(
            [informative(text.encode()) for _, text in texts],
            MAX_SHARED,
            np.unique(owners, return_inverse=True)[1][numbers],
        ),  # fmt: skip
        numbers,
        hashing.Index([skeleton_of(sequence, text) for _, sequence, text in functions], MAX_FUNCTIONS),
        [(number, sequence) for number, sequence, _ in functions],
        hashing.Index([hashing.ngrams(hashing.tokens(text.encode())[0], 2)[:1] for _, _, text in functions]),
    )


def informative(data):
    """The n-grams of a text with MIN_NAMES words and more. A number or a single letter is no word."""
    hashes, starts, lengths, kinds = hashing.tokens(data)
    found = hashing.ngrams(hashes, N)
    is_name = np.cumsum(np.append(0, (kinds == hashing.WORD) & (lengths > 1) & ~numbers(data, starts)))
    return found[is_name[N:] - is_name[:-N] >= MIN_NAMES] if len(found) else found


def numbers(data, starts):
    """Which tokens begin with a digit."""
    return (np.frombuffer(data, np.uint8)[starts] - ord("0")) < 10


# -- words


def copied(view, benchmarks):
    """(problem number, the words) of the text with most evidence in a document, or None."""
    found = hashing.ngrams(view.tokens[0], N)
    texts, places = benchmarks.texts.find(found)
    if not len(texts):
        return None
    owned = np.unique(np.stack([texts, found[places].view(np.int64)]), axis=1)[0]  # an n-gram counts once
    hits = np.bincount(owned, minlength=len(benchmarks.texts.sizes))
    enough = hits >= np.minimum(ENOUGH, np.maximum(MIN_HITS, MIN_COPIED * benchmarks.texts.sizes))
    if not enough.any():
        return None
    text = int(np.where(enough, hits, 0).argmax())
    at = int(places[texts == text][0])
    _, starts, lengths, _ = view.tokens
    words = view.data[starts[at] : starts[at + N - 1] + lengths[at + N - 1]].decode("utf-8", "replace")
    return int(benchmarks.text_problems[text]), " ".join(words.split())


# -- structure


def one_hash(word):
    return hashing.tokens(word.encode())[0]


# Words that renaming leaves alone: keywords, built-in functions, methods of built-in types.
METHODS = {name for kind in (str, list, dict, set, int, float) for name in dir(kind) if not name.startswith("_")}
FIXED_NAMES = {*keyword.kwlist, *(name for name in dir(builtins) if not name.startswith("_")), *METHODS}
FIXED = hashing.Index([one_hash(word) for word in sorted(FIXED_NAMES) if len(one_hash(word)) == 1])
NAME = one_hash("V")[0]


def skeleton(data, hashes, starts, kinds):
    """The n-grams of a program's tokens outside of comments and strings, with all names alike: what renaming and
    reformatting keep."""
    renamed = (kinds == hashing.WORD) & ~numbers(data, starts)
    renamed[FIXED.places(hashes)] = False
    return hashing.ngrams(np.where(renamed, NAME, hashes), SKELETON)


def solution_functions(fields):
    """(tree as a sequence, text) of each function of a problem's solution, comments and strings' contents gone."""
    for function in functions_of(textwrap.dedent(View(solution(fields)).skeleton)):
        if not function.name.startswith("__") and len(sequence := flat(function)) + len(function.name) >= MIN_NAMED:
            function.decorator_list = []
            yield sequence, ast.unparse(without_docstring(function))


def skeleton_of(sequence, text):
    view = View(text)
    return skeleton(view.data, *view.code_tokens) if len(sequence) >= MIN_NODES else np.zeros(0, np.uint64)


def closest(view, benchmarks):
    """{problem number: similarity} of the problems whose solution a function of the document is like, from SIMILAR on."""
    hashes, starts, kinds = view.code_tokens
    named, places = benchmarks.names_of_functions.find(hashing.ngrams(hashes, 2))
    wanted = [
        (int(i), starts[k], starts[k]) for i, k in zip(named, places)
    ]  # (function, first and last byte where it may be)
    found = skeleton(view.data, *view.code_tokens)
    functions, places = benchmarks.skeletons.find(found)
    sizes = benchmarks.skeletons.sizes
    needed = np.maximum(1, MIN_SKELETON * sizes)
    likely = np.bincount(functions, minlength=len(needed)) >= needed
    functions, places = functions[likely[functions]], places[likely[functions]]
    different = np.unique(functions << 44 | (found[places] >> np.uint64(20)).astype(np.int64)) >> 44  # each n-gram once
    for i in np.flatnonzero(np.bincount(different, minlength=len(needed)) >= needed):
        mine = places[functions == i]
        within = np.searchsorted(mine, mine + 2 * sizes[i])  # enough of a solution's skeleton must be close together
        for k in np.flatnonzero(within - np.arange(len(mine)) >= needed[i]):
            if len(np.unique(found[mine[k : within[k]]])) >= needed[i]:
                wanted.append((int(i), starts[mine[k]], starts[mine[within[k] - 1]]))
    return compare(view, wanted, benchmarks.functions) if wanted else {}


def compare(view, wanted, functions):
    """wanted: (number of a function, first and last byte of the text where it may be copied)."""
    best, blocks = {}, {}
    lows, highs = (in_skeleton(view, np.array(places)).tolist() for places in list(zip(*wanted))[1:])
    for (number, _, _), low, high in zip(wanted, lows, highs):
        for start, end in blocks_near(view.skeleton, low, high):
            if low < high or end - start < 60 * len(functions[number][1]):  # its namesake may be a much longer function
                blocks.setdefault((start, end), set()).add(number)
    for (start, end), numbers in blocks.items():
        for mine in map(flat, functions_of(textwrap.dedent(view.skeleton[start:end]))):
            for number, theirs in (functions[i] for i in numbers):
                if 0.8 * len(theirs) <= len(mine) <= 1.25 * len(theirs):
                    ratio = similarity(mine, theirs, best.get(number, SIMILAR))
                    if ratio > best.get(number, SIMILAR):
                        best[number] = ratio
    return best


def blocks_near(text, low, high):
    """(start, end) of the functions that overlap a stretch of text; one that begins at low, where low is high."""
    first = text.rfind("\n", 0, low) + 1 if low == high else max(0, low - 4000)
    for match in BLOCK.finditer(text, first):
        if match.start() > high:
            break
        if match.end() > low:
            yield match.span()


def in_skeleton(view, places):
    """Bytes of the text -> characters of view.skeleton."""
    array = np.frombuffer(view.data, np.uint8)
    chars = np.cumsum(hashing.KIND[array] != hashing.INSIDE)[places] - 1
    first, last, is_string = view.literals
    gone = np.append(0, np.cumsum(last - first - 2 * is_string))
    return chars - gone[np.searchsorted(first, chars)]


def similarity(a, b, needed):
    """The edit ratio 2 M / (len a + len b) of two sequences (Ratcliff and Obershelp), or 0 where it cannot reach needed."""
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() > needed else 0.0


BLOCK = re.compile(  # the outermost functions of a text, whether the rest of it is Python or not
    r"^([ \t]*)(?:async[ \t]+)?def\b.*(?:\n(?:\1[ \t]+\S.*|[ \t]*$|\1[)\]}].*))*", re.MULTILINE
)


def parsed(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def functions_of(text):
    tree = parsed(text)
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)] if tree else []


def without_docstring(function):
    if len(function.body) > 1 and ast.get_docstring(function, clean=False) is not None:
        function.body = function.body[1:]
    return function


SKIPPED = (ast.Load, ast.Store, ast.Del, ast.expr_context)


def flat(function):
    """A function's tree as a sequence of node types, operators, constants, and the names that renaming leaves alone.
    Docstring, annotations and decorators do not count."""
    function = without_docstring(function)
    out, stack = [], [*reversed(function.body)]
    out += ["arg"] * len(function.args.args)
    while stack:
        node = stack.pop()
        if isinstance(node, SKIPPED):
            continue
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        value = repr(node.value)[:40] if isinstance(node, ast.Constant) else name if name in FIXED_NAMES else ""
        out.append(f"{type(node).__name__} {value}")
        children = [child for field, child in ast.iter_fields(node) if field not in ("annotation", "returns")]
        for child in reversed(children):
            stack += [c for c in reversed(child) if isinstance(c, ast.AST)] if isinstance(child, list) else [child] if isinstance(child, ast.AST) else []  # fmt: skip
    return out
