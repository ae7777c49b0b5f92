"""Stage 3: token shards -> a trunk checkpoint.

    python pretrain.py                                 small, from data/stdlib
    python pretrain.py configs/124m.toml --lr=2e-3     a recipe, another rate
    torchrun --nproc_per_node=6 pretrain.py configs/0.5b.toml    six GPUs

By default the run ends at a constant learning rate: the trunk, which can be trained on or annealed.
--decay_steps=N decays over the last N steps instead, --schedule=cosine over the whole run. The
training loop stands in this file, in train() and train_step(); anneal.py and sft.py import it.
"""

import needs  # noqa: F401

import math
import signal
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

import torch

import configurator
from configurator import Stopped, UserError
from evaluation.progress import Progress
from model import ModelConfig, Shape, Transformer
from ranges import (
    Count,
    Device,
    Natural,
    NotNegative,
    Place,
    Positive,
    Precision,
    Seed,
    Share,
    ShareBelow1,
    Text,
)
from shards import Shards, exclusive, load_tokenizer
from training import checkpoint, resume
from training import machine as machines
from training.dataloader import Mixture, batch_shape, parse_mixture
from training.dynamics import Dynamics
from training.log import Log
from training.optim import DECAYS, lr_at, make_optimizers, trained_parameters, wsd_or_cosine
from training.plan import make_plan
from training.processes import exchange_weights, exchanging_gradients
from training.tracker import TrackerName
from training.validation import validate, validation_sets

SKIPPED_AT_MOST = 3  # steps in a row without a finite loss, before a run goes back to its last checkpoint
DecayShape = Literal[tuple(DECAYS)]
Optimizer = Literal["muon", "adamw"]


@dataclass
class TrainSettings:
    """The settings of the loop, which every training stage has."""

    # -- batch
    batch_tokens: Count = 2048  # tokens per optimizer step, over all processes
    micro_batch: Count | None = None  # at most this many rows per forward pass and process; auto = what a GPU can hold
    recompute: bool = False  # keep little for the backward pass: saves memory, and takes a third longer
    doc_mask: bool = True  # keep attention inside each document
    # -- learning rate and optimizer
    max_steps: Count = 1700  # optimizer steps in all
    lr: Positive = 0.006  # peak learning rate
    min_lr_fraction: Share = 0.0  # the decay ends at this share of lr
    warmup_steps: Natural = 20  # steps of linear warmup
    decay_shape: DecayShape = "1-sqrt"  # the way down
    optimizer: Optimizer = "muon"  # muon trains the hidden matrices, AdamW the rest or all
    weight_decay: Share = 0.1  # on the hidden matrices
    beta1: ShareBelow1 = 0.9  # AdamW: decay rate of the running mean of gradients
    beta2: ShareBelow1 = 0.95  # AdamW: decay rate of the running mean of squared gradients
    momentum: ShareBelow1 = 0.95  # Muon: decay rate of the running mean of gradients
    grad_clip: NotNegative = 1.0  # gradients of a larger norm are scaled down to it; 0 = never
    # -- logging, evaluating, saving
    log_every: Count = 20  # steps between progress lines
    dynamics_every: Natural = 0  # steps between lines on how the weights move, see training/dynamics.py; 0 = none
    eval_every: Natural = 425  # steps between evaluations; 0 = only after the last step
    eval_tokens: Natural = 0  # validation tokens per source and evaluation; 0 = all
    save_every: Natural = 425  # steps between checkpoints; 0 = only after the last step
    keep: Count = 2  # checkpoints to keep
    resume: bool | None = False  # go on from the newest checkpoint in out_dir; auto = if there is one, else begin
    changed: list[str] = field(default_factory=list)  # settings that --resume takes anew knowingly: lr,grad_clip
    sample: Text = ""  # a prompt that the model continues at every evaluation
    problems: str = ""  # a file of problems, whose pass@1 is measured at every evaluation
    tracker: TrackerName = ""  # where metrics go beside metrics.jsonl
    # -- machine
    seed: Seed = 1337  # of the initial weights and the order of the data
    verify: bool = True  # compare the shards with their sha256 first: about a second per GB
    device: Device | None = None  # what to compute on; auto = the first of these that is there
    dtype: Precision | None = None  # format of matrix products; auto = bf16 where the device has units for it
    compile: bool | None = None  # torch.compile: true, false, or auto = where there is a compiler for it


@dataclass
class Settings(TrainSettings, Shape):
    """The settings of pretraining."""

    # -- data and results
    data: str = "data/stdlib"  # shard folders with weights: data/code:3,data/math:1
    best_fit: bool = False  # pack documents whole into rows instead of cutting the stream of tokens
    out_dir: Place = "out/pretrain"  # checkpoints, metrics.jsonl, settings.json
    # -- learning rate and optimizer
    schedule: Literal["wsd", "cosine"] = "wsd"  # wsd: constant, then decay_steps of decay; cosine: one decay
    decay_steps: Natural = 0  # length of wsd's decay; 0 ends at the trunk, for anneal.py to go on from
    decay_shape: DecayShape | None = None  # the way down of wsd; auto = 1-sqrt


def main(settings):
    """Pretrain a new model."""
    machine = begin(settings)
    mixture = parse_mixture(settings.data)
    tokenizer = load_tokenizer([folder for folder, _ in mixture])
    schedule = wsd_or_cosine(settings)
    batch_size, _ = batch_shape(settings, settings.block_size, machine.world_size)
    data = Mixture(mixture, settings.block_size, batch_size, settings.seed, tokenizer.eot, settings.best_fit)
    torch.manual_seed(settings.seed)
    model = Transformer(model_config(settings, tokenizer)).to(machine.device)
    train(settings, machine, model, tokenizer, data, schedule, val=mixture)


def begin(settings):
    """The Machine to train on. Raises UserError where out_dir holds another run's checkpoints."""
    machine = machines.start(settings.device, settings.dtype)
    settings.resume = resume.all_resume(settings, machine)
    return machine


def model_config(settings, tokenizer):
    """The model's part of the settings, with the vocabulary filled in."""
    config = ModelConfig(**{f.name: getattr(settings, f.name) for f in fields(Shape)})
    if not config.vocab_size:
        config.vocab_size = math.ceil(tokenizer.vocab_size / 64) * 64  # a multiple of 64 is faster
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(f"vocab_size={config.vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size}")
    return config


def next_token_loss(model, batch):
    """(summed cross-entropy in nats, number of targets in the sum) of a Batch: the loss of pretraining and tuning."""
    return model(*batch.inputs()), batch.count


def train(settings, machine, model, tokenizer, data, schedule, val, init=None, note=None, loss_fn=None, measure=None):
    """The training loop. All training stages call it; read it from top to bottom.

    settings: TrainSettings with out_dir. model: a Transformer on machine.device. data: a Mixture. schedule: a Schedule.
    val: [(shard folder, share)] to validate on. init: the checkpoint folder whose optimizer state to begin with. note:
    what else a checkpoint's meta.json should hold. loss_fn(model, batch) returns a summed loss and the number of items
    in the sum, which is batch.count; by default next_token_loss. measure(model, machine) returns what else to log of
    an evaluation, {name: value}; by default what Progress asks the model.

    Leaves metrics.jsonl, settings.json and checkpoints in settings.out_dir. Everything random is a function of the seed
    and the step, so that a run that was killed and resumed equals the unbroken one, on a CPU bit for bit.
    """
    plan, loss_fn = make_plan(model, settings, machine), loss_fn or next_token_loss
    # Every evaluation of a run reads the same tokens: else the curve would jump with the text.
    val_sets = validation_sets(val, settings, model.config.block_size, tokenizer.eot)
    with machine.together():
        if settings.verify and machine.is_main:  # a model trains on damaged shards without a word
            for folder in dict.fromkeys(folder for folder, _ in [*data.mixture, *val]):
                Shards(folder, "train").verify()
    model.dtype, model.recompute = machine.dtype, plan.recompute
    measure = measure or Progress(settings.sample, settings.problems, tokenizer, chat="chat" in (note or {})).of
    log = Log(settings, machine, model, data, plan)
    dynamics = Dynamics(settings, machine, model, plan, val_sets, tokenizer, log)
    # Each process updates the parameters that it owns, and has optimizer state for no others.
    optimizers = make_optimizers(model, settings, machines.fast_bf16(machine.device), machine.rank, machine.world_size)

    with machines.StopRequested() as machine.stop, ExitStack() as held:
        with machine.together():
            if machine.is_main:
                held.enter_context(exclusive(settings.out_dir))
                resume.should_resume(settings)  # again: another run may have ended while this one waited for the folder
        # Weights, optimizer state, `done` and `ahead` are all that a run consists of: the data loader has no state.
        done, metrics, whole = 0, {}, []  # whole: the checkpoints that are known to be
        ahead = 0  # steps by which the data are ahead of `done`, once the run has gone back and passed data over
        if settings.resume:
            folder, meta = resume.restore(settings, machine, model, optimizers, tokenizer, data, schedule)
            done, ahead, metrics = meta["step"], meta["data_ahead"], meta["metrics"]
            whole = checkpoint.whole_until(folder) if machine.is_main else [folder]  # the others delete none
        elif init:
            checkpoint.load_optimizers(init, model, optimizers, machine.device)
        log.open(done, whole[-1:])

        if plan.compiles:
            model.compile()
        raw_model = model  # without a wrapper's prefix on its names: it validates and saves

        def evaluate(step):
            """How good the model is after a step: loss on the validation sets, and what it writes if that is asked; {}
            if a signal comes. The last evaluation is finished whatever comes."""
            if step == settings.max_steps:
                machine.stop = None
            try:
                metrics = validate(raw_model, val_sets, plan, machine, tokenizer)
                with machine.together():  # the main process may ask the model for longer than gradients are waited for
                    metrics |= measure(raw_model, machine)
                machine.heed()  # what the main process has given up is given up in all
            except machines.SignalCame:
                return {}
            log.evaluation(step, metrics)
            return {"step": step, **metrics}

        evaluates = done == settings.max_steps or checkpoint.is_due(done, settings.eval_every)
        if done and evaluates and metrics.get("step") != done:
            metrics = evaluate(done) or metrics  # the signal that stopped the run came before it

        saved, in_a_row = done, 0  # the step of the newest checkpoint; steps without a finite loss
        went_back_to = None  # the checkpoint
        while done < settings.max_steps:
            # The learning rate is a pure function of the step, ...
            lr = lr_at(done, schedule)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr

            # ... and so are this process's rows of the global batch, and the noise, should the model draw any:
            # a run that resumes at this step does exactly what the unbroken one would.
            try:
                batch = data.batch(done + ahead, machine, plan)
                if machine.world_size > 1 and model is raw_model:  # once, with the first batch
                    machine.heed()  # compiling may take longer than a launcher waits
                    model = exchanging_gradients(model, next(batch.split(plan.micro_batch)), machine, loss_fn)
                torch.manual_seed(settings.seed + done * machine.world_size + machine.rank)
                dynamics.before(done, batch)
                loss, grad_norm = train_step(settings, machine, model, optimizers, batch, plan.micro_batch, loss_fn)
            except machines.SignalCame:  # the step is given up
                pass
            else:
                done += 1
                in_a_row = 0 if math.isfinite(loss) and math.isfinite(grad_norm) else in_a_row + 1
                if not in_a_row:
                    log.step(done, loss, lr, grad_norm, batch.about)
                    dynamics.after(done, grad_norm)
                else:  # one odd batch costs a step; when no batch does any more, the weights themselves are bad
                    what = f"loss {loss} and gradient norm {grad_norm} at step {done - 1}"
                    log.event(done, f"skipped: {what}")
                    if in_a_row == SKIPPED_AT_MOST:
                        reached, in_a_row = done, 0
                        done = resume.go_back(settings, whole, went_back_to, what, machine, raw_model, optimizers)
                        went_back_to, ahead = whole[-1], ahead + reached - done
                        log.event(done, f"back to {whole[-1]}, past the data of {ahead} steps")
                        continue

            stopping, is_last = machine.should_stop(), done == settings.max_steps
            if is_last or (checkpoint.is_due(done, settings.eval_every) and not stopping):
                metrics = evaluate(done) or metrics
                stopping = machine.should_stop()
            is_due = stopping or checkpoint.is_due(done, settings.save_every)
            # Behind steps without a finite loss the weights may be bad. Saved, they are what the run would go back to.
            if done > saved and (is_last or is_due and not in_a_row):
                meta = {"settings": asdict(settings), "schedule": asdict(schedule), "metrics": metrics, **(note or {})}
                meta |= {"tokens": done * settings.batch_tokens, "data_ahead": ahead, **data.position(done + ahead)}
                folder = checkpoint.save(settings.out_dir, done, raw_model, optimizers, tokenizer, meta, machine)
                whole, saved = checkpoint.to_keep(whole, folder, settings.save_every, settings.keep), done
                if machine.is_main:
                    checkpoint.delete_older(settings.out_dir, whole)
                    log.saved(done)
            if stopping:
                break
        log.end(done, metrics)
    # The wrapper must go before the processes part: in the other order the two can wait for each other for ever.
    del model
    machines.leave(machine)
    if done < settings.max_steps:
        # An exit code other than 0: what stands behind && must not begin on half a model.
        how = "checkpoint saved; --resume goes on from it" if saved == done else f"--resume goes on from step {saved}"
        how = how if saved else "nothing to save; the same command begins again"
        raise Stopped(machine.stop.signal or signal.SIGTERM, f"after step {done}, {how}")


def train_step(settings, machine, model, optimizers, batch, micro_batch, loss_fn=next_token_loss):
    """One optimizer step on a Batch: (loss per counted target of the global batch, norm of its gradient). It changes
    nothing where one of them is not finite, or where nothing counts. Raises SignalCame if a signal comes before the
    last of its backward passes.

    The loss is a sum over targets divided by their number in the *global* batch. A mean of the micro-batches' means
    would weigh a target more where few others count, and would change with micro_batch and the number of processes:

        micro-batch 1: 1000 targets, sum 3000      mean of means (3 + 1) / 2   = 2
        micro-batch 2:   10 targets, sum   10      mean          3010 / 1010   = 2.98
    """
    n_counted = machine.sum(batch.count)[0]  # known before any forward pass, as it depends on the data alone
    total_loss, total_count = torch.zeros((), device=machine.device), 0
    parts = list(batch.split(micro_batch))
    for part in parts:
        machine.heed()  # a large step takes longer than torchrun waits for its end
        # Gradients add up in p.grad. DistributedDataParallel exchanges them in backward(): once is enough, in the last.
        is_last = part is parts[-1]
        with nullcontext() if is_last or machine.world_size == 1 else model.no_sync():
            loss, count = loss_fn(model, part)
            # DistributedDataParallel averages over the processes; multiplying by their number makes that a sum.
            (loss * (machine.world_size / max(1, n_counted))).backward()
        total_loss += loss.detach()  # without its graph, whose memory is free again here
        total_count += count
    assert total_count == batch.count, "loss_fn must count the same items as batch.count"

    # One odd batch with a huge gradient must not throw the weights far off. The norm is over all parameters at once.
    hidden, others = trained_parameters(model)
    grad_norm = torch.nn.utils.clip_grad_norm_([*hidden, *others], settings.grad_clip or math.inf).item()
    loss_sum, count = machine.sum(total_loss.item(), total_count)  # item() waits until a GPU has finished
    loss = loss_sum / max(1, count)
    # In a step in which no token counts all gradients are 0, but Muon would still move the weights by its momentum.
    if n_counted and math.isfinite(loss) and math.isfinite(grad_norm):
        for optimizer in optimizers:
            optimizer.step()
        exchange_weights(model, machine)
    # The next backward() writes gradients where there are none. Those of several processes stay, as zeros, in the
    # buffers in which they are exchanged.
    model.zero_grad(set_to_none=machine.world_size == 1)
    return loss, grad_norm


if __name__ == "__main__":
    configurator.run(main, Settings)
