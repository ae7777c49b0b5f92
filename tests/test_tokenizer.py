"""The tokenizer against SentencePiece's own segmentation, brute-force BPE, and any bytes."""

import io
import json
import random
import re

import pytest
import regex
import sentencepiece
import tiktoken
from conftest import ROOT, assert_one_line_error, door_error, stage

import tokenizer_train
from configurator import UserError
from tokenizer import PATTERN, PATTERNS, SPECIAL_TOKENS, Tokenizer

TEXTS = [
    "",
    " ",
    "\n\n\t x",
    "def f(x):\n    return x+1\r\n",
    "naïve café 中文字符 🙂👩‍👩‍👧",
    "a" * 3000,
    "1234567890",
    "don't it's",
    "\x7f\u200b\ufeff",
    "".join(SPECIAL_TOKENS),
]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_of_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_round_trip_of_any_bytes(tokenizer):
    r = random.Random(0)
    for _ in range(300):
        data = bytes(r.choices(range(256), k=r.randrange(60)))
        assert tokenizer.decode_bytes(tokenizer.encode(data)) == data


def test_text_never_yields_a_special_token(tokenizer):
    for name in SPECIAL_TOKENS:
        assert not set(tokenizer.encode(f"x{name}y {name}")) & set(tokenizer.special.values())
    assert tokenizer.decode([tokenizer.eot, *tokenizer.encode("x")]) == "<|endoftext|>x"


def test_equals_bpe_by_hand(tokenizer):
    """Merging the neighbours of lowest rank, written out."""
    ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes[: tokenizer.eot])}

    def by_hand(word):
        parts = [bytes([b]) for b in word.encode()]
        while len(parts) > 1:
            rank, i = min((ranks.get(a + b, 1 << 30), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
            if rank == 1 << 30:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [ranks[p] for p in parts]

    text = 'def function_7(text):\n    value_1 = 23 + len(text)  # step\n"""déjà vu, 中文."""\n\n\nreturn'
    assert tokenizer.encode(text) == [i for word in regex.findall(PATTERN, text) for i in by_hand(word)]
    assert "".join(regex.findall(PATTERN, text)) == text


def test_the_pattern_for_gguf_ends_white_space_where_a_word_begins(tmp_path):
    settings = tokenizer_train.Settings(sources=[str(ROOT / "corpus")], vocab_size=1000, pattern="gguf")
    settings.out = str(tmp_path / "gguf.json")
    tokenizer_train.main(settings)
    portable = Tokenizer.load(settings.out)
    assert portable.content["pattern"] == PATTERNS["gguf"]
    assert regex.findall(PATTERNS["gguf"], "if x:\n    y = 10\n\n  # z\n") == [
        *("if", " x", ":\n", "   ", " y", " =", " ", "1", "0", "\n\n", " ", " #", " z", "\n")
    ]
    for text in (
        "def f(x):\n    return x  \n\n",
        "a" + " " * 250_000 + "b\n" + "\n" * 120_000,
        " " * 1_200_000 + "\x00",
    ):
        assert portable.decode(portable.encode(text)) == text
    text = (ROOT / "model.py").read_text()
    whole = portable.encode(text)
    for place in [match.end() for match in re.finditer(r"\n(?=\S)", text)][::20]:
        assert portable.encode(text[:place]) + portable.encode(text[place:]) == whole, "a prompt may end in a line end"


def test_ranks_are_sentencepieces_segmentation(monkeypatch):
    """tiktoken with the learnt ranks cuts every pre-token as the SentencePiece model that they come from."""
    models, train = [], sentencepiece.SentencePieceTrainer.train

    def keep_model(**options):
        train(**options)
        models.append(options["model_writer"].getvalue())

    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", keep_model)
    settings = tokenizer_train.Settings(sources=[str(ROOT / "cleaning"), str(ROOT / "corpus")], vocab_size=2000)
    counts, _ = tokenizer_train.count_pretokens(settings)
    tokenizer = Tokenizer.from_bpe(PATTERN, tokenizer_train.learn_ranks(counts, 2000))
    model, letters = sentencepiece.SentencePieceProcessor(model_proto=models[0]), tokenizer_train.printable_bytes()
    learnt = {token for token in tokenizer.token_bytes}
    compared = 0
    for word in counts:
        pieces = [
            bytes(letters.index(c) for c in piece)
            for piece in model.encode("".join(letters[b] for b in word.encode()), out_type=str)
        ]
        if all(piece in learnt for piece in pieces):  # the trainer may learn a few merges past the size asked for
            compared += 1
            assert [tokenizer.token_bytes[i] for i in tokenizer.encode(word)] == pieces
    assert compared > 0.9 * len(counts)


def test_a_tokenizer_keeps_the_special_tokens_that_it_was_saved_with(tokenizer, tmp_path):
    """One that a file lacks is an error where it is used, and not when the file is loaded."""
    ranks = tokenizer.token_bytes[: tokenizer.eot]
    Tokenizer.from_bpe(PATTERN, ranks, SPECIAL_TOKENS[:3]).save(tmp_path / "older.json")
    Tokenizer.from_bpe(PATTERN, ranks, [*SPECIAL_TOKENS, "<|new|>"]).save(tmp_path / "newer.json")
    older, newer = Tokenizer.load(tmp_path / "older.json"), Tokenizer.load(tmp_path / "newer.json")
    assert older.vocab_size == tokenizer.vocab_size - 5 and newer.token_id("<|new|>") == tokenizer.vocab_size
    assert older.render([{"role": "user", "content": "x"}]) == tokenizer.render([{"role": "user", "content": "x"}])
    with pytest.raises(UserError, match="has no .*fim_prefix"):
        older.render_gap("a", "b")


def test_vocabulary_size_is_exact_and_saved_file_is_the_same(tmp_path, tokenizer):
    assert tokenizer.vocab_size == 320 and len(set(tokenizer.token_bytes[:312])) == 312
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.fingerprint == tokenizer.fingerprint and again.encode(TEXTS[4]) == tokenizer.encode(TEXTS[4])
    damaged = (tmp_path / "t.json").read_text().replace('"pattern": "', '"pattern": "x|')
    (tmp_path / "t.json").write_text(damaged)
    with pytest.raises(UserError, match="damaged"):
        Tokenizer.load(tmp_path / "t.json")


def test_byte_lengths_sum_to_the_text(tokenizer):
    for text in TEXTS:
        assert tokenizer.byte_lengths()[tokenizer.encode(text)].sum() == len(text.encode())


def stock(n_ranks):
    """An encoding like tiktoken's own, without the download."""
    ranks = {bytes([b]): b for b in range(256)} | {i.to_bytes(3, "big"): i for i in range(256, n_ranks)}
    return tiktoken.Encoding(
        "stock", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": n_ranks}
    )


def test_stock_encodings_load_if_they_fit_16_bits(monkeypatch):
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: stock(50256 if name == "gpt2" else 100_256))
    gpt2 = Tokenizer.load("gpt2")
    assert gpt2.eot == 50256, "GPT-2's <|endoftext|> keeps its id, so that llm.c's shards fit"
    assert gpt2.encode("hi") == stock(50256).encode("hi")
    with pytest.raises(UserError, match="65,536"):
        Tokenizer.load("cl100k_base")


def test_sentencepiece_models_load(tmp_path, corpus):
    model = io.BytesIO()
    lines = [line for f in sorted(corpus.iterdir())[:20] for line in f.read_text().splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    (tmp_path / "x.model").write_bytes(model.getvalue())
    tokenizer, own = (
        Tokenizer.load(tmp_path / "x.model"),
        sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()),
    )
    text = "value_3 = 12 + len(text)"
    assert tokenizer.encode(text) == own.encode(text) and tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.byte_lengths()[tokenizer.encode("len ∞")].sum() == len(" len ∞".encode()), (
        "byte pieces count one each"
    )
    tokenizer.save(tmp_path / "x.json")
    assert Tokenizer.load(tmp_path / "x.json").encode(text) == own.encode(text)
    assert tokenizer.encode("x\udcff = \ud800") == tokenizer.encode(b"x\xff = \xfe") == own.encode("x? = ?")


def test_chat_template(tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <|im_end|>"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Bye!"},
    ]
    ids, mask = tokenizer.render(messages)
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
        "Hello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nBye!<|im_end|>\n"
    )
    assert tokenizer.decode([i for i, m in zip(ids, mask) if m]) == "Hello<|im_end|>Bye!<|im_end|>"
    assert ids.count(tokenizer.special["<|im_end|>"]) == 5, "a user cannot write a special token"
    prompt, prompt_mask = tokenizer.render(messages[:2], generation_prompt=True)
    assert prompt == ids[: len(prompt)] and sum(prompt_mask) == 0
    with pytest.raises(UserError, match="robot"):
        tokenizer.render([{"role": "robot", "content": ""}])


def test_training_is_deterministic_and_reports(workdir, corpus, tmp_path, tokenizer):
    how = {"cwd": tmp_path, "forks": False}  # with another hash seed
    result = stage("tokenizer_train.py", f"--sources={corpus}", "--vocab_size=320", "--out=again.json", **how)
    assert Tokenizer.load(tmp_path / "again.json").fingerprint == tokenizer.fingerprint
    assert "exact" in result.stdout and (tmp_path / "again.report.json").exists()


def test_conversations_are_learnt_from_as_they_are_rendered(corpus, tmp_path):
    """Speakers, fences and words of conversations become tokens, so that conversations take fewer tokens."""
    said = [
        {"role": "user", "content": "Write a function that doubles n."},
        {"role": "assistant", "content": "```python\ndef double(n):\n    return 2 * n\n```"},
    ]
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps({'messages': said})}\n" * 200)
    settings = tokenizer_train.Settings(
        sources=[str(corpus)], vocab_size=400, out=str(tmp_path / "t.json"), holdout=0.0
    )
    before, _ = tokenizer_train.count_pretokens(settings)
    settings.chat_sources = [str(tmp_path / "chats.jsonl")]
    counts, held_out = tokenizer_train.count_pretokens(settings)
    more = {pretoken: n - before[pretoken] for pretoken, n in counts.items() if n > before[pretoken]}
    assert more["assistant"] == more["user"] == more["python"] == more[" function"] == 200 and more["```"] == 400
    assert list(held_out) == [str(corpus), settings.chat_sources[0]]
    tokenizer_train.main(settings)
    tokenizer = Tokenizer.load(settings.out)
    ids, _ = tokenizer.render(said)
    assert {"assistant", "user", "```", "python", " function"} <= {tokenizer.decode([i]) for i in ids}
    texts = f"--sources={corpus}", f"--chat_sources={corpus}", f"--out={tmp_path / 'u.json'}"
    assert f"no conversation in {corpus}" in door_error(tokenizer_train, *texts)


def test_neither_file_takes_the_place_of_a_source_or_a_folder(corpus, tmp_path):
    (tmp_path / "mine.report.json").write_text("[]")
    (tmp_path / "folder.json").mkdir()
    for name, words in (("mine", "mine.report.json"), ("folder", "is a folder")):
        sources = f"--sources={corpus},{tmp_path}/mine.report.json"
        assert words in door_error(tokenizer_train, sources, "--vocab_size=320", f"--out={tmp_path}/{name}.json")
    assert (tmp_path / "mine.report.json").read_text() == "[]" and not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--vocab_size=70000"], "65,536"),
        (["--vocab_size=100"], "vocab_size"),
        (["--sources=nowhere"], "nowhere"),
        (["--vocab_size=60000"], "use more text"),
    ],
)
def test_bad_input(tmp_path, corpus, arguments, words):
    assert_one_line_error(
        stage("tokenizer_train.py", f"--sources={corpus}", *arguments, cwd=tmp_path, check=False), words
    )
    assert not (tmp_path / "data").exists()
