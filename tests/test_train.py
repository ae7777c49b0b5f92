"""The loop: what the loss is, what a checkpoint holds, what damage does, and the guards on a batch's shape."""

import errno
import json
import math
import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from configurator import UserError
from loss import IGNORE
from model import ModelConfig, Transformer
from pretrain import TrainSettings, next_token_loss, train_step
from training import checkpoint, machine
from training.dataloader import batch_shape, make_batch
from training.machine import Machine
from training.optim import make_optimizers
from training.plan import Plan
from training.validation import ValidationSet, evaluate

MACHINE = Machine(0, 1, torch.device("cpu"), torch.float32)
CONFIG = dict(vocab_size=320, block_size=32, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


def new_model():
    torch.manual_seed(0)
    return Transformer(ModelConfig(**CONFIG))


def plan(n_rows):
    return Plan(n_rows, "ids", compiles=False, recompute=False)


def random_rows(rows=8):
    tokens = np.random.default_rng(0).integers(0, 312, (rows, 33))
    targets = tokens[:, 1:].copy()
    targets[0, :20] = IGNORE  # rows that count differently: a mean of means would show
    return tokens[:, :-1], targets


def random_batch(rows=8):
    return make_batch(*random_rows(rows), 312, "ids", "cpu")


def one_step(model, settings, optimizers, batch, micro_batch=8, **options):
    return train_step(settings, MACHINE, model, optimizers, batch, micro_batch, **options)


def test_one_batch_can_be_learnt_by_heart():
    model, s = new_model(), TrainSettings(lr=0.02, weight_decay=0.0)
    optimizers = make_optimizers(model, s, False)
    losses = [one_step(model, s, optimizers, random_batch(4), 4)[0] for _ in range(150)]
    assert abs(losses[0] / math.log(320) - 1) < 0.02 and losses[-1] < 0.05


def test_a_batch_in_which_nothing_counts_changes_nothing():
    """Muon divides by a norm: along its momentum alone it would go as far as with a gradient."""
    model, s = new_model(), TrainSettings()
    optimizers = make_optimizers(model, s, False)
    one_step(model, s, optimizers, random_batch())
    before = [p.clone() for p in model.parameters()]
    ids, targets = random_rows()
    assert one_step(model, s, optimizers, make_batch(ids, np.full_like(targets, IGNORE), 312, "ids", "cpu")) == (0, 0)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_loss_and_gradient_do_not_depend_on_the_micro_batch(micro_batch):
    results = []
    for size in (8, micro_batch):
        model, s = new_model(), TrainSettings(optimizer="adamw", grad_clip=0.0)
        loss, grad_norm = one_step(model, s, make_optimizers(model, s, False), random_batch(), size)
        results.append((loss, grad_norm))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    ids, targets = map(torch.from_numpy, random_rows())
    each = torch.nn.functional.cross_entropy(new_model()(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert results[0][0] == pytest.approx(each.item(), rel=1e-5), "the mean over all counted tokens"


def test_clipping_scales_the_gradient_down():
    """AdamW ignores a gradient's scale, so look at Muon's momentum: (1 - momentum) x the clipped gradient."""
    model, s = new_model(), TrainSettings(grad_clip=0.01, lr=0.0)
    muon, adamw = make_optimizers(model, s, False)
    _, norm = one_step(model, s, [muon, adamw], random_batch(), 8)
    squares = sum((muon.state[p]["momentum_buffer"] / 0.05).square().sum() for p in muon.param_groups[0]["params"])
    squares += sum((adamw.state[p]["exp_avg"] / 0.1).square().sum() for p in adamw.param_groups[0]["params"])
    assert norm > 0.1 and math.sqrt(squares) == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_changes_no_weight():
    model, s = new_model(), TrainSettings()
    model.norm.weight.data[0] = math.nan
    before = model.embed_tokens.weight.clone()
    loss, _ = one_step(model, s, make_optimizers(model, s, False), random_batch(), 8)
    assert math.isnan(loss) and torch.equal(model.embed_tokens.weight, before)


class ThreeBytes:
    """A tokenizer whose every token is three bytes of text, apart from its special ones."""

    eot = 312

    def byte_lengths(self):
        return np.array([3] * 312 + [0] * 8)


def test_bits_per_byte():
    """A model that knows nothing needs log2(vocabulary) bits a token; special tokens count neither in bits nor bytes."""
    model = new_model()
    for p in model.parameters():
        p.data.zero_()
    ids, targets = random_rows(5)
    targets[1, :5] = 312
    got = evaluate(model, ValidationSet("", 1.0, ids, targets), plan(2), MACHINE, ThreeBytes())
    assert got["val_loss"] == pytest.approx(math.log(320)) and got["val_bpb"] == pytest.approx(math.log2(320) / 3)


def test_evaluation_does_not_depend_on_its_batches():
    model, part = new_model(), ValidationSet("", 1.0, *random_rows(7))
    one, all_ = (evaluate(model, part, plan(n), MACHINE, ThreeBytes()) for n in (1, 7))
    assert one == pytest.approx(all_)


@pytest.mark.parametrize(
    "settings, world_size, expected",
    [
        (dict(batch_tokens=8192, micro_batch=16), 1, (32, 16)),
        (dict(batch_tokens=8192, micro_batch=5), 2, (32, 4)),
        (dict(batch_tokens=6 * 256 * 7, micro_batch=6), 6, (42, 4)),
        (dict(batch_tokens=8192, micro_batch=4), 6, (32, 3)),
        (dict(batch_tokens=256, micro_batch=64), 1, (1, 1)),
        (dict(batch_tokens=2**16), 2, (256, 16)),
        (dict(batch_tokens=2048), 1, (8, 8)),
    ],
)
def test_micro_batches_are_derived(settings, world_size, expected):
    assert batch_shape(TrainSettings(**settings), 256, world_size) == expected


@pytest.mark.parametrize(
    "settings, world_size, words",
    [
        (dict(batch_tokens=1000), 1, "multiple of block_size"),
        (dict(batch_tokens=0), 1, "multiple"),
        (dict(batch_tokens=1024), 6, "4 sequences of 256, fewer than the 6 processes: try --batch_tokens=1536"),
    ],
)
def test_batches_that_make_no_whole_rows_or_too_few_are_refused(settings, world_size, words):
    with pytest.raises(UserError, match=words):
        batch_shape(TrainSettings(**settings), 256, world_size)


# -- checkpoints


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A folder with checkpoints of steps 1 to 3, of which two are kept."""
    model, s = new_model(), TrainSettings()
    optimizers = make_optimizers(model, s, False)
    for step in (1, 2, 3):
        one_step(model, s, optimizers, random_batch(), 8)
        checkpoint.save(tmp_path / "run", step, model, optimizers, tokenizer, {"tokens": step}, MACHINE)
    checkpoint.delete_older(tmp_path / "run", checkpoint.saved(tmp_path / "run")[1:])
    return tmp_path / "run", model, optimizers


def test_what_a_signal_left_is_given_up_before_what_an_unbroken_run_leaves(tmp_path):
    """Every 2nd step is saved, a signal came after steps 3 and 5."""
    folder = {step: tmp_path / f"step_{step:08}" for step in range(1, 9)}
    kept = [folder[2]]
    for step, left in ((3, [2, 3]), (4, [2, 4]), (5, [4, 5]), (6, [4, 6]), (8, [6, 8])):
        kept = checkpoint.to_keep(kept, folder[step], save_every=2, keep=2)
        assert kept == [folder[step] for step in left]
    assert checkpoint.to_keep([folder[1], folder[3]], folder[4], 2, keep=2) == [folder[3], folder[4]]
    assert checkpoint.to_keep([folder[1], folder[3]], folder[4], 2, keep=9) == [folder[1], folder[3], folder[4]]
    assert checkpoint.to_keep([folder[2]], folder[4], 2, keep=1) == [folder[4]]
    assert checkpoint.to_keep([folder[1], folder[2]], folder[4], save_every=0, keep=2) == [folder[2], folder[4]]


def test_a_full_disk_under_the_copy_of_the_log_is_told_with_its_name(saved, tokenizer, monkeypatch):
    run, model, optimizers = saved
    (run / "metrics.jsonl").write_text("{}\n")

    def full(handle):
        if "/metrics.jsonl" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="metrics.jsonl"):
        checkpoint.save(run, 4, model, optimizers, tokenizer, {}, MACHINE)
    assert not list(run.glob("*.tmp"))


def test_a_checkpoint_gives_back_the_model_the_optimizer_and_the_tokenizer(saved, tokenizer):
    run, model, optimizers = saved
    assert sorted(f.name for f in run.iterdir()) == ["step_00000002", "step_00000003"]
    again, its_tokenizer, meta = checkpoint.load_model(run, MACHINE)
    assert (
        meta["step"] == 3
        and meta["tokens"] == 3
        and its_tokenizer.fingerprint == tokenizer.fingerprint == meta["tokenizer"]
    )
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    trained = Transformer(again.config)
    fresh = make_optimizers(trained, TrainSettings(), False)
    checkpoint.load_optimizers(run / "step_00000003", trained, fresh, "cpu")
    for p, q in zip(model.parameters(), trained.parameters()):
        [a], [b] = ([o.state[x] for o in group if x in o.state] for x, group in ((p, optimizers), (q, fresh)))
        assert a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "model.pt").write_bytes((f / "model.pt").read_bytes()[:-1]),
        lambda f: (f / "optimizer-0.pt").unlink(),
        lambda f: (f / "meta.json").write_text("{"),
        lambda f: (f / "sha256.json").write_text("{}"),
        lambda f: (f / "sha256.json").write_text("[1]"),
        lambda f: (f / "sha256.json").unlink(),
        lambda f: (f / "tokenizer.json").write_text("{}"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(saved, damage, capsys):
    run = saved[0]
    damage(run / "step_00000003")
    assert checkpoint.newest(run)[1]["step"] == 2
    assert "step_00000003" in capsys.readouterr().err
    shutil.rmtree(run / "step_00000002")
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.newest(run)


def test_a_half_written_checkpoint_does_not_exist(saved, tokenizer, monkeypatch):
    run, model, optimizers = saved
    monkeypatch.setattr(
        checkpoint, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError):
        checkpoint.save(run, 4, model, optimizers, tokenizer, {}, MACHINE)
    assert sorted(f.name for f in run.iterdir()) == ["step_00000002", "step_00000003"]


def test_loading_runs_no_code(saved):
    """A pickle that would call a function is refused even when its sha256 is right."""
    folder = saved[0] / "step_00000003"

    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "was_run"), "w"))

    torch.save({"x": Evil()}, folder / "model.pt")
    digests = json.loads((folder / "sha256.json").read_text())
    digests["model.pt"] = checkpoint.sha256_file(folder / "model.pt")
    (folder / "sha256.json").write_text(json.dumps(digests))
    with pytest.raises(UserError, match="does not hold this model"):
        checkpoint.load_model(folder, MACHINE)
    assert not (folder / "was_run").exists()


def test_a_later_stage_brings_its_own_loss():
    """Twice the cross-entropy, counted per row instead of per token: loss and gradient follow."""

    def doubled(model, batch):
        loss, _ = next_token_loss(model, batch)
        return 2 * loss, batch.count

    results = []
    for loss_fn in (next_token_loss, doubled):
        model, s = new_model(), TrainSettings(optimizer="adamw", grad_clip=0.0)
        results.append(one_step(model, s, make_optimizers(model, s, False), random_batch(), 4, loss_fn=loss_fn))
    assert results[1] == pytest.approx((2 * results[0][0], 2 * results[0][1]), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("trained", ["norm", "layers.0.mlp"])
def test_only_parameters_that_require_gradients_are_optimized(optimizer, trained):
    model, s = new_model(), TrainSettings(optimizer=optimizer, lr=0.1)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(trained))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = make_optimizers(model, s, False)
    owned = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in model.parameters() if p.requires_grad}
    one_step(model, s, optimizers, random_batch())
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (not name.startswith(trained)), name


def test_training_in_bf16_says_nothing():
    """No warning of PyTorch's reaches the screen, and what is computed is near fp32's."""
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        machine_of = Machine(0, 1, torch.device("cpu"), dtype)
        model, s = new_model(), TrainSettings()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.set_warn_always(True)
            losses.append(train_step(s, machine_of, model, make_optimizers(model, s, False), random_batch(), 8)[0])
            torch.set_warn_always(False)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


# -- the machine


@pytest.mark.parametrize(
    "there, name, expected",
    [
        ({"cuda": 2, "mps": False}, None, "cuda:1"),
        ({"cuda": 2, "mps": False}, "cuda", "cuda:1"),
        ({"cuda": 2, "mps": False}, "cuda:0", "cuda:0"),
        ({"cuda": 0, "mps": True}, None, "mps"),
        ({"cuda": 0, "mps": False}, None, "cpu"),
        ({"cuda": 2, "mps": True}, "cpu", "cpu"),
    ],
)
def test_cuda_comes_before_mps_and_mps_before_the_cpu(monkeypatch, there, name, expected):
    """Process 1 of a machine takes its second GPU."""
    pretend(monkeypatch, there)
    assert str(machine.pick_device(name, local_rank=1)) == expected


@pytest.mark.parametrize(
    "there, name, words",
    [
        ({"cuda": 0, "mps": False}, "cuda", "no GPU"),
        ({"cuda": 0, "mps": False}, "cuda:1", "no GPU"),
        ({"cuda": 1, "mps": False}, "cuda", "process 1 needs GPU 1, but this machine has 1"),
        ({"cuda": 0, "mps": False}, "mps", "no Apple GPU"),
        ({"cuda": 0, "mps": False}, "gpu", "must be cuda"),
        ({"cuda": 0, "mps": False}, "meta", "must be cuda"),
    ],
)
def test_a_device_that_is_not_there_is_named(monkeypatch, there, name, words):
    pretend(monkeypatch, there)
    with pytest.raises(UserError, match=words):
        machine.pick_device(name, local_rank=1)


def pretend(monkeypatch, there):
    """Make PyTorch see so many GPUs of NVIDIA's, and one of Apple's or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"] > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])


def test_a_numbered_gpu_is_prepared_as_any(monkeypatch):
    """--device=cuda:1 gets TF32 and becomes the current device, as --device=cuda does."""
    pretend(monkeypatch, {"cuda": 2, "mps": False})
    called = []
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", called.append)
    machine.start("cuda:1")
    assert called == [torch.device("cuda:1"), "high"]


def test_without_a_compiler_training_says_that_it_is_slower(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "no C++ compiler" in machine.why_not_compile(torch.device("cpu"))
    with pytest.raises(UserError, match="compiler"):
        machine.should_compile(TrainSettings(compile=True), MACHINE)
    assert machine.should_compile(TrainSettings(), MACHINE) is False


def test_peak_flops_is_measured_where_the_table_has_nothing():
    flops, origin = machine.peak_flops(torch.device("cpu"), torch.float32)
    assert flops > 1e9 and "measured" in origin
