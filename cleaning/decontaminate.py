"""Benchmark problems in training data: which documents hold one, told in two ways.

    words       The document has ten code tokens in a row (DeepSeek-Coder's rule, arXiv:2401.14196) of a problem's
                prompt, solution or tests. This finds copies, reformatted ones too. Boilerplate does not count: n-grams
                that are mostly punctuation and numbers, or that more than MAX_SHARED problems have in common.
    structure   The document has a function whose syntax tree, without names and docstrings, is nearly that of a
                solution (as in phi-1, arXiv:2306.11644, section 3.1). This finds renamed copies. Comparing trees is
                slow, so it is only done where the document has a function of the same name or enough of the solution's
                skeleton: n-grams of tokens with all names alike.

A benchmark is any file of records. All of a record's texts are searched for by their words, its solution by structure
too. Documents, conversations and exercises are all searched as text, and so is what stands in strings with escaped
line ends: the cells of notebooks, programs in JSON.
"""

import ast
import builtins
import difflib
import itertools
import json
import keyword
import re
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleaning import hashing
from cleaning.view import LITERALS, QUOTES, View
from configurator import UserError
from corpus.records import records

N = 10  # tokens in a row
MIN_NAMES = 3  # words, not numbers, in an n-gram that counts as evidence
MAX_SHARED = 3  # problems that may share an n-gram of words
MIN_COPIED = 0.5  # a document holds a copy of a text if it has this share of the text's n-grams,
# and at least MIN_HITS of them, or all where it has fewer; ENOUGH of them suffice whatever their share
MIN_HITS, ENOUGH = 5, 16
SKELETON = 6  # tokens in a row of a skeleton
MAX_FUNCTIONS = 20  # problems whose solutions may share an n-gram of a skeleton
MIN_SKELETON = 0.6  # share of a solution's skeleton, close together, from which functions are compared with it
MIN_NODES = 20  # nodes of a tree that is compared whatever its name: smaller functions are alike everywhere
MIN_NAMED = 18  # nodes plus letters of the name of a function that is compared with those of the same name
SIMILAR = 0.5  # from this similarity on a problem is reported
IDS = ("task_id", "question_id", "problem_id", "id", "index")  # what may name a problem, as in evaluation/formats.py
NOT_TEXT = ("id", "task_id", "entry_point", "url", "source_file", "subject", "path")
# Fields with a problem's description, the first that there is; and with its solution: (head of the function, the rest).
DESCRIPTIONS = ("complete_prompt", "prompt", "text", "question", "request", "query")
SOLUTIONS = (("complete_prompt", "canonical_solution"), ("prompt", "canonical_solution"), ("prompt", "completion"))
SOLUTIONS += tuple(("", name) for name in ("canonical_solution", "completion", "code", "solution"))


@dataclass
class Function:
    """A function of a problem's solution."""

    problem: int  # the problem's number
    tree: list  # flat() of its syntax tree
    skeleton: np.ndarray  # skeleton_ngrams(); empty where the function is too small to be found by them
    def_and_name: np.ndarray  # the hash of the 2-gram "def name", an array of one


@dataclass
class Benchmarks:
    """The problems of all benchmark files, and the indexes that find copies of them."""

    names: list  # of each problem: "HumanEval/0", the file and the problem's id in it
    texts: hashing.Index  # n-grams -> texts; a problem has several, its prompt, solution, tests, ...
    text_problems: np.ndarray  # the number of the problem that each text is of
    functions: list  # Functions of all solutions
    skeletons: hashing.Index  # n-grams of skeletons -> functions
    function_names: hashing.Index  # 2-grams "def name" -> functions


# -- from files to Benchmarks


def load(paths):
    """The Benchmarks of files of records (.jsonl, .json, .gz). Raises UserError for a damaged file or one without
    problems."""
    names, owners, texts, text_problems, functions = [], [], [], [], []
    owner_numbers = {}
    for path in map(Path, paths):
        n_before = len(names)
        if not path.exists():
            raise UserError(f"no benchmark file {path}")
        for record, place in records(path):
            try:
                fields = fields_of(record)
                found = solution_functions(fields, len(names))
            except RecursionError:
                raise UserError(f"{path}, {place}: nested too deeply") from None
            if not fields:
                continue
            given = [record[key] for key in IDS if record.get(key) is not None]
            identity = str(given[0]) if given else f"{path.name}:{place.split()[-1]}"
            functions += found
            versions = text_versions(fields)
            texts += versions
            text_problems += [len(names)] * len(versions)
            owners.append(owner_numbers.setdefault(owner(record, fields), len(owner_numbers)))
            names.append(identity if "/" in identity else f"{path.name.split('.')[0]}/{identity}")
        if len(names) == n_before:
            raise UserError(f"no problems in {path}")
    owner_of_problem = np.array(owners, np.int64)
    function_problems = np.array([function.problem for function in functions], np.int64)
    text_problems = np.array(text_problems, np.int64)
    text_ngrams = [informative_ngrams(text.encode()) for text in texts]
    return Benchmarks(
        names=names,
        texts=hashing.Index(text_ngrams, MAX_SHARED, owner_of_problem[text_problems]),
        text_problems=text_problems,
        functions=functions,
        skeletons=hashing.Index(
            [function.skeleton for function in functions], MAX_FUNCTIONS, owner_of_problem[function_problems]
        ),
        function_names=hashing.Index([function.def_and_name for function in functions]),
    )


def fields_of(record):
    """{name: text} of the texts of a record. Each of several solutions is a text of its own; APPS has them as JSON."""
    values = {key: value for key, value in record.items() if key not in NOT_TEXT}
    solutions = values.get("solutions")
    if isinstance(solutions, str):
        try:
            solutions = json.loads(solutions)
        except ValueError:
            pass  # it is one program, then
    if isinstance(solutions, list):
        del values["solutions"]
        values |= {f"solutions {number}": value for number, value in enumerate(solutions)}
    texts = {key: as_text(value) for key, value in values.items()}
    return {key: text for key, text in texts.items() if text}


def owner(record, fields):
    """What variants of one problem have in common, so that what they share is no boilerplate: the entry point and the
    words of the description. In a prompt of code that is its first docstring: those of the infilling benchmarks end at
    different places below it. An entry point alone may be every problem's, as BigCodeBench's task_func is."""
    described = next((fields[name] for name in DESCRIPTIONS if name in fields), "\n".join(fields.values()))
    entry_point = str(record.get("entry_point") or "")
    docstrings = explanations(described) if entry_point else []
    return entry_point, " ".join(re.findall(r"\w+", docstrings[0] if docstrings else described))


def as_text(value):
    """A string as it is, a list of strings as lines, anything else as ""."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(as_text, value)))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""  # JSON may hold half surrogates


def text_versions(fields):
    """The texts by which a problem is found: every field; prompt and solution joined, with and without strings and
    comments; each docstring up to its first example."""
    versions = list(fields.values())
    for whole in solutions(fields):
        versions += [whole, LITERALS.sub("", whole), *explanations(whole)]
    return list(dict.fromkeys(versions))


def explanations(text):
    """The docstrings of a program, each up to its first example."""
    literals = [match.group() for match in LITERALS.finditer(text)]
    return [literal.strip("\"'").split(">>>")[0] for literal in literals if literal[:3] in QUOTES]


def solutions(fields):
    """A problem's solutions as programs. In HumanEval the prompt has the head of the function and the solution its
    body, elsewhere the solution is whole."""
    found = [text for key, text in fields.items() if key.startswith("solutions")]
    for prompt, answer in SOLUTIONS:
        if answer in fields and (not prompt or prompt in fields):
            whole = fields.get(prompt, "") + fields[answer]
            return [whole if prompt and parsed(whole) else fields[answer], *found]
    return found


def solution_functions(fields, problem):
    """The Functions of a problem's solutions, but not __init__ and the like, nor short ones with short names."""
    functions = []
    programs = [textwrap.dedent(View(whole).skeleton) for whole in solutions(fields)]
    for node in itertools.chain.from_iterable(map(functions_of, programs)):
        tree = flat(node)
        if not node.name.startswith("__") and len(tree) + len(node.name) >= MIN_NAMED:
            node.decorator_list = []
            view = View(ast.unparse(without_docstring(node)))
            skeleton = skeleton_ngrams(view) if len(tree) >= MIN_NODES else np.zeros(0, np.uint64)
            functions.append(Function(problem, tree, skeleton, hashing.ngrams(view.tokens[0], 2)[:1]))
    return functions


def informative_ngrams(data):
    """The n-grams of UTF-8 text that have at least MIN_NAMES words. Numbers and single letters are not words here."""
    hashes, starts, lengths, kinds = hashing.tokens(data)
    ngrams = hashing.ngrams(hashes, N)
    is_name = (kinds == hashing.WORD) & (lengths > 1) & ~is_number(data, starts)
    n_names = np.cumsum(np.append(0, is_name))
    return ngrams[n_names[N:] - n_names[:-N] >= MIN_NAMES] if len(ngrams) else ngrams


def is_number(data, starts):
    """Which tokens begin with a digit, bool (n,). starts: their first bytes."""
    return (np.frombuffer(data, np.uint8)[starts] - ord("0")) < 10  # uint8: what lies below "0" wraps round


# -- copies told by their words


def copied(view, benchmarks):
    """(problem number, the first words in common) of the text that a document has most n-grams of, or None if it has
    too few of every text. What stands in its strings is a document too."""
    return copied_in(view, benchmarks) or (view.quoted and copied_in(view.quoted, benchmarks))


def copied_in(view, benchmarks):
    """The same of a document without regard to escapes in its strings."""
    ngrams = hashing.ngrams(view.tokens[0], N)
    texts, places = benchmarks.texts.find(ngrams)
    if not len(texts):
        return None
    distinct = np.unique(np.stack([texts, ngrams[places].view(np.int64)]), axis=1)  # an n-gram counts once per text
    hits = np.bincount(distinct[0], minlength=len(benchmarks.texts.sizes))
    sizes = benchmarks.texts.sizes
    at_least = np.minimum(MIN_HITS, np.maximum(sizes, 1))  # a text without n-grams is never found
    needed = np.minimum(ENOUGH, np.maximum(at_least, MIN_COPIED * sizes))
    if not (hits >= needed).any():
        return None
    text = int(np.where(hits >= needed, hits, 0).argmax())
    first = int(places[texts == text][0])
    last = first + N - 1
    _, starts, lengths, _ = view.tokens
    words = view.data[starts[first] : starts[last] + lengths[last]].decode("utf-8", "replace")
    return int(benchmarks.text_problems[text]), " ".join(words.split())


# -- copies told by their structure


# Words that stay when a copy's names are changed: keywords, built-in functions, methods of built-in types.
BUILT_IN = itertools.chain(dir(builtins), *map(dir, (str, list, dict, set, int, float)))
FIXED_NAMES = {*keyword.kwlist, *(name for name in BUILT_IN if not name.startswith("_"))}
FIXED = hashing.Index([hashing.tokens(name.encode())[0] for name in sorted(FIXED_NAMES)])
NAME = hashing.tokens(b"V")[0][0]  # stands for every other name


def skeleton_ngrams(view):
    """The n-grams of a program's tokens outside of comments and strings, with all names alike, except FIXED_NAMES."""
    hashes, starts, kinds = view.code_tokens
    is_name = (kinds == hashing.WORD) & ~is_number(view.data, starts)
    is_name[FIXED.places(hashes)] = False
    return hashing.ngrams(np.where(is_name, NAME, hashes), SKELETON)


def closest(view, benchmarks):
    """{problem number: similarity} of the problems to whose solution a function of the document is similar, or one in
    its strings."""
    found = closest_in(view, benchmarks)
    quoted = closest_in(view.quoted, benchmarks) if view.quoted else {}
    return {problem: max(found.get(problem, 0), quoted.get(problem, 0)) for problem in [*found, *quoted]}


def closest_in(view, benchmarks):
    """The same of a document without regard to escapes in its strings."""
    hashes, starts, _ = view.code_tokens
    functions, places = benchmarks.function_names.find(hashing.ngrams(hashes, 2))
    stretches = [(i, starts[place], starts[place]) for i, place in zip(functions.tolist(), places)]
    stretches += same_skeletons(view, benchmarks)
    return compare(view, stretches, benchmarks.functions) if stretches else {}


def same_skeletons(view, benchmarks):
    """Where a document has MIN_SKELETON of a function's skeleton within twice the skeleton's length: a list of
    (number of the function in benchmarks.functions, first byte, last byte)."""
    _, starts, _ = view.code_tokens
    ngrams = skeleton_ngrams(view)
    functions, places = benchmarks.skeletons.find(ngrams)
    sizes = benchmarks.skeletons.sizes
    needed = np.maximum(1, MIN_SKELETON * sizes)
    is_likely = np.bincount(functions, minlength=len(needed)) >= needed  # a fast test that rules out most functions
    functions, places = functions[is_likely[functions]], places[is_likely[functions]]
    # Count again, each n-gram once per function: the function's number and 44 bits of the hash make one integer.
    distinct = np.unique(functions << 44 | (ngrams[places] >> np.uint64(20)).astype(np.int64)) >> 44
    stretches = []
    for i in np.flatnonzero(np.bincount(distinct, minlength=len(needed)) >= needed):
        mine = places[functions == i]
        ends = np.searchsorted(mine, mine + 2 * sizes[i])  # mine[k : ends[k]] lie close together
        for k in np.flatnonzero(ends - np.arange(len(mine)) >= needed[i]):
            if len(np.unique(ngrams[mine[k : ends[k]]])) >= needed[i]:
                stretches.append((int(i), starts[mine[k]], starts[mine[ends[k] - 1]]))
    return stretches


def compare(view, stretches, functions):
    """{problem number: similarity}, the highest of any function of the document that overlaps a stretch. stretches:
    (number of the function to compare with, first byte, last byte); a single byte is where "def name" was found."""
    numbers, firsts, lasts = map(np.array, zip(*stretches))
    lows, highs = in_skeleton(view, firsts).tolist(), in_skeleton(view, lasts).tolist()
    suspected = {}  # (start, end) of a function of the document -> the functions that it may be a copy of
    trees = {}  # (start, end) -> the trees of it and of the functions in it; none if it cannot be parsed
    around = {}  # number -> the block that held its last stretch: the next ones that lie there too say nothing new
    for number, low, high in zip(numbers.tolist(), lows, highs):
        start, end = around.get(number, (0, 0))
        if start <= low < high <= end:
            continue
        longest = 60 * len(functions[number].tree)  # a function of the same name may be a much longer one
        for start, end in blocks_near(view.skeleton, low, high):
            if low == high and end - start >= longest:
                continue
            suspected.setdefault((start, end), set()).add(number)
            if (start, end) not in trees:
                trees[start, end] = [*map(flat, functions_of(textwrap.dedent(view.skeleton[start:end])))]
            if low < high and trees[start, end]:
                around[number] = start, end
    best = {}
    for place, numbers in suspected.items():
        for tree, number in itertools.product(trees[place], numbers):
            theirs = functions[number]
            if 0.8 * len(theirs.tree) <= len(tree) <= 1.25 * len(theirs.tree):
                needed = best.get(theirs.problem, SIMILAR)
                # ratio(): twice the elements in common / the sum of both lengths. quick_ratio(): a fast upper bound
                matcher = difflib.SequenceMatcher(None, tree, theirs.tree, autojunk=False)
                if matcher.quick_ratio() > needed and matcher.ratio() > needed:
                    best[theirs.problem] = matcher.ratio()
    return best


# The outermost functions of a text, whether the rest of it is Python or not.
BLOCK = re.compile(r"(?m)^([ \t]*)(?:async[ \t]+)?def\b.*(?:\n(?:\1[ \t]+\S.*|[ \t]*$|\1[)\]}].*))*")


def blocks_near(text, low, high):
    """Yield (start, end) of the functions that overlap text[low:high]. If low is high: of the one that begins there."""
    first = text.rfind("\n", 0, low) + 1 if low == high else max(0, low - 4000)
    for match in BLOCK.finditer(text, first):
        if match.start() > high:
            break
        if match.end() > low:
            yield match.span()


def in_skeleton(view, places):
    """Places in a text, counted in bytes, as places in view.skeleton, counted in characters."""
    array = np.frombuffer(view.data, np.uint8)
    chars = np.cumsum(hashing.KIND[array] != hashing.INSIDE)[places] - 1
    starts, ends, is_string = view.literals
    n_removed = np.append(0, np.cumsum(ends - starts - 2 * is_string))  # the two quotes of a string stay
    return chars - n_removed[np.searchsorted(starts, chars)]


# -- syntax trees


def parsed(text):
    """ast's tree of a Python text, or None where it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def functions_of(text):
    """The nodes of the functions in a Python text, nested ones too; none if it cannot be parsed."""
    tree = parsed(text)
    nodes = ast.walk(tree) if tree else []
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def without_docstring(function):
    """The node of a function with its docstring removed, unless the function has nothing else."""
    if len(function.body) > 1 and ast.get_docstring(function, clean=False) is not None:
        function.body = function.body[1:]
    return function


def flat(function):
    """A function's syntax tree as a list of node types, operators, constants and FIXED_NAMES, in the order of the
    source, without docstring, annotations and decorators."""
    sequence = ["arg"] * len(function.args.args)
    stack = without_docstring(function).body[::-1]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.expr_context):  # whether a name is read or written
            continue
        value = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, ast.Constant):
            value = repr(node.value)[:40]
        elif value not in FIXED_NAMES:
            value = ""
        sequence.append(f"{type(node).__name__} {value}")
        annotations = getattr(node, "annotation", None), getattr(node, "returns", None)
        stack += [child for child in ast.iter_child_nodes(node) if child not in annotations][::-1]
    return sequence
