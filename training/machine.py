"""What this machine is: processes and devices, the number format that is fast here, peak speed."""

import ctypes
import os
import shutil
import signal
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed

from configurator import UserError

LIBC = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h

# Dense bf16 FLOP/s that the makers state, by a part of the device's name; the first match counts.
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A100": 312e12,
    "A800": 312e12,
    "A10G": 70e12,
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
    """This process: its rank among world_size processes, its device, and the format of its matrix products."""

    rank: int
    world_size: int
    device: torch.device
    dtype: torch.dtype
    # The group in which processes wait for each other for as long as it takes; None = the default one, with a time-out.
    patient: torch.distributed.ProcessGroup | None = None
    stop: "StopRequested | None" = None  # whose signals are heeded; None = none are

    @property
    def is_main(self):
        """Whether this is the process that prints and saves."""
        return self.rank == 0

    def say(self, line):
        """Print a line, once and not in every process."""
        if self.is_main:
            print(line, flush=True)

    def sum(self, *numbers):
        """The sum of each number over all processes, as floats."""
        if self.world_size == 1:
            return [float(n) for n in numbers]
        total = torch.tensor(numbers, dtype=torch.float64)  # on the CPU: the numbers are there, and no GPU has to wait
        torch.distributed.all_reduce(total, group=self.patient)
        return total.tolist()

    def gathered(self, items):
        """The lists of all processes, one behind the other, in every process."""
        if self.world_size == 1:
            return items
        lists = [None] * self.world_size
        torch.distributed.all_gather_object(lists, items, group=self.patient)
        return sum(lists, [])

    def should_stop(self):
        """Whether a signal has come to any of the processes. All of them ask at the same place: if some went on alone,
        they would wait for the others for ever."""
        return self.stop is not None and self.sum(self.stop.signal > 0)[0] > 0

    def heed(self):
        """Raises SignalCame, in all processes alike, if a signal has come to one. What takes longer than a launcher
        waits for the end of its processes calls it again and again."""
        if self.should_stop():
            raise SignalCame

    def heed_alone(self):
        """Raises SignalCame if a signal has come to this process: for what it does without the others."""
        if self.stop is not None and self.stop.signal:
            raise SignalCame

    @contextmanager
    def together(self):
        """Within it every process does its part; behind it all have done theirs. An error that a person can mend, such
        as a full disk, is raised in all of them if one has met it: none is left waiting, and all tell the same."""
        if self.world_size == 1:
            yield
            return
        told = ""
        try:
            yield
        except (UserError, OSError) as error:
            told = str(error) or type(error).__name__
        failed = self.sum(*(bool(told) and rank == self.rank for rank in range(self.world_size)))
        if any(failed):
            first = failed.index(1)
            text = torch.zeros(1000, dtype=torch.uint8)
            if self.rank == first:
                start = told.encode(errors="replace")[: len(text)]
                text[: len(start)] = torch.tensor(list(start))
            torch.distributed.broadcast(text, first, group=self.patient)
            raise UserError(bytes(text.tolist()).rstrip(b"\0").decode(errors="ignore"))


def start(device=None, dtype=None):
    """The Machine that a stage runs on; under torchrun this process joins the others.

    device: "cuda", "cuda:1", "mps", "cpu", or None for the first of these that is there. dtype: "bf16", "fp32", or None
    for bf16 where the device has units for it. Raises UserError for a device or format that is not there.
    """
    world_size, local_rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = pick_device(device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32
    if device.type == "cpu":
        keep_memory()
        # Sums of many rows into one, as index_put_ makes them, would else be in the order in which threads arrive.
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    formats = {
        None: torch.bfloat16 if fast_bf16(device) else torch.float32,
        "bf16": torch.bfloat16,
        "fp32": torch.float32,
    }
    if dtype not in formats:
        raise UserError(f"dtype must be bf16, fp32 or auto, not {dtype!r}")
    patient = None
    if world_size > 1:
        # Gradients that do not come within PyTorch's half hour, or NCCL's ten minutes, will not come at all.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        # The others wait while the main process verifies shards or saves, however long that takes; that a process has
        # died is noticed by torchrun.
        patient = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1))
    return Machine(int(os.environ.get("RANK", 0)), world_size, device, formats[dtype], patient)


def keep_memory():
    """Let glibc keep the memory of freed tensors for the next ones, where it would hand large ones back to the system
    at once and pay for fresh pages in every step."""
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_MAX, 0)
        LIBC.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def pick_device(name, local_rank=0):
    """The torch.device of a name, or of the fastest kind that is there. Each local process gets a GPU of its own."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        name = "cuda" if n_gpus else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be cuda, cuda:N, mps, cpu or auto, not {name!r}") from None
    if device.type == "cuda":
        if not n_gpus:
            raise UserError(f"device={name}, but this PyTorch sees no GPU: --device=cpu runs without one")
        if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
            raise UserError(f"device={name} is one GPU for several processes: --device=cuda gives each its own")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= n_gpus:
            raise UserError(f"process {local_rank} needs GPU {device.index}, but this machine has {n_gpus}")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps, but this PyTorch sees no Apple GPU: --device=cpu runs without one")
    elif device.type == "mps" and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        raise UserError("one Apple GPU cannot be shared by several processes: --device=cpu, or start one process")
    elif device.type not in ("mps", "cpu"):
        raise UserError(f"device must be cuda, cuda:N, mps, cpu or auto, not {name!r}")
    return device


def leave(machine):
    """Leave torchrun's processes."""
    if machine.world_size > 1:
        torch.distributed.destroy_process_group()


class SignalCame(Exception):
    """What was under way is given up: the run saves and ends."""


def heeded_signals():
    """Those of Ctrl-C, SIGTERM and a closed terminal that are not ignored, as under nohup and in background jobs of a
    shell: what is ignored stays ignored."""
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in stopping if signal.getsignal(number) != signal.SIG_IGN]


class StopRequested:
    """Set by Ctrl-C, SIGTERM and a closed terminal: what is under way is given up, and the loop saves and ends. signal:
    the number of the first signal that came, or 0.

    A second Ctrl-C ends at once. A second SIGTERM or SIGHUP does nothing: launchers pass on one that has come already.
    Under torchrun a second Ctrl-C does nothing either: torchrun itself kills what does not end in time."""

    def __enter__(self):
        self.signal = 0
        self.before = {number: signal.signal(number, self.request) for number in heeded_signals()}
        return self

    def request(self, number, frame):
        """What a signal calls."""
        self.signal = self.signal or number
        if "TORCHELASTIC_RUN_ID" not in os.environ and signal.SIGINT in self.before:
            signal.signal(signal.SIGINT, self.before[signal.SIGINT])

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def fast_bf16(device):
    """Whether the device has units for bf16. Without them it is emulated: 100 times slower than fp32 on an AVX2 CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "mps":
        return False  # not tried
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def why_not_compile(device):
    """Why torch.compile cannot work here, or "" where it can: it writes C++ for a CPU and Triton for a GPU, and both
    need a compiler and Python's headers."""
    if sys.platform != "linux" or device.type == "mps":
        return "torch.compile is used on Linux alone, for CPU and CUDA"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "this GPU is too old for Triton"
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        return "there is no C++ compiler: apt install g++"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Python's headers are not there: apt install python3-dev"
    return ""


def should_compile(settings, machine):
    """Whether to use torch.compile. Raises UserError where it is asked for and cannot work."""
    why_not = why_not_compile(machine.device)
    if settings.compile and why_not:
        raise UserError(f"compile=true, but {why_not}")
    return not why_not if settings.compile is None else settings.compile


def device_name(device):
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def dtype_name(dtype):
    """float32, bfloat16."""
    return str(dtype).removeprefix("torch.")


def matmul_flops(device, dtype, seconds=0.5):
    """FLOP/s of a 2048 x 2048 x 2048 matrix product here and now: the best of the passes that fit into the time."""
    n = 2048
    a, b = torch.randn(n, n, device=device, dtype=dtype), torch.randn(n, n, device=device, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()  # the product runs on while Python goes on
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def peak_flops(device, dtype):
    """(FLOP/s of one device that MFU is measured against, where the figure is from)."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        for name, flops in PEAK_FLOPS.items():
            if name in torch.cuda.get_device_name(device):
                return flops, "maker's bf16 figure"
    return matmul_flops(device, dtype), f"{dtype_name(dtype)} matrix product measured now"
