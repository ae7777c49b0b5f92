"""Cores are counted as a container or taskset leaves them."""

import os

from cores import n_cores


def test_the_cores_that_this_process_may_use_are_counted(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert n_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert n_cores() == os.cpu_count()
