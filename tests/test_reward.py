"""reward.py and evaluation/rewards.py: a rule is found in pairs, one text has one reward wherever it is asked for, and
prepare_data.py filters by it."""

import contextlib
import json
import math
import random

import pytest
import torch
from conftest import alone, door_error, prepare, rules_of, write_records
from test_dpo import pairs_and_trunk
from test_processes import in_processes
from test_resume import metrics, train, weights

import evaluation.rewards
import reward
from evaluation.rewards import ids_of, rewards
from training import checkpoint
from training.pairs import Pairs, scores_of
from training.plan import Plan

QUIET = ["--compile=false", "--log_every=1", "--eval_tokens=500", "--dtype=fp32", "--device=cpu"]
RUN = ["--init=reward-trunk", "--data=data/longer", "--lr=0.01", "--save_every=0", "--eval_every=0", *QUIET]
PLAN = Plan(4, "ids", compiles=False, recompute=False)


def words(n, seed):
    """n words of two letters."""
    draw = random.Random(seed)
    return " ".join(draw.choice("abcdefgh") + draw.choice("xyz") for _ in range(n))


@pytest.fixture(scope="module")
def trunk(workdir):
    """Pairs of which the longer answer is the better one, and an untrained model to start with."""
    draw, pairs = random.Random(0), []
    for i in range(300):
        short, long = sorted(draw.sample(range(1, 9), 2))
        pairs.append({"prompt": f"say {i}", "chosen": words(long, i), "rejected": words(short, -i)})
    return pairs_and_trunk(workdir, pairs, "data/longer", "reward-trunk", "--tie_embeddings=false")


@pytest.fixture(scope="module")
def trained(workdir, trunk):
    with contextlib.chdir(workdir):
        train(reward, *RUN, "--max_steps=20", "--eval_every=10", "--out_dir=longer")
    return workdir / "longer"


@pytest.fixture
def here(workdir, trunk, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


def test_a_rule_is_found_in_pairs(trained):
    lines = metrics(trained)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6), "all rewards are 0 at first"
    assert [line["accuracy"] for line in lines if "accuracy" in line][-1] > 0.95
    _, meta = checkpoint.newest(trained)
    assert meta["reward"] is True and meta["metrics"]["accuracy"] > 0.95


def test_rewards_are_centered():
    """Where 0 is, a pair's difference does not say: the second term does."""
    scores = torch.tensor([[2.0, 1.0], [5.0, 3.0]], requires_grad=True)
    loss = reward.reward_loss(scores, center=0.1)
    expected = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)) + 0.1 * (3**2 + 8**2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_text_has_the_reward_that_it_has_alone(here, trained, tokenizer):
    """In a row of several pairs, in a batch with longer texts, and by the last layer's product with the head."""
    model, tokenizer, _ = checkpoint.load_model(trained, alone(), with_values=True)
    data = Pairs(
        [("data/longer", 1.0)],
        [("data/longer", 1.0)],
        reward.Settings(batch_tokens=2048, seed=1),
        128,
        alone(),
        tokenizer.eot,
    )
    packed = scores_of(data.val[0], model, reward.end_values, alone(), PLAN, tokenizer.eot).ravel()
    texts, seen = data.val[0].shards, []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    alone_rewards, conversations = [], []
    end = tokenizer.special["<|im_end|>"]
    for start, length in zip(*texts.documents(tokenizer.eot)):
        ids = texts.tokens(int(start), int(length)).tolist()
        last = len(ids) - 1 - ids[::-1].index(end)
        with torch.no_grad():
            model(torch.tensor([ids[: last + 1]]))
        alone_rewards.append((seen[-1][0, -1] @ model.value_head.weight[0]).item())
        asked, answer = tokenizer.decode(ids).split("<|im_end|>\n<|im_start|>assistant\n")
        conversation = [asked.split("<|im_start|>user\n")[1], answer.removesuffix("<|im_end|>\n")]
        conversations.append([dict(role=role, content=text) for role, text in zip(("user", "assistant"), conversation)])
    assert data.val[0].n_left_out == 0 and len({round(x, 2) for x in alone_rewards}) > 50
    assert packed == pytest.approx(alone_rewards, abs=1e-4)
    assert rewards(model, tokenizer, conversations, 7) == pytest.approx(alone_rewards, abs=1e-4)
    later = [{"role": "user", "content": "thanks"}]
    assert ids_of(conversations[0] + later, tokenizer) == ids_of(conversations[0], tokenizer)


def test_a_score_file_filters_conversations(here, trained, tmp_path, capsys):
    chats = [{"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": words(n, i)}]}
             for i, n in enumerate([1, 8] * 20)]  # fmt: skip
    chats += [
        {"messages": []},
        {"messages": [chats[0]["messages"][0], {"role": "assistant", "content": words(200, 0)}]},
    ]
    source, out = write_records(tmp_path / "chats.jsonl", chats), tmp_path / "rewards.jsonl"
    settings = dict(checkpoint=str(trained), sources=[str(source)], out=str(out), batch_size=2, device="cpu")
    evaluation.rewards.main(evaluation.rewards.Settings(**settings))
    assert "without a score: 1 no_assistant_turn, 1 too_long" in capsys.readouterr().out
    scores = {line["id"]: line["score"] for line in map(json.loads, out.read_text().splitlines())}
    assert len(scores) == 40 and scores["chats.jsonl:1"] < 0 < scores["chats.jsonl:2"]
    how = ["--chats", f"--scores={out}", "--min_score=0", "--val_fraction=0", "--num_workers=1"]
    prepare(here, source, tmp_path / "kept", *how)
    kept = {f"chats.jsonl:{i + 1}" for i in range(42)} - rules_of(tmp_path / "kept").keys()
    assert kept == {name for name, score in scores.items() if score >= 0} and 15 < len(kept) < 25


def test_a_stopped_run_and_two_processes_are_one_run(here, tmp_path):
    """With a head of its own for words, which has no part in a reward."""
    how = [*RUN, "--max_steps=4", "--save_every=2", "--keep=9"]
    train(reward, *how, f"--out_dir={tmp_path}/whole")
    assert in_processes(2, train, reward, *how, f"--out_dir={tmp_path}/two") == [None, None]
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("whole", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0]
    train(reward, *how, f"--out_dir={tmp_path}/cut")
    (tmp_path / "cut/step_00000004").rename(tmp_path / "later")
    train(reward, *how, f"--out_dir={tmp_path}/cut", "--resume")
    whole, cut = (torch.load(tmp_path / name / "step_00000004/model.pt") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert whole["value_head.weight"].abs().max() > 0
    before, _, _ = checkpoint.load_model(here / "reward-trunk", alone())
    assert torch.equal(whole["lm_head.weight"], before.lm_head.weight)
    assert "value_head.weight" not in weights(tmp_path / "whole"), "a stage that writes text reads it without"


def test_mistakes_end_in_one_line(here, trained, tmp_path):
    source = write_records(tmp_path / "chats.jsonl", [{"prompt": "q", "response": "a"}])
    arguments = (f"--out={tmp_path / 'out.jsonl'}", "--device=cpu")
    error = door_error(evaluation.rewards, "--checkpoint=reward-trunk", f"--sources={source}", *arguments)
    assert "is no reward model" in error
    assert "nothing to score" in door_error(evaluation.rewards, "--checkpoint=longer", *arguments)
    empty = write_records(tmp_path / "empty.jsonl", [{"messages": []}])
    assert "no conversations" in door_error(evaluation.rewards, "--checkpoint=longer", f"--sources={empty}", *arguments)
    assert "holds no pairs" in door_error(reward, *RUN, "--data=data/shards", f"--out_dir={tmp_path / 'x'}")
    assert not (tmp_path / "out.jsonl").exists()
