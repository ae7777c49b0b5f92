"""dpo.py: the loss against its formula and against texts read alone, what it does to a model, and that a run is one run."""

import contextlib
import json
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL, alone, door_error, prepare, write_records
from test_processes import in_processes
from test_resume import metrics, train, weights

import dpo
import pretrain
import sft
from dpo import Settings, implicit_rewards, preference_loss
from loss import IGNORE
from model import ModelConfig, Transformer
from shards import Shards
from tokenizer import Tokenizer
from training import checkpoint
from training.machine import SignalCame
from training.pairs import PairBatch, Pairs
from training.plan import Plan

QUIET = ["--compile=false", "--log_every=1", "--eval_tokens=500", "--dtype=fp32", "--device=cpu"]
RUN = [
    "--init=dpo-trunk",
    "--data=data/say",
    "--max_steps=6",
    "--lr=0.01",
    "--save_every=3",
    "--eval_every=3",
    "--keep=9",
]
RUN += QUIET
PLAN = Plan(4, "ids", compiles=False, recompute=False)


@pytest.fixture(scope="module")
def trunk(workdir):
    """Pairs to learn from, and an untrained model to start with."""
    pairs = [{"prompt": f"say {i}", "chosen": f"{i} {i}", "rejected": f"no {i + 1} no"} for i in range(60)]
    return pairs_and_trunk(workdir, pairs, "data/say", "dpo-trunk")


def pairs_and_trunk(workdir, pairs, data, trunk, *arguments):
    """Prepare records as shards of pairs, and train a model for a step that changes little; its folder."""
    path = write_records(workdir / f"{trunk}.jsonl", pairs)
    prepare(workdir, path, data, "--pairs", "--val_fraction=0.25", "--num_workers=1")
    shape = [*TINY_MODEL, "--block_size=128", "--data=data/shards", "--batch_tokens=2048", "--warmup_steps=0"]
    with contextlib.chdir(workdir):
        train(pretrain, *shape, *QUIET, "--max_steps=1", "--lr=1e-5", f"--out_dir={trunk}", *arguments)
    return workdir / trunk


@pytest.fixture
def here(workdir, trunk, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


def loaded(path):
    """(model, tokenizer, meta) of the newest checkpoint, to be trained on."""
    folder, meta = checkpoint.newest(path)
    model = Transformer(ModelConfig(**meta["model"]))
    checkpoint.load_weights(model, folder, "cpu")
    return model, Tokenizer.load(folder / "tokenizer.json"), meta


@pytest.fixture
def setting(here, trunk):
    """(model, data): the trunk, and pairs whose reference is what it says of them."""
    model, tokenizer, _ = loaded(trunk)
    settings = Settings(batch_tokens=1024, seed=1)
    data = Pairs([("data/say", 1.0)], [("data/say", 1.0)], settings, 128, alone(), tokenizer.eot)
    dpo.make_reference(data, model, "reference", alone(), PLAN)
    return model, data


def text_log_probs(model, shards, eot):
    """log P of each answer of a split, (pairs, 2): each text alone, without padding, token by token, in fp64."""
    found = []
    model = model.double()
    model.dtype = torch.float64
    for start, length in zip(*shards.documents(eot)):
        ids = torch.from_numpy(shards.tokens(int(start), int(length)))
        mask = shards.mask(int(start), int(length))
        logits = model(ids[None, :-1])[0]
        total = 0.0
        for t in range(len(ids) - 1):
            if mask[t + 1]:
                total += logits[t, ids[t + 1]].item() - torch.logsumexp(logits[t], 0).item()
        found.append(total)
    return np.array(found).reshape(-1, 2)


@torch.no_grad()
def test_log_probs_are_those_of_each_text_alone(setting):
    """And make_reference() gives them to the right pairs, whatever rows these lie in."""
    model, data = setting
    for source in [*data.sources, *data.val]:
        expected = text_log_probs(model, source.shards, data.eot)
        assert source.n_left_out == 0 and source.reference == pytest.approx(expected, rel=1e-5)
        assert len({round(x, 2) for x in expected.ravel()}) > 5


def test_at_first_the_loss_is_ln_2_and_no_answer_has_a_reward(setting):
    model, data = setting
    for how in (Settings(beta=0.1), Settings(beta=5.0, length_norm=True)):

        def score(model, batch):
            return implicit_rewards(dpo.answer_log_probs(model, batch), batch, how)

        found = data.compared(model, score, alone(), PLAN)
        assert found["margin"] == found["chosen"] == found["rejected"] == 0 and found["accuracy"] == 0.5
        assert found["pair_loss"] == pytest.approx(math.log(2), rel=1e-12)
        batch = data.batch(0, alone(), PLAN)
        loss = preference_loss(dpo.answer_log_probs(model, batch), batch, how).item()
        assert loss / batch.count == pytest.approx(math.log(2), rel=1e-5) and batch.count > 5


def test_a_signal_ends_a_comparison(setting):
    model, data = setting
    machine, scored = alone(), []
    machine.stop = SimpleNamespace(signal=0)

    def score(model, batch):
        scored.append(batch)
        machine.stop.signal = signal.SIGTERM if len(scored) == 2 else 0
        return torch.zeros(batch.count, 2)

    with pytest.raises(SignalCame):
        data.compared(model, score, machine, PLAN)
    assert len(scored) == 2 < sum(source.n_rows for source in data.val)


def swapped(batch):
    """The same texts, of which the other one is the chosen one."""
    beside = {**batch.beside, "text": batch.beside["text"] ^ 1}
    return PairBatch(batch.ids, batch.targets, batch.documents, batch.counts, batch.as_bounds, beside)


def test_swapping_chosen_and_rejected_turns_the_gradient_round(setting):
    model, data = setting
    batch, gradients = data.batch(0, alone(), PLAN), []
    for one in (batch, swapped(batch)):
        model.zero_grad()
        preference_loss(dpo.answer_log_probs(model, one), one, Settings(beta=0.1)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[0].norm() > 0.1
    assert torch.allclose(gradients[0], -gradients[1], atol=1e-5 * gradients[0].abs().max().item())
    with torch.no_grad():
        model.norm.weight.mul_(2)
    assert torch.equal(data.batch(0, alone(), PLAN).beside["reference"], batch.beside["reference"])


@pytest.mark.parametrize("length_norm, nll", [(False, 0.0), (True, 0.0), (False, 0.2), (True, 0.2)])
def test_the_loss_is_that_of_the_papers(length_norm, nll):
    """Two pairs in a row, with answers of 1 to 4 tokens, and every number by hand."""
    n_tokens = [[1, 4], [3, 2]]
    policy, reference = [[-2.0, -3.5], [-7.0, -1.25]], [[-2.5, -3.0], [-6.0, -2.0]]
    text, targets, beside = [], [], []
    for number, (n, ref) in enumerate(zip(sum(n_tokens, []), sum(reference, []))):
        text += [number] * (n + 2)
        targets += [IGNORE, *[5] * n, IGNORE]
        beside += [ref, *[0.0] * (n + 1)]
    text, targets, beside = (torch.tensor([row]) for row in (text, targets, beside))
    batch = PairBatch(targets, targets, None, np.array([2]), False, {"text": text, "reference": beside})
    beta, expected = 0.3, 0.0
    for pair in (0, 1):
        gains = [policy[pair][k] - reference[pair][k] for k in (0, 1)]
        if length_norm:
            gains = [gains[k] / n_tokens[pair][k] for k in (0, 1)]
        expected += math.log(1 + math.exp(-beta * (gains[0] - gains[1])))
        expected -= nll * policy[pair][0] / n_tokens[pair][0]
    settings = Settings(beta=beta, length_norm=length_norm, nll=nll)
    assert preference_loss(torch.tensor(policy), batch, settings).item() == pytest.approx(expected, rel=1e-5)


def losses(folder):
    return [line["loss"] for line in metrics(folder) if "loss" in line]


@pytest.fixture(scope="module")
def whole(workdir, trunk):
    """A run of six steps that nothing disturbs."""
    with contextlib.chdir(workdir):
        train(dpo, *RUN, "--out_dir=dpo-whole")
    return workdir / "dpo-whole"


def test_a_run_learns_what_is_preferred_and_says_so(here, whole):
    first, *_, last = losses(whole)
    assert first == pytest.approx(math.log(2), abs=1e-5) and last < 0.5
    evaluated = [line for line in metrics(whole) if "val_loss" in line]
    assert [line["step"] for line in evaluated] == [3, 6]
    assert evaluated[-1]["accuracy"] > 0.9 and evaluated[-1]["margin"] > 0.5
    assert evaluated[-1]["margin"] == pytest.approx(evaluated[-1]["chosen"] - evaluated[-1]["rejected"])
    model, tokenizer, meta = loaded(whole)
    assert meta["chat"] and meta["settings"]["beta"] == 0.1 and meta["metrics"]["accuracy"] > 0.9
    kept = json.loads((whole / "reference.json").read_text())
    before = loaded(here / "dpo-trunk")[0]
    for split in ("train", "val"):
        shards = Shards("data/say", split)
        assert np.array(kept[shards.sha256()]) == pytest.approx(text_log_probs(before, shards, tokenizer.eot), rel=1e-5)


def test_micro_batches_and_processes_change_nothing(here, whole, tmp_path):
    assert in_processes(2, train, dpo, *RUN, f"--out_dir={tmp_path}/two") == [None, None]
    train(dpo, *RUN, "--micro_batch=1", f"--out_dir={tmp_path}/small")
    for folder in (tmp_path / "two", tmp_path / "small"):
        assert losses(folder) == pytest.approx(losses(whole), rel=1e-4)
        found, margins = ([line["margin"] for line in metrics(run) if "margin" in line] for run in (folder, whole))
        assert len(margins) == 2 and found == pytest.approx(margins, rel=1e-3)


def test_a_stopped_run_goes_on_bit_for_bit_and_does_not_need_the_first_model(here, whole, tmp_path, monkeypatch):
    train(dpo, *RUN, f"--out_dir={tmp_path}/cut")
    for path in (tmp_path / "cut").glob("step_*6"):
        path.rename(tmp_path / "later")
    monkeypatch.setattr(dpo, "make_reference", None)
    gone = [argument for argument in RUN if "--init" not in argument]
    train(dpo, *gone, "--init=nowhere", f"--out_dir={tmp_path}/cut", "--resume")
    assert weights(tmp_path / "cut") == weights(whole) and metrics(tmp_path / "cut") == metrics(whole)


def test_eight_pairs_can_be_learnt_by_heart(here, tmp_path):
    """Which of the two is better is a matter of chance: only what was seen tells it."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), 4)) for _ in range(18)]
    pairs = [{"prompt": f"{i}", "chosen": words[2 * i], "rejected": words[2 * i + 1]} for i in range(9)]
    path = write_records(tmp_path / "chance.jsonl", pairs)
    prepare(here, path, tmp_path / "data", "--pairs", "--val_fraction=0.1", "--num_workers=1")
    how = [
        "--init=dpo-trunk",
        f"--data={tmp_path}/data",
        *QUIET,
        "--max_steps=25",
        "--lr=0.01",
        "--save_every=0",
        "--batch_tokens=512",
    ]
    train(dpo, *how, f"--out_dir={tmp_path}/out", "--nll=0.2", "--beta=0.5")
    model, tokenizer, _ = loaded(tmp_path / "out")
    data = Pairs(
        [(str(tmp_path / "data"), 1.0)],
        [(str(tmp_path / "data"), 1.0)],
        Settings(batch_tokens=1024, seed=1),
        128,
        alone(),
        tokenizer.eot,
    )
    dpo.load_reference(data, tmp_path / "out")
    data.val = data.sources

    def score(model, batch):
        return implicit_rewards(dpo.answer_log_probs(model, batch), batch, Settings(beta=0.5))

    found = data.compared(model, score, alone(), PLAN)
    assert len(data.sources[0].starts) >= 7 and found["accuracy"] == 1 and found["pair_loss"] < 0.1
    assert found["chosen"] > 0, "with nll the chosen answers become likelier"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data=data/shards"], "holds no pairs of answers: prepare it with --pairs"),
        (["--block_size=8", "--batch_tokens=512"], "not one has both texts within block_size=8"),
        (["--batch_tokens=384"], "no multiple of 2 x block_size=256"),
        (["--data=data/no-val"], "holds no validation pairs"),
        (["--epochs=0"], "epochs"),
        (["--neftune=5"], "unknown setting"),
    ],
)
def test_mistakes_end_in_one_line(here, tmp_path, arguments, words):
    if "no-val" in arguments[0] and not (here / "data/no-val").exists():
        prepare(here, "dpo-trunk.jsonl", "data/no-val", "--pairs", "--val_fraction=0", "--num_workers=1")
    assert words in door_error(dpo, *RUN, f"--out_dir={tmp_path / 'mistake'}", *arguments)
    assert not (tmp_path / "mistake").exists()


def test_a_folder_is_gone_on_with_by_its_own_stage_and_its_own_pairs(here, whole, tmp_path):
    gone_on = ["--init=dpo-trunk", *QUIET, "--max_steps=9", "--out_dir=dpo-whole", "--resume"]
    assert "was trained by dpo.py" in door_error(sft, *gone_on, "--data=data/say")
    assert "beta=0.1, not beta=0.2" in door_error(dpo, *RUN, "--out_dir=dpo-whole", "--resume", "--beta=0.2")
    pairs = [{"prompt": f"say {i}", "chosen": "yes", "rejected": "no"} for i in range(60)]
    prepare(here, write_records(tmp_path / "other.jsonl", pairs), tmp_path / "other", "--pairs", "--val_fraction=0.2")
    error = door_error(dpo, *gone_on, f"--data={tmp_path / 'other'}")
    assert "reference.json is not of the pairs in" in error


def test_tuning_on_pairs_says_that_it_reads_the_better_answers(here, tmp_path, capsys):
    train(sft, "--init=dpo-trunk", "--data=data/say", *QUIET, "--max_steps=1", f"--out_dir={tmp_path / 'sft'}")
    assert "reads the better ones alone" in capsys.readouterr().out
    assert json.loads((tmp_path / "sft/metrics.jsonl").read_text().splitlines()[-1])["val_loss"] > 0
