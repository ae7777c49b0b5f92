"""What training needs of a device's memory, by counting."""

from attention import BLOCK, works_in_blocks
from loss import CHUNK
from training.optim import STACK, share_out, trained_parameters


def memory_estimate(model, settings, machine, plan):
    """Bytes that training needs per device: the sum of memory_parts()."""
    return sum(memory_parts(model, settings, machine, plan).values())


def memory_parts(model, settings, machine, plan):
    """{part: bytes per device}: weights, gradients and optimizer state in fp32, what is kept for the backward pass, and
    the largest thing that is there beside it for a moment.

    Of several processes, each has the optimizer state of the parameters that it owns; gradients lie in the buffers in
    which they are exchanged, and nowhere else.
    """
    config, b, tokens = model.config, machine.dtype.itemsize, plan.micro_batch * model.config.block_size
    hidden, others = map(set, trained_parameters(model))
    states = []  # bytes of each process
    for owned in share_out(model, machine.world_size):
        by_muon = [p.numel() for p in owned if settings.optimizer == "muon" and p in hidden]
        # AdamW keeps two running means, Muon one.
        states.append(8 * sum(p.numel() for p in owned) - 4 * sum(by_muon))
    kept = kept_for_backward(config, machine, plan)
    head = config.vocab_size * config.n_embd
    logits = min(CHUNK, tokens) * config.vocab_size
    # The loss needs the head's weights in its format and a chunk's logits, and their gradient; the backward pass begins
    # with the product of the head's gradient and the loss's, and has gradients of a block's activations.
    loss = b * head + (2 * b if plan.compiles else 2 * b + 12) * logits
    block = tokens * b * (4 * config.mlp_width + 2 * config.n_embd)
    # After that Muon has a stack three times, and its smaller product twice.
    muon = 5 * b * min(STACK, sum(p.numel() for p in hidden)) * (settings.optimizer == "muon")
    for_a_moment = max(max(loss, 4 * head, block), muon - kept)
    trained = sum(p.numel() for p in hidden | others)  # adapters alone, where there are some
    # dynamics.py holds six copies in fp32: the weights at the last logged step, before and after this one, this update
    # and the one before, and the gradient of the micro-batches so far.
    watched = {"dynamics": 24 * trained} if settings.dynamics_every else {}
    return watched | {
        "weights": 4 * model.n_params(),
        "gradients": 4 * trained,
        "optimizer state": max(states),
        "kept for the backward pass": kept,
        "for a moment": for_a_moment,
    }


def kept_for_backward(config, machine, plan):
    """Bytes that a forward pass over a micro-batch keeps for the backward pass.

    Per token a block keeps, in the format of products: what its two norms read and write, what q's and k's norms
    read, the attention's q, k, v and output, and what the MLP's activation reads and writes.
    """
    b, T, tokens = machine.dtype.itemsize, config.block_size, plan.micro_batch * config.block_size
    n, kv, hidden = config.n_embd, config.n_kv_head * config.head_dim, config.mlp_width
    on_cpu = machine.device.type == "cpu"
    # On a CPU a norm is several operations. Two of them keep fp32, unless a compiler joins them.
    norm = 8 if on_cpu and not plan.compiles else b
    kept = 2 * n * (norm + b) + (n + kv) * norm * config.qk_norm
    kept += b * 4 * n  # keys and values as many as queries: few kernels share them
    kept += (
        b * hidden * (3 if plan.compiles else 4)
    )  # the gate, its silu (made again by compiled code), up, their product
    block = tokens * kept
    mask = 0
    if plan.document_form != "bounds" and works_in_blocks(T, machine.device):
        # A part of the queries has a share for each key up to its end, in the format of products; compiled code has it
        # twice, the second time turned round.
        shares = sum((min(first + BLOCK, T) - first) * min(first + BLOCK, T) for first in range(0, T, BLOCK))
        block += plan.micro_batch * config.n_head * shares * b * (2 if plan.compiles and b < 4 else 1)
        mask = 4 * T * T * (plan.micro_batch if plan.document_form else 1)
    else:
        block += 4 * tokens * config.n_head  # the logarithm of the softmax's sum
        if plan.document_form == "ids":
            mask = tokens * T
            block += b * tokens * T  # in the format of products, made for every block
    if b < 4:
        block += b * (2 * n * (n + kv) + 3 * n * hidden)  # weights in the format of products
    # Made again, a block's activations are there for one block at a time, and its input for all of them.
    blocks = block + config.n_layer * tokens * b * n if plan.recompute else config.n_layer * block
    ends = tokens * (8 + n * (8 if on_cpu else b)) + tokens * b * n  # ids, the last norm, the gradient of its output
    return blocks + mask + ends + 4 * config.vocab_size * n  # and the gradient of the head
