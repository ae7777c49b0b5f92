"""The exercises: every solution passes, nearly every mutant fails, and what is held out is nowhere in training."""

import ast
import builtins
import contextlib
import gzip
import io
import json
import math
import random
import re
import signal
import tokenize

import pytest
from conftest import DATA, stage

from corpus.documents import Document, read
from evaluation.formats import problem_of
from evaluation.mutants import mutants
from evaluation.replies import code_in
from exercises import making, tables, unseen, views, wording
from exercises.code import renamed
from exercises.compose import Draft, Unfit
from exercises.making import CONDITIONS, LADDER, OPERATIONS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exercises")
    stage("exercises", f"--out_dir={folder}", *COUNTS, "--num_workers=1", cwd=folder)
    return folder


COUNTS = ("--documents=3000", "--chats=1000", "--problems=50")


def records(folder, view):
    return [json.loads(line) for line in (folder / f"{view}.jsonl").read_text().splitlines()]


def training_texts(folder):
    """All that is trained on: the documents, and what is said in conversations."""
    texts = [document["text"] for document in records(folder, "documents")]
    for chat in records(folder, "chats"):
        texts += [message["content"] for message in chat["messages"]]
    return texts


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
    n_examples = 0
    for p in records(made, "problems"):
        program = p["prompt"] + p["canonical_solution"]
        assert passes(program, p["test"], p["entry_point"]), program
        for call, result in re.findall(r">>> (.+)\n    (.+)\n", p["prompt"]):
            scope = {}
            exec(program, scope)
            assert eval(call, scope) == eval(result), program
            n_examples += 1
    assert n_examples > 20


def test_nearly_every_mutant_fails(made):
    killed, survivors = 0, []
    for p in records(made, "problems"):
        signature = f"def {p['entry_point']}({re.search(r'def [^(]*[(](.*)[)]', p['prompt'])[1]}):"
        for mutant in mutants(f"{signature}\n{p['canonical_solution']}"):
            if passes(mutant, p["test"], p["entry_point"], seconds=0.1):
                survivors.append(mutant)
            else:
                killed += 1
    assert killed > 700 and killed / (killed + len(survivors)) >= 0.95, "\n\n".join(survivors[:20])


def test_every_gap_is_filled_by_its_own_middle_and_hardly_one_by_nothing(made):
    found = {"one_line": [], "several_lines": []}
    for record in records(made, "gaps"):
        problem = problem_of(record)
        middle, suffix = problem.solution, problem.suffix
        assert passes(problem.program(middle), record["test"], record["entry_point"]), problem.task_id
        assert suffix.strip() and middle.endswith("\n") and problem.prompt.endswith("\n"), "whole lines"
        n_lines = middle.count("\n")
        assert n_lines == 1 if record["family"] == "one_line" else n_lines > 1
        is_missed = not passes(problem.program(""), record["test"], record["entry_point"], seconds=0.1)
        found[record["family"]].append(is_missed)
    for is_missed in found.values():
        assert len(is_missed) == 300 and sum(is_missed) / len(is_missed) > 0.98


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    """And fewer of them are the first of many."""
    fewer = ["--documents=250", "--chats=250", "--problems=5"]  # more documents than a worker makes at a time
    few = ["--documents=20", "--chats=20", "--problems=2", "--seed=7"]
    for name, arguments in (("again", fewer), ("other", few)):
        how = {"cwd": tmp_path, "forks": False}  # with another hash seed
        stage("exercises", f"--out_dir={tmp_path / name}", *arguments, "--num_workers=2", **how)
    for view in ("documents", "chats", "problems", "gaps"):
        folders = made, tmp_path / "again", tmp_path / "other"
        first, again, other = ((folder / f"{view}.jsonl").read_bytes().splitlines() for folder in folders)
        known = set(again)
        assert len(again) >= 30 and again == [line for line in first if line in known]
        assert other[0] != first[0]


def test_the_views_are_what_they_say(made):
    documents, chats = records(made, "documents"), records(made, "chats")
    for record in documents:
        compile(record["text"], "<document>", "exec")
    assert 0.15 < sum(d["text"].startswith('"""') for d in documents) / len(documents) < 0.25, "with a test in front"
    assert {2, 4, 6, 8} <= {len(c["messages"]) for c in chats} <= {2, 4, 6, 8, 10}
    asked, n_functions, wrong = [], 0, []
    for turns in (chat["messages"] for chat in chats):
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        asked += zip(turns[::2], turns[1::2])
    for request, reply in asked:
        answer = code_in(reply["content"])
        if "def " not in answer:
            continue
        n_functions += 1
        scope = {}
        exec(answer, scope)
        scope["math"] = math  # which a test may use
        for test in re.findall(r"^assert .*", request["content"], re.M):
            if not eval(test.removeprefix("assert "), scope):
                wrong.append(answer)
    assert 0.89 < n_functions / len(asked) < 0.95 and not wrong, wrong


@pytest.mark.parametrize(
    "hint, result, calls",
    [
        ("float", 0.5, ("isclose", "abs")),
        ("list[str]", ["a"], ("list",)),
        ("set[str]", {"a"}, ("set",)),
        ("bool", True, (" is True$",)),
    ],
)
def test_tests_are_written_as_people_write_them(hint, result, calls):
    """With and without blanks, in both quotes, with a call around the result; and all are true."""
    exercise = making.Exercise(
        ["f"], "find", ["xs", "k"], ["list[str]", "int", hint], "", [], [([["a", "b"], 2], result)]
    )
    tests = {views.as_typed(exercise, random.Random(n))[0] for n in range(500)}
    for shape in (r"\S==\S", r"\S == \S", r"\( \[", ",[^ ]", ", ", r"\['", r"\[\"", *calls):
        assert any(re.search(shape, test) for test in tests), shape
    for test in tests:
        exec(test, {"math": math, "find": lambda xs, k: result if (xs, k) == (["a", "b"], 2) else None})


def test_a_name_in_another_shape_is_the_same_name():
    """Capitals, underscores and a number may differ: a name that is held out does not become one of training."""
    rng = random.Random(1)
    names = {wording.reshaped(rng, "find_low_price") for _ in range(1000)}
    assert {"find_low_price", "findLowPrice", "Find_low_Price"} <= names and len(names) > 20
    back = {re.sub(r"_?[0-9]+$", "", name).replace("_", "").lower() for name in names}
    assert back == {"findlowprice"} and all(name.isidentifier() for name in names)


def test_every_name_in_a_body_is_one_that_people_write():
    """And not a placeholder, x_0 or __0: of every operation alone, and of operations put together."""
    maker, rng = making.MAKERS[False], random.Random(1)
    drafts = [maker.single(rng, operation, 3) for operation in maker.operations]
    while len(drafts) < len(maker.operations) + 300:
        try:
            drafts.append(maker.draft(rng))
        except Unfit:
            continue
    for draft in drafts:
        for body in draft.bodies:
            names = making.final_names(rng, body, {}, "solve")
            for node in ast.walk(ast.parse(renamed(body, names))):
                given = [getattr(node, field, None) or "" for field in ("id", "arg", "name")]
                assert not any(re.search(r"_\d$", name) for name in given), (draft.parts, given)
    chained = making.final_names(rng, "for __0 in xs_0:\n    for __1 in xs_0:\n        pass", {"xs_0": "xs"}, "solve")
    assert chained == {"xs_0": "xs", "__0": "_", "__1": "_"}


LAYOUT = (tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def code_tokens(text):
    """Python's tokens without layout and comments; of what is no Python, words and signs."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    try:
        return [token.string for token in tokens if token.type not in LAYOUT]
    except (tokenize.TokenError, IndentationError):
        return re.findall(r"\w+|[^\w\s]", text)


def benchmark_texts():
    """The texts of HumanEval's and MBPP's problems."""
    with gzip.open(DATA / "humaneval/HumanEval.jsonl.gz", "rt") as f:
        for problem in map(json.loads, f):
            yield problem["prompt"] + problem["canonical_solution"]
            yield problem["test"]
    for name in ("mbpp", "mbpp_sanitized"):  # where half of the questions are rewritten
        with gzip.open(DATA / f"mbpp/{name}.jsonl.gz", "rt") as f:
            for problem in map(json.loads, f):
                question = problem.get("text") or problem["prompt"]
                yield from (question, problem["code"], *problem["test_list"])


def on(rung, made):
    """The problems of one rung of the ladder."""
    return [problem for problem in records(made, "problems") if problem["family"] == rung]


def test_every_rung_has_its_problems_and_no_composition_is_on_both_sides(made):
    assert {rung: len(on(rung, made)) for rung in LADDER} == dict.fromkeys(LADDER, 50)
    trained = {document["composition"] for document in records(made, "documents")}
    tested = {problem["composition"] for problem in on("compositions", made)}
    assert all(">" in composition for composition in tested) and not trained & tested
    assert sum(">" not in composition for composition in trained) > 450, "single operations are common"


class Nameless(ast.NodeTransformer):
    """Numbers the names of a function as they occur, and forgets its own, its docstring, its hints and constants."""

    def __init__(self):
        self.numbers = {}

    def visit_FunctionDef(self, node):
        node.name, node.returns = "", None
        if ast.get_docstring(node) is not None:
            del node.body[0]
        return self.generic_visit(node)

    def visit_arg(self, node):
        return ast.arg(self.numbers.setdefault(node.arg, str(len(self.numbers))))

    def visit_Name(self, node):
        is_builtin = hasattr(builtins, node.id)
        return node if is_builtin else ast.Name(self.numbers.setdefault(node.id, str(len(self.numbers))))

    def visit_Constant(self, node):
        return ast.Name("constant")


def functions_of(text):
    """The functions of a program without names and constants."""
    with contextlib.suppress(SyntaxError):
        return {ast.dump(Nameless().visit(node)) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    return set()


def test_no_composition_that_is_tested_is_trained_on_in_another_form(made):
    """Neither as a part of a longer chain, nor as a function that differs in names and constants alone."""
    chains = [f">{document['composition']}>" for document in records(made, "documents")]
    seen = set().union(*(functions_of(code_in(text) or text) for text in training_texts(made)))
    assert len(seen) > 1000
    for problem in on("compositions", made):
        assert not [chain for chain in chains if f">{problem['composition']}>" in chain], problem["composition"]
        assert not functions_of(problem["prompt"] + problem["canonical_solution"]) & seen, problem["prompt"]


def test_what_people_ask_for_first_is_drawn_most_often(made):
    names = {}
    for folder in ("rare", "common", "next", "first"):  # a name in two tables is the more frequent one's
        for path in tables.FOLDER.glob(f"{folder}/*.txt"):
            names |= dict.fromkeys((operation.name for operation in tables.read_table(path)), folder)
    singles = [names[d["composition"]] for d in records(made, "documents") if d["composition"] in names]
    shares = {folder: singles.count(folder) / len(singles) for folder in ("first", "next", "common", "rare")}
    assert len(singles) > 1500 and shares["first"] > 0.7, shares
    assert shares["next"] > 0.1 > shares["common"] > shares["rare"] > 0.005, shares


def test_names_and_nouns_that_are_held_out_are_nowhere_in_training(made):
    """Nor in the standard library, which the demo reads too."""
    library = "\n".join(item.text for item in read("stdlib") if isinstance(item, Document))
    training = "\n".join(training_texts(made))
    signatures = re.findall(r"\bdef (\w+)\((.*)\)", training)
    functions, parameters = {name for name, _ in signatures}, set()
    for _, listed in signatures:
        parameters |= set(re.findall(r"(\w+)(?=[:,]|$)", listed))
    assert len(functions) > 1000 and len(parameters) > 500
    identifiers = set(re.findall(r"\w+", library))
    assert {"add_child_handler", "OrderedDict", "self"} <= identifiers
    functions, parameters = functions | identifiers, parameters | identifiers
    for problem in on("function_names", made):
        assert problem["entry_point"] not in functions
    for problem in on("parameter_names", made):
        arguments = ast.parse(problem["prompt"] + "    pass").body[-1].args.args
        assert any(argument.arg not in parameters for argument in arguments), problem["prompt"]
    parts = set(re.findall(r"[a-z]+", training.lower() + library.lower()))
    held_out = {*wording.WORDS["held_out_amounts"], *wording.WORDS["held_out_things"]}
    held_out |= set(map(wording.plural, held_out))
    assert len(held_out) == 80 and not held_out & parts
    for problem in on("nouns", made):
        assert held_out & set(re.findall(r"[a-z]+", problem["prompt"])), problem["prompt"]
    files = [path for path in wording.FOLDER.rglob("*.t*") if path.name != "words.txt"]
    others = {word for name, words in wording.WORDS.items() if not name.startswith("held_out") for word in words}
    others |= set(re.findall(r"[a-z]+", "\n".join(path.read_text() for path in files).lower()))
    assert len(files) > 30 and "guitarist" not in others and not held_out & others, "not even where it is seldom drawn"


def test_a_name_that_is_held_out_is_that_of_no_operation_in_any_shape():
    of_operations = {wording.reshaped(random.Random(n), operation.name) for operation in OPERATIONS for n in range(60)}
    held_out = {making.held_out_name(random.Random(n)) for n in range(3000)}
    assert len(held_out) > 500 and not held_out & of_operations


@pytest.mark.parametrize("kind, called", [("ints", "a list"), ("tuple", "a tuple"), ("set", "a set")])
def test_an_argument_is_called_what_it_is(monkeypatch, kind, called):
    """And a sentence that speaks of "the prices" names no parameter, not even one whose name is a letter of theirs."""
    monkeypatch.setattr(making, "STYLES", {"the list": 1})
    draft = Draft(["sum"], {"xs_0": kind}, {}, "int", "", "the sum of {xs_0}", ["return sum(xs_0)"])
    said = [making.said(random.Random(n), draft, {"xs_0": "s"}, {}, "price", False) for n in range(200)]
    introduced = {text for sentence in said for text in re.findall(r"an? \w+ of prices", sentence)}
    assert introduced == {f"{called} of prices"} and not any(re.search(r"\bs\b", sentence) for sentence in said)


def test_large_constants_are_nowhere_in_training(made):
    trained = set(re.findall(r"\d+", "\n".join(training_texts(made))))
    for problem in on("constants", made):
        constants = [number for number in re.findall(r"\d+", problem["canonical_solution"]) if int(number) > 10_000]
        assert constants and not trained & set(constants), problem["prompt"]


def test_problems_of_wordings_are_asked_in_words_that_are_held_out(made):
    for number in range(50):
        exercise, record = views.made("wordings", 1337, number)
        assert record in on("wordings", made)
        operations = [operation for operation in OPERATIONS + CONDITIONS if operation.name in exercise.parts]
        phrases = sum((wording.phrases_of(operation, held_out=True) for operation in operations), [])
        forms = [".+".join(map(re.escape, re.split(r"{[^}]*}", text))) for _, text in phrases]
        assert any(re.search(form, exercise.sentence, re.I) for form in forms), exercise.sentence


def test_wordings_that_are_held_out_are_those_of_no_other_operation():
    sides = {}
    for held_out, maker in making.MAKERS.items():
        phrases = [text for operation in OPERATIONS + CONDITIONS for _, text in maker.phrases_of(operation)]
        sides[held_out] = {re.sub(r"{\w+", "{", text) for text in phrases}
    assert len(sides[True]) > 1000 and not sides[False] & sides[True]
    lacking = [operation.name for operation in OPERATIONS if len(wording.phrases_of(operation)) < 3]
    assert not lacking, "operations that training could say in one or two ways only"


def test_a_wording_that_is_held_out_is_no_sentence_of_training():
    """Whichever frames the phrases of one operation are put into."""
    for operation in (operation for operation in OPERATIONS if operation.weight > 0.1):
        said = {}
        for held_out in (False, True):
            phrases = [phrase for phrase in wording.phrases_of(operation, held_out) if phrase[0] in wording.FRAMES]
            framed = [(frame, text) for mark, text in phrases for frame in wording.FRAMES[mark]]
            texts = [frame.replace("{phrase}", text).replace("{Phrase}", text) for frame, text in framed]
            said[held_out] = {text.lower().rstrip(".") for text in texts}
        assert not said[True] & said[False], operation.name


def benchmark_sequences():
    """Ten Python tokens in a row of HumanEval and MBPP, and ten words."""
    return set().union(*map(sequences, benchmark_texts()))


def sequences(text, n=10):
    """By Python's own tokenizer, in which a docstring is one token."""
    code, words = code_tokens(text), re.findall(r"[a-z0-9_]+", text.lower())
    return {tuple(items[i : i + n]) for items in (code, words) for i in range(len(items) - n + 1)}


@pytest.mark.skipif(not (DATA / "humaneval").exists(), reason="needs the benchmarks' files")
def test_no_ten_tokens_of_what_is_trained_on_are_shared_with_the_benchmarks(made):
    benchmark = benchmark_sequences()
    assert len(benchmark) > 100_000
    shared = set().union(*(sequences(text) & benchmark for text in training_texts(made)))
    assert not shared, [" ".join(gram) for gram in list(shared)[:20]]
    assert unseen.is_in_benchmark(next(benchmark_texts()))
