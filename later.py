"""What the stages behind pretraining have in common: settings of a run that goes on from a checkpoint, of one that is
tuned, and of one that learns from pairs of answers; and how the last of these begin.

Each class has the settings that it adds; a stage's own Settings come on top. train() itself stands in pretrain.py.
"""

from dataclasses import dataclass, field

from pretrain import DecayShape, Optimizer, TrainSettings, begin
from ranges import Context, Count, Natural, NotNegative, Positive, RopeBase, Seed, Share, ShareBelow1
from rope import Factor, Scaling
from shards import load_tokenizer
from training import resume
from training.dataloader import parse_folders
from training.pairs import Pairs
from training.plan import make_plan


@dataclass
class LaterSettings(TrainSettings):
    """What differs in a stage that starts from a checkpoint: how it was trained is how it is trained on."""

    # -- data and results
    init: str = "out/pretrain"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    val: str = ""  # shard folders to validate on: a,b; empty = those that are trained on
    block_size: Context | None = None  # context length; auto = as before, longer ones usually with a rope_scaling
    rope_base: RopeBase | None = None  # wavelengths of the rotary positions; auto = as before
    rope_scaling: Scaling | None = None  # how positions are stretched over a longer context; auto = as before
    rope_factor: Factor | None = None  # how far; auto = block_size / the length trained at first
    shifted_attention: bool = False  # in training a head sees a quarter of a row (LongLoRA, arXiv:2309.12307)
    # -- batch
    batch_tokens: Count | None = None  # tokens per optimizer step, over all processes; auto = as before
    doc_mask: bool | None = None  # keep attention inside each document; auto = as before
    # -- learning rate and optimizer
    optimizer: Optimizer | None = None  # auto = as before; another one than before begins with fresh state
    weight_decay: Share | None = None  # on the hidden matrices; auto = as before
    beta1: ShareBelow1 | None = None  # AdamW: decay rate of the running mean of gradients; auto = as before
    beta2: ShareBelow1 | None = None  # AdamW: decay rate of the running mean of squared gradients; auto = as before
    momentum: ShareBelow1 | None = None  # Muon: decay rate of the running mean of gradients; auto = as before
    # a gradient of a larger norm is scaled down to it; 0 = never; auto = as before
    grad_clip: NotNegative | None = None
    # -- machine
    seed: Seed | None = None  # of the order of the data; auto = as before


@dataclass
class TuningSettings(LaterSettings):
    """What a stage has that reads its data a given number of times, while the learning rate falls."""

    # -- batch
    doc_mask: bool = field(init=False, default=True)  # no setting: conversations, or the texts of a pair, share a row
    # -- learning rate and optimizer
    epochs: Positive = 1.0  # how often to read all data
    max_steps: Count | None = None  # length in optimizer steps; auto = what epochs comes to
    lr: Positive | None = None  # peak learning rate; auto = a third of that of the checkpoint's run
    decay_shape: DecayShape = "linear"  # the way down, over all steps after the warmup
    warmup_steps: Natural | None = None  # steps of linear warmup; auto = 20, or a tenth of a short run


@dataclass
class PairSettings(TuningSettings):
    """What a stage has that learns from pairs of answers."""

    # -- data and results
    data: str = "data/pairs"  # folders of pairs, a,b: each pair is read once per epoch
    init: str = "out/sft"  # the checkpoint to start from, or a folder of them, of which the newest is taken
    # -- batch
    shifted_attention: bool = field(init=False, default=False)  # no setting: answers are judged with full attention


def begin_on_pairs(settings, slower):
    """(machine, tokenizer, pairs, schedule, model, plan, what to validate on) of a stage that learns from pairs.

    slower: how many times lower than that of the checkpoint's run its learning rate is, unless it is set."""
    machine = begin(settings)
    start, meta, config = resume.starting_point(settings, machine)
    folders = parse_folders(settings.data, "data")
    val = parse_folders(settings.val, "val") if settings.val else folders
    tokenizer = load_tokenizer([folder for folder, _ in folders + val])
    data = Pairs(folders, val, settings, config.block_size, machine, tokenizer.eot)
    schedule = resume.tuning_schedule(settings, meta, data, slower)
    model = resume.trained_model(config, start, meta, tokenizer, machine)
    model.dtype, plan = machine.dtype, make_plan(model, settings, machine)
    return machine, tokenizer, data, schedule, model, plan, val
