"""Learning-rate schedules as pure functions of the step, and the optimizers."""

import math

import torch

from configurator import UserError

# The way down, as shares of lr: f(t, floor) for t from 0 to 1 through the decay, from 1 to the floor.
DECAYS = {
    "linear": lambda t, floor: 1 - (1 - floor) * t,
    "cosine": lambda t, floor: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t)),  # arXiv:1608.03983
    "1-sqrt": lambda t, floor: floor + (1 - floor) * (1 - math.sqrt(t)),  # Haegele et al., arXiv:2405.18392
    "exponential": lambda t, floor: floor**t,  # MiniCPM, arXiv:2404.06395
    "inverse": lambda t, floor: 1 / (t / floor + 1 - t),  # WSD-S, arXiv:2410.05192
}


def lr_at(step, s):
    """Learning rate of a step, in units of s.lr times what the schedule says.

    Warmup: (step + 1) / warmup_steps, so that step 0 already moves. Then either
    wsd (MiniCPM, arXiv:2404.06395): constant, and over the last decay_steps down s.decay_shape; decay_steps=0 is
        the trunk that anneal.py continues from;
    cosine: half a cosine from the end of the warmup to max_steps.
    Both end on the floor s.lr * s.min_lr_fraction, which step max_steps would have.
    """
    if step < s.warmup_steps:
        return s.lr * (step + 1) / s.warmup_steps
    start = s.warmup_steps if s.schedule == "cosine" else s.max_steps - s.decay_steps
    t = min(1.0, (step - start) / max(1, s.max_steps - start))
    shape = "cosine" if s.schedule == "cosine" else s.decay_shape
    return s.lr * (1.0 if t <= 0 else DECAYS[shape](t, s.min_lr_fraction))


def check_schedule(s):
    """Raises UserError for a schedule that lr_at cannot follow."""
    if s.schedule not in ("wsd", "cosine"):
        raise UserError(f"schedule must be wsd or cosine, not {s.schedule!r}")
    if s.decay_shape not in DECAYS:
        raise UserError(f"decay_shape must be one of {', '.join(DECAYS)}, not {s.decay_shape!r}")
    if s.decay_shape in ("exponential", "inverse") and s.decay_steps and s.min_lr_fraction <= 0:
        raise UserError(f"decay_shape={s.decay_shape} never reaches 0: give it a floor, --min_lr_fraction=0.1")
    too_long = s.decay_steps and s.warmup_steps + s.decay_steps > s.max_steps  # a short trial may end in its warmup
    if s.max_steps < 1 or min(s.warmup_steps, s.decay_steps) < 0 or too_long:
        raise UserError(
            f"warmup_steps={s.warmup_steps} and decay_steps={s.decay_steps} do not fit into max_steps={s.max_steps}"
        )


def make_optimizers(model, s, fast_bf16):
    """A list of optimizers over model's parameters. Weight decay is on the hidden matrices only: not on embeddings,
    head, norms or biases (OLMo 2, arXiv:2501.00656). With optimizer="muon" those matrices are Muon's."""
    hidden = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("layers.")]
    others = [p for name, p in model.named_parameters() if not (p.dim() == 2 and name.startswith("layers."))]
    adamw = dict(lr=s.lr, betas=(s.beta1, s.beta2), eps=1e-8, fused=True)
    if s.optimizer == "adamw":
        return [
            torch.optim.AdamW(
                [{"params": hidden, "weight_decay": s.weight_decay}, {"params": others, "weight_decay": 0.0}], **adamw
            )
        ]
    if s.optimizer != "muon":
        raise UserError(f"optimizer must be muon or adamw, not {s.optimizer!r}")
    # match_rms_adamw scales every update to AdamW's usual size, so that one lr serves both (arXiv:2502.16982)
    muon = torch.optim.Muon if fast_bf16 else Float32Muon
    return [
        muon(hidden, lr=s.lr, weight_decay=s.weight_decay, momentum=s.momentum, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=0.0, **adamw),
    ]


class Float32Muon(torch.optim.Muon):
    """PyTorch's Muon with its Newton-Schulz iteration in float32, for processors without bf16 units: there a bf16
    matrix product takes over 100 times as long. Hyper-parameters and state are the parent's."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalized(
                    p.grad.lerp(momentum, group["momentum"]), group["ns_coefficients"], group["ns_steps"]
                )
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def orthogonalized(matrix, coefficients, steps):
    """The nearest matrix, roughly, whose singular values are all 1: each iteration maps every singular value s to
    a s + b s^3 + c s^5 without computing any of them (Keller Jordan's Muon)."""
    a, b, c = coefficients
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
