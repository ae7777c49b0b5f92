"""Pairs of answers: every published shape becomes two conversations side by side, in the same split and in one row."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import DATA, alone, door_error, prepare, rules_of, write_records

import prepare_data
from corpus.chats import from_record as chat_from_record
from corpus.documents import Problem
from corpus.pairs import from_record
from loss import IGNORE
from shards import Shards, read_manifest
from training.dataloader import Packed
from training.pairs import PairRows, pair_batch, text_sums
from training.plan import Plan

USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)
TURN = {"from": "human", "value": "q"}
PLAN = Plan(4, "ids", compiles=False, recompute=False)


@pytest.mark.parametrize(
    "record, expected",
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "user q|assistant a|assistant b"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "user q|assistant a|assistant b"),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "user q|assistant a|assistant b"),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD], "system": "s"}, "system s|user q|assistant a|assistant b"),
        ({"conversations": [TURN], "chosen": "a", "rejected": "b"}, "user q|assistant a|assistant b"),
        (
            {"conversations": [TURN], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
            "user q|assistant a|assistant b",
        ),
        (
            {"conversations": [TURN, {"from": "gpt", "value": "r"}, TURN], "chosen": "a", "rejected": "b"},
            "user q|assistant r|user q|assistant a|assistant b",
        ),
        ({"system": "s", "question": "q", "Chosen": "a", "Rejected": "b"}, "system s|user q|assistant a|assistant b"),
        ({"instruction": "do", "input": "this", "chosen": "a", "rejected": "b"}, "user do\nthis|assistant a|assistant b"),
        ({"messages": [USER, GOOD], "chosen": "a", "rejected": "b"}, "user q|assistant a|assistant b"),
        ({"prompt": "q", "history": [["p", "r"]], "chosen": "a", "rejected": "b"},
         "user p|assistant r|user q|assistant a|assistant b"),
    ],
)  # fmt: skip
def test_every_shape_becomes_a_prompt_and_two_answers(record, expected):
    messages = json.loads(from_record(record, "f:1").text)["messages"]
    assert "|".join(f"{m['role']} {m['content']}" for m in messages) == expected
    assert [m.get("weight", 1) for m in messages if m["role"] == "assistant"][-2:] == [1, 1]
    assert all(m["weight"] == 0 for m in messages[:-2] if m["role"] == "assistant")


@pytest.mark.parametrize(
    "record, rule",
    [
        ({"messages": [USER, GOOD], "label": True}, "no_pair"),
        ({"prompt": "q", "chosen": "a"}, "no_pair"),
        ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "p"}, BAD]}, "no_pair"),
        ({"chosen": [USER, GOOD, USER], "rejected": [USER, BAD, USER]}, "no_pair"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "same_answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "\n"}, "empty_turn"),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, "empty_turn"),
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, "no_chat"),
        ({"prompt": "q", "context": {}, "desc": "d", "chosen": "a", "rejected": "b"}, "no_chat"),
        ({"conversations": [], "chosen": "a", "rejected": "b"}, "wrong_role_order"),
        ({"chosen": "a", "rejected": "b"}, "no_chat"),
        (["a"], "bad_json"),
    ],
)
def test_what_is_no_pair_is_named(record, rule):
    problem = from_record(record, "f:1")
    assert isinstance(problem, Problem) and (problem.where, problem.rule) == ("f:1", rule)


@pytest.fixture(scope="module")
def records():
    """80 pairs on 40 prompts; every fourth prompt has earlier turns."""
    found = []
    for i in range(80):
        earlier = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}] if i % 8 < 2 else []
        prompt = [*earlier, {"role": "user", "content": f"say {i // 2}"}]
        found.append({"prompt": prompt, "chosen": f"{i} {i}", "rejected": f"no {i}"})
    return found


@pytest.fixture(scope="module")
def pairs(workdir, records):
    """Shards of these records and of an exact copy of one."""
    path = write_records(workdir / "pairs.jsonl", [*records, records[5]])
    prepare(workdir, path, "data/pairs", "--pairs", "--val_fraction=0.3", "--num_workers=1")
    return workdir / "data/pairs"


def texts_of(shards, eot):
    return [shards.tokens(int(start), int(n)).tolist() for start, n in zip(*shards.documents(eot))]


def test_two_neighbours_are_a_pair_and_the_answers_alone_count(workdir, pairs, records, tokenizer):
    by_prompt = {"train": Counter(), "val": Counter()}
    wanted, seen = [], []
    for record in records:
        answers = ({"role": "assistant", "content": record[name]} for name in ("chosen", "rejected"))
        wanted.append([[tokenizer.eot, *tokenizer.render([*record["prompt"], answer])[0]] for answer in answers])
    for split in ("train", "val"):
        shards = Shards(pairs, split)
        texts = texts_of(shards, tokenizer.eot)
        assert shards.has_pairs and len(texts) % 2 == 0 and texts
        seen += [list(pair) for pair in zip(texts[::2], texts[1::2])]
        tokens, mask = shards.tokens(0, 1 << 30), shards.mask(0, 1 << 30)
        runs = np.split(np.arange(len(mask)), np.flatnonzero(np.diff(mask)) + 1)
        counted = [tokenizer.decode(tokens[run]) for run in runs if mask[run[0]]]
        numbers = [tokenizer.decode(text).split("say ")[1].split("<")[0] for text in texts]
        by_prompt[split].update(numbers)
        assert all(answer.endswith("<|im_end|>") for answer in counted) and "ho<|im_end|>" not in counted
        assert [answer.startswith("no") for answer in counted] == [False, True] * (len(texts) // 2)
    assert sorted(seen) == sorted(wanted)
    assert not by_prompt["train"].keys() & by_prompt["val"].keys() and len(by_prompt["val"]) > 3
    manifest = read_manifest(pairs)
    assert manifest["pairs"] is True and rules_of(pairs) == {"pairs.jsonl:81": "exact_duplicate"}
    assert sum(split["documents"] for split in manifest["splits"].values()) == 80
    prepare(workdir, workdir / "pairs.jsonl", "data/pairs2", "--pairs", "--val_fraction=0.3", "--num_workers=2")
    for name in ("train_000000.bin", "train_000000.mask.bin", "val_000000.bin"):
        assert (pairs / name).read_bytes() == (workdir / "data/pairs2" / name).read_bytes()


def test_tuning_reads_the_better_answers_alone(pairs, tokenizer):
    shards = Shards(pairs, "train")
    packed = Packed(shards, 128, (0,), tokenizer.eot)
    ids = np.concatenate([packed.row(n)[0] for n in range(packed.n_rows)])
    read = Counter(tuple(text[1:]) for text in np.split(ids, np.flatnonzero(ids == tokenizer.eot)) if len(text) > 1)
    assert read == Counter(tuple(text[1:]) for text in texts_of(shards, tokenizer.eot)[::2])


@pytest.mark.parametrize("longer", [-3, 150])
def test_a_row_holds_whole_pairs_each_once_per_epoch(pairs, tokenizer, longer):
    shards, eot = Shards(pairs, "train"), tokenizer.eot
    texts = texts_of(shards, eot)
    longest = max(map(len, texts)) + longer
    rows = PairRows(shards, longest, (1,), eot)
    fitting = [i for i in range(len(texts) // 2) if max(map(len, texts[2 * i : 2 * i + 2])) <= longest]
    assert rows.n_left_out == len(texts) // 2 - len(fitting) and (rows.n_left_out > 0) == (longer < 0)
    rows.reference = np.arange(2 * len(fitting), dtype=np.float32).reshape(-1, 2) + 1
    for epoch in (0, 1):
        places = range(epoch * rows.n_rows, (epoch + 1) * rows.n_rows)
        numbers = np.concatenate([rows.pairs(n) for n in places])
        assert sorted(numbers) == list(range(len(fitting)))
        batch = pair_batch([(rows, n) for n in places], rows.n_rows + 1, PLAN, alone(), eot)
        assert batch.ids.shape == (rows.n_rows + 1, 2 * longest) and batch.count == len(fitting)
        assert (batch.counts.max() > 3) == (longer > 0)
        lengths = [[len(texts[2 * fitting[i]]), len(texts[2 * fitting[i] + 1])] for i in numbers]
        is_text = (batch.targets != IGNORE) | (batch.ids != eot)
        opens = (batch.ids == eot) & (batch.beside["text"] < 2 * torch.from_numpy(batch.counts)[:, None])
        assert text_sums((is_text | opens).float(), batch).tolist() == lengths
        assert text_sums(batch.beside["reference"], batch).tolist() == rows.reference[numbers].tolist()
        parts = list(batch.split(4))
        assert [len(part.ids) for part in parts[:-1]] == [2] * (len(parts) - 1), "as many tokens as 4 usual rows"
        assert sum(part.count for part in parts) == batch.count


def test_records_are_shown_as_they_are_understood(workdir, pairs, capsys):
    prepare_data.show(prepare_data.Settings(sources=[str(workdir / "pairs.jsonl")], pairs=True, chats=True, show=1))
    assert "[user]\nsay 0\n[chosen]\n0 0\n[rejected]\nno 0\n" in capsys.readouterr().out


def test_a_file_without_pairs_is_one_line(workdir, tmp_path):
    path = write_records(tmp_path / "kto.jsonl", [{"messages": [USER, GOOD], "label": True}])
    arguments = ["--pairs", f"--sources={path}", f"--out_dir={tmp_path / 'out'}", "--num_workers=1"]
    error = door_error(prepare_data, *arguments, f"--tokenizer={workdir / 'data/tokenizer.json'}")
    assert "1 no_pair" in error and "there is no chosen and no rejected: fields: messages, label" in error


def published():
    names = ("dpo_en_demo.json.gz", "dpo_zh_demo.json.gz", "dpo_zh_500.jsonl.gz")
    found = [DATA / "dpo-pairs" / name for name in names]
    return [path for path in found if path.exists()]


@pytest.mark.skipif(not published(), reason="needs the real sets of pairs")
def test_published_pairs_are_read_whole():
    """Every record, with the answers that it has; a record of another kind of feedback is none."""
    for path in published():
        text = gzip.open(path, "rt", encoding="utf-8").read()
        records = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        for record in records:
            *prompt, chosen, rejected = json.loads(from_record(record, "").text)["messages"]
            answers = [
                record[name]["value"] if isinstance(record[name], dict) else record[name]
                for name in ("chosen", "rejected")
            ]
            assert [chosen["content"], rejected["content"]] == [answer.replace("\r\n", "\n") for answer in answers]
            said = [turn["value"].replace("\r\n", "\n") for turn in record["conversations"]]
            assert [m["content"] for m in prompt][-len(said) :] == said
    kto = json.loads(gzip.open(DATA / "dpo-pairs/kto_en_demo.json.gz").read())
    assert {from_record(record, "").rule for record in kto} == {"no_pair"}
    read = [chat_from_record(record, "") for record in kto]
    wanted = [not isinstance(found, Problem) for found in read]
    assert wanted == [record["label"] for record in kto] and 0 < sum(wanted) < len(wanted)
    assert {found.rule for found in read if isinstance(found, Problem)} == {"not_wanted"}
