"""What this machine is: processes and devices, the number format that is fast here, peak speed, memory needed."""

import os
import shutil
import sys
import sysconfig
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed

from configurator import UserError

# Dense bf16 FLOP/s that the makers state, by a part of the device's name; the first match counts.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A100": 312e12,
    "A800": 312e12,
    "A10": 125e12,
    "A6000": 155e12,
    "6000 Ada": 364e12,
    "V100": 125e12,
    "5090": 209e12,
    "4090": 165e12,
    "4080": 97e12,
    "3090": 71e12,
    "3080": 59e12,
    "T4": 65e12,
}


@dataclass
class Machine:
    """This process's place: its rank among world_size processes, and its device."""

    rank: int
    world_size: int
    device: torch.device
    dtype: torch.dtype

    @property
    def is_main(self):
        return self.rank == 0

    def autocast(self):
        """Where matrices are multiplied in bf16; weights, sums and norms stay in fp32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def sum(self, *numbers):
        """Sums over all processes, as floats."""
        if self.world_size == 1:
            return [float(n) for n in numbers]
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()


def start(device=None, dtype=None):
    """Join torchrun's processes if it started us, and pick device and number format. None means: choose."""
    world_size, local_rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device=cuda, but this PyTorch sees no GPU")
    if device == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"process {local_rank} has no GPU of its own: this machine has {torch.cuda.device_count()}")
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32
    device = torch.device(device)
    if device.type == "cpu":  # compiled code else adds up the embedding's gradient in whatever order threads arrive
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    if world_size > 1:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    names = {
        None: torch.bfloat16 if fast_bf16(device) else torch.float32,
        "bf16": torch.bfloat16,
        "fp32": torch.float32,
    }
    if dtype not in names:
        raise UserError(f"dtype must be bf16, fp32 or auto, not {dtype!r}")
    return Machine(int(os.environ.get("RANK", 0)), world_size, device, names[dtype])


def stop(machine):
    if machine.world_size > 1:
        torch.distributed.destroy_process_group()


def fast_bf16(device):
    """Whether the device has units for bf16. Without them it is emulated: 100 times slower than fp32 on an AVX2 CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def can_compile(device):
    """torch.compile writes C++ on a CPU and Triton on a GPU: a compiler must be there, with Python's headers."""
    has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
    has_headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    return (
        sys.platform == "linux"
        and has_compiler
        and has_headers
        and (device.type != "cuda" or torch.cuda.get_device_capability(device) >= (7, 0))
    )


def device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def matmul_flops(device, dtype, seconds=0.5):
    """FLOP/s of a 2048 x 2048 x 2048 matrix product here and now: the best of the passes that fit into the time."""
    n = 2048
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def peak_flops(device, dtype):
    """(FLOP/s that MFU is measured against, where the figure is from)."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        for name, flops in PEAK_FLOPS.items():
            if name in torch.cuda.get_device_name(device):
                return flops, "maker's bf16 figure"
    return matmul_flops(device, dtype), f"{str(dtype).removeprefix('torch.')} matrix product measured now"


def memory_estimate(config, n_params, micro_batch, optimizer, bytes_per_value):
    """Bytes that training needs per device, by counting: weights, gradients and optimizer state in fp32, and what a
    forward pass keeps for the backward pass of one micro-batch."""
    state = n_params * 4 * (3 if optimizer == "muon" else 4)
    tokens = micro_batch * config.block_size
    kv = 2 * config.n_kv_head * config.head_dim
    per_layer = 6 * config.n_embd + 2 * kv + 4 * config.mlp_width  # norms' inputs and outputs, q, k, v, attention, MLP
    logits = 2 * 4 + bytes_per_value  # as multiplied, in fp32, and their gradient
    return state + tokens * (config.n_layer * per_layer * bytes_per_value + config.vocab_size * logits)
