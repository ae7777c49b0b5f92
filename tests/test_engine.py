"""The engine without a server: what becomes of the texts in a batch whose step fails."""

from types import SimpleNamespace

import pytest

from evaluation import engine
from evaluation.engine import Engine, Job


@pytest.fixture
def idle(monkeypatch):
    """An Engine with two places whose thread has ended, so that a test takes its steps."""
    monkeypatch.setattr(engine, "KVCache", lambda *_: None)
    idle = Engine(SimpleNamespace(config=SimpleNamespace(block_size=8)), None, 2, 2)
    idle.stop()
    return idle


def test_a_text_that_ends_in_a_step_is_whole_although_the_step_fails_for_others(idle, monkeypatch):
    jobs = [Job(), Job()]
    for job in jobs:
        job.add(SimpleNamespace(reason=""))

    def begin(model, tokenizer, cache, rows, new):
        rows[1].reason = "stop"
        rows[1].on_end()

    def go_on(*_):
        raise MemoryError("of the device")

    monkeypatch.setattr(engine, "begin", begin)
    monkeypatch.setattr(engine, "go_on", go_on)
    idle.rows = [(job.rows[0], job) for job in jobs]
    idle.step(new=[1])
    assert [job.rows[0].reason for job in jobs] == ["error", "stop"] and idle.rows == [None, None]
    assert str(jobs[0].news.get()) == "of the device"
    assert jobs[1].news.get() == (0, None) and jobs[1].news.empty()
