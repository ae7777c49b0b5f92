"""What one GPU makes of this code: its attention kernels, the sizes in
configs/, and whether it learns what a CPU does.

    python -m experiments.gpu --json=gpu.json    all, minutes on an H100
    python -m experiments.gpu --parts=presets --presets=350m    one size

MFU is the share of the maker's FLOP/s that a run's tokens account for, attention counted over whole
rows (model.py, flops_per_token). Documents of about 400 tokens, attention inside each.
"""

import needs  # noqa: F401

import time
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm

import configurator
from attention import attention, attention_mask, document_bounds
from configurator import UserError
from experiments.common import print_table
from experiments.presets import PRESETS, read_settings
from experiments.speed import EOT, random_tokens, steps_of
from model import ModelConfig, Transformer
from pretrain import TrainSettings
from ranges import Count, Device, Range, SmallCount
from training import machine as machines
from training.dataloader import document_numbers
from training.memory import memory_estimate

KERNEL_TOKENS = 131_072  # per call of an attention kernel: fewer, and Python takes longer than the GPU
LOSS_SHAPE = ModelConfig(vocab_size=8192, n_layer=6, n_embd=384, n_head=6, n_kv_head=2, block_size=256)
LOSS_SETTINGS = TrainSettings(batch_tokens=4096, micro_batch=16, lr=3e-3)


@dataclass
class Settings:
    """What is measured, and for how long."""

    # -- measuring
    parts: list[str] = field(default_factory=lambda: ["attention", "losses", "presets"])  # what is measured
    presets: list[str] = field(default_factory=lambda: list(PRESETS[1:]))  # sizes: names in configs/
    optimizer: str = "muon"  # of the sizes: muon or adamw
    micro_batch: Count | None = None  # of the sizes: rows per forward pass; auto = what fits by the estimate
    recompute: bool = False  # of the sizes: keep little for the backward pass
    seconds: Annotated[float, Range(0, 86_400)] = 15.0  # of training per size, at least two steps, after the first
    loss_steps: SmallCount = 40  # steps whose losses are compared
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    json: str = ""  # write the results here too

    def __post_init__(self):
        if not self.parts or set(self.parts) - PARTS.keys():
            raise ValueError(f"parts are {', '.join(PARTS)}")
        if set(self.presets) - set(PRESETS):
            raise ValueError(f"presets are {', '.join(PRESETS)}")


def main(settings):
    """Measure every part, print its tables, and write what came out as JSON."""
    machine = machines.start(settings.device)
    if machine.device.type != "cuda":
        raise UserError("there is no NVIDIA GPU here: python -m experiments.speed measures a CPU")
    about = {"device": machines.device_name(machine.device), "torch": torch.__version__, "cuda": torch.version.cuda}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    result = about | {"settings": vars(settings), "made_by": configurator.made_by()}
    for part in settings.parts:
        result[part] = PARTS[part](settings, machine)
        if settings.json:  # after every part: the next one may need more memory than there is
            configurator.write_json(settings.json, result)


def milliseconds(function, seconds=0.5):
    """How long a call takes: the mean of as many as fit into the time, after three that do not count."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(5):  # the GPU is never waited for in between
            function()
        torch.cuda.synchronize()
        calls += 5
    return 1000 * (time.perf_counter() - start) / calls


# -- attention


def kernels(settings, machine):
    """Forward and backward pass of attention() at each size: between document bounds, with a dense mask, without."""
    rows = []
    for name in PRESETS[1:]:
        config = read_settings(name)[1]
        T, B = config.block_size, KERNEL_TOKENS // config.block_size
        tokens = random_tokens(config.vocab_size, (B, T + 1))
        documents = torch.from_numpy(document_numbers(tokens[:, :-1], tokens[:, 1:], EOT))
        forms = {
            "bounds": document_bounds(documents).to(machine.device),
            "mask": documents.to(machine.device),
            "whole rows": None,
        }
        torch.manual_seed(0)

        def drawn(n_heads):
            """(B, n_heads, T, head_dim), in memory as the model's products leave it."""
            x = torch.randn(B, T, n_heads, config.head_dim, device=machine.device, dtype=machine.dtype)
            return x.transpose(1, 2)

        inputs = [drawn(n).requires_grad_() for n in (config.n_head, config.n_kv_head, config.n_kv_head)]
        gradient, took, results = drawn(config.n_head), {}, {}
        for form, doc_ids in forms.items():
            mask = attention_mask(doc_ids, T, machine.device)

            def forward_and_backward():
                """One call, with the gradients of q, k and v."""
                y = attention(*inputs, mask)
                return [y, *torch.autograd.grad(y, inputs, gradient)]

            results[form] = [x.float() for x in forward_and_backward()]
            took[form] = milliseconds(forward_and_backward)
        differs = max((a - b).abs().max().item() for a, b in zip(results["bounds"], results["mask"]))
        rows.append({"preset": name, "heads": config.n_head, "kv_heads": config.n_kv_head, "block_size": T} | took)
        rows[-1] |= {"largest difference": differs}
    print(f"\nattention, forward and backward pass over {KERNEL_TOKENS:,} tokens, ms")
    heads = ["", "heads", "context", "bounds", "mask", "mask / bounds", "whole rows", "largest difference"]
    cells = []
    for r in rows:
        bounds, mask, whole = r["bounds"], r["mask"], r["whole rows"]
        cells.append(
            [r["preset"], f"{r['heads']}/{r['kv_heads']}", f"{r['block_size']}", f"{bounds:.2f}", f"{mask:.2f}"]
        )
        cells[-1] += [f"{mask / bounds:.1f}", f"{whole:.2f}", f"{r['largest difference']:.3f}"]
    print_table(heads, cells, "<>>>>>>>")
    return rows


# -- losses


def losses(settings, machine):
    """The losses of the same steps on a CPU, on the GPU in both formats, and compiled."""
    cpu = machines.Machine(0, 1, torch.device("cpu"), torch.float32)
    gpu32 = machines.Machine(0, 1, machine.device, torch.float32)
    variants = {"CPU, fp32": (cpu, False), "GPU, fp32": (gpu32, False)}
    variants |= {"GPU, bf16": (machine, False), "GPU, bf16, compiled": (machine, True)}
    curves = {name: loss_curve(where, compiles, settings.loss_steps) for name, (where, compiles) in variants.items()}
    shown = [n for n in (1, 2, 5, 10, 20, 40, 80, 160) if n <= settings.loss_steps]
    print("\nloss after a number of steps on the same tokens")
    rows = []
    for name, curve in curves.items():
        rows.append([name] + [f"{curve[n - 1]:.4f}" for n in shown])
    print_table(["", *map(str, shown)], rows, "<" + ">" * len(shown))
    return curves


def loss_curve(machine, compiles, n_steps):
    """The losses of the first steps of a small model on random tokens."""
    torch.manual_seed(0)
    model = Transformer(LOSS_SHAPE).to(machine.device)  # made on the CPU: the same numbers wherever they go
    torch._dynamo.reset()
    _, step = steps_of(model, replace(LOSS_SETTINGS, compile=compiles), machine)
    random, most, curve = np.random.default_rng(0), LOSS_SHAPE.vocab_size - 1, []
    for _ in range(n_steps):
        tokens = 1 + (most * random.random((16, 257)) ** 4).astype(np.int64)  # some are frequent: that is soon learnt
        tokens[random.random(tokens.shape) < 0.01] = EOT
        curve.append(step(tokens))
    return curve


# -- sizes


def presets(settings, machine):
    """Steps of every size as configs/ states them: speed, MFU, memory, and how long the first step compiles."""
    rows = [one_preset(name, settings, machine) for name in tqdm(settings.presets, unit="size", leave=False)]
    print(f"\ntraining with {settings.optimizer}, documents of about 400 tokens")
    cells = []
    for r in rows:
        speed, memory = f"{r['tokens_per_second']:,.0f}", [r["peak_bytes"], r["estimated_bytes"]]
        cells.append([r["preset"], f"{r['parameters']:,}", f"{r['micro_batch']}", speed, f"{r['mfu']:.1%}"])
        cells[-1] += [f"{n / 2**30:.1f}" for n in memory] + [f"{r['first_step_seconds']:.0f}"]
    heads = ["", "parameters", "micro-batch", "tokens/s", "MFU", "peak GiB", "estimate", "first step s"]
    print_table(heads, cells, "<>>>>>>>")
    return rows


def one_preset(name, settings, machine):
    """A row of the table."""
    training, config = read_settings(name)
    training.optimizer, training.micro_batch = settings.optimizer, settings.micro_batch
    training.recompute = settings.recompute
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    with machine.device:
        model = Transformer(config)
    plan, step = steps_of(model, training, machine)
    tokens = random_tokens(config.vocab_size, (training.batch_tokens // config.block_size, config.block_size + 1))

    def timed():
        """(loss, seconds) of one optimizer step on a whole batch."""
        start = time.perf_counter()
        return step(tokens), time.perf_counter() - start

    first, seconds = timed(), []
    while len(seconds) < 2 or sum(seconds) < settings.seconds:
        loss, passed = timed()
        seconds.append(passed)
    speed = training.batch_tokens * len(seconds) / sum(seconds)
    peak, _ = machines.peak_flops(machine.device, machine.dtype)
    return {
        "preset": name,
        "parameters": model.n_params(),
        "micro_batch": plan.micro_batch,
        "steps": len(seconds),
        "tokens_per_second": speed,
        "mfu": speed * model.flops_per_token() / peak,
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "estimated_bytes": memory_estimate(model, training, machine, plan),
        "first_step_seconds": first[1],
        "first_loss": first[0],
        "last_loss": loss,
    }


PARTS = {"attention": kernels, "losses": losses, "presets": presets}

if __name__ == "__main__":
    configurator.run(main, Settings)
