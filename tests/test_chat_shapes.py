"""Careless records of conversations: each is read as what it says, or named as what it is; never half of it in silence."""

import json

import pytest
from fuzz_chats import records

from corpus.chats import Prompts, finished, from_record
from corpus.documents import Document, Problem

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
PAIR = {"prompt": "q", "response": "a"}
IMAGE = {"type": "image_url", "image_url": {"url": "http://x.org/a.png"}}


def messages(record):
    """The messages of a record as one line; "-" behind the role marks one that the loss leaves out."""
    found = from_record(record, "f:1")
    assert isinstance(found, Document), found
    turns = json.loads(found.text)["messages"]
    return "|".join(f"{m['role']}{'-' if m.get('weight') == 0 else ''} {m['content']}" for m in turns)


def problem(record):
    """The rule and the detail of what is wrong with a record."""
    found = from_record(record, "f:1")
    assert isinstance(found, Problem), found
    return found.rule, found.detail


@pytest.mark.parametrize(
    "record",
    [
        {"messages": None, **PAIR},
        {"messages": [], **PAIR},
        {"conversations": "", **PAIR},
        {"conversations": {}, "messages": None, "chat": None, "instruction": None, **PAIR},
        {"messages": float("nan"), **PAIR},
        {"conversation": 17, "chat": True, "messages": "see prompt", **PAIR},
        {"instruction": None, "input": None, "output": None, "history": None, "system": None, **PAIR},
        {"query": None, "response": "a", "prompt": "q", "completion": None},
        {"messages": None, "conversations": [USER, BOT]},
        {"instruction": "q", "input": None, "output": None, "response": "a"},
        {"instruction": "q", "input": [], "output": "a"},
        {"instruction": "", "input": "q", "output": "a"},
        {"instruction": "q", "instances": None, "output": "a"},
        {"old_contents": None, "new_contents": None, **PAIR},
        {"messages": "[]", **PAIR},
        {"messages": json.dumps([USER, BOT])},
        {"messages": [{"role": "system", "content": ""}, USER, BOT]},
        {"conversations": ' [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]'},
        [USER, BOT],
        {"conversation": [{"human": "q", "assistant": "a"}]},
        {"conversations": [{"question": "q", "answer": "a"}]},
        {"messages": [{"user": "q"}, {"assistant": "a"}]},
        {"messages": [{"user": "q", "assistant": None}, {"user": None, "assistant": "a"}]},
        {"messages": [["human", "q"], ["ai", "a"]]},
        {"messages": ["q", "a"]},
        {"messages": [{"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}]},
        {"messages": [{"role": " USER", "content": "q"}, {"role": "Assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {**BOT, "content": ["a"]}]},
        {
            "messages": [
                {"role": "user", "content": None, "value": "q"},
                {**BOT, "tool_calls": [], "function_call": None},
            ]
        },
    ],
    ids=lambda record: json.dumps(record)[:60],
)
def test_a_null_or_odd_field_hides_nothing(record):
    assert messages(record) == "user q|assistant a"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [USER], "completion": [BOT]},
        {"prompt": [USER], "completion": "a"},
        {"prompt": "q", "completion": [BOT]},
        {"prompt": {"role": ["user"], "content": ["q"]}, "completion": {"role": ["assistant"], "content": ["a"]}},
        {"question": [{"from": "human", "value": "q"}], "answer": "a"},
        {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
        {"conversations": {"value": ["q", "a"], "from": ["human", "gpt"]}},
        {"question": "q", "response": "a"},
        {"query": "q", "answer": "a"},
    ],
    ids=lambda record: json.dumps(record)[:60],
)
def test_turns_may_be_a_pair_of_lists_or_columns(record):
    """As TRL has prompts and completions, and datasets a Sequence of objects."""
    assert messages(record) == "user q|assistant a"
    assert messages({**record, "system": "s"}) == "system s|user q|assistant a"
    assert messages({**record, "history": {"role": ["user", "assistant"], "content": ["p", "r"]}}).startswith("user p|")


def test_columns_of_turns_have_one_of_weights():
    columns = {"role": ["user", "assistant"] * 2, "content": ["q", "a", "r", "b"], "weight": [None, 0, None, 1]}
    assert messages({"messages": columns}) == "user q|assistant- a|user r|assistant b"
    assert messages({"prompt": [USER, {**BOT, "train": False}, USER], "completion": [BOT]}).count("-") == 1


def test_the_context_of_a_question_is_part_of_it():
    """As in Dolly and sql-create-context."""
    for question, answer in (("instruction", "response"), ("instruction", "output"), ("question", "answer")):
        assert messages({question: "q", "context": "c", answer: "a"}) == "user q\nc|assistant a"
        assert messages({question: "q", "context": None, answer: "a"}) == "user q|assistant a"


@pytest.mark.parametrize("field", ["input", "passage", "document", "code", "table"])
def test_what_is_a_part_of_the_request_is_not_lost(field):
    record = {"question": "What is this?", field: "a text of which is asked", "answer": "a"}
    found = from_record(record, "")
    assert "a text of which" in getattr(found, "text", "") or f"{field} would be lost" in found.detail


def test_parts_are_joined_as_chat_templates_do():
    parts = [{"type": "text", "text": "a "}, "b", {"text": "\nc"}, {"type": "output_text", "text": "d"}]
    assert messages({"messages": [USER, {**BOT, "content": parts}]}) == "user q|assistant a b\ncd"
    assert messages({"instruction": ["q"], "input": [{"type": "text", "text": "i"}], "output": "a"}).startswith(
        "user q\ni|"
    )


@pytest.mark.parametrize(
    "content, detail",
    [
        (5, "messages, turn 1: content is a number, not text"),
        (0.5, "messages, turn 1: content is a number, not text"),
        (True, "messages, turn 1: content is a boolean, not text"),
        ({"text": "q"}, "messages, turn 1: content is an object, not text"),
        (["q", "r"], "messages, turn 1: content is a list of 2 texts, not one"),
        (["q", IMAGE], "messages, turn 1: content has a part that is 'image_url', not text"),
        ([{"type": "tool_use", "text": "q"}], "messages, turn 1: content has a part that is 'tool_use', not text"),
        ([{"type": "text"}], "messages, turn 1: content has a part that is 'text', not text"),
        ([["q"]], "messages, turn 1: content has a part that is a list, not text"),
        (["q", None], "messages, turn 1: content has a part that is null, not text"),
        ([{"url": "u"}], "messages, turn 1: content has a part that is an object, not text"),
        (b"q", "messages, turn 1: content is bytes, not text"),
    ],
)
def test_what_is_no_text_is_named_as_what_it_is(content, detail):
    assert problem({"messages": [{"role": "user", "content": content}, BOT]}) == ("not_text", detail)


@pytest.mark.parametrize(
    "record, rule, words",
    [
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            "not_text",
            "turn 2: tool_calls",
        ),
        ({"messages": [USER, {**BOT, "function_call": {"name": "f"}}]}, "not_text", "function_call is an object"),
        ({"messages": [USER, {"role": "tool", "content": "t"}, BOT]}, "unknown_role", "turn 2: 'tool'"),
        ({"conversations": [{"from": "observation", "value": "t"}]}, "unknown_role", "'observation'"),
        ({"messages": [{"role": 3, "content": "q"}, BOT]}, "unknown_role", "turn 1: 3"),
        ({"messages": [{"role": None, "content": "q"}, BOT]}, "unknown_role", "role, content"),
        ({"messages": [{"role": ["user"], "content": "q"}]}, "unknown_role", "['user']"),
        ({"messages": [{"text": "q"}, BOT]}, "no_chat", "turn 1: fields: text"),
        ({"messages": [USER, None]}, "no_chat", "turn 2 is null"),
        ({"messages": [USER, "a"]}, "no_chat", "turn 2 is text"),
        ({"messages": {"role": ["user"], "content": []}}, "no_chat", "messages is an object, not a list"),
        ({"messages": {"role": "user", "content": "q"}}, "no_chat", "messages is an object, not a list"),
        ({"prompt": [USER], "chosen": [BOT], "rejected": [BOT]}, "no_chat", "fields: prompt, chosen, rejected"),
        ({"prompt": [USER], "completion": [USER]}, "no_assistant_turn", "2 turns"),
        ({"messages": "q"}, "no_chat", "messages is text, not a list"),
        ({"messages": "[" * 5000}, "no_chat", "messages is text, not a list"),
        ({"messages": ["q", "a", "q"]}, "no_chat", "3 texts"),
        ({"messages": [{"prompt": "q", "instruction": "r", "output": "a"}]}, "wrong_role_order", "user user"),
        ({"prompt": "1 + 1?", "response": 2}, "not_text", "response is a number"),
        ({"prompt": None, "response": "a"}, "empty_turn", "turn 1, user"),
        ({"instruction": "q", "input": 3, "output": "a"}, "not_text", "input is a number"),
        ({"instruction": "q", "input": 0, "output": "a"}, "not_text", "input is a number"),
        ({"instruction": "q", "output": None}, "empty_turn", "turn 2"),
        ({"instruction": "q", "instances": [{"output": "a"}, {"output": "b"}]}, "no_chat", "instances"),
        ({"instruction": "q", "instances": [{"input": "i"}]}, "no_chat", "instances: fields: input"),
        ({"chat": "USER: q ASSISTANT: a"}, "no_chat", "chat is text"),
        ({"chat": {"turn_1": "q"}}, "no_chat", "turn 1 is text"),
        ({"messages": [{"role": "user", "content": "\ud800"}, BOT]}, "bad_utf8", ""),
        ({"messages": [{"role": "\ud800", "content": "q"}, BOT]}, "unknown_role", r"\ud800"),
        ({"messages": [{"\ud800": "q"}, BOT]}, "no_chat", "turn 1"),
        ([USER, 1], "bad_json", ""),
        ([], "bad_json", ""),
        ("q", "bad_json", ""),
    ],
)
def test_what_cannot_be_read_is_named(record, rule, words):
    found, detail = problem(record)
    assert found == rule and words in detail, (found, detail)
    detail.encode()  # it can be written


@pytest.mark.parametrize(
    "history",
    [
        [["p", "r"]],
        ["p", "r"],
        [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}],
        [{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}],
        [{"user": "p", "assistant": "r"}],
        [{"assistant": "r", "user": "p"}],
        [{"question": "p", "answer": "r"}],
        [{"prompt": "p", "response": "r"}],
        [{"Human": "p", "Assistant": "r"}],
        [["user", "p"], ["assistant", "r"]],
        '[["p", "r"]]',
        [[["p"], [{"type": "text", "text": "r"}]]],
    ],
    ids=str,
)
def test_earlier_turns_are_read_in_every_form(history):
    assert messages({"instruction": "q", "output": "a", "history": history}) == "user p|assistant r|user q|assistant a"
    assert messages({**PAIR, "history": history}) == "user p|assistant r|user q|assistant a"
    assert messages({"query": "q", "response": "a", "history": history}).startswith("user p|assistant r|")


def test_texts_of_two_letters_are_not_taken_apart():
    assert messages({**PAIR, "history": ["ab", "cd"]}) == "user ab|assistant cd|user q|assistant a"


@pytest.mark.parametrize("history", [[], "", None, "[]", float("nan"), {}])
def test_no_earlier_turns(history):
    assert messages({"instruction": "q", "output": "a", "history": history}) == "user q|assistant a"


@pytest.mark.parametrize(
    "history, rule, words",
    [
        (["p", "r", "s"], "no_chat", "3 texts"),
        ([["p", "r", "s"]], "no_chat", "a list of 3"),
        ([["p"]], "no_chat", "a list of 1"),
        ([["p", None]], "empty_turn", "turn 2"),
        ([["p", 3]], "not_text", "history, turn 1 is a number"),
        ([3], "no_chat", "turn 1 is a number"),
        ("pr", "no_chat", "history is text"),
        ({"p": "r"}, "no_chat", "history is an object"),
        ([{"role": "user", "content": "p"}], "wrong_role_order", "user user"),
        ([{"p": "r"}], "no_chat", "fields: p"),
    ],
)
def test_earlier_turns_that_cannot_be_read_are_named(history, rule, words):
    found, detail = problem({"instruction": "q", "output": "a", "history": history})
    assert found == rule and words in detail, (found, detail)


SHAPES = [
    {"messages": [USER, BOT]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"conversation": [{"human": "q", "assistant": "a"}]},
    {"instruction": "q", "output": "a"},
    {"instruction": "q", "instances": [{"output": "a"}]},
    PAIR,
    {"question": "q", "answer": "a"},
    {"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}},
    {"type": "t", "input": "q", "output": "a"},
]


@pytest.mark.parametrize("record", SHAPES, ids=lambda record: next(iter(record)))
def test_a_system_prompt_beside_any_shape_is_its_first_turn(record):
    for name in ("system", "system_prompt", "system_message", "meta_instruction"):
        assert messages({**record, name: "s"}) == "system s|user q|assistant a"
    assert messages({**record, "system": ["s", {"text": "t"}]}) == "system st|user q|assistant a"
    assert messages({**record, "system": None, "system_prompt": " "}) == "user q|assistant a"
    assert problem({**record, "system": 3}) == ("not_text", "system is a number, not text")


def test_a_system_prompt_is_said_once():
    turns = [{"role": "system", "content": "s\n"}, USER, BOT]
    assert messages({"messages": turns, "system": "s"}) == "system s\n|user q|assistant a"
    assert messages({"messages": [{"role": "developer", "content": "s"}, USER, BOT]}) == "system s|user q|assistant a"
    assert problem({"messages": turns, "system": "other"}) == ("wrong_role_order", "system system user assistant")
    commit = {"old_contents": "", "new_contents": "y", "subject": "Add y"}
    assert messages({**commit, "system": "s"}) == "system s|user Add y|assistant ```\ny\n```"
    assert messages({"system": "s", "history": ["p", "r"], **PAIR}).startswith("system s|user p|assistant r|user q")


OFF = [
    {name: value}
    for name in ("weight", "loss", "train", "training", "loss_weight", "loss_mask")
    for value in (0, 0.0, False)
]


@pytest.mark.parametrize("flag", [*OFF, {"mask": 0}, {"weight": 1, "train": False}], ids=str)
def test_a_turn_of_no_weight_is_left_out_of_the_loss(flag, tokenizer):
    record = {"messages": [USER, {**BOT, **flag}, USER, {**BOT, "content": "b", "weight": 1}]}
    assert messages(record) == "user q|assistant- a|user q|assistant b"
    ids, mask = tokenizer.render(finished(from_record(record, "f").text, Prompts(""), 0.0))
    assert tokenizer.decode([i for i, counted in zip(ids, mask) if counted]) == "b<|im_end|>"
    whole, _ = tokenizer.render([USER, BOT, USER, {**BOT, "content": "b"}])
    assert ids == whole, "it is read all the same"


def test_a_weight_is_read_in_every_form_of_a_turn():
    assert messages(
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "train": False}, USER, BOT]}
    ).startswith("user q|assistant- a|")
    assert (
        messages({**PAIR, "history": [{"user": "p", "assistant": "r", "loss": 0}]})
        == "user p|assistant- r|user q|assistant a"
    )
    plain = {"messages": [{**USER, "weight": 0}, {**BOT, "weight": 1, "loss": True, "train": None}]}
    assert from_record(plain, "f").text == from_record({"messages": [USER, BOT]}, "f").text, "nothing else changes"
    assert messages({**PAIR, "loss": 2.3, "train": "split"}) == "user q|assistant a", (
        "a record's own numbers are no weights"
    )


@pytest.mark.parametrize(
    "flag",
    [
        {"weight": 0.5},
        {"loss": 2.3},
        {"train": "no"},
        {"weight": [0]},
        {"mask": True},
        {"train_detail": [{"begin_offset": 0}]},
    ],
    ids=str,
)
def test_a_weight_that_is_neither_yes_nor_no_is_named(flag):
    ((name, value),) = flag.items()
    assert problem({"messages": [USER, {**BOT, **flag}]}) == (
        "unknown_weight",
        f"messages, turn 2: {name} is {value!r}",
    )


def test_a_conversation_of_which_nothing_counts_is_named():
    assert problem({"messages": [USER, {**BOT, "weight": 0}]}) == ("nothing_counted", "the weight of every answer is 0")


COMMIT = {"old_contents": "x\n", "new_contents": "y\n", "message": "m", "lang": "C++"}


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, "user m\n\n```c++\nx\n```|assistant ```c++\ny\n```"),
        ({"old_contents": None, "lang": None}, "user m|assistant ```\ny\n```"),
        ({"message": None, "subject": "s", "lang": 3}, "user s\n\n```3\nx\n```|assistant ```3\ny\n```"),
        (
            {"new_contents": "a\n```sh\nb\n```\n", "lang": "md"},
            "user m\n\n```md\nx\n```|assistant ````md\na\n```sh\nb\n```\n````",
        ),
        ({"new_contents": " \n"}, ("empty_turn", "the commit deletes the file")),
        ({"new_contents": None}, ("empty_turn", "the commit deletes the file")),
        ({"new_contents": "x"}, ("no_chat", "the commit leaves the file as it is")),
        ({"old_contents": "", "new_contents": ""}, ("empty_turn", "the commit deletes the file")),
        ({"old_contents": 3}, ("not_text", "old_contents is a number, not text")),
        ({"message": ""}, ("empty_turn", "turn 1, user")),
    ],
)
def test_commits(fields, expected):
    record = {**COMMIT, **fields}
    assert (problem if isinstance(expected, tuple) else messages)(record) == expected


def test_any_record_is_a_conversation_or_a_problem():
    for record in records(0, 4000):
        found = from_record(record, "f:1")
        if isinstance(found, Problem):
            (found.rule + found.detail).encode()
        else:
            turns = finished(found.text, Prompts(""), 0.0)
            assert turns and all(turn["content"].strip() for turn in turns)
            assert any(turn.get("weight") != 0 for turn in turns if turn["role"] == "assistant")
