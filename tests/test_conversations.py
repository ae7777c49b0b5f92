"""Conversations: what is asked of a function later on is what is answered, and how a model's are measured."""

import ast
import collections
import random
import re

import pytest
from conftest import ROOT, untrained_checkpoint
from test_exercises import passes

from evaluation.generate import Completion
from evaluation.problems import MBPP_TEST, read_lines, read_problems
from evaluation.replies import code_in, with_def
from exercises import views, wording
from exercises.code import opposite
from exercises.examples import copied
from experiments import conversations


def test_another_way_or_name_gives_the_same_another_constant_or_the_opposite_what_they_say():
    counts = collections.Counter()
    for number in range(3000):
        exercise, turns = views.answered(random.Random(number), 1337, number)
        if len(turns) == 2:
            continue
        _, answer, request, later = turns
        results, changed = results_of(answer, exercise), results_of(later, exercise)
        assert results == [result for _, result in exercise.examples]
        old, new, _ = exercise.changed or (None, None, None)
        if request in wording.SENTENCES["the opposite"]:
            counts["opposite"] += 1
            assert changed == [not result for result in results]
        elif request in [form.format(old=old, new=new) for form in wording.SENTENCES["another constant"]]:
            counts["constant"] += 1
            assert changed != results and without(old, new, answer) == without(old, new, later)
        else:
            counts["same"] += 1
            assert changed == results, turns
    assert all(counts[kind] >= 10 for kind in ("constant", "opposite")) and counts["same"] > 100, counts


def results_of(reply, exercise):
    """What the function in a reply returns for the arguments of the exercise."""
    scope = {}
    exec(code_in(reply), scope)
    function = scope[re.search(r"^def (\w+)", code_in(reply), re.M)[1]]
    return [function(*map(copied, arguments)) for arguments, _ in exercise.examples]


def without(old, new, reply):
    """The syntax tree of a reply's code, in which two numbers are the same."""
    tree = ast.parse(code_in(reply))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value == new:
            node.value = old
    return ast.dump(tree)


@pytest.mark.parametrize(
    "code, other",
    [
        ("n % 2 == 0", "n % 2 != 0"),
        ("(a or b) != c", "(a or b) == c"),
        ("x not in items", "x in items"),
        ("'in' in text", "'in' not in text"),
        ("a < b", "not (a < b)"),
        ("1 < a < b", "not (1 < a < b)"),
        ("any(xs)", "not any(xs)"),
        ("a and b", "not (a and b)"),
    ],
)
def test_the_opposite_of_an_expression(code, other):
    assert opposite(code) == other


def test_small_talk_stands_where_it_makes_sense():
    """Nobody is thanked for nothing, and goes on behind a farewell."""
    messages = {place: set() for place in ("before", "behind", "anywhere", "end")}
    for place, known in messages.items():
        for line in wording.SENTENCES[place]:
            known.update(line.split(" => ")[0].split(" | "))
    places = collections.Counter()
    for number in range(3000):
        turns = [turn["content"] for turn in views.record("chats", 1337, number)["messages"]]
        requests, is_function = turns[::2], ["```" in answer for answer in turns[1::2]]
        places[tuple(is_function)] += 1
        assert requests[0] not in messages["behind"] and messages["end"].isdisjoint(requests[:-1]), turns
        assert messages["before"].isdisjoint(requests[1:]), turns
    kinds = {(True, False, True), (False, True), (True, False), (False,)}
    assert kinds <= places.keys(), "function, small talk, function, and so on"


def test_follow_ups_change_something():
    """Their own solutions pass their tests, what stood there before does not."""
    for record, problem in zip(read_lines(ROOT / "exercises/follow_ups.jsonl"), follow_ups().values(), strict=True):
        for code, is_right in ((with_def(problem.solution), True), (code_in(record["before"][1]), False)):
            name = re.search(r"^def (\w+)", code, re.M)[1]
            assert passes(code, record["test"], name) == is_right, record["request"]


def follow_ups():
    return read_problems(ROOT / "exercises/follow_ups.jsonl", MBPP_TEST)


def test_requests_are_asked_at_several_places_of_a_conversation(tmp_path, tokenizer, monkeypatch, capsys):
    """A model that knows every answer but those behind another request, every follow-up if it sees what was said before
    it, and has a function for every other message."""
    path = untrained_checkpoint(tmp_path / "run", tokenizer, block_size=1024)
    requests = read_problems(ROOT / "exercises/requests.jsonl", MBPP_TEST).values()
    answers = {problem.request: f"```python\n{with_def(problem.solution)}\n```" for problem in requests}
    later = {}
    for record, problem in zip(read_lines(ROOT / "exercises/follow_ups.jsonl"), follow_ups().values()):
        later[problem.request] = record["before"][1], f"```python\n{with_def(problem.solution)}\n```"

    def write(model, tokenizer, prompts, max_new_tokens, sampling):
        for ids in prompts:
            text = tokenizer.decode(ids)
            message = text.split("<|im_start|>user\n")[-1].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
            before, answer = later.get(message, ("", answers.get(message, "def f(x):")))
            is_known = before in text if before else "def add(a, b)" not in text
            yield Completion([], answer if is_known else "def f(x):", "stop")

    monkeypatch.setattr(conversations, "generate", lambda *arguments: list(write(*arguments)))
    monkeypatch.chdir(ROOT)
    conversations.main(conversations.Settings(checkpoints=str(path)))
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("  ") if cell]
    assert row[1:] == ["100.0% +- 0.0%"] * 2 + ["0.0% +- 0.0%"] * 2 + ["100.0% +- 0.0%", "0 of 21"]
    known = set(re.split(r" \| | => |\n", (ROOT / "exercises/chat.txt").read_text().lower()))
    messages = {message.lower() for message in conversations.NO_REQUESTS + conversations.BEHIND_A_REQUEST}
    assert "hello" in known and known.isdisjoint(messages), "training has other sentences"
