"""The measures of experiments/order.py, on models whose losses are known beforehand."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import program
from test_order import page

from configurator import UserError
from corpus.documents import Document
from experiments import common, order, order_measures
from tokenizer import PATTERN, Tokenizer

BYTES = Tokenizer.from_bpe(PATTERN, [bytes([byte]) for byte in range(256)])


class Model:
    """Stands in for a Transformer. loss(ids so far, next id): what it loses there, in nats."""

    def __init__(self, block_size, loss):
        self.config, self.loss = SimpleNamespace(block_size=block_size), loss
        self.embed_tokens = SimpleNamespace(weight=torch.zeros(1))

    def __call__(self, ids, targets, reduction):
        losses = []
        for row, wanted in zip(ids.tolist(), targets.tolist()):
            losses += [self.loss(row[: t + 1], wanted[t]) if wanted[t] >= 0 else 0.0 for t in range(len(row))]
        return torch.tensor(losses)


def lookback(seen, target):
    """1 nat for a token that stood behind the same three tokens before, 5 for any other."""
    return 1.0 if "".join(map(chr, [*seen[-3:], target])) in "".join(map(chr, seen)) else 5.0


def test_copying_is_what_looking_back_brings():
    """Of 64 tokens of the second time, the first three follow others than they did before."""
    assert order_measures.copying(Model(256, lookback), BYTES) == pytest.approx(4 * 61 / 64, abs=0.01)
    assert order_measures.copying(Model(256, lambda seen, target: 5.0), BYTES) == 0


def test_late_minus_early_is_of_the_positions_that_it_names():
    files = [Document(program(seed, lines=60), f"p/{seed}.py") for seed in range(3)]
    found = order_measures.late_minus_early(Model(256, lambda seen, target: len(seen) - 1.0), BYTES, files, 10)
    assert found == (192 + 255) / 2 - (24 + 55) / 2
    with pytest.raises(order_measures.UserError, match="more than 40,000 tokens"):
        order_measures.late_minus_early(Model(20_000, lookback), BYTES, files, 10)


def test_files_stand_in_the_context_as_in_shards():
    model = Model(96, lookback)  # of each file 28 tokens
    files = [Document("x" * 40, "p/a.py"), Document("y = 1", "p/b.py")]
    ids, n_prompt = order_measures.one_context(model, BYTES, files, is_repository=False)
    assert BYTES.decode(ids) == f"<|endoftext|>{'x' * 28}<|endoftext|>y = 1" and n_prompt == 30
    ids, n_prompt = order_measures.one_context(model, BYTES, files, is_repository=True)
    assert BYTES.decode(ids[:n_prompt]).endswith("<|file_sep|>p/b.py\n") and BYTES.decode(ids[n_prompt:]) == "y = 1"
    assert ids[1:] == BYTES.render_repository("p", [("p/a.py", "x" * 28), ("p/b.py", "y = 1")])


def test_who_looks_back_gains_by_similar_files_and_by_right_answers(tmp_path):
    """Files of four packages with a topic each, and exercises of two kinds, of which each has one solution."""
    files = [Document(page(i), f"{'abcd'[i % 4]}/{i}.py") for i in range(24)]
    settings = order_measures.Settings(problems=str(tmp_path / "problems.jsonl"), examples=4)
    gains = order_measures.context_gains(Model(3000, lookback), BYTES, files, settings)
    assert gains["gain_alike"] > 2 * gains["gain_random"] > 0
    assert gains["gain_in_context"] == pytest.approx(gains["gain_alike"] - gains["gain_random"])
    problems = []
    for i in range(40):
        solution = f"    return {'alpha' if i % 2 else 'omega'}\n"
        problems.append({"composition": f"kind{i % 2}", "prompt": f"def f{i}():\n", "canonical_solution": solution})
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    found = order_measures.shots(Model(1000, lookback), BYTES, settings)
    assert found["shots_0"] > found["shots_1"] and found["gain_shots"] > found["gain_shuffled"] > 0
    assert found["shots_0"] == pytest.approx(5 / math.log(2), abs=0.2)
    assert found["shots_8"] == pytest.approx(1 / math.log(2))


def test_the_spread_compares_models_of_the_same_seed():
    arms = {"random": [{"bpb": 1.0}, {"bpb": 3.0}], "alike": [{"bpb": 2.0}, {"bpb": 4.0}]}
    cell = common.spread(arms)["alike"]["bpb"]
    assert cell == {"mean": 3.0, "sd": pytest.approx(2**0.5), "difference": 1.0, "stderr": 0.0}
    assert common.spread({"random": [{"bpb": 1.0}]})["random"]["bpb"]["sd"] is None


def test_dependency_order_is_compared_with_its_own_control(tmp_path, monkeypatch, capsys):
    """A repository's files in the order of imports with the same in random order, not with files of all kinds."""
    keys = [*order.COLUMNS, "shots_8", "shuffled_8"]
    found = {arm: [dict.fromkeys(keys, n + 0.25), dict.fromkeys(keys, n + 0.5)] for n, arm in enumerate(order.ARMS)}
    monkeypatch.setattr(order, "prepare", lambda *_: None)
    monkeypatch.setattr(order, "run_arms", lambda *_: found)
    order.main(order.Settings(out_dir=str(tmp_path)))
    *_, own, shots = capsys.readouterr().out.split("\n\n")
    title, head, line = own.splitlines()
    assert (
        title.startswith("minus that of repository, random") and line.split()[:4] == "repository 1.000 +- 0.000".split()
    )
    assert "4.375 (4.375)" in shots.splitlines()[-1]


def test_a_module_in_no_folder_is_called_as_in_shards():
    assert order_measures.package_of(Document("x", "bz2.py")) == "bz2"
    assert order_measures.package_of(Document("x", "json/tool.py")) == "json"


def test_other_settings_want_another_folder(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(vars(order.Settings(max_steps=7))))
    with pytest.raises(UserError, match="max_steps=7: choose another --out_dir"):
        order.prepare(tmp_path, order.Settings())
