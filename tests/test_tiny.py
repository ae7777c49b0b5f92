"""Tokenizers of next to no text: what a message suggests is accepted when it is typed."""

import re

import pytest
from conftest import door_error, program

import configurator
import tokenizer_train
from configurator import UserError
from tokenizer import Tokenizer

TINY = ["x", "1", "x = 1\n", "aaaa", "é", "中", "the cat the cat", "0123456789" * 9, "x" * 1001, "=" * 2000, program(1)]


@pytest.fixture(autouse=True)
def one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def learn(**settings):
    tokenizer_train.main(tokenizer_train.Settings(sources=["one.py"], out="t.json", **settings))


@pytest.mark.parametrize("text", TINY, ids=lambda text: text[:9].strip())
@pytest.mark.parametrize("wanted", [264, 265, 2048])
def test_the_size_that_is_suggested_is_accepted(tmp_path, text, wanted):
    (tmp_path / "one.py").write_text(text)
    try:
        learn(holdout=0.0, vocab_size=wanted)
    except UserError as error:
        (suggested,) = re.findall(r"use more text or --vocab_size=(\d+)$", str(error))
        typed = ["--sources=one.py", "--out=t.json", "--holdout=0", f"--vocab_size={suggested}"]
        tokenizer_train.main(configurator.load(tokenizer_train.Settings, typed))  # which checks its range
        wanted = int(suggested)
    tokenizer = Tokenizer.load("t.json")
    assert tokenizer.vocab_size == wanted and tokenizer.decode(tokenizer.encode(text)) == text


def test_all_of_the_text_is_kept_back(tmp_path):
    (tmp_path / "one.py").write_text(program(1))
    error = door_error(tokenizer_train, "--sources=one.py", "--out=t.json", "--holdout=0.9999999")
    assert "all 1 documents are kept back for the report, --holdout=0 keeps back none" in error
    (tmp_path / "one.py").write_text("")
    assert door_error(tokenizer_train, "--sources=one.py", "--out=t.json").endswith("no text to learn from in one.py")


def test_a_source_that_is_named_twice_is_learnt_from_once(tmp_path):
    (tmp_path / "one.py").write_text(program(1))
    with pytest.raises(UserError, match="no source 'nowhere'"):
        tokenizer_train.main(tokenizer_train.Settings(sources=["one.py", "nowhere"], out="u.json"))
    counts, _ = tokenizer_train.count_pretokens(tokenizer_train.Settings(sources=["one.py", "./one.py"], holdout=0.0))
    assert counts == tokenizer_train.count_pretokens(tokenizer_train.Settings(sources=["one.py"], holdout=0.0))[0]
