"""The learning rate of every step, and the optimizers."""

import math
from dataclasses import dataclass

import torch

from configurator import UserError

STACK = 2**25  # numbers in the matrices that Muon works on together: more of them keep no processor busier

# The way down, as a share of lr: f(t, floor) runs from 1 at t = 0 to the floor at t = 1.
DECAYS = {
    "linear": lambda t, floor: 1 - (1 - floor) * t,
    "cosine": lambda t, floor: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t)),  # arXiv:1608.03983
    "1-sqrt": lambda t, floor: floor + (1 - floor) * (1 - math.sqrt(t)),  # Haegele et al., arXiv:2405.18392
    "exponential": lambda t, floor: floor**t,  # MiniCPM, arXiv:2404.06395
    "inverse": lambda t, floor: 1 / (t / floor + 1 - t),  # WSD-S, arXiv:2410.05192
}


@dataclass
class Schedule:
    r"""Warmup, a constant learning rate, decay: the three parts of every run.

    lr    _______________________            wsd: decay_steps is a part of the run, or 0 for a trunk
         /                       \           that anneal.py continues from (MiniCPM, arXiv:2404.06395)
        /                          ` .
    0  /                               `

    lr    .                                  cosine: the decay begins where the warmup ends, so its
         /  ` .                              length must be known before the run begins
        /        ` .
    0  /               ` .  .

       |warmup|  constant | decay_steps |
       step 0                           max_steps
    """

    lr: float
    max_steps: int
    warmup_steps: int
    decay_steps: int
    decay_shape: str
    min_lr_fraction: float  # the decay ends at this share of lr

    def __post_init__(self):
        if self.decay_shape in ("exponential", "inverse") and self.decay_steps and self.min_lr_fraction <= 0:
            raise UserError(f"decay_shape={self.decay_shape} never reaches 0: give it a floor, --min_lr_fraction=0.1")
        # A short trial without a decay may end in its warmup.
        if self.decay_steps < 0:  # a tuning decays over what its warmup leaves
            raise UserError(f"warmup_steps={self.warmup_steps} does not fit into max_steps={self.max_steps}")
        too_long = self.decay_steps and self.warmup_steps + self.decay_steps > self.max_steps
        if self.max_steps < 1 or self.warmup_steps < 0 or too_long:
            raise UserError(
                f"warmup_steps={self.warmup_steps} and decay_steps={self.decay_steps} "
                f"do not fit into max_steps={self.max_steps}"
            )


def wsd_or_cosine(settings):
    """The Schedule of a pretraining run. Raises UserError where settings of both are given."""
    shape, decay_steps = settings.decay_shape or "1-sqrt", settings.decay_steps
    if settings.schedule == "cosine":
        if decay_steps or settings.decay_shape:
            raise UserError("schedule=cosine is one decay: decay_steps and decay_shape belong to schedule=wsd")
        shape, decay_steps = "cosine", max(0, settings.max_steps - settings.warmup_steps)
    return schedule_of(settings, decay_steps, shape)


def warmup_then_decay(settings):
    """The Schedule of a stage that is one decay behind a warmup, as annealing and tuning are."""
    return schedule_of(settings, settings.max_steps - settings.warmup_steps, settings.decay_shape)


def schedule_of(settings, decay_steps, decay_shape):
    """The Schedule of a run's settings with this decay."""
    lr, max_steps, warmup_steps = settings.lr, settings.max_steps, settings.warmup_steps
    return Schedule(lr, max_steps, warmup_steps, decay_steps, decay_shape, settings.min_lr_fraction)


def lr_at(step, schedule):
    """The learning rate of a step: a function of the step alone, so that a resumed run needs no scheduler state."""
    if step < schedule.warmup_steps:
        return schedule.lr * (step + 1) / schedule.warmup_steps  # step 0 already moves
    decay_start = schedule.max_steps - schedule.decay_steps
    if step <= decay_start:
        return schedule.lr
    t = min(1.0, (step - decay_start) / schedule.decay_steps)  # 0 at the start of the decay, 1 at max_steps
    return schedule.lr * DECAYS[schedule.decay_shape](t, schedule.min_lr_fraction)


def trained_parameters(model):
    """(hidden matrices, all others): the parameters of a model, wrapped or not, that require gradients."""
    hidden, others = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            is_hidden_matrix = p.dim() == 2 and "layers." in name
            (hidden if is_hidden_matrix else others).append(p)
    return hidden, others


def share_out(model, world_size):
    """[[the parameters that a process owns], ...]: it alone has their optimizer state and updates them.

    The largest is given away first, and each to the process that has the least so far. The hidden matrices, which cost
    Muon time, come before the embeddings, which cost memory: each process gets about as much of either."""
    hidden, others = (sorted(parameters, key=lambda p: -p.numel()) for parameters in trained_parameters(model))
    owned, sizes = [[] for _ in range(world_size)], [0] * world_size
    for p in [*hidden, *others]:
        least = sizes.index(min(sizes))
        owned[least].append(p)
        sizes[least] += p.numel()
    return owned


def make_optimizers(model, settings, fast_bf16, rank=0, world_size=1):
    """The optimizers over those parameters of a model that require gradients and that this process owns.

    Hidden matrices get weight decay and, with optimizer="muon", Muon. Embeddings, head, norms and biases get AdamW
    without weight decay (OLMo 2, arXiv:2501.00656). fast_bf16: whether the device has units for bf16.
    """
    owned = set(share_out(model, world_size)[rank])
    hidden, others = trained_parameters(model)
    hidden, others = [p for p in hidden if p in owned], [p for p in others if p in owned]
    adamw = dict(lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=1e-8, fused=True)
    if settings.optimizer == "adamw":
        groups = [
            {"params": hidden, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return [torch.optim.AdamW(groups, **adamw)] if groups else []
    if settings.optimizer != "muon":
        raise UserError(f"optimizer must be muon or adamw, not {settings.optimizer!r}")
    optimizers = []
    if hidden:
        dtype = torch.bfloat16 if fast_bf16 else torch.float32
        optimizers.append(Muon(hidden, settings.lr, settings.weight_decay, settings.momentum, dtype))
    if others:
        optimizers.append(torch.optim.AdamW(others, weight_decay=0.0, **adamw))
    return optimizers


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for hidden matrices (Keller Jordan,
    https://kellerjordan.github.io/posts/muon): no direction of a matrix then learns faster than the others.

    Updates are as large as AdamW's usual ones, so that one lr serves both (arXiv:2502.16982). Matrices of equal shape
    are worked on together, as one stack: one by one they are too small to keep a processor busy. dtype: the format of
    the products, bf16 where the device has units for it; elsewhere they take over 100 times as long in it.
    """

    def __init__(self, params, lr, weight_decay, momentum, dtype):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        """One update of every parameter."""
        for group in self.param_groups:
            stacks = {}
            for p in group["params"]:
                stacks.setdefault(p.shape, []).append(p)
            for stack in stacks.values():
                at_once = max(1, STACK // stack[0].numel())
                for first in range(0, len(stack), at_once):
                    self.update(stack[first : first + at_once], **group)

    def update(self, stack, lr, weight_decay, momentum, **_):
        """Update matrices of one shape."""
        rows, columns = stack[0].shape
        updates = torch.empty((len(stack), rows, columns), dtype=self.dtype, device=stack[0].device)
        for p, update in zip(stack, updates):
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            mean = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - momentum)
            update.copy_(p.grad.lerp(mean, momentum))  # Nesterov's look ahead
        for p, update in zip(stack, orthogonalized(updates)):
            p.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * 0.2 * math.sqrt(max(rows, columns)))


def orthogonalized(x, steps=5, a=3.4445, b=-4.7750, c=2.0315):
    """Nearly the matrices U V^T of a stack x (n, rows, columns) of matrices U S V^T: all singular values become 1.

    Each step maps every singular value s to a s + b s^3 + c s^5 without computing any of them (Newton-Schulz).
    """
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    is_tall = x.shape[1] > x.shape[2]
    for _ in range(steps):
        gram = x.mT @ x if is_tall else x @ x.mT  # the smaller of the two
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, change, beta=a) if is_tall else torch.baddbmm(x, change, x, beta=a)
    return x
