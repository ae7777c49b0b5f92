"""Many processes: who owns which optimizer state, uneven shares, one checkpoint for any number, restarts, stops."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bad_data import bad_data
from conftest import ROOT, TINY_MODEL, load_model

import configurator
import pretrain
import shards
import training.log
from configurator import Stopped, UserError
from model import ModelConfig, Transformer
from pretrain import TrainSettings, next_token_loss, train_step
from training import checkpoint
from training import machine as machines
from training.dataloader import Mixture, batch_shape
from training.optim import make_optimizers, share_out
from training.plan import Plan
from training.processes import exchanging_gradients

FORK = multiprocessing.get_context("fork")  # a process takes a tenth of a second: PyTorch is there
EOT = 312
RUN = [*TINY_MODEL, "--data=data/shards", "--batch_tokens=256", "--micro_batch=2", "--warmup_steps=2", "--device=cpu"]
RUN += ["--compile=false", "--log_every=1", "--max_steps=8", "--eval_every=4", "--save_every=2", "--keep=9"]
RUN += ["--eval_tokens=512", "--dtype=fp32"]


def started(n, work, *arguments):
    """(processes, their ends of pipes): n processes that call work(*arguments) as torchrun's would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes, ends = [], []
    for rank in range(n):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
        end, other = FORK.Pipe(duplex=False)
        where = {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(FORK.Process(target=answer, args=(other, where, work, arguments), daemon=True))
        processes[-1].start()
        other.close()
        ends.append(end)
    return processes, ends


def answer(end, where, work, arguments):
    """In a process: send what work returns, or the error that it raises."""
    os.environ.update(where)
    torch.set_num_threads(1)
    training.log.peak_flops = lambda *_: (1e12, "not measured")
    try:
        end.send(work(*arguments))
    except (UserError, OSError, Stopped) as error:
        end.send(error)


def in_processes(n, work, *arguments):
    """[what work(*arguments) returns or raises in each of n processes]"""
    processes, ends = started(n, work, *arguments)
    results = [end.recv() if end.poll(60) else "hangs" for end in ends]
    for process in processes:
        process.kill()
    return results


def run(*arguments):
    """Pretrain in this process."""
    pretrain.main(configurator.load(pretrain.Settings, [*RUN, *arguments], "pretrain"))


@pytest.fixture
def here(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    return workdir


@pytest.fixture(scope="module")
def by_two(workdir):
    """What two processes leave that nothing disturbs."""
    with contextlib.chdir(workdir):
        assert in_processes(2, run, "--out_dir=by-two") == [None, None]
    return workdir / "by-two"


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("tokens_per_second", "mfu")} for line in lines]


def losses(folder):
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def tensors(folder):
    """{name: bytes} of the weights and of all optimizer state in a checkpoint, whoever saved it."""
    found = {name: tensor.numpy().tobytes() for name, tensor in load_model(folder)[0].state_dict().items()}
    for path in folder.glob("optimizer-*.pt"):
        for kind, states in torch.load(path, weights_only=True).items():
            for name, state in states.items():
                found |= {f"{kind} {name} {key}": value.numpy().tobytes() for key, value in state.items()}
    return found


# -- who owns what


def new_model():
    torch.manual_seed(0)
    config = dict(vocab_size=320, block_size=32, n_layer=3, n_head=2, n_kv_head=1, n_embd=32)
    return Transformer(ModelConfig(**config))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 100])
def test_every_parameter_has_one_owner_and_equal_matrices_are_spread(world_size):
    model = new_model()
    owned = share_out(model, world_size)
    everything = [p for own in owned for p in own]
    assert len(everything) == len(set(everything)) and set(everything) == set(model.parameters())
    sizes = [sum(p.numel() for p in own) for own in owned]
    assert max(sizes) - min(sizes) <= max(p.numel() for p in everything)
    for rank in range(world_size):
        optimizers = make_optimizers(model, TrainSettings(), False, rank, world_size)
        mine = [p for optimizer in optimizers for p in checkpoint.parameters_of(optimizer)]
        assert set(mine) == set(owned[rank])
    if world_size == 3:  # 3 blocks have 9 matrices of the MLP's shapes
        assert [sum(p.shape in ((128, 32), (32, 128)) for p in own) for own in owned] == [3, 3, 3]


def steps_of(optimizer, is_shared_out, grads=None):
    """Three steps on this process's share of batches of 4 rows: (losses, weights, elements of optimizer state)."""
    machine = machines.start("cpu", "fp32") if not torch.distributed.is_initialized() else steps_of.machine
    steps_of.machine = machine
    settings = TrainSettings(optimizer=optimizer, batch_tokens=128, micro_batch=1, lr=0.01)
    batch_size, micro_batch = batch_shape(settings, 32, machine.world_size)
    data = Mixture([("data/shards", 1.0)], 32, batch_size, 1, EOT)
    model, plan = new_model(), Plan(micro_batch, "ids", compiles=False, recompute=False)
    place = (machine.rank, machine.world_size) if is_shared_out else (0, 1)
    optimizers = make_optimizers(model, settings, False, *place)

    def loss_fn(model_, batch):
        """The usual one, which notes where the gradients are."""
        if grads is not None:
            grads.append({name: p.grad.data_ptr() for name, p in model.named_parameters()})
        return next_token_loss(model_, batch)

    run_model = model
    if machine.world_size > 1:
        part = next(data.batch(0, machine, plan).split(micro_batch))
        run_model = exchanging_gradients(model, part, machine, next_token_loss)
    found = []
    for step in range(3):
        batch = data.batch(step, machine, plan)
        found.append(train_step(settings, machine, run_model, optimizers, batch, micro_batch, loss_fn))
    n_state = sum(t.numel() for o in optimizers for state in o.state.values() for t in state.values() if t.numel() > 1)
    if grads is not None:
        buffers = {p.grad.untyped_storage().data_ptr(): p.grad.untyped_storage().nbytes() for p in model.parameters()}
        return grads, len(buffers), sum(buffers.values())
    return found, {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}, n_state


def all_ways():
    """In each process: with state shared out and not, both optimizers; then where gradients lie."""
    ways = [steps_of(optimizer, shared) for optimizer in ("muon", "adamw") for shared in (True, False)]
    return ways, steps_of("muon", True, grads=[])


@pytest.mark.parametrize("n", [2, 3])
def test_shared_out_equals_whole_and_uneven_shares_equal_one_process(here, n):
    """4 rows in micro-batches of one: 3 processes have 1, 1 and 2 of them."""
    results = in_processes(n, all_ways)
    for optimizer, number in (("muon", 0), ("adamw", 2)):
        shared, whole = ([ways[i] for ways, _ in results] for i in (number, number + 1))
        assert all(way[:2] == whole[0][:2] for way in [*shared, *whole]), "bit for bit, on every process"
        assert sum(way[2] for way in shared) == whole[0][2], "no state is there twice"
        assert max(way[2] for way in shared) < 0.7 * whole[0][2]
        alone = steps_of(optimizer, False)[0]
        for one, other in zip(alone, whole[0][0]):
            assert one == pytest.approx(other, rel=2e-4)
    n_bytes = 4 * new_model().n_params()
    for _, (grads, n_buffers, buffer_bytes) in results:
        assert all(places == grads[0] for places in grads), "from the first micro-batch on they stay in their place"
        assert n_buffers <= 2 and buffer_bytes == n_bytes, "which is in the buffers that are exchanged: no second copy"


# -- checkpoints


def test_what_two_have_saved_one_and_three_go_on_from(here, by_two, tmp_path):
    assert {path.name for path in (by_two / "step_00000004").glob("optimizer*")} == {"optimizer-0.pt", "optimizer-1.pt"}
    saved = tensors(by_two / "step_00000004")
    assert sum(name.startswith(("muon", "adamw")) for name in saved) > 20
    for n in (1, 3):
        folder = tmp_path / f"by-{n}"
        shutil.copytree(by_two, folder)
        for step in (6, 8):
            shutil.rmtree(folder / f"step_{step:08}")
        assert in_processes(n, saved_again, folder) == [None] * n
        assert tensors(folder / "step_00000099") == saved
        shutil.rmtree(folder / "step_00000099")
        assert in_processes(n, run, f"--out_dir={folder}", "--resume=auto") == [None] * n
        assert losses(folder) == pytest.approx(losses(by_two), rel=1e-4) and losses(folder)[:4] == losses(by_two)[:4]
        assert len(list((folder / "step_00000008").glob("optimizer*"))) == n


def saved_again(folder):
    """In each process: read the checkpoint of step 4 and write what was read."""
    machine = machines.start("cpu", "fp32")
    chosen, meta = checkpoint.chosen(folder, machine)
    assert meta["step"] == 4
    model = Transformer(ModelConfig(**meta["model"]))
    checkpoint.load_weights(model, chosen, "cpu")
    optimizers = make_optimizers(model, TrainSettings(), False, machine.rank, machine.world_size)
    checkpoint.load_optimizers(chosen, model, optimizers, "cpu")
    tokenizer = checkpoint.Tokenizer.load(chosen / "tokenizer.json")
    checkpoint.save(folder, 99, model, optimizers, tokenizer, {}, machine)


def test_a_disk_that_is_full_for_one_process_ends_all_with_its_words(here, by_two, tmp_path):
    """And so does another run that has the folder, and a folder without a whole checkpoint."""

    def full_for_one():
        real = checkpoint.write_tensors

        def write(path, value):
            if path.name == "optimizer-1.pt":
                raise OSError(28, "No space left on device", str(path))
            real(path, value)

        checkpoint.write_tensors = write
        run(f"--out_dir={tmp_path}/full")

    errors = in_processes(2, full_for_one)
    assert len({str(error) for error in errors}) == 1 and "No space left on device" in str(errors[0]), errors
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["metrics.jsonl", "settings.json"]
    with shards.exclusive(by_two):
        errors = in_processes(2, run, f"--out_dir={by_two}", "--resume=auto")
    assert ["another run is writing to" in str(error) for error in errors] == [True, True]
    (tmp_path / "full/step_00000002").mkdir()
    errors = in_processes(2, run, f"--out_dir={tmp_path}/full", "--resume=auto")
    assert ["no whole checkpoint in" in str(error) for error in errors] == [True, True]


def test_a_checkpoint_of_an_earlier_version_is_told_in_one_line(here, by_two, tmp_path):
    shutil.copytree(by_two / "step_00000008", tmp_path / "old/step_00000008")
    model = Transformer(load_model(tmp_path / "old")[0].config)
    for path in (tmp_path / "old/step_00000008").glob("optimizer-*.pt"):
        path.unlink()
    with pytest.raises(UserError, match="no optimizer state for 24 parameters"):
        optimizers = make_optimizers(model, TrainSettings(), False)
        checkpoint.load_optimizers(tmp_path / "old/step_00000008", model, optimizers, "cpu")


# -- restarts


def test_one_command_line_restarted_20_times_at_random_moments_ends_as_if_nothing_had_happened(here, tmp_path):
    """Two processes, of which one or both are killed or stopped."""
    rng, command = random.Random(0), ["--max_steps=24", "--resume=auto"]
    for _ in range(20):
        processes, ends = started(2, run, *command, f"--out_dir={tmp_path}/run")
        ends[0].poll(rng.uniform(0.1, 0.4))
        number = rng.choice((signal.SIGKILL, signal.SIGTERM))
        for process in rng.choice((processes[:1], processes[1:], processes)):
            os.kill(process.pid, number)
        ends[0].poll(1 if number == signal.SIGTERM else 0.1)
        for process in processes:
            process.kill()
            process.join()
    for folder in (tmp_path / "run", tmp_path / "unbroken"):
        assert in_processes(2, run, *command, f"--out_dir={folder}") == [None, None]
    assert tensors(tmp_path / "run/step_00000024") == tensors(tmp_path / "unbroken/step_00000024")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "unbroken")


def test_a_process_that_is_killed_comes_back_with_torchrun(here, by_two, tmp_path):
    """torchrun notices, ends the other one, and starts both again. Without the variable of the environment they might
    look for each other where the dead ones were (https://github.com/pytorch/pytorch/issues/135712)."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    command += [str(ROOT / "pretrain.py"), *RUN, f"--out_dir={out}", "--resume=auto", "--max_steps=60", "--keep=99"]
    with open(tmp_path / "output", "w") as output:
        where = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "TMPDIR": str(tmp_path)}
        launcher = subprocess.Popen(command, cwd=here, env=where, stdout=output, stderr=output)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
        end = time.monotonic() + 60
        while not (out / "step_00000004").exists():
            assert time.monotonic() < end and launcher.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.02)
        for pid in children.read_text().split():
            if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
        assert launcher.wait(90) == 0, (tmp_path / "output").read_text()
    assert "resuming from" in (tmp_path / "output").read_text()
    assert metrics(out)[:8] == metrics(by_two)[:8] and len(losses(out)) == 60
    assert tensors(out / "step_00000008") == tensors(by_two / "step_00000008")


# -- what happens within a step


def stopped_in_the_second_of_four_parts():
    """In each process: a signal reaches one of them; (how many parts are computed, whether weights are as before)."""
    machine = machines.start("cpu", "fp32")
    settings, model, calls = TrainSettings(), new_model(), []
    machine.stop = machines.StopRequested()
    machine.stop.signal = 0

    def loss_fn(model, part):
        calls.append(part)
        if len(calls) == 2 and machine.rank == 1:
            machine.stop.signal = signal.SIGTERM
        return next_token_loss(model, part)

    data = Mixture([("data/shards", 1.0)], 32, 8, 1, EOT)
    batch = data.batch(0, machine, Plan(1, "ids", compiles=False, recompute=False))
    run_model = exchanging_gradients(model, next(batch.split(1)), machine, next_token_loss)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizers = make_optimizers(model, settings, False, machine.rank, machine.world_size)
    with pytest.raises(machines.SignalCame):
        train_step(settings, machine, run_model, optimizers, batch, 1, loss_fn)
    is_as_before = all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return len(calls), is_as_before


def test_a_signal_gives_the_step_up_in_all_processes_alike(here):
    assert in_processes(2, stopped_in_the_second_of_four_parts) == [(2, True), (2, True)]


def poisoned(steps, out, *arguments, jump=None):
    """Run while the data of these steps are bad."""
    with bad_data(steps, jump):
        run(f"--out_dir={out}", *arguments)


def test_steps_without_a_finite_loss_are_skipped_then_passed_over_then_the_run_stops(here, tmp_path):
    """Of 8 steps the 5th to 7th are bad: back to step 4, on with the data of the 8th; the same in two processes."""
    assert in_processes(2, poisoned, {3}, tmp_path / "one") == [None, None]
    assert [line["event"] for line in metrics(tmp_path / "one") if "event" in line] == [
        "skipped: loss nan and gradient norm nan at step 3"
    ]
    assert len(losses(tmp_path / "one")) == 7 and checkpoint.newest(tmp_path / "one")[1]["data_ahead"] == 0

    assert in_processes(2, poisoned, {4, 5, 6}, tmp_path / "three") == [None, None]
    in_processes(2, jumped, tmp_path / "expected")
    three, expected = (tensors(tmp_path / name / "step_00000008") for name in ("three", "expected"))
    meta = checkpoint.newest(tmp_path / "three")[1]
    assert three == expected and meta["data_ahead"] == 3 and list(meta["rows_read"].values()) == [11 * 8]
    shutil.rmtree(tmp_path / "three/step_00000008")
    assert in_processes(2, poisoned, {4, 5, 6}, tmp_path / "three", "--resume") == [None, None]
    assert tensors(tmp_path / "three/step_00000008") == expected, "a resumed run is still ahead"

    saving = ["--save_every=1", "--keep=2"]  # a run that has gone on since may go back again
    assert in_processes(2, poisoned, {1, 2, 3, 6, 7, 8}, tmp_path / "twice", *saving) == [None, None]
    assert checkpoint.newest(tmp_path / "twice")[1]["data_ahead"] == 6 and len(losses(tmp_path / "twice")) == 8

    errors = in_processes(2, poisoned, {4, 5, 6, 8, 9, 10}, tmp_path / "six")
    assert ["at step 7: go on from" in str(error) and "step_00000004" in str(error) for error in errors] == [True, True]
    errors = in_processes(2, poisoned, {0, 1, 2}, tmp_path / "none")
    assert ["at step 2: begin again with a lower rate" in str(error) for error in errors] == [True, True]


def jumped(out):
    """In each process: what should come of it."""
    poisoned(set(), out, jump=(4, 3))
