"""Decoding against step-by-step full forward passes; batched equals single; stopping and sampling."""

import numpy as np
import pytest
import torch

from configurator import UserError
from evaluation.generate import Sampling, generate, pick
from model import ModelConfig, Transformer


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=320, block_size=48, n_layer=2, n_head=4, n_kv_head=2, n_embd=32))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3) if p.dim() == 2 else None
    return model.eval()


PROMPTS = [[312, 5, 6, 7], [312], [312, *range(20, 40)], [312, 100]]
NO_STOP = dict(stop_ids=())
WARM = Sampling(temperature=1.0)


def test_greedy_equals_the_full_forward_pass(model, tokenizer):
    for prompt, completion in zip(PROMPTS, generate(model, tokenizer, PROMPTS, 12, **NO_STOP)):
        ids = list(prompt)
        for _ in range(12):
            with torch.no_grad():
                ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        assert completion.ids == ids[len(prompt) :] and completion.reason == "length"


@pytest.mark.parametrize("sampling", [Sampling(), WARM, Sampling(temperature=0.7, top_k=9, top_p=0.8)])
def test_batched_equals_single(model, tokenizer, sampling):
    seeds = [5, 2, 9, 4]
    together = generate(model, tokenizer, PROMPTS, 15, sampling, seeds, **NO_STOP)
    for prompt, seed, completion in zip(PROMPTS, seeds, together):
        assert generate(model, tokenizer, [prompt], 15, sampling, [seed], **NO_STOP) == [completion]


def test_seeds_repeat_and_differ(model, tokenizer):
    a, b, c = generate(model, tokenizer, [PROMPTS[0]] * 3, 20, WARM, seeds=[1, 1, 2], **NO_STOP)
    assert a == b != c
    assert generate(model, tokenizer, [PROMPTS[0]] * 3, 20, WARM, **NO_STOP)[1] == a, "row 1 has seed 1 by default"


def test_stop_tokens_and_stop_strings(model, tokenizer):
    free = generate(model, tokenizer, [PROMPTS[0]], 20, WARM, **NO_STOP)[0]
    stopped = generate(model, tokenizer, [PROMPTS[0]], 20, WARM, stop_ids=[free.ids[7]])[0]
    cut = free.ids.index(free.ids[7])
    assert stopped.ids == free.ids[:cut] and stopped.reason == "stop"
    text = tokenizer.decode_bytes(i for i in free.ids if i < 312)
    word = next(chr(b) for b in text[5:] if b < 128)  # one that is text by itself
    got = generate(model, tokenizer, [PROMPTS[0]], 20, WARM, stops=[[word, "never"]], **NO_STOP)[0]
    assert got.reason == "stop" and got.text == text[: text.index(word.encode())].decode("utf-8", "replace")


def test_each_row_may_have_stop_strings_of_its_own(model, tokenizer):
    stops = [("e",), (), ("\n", "a"), ("lu",)]
    together = generate(model, tokenizer, PROMPTS, 20, WARM, stops=stops, **NO_STOP)
    for row, (prompt, stop) in enumerate(zip(PROMPTS, stops)):
        assert generate(model, tokenizer, [prompt], 20, WARM, [row], [stop], **NO_STOP) == [together[row]]
    assert len({completion.reason for completion in together}) == 2


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_texts_that_have_ended_make_room_for_others(model, tokenizer, monkeypatch, batch_size):
    """Twelve texts of different lengths, few at a time: each is as it is alone, and none waits for the longest."""
    prompts, stops = PROMPTS * 3, [(), ("e",), ("a", "\n"), ("lu",)] * 3
    alone = []
    for row, (prompt, stop) in enumerate(zip(prompts, stops)):
        alone += generate(model, tokenizer, [prompt], 20, WARM, [row], [stop], **NO_STOP)
    ended, sizes, extend = [], [], model.extend
    monkeypatch.setattr(model, "extend", lambda ids, *rest: sizes.append(len(ids)) or extend(ids, *rest))
    how = {"stops": stops, "on_end": lambda: ended.append(1), "batch_size": batch_size, **NO_STOP}
    assert generate(model, tokenizer, prompts, 20, WARM, **how) == alone
    assert len(ended) == 12 and max(sizes) == batch_size
    longest = [max(len(text.ids) for text in alone[i : i + batch_size]) for i in range(0, 12, batch_size)]
    assert batch_size == 1 or len(sizes) < sum(longest), "the steps of one batch after the other"


def test_a_prompt_is_read_once_for_all_its_texts(model, tokenizer, monkeypatch):
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[2]] + [PROMPTS[0], PROMPTS[2]]
    alone = [generate(model, tokenizer, [prompt], 9, WARM, [n], **NO_STOP)[0] for n, prompt in enumerate(prompts)]
    read, extend = [], model.extend
    monkeypatch.setattr(model, "extend", lambda ids, *rest: read.append(ids.numel()) or extend(ids, *rest))
    assert generate(model, tokenizer, prompts, 9, WARM, **NO_STOP) == alone
    assert read == [2 * len(PROMPTS[2])] + [len(prompts)] * 8, "two prompts, the shorter one filled up"


def test_streaming_shows_the_text_and_never_a_part_of_the_stop_string(model, tokenizer):
    for stop in ([], ["e"], ["lu"], ["ret", "\n"]):
        shown = []
        options = dict(stops=[stop], on_bytes=shown.append, **NO_STOP)
        completion = generate(model, tokenizer, [PROMPTS[2]], 20, WARM, **options)[0]
        assert b"".join(shown).decode("utf-8", "replace") == completion.text


def test_a_row_ends_where_the_context_ends(model, tokenizer):
    rows = generate(model, tokenizer, PROMPTS, 100, **NO_STOP)
    assert [len(p) + len(row.ids) for p, row in zip(PROMPTS, rows)] == [48] * 4
    with pytest.raises(UserError, match="1 to 47 tokens"):
        generate(model, tokenizer, [[5] * 48], 1)


def test_pick_draws_from_the_distribution():
    """Frequencies over a grid of draws against softmax, top_k and top_p worked out by hand."""
    logits = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    draws = (np.arange(1000) + 0.5) / 1000

    def shares(**options):
        picked = pick(logits.expand(1000, 4), Sampling(**{"temperature": 1.0, **options}), draws)
        return (torch.bincount(picked, minlength=4) / 1000).tolist()

    assert shares() == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=2e-3)
    assert shares(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=2e-3)
    assert shares(top_p=0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=2e-3)
    assert shares(top_p=0.7) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=2e-3), "the fewest that hold .7"
    assert shares(temperature=0.5) == pytest.approx([x / 0.3 for x in (0.01, 0.16, 0.04, 0.09)], abs=2e-3)
    assert shares(temperature=0) == [0, 1, 0, 0]


def test_apples_gpus_have_no_float64():
    """What is drawn from is moved to the CPU there."""

    class OnAppleGPU:
        device = torch.device("mps")

        def cpu(self):
            return torch.tensor([[0.0, 50.0, 0.0]])

    assert pick(OnAppleGPU(), WARM, np.array([0.5])).tolist() == [1]


def test_a_tokenizer_without_chat_tokens_stops_at_the_end_of_text(model, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "special", {"<|endoftext|>": tokenizer.eot})
    assert generate(model, tokenizer, PROMPTS, 3)[0].ids
