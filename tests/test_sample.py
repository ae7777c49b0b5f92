"""sample.py: a conversation remembers, forgets when it is told to, and stays inside the context."""

import io
import itertools

import pytest
from conftest import door_error, untrained_checkpoint

import configurator
import sample
from evaluation.generate import Completion


def typing(monkeypatch, text, encoding="utf-8"):
    """Let standard input hold these bytes or this text."""
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding=encoding))


def conversation(monkeypatch, tokenizer, text, most=10_000, encoding="utf-8", reason="stop"):
    """The prompts, as text, that a model was given which answers 1, 2, 3, ..."""
    asked, numbers = [], itertools.count(1)

    def write(prompts, seeds, on_bytes):
        """Note the prompt, and answer."""
        asked.append(tokenizer.decode(prompts[0]))
        answer = str(next(numbers))
        on_bytes(answer.encode())
        return [Completion([], answer, reason)]

    typing(monkeypatch, text, encoding)
    sample.talk(write, tokenizer, most, seed=0)
    return asked


def turn(role, text=None):
    """A turn as the template writes it; without text the beginning of one."""
    return f"<|im_start|>{role}\n" + ("" if text is None else f"{text}<|im_end|>\n")


def test_a_message_is_answered_with_what_was_said_before_in_sight(monkeypatch, tokenizer, capsys):
    asked = conversation(monkeypatch, tokenizer, "add\n\n  \nagain\n")
    first = "<|endoftext|>" + turn("user", "add") + turn("assistant")
    second = first[: -len(turn("assistant"))] + turn("assistant", "1") + turn("user", "again") + turn("assistant")
    assert asked == [first, second]
    assert capsys.readouterr().out == "1\n2\n"


def test_reset_forgets(monkeypatch, tokenizer, capsys):
    asked = conversation(monkeypatch, tokenizer, "add\n/reset\nagain\n")
    assert asked[1] == "<|endoftext|>" + turn("user", "again") + turn("assistant")
    assert "(forgotten)" in capsys.readouterr().err


def test_the_oldest_turns_go_when_the_context_is_full(monkeypatch, tokenizer, capsys):
    alone = len(tokenizer.render([{"role": "user", "content": "m1"}], generation_prompt=True)[0]) + 1
    asked = conversation(monkeypatch, tokenizer, "m1\nm2\nm3\n", most=2 * alone + 8)
    assert "m1" in asked[1] and "m1" not in asked[2] and "m2" in asked[2] and "m3" in asked[2]
    assert "2 old turns no longer fit into the context" in capsys.readouterr().err


def test_the_newest_message_always_stays(tokenizer):
    turns = [
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "new"},
    ]
    kept, ids, n_dropped = sample.fitting(turns, tokenizer, most=1)
    assert (kept, n_dropped) == (turns[2:], 2) and "new" in tokenizer.decode(ids)
    assert sample.fitting(turns, tokenizer, most=1000)[2] == 0


def test_an_answer_that_is_cut_off_is_said_to_be(monkeypatch, tokenizer, capsys):
    conversation(monkeypatch, tokenizer, "add\n", reason="length")
    assert "(cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    "typed, seen", [(b"caf\xc3\xa9 \xe4\xb8\xad\n", "café 中"), (b"\xff\n", "\N{REPLACEMENT CHARACTER}")]
)
def test_any_bytes_can_be_typed(monkeypatch, tokenizer, typed, seen):
    (asked,) = conversation(monkeypatch, tokenizer, typed, encoding="ascii")
    assert turn("user", seen) in asked


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tokenizer):
    return untrained_checkpoint(tmp_path_factory.mktemp("untrained"), tokenizer, block_size=64)


def test_a_conversation_at_the_terminal(monkeypatch, untrained, capsys):
    """Longer than the context altogether, with one message that alone is too long: it goes on."""
    typing(monkeypatch, "say 1\n" * 5 + "word " * 100 + "\nsay 2\n")
    sample.main(sample.Settings(checkpoint=str(untrained), chat=True, max_new_tokens=4, device="cpu", dtype="fp32"))
    out, err = capsys.readouterr()
    assert "old turns no longer fit" in err and "a prompt must have 1 to 63 tokens" in err
    assert "was not tuned on conversations" in err and err.count("(cut off") == 6


def test_what_a_conversation_cannot_have_is_one_line(monkeypatch, untrained):
    for other, why in (("--suffix=x", "give one of them"), ("--num_samples=2", "each message has one answer")):
        assert why in door_error(sample, f"--checkpoint={untrained}", "--chat", other)
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input" in door_error(sample, f"--checkpoint={untrained}", "--chat", "--device=cpu")


def test_a_terminal_of_few_characters_shows_the_others_by_number(monkeypatch, untrained):
    """As under PYTHONIOENCODING=ascii."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    arguments = [f"--checkpoint={untrained}", "--prompt=é中", "--max_new_tokens=40", "--device=cpu", "--temperature=3"]
    monkeypatch.setattr("sys.argv", ["sample.py", *arguments])
    configurator.run(sample.main, sample.Settings)
    assert out.buffer.getvalue().startswith(b"\\xe9\\u4e2d")
