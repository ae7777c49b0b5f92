"""What pretrain.py, anneal.py and sft.py have in common around the loop: checks, the plan, validation, the last words."""

import math
from dataclasses import replace

import torch

from configurator import UserError
from model import IGNORE, ModelConfig, Transformer
from shards import Shards
from training import checkpoint, hardware
from training.dataloader import validation_rows
from training.optim import check_schedule, lr_at
from training.trainer import batch_shape, clock, train


def begin(s):
    """The Machine. Raises UserError where out_dir holds another run's checkpoints."""
    if not s.resume and checkpoint.saved(s.out_dir):
        raise UserError(
            f"{s.out_dir} already holds checkpoints: --resume goes on from the newest; or choose another --out_dir"
        )
    return hardware.start(s.device, s.dtype)


def begin_later(s):
    """(machine, folder, meta, model configuration) of a stage that starts from the checkpoint s.init; the settings that
    are auto become those of the checkpoint."""
    machine = begin(s)
    folder, meta = checkpoint.newest(s.init)
    for key in ("batch_tokens", "optimizer", "weight_decay"):
        if getattr(s, key) is None:
            setattr(s, key, meta["settings"][key])
    changes = {key: getattr(s, key) for key in ("block_size", "rope_base") if getattr(s, key)}
    config = replace(ModelConfig(**meta["model"]), **changes)
    s.block_size, s.rope_base = config.block_size, config.rope_base
    return machine, folder, meta, config


def load_weights(config, folder, machine, tokenizer, meta):
    """The checkpoint's Transformer on the machine, in a configuration that may have a longer context."""
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise UserError(
            f"{folder} was trained with tokenizer {meta['tokenizer']}, the shards were made with {tokenizer.fingerprint}"
        )
    model = Transformer(config).to(machine.device)
    model.load_state_dict(checkpoint.load_tensors(folder / "model.pt", machine.device))
    return model


def val_shares(val, mixture):
    """[(folder, weight)] to validate on: the folders of val, "a,b", alike, or else those of the mixture."""
    folders = [folder for folder in val.split(",") if folder]
    return [(folder, 1 / len(folders)) for folder in folders] or mixture


def run(s, machine, model, tokenizer, data, val_shares, warm_start=None, note={}):
    """Train model on data, a Mixture, and say what was reached. val_shares: [(folder, weight in the mean)]."""
    check_schedule(s)
    if s.verify and machine.is_main:
        for shards in data.shards:
            shards.verify()
    _, micro_batch = batch_shape(s, s.block_size, machine.world_size)
    peak, origin = hardware.peak_flops(machine.device, machine.dtype)
    if machine.is_main:
        print_plan(s, machine, model, data, micro_batch, peak, origin)
    metrics = train(
        s,
        machine,
        model,
        tokenizer,
        lambda step: data.batch(step, machine.rank, machine.world_size),
        lambda step: lr_at(step, s),
        validation(s, machine, tokenizer, val_shares),
        peak,
        warm_start,
        lambda step: {"rows_read": data.rows_read(step), **note},
    )
    if metrics and machine.is_main:
        for folder, m in metrics["sources"].items():
            print(f"{folder:<28} val loss {m['val_loss']:.4f}  val bpb {m['val_bpb']:.4f}")
        print(f"checkpoint in {s.out_dir}")
    hardware.stop(machine)


def validation(s, machine, tokenizer, shares):
    """evaluate(model) -> val_loss and val_bpb per folder in shares, [(folder, weight)], and their weighted means."""
    sets = {
        folder: validation_rows(Shards(folder, "val"), s.block_size, s.eval_tokens, tokenizer.eot)
        for folder, _ in shares
    }

    def evaluate_all(model):
        each = {
            folder: evaluate(model, machine, rows, tokenizer.byte_lengths(), s.micro_batch, tokenizer.eot, s.doc_mask)
            for folder, rows in sets.items()
        }
        means = {key: sum(weight * each[folder][key] for folder, weight in shares) for key in ("val_loss", "val_bpb")}
        return {**means, "sources": each}

    return evaluate_all


@torch.no_grad()
def evaluate(model, machine, rows, byte_lengths, micro_batch, eot, doc_mask):
    """Loss in nats per token, and bits per byte, of validation rows (ids, targets), shared out over the processes.

    Bits per byte = nats / (ln 2 x bytes of the predicted text), special tokens left out of both: unlike the loss, it
    compares across tokenizers.
    """
    ids, targets = rows
    byte_lengths = torch.from_numpy(byte_lengths).to(machine.device)
    nats = counted = text_nats = text_bytes = 0.0
    model.eval()
    for start in range(machine.rank * micro_batch, len(ids), machine.world_size * micro_batch):
        x, y = (torch.from_numpy(a[start : start + micro_batch]).to(machine.device) for a in (ids, targets))
        with machine.autocast():
            losses = model(x, y, (x == eot).cumsum(1) if doc_mask else None, reduction="none").double()
        y = y.flatten()
        n_bytes = byte_lengths[y.clamp(min=0)] * (y != IGNORE)
        nats, counted = nats + losses.sum().item(), counted + (y != IGNORE).sum().item()
        text_nats, text_bytes = text_nats + losses[n_bytes > 0].sum().item(), text_bytes + n_bytes.sum().item()
    model.train()
    nats, counted, text_nats, text_bytes = machine.sum(nats, counted, text_nats, text_bytes)
    return {"val_loss": nats / counted, "val_bpb": text_nats / (math.log(2) * max(1.0, text_bytes))}


def print_plan(s, machine, model, data, micro_batch, peak, origin):
    """What is about to happen, and how long it should take."""
    n_params, tokens = model.n_params(), s.max_steps * s.batch_tokens
    flops = tokens * model.flops_per_token()
    memory = hardware.memory_estimate(
        model.config, n_params, micro_batch, s.optimizer, 4 if machine.dtype == torch.float32 else 2
    )
    left_out = sum(source.n_left_out for source in data.sources)
    if left_out:
        print(f"{left_out} conversations are left out: not one answer ends within block_size={s.block_size}")
    epochs = ", ".join(f"{source.folder} {n:.2f}" for source, n in zip(data.shards, data.epochs(s.max_steps)))
    print(
        f"""
device       {machine.world_size} x {hardware.device_name(machine.device)}, {str(machine.dtype).removeprefix("torch.")}, \
{peak / 1e12:.3g} TFLOP/s ({origin})
parameters   {n_params:,}
tokens       {tokens:,} = {s.max_steps:,} steps x {s.batch_tokens:,}, {tokens / n_params:.1f} per parameter
epochs       {epochs}
planned      {flops:.3g} FLOPs
memory       about {memory / 2**30:.2f} GiB per device at micro-batch {micro_batch}
time         about {clock(flops / (0.5 * peak * machine.world_size))} at half of that speed
""",
        flush=True,
    )
