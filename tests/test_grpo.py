"""Learning from rewards: what is drawn is what is scored, the gradient is that of the expected reward, and nothing is
earned by cheating."""

import math

import pytest
import torch
from conftest import TINY_MODEL, alone, load_model
from test_evaluation import problem_file
from test_processes import metrics

import configurator
import grpo
import pretrain
from evaluation.attempts import Tested, draw_attempts
from evaluation.rollouts import Rollouts
from loss import IGNORE
from model import ModelConfig, Transformer
from tokenizer import Tokenizer
from training import checkpoint
from training.dataloader import Mixture, parse_mixture
from training.plan import Plan

PLAN = Plan(2, "ids", False, False)
RUN = ["--device=cpu", "--dtype=fp32", "--compile=false", "--n_problems=3", "--group_size=4", "--max_new_tokens=6"]
RUN += ["--micro_batch=1", "--warmup_steps=0", "--max_steps=4", "--eval_every=0", "--save_every=0", "--lr=1e-2"]
RUN += ["--keep=9"]


@pytest.fixture(scope="module")
def here(workdir, tmp_path_factory):
    """A folder with a base model of two steps, and five problems."""
    folder = tmp_path_factory.mktemp("grpo")
    shape = [*TINY_MODEL, "--block_size=96", f"--data={workdir}/data/shards", f"--out_dir={folder}/base"]
    run = ["--batch_tokens=192", "--max_steps=2", "--warmup_steps=0", "--eval_tokens=96", "--compile=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.log.peak_flops", lambda *_: (1e12, "not measured"))
        pretrain.main(configurator.load(pretrain.Settings, [*shape, *run, "--device=cpu", "--dtype=fp32"], "pretrain"))
    problem_file(folder, count=5)
    (folder / "shards").symlink_to(workdir / "data/shards")
    return folder


def settings_of(here, *arguments):
    places = [f"--init={here}/base", f"--problems={here}/problems.jsonl"]
    arguments = [argument.replace("HERE", str(here)) for argument in arguments]
    return configurator.load(grpo.Settings, [*RUN, *places, *arguments], "grpo")


@pytest.fixture
def letters(monkeypatch):
    """An attempt earns 1 where it has more e than a, and nothing is run."""
    judged_by(monkeypatch, lambda tried: float(tried.text.count("e") > tried.text.count("a")))
    monkeypatch.setattr("training.log.peak_flops", lambda *_: (1e12, "not measured"))


def run(here, *arguments):
    """Train in this process."""
    grpo.main(settings_of(here, *arguments))


def judged_by(monkeypatch, reward):
    """Let reward(attempt) stand for the sandbox."""

    def judge(self, found):
        for tried in found:
            tried.reward = reward(tried)

    monkeypatch.setattr(Tested, "judge", judge)


def made(here, *arguments):
    """(settings, model, Rollouts) as grpo.py begins with them."""
    settings = settings_of(here, "--seed=5", *arguments)
    folder, meta = checkpoint.newest(here / "base")
    model, tokenizer = Transformer(ModelConfig(**meta["model"])), Tokenizer.load(folder / "tokenizer.json")
    checkpoint.load_weights(model, folder, "cpu")
    if settings.critic:
        model.add_value_head()
        torch.manual_seed(3)
        torch.nn.init.normal_(model.value_head.weight)
    task, replay = Tested(here / "problems.jsonl", tokenizer, chat=False), None
    if settings.replay:
        replay = Mixture(parse_mixture(settings.replay), 96, 2, settings.seed, tokenizer.eot)
    return settings, model, Rollouts(settings, model, model, tokenizer, task, {}, replay)


def gradients(settings, model, batch, n_rows):
    """{name: gradient} of the step's loss, n_rows rows at a time."""
    model.zero_grad()
    for part in batch.split(n_rows):
        loss, count = grpo.make_loss(settings)(model, part)
        assert count == part.count
        (loss / batch.count).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


# -- what is drawn, and what is trained on


def test_the_log_probabilities_of_sampler_and_trainer_are_the_same(here, letters):
    settings, model, data = made(here, "--updates=2")
    batch = data.batch(0, alone(), PLAN)
    ids, targets, owner = data.packed()
    assert len(data.attempts) and sum(len(tried.ids) for tried in data.attempts) == batch.count
    for number, tried in enumerate(data.attempts):
        place = owner == number
        assert targets[place].tolist() == tried.ids, "what counts is what was drawn, and all of it"
        assert data.beside["old"][place] == pytest.approx(tried.logprobs, abs=1e-5)
        text = torch.tensor([tried.prompt + tried.ids])  # alone, without neighbours in its row
        alone_scores = -model(text[:, :-1], text[:, 1:], reduction="none")[len(tried.prompt) - 1 :]
        assert tried.logprobs == pytest.approx(alone_scores.tolist(), abs=1e-5)


def test_padding_of_the_vocabulary_counts_in_both(here, letters):
    """An untrained model gives its padding as much as anything else."""
    _, model, data = made(here)
    tokenizer = data.tokenizer
    shape = {**vars(model.config), "vocab_size": tokenizer.vocab_size + 64}
    padded, prompt = Transformer(ModelConfig(**shape)), data.task.prompts[0]
    (tried,) = draw_attempts(padded.eval(), tokenizer, [(0, prompt, (), (5, 0, 0))], 6, 1)
    text = torch.tensor([tried.prompt + tried.ids])
    scores = -padded(text[:, :-1], text[:, 1:], reduction="none")[len(prompt) - 1 :]
    assert tried.logprobs == pytest.approx(scores.tolist(), abs=1e-5) and max(tried.ids) < tokenizer.vocab_size


def test_the_divergence_is_that_of_what_was_drawn_and_a_group_is_solved_by_any_of_its_attempts(here, letters):
    settings, model, data = made(here, "--kl=0.1")
    data.reference = Transformer(model.config)
    torch.manual_seed(1)
    for p in data.reference.parameters():
        p.data += 0.1 * torch.randn_like(p)
    about = data.batch(0, alone(), PLAN).about
    found, n_solved = [], 0
    for start in range(0, len(data.attempts), 4):
        group = data.attempts[start : start + 4]
        n_solved += max(tried.reward for tried in group) == 1
        for tried in group:
            text = torch.tensor([tried.prompt + tried.ids])
            scores = -data.reference(text[:, :-1], text[:, 1:], reduction="none")[len(tried.prompt) - 1 :]
            gaps = [score - logprob for score, logprob in zip(scores.tolist(), tried.logprobs)]
            found += [math.exp(gap) - gap - 1 for gap in gaps]
    assert about["divergence"] == pytest.approx(sum(found) / len(found), rel=1e-3) and about["divergence"] > 0.01
    assert about["pass@4"] == n_solved / 3 >= about["pass@1"]


def test_prompts_and_the_ends_of_rows_have_no_part_in_it(here, letters):
    settings, model, data = made(here, "--kl=0.1", "--critic", "--updates=2")
    batch = data.batch(0, alone(), PLAN)
    for values in batch.beside.values():
        assert not values[batch.targets == IGNORE].any()
    assert set(batch.beside) == {"advantage", "weight", "reference", "old", "return"}


EVERYTHING = ["--critic", "--kl=0.2", "--updates=2", "--loss_over=answers"]


@pytest.mark.parametrize("arguments", [[], EVERYTHING])
def test_the_gradient_is_the_same_in_any_micro_batches(here, letters, arguments):
    settings, model, data = made(here, *arguments)
    batch = data.batch(0, alone(), PLAN)
    one, all_at_once = gradients(settings, model, batch, 1), gradients(settings, model, batch, len(batch.ids))
    assert any(gradient.abs().max() > 1e-4 for gradient in one.values())
    assert all(torch.allclose(one[name], all_at_once[name], atol=1e-6) for name in one)


@pytest.mark.parametrize("arguments", [[], EVERYTHING])
def test_what_is_replayed_adds_the_gradient_of_its_mean_loss(here, letters, arguments):
    settings, model, data = made(here, *arguments)
    expected = gradients(settings, model, data.batch(0, alone(), PLAN), 1)
    settings, model, data = made(here, *arguments, "--replay=HERE/shards", "--replay_weight=0.7")
    found = gradients(settings, model, data.batch(0, alone(), PLAN), 1)
    ids, targets = map(torch.from_numpy, data.replay.arrays(0))
    model.zero_grad()
    (model(ids, targets, (ids == data.tokenizer.eot).cumsum(1)) / targets.numel()).backward()
    for name, p in model.named_parameters():
        text = 0 if p.grad is None else 0.7 * p.grad
        assert torch.allclose(found[name], expected[name] + text, atol=1e-5), name


def test_all_of_a_replay_is_read_in_its_order(here, letters):
    """Each of its batches as often as the attempts beside it, however many updates there are."""
    _, _, data = made(here, "--updates=2", "--replay=HERE/shards")
    for step in range(6):
        ids = data.batch(step, alone(), PLAN).ids
        expected = torch.from_numpy(data.replay.arrays(step // 2)[0])
        assert any(torch.equal(ids[n : n + 2], expected) for n in range(len(ids) - 1)), step


def test_what_is_replayed_is_not_forgotten(here, letters, tmp_path):
    lost = {}
    for name, arguments in {"plain": [], "replayed": ["--replay=HERE/shards"]}.items():
        run(here, *arguments, "--val=HERE/shards", "--max_steps=20", f"--out_dir={tmp_path}/{name}")
        lost[name] = metrics(tmp_path / name)[-1]["val_loss"]
    assert lost["replayed"] < lost["plain"] - 0.3


def test_the_first_loss_is_that_of_ratio_one(here, letters):
    """All advantages of a group sum to 0 over its attempts: so does the loss where all count alike."""
    settings, model, data = made(here, "--loss_over=answers", "--kl=0.5")
    batch = data.batch(0, alone(), PLAN)
    loss, _ = grpo.make_loss(settings)(model, batch)
    assert abs(loss.item() / batch.count) < 1e-6


def test_nothing_is_learnt_where_all_earn_the_same(here, letters, monkeypatch):
    judged_by(monkeypatch, lambda tried: 0.25)
    settings, model, data = made(here, "--weight_decay=0")
    batch = data.batch(0, alone(), PLAN)
    assert batch.count == 0 and data.about["groups_with_signal"] == 0
    settings.out_dir = "silent"
    grpo.main(settings)
    before, after = load_model(here / "base")[0].state_dict(), load_model("silent")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("loss_over", ["tokens", "answers", "constant"])
def test_what_counts_alike(here, letters, loss_over):
    """The weights against the papers' formulas, over all attempts of the step, also those that are left out."""
    settings, model, data = made(here, f"--loss_over={loss_over}")
    batch = data.batch(0, alone(), PLAN)
    _, _, owner = data.packed()
    n_all = settings.n_problems * settings.group_size
    all_tokens = round(data.about["length"] * n_all)
    formula = {
        "tokens": lambda n: 1 / all_tokens,
        "answers": lambda n: 1 / (n_all * n),
        "constant": lambda n: 1 / (n_all * 6),
    }
    assert 0 < len(data.attempts) <= n_all
    for number, tried in enumerate(data.attempts):
        found = data.beside["weight"][owner == number] / batch.count
        assert found == pytest.approx(formula[loss_over](len(tried.ids)), rel=1e-5)


def test_groups_without_a_signal_are_refilled(here, monkeypatch):
    """Only one problem of five ever tells its attempts apart: it is found by asking on."""
    judged_by(monkeypatch, lambda tried: float(tried.problem == 3 and len(tried.text) % 2))
    found = {0: [], 2: []}  # problems whose attempts the first steps learn from
    for refills in found:
        _, _, data = made(here, "--n_problems=2", f"--refills={refills}", "--group_size=8")
        for step in range(8):
            data.batch(step, alone(), PLAN)
            found[refills].append({tried.problem for tried in data.attempts})
            rewards = [tried.reward for tried in data.attempts]
            assert len(data.attempts) in (0, 8) and (not rewards or len(set(rewards)) == 2)
    assert found[2].count({3}) > found[0].count({3}), "what is asked is the same, and more of it"


# -- the gradient


def test_the_gradient_is_that_of_the_expected_reward(here, monkeypatch):
    """Answers of one token, all of which can be enumerated: sum over tokens of p R, differentiated."""
    goal = torch.randn(320, generator=torch.Generator().manual_seed(1))
    judged_by(monkeypatch, lambda tried: goal[tried.ids[0]].item())
    settings, model, data = made(
        here, "--n_problems=1", "--group_size=4096", "--max_new_tokens=1", "--sample_batch=4096"
    )
    batch = data.batch(0, alone(), PLAN)
    found = gradients(settings, model, batch, 256)
    prompt = torch.tensor([data.attempts[0].prompt])
    model.zero_grad()
    p = model(prompt)[0, -1].softmax(-1)
    (-(p * goal[: len(p)]).sum()).backward()
    sampled = torch.cat([gradient.flatten() for gradient in found.values()])
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    alike = torch.nn.functional.cosine_similarity(sampled, exact, dim=0)
    assert alike > 0.9 and sampled.norm() / exact.norm() == pytest.approx(1, abs=0.25)


def test_a_model_learns_what_is_rewarded(here, letters, tmp_path):
    settings = settings_of(
        here, "--max_steps=30", "--lr=3e-2", "--group_size=8", f"--out_dir={tmp_path}/out", "--n_problems=5"
    )
    grpo.main(settings)
    rewards = [line["reward"] for line in metrics(tmp_path / "out") if "reward" in line]
    assert len(rewards) == 30 and sum(rewards[-5:]) / 5 > 0.8 > 0.5 > sum(rewards[:3]) / 3
    assert {"pass@1", "entropy", "groups_with_signal", "length", "truncated"} <= metrics(tmp_path / "out")[0].keys()


def test_the_rate_is_a_sixth_of_that_before_and_the_optimizer_muon(here, letters, tmp_path):
    _, before = checkpoint.newest(here / "base")
    settings = settings_of(here, "--max_steps=1", f"--out_dir={tmp_path}/out", "--lr=auto")
    grpo.main(settings)
    _, meta = checkpoint.newest(tmp_path / "out")
    assert meta["settings"]["lr"] == pytest.approx(before["settings"]["lr"] / 6)
    assert meta["settings"]["optimizer"] == "muon"


def test_a_critic_learns_what_to_expect(here, letters, tmp_path):
    settings = settings_of(
        here, "--critic", "--max_steps=25", "--lr=3e-2", "--group_size=8", f"--out_dir={tmp_path}/out", "--n_problems=5"
    )
    grpo.main(settings)
    rewards = [line["reward"] for line in metrics(tmp_path / "out") if "reward" in line]
    assert sum(rewards[-5:]) / 5 > 0.7 > sum(rewards[:3]) / 3
    saved = torch.load(tmp_path / "out/step_00000025/model.pt", weights_only=True)
    assert saved["value_head.weight"].abs().max() > 0
    load_model(tmp_path / "out")  # what writes text needs no critic
