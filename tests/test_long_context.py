"""The experiment on long rows measures what it says: the same tokens at every length, and numbers that stand far above."""

import json
import random
import types

import numpy as np
import pytest
import torch
from conftest import alone, door_error, untrained_checkpoint

from experiments import long_context
from loss import IGNORE
from model import ModelConfig
from training import checkpoint

EOT = 0


class Letters:
    """A tokenizer with a token for each character; 0 opens a document."""

    eot = EOT

    def encode(self, text):
        return list(map(ord, text))

    def decode(self, ids):
        return "".join(map(chr, ids))

    def byte_lengths(self):
        return np.array([0, *[1] * 127])


class Copies:
    """A model that says what followed the last `n` tokens where they stood before, at most `reach` tokens ago."""

    embed_tokens = types.SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, reach, n=6):
        self.reach, self.n = reach, n

    def __call__(self, ids):
        row, logits = ids[0].tolist(), torch.zeros(1, ids.shape[1], 128)
        for i in range(self.n, len(row)):
            for j in range(max(self.n, i - self.reach), i):
                if row[j - self.n : j] == row[i - self.n + 1 : i + 1]:
                    logits[0, i, row[j]] = 1
        return logits


FILES = ["".join(f"line {i} of {name}\n" for i in range(100)) for name in "abc"]
TOKENS = [np.array(Letters().encode(text), dtype=np.uint16) for text in FILES]


def test_a_number_stands_in_the_first_quarter_and_at_the_end():
    draw, seen = random.Random(1), set()
    for _ in range(50):
        ids, n = long_context.hide_number(draw, Letters(), TOKENS, 400)
        text = Letters().decode(ids)
        number = text[-n:]
        define = text.rsplit("\n", 2)[1:]
        assert ids[0] == EOT and n == 4 and number.isdigit() and 390 < len(ids) <= 400
        first = text.index(define[0])
        assert first <= 100 and text[first - 1] in "\n\0" and text[first:].startswith("\n".join(define) + '"\nline')
        seen.add(number)
    assert len(seen) > 45


def test_who_looks_far_enough_finds_it_and_nobody_else():
    settings = long_context.Settings(n_numbers=5)

    def found(reach):
        return long_context.share_found(Copies(reach), Letters(), TOKENS, 400, settings)

    assert found(400) == 1 and found(250) == 0
    assert found(400) == found(400)


def test_every_length_has_the_same_tokens():
    """Of a uniform model each byte needs log2(128) = 7 bits, and each token is asked for once."""
    asked = {}

    class Uniform(torch.nn.Module):
        def forward(self, ids, targets, documents, reduction):
            assert documents is None
            asked.setdefault(ids.shape[1], []).append(targets[targets != IGNORE])
            return torch.full((targets.numel(),), np.log(128)) * (targets.flatten() != IGNORE)

    for length in (64, 128, 512):
        bpb = long_context.bits_per_byte(Uniform(), TOKENS, length, 512, alone(), Letters())
        assert bpb == pytest.approx(7)
    asked = {length: torch.cat(parts).tolist() for length, parts in asked.items()}
    assert asked[64] == asked[128] == asked[512]
    assert asked[64] == [token for tokens in TOKENS for token in tokens[1 : 1 + (len(tokens) - 1) // 512 * 512]]


def test_positions_are_stretched_only_where_rows_are_longer():
    short = ModelConfig(block_size=64)
    assert long_context.reading(short, "yarn", 64) == long_context.reading(short, "none", 512) == short
    longer = long_context.reading(short, "linear", 256)
    assert (longer.rope_scaling, longer.rope_factor, longer.rope_trained) == ("linear", 4, 64)


def test_the_whole_experiment(workdir, tokenizer, tmp_path, capsys):
    """A short checkpoint with each scaling and a long one as it is; which of them agree at which length."""
    short, long = untrained_checkpoint(tmp_path / "short", tokenizer, 140), tmp_path / "long"
    model, _, _ = checkpoint.load_model(short, alone())
    model.config = long_context.reading(model.config, "yarn", 1120)
    checkpoint.save(long, 1, model, [], tokenizer, {"settings": {}}, alone())
    where = {"checkpoints": [str(short), str(long)], "data": str(workdir / "data/shards"), "out": str(tmp_path / "a")}
    long_context.main(long_context.Settings(**where, trained=140, n_numbers=2, device="cpu", dtype="fp32"))
    printed = capsys.readouterr().out
    assert printed.count("as trained") == 2 and printed.count("ntk") == 2
    bpb = {}
    for one in json.loads((tmp_path / "a").read_text())["results"]:
        bpb[one["checkpoint"], one["positions"], one["length"]] = one["bits per byte"]
    assert len(bpb) == 5 * 4
    assert len({bpb[str(short), scaling, 140] for scaling in ("none", "linear", "ntk", "yarn")}) == 1
    assert len({bpb[str(short), scaling, 1120] for scaling in ("none", "linear", "ntk", "yarn")}) == 4
    assert bpb[str(short), "yarn", 1120] == bpb[str(long), "as trained", 1120]
    assert "no validation file has more than 80,000 tokens" in door_error(
        long_context, f"--checkpoints={short}", f"--data={workdir}/data/shards", "--trained=10000"
    )
