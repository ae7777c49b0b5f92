"""What a run tells: the plan before it starts, a line now and then, metrics.jsonl, TensorBoard."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from configurator import UserError, made_by, write_json
from training.machine import device_name, dtype_name, memory_estimate, peak_flops, why_not_compile


class Log:
    """The run's voice. Only the main process speaks and writes; a resumed run continues metrics.jsonl from its step.

    Speeds are means since the line before, without evaluations and without the first step, which compiles the model.
    """

    def __init__(self, settings, machine, model, data, micro_batch):
        self.settings, self.machine, self.model = settings, machine, model
        self.writer = None
        self.clock_step, self.clock_time = None, None  # where the clock was last started
        self.peak, origin = peak_flops(machine.device, machine.dtype)
        if machine.is_main:
            print_plan(settings, machine, model, data, micro_batch, self.peak, origin)

    def open(self, first_step):
        """Begin metrics.jsonl, or continue it: lines from after first_step are of a part that is trained again."""
        self.first_step = first_step
        if not self.machine.is_main:
            return
        out = Path(self.settings.out_dir)
        out.mkdir(parents=True, exist_ok=True)
        about = {"settings": asdict(self.settings), "model": asdict(self.model.config), "made_by": made_by()}
        write_json(out / "settings.json", about)
        self.path = out / "metrics.jsonl"
        lines = self.path.read_text().splitlines(True) if first_step and self.path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first_step]
        self.path.with_suffix(".tmp").write_text("".join(kept))
        self.path.with_suffix(".tmp").replace(self.path)
        if self.settings.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError("tensorboard=true needs the package tensorboard: pip install tensorboard") from None
            self.writer = SummaryWriter(self.settings.out_dir, purge_step=first_step)

    def write(self, record):
        """A line of metrics.jsonl."""
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")
        if self.writer:
            for key, value in record.items():
                if isinstance(value, float):
                    self.writer.add_scalar(key, value, record["step"])

    def start_clock(self, step):
        """Measure speed from here on."""
        self.clock_step, self.clock_time = step, time.perf_counter()

    def speed(self, step):
        """Tokens per second of the steps since the clock was started, or None where there are none."""
        if self.clock_step is None or step == self.clock_step:
            return None
        tokens = (step - self.clock_step) * self.settings.batch_tokens
        return tokens / (time.perf_counter() - self.clock_time)

    def step(self, step, loss, lr, grad_norm):
        """Log the first, the last and every log_every-th step."""
        is_first, is_last = step == self.first_step + 1, step == self.settings.max_steps
        if self.machine.is_main and (step % self.settings.log_every == 0 or step == 1 or is_last):
            speed = self.speed(step)
            mfu = None
            if speed:
                mfu = speed * self.model.flops_per_token() / (self.peak * self.machine.world_size)
            tokens = step * self.settings.batch_tokens
            record = {"step": step, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm}
            self.write({**record, "tokens_per_second": speed, "mfu": mfu})
            self.print_step(step, loss, lr, grad_norm, speed, mfu)
            self.start_clock(step)
        elif is_first:
            self.start_clock(step)

    def print_step(self, step, loss, lr, grad_norm, speed, mfu):
        """The line on the screen."""
        progress = f"step {step:>6}/{self.settings.max_steps} | loss {loss:6.3f} | lr {lr:.1e} | grad {grad_norm:5.2f}"
        if speed is None:
            print(progress, flush=True)
            return
        left = clock((self.settings.max_steps - step) * self.settings.batch_tokens / speed)
        print(f"{progress} | {speed:>7,.0f} tok/s | mfu {mfu:4.0%} | eta {left}", flush=True)

    def evaluation(self, step, metrics):
        """Log what validate() returned."""
        self.start_clock(step)
        if self.machine.is_main:
            self.write({"step": step, "tokens": step * self.settings.batch_tokens, **metrics})
            print(
                f"step {step:>6}/{self.settings.max_steps} | "
                f"val loss {metrics['val_loss']:.4f} | val bpb {metrics['val_bpb']:.4f}",
                flush=True,
            )

    def end(self, step, metrics):
        """The last words: the last evaluation, folder by folder, or how to go on where a signal stopped the run."""
        if self.machine.is_main and step < self.settings.max_steps:
            print(f"stopped after step {step}, checkpoint saved; go on with --resume", flush=True)
        elif self.machine.is_main:
            for folder, m in metrics["sources"].items():
                print(f"{folder:<28} val loss {m['val_loss']:.4f}  val bpb {m['val_bpb']:.4f}")
            print(f"checkpoint in {self.settings.out_dir}")


def print_plan(settings, machine, model, data, micro_batch, peak, origin):
    """What is about to happen, and how long it should take."""
    n_params, tokens = model.n_params(), settings.max_steps * settings.batch_tokens
    flops = tokens * model.flops_per_token()
    bytes_per_value = machine.dtype.itemsize
    memory = memory_estimate(model.config, n_params, micro_batch, settings.optimizer, bytes_per_value)
    left_out = sum(source.n_left_out for source in data.sources)
    if left_out:
        print(f"{left_out} conversations are left out: not one answer ends within block_size={model.config.block_size}")
    per_source = zip(data.shards, data.epochs(settings.max_steps))
    epochs = ", ".join(f"{shards.folder} {n:.2f}" for shards, n in per_source)
    why_not = why_not_compile(machine.device)
    if settings.compile is False:
        compiled = "no"
    else:
        compiled = f"no, training is slower: {why_not}" if why_not else "yes: the first step takes a minute"
    seconds = flops / (0.5 * peak * machine.world_size)
    steps = f"{settings.max_steps:,} steps x {settings.batch_tokens:,}, {tokens / n_params:.1f} per parameter"
    print(
        f"""
device       {machine.world_size} x {device_name(machine.device)}
speed        {peak / 1e12:.3g} TFLOP/s ({origin})
format       {dtype_name(machine.dtype)}
compiled     {compiled}
parameters   {n_params:,}
tokens       {tokens:,} = {steps}
epochs       {epochs}
planned      {flops:.3g} FLOPs
memory       about {memory / 2**30:.2f} GiB per device at micro-batch {micro_batch}
time         about {clock(seconds)} at half of that speed
""",
        flush=True,
    )


def clock(seconds):
    """Seconds as 3:07, 1:02:03 or 4.0 days."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
