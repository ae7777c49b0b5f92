"""Stage 3: token shards -> a trunk checkpoint.

    python pretrain.py                                           the demo's scale, from data/stdlib
    python pretrain.py configs/124m.toml --lr=2e-3               a recipe, and a setting of your own
    torchrun --nproc_per_node=6 pretrain.py configs/0.5b.toml    six GPUs

By default the run ends in the stable phase of warmup-stable-decay: the trunk, which can be trained on or annealed.
--decay_steps=N decays to the floor instead, --schedule=cosine is a full cosine run.
"""

from dataclasses import dataclass, fields

import torch

import configurator
from configurator import UserError
from model import ModelConfig, Transformer
from shards import Shards, load_tokenizer
from training import checkpoint, hardware
from training.dataloader import Mixture, parse_mixture, validation_rows
from training.optim import check_schedule, lr_at
from training.trainer import TrainSettings, batch_shape, clock, evaluate, train


@dataclass
class Settings(TrainSettings, ModelConfig):
    data: str = "data/stdlib"  # shard folders with weights: data/code:3,data/math:1
    out_dir: str = "out/pretrain"  # checkpoints, metrics.jsonl, settings.json


def main(s):
    check_schedule(s)
    machine = hardware.start(s.device, s.dtype)
    mixture = parse_mixture(s.data)
    tokenizer = load_tokenizer([folder for folder, _ in mixture])
    batch_size, micro_batch = batch_shape(s, s.block_size, machine.world_size)
    data = Mixture(mixture, s.block_size, batch_size, s.seed)
    val_sets = {folder: validation_rows(Shards(folder, "val"), s.block_size, s.eval_tokens) for folder, _ in mixture}
    if not s.resume and checkpoint.saved(s.out_dir):
        raise UserError(
            f"{s.out_dir} already holds checkpoints: --resume goes on from the newest; or choose another --out_dir"
        )
    if s.verify and machine.is_main:
        for source in data.sources:
            source.verify()

    config = model_config(s, tokenizer)
    torch.manual_seed(s.seed)
    model = Transformer(config).to(machine.device)
    peak, origin = hardware.peak_flops(machine.device, machine.dtype)
    if machine.is_main:
        print_plan(s, machine, model, data, micro_batch, peak, origin)

    def evaluate_all(model):
        """val_loss and val_bpb per source, and their means weighted like the mixture."""
        each = {
            folder: evaluate(model, machine, rows, tokenizer.byte_lengths(), s.micro_batch, tokenizer.eot, s.doc_mask)
            for folder, rows in val_sets.items()
        }
        means = {key: sum(share * each[folder][key] for folder, share in mixture) for key in ("val_loss", "val_bpb")}
        return {**means, "sources": each}

    metrics = train(
        s,
        machine,
        model,
        tokenizer,
        lambda step: data.batch(step, machine.rank, machine.world_size),
        lambda step: lr_at(step, s),
        evaluate_all,
        peak,
    )
    if metrics and machine.is_main:
        for folder, m in metrics["sources"].items():
            print(f"{folder:<28} val loss {m['val_loss']:.4f}  val bpb {m['val_bpb']:.4f}")
        print(f"checkpoint in {s.out_dir}; try: python sample.py --checkpoint={s.out_dir}")
    hardware.stop(machine)


def model_config(s, tokenizer):
    """The model's part of the settings, with the vocabulary filled in."""
    config = ModelConfig(**{f.name: getattr(s, f.name) for f in fields(ModelConfig)})
    config.vocab_size = config.vocab_size or -(-tokenizer.vocab_size // 64) * 64
    if config.vocab_size < tokenizer.vocab_size:
        raise UserError(f"vocab_size={config.vocab_size} is smaller than the tokenizer's {tokenizer.vocab_size}")
    return config


def print_plan(s, machine, model, data, micro_batch, peak, origin):
    """What is about to happen, and how long it should take."""
    n_params, tokens = model.n_params(), s.max_steps * s.batch_tokens
    flops = tokens * model.flops_per_token()
    memory = hardware.memory_estimate(
        model.config, n_params, micro_batch, s.optimizer, 4 if machine.dtype == torch.float32 else 2
    )
    epochs = ", ".join(f"{source.folder} {n:.2f}" for source, n in zip(data.sources, data.epochs(s.max_steps)))
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


if __name__ == "__main__":
    configurator.run(main, Settings)
