"""A teacher that is often wrong, behind a line that often fails: nothing is asked twice, nothing is lost, and what is kept
has been run."""

import collections
import hashlib
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import ROOT, door_error, stage, untrained_checkpoint

import serve
import synthesize
from cleaning import classifier, hashing
from cleaning.dedup import jaccard
from cleaning.view import View
from evaluation import sandbox
from evaluation.problems import read_problems
from synthesis import diversity, teacher
from synthesis.exercise import Exercise, Unusable, cut, exercise_in, judged, stub
from synthesis.questions import KINDS, filled, questions

GOOD = '''[Problem Description]
Write {name}(x), which gives {n} times x{more}, and 0 for an x below 0.
[Solution]
```python
def {name}(x):
    """{n} times x{more}."""
    if x < 0:
        return 0
    return {n} * x{more}
```
[Tests]
```python
assert {name}(1) == {n} * 1{more}
assert {name}(7) == {n} * 7{more}
assert {name}(-3) == 0
```'''
WRONG = {
    "solution fails its own tests": lambda text: text.replace("* x", "- x"),
    "tests pass without a solution": lambda text: text.replace("assert", "assert True or"),
    "tests miss errors": lambda text: re.sub(r"assert (\w+\(.*\)) ==.*", r"assert isinstance(\1, int)", text),
    "headings missing or out of order": lambda text: text.replace("[Solution]", "## Solution"),
    "not one block of code per part": lambda text: text.replace("[Tests]\n```python", "[Tests]"),
    "unfinished solution": lambda text: text.replace("return 0", "return 0  # TODO"),
    "too few asserts": lambda text: text.replace("assert ", "told = "),
    "does not compile": lambda text: text.replace("(x):", "(x:"),
    "tests call no function of the solution": lambda text: text.replace("def ", "def other_"),
}


def good(number):
    """An exercise like no other: its names and its sum depend on the number."""
    words = hashlib.sha256(str(number).encode()).hexdigest()
    more = "".join(f" + {int(words[i : i + 3], 16)}" for i in range(0, 30, 3))
    return GOOD.format(name=f"f{words[:12]}", n=2 + number, more=more)


class School(ThreadingHTTPServer):
    """An endpoint. answer(prompt, number of the prompt) -> text. Every tenth request fails on its way, in one of six ways."""

    def __init__(self, answer, fails=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.fails, self.lock = answer, fails, threading.Lock()
        self.numbers, self.given, self.n_requests = {}, collections.Counter(), 0
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """Its requests."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send(200, {"data": [{"id": "scripted"}]})

    def do_POST(self):
        school, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with school.lock:
            number = school.numbers.setdefault(prompt, len(school.numbers))
            school.n_requests += 1
            fault = school.n_requests // 10 % 6 if school.fails and school.n_requests % 10 == 0 else None
        if fault == 0:
            return self.send(500, {"error": {"message": "down"}})
        if fault == 1:
            return self.send(429, {"error": {"message": "slowly"}}, {"Retry-After": "0"})
        if fault == 2:
            return self.connection.close()
        answer = {"choices": [{"message": {"content": school.answer(prompt, number)}, "finish_reason": "stop"}]}
        answer["usage"] = {"completion_tokens": 10}
        if fault == 3:
            return self.send(200, {"choices": []})
        if fault == 4:
            return self.send(200, {**answer, "usage": None})
        if fault == 5:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            return self.wfile.write(b'{"choices": [')
        with school.lock:
            school.given[prompt] += 1
        self.send(200, answer)

    def send(self, status, value, headers={}):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def school(monkeypatch):
    """make(answer, fails) -> a School; its tries follow each other at once."""
    monkeypatch.setattr(teacher, "seconds_to_wait", lambda *_: 0.0)
    made = []

    def make(answer, fails=True):
        made.append(School(answer, fails))
        return made[-1]

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(number):
    """What is to come of the answer with a number: two in three are wrong, one in thirty is an earlier one again."""
    if number % 30 == 29:
        return "like an earlier one"
    return list(WRONG)[number // 3 % len(WRONG)] if number % 3 else ""


def some_wrong(prompt, number):
    """The answer with a number."""
    if number % 30 == 29:
        return good(0)
    return WRONG.get(outcome(number), str)(good(number))


def run(out, server, *arguments):
    """Run the door in this process."""
    settings = synthesize.configurator.load(
        synthesize.Settings, [f"--out_dir={out}", f"--base_url={server.url}", "--compare_with=", *arguments]
    )
    synthesize.main(settings)
    return json.loads((out / "summary.json").read_text())


def test_what_is_kept_passes_and_nothing_is_asked_twice_over_a_line_that_fails(school, tmp_path):
    server = school(some_wrong)
    summary = run(tmp_path, server, "--n=90")
    assert summary["requests"] == summary["replies"] == 90 and set(server.given.values()) == {1}
    assert server.n_requests > 95, "the line has failed"
    expected = collections.Counter(map(outcome, range(90)))
    n_kept = expected.pop("")
    assert summary["dropped"] == dict(expected) and summary["kept"] == n_kept == 30

    problems = read_problems(tmp_path / "problems.jsonl", "11-510")
    assert len(problems) == len(records(tmp_path / "chats.jsonl")) == 30
    for record, problem in zip(records(tmp_path / "problems.jsonl"), problems.values()):
        assert sandbox.run(problem.program(problem.solution), problem.test).passed
        nothing = stub(record["prompt"] + record["canonical_solution"], record["entry_point"])
        assert not sandbox.run(nothing, problem.test).passed
    run(tmp_path, server, "--n=90")
    assert set(server.given.values()) == {1}, "the second run asks nothing"


def test_a_run_that_was_cut_off_goes_on_and_comes_to_the_same(school, tmp_path):
    server = school(some_wrong, fails=False)
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    run(whole, server, "--n=40", "--clients=1")
    summary = run(cut_off, server, "--n=40", "--clients=1", "--budget=155")
    assert summary["replies"] == 16 and summary["dropped"]["not asked: the budget is spent"] == 24
    with open(cut_off / "replies.jsonl", "ab") as file:
        file.write(b'{"key": "half a li')
    before = server.given.total()
    run(cut_off, server, "--n=40", "--clients=3")
    assert server.given.total() == before + 24
    for name in ("problems.jsonl", "chats.jsonl"):
        assert (cut_off / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("at", [0, 1, 2, 5])  # the first ones come while threads still begin
def test_interrupting_keeps_every_answer(school, tmp_path, at):
    server = school(some_wrong, fails=False)
    asked = threading.Event()
    server.answer = lambda prompt, number: (number == at and asked.set(), good(number))[1]
    command = [sys.executable, "-m", "synthesize", "--n=5000", f"--out_dir={tmp_path}", f"--base_url={server.url}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.send_signal(2)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error, error[-3000:]
    assert len(records(tmp_path / "replies.jsonl")) == server.given.total() < 5000


def test_the_own_endpoint_is_a_teacher_too(tmp_path, tokenizer):
    """Its model is untrained: nothing that it says is kept, and all of it is answered for."""
    checkpoint = untrained_checkpoint(tmp_path / "run", tokenizer, block_size=2048)
    server = serve.make_server(serve.Settings(checkpoint=str(checkpoint), port=0, device="cpu", dtype="fp32"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    summary = run(tmp_path / "out", server, "--n=6", "--max_tokens=20")
    server.shutdown()
    server.engine.stop()
    server.server_close()
    assert summary["replies"] == 6 and summary["kept"] == 0 and sum(summary["dropped"].values()) == 6
    assert summary["model"] == server.name and summary["tokens"] <= 120


def test_labels_train_the_classifier(school, tmp_path):
    source = tmp_path / "code.jsonl"
    source.write_text(
        "".join(json.dumps({"text": f"{'teach' if i % 2 else 'config'} number {i}"}) + "\n" for i in range(60))
    )
    server = school(lambda prompt, number: f"Educational score: {4 if 'teach number' in prompt else 1}")
    run(tmp_path / "out", server, "--kind=labels", f"--sources={source}", "--n=100")
    found = records(tmp_path / "out" / "labels.jsonl")
    assert len(found) == 60 and all((record["label"] == "1") == ("teach" in record["text"]) for record in found)
    stage("cleaning.classifier", "--labelled=out/labels.jsonl", "--out=quality.npz", cwd=tmp_path)
    quality = classifier.Classifier.load(tmp_path / "quality.npz")
    assert quality.score(View("teach number 7")) > quality.score(View("config number 7"))


def test_every_kind_makes_requests_of_its_own(tmp_path):
    (tmp_path / "code.py").write_text("".join(f"x{i} = {i}\n" for i in range(100)))
    (tmp_path / "chats.jsonl").write_text(json.dumps({"instruction": "Add {two} numbers.", "output": "x"}) + "\n")
    sources = dict.fromkeys(KINDS, [str(tmp_path / "code.py")]) | {"exercises": []}
    sources["evol-instruct"] = [str(tmp_path / "chats.jsonl")]
    prompts = {}
    for kind in KINDS:
        first, again = (list(questions(kind, 3, sources[kind], seed, model="m")) for seed in (1, 1))
        assert [request.key for request in first] == [request.key for request in again]
        other = list(questions(kind, 3, sources[kind], 2, model="m"))
        assert {request.key for request in first}.isdisjoint(request.key for request in other)
        prompts[kind] = first[0].messages[0]["content"]
    assert "Add {two} numbers." in prompts["evol-instruct"] and "[Tests]" in prompts["evol-instruct"]
    assert 1 <= len(re.findall(r"^x\d+ = \d+$", prompts["oss-instruct"], re.M)) <= 15
    assert prompts["labels"].count("x") >= 100 and "[Tests]" not in prompts["labels"]
    assert len(set(request.messages[0]["content"] for request in questions("exercises", 200, [], 1))) > 195
    assert filled("a {b} {c} {d", {"b": "{c}"}) == "a {c}  {d"


def test_what_ends_a_run_is_one_line(school, tmp_path, monkeypatch):
    out = f"--out_dir={tmp_path}/out"
    assert "needs --sources" in door_error(synthesize, "--kind=labels", "--model=m", out)
    (tmp_path / "empty").mkdir()
    nothing = door_error(synthesize, "--kind=labels", f"--sources={tmp_path}/empty", "--model=m", out)
    assert "nothing there that kind=labels could be asked about" in nothing
    assert "no source" in door_error(synthesize, "--compare_with=/nowhere", "--model=m", out)
    assert "is its server running?" in door_error(synthesize, "--base_url=http://127.0.0.1:9/v1", out)
    server = school(lambda *_: "", fails=False)
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.send(401, {"error": {"message": "wrong key"}}))
    assert door_error(synthesize, f"--base_url={server.url}", out).endswith("answers 401: wrong key")
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.send(503, {"error": {"message": "busy"}}))
    error = door_error(synthesize, f"--base_url={server.url}", out)
    assert "10 requests in a row came to this: no answer: 503: busy" in error
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.send(400, {"error": {"message": "too long"}}))
    assert run(tmp_path / "out", server, "--n=3")["dropped"] == {"refused: 400: too long": 3}


def test_many_refusals_in_a_row_end_a_run_only_where_nothing_was_ever_answered(school, tmp_path, monkeypatch):
    server = school(lambda prompt, number: good(number), fails=False)
    assert run(tmp_path / "out", server, "--n=2", "--clients=1")["kept"] == 2
    monkeypatch.setattr(Handler, "do_POST", lambda self: self.send(400, {"error": {"message": "not about this"}}))
    assert run(tmp_path / "out", server, "--n=22")["dropped"] == {"refused: 400: not about this": 20}
    error = door_error(synthesize, f"--base_url={server.url}", f"--out_dir={tmp_path}/other")
    assert "10 requests in a row came to this: refused: 400: not about this" in error


def test_copies_of_a_benchmark_are_dropped(school, tmp_path):
    server = school(lambda prompt, number: good(number), fails=False)
    problems = run(tmp_path / "first", server, "--n=2")
    assert problems["kept"] == 2
    summary = run(tmp_path / "second", server, "--n=4", f"--decontaminate={tmp_path}/first/problems.jsonl")
    assert summary["kept"] == 2 and summary["dropped"] == {"like a problem of a benchmark": 2}


def test_waiting_grows_unless_the_server_says_how_long():
    assert [teacher.seconds_to_wait(n, "") for n in (0, 1, 2, 20)] == [0.5, 1.0, 2.0, 60.0]
    assert teacher.seconds_to_wait(3, "7") == 7 and teacher.seconds_to_wait(0, "-1") == 0


def test_an_exercise_is_cut_behind_its_docstring():
    code = "import re\n\ndef g(x):\n    return x\n\ndef f(x):\n    '''Says\f.'''\n    @g\n    def h(): pass\n    return g(x)\n"
    assert "".join(cut(code, "f")) == code and cut(code, "f")[0].endswith(".'''\n")
    assert cut("def f(x):\n    return x\n", "f") == ("def f(x):\n", "    return x\n")
    assert cut("def f(x): return x\n", "f") == ("def f(x):\n", "    return x\n")


def test_what_tests_need_is_kept_of_them_and_what_would_hide_the_solution_is_not():
    text = good(1).replace("[Tests]\n```python\n", "[Tests]\n```python\nimport math\nlimit = 3\n")
    name = exercise_in(text).name
    more = f"def {name}(x):\n    return 0\ndef close(a):\n    return a == 0\nprint(1)\n"
    exercise = exercise_in(
        text.replace("limit = 3\n", f"limit = 3\n{more}assert close({name}(-1))\nassert close({name}(-1))\n")
    )
    assert exercise.tests.count("assert") == 4 and "print" not in exercise.tests
    assert [line for line in exercise.tests.splitlines() if line.startswith(("import", "limit", "def"))] == [
        *("import math", "limit = 3", "def close(a):")
    ]
    assert judged({"k": exercise}, sandbox.Limits(), 1, 0.5) == {"k": None}
    marked = exercise_in(
        re.sub(r"\[(\w+)\]", r"### **[\1]**", good(1)).replace("[Problem Description]", "**[Problem Description]:**")
    )
    assert marked == exercise_in(good(1)), "headings may be marked as such"
    fence = exercise_in(good(1).replace("times x", "times ``` x", 1))
    assert "``` x" in fence.task


def test_answers_that_nobody_can_read_end_nothing():
    deep = good(1).replace("(1) ==", f"({'+'.join('1' * 900)}) ==")
    wide = good(2).replace("* x", "* x" + " + 0" * 900)
    for text in (deep, wide):
        try:  # how deep is too deep depends on who asks: what counts is that nothing else is raised
            assert judged({"k": exercise_in(text)}, sandbox.Limits(), 1, 0.5).keys() == {"k"}
        except Unusable as error:
            assert str(error) == "does not compile"
    with pytest.raises(Unusable):
        exercise_in("")
    answer = {
        "choices": [{"message": {"content": "a\ud83d\r\n"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 1},
    }
    assert teacher.reply_of(answer).text == "a?\n"
    answer["choices"][0]["message"]["content"] = None
    assert teacher.reply_of(answer).text == ""


def test_scores_in_many_words():
    for text, score in {"Educational score: 4": "4", "score (0-5): 3": "3", "0 means none. Score: **5**": "5"}.items():
        assert synthesize.SCORE.findall(text)[-1] == score
    assert [synthesize.SCORE.findall(f"Score: {text}") for text in ("4.", "4.0", "4 - it is clear")] == [["4"]] * 3
    assert not any(map(synthesize.SCORE.findall, ("a score of 0-5", "score: 3.5", "score: 0 - 5", "score: 45")))


def test_tests_that_only_deletions_fail_are_not_enough():
    """The tests ask for a type. All of the first mutants, statements left out of a long function, fail them by a
    NameError; most of all mutants do not."""
    lines = (
        "".join(f"    x{i} = x + {i}\n" for i in range(12)) + f"    return {' + '.join(f'x{i}' for i in range(12))}\n"
    )
    solution = f"def f(x):\n    '''Says.'''\n{lines}"
    tests = "\n".join(f"assert isinstance(f({i}), int)" for i in range(3))
    verdicts = judged({"k": Exercise("Write f.", solution, tests, "f")}, sandbox.Limits(), 1, 0.5)
    assert verdicts == {"k": "tests miss errors"}


def test_diversity_against_what_is_known():
    assert diversity.vendi(["same words here"] * 5) == pytest.approx(1)
    assert diversity.vendi(["a b c d e f", "g h i j k l", "m n o p q r"]) == pytest.approx(3)
    assert diversity.vendi([]) == 0 and diversity.measures([])["distinct trees"] is None
    functions = ["def f(x):\n    return x + 1\n", "def g(y):\n    return y + 2\n", "def h(z):\n    return -z\n"]
    assert diversity.distinct_trees(functions) == pytest.approx(2 / 3)
    assert diversity.measures(["one two three four five"])["distinct 4-grams"] == 1


def test_real_texts_are_as_many_and_as_long():
    texts = ["x" * 300] * 25
    found = synthesize.real_texts("stdlib", texts)
    assert len(found) == 25 and all(
        150 < len(text) < 600 and text.startswith(("def ", "async def ", "@")) for text in found
    )
    assert (
        synthesize.NUMBERS.sub("N", "refused: 400: the prompt has 401 tokens")
        == "refused: 400: the prompt has N tokens"
    )


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs():
    random = np.random.default_rng(0)
    texts = []
    for n_changed in (0, 1, 1, 1, 2, 2, 3, 16) * 6:
        words = [f"w{i}" for i in range(60)] if len(texts) % 5 else [f"v{len(texts)}_{i}" for i in range(60)]
        for place in random.integers(0, 60, n_changed):
            words[place] = f"x{random.integers(10**9)}"
        texts.append(" ".join(words))
    seen, kept = diversity.Seen(0.7), []
    for text in texts:
        shingles = hashing.shingles(View(text).fivegrams)
        is_new = all(jaccard(shingles, other) < 0.7 for other in kept)
        assert seen.add(text) == is_new, text
        if is_new:
            kept.append(shingles)
    assert 5 < len(kept) < len(texts) - 5
