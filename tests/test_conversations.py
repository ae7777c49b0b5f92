"""Conversations: what is asked of a function later on is what is answered, and how a model's are measured."""

import collections
import json
import re

from conftest import ROOT, untrained_checkpoint

from evaluation.generate import Completion
from evaluation.problems import read_lines, read_problems
from evaluation.replies import code_in, with_def
from exercises import views, wording
from exercises.examples import copied
from experiments import conversations


def test_another_way_or_name_gives_the_same_another_constant_or_the_opposite_what_they_say():
    counts = collections.Counter()
    for number in range(1200):
        exercise, record = views.made("chats", 1337, number)
        texts = [turn["content"] for turn in record["messages"]]
        for answer, request, later in zip(texts[1::2], texts[2::2], texts[3::2]):
            if exercise is None or f"def {exercise.name}(" not in answer or "def " not in later:
                continue
            results, changed = results_of(answer, exercise), results_of(later, exercise)
            assert results == [result for _, result in exercise.examples]
            if request in wording.SENTENCES["the opposite"]:
                counts["opposite"] += 1
                assert changed == [not result for result in results]
            elif exercise.changed and str(exercise.changed[1]) in request:
                counts["constant"] += 1
                old, new, _ = exercise.changed
                assert re.sub(rf"(?<![\\w.]){old}(?![\\w.])", str(new), code_in(answer)) == code_in(later)
            else:
                counts["same"] += 1
                assert changed == results, (answer, request, later)
    assert all(counts[kind] >= 5 for kind in ("constant", "opposite")) and counts["same"] > 50, counts


def results_of(reply, exercise):
    """What the function in a reply returns for the arguments of the exercise."""
    scope = {}
    exec(code_in(reply), scope)
    function = scope[re.search(r"^def (\w+)", code_in(reply), re.M)[1]]
    return [function(*map(copied, arguments)) for arguments, _ in exercise.examples]


def test_small_talk_stands_where_it_makes_sense():
    """Nobody is thanked for nothing: "You are welcome" answers something."""
    places = collections.Counter()
    for number in range(3000):
        turns = [turn["content"] for turn in views.record("chats", 1337, number)["messages"]]
        kinds = ["function" if "```" in answer else "talk" for answer in turns[1::2]]
        places[tuple(kinds)] += 1
        for request, kind, earlier in zip(turns[::2], kinds, ["", *kinds]):
            assert not (len(kinds) > 1 and request in ("thanks", "bye", "write it in Java") and not earlier), turns
    assert {("function", "talk", "function"), ("talk", "function"), ("function", "talk"), ("talk",)} <= places.keys()


def test_follow_ups_change_something():
    """Their own solutions pass their tests, what stood there before does not."""
    for record, problem in zip(read_lines(ROOT / "exercises/follow_ups.jsonl"), follow_ups().values(), strict=True):
        for code, is_right in ((with_def(problem.solution), True), (code_in(record["before"][1]), False)):
            scope = {}
            exec(code, scope)
            exec(record["test"], scope)
            candidate = scope[re.search(r"^def (\w+)", code, re.M)[1]]
            try:
                scope["check"](candidate)
                passed = True
            except (AssertionError, IndexError):
                passed = False
            assert passed == is_right, record["request"]


def follow_ups():
    return read_problems(ROOT / "exercises/follow_ups.jsonl", "11")


def test_requests_are_asked_at_several_places_of_a_conversation(tmp_path, tokenizer, monkeypatch, capsys):
    """A model that knows every answer but those behind another request, and has a function for every other message."""
    path = untrained_checkpoint(tmp_path / "run", tokenizer, block_size=1024)
    problems = list(read_problems(ROOT / "exercises/requests.jsonl", "11").values())
    answers = {problem.request: f"```python\n{with_def(problem.solution)}\n```" for problem in problems}

    def write(model, tokenizer, prompts, max_new_tokens, sampling):
        for ids in prompts:
            asked = tokenizer.decode(ids).split("<|im_start|>user\n")
            message = asked[-1].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
            yield Completion([], "" if "def add(a, b)" in "".join(asked) else answers.get(message, "def f(x):"), "stop")

    monkeypatch.setattr(conversations, "generate", lambda *arguments: list(write(*arguments)))
    monkeypatch.chdir(ROOT)
    conversations.main(conversations.Settings(checkpoints=str(path)))
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("  ") if cell]
    assert row[1:] == ["100.0% +- 0.0%"] * 2 + ["0.0% +- 0.0%"] * 3 + ["0 of 21"]
    known = set(re.split(r" \| | => |\n", (ROOT / "exercises/chat.txt").read_text().lower()))
    assert "hello" in known and known.isdisjoint(conversations.NO_REQUESTS), "training has other words"
