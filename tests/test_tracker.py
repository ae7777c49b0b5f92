"""Numbers of a run reach TensorBoard, wandb and trackio through one seam; what fails there is one line."""

import importlib
import sys
import types

import pytest

from configurator import UserError
from training.tracker import open_tracker

RECORD = {"step": 20, "tokens": 40, "loss": 3.5, "mfu": None, "sources": {"data/x": {"val_loss": 2.0}}, "sample": "def"}


@pytest.fixture
def fake(monkeypatch):
    """fake(name): a package of this name that notes how it is called, and the notes."""

    def make(name, **functions):
        calls = []
        module = types.ModuleType(name)
        for function in ("init", "log", "finish"):
            setattr(module, function, lambda *a, function=function, **k: calls.append((function, a, k)))
        for function, replacement in functions.items():
            setattr(module, function, replacement)
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return make


@pytest.mark.parametrize("name", ["wandb", "trackio"])
@pytest.mark.parametrize("first_step, resume", [(0, "never"), (400, "allow")])
def test_a_service_gets_the_numbers_and_texts_of_each_record(fake, tmp_path, name, first_step, resume):
    calls = fake(name)
    tracker = open_tracker(name, tmp_path, {"lr": 0.1}, first_step)
    tracker.log(RECORD, 20)
    tracker.close()
    (_, _, how), (log, sent, options), (finish, _, _) = calls
    assert how.pop("id", "") == ("" if name == "trackio" else (tmp_path / "wandb_id.txt").read_text())
    assert how == {"project": "wizardlearner", "name": str(tmp_path), "config": {"lr": 0.1}, "resume": resume}
    assert (log, sent, options) == ("log", ({"loss": 3.5, "sample": "def"},), {"step": 20}) and finish == "finish"


def test_wandb_knows_a_resumed_run_by_its_id_and_one_that_begins_anew_has_another(fake, tmp_path):
    calls = fake("wandb")
    for first_step in (0, 400, 800, 0):
        open_tracker("wandb", tmp_path, {}, first_step)
    first, second, third, anew = (how["id"] for _, _, how in calls)
    assert first == second == third != anew


def test_without_a_name_nothing_is_imported_or_written(tmp_path):
    tracker = open_tracker("", tmp_path, {}, 0)
    tracker.log(RECORD, 20)
    tracker.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_one_line(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
    with pytest.raises(UserError, match=f"pip install {name}"):
        open_tracker(name, "out/x", {}, 0)


def test_a_service_that_does_not_start_is_one_line(fake):
    def no_login(**options):
        raise type("UsageError", (Exception,), {})("no API key configured: wandb login")

    fake("wandb", init=no_login)
    with pytest.raises(UserError, match="tracker=wandb does not start: UsageError: no API key configured"):
        open_tracker("wandb", "out/x", {}, 0)


def test_a_service_that_goes_away_does_not_end_the_run(fake, capsys):
    def no_network(record, step):
        raise ConnectionError("no network")

    fake("wandb", log=no_network)
    open_tracker("wandb", "out/x", {}, 0).log(RECORD, 20)
    assert "wandb did not take step 20: no network" in capsys.readouterr().err


def test_trackio_itself_keeps_a_run_and_goes_on_with_it(tmp_path, monkeypatch):
    """Offline, in a folder of its own."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trackio")
    for first_step in (0, 20):
        tracker = open_tracker("trackio", "out/x", {"lr": 0.1}, first_step)
        for step in (first_step + 10, first_step + 20):
            tracker.log({**RECORD, "step": step, "loss": 100.0 - step}, step)
        tracker.close()
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    assert [row["loss"] for row in storage.get_logs("wizardlearner", "out/x")] == [90.0, 80.0, 70.0, 60.0]
