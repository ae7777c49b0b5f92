"""Texts before a question: found as a brute-force BM25 finds them, never the answer itself, and the golden ones by their share."""

import difflib
import itertools
import json
import math
import random
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import door_error, prepare, write_records

import prepare_data
from cleaning import retrieval
from cleaning.settings import Settings
from configurator import UserError
from shards import Shards, read_manifest
from tokenizer import Tokenizer

VOCABULARY = [a + b for a in "ba ce di fo gu ha je ki lo mu".split() for b in "n r s t l m k p".split()]
DOCUMENT = re.compile(r"<DOCUMENT>(.*?)</DOCUMENT>\n", re.DOTALL)


def some_words(rng, n):
    return " ".join(rng.choices(VOCABULARY, k=n))


def toy_chats():
    """250 chats with answers of random words and requests of some of these. Every fourth has a sister, with another
    request and nearly the same answer."""
    rng, records = random.Random(0), []
    for i in range(200):
        words = some_words(rng, rng.randint(20, 40)).split()
        for _ in range(1 + (i % 4 == 0)):
            turns = {"user": " ".join(rng.sample(words, 8)), "assistant": " ".join(words)}
            records.append({"messages": [{"role": role, "content": said} for role, said in turns.items()]})
            words[0] = some_words(rng, 1)
    return records


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    """made(setting=value, ...): the folder of the toy's shards with these settings, each made once. Without settings it
    is the pool, from which all others retrieve."""
    pytest.importorskip("bm25s")
    folder = tmp_path_factory.mktemp("retrieval")
    source = write_records(folder / "chats.jsonl", toy_chats())
    common = {"sources": [str(source)], "tokenizer": str(workdir / "data/tokenizer.json"), "chats": True}
    common |= {"val_fraction": 0.2, "num_workers": 1}

    def shards(**settings):
        out = folder / (str(settings) if settings else "pool")
        if not out.exists():
            retrieved = {"retrieve_from": [str(shards())]} if settings else {}
            prepare_data.main(Settings(out_dir=str(out), **{**common, **retrieved, **settings}))
        return out

    return shards


def chats_of(folder, split="train"):
    """[(documents, request, answer, tokens)] of the chats in a shard folder."""
    shards, tokenizer = Shards(folder, split), Tokenizer.load(folder / "tokenizer.json")
    found = []
    for start, length in zip(*shards.documents(tokenizer.eot)):
        text = tokenizer.decode(shards.tokens(start, length).tolist())
        form = r"<\|endoftext\|><\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n(.*)<\|im_end\|>\n"
        asked, answer = re.fullmatch(form, text, re.DOTALL).groups()
        found.append((DOCUMENT.findall(asked), DOCUMENT.sub("", asked), answer, length))
    return found


def in_common(a, b):
    """The share of the shorter text's words that stand in the longer one in the same order, by difflib."""
    a, b = a.split(), b.split()
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / min(len(a), len(b))


# -- the search


def bm25(query, texts, k1=1.5, b=0.75):
    """Robertson's BM25 of every text with Lucene's idf, word by word."""
    texts = [text.split() for text in texts]
    average, scores = sum(map(len, texts)) / len(texts), [0.0] * len(texts)
    for word in query.split():
        n_with = sum(word in text for text in texts)
        idf = math.log(1 + (len(texts) - n_with + 0.5) / (n_with + 0.5))
        for i, text in enumerate(texts):
            count = text.count(word)
            scores[i] += idf * count / (count + k1 * (1 - b + b * len(text) / average))
    return scores


def test_a_search_is_a_brute_force_bm25(made):
    settings = Settings(chats=True, retrieve_from=[str(made())])
    retriever = retrieval.Retriever(settings, Tokenizer.load(made() / "tokenizer.json"))
    rng = random.Random(1)
    for query in [*(some_words(rng, rng.randint(1, 9)) for _ in range(8)), "ban unheard"]:
        scores, found = bm25(query, retriever.passages), retriever.found(query)
        best = sorted(filter(None, scores), reverse=True)[: retrieval.SEARCHED]
        assert [scores[i] for i in found] == pytest.approx(best, rel=1e-5) and len(set(found)) == len(best) > 0
    assert retriever.found("unheard") == retriever.found("?!") == []


def test_neighbours_are_the_best_that_hold_no_answer(made):
    answers = list({answer for _, _, answer, _ in chats_of(made())})
    for documents, request, answer, _ in chats_of(made(distractors=2))[:20]:
        scores = dict(zip(answers, bm25(request, answers)))
        allowed = [scores[text] for text in answers if in_common(text, answer) < 0.8]
        best_three = sorted(scores[text] for text in documents)[-3:]  # the distractors cannot be better
        assert best_three == pytest.approx(sorted(allowed)[-3:])


def test_words_by_which_code_and_chinese_are_found():
    assert retrieval.words_of("def get_value(x2):  # 读取列表 é") == "def get value x2 读 取 列 表 é".split()


# -- what comes before a request


def test_the_form_of_a_request_with_texts():
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user", "assistant")]
    asked = retrieval.with_documents(messages, ["one\n1", "two"])
    assert asked[1]["content"] == "<DOCUMENT>one\n1</DOCUMENT>\n<DOCUMENT>two</DOCUMENT>\nu"
    assert asked[:1] + asked[2:] == messages[:1] + messages[2:], "the first request alone"
    assert retrieval.with_documents(messages, []) == messages


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_answer_leaks(made, split):
    """Neither the chat's own, which is in the pool, nor its sister's; and nothing of what is kept for validation."""
    answers = {answer for _, _, answer, _ in chats_of(made())}
    chats = chats_of(made(distractors=2), split)
    assert len(chats) > 30 and {len(documents) for documents, *_ in chats} == {5}
    for documents, _, answer, _ in chats:
        assert set(documents) <= answers, "texts are answers of training chats"
        assert len(set(documents)) == 5 and max(in_common(text, answer) for text in documents) < 0.8


def test_the_loss_counts_the_same_answers(made):
    plain, mixed = read_manifest(made()), read_manifest(made(distractors=2))
    for split in ("train", "val"):
        assert plain["splits"][split]["counted"] == mixed["splits"][split]["counted"]
        # the same chats in the same order
        assert [chat[1:3] for chat in chats_of(made(), split)] == [
            chat[1:3] for chat in chats_of(made(distractors=2), split)
        ]


def test_a_share_of_the_chats_gets_its_own_answer_at_any_place(made):
    folder = made(golden_share=0.7, distractors=1)
    chats, share = chats_of(folder), 0.7
    places = [documents.index(answer) for documents, _, answer, _ in chats if answer in documents]
    n = len(chats)
    assert abs(len(places) - share * n) < 4 * math.sqrt(n * share * (1 - share)), (
        "4 standard deviations: once in 10,000"
    )
    for place in range(4):
        expected = len(places) / 4
        assert abs(places.count(place) - expected) < 4 * math.sqrt(expected * 3 / 4)
    assert {len(documents) for documents, *_ in chats} == {4}, "it comes in place of a neighbour"
    for documents, _, answer, _ in chats:
        alike = [text for text in documents if in_common(text, answer) >= 0.8]
        assert alike in ([], [answer]), "no sister's answer beside it or in its place"
    counts = json.loads((folder / "report.json").read_text())["retrieved"]
    n_val = len(chats_of(folder, "val"))
    assert counts["distractors"] == n + n_val and counts["neighbours"] + counts["golden"] == 3 * (n + n_val)


def test_the_golden_text_of_a_quotation_is_the_passage_that_it_stands_in(workdir, tokenizer):
    pytest.importorskip("bm25s")
    settings = Settings(retrieve_from=[str(workdir / "data/shards")], golden_share=1)
    retriever = retrieval.Retriever(settings, tokenizer)
    long = [i for i, text in enumerate(retriever.passages) if text.count("\n") > 6]
    for i in long[::9]:
        quotation = "\n".join(retriever.passages[i].split("\n")[2:6])
        messages = [{"role": "user", "content": "What is read?"}, {"role": "assistant", "content": quotation}]
        golden, *others = retriever.chosen(messages, random.Random(i))
        assert golden == ("golden", i) and len(others) == 2
        assert not any(in_common(retriever.passages[j], quotation) > 0.8 for _, j in others)


def test_a_chat_stays_within_its_length(made):
    folder = made(golden_share=1, context_tokens=300)
    kept = []
    for (documents, _, _, length), (*_, alone) in zip(chats_of(folder), chats_of(made())):
        assert length <= max(300, alone) and (length == alone) == (not documents)
        kept.append(len(documents))
    assert set(kept) == {0, 1, 2}, "as many as there is room for"


def test_the_number_of_workers_changes_nothing(made):
    one, three = made(golden_share=0.7, distractors=1), made(golden_share=0.7, distractors=1, num_workers=3)
    for path in sorted(one.glob("*.bin")):
        assert path.read_bytes() == (three / path.name).read_bytes()


# -- what counts as nearly the answer


def test_overlap_is_at_least_the_jaccard_similarity_and_1_for_a_part():
    rng = random.Random(2)
    for _ in range(100):
        words = some_words(rng, 30).split()
        other = [word if rng.random() < 0.95 else "x" for word in words] + some_words(rng, rng.randint(0, 9)).split()
        a, b = (set(zip(*(text[i:] for i in range(5)))) for text in (words, other))
        found = retrieval.overlap(" ".join(words), " ".join(other))
        assert found == pytest.approx(len(a & b) / min(len(a), len(b))) and found >= len(a & b) / len(a | b)
        assert retrieval.overlap(" ".join(words), " ".join(words[7:20])) == 1
    assert retrieval.overlap("Paris", "It is Paris.") == retrieval.overlap("It is Paris.", "Paris") == 1
    assert retrieval.overlap("Paris", "It is Rome.") == retrieval.overlap("?!", "Paris") == 0


# -- passages


def test_passages_are_the_training_documents_cut_at_lines(workdir, tokenizer):
    shards, whole = Shards(workdir / "data/shards", "train"), []
    for start, length in zip(*shards.documents(tokenizer.eot)):
        whole.append(tokenizer.decode(shards.tokens(start + 1, length - 1).tolist()))
    passages = list(retrieval.passages_of(workdir / "data/shards", 200))
    lines = [text.split("\n") for text in whole], [text.split("\n") for text in passages]
    expected, found = (list(filter(None, itertools.chain.from_iterable(part))) for part in lines)
    assert found == expected, "no line is lost or cut, and each keeps its indent"
    assert max(len(tokenizer.encode(text)) for text in passages) <= 200 and len(passages) > len(whole)


def test_a_line_longer_than_a_passage_is_cut():
    """The 0 tokens hold no line end."""
    tokens, begins_line = np.array([0, 0, 0, 0, 0, 1, 0, 0]), np.array([False, True])
    assert [len(piece) for piece in retrieval.pieces(tokens, 3, begins_line)] == [3, 2, 3]


# -- mistakes


def test_mistakes_end_in_one_line(workdir, tmp_path, monkeypatch):
    source = write_records(tmp_path / "chats.jsonl", toy_chats()[:40])
    common = (f"--tokenizer={workdir / 'data/tokenizer.json'}", f"--sources={source}")
    prepare(workdir, source, tmp_path / "pool", "--chats", "--val_fraction=0.1")
    retrieve, out = f"--retrieve_from={tmp_path}/pool", tmp_path / "x"
    monkeypatch.setitem(sys.modules, "bm25s", None)
    assert "pip install bm25s" in door_error(prepare_data, *common, retrieve, "--chats", f"--out_dir={out}")
    monkeypatch.setitem(sys.modules, "bm25s", object())  # from here on anything else fails first
    for words, *arguments in (
        ("--retrieve_from does nothing without --chats", retrieve),
        ("--distractors does nothing without --retrieve_from", "--chats", "--distractors=1"),
        ("--golden_share does nothing without --retrieve_from", "--chats", "--golden_share=1"),
        ("no shards in", "--chats", "--retrieve_from=nowhere"),
        ("kept for validation", "--chats", retrieve, "--val_fraction=0.2"),
        ("a folder of their own", "--chats", retrieve, f"--out_dir={tmp_path}/pool"),
    ):
        assert words in door_error(prepare_data, *common, f"--out_dir={out}", *arguments)
    assert not out.exists()


def test_chats_without_a_benchmarks_problems_get_no_texts_with_them(workdir, tmp_path, monkeypatch):
    """Which benchmarks a folder is free of is told by their content: a copy of the file has another name."""
    monkeypatch.setitem(sys.modules, "bm25s", object())  # nothing is searched here
    source = write_records(tmp_path / "chats.jsonl", toy_chats()[:40])
    problem = {"task_id": 1, "prompt": "def largest_gap(numbers):\n", "canonical_solution": "    return max(numbers)\n"}
    benchmark = write_records(tmp_path / "benchmark.jsonl", [problem])
    prepare(workdir, source, tmp_path / "free", "--chats", f"--decontaminate={benchmark}")
    prepare(workdir, source, tmp_path / "other", "--chats")
    copy = shutil.copy(benchmark, tmp_path / "copy.jsonl")

    def checked(pool):
        Settings(sources=[str(source)], chats=True, decontaminate=[copy], retrieve_from=[str(tmp_path / pool)]).check()

    checked("free")
    with pytest.raises(UserError, match="may hold problems of"):
        checked("other")


def test_folders_without_a_text_are_named(made, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({**read_manifest(made()), "files": []}))
    (tmp_path / "tokenizer.json").write_bytes((made() / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="no texts for training"):
        retrieval.Retriever(Settings(retrieve_from=[str(tmp_path)]), None)
