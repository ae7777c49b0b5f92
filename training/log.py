"""What a run tells: the plan before it starts, a line now and then, metrics.jsonl, a tracker."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from attention import kernel_name
from configurator import made_by, write_json, write_text
from shards import naming
from training.machine import device_name, dtype_name, peak_flops, why_not_compile
from training.memory import memory_estimate
from training.tracker import open_tracker


class Log:
    """The run's voice. Only the main process speaks and writes; a resumed run continues metrics.jsonl from its step.

    Speeds are means since the line before, without evaluations, saving and the first step, which compiles the model.
    What is left is estimated from them and from how long the last evaluation and the last saving took.
    """

    def __init__(self, settings, machine, model, data, plan):
        self.settings, self.machine, self.model, self.plan = settings, machine, model, plan
        self.clock_step, self.clock_time = None, None  # where the clock was last started
        self.step_time = None  # when the last step ended
        self.eval_seconds, self.save_seconds = 0.0, 0.0
        self.peak, origin = peak_flops(machine.device, machine.dtype)
        if machine.is_main:
            print_plan(settings, machine, model, data, plan, self.peak, origin)

    def open(self, first_step, folders=()):
        """Begin metrics.jsonl. A resumed run goes on from the copy in its checkpoint, the last of the folders: what was
        logged after that belongs to steps that are trained again."""
        self.first_step = first_step
        if not self.machine.is_main:
            return
        out = Path(self.settings.out_dir)
        about = {"settings": asdict(self.settings), "plan": asdict(self.plan)}
        about |= {"model": asdict(self.model.config), "made_by": made_by()}
        write_json(out / "settings.json", about)
        self.path = out / "metrics.jsonl"
        before = [folder / "metrics.jsonl" for folder in folders if (folder / "metrics.jsonl").exists()]
        write_text(self.path, before[-1].read_text(encoding="utf-8") if before else "")
        self.tracker = open_tracker(self.settings.tracker, self.settings.out_dir, about, first_step)

    def write(self, record):
        """A line of metrics.jsonl."""
        with naming(self.path), open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")
        self.tracker.log(record, record["step"])

    def start_clock(self, step):
        """Measure speed from here on."""
        self.clock_step, self.clock_time = step, time.perf_counter()

    def speed(self, step):
        """Tokens per second of the steps since the clock was started, or None where there are none."""
        if self.clock_step is None or step == self.clock_step:
            return None
        tokens = (step - self.clock_step) * self.settings.batch_tokens
        return tokens / (time.perf_counter() - self.clock_time)

    def time_left(self, step, speed):
        """The rest of the run in words, evaluations and checkpoints with it."""
        steps = self.settings.max_steps - step
        seconds = steps * self.settings.batch_tokens / speed
        for every, cost in (
            (self.settings.eval_every, self.eval_seconds),
            (self.settings.save_every, self.save_seconds),
        ):
            seconds += cost * (steps // every if every else 1)
        return clock(seconds)

    def step(self, step, loss, lr, grad_norm, about=None):
        """Log the first, the last and every log_every-th step. about: what else there is to say of its batch."""
        self.step_time = time.perf_counter()
        is_first, is_last = step == self.first_step + 1, step == self.settings.max_steps
        if not self.machine.is_main:
            return
        if step == self.first_step + 4 and (speed := self.speed(step)):
            print(f"time left    about {self.time_left(step, speed)} at the pace of the first steps", flush=True)
        if step % self.settings.log_every == 0 or step == 1 or is_last:
            speed = self.speed(step)
            mfu = None
            if speed:
                mfu = speed * self.model.flops_per_token() / (self.peak * self.machine.world_size)
            tokens = step * self.settings.batch_tokens
            record = {"step": step, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm}
            self.write({**record, **(about or {"tokens_per_second": speed, "mfu": mfu})})
            self.print_step(step, loss, lr, grad_norm, speed, mfu, about)
            self.start_clock(step)
        elif is_first:
            self.start_clock(step)

    def event(self, step, what):
        """Log what seldom happens: a step that was skipped, a way back."""
        self.step_time = time.perf_counter()
        self.start_clock(step)
        if self.machine.is_main:
            self.write({"step": step, "event": what})
            print(f"{self.place(step)} {what}", flush=True)

    def place(self, step):
        """How far the run is: 1700/20000."""
        last = str(self.settings.max_steps)
        return f"{step:>{len(last)}}/{last}"

    def print_step(self, step, loss, lr, grad_norm, speed, mfu, about=None):
        """The line on the screen, of at most 80 characters."""
        line = f"{self.place(step)} loss {loss:6.3f} lr {lr:.1e} grad {grad_norm:5.2f}"
        if about:
            shown = [f"{name.split('_')[-1]} {number:.2g}" for name, number in about.items() if name != "tokens"]
            line = " ".join([self.place(step), *shown])
            while len(line) > 80:  # metrics.jsonl has them all
                line = line.rsplit(" ", 2)[0]
        elif speed:
            line += f" {short(speed):>5} tok/s mfu {mfu:3.0%} eta {self.time_left(step, speed)}"
        print(line, flush=True)

    def evaluation(self, step, metrics):
        """Log what validate() returned."""
        if self.step_time:  # of an evaluation that a resumed run makes up there is no measurement
            self.eval_seconds = time.perf_counter() - self.step_time
        self.start_clock(step)
        if self.machine.is_main:
            self.write({"step": step, "tokens": step * self.settings.batch_tokens, **metrics})
            if metrics["sources"]:
                found = f"val loss {metrics['val_loss']:.4f}  val bpb {metrics['val_bpb']:.4f}"
                print(f"{self.place(step)} {found}", flush=True)

    def saved(self, step):
        """A checkpoint was written: gigabytes, which is no training."""
        self.save_seconds = time.perf_counter() - max(self.step_time, self.clock_time)
        self.start_clock(step)

    def end(self, step, metrics):
        """The last words: the last evaluation, folder by folder."""
        if not self.machine.is_main:
            return
        self.tracker.close()
        if step == self.settings.max_steps:
            for folder, m in metrics["sources"].items():
                print(f"{folder:<28} val loss {m['val_loss']:.4f}  val bpb {m['val_bpb']:.4f}")
            print(f"checkpoint in {self.settings.out_dir}")


def print_plan(settings, machine, model, data, plan, peak, origin):
    """What is about to happen."""
    n_params, tokens = model.n_params(), settings.max_steps * settings.batch_tokens
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trained = f", of which {n_trained:,} are trained" if n_trained < n_params else ""
    flops = tokens * model.flops_per_token()
    memory = memory_estimate(model, settings, machine, plan)
    recomputed = ", recomputing in the backward pass" if plan.recompute else ""
    left_out = sum(source.n_left_out for source in data.sources)
    if left_out:
        why = f"no answer, or of a pair not both, ends within block_size={model.config.block_size}"
        print(f"{left_out} conversations are left out: {why}")
    compiled = "yes: the first step takes a minute" if plan.compiles else "no"
    if not plan.compiles and settings.compile is None:
        compiled = f"no, training is slower: {why_not_compile(machine.device)}"
    print(
        f"""
device       {machine.world_size} x {device_name(machine.device)}
speed        {peak / 1e12:.3g} TFLOP/s ({origin})
format       {dtype_name(machine.dtype)}
compiled     {compiled}
attention    {kernel_name(plan.document_form, model.config.block_size, machine.device)}
parameters   {n_params:,}{trained}
memory       about {memory / 2**30:.2f} GiB per device at micro-batch {plan.micro_batch}{recomputed}"""
    )
    if data.shards:  # else nobody knows how many tokens a step will have
        print(f"tokens       {tokens:,}, {tokens / n_params:.1f} per parameter")
        print(f"steps        {settings.max_steps:,} x {settings.batch_tokens:,} tokens")
        print(f"planned      {flops:.3g} FLOPs")
    for shards, epochs in zip(data.shards, data.epochs(settings.max_steps)):
        print(f"epochs       {epochs:.2f} of {shards.folder}")
    print(flush=True)


def short(number):
    """A number in at most five characters: 812, 43.2k, 1.23M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:  # what rounds to 1000 k is 1 M
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"


def clock(seconds):
    """Seconds as 3:07, 1:02:03 or 4.0 days."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
