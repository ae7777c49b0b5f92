"""Data whose loss is not a number, for tests of what a run does then."""

import contextlib
import math

import pytest

import pretrain
from training.dataloader import Mixture


@contextlib.contextmanager
def bad_data(steps, jump=None, then=lambda step: None):
    """While the data of these steps have, in the last process alone, a loss that is not a number. jump (step, n): from
    this step on, read the data of n steps later. then(step) is called behind a step with a bad loss."""
    reading = []
    real_batch, real_step = Mixture.batch, pretrain.train_step

    def batch(self, step, *rest):
        if jump and step >= jump[0]:
            step += jump[1]
        reading[:] = [step]
        return real_batch(self, step, *rest)

    def step_on(settings, machine, *rest):
        *rest, loss_fn = rest

        def loss(model, part):
            value, count = loss_fn(model, part)
            is_bad = reading[0] in steps and machine.rank == machine.world_size - 1
            return value * (math.nan if is_bad else 1.0), count

        found = real_step(settings, machine, *rest, loss)
        if reading[0] in steps:
            then(reading[0])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixture, "batch", batch)
        patch.setattr(pretrain, "train_step", step_on)
        yield
