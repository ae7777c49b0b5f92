"""Training speed, beside the speed of a plain matrix product on the same machine in the same run.

    python experiments/speed.py --json=speed.json

Every row runs whole training steps of training/trainer.py. The first is the plain loop (fp32, eager, causal
attention); the last is what pretrain.py does on this machine. A fraction of 100 % would mean that a step costs
nothing but its matrix products, each at the rate of a 2048 x 2048 x 2048 one.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
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


def main(s):
    machine = hardware.start(s.device)
    config = ModelConfig(s.vocab_size, s.block_size, s.n_layer, s.n_head, s.n_head, s.n_embd)
    rates = {
        dtype: hardware.matmul_flops(machine.device, dtype, seconds=2) for dtype in (torch.float32, torch.bfloat16)
    }
    best = machine.dtype  # bf16 where there are units for it
    print(
        f"{hardware.device_name(machine.device)}, torch {torch.__version__}; matrix product: "
        + ", ".join(f"{name(dtype)} {rate / 1e9:,.1f} GFLOP/s" for dtype, rate in rates.items())
    )
    rows = [("plain loop", torch.float32, False, False, "adamw")]
    if best != torch.float32:
        rows.append(("bf16", best, False, False, "adamw"))
    if hardware.can_compile(machine.device):
        rows.append(("compiled", best, True, False, "adamw"))
    compiled = hardware.can_compile(machine.device)
    rows += [("document mask", best, compiled, True, "adamw"), ("Muon (pretrain.py)", best, compiled, True, "muon")]
    print(f"\n{'':<20}{'format':>9}{'compiled':>10}{'tokens/s':>12}{'relative':>10}{'GFLOP/s':>10}{'of matmul':>11}")
    table = []
    for title, dtype, compile_it, doc_mask, optimizer in rows:
        machine.dtype = dtype
        tokens_per_second, flops_per_token = measure(s, machine, config, compile_it, doc_mask, optimizer)
        flops = tokens_per_second * flops_per_token
        table.append(
            {
                "name": title,
                "dtype": name(dtype),
                "compiled": compile_it,
                "document_mask": doc_mask,
                "optimizer": optimizer,
                "tokens_per_second": tokens_per_second,
                "model_flops_per_second": flops,
                "matmul_flops_per_second": rates[best],
                "fraction_of_matmul": flops / rates[best],
            }
        )
        print(
            f"{title:<20}{name(dtype):>9}{'yes' if compile_it else 'no':>10}{tokens_per_second:>12,.0f}"
            f"{tokens_per_second / table[0]['tokens_per_second']:>10.2f}{flops / 1e9:>10,.1f}{flops / rates[best]:>11.1%}",
            flush=True,
        )
    if s.json:
        fastest = max(table, key=lambda row: row["tokens_per_second"])
        configurator.write_json(
            s.json,
            {
                **{
                    key: fastest[key]
                    for key in (
                        "tokens_per_second",
                        "model_flops_per_second",
                        "matmul_flops_per_second",
                        "fraction_of_matmul",
                    )
                },
                "matmul_flops_per_second_by_format": {name(dtype): rate for dtype, rate in rates.items()},
                "rows": table,
                "device": hardware.device_name(machine.device),
                "settings": asdict(s),
                "made_by": configurator.made_by(),
            },
        )


def name(dtype):
    return str(dtype).removeprefix("torch.")


def measure(s, machine, config, compile_it, doc_mask, optimizer):
    """(tokens per second, FLOPs per token) of whole training steps on random tokens."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = Transformer(config).to(machine.device)
    settings = TrainSettings(optimizer=optimizer, doc_mask=doc_mask, lr=1e-4)
    optimizers = make_optimizers(model, settings, hardware.fast_bf16(machine.device))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (s.micro_batch, config.block_size + 1))
    run = torch.compile(model) if compile_it else model

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
