"""The stages as a person runs them: the whole pipeline, processes, kills, and every kind of bad input."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, TINY_MODEL, assert_one_line_error, door_error, load_model, stage
from test_processes import in_processes
from test_resume import train

import pretrain as pretrain_module
import sample
from training.machine import why_not_compile

RUN = [
    *TINY_MODEL,
    "--data=data/shards",
    "--batch_tokens=256",
    "--micro_batch=4",
    "--warmup_steps=2",
    "--compile=false",
    "--log_every=1",
]


def pretrain(cwd, out, *arguments, **options):
    return stage("pretrain.py", *RUN, f"--out_dir={out}", *arguments, cwd=cwd, **options)


def start_pretrain(cwd, arguments):
    """pretrain.py in the background, to be stopped in the middle."""
    command = [sys.executable, ROOT / "pretrain.py", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def metrics(folder, *keys):
    """The metrics.jsonl of a run, of each line only the keys that do not depend on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            key: line[key]
            for key in keys or ("step", "tokens", "loss", "lr", "grad_norm", "val_loss", "val_bpb")
            if key in line
        }
        for line in lines
    ]


def weights(folder):
    return load_model(folder)[0].state_dict()


@pytest.fixture(scope="module")
def unbroken(workdir):
    """Twelve steps without a break: what every other way of getting there is compared with."""
    result = pretrain(workdir, "unbroken", "--max_steps=12", "--eval_every=4", "--save_every=3", "--decay_steps=4")
    return workdir / "unbroken", result.stdout


def test_each_stage_picks_up_where_the_one_before_left_off(tmp_path, corpus):
    """All defaults but for the sizes, on the real default corpus."""
    stage("tokenizer_train.py", "--max_bytes=300_000", "--vocab_size=512", cwd=tmp_path)
    stage("prepare_data.py", cwd=tmp_path)
    stage(
        "pretrain.py",
        *TINY_MODEL,
        "--max_steps=3",
        "--warmup_steps=1",
        "--batch_tokens=256",
        "--eval_tokens=2000",
        "--compile=false",
        cwd=tmp_path,
    )
    result = stage("sample.py", "--max_new_tokens=8", "--temperature=0", "--prompt=def", cwd=tmp_path)
    assert result.stdout.startswith("def") and "8 tokens in" in result.stderr
    assert "def " in stage("sample.py", "--max_new_tokens=4", "--num_samples=2", "--prompt=def ", cwd=tmp_path).stdout
    assert stage("sample.py", "--max_new_tokens=4", "--prompt=Hello", "--chat", cwd=tmp_path).returncode == 0
    assert (
        stage("sample.py", "--max_new_tokens=4", "--prompt=def f(x):", "--suffix=return x", cwd=tmp_path)
        .stdout.rstrip()
        .endswith("return x")
    )
    assert sorted(os.listdir(tmp_path / "data")) == ["stdlib", "tokenizer.json", "tokenizer.report.json"]


def test_a_run_leaves_its_settings_metrics_and_plan(unbroken):
    folder, printed = unbroken
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert all(
        {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "mfu"} <= line.keys() for line in steps
    )
    assert [line["step"] for line in lines if "val_bpb" in line and "val_loss" in line] == [4, 8, 12]
    speeds = [line["tokens_per_second"] for line in steps]
    assert speeds[0] is None and min(speeds[1:]) > 0, "the first step compiles: its time says nothing"
    assert steps[-1]["tokens"] == 12 * 256 and steps[-1]["loss"] < steps[0]["loss"]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["settings"]["batch_tokens"] == 256 and "pretrain.py" in settings["made_by"]["command"]
    for word in ("parameters", "tokens", "FLOPs", "memory", "time left", "val bpb"):
        assert word in printed
    assert sorted(f.name for f in folder.glob("step_*")) == ["step_00000009", "step_00000012"]


def test_the_same_seed_gives_the_same_run(workdir, unbroken):
    arguments = ["--max_steps=12", "--eval_every=4", "--save_every=0", "--decay_steps=4"]
    pretrain(workdir, "again", *arguments, forks=False)  # with another hash seed
    assert metrics(workdir / "again") == metrics(unbroken[0])
    pretrain(workdir, "other", "--max_steps=2", "--seed=5")
    assert metrics(workdir / "other")[0]["loss"] != metrics(unbroken[0])[0]["loss"]


def test_kill_9_and_resume_equal_the_unbroken_run_bit_for_bit(workdir, unbroken):
    arguments = [*RUN, "--out_dir=killed", "--max_steps=12", "--eval_every=4", "--save_every=3", "--decay_steps=4"]
    process = start_pretrain(workdir, arguments)
    while not list((workdir / "killed").glob("step_0000000[369]")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert "resuming" in stage("pretrain.py", *arguments, "--resume", cwd=workdir).stdout
    assert metrics(workdir / "killed") == metrics(unbroken[0])
    killed, whole = weights(workdir / "killed"), weights(unbroken[0])
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def test_sigterm_stops_cleanly_with_a_checkpoint(workdir, unbroken):
    arguments = [*RUN, "--out_dir=stopped", "--max_steps=12", "--eval_every=4", "--save_every=0", "--decay_steps=4"]
    process = start_pretrain(workdir, arguments)
    for line in process.stdout:
        if line.startswith(" 2/12 "):
            process.send_signal(signal.SIGTERM)
            break
    process.stdout.read()
    assert "stopped: after step" in process.stderr.read() and process.wait() == 128 + signal.SIGTERM
    stage("pretrain.py", *arguments, "--resume", cwd=workdir)
    assert metrics(workdir / "stopped") == metrics(unbroken[0])


def test_two_processes_equal_one(workdir, unbroken):
    pretrain(workdir, "two", "--max_steps=12", "--eval_every=4", "--save_every=0", "--decay_steps=4", torchrun=2)
    for one, two in zip(metrics(unbroken[0]), metrics(workdir / "two"), strict=True):
        assert one.keys() == two.keys()
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-4), (one["step"], key)


def test_compiled_equals_eager_and_repeats_bit_for_bit_on_two_threads(workdir, unbroken, monkeypatch):
    """The second run finds the compiled code of the first."""
    if why_not_compile(torch.device("cpu")):
        pytest.skip("no C++ compiler or Python headers here")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its core to another test
    for out in ("compiled", "compiled-again"):
        pretrain(workdir, out, "--max_steps=12", "--compile=true", "--decay_steps=0", forks=False)
    for eager, compiled in zip(metrics(unbroken[0])[:2], metrics(workdir / "compiled")):
        assert compiled["loss"] == pytest.approx(eager["loss"], abs=1e-3)
    first, second = weights(workdir / "compiled"), weights(workdir / "compiled-again")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_mixture_reports_each_source(workdir, corpus):
    stage("prepare_data.py", f"--sources={corpus}", "--out_dir=data/other", "--val_fraction=0.5", cwd=workdir)
    pretrain(workdir, "mixed", "--data=data/shards:3,data/other:1", "--max_steps=2")
    last = [json.loads(line) for line in (workdir / "mixed/metrics.jsonl").read_text().splitlines()][-1]
    a, b = last["sources"]["data/shards"], last["sources"]["data/other"]
    assert last["val_bpb"] == pytest.approx(0.75 * a["val_bpb"] + 0.25 * b["val_bpb"])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--max_stepz=3"], "did you mean 'max_steps'"),
        (["--lr=fast"], "needs a number"),
        (["--data=nowhere"], "no shards in nowhere"),
        (["--batch_tokens=100"], "multiple of block_size"),
        (["--n_head=3"], "n_head=3"),
        (["--schedule=x"], "wsd | cosine"),
        (["--optimizer=sgd"], "muon | adamw"),
        (["--resume"], "no checkpoint"),
        (["--data=data/shards:x"], "must be a number above 0"),
        (["--vocab_size=64"], "smaller than the tokenizer"),
        (["--dtype=int8"], "dtype"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(workdir, monkeypatch, arguments, words):
    monkeypatch.chdir(workdir)
    assert words in door_error(pretrain_module, *RUN, "--out_dir=bad", "--max_steps=2", "--warmup_steps=0", *arguments)
    assert not (workdir / "bad").exists()


def test_bad_shards_and_checkpoints_are_one_line(workdir, unbroken, tmp_path, monkeypatch):
    monkeypatch.chdir(workdir)
    finished = [*RUN, "--out_dir=unbroken"]
    assert "--resume" in door_error(pretrain_module, *finished)
    assert "already reached step 12" in door_error(pretrain_module, *finished, "--max_steps=11", "--resume")
    assert "give n_layer=2, not n_layer=3" in door_error(
        pretrain_module, *finished, "--max_steps=20", "--resume", "--n_layer=3"
    )
    assert "no checkpoint" in door_error(sample, f"--checkpoint={tmp_path}")
    assert "temperature" in door_error(sample, "--checkpoint=unbroken", "--temperature=-1")
    damaged = shutil.copytree(workdir / "data/shards", tmp_path / "shards")
    data = bytearray((damaged / "train_000000.bin").read_bytes())
    data[-1] ^= 1
    (damaged / "train_000000.bin").write_bytes(data)
    assert "sha256" in door_error(
        pretrain_module, *RUN, f"--out_dir={tmp_path / 'x'}", f"--data={damaged}", "--max_steps=2"
    )
    run = shutil.copytree(workdir / "unbroken", tmp_path / "run")
    for folder in run.glob("step_*"):
        (folder / "model.pt").write_bytes(b"x")
    assert "no whole checkpoint" in door_error(sample, f"--checkpoint={run}")


def test_processes_that_cannot_share_the_batch(workdir, tmp_path, monkeypatch):
    monkeypatch.chdir(workdir)
    arguments = [*RUN, f"--out_dir={tmp_path}/x", "--batch_tokens=32", "--max_steps=2"]
    for error in in_processes(2, train, pretrain_module, *arguments):
        assert "2 processes: try --batch_tokens=64" in str(error)


def test_no_space_left_during_a_checkpoint(workdir, tmp_path):
    """A limit on file size stands for a full disk: one line, no half-written checkpoint, and the metrics stay."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = pretrain(
        workdir, tmp_path / "x", "--max_steps=2", "--eval_tokens=500", "--verify=false", check=False, preexec_fn=limit
    )
    assert_one_line_error(result, "File too large")
    assert not list((tmp_path / "x").glob("step_*")) and len(metrics(tmp_path / "x")) == 3


def test_plot_draws_the_runs(workdir, unbroken, tmp_path):
    pytest.importorskip("matplotlib")
    stage("experiments.plot", "--runs=unbroken", f"--out={tmp_path / 'loss.png'}", cwd=workdir)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "options, tolerance", [(["--dtype=fp32", "--compile=false"], 1e-3), (["--compile=true"], 0.05)]
)
def test_gpu_equals_cpu(workdir, unbroken, tmp_path, options, tolerance):
    arguments = [a for a in RUN if a != "--compile=false"]
    stage("pretrain.py", *arguments, f"--out_dir={tmp_path}", "--max_steps=5", "--device=cuda", *options, cwd=workdir)
    for cpu, gpu in zip(metrics(unbroken[0]), metrics(tmp_path)):
        if "loss" in cpu and "loss" in gpu:
            assert gpu["loss"] == pytest.approx(cpu["loss"], abs=tolerance)
