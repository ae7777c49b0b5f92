"""Training speed, beside the speed of a plain matrix product on the same machine in the same run.

    python experiments/speed.py --json=speed.json

Every row runs whole training steps of training/trainer.py on one micro-batch: the plain loop (fp32, eager, causal
attention), then what pretrain.py adds, one thing after the other. A fraction of 100 % would mean that a step costs
nothing but its matrix products, each at the rate of a 2048 x 2048 x 2048 one in the format that is fastest here.
Muon's cost is per step, so it weighs most here, where a step is a single micro-batch.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import configurator
from model import ModelConfig, Transformer
from training import hardware
from training.optim import make_optimizers
from training.trainer import TrainSettings, train_step


@dataclass
class Settings:
    n_layer: int = 6  # blocks
    n_embd: int = 384  # width
    n_head: int = 6  # heads
    block_size: int = 256  # context
    vocab_size: int = 8192  # vocabulary
    micro_batch: int = 16  # sequences per step
    seconds: float = 15.0  # measured per row, after warming up
    json: str = ""  # write the table here too
    device: str | None = None  # cpu or cuda; auto = the GPU where there is one


@dataclass
class Row:
    """One way of training, and what it reached."""

    name: str
    dtype: torch.dtype
    compile: bool = False
    document_mask: bool = False
    qk_norm: bool = False
    optimizer: str = "adamw"
    tokens_per_second: float = 0.0
    model_flops_per_second: float = 0.0


def main(s):
    machine = hardware.start(s.device)
    fast, compiled = machine.dtype, hardware.can_compile(machine.device)
    rates = {
        dtype: hardware.matmul_flops(machine.device, dtype, seconds=2) for dtype in (torch.float32, torch.bfloat16)
    }
    print(
        f"{hardware.device_name(machine.device)}, torch {torch.__version__}; matrix product: "
        + ", ".join(f"{name(dtype)} {rate / 1e9:,.1f} GFLOP/s" for dtype, rate in rates.items())
    )
    rows = [Row("plain loop", torch.float32)]
    rows += [Row("+ bf16", fast)] * (fast != torch.float32)
    rows += [Row("+ compiled", fast, True)] * compiled
    rows += [
        Row("+ document mask", fast, compiled, True),
        Row("+ qk_norm", fast, compiled, True, True),
        Row("+ Muon", fast, compiled, True, True, "muon"),
    ]
    print(f"\n{'':<18}{'format':>10}{'tokens/s':>12}{'relative':>10}{'GFLOP/s':>10}{'of matmul':>11}")
    for row in rows:
        machine.dtype = row.dtype
        row.tokens_per_second, flops_per_token = measure(s, machine, row)
        row.model_flops_per_second = row.tokens_per_second * flops_per_token
        print(
            f"{row.name:<18}{name(row.dtype):>10}{row.tokens_per_second:>12,.0f}"
            f"{row.tokens_per_second / rows[0].tokens_per_second:>10.2f}{row.model_flops_per_second / 1e9:>10,.1f}"
            f"{row.model_flops_per_second / rates[fast]:>11.1%}",
            flush=True,
        )
    if s.json:
        masked = next(row for row in rows if row.document_mask)  # the trainer's way, with nothing added to the model
        result = {
            "tokens_per_second": masked.tokens_per_second,
            "model_flops_per_second": masked.model_flops_per_second,
            "matmul_flops_per_second": rates[fast],
            "fraction_of_matmul": masked.model_flops_per_second / rates[fast],
            "matmul_flops_per_second_by_format": {name(dtype): rate for dtype, rate in rates.items()},
            "rows": [{**asdict(row), "dtype": name(row.dtype)} for row in rows],
            "device": hardware.device_name(machine.device),
            "settings": asdict(s),
            "made_by": configurator.made_by(),
        }
        configurator.write_json(s.json, result)


def name(dtype):
    return str(dtype).removeprefix("torch.")


def measure(s, machine, row):
    """(tokens per second, FLOPs per token) of whole training steps on random tokens."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    shape = dict(n_layer=s.n_layer, n_head=s.n_head, n_kv_head=s.n_head, n_embd=s.n_embd, block_size=s.block_size)
    config = ModelConfig(vocab_size=s.vocab_size, qk_norm=row.qk_norm, **shape)
    model = Transformer(config).to(machine.device)
    settings = TrainSettings(optimizer=row.optimizer, doc_mask=row.document_mask, lr=1e-4)
    optimizers = make_optimizers(model, settings, hardware.fast_bf16(machine.device))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (s.micro_batch, config.block_size + 1))
    run = torch.compile(model) if row.compile else model

    def step():  # reads the loss back, so that a GPU has finished when it returns
        train_step(settings, machine, run, optimizers, (tokens[:, :-1], tokens[:, 1:]), s.micro_batch, eot=0)

    for _ in range(3):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < s.seconds:
        step()
        steps += 1
    return steps * tokens[:, 1:].size / (time.perf_counter() - start), model.flops_per_token()


if __name__ == "__main__":
    configurator.run(main, Settings)
