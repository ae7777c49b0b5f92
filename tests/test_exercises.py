"""The exercises: every solution passes, nearly every mutant fails, no composition is on both sides of the split."""

import ast
import collections
import gzip
import io
import json
import os
import random
import re
import signal
import tokenize

import pytest
from conftest import DATA, stage

from exercises.programs import FAMILIES
from exercises.views import is_test, make_exercise


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exercises")
    arguments = ("--documents=1200", "--chats=600", "--problems=120", "--num_workers=1")
    stage("exercises", f"--out_dir={folder}", *arguments, cwd=folder)
    return folder


def records(folder, view):
    return [json.loads(line) for line in (folder / f"{view}.jsonl").read_text().splitlines()]


def passes(program, test, entry_point, seconds=0.5):
    """Whether a program passes its test, run right here: it is our own or a mutant of it."""

    def alarm(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, alarm)
    passed = False
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            scope = {}
            exec(program + "\n" + test, scope)
            scope["check"](scope[entry_point])
            passed = True
        except Exception:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:  # the alarm rang when the program had already ended, and only once
        pass
    finally:
        signal.signal(signal.SIGALRM, before)
    return passed


def test_every_solution_passes_and_every_docstring_example_is_true(made):
    for p in records(made, "problems"):
        program = p["prompt"] + p["canonical_solution"]
        assert passes(program, p["test"], p["entry_point"]), program
        example = re.search(r">>> (.+)\n    (.+)\n", p["prompt"])
        scope = {}
        exec(program, scope)
        assert eval(example[1], scope) == ast.literal_eval(example[2]), program


# What a mutant has in place of an operator.
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
OTHER |= {ast.Gt: ast.LtE, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.LtE: ast.Gt}
OTHER |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}


def mutants(solution, signature):
    """Programs that differ in one operator, comparison, constant (off by one), or lack one statement."""
    source = f"{signature}\n{solution}"
    n_nodes = len(list(ast.walk(ast.parse(source))))
    for i in range(n_nodes):
        tree = ast.parse(source)
        node = list(ast.walk(tree))[i]
        if isinstance(node, (ast.BinOp, ast.AugAssign)):
            node.op = OTHER[type(node.op)]()
        elif isinstance(node, ast.BoolOp):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        elif isinstance(node, ast.Compare):
            node.ops = [OTHER[type(node.ops[0])]()]
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            node.value += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) == 1:
            node.value = "q"
        elif isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            for k in range(len(node.body) - 1):
                dropped = ast.parse(source)
                del dropped.body[0].body[k]
                yield ast.unparse(dropped)
            continue
        else:
            continue
        yield ast.unparse(tree)


def test_nearly_every_mutant_fails(made):
    killed, survivors = 0, []
    for p in records(made, "problems"):
        signature = p["prompt"].split("\n")[0]
        for mutant in mutants(p["canonical_solution"], signature):
            if passes(mutant, p["test"], p["entry_point"], seconds=0.1):
                survivors.append(mutant)
            else:
                killed += 1
    assert killed > 500 and killed / (killed + len(survivors)) >= 0.95, "\n\n".join(survivors[:20])


def test_no_composition_is_on_both_sides_of_the_split():
    sides = {False: set(), True: set()}
    for family in FAMILIES:
        for test, count in ((False, 400), (True, 40)):
            for i in range(count):
                sides[test].add(make_exercise(family, i, seed=5, test=test).composition)
    assert not sides[False] & sides[True] and all(is_test(c) for c in sides[True])


def test_there_are_thousands_of_compositions_in_six_families(made):
    compositions = collections.defaultdict(set)
    for family, draw in FAMILIES.items():
        for i in range(4000):
            compositions[family].add(">".join(draw(random.Random(i)).operations))
    assert len(compositions) == 6 and sum(map(len, compositions.values())) >= 5000
    levels = {p["level"] for p in records(made, "problems")}
    assert len(levels) >= 4 and {p["family"] for p in records(made, "problems")} == set(FAMILIES)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    for name, extra in (("again", ["--num_workers=2"]), ("other", ["--seed=7", "--num_workers=2"])):
        arguments = ["--documents=1200", "--chats=600", "--problems=120", *extra]
        stage("exercises", f"--out_dir={tmp_path / name}", *arguments, cwd=tmp_path)
    for view in ("documents", "chats", "problems"):
        first = (made / f"{view}.jsonl").read_bytes()
        assert (tmp_path / "again" / f"{view}.jsonl").read_bytes() == first
        assert (tmp_path / "other" / f"{view}.jsonl").read_bytes() != first


def test_the_three_views_are_what_they_say(made):
    documents, chats = records(made, "documents"), records(made, "chats")
    for record in documents:
        compile(record["text"], "<document>", "exec")
    assert 0.2 < sum(d["text"].startswith("# ") for d in documents) / len(documents) < 0.3, "explained ones"
    assert {len(c["messages"]) for c in chats} == {2, 4}
    for chat in chats:
        assert [m["role"] for m in chat["messages"]] == ["user", "assistant"] * (len(chat["messages"]) // 2)
    openings = {re.split(r"[:` ]", c["messages"][0]["content"])[0] for c in chats}
    assert {"Complete", "Write", "Implement"} <= openings


LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def code_tokens(text):
    """Python's tokens without layout and comments; of what is no Python, words and signs."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    try:
        return [token.string for token in tokens if token.type not in LAYOUT]
    except (tokenize.TokenError, IndentationError):
        return re.findall(r"\w+|[^\w\s]", text)


def grams(text, n=10):
    """The set of n consecutive words of code."""
    words = re.findall(r"\w+|[^\w\s]", " ".join(code_tokens(text)))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def benchmark_texts():
    """The texts of HumanEval's and MBPP's problems."""
    with gzip.open(DATA / "humaneval/HumanEval.jsonl.gz", "rt") as f:
        for problem in map(json.loads, f):
            yield problem["prompt"] + problem["canonical_solution"]
            yield problem["test"]
    with gzip.open(DATA / "mbpp/mbpp.jsonl.gz", "rt") as f:
        for problem in map(json.loads, f):
            yield from (problem["text"], problem["code"], *problem["test_list"])


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
def test_no_ten_tokens_of_what_is_trained_on_are_shared_with_the_benchmarks(tmp_path):
    benchmark = set().union(*map(grams, benchmark_texts()))
    count = int(os.environ.get("EXERCISES", 3000))  # 50000 are the demo's: minutes
    stage("exercises", f"--out_dir={tmp_path}", f"--documents={count}", f"--chats={count // 3}", cwd=tmp_path)
    texts = [document["text"] for document in records(tmp_path, "documents")]
    for problem in records(tmp_path, "problems"):
        texts += [problem["prompt"], problem["canonical_solution"]]
    for chat in records(tmp_path, "chats"):
        texts += [message["content"] for message in chat["messages"]]
    shared = set().union(*(grams(text) & benchmark for text in texts))
    assert not shared, [" ".join(gram) for gram in list(shared)[:20]]
