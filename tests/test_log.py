"""What a run says on the screen."""

from types import SimpleNamespace

from conftest import alone

import pretrain
from model import ModelConfig, Transformer
from training.log import Log, print_plan, short
from training.plan import Plan


def test_a_line_fits_the_terminal(capsys):
    log = Log.__new__(Log)
    log.settings = pretrain.TrainSettings(max_steps=200_000)
    log.eval_seconds = log.save_seconds = 0.0
    log.print_step(199_980, 10.234, 6e-3, 12.5, 1_234_567.0, 0.456)
    log.print_step(100, 10.234, 6e-3, 12.5, 1_234.0, 0.456)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert [short(n) for n in (3.2, 812, 43_210, 999_501, 1_234_567)] == ["3", "812", "43.2k", "1M", "1.23M"]


def test_the_time_left_counts_evaluations_and_checkpoints():
    log = Log.__new__(Log)
    log.settings = pretrain.TrainSettings(max_steps=100, batch_tokens=1000, eval_every=20, save_every=0)
    log.eval_seconds, log.save_seconds = 30.0, 5.0
    assert log.time_left(40, speed=1000.0) == "2:35", "60 steps of a second, 3 evaluations, 1 checkpoint"


def test_the_plan_names_the_kernel_the_memory_and_the_micro_batch(capsys):
    model, data = Transformer(ModelConfig(vocab_size=64)), SimpleNamespace(sources=[], shards=[], epochs=lambda _: [])
    settings = pretrain.TrainSettings(recompute=True)
    plan = Plan(8, "ids", compiles=False, recompute=True)
    print_plan(settings, alone(), model, data, plan, 1e12, "measured")
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert told["attention"] == "two products and a softmax" and told["speed"] == "1 TFLOP/s (measured)"
    assert told["memory"].endswith("GiB per device at micro-batch 8, recomputing in the backward pass")
