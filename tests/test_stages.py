"""anneal.py and sft.py: what is carried over from the checkpoint, what is counted in the loss, and the whole demo."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL, alone, assert_one_line_error, door_error, load_model, stage
from test_processes import in_processes
from test_resume import train

import anneal
import convert
import sft
from configurator import UserError
from loss import IGNORE
from model import ModelConfig, Transformer
from shards import Shards
from training import checkpoint, resume
from training.dataloader import Mixture, Packed

QUIET = ["--compile=false", "--log_every=1", "--save_every=0", "--eval_every=0", "--micro_batch=4"]
TRUNK = [*TINY_MODEL, *QUIET, "--data=data/shards", "--batch_tokens=256", "--warmup_steps=2", "--lr=0.01"]


def lines(folder, key):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record[key] for record in records if key in record]


def equal_weights(a, b):
    a, b = (load_model(folder)[0].state_dict() for folder in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trunk(workdir):
    stage("pretrain.py", *TRUNK, "--out_dir=trunk", "--max_steps=6", cwd=workdir)
    return workdir / "trunk"


@pytest.fixture(scope="module")
def chats(workdir):
    """Shards of 80 short conversations of one or two turns."""
    records = []
    for i in range(80):
        turn = [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} {i}"}]
        records.append({"messages": turn * (1 + i % 2)})
    (workdir / "chats.jsonl").write_text("\n".join(map(json.dumps, records)))
    stage(
        "prepare_data.py", "--sources=chats.jsonl", "--chats", "--out_dir=data/chats", "--val_fraction=0.2", cwd=workdir
    )
    return workdir / "data/chats"


@pytest.mark.parametrize("shape, floor", [("linear", 0.0), ("inverse", 0.1)])
def test_annealing_equals_a_run_that_was_never_split(workdir, trunk, shape, floor):
    """Weights, optimizer state, data order and schedule all go on: bit for bit the same as pretrain.py with a decay."""
    decay = [f"--decay_shape={shape}", f"--min_lr_fraction={floor}"]
    stage("pretrain.py", *TRUNK, *decay, f"--out_dir=whole-{shape}", "--max_steps=10", "--decay_steps=4", cwd=workdir)
    arguments = [
        "--init=trunk",
        "--data=data/shards",
        *QUIET,
        *decay,
        "--decay_tokens=1024",
        f"--out_dir=annealed-{shape}",
    ]
    stage("anneal.py", *arguments, cwd=workdir)
    whole, annealed = workdir / f"whole-{shape}", workdir / f"annealed-{shape}"
    for key in ("loss", "lr", "grad_norm"):
        assert lines(whole, key)[6:] == lines(annealed, key)
    assert equal_weights(whole, annealed)


def test_annealing_mixes_documents_and_chats_and_resumes(workdir, trunk, chats):
    arguments = [
        "--init=trunk",
        "--data=data/shards:1,data/chats:1",
        "--val=data/shards,data/chats",
        *QUIET,
        "--best_fit",
    ]
    stage("anneal.py", *arguments, "--max_steps=6", "--out_dir=annealed-mixed", cwd=workdir)
    stage(
        "anneal.py", *arguments, "--max_steps=6", "--save_every=3", "--keep=9", "--out_dir=annealed-broken", cwd=workdir
    )
    newest = checkpoint.saved(workdir / "annealed-broken")[-1]
    (newest / "model.pt").write_bytes(b"damaged")
    stage("anneal.py", *arguments, "--max_steps=6", "--out_dir=annealed-broken", "--resume", cwd=workdir)
    assert equal_weights(workdir / "annealed-mixed", workdir / "annealed-broken")
    last = json.loads((workdir / "annealed-mixed/metrics.jsonl").read_text().splitlines()[-1])
    assert set(last["sources"]) == {"data/shards", "data/chats"}


def test_the_context_can_be_lengthened_on_the_way(workdir, trunk):
    arguments = ["--init=trunk", "--data=data/shards", *QUIET, "--max_steps=2", "--out_dir=annealed-long"]
    stage("anneal.py", *arguments, "--block_size=64", "--rope_base=40000", cwd=workdir)
    model, _, meta = load_model(workdir / "annealed-long")
    assert (model.config.block_size, model.config.rope_base) == (64, 40000.0) and meta["settings"][
        "optimizer"
    ] == "muon"


def test_tuning_learns_the_answers_and_says_so(workdir, trunk, chats):
    arguments = ["--init=trunk", "--data=data/chats", *QUIET, "--epochs=30", "--lr=0.02", "--micro_batch=8"]
    stage("sft.py", *arguments, "--out_dir=tuned", cwd=workdir)
    stage("sft.py", *arguments, "--neftune=5", "--out_dir=tuned-noisy", cwd=workdir)
    losses, noisy = lines(workdir / "tuned", "loss"), lines(workdir / "tuned-noisy", "loss")
    assert losses[-1] < 0.3 * losses[0] and noisy != losses
    model, tokenizer, meta = load_model(workdir / "tuned")
    assert meta["chat"] is True
    evaluated = stage(
        "sample.py",
        "--checkpoint=tuned",
        "--chat",
        "--prompt=say 7",
        "--temperature=0",
        "--max_new_tokens=9",
        cwd=workdir,
    )
    assert evaluated.stdout.strip() and "tokens in" in evaluated.stderr


def test_prompts_that_do_not_fit_fail_and_what_was_written_is_not_written_again(workdir, trunk):
    text = '    """' + "word " * 100 + '"""\n'
    lines = [
        {"task_id": str(i), "prompt": f"def f(x):\n{text if i > 1 else ''}", "entry_point": "f", "canonical_solution": "",
         "test": "def check(candidate):\n    assert candidate(1) == 'no'"}
        for i in range(4)
    ]  # fmt: skip
    (workdir / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = [
        "--problems=problems.jsonl",
        "--checkpoint=trunk",
        "--batch_size=2",
        "--max_new_tokens=4",
        "--out_dir=scored",
    ]
    stage("eval_humaneval.py", *arguments, cwd=workdir)
    samples = (workdir / "scored/samples.jsonl").read_text()
    stage("eval_humaneval.py", *arguments, cwd=workdir)
    assert (workdir / "scored/samples.jsonl").read_text() == samples and samples.count("\n") == 4
    assert json.loads((workdir / "scored/summary.json").read_text())["n_samples"] == 4


def test_two_processes_tune_like_one(workdir, trunk, chats, monkeypatch):
    monkeypatch.chdir(workdir)
    arguments = ["--init=trunk", "--data=data/chats", *QUIET, "--epochs=1"]
    stage("sft.py", *arguments, "--out_dir=sft-one", cwd=workdir)
    assert in_processes(2, train, sft, *arguments, "--out_dir=sft-two") == [None, None]
    assert lines(workdir / "sft-one", "loss") == pytest.approx(lines(workdir / "sft-two", "loss"), abs=1e-4)


def test_packed_conversations_have_the_loss_that_each_has_alone(workdir, trunk, chats):
    model, tokenizer, _ = load_model(trunk)
    model.eval()
    shards = Shards(chats, "train")
    packed = Packed(shards, 128, (1, 2), tokenizer.eot)
    assert packed.n_left_out == 0
    ids, targets = (torch.from_numpy(np.stack(a)) for a in zip(*(packed.row(n) for n in range(packed.n_rows))))
    together = model(ids, targets, (ids == tokenizer.eot).cumsum(1)).item()
    alone = counted = 0
    for start, length in zip(*shards.documents(tokenizer.eot)):
        tokens = torch.from_numpy(shards.tokens(int(start), int(length)))[None]
        mask = torch.from_numpy(shards.mask(int(start), int(length)))[None]
        alone += model(tokens[:, :-1], tokens[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORE)).item()
        counted += int(mask[:, 1:].sum())
    assert together == pytest.approx(alone, rel=1e-5) and int((targets != IGNORE).sum()) == counted


def test_a_conversation_too_long_for_a_row_keeps_its_whole_turns(workdir):
    long = " ".join(map(str, range(40)))
    records = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": long}, {"role": "assistant", "content": "c"}]},
        {"messages": [{"role": "user", "content": long}, {"role": "assistant", "content": "d"}]},
    ]  # fmt: skip
    (workdir / "long.jsonl").write_text("\n".join(map(json.dumps, records)))
    stage("prepare_data.py", "--sources=long.jsonl", "--chats", "--out_dir=data/long", "--val_fraction=0", cwd=workdir)
    shards = Shards(workdir / "data/long", "train")
    eot = int(shards.tokens(0, 1)[0])
    packed = Packed(shards, 32, (0,), eot)
    ids, targets = packed.row(0)
    from tokenizer import Tokenizer

    tokenizer = Tokenizer.load(workdir / "data/long/tokenizer.json")
    assert (packed.n_rows, packed.n_left_out) == (1, 1)
    assert tokenizer.decode(targets[targets != IGNORE]) == "b<|im_end|>"
    with pytest.raises(UserError, match="not one answer of its chats ends within block_size=4"):
        Mixture([(workdir / "data/long", None)], 4, 1, 0, eot)


def test_noise_is_for_training_alone_and_as_large_as_it_says(trunk):
    model, tokenizer, _ = load_model(trunk)
    sft.add_noise(model, 5.0, tokenizer.eot)
    ids = torch.tensor([[tokenizer.eot] + [5] * 15 + [tokenizer.eot] + [5] * 3])
    clean = model.embed_tokens.weight[ids]
    model.eval()
    assert torch.equal(model.embed_tokens(ids), clean)
    model.train()
    torch.manual_seed(0)
    noise = (model.embed_tokens(ids) - clean).abs()
    for part, length in ((noise[:, :16], 16), (noise[:, 16:], 4)):
        bound = 5 / (length * 32) ** 0.5
        assert 0.9 * bound < part.max() <= bound


def test_shares_follow_the_rows_where_none_are_given(workdir, chats):
    folders = [(str(workdir / "data/shards"), None), (str(chats), None)]
    data = Mixture(folders, 32, 8, 1, 312)
    steps = -(-data.n_rows.sum() // 8)
    assert np.allclose(data.epochs(steps), 1, atol=0.05) and data.epochs(steps).min() >= 1 - 1e-9


def test_a_later_stage_trains_on_as_the_one_before_unless_told_otherwise(workdir, tmp_path):
    """Batch, mask, optimizer with its numbers, and seed are the trunk's; another optimizer begins with fresh state."""
    how = ["--doc_mask=false", "--beta2=0.9", "--momentum=0.8", "--grad_clip=0.5", "--weight_decay=0.2", "--seed=7"]
    stage("pretrain.py", *TRUNK, *how, f"--out_dir={tmp_path}/trunk", "--max_steps=2", "--optimizer=adamw", cwd=workdir)
    arguments = [f"--init={tmp_path}/trunk", "--data=data/shards", *QUIET, "--max_steps=1", "--micro_batch=2"]
    stage("anneal.py", *arguments, f"--out_dir={tmp_path}/same", cwd=workdir)
    stage("anneal.py", *arguments, f"--out_dir={tmp_path}/other", "--optimizer=muon", "--seed=8", cwd=workdir)
    same, other = (load_model(tmp_path / name)[2]["settings"] for name in ("same", "other"))
    inherited = {key: same[key] for key in ("doc_mask", "beta2", "momentum", "grad_clip", "weight_decay", "seed")}
    expected = dict(doc_mask=False, beta2=0.9, momentum=0.8, grad_clip=0.5, weight_decay=0.2, seed=7)
    assert inherited == expected and same["optimizer"] == "adamw" and same["batch_tokens"] == 256
    assert (other["optimizer"], other["seed"], other["beta2"]) == ("muon", 8, 0.9)


def test_of_a_model_from_elsewhere_the_rate_and_the_batch_are_to_be_given(monkeypatch, capsys):
    """A model of another size has another rate than the demo's, and auto could not know it."""
    meta = {**convert.unknown_training(), "model": vars(ModelConfig(vocab_size=64))}
    monkeypatch.setattr(resume, "newest_run", lambda *_: ("out/imported", meta))
    resume.starting_point(sft.Settings(lr=1e-5), alone())
    assert "give --batch_tokens: out/imported was not trained here" in capsys.readouterr().out
    resume.starting_point(sft.Settings(), alone())
    assert "give --lr and --batch_tokens: " in capsys.readouterr().out
    resume.starting_point(sft.Settings(lr=1e-5, batch_tokens=65536), alone())
    assert not capsys.readouterr().out


def test_conversations_are_kept_apart_whatever_the_trunk_did(workdir, trunk, chats, tmp_path):
    how = [*QUIET, "--max_steps=1", "--micro_batch=2"]
    whole, tuned = f"{tmp_path}/whole", f"{tmp_path}/tuned"
    stage(
        "anneal.py", "--init=trunk", "--data=data/shards", *how, "--doc_mask=false", f"--out_dir={whole}", cwd=workdir
    )
    stage("sft.py", f"--init={whole}", "--data=data/chats", *how, f"--out_dir={tuned}", cwd=workdir)
    said = json.loads((tmp_path / "tuned/settings.json").read_text())
    assert said["settings"]["doc_mask"] is True and said["plan"]["document_form"] == "ids"


def test_noise_is_for_training_alone_and_shrinks_with_the_length_of_a_conversation():
    """Uniform in +-alpha / sqrt(length x n_embd): of 2 x 8 and of 8 x 8 numbers the largest are near the bound."""
    model = Transformer(ModelConfig(vocab_size=64, block_size=10, n_layer=1, n_head=1, n_kv_head=1, n_embd=8))
    alpha, eot = 5.0, 63
    ids = torch.tensor([[eot, 1, eot, 2, 3, 4, 5, 6, 7, 8]])
    plain = model.embed_tokens(ids)
    sft.add_noise(model, alpha, eot)
    assert torch.equal(model.eval().embed_tokens(ids), plain)
    torch.manual_seed(0)
    noise = (model.train().embed_tokens(ids) - plain).detach().abs()[0]
    for part, length in ((noise[:2], 2), (noise[2:], 8)):
        bound = alpha / (length * 8) ** 0.5
        assert 0.8 * bound < part.max() <= bound * 1.0001


@pytest.mark.parametrize(
    "door, arguments, words",
    [
        (anneal, ["--init=nowhere"], "no checkpoint"),
        (anneal, ["--data=data/nothing"], "no shards"),
        (anneal, ["--decay_shape=exponential"], "min_lr_fraction"),
        (anneal, ["--schedule=cosine"], "unknown setting 'schedule'"),
        (anneal, ["--decay_steps=5"], "unknown setting 'decay_steps'"),
        (anneal, ["--block_size=0"], "block_size"),
        (sft, ["--decay_steps=5"], "unknown setting 'decay_steps'"),
        (sft, ["--best_fit"], "unknown setting 'best_fit'"),
        (sft, ["--data="], "needs at least one shard folder"),
        (sft, ["--warmup_steps=5"], "does not fit into max_steps=1"),
        (anneal, ["--val=data/nothing"], "no shards"),
        (sft, ["--data=data/shards"], "not chats"),
        (sft, ["--init=trunk", "--out_dir=trunk"], "already holds"),
    ],
)
def test_mistakes_end_in_one_line(workdir, trunk, chats, monkeypatch, door, arguments, words):
    monkeypatch.chdir(workdir)
    data = "data/chats" if door is sft else "data/shards"
    assert words in door_error(
        door, "--init=trunk", f"--data={data}", "--out_dir=mistake", *QUIET, "--max_steps=1", *arguments
    )


def test_another_tokenizers_checkpoint_is_refused(workdir, trunk, tmp_path, corpus):
    stage("tokenizer_train.py", f"--sources={corpus}", "--vocab_size=310", cwd=tmp_path)
    stage("prepare_data.py", f"--sources={corpus}", "--out_dir=data/other", cwd=tmp_path)
    arguments = [f"--init={trunk}", "--data=data/other", *QUIET]
    assert_one_line_error(stage("anneal.py", *arguments, cwd=tmp_path, check=False), "tokenizer")
