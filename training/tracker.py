"""Where a run's numbers go beside metrics.jsonl: TensorBoard, Weights & Biases, trackio, or nowhere.

    tracker = open_tracker("trackio", "out/pretrain", {"lr": 0.006}, first_step=0)
    tracker.log({"step": 20, "loss": 3.1}, step=20)
    tracker.close()

Any other service needs a class with log() and close() and a line in open_tracker().
"""

import importlib
import sys
import uuid
from pathlib import Path
from typing import Literal

from configurator import UserError, write_text

PROJECT = "wizardlearner"  # under which wandb and trackio list the runs
TrackerName = Literal["", "tensorboard", "wandb", "trackio"]


def open_tracker(name, out_dir, config, first_step):
    """The tracker of a run. name: a TrackerName; out_dir: the run's folder, which is its name there; config: a dict of
    settings to show; first_step: where a resumed run goes on. Raises UserError where the package is missing or does
    not start, wandb without a login for one."""
    if not name:
        return NoTracker()
    try:
        if name == "tensorboard":
            return TensorBoard(out_dir, first_step)
        return Service(importlib.import_module(name), out_dir, config, first_step)
    except ImportError:
        raise UserError(f"tracker={name} needs the package {name}: pip install {name}") from None
    except Exception as error:  # each package has errors of its own
        raise UserError(f"tracker={name} does not start: {type(error).__name__}: {error}") from None


class NoTracker:
    """Nowhere."""

    def log(self, record, step):
        """Forget a record."""

    def close(self):
        """Nothing is open."""


class TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir=out`."""

    def __init__(self, out_dir, first_step):
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard

        # Steps from first_step on are of a part that is trained again.
        self.writer = SummaryWriter(str(out_dir), purge_step=first_step)

    def log(self, record, step):
        """Write a record of metrics.jsonl: its numbers as curves, its texts as texts."""
        for key, value in record.items():
            if isinstance(value, float):
                self.writer.add_scalar(key, value, step)
            elif isinstance(value, str):
                self.writer.add_text(key, value, step)

    def close(self):
        """Write what is not on disk yet."""
        self.writer.close()


class Service:
    """wandb or trackio, which are called alike."""

    def __init__(self, module, out_dir, config, first_step):
        self.module = module
        how = {"resume": "allow" if first_step else "never"}
        if module.__name__ == "wandb":  # it knows a run again by an id, trackio by its name
            note = Path(out_dir, "wandb_id.txt")
            if not first_step or not note.exists():
                write_text(note, uuid.uuid4().hex)
            how["id"] = note.read_text(encoding="utf-8")
        module.init(project=PROJECT, name=str(out_dir), config=config, **how)

    def log(self, record, step):
        """Send a record of metrics.jsonl: its numbers and texts."""
        sent = {key: value for key, value in record.items() if isinstance(value, float | str)}
        try:
            self.module.log(sent, step=step)
        except Exception as error:  # a service that is away must not end a run of days
            print(f"warning: {self.module.__name__} did not take step {step}: {error}", file=sys.stderr)

    def close(self):
        """Send what is left."""
        self.module.finish()
