"""Chats: every published shape becomes messages, what is broken is named, and the mask marks exactly what is to be learnt."""

import gzip
import json
import random

import numpy as np
import pytest
from conftest import DATA, door_error, stage, write_records

import prepare_data
from corpus.chats import Prompts, finished, from_record, noisy
from corpus.documents import Document, Problem
from shards import Shards, read_manifest
from tokenizer import Tokenizer

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "record, expected",
    [
        ({"messages": [USER, BOT]}, "user q|assistant a"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "user q|assistant a"),
        ({"conversations": [USER, BOT, USER, BOT], "system": "s"}, "system s|user q|assistant a|user q|assistant a"),
        ({"instruction": "do", "input": "this", "output": "a"}, "user do\nthis|assistant a"),
        ({"instruction": "do", "input": "", "response": "a"}, "user do|assistant a"),
        ({"instruction": "q", "output": "a", "history": [["p", "r"]]}, "user p|assistant r|user q|assistant a"),
        ({"instruction": "q", "instances": [{"input": "i", "output": "a"}]}, "user q\ni|assistant a"),
        ({"prompt": "q", "response": "a"}, "user q|assistant a"),
        ({"query": "q", "response": "a", "prompt": "x", "completion": "y"}, "user q|assistant a"),
        ({"prompt": "q", "completion": "a"}, "user q|assistant a"),
        (
            {"old_contents": "x = 1\n", "new_contents": "x = 2\n", "message": "Set x to 2", "lang": "Python"},
            "user Set x to 2\n\n```python\nx = 1\n```|assistant ```python\nx = 2\n```",
        ),
        ({"old_contents": "", "new_contents": "y", "subject": "Add y"}, "user Add y|assistant ```\ny\n```"),
        (
            {"chat": {"turn_1": {"Human": "<|Human|>: q<eoh>\n", "Commands": "", "MOSS": "<|MOSS|>: a<eom>\n"}}},
            "user q|assistant a",
        ),
        ({"type": "t", "input": "q", "output": "a"}, "user q|assistant a"),
    ],
)
def test_every_shape_becomes_messages(record, expected):
    messages = json.loads(from_record(record, "f:1").text)["messages"]
    assert "|".join(f"{m['role']} {m['content']}" for m in messages) == expected


@pytest.mark.parametrize(
    "record, rule",
    [
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "empty_turn"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "empty_turn"),
        ({"messages": [BOT, USER]}, "wrong_role_order"),
        ({"messages": [USER, USER, BOT]}, "wrong_role_order"),
        ({"messages": [USER, {"role": "system", "content": "s"}, BOT]}, "wrong_role_order"),
        ({"messages": [USER]}, "no_assistant_turn"),
        ({"messages": [USER, {"role": "tool", "content": "t"}]}, "unknown_role"),
        ({"messages": [USER, "a"]}, "no_chat"),
        ({"messages": 3}, "no_chat"),
        ({"messages": []}, "no_assistant_turn"),
        ({"text": "no chat"}, "no_chat"),
        ({"instruction": "q"}, "no_chat"),
        ({"prompt": "q", "response": "\ud800"}, "bad_utf8"),
        ([1], "bad_json"),
    ],
)
def test_broken_conversations_are_named(record, rule):
    problem = from_record(record, "f:1")
    assert isinstance(problem, Problem) and (problem.where, problem.rule) == ("f:1", rule)


def counted_texts(folder, split="train"):
    """What the loss counts, decoded: one text per turn of the assistant."""
    shards, tokenizer = Shards(folder, split), Tokenizer.load(folder / "tokenizer.json")
    tokens, mask = shards.tokens(0, 1 << 40), shards.mask(0, 1 << 40)
    assert len(tokens) == len(mask)
    end, texts = tokenizer.special["<|im_end|>"], []
    for run in np.split(np.arange(len(mask)), np.flatnonzero(np.diff(mask)) + 1):
        if mask[run[0]]:
            assert tokens[run[-1]] == end and end not in tokens[run[:-1]], "a turn ends with <|im_end|>, which counts"
            texts.append(tokenizer.decode_bytes(tokens[run[:-1]]).decode())
    return texts


def assistant_texts(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")
    with opened as f:
        text = f.read()
    records = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    documents = {d.text for r in records if isinstance(d := from_record(r, ""), Document)}
    return [m["content"] for d in documents for m in json.loads(d)["messages"] if m["role"] == "assistant"]


def prepared(workdir, name, source, *arguments):
    out = workdir / "data" / name
    stage("prepare_data.py", f"--sources={source}", f"--out_dir={out}", "--chats", *arguments, cwd=workdir)
    return out


def test_chats_that_say_the_same_are_copies(workdir, tmp_path):
    """Whatever their type is, and with white space behind a turn: else one may be trained on, and the other validated."""
    chat = {"messages": [USER, {**BOT, "content": "x += 1"}]}
    copies = [chat, {**chat, "type": "code"}, {"messages": [USER, {**BOT, "content": "x += 1 \n"}]}]
    others = [{"messages": [{**USER, "role": "system"}, USER, BOT]}, {"messages": [USER, BOT]}]
    source = write_records(tmp_path / "chats.jsonl", [*copies, *others])
    dropped = read_manifest(prepared(workdir, "copies", source))["sources"][str(source)]["dropped"]
    assert dropped == {"exact_duplicate": 2}


def test_the_counted_labels_are_exactly_the_assistants_texts(workdir, tmp_path):
    records = [
        {"messages": [USER, {"role": "assistant", "content": f"x = {i}\n\n  é <|im_end|> 中"}] * (1 + i % 3)}
        for i in range(50)
    ]
    for record in records[:10]:  # an answer that is read, but not to be learnt
        record["messages"] = [USER, {**BOT, "content": "wrong", "weight": 0}, *record["messages"]]
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(map(json.dumps, [*records, {"messages": [USER]}])))
    one = prepared(workdir, "chats1", source, "--num_workers=1", "--val_fraction=0.2")
    two = prepared(workdir, "chats2", source, "--num_workers=2", "--val_fraction=0.2")
    texts = counted_texts(one) + counted_texts(one, "val")
    answers = [m for r in records for m in r["messages"] if m["role"] == "assistant"]
    assert sorted(texts) == sorted(m["content"] for m in answers if m["content"] != "wrong")
    manifest = read_manifest(one)
    assert manifest["sources"][str(source)]["dropped"] == {"no_assistant_turn": 1}
    counted = Shards(one, "train").mask(0, 1 << 40).sum()
    assert manifest["splits"]["train"]["counted"] == counted
    for name in ("train_000000.bin", "train_000000.mask.bin", "val_000000.mask.bin"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), "whatever the number of workers"


def test_a_damaged_mask_is_refused(workdir, tmp_path):
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(json.dumps({"messages": [USER, {**BOT, "content": str(i)}]}) for i in range(30)))
    out = prepared(workdir, "chats3", source)
    mask = out / "train_000000.mask.bin"
    mask.write_bytes(mask.read_bytes()[:-1])
    with pytest.raises(Exception, match="does not fit its shard"):
        Shards(out, "train")


def real_files():
    names = ("codealpaca", "evol-code", "alpaca-zh", "multiturn-chat", "leetcode-dataset")
    return [path for name in names for path in sorted((DATA / name).glob("*.json*"))]


@pytest.mark.skipif(not real_files(), reason="needs the real instruction sets")
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_instruction_sets_lose_nothing(workdir, tmp_path, path):
    """Every record is kept or named, and what is kept decodes to the assistants' texts."""
    sample = path
    if path.stat().st_size > 200_000:  # the first 500 records: the whole file takes long with the small vocabulary
        with gzip.open(path, "rt", encoding="utf-8") as f:
            text = f.read()
        records = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        sample = tmp_path / "sample.jsonl"
        sample.write_text("\n".join(map(json.dumps, records[:500])), encoding="utf-8")
    if "mt_bench" in path.name or "reference_answer" in path.name:  # questions, and answers, alone
        assert "no documents" in door_error(prepare_data, f"--sources={path}", "--chats", f"--out_dir={tmp_path / 'x'}",
                                            f"--tokenizer={workdir / 'data/tokenizer.json'}", "--num_workers=1")  # fmt: skip
        return
    out = prepared(workdir, path.name, sample, "--val_fraction=0", "--num_workers=1")
    assert sorted(counted_texts(out)) == sorted(assistant_texts(sample))
    n_records = len(json.loads(gzip.open(path).read())) if sample == path and ".json." in path.name else None
    source = read_manifest(out)["sources"][str(sample)]
    if n_records:
        assert source["train"]["documents"] + sum(source["dropped"].values()) == n_records


def test_prompts_are_drawn_by_type_and_joined_before_or_behind(tmp_path):
    (tmp_path / "fix.pre.prompt").write_text("Mend this:\nRepair this:\n")
    (tmp_path / "fix.post.prompt").write_text("What is wrong with it?\n")
    prompts, seen = Prompts(tmp_path), set()
    for i in range(60):
        text = json.dumps({"messages": [{"role": "user", "content": f"code {i}"}, BOT], "type": "fix"})
        messages = finished(text, prompts, 0.0)
        assert messages == finished(text, prompts, 0.0), "the same draw every time"
        seen.add(messages[0]["content"].replace(str(i), ""))
    assert seen == {"Mend this:\ncode ", "Repair this:\ncode ", "code \nWhat is wrong with it?"}
    untouched = json.dumps({"messages": [USER, BOT], "type": "other"})
    assert finished(untouched, prompts, 0.0)[0]["content"] == "q"


def test_mistakes_in_prompt_folders_are_named(workdir, tmp_path):
    arguments = [f"--tokenizer={workdir / 'data/tokenizer.json'}", f"--prompts={tmp_path}", "--chats"]
    assert "no prompt files" in door_error(prepare_data, *arguments)
    (tmp_path / "fix.prompt").write_text("x")
    assert "neither" in door_error(prepare_data, *arguments)
    (tmp_path / "fix.prompt").unlink()
    (tmp_path / "fix.pre.prompt").write_bytes(b"\xff")
    assert "not UTF-8" in door_error(prepare_data, *arguments)


def test_noise_deletes_and_repeats_the_share_it_is_told():
    text = "".join(chr(97 + i % 26) for i in range(20_000))
    assert noisy(text, 0.0, random.Random(0)) == text
    out = noisy(text, 0.15, random.Random(0))
    assert out == noisy(text, 0.15, random.Random(0)) and out != noisy(text, 0.15, random.Random(1))
    # 15 % of the characters: one in five gone, the others 1.5 longer on average
    assert len(out) / len(text) == pytest.approx(1 + 0.15 * (0.8 * 1.5 - 0.2), abs=0.01)
    messages = finished(json.dumps({"messages": [{"role": "user", "content": text}, BOT]}), Prompts(""), 0.15)
    assert messages[0]["content"] != text and messages[1] == BOT, "requests only"
