"""What several processes exchange in a training step: gradients, and the weights that each has updated."""

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from training.optim import share_out


def exchanging_gradients(model, part, machine, loss_fn):
    """The model as DistributedDataParallel, which sums gradients over the processes in the backward pass.

    It sends them in the order in which its first backward pass has brought them, from the second pass on. Two passes
    ahead, whose gradients are thrown away, make all passes alike: sums of three or more numbers depend on the order,
    and a resumed run would differ from the unbroken one by a rounding. part: a micro-batch to make them with.

    After them p.grad is a view into the buffers that are exchanged, and stays one as long as it is zeroed instead of
    being dropped: backward() under no_sync() else makes a second copy of all gradients.
    """
    torch._dynamo.config.optimize_ddp = False  # it would cut compiled code into pieces, one for each buffer
    model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    for _ in range(2):
        model.zero_grad()
        loss, _ = loss_fn(model, part)
        loss.backward()
    model.zero_grad(set_to_none=False)
    return model


@torch.no_grad()
def exchange_weights(model, machine):
    """Give every process the weights that the others' optimizers have updated (ZeRO stage 1, arXiv:1910.02054)."""
    if machine.world_size == 1:
        return
    for owner, parameters in enumerate(share_out(model, machine.world_size)):
        if parameters:  # what DistributedDataParallel itself begins with: in few messages of up to 64 MB
            group = torch.distributed.group.WORLD
            torch.distributed._broadcast_coalesced(group, [p.detach() for p in parameters], 2**26, owner)
