"""The training loop, written once. A stage hands it a model, batches and a schedule, and reads train() top down.

Everything random is a function of (seed, step), so a checkpoint needs no random state: a run that was killed and
resumed equals the unbroken one bit for bit. The loss is the sum over counted tokens divided by their number in the
global batch, so it does not depend on micro-batches, accumulation or the number of processes.
"""

import json
import math
import signal
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from configurator import UserError, made_by, write_json
from model import IGNORE
from training import checkpoint, hardware
from training.optim import make_optimizers


@dataclass
class TrainSettings:
    batch_tokens: int = 2048  # tokens per optimizer step, over all processes
    micro_batch: int = 8  # at most this many sequences per forward pass and process: lower it to save memory
    max_steps: int = 1700  # optimizer steps in all
    lr: float = 0.006  # peak learning rate
    min_lr_fraction: float = 0.0  # the schedule ends at this share of lr
    warmup_steps: int = 20  # steps of linear warmup
    schedule: str = "wsd"  # wsd (constant, then decay over decay_steps) or cosine (down to max_steps)
    decay_steps: int = 0  # length of wsd's decay; 0 stops at the trunk, for anneal.py to continue from
    decay_shape: str = "1-sqrt"  # linear, cosine, exponential, 1-sqrt or inverse
    optimizer: str = "muon"  # muon (hidden matrices; AdamW for the rest) or adamw
    weight_decay: float = 0.1  # on the hidden matrices
    beta1: float = 0.9  # AdamW: memory of the gradient
    beta2: float = 0.95  # AdamW: memory of its square
    momentum: float = 0.95  # Muon: memory of the gradient
    grad_clip: float = 1.0  # gradients of a larger norm are scaled down to it; 0 = never
    doc_mask: bool = True  # keep attention inside each document
    best_fit: bool = False  # pack documents whole into rows instead of cutting the stream; chats always are
    eval_every: int = 425  # steps between evaluations; the last step always has one
    eval_tokens: int = 0  # validation tokens per source and evaluation; 0 = all
    log_every: int = 20  # steps between progress lines
    save_every: int = 425  # steps between checkpoints; the last step always has one
    keep: int = 2  # checkpoints to keep
    seed: int = 1337  # initial weights and order of the data
    resume: bool = False  # go on from the newest checkpoint in out_dir
    verify: bool = True  # compare the shards with their sha256 first: about a second per GB
    device: str | None = None  # cpu, cuda, cuda:1; auto = the GPU where there is one
    dtype: str | None = None  # bf16 or fp32 in matrix products; auto = bf16 where the device has units for it
    compile: bool | None = None  # torch.compile; auto = where there is a compiler for it
    tensorboard: bool = False  # write TensorBoard logs into out_dir too


@dataclass
class LaterStageSettings(TrainSettings):
    """What differs where a stage starts from a checkpoint: how it was trained is how it is trained on."""

    init: str = "out/pretrain"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    val: str = ""  # shard folders to validate on: a,b; empty = those that are trained on
    batch_tokens: int | None = None  # tokens per optimizer step, over all processes; auto = as before
    max_steps: int | None = None  # optimizer steps; auto = what the amount of data says
    optimizer: str | None = None  # muon or adamw; auto = as before
    weight_decay: float | None = None  # on the hidden matrices; auto = as before
    block_size: int | None = None  # context length; auto = as before, longer ones usually with a larger rope_base
    rope_base: float | None = None  # wavelengths of the rotary positions; auto = as before
    warmup_steps: int = 0  # steps of linear warmup


class StopRequested:
    """Set by SIGTERM or Ctrl-C; the loop then ends after the current step. A second signal ends the process."""

    def __enter__(self):
        self.requested = False
        self.before = {s: signal.signal(s, self.request) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def request(self, *_):
        self.requested = True
        self.__exit__()

    def __exit__(self, *_):
        for s, handler in self.before.items():
            signal.signal(s, handler)


def batch_shape(s, block_size, world_size):
    """(sequences per step over all processes, per forward pass). Raises UserError where they do not divide."""
    if s.batch_tokens % block_size or s.batch_tokens < block_size:
        raise UserError(f"batch_tokens={s.batch_tokens} is not a multiple of block_size={block_size}")
    batch_size = s.batch_tokens // block_size
    if batch_size % world_size:
        raise UserError(
            f"batch_tokens={s.batch_tokens} is {batch_size} sequences of {block_size}, which {world_size} processes "
            f"cannot share evenly: try --batch_tokens={max(1, round(batch_size / world_size)) * world_size * block_size}"
        )
    if s.micro_batch < 1:
        raise UserError("micro_batch must be at least 1")
    share = batch_size // world_size
    return batch_size, max(n for n in range(1, min(share, s.micro_batch) + 1) if share % n == 0)


def train(s, machine, model, tokenizer, batch, lr_at, evaluate, peak, warm_start=None, note=lambda step: {}):
    """Run the loop from s.resume's checkpoint, or from step 0, to s.max_steps; return the last evaluation.

    s: TrainSettings with out_dir. model: a Transformer on machine.device. batch(step): this process's (ids, targets),
    int64 arrays (rows, block_size). lr_at(step): the learning rate. evaluate(model): a dict with val_loss and val_bpb.
    peak: the FLOP/s of one device that MFU is measured against. warm_start: a checkpoint folder whose optimizer state to
    begin with. note(step): what else a checkpoint's meta.json should hold.
    Leaves metrics.jsonl, settings.json and checkpoints in s.out_dir. Returns None if it was stopped by a signal.
    """
    raw_model, config = model, model.config
    _, micro_batch = batch_shape(s, config.block_size, machine.world_size)
    optimizers = make_optimizers(model, s, hardware.fast_bf16(machine.device))
    first_step = restore(s, machine, model, optimizers, tokenizer) if s.resume else 0
    if warm_start and not first_step:
        checkpoint.load_optimizers(warm_start, optimizers, machine.device)
    if s.compile or (s.compile is None and hardware.can_compile(machine.device)):
        model = torch.compile(model)
    if machine.world_size > 1:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    log = Log(s, machine, raw_model, first_step, peak)
    metrics = {}
    with StopRequested() as stop:
        for step in range(first_step, s.max_steps):
            lr = lr_at(step)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr
            torch.manual_seed(s.seed + step * machine.world_size + machine.rank)  # for noise, should the model draw any
            loss, grad_norm = train_step(s, machine, model, optimizers, batch(step), micro_batch, tokenizer.eot)
            if not math.isfinite(loss) or not math.isfinite(grad_norm):
                raise UserError(
                    f"loss {loss} and gradient norm {grad_norm} at step {step}: try a lower --lr than {s.lr:g}; "
                    "the last checkpoint is untouched"
                )
            done = step + 1
            log.step(done, loss, lr, grad_norm)
            stopping = machine.sum(stop.requested)[0] > 0
            last = done == s.max_steps
            if last or (s.eval_every and done % s.eval_every == 0 and not stopping):
                metrics = evaluate(raw_model)
                log.evaluation(done, metrics)
            if machine.is_main and (last or stopping or (s.save_every and done % s.save_every == 0)):
                checkpoint.save(
                    s.out_dir,
                    done,
                    raw_model,
                    optimizers,
                    tokenizer,
                    {"settings": asdict(s), "tokens": done * s.batch_tokens, "metrics": metrics, **note(done)},
                    s.keep,
                )
            if stopping and not last:
                machine.is_main and print(
                    f"stopped after step {done}, checkpoint saved; go on with --resume", flush=True
                )
                return None
    return metrics


def train_step(s, machine, model, optimizers, arrays, micro_batch, eot):
    """One optimizer step: (loss in nats per counted token of the global batch, norm of its gradient)."""
    ids, targets = (torch.from_numpy(np.ascontiguousarray(a)).to(machine.device) for a in arrays)
    counted = machine.sum(int((targets != IGNORE).sum()))[0]
    total = torch.zeros((), device=machine.device)
    for start in range(0, len(ids), micro_batch):
        x, y = ids[start : start + micro_batch], targets[start : start + micro_batch]
        waits = machine.world_size > 1 and start + micro_batch < len(ids)  # exchange gradients once, after the last one
        with model.no_sync() if waits else nullcontext():
            with machine.autocast():
                loss = model(x, y, (x == eot).cumsum(1) if s.doc_mask else None)
            (loss * (machine.world_size / counted)).backward()  # DistributedDataParallel averages over processes
        total += loss.detach()
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, s.grad_clip or math.inf).item()
    loss = machine.sum(total.item())[0] / counted
    if math.isfinite(loss) and math.isfinite(grad_norm):
        for optimizer in optimizers:
            optimizer.step()
    for p in parameters:
        p.grad = None
    return loss, grad_norm


def restore(s, machine, model, optimizers, tokenizer):
    """Load the newest whole checkpoint in out_dir; its step. Raises UserError if it is of another run."""
    folder, meta = checkpoint.newest(s.out_dir)
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was trained with tokenizer {meta['tokenizer']}, the shards were made with {tokenizer.fingerprint}"
        )
    if meta["model"] != asdict(model.config):
        changed = [key for key, value in asdict(model.config).items() if meta["model"].get(key) != value]
        raise UserError(
            f"{folder} has another shape: {', '.join(changed)} differ; give the settings it was trained with"
        )
    if meta["step"] >= s.max_steps:
        raise UserError(
            f"{folder} has already reached step {meta['step']}: nothing to do up to max_steps={s.max_steps}"
        )
    model.load_state_dict(checkpoint.load_tensors(folder / "model.pt", machine.device))
    checkpoint.load_optimizers(folder, optimizers, machine.device)
    machine.is_main and print(f"resuming from {folder}", flush=True)
    return meta["step"]


class Log:
    """metrics.jsonl, the progress line, TensorBoard. A resumed run continues the file from the step it starts at."""

    def __init__(self, s, machine, model, first_step, peak):
        self.s, self.machine, self.last = s, machine, (first_step, time.perf_counter())
        self.flops_per_token, self.peak = model.flops_per_token(), peak
        self.writer = None
        if not machine.is_main:
            return
        out = Path(s.out_dir)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "settings.json", {"settings": asdict(s), "model": asdict(model.config), "made_by": made_by()})
        self.path = out / "metrics.jsonl"
        lines = self.path.read_text().splitlines(True) if first_step and self.path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first_step]
        self.path.with_suffix(".tmp").write_text("".join(kept))
        self.path.with_suffix(".tmp").replace(self.path)
        if s.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError("tensorboard=true needs the package tensorboard: pip install tensorboard") from None
            self.writer = SummaryWriter(s.out_dir, purge_step=first_step)

    def write(self, record):
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")
        if self.writer:
            for key, value in record.items():
                if isinstance(value, float):
                    self.writer.add_scalar(key, value, record["step"])

    def step(self, step, loss, lr, grad_norm):
        """Log every log_every-th step; speed is the mean since the line before, evaluations and compiling left out."""
        if not self.machine.is_main or (step % self.s.log_every and step not in (1, self.s.max_steps)):
            return
        now, (step_before, then) = time.perf_counter(), self.last
        tokens_per_second = (step - step_before) * self.s.batch_tokens / (now - then)
        mfu = tokens_per_second * self.flops_per_token / (self.peak * self.machine.world_size)
        self.last = step, now
        self.write(
            {
                "step": step,
                "tokens": step * self.s.batch_tokens,
                "loss": loss,
                "lr": lr,
                "grad_norm": grad_norm,
                "tokens_per_second": tokens_per_second,
                "mfu": mfu,
            }
        )
        left = (self.s.max_steps - step) * self.s.batch_tokens / tokens_per_second
        eta = clock(left) if step_before else "after warming up"  # the first step compiles
        print(
            f"step {step:>6}/{self.s.max_steps} | loss {loss:6.3f} | lr {lr:.1e} | grad {grad_norm:6.2f} | "
            f"{tokens_per_second:>9,.0f} tok/s | mfu {mfu:4.0%} | eta {eta}",
            flush=True,
        )

    def evaluation(self, step, metrics):
        self.last = step, time.perf_counter()
        if self.machine.is_main:
            self.write({"step": step, "tokens": step * self.s.batch_tokens, **metrics})
            print(
                f"step {step:>6}/{self.s.max_steps} | val loss {metrics['val_loss']:.4f} | val bpb {metrics['val_bpb']:.4f}",
                flush=True,
            )


def clock(seconds):
    """Seconds as 3:07, 1:02:03 or 4 days."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
