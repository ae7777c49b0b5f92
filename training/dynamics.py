"""How the weights move, logged at every n-th step and at the last one with --dynamics_every=n.

A line of metrics.jsonl then holds, under "dynamics", of the n steps up to this one:

    steps                   how many there were: fewer than n behind a resume or a skipped step, and at the end
    attention, mlp, ...     of each kind of tensor:
        weight_norm         |w|
        update_rms          root mean square of the changes of single weights in a step
        cosine              between consecutive updates, the mean
        net_over_path       |sum of the updates| / sum of their lengths: 1 = straight ahead
    signal, noise           of the gradient, where a step has several micro-batches: see signal_and_noise()
    curvature               {validation folder: second derivative of its loss along the last update}

The picture behind them is a river in a valley (arXiv:2410.05192): a high learning rate bounces between the slopes, a
falling one comes to rest on the river, which flows gently down. Momentum hides the bouncing: gradients of nothing but
noise give Muon a cosine and a net_over_path of about 0.7 over 30 steps, and AdamW 0.9 and 0.7. So compare runs with one
another, or look over many more steps than 1 / (1 - momentum).
"""

import math
from dataclasses import replace

import torch
from torch.nn.utils import parameters_to_vector

from attention import document_form
from training.checkpoint import is_due
from training.validation import validate

PROBE_TOKENS = 2048  # of each validation set, on which the curvature is measured
# How far it looks both ways, as a share of the norm of all weights: about as far as an update at a high rate goes. The
# update itself would, at a low rate, be lost in rounding errors.
REACH = 0.01


class Dynamics:
    """Watches the steps of a run, if settings.dynamics_every is not 0. It only looks: what is learnt stays the same.

    model: a Transformer without wrapper. sets: its ValidationSets. The loop calls before() and after() around a step.
    """

    def __init__(self, settings, machine, model, plan, sets, tokenizer, log):
        self.every, self.n_steps = settings.dynamics_every, settings.max_steps
        self.machine, self.model, self.plan = machine, model, plan
        self.tokenizer, self.log = tokenizer, log
        # Curvature is computed in fp32, for which a GPU may have no kernel that takes the bounds of documents.
        form = document_form(settings.doc_mask, machine.device, torch.float32, model.config.head_dim)
        self.fp32_plan = replace(plan, document_form=form)
        n_rows = math.ceil(PROBE_TOKENS / model.config.block_size)
        self.probe = [replace(part, ids=part.ids[:n_rows], targets=part.targets[:n_rows]) for part in sets]
        self.parameters = {}  # kind -> those that are trained
        for name, p in model.named_parameters():
            if p.requires_grad:
                self.parameters.setdefault(kind_of(name), []).append(p)
        self.walks, self.reached = {}, None  # kind -> Walk of the steps since the last line; the last of them
        self.gradients = None  # those of the step under way, if its line will tell of them

    def before(self, step, batch):
        """To be called when `step` steps are done, before the next one. batch: this process's Batch of it."""
        if not self.every:
            return
        if step != self.reached:  # the run has begun, or goes on elsewhere than where it was
            self.walks = {kind: Walk(vector) for kind, vector in self.vectors().items()}
        if self.gradients:
            self.gradients.stop()  # of a step that came to nothing
            self.gradients = None
        if is_due(step + 1, self.every) or step + 1 == self.n_steps:
            self.gradients = Gradients(self.model)
            self.counts = [part.count for part in batch.split(self.plan.micro_batch)]

    def after(self, step, grad_norm):
        """To be called when a step was taken; step counts it. grad_norm: before clipping."""
        if not self.every:
            return
        self.reached = step
        for kind, vector in self.vectors().items():
            self.walks[kind].add(vector)
        if not self.gradients:
            return
        kinds = {kind: walk.summary() for kind, walk in self.walks.items()}
        found = {"steps": len(next(iter(self.walks.values())).lengths), **kinds}
        found |= self.noise(grad_norm) | {"curvature": self.curvature()}
        if self.machine.is_main:
            self.log.write({"step": step, "dynamics": found})
        self.walks = {kind: Walk(walk.at) for kind, walk in self.walks.items()}
        self.log.start_clock(step)  # none of this is training

    def vectors(self):
        """{kind: its weights as one vector, a copy}."""
        return {kind: parameters_to_vector(own).detach() for kind, own in self.parameters.items()}

    def noise(self, grad_norm):
        """{"signal", "noise"}: means over the micro-batches of all processes; {} where a step has but one."""
        squares = self.gradients.stop()
        total = self.machine.sum(sum(self.counts))[0]
        found = []
        for square, count in zip(squares, self.counts):
            if 0 < count < total:
                # A micro-batch adds the gradient of its summed loss x world_size / total: see train_step().
                scale = total / (self.machine.world_size * count)
                found.append(signal_and_noise(square * scale**2, count, grad_norm**2, total))
        n, signal, noise = self.machine.sum(len(found), sum(s for s, _ in found), sum(s for _, s in found))
        return {"signal": signal / n, "noise": noise / n} if n else {}

    @torch.no_grad()
    def curvature(self):
        """{validation folder: (L(w + e u) - 2 L(w) + L(w - e u)) / e^2}, u being the direction of the last update.

        In fp32, whatever the model trains in: a difference of nearly equal numbers needs the digits."""
        length = math.hypot(*(walk.lengths[-1] for walk in self.walks.values()))
        if not length:
            return {}
        e = REACH * math.hypot(*(walk.at.norm().item() for walk in self.walks.values()))
        # The weights are moved meanwhile: a signal must not end it here, and need not, as it is short.
        unheeding = replace(self.machine, stop=None)
        losses, dtype, precision = [], self.model.dtype, torch.get_float32_matmul_precision()
        self.model.dtype = torch.float32
        torch.set_float32_matmul_precision("highest")  # no TF32
        with torch.compiler.set_stance("force_eager"):  # compiling for another format would take longer than this
            for share in (-e / length, 0.0, e / length):
                self.put({kind: walk.at + share * walk.update for kind, walk in self.walks.items()})
                found = validate(self.model, self.probe, self.fp32_plan, unheeding, self.tokenizer)["sources"]
                losses.append({folder: own["val_loss"] for folder, own in found.items()})
        self.model.dtype = dtype
        torch.set_float32_matmul_precision(precision)
        self.put({kind: walk.at for kind, walk in self.walks.items()})
        behind, here, ahead = losses
        return {folder: (ahead[folder] - 2 * here[folder] + behind[folder]) / e**2 for folder in here}

    def put(self, vectors):
        """Give the model the weights in vectors."""
        for kind, own in self.parameters.items():
            for p, part in zip(own, vectors[kind].split([p.numel() for p in own])):
                p.copy_(part.view_as(p))


def kind_of(name):
    """The kind of tensor that a parameter is, by its name."""
    if "norm" in name:
        return "norms"
    if "value_head" in name:
        return "value_head"
    if "self_attn" in name:
        return "attention"
    return "mlp" if "mlp" in name else "embeddings"


class Walk:
    """The way of a vector from step to step."""

    def __init__(self, start):
        self.start = self.at = start
        self.update, self.lengths, self.cosines = None, [], []

    def add(self, at):
        """The vector after one more step."""
        update = at - self.at
        length = update.norm().item()
        if self.lengths and length and self.lengths[-1]:
            self.cosines.append(torch.dot(update, self.update).item() / (length * self.lengths[-1]))
        self.at, self.update = at, update
        self.lengths.append(length)

    def summary(self):
        """What metrics.jsonl says of it; None for what so few steps, or a rate of 0, do not tell."""
        n, path = len(self.lengths), sum(self.lengths)
        return {
            "weight_norm": self.at.norm().item(),
            "update_rms": math.sqrt(sum(length**2 for length in self.lengths) / (n * len(self.at))),
            "cosine": sum(self.cosines) / len(self.cosines) if self.cosines else None,
            "net_over_path": (self.at - self.start).norm().item() / path if path else None,
        }


class Gradients:
    """The gradients of single micro-batches, which add up in p.grad: looks at it whenever one has been added."""

    def __init__(self, model):
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.squares, self.before = {p: [] for p in parameters}, {}
        self.hooks = [p.register_post_accumulate_grad_hook(self.look) for p in parameters]

    def look(self, p):
        """Called when p.grad has grown."""
        added = p.grad - self.before[p] if p in self.before else p.grad
        self.squares[p].append(added.square().sum())
        self.before[p] = p.grad.clone()

    def stop(self):
        """Look no longer; the squared norm of each micro-batch's gradient, over all parameters."""
        for hook in self.hooks:
            hook.remove()
        return [sum(squares).item() for squares in zip(*self.squares.values())]


def signal_and_noise(small, b, large, B):
    """(|G|^2, tr S): the squared norm of the true gradient, and the variance of that of a single token, estimated from
    the squared norms of the gradient of b tokens and of B tokens (arXiv:1812.06162, appendix A):

        E small = |G|^2 + tr S / b       E large = |G|^2 + tr S / B

    Their quotient, tr S / |G|^2, is the batch size in tokens beyond which larger batches help little. Single values
    scatter widely, so average each over many steps before dividing: gradient_noise_scale(). Tokens of one document
    are alike, and a batch of several sources has each in its share, so that this is no more than their order."""
    return (B * large - b * small) / (B - b), (small - large) / (1 / b - 1 / B)


def gradient_noise_scale(lines):
    """tr S / |G|^2, in tokens, over what metrics.jsonl holds under "dynamics"; None where that does not tell."""
    found = [line for line in lines if "signal" in line]
    signal = sum(line["signal"] for line in found)
    noise = sum(line["noise"] for line in found)
    return noise / signal if signal > 0 else None
