"""What optional packages do, tried on the packages themselves: .ci/run installs them all."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, TINY_MODEL, stage

from cleaning import prose
from corpus.documents import read


def test_tensorboard_shows_what_metrics_jsonl_holds(workdir, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments = [*TINY_MODEL, "--data=data/shards", "--batch_tokens=256", "--warmup_steps=1", "--compile=false"]
    arguments += ["--log_every=1", "--max_steps=3", f"--out_dir={tmp_path}/run", "--tracker=tensorboard"]
    stage("pretrain.py", *arguments, cwd=workdir)
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    events = accumulators.EventAccumulator(str(tmp_path / "run")).Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    assert shown == pytest.approx(losses) and len(shown) == 3


def test_wandb_keeps_a_run_where_there_is_no_network(tmp_path):
    """In a process of its own, since wandb changes the tensorboard and datasets that it finds imported."""
    pytest.importorskip("wandb")
    code = """if True:
        from training.tracker import open_tracker
        tracker = open_tracker("wandb", "out/x", {"lr": 0.1}, first_step=0)
        for step in (10, 20):
            tracker.log({"loss": 1 / (64 * step)}, step)
        tracker.close()"""
    offline = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=offline, cwd=ROOT, check=True, timeout=100)
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(str(1 / (64 * step)).encode() in run.read_bytes() for step in (10, 20))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The hub's library without the network, its cache below the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))


def test_the_hubs_library_streams_a_data_set(tmp_path, offline):
    """load_dataset itself, on a folder of the form that data sets on the hub have."""
    pytest.importorskip("datasets")
    (tmp_path / "set/python").mkdir(parents=True)
    records = [{"content": f"x = {i}\n", "max_stars_count": i} for i in range(3)]
    (tmp_path / "set/python/train.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = list(read(f"hf:{tmp_path}/set:python"))
    assert [document.text for document in found] == ["x = 0\n", "x = 1\n", "x = 2\n"]
    assert [document.meta for document in found] == [{"stars": 0}, {"stars": 1}, {"stars": 2}]


def test_jieba_counts_chinese_words():
    pytest.importorskip("jieba")
    prose.word_cutter.cache_clear()
    assert list(prose.word_cutter().cut("我们学习语言模型")) == ["我们", "学习", "语言", "模型"]
