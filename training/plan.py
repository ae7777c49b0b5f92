"""How a run computes on this machine: what its settings leave open, decided once, before the first step."""

from bisect import bisect_right
from dataclasses import dataclass, replace

import torch

from attention import document_form
from training.dataloader import batch_shape
from training.machine import should_compile
from training.memory import memory_estimate

SHARE_TO_FILL = 0.9  # of a GPU's memory: the rest is for CUDA's libraries, NCCL and what lies between tensors


@dataclass(frozen=True)
class Plan:
    """What decides how fast a run is and how much memory it takes, and, but for rounding, not what is learnt."""

    micro_batch: int  # rows per forward pass of one process
    document_form: str | None  # how the model is told of documents: "bounds", "ids" or None, see attention.py
    compiles: bool  # whether blocks are compiled
    recompute: bool  # whether the backward pass computes activations again instead of keeping them


def make_plan(model, settings, machine):
    """The Plan of a run, the same in all processes. Raises UserError where the settings cannot be met.

    micro_batch, if the settings leave it open: on a GPU as many rows as fit by the estimate, elsewhere few."""
    config, fitting = model.config, None
    form = document_form(settings.doc_mask, machine.device, machine.dtype, config.head_dim)
    plan = Plan(1, form, should_compile(settings, machine), settings.recompute)
    if machine.device.type == "cuda" and settings.micro_batch is None:
        own = torch.cuda.get_device_properties(machine.device).total_memory
        smallest = min(machine.sum(*(own * (rank == machine.rank) for rank in range(machine.world_size))))

        def needed(n_rows):
            """Bytes for so many rows."""
            return memory_estimate(model, settings, machine, replace(plan, micro_batch=n_rows))

        up_to = range(1, settings.batch_tokens // config.block_size + 1)
        fitting = max(1, bisect_right(up_to, SHARE_TO_FILL * smallest, key=needed))
    _, micro_batch = batch_shape(settings, config.block_size, machine.world_size, fitting)
    return replace(plan, micro_batch=micro_batch)
