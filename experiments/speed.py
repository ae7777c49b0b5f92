"""Training speed, beside the speed of a plain matrix product on the same machine in the same run.

    python -m experiments.speed --json=speed.json

Every row measures train_step() of pretrain.py on one micro-batch. The first row is the plain loop:
fp32, not compiled, causal attention. Each further row adds one thing that pretrain.py does. 100 %
of matmul would mean that a step costs nothing but its matrix products, each as fast as one of 2048
x 2048 x 2048 in the format that is fastest here. Muon looks more expensive here than in training:
its cost is per step, and these steps have a single micro-batch.
"""

import needs  # noqa: F401

import time
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
import torch

import configurator
from model import ModelConfig, Transformer
from pretrain import TrainSettings, train_step
from ranges import Context, Count, Device, Range, SmallCount, Width
from training import machine as machines
from training.dataloader import make_batch
from training.optim import make_optimizers


@dataclass
class Settings:
    """The model to measure, and for how long."""

    # -- model
    n_layer: SmallCount = 6  # blocks
    n_embd: Width = 384  # width
    n_head: SmallCount = 6  # heads
    block_size: Context = 256  # context
    vocab_size: Annotated[int, Range(1, 65_536)] = 8192  # vocabulary
    # -- measuring
    micro_batch: Count = 16  # rows per step
    seconds: Annotated[float, Range(0, 86_400)] = 15.0  # measured per row of the table, after warming up
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    json: str = ""  # write the table here too


@dataclass
class Row:
    """One way of training, and what it reached."""

    name: str
    dtype: str  # float32 or bfloat16
    compile: bool = False
    document_mask: bool = False
    qk_norm: bool = False
    optimizer: str = "adamw"
    tokens_per_second: float = 0.0
    model_flops_per_second: float = 0.0


def main(settings):
    """Measure every row, print the table, and write it as JSON."""
    machine = machines.start(settings.device)
    device, fast = machines.device_name(machine.device), machines.dtype_name(machine.dtype)
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates = {name: machines.matmul_flops(machine.device, dtype, seconds=2) for name, dtype in formats.items()}
    matmul = rates[fast]
    products = ", ".join(f"{name} {rate / 1e9:,.1f} GFLOP/s" for name, rate in rates.items())
    print(f"{device}, torch {torch.__version__}; matrix product: {products}\n")

    rows = ways(fast, compiled=not machines.why_not_compile(machine.device))
    print(f"{'':<16}{'format':>10}{'tokens/s':>12}{'relative':>10}{'GFLOP/s':>10}{'of matmul':>11}")
    for row in rows:
        machine.dtype = formats[row.dtype]
        measure(settings, machine, row)
        relative, share = row.tokens_per_second / rows[0].tokens_per_second, row.model_flops_per_second / matmul
        speed = f"{row.tokens_per_second:>12,.0f}{relative:>10.2f}{row.model_flops_per_second / 1e9:>10,.1f}"
        print(f"{row.name:<16}{row.dtype:>10}{speed}{share:>11.1%}", flush=True)

    if settings.json:
        masked = next(row for row in rows if row.document_mask)  # as pretrain.py trains, nothing added to the model
        result = {
            "tokens_per_second": masked.tokens_per_second,
            "model_flops_per_second": masked.model_flops_per_second,
            "matmul_flops_per_second": matmul,
            "fraction_of_matmul": masked.model_flops_per_second / matmul,
            "matmul_flops_per_second_by_format": rates,
            "rows": [asdict(row) for row in rows],
            "device": device,
            "settings": asdict(settings),
            "made_by": configurator.made_by(),
        }
        configurator.write_json(settings.json, result)


def ways(fast, compiled):
    """The rows to measure. fast: the format that is fastest here; compiled: whether torch.compile works here."""
    rows = [Row("plain loop", "float32")]
    if fast != "float32":
        rows.append(Row("+ bf16", fast))
    if compiled:
        rows.append(Row("+ compiled", fast, compiled))
    masked = Row("+ document mask", fast, compiled, document_mask=True)
    normed = replace(masked, name="+ qk_norm", qk_norm=True)
    return [*rows, masked, normed, replace(normed, name="+ Muon", optimizer="muon")]


def measure(settings, machine, row):
    """Fill in how many tokens and FLOPs per second a row's whole training steps reach, on random tokens."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    size = {name: getattr(settings, name) for name in ("n_layer", "n_embd", "n_head", "block_size", "vocab_size")}
    config = ModelConfig(**size, n_kv_head=settings.n_head, qk_norm=row.qk_norm)
    model = Transformer(config).to(machine.device)
    training = TrainSettings(optimizer=row.optimizer, lr=1e-4)
    optimizers = make_optimizers(model, training, machines.fast_bf16(machine.device))
    random = np.random.default_rng(0)
    tokens = random.integers(0, settings.vocab_size, (settings.micro_batch, settings.block_size + 1))
    run = torch.compile(model) if row.compile else model

    def step():
        """A training step. It reads the loss back, so that a GPU has finished when it returns."""
        batch = make_batch(tokens[:, :-1], tokens[:, 1:], 0, row.document_mask, machine.device)
        train_step(training, machine, run, optimizers, batch, settings.micro_batch)

    for _ in range(3):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < settings.seconds:
        step()
        steps += 1
    row.tokens_per_second = steps * tokens[:, 1:].size / (time.perf_counter() - start)
    row.model_flops_per_second = row.tokens_per_second * model.flops_per_token()


if __name__ == "__main__":
    configurator.run(main, Settings)
