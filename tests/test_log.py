"""What a run says on the screen."""

import pretrain
from training.log import Log, short


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
